"""``Sequential``: layers in a row that train, evaluate and predict.

All running of layers goes through two methods, ``_forward_batch`` and ``_gradients``: checks,
epochs, validation, callbacks and checkpoints stand around them.

**Bytes.** uint8 images are scaled to ``x / 255 − 0.5``, as in the article; floats are taken as they
are. A model remembers which it was trained on, and from where to where its numbers reached. What
contradicts that is refused, or there is one :class:`fastcnn.InputWarning`;
``fastcnn/data/scaling.py`` says which is which.

**The last activation.** The softmax belongs to the cross-entropy (the sigmoid to the binary one):
a net that ends in ``Dense(10)`` trains on scores and predicts probabilities. If it ends in that
activation, training runs on what comes before it, and ``predict`` applies it once.

**Files.** ``save`` and :func:`load_model` keep a model, ``save_checkpoint`` and ``fit(resume=…)`` a
training, which goes on to bitwise the same weights as if it had not been interrupted.

**Layers.** A model copies the layers that it is given, so no two models share one. A copy of a
built layer has its parameters. What a model owns cannot be changed behind it: see
:mod:`fastcnn.nn.layers.ownership`.

**Building** happens once, however many threads make the first call: the others wait for it.

**Chance.** Everything random (parameters, order, dropout, augmentation) is drawn from one
generator, ``model.rng``. The same seed gives bitwise the same weights, for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from html import escape
from math import inf, isfinite
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import suggestion
from fastcnn.core.capacity import affordable
from fastcnn.core.class_registry import is_own, module_of
from fastcnn.core.files import FilePath
from fastcnn.core.float_errors import Divergence, unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import below_one, count, generator, truth
from fastcnn.core.settings import get_math
from fastcnn.core.user_code import unchanged_by_errors
from fastcnn.data.augmentation import Augment
from fastcnn.data.on_demand import Samples, SamplesOnDemand
from fastcnn.data.preparation import Preparation, preparation_from, preparation_of
from fastcnn.data.scaling import FEW_STEPS_TRAINED, SCALING, Kind, KnownSamples, known_from
from fastcnn.engine.registry import checked_engine, imported, whole_nets_refused
from fastcnn.models import summary
from fastcnn.models.execution.weights import Weights
from fastcnn.models.input_gradients import through, upstream
from fastcnn.models.inputs import batch, finite, layout_doubt, samples
from fastcnn.nn.layers import (
    INSTEAD,
    BatchNorm,
    FixedList,
    Layer,
    Ownership,
    Shape,
    Sigmoid,
    Softmax,
    all_layers,
    checked_layers,
    infer_stack,
    layers_from_list,
    settle,
    to_dict,
)
from fastcnn.nn.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Loss,
    MeanSquaredError,
    loss_from_dict,
    loss_named,
)
from fastcnn.nn.optimizers import SGD, Optimizer, optimizer_named
from fastcnn.train import checkpoint
from fastcnn.train import epochs as epochs_of
from fastcnn.train.callbacks import Callback
from fastcnn.train.checkpoint import ModelFile, ModelFileError
from fastcnn.train.epochs import Augmentation, Epochs
from fastcnn.train.progress import (
    UNREADABLE,
    History,
    Progress,
    as_dict,
    checksum_of_samples,
    generator_from,
    progress_from,
    shapes_of,
    take_arrays,
)
from fastcnn.train.sample_weights import checked, scale_to_mean, weighted, weights_of

if TYPE_CHECKING:
    from fastcnn.models.execution import Executor


# What a resumed training is compared by, as users know it.
_DATA = {
    "targets": "y",
    "samples": "x",
    "images": "x",
    "weights": "sample_weight and class_weight",
}

# One for all models, because a model with a lock of its own could not be pickled.
_building = RLock()


def _after_fork() -> None:
    global _building
    _building = RLock()  # the thread that had the old one is not there in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Sequential:
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
        self._ownership = Ownership()
        self.layers: Sequence[Layer] = FixedList(_copied(checked_layers("layers", layers)))
        name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None)
        if not isinstance(name, str) or name not in ("float32", "float64"):
            raise ValueError(f'dtype must be "float32" or "float64", got {quoted(dtype)}')
        self.dtype = np.dtype(dtype)
        self.engine = engine
        self.rng = generator("seed", seed)
        self._seeded = seed is not None
        self.input_shape: Shape | None = None
        self.output_shape: Shape | None = None
        self.loss: Loss | None = None
        # What it is trained with if nothing else is said; its own, since ``loss`` may become one.
        self._usual, self._of_sigmoid = CrossEntropy(), BinaryCrossEntropy()
        self._raw, self._ends_in_vector = MeanSquaredError(), True
        self._known = KnownSamples()
        self._preparation: Preparation | None = None
        self.stop_training = False
        self.progress: Progress | None = None
        self._own_sgd = SGD(0.005)
        # What is derived from the layers, for the version of them that is given.
        self._executors: dict[tuple[int, str], Executor | None] = {}
        self._least_batch: float = 1
        self._derived_for = -1
        # While it is built, what its layers and the generator were before.
        self._unfinished: tuple[list[tuple[Layer, dict[str, Any]]], Any] | None = None
        self._fits = 0  # the process in which a fit runs
        if input_shape is not None:
            self.build(input_shape)

    def __setattr__(self, name: str, value: Any) -> None:
        # Attributes of which no method but this one knows that they may not be set, or to what.
        if name[0] != "_":
            fixed = _INSTEAD.get(name)
            if fixed is not None and (name in _COMPUTED or hasattr(self, name)):
                raise AttributeError(f"{name} of a model cannot be set; {fixed}")
            if name in _CHECKED:
                value = _CHECKED[name](self, value)
            elif fixed is None and not hasattr(type(self), name) and is_own(type(self)):
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r}"
                    + suggestion(name, (*_CHECKED, *_INSTEAD, "trainable", "stop_training"))
                )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in _CHECKED or name in _INSTEAD:
            raise AttributeError(f"{name} of a model cannot be taken away")
        super().__delattr__(name)

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

    @property
    def built(self) -> bool:
        """Whether shapes are known and parameters drawn."""
        return self.input_shape is not None

    def build(self, input_shape: Sequence[int]) -> None:
        """Infer all shapes and draw the parameters; for a model without ``input_shape``.

        Parameters of layers that came built keep their values. If it fails, nothing has changed.

        Raises ``ValueError`` for layers that do not fit, and where the model is built already;
        ``MemoryError`` for parameters that do not fit into the machine's memory.
        """
        with _building:
            if self.built:
                raise ValueError(
                    f"the model is built already, for inputs of shape {self.input_shape}"
                )
            self._build(image_shape(input_shape))

    def _build_once(self, shape: Shape) -> None:
        """Build the model, if no other thread has done so meanwhile for samples of this shape."""
        with _building:
            if not self.built:
                self._build(shape)
        if shape != self.input_shape:
            raise ValueError(f"x must hold samples of shape {self.input_shape}, got {shape}")

    def _build(self, shape: Shape) -> None:
        settle(self.layers)
        self._doubt_layout("input_shape", shape)
        shapes = infer_stack(self.layers, shape)  # nothing is drawn where a layer does not fit
        for layer, one in zip(self.layers, shapes, strict=False):
            for name, spec in (layer.parameter_specs(one) | layer.state_specs(one)).items():
                affordable(f"{name} of {quoted(layer)}", spec.shape, self.dtype, copies=3)
        if self._unfinished is not None:  # the thread was lost in a fork
            self._undo(*self._unfinished)
        before = [(one, vars(one).copy()) for one in all_layers(self.layers)]
        self._unfinished = before, self.rng.bit_generator.state
        try:
            for i, (layer, one) in enumerate(zip(self.layers, shapes, strict=False)):
                values = _arrays_of(layer)
                layer.build(one, self.rng, self.dtype)
                arrays = dict(_arrays_of(layer))
                for name, array in values:
                    needed = arrays[name].shape if name in arrays else "no such array"
                    if array.shape != needed:
                        raise ValueError(
                            f"layer {i}, {quoted(layer)}, is built and holds {name} of shape "
                            f"{array.shape}, but for an input of shape {one} it needs {needed}: "
                            f"make a new layer, or give it the input that it was built for"
                        )
                    arrays[name][...] = array
            if self.built:  # by a signal handler's call, meanwhile on this thread
                return
            weights = Weights(self.layers, self.dtype)
            self._ownership.take([*all_layers(self.layers)])
        except BaseException as error:
            if self._unfinished is not None:
                self._undo(*self._unfinished)
            if self.built and isinstance(error, AttributeError):
                return  # by a signal handler's call, and its layers refused to be built again
            raise
        self._weights, self._executors, self._unfinished = weights, {}, None
        self._ends_in_vector = len(shapes[-1]) == 1
        # Not through the dict, see fastcnn/core/attributes.py. The input's shape is last, because
        # what finds the model built must find all of it.
        object.__setattr__(self, "output_shape", shapes[-1])
        object.__setattr__(self, "input_shape", shape)

    def _undo(self, before: list[tuple[Layer, dict[str, Any]]], state: Any) -> None:
        """Make layers and generator what they were before a building that did not end."""
        for layer, attributes in before:
            vars(layer).clear()
            vars(layer).update(attributes)
        self.rng.bit_generator.state = state
        self._unfinished = None

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

    def _normalises(self) -> bool:
        """Whether the first layer makes the scale of the samples irrelevant."""
        return isinstance(self.layers[0], BatchNorm)

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

    def __copy__(self) -> Sequential:
        return deepcopy(self)  # a layer's arrays are parts of one model's

    def __getstate__(self) -> dict[str, Any]:
        left_out = "_weights", "_executors", "_unfinished", "_ownership", "_derived_for", "_fits"
        with _building:  # layers that another thread builds are not copied half
            state = {name: value for name, value in vars(self).items() if name not in left_out}
            if not self.built:
                state |= {"layers": FixedList(_copied(self.layers)), "rng": deepcopy(self.rng)}
            return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copied or pickled model: its layers' arrays are parts of one array no longer.
        if "trained_on" in state:  # pickled by an earlier version
            state = dict(state)
            state["_known"] = KnownSamples(state.pop("trained_on"))
            state["_preparation"] = None
        for name, value in (state | {"layers": FixedList(state["layers"])}).items():
            object.__setattr__(self, name, value)
        self._executors, self._unfinished, self._fits = {}, None, 0
        self._ownership, self._derived_for = Ownership(), -1
        if self.built:
            self._weights = Weights(self.layers, self.dtype)
            self._ownership.take([*all_layers(self.layers)])
        if self.progress is not None:
            self.progress.optimizer.belong(self._ownership, self.progress)

    def _known_shape(self) -> Shape:
        if self.input_shape is None:
            raise ValueError("input_shape must be known: give it to Sequential, or fit the model")
        return self.input_shape

    # --- weights ----------------------------------------------------------------------------------

    def _arrays(self) -> list[tuple[str, Array]]:
        """Every array of the model with its name: layer by layer, parameters before state."""
        return [
            (f"layers.{i}.{name}", array)
            for i, layer in enumerate(self.layers)
            for name, array in _arrays_of(layer)
        ]

    def get_weights(self) -> list[Array]:
        """Copies of all arrays, layer by layer: parameters, then running statistics.

        Raises ``ValueError`` before the model is built.
        """
        self._known_shape()
        return [array.copy() for _, array in self._arrays()]

    @unreported
    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Write the arrays of :meth:`get_weights` into the model.

        Raises ``ValueError`` for another number of arrays or another shape, before any is written.
        """
        self._known_shape()
        arrays = self._arrays()
        if len(weights) != len(arrays):
            raise ValueError(f"weights must be {len(arrays)} arrays, got {len(weights)}")
        new = [np.asarray(given) for given in weights]
        for (name, array), given in zip(arrays, new, strict=True):
            if given.shape != array.shape or given.dtype.kind not in "fiub":
                raise ValueError(
                    f"weights must hold numbers of shape {array.shape} for {name}, got "
                    f"{given.dtype} of shape {given.shape}"
                )
        for (_, array), given in zip(arrays, new, strict=True):
            array[...] = given

    # --- the two seams ----------------------------------------------------------------------------

    def _forward_batch(self, images: Array, loss: Loss | None = None) -> Array:
        """Raw outputs of the layers for samples (N, …) as they were given.

        Without the last layer, where that is the activation which the loss (by default the
        model's) implies.
        """
        trunk = self._trunk(loss or self._predicting())
        executor = self._executor(trunk)
        if executor is not None:
            found = executor.forward(self._taken(images, executor))
            if found is not None:
                return found
        return self._layer_by_layer(trunk, batch(images, self.dtype))

    @unreported
    def _layer_by_layer(self, trunk: Sequence[Layer], x: Array) -> Array:
        for layer in trunk:
            x, _ = layer.forward(x, False, None, self.engine)
        return x

    def _gradients(
        self,
        images: Array,
        targets: Array,
        loss: Loss,
        rng: np.random.Generator,
        weights: Array | None = None,
    ) -> tuple[float, float, list[dict[str, Array]]]:
        """One batch forward and backward: sum of the losses, samples that are right, gradients.

        ``weights`` (N,) of the model's dtype say how much each sample's loss counts.
        The gradients are those of the mean loss, and are views of ``self._weights.gradient``,
        one dict for each layer. Nothing of the model changes but running statistics, and those
        only where the loss is finite; else ``FloatingPointError`` is raised.
        """
        trunk = self._trunk(loss)
        executor = self._executor(trunk)
        if executor is not None:
            result = executor.gradients(self._taken(images, executor), targets, loss, rng, weights)
            if result is not None:
                return *result, self._weights.gradients
        return *self._one_by_one(images, targets, loss, rng, weights), self._weights.gradients

    @unreported
    def _one_by_one(
        self,
        images: Array,
        targets: Array,
        loss: Loss,
        rng: np.random.Generator,
        weights: Array | None,
    ) -> tuple[float, float]:
        """The same, layer by layer, with the engine that was asked for."""
        trunk, saved = self._trunk(loss), []
        trained = (i for i, layer in enumerate(trunk) if self._weights.trained(layer))
        first = next(trained, len(trunk))  # nothing goes back beyond it
        y = batch(images, self.dtype)
        for i, layer in enumerate(trunk):
            y, kept = layer.forward(y, True, rng, self.engine)
            saved.append(kept if i >= first else None)
        losses = weighted(loss.values(y, targets, self.engine), weights)
        total = float(losses.sum(dtype=np.float64))
        if not isfinite(total):
            raise Divergence(f"the loss of a batch is {total}")
        dy: Array | None = loss.gradient(y, targets, self.engine)
        assert dy is not None
        scale_to_mean(dy, weights)
        correct = loss.correct(y, targets)
        for i in range(len(trunk) - 1, first - 1, -1):
            assert dy is not None
            dy, gradients = trunk[i].backward(dy, saved.pop(), self.engine, needs_dx=i > first)
            moved = self._weights.trained(trunk[i])
            for name, gradient in gradients.items():
                if name in moved:
                    moved[name][...] = gradient
        return total, correct

    def _step(
        self,
        images: Array,
        targets: Array,
        loss: Loss,
        optimizer: Optimizer,
        weights: Array | None = None,
    ) -> tuple[float, float]:
        """As :meth:`_gradients`, and then the optimizer's step."""
        executor = self._executor(self._trunk(loss))
        if len(images) < self._least_batch:
            raise ValueError(_too_few("x must hold", self._least_batch, len(images)))
        if executor is not None:
            given = self._taken(images, executor), targets, loss, self.rng
            result = executor.step(*given, optimizer, weights)
            if result is not None:
                return result
        with unchanged_by_errors(array for layer in self.layers for array in layer.state.values()):
            result = self._one_by_one(images, targets, loss, self.rng, weights)
            self._weights.move(optimizer)
        return result

    def compile_kernels(
        self,
        *,
        training: bool = True,
        optimizer: str | Optimizer | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Compile all kernels that this model may need, for batches of any size, and keep them.

        The first prediction and the first training step do so by themselves; this is for whoever
        wants to wait at another time, or in another process: compiled kernels are kept in the
        cache that ``fastcnn info`` shows. A model with layers of your own, or with an engine that
        was asked for by name, compiles what it needs when it needs it.

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
            like = self._taken(np.zeros((1, *shape), kind), predicting)
            total += predicting.prepare_prediction(like, progress)
        labels = isinstance(loss, CrossEntropy)
        if training and (self._ends_in_vector or not labels):
            learning = self._executor(self._trunk(loss))
            assert learning is not None
            outputs = () if labels else self._outputs(loss)
            targets = np.zeros((1, *outputs), np.int64 if labels else self.dtype)
            for kind in kinds:
                like = self._taken(np.zeros((1, *shape), kind), learning)
                total += learning.prepare_training(like, targets, loss, steps, progress)
        return total

    def _executor(self, trunk: Sequence[Layer]) -> Executor | None:
        """What runs these layers as compiled programs, where they may be run so."""
        if self._derived_for != self._ownership.version:
            self._derive()
        if whole_nets_refused(self.engine) is not None:
            return None
        key = len(trunk), get_math()
        try:
            return self._executors[key]
        except KeyError:
            imported("fastcnn.models.execution")
            from fastcnn.models.execution import Executor, compiles

            new = Executor(trunk, self._weights) if compiles() else None
            return self._executors.setdefault(key, new)  # all threads use one

    def _derive(self) -> None:
        """Forget what was derived from layers that have changed."""
        version = self._ownership.version
        self._weights.update()
        self._executors = {}
        shapes = infer_stack(self.layers, self._known_shape())
        self._least_batch = _least_batch(self.layers, shapes)
        if self._weights.frozen and not self._weights.spans:
            self._least_batch = inf
        self._derived_for = version

    def _taken(self, images: Array, executor: Executor) -> Array:
        """Samples as the executor takes them."""
        if images.dtype is not self.dtype and images.dtype == np.uint8 and executor.takes_bytes():
            return np.ascontiguousarray(images)
        return batch(images, self.dtype)

    def _trunk(self, loss: Loss) -> Sequence[Layer]:
        if loss.implies == type(self.layers[-1]).__name__ and len(self.layers) > 1:
            return self.layers[:-1]
        return self.layers

    def _loss(self) -> Loss:
        if self.loss is not None:
            return self.loss
        return self._of_sigmoid if type(self.layers[-1]).__name__ == "Sigmoid" else self._usual

    def _predicting(self) -> Loss:
        """The loss whose ``predictions`` are those of the model."""
        loss = self._loss()
        if self._ends_in_vector or not isinstance(loss, CrossEntropy):
            return loss
        return self._raw  # no softmax over pixels

    def _outputs(self, loss: Loss) -> Shape:
        output = self._trunk(loss)[-1].output_shape
        assert output is not None
        return output

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
        epochs, batch_size = count("epochs", epochs), count("batch_size", batch_size)
        shuffle = truth("shuffle", shuffle)
        fresh = None if seed is None else generator("seed", seed)
        if verbose not in (0, 1):
            raise ValueError(f"verbose must be 0 or 1, got {quoted(verbose)}")
        descent = optimizer_named("sgd" if optimizer is None else optimizer)
        descent.check_free()
        goal = self._loss() if loss is None else loss_named(loss)
        listeners = _checked_callbacks(callbacks)
        if augment is not None and not callable(augment):
            raise TypeError(
                f"augment must be called with images and a generator, got {quoted(augment)}"
            )

        split = below_one("validation_split", validation_split)
        if split and validation_data is not None:
            raise ValueError("validation_split must be 0 where validation_data is given")
        images = x if isinstance(x, SamplesOnDemand) else samples("x", x, None)
        if not len(images):
            raise ValueError(f"x must hold at least one sample, got {np.shape(x)}")
        if len(images) != (size := len(np.asarray(y)) if np.ndim(y) else -1):
            raise ValueError(f"y must have one label per sample, {len(images)}, got {size}")
        kept = len(images) - int(len(images) * split)
        given_weights = checked(sample_weight, len(images))
        held_out = validation_data
        if split:
            if kept == len(images):
                raise ValueError(
                    f"validation_split={split} of {len(images)} samples leaves none to validate on"
                )
            labels = np.asarray(y)
            held_out = images[kept:], labels[kept:]
            if given_weights is not None:
                held_out = *held_out, given_weights[kept:]
                given_weights = given_weights[:kept]
            images, y = images[:kept], labels[:kept]
        centred = epochs_of.centred(augment)
        first = images[:1] if centred is None else centred(images[:1])
        shape = image_shape(first.shape[1:])
        if self.built and shape != self.input_shape:
            raise ValueError(
                f"x must hold samples of shape {self.input_shape}, got {shape}"
                + (" after augmentation" if centred else "")
            )
        finite("x", images)
        self._known.check("x", images)
        if not self.built:
            self._doubt_layout("x", shape, len(images))
        shapes = infer_stack(self.layers, shape)
        _check_batches(self.layers, shapes, len(images), batch_size)
        outputs = shapes[len(self._trunk(goal))]
        targets = goal.targets(_own_labels(y), len(images), outputs, self.dtype)
        weights = weights_of(given_weights, class_weight, goal, targets, outputs, self.dtype)
        validation = None
        if held_out is not None:
            alike = images if split == 0 else None  # a part of x is as x is
            validation = self._checked_validation(held_out, shape, goal, outputs, centred, alike)

        settings = {
            "batch_size": batch_size,
            "shuffle": shuffle,
            "samples": len(images),
            "images": checksum_of_samples(images),
            "targets": crc32(targets.tobytes()),
            "weights": None if weights is None else crc32(weights.tobytes()),
        }
        data = images, targets, weights
        train = partial(self._train, data, epochs, validation, augment, bool(verbose))
        if resume is not None:
            return self._resume(
                checkpoint.read(resume), images, shape, goal if loss is not None else None,
                descent if optimizer is not None else None, settings, listeners,
                partial(train, resumed=True),
            )  # fmt: skip
        with _building:
            if self._seeded:
                self._build_once(shape)
            if fresh is not None:
                self.rng = fresh
            self._build_once(shape)
        self.loss = goal
        if _keeps_scale(augment):
            self._known.check_training("x", images, self._normalises())
            self._known.learn(images)
        if self._preparation is None and images.dtype == np.uint8 and images.shape[-1] in (1, 3):
            self._preparation = preparation_of(images) if images.ndim == 4 else None
        self.progress = Progress(descent, settings, callbacks=listeners)
        return train()

    def _train(
        self,
        data: tuple[Samples, Array, Array | None],
        epochs: int,
        validation: tuple[Samples, Array, Array | None] | None,
        augment: Augmentation | None,
        verbose: bool,
        resumed: bool = False,
    ) -> History:
        """Epochs from where ``self.progress`` stands."""
        assert self.progress is not None
        loss, optimizer = self._loss(), self.progress.optimizer

        def step(some: Array, wanted: Array, their_weights: Array | None) -> tuple[float, float]:
            return self._step(some, wanted, loss, optimizer, their_weights)

        def learning_step(
            some: Array, wanted: Array, their_weights: Array | None
        ) -> tuple[float, float]:
            # The layers are trained on what a user's augmentation returns, not on x.
            self._known.learn_batch(some, self._normalises)
            return step(some, wanted, their_weights)

        validate = None if validation is None else partial(self._evaluate, *validation, 256)
        takes = step if _keeps_scale(augment) else learning_step
        loop = Epochs(self, self.progress, *data, takes, validate, loss.counts, augment)
        with optimizer.running():
            if not resumed:
                optimizer.begin(self._ownership, self.progress)
            self._fits = os.getpid()
            try:
                return loop.run(epochs, verbose)
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
        found = {"loss": total / len(images)}
        return found | {"accuracy": correct / len(images)} if loss.counts else found

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
            found = executor.probabilities(self._taken(images, executor))
            if found is not None:
                return found
        predicted = loss.predictions(self._forward_batch(images, loss), self.engine)
        # Layers that only rearrange give views of what they were given.
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

        An existing file is replaced at once, after the new one is whole on the disk. It keeps its
        permissions, and a link to it stays a link. What is no file, such as a device, is refused.

        Raises ``ValueError`` before the model is built, ``ModelFileError`` where the file could not
        be loaded again, ``OSError`` that names ``path`` where it cannot be written; an earlier file
        then stays as it was.
        """
        self._known_shape()
        checkpoint.write(path, self._described(), dict(self._arrays()), _contents)

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
        if self.progress is None:
            raise ValueError("save_checkpoint needs a training, and the model has had no fit")
        at, of_model = self.progress, self._arrays()
        if at.in_batch:
            raise ValueError("save_checkpoint must be called between batches, not inside of one")
        training, arrays = as_dict(at, self.rng)
        arrays |= dict(of_model)
        last = at.weights_to_save([array for _, array in of_model])
        training["has_weights"] = last is not None
        if last is not None:
            names = [f"training.{name}" for name, _ in of_model]
            arrays |= dict(zip(names, last, strict=True))
        for slot, flat in at.optimizer.state.items():
            at.optimizer.check_state(slot, self._weights.parameters)
            for name, part in self._named(flat):
                arrays[f"optimizer.{slot}.{name}"] = part
        checkpoint.write(path, self._described() | {"training": training}, arrays, _contents)

    def _described(self) -> dict[str, Any]:
        """The model as JSON holds it, without its arrays."""
        loss = self._loss()
        return {
            "layers": [to_dict(layer) for layer in self.layers],
            "input_shape": self.input_shape,
            "dtype": self.dtype.name,
            "loss": {"name": loss.name, **module_of(type(loss)), "config": loss.config()},
            "bytes": SCALING,
            "trained_on": self.trained_on,
            "samples": self._known.as_dict(),
            "preparation": None if self._preparation is None else self._preparation.as_dict(),
        }

    def _named(self, flat: Array) -> list[tuple[str, Array]]:
        """Parts of a flat array under the names of the parameters."""
        return [
            (f"layers.{i}.{name}", part)
            for i, parts in enumerate(self._weights.split(flat))
            for name, part in parts.items()
        ]

    def _resume(
        self,
        file: ModelFile,
        images: Samples,
        shape: Shape,
        loss: Loss | None,
        optimizer: Optimizer | None,
        settings: dict[str, Any],
        callbacks: list[Callback],
        train: Callable[[], History],
    ) -> History:
        """Take a checkpoint's training over, after all of it was checked, and go on with it."""
        other = _from_file(file)
        if other.progress is None:
            raise file.error("it holds a model, but no training to resume")
        mine = [to_dict(layer) for layer in self.layers], shape, self.dtype
        theirs = [to_dict(layer) for layer in other.layers], other.input_shape, other.dtype
        if mine != theirs:
            raise ValueError(f"resume must be a training of this model's layers, got {file.path}")
        other._known.check("x", images)  # first, because it says how other data are other
        found = other.progress
        for name, value in settings.items():
            if name == "images" and name not in found.settings:
                continue  # a file of an earlier version
            if found.settings.get(name) != value:
                told = _DATA.get(name, name)
                what = "the data" if name in _DATA else quoted(found.settings.get(name))
                given = "other data" if name in _DATA else repr(value)
                raise ValueError(
                    f"{told} must be {what} that the training in {file.path} began with, got "
                    f"{given}"
                )
        if loss is not None and repr(loss) != repr(other.loss):
            raise ValueError(
                f"loss must be that of the training, {quoted(other.loss)}, got {quoted(loss)}"
            )
        if optimizer is not None and _but_rate(optimizer) != _but_rate(found.optimizer):
            raise ValueError(
                f"optimizer must be that of the training, {quoted(found.optimizer)}, got "
                f"{quoted(optimizer)}"
            )
        self._build_once(shape)
        self.set_weights(other.get_weights() if found.weights is None else found.weights)
        self.rng, self.loss, self._known = other.rng, other.loss, other._known
        found.optimizer.belong(self._ownership, found)
        self._preparation = self._preparation or other._preparation
        found.weights = None
        found.take_callbacks(callbacks)
        self.progress = found
        return train()

    # --- checks of data ---------------------------------------------------------------------------

    def _checked(self, name: str, x: ArrayLike, y: ArrayLike, loss: Loss) -> tuple[Array, Array]:
        images = samples(name, x, self.input_shape)
        if not len(images):
            raise ValueError(f"{name} must hold at least one sample, got {np.shape(x)}")
        finite(name, images)
        self._known.check(name, images)
        return images, loss.targets(y, len(images), self._outputs(loss), self.dtype)

    def _checked_validation(
        self,
        data: tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike | None],
        shape: Shape,
        loss: Loss,
        outputs: Shape,
        centred: Callable[[Array], Array] | None,
        trained: Samples | None,
    ) -> tuple[Samples, Array, Array | None]:
        if not isinstance(data, tuple | list) or len(data) not in (2, 3):
            raise TypeError(
                f"validation_data must be a pair (x, y) or (x, y, sample_weight), got "
                f"{type(data).__name__}"
                + (f" of {len(data)}" if isinstance(data, tuple | list) else "")
            )
        x = data[0]
        images = x if isinstance(x, SamplesOnDemand) else samples("validation_data", x, None)
        if not len(images):
            raise ValueError("validation_data must hold at least one sample")
        if images.shape[1:] != shape and centred is not None:
            if isinstance(images, SamplesOnDemand):
                images = images.then(centred)
            else:
                images = centred(images)
        if images.shape[1:] != shape:
            raise ValueError(
                f"validation_data must hold samples of shape {shape}, got {images.shape[1:]}"
            )
        finite("validation_data", images)
        if trained is not None:
            known = deepcopy(self._known)
            known.learn(trained)
            known.check("validation_data", images)
        try:
            targets = loss.targets(_own_labels(data[1]), len(images), outputs, self.dtype)
            sample_weight = data[2] if len(data) == 3 else None
            weights = weights_of(sample_weight, None, loss, targets, outputs, self.dtype)
            return images, targets, weights
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation_data: {error}") from None

    def _doubt_layout(self, name: str, shape: Shape, count: int | None = None) -> None:
        """Warn, once, of samples that are probably laid out in another way."""
        doubt = layout_doubt(name, shape, count)
        if doubt is not None:
            self._known.warn_once("layout", doubt)


