"""Two arrays merged into one, element by element, and the gradients of both.

Arrays of equal shapes are merged number by number. Where an operand is broadcast, an item is a row
of the result (:mod:`fastcnn.engine.numba.elementwise.broadcasting`), whose kernel is compiled for
the operands that go on along the row: both, or one that meets one number of the other.

The gradient of an operand that is broadcast is a sum. Along a row that the operand shares, an item
is a number of the gradient, and each row of terms is summed at once (:func:`_row_sums`). Otherwise
the rows of terms are added (:func:`_row_totals`), in chunks of rows and blocks of columns, whose
sizes follow from the sizes of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.broadcasting import Shape, merged_shape
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.elementwise.broadcasting import (
    Axis,
    joined_axes,
    offsets_of,
    table_of,
)
from fastcnn.engine.numba.elementwise.totals import Totals, add_chunks
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel, ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel, Number, Words

Op: TypeAlias = Literal["add", "subtract", "multiply", "maximum"]
Side: TypeAlias = Literal["a", "b"]

_CHUNK = 16 * 1024  # numbers of a chunk at least; enough that the sum over chunks takes little time
_CHUNKS = 64  # chunks at most
_TOGETHER = 4  # arrays that one pass adds
_BLOCK = 1024  # columns of a block; their totals stay in the first-level cache


def add(a: Array, b: Array) -> Array:
    """``a + b``."""
    return _merge("add", a, b)


def add_backward(dy: Array, a_shape: Shape, b_shape: Shape) -> tuple[Array, Array]:
    """``da`` and ``db``: dy, summed over the axes that are 1 in a or b."""
    return _gradients("add", dy, dy, dy, a_shape, b_shape)


def subtract(a: Array, b: Array) -> Array:
    """``a - b``."""
    return _merge("subtract", a, b)


def subtract_backward(dy: Array, a_shape: Shape, b_shape: Shape) -> tuple[Array, Array]:
    """``da`` and ``db``: dy and −dy, summed over the axes that are 1 in a or b."""
    return _gradients("subtract", dy, dy, dy, a_shape, b_shape)


def multiply(a: Array, b: Array) -> Array:
    """``a * b``."""
    return _merge("multiply", a, b)


def multiply_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """``da`` and ``db``: dy times the other operand, summed over the axes that are 1 in a or b."""
    return _gradients("multiply", dy, a, b, a.shape, b.shape)


def maximum(a: Array, b: Array) -> Array:
    """``max(a, b)``; NaN where one of them is NaN."""
    return _merge("maximum", a, b)


def maximum_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """``da`` and ``db``: dy where a or b is the maximum, summed over the axes that are 1 in a or b.

    At a tie the maximum is a.
    """
    return _gradients("maximum", dy, a, b, a.shape, b.shape)


def sum_of(terms: Sequence[Array]) -> Array:
    """The sum of arrays of one shape and dtype, added in their order; a single array as it is.

    One pass adds up to four arrays, because memory takes longer than the additions.

    >>> sum_of([np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3))])
    array([[3., 3., 3.],
           [3., 3., 3.]])
    """
    total, *rest = terms
    while rest:
        some, rest = rest[: _TOGETHER - 1], rest[_TOGETHER - 1 :]
        flat = [readable(array).reshape(-1) for array in (total, *some)]
        flat += [flat[0]] * (_TOGETHER - len(flat))
        total = empty_like_type(total, *total.shape)
        n_terms, work = 1 + len(some), len(some) * total.size
        parallel_for(summed_numbers, total.size, work, *flat, n_terms, total.reshape(-1))
    return total


@ordered_kernel
def summed_numbers(
    start: int, stop: int, a: Array, b: Array, c: Array, d: Array, n_terms: int, y: Array
) -> None:
    """``y = a + b + c + d`` on flat arrays, in this order, or the first ``n_terms`` of them.

    Terms from number ``n_terms`` on are not read.
    """
    a, b, c, d, y = a[start:stop], b[start:stop], c[start:stop], d[start:stop], y[start:stop]
    if n_terms == 2:
        for i in range(y.size):
            y[i] = a[i] + b[i]
    elif n_terms == 3:
        for i in range(y.size):
            y[i] = (a[i] + b[i]) + c[i]
    else:
        for i in range(y.size):
            y[i] = ((a[i] + b[i]) + c[i]) + d[i]


# --- what is computed of the numbers that meet ---------------------------------------------------


@device
def _sum(a: Number, b: Number) -> Number:
    result: Number = a + b
    return result


@device
def _difference(a: Number, b: Number) -> Number:
    result: Number = a - b
    return result


@device
def _product(a: Number, b: Number) -> Number:
    result: Number = a * b
    return result


@device
def _wins(a: Number, b: Number) -> bool:
    """Whether the maximum is ``a``: at a tie too, and where a is NaN, which differs from itself."""
    result: bool = (a >= b) | (a != a)
    return result


@device
def _larger(a: Number, b: Number) -> Number:
    return a if _wins(a, b) else b


_MERGED: dict[Op, DeviceFunction] = {
    "add": _sum,
    "subtract": _difference,
    "multiply": _product,
    "maximum": _larger,
}


@device
def _gradient_itself(dy: Number, a: Number, b: Number) -> Number:
    return dy


@device
def _negative(dy: Number, a: Number, b: Number) -> Number:
    result: Number = -dy
    return result


@device
def _times_a(dy: Number, a: Number, b: Number) -> Number:
    result: Number = dy * a
    return result


@device
def _times_b(dy: Number, a: Number, b: Number) -> Number:
    result: Number = dy * b
    return result


@device
def _where_a_wins(dy: Number, a: Number, b: Number) -> Number:
    return dy if _wins(a, b) else np.float32(0)


@device
def _where_b_wins(dy: Number, a: Number, b: Number) -> Number:
    return np.float32(0) if _wins(a, b) else dy


_TERMS: dict[Op, dict[Side, DeviceFunction]] = {
    "add": {"a": _gradient_itself, "b": _gradient_itself},
    "subtract": {"a": _gradient_itself, "b": _negative},
    "multiply": {"a": _times_b, "b": _times_a},
    "maximum": {"a": _where_a_wins, "b": _where_b_wins},
}
"""The term of each operand's gradient: a function of dy and of the numbers that meet."""


