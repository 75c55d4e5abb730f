"""Pooling as compiled loops over channels: every parameter.

Forward, an item is a row of the output. Backward, windows may share pixels, so an item is a block
of channels of one image, and its windows are visited in row-major order.
"""

from __future__ import annotations

from typing import Any

from fastcnn.arguments import Array
from fastcnn.geometry import PoolGeometry
from fastcnn.kernels.arrays import empty_like_type, readable
from fastcnn.kernels.jit import device, kernel
from fastcnn.kernels.threads import parallel_for

# Channels that one item of a gradient takes: one or two vectors on every processor.
_BLOCK = 16


def max_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Largest value of each window."""
    return _extreme(x, 1, g)


def min_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Smallest value of each window: the largest of the negated ones, negated."""
    return _extreme(x, -1, g)


def avg_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Mean of each window's pixels in the image."""
    y = empty_like_type(x, *g.output_shape)
    parallel_for(_average_rows, g.n * g.oh, _work(g), readable(x), y, g)
    return y


def max_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx``: each window's gradient at its first maximum."""
    return _extreme_gradient(dy, x, 1, g)


def min_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx``: each window's gradient at its first minimum."""
    return _extreme_gradient(dy, x, -1, g)


def avg_pool2d_backward(dy: Array, g: PoolGeometry) -> Array:
    """``dx``: each window's gradient shared by its pixels in the image."""
    dx = empty_like_type(dy, *g.input_shape)
    blocks = -(-g.c // _BLOCK)
    parallel_for(_average_gradient_blocks, g.n * blocks, _work(g), readable(dy), dx, g)
    return dx


def _extreme(x: Array, sign: int, g: PoolGeometry) -> Array:
    y = empty_like_type(x, *g.output_shape)
    parallel_for(_extreme_rows, g.n * g.oh, _work(g), readable(x), y, x.dtype.type(sign), g)
    return y


def _extreme_gradient(dy: Array, x: Array, sign: int, g: PoolGeometry) -> Array:
    dx = empty_like_type(dy, *g.input_shape)
    blocks = -(-g.c // _BLOCK)
    parallel_for(
        _extreme_gradient_blocks,
        g.n * blocks,
        _work(g),
        readable(dy),
        readable(x),
        dx,
        x.dtype.type(sign),
        g,
    )
    return dx


def _work(g: PoolGeometry) -> int:
    return g.n * g.oh * g.ow * g.c * g.kh * g.kw


@device
def _beats(value: Any, best: Any) -> bool:
    """Whether ``value`` takes the place of an earlier ``best``: greater, or the first NaN."""
    wins: bool = value > best or (value != value and best == best)
    return wins


@kernel
def _extreme_rows(start: int, stop: int, x: Any, y: Any, sign: Any, g: PoolGeometry) -> None:
    for row in range(start, stop):
        n, oh = row // g.oh, row % g.oh
        top = oh * g.stride_h - g.pad_top
        for ow in range(g.ow):
            left = ow * g.stride_w - g.pad_left
            first_h, first_w = max(top, 0), max(left, 0)
            for c in range(g.c):
                y[n, oh, ow, c] = sign * x[n, first_h, first_w, c]
            for ih in range(first_h, min(top + g.kh, g.h)):
                for iw in range(first_w, min(left + g.kw, g.w)):
                    for c in range(g.c):
                        value, best = sign * x[n, ih, iw, c], y[n, oh, ow, c]
                        y[n, oh, ow, c] = value if _beats(value, best) else best
            for c in range(g.c):
                y[n, oh, ow, c] *= sign


@kernel
def _average_rows(start: int, stop: int, x: Any, y: Any, g: PoolGeometry) -> None:
    for row in range(start, stop):
        n, oh = row // g.oh, row % g.oh
        first_h = max(oh * g.stride_h - g.pad_top, 0)
        last_h = min(oh * g.stride_h - g.pad_top + g.kh, g.h)
        for ow in range(g.ow):
            first_w = max(ow * g.stride_w - g.pad_left, 0)
            last_w = min(ow * g.stride_w - g.pad_left + g.kw, g.w)
            y[n, oh, ow] = 0
            for ih in range(first_h, last_h):
                for iw in range(first_w, last_w):
                    for c in range(g.c):
                        y[n, oh, ow, c] += x[n, ih, iw, c]
            pixels = (last_h - first_h) * (last_w - first_w)
            for c in range(g.c):
                y[n, oh, ow, c] /= pixels


@kernel
def _extreme_gradient_blocks(
    start: int, stop: int, dy: Any, x: Any, dx: Any, sign: Any, g: PoolGeometry
) -> None:
    blocks = -(-g.c // _BLOCK)
    for item in range(start, stop):
        n = item // blocks
        first_c = item % blocks * _BLOCK
        last_c = min(first_c + _BLOCK, g.c)
        dx[n, :, :, first_c:last_c] = 0
        for oh in range(g.oh):
            top = oh * g.stride_h - g.pad_top
            for ow in range(g.ow):
                left = ow * g.stride_w - g.pad_left
                for c in range(first_c, last_c):
                    best_h, best_w = max(top, 0), max(left, 0)
                    best = sign * x[n, best_h, best_w, c]
                    for ih in range(max(top, 0), min(top + g.kh, g.h)):
                        for iw in range(max(left, 0), min(left + g.kw, g.w)):
                            value = sign * x[n, ih, iw, c]
                            if _beats(value, best):
                                best, best_h, best_w = value, ih, iw
                    dx[n, best_h, best_w, c] += dy[n, oh, ow, c]


@kernel
def _average_gradient_blocks(start: int, stop: int, dy: Any, dx: Any, g: PoolGeometry) -> None:
    blocks = -(-g.c // _BLOCK)
    for item in range(start, stop):
        n = item // blocks
        first_c = item % blocks * _BLOCK
        last_c = min(first_c + _BLOCK, g.c)
        dx[n, :, :, first_c:last_c] = 0
        for oh in range(g.oh):
            first_h = max(oh * g.stride_h - g.pad_top, 0)
            last_h = min(oh * g.stride_h - g.pad_top + g.kh, g.h)
            for ow in range(g.ow):
                first_w = max(ow * g.stride_w - g.pad_left, 0)
                last_w = min(ow * g.stride_w - g.pad_left + g.kw, g.w)
                pixels = (last_h - first_h) * (last_w - first_w)
                for ih in range(first_h, last_h):
                    for iw in range(first_w, last_w):
                        for c in range(first_c, last_c):
                            dx[n, ih, iw, c] += dy[n, oh, ow, c] / pixels
