"""Convolution as plain compiled loops: every parameter, no assumption.

These serve every problem that no special kernel serves. Each item writes its own rows of the result
and sums in float64: in the order kh, kw, ic (forward), kh, kw, oc (gradient of the input), or image
by image (gradient of the filters). Taps in the padding are skipped, not multiplied by zero.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.engine.numba.contraction.column_sums import column_sums, round_to_dtype
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import (
    bias_or_zeros,
    copy_of,
    empty_like_type,
    readable,
    record,
)
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.threads import parallel_for


def conv2d(x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry) -> Array:
    """``y``, by rows of the output."""
    totals = arrays.allocate(g.output_shape, np.float64)
    bias, relu = bias_or_zeros(b, g.oc, x), activation == "relu"
    rows = readable(x), readable(w), bias, totals, relu, record(g)
    parallel_for(_forward_rows, g.n * g.oh, g.flops, *rows)
    return round_to_dtype(totals, x)


def conv2d_input_gradient(dy: Array, w: Array, g: ConvGeometry) -> Array:
    """``dx``, by rows of the input."""
    return conv2d_transpose(dy, w, None, None, g)


def conv2d_transpose(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry
) -> Array:
    """``y``, by its rows: the input's gradient, with bias and activation."""
    totals = arrays.allocate(g.input_shape, np.float64)
    # (KH, KW, OC, IC/groups): the innermost loop runs over input channels.
    transposed = copy_of(w.swapaxes(2, 3))
    bias, relu = bias_or_zeros(b, g.ic, x), activation == "relu"
    rows = readable(x), transposed, bias, totals, relu, record(g)
    parallel_for(_input_gradient_rows, g.n * g.h, g.flops, *rows)
    return round_to_dtype(totals, x)


def conv2d_filter_gradient(dy: Array, x: Array, g: ConvGeometry) -> Array:
    """``dw``, by rows of OC numbers, one for each (kh, kw, ic)."""
    totals = arrays.allocate(g.filter_shape, np.float64)
    rows = g.kh * g.kw * g.group_ic
    parallel_for(_filter_gradient_rows, rows, g.flops, readable(dy), readable(x), totals, record(g))
    return round_to_dtype(totals, dy)


def conv2d_bias_gradient(dy: Array, g: ConvGeometry) -> Array:
    """``db``, the sum over images and pixels."""
    db = empty_like_type(dy, g.oc)
    column_sums(readable(dy).reshape(-1, g.oc), db)
    return db


@device
def _first_tap(k: int, stride: int, pad: int, dilation: int) -> int:
    """First output position at which filter position ``k`` is not before the image."""
    offset = k * dilation - pad
    return 0 if offset >= 0 else (stride - 1 - offset) // stride


