"""Intrinsics that load register tiles from memory, store them, and fetch cache lines.

Arrays are one-dimensional and offsets count elements. Kernels check the bounds.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.runtime.instruction_sets import host_registers
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import ArrayType, IntType, LiteralType, Value
from fastcnn.engine.numba.tiles.emitter import Emitter
from fastcnn.engine.numba.tiles.types import WORD, RowsType, TileType, tile_type


def _plain_row(
    rows: int, vectors: int, lanes: int, array: Array, start: int, columns: int
) -> Array:
    tile = np.zeros((rows, vectors * lanes), array.dtype)
    tile[:, :columns] = array[start : start + columns]
    return tile


@intrinsic(_plain_row)
def tile_from_row(
    rows: LiteralType,
    vectors: LiteralType,
    lanes: LiteralType,
    array: ArrayType,
    start: IntType,
    columns: IntType,
) -> Declaration:
    """A tile of rows × vectors whose rows are all equal, such as the bias.

    Reads ``array[start : start + columns]``; the other columns of the tile are 0.
    """
    tile = tile_type(rows, vectors, lanes, array)

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        data = emit.data(array, code.arguments[3])
        return emit.pack(emit.row(data, code.arguments[4], code.arguments[5]) * tile.rows)

    return tile(rows, vectors, lanes, array, types.int64, types.int64), generate


def _plain_expect(tile: Array, array: Array, offsets: Array, start: int) -> None:
    pass


@intrinsic(_plain_expect)
def expect_store(
    tile: TileType, array: ArrayType, offsets: RowsType, start: IntType
) -> Declaration:
    """Fetch the cache lines that :func:`tile_store` will write to.

    Tile: rows × vectors. A hint to the processor, which never faults.
    """
    return _expect(tile, array, offsets, writing=True)


@intrinsic(_plain_expect)
def expect_load(tile: TileType, array: ArrayType, offsets: RowsType, start: IntType) -> Declaration:
    """Fetch the cache lines that begin where the rows of a tile will be read.

    Tile: rows × vectors. A hint to the processor, which never faults.
    """
    return _expect(tile, array, offsets, writing=False)


def _expect(tile: TileType, array: ArrayType, offsets: RowsType, writing: bool) -> Declaration:
    def generate(code: Code) -> Value:
        emit, builder = Emitter(code, tile), code.builder
        _, array_value, rows, start = code.arguments
        data, i32 = emit.data(array, array_value), ir.IntType(32)
        for offset in emit.row_offsets(rows):
            for column in range(0, tile.vectors * tile.lanes, CACHE_LINE // emit.size):
                pointer = builder.gep(data, [emit.add(emit.add(offset, start), WORD(column))])
                kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
                function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
                builder.call(function, [pointer, i32(int(writing)), i32(3), i32(1)])
        return code.nothing()

    return types.void(tile, array, offsets, types.int64), generate


def _plain_fetch(array: Array, index: int) -> None:
    pass


@intrinsic(_plain_fetch)
def fetch(array: ArrayType, index: IntType) -> Declaration:
    """Fetch the cache line of ``array[index]`` into the second-level cache.

    A hint to the processor, which never faults, also where ``index`` lies outside of the array.
    """

    def generate(code: Code) -> Value:
        builder, i32 = code.builder, ir.IntType(32)
        array_value, at = code.arguments
        pointer = builder.gep(code.data(array, array_value), [at])
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, i32(0), i32(2), i32(1)])
        return code.nothing()

    return types.void(array, types.int64), generate


def _plain_store(tile: Array, array: Array, offsets: Array, start: int, columns: int) -> None:
    for m in range(len(tile)):
        first = offsets[m] + start
        array[first : first + columns] = tile[m, :columns]


@intrinsic(_plain_store)
def tile_store(
    tile: TileType,
    array: ArrayType,
    offsets: RowsType,
    start: IntType,
    columns: IntType,
) -> Declaration:
    """Write the first ``columns`` numbers of each row m to ``array[offsets[m] + start]``.

    Tile: rows × vectors.
    """

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        struct, array_value, rows, start, columns = code.arguments
        data, vectors = emit.data(array, array_value), emit.unpack(struct)
        offsets = [emit.add(offset, start) for offset in emit.row_offsets(rows)]
        full = code.builder.icmp_signed("==", columns, WORD(tile.vectors * tile.lanes))
        with code.builder.if_else(full) as (whole, partial):
            with whole:
                for m, offset in enumerate(offsets):
                    for v in range(tile.vectors):
                        value = vectors[m * tile.vectors + v]
                        emit.store(value, data, emit.offset(offset, v))
            with partial:
                emit.store_columns(emit.rows_of(vectors), data, offsets, columns)
        return code.nothing()

    return types.void(tile, array, offsets, types.int64, types.int64), generate


def _plain_store_rows(
    tile: Array, array: Array, start: int, step: int, columns: int, count: int
) -> None:
    for m in range(min(count, len(tile))):
        array[start + m * step : start + m * step + columns] = tile[m, :columns]


@intrinsic(_plain_store_rows)
def tile_store_rows(
    tile: TileType,
    array: ArrayType,
    start: IntType,
    step: IntType,
    columns: IntType,
    count: IntType,
) -> Declaration:
    """Write ``columns`` numbers of each row m below ``count`` to ``array[start + m * step]``.

    Tile: rows × vectors.
    """

    def generate(code: Code) -> Value:
        emit, builder = Emitter(code, tile), code.builder
        struct, array_value, start, step, columns, count = code.arguments
        data, vectors = emit.data(array, array_value), emit.unpack(struct)

        rows, offsets, offset = emit.rows_of(vectors), [], start
        for _ in rows:
            offsets.append(offset)
            offset = emit.add(offset, step)
        full = builder.icmp_signed("==", columns, WORD(tile.vectors * tile.lanes))
        every = builder.icmp_signed(">=", count, WORD(tile.rows))
        with builder.if_else(builder.and_(full, every)) as (whole, partial):
            with whole:
                for row, offset in zip(rows, offsets, strict=True):
                    for v, vector in enumerate(row):
                        emit.store(vector, data, emit.offset(offset, v))
            with partial:
                if host_registers().isa == "avx512":
                    for m, (row, offset) in enumerate(zip(rows, offsets, strict=True)):
                        inside = builder.icmp_signed(">", count, WORD(m))
                        width = builder.select(inside, columns, WORD(0))
                        emit.store_columns([row], data, [offset], width)
                else:
                    for m in range(1, tile.rows):  # rows beyond ``count`` repeat the last row
                        inside = builder.icmp_signed(">", count, WORD(m))
                        offsets[m] = builder.select(inside, offsets[m], offsets[m - 1])
                        pairs = zip(rows[m], rows[m - 1], strict=True)
                        rows[m] = [builder.select(inside, *pair) for pair in pairs]
                    with builder.if_then(builder.icmp_signed(">", count, WORD(0))):
                        emit.store_columns(rows, data, offsets, columns)
        return code.nothing()

    integer = types.int64
    return types.void(tile, array, integer, integer, integer, integer), generate


def _plain_rows(
    rows: int, vectors: int, lanes: int, array: Array, offsets: Array, start: int
) -> Array:
    indices = offsets[:, None] + start + np.arange(vectors * lanes)
    return array[indices]


@intrinsic(_plain_rows)
def tile_load(
    rows: LiteralType,
    vectors: LiteralType,
    lanes: LiteralType,
    array: ArrayType,
    offsets: RowsType,
    start: IntType,
) -> Declaration:
    """A tile of rows × vectors from memory, as :func:`tile_store` wrote it.

    Reads ``array[offsets[m] + start]`` and the numbers after it, a whole row, for each row m.
    """
    tile = tile_type(rows, vectors, lanes, array)

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        _, _, _, array_value, offsets, start = code.arguments
        data, loaded = emit.data(array, array_value), []
        for offset in emit.row_offsets(offsets):
            loaded += emit.row(data, emit.add(offset, start), None)
        return emit.pack(loaded)

    return tile(rows, vectors, lanes, array, offsets, types.int64), generate


def _plain_columns(
    rows: int, vectors: int, lanes: int, array: Array, offsets: Array, start: int, columns: int
) -> Array:
    tile = np.zeros((rows, vectors * lanes), array.dtype)
    for m in range(rows):
        first = offsets[m] + start
        tile[m, :columns] = array[first : first + columns]
    return tile


@intrinsic(_plain_columns)
def tile_load_masked(
    rows: LiteralType,
    vectors: LiteralType,
    lanes: LiteralType,
    array: ArrayType,
    offsets: RowsType,
    start: IntType,
    columns: IntType,
) -> Declaration:
    """A tile of rows × vectors from the first ``columns`` numbers of rows; the others are 0.

    Reads ``columns`` numbers from ``array[offsets[m] + start]`` on for each row m.
    """
    tile = tile_type(rows, vectors, lanes, array)

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        _, _, _, array_value, offsets, start, columns = code.arguments
        data = emit.data(array, array_value)
        starts = [emit.add(offset, start) for offset in emit.row_offsets(offsets)]
        full = code.builder.icmp_signed("==", columns, WORD(tile.vectors * tile.lanes))

        def loaded(whole: bool) -> Value:
            limit = None if whole else columns
            return emit.pack([v for at in starts for v in emit.row(data, at, limit)])

        return emit.either(full, loaded)

    integer = types.int64
    return tile(rows, vectors, lanes, array, offsets, integer, integer), generate
