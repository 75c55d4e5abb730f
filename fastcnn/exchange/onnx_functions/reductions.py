"""ONNX's sums over axes: reductions, normalisations, softmax, and products of matrices."""

from __future__ import annotations

from math import prod

import numpy as np

from fastcnn.exchange.onnx_functions.elementwise import wide
from fastcnn.exchange.onnx_functions.moving import affordable
from fastcnn.exchange.onnx_functions.nodes import (
    Array,
    OnnxNode,
    as_axes,
    as_axis,
    function_of,
    listed,
)

_AXES_INPUT = {"ReduceSum": 13}  # the opset from which axes are an input; 18 for the others
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2")


def reduced_axes(node: OnnxNode, rank: int, axes: Array | None) -> tuple[int, ...]:
    """The axes of a reduction."""
    since = _AXES_INPUT.get(node.operator, 18)
    chosen = node.integers("axes") if node.opset < since else listed(node, "axes", axes)
    if not chosen:
        return () if node.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    return as_axes(node, chosen, rank)


@function_of(*REDUCTIONS)
def reduction(node: OnnxNode, x: Array, axes: Array | None = None) -> Array:
    """The sum, mean, product, norm, largest or smallest number over some axes."""
    over, keep = reduced_axes(node, x.ndim, axes), bool(node.integer("keepdims", 1))
    if not over and node.integer("noop_with_empty_axes", 0):
        return x
    y = wide(x)
    if node.operator in ("ReduceMax", "ReduceMin"):
        largest = node.operator == "ReduceMax"
        if x.dtype.kind == "f":
            start: float | int | bool = -np.inf if largest else np.inf
        elif x.dtype == np.bool_:
            start = not largest
        else:
            limits = np.iinfo(x.dtype)
            start = limits.min if largest else limits.max
        function = np.max if largest else np.min
        return np.asarray(function(x, over, keepdims=keep, initial=start)).astype(x.dtype)
    if node.operator == "ReduceSum":
        result = y.sum(over, keepdims=keep, dtype=y.dtype)
    elif node.operator == "ReduceProd":
        result = y.prod(over, keepdims=keep, dtype=y.dtype)
    elif node.operator == "ReduceL2":
        result = np.sqrt((y * y).sum(over, keepdims=keep))
    else:
        if not prod(x.shape[i] for i in over):
            raise node.error(f"the mean of no numbers is asked for, of an input {x.shape}")
        result = y.mean(over, keepdims=keep)
    return np.asarray(result).astype(x.dtype)


@function_of("ArgMax", "ArgMin")
def arg_extreme(node: OnnxNode, x: Array) -> Array:
    """The index of the largest or smallest number along an axis."""
    axis = as_axis(node, node.integer("axis", 0), x.ndim)
    if not x.shape[axis]:
        raise node.error(f"an axis of at least one number is needed, got the shape {x.shape}")
    extreme = np.argmax if node.operator == "ArgMax" else np.argmin
    if node.integer("select_last_index", 0):
        result = x.shape[axis] - 1 - extreme(np.flip(x, axis), axis)
    else:
        result = extreme(x, axis)
    return np.asarray(np.expand_dims(result, axis) if node.integer("keepdims", 1) else result)


def softmax_axis(node: OnnxNode, rank: int) -> tuple[int, bool]:
    """The axis of a softmax, and whether all axes from there on count as one."""
    if node.opset < 13:
        return as_axis(node, node.integer("axis", 1), rank, or_end=True), True
    return as_axis(node, node.integer("axis", -1), rank), False


@function_of("Softmax", "LogSoftmax")
def softmax(node: OnnxNode, x: Array) -> Array:
    """Softmax or its logarithm, over an axis, or before opset 13 over all axes from it on."""
    axis, flat = softmax_axis(node, x.ndim)
    if flat:
        rows = wide(x).reshape(prod(x.shape[:axis]), -1) if x.size else wide(x).reshape(0, 1)
        return _softmax(node, rows, 1).reshape(x.shape).astype(x.dtype)
    return _softmax(node, wide(x), axis).astype(x.dtype)


def _softmax(node: OnnxNode, x: Array, axis: int) -> Array:
    shifted = x - x.max(axis, keepdims=True, initial=-np.inf) if x.size else x
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis, keepdims=True)
    return np.asarray(
        shifted - np.log(sums) if node.operator == "LogSoftmax" else exponentials / sums
    )


@function_of("Gemm")
def gemm(node: OnnxNode, a: Array, b: Array, c: Array | None = None) -> Array:
    """``alpha * a @ b + beta * c``, of matrices that may be transposed first."""
    if a.ndim != 2 or b.ndim != 2:
        raise node.error(f"matrices are needed, got shapes {a.shape} and {b.shape}")
    left = a.T if node.integer("transA", 0) else a
    right = b.T if node.integer("transB", 0) else b
    if left.shape[1] != right.shape[0]:
        raise node.error(f"matrices of shapes {left.shape} and {right.shape} have no product")
    y = wide(left) @ wide(right)
    if a.dtype.kind == "f":
        y = y * y.dtype.type(node.number("alpha", 1.0))
    if c is not None:
        bias = c if a.dtype.kind != "f" else wide(c) * y.dtype.type(node.number("beta", 1.0))
        if np.broadcast_shapes(y.shape, c.shape) != y.shape:
            raise node.error(f"c of shape {c.shape} does not fit a product of shape {y.shape}")
        y = y + bias
    return y.astype(a.dtype)


