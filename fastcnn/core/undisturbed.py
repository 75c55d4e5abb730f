"""Work that no signal handler comes between: it has a thread of its own.

Python runs signal handlers in the main thread, between any two steps of whatever runs there. A
handler may raise (Ctrl-C, a time limit), compute or fork. The import of a library and the compiler
do not bear that: an interrupted import leaves modules that lack a part, and LLVM ends the process
when it is called from inside of a call of its own. So they run elsewhere, and the main thread
waits.
"""

from __future__ import annotations

# Before a fork, hooks run in the reverse order of their registration. The one of ``logging`` takes
# a lock that an import may need, so it must come after the one here: else both wait for ever.
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
from typing import Any, TypeVar

Result = TypeVar("Result")

importing = threading.RLock()
"""Held while an engine is imported. A fork waits for it, because a child has one thread."""

_LOOK = 0.5  # seconds between looks whether this is a forked child, which has one thread


class Abandoned(BaseException):
    """Ends work for which nobody waits; it never leaves this module."""


class _Work(threading.local):
    """The work that the current thread does, if that is why there is the thread."""

    abandoned: list[object] | None = None


_current = _Work()


def go_on() -> None:
    """End this work by :class:`Abandoned` if its caller has been interrupted; it can wait for that.

    To be called where everything is as it should be.
    """
    if _current.abandoned:
        raise Abandoned


class NoThreadError(RuntimeError):
    """No thread can be started, or this is a forked child without it."""


def undisturbed(work: Callable[..., Result], *arguments: Any) -> Result:
    """The result of ``work(*arguments)``, which runs in a thread of its own.

    If a signal handler raises an error meanwhile, that error is raised here, as soon as ``work`` is
    done or has come to :func:`go_on`: no thread is left behind. In other threads than the main one,
    to which no signal comes, and where no thread can be started, ``work`` runs here.

    >>> undisturbed(max, 1, 2)
    2
    """
    if get_ident() != threading.main_thread().ident:
        return work(*arguments)
    try:
        return in_own_thread(work, *arguments)
    except NoThreadError:
        return work(*arguments)


def in_own_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """As :func:`undisturbed`, in whichever thread the caller runs, or :class:`NoThreadError`."""
    # A thread that is started while Python ends never runs.
    if sys.is_finalizing():
        raise NoThreadError("Python ends")
    results: list[Result] = []
    errors: list[BaseException] = []
    ended: list[object] = []
    abandoned: list[object] = []
    tickets: list[object] = [None]  # for the thread that does the work, or whoever calls it off
    bell = allocate_lock()
    bell.acquire()
    context, process = copy_context(), os.getpid()  # settings are those of the caller

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
                break  # it has not begun, and will not
            with suppress(BaseException):
                wait()
                break
        raise
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # an error holds this frame
    if not ended:
        raise NoThreadError("a forked child has one thread")
    return results[0]


def undisturbed_import(module: str) -> ModuleType:
    """A module, imported where no signal handler comes between: half an import cannot be mended.

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
