"""What bound calls of the compiled engine are made of (:mod:`fastcnn.ops.bound_calls`).

A bound call gets arrays that are C-contiguous, aligned and writable, of the geometry and the dtype
that it was bound for. It makes its result and launches its kernel with as few steps as possible,
because each step in Python costs as much as a small kernel.

Functions from this module do not look whether there is a rehearsal. Therefore the beginning of a
rehearsal forgets all bound calls, and what is made while there is one does look.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, TypeVar

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import arrays, memory, rehearsal, threads
from fastcnn.engine.numba.runtime.calls import NO_BOARD
from fastcnn.engine.numba.runtime.types import Kernel

Operation = TypeVar("Operation", bound=Callable[..., Any])


def bound_by(bind: Callable[..., Callable[..., Any]]) -> Callable[[Operation], Operation]:
    """A decorator that gives an engine's function its attribute ``bind``.

    ``bind(geometry, dtype, *parameters)`` returns the bound call, as
    :func:`fastcnn.engine.registry.bind` says. The decorator returns the function itself.
    """

    def with_bind(function: Operation) -> Operation:
        vars(function)["bind"] = bind
        return function

    return with_bind


def launcher(kernel: Kernel, count: int, work: int) -> Callable[..., None]:
    """A function of the kernel's arguments that runs it over ``range(count)``.

    It does what :func:`.threads.parallel_for` does. Work for one thread skips all that is there for
    several.
    """
    if rehearsal.active or threads.most_tasks(count, work) > 1:
        return partial(threads.parallel_for, kernel, count, work)
    return partial(kernel, NO_BOARD, 1, 0, count)


def allocator(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Callable[[], Array]:
    """A function that makes a new array of this shape and dtype, as :data:`.arrays.allocate`."""
    small = prod(shape) * dtype.itemsize < memory.SMALL
    if small and not rehearsal.active and arrays.allocate is memory.empty:
        return partial(np.empty, shape, dtype)
    return lambda: arrays.allocate(shape, dtype)


def zeros(count: int, dtype: np.dtype[Any]) -> Array:
    """The bias of a call without one, which its kernel only reads."""
    result = arrays.allocate((count,), dtype)
    result[...] = 0
    return result
