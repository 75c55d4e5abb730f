"""Rehearsals: a computation is gone through to see which kernels it needs, and none of them runs.

So they can be compiled before the first of them is needed, several at once, and for other batch
sizes than the first (:mod:`fastcnn.engine.numba.runtime.compile_ahead`). In a rehearsal new memory
holds zeros, because nothing else is written to it: what Python reads of a result is then finite.

A rehearsal holds in the thread that began it. Whatever keeps addresses of kernels must not keep
those of a rehearsal, which are 0: see :func:`rehearsing`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np

active: list[object] = []
"""A mark for each rehearsal of all threads. Hot paths look here first: it costs next to nothing.

A list, because ``append`` and ``remove`` are one step for the interpreter. A counter would need a
lock, and a finalizer that rehearses while its thread has the lock would wait for itself.
"""

_local = threading.local()


class Request(NamedTuple):
    """A kernel, and the types of arguments that it must be compiled for."""

    kernel: Any
    signature: tuple[Any, ...]


@contextmanager
def rehearsal() -> Iterator[dict[object, Request]]:
    """Within this context the calling thread runs no kernel; they are listed in their order."""
    requests: dict[object, Request] = {}
    before, mark = getattr(_local, "requests", None), object()
    try:
        active.append(mark)
        _local.requests = requests
        yield requests
    finally:
        _local.requests = before
        with suppress(ValueError):  # an error came before the mark was there
            active.remove(mark)


def rehearsing() -> bool:
    """Whether this thread rehearses."""
    return bool(active) and getattr(_local, "requests", None) is not None


def requested(kernel: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether this thread rehearses; then the kernel is listed, for arguments of these types."""
    if not rehearsing():
        return False
    key = id(kernel), tuple(map(_kind, arguments))
    if key not in _local.requests:
        signature = tuple(map(kernel.typeof_pyval, arguments))
        _local.requests[key] = Request(kernel, signature)
    return True


def _kind(argument: object) -> object:
    """What tells the types of kernels' arguments apart, in a hundredth of Numba's time.

    Their arrays are C-contiguous and writable, and the fields of their records are integers.
    """
    if isinstance(argument, np.ndarray):
        return argument.dtype.names or argument.dtype.char, argument.ndim
    return type(argument)


def unless_rehearsed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a cached function compute anew in rehearsals, because its results hold addresses."""

    def call(*arguments: Any) -> Any:
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
