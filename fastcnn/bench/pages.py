"""Arrays that begin at a page, so that times are the same in every process.

NumPy's arrays begin at a multiple of 16 bytes that differs from process to process. A vector of 64
bytes that crosses a cache line takes two accesses. If the array of a probe lies so, the probe is
slower, and all figures that are divided by its time seem faster. docs/measurements.md has the row
"Arrays of benchmarks begin at a page".
"""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.core.arguments import Array


def at_page(array: Array) -> Array:
    """A C-contiguous copy of the array that begins at a page of memory.

    >>> at_page(np.ones((3, 5), np.float32)).ctypes.data % mmap.PAGESIZE
    0
    """
    new = empty_at_page(array.shape, array.dtype)
    new[...] = array
    return new


def empty_at_page(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An uninitialised array that begins at a page of memory."""
    size = np.dtype(dtype).itemsize
    for side in shape:
        size *= side
    memory = np.empty(size + mmap.PAGESIZE, np.uint8)
    first = -memory.ctypes.data % mmap.PAGESIZE
    array: Array = memory[first : first + size].view(dtype).reshape(shape)
    return array
