"""Memory for results and scratch, used again when nothing refers to it any more.

The system's allocator gives large blocks back to the kernel as soon as they are free; the next
call gets new pages, each of which costs a fault and a clearing when it is first touched. Measured
beside a program that had freed much, the gradient of the filters of a 3×3 layer took a third
longer for that. So blocks are kept: at most :data:`KEPT` bytes of them, the longest unused are
given up first.

A block is free when no array refers to it but the list here: NumPy's views hold a reference to
the array that owns their memory, so its reference count tells. What a block's count is that nobody
uses is measured, since it differs between interpreters.

There is no lock, because a signal handler or a finalizer that asks for memory in the middle of a
call would wait for itself. Instead whoever wants a block takes it out of the list, which is one
step for the interpreter, and puts it back when an array refers to it. If an error comes between,
the block is ordinary memory, which goes with its array.
"""

from __future__ import annotations

import mmap
import os
import sys
from math import prod
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.capacity import affordable
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.runtime import rehearsal

# Bytes of blocks that are kept, in use or not.
KEPT = 256 * 1024 * 1024
# Smaller arrays come from the system's allocator, which keeps them itself.
_SMALL = 64 * 1024
_PAGE = 4096
_UNTOUCHED = 1 << 18  # bytes of an array of a rehearsal that gets pages of its own


class _Block:
    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + CACHE_LINE, np.uint8)
        self.first = -self.memory.ctypes.data % CACHE_LINE
        self.size = size

    def references(self) -> int:
        return sys.getrefcount(self.memory)


# References to the memory of a block that nobody uses: the block's, and that of the count itself.
_UNUSED = _Block(0).references()

_blocks: list[_Block] = []  # the longest unused first


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """As ``numpy.empty``, C-contiguous; large arrays begin at a cache line.

    >>> empty((2, 3), np.float32).shape
    (2, 3)
    """
    dtype = np.dtype(dtype)
    if rehearsal.active and rehearsal.rehearsing():
        return _untouched_zeros(shape, dtype)
    size = prod(shape) * dtype.itemsize
    if size > KEPT // 4:
        affordable("memory for a result or a copy", shape, dtype)
        return np.empty(shape, dtype)
    if size < _SMALL:
        return np.empty(shape, dtype)
    block = _taken_block(size) or _new_block(size)
    array: Array = np.ndarray(shape, dtype, block.memory, block.first)
    _blocks.append(block)
    return array


def _untouched_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros that take no memory until they are written to, if they are many.

    ``numpy.zeros`` writes to memory that the process has used before. Raises ``MemoryError``.
    """
    count = prod(shape)
    if count * dtype.itemsize < _UNTOUCHED:
        return np.zeros(shape, dtype)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
    try:
        pages = mmap.mmap(-1, count * dtype.itemsize, **private)
    except (OSError, OverflowError):
        raise MemoryError(f"no room for {shape} numbers of {dtype}") from None
    return np.frombuffer(pages, dtype, count).reshape(shape)


def kept() -> int:
    """Bytes of the blocks that are kept now, in use or not.

    >>> 0 <= kept() <= KEPT
    True
    """
    return sum(block.size for block in _blocks.copy())


def _taken_block(size: int) -> _Block | None:
    """A free block of about this size, which is in the list no longer."""
    for i in range(len(_blocks) - 1, -1, -1):
        try:
            block = _blocks[i]
            if block.size < size or block.size > size + size // 4 or block.references() != _UNUSED:
                continue
            block = _blocks.pop(i)
        except IndexError:  # another thread has made the list shorter
            continue
        # Another thread may have moved the list meanwhile: what was taken is looked at once more.
        if size <= block.size <= size + size // 4 and block.references() == _UNUSED:
            return block
        _blocks.append(block)
    return None


def _new_block(size: int) -> _Block:
    """A block that is not in the list; those that were unused for longest make room for it."""
    block = _Block(-(-size // _PAGE) * _PAGE)
    held = block.size + kept()
    while held > KEPT:
        try:
            held -= _blocks.pop(0).size  # its memory lives on with the arrays that refer to it
        except IndexError:  # other threads have given them up
            break
    return block
