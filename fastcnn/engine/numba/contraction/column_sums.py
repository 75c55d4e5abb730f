"""Sums over the rows of a matrix: gradients of biases, and of filters that were summed in slabs.

A block of columns is one vector, with four sums at a time. Long sums are taken in stretches
(:mod:`fastcnn.core.long_sums`). Where a matrix has many numbers but few blocks, its rows are cut
into parts of equal length for the threads, each with totals of its own, and these are added in
order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import empty_like_type, record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.tiles.arithmetic import tile_sum
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.totals import (
    totals_add,
    totals_begin,
    totals_end,
    totals_in,
    totals_room,
)

# Numbers of a part, at least, and parts, at most.
_PART, _PARTS = 64 * 1024, 64


class Matrix(NamedTuple):
    """A matrix; a part has ``part`` rows, and totals ``pitch`` numbers apart."""

    rows: int
    columns: int
    part: int
    pitch: int


def matrix(rows: int, columns: int, parts: int = 1, pitch: int = 0) -> Array:
    """The record of a matrix whose rows are cut into so many parts."""
    return record(Matrix(rows, columns, -(-rows // parts), pitch))


def column_sums(values: Array, sums: Array) -> None:
    """``sums = Σ values[row]`` for a matrix (rows, columns)."""
    rows, columns = values.shape
    function, items, parts, numbers = _plan(rows, columns, values.itemsize)
    if parts == 0:
        parallel_for(function, items, values.size, values.reshape(-1), sums, numbers)
        return
    totals = arrays.allocate((parts, numbers[0]["pitch"]), np.float64)
    parallel_for(function, items, values.size, values.reshape(-1), totals, numbers)
    parallel_for(round_totals, columns, parts * columns, totals, sums)


@cached_choice
def _plan(rows: int, columns: int, itemsize: int) -> tuple[Any, int, int, Array]:
    """The kernel, its items, how many parts have totals, or 0, and the record."""
    function, blocks = column_sums_for(columns, itemsize)
    parts = min(_PARTS, rows * columns // _PART)
    if parts <= blocks:
        return function, blocks, 0, matrix(rows, columns)
    vectors, lanes = _sides(columns, itemsize)
    numbers = matrix(rows, columns, parts, blocks * vectors * lanes)
    return _part_sums(vectors, lanes), parts * blocks, parts, numbers


def rounded(totals: Array, like: Array) -> Array:
    """Totals in the dtype of ``like``."""
    result = empty_like_type(like, *totals.shape)
    one_part = totals.reshape(1, -1), result.reshape(-1)
    parallel_for(round_totals, result.size, result.size, *one_part)
    return result


def column_sums_for(columns: int, itemsize: int) -> tuple[Any, int]:
    """The kernel for so many columns, ``(values, sums, matrix(…))``, and its items."""
    vectors, lanes = _sides(columns, itemsize)
    return _column_sums(vectors, lanes), -(-columns // (vectors * lanes))


def _sides(columns: int, itemsize: int) -> tuple[int, int]:
    """Vectors and lanes of a block."""
    lanes = registers().vector_bytes // itemsize
    while lanes > 2 and columns <= lanes // 2:
        lanes //= 2
    return 1, lanes


def _stretch_of(vectors: int, lanes: int) -> Any:
    @device
    def stretch(values: Any, first: int, last: int, at: int, columns: int, wide: int) -> Any:
        """The sums of some rows of a block whose first number lies at ``at``."""
        a = tile_from_row(1, vectors, lanes, values, 0, 0)
        b, c, d = a, a, a
        at += first * columns
        for _ in range(first, last - 3, 4):
            a = tile_sum(a, tile_from_row(1, vectors, lanes, values, at, wide))
            b = tile_sum(b, tile_from_row(1, vectors, lanes, values, at + columns, wide))
            c = tile_sum(c, tile_from_row(1, vectors, lanes, values, at + 2 * columns, wide))
            d = tile_sum(d, tile_from_row(1, vectors, lanes, values, at + 3 * columns, wide))
            at += 4 * columns
        for _ in range((last - first) % 4):
            a = tile_sum(a, tile_from_row(1, vectors, lanes, values, at, wide))
            at += columns
        return tile_sum(tile_sum(a, b), tile_sum(c, d))

    return stretch


@kernel_factory
def _column_sums(vectors: int, lanes: int) -> Any:
    """The kernel for all rows; an item is a block of columns."""
    width = vectors * lanes
    stretch = _stretch_of(vectors, lanes)

    @kernel
    def column_sums(start: int, stop: int, values: Any, sums: Any, numbers: Any) -> None:
        rows, columns, totals = numbers[0].rows, numbers[0].columns, totals_room(width)
        for block in range(start, stop):
            at = block * width
            wide = min(width, columns - at)
            last = min(rows, STRETCH)
            total = stretch(values, 0, last, at, columns, wide)
            if last < rows:
                totals_begin(total, totals, 0)
                totals_add(total, totals, 0)
                while last + STRETCH < rows:
                    total = stretch(values, last, last + STRETCH, at, columns, wide)
                    totals_add(total, totals, 0)
                    last += STRETCH
                total = totals_end(stretch(values, last, rows, at, columns, wide), totals, 0)
            tile_store(total, sums, rows_line(1, at, 0), 0, wide)

    return column_sums


@kernel_factory
def _part_sums(vectors: int, lanes: int) -> Any:
    """The kernel for parts of the rows; an item is a block of columns of one part."""
    width = vectors * lanes
    stretch = _stretch_of(vectors, lanes)

    @kernel
    def part_sums(start: int, stop: int, values: Any, totals: Any, numbers: Any) -> None:
        rows, columns, pitch = numbers[0].rows, numbers[0].columns, numbers[0].pitch
        size, blocks = numbers[0].part, pitch // width
        for item in range(start, stop):
            part, at = item // blocks, item % blocks * width
            wide, room = min(width, columns - at), totals_in(totals, part * pitch + at)
            totals_begin(tile_from_row(1, vectors, lanes, values, 0, 0), room, 0)
            last = min(rows, (part + 1) * size)
            for row in range(part * size, last, STRETCH):
                sums = stretch(values, row, min(last, row + STRETCH), at, columns, wide)
                totals_add(sums, room, 0)

    return part_sums


@kernel
def round_totals(start: int, stop: int, totals: Any, sums: Any) -> None:
    """``sums[c] = Σ totals[part, c]``, in order, rounded to the dtype of ``sums``."""
    for c in range(start, stop):
        total = np.float64(0)
        for part in range(totals.shape[0]):
            total += totals[part, c]
        sums[c] = total


@kernel
def add_to_totals(start: int, stop: int, values: Any, totals: Any, more: bool) -> None:
    """``totals += values``, or ``totals = values`` unless there are more already."""
    values, totals = values[start:stop], totals[start:stop]
    for i in range(totals.size):
        value = np.float64(values[i])
        totals[i] = totals[i] + value if more else value