# --- arrays of equal shapes ----------------------------------------------------------------------


@kernel_factory
def _merged_numbers(op: Op, over: Side | None) -> Kernel:
    """With ``over``, that operand is y, and is read as y alone."""
    merge = _MERGED[op]

    @kernel
    def merged_numbers(start: int, stop: int, a: Array, b: Array, y: Array) -> None:
        """Merge flat arrays number by number."""
        y = y[start:stop]
        a = y if over == "a" else a[start:stop]
        b = y if over == "b" else b[start:stop]
        for i in range(y.size):
            y[i] = merge(a[i], b[i])

    return merged_numbers


@kernel_factory
def _gradient_numbers(op: Op) -> Kernel:
    to_a, to_b = _TERMS[op]["a"], _TERMS[op]["b"]

    @kernel
    def gradient_numbers(
        start: int, stop: int, dy: Array, a: Array, b: Array, da: Array, db: Array
    ) -> None:
        """Both gradients on flat arrays, number by number."""
        dy, a, b = dy[start:stop], a[start:stop], b[start:stop]
        da, db = da[start:stop], db[start:stop]
        for i in range(dy.size):
            gradient, of_a, of_b = dy[i], a[i], b[i]
            da[i] = to_a(gradient, of_a, of_b)
            db[i] = to_b(gradient, of_a, of_b)

    return gradient_numbers


# --- rows ----------------------------------------------------------------------------------------


class MergedRows(NamedTuple):
    """The rows of a result.

    Attributes:
        width: numbers of a row.
        middle: rows along the axis before, on which the operands go on by ``a_step`` and ``b_step``
            from row to row.
        axes: axes before these two, which are in the table.
    """

    width: int
    middle: int
    a_step: int
    b_step: int
    axes: int


class _RowPlan(NamedTuple):
    """Rows of a result, their record and table, and which operands go on along a row."""

    rows: int
    numbers: Array
    table: Words
    a_goes_on: bool
    b_goes_on: bool


@lru_cache(maxsize=1024)
def _row_plan(a_shape: Shape, b_shape: Shape) -> _RowPlan:
    *others, row = joined_axes(a_shape, b_shape)
    middle = others.pop() if others else Axis(1, 0, 0, 0)
    sizes = MergedRows(row.length, middle.length, middle.a, middle.b, len(others))
    rows = prod(axis.length for axis in others) * middle.length
    return _RowPlan(rows, record(sizes), table_of(others), row.a > 0, row.b > 0)


