"""The decorators of kernels.

``kernel`` is for functions that Python calls, ``ordered_kernel`` where parentheses matter. The
flags, and ``device`` for what kernels call, are in :mod:`fastcnn.engine.numba.runtime.inlining`:
that is compiled into them, so it needs no cache entry of its own. Compiled kernels are kept on the
disk by :mod:`fastcnn.engine.numba.runtime.kernel_cache`.

**Fork.** A fork waits until no other thread compiles or asks LLVM anything: their locks, held by a
thread that the child does not have, would never open there. Both let the same thread in again, so a
signal handler that forks does not wait for the code that it interrupted. It does not wait for ever
either: it may have interrupted LLVM where another thread, with the compiler's lock, waits for LLVM.
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
from fastcnn.engine.numba.runtime.inlining import FLAGS, ORDERED, Function, Liberties, inlined
from fastcnn.engine.numba.runtime.kernel_cache import KernelCache
from fastcnn.engine.numba.runtime.pipeline import KernelCompiler, llvm_lock


def kernel(function: Function) -> Function:
    """Compile a function of a range, ``function(start, stop, *arguments)``, for the thread driver.

    It takes two arguments more, in front: the ``board`` from which others take pieces of the range,
    and how many ``pieces`` there may be; see :mod:`fastcnn.engine.numba.runtime.jobs`.
    """
    return _launched(function, FLAGS)


def ordered_kernel(function: Function) -> Function:
    """As :func:`kernel`, but sums are taken in the order that is written, each step rounded.

    For kernels whose parentheses keep digits, where ``reassoc`` would lose them: of
    ``(x - largest) - log_total`` it makes ``x - (largest + log_total)``. And for those that round
    as NumPy does, where ``contract`` would make one step of a product and a sum.
    """
    return _launched(function, ORDERED)


def compiled(function: Function) -> Function:
    """Compile a function of any form on its first call with each combination of types."""
    return cast(Function, _cached(function, FLAGS))


def fused(function: Function) -> Function:
    """As :func:`compiled`, with fused multiply-adds and no other algebra on numbers.

    For a probe of the hardware, whose chain of multiply-adds must not be made shorter.
    """
    return cast(Function, _cached(function, {**FLAGS, "fastmath": Liberties(["contract"])}))


# Written out for each kernel: of ``*arguments`` Numba makes one argument, a tuple, but a caller
# that knows a kernel by its address hands over each argument by itself.
_LAUNCH = """
def with_launch(kernel):
    def run(_board, _pieces, {parameters}):
        launch(_board, _pieces, start, stop, kernel, ({arguments},))
    return run
"""


def _launched(function: Function, flags: dict[str, Any]) -> Function:
    parameters = list(signature(function).parameters)
    if parameters[:2] != ["start", "stop"]:
        raise TypeError(f"a kernel's first parameters must be start and stop, got {function!r}")
    source = _LAUNCH.format(parameters=", ".join(parameters), arguments=", ".join(parameters[2:]))
    scope: dict[str, Any] = {"__name__": __name__, "launch": launch}
    # Under a name of its own: with the name of a file, tracebacks and Numba would show lines of
    # that file.
    exec(compile(source, f"<launch of {function.__qualname__}>", "exec"), scope)
    run = scope["with_launch"](inlined(function, flags))
    run.__name__, run.__qualname__ = function.__name__, function.__qualname__
    run.__module__ = function.__module__
    return cast(Function, _cached(run, flags))


def _cached(function: Callable[..., Any], flags: dict[str, Any]) -> Any:
    dispatcher = numba.njit(pipeline_class=KernelCompiler, **flags)(function)
    if not config.DISABLE_JIT:
        folders = kernel_cache.cache_folders()
        if folders.read:
            dispatcher._cache = KernelCache(function, flags["fastmath"], folders)
        dispatcher.compile = partial(_compiled_undisturbed, dispatcher.compile)
    return dispatcher


def _compiled_undisturbed(compile: Callable[[Any], Any], signature: Any) -> Any:
    """Compile, or load from the cache, where no signal handler comes between.

    A thread that has a lock of the compiler already would wait for the other thread for ever.
    """
    if global_compiler_lock.is_locked() or llvm_lock._is_owned():
        return compile(signature)
    return undisturbed(compile, signature)


_FORK_PATIENCE = 60.0  # seconds; many times what a kernel takes


class _Forks(threading.local):
    """The locks that this thread's forks hold; a list for each, because a handler may fork too."""

    def __init__(self) -> None:
        self.held: list[list[Any]] = []


_forks = _Forks()


def _before_fork() -> None:
    held: list[Any] = []
    _forks.held.append(held)
    # The first is what an import has, which may wait for the others.
    for lock in (importing, global_compiler_lock._lock, llvm_lock):
        if lock.acquire(timeout=_FORK_PATIENCE):
            held.append(lock)


def _after_fork() -> None:
    for lock in reversed(_forks.held.pop()):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
