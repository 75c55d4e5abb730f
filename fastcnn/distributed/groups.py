"""A group of processes that train one model together, and the sums that they take.

:class:`Group` says which shards of a batch belong to this process and adds arrays over all shards.
It has one process and needs no MPI; :class:`fastcnn.distributed.mpi.MPIGroup` sends messages too.
Both add along the tree of :mod:`fastcnn.distributed.tree`, so that a sum has the same bits for any
number of processes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.halving import Add, sum_by_halves
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.distributed.calls import GRADIENTS, OVER_SHARDS
from fastcnn.distributed.tree import (
    Block,
    LocalSums,
    Plan,
    owned_shards,
    owner,
    plan,
    sizes_of_shards,
)

Statistics: TypeAlias = Literal["batch", "shard"]
"""What a batch normalisation takes its mean and variance of in training."""

BUCKET = 1 << 20
"""Bytes of gradients that leave together, at least, while the backward pass goes on."""

_MOST_AXES = 4  # of arrays that are combined
_COMBINED_TAG = 30_000  # tags below are those of buckets; MPI has 32,767 at least


class Pending:
    """Messages under way; this one is of none."""

    def done(self) -> bool:
        """Whether all messages have arrived and left; it lets them move on."""
        return True

    def wait(self) -> None:
        """Wait until :meth:`done`."""


class Group:
    """The processes of a training, of which this is a group of one.

    A batch is cut into ``shards`` parts of equal size, up to one sample. The shards decide how sums
    are rounded, and the number of processes does not.

    Attributes:
        rank, size: the number of this process, from 0, and the number of processes.
        shards: parts of a batch; at least as many as processes.
        statistics: "batch", if a batch normalisation takes its mean and variance over the whole
            batch, or "shard".
    """

    rank = 0
    size = 1

    def __init__(self, shards: int = 8, statistics: Statistics = "batch") -> None:
        self.shards = count("shards", shards)
        if statistics not in ("batch", "shard"):
            raise ValueError(f'statistics must be "batch" or "shard", got {quoted(statistics)}')
        self.statistics: Statistics = statistics
        self._sums: dict[tuple[int, int, str], GradientSum] = {}

    def __repr__(self) -> str:
        return f"<group of {self.size}, rank {self.rank}, {self.shards} shards>"

    # --- shards -----------------------------------------------------------------------------------

    def plan(self, leaves: int) -> Plan:
        """What this process does to sum the first ``leaves`` shards."""
        return plan(leaves, self.shards, self.size, self.rank)

    def shards_of(self, samples: int) -> list[tuple[int, slice]]:
        """The shards of this process that have samples, each with its rows of the batch.

        >>> Group(shards=3).shards_of(7)
        [(0, slice(0, 3, None)), (1, slice(3, 5, None)), (2, slice(5, 7, None))]
        """
        sizes = sizes_of_shards(samples, self.shards)
        first, end = owned_shards(self.rank, self.size, self.shards)
        start, result = sum(sizes[:first]), []
        for shard in range(first, end):
            if sizes[shard]:
                result.append((shard, slice(start, start + sizes[shard])))
            start += sizes[shard]
        return result

    def share_of(self, total: int) -> range:
        """The part of ``range(total)`` that falls to this process, such as batches to evaluate.

        >>> Group().share_of(5)
        range(0, 5)
        """
        return range(self.rank * total // self.size, (self.rank + 1) * total // self.size)

    # --- sums -------------------------------------------------------------------------------------

    def sum_of_gradients(self, samples: int, into: Array) -> GradientSum:
        """A sum of flat gradients over the shards of a batch, which goes to ``into``."""
        self.enter(GRADIENTS, samples, into)
        leaves = min(samples, self.shards)
        key = leaves, into.size, into.dtype.char
        if key not in self._sums:
            if len(self._sums) > 3:  # memory of the shapes of batches that there were before
                self._sums.clear()
            self._sums[key] = GradientSum(self, leaves, into)
        result = self._sums[key]
        result.begin(into)
        return result

    def combined(self, parts: Sequence[Array] | Array, samples: int, add: Add = np.add) -> Array:
        """The sum of an array of each shard, on all processes.

        Args:
            parts: an array for each shard of this process that has samples, all of one shape and
                dtype; in a list, or along the first axis of one array.
            samples: of the whole batch.
            add: what is done with two halves.
        """
        self.enter(OVER_SHARDS, samples, parts[0] if len(parts) else None)
        of = self.plan(min(samples, self.shards))
        run_sums = [sum_by_halves(parts[run], add) for run in of.runs]
        values = dict[Block, Array](zip(of.slots, run_sums, strict=True))
        if of.rounds:
            like = self._like(parts, of.leaves)
            for one in of.rounds:
                received = [(np.empty_like(like), message) for message in one.receives]
                sent = [(np.ascontiguousarray(values[m.block]), m.rank) for m in one.sends]
                from_others = [(array, m.rank) for array, m in received]
                self.post(sent, from_others, _COMBINED_TAG).wait()
                values.update((message.block, array) for array, message in received)
                for block in one.sums:
                    lower, upper = block.halves
                    alone = upper.first >= of.leaves
                    values[block] = values[lower] if alone else add(values[lower], values[upper])
        return values[of.root]

    def _like(self, parts: Sequence[Array] | Array, leaves: int) -> Array:
        """An array of the parts' shape and dtype, also on a process without a part."""
        if owner(leaves - 1, self.size, self.shards) == self.size - 1:
            return np.empty_like(parts[0])
        # Rank 0 has a part, because the first shards have samples.
        numbers = np.zeros(2 + _MOST_AXES)
        if len(parts):
            kind, shape = ord(parts[0].dtype.char), parts[0].shape
            numbers[: 2 + len(shape)] = kind, len(shape), *shape
        kind, axes, *sides = map(int, self.from_first(numbers))
        return np.empty(sides[:axes], chr(kind))

    # --- messages, which a group of one does without ----------------------------------------------

    def post(
        self,
        sends: Sequence[tuple[Array, int]],
        receives: Sequence[tuple[Array, int]],
        tag: int,
    ) -> Pending:
        """Send contiguous arrays to ranks, and receive into arrays from ranks."""
        return Pending()

    def enter(self, kind: int, samples: int = 0, like: Array | None = None) -> None:
        """Say which call this process makes, because all processes must make the same.

        A call that differs from that of rank 0 raises ``RuntimeError`` on all processes, here or
        before the call ends.

        Args:
            kind: an index of :data:`fastcnn.distributed.calls.KINDS`.
            samples: of the batch.
            like: an array of the sizes and dtype that all must have; None where there is none, or
                where this process has no part of a sum.
        """

    def settle(self) -> None:
        """Wait until the calls so far are known to be those of all processes."""

    def from_first(self, values: Array) -> Array:
        """The array of rank 0, on all processes; all give one of the same shape and dtype."""
        return values

    def gathered(self, data: bytes) -> list[bytes]:
        """The bytes of all processes, by rank."""
        return [data]

    def any(self, flag: bool) -> bool:
        """Whether the flag of at least one process is true; the same on all."""
        return b"1" in self.gathered(b"1" if flag else b"0")

    def everyones(self, text: str) -> list[str]:
        """The texts of all processes, by rank."""
        return [data.decode() for data in self.gathered(text.encode())]

    def barrier(self) -> None:
        """Wait for all processes."""

    def leave(self) -> None:
        """Say that this process ends well, before it ends in a way that runs no exit handlers.

        All processes do so, and they have no other call after it.
        """

    def be_patient(self, patience: float) -> None:
        """Wait for so many seconds where nothing says how long a process may take."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within this context a process that dies, stops or hangs ends all; they leave together."""
        yield

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Within this context an error of one process ends all of them."""
        yield

    @contextmanager
    def busy(self, activity: str) -> Iterator[None]:
        """Within this context the process is known to do this, should others wait for it."""
        yield

    # --- agreement --------------------------------------------------------------------------------

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Within this context an error of one process becomes an error of all.

        A process without an error of its own gets a ``RuntimeError`` that names the rank and quotes
        its error. So nobody waits for a process that has gone.
        """
        own_error: Exception | None = None
        try:
            yield
        except Exception as error:
            own_error = error
        texts = self.everyones(
            "" if own_error is None else f"{type(own_error).__name__}: {own_error}"
        )
        if own_error is not None:
            raise own_error
        for rank, text in enumerate(texts):
            if text:
                raise RuntimeError(f"rank {rank} of {self.size} cannot begin: {text}")

    def check_same(self, facts: Mapping[str, object], advice: str) -> None:
        """Raise ``ValueError`` on all processes where a fact is not the same on all.

        Args:
            facts: texts or numbers by the name of the argument that they tell of.
            advice: what would make them the same.
        """
        lines = [f"{name}\0{value}" for name, value in facts.items()]
        everyones = [text.split("\1") for text in self.everyones("\1".join(lines))]
        for rank, others in enumerate(everyones):
            for one, other in zip(everyones[0], others, strict=False):
                if one != other:
                    name = one.partition("\0")[0]
                    raise ValueError(
                        f"{name} must be the same on all processes, but rank {rank} of "
                        f"{self.size} has another than rank 0; {advice}"
                    )


