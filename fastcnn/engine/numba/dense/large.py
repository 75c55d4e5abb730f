"""A dense layer with more weights than the second-level cache holds: they are read once.

Tiles that each take all steps of a sum read a block of columns from end to end: short pieces of
rows that lie far apart, and with the next tile of rows again. Here the weights of some inputs, few
enough for the cache, are multiplied with up to :data:`ROWS` samples, whose sums lie in scratch
meanwhile (docs/measurements.md, "Large weights are read once").

A K-split cuts the inputs, so that threads have something to share where the columns are few, and so
that no sum is longer than a stretch (:mod:`fastcnn.core.long_sums`). Each split has sums of its
own, in the order of its inputs, and the splits are added in order. The number of splits follows
from the weights alone, so a sample gives the same bits in any batch.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import L2_BYTES
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import (
    CACHE_BYTES,
    Plan,
    Tile,
)
from fastcnn.engine.numba.runtime.arrays import bias_or_zeros, empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_relu
from fastcnn.engine.numba.tiles.loads_and_stores import (
    tile_from_row,
    tile_load,
    tile_store,
    tile_store_rows,
)
from fastcnn.engine.numba.tiles.products import rank1
from fastcnn.engine.numba.tiles.rows import rows_line, rows_walk
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

_PIECE, _ROW = L2_BYTES // 16, 1024
"""Bytes of weights that are multiplied at a time, and bytes of a row of these weights."""
ROWS, _SCRATCH = 128, 4 * 1024 * 1024
"""About how many samples are multiplied with a piece, and most bytes of sums in scratch."""
_ITEMS, _SPLITS, _LEAST = 16, 8, 128
"""Most products of splits and groups of columns, most splits, and fewest inputs of a split."""
_LONG_ROW = 16
"""Vectors of the tile for a single sample, if columns fill it: steps read long pieces of rows."""


class LargeProduct(NamedTuple):
    """``samples`` by ``inputs`` by ``outputs``, and how they are cut up.

    Blocks of ``width`` columns (the last block overlaps the one before) have places of their own
    in the scratch, whose rows are ``pitch`` apart. The sums of a split begin at ``split_pitch``
    times its number. An item is ``blocks`` of columns × a split of the inputs × ``rows`` samples.
    """

    samples: int
    inputs: int
    outputs: int
    width: int
    blocks: int
    groups: int
    splits: int
    rows: int
    piece: int
    pitch: int
    split_pitch: int


def is_large(inputs: int, outputs: int, itemsize: int) -> bool:
    """Whether a layer's weights are too many for the cache, and its columns for one tile."""
    host = registers()
    width = host.tile_vectors * host.vector_bytes // itemsize
    return inputs * outputs * itemsize > CACHE_BYTES and outputs > width


