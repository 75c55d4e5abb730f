"""What kernels are called with, so that few specialisations are compiled.

Numba compiles anew for a read-only array and for each layout. Kernels see C-contiguous, writable
arrays only: the public functions give C-contiguous ones, and :func:`readable` gives a view that
counts as writable of one that is not. No kernel writes to an input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.arguments import Array


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
    new: Array = np.empty(shape, array.dtype)
    return new


def bias_or_zeros(b: Array | None, count: int, like: Any) -> Array:
    """The bias, or ``count`` zeros where there is none."""
    return np.zeros(count, like.dtype) if b is None else readable(b)
