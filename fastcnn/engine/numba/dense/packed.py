"""Dense layers of ten outputs, as nets for ten classes end in: long sums, few columns.

Ten columns fill no whole number of vectors, and what they leave empty takes as long as what they
fill. But rows of weights follow each other, so that vectors filled with weights as they lie hold a
few rows without a gap: with 8 lanes five vectors hold four rows. A sample has sums in all these
lanes, each of every fourth input and one output, and at the end, or at the end of each stretch of a
long sum (:mod:`fastcnn.core.long_sums`), they are added up by outputs. A
call on 8 samples of 1352 inputs takes 4.4 µs instead of the 8.4 of tiles with empty lanes (one
thread of a Zen 3 processor, AVX2).

The compiler must know the number of columns, and each takes a kernel of its own, so only the most
common has one; others are contractions (:mod:`fastcnn.engine.numba.contraction.contraction`). What
a sample's sums are does not depend on the others.
"""

from __future__ import annotations

from math import lcm
from typing import Any, NamedTuple

from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import ITEMS, LONG, WORTH, Plan
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_relu
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store_rows
from fastcnn.engine.numba.tiles.packed_products import (
    rank1_packed,
    rank1_packed_masked,
    tile_unpacked,
)
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

COLUMNS = 10


class Packed(NamedTuple):
    """``samples`` by ``inputs``; an item has ``part`` samples."""

    samples: int
    inputs: int
    part: int


@cached_choice
def plan_packed(samples: int, inputs: int, outputs: int, itemsize: int) -> Plan | None:
    """The plan, whose operands are those of a contraction; None where this is not better."""
    if outputs != COLUMNS or inputs < LONG:
        return None
    host = registers()
    lanes = host.vector_bytes // itemsize
    rows = 4 if host.tile_rows > 8 else 2  # as many as have their sums in registers
    work = samples * inputs * outputs // 2
    items = min(ITEMS, 1 + work // WORTH)
    part = -(-samples // items // rows) * rows
    function = _packed(rows, lcm(COLUMNS, lanes) // lanes, lanes)
    return Plan(function, -(-samples // part), work, record(Packed(samples, inputs, part)))


@kernel_factory
def _packed(rows: int, vectors: int, lanes: int) -> Any:
    at_once = vectors * lanes // COLUMNS
    stretch = STRETCH // at_once
    room = rows * -(-COLUMNS // lanes) * lanes

    def of_height(height: int) -> Any:
        @ordered_device
        def some_samples(
            sample: int, x: Any, w: Any, b: Any, y: Any, relu: bool, totals: Any, inputs: int
        ) -> None:
            # The bias is where the first of each group of inputs has its sums.
            tile = tile_from_row(height, vectors, lanes, b, 0, COLUMNS)
            in_x, i, j, left = rows_line(height, 0, inputs), sample * inputs, 0, inputs % at_once
            if inputs > STRETCH:
                totals_begin(tile_unpacked(COLUMNS, lanes, tile), totals, 0)
            groups = inputs // at_once
            while groups > 0:
                some = min(groups, stretch)
                for _ in range(some):
                    tile = rank1_packed(COLUMNS, tile, x, in_x, i, w, j)
                    i += at_once
                    j += at_once * COLUMNS
                groups -= some
                if inputs > STRETCH:
                    totals_add(tile_unpacked(COLUMNS, lanes, tile), totals, 0)
                    tile = tile_from_row(height, vectors, lanes, b, 0, 0)
            if left:
                tile = rank1_packed_masked(COLUMNS, tile, x, in_x, i, w, j, left)
            sums = tile_unpacked(COLUMNS, lanes, tile)
            if inputs > STRETCH:
                sums = totals_end(sums, totals, 0)
            if relu:
                sums = tile_relu(sums)
            tile_store_rows(sums, y, sample * COLUMNS, COLUMNS, COLUMNS, height)

        return some_samples

    several, one = of_height(rows), of_height(1)

    @ordered_kernel
    def packed(
        start: int, stop: int, x: Any, w: Any, b: Any, y: Any, relu: bool, numbers: Any
    ) -> None:
        samples, inputs, part = numbers[0].samples, numbers[0].inputs, numbers[0].part
        totals = totals_room(room)
        for item in range(start, stop):
            first, last = item * part, min(samples, (item + 1) * part)
            whole = first + (last - first) // rows * rows
            for sample in range(first, whole, rows):
                several(sample, x, w, b, y, relu, totals, inputs)
            for sample in range(whole, last):
                one(sample, x, w, b, y, relu, totals, inputs)

    return packed
