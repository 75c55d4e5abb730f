"""The flags that all kernels are compiled with, and the decorators of functions that kernels call.

- ``nogil``: the thread driver runs kernels on Python threads.
- ``error_model="numpy"``: loops do not test for division by zero.
- ``_nrt`` off: kernels allocate nothing, so they need not count references to arrays, which takes
  longer than the sums in a loop with branches.
- ``no_cfunc_wrapper`` and ``no_cpython_wrapper``: no entry is compiled that nothing calls.
- ``fastmath``: the flags that keep NaN and infinity. With the full set ``isnan`` is false on NaN;
  with these it is right, and loops are still compiled to vectors. ``arcp`` is off, because a
  product with a rounded reciprocal is not the quotient, and means of integers must be exact.
- ``parallel`` is off, because it triples the time to compile, and there is a thread driver.

A function that kernels call is always inlined. It is not optimised and gets no machine code of its
own (:mod:`fastcnn.engine.numba.runtime.pipeline`), because LLVM optimises the kernel with all of
its functions in place. The decorators run when a kernel's module is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import numba

from fastcnn.engine.numba.runtime.pipeline import InlinedCompiler

Function = TypeVar("Function", bound=Callable[..., Any])


class Liberties(set[str]):
    """Fast-math flags in one order, because Numba writes their text into symbols."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))

    def __repr__(self) -> str:
        return f"{{{', '.join(self)}}}"


Flags: TypeAlias = dict[str, Any]
"""Arguments of ``numba.njit``."""

FLAGS: Flags = {
    "nogil": True,
    "_nrt": False,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": Liberties(["nsz", "contract", "afn", "reassoc"]),
}
ORDERED = {**FLAGS, "fastmath": Liberties(["nsz", "afn"])}


def inlined(function: Function, flags: Flags) -> Function:
    """Compile ``function`` into the kernels that call it, with these flags."""
    dispatcher: Function = numba.njit(
        forceinline=True, no_cpython_wrapper=True, pipeline_class=InlinedCompiler, **flags
    )(function)
    return dispatcher


def device(function: Function) -> Function:
    """Compile ``function`` into the kernels that call it.

    It is always inlined, because a call that passes a few arrays takes as long as the sums of a
    small tile.
    """
    return inlined(function, FLAGS)


def ordered_device(function: Function) -> Function:
    """As :func:`device`, for an :func:`fastcnn.engine.numba.runtime.jit.ordered_kernel`."""
    return inlined(function, ORDERED)
