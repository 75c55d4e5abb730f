"""The fully connected layer as a contraction: rows are samples, steps inputs.

The same register tile as convolution's, for every batch size: each output is summed in the order
of the inputs, whatever the batch. BLAS changes that order with the batch size, and with it the
last bits.
"""

from __future__ import annotations

from functools import lru_cache

from fastcnn.arguments import Array
from fastcnn.kernels.arrays import bias_or_zeros, copied, empty_like_type, readable
from fastcnn.kernels.contraction import Contraction, Plan, contract, plan, tile_for
from fastcnn.kernels.packing import sum_rows


def dense(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """``y = x @ w + b``."""
    y = empty_like_type(x, len(x), w.shape[1])
    bias = bias_or_zeros(b, w.shape[1], x)
    _multiply(readable(x), readable(w), bias, y, relu=activation == "relu")
    return y


def dense_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """``dx = dy @ w.T``, ``dw = x.T @ dy``, ``db``."""
    n, inputs, outputs = len(x), *w.shape
    dx, dw = empty_like_type(x, n, inputs), empty_like_type(x, inputs, outputs)
    db = empty_like_type(x, outputs)
    dy, x = readable(dy), readable(x)
    zeros = bias_or_zeros(None, max(inputs, outputs), x)
    _multiply(dy, copied(w.T), zeros, dx)
    _multiply(x, dy, zeros, dw, turned=True)
    sum_rows(dy.reshape(1, n, outputs), db.reshape(1, outputs))
    return dx, dw, db


def _multiply(
    a: Array, w: Array, b: Array, y: Array, *, relu: bool = False, turned: bool = False
) -> None:
    """``y = a @ w + b``, or with ``turned`` ``a.T @ w + b``."""
    if y.size == 0:
        return
    if len(w) == 0:
        y[...] = 0
        return
    steps = _plan(*y.shape, len(w), turned, y.itemsize)
    contract(steps, a.reshape(-1), w.reshape(-1), b, y.reshape(-1), relu)


@lru_cache(maxsize=1024)
def _plan(rows: int, columns: int, steps: int, turned: bool, itemsize: int) -> Plan:
    tile = tile_for(rows, columns, itemsize)
    row, step = (1, rows) if turned else (steps, 1)
    c = Contraction(
        rows_a=1,
        rows_b=1,
        rows_c=rows,
        x_start=0,
        x_a=0,
        x_b=0,
        x_c=row,
        y_start=0,
        y_a=0,
        y_b=0,
        y_c=columns,
        steps_a=1,
        steps_b=1,
        run=steps,
        step_x_a=0,
        step_x_b=0,
        step_x=step,
        w_start=0,
        step_w_a=0,
        step_w_b=0,
        step_w=columns,
        columns=columns,
        w_block=tile.columns,
    )
    return plan(c, tile, itemsize)
