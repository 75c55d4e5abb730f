"""Gradients of ONNX's operators, so that imported nets can be trained further.

A function takes the node, the gradient of the output, the output and the inputs, and returns a
gradient for each input, or None for one that has no gradient.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from math import pi, prod, sqrt

import numpy as np

from fastcnn.exchange.onnx_functions.elementwise import erf
from fastcnn.exchange.onnx_functions.indexing import einsum_terms, places_along, places_of_rows
from fastcnn.exchange.onnx_functions.nodes import FUNCTIONS, Array, OnnxNode, as_axis, summed_to
from fastcnn.exchange.onnx_functions.quantised import along, rounded, summed_along
from fastcnn.exchange.onnx_functions.recurrent import recurrent_gradients
from fastcnn.exchange.onnx_functions.reductions import reduced_axes, softmax_axis

Inputs = tuple[Array | None, ...]
Gradients = Sequence[Array | None]
Gradient = Callable[[OnnxNode, Array, Array, Inputs], Gradients]

GRADIENTS: dict[str, Gradient] = {}
"""The gradient of each operator that has one."""


def _gradient_of(*operators: str) -> Callable[[Gradient], Gradient]:
    def enter(function: Gradient) -> Gradient:
        GRADIENTS.update(dict.fromkeys(operators, function))
        return function

    return enter


def _normal_density(x: Array) -> Array:
    return np.asarray(np.exp(-x * x / 2) / sqrt(2 * pi))


def _gelu_slope(node: OnnxNode, x: Array, y: Array) -> Array:
    if node.text("approximate", "none") == "none":
        return np.asarray(0.5 * (1 + erf(x / sqrt(2))) + x * _normal_density(x))
    inner = sqrt(2 / pi) * (x + 0.044715 * x**3)
    t = np.tanh(inner)
    return np.asarray(0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt(2 / pi) * (1 + 0.134145 * x * x))


def _logistic(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def _swish_slope(node: OnnxNode, x: Array, y: Array) -> Array:
    alpha = node.number("alpha", 1.0)
    s = _logistic(alpha * x)
    return np.asarray(s + alpha * x * s * (1 - s))


def _mish_slope(node: OnnxNode, x: Array, y: Array) -> Array:
    t = np.tanh(np.logaddexp(0, x))
    return np.asarray(t + x * (1 - t * t) * _logistic(x))


def _hard_sigmoid_slope(node: OnnxNode, x: Array, y: Array) -> Array:
    return np.asarray(node.number("alpha", 0.2) * ((y > 0) & (y < 1)))


_SLOPES: dict[str, Callable[[OnnxNode, Array, Array], Array]] = {
    "Exp": lambda node, x, y: y,
    "Log": lambda node, x, y: 1 / x,
    "Sqrt": lambda node, x, y: 0.5 / y,
    "Relu": lambda node, x, y: x > 0,
    "Sigmoid": lambda node, x, y: y * (1 - y),
    "Tanh": lambda node, x, y: 1 - y * y,
    "Erf": lambda node, x, y: 2 / sqrt(pi) * np.exp(-x * x),
    "Abs": lambda node, x, y: np.sign(x),
    "Neg": lambda node, x, y: -np.ones_like(x),
    "Reciprocal": lambda node, x, y: -y * y,
    "Softplus": lambda node, x, y: _logistic(x),
    "Sin": lambda node, x, y: np.cos(x),
    "Cos": lambda node, x, y: -np.sin(x),
    "Identity": lambda node, x, y: np.ones_like(x),
    "Cast": lambda node, x, y: np.ones_like(x),
    "Dropout": lambda node, x, y: np.ones_like(x),
    "LeakyRelu": lambda node, x, y: np.where(x < 0, node.number("alpha", 0.01), 1.0),
    "Elu": lambda node, x, y: np.where(x < 0, y + node.number("alpha", 1.0), 1.0),
    "HardSwish": lambda node, x, y: np.where(np.abs(x) < 3, x / 3 + 0.5, x >= 3),
    "HardSigmoid": _hard_sigmoid_slope,
    "Gelu": _gelu_slope,
    "Swish": _swish_slope,
    "Mish": _mish_slope,
    **dict.fromkeys(("Floor", "Ceil", "Round", "Sign"), lambda node, x, y: np.zeros_like(x)),
}


@_gradient_of(*_SLOPES)
def _of_formula(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    x = inputs[0]
    assert x is not None
    return [dy * _SLOPES[node.operator](node, x, y), *[None] * (len(inputs) - 1)]


@_gradient_of(
    "And", "ArgMax", "ArgMin", "ConstantOfShape", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Not", "Or", "Range", "Shape", "Size", "Xor",
)  # fmt: skip
def _of_steps(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    """None: the outputs are truths or whole numbers, which do not change with small changes."""
    return [None] * len(inputs)


@_gradient_of("RNN", "GRU", "LSTM")
def _of_recurrence(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    return recurrent_gradients(node, dy, _index_of(node, y), inputs)


@_gradient_of("QuantizeLinear")
def _of_quantize(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    """As if numbers were not rounded, within the limits of the integers.

    Source: Y. Bengio, N. Léonard, A. Courville, "Estimating or propagating gradients through
    stochastic neurons for conditional computation", arXiv:1308.3432, the straight-through
    estimator.
    """
    x, scale, *rest = inputs
    assert x is not None
    assert scale is not None
    zero = rest[0] if rest else None
    dx = dy * (rounded(node, x, scale, zero) == y) / along(node, x, scale)
    d_scale = summed_along(node, scale, -dx * x / along(node, x, scale))
    return [dx, d_scale, *[None] * (len(inputs) - 2)]


@_gradient_of("DequantizeLinear")
def _of_dequantize(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    x, scale = inputs[:2]
    assert x is not None
    assert scale is not None
    d_scale = summed_along(node, scale, dy * y / along(node, x, scale))
    return [dy * along(node, x, scale), d_scale, *[None] * (len(inputs) - 2)]


@_gradient_of("CastLike")
def _of_cast_like(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    return [dy, None]


@_gradient_of("ReduceProd")
def _of_product(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    """Each number's gradient is the product of the others, from both ends, so that 0 may occur."""
    x, axes = inputs[0], inputs[1] if len(inputs) > 1 else None
    assert x is not None
    over = reduced_axes(node, x.ndim, axes)
    other_axes = tuple(i for i in range(x.ndim) if i not in over)
    order = (*other_axes, *over)
    flat = x.transpose(order).reshape(*(x.shape[i] for i in other_axes), -1)
    ones = np.ones_like(flat[..., :1])
    before = np.concatenate([ones, flat[..., :-1].cumprod(-1)], -1)
    after = np.concatenate([ones, flat[..., :0:-1].cumprod(-1)], -1)[..., ::-1]
    factors = (before * after).reshape([x.shape[i] for i in order]).transpose(np.argsort(order))
    sides = tuple(1 if i in over else side for i, side in enumerate(x.shape))
    return [dy.reshape(sides) * factors, *[None] * (len(inputs) - 1)]


