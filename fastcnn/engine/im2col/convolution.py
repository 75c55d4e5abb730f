"""Convolution as matrix multiplication, and its gradients.

Each window becomes a row of a matrix ("im2col"). This matrix (pixels, KH·KW·IC) times the filters
(KH·KW·IC, OC) is the convolution. Its transpose times ``dy`` is the gradient of the filters. For
the gradient of the input, ``dy`` times the transposed filters is added to the image tap by tap
("col2im"). Each group has a matrix of its own.

Three cases go tap by tap, without such a matrix:

- depthwise convolution, because its matrices would have one column;
- padding that is many times the image, because most of the matrix would be zeros;
- padding together with numbers that are not finite, because a zero in the matrix times an infinite
  weight would give NaN.

Every image is multiplied on its own. So the result for an image does not depend on the size of the
batch or the image's position in it, to the last bit.

Source: K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for
Document Processing", 2006.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.im2col.products import product, totals_dtype
from fastcnn.engine.im2col.windows import WORKSPACE_BYTES, is_padded, slices, taps_of, windows


def conv2d(x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry) -> Array:
    """``y``, (N, OH, OW, OC)."""
    if _tap_by_tap(w, g):
        y = _conv2d_tap_by_tap(x, w, g)
    elif g.kh * g.kw * g.group_ic > STRETCH:
        y = _conv2d_of_long_sums(x, w, g)
    else:
        y = np.empty(g.output_shape, x.dtype)
        filters = _matrices(w, g)
        for images, rows in slices(g.n, g.oh, *_column_bytes(x, g)):
            # One multiplication per image and group, so that no result depends on other images.
            columns = _columns(windows(x[images], g, rows), g, (0, 5), (1, 2))
            np.matmul(columns, filters, out=_grouped(y[images, rows], g))
            del columns  # before the next ones are made
    if b is not None:
        y += b
    if activation == "relu":
        np.maximum(y, 0, out=y)
    return y


def conv2d_input_gradient(dy: Array, w: Array, g: ConvGeometry) -> Array:
    """``dx``, (N, H, W, IC)."""
    return _input_gradient(dy, w, g).astype(dy.dtype, copy=False)


def conv2d_transpose(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry
) -> Array:
    """``y``, (N, H, W, IC)."""
    y = _input_gradient(x, w, g)
    if b is not None:
        y += b
    if activation == "relu":
        np.maximum(y, 0, out=y)
    return y.astype(x.dtype, copy=False)


def _input_gradient(dy: Array, w: Array, g: ConvGeometry) -> Array:
    """The gradient of the input, in float64 if its sums are long."""
    dtype = totals_dtype(dy.dtype, g.kh * g.kw * g.group_oc)
    dx = np.zeros(g.input_shape, dtype)
    grouped_dx = dx.reshape(g.n, g.h, g.w, g.groups, g.group_ic)
    back = w.reshape(g.kh, g.kw, g.group_ic, g.groups, g.group_oc).transpose(0, 1, 3, 4, 2)
    # Long sums need totals, and an array of the products that are added to them.
    size = dy.itemsize if g.group_oc <= STRETCH else 8 + dy.itemsize
    for images, rows in slices(g.n, g.oh, g.ow * g.ic * size):
        part = dy[images, rows]
        for kh, kw, outputs, pixels in taps_of(g, rows):
            if g.depthwise:
                grouped = part.reshape(*part.shape[:3], g.groups, g.group_oc)[outputs]
                filters, sums = back[kh, kw, ..., 0], totals_dtype(dy.dtype, g.group_oc)
                to_taps = np.einsum("nhwgo,go->nhwg", grouped, filters, dtype=sums)[..., None]
            else:
                to_taps = product(_grouped(part, g), back[kh, kw])
                shape = len(part), g.groups, part.shape[1], g.ow, g.group_ic
                to_taps = to_taps.reshape(shape).transpose(0, 2, 3, 1, 4)[outputs]
            grouped_dx[images][pixels] += to_taps
            del to_taps  # before the next is made
    return dx


def conv2d_filter_gradient(dy: Array, x: Array, g: ConvGeometry) -> Array:
    """``dw``, (KH, KW, IC/groups, OC)."""
    dtype = totals_dtype(dy.dtype, g.n * g.oh * g.ow)
    dw = np.zeros(g.filter_shape, dtype)
    if _tap_by_tap(dy, g):
        # A step has at most a stretch of pixels, unless a single row has more.
        sums = totals_dtype(dy.dtype, g.ow)
        for images, rows in slices(g.n, g.oh, g.ow * (WORKSPACE_BYTES // STRETCH)):
            grouped_x = x[images].reshape(-1, g.h, g.w, g.groups, g.group_ic)
            part = dy[images, rows]
            grouped_dy = part.reshape(*part.shape[:3], g.groups, g.group_oc)
            for kh, kw, outputs, pixels in taps_of(g, rows):
                met = grouped_x[pixels], grouped_dy[outputs]
                stretch = np.einsum("nhwgi,nhwgo->igo", *met, dtype=sums)
                dw[kh, kw] += stretch.reshape(g.group_ic, g.oc)
        return dw.astype(dy.dtype, copy=False)
    for images, rows in slices(g.n, g.oh, *_column_bytes(x, g)):
        columns = _columns(windows(x[images], g, rows), g, (5,), (0, 1, 2))
        part = dy[images, rows].reshape(-1, g.groups, g.group_oc).transpose(1, 0, 2)
        _matrices(dw, g)[...] += product(columns.swapaxes(1, 2), part)
        del columns  # before the next ones are made
    return dw.astype(dy.dtype, copy=False)


def conv2d_bias_gradient(dy: Array, g: ConvGeometry) -> Array:
    """``db``, (OC,): the sum over images and pixels, in float64 because it is long."""
    total: Array = dy.sum(axis=(0, 1, 2), dtype=np.float64)
    return total.astype(dy.dtype)


def _tap_by_tap(factor: Array, g: ConvGeometry) -> bool:
    if g.depthwise or not is_padded(g):
        return g.depthwise
    margins = max(g.pad_top, g.pad_bottom), max(g.pad_left, g.pad_right)
    return max(margins) > 16 * max(g.h, g.w) or not np.isfinite(factor).all()


def _conv2d_of_long_sums(x: Array, w: Array, g: ConvGeometry) -> Array:
    y, filters = np.empty(g.output_shape, x.dtype), _matrices(w, g)
    row, image = _column_bytes(x, g)
    row += g.ow * g.oc * (8 + x.itemsize)  # totals, and the products that are added to them
    for images, rows in slices(g.n, g.oh, row, image):
        columns = _columns(windows(x[images], g, rows), g, (0, 5), (1, 2))
        _grouped(y[images, rows], g)[...] = product(columns, filters)
        del columns  # before the next ones are made
    return y


def _conv2d_tap_by_tap(x: Array, w: Array, g: ConvGeometry) -> Array:
    y = np.zeros(g.output_shape, totals_dtype(x.dtype, g.kh * g.kw * g.group_ic))
    grouped_x = x.reshape(g.n, g.h, g.w, g.groups, g.group_ic)
    grouped_y = y.reshape(g.n, g.oh, g.ow, g.groups, g.group_oc)
    filters = w.reshape(g.kh, g.kw, g.group_ic, g.groups, g.group_oc).transpose(0, 1, 3, 2, 4)
    for images, rows in slices(g.n, g.oh, g.ow * g.oc * x.itemsize):
        part, image = grouped_y[images, rows], grouped_x[images]
        for kh, kw, outputs, pixels in taps_of(g, rows):
            if g.depthwise:
                part[outputs] += image[pixels] * filters[kh, kw, :, 0]
            else:
                part[outputs].swapaxes(2, 3)[...] += product(
                    image[pixels].swapaxes(2, 3), filters[kh, kw]
                )
    return y.astype(x.dtype, copy=False)


def _columns(
    view: Array, g: ConvGeometry, outer: tuple[int, ...], pixels: tuple[int, ...]
) -> Array:
    """The windows as matrices, (outer axes, pixels, KH·KW·IC/groups).

    The copy is laid out along its longer runs. A window with many values is copied as a row of the
    matrix. For a small filter on few channels, the pixels of an image row are copied instead, into
    the transpose of the matrix.
    """
    split = view.reshape(*view.shape[:5], g.groups, g.group_ic)
    values = (3, 4, 6)
    shape = [split.shape[axis] for axis in outer]
    size = g.kh * g.kw * g.group_ic
    if g.kw * g.group_ic < g.ow:
        transposed = split.transpose(*outer, *values, *pixels).reshape(*shape, size, -1)
        return transposed.swapaxes(-1, -2)
    return split.transpose(*outer, *pixels, *values).reshape(*shape, -1, size)


def _column_bytes(x: Array, g: ConvGeometry) -> tuple[int, int]:
    """Bytes of columns and padded image: for one output row, and once per image."""
    row = g.ow * g.kh * g.kw * g.ic * x.itemsize
    if not is_padded(g):
        return row, 0
    line = (g.pad_left + g.w + g.pad_right) * g.ic * x.itemsize
    # The last output row needs all lines under the filter, each row before it one stride of lines.
    return row + g.stride_h * line, ((g.kh - 1) * g.dilation_h + 1 - g.stride_h) * line


def _matrices(w: Array, g: ConvGeometry) -> Array:
    """Filters as (groups, KH·KW·IC/groups, OC/groups), a view."""
    return w.reshape(g.kh * g.kw * g.group_ic, g.groups, g.group_oc).transpose(1, 0, 2)


def _grouped(part: Array, g: ConvGeometry) -> Array:
    """Outputs (n, rows, OW, OC) as (n, groups, rows·OW, OC/groups), a view."""
    return part.reshape(len(part), -1, g.groups, g.group_oc).transpose(0, 2, 1, 3)
