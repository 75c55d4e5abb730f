"""A group of the processes that ``mpiexec`` or ``srun`` has started, by mpi4py."""

from __future__ import annotations

import atexit
import os
import platform
import secrets
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, sleep
from types import FrameType, TracebackType
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import Divergence
from fastcnn.core.hardware import cores
from fastcnn.core.settings import current_thread_limit, set_num_threads
from fastcnn.distributed.calls import (
    BARRIER,
    FROM_FIRST,
    GATHERING,
    OVER_SHARDS,
    VOTE,
    Call,
    are_same,
    as_numbers,
    difference,
    from_numbers,
)
from fastcnn.distributed.groups import Group, Pending, Statistics
from fastcnn.distributed.guard import Guard
from fastcnn.distributed.watch import Beat, Watch, death_of

_SPIN = 0.0005  # seconds for which a process looks for messages without giving up its core
_NAP_AFTER, _NAP = 0.02, 0.0002
_BEAT = 7  # tag of beats
_INTERRUPTED, _TERMINATED = 130, 143  # exit codes, as those of a shell
_CHOSEN = ("FASTCNN_NUM_THREADS", "set_num_threads")


class Comparison:
    """Compares the calls of this process with those of all others, while messages are under way.

    Args:
        comm: a communicator, of which the comparison makes copies for itself.
    """

    def __init__(self, comm: Any) -> None:
        self._comm, self._comm_of_differences = comm.Dup(), comm.Dup()
        self._under_way = list[tuple[Any, Array, Array]]()
        self._difference: str | None = None

    def begin(self, call: Call) -> None:
        """Begin to compare a call; ``RuntimeError`` if an earlier one was different."""
        from mpi4py import MPI

        if self._difference is not None:
            raise RuntimeError(self._difference)
        own_numbers = as_numbers(call)
        largest = np.empty_like(own_numbers)
        request = self._comm.Iallreduce(own_numbers, largest, MPI.MAX)
        self._under_way.append((request, own_numbers, largest))

    def done(self) -> bool:
        """Whether all calls so far have been compared; ``RuntimeError`` if one was different."""
        if self._difference is not None:
            raise RuntimeError(self._difference)
        while self._under_way:
            request, own, largest = self._under_way[0]
            if not request.Test():
                return False
            del self._under_way[0]
            if not are_same(own, largest):
                self._difference = self._described(own)
                raise RuntimeError(self._difference)
        return True

    def _described(self, own: Array) -> str:
        """The words for the difference, which all processes have noticed in the same call."""
        calls = np.empty((self._comm.size, own.size), np.int64)
        request = self._comm_of_differences.Iallgather(own, calls)
        while not request.Test():
            sleep(_NAP)
        return difference([from_numbers(numbers) for numbers in calls])


class Messages(Pending):
    """Messages under way by MPI; none arrives before the call is known to be that of all."""

    def __init__(self, group: MPIGroup, requests: list[Any]) -> None:
        self._group, self._requests = group, requests

    def done(self) -> bool:
        from mpi4py import MPI

        if not self._group.calls.done():
            return False
        return not self._requests or bool(MPI.Request.Testall(self._requests))

    def wait(self) -> None:
        if not self.done():
            self._group.wait_for(self)


class BeatLine:
    """Beats by MPI.

    Args:
        comm: a communicator of its own.
    """

    def __init__(self, comm: Any) -> None:
        self._comm, self.rank, self.size = comm, int(comm.rank), int(comm.size)
        self._sent = list[tuple[Any, Array]]()

    def send(self, numbers: Array, rank: int) -> None:
        self._sent = [one for one in self._sent if not one[0].Test()]
        self._sent.append((self._comm.Isend(numbers, rank, _BEAT), numbers))

    def received(self) -> list[tuple[int, Array]]:
        from mpi4py import MPI

        status, result = MPI.Status(), list[tuple[int, Array]]()
        while self._comm.Iprobe(MPI.ANY_SOURCE, _BEAT, status):
            numbers = np.empty(len(Beat._fields))
            self._comm.Recv(numbers, status.Get_source(), _BEAT)
            result.append((status.Get_source(), numbers))
        return result

    def abort(self, code: int) -> None:
        self._comm.Abort(code)


