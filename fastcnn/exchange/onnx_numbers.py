"""Layers for the operators that compute number by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fastcnn.exchange.onnx_functions import Array, OnnxNode
from fastcnn.exchange.onnx_functions.elementwise import DTYPES, dtype_of
from fastcnn.exchange.onnx_tracing import (
    NotBatched,
    Trace,
    Value,
    constant,
    emits,
    known,
    needs,
)
from fastcnn.nn.layers import (
    ELU,
    GELU,
    Add,
    DepthwiseConv2D,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    Maximum,
    Multiply,
    PReLU,
    ReLU,
    Sigmoid,
    Softplus,
    Subtract,
    Swish,
    Tanh,
)

Values = Sequence[Value | None]


def _elu(node: OnnxNode) -> Layer | None:
    alpha = node.number("alpha", 1.0)
    return ELU(alpha) if alpha >= 0 else None


def _hard_sigmoid(node: OnnxNode) -> Layer | None:
    alpha = node.number("alpha", 0.2)
    return HardSigmoid(alpha, node.number("beta", 0.5)) if alpha >= 0 else None


def _leaky(node: OnnxNode) -> Layer | None:
    alpha = node.number("alpha", 0.01)
    return LeakyReLU(alpha) if 0 <= alpha <= 1 else None


_LAYERS: dict[str, Callable[[OnnxNode], Layer | None]] = {
    "Relu": lambda node: ReLU(),
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "Sigmoid": lambda node: Sigmoid(),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node: HardSwish(),
    "Tanh": lambda node: Tanh(),
    "Softplus": lambda node: Softplus(),
    "Gelu": lambda node: GELU(node.text("approximate", "none") == "tanh"),
    "Swish": lambda node: Swish() if node.number("alpha", 1.0) == 1 else None,
}
_FORMULAS = (
    "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Floor", "Ceil", "Round", "Sign",
    "Not", "Sin", "Cos", "Mish",
)  # fmt: skip


@emits(*_LAYERS, *_FORMULAS)
def formula(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """A formula of one number: a layer for floats where there is one."""
    x = needs(inputs[0])
    make = _LAYERS.get(node.operator)
    layer = make(node) if make is not None and x.is_float and 0 not in x.shape else None
    return [_same(trace, node, x, layer, inputs[1:])]


def _same(
    trace: Trace, node: OnnxNode, x: Value, layer: Layer | None, others: Values = ()
) -> Value:
    """The value after a layer or an operation that keeps its shape and layout."""
    if layer is None:
        x = trace.plain(x)
        return trace.operation(node, [x, *others], batch=x.batch, free_layout=True)[0]
    assert x.tensor is not None
    if not x.tensor.shape:
        return trace.operation(node, [x, *others], batch=x.batch, free_layout=True)[0]
    return replace(x, tensor=trace.call(layer, x.tensor))


@emits("Clip")
def clip(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """ReLUs, where 0 lies within the limits."""
    x = needs(inputs[0])
    if any(one is not None and one.constant is None for one in inputs[1:]):
        return None
    arrays = [known(one) for one in inputs[1:]] + [None] * 2
    low = None if arrays[0] is None else float(arrays[0].reshape(-1)[0])
    high = None if arrays[1] is None else float(arrays[1].reshape(-1)[0])
    if node.opset < 11:
        low = node.number("min", 0.0) if "min" in node.attributes else None
        high = node.number("max", 0.0) if "max" in node.attributes else None
    result = _clipped(trace, node, x, low, high)
    return [_same(trace, node, x, None, inputs[1:])] if result is None else [result]


def _clipped(
    trace: Trace, node: OnnxNode, x: Value, low: float | None, high: float | None
) -> Value | None:
    """A value within limits, as ReLUs; None where 0 is not within the limits, or they are NaN.

    With a lower limit below 0 the result is ``min(max(x, 0), high) - min(max(-x, 0), -low)``, which
    is exact, because one of the two is 0.
    """
    largest = float(np.finfo(np.float32).max)
    low = None if low is not None and low <= -largest else low
    high = None if high is not None and high >= largest else high
    if (low is None and high is None) or not x.is_float or 0 in x.shape:
        return None
    if not ((low is None or low <= 0) and (high is None or high > 0)):
        return None
    assert x.tensor is not None
    relu = ReLU() if high is None else ReLU(high)
    if low == 0:
        return replace(x, tensor=trace.call(relu, x.tensor))
    x = trace.plain(x)
    assert x.tensor is not None
    upper, channels = trace.call(relu, x.tensor), x.tensor.shape[-1]
    negative = _scaled(trace, node, x, np.full(channels, -1.0), np.zeros(channels), trains=False)
    assert negative is not None
    assert negative.tensor is not None
    lower = trace.call(ReLU() if low is None else ReLU(-low), negative.tensor)
    return replace(x, tensor=trace.call(Subtract(), upper, lower))


@emits("Cast", "CastLike")
def cast(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """Nothing where the model's type holds the numbers of both types."""
    x = needs(inputs[0])
    if node.operator == "CastLike":
        kind = needs(inputs[1]).dtype
        number = next((one for one, dtype in DTYPES.items() if dtype == kind), 16)
        node = OnnxNode("Cast", node.name, ("x",), node.outputs, {"to": number}, node.opset)
    else:
        kind = dtype_of(node, node.integer("to", 0))
    wide = kind in (np.float32, np.float64)
    if x.dtype == kind or (x.is_float and wide and kind.itemsize <= trace.store.dtype.itemsize):
        return [replace(x, dtype=kind)]
    if x.is_float and kind == np.float64 and x.dtype != np.float64:
        return [replace(x, dtype=kind)]  # as exact as the model's type allows
    return [_same(trace, node, x, None)]


