"""Layers for products of matrices and for softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from fastcnn.exchange.onnx_functions import Array, OnnxNode
from fastcnn.exchange.onnx_functions.indexing import einsum_terms
from fastcnn.exchange.onnx_functions.reductions import softmax_axis
from fastcnn.exchange.onnx_numbers import as_image
from fastcnn.exchange.onnx_shapes import in_shape
from fastcnn.exchange.onnx_tracing import NotBatched, Trace, Value, constant, emits, known, needs
from fastcnn.nn.layers import Conv2D, Dense, Softmax

Values = Sequence[Value | None]


@emits("Gemm")
def gemm(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """A product with constants, as Dense; behind a Flatten its rows are permuted."""
    a, b = needs(inputs[0]), known(inputs[1])
    c = inputs[2] if len(inputs) > 2 else None
    if a.constant is not None or b is None or b.ndim != 2 or a.rank != 2:
        return None
    if (c is not None and c.constant is None) or not a.is_float or 0 in a.shape:
        return None
    turned = bool(node.integer("transA", 0))
    if a.batch != (1 if turned else 0):
        return None
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    w = b.T if node.integer("transB", 0) else b
    w = w if alpha == 1 else w * alpha
    if w.shape[0] != a.shape[0 if turned else 1] or 0 in w.shape:
        raise node.error(f"matrices of shapes {a.shape} and {b.shape} have no product")
    bias: Array | None = None
    if c is not None:
        assert c.constant is not None
        bias = c.constant if beta == 1 else c.constant * beta
        if bias.ndim == 2 and bias.shape[0] > 1:
            if not np.array_equal(np.broadcast_to(bias[:1], bias.shape), bias):
                raise NotBatched
            bias = bias[:1]
        try:
            bias = np.broadcast_to(bias.reshape(-1), (w.shape[1],))
        except ValueError:
            raise node.error(f"c of shape {c.shape} does not fit the product") from None
    result = _dense(trace, node, a, w, bias)
    return [replace(result, shape=(result.shape[0], w.shape[1]), axes=(1,), batch=0)]


def _dense(trace: Trace, node: OnnxNode, x: Value, w: Array, b: Array | None) -> Value:
    """A vector of features times a matrix."""
    key, units = node.outputs[0], w.shape[1]
    if x.merged is not None:
        dims, order = x.merged
        w = w.reshape(*dims, units).transpose(*order, len(dims))
        key += f":{dims}:{order}"
    assert x.tensor is not None
    assert x.batch is not None
    layer = trace.store.layer(
        key, lambda: Dense(units, use_bias=b is not None),
        x.tensor.shape, w=w, b=b,
    )  # fmt: skip
    shape = (x.shape[x.batch], units)
    return Value(shape, x.dtype, None, trace.call(layer, x.tensor), (1,), 0)


@emits("MatMul", "MatMulBias")
def matmul(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """A product of matrices; with a constant matrix on the right, a Dense or filters of 1×1."""
    a, b = needs(inputs[0]), needs(inputs[1])
    bias = known(inputs[2]) if len(inputs) > 2 else None
    if not a.rank or not b.rank:
        raise node.error(f"matrices are needed, got shapes {a.shape} and {b.shape}")
    if b.constant is not None and b.rank == 2 and a.rank >= 2 and a.is_float:
        if a.shape[-1] != b.shape[0]:
            raise node.error(f"matrices of shapes {a.shape} and {b.shape} have no product")
        if a.batch != a.rank - 1 and 0 not in a.shape and 0 not in b.shape:
            return [_times(trace, node, a, b.constant, bias)]
    left, right = trace.plain(a), trace.plain(b)
    if left.batch is None and right.batch is None:
        return None
    rank = max(a.rank, b.rank, 2)
    places: list[int | None] = []
    for one, is_right in ((left, False), (right, True)):
        if one.constant is not None:
            places.append(None)
            stack = one.constant.shape[:-2]
            if stack and max(stack) > 1 and len(stack) == rank - 2:
                operand = right if one is left else left
                if operand.batch == 0 and stack[0] > 1:
                    raise NotBatched
            continue
        if one.batch is None:
            raise NotBatched
        at = one.batch + rank - one.rank
        if one.rank == 1 or (at >= rank - 2 and not (at == rank - 2 and not is_right)):
            raise NotBatched
        places.append(at)
    first, second = places
    if first is not None and second is not None and first != second:
        raise NotBatched
    if first == rank - 2 and b.rank > 2:
        raise NotBatched
    batch = first if first is not None else second
    assert batch is not None
    if b.rank == 1 or a.rank == 1:
        return None
    return trace.operation(node, [left, right, *inputs[2:]], batch=batch)


def _times(trace: Trace, node: OnnxNode, x: Value, w: Array, b: Array | None) -> Value:
    """Each row along the last axis times a matrix."""
    shape = (*x.shape[:-1], w.shape[1])
    if x.rank == 2 and x.batch == 0:
        return _dense(trace, node, x, w, b)
    last = x.rank - 1
    value = trace.plain(x)
    value = trace.laid_out(value, (*(i for i in value.axes if i != last), last))
    assert value.tensor is not None
    image = as_image(value.tensor.shape) if len(value.tensor.shape) > 1 else (1, 1, w.shape[0])
    layer = trace.store.layer(
        node.outputs[0],
        lambda: Conv2D(w.shape[1], 1, use_bias=b is not None),
        image, w=w, b=b,
    )  # fmt: skip
    pixels = trace.call(layer, trace.shaped(value.tensor, image))
    tensor = trace.shaped(pixels, (*value.tensor.shape[:-1], w.shape[1]))
    return replace(value, shape=shape, tensor=tensor)


@emits("Einsum")
def einsum(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """A sum of products; the batch is one letter, of the result and of each tensor."""
    values = [trace.plain(needs(one)) for one in inputs]
    terms, result = einsum_terms(node, [one.rank for one in values])
    pairs = list(zip(terms, values, strict=True))
    tensors = [(term, one.batch) for term, one in pairs if one.constant is None]
    batches = {None if batch is None else term[batch] for term, batch in tensors}
    (letter, *others) = batches
    if letter is None and not others:
        return None
    if letter is None or others or letter not in result:
        raise NotBatched
    if any(term.count(letter) != (one.constant is None) for term, one in pairs):
        raise NotBatched
    return trace.operation(node, values, batch=result.index(letter))


@emits("Softmax", "LogSoftmax")
def softmax(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """Softmax over an axis, which is laid last."""
    x = trace.plain(needs(inputs[0]))
    axis, flat = softmax_axis(node, x.rank)
    if flat and (axis == x.rank or prod(x.shape[axis + 1 :]) > 1):
        return _flat_softmax(trace, node, x, axis)
    if axis == x.batch:
        raise NotBatched
    if not x.is_float or 0 in x.shape:
        return None
    axes = (*(i for i in x.axes if i != axis), axis)
    value = trace.laid_out(x, axes)
    assert value.tensor is not None
    if node.operator == "Softmax":
        return [replace(value, tensor=trace.call(Softmax(), value.tensor))]
    last = OnnxNode("LogSoftmax", node.name, ("x",), ("y",), {"axis": -1}, 13)
    trace.uses["y"] += 1
    return [trace.operation(last, [value], batch=value.batch, free_layout=True)[0]]


def _flat_softmax(trace: Trace, node: OnnxNode, x: Value, axis: int) -> list[Value] | None:
    """Softmax over all axes from one on, as before opset 13."""
    if x.batch is not None and (x.batch >= axis or axis == x.rank):
        raise NotBatched
    if not x.is_float or 0 in x.shape or x.batch is None:
        return None
    rows = in_shape(trace, x, (*x.shape[:axis], prod(x.shape[axis:])))
    plain = OnnxNode(node.operator, node.name, ("x",), ("y",), {"axis": -1}, 13)
    trace.uses["y"] += 1
    result = softmax(trace, plain, [rows])
    return None if result is None else [in_shape(trace, result[0], x.shape)]


@emits("ArgMax", "ArgMin")
def arg_extreme(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """The index of an extreme, along an axis that is not that of the batch."""
    x = trace.plain(needs(inputs[0]))
    axis = node.integer("axis", 0) % max(x.rank, 1)
    if x.batch is None:
        return None
    if axis == x.batch:
        raise NotBatched
    gone = not node.integer("keepdims", 1) and axis < x.batch
    return trace.operation(node, [x], batch=x.batch - gone)


@emits("RNN", "GRU", "LSTM")
def recurrent(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """A recurrent operator, one for each output, because the batch has another axis in each."""
    x = trace.plain(needs(inputs[0]))
    if x.batch is None:
        return None
    first = node.integer("layout", 0)
    if x.batch != (0 if first else 1):
        raise NotBatched
    values = [x, *inputs[1:]]
    for i, one in enumerate(values[1:], 1):
        if i < 4 and one is not None and one.constant is None:
            raise NotBatched
        if i == 4 and one is not None:
            raise NotBatched  # lengths of the samples
        if i in (5, 6) and one is not None and one.constant is not None:
            values[i] = constant(_of_one_sample(one.constant, 0 if first else 1))
        elif i in (5, 6) and one is not None and one.batch != x.batch:
            raise NotBatched
    places = (0, 0, 0) if first else (2, 1, 1)
    results = []
    for i, name in enumerate(node.outputs):
        only = replace_outputs(node, i)
        is_used = name and trace.uses[name]
        output = trace.operation(only, values, batch=places[i])[i] if is_used else None
        results.append(constant(np.zeros(0)) if output is None else output)
    return results


def replace_outputs(node: OnnxNode, i: int) -> OnnxNode:
    """The node with only one of its outputs."""
    outputs = tuple(name if k == i else "" for k, name in enumerate(node.outputs))
    return OnnxNode(node.operator, node.name, node.inputs, outputs, node.attributes, node.opset)


def _of_one_sample(states: Array, axis: int) -> Array:
    """States that are equal for all samples, as those of one sample."""
    state = states.take([0], axis) if states.ndim > axis and states.shape[axis] else states
    if not np.array_equal(np.broadcast_to(state, states.shape), states):
        raise NotBatched
    return state


@emits("QuantizeLinear", "DequantizeLinear")
def quantisation(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """A quantisation with constant scales, of numbers in the order in which they lie."""
    x = trace.plain(needs(inputs[0]))
    if any(one is not None and one.constant is None for one in inputs[1:]):
        return None
    scale = needs(inputs[1])
    if scale.constant is not None and scale.constant.size == 1:
        return [trace.operation(node, [x, *inputs[1:]], batch=x.batch, free_layout=True)[0]]
    return None if x.batch is None else trace.operation(node, [x, *inputs[1:]], batch=x.batch)
