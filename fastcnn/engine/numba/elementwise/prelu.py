"""PReLU, whose negative numbers are scaled by a slope for each channel, and its gradients.

Arrays are flat, and seen as rows of ``period`` numbers; the last row may be shorter. The slopes
have the length of a row. If there are few channels they are repeated, because loops over short rows
are slow. The gradient of the slopes is a sum over all rows, in float64: first in chunks of some
rows, then over the chunks and the repeated slopes in order. An item is a chunk, so results do not
depend on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel

_PERIOD = 256  # numbers of a row, at least
_CHUNK = 16 * 1024  # numbers of a chunk, about


class PReLURows(NamedTuple):
    """How a flat array is cut.

    Attributes:
        length: numbers of the array.
        period: numbers of a row, a multiple of the channels.
        grain: rows of a chunk.
        channels: how many slopes there are.
    """

    length: int
    period: int
    grain: int
    channels: int

    @property
    def chunks(self) -> int:
        """How many chunks there are, at least one."""
        return max(1, -(-self.length // (self.period * self.grain)))


def prelu(x: Array, slope: Array) -> Array:
    """``x`` where it is above 0, else ``slope * x``, for x (rows, channels)."""
    y, rows = empty_like_type(x, *x.shape), rows_of(x.shape)
    operands = readable(x).reshape(-1), _row_of(slope, rows), y.reshape(-1)
    parallel_for(prelu_kernel(False), rows.chunks, x.size, *operands, record(rows))
    return y


def prelu_backward(dy: Array, x: Array, slope: Array) -> tuple[Array, Array]:
    """``dx`` (rows, channels) and ``dslope`` (channels,)."""
    dx, dslope = empty_like_type(x, *x.shape), empty_like_type(x, x.shape[1])
    rows = rows_of(x.shape)
    sums = arrays.allocate((rows.chunks * rows.period,), np.float64)
    operands = readable(dy).reshape(-1), readable(x).reshape(-1), _row_of(slope, rows)
    numbers = record(rows)
    parallel_for(
        prelu_gradient_kernel, rows.chunks, 2 * x.size, *operands, dx.reshape(-1), sums, numbers
    )
    parallel_for(slope_sums_kernel, rows.channels, sums.size, sums, dslope, numbers)
    return dx, dslope


def rows_of(shape: tuple[int, ...]) -> PReLURows:
    """The rows of an array of this shape (count, channels)."""
    count, channels = shape
    period = channels * -(-_PERIOD // channels)
    return PReLURows(count * channels, period, max(1, _CHUNK // period), channels)


def _row_of(slope: Array, rows: PReLURows) -> Array:
    """The slopes, repeated to fill a row."""
    if rows.period == rows.channels:
        return readable(slope)
    repeated = empty_like_type(slope, rows.period)
    repeated.reshape(-1, rows.channels)[...] = slope
    return repeated


@kernel_factory
def prelu_kernel(in_place: bool) -> Kernel:
    """The kernel of PReLU; with ``in_place`` y is x, and x is not read."""

    @ordered_kernel
    def prelu_rows(start: int, stop: int, x: Array, slope: Array, y: Array, numbers: Array) -> None:
        """``y = x`` where ``x > 0``, else ``slope * x``, for some chunks; slope is (period,).

        ``numbers`` is a record of :class:`PReLURows`.
        """
        length, period = numbers[0].length, numbers[0].period
        stride = period * numbers[0].grain
        slopes = slope[0:period]
        for first in range(start * stride, min(length, stop * stride), period):
            last = min(length, first + period)
            out = y[first:last]
            row = out if in_place else x[first:last]
            for i in range(out.size):
                value = row[i]
                below = slopes[i] * value
                out[i] = value if value > 0 else below

    return prelu_rows


@ordered_kernel
def prelu_gradient_kernel(
    start: int,
    stop: int,
    dy: Array,
    x: Array,
    slope: Array,
    dx: Array,
    sums: Array,
    numbers: Array,
) -> None:
    """``dx = dy`` where ``x > 0``, else ``slope * dy``, for some chunks, and their ``Σ dy · x``.

    ``slope`` is (period,), ``sums`` (chunks, period) in float64: sums of dy · x over the rows of a
    chunk, without numbers x above 0. ``numbers`` is a record of :class:`PReLURows`.
    """
    length, period, grain = numbers[0].length, numbers[0].period, numbers[0].grain
    slopes = slope[0:period]
    for chunk in range(start, stop):
        totals = sums[chunk * period : (chunk + 1) * period]
        for i in range(totals.size):
            totals[i] = 0
        begin = chunk * grain * period
        for first in range(begin, min(length, begin + grain * period), period):
            last = min(length, first + period)
            gradients, row, out = dy[first:last], x[first:last], dx[first:last]
            for i in range(out.size):
                gradient, value = gradients[i], row[i]
                below = slopes[i] * gradient
                product = np.float64(gradient) * np.float64(value)
                out[i] = gradient if value > 0 else below
                totals[i] += 0.0 if value > 0 else product


@ordered_kernel
def slope_sums_kernel(start: int, stop: int, sums: Array, dslope: Array, numbers: Array) -> None:
    """``dslope`` for channels ``start`` to ``stop``: the total of the sums of all chunks.

    ``sums`` is seen as (chunks * period / channels, channels), float64, because the slopes of a
    period are repeated. The kernel adds the other rows to the first, and overwrites it.
    ``numbers`` is a record of :class:`PReLURows`.
    """
    length, period, channels = numbers[0].length, numbers[0].period, numbers[0].channels
    stride = period * numbers[0].grain
    chunks = max(1, (length + stride - 1) // stride)
    totals, out = sums[start:stop], dslope[start:stop]
    for row in range(1, chunks * period // channels):
        terms = sums[row * channels + start : row * channels + stop]
        for i in range(totals.size):
            totals[i] += terms[i]
    for i in range(out.size):
        out[i] = totals[i]
