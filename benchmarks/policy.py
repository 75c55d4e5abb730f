"""Does ``algorithm="auto"`` choose well? Its choices against measurement, on random layers.

    python benchmarks/policy.py [--layers 60] [--rounds 5] [--seed 0]

Each layer is run directly and with Winograd's filtering, taking turns, forward and in both
gradients; the least time of each counts. It is the processor's time of one thread, which other
work on the machine disturbs least. Printed are the wrong choices, by what they cost, and what
all of them cost together as a part of the best possible time. Exit code 1 beyond 5 %.

The layers are 3×3 (some 5×5) with stride 1, as nets have them: many pixels come with few channels.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import fastcnn

LIMIT = 0.05
OPS = ("conv2d", "conv2d_input_gradient", "conv2d_filter_gradient")
ALGORITHMS = ("direct", "winograd")


@dataclass(frozen=True)
class Verdict:
    """One operation on one layer: seconds by algorithm, and which of them "auto" takes."""

    label: str
    seconds: dict[str, float]
    chosen: str

    @property
    def best(self) -> float:
        return min(self.seconds.values())

    @property
    def lost(self) -> float:
        """Seconds that the choice costs."""
        return self.seconds[self.chosen] - self.best


def drawn(count: int, seed: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Shapes of x and w, and the padding."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        side = round(2 ** rng.uniform(2.5, 7.5))
        widest = min(9.0, 13.5 - math.log2(side))
        ic, oc = (round(2 ** rng.uniform(3, widest)) for _ in range(2))
        ic, oc = (8 * max(1, round(c / 8)) if rng.random() < 0.8 else c for c in (ic, oc))
        k = 5 if rng.random() < 0.15 else 3
        n = int(rng.choice([1, 1, 1, 2, 4, 8]))
        # No more than a second of direct convolution for a whole batch, most far less.
        n = max(1, min(n, int(8e9 / (2 * side * side * k * k * ic * oc))))
        width = max(k, side + int(rng.integers(-3, 4)))
        yield (n, max(side, k), width, ic), (k, k, ic, oc), int(rng.integers(0, k // 2 + 1))


def calls(x_shape: tuple[int, ...], w_shape: tuple[int, ...], padding: int) -> dict[str, Any]:
    """For each operation the call, the algorithm still to be given."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s, np.float32) for s in (x_shape, w_shape))
    shape = fastcnn.explain("conv2d", x, w, padding=padding)[0].problem.geometry.output_shape
    dy = rng.standard_normal(shape, np.float32)
    given = {"padding": padding}
    return {
        "conv2d": ((x, w), given),
        "conv2d_input_gradient": ((dy, w, x_shape), given),
        "conv2d_filter_gradient": ((dy, x, w_shape[:2]), given),
    }


def judge(op: str, label: str, args: tuple[Any, ...], given: Any, rounds: int) -> Verdict:
    """Time both algorithms."""
    function: Callable[..., Any] = getattr(fastcnn, op)
    name = fastcnn.explain(op, *args, **given)[0].chosen.name
    best = dict.fromkeys(ALGORITHMS, math.inf)
    for algorithm in ALGORITHMS:
        function(*args, **given, algorithm=algorithm)
    for _ in range(rounds):
        for algorithm in ALGORITHMS:
            end = time.perf_counter() + 5e-3
            while True:
                start = time.thread_time()
                function(*args, **given, algorithm=algorithm)
                best[algorithm] = min(best[algorithm], time.thread_time() - start)
                if time.perf_counter() > end:
                    break
    return Verdict(f"{op} {label}", best, name.removeprefix("numba."))


def main(
    layers: Annotated[int, typer.Option(min=1, help="How many layers.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each algorithm.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the layers.")] = 0,
) -> None:
    """Print the wrong choices, and what they cost together."""
    fastcnn.set_num_threads(1)
    fastcnn.set_math("fast")
    verdicts = []
    for x_shape, w_shape, padding in drawn(layers, seed):
        label = (
            "×".join(map(str, x_shape)) + f" → {w_shape[3]}, {w_shape[0]}×{w_shape[1]} +{padding}"
        )
        for op, (args, given) in calls(x_shape, w_shape, padding).items():
            verdicts.append(judge(op, label, args, given, rounds))
    table = Table(title="Wrong choices")
    for heading in ("operation and layer", "chosen", "direct µs", "Winograd µs", "lost"):
        table.add_column(heading, justify="left" if heading[0] in "oc" else "right", no_wrap=True)
    wrong = sorted((v for v in verdicts if v.lost > 0), key=lambda v: -v.lost)
    for v in wrong:
        times = (f"{v.seconds[name] * 1e6:,.0f}" for name in ALGORITHMS)
        table.add_row(v.label, v.chosen, *times, f"{v.lost / v.best:.0%}")
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)
    worst = 0.0
    for op in (None, *OPS):
        some = [v for v in verdicts if op is None or v.label.split()[0] == op]
        # Each layer counts alike, and then each second.
        share = sum(v.lost / v.best for v in some) / len(some)
        total = sum(v.lost for v in some) / sum(v.best for v in some)
        console.print(
            f"{op or 'all'}: {sum(v.lost > 0 for v in some)} of {len(some)} choices wrong; "
            f"{total:.1%} of the best total time lost, {share:.1%} of each layer's on average"
        )
        worst = max(worst, total)
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    typer.run(main)
