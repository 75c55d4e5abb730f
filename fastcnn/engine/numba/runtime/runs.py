"""Intrinsics that copy and zero runs of neighbouring numbers, by the C library's functions.

Kernels call them to lay out images and to clear results. Arrays are one-dimensional and offsets
count elements. Callers check the bounds.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.intrinsics import or_in_python
from fastcnn.engine.numba.runtime.types import (
    ArrayType,
    Builder,
    Context,
    IntType,
    Lowering,
    Signature,
    TypingContext,
    Value,
    Values,
)

_WORD = ir.IntType(64)


def _itemsize(context: Context, array: ArrayType) -> int:
    """Bytes of an element."""
    size: int = context.get_abi_sizeof(context.get_data_type(array.dtype))
    return size


def _plain_copy(target: Array, i: int, source: Array, j: int, count: int) -> None:
    target[i : i + count] = source[j : j + count]


@or_in_python(_plain_copy)
def copy_run(
    typing_context: TypingContext,
    target: ArrayType,
    i: IntType,
    source: ArrayType,
    j: IntType,
    count: IntType,
) -> Lowering:
    """``target[i : i + count] = source[j : j + count]``, by memcpy."""

    def generate(context: Context, builder: Builder, _: Signature, arguments: Values) -> Value:
        pointers = [
            builder.gep(context.make_array(kind)(context, builder, array).data, [offset])
            for kind, array, offset in (
                (target, arguments[0], arguments[1]),
                (source, arguments[2], arguments[3]),
            )
        ]
        size = _itemsize(context, target)
        cgutils.raw_memcpy(builder, *pointers, arguments[4], size, align=size)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate


def _plain_zero(target: Array, i: int, count: int) -> None:
    target[i : i + count] = 0


@or_in_python(_plain_zero)
def zero_run(
    typing_context: TypingContext, target: ArrayType, i: IntType, count: IntType
) -> Lowering:
    """``target[i : i + count] = 0``, by memset."""

    def generate(context: Context, builder: Builder, _: Signature, arguments: Values) -> Value:
        data = context.make_array(target)(context, builder, arguments[0]).data
        size = builder.mul(arguments[2], _WORD(_itemsize(context, target)))
        cgutils.memset(builder, builder.gep(data, [arguments[1]]), size, 0)
        return context.get_dummy_value()

    return types.void(target, types.int64, types.int64), generate
