"""Pooling, tap by tap: KH·KW operations on whole slices of the image, without padding.

Each operation handles one position inside the window, for all windows at once. The windows need no
copy, and their pixels come in row-major order, as the rule for ties requires. The result for an
image does not depend on the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import PoolGeometry
from fastcnn.engine.im2col.products import totals_dtype
from fastcnn.engine.im2col.windows import slices, taps_of


def max_pool2d(x: Array, g: PoolGeometry) -> Array:
    """``y``, (N, OH, OW, C)."""
    return _extreme(x, g, slice(0, g.oh), np.maximum)


def min_pool2d(x: Array, g: PoolGeometry) -> Array:
    """``y``, (N, OH, OW, C)."""
    return _extreme(x, g, slice(0, g.oh), np.minimum)


def max_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx``, (N, H, W, C)."""
    return _extreme_backward(dy, x, g, np.maximum)


def min_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx``, (N, H, W, C)."""
    return _extreme_backward(dy, x, g, np.minimum)


def avg_pool2d(x: Array, g: PoolGeometry) -> Array:
    """``y``, (N, OH, OW, C)."""
    y = np.zeros(g.output_shape, totals_dtype(x.dtype, g.kh * g.kw))
    for _, rows in slices(1, g.oh, g.ow * y.itemsize):
        part = y[:, rows]
        for _, _, outputs, pixels in taps_of(g, rows):
            part[outputs] += x[pixels]
        part /= _pixels_in_image(g, rows, y.dtype)
    return y.astype(x.dtype, copy=False)


def avg_pool2d_backward(dy: Array, g: PoolGeometry) -> Array:
    """``dx``, (N, H, W, C)."""
    dx = np.zeros(g.input_shape, _gradient_dtype(g, dy.dtype))
    # Each output needs the share of a pixel, and each position of an output its number of pixels.
    for images, rows in slices(g.n, g.oh, g.ow * (g.c + 1) * dy.itemsize):
        share = dy[images, rows] / _pixels_in_image(g, rows, dy.dtype)
        for _, _, outputs, pixels in taps_of(g, rows):
            dx[images][pixels] += share[outputs]
        del share  # before the next is made
    return dx.astype(dy.dtype, copy=False)


def _gradient_dtype(g: PoolGeometry, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which the gradients of the windows that meet in a pixel are added."""
    return totals_dtype(dtype, -(-g.kh // g.stride_h) * -(-g.kw // g.stride_w))


def _extreme(x: Array, g: PoolGeometry, rows: slice, better: np.ufunc) -> Array:
    # The start value loses to every pixel, and each window has a pixel.
    worst = -np.inf if better is np.maximum else np.inf
    y = np.full((len(x), rows.stop - rows.start, g.ow, g.c), worst, x.dtype)
    for _, _, outputs, pixels in taps_of(g, rows):
        part = y[outputs]
        better(part, x[pixels], out=part)
    return y


def _extreme_backward(dy: Array, x: Array, g: PoolGeometry, better: np.ufunc) -> Array:
    dx = np.zeros(g.input_shape, _gradient_dtype(g, dy.dtype))
    # Each output needs its extreme, its gradient to a pixel, and three booleans.
    for images, rows in slices(g.n, g.oh, g.ow * g.c * (2 * dy.itemsize + 3)):
        image, gradient, part = x[images], dy[images, rows], dx[images]
        extreme = _extreme(image, g, rows, better)
        some_nan = bool(np.isnan(extreme).any())
        waiting = np.ones(extreme.shape, np.bool_)
        for _, _, outputs, pixels in taps_of(g, rows):
            values = image[pixels]
            takes = values == extreme[outputs]
            if some_nan:
                # Any NaN equals the extreme, because no number wins against NaN.
                takes |= values != values
            takes &= waiting[outputs]
            part[pixels] += np.where(takes, gradient[outputs], 0)
            waiting[outputs] ^= takes
    return dx.astype(dy.dtype, copy=False)


def _pixels_in_image(g: PoolGeometry, rows: slice, dtype: np.dtype[np.floating]) -> Array:
    """How many pixels of the image each window of these output rows holds, (1, rows, OW, 1)."""
    counts = np.zeros((1, rows.stop - rows.start, g.ow, 1), dtype)
    for _, _, outputs, _ in taps_of(g, rows):
        counts[outputs] += 1
    return counts