def _checked_loss(model: Sequential, value: Any) -> Loss | None:
    if getattr(model, "_fits", 0) == os.getpid():
        raise AttributeError(
            "loss of a model cannot be set while a fit runs, because its targets were checked for "
            "the loss that it began with; stop it, and give the next fit another loss"
        )
    return None if value is None else loss_named(value)


def _checked_rng(model: Sequential, value: Any) -> np.random.Generator:
    if not isinstance(value, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy.random.Generator such as numpy.random.default_rng(0), got "
            f"{value!r}"
        )
    return value


def _checked_kind(model: Sequential, value: Any) -> Any:
    if value not in (None, "uint8", "floats"):
        raise ValueError(f'trained_on must be "uint8", "floats" or None, got {quoted(value)}')
    return value


def _checked_progress(model: Sequential, value: Any) -> Progress | None:
    if value is not None and not isinstance(value, Progress):
        raise TypeError(f"progress must be None or that of a training, got {quoted(value)}")
    if getattr(model, "_fits", 0) == os.getpid():
        raise AttributeError("progress of a model cannot be set while a fit runs")
    return value


_CHECKED: dict[str, Callable[[Sequential, Any], Any]] = {
    "engine": lambda model, value: checked_engine(value),
    "loss": _checked_loss,
    "progress": _checked_progress,
    "rng": _checked_rng,
    "stop_training": lambda model, value: truth("stop_training", value),
    "trained_on": _checked_kind,
}
"""Public attributes that may be set, and what checks the new value."""

