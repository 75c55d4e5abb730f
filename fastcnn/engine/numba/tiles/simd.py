"""Register tiles and atomic words: the LLVM that kernels stand on; nothing else writes any.

A **tile** is a block of ``rows × vectors`` SIMD registers of ``lanes`` numbers each, held as LLVM
values: it lives in registers from the first step to the store, as long as it stays inside one
serial function. The innermost step of every fast kernel is the rank-1 update

    tile[m, :] += x[rows[m] + i] * w[j : j + vectors * lanes]

one load for each vector of ``w``, one broadcast for each row, one fused multiply-add for each
register. ``rows`` holds where each row of the tile reads, so that convolution in all its forms is
this one step with other offsets (the idea of M. Dukhan, "The Indirect Convolution Algorithm",
arXiv:1907.02129).

Sides of a tile are literals: the compiler unrolls over them. All arrays are one-dimensional and
all offsets count elements; nothing here checks bounds, callers do.

With ``NUMBA_DISABLE_JIT=1`` the same names are plain functions on NumPy, a tile is an array of
shape (rows, vectors * lanes), and kernels run in a debugger. There multiply and add round apart.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from fastcnn.core.minimal_filtering import Matrix, filtering
from fastcnn.engine.numba.runtime.instruction_sets import host_registers

_WORD = ir.IntType(64)


class TileType(types.Type):
    """Numba's type of a tile."""

    def __init__(self, rows: int, vectors: int, lanes: int, dtype: Any) -> None:
        self.rows, self.vectors, self.lanes, self.dtype = rows, vectors, lanes, dtype
        super().__init__(name=f"Tile({rows}x{vectors}x{lanes}, {dtype})")


class RowsType(types.Type):
    """Numba's type of the offsets of a tile's rows."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(name=f"Rows({rows})")


@register_model(TileType)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: TileType) -> None:
        vector = _vector(kind)
        fields = [vector] * (kind.rows * kind.vectors)
        super().__init__(manager, kind, ir.LiteralStructType(fields))


@register_model(RowsType)
class _RowsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: RowsType) -> None:
        super().__init__(manager, kind, ir.LiteralStructType([_WORD] * kind.rows))


def _number(dtype: Any) -> Any:
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def _vector(kind: TileType) -> Any:
    return ir.VectorType(_number(kind.dtype), kind.lanes)


def _bytes(kind: Any) -> int:
    return 4 if kind == types.float32 else 8


class _Emitter:
    """Short names for what the intrinsics below emit."""

    def __init__(self, context: Any, builder: Any, tile: TileType) -> None:
        self.context, self.builder, self.tile = context, builder, tile
        self.vector = _vector(tile)
        self.size = _bytes(tile.dtype)

    def data(self, array_type: Any, array: Any) -> Any:
        return self.context.make_array(array_type)(self.context, self.builder, array).data

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.add(a, b)

    def offset(self, start: Any, vector: int) -> Any:
        return self.add(start, _WORD(vector * self.tile.lanes))

    def opaque(self, value: Any) -> Any:
        """The same pointer or number, of which the compiler knows nothing."""
        kind = ir.FunctionType(value.type, [value.type])
        return self.builder.asm(kind, "", "=r,0", [value], False)

    def vector_pointer(self, data: Any, offset: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(data, [offset]), ir.PointerType(self.vector))

    def load(self, data: Any, offset: Any) -> Any:
        return self.builder.load(self.vector_pointer(data, offset), align=self.size)

    def store(self, value: Any, data: Any, offset: Any) -> None:
        self.builder.store(value, self.vector_pointer(data, offset), align=self.size)

    def broadcast(self, data: Any, offset: Any) -> Any:
        number = self.builder.load(self.builder.gep(data, [offset]), align=self.size)
        return self.splat(number)

    def splat(self, number: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.IntType(32)(0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), self.tile.lanes), None)
        return self.builder.shuffle_vector(first, undefined, places)

    def constant(self, number: Fraction) -> Any:
        element = self.vector.element
        return ir.Constant(self.vector, [element(float(number))] * self.tile.lanes)

    def mask(self, count: Any, vector: int) -> Any:
        """Which lanes of the tile's ``vector`` lie among its first ``count`` columns."""
        lanes, i32 = self.tile.lanes, ir.IntType(32)
        kind = ir.VectorType(i32, lanes)
        places = ir.Constant(kind, [i32(vector * lanes + lane) for lane in range(lanes)])
        count = self.builder.trunc(count, i32)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), count, i32(0))
        zeros = ir.Constant(kind, None)
        limit = self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)
        return self.builder.icmp_signed("<", places, limit)

    def _masked(self, name: str, result: Any, arguments: list[Any]) -> Any:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        dtype = "f32" if self.size == 4 else "f64"
        function = cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.masked.{name}.v{self.tile.lanes}{dtype}.p0"
        )
        return self.builder.call(function, arguments)

    def masked_load(self, data: Any, offset: Any, mask: Any) -> Any:
        pointer = self.vector_pointer(data, offset)
        nothing = ir.Constant(self.vector, None)
        return self._masked(
            "load", self.vector, [pointer, ir.IntType(32)(self.size), mask, nothing]
        )

    def masked_store(self, value: Any, data: Any, offset: Any, mask: Any) -> None:
        pointer = self.vector_pointer(data, offset)
        self._masked("store", ir.VoidType(), [value, pointer, ir.IntType(32)(self.size), mask])

    def store_columns(
        self, rows: list[list[Any]], data: Any, places: list[Any], columns: Any
    ) -> None:
        """The first ``columns`` numbers of each row, of which none fills the tile.

        With masks where the processor has registers for them. Else a vector that is not full is
        stored in halves, fourths and so on: AVX2's masked store is microcode on some processors (11
        cycles each on Zen 3: unpooling 28×28 pixels of 6 channels took 3.5 µs instead of 1.1), and
        before AVX2 there is none.
        """
        lanes = self.tile.lanes
        if host_registers().isa == "avx512":
            for v in range(self.tile.vectors):
                mask = self.mask(columns, v)
                for row, place in zip(rows, places, strict=True):
                    self.masked_store(row[v], data, self.offset(place, v), mask)
            return
        for v in range(self.tile.vectors):
            vectors = [row[v] for row in rows]
            at = [self.offset(place, v) for place in places]
            left = self.builder.sub(columns, _WORD(v * lanes))
            full = self.builder.icmp_signed(">=", left, _WORD(lanes))
            with self.builder.if_else(full) as (whole, partial):
                with whole:
                    for vector, place in zip(vectors, at, strict=True):
                        self.store(vector, data, place)
                with partial:
                    some = self.builder.icmp_signed(">", left, _WORD(0))
                    with self.builder.if_then(some):
                        self._store_pieces(vectors, data, at, left)

    def _store_pieces(self, vectors: list[Any], data: Any, places: list[Any], left: Any) -> None:
        """The first ``left`` numbers of each, by the powers of two that ``left`` is made of."""
        builder, i32 = self.builder, ir.IntType(32)
        size = self.tile.lanes
        while size > 1:
            size //= 2
            kind = ir.VectorType(self.vector.element, size)
            low, high = (
                ir.Constant(ir.VectorType(i32, size), [i32(first + i) for i in range(size)])
                for first in (0, size)
            )
            lower = [builder.shuffle_vector(vector, vector, low) for vector in vectors]
            before = builder.block
            wanted = builder.icmp_signed("!=", builder.and_(left, _WORD(size)), _WORD(0))
            with builder.if_then(wanted):
                for vector, place in zip(lower, places, strict=True):
                    pointer = builder.bitcast(builder.gep(data, [place]), ir.PointerType(kind))
                    builder.store(vector, pointer, align=self.size)
                upper = [builder.shuffle_vector(vector, vector, high) for vector in vectors]
                after = [self.add(place, _WORD(size)) for place in places]
                stored = builder.block
            # What is left lies in the other half, if this one is stored.
            pairs = zip([*lower, *places], [*upper, *after], strict=True)
            merged = []
            for kept, other in pairs:
                merged.append(builder.phi(kept.type))
                merged[-1].add_incoming(kept, before)
                merged[-1].add_incoming(other, stored)
            vectors, places = merged[: len(vectors)], merged[len(vectors) :]

    def row(self, data: Any, start: Any, columns: Any) -> list[Any]:
        """The vectors of one row of the tile at ``data[start]``, of all or some columns."""
        vectors = range(self.tile.vectors)
        if columns is None:
            return [self.load(data, self.offset(start, v)) for v in vectors]
        return [
            self.masked_load(data, self.offset(start, v), self.mask(columns, v)) for v in vectors
        ]

    def row_or_zeros(self, data: Any, start: Any, columns: Any, inside: Any) -> list[Any]:
        """The same where ``inside``, else zeros, of which nothing is read at ``data``."""
        kind = ir.ArrayType(self.vector.element, self.tile.vectors * self.tile.lanes)
        zeros = cgutils.global_constant(self.builder.module, "zeros", ir.Constant(kind, None))
        zeros = self.builder.bitcast(zeros, data.type)
        place = self.builder.select(inside, self.builder.gep(data, [start]), zeros)
        return self.row(place, _WORD(0), columns)

    def all_inside(self, count: int, columns: Any, low: Any, high: Any) -> Any:
        """Whether ``range(count)`` lies in low to high, and the columns fill the tile."""
        full = self.builder.icmp_signed("==", columns, _WORD(self.tile.vectors * self.tile.lanes))
        from_first = self.builder.icmp_signed("<=", low, _WORD(0))
        to_last = self.builder.icmp_signed(">=", high, _WORD(count))
        return self.builder.and_(full, self.builder.and_(from_first, to_last))

    def inside(self, place: int, low: Any, high: Any) -> Any:
        """Whether ``place`` lies from ``low`` to before ``high``."""
        above = self.builder.icmp_signed("<=", low, _WORD(place))
        below = self.builder.icmp_signed(">", high, _WORD(place))
        return self.builder.and_(above, below)

    def either(self, condition: Any, value_of: Callable[[bool], Any]) -> Any:
        """``value_of(True)`` where the condition holds, else ``value_of(False)``."""
        results = []
        with self.builder.if_else(condition) as branches:
            for branch, holds in zip(branches, (True, False), strict=True):
                with branch:
                    results.append((value_of(holds), self.builder.block))
        merged = self.builder.phi(results[0][0].type)
        for value, block in results:
            merged.add_incoming(value, block)
        return merged

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        if host_registers().isa in ("sse2", "baseline"):
            # Without the instruction llvm.fma calls a function for each lane.
            return self.builder.fadd(self.builder.fmul(a, b), c)
        dtype = "f32" if self.size == 4 else "f64"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        function = cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.fma.v{self.tile.lanes}{dtype}"
        )
        return self.builder.call(function, [a, b, c])

    def pack(self, vectors: list[Any]) -> Any:
        fields = ir.LiteralStructType([self.vector] * len(vectors))
        struct = ir.Constant(fields, ir.Undefined)
        for i, vector in enumerate(vectors):
            struct = self.builder.insert_value(struct, vector, i)
        return struct

    def unpack(self, struct: Any) -> list[Any]:
        count = self.tile.rows * self.tile.vectors
        return [self.builder.extract_value(struct, i) for i in range(count)]

    def rows_of(self, vectors: list[Any]) -> list[list[Any]]:
        """A tile's vectors by rows."""
        step = self.tile.vectors
        return [vectors[first : first + step] for first in range(0, len(vectors), step)]

    def row_offsets(self, rows: Any) -> list[Any]:
        return [self.builder.extract_value(rows, m) for m in range(self.tile.rows)]