@kernel_factory
def _merged_rows(op: Op, a_goes_on: bool, b_goes_on: bool, over: Side | None) -> Kernel:
    """With ``over``, that operand is y, and is read as y alone."""
    merge = _MERGED[op]

    @kernel
    def merged_rows(
        start: int, stop: int, a: Array, b: Array, y: Array, table: Words, numbers: Array
    ) -> None:
        """Rows ``start`` to ``stop`` of y, flat. ``numbers`` is one record of MergedRows."""
        width, middle, axes = numbers[0].width, numbers[0].middle, numbers[0].axes
        wide_a, wide_b = width if a_goes_on else 1, width if b_goes_on else 1
        row = start
        while row < stop:
            outer = row // middle
            first = row - outer * middle
            last = min(middle, first + stop - row)
            offsets = offsets_of(table, 0, axes, outer)
            for i in range(first, last):
                at_a = offsets.a + i * numbers[0].a_step
                at_b = offsets.b + i * numbers[0].b_step
                at = (outer * middle + i) * width
                out_row = y[at : at + width]
                a_row = out_row if over == "a" else a[at_a : at_a + wide_a]
                b_row = out_row if over == "b" else b[at_b : at_b + wide_b]
                first_a, first_b = a_row[0], b_row[0]
                for c in range(out_row.size):
                    value_a = a_row[c] if a_goes_on else first_a
                    value_b = b_row[c] if b_goes_on else first_b
                    out_row[c] = merge(value_a, value_b)
            row += last - first

    return merged_rows


# The loops are those of merged_rows. One device function for both would take longer to compile.
@kernel_factory
def _gradient_rows(op: Op, side: Side, a_goes_on: bool, b_goes_on: bool) -> Kernel:
    term = _TERMS[op][side]

    @kernel
    def gradient_rows(
        start: int, stop: int, dy: Array, a: Array, b: Array, gradient: Array, table: Words,
        numbers: Array,
    ) -> None:  # fmt: skip
        """Rows ``start`` to ``stop`` of the gradient of an operand that has the result's shape."""
        width, middle, axes = numbers[0].width, numbers[0].middle, numbers[0].axes
        wide_a, wide_b = width if a_goes_on else 1, width if b_goes_on else 1
        row = start
        while row < stop:
            outer = row // middle
            first = row - outer * middle
            last = min(middle, first + stop - row)
            offsets = offsets_of(table, 0, axes, outer)
            for i in range(first, last):
                at_a = offsets.a + i * numbers[0].a_step
                at_b = offsets.b + i * numbers[0].b_step
                a_row, b_row = a[at_a : at_a + wide_a], b[at_b : at_b + wide_b]
                at = (outer * middle + i) * width
                dy_row, out_row = dy[at : at + width], gradient[at : at + width]
                first_a, first_b = a_row[0], b_row[0]
                for c in range(out_row.size):
                    value_a = a_row[c] if a_goes_on else first_a
                    value_b = b_row[c] if b_goes_on else first_b
                    out_row[c] = term(dy_row[c], value_a, value_b)
            row += last - first

    return gradient_rows


# --- sums of rows --------------------------------------------------------------------------------


class _Sums(NamedTuple):
    """The sums of an operand's gradient.

    Attributes:
        item_axes: axes of the table through which the items count.
        axes: all axes of the table; those after ``item_axes`` are summed.
        summed: rows that are summed, the product of the lengths of these axes.
        width: numbers of a row.
        grain: rows of a chunk.
        chunks: chunks of the rows.
        blocks: blocks of the columns of a row.
    """

    item_axes: int
    axes: int
    summed_rows: int
    width: int
    grain: int
    chunks: int
    blocks: int


class _SumPlan(NamedTuple):
    """Items of the sums, their record and table, and which operands go on along a row."""

    items: int
    sizes: _Sums
    numbers: Array
    table: Words
    along_row: bool
    a_goes_on: bool
    b_goes_on: bool


