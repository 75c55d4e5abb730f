"""Two arrays merged into one, element by element, and the gradients of both.

Arrays of equal shapes are merged number by number. Where an operand is broadcast, an item is a row
of the result (:mod:`fastcnn.engine.numba.elementwise.broadcasting`). An operand *varies* along a
row if it has a number for each element of the row; otherwise it has one number for the whole row.
The kernel is compiled for which operands vary.

The gradient of an operand that is broadcast is a sum. Where the operand has one number for a whole
row, an item is a number of the gradient, and each row of terms is summed at once
(:func:`_row_sums`). Otherwise the rows of terms are added (:func:`_row_totals`), in chunks of rows
and blocks of columns, whose sizes follow from the sizes of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any, Literal, NamedTuple, TypeAlias

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
from fastcnn.engine.numba.runtime.bound import allocator, bound_by, launcher
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel, ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel, Number, Words

Op: TypeAlias = Literal["add", "subtract", "multiply", "maximum"]
Side: TypeAlias = Literal["a", "b"]
Term: TypeAlias = Literal[
    "itself", "negative", "times_other", "where_first_wins", "where_second_wins"
]
"""What each number of dy adds to the gradient of an operand."""

_CHUNK = 16 * 1024  # numbers of a chunk at least; enough that the sum over chunks takes little time
_CHUNKS = 64  # chunks at most
_TOGETHER = 4  # arrays that one pass adds
_BLOCK = 1024  # columns of a block; their totals stay in the first-level cache


def _bind_merge(op: Op, shapes: Shape, dtype: np.dtype[Any]) -> Callable[[Array, Array], Array]:
    """The bound call; ``shapes`` are that of a and that of b, one after the other."""
    a_shape, b_shape = shapes[: len(shapes) // 2], shapes[len(shapes) // 2 :]
    shape = merged_shape(a_shape, b_shape)
    new, size = allocator(shape, dtype), prod(shape)
    if size == 0:
        return lambda a, b: new()
    plan = merge_plan(op, a_shape, b_shape)
    launch, tables = launcher(plan.kernel, plan.items, size), plan.tables

    def bound(a: Array, b: Array) -> Array:
        y = new()
        launch(a.ravel(), b.ravel(), y.ravel(), *tables)
        return y

    return bound


def _merge(op: Op, a: Array, b: Array) -> Array:
    return _bind_merge(op, (*a.shape, *b.shape), a.dtype)(readable(a), readable(b))


@bound_by(partial(_bind_merge, "add"))
def add(a: Array, b: Array) -> Array:
    """``a + b``."""
    return _merge("add", a, b)


def add_backward(dy: Array, a_shape: Shape, b_shape: Shape) -> tuple[Array, Array]:
    """``da`` and ``db``: dy, summed over the axes that are 1 in a or b."""
    return _gradients("add", dy, dy, dy, a_shape, b_shape)


@bound_by(partial(_bind_merge, "subtract"))
def subtract(a: Array, b: Array) -> Array:
    """``a - b``."""
    return _merge("subtract", a, b)


def subtract_backward(dy: Array, a_shape: Shape, b_shape: Shape) -> tuple[Array, Array]:
    """``da`` and ``db``: dy and −dy, summed over the axes that are 1 in a or b."""
    return _gradients("subtract", dy, dy, dy, a_shape, b_shape)


@bound_by(partial(_bind_merge, "multiply"))
def multiply(a: Array, b: Array) -> Array:
    """``a * b``."""
    return _merge("multiply", a, b)


def multiply_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """``da`` and ``db``: dy times the other operand, summed over the axes that are 1 in a or b."""
    return _gradients("multiply", dy, a, b, a.shape, b.shape)


@bound_by(partial(_bind_merge, "maximum"))
def maximum(a: Array, b: Array) -> Array:
    """``max(a, b)``; NaN where one of them is NaN."""
    return _merge("maximum", a, b)


def maximum_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """``da``: dy where a is the maximum, else 0; ``db``: dy where b is, else 0.

    Each is summed over the axes that are 1 in its own operand. At a tie, and where a is NaN, the
    maximum is a.
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
        terms_of_call, rest = rest[: _TOGETHER - 1], rest[_TOGETHER - 1 :]
        flat = [readable(array).reshape(-1) for array in (total, *terms_of_call)]
        flat += [flat[0]] * (_TOGETHER - len(flat))
        total = empty_like_type(total, *total.shape)
        n_terms, work = 1 + len(terms_of_call), len(terms_of_call) * total.size
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
def _itself(dy: Number, operand: Number, other: Number) -> Number:
    return dy


