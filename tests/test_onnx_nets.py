"""Nets that PyTorch exports as ONNX files: fastcnn's results beside ONNX Runtime's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn

MISSING = [name for name in ("onnx", "torch", "onnxscript", "onnxruntime") if not find_spec(name)]
if MISSING:
    pytest.skip(f"{', '.join(MISSING)}: not installed", allow_module_level=True)

import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from fastcnn.bench.peers.torch_nets import Concatenation, Gate, Sum, convolution  # noqa: E402

TOLERANCE = 1e-4
"""Largest error as a share of the largest output."""
SHAPE = (3, 41, 34)


def resnet() -> list[nn.Module]:
    """A stem with an overlapping pooling, a block on its own, and one with a strided shortcut."""
    return [
        *convolution(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1),
        Sum(convolution(8, 8, 3) + convolution(8, 8, 3, act=False)), nn.ReLU(),
        Sum(
            convolution(8, 6, 1) + convolution(6, 6, 3, 2) + convolution(6, 20, 1, act=False),
            convolution(8, 20, 1, 2, act=False),
        ),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 7),
    ]  # fmt: skip


def mobilenet() -> list[nn.Module]:
    """Inverted residual blocks: ReLU6, hard swish, and a gate for each channel."""
    gate = [
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 6, 1), nn.ReLU(), nn.Conv2d(6, 24, 1),
        nn.Hardsigmoid(),
    ]  # fmt: skip
    return [
        *convolution(3, 8, 3, 2, act=False), nn.Hardswish(),
        *convolution(8, 8, 3, groups=8, act="relu6"), *convolution(8, 12, 1, act=False),
        Sum([
            *convolution(12, 24, 1, act=False), nn.Hardswish(),
            *convolution(24, 24, 5, groups=24, act=False), nn.Hardswish(),
            Gate(gate), *convolution(24, 12, 1, act=False),
        ]),
        *convolution(12, 12, 3, 2, groups=12, act="relu6"), *convolution(12, 20, 1, act="relu6"),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(20, 7),
    ]  # fmt: skip


def squeezenet() -> list[nn.Module]:
    """Fire modules without batch norm, and poolings that round up."""

    def fire(ic: int, inside: int, each: int) -> list[nn.Module]:
        branches = [
            [nn.Conv2d(inside, each, kernel, padding=kernel // 2), nn.ReLU()] for kernel in (1, 3)
        ]
        return [nn.Conv2d(ic, inside, 1), nn.ReLU(), Concatenation(*branches)]

    return [
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), *fire(8, 4, 6),
        *fire(12, 4, 8), nn.MaxPool2d(3, 2, ceil_mode=True), *fire(16, 6, 10), nn.Dropout(),
        nn.Conv2d(20, 7, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ]  # fmt: skip


def densenet() -> list[nn.Module]:
    """Batch norm before the convolutions, growing concatenations, and a transition."""

    def layer(ic: int, growth: int) -> nn.Module:
        first = [nn.BatchNorm2d(ic), nn.ReLU(), nn.Conv2d(ic, 2 * growth, 1, bias=False)]
        second = [
            nn.BatchNorm2d(2 * growth), nn.ReLU(),
            nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        ]  # fmt: skip
        return Concatenation([], first + second)

    return [
        *convolution(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1), layer(8, 5), layer(13, 5),
        nn.BatchNorm2d(18), nn.ReLU(), nn.Conv2d(18, 9, 1, bias=False), nn.AvgPool2d(2),
        layer(9, 5), nn.BatchNorm2d(14), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(14, 7),
    ]  # fmt: skip


def inception() -> list[nn.Module]:
    """Four branches: 1×1, two 3×3, 1×5 and 5×1, and a pooling that counts its padding."""

    def line(ic: int, oc: int, kernel: tuple[int, int]) -> list[nn.Module]:
        padding = kernel[0] // 2, kernel[1] // 2
        conv = nn.Conv2d(ic, oc, kernel, padding=padding, bias=False)
        return [conv, nn.BatchNorm2d(oc, eps=1e-3), nn.ReLU()]

    return [
        *convolution(3, 10, 3, 2),
        Concatenation(
            convolution(10, 4, 1),
            convolution(10, 6, 1) + convolution(6, 8, 3) + convolution(8, 5, 3),
            line(10, 6, (1, 5)) + line(6, 6, (5, 1)),
            [nn.AvgPool2d(3, 1, 1), *convolution(10, 3, 1)],
        ),
        Concatenation(convolution(18, 8, 3, 2), [nn.MaxPool2d(3, 2, 1)]),
        nn.Flatten(), nn.Linear(26 * 11 * 9, 7), nn.Softmax(1),
    ]  # fmt: skip


NETS: dict[str, tuple[Callable[[], list[nn.Module]], int]] = {
    "resnet": (resnet, 9),
    "mobilenet": (mobilenet, 14),
    "squeezenet": (squeezenet, 11),
    "densenet": (densenet, 13),
    "inception": (inception, 17),
}
"""The nets, and the version of the operators in a file that PyTorch's older exporter writes."""


def as_trained(layers: list[nn.Module]) -> nn.Module:
    """The net for prediction, with batch norms that have seen images."""
    torch.manual_seed(0)
    net = nn.Sequential(*layers)
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        for part in net.modules():  # without this, small nets return nearly constant numbers
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight)
        for part in norms:
            part.momentum = None  # statistics are means over all batches
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(0, 0.3)
        for _ in range(2):
            net(0.4 + 1.7 * torch.randn(4, *SHAPE))
    return net.eval()


def exported(net: nn.Module, path: Path, opset: int | None) -> Path:
    """The net in a file with a free batch, by the exporter that traces; None for the newer one."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "dynamic_axes": {"x": {0: "batch"}},
        "opset_version": opset,
        "training": torch.onnx.TrainingMode.PRESERVE,  # batch norms stay nodes of their own
    }
    if opset is None:
        options = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that traces is deprecated
        x = torch.zeros(2, *SHAPE)
        torch.onnx.export(net, (x,), path, dynamo=opset is None, input_names=["x"], **options)
    return path


def check(path: Path, norms: int) -> None:
    """Hold fastcnn's results for a file of so many batch norms against ONNX Runtime's."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    proto = onnx.load(path)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("BatchNormalization") >= norms
    model = fastcnn.load_onnx(path)
    assert not [one for one in model.layers if "Onnx" in type(one).__name__]
    for n in (3, 1):
        x = np.random.default_rng(n).normal(0.4, 1.7, (n, *SHAPE)).astype(np.float32)
        (expected,) = session.run(None, {"x": x})
        tolerance = TOLERANCE * np.abs(expected).max()
        assert expected.shape == (n, 7)
        assert n == 1 or expected.std(0).max() > 100 * tolerance
        for engine in (None, "im2col"):
            model.engine = engine
            result = model.predict(x)
            assert result.shape == expected.shape
            assert np.abs(result - expected).max() <= tolerance


@pytest.mark.parametrize("name", NETS)
def test_nets_that_pytorch_exports(name: str, tmp_path: Path) -> None:
    layers, opset = NETS[name]
    net = as_trained(layers())
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    check(exported(net, tmp_path / "net.onnx", opset), norms)


def test_a_net_of_the_newer_exporter(tmp_path: Path) -> None:
    """One net alone, because this exporter takes seconds for each."""
    net = as_trained(mobilenet())
    check(exported(net, tmp_path / "net.onnx", None), norms=0)  # it folds them
