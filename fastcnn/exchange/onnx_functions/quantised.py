"""ONNX's quantisation of numbers: to integers of 8 or 16 bits and a scale, and back."""

from __future__ import annotations

import numpy as np

from fastcnn.exchange.onnx_functions.elementwise import dtype_of
from fastcnn.exchange.onnx_functions.nodes import Array, OnnxNode, as_axis, function_of

_LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}


def along(node: OnnxNode, x: Array, array: Array) -> Array:
    """A number, or one for each index or block of an axis, so that it broadcasts with ``x``."""
    block = node.integer("block_size", 0)
    if block:
        axis = as_axis(node, node.integer("axis", 1), x.ndim)
        shape = (*x.shape[:axis], -(-x.shape[axis] // block), *x.shape[axis + 1 :])
        if block < 0 or array.shape != shape:
            raise node.error(f"scales must have the shape {shape}, got {array.shape}")
        return array.repeat(block, axis).take(range(x.shape[axis]), axis)
    if array.size == 1:
        return array.reshape(())
    axis = as_axis(node, node.integer("axis", 1), x.ndim)
    if array.shape != (x.shape[axis],):
        raise node.error(f"scales must be one, or {x.shape[axis]}, got the shape {array.shape}")
    return array.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def summed_along(node: OnnxNode, scale: Array, gradient: Array) -> Array:
    """The gradient of ``scale`` from that of :func:`along`: a sum for each of its numbers."""
    if scale.size == 1 and not node.integer("block_size", 0):
        return np.asarray(gradient.sum()).reshape(scale.shape)
    axis = as_axis(node, node.integer("axis", 1), gradient.ndim)
    block = node.integer("block_size", 0)
    if block:
        starts = range(0, gradient.shape[axis], block)
        return np.asarray(np.add.reduceat(gradient, starts, axis))
    return np.asarray(gradient.sum(tuple(i for i in range(gradient.ndim) if i != axis)))


def rounded(node: OnnxNode, x: Array, scale: Array, zero: Array | None) -> Array:
    """``round(x / scale) + zero``, without limits."""
    shift = 0 if zero is None else along(node, x, zero).astype(x.dtype)
    return np.asarray(np.rint(x / along(node, x, scale)) + shift)


@function_of("QuantizeLinear")
def quantize(node: OnnxNode, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """``round(x / scale) + zero``, within the limits of the type of ``zero``, uint8 by default."""
    number = node.integer("output_dtype", 0)
    kind = dtype_of(node, number) if number else np.dtype(np.uint8)
    if zero is not None:
        kind = zero.dtype
    if kind.name not in _LIMITS:
        raise node.error(f"integers of the type {kind} are not made")
    return rounded(node, x, scale, zero).clip(*_LIMITS[kind.name]).astype(kind)


@function_of("DequantizeLinear")
def dequantize(node: OnnxNode, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """``(x - zero) * scale``."""
    y = x.astype(np.int64)
    if zero is not None:
        y = y - along(node, x, zero).astype(np.int64)
    return np.asarray(y.astype(scale.dtype) * along(node, x, scale))
