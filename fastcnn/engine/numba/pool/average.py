"""Mean of each window, and its gradient.

Forward, an item is a row of the output. Backward, it is a block of rows of the input: the item
visits all windows that reach into the block, and writes the block alone. Padding is passed over.
"""

from __future__ import annotations

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.pool.windows import (
    Strides,
    block_of,
    clipped_pixels,
    geometry_of,
    strides_of,
)
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import zero_run
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_quotient, tile_sum
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room


@kernel_factory
def _average_rows(vectors: int, lanes: int, long_sums: bool) -> Kernel:
    """The kernel; ``long_sums``: a window may hold more pixels than a stretch has terms."""
    width = vectors * lanes

    @device
    def sum_of(x: Array, at: int, strides: Strides, columns: int, rows: int, pixels: int) -> Array:
        """The sum of each channel over rows × pixels from ``x[at]`` on."""
        total: Array = tile_from_row(1, vectors, lanes, x, 0, 0)
        for i in range(rows):
            for j in range(pixels):
                pixel = at + i * strides.row + j * strides.pixel
                total = tile_sum(total, tile_from_row(1, vectors, lanes, x, pixel, columns))
        return total

    @device
    def long_sum_of(
        x: Array, at: int, strides: Strides, columns: int, rows: int, pixels: int, totals: int
    ) -> Array:
        """:func:`sum_of` in stretches: some rows of the window, or a part of one row."""
        some_rows, some_pixels = max(1, STRETCH // pixels), min(STRETCH, pixels)
        total: Array = tile_from_row(1, vectors, lanes, x, 0, 0)
        totals_begin(total, totals, 0)
        for i in range(0, rows, some_rows):
            for j in range(0, pixels, some_pixels):
                pixel = at + i * strides.row + j * strides.pixel
                height, length = min(some_rows, rows - i), min(some_pixels, pixels - j)
                totals_add(sum_of(x, pixel, strides, columns, height, length), totals, 0)
        result: Array = totals_end(total, totals, 0)
        return result

    room = width if long_sums else 1

    @kernel
    def average_rows(start: int, stop: int, x: Array, y: Array, numbers: Array) -> None:
        """Write rows ``start`` to ``stop`` of y (N, OH, OW, C), flat, from x (N, H, W, C), flat.

        ``numbers`` is one record of Pooling.
        """
        g, totals = geometry_of(numbers[0].windows), totals_room(room)
        x_pitch, y_pitch = numbers[0].x_pitch, numbers[0].y_pitch
        strides = strides_of(g, x_pitch)
        for item in range(start, stop):
            n, oh = item // g.oh, item % g.oh
            top, bottom = clipped_pixels(oh, g.stride_h, g.pad_top, g.kh, g.h)
            for ow in range(g.ow):
                left, right = clipped_pixels(ow, g.stride_w, g.pad_left, g.kw, g.w)
                rows, pixels = bottom - top, right - left
                for c in range(0, g.c, width):
                    columns = min(width, g.c - c)
                    at = ((n * g.h + top) * g.w + left) * x_pitch + c
                    if long_sums:
                        total = long_sum_of(x, at, strides, columns, rows, pixels, totals)
                    else:
                        total = sum_of(x, at, strides, columns, rows, pixels)
                    mean = tile_quotient(total, rows * pixels)
                    to = (item * g.ow + ow) * y_pitch + c
                    tile_store(mean, y, rows_line(1, to, 0), 0, columns)

    return average_rows


@kernel_factory
def _average_gradient(vectors: int, lanes: int) -> Kernel:
    width = vectors * lanes

    @kernel
    def average_gradient(start: int, stop: int, dy: Array, dx: Array, geometry: Array) -> None:
        """Write blocks ``start`` to ``stop`` of dx (N, H, W, C), flat, from dy (N, OH, OW, C)."""
        g = geometry_of(geometry[0])
        for item in range(start, stop):
            block = block_of(item, g)
            n, first, last = block.image, block.first, block.last
            zero_run(dx, (n * g.h + first) * g.w * g.c, (last - first) * g.w * g.c)
            for oh in range(block.first_window, block.last_window):
                top, bottom = clipped_pixels(oh, g.stride_h, g.pad_top, g.kh, g.h)
                for ow in range(g.ow):
                    left, right = clipped_pixels(ow, g.stride_w, g.pad_left, g.kw, g.w)
                    pixels = (bottom - top) * (right - left)
                    for c in range(0, g.c, width):
                        columns = min(width, g.c - c)
                        at = ((n * g.oh + oh) * g.ow + ow) * g.c + c
                        share = tile_from_row(1, vectors, lanes, dy, at, columns)
                        share = tile_quotient(share, pixels)
                        for ih in range(max(top, first), min(bottom, last)):
                            for iw in range(left, right):
                                at = ((n * g.h + ih) * g.w + iw) * g.c + c
                                old = tile_from_row(1, vectors, lanes, dx, at, columns)
                                new = tile_sum(old, share)
                                tile_store(new, dx, rows_line(1, at, 0), 0, columns)

    return average_gradient
