"""Layer normalisation as compiled loops over rows (R, F), each with its own mean and variance.

The mean of a row is summed in float64, and kept as two numbers (:mod:`.distances`). So everything
else is computed in the row's dtype, in stretches where rows are long
(:mod:`fastcnn.core.long_sums`). The loops of a row read it several times, while
it lies in the cache.

The gradients of gamma and beta are sums over rows. Short rows are summed by the kernel that writes
dx, in chunks of rows, because dy and x are in the cache then. Long rows have a kernel of their own,
for chunks of rows and blocks of features, because totals of whole rows would not stay in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.elementwise.distances import distance_from
from fastcnn.engine.numba.elementwise.totals import Totals, add_chunks
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import device, ordered_device
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import zero_run
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Number

_LONG = STRETCH  # features of a short row at most
_CHUNK = 16 * 1024  # numbers of a chunk of rows at least
_CHUNKS = 64  # chunks at most
_BLOCK = 1024  # features of a block; their totals stay in the first-level cache


def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """y (R, F): each row with mean 0 and variance 1, times gamma (F,), plus beta (F,)."""
    y = empty_like_type(x, *x.shape)
    rows, features = x.shape
    operands = readable(x).reshape(-1), readable(gamma), readable(beta), y.reshape(-1)
    numbers = record(LayerNormSizes(features, epsilon))
    parallel_for(layer_norm_rows, rows, 6 * x.size, *operands, numbers)
    return y


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """``dx`` (R, F), ``dgamma`` and ``dbeta`` (F,)."""
    rows, features = x.shape
    dx = empty_like_type(dy, *dy.shape)
    dgamma, dbeta = empty_like_type(dy, features), empty_like_type(dy, features)
    flat = readable(dy).reshape(-1), readable(x).reshape(-1)
    operands = *flat, readable(gamma), dx.reshape(-1)
    numbers, sizes = record(LayerNormSizes(features, epsilon)), _chunks_of(rows, features)
    totals = empty_like_type(x, 2 * sizes.chunks * features)
    if features <= _LONG:
        sums = totals, numbers, record(sizes)
        parallel_for(layer_norm_gradients, sizes.chunks, 12 * x.size, *operands, *sums)
    else:
        statistics = empty_like_type(x, 3 * rows)
        parallel_for(layer_norm_long_gradients, rows, 10 * x.size, *operands, statistics, numbers)
        items, sums = sizes.chunks * sizes.blocks, (statistics, totals, record(sizes))
        parallel_for(layer_norm_totals, items, 2 * x.size, *flat, *sums)
    add_chunks(totals, dgamma, 1, Totals(sizes.chunks, features, 0, 2 * features))
    add_chunks(totals, dbeta, 1, Totals(sizes.chunks, features, features, 2 * features))
    return dx, dgamma, dbeta


class LayerNormSizes(NamedTuple):
    """Numbers of a row, and what is added to the variance."""

    features: int
    epsilon: float


class Chunks(NamedTuple):
    """Rows in chunks of ``grain`` rows, at most a stretch, and features in blocks."""

    rows: int
    features: int
    grain: int
    chunks: int
    blocks: int


def _chunks_of(rows: int, features: int) -> Chunks:
    blocks = -(-features // _BLOCK) if features > _LONG else 1
    chunks = min(rows, rows * features // _CHUNK, max(1, _CHUNKS // blocks))
    grain = max(1, min(STRETCH, -(-rows // max(1, chunks))))
    return Chunks(rows, features, grain, max(1, -(-rows // grain)), blocks)


class Row(NamedTuple):
    """The mean of a row as two numbers (:mod:`.distances`), and 1 / deviation."""

    mean: Number
    mean_low: Number
    inverse: Number


@device
def _centred(x: Array, inverse_count: float) -> Row:
    """The mean of a row, and 0 for the deviation; ``inverse_count`` is 1 / (numbers of a row).

    The sum is taken in float64, because rows may lie far from 0.
    """
    total, number = np.float64(0), x.dtype.type
    for i in range(x.size):
        total += x[i]
    mean = total * inverse_count
    return Row(number(mean), number(mean - number(mean)), number(0))


@device
def _squares(x: Array, row: Row) -> Number:
    """The sum of the squared distances from the mean, of at most a stretch of numbers."""
    total: Number = x.dtype.type(0)
    for i in range(x.size):
        distance = distance_from(x[i], row.mean, row.mean_low)
        total += distance * distance
    return total


@ordered_device
def _normalise(x: Array, gamma: Array, beta: Array, row: Row, y: Array) -> None:
    for i in range(y.size):
        y[i] = distance_from(x[i], row.mean, row.mean_low) * row.inverse * gamma[i] + beta[i]


@kernel
def layer_norm_rows(
    start: int, stop: int, x: Array, gamma: Array, beta: Array, y: Array, numbers: Array
) -> None:
    """Rows ``start`` to ``stop`` of y (R, F), flat. ``numbers`` is one record of LayerNormSizes."""
    features, epsilon = numbers[0].features, numbers[0].epsilon
    scale, shift, inverse_count = gamma[:features], beta[:features], 1 / np.float64(features)
    for r in range(start, stop):
        at, end = r * features, (r + 1) * features
        row, squares = _centred(x[at:end], inverse_count), np.float64(0)
        for first in range(at, end, STRETCH):
            squares += _squares(x[first : min(first + STRETCH, end)], row)
        inverse = x.dtype.type(1 / np.sqrt(squares * inverse_count + epsilon))
        _normalise(x[at:end], scale, shift, Row(row.mean, row.mean_low, inverse), y[at:end])


@device
def _sums(dy: Array, gamma: Array, x: Array, row: Row) -> tuple[Number, Number, Number]:
    """``Σ g``, ``Σ g · d`` and ``Σ d²`` of at most a stretch of numbers.

    Here g is dy · gamma, and d is the distance of x from the mean.
    """
    number = x.dtype.type
    total, product, squares = number(0), number(0), number(0)
    for i in range(dy.size):
        g, distance = dy[i] * gamma[i], distance_from(x[i], row.mean, row.mean_low)
        total += g
        product += g * distance
        squares += distance * distance
    return total, product, squares


@ordered_device
def _write_gradient(
    dy: Array, gamma: Array, x: Array, row: Row, offset: Number, slope: Number, dx: Array
) -> None:
    for i in range(dx.size):
        correction = offset + distance_from(x[i], row.mean, row.mean_low) * slope
        dx[i] = (dy[i] * gamma[i] - correction) * row.inverse


@device
def _gradient_of_row(
    dy: Array, gamma: Array, x: Array, dx: Array, inverse_count: float, epsilon: float
) -> Row:
    """Write the dx of a row, and return the row's statistics."""
    number, row = x.dtype.type, _centred(x, inverse_count)
    total, product, squares = np.float64(0), np.float64(0), np.float64(0)
    for first in range(0, x.size, STRETCH):
        last = min(first + STRETCH, x.size)
        sums = _sums(dy[first:last], gamma[first:last], x[first:last], row)
        total += sums[0]
        product += sums[1]
        squares += sums[2]
    variance = squares * inverse_count + epsilon
    row = Row(row.mean, row.mean_low, number(1 / np.sqrt(variance)))
    offset, slope = number(total * inverse_count), number(product * inverse_count / variance)
    _write_gradient(dy, gamma, x, row, offset, slope, dx)
    return row


