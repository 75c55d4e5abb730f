"""One process compiles a kernel; other processes that need it wait, and read the file.

Processes that start together need the same kernels at about the same time. Without turns each of
them would compile all kernels, which can take minutes. The module runs when the cache does not hold
a kernel.
"""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from time import monotonic, sleep

try:
    import fcntl
except ImportError:  # Windows: each process compiles for itself
    fcntl = None  # type: ignore[assignment]

PATIENCE = 60.0
"""Seconds to wait for another process, which may be halted: many times what a kernel takes."""

_POLL = 0.02  # seconds between two looks


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
        os.close(handle)  # releases the lock, if this call acquired it
    return False


class CompileTurn:
    """The right to compile the code of one file. A process has at most one turn.

    The turn is a lock on a file beside the one to write. The system releases the lock when the
    process ends. A process that is killed leaves the locked file, which is empty; the next process
    that compiles this kernel removes it. Where files cannot be locked, and when patience ends, the
    process has a turn anyway: two processes then compile the same kernel.
    """

    def __init__(self) -> None:
        self._locks: list[tuple[Path, FileIO]] = []  # at most one; a list changes in one step

    def take(self, path: Path, patience: float | None = None) -> bool:
        """Wait until no other process compiles ``path``; False if patience ended before.

        A turn for another file ends here, because its kernel did not compile. ``patience`` are
        seconds, by default :data:`PATIENCE`.
        """
        self.give()
        if fcntl is None:
            return True
        lock = path.with_suffix(".lock")
        end = monotonic() + (PATIENCE if patience is None else patience)
        file = None
        try:
            file = FileIO(lock, "a+")
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._locks.append((lock, file))
                    return True
                except BlockingIOError:
                    if monotonic() >= end:
                        return False
                    sleep(_POLL)
        except OSError:  # nothing can be written there, or a file system without locks
            return True
        finally:
            if file is not None and all(file is not other for _, other in self._locks):
                file.close()

    def give(self) -> None:
        """End this process's turn, if it has one.

        A signal handler may come between any two steps and take another turn, so the lock is taken
        out of the list first.
        """
        while self._locks:
            try:
                lock, file = self._locks.pop()
            except IndexError:
                return
            # The name goes first: a waiting process has the file open, and a later process finds
            # the compiled code.
            with suppress(OSError):
                lock.unlink()
            # Closing is not enough, because a forked child may have the same file open.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
            file.close()

    def forget(self) -> None:
        """Leave the turn to the parent process, in a forked child."""
        while self._locks:
            self._locks.pop()[1].close()


turn = CompileTurn()
"""The turn of this process."""
atexit.register(turn.give)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=turn.forget)