def dense(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """``y = x @ w + b`` of a large layer."""
    samples, inputs, outputs = len(x), *w.shape
    y = empty_like_type(x, samples, outputs)
    bias, weights = bias_or_zeros(b, outputs, x), readable(w).reshape(-1)
    first, relu = 0, activation == "relu"
    while first < samples:
        (function, items, work, numbers), addition, product = plans_of(
            samples - first, inputs, outputs, x.itemsize
        )
        count = product.samples
        some = slice(first, first + count)
        sums = empty_like_type(x, product.splits * product.split_pitch)
        parallel_for(function, items, work, readable(x[some]).reshape(-1), weights, sums, numbers)
        work, rows = count * outputs * product.splits, y[some].reshape(-1)
        parallel_for(addition, count, work, sums, bias, rows, relu, numbers)
        first += count
    return y


class LargePlans(NamedTuple):
    """Plans for the first samples of a batch: the products, and the kernel that adds their splits.

    Attributes:
        products: the plan of the products.
        addition: the kernel that adds up the splits, over a range of samples.
        product: how the products are cut up; ``samples`` says of how many samples they are.
    """

    products: Plan
    addition: Kernel
    product: LargeProduct

    @property
    def sums(self) -> int:
        """Numbers of scratch for the sums of the splits."""
        return self.product.splits * self.product.split_pitch


def large_plan(samples: int, inputs: int, outputs: int, itemsize: int) -> Plan:
    """The plan of the products of a large layer."""
    return plans_of(samples, inputs, outputs, itemsize).products


@cached_choice
def plans_of(samples: int, inputs: int, outputs: int, itemsize: int) -> LargePlans:
    """The plans for so many samples, or for the first of them where they are too many at once."""
    host = registers()
    lanes = host.vector_bytes // itemsize
    tile = Tile(host.tile_rows, host.tile_vectors, lanes)
    if samples == 1:
        row = _LONG_ROW * lanes
        fits = outputs >= row and -outputs % row <= outputs // 8  # what blocks overlap
        tile = Tile(1, _LONG_ROW if fits else host.tile_vectors, lanes)
    blocks = -(-outputs // tile.columns)
    groups = -(-outputs * itemsize // _ROW)
    splits = max(1, min(_SPLITS, _ITEMS // groups, inputs // _LEAST), -(-inputs // STRETCH))
    pitch, rows = blocks * tile.columns, max(1, ROWS // tile.rows) * tile.rows
    at_once = max(1, _SCRATCH // (splits * pitch * rows * itemsize)) * rows
    samples = min(samples, at_once)
    product = LargeProduct(
        samples, inputs, outputs,
        width=tile.columns,
        blocks=-(-blocks // min(groups, blocks)),
        groups=min(groups, blocks),
        splits=splits,
        rows=min(rows, samples),
        piece=max(1, _PIECE // min(_ROW, outputs * itemsize)),
        pitch=pitch,
        split_pitch=(samples + tile.rows) * pitch,
    )  # fmt: skip
    items = product.groups * splits * -(-samples // product.rows)
    work = samples * inputs * outputs // 2
    products = Plan(_products(*tile), items, work, record(product))
    return LargePlans(products, _add_splits(host.tile_vectors, lanes), product)


@kernel_factory
def _products(rows: int, vectors: int, lanes: int) -> Kernel:
    """The kernel: reads x (samples, inputs) and w (inputs, outputs), writes the sums of splits.

    The sums are (splits, samples + tile rows, pitch), in rows of blocks of ``width`` columns. A
    tile at the end of the samples writes its idle rows behind them.
    """
    half = min(rows, rows // 2 + 1)
    width = vectors * lanes

    def make_tile(height: int) -> DeviceFunction:
        @ordered_device
        def one_tile(
            row: int, block: int, first: int, steps: int, x: Array, w: Array, sums: Array, at: int,
            resumed: bool, c: LargeProduct,
        ) -> None:  # fmt: skip
            inputs, outputs = c.inputs, c.outputs
            if row + height <= c.samples:
                in_x = rows_line(height, row * inputs, inputs)
            else:  # rows beyond the last sample repeat it
                in_x = rows_walk(height, 0, 0, row, c.samples - row, 1, c.samples, 0, 0, inputs)
            target = rows_line(height, at + row * c.pitch + block * width, c.pitch)
            if resumed:
                tile = tile_load(height, vectors, lanes, sums, target, 0)
            else:
                tile = tile_from_row(height, vectors, lanes, sums, 0, 0)
            j = first * outputs + min(block * width, outputs - width)
            for i in range(first, first + steps):
                tile = rank1(tile, x, in_x, i, w, j)
                j += outputs
            tile_store(tile, sums, target, 0, width)

        return one_tile

    whole_tile = make_tile(rows)
    half_tile = whole_tile if half == rows else make_tile(half)

    @ordered_kernel
    def products(start: int, stop: int, x: Array, w: Array, sums: Array, numbers: Array) -> None:
        c: LargeProduct = numbers[0]
        blocks = (c.outputs + width - 1) // width
        for item in range(start, stop):
            split, in_split = item % c.splits, item // c.splits
            first_block, first_row = in_split % c.groups * c.blocks, in_split // c.groups * c.rows
            last_block, last_row = min(blocks, first_block + c.blocks), first_row + c.rows
            last_row, at = min(last_row, c.samples), split * c.split_pitch
            first, last = c.inputs * split // c.splits, c.inputs * (split + 1) // c.splits
            for step in range(first, last, c.piece):
                steps, resumed = min(c.piece, last - step), step > first
                for block in range(first_block, last_block):
                    row = first_row
                    while row < last_row:
                        left, height = last_row - row, rows
                        if rows > 1 and (left <= half or rows < left <= 2 * half):
                            height = half
                            half_tile(row, block, step, steps, x, w, sums, at, resumed, c)
                        else:
                            whole_tile(row, block, step, steps, x, w, sums, at, resumed, c)
                        row += height

    return products


@kernel_factory
def _add_splits(vectors: int, lanes: int) -> Kernel:
    """The kernel that adds up the splits: reads sums and b (outputs,), writes y.

    The sums are (splits, samples + tile rows, pitch), y is (samples, outputs).
    """
    some = vectors * lanes  # columns of a block at a time

    @ordered_kernel
    def add_splits(
        start: int, stop: int, sums: Array, b: Array, y: Array, relu: bool, numbers: Array
    ) -> None:
        c: LargeProduct = numbers[0]
        width, pitch, split_pitch, totals = c.width, c.pitch, c.split_pitch, totals_room(some)
        for row in range(start, stop):
            for column in range(0, pitch, some):
                block = column // width * width
                j = column - block + min(block, c.outputs - width)
                tile = tile_from_row(1, vectors, lanes, b, j, some)
                at = row * pitch + column
                totals_begin(tile, totals, 0)
                totals_add(tile, totals, 0)
                for _ in range(c.splits):
                    totals_add(tile_from_row(1, vectors, lanes, sums, at, some), totals, 0)
                    at += split_pitch
                tile = totals_end(tile_from_row(1, vectors, lanes, b, 0, 0), totals, 0)
                if relu:
                    tile = tile_relu(tile)
                tile_store_rows(tile, y, row * c.outputs + j, 0, some, 1)

    return add_splits
