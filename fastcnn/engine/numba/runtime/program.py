"""Programs: whole nets as lists of kernel calls, which compiled code runs without Python.

A **step** is a call of one kernel by its address. Its operands are numbers, or addresses: a base
(the workspace, the batch's input …) and an offset in bytes. A **program** is a list of steps that
runs for each slice of a batch; the bases of a slice follow from its position in the batch. Threads
share the slices. An **item** of a program is a group of slices that follow on each other. One
thread runs it, with a workspace of its own.

The kernels are those of single operations. The code in this module knows neither layers nor dtypes
nor shapes, so it is compiled once and serves every net. :mod:`fastcnn.models.execution` writes the
programs and runs them. Between the layers of a small net there are only calls of kernels, and a
slice's activations stay in the second-level cache.

Functions here have up to 17 parameters, because each run has other addresses, and to fill a record
with them would take time in each run.
"""

from __future__ import annotations

from ctypes import c_void_p
from typing import NamedTuple

import numpy as np
from numba.core import config

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.calls import (
    OPERANDS,
    STEP_WORDS,
    address_in,
    call_step,
    offer_entry,
    step_address,
)
from fastcnn.engine.numba.runtime.finite import sum_of_zeros
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.jit import compiled, kernel
from fastcnn.engine.numba.runtime.threads import SMALL, parallel_for
from fastcnn.engine.numba.runtime.types import Address, Kernel, Words

NUMBERS, SHARED, ITEM, INPUT, OUTPUT, DY, DX, TARGETS, WEIGHTS, FIRST_BATCH_ARRAY = range(10)
"""The bases of operands.

NUMBERS is 0: the offset is a number, or the address of an array that never moves. SHARED is the
scratch that all slices read, ITEM the workspace of an item. The others are arrays of the whole
batch, and the base is where the slice begins in them. From FIRST_BATCH_ARRAY on, the arrays lie in
the scratch.
"""
BASES = 17
NO_STEPS = np.zeros(0, np.int64)


class Operand(NamedTuple):
    """An argument of a step: an offset in bytes from a base, or a number."""

    base: int
    at: int


def compiles() -> bool:
    """Whether there is compiled code that can be called by its address."""
    return not config.DISABLE_JIT


def number(value: int) -> Operand:
    """An operand that is a number."""
    return Operand(NUMBERS, int(value))


def fixed_address(array: Array) -> Operand:
    """An operand that is an array at this address; it must live longer than the program."""
    return number(address(array))


def address(array: Array) -> Address:
    """Where an array's first element lies."""
    # By NumPy's binary interface the address is the first field after the object's head. No other
    # way is as fast (docs/measurements.md, "Addresses are read from the array's head").
    return c_void_p.from_address(id(array) + object.__basicsize__).value or 0


def step(kernel: Kernel, examples: tuple[object, ...], stop: int, *operands: Operand) -> Words:
    """A call of a kernel over ``range(stop)``, as the :data:`STEP_WORDS` words of a step.

    ``examples`` are arguments of the kernel's types; their values do not matter.
    """
    if len(operands) != len(examples):
        raise TypeError(f"a step needs {len(examples)} operands, got {len(operands)}")
    padding = (number(0),) * (OPERANDS - len(operands))
    bases, offsets = zip(*operands, *padding, strict=True)
    return np.array([step_address(kernel, *examples), 0, stop, *bases, *offsets])


def split_step(whole: Words, count: int) -> list[Words]:
    """A step cut by its range into at most ``count`` steps that together do the same."""
    stop = int(whole[2])
    count = min(count, stop)
    result = []
    for i in range(count):
        one = whole.copy()
        one[1:3] = stop * i // count, stop * (i + 1) // count
        result.append(one)
    return result


