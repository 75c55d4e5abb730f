"""The calls of a group, which all its processes must make in the same order.

A sum over processes that are in different calls, or in calls of different sizes or dtypes, would be
wrong, or would never end. So each call is compared with those of the other processes while its
messages are under way. :class:`Call` says what is compared, and :func:`difference` names two
processes that differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array

KINDS = (
    "a barrier",
    "a message of rank 0",
    "a gathering",
    "a vote",
    "a sum over shards",
    "a sum of gradients",
)
BARRIER, FROM_FIRST, GATHERING, VOTE, OVER_SHARDS, GRADIENTS = range(len(KINDS))

_UNKNOWN = int(np.iinfo(np.int64).min)
"""Stands for a number that a process without samples does not know."""


class Call(NamedTuple):
    """A call of a group, as numbers that all processes have alike.

    Attributes:
        kind: an index of :data:`KINDS`.
        shards: of the group.
        over_batch: whether the group's batch normalisations take the statistics of a whole batch.
        samples: of the batch; 0 where the call has none.
        size: numbers of an array, or None where this process does not know it.
        dtype: the character of the array's dtype as a number, or None.
    """

    kind: int
    shards: int
    over_batch: int
    samples: int = 0
    size: int | None = 0
    dtype: int | None = 0

    def text(self, with_group: bool) -> str:
        """The call in words, with the group's arguments if these are asked for."""
        details = list[str]()
        if self.dtype:
            details.append(f"{self.size:,} numbers of {np.dtype(chr(self.dtype)).name}")
        if self.samples:
            details.append(f"a batch of {self.samples:,}")
        if with_group:
            statistics = "batch" if self.over_batch else "shard"
            details.append(f'shards={self.shards}, statistics="{statistics}"')
        return KINDS[self.kind] + (f" ({', '.join(details)})" if details else "")


def as_numbers(call: Call) -> Array:
    """The call as integers and their negatives, of which one maximum finds largest and least.

    >>> as_numbers(Call(GATHERING, 8, 1)).tolist()
    [2, 8, 1, 0, 0, 0, -2, -8, -1, 0, 0, 0]
    """
    numbers = [_UNKNOWN if number is None else number for number in call]
    negatives = [_UNKNOWN if number is None else -number for number in call]
    return np.array(numbers + negatives, np.int64)


def from_numbers(numbers: Array) -> Call:
    """The call of these integers.

    >>> from_numbers(as_numbers(Call(GRADIENTS, 8, 1, 128, None, None))).samples
    128
    """
    *known, size, dtype = numbers[: len(Call._fields)].tolist()
    return Call(*known, *(None if number == _UNKNOWN else number for number in (size, dtype)))


def are_same(own: Array, largest: Array) -> bool:
    """Whether all processes are in one call, by the maximum of their :func:`as_numbers`."""
    if own.tobytes() == largest.tobytes():  # six times as fast
        return True
    count = len(Call._fields)
    return bool((largest[:count] == -largest[count:]).all())


def difference(calls: Sequence[Call]) -> str:
    """The words for two processes that are in different calls, of which one is rank 0.

    >>> difference([Call(BARRIER, 8, 1), Call(GATHERING, 8, 1)]).partition("; ")[0]
    'rank 0 of 2 is in a barrier, but rank 1 is in a gathering'
    """
    first = calls[0]
    for rank, call in enumerate(calls):
        if any(None not in (a, b) and a != b for a, b in zip(first, call, strict=True)):
            groups_differ = first[1:3] != call[1:3]
            return (
                f"rank 0 of {len(calls)} is in {first.text(groups_differ)}, but rank {rank} is in "
                f"{call.text(groups_differ)}; all processes must make the same calls of a group in "
                f"the same order, and a callback that makes one needs on_every_process = True"
            )
    raise AssertionError("all calls are the same")
