"""The fully connected layer as a contraction: rows are samples, steps inputs.

The same register tile as convolution's, for every batch size: each output is summed in the order
of the inputs, whatever the batch. BLAS changes that order with the batch size, and with it the
last bits.
"""

from __future__ import annotations

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.contraction.contraction import (
    FEW,
    Contraction,
    Plan,
    contract,
    in_parts,
    plan,
    plan_few_steps,
    tile_for,
)
from fastcnn.engine.numba.dense import few_samples as dense_input
from fastcnn.engine.numba.dense import large as large_dense
from fastcnn.engine.numba.dense.few_samples import plan_turning
from fastcnn.engine.numba.dense.packed import plan_packed
from fastcnn.engine.numba.runtime.arrays import bias_or_zeros, empty_like_type, readable
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice


def dense(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """``y = x @ w + b``."""
    n, inputs, outputs = len(x), *w.shape
    if large_dense.is_large(inputs, outputs, x.itemsize):
        return large_dense.dense(x, w, b, activation)
    y = empty_like_type(x, n, outputs)
    if n:
        bias = bias_or_zeros(b, outputs, x)
        flat_x, flat_w = readable(x).reshape(-1), readable(w).reshape(-1)
        steps = dense_plan(n, inputs, outputs, x.itemsize)
        contract(steps, flat_x, flat_w, bias, y.reshape(-1), activation == "relu")
    return y


@cached_choice
def dense_plan(n: int, inputs: int, outputs: int, itemsize: int) -> Plan:
    """``x @ w``."""
    if (packed := plan_packed(n, inputs, outputs, itemsize)) is not None:
        return packed
    tile = tile_for(n, outputs, itemsize)
    c = _product(n, outputs, inputs, (inputs, 1), (outputs, tile.columns))
    return plan(in_parts(c, tile), tile, itemsize)


@cached_choice
def dense_input_plan(
    n: int, inputs: int, outputs: int, itemsize: int, of: int = 0
) -> tuple[Plan, int]:
    """``dy @ w.T``, for some inputs ``of`` so many, and the width of the turned weights' blocks.

    0 where the weights are taken as they are.
    """
    if n <= dense_input.FEW and (few := plan_turning(n, inputs, outputs, itemsize, of or inputs)):
        return few, 0
    tile = tile_for(n, of or inputs, itemsize)
    c = _product(n, inputs, outputs, (outputs, 1), (tile.columns, outputs * tile.columns))
    return plan(c._replace(y_c=of or inputs), tile, itemsize), tile.columns


@cached_choice
def dense_weight_plan(n: int, inputs: int, outputs: int, itemsize: int) -> Plan:
    """``x.T @ dy``."""
    tile = tile_for(inputs, outputs, itemsize)
    c = _product(inputs, outputs, n, (1, inputs), (outputs, tile.columns))
    return plan_few_steps(c, itemsize) if n <= FEW else plan(c, tile, itemsize)


def _product(
    rows: int, columns: int, steps: int, x: tuple[int, int], w: tuple[int, int]
) -> Contraction:
    """A matrix product; ``x`` is how far rows and steps lie apart in x, ``w`` steps and blocks."""
    return Contraction(
        rows_a=1,
        rows_b=1,
        rows_c=rows,
        x_start=0,
        x_a=0,
        x_b=0,
        x_c=x[0],
        y_start=0,
        y_a=0,
        y_b=0,
        y_c=columns,
        steps_a=1,
        steps_b=1,
        run=steps,
        step_x_a=0,
        step_x_b=0,
        step_x=x[1],
        w_start=0,
        step_w_a=0,
        step_w_b=0,
        step_w=w[0],
        columns=columns,
        w_block=w[1],
    )
