"""Runs of neighbouring numbers, copied and zeroed at the speed of the memory.

Arrays are one-dimensional and offsets count elements. Nothing checks bounds; callers do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from fastcnn.engine.numba.runtime.intrinsics import or_in_python

_WORD = ir.IntType(64)


def _plain_copy(target: Any, i: int, source: Any, j: int, count: int) -> None:
    target[i : i + count] = source[j : j + count]


@or_in_python(_plain_copy)
def copy_run(typing_context: Any, target: Any, i: Any, source: Any, j: Any, count: Any) -> Any:
    """``target[i : i + count] = source[j : j + count]``, by memcpy."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointers = [
            builder.gep(context.make_array(kind)(context, builder, array).data, [place])
            for kind, array, place in (
                (target, arguments[0], arguments[1]),
                (source, arguments[2], arguments[3]),
            )
        ]
        size = target.dtype.bitwidth // 8
        cgutils.raw_memcpy(builder, *pointers, arguments[4], size, align=size)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate


def _plain_zero(target: Any, i: int, count: int) -> None:
    target[i : i + count] = 0


@or_in_python(_plain_zero)
def zero_run(typing_context: Any, target: Any, i: Any, count: Any) -> Any:
    """``target[i : i + count] = 0``, by memset."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(target)(context, builder, arguments[0]).data
        size = builder.mul(arguments[2], _WORD(target.dtype.bitwidth // 8))
        cgutils.memset(builder, builder.gep(data, [arguments[1]]), size, 0)
        return context.get_dummy_value()

    return types.void(target, types.int64, types.int64), generate
