"""Copies that tiles read in order: filters transposed into blocks, images between zeros."""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.runtime.arrays import empty_like_type, record
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import copy_run, zero_run
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.transposes import transpose_square

_STEPS = 8
"""Rows of filters of an item when filters are packed: their lines stay in the first-level cache
while one block after the other is read from them."""


def transpose_filters(w: Array, groups: int, width: int) -> Array:
    """Filters with input and output channels exchanged, in blocks of ``width`` input channels.

    From (KH, KW, IC/groups, OC) a flat ``[group][block][kh][kw][oc][width]``; channels beyond the
    last are 0.
    """
    kh, kw, ic, oc = w.shape
    blocks = -(-ic // width)
    columns, items = oc // groups, groups * blocks * kh * kw
    transposed = empty_like_type(w, items * columns * width)
    operands = w.reshape(-1), transposed, kh * kw, ic, oc, columns, width
    parallel_for(transpose_kernel(width, columns, w.itemsize), items, w.size, *operands)
    return transposed


def transpose_kernel(width: int, columns: int, itemsize: int) -> Kernel:
    """The kernel of :func:`transpose_filters`; an item is a block at a tap.

    Its operands are ``(w, transposed, taps, ic, oc, columns, width)``.
    """
    lanes = min(registers().vector_bytes // itemsize, width)
    while lanes > 2 and columns < lanes:
        lanes //= 2
    function: Kernel = _transpose_taps(lanes)
    return function


def pack_filters(w: Array, first: int, columns: int, vectors: int, lanes: int) -> Array:
    """Output channels ``first`` to ``first + columns`` in blocks of ``width = vectors * lanes``.

    From (KH, KW, IC/groups, OC) a flat ``[block][kh][kw][ic][width]``; channels beyond the last
    are 0.
    """
    oc = w.shape[3]
    steps = w.size // oc
    blocks = -(-columns // (vectors * lanes))
    packed = empty_like_type(w, blocks * steps * vectors * lanes)
    kernel, items = packing_kernel(steps, vectors, lanes)
    flat = w.reshape(-1)[first:]
    parallel_for(kernel, items, steps * columns, flat, packed, steps, oc, columns)
    return packed


def packing_kernel(steps: int, vectors: int, lanes: int) -> tuple[Kernel, int]:
    """The kernel of :func:`pack_filters`, ``(w, packed, steps, oc, columns)``, and its items."""
    return _pack_steps(vectors, lanes), -(-steps // _STEPS)


class Layout(NamedTuple):
    """How images lie where tiles read them: (N, height, width, pitch), flat.

    ``pitch`` is the number of elements from one pixel to the next, at least the channels. Where
    not ``copied``, the images are taken as they are.
    """

    height: int
    width: int
    pitch: int
    top: int
    left: int
    stride_h: int
    stride_w: int
    copied: bool


def layout_of(
    shape: tuple[int, ...],
    itemsize: int,
    margins: tuple[int, int, int, int],
    stride: tuple[int, int] = (1, 1),
) -> Layout:
    """Images of ``shape`` with zeros (top, bottom, left, right) around them.

    With ``stride``, pixels that far apart. Neighbouring pixels a multiple of 2 KiB apart would
    fall into the same few sets of the first-level cache, and the rows of a tile would push each
    other out. Then a cache line stays free between them (docs/measurements.md, "A free cache line
    between pixels").
    """
    _, h, w, c = shape
    top, bottom, left, right = margins
    spread = c * itemsize % 2048 == 0
    pitch = c + CACHE_LINE // itemsize if spread else c
    height = -(-(h + top + bottom) // stride[0])
    width = -(-(w + left + right) // stride[1])
    copied = spread or max(margins) > 0 or stride != (1, 1)
    return Layout(height, width, pitch, top, left, *stride, copied)


def lay_out(x: Array, layout: Layout) -> Array:
    """The images under a layout, flat."""
    flat: Array = x.reshape(-1)
    if not layout.copied:
        return flat
    rows = len(x) * layout.height
    data = empty_like_type(x, rows * layout.width * layout.pitch)
    parallel_for(lay_out_rows, rows, 2 * data.size, flat, data, *x.shape[1:], record(layout))
    return data


@kernel_factory
def _transpose_taps(lanes: int) -> Kernel:
    """Reads w (taps, IC/groups, OC), writes transposed (groups, blocks, taps, OC, width)."""

    @kernel
    def transpose_taps(
        start: int,
        stop: int,
        w: Array,
        transposed: Array,
        taps: int,
        ic: int,
        oc: int,
        columns: int,
        width: int,
    ) -> None:
        blocks = (ic + width - 1) // width
        for item in range(start, stop):
            tap, block = item % taps, item // taps % blocks
            group = item // taps // blocks
            first = block * width
            count = min(width, ic - first)
            source = (tap * ic + first) * oc + group * columns
            target = item * columns * width
            if count < width:
                zero_run(transposed, target, columns * width)
            if count < lanes or columns < lanes:
                for row in range(count):
                    for column in range(columns):
                        transposed[target + column * width + row] = w[source + row * oc + column]
                continue
            # The last squares reach back over those before, where the sides leave a tail.
            for i in range(0, count, lanes):
                row = min(i, count - lanes)
                for j in range(0, columns, lanes):
                    column = min(j, columns - lanes)
                    at = target + column * width + row
                    transpose_square(
                        lanes, transposed, at, width, w, source + row * oc + column, oc
                    )

    return transpose_taps


@kernel_factory
def _pack_steps(vectors: int, lanes: int) -> Kernel:
    """The kernel: reads w (steps, oc), writes packed (blocks, steps, width)."""
    width = vectors * lanes

    @kernel
    def pack_steps(
        start: int, stop: int, w: Array, packed: Array, steps: int, oc: int, columns: int
    ) -> None:
        blocks = (columns + width - 1) // width
        for item in range(start, stop):
            first, last = item * _STEPS, min(steps, (item + 1) * _STEPS)
            for block in range(blocks):
                count = min(width, columns - block * width)
                source, target = block * width, block * steps * width
                if count == width:  # a constant width needs no masks
                    for step in range(first, last):
                        row = tile_from_row(1, vectors, lanes, w, source + step * oc, width)
                        tile_store(row, packed, rows_line(1, target + step * width, 0), 0, width)
                else:
                    for step in range(first, last):
                        row = tile_from_row(1, vectors, lanes, w, source + step * oc, count)
                        tile_store(row, packed, rows_line(1, target + step * width, 0), 0, width)

    return pack_steps


@kernel
def lay_out_rows(
    start: int, stop: int, x: Array, data: Array, h: int, w: int, c: int, numbers: Array
) -> None:
    """Images x (n, h, w, c) into data (n, height, width, pitch) of a layout; an item is a row."""
    layout: Layout = numbers[0]
    length = layout.width * layout.pitch
    # Pixels that follow on each other are copied as one run, of any number of channels.
    runs = layout.pitch == c and layout.stride_w == 1
    for row in range(start, stop):
        n, out_row = row // layout.height, row % layout.height
        ih, at = out_row * layout.stride_h - layout.top, row * length
        source = (n * h + ih) * w * c
        if ih < 0 or ih >= h:
            zero_run(data, at, length)
        elif runs:
            left, inner = layout.left * c, min(w * c, length - layout.left * c)
            zero_run(data, at, left)
            copy_run(data, at + left, x, source, inner)
            zero_run(data, at + left + inner, length - left - inner)
        else:
            for column in range(layout.width):
                iw = column * layout.stride_w - layout.left
                if iw < 0 or iw >= w:
                    zero_run(data, at + column * layout.pitch, c)
                else:
                    copy_run(data, at + column * layout.pitch, x, source + iw * c, c)
