"""The fully connected layer as a contraction: rows are samples, steps inputs.

In which order an output is summed follows from the numbers of inputs and outputs alone, so that
it is the same in any batch. BLAS changes the order with the batch size, and with it the
last bits.
"""

from __future__ import annotations

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.contraction.contraction import contract
from fastcnn.engine.numba.dense import large
from fastcnn.engine.numba.dense.chooser import (
    LARGE_WEIGHTS,
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
