"""The pictures of the tutorial, which the documentation's build makes.

Each function returns a figure of matplotlib.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import fastcnn
from fastcnn.article import filter_image
from fastcnn.article.examples import HORIZONTAL_SOBEL, VERTICAL_SOBEL
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D

Numbers = NDArray[np.floating[Any]]


def _row(images: list[tuple[str, Numbers]], signed: bool = False) -> Figure:
    """Images in rows of at most four, with titles; signed ones in two colours around 0."""
    columns = min(len(images), 4)
    rows = len(images) // columns
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for one, (title, image) in zip(axes, images, strict=True):
        most = float(np.abs(image).max()) or 1.0
        colours = {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if signed else {"cmap": "gray"}
        one.imshow(image, **colours)
        one.set_title(title, fontsize=9)
        one.set_axis_off()
    return figure


@cache
def _digits() -> tuple[NDArray[np.uint8], Any, NDArray[np.uint8], Any]:
    (x, y), (x_test, y_test) = fastcnn.load_mnist()
    return x, y, x_test, y_test


@cache
def _trained() -> tuple[fastcnn.Sequential, Any]:
    """The article's net after two epochs of 10,000 digits, and the history."""
    x, y, x_test, y_test = _digits()
    layers = [Conv2D(8, 3), MaxPool2D(2), Flatten(), Dense(10)]
    model = fastcnn.Sequential(layers, input_shape=(28, 28, 1), seed=0)
    validation = x_test[:2000], y_test[:2000]
    history = model.fit(
        x[:10_000], y[:10_000], epochs=6, validation_data=validation, seed=0, verbose=0
    )
    return model, history


def sobel() -> Figure:
    """A digit, and the results of both Sobel filters."""
    _, _, x_test, _ = _digits()
    digit = x_test[0].astype(np.float64)
    return _row(
        [
            ("a digit", digit),
            ("vertical Sobel filter", filter_image(digit, VERTICAL_SOBEL)),
            ("horizontal Sobel filter", filter_image(digit, HORIZONTAL_SOBEL)),
        ],
        signed=True,
    )


def pooling() -> Figure:
    """A feature map before and after pooling."""
    _, _, x_test, _ = _digits()
    edges = filter_image(x_test[0].astype(np.float64), VERTICAL_SOBEL)
    pooled = fastcnn.max_pool2d(edges[None, :, :, None], 2)[0, :, :, 0]
    return _row([("26×26", edges), ("13×13, the largest of 2×2", pooled)], signed=True)


def learning() -> Figure:
    """Loss and accuracy over the epochs."""
    _, history = _trained()
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "loss"), (right, "accuracy")):
        values = history.history
        epochs = range(1, len(values[name]) + 1)
        axes.plot(epochs, values[name], label="training")
        axes.plot(epochs, values[f"val_{name}"], label="digits it has not seen")
        axes.set_xlabel("epoch")
        axes.set_title(name)
        axes.legend(frameon=False, fontsize=8)
    return figure


def filters() -> Figure:
    """The eight trained filters."""
    model, _ = _trained()
    w = model.layers[0].parameters["w"]
    return _row([(f"filter {i}", w[:, :, 0, i]) for i in range(8)], signed=True)


def feature_maps() -> Figure:
    """What the trained filters make of a digit."""
    model, _ = _trained()
    _, _, x_test, _ = _digits()
    maps = fastcnn.Sequential(model.layers[:1], input_shape=(28, 28, 1)).predict(x_test[:1])[0]
    return _row([(f"map {i}", maps[:, :, i]) for i in range(8)], signed=True)


def saliency() -> Figure:
    """On which pixels the predicted class depends."""
    model, _ = _trained()
    _, _, x_test, y_test = _digits()
    gradients = model.input_gradient(x_test[:4], output=model.predict_classes(x_test[:4]))
    images = []
    for digit, label, gradient in zip(x_test[:4], y_test[:4], gradients, strict=True):
        images += [(f"a {label}", digit / 255.0), ("what counts", np.squeeze(gradient))]
    return _row(images, signed=True)


def im2col() -> Figure:
    """An image of 6×6 pixels, and its regions of 3×3 as rows of a matrix."""
    image = np.arange(36.0).reshape(6, 6)
    regions = np.lib.stride_tricks.sliding_window_view(image, (3, 3)).reshape(16, 9)
    return _row([("an image", image), ("its 16 regions as rows", regions)])
