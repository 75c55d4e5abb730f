"""fastcnn beside PyTorch on the CPU, operation by operation, in one run.

    pip install "fastcnn[peers]"
    python benchmarks/versus_torch.py [--only forward] [--rounds 15] [--threads 2] [--json FILE]

How it is kept fair: float32, the same number of threads, the same numbers, in arrays that begin
at a page for both; PyTorch in inference
mode and in both of its layouts, of which the faster counts; gradients by the operator that
computes the one that is asked for and no other; pooling's gradient with PyTorch's indices of the
maxima given, which fastcnn finds again. The runners take turns; a turn is a warm-up, so that the
other's threads have come to rest, then samples for at least 5 ms, each the mean of the calls that
fill half a millisecond (of one call, if it takes longer); a runner's figure is its least sample,
which other work on the machine disturbs least. Every runner's result is first held against
PyTorch's in float64, within the bound that follows from the length of its sums. Exit code 1 where
a promise is missed.

The machine must be quiet: a third busy thread stalls those that wait for each other, PyTorch's most
of all, for whole time slices. So the peak is measured before and after; where all threads together
miss what one alone promises, the script says that its figures do not count, and its exit code is 2.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.nn import functional

import fastcnn
from fastcnn.bench import peak
from fastcnn.bench.pages import at_page
from fastcnn.core.geometry import conv_geometry
from fastcnn.proof.bounds import linear_bound, unit_roundoff

WARM_UP = 25e-3  # seconds; the threads of OpenMP look for work for some 10 ms after their last
TURN = 10e-3
SAMPLE = 5e-4
QUIET = 0.85  # part of the threads' joint peak, by one thread's, that must be there
FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
aten = torch.ops.aten


class Layer(NamedTuple):
    """A convolution on square images, as such layers are written in tables."""

    ic: int
    side: int
    oc: int
    k: int
    stride: int
    pad: int
    n: int = 1
    groups: int = 1

    def __str__(self) -> str:
        size = f"{self.k}×{self.k} /{self.stride} +{self.pad}"
        return f"{self.n}×{self.side}×{self.side}×{self.ic} → {self.oc}, {size}"


FORWARD = (
    Layer(3, 224, 64, 7, 2, 3),
    Layer(64, 56, 64, 1, 1, 0),
    Layer(64, 56, 256, 1, 1, 0),
    Layer(64, 56, 64, 3, 1, 1),
    Layer(256, 56, 128, 1, 1, 0),
    Layer(128, 56, 128, 3, 2, 1),
    Layer(128, 28, 128, 3, 1, 1),
    Layer(512, 28, 128, 1, 1, 0),
    Layer(512, 28, 1024, 1, 2, 0),
    Layer(256, 14, 256, 3, 1, 1),
    Layer(1024, 14, 256, 1, 1, 0),
    Layer(512, 14, 512, 3, 2, 1),
    Layer(512, 7, 512, 3, 1, 1),
    Layer(512, 7, 2048, 1, 1, 0),
)
USERS = (
    Layer(1, 28, 8, 3, 1, 0, 32),
    Layer(8, 13, 16, 3, 1, 0, 32),
    Layer(3, 32, 32, 3, 1, 1, 32),
    Layer(32, 32, 64, 3, 1, 1, 32),
    Layer(1, 28, 6, 5, 1, 2, 32),
    Layer(6, 14, 16, 5, 1, 0, 32),
)
DEPTHWISE = (
    Layer(32, 112, 32, 3, 1, 1, groups=32),
    Layer(144, 56, 144, 3, 1, 1, groups=144),
    Layer(144, 56, 144, 3, 2, 1, groups=144),
    Layer(576, 14, 576, 3, 1, 1, groups=576),
)
POOLED = (8, 112, 112, 64)
WINDOWS = ((2, 2, 0), (3, 2, 1))  # size, stride, padding


@dataclass(frozen=True)
class Contest:
    """One computation and who runs it: fastcnn, and PyTorch in each layout.

    ``runners`` return their own layouts; ``to_ours`` turns PyTorch's result into fastcnn's.
    ``reference`` is PyTorch's in float64, each element a sum of at most ``terms`` positive
    products. ``operations`` is 0 where multiply-adds are not what is counted. With ``tolerance``
    results may be off by such a part of the largest number, beyond what their sums allow.
    """

    label: str
    operations: int
    terms: int
    reference: torch.Tensor
    to_ours: tuple[int, ...]
    runners: dict[str, Callable[[], Any]]
    tolerance: float = 0.0

    def verify(self) -> None:
        expected = self.reference.permute(self.to_ours).numpy()
        bound = linear_bound(self.terms, expected, expected, unit_roundoff(np.float32))
        bound += self.tolerance * np.abs(expected).max()
        for name, run in self.runners.items():
            result = run()
            if isinstance(result, torch.Tensor):
                result = result.permute(self.to_ours).numpy()
            error = np.abs(result - expected)
            if result.shape != expected.shape or not (error <= bound).all():
                raise AssertionError(f"{name} is wrong on {self.label}: off by {error.max():.1e}")


@dataclass(frozen=True)
class Outcome:
    """Seconds of one call, and what follows from them."""

    label: str
    fastcnn: float
    torch: float
    layout: str
    operations: int

    @property
    def ratio(self) -> float:
        """How many times as fast as PyTorch."""
        return self.torch / self.fastcnn

    @property
    def gflops(self) -> float:
        return self.operations / self.fastcnn / 1e9


@dataclass(frozen=True)
class Section:
    """A table: its contests, and what is promised of them."""

    title: str
    contests: Callable[[], Iterator[Contest]]
    mean: float
    least: float = 0.0
    share: float = 0.0


TO_NHWC, TO_HWIO = (0, 2, 3, 1), (2, 3, 1, 0)


def forward(layers: tuple[Layer, ...]) -> Iterator[Contest]:
    for layer in layers:
        x, w, b, _, operations = _arrays(layer)
        options = {"stride": layer.stride, "padding": layer.pad, "groups": layer.groups}
        runners = {"fastcnn": _bind(fastcnn.conv2d, x, w, b, **options)}
        for name, form in FORMATS.items():
            given = _nchw(x, form), _oihw(w, form), torch.from_numpy(b)
            runners[name] = _bind(functional.conv2d, *given, **options)
        exact = functional.conv2d(
            _nchw(x).double(), _oihw(w).double(), torch.from_numpy(b).double(), **options
        )
        terms = layer.k**2 * layer.ic // layer.groups + 1
        yield Contest(str(layer), operations, terms, exact, TO_NHWC, runners)


def gradients(of_input: bool) -> Iterator[Contest]:
    return (gradient(layer, of_input) for layer in FORWARD if layer.k in (1, 3))


def gradient(layer: Layer, of_input: bool) -> Contest:
    x, w, _, dy, operations = _arrays(layer)
    options = {"stride": layer.stride, "padding": layer.pad, "groups": layer.groups}

    def backward(*arrays: torch.Tensor) -> torch.Tensor:
        results = aten.convolution_backward(
            *arrays,
            None,
            [layer.stride] * 2,
            [layer.pad] * 2,
            [1, 1],
            False,
            [0, 0],
            layer.groups,
            [of_input, not of_input, False],
        )
        gradient: torch.Tensor = results[0 if of_input else 1]
        return gradient

    if of_input:
        ours = _bind(fastcnn.conv2d_input_gradient, dy, w, x.shape, **options)
        terms = layer.k**2 * layer.oc // layer.groups
    else:
        ours = _bind(fastcnn.conv2d_filter_gradient, dy, x, layer.k, **options)
        terms = dy.shape[0] * dy.shape[1] * dy.shape[2]
    runners = {"fastcnn": ours}
    for name, form in FORMATS.items():
        runners[name] = _bind(backward, _nchw(dy, form), _nchw(x, form), _oihw(w, form))
    exact = backward(_nchw(dy).double(), _nchw(x).double(), _oihw(w).double())
    return Contest(str(layer), operations, terms, exact, TO_NHWC if of_input else TO_HWIO, runners)


def pooling() -> Iterator[Contest]:
    rng = np.random.default_rng(0)
    x = _random(rng, *POOLED)
    for size, stride, pad in WINDOWS:
        window = [size] * 2, [stride] * 2, [pad] * 2, [1, 1], False
        label = f"{size}×{size} /{stride} +{pad}"
        runners: dict[str, Callable[[], Any]] = {
            "fastcnn": _bind(fastcnn.max_pool2d, x, size, stride, pad)
        }
        for name, form in FORMATS.items():
            runners[name] = _bind(functional.max_pool2d, _nchw(x, form), size, stride, pad)
        y = functional.max_pool2d(_nchw(x).double(), size, stride, pad)
        yield Contest(f"{label}, forward", 0, 1, y, TO_NHWC, runners)

        dy = _random(rng, y.shape[0], y.shape[2], y.shape[3], y.shape[1])
        runners = {"fastcnn": _bind(fastcnn.max_pool2d_backward, dy, x, size, stride, pad)}
        for name, form in FORMATS.items():
            runners[name] = _pool_backward(_nchw(dy, form), _nchw(x, form), window)
        exact = _pool_backward(_nchw(dy).double(), _nchw(x).double(), window)()
        terms = (-(-size // stride)) ** 2
        yield Contest(f"{label}, backward", 0, terms, exact, TO_NHWC, runners)


def _pool_backward(
    dy: torch.Tensor, x: torch.Tensor, window: tuple[Any, ...]
) -> Callable[[], torch.Tensor]:
    _, indices = aten.max_pool2d_with_indices(x, *window)
    return _bind(aten.max_pool2d_with_indices_backward, dy, x, *window, indices)


def _arrays(layer: Layer) -> tuple[Any, Any, Any, Any, int]:
    """x, w, b, dy, all positive (so a sum is its own magnitude), and the multiply-adds times 2."""
    rng = np.random.default_rng(0)
    x = _random(rng, layer.n, layer.side, layer.side, layer.ic)
    w = _random(rng, layer.k, layer.k, layer.ic // layer.groups, layer.oc)
    b = _random(rng, layer.oc)
    g = conv_geometry(x.shape, w.shape, stride=layer.stride, padding=layer.pad, groups=layer.groups)
    return x, w, b, _random(rng, *g.output_shape), g.flops


def _random(rng: np.random.Generator, *shape: int) -> Any:
    return at_page(rng.random(shape, np.float32))


def _nchw(x: Any, form: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=form)


def _oihw(w: Any, form: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    return torch.from_numpy(w).permute(3, 2, 0, 1).contiguous(memory_format=form)


def _bind(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: function(*args, **kwargs)


class Part(StrEnum):
    forward = "forward"
    users = "users"
    gradients = "gradients"
    depthwise = "depthwise"
    pool = "pool"


SECTIONS = {
    Part.forward: [Section("Forward, batch 1", lambda: forward(FORWARD), 1.0, 0.85, share=0.85)],
    Part.users: [Section("Forward, batch 32", lambda: forward(USERS), 1.5, 1.0)],
    Part.gradients: [
        Section("Gradient of the input, batch 1", lambda: gradients(of_input=True), 1.0),
        Section("Gradient of the filters, batch 1", lambda: gradients(of_input=False), 1.0),
    ],
    Part.depthwise: [Section("Depthwise, batch 1", lambda: forward(DEPTHWISE), 1.0, 1.0)],
    Part.pool: [Section("Max-pool on " + "×".join(map(str, POOLED)), pooling, 2.0, 2.0)],
}


def play(contest: Contest, rounds: int) -> Outcome:
    """Verify, then let the runners take turns."""
    contest.verify()
    best = dict.fromkeys(contest.runners, math.inf)
    for _ in range(rounds):
        for name, run in contest.runners.items():
            _sample(run, WARM_UP)
            best[name] = min(best[name], _turn(run))
    layout = min(FORMATS, key=best.__getitem__)
    return Outcome(contest.label, best["fastcnn"], best[layout], layout, contest.operations)


def _turn(run: Callable[[], Any]) -> float:
    end = time.perf_counter() + TURN
    best = _sample(run, SAMPLE)
    while time.perf_counter() < end:
        best = min(best, _sample(run, SAMPLE))
    return best


def _sample(run: Callable[[], Any], least: float) -> float:
    """Seconds of one call: the mean of as many as fill ``least`` seconds."""
    start = time.perf_counter()
    calls = 0
    while (spent := time.perf_counter() - start) < least:
        run()
        calls += 1
    return spent / calls


def undisturbed(measured: peak.Peak, threads: int) -> bool:
    """Whether all threads together reach what one alone promises."""
    flops = measured.flops["float32"]
    return flops[threads] >= QUIET * threads * flops[1]


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def table(section: Section, outcomes: list[Outcome], top: float) -> Table:
    """One row for each contest; ``top`` is the peak in GFLOP/s."""
    result = Table(title=section.title)
    counted = any(o.operations for o in outcomes)
    for heading in ("problem", "fastcnn µs", "PyTorch µs", "its layout", "ratio") + (
        ("GFLOP/s", "of peak", "PyTorch GFLOP/s") if counted else ()
    ):
        left = heading in ("problem", "its layout")
        result.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for o in outcomes:
        cells = [
            o.label,
            f"{o.fastcnn * 1e6:,.1f}",
            f"{o.torch * 1e6:,.1f}",
            o.layout,
            f"{o.ratio:.2f}",
        ]
        if counted:
            cells += [f"{o.gflops:.0f}", f"{o.gflops / top:.0%}", f"{o.gflops / o.ratio:.0f}"]
        result.add_row(*cells)
    return result


def verdicts(section: Section, outcomes: list[Outcome], top: float) -> list[tuple[str, bool]]:
    """What was promised, what came of it, and whether it was kept."""
    ratios = [o.ratio for o in outcomes]
    figures = [("geometric mean of the ratios", geometric_mean(ratios), section.mean)]
    if section.least:
        figures.append(("least ratio", min(ratios), section.least))
    if section.share:
        shares = [o.gflops / top for o in outcomes]
        figures.append(("geometric mean of the shares", geometric_mean(shares), section.share))
    return [
        (f"{name} {value:.2f}, promised {promised:.2f}", value >= promised)
        for name, value, promised in figures
    ]


def main(
    only: Annotated[Part | None, typer.Option(help="One table instead of all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each runner.")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for both.")] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print the tables and what they say of the promises."""
    sections = [s for part in Part if only in (None, part) for s in SECTIONS[part]]
    sys.exit(run(sections, rounds, threads, json_file))


