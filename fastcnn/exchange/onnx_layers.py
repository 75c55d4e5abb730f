"""How each layer is written as nodes of an ONNX graph.

A function gets the graph, the layer and its inputs, and returns its output. Images arrive with
their channels first, unless the function's entry in :data:`PLAIN` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, four_sides, pads, pool_geometry
from fastcnn.core.quoting import quoted
from fastcnn.exchange.feature_order import channels_first, joined_orders, same_order
from fastcnn.exchange.layouts import arrays_of
from fastcnn.exchange.onnx_graph import OnnxGraph, Value
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
)

Writer: TypeAlias = Callable[[OnnxGraph, Any, Sequence[Value], Shape], Value]
"""A function of the graph, the layer, its inputs, and the shape of its output."""

_HERE = {0: 0, 1: 2, 2: 3, 3: 1}
"""Axes of images with channels first, by those of images with channels last."""


def _per_channel(row: Array, value: Value) -> Array:
    """A number for each channel, in the shape that broadcasts along the value."""
    if len(value.shape) == 3 and not value.channels_last:
        return row.reshape(-1, 1, 1)
    if value.order is None:
        return row
    result = np.empty_like(row)
    result[value.order] = row
    return result


def _like(value: Value, name: str) -> Value:
    return value._replace(name=name)


def _relu(graph: OnnxGraph, name: str, activation: object) -> str:
    return graph.add("Relu", name) if activation else name


# --- convolutions ------------------------------------------------------------------------------


def _filters(w: Array) -> Array:
    """Filters (KH, KW, IC, OC) as (OC, IC, KH, KW)."""
    return w.transpose(3, 2, 0, 1)


def _of_convolution(g: ConvGeometry) -> dict[str, Any]:
    return {
        "kernel_shape": [g.kh, g.kw],
        "strides": [g.stride_h, g.stride_w],
        "pads": [g.pad_top, g.pad_left, g.pad_bottom, g.pad_right],
        "dilations": [g.dilation_h, g.dilation_w],
        "group": g.groups,
    }


def _with_bias(graph: OnnxGraph, layer: Any, inputs: list[str]) -> list[str]:
    b = arrays_of(layer).get("b")
    return inputs if b is None else [*inputs, graph.constant(b, "b")]


def _convolution(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    w = graph.constant(_filters(arrays_of(layer)["w"]), "w")
    part = "convolution" if layer.activation else ""
    operands = _with_bias(graph, layer, [x.name, w])
    y = graph.add("Conv", operands, part, **_of_convolution(layer.geometry(x.shape)))
    return Value(_relu(graph, y, layer.activation), shape)


def _transposed(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    g = layer.geometry(x.shape)  # of the convolution that goes the other way
    attributes = _of_convolution(g)
    extra = [
        side - ((before - 1) * step + (k - 1) * dilation + 1 - low - high)
        for side, before, step, k, dilation, low, high in (
            (g.h, g.oh, g.stride_h, g.kh, g.dilation_h, g.pad_top, g.pad_bottom),
            (g.w, g.ow, g.stride_w, g.kw, g.dilation_w, g.pad_left, g.pad_right),
        )
    ]
    w = graph.constant(_filters(arrays_of(layer)["w"]), "w")  # (IC, OC/groups, KH, KW)
    operands = _with_bias(graph, layer, [x.name, w])
    part = "convolution" if layer.activation else ""
    y = graph.add("ConvTranspose", operands, part, output_padding=extra, **attributes)
    return Value(_relu(graph, y, layer.activation), shape)


def _separable(
    graph: OnnxGraph, layer: SeparableConv2D, inputs: Sequence[Value], shape: Shape
) -> Value:
    (x,) = inputs
    arrays, (depthwise, pointwise) = arrays_of(layer), layer._geometries(x.shape)
    w = graph.constant(_filters(arrays["depthwise_w"]), "depthwise_w")
    y = graph.add("Conv", (x.name, w), "depthwise", **_of_convolution(depthwise))
    w = graph.constant(_filters(arrays["pointwise_w"]), "pointwise_w")
    operands = _with_bias(graph, layer, [y, w])
    part = "pointwise" if layer.activation else ""
    y = graph.add("Conv", operands, part, **_of_convolution(pointwise))
    return Value(_relu(graph, y, layer.activation), shape)


def _dense(graph: OnnxGraph, layer: Dense, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    w = arrays_of(layer)["w"]
    if x.order is not None:
        turned = np.empty_like(w)
        turned[x.order] = w
        w = turned
    part = "product" if layer.activation else ""
    operands = _with_bias(graph, layer, [x.name, graph.constant(w, "w")])
    y = graph.add("Gemm", operands, part)
    return Value(_relu(graph, y, layer.activation), shape)


# --- pooling -----------------------------------------------------------------------------------


def _of_windows(layer: Any, shape: Shape) -> dict[str, Any]:
    g = pool_geometry((1, *shape), layer.pool_size, stride=layer.strides, padding=layer.padding)
    return {
        "kernel_shape": [g.kh, g.kw],
        "strides": [g.stride_h, g.stride_w],
        "pads": [g.pad_top, g.pad_left, g.pad_bottom, g.pad_right],
    }


def _max_pool(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    return Value(graph.add("MaxPool", x.name, **_of_windows(layer, x.shape)), shape)


def _min_pool(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    y = graph.add("Neg", x.name, "negative")
    y = graph.add("MaxPool", y, "maximum", **_of_windows(layer, x.shape))
    return Value(graph.add("Neg", y), shape)


def _avg_pool(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    attributes = _of_windows(layer, x.shape)
    return Value(graph.add("AveragePool", x.name, count_include_pad=0, **attributes), shape)


def _global_pool(operator: str) -> Writer:
    def write(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
        (x,) = inputs
        y = graph.add(operator, x.name, "pixels")
        return Value(graph.add("Flatten", y, axis=1), shape)

    return write


# --- activations -------------------------------------------------------------------------------


def _activation(operator: str, **names: str) -> Writer:
    """One node, whose attributes are arguments of the layer."""

    def write(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
        (x,) = inputs
        attributes: dict[str, Any] = {
            name: float(getattr(layer, argument)) for name, argument in names.items()
        }
        return _like(x, graph.add(operator, x.name, **attributes))

    return write


def _clipped(graph: OnnxGraph, layer: ReLU, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    if layer.max_value is None:
        return _like(x, graph.add("Relu", x.name))
    low, high = (
        graph.constant(np.float32(number), part)
        for number, part in ((0, "min"), (layer.max_value, "max"))
    )
    return _like(x, graph.add("Clip", (x.name, low, high)))


def _swish(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    gate = graph.add("Sigmoid", x.name, "gate")
    return _like(x, graph.add("Mul", (x.name, gate)))


def _gelu(graph: OnnxGraph, layer: GELU, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs

    def number(value: float, part: str) -> str:
        return graph.constant(np.float32(value), part)

    if layer.approximate:
        cube = graph.add("Pow", (x.name, number(3, "three")), "cube")
        cube = graph.add("Mul", (cube, number(0.044715, "cubic")), "cubic")
        inner = graph.add("Add", (x.name, cube), "sum")
        inner = graph.add("Mul", (inner, number(sqrt(2 / np.pi), "scale")), "scaled")
        inner = graph.add("Tanh", inner, "tanh")
    else:
        inner = graph.add("Div", (x.name, number(sqrt(2), "root")), "scaled")
        inner = graph.add("Erf", inner, "erf")
    inner = graph.add("Add", (inner, number(1, "one")), "share")
    product = graph.add("Mul", (x.name, inner), "product")
    return _like(x, graph.add("Mul", (product, number(0.5, "half"))))


def _softmax(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    axis = 1 if len(x.shape) == 3 else -1
    return _like(x, graph.add("Softmax", x.name, axis=axis))


def _prelu(graph: OnnxGraph, layer: PReLU, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    slope = graph.constant(_per_channel(arrays_of(layer)["slope"], x), "slope")
    return _like(x, graph.add("PRelu", (x.name, slope)))


# --- normalisation -----------------------------------------------------------------------------


def _batch_norm(graph: OnnxGraph, layer: BatchNorm, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    arrays = arrays_of(layer)
    if len(x.shape) == 2:  # channels are the last axis, and the operator wants the second one
        scale = arrays["gamma"] / np.sqrt(arrays["variance"] + layer.epsilon)
        y = graph.add("Mul", (x.name, graph.constant(scale.astype(np.float32), "scale")), "scaled")
        shift = arrays["beta"] - arrays["mean"] * scale
        return _like(x, graph.add("Add", (y, graph.constant(shift.astype(np.float32), "shift"))))
    rows = [
        graph.constant(_per_channel(arrays[name], x).reshape(-1), name)
        for name in ("gamma", "beta", "mean", "variance")
    ]
    return _like(x, graph.add("BatchNormalization", (x.name, *rows), epsilon=layer.epsilon))


def _scaled(graph: OnnxGraph, name: str, gamma: Array | None, beta: Array | None) -> str:
    """The value times gamma plus beta, where there are any; the last node has the layer's name."""
    if gamma is not None:
        part = "" if beta is None else "scaled"
        name = graph.add("Mul", (name, graph.constant(gamma, "gamma")), part)
    if beta is not None:
        name = graph.add("Add", (name, graph.constant(beta, "beta")))
    return name


