"""The shards of a batch, and what a training in a group of processes does with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.data.several import Data
from fastcnn.distributed import Group


class Shard(NamedTuple):
    """Some samples of a batch.

    Attributes:
        number: among the shards of the batch.
        rows: where its samples lie in the arrays of the process's shards.
        rng: a generator of the shard's own, the same in whichever process; None where nothing is
            random.
    """

    number: int
    rows: slice
    rng: np.random.Generator | None

    @property
    def size(self) -> int:
        """The number of its samples."""
        return int(self.rows.stop - self.rows.start)


class Shards(NamedTuple):
    """The shards of a process.

    Attributes:
        shards: the shards; their rows follow on each other.
        images, targets: the samples of all of them.
        weights: how much the loss of each sample counts, or None.
        total: samples of the whole batch, with those of other processes.
    """

    shards: Sequence[Shard]
    images: Data
    targets: Data
    weights: Array | None
    total: int


class Sharding(NamedTuple):
    """How a training in a group runs.

    Attributes:
        group: the processes.
        step: takes a step on the shards of this process; the sum of all losses of the batch, and
            how many of its samples are right.
        draws: whether anything is random in a step.
        check: raises ``ValueError`` on all processes where their models are no longer the same.
    """

    group: Group
    step: Callable[[Shards], tuple[float, float]]
    draws: bool
    check: Callable[[], None]

    def of_first(self, value: float) -> float:
        """The number of rank 0."""
        return float(self.group.from_first(np.array([float(value)]))[0])

    def rows(self, samples: int) -> list[tuple[int, slice]]:
        """The shards of this process with their rows of a batch.

        A process whose shards have no samples gets the first shard. It takes part in the exchanges
        of the step, and its results do not count.
        """
        return self.group.shards_of(samples) or Group(self.group.shards).shards_of(samples)[:1]

    def generators(
        self, rng: np.random.Generator, numbers: Sequence[int]
    ) -> list[np.random.Generator | None]:
        """A generator for each of these shards of a batch, from the generator of the model."""
        if not self.draws:
            return [None] * len(numbers)
        words = rng.integers(1 << 63, size=2, dtype=np.uint64)
        return [
            np.random.Generator(np.random.Philox(key=words + np.array([0, number], np.uint64)))
            for number in numbers
        ]
