"""Objects of a user's own that return what they should not, in every way that one can think of.

The tests, the runs on guarded memory and ``reliability/fuzz_user_code.py`` share them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.layers import Layer, Shape, Spec
from fastcnn.losses import Loss
from fastcnn.optimizers import Optimizer
from fastcnn.schedules import Schedule


class Convertible:
    """What NumPy makes an array of."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.array, dtype)


class Subclass(np.ndarray):
    """An array of another class."""


def unaligned(array: Array) -> Array:
    """A copy at an odd address."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    copy: Array = memory[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


Change = Callable[[Array], Any]
"""From the right result to one of another form."""

RIGHT: dict[str, Change] = {
    "itself": lambda a: a,
    "list": lambda a: a.tolist(),
    "float64": lambda a: a.astype(np.float64),
    "long double": lambda a: a.astype(np.longdouble),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "Fortran order": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "unaligned": unaligned,
    "subclass": lambda a: a.view(Subclass),
    "convertible": Convertible,
}
"""Other forms of the same numbers."""

WRONG: dict[str, Change] = {
    "nothing": lambda a: None,
    "text": lambda a: "result",
    "number": lambda a: 0.5,
    "one number": lambda a: a.reshape(-1)[:1],
    "no sample": lambda a: a[:0],
    "one sample less": lambda a: a[:-1],
    "one sample more": lambda a: np.concatenate([a, a[:1]]),
    "twice as many": lambda a: np.concatenate([a, a]),
    "one of each": lambda a: a[..., :1] if a.shape[-1] > 1 else a[..., :0],
    "one more of each": lambda a: np.concatenate([a, a[..., :1]], axis=-1),
    "more axes": lambda a: a[np.newaxis, ..., np.newaxis],
    "no axes": lambda a: np.zeros((), a.dtype),
    "turned": lambda a: np.zeros((*a.shape[::-1], 1), a.dtype),
    "complex": lambda a: a.astype(np.complex64),
    "objects": lambda a: a.astype(object),
    "words": lambda a: a.astype(str),
    "dates": lambda a: a.astype("datetime64[s]"),
    "records": lambda a: np.zeros(a.shape, [("a", np.float32)]),
    "ragged": lambda a: [[1.0], [1.0, 2.0], 3.0],
    "array of arrays": lambda a: [a, None],
    "dict": lambda a: {"result": a},
    "type": lambda a: type(a),
}
"""What is no result of the right shape and kind."""

DIVERGED: dict[str, Change] = {
    "NaN": lambda a: np.full_like(a, np.nan),
    "one infinity": lambda a: np.concatenate([[np.inf], a.reshape(-1)[1:]]).reshape(a.shape),
}
"""Numbers that are not finite."""

CHANGES = {**RIGHT, **WRONG, **DIVERGED}


class Scale(Layer):
    """``x * w``, one of whose methods changes its result."""

    def __init__(self, place: str = "", change: str = "itself") -> None:
        super().__init__()
        self.place, self.change = place, change

    def _changed(self, place: str, array: Array) -> Any:
        return CHANGES[self.change](array) if place == self.place else array

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        return {"w": Spec(input_shape[-1:], "ones")}

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        return self._changed("output", x * self.parameters["w"]), x

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        dw = (dy * saved).reshape(-1, dy.shape[-1]).sum(axis=0)
        dx = self._changed("dx", dy * self.parameters["w"])
        return dx, {"w": self._changed("dw", dw)}


class Distance(Loss):
    """Half of the squared distance, one of whose methods changes its result."""

    name = "distance"
    counts = True

    def __init__(self, place: str = "", change: str = "itself") -> None:
        self.place, self.change = place, change

    def _changed(self, place: str, array: Array) -> Any:
        return CHANGES[self.change](array) if place == self.place else array

    def targets(self, y: Any, count: int, output: Shape, dtype: Any) -> Any:
        return self._changed("targets", np.asarray(y, dtype))

    def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Any:
        squares = np.square(outputs - targets).reshape(len(outputs), -1).sum(axis=1)
        return self._changed("values", squares / 2)

    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Any:
        return self._changed("gradient", outputs - targets)

    def correct(self, outputs: Array, targets: Array) -> Any:
        right = np.array((np.abs(outputs - targets) < 0.5).all(axis=-1).sum(), np.float32)
        return self._changed("correct", right) if self.place == "correct" else float(right)

    def predictions(self, outputs: Array, engine: str | None = None) -> Any:
        return self._changed("predictions", outputs)


class Descent(Optimizer):
    """Plain gradient descent that may leave parameters that are not finite."""

    def __init__(self, learning_rate: Any = 0.01, change: str = "itself") -> None:
        super().__init__(learning_rate)
        self.change = change

    def step(self, parameters: Array, gradient: Array) -> None:
        moved = parameters - self.rate * gradient
        if self.change in DIVERGED:
            parameters[...] = DIVERGED[self.change](moved)
            return
        parameters[...] = moved


class Rates(Schedule):
    """A schedule that gives what it is told to."""

    def __init__(self, rates: list[Any]) -> None:
        self.rates = rates

    def __call__(self, step: int) -> Any:
        return self.rates[min(step, len(self.rates) - 1)]


KNOWN = (Scale, Distance, Descent, Rates)


def forget() -> None:
    """Take the classes from the lists of those that fastcnn knows; other tests go over these."""
    Layer.registry.pop("Scale", None)
    Loss.registry.pop("distance", None)
    Optimizer.registry.pop("Descent", None)
    Schedule.registry.pop("Rates", None)


forget()
