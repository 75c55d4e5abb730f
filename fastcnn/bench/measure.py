"""How long calls take, on a machine that does other things too.

Runners take turns, so that whatever the machine does beside them hits all alike. A turn is a
warm-up, in which the threads of whoever ran before come to rest, then samples; a sample is the mean
of the calls that fill half a millisecond, or one call that takes longer. Other work can only make a
call slower, so a runner's figure is its least sample. Rounds go on until each runner's least turn
has been met again, or the time that was given is used up; nobody gets more than an equal part of
it, so that one slow runner does not leave the others without.

Beside the time on the clock each sample has the time that the calling thread spent on a core. Of
what runs on that thread alone, it is what other work on the machine disturbs least.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

# Seconds. Threads of OpenMP look for work for some 10 ms after their last; those of OpenBLAS for
# 2**26 cycles, which are 27 ms at 2.45 GHz: whoever came within them had half of a core.
WARM_UP = 40e-3
TURN = 10e-3
SAMPLE = 5e-4
SETTLED = 0.01  # how near the next least turns must come to the least
# Turns before a runner can have settled. Where a core's other half belongs to another machine, a
# call takes half as long again for seconds on end. Four turns, all within 1 %, were of such a time
# now and then: of two runners that did the same one seemed 1.4 times as fast as the other.
FEWEST = 12


class Pace(NamedTuple):
    """How turns are taken.

    Attributes:
        warm_up, turn: seconds of a turn before and while samples are taken.
        fewest: turns before a runner can have settled.
        settled: how small the spread must be, see :class:`Timing`.
    """

    warm_up: float = WARM_UP
    turn: float = TURN
    fewest: int = FEWEST
    settled: float = SETTLED


USUAL = Pace()
QUICK = Pace(30e-3, 5e-3, 3, 0.03)


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        least: of all samples.
        middle: median of the turns' least samples.
        spread: how far the second and third least turns lie above the least, as a share of it:
            what to expect of the least if all was measured again. 0 where there is one turn.
        turns: how many.
        core: the least time of the calling thread on a core.
        core_spread: as ``spread``, of those.
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

    Everything must have been called before: a first call may compile. Each gets one turn at least,
    whatever the budget. ``alone`` are the places of those that run on the calling thread and no
    other: they settle by their time on a core, and of that they get three times as much as the
    others get of the clock's, however long they are kept waiting for a core.

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
        # What the settled leave over is for the others.
        part = max(part, left / max(1, len(open_)))
        waiting = [
            i
            for i in open_
            if (spent[i] < 3 * part if i in alone else spent[i] < part and left > 0)
        ]
    return [_timing(mine) for mine in turns]


def _turn(run: Callable[[], Any], pace: Pace, before: list[_Sample]) -> _Sample:
    if not before or before[-1].clock < pace.warm_up:
        first = _sample(run, pace.warm_up)
        if first.clock >= pace.warm_up:  # one call, longer than any warm-up
            return first
    end = time.perf_counter() + pace.turn
    best = _sample(run, SAMPLE)
    while time.perf_counter() < end:
        another = _sample(run, SAMPLE)
        best = _Sample(min(best.clock, another.clock), min(best.core, another.core))
    return best


def _sample(run: Callable[[], Any], least: float) -> _Sample:
    """Seconds of one call: the mean of as many as fill ``least`` seconds, or one call."""
    core, start = time.thread_time(), time.perf_counter()
    calls = 0
    while (spent := time.perf_counter() - start) < least or calls == 0:
        run()
        calls += 1
    return _Sample(spent / calls, (time.thread_time() - core) / calls)


def _settled(turns: list[_Sample], pace: Pace, alone: bool) -> bool:
    if len(turns) < pace.fewest:
        return False
    return _spread(sorted(turn.core if alone else turn.clock for turn in turns)) <= pace.settled


def _timing(turns: list[_Sample]) -> Timing:
    clock, core = (sorted(column) for column in zip(*turns, strict=True))
    return Timing(clock[0], median(clock), _spread(clock), len(turns), core[0], _spread(core))


def _spread(ordered: list[float]) -> float:
    near = ordered[1:3]
    return sum(near) / len(near) / ordered[0] - 1 if near and ordered[0] > 0 else 0.0
