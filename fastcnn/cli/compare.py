"""``fastcnn compare``: the proof that the engines agree, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastcnn.cli.consoles import console_of_output
from fastcnn.cli.options import Seed, check_output
from fastcnn.cli.outcomes import DISAGREE, plain_errors

if TYPE_CHECKING:
    from rich.console import Console

    from fastcnn.proof import Report


def compare(
    op: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this operation, or net; may be repeated."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this engine; may be repeated."),
    ] = None,
    model: Annotated[
        bool, typer.Option("--model", help="Whole nets: outputs, loss and all gradients.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A part of the matrix.")] = False,
    case: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this case, as a failure names it."),
    ] = None,
    seed: Seed = 0,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all results there too.")
    ] = None,
) -> None:
    """Prove that the engines agree.

    Each engine is compared with the specification, on a matrix of problems and on MNIST
    digits. Results on integers must be equal to the last bit, results on floats within a bound
    that is derived from their roundings. With --model, whole nets are compared, as compiled
    programs and layer by layer on each engine. The exit code is 1 if anything disagrees. Each
    failing case is printed as the command that reproduces it.
    """
    with plain_errors():
        if case is not None and (op or quick or model):
            raise ValueError("--case names one case: leave out --op, --quick and --model")
        check_output("--json", json)
        report = _comparison(op, engine, quick, case, seed, model)
        _print_report(console_of_output(), report)
        if json is not None:
            _write_json(json, report)
    if not report.ok:
        raise typer.Exit(DISAGREE)


def _comparison(
    op: list[str] | None,
    engine: list[str] | None,
    quick: bool,
    case: str | None,
    seed: int,
    model: bool,
) -> Report:
    """Run the comparison, with a progress bar on the terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from fastcnn.core.terminal import display
    from fastcnn.proof import compare as run

    terminal = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
    bar = Progress(*columns, console=terminal, transient=True)
    with display(bar):
        task = bar.add_task("", total=None)

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        return run(
            op or None, engine or None, quick=quick, case=case, seed=seed, models=model,
            progress=show,
        )  # fmt: skip


def _print_report(console: Console, report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    from fastcnn.core.tables import fitted_table
    from fastcnn.proof.report import COLUMNS, NOTES, SPARE

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    spare = [COLUMNS.index(name) for name in SPARE]
    cells = [COLUMNS, *(row.cells for row in report.rows)]
    names, *rows = fitted_table(cells, console.width, [0], spare, gap=1, least=22).rows
    for name in names:
        is_text = name in ("op", "engine")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for row, texts in zip(report.rows, rows, strict=True):
        colour = "green" if row.ok else "bold red"
        table.add_row(
            *(
                Text(text, style=colour if name == "verdict" else "")
                for name, text in zip(names, texts, strict=True)
            )
        )
    console.print(table)
    for name in names:
        if name in NOTES:
            note = f"{name:<8} {NOTES[name]}"
            console.print(note, style="dim", markup=False, highlight=False)
    for line in report.reproductions:
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(report.summary, style="bold green" if report.ok else "bold red", highlight=False)


def _write_json(path: Path, report: Report) -> None:
    from json import dumps

    from fastcnn.core.files import write_whole

    write_whole(path, (dumps(report.to_dict(), indent=2, allow_nan=False) + "\n").encode())
