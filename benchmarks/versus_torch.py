"""fastcnn beside PyTorch on the CPU, layer by layer, in one run.

    pip install "fastcnn[peers]"
    python benchmarks/versus_torch.py [--only forward] [--seconds 3] [--threads 2] [--json FILE]

Layers of ResNet-50 at batch 1, of small nets at batch 32, depthwise layers of MobileNetV2, and
max-pooling. They run as in ``fastcnn bench``: float32, the same number of threads, the same numbers
in arrays that begin at a page; PyTorch in inference mode and in both of its layouts, of which the
faster counts; gradients by the operator that computes the one that is asked for and no other. Every
result is verified before anything is timed. docs/benchmark-method.md says how turns are taken.

Exit code 1 where a promise is missed, 2 where other work kept the machine busy: then the figures do
not count.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from promises import Section, convolution, run

from fastcnn.bench.problems import FORWARD, TO_FILTERS, TO_INPUT, Pool, pool_problems

# Input channels, side of the image, output channels, side of the filter, stride, padding.
RESNET_50 = (
    (3, 224, 64, 7, 2, 3),
    (64, 56, 64, 1, 1, 0),
    (64, 56, 256, 1, 1, 0),
    (64, 56, 64, 3, 1, 1),
    (256, 56, 128, 1, 1, 0),
    (128, 56, 128, 3, 2, 1),
    (128, 28, 128, 3, 1, 1),
    (512, 28, 128, 1, 1, 0),
    (512, 28, 1024, 1, 2, 0),
    (256, 14, 256, 3, 1, 1),
    (1024, 14, 256, 1, 1, 0),
    (512, 14, 512, 3, 2, 1),
    (512, 7, 512, 3, 1, 1),
    (512, 7, 2048, 1, 1, 0),
)
SMALL_NETS = (
    (1, 28, 8, 3, 1, 0),
    (8, 13, 16, 3, 1, 0),
    (3, 32, 32, 3, 1, 1),
    (32, 32, 64, 3, 1, 1),
    (1, 28, 6, 5, 1, 2),
    (6, 14, 16, 5, 1, 0),
)
DEPTHWISE = (
    (32, 112, 32, 3, 1, 1),
    (144, 56, 144, 3, 1, 1),
    (144, 56, 144, 3, 2, 1),
    (576, 14, 576, 3, 1, 1),
)
IMAGES = (8, 112, 112, 64)
WINDOWS = ((2, 2, 0), (3, 2, 1))  # size, stride, padding


class Part(StrEnum):
    """What ``--only`` takes."""

    forward = "forward"
    small = "small"
    gradients = "gradients"
    depthwise = "depthwise"
    pool = "pool"


def sections(part: Part) -> list[Section]:
    """The tables of a part."""
    if part is Part.small:
        layers = tuple(convolution(FORWARD, "small net", *sides, n=32) for sides in SMALL_NETS)
        return [Section("Forward, batch 32", layers, 1.5, 1.0)]
    if part is Part.depthwise:
        layers = tuple(
            convolution(FORWARD, "depthwise", *sides, groups=sides[0]) for sides in DEPTHWISE
        )
        return [Section("Depthwise, batch 1", layers, 1.0, 1.0)]
    if part is Part.pool:
        pools = [Pool(f"{size}×{size} /{stride}", IMAGES, size, stride, padding)
                 for size, stride, padding in WINDOWS]  # fmt: skip
        problems = tuple(problem for pool in pools for problem in pool_problems(pool))
        return [Section("Max-pooling of " + "×".join(map(str, IMAGES)), problems, 2.0, 2.0)]
    if part is Part.forward:
        layers = tuple(convolution(FORWARD, "ResNet-50", *sides) for sides in RESNET_50)
        return [Section("Forward, batch 1", layers, 1.0, 0.85, share=0.85)]
    return [
        Section(
            f"Gradient of the {of}, batch 1",
            tuple(convolution(op, "ResNet-50", *sides) for sides in RESNET_50 if sides[3] < 7),
            1.0,
        )
        for of, op in (("input", TO_INPUT), ("filters", TO_FILTERS))
    ]


def main(
    only: Annotated[Part | None, typer.Option(help="One part instead of all.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of timing for each layer.")] = 3.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for both.")] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print the tables and what came of the promises."""
    tables = [section for part in Part if only in (None, part) for section in sections(part)]
    sys.exit(run(tables, seconds, threads, json_file))


if __name__ == "__main__":
    typer.run(main)
