"""Intrinsics for the totals of long sums: float64 numbers to which a register tile is added.

A long sum is taken in stretches. At the end of a stretch the tile is added to its totals, and
begins again at 0. Totals lie in a **room**: memory on the stack, or an array. A kernel passes the
room's address, an int64; with ``NUMBA_DISABLE_JIT=1`` a room is an array of float64.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import ArrayType, IntType, LiteralType, Value, Values
from fastcnn.engine.numba.tiles.emitter import Emitter
from fastcnn.engine.numba.tiles.types import WORD, TileType


def _plain_room(count: int) -> Array:
    return np.zeros(count)


@intrinsic(_plain_room)
def totals_room(count: LiteralType) -> Declaration:
    """The address of ``count`` float64 numbers on the stack, for the totals of long sums.

    Totals stay in memory, because a tile's sums leave no registers free. The address is opaque to
    the compiler. Otherwise it would make the totals values of the loop over the steps, and they
    would take the registers of the sums.
    """
    kind = ir.ArrayType(ir.DoubleType(), count.literal_value)

    def generate(code: Code) -> Value:
        builder = code.builder
        address = builder.ptrtoint(cgutils.alloca_once(builder, kind), WORD)
        opaque = ir.FunctionType(WORD, [WORD])
        return builder.asm(opaque, "", "=r,0", [address], False)

    return types.int64(count), generate


def _plain_totals_in(array: Array, at: int) -> Array:
    return array.reshape(-1)[at:]


@intrinsic(_plain_totals_in)
def totals_in(array: ArrayType, at: IntType) -> Declaration:
    """The address of ``array[at]``, for float64 totals that outlive a call."""

    def generate(code: Code) -> Value:
        data = code.data(array, code.arguments[0])
        return code.builder.ptrtoint(code.builder.gep(data, [code.arguments[1]]), WORD)

    return types.int64(array, types.int64), generate


def _pointers(emit: Emitter, room: Value, at: Value) -> Values:
    """Pointers to the totals of a tile's vectors, from number ``at`` of the room."""
    kind = ir.PointerType(ir.VectorType(ir.DoubleType(), emit.tile.lanes))
    pointers = []
    for vector in range(emit.tile.rows * emit.tile.vectors):
        number = emit.offset(at, vector)
        address = emit.add(room, emit.builder.mul(number, WORD(8)))
        pointers.append(emit.builder.inttoptr(address, kind))
    return pointers


def _with_totals(emit: Emitter, struct: Value, pointers: Values) -> Values:
    """The totals plus the tile, in float64."""
    builder, sums = emit.builder, []
    for pointer, vector in zip(pointers, emit.unpack(struct), strict=True):
        wide = vector if emit.size == 8 else builder.fpext(vector, pointer.type.pointee)
        sums.append(builder.fadd(builder.load(pointer, align=8), wide))
    return sums


def _plain_no_totals(tile: Array, room: Array, at: int) -> None:
    room[at : at + tile.size] = 0


@intrinsic(_plain_no_totals)
def totals_begin(tile: TileType, room: IntType, at: IntType) -> Declaration:
    """Set the totals of a tile to 0; the tile's sides matter, and its numbers do not.

    Tile: rows × vectors. Writes ``rows * vectors * lanes`` float64 numbers, from number ``at`` of
    the room.
    """

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        for pointer in _pointers(emit, *code.arguments[1:]):
            code.builder.store(ir.Constant(pointer.type.pointee, None), pointer, align=8)
        return code.nothing()

    return types.void(tile, room, types.int64), generate


def _plain_added(tile: Array, room: Array, at: int) -> Array:
    room[at : at + tile.size] += tile.reshape(-1)
    return np.zeros_like(tile)


@intrinsic(_plain_added)
def totals_add(tile: TileType, room: IntType, at: IntType) -> Declaration:
    """Add a tile to its totals; return a tile of zeros, with which the next stretch begins.

    Tile: rows × vectors. Reads and writes ``rows * vectors * lanes`` float64 numbers, from number
    ``at`` of the room. The tile goes through memory, one vector after the other, because all wide
    vectors at once would take registers from the loop before.
    """
    count = tile.rows * tile.vectors

    def generate(code: Code) -> Value:
        emit, builder = Emitter(code, tile), code.builder
        memory = cgutils.alloca_once(builder, ir.ArrayType(emit.vector, count))
        address = emit.opaque(builder.ptrtoint(memory, WORD))
        scratch = builder.inttoptr(address, ir.PointerType(emit.vector.element))
        for m, vector in enumerate(emit.unpack(code.arguments[0])):
            emit.store(vector, scratch, WORD(m * tile.lanes))
        wide = ir.VectorType(ir.DoubleType(), tile.lanes)
        start = emit.add(code.arguments[1], builder.mul(code.arguments[2], WORD(8)))
        with cgutils.for_range(builder, WORD(count)) as loop:
            at = builder.mul(loop.index, WORD(tile.lanes))
            vector = emit.load(scratch, at)
            address = emit.add(start, builder.mul(at, WORD(8)))
            pointer = builder.inttoptr(address, ir.PointerType(wide))
            term = vector if emit.size == 8 else builder.fpext(vector, wide)
            builder.store(builder.fadd(builder.load(pointer, align=8), term), pointer, align=8)
        return emit.pack([ir.Constant(emit.vector, None)] * count)

    return tile(tile, room, types.int64), generate


def _plain_total(tile: Array, room: Array, at: int) -> Array:
    total = room[at : at + tile.size] + tile.reshape(-1)
    return total.astype(tile.dtype).reshape(tile.shape)


@intrinsic(_plain_total)
def totals_end(tile: TileType, room: IntType, at: IntType) -> Declaration:
    """The totals plus the tile, which is the sum of the last stretch, as a tile.

    Tile: rows × vectors. Reads ``rows * vectors * lanes`` float64 numbers, from number ``at`` of
    the room.
    """

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        sums = _with_totals(emit, code.arguments[0], _pointers(emit, *code.arguments[1:]))
        if emit.size == 4:
            sums = [code.builder.fptrunc(total, emit.vector) for total in sums]
        return emit.pack(sums)

    return tile(tile, room, types.int64), generate
