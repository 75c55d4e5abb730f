"""Fine-tuning of an imported net beside PyTorch: the last dense layers train, the rest is frozen.

    pip install "fastcnn[peers,onnx]"
    python benchmarks/fine_tuning_versus_torch.py [--images 2000] [--rounds 3] [--json FILE]

A MobileNet with two dense layers behind it, written by ``torch.onnx`` and read by ``load_onnx``.
Random images of 64×64 pixels in 10 classes, batches of 32, float32, SGD with momentum, softmax
cross-entropy. In fastcnn all layers but the dense ones have ``trainable = False``. In PyTorch the
frozen part runs under ``no_grad``, in evaluation mode, in both layouts.

Each library takes an epoch in turn, on the same batches in the same order. The mean losses of the
first epoch must agree. A ratio is the median over the rounds of PyTorch's time ÷ fastcnn's time;
above 1 fastcnn is faster. A time is that of the least epoch.

Source of the net: A. Howard et al., "MobileNets", arXiv:1704.04861.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

import fastcnn
from fastcnn.bench.pages import at_page
from fastcnn.bench.peers.pytorch import FORMATS
from fastcnn.bench.peers.torch_nets import mobilenet_v1
from fastcnn.core.arguments import Array
from fastcnn.layers import Dense
from fastcnn.optimizers import SGD

SHAPE = (64, 64, 3)
CLASSES, HIDDEN = 10, 128
BATCH = 32
RATE, MOMENTUM = 0.01, 0.9
TOLERANCE = 1e-3
"""Largest difference of the mean losses of the first epoch, as a share."""


class Net(nn.Module):  # type: ignore[misc]
    """A MobileNet without its own dense layer, and two dense layers that train."""

    def __init__(self) -> None:
        super().__init__()
        *trunk, last = mobilenet_v1(CLASSES, SHAPE, 1.0)
        self.trunk = nn.Sequential(*trunk)
        self.head = nn.Sequential(
            nn.Linear(last.in_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(x))


def trained_net(images: Array) -> Net:
    """A net with running statistics of images in its normalisations."""
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight)
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # statistics are means over all batches
        net.train()(torch.from_numpy(images[:128]))
    return net.eval()


def imported(net: Net) -> fastcnn.Model:
    """The net through a file of ONNX, with all but the dense layers frozen."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that traces is deprecated
        path = Path(folder) / "net.onnx"
        torch.onnx.export(
            net, (torch.zeros(2, SHAPE[2], *SHAPE[:2]),), path, dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "batch"}}, training=torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
        model = fastcnn.load_onnx(path)
    for layer in model.layers:
        layer.trainable = isinstance(layer, Dense)
    return model


def epoch_of_fastcnn(net: Net, x: Array, y: Array) -> Callable[[], float]:
    """An epoch of ``fit``, which returns the mean loss."""
    model, descent = imported(net), SGD(RATE, momentum=MOMENTUM)

    def epoch() -> float:
        history = model.fit(
            x, y, batch_size=BATCH, optimizer=descent, loss="cross_entropy", shuffle=False,
            verbose=0,
        )  # fmt: skip
        return history.history["loss"][-1]

    return epoch


def epoch_of_torch(net: Net, x: Array, y: Array, layout: str) -> Callable[[], float]:
    """An epoch of PyTorch, which returns the mean loss."""
    own = Net()
    own.load_state_dict(net.state_dict())
    own = own.to(memory_format=FORMATS[layout]).eval()
    for parameter in own.trunk.parameters():
        parameter.requires_grad_(False)
    images = torch.from_numpy(x).contiguous(memory_format=FORMATS[layout])
    labels = torch.from_numpy(y)
    descent = torch.optim.SGD(own.head.parameters(), RATE, momentum=MOMENTUM, fused=True)

    def epoch() -> float:
        total = 0.0
        for first in range(0, len(images), BATCH):
            some = slice(first, first + BATCH)
            with torch.no_grad():
                features = own.trunk(images[some])
            descent.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(own.head(features), labels[some])
            loss.backward()
            descent.step()
            total += float(loss.detach()) * len(features)
        return total / len(images)

    return epoch


def measured(images: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each epoch by runner; ``SystemExit`` where the losses differ."""
    rng = np.random.default_rng(0)
    x = at_page(rng.standard_normal((images, SHAPE[2], *SHAPE[:2]), dtype=np.float32))
    y = at_page(rng.integers(0, CLASSES, images))
    net = trained_net(x)
    epochs = {"fastcnn": epoch_of_fastcnn(net, x, y)}
    epochs |= {f"PyTorch {layout}": epoch_of_torch(net, x, y, layout) for layout in FORMATS}
    losses = {}
    for name, epoch in epochs.items():  # the first epoch compiles
        print(name, file=sys.stderr)
        losses[name] = epoch()
    expected = losses["PyTorch NCHW"]
    if not all(abs(loss - expected) <= TOLERANCE * abs(expected) for loss in losses.values()):
        raise SystemExit(f"the losses of the first epoch differ: {losses}")
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            begin = perf_counter()
            epoch()
            seconds[name].append(perf_counter() - begin)
    return seconds


def main(
    images: Annotated[int, typer.Option(min=BATCH, help="Images of an epoch.")] = 2000,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for both.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Epochs of each.")] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print the table."""
    fastcnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    seconds = measured(images, rounds)
    title = f"An epoch of {images} images, batches of {BATCH}, only the dense layers train"
    table = Table(title=title, box=None)
    for heading in ("", "seconds", "fastcnn is faster by"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    ours, ratios = seconds["fastcnn"], dict[str, float]()
    for name, its in seconds.items():
        ratios[name] = median(one / mine for one, mine in zip(its, ours, strict=True))
        cell = "" if name == "fastcnn" else f"{ratios[name]:.2f}"
        table.add_row(name, f"{min(its):.2f}", cell)
    console = Console()
    console.width = max(console.width, 80)
    console.print(table)
    if json_file is not None:
        figures = {"seconds": seconds, "ratios": ratios}
        json_file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
