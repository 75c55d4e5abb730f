"""Work that no signal handler can interrupt, because it runs in a thread of its own.

Python runs signal handlers in the main thread, between any two steps of its code. A handler may
raise an error (Ctrl-C, a time limit), compute or fork. An import and the compiler cannot bear such
an interruption: an interrupted import leaves incomplete modules, and LLVM ends the process when it
is called from within one of its own calls. Therefore they run in another thread, and the main
thread waits.
"""

from __future__ import annotations

# Before a fork, hooks run in the reverse order of their registration. The hook of ``logging`` takes
# a lock that an import may need. It must run after the hook of this module, or a fork and an import
# could wait for each other. Therefore ``logging`` is imported first.
import logging  # noqa: F401
import os
import sys
import threading
from _thread import allocate_lock, get_ident, start_new_thread
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from importlib import import_module
from types import ModuleType
from typing import TypeVar

Result = TypeVar("Result")

importing = threading.RLock()
"""Held while an engine is imported. A fork waits for it, because a child has one thread."""

_LOOK = 0.5  # seconds between checks whether this is a forked child, which has one thread


class Abandoned(BaseException):
    """Ends work whose caller does not wait any more; it never leaves this module."""


class _Work(threading.local):
    """The work of the current thread, if the thread was started by :func:`in_own_thread`."""

    abandoned: list[object] | None = None


_current = _Work()


def go_on() -> None:
    """End the current work by :class:`Abandoned` if its caller has been interrupted.

    Work calls this at points where its data is consistent.
    """
    if _current.abandoned:
        raise Abandoned


class NoThreadError(RuntimeError):
    """No thread can be started, or this is a forked child without the thread."""


def undisturbed(work: Callable[..., Result], *arguments: object) -> Result:
    """The result of ``work(*arguments)``, which runs in a thread of its own.

    If a signal handler raises an error meanwhile, the error is raised here as soon as ``work`` ends
    or reaches :func:`go_on`, so no thread is left behind. Outside of the main thread ``work`` runs
    in the caller's thread, because signal handlers run in the main thread only. It also runs
    there if no thread can be started.

    >>> undisturbed(max, 1, 2)
    2
    """
    if get_ident() != threading.main_thread().ident:
        return work(*arguments)
    try:
        return in_own_thread(work, *arguments)
    except NoThreadError:
        return work(*arguments)


def in_own_thread(work: Callable[..., Result], *arguments: object) -> Result:
    """The result of ``work(*arguments)`` in a new thread, whichever thread calls.

    Raises :class:`NoThreadError` if there is no thread to do the work.
    """
    # A thread that is started while Python ends never runs.
    if sys.is_finalizing():
        raise NoThreadError("Python ends")
    results: list[Result] = []
    errors: list[BaseException] = []
    ended: list[object] = []
    abandoned: list[object] = []
    tickets: list[object] = [None]  # the thread takes it to begin, the caller to cancel the work
    bell = allocate_lock()
    bell.acquire()
    context, process = copy_context(), os.getpid()  # the work runs under the caller's settings

    def target() -> None:
        _current.abandoned = abandoned
        try:
            tickets.pop()
            results.append(context.run(work, *arguments))
        except BaseException as error:
            errors.append(error)
        finally:
            ended.append(None)
            bell.release()

    def wait() -> None:
        while not ended and os.getpid() == process:
            bell.acquire(timeout=_LOOK)

    try:
        try:
            start_new_thread(target, ())
        except (RuntimeError, MemoryError):
            raise NoThreadError("no thread can be started") from None
        wait()
    except BaseException:
        abandoned.append(None)
        while True:  # until the thread has ended, however often the handler raises
            with suppress(BaseException):
                tickets.pop()
                break  # the work has not begun, and never will
            with suppress(BaseException):
                wait()
                break
        raise
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # an error refers to this frame, and this frame to the error
    if not ended:
        raise NoThreadError("a forked child has one thread")
    return results[0]


def undisturbed_import(module: str) -> ModuleType:
    """Import a module without interruption, because an interrupted import cannot be repaired.

    >>> undisturbed_import("math").floor(1.5)
    1
    """

    def work() -> ModuleType:
        with importing:
            return import_module(module)

    return undisturbed(work)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=importing.acquire,
        after_in_parent=importing.release,
        after_in_child=importing.release,
    )