class _Job(NamedTuple):
    """What all groups of a communicator share.

    Attributes:
        comm: for the messages of the groups.
        calls: compares the calls of the processes.
        watch: over the other processes; None if there are none.
        local: processes on this machine.
    """

    comm: Any
    calls: Comparison
    watch: Watch | None
    local: int


class MPIGroup(Group):
    """The processes of a communicator.

    Args:
        comm: an ``mpi4py.MPI.Intracomm``; the group makes copies of it for its own messages.
        shards, statistics, patience: as for :func:`fastcnn.distributed.world`.
    """

    def __init__(self, comm: Any, shards: int, statistics: Statistics, patience: float) -> None:
        super().__init__(shards, statistics)
        self.rank, self.size = comm.rank, comm.size
        if self.shards < self.size:
            raise ValueError(
                f"shards must be at least the number of processes, {self.size}, got {self.shards}; "
                f"take a multiple of it, such as world(shards={2 * self.size})"
            )
        job = _job_of(comm, patience)
        self._comm, self.calls, self._watch = job.comm, job.calls, job.watch
        self._spin = _SPIN if job.local <= cores() else 0.0
        # Messages of a call that was not that of all; MPI may still write to their arrays.
        self._refused = list[Pending]()

    # --- messages ---------------------------------------------------------------------------------

    def post(
        self,
        sends: Sequence[tuple[Array, int]],
        receives: Sequence[tuple[Array, int]],
        tag: int,
    ) -> Pending:
        requests = [self._comm.Irecv(_bytes(array), rank, tag) for array, rank in receives]
        requests += [self._comm.Isend(_bytes(array), rank, tag) for array, rank in sends]
        return Messages(self, requests)

    def wait_for(self, pending: Pending) -> None:
        """Wait, and give up the core after a moment, because other processes may need it."""
        if self._watch is None:
            self._poll(pending)
            return
        try:
            with self._watch.waiting():
                self._poll(pending)
        except RuntimeError:
            self._refused.append(pending)
            raise

    def _poll(self, pending: Pending) -> None:
        start = perf_counter()
        while not pending.done():
            waited = perf_counter() - start
            if waited > _NAP_AFTER:
                sleep(_NAP)
            elif waited >= self._spin:
                _give_way()

    def enter(self, kind: int, samples: int = 0, like: Array | None = None) -> None:
        if self.size == 1:
            return
        if like is not None:
            numbers: tuple[int | None, int | None] = like.size, ord(like.dtype.char)
        else:
            numbers = (None, None) if kind == OVER_SHARDS else (0, 0)
        over_batch = int(self.statistics == "batch")
        self.calls.begin(Call(kind, self.shards, over_batch, samples, *numbers))

    def settle(self) -> None:
        Messages(self, []).wait()

    def from_first(self, values: Array) -> Array:
        result = np.array(values)
        self.enter(FROM_FIRST, like=result)
        if self.size > 1:
            Messages(self, [self._comm.Ibcast(_bytes(result), 0)]).wait()
        return result

    def gathered(self, data: bytes) -> list[bytes]:
        self.enter(GATHERING)
        lengths, own = np.empty(self.size, np.int64), np.array([len(data)], np.int64)
        Messages(self, [self._comm.Iallgather(own, lengths)]).wait()
        result = np.empty(int(lengths.sum()), np.uint8)
        sent = np.frombuffer(data, np.uint8)
        Messages(self, [self._comm.Iallgatherv(sent, (result, lengths))]).wait()
        ends = np.cumsum(lengths)
        return [
            result[stop - length : stop].tobytes()
            for stop, length in zip(ends, lengths, strict=True)
        ]

    def any(self, flag: bool) -> bool:
        result = np.array([flag], np.uint8)
        self.enter(VOTE)
        if self.size > 1:
            from mpi4py import MPI

            Messages(self, [self._comm.Iallreduce(MPI.IN_PLACE, result, MPI.MAX)]).wait()
        return bool(result[0])

    def barrier(self) -> None:
        self.enter(BARRIER)
        self.settle()  # no process has compared its call before all have begun it

    def be_patient(self, patience: float) -> None:
        if self._watch is not None:
            self._watch.patience = patience

    # --- faults -----------------------------------------------------------------------------------

    @contextmanager
    def watched(self) -> Iterator[None]:
        if self._watch is None:
            yield
            return
        with self._watch.training(), self._listening():
            yield
            self.barrier()  # because the program of one may end while another trains

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Within this context SIGTERM ends all processes, where the program does not use it."""
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            assert self._watch is not None
            self._watch.end(f"{self._name} has been told to end (SIGTERM)", _TERMINATED)

        signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        try:
            yield
        except FloatingPointError as error:
            if not isinstance(error.__context__, Divergence):
                self._end(error)
            raise  # all processes have it, because they have the same sum of losses
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, error: BaseException) -> None:
        if self._watch is None:
            return
        if not isinstance(error, KeyboardInterrupt):
            traceback.print_exception(error)
        _end_with(self._watch, self._name, error)

    @property
    def _name(self) -> str:
        return f"rank {self.rank} of {self.size}"

    def leave(self) -> None:
        if self._watch is not None:
            from mpi4py import MPI

            self.barrier()
            self._watch.leave()
            MPI.Finalize()

    @contextmanager
    def busy(self, activity: str) -> Iterator[None]:
        if self._watch is None:
            yield
            return
        with self._watch.doing(activity):
            yield


def _bytes(array: Array) -> Array:
    """The memory of a contiguous array, as MPI takes it without a table of types."""
    return array.reshape(-1).view(np.uint8)


def _give_way() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        sleep(0)


def _threads(comm: Any) -> tuple[int, int]:
    """The processes on this machine, and the threads that fall to this one.

    A core that MPI has bound to this process alone counts as one, and a core that several processes
    may use is divided among them.
    """
    from mpi4py import MPI

    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    own_cores = np.zeros(max(cores(), 1 + max(_own_cores())), np.int32)
    own_cores[_own_cores()] = 1
    size = np.array([len(own_cores)])
    here.Allreduce(MPI.IN_PLACE, size, MPI.MAX)
    padded = np.zeros(int(size[0]), np.int32)
    padded[: len(own_cores)] = own_cores
    users = np.empty_like(padded)
    here.Allreduce(padded, users, MPI.SUM)
    share = float((padded[padded > 0] / users[padded > 0]).sum())
    local = here.size
    here.Free()
    return local, max(1, min(int(share + 1e-9), current_thread_limit().threads))


def _own_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [*range(cores())]


def _job_of(comm: Any, patience: float) -> _Job:
    """What the groups of a communicator share, which the first of them makes."""
    key = comm.py2f()
    if key not in _jobs:
        local, threads = _threads(comm)
        if current_thread_limit().decided_by not in _CHOSEN:
            set_num_threads(threads)
        watch = _watch_over(comm, patience) if comm.size > 1 else None
        _jobs[key] = _Job(comm.Dup(), Comparison(comm), watch, local)
    return _jobs[key]


_jobs: dict[int, _Job] = {}


def _watch_over(comm: Any, patience: float) -> Watch:
    """The watch of this process."""
    names = np.empty((comm.size, 3), np.int64)
    identity = crc32(platform.node().encode()), os.getpid(), secrets.randbits(62)
    comm.Allgather(np.array(identity), names)
    message = death_of(comm.rank, comm.size, os.getpid())
    guard = Guard(f"fastcnn: {message}; the job ends", str(names[0, 2]))
    watch = Watch(BeatLine(comm.Dup()), names[:, :2].tolist(), patience, guard)
    watch.start()
    atexit.register(watch.leave)
    _end_with_errors(comm, watch)
    return watch


def _end_with_errors(comm: Any, watch: Watch) -> None:
    """Let an error that nobody catches end all processes, because others may wait for this one."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        _end_with(watch, f"rank {comm.rank} of {comm.size}", error)

    sys.excepthook = hook


def _end_with(watch: Watch, name: str, error: BaseException) -> None:
    """End all processes because of an error in the process of this name."""
    if isinstance(error, KeyboardInterrupt):
        watch.end(f"{name} has been interrupted", _INTERRUPTED)
    else:
        watch.end(f"{name} has failed: {type(error).__name__}: {error}")
