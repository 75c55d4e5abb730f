"""Nets by name: functions that return new layers.

Sources: V. Zhou, "CNNs, Part 1", 2019 (``article``); Y. LeCun et al., "Gradient-Based Learning
Applied to Document Recognition", 1998 (``lenet5``); K. He et al., "Deep Residual Learning for Image
Recognition", arXiv:1512.03385 (``resnet8``: n = 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fastcnn.nn.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    ReLU,
    Residual,
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
    """Two convolutions of 16 and 32 filters 3×3, each with max-pooling, then 64 units."""
    he = "he_normal"
    return [
        Conv2D(16, 3, activation="relu", kernel_initializer=he),
        MaxPool2D(2),
        Conv2D(32, 3, activation="relu", kernel_initializer=he),
        MaxPool2D(2),
        Flatten(),
        Dense(64, activation="relu", kernel_initializer=he),
        Dense(classes),
    ]


def wide(classes: int = 10) -> list[Layer]:
    """Two convolutions of 32 and 64 filters 3×3 at full size, max-pooling, 128 units."""
    he = "he_normal"
    return [
        Conv2D(32, 3, activation="relu", kernel_initializer=he),
        Conv2D(64, 3, activation="relu", kernel_initializer=he),
        MaxPool2D(2),
        Flatten(),
        Dense(128, activation="relu", kernel_initializer=he),
        Dense(classes),
    ]


def resnet8(classes: int = 10) -> list[Layer]:
    """The smallest residual net: three blocks of 16, 32 and 64 channels, for 32×32 images.

    It takes images of any size from 4×4 on.
    """

    def convolution(filters: int, kernel_size: int, strides: int = 1) -> list[Layer]:
        conv = Conv2D(
            filters,
            kernel_size,
            strides,
            "same",
            use_bias=False,
            kernel_initializer="he_normal",
        )
        return [conv, BatchNorm()]

    def block(filters: int, strides: int) -> Layer:
        main = [*convolution(filters, 3, strides), ReLU(), *convolution(filters, 3)]
        shortcut = convolution(filters, 1, strides) if strides > 1 else None
        return Residual(main, shortcut, activation="relu")

    return [
        *convolution(16, 3),
        ReLU(),
        block(16, 1),
        block(32, 2),
        block(64, 2),
        GlobalAvgPool2D(),
        Dense(classes),
    ]


NETS: Mapping[str, Callable[..., list[Layer]]] = MappingProxyType(
    {
        "article": article,
        "lenet5": lenet5,
        "small": small,
        "wide": wide,
        "resnet8": resnet8,
    }
)
"""Nets by name, each a function of the number of classes."""
