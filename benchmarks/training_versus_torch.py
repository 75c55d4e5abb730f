"""Whole nets beside the frameworks: training steps and inference, in one run.

    pip install "fastcnn[peers]"
    python benchmarks/training_versus_torch.py [--net article] [--seconds 8]

The article's net, LeNet-5 and a wider CNN on MNIST digits, through ``Sequential.train_on_batch``
and ``predict``: that part of ``fastcnn bench --full``, and what was promised of it. Same weights,
same batch, SGD with a rate of 0.005, the same number of threads; PyTorch eager and compiled, in
both of its layouts; JAX under ``jax.jit``; ONNX Runtime for inference. Before anything is timed,
each runner's probabilities, or its losses over five steps, are held against the same net in
float64.

Exit code 1 where a promise is missed, 2 where other work kept the machine too busy to tell.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastcnn.bench import Report, bench, nets
from fastcnn.bench.problems import NetProblem
from fastcnn.bench.report import Figure
from fastcnn.bench.text import show

# How many times as fast as the best peer (training), or as ONNX Runtime (inference).
PROMISES = {
    NetProblem("article", "train", 32): 5.0,
    NetProblem("article", "train", 1): 6.0,
    NetProblem("lenet5", "train", 32): 3.0,
    NetProblem("wide", "train", 32): 1.5,
    **{NetProblem("article", "predict", batch): 2.0 for batch in (1, 32, 128)},
    **{NetProblem("lenet5", "predict", batch): 1.3 for batch in (1, 32, 128)},
    **{NetProblem("wide", "predict", batch): 1.0 for batch in (1, 32, 128)},
}


def verdicts(report: Report) -> list[tuple[str, bool]]:
    """What was promised, what came of it, and whether it was kept; of what ran."""
    entries = {entry.name: entry for entry in report.entries}
    results = []
    for problem, promised in PROMISES.items():
        name = nets.title(problem)
        entry = entries.get(name)
        if entry is None:
            continue
        rival: Figure | None = entry.best_peer
        if problem.mode == "predict":
            rival = entry.figure("ONNX Runtime")
        ratio = entry.times(rival)
        if rival is None or ratio is None:
            results.append((f"{name}: nothing to compare with", False))
            continue
        told = f"{name}: {ratio:.2f} times as fast as {rival.name}, promised {promised:.1f}"
        results.append((told, ratio >= promised))
    return results


def main(
    net: Annotated[list[str] | None, typer.Option(help="Only this net; may be repeated.")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="Only this peer; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of timing for each table.")] = 8.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for all.")] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print a table for each net, mode and batch, then what came of the promises."""
    report = bench(
        quick=False,
        net=net or list(nets.TITLES),
        peer=peer,
        threads=threads,
        seconds=seconds,
        progress=lambda done, total, name: print(f"{done}/{total} {name}", file=sys.stderr),
    )
    console = Console()
    show(console, report)
    result = verdicts(report)
    for told, kept in result:
        console.print(f"{told}: {'kept' if kept else 'missed'}", highlight=False)
    if json_file is not None:
        report.write(json_file)
    if not report.is_quiet:
        sys.exit(2)
    sys.exit(not all(kept for _, kept in result))


if __name__ == "__main__":
    typer.run(main)
