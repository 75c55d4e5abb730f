"""A group whose processes are threads of this one, so that tests need no MPI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Barrier, Thread
from typing import Any, TypeVar

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.distributed import Group
from fastcnn.distributed.groups import Pending

T = TypeVar("T")
_SECONDS = 60.0


class Post:
    """The messages of all threads, by sender, receiver and tag, and a table for all."""

    def __init__(self, size: int) -> None:
        self.boxes = {
            (sender, receiver): SimpleQueue[tuple[int, Array]]()
            for sender in range(size)
            for receiver in range(size)
        }
        self.barrier = Barrier(size, timeout=_SECONDS)
        self.table: list[Any] = [None] * size


class _Receipts(Pending):
    """Arrays that are to come; messages with other tags wait in ``early``."""

    def __init__(self, group: ThreadGroup, receives: Sequence[tuple[Array, int]], tag: int) -> None:
        self._group, self._left, self._tag = group, list(receives), tag

    def done(self) -> bool:
        while self._left:
            array, sender = self._left[0]
            message = self._group.take(sender, self._tag, wait=False)
            if message is None:
                return False
            array[...] = message
            self._left.pop(0)
        return True

    def wait(self) -> None:
        for array, sender in self._left:
            message = self._group.take(sender, self._tag, wait=True)
            assert message is not None
            array[...] = message
        self._left = []


class ThreadGroup(Group):
    """One of several threads; arrays are copied when they are sent."""

    def __init__(self, rank: int, size: int, post: Post, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rank, self.size, self._post = rank, size, post
        self._early: dict[tuple[int, int], list[Array]] = {}

    def post(
        self, sends: Sequence[tuple[Array, int]], receives: Sequence[tuple[Array, int]], tag: int
    ) -> Pending:
        for array, receiver in sends:
            self._post.boxes[self.rank, receiver].put((tag, array.copy()))
        return _Receipts(self, receives, tag)

    def take(self, sender: int, tag: int, *, wait: bool) -> Array | None:
        """The next message of a sender with this tag; None if there is none and nobody waits."""
        early = self._early.get((sender, tag))
        if early:
            return early.pop(0)
        box = self._post.boxes[sender, self.rank]
        while wait or not box.empty():
            other_tag, array = box.get(timeout=_SECONDS)
            if other_tag == tag:
                return array
            self._early.setdefault((sender, other_tag), []).append(array)
        return None

    def _all(self, value: T) -> list[T]:
        self._post.barrier.wait()
        self._post.table[self.rank] = value
        self._post.barrier.wait()
        return list(self._post.table)

    def gathered(self, data: bytes) -> list[bytes]:
        return self._all(data)

    def from_first(self, values: Array) -> Array:
        return np.array(self._all(values)[0])

    def barrier(self) -> None:
        self._all(None)


def together(work: Callable[[Group], T], size: int, *arguments: Any) -> list[T]:
    """The results of ``work(group)`` of each of ``size`` threads; an error of one is raised."""
    post, results, errors = Post(size), [None] * size, list[BaseException]()

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadGroup(rank, size, post, *arguments))  # type: ignore[call-overload]
        except BaseException as error:
            errors.append(error)
            post.barrier.abort()

    threads = [Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * _SECONDS)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)
    return results  # type: ignore[return-value]
