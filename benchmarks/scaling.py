"""How the cost of the main kernels grows with batch, image, channels and threads.

    pip install "fastcnn[plots]"
    python benchmarks/scaling.py             measure, and write docs/scaling.md and its pictures
    python benchmarks/scaling.py --draw      write the page from docs/scaling.json
    python benchmarks/scaling.py --limit 50  begin no problem after 50 s; the next call continues

Each problem runs on one thread and on all, in turns of 100 ms of which the first 80 ms do not
count, after its result was compared with the im2col engine in float64 on small integers.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import fastcnn
from fastcnn.bench import measure, operations, peak
from fastcnn.bench.problems import Conv, Pool, conv_problems, pool_problems
from fastcnn.bench.suite import CACHED
from fastcnn.bench.text import duration
from fastcnn.core import hardware
from fastcnn.engine.numba.runtime.instruction_sets import host_registers
from fastcnn.proof.problems import Problem

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROUNDS = 3
TRIES, PATIENCE = 4, 5.0  # of a point, and seconds that each waits for free cores
BATCHES, SIDES, CHANNELS = (1, 2, 4, 8, 16, 32), (7, 14, 28, 56, 112), (8, 16, 32, 64, 128, 256)
SIDE, WIDTH = 28, 64
"""Sides and channels of the problems of other sweeps."""
KERNELS = ("3×3 direct", "3×3 Winograd", "1×1", "depthwise 3×3", "2×2 max-pooling", "dense")
SWEEPS = {"batch": BATCHES, "side": SIDES, "channels": CHANNELS}
CORES = (8, 32)
PAYS = 1.2
"""A second thread pays where two are this many times as fast as one."""


class Busy(Exception):
    """Other programs use the cores, so that figures of several threads would mislead."""


@dataclass(frozen=True)
class Point:
    """A problem as measured: seconds of a call on one thread and on ``threads``."""

    kernel: str
    sweep: str
    value: int
    batch: int
    flops: int
    bytes: int
    one: float
    all: float
    threads: int

    @property
    def gain(self) -> float:
        """The speed of all threads as a multiple of that of one."""
        return self.one / self.all

    @property
    def serial(self) -> float:
        """Seconds that do not shrink with threads, by Amdahl's law; at least 0."""
        return max(0.0, (self.threads * self.all - self.one) / (self.threads - 1))

    def on(self, cores: int, bandwidth: float) -> float:
        """Expected seconds on ``cores`` cores with a memory of ``bandwidth`` bytes a second.

        The memory is a limit only for arrays that exceed the caches.
        """
        shared = self.serial + (self.one - self.serial) / cores
        return max(shared, self.bytes / bandwidth) if self.bytes > CACHED else shared


