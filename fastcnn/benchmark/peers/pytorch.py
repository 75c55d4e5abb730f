"""PyTorch, eager and compiled, in both of its layouts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fastcnn.arguments import Array
from fastcnn.benchmark.contest import Runner, Skipped
from fastcnn.benchmark.nets import RATE, NetTask, Part, losses_of, parts

FAMILY = "PyTorch"
FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}


def set_threads(n: int) -> None:
    """Let PyTorch use ``n`` threads."""
    torch.set_num_threads(n)


def net_runners(task: NetTask) -> Iterator[Runner | Skipped]:
    """The net in each layout, eager and compiled."""
    for layout in FORMATS:
        yield _net_runner(task, layout, compiled=False)
    for layout in FORMATS:
        name = f"{FAMILY} compiled {layout}"
        try:
            runner = _net_runner(task, layout, compiled=True)
            _net_runner(task, layout, compiled=True).run()  # on weights that do not count
        except Exception as error:  # no C compiler; or what else its compiler raises
            yield Skipped(name, f"torch.compile: {first_line(error)}")
        else:
            yield runner


def first_line(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def nchw(x: Array, layout: str = "NCHW") -> torch.Tensor:
    """Images (N, H, W, C) as PyTorch's, in the layout."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=FORMATS[layout])


def oihw(w: Array, layout: str = "NCHW") -> torch.Tensor:
    """Filters (KH, KW, IC, OC) as PyTorch's, in the layout."""
    return torch.from_numpy(w).permute(3, 2, 0, 1).contiguous(memory_format=FORMATS[layout])


class _Flatten(nn.Module):  # type: ignore[misc]
    """Images to vectors in the order in which they lie in memory: no copy in either layout."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.last = layout == "channels-last"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.permute(0, 2, 3, 1) if self.last else x).flatten(1)


def _module(layers: list[Part], layout: str) -> nn.Module:
    made: list[nn.Module] = []
    flattened: tuple[int, ...] = ()
    for part in layers:
        if part.kind == "conv":
            made.append(_convolution(part, layout))
        elif part.kind == "pool":
            made.append(nn.MaxPool2d(part.size))
        elif part.kind == "flatten":
            made.append(_Flatten(layout))
            flattened = part.shape
        else:
            made.append(_linear(part, flattened if layout == "NCHW" else ()))
            flattened = ()
        if part.relu:
            made.append(nn.ReLU(inplace=True))
    return nn.Sequential(*made)


def _convolution(part: Part, layout: str) -> nn.Module:
    assert part.w is not None
    kh, kw, ic, oc = part.w.shape
    top, bottom, left, right = part.padding
    if (top, left) != (bottom, right):
        raise NotImplementedError("padding of unequal sides")
    conv = nn.Conv2d(ic, oc, (kh, kw), part.stride, (top, left), bias=part.b is not None)
    with torch.no_grad():
        conv.weight.copy_(oihw(part.w))
        if conv.bias is not None:
            conv.bias.copy_(torch.from_numpy(part.b))
    return conv.to(memory_format=FORMATS[layout])


def _linear(part: Part, flattened: tuple[int, ...]) -> nn.Module:
    """``flattened`` is the shape of the images whose values come channel by channel, if so."""
    assert part.w is not None
    assert part.b is not None
    w = part.w
    if flattened:
        w = w.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(w.shape)
    linear = nn.Linear(*w.shape)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))
        linear.bias.copy_(torch.from_numpy(part.b))
    return linear


def _net_runner(task: NetTask, layout: str, compiled: bool) -> Runner:
    module = _module(parts(task.model()), layout)
    x, labels = nchw(task.x, layout), torch.from_numpy(task.labels)
    name = f"{FAMILY} {'compiled ' if compiled else ''}{layout}"
    if task.mode == "predict":
        module.eval()

        def forward(images: torch.Tensor) -> torch.Tensor:
            return functional.softmax(module(images), 1)

        run = _quietly_compiled(forward) if compiled else forward

        def predict() -> Any:
            with torch.inference_mode():
                return run(x).numpy()

        return Runner(name, FAMILY, predict, lambda: (predict(),))

    def loss_of(images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(module(images), wanted)

    loss_and_graph = _quietly_compiled(loss_of) if compiled else loss_of
    descent = torch.optim.SGD(module.parameters(), RATE, fused=True)

    def step() -> float:
        descent.zero_grad(set_to_none=True)
        loss = loss_and_graph(x, labels)
        loss.backward()
        descent.step()
        return float(loss.detach())

    return Runner(name, FAMILY, step, lambda: (losses_of(step),))


def _quietly_compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Callable[..., torch.Tensor] = torch.compile(function, dynamic=False)
    return made
