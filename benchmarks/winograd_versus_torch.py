"""3×3 convolutions with stride 1 beside PyTorch: what Winograd's filtering gains, in one run.

    pip install "fastcnn[peers]"
    python benchmarks/winograd_versus_torch.py [--only forward] [--seconds 3] [--threads 2]

Measured as in ``versus_torch.py``, with its exit codes, under ``algorithm="auto"`` and
``math="fast"``. GFLOP/s count the multiply-adds of the direct sum: where they exceed the peak, the
algorithm saves more than it costs.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from promises import Section, convolution, run

import fastcnn
from fastcnn.bench.problems import FORWARD, TO_FILTERS, TO_INPUT

# Input channels, side of the image, output channels.
LAYERS = (
    (64, 56, 64),
    (128, 28, 128),
    (256, 14, 256),
    (128, 56, 256),
    (64, 112, 128),
    (256, 28, 512),
    (512, 14, 512),
    (64, 224, 64),
)
FEW_PIXELS = ((512, 7, 512),)


class Part(StrEnum):
    """What ``--only`` takes."""

    forward = "forward"
    few_pixels = "few-pixels"
    input_gradient = "input"
    filter_gradient = "filters"


# Operation, layers, title, promised mean and least ratio.
PARTS = {
    Part.forward: (FORWARD, LAYERS, "Forward", 1.6, 1.0),
    Part.few_pixels: (FORWARD, FEW_PIXELS, "Forward, few pixels", 1.0, 1.0),
    Part.input_gradient: (TO_INPUT, LAYERS, "Gradient of the input", 1.5, 0.0),
    Part.filter_gradient: (TO_FILTERS, LAYERS, "Gradient of the filters", 1.1, 0.0),
}


def section(part: Part, n: int) -> Section:
    """The table of a part at batch size ``n``; one pixel of padding."""
    op, layers, title, mean, least = PARTS[part]
    problems = tuple(convolution(op, "layer", *sides, 3, 1, 1, n=n) for sides in layers)
    return Section(f"{title}, batch {n}", problems, mean, least)


def main(
    only: Annotated[Part | None, typer.Option(help="One part instead of all.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of timing for each layer.")] = 3.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for both.")] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print the tables and what came of the promises."""
    fastcnn.set_math("fast")
    tables = [section(part, n) for part in Part if only in (None, part) for n in (1, 8)]
    sys.exit(run(tables, seconds, threads, json_file))


if __name__ == "__main__":
    typer.run(main)
