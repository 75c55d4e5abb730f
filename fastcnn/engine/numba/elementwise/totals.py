"""Sums in chunks: a kernel writes totals of each chunk, and these are added in order.

The problem alone decides what a chunk is, so results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.threads import parallel_for

_ITEM = 64  # numbers of an item


class Totals(NamedTuple):
    """Totals (rows, chunks, pitch), in float64 or in the dtype of the sums.

    They are added in float64. In each chunk, ``width`` numbers from number ``first`` on are in use.
    """

    chunks: int
    width: int
    first: int
    pitch: int


def add_chunks(totals: Array, sums: Array, rows: int, numbers: Totals) -> None:
    """``sums[row, i] = Σ totals[row, chunk, first + i]`` over the chunks, all arrays flat."""
    items = rows * -(-numbers.width // _ITEM)
    work = rows * numbers.chunks * numbers.width
    parallel_for(added_chunks, items, work, totals, sums, record(numbers))


@kernel
def added_chunks(start: int, stop: int, totals: Array, sums: Array, numbers: Array) -> None:
    """Items ``start`` to ``stop`` of the sums, rounded to their dtype; ``numbers`` is of Totals."""
    chunks, width, pitch = numbers[0].chunks, numbers[0].width, numbers[0].pitch
    items = (width + _ITEM - 1) // _ITEM
    for item in range(start, stop):
        row = item // items
        begin = (item - row * items) * _ITEM
        for i in range(begin, min(begin + _ITEM, width)):
            at, total = row * chunks * pitch + numbers[0].first + i, np.float64(0)
            for chunk in range(chunks):
                total += totals[at + chunk * pitch]
            sums[row * width + i] = total
