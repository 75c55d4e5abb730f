"""The fully connected layer as compiled loops.

Each output is summed in the order of the inputs, whatever the batch: BLAS would change that order
with the batch size, and with it the last bits.
"""

from __future__ import annotations

from typing import Any

from fastcnn.arguments import Array
from fastcnn.kernels.arrays import bias_or_zeros, empty_like_type, readable
from fastcnn.kernels.jit import kernel
from fastcnn.kernels.threads import parallel_for

# Samples summed apart in the gradient of the weights, so that rounding errors stay those of one
# block.
_BLOCK = 32


def dense(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """``y``, sample by sample."""
    n, outputs = len(x), w.shape[1]
    y = empty_like_type(x, n, outputs)
    bias = bias_or_zeros(b, outputs, x)
    work = 2 * n * w.size
    parallel_for(_forward, n, work, readable(x), readable(w), bias, y, activation == "relu")
    return y


def dense_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """``dx`` by samples, ``dw`` by inputs, ``db``."""
    n, inputs, outputs = len(x), *w.shape
    dx, dw = empty_like_type(x, n, inputs), empty_like_type(x, inputs, outputs)
    zeros = bias_or_zeros(None, inputs, x)
    partial, db = empty_like_type(x, inputs, outputs), empty_like_type(x, outputs)
    dy, x, work = readable(dy), readable(x), 2 * n * w.size
    parallel_for(_forward, n, work, dy, w.T.copy(), zeros, dx, False)
    parallel_for(_weight_gradient, inputs, work, dy, x, dw, partial)
    _bias_gradient(dy, db)
    return dx, dw, db


@kernel
def _forward(start: int, stop: int, x: Any, w: Any, b: Any, y: Any, relu: bool) -> None:
    inputs, outputs = w.shape
    for n in range(start, stop):
        for o in range(outputs):
            y[n, o] = b[o]
        for i in range(inputs):
            value = x[n, i]
            for o in range(outputs):
                y[n, o] += value * w[i, o]
        if relu:
            for o in range(outputs):
                if y[n, o] < 0:
                    y[n, o] = 0


@kernel
def _weight_gradient(start: int, stop: int, dy: Any, x: Any, dw: Any, partial: Any) -> None:
    samples, outputs = dy.shape
    for i in range(start, stop):
        dw[i] = 0
        for first in range(0, samples, _BLOCK):
            partial[i] = 0
            for n in range(first, min(first + _BLOCK, samples)):
                value = x[n, i]
                for o in range(outputs):
                    partial[i, o] += value * dy[n, o]
            for o in range(outputs):
                dw[i, o] += partial[i, o]


@kernel
def _bias_gradient(dy: Any, db: Any) -> None:
    db[:] = 0
    for n in range(dy.shape[0]):
        for o in range(dy.shape[1]):
            db[o] += dy[n, o]
