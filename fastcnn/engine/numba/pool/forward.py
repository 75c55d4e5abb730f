"""Maximum and minimum of each window, on register tiles of one row of channels.

The channels of a window stay in registers over its pixels. An item is a row of the output. Padding
is passed over.
"""

from __future__ import annotations

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.pool.windows import (
    Strides,
    clipped_pixels,
    geometry_of,
    strides_of,
    windows_in_image,
)
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_sum
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store
from fastcnn.engine.numba.tiles.pooling import tile_best, tile_best_of_numbers, tile_has_nan
from fastcnn.engine.numba.tiles.rows import rows_line


@kernel_factory
def _extreme_rows(largest: bool, vectors: int, lanes: int, kh: int, kw: int) -> Kernel:
    """The kernel; loops over a window of kh × kw pixels are unrolled, unless kh is 0."""
    width = vectors * lanes

    @device
    def best_of(x: Array, at: int, strides: Strides, columns: int, rows: int, pixels: int) -> Array:
        """The best number of each channel in a window that begins at ``x[at]``."""
        best: Array = tile_from_row(1, vectors, lanes, x, at, columns)
        for i in range(rows):
            for j in range(pixels):
                pixel = at + i * strides.row + j * strides.pixel
                value = tile_from_row(1, vectors, lanes, x, pixel, columns)
                best = tile_best(largest, value, best)
        return best

    @device
    def best_of_numbers(x: Array, at: int, strides: Strides, columns: int) -> tuple[Array, Array]:
        """:func:`best_of` without NaN, and a sum that is NaN if a number of the window is NaN."""
        best = tile_from_row(1, vectors, lanes, x, at, columns)
        total = best
        for i in range(kh):
            for j in range(i == 0, kw):
                pixel = at + i * strides.row + j * strides.pixel
                value = tile_from_row(1, vectors, lanes, x, pixel, columns)
                best = tile_best_of_numbers(largest, value, best)
                total = tile_sum(total, value)
        return best, total

    @device
    def pool_whole_windows(
        x: Array, y: Array, at: int, to: int, first: int, last: int, strides: Strides,
        y_pitch: int, columns: int,
    ) -> int:  # fmt: skip
        """Pool windows ``first`` to ``last``, which lie in the image whole.

        Returns the window where it ends: ``last``, or a 2×2 window with NaN, which is not pooled.
        With 2×2 pixels a sum finds NaN; with 3×3 the sum takes longer than it saves.
        """
        for window in range(first, last):
            if kh == 2:
                best, total = best_of_numbers(x, at, strides, columns)
                if tile_has_nan(total):
                    return window
            else:
                best = best_of(x, at, strides, columns, kh, kw)
            tile_store(best, y, rows_line(1, to, 0), 0, columns)
            at += strides.window
            to += y_pitch
        return last

    @kernel
    def extreme_rows(start: int, stop: int, x: Array, y: Array, numbers: Array) -> None:
        """Write rows ``start`` to ``stop`` of y (N, OH, OW, C), flat, from x (N, H, W, C), flat.

        ``numbers`` is one record of Pooling.
        """
        g = geometry_of(numbers[0].windows)
        x_pitch, y_pitch = numbers[0].x_pitch, numbers[0].y_pitch
        strides = strides_of(g, x_pitch)
        first_whole, last_whole = windows_in_image(g.ow, g.stride_w, g.pad_left, g.kw, g.w)
        for item in range(start, stop):
            n, oh = item // g.oh, item % g.oh
            top, bottom = clipped_pixels(oh, g.stride_h, g.pad_top, g.kh, g.h)
            inside = kh > 0 and bottom - top == kh and first_whole < last_whole
            for c in range(0, g.c, width):
                columns = min(width, g.c - c)
                ow = 0
                while ow < g.ow:
                    left, right = clipped_pixels(ow, g.stride_w, g.pad_left, g.kw, g.w)
                    at = ((n * g.h + top) * g.w + left) * x_pitch + c
                    to = (item * g.ow + ow) * y_pitch + c
                    if inside and first_whole <= ow < last_whole:
                        end = pool_whole_windows(
                            x, y, at, to, ow, last_whole, strides, y_pitch, columns
                        )
                        at += (end - ow) * strides.window
                        to += (end - ow) * y_pitch
                        ow = end
                        if ow == last_whole:
                            continue
                        left, right = 0, kw
                    best = best_of(x, at, strides, columns, bottom - top, right - left)
                    tile_store(best, y, rows_line(1, to, 0), 0, columns)
                    ow += 1

    return extreme_rows
