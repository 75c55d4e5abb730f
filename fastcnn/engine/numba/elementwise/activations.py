"""ReLU and its like, softmax and log-softmax, forward and backward, as compiled loops.

The functions at the top are the engine's operations; the kernels follow. The items of a kernel are
numbers of flat arrays, or rows of arrays (R, C). Kernels on numbers slice each array first, because
a negative index counts from the end: the compiler does not know that ``start`` is not negative, and
would compile the loop to no vectors (docs/measurements.md, "Loops take their part of an array
first"). They load values before a condition for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import Parameter, Signature
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.elementwise.exponentials import exponential
from fastcnn.engine.numba.elementwise.formulas import FORMULAS
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.bound import allocator, bound_by, launcher
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel, ordered_kernel, wide_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel, Number

EXP = 20  # operations that an exponential counts for, when work is split over threads


def _bound(
    kernel: Kernel, shape: tuple[int, ...], dtype: np.dtype[Any], work: int, *numbers: Array
) -> Callable[..., Array]:
    """The bound call of a kernel on flat arrays of so many numbers, the last of them the result."""
    size = prod(shape)
    new, launch = allocator((size,), dtype), launcher(kernel, size, work * size)

    def bound(*operands: Array) -> Array:
        result = new()
        launch(*operands, result, *numbers)
        return result

    return bound


def _bind_relu(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    return _bound(relu_kernel, shape, dtype, 1)


@bound_by(_bind_relu)
def relu(x: Array) -> Array:
    """``max(x, 0)`` on a flat array."""
    return _bind_relu(x.shape, x.dtype)(readable(x))


def _bind_relu_gradient(
    shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Callable[[Array, Array], Array]:
    return _bound(relu_gradient_kernel, shape, dtype, 1)


@bound_by(_bind_relu_gradient)
def relu_backward(dy: Array, x: Array) -> Array:
    """``dy`` where ``x > 0``, else 0, on flat arrays."""
    return _bind_relu_gradient(x.shape, x.dtype)(readable(dy), readable(x))


def _bind_formula(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any], p: float = 0.0, q: float = 0.0
) -> Callable[[Array], Array]:
    """The activation of a flat array by a formula with the parameters ``p`` and ``q``."""
    kernel, numbers = activation_kernel(name, False), record(Parameters(p, q))
    return _bound(kernel, shape, dtype, FORMULAS[name].work, numbers)


def _bind_gradient(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any], p: float = 0.0, q: float = 0.0
) -> Callable[[Array, Array], Array]:
    """The gradient of :func:`_bind_formula` with respect to ``x``, of ``dy`` and ``x``."""
    numbers = record(Parameters(p, q))
    return _bound(gradient_kernel(name), shape, dtype, FORMULAS[name].work, numbers)


def _operations(name: str, *parameters: str) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """The operation ``name(x, *parameters)`` of a formula, and its gradient, on flat arrays."""

    @bound_by(partial(_bind_formula, name))
    def activation(x: Array, *values: float) -> Array:
        return _bind_formula(name, x.shape, x.dtype, *values)(readable(x))

    @bound_by(partial(_bind_gradient, name))
    def backward(dy: Array, x: Array, *values: float) -> Array:
        bound = _bind_gradient(name, x.shape, x.dtype, *values)
        return bound(readable(dy), readable(x))

    for function, arguments in ((activation, ("x",)), (backward, ("dy", "x"))):
        names = *arguments, *parameters
        signature = Signature([Parameter(one, Parameter.POSITIONAL_OR_KEYWORD) for one in names])
        # Functions of engines show the names of their parameters, which tests compare.
        vars(function)["__signature__"] = signature
    return activation, backward


leaky_relu, leaky_relu_backward = _operations("leaky_relu", "slope")
clipped_relu, clipped_relu_backward = _operations("clipped_relu", "top")
elu, elu_backward = _operations("elu", "alpha")
hard_sigmoid, hard_sigmoid_backward = _operations("hard_sigmoid", "slope", "offset")
hard_swish, hard_swish_backward = _operations("hard_swish")
tanh, tanh_backward = _operations("tanh")
sigmoid, sigmoid_backward = _operations("sigmoid")
softplus, softplus_backward = _operations("softplus")
swish, swish_backward = _operations("swish")


def _bind_gelu(
    shape: tuple[int, ...], dtype: np.dtype[Any], approximate: bool
) -> Callable[[Array], Array]:
    return _bind_formula("gelu_tanh" if approximate else "gelu", shape, dtype)


def _bind_gelu_gradient(
    shape: tuple[int, ...], dtype: np.dtype[Any], approximate: bool
) -> Callable[[Array, Array], Array]:
    return _bind_gradient("gelu_tanh" if approximate else "gelu", shape, dtype)


@bound_by(_bind_gelu)
def gelu(x: Array, approximate: bool) -> Array:
    """``x * Φ(x)`` of a flat array, exact or in the tanh form."""
    return _bind_gelu(x.shape, x.dtype, approximate)(readable(x))


@bound_by(_bind_gelu_gradient)
def gelu_backward(dy: Array, x: Array, approximate: bool) -> Array:
    """Gradient of :func:`gelu` with respect to its input ``x``, on flat arrays."""
    return _bind_gelu_gradient(x.shape, x.dtype, approximate)(readable(dy), readable(x))


def dropout(x: Array, mask: Array, rate: float) -> Array:
    """``x / (1 - rate)`` where ``mask``, else 0, on flat arrays."""
    y = empty_like_type(x, *x.shape)
    scale = x.dtype.type(1 / (1 - rate))
    parallel_for(_masked, x.size, x.size, readable(x), readable(mask), scale, y)
    return y


def _bind_softmax(sides: tuple[int, int], dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    rows, columns = sides
    new, numbers = allocator(sides, dtype), record(SoftmaxRows(rows, columns, rows))
    launch = launcher(softmax_rows, rows, EXP * rows * columns)

    def bound(x: Array) -> Array:
        y = new()
        launch(x.ravel(), y.ravel(), numbers)
        return y

    return bound


@bound_by(_bind_softmax)
def softmax(x: Array) -> Array:
    """Softmax of each row."""
    return _bind_softmax((len(x), x.shape[1]), x.dtype)(readable(x))


def softmax_backward(dy: Array, x: Array) -> Array:
    """Gradient of :func:`softmax` with respect to its input ``x``."""
    dx = empty_like_type(x, *x.shape)
    parallel_for(_softmax_gradient, len(x), EXP * x.size, readable(dy), readable(x), dx)
    return dx


def log_softmax(x: Array) -> Array:
    """Logarithm of the softmax of each row."""
    y = empty_like_type(x, *x.shape)
    parallel_for(_log_softmax, len(x), EXP * x.size, readable(x), y)
    return y


def log_softmax_backward(dy: Array, x: Array) -> Array:
    """Gradient of :func:`log_softmax` with respect to its input ``x``."""
    dx = empty_like_type(x, *x.shape)
    parallel_for(_log_softmax_gradient, len(x), EXP * x.size, readable(dy), readable(x), dx)
    return dx


@kernel
def relu_kernel(start: int, stop: int, x: Array, y: Array) -> None:
    """``y = max(x, 0)`` on flat arrays."""
    x, y = x[start:stop], y[start:stop]
    for i in range(y.size):
        value = x[i]
        y[i] = 0 if value < 0 else value


@kernel
def relu_in_place(start: int, stop: int, y: Array) -> None:
    """``y = max(y, 0)`` on a flat array."""
    y = y[start:stop]
    for i in range(y.size):
        value = y[i]
        y[i] = 0 if value < 0 else value


@kernel
def relu_gradient_kernel(start: int, stop: int, dy: Array, x: Array, dx: Array) -> None:
    """``dx = dy`` where ``x > 0``, else 0; ``x`` may be the ReLU's output as well as its input."""
    dy, x, dx = dy[start:stop], x[start:stop], dx[start:stop]
    for i in range(dx.size):
        value = dy[i]
        dx[i] = value if x[i] > 0 else 0


