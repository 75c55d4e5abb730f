"""The gradients of a dense layer with many weights, by slices of its inputs.

A slice multiplies its rows of the weights, as they lie, with the turned gradient of the output,
and turns the little that comes of it, while all that is in the second-level cache; its rows of the
weights' gradient follow. So what is large is passed over once, and never turned: to turn the
weights of 9216 × 128 took a sixth of the layer's way back.
"""

from __future__ import annotations

from functools import lru_cache
from math import lcm
from typing import Any, NamedTuple

import numpy as np

from fastcnn.arguments import Array
from fastcnn.executor.slices import LINE
from fastcnn.kernels import arrays, packing, program
from fastcnn.kernels.arrays import record
from fastcnn.kernels.contraction import Plan, tile_for
from fastcnn.kernels.dense import dense_input_plan, dense_weight_plan
from fastcnn.kernels.program import (
    Place,
    Program,
    address,
    constant,
    number,
    places_for,
    run,
    run_apart,
)
from fastcnn.kernels.steps import Sides, turn_for

# Bytes of a slice's weights, and slices that can run at once, at most.
_WEIGHTS, _ITEMS = 128 * 1024, 16


def dense_gradients(
    dy: Array, x: Array, w: Array, dx: Array | None, dw: Array, db: Array | None
) -> None:
    """``dx = dy @ w.T``, ``dw = x.T @ dy`` and ``db`` of at least one sample, C-contiguous.

    To the bit what the operation gives.
    """
    turn, made, _ = _by_inputs(len(x), *w.shape, x.dtype, dx is not None)
    memory = arrays.allocate((made.scratch,), np.uint8)
    scratch = address(memory)
    if turn is not None:
        run_apart(turn, scratch, dy.size, 0, address(dy))
    at = [0 if one is None else address(one) for one in (x, dw, dy, dx, w)]
    run(made, scratch, places_for(made), *at)
    if db is not None:
        packing.sum_rows(dy.reshape(1, *dy.shape), db.reshape(1, -1))


class _ByInputs(NamedTuple):
    """A step that turns dy, the program, and arrays that steps name by their addresses.

    The program finds x at INPUT, dw at OUTPUT and the weights at TARGETS.
    """

    turn: Array | None
    program: Program
    kept: list[Array]


@lru_cache(maxsize=256)
def _by_inputs(
    n: int, inputs: int, outputs: int, dtype: np.dtype[Any], needs_dx: bool
) -> _ByInputs:
    itemsize, f = dtype.itemsize, np.zeros(1, dtype)
    x, dw, dy, dx, w, turned, product = (
        Place(base, 0)
        for base in (
            program.INPUT, program.OUTPUT, program.DY, program.DX, program.TARGETS, program.SHARED,
            program.ITEM,
        )
    )  # fmt: skip
    # Tiles of both products, without a rest.
    rows = lcm(tile_for(inputs, n, itemsize).rows, tile_for(inputs, outputs, itemsize).rows)
    size = min(inputs, rows * max(1, _WEIGHTS // (rows * outputs * itemsize)))
    slices = -(-inputs // size)
    _, width = dense_input_plan(size, n, outputs, itemsize)
    blocks = -(-n // width)
    zeros = arrays.allocate((max(n, outputs),), dtype)
    zeros[...] = 0
    kept = [zeros]

    def numbers_at(numbers: Array) -> Place:
        kept.append(numbers)
        return constant(numbers)

    def contraction(plan: Plan, x: Place, w: Place, y: Place) -> Array:
        return program.step(
            program.CONTRACTION, plan.function, (f, f, f, f, True, plan.numbers), plan.items,
            x, w, constant(zeros), y, number(0), numbers_at(plan.numbers),
        )  # fmt: skip

    def steps(count: int) -> list[Array]:
        found = []
        if needs_dx:
            plan, _ = dense_input_plan(count, n, outputs, itemsize, like=size)
            sides = record(Sides(count, n, inputs))
            function, items = turn_for(count, n, itemsize)
            turn = program.step(
                program.THREE, function, (f, f, sides), items, product, dx, numbers_at(sides)
            )
            found = [contraction(plan, w, turned, product), turn]
        plan = dense_weight_plan(n, count, outputs, itemsize, apart=inputs)
        return [*found, contraction(plan, x, dy, dw)]

    turn = None
    if needs_dx:
        turn = program.step(
            program.TURN, packing.turn_kernel(width, outputs, itemsize), (f, f, 0, 0, 0, 0, 0),
            blocks, dy, turned, *map(number, (1, n, outputs, outputs, width)),
        )  # fmt: skip
    made = program.program(
        steps(size),
        steps(inputs - (slices - 1) * size),
        size=size,
        slices=slices,
        items=min(slices, _ITEMS),
        shared=-(-blocks * outputs * width * itemsize // LINE) * LINE,
        workspace=-(-size * n * itemsize // LINE) * LINE,
        per_sample={
            program.INPUT: itemsize,
            program.OUTPUT: outputs * itemsize,
            program.DX: itemsize,
            program.TARGETS: outputs * itemsize,
        },
        origins={},
        work=n * inputs * outputs,
    )
    return _ByInputs(turn, made, kept)
