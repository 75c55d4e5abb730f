"""How each layer is described for the JavaScript of the HTML page.

A function gets the graph, the layer, its inputs and the shape of its output, and adds descriptions
to the graph. ``fastcnn/exchange/page/layers.js`` has a function for each kind of description.
Shapes are those of one sample; images are (H, W, C), as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, pool_geometry
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.resizing import Sources
from fastcnn.exchange.layouts import arrays_of
from fastcnn.nn.layers import (
    ELU,
    GELU,
    LRN,
    Add,
    Average,
    AvgPool2D,
    BatchNorm,
    Composite,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    DepthToSpace,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Layer,
    LayerNorm,
    LeakyReLU,
    Maximum,
    MaxPool2D,
    MinPool2D,
    Multiply,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Resize,
    SeparableConv2D,
    Shape,
    Sigmoid,
    Softmax,
    Softplus,
    Subtract,
    Swish,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
    input_of_call,
    repr_of_structure,
)


class Value(NamedTuple):
    """A value of the net: its number, and the shape of a sample."""

    number: int
    shape: Shape


class PageGraph:
    """Descriptions of layers in the order in which they run, and the arrays that they read.

    Value 0 is the net's input, and value i + 1 the result of layer i.

    Args:
        dtype: of the arrays on the page: float64, float32 or float16.
        results: the dtype of the net, to which each number of a result is rounded.

    Attributes:
        name: of the layer that is described.
        label: how the layer was written, such as "Conv2D(8, 3)".
        layers: the descriptions, as JSON values.
        arrays: copies of all arrays, one after the other.
        length: how many numbers they hold.
    """

    def __init__(
        self, dtype: np.dtype[np.floating], results: np.dtype[np.floating] | None = None
    ) -> None:
        self.results = dtype if results is None else results
        self.name = self.label = ""
        self.layers: list[JsonObject] = []
        self.arrays: list[NDArray[np.floating]] = []
        self.length = 0
        self._dtype = dtype
        self._references: dict[int, list[int]] = {}
        self._originals: list[Array] = []  # kept, so that no other array gets the identity of one

    def add(
        self,
        kind: str,
        inputs: Sequence[Value],
        shape: Shape,
        arrays: Mapping[str, Array] | None = None,
        **parameters: Any,
    ) -> Value:
        """Add a description, and return its result.

        Args:
            kind: the name of the layer's function in JavaScript.
            inputs: the values that it takes.
            shape: of its result.
            arrays: the arrays that it reads, by name.
            parameters: what else the function reads, as JSON values.

        Raises:
            ValueError: an array is not finite in the page's dtype.
        """
        references = {name: self._reference(name, array) for name, array in (arrays or {}).items()}
        self.layers.append(
            {
                "kind": kind,
                "name": self.name,
                "label": self.label,
                "inputs": [value.number for value in inputs],
                "shape": list(shape),
                "arrays": references,
                **parameters,
            }
        )
        return Value(len(self.layers), shape)

    def _reference(self, name: str, array: Array) -> list[int]:
        """Offset and length of an array among all; a shared layer's arrays are there once."""
        if id(array) not in self._references:
            with np.errstate(over="ignore"):  # a number that is too large becomes infinity
                copy = np.array(array, self._dtype)
            if not np.isfinite(copy).all():
                raise ValueError(
                    f"the model must have weights that are finite in {self._dtype}, but {name!r} "
                    f"of layer {self.name!r}, {self.label}, has others"
                )
            self._references[id(array)] = [self.length, array.size]
            self._originals.append(array)
            self.arrays.append(copy)
            self.length += array.size
        return self._references[id(array)]


USUAL_KINDS = frozenset(
    {
        "activation", "avg_pool", "batch_norm", "conv2d", "dense", "max_pool", "min_pool",
        "reshape", "softmax",
    }
)  # fmt: skip
"""The kinds in ``layers.js``; the others are in ``more_layers.js``."""

Writer: TypeAlias = Callable[[PageGraph, Any, Sequence[Value], Shape], Value]


# --- convolutions, dense layers, pooling -------------------------------------------------------


def _convolve(
    graph: PageGraph,
    kind: str,
    g: ConvGeometry,
    inputs: Sequence[Value],
    shape: Shape,
    arrays: Mapping[str, Array],
    activation: str | None,
) -> Value:
    """Add a convolution; of a transposed one ``g`` goes the other way."""
    return graph.add(
        kind,
        inputs,
        shape,
        arrays,
        kernel=[g.kh, g.kw],
        stride=[g.stride_h, g.stride_w],
        padding=[g.pad_top, g.pad_left],
        dilation=[g.dilation_h, g.dilation_w],
        groups=g.groups,
        activation=activation,
    )


