"""Rehearsals: the Python code of a computation runs, and lists the kernels instead of running them.

Then the kernels can be compiled before they are needed, several at once, and for other batch sizes
than the first (:mod:`fastcnn.engine.numba.runtime.compile_ahead`). New memory holds zeros in a
rehearsal, because no kernel writes to it, and what Python reads of a result should be finite.

A rehearsal holds in the thread that began it. The addresses of kernels are 0 in a rehearsal, so a
cache of addresses must not keep them: see :func:`rehearsing` and :func:`unless_rehearsed`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.settings import forget_choices
from fastcnn.engine.numba.runtime.types import Kernel, Types

active: list[object] = []
"""A mark for each rehearsal of all threads, so that calls outside of rehearsals cost one look.

It is a list, because ``append`` and ``remove`` are one step for the interpreter. A counter would
need a lock, and a finalizer that rehearses while its thread has the lock would wait for itself.
"""

_local = threading.local()


class Request(NamedTuple):
    """A kernel, and the types of arguments that it must be compiled for."""

    kernel: Kernel
    signature: Types


@contextmanager
def rehearsal() -> Iterator[dict[object, Request]]:
    """Within this context the calling thread lists its kernels, in their order; none runs."""
    requests: dict[object, Request] = {}
    before, mark = getattr(_local, "requests", None), object()
    try:
        active.append(mark)
        forget_choices()  # bound calls of before do not look whether there is a rehearsal
        _local.requests = requests
        yield requests
    finally:
        _local.requests = before
        with suppress(ValueError):  # an error came before the mark was in the list
            active.remove(mark)
        forget_choices()  # bound calls look, which costs time


def rehearsing() -> bool:
    """Whether this thread rehearses."""
    return bool(active) and getattr(_local, "requests", None) is not None


def list_kernel(kernel: Kernel, arguments: tuple[object, ...]) -> bool:
    """List the kernel for arguments of these types if this thread rehearses; return whether."""
    if not rehearsing():
        return False
    key = id(kernel), tuple(map(_kind, arguments))
    if key not in _local.requests:
        signature = tuple(map(kernel.typeof_pyval, arguments))
        _local.requests[key] = Request(kernel, signature)
    return True


def _kind(argument: object) -> object:
    """A key of the type of a kernel's argument, made in much less time than Numba's type.

    Dtype and axes are enough, because arrays are C-contiguous and writable. The names of a record's
    fields are enough, because a name has one dtype in all records.
    """
    if isinstance(argument, np.ndarray):
        return argument.dtype.names or argument.dtype.char, argument.ndim
    return type(argument)


def unless_rehearsed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a cached function bypass its cache in rehearsals, because its results hold addresses."""

    def call(*arguments: object) -> Any:
        if rehearsing():
            return function.__wrapped__(*arguments)  # type: ignore[attr-defined]
        return function(*arguments)

    return call


def _after_fork() -> None:
    global _local
    _local = threading.local()
    active.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
