"""Programs whose steps take turns: each step is shared out over the threads before the next begins.

A program of :mod:`fastcnn.engine.numba.runtime.program` gives each thread slices of a batch. Large
layers, and single images, leave no slices to share, so here the threads share each step instead.
All steps are one compiled call. The workers watch the board between the steps, and do not sleep
before the last one is done.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcnn.engine.numba.runtime.calls import offer_step
from fastcnn.engine.numba.runtime.jit import compiled
from fastcnn.engine.numba.runtime.jobs import begin_program, end_program
from fastcnn.engine.numba.runtime.threads import SMALL, parallel_for
from fastcnn.engine.numba.runtime.types import Words

NUMBERS, ARENA, PREPARED, EDGES = range(4)
"""The bases of operands: NUMBERS is 0, so the offset is a number or the address of an array that
never moves. ARENA is the memory of a run. PREPARED is the memory of arrays that follow from the
weights. From EDGES on there is a base for each input and output of the program."""


class Turns(NamedTuple):
    """A list of steps.

    Attributes:
        steps: the words of all steps.
        works: the operations of each step.
        items: the largest range of a step.
        work: the operations of the largest step.
    """

    steps: Words
    works: Words
    items: int
    work: int


def make_turns(steps: list[Words], works: list[int]) -> Turns:
    """A program of these steps, with the operations of each."""
    if not steps:
        nothing = np.zeros(0, np.int64)
        return Turns(nothing, nothing, 0, 0)
    items = max(int(step[2] - step[1]) for step in steps)
    return Turns(np.concatenate(steps), np.array(works, np.int64), items, max(works))


def take_turns(program: Turns, bases: Words) -> None:
    """Run the steps one after the other, each on the threads; ``bases`` holds the bases."""
    if program.items:
        parallel_for(_take_turns, program.items, program.work, program.steps, program.works, bases)


@compiled
def _take_turns(
    board: Words, tasks: int, start: int, stop: int, steps: Words, works: Words, bases: Words
) -> None:
    """The compiled code of :func:`take_turns`; each step has at most ``tasks``.

    ``parallel_for`` calls it as it calls a kernel, but it runs on the caller's thread alone, shares
    out its steps itself, and ignores the range.
    """
    if board.size:
        begin_program(board)
    for i in range(works.size):
        worth = 1 + works[i] // SMALL
        offer_step(board, min(worth, tasks), steps, i, bases)
    if board.size:
        end_program(board)
