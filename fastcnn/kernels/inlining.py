"""The flags that all code is compiled with, and how code is made that kernels call.

**Flags.** ``nogil``: the thread driver runs kernels on Python threads. ``error_model="numpy"``:
no test for division by zero in loops. ``_nrt`` off: kernels allocate nothing, so no references to
arrays are counted (in loops that branch a kernel spent more time on that than on its sums). No
C function is made of any, nor one that Python calls of what is compiled into others: nobody asks
for them. Of the fast-math flags, those that keep NaN and infinity what they are: with the full set
``isnan`` is false on NaN, with these it is not, and loops still vectorise. Not ``arcp``: a product
with a rounded reciprocal is not the quotient, and means of integers must be exact. No
``parallel``: it triples the time to compile, and one thread driver is enough.

What is compiled into others is not optimised by itself, nor made machine code of: its kernel does
both, with all parts in place. All kernels then take 54 s instead of 63.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

Function = TypeVar("Function", bound=Callable[..., Any])

FLAGS: dict[str, Any] = {
    "nogil": True,
    "_nrt": False,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": {"nsz", "contract", "afn", "reassoc"},
}
ORDERED = {**FLAGS, "fastmath": FLAGS["fastmath"] - {"reassoc", "contract"}}


class _NoMachineCode:
    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """Code that never runs by itself has no environment to run in."""


class _Part(JITCodeLibrary):  # type: ignore[misc]
    """Code that others are linked with, as it comes from Numba's own compiler, before LLVM's."""

    codegen = _NoMachineCode

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _PartCompiler(Compiler):  # type: ignore[misc]
    def __init__(self, typing_context: Any, target: Any, library: Any, *others: Any) -> None:
        super().__init__(typing_context, target, _Part(target.codegen(), "part"), *others)


def inlined(function: Function, flags: dict[str, Any]) -> Function:
    """Compile ``function`` into the kernels that call it, with these flags."""
    made: Function = numba.njit(
        forceinline=True, no_cpython_wrapper=True, pipeline_class=_PartCompiler, **flags
    )(function)
    return made


def device(function: Function) -> Function:
    """Compile ``function`` into the kernels that call it.

    Inlined always: a call that hands over a few arrays by their parts costs as much as the sums
    of a small tile.
    """
    return inlined(function, FLAGS)


def ordered_device(function: Function) -> Function:
    """As :func:`device`, for an :func:`fastcnn.kernels.jit.ordered_kernel`."""
    return inlined(function, ORDERED)
