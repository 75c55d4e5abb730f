"""Sums over the rows of a matrix: gradients of biases, and of filters that were summed in slabs.

A block of columns is one vector, with four accumulators. Long sums are taken in stretches
(:mod:`fastcnn.core.long_sums`). Where a matrix has many numbers but few blocks, a K-split cuts its
rows into splits of equal length for the threads. Each split has totals of its own, which are added
in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import empty_like_type, record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel
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

_SPLIT, _SPLITS = 64 * 1024, 64
"""Fewest numbers of a split, and most splits."""


class Matrix(NamedTuple):
    """A matrix; a split has ``grain`` rows, and the totals of splits lie ``pitch`` apart."""

    rows: int
    columns: int
    grain: int
    pitch: int


class _Plan(NamedTuple):
    """The kernel, its items, how many splits have totals of their own (or 0), and the record."""

    function: Kernel
    items: int
    splits: int
    numbers: Array


def matrix(rows: int, columns: int, splits: int = 1, pitch: int = 0) -> Array:
    """The record of a matrix whose rows are cut into so many splits."""
    return record(Matrix(rows, columns, -(-rows // splits), pitch))


def column_sums(values: Array, sums: Array) -> None:
    """``sums = Σ values[row]`` for a matrix (rows, columns)."""
    rows, columns = values.shape
    function, items, splits, numbers = _plan(rows, columns, values.itemsize)
    if splits == 0:
        parallel_for(function, items, values.size, values.reshape(-1), sums, numbers)
        return
    totals = arrays.allocate((splits, numbers[0]["pitch"]), np.float64)
    parallel_for(function, items, values.size, values.reshape(-1), totals, numbers)
    parallel_for(round_totals, columns, splits * columns, totals, sums)


@cached_choice
def _plan(rows: int, columns: int, itemsize: int) -> _Plan:
    function, blocks = column_sums_for(columns, itemsize)
    splits = min(_SPLITS, rows * columns // _SPLIT)
    if splits <= blocks:
        return _Plan(function, blocks, 0, matrix(rows, columns))
    lanes = _lanes(columns, itemsize)
    numbers = matrix(rows, columns, splits, blocks * lanes)
    return _Plan(_split_sums(lanes), splits * blocks, splits, numbers)


def round_to_dtype(totals: Array, like: Array) -> Array:
    """Totals in the dtype of ``like``."""
    result = empty_like_type(like, *totals.shape)
    one_split = totals.reshape(1, -1), result.reshape(-1)
    parallel_for(round_totals, result.size, result.size, *one_split)
    return result


def column_sums_for(columns: int, itemsize: int) -> tuple[Kernel, int]:
    """The kernel for so many columns, ``(values, sums, matrix(…))``, and its items."""
    lanes = _lanes(columns, itemsize)
    return _column_sums(lanes), -(-columns // lanes)


def _lanes(columns: int, itemsize: int) -> int:
    """Lanes of a block's vector."""
    lanes = registers().vector_bytes // itemsize
    while lanes > 2 and columns <= lanes // 2:
        lanes //= 2
    return lanes


def _stretch_of(lanes: int) -> Callable[..., Array]:
    @device
    def stretch(values: Array, first: int, last: int, at: int, columns: int, width: int) -> Array:
        """The sums of some rows of a block whose first number lies at ``at``."""
        a = tile_from_row(1, 1, lanes, values, 0, 0)
        b, c, d = a, a, a
        at += first * columns
        for _ in range(first, last - 3, 4):
            a = tile_sum(a, tile_from_row(1, 1, lanes, values, at, width))
            b = tile_sum(b, tile_from_row(1, 1, lanes, values, at + columns, width))
            c = tile_sum(c, tile_from_row(1, 1, lanes, values, at + 2 * columns, width))
            d = tile_sum(d, tile_from_row(1, 1, lanes, values, at + 3 * columns, width))
            at += 4 * columns
        for _ in range((last - first) % 4):
            a = tile_sum(a, tile_from_row(1, 1, lanes, values, at, width))
            at += columns
        sums: Array = tile_sum(tile_sum(a, b), tile_sum(c, d))
        return sums

    return stretch


