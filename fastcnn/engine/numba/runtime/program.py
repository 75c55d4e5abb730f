"""Programs: whole nets as lists of kernel calls that compiled code runs without coming back.

A **step** is a call of one kernel by its address. Its operands are places: a base (the slice's
scratch, its part of the input …) and an offset in bytes, or a number. A **program** is a list of
steps that is run for each slice of a batch, with the bases moved to that slice; slices go to
threads. The code that is compiled here knows no layer, no dtype and no shape, and serves every net;
the kernels are those that serve single operations.

Between the layers of a small net nothing then costs more than the calls, some 20 ns each, and a
slice's activations stay in the second-level cache.
"""

from __future__ import annotations

from ctypes import c_void_p
from typing import Any, NamedTuple

import numpy as np
from numba.core import config

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.calls import (
    OPERANDS,
    STEP_WORDS,
    address_in,
    call_step,
    share_step,
    step_address,
)
from fastcnn.engine.numba.runtime.finite import sum_of_zeros
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.jit import compiled, kernel
from fastcnn.engine.numba.runtime.threads import SMALL, parallel_for

# The bases of places: NUMBERS for what is no place or stays where it is, SHARED for scratch that
# all slices read, ITEM for that of one slice, the others for arrays of the whole batch; of these
# the ones from KEPT on lie in the scratch.
NUMBERS, SHARED, ITEM, INPUT, OUTPUT, DY, DX, TARGETS, WEIGHTS, KEPT = range(10)
BASES = 17
NO_STEPS = np.zeros(0, np.int64)


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


def step(function: Any, samples: tuple[Any, ...], stop: int, *operands: Place) -> Array:
    """A call of ``function`` over ``range(stop)``, as the words of a step, one after the other.

    ``samples`` are arguments of its types.
    """
    if len(operands) != len(samples):
        raise TypeError(f"a step needs {len(samples)} operands, got {len(operands)}")
    rest = (Place(0, 0),) * (OPERANDS - len(operands))
    bases, offsets = zip(*operands, *rest, strict=True)
    return np.array([step_address(function, *samples), 0, stop, *bases, *offsets])


def parts(one: Array, count: int) -> list[Array]:
    """A step cut into at most ``count`` steps that together do the same."""
    stop = int(one[2])
    count = min(count, stop)
    result = []
    for i in range(count):
        part = one.copy()
        part[1:3] = stop * i // count, stop * (i + 1) // count
        result.append(part)
    return result


# The numbers of a program: how many steps a whole slice has, and all; samples of a slice, slices,
# items; bytes of scratch of all and of an item; then for each base how many bytes a sample takes
# there, and where in the scratch it begins.
_WHOLE, _ALL, _SIZE, _SLICES, _ITEMS, _SHARED, _WORKSPACE, _STRIDES = range(8)
_STARTS = _STRIDES + BASES


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
    steps = np.concatenate([*whole, *rest])
    counts = len(whole), len(whole) + len(rest)
    numbers = np.array([*counts, size, slices, items, shared, workspace, *strides, *starts])
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
        x, y, dy, dx, targets, 0,
    )  # fmt: skip


