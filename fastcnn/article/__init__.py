"""The network of the article "CNNs, Part 1" and "Part 2", under its names, on any engine.

:mod:`~fastcnn.article.layers` holds ``Conv3x3``, ``MaxPool2`` and ``Softmax``. The article's
training script runs unchanged with them in place of its own classes. :mod:`~fastcnn.article.net` is
the script's network, :mod:`~fastcnn.article.examples` holds the article's pictures as functions.

Source: V. Zhou, "CNNs, Part 1: An Introduction to Convolutional Neural Networks" and "CNNs,
Part 2: Training a Convolutional Neural Network", 2019.
"""

from fastcnn.article.examples import (
    HORIZONTAL_SOBEL,
    IMAGE,
    VERTICAL_SOBEL,
    filter_image,
    four_by_four,
    horizontal_sobel,
    same_padding,
    vertical_sobel,
)
from fastcnn.article.layers import Conv3x3, MaxPool2, Softmax
from fastcnn.article.net import ArticleNet

__all__ = [
    "HORIZONTAL_SOBEL",
    "IMAGE",
    "VERTICAL_SOBEL",
    "ArticleNet",
    "Conv3x3",
    "MaxPool2",
    "Softmax",
    "filter_image",
    "four_by_four",
    "horizontal_sobel",
    "same_padding",
    "vertical_sobel",
]
