"""Memory for results and scratch, which is used again when no array refers to it.

It runs in each call of an operation. The system's allocator gives large blocks back to the
operating system as soon as they are free. The next call gets new pages, each of which costs a fault
and is cleared when it is first touched (docs/measurements.md, "Blocks of memory are used again").
So blocks are kept. Before a new block is made, unused blocks are given up, those first that are
unused for longest. The bytes of unused blocks then do not exceed :data:`MOST_UNUSED`, or the most
bytes that were in use at once, if these are more. So a training with more activations than
``MOST_UNUSED`` gets its blocks again in the next step, and :func:`give_up_surplus` gives up the
blocks that it no longer needs.

Where the operating system has them, blocks lie in **huge pages** of 2 MiB, because the processor
finds an address in a small page by walking tables, which takes as long as reading some cache lines
(docs/measurements.md, "Blocks lie in huge pages"). Several smaller blocks share a huge page.

Blocks are found by the class of their size, because a training step has hundreds of them in use.

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
from contextlib import suppress
from itertools import chain, count
from math import prod
from sys import getrefcount

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.core.arguments import Array
from fastcnn.core.capacity import affordable
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.runtime import rehearsal

MOST_UNUSED = 256 * 1024 * 1024
"""Most bytes of blocks that are kept while they are not in use, unless more were in use at once."""
SMALL = 64 * 1024
"""Smaller arrays, in bytes, come from the system's allocator, which keeps their memory."""
_PAGE = 4096
_HUGE = 2 * 1024 * 1024  # bytes of a huge page
_LEAST_HUGE = _HUGE // 8  # bytes of a block from which it lies in a huge page, perhaps with others
_LAST = -1, -2, -3, -4  # blocks of a list that are asked first
_UNTOUCHED = 1 << 18  # bytes from which an array of a rehearsal has pages of its own


class _Block:
    """Memory that is used again.

    Attributes:
        memory: the bytes.
        start: the index of the first byte that begins a cache line.
        size: bytes from there on.
        last_use: a number that is larger for blocks that were used later.
    """

    def __init__(self, memory: Array, size: int) -> None:
        self.memory, self.size, self.last_use = memory, size, 0
        self.start = -memory.ctypes.data % CACHE_LINE


_example_block = _Block(np.empty(CACHE_LINE, np.uint8), 0)
_UNUSED = getrefcount(_example_block.memory)
"""References to the memory of an unused block: the block's own, and that of the count itself."""

_blocks: dict[int, list[_Block]] = {}  # by class of size, each list in the order of last use
_uses = count(1)
_most_in_use = [0]  # bytes of blocks that were in use at once, when a block was made


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """As ``numpy.empty``, C-contiguous; large arrays begin at a cache line. Zeros in a rehearsal.

    >>> empty((2, 3), np.float32).shape
    (2, 3)
    """
    dtype = np.dtype(dtype)
    if rehearsal.active and rehearsal.rehearsing():
        return _untouched_zeros(shape, dtype)
    size = int(prod(shape)) * dtype.itemsize  # a side may be a number of a record, of NumPy's type
    if size > MOST_UNUSED // 4:
        affordable("memory for a result or a copy", shape, dtype)
    if size < SMALL or size > MOST_UNUSED:
        return np.empty(shape, dtype)
    block = _take_block(size) or _new_block(size)
    array: Array = np.ndarray(shape, dtype, block.memory, block.start)
    block.last_use = next(_uses)
    _list_for(block.size).append(block)
    return array


def _class_of(size: int) -> int:
    """The class of a size; the sizes of a class differ by less than a quarter.

    >>> [_class_of(size) - _class_of(1 << 20) for size in ((1 << 20) + 1, 5 << 18, 1 << 21)]
    [0, 1, 4]
    """
    bits = size.bit_length()
    return 4 * bits + (size >> bits - 3)


def _list_for(size: int) -> list[_Block]:
    """The list of the blocks of this size's class."""
    return _blocks.setdefault(_class_of(size), [])


def _all_blocks() -> list[_Block]:
    """All blocks, as a list that other threads do not change."""
    return [block for some in list(_blocks.values()) for block in some.copy()]


def _untouched_zeros(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
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

    >>> array = empty((1 << 20,), np.uint8)
    >>> kept_bytes() >= array.nbytes
    True
    """
    return sum(block.size for block in _all_blocks())


def _take_block(size: int) -> _Block | None:
    """Take a free block of about this size out of its list; None if there is none."""
    smallest = _class_of(size)
    for number in range(smallest, smallest + 3):  # sizes up to a quarter more lie in three classes
        block = _taken(_blocks.get(number, []), size)
        if block is not None:
            return block
    return None


def _taken(blocks: list[_Block], size: int) -> _Block | None:
    """Take a free block of about this size out of a list; None if there is none.

    The blocks that were used last are asked first, because they may lie in the cache. Then come
    those that were unused for longest, because most of the others are in use.
    """
    most = size + size // 4
    for i in chain(_LAST, range(len(blocks) - len(_LAST))):
        try:
            block = blocks[i]
            if not size <= block.size <= most or getrefcount(block.memory) != _UNUSED:
                continue
            block = blocks.pop(i)
        except IndexError:  # the list is shorter, perhaps because of another thread
            continue
        # Another thread may have changed the list meanwhile, so the block is checked once more.
        if size <= block.size <= most and getrefcount(block.memory) == _UNUSED:
            return block
        blocks.append(block)
    return None


def give_up_surplus() -> None:
    """Give up blocks that are not in use, until these have at most :data:`MOST_UNUSED` bytes."""
    _most_in_use[0] = 0
    _give_up(0)


def _give_up(size: int) -> None:
    """Give up blocks before a new one of ``size`` bytes comes into use."""
    # The list refers to the blocks, not to their memory.
    unused, in_use = list[_Block](), size
    for block in _all_blocks():
        if getrefcount(block.memory) == _UNUSED:
            unused.append(block)
        else:
            in_use += block.size
    _most_in_use[0] = max(_most_in_use[0], in_use)
    surplus = sum(block.size for block in unused) - max(MOST_UNUSED, _most_in_use[0])
    for block in sorted(unused, key=lambda block: block.last_use):
        if surplus <= 0:
            break
        with suppress(ValueError):  # another thread has taken it
            _list_for(block.size).remove(block)
        surplus -= block.size


def _new_block(size: int) -> _Block:
    """A new block, not yet in the list; blocks that were unused for longest make room for it."""
    size = -(-size // _PAGE) * _PAGE
    _give_up(size)
    if size >= _LEAST_HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # no room, which NumPy reports below, or no huge pages
            first, *others = _huge_blocks(size)
            if others:
                _list_for(others[0].size)[:0] = others
            return first
    return _Block(np.empty(size + CACHE_LINE, np.uint8), size)


def _huge_blocks(size: int) -> list[_Block]:
    """New blocks of at least this size that begin at a huge page: one, or those that share it.

    A block that nearly fills its last huge page gets all of it.
    """
    number = max(1, _HUGE // size)
    length = -(-number * size // _HUGE) * _HUGE
    if number == 1 and length - size > size // 8:
        length = size
    pages = _pages(length + _HUGE)
    pages.madvise(mmap.MADV_HUGEPAGE)
    begin = -np.frombuffer(pages, np.uint8, 1).ctypes.data % _HUGE
    size = size if number > 1 else length
    return [
        _Block(np.frombuffer(pages, np.uint8, size, begin + i * size), size) for i in range(number)
    ]
