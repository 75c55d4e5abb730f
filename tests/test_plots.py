"""Pictures: what their panels show and say; on Matplotlib's Agg backend, no pixels compared."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from processes import python
from tiny import stripes

import fastcnn
from fastcnn import History, Input, Model, Sequential, plots
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    Add,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    ReLU,
    Residual,
    SeparableConv2D,
)
from fastcnn.plots import canvas
from fastcnn.plots.graph_layout import layout
from fastcnn.plots.svg import svg

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _headless() -> Iterator[None]:
    mpl.use("Agg")
    yield
    pyplot.close("all")


def net(channels: int = 1, dtype: Any = "float32", filters: int = 4) -> Sequential:
    layers: list[Layer] = [
        Conv2D(filters, (3, 2), activation="relu"),
        MaxPool2D((2, 1)),
        Conv2D(3, 1),
        Flatten(),
        Dense(3),
    ]
    return Sequential(layers, (9, 8, channels), seed=1, dtype=dtype, engine="im2col")


def drawn(figure: Any) -> list[Array]:
    """Everything is drawn without an error; the arrays of the images."""
    figure.canvas.draw()
    return [np.asarray(image.get_array()) for ax in figure.axes for image in ax.images]


def titles(figure: Any) -> list[str]:
    return [ax.get_title() or ax.get_title(loc="left") for ax in figure.axes]


def headline(figure: Any) -> str:
    return figure.get_suptitle().replace("\n", " ")


# --- learning curves ------------------------------------------------------------------------------


def test_curves_of_a_history() -> None:
    history = History(
        {
            "loss": [0.9, 0.5, 0.4],
            "accuracy": [0.6, 0.8, 0.85],
            "val_loss": [0.8, 0.6, 0.5],
            "val_accuracy": [0.65, 0.7, 0.75],
            "learning_rate": [0.1, 0.1, 0.1],
            "seconds": [1.0, 1.0, 1.0],
        }
    )
    figure = history.plot()
    assert titles(figure) == ["loss", "accuracy"]
    for ax, names in zip(
        figure.axes, (("loss", "val_loss"), ("accuracy", "val_accuracy")), strict=True
    ):
        assert [line.get_label() for line in ax.lines] == list(names)
        for line, name in zip(ax.lines, names, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_array_equal(line.get_ydata(), history.history[name])
        legend = ax.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]
        assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
    drawn(figure)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ({"loss": [0.5]}, ["loss"]),
        ({"loss": [0.5, np.nan, np.inf, 0.2]}, ["loss (2 not finite, left out)"]),
        ({"loss": [np.nan], "accuracy": [0.1]}, ["loss (1 not finite, left out)", "accuracy"]),
        ({"accuracy": [0.5] * 100}, ["accuracy"]),
        ({"loss": [1, 2], "a_loss": [1, 1], "b_loss": [0, 1]}, ["loss"]),
        (
            {
                "loss": [1, 2],
                "f1": [0, 1],
                "val_f1": [0, 0.5],
                "val_top_3_accuracy": [0, 1],
                "val_mae": [2, 1],
                "learning_rate": [1, 1],
                "seconds": [1, 1],
            },
            ["loss", "accuracy", "f1", "mae"],
        ),
    ],
)
def test_curves_of_short_and_broken_histories(history: Any, expected: list[str]) -> None:
    figure = plots.history(history, width=4)
    assert titles(figure) == expected
    drawn(figure)
    assert len(figure.axes[0].lines) == (sum("loss" in name for name in history) or 1)
    if "f1" in history:
        legend: Any = figure.axes[2].get_legend()
        assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]
        assert [line.get_label() for line in figure.axes[2].lines] == ["f1", "val_f1"]
    nothing = [text.get_text() for text in figure.axes[0].texts]
    assert nothing == (["no finite figure"] if history.get("loss") == [np.nan] else [])


@pytest.mark.parametrize("history", [{}, {"loss": []}, {"seconds": [1.0]}, 3, {"loss": [[1]]}])
def test_a_history_without_epochs_is_refused(history: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="history must"):
        plots.history(history)


# --- filters and feature maps ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filters_on_one_channel_are_the_weights(dtype: str) -> None:
    model = net(dtype=dtype)
    figure = plots.filters(model)
    weights = np.asarray(model.layers[0].parameters["w"])
    arrays = drawn(figure)
    assert titles(figure)[:4] == ["0", "1", "2", "3"]
    for i in range(4):
        np.testing.assert_array_equal(arrays[i], weights[:, :, 0, i])
    low, high = figure.axes[0].images[0].get_clim()
    assert -low == high == pytest.approx(np.abs(weights).max())
    assert headline(figure).startswith("conv2d, Conv2D(4, (3, 2), activation='relu'): 3×2")
    drawn(plots.filters(model.layers[0]))


def test_filters_on_three_channels_are_colours_and_others_a_table() -> None:
    colours = drawn(plots.filters(net(3)))
    assert [array.shape for array in colours] == [(3, 2, 3)] * 4
    assert min(array.min() for array in colours) >= 0
    assert max(array.max() for array in colours) <= 1
    model = Sequential([Conv2D(30, (2, 3))], (5, 6, 20), engine="im2col", seed=0)
    figure = plots.filters(model, width=4)
    (table,) = drawn(figure)[:1]
    assert table.shape == (12 * 3 - 1, 9 * 4 - 1)
    assert "the 9 of 30 filters with the largest weights" in headline(figure)
    assert "the 12 of 20 input channels with the largest weights" in headline(figure)
    weights = np.asarray(model.layers[0].parameters["w"])
    sizes = np.square(weights).sum(axis=(0, 1, 2))
    columns = [int(label.get_text()) for label in figure.axes[0].get_xticklabels()]
    assert columns == sorted(np.argsort(-sizes)[:9])
    rows = [int(label.get_text()) for label in figure.axes[0].get_yticklabels()]
    np.testing.assert_array_equal(table[3:5, 4:7], weights[:, :, rows[1], columns[1]])


def test_weights_without_pixels_are_a_matrix() -> None:
    model = net()
    np.testing.assert_array_equal(
        drawn(plots.filters(model, 2))[0], np.asarray(model.layers[2].parameters["w"])[0, 0].T
    )
    np.testing.assert_array_equal(
        drawn(plots.filters(model, "dense"))[0], np.asarray(model.layers[4].parameters["w"]).T
    )
    large = Sequential([Dense(100)], (600,), engine="im2col")
    figure = plots.filters(large)
    assert drawn(figure)[0].shape == (64, 256)
    assert "64 of 100 outputs" in headline(figure)
    assert "256 of 600 inputs" in headline(figure)
    for layer in (DepthwiseConv2D(3), SeparableConv2D(3, 3)):
        drawn(plots.filters(Sequential([layer], (5, 5, 2), engine="im2col")))


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_are_the_activations(channels: int) -> None:
    model = net(channels)
    x = RNG.integers(0, 256, (9, 8, channels)).astype(np.uint8)
    figure = plots.feature_maps(model, x)
    picture, *maps = drawn(figure)[:5]
    np.testing.assert_allclose(picture, x[..., 0] / 255 if channels == 1 else x / 255)
    expected = model.activations(x[np.newaxis], "conv2d")[0]
    np.testing.assert_array_equal(np.stack(maps, axis=-1), expected)
    assert titles(figure)[:5] == ["input", "0", "1", "2", "3"]
    assert {image.get_clim() for ax in figure.axes[1:5] for image in ax.images} == {
        (0.0, expected.max())
    }
    assert headline(figure).endswith(": 7×7, 4 channels")
    if channels == 1:  # a plain image, and one with an axis for the batch
        assert len(drawn(plots.feature_maps(model, x[..., 0]))) == len(drawn(figure))
        drawn(plots.feature_maps(model, x[np.newaxis]))


def test_of_many_channels_those_that_vary_most_are_shown() -> None:
    model = net(filters=500)
    x = RNG.standard_normal((9, 8))
    figure = plots.feature_maps(model, x, 0, most=20)
    assert headline(figure).endswith("the 20 of 500 channels that vary most")
    spread = np.ptp(model.activations(x[np.newaxis], 0)[0], axis=(0, 1))
    shown = [int(title) for title in titles(figure)[1:21]]
    assert shown == sorted(shown)
    assert spread[shown].min() >= np.delete(spread, shown).max()
    figure = plots.filters(model, most=16)
    assert "the 16 of 500 filters with the largest weights" in headline(figure)
    drawn(figure)


def test_constant_maps_and_numbers_that_are_not_finite() -> None:
    model = net()
    with np.errstate(all="raise"):
        drawn(plots.feature_maps(model, np.zeros((9, 8))))
        drawn(plots.saliency(Sequential([Flatten(), Dense(2, kernel_initializer="zeros")],
                                        (5, 4, 1), engine="im2col"), np.ones((5, 4))))  # fmt: skip
    assert canvas.limits([np.array([np.nan, np.inf])]) == (0.0, 1.0)
    low, high = canvas.limits([np.full(3, 1e30)])
    assert low < 1e30 < high
    model.layers[0].parameters["w"][0, 0, 0, 0] = np.nan
    drawn(plots.filters(model))


def test_vectors_are_bars_or_a_line() -> None:
    model = net()
    x = RNG.standard_normal((9, 8))
    ax = plots.feature_maps(model, x, "dense").axes[0]
    heights = [bar.get_height() for bar in ax.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights, model.activations(x[np.newaxis], "dense")[0])
    rows = Sequential([Dense(300), ReLU(), Dense(2)], (4,), engine="im2col")
    ax = plots.feature_maps(rows, np.ones(4)).axes[0]
    np.testing.assert_allclose(
        ax.lines[0].get_ydata(), rows.activations(np.ones((1, 4)), 0)[0], atol=1e-6
    )


def test_sobel_shows_edges() -> None:
    image = np.zeros((6, 7))
    image[:, 3:] = 1
    figure = plots.sobel(image)
    _, _, vertical, strength, _, horizontal = drawn(figure)
    np.testing.assert_allclose(vertical[:, 1:3], 4)
    np.testing.assert_allclose(horizontal, 0)
    np.testing.assert_allclose(strength, np.abs(vertical))
    assert [text.get_text() for text in figure.axes[1].texts] == [
        "−1",
        "0",
        "1",
        "−2",
        "0",
        "2",
        "−1",
        "0",
        "1",
    ]
    assert drawn(plots.sobel())[0].shape == (28, 28)
    for wrong in (np.zeros((6, 7, 3)), np.zeros((2, 9)), np.zeros(9)):
        with pytest.raises(ValueError, match="image must"):
            plots.sobel(wrong)


# --- predictions ----------------------------------------------------------------------------------


def test_the_confusion_matrix_counts() -> None:
    labels, guesses = RNG.integers(0, 4, 200), RNG.integers(0, 4, 200)
    ax = plots.confusion_matrix(labels, guesses, names=["a", "b", "c", "d"])
    cells = {(text.get_position()): text.get_text() for text in ax.texts}
    for i in range(4):
        for j in range(4):
            assert cells[(j, i)] == str(((labels == i) & (guesses == j)).sum())
    right = (labels == guesses).sum()
    assert ax.get_title(loc="left") == f"{right} of 200 right ({right / 200:.2%})"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c", "d"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    own = pyplot.figure().add_subplot()
    assert plots.confusion_matrix([0, 1], [0, 1], own) is own
    many = plots.confusion_matrix(np.arange(60), np.arange(60))
    assert len(many.texts) == 0
    assert len(many.get_xticks()) == 20
    drawn(many.figure)


@pytest.mark.parametrize(
    ("labels", "guesses", "names", "message"),
    [
        ([0, 1], [0], None, "predictions must be as many"),
        ([], [], None, "labels must be at least one"),
        ([0.5], [1], None, "labels must be class numbers"),
        ([0], [-1], None, "predictions must be at least 0"),
        ([0], [10**6], None, "labels must be below"),
        ([0, 2], [0, 1], ["a", "b"], "names must name 3 classes, got 2"),
    ],
)
def test_wrong_classes_are_refused(labels: Any, guesses: Any, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.confusion_matrix(labels, guesses, names=names)


def test_mistakes_are_the_most_surely_wrong() -> None:
    model = net()
    x, y = stripes(40)
    x = x[:, :, :8]
    predicted = model.predict(x)
    wrong = predicted.argmax(axis=1) != y
    assert 3 < wrong.sum() < 40
    order = sorted(np.flatnonzero(wrong), key=lambda k: -predicted[k].max())[:3]
    figure = plots.mistakes(model, x, y, most=3)
    pictures = drawn(figure)
    assert len(pictures) == 3
    for k, ax, picture in zip(order, figure.axes[::2], pictures, strict=True):
        guess = predicted[k].argmax()
        assert ax.get_title() == f"no. {k}: {y[k]}\nread as {guess}"
        np.testing.assert_allclose(picture, x[k] / 255)
    first = figure.axes[1]
    best = np.argsort(-predicted[order[0]])
    for text, bar, k in zip(first.texts, first.patches, best, strict=True):
        assert text.get_text() == f"{k}: {predicted[order[0]][k]:.1%}"
        assert bar.get_width() == pytest.approx(predicted[order[0]][k])  # type: ignore[attr-defined]
    assert headline(figure) == f"most surely wrong: 3 of {wrong.sum()} mistakes in 40"
    none = plots.mistakes(model, x, predicted.argmax(axis=1))
    assert [t.get_text() for t in none.axes[0].texts] == ["none of 40 pictures is wrong"]


# --- what a prediction depends on -----------------------------------------------------------------


def linear() -> Sequential:
    """A net whose outputs are the sums of the upper and the lower rows, in plain numbers."""
    model = Sequential([Flatten(), Dense(2)], (4, 6, 1), engine="im2col")
    weights = np.zeros((24, 2))
    weights[:12, 0] = weights[12:, 1] = 1
    model.layers[1].parameters = {"w": weights, "b": np.zeros(2)}
    model.loss = "mse"
    return model


def test_saliency_is_the_size_of_the_gradient() -> None:
    model, x = net(3), RNG.standard_normal((9, 8, 3)).astype(np.float32)
    figure = plots.saliency(model, x)
    number = int(model.predict(x[np.newaxis])[0].argmax())
    gradient = model.input_gradient(x[np.newaxis], number)[0]
    np.testing.assert_allclose(drawn(figure)[1], np.abs(gradient).max(axis=2), rtol=1e-5)
    assert headline(figure) == f"what output {number} depends on"
    upper = drawn(plots.saliency(linear(), np.ones((4, 6)), 0))[1]
    np.testing.assert_array_equal(upper, np.repeat([1, 1, 0, 0], 6).reshape(4, 6))


def test_occlusion_is_what_covering_takes_away() -> None:
    model, x = linear(), np.ones((4, 6))
    figure = plots.occlusion(model, x, 1, size=(2, 3), stride=1, fill=0)
    fall = drawn(figure)[1]
    by_hand, times = np.zeros((4, 6)), np.zeros((4, 6))
    for top in range(3):
        for left in range(4):
            covered = x.copy()
            covered[top : top + 2, left : left + 3] = 0
            lost = x[2:].sum() - covered[2:].sum()
            by_hand[top : top + 2, left : left + 3] += lost
            times[top : top + 2, left : left + 3] += 1
    np.testing.assert_allclose(fall, by_hand / times, atol=1e-5)
    image = (RNG.random((4, 6, 1)) * 255).astype(np.uint8)
    whole = plots.occlusion_map(model, image, 0, (4, 6), fill=128)
    scaled = image[..., 0] / 255 - 0.5
    np.testing.assert_allclose(whole, scaled[:2].sum() - 12 * (128 / 255 - 0.5), atol=1e-4)
    for wrong in ({"size": 7}, {"size": 0}, {"stride": (1, 9)}, {"fill": np.nan}, {"output": 2}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
            plots.occlusion_map(model, image, **{"output": 0, **wrong})


def test_the_strongest_responses_and_their_places() -> None:
    model = Sequential(
        [Conv2D(2, (3, 2), strides=2, activation="relu")], (9, 8, 1), engine="im2col", seed=0
    )
    model.layers[0].parameters["w"][..., 1] = 1.0
    images = np.zeros((5, 9, 8))
    images[3, 4:7, 2:4] = 1
    images[1, 0, 6] = 1
    first, second = plots.strongest_responses(model, images, "conv2d", 1, most=2, batch_size=2)
    assert first == plots.Response(3, 6.0, (2, 1), (4, 7, 2, 4))
    assert (second.sample, second.position, second.box) == (1, (0, 3), (0, 3, 6, 8))
    figure = plots.responses(model, images, "conv2d", 1, most=3)
    assert titles(figure) == ["no. 3: 6", "no. 1: 1", "no. 0: 0", "by gradient ascent"]
    assert [len(ax.patches) for ax in figure.axes] == [2, 2, 0, 0]  # a frame in two colours
    assert headline(figure).startswith("channel 1 of conv2d")
    drawn(figure)


def test_gradient_ascent_finds_what_a_channel_likes() -> None:
    model = net(3)
    image = plots.preferred_image(model, "conv2d", 2)
    assert image.shape == (9, 8, 3)
    assert -0.5 <= image.min() < image.max() <= 0.5
    grey = RNG.standard_normal((20, 9, 8, 3)) * 0.2
    others = model.activations(grey.astype(np.float32), "conv2d")[..., 2].mean(axis=(1, 2))
    assert model.activations(image[np.newaxis], "conv2d")[..., 2].mean() > 1.5 * others.max()
    np.testing.assert_array_equal(image, plots.preferred_image(model, "conv2d", 2))
    figure = plots.preferred_images(model, "conv2d", most=3, steps=2)
    assert titles(figure) == ["0", "1", "2"]
    assert headline(figure).endswith("the first 3 of 4 channels")
    with pytest.raises(ValueError, match="channel must be from 0 to 3, got 4"):
        plots.preferred_image(model, "conv2d", 4)
    inside = Sequential([Residual([Conv2D(1, 1)])], (4, 5, 1), engine="im2col")
    with pytest.raises(ValueError, match="no layer inside of another one"):
        plots.preferred_image(inside, "residual.layers.0", 0)


# --- the graph ------------------------------------------------------------------------------------


def branches() -> Model:
    """Two inputs, one of them an image, a skip over two layers, and two outputs."""
    image, row = Input((9, 8, 1), name="image"), Input((5,), name="row")
    x = Conv2D(4, 3)(image)
    y = Conv2D(4, 3, padding="same")(ReLU()(x))
    pooled = GlobalAvgPool2D()(Add()([x, y]))
    joined = Add()([pooled, Dense(4)(row)])
    return Model([image, row], [Dense(2)(joined), Dense(3)(joined)], seed=0, engine="im2col")


def test_the_graph_has_a_box_for_each_call_and_a_line_for_each_value() -> None:
    from matplotlib.patches import FancyBboxPatch, PathPatch

    model = branches()
    ax = plots.graph(model)
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    lines = [patch for patch in ax.patches if isinstance(patch, PathPatch)]
    assert len(boxes) == len(ax.texts) == 11
    assert [text.get_text().split("\n")[1] for text in ax.texts][-2:] == [
        "dense_1  (2,)  → output", "dense_2  (3,)  → output",
    ]  # fmt: skip
    assert [text.get_text() for text in ax.texts][:2] == ["image\n(9, 8, 1)", "row\n(5,)"]
    arrows = sum(len(node.inputs) for node in model._graph.nodes)
    assert len(ax.lines) == arrows
    assert len(lines) > arrows  # long edges pass levels
    ax.figure.canvas.draw()
    for text, box in zip(ax.texts, boxes, strict=True):  # no text is wider than its box
        inner, outer = text.get_window_extent(), box.get_window_extent()
        assert outer.x0 <= inner.x0
        assert inner.x1 <= outer.x1
        assert outer.y0 <= inner.y0
        assert inner.y1 <= outer.y1


@pytest.mark.parametrize("width", [3.0, 3.9, 8.0])
def test_boxes_are_wide_enough_for_the_layers_where_there_is_room(width: float) -> None:
    conv = Conv2D(16, 3, padding="same", use_bias=False)
    chain = Sequential([conv, ReLU()], (9, 8, 1), engine="im2col")
    shown = plots.graph(chain, width=width).texts[1].get_text()
    assert shown.startswith("Conv2D(16, 3, padding='same', use")
    assert (repr(conv) in shown) == (width > 3.5)
    figure = canvas.figure_of(None, width, 3.0)
    assert plots.graph(chain, figure.add_subplot()).texts[1].get_text().split("\n")[1] == (
        "conv2d  (9, 8, 16)"
    )


@pytest.mark.parametrize("seed", range(20))
def test_boxes_of_any_graph_are_apart_and_no_line_crosses_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs: list[tuple[int, ...]] = [()]
    for value in range(1, 25):
        near = rng.integers(max(0, value - 6), value, rng.integers(1, 4))
        inputs.append(tuple(int(one) for one in near))
    plan = layout(inputs, 3.0, 0.5)
    boxes = {place.value: place for level in plan.levels for place in level}
    assert {*range(25)} <= boxes.keys()
    for level in plan.levels:
        order = sorted(level, key=lambda place: place.x)
        for left, right in pairwise(order):
            assert right.x - left.x >= (left.width + right.width) / 2 - 1e-6
    for value, taken in enumerate(inputs):
        for source in {*taken}:
            assert boxes[source].level < boxes[value].level
            ends = [*boxes[source].below]
            assert any(_leads(one, boxes[value]) for one in ends)
    for level, below in zip(plan.levels, [*plan.levels[1:], []], strict=True):
        assert all(lower in below for place in level for lower in place.below)


def _leads(place: Any, target: Any) -> bool:
    while place.value is None:
        (place,) = place.below
    return place is target


def test_a_deep_net_keeps_its_letters_and_a_deeper_one_is_refused() -> None:
    deep = Sequential([Dense(1) for _ in range(60)], (1,), engine="im2col")
    ax = plots.graph(deep)
    assert {text.get_fontsize() for text in ax.texts} == {canvas.SMALL}
    with pytest.raises(ValueError, match="model must have at most 800 layers in a row, got 802"):
        plots.graph(Sequential([ReLU() for _ in range(801)], (1,), engine="im2col"))


# --- models, figures, arguments -------------------------------------------------------------------


def test_several_inputs_and_outputs() -> None:
    model = branches()
    x = {"image": RNG.standard_normal((9, 8)), "row": np.ones(5)}
    assert titles(plots.feature_maps(model, x))[:2] == ["image", "0"]
    figure = plots.saliency(model, [x["image"], x["row"]], {"dense_1": 1, "dense_2": None})
    assert titles(figure)[:3] == ["image", "|gradient|", "both"]
    assert drawn(figure)[1].max() > 0
    with pytest.raises(ValueError, match="output must say for each output"):
        plots.saliency(model, x)
    with pytest.raises(ValueError, match="one input and one output"):
        plots.occlusion(model, x)
    with pytest.raises(ValueError, match="x must have a sample for each"):
        plots.feature_maps(model, {"image": x["image"]})


def test_nets_without_images() -> None:
    model = Sequential([Dense(4), Dense(2)], (3,), engine="im2col")
    for picture in (plots.saliency, plots.occlusion):
        with pytest.raises(ValueError, match="model must take images"):
            picture(model, np.zeros(3))
    with pytest.raises(ValueError, match="model must take images"):
        plots.mistakes(model, np.zeros((1, 3)), [0])
    with pytest.raises(ValueError, match="model must take images"):
        plots.preferred_images(model, 0)
    drawn(plots.feature_maps(model, np.zeros(3)))
    drawn(plots.filters(model))
    drawn(plots.graph(model).figure)


@pytest.mark.parametrize("kind", ["figure", "subfigure", "narrow"])
def test_the_callers_figure_is_drawn_into(kind: str) -> None:
    whole = Figure(figsize=(3 if kind == "narrow" else 9, 6), layout="constrained")
    target: Any = whole.subfigures(1, 2)[1] if kind == "subfigure" else whole
    model, x = net(), RNG.standard_normal((9, 8))
    assert plots.feature_maps(model, x, figure=target) is target
    assert len(target.axes) >= 5
    columns = len({round(ax.get_position().x0, 3) for ax in target.axes[:5]})
    assert columns == (5 if kind == "figure" else 3)
    drawn(whole)
    assert not pyplot.get_fignums()


def test_new_figures_are_pyplots_unless_detached() -> None:
    figure = plots.history({"loss": [1.0]})
    assert pyplot.gcf() is figure
    with canvas.detached_figures():
        plots.history({"loss": [1.0]})
        plots.graph(net())
    assert len(pyplot.get_fignums()) == 1


def test_a_notebook_shows_a_figure_once(monkeypatch: pytest.MonkeyPatch) -> None:
    figure: Any = plots.history({"loss": [1.0]})
    with pytest.raises(NotImplementedError):  # IPython then takes its usual way
        figure._ipython_display_()
    assert pyplot.fignum_exists(figure.number)  # a window of another backend stays
    monkeypatch.setattr(mpl, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    with pytest.raises(NotImplementedError):
        figure._ipython_display_()
    assert not pyplot.get_fignums()  # so the end of the cell does not show it again


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: plots.feature_maps(3, x), TypeError, "model must be a fastcnn.Model"),
        (lambda m, x: plots.feature_maps(m, x, "no"), ValueError, "layer must be the name"),
        (lambda m, x: plots.feature_maps(m, x[:5]), ValueError, "x must be one sample"),
        (lambda m, x: plots.feature_maps(m, np.stack([x, x])), ValueError, "x must be one sample"),
        (lambda m, x: plots.feature_maps(m, x, most=0), ValueError, "most must be at least 1"),
        (lambda m, x: plots.feature_maps(m, x, width="8"), TypeError, "width must be a number"),
        (lambda m, x: plots.feature_maps(m, x, width=0), ValueError, "width must be from 2 to 50"),
        (lambda m, x: plots.feature_maps(m, x, figure=3), TypeError, "figure must be"),
        (lambda m, x: plots.graph(m, 3), TypeError, "ax must be"),
        (lambda m, x: plots.filters(m, 1), ValueError, "layer must have weights"),
        (lambda m, x: plots.filters(m.layers[0], 1), ValueError, "layer must be None"),
        (lambda m, x: plots.filters(Sequential([ReLU()], (2,))), ValueError, "a layer with weig"),
        (lambda m, x: plots.saliency(m, x, 9), ValueError, "output must be from 0 to 2"),
        (lambda m, x: plots.mistakes(m, x[None], [0, 1]), ValueError, "y must have 1 class"),
        (lambda m, x: plots.responses(m, x[:0][None], 0, 0), ValueError, "x must"),
        (lambda m, x: plots.graph(Sequential([Dense(2)])), ValueError, "input_shape must be known"),
    ],
)
def test_wrong_arguments_are_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(net(), np.zeros((9, 8)))
    assert not pyplot.get_fignums()


@pytest.mark.parametrize("lazy", [False, True])
def test_images_of_a_folder(lazy: bool, tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 8), np.uint8)
    for number, picture in enumerate(pixels):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        images.fromarray(picture).save(folder / f"{number}.png")
    data = fastcnn.load_images(tmp_path, (9, 8), "gray", lazy=lazy)
    x, y = np.array([data.images[number] for number in range(6)]), data.labels
    assert sorted(map(bytes, x)) == sorted(map(bytes, pixels))
    np.testing.assert_array_equal(data.images[-1], x[5])
    with pytest.raises(IndexError):
        data.images[6]
    model = net()
    model.trained_on = "uint8"
    np.testing.assert_array_equal(model.activations(data, 0), model.activations(x, 0))
    strongest = plots.strongest_responses(model, data, 0, 1, most=3)
    assert strongest == plots.strongest_responses(model, x, 0, 1, most=3)
    axes = plots.responses(model, data, 0, 1, most=3).axes
    for ax, one in zip(axes, strongest, strict=False):
        np.testing.assert_allclose(ax.images[0].get_array(), x[one.sample, ..., 0] / 255)
    shown = plots.mistakes(model, data, y).axes[::2]
    assert [ax.get_title() for ax in shown] == [
        ax.get_title() for ax in plots.mistakes(model, x, y).axes[::2]
    ]
    for ax in shown:
        number = int(re.findall(r"\d+", ax.get_title())[0])
        np.testing.assert_allclose(ax.images[0].get_array(), x[number, ..., 0] / 255)


def test_a_net_of_free_sizes_says_how_to_fix_them() -> None:
    model = net()
    model._for_other_samples = lambda shape: f"; a hint for {shape}"  # as of an ONNX file
    for call in (
        lambda: plots.feature_maps(model, np.zeros((7, 5, 1))),
        lambda: plots.saliency(model, np.zeros((7, 5, 1))),
        lambda: model.activations(np.zeros((2, 7, 5, 1)), 0),
    ):
        with pytest.raises(ValueError, match=r"a hint for \(7, 5, 1\)"):
            call()


def test_curves_have_gaps_where_figures_are_not_finite() -> None:
    (ax,) = plots.history({"loss": [1.0, np.inf, 0.5, np.nan]}).axes
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1.0, np.nan, 0.5, np.nan])


def test_the_frame_stands_around_the_pixels_of_the_response() -> None:
    model = Sequential([Conv2D(1, (2, 3), kernel_initializer="ones")], (6, 9, 1), engine="im2col")
    images = np.zeros((1, 6, 9))
    images[0, 1:3, 5:8] = 1
    frame = plots.responses(model, images, 0, 0).axes[0].patches[-1]
    assert frame.get_xy() == (4.5, 0.5)
    assert (frame.get_width(), frame.get_height()) == (3, 2)


def test_colours_of_both_signs_reach_as_far() -> None:
    for low, high in ((-3.0, 1.0), (-1.0, 3.0)):
        scale = canvas.scale_of([np.array([low, high])])
        assert (scale["vmin"], scale["vmax"]) == (-3.0, 3.0)


def test_the_name_of_a_picture_in_a_page_is_text() -> None:
    element = svg(lambda: plots.history({"loss": [1.0]}), 'a "b" <script>')
    assert element.startswith('<svg role="img" aria-label="a &quot;b&quot; &lt;script&gt;"')
    assert "<script>" not in element


def test_without_matplotlib_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["matplotlib"] = None
import fastcnn
from fastcnn import plots
assert "matplotlib" in sys.modules
for draw in (fastcnn.History({"loss": [1.0]}).plot, plots.sobel):
    try:
        draw()
    except ImportError as error:
        print(error)
"""
    lines = python("-c", code).stdout.splitlines()
    assert len(lines) == 2
    assert all('pip install "fastcnn[plots]"' in line for line in lines)


def test_nothing_else_imports_matplotlib() -> None:
    code = "import sys, fastcnn; fastcnn.plots; print('matplotlib' in sys.modules)"
    assert python("-c", code).stdout.strip() == "False"


def test_fastcnn_names_the_room() -> None:
    assert fastcnn.plots is plots


def test_examples_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parent.parent / "docs" / "pictures.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    assert all(block.startswith(">>> ") for block in blocks)
    test = doctest.DocTestParser().get_doctest("".join(blocks), {}, page.name, str(page), 0)
    report: list[str] = []
    failed = doctest.DocTestRunner().run(test, out=report.append).failed
    assert not failed, "".join(report)
    assert {path.name for path in tmp_path.iterdir()} == {"history.png", "page.png"}
    text = page.read_text("utf-8")
    public = {name for name, value in vars(plots).items() if callable(value)}
    shown = {*re.findall(r"plots\.(\w+)", text)}
    assert public - shown == {"Response", "preferred_image"}
