"""Batch normalisation: each channel with mean 0 and variance 1 over the batch, then scaled.

The rows are the pixels of all images, or the samples. A channel is averaged over the rows.

Source: S. Ioffe, C. Szegedy, "Batch Normalization", arXiv:1502.03167.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """y = gamma · (x − mean) / √(variance + epsilon) + beta, and the mean and variance.

    x (R, C), gamma and beta (C,) to y (R, C), mean (C,) and variance (C,). The variance is the mean
    square distance from the mean. Without rows, mean and variance are 0.

    >>> batch_norm(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1), 0.0)
    (array([[-1.],
           [ 1.]]), array([2.]), array([1.]))
    """
    rows = x.astype(np.float64)
    count = max(len(rows), 1)
    mean = np.sum(rows, axis=0) / count
    variance = np.sum((rows - mean) ** 2, axis=0) / count
    y = gamma * ((rows - mean) / np.sqrt(variance + epsilon)) + beta
    return y.astype(x.dtype), mean.astype(x.dtype), variance.astype(x.dtype)


def batch_norm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    """The same with the caller's mean and variance: (R, C) to (R, C)."""
    deviation = np.sqrt(variance.astype(np.float64) + epsilon)
    y: Array = gamma * ((x.astype(np.float64) - mean) / deviation) + beta
    return y.astype(x.dtype)


def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Gradients dx (R, C), dgamma (C,), dbeta (C,), for the mean and variance of the rows of x.

    With n = (x − mean) / √(variance + epsilon): dbeta = Σ dy, dgamma = Σ dy · n, and
    dx = gamma / √(variance + epsilon) · (dy − (dbeta + n · dgamma) / R), because mean and variance
    also depend on x.
    """
    deviation = np.sqrt(variance.astype(np.float64) + epsilon)
    normal = (x.astype(np.float64) - mean) / deviation
    gradients = dy.astype(np.float64)
    dbeta = np.sum(gradients, axis=0)
    dgamma = np.sum(gradients * normal, axis=0)
    dx = gamma / deviation * (gradients - (dbeta + normal * dgamma) / max(len(x), 1))
    return dx.astype(dy.dtype), dgamma.astype(dy.dtype), dbeta.astype(dy.dtype)
