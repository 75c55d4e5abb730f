"""``Model``: a graph of layers that trains, evaluates and predicts.

Layers run in :class:`fastcnn.models.net.Net`; checks, epochs, validation, callbacks and checkpoints
stand around it.

**Bytes.** uint8 images are scaled by ``model.scaling``, by default to ``x / 255 − 0.5`` as in the
article; floats are taken as they are. A model remembers the kind and the range of the numbers that
it was trained on. Other samples are refused, or cause one :class:`fastcnn.InputWarning`;
``fastcnn/data/scaling.py`` says which.

**The last activation.** The softmax belongs to the cross-entropy (the sigmoid to the binary one):
a net that ends in ``Dense(10)`` trains on scores and predicts probabilities. If it ends in that
activation, training runs on what comes before it, and ``predict`` applies it once.

**Files.** ``save`` and :func:`load_model` keep a model, ``save_checkpoint`` and ``fit(resume=…)`` a
training, which goes on to bitwise the same weights as without the interruption.

**Layers.** A model copies the layers that it is given, so no two models share one. A copy of a
built layer has its parameters. A layer that a model owns refuses some changes, see
:mod:`fastcnn.nn.layers.ownership`.

**Building** happens once, however many threads make the first call: the others wait for it.

**Chance.** Everything random (parameters, order, dropout, augmentation) is drawn from one
generator, ``model.rng``. The same seed gives bitwise the same weights, for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath
from fastcnn.core.float_errors import Divergence, unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, truth
from fastcnn.data.image_sets import ImageSet
from fastcnn.data.read_ahead import in_parts
from fastcnn.data.scaling import FEW_STEPS_TRAINED
from fastcnn.data.several import Data, concatenated, parts_of, shape_of
from fastcnn.distributed import Group
from fastcnn.engine.registry import whole_nets_refused
from fastcnn.models import kernels_ahead, model_files, picture, summary, training, training_run
from fastcnn.models.figures import Collected, Metrics
from fastcnn.models.graph import checked_tensors, graph_of, names_of
from fastcnn.models.inputs import Inputs, Source, finite
from fastcnn.models.inspection import Inspection
from fastcnn.models.net import outputs_of
from fastcnn.models.training import FitArguments
from fastcnn.models.training_run import Resumed
from fastcnn.nn.layers import Layer, Tensor, image_shape
from fastcnn.nn.losses import CrossEntropy
from fastcnn.nn.optimizers import Optimizer, optimizer_named
from fastcnn.train.callbacks import Callback
from fastcnn.train.epochs import Augmentation
from fastcnn.train.output_losses import Goal, Losses, OutputLosses
from fastcnn.train.progress import History
from fastcnn.train.sample_weights import weighted_losses, weights_of
from fastcnn.train.streams import Stream, batches_in_order, inputs_of, is_stream


class Model(Inspection):
    """A graph of layers, from inputs to outputs.

    Layers are called on tensors, which begin with :func:`fastcnn.layers.Input`; a model is made
    of input and output tensors, as in Keras's functional API. :class:`fastcnn.Sequential` is its
    simplest form::

        inputs = fastcnn.Input((32, 32, 3))
        x = Conv2D(16, 3, padding="same", activation="relu")(inputs)
        y = Conv2D(16, 3, padding="same")(x)
        x = ReLU()(Add()([x, y]))
        model = fastcnn.Model(inputs, Dense(10)(GlobalAvgPool2D()(x)))

    A layer that is called several times is shared: all its calls use the same parameters. A model
    with several inputs takes a list of arrays, or a dict by the names of its inputs; one with
    several outputs predicts a list, and takes a list of targets and losses, or dicts by the names
    of its last layers.

    The model copies the layers that it is given; its own are ``model.layers``, and their tensors
    are ``model.inputs``, ``model.outputs`` and ``layer.output``. A layer that is not built gets new
    parameters. A layer of another model keeps the values of its parameters and running statistics,
    converted to ``dtype``. Either model then trains without the other. A model that begins with the
    first layers of another one scales bytes and prepares pictures as that one does; if it also ends
    with its last layers, it has its classes and its loss, and if it ends with inner ones, it
    predicts their results as they are::

        features = base.get_layer("conv2d_3").output
        other = fastcnn.Model(base.inputs, Dense(5)(Flatten()(features)))  # transfer

    A layer whose ``trainable`` is False keeps its parameters in training, see
    :class:`fastcnn.nn.layers.Layer`::

        for layer in other.layers[:-1]:
            layer.trainable = False

    Attributes:
        layers, dtype, input_shape, output_shape: fixed; to set one is an ``AttributeError`` that
            says what to do instead. Shapes of several inputs or outputs are a tuple of shapes.
        inputs, outputs: tuples of the tensors of this model's layers.
        engine: may be set, and counts from the next call on.
        rng: may be set to another ``numpy.random.Generator``.
        loss: of the last training; until there was one, None stands for the cross-entropy, the
            binary one behind a last ``Sigmoid``. May be set to a loss, its name or None, but not
            while a ``fit`` runs; it decides what ``predict`` and ``evaluate`` return.
        scaling: how bytes are scaled, a :class:`fastcnn.Scaling`. May be set.
        classes: the names of the classes, or None. May be set.
        trained_on: "uint8", "floats" or None: what samples the model was trained on. May be set.
        preparation: how a picture becomes an input, as :class:`fastcnn.Preparation`, or None. May
            be set.
        progress: where the current or last training stands; None before the first one. May be set
            to None, which forgets it.
        stop_training: to set it True ends a running ``fit`` after its batch.
        trainable: whether any layer trains. To set it sets all layers.

    Args:
        inputs: a tensor of :func:`fastcnn.layers.Input`, or a list of them. An inner tensor may be
            an input too: the model then begins there.
        outputs: a tensor, or a list of tensors, that come from the inputs alone.
        seed: of ``model.rng``, from which the parameters are drawn; None for a random one.
        dtype: "float32" or "float64", of parameters and activations.
        engine: runs the layers one by one on this engine; None for the fastest way.

    Raises:
        TypeError, ValueError: no tensors; outputs that need another input, inputs that lead to no
            output, two layers of one name.
        MemoryError: parameters that do not fit into the machine's memory.

    Example:
        >>> from fastcnn.nn.layers import Add, Dense, Input
        >>> left, right = Input((3,), name="left"), Input((5,), name="right")
        >>> outputs = Dense(2)(Add()([Dense(4)(left), Dense(4)(right)]))
        >>> model = Model([left, right], outputs, seed=0)
        >>> model.predict([np.zeros((7, 3)), np.zeros((7, 5))]).shape
        (7, 2)
        >>> model.summary()
        name     layer     input           output shape  parameters  MFLOP
        dense    Dense(4)  left            (4,)                  16  0.000
        dense_1  Dense(4)  right           (4,)                  24  0.000
        add      Add()     dense, dense_1  (4,)
        dense_2  Dense(2)  add             (2,)                  10  0.000
        total                                                    50  0.000
    """

    def __init__(
        self,
        inputs: Tensor | Sequence[Tensor],
        outputs: Tensor | Sequence[Tensor],
        *,
        seed: int | None = None,
        dtype: Literal["float32", "float64"] = "float32",
        engine: str | None = None,
    ) -> None:
        starts, ends = checked_tensors("inputs", inputs), checked_tensors("outputs", outputs)
        graph = graph_of(starts, ends)
        super().__init__(graph, seed=seed, dtype=dtype, engine=engine)
        self._build_anew(tuple(tensor.shape for tensor in starts))

    # --- the graph --------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs as tensors, from which other layers and models can begin."""
        self._known_shapes()
        return self._tensors[0]

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs as tensors, on which other layers can be called."""
        self._known_shapes()
        return self._tensors[1]

    def get_layer(self, name: str) -> Layer:
        """The layer of this name; :meth:`summary` shows names where a graph needs them.

        Raises ``ValueError`` for a name that no layer has.

        >>> from fastcnn.nn.layers import Dense, Input
        >>> inputs = Input((3,))
        >>> Model(inputs, Dense(2)(Dense(4)(inputs))).get_layer("dense_1")
        Dense(2)
        """
        for layer, one in zip(self.layers, self._layer_names(), strict=True):
            if one == name:
                return layer
        raise ValueError(
            f"name must be that of a layer, {', '.join(self._layer_names())}, got {quoted(name)}"
        )

    def __call__(self, inputs: Tensor | Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """The model's layers on other tensors, as part of another graph; nothing is computed.

        A model that is made of the result has copies of the layers, with their parameters.

        Raises ``TypeError`` and ``ValueError`` for inputs of another number or shape.

        >>> from fastcnn.nn.layers import Dense, Input
        >>> inputs = Input((3,))
        >>> inner = Model(inputs, Dense(4)(inputs))
        >>> outer = Model(inner.inputs, Dense(2)(inner(inner.inputs[0])))
        >>> outer.layers
        [Dense(4), Dense(2)]
        """
        shapes = self._known_shapes()
        tensors = list(checked_tensors("inputs", inputs))
        if [tensor.shape for tensor in tensors] != list(shapes):
            raise ValueError(
                f"inputs must be tensors of the shapes {', '.join(map(str, shapes))}, got "
                f"{quoted(tensors)}"
            )
        for node in self._graph.nodes:
            inputs = [tensors[value] for value in node.inputs]
            tensors.append(node.layer(inputs if node.layer.takes_several else inputs[0]))
        results = tuple(tensors[value] for value in self._graph.outputs)
        return results if len(results) > 1 else results[0]

    @property
    def trainable(self) -> bool:
        """Whether training moves any layer's parameters."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        flag = truth("trainable", value)
        for layer in self.layers:
            layer.trainable = flag

    # --- building ---------------------------------------------------------------------------------

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of the current or last training; setting its rate takes effect at once.

        Raises ``ValueError`` before the first ``fit``.
        """
        if self.progress is None:
            raise ValueError("the model has no optimizer before its first fit")
        return self.progress.optimizer

    def summary(self) -> None:
        """Print a table: layer, output shape, parameters, and MFLOP for one sample.

        For a graph it also shows each layer's inputs, by the names of layers. With Rich in a
        terminal, plain elsewhere. Raises ``ValueError`` before the model is built.
        """
        summary.show(summary.rows(self._graph, self._known_shapes(), self._input_names()))

    def draw(self) -> str:
        """The graph as text: a line for each layer, with lines that lead to its inputs.

        Raises ``ValueError`` before the model is built.

        >>> from fastcnn.nn.layers import Add, Dense, Input
        >>> inputs = x = Input((4,))
        >>> x = Add()([Dense(4)(x), x])
        >>> print(Model(inputs, Dense(2)(x)).draw())
        ○    input_0  (4,)
        ├─╮
        ● │  dense  Dense(4)  (4,)
        ├─╯
        ●    add  Add()  (4,)
        ●    dense_1  Dense(2)  (2,)
        """
        return picture.drawing(self._graph, self._known_shapes(), self._input_names())

    def explain(self) -> str:
        """How the layers run: which of them compiled together, which alone, and why.

        Raises ``ValueError`` before the model is built.

        >>> from fastcnn import Sequential
        >>> from fastcnn.nn.layers import Conv2D, Dense, Flatten, MaxPool2D
        >>> model = Sequential([Conv2D(8, 3), MaxPool2D(), Flatten(), Dense(10)], (28, 28, 1))
        >>> print(model.explain())
        compiled together: Conv2D(8, 3), MaxPool2D(), Flatten(), Dense(10)
        """
        self._known_shapes()
        trunk = self._trunk(self._predicting())
        refused = whole_nets_refused(self.engine)
        if refused is not None:
            return f"layer by layer: {refused}"
        executor = self._executor(trunk)
        return executor.explain() if executor else "layer by layer: Numba's compiler is off"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(\n{self.draw()}\n)" if self.built else object.__repr__(self)

    def _repr_html_(self) -> str:
        if not self.built:
            return f"<pre>{escape(repr(self))}</pre>"
        return summary.as_html(summary.rows(self._graph, self._known_shapes(), self._input_names()))

    def compile_kernels(
        self,
        *,
        training: bool = True,
        optimizer: str | Optimizer | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Compile all kernels that this model may need, for batches of any size, and keep them.

        The first prediction and the first training step do so by themselves. This method is for a
        wait at another time, or in another process, because compiled kernels are kept in the
        cache that ``fastcnn info`` shows. A model with layers of your own, or with an engine by
        name, compiles each kernel when it needs it.

        Args:
            training: whether training is prepared too, not prediction alone.
            optimizer: a name or an optimizer; by default that of the last training, else "sgd".
            progress: is called with the number of kernels that are done, and of all. Without it a
                line on the standard error tells of compiling that takes longer than a second.

        Returns:
            How many kernels were compiled; 0 if the cache had them.

        Raises:
            ValueError: the model is not built, or an unknown optimizer.

        Example:
            >>> from fastcnn import Sequential
            >>> from fastcnn.nn.layers import Dense
            >>> model = Sequential([Dense(2)], (3,))
            >>> _ = model.compile_kernels(training=False)
            >>> model.compile_kernels(training=False)
            0
        """
        return kernels_ahead.compile_kernels(self, training, optimizer, progress)

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        x: Source,
        y: Inputs | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: Optimizer | str | None = None,
        loss: Losses | None = None,
        validation_data: tuple[Inputs, Inputs]
        | tuple[Inputs, Inputs, ArrayLike | None]
        | Source
        | None = None,
        validation_split: float = 0.0,
        callbacks: Iterable[Callback] = (),
        shuffle: bool = True,
        seed: int | None = None,
        verbose: int = 1,
        augment: Augmentation | None = None,
        resume: FilePath | None = None,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ArrayLike | None = None,
        loss_weights: Sequence[float] | Mapping[str, float] | None = None,
        steps_per_epoch: int | None = None,
        metrics: Metrics = None,
        accumulate: int = 1,
        group: Group | None = None,
        training_metrics: bool = True,
    ) -> History:
        """Train the model.

        Args:
            x: samples, (N, H, W), (N, H, W, C) or (N, features); uint8 or floats. For several
                inputs a list of such arrays, or a dict by the names of the inputs. Or a source that
                has targets too: images of :func:`fastcnn.load_images`; an object with ``__len__``
                and ``__getitem__``, whose items are batches ``(x, y)`` or ``(x, y,
                sample_weight)``, or single samples ``(x, y)``; or an iterable of batches. Batches
                are checked when their turn comes.
            y: labels (N,) or (N, 1), one-hot rows, or rows of probabilities (N, classes) that are
                at least 0 and add up to 1; of a net that ends in maps, one for each pixel: (N, H,
                W) or (N, H, W, classes). For other losses, targets. Labels are copied: if a
                callback changes ``y``, the training goes on with what it was given. Changes of x,
                and of other targets, count from the next batch. For several outputs a list of
                such arrays, or a dict by the names of the outputs' layers.
            epochs: how many times all samples are seen.
            batch_size: samples to a step; an epoch's last batch may be smaller.
            optimizer: "sgd" (the default), "adam", "adamw", "rmsprop", or an optimizer. One that
                has taken steps for this model goes on with its state, one that has taken steps
                for another model begins anew, see :class:`fastcnn.nn.optimizers.Optimizer`. A
                schedule counts from the beginning of each training.
            loss: "cross_entropy" (the default), "mse", "binary_cross_entropy", or a loss. For
                several outputs one for all of them, or a list or dict with one for each.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)``, or a source as for x, that is
                evaluated after each epoch.
            validation_split: the share of x, y and ``sample_weight``, taken from their end, that
                is held out for validation instead.
            callbacks: called between batches and epochs, see :class:`fastcnn.Callback`.
            shuffle: whether each epoch takes the samples in another order.
            seed: starts ``model.rng`` anew; None goes on with it. A model that is built here
                draws its parameters from this seed, unless it was given one of its own.
            verbose: 1 prints a line for each epoch, and shows on a terminal and in a notebook how
                far the epoch is; 0 prints nothing.
            augment: applied to the images of each batch, as ``augment(images, rng)``, such as
                :class:`fastcnn.Augment`.
            resume: a file of :meth:`save_checkpoint`, whose training goes on until ``epochs`` are
                done, counted from its very beginning. Weights, optimizer with state and rate,
                generator and history come from there (``seed`` has no say); the data and all
                other arguments must be those that the training began with.
            class_weight: how much the samples of each class count, ``{class: weight}``, such as
                ``{0: 1, 1: 99}``; 1 for a class that is not named. The class of a row of
                probabilities is the most probable one. For cross-entropy, and for binary
                cross-entropy with one output and targets 0 and 1. Validation does not use it.
            sample_weight: how much each sample counts, (N,), finite and at least 0; copied. Where
                the cross-entropy has a class for each pixel, also one for each pixel. With
                ``class_weight`` the weight w of a sample is the product of both. As in Keras, the
                loss of a batch of B samples is ``Σ w · loss / B``: it is divided by the number of
                samples, not by ``Σ w``. Weights whose mean is 1 leave the size of steps as it is.
            loss_weights: for several outputs, how much the loss of each counts in their sum, as a
                list or dict; 1 by default.
            steps_per_epoch: batches to an epoch; by default all. An iterator needs it: each epoch
                takes the batches that come next.
            metrics: what is computed beside the loss: a list of names, such as ["f1",
                "top_5_accuracy"], of metrics of ``fastcnn.metrics``, and of functions of targets
                and predictions. For several outputs a dict of lists. On the validation data the
                names begin with ``val_``.
            accumulate: each batch is computed in so many parts, whose gradients are added before
                the optimizer's one step, so that larger batches fit into the memory.
            group: the processes that train the model together, such as
                :func:`fastcnn.distributed.world`; all of them call ``fit`` with the same arguments.
                ``batch_size`` counts the samples of all processes. The weights are the same, to the
                bit, for any number of processes, and differ by rounding from those without a
                group. Rank 0 alone prints, and calls callbacks
                (:attr:`fastcnn.Callback.on_every_process`). ``x`` is an array or a set of images.
            training_metrics: whether ``metrics`` are computed on the training batches too, from
                the outputs of the training steps. These are kept until the end of the epoch, so
                the figures are those of all samples together.

        Returns:
            The history: losses and accuracies of all epochs. ``loss`` and ``accuracy`` are means
            over the epoch's batches, each as the model was when it saw them. Losses are those
            that the weights give; accuracies count each sample once. For several outputs there
            are also ``{name}_loss`` and ``{name}_accuracy`` of each.

        Raises:
            TypeError, ValueError: a wrong argument, or data with NaN, wrong labels or wrong
                shapes; found before any work.
            ModelFileError: a file to resume that is damaged or no checkpoint.
            FloatingPointError: the loss became infinite or NaN. The model keeps the weights that
                it had before that step.

        Example:
            >>> from fastcnn import Sequential
            >>> from fastcnn.nn.layers import Dense
            >>> rng = np.random.default_rng(0)
            >>> x = rng.standard_normal((64, 2))
            >>> y = (x[:, 0] > x[:, 1]).astype(int)
            >>> model = Sequential([Dense(2)], seed=0)
            >>> history = model.fit(x, y, epochs=30, optimizer="adam", seed=0, verbose=0)
            >>> history.epochs, history.history["loss"][-1] < history.history["loss"][0]
            (30, True)
        """
        if self._fits == os.getpid():
            raise ValueError("fit cannot begin while another fit of the model runs")
        resumed = None
        if resume is not None:
            compares_loss = loss is not None or loss_weights is not None
            resumed = Resumed(resume, compares_loss, optimizer is not None)
        arguments = FitArguments(
            x, y, epochs, batch_size, optimizer, loss, validation_data, validation_split, callbacks,
            shuffle, seed, verbose, augment, class_weight, sample_weight, loss_weights,
            steps_per_epoch, metrics, accumulate, training_metrics,
        )  # fmt: skip
        return training_run.run(self, resumed, group, arguments)

    def train_on_batch(
        self,
        x: Inputs,
        y: Inputs,
        optimizer: Optimizer | None = None,
        loss: Losses | None = None,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> tuple[float, float]:
        """One step on one batch; its mean loss and accuracy, before the step.

        Args:
            x, y: as for :meth:`fit`.
            optimizer: an optimizer, whose state goes on from call to call; None stands for
                ``SGD(0.005)``. It must have taken no steps for another model.
            loss, class_weight, sample_weight: as for :meth:`fit`.

        Returns:
            Loss and accuracy; the accuracy is NaN for a loss that has none.

        Raises:
            TypeError, ValueError, FloatingPointError: as for :meth:`fit`, before any weight
                changes.

        Example:
            >>> from fastcnn import Sequential
            >>> from fastcnn.nn.layers import Dense
            >>> model = Sequential([Dense(2, kernel_initializer="zeros")], (3,))
            >>> loss, accuracy = model.train_on_batch(np.ones((4, 3)), [0, 0, 0, 1])
            >>> round(loss, 4), accuracy
            (0.6931, 0.75)
        """
        descent = self._own_sgd if optimizer is None else optimizer
        if not isinstance(descent, Optimizer):
            raise TypeError(
                f"optimizer must be an optimizer such as SGD(0.005), got {quoted(optimizer)}"
            )
        serves = descent.serves(self._ownership)
        if not serves:
            optimizer_named(descent)  # none whose methods were replaced
        goal = self._loss() if loss is None else self._goal(loss)
        built_for = self.input_shape  # read once, because another thread may build the model
        images = self._samples("x", x)
        if not len(images):
            raise ValueError(f"x must hold at least one sample, got {shape_of(images)}")
        knowledge = self._knowledge
        routine = knowledge.is_routine(images)
        if not routine:
            knowledge.glance("x", images, FEW_STEPS_TRAINED, closer=True)
        if built_for is None:
            assert isinstance(images, np.ndarray)
            finite("x", images)
            shape = image_shape(images.shape[1:])
            self._doubt_layout("x", shape, len(images))
            outputs = outputs_of(self._trunk(goal), (shape,))
            targets = training.checked_targets(goal, y, len(images), outputs, self.dtype)
            weights_of(sample_weight, class_weight, goal, targets, outputs, self.dtype)
            self._build_once((shape,))
        outputs = self._outputs(goal)
        targets = training.checked_targets(goal, y, len(images), outputs, self.dtype)
        weights = None
        if sample_weight is not None or class_weight is not None:
            weights = weights_of(sample_weight, class_weight, goal, targets, outputs, self.dtype)
        if not serves:
            descent.serve(self._ownership)
        try:
            loss_sum, correct = self._step(images, targets, goal, descent, weights)
        except Divergence:
            training.all_finite("x", images)  # NaN in the data shows in the loss, and is named here
            raise
        if goal is not self.loss:
            self.loss = goal
        if not routine:
            knowledge.learn_batch(images, self._normalises)
        return loss_sum / len(images), correct / len(images)

    # --- evaluation and prediction ----------------------------------------------------------------

    def evaluate(
        self,
        x: Source,
        y: Inputs | None = None,
        batch_size: int = 256,
        sample_weight: ArrayLike | None = None,
        metrics: Metrics = None,
    ) -> dict[str, float]:
        """Mean loss over all samples, and accuracy where the loss has one.

        Args:
            x, y: as for :meth:`fit`.
            batch_size: samples that run together; it does not change the result.
            sample_weight: how much each sample's loss counts, (N,), as for :meth:`fit`: the loss
                is ``Σ w · loss / N``. Accuracy and metrics count each sample once.
            metrics: as for :meth:`fit`.

        Returns:
            ``{"loss": …, "accuracy": …}``; for several outputs the loss, and ``{name}_loss`` and
            ``{name}_accuracy`` of each.

        Raises:
            TypeError, ValueError: a wrong argument; NaN, wrong labels or wrong shapes; a model
                that is not built.

        Example:
            >>> from fastcnn import Sequential
            >>> from fastcnn.nn.layers import Dense
            >>> model = Sequential([Dense(2, kernel_initializer="zeros")], (3,))
            >>> model.evaluate(np.ones((4, 3)), [0, 0, 0, 1])["accuracy"]
            0.75
        """
        self._known_shapes()
        size = count("batch_size", batch_size)
        loss, figures = self._loss(), training.named_metrics(self, metrics)
        if training.is_source(x):
            if y is not None or sample_weight is not None:
                raise ValueError("y and sample_weight must be None where x gives batches")
            of_batches, _ = training.stream_of(self, "x", x, size, None, loss, repeats=False)
            return self._evaluate(of_batches, None, None, size, figures)
        x, y, _ = training.parts_of_set(x, y)
        images, targets = self._checked("x", x, y, loss)
        weights = weights_of(sample_weight, None, loss, targets, self._outputs(loss), self.dtype)
        return self._evaluate(images, targets, weights, size, figures)

    @unreported
    def _evaluate(
        self,
        images: Data | Stream,
        targets: Any,
        weights: Array | None,
        size: int,
        metrics: Sequence[training.NamedMetric] = (),
        collected: Collected | None = None,
    ) -> dict[str, float]:
        """The figures of an evaluation; ``collected`` gets its outputs, if the caller has one."""
        loss: Any = self._loss()
        all_outputs = Collected(loss, metrics, self.engine) if collected is None else collected
        total, correct, samples, sums = 0.0, 0.0, 0, dict[str, float]()
        for x, of_batch, weights_of_batch in batches_in_order(images, targets, weights, size):
            y = self._forward_batch(x, loss)
            losses = weighted_losses(loss, y, of_batch, weights_of_batch, self.engine)
            all_outputs(y, of_batch)
            total, samples = total + float(losses.sum(dtype=np.float64)), samples + len(x)
            if isinstance(loss, OutputLosses):
                figures = loss.figures(y, of_batch, weights_of_batch, self.engine)
                for name, value in figures.items():
                    sums[name] = sums.get(name, 0.0) + value
            else:
                correct += loss.correct(y, of_batch)
        result = {"loss": total / samples}
        result |= {name: value / samples for name, value in sums.items()}
        if loss.counts:
            result["accuracy"] = correct / samples
        return result | all_outputs.values() if collected is None else result

    def predict(self, x: Source, batch_size: int = 256) -> Any:
        """Predictions: probabilities (N, classes); with the mean squared error, raw outputs.

        A net that ends in maps predicts the raw outputs of its last layer, unless it was trained;
        with the cross-entropy it then predicts probabilities for each pixel, (N, H, W, classes). A
        net with several outputs predicts a list, with an array for each.

        Args:
            x: samples as for :meth:`fit`; NaN is not looked for. An empty batch gives an empty
                result. A sequence or an iterable may give batches of samples without targets.
            batch_size: samples that run together; it does not change the result.

        Raises:
            TypeError, ValueError: a wrong argument or shape; bytes, where the model was trained
                on floats.
        """
        size = count("batch_size", batch_size)
        built_for = self.input_shape  # read once, because another thread may build the model
        samples: Any = x
        if not isinstance(x, np.ndarray):
            if isinstance(x, ImageSet):
                samples = x.images
            elif is_stream(x):
                return self._predicted_of(x, size)
        images = self._samples("x", samples)
        self._knowledge.glance("x", images)
        if built_for is None:
            assert isinstance(images, np.ndarray)
            self._doubt_layout("x", image_shape(images.shape[1:]), len(images))
            self._build_once((image_shape(images.shape[1:]),))
        return self.predict_checked(images, size)

    def _predicted_of(self, x: object, size: int) -> Any:
        """Predictions of all batches of a stream."""
        shape: Any = self.input_shape if self._graph.inputs == 1 else None
        parts = [self.predict(part, size) for part in inputs_of(x, size, shape)]
        if not parts:
            raise ValueError("x must give at least one batch, got none")
        return concatenated(parts) if isinstance(parts[0], list) else np.concatenate(parts)

    def predict_checked(self, images: Data, size: int = 256) -> Any:
        """:meth:`predict` for samples (N, …) that are checked; the model is built."""
        loss = self._loss() if self._ends_in_vector else self._predicting()
        if len(images) <= size:
            return self._predicted(images, loss)
        parts = [self._predicted(part, loss) for _, part in in_parts(images, size)]
        if isinstance(loss, OutputLosses):
            return concatenated(parts)
        predicted: Array = np.concatenate(parts)
        return predicted

    def _predicted(self, images: Data, loss: Goal) -> Any:
        has_rows = type(loss) is CrossEntropy and self._ends_in_vector
        executor = self._executor(self._trunk(loss)) if has_rows else None
        if executor is not None:
            inputs = self._executor_inputs(images, executor, training=False)
            if len(inputs) == 1:
                probabilities = executor.probabilities(inputs[0])
                if probabilities is not None:
                    return probabilities
        goal: Any = loss
        predicted = goal.predictions(self._forward_batch(images, loss), self.engine)
        # Layers that only rearrange return views of their input, which may be another output too.
        arrays_of_caller, results = [np.asarray(part) for part in parts_of(images)], list[Array]()
        for array in predicted if isinstance(predicted, list) else [predicted]:
            shared = any(
                np.may_share_memory(array, other) for other in (*arrays_of_caller, *results)
            )
            results.append(array.copy() if shared else array)
        return results if isinstance(predicted, list) else results[0]

    def predict_classes(self, x: Source, batch_size: int = 256) -> Array:
        """The most probable class of each sample, (N,) int64, or of each pixel, (N, H, W).

        Arguments as for :meth:`predict`. With one output, whether it is above one half: 0 or 1.
        """
        predicted = self.predict(x, batch_size)
        if isinstance(predicted, list):
            raise ValueError("predict_classes needs a net with one output; use predict")
        if predicted.ndim > 2 and self.loss is None:
            raise ValueError(
                "predict_classes needs a net that ends in (classes,), or has learned a class for "
                f"each pixel, got {self.output_shape}"
            )
        if predicted.shape[-1] == 1:
            return np.asarray(predicted[..., 0] > 0.5, np.int64)
        return np.asarray(predicted.argmax(axis=-1))

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: FilePath) -> None:
        """Write the model to a safetensors file, which :func:`load_model` reads.

        An old file is replaced atomically, once the new one is whole on the disk. It keeps its
        permissions, and a link to it stays a link. What is no file, such as a device, is refused.

        Raises ``ValueError`` before the model is built or for a name in .onnx, ``ModelFileError``
        for a file that could not be loaded again, ``OSError`` for ``path``; an earlier file stays.
        """
        model_files.save(self, path)

    def save_checkpoint(self, path: FilePath) -> None:
        """Write model and training, for ``fit(resume=path)``; after a batch, an epoch or a ``fit``.

        Weights, optimizer with its state, epoch and batch, generator, history, and the state of
        callbacks. :func:`load_model` reads the file too, as a model. Any callback may save: those
        that come after it in the list are called for the same batch or epoch when the training is
        resumed. Where :class:`fastcnn.EarlyStopping` has put the best weights into the model, the
        file also has those that the training goes on from.

        Raises ``ValueError`` before the first ``fit``, in the middle of a batch, and for a state of
        a callback or an optimizer that cannot be saved; else as :meth:`save`.
        """
        model_files.save_checkpoint(self, path)

    def save_onnx(
        self,
        path: FilePath,
        layout: Literal["channels_last", "channels_first"] = "channels_last",
        of: Literal["predictions", "scores"] = "predictions",
    ) -> None:
        """Write the model to an ONNX file, which other runtimes read; needs ``fastcnn[onnx]``.

        Inputs and outputs have the names that they have here, and the batch is free. A model that
        was trained on bytes takes bytes, which the graph scales as :meth:`predict` does; other
        models take floats. Dropout is left out. The file is checked before it takes its place.

        Args:
            path: the file, which is written whole or not at all.
            layout: "channels_last": images are (N, H, W, C), as here. "channels_first": they are
                (N, C, H, W), as in PyTorch, and nothing is transposed.
            of: "predictions" are what :meth:`predict` returns; "scores" are the raw outputs, before
                a last softmax or sigmoid, whether that is a layer or part of the loss.

        Raises:
            ValueError: the model is not built, is of float64, is too large for a file, or has a
                layer of your own without a method ``to_onnx``; the message names it.
            ImportError: without onnx.
            OSError: the file cannot be written; an earlier file stays as it was.
        """
        # By name, because the room of other libraries' files stands above this one.
        import_module("fastcnn.exchange.onnx_export").save_onnx(self, path, layout, of)

    def save_html(
        self,
        path: FilePath,
        samples: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        weights: Literal["float64", "float32", "float16"] | None = None,
        title: str | None = None,
    ) -> None:
        """Write a page to draw on, on which this model runs, as :func:`fastcnn.exchange.save_html`.

        Arguments and errors are described there.
        """
        module = import_module("fastcnn.exchange.html_export")
        module.save_html(self, path, samples, class_names, weights, title)

    def _checked(self, name: str, x: Any, y: Any, loss: Goal) -> tuple[Data, Data]:
        images = self._samples(name, x)
        if not len(images):
            raise ValueError(f"{name} must hold at least one sample, got {shape_of(images)}")
        training.all_finite(name, images)
        self._knowledge.check(name, images)
        outputs = self._outputs(loss)
        return images, training.checked_targets(loss, y, len(images), outputs, self.dtype)

    def _layer_names(self) -> list[str]:
        return [layer.name for layer in self.layers] if self.built else names_of(self.layers)
