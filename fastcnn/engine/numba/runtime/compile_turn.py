"""One process compiles a kernel, and the others that want it wait and read what it wrote.

Workers that start together need the same kernels at about the same time. Each would compile all
of them: minutes, as many times as there are processes.
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

    The system takes the turn from a process that ends. One that is killed leaves an empty file,
    which means nothing, and which the next process that compiles this kernel removes. Where files
    cannot be locked, and when patience ends, everybody has a turn: it costs time, never an answer.
    """

    def __init__(self) -> None:
        self._held: list[tuple[Path, FileIO]] = []  # at most one; a list is changed in one step

    def take(self, path: Path, patience: float | None = None) -> bool:
        """Wait until no other process compiles ``path``; False if patience ended before.

        A turn for another file ends here: its kernel did not compile. Patience is
        :data:`PATIENCE` if it is not given.
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
                    self._held.append((lock, file))
                    return True
                except BlockingIOError:
                    if monotonic() >= end:
                        return False
                    sleep(_POLL)
        except OSError:  # nothing can be written there, or a file system without locks
            return True
        finally:
            if file is not None and all(file is not other for _, other in self._held):
                file.close()

    def give(self) -> None:
        """Let another process have the turn, if this one has it.

        A signal handler may come between any two steps and take another turn, so the file is known
        to one of the two alone.
        """
        while self._held:
            try:
                lock, file = self._held.pop()
            except IndexError:
                return
            # Its name goes first: who waits has the file open, and who comes later finds what was
            # compiled.
            with suppress(OSError):
                lock.unlink()
            # Not only closed: a forked child may have the same file open.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
            file.close()

    def forget(self) -> None:
        """In a forked child: the turn is the parent's, and stays so."""
        while self._held:
            self._held.pop()[1].close()


turn = CompileTurn()
"""That of this process."""
atexit.register(turn.give)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=turn.forget)