def _tile_of(rows: Any, vectors: Any, lanes: Any, array: Any) -> TileType:
    return TileType(rows.literal_value, vectors.literal_value, lanes.literal_value, array.dtype)


def or_in_python(plain: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Pair an intrinsic with the function on NumPy that it stands for."""

    def choose(compiled: Callable[..., Any]) -> Any:
        if config.DISABLE_JIT:
            return plain
        return intrinsic(prefer_literal=True)(compiled)

    return choose


def _plain_line(rows: int, start: int, step: int) -> Any:
    return start + step * np.arange(rows)


@or_in_python(_plain_line)
def rows_line(typing_context: Any, rows: Any, start: Any, step: Any) -> Any:
    """Offsets ``start + m * step`` of rows m = 0, 1, …"""
    kind = RowsType(rows.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, offset, step = arguments
        struct = ir.Constant(ir.LiteralStructType([_WORD] * kind.rows), ir.Undefined)
        for m in range(kind.rows):
            struct = builder.insert_value(struct, offset, m)
            offset = builder.add(offset, step)
        return struct

    return kind(rows, types.int64, types.int64), generate


def _plain_walk(
    rows: int, a: int, b: int, c: int, left: int, eb: int, ec: int, sa: int, sb: int, sc: int
) -> Any:
    flat = (a * eb + b) * ec + c + np.minimum(np.arange(rows), left - 1)
    return flat // (eb * ec) * sa + flat // ec % eb * sb + flat % ec * sc


@or_in_python(_plain_walk)
def rows_walk(
    typing_context: Any,
    rows: Any,
    a: Any,
    b: Any,
    c: Any,
    left: Any,
    eb: Any,
    ec: Any,
    sa: Any,
    sb: Any,
    sc: Any,
) -> Any:
    """Offsets of the points that follow (a, b, c) in row-major order, extents eb and ec.

    A point's offset is ``a * sa + b * sb + c * sc``; rows from ``left`` on repeat the last.
    All rows at once, in double-precision vectors: exact, since offsets are below 2^53 and a
    quotient is taken half a unit away from where it would jump. Counting row by row cost more
    than the nine products of a 3×3 filter on one channel.
    """
    kind = RowsType(rows.literal_value)
    double = ir.DoubleType()
    vector = ir.VectorType(double, kind.rows)
    words = ir.VectorType(_WORD, kind.rows)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, c, last, eb, ec, sa, sb, sc = arguments[1:]
        base = builder.add(builder.mul(a, sa), builder.add(builder.mul(b, sb), builder.mul(c, sc)))
        number = {
            name: builder.sitofp(value, double)
            for name, value in (
                ("b", b), ("c", c), ("last", builder.sub(last, _WORD(1))), ("eb", eb), ("ec", ec),
                ("sc", sc), ("base", base),
                # What a step to the next b, or to the next a, adds beyond its c steps.
                ("b step", builder.sub(sb, builder.mul(ec, sc))),
                ("a step", builder.sub(sa, builder.mul(eb, sb))),
            )
        }  # fmt: skip

        def splat(value: Any) -> Any:
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, value, ir.IntType(32)(0))
            places = ir.Constant(ir.VectorType(ir.IntType(32), kind.rows), None)
            return builder.shuffle_vector(first, undefined, places)

        def floor_of(value: Any, extent: str) -> Any:
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
        struct = ir.Constant(ir.LiteralStructType([_WORD] * kind.rows), ir.Undefined)
        for m in range(kind.rows):
            value = builder.extract_element(offsets, ir.IntType(32)(m))
            struct = builder.insert_value(struct, value, m)
        return struct

    return kind(rows, *[types.int64] * 9), generate


def _plain_row(rows: int, vectors: int, lanes: int, array: Any, start: int, columns: int) -> Any:
    tile = np.zeros((rows, vectors * lanes), array.dtype)
    tile[:, :columns] = array[start : start + columns]
    return tile


@or_in_python(_plain_row)
def tile_from_row(
    typing_context: Any,
    rows: Any,
    vectors: Any,
    lanes: Any,
    array: Any,
    start: Any,
    columns: Any,
) -> Any:
    """A tile whose every row is the ``columns`` numbers at ``array[start]``, then 0: the bias."""
    tile = _tile_of(rows, vectors, lanes, array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        data = emit.data(array, arguments[3])
        return emit.pack(emit.row(data, arguments[4], arguments[5]) * tile.rows)

    return tile(rows, vectors, lanes, array, types.int64, types.int64), generate


def _plain_rank1(tile: Any, x: Any, offsets: Any, i: int, w: Any, j: int) -> Any:
    return tile + x[offsets + i][:, None] * w[None, j : j + tile.shape[1]]


@or_in_python(_plain_rank1)
def rank1(typing_context: Any, tile: Any, x: Any, offsets: Any, i: Any, w: Any, j: Any) -> Any:
    """``tile[m] += x[offsets[m] + i] * w[j : j + vectors * lanes]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _rank1(context, builder, tile, x, w, arguments, None)

    return tile(tile, x, offsets, types.int64, w, types.int64), generate


def _plain_rank1_masked(
    tile: Any, x: Any, offsets: Any, i: int, w: Any, j: int, columns: int
) -> Any:
    row = np.zeros(tile.shape[1], w.dtype)
    row[:columns] = w[j : j + columns]
    return tile + x[offsets + i][:, None] * row


@or_in_python(_plain_rank1_masked)
def rank1_masked(
    typing_context: Any, tile: Any, x: Any, offsets: Any, i: Any, w: Any, j: Any, columns: Any
) -> Any:
    """As :func:`rank1`, but reads ``columns`` numbers of ``w`` and takes the others as 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _rank1(context, builder, tile, x, w, arguments, arguments[6])

    return tile(tile, x, offsets, types.int64, w, types.int64, types.int64), generate


def _rank1(
    context: Any, builder: Any, tile: TileType, x: Any, w: Any, arguments: Any, columns: Any
) -> Any:
    emit = _Emitter(context, builder, tile)
    # One running pointer for all rows: their offsets stay what they are in the loop.
    x_data = builder.gep(emit.data(x, arguments[1]), [arguments[3]])
    if tile.vectors == 1:
        # A tall tile has more rows than there are registers: a pointer that the compiler knew it
        # would add to all offsets before the loop (gradient of 8 filters 3×3, 32 digits: 84 µs, not
        # 68). The wide tiles, whose rows fit, would lose a third.
        x_data = emit.opaque(x_data)
    row = emit.row(emit.data(w, arguments[4]), arguments[5], columns)
    sums = emit.unpack(arguments[0])
    for m, offset in enumerate(emit.row_offsets(arguments[2])):
        value = emit.broadcast(x_data, offset)
        for v in range(tile.vectors):
            at = m * tile.vectors + v
            sums[at] = emit.fma(value, row[v], sums[at])
    return emit.pack(sums)


def _plain_rank1_packed(
    columns: int, tile: Any, x: Any, offsets: Any, i: int, w: Any, j: int
) -> Any:
    left = tile.shape[1] // columns
    return _plain_rank1_packed_masked(columns, tile, x, offsets, i, w, j, left)


@or_in_python(_plain_rank1_packed)
def rank1_packed(
    typing_context: Any, columns: Any, tile: Any, x: Any, offsets: Any, i: Any, w: Any, j: Any
) -> Any:
    """Some steps of :func:`rank1` at once: as many as rows of ``w`` fill the tile's row.

    Those rows have ``columns`` numbers each and follow each other without a gap:
    ``tile[m, k] += x[offsets[m] + i + k // columns] * w[j + k]``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _rank1_packed(context, builder, columns, tile, x, w, arguments, None)

    return tile(columns, tile, x, offsets, types.int64, w, types.int64), generate


def _plain_rank1_packed_masked(
    columns: int, tile: Any, x: Any, offsets: Any, i: int, w: Any, j: int, left: int
) -> Any:
    size = left * columns
    values = x[offsets[:, None] + i + np.arange(size) // columns]
    tile = tile.copy()
    tile[:, :size] += values * w[j : j + size]
    return tile


@or_in_python(_plain_rank1_packed_masked)
def rank1_packed_masked(
    typing_context: Any, columns: Any, tile: Any, x: Any, offsets: Any, i: Any, w: Any, j: Any,
    left: Any,
) -> Any:  # fmt: skip
    """:func:`rank1_packed` of the first ``left`` steps alone; nothing else is read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _rank1_packed(context, builder, columns, tile, x, w, arguments, arguments[7])

    return tile(columns, tile, x, offsets, types.int64, w, types.int64, types.int64), generate


def _rank1_packed(
    context: Any,
    builder: Any,
    columns: Any,
    tile: TileType,
    x: Any,
    w: Any,
    arguments: Any,
    left: Any,
) -> Any:
    emit, wide = _Emitter(context, builder, tile), columns.literal_value
    lanes = range(tile.lanes)
    steps = tile.vectors * tile.lanes // wide
    x_data = builder.gep(emit.data(x, arguments[2]), [arguments[4]])
    row = emit.row(
        emit.data(w, arguments[5]),
        arguments[6],
        None if left is None else builder.mul(left, _WORD(wide)),
    )
    sums = emit.unpack(arguments[1])
    for m, offset in enumerate(emit.row_offsets(arguments[3])):
        values = []
        for k in range(steps):
            place = emit.add(offset, _WORD(k))
            if left is None:
                values.append(emit.broadcast(x_data, place))
                continue
            inside = builder.icmp_signed("<", _WORD(k), left)
            some = emit.broadcast(x_data, builder.select(inside, place, offset))
            values.append(builder.select(inside, some, ir.Constant(emit.vector, None)))
        for v, vector in enumerate(row):
            of_lanes = [(v * tile.lanes + lane) // wide for lane in lanes]
            # Numbers that fill a vector each, then put together: reading them is free, while of one
            # vector that is spread the compiler makes moves across lanes, twice as slow.
            value = values[of_lanes[0]]
            for k in range(of_lanes[0] + 1, of_lanes[-1] + 1):
                later = ir.Constant(
                    ir.VectorType(ir.IntType(1), tile.lanes), [int(of >= k) for of in of_lanes]
                )
                value = builder.select(later, values[k], value)
            at = m * tile.vectors + v
            sums[at] = emit.fma(value, vector, sums[at])
    return emit.pack(sums)


def _plain_unpacked(columns: int, lanes: int, tile: Any) -> Any:
    sums = np.zeros((len(tile), -(-columns // lanes) * lanes), tile.dtype)
    for first in range(0, tile.shape[1], columns):
        sums[:, :columns] += tile[:, first : first + columns]
    return sums


@or_in_python(_plain_unpacked)
def tile_unpacked(typing_context: Any, columns: Any, lanes: Any, tile: Any) -> Any:
    """The sums of :func:`rank1_packed`, added up by columns: a tile of these, then zeros."""
    wide, across = columns.literal_value, -(-columns.literal_value // tile.lanes)
    unpacked = TileType(tile.rows, across, tile.lanes, tile.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, i32 = _Emitter(context, builder, tile), ir.IntType(32)

        def piece(a: Any, b: Any, places: list[int]) -> Any:
            pattern = ir.Constant(ir.VectorType(i32, len(places)), [i32(p) for p in places])
            return builder.shuffle_vector(a, b, pattern)

        found, nothing = [], ir.Constant(emit.vector, None)
        for row in emit.rows_of(emit.unpack(arguments[2])):
            row = [*row, nothing]
            for first in range(0, wide, tile.lanes):
                count = min(tile.lanes, wide - first)
                parts = []
                for start in range(first, tile.vectors * tile.lanes, wide):
                    v, lane = divmod(start, tile.lanes)
                    parts.append(piece(row[v], row[v + 1], [lane + k for k in range(count)]))
                total = parts[0]
                for part in parts[1:]:
                    total = builder.fadd(total, part)
                zeros = ir.Constant(total.type, None)
                found.append(piece(total, zeros, [min(k, count) for k in range(tile.lanes)]))
        return _Emitter(context, builder, unpacked).pack(found)

    return unpacked(columns, lanes, tile), generate


def _plain_rank1_lines(
    lines: int, tile: Any, x: Any, i: int, line: int, step: int, w: Any, j: int, columns: int
) -> Any:
    places = np.arange(lines)[:, None] * line + np.arange(len(tile) // lines) * step
    return _plain_rank1_masked(tile, x, places.reshape(-1), i, w, j, columns)


@or_in_python(_plain_rank1_lines)
def rank1_lines(
    typing_context: Any,
    lines: Any,
    tile: Any,
    x: Any,
    i: Any,
    line: Any,
    step: Any,
    w: Any,
    j: Any,
    columns: Any,
) -> Any:
    """:func:`rank1_masked` of a tile whose rows lie in ``lines`` lines of equal length.

    ``tile[l * length + k] += x[i + l * line + k * step] * w[j : j + columns]``. Rows anywhere need
    an offset each. Of more rows than there are registers each is read from memory beside its number
    (25 cycles for 28 rows of 8 lanes on Zen 4, whose multiply-adds take 14), and those of fewer are
    worked out for each tile. Rows of a line lie
    at multiples of one step, and a load takes a register 1, 2, 4 or 8 times: with the step's
    1, 3, 5 and 7 fold a pointer reaches nine rows.
    """
    count = lines.literal_value
    odd, reach = (3, 5, 7), 9

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        _, struct, x_value, i, line, step, w_value, j, columns = arguments
        byte = ir.PointerType(ir.IntType(8))
        number = ir.PointerType(emit.vector.element)
        first = builder.bitcast(builder.gep(emit.data(x, x_value), [i]), byte)
        row = emit.row(emit.data(w, w_value), j, columns)
        # In bytes and opaque: else the compiler keeps each multiple in a register of its own.
        fold = {1: emit.opaque(builder.mul(step, _WORD(emit.size)))}
        fold |= {k: builder.mul(fold[1], _WORD(k)) for k in odd}
        line = builder.mul(line, _WORD(emit.size))
        sums = emit.unpack(struct)
        length = tile.rows // count
        for m in range(tile.rows):
            k = m % length
            if k % reach == 0:
                far = builder.add(
                    builder.mul(line, _WORD(m // length)), builder.mul(fold[1], _WORD(k))
                )
                pointer = emit.opaque(builder.gep(first, [far]))
            k %= reach
            power = k & -k  # the largest power of two that divides it
            at = pointer
            if k:
                at = builder.gep(pointer, [builder.mul(fold[k // power], _WORD(power))])
            value = emit.splat(builder.load(builder.bitcast(at, number), align=emit.size))
            for v, vector in enumerate(row, m * tile.vectors):
                sums[v] = emit.fma(value, vector, sums[v])
        return emit.pack(sums)

    integer = types.int64
    arrays = lines, tile, x, integer, integer, integer, w, integer, integer
    return tile(*arrays), generate


def _plain_rank1_taps(
    taps: int, lines: int, tile: Any, x: Any, i: int, line: int, w: Any, j: int, tap: int,
    columns: int,
) -> Any:  # fmt: skip
    for k in range(taps):
        tile = _plain_rank1_lines(lines, tile, x, i + k, line, 1, w, j + k * tap, columns)
    return tile


@or_in_python(_plain_rank1_taps)
def rank1_taps(
    typing_context: Any,
    taps: Any,
    lines: Any,
    tile: Any,
    x: Any,
    i: Any,
    line: Any,
    w: Any,
    j: Any,
    tap: Any,
    columns: Any,
) -> Any:
    """:func:`rank1_lines` for a row of taps at once, where a line's numbers are neighbours.

    ``tile[l * length + m] += x[i + l * line + m + k] * w[j + k * tap : …]`` for k below ``taps``,
    in this order: each number of a line is read once and serves all taps that meet it.
    """
    count, ahead = lines.literal_value, taps.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        _, _, struct, x_value, i, line, w_value, j, tap, columns = arguments
        x_data, w_data = emit.data(x, x_value), emit.data(w, w_value)
        length, size = tile.rows // count, tile.vectors
        rows, pointers = [], []
        for _ in range(ahead):
            rows.append(emit.row(w_data, j, columns))
            j = emit.add(j, tap)
        for _ in range(count):
            pointers.append(emit.opaque(builder.gep(x_data, [i])))
            i = emit.add(i, line)
        sums = emit.unpack(struct)
        for p in range(length + ahead - 1):
            for place, pointer in enumerate(pointers):
                value = emit.broadcast(pointer, _WORD(p))
                for k in range(max(0, p - length + 1), min(ahead, p + 1)):
                    first = (place * length + p - k) * size
                    for v, vector in enumerate(rows[k], first):
                        sums[v] = emit.fma(value, vector, sums[v])
        return emit.pack(sums)

    integer = types.int64
    arrays = taps, lines, tile, x, integer, integer, w, integer, integer, integer
    return tile(*arrays), generate


def _plain_products(
    tile: Any, x: Any, offsets: Any, i: int, w: Any, j: int, columns: int, low: int, high: int
) -> Any:
    row = w[j : j + columns]
    for m in range(max(low, 0), min(high, len(tile))):
        first = offsets[m] + i
        tile[m, :columns] += x[first : first + columns] * row
    return tile


@or_in_python(_plain_products)
def products(
    typing_context: Any,
    tile: Any,
    x: Any,
    offsets: Any,
    i: Any,
    w: Any,
    j: Any,
    columns: Any,
    low: Any,
    high: Any,
) -> Any:
    """``tile[m, :columns] += x[offsets[m] + i : …] * w[j : …]``, number by number.

    For rows m from ``low`` to before ``high``; of others nothing is read. The step of depthwise
    convolution: each column has its own input.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        struct, x_value, rows, i, w_value, j, columns, low, high = arguments
        x_data = builder.gep(emit.data(x, x_value), [i])
        w_data = emit.data(w, w_value)

        def sums_of(every: bool) -> Any:
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
    tile: Any,
    x: Any,
    i: int,
    pixel: int,
    w: Any,
    j: int,
    tap: int,
    columns: int,
    low: int,
    high: int,
) -> Any:
    for k in range(taps):
        row = w[j + k * tap : j + k * tap + columns]
        for m in range(max(low - k, 0), min(high - k, len(tile))):
            first = i + (m + k) * pixel
            tile[m, :columns] += x[first : first + columns] * row
    return tile


@or_in_python(_plain_row_products)
def row_products(
    typing_context: Any,
    taps: Any,
    tile: Any,
    x: Any,
    i: Any,
    pixel: Any,
    w: Any,
    j: Any,
    tap: Any,
    columns: Any,
    low: Any,
    high: Any,
) -> Any:
    """:func:`products` for all taps of a row of a filter at once, where rows are pixels in a row.

    ``tile[m] += x[i + (m + k) * pixel : …] * w[j + k * tap : …]`` for k below ``taps``: a pixel is
    loaded once, and serves every tap that meets it. Sums grow in the order of the taps. Pixels
    m + k are those from ``low`` to before ``high``; of others nothing is read.
    """
    count = taps.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        _, struct, x_value, i, pixel, w_value, j, tap, columns, low, high = arguments
        x_data, w_data = emit.data(x, x_value), emit.data(w, w_value)
        pixels = tile.rows + count - 1

        def sums_of(every: bool) -> Any:
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


def _plain_relu(tile: Any) -> Any:
    return np.where(tile < 0, tile.dtype.type(0), tile)


@or_in_python(_plain_relu)
def tile_relu(typing_context: Any, tile: Any) -> Any:
    """``max(tile, 0)``; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        zero = ir.Constant(emit.vector, None)
        return emit.pack(
            [
                builder.select(builder.fcmp_ordered("<", vector, zero), zero, vector)
                for vector in emit.unpack(arguments[0])
            ]
        )

    return tile(tile), generate


def _better(emit: _Emitter, largest: bool, value: Any, best: Any) -> Any:
    """Lanes whose ``value`` takes the place of an earlier ``best``: greater, or the first NaN."""
    builder = emit.builder
    not_less = builder.fcmp_unordered(">" if largest else "<", value, best)
    return builder.and_(not_less, builder.fcmp_ordered("ord", best, best))


def _greater(emit: _Emitter, largest: bool, value: Any, best: Any) -> Any:
    """The same where neither is NaN."""
    return emit.builder.fcmp_ordered(">" if largest else "<", value, best)


def _best_by(better: Callable[..., Any], largest: Any, tile: Any, best: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        pairs = zip(emit.unpack(arguments[1]), emit.unpack(arguments[2]), strict=True)
        return emit.pack(
            [
                builder.select(better(emit, largest.literal_value, value, old), value, old)
                for value, old in pairs
            ]
        )

    return tile(largest, tile, best), generate


def _place_by(better: Callable[..., Any], largest: Any, tile: Any, best: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        number = emit.splat(builder.sitofp(arguments[4], emit.vector.element))
        rows = zip(*[emit.unpack(arguments[i]) for i in (1, 2, 3)], strict=True)
        return emit.pack(
            [
                builder.select(better(emit, largest.literal_value, value, old), number, kept)
                for value, old, kept in rows
            ]
        )

    return tile(largest, tile, best, place, types.int64), generate


def _plain_wins(largest: bool, tile: Any, best: Any) -> Any:
    greater = tile > best if largest else tile < best
    return greater | (np.isnan(tile) & ~np.isnan(best))


def _plain_best(largest: bool, tile: Any, best: Any) -> Any:
    return np.where(_plain_wins(largest, tile, best), tile, best)


@or_in_python(_plain_best)
def tile_best(typing_context: Any, largest: Any, tile: Any, best: Any) -> Any:
    """The larger of each pair (the smaller, if not ``largest``); of equals ``best``; NaN wins."""
    return _best_by(_better, largest, tile, best)


@or_in_python(_plain_best)
def tile_best_of_numbers(typing_context: Any, largest: Any, tile: Any, best: Any) -> Any:
    """:func:`tile_best` of tiles without NaN: one instruction instead of three."""
    return _best_by(_greater, largest, tile, best)


def _plain_squares(length: int, tile: Any) -> tuple[Any, Any]:
    squares = tile.reshape(-1, 2, length // 2, 2, tile.shape[1]).transpose(1, 3, 0, 2, 4)
    best, *others = squares.reshape(4, -1, tile.shape[1])
    place = np.zeros_like(best)
    for k, value in enumerate(others, 1):
        place = _plain_place(True, value, best, place, k)
        best = _plain_best(True, value, best)
    return best, place


def _plain_pooled(length: int, tile: Any) -> Any:
    return _plain_squares(length, tile)[0]


@or_in_python(_plain_pooled)
def tile_pooled(typing_context: Any, length: Any, tile: Any) -> Any:
    """The largest of each 2×2 rows of a tile whose rows lie in lines, by :func:`tile_best`.

    Lines have ``length`` rows, and are taken two by two.
    """
    return _pooled(_better, length, tile, places=False)


@or_in_python(_plain_pooled)
def tile_pooled_of_numbers(typing_context: Any, length: Any, tile: Any) -> Any:
    """:func:`tile_pooled` of a tile without NaN."""
    return _pooled(_greater, length, tile, places=False)


def _plain_places(length: int, tile: Any) -> Any:
    return _plain_squares(length, tile)[1]


@or_in_python(_plain_places)
def tile_pooled_places(typing_context: Any, length: Any, tile: Any) -> Any:
    """Which of each 2×2 rows :func:`tile_pooled` gives, as numbers 0 to 3 in row-major order."""
    return _pooled(_better, length, tile, places=True)


@or_in_python(_plain_places)
def tile_pooled_places_of_numbers(typing_context: Any, length: Any, tile: Any) -> Any:
    """:func:`tile_pooled_places` of a tile without NaN."""
    return _pooled(_greater, length, tile, places=True)


def _pooled(better: Callable[..., Any], length: Any, tile: TileType, *, places: bool) -> Any:
    pooled = TileType(tile.rows // 4, tile.vectors, tile.lanes, tile.dtype)
    line = length.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        vectors, found = emit.unpack(arguments[1]), []
        numbers = [emit.constant(Fraction(k)) for k in range(4)]
        for row in range(0, tile.rows, 2):
            if row // line % 2:
                continue
            for v in range(tile.vectors):
                four = [(row + m) * tile.vectors + v for m in (0, 1, line, line + 1)]
                best, place = vectors[four[0]], numbers[0]
                for at, number in zip(four[1:], numbers[1:], strict=True):
                    takes = better(emit, True, vectors[at], best)
                    best = builder.select(takes, vectors[at], best)
                    place = builder.select(takes, number, place)
                found.append(place if places else best)
        return _Emitter(context, builder, pooled).pack(found)

    return pooled(length, tile), generate


def _plain_place(largest: bool, tile: Any, best: Any, place: Any, at: int) -> Any:
    return np.where(_plain_wins(largest, tile, best), tile.dtype.type(at), place)


@or_in_python(_plain_place)
def tile_place(typing_context: Any, largest: Any, tile: Any, best: Any, place: Any, at: Any) -> Any:
    """``at`` where ``tile`` takes the place of ``best`` in :func:`tile_best`, else ``place``."""
    return _place_by(_better, largest, tile, best, place)


@or_in_python(_plain_place)
def tile_place_of_numbers(
    typing_context: Any, largest: Any, tile: Any, best: Any, place: Any, at: Any
) -> Any:
    """:func:`tile_place` of tiles without NaN."""
    return _place_by(_greater, largest, tile, best, place)


def _plain_has_nan(tile: Any) -> bool:
    return bool(np.isnan(tile).any())


@or_in_python(_plain_has_nan)
def tile_has_nan(typing_context: Any, tile: Any) -> Any:
    """Whether any number of the tile is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        vectors = emit.unpack(arguments[0])
        found = ir.Constant(ir.VectorType(ir.IntType(1), tile.lanes), None)
        for a, b in zip(vectors[0::2], [*vectors[1::2], vectors[-1]], strict=False):
            found = builder.or_(found, builder.fcmp_unordered("uno", a, b))
        bits = builder.bitcast(found, ir.IntType(tile.lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(tile), generate


def _plain_where(tile: Any, place: Any, at: int) -> Any:
    return np.where(place == at, tile, tile.dtype.type(0))


@or_in_python(_plain_where)
def tile_where(typing_context: Any, tile: Any, place: Any, at: Any) -> Any:
    """``tile`` where ``place`` is ``at``, else 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        number = emit.splat(builder.sitofp(arguments[2], emit.vector.element))
        zero = ir.Constant(emit.vector, None)
        pairs = zip(emit.unpack(arguments[0]), emit.unpack(arguments[1]), strict=True)
        return emit.pack(
            [
                builder.select(builder.fcmp_ordered("==", where, number), value, zero)
                for value, where in pairs
            ]
        )

    return tile(tile, place, types.int64), generate


def _plain_sum(a: Any, b: Any) -> Any:
    return a + b


@or_in_python(_plain_sum)
def tile_sum(typing_context: Any, a: Any, b: Any) -> Any:
    """The sum of two tiles."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, a)
        pairs = zip(emit.unpack(arguments[0]), emit.unpack(arguments[1]), strict=True)
        return emit.pack([builder.fadd(x, y) for x, y in pairs])

    return a(a, b), generate


def _plain_scaled(tile: Any, other: Any, x: Any, i: int) -> Any:
    return tile + x[i] * other


@or_in_python(_plain_scaled)
def tile_sum_scaled(typing_context: Any, tile: Any, other: Any, x: Any, i: Any) -> Any:
    """``tile + x[i] * other``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        value = emit.broadcast(emit.data(x, arguments[2]), arguments[3])
        pairs = zip(emit.unpack(arguments[0]), emit.unpack(arguments[1]), strict=True)
        return emit.pack([emit.fma(value, vector, old) for old, vector in pairs])

    return tile(tile, other, x, types.int64), generate


def _plain_quotient(tile: Any, divisor: int) -> Any:
    return tile / tile.dtype.type(divisor)


@or_in_python(_plain_quotient)
def tile_quotient(typing_context: Any, tile: Any, divisor: Any) -> Any:
    """The tile divided by an integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        number = emit.splat(builder.sitofp(arguments[1], emit.vector.element))
        return emit.pack([builder.fdiv(x, number) for x in emit.unpack(arguments[0])])

    return tile(tile, types.int64), generate


def _plain_expect(tile: Any, array: Any, offsets: Any, start: int) -> None:
    pass


@or_in_python(_plain_expect)
def expect_store(typing_context: Any, tile: Any, array: Any, offsets: Any, start: Any) -> Any:
    """Fetch the cache lines that :func:`tile_store` will write to; a hint, never a fault."""
    return _expect(tile, array, offsets, writing=True)


@or_in_python(_plain_expect)
def expect_load(typing_context: Any, tile: Any, array: Any, offsets: Any, start: Any) -> Any:
    """Fetch the cache lines that begin where the rows of a tile will read; a hint as well."""
    return _expect(tile, array, offsets, writing=False)


def _expect(tile: TileType, array: Any, offsets: Any, writing: bool) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        _, array_value, rows, start = arguments
        data, i32 = emit.data(array, array_value), ir.IntType(32)
        for offset in emit.row_offsets(rows):
            for place in range(0, tile.vectors * tile.lanes, 64 // emit.size):
                at = emit.add(emit.add(offset, start), _WORD(place))
                pointer = builder.gep(data, [at])
                kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
                function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
                builder.call(function, [pointer, i32(int(writing)), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(tile, array, offsets, types.int64), generate


def _plain_store(tile: Any, array: Any, offsets: Any, start: int, columns: int) -> None:
    for m in range(len(tile)):
        first = offsets[m] + start
        array[first : first + columns] = tile[m, :columns]


@or_in_python(_plain_store)
def tile_store(
    typing_context: Any, tile: Any, array: Any, offsets: Any, start: Any, columns: Any
) -> Any:
    """Write the first ``columns`` numbers of each row m to ``array[offsets[m] + start]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        struct, array_value, rows, start, columns = arguments
        data, vectors = emit.data(array, array_value), emit.unpack(struct)
        offsets = [emit.add(offset, start) for offset in emit.row_offsets(rows)]
        full = builder.icmp_signed("==", columns, _WORD(tile.vectors * tile.lanes))
        with builder.if_else(full) as (whole, partial):
            with whole:
                for m, offset in enumerate(offsets):
                    for v in range(tile.vectors):
                        value = vectors[m * tile.vectors + v]
                        emit.store(value, data, emit.offset(offset, v))
            with partial:
                emit.store_columns(emit.rows_of(vectors), data, offsets, columns)
        return context.get_dummy_value()

    return types.void(tile, array, offsets, types.int64, types.int64), generate


def _plain_stream(tile: Any, array: Any, start: int) -> None:
    array[start : start + tile.shape[1]] = tile[0]


@or_in_python(_plain_stream)
def tile_stream(typing_context: Any, tile: Any, array: Any, start: Any) -> Any:
    """Write a tile of one row to ``array[start]``, aligned to vectors, past the cache.

    For large results: a usual store fetches the cache line first. :func:`stores_done` ends it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        data = emit.data(array, arguments[1])
        hint = builder.module.add_metadata([ir.IntType(32)(1)])
        for v, vector in enumerate(emit.unpack(arguments[0])):
            pointer = emit.vector_pointer(data, emit.offset(arguments[2], v))
            store = builder.store(vector, pointer, align=tile.lanes * emit.size)
            store.set_metadata("nontemporal", hint)
        return context.get_dummy_value()

    return types.void(tile, array, types.int64), generate


def _plain_done() -> None:
    pass


@or_in_python(_plain_done)
def stores_done(typing_context: Any) -> Any:
    """What :func:`tile_stream` wrote is seen by others before all that follows."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


def _plain_store_rows(
    tile: Any, array: Any, start: int, step: int, columns: int, count: int
) -> None:
    for m in range(min(count, len(tile))):
        array[start + m * step : start + m * step + columns] = tile[m, :columns]


@or_in_python(_plain_store_rows)
def tile_store_rows(
    typing_context: Any, tile: Any, array: Any, start: Any, step: Any, columns: Any, count: Any
) -> Any:
    """Write ``columns`` numbers of rows m below ``count`` to ``array[start + m * step]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        struct, array_value, start, step, columns, count = arguments
        data, vectors = emit.data(array, array_value), emit.unpack(struct)

        rows, places, place = emit.rows_of(vectors), [], start
        for _ in rows:
            places.append(place)
            place = emit.add(place, step)
        full = builder.icmp_signed("==", columns, _WORD(tile.vectors * tile.lanes))
        every = builder.icmp_signed(">=", count, _WORD(tile.rows))
        with builder.if_else(builder.and_(full, every)) as (whole, partial):
            with whole:
                for row, place in zip(rows, places, strict=True):
                    for v, vector in enumerate(row):
                        emit.store(vector, data, emit.offset(place, v))
            with partial:
                if host_registers().isa == "avx512":
                    for m, (row, place) in enumerate(zip(rows, places, strict=True)):
                        inside = builder.icmp_signed(">", count, _WORD(m))
                        wanted = builder.select(inside, columns, _WORD(0))
                        emit.store_columns([row], data, [place], wanted)
                else:
                    for m in range(1, tile.rows):  # those beyond are the last again
                        inside = builder.icmp_signed(">", count, _WORD(m))
                        places[m] = builder.select(inside, places[m], places[m - 1])
                        pairs = zip(rows[m], rows[m - 1], strict=True)
                        rows[m] = [builder.select(inside, *pair) for pair in pairs]
                    with builder.if_then(builder.icmp_signed(">", count, _WORD(0))):
                        emit.store_columns(rows, data, places, columns)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(tile, array, integer, integer, integer, integer), generate


def _plain_copy(target: Any, i: int, source: Any, j: int, count: int) -> None:
    target[i : i + count] = source[j : j + count]


@or_in_python(_plain_copy)
def copy_run(typing_context: Any, target: Any, i: Any, source: Any, j: Any, count: Any) -> Any:
    """``target[i : i + count] = source[j : j + count]``, at the speed of memcpy."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointers = [
            builder.gep(context.make_array(kind)(context, builder, array).data, [place])
            for kind, array, place in (
                (target, arguments[0], arguments[1]),
                (source, arguments[2], arguments[3]),
            )
        ]
        size = _bytes(target.dtype)
        cgutils.raw_memcpy(builder, *pointers, arguments[4], size, align=size)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate


def _plain_transpose(
    lanes: int, target: Any, i: int, rows: int, source: Any, j: int, columns: int
) -> None:
    for m in range(lanes):
        target[i + m * rows : i + m * rows + lanes] = source[
            j + m : j + m + lanes * columns : columns
        ]


@or_in_python(_plain_transpose)
def transpose_square(
    typing_context: Any,
    lanes: Any,
    target: Any,
    i: Any,
    target_step: Any,
    source: Any,
    j: Any,
    source_step: Any,
) -> Any:
    """Transpose a square of ``lanes`` by ``lanes`` numbers, ``step`` from one row to the next.

    In registers: first the squares within 16 bytes, then these among each other. Each shuffle is
    then one instruction of AVX2 (1352×10 weights in 2.3 µs instead of 4.8, Zen 3).
    """
    side = lanes.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, TileType(side, 1, side, source.dtype))
        _, to, i, to_step, from_, j, from_step = arguments
        data = emit.data(target, to)
        for vector in _turned_square(emit, side, emit.data(source, from_), j, from_step):
            emit.store(vector, data, i)
            i = emit.add(i, to_step)
        return context.get_dummy_value()

    integer = types.int64
    signature = types.void(lanes, target, integer, integer, source, integer, integer)
    return signature, generate


def _plain_rank1_square(
    tile: Any, x: Any, offsets: Any, i: int, w: Any, j: int, step: int, first: int
) -> Any:
    tile, lanes = tile.copy(), tile.shape[1]
    for k in range(first, lanes):
        row = w[j + k : j + k + (lanes - 1) * step + 1 : step]
        for m, offset in enumerate(offsets):
            tile[m] += x[offset + i + k] * row
    return tile


@or_in_python(_plain_rank1_square)
def rank1_square(
    typing_context: Any,
    tile: Any,
    x: Any,
    offsets: Any,
    i: Any,
    w: Any,
    j: Any,
    step: Any,
    first: Any,
) -> Any:
    """``tile[m] += x[offsets[m] + i + k] * w[j + k :: step]`` for k from ``first`` to the lanes.

    A tile one vector wide, and a square of ``w``, which is turned in registers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        struct, x_value, rows, i, w_value, j, step, first = arguments
        columns = _turned_square(emit, tile.lanes, emit.data(w, w_value), j, step)
        numbers = emit.data(x, x_value)
        places = [emit.add(offset, i) for offset in emit.row_offsets(rows)]

        def sums(every: bool) -> Any:
            totals = emit.unpack(struct)
            for k, column in enumerate(columns):
                taken = builder.icmp_signed(">=", _WORD(k), first)
                for m, place in enumerate(places):
                    factor = emit.broadcast(numbers, emit.add(place, _WORD(k)))
                    more = emit.fma(factor, column, totals[m])
                    totals[m] = more if every else builder.select(taken, more, totals[m])
            return emit.pack(totals)

        return emit.either(builder.icmp_signed("==", first, _WORD(0)), sums)

    integer = types.int64
    return tile(tile, x, offsets, integer, w, integer, integer, integer), generate


def _turned_square(emit: _Emitter, side: int, data: Any, start: Any, step: Any) -> list[Any]:
    """The columns of a square whose rows begin ``step`` apart."""
    vectors = []
    for _ in range(side):
        vectors.append(emit.load(data, start))
        start = emit.add(start, step)
    return _transposed(emit, vectors)


def _transposed(emit: _Emitter, vectors: list[Any]) -> list[Any]:
    """A square of as many vectors as they have lanes."""
    side, i32 = len(vectors), ir.IntType(32)
    block = min(16 // emit.size, side)

    def rounds(vectors: list[Any], size: int, span: int) -> list[Any]:
        """Exchange vectors with pieces of ``size`` lanes, as many, in each ``span`` of lanes.

        The pieces with even numbers of two vectors become one, those with odd numbers another.
        """
        if len(vectors) == 1:
            return vectors
        places: list[list[Any]] = [[], []]
        for first in range(0, side, span):
            for vector in (0, side):
                for k in range(span // size):
                    at = vector + first + k * size
                    places[k % 2] += [i32(at + lane) for lane in range(size)]
        masks = [ir.Constant(ir.VectorType(i32, side), part) for part in places]
        for _ in range(len(vectors).bit_length() - 1):
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
            vectors = [emit.builder.shuffle_vector(a, b, mask) for mask in masks for a, b in pairs]
        return vectors

    groups = [rounds(vectors[first : first + block], 1, block) for first in range(0, side, block)]
    columns = [rounds([group[m] for group in groups], block, side) for m in range(block)]
    return [columns[m][b] for b in range(side // block) for m in range(block)]


def _plain_zero(target: Any, i: int, count: int) -> None:
    target[i : i + count] = 0


@or_in_python(_plain_zero)
def zero_run(typing_context: Any, target: Any, i: Any, count: Any) -> Any:
    """``target[i : i + count] = 0``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(target)(context, builder, arguments[0]).data
        size = builder.mul(arguments[2], _WORD(_bytes(target.dtype)))
        cgutils.memset(builder, builder.gep(data, [arguments[1]]), size, 0)
        return context.get_dummy_value()

    return types.void(target, types.int64, types.int64), generate


def _plain_rows(rows: int, vectors: int, lanes: int, array: Any, offsets: Any, start: int) -> Any:
    places = offsets[:, None] + start + np.arange(vectors * lanes)
    return array[places]


@or_in_python(_plain_rows)
def tile_from_rows(
    typing_context: Any, rows: Any, vectors: Any, lanes: Any, array: Any, offsets: Any, start: Any
) -> Any:
    """The tile whose row m is at ``array[offsets[m] + start]``, as :func:`tile_store` wrote it."""
    tile = _tile_of(rows, vectors, lanes, array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        _, _, _, array_value, offsets, start = arguments
        data, loaded = emit.data(array, array_value), []
        for offset in emit.row_offsets(offsets):
            loaded += emit.row(data, emit.add(offset, start), None)
        return emit.pack(loaded)

    return tile(rows, vectors, lanes, array, offsets, types.int64), generate


def _plain_room(count: int) -> Any:
    return np.zeros(count)


@or_in_python(_plain_room)
def totals_room(typing_context: Any, count: Any) -> Any:
    """The address of room on the stack for ``count`` float64 numbers, the totals of long sums.

    Totals stay in memory, since a tile's sums leave no registers free. The compiler does not know
    what lies at the address: else it would make the totals values of the loop over the steps, and
    they would drive the sums out of their registers.
    """
    kind = ir.ArrayType(ir.DoubleType(), count.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.ptrtoint(cgutils.alloca_once(builder, kind), _WORD)
        opaque = ir.FunctionType(_WORD, [_WORD])
        return builder.asm(opaque, "", "=r,0", [address], False)

    return types.int64(count), generate


def _plain_totals_in(array: Any, at: int) -> Any:
    return array.reshape(-1)[at:]


@or_in_python(_plain_totals_in)
def totals_in(typing_context: Any, array: Any, at: Any) -> Any:
    """The address of a float64 array's number ``at``, where totals lie that outlive a call."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.ptrtoint(builder.gep(data, [arguments[1]]), _WORD)

    return types.int64(array, types.int64), generate


def _wide(emit: _Emitter, room: Any, at: Any) -> list[Any]:
    """Where the totals of a tile's vectors lie, from the number ``at`` of the room on."""
    kind = ir.PointerType(ir.VectorType(ir.DoubleType(), emit.tile.lanes))
    pointers = []
    for vector in range(emit.tile.rows * emit.tile.vectors):
        number = emit.offset(at, vector)
        address = emit.add(room, emit.builder.mul(number, _WORD(8)))
        pointers.append(emit.builder.inttoptr(address, kind))
    return pointers


def _with_totals(emit: _Emitter, struct: Any, pointers: list[Any]) -> list[Any]:
    """The totals plus the tile, in float64."""
    builder, sums = emit.builder, []
    for pointer, vector in zip(pointers, emit.unpack(struct), strict=True):
        wide = vector if emit.size == 8 else builder.fpext(vector, pointer.type.pointee)
        sums.append(builder.fadd(builder.load(pointer, align=8), wide))
    return sums


def _plain_no_totals(tile: Any, room: Any, at: int) -> None:
    room[at : at + tile.size] = 0


@or_in_python(_plain_no_totals)
def totals_begin(typing_context: Any, tile: Any, room: Any, at: Any) -> Any:
    """Make the totals of a tile's sums 0, from the number ``at`` of the room on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        for pointer in _wide(emit, *arguments[1:]):
            builder.store(ir.Constant(pointer.type.pointee, None), pointer, align=8)
        return context.get_dummy_value()

    return types.void(tile, room, types.int64), generate


def _plain_added(tile: Any, room: Any, at: int) -> Any:
    room[at : at + tile.size] += tile.reshape(-1)
    return np.zeros_like(tile)


@or_in_python(_plain_added)
def totals_add(typing_context: Any, tile: Any, room: Any, at: Any) -> Any:
    """Add a tile to its totals; zeros, for the next stretch to begin with.

    By way of memory, one vector after the other: the registers that many wide numbers need at once
    would be taken from the loop before (gradient of 64 filters 3×3 on 56×56×64: 8 % more).
    """
    count = tile.rows * tile.vectors

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        place = builder.ptrtoint(
            cgutils.alloca_once(builder, ir.ArrayType(emit.vector, count)), _WORD
        )
        scratch = builder.inttoptr(emit.opaque(place), ir.PointerType(emit.vector.element))
        for m, vector in enumerate(emit.unpack(arguments[0])):
            emit.store(vector, scratch, _WORD(m * tile.lanes))
        wide = ir.VectorType(ir.DoubleType(), tile.lanes)
        start = emit.add(arguments[1], builder.mul(arguments[2], _WORD(8)))
        with cgutils.for_range(builder, _WORD(count)) as loop:
            at = builder.mul(loop.index, _WORD(tile.lanes))
            vector = emit.load(scratch, at)
            address = emit.add(start, builder.mul(at, _WORD(8)))
            pointer = builder.inttoptr(address, ir.PointerType(wide))
            term = vector if emit.size == 8 else builder.fpext(vector, wide)
            builder.store(builder.fadd(builder.load(pointer, align=8), term), pointer, align=8)
        return emit.pack([ir.Constant(emit.vector, None)] * count)

    return tile(tile, room, types.int64), generate


def _plain_total(tile: Any, room: Any, at: int) -> Any:
    total = room[at : at + tile.size] + tile.reshape(-1)
    return total.astype(tile.dtype).reshape(tile.shape)


@or_in_python(_plain_total)
def totals_end(typing_context: Any, tile: Any, room: Any, at: Any) -> Any:
    """The totals plus the tile, the sum of the last stretch, as a tile."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        sums = _with_totals(emit, arguments[0], _wide(emit, *arguments[1:]))
        if emit.size == 4:
            sums = [builder.fptrunc(total, emit.vector) for total in sums]
        return emit.pack(sums)

    return tile(tile, room, types.int64), generate


def _plain_doubt(doubt: Any, tile: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return doubt + (tile.sum(axis=0) * 0).reshape(doubt.shape)


@or_in_python(_plain_doubt)
def tile_doubt(typing_context: Any, doubt: Any, tile: Any) -> Any:
    """``doubt`` plus 0 times the sum of the tile's vectors: 0 as long as all sums are finite."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        vectors = emit.unpack(arguments[1])
        while len(vectors) > 1:
            rest = vectors[len(vectors) // 2 * 2 :]
            pairs = zip(vectors[0::2], vectors[1::2], strict=False)
            vectors = [builder.fadd(a, b) for a, b in pairs] + rest
        zero, old = ir.Constant(emit.vector, None), builder.extract_value(arguments[0], 0)
        return _Emitter(context, builder, doubt).pack([emit.fma(vectors[0], zero, old)])

    return doubt(doubt, tile), generate


def _combination(emit: _Emitter, terms: list[tuple[Fraction, Any]]) -> Any:
    """Σ coefficient · vector, or None where all coefficients are 0."""
    terms = sorted((t for t in terms if t[0]), key=lambda t: t[0] != 1)  # begin without a product
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
    """Pairs of lines that differ in signs alone, each with its partner after it."""
    pairs: dict[int, int] = {}
    for i, line in enumerate(lines):
        for k in range(i + 1, len(lines)):
            alike = all(abs(a) == abs(b) for a, b in zip(line, lines[k], strict=True))
            if alike and line != lines[k] and not {i, k} & {*pairs, *pairs.values()}:
                pairs[i] = k
    return pairs


def _map_line(emit: _Emitter, matrix: Matrix, vectors: list[Any]) -> list[Any]:
    """``matrix`` times a column of vectors.

    Points come in pairs ±p, whose columns (of Aᵀ) or rows (of Bᵀ and G) differ in signs alone:
    sum and difference of such a pair serve for both.
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
    results: list[Any] = [None] * len(rows)
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


def _sandwich(emit: _Emitter, matrix: Matrix, arguments: tuple[Any, ...]) -> Iterator[list[Any]]:
    """The rows of ``M X Mᵀ``, for the square X of vectors that lies in an array."""
    data, start, row_step, column_step, mask = arguments
    side, half = range(len(matrix[0])), []
    for _ in side:
        place, column = start, []
        for _ in side:
            loaded = emit.load(data, place) if mask is None else emit.masked_load(data, place, mask)
            column.append(loaded)
            place = emit.add(place, row_step)
        half.append(_map_line(emit, matrix, column))
        start = emit.add(start, column_step)
    for row in zip(*half, strict=True):
        yield _map_line(emit, matrix, list(row))


def _plain_square(
    matrix: Matrix, lanes: int, array: Any, start: int, row: int, column: int, columns: int
) -> Any:
    side = np.arange(len(matrix[0]))
    square = np.zeros((len(side), len(side), lanes), array.dtype)
    places = start + side[:, None, None] * row + side[:, None] * column + np.arange(columns)
    square[:, :, :columns] = array[places]
    values = np.asarray([[float(c) for c in line] for line in matrix], array.dtype)
    return np.einsum("ia,abl,jb->ijl", values, square, values).reshape(-1, lanes)


def _plain_transform(
    which: int, m: int, r: int, lanes: int, array: Any, start: int, row: int, column: int
) -> Any:
    return _plain_square(filtering(m, r)[which], lanes, array, start, row, column, lanes)


@or_in_python(_plain_transform)
def tile_transform(
    typing_context: Any,
    which: Any,
    m: Any,
    r: Any,
    lanes: Any,
    array: Any,
    start: Any,
    row_step: Any,
    column_step: Any,
) -> Any:
    """``M X Mᵀ`` as a tile of one vector a row, in row-major order.

    M is matrix ``which`` of :func:`~fastcnn.core.minimal_filtering.filtering`; X the square of
    vectors at ``array[start + a * row_step + b * column_step]``.
    """
    matrix = filtering(m.literal_value, r.literal_value)[which.literal_value]
    tile = TileType(len(matrix) ** 2, 1, lanes.literal_value, array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        square = emit.data(array, arguments[4]), *arguments[5:8], None
        return emit.pack([vector for row in _sandwich(emit, matrix, square) for vector in row])

    integer = types.int64
    return tile(which, m, r, lanes, array, integer, integer, integer), generate


def _plain_store_transform(
    which: int, m: int, r: int, lanes: int, array: Any, start: int, row: int, column: int,
    columns: int, target: Any, at: int, step: int,
) -> None:  # fmt: skip
    matrix = filtering(m, r)[which]
    for vector in _plain_square(matrix, lanes, array, start, row, column, columns):
        target[at : at + lanes] = vector
        at += step


@or_in_python(_plain_store_transform)
def store_transform(
    typing_context: Any,
    which: Any,
    m: Any,
    r: Any,
    lanes: Any,
    array: Any,
    start: Any,
    row_step: Any,
    column_step: Any,
    columns: Any,
    target: Any,
    at: Any,
    step: Any,
) -> Any:
    """:func:`tile_transform` written to ``target``, its vectors ``step`` apart from ``at`` on.

    Of each vector of X the first ``columns`` numbers are read, the others count as 0. For squares
    of more vectors than there are registers: each row is stored as soon as it is done.
    """
    matrix = filtering(m.literal_value, r.literal_value)[which.literal_value]
    tile = TileType(1, 1, lanes.literal_value, array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, tile)
        _, _, _, _, source, start, row, column, columns, target_value, at, step = arguments
        square = emit.data(array, source), start, row, column, emit.mask(columns, 0)
        data = emit.data(target, target_value)
        for vectors in _sandwich(emit, matrix, square):
            for vector in vectors:
                emit.store(vector, data, at)
                at = emit.add(at, step)
        return context.get_dummy_value()

    integer = types.int64
    signature = types.void(
        which, m, r, lanes, array, integer, integer, integer, integer, target, integer, integer
    )
    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def load_acquire(typing_context: Any, array: Any, index: Any) -> Any:
    """``array[index]`` of int64, read anew each time, and before all that follows."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "acquire", 8)

    return types.int64(array, index), generate


@intrinsic  # type: ignore[untyped-decorator]
def store_release(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index] = value`` of int64, seen by others only after all that precedes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        builder.store_atomic(arguments[2], builder.gep(data, [arguments[1]]), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def swap(typing_context: Any, array: Any, index: Any, old: Any, new: Any) -> Any:
    """Make ``array[index]`` of int64 ``new`` if it is ``old``; whether it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        place = builder.gep(data, [arguments[1]])
        found = builder.cmpxchg(place, *arguments[2:], "acq_rel", "acquire")
        return builder.extract_value(found, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def yield_core(typing_context: Any) -> Any:
    """Let another thread or program have the core, where the system has a call for that."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if hasattr(os, "sched_yield"):
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic  # type: ignore[untyped-decorator]
def pause(typing_context: Any) -> Any:
    """Tell the processor that this loop waits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate
