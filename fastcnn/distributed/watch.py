"""The watch over the processes of a group: one that dies, stops or hangs ends all of them.

Each process has a thread that sends a beat twice in a second: to the next process, and to rank 0. A
beat says what its process does, and for how long. So a process that is stopped, or whose machine
is gone, is noticed by the next one, because its beats stay away. A process that lives but no longer
moves on, while others wait for it, is noticed by rank 0.

How long a process may stay with one activity follows from how long it took before: a step that
takes milliseconds may take 8 seconds. An activity without a history, such as loading data, a first
step that compiles kernels, or a first checkpoint, has the limit that ``world(patience=…)`` sets.
A process that has died is noticed within seconds, whatever the others do.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from time import monotonic, sleep
from typing import Any, NamedTuple

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
_TIMES_LONGER, _HISTORY = 20, 3
_TAG = 7

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


class Watch:
    """The beats of a process, and the look at those of others.

    Args:
        comm: a communicator of its own, of the class ``mpi4py.MPI.Intracomm``.
        processes: for each rank a number of its machine, and the number of its process there.
        patience: seconds that an activity without a history may take.
        guard: of this process.
    """

    def __init__(
        self, comm: Any, processes: Sequence[tuple[int, int]], patience: float, guard: Guard
    ) -> None:
        self.patience, self._guard = patience, guard
        self._comm, self._rank, self._size = comm, comm.rank, comm.size
        self._state, self._waits, self._activity = 0, False, 0
        self._since = monotonic()
        # For each activity how often it was done, and the longest time of it.
        self._history = [[0, 0.0] for _ in ACTIVITIES]
        self._beats: dict[int, tuple[float, Beat]] = {}
        self._sent: list[Any] = []
        self._ended = False
        self._processes = processes
        before = (self._rank - 1) % self._size
        same = processes[before][0] == processes[self._rank][0]
        # The process before this one, if its machine is this one.
        self._neighbour = (before, processes[before][1]) if same else None
        targets = {0, (self._rank + 1) % self._size} - {self._rank}
        self._targets = sorted(targets)
        Thread(target=self._run, name="fastcnn-watch", daemon=True).start()

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
        now = monotonic()
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
        if not self._ended:
            self._ended, self._state = True, 2
            self._send(monotonic())
            self._guard.leave()

    def _run(self) -> None:
        reason: str | None = None
        while not self._ended:
            now = monotonic()
            self._send(now)
            self._receive(now)
            # A training that ends on all processes may look wrong for a moment.
            before = reason
            reason = self._wrong(monotonic()) if self._state == 1 else self._death()
            if before is not None and reason is not None and not self._ended:
                self.end(reason)
            sleep(INTERVAL)

    def end(self, reason: str) -> None:
        """Print the reason, and end all processes."""
        self._guard.let_speak()
        self._kill_silent(monotonic())
        end(self._comm, reason)

    def _kill_silent(self, now: float) -> None:
        """Kill stopped processes of this machine, because launchers may wait for them."""
        for rank, (at, _) in self._beats.items():
            machine, process = self._processes[rank]
            if now - at > SILENCE and machine == self._processes[self._rank][0]:
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)

    def _send(self, now: float) -> None:
        beat = Beat(self._state, self._waits, now - self._since, self._allowed(), self._activity)
        self._sent = [one for one in self._sent if not one[0].Test()]
        for target in self._targets:
            numbers = np.array(beat)
            self._sent.append((self._comm.Isend(numbers, target, _TAG), numbers))

    def _receive(self, now: float) -> None:
        from mpi4py import MPI

        status = MPI.Status()
        while self._comm.Iprobe(MPI.ANY_SOURCE, _TAG, status):
            numbers: Array = np.empty(len(Beat._fields))
            self._comm.Recv(numbers, status.Get_source(), _TAG)
            self._beats[status.Get_source()] = now, Beat(*numbers.tolist())

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
            stopped = now - at > SILENCE and self._is_stopped(rank)
            if stopped or (now - at > (SILENCE if beat.state == 1 else self.patience)):
                return (
                    f"{self._name(rank)} has given no sign of life for {now - at:.0f} s: it is "
                    f"stopped, or its machine is out of reach"
                )
        if self._rank:
            return None
        own = Beat(self._state, self._waits, now - self._since, self._allowed(), self._activity)
        beats = {0: own} | {rank: beat for rank, (_, beat) in self._beats.items()}
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

    def _is_stopped(self, rank: int) -> bool:
        """Whether a process of this machine is stopped, as far as the system shows it."""
        machine, process = self._processes[rank]
        return machine == self._processes[self._rank][0] and _state_of(process) in "Tt"


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


def end(comm: Any, reason: str) -> None:
    """Print the reason, and end all processes of the communicator."""
    print(f"fastcnn: {reason}; the job ends", file=sys.stderr, flush=True)
    try:
        sleep(_FORWARDED)  # a launcher that hears of the end may drop what it has not read
        comm.Abort(1)
    finally:
        os._exit(1)
