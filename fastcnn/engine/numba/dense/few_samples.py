"""The gradient of a dense layer's input for few samples: ``dx = dy @ w.T``.

Weights are turned in registers, a square after the other, and used at once. To turn them all in
memory, as is right for many samples, takes three times as long as the products with one sample do:
the gradient by 1352×10 weights takes 2.0 µs so instead of 5.0, by 9216×128 0.25 ms instead of 0.6,
and by the latter of four samples no more (one thread of a Zen 3 processor, AVX2).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import ITEMS, WORTH, Plan
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store_rows
from fastcnn.engine.numba.tiles.rows import rows_line, rows_walk
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room
from fastcnn.engine.numba.tiles.transposes import rank1_square

FEW = 4
"""Samples at most: as many as have their sums in registers beside a square of AVX2's."""


class Product(NamedTuple):
    """``samples`` by ``outputs`` by ``inputs``, which are some of the ``apart`` of a sample.

    An item has ``part`` vectors of inputs.
    """

    samples: int
    inputs: int
    outputs: int
    apart: int
    part: int


@cached_choice
def plan_turning(samples: int, inputs: int, outputs: int, itemsize: int, apart: int) -> Plan | None:
    """The plan, whose kernel takes the weights as they are; None where a side is below a square's.

    Operands are those of a contraction.
    """
    lanes = registers().vector_bytes // itemsize
    while lanes > 2 and lanes > min(inputs, outputs):
        lanes //= 2
    if lanes > min(inputs, outputs):
        return None
    vectors, work = -(-inputs // lanes), samples * inputs * outputs // 2
    items = min(vectors, ITEMS, 1 + work // WORTH)
    part = -(-vectors // items)
    product = record(Product(samples, inputs, outputs, apart, part))
    return Plan(_turning(1 if samples == 1 else FEW, lanes), -(-vectors // part), work, product)


@kernel_factory
def _turning(rows: int, lanes: int) -> Any:
    room = rows * lanes

    @ordered_kernel
    def turning(
        start: int, stop: int, dy: Any, w: Any, b: Any, dx: Any, relu: bool, numbers: Any
    ) -> None:
        c = numbers[0]
        samples, inputs, outputs, apart, part = c.samples, c.inputs, c.outputs, c.apart, c.part
        nothing, totals = tile_from_row(rows, 1, lanes, b, 0, 0), totals_room(room)
        whole = outputs // lanes * lanes
        last, known = outputs - lanes, lanes - (outputs - whole)
        in_dy = rows_line(rows, 0, outputs)
        if samples < rows:  # rows that are none are the last one again
            in_dy = rows_walk(rows, 0, 0, 0, samples, 1, samples, 0, 0, outputs)
        for vector in range(start * part, min(stop * part, (inputs + lanes - 1) // lanes)):
            # The last vector reaches back over the one before, as the last square does.
            first, tile = min(vector * lanes, inputs - lanes), nothing
            if outputs > STRETCH:
                totals_begin(tile, totals, 0)
            for stretch in range(0, whole, STRETCH):
                for column in range(stretch, min(whole, stretch + STRETCH), lanes):
                    j = first * outputs + column
                    tile = rank1_square(tile, dy, in_dy, column, w, j, outputs, 0)
                if outputs > STRETCH and stretch + STRETCH <= whole:
                    tile = totals_add(tile, totals, 0)
            if known < lanes:
                j = first * outputs + last
                tile = rank1_square(tile, dy, in_dy, last, w, j, outputs, known)
            if outputs > STRETCH:
                tile = totals_end(tile, totals, 0)
            tile_store_rows(tile, dx, first, apart, lanes, samples)

    return turning
