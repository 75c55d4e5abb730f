"""The command line: ``fastcnn demo``, ``compare``, ``bench``, ``train`` and others.

Exit codes: 0 for success; 1 if engines disagree, a training diverges or something became slower; 2
for bad arguments and files; 130 after Ctrl-C.

Commands import Rich, Numba and the data when they run, so that help is quick.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from fastcnn.cli.bench import bench
from fastcnn.cli.compare import compare
from fastcnn.cli.compile import compile_
from fastcnn.cli.convert import convert
from fastcnn.cli.demo import demo
from fastcnn.cli.evaluate import evaluate
from fastcnn.cli.export import export
from fastcnn.cli.info import info
from fastcnn.cli.predict import predict
from fastcnn.cli.show import show
from fastcnn.cli.train import train
from fastcnn.version import __version__

app = typer.Typer(
    name="fastcnn",
    help="A CNN engine for the CPU that you can read, at the speed of the hardware.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
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


for command in (
    demo, train, evaluate, predict, show, convert, export, compare, bench, compile_, info
):  # fmt: skip
    app.command(command.__name__.rstrip("_"))(command)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):  # terminals that lack a character such as × show ?
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="fastcnn")