_COMPUTED = ("optimizer", "built")
_INSTEAD = {
    "layers": INSTEAD,
    "dtype": "make another model: Sequential(model.layers, model.input_shape, dtype=…), which "
    "keeps the parameters",
    "input_shape": "make another model: Sequential(model.layers, input_shape), or build() one "
    "that has no shape yet",
    "output_shape": "it follows from the layers and the input_shape",
    "optimizer": "give it to fit; learning_rate and the like of the one that is there may be set",
    "built": "build() makes it True",
}
"""Public attributes that cannot be set, and what to do instead."""


def _least_batch(layers: Sequence[Layer], shapes: Sequence[Shape]) -> int:
    """The fewest samples that a training batch may have."""
    return max(layer.least_batch(one) for layer, one in zip(layers, shapes, strict=False))


def _check_batches(
    layers: Sequence[Layer], shapes: Sequence[Shape], samples: int, batch_size: int
) -> None:
    """Raise the ``ValueError`` where a batch of an epoch is too small, or no layer trains."""
    pairs = [*zip(layers, shapes, strict=False)]
    has_parameters = [one for one, shape in pairs if one.parameter_specs(shape)]
    if has_parameters and not any(one.trainable for one in has_parameters):
        raise ValueError(_too_few("x must hold", inf, samples))
    least, smallest = _least_batch(layers, shapes), samples % batch_size or batch_size
    if min(smallest, samples) < least:
        what = f"batch_size must give each batch of {samples} samples"
        raise ValueError(
            _too_few(what, least, min(smallest, samples))
            + f" from batch_size={batch_size}; take another one, or leave samples out"
        )


