"""A class for each pixel: operation, loss, weights, and nets that end in maps, in every engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from slopes import same, slope

import fastcnn
from fastcnn import Input, Model, Sequential
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    BatchNorm,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    GlobalAvgPool2D,
    MaxPool2D,
    ReLU,
    Softmax,
)
from fastcnn.losses import CrossEntropy, MeanSquaredError
from fastcnn.optimizers import SGD

Float = Literal["float32", "float64"]
CLASSES = 3
SHAPE = (4, 3, 5, CLASSES)
"""Images, their height and width, and classes: none of them equal."""


def scores_and_labels(shape: tuple[int, ...] = SHAPE) -> tuple[Array, Array]:
    rng = np.random.default_rng(shape)
    return rng.standard_normal(shape), rng.integers(0, shape[-1], shape[:-1])


def formula(z: Array, labels: Array) -> Array:
    """The loss of each pixel."""
    chosen = np.take_along_axis(z, labels[..., None], -1)[..., 0]
    return np.asarray(np.log(np.exp(z).sum(axis=-1)) - chosen)


def u_net(dtype: Float, engine: str | None, last: bool = False, seed: int = 0) -> Model:
    """Two levels with batch normalisation, as small as they can be."""
    inputs = Input((4, 6, 2))
    first = ReLU()(BatchNorm()(Conv2D(3, 3, padding=1)(inputs)))
    deep = Conv2D(4, 3, padding=1, activation="relu")(MaxPool2D()(first))
    joined = Concatenate()([first, Conv2DTranspose(3, 2, strides=2)(deep)])
    scores = Conv2D(CLASSES, 1)(joined)
    outputs = Softmax()(scores) if last else scores
    return Model(inputs, outputs, seed=seed, dtype=dtype, engine=engine)


def images(count: int = 5) -> tuple[Array, Array]:
    rng = np.random.default_rng(count)
    x = rng.standard_normal((count, 4, 6, 2))
    return x, rng.integers(0, CLASSES, (count, 4, 6)).astype(np.uint8)


# --- the operation --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("shape", [SHAPE, (2, 1, 3, 7), (3, 4, 2), (2, 3, 1, 2, 5)])
def test_loss_and_slope_are_those_of_the_formula(shape: tuple[int, ...], engine: str) -> None:
    z, labels = scores_and_labels(shape)
    expected = formula(z, labels)
    losses = fastcnn.cross_entropy(z, labels, reduction="none", engine=engine)
    np.testing.assert_allclose(losses, expected, rtol=1e-12, atol=1e-14)
    for reduction, total in (("mean", expected.mean()), ("sum", expected.sum())):
        result = fastcnn.cross_entropy(z, labels, reduction=reduction, engine=engine)  # type: ignore[call-overload]
        assert result == pytest.approx(total, rel=1e-12)
    gradient = fastcnn.cross_entropy_backward(z, labels, engine=engine)
    same(gradient, slope(lambda: float(fastcnn.cross_entropy(z, labels, engine=engine)), z))
    one_hot = np.eye(shape[-1])[labels]
    assert (fastcnn.cross_entropy(z, one_hot, reduction="none", engine=engine) == losses).all()
    assert (fastcnn.cross_entropy_backward(z, one_hot, engine=engine) == gradient).all()
    narrow = fastcnn.cross_entropy(z.astype(np.float32), labels, engine=engine)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, expected.mean(), rtol=1e-5)


@pytest.mark.parametrize("engine", fastcnn.engines())
def test_arrays_of_any_layout_and_empty_batches(engine: str) -> None:
    z, labels = scores_and_labels()
    expected = formula(z, labels)
    turned = np.asfortranarray(z)
    turned.flags.writeable = False
    for array in (labels.astype(np.uint8), labels.T.copy().T, labels.astype(">i4")):
        result = fastcnn.cross_entropy(turned, array, reduction="none", engine=engine)
        np.testing.assert_allclose(result, expected, rtol=1e-12)
    nothing = fastcnn.cross_entropy(z[:0], labels[:0], reduction="none", engine=engine)
    assert nothing.shape == (0, *SHAPE[1:-1])
    assert fastcnn.cross_entropy_backward(z[:0], labels[:0], engine=engine).shape == (0, *SHAPE[1:])


def test_labels_that_do_not_fit_are_refused() -> None:
    z, labels = scores_and_labels()
    with pytest.raises(ValueError, match=r"labels must have one class number per pixel"):
        fastcnn.cross_entropy(z, labels[:, 0])
    with pytest.raises(ValueError, match="labels must be at least 0 and below 3, got 3"):
        fastcnn.cross_entropy(z, np.full(labels.shape, 3))
    with pytest.raises(TypeError, match="labels must be integers, got dtype float64"):
        fastcnn.cross_entropy_backward(z, labels * 1.0)
    with pytest.raises(ValueError, match=r"\(N, …, C\) for a class of each pixel"):
        fastcnn.cross_entropy(z[0, 0, 0], labels[0, 0, 0])


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_loss_of_a_sample_is_the_mean_over_its_pixels(smoothing: float) -> None:
    z, labels = scores_and_labels()
    loss = CrossEntropy(smoothing)
    targets = loss.targets(labels.astype(np.uint8), 4, SHAPE[1:], np.float64)
    spread = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    log = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    expected = -(spread * log).sum(axis=-1).mean(axis=(1, 2))
    np.testing.assert_allclose(loss.values(z, targets), expected, rtol=1e-12)
    same(loss.gradient(z, targets), slope(lambda: float(loss.values(z, targets).sum()), z))
    right = (z.argmax(axis=-1) == labels).mean(axis=(1, 2)).sum()
    assert loss.correct(z, targets) == pytest.approx(right)
    assert 0 < right < len(z)


def test_targets_take_every_form() -> None:
    _, labels = scores_and_labels()
    loss, shape = CrossEntropy(), SHAPE[1:]
    for y in (labels, labels[..., None], labels.tolist(), np.eye(CLASSES, dtype=int)[labels]):
        assert (loss.targets(y, 4, shape, np.float32) == labels).all()
    bytes_ = labels.astype(np.uint8)
    targets = loss.targets(bytes_, 4, shape, np.float32)
    assert targets.dtype == np.uint8  # an eighth of the memory of int64
    bytes_[...] = 255
    assert (targets == labels).all()
    rows = np.full(SHAPE, 1 / CLASSES)
    soft = loss.targets(rows, 4, shape, np.float32)
    rows[...] = 0
    np.testing.assert_allclose(soft, 1 / CLASSES, rtol=1e-6)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.zeros(4, int), ValueError, r"a class for each pixel, \(4, 3, 5\).*got \(4,\)"),
        (np.zeros((4, 5, 3), int), ValueError, r"got \(4, 5, 3\)"),
        (np.zeros((3, 3, 5), int), ValueError, r"got \(3, 3, 5\)"),
        (np.full((4, 3, 5), 3), ValueError, "below 3, the number of channels .*, got 3"),
        (np.full((4, 3, 5), -1), ValueError, "y must be at least 0 and below 3, .* got -1"),
        (np.zeros((4, 3, 5)), TypeError, "y must be integers, got dtype float64"),
        (np.zeros(SHAPE), ValueError, "add up"),
        (np.full(SHAPE, "a"), TypeError, "y must hold numbers"),
        ([[1, 2], [3]], ValueError, "ragged"),
    ],
)
def test_wrong_targets_are_refused(y: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CrossEntropy().targets(y, 4, SHAPE[1:], np.float32)


# --- nets -----------------------------------------------------------------------------------------


def gradient_of(model: Model, x: Array, y: Array, **weights: Any) -> Array:
    """The gradient of a step, read off the weights that it moves."""
    before = np.concatenate([array.ravel() for array in model.get_weights()])
    model.train_on_batch(x, y, SGD(1.0), **weights)
    after = np.concatenate([array.ravel() for array in model.get_weights()])
    return np.asarray(before - after)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_engines_train_alike(dtype: Float, last: bool) -> None:
    x, y = images()
    weights = {"sample_weight": np.linspace(0, 2, 5), "class_weight": {0: 2.0, 2: 0.5}}
    for some in ({}, weights):
        expected = gradient_of(u_net("float64", "naive", last), x, y, **some)
        for engine in (None, "im2col", "numba"):
            result = gradient_of(u_net(dtype, engine, last), x, y, **some)
            share = 1e-4 if dtype == "float32" else 1e-11
            np.testing.assert_allclose(result, expected, rtol=0, atol=share * abs(expected).max())


def segment(engine: str | None) -> Sequential:
    """A net whose layers are one segment."""
    layers = [Conv2D(4, 3, padding=1, activation="relu"), Conv2D(CLASSES, 1)]
    return Sequential(layers, (4, 6, 2), seed=0, dtype="float64", engine=engine)


def test_gradients_are_central_differences() -> None:
    """Also with a weight for each pixel."""
    x, y = images(3)
    model, weights = segment(None), np.random.default_rng(0).uniform(0, 2, y.shape)
    model.loss = "cross_entropy"
    at_first = model.get_weights()
    w = model.layers[0].parameters["w"]
    for some in (None, weights):

        def loss(some: Array | None = some) -> float:
            return model.evaluate(x, y, sample_weight=some)["loss"]

        expected, before = slope(loss, w), w.copy()
        model.train_on_batch(x, y, SGD(1.0), sample_weight=some)
        same(before - w, expected)
        model.set_weights(at_first)


def test_weights_of_pixels_samples_and_classes_are_one_rule() -> None:
    x, y = images()
    of_samples, of_classes = np.linspace(0.5, 2, 5), np.array([2.0, 1.0, 0.25])
    pixels = of_classes[y] * of_samples[:, None, None]
    by_class = {0: 2, 2: 0.25}
    both = gradient_of(
        u_net("float64", None), x, y, sample_weight=of_samples, class_weight=by_class
    )
    single = gradient_of(u_net("float64", None), x, y, sample_weight=pixels)
    np.testing.assert_allclose(both, single, rtol=1e-12, atol=1e-15)
    model = u_net("float64", "im2col")
    model.loss = "cross_entropy"
    p = model.predict(x)
    losses = -np.log(np.take_along_axis(p, y[..., None].astype(int), -1)[..., 0])
    result = model.evaluate(x, y, sample_weight=pixels)["loss"]
    assert result == pytest.approx((losses * pixels).mean(), rel=1e-10)


@pytest.mark.parametrize("engine", [None, "im2col"])
def test_fit_learns_label_images(engine: str | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((48, 4, 6, 2)).astype(np.float32)
    y = (x[..., 0] > 0).astype(np.uint8) + (x[..., 1] > 0.5)
    model = u_net("float32", engine)
    held = x[:6], y[:6]
    history = model.fit(
        x, y, 12, 8, SGD(0.3, momentum=0.9), validation_data=held, seed=0, verbose=0
    ).history
    assert history["accuracy"][-1] > 0.9 > history["accuracy"][0]
    assert history["loss"][-1] < history["loss"][0] / 2
    figures = model.evaluate(x, y)
    classes = model.predict_classes(x)
    assert classes.shape == y.shape
    assert classes.dtype == np.int64
    assert figures["accuracy"] == pytest.approx((classes == y).mean())
    p = model.predict(x)
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
    assert (p.argmax(axis=-1) == classes).all()
    model.save(tmp_path / "net.safetensors")
    other = fastcnn.load_model(tmp_path / "net.safetensors")
    np.testing.assert_allclose(other.predict(x), p, rtol=1e-5, atol=1e-7)


def test_maps_of_a_net_that_learned_no_classes_stay_as_they_are(tmp_path: Path) -> None:
    x, y = images()
    model = u_net("float32", None)
    raw = model.predict(x)
    assert abs(raw.sum(axis=-1) - 1).max() > 0.1
    with pytest.raises(ValueError, match="or has learned a class for each pixel"):
        model.predict_classes(x)
    model.save(tmp_path / "net.safetensors")
    assert (fastcnn.load_model(tmp_path / "net.safetensors").predict(x) == raw).all()
    model.loss = "cross_entropy"
    np.testing.assert_allclose(model.predict(x), fastcnn.softmax(raw), rtol=1e-5, atol=1e-7)
    model.fit(x, np.stack([y] * CLASSES, axis=-1), loss="mse", verbose=0)
    assert abs(model.predict(x).sum(axis=-1) - 1).max() > 0.1


def test_mean_squared_error_on_images() -> None:
    x, _ = images()
    y = np.random.default_rng(1).standard_normal((5, 4, 6, CLASSES))
    expected = u_net("float64", "naive").fit(x, y, loss="mse", verbose=0).history["loss"]
    for engine in (None, "im2col"):
        model = u_net("float64", engine)
        assert model.fit(x, y, loss="mse", verbose=0).history["loss"] == pytest.approx(expected)
    predicted = model.predict(x)
    assert model.evaluate(x, y)["loss"] == pytest.approx(np.square(predicted - y).mean())
    with pytest.raises(ValueError, match=r"y must have the shape \(5, 4, 6, 3\), got \(5, 4, 6\)"):
        model.fit(x, y[..., 0], loss=MeanSquaredError(), verbose=0)


def test_two_outputs_one_of_them_with_a_class_for_each_pixel() -> None:
    def net(engine: str | None) -> Model:
        inputs = Input((4, 6, 2))
        shared = Conv2D(4, 3, padding=1, activation="relu")(inputs)
        outputs = [Conv2D(CLASSES, 1)(shared), GlobalAvgPool2D()(shared)]
        return Model(inputs, outputs, seed=0, dtype="float64", engine=engine)

    x, y = images()
    expected = net("naive").fit(x, [y, [0, 1, 2, 3, 0]], 2, verbose=0).history
    result = net(None).fit(x, [y, [0, 1, 2, 3, 0]], 2, verbose=0).history
    names = [name for name in expected if name.endswith(("loss", "accuracy"))]
    assert len(names) == 5
    for name in names:
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-10)


def test_a_net_of_one_compiled_segment_trains_on_pixels() -> None:
    x, y = images()
    expected, result = (
        segment(engine).fit(x, y, 3, 2, seed=1, verbose=0) for engine in ("naive", None)
    )
    np.testing.assert_allclose(result.history["loss"], expected.history["loss"], rtol=1e-10)
    assert "compiled together" in segment(None).explain()


def test_weights_that_do_not_fit_are_refused() -> None:
    x, y = images()
    model = u_net("float32", None)
    with pytest.raises(ValueError, match=r"\(5,\), one weight for each sample, or \(5, 4, 6\)"):
        model.fit(x, y, sample_weight=np.ones((5, 6, 4)), verbose=0)
    with pytest.raises(ValueError, match="got -1 for sample 3"):
        model.fit(x, y, sample_weight=np.where(np.arange(5) == 3, -1, 1), verbose=0)
    with pytest.raises(ValueError, match="must have the classes 0 to 2 as keys, got 3"):
        model.fit(x, y, class_weight={3: 1.0}, verbose=0)
    images_ = np.zeros((5, 4, 6, CLASSES))
    with pytest.raises(ValueError, match=r"sample_weight must have the shape \(5,\)"):
        model.fit(x, images_, loss="mse", sample_weight=np.ones((5, 4, 6)), verbose=0)
    with pytest.raises(ValueError, match="class_weight needs a loss of classes"):
        model.fit(x, images_, loss="mse", class_weight={0: 1.0}, verbose=0)
    with pytest.raises(ValueError, match=r"y must hold a class for each pixel, \(5, 4, 6\)"):
        model.fit(x, np.zeros(5, int), verbose=0)
