"""Batch normalisation as compiled loops on rows (R, C): all pixels of all samples by channels.

The loops go over **wide rows**: rows side by side, so that a wide row has at least
:data:`_WIDTH` numbers, and few channels fill vectors too. Numbers of the channels, such as the
means, are repeated along a wide row. The last wide row may be shorter.

Sums over the rows are taken in chunks of a fixed number of wide rows, for each number of a wide
row, and then over chunks and numbers in order. An item is a chunk, so results do not depend on the
number of threads. The mean and the squared distances of a chunk are computed while the chunk lies
in the cache, so x is read from memory once. They are joined by the formulas of Chan et al.

Means are kept as two numbers (:mod:`.distances`), so results are computed in the arrays' own dtype.

A ReLU behind the normalisation is done with it, forward and backward. The way back computes the
normalised number anew, to the same bits, because this takes less time than to read it.

Source: T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1982.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.engine.numba.elementwise.distances import distance_from
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import convert, empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.jit import wide_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Number

_WIDTH = 256  # numbers of a wide row at least, unless there are fewer
_CHUNK = 16 * 1024  # numbers of a chunk: they stay in the second-level cache
_LEAST = 16  # wide rows of a chunk at least, so that the totals of chunks are few
_BLOCK = 64  # channels of an item of the kernels that go over channels

# Rows of the array of operands: the mean as the sum of two numbers, gamma / deviation, beta, and
# for the way back what is subtracted from each gradient: a number, and a multiple of the distance.
_MEAN, _MEAN_LOW, _SCALE, _SHIFT, _OFFSET, _SLOPE, _OPERANDS = range(7)


class WideRows(NamedTuple):
    """Rows of C channels as wide rows.

    Attributes:
        channels: numbers of a row.
        width: numbers of a wide row, a multiple of the channels.
        size: numbers of all rows; of rows in parts, those of a part.
        grain: wide rows of a chunk.
        chunks: chunks of all rows; of rows in parts, those of a part.
        relu: whether a ReLU follows.
        adds: whether another array is added before it.
        epsilon: what is added to the variance.
    """

    channels: int
    width: int
    size: int
    grain: int
    chunks: int
    relu: bool
    adds: bool
    epsilon: float


class Normalised(NamedTuple):
    """A result of :func:`normalise`.

    Attributes:
        y: the result (R, C).
        mean, variance: of the rows (C,).
        operands: what :func:`normalise_backward` takes of the forward pass.
    """

    y: Array
    mean: Array
    variance: Array
    operands: Array


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """y (R, C), and the mean and variance (C,) of the rows."""
    result = normalise(x, gamma, beta, epsilon, relu=False)
    return result.y, result.mean, result.variance


@unreported
def batch_norm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    """y (R, C) for this mean and variance (C,)."""
    sizes = _wide_rows(x, epsilon, relu=False)
    y, flat = empty_like_type(x, *x.shape), readable(x).reshape(-1)
    operands = _known_operands(gamma, beta, mean, variance, sizes)
    of_rows = flat, operands, flat, y.reshape(-1), record(sizes)
    parallel_for(normalised_rows, sizes.chunks, 4 * x.size, *of_rows)
    return y


@unreported
def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """``dx`` (R, C), ``dgamma`` and ``dbeta`` (C,)."""
    sizes = _wide_rows(x, epsilon, relu=False)
    operands = _known_operands(gamma, None, mean, variance, sizes)
    dgamma, dbeta = empty_like_type(dy, len(gamma)), empty_like_type(dy, len(gamma))
    dx = _gradients(dy, x, variance, operands, sizes, dgamma, dbeta)
    return dx, dgamma, dbeta


def normalise(
    x: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    *,
    relu: bool,
    residual: Array | None = None,
) -> Normalised:
    """Normalise rows (R, C) by their own mean and variance; then perhaps a sum, and a ReLU.

    The sum is that with ``residual`` (R, C).
    """
    sizes, channels = _wide_rows(x, epsilon, relu, residual is not None), len(gamma)
    y, mean = empty_like_type(x, *x.shape), empty_like_type(x, channels)
    variance, operands = empty_like_type(x, channels), empty_like_type(x, _OPERANDS * sizes.width)
    totals = arrays.allocate((2 * sizes.chunks * sizes.width,), np.float64)
    channel_sums = arrays.allocate((2 * channels,), np.float64)
    numbers, flat = record(sizes), readable(x).reshape(-1)
    parallel_for(chunk_moments, sizes.chunks, 4 * x.size, flat, totals, numbers)
    of_channels = channel_sums, readable(gamma), readable(beta), mean, variance, operands
    items = -(-channels // _BLOCK)
    parallel_for(channel_moments, items, 4 * totals.size, totals, *of_channels, numbers)
    summand = flat if residual is None else readable(residual).reshape(-1)
    of_rows = flat, operands, summand, y.reshape(-1), numbers
    parallel_for(normalised_rows, sizes.chunks, 4 * x.size, *of_rows)
    return Normalised(y, mean, variance, operands)


def normalise_backward(
    dy: Array,
    x: Array,
    forward: Normalised,
    epsilon: float,
    dgamma: Array,
    dbeta: Array,
    *,
    relu: bool,
) -> Array:
    """``dx`` (R, C) of :func:`normalise` without a sum; writes ``dgamma`` and ``dbeta`` (C,)."""
    sizes = _wide_rows(x, epsilon, relu)
    return _gradients(dy, x, forward.variance, forward.operands, sizes, dgamma, dbeta)


# --- rows in parts, whose statistics are those of all parts ---------------------------------------


@unreported
def moments(x: Array, parts: int = 1) -> Array:
    """The moments (parts, 3, C) of rows (R, C) in so many parts of equal length.

    They are the number of rows, their mean, and the sum of the squared distances from it, in
    float64. The moments of two parts are joined by ``fastcnn.models.shared_norms.joined``.
    """
    rows, channels = len(x) // parts, x.shape[1]
    sizes = _wide_rows(x[:rows], 0.0, relu=False)
    totals = arrays.allocate((2 * parts * sizes.chunks * sizes.width,), np.float64)
    flat = readable(x).reshape(-1)
    parallel_for(chunk_moments, parts * sizes.chunks, 4 * x.size, flat, totals, record(sizes))
    together = sizes.width // channels
    of_chunks = totals.reshape(parts, sizes.chunks, 2, together, channels)
    # The numbers at each place of each chunk's wide rows, as _rows_of counts them.
    starts = sizes.grain * sizes.width * np.arange(sizes.chunks)[:, np.newaxis]
    numbers_left = sizes.size - starts - channels * np.arange(together)
    counts = np.clip(-(-numbers_left // sizes.width), 0, sizes.grain)[..., np.newaxis]
    means, result = of_chunks[:, :, 0], np.empty((parts, 3, channels))
    result[:, 0] = rows
    result[:, 1] = (counts * means).sum(axis=(1, 2)) / rows
    distances = means - result[:, 1, np.newaxis, np.newaxis]
    result[:, 2] = (of_chunks[:, :, 1] + counts * distances**2).sum(axis=(1, 2))
    return result


@unreported
def normalise_by(
    x: Array,
    gamma: Array,
    beta: Array,
    of_all: Array,
    epsilon: float,
    *,
    relu: bool,
    residual: Array | None = None,
) -> Normalised:
    """:func:`normalise` by the moments (3, C) of all parts."""
    sizes, channels = _wide_rows(x, epsilon, relu, residual is not None), len(gamma)
    exact_mean, exact_variance = of_all[1], of_all[2] / of_all[0]
    y, mean = empty_like_type(x, *x.shape), exact_mean.astype(x.dtype)
    operands = empty_like_type(x, _OPERANDS * sizes.width)
    rows = operands.reshape(_OPERANDS, sizes.width // channels, channels)
    rows[_MEAN], rows[_MEAN_LOW], rows[_SHIFT] = mean, exact_mean - mean, beta
    rows[_SCALE] = gamma / np.sqrt(exact_variance + epsilon)
    flat = readable(x).reshape(-1)
    summand = flat if residual is None else readable(residual).reshape(-1)
    of_rows = flat, operands, summand, y.reshape(-1), record(sizes)
    parallel_for(normalised_rows, sizes.chunks, 4 * x.size, *of_rows)
    return Normalised(y, mean, exact_variance.astype(x.dtype), operands)


@unreported
def gradient_sums(
    dy: Array, x: Array, forward: Normalised, epsilon: float, *, relu: bool, parts: int = 1
) -> Array:
    """The sums (parts, 2, C) of g and of g · (x − mean) over rows (R, C), in float64.

    The rows are parts of equal length. ``forward`` is that of these rows, or of more of them.
    """
    sizes = _wide_rows(x[: len(x) // parts], epsilon, relu)
    totals = arrays.allocate((2 * parts * sizes.chunks * sizes.width,), np.float64)
    flat = readable(dy).reshape(-1), readable(x).reshape(-1)
    together, operands = sizes.width // sizes.channels, forward.operands
    if operands.size != _OPERANDS * sizes.width:  # those of more rows, which repeat as well
        of_row = operands.reshape(_OPERANDS, -1, sizes.channels)[:, :1]
        operands = np.repeat(of_row, together, axis=1).reshape(-1)
    work, chunks = 6 * x.size, parts * sizes.chunks
    parallel_for(chunk_gradients, chunks, work, *flat, operands, totals, record(sizes))
    of_chunks = totals.reshape(parts, sizes.chunks, 2, together, sizes.channels)
    result: Array = of_chunks.sum(axis=(1, 3))
    return result


@unreported
def gradient_by(
    dy: Array,
    x: Array,
    forward: Normalised,
    of_all: Array,
    moments_of_all: Array,
    epsilon: float,
    *,
    relu: bool,
) -> Array:
    """``dx`` (R, C) of a part, from the sums (2, C) and the moments (3, C) of all parts."""
    sizes, dx = _wide_rows(x, epsilon, relu), empty_like_type(dy, *dy.shape)
    count, _, squares = moments_of_all
    rows = forward.operands.reshape(_OPERANDS, -1, sizes.channels)
    rows[_OFFSET] = of_all[0] / count
    rows[_SLOPE] = of_all[1] / (squares / count + epsilon) / count
    flat = readable(dy).reshape(-1), readable(x).reshape(-1), forward.operands, dx.reshape(-1)
    parallel_for(gradient_rows, sizes.chunks, 8 * x.size, *flat, record(sizes))
    return dx


def _wide_rows(x: Array, epsilon: float, relu: bool, adds: bool = False) -> WideRows:
    channels = x.shape[1]
    together = max(1, min(len(x), -(-_WIDTH // max(1, channels))))
    width = together * channels
    grain = max(_LEAST, _CHUNK // max(1, width))
    chunks = -(-x.size // max(1, grain * width))
    return WideRows(channels, width, x.size, grain, chunks, relu, adds, epsilon)


def _known_operands(
    gamma: Array, beta: Array | None, mean: Array, variance: Array, sizes: WideRows
) -> Array:
    """The array of operands for a mean and variance (C,) of the arrays' dtype."""
    channels = len(gamma)
    operands = empty_like_type(gamma, _OPERANDS * sizes.width)
    rows = operands.reshape(_OPERANDS, sizes.width // max(1, channels), channels)
    rows[_MEAN], rows[_MEAN_LOW], rows[_SHIFT] = mean, 0, 0 if beta is None else beta
    rows[_SCALE] = gamma / np.sqrt(convert(variance, np.float64) + sizes.epsilon)
    return operands


def _gradients(
    dy: Array,
    x: Array,
    variance: Array,
    operands: Array,
    sizes: WideRows,
    dgamma: Array,
    dbeta: Array,
) -> Array:
    """``dx`` (R, C); writes ``dgamma`` and ``dbeta`` (C,), and two rows of the operands."""
    dx = empty_like_type(dy, *dy.shape)
    totals = arrays.allocate((2 * sizes.chunks * sizes.width,), np.float64)
    channel_sums = arrays.allocate((2 * sizes.channels,), np.float64)
    numbers, flat = record(sizes), (readable(dy).reshape(-1), readable(x).reshape(-1))
    parallel_for(chunk_gradients, sizes.chunks, 6 * x.size, *flat, operands, totals, numbers)
    of_channels = channel_sums, readable(variance), operands, dgamma, dbeta
    items = -(-sizes.channels // _BLOCK)
    parallel_for(channel_gradients, items, 2 * totals.size, totals, *of_channels, numbers)
    parallel_for(gradient_rows, sizes.chunks, 8 * x.size, *flat, operands, dx.reshape(-1), numbers)
    return dx


# --- forward --------------------------------------------------------------------------------------


@ordered_device
def _add_four(totals: Array, a: Array, b: Array, c: Array, d: Array) -> None:
    """Add four rows to totals in float64."""
    wide = np.float64
    for i in range(totals.size):
        totals[i] += (wide(a[i]) + wide(b[i])) + (wide(c[i]) + wide(d[i]))


@ordered_device
def _add_one(totals: Array, a: Array) -> None:
    """Add a row, which may be shorter, to totals in float64."""
    for i in range(a.size):
        totals[i] += np.float64(a[i])


@ordered_device
def _add_two_squares(totals: Array, mean: Array, a: Array, b: Array) -> None:
    """Add the squared distances of two rows from the mean."""
    for i in range(totals.size):
        of_a, of_b = np.float64(a[i]) - mean[i], np.float64(b[i]) - mean[i]
        totals[i] += of_a * of_a + of_b * of_b


@ordered_device
def _add_squares(totals: Array, mean: Array, a: Array) -> None:
    """Add the squared distances of a row, which may be shorter, from the mean."""
    for i in range(a.size):
        distance = np.float64(a[i]) - mean[i]
        totals[i] += distance * distance


@ordered_device
def _divide(totals: Array, count: int) -> None:
    """Make means of sums of ``count`` numbers; 0 without numbers."""
    inverse = 1 / np.float64(max(count, 1))
    for i in range(totals.size):
        totals[i] *= inverse


@wide_kernel
def chunk_moments(start: int, stop: int, x: Array, totals: Array, numbers: Array) -> None:
    """The mean of each number of a wide row, and the squared distances from it, for some chunks.

    Reads x, flat. Writes totals (chunks, 2, width), flat, in float64: the means, and the sums of
    the squared distances. ``numbers`` is one record of :class:`WideRows`. The chunks of a part
    follow on those of the part before.
    """
    width, size, grain = numbers[0].width, numbers[0].size, numbers[0].grain
    chunks = max(1, numbers[0].chunks)
    for chunk in range(start, stop):
        part = chunk // chunks
        first = part * size + (chunk - part * chunks) * grain * width
        end = min((part + 1) * size, first + grain * width)
        mean = totals[2 * chunk * width : (2 * chunk + 1) * width]
        squares = totals[(2 * chunk + 1) * width : (2 * chunk + 2) * width]
        for i in range(width):
            mean[i] = 0
            squares[i] = 0
        rows = (end - first) // width
        tail = end - first - rows * width
        at = first
        for _ in range(rows // 4):
            second, third, fourth = at + width, at + 2 * width, at + 3 * width
            _add_four(
                mean, x[at:second], x[second:third], x[third:fourth], x[fourth : fourth + width]
            )
            at = fourth + width
        while at < end:
            _add_one(mean, x[at : min(at + width, end)])
            at += width
        _divide(mean[:tail], rows + 1)
        _divide(mean[tail:], rows)
        at = first
        for _ in range(rows // 2):
            second = at + width
            _add_two_squares(squares, mean, x[at:second], x[second : second + width])
            at = second + width
        while at < end:
            _add_squares(squares, mean, x[at : min(at + width, end)])
            at += width


@ordered_device
def _rows_of(numbers: int, width: int, grain: int) -> np.float64:
    """Rows of a chunk at one place of its wide rows; a chunk has at most ``grain`` wide rows."""
    return np.float64(max(0, min(grain, (numbers + width - 1) // width)))


@ordered_device
def _add_sums(totals: Array, means: Array, count: np.float64) -> None:
    """Add what ``count`` numbers of these means sum up to."""
    for c in range(totals.size):
        totals[c] += count * means[c]


@wide_kernel
def channel_moments(
    start: int,
    stop: int,
    totals: Array,
    channel_sums: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    variance: Array,
    operands: Array,
    numbers: Array,
) -> None:
    """Mean and variance (C,) of some blocks of channels, and the operands of the kernels on rows.

    Reads totals (chunks, 2, width) as :func:`chunk_moments` writes them, and gamma and beta (C,).
    Writes mean and variance (C,), and four rows of the operands (6, width). ``channel_sums`` is
    scratch, (2, C). ``numbers`` is one record of :class:`WideRows`.
    """
    channels, width, size = numbers[0].channels, numbers[0].width, numbers[0].size
    grain, chunks, epsilon = numbers[0].grain, numbers[0].chunks, numbers[0].epsilon
    together = width // max(1, channels)  # rows side by side in a wide row
    inverse_count = 1 / np.float64(max(1, size // max(1, channels)))
    for item in range(start, stop):
        begin = item * _BLOCK
        end = min(begin + _BLOCK, channels)
        centre, squares = channel_sums[begin:end], channel_sums[channels + begin : channels + end]
        for c in range(centre.size):
            centre[c] = 0
            squares[c] = 0
        for chunk in range(chunks):
            for j in range(together):
                count = _rows_of(size - chunk * grain * width - j * channels, width, grain)
                at = 2 * chunk * width + j * channels + begin
                _add_sums(centre, totals[at : at + end - begin], count)
        for c in range(centre.size):
            centre[c] *= inverse_count
        for chunk in range(chunks):
            for j in range(together):
                count = _rows_of(size - chunk * grain * width - j * channels, width, grain)
                at = 2 * chunk * width + j * channels + begin
                means_of_chunk, squares_of_chunk = totals[at:], totals[at + width :]
                for c in range(centre.size):
                    distance = means_of_chunk[c] - centre[c]
                    squares[c] += squares_of_chunk[c] + count * (distance * distance)
        for c in range(begin, end):
            variance_of_channel = squares[c - begin] * inverse_count
            mean[c], variance[c] = centre[c - begin], variance_of_channel
            mean_high = mean[c]
            scale = np.float64(gamma[c]) / np.sqrt(variance_of_channel + epsilon)
            for j in range(together):
                at = j * channels + c
                operands[_MEAN * width + at] = mean_high
                operands[_MEAN_LOW * width + at] = centre[c - begin] - np.float64(mean_high)
                operands[_SCALE * width + at] = scale
                operands[_SHIFT * width + at] = beta[c]


@wide_kernel
def normalised_rows(
    start: int, stop: int, x: Array, operands: Array, other: Array, y: Array, numbers: Array
) -> None:
    """``y = (x − mean) · scale + shift + other`` for some chunks of rows, then perhaps a ReLU.

    Reads x, flat, and operands (6, width), flat. Reads ``other``, flat, which counts where
    ``numbers``, one record of :class:`WideRows`, say so. Writes y, flat.
    """
    width, size, grain = numbers[0].width, numbers[0].size, numbers[0].grain
    relu, adds = numbers[0].relu != 0, numbers[0].adds != 0
    mean = operands[_MEAN * width : (_MEAN + 1) * width]
    mean_low = operands[_MEAN_LOW * width : (_MEAN_LOW + 1) * width]
    scale = operands[_SCALE * width : (_SCALE + 1) * width]
    shift = operands[_SHIFT * width : (_SHIFT + 1) * width]
    zero = y.dtype.type(0)
    for at in range(start * grain * width, min(size, stop * grain * width), width):
        source, summands = x[at : min(at + width, size)], other[at : min(at + width, size)]
        result = y[at : min(at + width, size)]
        for i in range(result.size):
            value = distance_from(source[i], mean[i], mean_low[i]) * scale[i] + shift[i]
            summand = summands[i]
            value = value + summand if adds else value
            result[i] = zero if relu and value < zero else value


# --- backward -------------------------------------------------------------------------------------


@ordered_device
def _passed(
    dy: Number, distance: Number, scale: Number, shift: Number, relu: bool, zero: Number
) -> Number:
    """The gradient that passes a ReLU, if there is one: where the normalised number is above 0."""
    return dy if distance * scale + shift > zero or not relu else zero


@wide_kernel
def chunk_gradients(
    start: int, stop: int, dy: Array, x: Array, operands: Array, totals: Array, numbers: Array
) -> None:
    """The sums of g and of g · (x − mean) for each number of a wide row, for some chunks.

    g is dy where a ReLU lets it pass. Reads dy and x, flat, and operands (6, width), flat. Writes
    totals (chunks, 2, width), flat, in float64. Two neighbouring wide rows are added in the arrays'
    own dtype. ``numbers`` is one record of :class:`WideRows`. The chunks of a part follow on those
    of the part before.
    """
    width, size, grain = numbers[0].width, numbers[0].size, numbers[0].grain
    chunks = max(1, numbers[0].chunks)
    relu, zero = numbers[0].relu != 0, dy.dtype.type(0)
    mean = operands[_MEAN * width : (_MEAN + 1) * width]
    mean_low = operands[_MEAN_LOW * width : (_MEAN_LOW + 1) * width]
    scale = operands[_SCALE * width : (_SCALE + 1) * width]
    shift = operands[_SHIFT * width : (_SHIFT + 1) * width]
    for chunk in range(start, stop):
        sums = totals[2 * chunk * width : (2 * chunk + 1) * width]
        products = totals[(2 * chunk + 1) * width : (2 * chunk + 2) * width]
        for i in range(width):
            sums[i] = 0
            products[i] = 0
        part = chunk // chunks
        at = part * size + (chunk - part * chunks) * grain * width
        end = min((part + 1) * size, at + grain * width)
        while at + 2 * width <= end:
            first_dy, second_dy = dy[at : at + width], dy[at + width : at + 2 * width]
            first_x, second_x = x[at : at + width], x[at + width : at + 2 * width]
            for i in range(width):
                first_distance = distance_from(first_x[i], mean[i], mean_low[i])
                second_distance = distance_from(second_x[i], mean[i], mean_low[i])
                first_g = _passed(first_dy[i], first_distance, scale[i], shift[i], relu, zero)
                second_g = _passed(second_dy[i], second_distance, scale[i], shift[i], relu, zero)
                sums[i] += first_g + second_g
                products[i] += first_g * first_distance + second_g * second_distance
            at += 2 * width
        while at < end:
            first_dy, first_x = dy[at : min(at + width, end)], x[at : min(at + width, end)]
            for i in range(first_dy.size):
                first_distance = distance_from(first_x[i], mean[i], mean_low[i])
                first_g = _passed(first_dy[i], first_distance, scale[i], shift[i], relu, zero)
                sums[i] += first_g
                products[i] += first_g * first_distance
            at += width


@wide_kernel
def channel_gradients(
    start: int,
    stop: int,
    totals: Array,
    channel_sums: Array,
    variance: Array,
    operands: Array,
    dgamma: Array,
    dbeta: Array,
    numbers: Array,
) -> None:
    """The gradients of gamma and beta (C,) for some blocks of channels, and operands of dx.

    Reads totals (chunks, 2, width) as :func:`chunk_gradients` writes them, and variance (C,).
    Writes dgamma and dbeta (C,), and two rows of the operands (6, width). ``channel_sums`` is
    scratch, (2, C). ``numbers`` is one record of :class:`WideRows`.
    """
    channels, width, size = numbers[0].channels, numbers[0].width, numbers[0].size
    chunks, epsilon = numbers[0].chunks, numbers[0].epsilon
    together = width // max(1, channels)  # rows side by side in a wide row
    inverse_count = 1 / np.float64(max(1, size // max(1, channels)))
    for item in range(start, stop):
        begin = item * _BLOCK
        end = min(begin + _BLOCK, channels)
        sums, products = channel_sums[begin:end], channel_sums[channels + begin : channels + end]
        for c in range(sums.size):
            sums[c] = 0
            products[c] = 0
        for chunk in range(chunks):
            for j in range(together):
                at = 2 * chunk * width + j * channels + begin
                sums_of_chunk, products_of_chunk = totals[at:], totals[at + width :]
                for c in range(sums.size):
                    sums[c] += sums_of_chunk[c]
                    products[c] += products_of_chunk[c]
        for c in range(begin, end):
            total, product = sums[c - begin], products[c - begin]
            # Without rows the gradients are 0 for all statistics, also where the inverse is not
            # finite.
            inverse = 1 / np.sqrt(np.float64(variance[c]) + epsilon) if size else np.float64(0)
            dgamma[c], dbeta[c] = product * inverse, total
            slope = product * inverse * inverse * inverse_count
            for j in range(together):
                operands[_OFFSET * width + j * channels + c] = total * inverse_count
                operands[_SLOPE * width + j * channels + c] = slope


@wide_kernel
def gradient_rows(
    start: int, stop: int, dy: Array, x: Array, operands: Array, dx: Array, numbers: Array
) -> None:
    """``dx = (g − offset − (x − mean) · slope) · scale`` for some chunks of rows.

    g is dy where a ReLU lets it pass. Reads dy and x, flat, and operands (6, width), flat; writes
    dx, flat. ``numbers`` is one record of :class:`WideRows`.
    """
    width, size, grain = numbers[0].width, numbers[0].size, numbers[0].grain
    relu, zero = numbers[0].relu != 0, dy.dtype.type(0)
    mean = operands[_MEAN * width : (_MEAN + 1) * width]
    mean_low = operands[_MEAN_LOW * width : (_MEAN_LOW + 1) * width]
    scale = operands[_SCALE * width : (_SCALE + 1) * width]
    shift = operands[_SHIFT * width : (_SHIFT + 1) * width]
    offset = operands[_OFFSET * width : (_OFFSET + 1) * width]
    slope = operands[_SLOPE * width : (_SLOPE + 1) * width]
    for at in range(start * grain * width, min(size, stop * grain * width), width):
        dy_row, x_row = dy[at : min(at + width, size)], x[at : min(at + width, size)]
        result = dx[at : min(at + width, size)]
        for i in range(result.size):
            distance = distance_from(x_row[i], mean[i], mean_low[i])
            g = _passed(dy_row[i], distance, scale[i], shift[i], relu, zero)
            result[i] = (g - (offset[i] + distance * slope[i])) * scale[i]
