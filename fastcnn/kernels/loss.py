"""Softmax cross-entropy and its gradient, as compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.arguments import Array
from fastcnn.kernels.activations import log_sum_exp, softmax_row
from fastcnn.kernels.arrays import empty_like_type, readable
from fastcnn.kernels.jit import kernel, ordered_kernel
from fastcnn.kernels.threads import parallel_for


def cross_entropy(logits: Array, labels: Array) -> Array:
    """The loss of each sample; NaN where the label is no class."""
    losses = empty_like_type(logits, len(logits))
    work = 20 * logits.size
    parallel_for(_losses, len(logits), work, readable(logits), readable(labels), losses)
    return losses


def cross_entropy_backward(logits: Array, labels: Array) -> Array:
    """The gradient of each sample's own loss; NaN where the label is no class."""
    gradient = empty_like_type(logits, *logits.shape)
    work = 20 * logits.size
    parallel_for(_gradients, len(logits), work, readable(logits), readable(labels), gradient)
    return gradient


@ordered_kernel
def _losses(start: int, stop: int, logits: Any, labels: Any, losses: Any) -> None:
    for n in range(start, stop):
        label = labels[n]  # an address, so it is looked at here, whoever has checked it before
        if label < 0 or label >= logits.shape[1]:
            losses[n] = np.nan
            continue
        largest, log_total = log_sum_exp(logits[n])
        losses[n] = log_total - (logits[n, label] - largest)


@kernel
def _gradients(start: int, stop: int, logits: Any, labels: Any, gradient: Any) -> None:
    for n in range(start, stop):
        label = labels[n]
        if label < 0 or label >= logits.shape[1]:
            gradient[n] = np.nan
            continue
        softmax_row(logits[n], gradient[n])
        gradient[n, label] -= 1
