"""Softmax cross-entropy of each sample; a sample's result does not depend on the others."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.im2col.activations import log_softmax, softmax
from fastcnn.engine.im2col.windows import row_slices


def cross_entropy(logits: Array, labels: Array) -> Array:
    """``-log_softmax(logits)[label]`` of each sample, (N,).

    With rows of probabilities (N, C) as labels, ``-(labels * log_softmax(logits)).sum(axis=1)``
    over the probabilities that are not 0.
    """
    losses = np.empty(len(logits), logits.dtype)
    # Temporary arrays: the logarithms, those of log_softmax, and the indices.
    for some in row_slices(logits, 8):
        classes = labels[some]
        logarithms = log_softmax(logits[some])
        if classes.ndim == 1:
            losses[some] = -logarithms[np.arange(len(classes)), classes]
        else:
            logarithms[classes == 0] = 0
            logarithms *= classes
            losses[some] = -logarithms.sum(axis=1)
    return losses


def cross_entropy_backward(logits: Array, labels: Array) -> Array:
    """Gradient of each sample's own loss, (N, C): its softmax, less 1 at its label.

    If the labels are rows of probabilities, the row is subtracted instead of the 1.
    """
    gradient = softmax(logits)
    if labels.ndim == 2:
        gradient -= labels
        return gradient
    for some in row_slices(logits, 8):
        classes = labels[some]
        gradient[some][np.arange(len(classes)), classes] -= 1
    return gradient
