"""ReLU and its like, and softmax, over whole arrays.

A row's result does not depend on the other rows.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from fastcnn.core import normal_tail
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


def clipped_relu(x: Array, top: float) -> Array:
    """``min(max(x, 0), top)``, shape of x."""
    y: Array = np.maximum(x, 0)
    np.minimum(y, y.dtype.type(top), out=y)
    return y


def clipped_relu_backward(dy: Array, x: Array, top: float) -> Array:
    """``dx``: dy where x lies between 0 and ``top``, else 0."""
    dx = np.zeros_like(dy)
    for some in row_slices(x, 1):
        np.copyto(dx[some], dy[some], where=(x[some] > 0) & (x[some] < x.dtype.type(top)))
    return dx


def elu(x: Array, alpha: float) -> Array:
    """x where it is above 0, else ``alpha * (exp(x) − 1)``."""
    y: Array = np.minimum(x, 0)
    np.expm1(y, out=y)
    y *= y.dtype.type(alpha)
    np.copyto(y, x, where=x > 0)
    return y


def elu_backward(dy: Array, x: Array, alpha: float) -> Array:
    """``dx``: dy where x is above 0, else ``dy * alpha * exp(x)``."""
    dx: Array = np.minimum(x, 0)
    np.exp(dx, out=dx)
    dx *= dx.dtype.type(alpha)
    dx *= dy
    np.copyto(dx, dy, where=x > 0)
    return dx


def hard_sigmoid(x: Array, slope: float, offset: float) -> Array:
    """``slope * x + offset`` between 0 and 1."""
    y = _line(x, slope, offset)
    np.clip(y, 0, 1, out=y)
    return y


def hard_sigmoid_backward(dy: Array, x: Array, slope: float, offset: float) -> Array:
    """``dx``: ``slope * dy`` where ``slope * x + offset`` lies between 0 and 1, else 0."""
    dx: Array = dy * dy.dtype.type(slope)
    for some in row_slices(x, 2):
        line = _line(x[some], slope, offset)
        np.copyto(dx[some], 0, where=~((line > 0) & (line < 1)))
    return dx


def hard_swish(x: Array) -> Array:
    """``x * (x / 6 + 1/2)``, with a factor between 0 and 1."""
    y: Array = np.maximum(x, -3)  # from there on the factor is 0
    for some in row_slices(y, 3):
        factor = _line(y[some], 1 / 6, 0.5)
        y[some] *= np.minimum(factor, 1, out=factor)
    return y


def hard_swish_backward(dy: Array, x: Array) -> Array:
    """``dx``: 0 where x ≤ −3, dy where x ≥ 3, and ``dy * (x / 3 + 1/2)`` between."""
    dx: Array = np.clip(x, -3, 3)
    dx *= dx.dtype.type(1 / 3)
    dx += dx.dtype.type(0.5)
    dx *= dy
    np.copyto(dx, dy, where=x >= 3)
    np.copyto(dx, 0, where=x <= -3)
    return dx


def _line(x: Array, slope: float, offset: float) -> Array:
    y: Array = x * x.dtype.type(slope)
    y += y.dtype.type(offset)
    return y


def swish(x: Array) -> Array:
    """``x * sigmoid(x)``."""
    y: Array = np.maximum(x, -_FAR)
    for some in row_slices(y, 5):
        y[some] *= sigmoid(y[some])
    return y


def swish_backward(dy: Array, x: Array) -> Array:
    """``dx = dy · (s + x · s · (1 − s))`` with s = sigmoid(x)."""
    dx = np.empty_like(dy)
    for some in row_slices(x, 8):
        part = np.clip(x[some], -_FAR, _FAR)
        dx[some] = dy[some] * (sigmoid(part) + part * _bell(-np.abs(part), np.ones_like(part), 1))
    return dx


def gelu(x: Array, approximate: bool) -> Array:
    """``x * Φ(x)``, or its tanh form."""
    y: Array = np.maximum(x, -_FAR)
    for some in row_slices(y, 8):
        part = y[some]
        part *= sigmoid(_tanh_form(part)) if approximate else _normal_probability(part)
    return y


def gelu_backward(dy: Array, x: Array, approximate: bool) -> Array:
    """``dx = dy · (Φ(x) + x · φ(x))``, or that of the tanh form."""
    dx = np.empty_like(dy)
    for some in row_slices(x, 10):
        part = np.clip(x[some], -_FAR, _FAR)
        if approximate:
            w = _tanh_form(part)
            slope = _bell(-np.abs(w), _line(part * part, 3 * _CUBIC, _LINEAR), 1)
            share = sigmoid(w)
        else:
            share = _normal_probability(part)
            slope = np.exp(part * part * part.dtype.type(-0.5))
            slope *= part.dtype.type(1 / sqrt(2 * pi))
        dx[some] = dy[some] * (share + part * slope)
    return dx


_FAR = 1000.0  # at −_FAR, the factors of x that lie between 0 and 1 are 0
# Twice the coefficients of x and x³ in the tanh form of GELU.
_LINEAR, _CUBIC = sqrt(8 / pi), sqrt(8 / pi) * 0.044715


def _tanh_form(x: Array) -> Array:
    """The argument w for which ``(1 + tanh(w / 2)) / 2``, the sigmoid of w, is nearly Φ(x)."""
    w = _line(x * x, _CUBIC, _LINEAR)
    w *= x
    return w


def _normal_probability(x: Array) -> Array:
    """Φ(x), from the polynomial of :mod:`fastcnn.core.normal_tail`."""
    number = x.dtype.type
    a = np.abs(x)
    inverse = 1 / (a + number(normal_tail.CENTRE))
    t = 1 - number(2 * normal_tail.CENTRE) * inverse
    coefficients = normal_tail.FLOAT32 if x.itemsize == 4 else normal_tail.FLOAT64
    tail = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        tail *= t
        tail += number(coefficient)
    tail *= inverse
    a *= a
    a *= number(-0.5)
    tail *= np.exp(a, out=a)
    return np.where(x < 0, tail, 1 - tail)


def softplus(x: Array) -> Array:
    """``max(x, 0) + log(1 + exp(−|x|))``."""
    y = np.abs(x)
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.log1p(y, out=y)
    for some in row_slices(x, 1):
        y[some] += np.maximum(x[some], 0)
    return y


def softplus_backward(dy: Array, x: Array) -> Array:
    """``dx = dy · sigmoid(x)``."""
    dx = sigmoid(x)
    dx *= dy
    return dx


def prelu(x: Array, slope: Array) -> Array:
    """x where it is above 0, else ``slope * x``, with a slope for each column."""
    y: Array = x * slope
    np.copyto(y, x, where=x > 0)
    return y


def prelu_backward(dy: Array, x: Array, slope: Array) -> tuple[Array, Array]:
    """``dx``: dy where x is above 0, else ``slope * dy``; ``dslope``: Σ dy · x over the others."""
    dx: Array = dy * slope
    np.copyto(dx, dy, where=x > 0)
    dslope = np.zeros(len(slope))
    for some in row_slices(x, 6):  # in float64, which takes the memory of two
        products = np.multiply(dy[some], x[some], dtype=np.float64)
        np.copyto(products, 0, where=x[some] > 0)
        dslope += products.sum(axis=0)
    return dx, dslope.astype(dy.dtype)


def dropout(x: Array, mask: Array, rate: float) -> Array:
    """``x / (1 − rate)`` where ``mask`` is true, else 0."""
    y = np.zeros_like(x)
    np.multiply(x, x.dtype.type(1 / (1 - rate)), out=y, where=mask)
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
