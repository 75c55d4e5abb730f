"""The binary tree along which shards are summed, and the messages that follow it.

A batch is cut into **shards**, which are its leaves. A **block** of level h is 2**h consecutive
leaves, from a multiple of 2**h on; the last block may have fewer leaves. The value of a block is
the sum of its two halves, the lower half first, and the value of the root is the sum of all shards.
A block whose upper half has no leaves has the value of its lower half. So the tree, and each
rounding in it, follow from the number of leaves alone.

Each process owns consecutive shards. It adds what it can without messages (:class:`LocalSums`).
Blocks above have leaves of several processes: each of these processes gets the half that it lacks
from a process that has it, and adds both halves itself (:class:`Plan`). If the number of processes
is a power of two and divides the shards, this is recursive doubling.

Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication Operations
in MPICH", 2005 (recursive doubling).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array


class Block(NamedTuple):
    """The leaves from ``position * 2**level`` on, ``2**level`` of them at most."""

    level: int
    position: int

    @property
    def first(self) -> int:
        """The first leaf."""
        return self.position << self.level

    @property
    def parent(self) -> Block:
        """The block of which this is a half."""
        return Block(self.level + 1, self.position // 2)

    @property
    def halves(self) -> tuple[Block, Block]:
        """The two blocks of which this is made."""
        return Block(self.level - 1, 2 * self.position), Block(
            self.level - 1, 2 * self.position + 1
        )


class Message(NamedTuple):
    """The value of a block that goes to, or comes from, a process of this rank."""

    block: Block
    rank: int


class Round(NamedTuple):
    """Messages that go at the same time, and the blocks that are added after them.

    Attributes:
        sends, receives: the messages.
        sums: blocks whose two halves are added.
    """

    sends: tuple[Message, ...]
    receives: tuple[Message, ...]
    sums: tuple[Block, ...]


class Chain(NamedTuple):
    """How the gradient of a shard enters the local sums.

    Attributes:
        slots: it is added to the first of these slots, the result to the second, and so on. Without
            slots it is copied into ``slot``.
        slot: the slot that holds the shard's block afterwards.
    """

    slots: tuple[int, ...]
    slot: int


class Plan(NamedTuple):
    """What one process does for a sum over all shards.

    Attributes:
        leaves: shards that have samples.
        owned: the first shard of the process, and the one after its last.
        chains: for each of its shards with samples how it enters the local sums.
        slots: for each slot the block that it holds after the last of these shards.
        rounds: the messages and sums that follow.
        root: the block of all leaves.
    """

    leaves: int
    owned: tuple[int, int]
    chains: tuple[Chain, ...]
    slots: tuple[Block, ...]
    rounds: tuple[Round, ...]
    root: Block

    @property
    def runs(self) -> list[slice]:
        """For each slot its shards, as a part of the process's own."""
        first, end = self.owned
        return [
            slice(one.first - first, min(one.first + (1 << one.level), end) - first)
            for one in self.slots
        ]


