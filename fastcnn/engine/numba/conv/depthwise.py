"""Depthwise convolution and its gradient of the input: each channel is filtered alone.

    y[n, a, b] = bias + Σ_(t, u) x[n, a·A + A₀ + t·A₁, b·B + B₀ + u·B₁] · w[t, u]

for all channels at once, a vector of them to a register. A tile is some pixels of a row of ``y``.
The images are read where they lie: a row of taps beyond the image is passed over, and for a pixel
beyond it zeros are read elsewhere. With nine products for each number, a copy of the images between
zeros would take as long as the sums.

In a row, the taps of a dense filter lie as far apart as the outputs if the stride is 1. Then a
pixel is loaded once for all of them. An item goes down a few rows of ``y``, tile by tile, so that
the rows of the image that the next row reads again are in the first-level cache.

Filters of more taps than a stretch has terms (:mod:`fastcnn.core.long_sums`) have a kernel of their
own, with totals, because few filters are so large and other kernels then need not count their taps.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import ITEMS, Plan
from fastcnn.engine.numba.contraction.epilogue import Epilogue, fused_epilogue
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_relu
from fastcnn.engine.numba.tiles.column_products import products, row_products
from fastcnn.engine.numba.tiles.loads_and_stores import (
    expect_store,
    tile_from_row,
    tile_store_rows,
)
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

_ROWS_OF_TAPS = (3, 5)
"""Taps of a row that are one step, if they lie as far apart as the outputs."""
_ROWS = 4
"""Rows of ``y`` in an item, at most, where a row of the image serves every tap; see "Rows of the
image serve all taps" in docs/measurements.md. With a stride, an item has one row."""


class Side(NamedTuple):
    """One side: ``size`` pixels of x, ``outputs`` of y, ``taps`` of w.

    Tap t of output a reads pixel ``a * step + first + t * tap``. Outputs lie ``y_step`` apart in y,
    and taps ``w_step`` apart in w, both in pixels.
    """

    outputs: int
    taps: int
    size: int
    step: int
    first: int
    tap: int
    y_step: int
    w_step: int

    def forwards(self) -> tuple[Side, int]:
        """The same with ``tap`` not negative, and which tap is now the first."""
        if self.tap >= 0:
            return self, 0
        last = self.taps - 1
        first, tap = self.first + last * self.tap, -self.tap
        return self._replace(first=first, tap=tap, w_step=-self.w_step), last


class _Axis(NamedTuple):
    """A :class:`Side` as the kernel reads it: ``y_step`` and ``w_step`` count numbers, not pixels.

    ``pixels`` are those of the image, because ``size`` is an attribute of NumPy's records.
    """

    outputs: int
    taps: int
    pixels: int
    step: int
    first: int
    tap: int
    y_step: int
    w_step: int


class _Items(NamedTuple):
    """An item: ``rows`` rows of ``y``, the last of an image fewer, by ``channels`` channels."""

    rows: int
    channels: int


class _Depthwise(NamedTuple):
    """Extents and offsets of the sums, in numbers.

    Attributes:
        vertical, horizontal: the sides.
        items: how the work is cut.
        channels: of x and y.
        x_row: from one row of an image to the next.
        y_image, y_start: from one image of ``y`` to the next, and the first output.
        w_start: the tap of ``w`` that both sides begin with.
    """

    vertical: _Axis
    horizontal: _Axis
    items: _Items
    channels: int
    x_row: int
    y_image: int
    y_start: int
    w_start: int
    epilogue: Epilogue = Epilogue()


class _Arrays(NamedTuple):
    """The flat arrays of a kernel, and the totals of a long sum."""

    x: Array
    w: Array
    b: Array
    y: Array
    residual: Array
    totals: int


class _TileOffsets(NamedTuple):
    """Where the tiles of a row begin: the image in x and the row's first output in y.

    Both are those of ``channel``, the first channel of the tiles.
    """

    x: int
    y: int
    channel: int


