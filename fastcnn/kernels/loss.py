"""Softmax cross-entropy and its gradient, as compiled loops."""

from __future__ import annotations

from typing import Any

from fastcnn.arguments import Array
from fastcnn.kernels.activations import log_sum_exp, softmax_row
from fastcnn.kernels.arrays import empty_like_type, readable
from fastcnn.kernels.jit import kernel, ordered_kernel
from fastcnn.kernels.threads import parallel_for


def cross_entropy(logits: Array, labels: Array) -> Array:
    """The loss of each sample."""
    losses = empty_like_type(logits, len(logits))
    work = 20 * logits.size
    parallel_for(_losses, len(logits), work, readable(logits), readable(labels), losses)
    return losses


def cross_entropy_backward(logits: Array, labels: Array) -> Array:
    """The gradient of each sample's own loss."""
    gradient = empty_like_type(logits, *logits.shape)
    work = 20 * logits.size
    parallel_for(_gradients, len(logits), work, readable(logits), readable(labels), gradient)
    return gradient


@ordered_kernel
def _losses(start: int, stop: int, logits: Any, labels: Any, losses: Any) -> None:
    for n in range(start, stop):
        largest, log_total = log_sum_exp(logits[n])
        losses[n] = log_total - (logits[n, labels[n]] - largest)


@kernel
def _gradients(start: int, stop: int, logits: Any, labels: Any, gradient: Any) -> None:
    for n in range(start, stop):
        softmax_row(logits[n], gradient[n])
        gradient[n, labels[n]] -= 1
