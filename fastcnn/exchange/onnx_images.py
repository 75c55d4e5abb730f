"""Layers for convolutions, poolings, normalisations and resizing of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastcnn.exchange.onnx_functions import Array, OnnxNode, resizing, windows
from fastcnn.exchange.onnx_functions.nodes import as_axes, as_axis
from fastcnn.exchange.onnx_functions.reductions import reduced_axes
from fastcnn.exchange.onnx_shapes import in_shape
from fastcnn.exchange.onnx_tracing import NotBatched, Trace, Value, emits, known, needs
from fastcnn.nn.layers import (
    LRN,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Conv2DTranspose,
    DepthwiseConv2D,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool2D,
    Resize,
    Tensor,
    ZeroPadding2D,
)

Values = Sequence[Value | None]
Sides = tuple[tuple[int, int], tuple[int, int]]


def _leading(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """An operator on images of other ranks, as an operation; the batch must be its first axis."""
    x = needs(inputs[0])
    if any(one is not None and one.constant is None for one in inputs[1:]):
        raise NotBatched
    if x.batch != 0:
        raise NotBatched
    return trace.operation(node, inputs, batch=0)


def _two_spatial(node: OnnxNode, x: Value, *filters: Array | None) -> tuple[OnnxNode, list[Any]]:
    """A node on images (N, C, W) as one on images (N, C, 1, W), with its filters."""
    attributes = dict(node.attributes)
    for name in ("kernel_shape", "strides", "dilations", "output_padding", "output_shape"):
        values = node.integers(name)
        if values is not None:
            first = 0 if name == "output_padding" else 1
            attributes[name] = [first, *values[-1:]]
    pads = node.integers("pads")
    if pads is not None and len(pads) == 2:
        attributes["pads"] = [0, pads[0], 0, pads[1]]
    wide = replace_node(node, attributes)
    return wide, [None if one is None else one.reshape(*one.shape[:2], 1, -1) for one in filters]


def replace_node(node: OnnxNode, attributes: dict[str, Any]) -> OnnxNode:
    """The node with other attributes."""
    return OnnxNode(node.operator, node.name, node.inputs, node.outputs, attributes, node.opset)


def _pair(sides: tuple[int, ...]) -> tuple[int, int]:
    """The numbers of two spatial axes."""
    return sides[0], sides[1]


def _padding(g: windows.Windows) -> Any:
    """The padding of a layer."""
    pads = ((g.before[0], g.after[0]), (g.before[1], g.after[1]))
    if not any(map(any, pads)):
        return "valid"
    return pads[0][0] if len({*pads[0], *pads[1]}) == 1 else pads


@emits("Conv")
def conv(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """Convolution, as Conv2D or DepthwiseConv2D."""
    x, w, b = needs(inputs[0]), known(inputs[1]), known(inputs[2] if len(inputs) > 2 else None)
    lacks_bias = len(inputs) > 2 and inputs[2] is not None and b is None
    if w is None or lacks_bias or not x.is_float or 0 in x.shape or x.rank not in (3, 4):
        return _leading(trace, node, inputs)
    kernel = windows.kernel_shape(node, x.shape, w.shape)
    groups, oc = node.integer("group", 1), w.shape[0]
    windows.check_groups(node, groups, x.shape[1], w.shape[1], oc)
    windows.check_bias(node, b, oc)
    if x.rank == 3:
        wide, (filters,) = _two_spatial(node, x, w)
        image = in_shape(trace, x, (*x.shape[:2], 1, x.shape[2]))
        result = _conv2d(trace, wide, image, filters, b)
        return [in_shape(trace, result, (*result.shape[:2], result.shape[3]))]
    del kernel
    return [_conv2d(trace, node, x, w, b)]


def _conv2d(trace: Trace, node: OnnxNode, x: Value, w: Array, b: Array | None) -> Value:
    image = trace.image(x)
    if image is None or image.tensor is None:
        raise NotBatched
    g = windows.windows_of(node, x.shape, w.shape[2:])
    groups, oc, tensor = node.integer("group", 1), w.shape[0], image.tensor
    padding: Any = _padding(g)
    auto = node.text("auto_pad", "NOTSET")
    if auto == "SAME_UPPER":
        padding = "same"
    elif auto == "SAME_LOWER" and padding != "valid":
        tensor = trace.call(ZeroPadding2D(padding), tensor)
        padding = "valid"
    options: dict[str, Any] = {
        "strides": g.strides, "padding": padding, "dilation": g.dilations,
        "use_bias": b is not None,
    }  # fmt: skip
    depthwise = groups > 1 and groups == x.shape[1]

    def make() -> Conv2D | DepthwiseConv2D:
        if depthwise:
            return DepthwiseConv2D(_pair(g.kernel), depth_multiplier=oc // groups, **options)
        return Conv2D(oc, _pair(g.kernel), groups=groups, **options)

    filters = w.transpose(2, 3, 1, 0)
    layer = trace.store.layer(node.outputs[0], make, tensor.shape, w=filters, b=b)
    shape = (x.shape[0], oc, *g.out)
    return Value(shape, x.dtype, None, trace.call(layer, tensor), (2, 3, 1), 0)


@emits("ConvTranspose")
def conv_transpose(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """Transposed convolution, as Conv2DTranspose."""
    x, w, b = needs(inputs[0]), known(inputs[1]), known(inputs[2] if len(inputs) > 2 else None)
    lacks_bias = len(inputs) > 2 and inputs[2] is not None and b is None
    if w is None or lacks_bias or not x.is_float or 0 in x.shape or x.rank not in (3, 4):
        return _leading(trace, node, inputs)
    windows.kernel_shape(node, x.shape, w.shape)
    if x.rank == 3:
        wide, (filters,) = _two_spatial(node, x, w)
        image = in_shape(trace, x, (*x.shape[:2], 1, x.shape[2]))
        result = _transposed(trace, wide, image, filters, b)
        if result is not None:
            return [in_shape(trace, result, (*result.shape[:2], result.shape[3]))]
        return _leading(trace, node, inputs)
    result = _transposed(trace, node, x, w, b)
    return _leading(trace, node, inputs) if result is None else [result]


def _transposed(trace: Trace, node: OnnxNode, x: Value, w: Array, b: Array | None) -> Value | None:
    g, groups = windows.transposed_of(node, x.shape, w.shape[2:]), node.integer("group", 1)
    oc = w.shape[1] * groups
    windows.check_groups(node, groups, oc, w.shape[1], x.shape[1])
    windows.check_bias(node, b, oc)
    if x.shape[1] != w.shape[0]:
        raise node.error(f"filters of shape {w.shape} do not fit the input of shape {x.shape}")
    image = trace.image(x)
    if image is None or image.tensor is None:
        raise NotBatched

    def make() -> Conv2DTranspose:
        return Conv2DTranspose(
            oc, _pair(g.kernel), strides=_pair(g.strides),
            padding=((g.before[0], g.after[0]), (g.before[1], g.after[1])),
            output_padding=_pair(g.extra) if any(g.extra) else None,
            dilation=_pair(g.dilations), groups=groups, use_bias=b is not None,
        )  # fmt: skip

    try:
        fits = make().infer(image.tensor.shape) == (*g.out, oc)
    except ValueError:
        fits = False
    if not fits:
        return None
    filters = w.transpose(2, 3, 1, 0)
    layer = trace.store.layer(node.outputs[0], make, image.tensor.shape, w=filters, b=b)
    shape = (x.shape[0], oc, *g.out)
    return Value(shape, x.dtype, None, trace.call(layer, image.tensor), (2, 3, 1), 0)


@emits("MaxPool", "AveragePool")
def pool(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """Pooling over windows, as MaxPool2D or AvgPool2D where these compute it."""
    x = needs(inputs[0])
    indices = len(node.outputs) > 1 and node.outputs[1] and trace.uses[node.outputs[1]]
    if indices and x.batch is not None and (x.shape[0] > 1 or not trace.single):
        raise NotBatched  # indices count the samples too
    if indices:
        return trace.operation(node, inputs)
    if not x.is_float or x.rank not in (3, 4) or 0 in x.shape:
        return _leading(trace, node, inputs)
    narrow, image_value = x.rank == 3, x
    if narrow:
        node, _ = _two_spatial(node, x)
        image_value = in_shape(trace, x, (*x.shape[:2], 1, x.shape[2]))
    g = windows.pool_windows(node, image_value.shape)
    image = trace.image(image_value)
    if image is None or image.tensor is None:
        raise NotBatched
    tensor = _pooled(trace, node, g, image.tensor)
    if tensor is None:
        return (
            _leading(trace, node, [image_value]) if not narrow else _leading(trace, node, [image])
        )
    result = replace(image, shape=(*image.shape[:2], *g.out), tensor=tensor)
    return [in_shape(trace, result, (*result.shape[:2], result.shape[3])) if narrow else result]


def _pooled(trace: Trace, node: OnnxNode, g: windows.Windows, tensor: Tensor) -> Tensor | None:
    if any(d > 1 and k > 1 for d, k in zip(g.dilations, g.kernel, strict=True)):
        return None
    excess = g.excess
    before, after = list(g.before), [a + e for a, e in zip(g.after, excess, strict=True)]
    averages = node.operator == "AveragePool"
    if averages and node.integer("count_include_pad", 0) and any((*g.before, *g.after)):
        margins: Sides = ((g.before[0], g.after[0]), (g.before[1], g.after[1]))
        if any(e >= k for e, k in zip(excess, g.kernel, strict=True)):
            return None
        tensor = trace.call(ZeroPadding2D(margins), tensor)
        before, after = [0, 0], list(excess)
    if any(p >= k for p, k in zip((*before, *after), g.kernel * 2, strict=True)):
        return None
    pads = ((before[0], after[0]), (before[1], after[1]))
    padding: Any = pads if any(map(any, pads)) else "valid"
    kind = AvgPool2D if averages else MaxPool2D
    strides = None if g.strides == g.kernel else _pair(g.strides)
    layer = kind(_pair(g.kernel), strides=strides, padding=padding)
    if layer.infer(tensor.shape)[:2] != g.out:
        return None
    return trace.call(layer, tensor)


@emits("GlobalAveragePool", "GlobalMaxPool")
def global_pool(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """Pooling over the whole image."""
    x = needs(inputs[0])
    if not x.is_float or x.rank not in (3, 4) or 0 in x.shape:
        return _leading(trace, node, inputs)
    image = x if x.rank == 4 else in_shape(trace, x, (*x.shape[:2], 1, x.shape[2]))
    pooled = _over_image(trace, image, node.operator == "GlobalMaxPool")
    return [in_shape(trace, pooled, (*x.shape[:2], *[1] * (x.rank - 2)))]


def _over_image(trace: Trace, x: Value, largest: bool) -> Value:
    image = trace.image(x)
    if image is None or image.tensor is None:
        raise NotBatched
    layer: Layer = GlobalMaxPool2D() if largest else GlobalAvgPool2D()
    tensor = trace.call(layer, image.tensor)
    return Value(x.shape[:2], x.dtype, None, tensor, (1,), 0)


@emits("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceProd", "ReduceL2")
def reduce_(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """A reduction, as a pooling over the image where it is one."""
    x = trace.plain(needs(inputs[0]))
    axes_input = inputs[1] if len(inputs) > 1 else None
    if axes_input is not None and axes_input.constant is None:
        return None
    over = reduced_axes(node, x.rank, known(axes_input))
    if not over:
        return [x]
    shape_with_ones = tuple(1 if i in over else side for i, side in enumerate(x.shape))
    shape = shape_with_ones
    if not node.integer("keepdims", 1):
        shape = tuple(side for i, side in enumerate(x.shape) if i not in over)
    if x.batch in over:
        raise NotBatched
    pools = node.operator in ("ReduceMean", "ReduceMax") and x.rank == 4 and set(over) == {2, 3}
    if pools and x.batch == 0 and x.is_float and 0 not in x.shape:
        pooled = _over_image(trace, x, node.operator == "ReduceMax")
        return [in_shape(trace, pooled, shape)]
    offset = 0 if x.batch is None else 1
    axes = [x.place(axis) + offset for axis in over]
    old = replace_node(node, {"axes": axes, "keepdims": 1})
    summing = OnnxNode(old.operator, node.name, ("x",), ("y",), old.attributes, 12)
    trace.uses["y"] += 1
    (result,) = trace.operation(summing, [x], batch=x.batch, free_layout=True)
    return [in_shape(trace, replace(result, shape=shape_with_ones), shape)]


@emits("BatchNormalization")
def batch_normalization(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """BatchNorm over the channels."""
    x = trace.plain(needs(inputs[0]))
    arrays = [known(one) for one in inputs[1:]]
    if node.integer("training_mode", 0):
        raise NotBatched
    if len(arrays) != 4 or x.rank < 2 or x.batch == 1:
        raise NotBatched
    if any(one is None for one in arrays) or not x.is_float or 0 in x.shape:
        return _leading(trace, node, inputs)
    if any(one is not None and one.shape != (x.shape[1],) for one in arrays):
        raise node.error(f"scale, bias, mean and variance must be vectors of {x.shape[1]}")
    other_axes = tuple(i for i in x.axes if i != 1)
    value = trace.laid_out(x, (*other_axes, 1)) if x.rank != 4 or x.batch != 0 else trace.image(x)
    assert value is not None
    assert value.tensor is not None
    epsilon = node.number("epsilon", 1e-5)
    momentum = min(max(node.number("momentum", 0.9), 0.0), 0.999999)
    layer = trace.store.layer(
        node.outputs[0], lambda: BatchNorm(momentum, epsilon), value.tensor.shape,
        **dict(zip(("gamma", "beta", "mean", "variance"), arrays, strict=True)),
    )  # fmt: skip
    return [replace(value, tensor=trace.call(layer, value.tensor))]


@emits("LayerNormalization")
def layer_normalization(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """LayerNorm over the last axes."""
    x, scale = trace.plain(needs(inputs[0])), known(inputs[1])
    bias = known(inputs[2]) if len(inputs) > 2 else None
    axis = as_axis(node, node.integer("axis", -1), x.rank)
    over = tuple(range(axis, x.rank))
    if x.batch is not None and (
        x.batch == axis or (x.batch in over and x.batch != axis and not node.integer("only", 0))
    ):
        raise NotBatched
    if node.integer("only", 0) and axis < x.rank - 1:
        return None if x.batch is None else trace.operation(node, inputs, batch=x.batch)
    has_more_outputs = any(name and trace.uses[name] for name in node.outputs[1:])
    lacks_bias = len(inputs) > 2 and inputs[2] is not None and bias is None
    if scale is None or lacks_bias or has_more_outputs or not x.is_float or 0 in x.shape:
        return None if x.batch is None else trace.operation(node, inputs, batch=x.batch)
    row = x.shape[axis:]
    other_axes = tuple(i for i in x.axes if i not in over)
    value = trace.laid_out(x, (*other_axes, *over))
    assert value.tensor is not None
    axes: Any = -1 if len(over) == 1 else tuple(range(-len(over), 0))
    try:
        gamma = np.broadcast_to(scale, row)
        beta = None if bias is None else np.broadcast_to(bias, row)
    except ValueError:
        raise node.error(f"scale and bias must have the shape {row}") from None
    epsilon = node.number("epsilon", 1e-5)
    layer = trace.store.layer(
        node.outputs[0], lambda: LayerNorm(axes, epsilon, center=beta is not None),
        value.tensor.shape, gamma=gamma, beta=beta,
    )  # fmt: skip
    return [replace(value, tensor=trace.call(layer, value.tensor))]


@emits("InstanceNormalization")
def instance_normalization(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """GroupNorm with a group for each channel."""
    x, scale, bias = needs(inputs[0]), known(inputs[1]), known(inputs[2])
    image = trace.image(x) if x.rank == 4 else None
    if image is None or scale is None or bias is None or not x.is_float or 0 in x.shape:
        return _leading(trace, node, inputs)
    if scale.shape != (x.shape[1],) or bias.shape != scale.shape:
        raise node.error(f"scale and bias must be vectors of {x.shape[1]}")
    assert image.tensor is not None
    epsilon = node.number("epsilon", 1e-5)
    layer = trace.store.layer(
        node.outputs[0], lambda: GroupNorm(x.shape[1], epsilon), image.tensor.shape,
        gamma=scale, beta=bias,
    )  # fmt: skip
    return [replace(image, tensor=trace.call(layer, image.tensor))]


@emits("LRN")
def lrn(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """Local response normalisation, as LRN for windows with a middle."""
    x, size = needs(inputs[0]), node.integer("size", 0)
    image = trace.image(x) if x.rank == 4 else None
    if image is None or size < 1 or size % 2 == 0 or not x.is_float or 0 in x.shape:
        return _leading(trace, node, inputs)
    assert image.tensor is not None
    layer = LRN(
        size, node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0)
    )
    return [replace(image, tensor=trace.call(layer, image.tensor))]


@emits("Resize", "Upsample")
def resize(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """Images in another size, as Resize where it computes the same."""
    x = needs(inputs[0])
    if any(one is not None and one.constant is None for one in inputs[1:]):
        return None
    roi, scales, sizes = ([known(one) for one in inputs[1:]] + [None] * 3)[:3]
    if node.operator == "Upsample" or node.opset < 11:
        roi, scales = None, roi
    scalings = resizing.scalings_of(node, x.shape, roi, scales, sizes)
    if x.batch is not None and scalings[x.batch].after != scalings[x.batch].before:
        raise NotBatched
    shape = tuple(s.after for s in scalings)
    layer = _resize_layer(node, x, scalings)
    if layer is None:
        if x.batch is None:
            return None
        return trace.operation(node, inputs, batch=x.batch)
    image = trace.image(x)
    if image is None or image.tensor is None:
        raise NotBatched
    return [replace(image, shape=shape, tensor=trace.call(layer, image.tensor))]


def _resize_layer(node: OnnxNode, x: Value, scalings: list[resizing.Scaling]) -> Layer | None:
    if x.rank != 4 or not x.is_float or 0 in x.shape:
        return None
    if any(s.after != s.before for s in scalings[:2]):
        return None
    mode, coordinates = resizing.resize_way(node)
    exact = all(
        s.after >= 1 and abs(s.before * s.scale - s.after) < 1e-4 and s.region == (0.0, 1.0)
        for s in scalings
    )
    after = [s.after for s in scalings[2:]]
    if not exact or node.integer("antialias", 0) or node.integer("exclude_outside", 0):
        return None
    if coordinates in ("pytorch_half_pixel", "half_pixel_symmetric") and min(after) > 1:
        coordinates = "half_pixel"
    if mode == "cubic" or coordinates not in ("half_pixel", "align_corners", "asymmetric"):
        return None
    rounding = node.text("nearest_mode", "round_prefer_floor", resizing.ROUNDINGS)
    if node.operator == "Upsample" or node.opset < 11:
        rounding = "floor"
    way: Any = "nearest" if mode == "nearest" else "bilinear"
    kind: Any = coordinates
    return Resize(after[0], after[1], way, kind, rounding)  # type: ignore[arg-type]


def spatial(axes: Sequence[int], node: OnnxNode, rank: int) -> bool:
    """Whether axes are the last two of images."""
    return rank == 4 and set(as_axes(node, axes, rank)) == {2, 3}
