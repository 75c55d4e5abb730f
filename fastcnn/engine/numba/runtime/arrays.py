"""The arguments of kernels: arrays in the one form that kernels take, new arrays, and records.

Numba compiles a kernel anew for read-only arrays and for each layout. So kernels get C-contiguous,
writable arrays only, and few specialisations are compiled: the public functions pass C-contiguous
arrays, and :func:`readable` makes a writable view of a read-only array. No kernel writes to an
input.

Every array that a kernel writes to, result or scratch, comes from :data:`allocate`. Tests replace
it by memory between borders, and so find each access beyond an array's ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import numpy.ma  # Numba imports it at a first call, which a signal handler must not interrupt
from numba.core import config
from numpy.typing import DTypeLike

from fastcnn.core.arguments import Array
from fastcnn.core.arguments import readable as readable
from fastcnn.engine.numba.runtime import memory

allocate: Callable[[tuple[int, ...], DTypeLike], Array] = memory.empty
"""A new array of this shape and dtype, C-contiguous; its numbers are not set."""


def empty_like_type(array: Array, *shape: int) -> Array:
    """A new C-contiguous array of this shape and of ``array``'s dtype."""
    return allocate(shape, array.dtype)


def copy_of(array: Array) -> Array:
    """A C-contiguous copy."""
    result = empty_like_type(array, *array.shape)
    result[...] = array
    return result


def convert(array: Array, dtype: DTypeLike) -> Array:
    """A C-contiguous copy in another dtype."""
    result = allocate(array.shape, dtype)
    result[...] = array
    return result


@cache
def _dtype_of(fields: tuple[tuple[str, np.dtype[np.generic]], ...]) -> np.dtype[np.generic]:
    """The dtype of records with these fields."""
    return np.dtype(list(fields))


@cache
def _floats_in(kind: type) -> frozenset[str]:
    """The names of the fields of a named tuple's class that are declared as floats."""
    return frozenset(name for name, hint in get_type_hints(kind).items() if hint is float)


_WORD, _FLOAT = np.dtype(np.int64), np.dtype(np.float64)


def _numbers(fields: Any) -> tuple[tuple[Any, ...], np.dtype[np.generic]]:
    """A named tuple's numbers, and the dtype of its record; a tuple in it is a record too."""
    kind: Any = type(fields)
    values, dtypes, floats = [], [], _floats_in(kind)
    for name, number in zip(fields._fields, fields, strict=True):
        value: Any
        if isinstance(number, tuple):
            value, dtype = _numbers(number)
        elif name in floats:
            value, dtype = float(number), _FLOAT
        else:
            value, dtype = int(number), _WORD
        values.append(value)
        dtypes.append((name, dtype))
    return tuple(values), _dtype_of(tuple(dtypes))


@lru_cache(maxsize=4096, typed=True)
def record(numbers: NamedTuple) -> Array:
    """A named tuple of numbers as an array of one record, with the fields' names.

    A field is a float64 if the class declares it as ``float``, else an int64. It may be a named
    tuple of numbers too: compiled code reads ``numbers[0].rows.a``. Compiled code takes a record
    faster than a named tuple (docs/measurements.md, "A geometry is an array of one record"), and
    fastest if all records of one type share one dtype object.
    """
    values, dtype = _numbers(numbers)
    try:
        array: Array = np.array([values], dtype)
    except OverflowError:
        raise MemoryError("the arrays need offsets that 64 bits do not hold") from None
    # Without JIT, kernels read fields as attributes, which NumPy has for record arrays alone.
    return array.view(np.recarray) if config.DISABLE_JIT else array


def bias_or_zeros(b: Array | None, count: int, like: Array) -> Array:
    """The bias, or ``count`` zeros of the dtype of ``like`` if there is none."""
    if b is not None:
        return readable(b)
    zeros = empty_like_type(like, count)
    zeros[...] = 0
    return zeros
