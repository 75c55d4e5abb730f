"""ReLU and its like, softmax and log-softmax, and their gradients.

The softmax subtracts its row's maximum first. The result is the same, and every exponential is at
most 1, so it cannot overflow. The article's softmax can.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array


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


def leaky_relu(x: Array, slope: float) -> Array:
    """x where x > 0, else slope · x.

    >>> leaky_relu(np.array([-1.0, np.nan, 2.0]), 0.5)
    array([-0.5,  nan,  2. ])
    """
    numbers = x.astype(np.float64)
    return np.where(numbers > 0, numbers, slope * numbers).astype(x.dtype)


def leaky_relu_backward(dy: Array, x: Array, slope: float) -> Array:
    """Gradient dx: dy where x > 0, else slope · dy (at 0 and at NaN too)."""
    gradients = dy.astype(np.float64)
    return np.where(x > 0, gradients, slope * gradients).astype(dy.dtype)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent of each element.

    >>> tanh(np.array([-1000.0, 0.0]))
    array([-1.,  0.])
    """
    y: Array = np.tanh(x.astype(np.float64))
    return y.astype(x.dtype)


def tanh_backward(dy: Array, x: Array) -> Array:
    """Gradient dx: dy / cosh²(x).

    With e = exp(−2|x|), 1 / cosh² is 4e / (1 + e)², where nothing overflows or cancels.
    """
    e = np.exp(-2 * np.abs(x.astype(np.float64)))
    dx: Array = dy.astype(np.float64) * (4 * e / (1 + e) ** 2)
    return dx.astype(dy.dtype)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)) of each element.

    With e = exp(−|x|) it is 1 / (1 + e), or e / (1 + e) where x is negative: nothing overflows.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    numbers = x.astype(np.float64)
    e = np.exp(-np.abs(numbers))
    y: Array = np.where(numbers < 0, e, 1) / (1 + e)
    return y.astype(x.dtype)


def sigmoid_backward(dy: Array, x: Array) -> Array:
    """Gradient dx: dy · s · (1 − s), where s = sigmoid(x); that is dy · e / (1 + e)²."""
    e = np.exp(-np.abs(x.astype(np.float64)))
    dx: Array = dy.astype(np.float64) * (e / (1 + e) ** 2)
    return dx.astype(dy.dtype)


def dropout(x: Array, kept: Array, rate: float) -> Array:
    """x / (1 − rate) where ``kept`` is true, else 0. The gradient is the same function of dy.

    >>> dropout(np.array([1.0, 2.0, np.nan]), np.array([True, True, False]), 0.5)
    array([2., 4., 0.])
    """
    return np.where(kept, x.astype(np.float64) / (1 - rate), 0).astype(x.dtype)


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
