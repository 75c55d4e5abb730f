"""Layers on vectors: Dense, and Flatten, which turns images into vectors."""

from __future__ import annotations

from math import prod

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.scalars import count, truth
from fastcnn.nn.layers.base import Gradients, Layer, Saved, features
from fastcnn.nn.layers.convolution import before_activation, fused_activation
from fastcnn.nn.layers.initializers import Shape, Spec, initializer


class Dense(Layer):
    """Fully connected layer, (features,) to (units,): ``x @ w + b``.

    Args:
        units: number of outputs.

    Example:
        >>> Dense(10).infer((1352,))
        (10,)

    Parameters: ``w`` (features, units) and ``b`` (units,).
    """

    def __init__(
        self,
        units: int,
        activation: ops.Activation = None,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.units = count("units", units)
        self.activation = fused_activation(activation)
        self.use_bias = truth("use_bias", use_bias)
        self.kernel_initializer = initializer("kernel_initializer", kernel_initializer)

    def infer(self, input_shape: Shape) -> Shape:
        features("Dense", input_shape)
        return (self.units,)

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        sides = features("Dense", input_shape), self.units
        specs = {"w": Spec(sides, self.kernel_initializer, *sides)}
        if self.use_bias:
            specs["b"] = Spec((self.units,), "zeros")
        return specs

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        w, b = self._own_parameters["w"], self._own_parameters.get("b")
        y = ops.dense(x, w, b, activation=self.activation, engine=engine)
        return y, (x, y if self.activation else None)

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        x, y = saved
        dy = before_activation(self.activation, dy, y, engine)
        dx, dw, db = ops.dense_backward(dy, x, self._own_parameters["w"], engine=engine)
        if not self.trainable:
            return dx, {}
        return dx, {"w": dw, "b": db} if self.use_bias else {"w": dw}

    def flops(self, input_shape: Shape) -> int:
        return 2 * input_shape[0] * self.units


class Flatten(Layer):
    """Images as vectors, (H, W, C) to (H · W · C,), in row-major order.

    Example:
        >>> Flatten().infer((13, 13, 8))
        (1352,)
    """

    def infer(self, input_shape: Shape) -> Shape:
        return (prod(input_shape),)

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        return x.reshape(len(x), prod(x.shape[1:])), x.shape

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        return dy.reshape(saved), {}
