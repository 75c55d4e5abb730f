"""Intrinsics that transpose squares of numbers in registers.

Kernels that transpose filters write the squares to memory; the dense layer's gradient for few
samples multiplies by them.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import ArrayType, IntType, LiteralType, Value, Values
from fastcnn.engine.numba.tiles.emitter import Emitter
from fastcnn.engine.numba.tiles.types import WORD, RowsType, TileType


def _plain_transpose(
    lanes: int, target: Array, i: int, rows: int, source: Array, j: int, columns: int
) -> None:
    for m in range(lanes):
        target[i + m * rows : i + m * rows + lanes] = source[
            j + m : j + m + lanes * columns : columns
        ]


@intrinsic(_plain_transpose)
def transpose_square(
    lanes: LiteralType,
    target: ArrayType,
    i: IntType,
    target_step: IntType,
    source: ArrayType,
    j: IntType,
    source_step: IntType,
) -> Declaration:
    """Transpose a square of ``lanes`` × ``lanes`` numbers.

    Reads rows of ``lanes`` numbers at ``source[j + m * source_step]``; writes the columns as rows
    to ``target[i + m * target_step]``. First the blocks within 16 bytes are transposed, then the
    blocks are exchanged, because each shuffle is then one instruction of AVX2
    (docs/measurements.md, "Transposes shuffle within 16 bytes first").
    """
    side = lanes.literal_value

    def generate(code: Code) -> Value:
        emit = Emitter(code, TileType(side, 1, side, source.dtype))
        _, to, i, to_step, from_, j, from_step = code.arguments
        data = emit.data(target, to)
        for vector in transposed_square(emit, side, emit.data(source, from_), j, from_step):
            emit.store(vector, data, i)
            i = emit.add(i, to_step)
        return code.nothing()

    integer = types.int64
    signature = types.void(lanes, target, integer, integer, source, integer, integer)
    return signature, generate


def _plain_rank1_square(
    tile: Array, x: Array, offsets: Array, i: int, w: Array, j: int, step: int, first: int
) -> Array:
    tile, lanes = tile.copy(), tile.shape[1]
    for k in range(first, lanes):
        row = w[j + k : j + k + (lanes - 1) * step + 1 : step]
        for m, offset in enumerate(offsets):
            tile[m] += x[offset + i + k] * row
    return tile


@intrinsic(_plain_rank1_square)
def rank1_square(
    tile: TileType,
    x: ArrayType,
    offsets: RowsType,
    i: IntType,
    w: ArrayType,
    j: IntType,
    step: IntType,
    first: IntType,
) -> Declaration:
    """``tile[m] += x[offsets[m] + i + k] * w[j + k :: step]`` for k from ``first`` to the lanes.

    Tile: rows × 1 vector. Reads ``lanes`` numbers of ``x`` for each row, and a square of ``lanes``
    rows of ``w``, ``step`` apart, which is transposed in registers.
    """

    def generate(code: Code) -> Value:
        emit, builder = Emitter(code, tile), code.builder
        struct, x_value, rows, i, w_value, j, step, first = code.arguments
        columns = transposed_square(emit, tile.lanes, emit.data(w, w_value), j, step)
        numbers = emit.data(x, x_value)
        starts = [emit.add(offset, i) for offset in emit.row_offsets(rows)]

        def sums(every: bool) -> Value:
            totals = emit.unpack(struct)
            for k, column in enumerate(columns):
                counts = builder.icmp_signed(">=", WORD(k), first)
                for m, start in enumerate(starts):
                    factor = emit.broadcast(numbers, emit.add(start, WORD(k)))
                    total = emit.fma(factor, column, totals[m])
                    totals[m] = total if every else builder.select(counts, total, totals[m])
            return emit.pack(totals)

        return emit.either(builder.icmp_signed("==", first, WORD(0)), sums)

    integer = types.int64
    return tile(tile, x, offsets, integer, w, integer, integer, integer), generate


def transposed_square(emit: Emitter, side: int, data: Value, start: Value, step: Value) -> Values:
    """The columns of a square whose rows begin ``step`` apart."""
    vectors = []
    for _ in range(side):
        vectors.append(emit.load(data, start))
        start = emit.add(start, step)
    return _transposed(emit, vectors)


def _transposed(emit: Emitter, vectors: Values) -> Values:
    """The columns of a square of vectors, as many as each vector has lanes."""
    side, i32 = len(vectors), ir.IntType(32)
    block = min(16 // emit.size, side)

    def rounds(vectors: Values, size: int, span: int) -> Values:
        """Exchange groups of ``size`` lanes between vectors, in each ``span`` of lanes.

        Of two vectors, the groups with even numbers become one vector, the others another.
        """
        if len(vectors) == 1:
            return vectors
        lanes: list[Values] = [[], []]
        for first in range(0, side, span):
            for vector in (0, side):
                for k in range(span // size):
                    at = vector + first + k * size
                    lanes[k % 2] += [i32(at + lane) for lane in range(size)]
        masks = [ir.Constant(ir.VectorType(i32, side), each) for each in lanes]
        for _ in range(len(vectors).bit_length() - 1):
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
            vectors = [emit.builder.shuffle_vector(a, b, mask) for mask in masks for a, b in pairs]
        return vectors

    groups = [rounds(vectors[first : first + block], 1, block) for first in range(0, side, block)]
    columns = [rounds([group[m] for group in groups], block, side) for m in range(block)]
    return [columns[m][b] for b in range(side // block) for m in range(block)]
