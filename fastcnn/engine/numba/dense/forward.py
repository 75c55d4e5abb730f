"""The fully connected layer as a contraction: rows are samples, steps inputs.

The register tile is that of convolutions, for every batch size, so each output is summed in the
order of the inputs, whatever the batch. BLAS changes the order with the batch size, and with it the
last bits.
"""

from __future__ import annotations

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.contraction.column_sums import column_sums
from fastcnn.engine.numba.contraction.contraction import contract
from fastcnn.engine.numba.contraction.packing import turn_filters
from fastcnn.engine.numba.dense import large
from fastcnn.engine.numba.dense.chooser import (
    LARGE_WEIGHTS,
    dense_input_plan,
    dense_weight_plan,
    forward_decision,
)
from fastcnn.engine.numba.runtime.arrays import bias_or_zeros, empty_like_type, readable


def dense(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """``y = x @ w + b``."""
    n, inputs, outputs = len(x), *w.shape
    if n == 0:
        return empty_like_type(x, n, outputs)
    decision = forward_decision(n, inputs, outputs, x.itemsize, alone=True)
    if decision.name == LARGE_WEIGHTS.name:
        return large.dense(x, w, b, activation)
    y, bias = empty_like_type(x, n, outputs), bias_or_zeros(b, outputs, x)
    flat_x, flat_w = readable(x).reshape(-1), readable(w).reshape(-1)
    contract(decision.plan, flat_x, flat_w, bias, y.reshape(-1), activation == "relu")
    return y


def dense_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """``dx = dy @ w.T``, ``dw = x.T @ dy``, ``db``."""
    n, inputs, outputs = len(x), *w.shape
    dx, dw = empty_like_type(x, n, inputs), empty_like_type(x, inputs, outputs)
    db = empty_like_type(x, outputs)
    dy, x = readable(dy), readable(x)
    flat_dy = dy.reshape(-1)
    zeros = bias_or_zeros(None, max(inputs, outputs), x)
    if n:
        to_input, width = dense_input_plan(n, inputs, outputs, x.itemsize)
        turned = readable(w).reshape(-1)
        if width:
            turned = turn_filters(readable(w).reshape(1, 1, inputs, outputs), 1, width)
        contract(to_input, flat_dy, turned, zeros, dx.reshape(-1))
        to_weights = dense_weight_plan(n, inputs, outputs, x.itemsize)
        contract(to_weights, x.reshape(-1), flat_dy, zeros, dw.reshape(-1))
    else:
        dw[...] = 0
    column_sums(dy, db)
    return dx, dw, db
