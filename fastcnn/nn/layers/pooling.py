"""Pooling layers: over windows, and over the whole image."""

from __future__ import annotations

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import Padding, Pair, pads, pair, pool_geometry
from fastcnn.nn.layers.base import Saved, as_pair, as_tuples, image
from fastcnn.nn.layers.initializers import Shape
from fastcnn.nn.layers.operation import OperationLayer


class _Pooling(OperationLayer):
    """One kind of pooling over windows."""

    def __init__(
        self,
        pool_size: Pair = 2,
        strides: Pair | None = None,
        padding: Padding = "valid",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        window = pair("pool_size", pool_size)
        self.pool_size = as_pair(window)
        self.strides = None if strides is None else as_pair(pair("strides", strides))
        pads(padding, window, window, (1, 1))  # raises the error for a wrong padding
        self.padding = as_tuples(padding)

    def infer(self, input_shape: Shape) -> Shape:
        sides = image(type(self).__name__, input_shape)
        g = pool_geometry((1, *sides), self.pool_size, stride=self.strides, padding=self.padding)
        return g.output_shape[1:]

    def _arguments(self) -> tuple[object, ...]:
        return self.pool_size, self.strides, self.padding


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

    _operations = ops.max_pool2d, ops.max_pool2d_backward


class MinPool2D(_Pooling):
    """Smallest value of each window. Arguments and shapes are those of :class:`MaxPool2D`."""

    _operations = ops.min_pool2d, ops.min_pool2d_backward


class AvgPool2D(_Pooling):
    """Mean of each window's pixels in the image. Arguments and shapes as :class:`MaxPool2D`."""

    _operations = ops.avg_pool2d, ops.avg_pool2d_backward


class _GlobalPooling(OperationLayer):
    """One kind of pooling over the whole image."""

    def infer(self, input_shape: Shape) -> Shape:
        return (image(type(self).__name__, input_shape)[2],)

    def _operation(self, x: Array, engine: str | None) -> Array:
        n, h, w, c = x.shape
        return self._operations[0](x, (h, w), engine=engine).reshape(n, c)

    def _gradient(self, dy: Array, saved: Saved, engine: str | None) -> Array:
        n, h, w, c = saved.shape
        return self._operations[1](dy.reshape(n, 1, 1, c), saved, (h, w), engine=engine)


class GlobalAvgPool2D(_GlobalPooling):
    """Mean of each channel over the whole image, (H, W, C) to (C,).

    Example:
        >>> GlobalAvgPool2D().infer((7, 5, 64))
        (64,)
    """

    _operations = ops.avg_pool2d, ops.avg_pool2d_backward


class GlobalMaxPool2D(_GlobalPooling):
    """Largest value of each channel over the whole image, (H, W, C) to (C,)."""

    _operations = ops.max_pool2d, ops.max_pool2d_backward
