"""The axes of a sample in another order, as copies of runs and as transposed planes.

Axes that stay neighbours are one axis, and axes of one element are none. Of the axes that are left,
the last one of x and the last one of y decide:

- there is one axis or none: all numbers stay where they are, and are copied;
- both are the same axis: **runs** of neighbouring numbers are copied;
- they differ: they span **planes**. A plane is a matrix (rows, columns) of x, perhaps with numbers
  of other planes between its rows, and becomes its transpose (columns, rows) in y. It is cut into
  squares, which are transposed in registers. The last squares reach back over the squares before
  them where the sides leave a tail. Where a side of a plane is 2 to 4 numbers long and its numbers
  follow on each other, as the colours of a picture do, a loop over the other side takes all of them
  at once.

The other axes count planes or runs. The kernels walk through them in the order of y, but along a
long axis last, because other axes take divisions.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.elementwise.steps import copy
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
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
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.transposes import transpose_square

_BLOCK, _NUMBERS = 64, 4096
"""An item has blocks of planes of at least so many rows and columns, and about so many numbers, so
that its part of x and y stays in the first-level cache."""
_REPEATED = 8
"""Elements from which on an axis that counts runs or planes is worth the innermost loop."""
_NARROW = (2, 3, 4)
"""Sides of planes whose numbers a loop over the other side takes all at once."""
_LONG = 16
"""Numbers from which on the other side is worth such a loop."""


class _Axis(NamedTuple):
    """An axis of y: its elements, and how far these lie apart in x."""

    extent: int
    x_step: int


class Walk(NamedTuple):
    """How a kernel walks through runs or planes; all steps count numbers.

    Attributes:
        axes: how many outer axes there are. For each of them the kernel's operand ``axes`` holds
            three words: its extent, and its steps in x and y.
        repeats, x_step, y_step: the axis that the innermost loop over runs or planes goes along.
        grain: repeats of an item.
        rows, columns: sides of a plane. A run has one row.
        x_row: from one row of a plane to the next, in x.
        y_row: from one column of a plane to the next, in y.
        row_blocks, column_blocks: parts into which a plane is cut, each an item.
    """

    axes: int
    repeats: int
    x_step: int
    y_step: int
    grain: int
    rows: int
    columns: int
    x_row: int
    y_row: int
    row_blocks: int
    column_blocks: int


class Permutation(NamedTuple):
    """A kernel ``(x, y, axes, record(walk))`` and its arguments beside x and y.

    Where all numbers stay in their places, ``numbers`` is None, and the kernel is ``(x, y)``.
    """

    function: Kernel
    items: int
    axes: Words
    numbers: Array | None


def permute(x: Array, order: tuple[int, ...]) -> Array:
    """The axes of each sample in another order; ``order`` counts them from 1."""
    y = empty_like_type(x, len(x), *[x.shape[axis] for axis in order])
    if y.size == 0:
        return y
    plan = permutation(x.shape, order, x.itemsize)
    flat = readable(x).reshape(-1), y.reshape(-1)
    tables = () if plan.numbers is None else (plan.axes, plan.numbers)
    parallel_for(plan.function, plan.items, x.size, *flat, *tables)
    return y


@cached_choice
def permutation(shape: tuple[int, ...], order: tuple[int, ...], itemsize: int) -> Permutation:
    """The plan for samples of this shape, which has the batch in front and no side of 0."""
    axes = _merged_axes(shape, order)
    if len(axes) <= 1:
        return Permutation(copy, prod(shape), _words([]), None)
    y_steps = [prod(each.extent for each in axes[k + 1 :]) for k in range(len(axes))]
    lanes = registers().vector_bytes // itemsize
    *others, last = range(len(axes))
    row_blocks = column_blocks = 1
    if axes[last].x_step == 1:
        rows, columns, x_row, y_row = 1, axes[last].extent, 0, 0
        function = _runs(1 if columns <= lanes else 4, lanes)
    else:
        across = next(k for k in others if axes[k].x_step == 1)
        others.remove(across)
        rows, columns = axes[last].extent, axes[across].extent
        x_row, y_row = axes[last].x_step, y_steps[across]
        function = _plane_kernel(rows, columns, x_row, y_row, lanes)
        row_blocks, column_blocks = _blocks(rows, columns), _blocks(columns, rows)
    repeats, x_step, y_step = 1, 0, 0
    if others:
        long = [k for k in others if axes[k].extent >= _REPEATED]
        inner = (long or others)[-1]
        others.remove(inner)
        repeats, x_step, y_step = *axes[inner], y_steps[inner]
    grain = max(1, min(repeats, _NUMBERS // (rows * columns)))
    walk = Walk(
        len(others), repeats, x_step, y_step, grain, rows, columns, x_row, y_row,
        row_blocks, column_blocks,
    )  # fmt: skip
    outer = [(*axes[k], y_steps[k]) for k in others]
    outer_count = prod(extent for extent, _, _ in outer)
    items = outer_count * -(-repeats // grain) * row_blocks * column_blocks
    return Permutation(function, items, _words(outer), record(walk))


def _merged_axes(shape: tuple[int, ...], order: tuple[int, ...]) -> list[_Axis]:
    """The axes of y, outermost first; those that follow on each other in x too are one.

    >>> _merged_axes((2, 3, 1, 4, 5), (4, 1, 2, 3))
    [_Axis(extent=2, x_step=60), _Axis(extent=5, x_step=1), _Axis(extent=12, x_step=5)]
    """
    axes: list[_Axis] = []
    for axis in (0, *order):
        extent, x_step = shape[axis], prod(shape[axis + 1 :])
        if extent == 1:
            continue
        if axes and axes[-1].x_step == extent * x_step:
            axes[-1] = _Axis(axes[-1].extent * extent, x_step)
        else:
            axes.append(_Axis(extent, x_step))
    return axes


def _words(outer: list[tuple[int, int, int]]) -> Words:
    """The outer axes for a kernel; never empty, because an empty array may have no address."""
    words: Words = arrays.allocate((max(1, len(outer)), 3), np.int64)
    words[...] = 1
    if outer:
        words[...] = outer
    return words.reshape(-1)


def _blocks(side: int, other: int) -> int:
    """Into how many parts a side of a plane is cut."""
    return max(1, side // max(_BLOCK, _NUMBERS // min(other, _BLOCK)))


def _plane_kernel(rows: int, columns: int, x_row: int, y_row: int, lanes: int) -> Kernel:
    function: Kernel
    if columns in _NARROW and x_row == columns and rows >= _LONG:
        function = _apart(columns)
    elif rows in _NARROW and y_row == rows and columns >= _LONG:
        function = _together(rows)
    else:
        side = lanes
        while side > min(rows, columns):
            side //= 2
        function = _squares(side)
    return function


class _Part(NamedTuple):
    """The part of an item: where its first run or plane begins, and which repeats it has."""

    x: int
    y: int
    repeats: int


@device
def _walk_of(r: Walk) -> Walk:
    """The numbers of a record, read once.

    A loop that stores numbers would read them again each time, because they might have changed.
    """
    return Walk(
        r.axes, r.repeats, r.x_step, r.y_step, r.grain, r.rows, r.columns, r.x_row, r.y_row,
        r.row_blocks, r.column_blocks,
    )  # fmt: skip


@device
def _part_of(index: int, axes: Words, s: Walk) -> _Part:
    """Part number ``index`` of the runs or planes."""
    pieces = (s.repeats + s.grain - 1) // s.grain
    first, rest = index % pieces * s.grain, index // pieces
    x, y = first * s.x_step, first * s.y_step
    for k in range(3 * s.axes - 3, -1, -3):
        place = rest % axes[k]
        rest //= axes[k]
        x += place * axes[k + 1]
        y += place * axes[k + 2]
    return _Part(x, y, min(s.grain, s.repeats - first))


@kernel_factory
def _runs(vectors: int, lanes: int) -> Kernel:
    """The kernel that copies runs, those of at most vectors × lanes numbers by one tile."""
    width = vectors * lanes

    @kernel
    def permute_runs(
        start: int, stop: int, x: Array, y: Array, axes: Words, numbers: Array
    ) -> None:
        s = _walk_of(numbers[0])
        run = s.columns
        for item in range(start, stop):
            part = _part_of(item, axes, s)
            i, j = part.x, part.y
            for _ in range(part.repeats):
                if run > width:
                    copy_run(y, j, x, i, run)
                else:
                    tile = tile_from_row(1, vectors, lanes, x, i, run)
                    tile_store(tile, y, rows_line(1, j, 0), 0, run)
                i += s.x_step
                j += s.y_step

    return permute_runs


@kernel_factory
def _squares(side: int) -> Kernel:
    """The kernel that transposes planes in squares of ``side`` × ``side`` numbers."""

    @kernel
    def permute_squares(
        start: int, stop: int, x: Array, y: Array, axes: Words, numbers: Array
    ) -> None:
        s = _walk_of(numbers[0])
        blocks = s.row_blocks * s.column_blocks
        for item in range(start, stop):
            part = _part_of(item // blocks, axes, s)
            row_block, column_block = item % blocks // s.column_blocks, item % s.column_blocks
            first_row = s.rows * row_block // s.row_blocks
            last_row = s.rows * (row_block + 1) // s.row_blocks
            first_column = s.columns * column_block // s.column_blocks
            last_column = s.columns * (column_block + 1) // s.column_blocks
            i, j = part.x, part.y
            for _ in range(part.repeats):
                for q in range(first_column, last_column, side):
                    column = min(q, last_column - side)
                    for p in range(first_row, last_row, side):
                        row = min(p, last_row - side)
                        transpose_square(
                            side, y, j + column * s.y_row + row, s.y_row,
                            x, i + row * s.x_row + column, s.x_row,
                        )  # fmt: skip
                i += s.x_step
                j += s.y_step

    return permute_squares


@kernel_factory
def _apart(count: int) -> Kernel:
    """The kernel for planes of ``count`` columns whose rows follow on each other in x."""

    @kernel
    def permute_apart(
        start: int, stop: int, x: Array, y: Array, axes: Words, numbers: Array
    ) -> None:
        s = _walk_of(numbers[0])
        for item in range(start, stop):
            part = _part_of(item // s.row_blocks, axes, s)
            block = item % s.row_blocks
            first = s.rows * block // s.row_blocks
            rows = s.rows * (block + 1) // s.row_blocks - first
            i, j = part.x + first * count, part.y + first
            for _ in range(part.repeats):
                together = x[i : i + rows * count]
                a = y[j : j + rows]
                b = y[j + s.y_row : j + s.y_row + rows]
                c = y[j + 2 * s.y_row : j + 2 * s.y_row + rows] if count > 2 else b
                d = y[j + 3 * s.y_row : j + 3 * s.y_row + rows] if count > 3 else b
                for p in range(rows):
                    a[p] = together[p * count]
                    b[p] = together[p * count + 1]
                    if count > 2:
                        c[p] = together[p * count + 2]
                    if count > 3:
                        d[p] = together[p * count + 3]
                i += s.x_step
                j += s.y_step

    return permute_apart


@kernel_factory
def _together(count: int) -> Kernel:
    """The kernel for planes of ``count`` rows whose columns follow on each other in y."""

    @kernel
    def permute_together(
        start: int, stop: int, x: Array, y: Array, axes: Words, numbers: Array
    ) -> None:
        s = _walk_of(numbers[0])
        for item in range(start, stop):
            part = _part_of(item // s.column_blocks, axes, s)
            block = item % s.column_blocks
            first = s.columns * block // s.column_blocks
            columns = s.columns * (block + 1) // s.column_blocks - first
            i, j = part.x + first, part.y + first * count
            for _ in range(part.repeats):
                together = y[j : j + columns * count]
                a = x[i : i + columns]
                b = x[i + s.x_row : i + s.x_row + columns]
                c = x[i + 2 * s.x_row : i + 2 * s.x_row + columns] if count > 2 else b
                d = x[i + 3 * s.x_row : i + 3 * s.x_row + columns] if count > 3 else b
                for q in range(columns):
                    together[q * count] = a[q]
                    together[q * count + 1] = b[q]
                    if count > 2:
                        together[q * count + 2] = c[q]
                    if count > 3:
                        together[q * count + 3] = d[q]
                i += s.x_step
                j += s.y_step

    return permute_together
