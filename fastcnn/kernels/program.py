"""Programs: whole nets as lists of kernel calls that compiled code runs without coming back.

A **step** is a call of one kernel by its address. Its operands are places: a base (the slice's
workspace, the parameters, the input …) and an offset in bytes. A **program** is a list of steps
that is run for each slice of a batch, with the bases moved to that slice; slices go to threads.
What is compiled here knows no layer, no dtype and no shape, and serves every net; the kernels are
those that serve single operations.

Between the layers of a small net nothing then costs more than the calls, some 20 ns each, and a
slice's activations stay in the second-level cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastcnn.arguments import Array
from fastcnn.kernels.calls import address_of, call
from fastcnn.kernels.jit import device, kernel
from fastcnn.kernels.threads import parallel_for

# What a step's operands are, by its form: see ``calls.call``.
CONTRACTION, TWO, THREE, FOUR, FIVE, LAY_OUT, TURN = range(7)
_FORMS = ("aaaaba", "aa", "aaa", "aaaa", "aaaaa", "aaiiia", "aaiiiii")

# The bases of places. NUMBERS is for what is no place.
NUMBERS, WORKSPACE, PARAMETERS, TURNED, GRADIENT, INPUT, OUTPUT, DY, DX, TARGETS, TOTALS = range(11)
_MOST = 7  # operands of a step
_STEP = np.dtype(
    [("form", "i8"), ("function", "i8"), ("start", "i8"), ("stop", "i8")]
    + [(f"base_{i}", "i8") for i in range(_MOST)]
    + [(f"at_{i}", "i8") for i in range(_MOST)]
)


class Place(NamedTuple):
    """Where an operand lies: bytes from a base, or the number itself."""

    base: int
    at: int


def number(value: int) -> Place:
    """An operand that is a number."""
    return Place(NUMBERS, int(value))


def constant(array: Array) -> Place:
    """An operand that is an array which lives longer than the program."""
    return number(array.ctypes.data)


def step(form: int, function: Any, samples: tuple[Any, ...], stop: int, *operands: Place) -> Array:
    """A call of ``function`` over ``range(stop)``; ``samples`` are arguments of its types."""
    assert len(operands) == len(_FORMS[form]) == len(samples)
    rest = (Place(0, 0),) * (_MOST - len(operands))
    bases, places = zip(*operands, *rest, strict=True)
    return np.array([(form, address_of(function, *samples), 0, stop, *bases, *places)], _STEP)


def parts(one: Array, count: int) -> list[Array]:
    """A step cut into at most ``count`` steps that together do the same."""
    stop = int(one["stop"][0])
    found = []
    for i in range(count):
        part = one.copy()
        part["start"], part["stop"] = stop * i // count, stop * (i + 1) // count
        if part["start"][0] < part["stop"][0]:
            found.append(part)
    return found


class Program(NamedTuple):
    """Steps for a batch, made ready.

    Attributes:
        steps: those of a whole slice, then those of the last slice.
        whole: how many of them are a whole slice's.
        size: samples of a whole slice.
        slices: how many there are.
        items: how many groups of slices can run at once; each has its own workspace.
        workspace: bytes of it.
        strides: for each base, bytes from one item to the next and from one sample to the next.
        work: operations of the batch.
    """

    steps: Array
    whole: int
    size: int
    slices: int
    items: int
    workspace: int
    strides: Array
    work: int


def run(program: Program, bases: tuple[Array, ...]) -> None:
    """Run it; ``bases`` are the arrays that its places refer to, in the bases' order from 1 on."""
    places = np.array([0, *[_address(one) for one in bases]])
    scratch = np.empty(8 * (-(-len(places) // 8) + 1) * program.items, np.int64)
    parallel_for(
        _run_slices, program.items, program.work, program.steps, program.whole, program.size,
        program.slices, program.items, places, program.strides, scratch,
    )  # fmt: skip


def run_apart(steps: Array, bases: tuple[Array, ...], work: int) -> None:
    """Run steps that do not depend on each other, each once, shared out over the threads."""
    places = np.array([0, *[_address(one) for one in bases]])
    parallel_for(_run_steps, len(steps), work, steps, places)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


@device
def _run_step(one: Any, bases: Any, first: int) -> None:
    a, b = bases[first + one.base_0] + one.at_0, bases[first + one.base_1] + one.at_1
    c, d = bases[first + one.base_2] + one.at_2, bases[first + one.base_3] + one.at_3
    e, f = bases[first + one.base_4] + one.at_4, bases[first + one.base_5] + one.at_5
    form, function, start, stop = one.form, one.function, one.start, one.stop
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
        g = bases[first + one.base_6] + one.at_6
        call(function, "aaiiiii", start, stop, (a, b, c, d, e, f, g))


@kernel
def _run_slices(
    start: int,
    stop: int,
    steps: Any,
    whole: int,
    size: int,
    slices: int,
    items: int,
    places: Any,
    strides: Any,
    scratch: Any,
) -> None:
    count = places.size
    for item in range(start, stop):
        first = item * (scratch.size // items)
        for number in range(slices * item // items, slices * (item + 1) // items):
            for i in range(count):
                moved = item * strides[i, 0] + number * size * strides[i, 1]
                scratch[first + i] = places[i] + moved
            last = number == slices - 1
            for i in range(whole if last else 0, steps.size if last else whole):
                _run_step(steps[i], scratch, first)


@kernel
def _run_steps(start: int, stop: int, steps: Any, places: Any) -> None:
    for i in range(start, stop):
        _run_step(steps[i], places, 0)
