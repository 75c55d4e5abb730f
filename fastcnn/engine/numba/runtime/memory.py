"""Memory for results and scratch, which is used again when no array refers to it.

It runs in each call of an operation. The system's allocator gives large blocks back to the
operating system as soon as they are free. The next call gets new pages, each of which costs a fault
and is cleared when it is first touched (docs/measurements.md, "Blocks of memory are used again").
So blocks are kept. When a new block is made, blocks that are not in use and were unused for longest
are given up, until those that are not in use have at most :data:`KEPT` bytes, or as many as were in
use at once. So a training whose activations take more memory than that finds its blocks again in
the next step. :func:`give_up_surplus` gives up what it no longer needs.

Where the operating system has them, blocks lie in **huge pages** of 2 MiB, because the processor
finds an address in a small page by walking tables, which takes as long as reading some cache lines
(docs/measurements.md, "Blocks lie in huge pages"). Several smaller blocks share a huge page.

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
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.core.arguments import Array
from fastcnn.core.capacity import affordable
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.runtime import rehearsal

KEPT = 256 * 1024 * 1024
"""Bytes of blocks that are kept at most while they are not in use, unless more were in use."""
_SMALL = 64 * 1024  # smaller arrays come from the system's allocator, which keeps their memory
_PAGE = 4096
_HUGE = 2 * 1024 * 1024  # bytes of a huge page
_SHARED = _HUGE // 8  # bytes of a block from which it lies in a huge page, perhaps with others
_UNTOUCHED = 1 << 18  # bytes from which an array of a rehearsal has pages of its own


class _Block:
    """Memory that is used again.

    Attributes:
        memory: the bytes.
        first: the index of the first byte that begins a cache line.
        size: bytes from there on.
    """

    def __init__(self, memory: Array, size: int) -> None:
        self.memory, self.size = memory, size
        self.first = -memory.ctypes.data % CACHE_LINE

    def references(self) -> int:
        return sys.getrefcount(self.memory)


_UNUSED = _Block(np.empty(CACHE_LINE, np.uint8), 0).references()
"""References to the memory of an unused block: the block's own, and that of the count itself."""

_blocks: list[_Block] = []  # in the order of their last use
_most_in_use = [0]  # bytes of blocks that were in use at once, when a block was made


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
    if size < _SMALL or size > KEPT:
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
    try:
        pages = _pages(count * dtype.itemsize)
    except (OSError, OverflowError):
        raise MemoryError(f"no room for {shape} numbers of {dtype}") from None
    return np.frombuffer(pages, dtype, count).reshape(shape)


def _pages(size: int) -> mmap.mmap:
    """Pages of the process's own, which take no memory until they are written to."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
    return mmap.mmap(-1, size, **private)


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


def give_up_surplus() -> None:
    """Give up blocks that are not in use, until these have at most :data:`KEPT` bytes."""
    _most_in_use[0] = 0
    _give_up(0)


def _give_up(size: int) -> None:
    """Give up blocks before a new one of ``size`` bytes comes into use."""
    # The copy of the list refers to the blocks, not to their memory.
    unused, in_use = list[_Block](), size
    for block in _blocks.copy():
        if block.references() == _UNUSED:
            unused.append(block)
        else:
            in_use += block.size
    _most_in_use[0] = max(_most_in_use[0], in_use)
    surplus = sum(block.size for block in unused) - max(KEPT, _most_in_use[0])
    for block in unused:
        if surplus <= 0:
            break
        with suppress(ValueError):  # another thread has taken it
            _blocks.remove(block)
        surplus -= block.size


def _new_block(size: int) -> _Block:
    """A new block, not yet in the list; blocks that were unused for longest make room for it."""
    size = -(-size // _PAGE) * _PAGE
    _give_up(size)
    if size >= _SHARED and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # no room, which NumPy reports below, or no huge pages
            first, *others = _huge_blocks(size)
            _blocks[:0] = others
            return first
    return _Block(np.empty(size + CACHE_LINE, np.uint8), size)


def _huge_blocks(size: int) -> list[_Block]:
    """New blocks of at least this size that begin at a huge page: one, or those that share it.

    A block that nearly fills its last huge page gets all of it.
    """
    count = max(1, _HUGE // size)
    length = -(-count * size // _HUGE) * _HUGE
    if count == 1 and length - size > size // 8:
        length = size
    pages = _pages(length + _HUGE)
    pages.madvise(mmap.MADV_HUGEPAGE)
    begin = -np.frombuffer(pages, np.uint8, 1).ctypes.data % _HUGE
    size = size if count > 1 else length
    return [
        _Block(np.frombuffer(pages, np.uint8, size, begin + i * size), size) for i in range(count)
    ]
