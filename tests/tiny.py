"""Tiny data and nets for tests of training: they learn in a blink."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.layers import Conv2D, Dense, Flatten, Layer, MaxPool2D


def stripes(count: int, seed: int = 0) -> tuple[Array, Array]:
    """Images (N, 9, 8) of bytes with noise and a bright stripe, and which of 3 places it is in."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    images = rng.integers(0, 60, (count, 9, 8))
    images[np.arange(count), 3 * labels + 1] += 180
    return images.astype(np.uint8), labels


def net() -> list[Layer]:
    """A convolution, a pooling and two dense layers, for :func:`stripes`."""
    return [
        Conv2D(4, (3, 2), activation="relu"),
        MaxPool2D((1, 2)),
        Flatten(),
        Dense(6, activation="relu"),
        Dense(3),
    ]
