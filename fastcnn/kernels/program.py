"""Programs: whole nets as lists of kernel calls that compiled code runs without coming back.

A **step** is a call of one kernel by its address. Its operands are places: a base (the slice's
scratch, its part of the input …) and an offset in bytes. A **program** is a list of steps that is
run for each slice of a batch, with the bases moved to that slice; slices go to threads.
What is compiled here knows no layer, no dtype and no shape, and serves every net; the kernels are
those that serve single operations.

Between the layers of a small net nothing then costs more than the calls, some 20 ns each, and a
slice's activations stay in the second-level cache.
"""

from __future__ import annotations

from ctypes import c_void_p
from typing import Any, NamedTuple

import numpy as np
from numba.core import config

from fastcnn.arguments import Array
from fastcnn.kernels import arrays
from fastcnn.kernels.calls import address_of, call, job
from fastcnn.kernels.inlining import device
from fastcnn.kernels.jit import compiled, kernel
from fastcnn.kernels.jobs import share
from fastcnn.kernels.packing import sum_of_zeros
from fastcnn.kernels.threads import SMALL, parallel_for

# What a step's operands are, by its form: see ``calls.call``.
CONTRACTION, TWO, THREE, FOUR, FIVE, LAY_OUT, TURN, POOLED = range(8)
_FORMS = ("aaaaba", "aa", "aaa", "aaaa", "aaaaa", "aaiiia", "aaiiiii", "aaaaaba")

# The bases of places: NUMBERS for what is no place or stays where it is, SHARED for scratch that
# all slices read, ITEM for that of one slice, the others for arrays of the whole batch; of these
# the ones from KEPT on lie in the scratch.
NUMBERS, SHARED, ITEM, INPUT, OUTPUT, DY, DX, TARGETS, KEPT = range(9)
BASES = 16
_MOST = 7  # operands of a step
# Columns of a step: form, function, start, stop, then the operands' bases, then their places.
_BASE, _AT = 4, 4 + _MOST
NO_STEPS = np.zeros((0, _AT + _MOST), np.int64)


class Place(NamedTuple):
    """Where an operand lies: bytes from a base, or the number itself."""

    base: int
    at: int


def compiles() -> bool:
    """Whether there is compiled code that could be called by address."""
    return not config.DISABLE_JIT


def number(value: int) -> Place:
    """An operand that is a number."""
    return Place(NUMBERS, int(value))


def constant(array: Array) -> Place:
    """An operand that is an array which lives longer than the program."""
    return number(address(array))


def address(array: Array) -> int:
    """Where an array's first element lies."""
    # It is the first field after the object's head, by NumPy's binary interface. To look there
    # takes 0.3 µs, to ask ctypes for a buffer twice that, NumPy four times; each call asks.
    return c_void_p.from_address(id(array) + object.__basicsize__).value or 0


def step(form: int, function: Any, samples: tuple[Any, ...], stop: int, *operands: Place) -> Array:
    """A call of ``function`` over ``range(stop)``; ``samples`` are arguments of its types."""
    assert len(operands) == len(_FORMS[form]) == len(samples)
    rest = (Place(0, 0),) * (_MOST - len(operands))
    bases, places = zip(*operands, *rest, strict=True)
    return np.array([[form, address_of(function, *samples), 0, stop, *bases, *places]])


def parts(one: Array, count: int) -> list[Array]:
    """A step cut into at most ``count`` steps that together do the same."""
    stop = int(one[0, 3])
    count = min(count, stop)
    found = []
    for i in range(count):
        part = one.copy()
        part[0, 2:4] = stop * i // count, stop * (i + 1) // count
        found.append(part)
    return found


class Program(NamedTuple):
    """Steps for a batch, made ready.

    Attributes:
        steps: those of a whole slice, then those of the last slice.
        numbers: as compiled code takes them; see :func:`program`.
        items: how many groups of slices can run at once; each has scratch of its own.
        shared, scratch: bytes of scratch for all items, and of all.
        work: operations of the batch.
    """

    steps: Array
    numbers: Array
    items: int
    shared: int
    scratch: int
    work: int


