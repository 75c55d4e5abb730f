"""Copies that put arrays where tiles read them in order: turned filters, images between zeros.

Also the check that goes with padding as zeros: a product of zero and infinity is no zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.arguments import Array
from fastcnn.kernels.jit import kernel
from fastcnn.kernels.threads import parallel_for


def turn_filters(w: Array, groups: int, width: int) -> Array:
    """Filters with input and output channels exchanged, in blocks of ``width`` input channels.

    From (KH, KW, IC/groups, OC) a flat ``[group][block][kh][kw][oc][width]``; channels beyond the
    last are 0.
    """
    kh, kw, ic, oc = w.shape
    blocks = -(-ic // width)
    turned = np.empty(groups * blocks * kh * kw * (oc // groups) * width, w.dtype)
    taps = w.reshape(kh * kw, ic, groups, oc // groups)
    items = groups * blocks * kh * kw
    parallel_for(_turn_taps, items, 4 * w.size, taps, turned, width, blocks)
    return turned


def pad_images(x: Array, top: int, bottom: int, left: int, right: int) -> Array:
    """``x`` (N, H, W, C) between zeros, or ``x`` itself where there are none to add."""
    if not (top or bottom or left or right):
        return x
    n, h, w, c = x.shape
    padded = np.empty((n, h + top + bottom, w + left + right, c), x.dtype)
    rows = n * padded.shape[1]
    parallel_for(_pad_rows, rows, padded.size, x, padded, top, left)
    return padded


def all_finite(values: Array) -> bool:
    """Whether no number of a flat array is infinite or NaN."""
    return bool(_sum_of_zeros(values) == 0)


def sum_rows(values: Array, sums: Array) -> None:
    """``sums[n] = Σ values[n]`` over the middle axis of (N, rows, columns), in order."""
    parallel_for(_sum_rows, len(values), values.size, values, sums)


@kernel
def _sum_rows(start: int, stop: int, values: Any, sums: Any) -> None:
    for n in range(start, stop):
        sums[n] = 0
        for p in range(values.shape[1]):
            for c in range(values.shape[2]):
                sums[n, c] += values[n, p, c]


@kernel
def _sum_of_zeros(values: Any) -> Any:
    """0 where all are finite, else NaN; a sum, since a loop with an early exit is no faster."""
    total = values.dtype.type(0)
    for i in range(values.size):
        total += values[i] * values.dtype.type(0)
    return total


@kernel
def _turn_taps(start: int, stop: int, w: Any, turned: Any, width: int, blocks: int) -> None:
    taps, ic, _, columns = w.shape
    for item in range(start, stop):
        tap, block = item % taps, item // taps % blocks
        group = item // taps // blocks
        first = block * width
        count = min(width, ic - first)
        place = item * columns * width
        for column in range(columns):
            for row in range(count):
                turned[place + column * width + row] = w[tap, first + row, group, column]
            for row in range(count, width):
                turned[place + column * width + row] = 0


@kernel
def _pad_rows(start: int, stop: int, x: Any, padded: Any, top: int, left: int) -> None:
    _, h, w, c = x.shape
    height, width = padded.shape[1:3]
    for row in range(start, stop):
        n, ih = row // height, row % height - top
        if ih < 0 or ih >= h:
            padded[n, ih + top] = 0
            continue
        for iw in range(left):
            for channel in range(c):
                padded[n, ih + top, iw, channel] = 0
        for iw in range(w):
            for channel in range(c):
                padded[n, ih + top, iw + left, channel] = x[n, ih, iw, channel]
        for iw in range(w + left, width):
            for channel in range(c):
                padded[n, ih + top, iw, channel] = 0
