"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from fastcnn.core.files import check_writable

Seed: TypeAlias = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
Data: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A folder with a data set: MNIST's four files or EMNIST's, an .npz file, CIFAR-10's "
        "binary files, or pictures in a folder for each class. Default: the bundled MNIST.",
    ),
]
Threads: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Default: as `fastcnn info` says; results are the same."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def check_output(option: str, path: Path | None) -> None:
    """Raise ``ValueError``, before long work, if no file can be written at ``path``."""
    if path is None:
        return
    try:
        check_writable(path)
    except OSError as error:
        raise ValueError(
            f"{option} must name a file in an existing folder that can be written to, got "
            f"{str(path)!r}: {error.strerror}"
        ) from None
