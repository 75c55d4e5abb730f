"""``parallel_for``: the only place that knows threads.

Kernels are serial functions of a range, ``kernel(start, stop, *arguments)``, whose items do not
depend on each other; ``parallel_for`` gives each thread one contiguous part of the range. What an
item is follows from the problem alone, so results do not depend on the number of threads.

The workers are Python threads that run compiled, ``nogil`` kernels. After a job a worker watches
a word in memory for a moment before it sleeps: a launch costs 1.5–3 µs while it is awake, against
20 µs with ``concurrent.futures`` (two cores of a Zen 4 processor). One job at a time uses the
workers; a second Python thread that comes meanwhile runs its job on its own core. Workers do not
survive a fork; the child starts its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import config

from fastcnn.kernels.jit import kernel
from fastcnn.kernels.simd import load_acquire, pause, store_release
from fastcnn.settings import get_num_threads

# Work below this many operations is done before a worker could help.
SMALL = 200_000
# How often a waiting worker looks before it sleeps: some 100 µs.
_LOOKS = 5_000
_LINE = 8  # words of a cache line, so that no two threads write to the same
_GO, _DONE = 0, _LINE  # where a worker finds the number of its job, and where it reports it


@kernel
def _watch(words: Any, report: int, place: int, seen: int, looks: int) -> int:
    """Report that job ``report`` is done (if any), then wait until ``words[place]`` changes."""
    if report:
        store_release(words, _DONE, report)
    for _ in range(looks):
        now: int = load_acquire(words, place)
        if now != seen:
            return now
        pause()
    return seen


class _Worker:
    """A thread with one job at a time, numbered from 1."""

    def __init__(self, name: str) -> None:
        self.words = np.zeros(2 * _LINE, np.int64)
        self.job: tuple[Any, ...] = ()
        self.number = 0
        self.error: BaseException | None = None
        self.asleep = False
        self.wake = threading.Semaphore(0)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def start(self, *job: Any) -> None:
        self.job = job
        self.number += 1
        self.words[_GO] = self.number
        if self.asleep:
            self.wake.release()

    def join(self) -> None:
        """Wait for the last job; raise what it raised."""
        while (done := int(self.words[_DONE])) != self.number:
            _watch(self.words, 0, _DONE, done, _LOOKS)
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _run(self) -> None:
        seen = report = 0
        while True:
            now = int(_watch(self.words, report, _GO, seen, _LOOKS))
            report = 0
            if now == seen:
                # The flag goes up before the last look, and start() looks at the flag after it
                # has written: one of the two sees the other.
                self.asleep = True
                if int(self.words[_GO]) == seen:
                    self.wake.acquire()
                self.asleep = False
                continue
            try:
                function, start, stop, arguments = self.job
                function(start, stop, *arguments)
            except BaseException as error:  # handed to the caller, who waits for this part
                self.error = error
            self.job = function = arguments = ()  # keep no caller's array alive
            seen = report = now


class _Pool:
    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.workers: list[_Worker] = []

    def run(self, parts: int, function: Callable[..., None], count: int, arguments: Any) -> None:
        workers = self.workers
        for worker in workers[: parts - 1]:
            worker.join()  # an interrupt may have left one at work
        while len(workers) < parts - 1:
            workers.append(_Worker(f"fastcnn-{len(workers) + 1}"))
        started = []
        try:
            for i in range(1, parts):
                first, last = count * i // parts, count * (i + 1) // parts
                workers[i - 1].start(function, first, last, arguments)
                started.append(workers[i - 1])
            function(0, count // parts, *arguments)
        finally:
            for worker in started:
                worker.join()


_pool = _Pool()


def parallel_for(function: Callable[..., None], count: int, work: int, *arguments: Any) -> None:
    """Run ``function(start, stop, *arguments)`` over ``range(count)``, split over the threads.

    ``work`` is the number of operations of the whole: below :data:`SMALL` a thread the caller
    does it alone.
    """
    parts = min(get_num_threads(), count, 1 + work // SMALL)
    if parts <= 1 or config.DISABLE_JIT or not _pool.busy.acquire(blocking=False):
        function(0, count, *arguments)
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
