"""Softmax cross-entropy and its gradient, as compiled loops over samples.

The operations call it, for layer-by-layer training; programs of whole nets use the kernels of
:mod:`fastcnn.engine.numba.elementwise.steps`.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.elementwise.activations import log_sum_exp, softmax_row
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.jit import kernel, ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for


def cross_entropy(logits: Array, labels: Array) -> Array:
    """The loss of each sample; NaN where the label is no class.

    Labels are class numbers (N,) or rows of probabilities (N, C).
    """
    losses = empty_like_type(logits, len(logits))
    work, kernel = 20 * logits.size, _losses if labels.ndim == 1 else _soft_losses
    parallel_for(kernel, len(logits), work, readable(logits), readable(labels), losses)
    return losses


def cross_entropy_backward(logits: Array, labels: Array) -> Array:
    """The gradient of each sample's own loss; NaN where the label is no class."""
    gradient = empty_like_type(logits, *logits.shape)
    work, kernel = 20 * logits.size, _gradients if labels.ndim == 1 else _soft_gradients
    parallel_for(kernel, len(logits), work, readable(logits), readable(labels), gradient)
    return gradient


@ordered_device
def soft_loss(row: Array, probabilities: Array) -> np.float64:
    """``−Σ p·log softmax(row)`` of a sample (C,) in float64, without classes of probability 0."""
    largest, log_total = log_sum_exp(row)
    loss = np.float64(0)
    for c in range(row.size):
        if probabilities[c] != 0:
            loss += probabilities[c] * (log_total - (row[c] - largest))
    return loss


@ordered_kernel
def _losses(start: int, stop: int, logits: Array, labels: Array, losses: Array) -> None:
    """Losses (N,) of some samples from logits (N, C) and labels (N,); NaN for no class."""
    for n in range(start, stop):
        label = labels[n]  # checked here too, because it is an address
        if label < 0 or label >= logits.shape[1]:
            losses[n] = np.nan
            continue
        largest, log_total = log_sum_exp(logits[n])
        losses[n] = log_total - (logits[n, label] - largest)


@kernel
def _gradients(start: int, stop: int, logits: Array, labels: Array, gradient: Array) -> None:
    """The gradient (N, C) of some samples from logits (N, C) and labels (N,); NaN for no class."""
    for n in range(start, stop):
        label = labels[n]
        if label < 0 or label >= logits.shape[1]:
            gradient[n] = np.nan
            continue
        softmax_row(logits[n], gradient[n])
        gradient[n, label] -= 1


@ordered_kernel
def _soft_losses(start: int, stop: int, logits: Array, targets: Array, losses: Array) -> None:
    """Losses (N,) of some samples from logits and probabilities (N, C)."""
    for n in range(start, stop):
        losses[n] = soft_loss(logits[n], targets[n])


@kernel
def _soft_gradients(start: int, stop: int, logits: Array, targets: Array, gradient: Array) -> None:
    """The gradient (N, C) of some samples from logits and probabilities (N, C)."""
    for n in range(start, stop):
        softmax_row(logits[n], gradient[n])
        for c in range(logits.shape[1]):
            gradient[n, c] -= targets[n, c]
