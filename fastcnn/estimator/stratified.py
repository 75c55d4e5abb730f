"""Hold-out of a share of the samples, with nearly the same share of each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.arguments import Array


def hold_out(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Indices of the samples for training and of the samples held out, both in ascending order.

    ``int(share * N)`` samples are held out, at random within each class, but each class keeps at
    least one for training. If the share of a class is no whole number, it is rounded down. The
    classes with the largest remainders get one more; equal remainders go in order of classes.

    Args:
        labels: class numbers (N,), at least 0.
        share: at least 0 and below 1.
        rng: draws the samples.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
        >>> train, rest = hold_out(labels, 0.5, np.random.default_rng(0))
        >>> labels[train].tolist(), labels[rest].tolist()
        ([0, 0, 0, 1, 1], [0, 0, 0, 1, 1])
    """
    counts = np.bincount(labels)
    exact, most = counts * share, np.maximum(counts - 1, 0)
    parts = np.minimum(np.floor(exact).astype(np.int64), most)
    total = min(int(len(labels) * share), int(most.sum()))
    by_rest = np.argsort(parts - exact, kind="stable")
    while (missing := total - int(parts.sum())) > 0:
        able = by_rest[parts[by_rest] < most[by_rest]]
        parts[able[:missing]] += 1
    mixed = rng.permutation(len(labels))
    by_class = mixed[np.argsort(labels[mixed], kind="stable")]
    place_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_held_out = np.zeros(len(labels), np.bool)
    is_held_out[by_class[place_in_class < np.repeat(parts, counts)]] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
