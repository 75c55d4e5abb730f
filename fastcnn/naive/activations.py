"""ReLU, softmax and log-softmax, and their gradients.

The softmax is shifted by its row's maximum, which changes nothing in the result and keeps every
exponential at most 1: it cannot overflow, where the article's does.
"""

from __future__ import annotations

import numpy as np

from fastcnn.arguments import Array


def relu(x: Array) -> Array:
    """The larger of x and 0, element by element; NaN stays NaN.

    >>> relu(np.array([-1.0, np.nan, 2.0]))
    array([ 0., nan,  2.])
    """
    y: Array = np.maximum(x, 0)
    return y


def relu_backward(dy: Array, x: Array) -> Array:
    """Gradient dx: dy where x > 0, else 0 (at 0 and at NaN too)."""
    dx: Array = np.where(x > 0, dy, 0)
    return dx


def softmax(x: Array) -> Array:
    """exp(x) / Σ exp(x) of each row of x (N, C).

    >>> softmax(np.array([[1000.0, 1000.0]]))
    array([[0.5, 0.5]])
    """
    exponentials = np.exp(_shifted(x))
    y: Array = exponentials / np.sum(exponentials, axis=1, keepdims=True)
    return y.astype(x.dtype)


def softmax_backward(dy: Array, x: Array) -> Array:
    """Gradient dx (N, C) at the logits x: y · (dy − Σ dy · y), where y = softmax(x)."""
    y, gradients = softmax(x.astype(np.float64)), dy.astype(np.float64)
    dx: Array = y * (gradients - np.sum(gradients * y, axis=1, keepdims=True))
    return dx.astype(dy.dtype)


def log_softmax(x: Array) -> Array:
    """x − log Σ exp(x) of each row of x (N, C).

    >>> log_softmax(np.array([[0.0, -2000.0]]))
    array([[    0., -2000.]])
    """
    shifted = _shifted(x)
    y: Array = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return y.astype(x.dtype)


def log_softmax_backward(dy: Array, x: Array) -> Array:
    """Gradient dx (N, C) at the logits x: dy − softmax(x) · Σ dy."""
    y, gradients = softmax(x.astype(np.float64)), dy.astype(np.float64)
    dx: Array = gradients - y * np.sum(gradients, axis=1, keepdims=True)
    return dx.astype(dy.dtype)


def _shifted(x: Array) -> Array:
    rows = x.astype(np.float64)
    shifted: Array = rows - np.max(rows, axis=1, keepdims=True)
    return shifted
