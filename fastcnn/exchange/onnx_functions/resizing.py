"""ONNX's Resize and Upsample, for any number of axes: a matrix of weights for each axis.

Source: ONNX's documentation of the operator Resize; R. Keys, "Cubic Convolution Interpolation for
Digital Image Processing", 1981, for the cubic filter.
"""

from __future__ import annotations

from math import floor
from typing import NamedTuple

import numpy as np

from fastcnn.exchange.onnx_functions.elementwise import wide
from fastcnn.exchange.onnx_functions.moving import affordable
from fastcnn.exchange.onnx_functions.nodes import (
    Array,
    OnnxNode,
    as_axes,
    function_of,
    listed,
)

COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_half_pixel_for_nn", "tf_crop_and_resize",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


class Scaling(NamedTuple):
    """How one axis is resized.

    Attributes:
        before, after: its side, before and after.
        scale: how much longer it becomes.
        region: the begin and the end of the part that is shown, as shares of the side.
    """

    before: int
    after: int
    scale: float
    region: tuple[float, float]


def scalings_of(
    node: OnnxNode,
    shape: tuple[int, ...],
    roi: Array | None,
    scales: Array | None,
    sizes: Array | None,
) -> list[Scaling]:
    """How each axis of an input is resized."""
    rank = len(shape)
    axis_numbers = node.integers("axes")
    axes = tuple(range(rank)) if axis_numbers is None else as_axes(node, axis_numbers, rank)
    new_sides = listed(node, "sizes", sizes) if sizes is not None and sizes.size else None
    factors: list[float] | None = None
    if new_sides is None:
        listing = (
            node.numbers("scales") if scales is None else [float(s) for s in scales.reshape(-1)]
        )
        factors = listing
    regions = [(0.0, 1.0)] * rank
    if (
        roi is not None
        and roi.size
        and node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    ):
        shares = [float(one) for one in roi.reshape(-1)]
        if len(shares) != 2 * len(axes):
            raise node.error(f"roi must be {2 * len(axes)} numbers, got {len(shares)}")
        for i, axis in enumerate(axes):
            regions[axis] = shares[i], shares[i + len(axes)]
    listing_length = len(new_sides) if new_sides is not None else len(factors or [])
    if listing_length != len(axes):
        raise node.error(f"{len(axes)} scales or sizes are needed, got {listing_length}")
    result = [Scaling(side, side, 1.0, (0.0, 1.0)) for side in shape]
    if new_sides is not None:
        if any(one < 1 for one in new_sides):
            raise node.error(f"sizes must be at least 1, got {new_sides}")
        ratios = [
            size / shape[axis] if shape[axis] else 1.0
            for size, axis in zip(new_sides, axes, strict=True)
        ]
        policy = node.text(
            "keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller")
        )
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(axes)
            new_sides = [floor(ratio * shape[axis] + 0.5) for axis in axes]
        for axis, size, ratio in zip(axes, new_sides, ratios, strict=True):
            result[axis] = Scaling(shape[axis], size, ratio, regions[axis])
        return result
    for axis, factor in zip(axes, factors or [], strict=True):
        if not (np.isfinite(factor) and 0 < factor < 1 << 20):
            raise node.error(f"scales must be above 0, got {factor}")
        begin, end = regions[axis]
        result[axis] = Scaling(
            shape[axis], floor(shape[axis] * (end - begin) * factor), factor, (begin, end)
        )
    return result


def _places(mode: str, s: Scaling) -> Array:
    """Where the pixels of the result lie among those of the input, float64."""
    i = np.arange(s.after, dtype=np.float64)
    length = s.before * s.scale  # before it is rounded down
    if mode == "align_corners":
        return i * ((s.before - 1) / (length - 1)) if length > 1 else np.zeros_like(i)
    if mode == "asymmetric":
        return i / s.scale
    if mode == "tf_half_pixel_for_nn":
        return (i + 0.5) / s.scale
    if mode == "tf_crop_and_resize":
        begin, end = s.region
        if s.after > 1:
            return begin * (s.before - 1) + i * ((end - begin) * (s.before - 1) / (s.after - 1))
        return np.full_like(i, 0.5 * (begin + end) * (s.before - 1))
    if mode == "pytorch_half_pixel" and s.after == 1:
        return np.zeros_like(i)
    places = (i + 0.5) / s.scale - 0.5
    if mode == "half_pixel_symmetric":
        places += s.before / 2 * (1 - s.after / length)
    return places


