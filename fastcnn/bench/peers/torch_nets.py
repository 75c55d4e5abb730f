"""The standard nets in PyTorch, with the weights of fastcnn's own.

The definitions have torchvision's paddings and its order of layers, and are written with
``nn.Sequential`` and three modules for what is no sequence: :class:`Sum`, :class:`Concatenation`
and :class:`Gate`. :func:`carry` writes the arrays of a fastcnn model into a module. It goes through
both in the order in which layers compute, which is the same.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fastcnn.bench.standard import StandardTask
from fastcnn.core.arguments import Array
from fastcnn.models.model import Model
from fastcnn.models.standard_nets import (
    MOBILENET_V1_BLOCKS,
    MOBILENET_V2_BLOCKS,
    RESNET_BLOCKS,
    SQUEEZENET_FIRES,
    U_NET_LEVELS,
    VGG16_BLOCKS,
    scaled,
)
from fastcnn.nn.layers import Flatten

Modules = list[nn.Module]


class Sum(nn.Module):  # type: ignore[misc]
    """``main(x) + shortcut(x)``."""

    def __init__(self, main: Modules, shortcut: Modules | None = None) -> None:
        super().__init__()
        self.main, self.shortcut = nn.Sequential(*main), nn.Sequential(*(shortcut or ()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.main(x)
        return y + self.shortcut(x)


class Concatenation(nn.Module):  # type: ignore[misc]
    """The channels of all branches, one branch after the other; a branch may be empty."""

    def __init__(self, *branches: Modules) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(*branch) for branch in branches])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Gate(nn.Module):  # type: ignore[misc]
    """``x * layers(x)``, in which ``layers`` yield one number for each channel."""

    def __init__(self, layers: Modules) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.layers(x)


def convolution(
    ic: int, oc: int, kernel: int, stride: int = 1, groups: int = 1, act: bool | str = True
) -> Modules:
    """A convolution without bias, padded by half of its filter, with batch norm and activation.

    ``act`` is True for ReLU, "relu6", or False for none.
    """
    conv = nn.Conv2d(ic, oc, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: Modules = [conv, nn.BatchNorm2d(oc)]
    if act:
        layers.append(nn.ReLU6(inplace=True) if act == "relu6" else nn.ReLU(inplace=True))
    return layers


def _classifier(features: int, classes: int) -> Modules:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)]


def mobilenet_v1(classes: int, shape: tuple[int, ...], width: float) -> Modules:
    """MobileNet: pairs of a depthwise and a 1×1 convolution."""
    ic = scaled(32, width)
    layers = convolution(shape[2], ic, 3, 2)
    for channels, stride in MOBILENET_V1_BLOCKS:
        oc = scaled(channels, width)
        layers += convolution(ic, ic, 3, stride, groups=ic) + convolution(ic, oc, 1)
        ic = oc
    return layers + _classifier(ic, classes)


def mobilenet_v2(classes: int, shape: tuple[int, ...], width: float) -> Modules:
    """MobileNetV2: inverted residual blocks."""
    ic = scaled(32, width)
    layers = convolution(shape[2], ic, 3, 2, act="relu6")
    for expansion, channels, blocks, first_stride in MOBILENET_V2_BLOCKS:
        oc = scaled(channels, width)
        for stride in (first_stride, *[1] * (blocks - 1)):
            inside = ic * expansion
            main = convolution(ic, inside, 1, act="relu6") if expansion > 1 else []
            main += convolution(inside, inside, 3, stride, inside, "relu6")
            main += convolution(inside, oc, 1, act=False)
            layers += [Sum(main)] if stride == 1 and ic == oc else main
            ic = oc
    features = scaled(1280, width)
    return [*layers, *convolution(ic, features, 1, act="relu6"), *_classifier(features, classes)]


def _resnet(
    classes: int, shape: tuple[int, ...], width: float, blocks: tuple[int, ...], bottleneck: bool
) -> Modules:
    ic = scaled(64, width)
    layers = [*convolution(shape[2], ic, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, count in enumerate(blocks):
        inside = scaled(64 * 2**stage, width)
        oc = 4 * inside if bottleneck else inside
        for i in range(count):
            stride = 2 if stage and not i else 1
            if bottleneck:
                main = convolution(ic, inside, 1) + convolution(inside, inside, 3, stride)
                main += convolution(inside, oc, 1, act=False)
            else:
                main = convolution(ic, oc, 3, stride) + convolution(oc, oc, 3, act=False)
            shortcut = convolution(ic, oc, 1, stride, act=False) if stride > 1 or ic != oc else []
            layers += [Sum(main, shortcut), nn.ReLU(inplace=True)]
            ic = oc
    return layers + _classifier(ic, classes)


def resnet18(classes: int, shape: tuple[int, ...], width: float) -> Modules:
    """ResNet-18: two 3×3 convolutions in each block."""
    return _resnet(classes, shape, width, RESNET_BLOCKS[18], bottleneck=False)


def resnet50(classes: int, shape: tuple[int, ...], width: float) -> Modules:
    """ResNet-50: 1×1, 3×3 and 1×1 convolutions in each block."""
    return _resnet(classes, shape, width, RESNET_BLOCKS[50], bottleneck=True)


def _biased(ic: int, oc: int, kernel: int, stride: int = 1, padding: int = 0) -> Modules:
    return [nn.Conv2d(ic, oc, kernel, stride, padding), nn.ReLU(inplace=True)]


def squeezenet(classes: int, shape: tuple[int, ...], width: float) -> Modules:
    """SqueezeNet 1.1."""
    ic = scaled(64, width)
    layers = _biased(shape[2], ic, 3, 2)
    for fires in SQUEEZENET_FIRES:
        layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        for squeezed, expanded in fires:
            inside, each = scaled(squeezed, width), scaled(expanded, width)
            layers += _biased(ic, inside, 1)
            layers.append(
                Concatenation(_biased(inside, each, 1), _biased(inside, each, 3, padding=1))
            )
            ic = 2 * each
    return [*layers, *_biased(ic, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def vgg16(classes: int, shape: tuple[int, ...], width: float) -> Modules:
    """VGG-16."""
    (h, w, ic), layers = shape, Modules()
    for channels, count in VGG16_BLOCKS:
        oc = scaled(channels, width)
        for _ in range(count):
            layers += _biased(ic, oc, 3, padding=1)
            ic = oc
        layers.append(nn.MaxPool2d(2))
        h, w = h // 2, w // 2
    features, units = ic * h * w, scaled(4096, width)
    layers += [nn.Flatten(), nn.Linear(features, units), nn.ReLU(inplace=True)]
    return [*layers, nn.Linear(units, units), nn.ReLU(inplace=True), nn.Linear(units, classes)]


def u_net(classes: int, shape: tuple[int, ...], width: float) -> Modules:
    """A U-net with batch norm."""

    def level(ic: int, depth: int) -> Modules:
        oc = scaled(16 * 2**depth, width)
        layers = convolution(ic, oc, 3) + convolution(oc, oc, 3)
        if depth == U_NET_LEVELS:
            return layers
        below = scaled(16 * 2 ** (depth + 1), width)
        inside: Modules = [
            nn.MaxPool2d(2), *level(oc, depth + 1), nn.ConvTranspose2d(below, oc, 2, 2)
        ]  # fmt: skip
        layers.append(Concatenation([], inside))
        return layers + convolution(2 * oc, oc, 3) + convolution(oc, oc, 3)

    return [*level(shape[2], 0), nn.Conv2d(scaled(16, width), classes, 1)]


NETS: dict[str, Callable[[int, tuple[int, ...], float], Modules]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "squeezenet": squeezenet,
    "vgg16": vgg16,
    "u_net": u_net,
}
"""The standard nets by name, each a function of classes, shape of the images, and width."""


def module(task: StandardTask) -> nn.Module:
    """The net of a task with its weights, for inference; a classifier returns probabilities."""
    layers = NETS[task.name](task.classes, task.shape, task.width)
    result = nn.Sequential(*layers, *([nn.Softmax(1)] if task.classifies else []))
    carry(task.model(), result)
    return result.eval()


def frozen(net: nn.Module, task: StandardTask) -> torch.jit.ScriptModule:
    """The net for images of this task, with constant weights and its batch norms folded."""
    n, (h, w, c) = task.batch, task.shape
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still the fastest
        return torch.jit.freeze(torch.jit.trace(net, torch.zeros(n, c, h, w)))


def exported(task: StandardTask) -> bytes:
    """The net of a task in ONNX's format."""
    n, (h, w, c) = task.batch, task.shape
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names packages that are missing
    program = torch.onnx.export(
        module(task), (torch.zeros(n, c, h, w),), dynamo=True, verbose=False
    )
    result: bytes = program.model_proto.SerializeToString()
    return result


