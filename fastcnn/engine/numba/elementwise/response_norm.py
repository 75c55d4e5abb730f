"""Local response normalisation as compiled loops over rows (R, C), the channels of a pixel.

The sums over the window of each channel are taken for a row at once, one position of the window
after the other. An item is some rows, which share the memory for these sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel, Number

_GRAIN = 4 * 1024  # numbers of an item, about
_POWER = 20  # operations that a power counts for, when work is split over threads


def local_response_norm(x: Array, size: int, alpha: float, beta: float, bias: float) -> Array:
    """``y = x / (bias + alpha / size · Σ x²) ** beta`` on rows (R, C)."""
    y, plan = empty_like_type(x, *x.shape), response(x.shape, size, alpha, beta, bias, x.itemsize)
    operands = readable(x).reshape(-1), y.reshape(-1), plan.scratch(1), record(plan.sizes)
    parallel_for(response_rows(beta == 0.75), plan.items, plan.work, *operands)
    return y


def local_response_norm_backward(
    dy: Array, x: Array, size: int, alpha: float, beta: float, bias: float
) -> Array:
    """``dx`` on rows (R, C)."""
    dx, plan = empty_like_type(x, *x.shape), response(x.shape, size, alpha, beta, bias, x.itemsize)
    operands = readable(dy).reshape(-1), readable(x).reshape(-1), dx.reshape(-1)
    tables, work = (plan.scratch(2), record(plan.sizes)), (_POWER + 2 * size) * x.size
    parallel_for(_response_gradient_rows(beta == 0.75), plan.items, work, *operands, *tables)
    return dx


class Response(NamedTuple):
    """Rows of ``channels`` numbers, and the parameters.

    The window of a channel has ``before`` channels before it, and ``after`` channels after it. An
    item has ``grain`` rows. ``scale`` is alpha / size.
    """

    rows: int
    channels: int
    grain: int
    before: int
    after: int
    scale: float
    beta: float
    bias: float


class ResponsePlan(NamedTuple):
    """The sizes of a normalisation, its items and work, and the dtype of the sums."""

    sizes: Response
    items: int
    work: int
    dtype: np.dtype[np.floating]

    def scratch(self, rows: int) -> Array:
        """Memory for so many rows of sums in each item."""
        return arrays.allocate((rows * self.items * self.sizes.channels,), self.dtype)


def response(
    shape: tuple[int, ...], size: int, alpha: float, beta: float, bias: float, itemsize: int
) -> ResponsePlan:
    """The plan for rows (R, C). Long sums are taken in float64."""
    rows, channels = shape
    grain, before = max(1, _GRAIN // channels), (size - 1) // 2
    most = channels - 1  # more neighbours no channel has
    sizes = Response(
        rows, channels, grain, min(before, most), min(size - 1 - before, most), alpha / size, beta,
        bias,
    )  # fmt: skip
    narrow = itemsize == 4 and min(size, channels) <= STRETCH
    dtype: np.dtype[np.floating] = np.dtype(np.float32 if narrow else np.float64)
    return ResponsePlan(sizes, -(-rows // grain), (_POWER + size) * rows * channels, dtype)


@device
def _power(base: Number, beta: Number) -> Number:
    """``base ** -beta``."""
    result: Number = base**-beta
    return result


@device
def _three_quarters(base: Number, beta: Number) -> Number:
    """``base ** -0.75`` by square roots, which have vector instructions."""
    root = np.sqrt(base)
    result: Number = np.float32(1) / (root * np.sqrt(root))
    return result


def _power_for(three_quarters: bool) -> DeviceFunction:
    return _three_quarters if three_quarters else _power


@device
def _add_squares(sums: Array, x: Array) -> None:
    for c in range(sums.size):
        number = sums.dtype.type(x[c])
        sums[c] += number * number


@device
def _add(sums: Array, terms: Array) -> None:
    for c in range(sums.size):
        sums[c] += terms[c]


@device
def _bases(x: Array, sums: Array, before: int, after: int, scale: float, bias: float) -> None:
    """``sums = bias + scale · Σ x²`` over the window of each channel."""
    c, number = x.size, sums.dtype.type
    for i in range(c):
        sums[i] = 0
    for step in range(-before, after + 1):
        first, last = max(0, -step), min(c, c - step)
        _add_squares(sums[first:last], x[first + step : last + step])
    for i in range(c):
        sums[i] = number(bias) + number(scale) * sums[i]


@kernel_factory
def response_rows(three_quarters: bool) -> Kernel:
    power = _power_for(three_quarters)

    @device
    def write(x: Array, bases: Array, beta: float, y: Array) -> None:
        number = y.dtype.type
        for c in range(y.size):
            y[c] = x[c] * power(number(bases[c]), number(beta))

    @kernel
    def normalised_rows(
        start: int, stop: int, x: Array, y: Array, scratch: Array, numbers: Array
    ) -> None:
        """Items ``start`` to ``stop`` of y (R, C), flat; ``numbers`` is one record of Response."""
        c, grain = numbers[0].channels, numbers[0].grain
        for item in range(start, stop):
            bases = scratch[item * c : (item + 1) * c]
            for row in range(item * grain, min(numbers[0].rows, (item + 1) * grain)):
                pixel = x[row * c : (row + 1) * c]
                before, after = numbers[0].before, numbers[0].after
                _bases(pixel, bases, before, after, numbers[0].scale, numbers[0].bias)
                write(pixel, bases, numbers[0].beta, y[row * c : (row + 1) * c])

    return normalised_rows


@kernel_factory
def _response_gradient_rows(three_quarters: bool) -> Kernel:
    power = _power_for(three_quarters)

    @device
    def write(dy: Array, x: Array, bases: Array, beta: float, terms: Array, dx: Array) -> None:
        """``dx = dy · base ** −beta``, and ``terms = dx · x / base``."""
        number = dx.dtype.type
        for c in range(dx.size):
            base = number(bases[c])
            direct = dy[c] * power(base, number(beta))
            dx[c] = direct
            terms[c] = direct * x[c] / base

    @device
    def subtract(x: Array, sums: Array, factor: float, dx: Array) -> None:
        """``dx −= factor · x · Σ terms``."""
        number = dx.dtype.type
        for c in range(dx.size):
            dx[c] -= number(factor) * x[c] * number(sums[c])

    @kernel
    def response_gradient_rows(
        start: int, stop: int, dy: Array, x: Array, dx: Array, scratch: Array, numbers: Array
    ) -> None:
        """Items ``start`` to ``stop`` of dx (R, C), flat; ``numbers`` is one record of Response."""
        c, grain, beta = numbers[0].channels, numbers[0].grain, numbers[0].beta
        factor = 2 * numbers[0].scale * beta
        for item in range(start, stop):
            sums = scratch[2 * item * c : (2 * item + 1) * c]
            terms = scratch[(2 * item + 1) * c : (2 * item + 2) * c]
            for row in range(item * grain, min(numbers[0].rows, (item + 1) * grain)):
                at, end = row * c, (row + 1) * c
                before, after = numbers[0].before, numbers[0].after
                _bases(x[at:end], sums, before, after, numbers[0].scale, numbers[0].bias)
                write(dy[at:end], x[at:end], sums, beta, terms, dx[at:end])
                for i in range(c):
                    sums[i] = 0
                # The channels in whose windows a channel lies: before and after change places.
                for step in range(-after, before + 1):
                    first, last = max(0, -step), min(c, c - step)
                    _add(sums[first:last], terms[first + step : last + step])
                subtract(x[at:end], sums, factor, dx[at:end])

    return response_gradient_rows
