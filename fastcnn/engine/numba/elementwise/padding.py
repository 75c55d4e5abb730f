"""Zeros around images, and their gradient, as compiled loops over rows of pixels."""

from __future__ import annotations

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.threads import parallel_for


def zero_pad2d(x: Array, margins: tuple[int, int, int, int]) -> Array:
    """The images with zeros at the top, bottom, left and right."""
    top, bottom, left, right = margins
    n, h, w, c = x.shape
    y = empty_like_type(x, n, top + h + bottom, left + w + right, c)
    parallel_for(_padded_rows, n * y.shape[1], y.size, readable(x), top, left, y)
    return y


def zero_pad2d_backward(dy: Array, margins: tuple[int, int, int, int]) -> Array:
    """``dx``: dy without its margins."""
    top, bottom, left, right = margins
    n, h, w, c = dy.shape
    dx = empty_like_type(dy, n, h - top - bottom, w - left - right, c)
    parallel_for(_cropped_rows, n * dx.shape[1], dx.size, readable(dy), top, left, dx)
    return dx


@kernel
def _padded_rows(start: int, stop: int, x: Array, top: int, left: int, y: Array) -> None:
    """Some of the N·OH rows of ``y`` (N, OH, OW, C) from ``x`` (N, H, W, C)."""
    _, h, w, channels = x.shape
    for row in range(start, stop):
        n, oh = row // y.shape[1], row % y.shape[1]
        ih = oh - top
        for ow in range(y.shape[2]):
            iw = ow - left
            inside = 0 <= ih < h and 0 <= iw < w
            for c in range(channels):
                y[n, oh, ow, c] = x[n, ih, iw, c] if inside else 0


@kernel
def _cropped_rows(start: int, stop: int, dy: Array, top: int, left: int, dx: Array) -> None:
    """Some of the N·H rows of ``dx`` (N, H, W, C) from ``dy`` (N, OH, OW, C)."""
    for row in range(start, stop):
        n, ih = row // dx.shape[1], row % dx.shape[1]
        for iw in range(dx.shape[2]):
            for c in range(dx.shape[3]):
                dx[n, ih, iw, c] = dy[n, ih + top, iw + left, c]
