"""The gradient of a dense layer's input for one or two samples: ``dx = dy @ w.T``.

Weights are turned in registers, a square after the other, and used at once. To turn them all in
memory, as is right for many samples, takes three times as long as the products with one sample do:
the gradient by 1352×10 weights takes 1.4 µs so instead of 5.0, and 9216×128 are read only once.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

from fastcnn.kernels.arrays import record
from fastcnn.kernels.contraction import ITEMS, WORTH, Plan
from fastcnn.kernels.jit import ordered_kernel
from fastcnn.kernels.simd import rank1_square, registers, tile_from_row, tile_store_rows

FEW = 2
"""Samples at most."""


class Product(NamedTuple):
    """``samples`` by ``outputs`` by ``inputs``, which are some of the ``apart`` of a sample.

    An item has ``part`` vectors of inputs.
    """

    samples: int
    inputs: int
    outputs: int
    apart: int
    part: int


@lru_cache(maxsize=1024)
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
    return Plan(_turning(lanes), -(-vectors // part), work, product)


@cache
def _turning(lanes: int) -> Any:
    @ordered_kernel
    def turning(
        start: int, stop: int, dy: Any, w: Any, b: Any, dx: Any, relu: bool, numbers: Any
    ) -> None:
        c = numbers[0]
        samples, inputs, outputs, apart, part = c.samples, c.inputs, c.outputs, c.apart, c.part
        nothing = tile_from_row(1, 1, lanes, b, 0, 0)
        whole = outputs // lanes * lanes
        last, known = outputs - lanes, lanes - (outputs - whole)
        for vector in range(start * part, min(stop * part, (inputs + lanes - 1) // lanes)):
            # The last vector reaches back over the one before, as the last square does.
            first = min(vector * lanes, inputs - lanes)
            for sample in range(samples):
                at, tile = sample * outputs, nothing
                for column in range(0, whole, lanes):
                    j = first * outputs + column
                    tile = rank1_square(tile, dy, at + column, w, j, outputs, 0)
                if known < lanes:
                    j = first * outputs + last
                    tile = rank1_square(tile, dy, at + last, w, j, outputs, known)
                tile_store_rows(tile, dx, sample * apart + first, 0, lanes, 1)

    return turning