def program(
    whole: list[Array],
    rest: list[Array],
    *,
    size: int,
    slices: int,
    items: int,
    shared: int,
    workspace: int,
    per_sample: dict[int, int],
    origins: dict[int, int],
    work: int,
) -> Program:
    """A program of the steps of a whole slice and of the last one.

    ``size`` is that of a whole slice in samples; ``shared`` and ``workspace`` are bytes of scratch,
    of all and of each item; ``per_sample`` says for a base how many bytes a sample takes there,
    and ``origins`` where in the scratch the kept arrays begin.
    """
    strides = [per_sample.get(base, 0) for base in range(BASES)]
    starts = [origins.get(base, 0) for base in range(BASES)]
    numbers = np.array([len(whole), size, slices, items, shared, workspace, *strides, *starts])
    steps = np.concatenate([*whole, *rest])
    return Program(steps, numbers, items, shared, shared + items * workspace, work)


def places_for(made: Program) -> Array:
    """Room for the bases of all items and of steps apart; a run fills it, not two at once."""
    return arrays.allocate((BASES * (made.items + 1),), np.int64)


def run(
    made: Program,
    scratch: int,
    places: Array,
    x: int = 0,
    y: int = 0,
    dy: int = 0,
    dx: int = 0,
    targets: int = 0,
) -> None:
    """Run it on arrays and scratch given by their addresses."""
    parallel_for(
        _run_slices, made.items, made.work, made.steps, made.numbers, places, scratch,
        x, y, dy, dx, targets,
    )  # fmt: skip


def run_apart(steps: Array, scratch: int, work: int, x: int = 0, dy: int = 0) -> None:
    """Run steps that do not depend on each other, each once, shared out over the threads."""
    places = arrays.allocate((BASES,), np.int64)
    places[NUMBERS], places[SHARED], places[INPUT], places[DY] = 0, scratch, x, dy
    parallel_for(_run_steps, len(steps), work, steps, places, 0)


class Training(NamedTuple):
    """A training step on a batch, made ready.

    Attributes:
        steps: first those that do not depend on each other, then the program's, then others that do
            not depend on each other.
        numbers: of the first and of the program's how many, and the operations of all three; then
            where in the scratch, in float64 numbers, each slice has its loss and, after that, how
            many samples are right.
        program: forward, loss and backward for each slice.
        shares, work: of how many items or steps a part has most, and operations.
    """

    steps: Array
    numbers: Array
    program: Program
    shares: int
    work: int


def training(
    before: Array, program: Program, after: Array, totals: list[int], works: tuple[int, int]
) -> Training:
    """A training step of a program and of steps ``before`` and ``after`` it, with their works."""
    first, last = works
    numbers = len(before), len(program.steps), first, program.work, last, *totals
    shares, work = max(program.items, len(before), len(after)), max(*works, program.work)
    steps = np.concatenate([before, program.steps, after])
    return Training(steps, np.array(numbers), program, shares, work)


def train(
    made: Training,
    scratch: int,
    numbers: Array,
    places: Array,
    found: Array,
    checked: Array,
    moves: Array,
    x: int,
    dx: int,
    labels: int,
) -> None:
    """Run all of it, and then the ``moves`` of an optimizer: steps that do not depend on others.

    ``found`` gets the sum of the losses and how many samples are right. Nothing is moved, and the
    sum is NaN, if it is not finite, or a number of ``checked``: of the gradient, where that must be
    looked at. ``numbers`` is the scratch as float64.

    One call, for which the threads are called together once: apart, parts and optimizer took some
    15 µs more.
    """
    parallel_for(
        _train, made.shares, made.work, made.steps, made.numbers, made.program.numbers,
        moves, places, numbers, found, checked, scratch, x, dx, labels,
    )  # fmt: skip


