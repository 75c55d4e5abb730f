"""One process compiles a kernel, and the others that want it wait and read what it wrote.

Workers that start together need the same kernels at about the same time. Each would compile all
of them: minutes, as many times as there are processes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

try:
    import fcntl
except ImportError:  # Windows: each process compiles for itself
    fcntl = None  # type: ignore[assignment]

PATIENCE = 60.0
"""Seconds; many times what a kernel takes. A process that was halted must not halt others."""

_POLL = 0.02


def is_taken(path: Path) -> bool:
    """Whether another process has the turn for this file."""
    if fcntl is None:
        return False
    try:
        handle = os.open(path.with_suffix(".lock"), os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)  # which gives the lock back, if it was free
    return False


class CompileTurn:
    """Who compiles what a file will hold. A process has one turn at a time, as its compiler has.

    The system takes the turn from a process that ends. Where files cannot be locked, and when
    patience ends, everybody has a turn: that costs time, never an answer.
    """

    def __init__(self) -> None:
        self._lock: Path | None = None
        self._handle = -1

    def take(self, path: Path, patience: float | None = None) -> bool:
        """Wait until no other process compiles ``path``; False if patience ended before.

        A turn for another file ends here: its kernel did not compile. Patience is
        :data:`PATIENCE` if it is not given.
        """
        self.give()
        if fcntl is None:
            return True
        lock = path.with_suffix(".lock")
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return True
        end = monotonic() + (PATIENCE if patience is None else patience)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._lock, self._handle = lock, handle
                    return True
                except BlockingIOError:
                    if monotonic() >= end:
                        return False
                    sleep(_POLL)
                except OSError:  # a file system without locks
                    return True
        finally:
            if self._lock is None:
                os.close(handle)

    def give(self) -> None:
        """Let another process have the turn, if this one has it."""
        if self._lock is None or fcntl is None:
            return
        # Its name goes first: who waits has the file open, and who comes later finds what was
        # compiled.
        with suppress(OSError):
            self._lock.unlink()
        # Not only closed: a forked child may have the same file open.
        with suppress(OSError):
            fcntl.flock(self._handle, fcntl.LOCK_UN)
        os.close(self._handle)
        self._lock = None


turn = CompileTurn()
"""That of this process."""
