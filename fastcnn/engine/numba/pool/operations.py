"""The operations of pooling, as the engine exports them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

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
from fastcnn.engine.numba.runtime.bound import allocator, bound_by, launcher
from fastcnn.engine.numba.runtime.threads import parallel_for


def _bind_pool(kind: str, g: PoolGeometry, dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    new, numbers = allocator(g.output_shape, dtype), record(pooling_of_pixels(g))
    launch = launcher(*forward_kernel(kind, g, dtype.itemsize), _work(g))

    def bound(x: Array) -> Array:
        y = new()
        launch(x.ravel(), y.ravel(), numbers)
        return y

    return bound


@bound_by(partial(_bind_pool, "max"))
def max_pool2d(x: Array, g: PoolGeometry) -> Array:
    """``y`` (N, OH, OW, C) of ``x`` (N, H, W, C): the largest value of each window."""
    return _bind_pool("max", g, x.dtype)(readable(x))


@bound_by(partial(_bind_pool, "min"))
def min_pool2d(x: Array, g: PoolGeometry) -> Array:
    """``y`` (N, OH, OW, C) of ``x`` (N, H, W, C): the smallest value of each window."""
    return _bind_pool("min", g, x.dtype)(readable(x))


@bound_by(partial(_bind_pool, "average"))
def avg_pool2d(x: Array, g: PoolGeometry) -> Array:
    """``y`` (N, OH, OW, C) of ``x`` (N, H, W, C): the mean of each window's pixels in the image."""
    return _bind_pool("average", g, x.dtype)(readable(x))


def _bind_extreme_gradient(
    kind: str, g: PoolGeometry, dtype: np.dtype[Any]
) -> Callable[[Array, Array], Array]:
    if sums_are_long(g) and dtype.itemsize < 8:
        wide, double = _bind_extreme_gradient(kind, g, np.dtype(np.float64)), np.float64
        return lambda dy, x: round_to_dtype(wide(convert(dy, double), convert(x, double)), dy)
    new, numbers = allocator(g.input_shape, dtype), record(g)
    launch = launcher(*gradient_kernel(kind, g, dtype.itemsize), 2 * _work(g))

    def bound(dy: Array, x: Array) -> Array:
        dx = new()
        launch(dy.ravel(), x.ravel(), dx.ravel(), numbers)
        return dx

    return bound


@bound_by(partial(_bind_extreme_gradient, "max"))
def max_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx`` (N, H, W, C): each window's gradient in ``dy`` (N, OH, OW, C) at its first maximum."""
    return _bind_extreme_gradient("max", g, dy.dtype)(readable(dy), readable(x))


@bound_by(partial(_bind_extreme_gradient, "min"))
def min_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx`` (N, H, W, C): each window's gradient in ``dy`` (N, OH, OW, C) at its first minimum."""
    return _bind_extreme_gradient("min", g, dy.dtype)(readable(dy), readable(x))


def _bind_average_gradient(g: PoolGeometry, dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    if sums_are_long(g) and dtype.itemsize < 8:
        wide = _bind_average_gradient(g, np.dtype(np.float64))
        return lambda dy: round_to_dtype(wide(convert(dy, np.float64)), dy)
    new, numbers = allocator(g.input_shape, dtype), record(g)
    launch = launcher(*gradient_kernel("average", g, dtype.itemsize), _work(g))

    def bound(dy: Array) -> Array:
        dx = new()
        launch(dy.ravel(), dx.ravel(), numbers)
        return dx

    return bound


@bound_by(_bind_average_gradient)
def avg_pool2d_backward(dy: Array, g: PoolGeometry) -> Array:
    """``dx`` (N, H, W, C): each window's gradient, shared by its pixels in the image."""
    return _bind_average_gradient(g, dy.dtype)(readable(dy))


def argmax_gradient(dy: Array, indices: Array, g: PoolGeometry) -> Array:
    """``dx`` (N, H, W, C) of 2×2 max-pooling: each window's gradient at its argmax index.

    ``dy`` and ``indices`` are (N, OH, OW, C).
    """
    dx = empty_like_type(dy, *g.input_shape)
    kernel, items = argmax_gradient_kernel(g, dy.itemsize)
    operands = readable(dy).reshape(-1), indices.reshape(-1), dx.reshape(-1), record(g)
    parallel_for(kernel, items, _work(g), *operands)
    return dx


def _work(g: PoolGeometry) -> int:
    return g.n * g.oh * g.ow * g.c * g.kh * g.kw
