"""Intrinsics: functions of compiled code that are written as LLVM instructions.

When a kernel is compiled, Numba calls an intrinsic with the types of the arguments. The intrinsic
returns its signature and a function ``generate``, which appends LLVM instructions to the kernel.
So a parameter is a type in the intrinsic, and the value of the same position in ``generate``
(:mod:`fastcnn.engine.numba.runtime.types`). An intrinsic has a parameter for each argument of the
call, which can be more than ten, because a record of arguments would not stay in registers.

With ``NUMBA_DISABLE_JIT=1`` a plain function on NumPy runs instead, so that kernels run in a
debugger; its multiply-adds round twice. Intrinsics stand in :mod:`fastcnn.engine.numba.tiles`, for
register tiles, and in ``atomics``, ``floats``, ``runs`` and ``calls`` of this room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import config
from numba.extending import intrinsic

from fastcnn.engine.numba.runtime.types import Lowering


def or_in_python(plain: Callable[..., Any]) -> Callable[[Callable[..., Lowering]], Any]:
    """Pair an intrinsic with the NumPy function that does the same when compiling is off."""

    def choose(compiled: Callable[..., Lowering]) -> Any:
        if config.DISABLE_JIT:
            return plain
        return intrinsic(prefer_literal=True)(compiled)

    return choose
