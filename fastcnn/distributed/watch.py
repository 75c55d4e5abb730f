"""The watch over the processes of a group: one that dies, stops or hangs ends all of them.

Each process has a thread that sends a beat twice in a second: to the next process, and to rank 0. A
beat says what its process does, and for how long. So a process that is stopped, or whose machine
is gone, is noticed by the next one, because its beats stay away. A process that lives but no longer
moves on, while others wait for it, is noticed by rank 0.

How long a process may stay with one activity follows from how long it took before: a step that
takes milliseconds may take 8 seconds. An activity without a history, such as loading data, a first
step that compiles kernels, or a first checkpoint, has the limit that ``world(patience=…)`` sets.
A process that has died is noticed within seconds, whatever the others do.

A slow process is none that is gone: on one machine, a process without beats counts as gone if the
system says that it is stopped. Time in which this process itself was stopped, as by a batch system
that suspends a job, does not count.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from time import monotonic, sleep
from typing import NamedTuple, Protocol

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.distributed.guard import Guard

INTERVAL = 0.5
"""Seconds between two beats."""
SILENCE = 6.0
"""Seconds without a beat after which a process counts as gone."""
LEAST = 8.0
"""Seconds that any activity may take."""
_FORWARDED = 0.5  # seconds in which a launcher reads the last message of a process
_PAUSE = 4 * INTERVAL  # seconds between two looks from which on this process was stopped itself
_TIMES_LONGER, _HISTORY = 20, 3

ACTIVITIES = ("samples", "a step", "callbacks", "a validation", "its first step", "checks")


class Beat(NamedTuple):
    """What a process says of itself.

    Attributes:
        state: 0 outside of a training, 1 within one, 2 after its last beat.
        waits: whether it waits for other processes.
        seconds: for how long it has done what it does.
        allowed: how long that may take.
        activity: an index of :data:`ACTIVITIES`.
    """

    state: float
    waits: float
    seconds: float
    allowed: float
    activity: float


class Line(Protocol):
    """How beats go from process to process."""

    @property
    def rank(self) -> int:
        """The number of this process."""

    @property
    def size(self) -> int:
        """The number of processes."""

    def send(self, numbers: Array, rank: int) -> None:
        """Send numbers to a process, without waiting for it."""

    def received(self) -> Sequence[tuple[int, Array]]:
        """The numbers that have come, with their senders, the oldest first."""

    def abort(self, code: int) -> None:
        """End all processes with this exit code."""


class Watch:
    """The beats of a process, and the look at those of others; :meth:`start` begins it.

    Args:
        line: takes the beats.
        processes: for each rank a number of its machine, and the number of its process there.
        patience: seconds that an activity without a history may take.
        guard: of this process.
    """

    def __init__(
        self, line: Line, processes: Sequence[tuple[int, int]], patience: float, guard: Guard
    ) -> None:
        self.patience, self._guard = patience, guard
        self._line, self._rank, self._size = line, line.rank, line.size
        self._lost, self._last_look = 0.0, monotonic()
        self._state, self._waits, self._activity = 0, False, 0
        self._since = self._now()
        # For each activity how often it was done, and the longest time of it.
        self._history = [[0, 0.0] for _ in ACTIVITIES]
        self._beats: dict[int, tuple[float, Beat]] = {}
        self._suspicion: str | None = None
        self._ended = Event()
        self._processes = processes
        before = (self._rank - 1) % self._size
        same = processes[before][0] == processes[self._rank][0]
        # The process before this one, if its machine is this one.
        self._neighbour = (before, processes[before][1]) if same else None
        targets = {0, (self._rank + 1) % self._size} - {self._rank}
        self._targets = sorted(targets)
        self._thread = Thread(target=self._run, name="fastcnn-watch", daemon=True)

    def start(self) -> None:
        """Look at the other processes from now on, in a thread."""
        self._thread.start()

    def _now(self) -> float:
        """Seconds in which this process was able to run."""
        return monotonic() - self._lost

    # --- what the process does --------------------------------------------------------------------

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within this context the process takes part in a training."""
        self._turn(state=1)
        try:
            yield
        finally:
            self._turn(state=0)

    @contextmanager
    def doing(self, activity: str) -> Iterator[None]:
        """Within this context the process does this."""
        before = self._activity
        self._turn(activity=ACTIVITIES.index(activity))
        try:
            yield
        finally:
            self._turn(activity=before)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within this context the process waits for others."""
        self._turn(waits=True)
        try:
            yield
        finally:
            self._turn(waits=False)

    def _turn(
        self, state: int | None = None, activity: int | None = None, waits: bool = False
    ) -> None:
        now = self._now()
        if self._state and not self._waits:
            of_activity = self._history[self._activity]
            of_activity[0] += 1
            of_activity[1] = max(of_activity[1], now - self._since)
        self._state = self._state if state is None else state
        self._activity = self._activity if activity is None else activity
        self._waits, self._since = waits, now

    def _allowed(self) -> float:
        times, longest = self._history[self._activity]
        from_history = max(LEAST, _TIMES_LONGER * longest)
        return from_history if times >= _HISTORY else max(LEAST, self.patience)

    # --- beats ------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Say that this process has ended well, and end the watch."""
        if not self._ended.is_set():
            self._ended.set()
            if self._thread.is_alive():
                self._thread.join()  # because MPI may end after this call
            self._state = 2
            self._send(self._now())
            self._guard.leave()

    def _run(self) -> None:
        while not self._ended.is_set():
            reason = self.look()
            if reason is not None and not self._ended.is_set():
                self.end(reason)
            self._ended.wait(INTERVAL)

    def look(self) -> str | None:
        """Send and receive beats; what is wrong with a process, or None.

        A reason must hold in two looks, because a training that ends on all processes may look
        wrong for a moment.
        """
        at = monotonic()
        if at - self._last_look > _PAUSE:  # this process was stopped, as by a batch system
            self._lost += at - self._last_look
        self._last_look = at
        now = self._now()
        self._send(now)
        for rank, numbers in self._line.received():
            self._beats[rank] = now, Beat(*numbers.tolist())
        before = self._suspicion
        self._suspicion = self._wrong(now) if self._state == 1 else self._death()
        return None if before is None else self._suspicion

    def end(self, reason: str, code: int = 1) -> None:
        """Print the reason, and end all processes with an exit code."""
        self._guard.let_speak()
        self._kill_stopped()
        end(self._line, reason, code)

    def _kill_stopped(self) -> None:
        """Kill stopped processes of this machine, because launchers may wait for them."""
        for rank, (_, process) in enumerate(self._processes):
            if rank != self._rank and self._is_stopped(rank):
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)

    def _send(self, now: float) -> None:
        for target in self._targets:
            self._line.send(np.array(self._own_beat(now)), target)

    def _own_beat(self, now: float) -> Beat:
        return Beat(self._state, self._waits, now - self._since, self._allowed(), self._activity)

    def _death(self) -> str | None:
        """The death of the process before this one, or None."""
        if self._neighbour is None or not _is_dead(self._neighbour[1]):
            return None
        rank, process = self._neighbour
        if rank in self._beats and self._beats[rank][1].state == 2:
            return None
        return death_of(rank, self._size, process)

    def _wrong(self, now: float) -> str | None:
        """What is wrong with a process while this one trains, or None."""
        death = self._death()
        if death is not None:
            return death
        for rank, (at, beat) in self._beats.items():
            if beat.state == 2:
                return f"{self._name(rank)} has ended, while others train"
            silence = now - at
            if silence > (SILENCE if self._seems_gone(rank, beat) else max(SILENCE, self.patience)):
                return (
                    f"{self._name(rank)} has given no sign of life for {silence:.0f} s: it is "
                    f"stopped, or its machine is out of reach"
                )
        if self._rank:
            return None
        beats = {0: self._own_beat(now)} | {rank: beat for rank, (_, beat) in self._beats.items()}
        waiting = [beat for beat in beats.values() if beat.state == 1 and beat.waits]
        if all(beat.seconds <= LEAST for beat in waiting):
            return None
        for rank, beat in beats.items():
            if not beat.waits and beat.seconds > beat.allowed:
                return (
                    f"{self._name(rank)} hangs: it has been busy with "
                    f"{ACTIVITIES[int(beat.activity)]} for {beat.seconds:.0f} s, and others wait"
                )
        return None

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {self._size}"

    def _seems_gone(self, rank: int, beat: Beat) -> bool:
        """Whether silence means that a process is gone; else it is slow, or does not train."""
        if self._is_here(rank):
            return self._is_stopped(rank)
        return beat.state == 1

    def _is_here(self, rank: int) -> bool:
        """Whether a process runs on this machine, and the system shows its state."""
        same = self._processes[rank][0] == self._processes[self._rank][0]
        return same and os.path.isdir("/proc/self")

    def _is_stopped(self, rank: int) -> bool:
        """Whether a process of this machine is stopped, as far as the system shows it."""
        return self._is_here(rank) and _state_of(self._processes[rank][1]) in "Tt"


def death_of(rank: int, size: int, process: int) -> str:
    """The words for a process that has died."""
    return f"rank {rank} of {size} (process {process}) has died, by a signal or for lack of memory"


def _is_dead(process: int) -> bool:
    """Whether a process of this machine has ended, as far as the system shows it."""
    return _state_of(process) in "ZX"


def _state_of(process: int) -> str:
    """The letter of a process's state; "X" if it is gone, and "?" where no system shows it."""
    if not os.path.isdir("/proc/self"):
        return "?"
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def end(line: Line, reason: str, code: int) -> None:
    """Print the reason, and end all processes with an exit code."""
    try:
        with suppress(Exception):  # a signal may come while the program prints
            sys.stderr.flush()
        os.write(2, f"fastcnn: {reason}; the job ends\n".encode(errors="replace"))
        sleep(_FORWARDED)  # a launcher that hears of the end may drop what it has not read
        line.abort(code)
    finally:
        os._exit(code)
