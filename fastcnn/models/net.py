"""``Net``: the layers of a model with their arrays, and how one batch runs through them.

Training, files and predictions of a :class:`fastcnn.Sequential` stand on it, and it knows none of
them. Layers run through ``_forward_batch``, ``_gradients`` and ``_step`` alone: as compiled
programs where these serve, else layer by layer.

**Building** happens once, however many threads make the first call: the others wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from math import inf, isfinite
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import suggestion
from fastcnn.core.capacity import affordable
from fastcnn.core.class_registry import is_own
from fastcnn.core.float_errors import Divergence, unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, generator, truth
from fastcnn.core.settings import get_math
from fastcnn.core.user_code import unchanged_by_errors
from fastcnn.data.preparation import Preparation
from fastcnn.data.scaling import KnownSamples
from fastcnn.engine.registry import checked_engine, imported, whole_nets_refused
from fastcnn.models.inputs import batch, layout_doubt
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import (
    INSTEAD,
    BatchNorm,
    FixedList,
    Layer,
    Ownership,
    Shape,
    all_layers,
    checked_layers,
    infer_stack,
    settle,
)
from fastcnn.nn.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Loss,
    MeanSquaredError,
    loss_named,
)
from fastcnn.nn.optimizers import SGD, Optimizer
from fastcnn.train.progress import Progress
from fastcnn.train.sample_weights import scale_to_mean, weighted

if TYPE_CHECKING:
    from fastcnn.models.execution import Executor

# One for all models, because a model with a lock of its own could not be pickled.
_building = RLock()


def _after_fork() -> None:
    global _building
    _building = RLock()  # the child lacks the thread that may hold the old lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Net:
    """Layers in a row, with the arrays that they share; :class:`fastcnn.Sequential` says more."""

    def __init__(
        self,
        layers: Iterable[Layer],
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
        # Default losses; the model's own objects, because ``loss`` may become one of them.
        self._usual, self._of_sigmoid = CrossEntropy(), BinaryCrossEntropy()
        self._raw, self._ends_in_vector = MeanSquaredError(), True
        self._known = KnownSamples()
        self._preparation: Preparation | None = None
        self.stop_training = False
        self.progress: Progress | None = None
        self._own_sgd = SGD(0.005)
        # What is derived from the layers, in their version ``_derived_for``.
        self._executors: dict[tuple[int, str], Executor | None] = {}
        self._least_batch: float = 1
        self._derived_for = -1
        # During a build, the attributes of layers and the state of the generator from before.
        self._unfinished: tuple[list[tuple[Layer, dict[str, Any]]], Any] | None = None
        self._fits = 0  # the id of the process in which a fit runs

    def __setattr__(self, name: str, value: Any) -> None:
        # Only this method knows which attributes may not be set, and which values others take.
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

    # --- building ---------------------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Whether shapes are known and parameters drawn."""
        return self.input_shape is not None

    def _build_anew(self, shape: Shape) -> None:
        """Build the model; a model that is built already is a ``ValueError``."""
        with _building:
            if self.built:
                raise ValueError(
                    f"the model is built already, for inputs of shape {self.input_shape}"
                )
            self._build(shape)

    def _build_with(self, shape: Shape, rng: np.random.Generator | None) -> None:
        """Build the model and go on with ``rng``, if there is one.

        A model with a seed of its own draws its parameters from that seed.
        """
        with _building:
            if self._seeded:
                self._build_once(shape)
            if rng is not None:
                self.rng = rng
            self._build_once(shape)

    def _build_once(self, shape: Shape) -> None:
        """Build the model, unless another thread has built it for samples of this shape."""
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
        if self._unfinished is not None:  # by a thread that a fork has lost
            self._undo(*self._unfinished)
        before = [(one, vars(one).copy()) for one in all_layers(self.layers)]
        self._unfinished = before, self.rng.bit_generator.state
        try:
            for i, (layer, one) in enumerate(zip(self.layers, shapes, strict=False)):
                values = arrays_of(layer)
                layer.build(one, self.rng, self.dtype)
                arrays = dict(arrays_of(layer))
                for name, array in values:
                    needed = arrays[name].shape if name in arrays else "no such array"
                    if array.shape != needed:
                        raise ValueError(
                            f"layer {i}, {quoted(layer)}, is built and holds {name} of shape "
                            f"{array.shape}, but for an input of shape {one} it needs {needed}: "
                            f"make a new layer, or give it the input that it was built for"
                        )
                    arrays[name][...] = array
            if self.built:  # meanwhile, by a signal handler on this thread
                return
            weights = Weights(self.layers, self.dtype)
            self._ownership.take([*all_layers(self.layers)])
        except BaseException as error:
            if self._unfinished is not None:
                self._undo(*self._unfinished)
            if self.built and isinstance(error, AttributeError):
                return  # by a signal handler, after which the layers refuse to be built again
            raise
        self._weights, self._executors, self._unfinished = weights, {}, None
        self._ends_in_vector = len(shapes[-1]) == 1
        # Not through the dict, see fastcnn/core/attributes.py. The input's shape is last, because
        # it tells other threads that all of the model is built.
        object.__setattr__(self, "output_shape", shapes[-1])
        object.__setattr__(self, "input_shape", shape)

    def _undo(self, before: list[tuple[Layer, dict[str, Any]]], state: Any) -> None:
        """Restore layers and generator after a build that did not end."""
        for layer, attributes in before:
            vars(layer).clear()
            vars(layer).update(attributes)
        self.rng.bit_generator.state = state
        self._unfinished = None

    def _normalises(self) -> bool:
        """Whether the first layer makes the scale of the samples irrelevant."""
        return isinstance(self.layers[0], BatchNorm)

    def __copy__(self) -> Self:
        return deepcopy(self)  # a layer's arrays are parts of one model's

    def __getstate__(self) -> dict[str, Any]:
        left_out = "_weights", "_executors", "_unfinished", "_ownership", "_derived_for", "_fits"
        with _building:  # layers that another thread builds are not copied half
            state = {name: value for name, value in vars(self).items() if name not in left_out}
            if not self.built:
                state |= {"layers": FixedList(_copied(self.layers)), "rng": deepcopy(self.rng)}
            return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The arrays of a copied or pickled model's layers are no longer parts of one array.
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
            for name, array in arrays_of(layer)
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
        new = [np.asarray(values) for values in weights]
        for (name, array), values in zip(arrays, new, strict=True):
            if values.shape != array.shape or values.dtype.kind not in "fiub":
                raise ValueError(
                    f"weights must hold numbers of shape {array.shape} for {name}, got "
                    f"{values.dtype} of shape {values.shape}"
                )
        for (_, array), values in zip(arrays, new, strict=True):
            array[...] = values

    # --- running layers ---------------------------------------------------------------------------

    def _forward_batch(self, images: Array, loss: Loss | None = None) -> Array:
        """Raw outputs of the layers for samples (N, …), bytes or floats.

        Without the last layer, where it is the activation that the loss (by default the model's)
        implies.
        """
        trunk = self._trunk(loss or self._predicting())
        executor = self._executor(trunk)
        if executor is not None:
            outputs = executor.forward(self._executor_input(images, executor))
            if outputs is not None:
                return outputs
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
            result = executor.gradients(
                self._executor_input(images, executor), targets, loss, rng, weights
            )
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
        """As ``_gradients``, layer by layer, with the engine asked for."""
        trunk, saved = self._trunk(loss), []
        trained = (i for i, layer in enumerate(trunk) if self._weights.gradients_of(layer))
        first = next(trained, len(trunk))  # gradients go back no further
        y = batch(images, self.dtype)
        for i, layer in enumerate(trunk):
            y, saved_of_layer = layer.forward(y, True, rng, self.engine)
            saved.append(saved_of_layer if i >= first else None)
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
            destinations = self._weights.gradients_of(trunk[i])
            for name, gradient in gradients.items():
                if name in destinations:
                    destinations[name][...] = gradient
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
            raise ValueError(too_few("x must hold", self._least_batch, len(images)))
        if executor is not None:
            samples = self._executor_input(images, executor)
            result = executor.step(samples, targets, loss, self.rng, optimizer, weights)
            if result is not None:
                return result
        with unchanged_by_errors(array for layer in self.layers for array in layer.state.values()):
            result = self._one_by_one(images, targets, loss, self.rng, weights)
            self._weights.move(optimizer)
        return result

    def _executor(self, trunk: Sequence[Layer]) -> Executor | None:
        """The executor of these layers; None where they run layer by layer."""
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
        """Derive anew what depends on the layers, after they have changed."""
        version = self._ownership.version
        self._weights.update()
        self._executors = {}
        shapes = infer_stack(self.layers, self._known_shape())
        self._least_batch = least_batch(self.layers, shapes)
        if self._weights.frozen and not self._weights.spans:
            self._least_batch = inf
        self._derived_for = version

    def _executor_input(self, images: Array, executor: Executor) -> Array:
        """Samples as the executor reads them: bytes where it can, else the model's dtype."""
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

    def _doubt_layout(self, name: str, shape: Shape, count: int | None = None) -> None:
        """Warn, once, of samples that are probably laid out in another way."""
        doubt = layout_doubt(name, shape, count)
        if doubt is not None:
            self._known.warn_once("layout", doubt)


