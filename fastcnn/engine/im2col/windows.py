"""Tools of convolution and pooling: windows as a view, taps as slices, and bounded memory.

There are two ways to reach every window of an image without a Python loop over windows:

- :func:`windows` shows all windows at once, as a read-only view with two more axes;
- :func:`taps_of` goes through the KH·KW positions inside the window. For each it gives the slice of
  the outputs and the slice of the image that meet there, without padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fastcnn.core.arguments import Array
from fastcnn.core.capacity import affordable
from fastcnn.core.geometry import ConvGeometry, PoolGeometry, taps

Tap: TypeAlias = tuple[int, int, tuple[slice, slice, slice], tuple[slice, slice, slice]]

WORKSPACE_BYTES = 4 * 2**20
"""Bytes that one call may take beyond its inputs and outputs.

A few MiB stay in the processor's cache between the copy and the multiplication; more is slower. If
a single output row of a single image needs more, a call takes what this row needs. The gradient of
the filters takes one more array of its own size. Results of long sums
(:mod:`fastcnn.core.long_sums`) are collected in a float64 array. Memory of BLAS does not count.
"""

_MANY_TAPS = 1024  # so many taps are not cached, because each takes some hundred bytes


def slices(
    n: int, rows: int, row_bytes: int, image_bytes: int = 0
) -> Iterator[tuple[slice, slice]]:
    """(images, output rows) of each step of a call, so that a step fits ``WORKSPACE_BYTES``.

    A step on ``r`` rows of an image needs ``image_bytes + r * row_bytes``. Rows are split only if
    one image is too large. Then all images are split alike, so that the arithmetic of an image does
    not depend on the others.
    """
    affordable("columns", (1, image_bytes + row_bytes), np.uint8)
    bytes_of_image = image_bytes + rows * row_bytes
    images = max(1, WORKSPACE_BYTES // max(1, bytes_of_image))
    step = (
        rows if bytes_of_image <= WORKSPACE_BYTES else (WORKSPACE_BYTES - image_bytes) // row_bytes
    )
    step = max(1, step)
    for first in range(0, n, images):
        for row in range(0, rows, step):
            yield slice(first, min(first + images, n)), slice(row, min(row + step, rows))


def windows(x: Array, g: ConvGeometry, rows: slice) -> Array:
    """The windows of the output rows ``rows``, (N, rows, OW, KH, KW, IC), read-only.

    It is a view of ``x`` or, with padding, of a copy of the image rows with zeros around.
    """
    if not is_padded(g):
        first, image = rows.start * g.stride_h, x
    else:
        first, image = 0, _padded(x, g, rows)
    reach_h, reach_w = (g.kh - 1) * g.dilation_h + 1, (g.kw - 1) * g.dilation_w + 1
    last = first + (rows.stop - rows.start - 1) * g.stride_h + 1
    every = sliding_window_view(image, (reach_h, reach_w), (1, 2))
    views = every[:, first : last : g.stride_h, :: g.stride_w, :, :: g.dilation_h, :: g.dilation_w]
    return views.transpose(0, 1, 2, 4, 5, 3)


def is_padded(g: ConvGeometry) -> bool:
    """Whether any side is padded."""
    return bool(g.pad_top or g.pad_bottom or g.pad_left or g.pad_right)


def _padded(x: Array, g: ConvGeometry, rows: slice) -> Array:
    top = rows.start * g.stride_h - g.pad_top
    bottom = (rows.stop - 1) * g.stride_h - g.pad_top + (g.kh - 1) * g.dilation_h + 1
    image = np.zeros((len(x), bottom - top, g.pad_left + g.w + g.pad_right, g.ic), x.dtype)
    first, last = max(top, 0), min(bottom, g.h)
    if first < last:
        image[:, first - top : last - top, g.pad_left : g.pad_left + g.w] = x[:, first:last]
    return image


def taps_of(g: ConvGeometry | PoolGeometry, rows: slice) -> Iterable[Tap]:
    """Every tap ``(kh, kw)``, in row-major order, with the outputs and pixels that meet there.

    The third entry is the index of the outputs, counted from ``rows.start``. The fourth entry is
    the index of the pixels that the outputs read at this tap. Taps that read only padding are left
    out.
    """
    if g.kh * g.kw > _MANY_TAPS:
        return _each_tap(g, rows)
    return _few_taps(g, rows.start, rows.stop)


@lru_cache(maxsize=512)  # for one small image, computing the slices takes as long as using them
def _few_taps(g: ConvGeometry | PoolGeometry, start: int, stop: int) -> tuple[Tap, ...]:
    return tuple(_each_tap(g, slice(start, stop)))


def _each_tap(g: ConvGeometry | PoolGeometry, rows: slice) -> Iterator[Tap]:
    dilation_h, dilation_w = (g.dilation_h, g.dilation_w) if isinstance(g, ConvGeometry) else (1, 1)
    columns, every = slice(0, g.ow), slice(None)
    for kh in range(g.kh):
        down = _meeting(kh, rows, g.oh, g.h, g.stride_h, g.pad_top, dilation_h)
        if not down:
            continue
        for kw in range(g.kw):
            across = _meeting(kw, columns, g.ow, g.w, g.stride_w, g.pad_left, dilation_w)
            if across:
                yield kh, kw, (every, down[0], across[0]), (every, down[1], across[1])


def _meeting(
    k: int, outs: slice, out: int, size: int, stride: int, pad: int, dilation: int
) -> tuple[slice, slice] | None:
    first, last = taps(k, out, size, stride, pad, dilation)
    first, last = max(first, outs.start), min(last, outs.stop)
    if first >= last:
        return None
    pixel = first * stride - pad + k * dilation
    pixels = slice(pixel, pixel + (last - first - 1) * stride + 1, stride)
    return slice(first - outs.start, last - outs.start), pixels


def row_slices(array: Array, copies: int) -> Iterator[slice]:
    """Slices of the first axis, for a step that needs ``copies`` temporary arrays of its slice."""
    width = array[:1].nbytes
    step = max(1, WORKSPACE_BYTES // max(1, width * copies))
    for first in range(0, len(array), step):
        yield slice(first, first + step)