def run(sections: Iterable[Section], rounds: int, threads: int, json_file: Path | None) -> int:
    """Measure and print the sections; the exit code."""
    fastcnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    console = Console()
    console.width = max(console.width, 130)
    counts = sorted({1, threads})
    measured = peak.measure(counts)
    top = measured.flops["float32"][threads]
    console.print(
        f"fastcnn {fastcnn.__version__}, PyTorch {torch.__version__}, {threads} threads, float32; "
        f"measured peak {top:.1f} GFLOP/s"
    )
    report: dict[str, Any] = {"threads": threads, "peak": asdict(measured), "tables": {}}
    kept = True
    for section in sections:
        with torch.inference_mode():
            outcomes = [play(contest, rounds) for contest in section.contests()]
        console.print(table(section, outcomes, top))
        for text, good in verdicts(section, outcomes, top):
            console.print(f"  {text}: {'kept' if good else 'missed'}")
            kept = kept and good
        report["tables"][section.title] = [
            {**asdict(o), "ratio": o.ratio, "gflops": o.gflops, "share": o.gflops / top}
            for o in outcomes
        ]
    report["quiet"] = all(undisturbed(p, threads) for p in (measured, peak.measure(counts)))
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if not report["quiet"]:
        console.print("Other work kept this machine busy: these figures do not count.")
        return 2
    return int(not kept)


if __name__ == "__main__":
    typer.run(main)