@function_of("MatMul")
def matmul(node: OnnxNode, a: Array, b: Array) -> Array:
    """The product of matrices, as NumPy's ``matmul``."""
    if not a.ndim or not b.ndim:
        raise node.error(f"matrices are needed, got shapes {a.shape} and {b.shape}")
    if a.ndim > 1 and b.ndim > 1:
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        affordable(node, (*stack, a.shape[-2], b.shape[-1]), a.itemsize)
    result: Array = np.matmul(wide(a), wide(b))
    return result.astype(a.dtype)


@function_of("MatMulBias")
def matmul_bias(node: OnnxNode, a: Array, b: Array, c: Array) -> Array:
    """A product of matrices and a bias: two nodes of a file, which are joined."""
    return matmul(node, a, b) + c


@function_of("BatchNormalization")
def batch_normalization(
    node: OnnxNode, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> tuple[Array, ...]:
    """Channels with another mean and deviation; in training mode also the running statistics."""
    if x.ndim < 2 or any(one.shape != (x.shape[1],) for one in (scale, bias, mean, variance)):
        raise node.error(f"scale, bias, mean and variance must be vectors of {x.shape[1:2]}")
    row = (-1, *[1] * (x.ndim - 2))
    results: tuple[Array, ...] = ()
    y = wide(x)
    m, v = mean, variance
    if node.integer("training_mode", 0):
        axes = (0, *range(2, x.ndim))
        m, v = y.mean(axes), y.var(axes)
        momentum = mean.dtype.type(node.number("momentum", 0.9))
        results = (
            (mean * momentum + m * (1 - momentum)).astype(mean.dtype),
            (variance * momentum + v * (1 - momentum)).astype(variance.dtype),
        )
    factor = scale / np.sqrt(v + v.dtype.type(node.number("epsilon", 1e-5)))
    shifted = (y - m.reshape(row)) * factor.reshape(row) + bias.reshape(row)
    return shifted.astype(x.dtype), *results


@function_of("LayerNormalization")
def layer_normalization(
    node: OnnxNode, x: Array, scale: Array, bias: Array | None = None
) -> tuple[Array, ...]:
    """The axes from one on with mean 0 and deviation 1, then scaled and moved."""
    axis = as_axis(node, node.integer("axis", -1), x.ndim)
    # "only" is not ONNX's: a pattern of one axis, which is not always the last, has it.
    axes = (axis,) if node.integer("only", 0) else tuple(range(axis, x.ndim))
    y = wide(x)
    mean = y.mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(y.var(axes, keepdims=True) + y.dtype.type(node.number("epsilon", 1e-5)))
    result = ((y - mean) * inverse).astype(y.dtype) * scale
    result = result if bias is None else result + bias
    return result.astype(x.dtype), mean.astype(y.dtype), inverse.astype(y.dtype)


@function_of("InstanceNormalization")
def instance_normalization(node: OnnxNode, x: Array, scale: Array, bias: Array) -> Array:
    """Each channel of each sample with mean 0 and deviation 1, then scaled and moved."""
    if x.ndim < 3 or scale.shape != (x.shape[1],) or bias.shape != scale.shape:
        raise node.error(f"scale and bias must be vectors of {x.shape[1:2]}")
    axes, row, y = tuple(range(2, x.ndim)), (-1, *[1] * (x.ndim - 2)), wide(x)
    mean, variance = y.mean(axes, keepdims=True), y.var(axes, keepdims=True)
    inverse = 1 / np.sqrt(variance + y.dtype.type(node.number("epsilon", 1e-5)))
    result: Array = (y - mean) * inverse * scale.reshape(row) + bias.reshape(row)
    return result.astype(x.dtype)


@function_of("LRN")
def lrn(node: OnnxNode, x: Array) -> Array:
    """Local response normalisation over neighbouring channels."""
    if x.ndim < 2:
        raise node.error(f"channels are needed, got an input of shape {x.shape}")
    size = node.integer("size", 0)
    if not 1 <= size <= 1 << 20:
        raise node.wrong("size", "an integer of at least 1", size)
    alpha, beta = node.number("alpha", 1e-4), node.number("beta", 0.75)
    squares = np.moveaxis(wide(x) ** 2, 1, -1)
    before = (size - 1) // 2
    margin = [(0, 0)] * (x.ndim - 1)
    sums = np.cumsum(
        np.pad(
            squares,
            [*margin, (before + 1, size - 1 - before)],
        ),
        -1,
        np.float64,
    )
    window = np.moveaxis(sums[..., size:] - sums[..., :-size], -1, 1)
    return (x / (node.number("bias", 1.0) + alpha / size * window) ** beta).astype(x.dtype)