def aligned(trace: Trace, node: OnnxNode, values: Sequence[Value]) -> list[Value]:
    """Values as they broadcast: of one rank, with axes in one order and the batch at one place.

    Constants get the order of the tensors' axes, with the axis of the batch in front.
    """
    rank = max(one.rank for one in values)
    tensors = [trace.plain(one) for one in values if one.constant is None]
    main = max(tensors, key=lambda one: (one.rank, np.prod(one.shape, dtype=object)))
    shift = rank - main.rank
    batch = None if main.batch is None else main.batch + shift
    axes = (*range(shift), *(axis + shift for axis in main.axes))
    if batch is None:
        axes = tuple(axes)
    stored = axes if batch is None else (batch, *axes)
    result = []
    for one in values:
        if one.constant is not None:
            array = one.constant.reshape((1,) * (rank - one.rank) + one.shape)
            if batch is not None and array.shape[batch] != 1:
                first = array.take([0], batch)
                if not np.array_equal(np.broadcast_to(first, array.shape), array):
                    raise NotBatched
                array = first
            lying = array.transpose(stored)
            result.append(Value(array.shape, one.dtype, lying))
            continue
        value = trace.plain(one)
        leading_axes = rank - value.rank
        if (None if value.batch is None else value.batch + leading_axes) != batch:
            raise NotBatched
        order = tuple(axis - leading_axes for axis in axes if axis >= leading_axes)
        value = trace.laid_out(value, order)
        assert value.tensor is not None
        shape = (1,) * leading_axes + value.shape
        tensor = trace.shaped(value.tensor, tuple(shape[axis] for axis in axes))
        result.append(Value(shape, value.dtype, None, tensor, axes, batch))
    return result


_MERGES: dict[str, type[Layer]] = {
    "Add": Add, "Sum": Add, "Sub": Subtract, "Mul": Multiply, "Max": Maximum,
}  # fmt: skip


