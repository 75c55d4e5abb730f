"""``fastcnn bench``: the benchmark suite on a terminal, and the comparison of two of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastcnn.cli.consoles import console_of_output
from fastcnn.cli.options import Threads, check_output
from fastcnn.cli.outcomes import DISAGREE, plain_errors

if TYPE_CHECKING:
    from fastcnn.bench.report import Report

SLOWER = 1


def bench(
    full: Annotated[
        bool,
        typer.Option("--full/--quick", help="All of the table, or a minute of it at most."),
    ] = False,
    op: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this operation; may be repeated."),
    ] = None,
    net: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this net; may be repeated.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Only the model of this file, .onnx or saved by fastcnn, on random inputs.",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples in a call of the --model. Default: 1.")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this engine of fastcnn; may be repeated."),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="torch, onnxruntime, openvino, litert, jax, scipy, with commas between, or none. "
            "Default: all.",
        ),
    ] = None,
    threads: Threads = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures to this file.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run of the --json file: run the contests that it lacks, and "
            "those with noise above 20 %. The file is "
            "written after each contest, so an interrupted run loses one at most.",
        ),
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="Time for each contest. Default: 6 with --full."
        ),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Begin no further contest after this time."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained page.")
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep the figures in .fastcnn-bench, for --compare."),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="Compare two runs, by their --save names or --json files; run nothing.",
        ),
    ] = None,
) -> None:
    """Time the engines on layers and nets, beside other libraries.

    The libraries are those of --peers that are installed here.

    Every result is verified before it is timed, and a wrong one is refused. The exit code is 1 if
    it belongs to one of fastcnn's engines. --compare shows which entries became slower beyond
    noise; its exit code is 1 if any did. It compares fastcnn on one thread, so it does not show
    the gain or loss of several threads. --model times a model of your own, beside ONNX Runtime and
    OpenVINO, which read ONNX files.
    """
    with plain_errors():
        if compare is not None:
            options = (
                op,
                net,
                model,
                batch,
                engine,
                peers,
                full,
                json,
                html,
                save,
                threads,
                resume,
                seconds,
                limit,
            )
            if any(options):
                raise ValueError("--compare takes two saved runs and no other option")
            slower = _compare(*compare)
        else:
            check_output("--json", json)
            check_output("--html", html)
            if model is not None and (op or net):
                raise ValueError("--model takes no --op and no --net")
            if model is None and batch is not None:
                raise ValueError("--batch needs --model, because the table has batches of its own")
            if resume and json is None:
                raise ValueError("--resume needs --json, the file of the run to continue")
            report = _run(
                full,
                op,
                net,
                None if model is None else (model, batch or 1),
                engine,
                peers,
                threads,
                seconds,
                json if resume else None,
                limit,
            )
            _keep(report, json, html, save)
    if compare is not None:
        if slower:
            raise typer.Exit(SLOWER)
    elif report.wrong:
        raise typer.Exit(DISAGREE)


def _run(
    full: bool,
    op: list[str] | None,
    net: list[str] | None,
    model: tuple[Path, int] | None,
    engine: list[str] | None,
    peers: str | None,
    threads: int | None,
    seconds: float | None,
    file: Path | None,
    limit: float | None,
) -> Report:
    """Run the suite; ``file`` is that of the run to continue, which need not exist yet."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from fastcnn.bench import bench as run
    from fastcnn.bench.costs import costs
    from fastcnn.bench.peers import READERS
    from fastcnn.bench.report import Report
    from fastcnn.bench.text import show
    from fastcnn.cli.models import model_task
    from fastcnn.core.terminal import display

    names = None if peers is None else [p for p in peers.split(",") if p not in ("", "none")]
    if model is not None and names is None:
        names = list(READERS)
    tasks = None if model is None else [model_task(*model)]
    terminal = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
    bar = Progress(*columns, console=terminal, transient=True)
    with display(bar):
        task = bar.add_task("", total=None)

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        report = run(
            quick=not full,
            ops=op,
            net=net,
            problems=tasks,
            engine=engine,
            peer=names,
            threads=threads,
            seconds=seconds,
            costs=costs if full and not op and not net and not model else None,
            progress=progress,
            before=Report.read(file) if file is not None and file.exists() else None,
            limit=limit,
            finished=None if file is None else lambda report: report.write(file),
        )
    show(console_of_output(), report)
    return report


def _keep(report: Report, json: Path | None, html: Path | None, save: str | None) -> None:
    from fastcnn.bench.history import place

    if json is not None:
        report.write(json)
    if save is not None:
        path = place(save)
        path.parent.mkdir(parents=True, exist_ok=True)
        report.write(path)
        typer.echo(f"saved as {path}")
    if html is not None:
        from fastcnn.bench.html import page
        from fastcnn.core.files import write_whole

        write_whole(html, page(report).encode())


def _compare(before: str, after: str) -> bool:
    """Print the changes, and return whether anything became slower."""
    from fastcnn.bench.history import compare, place
    from fastcnn.bench.report import Report
    from fastcnn.bench.text import comparison_table, times

    comparison = compare(Report.read(place(before)), Report.read(place(after)))
    console = console_of_output()
    console.print(comparison_table(comparison, console.width))
    for name in comparison.missing:
        console.print(f"not in both, or not timed: {name}", markup=False, style="dim")
    if comparison.mean is not None:
        console.print(f"geometric mean of after ÷ before: {times(comparison.mean)}")
    count = len(comparison.slower)
    console.print(
        f"{count} of {len(comparison.changes)} became slower on one thread, beyond noise."
        if count
        else "Nothing became slower on one thread, beyond noise.",
        style="bold red" if count else "bold green",
    )
    return bool(count)
