"""``TurnList``: steps that all threads share, and the memory of the values between them.

Steps are written as for slices (:mod:`.step_list`). Until all steps are known, memory is handed out
as rooms, which have a number instead of an address: the base of a room's operand is negative. Then
each room gets a part of the arena for the steps that use it, so values that are not needed at the
same time share memory.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import program
from fastcnn.engine.numba.runtime.instruction_sets import choice_of
from fastcnn.engine.numba.runtime.program import Operand
from fastcnn.engine.numba.runtime.turns import ARENA, Turns, make_turns
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.models.execution.step_list import Shared, StepList, whole_lines


class _Call(NamedTuple):
    """A step before its rooms have places."""

    kernel: Kernel
    examples: tuple[object, ...]
    stop: int
    operands: tuple[Operand, ...]
    work: int


class _Room(NamedTuple):
    """A room: its bytes, and the first and the last step that use it."""

    size: int
    first: int
    last: int


class TurnList(StepList):
    """Steps for ``n`` samples; all threads share each step."""

    def __init__(self, n: int, zeros: Array) -> None:
        super().__init__(n, zeros, zeros[:0], Shared())
        self._calls: list[_Call] = []
        self._rooms: list[_Room] = []
        self._places: list[int] = []

    def step(
        self,
        kernel: Kernel,
        examples: tuple[object, ...],
        stop: int,
        *operands: Operand,
        work: int = 0,
    ) -> None:
        if not stop:
            return
        for operand in operands:
            if _is_room(operand):
                i = _index_of_room(operand)
                first = min(self._rooms[i].first, len(self._calls))
                self._rooms[i] = self._rooms[i]._replace(first=first, last=len(self._calls))
        self._calls.append(_Call(kernel, examples, stop, operands, work or stop))

    def room(self, count: int) -> Operand:
        """A room for so many numbers."""
        return self.bytes_room(count * self.itemsize)

    def bytes_room(self, size: int) -> Operand:
        """A room of so many bytes."""
        self._rooms.append(_Room(whole_lines(size), 1 << 60, -1))
        return _operand_of_room(len(self._rooms) - 1)

    def keep(self, place: Operand) -> None:
        """Keep the numbers of a room until after the last step of the list so far."""
        if _is_room(place):
            i, last = _index_of_room(place), len(self._calls) - 1
            self._rooms[i] = self._rooms[i]._replace(last=max(self._rooms[i].last, last))

    def finish(self) -> tuple[Turns, int]:
        """The program, and the bytes of its arena."""
        self._places, size = place_rooms(self._rooms)
        steps, works = [], []
        for call in self._calls:
            operands = [
                Operand(ARENA, self.place_of(operand) + operand.at)
                if _is_room(operand)
                else operand
                for operand in call.operands
            ]
            steps.append(program.step(call.kernel, call.examples, call.stop, *operands))
            works.append(call.work)
        return make_turns(steps, works), size

    def arena_bytes(self) -> int:
        """The bytes of the arena."""
        return place_rooms(self._rooms)[1]

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
        """The first byte of a room in the arena, after :meth:`finish`."""
        return self._places[_index_of_room(room)]


def _operand_of_room(index: int) -> Operand:
    return Operand(-1 - index, 0)


def _is_room(operand: Operand) -> bool:
    return operand.base < 0


def _index_of_room(operand: Operand) -> int:
    return -1 - operand.base


def name_of(kernel: Kernel) -> str:
    """A kernel's name, with the tile that it was compiled for."""
    if hasattr(kernel, "choice"):
        return str(choice_of(kernel))
    function = getattr(kernel, "py_func", kernel)
    return str(getattr(function, "__name__", function)).strip("_")


def place_rooms(rooms: list[_Room]) -> tuple[list[int], int]:
    """Where each room lies, so that rooms in use at one time do not overlap, and the bytes of all.

    The largest rooms get their places first, each as low as it fits.

    >>> place_rooms([_Room(64, 0, 1), _Room(128, 1, 2), _Room(64, 2, 3)])
    ([128, 0, 128], 192)
    """
    order = sorted(range(len(rooms)), key=lambda i: (-rooms[i].size, rooms[i].first))
    places, size, placed_rooms = [0] * len(rooms), 0, list[int]()
    for i in order:
        room = rooms[i]
        if room.last < 0:
            continue
        occupied = sorted(
            (places[j], places[j] + rooms[j].size)
            for j in placed_rooms
            if rooms[j].first <= room.last and room.first <= rooms[j].last
        )
        at = 0
        for begin, end in occupied:
            if at + room.size <= begin:
                break
            at = max(at, end)
        places[i] = at
        size = max(size, at + room.size)
        placed_rooms.append(i)
    return places, size
