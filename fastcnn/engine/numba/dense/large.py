"""A dense layer with more weights than the second-level cache holds: read once, as they lie.

Tiles that each take all steps of a sum read a block of columns from end to end, short pieces of
rows that lie far apart, and with the next tile of rows again. Here some inputs' weights at a time,
few enough for the cache, are multiplied with up to :data:`ROWS` samples, whose sums lie in scratch
meanwhile. 9216 × 128 weights by 30 samples take 1.0 ms instead of 1.6, by one 101 µs instead of
172 (one thread of a Zen 3 processor, AVX2).

The inputs are cut into parts, so that threads have something to share where the columns are few,
and so that no part is longer than a stretch of a long sum (:mod:`fastcnn.core.long_sums`). Each has
sums of its own, in the order of its inputs, and these are added up in order. How many there are
follows from the weights alone, so a sample gives the same bits in any batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import L2_BYTES
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import CACHE_BYTES, Tile
from fastcnn.engine.numba.runtime.arrays import bias_or_zeros, empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.tiles.arithmetic import tile_relu
from fastcnn.engine.numba.tiles.loads_and_stores import (
    tile_from_row,
    tile_from_rows,
    tile_store,
    tile_store_rows,
)
from fastcnn.engine.numba.tiles.products import rank1
from fastcnn.engine.numba.tiles.rows import rows_line, rows_walk
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

# Bytes of weights that are multiplied at a time, and of a row of them.
_PIECE, _ROW = L2_BYTES // 16, 1024
# Samples that are multiplied with them, about, and those whose sums scratch has at once, in bytes.
ROWS, _SCRATCH = 128, 4 * 1024 * 1024
# Parts of the inputs and groups of columns, together, and the inputs of a part, at least.
_ITEMS, _PARTS, _LEAST = 16, 8, 128
# Vectors of the tile for a single sample, if columns fill it: a step then reads a long piece
# of a row.
_LONG = 16


class Product(NamedTuple):
    """``samples`` by ``inputs`` by ``outputs``, and how they are cut up.

    Blocks of ``width`` columns, the last of which overlaps the one before, have places of their own
    in the scratch, whose rows are ``pitch`` apart; a part's begin at ``room`` times its number.
    Items are ``blocks`` of columns by ``parts`` of the inputs by ``rows`` samples.
    """

    samples: int
    inputs: int
    outputs: int
    width: int
    blocks: int
    groups: int
    parts: int
    rows: int
    piece: int
    pitch: int
    room: int


def is_large(inputs: int, outputs: int, itemsize: int) -> bool:
    """Whether a layer's weights are too many for the cache, and its columns for a sum in parts."""
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
        plan = _plan(samples - first, inputs, outputs, x.itemsize)
        some = slice(first, first + plan.product.samples)
        sums = empty_like_type(x, plan.product.parts * plan.product.room)
        given = readable(x[some]).reshape(-1), weights, sums, plan.numbers
        parallel_for(plan.function, plan.items, plan.work, *given)
        count = plan.product.samples
        work = count * outputs * plan.product.parts
        rows = y[some].reshape(-1)
        parallel_for(plan.addition, count, work, sums, bias, rows, relu, plan.numbers)
        first += count
    return y


class _Plan(NamedTuple):
    function: Any
    addition: Any
    items: int
    work: int
    product: Product
    numbers: Array


