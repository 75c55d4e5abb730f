"""Gradient of large max-poolings of stride 2, written past the cache.

The result is larger than the caches, so that whoever reads it next reads memory in any case. Stores
past the cache save a read of each line, if each pixel is written once. Windows of 2×2 pixels share
none. Windows of 3×3 pixels share their last column with the next window, and their last row with
the next row of windows. The gradient of shared pixels is carried: along a row in three tiles, and
from row to row in ``pending``, a row of numbers for each thread.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.pool.windows import Strides, geometry_of, strides_of
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import zero_run
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_sum
from fastcnn.engine.numba.tiles.loads_and_stores import (
    expect_load,
    stores_done,
    tile_from_row,
    tile_store,
    tile_stream,
)
from fastcnn.engine.numba.tiles.pooling import tile_argmax, tile_best, tile_where
from fastcnn.engine.numba.tiles.rows import rows_line

STREAMED_ROWS = 32
"""Rows of the input in one item, at most."""
_AHEAD = 16
"""Pixels of x that are fetched ahead, where windows have three rows."""


class _Clip(NamedTuple):
    """Pixels of a window that lie in the image: rows i0 to i1, columns j0 to j1 (exclusive)."""

    i0: int
    i1: int
    j0: int
    j1: int


class _Owned(NamedTuple):
    """Which of a window's three rows belong to the item's block."""

    top: bool
    middle: bool
    bottom: bool


class _Carried(NamedTuple):
    """Tiles of gradients for the three pixels that a window shares with the one before it."""

    top: Array
    middle: Array
    bottom: Array


class _Offsets(NamedTuple):
    """Where a window's first pixel lies in x and dx, and in pending; and the window in dy."""

    x: int
    pending: int
    dy: int


