"""The type of a register tile, for Numba and for LLVM.

A **register tile** is a block of ``rows × vectors`` SIMD registers of ``lanes`` numbers each. It is
one LLVM value, so it stays in registers from the first step to the store, as long as it stays
inside one serial function. The sides of a tile are literals, because the compiler unrolls over
them.

The offsets of its rows are a value too. They say where each row reads and writes, so that one
micro-kernel serves convolution in all its forms (the idea of M. Dukhan, "The Indirect Convolution
Algorithm", arXiv:1907.02129).

With ``NUMBA_DISABLE_JIT=1`` a tile is an array of shape (rows, vectors * lanes).
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import DataModelManager, models
from numba.extending import register_model

from fastcnn.engine.numba.runtime.types import ArrayType, LiteralType

WORD = ir.IntType(64)


class TileType(types.Type):
    """Numba's type of a register tile: ``rows`` × ``vectors`` registers of ``lanes`` numbers.

    Its LLVM value is a struct of ``rows * vectors`` vectors, row after row.
    """

    def __init__(self, rows: int, vectors: int, lanes: int, dtype: types.Type) -> None:
        self.rows, self.vectors, self.lanes, self.dtype = rows, vectors, lanes, dtype
        super().__init__(name=f"Tile({rows}x{vectors}x{lanes}, {dtype})")


class RowsType(types.Type):
    """Numba's type of the offsets of a tile's rows: an LLVM struct of ``rows`` int64 values."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(name=f"Rows({rows})")


@register_model(TileType)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: DataModelManager, kind: TileType) -> None:
        vector = vector_type(kind)
        fields = [vector] * (kind.rows * kind.vectors)
        super().__init__(manager, kind, ir.LiteralStructType(fields))


@register_model(RowsType)
class _RowsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: DataModelManager, kind: RowsType) -> None:
        super().__init__(manager, kind, ir.LiteralStructType([WORD] * kind.rows))


def float_type(dtype: types.Type) -> ir.Type:
    """LLVM's type of a number of this dtype, float32 or float64."""
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def vector_type(kind: TileType) -> ir.VectorType:
    """LLVM's type of a vector of the tile."""
    return ir.VectorType(float_type(kind.dtype), kind.lanes)


def item_size(dtype: types.Type) -> int:
    """Bytes of a number of this dtype, float32 or float64."""
    return 4 if dtype == types.float32 else 8


def tile_type(
    rows: LiteralType, vectors: LiteralType, lanes: LiteralType, array: ArrayType
) -> TileType:
    """The type of a tile from its sides as literals, with the dtype of an array."""
    return TileType(rows.literal_value, vectors.literal_value, lanes.literal_value, array.dtype)
