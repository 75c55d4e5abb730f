"""``Sequential``: layers in a row that train, evaluate and predict.

Layers run in :class:`fastcnn.models.net.Net`; checks, epochs, validation, callbacks and checkpoints
stand around it.

**Bytes.** uint8 images are scaled to ``x / 255 − 0.5``, as in the article; floats are taken as they
are. A model remembers the kind and the range of the numbers that it was trained on. Other samples
are refused, or cause one :class:`fastcnn.InputWarning`; ``fastcnn/data/scaling.py`` says which.

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
from functools import partial
from html import escape
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath
from fastcnn.core.float_errors import Divergence, unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, truth
from fastcnn.data.on_demand import Samples
from fastcnn.data.preparation import Preparation
from fastcnn.data.scaling import FEW_STEPS_TRAINED, Kind, known_from
from fastcnn.engine.registry import whole_nets_refused
from fastcnn.models import model_files, summary, training
from fastcnn.models.input_gradients import through, upstream
from fastcnn.models.inputs import batch, finite, samples
from fastcnn.models.net import Net, image_shape
from fastcnn.nn.layers import Layer, Sigmoid, Softmax, infer_stack
from fastcnn.nn.losses import BinaryCrossEntropy, CrossEntropy, Loss, loss_named
from fastcnn.nn.optimizers import Optimizer, optimizer_named
from fastcnn.train import checkpoint
from fastcnn.train.callbacks import Callback
from fastcnn.train.epochs import Augmentation, Epochs
from fastcnn.train.progress import History
from fastcnn.train.sample_weights import weighted, weights_of


class Sequential(Net):
    """A stack of layers.

    The model copies the layers that it is given; its own are ``model.layers``. A layer that is not
    built gets new parameters. A layer of another model keeps the values of its parameters and
    running statistics, converted to ``dtype``. Either model then trains without the other::

        maps = Sequential(model.layers[:2], model.input_shape)  # maps.predict(x): feature maps
        other = Sequential([*model.layers[:-1], Dense(5)], model.input_shape)  # transfer

    One list of new layers makes any number of models, each with parameters of its own. To begin
    anew from the layers of a trained model, write them out again.

    A layer whose ``trainable`` is False keeps its parameters in training, see
    :class:`fastcnn.nn.layers.Layer`::

        for layer in other.layers[:-1]:
            layer.trainable = False

    Attributes:
        layers, dtype, input_shape, output_shape: fixed; to set one is an ``AttributeError`` that
            says what to do instead.
        engine: may be set, and counts from the next call on.
        rng: may be set to another ``numpy.random.Generator``.
        loss: of the last training; until there was one, None stands for the cross-entropy, the
            binary one behind a last ``Sigmoid``. May be set to a loss, its name or None, but not
            while a ``fit`` runs; it decides what ``predict`` and ``evaluate`` return.
        trained_on: "uint8", "floats" or None: what samples the model was trained on. May be set.
        preparation: how a picture becomes an input, as :class:`fastcnn.Preparation`, or None. May
            be set.
        progress: where the current or last training stands; None before the first one. May be set
            to None, which forgets it.
        stop_training: to set it True ends a running ``fit`` after its batch.
        trainable: whether any layer trains. To set it sets all layers.

    Args:
        layers: the layers, from input to output. None may be there twice, also not inside of a
            ``Residual``.
        input_shape: of one sample, (H, W, C), (H, W) for one channel, or (features,). With it the
            model is built at once, else by the first ``fit``, ``train_on_batch`` or ``predict``.
        seed: of ``model.rng``, which draws everything random; None for a fresh one.
        dtype: "float32" or "float64", of parameters and computations.
        engine: the engine that runs the layers, or None for the fastest.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value; layers that do not fit:
            which one, what it got and what it needs; a built layer whose parameters have other
            shapes than this input needs.

    Example:
        >>> from fastcnn.nn.layers import Conv2D, Dense, Flatten, MaxPool2D
        >>> layers = [Conv2D(8, 3), MaxPool2D(), Flatten(), Dense(10)]
        >>> model = Sequential(layers, (28, 28, 1), seed=0)
        >>> model.predict(np.zeros((2, 28, 28), np.uint8)).shape
        (2, 10)
        >>> model.summary()
        layer         output shape  parameters  MFLOP
        Conv2D(8, 3)  (26, 26, 8)           80  0.097
        MaxPool2D()   (13, 13, 8)
        Flatten()     (1352,)
        Dense(10)     (10,)             13,530  0.027
        total                           13,610  0.124
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        input_shape: Sequence[int] | None = None,
        *,
        seed: int | None = None,
        dtype: Literal["float32", "float64"] = "float32",
        engine: str | None = None,
    ) -> None:
        super().__init__(layers, seed=seed, dtype=dtype, engine=engine)
        if input_shape is not None:
            self.build(input_shape)

    @property
    def trainable(self) -> bool:
        """Whether training moves any layer's parameters."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        chosen = truth("trainable", value)
        for layer in self.layers:
            layer.trainable = chosen

    # --- building ---------------------------------------------------------------------------------

    def build(self, input_shape: Sequence[int]) -> None:
        """Infer all shapes and draw the parameters; for a model without ``input_shape``.

        Parameters of layers that came built keep their values. If it fails, nothing has changed.

        Raises ``ValueError`` for layers that do not fit, and where the model is built already;
        ``MemoryError`` for parameters that do not fit into the machine's memory.
        """
        self._build_anew(image_shape(input_shape))

    @property
    def trained_on(self) -> Kind | None:
        """ "uint8" for bytes, "floats" for other numbers, or None before a training."""
        return self._known.kind

    @trained_on.setter
    def trained_on(self, kind: Kind | None) -> None:
        self._known = known_from(kind, None)

    @property
    def preparation(self) -> Preparation | None:
        """How a picture becomes an input of this model, for ``fastcnn.data.pictures.prepare``.

        The first ``fit`` on images of bytes finds it in them; set it where that is wrong. None
        where nothing is known, as in a model that was trained on floats.

        Raises ``TypeError`` where it is set to anything else.

        >>> from fastcnn.nn.layers import Dense, Flatten
        >>> model = Sequential([Flatten(), Dense(2)], (28, 28, 1))
        >>> model.preparation = Preparation(background="dark")
        """
        return self._preparation

    @preparation.setter
    def preparation(self, value: Preparation | None) -> None:
        if value is not None and not isinstance(value, Preparation):
            raise TypeError(f"preparation must be a fastcnn.Preparation or None, got {value!r}")
        self._preparation = value

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

        With Rich in a terminal, plain elsewhere. Raises ``ValueError`` before the model is built.
        """
        summary.show(summary.rows(self.layers, self._known_shape()))

    def explain(self) -> str:
        """How the layers run: which of them compiled together, which alone, and why.

        Raises ``ValueError`` before the model is built.

        >>> from fastcnn.nn.layers import Conv2D, Dense, Flatten, MaxPool2D
        >>> model = Sequential([Conv2D(8, 3), MaxPool2D(), Flatten(), Dense(10)], (28, 28, 1))
        >>> print(model.explain())
        compiled together: Conv2D(8, 3), MaxPool2D(), Flatten(), Dense(10)
        """
        self._known_shape()
        trunk = self._trunk(self._predicting())
        refused = whole_nets_refused(self.engine)
        if refused is not None:
            return f"layer by layer: {refused}"
        executor = self._executor(trunk)
        return executor.explain() if executor else "layer by layer: Numba's compiler is off"

    def __repr__(self) -> str:
        layers = "".join(f"\n    {layer!r}," for layer in self.layers)
        return f"Sequential([{layers}\n], input_shape={self.input_shape})"

    def _repr_html_(self) -> str:
        if self.input_shape is None:
            return f"<pre>{escape(repr(self))}</pre>"
        return summary.as_html(summary.rows(self.layers, self.input_shape))

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
            >>> from fastcnn.nn.layers import Dense
            >>> model = Sequential([Dense(2)], (3,))
            >>> _ = model.compile_kernels(training=False)
            >>> model.compile_kernels(training=False)
            0
        """
        shape, loss = self._known_shape(), self._loss()
        if optimizer is None:
            optimizer = "sgd" if self.progress is None else self.progress.optimizer
        steps = optimizer_named(optimizer)
        predicting = self._executor(self._trunk(self._predicting()))
        if predicting is None:
            return 0
        total = 0
        kinds = [self.dtype] if self.trained_on == "floats" else [self.dtype, np.dtype(np.uint8)]
        for kind in kinds:
            like = self._executor_input(np.zeros((1, *shape), kind), predicting)
            total += predicting.prepare_prediction(like, progress)
        labels = isinstance(loss, CrossEntropy)
        if training and (self._ends_in_vector or not labels):
            learning = self._executor(self._trunk(loss))
            assert learning is not None
            outputs = () if labels else self._outputs(loss)
            targets = np.zeros((1, *outputs), np.int64 if labels else self.dtype)
            for kind in kinds:
                like = self._executor_input(np.zeros((1, *shape), kind), learning)
                total += learning.prepare_training(like, targets, loss, steps, progress)
        return total

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: Optimizer | str | None = None,
        loss: Loss | str | None = None,
        validation_data: tuple[ArrayLike, ArrayLike]
        | tuple[ArrayLike, ArrayLike, ArrayLike | None]
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
    ) -> History:
        """Train the model.

        Args:
            x: samples, (N, H, W), (N, H, W, C) or (N, features); uint8 or floats.
            y: labels (N,) or (N, 1), one-hot rows, or rows of probabilities (N, classes) that are
                at least 0 and add up to 1; for other losses, targets. Labels are copied: if a
                callback changes ``y``, the training goes on with what it was given. Changes of x,
                and of other targets, count from the next batch.
            epochs: how many times all samples are seen.
            batch_size: samples to a step; an epoch's last batch may be smaller.
            optimizer: "sgd" (the default), "adam", "adamw", "rmsprop", or an optimizer. One that
                has taken steps for this model goes on with its state, one that has taken steps
                for another model begins anew, see :class:`fastcnn.nn.optimizers.Optimizer`. A
                schedule counts from the beginning of each training.
            loss: "cross_entropy" (the default), "mse", "binary_cross_entropy", or a loss.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)`` that is evaluated after each
                epoch.
            validation_split: the share of x, y and ``sample_weight``, taken from their end, that
                is held out for validation instead.
            callbacks: called between batches and epochs, see :class:`fastcnn.Callback`.
            shuffle: whether each epoch takes the samples in another order.
            seed: starts ``model.rng`` anew; None goes on with it. A model that is built here
                draws its parameters from this seed, unless it was given one of its own.
            verbose: 1 prints a line for each epoch, 0 nothing.
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
            sample_weight: how much each sample counts, (N,), finite and at least 0; copied. With
                ``class_weight`` the weight w of a sample is the product of both. As in Keras, the
                loss of a batch of B samples is ``Σ w · loss / B``: it is divided by the number of
                samples, not by ``Σ w``. Weights whose mean is 1 leave the size of steps as it is.

        Returns:
            The history: losses and accuracies of all epochs. ``loss`` and ``accuracy`` are means
            over the epoch's batches, each as the model was when it saw them. Losses are those
            that the weights give; accuracies count each sample once.

        Raises:
            TypeError, ValueError: a wrong argument, or data with NaN, wrong labels or wrong
                shapes; found before any work.
            ModelFileError: a file to resume that is damaged or no checkpoint.
            FloatingPointError: the loss became infinite or NaN. The model keeps the weights that
                it had before that step.

        Example:
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
        fit = training.checked_fit(
            self, x, y, epochs, batch_size, optimizer, loss, validation_data, validation_split,
            callbacks, shuffle, seed, verbose, augment, class_weight, sample_weight,
        )  # fmt: skip
        if resume is None:
            training.begin(self, fit)
        else:
            training.resume(
                self,
                checkpoint.read(resume),
                fit,
                compares_loss=loss is not None,
                compares_optimizer=optimizer is not None,
            )
        return self._train(fit, resumed=resume is not None)

    def _train(self, fit: training.Fit, resumed: bool) -> History:
        """Epochs from where ``self.progress`` stands."""
        assert self.progress is not None
        loss, optimizer = self._loss(), self.progress.optimizer

        def step(images: Array, targets: Array, weights: Array | None) -> tuple[float, float]:
            return self._step(images, targets, loss, optimizer, weights)

        def learning_step(
            images: Array, targets: Array, weights: Array | None
        ) -> tuple[float, float]:
            # The layers are trained on the results of a user's augmentation, not on x.
            self._known.learn_batch(images, self._normalises)
            return step(images, targets, weights)

        validate = None if fit.validation is None else partial(self._evaluate, *fit.validation, 256)
        takes = step if training.keeps_scale(fit.augment) else learning_step
        loop = Epochs(self, self.progress, *fit.data, takes, validate, loss.counts, fit.augment)
        with optimizer.running():
            if not resumed:
                optimizer.begin(self._ownership, self.progress)
            self._fits = os.getpid()
            try:
                return loop.run(fit.epochs, fit.verbose)
            finally:
                self._fits = 0

    def train_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike,
        optimizer: Optimizer | None = None,
        loss: Loss | str | None = None,
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
        goal = self._loss() if loss is None else loss_named(loss)
        built_for = self.input_shape  # read once, because another thread may build the model
        images = samples("x", x, built_for)
        if not len(images):
            raise ValueError(f"x must hold at least one sample, got {np.shape(x)}")
        routine = self._known.is_routine(images)
        if not routine:
            self._known.glance("x", images, FEW_STEPS_TRAINED, closer=True)
        if built_for is None:
            finite("x", images)
            shape = image_shape(images.shape[1:])
            self._doubt_layout("x", shape, len(images))
            outputs = infer_stack(self._trunk(goal), shape)[-1]
            targets = goal.targets(y, len(images), outputs, self.dtype)
            weights_of(sample_weight, class_weight, goal, targets, outputs, self.dtype)
            self._build_once(shape)
        outputs = self._outputs(goal)
        targets = goal.targets(y, len(images), outputs, self.dtype)
        weights = None
        if sample_weight is not None or class_weight is not None:
            weights = weights_of(sample_weight, class_weight, goal, targets, outputs, self.dtype)
        if not serves:
            descent.serve(self._ownership)
        try:
            loss_sum, correct = self._step(images, targets, goal, descent, weights)
        except Divergence:
            finite("x", images)  # NaN in the data shows in the loss, and is named here
            raise
        if goal is not self.loss:
            self.loss = goal
        if not routine:
            self._known.learn_batch(images, self._normalises)
        return loss_sum / len(images), correct / len(images)

    # --- evaluation and prediction ----------------------------------------------------------------

    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike,
        batch_size: int = 256,
        sample_weight: ArrayLike | None = None,
    ) -> dict[str, float]:
        """Mean loss over all samples, and accuracy where the loss has one.

        Args:
            x, y: as for :meth:`fit`.
            batch_size: samples that run together; it does not change the result.
            sample_weight: how much each sample's loss counts, (N,), as for :meth:`fit`: the loss
                is ``Σ w · loss / N``. The accuracy counts each sample once.

        Returns:
            ``{"loss": …, "accuracy": …}``.

        Raises:
            TypeError, ValueError: a wrong argument; NaN, wrong labels or wrong shapes; a model
                that is not built.

        Example:
            >>> from fastcnn.nn.layers import Dense
            >>> model = Sequential([Dense(2, kernel_initializer="zeros")], (3,))
            >>> model.evaluate(np.ones((4, 3)), [0, 0, 0, 1])["accuracy"]
            0.75
        """
        self._known_shape()
        size = count("batch_size", batch_size)
        loss = self._loss()
        images, targets = self._checked("x", x, y, loss)
        weights = weights_of(sample_weight, None, loss, targets, self._outputs(loss), self.dtype)
        return self._evaluate(images, targets, weights, size)

    @unreported
    def _evaluate(
        self, images: Samples, targets: Array, weights: Array | None, size: int
    ) -> dict[str, float]:
        loss, total, correct = self._loss(), 0.0, 0.0
        for first in range(0, len(images), size):
            some = slice(first, first + size)
            y = self._forward_batch(images[some])
            losses = loss.values(y, targets[some], self.engine)
            losses = weighted(losses, None if weights is None else weights[some])
            total += float(losses.sum(dtype=np.float64))
            correct += loss.correct(y, targets[some])
        metrics = {"loss": total / len(images)}
        return metrics | {"accuracy": correct / len(images)} if loss.counts else metrics

    def predict(self, x: ArrayLike, batch_size: int = 256) -> Array:
        """Predictions: probabilities (N, classes); with the mean squared error, raw outputs.

        A net that does not end in a vector, such as one of feature maps, predicts the raw outputs
        of its last layer, unless it was trained with a loss that takes them.

        Args:
            x: samples as for :meth:`fit`; NaN is not looked for. An empty batch gives an empty
                result.
            batch_size: samples that run together; it does not change the result.

        Raises:
            TypeError, ValueError: a wrong argument or shape; bytes, where the model was trained
                on floats.
        """
        size = count("batch_size", batch_size)
        built_for = self.input_shape  # read once, because another thread may build the model
        images = samples("x", x, built_for)
        self._known.glance("x", images)
        if built_for is None:
            self._doubt_layout("x", image_shape(images.shape[1:]), len(images))
            self._build_once(image_shape(images.shape[1:]))
        return self.predict_checked(images, size)

    def predict_checked(self, images: Array, size: int = 256) -> Array:
        """:meth:`predict` for samples (N, …) that are checked; the model is built."""
        loss = self._loss() if self._ends_in_vector else self._predicting()
        if len(images) <= size:
            return self._predicted(images, loss)
        parts = [self._predicted(images[i : i + size], loss) for i in range(0, len(images), size)]
        predicted: Array = np.concatenate(parts)
        return predicted

    def _predicted(self, images: Array, loss: Loss) -> Array:
        executor = self._executor(self._trunk(loss)) if type(loss) is CrossEntropy else None
        if executor is not None:
            probabilities = executor.probabilities(self._executor_input(images, executor))
            if probabilities is not None:
                return probabilities
        predicted = loss.predictions(self._forward_batch(images, loss), self.engine)
        # Layers that only rearrange return views of their input.
        return predicted.copy() if np.may_share_memory(predicted, images) else predicted

    def predict_classes(self, x: ArrayLike, batch_size: int = 256) -> Array:
        """The most probable class of each sample, (N,) int64; arguments as for :meth:`predict`.

        With one output, whether it is above one half: 0 or 1.
        """
        predicted = self.predict(x, batch_size)
        if predicted.ndim != 2:
            raise ValueError(
                f"predict_classes needs a net that ends in (classes,), got {self.output_shape}"
            )
        if predicted.shape[1] == 1:
            return np.asarray(predicted[:, 0] > 0.5, np.int64)
        return np.asarray(predicted.argmax(axis=1))

    def input_gradient(
        self,
        x: ArrayLike,
        output: ArrayLike,
        *,
        of: Literal["scores", "predictions"] = "scores",
        batch_size: int = 256,
    ) -> Array:
        """The gradient of an output at the samples, in prediction: what a prediction depends on.

        BatchNorm uses its running statistics and Dropout does nothing. The model is left as it is.
        Its absolute values show which pixels matter (a saliency map). For the gradient at the
        output of an inner layer k, as Grad-CAM needs it, cut the net there::

            maps = Sequential(model.layers[:k], model.input_shape)
            rest = Sequential(model.layers[k:], maps.output_shape)
            rest.input_gradient(maps.predict(x), output)

        Args:
            x: samples as for :meth:`predict`.
            output: the number of an output (a class), an integer for all samples or one for each,
                (N,); or the gradient at the outputs, (N, …) in their shape.
            of: "scores" are the raw outputs, before a last softmax or sigmoid, whether that is a
                layer or part of the loss; "predictions" are what :meth:`predict` returns.
            batch_size: samples that run together; it does not change the result.

        Returns:
            The gradient in the shape of x, of the model's dtype. For bytes it is the gradient at
            the scaled values, ``x / 255 − 0.5``.

        Raises:
            TypeError, ValueError: a wrong argument or shape; a model that is not built; a layer of
                your own that saves nothing for its way back in prediction.

        Example:
            >>> from fastcnn.nn.layers import Dense
            >>> model = Sequential([Dense(2)], (3,))
            >>> model.layers[0].parameters["w"] = [[1, 2], [3, 4], [5, 6]]
            >>> model.input_gradient(np.zeros((1, 3)), 1)
            array([[2., 4., 6.]], dtype=float32)

        Source: K. Simonyan et al., "Deep Inside Convolutional Networks", arXiv:1312.6034.
        """
        size = count("batch_size", batch_size)
        images = samples("x", x, self._known_shape())
        self._known.glance("x", images)
        layers = self._layers_to(of)
        outputs = layers[-1].output_shape
        assert outputs is not None
        dy = upstream(output, len(images), outputs, self.dtype)
        result = np.empty(images.shape, self.dtype)
        for first in range(0, len(images), size):
            some = slice(first, first + size)
            samples_of_batch = batch(images[some], self.dtype)
            result[some] = through(layers, samples_of_batch, dy[some], self.engine)
        return result.reshape(np.shape(x))

    def _layers_to(self, of: str) -> Sequence[Layer]:
        """The layers that lead to the scores or the predictions."""
        if of == "scores":
            ends = type(self.layers[-1]) in (Softmax, Sigmoid) and len(self.layers) > 1
            return self.layers[:-1] if ends else self.layers
        if of != "predictions":
            raise ValueError(f'of must be "scores" or "predictions", got {of!r}')
        loss = self._predicting()
        kinds = {CrossEntropy.predictions: Softmax, BinaryCrossEntropy.predictions: Sigmoid}
        how = type(loss).predictions
        if how is Loss.predictions:
            return self._trunk(loss)
        if how not in kinds:
            raise ValueError(
                f'of must be "scores" with a loss of your own, got {of!r} and {loss!r}, whose '
                f"predictions have no known gradient"
            )
        last = kinds[how]()
        last.input_shape = last.output_shape = self._trunk(loss)[-1].output_shape
        return [*self._trunk(loss), last]

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: FilePath) -> None:
        """Write the model to a safetensors file, which :func:`load_model` reads.

        An old file is replaced atomically, once the new one is whole on the disk. It keeps its
        permissions, and a link to it stays a link. What is no file, such as a device, is refused.

        Raises ``ValueError`` before the model is built, ``ModelFileError`` where the file could not
        be loaded again, ``OSError`` that names ``path`` where it cannot be written; an earlier file
        then stays as it was.
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

    def _checked(self, name: str, x: ArrayLike, y: ArrayLike, loss: Loss) -> tuple[Array, Array]:
        images = samples(name, x, self.input_shape)
        if not len(images):
            raise ValueError(f"{name} must hold at least one sample, got {np.shape(x)}")
        finite(name, images)
        self._known.check(name, images)
        return images, loss.targets(y, len(images), self._outputs(loss), self.dtype)


def load_model(path: FilePath) -> Sequential:
    """The model of a file that ``save`` or ``save_checkpoint`` wrote.

    Args:
        path: the file.

    Returns:
        The model, built, with its weights, loss and scaling.

    Raises:
        ModelFileError: the file is truncated, damaged or edited, of an unknown version, or has
            layers that this version does not know. Nothing is allocated for its arrays before
            their shapes and dtypes fit the architecture.
        OSError: the file cannot be opened.

    Example:
        >>> import tempfile
        >>> from fastcnn.nn.layers import Dense
        >>> model = Sequential([Dense(2)], (3,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.safetensors")
        ...     again = load_model(f"{folder}/model.safetensors")
        >>> bool((again.predict(np.eye(3)) == model.predict(np.eye(3))).all())
        True
    """
    return model_files.model_from(checkpoint.read(path), Sequential)