def depthwise_plan(
    shape: tuple[int, int],
    vertical: Side,
    horizontal: Side,
    y: tuple[int, int],
    w_start: int,
    itemsize: int,
    fused: Epilogue | None = None,
    pitch: int = 0,
) -> Plan:
    """Cut the sums into items: some rows of ``y``, and some channels where the rows are few.

    Args:
        shape: images and channels.
        vertical: rows.
        horizontal: columns.
        y: pixels of an image of ``y``, and the pixel of its first output.
        w_start: the tap of ``w`` that both sides begin with.
        itemsize: of the dtype.
        fused: the epilogue of a fused kernel, or None.
        pitch: how far neighbouring pixels of ``y`` lie apart; 0 for the channels.
    """
    images, c = shape
    pitch = pitch or c
    lanes = registers().vector_bytes // itemsize
    horizontal, first_tap = horizontal.forwards()
    w_start -= first_tap * horizontal.w_step
    vectors = -(-c // lanes)
    row_items = -(-vertical.outputs // (_ROWS if vertical.step == 1 else 1))
    rows = -(-vertical.outputs // row_items)  # equal shares, so that threads get equal work
    blocks = min(vectors, -(-ITEMS // max(1, images * row_items)))
    channels = -(-vectors // blocks) * lanes
    v, h = vertical, horizontal
    sums = _Depthwise(
        _Axis(*v)._replace(y_step=v.y_step * pitch, w_step=v.w_step * c),
        _Axis(*h)._replace(y_step=h.y_step * pitch, w_step=h.w_step * c),
        _Items(rows, channels),
        channels=c,
        x_row=h.size * c,
        y_image=y[0] * pitch,
        y_start=y[1] * pitch,
        w_start=w_start * c,
        epilogue=fused or Epilogue(),
    )
    row_of_taps = h.taps if h.taps in _ROWS_OF_TAPS and h.tap == h.step == 1 else 0
    long_sums = v.taps * h.taps > STRETCH
    function = _depthwise(registers().tile_rows, lanes, row_of_taps, long_sums, fused is not None)
    items = images * -(-v.outputs // rows) * -(-c // channels)
    work = images * v.outputs * h.outputs * v.taps * h.taps * c // 2
    return Plan(function, items, work, record(sums))


@device
def _axis_of(r: _Axis) -> _Axis:
    """The numbers of a side's record, read once.

    A loop that stores numbers would read them again each time, because they might have changed.
    """
    return _Axis(r.outputs, r.taps, r.pixels, r.step, r.first, r.tap, r.y_step, r.w_step)


@device
def _outputs_before(pixel: int, step: int, limit: int, count: int) -> int:
    """How many of ``count`` outputs, ``step`` pixels apart from ``pixel``, lie before ``limit``."""
    if pixel >= limit:
        return 0
    if pixel + (count - 1) * step < limit:
        return count
    return (limit - pixel + step - 1) // step


@kernel_factory
def _depthwise(rows: int, lanes: int, step_taps: int, long_sums: bool, fused: bool) -> Kernel:
    """The kernel on tiles of ``rows`` pixels × one vector.

    Args:
        rows: pixels of a tile.
        lanes: channels of a tile.
        step_taps: how many taps of a row of the filter are one step; 0 if each tap is a step.
        long_sums: whether the sums have totals, because they are long.
        fused: whether the kernel has an
            :class:`~fastcnn.engine.numba.contraction.epilogue.Epilogue`, and a residual with the
            layout of y.
    """
    half = max(rows // 2, 1)
    room = rows * lanes if long_sums else 1

    def step_of(height: int) -> DeviceFunction:
        """A row of taps: x row from ``row``, first tap and output at ``pixel``, w from ``j``."""

        @device
        def row_of_taps(
            tile: Array, x: Array, w: Array, row: int, pixel: int, j: int, columns: int,
            totals: int, s: _Depthwise, h: _Axis,
        ) -> Array:  # fmt: skip
            i = row + pixel * s.channels
            low, high = -pixel, h.pixels - pixel
            result: Array = row_products(
                step_taps, tile, x, i, s.channels, w, j, h.w_step, columns, low, high
            )
            return result

        @device
        def tap_by_tap(
            tile: Array, x: Array, w: Array, row: int, pixel: int, j: int, columns: int,
            totals: int, s: _Depthwise, h: _Axis,
        ) -> Array:  # fmt: skip
            for u in range(h.taps):
                first = pixel + u * h.tap
                low = _outputs_before(first, h.step, 0, height)
                high = _outputs_before(first, h.step, h.pixels, height)
                line = rows_line(height, row + first * s.channels, h.step * s.channels)
                tile = products(tile, x, line, 0, w, j + u * h.w_step, columns, low, high)
                if long_sums and (u + 1) % STRETCH == 0:
                    tile = totals_add(tile, totals, 0)
            return tile

        return row_of_taps if step_taps else tap_by_tap

    def tile_of(height: int) -> DeviceFunction:
        step, finish = step_of(height), fused_epilogue(height, 1, lanes)

        @device
        def one_tile(
            first: int, row: int, arrays: _Arrays, at: _TileOffsets, relu: bool, s: _Depthwise,
            v: _Axis, h: _Axis,
        ) -> None:  # fmt: skip
            """Write outputs ``first`` to ``first + height`` of a row of y, for one vector."""
            x, w, totals = arrays.x, arrays.w, arrays.totals
            columns = min(lanes, s.channels - at.channel)
            tile = tile_from_row(height, 1, lanes, arrays.b, at.channel, columns)
            if long_sums:
                totals_begin(tile, totals, 0)
                stretch = max(1, STRETCH // h.taps)
            pixel = first * h.step + h.first
            # The place of the next vector's outputs, which an item computes some tiles later.
            in_y = rows_line(height, first * h.y_step, h.y_step)
            expect_store(tile, arrays.y, in_y, at.y + lanes)
            for t in range(v.taps):
                ih = row * v.step + v.first + t * v.tap
                if 0 <= ih < v.pixels:
                    j = s.w_start + t * v.w_step + at.channel
                    tile = step(tile, x, w, at.x + ih * s.x_row, pixel, j, columns, totals, s, h)
                if long_sums and (t + 1) % stretch == 0:
                    tile = totals_add(tile, totals, 0)
            if long_sums:
                tile = totals_end(tile, totals, 0)
            if fused:
                tile = finish(
                    tile, arrays.b, at.channel, s.channels, arrays.residual, in_y, at.y, columns,
                    relu, s.epilogue,
                )  # fmt: skip
            elif relu:
                tile = tile_relu(tile)
            tile_store_rows(
                tile, arrays.y, at.y + first * h.y_step, h.y_step, columns, h.outputs - first
            )

        return one_tile

    whole_tile, half_tile = tile_of(rows), tile_of(half)

    @device
    def run_items(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, residual: Array,
        relu: bool, r: _Depthwise,
    ) -> None:  # fmt: skip
        """Write items ``start`` to ``stop`` of y (N, OH, OW, C).

        Reads x (N, H, W, C), w (KH, KW, 1, C) and b (C,). All arrays are flat.
        """
        v, h, items = _axis_of(r.vertical), _axis_of(r.horizontal), r.items
        s = _Depthwise(
            v, h, items, r.channels, r.x_row, r.y_image, r.y_start, r.w_start, r.epilogue
        )
        item_rows, item_channels = items.rows, items.channels
        arrays = _Arrays(x, w, b, y, residual, totals_room(room))
        blocks = (s.channels + item_channels - 1) // item_channels
        row_items = (v.outputs + item_rows - 1) // item_rows
        for item in range(start, stop):
            n, block = item // blocks // row_items, item % blocks
            of_rows = item // blocks % row_items
            first_row = v.outputs * of_rows // row_items
            last_row = v.outputs * (of_rows + 1) // row_items
            last = min(s.channels, (block + 1) * item_channels)
            pixel = 0
            while pixel < h.outputs:
                # The last tile ends with the row. The outputs that it shares with the tile before
                # are computed twice, with the same result.
                is_high = h.outputs >= rows and h.outputs - pixel > half
                height = rows if is_high else half
                first = max(0, min(pixel, h.outputs - height))
                for channel in range(block * item_channels, last, lanes):
                    x_start = n * v.pixels * s.x_row + channel
                    y_start = s.y_start + n * s.y_image + first_row * v.y_step + channel
                    for row in range(first_row, last_row):
                        at = _TileOffsets(x_start, y_start, channel)
                        if is_high:
                            whole_tile(first, row, arrays, at, relu, s, v, h)
                        else:
                            half_tile(first, row, arrays, at, relu, s, v, h)
                        y_start += v.y_step
                pixel += height

    if fused:

        @kernel
        def depthwise_fused(
            start: int, stop: int, x: Array, w: Array, b: Array, y: Array, residual: Array,
            relu: bool, numbers: Array,
        ) -> None:  # fmt: skip
            run_items(start, stop, x, w, b, y, residual, relu, numbers[0])

        return depthwise_fused

    @kernel
    def depthwise(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, relu: bool, numbers: Array
    ) -> None:
        run_items(start, stop, x, w, b, y, y, relu, numbers[0])

    return depthwise
