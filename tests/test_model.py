"""Sequential: building, training, evaluating, predicting, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from slopes import same, slope
from tiny import net, stripes

import fastcnn
from fastcnn.callbacks import Callback, StopTraining
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    Residual,
    Sigmoid,
    Softmax,
)
from fastcnn.losses import CrossEntropy, MeanSquaredError
from fastcnn.models import nets
from fastcnn.models.inputs import finite
from fastcnn.models.other_libraries import INSTEAD
from fastcnn.models.sequential import Sequential
from fastcnn.optimizers import SGD, Adam
from fastcnn.schedules import Cosine


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = fastcnn.get_num_threads()
    yield
    fastcnn.set_num_threads(before)


def bits(model: Sequential) -> list[bytes]:
    return [array.tobytes() for array in model.get_weights()]


# --- building -----------------------------------------------------------------------------------


def test_is_built_at_once_where_the_shape_is_given_else_by_the_data() -> None:
    x, y = stripes(6)
    assert Sequential(net(), (9, 8)).input_shape == (9, 8, 1)
    for first_use in (
        lambda model: model.fit(x, y, verbose=0),
        lambda model: model.predict(x),
        lambda model: model.train_on_batch(x, y),
    ):
        model = Sequential(net())
        assert not model.built
        first_use(model)
        assert model.input_shape == (9, 8, 1)
        assert model.output_shape == (3,)
    with pytest.raises(ValueError, match="built already"):
        model.build((9, 8))
    for method in (Sequential(net()).summary, Sequential(net()).get_weights):
        with pytest.raises(ValueError, match="input_shape must be known"):
            method()


def test_wrong_stack_leaves_nothing_built() -> None:
    with pytest.raises(ValueError, match=r"layer 1, Dense\(3\), got .* \(9, 8, 1\)"):
        Sequential([Conv2D(1, 1), Dense(3)], (9, 8))
    model = Sequential([Flatten(), Conv2D(3, 3)], seed=0)
    x, y = stripes(4)
    before = model.rng.bit_generator.state
    with pytest.raises(ValueError, match="layer 1"):
        model.fit(x, y)
    assert not model.built
    assert model.rng.bit_generator.state == before


def test_summary_in_a_terminal_in_a_file_and_in_a_notebook(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Sequential(net(), (9, 8))
    model.summary()
    plain = capsys.readouterr().out
    assert plain.splitlines()[0].split() == ["layer", "output", "shape", "parameters", "MFLOP"]
    count = sum(w.size for w in model.get_weights())
    assert plain.splitlines()[-1].split()[:2] == ["total", str(count)]
    monkeypatch.setenv("FORCE_COLOR", "1")
    model.summary()
    drawn = capsys.readouterr().out
    assert "┃" in drawn or "│" in drawn
    for text in (plain, drawn, model._repr_html_()):
        assert "(7, 7, 4)" in text
        assert "Dense(6" in text
    assert model._repr_html_().startswith("<table>")
    assert "&#x27;relu&#x27;" in model._repr_html_()
    assert "Dense(3)" in Sequential(net())._repr_html_()
    assert "Dense(3)" in repr(model)


# --- training -----------------------------------------------------------------------------------


def test_learns_and_predicts_probabilities() -> None:
    (x, y), (other, labels) = stripes(90), stripes(60, seed=1)
    model = Sequential(net(), seed=1)
    history = model.fit(
        x, y, epochs=12, batch_size=16, optimizer=Adam(0.01), validation_data=(other, labels),
        seed=2, verbose=0,
    )  # fmt: skip
    assert set(history.history) == {
        "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"
    }  # fmt: skip
    assert {len(values) for values in history.history.values()} == {12}
    assert history.history["val_accuracy"][-1] > 0.95 > history.history["accuracy"][0]
    result = model.evaluate(other, labels)
    assert result == {
        "loss": history.history["val_loss"][-1],
        "accuracy": history.history["val_accuracy"][-1],
    }
    p = model.predict(other)
    assert p.shape == (60, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert (model.predict_classes(other) == p.argmax(axis=1)).all()
    losses = -np.log(p[np.arange(60), labels])
    assert result["loss"] == pytest.approx(losses.mean(), rel=1e-4)
    for size in (1, 7, 60):
        np.testing.assert_array_equal(model.predict(other, batch_size=size), p)
        assert model.evaluate(other, labels, size)["accuracy"] == result["accuracy"]


def test_explicit_softmax_is_the_implied_one() -> None:
    x, y = stripes(40)
    implied = Sequential(net(), (9, 8), seed=3)
    explicit = Sequential([*net(), Softmax()], (9, 8), seed=3)
    for model in (implied, explicit):
        model.fit(x, y, epochs=2, seed=4, verbose=0)
    assert bits(implied) == bits(explicit)
    np.testing.assert_array_equal(implied.predict(x), explicit.predict(x))
    assert implied.evaluate(x, y) == explicit.evaluate(x, y)


def test_the_history_holds_the_rate_of_each_epochs_last_step() -> None:
    x, y = np.ones((20, 3), np.float32), np.zeros(20, np.int64)
    history = Sequential([Dense(2)], (3,), seed=0).fit(
        x, y, epochs=2, batch_size=8, optimizer=SGD(Cosine(0.1)), verbose=0
    )
    schedule = Cosine(0.1)
    schedule.total = 6
    assert history.history["learning_rate"] == [schedule(2), schedule(5)]
    assert schedule(2) != schedule(5)


def test_the_figures_of_an_epoch_are_of_that_epoch_alone() -> None:
    x, y = stripes(22)
    model = Sequential(net(), (9, 8), seed=0)
    told: list[tuple[float, float, float]] = []

    class Told(Callback):
        def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
            told.append((logs["loss"], logs["accuracy"], logs["samples"]))

    history = model.fit(
        x, y, epochs=3, batch_size=8, optimizer=SGD(0.0), shuffle=False, callbacks=[Told()],
        verbose=0, validation_data=(x[:5], y[:5]),
    ).history  # fmt: skip
    for name, data in (("", (x, y)), ("val_", (x[:5], y[:5]))):
        for figure, value in model.evaluate(*data).items():
            assert history[name + figure] == [pytest.approx(value, rel=1e-6)] * 3
    means = [model.evaluate(x[:seen], y[:seen]) for seen in (8, 16, 22)]
    expected = [(m["loss"], m["accuracy"], n) for m, n in zip(means, (8, 16, 22), strict=True)]
    assert told == [pytest.approx(figures, rel=1e-6) for figures in expected] * 3


def test_the_articles_own_setting_reaches_what_the_article_reaches() -> None:
    """1,000 images, one by one, three epochs: 78 % of 1,000 test images there."""
    (x, y), (x_test, y_test) = fastcnn.load_mnist()
    results = []
    for seed in range(3):
        model = Sequential(nets.article(), (28, 28, 1), seed=seed)
        model.fit(x[:1000], y[:1000], epochs=3, batch_size=1, optimizer=SGD(0.005), verbose=0)
        results.append(model.evaluate(x_test[:1000], y_test[:1000])["accuracy"])
    assert 0.75 < np.mean(results) < 0.88


def test_bytes_are_scaled_as_in_the_article_and_floats_are_not() -> None:
    x, y = stripes(20)
    scaled = (x / 255 - 0.5).astype(np.float32)
    one, other = Sequential(net(), (9, 8), seed=5), Sequential(net(), (9, 8), seed=5)
    np.testing.assert_allclose(one.predict(x), other.predict(scaled), rtol=1e-5)
    one.fit(x, y, verbose=0, seed=0)
    other.fit(scaled, y, verbose=0, seed=0)
    np.testing.assert_allclose(one.predict(x), other.predict(scaled), rtol=1e-4)
    assert (one.trained_on, other.trained_on) == ("uint8", "floats")
    np.testing.assert_allclose(one.predict(scaled), other.predict(scaled), rtol=1e-4)
    for call in (
        lambda: other.predict(x),
        lambda: other.evaluate(x, y),
        lambda: other.fit(x, y),
        lambda: other.train_on_batch(x, y),
    ):
        with pytest.raises(ValueError, match=r"x must hold floats, scaled as .* got uint8"):
            call()


def test_one_channel_may_be_left_out_everywhere() -> None:
    x, y = stripes(12)
    model = Sequential(net(), (9, 8, 1), seed=0)
    np.testing.assert_array_equal(model.predict(x), model.predict(x[..., None]))
    assert model.evaluate(x, y) == model.evaluate(x[..., None], y)
    other = Sequential(net(), seed=0)
    model.fit(x, y, seed=1, verbose=0, validation_data=(x[..., None], y))
    other.fit(x[..., None], y, seed=1, verbose=0, validation_data=(x, y))
    assert model.train_on_batch(x, y) == other.train_on_batch(x[..., None], y)


def test_memory_layout_and_precision_of_the_data_do_not_matter() -> None:
    x, y = stripes(20)
    floats = x.astype(np.float32)
    results = []
    for given in (floats, np.asfortranarray(floats), floats.astype(np.float64), floats.tolist()):
        model = Sequential(net(), (9, 8), seed=0)
        model.fit(given, y.tolist(), seed=1, verbose=0)
        results.append(bits(model))
    assert results.count(results[0]) == 4


def test_validation_split_takes_the_last_samples() -> None:
    x, y = stripes(50)
    one, other = Sequential(net(), (9, 8), seed=0), Sequential(net(), (9, 8), seed=0)
    a = one.fit(x, y, validation_split=0.25, seed=1, verbose=0)
    b = other.fit(x[:38], y[:38], validation_data=(x[38:], y[38:]), seed=1, verbose=0)
    assert bits(one) == bits(other)
    assert a.history["val_loss"] == b.history["val_loss"]


def test_without_shuffling_batches_come_in_order() -> None:
    x, y = stripes(10)
    model, by_hand = Sequential(net(), (9, 8), seed=0), Sequential(net(), (9, 8), seed=0)
    history = model.fit(x, y, batch_size=4, optimizer=SGD(0.1), shuffle=False, verbose=0)
    descent = SGD(0.1)
    steps = [by_hand.train_on_batch(x[i : i + 4], y[i : i + 4], descent) for i in (0, 4, 8)]
    assert bits(model) == bits(by_hand)
    expected = sum(loss * n for (loss, _), n in zip(steps, (4, 4, 2), strict=True)) / 10
    assert history.history["loss"] == [pytest.approx(expected)]


def test_one_step_of_descent_is_the_gradient_times_the_rate() -> None:
    x, y = stripes(5)
    model = Sequential(net(), (9, 8), seed=0, dtype="float64")
    before = model.get_weights()
    loss, _ = model.train_on_batch(x, y, SGD(0.1))
    after = model.get_weights()
    model.set_weights(before)
    assert model.evaluate(x, y)["loss"] == pytest.approx(loss)
    for k, (layer, name) in enumerate([(0, "w"), (0, "b"), (3, "w"), (3, "b"), (4, "w"), (4, "b")]):
        at = model.layers[layer].parameters[name]
        slopes = slope(lambda: model.evaluate(x, y)["loss"], at)
        same((before[k] - after[k]) / 0.1, slopes)


def test_default_step_is_descent_at_the_articles_rate() -> None:
    x, y = stripes(1)
    one, other = Sequential(net(), (9, 8), seed=0), Sequential(net(), (9, 8), seed=0)
    one.train_on_batch(x, y)
    other.train_on_batch(x, y, optimizer=SGD(0.005))
    assert bits(one) == bits(other)


def test_same_seed_same_bits_for_any_number_of_threads() -> None:
    x, y = stripes(70)
    x = np.repeat(np.repeat(x, 4, axis=1), 4, axis=2)  # large enough for threads to share
    results = []
    for count in (1, 2, 3):
        fastcnn.set_num_threads(count)
        model = Sequential(net(), seed=7)
        model.fit(x, y, epochs=2, optimizer=Adam(), seed=8, verbose=0)
        results.append(bits(model))
    assert results[0] == results[1] == results[2]
    other = Sequential(net(), seed=7)
    other.fit(x, y, epochs=2, optimizer=Adam(), seed=9, verbose=0)
    assert bits(other) != results[0]


NETS: dict[str, tuple[list[Layer], tuple[int, ...]]] = {
    "article": (nets.article(), (28, 28, 1)),
    "lenet5": (nets.lenet5(), (28, 28, 1)),
    "small": (nets.small(), (12, 11, 1)),
    "resnet8": (nets.resnet8(), (7, 8, 3)),
}


@pytest.mark.parametrize("name", NETS)
def test_loss_and_gradients_of_each_net_are_those_of_the_specification(name: str) -> None:
    layers, shape = NETS[name]
    rng = np.random.default_rng(0)
    x, y = rng.random((2, *shape)) - 0.5, np.array([3, 7])
    model = Sequential(layers, shape, seed=1, dtype="float64")
    results = []
    for engine in ("naive", "im2col", None):
        model.engine = engine
        loss, correct, gradients = model._gradients(x, y, CrossEntropy(), np.random.default_rng(2))
        arrays = [g.copy() for layer in gradients for g in layer.values()]
        results.append((loss, correct, arrays))
    for loss, correct, arrays in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-12)
        assert correct == results[0][1]
        for gradient, expected in zip(arrays, results[0][2], strict=True):
            np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-13)
            assert np.abs(expected).max() > 1e-6


def test_callbacks_are_called_in_order_and_may_stop() -> None:
    x, y = stripes(10)
    told: list[Any] = []

    class Told(Callback):
        def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
            told.append(("begin", logs))

        def on_epoch_begin(self, model: Sequential, epoch: int) -> None:
            told.append(("epoch", epoch))

        def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
            told.append(("batch", batch, logs["samples"]))

        def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
            told.append(("end of epoch", epoch, sorted(logs)))
            if epoch == 1:
                raise StopTraining

        def on_train_end(self, model: Sequential, logs: dict[str, float]) -> None:
            told.append(("end", logs["loss"]))

    model = Sequential(net(), seed=0)
    history = model.fit(x, y, epochs=5, batch_size=6, callbacks=[Told()], verbose=0)
    names = ["accuracy", "learning_rate", "loss", "seconds"]
    assert told == [
        ("begin", {"epochs": 5, "batches": 2, "samples": 10, "epoch": 0}),
        ("epoch", 0), ("batch", 0, 6), ("batch", 1, 10), ("end of epoch", 0, names),
        ("epoch", 1), ("batch", 0, 6), ("batch", 1, 10), ("end of epoch", 1, names),
        ("end", history.history["loss"][1]),
    ]  # fmt: skip
    assert history.epochs == 2


def test_augmentation_sees_each_batch_and_the_models_generator() -> None:
    x, y = stripes(10)
    seen: list[tuple[Any, ...]] = []
    model = Sequential(net(), seed=0)

    def flip(images: Array, rng: np.random.Generator) -> Array:
        seen.append((images.shape, images.dtype.name, rng is model.rng))
        return images[:, :, ::-1]

    model.fit(x, y, batch_size=6, augment=flip, verbose=0, seed=1)
    assert seen == [((6, 9, 8, 1), "uint8", True), ((4, 9, 8, 1), "uint8", True)]
    other = Sequential(net(), seed=0)
    other.fit(x[:, :, ::-1], y, batch_size=6, verbose=0, seed=1)
    assert bits(model) == bits(other)


def test_augmentation_that_crops_gives_the_models_input_shape() -> None:
    x, y = stripes(12)
    model = Sequential([Flatten(), Dense(3)], seed=0)
    augment = fastcnn.Augment(crop=(7, 6))
    model.fit(x, y, augment=augment, validation_data=(x, y), verbose=0, seed=0)
    assert model.input_shape == (7, 6, 1)
    with pytest.raises(ValueError, match=r"x must hold samples of shape \(7, 6, 1\), got \(9, 8"):
        model.fit(x, y)


def test_verbose_prints_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = stripes(8)
    Sequential(net()).fit(x, y, epochs=2, validation_data=(x, y))
    first, second = capsys.readouterr().out.splitlines()
    assert re.match(r"epoch 1/2: loss \d\.\d+  accuracy [\d.]+%  val_loss .* s$", first)
    assert second.startswith("epoch 2/2")
    Sequential(net()).fit(x, y, verbose=0)
    assert capsys.readouterr().out == ""


def test_weights_go_out_and_in() -> None:
    one, other = Sequential(net(), (9, 8), seed=0), Sequential(net(), (9, 8), seed=1)
    weights = one.get_weights()
    assert [w.shape for w in weights] == [(3, 2, 1, 4), (4,), (84, 6), (6,), (6, 3), (3,)]
    other.set_weights(weights)
    assert bits(one) == bits(other)
    weights[0] += 1
    assert bits(one) == bits(other)
    held = other.layers[0].parameters["w"]
    other.set_weights(weights)
    assert held is other.layers[0].parameters["w"]
    np.testing.assert_array_equal(held, weights[0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w: w[:-1], "weights must be 6 arrays, got 5"),
        (lambda w: [*w[:-1], w[-1][:2]], r"shape \(3,\) for layers.4.b, got float32 of shape \(2,"),
        (lambda w: [*w[:-1], np.array(["a", "b", "c"])], r"layers.4.b, got <U1"),
        (lambda w: [*w[:-2], w[-2].T, w[-1]], "for layers.4.w, got float32 of shape"),
    ],
)
def test_wrong_weights_change_nothing(change: Any, text: str) -> None:
    model = Sequential(net(), (9, 8), seed=0)
    before = bits(model)
    weights = [w + 1 for w in model.get_weights()]
    with pytest.raises(ValueError, match=text):
        model.set_weights(change(weights))
    assert bits(model) == before


def test_residual_net_trains_and_its_gradient_is_its_slope() -> None:
    x, y = stripes(6)
    layers: list[Layer] = [
        Conv2D(3, 3, padding="same", activation="relu"),
        Residual(
            [Conv2D(4, 3, 2, "same", activation="relu"), Conv2D(4, 3, padding="same")],
            [Conv2D(4, 1, 2, "same")],
            activation="relu",
        ),
        GlobalAvgPool2D(),
        Dense(3),
    ]
    model = Sequential(layers, (9, 8), seed=0, dtype="float64")
    before = model.layers[1].parameters["shortcut.0.w"].copy()
    at = model.layers[1].parameters["layers.0.w"]
    slopes = slope(lambda: model.evaluate(x, y)["loss"], at)
    start = at.copy()
    model.train_on_batch(x, y, SGD(0.1))
    same((start - at) / 0.1, slopes)
    assert not np.array_equal(model.layers[1].parameters["shortcut.0.w"], before)


# --- what is refused ------------------------------------------------------------------------------


def with_nan(x: Array) -> Array:
    spoilt = x.astype(np.float32)
    spoilt[3, 2, 1] = np.nan
    return spoilt


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "label-too-large": ({"y": [0, 1, 2, 3] * 5}, ValueError, "y must be .* below 3, got 3"),
    "label-negative": ({"y": [0, 1, 2, -1] * 5}, ValueError, "y must be at least 0 .* got -1"),
    "label-float": ({"y": np.zeros(20)}, TypeError, "y must be integers, got dtype float64"),
    "label-nan": ({"y": np.full(20, np.nan)}, TypeError, "y must be integers"),
    "label-text": ({"y": ["a"] * 20}, TypeError, "y must be integers"),
    "one-hot-width": ({"y": np.eye(4)[[0] * 20]}, ValueError, r"one-hot rows \(N, 3\), got \(20"),
    "one-hot-two": ({"y": np.ones((20, 3))}, ValueError, r"got \[1.0, 1.0, 1.0\] in row 0"),
    "lengths": ({"y": [0] * 19}, ValueError, "y must have one label per sample, 20, got 19"),
    "scalar": ({"y": 3}, ValueError, "y must have one label per sample, 20"),
    "nan": ({"x": with_nan(stripes(20)[0])}, ValueError, "x must hold finite .*sample=3"),
    "infinity": ({"x": np.full((20, 9, 8), np.inf)}, ValueError, "x must hold finite numbers"),
    "empty": ({"x": np.zeros((0, 9, 8)), "y": []}, ValueError, "x must hold at least one sample"),
    "shape": ({"x": np.zeros((20, 8, 9))}, ValueError, r"x must hold samples of shape \(9, 8, 1\)"),
    "rank": ({"x": np.zeros(20)}, ValueError, r"x must have the shape \(N, H, W\), .* got \(20,\)"),
    "complex": ({"x": np.zeros((20, 9, 8), complex)}, TypeError, "x must hold real numbers"),
    "ragged": ({"x": [[1], [1, 2]]}, ValueError, "x must be an array, got a ragged sequence"),
    "epochs": ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
    "batch-size": ({"batch_size": 2.0}, TypeError, "batch_size must be made of integers"),
    "optimizer": ({"optimizer": "adagrad"}, ValueError, "optimizer must be one of sgd, .*adagrad"),
    "loss": (
        {"loss": "quartic"},
        ValueError,
        "loss must be one of cross_entropy, .* got 'quartic'",
    ),
    "split": ({"validation_split": 1}, ValueError, "validation_split must be .* below 1, got 1"),
    "split-none": ({"validation_split": 0.01}, ValueError, "leaves none to validate on"),
    "split-twice": (
        {"validation_split": 0.5, "validation_data": stripes(3)},
        ValueError,
        "validation_split must be 0 where validation_data is given",
    ),
    "validation": ({"validation_data": 3}, TypeError, r"validation_data must be a pair \(x, y\)"),
    "validation-shape": (
        {"validation_data": (np.zeros((5, 9, 9)), [0] * 5)},
        ValueError,
        r"validation_data must hold samples of shape \(9, 8, 1\), got \(9, 9, 1\)",
    ),
    "validation-label": (
        {"validation_data": (stripes(2)[0], [0, 7])},
        ValueError,
        "validation_data: y must be .* got 7",
    ),
    "validation-nan": (
        {"validation_data": (with_nan(stripes(20)[0]), [0] * 20)},
        ValueError,
        "validation_data must hold finite numbers",
    ),
    "validation-empty": (
        {"validation_data": (np.zeros((0, 9, 8)), [])},
        ValueError,
        "validation_data must hold at least one sample",
    ),
    "callbacks": ({"callbacks": 3}, TypeError, "callbacks must be a list of callbacks, got 3"),
    "callback": ({"callbacks": [print]}, TypeError, "callbacks must be made of callbacks"),
    "shuffle": ({"shuffle": "yes"}, TypeError, "shuffle must be True or False, got 'yes'"),
    "verbose": ({"verbose": 3}, ValueError, "verbose must be 0 or 1, got 3"),
    "augment": ({"augment": 3}, TypeError, "augment must be called with .* got 3"),
    "seed": ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    "seed-text": ({"seed": "one"}, TypeError, "seed must be made of integers, got 'one'"),
}


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named_before_any_work(name: str, built: bool) -> None:
    changes, error, text = WRONG[name]
    if name == "shape" and not built:
        changes, text = {"x": np.zeros((20, 2, 9))}, "layer 0, Conv2D.*spans 3 pixels"
    model = Sequential(net(), (9, 8) if built else None, seed=0)
    before, generator = bits(model) if built else [], model.rng.bit_generator.state
    x, y = stripes(20)
    with pytest.raises(error, match=text):
        model.fit(**{"x": x, "y": y, "verbose": 0, "seed": 1, **changes})
    assert model.built == built
    assert built is False or bits(model) == before
    assert model.rng.bit_generator.state == generator


@pytest.mark.parametrize("name", ["label-too-large", "lengths", "nan", "empty", "rank", "complex"])
def test_evaluation_and_single_batches_refuse_the_same(name: str) -> None:
    changes, error, _ = WRONG[name]
    model = Sequential(net(), (9, 8), seed=0)
    before = bits(model)
    x, y = stripes(20)
    for method in (model.evaluate, model.train_on_batch):
        with pytest.raises(error, match=r"\b[xy] must"):
            method(**{"x": x, "y": y, **{k: changes[k] for k in changes if k in "xy"}})
    assert bits(model) == before


def test_mistaken_models() -> None:
    for call, error, text in [
        (lambda: Sequential([]), ValueError, "layers must hold at least one layer"),
        (lambda: Sequential(Dense(3)), TypeError, "layers must be a list of layers"),
        (lambda: Sequential([Dense]), TypeError, "layers must be layers such as"),
        (lambda: Sequential(net(), 28), ValueError, "input_shape must be .* got 28"),
        (lambda: Sequential(net(), (28, 0)), ValueError, "input_shape must be at least 1, got 0"),
        (lambda: Sequential(net(), dtype="float16"), ValueError, "dtype must be .*'float16'"),
        (lambda: Sequential(net(), (9, 8)).predict(np.zeros((2, 9, 9))), ValueError, "x must have"),
        (lambda: Sequential(net()).evaluate(*stripes(2)), ValueError, "input_shape must be known"),
        (
            lambda: Sequential(net()).train_on_batch(*stripes(2), optimizer="sgd"),
            TypeError,
            "optimizer must be an optimizer such as",
        ),
    ]:
        with pytest.raises(error, match=text):
            call()


@pytest.mark.parametrize("width", [3, 1000, 1 << 20, (1 << 20) + 1])
def test_what_is_not_finite_is_found_wherever_it_is(width: int) -> None:
    count = (3 << 20) // width + 2  # more numbers than are looked at together
    x = np.zeros((count, width), np.float32)
    for sample, place, value in (
        (0, 0, np.nan), (count // 2, width // 2, np.inf), (count - 1, width - 1, -np.inf),
    ):  # fmt: skip
        x[sample, place] = value
        with pytest.raises(ValueError, match=f"x must hold finite numbers, .* {sample=}"):
            finite("x", x)
        x[sample, place] = 0
    finite("x", x)


def test_an_empty_batch_predicts_nothing() -> None:
    model = Sequential(net(), (9, 8))
    assert model.predict(np.zeros((0, 9, 8))).shape == (0, 3)
    assert model.predict_classes(np.zeros((0, 9, 8), np.uint8)).shape == (0,)


def test_a_loss_that_runs_away_leaves_the_weights_before_it() -> None:
    x, y = stripes(16)
    model = Sequential(net(), (9, 8), seed=0)
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=r"batch . of epoch 1; .* lower learning rate"),
    ):
        model.fit(x * np.float32(1e18), y, batch_size=4, optimizer=SGD(1e18), verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_resnet8_is_the_paper_s_for_32_by_32_images() -> None:
    model = Sequential(nets.resnet8(), (32, 32, 3), seed=0)
    assert [layer.output_shape for layer in model.layers[3:]] == [
        (32, 32, 16), (16, 16, 32), (8, 8, 64), (64,), (10,)
    ]  # fmt: skip
    convolutions = 27 * 16 + 2 * 9 * 16 * 16 + 9 * (16 + 32) * 32 + 9 * (32 + 64) * 64
    shortcuts, scales = 16 * 32 + 32 * 64, 2 * (3 * 16 + 3 * 32 + 3 * 64)
    total = sum(layer.size for layer in model.layers)
    assert total == convolutions + shortcuts + scales + 650


def test_a_batch_whose_loss_is_not_finite_moves_no_running_statistics() -> None:
    model = Sequential([BatchNorm(), Flatten(), Dense(3)], (9, 8), seed=0)
    before = bits(model)
    with pytest.raises(ValueError, match="x must hold finite numbers"):
        model.train_on_batch(with_nan(stripes(8)[0]), stripes(8)[1])
    assert bits(model) == before


@pytest.mark.parametrize("engine", [None, "im2col", "naive"])
def test_running_statistics_move_once_with_a_step_and_not_at_all_without(
    engine: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = stripes(8)
    images = (x[..., None] / 255 - 0.5).astype(np.float32)
    layers = [Conv2D(2, 3, padding="same"), BatchNorm(), Flatten(), Dense(3)]
    model = Sequential(layers, (9, 8), seed=0, engine=engine)
    norm, last = model.layers[1], model.layers[3]
    filtered = model.layers[0].forward(images, False, None, None)[0]
    means, variances = filtered.mean(axis=(0, 1, 2)), filtered.var(axis=(0, 1, 2))
    held = {name: array.copy() for name, array in norm.state.items()}

    def have_moved_once() -> None:
        np.testing.assert_allclose(norm.state["mean"], 0.9 * held["mean"] + 0.1 * means, rtol=1e-4)
        expected = 0.9 * held["variance"] + 0.1 * variances
        np.testing.assert_allclose(norm.state["variance"], expected, rtol=1e-4)
        held.update((name, array.copy()) for name, array in norm.state.items())

    def prepare(layers: Any, run: Any, like: Any, *purpose: str, progress: Any = None) -> int:
        run(like)  # as with an empty cache, but that the kernels do run
        return 0

    monkeypatch.setattr("fastcnn.models.execution.executor.prepare", prepare)
    for _ in range(2):  # before the first step an executor prepares training
        model.train_on_batch(x, y, SGD(0.0))
        have_moved_once()
    # The loss is finite, the gradients are not, and they meet padding: operations decide.
    norm.parameters["gamma"] = np.zeros(2)
    last.parameters["w"] = np.full_like(last.parameters["w"], 3e38) * [1, 0, 0]
    with np.errstate(all="ignore"):
        _, _, gradients = model._gradients(images, np.zeros_like(y), CrossEntropy(), model.rng)
    assert not np.isfinite(gradients[1]["beta"]).all()
    have_moved_once()
    # The batch is finite, its loss is not.
    norm.parameters["gamma"] = np.ones(2)
    before = bits(model)
    for _ in range(2):
        with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="the loss of a"):
            model.train_on_batch(x, y)
        assert bits(model) == before


def test_explicit_sigmoid_is_the_binary_losses_own() -> None:
    x, y = stripes(20)
    targets = np.eye(3)[y]
    implied, explicit = Sequential(net(), seed=3), Sequential([*net(), Sigmoid()], seed=3)
    for model in (implied, explicit):
        model.fit(x, targets, loss="binary_cross_entropy", seed=4, verbose=0)
    assert bits(implied) == bits(explicit)
    np.testing.assert_array_equal(implied.predict(x), explicit.predict(x))
    assert implied.evaluate(x, targets) == explicit.evaluate(x, targets)
    scores = implied._forward_batch((x[..., None] / 255 - 0.5).astype(np.float32))
    np.testing.assert_allclose(implied.predict(x), 1 / (1 + np.exp(-scores)), rtol=1e-5)


def test_predictions_of_layers_that_only_rearrange_are_new_arrays() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3), np.float32)
    model = Sequential([Flatten()], (4, 3))
    model.loss = MeanSquaredError()
    predicted = model.predict(x)
    np.testing.assert_array_equal(predicted, x.reshape(2, 12))
    assert not np.shares_memory(predicted, x)


def test_a_loss_belongs_to_one_model() -> None:
    first, second = (Sequential([Dense(2)], (3,), seed=0) for _ in range(2))
    for model in (first, second):
        model.train_on_batch(np.ones((2, 3)), [0, 1])
    assert first.loss is not None
    assert first.loss is not second.loss


@pytest.mark.parametrize("name", [*INSTEAD, "fitt"])
def test_attributes_of_other_libraries_models_say_what_there_is_instead(name: str) -> None:
    model = Sequential([Dense(2)], (3,), seed=0)
    assert not hasattr(model, name)
    with pytest.raises(AttributeError) as caught:
        getattr(model, name)
    assert str(caught.value).startswith(f"'Sequential' object has no attribute {name!r}")
    assert str(caught.value).endswith(INSTEAD.get(name, repr(name)))
    assert (caught.value.name, caught.value.obj) == (name, model)