@emits(
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Sum", "Mean", "Min", "Max", "Where", "Equal", "Less",
    "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor",
)  # fmt: skip
def broadcast(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """An operator on values that broadcast."""
    values = aligned(trace, node, [needs(one) for one in inputs])
    try:
        shape = np.broadcast_shapes(*(one.shape for one in values))
    except ValueError:
        raise node.error(
            f"inputs of shapes {', '.join(str(one.shape) for one in values)} do not fit each other"
        ) from None
    main = next(one for one in values if one.constant is None)
    floats = all(one.is_float for one in values) and 0 not in shape
    if floats and len({one.dtype for one in values}) > 1 and node.operator != "Pow":
        raise node.error(f"inputs must have one type, got {[str(one.dtype) for one in values]}")
    if len(values) == 1 and node.operator in ("Sum", "Mean", "Min", "Max"):
        return values
    tensors = [one.tensor for one in values if one.tensor is not None]
    kind = _MERGES.get(node.operator)
    if kind is not None and floats and len(tensors) == len(values) and tensors[0].shape:
        tensor = trace.call(kind(), *tensors)
        return [Value(shape, main.dtype, None, tensor, main.axes, main.batch)]
    numbers = [one.constant for one in values if one.constant is not None]
    is_limit = len(values) == 2 and len(numbers) == 1 and numbers[0].size == 1
    if floats and node.operator in ("Min", "Max") and is_limit and main.shape == shape:
        limit = float(numbers[0].reshape(-1)[0])
        limits = (limit, None) if node.operator == "Max" else (None, limit)
        result = _clipped(trace, node, main, *limits)
        if result is not None:
            return [result]
    if floats and node.operator in ("Add", "Sub", "Mul", "Div") and len(tensors) == 1:
        result = _affine(trace, node, values, shape)
        if result is not None:
            return [result]
    (output,) = trace.operation(node, values, batch=main.batch, free_layout=True)
    return [output]


def _affine(
    trace: Trace, node: OnnxNode, values: list[Value], shape: tuple[int, ...]
) -> Value | None:
    """A number or a number for each channel, multiplied or added: filters of one pixel."""
    x = next(one for one in values if one.constant is None)
    array = next(one.constant for one in values if one.constant is not None)
    first = values[0].constant is None
    assert x.tensor is not None
    if x.shape != shape or not x.tensor.shape or array.size not in (1, *array.shape[-1:]):
        return None
    if node.operator == "Div" and (not first or not np.all(array)):
        return None
    channels = x.tensor.shape[-1]
    numbers = np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float64)
    scale, offset = np.ones(channels), np.zeros(channels)
    if node.operator == "Mul":
        scale = numbers
    elif node.operator == "Div":
        scale = 1 / numbers
    elif node.operator == "Add":
        offset = numbers
    else:
        scale, offset = (scale, -numbers) if first else (-scale, numbers)
    return _scaled(trace, node, x, scale, offset)


@emits("ScaleShift")
def scale_shift(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """A number multiplied, and one added."""
    x, factor, shift = needs(inputs[0]), known(inputs[1]), known(inputs[2])
    x = trace.plain(x)
    result = None
    if x.is_float and factor is not None and shift is not None and x.tensor is not None:
        row = x.tensor.shape[-1:]
        if 0 not in x.shape:
            result = _scaled(
                trace,
                node,
                x,
                np.full(row, factor.reshape(-1)[0]),
                np.full(row, shift.reshape(-1)[0]),
            )
    if result is None:
        result = trace.operation(node, [x, *inputs[1:]], batch=x.batch, free_layout=True)[0]
    return [result]


def _scaled(
    trace: Trace, node: OnnxNode, x: Value, scale: Array, offset: Array, trains: bool = True
) -> Value | None:
    """A value times a number for each channel, plus one; training may move these numbers."""
    assert x.tensor is not None
    channels = x.tensor.shape[-1]
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        return None
    use_bias = bool(offset.any())
    image = (1, 1, channels) if len(x.tensor.shape) == 1 else as_image(x.tensor.shape)

    def make() -> DepthwiseConv2D:
        layer = DepthwiseConv2D(1, use_bias=use_bias)
        layer.trainable = trains
        return layer

    layer = trace.store.layer(
        node.outputs[0],
        make,
        image,
        w=scale,
        **({"b": offset} if use_bias else {}),
    )
    pixels = trace.call(layer, trace.shaped(x.tensor, image))
    return replace(x, tensor=trace.shaped(pixels, x.tensor.shape))


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A shape as that of an image of the same channels."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return 1, int(np.prod(shape[:-1])), shape[-1]


@emits("PRelu")
def prelu(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """PReLU with a slope for each channel, or a product with slopes of another shape."""
    x, slopes = aligned(trace, node, [needs(one) for one in inputs])
    array = slopes.constant
    if array is not None and x.tensor is not None and x.is_float and x.tensor.shape:
        channels = x.tensor.shape[-1]
        if array.size in (1, *array.shape[-1:]) and 0 not in x.shape:
            layer = trace.store.layer(
                node.outputs[0], PReLU, x.tensor.shape,
                slope=np.broadcast_to(array.reshape(-1), (channels,)),
            )  # fmt: skip
            return [replace(x, tensor=trace.call(layer, x.tensor))]
    return trace.operation(node, [x, slopes], batch=x.batch, free_layout=True)


def filled(array: Array | float) -> Value:
    """A constant value."""
    return constant(np.asarray(array))
