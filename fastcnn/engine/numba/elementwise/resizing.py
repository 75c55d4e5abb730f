"""Images in another size, and the gradient, on register tiles of one row of channels.

Forward and backward are the same computation: a result is a weighted sum over consecutive rows and
columns of an array, forward over one or two of each, backward over all outputs in which a pixel
takes part. An item is a row of the result. The sum over the columns of a row is taken first, then
the sum over the rows, each in the order of the array. Where a result has the usual number of
sources, loops over them are unrolled.

"nearest" copies pixels, forward, and has a kernel of its own. Rows of the result that come from the
same row are copied from each other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.core.resizing import ResizeGeometry, Sources
from fastcnn.engine.numba.contraction.column_sums import round_to_dtype
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import convert, empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import (
    cached_choice,
    kernel_factory,
    registers,
)
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import copy_run
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel, Words
from fastcnn.engine.numba.tiles.arithmetic import tile_sum_scaled
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store
from fastcnn.engine.numba.tiles.rows import rows_line

_ROWS = 8
"""Rows of the result in an item of "nearest", of which some are copies of each other."""


class ResizeSides(NamedTuple):
    """Sides of the array x that a kernel reads, (N, h, w, c), and of its result (N, oh, ow, c).

    ``pitch`` is from one pixel of the result to the next: c, or more where its pixels lie apart.
    """

    h: int
    w: int
    c: int
    oh: int
    ow: int
    pitch: int


class Resampling(NamedTuple):
    """A kernel ``(x, y, table, weights, numbers)``, and its arguments beside x and y.

    Attributes:
        function: the kernel.
        items: how many items it has.
        work: the work as the thread driver counts it.
        table: words for the rows of the result, then for its columns: for each row its first
            source, then for each row the index of its first weight, then the end of the weights.
        weights: the weights of the rows, then those of the columns.
        numbers: the record of :class:`ResizeSides`.
    """

    function: Kernel
    items: int
    work: int
    table: Words
    weights: Array
    numbers: Array


def resize2d(x: Array, g: ResizeGeometry) -> Array:
    """``y``, (N, OH, OW, C)."""
    y = empty_like_type(x, *g.output_shape)
    _run(x, g, False, y)
    return y


def resize2d_backward(dy: Array, g: ResizeGeometry) -> Array:
    """``dx``, (N, H, W, C)."""
    if dy.itemsize < 8 and sums_are_long(g):
        return round_to_dtype(resize2d_backward(convert(dy, np.float64), g), dy)
    dx = empty_like_type(dy, *g.input_shape)
    _run(dy, g, True, dx)
    return dx


@lru_cache(maxsize=1024)
def sums_are_long(g: ResizeGeometry) -> bool:
    """Whether a pixel takes part in so many outputs that its gradient is a long sum.

    A gradient is rounded as often as a pixel has rows and columns of outputs. One that is long is
    computed in float64 throughout, because few images are enlarged so much.
    """
    rows, columns = g.outputs_of_rows.counts, g.outputs_of_columns.counts
    return int(rows.max() + columns.max()) > STRETCH


def _run(x: Array, g: ResizeGeometry, backward: bool, y: Array) -> None:
    """Resize x to y; with ``backward``, x is the gradient dy, and y is dx."""
    if y.size == 0:
        return
    plan = resampling(g, backward, x.itemsize)
    operands = readable(x).reshape(-1), y.reshape(-1), plan.table, plan.weights, plan.numbers
    parallel_for(plan.function, plan.items, plan.work, *operands)


@cached_choice
def resampling(g: ResizeGeometry, backward: bool, itemsize: int, pitch: int = 0) -> Resampling:
    """The plan of a resizing, or of its gradient, which has at least one number.

    ``pitch`` counts the numbers from one pixel of the result to the next; 0 for its channels.
    """
    lanes = registers().vector_bytes // itemsize
    vectors = 4 if g.c > 2 * lanes else 1
    if backward:
        sizes = ResizeSides(g.oh, g.ow, g.c, g.h, g.w, pitch or g.c)
        rows, columns = g.outputs_of_rows, g.outputs_of_columns
    else:
        sizes = ResizeSides(g.h, g.w, g.c, g.oh, g.ow, pitch or g.c)
        rows, columns = g.rows, g.columns
    starts_of_columns = columns.starts + rows.weights.size
    table = _joined(np.int64, rows.first, rows.starts, columns.first, starts_of_columns)
    dtype = np.float32 if itemsize == 4 else np.float64
    weights = _joined(dtype, rows.weights, columns.weights)
    work = g.n * rows.weights.size * columns.weights.size * g.c
    if g.method == "nearest" and not backward:
        function, items = _nearest(vectors, lanes), g.n * -(-sizes.oh // _ROWS)
    else:
        taps = 4 if _usual(rows) == _usual(columns) == 4 else 2
        function, items = _resample(vectors, lanes, taps), g.n * sizes.oh
    return Resampling(function, items, work, table, weights, record(sizes))


def _usual(sources: Sources) -> int:
    """The number of sources that most results have."""
    return int(np.bincount(sources.counts).argmax())


def _joined(dtype: type, *parts: Array) -> Array:
    """One-dimensional arrays one after the other, in a dtype."""
    joined = arrays.allocate((sum(part.size for part in parts),), dtype)
    at = 0
    for part in parts:
        joined[at : at + part.size] = part
        at += part.size
    return joined


@device
def _sizes_of(r: ResizeSides) -> ResizeSides:
    """The numbers of a record, read once.

    A loop that stores numbers would read them again each time, because they might have changed.
    """
    return ResizeSides(r.h, r.w, r.c, r.oh, r.ow, r.pitch)


@kernel_factory
def _resample(vectors: int, lanes: int, taps: int) -> Kernel:
    """The kernel of weighted sums; loops over ``taps`` × ``taps`` sources are unrolled."""
    width = vectors * lanes

    @device
    def unrolled_sum(
        x: Array, at: int, row: int, pixel: int, columns: int, weights: Array, i: int, j: int
    ) -> Array:
        """The sum over taps × taps pixels from ``x[at]`` on, weighted from i and j on."""
        total: Array = tile_from_row(1, vectors, lanes, x, 0, 0)
        for a in range(taps):
            of_row = tile_from_row(1, vectors, lanes, x, 0, 0)
            for b in range(taps):
                value = tile_from_row(1, vectors, lanes, x, at + a * row + b * pixel, columns)
                of_row = tile_sum_scaled(of_row, value, weights, j + b)
            total = tile_sum_scaled(total, of_row, weights, i + a)
        return total

    @device
    def sum_of(
        x: Array, at: int, row: int, pixel: int, columns: int, weights: Array, i: int, i_end: int,
        j: int, j_end: int,
    ) -> Array:  # fmt: skip
        """The sum over any number of pixels, in the same order."""
        total: Array = tile_from_row(1, vectors, lanes, x, 0, 0)
        for a in range(i, i_end):
            of_row = tile_from_row(1, vectors, lanes, x, 0, 0)
            place = at
            for b in range(j, j_end):
                value = tile_from_row(1, vectors, lanes, x, place, columns)
                of_row = tile_sum_scaled(of_row, value, weights, b)
                place += pixel
            total = tile_sum_scaled(total, of_row, weights, a)
            at += row
        return total

    @kernel
    def resample(
        start: int, stop: int, x: Array, y: Array, table: Words, weights: Array, numbers: Array
    ) -> None:
        """Write rows ``start`` to ``stop`` of y (N, oh, ow, C) from x (N, h, w, C), both flat.

        The sizes are those of :class:`ResizeSides`. For a gradient, y is the smaller image.
        """
        s = _sizes_of(numbers[0])
        c, x_row = s.c, s.w * s.c
        column_first = 2 * s.oh + 1
        column_starts = column_first + s.ow
        for item in range(start, stop):
            n, oh = item // s.oh, item % s.oh
            i, i_end = table[s.oh + oh], table[s.oh + oh + 1]
            row_at, to = (n * s.h + table[oh]) * x_row, item * s.ow * s.pitch
            j_end = table[column_starts]
            for ow in range(s.ow):
                j, j_end = j_end, table[column_starts + ow + 1]
                at = row_at + table[column_first + ow] * c
                if i_end - i == taps and j_end - j == taps:
                    for k in range(0, c, width):
                        columns = min(width, c - k)
                        total = unrolled_sum(x, at + k, x_row, c, columns, weights, i, j)
                        tile_store(total, y, rows_line(1, to + k, 0), 0, columns)
                else:
                    for k in range(0, c, width):
                        columns = min(width, c - k)
                        total = sum_of(x, at + k, x_row, c, columns, weights, i, i_end, j, j_end)
                        tile_store(total, y, rows_line(1, to + k, 0), 0, columns)
                to += s.pitch

    return resample


@kernel_factory
def _nearest(vectors: int, lanes: int) -> Kernel:
    """The kernel that copies the nearest pixels."""
    width = vectors * lanes

    @kernel
    def nearest(
        start: int, stop: int, x: Array, y: Array, table: Words, weights: Array, numbers: Array
    ) -> None:
        """Write blocks of rows ``start`` to ``stop`` of y (N, OH, OW, C) from x (N, H, W, C).

        The arrays are flat, and ``weights`` is not read.
        """
        s = _sizes_of(numbers[0])
        c, line = s.c, s.ow * s.pitch
        column_first = 2 * s.oh + 1
        blocks = (s.oh + _ROWS - 1) // _ROWS
        for item in range(start, stop):
            n, first = item // blocks, item % blocks * _ROWS
            to = (n * s.oh + first) * line
            for oh in range(first, min(s.oh, first + _ROWS)):
                if oh > first and table[oh] == table[oh - 1] and s.pitch == c:
                    copy_run(y, to, y, to - line, line)
                    to += line
                    continue
                row_at = (n * s.h + table[oh]) * s.w * c
                for ow in range(s.ow):
                    at = row_at + table[column_first + ow] * c
                    for k in range(0, c, width):
                        columns = min(width, c - k)
                        value = tile_from_row(1, vectors, lanes, x, at + k, columns)
                        tile_store(value, y, rows_line(1, to + k, 0), 0, columns)
                    to += s.pitch

    return nearest
