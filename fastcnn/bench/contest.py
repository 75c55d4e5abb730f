"""A contest: one computation, and all who run it.

Every runner computes the same thing from the same numbers, and shows its result in fastcnn's
layout, so that it can be held against the reference before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.settings import get_num_threads, set_num_threads


class WrongResult(AssertionError):
    """A runner computes something else than the reference; it is not timed."""


class CannotRun(RuntimeError):
    """A runner fails for want of something that its first call needs; it is not timed."""


@dataclass(frozen=True)
class Runner:
    """One way to compute a contest's result.

    Attributes:
        name: "numba", "PyTorch NCHW"; unique in its contest.
        family: "fastcnn" for its engines, else the peer, such as "PyTorch".
        run: what is timed.
        result: arrays in fastcnn's layout; what is verified, by running it.
        share: the part of the whole work that ``run`` does: 1, but for slow engines, which do a
            part of the batch.
        expected: the right result of that part; None stands for the contest's.
        alone: whether it runs on the calling thread and no other.
    """

    name: str
    family: str
    run: Callable[[], Any]
    result: Callable[[], tuple[Array, ...]]
    share: float = 1.0
    expected: tuple[Array, ...] | None = None
    alone: bool = False


def on_one_thread(runner: Runner) -> Runner:
    """The same, timed on one thread of fastcnn's."""

    def run() -> Any:
        before = get_num_threads()
        set_num_threads(1)
        try:
            return runner.run()
        finally:
            set_num_threads(before)

    return replace(runner, run=run, alone=True)


class Skipped(NamedTuple):
    """Who does not take part, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Contest:
    """Runners of one computation.

    Attributes:
        name: as the table shows it.
        group: what it belongs to, such as "conv2d".
        flops: multiply-adds times 2 that the computation needs, padding not counted.
        bytes: that it must read and write, each array once.
        reference: the right result, one array or more, float64.
        tolerance: how far a result may be from it, absolute.
        runners, skipped: who takes part, and who does not.
    """

    name: str
    group: str
    flops: int
    bytes: int
    reference: tuple[Array, ...]
    tolerance: float
    runners: list[Runner] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def verify(self, runner: Runner) -> None:
        """Raise :class:`WrongResult` unless the runner's result is the right one."""
        expected = self.reference if runner.expected is None else runner.expected
        results = runner.result()
        if len(results) != len(expected):
            raise WrongResult(f"{runner.name} on {self.name}: {len(results)} results")
        for y, reference in zip(results, expected, strict=True):
            if y.shape != reference.shape:
                raise WrongResult(
                    f"{runner.name} on {self.name}: shape {y.shape}, expected {reference.shape}"
                )
            error = np.abs(np.asarray(y, np.float64) - reference)
            if not (error <= self.tolerance).all():  # NaN is wrong, too
                raise WrongResult(
                    f"{runner.name} on {self.name}: off by {error.max():.1e}, allowed "
                    f"{self.tolerance:.0e}"
                )
