"""Pooling layers: over windows, and over the whole image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import Padding, Pair, pads, pair, pool_geometry
from fastcnn.nn.layers.base import Gradients, Layer, as_pair, image
from fastcnn.nn.layers.initializers import Shape


class _Pooling(Layer):
    """One kind of pooling over windows."""

    _forward: ClassVar[Callable[..., Array]]
    _backward: ClassVar[Callable[..., Array]]

    def __init__(
        self, pool_size: Pair = 2, strides: Pair | None = None, padding: Padding = "valid"
    ) -> None:
        super().__init__()
        window = pair("pool_size", pool_size)
        self.pool_size: Any = as_pair(window)
        self.strides: Any = None if strides is None else as_pair(pair("strides", strides))
        pads(padding, window, window, (1, 1))  # raises the error for a wrong padding
        self.padding: Any = padding
        if not isinstance(padding, str | int):
            self.padding = tuple(tuple(p) if isinstance(p, list | tuple) else p for p in padding)

    def infer(self, input_shape: Shape) -> Shape:
        sides = image(type(self).__name__, input_shape)
        g = pool_geometry((1, *sides), self.pool_size, stride=self.strides, padding=self.padding)
        return g.output_shape[1:]

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Any]:
        y = type(self)._forward(x, self.pool_size, self.strides, self.padding, engine=engine)
        return y, x

    def backward(
        self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        if not needs_dx:
            return None, {}
        dx = type(self)._backward(
            dy, saved, self.pool_size, self.strides, self.padding, engine=engine
        )
        return dx, {}


class MaxPool2D(_Pooling):
    """Largest value of each window, (H, W, C) to (OH, OW, C).

    Args:
        pool_size: the window, an int or (vertical, horizontal).
        strides: pixels between windows; None means ``pool_size``.
        padding: as for Conv2D, but smaller than the window.

    Example:
        >>> MaxPool2D().infer((26, 26, 8))
        (13, 13, 8)
    """

    _forward, _backward = staticmethod(ops.max_pool2d), staticmethod(ops.max_pool2d_backward)


class MinPool2D(_Pooling):
    """Smallest value of each window. Arguments and shapes are those of :class:`MaxPool2D`."""

    _forward, _backward = staticmethod(ops.min_pool2d), staticmethod(ops.min_pool2d_backward)


class AvgPool2D(_Pooling):
    """Mean of each window's pixels in the image. Arguments and shapes as :class:`MaxPool2D`."""

    _forward, _backward = staticmethod(ops.avg_pool2d), staticmethod(ops.avg_pool2d_backward)


class _GlobalPooling(Layer):
    """One kind of pooling over the whole image."""

    _forward: ClassVar[Callable[..., Array]]
    _backward: ClassVar[Callable[..., Array]]

    def infer(self, input_shape: Shape) -> Shape:
        return (image(type(self).__name__, input_shape)[2],)

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Any]:
        y = type(self)._forward(x, x.shape[1:3], engine=engine)
        return y.reshape(len(x), -1) if len(x) else y.reshape(0, x.shape[3]), x

    def backward(
        self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        if not needs_dx:
            return None, {}
        n, h, w, c = saved.shape
        return type(self)._backward(dy.reshape(n, 1, 1, c), saved, (h, w), engine=engine), {}


class GlobalAvgPool2D(_GlobalPooling):
    """Mean of each channel over the whole image, (H, W, C) to (C,).

    Example:
        >>> GlobalAvgPool2D().infer((7, 5, 64))
        (64,)
    """

    _forward, _backward = staticmethod(ops.avg_pool2d), staticmethod(ops.avg_pool2d_backward)


class GlobalMaxPool2D(_GlobalPooling):
    """Largest value of each channel over the whole image, (H, W, C) to (C,)."""

    _forward, _backward = staticmethod(ops.max_pool2d), staticmethod(ops.max_pool2d_backward)
