"""What kernels are called with, and where it comes from.

Numba compiles anew for a read-only array and for each layout. Kernels see C-contiguous, writable
arrays only: the public functions give C-contiguous ones, and :func:`readable` gives a view that
counts as writable of one that is not. So few specialisations are compiled. No kernel writes
to an input.

Every array that a kernel writes to, results and scratch alike, comes from :data:`allocate`: with
memory of another kind in its place, tests see each access beyond an array's ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.ma  # Numba asks for it at a first call, and NumPy fails if a handler does so meanwhile
from numba.core import config

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import memory

allocate: Callable[[tuple[int, ...], Any], Array] = memory.empty
"""New memory for an array of this shape and dtype, C-contiguous, with anything in it."""


class _Memory:
    """The memory of an array that stays alive with it, without its mark of being read-only."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.__array_interface__["data"][0], False),
        }


def readable(array: Array) -> Array:
    """``array`` itself, or a view of it that compiled code takes as any other."""
    if array.flags.writeable:
        return array
    return np.asarray(_Memory(array))


def empty_like_type(array: Array, *shape: int) -> Array:
    """A new C-contiguous array of this shape and of ``array``'s dtype."""
    return allocate(shape, array.dtype)


def copied(array: Array) -> Array:
    """A C-contiguous copy."""
    new = empty_like_type(array, *array.shape)
    new[...] = array
    return new


def converted(array: Array, dtype: Any) -> Array:
    """A C-contiguous copy in another dtype."""
    new = allocate(array.shape, dtype)
    new[...] = array
    return new


@cache
def _dtype_of(fields: tuple[tuple[str, np.dtype[Any]], ...]) -> np.dtype[Any]:
    """The dtype of records with these fields."""
    return np.dtype(list(fields))


_WORD = np.dtype(np.int64)


def _integers(numbers: Any) -> tuple[tuple[Any, ...], np.dtype[Any]]:
    """A named tuple's integers, and the dtype of its record; a tuple in it is a record too."""
    values, fields = [], []
    for name, number in zip(numbers._fields, numbers, strict=True):
        value, dtype = _integers(number) if isinstance(number, tuple) else (int(number), _WORD)
        values.append(value)
        fields.append((name, dtype))
    return tuple(values), _dtype_of(tuple(fields))


@lru_cache(maxsize=4096, typed=True)
def record(numbers: Any) -> Array:
    """A named tuple of integers as an array of one record, with the fields' names.

    A field may be a named tuple of integers too: compiled code reads ``numbers[0].rows.a``.
    Compiled code takes a record faster than a named tuple (docs/measurements.md, "A geometry is an
    array of one record"), and fastest if all records of one type share one dtype object.
    """
    values, dtype = _integers(numbers)
    try:
        array: Array = np.array([values], dtype)
    except OverflowError:
        raise MemoryError("the arrays need offsets that 64 bits do not hold") from None
    # Plain Python reads the fields by name from a record array only.
    return array.view(np.recarray) if config.DISABLE_JIT else array


def bias_or_zeros(b: Array | None, count: int, like: Any) -> Array:
    """The bias, or ``count`` zeros where there is none."""
    if b is not None:
        return readable(b)
    zeros = empty_like_type(like, count)
    zeros[...] = 0
    return zeros
