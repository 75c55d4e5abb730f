"""How the kernels of merged arrays find their numbers: axes joined, rows, and tables of the rest.

Neighbouring axes are joined where both operands go on from one axis to the next, or where the same
operand is 1 in both axes. So images (N, H, W, C) and channels (N, 1, 1, C) have three axes: N, the
pixels, along which b stands still, and C. A **row** is the last axis, whose numbers lie side by
side in the result. In each operand they lie side by side too, or they are one number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from fastcnn.core.broadcasting import Shape, merged_shape
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.types import Words


class Axis(NamedTuple):
    """An axis of a result: its length, and from one index to the next in the result, a and b.

    A step of 0 says that an operand has one index, which meets all of the result's.
    """

    length: int
    y: int
    a: int
    b: int


@lru_cache(maxsize=1024)
def joined_axes(a: Shape, b: Shape) -> tuple[Axis, ...]:
    """The axes of the result, joined; at least one.

    >>> for axis in joined_axes((8, 5, 7, 3), (8, 1, 1, 3)):
    ...     print(axis)
    Axis(length=8, y=105, a=105, b=3)
    Axis(length=35, y=3, a=3, b=0)
    Axis(length=3, y=1, a=1, b=1)
    >>> joined_axes((8, 5, 7, 3), (8, 5, 7, 1))
    (Axis(length=280, y=3, a=3, b=1), Axis(length=3, y=1, a=1, b=0))
    >>> joined_axes((8, 5), (8, 5))
    (Axis(length=40, y=1, a=1, b=1),)
    """
    axes: list[Axis] = []
    shape = merged_shape(a, b)
    for axis in reversed(range(len(shape))):
        length = shape[axis]
        if length == 1:
            continue
        last = axes[-1] if axes else None
        of_a, of_b = (a[axis] > 1 or a[axis] == length), (b[axis] > 1 or b[axis] == length)
        if last is not None and (last.a > 0, last.b > 0) == (of_a, of_b):
            axes[-1] = last._replace(length=last.length * length)
            continue
        steps = prod(shape[axis + 1 :]), prod(a[axis + 1 :]), prod(b[axis + 1 :])
        axes.append(Axis(length, steps[0], steps[1] * of_a, steps[2] * of_b))
    return tuple(reversed(axes)) or (Axis(1, 1, 1, 1),)


def table_of(axes: Sequence[Axis]) -> Words:
    """The axes as words, for :func:`offsets_of`."""
    return np.array([word for axis in axes for word in axis], np.int64)


class RowOffsets(NamedTuple):
    """Where a row begins in an array of the result's shape, and in the operands."""

    y: int
    a: int
    b: int


@device
def offsets_of(table: Words, first: int, last: int, index: int) -> RowOffsets:
    """The offsets of ``index``, which counts through the axes ``first`` to ``last`` of a table.

    The first of these axes needs no division, and it is often the only one.
    """
    y, a, b = 0, 0, 0
    for axis in range(last - 1, first, -1):
        quotient = index // table[4 * axis]
        i = index - quotient * table[4 * axis]
        index = quotient
        y += i * table[4 * axis + 1]
        a += i * table[4 * axis + 2]
        b += i * table[4 * axis + 3]
    if last > first:
        y += index * table[4 * first + 1]
        a += index * table[4 * first + 2]
        b += index * table[4 * first + 3]
    return RowOffsets(y, a, b)
