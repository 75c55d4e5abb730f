"""Intrinsics for arithmetic on whole register tiles: activation, sums, quotients, a check."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from llvmlite import ir
from numba.core import types

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import ArrayType, IntType, Value
from fastcnn.engine.numba.tiles.emitter import Emitter
from fastcnn.engine.numba.tiles.types import TileType


def _plain_relu(tile: Array) -> Array:
    return np.where(tile < 0, tile.dtype.type(0), tile)


@intrinsic(_plain_relu)
def tile_relu(tile: TileType) -> Declaration:
    """``max(tile, 0)``; NaN stays NaN. Tile: rows × vectors. Reads no memory."""

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        zero = ir.Constant(emit.vector, None)
        return emit.pack(
            [
                code.builder.select(code.builder.fcmp_ordered("<", vector, zero), zero, vector)
                for vector in emit.unpack(code.arguments[0])
            ]
        )

    return tile(tile), generate


def _plain_sum(a: Array, b: Array) -> Array:
    return a + b


@intrinsic(_plain_sum)
def tile_sum(a: TileType, b: TileType) -> Declaration:
    """The sum of two tiles of rows × vectors. Reads no memory."""

    def generate(code: Code) -> Value:
        emit = Emitter(code, a)
        pairs = zip(emit.unpack(code.arguments[0]), emit.unpack(code.arguments[1]), strict=True)
        return emit.pack([code.builder.fadd(x, y) for x, y in pairs])

    return a(a, b), generate


def _plain_scaled(tile: Array, other: Array, x: Array, i: int) -> Array:
    result: Array = tile + x[i] * other
    return result


@intrinsic(_plain_scaled)
def tile_sum_scaled(tile: TileType, other: TileType, x: ArrayType, i: IntType) -> Declaration:
    """``tile + x[i] * other``, of two tiles of rows × vectors. Reads one number of ``x``."""

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        value = emit.broadcast(emit.data(x, code.arguments[2]), code.arguments[3])
        pairs = zip(emit.unpack(code.arguments[0]), emit.unpack(code.arguments[1]), strict=True)
        return emit.pack([emit.fma(value, vector, old) for old, vector in pairs])

    return tile(tile, other, x, types.int64), generate


def _plain_multiply_add(a: Array, b: Array, c: Array) -> Array:
    return a * b + c


@intrinsic(_plain_multiply_add)
def tile_multiply_add(a: TileType, b: TileType, c: TileType) -> Declaration:
    """``a * b + c`` of three tiles of rows × vectors. Reads no memory."""

    def generate(code: Code) -> Value:
        emit = Emitter(code, a)
        triples = zip(*map(emit.unpack, code.arguments), strict=True)
        return emit.pack([emit.fma(x, y, z) for x, y, z in triples])

    return a(a, b, c), generate


def _plain_capped(tile: Array, x: Array, i: int) -> Array:
    return np.where(tile > x[i], x[i], tile)


@intrinsic(_plain_capped)
def tile_capped(tile: TileType, x: ArrayType, i: IntType) -> Declaration:
    """``min(tile, x[i])``; NaN stays NaN. Tile: rows × vectors. Reads one number of ``x``."""

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        top = emit.broadcast(emit.data(x, code.arguments[1]), code.arguments[2])
        return emit.pack(
            [
                code.builder.select(code.builder.fcmp_ordered(">", vector, top), top, vector)
                for vector in emit.unpack(code.arguments[0])
            ]
        )

    return tile(tile, x, types.int64), generate


def _plain_hard_swish(tile: Array) -> Array:
    number = tile.dtype.type
    x = np.where(tile < -3, number(-3), tile)
    factor = x * number(1 / 6) + number(0.5)
    result: Array = x * np.where(factor > 1, number(1), factor)
    return result


@intrinsic(_plain_hard_swish)
def tile_hard_swish(tile: TileType) -> Declaration:
    """``x · (x / 6 + ½)``, the factor between 0 and 1.

    NaN stays NaN. Tile: rows × vectors. Reads no memory.
    """

    def generate(code: Code) -> Value:
        emit, builder = Emitter(code, tile), code.builder
        least, most = emit.constant(Fraction(-3)), emit.constant(Fraction(1))
        sixth, half = emit.constant(Fraction(1, 6)), emit.constant(Fraction(1, 2))
        results = []
        for vector in emit.unpack(code.arguments[0]):
            x = builder.select(builder.fcmp_ordered("<", vector, least), least, vector)
            factor = builder.fadd(builder.fmul(x, sixth), half)
            factor = builder.select(builder.fcmp_ordered(">", factor, most), most, factor)
            results.append(builder.fmul(x, factor))
        return emit.pack(results)

    return tile(tile), generate


def _plain_quotient(tile: Array, divisor: int) -> Array:
    result: Array = tile / tile.dtype.type(divisor)
    return result


@intrinsic(_plain_quotient)
def tile_quotient(tile: TileType, divisor: IntType) -> Declaration:
    """The tile of rows × vectors divided by an integer. Reads no memory."""

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        number = emit.splat(code.builder.sitofp(code.arguments[1], emit.vector.element))
        return emit.pack([code.builder.fdiv(x, number) for x in emit.unpack(code.arguments[0])])

    return tile(tile, types.int64), generate


def _plain_doubt(doubt: Array, tile: Array) -> Array:
    with np.errstate(invalid="ignore"):
        result: Array = doubt + (tile.sum(axis=0) * 0).reshape(doubt.shape)
    return result


@intrinsic(_plain_doubt)
def tile_doubt(doubt: TileType, tile: TileType) -> Declaration:
    """``doubt`` plus 0 times the sum of the tile's vectors, which is 0 while all sums are finite.

    Tile: rows × vectors; ``doubt`` and the result: one vector of as many lanes. Reads no memory.
    """

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        vectors = emit.unpack(code.arguments[1])
        while len(vectors) > 1:
            unpaired = vectors[len(vectors) // 2 * 2 :]
            pairs = zip(vectors[0::2], vectors[1::2], strict=False)
            vectors = [code.builder.fadd(a, b) for a, b in pairs] + unpaired
        zero, old = ir.Constant(emit.vector, None), code.builder.extract_value(code.arguments[0], 0)
        return Emitter(code, doubt).pack([emit.fma(vectors[0], zero, old)])

    return doubt(doubt, tile), generate