@device
def _last_tap(k: int, out: int, size: int, stride: int, pad: int, dilation: int) -> int:
    """One past the last output position at which filter position ``k`` is in the image."""
    last = size - 1 - k * dilation + pad
    return 0 if last < 0 else min(out, last // stride + 1)


@kernel
def _forward_rows(
    start: int, stop: int, x: Array, w: Array, b: Array, y: Array, relu: bool, geometry: Array
) -> None:
    """Write rows (n, oh) ``start`` to ``stop`` of y (N, OH, OW, OC), in float64.

    Reads x (N, H, W, IC), w (KH, KW, IC/groups, OC) and b (OC,).
    """
    g = geometry[0]
    group_ic, group_oc = g.ic // g.groups, g.oc // g.groups
    for row in range(start, stop):
        n, oh = row // g.oh, row % g.oh
        for ow in range(g.ow):
            for oc in range(g.oc):
                y[n, oh, ow, oc] = b[oc]
        for kh in range(g.kh):
            ih = oh * g.stride_h - g.pad_top + kh * g.dilation_h
            if ih < 0 or ih >= g.h:
                continue
            for kw in range(g.kw):
                first = _first_tap(kw, g.stride_w, g.pad_left, g.dilation_w)
                last = _last_tap(kw, g.ow, g.w, g.stride_w, g.pad_left, g.dilation_w)
                for ow in range(first, last):
                    iw = ow * g.stride_w - g.pad_left + kw * g.dilation_w
                    for group in range(g.groups):
                        for ic in range(group_ic):
                            value = x[n, ih, iw, group * group_ic + ic]
                            for oc in range(group * group_oc, (group + 1) * group_oc):
                                y[n, oh, ow, oc] += value * w[kh, kw, ic, oc]
        if relu:
            for ow in range(g.ow):
                for oc in range(g.oc):
                    if y[n, oh, ow, oc] < 0:
                        y[n, oh, ow, oc] = 0


@kernel
def _input_gradient_rows(
    start: int,
    stop: int,
    dy: Array,
    transposed: Array,
    b: Array,
    dx: Array,
    relu: bool,
    geometry: Array,
) -> None:
    """Write rows (n, h) ``start`` to ``stop`` of dx (N, H, W, IC), in float64.

    Reads dy (N, OH, OW, OC), transposed (KH, KW, OC, IC/groups) and b (IC,).
    """
    g = geometry[0]
    group_ic, group_oc = g.ic // g.groups, g.oc // g.groups
    for row in range(start, stop):
        n, ih = row // g.h, row % g.h
        for iw in range(g.w):
            for ic in range(g.ic):
                dx[n, ih, iw, ic] = b[ic]
        for kh in range(g.kh):
            padded = ih + g.pad_top - kh * g.dilation_h
            oh = padded // g.stride_h
            if padded < 0 or padded % g.stride_h or oh >= g.oh:
                continue
            for kw in range(g.kw):
                first = _first_tap(kw, g.stride_w, g.pad_left, g.dilation_w)
                last = _last_tap(kw, g.ow, g.w, g.stride_w, g.pad_left, g.dilation_w)
                for ow in range(first, last):
                    iw = ow * g.stride_w - g.pad_left + kw * g.dilation_w
                    for oc in range(g.oc):
                        base = oc // group_oc * group_ic
                        value = dy[n, oh, ow, oc]
                        for ic in range(group_ic):
                            dx[n, ih, iw, base + ic] += value * transposed[kh, kw, oc, ic]
        if relu:
            for iw in range(g.w):
                for ic in range(g.ic):
                    if dx[n, ih, iw, ic] < 0:
                        dx[n, ih, iw, ic] = 0


@kernel
def _filter_gradient_rows(
    start: int, stop: int, dy: Array, x: Array, dw: Array, geometry: Array
) -> None:
    """Write rows (kh, kw, ic) ``start`` to ``stop`` of dw (KH, KW, IC/groups, OC), in float64.

    Reads dy (N, OH, OW, OC) and x (N, H, W, IC).
    """
    g = geometry[0]
    group_ic, group_oc = g.ic // g.groups, g.oc // g.groups
    for row in range(start, stop):
        kh, kw, ic = row // group_ic // g.kw, row // group_ic % g.kw, row % group_ic
        first_h = _first_tap(kh, g.stride_h, g.pad_top, g.dilation_h)
        last_h = _last_tap(kh, g.oh, g.h, g.stride_h, g.pad_top, g.dilation_h)
        first_w = _first_tap(kw, g.stride_w, g.pad_left, g.dilation_w)
        last_w = _last_tap(kw, g.ow, g.w, g.stride_w, g.pad_left, g.dilation_w)
        dw[kh, kw, ic] = 0
        for n in range(g.n):
            for oh in range(first_h, last_h):
                ih = oh * g.stride_h - g.pad_top + kh * g.dilation_h
                for ow in range(first_w, last_w):
                    iw = ow * g.stride_w - g.pad_left + kw * g.dilation_w
                    for group in range(g.groups):
                        value = x[n, ih, iw, group * group_ic + ic]
                        for oc in range(group * group_oc, (group + 1) * group_oc):
                            dw[kh, kw, ic, oc] += value * dy[n, oh, ow, oc]
