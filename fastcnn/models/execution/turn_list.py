"""``TurnList``: steps that take turns, and the memory of the values between them.

Steps are written as for slices (:mod:`.step_list`). Places in memory are rooms with a number until
all steps are known. Then each room gets a part of the arena for as long as steps use it, so values
that are not needed at the same time share memory.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import program
from fastcnn.engine.numba.runtime.instruction_sets import choice_of
from fastcnn.engine.numba.runtime.program import Operand
from fastcnn.engine.numba.runtime.turns import ARENA, Turns, turns
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.models.execution.step_list import Shared, StepList, whole_lines


class _Call(NamedTuple):
    """A step before its rooms have places."""

    kernel: Kernel
    samples: tuple[object, ...]
    stop: int
    operands: tuple[Operand, ...]
    work: int


class _Room(NamedTuple):
    """A room: its bytes, and the first and the last step that use it."""

    size: int
    first: int
    last: int


class TurnList(StepList):
    """Steps for ``n`` samples, each of which all threads share."""

    def __init__(self, n: int, zeros: Array) -> None:
        super().__init__(n, zeros, zeros[:0], Shared())
        self._calls: list[_Call] = []
        self._rooms: list[_Room] = []
        self._places: list[int] = []

    def step(
        self,
        kernel: Kernel,
        samples: tuple[object, ...],
        stop: int,
        *operands: Operand,
        work: int = 0,
    ) -> None:
        if not stop:
            return
        for operand in operands:
            if operand.base < 0:
                room = self._rooms[~operand.base]
                first = min(room.first, len(self._calls))
                self._rooms[~operand.base] = room._replace(first=first, last=len(self._calls))
        self._calls.append(_Call(kernel, samples, stop, operands, work or stop))

    def room(self, count: int) -> Operand:
        """A room for so many numbers; its base is negative until it has a place."""
        return self.bytes_room(count * self.itemsize)

    def bytes_room(self, size: int) -> Operand:
        """A room of so many bytes."""
        self._rooms.append(_Room(whole_lines(size), 1 << 60, -1))
        return Operand(~(len(self._rooms) - 1), 0)

    def keep(self, place: Operand) -> None:
        """Count the room as used until the last step that is there so far."""
        if place.base < 0:
            room = self._rooms[~place.base]
            self._rooms[~place.base] = room._replace(last=max(room.last, len(self._calls) - 1))

    def finished(self) -> tuple[Turns, int]:
        """The program, and the bytes of its arena."""
        self._places, size = placed(self._rooms)
        places = self._places
        steps, works = [], []
        for call in self._calls:
            operands = [
                Operand(ARENA, places[~base] + at) if base < 0 else Operand(base, at)
                for base, at in call.operands
            ]
            steps.append(program.step(call.kernel, call.samples, call.stop, *operands))
            works.append(call.work)
        return turns(steps, works), size

    @property
    def length(self) -> int:
        """How many steps there are."""
        return len(self._calls)

    def kernels(self, first: int) -> list[str]:
        """The kernels of the steps from number ``first`` on, each with its tile and its range."""
        return [
            f"{name_of(call.kernel)}, {call.stop} item{'s' if call.stop != 1 else ''}"
            for call in self._calls[first:]
        ]

    def place_of(self, room: Operand) -> int:
        """The first byte of a room in the arena, after :meth:`finished`."""
        return self._places[~room.base]


def name_of(kernel: Kernel) -> str:
    """A kernel's name, with the tile that it was compiled for."""
    if hasattr(kernel, "choice"):
        return str(choice_of(kernel))
    function = getattr(kernel, "py_func", kernel)
    return str(getattr(function, "__name__", function)).strip("_")


def placed(rooms: list[_Room]) -> tuple[list[int], int]:
    """Where each room lies, so that rooms in use at one time do not overlap, and the bytes of all.

    The largest rooms are placed first, each as low as it fits.

    >>> placed([_Room(64, 0, 1), _Room(128, 1, 2), _Room(64, 2, 3)])
    ([128, 0, 128], 192)
    """
    order = sorted(range(len(rooms)), key=lambda i: (-rooms[i].size, rooms[i].first))
    places, size, done = [0] * len(rooms), 0, list[int]()
    for i in order:
        room = rooms[i]
        if room.last < 0:
            continue
        taken = sorted(
            (places[j], places[j] + rooms[j].size)
            for j in done
            if rooms[j].first <= room.last and room.first <= rooms[j].last
        )
        at = 0
        for first, last in taken:
            if at + room.size <= first:
                break
            at = max(at, last)
        places[i] = at
        size = max(size, at + room.size)
        done.append(i)
    return places, size