@_gradient_of("Clip")
def _of_clip(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    x = inputs[0]
    assert x is not None
    return [dy * (x == y), *[None] * (len(inputs) - 1)]


@_gradient_of("PRelu")
def _of_prelu(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    x, slope = inputs
    assert x is not None
    assert slope is not None
    return [dy * np.where(x < 0, slope, 1), summed_to(slope.shape, dy * np.minimum(x, 0))]


@_gradient_of("Add", "Sub", "Mul", "Div", "Pow")
def _of_arithmetic(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    a, b = inputs
    assert a is not None
    assert b is not None
    if node.operator == "Add":
        da, db = dy, dy
    elif node.operator == "Sub":
        da, db = dy, -dy
    elif node.operator == "Mul":
        da, db = dy * b, dy * a
    elif node.operator == "Div":
        da, db = dy / b, -dy * y / b
    else:
        da = dy * b * np.power(a, b - 1)
        db = dy * y * np.log(np.where(a > 0, a, 1))
    return [summed_to(a.shape, da), summed_to(b.shape, db)]


@_gradient_of("Sum", "Mean", "Min", "Max")
def _of_several(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    arrays = [one for one in inputs if one is not None]
    if node.operator in ("Sum", "Mean"):
        share = dy if node.operator == "Sum" else dy / len(arrays)
        return [summed_to(one.shape, share) for one in arrays]
    free, result = np.ones(y.shape, np.bool_), []
    for one in arrays:  # the gradient goes to the first of equal numbers
        chosen = free & (one == y)
        result.append(summed_to(one.shape, dy * chosen))
        free &= ~chosen
    return result


@_gradient_of("Where")
def _of_where(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    condition, a, b = inputs
    assert condition is not None
    assert a is not None
    assert b is not None
    return [
        None,
        summed_to(a.shape, np.where(condition, dy, 0)),
        summed_to(b.shape, np.where(condition, 0, dy)),
    ]


@_gradient_of(
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Pad", "Gather",
    "GatherElements", "GatherND", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Concat",
)  # fmt: skip
def _of_moving(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    """The gradient of an operator that moves numbers, such as a Transpose.

    The operator runs on the positions of the numbers. −1 is the position of a number that comes
    from no input.
    """
    data = len(inputs) if node.operator == "Concat" else 1
    first, places = 0, list[Array | None]()
    for one in inputs[:data]:
        assert one is not None
        places.append(np.arange(first, first + one.size).reshape(one.shape))
        first += one.size
    parameters = list(inputs[data:])
    if node.operator == "Pad":
        node = OnnxNode(
            "Pad", node.name, node.inputs, node.outputs,
            {**node.attributes, "value": -1.0}, node.opset,
        )  # fmt: skip
        if node.opset >= 11:
            parameters = [parameters[0], np.asarray(-1), *parameters[2:]]
    moved = FUNCTIONS[node.operator](node, *places, *parameters)
    sources = moved[_index_of(node, y)] if isinstance(moved, tuple) else moved
    inside = sources >= 0
    sums = np.bincount(sources[inside], dy[inside].astype(np.float64), first)
    result, first = list[Array | None](), 0
    for one in inputs[:data]:
        assert one is not None
        result.append(sums[first : first + one.size].reshape(one.shape))
        first += one.size
    return [*result, *[None] * (len(inputs) - data)]


@_gradient_of("ScatterElements", "ScatterND")
def _of_scatter(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    """Of a sum, or of numbers that replace others: of several for one place the last one counts."""
    x, indices, updates = inputs
    assert x is not None
    assert indices is not None
    assert updates is not None
    find = places_of_rows if node.operator == "ScatterND" else places_along
    index = find(node, x, indices)
    d_updates = np.asarray(dy[index])
    if node.text("reduction", "none") == "add":
        return [dy, None, d_updates]
    dx, numbers = dy.copy(), np.arange(updates.size).reshape(updates.shape)
    last = np.full(x.shape, -1)
    dx[index], last[index] = 0, numbers
    return [dx, None, d_updates * (last[index] == numbers)]


@_gradient_of("Einsum")
def _of_einsum(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    """For each input the product of the others and of ``dy``, by the same letters."""
    arrays = [one for one in inputs if one is not None]
    terms, result = einsum_terms(node, [one.ndim for one in arrays])
    letters = {*"".join(terms)}
    gradients: list[Array | None] = []
    for i, (term, array) in enumerate(zip(terms, arrays, strict=True)):
        factors = [(result, dy)]
        factors += [(t, a) for k, (t, a) in enumerate(zip(terms, arrays, strict=True)) if k != i]
        free, own = iter(sorted(set(string.ascii_letters) - letters)), ""
        for letter, side in zip(term, array.shape, strict=True):
            name = letter
            if letter in own:  # a diagonal
                name = next(free)
                factors.append((letter + name, np.eye(side)))
            own += name
        known = {*"".join(t for t, _ in factors)}
        equation = ",".join(t for t, _ in factors) + "->" + "".join(k for k in own if k in known)
        product = np.einsum(equation, *(a for _, a in factors), optimize=True)
        sides = iter(product.shape)
        product = product.reshape([next(sides) if letter in known else 1 for letter in own])
        full = [max(pair) for pair in zip(product.shape, array.shape, strict=True)]
        gradients.append(summed_to(array.shape, np.broadcast_to(product, full)))
    return gradients


def _index_of(node: OnnxNode, y: Array) -> int:
    return node.integer("result", 0)


@_gradient_of("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2")
def _of_reduction(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    x, axes = inputs[0], inputs[1] if len(inputs) > 1 else None
    assert x is not None
    over = reduced_axes(node, x.ndim, axes)
    shape_with_ones = tuple(1 if i in over else side for i, side in enumerate(x.shape))
    wide, largest = dy.reshape(shape_with_ones), y.reshape(shape_with_ones)
    if node.operator == "ReduceSum":
        dx = np.broadcast_to(wide, x.shape)
    elif node.operator == "ReduceMean":
        dx = np.broadcast_to(wide / prod(x.shape[i] for i in over), x.shape)
    elif node.operator == "ReduceL2":
        dx = wide * x / np.where(largest == 0, 1, largest)
    else:
        chosen = x == largest  # equal numbers share the gradient
        dx = wide * chosen / np.maximum(1, chosen.sum(over, keepdims=True))
    return [dx, *[None] * (len(inputs) - 1)]


@_gradient_of("Softmax", "LogSoftmax")
def _of_softmax(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    axis, flat = softmax_axis(node, y.ndim)
    axes = tuple(range(axis, y.ndim)) if flat else (axis,)
    if node.operator == "LogSoftmax":
        return [dy - np.exp(y) * dy.sum(axes, keepdims=True)]
    return [y * (dy - (dy * y).sum(axes, keepdims=True))]


@_gradient_of("MatMul")
def _of_matmul(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    a, b = inputs
    assert a is not None
    assert b is not None
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    matrix = dy
    if b.ndim == 1:
        matrix = matrix[..., None]
    if a.ndim == 1:
        matrix = np.expand_dims(matrix, -2)
    da = np.matmul(matrix, np.swapaxes(right, -1, -2))
    db = np.matmul(np.swapaxes(left, -1, -2), matrix)
    return [
        summed_to(left.shape, da).reshape(a.shape),
        summed_to(right.shape, db).reshape(b.shape),
    ]


@_gradient_of("MatMulBias")
def _of_matmul_bias(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    bias = inputs[2]
    assert bias is not None
    return [*_of_matmul(node, dy, y, inputs[:2]), summed_to(bias.shape, dy)]


@_gradient_of("ScaleShift")
def _of_scale_shift(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    x, scale, shift = inputs
    assert x is not None
    assert scale is not None
    assert shift is not None
    return [dy * scale, summed_to(scale.shape, dy * x), summed_to(shift.shape, dy)]


@_gradient_of("Gemm")
def _of_gemm(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    a, b = inputs[:2]
    assert a is not None
    assert b is not None
    left = a.T if node.integer("transA", 0) else a
    right = b.T if node.integer("transB", 0) else b
    alpha = node.number("alpha", 1.0)
    da, db = alpha * dy @ right.T, alpha * left.T @ dy
    result: list[Array | None] = [
        da.T if node.integer("transA", 0) else da,
        db.T if node.integer("transB", 0) else db,
    ]
    if len(inputs) > 2:
        c = inputs[2]
        result.append(None if c is None else summed_to(c.shape, node.number("beta", 1.0) * dy))
    return result


@_gradient_of("LayerNormalization")
def _of_layer_normalization(node: OnnxNode, dy: Array, y: Array, inputs: Inputs) -> Gradients:
    x, scale = inputs[:2]
    assert x is not None
    assert scale is not None
    axis = as_axis(node, node.integer("axis", -1), x.ndim)
    axes = (axis,) if node.integer("only", 0) else tuple(range(axis, x.ndim))
    mean = x.mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(x.var(axes, keepdims=True) + node.number("epsilon", 1e-5))
    normal, d = (x - mean) * inverse, dy * scale
    inner = d - d.mean(axes, keepdims=True) - normal * (d * normal).mean(axes, keepdims=True)
    result: list[Array | None] = [inner * inverse, summed_to(scale.shape, dy * normal)]
    if len(inputs) > 2:
        bias = inputs[2]
        result.append(None if bias is None else summed_to(bias.shape, dy))
    return result
