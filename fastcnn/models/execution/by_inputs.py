"""The gradients of a dense layer with many weights, by slices of its inputs.

A slice turns its rows of the weights and multiplies the output's gradient with them while they are
in the second-level cache; its rows of the weights' gradient follow, from a copy of its inputs that
lies together: in a batch the same input of all samples falls into one set of the cache where the
inputs are a multiple of 1024. So what is large is passed over once.
"""

from __future__ import annotations

from math import lcm
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import CACHE_LINE, L2_BYTES
from fastcnn.engine.numba.contraction import packing
from fastcnn.engine.numba.contraction.chooser import tile_for
from fastcnn.engine.numba.contraction.column_sums import column_sums
from fastcnn.engine.numba.contraction.contraction import Plan
from fastcnn.engine.numba.contraction.packing import Layout
from fastcnn.engine.numba.dense.chooser import dense_input_plan, dense_weight_plan
from fastcnn.engine.numba.runtime import arrays, program
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice
from fastcnn.engine.numba.runtime.program import (
    Place,
    Program,
    address,
    constant,
    number,
    places_for,
    run,
)
from fastcnn.engine.numba.runtime.rehearsal import unless_rehearsed

# Bytes of a slice's weights, and slices that can run at once, at most.
_WEIGHTS, _ITEMS = L2_BYTES // 8, 16


def dense_gradients(
    dy: Array, x: Array, w: Array, dx: Array | None, dw: Array | None, db: Array | None
) -> None:
    """``dx = dy @ w.T``, ``dw = x.T @ dy`` and ``db`` of at least one sample, C-contiguous.

    To the bit what the operation gives. What is None is not computed, but not both ``dx`` and
    ``dw`` may be.
    """
    made, _ = _by_inputs(len(x), *w.shape, x.dtype, dx is not None, dw is not None)
    memory = arrays.allocate((made.scratch,), np.uint8)
    at = [0 if one is None else address(one) for one in (x, dw, dy, dx, w)]
    run(made, address(memory), places_for(made), *at)
    if db is not None:
        column_sums(dy, db)


class _ByInputs(NamedTuple):
    """The program, and arrays that steps name by their addresses.

    It finds x at INPUT, dw at OUTPUT and the weights at TARGETS.
    """

    program: Program
    kept: list[Array]


@unless_rehearsed
@cached_choice
def _by_inputs(
    n: int, inputs: int, outputs: int, dtype: np.dtype[Any], needs_dx: bool, needs_dw: bool
) -> _ByInputs:
    itemsize, f = dtype.itemsize, np.zeros(1, dtype)
    # Tiles of both products, without a rest.
    to_input, to_weights = tile_for(n, inputs, itemsize), tile_for(inputs, outputs, itemsize)
    some = lcm(to_input.columns, to_weights.rows)
    size = min(inputs, some * max(1, _WEIGHTS // (some * outputs * itemsize)))
    slices = -(-inputs // size)
    x_size = -(-n * size * itemsize // CACHE_LINE) * CACHE_LINE
    width = to_input.columns
    blocks = -(-size // width)
    x, dw, dx, w, copied, turned = (
        Place(base, at)
        for base, at in (
            (program.INPUT, 0), (program.OUTPUT, 0), (program.DX, 0), (program.TARGETS, 0),
            (program.ITEM, 0), (program.ITEM, x_size),
        )
    )  # fmt: skip
    dy = Place(program.DY, 0)  # all of it, for each slice
    zeros = arrays.allocate((max(size, outputs),), dtype)
    zeros[...] = 0
    kept = [zeros]

    def numbers_at(numbers: Array) -> Place:
        kept.append(numbers)
        return constant(numbers)

    def contraction(plan: Plan, x: Place, w: Place, y: Place) -> Array:
        return program.step(
            plan.function, (f, f, f, f, True, plan.numbers), plan.items,
            x, w, constant(zeros), y, number(0), numbers_at(plan.numbers),
        )  # fmt: skip

    def steps(count: int) -> list[Array]:
        found, rows = [], w
        if needs_dx:
            plan, turns = dense_input_plan(n, count, outputs, itemsize, of=inputs)
            if turns:
                rows = turned
                turn = program.step(
                    packing.turn_kernel(width, outputs, itemsize),
                    (f, f, 0, 0, 0, 0, 0), -(-count // width),
                    w, turned, *map(number, (1, count, outputs, outputs, width)),
                )  # fmt: skip
                found.append(turn)
            found.append(contraction(plan, dy, rows, dx))
        if not needs_dw:
            return found
        # Inputs that lie together, as images of one row of pixels for each sample.
        together = record(Layout(n, count, 1, 0, 0, 1, 1, copied=True))
        copy = program.step(
            packing.lay_out_rows, (f, f, 0, 0, 0, together), n,
            x, copied, number(n), number(inputs), number(1), numbers_at(together),
        )  # fmt: skip
        plan = dense_weight_plan(n, count, outputs, itemsize)
        return [*found, copy, contraction(plan, copied, dy, dw)]

    made = program.program(
        steps(size),
        steps(inputs - (slices - 1) * size),
        size=size,
        slices=slices,
        items=min(slices, _ITEMS),
        shared=0,
        workspace=x_size + -(-blocks * outputs * width * itemsize // CACHE_LINE) * CACHE_LINE,
        per_sample={
            program.INPUT: itemsize,
            program.OUTPUT: outputs * itemsize,
            program.DX: itemsize,
            program.TARGETS: outputs * itemsize,
        },
        origins={},
        work=n * inputs * outputs,
    )
    return _ByInputs(made, kept)
