"""ReLU and its like, softmax and log-softmax, and their gradients.

The softmax subtracts its row's maximum first. The result is the same, and every exponential is at
most 1, so it cannot overflow. The article's softmax can.

A function that multiplies x by a share of 1 has the limit 0 at −∞, where the product would be NaN.
"""

from __future__ import annotations

from math import erfc, pi, sqrt

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


def clipped_relu(x: Array, top: float) -> Array:
    """The larger of x and 0, but at most ``top``; NaN stays NaN.

    >>> clipped_relu(np.array([-1.0, np.nan, 2.0, 9.0]), 6.0)
    array([ 0., nan,  2.,  6.])
    """
    y: Array = np.minimum(np.maximum(x, 0), x.dtype.type(top))
    return y


def clipped_relu_backward(dy: Array, x: Array, top: float) -> Array:
    """Gradient dx: dy where 0 < x < top, else 0 (at 0, at ``top`` and at NaN too)."""
    dx: Array = np.where((x > 0) & (x < x.dtype.type(top)), dy, 0)
    return dx


def elu(x: Array, alpha: float) -> Array:
    """x where x > 0, else alpha · (exp(x) − 1).

    >>> elu(np.array([-np.inf, 0.0, 2.0]), 0.5)
    array([-0.5,  0. ,  2. ])
    """
    numbers = x.astype(np.float64)
    below = alpha * np.expm1(np.minimum(numbers, 0))
    return np.where(numbers > 0, numbers, below).astype(x.dtype)


def elu_backward(dy: Array, x: Array, alpha: float) -> Array:
    """Gradient dx: dy where x > 0, else dy · alpha · exp(x) (at 0 too)."""
    numbers, gradients = x.astype(np.float64), dy.astype(np.float64)
    below = gradients * alpha * np.exp(np.minimum(numbers, 0))
    return np.where(numbers > 0, gradients, below).astype(dy.dtype)


def hard_sigmoid(x: Array, slope: float, offset: float) -> Array:
    """slope · x + offset, but at least 0 and at most 1; NaN stays NaN.

    >>> hard_sigmoid(np.array([-9.0, 1.0, 9.0]), 0.25, 0.5)
    array([0.  , 0.75, 1.  ])
    """
    y: Array = np.clip(slope * x.astype(np.float64) + offset, 0, 1)
    return y.astype(x.dtype)


def hard_sigmoid_backward(dy: Array, x: Array, slope: float, offset: float) -> Array:
    """Gradient dx: slope · dy where 0 < slope · x + offset < 1, else 0 (at both ends too)."""
    line = slope * x.astype(np.float64) + offset
    return np.where((line > 0) & (line < 1), slope * dy.astype(np.float64), 0).astype(dy.dtype)


def hard_swish(x: Array) -> Array:
    """x · (x / 6 + 1/2), with a factor of at least 0 and at most 1.

    >>> hard_swish(np.array([-np.inf, -1.5, 3.0]))
    array([-0.   , -0.375,  3.   ])
    """
    numbers = np.maximum(x.astype(np.float64), -3)  # the factor is 0 from −3 on
    return (numbers * np.minimum(numbers / 6 + 0.5, 1)).astype(x.dtype)


def hard_swish_backward(dy: Array, x: Array) -> Array:
    """Gradient dx: 0 where x ≤ −3, dy where x ≥ 3, and dy · (x / 3 + 1/2) between."""
    numbers, gradients = x.astype(np.float64), dy.astype(np.float64)
    inner = gradients * (np.clip(numbers, -3, 3) / 3 + 0.5)
    dx = np.where(numbers <= -3, 0, np.where(numbers >= 3, gradients, inner))
    return dx.astype(dy.dtype)


def swish(x: Array) -> Array:
    """x · sigmoid(x).

    >>> swish(np.array([-np.inf, 0.0, 1000.0]))
    array([  -0.,    0., 1000.])
    """
    numbers = _above(-_FAR, x)
    return (numbers * sigmoid(numbers)).astype(x.dtype)


def swish_backward(dy: Array, x: Array) -> Array:
    """Gradient dx: dy · (s + x · s · (1 − s)), where s = sigmoid(x) and 1 − s = sigmoid(−x)."""
    numbers = np.minimum(_above(-_FAR, x), _FAR)
    s, rest = sigmoid(numbers), sigmoid(-numbers)
    dx: Array = dy.astype(np.float64) * (s + numbers * s * rest)
    return dx.astype(dy.dtype)


