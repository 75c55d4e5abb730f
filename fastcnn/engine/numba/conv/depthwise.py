"""Depthwise convolution and its gradient of the input: each channel is filtered alone.

    y[n, a, b] = bias + Σ_(t, u) x[n, a·A + A₀ + t·A₁, b·B + B₀ + u·B₁] · w[t, u]

for all channels at once, a vector of them to a register. A tile is some pixels of a row of ``y``.
The images are read where they lie: a row of taps beyond the image is passed over, for a pixel
beyond it zeros are read elsewhere. With nine products for each number there is no time to copy
the images between zeros first: that took as long as the sums.

In a row the taps of a dense filter lie as far apart as the outputs, if the stride is 1: then a
pixel is loaded once for all of them. An item goes down a few rows of ``y``, tile by tile, so that
the rows of the image that the next row reads again are in the first-level cache.

Filters of more taps than a stretch has terms (:mod:`fastcnn.core.long_sums`) have a kernel of their
own, with totals: few filters are so large, and the others' kernel need not count its taps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import TASKS, Plan
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_relu
from fastcnn.engine.numba.tiles.column_products import products, row_products
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store_rows
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

# Filters of so many columns have a step that takes a row of them at once.
_AT_ONCE = (3, 5)
# Rows of one item, at most, where a row of the image serves every tap: 32 channels on 112×112 take
# 97 µs on one thread, row by row 118. With stride 2 it would cost a tenth.
_ROWS = 4


class Side(NamedTuple):
    """One side: ``outputs`` of them, ``taps`` taps, ``size`` pixels of the image.

    Tap t of output a reads pixel ``a * step + first + t * tap``; the outputs lie ``out`` apart in
    ``y``, and the taps ``filters`` apart in ``w``, all in pixels.
    """

    outputs: int
    taps: int
    size: int
    step: int
    first: int
    tap: int
    out: int
    filters: int

    def forwards(self) -> tuple[Side, int]:
        """The same with ``tap`` not negative, and which tap is now the first."""
        if self.tap >= 0:
            return self, 0
        last = self.taps - 1
        first, tap = self.first + last * self.tap, -self.tap
        return self._replace(first=first, tap=tap, filters=-self.filters), last


class _Numbers(NamedTuple):
    images: int
    channels: int
    part: int
    block: int
    x_row: int
    y_image: int
    y_start: int
    w_start: int
    rows: int
    columns: int
    taps_h: int
    taps_w: int
    h: int
    w: int
    step_h: int
    step_w: int
    first_h: int
    first_w: int
    tap_h: int
    tap_w: int
    out_h: int
    out_w: int
    filter_h: int
    filter_w: int


def depthwise_plan(
    shape: tuple[int, int],
    vertical: Side,
    horizontal: Side,
    y: tuple[int, int],
    w_start: int,
    itemsize: int,
) -> Plan:
    """Cut the sums into items: some rows of ``y``, and channels where the rows are few.

    Args:
        shape: images and channels.
        vertical: rows.
        horizontal: columns.
        y: pixels of an image of ``y``, and the pixel of its first output.
        w_start: the tap of ``w`` that both sides begin with.
        itemsize: of the dtype.
    """
    images, c = shape
    lanes = registers().vector_bytes // itemsize
    horizontal, turned = horizontal.forwards()
    w_start -= turned * horizontal.filters
    vectors = -(-c // lanes)
    parts = -(-vertical.outputs // (_ROWS if vertical.step == 1 else 1))
    part = -(-vertical.outputs // parts)  # equal parts, so that threads get equal work
    blocks = min(vectors, -(-TASKS // max(1, images * parts)))
    block = -(-vectors // blocks) * lanes
    v, h = vertical, horizontal
    numbers = _Numbers(
        images=images,
        channels=c,
        part=part,
        block=block,
        x_row=h.size * c,
        y_image=y[0] * c,
        y_start=y[1] * c,
        w_start=w_start * c,
        rows=v.outputs,
        columns=h.outputs,
        taps_h=v.taps,
        taps_w=h.taps,
        h=v.size,
        w=h.size,
        step_h=v.step,
        step_w=h.step,
        first_h=v.first,
        first_w=h.first,
        tap_h=v.tap,
        tap_w=h.tap,
        out_h=v.out * c,
        out_w=h.out * c,
        filter_h=v.filters * c,
        filter_w=h.filters * c,
    )
    at_once = h.taps if h.taps in _AT_ONCE and h.tap == h.step == 1 else 0
    function = _depthwise(registers().tile_rows, lanes, at_once, v.taps * h.taps > STRETCH)
    items = images * -(-v.outputs // part) * -(-c // block)
    work = images * v.outputs * h.outputs * v.taps * h.taps * c // 2
    return Plan(function, items, work, record(numbers))


@device
def _outputs_before(place: int, step: int, limit: int, count: int) -> Any:
    """How many of ``count`` outputs, ``step`` pixels apart from ``place``, lie before ``limit``."""
    if place >= limit:
        return 0
    if place + (count - 1) * step < limit:
        return count
    return (limit - place + step - 1) // step


@kernel_factory
def _depthwise(rows: int, lanes: int, at_once: int, long_sums: bool) -> Any:
    half = max(rows // 2, 1)
    room = rows * lanes if long_sums else 1

    def step_of(height: int) -> Any:
        """A row of taps on a tile: ``place`` is the pixel of the first tap of its first output."""

        @device
        def row_of_taps(
            tile: Any, x: Any, w: Any, row: int, place: int, j: int, columns: int, totals: Any,
            s: Any,
        ) -> Any:  # fmt: skip
            i = row + place * s.channels
            pixel = s.channels
            return row_products(
                at_once, tile, x, i, pixel, w, j, s.filter_w, columns, -place, s.w - place
            )

        @device
        def tap_by_tap(
            tile: Any, x: Any, w: Any, row: int, place: int, j: int, columns: int, totals: Any,
            s: Any,
        ) -> Any:  # fmt: skip
            for u in range(s.taps_w):
                pixel = place + u * s.tap_w
                low = _outputs_before(pixel, s.step_w, 0, height)
                high = _outputs_before(pixel, s.step_w, s.w, height)
                line = rows_line(height, row + pixel * s.channels, s.step_w * s.channels)
                tile = products(tile, x, line, 0, w, j + u * s.filter_w, columns, low, high)
                if long_sums and (u + 1) % STRETCH == 0:
                    tile = totals_add(tile, totals, 0)
            return tile

        return row_of_taps if at_once else tap_by_tap

    def of_height(height: int) -> Any:
        step = step_of(height)

        @device
        def one_tile(
            first: int,
            row: int,
            x: Any,
            w: Any,
            b: Any,
            y: Any,
            x_start: int,
            y_start: int,
            channel: int,
            columns: int,
            relu: bool,
            totals: Any,
            s: Any,
        ) -> None:
            tile = tile_from_row(height, 1, lanes, b, channel, columns)
            if long_sums:
                totals_begin(tile, totals, 0)
                stretch = max(1, STRETCH // s.taps_w)
            place = first * s.step_w + s.first_w
            for t in range(s.taps_h):
                ih = row * s.step_h + s.first_h + t * s.tap_h
                if 0 <= ih < s.h:
                    j = s.w_start + t * s.filter_h + channel
                    tile = step(tile, x, w, x_start + ih * s.x_row, place, j, columns, totals, s)
                if long_sums and (t + 1) % stretch == 0:
                    tile = totals_add(tile, totals, 0)
            if long_sums:
                tile = totals_end(tile, totals, 0)
            if relu:
                tile = tile_relu(tile)
            to = y_start + first * s.out_w
            tile_store_rows(tile, y, to, s.out_w, columns, s.columns - first)

        return one_tile

    whole_tile, half_tile = of_height(rows), of_height(half)

    @kernel
    def depthwise(
        start: int, stop: int, x: Any, w: Any, b: Any, y: Any, relu: bool, numbers: Any
    ) -> None:
        # Read once: in loops that store they would be read again and again.
        r = numbers[0]
        s = _Numbers(
            r.images, r.channels, r.part, r.block, r.x_row, r.y_image, r.y_start, r.w_start,
            r.rows, r.columns, r.taps_h, r.taps_w, r.h, r.w, r.step_h, r.step_w, r.first_h,
            r.first_w, r.tap_h, r.tap_w, r.out_h, r.out_w, r.filter_h, r.filter_w,
        )  # fmt: skip
        totals = totals_room(room)
        blocks = (s.channels + s.block - 1) // s.block
        parts = (s.rows + s.part - 1) // s.part
        for item in range(start, stop):
            n, part, block = item // blocks // parts, item // blocks % parts, item % blocks
            first_row, last_row = part * s.part, min(s.rows, (part + 1) * s.part)
            last = min(s.channels, (block + 1) * s.block)
            place = 0
            while place < s.columns:
                # The last tile ends with the row: what it shares with the one before comes out
                # the same.
                whole = s.columns >= rows and s.columns - place > half
                height = rows if whole else half
                first = max(0, min(place, s.columns - height))
                for channel in range(block * s.block, last, lanes):
                    columns = min(lanes, s.channels - channel)
                    x_start = n * s.h * s.x_row + channel
                    y_start = s.y_start + n * s.y_image + first_row * s.out_h + channel
                    # Down the rows: those that the next row reads again are in the cache.
                    for row in range(first_row, last_row):
                        if whole:
                            whole_tile(
                                first, row, x, w, b, y, x_start, y_start, channel, columns, relu,
                                totals, s,
                            )  # fmt: skip
                        else:
                            half_tile(
                                first, row, x, w, b, y, x_start, y_start, channel, columns, relu,
                                totals, s,
                            )  # fmt: skip
                        y_start += s.out_h
                place += height

    return depthwise
