"""A dense layer with more weights than the second-level cache holds: they are read once.

Tiles that each take all steps of a sum read a block of columns from end to end: short pieces of
rows that lie far apart, and with the next tile of rows again. Here the weights of some inputs, few
enough for the cache, are multiplied with up to :data:`ROWS` samples, whose sums lie in scratch
meanwhile (docs/measurements.md, "Large weights are read once"). These weights and the samples'
inputs are first packed into scratch, because rows that lie a power of 2 apart share few places of
the cache (docs/measurements.md, "Pieces of large weights are packed"). A single sample reads its
weights once, so nothing is packed for it.

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
    fetch,
    tile_from_row,
    tile_load,
    tile_store,
    tile_store_rows,
)
from fastcnn.engine.numba.tiles.products import rank1
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

_PIECE, _ROW = L2_BYTES // 8, 1024
"""Bytes of weights that are multiplied at a time, and bytes of a row of these weights."""
_PIECE_ALONE, _ROW_ALONE = 64 * 1024, 4096
"""The same for a single sample. Its rows are longer, because it reads them where they lie."""
_AHEAD = 8
"""Rows of weights that are fetched before they are packed."""
ROWS, _SCRATCH = 128, 4 * 1024 * 1024
"""Up to about twice so many samples are multiplied with a piece; most bytes of sums in scratch."""
_ITEMS, _SPLITS, _LEAST = 16, 8, 128
"""Most products of splits and groups of columns, most splits, and fewest inputs of a split."""
_LONG_ROW = 16
"""Vectors of the tile for a single sample, if columns fill it: steps read long pieces of rows."""


class LargeProduct(NamedTuple):
    """``samples`` by ``inputs`` by ``outputs``, and how they are cut up.

    Blocks of ``width`` columns (the last block overlaps the one before) have places of their own
    in the scratch, whose rows are ``pitch`` apart. The sums of a split begin at ``split_pitch``
    times its number. An item is ``blocks`` of columns × a split of the inputs × ``rows`` samples.
    It multiplies ``piece`` inputs at a time. The packed rows of x of an item begin at ``packed_at``
    plus ``packed`` times its number, ``x_pitch`` apart, and its packed weights after them.
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
    packed_at: int
    packed: int
    x_pitch: int


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
        plans = plans_of(samples - first, inputs, outputs, x.itemsize)
        (function, items, work, numbers), product = plans.products, plans.product
        count = product.samples
        samples_of_call = slice(first, first + count)
        scratch = empty_like_type(x, plans.scratch)
        parallel_for(
            function,
            items,
            work,
            readable(x[samples_of_call]).reshape(-1),
            weights,
            scratch,
            numbers,
        )
        work, rows = count * outputs * product.splits, y[samples_of_call].reshape(-1)
        parallel_for(plans.addition, count, work, scratch, bias, rows, relu, numbers)
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
    def scratch(self) -> int:
        """Numbers of scratch: the sums of the splits, and what the items pack."""
        return self.product.packed_at + self.products.items * self.product.packed


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
    # The splits decide the bits, so they follow from the weights alone.
    groups = -(-outputs * itemsize // _ROW)
    splits = max(1, min(_SPLITS, _ITEMS // groups, inputs // _LEAST), -(-inputs // STRETCH))
    pitch = blocks * tile.columns + lanes  # no power of 2
    samples = min(samples, max(ROWS, _SCRATCH // (splits * pitch * itemsize)))
    # Equal parts, because each part reads all weights.
    tiles = -(-samples // tile.rows)
    rows = -(-tiles // max(1, samples // ROWS)) * tile.rows
    bytes_of_piece, bytes_of_row = (_PIECE_ALONE, _ROW_ALONE) if samples == 1 else (_PIECE, _ROW)
    groups = min(blocks, -(-outputs * itemsize // bytes_of_row))
    piece = max(1, bytes_of_piece // min(bytes_of_row, outputs * itemsize))
    blocks_of_item = -(-blocks // groups)
    x_pitch = -(-piece // lanes) * lanes + lanes
    packed = rows * x_pitch + blocks_of_item * piece * tile.columns
    split_pitch = (samples + tile.rows) * pitch
    product = LargeProduct(
        samples, inputs, outputs,
        width=tile.columns,
        blocks=blocks_of_item,
        groups=groups,
        splits=splits,
        rows=rows,
        piece=piece,
        pitch=pitch,
        split_pitch=split_pitch,
        packed_at=splits * split_pitch,
        packed=0 if samples == 1 else packed,
        x_pitch=x_pitch,
    )  # fmt: skip
    items = groups * splits * -(-samples // rows)
    work = samples * inputs * outputs // 2
    products = Plan(_products(*tile), items, work, record(product))
    return LargePlans(products, _add_splits(host.tile_vectors, lanes), product)


@kernel_factory
def _products(rows: int, vectors: int, lanes: int) -> Kernel:
    """The kernel: reads x (samples, inputs) and w (inputs, outputs), writes scratch.

    The sums in the scratch are (splits, samples + tile rows, pitch), in rows of blocks of ``width``
    columns. A tile at the end of the samples writes its idle rows behind them. With several rows,
    the packed inputs and weights of each item follow on the sums.
    """
    half = min(rows, rows // 2 + 1)
    width = vectors * lanes

    def make_tile(height: int) -> DeviceFunction:
        @ordered_device
        def one_tile(
            x: Array, x_start: int, x_pitch: int, steps: int, w: Array, w_start: int, w_step: int,
            scratch: Array, target: int, pitch: int, resumed: bool,
        ) -> None:  # fmt: skip
            in_x = rows_line(height, x_start, x_pitch)
            in_sums = rows_line(height, target, pitch)
            if resumed:
                tile = tile_load(height, vectors, lanes, scratch, in_sums, 0)
            else:
                tile = tile_from_row(height, vectors, lanes, scratch, 0, 0)
            for i in range(steps):
                tile = rank1(tile, x, in_x, i, w, w_start)
                w_start += w_step
            tile_store(tile, scratch, in_sums, 0, width)

        return one_tile

    whole_tile = make_tile(rows)
    half_tile = whole_tile if half == rows else make_tile(half)

    @ordered_device
    def pack(
        x: Array, w: Array, scratch: Array, at: int, row: int, last_row: int, block: int,
        last_block: int, step: int, steps: int, c: LargeProduct,
    ) -> None:  # fmt: skip
        """Copy the inputs and weights of some steps; rows behind the last sample repeat it."""
        height = (last_row - row + rows - 1) // rows * rows
        for m in range(height):
            start = min(row + m, last_row - 1) * c.inputs + step
            for i in range(0, steps, lanes):
                columns = min(lanes, steps - i)
                tile = tile_from_row(1, 1, lanes, x, start + i, columns)
                tile_store_rows(tile, scratch, at + m * c.x_pitch + i, 0, columns, 1)
        at += height * c.x_pitch
        for i in range(steps):
            start, target = (step + i) * c.outputs, at + i * width
            for b in range(block, last_block):
                j = start + min(b * width, c.outputs - width)
                for line in range(j, j + width, lanes):
                    fetch(w, line + _AHEAD * c.outputs)
                tile = tile_from_row(1, vectors, lanes, w, j, width)
                tile_store_rows(tile, scratch, target, 0, width, 1)
                target += c.piece * width

    @ordered_kernel
    def products(start: int, stop: int, x: Array, w: Array, scratch: Array, numbers: Array) -> None:
        c: LargeProduct = numbers[0]
        blocks = (c.outputs + width - 1) // width
        for item in range(start, stop):
            split, in_split = item % c.splits, item // c.splits
            first_block, first_row = in_split % c.groups * c.blocks, in_split // c.groups * c.rows
            last_block, last_row = min(blocks, first_block + c.blocks), first_row + c.rows
            last_row, at = min(last_row, c.samples), split * c.split_pitch
            first, last = c.inputs * split // c.splits, c.inputs * (split + 1) // c.splits
            x_at = c.packed_at + item * c.packed
            w_at = x_at + (last_row - first_row + rows - 1) // rows * rows * c.x_pitch
            for step in range(first, last, c.piece):
                steps, resumed = min(c.piece, last - step), step > first
                if rows > 1:
                    pack(
                        x, w, scratch, x_at, first_row, last_row, first_block, last_block, step,
                        steps, c,
                    )  # fmt: skip
                for block in range(first_block, last_block):
                    target = at + first_row * c.pitch + block * width
                    if rows == 1:
                        j = step * c.outputs + min(block * width, c.outputs - width)
                        whole_tile(
                            x, first_row * c.inputs + step, 0, steps, w, j, c.outputs, scratch,
                            target, 0, resumed,
                        )  # fmt: skip
                        continue
                    row, j = 0, w_at + (block - first_block) * c.piece * width
                    while first_row + row < last_row:
                        left, height = last_row - first_row - row, rows
                        if left <= half or rows < left <= 2 * half:
                            height = half
                            half_tile(
                                scratch, x_at + row * c.x_pitch, c.x_pitch, steps, scratch, j,
                                width, scratch, target, c.pitch, resumed,
                            )  # fmt: skip
                        else:
                            whole_tile(
                                scratch, x_at + row * c.x_pitch, c.x_pitch, steps, scratch, j,
                                width, scratch, target, c.pitch, resumed,
                            )  # fmt: skip
                        target += height * c.pitch
                        row += height

    return products


@kernel_factory
def _add_splits(vectors: int, lanes: int) -> Kernel:
    """The kernel that adds up the splits: reads sums and b (outputs,), writes y.

    The sums, with which the scratch begins, are (splits, samples + tile rows, pitch). y is
    (samples, outputs).
    """
    block_columns = vectors * lanes  # columns of a block at a time

    @ordered_kernel
    def add_splits(
        start: int, stop: int, sums: Array, b: Array, y: Array, relu: bool, numbers: Array
    ) -> None:
        c: LargeProduct = numbers[0]
        width, pitch, split_pitch, totals = (
            c.width,
            c.pitch,
            c.split_pitch,
            totals_room(block_columns),
        )
        for row in range(start, stop):
            for column in range(0, (c.outputs + width - 1) // width * width, block_columns):
                block = column // width * width
                j = column - block + min(block, c.outputs - width)
                tile = tile_from_row(1, vectors, lanes, b, j, block_columns)
                at = row * pitch + column
                totals_begin(tile, totals, 0)
                totals_add(tile, totals, 0)
                for _ in range(c.splits):
                    totals_add(tile_from_row(1, vectors, lanes, sums, at, block_columns), totals, 0)
                    at += split_pitch
                tile = totals_end(tile_from_row(1, vectors, lanes, b, 0, 0), totals, 0)
                if relu:
                    tile = tile_relu(tile)
                tile_store_rows(tile, y, row * c.outputs + j, 0, block_columns, 1)

    return add_splits