def carry(model: Model, net: nn.Module) -> None:
    """Write the arrays of a fastcnn model into the modules of the same net, in their order."""
    arrays = _arrays_of(model)
    modules = [part for part in net.modules() if any(True for _ in part.parameters(recurse=False))]
    if len(modules) != len(arrays):
        raise ValueError(f"the net has {len(modules)} modules with weights, got {len(arrays)}")
    with torch.no_grad():
        for part, by_name in zip(modules, arrays, strict=True):
            for name, array in by_name.items():
                tensor = getattr(part, name)
                if tensor.shape != array.shape:
                    raise ValueError(f"{part}: {name} must be {tuple(tensor.shape)}")
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(array)))


_NORMALISATION = {
    "gamma": "weight",
    "beta": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}


def _arrays_of(model: Model) -> list[dict[str, Array]]:
    """For each layer with weights its arrays, by PyTorch's names and in its layout."""
    result = []
    flattened: tuple[int, ...] = ()
    for layer in model.layers:
        arrays = layer.parameters | layer.state
        if isinstance(layer, Flatten):
            flattened = layer.input_shape or ()
        elif "gamma" in arrays:
            result.append({_NORMALISATION[name]: array for name, array in arrays.items()})
        elif "w" in arrays:
            w = arrays["w"]
            if w.ndim == 2 and flattened:  # PyTorch flattens images channel by channel
                w = w.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(w.shape)
                flattened = ()
            result.append({"weight": w.T} if w.ndim == 2 else {"weight": w.transpose(3, 2, 0, 1)})
            if "b" in arrays:
                result[-1]["bias"] = arrays["b"]
    return result