def run_apart(steps: Array, scratch: int, work: int, x: int = 0, dy: int = 0) -> None:
    """Run steps that do not depend on each other, each once, shared out over the threads."""
    places = arrays.allocate((BASES,), np.int64)
    places[NUMBERS], places[SHARED], places[INPUT], places[DY] = 0, scratch, x, dy
    parallel_for(_run_steps, steps.size // STEP_WORDS, work, steps, places, 0)


# The numbers of a training step: the addresses of the steps that run slices and steps; how many
# steps there are before the program and after it; the operations of all three; then where in the
# scratch, in float64 numbers, each slice has its loss and, after that, how many samples are right.
_RUN_SLICES, _RUN_STEPS, _BEFORE, _AFTER, _WORK_BEFORE, _WORK, _WORK_AFTER, _TOTALS = range(8)


class Training(NamedTuple):
    """A training step on a batch, made ready.

    Attributes:
        steps: first those that do not depend on each other, then the program's, then others that do
            not depend on each other.
        numbers: as compiled code takes them; see :func:`training`.
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
    table = np.zeros(1, np.int64)
    run_slices = step_address(_run_slices, table, table, table, *[0] * 7)
    run_steps = step_address(_run_steps, table, table, 0)
    counts = before.size // STEP_WORDS, after.size // STEP_WORDS
    numbers = run_slices, run_steps, *counts, first, program.work, last, *totals
    shares, work = max(program.items, *counts), max(*works, program.work)
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
    weights: int,
) -> None:
    """Run all of it, and then the ``moves`` of an optimizer: steps that do not depend on others.

    ``found`` gets the sum of the weighted losses and how many samples are right. Nothing is moved,
    and the sum is NaN, if it is not finite, or a number of ``checked``: of the gradient, where that
    must be looked at. ``numbers`` is the scratch as float64.

    One call, for which the threads are called together once: apart, parts and optimizer took some
    15 µs more.
    """
    parallel_for(
        _train, made.shares, made.work, made.steps, made.numbers, made.program.numbers,
        moves, places, numbers, found, checked, scratch, x, dx, labels, weights,
    )  # fmt: skip


@kernel
def _run_slices(
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
    weights: int,
) -> None:
    size, slices, items = numbers[_SIZE], numbers[_SLICES], numbers[_ITEMS]
    for item in range(start, stop):
        at = item * BASES
        for piece in range(slices * item // items, slices * (item + 1) // items):
            sample = piece * size
            places[at + NUMBERS] = 0
            places[at + SHARED] = scratch
            places[at + ITEM] = scratch + numbers[_SHARED] + item * numbers[_WORKSPACE]
            places[at + INPUT] = x + sample * numbers[_STRIDES + INPUT]
            places[at + OUTPUT] = y + sample * numbers[_STRIDES + OUTPUT]
            places[at + DY] = dy + sample * numbers[_STRIDES + DY]
            places[at + DX] = dx + sample * numbers[_STRIDES + DX]
            places[at + TARGETS] = targets + sample * numbers[_STRIDES + TARGETS]
            places[at + WEIGHTS] = weights + sample * numbers[_STRIDES + WEIGHTS]
            for base in range(KEPT, BASES):
                begin = scratch + numbers[_STARTS + base]
                places[at + base] = begin + sample * numbers[_STRIDES + base]
            i, end = 0, numbers[_WHOLE]
            if piece == slices - 1:
                i, end = end, numbers[_ALL]
            while i < end:
                call_step(steps, i, places, at)
                i += 1


@kernel
def _run_steps(start: int, stop: int, steps: Any, places: Any, first: int) -> None:
    for i in range(start, stop):
        call_step(steps, i, places, first)


@device
def _share_steps(
    board: Any, pieces: int, run: int, steps: Any, begin: int, count: int, places: Any, first: int
) -> None:
    """Have ``count`` steps done that do not depend on each other, from ``begin`` on."""
    if count:
        most = pieces if pieces < count else count
        at = address_in(steps, begin * STEP_WORDS), address_in(places, 0), first
        share_step(board, most, 0, count, run, at)


@device
def _worth(work: int, pieces: int) -> int:
    """How many pieces so many operations are worth, at most ``pieces``."""
    worth = 1 + work // SMALL
    return worth if worth < pieces else pieces


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
    weights: int,
) -> None:
    run_steps, before, items = numbers[_RUN_STEPS], numbers[_BEFORE], program[_ITEMS]
    apart = items * BASES
    places[apart + NUMBERS], places[apart + SHARED] = 0, scratch
    places[apart + INPUT], places[apart + DY] = x, 0
    most = _worth(numbers[_WORK_BEFORE], pieces)
    _share_steps(board, most, run_steps, steps, 0, before, places, apart)
    most = _worth(numbers[_WORK], pieces)
    at = address_in(steps, before * STEP_WORDS), address_in(program, 0), address_in(places, 0)
    operands = (at[0], at[1], at[2], scratch, x, 0, 0, dx, labels, weights)
    most = most if most < items else items
    share_step(board, most, 0, items, numbers[_RUN_SLICES], operands)
    found[0], found[1] = 0, 0
    for i in range(_TOTALS, numbers.size):
        found[0] += scratch_numbers[numbers[i]]
        found[1] += scratch_numbers[numbers[i] + 1]
    if np.isfinite(found[0]):
        most, begin = _worth(numbers[_WORK_AFTER], pieces), before + program[_ALL]
        _share_steps(board, most, run_steps, steps, begin, numbers[_AFTER], places, apart)
        if sum_of_zeros(checked) == 0:
            count = moves.size // STEP_WORDS
            _share_steps(board, pieces, run_steps, moves, 0, count, places, apart)
            return
    found[0] = np.nan
