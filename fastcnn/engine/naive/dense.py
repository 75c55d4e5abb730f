"""The fully connected layer and its gradients, sample by sample."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.naive.activations import relu


def dense(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """Samples x (N, I) by weights w (I, O), bias b (O,): (N, O).

    >>> dense(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.array([0.5]), None)
    array([[11.5]])
    """
    samples, weights = x.astype(np.float64), w.astype(np.float64)
    y = np.zeros((len(x), w.shape[1]))
    for n, sample in enumerate(samples):
        y[n] = np.sum(sample[:, np.newaxis] * weights, axis=0)
    if b is not None:
        y += b
    if activation == "relu":
        y = relu(y)
    return y.astype(x.dtype)


def dense_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """Gradients dx (N, I), dw (I, O) and db (O,), for the output's gradient dy (N, O)."""
    samples, weights, gradients = (a.astype(np.float64) for a in (x, w, dy))
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(w.shape[1])
    for n, (sample, gradient) in enumerate(zip(samples, gradients, strict=True)):
        dx[n] = np.sum(weights * gradient, axis=1)
        dw += sample[:, np.newaxis] * gradient
        db += gradient
    return dx.astype(dy.dtype), dw.astype(dy.dtype), db.astype(dy.dtype)
