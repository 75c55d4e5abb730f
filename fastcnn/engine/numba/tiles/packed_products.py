"""Intrinsics for rank-1 updates with few columns: a vector holds several rows of ``w``.

The kernel of dense layers with few outputs uses them.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import ArrayType, IntType, LiteralType, Value
from fastcnn.engine.numba.tiles.emitter import Emitter
from fastcnn.engine.numba.tiles.types import WORD, RowsType, TileType


def _plain_rank1_packed(
    columns: int, tile: Array, x: Array, offsets: Array, i: int, w: Array, j: int
) -> Array:
    steps_left = tile.shape[1] // columns
    return _plain_rank1_packed_masked(columns, tile, x, offsets, i, w, j, steps_left)


@intrinsic(_plain_rank1_packed)
def rank1_packed(
    columns: LiteralType,
    tile: TileType,
    x: ArrayType,
    offsets: RowsType,
    i: IntType,
    w: ArrayType,
    j: IntType,
) -> Declaration:
    """Several steps of :func:`rank1` at once, for weights with few columns.

    ``w`` holds rows of ``columns`` numbers without a gap between them. A row of the tile holds as
    many of these rows as fit into it: ``tile[m, k] += x[offsets[m] + i + k // columns] * w[j +
    k]``.

    Tile: rows × vectors, with ``vectors * lanes`` a multiple of ``columns``. Reads ``vectors *
    lanes // columns`` numbers of ``x`` for each row, and ``vectors`` whole vectors of ``w``.
    """

    def generate(code: Code) -> Value:
        return _rank1_packed(code, columns, tile, x, w, None)

    return tile(columns, tile, x, offsets, types.int64, w, types.int64), generate


def _plain_rank1_packed_masked(
    columns: int, tile: Array, x: Array, offsets: Array, i: int, w: Array, j: int, left: int
) -> Array:
    size = left * columns
    values = x[offsets[:, None] + i + np.arange(size) // columns]
    tile = tile.copy()
    tile[:, :size] += values * w[j : j + size]
    return tile


@intrinsic(_plain_rank1_packed_masked)
def rank1_packed_masked(
    columns: LiteralType,
    tile: TileType,
    x: ArrayType,
    offsets: RowsType,
    i: IntType,
    w: ArrayType,
    j: IntType,
    left: IntType,
) -> Declaration:
    """:func:`rank1_packed` with the first ``left`` steps alone.

    Tile: rows × vectors. Reads ``left`` numbers of ``x`` for each row, and ``left * columns`` of
    ``w``.
    """

    def generate(code: Code) -> Value:
        return _rank1_packed(code, columns, tile, x, w, code.arguments[7])

    return tile(columns, tile, x, offsets, types.int64, w, types.int64, types.int64), generate


def _rank1_packed(
    code: Code,
    columns: LiteralType,
    tile: TileType,
    x: ArrayType,
    w: ArrayType,
    left: Value | None,
) -> Value:
    emit, wide = Emitter(code, tile), columns.literal_value
    _, builder, arguments = code
    lanes = range(tile.lanes)
    steps = tile.vectors * tile.lanes // wide
    x_data = builder.gep(emit.data(x, arguments[2]), [arguments[4]])
    row = emit.row(
        emit.data(w, arguments[5]),
        arguments[6],
        None if left is None else builder.mul(left, WORD(wide)),
    )
    sums = emit.unpack(arguments[1])
    for m, offset in enumerate(emit.row_offsets(arguments[3])):
        values = []
        for k in range(steps):
            column = emit.add(offset, WORD(k))
            if left is None:
                values.append(emit.broadcast(x_data, column))
                continue
            inside = builder.icmp_signed("<", WORD(k), left)
            value = emit.broadcast(x_data, builder.select(inside, column, offset))
            values.append(builder.select(inside, value, ir.Constant(emit.vector, None)))
        for v, vector in enumerate(row):
            steps_of_lanes = [(v * tile.lanes + lane) // wide for lane in lanes]
            # Each number of x is broadcast to a whole vector, and these are blended: a load can
            # broadcast, but to spread one vector takes moves across lanes, which are slower.
            value = values[steps_of_lanes[0]]
            for k in range(steps_of_lanes[0] + 1, steps_of_lanes[-1] + 1):
                later = ir.Constant(
                    ir.VectorType(ir.IntType(1), tile.lanes), [int(n >= k) for n in steps_of_lanes]
                )
                value = builder.select(later, values[k], value)
            at = m * tile.vectors + v
            sums[at] = emit.fma(value, vector, sums[at])
    return emit.pack(sums)


def _plain_unpacked(columns: int, lanes: int, tile: Array) -> Array:
    sums = np.zeros((len(tile), -(-columns // lanes) * lanes), tile.dtype)
    for first in range(0, tile.shape[1], columns):
        sums[:, :columns] += tile[:, first : first + columns]
    return sums


@intrinsic(_plain_unpacked)
def tile_unpacked(columns: LiteralType, lanes: LiteralType, tile: TileType) -> Declaration:
    """The sums of :func:`rank1_packed`, added up by columns.

    Tile: rows × vectors; the result has rows × ⌈columns / lanes⌉ vectors, and zeros after the
    columns. Reads no memory.
    """
    wide, across = columns.literal_value, -(-columns.literal_value // tile.lanes)
    unpacked = TileType(tile.rows, across, tile.lanes, tile.dtype)

    def generate(code: Code) -> Value:
        emit, i32 = Emitter(code, tile), ir.IntType(32)

        def shuffled(a: Value, b: Value, lanes: list[int]) -> Value:
            pattern = ir.Constant(ir.VectorType(i32, len(lanes)), [i32(lane) for lane in lanes])
            return code.builder.shuffle_vector(a, b, pattern)

        sums, no_vector = [], ir.Constant(emit.vector, None)
        for row in emit.rows_of(emit.unpack(code.arguments[2])):
            row = [*row, no_vector]
            for first in range(0, wide, tile.lanes):
                count = min(tile.lanes, wide - first)
                terms = []
                for start in range(first, tile.vectors * tile.lanes, wide):
                    v, lane = divmod(start, tile.lanes)
                    terms.append(shuffled(row[v], row[v + 1], [lane + k for k in range(count)]))
                total = terms[0]
                for term in terms[1:]:
                    total = code.builder.fadd(total, term)
                zeros = ir.Constant(total.type, None)
                sums.append(shuffled(total, zeros, [min(k, count) for k in range(tile.lanes)]))
        return Emitter(code, unpacked).pack(sums)

    return unpacked(columns, lanes, tile), generate
