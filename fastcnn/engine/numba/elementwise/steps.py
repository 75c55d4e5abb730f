"""Kernels that only programs of whole nets call; the layers' own are those of the operations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastcnn.engine.numba.elementwise.activations import log_sum_exp, softmax_row
from fastcnn.engine.numba.elementwise.loss import soft_loss
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.jit import kernel, ordered_kernel
from fastcnn.engine.numba.runtime.runs import copy_run, zero_run


class Rows(NamedTuple):
    """A matrix, and how many samples the whole batch has."""

    rows: int
    columns: int
    batch: int


@ordered_kernel
def scale_bytes(start: int, stop: int, x: Any, y: Any) -> None:
    """Bytes as numbers, ``x / 255 − 0.5``, to the bit as outside of programs."""
    scale = y.dtype.type(1 / 255)
    x, y = x[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = y.dtype.type(x[i]) * scale - y.dtype.type(0.5)


@kernel
def copy(start: int, stop: int, x: Any, y: Any) -> None:
    """``y = x``."""
    copy_run(y, start, x, start, stop - start)


@kernel
def zero(start: int, stop: int, x: Any, y: Any) -> None:
    """``y = 0``; ``x`` is not looked at."""
    zero_run(y, start, stop - start)


@kernel
def mask(start: int, stop: int, x: Any, y: Any) -> None:
    """``y`` where ``x > 0``, else 0, in its place: less memory passes through the cache."""
    x, y = x[start:stop], y[start:stop]
    for i in range(y.size):
        value = y[i]
        y[i] = value if x[i] > 0 else 0


@device
def first_largest(row: Any) -> int:
    """The index of the largest number of a row, of equal ones the first."""
    best = 0
    for c in range(1, row.size):
        if row[c] > row[best]:
            best = c
    return best


@ordered_kernel
def loss_rows(
    start: int,
    stop: int,
    logits: Any,
    labels: Any,
    weights: Any,
    gradient: Any,
    totals: Any,
    numbers: Any,
) -> None:
    """Softmax cross-entropy of some samples, and its gradient for the weighted losses' mean.

    ``totals`` takes the sum of the weighted losses and how many samples are right. Where a label
    is no class, the sum is NaN, and nothing is read or written by that label.
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
    logits: Any,
    probabilities: Any,
    weights: Any,
    gradient: Any,
    totals: Any,
    numbers: Any,
) -> None:
    """As :func:`loss_rows`, with a row of probabilities for each sample in place of a label.

    A sample is right if its largest logit stands where its largest probability does. On one-hot
    rows it computes to the bit what :func:`loss_rows` does.
    """
    classes, batch = numbers[0].columns, numbers[0].batch
    share = logits.dtype.type(1 / batch)
    totals[0], totals[1] = 0, 0
    for n in range(start, stop):
        first = n * classes
        row, out = logits[first : first + classes], gradient[first : first + classes]
        wanted = probabilities[first : first + classes]
        totals[0] += logits.dtype.type(soft_loss(row, wanted)) * weights[n]
        totals[1] += first_largest(row) == first_largest(wanted)
        softmax_row(row, out)
        scale = share * weights[n]
        for c in range(classes):
            out[c] = (out[c] - wanted[c]) * scale


@kernel
def softmax_rows(start: int, stop: int, x: Any, y: Any, numbers: Any) -> None:
    """Softmax of some rows."""
    columns = numbers[0].columns
    for n in range(start, stop):
        first = n * columns
        softmax_row(x[first : first + columns], y[first : first + columns])


class Slabs(NamedTuple):
    """Arrays to be added up: how many, where the first begins, and how far they lie apart."""

    slabs: int
    first: int
    step: int


@kernel
def sum_slabs(start: int, stop: int, slabs: Any, sums: Any, pieces: Any, numbers: Any) -> None:
    """``sums = Σ slabs`` in their order, on pieces (place, length) of each."""
    count, first, step = numbers[0].slabs, numbers[0].first, numbers[0].step
    for item in range(start, stop):
        place = pieces[2 * item]
        length = pieces[2 * item + 1]
        total = sums[place : place + length]
        part = slabs[first + place : first + place + length]
        for i in range(total.size):
            total[i] = part[i]
        for slab in range(1, count):
            at = first + slab * step + place
            part = slabs[at : at + length]
            for i in range(total.size):
                total[i] += part[i]
