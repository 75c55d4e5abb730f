"""What fused kernels do to a tile of sums before they store it.

The sums of a layer can go through a batch normalisation, the addition of another image, and an
activation in registers, so that these layers of a net pass over no memory of their own. Kernels
that do so are kernels of their own, because the layers of most small nets need none of it.

The operand ``b`` of such a kernel holds 3 · C + 1 numbers for C output channels: the bias, with
which the sums begin; a scale and a shift for each channel; and the largest number of a clipped
ReLU.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.types import DeviceFunction
from fastcnn.engine.numba.tiles.arithmetic import (
    tile_capped,
    tile_hard_swish,
    tile_multiply_add,
    tile_relu,
    tile_sum,
)
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_load_masked


class Epilogue(NamedTuple):
    """Which parts of the epilogue a fused kernel has to do, beside ReLU.

    Attributes:
        affine: each channel is multiplied by its scale, and its shift is added.
        residual: an array of the result's shape is added, after the scale and shift.
        capped: numbers above the largest number become equal to it, after ReLU.
        hard_swish: the activation is HardSwish.
    """

    affine: bool = False
    residual: bool = False
    capped: bool = False
    hard_swish: bool = False


def fused_epilogue(height: int, vectors: int, lanes: int) -> DeviceFunction:
    """The device function that finishes tiles of ``height`` rows × vectors.

    Its operations stay in their order, because ``x · (x / 6 + ½)`` is exactly 0 at −3 in this order
    alone.
    """

    @ordered_device
    def finish(
        tile: Array, b: Array, at_b: int, channels: int, residual: Array, in_y: Array,
        y_start: int, columns: int, relu: bool, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        """The finished tile, whose first channel has its bias at ``b[at_b]``.

        Row m of the tile will be stored at ``in_y[m] + y_start``, and its residual lies there too.
        """
        if epilogue.affine:
            scale = tile_from_row(height, vectors, lanes, b, at_b + channels, columns)
            shift = tile_from_row(height, vectors, lanes, b, at_b + 2 * channels, columns)
            tile = tile_multiply_add(tile, scale, shift)
        if epilogue.residual:
            shortcut = tile_load_masked(height, vectors, lanes, residual, in_y, y_start, columns)
            tile = tile_sum(tile, shortcut)
        if relu:
            tile = tile_relu(tile)
        if epilogue.capped:
            tile = tile_capped(tile, b, 3 * channels)
        if epilogue.hard_swish:
            tile = tile_hard_swish(tile)
        return tile

    return finish
