"""The gradient of a dense layer's input for few samples: ``dx = dy @ w.T``.

Weights are transposed in registers, one square after the other, and used at once. To transpose them
all in memory, as is right for many samples, takes three times as long as the products with one
sample do (docs/measurements.md, "Weights are transposed in registers").
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import (
    ITEM_WORK,
    ITEMS,
    Plan,
)
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store_rows
from fastcnn.engine.numba.tiles.rows import rows_line, rows_walk
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room
from fastcnn.engine.numba.tiles.transposes import rank1_square

FEW = 4
"""Most samples. With AVX2 the sums of so many fit into registers beside a square of weights."""


class FewSamplesProduct(NamedTuple):
    """Sizes: ``samples``, ``outputs``, and ``inputs``, a part of a sample's ``all_inputs``.

    An item has ``grain`` vectors of inputs.
    """

    samples: int
    inputs: int
    outputs: int
    all_inputs: int
    grain: int


def plan_few_samples(
    samples: int, inputs: int, outputs: int, itemsize: int, all_inputs: int
) -> Plan | str:
    """The plan, whose kernel takes the weights as they are, or why it does not serve.

    Arrays are those of a contraction.
    """
    if samples > FEW:
        return f"there are more than {FEW} samples"
    lanes = registers().vector_bytes // itemsize
    while lanes > 2 and lanes > min(inputs, outputs):
        lanes //= 2
    if lanes > min(inputs, outputs):
        return "a side of the weights is below a square's"
    vectors, work = -(-inputs // lanes), samples * inputs * outputs // 2
    items = min(vectors, ITEMS, 1 + work // ITEM_WORK)
    grain = -(-vectors // items)
    numbers = record(FewSamplesProduct(samples, inputs, outputs, all_inputs, grain))
    function = _few_samples(1 if samples == 1 else FEW, lanes)
    return Plan(function, -(-vectors // grain), work, numbers)


@kernel_factory
def _few_samples(rows: int, lanes: int) -> Kernel:
    """The kernel: reads dy (samples, outputs) and w (inputs, outputs), writes dx.

    A sample of dx is ``all_inputs`` long. It never reads ``b`` or ``relu``.
    """
    room = rows * lanes

    @ordered_kernel
    def few_samples(
        start: int, stop: int, dy: Array, w: Array, b: Array, dx: Array, relu: bool, numbers: Array
    ) -> None:
        c = numbers[0]
        samples, inputs, outputs, grain = c.samples, c.inputs, c.outputs, c.grain
        all_inputs = c.all_inputs
        nothing, totals = tile_from_row(rows, 1, lanes, b, 0, 0), totals_room(room)
        full_outputs = outputs // lanes * lanes
        last, overlap = outputs - lanes, lanes - (outputs - full_outputs)
        in_dy = rows_line(rows, 0, outputs)
        if samples < rows:  # rows beyond the last sample repeat it
            in_dy = rows_walk(rows, 0, 0, 0, samples, 1, samples, 0, 0, outputs)
        for vector in range(start * grain, min(stop * grain, (inputs + lanes - 1) // lanes)):
            # The last vector reaches back over the one before, as the last square does.
            first, tile = min(vector * lanes, inputs - lanes), nothing
            if outputs > STRETCH:
                totals_begin(tile, totals, 0)
            for begin in range(0, full_outputs, STRETCH):
                for column in range(begin, min(full_outputs, begin + STRETCH), lanes):
                    j = first * outputs + column
                    tile = rank1_square(tile, dy, in_dy, column, w, j, outputs, 0)
                if outputs > STRETCH and begin + STRETCH <= full_outputs:
                    tile = totals_add(tile, totals, 0)
            if overlap < lanes:
                j = first * outputs + last
                tile = rank1_square(tile, dy, in_dy, last, w, j, outputs, overlap)
            if outputs > STRETCH:
                tile = totals_end(tile, totals, 0)
            tile_store_rows(tile, dx, first, all_inputs, lanes, samples)

    return few_samples
