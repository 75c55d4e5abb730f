"""How long calls take, on a machine that does other things too.

Runners take turns, so that whatever the machine does beside them hits all alike. A turn is a
warm-up, in which the threads of whoever ran before come to rest, then samples; a sample is the mean
of the calls that fill half a millisecond, or one call that takes longer. Other work can only make a
call slower, so a runner's figure is its least sample, and rounds go on until the least ones of all
runners have been met again, or the time that was given is used up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

WARM_UP = 20e-3  # seconds; threads of OpenMP look for work for some 10 ms after their last
TURN = 10e-3
SAMPLE = 5e-4
SETTLED = 0.01  # how near the second least turn must come to the least
FEWEST_ROUNDS = 4
SLOW = 0.5  # seconds; whoever takes longer than this for one call runs once


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        least: of all samples.
        middle: median of the turns' least samples.
        spread: how far the second and third least turns lie above the least, as a share of it:
            what to expect of the least if all was measured again.
        turns: how many.
    """

    least: float
    middle: float
    spread: float
    turns: int


def interleaved(
    runs: Sequence[Callable[[], Any]],
    budget: float,
    *,
    warm_up: float = WARM_UP,
    turn: float = TURN,
    fewest: int = FEWEST_ROUNDS,
    settled: float = SETTLED,
) -> list[Timing]:
    """Time calls in turns for about ``budget`` seconds, or until all have settled.

    Args:
        runs: what to time; each is called once before, untimed, so it may compile.
        budget: seconds for all together, without those first calls.
        warm_up, turn: seconds of each turn before and while samples are taken.
        fewest: rounds that are run whatever the budget.
        settled: rounds end when the second least turn of each is so near its least one.

    >>> fast, slow = interleaved([lambda: None, lambda: sum(range(10000))], budget=0.2)
    >>> fast.least < slow.least
    True
    """
    start = time.perf_counter()
    firsts = [_once(run) for run in runs]
    turns: list[list[float]] = [[] for _ in runs]
    for seconds, mine in zip(firsts, turns, strict=True):
        if seconds > SLOW:
            mine.append(seconds)
    start = time.perf_counter()
    rounds = 0
    while rounds < fewest or (
        time.perf_counter() - start < budget and not all(_settled(mine, settled) for mine in turns)
    ):
        for run, mine, first in zip(runs, turns, firsts, strict=True):
            if first <= SLOW:
                _sample(run, warm_up)
                mine.append(_turn(run, turn))
        rounds += 1
    return [_timing(mine) for mine in turns]


def _once(run: Callable[[], Any]) -> float:
    """The second call, where the first was quick: the first may have compiled."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _turn(run: Callable[[], Any], seconds: float) -> float:
    end = time.perf_counter() + seconds
    best = _sample(run, SAMPLE)
    while time.perf_counter() < end:
        best = min(best, _sample(run, SAMPLE))
    return best


def _sample(run: Callable[[], Any], least: float) -> float:
    """Seconds of one call: the mean of as many as fill ``least`` seconds."""
    start = time.perf_counter()
    calls = 0
    while (spent := time.perf_counter() - start) < least or calls == 0:
        run()
        calls += 1
    return spent / calls


def _settled(turns: list[float], share: float) -> bool:
    if len(turns) == 1:  # a slow one, which runs once
        return True
    first, second = sorted(turns)[:2]
    return second <= first * (1 + share)


def _timing(turns: list[float]) -> Timing:
    best = sorted(turns)
    near = best[1:3] or best
    return Timing(best[0], median(best), sum(near) / len(near) / best[0] - 1, len(best))