@kernel_factory
def _column_sums(lanes: int) -> Kernel:
    """The kernel for all rows; an item is a block of columns.

    Reads values (rows, columns), writes sums (columns,).
    """
    stretch = _stretch_of(lanes)

    @kernel
    def column_sums(start: int, stop: int, values: Array, sums: Array, numbers: Array) -> None:
        rows, columns, totals = numbers[0].rows, numbers[0].columns, totals_room(lanes)
        for block in range(start, stop):
            at = block * lanes
            width = min(lanes, columns - at)
            last = min(rows, STRETCH)
            total = stretch(values, 0, last, at, columns, width)
            if last < rows:
                totals_begin(total, totals, 0)
                totals_add(total, totals, 0)
                while last + STRETCH < rows:
                    total = stretch(values, last, last + STRETCH, at, columns, width)
                    totals_add(total, totals, 0)
                    last += STRETCH
                total = totals_end(stretch(values, last, rows, at, columns, width), totals, 0)
            tile_store(total, sums, rows_line(1, at, 0), 0, width)

    return column_sums


@kernel_factory
def _split_sums(lanes: int) -> Kernel:
    """The kernel for splits of the rows; an item is a block of columns of one split.

    Reads values (rows, columns), writes totals (splits, pitch).
    """
    stretch = _stretch_of(lanes)

    @kernel
    def split_sums(start: int, stop: int, values: Array, totals: Array, numbers: Array) -> None:
        rows, columns, pitch = numbers[0].rows, numbers[0].columns, numbers[0].pitch
        grain, blocks = numbers[0].grain, pitch // lanes
        for item in range(start, stop):
            split, at = item // blocks, item % blocks * lanes
            width, room = min(lanes, columns - at), totals_in(totals, split * pitch + at)
            totals_begin(tile_from_row(1, 1, lanes, values, 0, 0), room, 0)
            last = min(rows, (split + 1) * grain)
            for row in range(split * grain, last, STRETCH):
                sums = stretch(values, row, min(last, row + STRETCH), at, columns, width)
                totals_add(sums, room, 0)

    return split_sums


@kernel
def round_totals(start: int, stop: int, totals: Array, sums: Array) -> None:
    """``sums[c] = Σ totals[split, c]``, in order, rounded to the dtype of ``sums``."""
    for c in range(start, stop):
        total = np.float64(0)
        for split in range(totals.shape[0]):
            total += totals[split, c]
        sums[c] = total


@kernel
def add_to_totals(start: int, stop: int, values: Array, totals: Array, resumed: bool) -> None:
    """``totals += values`` where the sum is resumed, else ``totals = values``."""
    values, totals = values[start:stop], totals[start:stop]
    for i in range(totals.size):
        value = np.float64(values[i])
        totals[i] = totals[i] + value if resumed else value


# --- sums of whole arrays -------------------------------------------------------------------------

_AT_ONCE = 512  # numbers of each slab that are added while they lie in the first-level cache


class Slabs(NamedTuple):
    """Arrays that are added: how many, the index of the first, and from one to the next."""

    slabs: int
    first: int
    step: int


@kernel
def sum_slabs(
    start: int, stop: int, slabs: Array, sums: Array, ranges: Array, numbers: Array
) -> None:
    """``sums = Σ slabs`` along a binary tree, on some ranges of each slab.

    The tree is that of ``fastcnn/distributed/tree.py``: neighbours are added, then neighbouring
    sums. Partial sums overwrite the slabs. ``ranges`` holds (start, length) for each item,
    ``numbers`` a record of :class:`Slabs`.
    """
    count, first, step = numbers[0].slabs, numbers[0].first, numbers[0].step
    for item in range(start, stop):
        end = ranges[2 * item] + ranges[2 * item + 1]
        for begin in range(ranges[2 * item], end, _AT_ONCE):
            length = min(_AT_ONCE, end - begin)
            distance = 1
            while distance < count:
                for slab in range(0, count - distance, 2 * distance):
                    at = first + slab * step + begin
                    total = slabs[at : at + length]
                    of_term = at + distance * step
                    term = slabs[of_term : of_term + length]
                    for i in range(total.size):
                        total[i] += term[i]
                distance *= 2
            total = sums[begin : begin + length]
            term = slabs[first + begin : first + begin + length]
            for i in range(total.size):
                total[i] = term[i]