def _layer_norm(graph: OnnxGraph, layer: LayerNorm, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    count = 1 if isinstance(layer.axis, int) else len(layer.axis)
    row, arrays = x.shape[len(x.shape) - count :], arrays_of(layer)
    gamma, beta = arrays.get("gamma"), arrays.get("beta")
    if len(x.shape) == 3 and count < 3:  # the channels are not the last axis
        return _like(x, _layer_norm_of_channels(graph, layer, x, count, gamma, beta))
    if count == 3:
        gamma, beta = (None if one is None else one.transpose(2, 0, 1) for one in (gamma, beta))
        row = (*row[2:], *row[:2])
    elif count == 1 and len(x.shape) == 1:
        gamma, beta = (None if one is None else _per_channel(one, x) for one in (gamma, beta))
    scale = np.ones(row, np.float32) if gamma is None else gamma
    operands = [x.name, graph.constant(scale, "gamma")]
    if beta is not None:
        operands.append(graph.constant(beta, "beta"))
    return _like(x, graph.add("LayerNormalization", operands, axis=-count, epsilon=layer.epsilon))


def _layer_norm_of_channels(
    graph: OnnxGraph,
    layer: LayerNorm,
    x: Value,
    count: int,
    gamma: Array | None,
    beta: Array | None,
) -> str:
    """The normalisation of the last axes of images, which have their channels first here."""
    axes = [1] if count == 1 else [1, 3]
    mean = graph.add("ReduceMean", x.name, "mean", axes=axes, keepdims=1)
    centred = graph.add("Sub", (x.name, mean), "centred")
    square = graph.add("Mul", (centred, centred), "square")
    variance = graph.add("ReduceMean", square, "variance", axes=axes, keepdims=1)
    epsilon = graph.constant(np.float32(layer.epsilon), "epsilon")
    variance = graph.add("Add", (variance, epsilon), "moved")
    deviation = graph.add("Sqrt", variance, "deviation")
    plain = gamma is None and beta is None
    y = graph.add("Div", (centred, deviation), "" if plain else "normalised")

    def here(row: Array | None) -> Array | None:
        if row is None:
            return None
        return row.reshape(-1, 1, 1) if count == 1 else row.T[:, None, :]

    return _scaled(graph, y, here(gamma), here(beta))


def _group_norm(graph: OnnxGraph, layer: GroupNorm, inputs: Sequence[Value], shape: Shape) -> Value:
    x = graph.plain(inputs[0]) if inputs[0].order is not None else inputs[0]
    arrays, groups = arrays_of(layer), layer.groups
    name, channels = x.name, x.shape[-1]
    if len(x.shape) == 2:
        name = graph.add("Transpose", name, "channels_first", perm=[0, 2, 1])
    in_groups = graph.constant(np.array([0, groups, -1], np.int64), "groups")
    name = graph.add("Reshape", (name, in_groups), "in groups")
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    rows = graph.constant(ones, "ones"), graph.constant(zeros, "zeros")
    name = graph.add("InstanceNormalization", (name, *rows), "normalised", epsilon=layer.epsilon)
    sides: tuple[int, ...] = (channels, *x.shape[:-1])
    back = graph.constant(np.array([0, *sides], np.int64), "shape")
    gamma, beta = arrays.get("gamma"), arrays.get("beta")
    is_last = len(x.shape) != 2 and gamma is None and beta is None
    name = graph.add("Reshape", (name, back), "" if is_last else "images")
    if len(x.shape) == 2:
        part = "" if gamma is None and beta is None else "pixels"
        name = graph.add("Transpose", name, part, perm=[0, 2, 1])
    gamma, beta = (None if one is None else _per_channel(one, x) for one in (gamma, beta))
    return _like(x, _scaled(graph, name, gamma, beta))


def _lrn(graph: OnnxGraph, layer: LRN, inputs: Sequence[Value], shape: Shape) -> Value:
    x = graph.plain(inputs[0]) if inputs[0].order is not None else inputs[0]
    name = x.name
    if len(x.shape) == 2:
        name = graph.add("Transpose", name, "channels_first", perm=[0, 2, 1])
    missing = [*range(len(x.shape) + 1, 4)]
    axes = graph.constant(np.array(missing, np.int64), "axes") if missing else ""
    if missing:  # ONNX Runtime wants images
        name = graph.add("Unsqueeze", (name, axes), "images")
    last = "" if not missing else "normalised"
    if layer.window % 2:
        name = graph.add(
            "LRN",
            name,
            last,
            size=layer.window,
            alpha=layer.alpha,
            beta=layer.beta,
            bias=layer.bias,
        )
    else:
        name = _even_lrn(graph, layer, name, x.shape, last)
    if missing:
        name = graph.add("Squeeze", (name, axes), "channels" if len(x.shape) == 2 else "")
    if len(x.shape) == 2:
        name = graph.add("Transpose", name, perm=[0, 2, 1])
    return _like(x, name)


def _even_lrn(graph: OnnxGraph, layer: LRN, name: str, shape: Shape, last: str) -> str:
    """LRN with a window of an even number of channels, which ONNX Runtime's operator refuses.

    An average pooling along the channels of the squares does the same.
    """
    before, after = (layer.window - 1) // 2, layer.window // 2
    square = graph.add("Mul", (name, name), "square")
    flat = graph.constant(np.array([0, 1, shape[-1], -1], np.int64), "flat")
    sides = (*shape[:-1], 1, 1)[:2]
    back = graph.constant(np.array([0, shape[-1], *sides], np.int64), "shape")
    mean = graph.add("Reshape", (square, flat), "rows")
    mean = graph.add(
        "AveragePool", mean, "means", kernel_shape=[layer.window, 1], count_include_pad=1,
        pads=[before, 0, after, 0],
    )  # fmt: skip
    mean = graph.add("Reshape", (mean, back), "mean")
    weight, bias, exponent = (
        graph.constant(np.float32(value), part)
        for value, part in ((layer.alpha, "alpha"), (layer.bias, "bias"), (layer.beta, "exponent"))
    )
    total = graph.add("Add", (graph.add("Mul", (mean, weight), "weighted"), bias), "sum")
    return graph.add("Div", (name, graph.add("Pow", (total, exponent), "scale")), last)


# --- shapes ------------------------------------------------------------------------------------


def _dropout(graph: OnnxGraph, layer: Dropout, inputs: Sequence[Value], shape: Shape) -> Value:
    return inputs[0]  # a prediction leaves nothing out


def _flatten(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    if len(x.shape) == 1:
        return x
    order = channels_first(x.shape) if len(x.shape) == 3 else None
    return Value(graph.add("Flatten", x.name, axis=1), shape, order=order)


def _reshape(graph: OnnxGraph, layer: Reshape, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    if len(shape) == 1 and len(x.shape) in (1, 3):
        return _flatten(graph, layer, inputs, shape)
    if len(shape) == 3 and len(x.shape) == 1 and same_order(x.order, channels_first(shape)):
        last = False
        target = graph.constant(np.array([-1, *shape[2:], *shape[:2]], np.int64), "shape")
    else:
        x, last = graph.plain(x), len(shape) == 3
        target = graph.constant(np.array([-1, *shape], np.int64), "shape")
    return Value(graph.add("Reshape", (x.name, target)), shape, channels_last=last)


def _permute(graph: OnnxGraph, layer: Permute, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    if len(shape) == 1:
        return x
    order = [0, *layer.dims]
    if len(shape) == 3:  # both with channels first
        order = [0, *(_HERE[order[axis]] for axis in (3, 1, 2))]
    return Value(graph.add("Transpose", x.name, perm=order), shape)


def _padding(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    top, bottom, left, right = pads(layer.padding, (1, 1), (1, 1), (1, 1))
    sides = graph.constant(np.array([0, 0, top, left, 0, 0, bottom, right], np.int64), "pads")
    return Value(graph.add("Pad", (x.name, sides)), shape)


def _cropping(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    top, _, left, _ = four_sides("cropping", layer.cropping, "four sides")
    limits = ((top, left), (top + shape[0], left + shape[1]), (2, 3))
    names = zip(limits, ("starts", "ends", "axes"), strict=True)
    operands = [graph.constant(np.array(numbers, np.int64), part) for numbers, part in names]
    return Value(graph.add("Slice", (x.name, *operands)), shape)


def _depth_to_space(
    graph: OnnxGraph, layer: DepthToSpace, inputs: Sequence[Value], shape: Shape
) -> Value:
    (x,) = inputs
    y = graph.add("DepthToSpace", x.name, blocksize=layer.block_size, mode=layer.order)
    return Value(y, shape)


def _resize(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    (x,) = inputs
    method, coordinates, rounding = layer._way()
    factors = [1.0, 1.0, *map(_factor, x.shape[:2], shape[:2])]
    y = graph.add(
        "Resize",
        (x.name, "", graph.constant(np.array(factors, np.float32), "factors")),
        mode="linear" if method == "bilinear" else "nearest",
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding if method == "nearest" else None,
    )
    return Value(y, shape)


def _factor(size: int, new_size: int) -> float:
    """The factor in float32 of which ``floor(size * factor)`` is the new size.

    Some programs compute the product in float32 and others in float64.
    """
    factor = np.float32(new_size / size)
    while min(int(np.float32(size) * factor), int(size * float(factor))) < new_size:
        factor = np.nextafter(factor, np.float32(np.inf))
    return float(factor)


# --- several inputs ----------------------------------------------------------------------------


def _in_one_order(graph: OnnxGraph, inputs: Sequence[Value], shape: Shape) -> list[Value]:
    """Vectors in one order of features; what broadcasts along the features has none."""
    full = [value for value in inputs if value.shape == shape]
    if all(same_order(value.order, full[0].order) for value in full):
        return [*inputs]
    return [graph.plain(value) for value in inputs]


def _elementwise(operator: str) -> Writer:
    def write(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
        values = _in_one_order(graph, inputs, shape)
        name = values[0].name
        for i, value in enumerate(values[1:], 2):
            part = "" if i == len(values) else f"first {i}"
            name = graph.add(operator, (name, value.name), part)
        return Value(name, shape, order=_order_of(values, shape))

    return write


def _order_of(values: Sequence[Value], shape: Shape) -> Any:
    return next((value.order for value in values if value.shape == shape), None)


def _average(graph: OnnxGraph, layer: Any, inputs: Sequence[Value], shape: Shape) -> Value:
    values = _in_one_order(graph, inputs, shape)
    name = values[0].name
    for i, value in enumerate(values[1:], 2):
        name = graph.add("Add", (name, value.name), f"first {i}")
    share = graph.constant(np.float32(1 / len(values)), "share")
    return Value(graph.add("Mul", (name, share)), shape, order=_order_of(values, shape))


def _concatenate(
    graph: OnnxGraph, layer: Concatenate, inputs: Sequence[Value], shape: Shape
) -> Value:
    axis = layer.axis % (len(shape) + 1)
    names = [value.name for value in inputs]
    if len(shape) == 3:
        return Value(graph.add("Concat", names, axis=_HERE[axis]), shape)
    order = None
    if len(shape) == 1:
        sizes = [value.shape[0] for value in inputs]
        order = joined_orders([value.order for value in inputs], sizes)
    return Value(graph.add("Concat", names, axis=axis), shape, order=order)


def _residual(graph: OnnxGraph, layer: Residual, inputs: Sequence[Value], shape: Shape) -> Value:
    outer, owner, ends = graph.layer, graph.owner, list[Value]()
    for path, layers in (("layers", layer.layers), ("shortcut", layer.shortcut)):
        value = inputs[0]
        for i, inner in enumerate(layers):
            graph.layer, graph.owner = f"{outer}.{path}.{i}", f"{owner}.{path}.{i}"
            value = write_layer(graph, inner, [value], inner.infer(value.shape))
        ends.append(value)
    graph.layer, graph.owner = outer, owner
    main, other = _in_one_order(graph, [graph.first(end) for end in ends], shape)
    y = graph.add("Add", (main.name, other.name), "sum" if layer.activation else "")
    return _like(main, _relu(graph, y, layer.activation))


def _composite(graph: OnnxGraph, layer: Composite, inputs: Sequence[Value]) -> Value:
    outer, owner = graph.layer, graph.owner
    values, paths = list(inputs), {id(one): path for path, one in layer.inner_layers()}
    for node in layer.connected(layer.input_shape):
        path = paths[id(node.layer)]
        graph.layer, graph.owner = f"{outer}.{path}", f"{owner}.{path}"
        of_node = [values[value] for value in node.inputs]
        shapes = [value.shape for value in of_node]
        shape = node.layer.infer(input_of_call(node.layer, shapes))
        values.append(write_layer(graph, node.layer, of_node, shape))
    graph.layer, graph.owner = outer, owner
    return values[-1]


WRITERS: dict[type[Layer], Writer] = {
    Add: _elementwise("Add"),
    Average: _average,
    AvgPool2D: _avg_pool,
    BatchNorm: _batch_norm,
    Concatenate: _concatenate,
    Conv2D: _convolution,
    Conv2DTranspose: _transposed,
    Cropping2D: _cropping,
    Dense: _dense,
    DepthToSpace: _depth_to_space,
    DepthwiseConv2D: _convolution,
    Dropout: _dropout,
    ELU: _activation("Elu", alpha="alpha"),
    Flatten: _flatten,
    GELU: _gelu,
    GlobalAvgPool2D: _global_pool("GlobalAveragePool"),
    GlobalMaxPool2D: _global_pool("GlobalMaxPool"),
    GroupNorm: _group_norm,
    HardSigmoid: _activation("HardSigmoid", alpha="slope", beta="offset"),
    HardSwish: _activation("HardSwish"),
    LRN: _lrn,
    LayerNorm: _layer_norm,
    LeakyReLU: _activation("LeakyRelu", alpha="slope"),
    MaxPool2D: _max_pool,
    Maximum: _elementwise("Max"),
    MinPool2D: _min_pool,
    Multiply: _elementwise("Mul"),
    PReLU: _prelu,
    Permute: _permute,
    ReLU: _clipped,
    Reshape: _reshape,
    Residual: _residual,
    Resize: _resize,
    SeparableConv2D: _separable,
    Sigmoid: _activation("Sigmoid"),
    Softmax: _softmax,
    Softplus: _activation("Softplus"),
    Subtract: _elementwise("Sub"),
    Swish: _swish,
    Tanh: _activation("Tanh"),
    UpSampling2D: _resize,
    ZeroPadding2D: _padding,
}
"""A function for each class of layers."""


def write_layer(graph: OnnxGraph, layer: Layer, inputs: Sequence[Value], shape: Shape) -> Value:
    """Write the nodes of a layer, and return its output.

    Raises ``ValueError`` for a layer of a user's own without a method ``to_onnx``.
    """
    values = [graph.first(value) for value in inputs]
    method = getattr(type(layer), "to_onnx", None)
    if method is not None:
        names = [graph.plain(v).name if v.order is not None else v.name for v in values]
        name = method(layer, graph, names if layer.takes_several else names[0])
        if not isinstance(name, str):
            raise TypeError(
                f"to_onnx of {type(layer).__name__} must return the name of its output, got "
                f"{quoted(name)}"
            )
        return Value(name, shape)
    if isinstance(layer, Composite):
        return _composite(graph, layer, values)
    writer = WRITERS.get(type(layer))
    if writer is None:
        raise ValueError(
            f"{graph.layer}, {layer!r}, is a layer of your own, which ONNX does not know; define "
            f"to_onnx(self, graph, x) in its class, as docs/onnx-export.md shows"
        )
    return writer(graph, layer, values, shape)
