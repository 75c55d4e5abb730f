"""Activations as layers of their own; the output has the input's shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.scalars import share
from fastcnn.nn.layers.base import Gradients, Layer
from fastcnn.nn.layers.initializers import Shape


class _Activation(Layer):
    """An activation: one operation, and the operation of its gradient."""

    _forward: ClassVar[Callable[..., Array]]
    _backward: ClassVar[Callable[..., Array]]

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def _parameters(self) -> dict[str, Any]:
        return {}

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Any]:
        return type(self)._forward(x, **self._parameters(), engine=engine), x

    def backward(
        self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        if not needs_dx:
            return None, {}
        return type(self)._backward(dy, saved, **self._parameters(), engine=engine), {}


class ReLU(_Activation):
    """``max(x, 0)``. As ``activation="relu"`` of the layer before it, it costs no extra pass."""

    _forward, _backward = staticmethod(ops.relu), staticmethod(ops.relu_backward)


class LeakyReLU(_Activation):
    """x where it is above 0, else ``slope * x``.

    Args:
        slope: from 0 to 1.
    """

    _forward, _backward = staticmethod(ops.leaky_relu), staticmethod(ops.leaky_relu_backward)

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = share("slope", slope)

    def _parameters(self) -> dict[str, Any]:
        return {"slope": self.slope}


class Tanh(_Activation):
    """Hyperbolic tangent."""

    _forward, _backward = staticmethod(ops.tanh), staticmethod(ops.tanh_backward)


class Sigmoid(_Activation):
    """``1 / (1 + exp(-x))``. If it is a net's last layer, training with binary cross-entropy omits
    it, because the loss contains a sigmoid."""

    _forward, _backward = staticmethod(ops.sigmoid), staticmethod(ops.sigmoid_backward)


class Softmax(_Activation):
    """Softmax over the last axis. If it is a net's last layer, training with cross-entropy omits
    it, because the loss contains a softmax."""

    _forward, _backward = staticmethod(ops.softmax), staticmethod(ops.softmax_backward)
