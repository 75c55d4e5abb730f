"""Batch normalisation as compiled loops on rows (R, C): all pixels of all samples by channels.

Sums over the rows are taken in float64, first in chunks of a fixed number of rows, then over the
chunks in order. An item is a chunk, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import converted, empty_like_type, readable
from fastcnn.engine.numba.runtime.jit import kernel, ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel

_CHUNK = 256  # rows; enough that the sum over chunks takes little time


@unreported
def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """y (R, C), and the mean and variance (C,) of the rows."""
    count = max(len(x), 1)
    rows = readable(x)
    mean = _wide(_over_chunks(_sums, x, rows) / count)
    variance = _wide(_over_chunks(_squares, x, rows, mean) / count)
    y = _normalised(x, gamma, beta, mean, variance, epsilon)
    return y, converted(mean, x.dtype), converted(variance, x.dtype)


@unreported
def batch_norm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    """y (R, C) for this mean and variance (C,)."""
    return _normalised(x, gamma, beta, _wide(mean), _wide(variance), epsilon)


@unreported
def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """``dx`` (R, C), ``dgamma`` and ``dbeta`` (C,)."""
    count = max(len(x), 1)
    centre = _wide(mean)
    inverse = 1 / np.sqrt(_wide(variance) + epsilon)
    gradients, rows = readable(dy), readable(x)
    dbeta = _over_chunks(_sums, x, gradients)
    products = _over_chunks(_products, x, gradients, rows, centre)
    dgamma = products * inverse if len(x) else products  # 0 without rows, for all statistics
    dx = empty_like_type(dy, *dy.shape)
    parallel_for(
        _gradient_rows,
        len(x),
        8 * x.size,
        gradients,
        rows,
        centre,
        _wide(dbeta / count),
        _wide(dgamma * inverse / count),
        _wide(gamma * inverse),
        dx,
    )
    return dx, converted(dgamma, dy.dtype), converted(dbeta, dy.dtype)


def _wide(channels: Array) -> Array:
    """Numbers of channels (C,) in float64."""
    return converted(channels, np.float64)


def _over_chunks(kernel: Kernel, x: Array, *arguments: Array) -> Array:
    """The sum (C,) in float64 of the sums that a kernel computes for each chunk of rows."""
    sums = arrays.allocate((-(-len(x) // _CHUNK), x.shape[1]), np.float64)
    parallel_for(kernel, len(sums), 4 * x.size, *arguments, sums)
    total: Array = sums.sum(axis=0)
    return total


def _normalised(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    """y (R, C) for a mean and variance (C,) in float64."""
    y = empty_like_type(x, *x.shape)
    scale, shift = _wide(gamma / np.sqrt(variance + epsilon)), _wide(beta)
    parallel_for(_affine_rows, len(x), 4 * x.size, readable(x), mean, scale, shift, y)
    return y


@kernel
def _sums(start: int, stop: int, x: Array, sums: Array) -> None:
    """``Σ x`` over the rows of some chunks; x is (R, C), sums (chunks, C) in float64."""
    for chunk in range(start, stop):
        sums[chunk, :] = 0
        for row in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, x.shape[0])):
            for c in range(x.shape[1]):
                sums[chunk, c] += x[row, c]


@kernel
def _squares(start: int, stop: int, x: Array, mean: Array, sums: Array) -> None:
    """``Σ (x − mean)²`` over the rows of some chunks; sums is (chunks, C) in float64."""
    for chunk in range(start, stop):
        sums[chunk, :] = 0
        for row in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, x.shape[0])):
            for c in range(x.shape[1]):
                distance = x[row, c] - mean[c]
                sums[chunk, c] += distance * distance


@kernel
def _products(start: int, stop: int, dy: Array, x: Array, mean: Array, sums: Array) -> None:
    """``Σ dy · (x − mean)`` over the rows of some chunks; sums is (chunks, C) in float64."""
    for chunk in range(start, stop):
        sums[chunk, :] = 0
        for row in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, x.shape[0])):
            for c in range(x.shape[1]):
                sums[chunk, c] += dy[row, c] * (x[row, c] - mean[c])


@ordered_kernel
def _affine_rows(
    start: int, stop: int, x: Array, mean: Array, scale: Array, shift: Array, y: Array
) -> None:
    """``y = (x − mean) · scale + shift`` for some rows of (R, C); the others are (C,)."""
    for row in range(start, stop):
        for c in range(x.shape[1]):
            y[row, c] = (x[row, c] - mean[c]) * scale[c] + shift[c]


@ordered_kernel
def _gradient_rows(
    start: int,
    stop: int,
    dy: Array,
    x: Array,
    mean: Array,
    offset: Array,
    slope: Array,
    scale: Array,
    dx: Array,
) -> None:
    """``dx = (dy − offset − (x − mean) · slope) · scale`` for some rows of (R, C)."""
    for row in range(start, stop):
        for c in range(x.shape[1]):
            moved = offset[c] + (x[row, c] - mean[c]) * slope[c]
            dx[row, c] = (dy[row, c] - moved) * scale[c]
