"""A contest: one computation, and all its runners.

Every runner computes the same result from the same numbers. It returns the result in fastcnn's
layout, so that the result can be compared with the reference before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.settings import get_num_threads, here, set_num_threads


class WrongResult(AssertionError):
    """A runner's result differs from the reference; the runner is not timed."""


class CannotRun(RuntimeError):
    """A runner lacks something that its first call needs; the runner is not timed."""


@dataclass(frozen=True)
class Runner:
    """One way to compute a contest's result.

    Attributes:
        name: a name that is unique in its contest, such as "im2col" or "PyTorch NCHW".
        family: "fastcnn" for its engines, otherwise the peer, such as "PyTorch".
        run: the call that is timed.
        result: runs the call, and returns arrays in fastcnn's layout, which are verified.
        share: the share of the whole work that ``run`` does. Slow engines run on a part of the
            batch, all others do the whole work, 1.
        expected: the right result of this share; None means the contest's reference.
        alone: whether the call runs only on the calling thread.
    """

    name: str
    family: str
    run: Callable[[], Any]
    result: Callable[[], tuple[Array, ...]]
    share: float = 1.0
    expected: tuple[Array, ...] | None = None
    alone: bool = False


def on_one_thread(runner: Runner) -> Runner:
    """The same runner, with fastcnn limited to one thread."""

    def run() -> Any:
        before = get_num_threads()
        set_num_threads(1)
        try:
            return runner.run()
        finally:
            set_num_threads(before)

    return replace(runner, run=run, alone=True)


def in_strict_math(runner: Runner, name: str) -> Runner:
    """The same runner under this name, with fastcnn's mathematics set to "strict" for its calls."""
    context = copy_context()
    context.run(here.set, here.get()._replace(math="strict"))
    return replace(
        runner,
        name=name,
        run=lambda: context.run(runner.run),
        result=lambda: context.run(runner.result),
    )


class Skipped(NamedTuple):
    """A runner that does not take part, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Contest:
    """Runners of one computation.

    Attributes:
        name: the name in the table.
        group: the operation or kind of net, such as "conv2d".
        flops: multiply-adds that the computation needs, times 2; padding does not count.
        bytes: bytes that the computation must read and write, each array once.
        reference: the right result, one array or more, in float64.
        tolerance: the largest absolute error of a result; or one for each array of it.
        runners, skipped: the runners, and others that do not take part.
    """

    name: str
    group: str
    flops: int
    bytes: int
    reference: tuple[Array, ...]
    tolerance: float | tuple[float, ...]
    runners: list[Runner] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def verify(self, runner: Runner) -> None:
        """Raise :class:`WrongResult` unless the runner's result is right."""
        expected = self.reference if runner.expected is None else runner.expected
        results = runner.result()
        if len(results) != len(expected):
            raise WrongResult(f"{runner.name} on {self.name}: {len(results)} results")
        tolerances = self.tolerance
        if not isinstance(tolerances, tuple):
            tolerances = (tolerances,) * len(expected)
        for y, reference, tolerance in zip(results, expected, tolerances, strict=True):
            if y.shape != reference.shape:
                raise WrongResult(
                    f"{runner.name} on {self.name}: shape {y.shape}, expected {reference.shape}"
                )
            error = np.abs(np.asarray(y, np.float64) - reference)
            if not (error <= tolerance).all():  # false for NaN too
                raise WrongResult(
                    f"{runner.name} on {self.name}: off by {error.max():.1e}, allowed "
                    f"{tolerance:.0e}"
                )
