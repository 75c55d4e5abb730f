"""Arrays that follow from the weights alone, made once for each version of the weights.

Transformed filters, and the scales and shifts of batch normalisations, are the same in every call
until a weight changes. All batch sizes of a model share them.

Several threads may predict at once, and a signal handler may predict at any moment. Therefore one
call appends an entry to the list, and the place of an entry follows from the entries before it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import arrays, rehearsal
from fastcnn.engine.numba.runtime.finite import all_finite
from fastcnn.engine.numba.runtime.program import Operand, address
from fastcnn.engine.numba.runtime.turns import ARENA, EDGES, PREPARED, take_turns
from fastcnn.models.execution.step_list import whole_lines
from fastcnn.models.execution.turn_list import TurnList

Write = Callable[[TurnList, Operand], None]
"""Adds the steps that write an entry to its place."""


class _Entry(NamedTuple):
    """An array that follows from the weights.

    Attributes:
        key: two entries with the same key are the same entry.
        size: its bytes.
        write: adds the steps that write it.
        skipped, finite: after the first ``skipped`` numbers, ``finite`` numbers must be finite.
    """

    key: Hashable
    size: int
    write: Write
    skipped: int
    finite: int


class Version(NamedTuple):
    """The entries for one version of the weights.

    Attributes:
        key: the version of the weights, and how many entries and filters there were.
        memory: the entries.
        finite: whether all numbers that must be finite are.
    """

    key: tuple[int, int, int]
    memory: Array
    finite: bool


class Prepared:
    """The entries that programs of a model have asked for, and their newest version.

    ``zeros`` are of the model's dtype; ``version`` returns the version of its weights.
    """

    def __init__(self, zeros: Array, version: Callable[[], int]) -> None:
        self._zeros, self._version = zeros, version
        self._entries: list[_Entry] = []
        self._filters: dict[int, Array] = {}
        self._newest: Version | None = None

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum(entry.size for entry in self._entries)

    def entry(
        self, key: Hashable, count: int, write: Write, skipped: int = 0, finite: int = 0
    ) -> Operand:
        """The place of an entry of so many numbers; ``write`` adds the steps that make it.

        After the first ``skipped`` of its numbers, the next ``finite`` numbers must be finite.
        """
        for entry, place in _entries_with_places(self._entries):
            if entry.key == key:
                return place
        size = whole_lines(count * self._zeros.itemsize)
        self._entries.append(_Entry(key, size, write, skipped, finite))
        return next(
            place for entry, place in _entries_with_places(self._entries) if entry.key == key
        )

    def must_be_finite(self, filters: Array) -> None:
        """Note filters that meet padding: programs multiply padding as zeros."""
        self._filters[address(filters)] = filters.reshape(-1)

    def newest(self) -> Version:
        """The entries for the weights as they are now."""
        filters, entries = list(self._filters.values()), self._entries.copy()
        # The version comes before the values, which may change while they are read.
        key = self._version(), len(entries), len(filters)
        if rehearsal.active and rehearsal.rehearsing():
            return self._make_version(key, entries, filters)
        newest = self._newest
        if newest is None or newest.key != key:
            newest = self._newest = self._make_version(key, entries, filters)
        return newest

    def _make_version(
        self, key: tuple[int, int, int], entries: list[_Entry], filters: list[Array]
    ) -> Version:
        # New memory, because another thread may run a program on the version before.
        memory = arrays.allocate((sum(entry.size for entry in entries),), np.uint8)
        to, keys = TurnList(1, self._zeros), set[Hashable]()
        for entry, place in _entries_with_places(entries):
            if entry.key not in keys:  # not an entry that another thread made meanwhile
                entry.write(to, place)
                keys.add(entry.key)
                numbers = memory[place.at : place.at + entry.size].view(self._zeros.dtype)
                filters.append(numbers[entry.skipped : entry.skipped + entry.finite])
        program, scratch_bytes = to.finish()
        scratch = arrays.allocate((scratch_bytes,), np.uint8)
        bases = np.zeros(EDGES, np.int64)
        bases[ARENA], bases[PREPARED] = address(scratch), address(memory)
        take_turns(program, bases)
        return Version(key, memory, all(map(all_finite, filters)))


def _entries_with_places(entries: list[_Entry]) -> Iterator[tuple[_Entry, Operand]]:
    """The entries with their places, one behind the other."""
    at = 0
    for entry in entries.copy():
        yield entry, Operand(PREPARED, at)
        at += entry.size
