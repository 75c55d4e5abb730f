"""The LLVM instructions that intrinsics on register tiles share: loads, stores, masks, products.

It runs when a kernel is compiled. Its methods append instructions to the kernel and return values.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from llvmlite import ir
from numba.core import cgutils

from fastcnn.engine.numba.runtime.instruction_sets import host_registers
from fastcnn.engine.numba.runtime.intrinsics import Code
from fastcnn.engine.numba.runtime.types import ArrayType, Value, Values
from fastcnn.engine.numba.tiles.types import WORD, TileType, item_size, vector_type


class Emitter:
    """Short names for the LLVM instructions on one type of tile.

    An offset counts elements. ``data`` is a pointer to an array's first element.

    Attributes:
        vector: the LLVM type of a vector of the tile.
        size: bytes of an element.
    """

    def __init__(self, code: Code, tile: TileType) -> None:
        self.code, self.builder, self.tile = code, code.builder, tile
        self.vector = vector_type(tile)
        self.size = item_size(tile.dtype)

    def data(self, kind: ArrayType, array: Value) -> Value:
        """The pointer to the first element of a Numba array."""
        return self.code.data(kind, array)

    def add(self, a: Value, b: Value) -> Value:
        return self.builder.add(a, b)

    def offset(self, start: Value, vector: int) -> Value:
        """``start`` plus ``vector`` vectors."""
        return self.add(start, WORD(vector * self.tile.lanes))

    def opaque(self, value: Value) -> Value:
        """The same value, as a value that the compiler cannot see through."""
        kind = ir.FunctionType(value.type, [value.type])
        return self.builder.asm(kind, "", "=r,0", [value], False)

    def vector_pointer(self, data: Value, offset: Value) -> Value:
        """A pointer to the vector at ``data[offset]``."""
        return self.builder.bitcast(self.builder.gep(data, [offset]), ir.PointerType(self.vector))

    def load(self, data: Value, offset: Value) -> Value:
        """The vector at ``data[offset]``."""
        return self.builder.load(self.vector_pointer(data, offset), align=self.size)

    def store(self, value: Value, data: Value, offset: Value) -> None:
        """Write a vector to ``data[offset]``."""
        self.builder.store(value, self.vector_pointer(data, offset), align=self.size)

    def broadcast(self, data: Value, offset: Value) -> Value:
        """A vector whose lanes are all ``data[offset]``."""
        number = self.builder.load(self.builder.gep(data, [offset]), align=self.size)
        return self.splat(number)

    def splat(self, number: Value) -> Value:
        """A vector whose lanes are all ``number``."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.tile.lanes), None)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def constant(self, number: Fraction) -> Value:
        """A vector whose lanes are all this number, rounded to the tile's dtype."""
        element = self.vector.element
        return ir.Constant(self.vector, [element(float(number))] * self.tile.lanes)

    def mask(self, count: Value, vector: int) -> Value:
        """Which lanes of vector ``vector`` of a row lie among the row's first ``count`` columns."""
        lanes, i32 = self.tile.lanes, ir.IntType(32)
        kind = ir.VectorType(i32, lanes)
        columns = ir.Constant(kind, [i32(vector * lanes + lane) for lane in range(lanes)])
        count = self.builder.trunc(count, i32)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), count, i32(0))
        zeros = ir.Constant(kind, None)
        limit = self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)
        return self.builder.icmp_signed("<", columns, limit)

    def _call_masked(self, name: str, result: ir.Type, arguments: Values) -> Value:
        """Call LLVM's masked load or store for a vector of the tile."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        dtype = "f32" if self.size == 4 else "f64"
        function = cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.masked.{name}.v{self.tile.lanes}{dtype}.p0"
        )
        return self.builder.call(function, arguments)

    def masked_load(self, data: Value, offset: Value, mask: Value) -> Value:
        """The vector at ``data[offset]``; lanes outside the mask are 0, and are not read."""
        pointer = self.vector_pointer(data, offset)
        nothing = ir.Constant(self.vector, None)
        return self._call_masked(
            "load", self.vector, [pointer, ir.IntType(32)(self.size), mask, nothing]
        )

    def masked_store(self, value: Value, data: Value, offset: Value, mask: Value) -> None:
        """Write the lanes of the mask to ``data[offset]``."""
        pointer = self.vector_pointer(data, offset)
        self._call_masked("store", ir.VoidType(), [value, pointer, ir.IntType(32)(self.size), mask])

    def store_columns(
        self, rows: list[Values], data: Value, offsets: Values, columns: Value
    ) -> None:
        """Store the first ``columns`` numbers of each row at its offset, less than a whole row.

        Uses masks where the processor has registers for them. Elsewhere a vector that is not full
        is stored in halves, fourths and so on, because AVX2's masked store is microcode on some
        processors, and SSE2 has none (docs/measurements.md, "Partial vectors are stored in
        pieces").
        """
        lanes = self.tile.lanes
        if host_registers().isa == "avx512":
            for v in range(self.tile.vectors):
                mask = self.mask(columns, v)
                for row, offset in zip(rows, offsets, strict=True):
                    self.masked_store(row[v], data, self.offset(offset, v), mask)
            return
        for v in range(self.tile.vectors):
            vectors = [row[v] for row in rows]
            starts = [self.offset(offset, v) for offset in offsets]
            columns_left = self.builder.sub(columns, WORD(v * lanes))
            full = self.builder.icmp_signed(">=", columns_left, WORD(lanes))
            with self.builder.if_else(full) as (whole, partial):
                with whole:
                    for vector, start in zip(vectors, starts, strict=True):
                        self.store(vector, data, start)
                with partial:
                    any_left = self.builder.icmp_signed(">", columns_left, WORD(0))
                    with self.builder.if_then(any_left):
                        self._store_halves(vectors, data, starts, columns_left)

    def _store_halves(self, vectors: Values, data: Value, offsets: Values, left: Value) -> None:
        """Store the first ``left`` numbers of each vector in halves, fourths and so on."""
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
            is_stored = builder.icmp_signed("!=", builder.and_(left, WORD(size)), WORD(0))
            with builder.if_then(is_stored):
                for vector, offset in zip(lower, offsets, strict=True):
                    pointer = builder.bitcast(builder.gep(data, [offset]), ir.PointerType(kind))
                    builder.store(vector, pointer, align=self.size)
                upper = [builder.shuffle_vector(vector, vector, high) for vector in vectors]
                after = [self.add(offset, WORD(size)) for offset in offsets]
                stored = builder.block
            # If this half is stored, the numbers that are left lie in the other half.
            pairs = zip([*lower, *offsets], [*upper, *after], strict=True)
            merged = []
            for same, other in pairs:
                merged.append(builder.phi(same.type))
                merged[-1].add_incoming(same, before)
                merged[-1].add_incoming(other, stored)
            vectors, offsets = merged[: len(vectors)], merged[len(vectors) :]

    def row(self, data: Value, start: Value, columns: Value | None) -> Values:
        """The vectors of a tile's row at ``data[start]``: ``columns`` numbers, or all for None."""
        vectors = range(self.tile.vectors)
        if columns is None:
            return [self.load(data, self.offset(start, v)) for v in vectors]
        return [
            self.masked_load(data, self.offset(start, v), self.mask(columns, v)) for v in vectors
        ]

    def row_or_zeros(self, data: Value, start: Value, columns: Value, inside: Value) -> Values:
        """:meth:`row` if ``inside``, else zeros; then no number of ``data`` is read."""
        kind = ir.ArrayType(self.vector.element, self.tile.vectors * self.tile.lanes)
        zeros = cgutils.global_constant(self.builder.module, "zeros", ir.Constant(kind, None))
        zeros = self.builder.bitcast(zeros, data.type)
        source = self.builder.select(inside, self.builder.gep(data, [start]), zeros)
        return self.row(source, WORD(0), columns)

    def all_inside(self, count: int, columns: Value, low: Value, high: Value) -> Value:
        """Whether ``range(count)`` lies from ``low`` to ``high``, and the columns fill the tile."""
        full = self.builder.icmp_signed("==", columns, WORD(self.tile.vectors * self.tile.lanes))
        from_first = self.builder.icmp_signed("<=", low, WORD(0))
        to_last = self.builder.icmp_signed(">=", high, WORD(count))
        return self.builder.and_(full, self.builder.and_(from_first, to_last))

    def inside(self, index: int, low: Value, high: Value) -> Value:
        """Whether ``low <= index < high``."""
        above = self.builder.icmp_signed("<=", low, WORD(index))
        below = self.builder.icmp_signed(">", high, WORD(index))
        return self.builder.and_(above, below)

    def either(self, condition: Value, value_of: Callable[[bool], Value]) -> Value:
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

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, in one instruction if the processor has it."""
        if host_registers().isa in ("sse2", "baseline"):
            # Without the instruction, llvm.fma would call a function for each lane.
            return self.builder.fadd(self.builder.fmul(a, b), c)
        dtype = "f32" if self.size == 4 else "f64"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        function = cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.fma.v{self.tile.lanes}{dtype}"
        )
        return self.builder.call(function, [a, b, c])

    def pack(self, vectors: Values) -> Value:
        """A tile from its vectors, row after row."""
        fields = ir.LiteralStructType([self.vector] * len(vectors))
        struct = ir.Constant(fields, ir.Undefined)
        for i, vector in enumerate(vectors):
            struct = self.builder.insert_value(struct, vector, i)
        return struct

    def unpack(self, struct: Value) -> Values:
        """The vectors of a tile, row after row."""
        count = self.tile.rows * self.tile.vectors
        return [self.builder.extract_value(struct, i) for i in range(count)]

    def rows_of(self, vectors: Values) -> list[Values]:
        """A tile's vectors by rows."""
        step = self.tile.vectors
        return [vectors[first : first + step] for first in range(0, len(vectors), step)]

    def row_offsets(self, rows: Value) -> Values:
        """The offsets of a tile's rows."""
        return [self.builder.extract_value(rows, m) for m in range(self.tile.rows)]
