"""Standard nets beside PyTorch, ONNX Runtime and OpenVINO: inference, first prediction, memory.

    pip install "fastcnn[peers]"
    python benchmarks/standard_nets.py [--net resnet50] [--batch 1] [--rounds 9] [--json FILE]

The nets of ``fastcnn.nets.STANDARD_NETS`` on images of ImageNet's shape (U-net: 128×128), float32,
with the same random weights in all libraries. PyTorch runs in inference mode in both of its
layouts, and frozen by TorchScript; ONNX Runtime and OpenVINO run what ``torch.onnx`` exports, with
all of their optimisations, OpenVINO in float32. Results are held against the im2col engine in
float64 before anything is timed.

The libraries take turns. A turn is at least 100 ms long, and its first 80 ms do not count, because
threads of the library before may still look for work. A ratio is the median over the rounds of a
library's time ÷ fastcnn's time; above 1 fastcnn is faster.

The first prediction and the memory come from new processes, which load a file of the net and
predict one image: fastcnn with an empty and with a full cache of compiled kernels.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import fastcnn
from fastcnn.bench import measure, nets, peers, standard
from fastcnn.bench.contest import Runner
from fastcnn.bench.costs import Library, process
from fastcnn.bench.report import Absent, geometric_mean
from fastcnn.bench.standard import TITLES, StandardTask
from fastcnn.bench.suite import remove_wrong
from fastcnn.bench.text import duration
from fastcnn.engine.machine import facts

PEERS = ("torch", "onnxruntime", "openvino")
OURS = "fastcnn"


@dataclass(frozen=True)
class Timed:
    """One runner on one net.

    Attributes:
        name: the runner's name.
        seconds: the median time of a call.
        ratio: the median over the rounds of this runner's time ÷ fastcnn's.
    """

    name: str
    seconds: float
    ratio: float


@dataclass(frozen=True)
class Row:
    """A net at one batch size: its runners, fastcnn first, and those that do not take part."""

    net: str
    batch: int
    timed: tuple[Timed, ...]
    absent: tuple[Absent, ...]

    @property
    def best_peer(self) -> Timed | None:
        """The fastest other library by its median ratio."""
        return min(self.timed[1:], key=lambda one: one.ratio, default=None)


@dataclass(frozen=True)
class First:
    """A new process of a library that loads a net and predicts one image.

    Attributes:
        net: the net's name.
        library: the library.
        load: seconds of the import and of loading the net.
        first: seconds of the first prediction.
        memory: most MB in use at once, or None where the system does not tell.
    """

    net: str
    library: str
    load: float
    first: float
    memory: float | None


def row(task: StandardTask, threads: int, rounds: int) -> Row:
    """Verify and time all runners of a net."""
    contest = standard.contest(task)
    contest.runners[:] = [runner for runner in contest.runners if runner.name == OURS]
    peers.join_net(contest, task, PEERS, threads)
    absent = [Absent(one.name, one.reason) for one in contest.skipped if one.name != "naive"]
    absent += remove_wrong(contest)
    if not contest.runners or contest.runners[0].name != OURS:
        raise SystemExit("\n".join(f"{one.name}: {one.reason}" for one in absent))
    seconds = measure.in_rounds([runner.run for runner in contest.runners], rounds)
    timed = [
        _timed(runner, mine, seconds[0])
        for runner, mine in zip(contest.runners, seconds, strict=True)
    ]
    return Row(task.name, task.batch, tuple(timed), tuple(absent))


def _timed(runner: Runner, seconds: Sequence[float], ours: Sequence[float]) -> Timed:
    ratios = [mine / its for mine, its in zip(seconds, ours, strict=True)]
    return Timed(runner.name, median(seconds), median(ratios))


# --- the first prediction of a new process --------------------------------------------------------

_NUMPY = "import numpy as np\nx = np.load({images!r})\n"
_TORCH = """import warnings, torch
warnings.simplefilter("ignore")  # of TorchScript, which is deprecated
torch.set_num_threads({threads})
net = torch.jit.optimize_for_inference(torch.jit.load({net!r}))
"""
_ONNX_RUNTIME = """import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}
net = onnxruntime.InferenceSession({net!r}, options, providers=["CPUExecutionProvider"])
"""
_OPENVINO = """import openvino
hints = {{"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
          "INFERENCE_NUM_THREADS": {threads}}}
net = openvino.compile_model(openvino.Core().read_model({net!r}), "CPU", hints)
"""
_OURS = "import fastcnn\nfastcnn.set_num_threads({threads})\nnet = fastcnn.load_model({net!r})\n"


def firsts(task: StandardTask, threads: int, processes: int) -> Iterator[First]:
    """The first predictions of all libraries that are installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def library(
            family: str, package: str, load: str, call: str, net: str, images: str
        ) -> Library:
            places = {"net": str(folder / net), "images": str(folder / images), "threads": threads}
            return Library(family, package, (_NUMPY + load).format(**places), call)

        task.model().save(folder / "net.safetensors")
        np.save(folder / "nhwc.npy", task.images())
        np.save(folder / "nchw.npy", np.ascontiguousarray(task.images().transpose(0, 3, 1, 2)))
        ours = library("fastcnn", "fastcnn", _OURS, "net.predict(x)", "net.safetensors", "nhwc.npy")
        cache = str(folder / "cache")
        yield _first(task, "fastcnn, nothing compiled", [process(ours, cache)])
        yield _first(task, "fastcnn", [process(ours, cache) for _ in range(processes)])
        if peers.missing("torch") is not None:
            return
        from fastcnn.bench.peers import onnx_graphs, torch_nets

        torch_nets.frozen(torch_nets.module(task), task).save(str(folder / "net.pt"))
        call = "with torch.inference_mode():\n    net(torch.from_numpy(x)).numpy()"
        others = [library("PyTorch frozen", "torch", _TORCH, call, "net.pt", "nchw.npy")]
        if not any(map(peers.missing, PEERS)):
            (folder / "net.onnx").write_bytes(onnx_graphs.net(task)[0])
            call = "net.run(None, {net.get_inputs()[0].name: x})"
            files = "net.onnx", "nchw.npy"
            others.append(library("ONNX Runtime", "onnxruntime", _ONNX_RUNTIME, call, *files))
            others.append(library("OpenVINO", "openvino", _OPENVINO, "net([x])[0]", *files))
        for other in others:
            yield _first(task, other.family, [process(other) for _ in range(processes)])


