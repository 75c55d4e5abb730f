"""Whole nets beside the frameworks: training steps and inference, in one run.

    pip install "fastcnn[peers]"
    python benchmarks/training_versus_torch.py [--net article] [--mode train]

The article's net, LeNet-5 and a small CNN on MNIST digits, through ``Sequential.train_on_batch``
and ``predict``. Same weights, same batch, SGD with a rate of 0.005, the same number of threads;
PyTorch eager and compiled, in both of its layouts; JAX under ``jax.jit``; ONNX Runtime for
inference. Before anything is timed, each runner's probabilities, or its losses over five steps, are
held against the same net in float64. Runners take turns, and the least sample of each counts.

Exit code 1 where a promise is missed, 2 where other work kept the machine too busy to tell.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import fastcnn
from fastcnn.benchmark import measure, nets, peak, peers

# How many times as fast as the best peer (training) or as ONNX Runtime (inference).
PROMISES = {
    ("article", "train", 32): 5.0,
    ("article", "train", 1): 6.0,
    ("lenet5", "train", 32): 3.0,
    ("small", "train", 32): 1.5,
    **{("article", "predict", batch): 2.0 for batch in (1, 32, 128)},
    **{("lenet5", "predict", batch): 1.3 for batch in (1, 32, 128)},
    **{("small", "predict", batch): 1.0 for batch in (1, 32, 128)},
}
BATCHES = {"train": (32, 1), "predict": (1, 32, 128)}
QUIET = 0.85  # part of the threads' joint peak, by one thread's, that must be there


def compete(name: str, mode: str, batch: int, names: tuple[str, ...], threads: int) -> Any:
    """The contest of a net with all peers, verified."""
    task = nets.task(name, mode, batch)
    contest = nets.contest(task)
    peers.join_net(contest, task, names, threads)
    for runner in contest.runners:
        contest.verify(runner)
    return contest


def rival(mode: str, times: dict[str, float]) -> str | None:
    """Whom the promise is about: ONNX Runtime for inference, else the fastest peer."""
    others = {name: seconds for name, seconds in times.items() if name != "fastcnn"}
    if mode == "predict" and "ONNX Runtime" in others:
        return "ONNX Runtime"
    return min(others, key=others.__getitem__, default=None)


def table(contest: Any, timings: dict[str, measure.Timing], top: float) -> Table:
    """One contest: a row for each runner, the fastest first."""
    result = Table(title=contest.name)
    for heading in ("runner", "least µs", "median µs", "spread", "fastcnn is × as fast", "of peak"):
        result.add_column(heading, justify="left" if heading == "runner" else "right")
    ours = timings["fastcnn"].least
    for name, timing in sorted(timings.items(), key=lambda item: item[1].least):
        result.add_row(
            name,
            f"{timing.least * 1e6:,.1f}",
            f"{timing.middle * 1e6:,.1f}",
            f"{timing.spread:.1%}",
            "" if name == "fastcnn" else f"{timing.least / ours:.2f}",
            f"{contest.flops / timing.least / 1e9 / top:.1%}",
        )
    return result


def main(
    net: Annotated[list[str] | None, typer.Option(help="Only this net; may be repeated.")] = None,
    mode: Annotated[str | None, typer.Option(help="train or predict. Default: both.")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="Only this peer; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of timing for each table.")] = 8.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for all.")] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print a table for each net, mode and batch, then what came of the promises."""
    fastcnn.set_num_threads(threads)
    console = Console()
    console.width = max(console.width, 100)
    measured = peak.measure(sorted({1, threads}))
    top = measured.flops["float32"][threads]
    console.print(
        f"fastcnn {fastcnn.__version__}, {threads} threads, float32; measured peak "
        f"{top:.1f} GFLOP/s, copy {measured.copy[threads]:.1f} GB/s"
    )
    names = tuple(peer or peers.PEERS)
    entries, kept = [], True
    for which in net or nets.TITLES:
        for how in (mode,) if mode else BATCHES:
            for batch in BATCHES[how]:
                contest = compete(which, how, batch, names, threads)
                found = measure.interleaved([r.run for r in contest.runners], seconds)
                timings = {r.name: t for r, t in zip(contest.runners, found, strict=True)}
                console.print(table(contest, timings, top))
                for skipped in contest.skipped:
                    console.print(f"  {skipped.name} is left out: {skipped.reason}", markup=False)
                times = {name: timing.least for name, timing in timings.items()}
                other = rival(how, times)
                promised = PROMISES.get((which, how, batch))
                ratio = times[other] / times["fastcnn"] if other else None
                if promised and ratio is not None:
                    good = ratio >= promised
                    kept = kept and good
                    console.print(
                        f"  {ratio:.2f} times as fast as {other}, promised {promised:.1f}: "
                        f"[bold]{'kept' if good else 'missed'}[/]"
                    )
                entries.append(
                    {
                        "net": which,
                        "mode": how,
                        "batch": batch,
                        "flops": contest.flops,
                        "runners": {name: asdict(timing) for name, timing in timings.items()},
                        "skipped": [s._asdict() for s in contest.skipped],
                        "rival": other,
                        "ratio": ratio,
                        "promised": promised,
                    }
                )
    after = peak.measure(sorted({1, threads}))
    quiet = all(
        p.flops["float32"][threads] >= QUIET * threads * p.flops["float32"][1]
        for p in (measured, after)
    )
    if json_file is not None:
        report = {"threads": threads, "peak": asdict(measured), "quiet": quiet, "entries": entries}
        json_file.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if not quiet:
        console.print("Other work kept this machine busy: these figures do not count.")
        sys.exit(2)
    sys.exit(not kept)


if __name__ == "__main__":
    typer.run(main)
