"""``parallel_for``, which runs a kernel on several threads, and the threads.

Kernels are serial functions of a range, ``kernel(start, stop, *arguments)``, whose items do not
depend on each other; ``parallel_for`` cuts the range into tasks for the threads. What an item is
follows from the problem alone, so results do not depend on the number of threads. No other module
knows threads.

The workers are Python threads that spend their time in compiled code:
:mod:`fastcnn.engine.numba.runtime.jobs` says how they get their tasks. After a job a worker watches
its slot of the board for a moment before it sleeps, because a watching worker begins the next job
sooner (docs/measurements.md, "Workers watch a board before they sleep"). One job at a time uses the
workers; a second Python thread that calls meanwhile runs its job alone. Workers do not survive a
fork; the child starts its own.

**Interrupts.** A signal handler or a finalizer may run between any two steps of the Python code
here, and may raise, compute or fork. So there is no lock, and no state that is wrong for a moment:
each step is one call of a function in C. A worker enters its slot itself, with its first step, and
leaves it with its last. A second thread that was started for a slot ends when it finds the slot
entered. An interrupt waits for the end of a compiled call, so the caller's arrays stay in memory.

**Busy cores.** Other programs may use the cores, and cores differ in speed, so a worker may come
late. Therefore a thread that has done its own tasks takes tasks that others have not begun, and a
waiting caller yields its core (docs/measurements.md, "Threads take each other's tasks").
"""

from __future__ import annotations

import os
import sys
import threading
from _thread import start_new_thread
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic

import numpy as np
from numba.core import config

from fastcnn.core.settings import MOST, get_num_threads
from fastcnn.engine.numba.runtime import jit, jobs, rehearsal
from fastcnn.engine.numba.runtime.calls import NO_BOARD, OFFER, step_address
from fastcnn.engine.numba.runtime.jobs import AWAKE, BUSY, COUNT, LEFT, SLOT, WANTED
from fastcnn.engine.numba.runtime.types import Address, Kernel

SMALL = 200_000
"""Operations that are worth a thread: less work is done before a worker could help."""
_TASKS = 4  # most tasks for each thread
_LOOKS = 20_000  # looks of a worker without a new job before it sleeps, longer than Python calls
_NAP = 1e-4  # seconds before a worker's last look
_PATIENCE = 0.05  # seconds until a thread is started again for a slot that no worker has entered

_serve, _offer = jit.compiled(jobs.serve), jit.kernel(jobs.offer)


def offer_address() -> Address:
    """The address of the step entry of :func:`fastcnn.engine.numba.runtime.jobs.offer`."""
    return step_address(_offer, NO_BOARD, 1, 0, 0)


def request_driver() -> None:
    """List the kernels that several threads need, in a rehearsal."""
    if get_num_threads() > 1:
        offer_address()
        rehearsal.list_kernel(_serve, (NO_BOARD, 0, _LOOKS))


class _Worker:
    """A thread that does the tasks in its slot of the board.

    Attributes:
        asleep: whether it waits for :meth:`wake`; only the worker itself changes it.
    """

    def __init__(self, pool: _Pool, slot: int) -> None:
        self._workers, self._board, self._slot = pool.workers, pool.board, slot
        self.asleep = False
        # ``put`` of this queue is safe in signal handlers and finalizers; a semaphore has a lock.
        self._bell: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        """End its sleep, unless another thread has done so."""
        if self._bell.empty():
            self._bell.put(None)

    def run(self) -> None:
        """Enter the slot and serve, or end if another worker has entered it."""
        try:
            if self._workers.setdefault(self._slot, self) is self:
                threading.current_thread().name = f"fastcnn-{self._slot // SLOT}"
                self._work()
        finally:
            if self._workers.get(self._slot) is self:
                del self._workers[self._slot]

    def _work(self) -> None:
        while True:
            _serve(self._board, self._slot, _LOOKS)
            # The flag is set before the last look at the slot. If a caller reads the flag too early
            # and writes tasks too late for this look, it does them alone.
            self.asleep = True
            if not self._has_work():
                # A caller may have read the flag before it was set, and begin a program only now.
                with suppress(Empty):
                    self._bell.get(timeout=_NAP)
                    self.asleep = False
                    continue
                if not self._has_work():
                    self._bell.get()
            self.asleep = False

    def _has_work(self) -> bool:
        """Whether there are tasks, or a program runs that may have some."""
        tasks = self._board[self._slot + LEFT] % (1 << COUNT)
        return bool(tasks or self._board[AWAKE] > 0)


class _Pool:
    """The board, and the workers that have entered it.

    Attributes:
        workers: the workers that serve, by the first words of their slots.
        board: the board, with a slot for as many threads as there can be.
        words: the same memory as a view that Python reads in less time.
    """

    def __init__(self) -> None:
        self.workers: dict[int, _Worker] = {}
        self.board = np.zeros(SLOT * MOST, np.int64)
        self.words = memoryview(self.board.data)
        self._next_start: dict[int, float] = {}

    def call(self, threads: int) -> bool:
        """Wake or start workers until ``threads`` threads can take tasks, the caller among them.

        Returns whether there are any. There are none while Python ends, because then no kernel of
        the driver can be compiled.
        """
        words, workers = self.words, self.workers
        if not words[OFFER]:
            if sys.is_finalizing():
                return False
            _serve(self.board, SLOT, 0)  # compiles it here: a worker may end at any moment
            words[OFFER] = offer_address()
        words[WANTED] = threads
        for slot in range(SLOT, SLOT * threads, SLOT):
            worker = workers.get(slot)
            if worker is None:
                self._start(slot)
            elif worker.asleep:
                worker.wake()
        return True

    def _start(self, slot: int) -> None:
        """Start a worker, unless one was started a moment ago and may still enter the slot.

        If the system starts no more threads, the caller does their tasks.
        """
        now = monotonic()
        if now < self._next_start.get(slot, now) or sys.is_finalizing():
            return
        self._next_start[slot] = now + _PATIENCE
        with suppress(RuntimeError, MemoryError):
            start_new_thread(_Worker(self, slot).run, ())


_pool = _Pool()


def most_tasks(count: int, work: int) -> int:
    """How many tasks, and so how many threads at most, so many items and operations are worth."""
    return min(count, 1 + work // SMALL)


def parallel_for(kernel: Kernel, count: int, work: int, *arguments: object) -> None:
    """Run a kernel over ``range(count)`` on the threads.

    ``work`` is the number of operations of the whole range. The call uses at most one thread for
    each :data:`SMALL` operations.
    """
    if rehearsal.active and rehearsal.list_kernel(kernel, (NO_BOARD, 1, 0, count, *arguments)):
        return
    most = most_tasks(count, work)
    threads = 1 if most <= 1 or config.DISABLE_JIT else min(get_num_threads(), most)
    pool = _pool
    # BUSY says that another caller has the board.
    if threads <= 1 or pool.words[BUSY] or not pool.call(threads):
        kernel(NO_BOARD, 1, 0, count, *arguments)
        return
    kernel(pool.board, min(most, _TASKS * threads), 0, count, *arguments)


def _after_fork() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