@device
def _negative(dy: Number, operand: Number, other: Number) -> Number:
    result: Number = -dy
    return result


@device
def _times_other(dy: Number, operand: Number, other: Number) -> Number:
    result: Number = dy * other
    return result


@device
def _where_first_wins(dy: Number, operand: Number, other: Number) -> Number:
    return dy if _wins(operand, other) else np.float32(0)


@device
def _where_second_wins(dy: Number, operand: Number, other: Number) -> Number:
    return np.float32(0) if _wins(other, operand) else dy


_TERMS: dict[Term, DeviceFunction] = {
    "itself": _itself,
    "negative": _negative,
    "times_other": _times_other,
    "where_first_wins": _where_first_wins,
    "where_second_wins": _where_second_wins,
}
"""A function of a number of dy, of the operand, and of the other operand."""

_TERMS_OF_BOTH: dict[Op, tuple[Term, Term]] = {
    "add": ("itself", "itself"),
    "subtract": ("itself", "negative"),
    "multiply": ("times_other", "times_other"),
    "maximum": ("where_first_wins", "where_second_wins"),
}
"""The terms of the gradients of a and of b."""

_OF_DY_ALONE: tuple[Term, ...] = ("itself", "negative")
"""Terms that do not depend on the operands. One kernel serves all forms of these."""


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
    to_a, to_b = (_TERMS[term] for term in _TERMS_OF_BOTH[op])

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
            db[i] = to_b(gradient, of_b, of_a)

    return gradient_numbers


# --- rows ----------------------------------------------------------------------------------------


class MergedRows(NamedTuple):
    """The rows of a result.

    Attributes:
        width: numbers of a row.
        middle: rows along the axis before, on which the operands move by ``a_step`` and ``b_step``
            from row to row.
        axes: axes before these two, which are in the table.
    """

    width: int
    middle: int
    a_step: int
    b_step: int
    axes: int


class _RowPlan(NamedTuple):
    """Rows of a result, their record and table, and which operands vary along a row."""

    rows: int
    numbers: Array
    table: Words
    a_varies: bool
    b_varies: bool


@lru_cache(maxsize=1024)
def _row_plan(a_shape: Shape, b_shape: Shape) -> _RowPlan:
    *others, row = joined_axes(a_shape, b_shape)
    middle = others.pop() if others else Axis(1, 0, 0, 0)
    sizes = MergedRows(row.length, middle.length, middle.a, middle.b, len(others))
    rows = prod(axis.length for axis in others) * middle.length
    return _RowPlan(rows, record(sizes), table_of(others), row.a > 0, row.b > 0)


@kernel_factory
def _merged_rows(op: Op, a_varies: bool, b_varies: bool, over: Side | None) -> Kernel:
    """With ``over``, that operand is y, and is read as y alone."""
    merge = _MERGED[op]

    @kernel
    def merged_rows(
        start: int, stop: int, a: Array, b: Array, y: Array, table: Words, numbers: Array
    ) -> None:
        """Rows ``start`` to ``stop`` of y, flat. ``numbers`` is one record of MergedRows."""
        width, middle, axes = numbers[0].width, numbers[0].middle, numbers[0].axes
        wide_a, wide_b = width if a_varies else 1, width if b_varies else 1
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
                    value_a = a_row[c] if a_varies else first_a
                    value_b = b_row[c] if b_varies else first_b
                    out_row[c] = merge(value_a, value_b)
            row += last - first

    return merged_rows