@lru_cache(maxsize=1024)
def _sum_plan(a_shape: Shape, b_shape: Shape, side: Side) -> _SumPlan:
    *others, row = joined_axes(a_shape, b_shape)
    item_axes = [axis for axis in others if getattr(axis, side)]
    summed_axes = [axis for axis in others if not getattr(axis, side)]
    items, summed_rows = (prod(axis.length for axis in axes) for axes in (item_axes, summed_axes))
    along_row = not getattr(row, side)
    blocks = 1 if along_row else -(-row.length // _BLOCK)
    chunks = 1
    if not along_row:
        chunks = min(summed_rows, summed_rows * row.length // _CHUNK, max(1, _CHUNKS // blocks))
    grain = -(-summed_rows // max(1, chunks))
    sizes = _Sums(
        len(item_axes),
        len(others),
        summed_rows,
        row.length,
        grain,
        -(-summed_rows // grain),
        blocks,
    )
    table = table_of([*item_axes, *summed_axes])
    return _SumPlan(items, sizes, record(sizes), table, along_row, row.a > 0, row.b > 0)


@kernel_factory
def _row_sums(op: Op, side: Side) -> Kernel:
    """The kernel for the gradient of an operand with one number for a row of the other operand.

    Reads dy, a and b, flat, and writes ``gradient``, flat.
    """
    term, a_goes_on, b_goes_on = _TERMS[op][side], side == "b", side == "a"

    @device
    def stretch(dy: Array, a: Array, b: Array) -> Number:
        """The sum of at most a stretch of terms."""
        total: Number = dy.dtype.type(0)
        first_a, first_b = a[0], b[0]
        for c in range(dy.size):
            value_a = a[c] if a_goes_on else first_a
            value_b = b[c] if b_goes_on else first_b
            total += dy.dtype.type(term(dy[c], value_a, value_b))
        return total

    @kernel
    def row_sums(
        start: int,
        stop: int,
        dy: Array,
        a: Array,
        b: Array,
        gradient: Array,
        table: Words,
        numbers: Array,
    ) -> None:
        """Numbers ``start`` to ``stop`` of the gradient. ``numbers`` is one record of _Sums."""
        item_axes, axes, width = numbers[0].item_axes, numbers[0].axes, numbers[0].width
        for item in range(start, stop):
            start_of_item, total = offsets_of(table, 0, item_axes, item), np.float64(0)
            for row in range(numbers[0].summed_rows):
                in_item = offsets_of(table, item_axes, axes, row)
                for c in range(0, width, STRETCH):
                    length = min(STRETCH, width - c)
                    y = start_of_item.y + in_item.y + c
                    at_a = start_of_item.a + in_item.a + (c if a_goes_on else 0)
                    at_b = start_of_item.b + in_item.b + (c if b_goes_on else 0)
                    of_a = a[at_a : at_a + (length if a_goes_on else 1)]
                    of_b = b[at_b : at_b + (length if b_goes_on else 1)]
                    total += stretch(dy[y : y + length], of_a, of_b)
            gradient[item] = total

    return row_sums


@kernel_factory
def _row_totals(op: Op, side: Side, a_goes_on: bool, b_goes_on: bool) -> Kernel:
    """The kernel for an operand that goes on along a row; rows of terms are added to totals."""
    term = _TERMS[op][side]

    @device
    def add_terms(
        totals: Array,
        dy: Array,
        dy_second: Array,
        a: Array,
        a_second: Array,
        b: Array,
        b_second: Array,
    ) -> None:
        """Add the terms of two rows, so that each total is read and written once for both."""
        first_a, first_b, second_a, second_b = a[0], b[0], a_second[0], b_second[0]
        for c in range(totals.size):
            value_a = a[c] if a_goes_on else first_a
            value_b = b[c] if b_goes_on else first_b
            first_term = dy.dtype.type(term(dy[c], value_a, value_b))
            value_a = a_second[c] if a_goes_on else second_a
            value_b = b_second[c] if b_goes_on else second_b
            totals[c] += first_term + dy.dtype.type(term(dy_second[c], value_a, value_b))

    @device
    def add_last_term(totals: Array, dy: Array, a: Array, b: Array) -> None:
        """Add the terms of one row."""
        first_a, first_b = a[0], b[0]
        for c in range(totals.size):
            value_a = a[c] if a_goes_on else first_a
            value_b = b[c] if b_goes_on else first_b
            totals[c] += dy.dtype.type(term(dy[c], value_a, value_b))

    @kernel
    def row_totals(
        start: int,
        stop: int,
        dy: Array,
        a: Array,
        b: Array,
        totals: Array,
        table: Words,
        numbers: Array,
    ) -> None:
        """Items ``start`` to ``stop``: each a chunk of the rows of a number, in a block.

        Writes totals (items, chunks, width), flat, in float64. ``numbers`` is one record of _Sums.
        """
        item_axes, axes, width = numbers[0].item_axes, numbers[0].axes, numbers[0].width
        grain, chunks, blocks = numbers[0].grain, numbers[0].chunks, numbers[0].blocks
        for item in range(start, stop):
            block, index = item % blocks, item // blocks
            chunk, start_of_item = index % chunks, offsets_of(table, 0, item_axes, index // chunks)
            c, length = block * _BLOCK, min(_BLOCK, width - block * _BLOCK)
            at = index * width + c
            totals_of_block = totals[at : at + length]
            for i in range(length):
                totals_of_block[i] = 0
            wide_a, wide_b = length if a_goes_on else 1, length if b_goes_on else 1
            at_a = start_of_item.a + (c if a_goes_on else 0)
            at_b = start_of_item.b + (c if b_goes_on else 0)
            y = start_of_item.y + c
            last = min(numbers[0].summed_rows, (chunk + 1) * grain)
            for row in range(chunk * grain, last - 1, 2):
                first_row = offsets_of(table, item_axes, axes, row)
                second_row = offsets_of(table, item_axes, axes, row + 1)
                add_terms(
                    totals_of_block,
                    dy[y + first_row.y : y + first_row.y + length],
                    dy[y + second_row.y : y + second_row.y + length],
                    a[at_a + first_row.a : at_a + first_row.a + wide_a],
                    a[at_a + second_row.a : at_a + second_row.a + wide_a],
                    b[at_b + first_row.b : at_b + first_row.b + wide_b],
                    b[at_b + second_row.b : at_b + second_row.b + wide_b],
                )
            if (last - chunk * grain) % 2:
                first_row = offsets_of(table, item_axes, axes, last - 1)
                add_last_term(
                    totals_of_block,
                    dy[y + first_row.y : y + first_row.y + length],
                    a[at_a + first_row.a : at_a + first_row.a + wide_a],
                    b[at_b + first_row.b : at_b + first_row.b + wide_b],
                )

    return row_totals


# --- operations ----------------------------------------------------------------------------------


class MergePlan(NamedTuple):
    """How two arrays are merged: the kernel, its items, and the arrays that it takes after y."""

    kernel: Kernel
    items: int
    tables: tuple[Array, ...]


def merge_plan(op: Op, a_shape: Shape, b_shape: Shape, over: Side | None = None) -> MergePlan:
    """The plan for arrays of these shapes, which broadcast and are not empty.

    ``over`` names the operand in whose place the result is written; it has the result's shape.
    """
    if a_shape == b_shape:
        return MergePlan(_merged_numbers(op, over), prod(a_shape), ())
    plan = _row_plan(a_shape, b_shape)
    kernel = _merged_rows(op, plan.a_goes_on, plan.b_goes_on, over)
    return MergePlan(kernel, plan.rows, (plan.table, plan.numbers))


def _merge(op: Op, a: Array, b: Array) -> Array:
    y = empty_like_type(a, *merged_shape(a.shape, b.shape))
    if y.size:
        plan = merge_plan(op, a.shape, b.shape)
        flat = readable(a).reshape(-1), readable(b).reshape(-1), y.reshape(-1)
        parallel_for(plan.kernel, plan.items, y.size, *flat, *plan.tables)
    return y


def _gradients(
    op: Op, dy: Array, a: Array, b: Array, a_shape: Shape, b_shape: Shape
) -> tuple[Array, Array]:
    """Both gradients; ``a`` and ``b`` are dy where the terms do not read them."""
    da, db = empty_like_type(dy, *a_shape), empty_like_type(dy, *b_shape)
    operands = tuple(readable(array).reshape(-1) for array in (dy, a, b))
    if a_shape == b_shape:
        flat = da.reshape(-1), db.reshape(-1)
        parallel_for(_gradient_numbers(op), dy.size, dy.size, *operands, *flat)
        return da, db
    sides: tuple[tuple[Side, Array], ...] = ("a", da), ("b", db)
    for side, gradient in sides:
        if dy.size == 0:
            gradient[...] = 0
        elif gradient.shape == dy.shape:
            plan = _row_plan(a_shape, b_shape)
            function = _gradient_rows(op, side, plan.a_goes_on, plan.b_goes_on)
            more = gradient.reshape(-1), plan.table, plan.numbers
            parallel_for(function, plan.rows, dy.size, *operands, *more)
        else:
            _sum_terms(op, side, operands, (a_shape, b_shape), gradient)
    return da, db


def _sum_terms(
    op: Op, side: Side, operands: tuple[Array, ...], shapes: tuple[Shape, Shape], gradient: Array
) -> None:
    """The gradient of an operand that is broadcast."""
    plan = _sum_plan(*shapes, side)
    sizes, work, flat = plan.sizes, operands[0].size, gradient.reshape(-1)
    if plan.along_row:
        function = _row_sums(op, side)
        parallel_for(function, plan.items, work, *operands, flat, plan.table, plan.numbers)
        return
    function = _row_totals(op, side, plan.a_goes_on, plan.b_goes_on)
    totals = arrays.allocate((plan.items * sizes.chunks * sizes.width,), np.float64)
    items = plan.items * sizes.chunks * sizes.blocks
    parallel_for(function, items, work, *operands, totals, plan.table, plan.numbers)
    add_chunks(totals, flat, plan.items, Totals(sizes.chunks, sizes.width, 0, sizes.width))
