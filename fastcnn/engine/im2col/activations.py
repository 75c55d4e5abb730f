"""ReLU and its like, and softmax, over whole arrays.

A row's result does not depend on the other rows.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.im2col.windows import row_slices


def relu(x: Array) -> Array:
    """``max(x, 0)``, shape of x."""
    y: Array = np.maximum(x, 0)
    return y


def relu_backward(dy: Array, x: Array) -> Array:
    """``dx``: dy where x is above 0, else 0."""
    dx = np.zeros_like(dy)
    for some in row_slices(x, 1):
        np.copyto(dx[some], dy[some], where=x[some] > 0)
    return dx


def leaky_relu(x: Array, slope: float) -> Array:
    """x where it is above 0, else ``slope * x``."""
    y: Array = x * x.dtype.type(slope)
    np.copyto(y, x, where=x > 0)
    return y


def leaky_relu_backward(dy: Array, x: Array, slope: float) -> Array:
    """``dx``: dy where x is above 0, else ``slope * dy``."""
    dx: Array = dy * dy.dtype.type(slope)
    np.copyto(dx, dy, where=x > 0)
    return dx


def tanh(x: Array) -> Array:
    """Hyperbolic tangent, shape of x."""
    y: Array = np.tanh(x)
    return y


def tanh_backward(dy: Array, x: Array) -> Array:
    """``dx = dy · 4e / (1 + e)²`` with e = exp(−2|x|)."""
    e = np.abs(x)
    e *= -2
    return _bell(e, dy, 4)


def sigmoid(x: Array) -> Array:
    """``e / (1 + e)`` where x is negative, else ``1 / (1 + e)``, with e = exp(−|x|)."""
    y = np.empty_like(x)
    for some in row_slices(x, 3):
        e = np.abs(x[some])
        np.negative(e, out=e)
        np.exp(e, out=e)
        y[some] = np.where(x[some] < 0, e, 1)
        e += 1
        y[some] /= e
    return y


def sigmoid_backward(dy: Array, x: Array) -> Array:
    """``dx = dy · e / (1 + e)²`` with e = exp(−|x|)."""
    return _bell(-np.abs(x), dy, 1)


def _bell(exponent: Array, dy: Array, factor: int) -> Array:
    """``dy · factor · e / (1 + e)²``, with e the exponential; ``exponent`` is overwritten."""
    e = np.exp(exponent, out=exponent)
    for some in row_slices(e, 1):
        below = e[some] + 1
        below *= below
        e[some] /= below
    e *= dy
    e *= factor
    return e


def dropout(x: Array, kept: Array, rate: float) -> Array:
    """``x / (1 − rate)`` where ``kept`` is true, else 0."""
    y = np.zeros_like(x)
    np.multiply(x, x.dtype.type(1 / (1 - rate)), out=y, where=kept)
    return y


def softmax(x: Array) -> Array:
    """Each row's exponentials over their sum, (rows, classes)."""
    y = np.empty_like(x)
    for some in row_slices(x, 2):
        part = np.subtract(x[some], x[some].max(axis=1, keepdims=True), out=y[some])
        np.exp(part, out=part)
        part /= part.sum(axis=1, keepdims=True)
    return y


def softmax_backward(dy: Array, x: Array) -> Array:
    """``dx = s · (dy − Σ dy · s)``, with s the softmax of x."""
    dx = softmax(x)
    for some in row_slices(x, 4):
        part = dx[some]
        inner = (dy[some] * part).sum(axis=1, keepdims=True)
        part *= dy[some] - inner
    return dx


def log_softmax(x: Array) -> Array:
    """Each row, shifted by its maximum, less the logarithm of its exponentials' sum."""
    y = np.empty_like(x)
    for some in row_slices(x, 4):
        part = np.subtract(x[some], x[some].max(axis=1, keepdims=True), out=y[some])
        part -= np.log(np.exp(part).sum(axis=1, keepdims=True))
    return y


def log_softmax_backward(dy: Array, x: Array) -> Array:
    """``dx = dy − s · Σ dy``, with s the softmax of x."""
    dx = softmax(x)
    for some in row_slices(x, 4):
        part = dx[some]
        part *= dy[some].sum(axis=1, keepdims=True)
        np.subtract(dy[some], part, out=part)
    return dx