def sizes_of_shards(samples: int, shards: int) -> list[int]:
    """The number of samples of each shard of a batch; shards without samples are at the end.

    >>> sizes_of_shards(11, 4), sizes_of_shards(2, 4)
    ([3, 3, 3, 2], [1, 1, 0, 0])
    """
    return [samples // shards + (i < samples % shards) for i in range(shards)]


def owned_shards(rank: int, size: int, shards: int) -> tuple[int, int]:
    """The first shard of a process, and the one after its last.

    >>> [owned_shards(rank, 3, 8) for rank in range(3)]
    [(0, 2), (2, 5), (5, 8)]
    """
    return rank * shards // size, (rank + 1) * shards // size


def owner(shard: int, size: int, shards: int) -> int:
    """The rank of the process that owns a shard.

    >>> [owner(shard, 3, 8) for shard in range(8)]
    [0, 0, 1, 1, 1, 2, 2, 2]
    """
    return ((shard + 1) * size - 1) // shards


@lru_cache(maxsize=64)
def plan(leaves: int, shards: int, size: int, rank: int) -> Plan:
    """What the process of this rank does to sum the first ``leaves`` shards of ``shards``.

    >>> one = plan(8, 8, 2, 0)
    >>> one.slots, one.rounds[0].sends
    ((Block(level=2, position=0),), (Message(block=Block(level=2, position=0), rank=1),))
    """
    first, end = owned_shards(rank, size, shards)
    end = max(first, min(end, leaves))
    root = Block((leaves - 1).bit_length(), 0)
    chains, slots = _local(first, end, leaves, root)
    rounds = _rounds(first, end, leaves, shards, size, rank, root)
    return Plan(leaves, (first, end), tuple(chains), tuple(slots), tuple(rounds), root)


def _local(first: int, end: int, leaves: int, root: Block) -> tuple[list[Chain], list[Block]]:
    """How the shards from ``first`` to ``end`` enter slots, and the blocks of the slots then."""
    chains, stack = list[Chain](), list[Block]()
    for shard in range(first, end):
        block, absorbed = Block(0, shard), 0
        while block != root:
            if block.position % 2:
                sibling = Block(block.level, block.position - 1)
                if sibling.first < first:
                    break
                absorbed += 1
            elif Block(block.level, block.position + 1).first < leaves:
                break
            block = block.parent
        slots = tuple(range(len(stack) - 1, len(stack) - 1 - absorbed, -1))
        del stack[len(stack) - absorbed :]
        chains.append(Chain(slots, len(stack)))
        stack.append(block)
    return chains, stack


def _rounds(
    first: int, end: int, leaves: int, shards: int, size: int, rank: int, root: Block
) -> list[Round]:
    """The messages and sums of the blocks that have leaves of this process and of others."""

    def ranks_of(block: Block) -> range:
        last = min(block.first + (1 << block.level), leaves) - 1
        return range(owner(block.first, size, shards), owner(last, size, shards) + 1)

    def exchange(block: Block, lackers: list[int]) -> None:
        holders = ranks_of(block)
        for i, lacker in enumerate(lackers):
            giver = holders[i % len(holders)]
            if giver == rank:
                sends.append(Message(block, lacker))
            if lacker == rank:
                receives.append(Message(block, giver))

    rounds = list[Round]()
    for level in range(1, root.level + 1):
        sends, receives, sums = list[Message](), list[Message](), list[Block]()
        indices = sorted({first >> level, (end - 1) >> level}) if end > first else []
        for index in indices:
            block = Block(level, index)
            lower, upper = block.halves
            if len(ranks_of(block)) == 1:
                continue
            sums.append(block)
            if upper.first >= leaves:
                continue  # the block has the value of its lower half
            for half, other in ((lower, upper), (upper, lower)):
                exchange(half, [one for one in ranks_of(other) if one not in ranks_of(half)])
        if sums:
            rounds.append(Round(tuple(sends), tuple(receives), tuple(sums)))
    sends, receives = [], []
    exchange(root, [*range(len(ranks_of(root)), size)])  # processes without samples
    if sends or receives:
        rounds.append(Round(tuple(sends), tuple(receives), ()))
    return rounds


class LocalSums:
    """The sums of a process's own shards, in flat arrays of which parts may be filled.

    Attributes:
        plan: the plan.
        slots: an array (size,) for each block that is left at the end.
    """

    def __init__(self, of: Plan, size: int, dtype: np.dtype[np.floating]) -> None:
        self.plan = of
        slots_of_chains = max((chain.slot + 1 for chain in of.chains), default=0)
        self.slots = [np.empty(size, dtype) for _ in range(slots_of_chains)]

    def add(self, shard: int, values: Array, part: slice) -> None:
        """Add ``values[part]`` of a shard; for each part the shards must come in their order."""
        chain = self.plan.chains[shard - self.plan.owned[0]]
        if not chain.slots:
            self.slots[chain.slot][part] = values[part]
            return
        value = values[part]
        for slot in chain.slots:
            total = self.slots[slot][part]
            total += value
            value = total

    def blocks(self) -> dict[Block, Array]:
        """The arrays by the blocks that they hold after the last shard."""
        return dict(zip(self.plan.slots, self.slots, strict=False))