@device
def _run_step(steps: Any, i: int, places: Any, first: int) -> None:
    form, function, start, stop = steps[i, 0], steps[i, 1], steps[i, 2], steps[i, 3]
    a = places[first + steps[i, _BASE]] + steps[i, _AT]
    b = places[first + steps[i, _BASE + 1]] + steps[i, _AT + 1]
    c = places[first + steps[i, _BASE + 2]] + steps[i, _AT + 2]
    d = places[first + steps[i, _BASE + 3]] + steps[i, _AT + 3]
    e = places[first + steps[i, _BASE + 4]] + steps[i, _AT + 4]
    f = places[first + steps[i, _BASE + 5]] + steps[i, _AT + 5]
    if form == 0:
        call(function, "aaaaba", start, stop, (a, b, c, d, e, f))
    elif form == 1:
        call(function, "aa", start, stop, (a, b))
    elif form == 2:
        call(function, "aaa", start, stop, (a, b, c))
    elif form == 3:
        call(function, "aaaa", start, stop, (a, b, c, d))
    elif form == 4:
        call(function, "aaaaa", start, stop, (a, b, c, d, e))
    elif form == 5:
        call(function, "aaiiia", start, stop, (a, b, c, d, e, f))
    elif form == 6:
        g = places[first + steps[i, _BASE + 6]] + steps[i, _AT + 6]
        call(function, "aaiiiii", start, stop, (a, b, c, d, e, f, g))
    elif form == 7:
        g = places[first + steps[i, _BASE + 6]] + steps[i, _AT + 6]
        call(function, "aaaaaba", start, stop, (a, b, c, d, e, f, g))


def _slices(
    start: int,
    stop: int,
    steps: Any,
    numbers: Any,
    places: Any,
    scratch: int,
    x: int,
    y: int,
    dy: int,
    dx: int,
    targets: int,
) -> None:
    whole, size, slices, items = numbers[0], numbers[1], numbers[2], numbers[3]
    shared, workspace = numbers[4], numbers[5]
    for item in range(start, stop):
        at = item * BASES
        for piece in range(slices * item // items, slices * (item + 1) // items):
            sample = piece * size
            places[at + NUMBERS] = 0
            places[at + SHARED] = scratch
            places[at + ITEM] = scratch + shared + item * workspace
            places[at + INPUT] = x + sample * numbers[6 + INPUT]
            places[at + OUTPUT] = y + sample * numbers[6 + OUTPUT]
            places[at + DY] = dy + sample * numbers[6 + DY]
            places[at + DX] = dx + sample * numbers[6 + DX]
            places[at + TARGETS] = targets + sample * numbers[6 + TARGETS]
            for base in range(KEPT, BASES):
                places[at + base] = scratch + numbers[6 + BASES + base] + sample * numbers[6 + base]
            last = piece == slices - 1
            for i in range(whole if last else 0, len(steps) if last else whole):
                _run_step(steps, i, places, at)


def _steps(start: int, stop: int, steps: Any, places: Any, first: int) -> None:
    for i in range(start, stop):
        _run_step(steps, i, places, first)


# By themselves, and as parts of the call that does all of a training step.
_run_slices, _run_steps = kernel(_slices), kernel(_steps)
_part_of_slices, _part_of_steps = device(_slices), device(_steps)


@device
def _share_steps(board: Any, pieces: int, steps: Any, places: Any, first: int) -> None:
    count = len(steps)
    if count:
        task, kept = job(_part_of_steps, (steps, places, first))
        share(board, min(pieces, count), 0, count, task, kept)


@compiled
def _train(
    board: Any,
    pieces: int,
    start: int,
    stop: int,
    steps: Any,
    numbers: Any,
    program: Any,
    moves: Any,
    places: Any,
    scratch_numbers: Any,
    found: Any,
    checked: Any,
    scratch: int,
    x: int,
    dx: int,
    labels: int,
) -> None:
    first, items = numbers[0], program[3]
    last = first + numbers[1]
    apart = items * BASES
    places[apart + NUMBERS], places[apart + SHARED] = 0, scratch
    places[apart + INPUT], places[apart + DY] = x, 0
    _share_steps(board, min(pieces, 1 + numbers[2] // SMALL), steps[:first], places, apart)
    given = steps[first:last], program, places, scratch, x, 0, 0, dx, labels
    task, kept = job(_part_of_slices, given)
    share(board, min(pieces, items, 1 + numbers[3] // SMALL), 0, items, task, kept)
    found[0], found[1] = 0, 0
    for place in numbers[5:]:
        found[0] += scratch_numbers[place]
        found[1] += scratch_numbers[place + 1]
    if np.isfinite(found[0]):
        _share_steps(board, min(pieces, 1 + numbers[4] // SMALL), steps[last:], places, apart)
        if sum_of_zeros(checked) == 0:
            _share_steps(board, pieces, moves, places, apart)
            return
    found[0] = np.nan
