"""Pooling and its gradients, window by window.

A window's region holds only pixels of the image, so padding can neither win a maximum nor count in
an average. NaN wins maximum and minimum. The first of equal winners in row-major order counts, and
gets the window's whole gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import PoolGeometry
from fastcnn.engine.naive.regions import iterate_windows


def max_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Largest value of each window: (N, H, W, C) to (N, OH, OW, C).

    >>> from fastcnn.core.geometry import pool_geometry
    >>> x = np.array([[1.0, 5.0, 2.0], [3.0, 4.0, np.nan]]).reshape(1, 2, 3, 1)
    >>> max_pool2d(x, pool_geometry(x.shape, 2, stride=1))[0, :, :, 0]
    array([[ 5., nan]])
    """
    return _pool(x, g, np.max)


def min_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Smallest value of each window: (N, H, W, C) to (N, OH, OW, C)."""
    return _pool(x, g, np.min)


def avg_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Mean of each window's pixels in the image: (N, H, W, C) to (N, OH, OW, C)."""
    return _pool(x, g, np.mean)


def max_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """Gradient dx (N, H, W, C): each window's dy goes to its first maximum."""
    return _give_to_winner(dy, x, g, np.argmax)


def min_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """Gradient dx (N, H, W, C): each window's dy goes to its first minimum."""
    return _give_to_winner(dy, x, g, np.argmin)


def avg_pool2d_backward(dy: Array, g: PoolGeometry) -> Array:
    """Gradient dx (N, H, W, C): each window's dy is shared by its pixels in the image."""
    gradients = dy.astype(np.float64)
    dx = np.zeros(g.input_shape)
    for n in range(g.n):
        for dx_region, i, j in iterate_windows(dx[n], g):
            height, width, _ = dx_region.shape
            dx_region += gradients[n, i, j] / (height * width)
    return dx.astype(dy.dtype)


def _pool(x: Array, g: PoolGeometry, summary: Callable[..., Array]) -> Array:
    images = x.astype(np.float64)
    y = np.zeros(g.output_shape)
    for n in range(g.n):
        for im_region, i, j in iterate_windows(images[n], g):
            y[n, i, j] = summary(im_region, axis=(0, 1))
    return y.astype(x.dtype)


def _give_to_winner(dy: Array, x: Array, g: PoolGeometry, winner: Callable[..., Array]) -> Array:
    gradients = dy.astype(np.float64)
    dx = np.zeros(g.input_shape)
    channels = np.arange(g.c)
    for n in range(g.n):
        windows = zip(iterate_windows(x[n], g), iterate_windows(dx[n], g), strict=True)
        for (im_region, i, j), (dx_region, _, _) in windows:
            height, width, _ = im_region.shape
            # argmax and argmin return the first NaN, or else the first of equal winners.
            first = winner(im_region.reshape(height * width, g.c), axis=0)
            rows, columns = np.unravel_index(first, (height, width))
            dx_region[rows, columns, channels] += gradients[n, i, j]
    return dx.astype(dy.dtype)