# Words of ``Program.numbers``: the steps of a whole slice, and all steps; samples of a slice;
# slices; whole slices; samples of each other slice; items; bytes of shared scratch and of a
# workspace; then for each base the bytes of a sample, and for each base where it begins in the
# scratch.
_WHOLE, _ALL, _SIZE, _SLICES, _WHOLE_SLICES, _REST = range(6)
_ITEMS, _SHARED, _WORKSPACE, _STRIDES = range(6, 10)
_STARTS = _STRIDES + BASES


class Program(NamedTuple):
    """Steps for a batch.

    Attributes:
        steps: the steps of a whole slice, then those of each slice at the end.
        numbers: the sizes that compiled code needs, in the order of ``_WHOLE`` to ``_STARTS``.
        items: how many groups of slices can run at once.
        shared_bytes: bytes of scratch that all items share.
        scratch_bytes: bytes of scratch in all.
        work: operations of the batch.
    """

    steps: Words
    numbers: Words
    items: int
    shared_bytes: int
    scratch_bytes: int
    work: int


def make_program(
    whole: list[Words],
    rest: list[Words],
    *,
    size: int,
    slices: int,
    items: int,
    shared: int,
    workspace: int,
    per_sample: dict[int, int],
    origins: dict[int, int],
    work: int,
    rests: int = 1,
    rest_size: int = 0,
) -> Program:
    """A program from the steps of a whole slice and those of the slices at the end.

    Args:
        whole: the steps of a whole slice.
        rest: the steps of each slice at the end, which may have fewer samples.
        size: samples of a whole slice.
        slices: how many slices the batch has.
        items: how many groups of slices can run at once.
        shared: bytes of scratch that all items share.
        workspace: bytes of scratch of each item.
        per_sample: bytes that a sample takes, by the base.
        origins: where an array begins in the scratch, by the base, from FIRST_BATCH_ARRAY on.
        work: operations of the batch.
        rests: how many slices at the end run ``rest``.
        rest_size: samples of each of them, if there are several.
    """
    strides = [per_sample.get(base, 0) for base in range(BASES)]
    starts = [origins.get(base, 0) for base in range(BASES)]
    steps = np.concatenate([*whole, *rest])
    counts = len(whole), len(whole) + len(rest)
    sizes = size, slices, slices - rests, rest_size, items, shared, workspace
    numbers = np.array([*counts, *sizes, *strides, *starts])
    return Program(steps, numbers, items, shared, shared + items * workspace, work)


def new_bases(program: Program) -> Words:
    """Memory for the bases of all items, and of steps apart; one run at a time uses it."""
    return arrays.allocate((BASES * (program.items + 1),), np.int64)


def run(
    program: Program,
    scratch: Address,
    bases: Words,
    x: Address = 0,
    y: Address = 0,
    dy: Address = 0,
    dx: Address = 0,
    targets: Address = 0,
) -> None:
    """Run a program on arrays and scratch at these addresses."""
    parallel_for(
        _run_slices, program.items, program.work, program.steps, program.numbers, bases, scratch,
        x, y, dy, dx, targets, 0,
    )  # fmt: skip


