"""The command line: ``fastcnn demo`` and ``fastcnn compare``.

Exit codes: 0 for success, 1 where engines disagree, 2 for bad arguments, 130 after Ctrl-C.
What a command needs (Rich, Numba, the data) is imported when it runs, so that help is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastcnn.version import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from fastcnn.comparison import Report

DISAGREE = 1
BAD_ARGUMENT = 2
INTERRUPTED = 130

app = typer.Typer(
    name="fastcnn",
    help="A CNN engine for the CPU that you can read, at the speed of the hardware.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Seed = Annotated[
    int, typer.Option(min=0, help="Of everything random: the same seed, same numbers.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastcnn {__version__}")
        raise typer.Exit


@app.callback()
def _fastcnn(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(seed: Seed = 0) -> None:
    """See the article's CNN run on MNIST, and learn.

    First on every engine, one image at a time; then it trains with the fastest.
    Takes about half a minute. Exit code 1 if the engines disagree.
    """
    with _plain_errors():
        from fastcnn.demo import demo as run

        agreed = run(seed=seed).ok
    if not agreed:
        raise typer.Exit(DISAGREE)


@app.command()
def compare(
    op: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this operation; may be repeated."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this engine; may be repeated."),
    ] = None,
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

    Each is held against the specification, on a matrix of problems and on MNIST digits.
    Integers must come out the same to the last bit, floats within a bound that is derived
    from what rounding may do. Exit code 1 if anything disagrees; each failing case is then
    printed as the command that reproduces it.
    """
    with _plain_errors():
        from rich.console import Console

        if case is not None and (op or quick):
            raise ValueError("--case names one case: leave out --op and --quick")
        if json is not None and (json.is_dir() or not json.parent.is_dir()):
            raise ValueError(f"--json must name a file in an existing folder, got {str(json)!r}")
        report = _compared(op, engine, quick, case, seed)
        _print_report(Console(), report)
        if json is not None:
            _write_json(json, report)
    if not report.ok:
        raise typer.Exit(DISAGREE)


def _compared(
    op: list[str] | None, engine: list[str] | None, quick: bool, case: str | None, seed: int
) -> Report:
    """The comparison, with a progress bar on the terminal while it runs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from fastcnn.comparison import compare as run

    terminal = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
    with Progress(
        *columns, console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        return run(op or None, engine or None, quick=quick, case=case, seed=seed, progress=show)


def _print_report(console: Console, report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    from fastcnn.comparison.report import COLUMNS, NOTES

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    for row in report.rows:
        colour = "green" if row.ok else "bold red"
        table.add_row(
            *(
                Text(cell, style=colour if COLUMNS[i] == "verdict" else "")
                for i, cell in enumerate(row.cells)
            )
        )
    console.print(table)
    console.print(NOTES, style="dim", markup=False, highlight=False)
    for line in report.reproductions:
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(report.summary, style="bold green" if report.ok else "bold red", highlight=False)


def _write_json(path: Path, report: Report) -> None:
    from json import dumps

    try:
        path.write_text(dumps(report.to_dict(), indent=2, allow_nan=False) + "\n", "utf-8")
    except OSError as error:
        raise ValueError(f"--json cannot be written: {error}") from None


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Bad arguments and Ctrl-C as one line and an exit code, not as a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("fastcnn: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # `| head` has seen enough: Typer ends quietly
        raise
    except (ValueError, TypeError, ImportError, OSError) as error:
        typer.echo(f"fastcnn: {error}", err=True)
        raise typer.Exit(BAD_ARGUMENT) from None


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without × or ░ shows ? instead
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="fastcnn")
