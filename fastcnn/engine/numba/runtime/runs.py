"""Intrinsics that copy and zero runs of neighbouring numbers, by the C library's functions.

Kernels call them to lay out images and to clear results. Arrays are one-dimensional and offsets
count elements. Callers check the bounds.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import ArrayType, Context, IntType, Value

_WORD = ir.IntType(64)


def _itemsize(context: Context, array: ArrayType) -> int:
    """Bytes of an element."""
    size: int = context.get_abi_sizeof(context.get_data_type(array.dtype))
    return size


def _plain_copy(target: Array, i: int, source: Array, j: int, count: int) -> None:
    target[i : i + count] = source[j : j + count]


@intrinsic(_plain_copy)
def copy_run(
    target: ArrayType,
    i: IntType,
    source: ArrayType,
    j: IntType,
    count: IntType,
) -> Declaration:
    """``target[i : i + count] = source[j : j + count]``, by memcpy."""

    def generate(code: Code) -> Value:
        pointers = [
            code.builder.gep(code.data(kind, array), [offset])
            for kind, array, offset in (
                (target, code.arguments[0], code.arguments[1]),
                (source, code.arguments[2], code.arguments[3]),
            )
        ]
        size = _itemsize(code.context, target)
        cgutils.raw_memcpy(code.builder, *pointers, code.arguments[4], size, align=size)
        return code.nothing()

    return types.void(target, types.int64, source, types.int64, types.int64), generate


def _plain_zero(target: Array, i: int, count: int) -> None:
    target[i : i + count] = 0


@intrinsic(_plain_zero)
def zero_run(target: ArrayType, i: IntType, count: IntType) -> Declaration:
    """``target[i : i + count] = 0``, by memset."""

    def generate(code: Code) -> Value:
        builder = code.builder
        data = code.data(target, code.arguments[0])
        size = builder.mul(code.arguments[2], _WORD(_itemsize(code.context, target)))
        cgutils.memset(builder, builder.gep(data, [code.arguments[1]]), size, 0)
        return code.nothing()

    return types.void(target, types.int64, types.int64), generate
