"""What a file of weights cannot tell, and where layers differ from PyTorch's usual behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isclose
from typing import Any

from fastcnn.core.geometry import pads, pair
from fastcnn.core.quoting import quoted
from fastcnn.exchange.feature_order import FeatureOrders
from fastcnn.exchange.weight_files import Library
from fastcnn.models.net import Net
from fastcnn.nn.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    DepthwiseConv2D,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool2D,
    MinPool2D,
    SeparableConv2D,
    Shape,
    all_layers,
)

EPSILONS: dict[Library, float] = {"pytorch": 1e-5, "keras": 1e-3}
"""What the libraries' normalisations add to the variance, unless a net says otherwise."""


def norms_of(model: Net) -> list[tuple[str, Any]]:
    """The normalisations with an epsilon, each with the name of the outermost layer around it."""
    return [
        (outer.name, layer)
        for outer in model.layers
        for layer in all_layers([outer])
        if isinstance(layer, BatchNorm | LayerNorm | GroupNorm)
    ]


def doubts_of(
    model: Net,
    shapes: Sequence[Shape],
    orders: FeatureOrders | None,
    library: Library,
    epsilon: float | None,
) -> list[str]:
    """Why the model may compute something else than the net of the file, as sentences."""
    result = list[str]()
    usual = EPSILONS[library]
    if epsilon is None:
        poolings = [
            (name, layer)
            for name, layer in norms_of(model)
            if not isclose(layer.epsilon, usual, rel_tol=1e-3)
        ]
        if poolings:
            name, layer = poolings[0]
            adds = f" and {len(poolings) - 1} more add" if len(poolings) > 1 else " adds"
            result.append(
                f"{name}{adds} the epsilon {layer.epsilon:g} to the variance, but "
                f"{_NAMES[library]}'s default is {usual:g}, and the file does not say; give "
                f"load_weights epsilon={usual:g}, or epsilon={layer.epsilon:g} if the net has it"
            )
    if library == "pytorch":
        result += _of_padding(model, shapes)
    if orders is not None:
        if any(order is not None for order in orders.of_outputs()):
            result.append("an output lists the numbers of images with channels last")
        result += dict.fromkeys(orders.doubts)
    return result


_NAMES: dict[Library, str] = {"pytorch": "PyTorch", "keras": "Keras"}


def _of_padding(model: Net, shapes: Sequence[Shape]) -> Iterator[str]:
    for node in model._graph.nodes:
        yield from _of_windows(node.layer, shapes[node.inputs[0]])
        for path, layer in node.layer.inner_layers():
            shape = layer.input_shape
            if shape is not None:
                for doubt in _of_windows(layer, shape):
                    yield f"{node.layer.name}.{path}: {doubt}"


def _of_windows(layer: Layer, shape: Shape) -> Iterator[str]:
    """Doubts about the padding of one layer."""
    if len(shape) != 3:
        return
    if isinstance(layer, Conv2D | DepthwiseConv2D | SeparableConv2D):
        size, dilation = pair("size", layer.kernel_size), pair("dilation", layer.dilation)
        stride = pair("strides", layer.strides)
    elif isinstance(layer, MaxPool2D | MinPool2D | AvgPool2D):
        size, dilation = pair("size", layer.pool_size), (1, 1)
        stride = size if layer.strides is None else pair("strides", layer.strides)
    else:
        return
    reach = ((size[0] - 1) * dilation[0] + 1, (size[1] - 1) * dilation[1] + 1)
    top, bottom, left, right = pads(layer.padding, (shape[0], shape[1]), reach, stride)
    if layer.padding == "same" and (top, left) != (bottom, right) and max(stride) > 1:
        both = (reach[0] // 2, reach[1] // 2)
        padding = both[0] if both[0] == both[1] else both
        yield (
            f"{quoted(layer)} on {shape} pads {top} rows above and {bottom} below, {left} columns "
            f"on the left and {right} on the right; PyTorch pads both sides alike, so the layer "
            f"for its padding={padding} has padding={padding}"
        )
    if isinstance(layer, AvgPool2D) and max(top, bottom, left, right):
        yield (
            f"{quoted(layer)} takes the mean of the pixels in the image, but PyTorch's default "
            f"count_include_pad=True counts padding as zeros; a ZeroPadding2D before an AvgPool2D "
            f"without padding does so"
        )
