"""``parallel_for``: the only place that knows threads.

Kernels are serial functions of a range, ``kernel(start, stop, *arguments)``, whose items do not
depend on each other; ``parallel_for`` gives each thread one contiguous part of the range. What an
item is follows from the problem alone, so results do not depend on the number of threads.

The workers are Python threads that run compiled, ``nogil`` kernels. After a job a worker watches
a word in memory, its gate, for a moment before it sleeps: a launch costs some 3 µs while it is
awake, against 20 µs with ``concurrent.futures`` (two cores of a Zen 4 processor). One job at a
time uses the workers; a second Python thread that comes meanwhile runs its job on its own core.
Workers do not survive a fork; the child starts its own.

Where other programs have the cores, a worker may be long in coming. So whoever called takes over
what no worker has begun, and lets others run while it waits for what one has.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import config

from fastcnn.kernels.jit import CACHE_LINE, NO_GATE, compiled
from fastcnn.kernels.simd import load_acquire, pause, store_release
from fastcnn.settings import MOST, get_num_threads

# Work below this many operations is done before a worker could help.
SMALL = 200_000
# How often a worker looks before it sleeps, some 100 µs, and a caller before it lets others run.
_LOOKS, _GLANCES = 5_000, 500


@compiled
def _watch(done: Any, report: int, gate: Any, place: int, seen: int, looks: int) -> int:
    """Report that job ``report`` is done (if any), then wait until ``gate[place]`` changes."""
    if report:
        store_release(done, 0, report)
    for _ in range(looks):
        now: int = load_acquire(gate, place)
        if now != seen:
            return now
        pause()
    return seen


class _Worker:
    """A thread that does the jobs whose numbers it finds at its place of the gate."""

    def __init__(self, gate: Any, place: int) -> None:
        self.gate, self.place = gate, place
        self.done = np.zeros(CACHE_LINE, np.int64)
        self.number = 0
        self.jobs: list[tuple[Any, ...]] = []  # one at most; who pops it, does it
        self.error: BaseException | None = None
        self.asleep = False
        self.wake = threading.Semaphore(0)
        name = f"fastcnn-{place // CACHE_LINE + 1}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def prepare(self, number: int, *job: Any) -> None:
        """Lay a job out; it begins when the gate shows its number."""
        self.number = number
        self.jobs.append(job)
        if self.asleep:
            self.gate[self.place] = number
            self.wake.release()

    def take_over(self) -> None:
        """Do the last job here, if the worker has not begun it."""
        if self.jobs and (job := _popped(self.jobs)):
            self.number = 0  # nothing to wait for
            _do(job)

    def join(self) -> BaseException | None:
        """Wait for the last job; what it raised, once."""
        while (done := int(self.done[0])) < self.number:
            if self.asleep:  # it lay down just before the gate opened
                self.wake.release()
            if int(_watch(NO_GATE, 0, self.done, 0, done, _GLANCES)) == done:
                _let_others_run()
        error, self.error = self.error, None
        return error

    def _run(self) -> None:
        seen, report = int(self.gate[self.place]), 0
        while True:
            now = int(_watch(self.done, report, self.gate, self.place, seen, _LOOKS))
            report = 0
            if now == seen:
                # Up goes the flag, then the last look: who opens the gate later sees the flag.
                self.asleep = True
                if int(self.gate[self.place]) == seen:
                    self.wake.acquire()
                self.asleep = False
                continue
            try:
                if job := _popped(self.jobs):  # none where the caller took it
                    _do(job)
            except BaseException as error:  # handed to the caller, who waits for this part
                self.error = error
            job = ()  # keep no caller's array alive
            seen = report = now


def _popped(jobs: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The job in the list, for one thread alone; the others find none."""
    try:
        return jobs.pop()
    except IndexError:
        return ()


def _do(job: tuple[Any, ...]) -> None:
    function, start, stop, arguments = job
    function(NO_GATE, 0, start, stop, *arguments)


class _Pool:
    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.workers: list[_Worker] = []
        self.gate = np.zeros(CACHE_LINE * MOST, np.int64)
        self.launches = 0

    def run(self, parts: int, function: Callable[..., None], count: int, arguments: Any) -> None:
        while len(self.workers) < parts - 1:
            self.workers.append(_Worker(self.gate, CACHE_LINE * len(self.workers)))
        workers = self.workers[: parts - 1]
        for worker in workers:
            worker.join()  # an interrupt may have left one at work
        gate = self.gate[: CACHE_LINE * len(workers)]
        self.launches += 1
        errors: list[BaseException | None] = []
        try:
            for i, worker in enumerate(workers, 1):
                first, last = count * i // parts, count * (i + 1) // parts
                worker.prepare(self.launches, function, first, last, arguments)
            function(gate, self.launches, 0, count // parts, *arguments)
            for worker in workers:
                worker.take_over()
        finally:
            # Open even if an interrupt came, or the call failed, before it began: nobody would
            # open it for the jobs that are laid out, and the next call would wait for them.
            gate[::CACHE_LINE] = self.launches
            errors += [worker.join() for worker in workers]
        for error in filter(None, errors):
            raise error


_pool = _Pool()
_let_others_run = getattr(os, "sched_yield", lambda: None)


def parallel_for(function: Callable[..., None], count: int, work: int, *arguments: Any) -> None:
    """Run a kernel's ``function(start, stop, *arguments)`` over ``range(count)`` on the threads.

    ``work`` is the number of operations of the whole: below :data:`SMALL` a thread the caller
    does it alone.
    """
    parts = min(get_num_threads(), count, 1 + work // SMALL)
    if parts <= 1 or config.DISABLE_JIT or not _pool.busy.acquire(blocking=False):
        function(NO_GATE, 0, 0, count, *arguments)
        return
    try:
        _pool.run(parts, function, count, arguments)
    finally:
        _pool.busy.release()


def _after_fork() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
