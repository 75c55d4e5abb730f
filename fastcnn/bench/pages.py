"""Arrays that begin at a page, so that every process times the same.

NumPy's arrays begin at any multiple of 16 bytes, another one in each process. Where a vector of 64
bytes lies across two cache lines it takes two accesses: the probe of multiply-adds took 4 to 8 %
longer in the processes in which its array lay so (Zen 4, AVX-512), and everything measured against
it came out that much faster.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array


def at_page(array: Array) -> Array:
    """A C-contiguous copy of the array that begins at a page of memory.

    >>> at_page(np.ones((3, 5), np.float32)).ctypes.data % mmap.PAGESIZE
    0
    """
    new = empty_at_page(array.shape, array.dtype)
    new[...] = array
    return new


def empty_at_page(shape: tuple[int, ...], dtype: Any) -> Array:
    """As ``numpy.empty``, beginning at a page."""
    size = np.dtype(dtype).itemsize
    for side in shape:
        size *= side
    memory = np.empty(size + mmap.PAGESIZE, np.uint8)
    first = -memory.ctypes.data % mmap.PAGESIZE
    array: Array = memory[first : first + size].view(dtype).reshape(shape)
    return array
