"""Cross-entropy of the softmax, and its gradient, of each sample on its own."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.naive.activations import log_softmax, softmax


def cross_entropy(logits: Array, labels: Array) -> Array:
    """−log of the probability of each sample's label: logits (N, C), labels (N,) to (N,).

    Labels may be rows of probabilities p (N, C): −Σ p · log softmax over the classes with p > 0.

    >>> cross_entropy(np.log([[0.25, 0.75]]), np.array([0])).round(4)
    array([1.3863])
    >>> cross_entropy(np.log([[0.25, 0.75]]), np.array([[0.5, 0.5]])).round(4)
    array([0.837])
    """
    log_probabilities = log_softmax(logits.astype(np.float64))
    losses = np.zeros(len(logits))
    for n, label in enumerate(labels):
        if labels.ndim == 1:
            losses[n] = -log_probabilities[n, label]
        else:
            counts = label != 0
            losses[n] = -np.sum(label[counts] * log_probabilities[n, counts])
    return losses.astype(logits.dtype)


def cross_entropy_backward(logits: Array, labels: Array) -> Array:
    """Gradient (N, C) of each sample's own loss: its probabilities, less 1 at its label.

    If the labels are rows of probabilities, the row is subtracted instead of the 1.
    """
    gradients = softmax(logits.astype(np.float64))
    for n, label in enumerate(labels):
        if labels.ndim == 1:
            gradients[n, label] -= 1
        else:
            gradients[n] -= label
    return gradients.astype(logits.dtype)