def run_apart(steps: Words, scratch: Address, work: int, x: Address = 0, dy: Address = 0) -> None:
    """Run steps that do not depend on each other once for the whole batch, on the threads."""
    bases = arrays.allocate((BASES,), np.int64)
    bases[NUMBERS], bases[SHARED], bases[INPUT], bases[DY] = 0, scratch, x, dy
    parallel_for(_run_steps, steps.size // STEP_WORDS, work, steps, bases, 0)


# Words of ``Training.numbers``: the addresses that run slices and steps; how many steps there are
# before the program and after it; the operations before it, in it and after it; then for each slice
# the index of its loss in the scratch as float64 numbers. The number of right samples follows on
# the loss.
_RUN_SLICES, _RUN_STEPS, _BEFORE, _AFTER, _WORK_BEFORE, _WORK, _WORK_AFTER, _TOTALS = range(8)


def indices_of_totals(training: Training) -> Words:
    """For each slice the index of its loss in the scratch as float64 numbers."""
    return training.numbers[_TOTALS:]


class Training(NamedTuple):
    """A training step on a batch: a program between steps that run once for the batch.

    Attributes:
        steps: the steps before the program, those of the program, and those after it. The steps
            before it do not depend on each other, nor do the steps after it.
        numbers: the sizes that compiled code needs, in the order of ``_RUN_SLICES`` to ``_TOTALS``.
        program: forward, loss and backward for each slice.
        items: the largest number of items or steps that can run at once.
        work: the largest number of operations of the three stages.
    """

    steps: Words
    numbers: Words
    program: Program
    items: int
    work: int


def make_training(
    before: Words, program: Program, after: Words, totals: list[int], works: tuple[int, int]
) -> Training:
    """A training step from a program and the steps before and after it.

    ``totals`` are the indices of the slices' losses in the scratch, as float64 numbers. ``works``
    are the operations before and after the program.
    """
    first, last = works
    table = np.zeros(1, np.int64)
    run_slices = step_address(_run_slices, table, table, table, *[0] * 7)
    run_steps = step_address(_run_steps, table, table, 0)
    counts = before.size // STEP_WORDS, after.size // STEP_WORDS
    numbers = run_slices, run_steps, *counts, first, program.work, last, *totals
    items, work = max(program.items, *counts), max(*works, program.work)
    steps = np.concatenate([before, program.steps, after])
    return Training(steps, np.array(numbers), program, items, work)


def train(
    training: Training,
    scratch: Address,
    numbers: Array,
    bases: Words,
    totals: Array,
    gradient: Array,
    moves: Words,
    x: Address,
    dx: Address,
    labels: Address,
    weights: Address,
) -> None:
    """Run a training step, and then the steps of an optimizer.

    The step is one compiled call, for which the threads are called together once (see "A training
    step is one compiled call" in docs/measurements.md).

    Args:
        training: the training step.
        scratch: where its scratch lies.
        numbers: the scratch as float64 numbers.
        bases: memory of :func:`new_bases`.
        totals: gets the sum of the weighted losses, and how many samples are right. The sum is NaN,
            and no parameter moves, if it is not finite or a number of ``gradient`` is not.
        gradient: the part of the gradient that must be finite; empty if nothing checks it.
        moves: the optimizer's steps, which do not depend on each other.
        x: the address of the samples.
        dx: the address for the gradient of the samples, or 0.
        labels: the address of class numbers or probabilities.
        weights: the address of a weight for each sample.
    """
    parallel_for(
        _train, training.items, training.work, training.steps, training.numbers,
        training.program.numbers, moves, bases, numbers, totals, gradient, scratch, x, dx, labels,
        weights,
    )  # fmt: skip


@kernel
def _run_slices(
    start: int,
    stop: int,
    steps: Words,
    numbers: Words,
    bases: Words,
    scratch: Address,
    x: Address,
    y: Address,
    dy: Address,
    dx: Address,
    targets: Address,
    weights: Address,
) -> None:
    """Run a program for some items.

    ``steps`` is (steps, STEP_WORDS), flat. Writes BASES words of ``bases`` for each item.
    """
    size, slices, items = numbers[_SIZE], numbers[_SLICES], numbers[_ITEMS]
    whole_slices = numbers[_WHOLE_SLICES]
    for item in range(start, stop):
        first_base = item * BASES
        for n in range(slices * item // items, slices * (item + 1) // items):
            sample = n * size
            if n > whole_slices:
                sample -= (n - whole_slices) * (size - numbers[_REST])
            bases[first_base + NUMBERS] = 0
            bases[first_base + SHARED] = scratch
            bases[first_base + ITEM] = scratch + numbers[_SHARED] + item * numbers[_WORKSPACE]
            # SHARED and ITEM do not move with the samples; the other bases do.
            bases[first_base + INPUT] = x + sample * numbers[_STRIDES + INPUT]
            bases[first_base + OUTPUT] = y + sample * numbers[_STRIDES + OUTPUT]
            bases[first_base + DY] = dy + sample * numbers[_STRIDES + DY]
            bases[first_base + DX] = dx + sample * numbers[_STRIDES + DX]
            bases[first_base + TARGETS] = targets + sample * numbers[_STRIDES + TARGETS]
            bases[first_base + WEIGHTS] = weights + sample * numbers[_STRIDES + WEIGHTS]
            for base in range(FIRST_BATCH_ARRAY, BASES):
                begin = scratch + numbers[_STARTS + base]
                bases[first_base + base] = begin + sample * numbers[_STRIDES + base]
            i, end = 0, numbers[_WHOLE]
            if n >= whole_slices:
                i, end = end, numbers[_ALL]
            while i < end:
                call_step(steps, i, bases, first_base)
                i += 1


@kernel
def _run_steps(start: int, stop: int, steps: Words, bases: Words, first: int) -> None:
    """Run some of the steps with the bases from ``bases[first]`` on."""
    for i in range(start, stop):
        call_step(steps, i, bases, first)


@device
def _offer_steps(
    board: Words,
    tasks: int,
    run: Address,
    steps: Words,
    begin: int,
    count: int,
    bases: Words,
    first: int,
) -> None:
    """Run ``count`` steps from number ``begin`` on, which do not depend on each other, as tasks."""
    if count:
        most = tasks if tasks < count else count
        operands = address_in(steps, begin * STEP_WORDS), address_in(bases, 0), first
        offer_entry(board, most, 0, count, run, operands)


@device
def _tasks_for(work: int, most: int) -> int:
    """How many tasks so many operations are worth, at most ``most``."""
    worth = 1 + work // SMALL
    return worth if worth < most else most


@compiled
def _train(
    board: Words,
    tasks: int,
    start: int,
    stop: int,
    steps: Words,
    numbers: Words,
    program: Words,
    moves: Words,
    bases: Words,
    scratch_numbers: Array,
    totals: Array,
    gradient: Array,
    scratch: Address,
    x: Address,
    dx: Address,
    labels: Address,
    weights: Address,
) -> None:
    """The compiled code of :func:`train`; ``program`` are the numbers of the program.

    ``parallel_for`` calls it as it calls a kernel, but it runs on the caller's thread alone, shares
    out its steps itself, and ignores the range.
    """
    run_steps, before, items = numbers[_RUN_STEPS], numbers[_BEFORE], program[_ITEMS]
    apart = items * BASES
    bases[apart + NUMBERS], bases[apart + SHARED] = 0, scratch
    bases[apart + INPUT], bases[apart + DY] = x, 0
    most = _tasks_for(numbers[_WORK_BEFORE], tasks)
    _offer_steps(board, most, run_steps, steps, 0, before, bases, apart)
    most = _tasks_for(numbers[_WORK], tasks)
    tables = address_in(steps, before * STEP_WORDS), address_in(program, 0), address_in(bases, 0)
    operands = (tables[0], tables[1], tables[2], scratch, x, 0, 0, dx, labels, weights)
    most = most if most < items else items
    offer_entry(board, most, 0, items, numbers[_RUN_SLICES], operands)
    totals[0], totals[1] = 0, 0
    for i in range(_TOTALS, numbers.size):
        totals[0] += scratch_numbers[numbers[i]]
        totals[1] += scratch_numbers[numbers[i] + 1]
    if np.isfinite(totals[0]):
        most, begin = _tasks_for(numbers[_WORK_AFTER], tasks), before + program[_ALL]
        _offer_steps(board, most, run_steps, steps, begin, numbers[_AFTER], bases, apart)
        if sum_of_zeros(gradient) == 0:
            count = moves.size // STEP_WORDS
            _offer_steps(board, tasks, run_steps, moves, 0, count, bases, apart)
            return
    totals[0] = np.nan