def gelu(x: Array, approximate: bool) -> Array:
    """x · Φ(x), or its tanh form x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2.

    Φ(x) is the probability that a standard normal number is at most x. The tanh form is computed as
    x · sigmoid(w) with the doubled argument w, which is the same and keeps its digits near 0.

    >>> gelu(np.array([-np.inf, 0.0, 1000.0]), False)
    array([  -0.,    0., 1000.])
    """
    numbers = _above(-_FAR, x)
    share = sigmoid(_gelu_argument(numbers)) if approximate else _normal_probability(numbers)
    return (numbers * share).astype(x.dtype)


def gelu_backward(dy: Array, x: Array, approximate: bool) -> Array:
    """Gradient dx: dy · (Φ(x) + x · φ(x)), where φ is the slope of Φ.

    In the tanh form it is dy · (s + x · s · (1 − s) · w′), where s = sigmoid(w).
    """
    numbers = np.minimum(_above(-_FAR, x), _FAR)
    if approximate:
        w = _gelu_argument(numbers)
        share, dw = sigmoid(w), sqrt(8 / pi) * (1 + 3 * 0.044715 * numbers**2)
        slope = share * sigmoid(-w) * dw
    else:
        share = _normal_probability(numbers)
        slope = np.exp(-(numbers**2) / 2) / sqrt(2 * pi)
    return (dy.astype(np.float64) * (share + numbers * slope)).astype(dy.dtype)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), computed as max(x, 0) + log(1 + exp(−|x|)): nothing overflows.

    >>> softplus(np.array([-1000.0, 1000.0]))
    array([   0., 1000.])
    """
    numbers = x.astype(np.float64)
    y: Array = np.maximum(numbers, 0) + np.log1p(np.exp(-np.abs(numbers)))
    return y.astype(x.dtype)


def softplus_backward(dy: Array, x: Array) -> Array:
    """Gradient dx: dy · sigmoid(x)."""
    dx: Array = dy.astype(np.float64) * sigmoid(x.astype(np.float64))
    return dx.astype(dy.dtype)


def prelu(x: Array, slope: Array) -> Array:
    """x where x > 0, else slope · x, with a slope for each channel: x (R, C), slope (C,).

    >>> prelu(np.array([[-4.0, -4.0], [np.nan, 2.0]]), np.array([0.5, 0.25]))
    array([[-2., -1.],
           [nan,  2.]])
    """
    numbers = x.astype(np.float64)
    return np.where(numbers > 0, numbers, slope * numbers).astype(x.dtype)


def prelu_backward(dy: Array, x: Array, slope: Array) -> tuple[Array, Array]:
    """Gradients dx (R, C): dy where x > 0, else slope · dy; and dslope (C,): Σ dy · x, over x ≤ 0.

    At 0 and at NaN too, dx is slope · dy.
    """
    numbers, gradients = x.astype(np.float64), dy.astype(np.float64)
    dx = np.where(numbers > 0, gradients, slope * gradients)
    dslope = np.sum(np.where(numbers > 0, 0, gradients * numbers), axis=0)
    return dx.astype(dy.dtype), dslope.astype(dy.dtype)


def dropout(x: Array, mask: Array, rate: float) -> Array:
    """x / (1 − rate) where ``mask`` is true, else 0. The gradient is the same function of dy.

    >>> dropout(np.array([1.0, 2.0, np.nan]), np.array([True, True, False]), 0.5)
    array([2., 4., 0.])
    """
    return np.where(mask, x.astype(np.float64) / (1 - rate), 0).astype(x.dtype)


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


_FAR = 1000.0  # at −_FAR all shares of 1 are 0 in float64, at _FAR they are 1


def _above(low: float, x: Array) -> Array:
    numbers: Array = np.maximum(x.astype(np.float64), low)
    return numbers


def _gelu_argument(x: Array) -> Array:
    w: Array = sqrt(8 / pi) * (x + 0.044715 * x**3)
    return w


def _normal_probability(x: Array) -> Array:
    """Φ(x) = erfc(−x / √2) / 2, number by number."""
    result = np.array([erfc(-number / sqrt(2)) / 2 for number in x.reshape(-1)])
    return result.reshape(x.shape)