def _too_few(what: str, least: float, samples: int) -> str:
    """The error for a training batch that is too small."""
    if least == inf:
        return "all layers with parameters are frozen: set trainable=True for one that is to learn"
    return (
        f"{what} at least {least} samples in training, because in a batch of one sample a "
        f"BatchNorm gets one value for each channel, which has no variance; got {samples}"
    )


def _copied(layers: Iterable[Layer]) -> list[Layer]:
    """Copies of the layers, with the values of their arrays."""
    copies, memo = list[Layer](), dict[int, Any]()
    for layer in layers:
        try:
            copies.append(deepcopy(layer, memo))
        except Exception as error:
            raise TypeError(
                f"layers must be such as can be copied, got {quoted(layer)}: {error}"
            ) from error
    return copies


def _keeps_scale(augment: Augmentation | None) -> bool:
    """Whether augmented samples are scaled as before: a user's function may scale them."""
    return augment is None or isinstance(augment, Augment)


def _own_labels(y: ArrayLike) -> ArrayLike:
    """Class numbers as a copy, because a training must use those that it has checked.

    What is no array of class numbers becomes a new array in any case, or is no address.
    """
    is_labels = isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "iu"
    return np.array(y) if is_labels else y


def _arrays_of(layer: Layer) -> list[tuple[str, Array]]:
    """All arrays of a layer with their names: parameters, then state."""
    return [*layer.parameters.items(), *layer.state.items()]


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
    return _from_file(checkpoint.read(path))


