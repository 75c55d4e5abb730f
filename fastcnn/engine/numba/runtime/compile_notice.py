"""A line on the standard error when compiling takes long, so that it is not taken for a fault.

A process writes it once, when compiling has taken more than a second in all. There is no lock,
because a thread that compiles holds the compiler's lock; if a signal handler compiles in between,
the line may be missing. ``FASTCNN_COMPILE_NOTICE=0`` turns it off. Commands show a progress bar
instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from time import monotonic

AFTER = 1.0
"""Seconds of compiling after which the line is written."""


class Notice:
    """Measures how long this process compiles, and writes the line."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._silent = os.environ.get("FASTCNN_COMPILE_NOTICE") == "0"
        self._running: list[tuple[Timer, float]] = []

    def begin(self, what: str = "kernels") -> None:
        """Compiling begins; if a measurement runs already, an error has ended its compiling."""
        self.end()
        if self._silent:
            return
        # A thread that is started while Python ends never runs, but ``start`` would wait for it.
        if sys.is_finalizing():
            return
        timer = Timer(max(0.0, AFTER - self._seconds), self._write, [what])
        timer.daemon = True
        try:
            self._running.append((timer, monotonic()))
            timer.start()
        except RuntimeError:  # no thread can be started, so none could write
            return
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Compiling has ended."""
        while self._running:
            try:
                timer, begin = self._running.pop()
            except IndexError:  # a signal handler that compiled took it
                return
            timer.cancel()
            self._seconds += monotonic() - begin

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Within this context no line is written, because a progress bar says more."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    def _write(self, what: str) -> None:
        """Write the line, once."""
        if self._silent or sys.stderr is None:
            return
        self._silent = True
        line = f"fastcnn: compiling {what} for this processor; once, since they are kept"
        with suppress(OSError, ValueError):  # it is closed
            print(line, file=sys.stderr, flush=True)


notice = Notice()


def _after_fork() -> None:
    global notice
    notice = Notice()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
