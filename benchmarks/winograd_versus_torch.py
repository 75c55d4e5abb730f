"""3×3 convolutions with stride 1 beside PyTorch: what Winograd's filtering gains, in one run.

    pip install "fastcnn[peers]"
    python benchmarks/winograd_versus_torch.py [--only forward] [--rounds 15] [--threads 2] [--json FILE]

Measured as in ``versus_torch.py``, whose rules and exit codes these are, under ``algorithm="auto"``
and ``math="fast"``. GFLOP/s count the multiply-adds of the direct sum: where they exceed the peak,
the algorithm saves more than it costs. Results may be off by 2e-5 of the largest number, which is
what F(4×4, 3×3) is promised to keep to on 512 channels.
"""  # noqa: E501

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from versus_torch import Contest, Layer, Section, forward, gradient, run

import fastcnn

TOLERANCE = 2e-5
SIDES = (
    (64, 56, 64),
    (128, 28, 128),
    (256, 14, 256),
    (128, 56, 256),
    (64, 112, 128),
    (256, 28, 512),
    (512, 14, 512),
    (64, 224, 64),
)
SMALL = (512, 7, 512)


def layers(n: int, *sides: tuple[int, int, int]) -> tuple[Layer, ...]:
    """Layers of ``(IC, side, OC)`` with one pixel of padding, for a batch of ``n``."""
    return tuple(Layer(ic, side, oc, 3, 1, 1, n) for ic, side, oc in sides)


class Part(StrEnum):
    forward = "forward"
    input_gradient = "input"
    filter_gradient = "filters"
    small = "small"


def contests(part: Part, n: int) -> Iterator[Contest]:
    """The layers of a part, each with its runners."""
    if part in (Part.forward, Part.small):
        made = forward(layers(n, *(SIDES if part is Part.forward else (SMALL,))))
    else:
        of_input = part is Part.input_gradient
        made = (gradient(layer, of_input) for layer in layers(n, *SIDES))
    return (replace(contest, tolerance=TOLERANCE) for contest in made)


TITLES = {
    Part.forward: ("Forward", 1.6, 1.0),
    Part.small: ("Forward, few pixels", 1.0, 1.0),
    Part.input_gradient: ("Gradient of the input", 1.5, 0.0),
    Part.filter_gradient: ("Gradient of the filters", 1.1, 0.0),
}


def main(
    only: Annotated[Part | None, typer.Option(help="One part instead of all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each runner.")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for both.")] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print the tables and what they say of the promises."""
    fastcnn.set_math("fast")
    sections = []
    for part in Part if only is None else (only,):
        title, mean, least = TITLES[part]
        for n in (1, 8):
            made = lambda part=part, n=n: contests(part, n)  # noqa: E731
            sections.append(Section(f"{title}, batch {n}", made, mean, least))
    sys.exit(run(sections, rounds, threads, json_file))


if __name__ == "__main__":
    typer.run(main)
