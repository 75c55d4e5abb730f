"""The base of layers that apply one operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.nn.layers.base import Gradients, Layer, Saved

Operation = Callable[..., Array]


class OperationLayer(Layer, abstract=True):
    """A layer without parameters: one operation, and the operation of its gradient.

    Example:
        >>> from fastcnn import ops
        >>> class _Double(OperationLayer):
        ...     _operations = ops.leaky_relu, ops.leaky_relu_backward
        ...
        ...     def _arguments(self):
        ...         return (2.0,)
        >>> _Double().forward(np.array([[-1.0, 0.0]]), True, None, None)[0]
        array([[-2.,  0.]])
    """

    _operations: ClassVar[tuple[Operation, Operation]]
    _gradient_takes_input: ClassVar[bool] = True

    def _arguments(self) -> tuple[object, ...]:
        """Arguments of both operations, after their arrays."""
        return ()

    def _operation(self, x: Array, engine: str | None) -> Array:
        return self._operations[0](x, *self._arguments(), engine=engine)

    def _saved(self, x: Array) -> Saved:
        return x if self._gradient_takes_input else None

    def _gradient(self, dy: Array, saved: Saved, engine: str | None) -> Array:
        arrays = (dy, saved) if self._gradient_takes_input else (dy,)
        return self._operations[1](*arrays, *self._arguments(), engine=engine)

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        return self._operation(x, engine), self._saved(x)

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        return self._gradient(dy, saved, engine) if needs_dx else None, {}
