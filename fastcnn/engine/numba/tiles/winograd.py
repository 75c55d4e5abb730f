"""Intrinsics for Winograd's transforms: vector code that is generated from exact fractions.

A transform is ``M X Mᵀ``, where M is a small matrix of fractions and X a square of vectors of
channels. The matrices come from :mod:`fastcnn.core.minimal_filtering`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numba.core import types

from fastcnn.core.arguments import Array
from fastcnn.core.minimal_filtering import Matrix, filtering
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import ArrayType, IntType, LiteralType, Value, Values
from fastcnn.engine.numba.tiles.emitter import Emitter
from fastcnn.engine.numba.tiles.types import TileType


def _combination(emit: Emitter, terms: list[tuple[Fraction, Value]]) -> Value:
    """Σ coefficient · vector, or None where all coefficients are 0."""
    terms = sorted(
        (t for t in terms if t[0]), key=lambda t: t[0] != 1
    )  # the first without a product
    total = None
    for coefficient, vector in terms:
        if total is None and coefficient == 1:
            total = vector
        elif total is None:
            total = emit.builder.fmul(emit.constant(coefficient), vector)
        elif abs(coefficient) == 1:
            join = emit.builder.fadd if coefficient == 1 else emit.builder.fsub
            total = join(total, vector)
        else:
            total = emit.fma(emit.constant(coefficient), vector, total)
    return total


def _twins(lines: Sequence[Sequence[Fraction]]) -> dict[int, int]:
    """Pairs of lines that differ in signs alone: the index of the second by that of the first."""
    pairs: dict[int, int] = {}
    for i, line in enumerate(lines):
        for k in range(i + 1, len(lines)):
            alike = all(abs(a) == abs(b) for a, b in zip(line, lines[k], strict=True))
            if alike and line != lines[k] and not {i, k} & {*pairs, *pairs.values()}:
                pairs[i] = k
    return pairs


def _map_line(emit: Emitter, matrix: Matrix, vectors: Values) -> Values:
    """``matrix`` times a column of vectors.

    Points come in pairs ±p. Their columns (of Aᵀ) or rows (of Bᵀ and G) differ in signs alone, so
    the sum and the difference of such a pair serve for both.
    """
    columns = [list(column) for column in zip(*matrix, strict=True)]
    for i, k in _twins(columns).items():
        a, b = vectors[i], vectors[k]
        vectors = list(vectors)
        vectors[i], vectors[k] = emit.builder.fadd(a, b), emit.builder.fsub(a, b)
        same = [x == y for x, y in zip(columns[i], columns[k], strict=True)]
        first = columns[i]
        columns[i] = [x if equal else Fraction(0) for x, equal in zip(first, same, strict=True)]
        columns[k] = [Fraction(0) if equal else x for x, equal in zip(first, same, strict=True)]
    rows = list(zip(*columns, strict=True))
    results: Values = [None] * len(rows)
    for i, k in _twins(rows).items():
        even = [(a, v) for a, b, v in zip(rows[i], rows[k], vectors, strict=True) if a == b]
        odd = [(a, v) for a, b, v in zip(rows[i], rows[k], vectors, strict=True) if a != b]
        shared, signed = _combination(emit, even), _combination(emit, odd)
        results[i] = emit.builder.fadd(shared, signed)
        results[k] = emit.builder.fsub(shared, signed)
    for i, row in enumerate(rows):
        if results[i] is None:
            results[i] = _combination(emit, list(zip(row, vectors, strict=True)))
    return results


class _Square(NamedTuple):
    """A square of vectors in memory: where it begins, and which lanes are read (all if None)."""

    data: Value
    start: Value
    row_step: Value
    column_step: Value
    mask: Value | None


def _sandwich(emit: Emitter, matrix: Matrix, square: _Square) -> Iterator[Values]:
    """The rows of ``M X Mᵀ`` (p, p), for M (p, n) and X (n, n).

    X is ``square``, which is read column by column.
    """
    data, start, row_step, column_step, mask = square
    n, mx = len(matrix[0]), []
    for _ in range(n):
        offset, column = start, []
        for _ in range(n):
            if mask is None:
                column.append(emit.load(data, offset))
            else:
                column.append(emit.masked_load(data, offset, mask))
            offset = emit.add(offset, row_step)
        mx.append(_map_line(emit, matrix, column))
        start = emit.add(start, column_step)
    for row in zip(*mx, strict=True):
        yield _map_line(emit, matrix, list(row))


def _plain_square(
    matrix: Matrix, lanes: int, array: Array, start: int, row: int, column: int, columns: int
) -> Array:
    side = np.arange(len(matrix[0]))
    square = np.zeros((len(side), len(side), lanes), array.dtype)
    indices = start + side[:, None, None] * row + side[:, None] * column + np.arange(columns)
    square[:, :, :columns] = array[indices]
    values = np.asarray([[float(c) for c in line] for line in matrix], array.dtype)
    result: Array = np.einsum("ia,abl,jb->ijl", values, square, values).reshape(-1, lanes)
    return result


def _plain_transform(
    which: int, m: int, r: int, lanes: int, array: Array, start: int, row: int, column: int
) -> Array:
    return _plain_square(filtering(m, r)[which], lanes, array, start, row, column, lanes)


@intrinsic(_plain_transform)
def tile_transform(
    which: LiteralType,
    m: LiteralType,
    r: LiteralType,
    lanes: LiteralType,
    array: ArrayType,
    start: IntType,
    row_step: IntType,
    column_step: IntType,
) -> Declaration:
    """``M X Mᵀ`` as a tile.

    M is matrix ``which`` of :func:`~fastcnn.core.minimal_filtering.filtering`. X is a square of
    vectors: ``X[a, b]`` is the vector at ``array[start + a * row_step + b * column_step]``.

    Tile: one vector for each element of the product, in row-major order. Reads all of X.
    """
    matrix = filtering(m.literal_value, r.literal_value)[which.literal_value]
    tile = TileType(len(matrix) ** 2, 1, lanes.literal_value, array.dtype)

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        *_, array_value, start, row, column = code.arguments
        square = _Square(emit.data(array, array_value), start, row, column, None)
        return emit.pack([vector for row in _sandwich(emit, matrix, square) for vector in row])

    integer = types.int64
    return tile(which, m, r, lanes, array, integer, integer, integer), generate


def _plain_store_transform(
    which: int, m: int, r: int, lanes: int, array: Array, start: int, row: int, column: int,
    columns: int, target: Array, at: int, step: int,
) -> None:  # fmt: skip
    matrix = filtering(m, r)[which]
    for vector in _plain_square(matrix, lanes, array, start, row, column, columns):
        target[at : at + lanes] = vector
        at += step


@intrinsic(_plain_store_transform)
def store_transform(
    which: LiteralType,
    m: LiteralType,
    r: LiteralType,
    lanes: LiteralType,
    array: ArrayType,
    start: IntType,
    row_step: IntType,
    column_step: IntType,
    columns: IntType,
    target: ArrayType,
    at: IntType,
    step: IntType,
) -> Declaration:
    """:func:`tile_transform` written to memory, for more vectors than there are registers.

    Reads the first ``columns`` lanes of each vector of X; the others count as 0. Writes a whole
    vector to ``target[at + k * step]`` for each element k of the product, in row-major order. Each
    row is stored as soon as it is computed.
    """
    matrix = filtering(m.literal_value, r.literal_value)[which.literal_value]
    tile = TileType(1, 1, lanes.literal_value, array.dtype)

    def generate(code: Code) -> Value:
        emit = Emitter(code, tile)
        _, _, _, _, source, start, row, column, columns, target_value, at, step = code.arguments
        square = _Square(emit.data(array, source), start, row, column, emit.mask(columns, 0))
        data = emit.data(target, target_value)
        for vectors in _sandwich(emit, matrix, square):
            for vector in vectors:
                emit.store(vector, data, at)
                at = emit.add(at, step)
        return code.nothing()

    integer = types.int64
    signature = types.void(
        which, m, r, lanes, array, integer, integer, integer, integer, target, integer, integer
    )
    return signature, generate
