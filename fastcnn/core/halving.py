"""Sums half by half, over parts of a batch.

The sum of several arrays is that of the lower and the upper half of them, and so on down to single
arrays. The lower half of n arrays has as many as the largest power of two below n. So sums of
neighbours are the same in whichever process they are taken (:mod:`fastcnn.distributed.tree`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeAlias

import numpy as np

from fastcnn.core.arguments import Array

Add: TypeAlias = Callable[[Array, Array], Array]
"""The sum of two halves, the lower one first; a new array, or one of them."""


def parts_of_shards(sizes: Sequence[int]) -> list[slice]:
    """The rows of shards of these sizes, one after the other.

    >>> parts_of_shards([3, 2])
    [slice(0, 3, None), slice(3, 5, None)]
    """
    ends = list(accumulate(sizes))
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def sum_by_halves(values: Sequence[Array] | Array, add: Add = np.add) -> Array:
    """The sum of the leaves of a block, half by half; arrays are not changed.

    An array holds the leaves along its first axis, and ``add`` then takes many of them at once.

    >>> sum_by_halves([np.array([value]) for value in "abcde"], np.char.add).item()
    'abcde'
    >>> sum_by_halves(np.array(["a", "b", "c"]), np.char.add).item()
    'abc'
    """
    if isinstance(values, np.ndarray):
        while len(values) > 1:
            even = len(values) // 2 * 2
            sums = add(values[0:even:2], values[1:even:2])
            values = sums if even == len(values) else np.concatenate([sums, values[even:]])
        first: Array = values[0]
        return first
    level = list(values)
    while len(level) > 1:
        pairs = [add(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) // 2 * 2 :]
    return level[0]
