"""The flags that all code is compiled with, and how code is made that kernels call.

**Flags.** ``nogil``: the thread driver runs kernels on Python threads. ``error_model="numpy"``:
no test for division by zero in loops. ``_nrt`` off: kernels allocate nothing, so no references to
arrays are counted (in loops that branch a kernel spent more time on that than on its sums). No
C function is made of any, nor one that Python calls of what is compiled into others: nobody asks
for them. Of the fast-math flags, those that keep NaN and infinity what they are: with the full set
``isnan`` is false on NaN, with these it is not, and loops still vectorise. Not ``arcp``: a product
with a rounded reciprocal is not the quotient, and means of integers must be exact. No
``parallel``: it triples the time to compile, and one thread driver is enough.

A function that is compiled into others is not optimised by itself, nor made machine code of
(:mod:`fastcnn.engine.numba.runtime.pipeline`): its kernel does both, with all parts in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numba

from fastcnn.engine.numba.runtime.pipeline import PartCompiler

Function = TypeVar("Function", bound=Callable[..., Any])


class Liberties(set[str]):
    """Fast-math flags in one order, since Numba writes them into symbols as they are shown."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))

    def __repr__(self) -> str:
        return f"{{{', '.join(self)}}}"


FLAGS: dict[str, Any] = {
    "nogil": True,
    "_nrt": False,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": Liberties(["nsz", "contract", "afn", "reassoc"]),
}
ORDERED = {**FLAGS, "fastmath": Liberties(["nsz", "afn"])}


def inlined(function: Function, flags: dict[str, Any]) -> Function:
    """Compile ``function`` into the kernels that call it, with these flags."""
    part: Function = numba.njit(
        forceinline=True, no_cpython_wrapper=True, pipeline_class=PartCompiler, **flags
    )(function)
    return part


def device(function: Function) -> Function:
    """Compile ``function`` into the kernels that call it.

    Inlined always: a call that hands over a few arrays by their parts costs as much as the sums
    of a small tile.
    """
    return inlined(function, FLAGS)


def ordered_device(function: Function) -> Function:
    """As :func:`device`, for an :func:`fastcnn.engine.numba.runtime.jit.ordered_kernel`."""
    return inlined(function, ORDERED)
