"""The operations of pooling, as the engine exports them."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import PoolGeometry
from fastcnn.engine.numba.contraction.column_sums import round_to_dtype
from fastcnn.engine.numba.pool.chooser import (
    argmax_gradient_kernel,
    forward_kernel,
    gradient_kernel,
    sums_are_long,
)
from fastcnn.engine.numba.pool.windows import pooling_of_pixels
from fastcnn.engine.numba.runtime.arrays import convert, empty_like_type, readable, record
from fastcnn.engine.numba.runtime.threads import parallel_for


def max_pool2d(x: Array, g: PoolGeometry) -> Array:
    """``y`` (N, OH, OW, C) of ``x`` (N, H, W, C): the largest value of each window."""
    return _forward("max", x, g)


def min_pool2d(x: Array, g: PoolGeometry) -> Array:
    """``y`` (N, OH, OW, C) of ``x`` (N, H, W, C): the smallest value of each window."""
    return _forward("min", x, g)


def avg_pool2d(x: Array, g: PoolGeometry) -> Array:
    """``y`` (N, OH, OW, C) of ``x`` (N, H, W, C): the mean of each window's pixels in the image."""
    return _forward("average", x, g)


def max_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx`` (N, H, W, C): each window's gradient in ``dy`` (N, OH, OW, C) at its first maximum."""
    return _extreme_gradient("max", dy, x, g)


def min_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx`` (N, H, W, C): each window's gradient in ``dy`` (N, OH, OW, C) at its first minimum."""
    return _extreme_gradient("min", dy, x, g)


def avg_pool2d_backward(dy: Array, g: PoolGeometry) -> Array:
    """``dx`` (N, H, W, C): each window's gradient, shared by its pixels in the image."""
    if sums_are_long(g) and dy.itemsize < 8:
        return round_to_dtype(avg_pool2d_backward(convert(dy, np.float64), g), dy)
    dx = empty_like_type(dy, *g.input_shape)
    kernel, items = gradient_kernel("average", g, dy.itemsize)
    parallel_for(kernel, items, _work(g), readable(dy).reshape(-1), dx.reshape(-1), record(g))
    return dx


def argmax_gradient(dy: Array, indices: Array, g: PoolGeometry) -> Array:
    """``dx`` (N, H, W, C) of 2×2 max-pooling: each window's gradient at its argmax index.

    ``dy`` and ``indices`` are (N, OH, OW, C).
    """
    dx = empty_like_type(dy, *g.input_shape)
    kernel, items = argmax_gradient_kernel(g, dy.itemsize)
    operands = readable(dy).reshape(-1), indices.reshape(-1), dx.reshape(-1), record(g)
    parallel_for(kernel, items, _work(g), *operands)
    return dx


def _forward(kind: str, x: Array, g: PoolGeometry) -> Array:
    y = empty_like_type(x, *g.output_shape)
    kernel, items = forward_kernel(kind, g, x.itemsize)
    numbers = record(pooling_of_pixels(g))
    parallel_for(kernel, items, _work(g), readable(x).reshape(-1), y.reshape(-1), numbers)
    return y


def _extreme_gradient(kind: str, dy: Array, x: Array, g: PoolGeometry) -> Array:
    if sums_are_long(g) and dy.itemsize < 8:
        wide = convert(dy, np.float64), convert(x, np.float64)
        return round_to_dtype(_extreme_gradient(kind, *wide, g), dy)
    dx = empty_like_type(dy, *g.input_shape)
    kernel, items = gradient_kernel(kind, g, dy.itemsize)
    operands = readable(dy).reshape(-1), readable(x).reshape(-1), dx.reshape(-1)
    parallel_for(kernel, items, 2 * _work(g), *operands, record(g))
    return dx


def _work(g: PoolGeometry) -> int:
    return g.n * g.oh * g.ow * g.c * g.kh * g.kw