def _convolution(kind: str) -> Writer:
    def write(graph: PageGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
        g, arrays = layer.geometry(inputs[0].shape), arrays_of(layer)
        return _convolve(graph, kind, g, inputs, shape, arrays, layer.activation)

    return write


def _separable(
    graph: PageGraph, layer: SeparableConv2D, inputs: Sequence[Value], shape: Shape
) -> Value:
    arrays = arrays_of(layer)
    depthwise, pointwise = layer._geometries(inputs[0].shape)
    between = depthwise.output_shape[1:]
    w = {"w": arrays["depthwise_w"]}
    value = _convolve(graph, "conv2d", depthwise, inputs, between, w, None)
    pointwise_arrays = {
        "w": arrays["pointwise_w"],
        **({"b": arrays["b"]} if layer.use_bias else {}),
    }
    return _convolve(graph, "conv2d", pointwise, [value], shape, pointwise_arrays, layer.activation)


def _dense(graph: PageGraph, layer: Dense, inputs: Sequence[Value], shape: Shape) -> Value:
    return graph.add("dense", inputs, shape, arrays_of(layer), activation=layer.activation)


def _pool(kind: str) -> Writer:
    def write(graph: PageGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
        g = pool_geometry(
            (1, *inputs[0].shape), layer.pool_size, stride=layer.strides, padding=layer.padding
        )
        return graph.add(
            kind,
            inputs,
            shape,
            windows=[g.oh, g.ow],
            kernel=[g.kh, g.kw],
            stride=[g.stride_h, g.stride_w],
            padding=[g.pad_top, g.pad_left],
        )

    return write


def _global_pool(kind: str) -> Writer:
    def write(graph: PageGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
        window = list(inputs[0].shape[:2])
        return graph.add(
            kind, inputs, shape, windows=[1, 1], kernel=window, stride=[1, 1], padding=[0, 0]
        )

    return write


# --- activations and normalisation -------------------------------------------------------------


def _activation(function: str, *arguments: str) -> Writer:
    """An activation whose numbers are arguments of the layer."""

    def write(graph: PageGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
        numbers = {name: getattr(layer, name) for name in arguments}
        return graph.add("activation", inputs, shape, function=function, **numbers)

    return write


def _relu(graph: PageGraph, layer: ReLU, inputs: Sequence[Value], shape: Shape) -> Value:
    top = None if layer.max_value is None else float(graph.results.type(layer.max_value))
    return graph.add("activation", inputs, shape, function="relu", top=top)


def _with_arrays(kind: str, *arguments: str) -> Writer:
    """A layer that is described by its arrays and some of its arguments."""

    def write(graph: PageGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
        numbers = {name: getattr(layer, name) for name in arguments}
        return graph.add(kind, inputs, shape, arrays_of(layer), **numbers)

    return write


def _layer_norm(graph: PageGraph, layer: LayerNorm, inputs: Sequence[Value], shape: Shape) -> Value:
    features = prod(layer.row(shape))
    return graph.add(
        "layer_norm", inputs, shape, arrays_of(layer), features=features, epsilon=layer.epsilon
    )


# --- shapes ------------------------------------------------------------------------------------


def _dropout(graph: PageGraph, layer: Dropout, inputs: Sequence[Value], shape: Shape) -> Value:
    return inputs[0]  # a prediction leaves nothing out


def _reshape(graph: PageGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    return graph.add("reshape", inputs, shape)


def _permute(graph: PageGraph, layer: Permute, inputs: Sequence[Value], shape: Shape) -> Value:
    axes = [axis - 1 for axis in layer.dims]
    return graph.add("permute", inputs, shape, view=list(inputs[0].shape), axes=axes)


def _depth_to_space(
    graph: PageGraph, layer: DepthToSpace, inputs: Sequence[Value], shape: Shape
) -> Value:
    """The channels, seen as blocks of pixels, move between the rows and columns."""
    (h, w, _), block = inputs[0].shape, layer.block_size
    if layer.order == "DCR":
        view, axes = [h, w, block, block, shape[2]], [0, 2, 1, 3, 4]
    else:
        view, axes = [h, w, shape[2], block, block], [0, 3, 1, 4, 2]
    return graph.add("permute", inputs, shape, view=view, axes=axes)


def _padding(
    graph: PageGraph, layer: ZeroPadding2D, inputs: Sequence[Value], shape: Shape
) -> Value:
    top, _, left, _ = layer.margins()
    return graph.add("pad", inputs, shape, top=top, left=left)


def _cropping(graph: PageGraph, layer: Cropping2D, inputs: Sequence[Value], shape: Shape) -> Value:
    top, _, left, _ = layer.margins()
    return graph.add("pad", inputs, shape, top=-top, left=-left)


def _resize(graph: PageGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    g = layer.geometry(inputs[0].shape)
    return graph.add("resize", inputs, shape, rows=_sources(g.rows), columns=_sources(g.columns))


def _sources(sources: Sources) -> JsonObject:
    return {name: array.tolist() for name, array in sources._asdict().items()}


# --- several inputs ----------------------------------------------------------------------------


def _merge(kind: str) -> Writer:
    def write(graph: PageGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
        return graph.add(kind, inputs, shape)

    return write


def _average(graph: PageGraph, layer: Average, inputs: Sequence[Value], shape: Shape) -> Value:
    return graph.add("add", inputs, shape, share=1 / len(inputs))


def _concatenate(
    graph: PageGraph, layer: Concatenate, inputs: Sequence[Value], shape: Shape
) -> Value:
    axis = layer.axis - 1 if layer.axis > 0 else len(shape) + layer.axis
    return graph.add("concatenate", inputs, shape, axis=axis)


def _residual(graph: PageGraph, layer: Residual, inputs: Sequence[Value], shape: Shape) -> Value:
    outer, label, ends = graph.name, graph.label, list[Value]()
    for path, layers in (("layers", layer.layers), ("shortcut", layer.shortcut)):
        value = inputs[0]
        for i, inner in enumerate(layers):
            name = f"{outer}.{path}.{i}"
            value = write_layer(graph, inner, name, [value], inner.infer(value.shape))
        ends.append(value)
    graph.name, graph.label = outer, label
    return graph.add("add", ends, shape, activation=layer.activation)


def _composite(graph: PageGraph, layer: Composite, inputs: Sequence[Value]) -> Value:
    outer, label = graph.name, graph.label
    values, paths = list(inputs), {id(one): path for path, one in layer.inner_layers()}
    for node in layer.connected(layer.input_shape):
        of_node = [values[value] for value in node.inputs]
        shapes = [value.shape for value in of_node]
        shape = node.layer.infer(input_of_call(node.layer, shapes))
        name = f"{outer}.{paths[id(node.layer)]}"
        values.append(write_layer(graph, node.layer, name, of_node, shape))
    graph.name, graph.label = outer, label
    return values[-1]


WRITERS: dict[type[Layer], Writer] = {
    Add: _merge("add"),
    Average: _average,
    AvgPool2D: _pool("avg_pool"),
    BatchNorm: _with_arrays("batch_norm", "epsilon"),
    Concatenate: _concatenate,
    Conv2D: _convolution("conv2d"),
    Conv2DTranspose: _convolution("conv2d_transpose"),
    Cropping2D: _cropping,
    Dense: _dense,
    DepthToSpace: _depth_to_space,
    DepthwiseConv2D: _convolution("conv2d"),
    Dropout: _dropout,
    ELU: _activation("elu", "alpha"),
    Flatten: _reshape,
    GELU: _activation("gelu", "approximate"),
    GlobalAvgPool2D: _global_pool("avg_pool"),
    GlobalMaxPool2D: _global_pool("max_pool"),
    GroupNorm: _with_arrays("group_norm", "groups", "epsilon"),
    HardSigmoid: _activation("hard_sigmoid", "slope", "offset"),
    HardSwish: _activation("hard_swish"),
    LRN: _with_arrays("lrn", "window", "alpha", "beta", "bias"),
    LayerNorm: _layer_norm,
    LeakyReLU: _activation("leaky_relu", "slope"),
    MaxPool2D: _pool("max_pool"),
    Maximum: _merge("maximum"),
    MinPool2D: _pool("min_pool"),
    Multiply: _merge("multiply"),
    PReLU: _with_arrays("prelu"),
    Permute: _permute,
    ReLU: _relu,
    Reshape: _reshape,
    Residual: _residual,
    Resize: _resize,
    SeparableConv2D: _separable,
    Sigmoid: _activation("sigmoid"),
    Softmax: _merge("softmax"),
    Softplus: _activation("softplus"),
    Subtract: _merge("subtract"),
    Swish: _activation("swish"),
    Tanh: _activation("tanh"),
    UpSampling2D: _resize,
    ZeroPadding2D: _padding,
}
"""A function for each class of layers."""


def write_layer(
    graph: PageGraph, layer: Layer, name: str, inputs: Sequence[Value], shape: Shape
) -> Value:
    """Describe a call of a layer, and return its result.

    Raises ``ValueError`` for a layer that has no function in JavaScript.
    """
    if isinstance(layer, Composite):
        graph.name, graph.label = name, type(layer).__name__
        return _composite(graph, layer, inputs)
    writer = WRITERS.get(type(layer))
    if writer is None:
        raise ValueError(
            f"the model must have layers that the page computes, but layer {name!r}, "
            f"{type(layer).__name__}, is none of them; they are the layers of fastcnn.layers"
        )
    # A stack's description would hold those of all layers inside, which follow as well.
    label = type(layer).__name__ if layer.inner_layers() else repr_of_structure(layer)
    graph.name, graph.label = name, label
    return writer(graph, layer, inputs, shape)
