"""ReLU and its like, softmax and log-softmax, forward and backward, as compiled loops.

The functions at the top are the engine's operations; the kernels follow. The items of a kernel are
numbers of flat arrays, or rows of arrays (R, C). Kernels on numbers slice each array first, because
a negative index counts from the end: the compiler does not know that ``start`` is not negative, and
would compile the loop to no vectors (docs/measurements.md, "Loops take their part of an array
first"). They load values before a condition for the same reason.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.jit import kernel, ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Number

_EXP = 20  # operations that an exponential counts for, when work is split over threads


def relu(x: Array) -> Array:
    """``max(x, 0)`` on a flat array."""
    y = empty_like_type(x, *x.shape)
    parallel_for(relu_kernel, x.size, x.size, readable(x), y)
    return y


def relu_backward(dy: Array, x: Array) -> Array:
    """``dy`` where ``x > 0``, else 0, on flat arrays."""
    dx = empty_like_type(x, *x.shape)
    parallel_for(relu_gradient_kernel, x.size, x.size, readable(dy), readable(x), dx)
    return dx


def leaky_relu(x: Array, slope: float) -> Array:
    """``x`` where it is above 0, else ``slope * x``, on a flat array."""
    y = empty_like_type(x, *x.shape)
    parallel_for(_leaky, x.size, x.size, readable(x), readable(x), x.dtype.type(slope), y)
    return y


def leaky_relu_backward(dy: Array, x: Array, slope: float) -> Array:
    """``dy`` where ``x > 0``, else ``slope * dy``, on flat arrays."""
    dx = empty_like_type(x, *x.shape)
    parallel_for(_leaky, x.size, x.size, readable(dy), readable(x), x.dtype.type(slope), dx)
    return dx


def tanh(x: Array) -> Array:
    """Hyperbolic tangent of a flat array."""
    y = empty_like_type(x, *x.shape)
    parallel_for(_tanh, x.size, _EXP * x.size, readable(x), y)
    return y


def tanh_backward(dy: Array, x: Array) -> Array:
    """``dy / cosh²(x)`` on flat arrays."""
    return _bell_gradient(dy, x, -2, 4)


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))`` of a flat array."""
    y = empty_like_type(x, *x.shape)
    parallel_for(_sigmoid, x.size, _EXP * x.size, readable(x), y)
    return y


def sigmoid_backward(dy: Array, x: Array) -> Array:
    """Gradient of :func:`sigmoid` with respect to its input ``x``, on flat arrays."""
    return _bell_gradient(dy, x, -1, 1)


def _bell_gradient(dy: Array, x: Array, scale: int, factor: int) -> Array:
    """``dy`` times a derivative that is a bell around 0: see the kernel :func:`_bell`."""
    dx = empty_like_type(x, *x.shape)
    numbers = x.dtype.type(scale), x.dtype.type(factor)
    parallel_for(_bell, x.size, _EXP * x.size, readable(dy), readable(x), *numbers, dx)
    return dx


def dropout(x: Array, kept: Array, rate: float) -> Array:
    """``x / (1 - rate)`` where ``kept``, else 0, on flat arrays."""
    y = empty_like_type(x, *x.shape)
    scale = x.dtype.type(1 / (1 - rate))
    parallel_for(_masked, x.size, x.size, readable(x), readable(kept), scale, y)
    return y


def softmax(x: Array) -> Array:
    """Softmax of each row."""
    y = empty_like_type(x, *x.shape)
    parallel_for(_softmax, len(x), _EXP * x.size, readable(x), y)
    return y


def softmax_backward(dy: Array, x: Array) -> Array:
    """Gradient of :func:`softmax` with respect to its input ``x``."""
    dx = empty_like_type(x, *x.shape)
    parallel_for(_softmax_gradient, len(x), _EXP * x.size, readable(dy), readable(x), dx)
    return dx


def log_softmax(x: Array) -> Array:
    """Logarithm of the softmax of each row."""
    y = empty_like_type(x, *x.shape)
    parallel_for(_log_softmax, len(x), _EXP * x.size, readable(x), y)
    return y


def log_softmax_backward(dy: Array, x: Array) -> Array:
    """Gradient of :func:`log_softmax` with respect to its input ``x``."""
    dx = empty_like_type(x, *x.shape)
    parallel_for(_log_softmax_gradient, len(x), _EXP * x.size, readable(dy), readable(x), dx)
    return dx


@kernel
def relu_kernel(start: int, stop: int, x: Array, y: Array) -> None:
    """``y = max(x, 0)`` on flat arrays."""
    x, y = x[start:stop], y[start:stop]
    for i in range(y.size):
        value = x[i]
        y[i] = 0 if value < 0 else value


