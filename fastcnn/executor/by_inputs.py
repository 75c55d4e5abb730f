"""The gradients of a dense layer with many weights, by slices of its inputs.

A slice turns its rows of the weights and multiplies with them while they are in the second-level
cache; the weights and their gradient are passed over once. Turned all at once, before a product
over all of them, those of 9216 × 128 took a fifth of the layer's way back.
"""

from __future__ import annotations

from functools import lru_cache
from math import lcm
from typing import Any, NamedTuple

import numpy as np

from fastcnn.arguments import Array
from fastcnn.kernels import arrays, packing, program
from fastcnn.kernels.contraction import Plan, tile_for
from fastcnn.kernels.dense import dense_input_plan, dense_weight_plan
from fastcnn.kernels.program import Place, Program, address, constant, number, run

# Bytes of turned weights in a slice, and slices that can run at once, at most.
_TURNED, _ITEMS = 128 * 1024, 16


def dense_gradients(
    dy: Array, x: Array, w: Array, dx: Array | None, dw: Array, db: Array | None
) -> None:
    """``dx = dy @ w.T``, ``dw = x.T @ dy`` and ``db`` of at least one sample, C-contiguous.

    To the bit what the operation gives.
    """
    made = _by_inputs(len(x), *w.shape, x.dtype, dx is not None).program
    scratch = arrays.allocate((made.scratch,), np.uint8)
    at = [0 if one is None else address(one) for one in (x, dw, dy, dx, w)]
    run(made, address(scratch), *at)
    if db is not None:
        packing.sum_rows(dy.reshape(1, *dy.shape), db.reshape(1, -1))


class _ByInputs(NamedTuple):
    """The program, and arrays that its steps name by their addresses.

    It finds x at INPUT, dw at OUTPUT and the weights at TARGETS.
    """

    program: Program
    kept: list[Array]


@lru_cache(maxsize=256)
def _by_inputs(
    n: int, inputs: int, outputs: int, dtype: np.dtype[Any], needs_dx: bool
) -> _ByInputs:
    itemsize = dtype.itemsize
    to_inputs = tile_for(n, inputs, itemsize)
    size = width = to_inputs.columns
    even = lcm(width, tile_for(inputs, outputs, itemsize).rows)
    if even * outputs * itemsize <= _TURNED:  # tiles of both products without a rest
        size = even * (_TURNED // (even * outputs * itemsize))
    size = min(size, inputs)
    slices = -(-inputs // size)
    zeros = np.zeros(max(size, outputs), dtype)
    kept, f = [zeros], np.zeros(1, dtype)

    def contraction(plan: Plan, x: Place, w: Place, y: Place) -> Array:
        kept.append(plan.numbers)
        return program.step(
            program.CONTRACTION, plan.function, (f, f, f, f, True, plan.numbers), plan.items,
            x, w, constant(zeros), y, number(0), constant(plan.numbers),
        )  # fmt: skip

    def steps(count: int) -> list[Array]:
        x, dw, dy, dx, w, turned = (
            Place(base, 0)
            for base in (
                program.INPUT, program.OUTPUT, program.DY, program.DX, program.TARGETS, program.ITEM
            )
        )  # fmt: skip
        found = []
        if needs_dx:
            numbers = map(number, (1, count, outputs, outputs, width))
            plan, _ = dense_input_plan(n, count, outputs, itemsize, apart=inputs)
            found = [
                program.step(
                    program.TURN, packing.turn_kernel(width, outputs, itemsize),
                    (f, f, 0, 0, 0, 0, 0), -(-count // width), w, turned, *numbers,
                ),
                contraction(plan, dy, turned, dx),
            ]  # fmt: skip
        plan = dense_weight_plan(n, count, outputs, itemsize, apart=inputs)
        return [*found, contraction(plan, x, dy, dw)]

    made = program.program(
        steps(size),
        steps(inputs - (slices - 1) * size),
        size=size,
        slices=slices,
        items=min(slices, _ITEMS),
        shared=0,
        workspace=-(-size // width) * width * outputs * itemsize,
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
