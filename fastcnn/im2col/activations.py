"""ReLU and softmax over whole arrays; a row's result does not depend on the other rows."""

from __future__ import annotations

import numpy as np

from fastcnn.arguments import Array
from fastcnn.im2col.windows import row_slices


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
