"""How the tests that take minutes are dealt to the workers."""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def dealt(long: list[Item], others: list[Item], workers: int) -> list[Item]:
    """A list of which each of ``workers`` equal parts begins with some of the long items.

    >>> dealt(["a", "b", "c"], [1, 2, 3, 4], 2)
    ['a', 'c', 1, 'b', 2, 3, 4]
    """
    result: list[Item] = []
    count, rest = len(long) + len(others), iter(others)
    for worker in range(workers):
        own = long[worker::workers]
        size = (count - len(result)) // (workers - worker)  # as pytest-xdist divides
        result += [*own, *islice(rest, max(0, size - len(own)))]
    return [*result, *rest]
