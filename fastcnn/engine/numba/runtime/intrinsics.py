"""Intrinsics: functions of compiled code that are written as LLVM.

An intrinsic is a function of Numba's types. It returns a signature and ``generate``, which emits
LLVM when a kernel is compiled. With ``NUMBA_DISABLE_JIT=1`` a plain function on NumPy runs in its
place, so that kernels run in a debugger; there a multiply-add rounds twice.

LLVM is written in :mod:`fastcnn.engine.numba.tiles`, for register tiles, and in the modules
``atomics``, ``runs`` and ``calls`` beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import config
from numba.extending import intrinsic


def or_in_python(plain: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Pair an intrinsic with the NumPy function that does the same when compiling is off."""

    def choose(compiled: Callable[..., Any]) -> Any:
        if config.DISABLE_JIT:
            return plain
        return intrinsic(prefer_literal=True)(compiled)

    return choose
