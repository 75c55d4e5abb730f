"""ONNX's operators that move numbers, and those that compute with shapes."""

from __future__ import annotations

from math import prod

import numpy as np

from fastcnn.exchange.onnx_functions.nodes import (
    Array,
    OnnxNode,
    as_axes,
    as_axis,
    function_of,
    listed,
)

MOST_BYTES = 1 << 31
"""A result that nothing but a few numbers in the file ask for may have so many bytes."""


def affordable(node: OnnxNode, shape: tuple[int, ...], itemsize: int) -> None:
    """Raise an error for a result that is too large."""
    if any(side < 0 for side in shape) or len(shape) > 32:
        raise node.error(f"the result cannot have the shape {shape[:40]}")
    if prod(shape) * max(itemsize, 1) > MOST_BYTES:
        raise node.error(f"the result of shape {shape} is larger than {MOST_BYTES:,} bytes")


@function_of("Reshape")
def reshape(node: OnnxNode, x: Array, shape: Array | None = None) -> Array:
    """The numbers in another shape: 0 stands for the input's side, −1 for what is left."""
    sides = node.integers("shape") if shape is None else listed(node, "shape", shape)
    return x.reshape(reshaped(node, x.shape, sides or []))


def reshaped(node: OnnxNode, shape: tuple[int, ...], sides: list[int]) -> tuple[int, ...]:
    """The shape that Reshape gives."""
    keep = not node.integer("allowzero", 0)
    result = list(sides)
    for i, side in enumerate(result):
        if side == 0 and keep:
            if i >= len(shape):
                raise node.error(f"shape {sides} copies a side that the input {shape} lacks")
            result[i] = shape[i]
    if result.count(-1) > 1 or any(side < -1 for side in result):
        raise node.error(f"shape {sides} must have at most one -1 and nothing below")
    if -1 in result:
        known_size = prod(side for side in result if side != -1)
        if known_size == 0 or prod(shape) % known_size:
            raise node.error(f"the input of shape {shape} cannot get the shape {sides}")
        result[result.index(-1)] = prod(shape) // known_size
    if prod(result) != prod(shape):
        raise node.error(f"the input of shape {shape} cannot get the shape {sides}")
    return tuple(result)


@function_of("Flatten")
def flatten(node: OnnxNode, x: Array) -> Array:
    """Two axes: those before ``axis``, and the others."""
    axis = as_axis(node, node.integer("axis", 1), x.ndim, or_end=True)
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def order_of(node: OnnxNode, rank: int) -> tuple[int, ...]:
    """The order of axes of a Transpose."""
    order = node.integers("perm")
    if order is None:
        return tuple(reversed(range(rank)))
    if sorted(order) != list(range(rank)):
        raise node.wrong("perm", f"an order of {rank} axes", order)
    return tuple(order)


@function_of("Transpose")
def transpose(node: OnnxNode, x: Array) -> Array:
    """The axes in another order."""
    return x.transpose(order_of(node, x.ndim))


def _axes_input(node: OnnxNode, axes: Array | None, since: int) -> list[int] | None:
    """Axes that are an attribute before an opset, and an input from then on."""
    return node.integers("axes") if node.opset < since else listed(node, "axes", axes)


@function_of("Squeeze")
def squeeze(node: OnnxNode, x: Array, axes: Array | None = None) -> Array:
    """Without axes of one."""
    gone = squeezed_axes(node, x.shape, _axes_input(node, axes, 13))
    return x.reshape([side for i, side in enumerate(x.shape) if i not in gone])


def squeezed_axes(node: OnnxNode, shape: tuple[int, ...], axes: list[int] | None) -> set[int]:
    """The axes that Squeeze takes away."""
    if axes is None:
        return {i for i, side in enumerate(shape) if side == 1}
    chosen = set(as_axes(node, axes, len(shape)))
    if any(shape[i] != 1 for i in chosen):
        raise node.error(f"axes {axes} of the input of shape {shape} must be 1")
    return chosen


@function_of("Unsqueeze")
def unsqueeze(node: OnnxNode, x: Array, axes: Array | None = None) -> Array:
    """With new axes of one."""
    return x.reshape(unsqueezed(node, x.shape, _axes_input(node, axes, 13)))


def unsqueezed(node: OnnxNode, shape: tuple[int, ...], axes: list[int] | None) -> tuple[int, ...]:
    """The shape that Unsqueeze gives."""
    sides = dict(zip(unsqueezed_places(node, len(shape), axes), shape, strict=True))
    return tuple(sides.get(i, 1) for i in range(len(shape) + len(axes or ())))


def unsqueezed_places(node: OnnxNode, rank: int, axes: list[int] | None) -> list[int]:
    """For each axis of the input of an Unsqueeze the axis of the result that it becomes."""
    if axes is None:
        raise node.error("axes are missing")
    new = as_axes(node, axes, rank + len(axes))
    return [i for i in range(rank + len(axes)) if i not in new]


