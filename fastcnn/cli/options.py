"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Seed: TypeAlias = Annotated[
    int, typer.Option(min=0, help="Of everything random: the same seed, same numbers.")
]
Data: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A folder with a data set in MNIST's four files. Default: the bundled MNIST.",
    ),
]
Threads: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Default: as `fastcnn info` says; results are the same."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