@device
def _add_gradients(totals: Array, dy: Array) -> None:
    """``totals += dy``."""
    for i in range(totals.size):
        totals[i] += dy[i]


@device
def _add_normals(totals: Array, dy: Array, x: Array, row: Row) -> None:
    """``totals += dy · (x − mean) / deviation``."""
    for i in range(totals.size):
        totals[i] += dy[i] * (distance_from(x[i], row.mean, row.mean_low) * row.inverse)


@kernel
def layer_norm_gradients(
    start: int,
    stop: int,
    dy: Array,
    x: Array,
    gamma: Array,
    dx: Array,
    totals: Array,
    numbers: Array,
    sizes: Array,
) -> None:
    """Chunks ``start`` to ``stop`` of the rows of dx (R, F), flat.

    Writes totals (chunks, 2, F) of the chunks' rows: those of dgamma and of dbeta. ``numbers`` is
    one record of LayerNormSizes, ``sizes`` one of Chunks.
    """
    features, epsilon, grain = numbers[0].features, numbers[0].epsilon, sizes[0].grain
    scale, inverse_count = gamma[:features], 1 / np.float64(features)
    for chunk in range(start, stop):
        at = 2 * chunk * features
        of_gamma = totals[at : at + features]
        of_beta = totals[at + features : at + 2 * features]
        zero_run(totals, at, 2 * features)
        for r in range(chunk * grain, min(sizes[0].rows, (chunk + 1) * grain)):
            at, end = r * features, (r + 1) * features
            row = _gradient_of_row(dy[at:end], scale, x[at:end], dx[at:end], inverse_count, epsilon)
            _add_normals(of_gamma, dy[at:end], x[at:end], row)
            _add_gradients(of_beta, dy[at:end])


@kernel
def layer_norm_long_gradients(
    start: int,
    stop: int,
    dy: Array,
    x: Array,
    gamma: Array,
    dx: Array,
    statistics: Array,
    numbers: Array,
) -> None:
    """Rows ``start`` to ``stop`` of dx (R, F), flat; writes statistics (R, 3), a Row of each."""
    features, epsilon = numbers[0].features, numbers[0].epsilon
    scale, inverse_count = gamma[:features], 1 / np.float64(features)
    for r in range(start, stop):
        at, end = r * features, (r + 1) * features
        row = _gradient_of_row(dy[at:end], scale, x[at:end], dx[at:end], inverse_count, epsilon)
        statistics[3 * r], statistics[3 * r + 1], statistics[3 * r + 2] = row


@kernel
def layer_norm_totals(
    start: int, stop: int, dy: Array, x: Array, statistics: Array, totals: Array, sizes: Array
) -> None:
    """Items ``start`` to ``stop``: each a chunk of rows, in a block of features.

    Reads dy and x (R, F) and statistics (R, 3), writes totals (chunks, 2, F): those of dgamma and
    of dbeta. ``sizes`` is one record of Chunks.
    """
    features, blocks, grain = sizes[0].features, sizes[0].blocks, sizes[0].grain
    for item in range(start, stop):
        chunk = item // blocks
        first = (item - chunk * blocks) * _BLOCK
        wide = min(_BLOCK, features - first)
        at = 2 * chunk * features + first
        of_gamma, of_beta = totals[at : at + wide], totals[at + features : at + features + wide]
        zero_run(totals, at, wide)
        zero_run(totals, at + features, wide)
        for r in range(chunk * grain, min(sizes[0].rows, (chunk + 1) * grain)):
            at = r * features + first
            row = Row(statistics[3 * r], statistics[3 * r + 1], statistics[3 * r + 2])
            _add_normals(of_gamma, dy[at : at + wide], x[at : at + wide], row)
            _add_gradients(of_beta, dy[at : at + wide])