@kernel_factory
def _streamed_gradient(vectors: int, lanes: int, k: int) -> Kernel:
    """The kernel for windows of k × k pixels, 2 or 3."""
    width = vectors * lanes

    @device
    def load(array: Array, at: int) -> Array:
        tile: Array = tile_from_row(1, vectors, lanes, array, at, width)
        return tile

    @device
    def store(tile: Array, array: Array, at: int) -> None:
        tile_store(tile, array, rows_line(1, at, 0), 0, width)

    @device
    def index_of_largest(x: Array, at: int, strides: Strides, clip: _Clip) -> Array:
        """``i * k + j - first`` of each channel's first maximum (i, j) in the clipped window."""
        first = clip.i0 * k + clip.j0
        index: Array = tile_from_row(1, vectors, lanes, x, 0, 0)
        best = load(x, at + clip.i0 * strides.row + clip.j0 * strides.pixel)
        for i in range(clip.i0, clip.i1):
            for j in range(clip.j0, clip.j1):
                value = load(x, at + i * strides.row + j * strides.pixel)
                index = tile_argmax(True, value, best, index, i * k + j - first)
                best = tile_best(True, value, best)
                if k == 3 and j < 2:
                    ahead = at + i * strides.row + (j + _AHEAD) * strides.pixel
                    expect_load(value, x, rows_line(1, ahead, 0), 0)
        return index

    @device
    def visit(
        dy: Array, x: Array, dx: Array, pending: Array, at: _Offsets, strides: Strides,
        clip: _Clip, owned: _Owned, carried: _Carried,
    ) -> _Carried:  # fmt: skip
        """Hand out the gradient of one window; returns what the next window of the row shares.

        Writes dx in the first two columns of the top two rows, where the item owns them, and the
        third row of these columns to ``pending``, because the next row of windows adds to it.
        """
        index = index_of_largest(x, at.x, strides, clip)
        first = clip.i0 * k + clip.j0
        share = load(dy, at.dy)
        has_first, has_second = clip.j0 == 0, clip.j0 <= 1 and clip.j1 > 1
        below, pixel = at.x + strides.row, strides.pixel
        if owned.top:
            if has_first:
                tile_stream(tile_sum(carried.top, tile_where(share, index, -first)), dx, at.x)
            if has_second:
                new = tile_where(share, index, 1 - first)
                if k == 3:
                    new = tile_sum(load(pending, at.pending + pixel), new)
                tile_stream(new, dx, at.x + pixel)
        if owned.middle:
            if has_first:
                new = tile_sum(carried.middle, tile_where(share, index, k - first))
                tile_stream(new, dx, below)
            if has_second:
                tile_stream(tile_where(share, index, k + 1 - first), dx, below + pixel)
        if k == 2:
            return carried
        if owned.bottom:
            if has_first:
                new = tile_sum(carried.bottom, tile_where(share, index, 2 * k - first))
                store(new, pending, at.pending)
            if has_second:
                store(tile_where(share, index, 2 * k + 1 - first), pending, at.pending + pixel)
        top = carried.top
        if clip.j1 == k:
            above = load(pending, at.pending + 2 * pixel)
            top = tile_sum(above, tile_where(share, index, 2 - first))
        middle = tile_where(share, index, k + 2 - first)
        return _Carried(top, middle, tile_where(share, index, 2 * k + 2 - first))

    @kernel
    def streamed_gradient(
        start: int, stop: int, dy: Array, x: Array, dx: Array, pending: Array, blocks: int,
        geometry: Array,
    ) -> None:  # fmt: skip
        """Write dx (N, H, W, C), flat, from dy (N, OH, OW, C) and x (N, H, W, C), flat.

        An item is one of the ``blocks`` of rows of an image. ``pending`` holds W × C numbers for
        each item; a thread uses those of its first item.
        """
        g = geometry_of(geometry[0])
        strides = strides_of(g)
        row, pixel = strides.row, strides.pixel
        first_pending = start * row
        for item in range(start, stop):
            n, block = item // blocks, item % blocks
            first, last = g.h * block // blocks, g.h * (block + 1) // blocks
            first_window = max(0, (first + g.pad_top - k) // 2 + 1)
            last_window = min(g.oh, (last - 1 + g.pad_top) // 2 + 1)
            if k == 3:
                zero_run(pending, first_pending, row)
            for oh in range(first_window, last_window):
                ih = oh * 2 - g.pad_top
                i0, i1 = max(-ih, 0), min(k, g.h - ih)
                inside = i0 == 0 and i1 == k
                owned = _Owned(first <= ih < last, first <= ih + 1 < last, first <= ih + 2 < last)
                for channel in range(0, g.c, width):
                    at = _Offsets(
                        ((n * g.h + ih) * g.w - g.pad_left) * g.c + channel,
                        first_pending - g.pad_left * g.c + channel,
                        (n * g.oh + oh) * g.ow * g.c + channel,
                    )
                    zero = tile_from_row(1, vectors, lanes, x, 0, 0)
                    carried = _Carried(zero, zero, zero)
                    if k == 3 and g.pad_left == 0:
                        carried = _Carried(load(pending, at.pending), zero, zero)
                    for ow in range(g.ow):
                        left = ow * 2 - g.pad_left
                        j0, j1 = max(-left, 0), min(k, g.w - left)
                        # The usual window has constants as its clip, so that loops are unrolled.
                        if inside and j0 == 0 and j1 == k:
                            carried = visit(
                                dy, x, dx, pending, at, strides, _Clip(0, k, 0, k), owned, carried
                            )
                        else:
                            carried = visit(
                                dy, x, dx, pending, at, strides, _Clip(i0, i1, j0, j1), owned,
                                carried,
                            )  # fmt: skip
                        at = _Offsets(at.x + 2 * pixel, at.pending + 2 * pixel, at.dy + pixel)
                    if g.ow * 2 - g.pad_left < g.w:
                        if owned.top:
                            tile_stream(carried.top, dx, at.x)
                        if owned.middle:
                            tile_stream(carried.middle, dx, at.x + row)
                        if owned.bottom:
                            store(carried.bottom, pending, at.pending)
            ih = last_window * 2 - g.pad_top
            if ih < last:
                for i in range(0, row, width):
                    tile_stream(load(pending, first_pending + i), dx, (n * g.h + ih) * row + i)
        stores_done()

    return streamed_gradient