@function_of("Concat")
def concat(node: OnnxNode, *arrays: Array) -> Array:
    """The inputs side by side along an axis."""
    if not arrays or arrays[0].ndim == 0:
        raise node.error("inputs with at least one axis are needed")
    axis = as_axis(node, node.integer("axis", 1), arrays[0].ndim)
    return np.concatenate(arrays, axis)


def split_sizes(node: OnnxNode, side: int, sizes: Array | None, axis: int) -> list[int]:
    """The sizes of the parts of a Split."""
    parts = node.integers("split") if node.opset < 13 else listed(node, "split", sizes)
    if parts is None:
        count = node.integer("num_outputs", len(node.outputs))
        if not 1 <= count <= max(side, 1) + 1 or count < len(node.outputs):
            raise node.error(f"{side} numbers cannot be split into {count} parts")
        share = -(-side // count)
        parts = [max(0, min(share, side - i * share)) for i in range(count)]
        if node.opset < 18 and side % count:
            raise node.error(f"{side} numbers cannot be split into {count} equal parts")
    if any(part < 0 for part in parts) or sum(parts) != side or len(parts) < len(node.outputs):
        raise node.error(f"parts {parts} must add up to {side} along axis {axis}")
    return parts


@function_of("Split")
def split(node: OnnxNode, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    """The parts of the input along an axis."""
    axis = as_axis(node, node.integer("axis", 0), x.ndim)
    ends = np.cumsum(split_sizes(node, x.shape[axis], sizes, axis))[:-1]
    return tuple(np.split(x, ends, axis))


def slices_of(
    node: OnnxNode,
    shape: tuple[int, ...],
    starts: Array | None,
    ends: Array | None,
    axes: Array | None,
    steps: Array | None,
) -> dict[int, slice]:
    """The slice of each axis that a Slice cuts."""
    if node.opset < 10:
        first, last, along = (node.integers(k) for k in ("starts", "ends", "axes"))
        stride = None
    else:
        first, last = listed(node, "starts", starts), listed(node, "ends", ends)
        along, stride = listed(node, "axes", axes), listed(node, "steps", steps)
    if first is None or last is None:
        raise node.error("starts and ends are missing")
    along = list(range(len(first))) if along is None else along
    stride = [1] * len(first) if stride is None else stride
    if not len(first) == len(last) == len(along) == len(stride) or 0 in stride:
        raise node.error("starts, ends, axes and steps must be lists of one length, without step 0")
    result = {}
    for axis, start, end, step in zip(
        as_axes(node, along, len(shape)), first, last, stride, strict=True
    ):
        side = shape[axis]
        # A negative step runs to before the first number, which Python writes as None.
        below = -1 if step < 0 else 0
        most = side - 1 if step < 0 else side
        begin = min(max(start + side if start < 0 else start, 0), most)
        stop = min(max(end + side if end < 0 else end, below), side)
        result[axis] = slice(begin, None if stop < 0 else stop, step) if side else slice(0, 0)
    return result


@function_of("Slice")
def slice_(
    node: OnnxNode,
    x: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    """A part of the input along some axes."""
    cuts = slices_of(node, x.shape, starts, ends, axes, steps)
    return x[tuple(cuts.get(i, slice(None)) for i in range(x.ndim))]


def pads_of(
    node: OnnxNode, rank: int, pads: Array | None, axes: Array | None
) -> list[tuple[int, int]]:
    """The margins of each axis of a Pad."""
    margins = node.integers("pads") if node.opset < 11 else listed(node, "pads", pads)
    along = listed(node, "axes", axes)
    chosen = tuple(range(rank)) if along is None else as_axes(node, along, rank)
    if margins is None or len(margins) != 2 * len(chosen):
        raise node.error(f"pads must be {2 * len(chosen)} integers, got {margins}")
    result = [(0, 0)] * rank
    for i, axis in enumerate(chosen):
        result[axis] = margins[i], margins[i + len(chosen)]
    return result


@function_of("Pad")
def pad(
    node: OnnxNode,
    x: Array,
    pads: Array | None = None,
    value: Array | None = None,
    axes: Array | None = None,
) -> Array:
    """Margins around the input; negative ones cut it."""
    margins = pads_of(node, x.ndim, pads, axes)
    mode = node.text("mode", "constant", ("constant", "reflect", "edge", "wrap"))
    shape = tuple(
        before + side + after for side, (before, after) in zip(x.shape, margins, strict=True)
    )
    affordable(node, shape, x.itemsize)
    cuts = tuple(
        slice(max(0, -b), s - max(0, -a)) for s, (b, a) in zip(x.shape, margins, strict=True)
    )
    inner, outside = x[cuts], [(max(0, b), max(0, a)) for b, a in margins]
    if mode == "constant":
        number = node.number("value", 0.0) if node.opset < 11 else 0
        if value is not None and value.size:
            number = value.reshape(-1)[0]
        return np.pad(inner, outside, constant_values=number)
    for side, (before, after) in zip(inner.shape, outside, strict=True):
        if (mode == "reflect" and max(before, after) >= max(side, 1)) or (
            (before or after) and not side
        ):
            raise node.error(f"pads {margins} are too large for {mode} of the shape {x.shape}")
    filled: Array = np.pad(inner, outside, mode=mode)  # type: ignore[call-overload]
    return filled


@function_of("DepthToSpace")
def depth_to_space(node: OnnxNode, x: Array) -> Array:
    """Channels as pixels."""
    block, order = node.integer("blocksize", 0), node.text("mode", "DCR", ("DCR", "CRD"))
    if x.ndim != 4 or block < 1 or x.shape[1] % block**2:
        raise node.error(f"blocksize {block} does not fit the input of shape {x.shape}")
    n, c, h, w = x.shape
    if order == "DCR":
        parts = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // block**2, h * block, w * block)


@function_of("SpaceToDepth")
def space_to_depth(node: OnnxNode, x: Array) -> Array:
    """Pixels as channels."""
    block = node.integer("blocksize", 0)
    if x.ndim != 4 or block < 1 or x.shape[2] % block or x.shape[3] % block:
        raise node.error(f"blocksize {block} does not fit the input of shape {x.shape}")
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block)
    crd = node.text("mode", "DCR", ("DCR", "CRD")) == "CRD"
    parts = parts.transpose(0, 1, 3, 5, 2, 4) if crd else parts.transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


@function_of("Gather")
def gather(node: OnnxNode, x: Array, indices: Array) -> Array:
    """The parts of an axis with these numbers."""
    if x.ndim == 0:
        raise node.error("an input with at least one axis is needed")
    axis = as_axis(node, node.integer("axis", 0), x.ndim)
    if indices.dtype.kind not in "iu":
        raise node.error(f"indices must be integers, got {indices.dtype}")
    side = x.shape[axis]
    if indices.size and not (-side <= indices.min() and indices.max() < side):
        raise node.error(f"indices must be from {-side} to {side - 1}")
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    affordable(node, shape, x.itemsize)
    return np.take(x, indices, axis)


@function_of("Expand")
def expand(node: OnnxNode, x: Array, shape: Array) -> Array:
    """The input repeated along axes of one."""
    sides = tuple(listed(node, "shape", shape) or ())
    try:
        result = np.broadcast_shapes(x.shape, sides)
    except ValueError:
        raise node.error(f"the input of shape {x.shape} cannot get the shape {sides}") from None
    affordable(node, result, x.itemsize)
    return np.ascontiguousarray(np.broadcast_to(x, result)).reshape(result)


@function_of("Tile")
def tile(node: OnnxNode, x: Array, repeats: Array) -> Array:
    """The input repeated along its axes."""
    times = listed(node, "repeats", repeats) or []
    if len(times) != x.ndim:
        raise node.error(f"repeats must be {x.ndim} integers, got {times}")
    affordable(node, tuple(s * t for s, t in zip(x.shape, times, strict=True)), x.itemsize)
    return np.tile(x, times)


@function_of("Shape")
def shape_of(node: OnnxNode, x: Array) -> Array:
    """The sides of the input."""
    end = node.integer("end", x.ndim)
    return np.asarray(x.shape[node.integer("start", 0) : end], np.int64)


@function_of("Size")
def size_of(node: OnnxNode, x: Array) -> Array:
    """How many numbers the input has."""
    return np.asarray(x.size, np.int64)


@function_of("ConstantOfShape")
def constant_of_shape(node: OnnxNode, shape: Array, value: Array | None = None) -> Array:
    """A number repeated; ``value`` is the attribute, which the reader makes a second input."""
    sides = tuple(listed(node, "shape", shape) or ())
    number = np.zeros(1, np.float32) if value is None else value
    if number.size != 1:
        raise node.error(f"value must be one number, got shape {number.shape}")
    affordable(node, sides, number.itemsize)
    return np.full(sides, number.reshape(()), number.dtype)


@function_of("Range")
def range_(node: OnnxNode, start: Array, limit: Array, delta: Array) -> Array:
    """Numbers from ``start`` to before ``limit``, in steps of ``delta``."""
    if any(one.size != 1 for one in (start, limit, delta)):
        raise node.error("start, limit and delta must be single numbers")
    first, last, step = (one.reshape(-1)[0].item() for one in (start, limit, delta))
    if step == 0 or not all(np.isfinite([first, last, step])):
        raise node.error(
            f"delta must not be 0, and all must be finite, got {first}, {last}, {step}"
        )
    count = max(0, int(np.ceil((last - first) / step)))
    affordable(node, (count,), start.itemsize)
    numbers: Array = np.arange(count) * step + first
    return numbers.astype(start.dtype)
