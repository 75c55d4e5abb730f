"""ONNX's convolutions and poolings, for any number of spatial axes.

Layers of fastcnn compute the usual ones. These functions serve the rest: images of one or three
spatial axes, filters that are no constants, dilated pooling, indices of maxima, integers.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastcnn import ops
from fastcnn.exchange.onnx_functions.elementwise import wide
from fastcnn.exchange.onnx_functions.moving import affordable
from fastcnn.exchange.onnx_functions.nodes import Array, OnnxNode, function_of

AUTO = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
MOST_SIDE = 1 << 20  # of windows, strides, dilations and padding


class Windows(NamedTuple):
    """How windows lie on an image, with a number for each spatial axis.

    Attributes:
        kernel, strides, dilations: of the windows.
        before, after: padding at the begin and the end.
        out: how many windows there are.
        sides: of the image.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    out: tuple[int, ...]
    sides: tuple[int, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """How far each window reaches."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def excess(self) -> tuple[int, ...]:
        """How far the last window reaches over the padded image."""
        reach = zip(
            self.out, self.strides, self.spans, self.sides, self.before, self.after, strict=True
        )
        return tuple(max(0, (o - 1) * s + span - (n + b + a)) for o, s, span, n, b, a in reach)


def side_list(
    node: OnnxNode, name: str, rank: int, default: int, least: int = 1
) -> tuple[int, ...]:
    """An attribute with an integer for each spatial axis."""
    values = node.integers(name)
    if values is None:
        return (default,) * rank
    if len(values) != rank or any(not least <= value <= MOST_SIDE for value in values):
        raise node.wrong(name, f"{rank} integers from {least} to {MOST_SIDE}", values)
    return tuple(values)


def windows_of(node: OnnxNode, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Windows:
    """The windows of a convolution or pooling on an input (N, C, …)."""
    rank, sides = len(shape) - 2, shape[2:]
    if rank < 1 or len(kernel) != rank:
        raise node.error(f"windows of {kernel} do not fit the input of shape {shape}")
    strides = side_list(node, "strides", rank, 1)
    dilations = side_list(node, "dilations", rank, 1)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    auto, ceil = node.text("auto_pad", "NOTSET", AUTO), node.integer("ceil_mode", 0)
    if auto.startswith("SAME"):
        out = [-(-side // s) for side, s in zip(sides, strides, strict=True)]
        totals = [
            max(0, (o - 1) * s + span - side)
            for o, s, span, side in zip(out, strides, spans, sides, strict=True)
        ]
        small = [total // 2 for total in totals]
        large = [total - half for total, half in zip(totals, small, strict=True)]
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    else:
        pads = [0] * (2 * rank)
        if auto == "NOTSET":
            pads = list(side_list(node, "pads", 2 * rank, 0, least=0))
        before, after = pads[:rank], pads[rank:]
        out = []
        for side, s, span, b, a in zip(sides, strides, spans, before, after, strict=True):
            free = side + b + a - span
            if free < 0:
                raise node.error(f"windows that reach over {spans} do not fit the input of {shape}")
            count = free // s + 1
            if ceil and free % s and count * s < side + b:
                count += 1  # only where the last window begins in the image or before it
            out.append(count)
    return Windows(kernel, strides, dilations, tuple(before), tuple(after), tuple(out), sides)


def _view(x: Array, g: Windows, fill: float | int) -> Array:
    """The windows as a view (N, C, *out, *kernel) of the padded image."""
    ends = [a + e for a, e in zip(g.after, g.excess, strict=True)]
    margins = [(0, 0), (0, 0), *zip(g.before, ends, strict=True)]
    padded = np.pad(x, margins, constant_values=fill)
    steps = padded.strides[2:]
    return np.lib.stride_tricks.as_strided(
        padded,
        (*x.shape[:2], *g.out, *g.kernel),
        (
            *padded.strides[:2],
            *(t * s for t, s in zip(steps, g.strides, strict=True)),
            *(t * d for t, d in zip(steps, g.dilations, strict=True)),
        ),
        writeable=False,
    )


def kernel_shape(
    node: OnnxNode, shape: tuple[int, ...], filters: tuple[int, ...]
) -> tuple[int, ...]:
    """The sides of filters, which an attribute may repeat."""
    if len(filters) != len(shape) or len(shape) < 3 or 0 in filters:
        raise node.error(f"filters of shape {filters} do not fit the input of shape {shape}")
    sides = filters[2:]
    if "kernel_shape" in node.attributes and node.integers("kernel_shape") != list(sides):
        raise node.wrong("kernel_shape", str(list(sides)), node.attributes["kernel_shape"])
    return sides


@function_of("Conv")
def conv(node: OnnxNode, x: Array, w: Array, b: Array | None = None) -> Array:
    """Convolution, x (N, C, …) and w (OC, C/groups, …) to (N, OC, …)."""
    g = windows_of(node, x.shape, kernel_shape(node, x.shape, w.shape))
    groups, oc = node.integer("group", 1), w.shape[0]
    check_groups(node, groups, x.shape[1], w.shape[1], oc)
    check_bias(node, b, oc)
    n = x.shape[0]
    if len(g.out) == 2 and x.dtype in (np.float32, np.float64) and x.size:
        y = ops.conv2d(
            np.ascontiguousarray(x.transpose(0, 2, 3, 1)),
            np.ascontiguousarray(w.transpose(2, 3, 1, 0)),
            b,
            stride=(g.strides[0], g.strides[1]),
            padding=((g.before[0], g.after[0]), (g.before[1], g.after[1])),
            dilation=(g.dilations[0], g.dilations[1]),
            groups=groups,
        )
        return y.transpose(0, 3, 1, 2)
    affordable(node, (*x.shape[:2], *g.out, *g.kernel), 8)
    parts = _view(wide(x), g, 0).reshape(n, groups, x.shape[1] // groups, *g.out, *g.kernel)
    filters = wide(w).reshape(groups, oc // groups, *w.shape[1:])
    rank = len(g.out)
    results = [
        np.tensordot(
            parts[:, i], filters[i], ([1, *range(2 + rank, 2 + 2 * rank)], [1, *range(2, 2 + rank)])
        )
        for i in range(groups)
    ]
    y = np.moveaxis(np.concatenate(results, -1), -1, 1)
    return (y if b is None else y + b.reshape(-1, *[1] * rank)).astype(x.dtype)


def check_groups(node: OnnxNode, groups: int, ic: int, per_group: int, oc: int) -> None:
    """Raise an error unless groups and channels fit each other."""
    if groups < 1 or ic != groups * per_group or oc % groups:
        raise node.error(
            f"group {groups} does not fit {ic} channels, filters on {per_group}, and {oc} outputs"
        )


def check_bias(node: OnnxNode, b: Array | None, channels: int) -> None:
    """Raise an error for a bias of another shape."""
    if b is not None and b.shape != (channels,):
        raise node.error(f"the bias must have the shape ({channels},), got {b.shape}")


class Transposed(NamedTuple):
    """The sizes of a ConvTranspose, with a number for each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    extra: tuple[int, ...]
    out: tuple[int, ...]


def transposed_of(node: OnnxNode, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Transposed:
    """The sizes of a ConvTranspose on an input (N, C, …)."""
    rank, sides = len(shape) - 2, shape[2:]
    strides = side_list(node, "strides", rank, 1)
    dilations = side_list(node, "dilations", rank, 1)
    extra = side_list(node, "output_padding", rank, 0, least=0)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    full_sides = [
        (side - 1) * s + span + e
        for side, s, span, e in zip(sides, strides, spans, extra, strict=True)
    ]
    auto, output_sides = node.text("auto_pad", "NOTSET", AUTO), node.integers("output_shape")
    pads = list(side_list(node, "pads", 2 * rank, 0, least=0))
    if output_sides is not None:
        output_sides = output_sides[-rank:]
    elif auto.startswith("SAME"):
        output_sides = [side * s for side, s in zip(sides, strides, strict=True)]
    elif auto == "VALID":
        pads = [0] * (2 * rank)
    if output_sides is not None:
        if len(output_sides) != rank:
            raise node.wrong("output_shape", f"{rank} integers", output_sides)
        totals = [size - want for size, want in zip(full_sides, output_sides, strict=True)]
        if min(totals, default=0) < 0:
            extra = tuple(e + max(0, -t) for e, t in zip(extra, totals, strict=True))
            totals = [max(0, total) for total in totals]
        half = [total // 2 for total in totals]
        remainders = [total - part for total, part in zip(totals, half, strict=True)]
        before, after = (half, remainders) if auto != "SAME_LOWER" else (remainders, half)
    else:
        before, after = pads[:rank], pads[rank:]
    out = tuple(
        (side - 1) * s + span + e - b - a
        for side, s, span, e, b, a in zip(sides, strides, spans, extra, before, after, strict=True)
    )
    if min(out, default=1) < 1:
        raise node.error(f"the result of the input of shape {shape} would have the sides {out}")
    return Transposed(kernel, strides, dilations, tuple(before), tuple(after), extra, out)


@function_of("ConvTranspose")
def conv_transpose(node: OnnxNode, x: Array, w: Array, b: Array | None = None) -> Array:
    """Transposed convolution, x (N, C, …) and w (C, OC/groups, …) to (N, OC, …)."""
    g = transposed_of(node, x.shape, kernel_shape(node, x.shape, w.shape))
    groups = node.integer("group", 1)
    oc, n, rank = w.shape[1] * groups, x.shape[0], len(g.out)
    check_groups(node, groups, oc, w.shape[1], x.shape[1])
    check_bias(node, b, oc)
    if x.shape[1] != w.shape[0]:
        raise node.error(f"filters of shape {w.shape} do not fit the input of shape {x.shape}")
    full_sides = [o + s_b + s_a for o, s_b, s_a in zip(g.out, g.before, g.after, strict=True)]
    affordable(node, (n, oc, *full_sides), 8)
    y = np.zeros((n, oc, *full_sides), wide(x).dtype)
    ic, per = x.shape[1] // groups, w.shape[1]
    for i in range(groups):
        part = wide(x)[:, i * ic : (i + 1) * ic]
        filters = wide(w)[i * ic : (i + 1) * ic]
        for tap in product(*map(range, g.kernel)):
            at: tuple[Any, ...] = (slice(None), slice(None), *tap)
            values = np.tensordot(part, filters[at], (1, 0))
            places = tuple(
                slice(t * d, t * d + (side - 1) * s + 1, s)
                for t, d, s, side in zip(tap, g.dilations, g.strides, x.shape[2:], strict=True)
            )
            y[(slice(None), slice(i * per, (i + 1) * per), *places)] += np.moveaxis(values, -1, 1)
    cut = tuple(slice(b_, b_ + o) for b_, o in zip(g.before, g.out, strict=True))
    y = y[(slice(None), slice(None), *cut)]
    return (y if b is None else y + b.reshape(-1, *[1] * rank)).astype(x.dtype)


def pool_windows(node: OnnxNode, shape: tuple[int, ...]) -> Windows:
    """The windows of a pooling."""
    if len(shape) < 3:
        raise node.error(f"images (N, C, …) are needed, got an input of shape {shape}")
    kernel = node.integers("kernel_shape")
    if kernel is None:
        raise node.error("kernel_shape is missing")
    return windows_of(node, shape, side_list(node, "kernel_shape", len(shape) - 2, 1))


@function_of("MaxPool")
def max_pool(node: OnnxNode, x: Array) -> tuple[Array, ...]:
    """The largest number of each window, and its index in the input."""
    g = pool_windows(node, x.shape)
    rank = len(g.out)
    affordable(node, (*x.shape[:2], *g.out, *g.kernel), x.itemsize)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    parts = _view(x, g, lowest).reshape(*x.shape[:2], *g.out, -1)
    if len(node.outputs) < 2:
        return (parts.max(-1),)
    best = parts.argmax(-1)
    taps = np.unravel_index(best, g.kernel)
    places = []
    for axis in range(rank):
        at = np.arange(g.out[axis]) * g.strides[axis] - g.before[axis]
        shape = [1] * (2 + rank)
        shape[2 + axis] = -1
        places.append(at.reshape(shape) + taps[axis] * g.dilations[axis])
    index = np.zeros(best.shape, np.int64)
    axes = range(rank) if not node.integer("storage_order", 0) else reversed(range(rank))
    for axis in axes:
        index = index * g.sides[axis] + places[axis]
    image = np.arange(prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * rank)
    return parts.max(-1), index + image * prod(g.sides)


@function_of("AveragePool")
def average_pool(node: OnnxNode, x: Array) -> Array:
    """The mean of each window, with or without the padding in it."""
    g = pool_windows(node, x.shape)
    rank = len(g.out)
    affordable(node, (*x.shape[:2], *g.out, *g.kernel), x.itemsize)
    taps = tuple(range(2 + rank, 2 + 2 * rank))
    sums = _view(wide(x), g, 0).sum(taps)
    result: Array = sums / average_counts(node, g)
    return result.astype(x.dtype)


def average_counts(node: OnnxNode, g: Windows) -> Array:
    """How many pixels count in each window, (1, 1, *out) float64."""
    counts = np.ones((1, 1), np.float64)
    with_padding = node.integer("count_include_pad", 0)
    for axis in range(len(g.out)):
        at = np.arange(g.out[axis])[:, None] * g.strides[axis] - g.before[axis]
        at = at + np.arange(g.kernel[axis]) * g.dilations[axis]
        side = g.sides[axis]
        counted = at < side + g.after[axis] if with_padding else (at >= 0) & (at < side)
        counts = counts[..., None] * counted.sum(1)
    return np.maximum(counts, 1)


@function_of("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: OnnxNode, x: Array) -> Array:
    """The mean or the largest number of each channel, (N, C, …) to (N, C, 1, …)."""
    if x.ndim < 3 or not x.size:
        raise node.error(f"images (N, C, …) are needed, got an input of shape {x.shape}")
    axes = tuple(range(2, x.ndim))
    if node.operator == "GlobalMaxPool":
        return np.asarray(x.max(axes, keepdims=True))
    result: Array = wide(x).mean(axes, keepdims=True)
    return result.astype(x.dtype)
