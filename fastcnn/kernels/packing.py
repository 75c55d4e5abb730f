"""Copies that put arrays where tiles read them in order: turned filters, images between zeros.

Also the check that goes with padding as zeros: a product of zero and infinity is no zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastcnn.arguments import Array
from fastcnn.kernels.arrays import empty_like_type
from fastcnn.kernels.jit import kernel
from fastcnn.kernels.threads import parallel_for


def turn_filters(w: Array, groups: int, width: int) -> Array:
    """Filters with input and output channels exchanged, in blocks of ``width`` input channels.

    From (KH, KW, IC/groups, OC) a flat ``[group][block][kh][kw][oc][width]``; channels beyond the
    last are 0.
    """
    kh, kw, ic, oc = w.shape
    blocks = -(-ic // width)
    turned = empty_like_type(w, groups * blocks * kh * kw * (oc // groups) * width)
    taps = w.reshape(kh * kw, ic, groups, oc // groups)
    items = groups * blocks * kh * kw
    parallel_for(_turn_taps, items, 4 * w.size, taps, turned, width, blocks)
    return turned


class Images(NamedTuple):
    """Images as tiles read them: ``data[n, ih + top, iw + left, channel]``, flat.

    ``pitch`` is the number of elements from one pixel to the next, at least the channels.
    """

    data: Array
    height: int
    width: int
    pitch: int


def lay_out(
    x: Array, top: int, bottom: int, left: int, right: int, stride: tuple[int, int] = (1, 1)
) -> Images:
    """The images between zeros; with a ``stride``, of their pixels only every such one.

    Where neighbouring pixels lie a multiple of 2 KiB apart, they would fall into the same few
    sets of the first-level cache, and a tile's rows would push each other out (measured: a loss
    of a quarter on 1024 channels); then a cache line is left free between them. Images that need
    nothing of this are taken as they are.
    """
    n, h, w, c = x.shape
    spread = c * x.itemsize % 2048 == 0
    if not (top or bottom or left or right or spread) and stride == (1, 1):
        return Images(x.reshape(-1), h, w, c)
    pitch = c + 64 // x.itemsize if spread else c
    height = -(-(h + top + bottom) // stride[0])
    width = -(-(w + left + right) // stride[1])
    data = empty_like_type(x, n, height, width, pitch)
    parallel_for(_lay_out_rows, n * height, data.size, x, data, top, left, *stride)
    return Images(data.reshape(-1), height, width, pitch)


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
def _lay_out_rows(
    start: int,
    stop: int,
    x: Any,
    data: Any,
    top: int,
    left: int,
    stride_h: int,
    stride_w: int,
) -> None:
    _, h, w, c = x.shape
    height, width = data.shape[1:3]
    for row in range(start, stop):
        n, out = row // height, row % height
        ih = out * stride_h - top
        if ih < 0 or ih >= h:
            data[n, out] = 0
            continue
        for column in range(width):
            iw = column * stride_w - left
            if iw < 0 or iw >= w:
                for channel in range(c):
                    data[n, out, column, channel] = 0
            else:
                for channel in range(c):
                    data[n, out, column, channel] = x[n, ih, iw, channel]
