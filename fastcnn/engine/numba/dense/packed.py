"""Dense layers of few outputs and many inputs, as nets for some classes end in.

Ten columns fill no whole number of vectors, and the empty lanes cost as much as the full ones. But
rows of weights follow each other, so vectors filled with weights as they lie hold a few rows
without a gap: with 8 lanes, five vectors hold four rows of ten. A sample has an accumulator for
each of these numbers. With ten columns and 8 lanes, each output has four accumulators, and each of
them adds every fourth input. At the end, or at the end of each stretch of a long sum
(:mod:`fastcnn.core.long_sums`), the accumulators of an output are added up.

The compiler must know the number of columns, so each number has a kernel of its own. The sums of a
sample do not depend on the other samples. What it gains: docs/measurements.md, "Vectors hold
several rows of weights".
"""

from __future__ import annotations

from math import lcm
from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import (
    ITEM_WORK,
    ITEMS,
    Plan,
)
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_relu
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store_rows
from fastcnn.engine.numba.tiles.packed_products import (
    rank1_packed,
    rank1_packed_masked,
    tile_unpacked,
)
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

INPUTS = 256
"""Inputs of a layer for this kernel, at least: to add up the accumulators takes time too."""
_COLUMNS, _VECTORS = 24, 5
"""Outputs (or a register tile's columns, if these are more), and vectors that rows fill without a
gap, both at most. With more vectors, too few samples share the weights that a step reads."""
_ACCUMULATORS = 2
"""Vectors of accumulators of a sample, at least, because a sum waits for the one before."""


class Packed(NamedTuple):
    """``samples`` by ``inputs``; an item has ``grain`` samples."""

    samples: int
    inputs: int
    grain: int


def plan_packed(samples: int, inputs: int, outputs: int, itemsize: int) -> Plan | str:
    """The plan, whose operands are those of a contraction, or why this kernel does not serve."""
    host = registers()
    lanes = host.vector_bytes // itemsize
    vectors = lcm(outputs, lanes) // lanes
    if inputs < INPUTS:
        return f"there are fewer than {INPUTS} inputs"
    if outputs > max(_COLUMNS, host.tile_vectors * lanes):
        return "the columns fill a register tile"
    if vectors > _VECTORS:
        return f"rows of {outputs} fill {vectors} vectors without a gap, more than {_VECTORS}"
    vectors *= -(-_ACCUMULATORS // vectors)
    rows = min(4, (host.number - 2) // vectors)  # as many as have their sums in registers
    work = samples * inputs * outputs // 2
    items = min(ITEMS, 1 + work // ITEM_WORK)
    grain = -(-samples // items // rows) * rows
    numbers = record(Packed(samples, inputs, grain))
    return Plan(_packed(outputs, rows, vectors, lanes), -(-samples // grain), work, numbers)


@kernel_factory
def _packed(columns: int, rows: int, vectors: int, lanes: int) -> Kernel:
    """The kernel: ``y[sample] = b + x[sample] @ w``.

    Reads x (samples, inputs), w (inputs, columns) and b (columns,), writes y (samples, columns).
    """
    samples_of_tile = vectors * lanes // columns
    stretch = STRETCH // samples_of_tile
    room = rows * -(-columns // lanes) * lanes

    def make_tile(height: int) -> DeviceFunction:
        @ordered_device
        def some_samples(
            sample: int,
            x: Array,
            w: Array,
            b: Array,
            y: Array,
            relu: bool,
            totals: int,
            inputs: int,
        ) -> None:
            # The bias starts the sums of the first input of each group.
            tile = tile_from_row(height, vectors, lanes, b, 0, columns)
            in_x, i, j, left = (
                rows_line(height, 0, inputs),
                sample * inputs,
                0,
                inputs % samples_of_tile,
            )
            if inputs > STRETCH:
                totals_begin(tile_unpacked(columns, lanes, tile), totals, 0)
            groups = inputs // samples_of_tile
            while groups > 0:
                some = min(groups, stretch)
                for _ in range(some):
                    tile = rank1_packed(columns, tile, x, in_x, i, w, j)
                    i += samples_of_tile
                    j += samples_of_tile * columns
                groups -= some
                if inputs > STRETCH:
                    totals_add(tile_unpacked(columns, lanes, tile), totals, 0)
                    tile = tile_from_row(height, vectors, lanes, b, 0, 0)
            if left:
                tile = rank1_packed_masked(columns, tile, x, in_x, i, w, j, left)
            sums = tile_unpacked(columns, lanes, tile)
            if inputs > STRETCH:
                sums = totals_end(sums, totals, 0)
            if relu:
                sums = tile_relu(sums)
            tile_store_rows(sums, y, sample * columns, columns, columns, height)

        return some_samples

    full_tile, single_tile = make_tile(rows), make_tile(1)

    @ordered_kernel
    def packed(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, relu: bool, numbers: Array
    ) -> None:
        samples, inputs, grain = numbers[0].samples, numbers[0].inputs, numbers[0].grain
        totals = totals_room(room)
        for item in range(start, stop):
            first, last = item * grain, min(samples, (item + 1) * grain)
            end_of_tiles = first + (last - first) // rows * rows
            for sample in range(first, end_of_tiles, rows):
                full_tile(sample, x, w, b, y, relu, totals, inputs)
            for sample in range(end_of_tiles, last):
                single_tile(sample, x, w, b, y, relu, totals, inputs)

    return packed
