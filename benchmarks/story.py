"""The steps of docs/from-naive-to-peak.md: measured, checked, and drawn on a roofline.

    pip install "fastcnn[plots]" threadpoolctl
    python benchmarks/story.py             measure, write docs/from-naive-to-peak.json, draw
    python benchmarks/story.py --draw      draw what was measured before

One layer, a 3×3 convolution of 56×56 pixels from 64 to 64 channels with bias and ReLU, by each
step's algorithm on one thread. Each result is held against the specification first. The time is the
least of many turns, of one thread's processor time, which other work disturbs least; the ceilings
are measured in the same run. GFLOP/s count the multiply-adds of the direct sum, whatever the
algorithm saves. Bytes are those that a step must move to and from memory: the images, filters and
results, and what it writes down in between.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import peak
import typer

import fastcnn
from fastcnn.core import hardware
from fastcnn.core.geometry import conv_geometry
from fastcnn.engine import numba as kernels
from fastcnn.engine.numba.runtime.instruction_sets import host_registers

DOCS = Path(__file__).resolve().parent.parent / "docs"
DATA = DOCS / "from-naive-to-peak.json"
PICTURE = DOCS / "from-naive-to-peak.png"
SIDE, CHANNELS, FILTERS = 56, 64, 64
SECONDS = 1.5  # of turns for each step


@dataclass(frozen=True)
class Step:
    """A step of the story, as measured."""

    name: str
    seconds: float
    gflops: float
    share_of_peak: float
    bytes_moved: int
    intensity: float
    worst_error: float  # of the largest output


def steps() -> tuple[int, dict[str, tuple[Callable[[], Any], int]]]:
    """The work in operations; and for each step its call, and the bytes that it moves."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, SIDE, SIDE, CHANNELS), np.float32)
    w = rng.standard_normal((3, 3, CHANNELS, FILTERS), np.float32)
    b = rng.standard_normal(FILTERS, np.float32)
    g = conv_geometry(x.shape, w.shape, padding=1)
    y_bytes = math.prod(g.output_shape) * x.itemsize
    least = x.nbytes + w.nbytes + b.nbytes + y_bytes

    def by(**how: Any) -> Callable[[], Any]:
        return lambda: fastcnn.conv2d(x, w, b, padding=1, activation="relu", **how)

    def in_three_passes() -> Any:
        y = fastcnn.conv2d(x, w, padding=1, algorithm="direct")
        return fastcnn.relu(y + b)

    return g.flops, {
        # Numbers become float64 there.
        "naive": (by(engine="naive"), 2 * least),
        # The matrix of windows is written and read: each pixel nine times.
        "im2col": (by(algorithm="im2col"), least + 2 * 9 * x.nbytes),
        "compiled loops": (lambda: kernels.conv2d(x, w, b, "relu", g), least),
        # The sum, the bias and the activation each read and write y.
        "register tiles": (in_three_passes, least + 4 * y_bytes),
        "fused": (by(algorithm="direct"), least),
        "Winograd": (by(algorithm="winograd"), least),
    }


def measure() -> dict[str, Any]:
    """All steps and the ceilings, in one run on one thread."""
    from threadpoolctl import threadpool_limits

    fastcnn.set_num_threads(1)
    threadpool_limits(1)  # of the library that multiplies NumPy's matrices
    top = peak.measure([1])
    ceiling = top.flops["float32"][1]
    work, calls = steps()
    expected = calls["naive"][0]().astype(np.float64)
    results = []
    best = {name: _seconds(call) for name, (call, _) in calls.items()}
    for name, (call, _) in calls.items():
        if best[name] < 0.2:
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                best[name] = min(best[name], _seconds(call))
    for name, (call, moved) in calls.items():
        error = float(np.abs(call() - expected).max() / np.abs(expected).max())
        if error > 2e-5:
            raise AssertionError(f"{name} is off by {error:.1e} of the largest output")
        gflops = work / best[name] / 1e9
        step = Step(name, best[name], gflops, gflops / ceiling, moved, work / moved, error)
        results.append(asdict(step))
    return {
        "layer": f"3×3, {CHANNELS} → {FILTERS} channels, {SIDE}×{SIDE} pixels, float32",
        "processor": f"one core of {hardware.processor_name()}, {host_registers().isa}",
        "peak_gflops": ceiling,
        "copy_gbytes": top.copy[1],
        "work": work,
        "steps": results,
    }


def _seconds(call: Callable[[], Any]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def draw(data: dict[str, Any]) -> None:
    """The roofline: what memory and multiply-adds allow, and where each step stands."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    top, copy = data["peak_gflops"], data["copy_gbytes"]
    figure, axes = pyplot.subplots(figsize=(8, 5.5), dpi=120)
    corner = top / copy
    x = np.array([corner / 8, corner, 4 * corner, 1500])
    axes.loglog(x, np.minimum(top, copy * x), color="black", linewidth=2)
    axes.loglog(x[1:], np.minimum(4 * top, copy * x[1:]), "--", color="black")
    axes.text(4 * corner, 4 * top * 1.08, "F(4×4, 3×3): a quarter of the multiply-adds")
    axes.text(4 * corner, top * 1.08, f"multiply-adds: {top:.0f} GFLOP/s")
    axes.text(corner / 3, top / 5, f"memory: {copy:.0f} GB/s")
    steps = data["steps"]
    at = [step["intensity"] for step in steps], [step["gflops"] for step in steps]
    axes.scatter(*at, color="tab:blue", zorder=2)
    below = {"im2col", "register tiles"}
    for number, step in enumerate(steps, 1):
        axes.annotate(
            f"{number} {step['name']}, {step['gflops']:.3g}",
            (step["intensity"], step["gflops"]),
            xytext=(-8, -16) if step["name"] in below else (9, -6),
            textcoords="offset points",
        )
    axes.set_xlabel("operations for each byte moved")
    axes.set_ylabel("GFLOP/s of the direct sum")
    axes.set_title(f"{data['layer']}\n{data['processor']}", fontsize=10)
    axes.set_ylim(min(at[1]) / 2, 8 * top)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(PICTURE)


def main(
    only_draw: Annotated[bool, typer.Option("--draw", help="Measure nothing.")] = False,
) -> None:
    """Measure the steps and draw them."""
    if not only_draw:
        DATA.write_text(json.dumps(measure(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    data = json.loads(DATA.read_text("utf-8"))
    for step in data["steps"]:
        typer.echo(
            f"{step['name']:15} {step['seconds'] * 1e6:12,.0f} µs {step['gflops']:8.3g} GFLOP/s "
            f"{step['share_of_peak']:7.1%} of peak   off by {step['worst_error']:.0e}"
        )
    draw(data)


if __name__ == "__main__":
    typer.run(main)
