"""The options of ``fastcnn train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

NetName: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="article, lenet5, small, wide or resnet8. [default: small]"),
]
Images: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Your own pictures, of any sizes and formats: a folder for each class.",
    ),
]
ColorName: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="rgb or gray, for --images. [default: rgb]"),
]
CacheFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Keep the scaled pictures of --images in a file there, so that later trainings "
        "decode nothing and the set may be larger than the memory.",
    ),
]
Epochs: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Default: the net's; with --images more if they are few."),
]
BatchSize: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Default: the net's.")]
OptimizerName: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="sgd, adam, adamw or rmsprop. Default: the net's."),
]
Rate: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0, help="The highest rate of the cycle. Default: the net's."),
]
Augments: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--augment/--no-augment",
        help="Shift, turn and scale the images a little. Default: the net's.",
    ),
]
TrainingSeed: TypeAlias = Annotated[
    int | None,
    typer.Option(min=0, help="Seed of all random numbers. [default: 0]"),
]
Side: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="The side that pictures are scaled to. [default for --images: 64]"),
]
ModelFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File of the model. Default: fastcnn-NET.safetensors"),
]
CheckpointFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Continue from a checkpoint, with its settings."),
]
ReportFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE.html", help="Write a page with pictures; needs fastcnn[plots]."),
]
Distributed: TypeAlias = Annotated[
    bool,
    typer.Option("--distributed", help="Train with all processes of mpiexec or srun (extra mpi)."),
]
Shards: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Parts of each batch, which decide the bits: with --distributed [default: 8].",
    ),
]
Patience: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="How long the other processes wait for one that may hang, where nothing says how "
        "long its work takes: with --distributed [default: 600].",
    ),
]