@kernel
def relu_gradient_kernel(start: int, stop: int, dy: Array, x: Array, dx: Array) -> None:
    """``dx = dy`` where ``x > 0``, else 0; ``x`` may be the ReLU's output as well as its input."""
    dy, x, dx = dy[start:stop], x[start:stop], dx[start:stop]
    for i in range(dx.size):
        value = dy[i]
        dx[i] = value if x[i] > 0 else 0


@kernel
def _leaky(start: int, stop: int, values: Array, x: Array, slope: Number, out: Array) -> None:
    """``out = values`` where ``x > 0``, else ``slope * values``, on flat arrays."""
    values, x, out = values[start:stop], x[start:stop], out[start:stop]
    for i in range(out.size):
        value = values[i]
        out[i] = value if x[i] > 0 else slope * value


@kernel
def _tanh(start: int, stop: int, x: Array, y: Array) -> None:
    """``y = tanh(x)`` on flat arrays."""
    for i in range(start, stop):
        y[i] = np.tanh(x[i])


@kernel
def _sigmoid(start: int, stop: int, x: Array, y: Array) -> None:
    """``y = 1 / (1 + exp(-x))`` on flat arrays; no exponential overflows."""
    one = x.dtype.type(1)
    for i in range(start, stop):
        e = np.exp(-abs(x[i]))
        y[i] = (e if x[i] < 0 else one) / (one + e)


@kernel
def _bell(
    start: int, stop: int, dy: Array, x: Array, scale: Number, factor: Number, dx: Array
) -> None:
    """``dx = dy · factor · e / (1 + e)²`` with ``e = exp(scale · |x|)``, on flat arrays."""
    one = x.dtype.type(1)
    for i in range(start, stop):
        e = np.exp(scale * abs(x[i]))
        dx[i] = dy[i] * (factor * e / ((one + e) * (one + e)))


@kernel
def _masked(start: int, stop: int, x: Array, kept: Array, scale: Number, y: Array) -> None:
    """``y = x * scale`` where ``kept``, an array of booleans, else 0, on flat arrays."""
    x, kept, y = x[start:stop], kept[start:stop], y[start:stop]
    for i in range(y.size):
        value = x[i] * scale
        y[i] = value if kept[i] else 0


@device
def softmax_row(x: Array, y: Array) -> None:
    """Softmax of a row ``x`` (C,) into ``y`` (C,), shifted by the maximum.

    The sum has a loop of its own, because in a loop that also stores to ``y`` the order of the
    additions would depend on where ``y`` lies: close behind ``x`` the loop cannot use vectors.
    """
    largest = x[0]
    for c in range(1, x.size):
        largest = max(largest, x[c])
    total = np.float64(0)
    for c in range(x.size):
        y[c] = np.exp(x[c] - largest)
    for c in range(x.size):
        total += y[c]
    for c in range(x.size):
        y[c] /= total


@device
def log_sum_exp(x: Array) -> tuple[Number, Number]:
    """``log Σ exp(x)`` of a row (C,) as two terms: the maximum, and the log of the shifted sum."""
    largest = x[0]
    for c in range(1, x.size):
        largest = max(largest, x[c])
    total = np.float64(0)
    for c in range(x.size):
        total += np.exp(x[c] - largest)
    return largest, np.log(total)


@kernel
def _softmax(start: int, stop: int, x: Array, y: Array) -> None:
    """Softmax of some rows of ``x`` (R, C) into ``y`` (R, C)."""
    for row in range(start, stop):
        softmax_row(x[row], y[row])


@kernel
def _softmax_gradient(start: int, stop: int, dy: Array, x: Array, dx: Array) -> None:
    """``dx = s · (dy − Σ dy · s)`` with ``s = softmax(x)``, for some rows of (R, C)."""
    for row in range(start, stop):
        softmax_row(x[row], dx[row])
        product = np.float64(0)
        for c in range(x.shape[1]):
            product += np.float64(dy[row, c]) * np.float64(dx[row, c])
        for c in range(x.shape[1]):
            dx[row, c] *= dy[row, c] - product


@ordered_kernel
def _log_softmax(start: int, stop: int, x: Array, y: Array) -> None:
    """The logarithm of the softmax of some rows of ``x`` (R, C) into ``y`` (R, C)."""
    for row in range(start, stop):
        largest, log_total = log_sum_exp(x[row])
        for c in range(x.shape[1]):
            y[row, c] = (x[row, c] - largest) - log_total


@kernel
def _log_softmax_gradient(start: int, stop: int, dy: Array, x: Array, dx: Array) -> None:
    """``dx = dy − softmax(x) · Σ dy``, for some rows of (R, C)."""
    for row in range(start, stop):
        softmax_row(x[row], dx[row])
        total = np.float64(0)
        for c in range(x.shape[1]):
            total += dy[row, c]
        for c in range(x.shape[1]):
            dx[row, c] = dy[row, c] - dx[row, c] * total
