"""Nets by name: functions that return new layers.

Sources: V. Zhou, "CNNs, Part 1", 2019 (``article``); Y. LeCun et al., "Gradient-Based Learning
Applied to Document Recognition", 1998 (``lenet5``); K. He et al., "Deep Residual Learning for Image
Recognition", arXiv:1512.03385 (``resnet8``: n = 1).
"""

from __future__ import annotations

from collections.abc import Callable

from fastcnn.layers import (
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
)


def article(classes: int = 10) -> list[Layer]:
    """The article's net: 8 filters 3×3, max-pooling, one dense layer; drawn as it draws.

    >>> article()
    [Conv2D(8, 3, use_bias=False, kernel_initializer='article'), MaxPool2D(), Flatten(),
     Dense(10, kernel_initializer='article')]
    """
    return [
        Conv2D(8, 3, use_bias=False, kernel_initializer="article"),
        MaxPool2D(2),
        Flatten(),
        Dense(classes, kernel_initializer="article"),
    ]


def lenet5(classes: int = 10) -> list[Layer]:
    """LeNet-5 with ReLU and max-pooling, for 28×28 images."""
    he = "he_normal"
    return [
        Conv2D(6, 5, padding="same", activation="relu", kernel_initializer=he),
        MaxPool2D(2),
        Conv2D(16, 5, activation="relu", kernel_initializer=he),
        MaxPool2D(2),
        Flatten(),
        Dense(120, activation="relu", kernel_initializer=he),
        Dense(84, activation="relu", kernel_initializer=he),
        Dense(classes),
    ]


def small(classes: int = 10) -> list[Layer]:
    """Two convolutions of 32 and 64 filters 3×3, max-pooling, 128 units."""
    he = "he_normal"
    return [
        Conv2D(32, 3, activation="relu", kernel_initializer=he),
        Conv2D(64, 3, activation="relu", kernel_initializer=he),
        MaxPool2D(2),
        Flatten(),
        Dense(128, activation="relu", kernel_initializer=he),
        Dense(classes),
    ]


NETS: dict[str, Callable[..., list[Layer]]] = {
    "article": article,
    "lenet5": lenet5,
    "small": small,
}
"""Nets by name, each a function of the number of classes."""
