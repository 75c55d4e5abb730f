"""The decorators of kernels, which run when a kernel's module is imported.

``kernel`` is for functions that the thread driver runs, ``ordered_kernel`` for those in which the
order of additions matters, ``wide_kernel`` for those that also compute much for each number,
``compiled`` for the others that Python calls. They compile a function
at its first call with each combination of types, or read it from the disk
(:mod:`fastcnn.engine.numba.runtime.kernel_cache`). The flags are in
:mod:`fastcnn.engine.numba.runtime.inlining`, with ``device``, the decorator of functions that
kernels call: these become part of their kernels, and need no entry in the cache.

**Fork.** A fork waits until no other thread compiles or is in LLVM, because the child does not have
that thread, and would wait for its locks for ever. The locks let the same thread in again, so a
signal handler that forks does not wait for the code that it interrupted. The wait has a limit,
because a handler may have interrupted LLVM while another thread, which has the compiler's lock,
waits for LLVM.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, cast

import numba
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock

from fastcnn.core.undisturbed import importing, undisturbed
from fastcnn.engine.numba.runtime import kernel_cache
from fastcnn.engine.numba.runtime.calls import launch
from fastcnn.engine.numba.runtime.inlining import FLAGS, ORDERED, Flags, Liberties, inlined
from fastcnn.engine.numba.runtime.kernel_cache import KernelCache
from fastcnn.engine.numba.runtime.pipeline import KernelCompiler, llvm_lock
from fastcnn.engine.numba.runtime.types import Kernel, Types


def kernel(function: Callable[..., None]) -> Kernel:
    """Compile a function of a range, ``function(start, stop, *arguments)``, for the thread driver.

    The kernel takes two more arguments, in front: the ``board`` from which other threads take tasks
    of the range, and the largest number of ``tasks``; see
    :mod:`fastcnn.engine.numba.runtime.jobs`.
    """
    return _launched(function, FLAGS)


def ordered_kernel(function: Callable[..., None]) -> Kernel:
    """As :func:`kernel`, but sums are taken in the order that is written, each step rounded.

    It is for kernels whose parentheses keep digits: the flag ``reassoc`` would turn
    ``(x - largest) - log_total`` into ``x - (largest + log_total)``. It is also for kernels that
    round as NumPy does: the flag ``contract`` would turn a product and a sum into one step.
    """
    return _launched(function, ORDERED)


def wide_kernel(function: Callable[..., None]) -> Kernel:
    """As :func:`ordered_kernel`, with loops over the widest vectors of the processor.

    On many processors with AVX-512, LLVM takes vectors of half the width by default. This decorator
    is for loops that compute so much for each number that arithmetic takes longer than memory
    (docs/measurements.md, "Loops of much arithmetic take the widest vectors").
    """
    return _launched(function, ORDERED, wide=True)


def compiled(function: Callable[..., Any]) -> Kernel:
    """Compile a function of any form at its first call with each combination of types."""
    return _cached(function, FLAGS)


def fused_multiply_add(function: Callable[..., Any]) -> Kernel:
    """As :func:`compiled`, with fused multiply-adds and no other algebra on numbers.

    It is for a probe of the hardware, whose chain of multiply-adds the compiler must not shorten.
    """
    return _cached(function, {**FLAGS, "fastmath": Liberties(["contract"])})


# The parameters are written out for each kernel, because Numba would turn ``*arguments`` into one
# argument, a tuple, but a caller by address passes each argument by itself.
_LAUNCH = """
def with_launch(kernel):
    def run(_board, _tasks, {parameters}):
        launch(_board, _tasks, start, stop, kernel, ({arguments},), {wide})
    return run
"""


def _launched(function: Callable[..., None], flags: Flags, wide: bool = False) -> Kernel:
    """A kernel that runs ``function`` over its range, or shares the range out over threads."""
    parameters = list(signature(function).parameters)
    if parameters[:2] != ["start", "stop"]:
        raise TypeError(f"a kernel's first parameters must be start and stop, got {function!r}")
    arguments = ", ".join(parameters[2:])
    source = _LAUNCH.format(parameters=", ".join(parameters), arguments=arguments, wide=wide)
    scope: dict[str, Any] = {"__name__": __name__, "launch": launch}
    # The code has a name of its own, because tracebacks and Numba would show lines of a file.
    exec(compile(source, f"<launch of {function.__qualname__}>", "exec"), scope)
    run = scope["with_launch"](inlined(function, flags))
    run.__name__, run.__qualname__ = function.__name__, function.__qualname__
    run.__module__ = function.__module__
    return _cached(run, flags)


def _cached(function: Callable[..., Any], flags: Flags) -> Kernel:
    """Numba's dispatcher of a function, which keeps compiled code in our cache."""
    dispatcher = numba.njit(pipeline_class=KernelCompiler, **flags)(function)
    if not config.DISABLE_JIT:
        folders = kernel_cache.cache_folders()
        if folders.read:
            dispatcher._cache = KernelCache(function, flags["fastmath"], folders)
        dispatcher.compile = partial(_compiled_undisturbed, dispatcher.compile)
    return cast(Kernel, dispatcher)


def _compiled_undisturbed(compile: Callable[[Types], Any], signature: Types) -> Any:
    """Compile, or load from the cache, in a thread that no signal handler interrupts.

    A thread that has a lock of the compiler compiles itself, because the other thread would wait
    for the lock for ever.
    """
    if global_compiler_lock.is_locked() or llvm_lock._is_owned():
        return compile(signature)
    return undisturbed(compile, signature)


_FORK_PATIENCE = 60.0  # seconds, many times what a kernel takes to compile


class _Forks(threading.local):
    """The locks of this thread's forks: a list for each fork, because a handler may fork too."""

    def __init__(self) -> None:
        self.locks: list[list[Any]] = []


_forks = _Forks()


def _before_fork() -> None:
    acquired: list[Any] = []
    _forks.locks.append(acquired)
    # An import holds the first lock, and may wait for the others.
    for lock in (importing, global_compiler_lock._lock, llvm_lock):
        if lock.acquire(timeout=_FORK_PATIENCE):
            acquired.append(lock)


def _after_fork() -> None:
    for lock in reversed(_forks.locks.pop()):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
