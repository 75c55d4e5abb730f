"""Intrinsics for products column by column: the innermost steps of depthwise convolution.

Each column of the tile has its own input, so ``x`` is read as vectors, while a rank-1 update
broadcasts single numbers of it.
"""

from __future__ import annotations

from numba.core import types

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import ArrayType, IntType, LiteralType, Value
from fastcnn.engine.numba.tiles.emitter import Emitter
from fastcnn.engine.numba.tiles.types import RowsType, TileType


def _plain_products(
    tile: Array,
    x: Array,
    offsets: Array,
    i: int,
    w: Array,
    j: int,
    columns: int,
    low: int,
    high: int,
) -> Array:
    row = w[j : j + columns]
    for m in range(max(low, 0), min(high, len(tile))):
        first = offsets[m] + i
        tile[m, :columns] += x[first : first + columns] * row
    return tile


@intrinsic(_plain_products)
def products(
    tile: TileType,
    x: ArrayType,
    offsets: RowsType,
    i: IntType,
    w: ArrayType,
    j: IntType,
    columns: IntType,
    low: IntType,
    high: IntType,
) -> Declaration:
    """``tile[m, :columns] += x[offsets[m] + i : …] * w[j : …]``, number by number.

    The step of depthwise convolution, in which each column has its own input. It updates the rows m
    with ``low <= m < high``; for the other rows nothing is read.

    Tile: rows × vectors. Reads ``columns`` numbers of ``x`` for each of these rows, and ``columns``
    of ``w``.
    """

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        struct, x_value, rows, i, w_value, j, columns, low, high = code.arguments
        x_data = code.builder.gep(emit.data(x, x_value), [i])
        w_data = emit.data(w, w_value)

        def sums_of(every: bool) -> Value:
            row = emit.row(w_data, j, None if every else columns)
            sums = emit.unpack(struct)
            for m, offset in enumerate(emit.row_offsets(rows)):
                if every:
                    values = emit.row(x_data, offset, None)
                else:
                    inside = emit.inside(m, low, high)
                    values = emit.row_or_zeros(x_data, offset, columns, inside)
                for v in range(tile.vectors):
                    at = m * tile.vectors + v
                    sums[at] = emit.fma(values[v], row[v], sums[at])
            return emit.pack(sums)

        return emit.either(emit.all_inside(tile.rows, columns, low, high), sums_of)

    integer = types.int64
    arrays = tile, x, offsets, integer, w, integer, integer, integer, integer
    return tile(*arrays), generate


def _plain_row_products(
    taps: int,
    tile: Array,
    x: Array,
    i: int,
    pixel: int,
    w: Array,
    j: int,
    tap: int,
    columns: int,
    low: int,
    high: int,
) -> Array:
    for k in range(taps):
        row = w[j + k * tap : j + k * tap + columns]
        for m in range(max(low - k, 0), min(high - k, len(tile))):
            first = i + (m + k) * pixel
            tile[m, :columns] += x[first : first + columns] * row
    return tile


@intrinsic(_plain_row_products)
def row_products(
    taps: LiteralType,
    tile: TileType,
    x: ArrayType,
    i: IntType,
    pixel: IntType,
    w: ArrayType,
    j: IntType,
    tap: IntType,
    columns: IntType,
    low: IntType,
    high: IntType,
) -> Declaration:
    """:func:`products` for all ``taps`` of a filter's row, where rows of the tile are neighbours.

    ``tile[m] += x[i + (m + k) * pixel : …] * w[j + k * tap : …]`` for k below ``taps``. Each pixel
    is loaded once, and serves every tap that meets it; sums grow in the order of the taps. Pixels p
    = m + k count with ``low <= p < high``; nothing is read of the others.

    Tile: rows × vectors. Reads ``columns`` numbers of ``x`` for each of ``rows + taps - 1`` pixels,
    and ``columns`` numbers of ``w`` for each tap.
    """
    count = taps.literal_value

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        _, struct, x_value, i, pixel, w_value, j, tap, columns, low, high = code.arguments
        x_data, w_data = emit.data(x, x_value), emit.data(w, w_value)
        pixels = tile.rows + count - 1

        def sums_of(every: bool) -> Value:
            at_w, at_x = j, i
            rows = []
            for _ in range(count):
                rows.append(emit.row(w_data, at_w, None if every else columns))
                at_w = emit.add(at_w, tap)
            sums = emit.unpack(struct)
            for p in range(pixels):
                if every:
                    values = emit.row(x_data, at_x, None)
                else:
                    inside = emit.inside(p, low, high)
                    values = emit.row_or_zeros(x_data, at_x, columns, inside)
                at_x = emit.add(at_x, pixel)
                for k in range(count):
                    if 0 <= p - k < tile.rows:
                        for v in range(tile.vectors):
                            at = (p - k) * tile.vectors + v
                            sums[at] = emit.fma(values[v], rows[k][v], sums[at])
            return emit.pack(sums)

        return emit.either(emit.all_inside(pixels, columns, low, high), sums_of)

    integer = types.int64
    arrays = taps, tile, x, integer, integer, w, *[integer] * 5
    return tile(*arrays), generate