def _checked_loss(model: Net, value: object) -> Loss | None:
    if getattr(model, "_fits", 0) == os.getpid():
        raise AttributeError(
            "loss of a model cannot be set while a fit runs, because its targets were checked for "
            "the loss that it began with; stop it, and give the next fit another loss"
        )
    return None if value is None else loss_named(value)


def _checked_rng(model: Net, value: object) -> np.random.Generator:
    if not isinstance(value, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy.random.Generator such as numpy.random.default_rng(0), got "
            f"{value!r}"
        )
    return value


def _checked_kind(model: Net, value: object) -> object:
    if value not in (None, "uint8", "floats"):
        raise ValueError(f'trained_on must be "uint8", "floats" or None, got {quoted(value)}')
    return value


def _checked_progress(model: Net, value: object) -> Progress | None:
    if value is not None and not isinstance(value, Progress):
        raise TypeError(f"progress must be None or that of a training, got {quoted(value)}")
    if getattr(model, "_fits", 0) == os.getpid():
        raise AttributeError("progress of a model cannot be set while a fit runs")
    return value


_CHECKED: dict[str, Callable[[Net, Any], object]] = {
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


def least_batch(layers: Sequence[Layer], shapes: Sequence[Shape]) -> int:
    """The fewest samples that a training batch may have."""
    return max(layer.least_batch(one) for layer, one in zip(layers, shapes, strict=False))


def too_few(what: str, least: float, samples: int) -> str:
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


def arrays_of(layer: Layer) -> list[tuple[str, Array]]:
    """All arrays of a layer with their names: parameters, then state."""
    return [*layer.parameters.items(), *layer.state.items()]


def image_shape(sides: Sequence[int]) -> Shape:
    """The shape of a sample: (H, W) is one channel.

    >>> image_shape((28, 28))
    (28, 28, 1)
    """
    if not isinstance(sides, tuple | list) or not 1 <= len(sides) <= 3:
        raise ValueError(
            f"input_shape must be (H, W, C), (H, W) or (features,), got {quoted(sides)}"
        )
    shape = tuple(count("input_shape", side) for side in sides)
    return (*shape, 1) if len(shape) == 2 else shape
