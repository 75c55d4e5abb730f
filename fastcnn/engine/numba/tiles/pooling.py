"""Intrinsics for maxima, minima and argmax indices of register tiles: the arithmetic of pooling.

NaN wins over every number, and of equal numbers the first stays. Functions whose name ends with
``_of_numbers`` serve tiles without NaN, in fewer instructions. Argmax indices are tiles of numbers
of the same dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from llvmlite import ir
from numba.core import types

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import IntType, LiteralType, Value
from fastcnn.engine.numba.tiles.emitter import Emitter
from fastcnn.engine.numba.tiles.types import TileType

Better: TypeAlias = "Callable[[Emitter, bool, Value, Value], Value]"
"""The lanes in which a value replaces an earlier best one: ``(emit, largest, value, best)``."""


def _better(emit: Emitter, largest: bool, value: Value, best: Value) -> Value:
    """Lanes in which ``value`` replaces an earlier ``best``: it is greater, or the first NaN."""
    builder = emit.builder
    not_less = builder.fcmp_unordered(">" if largest else "<", value, best)
    return builder.and_(not_less, builder.fcmp_ordered("ord", best, best))


def _greater(emit: Emitter, largest: bool, value: Value, best: Value) -> Value:
    """Lanes in which ``value`` replaces an earlier ``best``, where neither is NaN."""
    return emit.builder.fcmp_ordered(">" if largest else "<", value, best)


def _best_by(better: Better, largest: LiteralType, tile: TileType, best: TileType) -> Declaration:
    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        pairs = zip(emit.unpack(code.arguments[1]), emit.unpack(code.arguments[2]), strict=True)
        return emit.pack(
            [
                code.builder.select(better(emit, largest.literal_value, value, old), value, old)
                for value, old in pairs
            ]
        )

    return tile(largest, tile, best), generate


def _argmax_by(
    better: Better, largest: LiteralType, tile: TileType, best: TileType, argmax: TileType
) -> Declaration:
    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        number = emit.splat(code.builder.sitofp(code.arguments[4], emit.vector.element))
        rows = zip(*[emit.unpack(code.arguments[i]) for i in (1, 2, 3)], strict=True)
        return emit.pack(
            [
                code.builder.select(better(emit, largest.literal_value, value, old), number, index)
                for value, old, index in rows
            ]
        )

    return tile(largest, tile, best, argmax, types.int64), generate


def _plain_wins(largest: bool, tile: Array, best: Array) -> Array:
    greater = tile > best if largest else tile < best
    return greater | (np.isnan(tile) & ~np.isnan(best))


def _plain_best(largest: bool, tile: Array, best: Array) -> Array:
    return np.where(_plain_wins(largest, tile, best), tile, best)


@intrinsic(_plain_best)
def tile_best(largest: LiteralType, tile: TileType, best: TileType) -> Declaration:
    """The larger number of each pair, or the smaller one if not ``largest``.

    Of equal numbers ``best`` stays, and NaN wins. Tiles: rows × vectors. Reads no memory.
    """
    return _best_by(_better, largest, tile, best)


@intrinsic(_plain_best)
def tile_best_of_numbers(largest: LiteralType, tile: TileType, best: TileType) -> Declaration:
    """:func:`tile_best` for tiles without NaN: one instruction instead of three."""
    return _best_by(_greater, largest, tile, best)


def _plain_squares(length: int, tile: Array) -> tuple[Array, Array]:
    squares = tile.reshape(-1, 2, length // 2, 2, tile.shape[1]).transpose(1, 3, 0, 2, 4)
    best, *others = squares.reshape(4, -1, tile.shape[1])
    argmax = np.zeros_like(best)
    for k, value in enumerate(others, 1):
        argmax = _plain_argmax(True, value, best, argmax, k)
        best = _plain_best(True, value, best)
    return best, argmax


def _plain_pooled(length: int, tile: Array) -> Array:
    return _plain_squares(length, tile)[0]


@intrinsic(_plain_pooled)
def tile_pooled(length: LiteralType, tile: TileType) -> Declaration:
    """The largest number of each 2×2 rows, by :func:`tile_best`.

    The tile's rows are pixels in lines of ``length``; two lines are pooled together. Tile: rows ×
    vectors; the result has rows / 4 × vectors. Reads no memory.
    """
    return _pooled(_better, length, tile, argmax=False)


@intrinsic(_plain_pooled)
def tile_pooled_of_numbers(length: LiteralType, tile: TileType) -> Declaration:
    """:func:`tile_pooled` for a tile without NaN."""
    return _pooled(_greater, length, tile, argmax=False)


def _plain_pooled_argmax(length: int, tile: Array) -> Array:
    return _plain_squares(length, tile)[1]


@intrinsic(_plain_pooled_argmax)
def tile_pooled_argmax(length: LiteralType, tile: TileType) -> Declaration:
    """The argmax indices of :func:`tile_pooled`: 0 to 3 in row-major order, as numbers.

    Tile: rows × vectors; the result has rows / 4 × vectors. Reads no memory.
    """
    return _pooled(_better, length, tile, argmax=True)


@intrinsic(_plain_pooled_argmax)
def tile_pooled_argmax_of_numbers(length: LiteralType, tile: TileType) -> Declaration:
    """:func:`tile_pooled_argmax` for a tile without NaN."""
    return _pooled(_greater, length, tile, argmax=True)


def _pooled(better: Better, length: LiteralType, tile: TileType, *, argmax: bool) -> Declaration:
    pooled = TileType(tile.rows // 4, tile.vectors, tile.lanes, tile.dtype)
    line = length.literal_value

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        vectors, results = emit.unpack(code.arguments[1]), []
        numbers = [emit.constant(Fraction(k)) for k in range(4)]
        for row in range(0, tile.rows, 2):
            if row // line % 2:
                continue
            for v in range(tile.vectors):
                four = [(row + m) * tile.vectors + v for m in (0, 1, line, line + 1)]
                best, index = vectors[four[0]], numbers[0]
                for at, number in zip(four[1:], numbers[1:], strict=True):
                    takes = better(emit, True, vectors[at], best)
                    best = code.builder.select(takes, vectors[at], best)
                    index = code.builder.select(takes, number, index)
                results.append(index if argmax else best)
        return Emitter(code, pooled).pack(results)

    return pooled(length, tile), generate


def _plain_argmax(largest: bool, tile: Array, best: Array, argmax: Array, index: int) -> Array:
    return np.where(_plain_wins(largest, tile, best), tile.dtype.type(index), argmax)


@intrinsic(_plain_argmax)
def tile_argmax(
    largest: LiteralType,
    tile: TileType,
    best: TileType,
    argmax: TileType,
    index: IntType,
) -> Declaration:
    """``index`` where ``tile`` replaces ``best`` in :func:`tile_best`, else ``argmax``.

    Keeps argmax indices up to date. Tiles: rows × vectors. Reads no memory.
    """
    return _argmax_by(_better, largest, tile, best, argmax)


@intrinsic(_plain_argmax)
def tile_argmax_of_numbers(
    largest: LiteralType,
    tile: TileType,
    best: TileType,
    argmax: TileType,
    index: IntType,
) -> Declaration:
    """:func:`tile_argmax` for tiles without NaN."""
    return _argmax_by(_greater, largest, tile, best, argmax)


def _plain_has_nan(tile: Array) -> bool:
    return bool(np.isnan(tile).any())


@intrinsic(_plain_has_nan)
def tile_has_nan(tile: TileType) -> Declaration:
    """Whether any number of a tile of rows × vectors is NaN. Reads no memory."""

    def generate(code: Code) -> Value:
        emit, builder = Emitter(code, tile), code.builder
        vectors = emit.unpack(code.arguments[0])
        nan_lanes = ir.Constant(ir.VectorType(ir.IntType(1), tile.lanes), None)
        for a, b in zip(vectors[0::2], [*vectors[1::2], vectors[-1]], strict=False):
            nan_lanes = builder.or_(nan_lanes, builder.fcmp_unordered("uno", a, b))
        bits = builder.bitcast(nan_lanes, ir.IntType(tile.lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(tile), generate


def _plain_where(tile: Array, argmax: Array, index: int) -> Array:
    return np.where(argmax == index, tile, tile.dtype.type(0))


@intrinsic(_plain_where)
def tile_where(tile: TileType, argmax: TileType, index: IntType) -> Declaration:
    """``tile`` where ``argmax`` is ``index``, else 0.

    Tiles: rows × vectors. Reads no memory.
    """

    def generate(code: Code) -> Value:
        emit, builder = Emitter(code, tile), code.builder
        number = emit.splat(builder.sitofp(code.arguments[2], emit.vector.element))
        zero = ir.Constant(emit.vector, None)
        pairs = zip(emit.unpack(code.arguments[0]), emit.unpack(code.arguments[1]), strict=True)
        return emit.pack(
            [
                builder.select(builder.fcmp_ordered("==", where, number), value, zero)
                for value, where in pairs
            ]
        )

    return tile(tile, argmax, types.int64), generate
