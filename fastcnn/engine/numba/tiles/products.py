"""Intrinsics for rank-1 updates of a register tile: the innermost step of convolutions.

The step, which is that of matrix products too, is

    tile[m, :] += x[rows[m] + i] * w[j : j + vectors * lanes]

with one load for each vector of ``w``, one broadcast for each row, and one fused multiply-add for
each register. The functions differ in how the tile's rows lie in ``x``, and in how many columns of
``w`` there are.
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


def _plain_rank1(tile: Array, x: Array, offsets: Array, i: int, w: Array, j: int) -> Array:
    result: Array = tile + x[offsets + i][:, None] * w[None, j : j + tile.shape[1]]
    return result


@intrinsic(_plain_rank1)
def rank1(
    tile: TileType,
    x: ArrayType,
    offsets: RowsType,
    i: IntType,
    w: ArrayType,
    j: IntType,
) -> Declaration:
    """``tile[m] += x[offsets[m] + i] * w[j : j + vectors * lanes]`` for all rows m.

    Tile: rows × vectors. Reads one number of ``x`` for each row, and ``vectors`` whole vectors of
    ``w``.
    """

    def generate(code: Code) -> Value:
        return _rank1(code, tile, x, w, None)

    return tile(tile, x, offsets, types.int64, w, types.int64), generate


def _plain_rank1_masked(
    tile: Array, x: Array, offsets: Array, i: int, w: Array, j: int, columns: int
) -> Array:
    row = np.zeros(tile.shape[1], w.dtype)
    row[:columns] = w[j : j + columns]
    result: Array = tile + x[offsets + i][:, None] * row
    return result


@intrinsic(_plain_rank1_masked)
def rank1_masked(
    tile: TileType,
    x: ArrayType,
    offsets: RowsType,
    i: IntType,
    w: ArrayType,
    j: IntType,
    columns: IntType,
) -> Declaration:
    """:func:`rank1` with the first ``columns`` numbers of ``w``; the others count as 0.

    Tile: rows × vectors. Reads one number of ``x`` for each row, and ``w[j : j + columns]``.
    """

    def generate(code: Code) -> Value:
        return _rank1(code, tile, x, w, code.arguments[6])

    return tile(tile, x, offsets, types.int64, w, types.int64, types.int64), generate


def _rank1(code: Code, tile: TileType, x: ArrayType, w: ArrayType, columns: Value | None) -> Value:
    emit, (_, builder, arguments) = Emitter(code, tile), code
    # One pointer runs for all rows, so that the offsets of the rows do not change in the loop.
    x_data = builder.gep(emit.data(x, arguments[1]), [arguments[3]])
    if tile.vectors == 1:
        # A tall tile has more rows than there are registers. The compiler must not see the
        # pointer, because it would add it to all offsets before the loop. In wide tiles the offsets
        # fit into registers, and the compiler should see the pointer.
        x_data = emit.opaque(x_data)
    row = emit.row(emit.data(w, arguments[4]), arguments[5], columns)
    sums = emit.unpack(arguments[0])
    for m, offset in enumerate(emit.row_offsets(arguments[2])):
        value = emit.broadcast(x_data, offset)
        for v in range(tile.vectors):
            at = m * tile.vectors + v
            sums[at] = emit.fma(value, row[v], sums[at])
    return emit.pack(sums)


def _plain_rank1_lines(
    lines: int, tile: Array, x: Array, i: int, line: int, step: int, w: Array, j: int, columns: int
) -> Array:
    offsets = np.arange(lines)[:, None] * line + np.arange(len(tile) // lines) * step
    return _plain_rank1_masked(tile, x, offsets.reshape(-1), i, w, j, columns)


@intrinsic(_plain_rank1_lines)
def rank1_lines(
    lines: LiteralType,
    tile: TileType,
    x: ArrayType,
    i: IntType,
    line: IntType,
    step: IntType,
    w: ArrayType,
    j: IntType,
    columns: IntType,
) -> Declaration:
    """:func:`rank1_masked` for a tile whose rows lie in ``lines`` lines of equal length.

    ``tile[l * length + k] += x[i + l * line + k * step] * w[j : j + columns]``. Rows at arbitrary
    offsets need a register for each offset. A tile that has more rows than the processor has
    registers reads offsets from memory again and again, and a tile with fewer rows computes them
    anew. The rows of a line lie at multiples of one step, and a load can multiply a register by 1,
    2, 4 or 8: together with 3, 5 and 7 times the step, one pointer reaches nine rows.

    Tile: rows × vectors, with rows a multiple of ``lines``. Reads one number of ``x`` for each row,
    and ``w[j : j + columns]``.
    """
    count = lines.literal_value
    odd, reach = (3, 5, 7), 9

    def generate(code: Code) -> Value:
        emit, builder = Emitter(code, tile), code.builder
        _, struct, x_value, i, line, step, w_value, j, columns = code.arguments
        byte = ir.PointerType(ir.IntType(8))
        number = ir.PointerType(emit.vector.element)
        first = builder.bitcast(builder.gep(emit.data(x, x_value), [i]), byte)
        row = emit.row(emit.data(w, w_value), j, columns)
        # The step counts bytes and is opaque, because the compiler would otherwise keep each
        # multiple in a register of its own.
        fold = {1: emit.opaque(builder.mul(step, WORD(emit.size)))}
        fold |= {k: builder.mul(fold[1], WORD(k)) for k in odd}
        line = builder.mul(line, WORD(emit.size))
        sums = emit.unpack(struct)
        length = tile.rows // count
        for m in range(tile.rows):
            k = m % length
            if k % reach == 0:
                far = builder.add(
                    builder.mul(line, WORD(m // length)), builder.mul(fold[1], WORD(k))
                )
                pointer = emit.opaque(builder.gep(first, [far]))
            k %= reach
            power = k & -k  # the largest power of two that divides it
            at = pointer
            if k:
                at = builder.gep(pointer, [builder.mul(fold[k // power], WORD(power))])
            value = emit.splat(builder.load(builder.bitcast(at, number), align=emit.size))
            for v, vector in enumerate(row, m * tile.vectors):
                sums[v] = emit.fma(value, vector, sums[v])
        return emit.pack(sums)

    integer = types.int64
    arrays = lines, tile, x, integer, integer, integer, w, integer, integer
    return tile(*arrays), generate


def _plain_rank1_taps(
    taps: int, lines: int, tile: Array, x: Array, i: int, line: int, w: Array, j: int, tap: int,
    columns: int,
) -> Array:  # fmt: skip
    for k in range(taps):
        tile = _plain_rank1_lines(lines, tile, x, i + k, line, 1, w, j + k * tap, columns)
    return tile


@intrinsic(_plain_rank1_taps)
def rank1_taps(
    taps: LiteralType,
    lines: LiteralType,
    tile: TileType,
    x: ArrayType,
    i: IntType,
    line: IntType,
    w: ArrayType,
    j: IntType,
    tap: IntType,
    columns: IntType,
) -> Declaration:
    """:func:`rank1_lines` for the ``taps`` taps of a filter's row; a line's pixels are neighbours.

    ``tile[l * length + m] += x[i + l * line + m + k] * w[j + k * tap : …]`` for k = 0, 1, … below
    ``taps``, in this order. Each number of a line is read once, and serves all taps that meet it.

    Tile: rows × vectors, with rows a multiple of ``lines``. Reads ``length + taps - 1`` numbers of
    ``x`` for each line, and ``columns`` numbers of ``w`` for each tap.
    """
    count, ahead = lines.literal_value, taps.literal_value

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        _, _, struct, x_value, i, line, w_value, j, tap, columns = code.arguments
        x_data, w_data = emit.data(x, x_value), emit.data(w, w_value)
        length, size = tile.rows // count, tile.vectors
        rows, pointers = [], []
        for _ in range(ahead):
            rows.append(emit.row(w_data, j, columns))
            j = emit.add(j, tap)
        for _ in range(count):
            pointers.append(emit.opaque(code.builder.gep(x_data, [i])))
            i = emit.add(i, line)
        sums = emit.unpack(struct)
        for p in range(length + ahead - 1):
            for number, pointer in enumerate(pointers):
                value = emit.broadcast(pointer, WORD(p))
                for k in range(max(0, p - length + 1), min(ahead, p + 1)):
                    first = (number * length + p - k) * size
                    for v, vector in enumerate(rows[k], first):
                        sums[v] = emit.fma(value, vector, sums[v])
        return emit.pack(sums)

    integer = types.int64
    arrays = taps, lines, tile, x, integer, integer, w, integer, integer, integer
    return tile(*arrays), generate