# The loops are those of merged_rows. One device function for both would take longer to compile.
@kernel_factory
def _gradient_rows(of: Term, other_varies: bool) -> Kernel:
    term = _TERMS[of]

    @kernel
    def gradient_rows(
        start: int, stop: int, dy: Array, operand: Array, other: Array, gradient: Array,
        table: Words, numbers: Array,
    ) -> None:  # fmt: skip
        """Rows ``start`` to ``stop`` of the gradient of an operand that has the result's shape.

        ``operand`` is this operand, a of the table, and ``other`` is b. All arrays are flat.
        """
        width, middle, axes = numbers[0].width, numbers[0].middle, numbers[0].axes
        wide = width if other_varies else 1
        row = start
        while row < stop:
            outer = row // middle
            first = row - outer * middle
            last = min(middle, first + stop - row)
            offsets = offsets_of(table, 0, axes, outer)
            for i in range(first, last):
                at_operand = offsets.a + i * numbers[0].a_step
                at_other = offsets.b + i * numbers[0].b_step
                operand_row, other_row = (
                    operand[at_operand : at_operand + width],
                    other[at_other : at_other + wide],
                )
                at = (outer * middle + i) * width
                dy_row, out_row = dy[at : at + width], gradient[at : at + width]
                first_other = other_row[0]
                for c in range(out_row.size):
                    value_other = other_row[c] if other_varies else first_other
                    out_row[c] = term(dy_row[c], operand_row[c], value_other)
            row += last - first

    return gradient_rows


# --- sums of rows --------------------------------------------------------------------------------


