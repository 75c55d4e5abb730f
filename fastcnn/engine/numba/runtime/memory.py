"""Memory for results and scratch, which is used again when no array refers to it.

It runs in each call of an operation. The system's allocator gives large blocks back to the
operating system as soon as they are free. The next call gets new pages, each of which costs a fault
and is cleared when it is first touched (docs/measurements.md, "Blocks of memory are used again").
So blocks are kept, at most :data:`KEPT` bytes of them; those that were unused for longest are given
up first.

A block is free when only the list here refers to it. The reference count of its memory tells this,
because each NumPy view holds a reference to the array that owns the memory. The count of an unused
block is measured at import, because it differs between interpreters.

There is no lock, because a signal handler or a finalizer that asks for memory in the middle of a
call would wait for itself. Instead a call takes a block out of the list, which is one step for the
interpreter, and puts it back when an array refers to it. If an error comes in between, the block is
ordinary memory, which is freed with its array.
"""

from __future__ import annotations

import mmap
import os
import sys
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.core.arguments import Array
from fastcnn.core.capacity import affordable
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.runtime import rehearsal

KEPT = 256 * 1024 * 1024
"""Bytes of blocks that are kept at most, in use or not."""
_SMALL = 64 * 1024  # smaller arrays come from the system's allocator, which keeps their memory
_PAGE = 4096
_UNTOUCHED = 1 << 18  # bytes from which an array of a rehearsal has pages of its own


class _Block:
    """Memory that is used again.

    Attributes:
        memory: the bytes, with a cache line more than ``size``.
        first: the index of the first byte that begins a cache line.
        size: bytes from there on.
    """

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + CACHE_LINE, np.uint8)
        self.first = -self.memory.ctypes.data % CACHE_LINE
        self.size = size

    def references(self) -> int:
        return sys.getrefcount(self.memory)


_UNUSED = _Block(0).references()
"""References to the memory of an unused block: the block's own, and that of the count itself."""

_blocks: list[_Block] = []  # in the order of their last use


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """As ``numpy.empty``, C-contiguous; large arrays begin at a cache line. Zeros in a rehearsal.

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
    block = _take_block(size) or _new_block(size)
    array: Array = np.ndarray(shape, dtype, block.memory, block.first)
    _blocks.append(block)
    return array


def _untouched_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros; many of them take no memory until they are written to.

    ``numpy.zeros`` would clear memory that the process has used before. Raises ``MemoryError``.
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


def kept_bytes() -> int:
    """Bytes of the blocks that are kept now, in use or not.

    >>> 0 <= kept_bytes() <= KEPT
    True
    """
    return sum(block.size for block in _blocks.copy())


def _take_block(size: int) -> _Block | None:
    """Take a free block of about this size out of the list; None if there is none."""
    for i in range(len(_blocks) - 1, -1, -1):
        try:
            block = _blocks[i]
            if block.size < size or block.size > size + size // 4 or block.references() != _UNUSED:
                continue
            block = _blocks.pop(i)
        except IndexError:  # another thread has made the list shorter
            continue
        # Another thread may have changed the list meanwhile, so the block is checked once more.
        if size <= block.size <= size + size // 4 and block.references() == _UNUSED:
            return block
        _blocks.append(block)
    return None


def _new_block(size: int) -> _Block:
    """A new block, not yet in the list; blocks that were unused for longest make room for it."""
    block = _Block(-(-size // _PAGE) * _PAGE)
    total = block.size + kept_bytes()
    while total > KEPT:
        try:
            total -= _blocks.pop(0).size  # its memory lives on with the arrays that refer to it
        except IndexError:  # other threads have emptied the list
            break
    return block
