"""Pooling as compiled loops whose innermost runs over channels, and so over vectors.

Forward, an item is a row of the output. Backward, windows may share pixels, so an item is a block
of rows of the input: it visits, in row-major order, all windows that reach into it, and adds to
its own rows only. Windows on the border of two blocks are visited twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.arguments import Array
from fastcnn.geometry import PoolGeometry
from fastcnn.kernels.arrays import empty_like_type, readable, record
from fastcnn.kernels.jit import device, kernel
from fastcnn.kernels.threads import parallel_for

# Rows of the input in one item of a gradient.
_ROWS = 8


def max_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Largest value of each window."""
    return _extreme(x, 1, g)


def min_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Smallest value of each window: the largest of the negated ones, negated."""
    return _extreme(x, -1, g)


def avg_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Mean of each window's pixels in the image."""
    y = empty_like_type(x, *g.output_shape)
    parallel_for(_average_rows, g.n * g.oh, _work(g), readable(x), y, record(g))
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
    items = g.n * -(-g.h // _ROWS)
    parallel_for(_average_gradient, items, _work(g), readable(dy), dx, record(g))
    return dx


def _extreme(x: Array, sign: int, g: PoolGeometry) -> Array:
    y = empty_like_type(x, *g.output_shape)
    parallel_for(_extreme_rows, g.n * g.oh, _work(g), readable(x), y, x.dtype.type(sign), record(g))
    return y


def _extreme_gradient(dy: Array, x: Array, sign: int, g: PoolGeometry) -> Array:
    dx = empty_like_type(dy, *g.input_shape)
    items = g.n * -(-g.h // _ROWS)
    sign = x.dtype.type(sign)
    parallel_for(
        _extreme_gradient_rows, items, _work(g), readable(dy), readable(x), dx, sign, record(g)
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
def _extreme_rows(start: int, stop: int, x: Any, y: Any, sign: Any, numbers: Any) -> None:
    g = numbers[0]
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
def _average_rows(start: int, stop: int, x: Any, y: Any, numbers: Any) -> None:
    g = numbers[0]
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


@device
def _item(item: int, g: Any) -> Any:
    """Image and rows of an item of a gradient, and the windows that reach into these rows."""
    blocks = (g.h + _ROWS - 1) // _ROWS
    n, first = item // blocks, item % blocks * _ROWS
    last = min(first + _ROWS, g.h)
    # Window oh covers rows oh * S - P to oh * S - P + KH - 1.
    first_window = max(0, (first + g.pad_top - g.kh) // g.stride_h + 1)
    last_window = min(g.oh, (last - 1 + g.pad_top) // g.stride_h + 1)
    return n, first, last, first_window, last_window


@kernel
def _extreme_gradient_rows(
    start: int, stop: int, dy: Any, x: Any, dx: Any, sign: Any, numbers: Any
) -> None:
    g = numbers[0]
    best = np.empty(g.c, x.dtype)
    # Which pixel of the window is the best so far, as a number of the same width.
    place = np.empty(g.c, x.dtype)
    for item in range(start, stop):
        n, first, last, first_window, last_window = _item(item, g)
        for ih in range(first, last):
            for iw in range(g.w):
                for c in range(g.c):
                    dx[n, ih, iw, c] = 0
        for oh in range(first_window, last_window):
            top = max(oh * g.stride_h - g.pad_top, 0)
            bottom = min(oh * g.stride_h - g.pad_top + g.kh, g.h)
            for ow in range(g.ow):
                left = max(ow * g.stride_w - g.pad_left, 0)
                right = min(ow * g.stride_w - g.pad_left + g.kw, g.w)
                for c in range(g.c):
                    best[c] = sign * x[n, top, left, c]
                    place[c] = 0
                at = x.dtype.type(0)
                for ih in range(top, bottom):
                    for iw in range(left, right):
                        for c in range(g.c):
                            value, least = sign * x[n, ih, iw, c], best[c]
                            wins = _beats(value, least)
                            best[c] = value if wins else least
                            place[c] = at if wins else place[c]
                        at += x.dtype.type(1)
                at = x.dtype.type(0)
                for ih in range(top, bottom):
                    for iw in range(left, right):
                        if first <= ih < last:
                            for c in range(g.c):
                                share = dy[n, oh, ow, c]
                                dx[n, ih, iw, c] += share if place[c] == at else 0
                        at += x.dtype.type(1)


@kernel
def _average_gradient(start: int, stop: int, dy: Any, dx: Any, numbers: Any) -> None:
    g = numbers[0]
    for item in range(start, stop):
        n, first, last, first_window, last_window = _item(item, g)
        for ih in range(first, last):
            for iw in range(g.w):
                for c in range(g.c):
                    dx[n, ih, iw, c] = 0
        for oh in range(first_window, last_window):
            top = max(oh * g.stride_h - g.pad_top, 0)
            bottom = min(oh * g.stride_h - g.pad_top + g.kh, g.h)
            for ow in range(g.ow):
                left = max(ow * g.stride_w - g.pad_left, 0)
                right = min(ow * g.stride_w - g.pad_left + g.kw, g.w)
                pixels = (bottom - top) * (right - left)
                for ih in range(max(top, first), min(bottom, last)):
                    for iw in range(left, right):
                        for c in range(g.c):
                            dx[n, ih, iw, c] += dy[n, oh, ow, c] / pixels
