"""Batch normalisation over whole arrays, some rows at a time, with statistics in float64."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.im2col.windows import row_slices

_COPIES = 6  # copies of its rows in float64 that a step holds


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """y (R, C), and the mean and variance (C,) of the rows."""
    count = max(len(x), 1)
    mean = x.sum(axis=0, dtype=np.float64) / count
    variance = np.zeros(x.shape[1])
    for some in row_slices(x, _COPIES):
        variance += np.square(x[some] - mean).sum(axis=0)
    variance /= count
    y = _normalised(x, gamma, beta, mean, variance, epsilon)
    return y, mean.astype(x.dtype), variance.astype(x.dtype)


def batch_norm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    """y (R, C) with the caller's mean and variance."""
    statistics = mean.astype(np.float64), variance.astype(np.float64)
    return _normalised(x, gamma, beta, *statistics, epsilon)


def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """``dx`` (R, C), ``dgamma`` and ``dbeta`` (C,)."""
    centre = mean.astype(np.float64)
    inverse = 1 / np.sqrt(variance.astype(np.float64) + epsilon)
    dbeta, dgamma = dy.sum(axis=0, dtype=np.float64), np.zeros(x.shape[1])
    for some in row_slices(x, _COPIES):
        dgamma += (dy[some] * ((x[some] - centre) * inverse)).sum(axis=0)
    dx = np.empty_like(dy)
    count = max(len(x), 1)
    for some in row_slices(x, _COPIES):
        part = (x[some] - centre) * inverse
        part *= dgamma / count
        part += dbeta / count
        np.subtract(dy[some], part, out=part)
        part *= gamma * inverse
        dx[some] = part
    return dx, dgamma.astype(dy.dtype), dbeta.astype(dy.dtype)


def _normalised(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    y = np.empty_like(x)
    scale = gamma / np.sqrt(variance + epsilon)
    for some in row_slices(x, _COPIES):
        part = x[some] - mean
        part *= scale
        part += beta
        y[some] = part
    return y
