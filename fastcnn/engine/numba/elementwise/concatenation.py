"""Arrays joined along one axis, and cut apart again, as copies of runs of neighbouring numbers.

Along the axes before the joined one, the joined array has rows, and a row holds a run of each of
the arrays. A kernel copies the runs of up to four arrays row by row, so that the joined array is
gone through once. A long row is cut into pieces, so that the threads share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import copy_run
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel

TOGETHER = 4  # arrays of one kernel
_PIECE = 16 * 1024  # numbers of a piece at most


def concatenate(arrays: tuple[Array, ...], axis: int) -> Array:
    """The arrays one after the other along an axis."""
    before, after = arrays[0].shape[:axis], arrays[0].shape[axis + 1 :]
    y = empty_like_type(arrays[0], *before, sum(array.shape[axis] for array in arrays), *after)
    parts = [readable(array) for array in arrays]
    _copy(True, parts, y, axis)
    return y


def concatenate_backward(dy: Array, sizes: tuple[int, ...], axis: int) -> tuple[Array, ...]:
    """The parts of dy that have these sizes along an axis."""
    before, after = dy.shape[:axis], dy.shape[axis + 1 :]
    gradients = tuple(empty_like_type(dy, *before, size, *after) for size in sizes)
    _copy(False, gradients, readable(dy), axis)
    return gradients


class Runs(NamedTuple):
    """The runs of up to four arrays in a row of the joined array.

    Attributes:
        a, b, c, d: numbers of the arrays' runs, which lie side by side in the row.
        first: the index of the first of these numbers in the joined array.
        pitch: from one row of the joined array to the next.
        pieces: pieces into which the runs of a row are cut.
    """

    a: int
    b: int
    c: int
    d: int
    first: int
    pitch: int
    pieces: int


def _copy(joins: bool, parts: Sequence[Array], joined: Array, axis: int) -> None:
    """Copy the arrays into the joined array, or parts of it into the arrays."""
    rows, pitch, first = prod(joined.shape[:axis]), prod(joined.shape[axis:]), 0
    for at in range(0, len(parts), TOGETHER):
        group = parts[at : at + TOGETHER]
        runs = [prod(array.shape[axis:]) for array in group]
        plan = copied_runs(joins, runs, rows, first, pitch)
        absent = [group[0]] * (TOGETHER - len(group))
        flat = [array.reshape(-1) for array in (*group, *absent, joined)]
        if plan.work:
            parallel_for(plan.function, plan.items, plan.work, *flat, plan.numbers)
        first += sum(runs)


class RunsPlan(NamedTuple):
    """A kernel ``(a, b, c, d, joined, numbers)``, its items and work, and the record of Runs."""

    function: Kernel
    items: int
    work: int
    numbers: Array


def copied_runs(joins: bool, runs: Sequence[int], rows: int, first: int, pitch: int) -> RunsPlan:
    """The plan that copies runs of up to four arrays into a joined array, or out of it.

    Args:
        joins: whether the runs go into the joined array.
        runs: numbers of each array in a row of the joined array, side by side.
        rows: rows of the joined array.
        first: the index of the first of these numbers in the joined array.
        pitch: from one row of the joined array to the next.
    """
    width = sum(runs)
    pieces = max(1, -(-width // _PIECE))
    a, b, c, d = *runs, *[0] * (TOGETHER - len(runs))
    numbers = record(Runs(a, b, c, d, first, pitch, pieces))
    return RunsPlan(_copied_runs(joins), rows * pieces, rows * width, numbers)


@kernel_factory
def _copied_runs(joins: bool) -> Kernel:
    """The kernel that joins the arrays, or parts them again."""

    @device
    def copy_overlap(
        part: Array, run: int, first: int, row: int, joined: Array, at: int, begin: int, end: int
    ) -> None:
        """Copy what an array has of the numbers ``begin`` to ``end`` of a row.

        Its run begins at number ``first`` of the row, which begins at ``joined[at]``.
        """
        begin, end = max(begin, first), min(end, first + run)
        if begin < end:
            source_start = row * run + begin - first
            if joins:
                copy_run(joined, at + begin, part, source_start, end - begin)
            else:
                copy_run(part, source_start, joined, at + begin, end - begin)

    @kernel
    def copied_runs(
        start: int, stop: int, a: Array, b: Array, c: Array, d: Array, joined: Array, numbers: Array
    ) -> None:
        """Copy pieces ``start`` to ``stop`` of the rows. ``numbers`` is one record of Runs."""
        run_a, run_b, run_c, run_d = numbers[0].a, numbers[0].b, numbers[0].c, numbers[0].d
        first, pitch, pieces = numbers[0].first, numbers[0].pitch, numbers[0].pieces
        first_b, first_c, first_d = run_a, run_a + run_b, run_a + run_b + run_c
        width = first_d + run_d
        for item in range(start, stop):
            row, begin, end = item, 0, width
            if pieces > 1:
                row = item // pieces
                piece = item - row * pieces
                begin, end = width * piece // pieces, width * (piece + 1) // pieces
            at = first + row * pitch
            copy_overlap(a, run_a, 0, row, joined, at, begin, end)
            copy_overlap(b, run_b, first_b, row, joined, at, begin, end)
            copy_overlap(c, run_c, first_c, row, joined, at, begin, end)
            copy_overlap(d, run_d, first_d, row, joined, at, begin, end)

    return copied_runs
