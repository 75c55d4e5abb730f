"""How many times as fast as the specification each engine is on the article's layers, in one run.

    python benchmarks/article_speedups.py [--rounds 5]

Engines take turns, and each one's least time counts, so that what else the machine does hits all
of them alike. Exit code 1 if conv + pool over 100 digits misses the promise: Numba at least 200
times as fast as the specification, im2col at least 10 times.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from article_layers import ENGINES, Timed, conv_and_pool, layers
from rich.console import Console
from rich.table import Table

PROMISE = {"im2col": 10.0, "numba": 200.0}
LEAST = 0.05  # seconds that each engine's turn lasts, at least


def seconds(problem: Timed, rounds: int) -> dict[str, float]:
    """Each engine's least time on the problem, verified first."""
    for engine in ENGINES:
        problem.verify(engine)
    best = dict.fromkeys(ENGINES, float("inf"))
    for _ in range(rounds):
        # im2col before naive: its BLAS threads wait busily for a while, and would disturb Numba's.
        for engine in ("numba", "im2col", "naive"):
            spent = 0.0
            while spent < LEAST:
                start = time.perf_counter()
                problem.run(engine)
                once = time.perf_counter() - start
                best[engine] = min(best[engine], once)
                spent += once
    return best


def _readable(duration: float) -> str:
    return f"{duration * 1e3:.2f} ms" if duration >= 1e-3 else f"{duration * 1e6:.1f} µs"


def main(rounds: Annotated[int, typer.Option(min=1, help="Turns of each engine.")] = 5) -> None:
    """Print the table; exit code 1 if the promise is missed."""
    table = Table(title="Least time of a call, and times as fast as naive")
    for heading in ("problem", *ENGINES, *(f"{engine} ×" for engine in ENGINES[1:]), "GFLOP/s"):
        left = heading == "problem"
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for problem in [*layers(), conv_and_pool()]:
        times = seconds(problem, rounds)
        ratios = {engine: times["naive"] / times[engine] for engine in ENGINES[1:]}
        table.add_row(
            problem.name,
            *(_readable(times[engine]) for engine in ENGINES),
            *(f"{ratio:,.0f}" for ratio in ratios.values()),
            f"{problem.operations / times['numba'] / 1e9:.1f}",
        )
    console = Console()
    console.width = max(console.width, 110)
    console.print(table)  # conv + pool came last: its ratios are those promised
    kept = all(ratios[engine] >= PROMISE[engine] for engine in PROMISE)
    for engine, promised in PROMISE.items():
        print(f"{problem.name}: {engine} {ratios[engine]:,.0f} × naive, promised {promised:,.0f}")
    sys.exit(not kept)


if __name__ == "__main__":
    typer.run(main)
