"""The standard nets: their published sizes, and engines and other libraries that agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from fastcnn.bench import nets, peers, standard
from fastcnn.bench.contest import WrongResult
from fastcnn.bench.problems import select
from fastcnn.bench.standard import StandardTask
from fastcnn.models import standard_nets
from fastcnn.nets import STANDARD_NETS
from fastcnn.nn.layers import BatchNorm, Tensor

PUBLISHED = {
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "squeezenet": 1_235_496,
    "vgg16": 138_357_544,
    "u_net": 1_942_577,
}
"""Trainable parameters as published for 1000 classes. The U-net's number is of its definition."""


def small(name: str) -> StandardTask:
    """A net of few channels on two images that are not square."""
    return StandardTask(name, 2, (64, 48, 3), classes=7, width=0.125)


@pytest.mark.parametrize("name", STANDARD_NETS)
def test_a_net_has_the_published_number_of_parameters(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No weights are drawn, because those of VGG-16 would take seconds and a gigabyte.
    monkeypatch.setattr(standard_nets, "Model", lambda inputs, outputs: outputs)
    outputs = STANDARD_NETS[name]()
    assert sum(map(parameters, results(outputs))) == PUBLISHED[name]  # type: ignore[arg-type]
    assert outputs.shape == ((128, 128, 1) if name == "u_net" else (1000,))


def results(outputs: Any) -> Iterator[Tensor]:
    """The results of all layers that lead to ``outputs``."""
    visited, waiting = set[int](), [outputs]
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in visited and tensor.layer is not None:
            visited.add(id(tensor))
            waiting += tensor.inputs
            yield tensor


def parameters(tensor: Tensor) -> int:
    """The number of parameters of the layer that makes a tensor."""
    layer, shapes = tensor.layer, tuple(one.shape for one in tensor.inputs)
    assert layer is not None
    specs = layer.parameter_specs(shapes if layer.takes_several else shapes[0])  # type: ignore[arg-type]
    return sum(prod(spec.shape) for spec in specs.values())


@pytest.mark.parametrize("name", STANDARD_NETS)
def test_engines_and_other_libraries_agree(name: str) -> None:
    """The compiled programs, NumPy, and PyTorch with its own definition of the net."""
    task = small(name)
    contest = standard.contest(task)
    names = ["torch", "onnxruntime", "openvino"] if name == "squeezenet" else ["torch"]
    peers.join_net(contest, task, [one for one in names if peers.missing(one) is None], threads=1)
    assert {"fastcnn", "im2col"} < {runner.name for runner in contest.runners}
    for runner in contest.runners:
        contest.verify(runner)


def test_a_channel_that_is_off_by_a_tenth_shows_in_the_result() -> None:
    """The results depend on each layer, also on the first one of the deepest net."""
    task = small("resnet50")
    contest = standard.contest(task)
    model = task.model("im2col")
    first = next(layer for layer in model.layers if isinstance(layer, BatchNorm))
    first.parameters["gamma"][3] *= 1.1
    (runner,) = (one for one in contest.runners if one.name == "im2col")
    wrong = model.predict(task.images())
    with pytest.raises(WrongResult, match="im2col on ResNet-50"):
        contest.verify(replace(runner, result=lambda: (wrong,)))


def test_weights_are_the_same_for_each_batch_size_and_dtype() -> None:
    one, two = small("resnet18"), small("resnet18")
    for a, b in zip(
        one.model("im2col").get_weights(),
        replace(two, batch=5).model("im2col", "float64").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    images = replace(two, batch=5).images()
    np.testing.assert_array_equal(images[:2], one.images())


def test_scaled_channels_are_multiples_of_8_near_the_product() -> None:
    for channels in (16, 24, 64, 96, 1280):
        assert standard_nets.scaled(channels, 1.0) == channels
        for width in (0.05, 0.25, 0.35, 0.5, 0.75, 1.4):
            result = standard_nets.scaled(channels, width)
            assert result % 8 == 0
            assert max(8, 0.9 * channels * width) <= result <= max(8, channels * width + 8)


def test_the_suite_runs_a_standard_net_quickly_if_it_is_named() -> None:
    named = select(quick=True, net=["resnet50"])[1]
    assert [(p.net, p.mode, p.batch) for p in named] == [("resnet50", "predict", 1)]
    assert [p.batch for p in select(quick=False, net=["resnet50"])[1]] == [1, 8]
    assert {p.net for p in select(quick=False)[1]} > set(STANDARD_NETS)
    assert not {p.net for p in select(quick=True)[1]} & set(STANDARD_NETS)
    assert nets.title(named[0]) == "ResNet-50, inference, batch 1"
    task = nets.task("resnet50", "predict", 1)
    assert isinstance(task, StandardTask)
    assert (task.shape, task.classes, task.width) == ((224, 224, 3), 1000, 1.0)