class Parameters(NamedTuple):
    """The parameters of a formula, 0 where it has none."""

    p: float
    q: float


@kernel_factory
def activation_kernel(name: str, in_place: bool) -> Kernel:
    """The kernel ``y = value(x)`` on flat arrays for the formula of this name.

    ``numbers`` is a record of :class:`Parameters`. With ``in_place`` x and y are one array, and the
    kernel reads y alone: of two arrays at one place the compiler makes a loop without vectors.
    """
    value = FORMULAS[name].value

    @wide_kernel
    def activation(start: int, stop: int, x: Array, y: Array, numbers: Array) -> None:
        p, q = x.dtype.type(numbers[0].p), x.dtype.type(numbers[0].q)
        y = y[start:stop]
        x = y if in_place else x[start:stop]
        for i in range(y.size):
            y[i] = value(x[i], p, q)

    return activation


@kernel_factory
def gradient_kernel(name: str) -> Kernel:
    """The kernel ``dx = gradient(dy, x)`` on flat arrays for the formula of this name.

    ``numbers`` is a record of :class:`Parameters`.
    """
    gradient = FORMULAS[name].gradient

    @wide_kernel
    def activation_gradient(
        start: int, stop: int, dy: Array, x: Array, dx: Array, numbers: Array
    ) -> None:
        p, q = x.dtype.type(numbers[0].p), x.dtype.type(numbers[0].q)
        dy, x, dx = dy[start:stop], x[start:stop], dx[start:stop]
        for i in range(dx.size):
            dx[i] = gradient(dy[i], x[i], p, q)

    return activation_gradient


@kernel
def _masked(start: int, stop: int, x: Array, mask: Array, scale: Number, y: Array) -> None:
    """``y = x * scale`` where ``mask``, an array of booleans, else 0, on flat arrays."""
    x, mask, y = x[start:stop], mask[start:stop], y[start:stop]
    for i in range(y.size):
        value = x[i] * scale
        y[i] = value if mask[i] else 0


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
        y[c] = exponential(x[c] - largest)
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
        total += exponential(x[c] - largest)
    return largest, np.log(total)


class SoftmaxRows(NamedTuple):
    """The sizes of a matrix, and the number of samples of the whole batch."""

    rows: int
    columns: int
    batch: int


@kernel
def softmax_rows(start: int, stop: int, x: Array, y: Array, numbers: Array) -> None:
    """Softmax of some rows of x (R, C) into y (R, C), flat; ``numbers`` is of SoftmaxRows."""
    columns = numbers[0].columns
    for row in range(start, stop):
        first = row * columns
        softmax_row(x[first : first + columns], y[first : first + columns])


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