def _from_file(file: ModelFile) -> Sequential:
    """The model of a file, and its training where it holds one."""
    model, shape, slots = _contents(file)
    arrays, progress = file.arrays(), model.progress
    model._known.is_known("layout")  # to whoever made the model
    model.build(shape)
    for name, array in model._arrays():
        array[...] = arrays[name]
    if progress is not None:
        model.rng = generator_from(file.model["training"]["generator"])
        for slot in slots:
            flat = progress.optimizer.state[slot] = np.zeros_like(model._weights.parameters)
            for name, part in model._named(flat):
                part[...] = arrays[f"optimizer.{slot}.{name}"]
        if file.model["training"].get("has_weights"):
            last = [arrays[f"training.{name}"] for name, _ in model._arrays()]
            progress.remember_weights(last, model.get_weights())
        try:
            take_arrays(progress, arrays)
        except UNREADABLE as error:
            raise file.error(f"its training: {error}") from None
        progress.optimizer.belong(model._ownership, progress)
    return model


def _contents(file: ModelFile) -> tuple[Sequential, Shape, list[str]]:
    """What a file says of its model, before any array is read.

    The model, not built, with its training where the file holds one; the shape of its input; the
    names of its optimizer's arrays.
    """
    told, slots = file.model, list[str]()
    try:
        model = Sequential(layers_from_list(told["layers"]), dtype=told["dtype"])
        shape = image_shape(told["input_shape"])
        model.loss = loss_from_dict(told["loss"])
        if told["bytes"] != SCALING:
            raise ValueError(f"its bytes are scaled as {quoted(told['bytes'])}, not as {SCALING!r}")
        model._known = known_from(told["trained_on"], told.get("samples"))
        model._preparation = preparation_from(told.get("preparation"))
        shapes = infer_stack(model.layers, shape)
        parameters, expected = {}, {}
        for i, layer in enumerate(model.layers):
            for name, spec in layer.parameter_specs(shapes[i]).items():
                parameters[f"layers.{i}.{name}"] = spec.shape, model.dtype.name
            for name, spec in layer.state_specs(shapes[i]).items():
                expected[f"layers.{i}.{name}"] = spec.shape, model.dtype.name
        expected |= parameters
        training = told.get("training")
        if training is not None:
            if training.get("has_weights"):
                expected |= {f"training.{name}": one for name, one in expected.items()}
            model.progress, slots = progress_from(training)
            generator_from(training["generator"])
            expected |= {f"optimizer.{s}.{k}": v for s in slots for k, v in parameters.items()}
            expected |= shapes_of(training)
        file.expect(expected)
    except ModelFileError:
        raise
    except UNREADABLE as error:
        told_error = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise file.error(f"its architecture: {told_error}") from None
    return model, shape, slots


def _but_rate(optimizer: Optimizer) -> tuple[str, dict[str, Any]]:
    config = optimizer.config()
    config.pop("learning_rate")
    return type(optimizer).__name__, config


def image_shape(given: Sequence[int]) -> Shape:
    """The shape of a sample: (H, W) is one channel.

    >>> image_shape((28, 28))
    (28, 28, 1)
    """
    if not isinstance(given, tuple | list) or not 1 <= len(given) <= 3:
        raise ValueError(
            f"input_shape must be (H, W, C), (H, W) or (features,), got {quoted(given)}"
        )
    shape = tuple(count("input_shape", side) for side in given)
    return (*shape, 1) if len(shape) == 2 else shape


def _checked_callbacks(callbacks: Iterable[Callback]) -> list[Callback]:
    try:
        found = list(callbacks)
    except TypeError:
        raise TypeError(f"callbacks must be a list of callbacks, got {quoted(callbacks)}") from None
    for one in found:
        if not isinstance(one, Callback):
            raise TypeError(f"callbacks must be made of callbacks, got {quoted(one)}")
    return found