def _first(task: StandardTask, library: str, runs: Sequence[dict[str, float]]) -> First:
    best = min(runs, key=lambda run: run["first"])
    return First(task.name, library, best["import"], best["first"] - best["import"], best["memory"])


# --- tables ---------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> Table:
    """A row for each net and batch: times, and fastcnn's speed as a multiple of the best peer's."""
    names = list(dict.fromkeys(one.name for row in rows for one in row.timed))
    result = Table(title="Inference: time of a batch, and its ratio to fastcnn's", box=None)
    for heading in ("net", "batch", *names, "× best peer"):
        result.add_column(heading, justify="left" if heading == "net" else "right", no_wrap=True)
    for row in rows:
        cells = {one.name: one for one in row.timed}
        best = row.best_peer
        result.add_row(
            TITLES[row.net],
            str(row.batch),
            *(_cell(cells.get(name), best) for name in names),
            "" if best is None else f"{best.ratio:.2f}",
            style="bold green" if best is not None and best.ratio >= 1 else "",
        )
    for batch in sorted({row.batch for row in rows}):
        some = [row for row in rows if row.batch == batch]
        result.add_row("geometric mean", str(batch), *_means(some, names), style="bold")
    if len({row.batch for row in rows}) > 1:
        result.add_row("geometric mean", "all", *_means(rows, names), style="bold")
    return result


def _cell(timed: Timed | None, best: Timed | None) -> str:
    if timed is None:
        return "—"
    if timed.name == OURS:
        return duration(timed.seconds)
    mark = "★ " if timed is best else ""
    return f"{mark}{duration(timed.seconds)} {timed.ratio:.2f}"


def _means(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """The geometric mean of the ratios of each runner, and of the best peers."""
    for name in names:
        ratios = [one.ratio for row in rows for one in row.timed if one.name == name]
        yield "" if name == OURS else f"{geometric_mean(ratios):.2f}"
    best = geometric_mean(row.best_peer.ratio for row in rows if row.best_peer is not None)
    yield "" if best is None else f"{best:.2f}"


def first_table(all_firsts: Sequence[First]) -> Table:
    """A row for each net and library."""
    result = Table(title="One image in a new process", box=None)
    for heading in ("net", "library", "import and load", "first prediction", "together", "memory"):
        left = heading in ("net", "library")
        result.add_column(heading, justify="left" if left else "right", no_wrap=True)
    last = ""
    for one in all_firsts:
        result.add_row(
            "" if one.net == last else TITLES[one.net],
            one.library,
            duration(one.load),
            duration(one.first),
            duration(one.load + one.first),
            "" if one.memory is None else f"{one.memory:,.0f} MB",
            style="bold" if one.library.startswith("fastcnn") else "",
        )
        last = one.net
    return result


def main(
    net: Annotated[list[str] | None, typer.Option(help="Only this net; may be repeated.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Batch size; may be repeated.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for all.")] = 2,
    rounds: Annotated[int, typer.Option(min=0, help="Turns of each; 0 times nothing.")] = 9,
    processes: Annotated[
        int, typer.Option(min=0, help="New processes for each library; 0 starts none.")
    ] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print the tables."""
    os.environ.setdefault("FASTCNN_COMPILE_NOTICE", "0")
    fastcnn.set_num_threads(threads)
    for name in net or ():
        if name not in TITLES:
            raise typer.BadParameter(f"net must be one of {', '.join(TITLES)}, got {name!r}")
    names, batches = net or list(TITLES), batch or list(standard.BATCHES)
    console = Console()
    console.width = max(console.width, 150)
    machine = facts()
    packages = {name: version for name, version in peers.versions().items() if version}
    versions = ", ".join(f"{name} {packages[name]}" for name in PEERS if name in packages)
    console.print(
        f"fastcnn {machine['fastcnn']} on {machine['processor']}, {machine['isa']}, {threads} "
        f"threads, float32; {versions}",
        highlight=False,
    )
    rows: list[Row] = []
    for task in [standard.task(name, n) for name in names for n in batches] if rounds else []:
        print(nets.title(task), file=sys.stderr)
        rows.append(row(task, threads, rounds))
    if rows:
        console.print(table(rows))
        for name, reason in dict.fromkeys((a.name, a.reason) for r in rows for a in r.absent):
            console.print(f"{name} is left out: {reason}", style="dim", highlight=False)
    first: list[First] = []
    for task in [standard.task(name, 1) for name in names] if processes else []:
        print(f"{nets.title(task)}, in new processes", file=sys.stderr)
        first += firsts(task, threads, processes)
    if first:
        console.print(first_table(first))
    if json_file is not None:
        figures = {
            "machine": machine,
            "packages": packages,
            "threads": threads,
            "inference": [asdict(one) for one in rows],
            "first": [asdict(one) for one in first],
        }
        json_file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