class _Sums(NamedTuple):
    """The sums of an operand's gradient. The operand is a of the table, and the other one is b.

    Attributes:
        item_axes: axes of the table through which the items count.
        axes: all axes of the table; those after ``item_axes`` are summed.
        summed_rows: rows that are summed, the product of the lengths of these axes.
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
    """How an operand's gradient is summed.

    Attributes:
        items: the items of the sums.
        sizes: of the sums.
        numbers: the sizes as a record for the kernel.
        table: lengths and strides of the axes.
        sums_row: whether rows are summed, because the operand has one number for a row.
        other_varies: whether the other operand varies along a row.
    """

    items: int
    sizes: _Sums
    numbers: Array
    table: Words
    sums_row: bool
    other_varies: bool


@lru_cache(maxsize=1024)
def _sum_plan(operand_shape: Shape, other_shape: Shape) -> _SumPlan:
    *others, row = joined_axes(operand_shape, other_shape)
    item_axes = [axis for axis in others if axis.a]
    summed_axes = [axis for axis in others if not axis.a]
    items, summed_rows = (prod(axis.length for axis in axes) for axes in (item_axes, summed_axes))
    sums_row = not row.a
    blocks = 1 if sums_row else -(-row.length // _BLOCK)
    chunks = 1
    if not sums_row:
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
    return _SumPlan(items, sizes, record(sizes), table, sums_row, row.b > 0)


@kernel_factory
def _row_sums(of: Term) -> Kernel:
    """The kernel for the gradient of an operand with one number for a row of the other operand.

    Reads dy, operand and other, flat, and writes ``gradient``, flat.
    """
    term = _TERMS[of]

    @device
    def stretch(dy: Array, operand: Number, other: Array) -> Number:
        """The sum of at most a stretch of terms."""
        total: Number = dy.dtype.type(0)
        for c in range(dy.size):
            total += dy.dtype.type(term(dy[c], operand, other[c]))
        return total

    @kernel
    def row_sums(
        start: int,
        stop: int,
        dy: Array,
        operand: Array,
        other: Array,
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
                    at = start_of_item.b + in_item.b + c
                    number = operand[start_of_item.a + in_item.a]
                    total += stretch(dy[y : y + length], number, other[at : at + length])
            gradient[item] = total

    return row_sums


@kernel_factory
def _row_totals(of: Term, other_varies: bool) -> Kernel:
    """The kernel for an operand that varies along a row; rows of terms are added to totals."""
    term = _TERMS[of]

    @device
    def add_terms(
        totals: Array,
        dy: Array,
        dy_second: Array,
        operand: Array,
        operand_second: Array,
        other: Array,
        other_second: Array,
    ) -> None:
        """Add the terms of two rows, so that each total is read and written once for both."""
        first, second = other[0], other_second[0]
        for c in range(totals.size):
            value = other[c] if other_varies else first
            first_term = dy.dtype.type(term(dy[c], operand[c], value))
            value = other_second[c] if other_varies else second
            totals[c] += first_term + dy.dtype.type(term(dy_second[c], operand_second[c], value))

    @device
    def add_last_term(totals: Array, dy: Array, operand: Array, other: Array) -> None:
        """Add the terms of one row."""
        first = other[0]
        for c in range(totals.size):
            value = other[c] if other_varies else first
            totals[c] += dy.dtype.type(term(dy[c], operand[c], value))

    @kernel
    def row_totals(
        start: int,
        stop: int,
        dy: Array,
        operand: Array,
        other: Array,
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
            wide = length if other_varies else 1
            at_operand = start_of_item.a + c
            at_other = start_of_item.b + (c if other_varies else 0)
            y = start_of_item.y + c
            last = min(numbers[0].summed_rows, (chunk + 1) * grain)
            for row in range(chunk * grain, last - 1, 2):
                first_row = offsets_of(table, item_axes, axes, row)
                second_row = offsets_of(table, item_axes, axes, row + 1)
                add_terms(
                    totals_of_block,
                    dy[y + first_row.y : y + first_row.y + length],
                    dy[y + second_row.y : y + second_row.y + length],
                    operand[at_operand + first_row.a : at_operand + first_row.a + length],
                    operand[at_operand + second_row.a : at_operand + second_row.a + length],
                    other[at_other + first_row.b : at_other + first_row.b + wide],
                    other[at_other + second_row.b : at_other + second_row.b + wide],
                )
            if (last - chunk * grain) % 2:
                first_row = offsets_of(table, item_axes, axes, last - 1)
                add_last_term(
                    totals_of_block,
                    dy[y + first_row.y : y + first_row.y + length],
                    operand[at_operand + first_row.a : at_operand + first_row.a + length],
                    other[at_other + first_row.b : at_other + first_row.b + wide],
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
    kernel = _merged_rows(op, plan.a_varies, plan.b_varies, over)
    return MergePlan(kernel, plan.rows, (plan.table, plan.numbers))


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
    dy, a, b = operands
    of_a, of_b = _TERMS_OF_BOTH[op]
    _write_gradient(of_a, (dy, a, b), (a_shape, b_shape), da)
    _write_gradient(of_b, (dy, b, a), (b_shape, a_shape), db)
    return da, db


def _write_gradient(
    term: Term, operands: tuple[Array, ...], shapes: tuple[Shape, Shape], gradient: Array
) -> None:
    """The gradient of an operand. ``operands`` are dy, this operand and the other one, flat."""
    work, flat, reads_other = operands[0].size, gradient.reshape(-1), term not in _OF_DY_ALONE
    if work == 0:
        gradient[...] = 0
    elif gradient.size == work:
        plan = _row_plan(*shapes)
        function = _gradient_rows(term, plan.b_varies and reads_other)
        parallel_for(function, plan.rows, work, *operands, flat, plan.table, plan.numbers)
    else:
        _sum_terms(term, operands, shapes, flat)


def _sum_terms(
    term: Term, operands: tuple[Array, ...], shapes: tuple[Shape, Shape], gradient: Array
) -> None:
    """The gradient, flat, of an operand that is broadcast."""
    plan = _sum_plan(*shapes)
    sizes, work = plan.sizes, operands[0].size
    if plan.sums_row:
        tables = plan.table, plan.numbers
        parallel_for(_row_sums(term), plan.items, work, *operands, gradient, *tables)
        return
    function = _row_totals(term, plan.other_varies and term not in _OF_DY_ALONE)
    totals = arrays.allocate((plan.items * sizes.chunks * sizes.width,), np.float64)
    items = plan.items * sizes.chunks * sizes.blocks
    parallel_for(function, items, work, *operands, totals, plan.table, plan.numbers)
    add_chunks(totals, gradient, plan.items, Totals(sizes.chunks, sizes.width, 0, sizes.width))
