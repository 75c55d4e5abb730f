"""``parallel_for``: the only place that knows threads.

Kernels are serial functions of a range, ``kernel(start, stop, *arguments)``, whose items do not
depend on each other; ``parallel_for`` cuts the range into pieces for the threads. What an item is
follows from the problem alone, so results do not depend on the number of threads.

The workers are Python threads that spend their time in compiled code:
:mod:`fastcnn.engine.numba.runtime.jobs` says how they get their pieces. After a job a worker
watches its place of the board for a moment before it sleeps: a launch costs 1 to 2 µs while it is
awake, against 20 µs with ``concurrent.futures``. One job at a time uses the workers; a second
Python thread that comes meanwhile runs its job on its own core. Workers do not survive a fork; the
child starts its own.

**Interrupts.** A signal handler or a finalizer may run between any two steps of the Python code
here, and may raise, compute or fork. So there is no lock, and no state that is wrong for a moment:
each step is one call of a function in C. A worker enters its place itself, with its first step, and
leaves it with its last. A second thread that was started for a place finds it taken, and ends.

Where other programs have the cores, a worker may be long in coming, and cores differ. So whoever is
done, caller or worker, takes what another has not begun, and the caller lets others run while it
waits. On two cores beside which other machines worked, the quickest tenth of calls of nets that
predict in 0.2 and 1.2 ms end 5 % earlier so, and the quickest quarter 1 to 3 %. Nothing can come
between in which the caller's arrays could go away: an interrupt waits for the end of the call.
"""

from __future__ import annotations

import os
import sys
import threading
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic

import numpy as np
from numba.core import config

from fastcnn.core.settings import MOST, get_num_threads
from fastcnn.engine.numba.runtime import jobs, rehearsal
from fastcnn.engine.numba.runtime.calls import NO_BOARD, SHARE, step_address
from fastcnn.engine.numba.runtime.jit import compiled, kernel
from fastcnn.engine.numba.runtime.jobs import BUSY, COUNT, LEFT, PLACE, WANTED

# Work below this many operations is done before a worker could help.
SMALL = 200_000
# Pieces of work for each thread, at most.
_PIECES = 4
# How often a worker looks before it sleeps, some 100 µs.
_LOOKS = 5_000
# Seconds until a thread is started again for a place that no worker has entered.
_PATIENCE = 0.05

_serve, _share = compiled(jobs.serve), kernel(jobs.share)


def share_address() -> int:
    """The address of :func:`fastcnn.engine.numba.runtime.jobs.share` as a step, for a board."""
    return step_address(_share, NO_BOARD, 1, 0, 0)


def request_driver() -> None:
    """List what several threads need, in a rehearsal."""
    if get_num_threads() > 1:
        share_address()
        rehearsal.requested(_serve, (NO_BOARD, 0, _LOOKS))


class _Worker:
    """A thread that does the jobs it finds at its place of the board."""

    def __init__(self, pool: _Pool, place: int) -> None:
        self._workers, self._board, self._place = pool.workers, pool.board, place
        self.asleep = False
        # ``put`` of this queue is safe in signal handlers and finalizers; a semaphore has a lock.
        self._bell: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        """Call it out of its sleep, if nobody has."""
        if self._bell.empty():
            self._bell.put(None)

    def run(self) -> None:
        """Enter the place and serve, or end if another worker has it."""
        try:
            if self._workers.setdefault(self._place, self) is self:
                threading.current_thread().name = f"fastcnn-{self._place // PLACE}"
                self._work()
        finally:
            if self._workers.get(self._place) is self:
                del self._workers[self._place]

    def _work(self) -> None:
        while True:
            _serve(self._board, self._place, _LOOKS)
            # Up goes the flag, then the last look. Whoever wrote to the place before the flag could
            # be seen does the pieces alone. Only the worker itself changes the flag.
            self.asleep = True
            if not self._board[self._place + LEFT] % (1 << COUNT):
                self._bell.get()
            self.asleep = False


class _Pool:
    """The board, and the workers that have entered it.

    Attributes:
        workers: those that serve, by their places.
        board, words: the caller's own place and one for each worker, as an array and for Python.
    """

    def __init__(self) -> None:
        self.workers: dict[int, _Worker] = {}
        self.board = np.zeros(PLACE * MOST, np.int64)
        self.words = memoryview(self.board.data)  # read in a quarter of the time
        self._next_start: dict[int, float] = {}

    def call(self, threads: int) -> bool:
        """Have so many threads, the caller among them, at their places or on their way to them.

        False where there can be none: Python ends, and compiles no more.
        """
        words, workers = self.words, self.workers
        if not words[SHARE]:
            if sys.is_finalizing():
                return False
            _serve(self.board, PLACE, 0)  # compiled by the caller: a worker may end at any moment
            words[SHARE] = share_address()
        words[WANTED] = threads
        for place in range(PLACE, PLACE * threads, PLACE):
            worker = workers.get(place)
            if worker is None:
                self._start(place)
            elif worker.asleep:
                worker.wake()
        return True

    def _start(self, place: int) -> None:
        """Start a worker, unless that was tried just now: the thread may be on its way.

        Where the system starts no more threads, the caller does their pieces.
        """
        now = monotonic()
        if now < self._next_start.get(place, now) or sys.is_finalizing():
            return
        self._next_start[place] = now + _PATIENCE
        with suppress(RuntimeError, MemoryError):
            start_new_thread(_Worker(self, place).run, ())


_pool = _Pool()


def parallel_for(function: Callable[..., None], count: int, work: int, *arguments: object) -> None:
    """Run a kernel's ``function(start, stop, *arguments)`` over ``range(count)`` on the threads.

    ``work`` is the number of operations of the whole: below :data:`SMALL` a thread the caller
    does it alone.
    """
    if rehearsal.active and rehearsal.requested(function, (NO_BOARD, 1, 0, count, *arguments)):
        return
    most = min(count, 1 + work // SMALL)
    threads = 1 if most <= 1 or config.DISABLE_JIT else min(get_num_threads(), most)
    pool = _pool
    # The word says that another caller has the board.
    if threads <= 1 or pool.words[BUSY] or not pool.call(threads):
        function(NO_BOARD, 1, 0, count, *arguments)
        return
    function(pool.board, min(most, _PIECES * threads), 0, count, *arguments)


def _after_fork() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
