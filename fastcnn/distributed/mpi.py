"""A group of the processes that ``mpiexec`` or ``srun`` has started, by mpi4py."""

from __future__ import annotations

import atexit
import os
import platform
import secrets
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, sleep
from types import TracebackType
from typing import Any
from zlib import crc32

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import Divergence
from fastcnn.core.hardware import cores
from fastcnn.core.settings import current_thread_limit, set_num_threads
from fastcnn.distributed.groups import Group, Pending, Statistics
from fastcnn.distributed.guard import Guard
from fastcnn.distributed.watch import Watch, death_of

_SPIN = 0.0005  # seconds for which a process looks for messages without giving up its core
_NAP_AFTER, _NAP = 0.02, 0.0002
_CHOSEN = ("FASTCNN_NUM_THREADS", "set_num_threads")


class Messages(Pending):
    """Messages under way by MPI."""

    def __init__(self, group: MPIGroup, requests: list[Any]) -> None:
        self._group, self._requests = group, requests

    def done(self) -> bool:
        from mpi4py import MPI

        return not self._requests or bool(MPI.Request.Testall(self._requests))

    def wait(self) -> None:
        if not self.done():
            self._group.wait_for(self)


class MPIGroup(Group):
    """The processes of a communicator.

    Args:
        comm: an ``mpi4py.MPI.Intracomm``; the group makes copies of it for its own messages.
        shards, statistics, patience: as for :func:`fastcnn.distributed.world`.
    """

    def __init__(
        self,
        comm: Any,
        shards: int,
        statistics: Statistics,
        patience: float,
    ) -> None:
        super().__init__(shards, statistics)
        self.rank, self.size = comm.rank, comm.size
        if self.shards < self.size:
            raise ValueError(
                f"shards must be at least the number of processes, {self.size}, got {self.shards}; "
                f"take a multiple of it, such as world(shards={2 * self.size})"
            )
        self._comm = comm.Dup()
        local, threads = _threads(comm)
        if current_thread_limit().decided_by not in _CHOSEN:
            set_num_threads(threads)
        self._spin = _SPIN if local <= cores() else 0.0
        self._watch = _watch_over(comm, patience) if self.size > 1 else None

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
        with self._watch.waiting():
            self._poll(pending)

    def _poll(self, pending: Pending) -> None:
        start = perf_counter()
        while not pending.done():
            waited = perf_counter() - start
            if waited > _NAP_AFTER:
                sleep(_NAP)
            elif waited >= self._spin:
                _give_way()

    def from_first(self, values: Array) -> Array:
        result = np.array(values)
        if self.size > 1:
            Messages(self, [self._comm.Ibcast(_bytes(result), 0)]).wait()
        return result

    def gathered(self, data: bytes) -> list[bytes]:
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

    def barrier(self) -> None:
        Messages(self, [self._comm.Ibarrier()]).wait()

    def be_patient(self, patience: float) -> None:
        if self._watch is not None:
            self._watch.patience = patience

    # --- faults -----------------------------------------------------------------------------------

    @contextmanager
    def watched(self) -> Iterator[None]:
        if self._watch is None:
            yield
            return
        with self._watch.training():
            yield
            self.barrier()  # because the program of one may end while another trains

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
        traceback.print_exception(error)
        reason = f"rank {self.rank} of {self.size} has failed: {type(error).__name__}: {error}"
        self._watch.end(reason)

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
    own = np.zeros(max(cores(), 1 + max(_own_cores())), np.int32)
    own[_own_cores()] = 1
    size = np.array([len(own)])
    here.Allreduce(MPI.IN_PLACE, size, MPI.MAX)
    padded = np.zeros(int(size[0]), np.int32)
    padded[: len(own)] = own
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


def _watch_over(comm: Any, patience: float) -> Watch:
    """The watch of this process, one for all groups of a communicator."""
    key = comm.py2f()
    if key not in _watches:
        names = np.empty((comm.size, 3), np.int64)
        own = crc32(platform.node().encode()), os.getpid(), secrets.randbits(62)
        comm.Allgather(np.array(own), names)
        message = death_of(comm.rank, comm.size, os.getpid())
        guard = Guard(f"fastcnn: {message}; the job ends", str(names[0, 2]))
        _watches[key] = Watch(comm.Dup(), names[:, :2].tolist(), patience, guard)
        atexit.register(_watches[key].leave)
        _end_with_errors(comm, _watches[key])
    return _watches[key]


_watches: dict[int, Watch] = {}


def _end_with_errors(comm: Any, watch: Watch) -> None:
    """Let an error that nobody catches end all processes, because others may wait for this one."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        sys.stderr.flush()
        watch.end(f"rank {comm.rank} of {comm.size} has failed: {kind.__name__}: {error}")

    sys.excepthook = hook