def problem(kernel: str, batch: int, side: int, channels: int) -> Problem:
    """The problem of a kernel; a dense layer has side × side inputs and 4 × channels outputs."""
    sides = (side, side, channels)
    if kernel == "dense":
        inputs, outputs = side * side, 4 * channels
        shapes = {"x": (batch, inputs), "w": (inputs, outputs), "b": (outputs,)}
        return Problem("dense", f"{kernel} {inputs}→{outputs}, batch {batch}", shapes)
    if kernel == "2×2 max-pooling":
        return next(pool_problems(Pool(kernel, (batch, *sides), 2, 2, 0)))
    taps, groups = (1 if kernel == "1×1" else 3), (channels if "depthwise" in kernel else 1)
    layer = Conv(kernel, sides, channels, taps, (batch,), 1, taps // 2, groups, ("conv2d",))
    result = next(conv_problems(layer))
    if kernel.startswith("3×3"):
        algorithm = "direct" if "direct" in kernel else "winograd"
        return replace(result, parameters={**result.parameters, "algorithm": algorithm})
    return result


def problems() -> Iterator[tuple[str, str, int, Problem]]:
    """All problems, with kernel, sweep and the sweep's value."""
    for kernel in KERNELS:
        for sweep, values in SWEEPS.items():
            for value in values:
                sizes = {"batch": 1, "side": SIDE, "channels": WIDTH, sweep: value}
                yield kernel, sweep, value, problem(kernel, **sizes)


def measured(kernel: str, sweep: str, value: int, of: Problem, threads: int) -> Point:
    """Time a problem, after its result was compared with the reference."""
    arrays = operations.make_arrays(of)
    plain = replace(of, parameters={k: v for k, v in of.parameters.items() if k != "algorithm"})
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    (expected,) = operations.run(plain, wide, "im2col")
    for count in (1, threads):
        fastcnn.set_num_threads(count)
        (y,) = operations.run(of, arrays, "numba")
        if not (np.abs(y - expected) <= operations.OFF_BY).all():
            raise AssertionError(f"{of.name} on {count} threads is wrong")

    def on(count: int) -> Callable[[], None]:
        def run() -> None:
            if fastcnn.get_num_threads() != count:
                fastcnn.set_num_threads(count)
            operations.run(of, arrays, "numba")

        return run

    # Where another program took a core, the point is measured again.
    for _ in range(TRIES):
        free = peak.wait_until_free(threads, PATIENCE)
        one, all_ = (min(rounds) for rounds in measure.in_rounds([on(1), on(threads)], ROUNDS))
        if free and peak.together(threads) >= peak.FREE:
            break
    else:
        raise Busy
    size = sum(array.nbytes for array in arrays.values()) + y.nbytes
    batch = next(iter(of.arrays.values()))[0]
    return Point(kernel, sweep, value, batch, operations.flops(of), size, one, all_, threads)


def run(file: Path, limit: float) -> bool:
    """Measure what the file lacks, and return whether it is complete."""
    threads, start = fastcnn.get_num_threads(), time.perf_counter()
    if threads < 2:
        raise SystemExit("scaling needs two threads, got one: see FASTCNN_NUM_THREADS")
    data: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    machine = f"{hardware.processor_name()}, {host_registers().isa}"
    if data.get("complete") or data.get("machine") != machine or data.get("threads") != threads:
        peak.wait_until_free(threads, 4 * PATIENCE)
        top = peak.measure([1, threads], peak.ROUNDS // 4)
        data = {
            "machine": machine,
            "threads": threads,
            "date": datetime.now(UTC).date().isoformat(),
            "peak": [top.flops["float32"][n] for n in (1, threads)],
            "copy": [top.copy[n] for n in (1, threads)],
            "points": [],
        }
    known = {(p["kernel"], p["sweep"], p["value"]) for p in data["points"]}
    data["complete"] = True
    try:
        for kernel, sweep, value, of in problems():
            if (kernel, sweep, value) in known:
                continue
            if time.perf_counter() - start > limit:
                data["complete"] = False
                break
            data["points"].append(asdict(measured(kernel, sweep, value, of, threads)))
    except Busy:
        data["complete"] = False
    finally:
        fastcnn.set_num_threads(threads)
    file.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    return bool(data["complete"])


def page(data: dict[str, Any], points: Sequence[Point], machine: str) -> str:
    """The page."""
    threads, (_, top), (_, copy) = data["threads"], data["peak"], data["copy"]
    paying = [p for p in points if p.gain >= PAYS]
    least = min((p.one for p in paying), default=math.inf)
    longest = max((p.one for p in points if p.gain < PAYS), default=0.0)
    rows = [
        "| " + " | ".join(_cells(p, threads, copy)) + " |"
        for kernel in KERNELS
        for p in points
        if p.kernel == kernel and p.sweep == "batch" and p.value in (BATCHES[0], BATCHES[-1])
    ]
    heads = ["kernel", "batch", "1 thread", f"{threads} threads", "gain", "serial"]
    heads += [f"{cores} cores" for cores in CORES]
    return f"""# Scaling

How the cost of the main kernels grows with batch, image, channels and threads. Measured on
{machine}, float32, on {data["date"]}: peak {top:.0f} GFLOP/s, copy {copy:.1f} GB/s on {threads}
threads. `python benchmarks/scaling.py` measures anew and writes this page and its pictures.

If nothing else is said, a problem has batch 1, images of {SIDE}×{SIDE} pixels, and {WIDTH}
channels, in and out. The dense layer has side × side inputs and 4 × channels outputs. A figure is
the least of {ROUNDS} turns of 20 ms, each after 80 ms that do not count.

## Batch, images, channels

![Time of a call over batch, side and channels](scaling-costs.png)

The slope of a line is the exponent of the cost. The flat part at its left is the cost of a call
beside its kernel. In the table the exponent is that of the last step of each sweep: 1 means that
twice the batch takes twice the time; twice the side has four times the pixels, and twice the
channels of a full convolution need four times the multiply-adds.

{_exponents(points)}

## Where a second thread pays

![Gain of the second thread over the time on one](scaling-threads.png)

Two threads are at least {PAYS} times as fast as one in {len(paying)} of {len(points)} problems.
The shortest of these takes {duration(least)} on one thread, and the longest problem in which they
are not takes {duration(longest)}. A call is shared only if it is long enough, so that short ones
take one thread alone.

## More cores

These figures are computed, not measured. With T₁ on one thread and T on {threads}, Amdahl's law
gives the serial time S = ({threads} T − T₁) ÷ {threads - 1}, and T(p) = S + (T₁ − S) ÷ p on p
cores. It counts everything as serial that a second thread did not halve: the call, the launch,
tails, and shared memory. Problems whose arrays exceed {CACHED / 1e6:.0f} MB take at least their
bytes ÷ the bandwidth, unless they were quicker than that here, because a cache held them. The
first figure of a cell is for a memory as fast as here; the second for one that is faster by the
number of cores.

| {" | ".join(heads)} |
| --- | {" | ".join(["---:"] * (len(heads) - 1))} |
{chr(10).join(rows)}

The assumptions: cores as fast as these with all of them busy, caches that grow with the cores, one
socket, and tasks enough for all cores. The last does not hold for small problems at batch 1, so
their figures are bounds.
"""


def _cells(p: Point, threads: int, copy: float) -> list[str]:
    cells = [p.kernel, str(p.batch), duration(p.one), duration(p.all), f"{p.gain:.2f} ×"]
    cells.append(f"{p.serial / p.one:.0%}")
    here = copy * 1e9 if p.bytes / p.all <= copy * 1e9 else math.inf  # else a cache serves it
    for cores in CORES:
        same, grown = (p.one / p.on(cores, here * factor) for factor in (1.0, cores / threads))
        cells.append(f"{same:.1f} × to {grown:.1f} ×" if grown > 1.05 * same else f"{same:.1f} ×")
    return cells


def _exponents(points: Sequence[Point]) -> str:
    lines = ["| kernel | " + " | ".join(SWEEPS) + " |", "| --- | ---: | ---: | ---: |"]
    for kernel in KERNELS:
        cells = []
        for sweep in SWEEPS:
            mine = [p for p in points if (p.kernel, p.sweep) == (kernel, sweep)]
            a, b = sorted(mine, key=lambda p: p.value)[-2:]
            cells.append(f"{math.log(b.all / a.all) / math.log(b.value / a.value):.2f}")
        lines.append(f"| {kernel} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(points: Sequence[Point], folder: Path) -> None:
    """The pictures of the page."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    colours = dict(zip(KERNELS, plt.rcParams["axes.prop_cycle"].by_key()["color"], strict=False))
    threads = points[0].threads
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 4), sharey=True, layout="constrained")
    for panel, (sweep, values) in zip(panels, SWEEPS.items(), strict=True):
        for kernel in KERNELS:
            mine = sorted(
                (p for p in points if (p.kernel, p.sweep) == (kernel, sweep)), key=lambda p: p.value
            )
            xs = [p.value for p in mine]
            panel.plot(xs, [p.all * 1e6 for p in mine], color=colours[kernel], label=kernel)
            panel.plot(xs, [p.one * 1e6 for p in mine], "--", color=colours[kernel], lw=0.9)
        panel.set(xscale="log", yscale="log", xlabel=sweep, xticks=values)
        panel.set_xticklabels([str(value) for value in values])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"µs of a call: {threads} threads, dashed one")
    panels[0].legend(fontsize=8)
    figure.savefig(folder / "scaling-costs.png", dpi=100)
    figure, panel = plt.subplots(figsize=(9.6, 4), layout="constrained")
    for kernel in KERNELS:
        mine = [p for p in points if p.kernel == kernel]
        xs, ys = [p.one * 1e6 for p in mine], [p.gain for p in mine]
        panel.plot(xs, ys, "o", color=colours[kernel], label=kernel)
    panel.axhline(1, color="black", lw=1)
    panel.axhline(PAYS, color="black", lw=0.8, ls=":")
    panel.set(xscale="log", xlabel="µs on one thread", ylabel=f"speed of {threads} ÷ speed of one")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    figure.savefig(folder / "scaling-threads.png", dpi=100)
    plt.close("all")


def main(
    machine: Annotated[str, typer.Option(help="The processor and its cores, by name.")] = "",
    only_draw: Annotated[bool, typer.Option("--draw", help="Measure nothing.")] = False,
    limit: Annotated[float, typer.Option(help="Seconds; begin no problem later.")] = math.inf,
    folder: Annotated[Path, typer.Option(help="Where the page goes.")] = DOCS,
) -> None:
    """Measure, or read what was measured, and write the page."""
    file = folder / "scaling.json"
    if not only_draw and not run(file, limit):
        print(f"{file} is not complete, or the machine is busy: run this command again")
        return
    data = json.loads(file.read_text("utf-8"))
    points = [Point(**point) for point in data["points"]]
    draw(points, folder)
    (folder / "scaling.md").write_text(page(data, points, machine or data["machine"]), "utf-8")
    print(f"written: {folder / 'scaling.md'}")


if __name__ == "__main__":
    typer.run(main)
