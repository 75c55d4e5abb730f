"""Softmax cross-entropy of each sample; a sample's result does not depend on the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcnn.arguments import Array
from fastcnn.im2col.activations import log_softmax, softmax
from fastcnn.im2col.windows import row_slices


def cross_entropy(logits: Array, labels: NDArray[np.int64]) -> Array:
    """``-log_softmax(logits)[label]`` of each sample, (N,)."""
    losses = np.empty(len(logits), logits.dtype)
    # The logarithms, what they take themselves, and the indices.
    for some in row_slices(logits, 8):
        chosen = labels[some]
        losses[some] = -log_softmax(logits[some])[np.arange(len(chosen)), chosen]
    return losses


def cross_entropy_backward(logits: Array, labels: NDArray[np.int64]) -> Array:
    """Gradient of each sample's own loss, (N, C): its softmax, less 1 at its label."""
    gradient = softmax(logits)
    for some in row_slices(logits, 8):
        chosen = labels[some]
        gradient[some][np.arange(len(chosen)), chosen] -= 1
    return gradient
