"""Intrinsics for the offsets of a tile's rows, which say where each row reads and writes.

The offsets lie on a line, or follow a walk through the points of three axes in row-major order.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import IntType, LiteralType, Value
from fastcnn.engine.numba.tiles.types import WORD, RowsType


def _plain_line(rows: int, start: int, step: int) -> Array:
    return start + step * np.arange(rows)


@intrinsic(_plain_line)
def rows_line(rows: LiteralType, start: IntType, step: IntType) -> Declaration:
    """The offsets ``start + m * step`` of the rows m = 0, 1, … of a tile. Reads no memory."""
    kind = RowsType(rows.literal_value)

    def generate(code: Code) -> Value:
        _, offset, step = code.arguments
        struct = ir.Constant(ir.LiteralStructType([WORD] * kind.rows), ir.Undefined)
        for m in range(kind.rows):
            struct = code.builder.insert_value(struct, offset, m)
            offset = code.builder.add(offset, step)
        return struct

    return kind(rows, types.int64, types.int64), generate


def _plain_walk(
    rows: int, a: int, b: int, c: int, left: int, eb: int, ec: int, sa: int, sb: int, sc: int
) -> Array:
    flat = (a * eb + b) * ec + c + np.minimum(np.arange(rows), left - 1)
    result: Array = flat // (eb * ec) * sa + flat // ec % eb * sb + flat % ec * sc
    return result


@intrinsic(_plain_walk)
def rows_walk(
    rows: LiteralType,
    a: IntType,
    b: IntType,
    c: IntType,
    left: IntType,
    eb: IntType,
    ec: IntType,
    sa: IntType,
    sb: IntType,
    sc: IntType,
) -> Declaration:
    """The offsets of ``rows`` points from (a, b, c) on, in row-major order. Reads no memory.

    ``eb`` and ``ec`` are the extents of the axes b and c. The offset of a point is ``a * sa + b *
    sb + c * sc``; the rows from ``left`` on repeat the last point. All rows are computed at once,
    in double-precision vectors, because counting row by row takes longer than the nine products of
    a 3×3 filter on one channel. The result is exact, because offsets are below 2^53, and each
    quotient is half a unit away from the next integer.
    """
    kind = RowsType(rows.literal_value)
    double = ir.DoubleType()
    vector = ir.VectorType(double, kind.rows)
    words = ir.VectorType(WORD, kind.rows)

    def generate(code: Code) -> Value:
        builder = code.builder
        a, b, c, left, eb, ec, sa, sb, sc = code.arguments[1:]
        base = builder.add(builder.mul(a, sa), builder.add(builder.mul(b, sb), builder.mul(c, sc)))
        number = {
            name: builder.sitofp(value, double)
            for name, value in (
                ("b", b), ("c", c), ("last", builder.sub(left, WORD(1))), ("eb", eb), ("ec", ec),
                ("sc", sc), ("base", base),
                # The offset that a step to the next b, or to the next a, adds to its c steps.
                ("b step", builder.sub(sb, builder.mul(ec, sc))),
                ("a step", builder.sub(sa, builder.mul(eb, sb))),
            )
        }  # fmt: skip

        def splat(value: Value) -> Value:
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, value, ir.IntType(32)(0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.rows), None)
            return builder.shuffle_vector(first, undefined, zeros)

        def floor_of(value: Value, extent: str) -> Value:
            half = builder.fadd(value, splat(double(0.5)))
            inverse = builder.fdiv(double(1.0), number[extent])
            name = f"llvm.floor.v{kind.rows}f64"
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector]), name
            )
            return builder.call(function, [builder.fmul(half, splat(inverse))])

        count = ir.Constant(vector, [double(float(m)) for m in range(kind.rows)])
        limit = splat(number["last"])
        count = builder.select(builder.fcmp_ordered("<", count, limit), count, limit)
        wraps_c = floor_of(builder.fadd(splat(number["c"]), count), "ec")
        wraps_b = floor_of(builder.fadd(splat(number["b"]), wraps_c), "eb")
        offset = splat(number["base"])
        for steps, size in ((count, "sc"), (wraps_c, "b step"), (wraps_b, "a step")):
            offset = builder.fadd(offset, builder.fmul(steps, splat(number[size])))
        offsets = builder.fptosi(offset, words)
        struct = ir.Constant(ir.LiteralStructType([WORD] * kind.rows), ir.Undefined)
        for m in range(kind.rows):
            value = builder.extract_element(offsets, ir.IntType(32)(m))
            struct = builder.insert_value(struct, value, m)
        return struct

    return kind(rows, *[types.int64] * 9), generate
