"""Fine-tuning of imported nets beside PyTorch: the last dense layers train, the rest is frozen.

    pip install "fastcnn[peers,onnx]"
    python benchmarks/fine_tuning_versus_torch.py [--net NAME] [--images 2000] [--epochs 5]
        [--rounds 2] [--flip] [--json FILE]

MobileNet, MobileNetV2 and ResNet-18 with two dense layers behind them, written by ``torch.onnx``
and read by ``load_onnx``. Random images of 64×64 pixels in 10 classes, batches of 32, float32, SGD
with momentum, softmax cross-entropy. In fastcnn all layers but the dense ones have
``trainable = False``. In PyTorch the frozen part runs under ``no_grad``, in evaluation mode, in
both layouts. With ``--flip`` half of the batches are mirrored, so no epoch has the images of
another one. Without it ``fit`` keeps the results of frozen layers for the next epochs.

Each library takes a training in turn, on the same batches in the same order. The mean losses of the
first epoch must agree. A ratio is the median over the rounds of PyTorch's time ÷ fastcnn's time;
above 1 fastcnn is faster. A time is that of the shortest training.

Sources of the nets: A. Howard et al., "MobileNets", arXiv:1704.04861; M. Sandler et al.,
"MobileNetV2", arXiv:1801.04381; K. He et al., "Deep Residual Learning", arXiv:1512.03385.
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
from fastcnn.bench.peers.torch_nets import mobilenet_v1, mobilenet_v2, resnet18
from fastcnn.core.arguments import Array
from fastcnn.layers import Dense
from fastcnn.optimizers import SGD

SHAPE = (64, 64, 3)
CLASSES, HIDDEN = 10, 128
BATCH = 32
NETS = {"mobilenet_v1": mobilenet_v1, "mobilenet_v2": mobilenet_v2, "resnet18": resnet18}
RATE, MOMENTUM = 0.01, 0.9
TOLERANCE = 1e-3
"""Largest difference of the mean losses of the first epoch, as a share."""


class Net(nn.Module):  # type: ignore[misc]
    """A net without its own dense layer, and two dense layers that train."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        *trunk, last = NETS[name](CLASSES, SHAPE, 1.0)
        self.trunk = nn.Sequential(*trunk)
        self.head = nn.Sequential(
            nn.Linear(last.in_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(x))


def trained_net(name: str, images: Array) -> Net:
    """A net with running statistics of images in its normalisations."""
    torch.manual_seed(0)
    net = Net(name)
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


def mirrored(images: Array, rng: np.random.Generator) -> Array:
    """The images of a batch, all of them mirrored or none."""
    return np.ascontiguousarray(images[..., ::-1]) if rng.random() < 0.5 else images


def training_of_fastcnn(net: Net, x: Array, y: Array, flips: bool) -> Callable[[int], float]:
    """A function that trains for so many epochs, and returns the mean loss of the first one."""
    model, descent = imported(net), SGD(RATE, momentum=MOMENTUM)

    def train(epochs: int) -> float:
        history = model.fit(
            x, y, epochs=epochs, batch_size=BATCH, optimizer=descent, loss="cross_entropy",
            shuffle=False, verbose=0, augment=mirrored if flips else None,
        )  # fmt: skip
        return history.history["loss"][0]

    return train


def training_of_torch(
    net: Net, x: Array, y: Array, flips: bool, layout: str
) -> Callable[[int], float]:
    """The same function for PyTorch."""
    own = Net(net.name)
    own.load_state_dict(net.state_dict())
    own = own.to(memory_format=FORMATS[layout]).eval()
    for parameter in own.trunk.parameters():
        parameter.requires_grad_(False)
    images = torch.from_numpy(x).contiguous(memory_format=FORMATS[layout])
    labels, rng = torch.from_numpy(y), np.random.default_rng(0)
    descent = torch.optim.SGD(own.head.parameters(), RATE, momentum=MOMENTUM, fused=True)

    def epoch() -> float:
        total = 0.0
        for first in range(0, len(images), BATCH):
            some = slice(first, first + BATCH)
            batch = images[some]
            if flips and rng.random() < 0.5:
                batch = torch.flip(batch, (3,))
            with torch.no_grad():
                features = own.trunk(batch)
            descent.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(own.head(features), labels[some])
            loss.backward()
            descent.step()
            total += float(loss.detach()) * len(features)
        return total / len(images)

    def train(epochs: int) -> float:
        losses = [epoch() for _ in range(epochs)]
        return losses[0]

    return train


def measured(
    name: str, images: int, epochs: int, rounds: int, flips: bool
) -> dict[str, list[float]]:
    """Seconds of each training by runner; ``SystemExit`` where the losses differ."""
    rng = np.random.default_rng(0)
    x = at_page(rng.standard_normal((images, SHAPE[2], *SHAPE[:2]), dtype=np.float32))
    y = at_page(rng.integers(0, CLASSES, images))
    net = trained_net(name, x)
    trainings = {"fastcnn": training_of_fastcnn(net, x, y, flips)}
    trainings |= {
        f"PyTorch {layout}": training_of_torch(net, x, y, flips, layout) for layout in FORMATS
    }
    losses = {}
    for runner, train in trainings.items():  # the first epoch compiles
        print(runner, file=sys.stderr)
        losses[runner] = train(1)
    expected = losses["PyTorch NCHW"]
    if not flips and not all(  # mirrored at random, each library has images of its own
        abs(loss - expected) <= TOLERANCE * abs(expected) for loss in losses.values()
    ):
        raise SystemExit(f"the losses of the first epoch differ: {losses}")
    seconds: dict[str, list[float]] = {runner: [] for runner in trainings}
    for _ in range(rounds):
        for runner, train in trainings.items():
            begin = perf_counter()
            train(epochs)
            seconds[runner].append(perf_counter() - begin)
    return seconds


def main(
    nets: Annotated[list[str] | None, typer.Option("--net", help="A net; all without it.")] = None,
    images: Annotated[int, typer.Option(min=BATCH, help="Images of an epoch.")] = 2000,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a training.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for both.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Trainings of each.")] = 2,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror batches at random.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print a table for each net."""
    fastcnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    figures, console = {}, Console()
    console.width = max(console.width, 80)
    for name in nets or NETS:
        if name not in NETS:
            raise SystemExit(f"--net must be one of {', '.join(NETS)}, got {name!r}")
        seconds = measured(name, images, epochs, rounds, flip)
        kind = ", mirrored at random" if flip else ""
        title = f"{name}: {epochs} epochs of {images} images{kind}, only the dense layers train"
        table = Table(title=title, box=None)
        for heading in ("", "seconds", "fastcnn is faster by"):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        ours, ratios = seconds["fastcnn"], dict[str, float]()
        for runner, its in seconds.items():
            ratios[runner] = median(one / mine for one, mine in zip(its, ours, strict=True))
            cell = "" if runner == "fastcnn" else f"{ratios[runner]:.2f}"
            table.add_row(runner, f"{min(its):.2f}", cell)
        console.print(table)
        figures[name] = {"seconds": seconds, "ratios": ratios}
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
