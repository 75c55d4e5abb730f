"""Gradients of max- and min-pooling.

Windows may share pixels, so an item of :func:`extreme_gradient_rows` is a block of rows of the
input. It visits all windows that reach into the block, in row-major order, and writes nothing
outside of the block. The first window that visits a pixel writes it, and later windows add to it:
that is faster than to write zeros first. Windows on the border of two blocks are visited twice.

:func:`argmax_gradient` needs no windows of the input, because the forward pass kept the argmax
indices.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.pool.windows import (
    Strides,
    block_of,
    clipped_pixels,
    covers_all,
    geometry_of,
    strides_of,
    visited_pixels,
    windows_in_image,
)
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import zero_run
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_sum
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store
from fastcnn.engine.numba.tiles.pooling import (
    tile_argmax,
    tile_argmax_of_numbers,
    tile_best,
    tile_best_of_numbers,
    tile_has_nan,
    tile_where,
)
from fastcnn.engine.numba.tiles.rows import rows_line


class _Pixels(NamedTuple):
    """Pixels of a window that receive a gradient: rows ``first`` to ``last``, all columns.

    Attributes:
        columns: pixels in a row of the window.
        first, last: rows of the window that lie in the item's block.
        visited_rows, visited_columns: the first rows and columns, which earlier windows wrote.
    """

    columns: int
    first: int
    last: int
    visited_rows: int
    visited_columns: int


@kernel_factory
def _extreme_gradient_rows(largest: bool, vectors: int, lanes: int, kh: int, kw: int) -> Kernel:
    """The kernel; loops over a window of kh × kw pixels are unrolled, unless kh is 0."""
    width = vectors * lanes
    # Unrolled 2×2 windows share no pixels, and a sum tells whether one of their numbers is NaN.
    checks_nan_by_sum = kh == 2

    @device
    def index_of_best(
        x: Array, at: int, strides: Strides, columns: int, rows: int, pixels: int
    ) -> Array:
        """The argmax index of each channel in a window that begins at ``x[at]``."""
        index: Array = tile_from_row(1, vectors, lanes, x, 0, 0)
        best = tile_from_row(1, vectors, lanes, x, at, columns)
        for i in range(rows):
            for j in range(pixels):
                pixel = at + i * strides.row + j * strides.pixel
                value = tile_from_row(1, vectors, lanes, x, pixel, columns)
                index = tile_argmax(largest, value, best, index, i * pixels + j)
                best = tile_best(largest, value, best)
        return index

    @device
    def index_among_numbers(
        x: Array, at: int, strides: Strides, columns: int
    ) -> tuple[Array, Array]:
        """:func:`index_of_best` without NaN, and a sum that is NaN if one of the numbers is NaN."""
        index = tile_from_row(1, vectors, lanes, x, 0, 0)
        best = tile_from_row(1, vectors, lanes, x, at, columns)
        total = best
        for i in range(kh):
            for j in range(i == 0, kw):
                pixel = at + i * strides.row + j * strides.pixel
                value = tile_from_row(1, vectors, lanes, x, pixel, columns)
                index = tile_argmax_of_numbers(largest, value, best, index, i * kw + j)
                best = tile_best_of_numbers(largest, value, best)
                total = tile_sum(total, value)
        return index, total

    @device
    def hand_out(
        dy: Array, at_dy: int, dx: Array, at: int, index: Array, strides: Strides, columns: int,
        pixels: _Pixels,
    ) -> None:  # fmt: skip
        """Write the gradient ``dy[at_dy]`` to the pixel with the argmax index, zeros to others."""
        dy_tile = tile_from_row(1, vectors, lanes, dy, at_dy, columns)
        for i in range(pixels.first, pixels.last):
            for j in range(pixels.columns):
                pixel = at + i * strides.row + j * strides.pixel
                new = tile_where(dy_tile, index, i * pixels.columns + j)
                if i < pixels.visited_rows or j < pixels.visited_columns:
                    old = tile_from_row(1, vectors, lanes, dx, pixel, columns)
                    new = tile_sum(old, new)
                tile_store(new, dx, rows_line(1, pixel, 0), 0, columns)

    @device
    def visit_whole_windows(
        dy: Array, at_dy: int, x: Array, dx: Array, at: int, windows: int, strides: Strides,
        columns: int, visited_rows: int, visited_columns: int,
    ) -> int:  # fmt: skip
        """Visit some windows of a row; each lies completely in the image and in the block.

        Returns the number of visited windows: all, or those before a 2×2 window with NaN.
        """
        for window in range(windows):
            if checks_nan_by_sum:
                index, total = index_among_numbers(x, at, strides, columns)
                if tile_has_nan(total):
                    return window
                pixels = _Pixels(kw, 0, kh, 0, 0)  # because these windows share no pixels
            else:
                index = index_of_best(x, at, strides, columns, kh, kw)
                pixels = _Pixels(kw, 0, kh, visited_rows, visited_columns)
            hand_out(dy, at_dy, dx, at, index, strides, columns, pixels)
            at += strides.window
            at_dy += strides.pixel
        return windows

    @kernel
    def extreme_gradient_rows(
        start: int, stop: int, dy: Array, x: Array, dx: Array, geometry: Array
    ) -> None:
        """Write blocks ``start`` to ``stop`` of dx (N, H, W, C), flat.

        Reads x (N, H, W, C) and dy (N, OH, OW, C), flat.
        """
        g = geometry_of(geometry[0])
        strides = strides_of(g, g.c)
        first_whole, last_whole = windows_in_image(g.ow, g.stride_w, g.pad_left, g.kw, g.w)
        # Pixels that a window shares with the one before it; the first of a row shares none.
        overlap = max(g.kw - g.stride_w, 0)
        if overlap:
            first_whole = max(first_whole, 1)
        unrolled = kh > 0 and first_whole < last_whole
        if checks_nan_by_sum:
            unrolled &= overlap == 0 and g.stride_h >= kh
        covered = covers_all(g.oh, g.stride_h, g.pad_top, g.kh, g.h)
        covered &= covers_all(g.ow, g.stride_w, g.pad_left, g.kw, g.w)
        for item in range(start, stop):
            block = block_of(item, g)
            first, last = block.first, block.last
            if not covered:
                at = (block.image * g.h + first) * strides.row
                zero_run(dx, at, (last - first) * strides.row)
            for oh in range(block.first_window, block.last_window):
                top, bottom = clipped_pixels(oh, g.stride_h, g.pad_top, g.kh, g.h)
                inside = unrolled and bottom - top == kh and first <= top and bottom <= last
                rows_done = visited_pixels(oh, g.stride_h, g.pad_top, g.kh, block.first_window, top)
                for c in range(0, g.c, width):
                    columns = min(width, g.c - c)
                    ow = 0
                    while ow < g.ow:
                        left, right = clipped_pixels(ow, g.stride_w, g.pad_left, g.kw, g.w)
                        columns_done = visited_pixels(ow, g.stride_w, g.pad_left, g.kw, 0, left)
                        at = ((block.image * g.h + top) * g.w + left) * g.c + c
                        at_dy = ((block.image * g.oh + oh) * g.ow + ow) * g.c + c
                        if inside and first_whole <= ow < last_whole:
                            windows = visit_whole_windows(
                                dy, at_dy, x, dx, at, last_whole - ow, strides, columns,
                                rows_done, overlap,
                            )  # fmt: skip
                            at += windows * strides.window
                            at_dy += windows * g.c
                            ow += windows
                            if ow == last_whole:
                                continue
                            # A whole window with NaN follows; below, only its width matters.
                            left, right, columns_done = 0, kw, overlap
                        index = index_of_best(x, at, strides, columns, bottom - top, right - left)
                        low, high = max(first - top, 0), min(bottom, last) - top
                        hand_out(
                            dy, at_dy, dx, at, index, strides, columns,
                            _Pixels(right - left, low, high, rows_done, columns_done),
                        )  # fmt: skip
                        ow += 1

    return extreme_gradient_rows


@kernel_factory
def _argmax_gradient(vectors: int, lanes: int) -> Kernel:
    width = vectors * lanes

    @kernel
    def argmax_gradient(
        start: int, stop: int, dy: Array, indices: Array, dx: Array, geometry: Array
    ) -> None:
        """Write dx (N, H, W, C), flat, of 2×2 pooling from its argmax indices (N, OH, OW, C), flat.

        ``geometry`` is one record of PoolGeometry.

        An item is a row of windows of dy (N, OH, OW, C), flat. Pixels beyond the last window of a
        row belong to the row's item, and pixels below the last row of windows to that row's.
        """
        g = geometry_of(geometry[0])
        row = g.w * g.c
        for item in range(start, stop):
            n, oh = item // g.oh, item % g.oh
            first = (n * g.h + 2 * oh) * row
            for c in range(0, g.c, width):
                columns = min(width, g.c - c)
                at, target = item * g.ow * g.c + c, first + c
                for _ in range(g.ow):
                    dy_tile = tile_from_row(1, vectors, lanes, dy, at, columns)
                    index = tile_from_row(1, vectors, lanes, indices, at, columns)
                    for i in range(2):
                        for j in range(2):
                            pixel = rows_line(1, target + i * row + j * g.c, 0)
                            tile_store(tile_where(dy_tile, index, 2 * i + j), dx, pixel, 0, columns)
                    at += g.c
                    target += 2 * g.c
            beside = (g.w - 2 * g.ow) * g.c
            if beside > 0:
                for i in range(2):
                    zero_run(dx, first + (i + 1) * row - beside, beside)
            if oh == g.oh - 1 and g.h > 2 * g.oh:
                zero_run(dx, first + 2 * row, (g.h - 2 * g.oh) * row)

    return argmax_gradient
