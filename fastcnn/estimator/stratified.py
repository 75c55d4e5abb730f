"""A share of the samples is held out, of each class as nearly the same share as can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.arguments import Array


def held_out(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Which samples are trained on, and which are held out: indices, each in ascending order.

    ``int(share * N)`` samples are held out, drawn at random within each class; but each class
    keeps at least one to train on. Where the share of a class is no whole number, those with
    the largest rests have one more, of equal rests the first.

    Args:
        labels: class numbers (N,), at least 0.
        share: at least 0 and below 1.
        rng: draws the samples.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
        >>> train, rest = held_out(labels, 0.5, np.random.default_rng(0))
        >>> labels[train].tolist(), labels[rest].tolist()
        ([0, 0, 0, 1, 1], [0, 0, 0, 1, 1])
    """
    counts = np.bincount(labels)
    wanted, most = counts * share, np.maximum(counts - 1, 0)
    parts = np.minimum(np.floor(wanted).astype(np.int64), most)
    total = min(int(len(labels) * share), int(most.sum()))
    by_rest = np.argsort(parts - wanted, kind="stable")
    while (missing := total - int(parts.sum())) > 0:
        able = by_rest[parts[by_rest] < most[by_rest]]
        parts[able[:missing]] += 1
    mixed = rng.permutation(len(labels))
    by_class = mixed[np.argsort(labels[mixed], kind="stable")]
    place_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_held_out = np.zeros(len(labels), np.bool)
    is_held_out[by_class[place_in_class < np.repeat(parts, counts)]] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
