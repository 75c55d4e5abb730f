"""Training steps of nets with branches beside PyTorch: Inception's blocks, a U-net, and gates.

    pip install "fastcnn[peers]"
    python benchmarks/graph_training_versus_torch.py [--net inception] [--rounds 9] [--json FILE]

Random images of 64×64 pixels, batches of 16, float32; SGD with momentum; softmax cross-entropy, for
the U-net the mean squared error of images. PyTorch runs in both of its layouts, with the same first
weights. Before anything is timed, the losses of five steps are held against those of the im2col
engine in float64, which they match only if every gradient is right.

The libraries take turns, as in ``standard_nets.py``. A ratio is the median over the rounds of
PyTorch's time ÷ fastcnn's time; above 1 fastcnn is faster.

Sources of the nets: C. Szegedy et al., "Going Deeper with Convolutions", arXiv:1409.4842;
O. Ronneberger et al., "U-Net", arXiv:1505.04597; J. Hu et al., "Squeeze-and-Excitation Networks",
arXiv:1709.01507.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

import fastcnn
from fastcnn.bench import measure
from fastcnn.bench.contest import Contest, Runner
from fastcnn.bench.nets import losses_of
from fastcnn.bench.pages import at_page
from fastcnn.bench.peers.pytorch import FORMATS, nchw
from fastcnn.bench.peers.torch_nets import (
    Concatenation,
    Gate,
    Modules,
    Sum,
    carry,
    convolution,
    u_net,
)
from fastcnn.bench.report import geometric_mean
from fastcnn.bench.suite import remove_wrong
from fastcnn.bench.text import duration
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    Add,
    AvgPool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    MaxPool2D,
    Multiply,
    ReLU,
    Sigmoid,
)
from fastcnn.losses import CrossEntropy, Loss, MeanSquaredError
from fastcnn.models.standard_nets import EPSILON
from fastcnn.nets import STANDARD_NETS
from fastcnn.nn.layers import Input, Tensor
from fastcnn.optimizers import SGD

SHAPE = (64, 64, 3)
BATCH = 16
CLASSES = 10
RATE, MOMENTUM = 0.01, 0.9
TOLERANCE = 2e-4
"""Largest error of a loss as a share of the largest. Steps multiply the errors of those before."""
Dtype = Literal["float32", "float64"]

# Channels of Inception's branches: 1×1, 3×3 after 1×1, 5×5 after 1×1, 1×1 after pooling. None is a
# pooling that halves the images.
INCEPTION = (
    (32, (48, 64), (8, 16), 16), (64, (64, 96), (16, 32), 32), None,
    (96, (64, 128), (16, 32), 32), (96, (64, 128), (16, 32), 32), None,
    (128, (96, 192), (24, 48), 48),
)  # fmt: skip
GATED = ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1))
"""Channels and stride of the blocks with gates."""
SQUEEZED = 8
"""A gate has an eighth of the channels inside."""


def _convolution(x: Tensor, filters: int, kernel_size: int, strides: int = 1) -> Tensor:
    conv = Conv2D(
        filters, kernel_size, strides, kernel_size // 2, use_bias=False,
        kernel_initializer="he_normal",
    )  # fmt: skip
    return BatchNorm(epsilon=EPSILON)(conv(x))


def inception(dtype: Dtype, engine: str | None) -> fastcnn.Model:
    """Blocks of four branches, whose channels are joined."""
    inputs = Input(SHAPE)

    def layer(x: Tensor, filters: int, kernel_size: int, strides: int = 1) -> Tensor:
        return ReLU()(_convolution(x, filters, kernel_size, strides))

    x = layer(inputs, 64, 3, 2)
    for block in INCEPTION:
        if block is None:
            x = MaxPool2D(3, 2, 1)(x)
            continue
        one, (before_three, three), (before_five, five), pooled = block
        branches = [
            layer(x, one, 1),
            layer(layer(x, before_three, 1), three, 3),
            layer(layer(x, before_five, 1), five, 5),
            layer(MaxPool2D(3, 1, 1)(x), pooled, 1),
        ]
        x = Concatenate()(branches)
    scores = Dense(CLASSES)(GlobalAvgPool2D()(x))
    return fastcnn.Model(inputs, scores, seed=0, dtype=dtype, engine=engine)


def gated(dtype: Dtype, engine: str | None) -> fastcnn.Model:
    """Residual blocks whose channels are multiplied by gates."""
    inputs = Input(SHAPE)
    x = ReLU()(_convolution(inputs, 32, 3, 2))
    for filters, strides in GATED:
        y = ReLU()(_convolution(x, filters, 3, strides))
        y = _convolution(y, filters, 3)
        gate = Conv2D(filters // SQUEEZED, 1, activation="relu")(AvgPool2D(y.shape[:2])(y))
        y = Multiply()([y, Sigmoid()(Conv2D(filters, 1)(gate))])
        shortcut = x if x.shape == y.shape else _convolution(x, filters, 1, strides)
        x = ReLU()(Add()([y, shortcut]))
    scores = Dense(CLASSES)(GlobalAvgPool2D()(x))
    return fastcnn.Model(inputs, scores, seed=0, dtype=dtype, engine=engine)


def segmenting(dtype: Dtype, engine: str | None) -> fastcnn.Model:
    """The U-net of the standard nets."""
    return STANDARD_NETS["u_net"](1, SHAPE, seed=0, dtype=dtype, engine=engine)


def torch_inception() -> Modules:
    """The net of :func:`inception` in PyTorch."""
    ic, layers = 64, convolution(3, 64, 3, 2)
    for block in INCEPTION:
        if block is None:
            layers.append(nn.MaxPool2d(3, 2, 1))
            continue
        one, (before_three, three), (before_five, five), pooled = block
        branches = [
            convolution(ic, one, 1),
            convolution(ic, before_three, 1) + convolution(before_three, three, 3),
            convolution(ic, before_five, 1) + convolution(before_five, five, 5),
            [nn.MaxPool2d(3, 1, 1), *convolution(ic, pooled, 1)],
        ]
        layers.append(Concatenation(*branches))
        ic = one + three + five + pooled
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ic, CLASSES)]


def torch_gated() -> Modules:
    """The net of :func:`gated` in PyTorch."""
    ic, layers = 32, convolution(3, 32, 3, 2)
    for oc, stride in GATED:
        inside = oc // SQUEEZED
        gate = [
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(oc, inside, 1),
            nn.ReLU(),
            nn.Conv2d(inside, oc, 1),
        ]
        main = convolution(ic, oc, 3, stride) + convolution(oc, oc, 3, act=False)
        main.append(Gate([*gate, nn.Sigmoid()]))
        shortcut = convolution(ic, oc, 1, stride, act=False) if stride > 1 or ic != oc else []
        layers += [Sum(main, shortcut), nn.ReLU(inplace=True)]
        ic = oc
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ic, CLASSES)]


class GraphNet(NamedTuple):
    """A net in both libraries, and whether its targets are images instead of labels."""

    title: str
    model: Callable[[Dtype, str | None], fastcnn.Model]
    modules: Callable[[], Modules]
    makes_images: bool = False


NETS = {
    "inception": GraphNet("Inception's blocks", inception, torch_inception),
    "u_net": GraphNet("U-net", segmenting, lambda: u_net(1, SHAPE, 1.0), makes_images=True),
    "gated": GraphNet("squeeze and excitation", gated, torch_gated),
}


class Batch(NamedTuple):
    """Images and their targets: labels, or images."""

    x: Array
    targets: Array


def batch_of(net: GraphNet) -> Batch:
    """A random batch for a net."""
    rng = np.random.default_rng(0)
    x = at_page(rng.standard_normal((BATCH, *SHAPE), dtype=np.float32))
    if not net.makes_images:
        return Batch(x, at_page(rng.integers(0, CLASSES, BATCH)))
    return Batch(x, at_page(x.mean(3, keepdims=True) + np.float32(0.5)))


def contest_of(net: GraphNet) -> Contest:
    """The contest of fastcnn and both layouts of PyTorch."""
    batch = batch_of(net)
    reference = losses_of(_step(net.model("float64", "im2col"), batch, net))
    tolerance = TOLERANCE * float(abs(reference).max())
    if not abs(reference[0] - reference[-1]) > 10 * tolerance:
        raise ArithmeticError("losses that do not move prove nothing")
    contest = Contest(net.title, "net_train", 0, 0, (reference,), tolerance)
    steps = {"fastcnn": _step(net.model("float32", None), batch, net)}
    steps |= {f"PyTorch {layout}": _torch_step(net, batch, layout) for layout in FORMATS}
    for name, step in steps.items():
        runner = Runner(name, name.split()[0], step, lambda step=step: (losses_of(step),))
        contest.runners.append(runner)
    return contest


def _step(model: fastcnn.Model, batch: Batch, net: GraphNet) -> Callable[[], float]:
    loss: Loss = MeanSquaredError() if net.makes_images else CrossEntropy()
    descent = SGD(RATE, momentum=MOMENTUM)
    return lambda: model.train_on_batch(*batch, descent, loss=loss)[0]


def _torch_step(net: GraphNet, batch: Batch, layout: str) -> Callable[[], float]:
    module = nn.Sequential(*net.modules())
    carry(net.model("float32", None), module)
    module = module.to(memory_format=FORMATS[layout]).train()
    x = nchw(batch.x, layout)
    descent = torch.optim.SGD(module.parameters(), RATE, momentum=MOMENTUM, fused=True)
    loss_of: Any = functional.mse_loss if net.makes_images else functional.cross_entropy
    targets = nchw(batch.targets, layout) if net.makes_images else torch.from_numpy(batch.targets)

    def step() -> float:
        descent.zero_grad(set_to_none=True)
        loss = loss_of(module(x), targets)
        loss.backward()
        descent.step()
        return float(loss.detach())

    return step


@dataclass(frozen=True)
class Row:
    """A net: median seconds of a step by runner, and median ratios of PyTorch's to fastcnn's."""

    net: str
    seconds: dict[str, float]
    ratios: dict[str, float]


def row(name: str, rounds: int) -> Row:
    """Verify and time a net."""
    contest = contest_of(NETS[name])
    wrong = remove_wrong(contest)
    if wrong:
        raise SystemExit("\n".join(f"{absent.name}: {absent.reason}" for absent in wrong))
    times = measure.in_rounds([runner.run for runner in contest.runners], rounds)
    by_name = {runner.name: mine for runner, mine in zip(contest.runners, times, strict=True)}
    ours = by_name["fastcnn"]
    ratios = {
        other: median(its / mine for its, mine in zip(seconds, ours, strict=True))
        for other, seconds in by_name.items()
        if other != "fastcnn"
    }
    return Row(name, {other: median(seconds) for other, seconds in by_name.items()}, ratios)


def table(rows: list[Row]) -> Table:
    """A row for each net, and the geometric means of the ratios."""
    result = Table(title=f"Training step, batch {BATCH}, {SHAPE[0]}×{SHAPE[1]} pixels", box=None)
    names = list(rows[0].ratios)
    result.add_column("net", no_wrap=True)
    for heading in ("fastcnn", *(f"{name}, ratio" for name in names), "× the faster"):
        result.add_column(heading, justify="right", no_wrap=True)
    for one in rows:
        cells = [f"{duration(one.seconds[name])} {one.ratios[name]:.2f}" for name in names]
        best = min(one.ratios.values())
        title, ours = NETS[one.net].title, duration(one.seconds["fastcnn"])
        result.add_row(title, ours, *cells, f"{best:.2f}", style="bold green" if best >= 1 else "")
    means = [geometric_mean(one.ratios[name] for one in rows) for name in names]
    means.append(geometric_mean(min(one.ratios.values()) for one in rows))
    result.add_row("geometric mean", "", *(f"{mean:.2f}" for mean in means), style="bold")
    return result


def main(
    net: Annotated[list[str] | None, typer.Option(help="Only this net; may be repeated.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for both.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 9,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Print the table."""
    for name in net or ():
        if name not in NETS:
            raise typer.BadParameter(f"net must be one of {', '.join(NETS)}, got {name!r}")
    fastcnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    rows = []
    for name in net or NETS:
        print(NETS[name].title, file=sys.stderr)
        rows.append(row(name, rounds))
    console = Console()
    console.width = max(console.width, 110)
    console.print(table(rows))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in rows], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
