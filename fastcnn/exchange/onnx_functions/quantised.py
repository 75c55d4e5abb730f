"""ONNX's quantisation of numbers: to integers of 8 or 16 bits and a scale, and back."""

from __future__ import annotations

import numpy as np

from fastcnn.exchange.onnx_functions.elementwise import dtype_of
from fastcnn.exchange.onnx_functions.nodes import Array, OnnxNode, as_axis, function_of


def _along(node: OnnxNode, x: Array, array: Array) -> Array:
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


@function_of("QuantizeLinear")
def quantize(node: OnnxNode, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """``round(x / scale) + zero``, within the limits of the type of ``zero``, uint8 by default."""
    if zero is None:
        number = node.integer("output_dtype", 0)
        zero = np.zeros(scale.shape, np.uint8 if not number else dtype_of(node, number))
    if zero.dtype.name not in ("uint8", "int8", "uint16", "int16"):
        raise node.error(f"integers of the type {zero.dtype} are not made")
    limits = np.iinfo(zero.dtype)
    y = np.rint(x / _along(node, x, scale)) + _along(node, x, zero).astype(x.dtype)
    return np.asarray(y.clip(limits.min, limits.max)).astype(zero.dtype)


@function_of("DequantizeLinear")
def dequantize(node: OnnxNode, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """``(x - zero) * scale``."""
    y = x.astype(np.int64)
    if zero is not None:
        y = y - _along(node, x, zero).astype(np.int64)
    return np.asarray(y.astype(scale.dtype) * _along(node, x, scale))