class GradientSum:
    """A sum of flat gradients over the shards of a batch, in parts that may leave early.

    :meth:`add` takes a part of a shard's gradient, or :meth:`put` a part of the sum over the shards
    of a slot. When all shards of this process have added a part, :meth:`leave` lets it go.
    :meth:`finish` waits for all parts.
    """

    def __init__(self, group: Group, leaves: int, like: Array) -> None:
        self._group, self._plan = group, group.plan(leaves)
        self._sums_of_shards: LocalSums | None = None
        self._into = like
        # For each block that comes from another process its memory.
        self._received = {
            message.block: np.empty_like(like)
            for one in self._plan.rounds
            for message in one.receives
            if message.block != self._plan.root
        }
        self._parts = list[slice]()
        self._bytes = 0
        self._walks = list[tuple[Generator[Pending], Pending]]()
        self._number = 0

    def begin(self, into: Array) -> None:
        """Begin a new sum, whose result goes to ``into``."""
        self._into, self._number, self._in_place = into, 0, False
        self._parts, self._bytes, self._walks = [], 0, []

    @property
    def last_shard(self) -> int:
        """The last shard of this process, or -1."""
        first, end = self._plan.owned
        return end - 1 if end > first else -1

    @property
    def runs(self) -> list[slice]:
        """For each slot its shards, as a part of this process's own."""
        return self._plan.runs

    @property
    def _local(self) -> LocalSums:
        if self._sums_of_shards is None:
            self._sums_of_shards = LocalSums(self._plan, self._into.size, self._into.dtype)
        return self._sums_of_shards

    def add(self, shard: int, values: Array, part: slice) -> None:
        """Add ``values[part]`` of the gradient of a shard."""
        self._local.add(shard, values, part)

    def put(self, slot: int, part: slice) -> None:
        """Take ``into[part]`` as the sum over the shards of a slot; the slots go down to 0.

        The part of slot 0 stays where it is, until :meth:`leave` lets it go.
        """
        self._in_place = True
        if slot:
            self._local.slots[slot][part] = self._into[part]

    def _blocks(self) -> dict[Block, Array]:
        """The arrays by the blocks whose sums they hold."""
        if not self._in_place:
            return self._local.blocks()
        later_sums = self._local.slots[1:] if len(self._plan.slots) > 1 else []
        return dict(zip(self._plan.slots, [self._into, *later_sums], strict=False))

    def leave(self, part: slice) -> None:
        """Let a part go; small ones wait for others beside them.

        All processes let the same parts go in the same order, because a message's tag is the number
        of its part.
        """
        if not self._plan.rounds:
            if not self._in_place:
                self._into[part] = self._local.blocks()[self._plan.root][part]
            return
        last = self._parts[-1] if self._parts else None
        if last is not None and part.stop == last.start:  # the way back goes down
            self._parts[-1] = slice(part.start, last.stop)
        elif last is not None and part.start == last.stop:
            self._parts[-1] = slice(last.start, part.stop)
        else:
            self._parts.append(part)
        self._bytes += (part.stop - part.start) * self._into.itemsize
        if self._bytes >= BUCKET:
            self.leave_all()
        self._advance()

    def finish(self) -> None:
        """Wait until the sums of all parts have arrived."""
        self.leave_all()
        while self._walks:
            walk, pending = self._walks.pop(0)
            pending.wait()
            for more in walk:
                more.wait()
        self._group.settle()

    def leave_all(self) -> None:
        """Let parts go that wait for others beside them."""
        for part in self._parts:
            walk = self._walk(part, self._number % _COMBINED_TAG)
            self._number += 1
            self._walks.append((walk, next(walk)))
        self._parts, self._bytes = [], 0

    def _advance(self) -> None:
        """Let messages move on."""
        walks = []
        for walk, pending in self._walks:
            current: Pending | None = pending
            while current is not None and current.done():
                current = next(walk, None)
            if current is not None:
                walks.append((walk, current))
        self._walks = walks

    def _walk(self, part: slice, number: int) -> Generator[Pending]:
        """The rounds of a part; after each step its messages are under way."""
        of, into = self._plan, self._into
        values = self._blocks()
        values.update(self._received)
        values.setdefault(of.root, into)
        for one in of.rounds:
            sends = [(values[message.block][part], message.rank) for message in one.sends]
            receives = [(values[message.block][part], message.rank) for message in one.receives]
            yield self._group.post(sends, receives, number)
            for block in one.sums:
                lower, upper = block.halves
                if upper.first >= of.leaves:
                    values[block] = values[lower]
                    continue
                result = into if block == of.root else self._own(block)
                np.add(values[lower][part], values[upper][part], out=result[part])
                values[block] = result
        root = values[of.root]
        if root is not into:
            into[part] = root[part]

    def _own(self, block: Block) -> Array:
        """Memory for the sum of a block that has leaves of other processes."""
        if block not in self._received:
            self._received[block] = np.empty_like(self._into)
        return self._received[block]