@cached_choice
def _plan(samples: int, inputs: int, outputs: int, itemsize: int) -> _Plan:
    """The plan for so many samples, or for the first of them where they are too many at once."""
    host = registers()
    lanes = host.vector_bytes // itemsize
    tile = Tile(host.tile_rows, host.tile_vectors, lanes)
    if samples == 1:
        row = _LONG * lanes
        fits = outputs >= row and -outputs % row <= outputs // 8  # what blocks overlap
        tile = Tile(1, _LONG if fits else host.tile_vectors, lanes)
    blocks = -(-outputs // tile.columns)
    groups = -(-outputs * itemsize // _ROW)
    parts = max(1, min(_PARTS, _ITEMS // groups, inputs // _LEAST), -(-inputs // STRETCH))
    pitch, rows = blocks * tile.columns, max(1, ROWS // tile.rows) * tile.rows
    at_once = max(1, _SCRATCH // (parts * pitch * rows * itemsize)) * rows
    samples = min(samples, at_once)
    product = Product(
        samples, inputs, outputs,
        width=tile.columns,
        blocks=-(-blocks // min(groups, blocks)),
        groups=min(groups, blocks),
        parts=parts,
        rows=min(rows, samples),
        piece=max(1, _PIECE // min(_ROW, outputs * itemsize)),
        pitch=pitch,
        room=(samples + tile.rows) * pitch,
    )  # fmt: skip
    items = product.groups * parts * -(-samples // product.rows)
    work = samples * inputs * outputs // 2
    functions = _products(*tile), _add_parts(host.tile_vectors, lanes)
    return _Plan(*functions, items, work, product, record(product))


@kernel_factory
def _products(rows: int, vectors: int, lanes: int) -> Any:
    half = min(rows, rows // 2 + 1)
    width = vectors * lanes

    def of_height(height: int) -> Any:
        @ordered_device
        def one_tile(
            row: int, block: int, first: int, steps: int, x: Any, w: Any, sums: Any, at: int,
            more: bool, c: Any,
        ) -> None:  # fmt: skip
            inputs, outputs = c.inputs, c.outputs
            if row + height <= c.samples:
                in_x = rows_line(height, row * inputs, inputs)
            else:  # rows that are none are the last one again
                in_x = rows_walk(height, 0, 0, row, c.samples - row, 1, c.samples, 0, 0, inputs)
            to = rows_line(height, at + row * c.pitch + block * width, c.pitch)
            if more:
                tile = tile_from_rows(height, vectors, lanes, sums, to, 0)
            else:
                tile = tile_from_row(height, vectors, lanes, sums, 0, 0)
            j = first * outputs + min(block * width, outputs - width)
            for i in range(first, first + steps):
                tile = rank1(tile, x, in_x, i, w, j)
                j += outputs
            tile_store(tile, sums, to, 0, width)

        return one_tile

    whole_tile, half_tile = of_height(rows), of_height(half)

    @ordered_kernel
    def products(start: int, stop: int, x: Any, w: Any, sums: Any, numbers: Any) -> None:
        c = numbers[0]
        blocks = (c.outputs + width - 1) // width
        for item in range(start, stop):
            part, place = item % c.parts, item // c.parts
            first_block, first_row = place % c.groups * c.blocks, place // c.groups * c.rows
            last_block, last_row = min(blocks, first_block + c.blocks), first_row + c.rows
            last_row = min(last_row, c.samples)
            first, last = c.inputs * part // c.parts, c.inputs * (part + 1) // c.parts
            for step in range(first, last, c.piece):
                steps = min(c.piece, last - step)
                for block in range(first_block, last_block):
                    row = first_row
                    while row < last_row:
                        left, done = last_row - row, rows
                        if left <= half or rows < left <= 2 * half:
                            done = half
                            half_tile(
                                row, block, step, steps, x, w, sums, part * c.room,
                                step > first, c,
                            )  # fmt: skip
                        else:
                            whole_tile(
                                row, block, step, steps, x, w, sums, part * c.room,
                                step > first, c,
                            )  # fmt: skip
                        row += done

    return products


@kernel_factory
def _add_parts(vectors: int, lanes: int) -> Any:
    some = vectors * lanes  # columns, a part of a block

    @ordered_kernel
    def add_parts(
        start: int, stop: int, sums: Any, b: Any, y: Any, relu: bool, numbers: Any
    ) -> None:
        """Rows of ``y``: the bias and all parts, in order."""
        c = numbers[0]
        width, pitch, room, totals = c.width, c.pitch, c.room, totals_room(some)
        for row in range(start, stop):
            for column in range(0, pitch, some):
                block = column // width * width
                j = column - block + min(block, c.outputs - width)
                tile = tile_from_row(1, vectors, lanes, b, j, some)
                at = row * pitch + column
                totals_begin(tile, totals, 0)
                totals_add(tile, totals, 0)
                for _ in range(c.parts):
                    totals_add(tile_from_row(1, vectors, lanes, sums, at, some), totals, 0)
                    at += room
                tile = totals_end(tile_from_row(1, vectors, lanes, b, 0, 0), totals, 0)
                if relu:
                    tile = tile_relu(tile)
                tile_store_rows(tile, y, row * c.outputs + j, 0, some, 1)

    return add_parts
