"""Kernels that only programs of whole nets call, as steps between the kernels of operations.

A step's arrays are flat, and begin at its slice (:mod:`fastcnn.engine.numba.runtime.program`). An
array ``numbers`` holds one record.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.elementwise.activations import log_sum_exp, softmax_row
from fastcnn.engine.numba.elementwise.loss import soft_loss
from fastcnn.engine.numba.runtime.floats import multiply_add
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel, ordered_kernel
from fastcnn.engine.numba.runtime.runs import copy_run, zero_run
from fastcnn.engine.numba.runtime.types import Kernel


@ordered_kernel
def scale_bytes(start: int, stop: int, x: Array, y: Array) -> None:
    """``y = x / 255 − 0.5`` for bytes x, with the roundings of samples outside of programs."""
    scale = y.dtype.type(1 / 255)
    x, y = x[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = y.dtype.type(x[i]) * scale - y.dtype.type(0.5)


@kernel
def copy(start: int, stop: int, x: Array, y: Array) -> None:
    """``y = x``."""
    copy_run(y, start, x, start, stop - start)


@kernel
def zero(start: int, stop: int, x: Array, y: Array) -> None:
    """``y = 0``; ``x`` is not read."""
    zero_run(y, start, stop - start)


@kernel
def mask(start: int, stop: int, y: Array, dy: Array) -> None:
    """Set ``dy`` to 0 where ``y <= 0`` or y is NaN; ``dy`` is input and output, to save memory."""
    y, dy = y[start:stop], dy[start:stop]
    for i in range(dy.size):
        value = dy[i]
        dy[i] = value if y[i] > 0 else 0


@device
def first_largest(row: Array) -> int:
    """The index of the largest number of a row (C,); of equal numbers the first."""
    best = 0
    for c in range(1, row.size):
        if row[c] > row[best]:
            best = c
    return best


@ordered_kernel
def loss_rows(
    start: int,
    stop: int,
    logits: Array,
    labels: Array,
    weights: Array,
    gradient: Array,
    totals: Array,
    numbers: Array,
) -> None:
    """Softmax cross-entropy of some samples, and the gradient of the mean of the weighted losses.

    Reads logits (N, C), labels (N,), weights (N,) and one record of ``SoftmaxRows``
    (:mod:`.activations`). Writes the gradient (N, C), and ``totals`` (2,): the sum of the weighted
    losses, and how many samples are right. If a label is no class, the sum is NaN, and the label is
    no index.
    """
    classes, batch = numbers[0].columns, numbers[0].batch
    share = logits.dtype.type(1 / batch)
    totals[0], totals[1] = 0, 0
    for n in range(start, stop):
        first = n * classes
        row, out = logits[first : first + classes], gradient[first : first + classes]
        label = labels[n]
        if label < 0 or label >= classes:
            totals[0] = np.nan
            continue
        largest, log_total = log_sum_exp(row)
        totals[0] += logits.dtype.type(log_total - (row[label] - largest)) * weights[n]
        totals[1] += first_largest(row) == label
        softmax_row(row, out)
        out[label] -= 1
        scale = share * weights[n]
        for c in range(classes):
            out[c] *= scale


@ordered_kernel
def soft_loss_rows(
    start: int,
    stop: int,
    logits: Array,
    probabilities: Array,
    weights: Array,
    gradient: Array,
    totals: Array,
    numbers: Array,
) -> None:
    """As :func:`loss_rows`, with a row of probabilities (N, C) for each sample instead of a label.

    A sample is right if its largest logit has the index of its largest probability. On one-hot rows
    the results are equal to the bit to those of :func:`loss_rows`.
    """
    classes, batch = numbers[0].columns, numbers[0].batch
    share = logits.dtype.type(1 / batch)
    totals[0], totals[1] = 0, 0
    for n in range(start, stop):
        first = n * classes
        row, out = logits[first : first + classes], gradient[first : first + classes]
        target = probabilities[first : first + classes]
        totals[0] += logits.dtype.type(soft_loss(row, target)) * weights[n]
        totals[1] += first_largest(row) == first_largest(target)
        softmax_row(row, out)
        scale = share * weights[n]
        for c in range(classes):
            out[c] = (out[c] - target[c]) * scale


class Norm(NamedTuple):
    """Channels of a batch normalisation, whether it stands alone, and whether there is a bias."""

    channels: int
    alone: int
    biased: int


@ordered_kernel
def channel_numbers(
    start: int,
    stop: int,
    gamma: Array,
    beta: Array,
    mean: Array,
    variance: Array,
    bias: Array,
    out: Array,
    floats: Array,
    numbers: Array,
) -> None:
    """The operand ``b`` of a fused kernel, for channels ``start`` to ``stop``.

    Reads gamma, beta, mean, variance and bias (C,), ``floats`` (2,) in float64 (the epsilon, and
    the largest number of a clipped ReLU), and one record of :class:`Norm`. Writes the bias, a scale
    and a shift for each channel, and the largest number, to ``out`` (3 · C + 1,). For a
    normalisation that stands alone it writes the mean instead of the bias, and beta as the shift.
    """
    c, alone, biased = numbers[0].channels, numbers[0].alone, numbers[0].biased
    for i in range(start, stop):
        scale = np.float64(gamma[i]) / np.sqrt(np.float64(variance[i]) + floats[0])
        out[c + i] = scale
        if alone:
            out[i] = mean[i]
            out[2 * c + i] = beta[i]
        else:
            out[i] = bias[i] if biased else out.dtype.type(0)
            out[2 * c + i] = np.float64(beta[i]) - np.float64(mean[i]) * scale
        if i == 0:
            out[3 * c] = floats[1]


class Finish(NamedTuple):
    """Numbers and channels of images, and whether a ReLU follows, and one that is clipped."""

    numbers: int
    channels: int
    relu: int
    capped: int


@kernel_factory
def scale_channels(in_place: bool) -> Kernel:
    """The kernel of a batch normalisation; with ``in_place`` y is x, and x is not read."""

    @ordered_kernel
    def scaled_channels(
        start: int, stop: int, x: Array, b: Array, y: Array, numbers: Array
    ) -> None:
        """``y = (x − mean) · scale + beta`` for rows of C channels, then perhaps a ReLU.

        The mean is subtracted first, because numbers far from 0 would lose their digits in a
        product. Reads x (rows, C), b (3 · C + 1,) as :func:`channel_numbers` makes it, and a
        record of :class:`Finish`; writes y (rows, C).
        """
        c, relu, capped = numbers[0].channels, numbers[0].relu, numbers[0].capped
        mean, scale, shift, top = b[:c], b[c : 2 * c], b[2 * c : 3 * c], b[3 * c]
        zero = y.dtype.type(0)
        for row in range(start, stop):
            result = y[row * c : (row + 1) * c]
            source = result if in_place else x[row * c : (row + 1) * c]
            for i in range(c):
                value = (source[i] - mean[i]) * scale[i] + shift[i]
                if relu:
                    value = zero if value < zero else value
                if capped:
                    value = top if value > top else value
                result[i] = value

    return scaled_channels


@kernel_factory
def scale_and_shift(in_place: bool) -> Kernel:
    """The kernel of filters of one pixel; with ``in_place`` y is x, and x is not read."""

    @ordered_kernel
    def scaled_and_shifted(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, channels: int, relu: bool
    ) -> None:
        """``y = x · w + b`` for rows of C channels, rounded as a depthwise convolution rounds it.

        Reads x (rows, C), w (C,) and b (C,); writes y (rows, C).
        """
        w, b, zero = w[:channels], b[:channels], y.dtype.type(0)
        for row in range(start, stop):
            result = y[row * channels : (row + 1) * channels]
            source = result if in_place else x[row * channels : (row + 1) * channels]
            for i in range(channels):
                value = multiply_add(source[i], w[i], b[i])
                result[i] = zero if relu and value < zero else value

    return scaled_and_shifted


@kernel
def add_finished(start: int, stop: int, a: Array, b: Array, y: Array, relu: bool) -> None:
    """``y = a + b`` on flat arrays, then perhaps a ReLU."""
    a, b, y = a[start:stop], b[start:stop], y[start:stop]
    zero = y.dtype.type(0)
    for i in range(y.size):
        value = a[i] + b[i]
        y[i] = zero if relu and value < zero else value
