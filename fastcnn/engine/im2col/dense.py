"""The fully connected layer as one matrix multiplication.

BLAS chooses its order of summation by the size of the batch, so the last bits of a sample's result
may depend on this size. One multiplication per sample would avoid it, but be several times as slow.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.im2col.products import product


def dense(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """``y``, (N, O)."""
    y = product(x, w).astype(x.dtype, copy=False)
    if b is not None:
        y += b
    if activation == "relu":
        np.maximum(y, 0, out=y)
    return y


def dense_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """``(dx, dw, db)``: (N, I), (I, O), (O,)."""
    db: Array = dy.sum(axis=0, dtype=np.float64)
    dx, dw = product(dy, w.T), product(x.T, dy)
    return dx.astype(dy.dtype, copy=False), dw.astype(dy.dtype, copy=False), db.astype(dy.dtype)