def _rounded(rounding: str, places: Array) -> Array:
    if rounding == "floor":
        return np.floor(places)
    if rounding == "ceil":
        return np.ceil(places)
    return np.ceil(places - 0.5) if rounding == "round_prefer_floor" else np.floor(places + 0.5)


def _cubic(distance: Array, a: float) -> Array:
    d = np.abs(distance)
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, inner, np.where(d < 2, outer, 0.0))


def _matrix(node: OnnxNode, mode: str, s: Scaling, places: Array) -> Array:
    """The weights (after, before) of one axis."""
    stretch = min(1.0, s.scale) if node.integer("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) / stretch
    first = np.floor(places - reach).astype(np.int64)
    taps = first[:, None] + np.arange(int(2 * reach) + 3)
    affordable(node, (s.after, max(s.before, taps.shape[1])), 8)
    distance = (taps - places[:, None]) * stretch
    if mode == "linear":
        weights = np.maximum(0.0, 1 - np.abs(distance))
    else:
        weights = _cubic(distance, node.number("cubic_coeff_a", -0.75))
    inside = (taps >= 0) & (taps < s.before)
    if node.integer("exclude_outside", 0):
        weights = np.where(inside, weights, 0.0)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((s.after, s.before))
    rows = np.broadcast_to(np.arange(s.after)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, s.before - 1)), weights)
    return matrix


def resized(
    node: OnnxNode, x: Array, scalings: list[Scaling], coordinates: str, mode: str
) -> Array:
    """The input in another size, axis by axis."""
    affordable(node, tuple(s.after for s in scalings), x.itemsize)
    if any(s.before < 1 for s in scalings):
        raise node.error(f"the input of shape {x.shape} has nothing to resize")
    rounding = node.text("nearest_mode", "round_prefer_floor", ROUNDINGS)
    y, outside = wide(x) if mode != "nearest" else x, np.zeros([1] * x.ndim, np.bool_)
    for axis, s in enumerate(scalings):
        if s.before == s.after and s.scale == 1 and s.region == (0.0, 1.0):
            continue
        places = _places(coordinates, s)
        if coordinates == "tf_crop_and_resize":
            shape = [1] * x.ndim
            shape[axis] = -1
            outside = outside | ((places < 0) | (places > s.before - 1)).reshape(shape)
        if mode == "nearest":
            chosen = np.clip(_rounded(rounding, places), 0, s.before - 1).astype(np.int64)
            y = np.take(y, chosen, axis)
        else:
            matrix = _matrix(node, mode, s, places).astype(np.float64)
            y = np.moveaxis(np.tensordot(matrix, y, (1, axis)), 0, axis)
    if outside.any():
        y = np.where(outside, node.number("extrapolation_value", 0.0), y)
    if x.dtype.kind in "iu" and mode != "nearest":
        limits = np.iinfo(x.dtype)
        y = np.clip(np.trunc(y), limits.min, limits.max)
    return y.astype(x.dtype)


@function_of("Resize")
def resize(
    node: OnnxNode,
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
) -> Array:
    """The input in another size; in opset 10 scales are the second input."""
    if node.opset < 11:
        roi, scales = None, roi
    mode, coordinates = resize_way(node)
    return resized(node, x, scalings_of(node, x.shape, roi, scales, sizes), coordinates, mode)


def resize_way(node: OnnxNode) -> tuple[str, str]:
    """The method and the coordinates of a Resize or Upsample."""
    mode = node.text("mode", "nearest", ("nearest", "linear", "cubic", "bilinear"))
    mode = "linear" if mode == "bilinear" else mode
    if node.opset < 11 or node.operator == "Upsample":
        return mode, "asymmetric"
    return mode, node.text("coordinate_transformation_mode", "half_pixel", COORDINATES)


@function_of("Upsample")
def upsample(node: OnnxNode, x: Array, scales: Array | None = None) -> Array:
    """The input enlarged by factors."""
    floors = OnnxNode(
        "Upsample", node.name, node.inputs, node.outputs,
        {**node.attributes, "nearest_mode": "floor"}, node.opset,
    )  # fmt: skip
    mode, coordinates = resize_way(floors)
    return resized(floors, x, scalings_of(floors, x.shape, None, scales, None), coordinates, mode)
