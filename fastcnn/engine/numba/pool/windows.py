"""Windows of a pooling, as its kernels count them: which pixels and which windows meet.

Along one side, window o of a pooling covers the pixels from ``o * stride - pad`` to before
``o * stride - pad + k``. A window on the border is clipped, because padding holds no pixels.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.geometry import PoolGeometry
from fastcnn.engine.numba.runtime.inlining import device

BLOCK_ROWS = 16
"""Rows of the input in one item of a gradient."""


class Strides(NamedTuple):
    """How far neighbours lie apart in the input, in numbers of its array.

    Attributes:
        row, pixel: rows and pixels of an image.
        window: windows of a row of windows.
    """

    row: int
    pixel: int
    window: int


class Pooling(NamedTuple):
    """The record of a forward kernel: the windows, and how far neighbouring pixels lie apart.

    ``x_pitch`` counts numbers of the input, ``y_pitch`` numbers of the output.
    """

    windows: PoolGeometry
    x_pitch: int
    y_pitch: int


def pooling_of_pixels(g: PoolGeometry, x_pitch: int = 0, y_pitch: int = 0) -> Pooling:
    """A pooling whose pixels lie so far apart; by default side by side."""
    return Pooling(g, x_pitch or g.c, y_pitch or g.c)


class Block(NamedTuple):
    """Rows of an image, ``first`` to before ``last``, and the windows that reach into them."""

    image: int
    first: int
    last: int
    first_window: int
    last_window: int


@device
def geometry_of(r: PoolGeometry) -> PoolGeometry:
    """The numbers of a geometry's record, read once.

    A loop that stores numbers would read them again each time, because they might have changed.
    """
    return PoolGeometry(
        r.n, r.h, r.w, r.c, r.kh, r.kw, r.oh, r.ow, r.stride_h, r.stride_w,
        r.pad_top, r.pad_bottom, r.pad_left, r.pad_right,
    )  # fmt: skip


@device
def strides_of(g: PoolGeometry, pitch: int) -> Strides:
    """The strides of the input, whose pixels lie ``pitch`` numbers apart."""
    return Strides(g.w * pitch, pitch, g.stride_w * pitch)


@device
def clipped_pixels(window: int, stride: int, pad: int, k: int, size: int) -> tuple[int, int]:
    """First and last pixel (exclusive) of a window that lie in the image, along one side."""
    first = window * stride - pad
    return max(first, 0), min(first + k, size)


@device
def windows_in_image(count: int, stride: int, pad: int, k: int, size: int) -> tuple[int, int]:
    """First and last window (exclusive) that lie in the image whole, along one side."""
    first = min(count, (pad + stride - 1) // stride)
    return first, max(first, min(count, (size - k + pad) // stride + 1))


@device
def block_of(item: int, g: PoolGeometry) -> Block:
    """The block of rows that is a gradient's item."""
    blocks = (g.h + BLOCK_ROWS - 1) // BLOCK_ROWS
    image, first = item // blocks, item % blocks * BLOCK_ROWS
    last = min(first + BLOCK_ROWS, g.h)
    first_window = max(0, (first + g.pad_top - g.kh) // g.stride_h + 1)
    last_window = min(g.oh, (last - 1 + g.pad_top) // g.stride_h + 1)
    return Block(image, first, last, first_window, last_window)


@device
def visited_pixels(
    window: int, stride: int, pad: int, k: int, first: int, clipped_first: int
) -> int:
    """How many rows (or columns) of a clipped window earlier windows of the loop have written.

    Args:
        window: the window.
        stride, pad, k: stride, padding and window side of the geometry.
        first: the first window of the loop over windows.
        clipped_first: the window's first pixel in the image.
    """
    return max((window - 1) * stride - pad + k - clipped_first, 0) if window > first else 0


@device
def covers_all(count: int, stride: int, pad: int, k: int, size: int) -> bool:
    """Whether each of ``size`` pixels lies in a window, along one side."""
    return stride <= k and (count - 1) * stride - pad + k >= size
