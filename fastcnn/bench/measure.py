"""Timing of calls on a machine that does other work too.

Runners take turns, so that other work on the machine affects all alike. A turn begins with a
warm-up, in which the threads of the earlier runner come to rest. Samples follow. A sample is the
mean of the calls that fill half a millisecond, or one call that takes longer. Other work can only
make a call slower, so a runner's figure is its least sample. Rounds continue until the least turns
of each runner agree, or until the budget is used up. A runner gets at most an equal part of the
budget, so that a slow runner leaves enough time for the others.

Each sample has two times: the time on the clock, and the time of the calling thread on a core. For
calls that run only on this thread, other work disturbs the time on a core less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

# Seconds. After their last work, threads of OpenMP look for more for about 10 ms, and threads of
# OpenBLAS for 2**26 cycles. Some threads of other libraries do so for more than 40 ms, and the
# system takes up to 60 ms to move another thread to the core that they leave.
WARM_UP = 80e-3
TURN = 20e-3
SAMPLE = 5e-4
SETTLED = 0.01  # largest spread of a runner that has settled, see Timing
# Turns before a runner can have settled. If another virtual machine uses the other half of a core,
# calls are slower for seconds, and a few turns may agree by chance. docs/measurements.md has the
# case, "Runners take twelve turns".
FEWEST = 12


class Pace(NamedTuple):
    """Lengths and numbers of turns.

    Attributes:
        warm_up, turn: seconds of a turn before and during the samples.
        fewest: turns before a runner can have settled.
        spread: largest spread of a runner that has settled, see :class:`Timing`.
    """

    warm_up: float = WARM_UP
    turn: float = TURN
    fewest: int = FEWEST
    spread: float = SETTLED


USUAL = Pace()
QUICK = Pace(30e-3, 5e-3, 3, 0.03)


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        least: the least of all samples.
        middle: median of the turns' least samples.
        spread: mean distance of the second and third least turns from the least, as a share of the
            least. Another measurement would differ by about as much. 0 if there is one turn.
        turns: number of turns.
        core: the least time of the calling thread on a core.
        core_spread: the spread of the times on a core.
    """

    least: float
    middle: float
    spread: float
    turns: int
    core: float
    core_spread: float


class _Sample(NamedTuple):
    clock: float
    core: float


def interleaved(
    runs: Sequence[Callable[[], Any]],
    budget: float,
    pace: Pace = USUAL,
    alone: Collection[int] = (),
) -> list[Timing]:
    """Time calls in turns for at most about ``budget`` seconds, or until all have settled.

    Each call must have been made before, because a first call may compile. Each gets at least one
    turn. ``alone`` are the indices of calls that run only on the calling thread. They settle by
    their time on a core. Their part of the budget also counts time on a core, and is three times as
    large as that of the others.

    >>> fast, slow = interleaved([lambda: None, lambda: sum(range(10000))], budget=0.2)
    >>> fast.least < slow.least
    True
    """
    turns: list[list[_Sample]] = [[] for _ in runs]
    spent = [0.0] * len(runs)
    part = budget / max(1, len(runs))
    waiting = list(range(len(runs)))
    while waiting:
        for i in waiting:
            clock = time.thread_time if i in alone else time.perf_counter
            start = clock()
            turns[i].append(_turn(runs[i], pace, turns[i]))
            spent[i] += clock() - start
        left = budget - sum(mine for i, mine in enumerate(spent) if i not in alone)
        open_ = [i for i in waiting if not _settled(turns[i], pace, i in alone)]
        # The others share the time that settled runners have left over.
        part = max(part, left / max(1, len(open_)))
        waiting = [
            i
            for i in open_
            if (spent[i] < 3 * part if i in alone else spent[i] < part and left > 0)
        ]
    return [_timing(mine) for mine in turns]


def in_rounds(
    runs: Sequence[Callable[[], Any]],
    rounds: int,
    warm_up: float = WARM_UP,
    turn: float = TURN,
) -> list[list[float]]:
    """Seconds of one call of each run, one number for each round.

    In a round each run has one turn: calls for ``warm_up`` seconds do not count, then the mean of
    calls for ``turn`` seconds counts; at least one call of each kind. This is for whole nets: their
    calls are long, so the ratio of two runs in a round says more than their least times.

    >>> calls = [lambda: None, lambda: sum(range(10000))]
    >>> fast, slow = in_rounds(calls, 3, warm_up=0.001, turn=0.001)
    >>> len(fast), median(a / b for a, b in zip(fast, slow)) < 1
    (3, True)
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for mine, run in zip(seconds, runs, strict=True):
            _sample(run, warm_up)
            mine.append(_sample(run, turn).clock)
    return seconds


def _turn(run: Callable[[], Any], pace: Pace, before: list[_Sample]) -> _Sample:
    if not before or before[-1].clock < pace.warm_up:
        first = _sample(run, pace.warm_up)
        if first.clock >= pace.warm_up:  # one call took longer than the warm-up
            return first
    end = time.perf_counter() + pace.turn
    best = _sample(run, SAMPLE)
    while time.perf_counter() < end:
        another = _sample(run, SAMPLE)
        best = _Sample(min(best.clock, another.clock), min(best.core, another.core))
    return best


def _sample(run: Callable[[], Any], least: float) -> _Sample:
    """Seconds of one call: the mean of the calls that fill ``least`` seconds, at least one."""
    core, start = time.thread_time(), time.perf_counter()
    calls = 0
    while (spent := time.perf_counter() - start) < least or calls == 0:
        run()
        calls += 1
    return _Sample(spent / calls, (time.thread_time() - core) / calls)


def _settled(turns: list[_Sample], pace: Pace, alone: bool) -> bool:
    if len(turns) < pace.fewest:
        return False
    return _spread(sorted(turn.core if alone else turn.clock for turn in turns)) <= pace.spread


def _timing(turns: list[_Sample]) -> Timing:
    clock, core = (sorted(column) for column in zip(*turns, strict=True))
    return Timing(clock[0], median(clock), _spread(clock), len(turns), core[0], _spread(core))


def _spread(ordered: list[float]) -> float:
    near = ordered[1:3]
    return sum(near) / len(near) / ordered[0] - 1 if near and ordered[0] > 0 else 0.0
