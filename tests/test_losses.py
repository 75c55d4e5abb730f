"""Losses against their formulas, and their gradients against central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from slopes import same, slope

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.layers import Dense
from fastcnn.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError
from fastcnn.nn.losses import loss_from_dict, loss_named


def outputs(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape)


LABELS = np.array([2, 0, 1, 2, 2])
TARGETS = np.random.default_rng(9).random((5, 3))
CASES: dict[str, tuple[Loss, Any, Callable[[Array], Array]]] = {
    "cross-entropy": (
        CrossEntropy(),
        LABELS,
        lambda z: -np.log(np.exp(z) / np.exp(z).sum(1, keepdims=True))[range(5), LABELS],
    ),
    "smoothed": (
        CrossEntropy(label_smoothing=0.3),
        LABELS,
        lambda z: (
            -(
                (0.7 * np.eye(3)[LABELS] + 0.1)
                * np.log(np.exp(z) / np.exp(z).sum(1, keepdims=True))
            ).sum(1)
        ),
    ),
    "mse": (MeanSquaredError(), TARGETS, lambda z: ((z - TARGETS) ** 2).mean(1)),
    "binary": (
        BinaryCrossEntropy(),
        TARGETS,
        lambda z: (
            -(
                TARGETS * np.log(1 / (1 + np.exp(-z))) + (1 - TARGETS) * np.log(1 / (1 + np.exp(z)))
            ).mean(1)
        ),
    ),
}


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_formula_and_gradients_their_slopes(name: str, engine: str) -> None:
    loss, y, formula = CASES[name]
    z = outputs(5, 3)
    targets = loss.targets(y, 5, (3,), np.float64)
    np.testing.assert_allclose(loss.values(z, targets, engine), formula(z), rtol=1e-12)
    gradient = loss.gradient(z, targets, engine)
    same(gradient, slope(lambda: float(formula(z).sum()), z))
    narrow = loss.values(z.astype(np.float32), loss.targets(y, 5, (3,), np.float32), engine)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, formula(z), rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_empty_batches(name: str) -> None:
    loss, y, _ = CASES[name]
    targets = loss.targets(y[:0], 0, (3,), np.float32)
    assert loss.values(np.zeros((0, 3), np.float32), targets).shape == (0,)
    assert loss.gradient(np.zeros((0, 3), np.float32), targets).shape == (0, 3)


def test_large_outputs_overflow_nowhere() -> None:
    z = np.array([[1000.0, -1000.0, 0.0]])
    with np.errstate(all="raise", under="ignore"):
        for loss, y, value in (
            (CrossEntropy(), [1], 2000.0),
            (BinaryCrossEntropy(), [[0.0, 1.0, 0.5]], (2000 + np.log(2)) / 3),
        ):
            targets = loss.targets(y, 1, (3,), np.float64)
            assert loss.values(z, targets)[0] == pytest.approx(value)
            assert np.isfinite(loss.gradient(z, targets)).all()
            assert np.isfinite(loss.predictions(z)).all()


def test_one_hot_rows_are_their_classes() -> None:
    loss = CrossEntropy()
    for dtype in (bool, np.uint8, np.float64):
        rows = np.eye(3)[LABELS].astype(dtype)
        np.testing.assert_array_equal(loss.targets(rows, 5, (3,), np.float32), LABELS)


def test_what_counts_as_right() -> None:
    z = np.array([[1.0, 2.0], [2.0, 1.0], [0.0, -1.0]])
    assert CrossEntropy().correct(z, np.array([1, 1, 0])) == 2
    assert BinaryCrossEntropy().correct(z, np.array([[1, 1], [1, 0], [0, 0]])) == 2.5
    assert np.isnan(MeanSquaredError().correct(z, z))
    # On the border both a score of 0 and a target of one half count as 0, as in predict_classes.
    half = np.array([[0.0, 0.0], [-1.0, 1.0]])
    assert BinaryCrossEntropy().correct(half, np.array([[0, 1], [0.5, 0]])) == 1


def test_one_output_takes_a_list_of_targets() -> None:
    for loss in (MeanSquaredError(), BinaryCrossEntropy()):
        assert loss.targets([0.0, 1.0], 2, (1,), np.float32).shape == (2, 1)


@pytest.mark.parametrize(
    ("loss", "y", "error", "text"),
    [
        (CrossEntropy(), [0, 3], ValueError, "y must be at least 0 and below 3, got 3"),
        (CrossEntropy(), [0, -1], ValueError, "got -1"),
        (CrossEntropy(), [0], ValueError, "one label per sample, 2, got 1"),
        (CrossEntropy(), [0.0, 1.0], TypeError, "y must be integers"),
        (CrossEntropy(), [[0, 1], [1, 0]], ValueError, r"one-hot rows \(N, 3\), got \(2, 2\)"),
        (CrossEntropy(), [[0, 1, 0], [0.5, 0.4, 0]], ValueError, r"\[0.5, 0.4, 0.0\] in row 1"),
        (CrossEntropy(), [[0, 1, 0], [0, 0, 0]], ValueError, r"\[0, 0, 0\] in row 1"),
        (CrossEntropy(), [[0, 1, 0], [2, -1, 0]], ValueError, r"\[2, -1, 0\] in row 1"),
        (CrossEntropy(), [[0], [0, 1]], ValueError, "ragged"),
        (CrossEntropy(), np.zeros((2, 3, 1)), TypeError, "y must be"),
        (MeanSquaredError(), [0.0, 1.0], ValueError, r"y must have the shape \(2, 3\), got \(2,"),
        (MeanSquaredError(), np.full((2, 3), np.nan), ValueError, "y must hold finite numbers"),
        (BinaryCrossEntropy(), np.full((2, 3), 1.5), ValueError, "y must be from 0 to 1 .* 1.5"),
    ],
)
def test_wrong_targets_are_named(loss: Loss, y: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        loss.targets(y, 2, (3,), np.float32)


def test_mistakes_are_named() -> None:
    for make, text in [
        (lambda: loss_named("margin"), "loss must be one of cross_entropy, mse, .* got 'margin'"),
        (lambda: CrossEntropy(1.0), "label_smoothing must be .* below 1, got 1.0"),
        (lambda: loss_from_dict({"name": "margin"}), "loss must be one of"),
        (
            lambda: CrossEntropy().targets([0], 1, (3, 3, 2), np.float32),
            r"a class for each pixel, \(1, 3, 3\), .* ends in maps \(3, 3, 2\)",
        ),
    ]:
        with pytest.raises(ValueError, match=text):
            make()


def test_configs_make_the_loss_again() -> None:
    for loss in (CrossEntropy(0.1), MeanSquaredError(), BinaryCrossEntropy()):
        assert repr(loss_from_dict({"name": loss.name, "config": loss.config()})) == repr(loss)
        assert repr(loss_named(loss.name)) == repr(type(loss)())


class Spoiling(fastcnn.Callback):
    """Makes labels out of range after each batch."""

    def __init__(self, labels: Any) -> None:
        self.labels = labels

    def on_batch_end(self, model: Any, batch: int, logs: dict[str, float]) -> None:
        self.labels[:] = 10**9


def test_labels_may_be_a_column() -> None:
    # As CIFAR-10 of keras.datasets, MedMNIST's files and a column of a table have them.
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)

    def trained(labels: Any) -> Any:
        model = fastcnn.Sequential([Dense(3)], seed=0)
        history = model.fit(x, labels, epochs=2, validation_split=0.25, verbose=0, seed=0).history
        step = model.train_on_batch(x, labels)
        return history["loss"], history["val_loss"], step, model.evaluate(x, labels)

    expected = trained(y)
    for dtype in (np.uint8, np.int16, np.int64):
        assert trained(y[:, None].astype(dtype)) == expected
    assert trained(y[:, None].tolist()) == expected
    changed = y[:, None].copy()
    model = fastcnn.Sequential([Dense(3)], seed=0)
    model.fit(x, changed, epochs=3, verbose=0, callbacks=[Spoiling(changed)])  # its own copy
    assert changed.max() == 10**9
    data = (x, y[:, None])
    model.fit(x, y, verbose=0, validation_data=data)
    for wrong, text in (
        (y[:, None] + 3, "y must be at least 0 and below 3"),
        (y[:, None] + 0.5, "y must be integers"),
        (y[:30, None], "y must have one label per sample"),
        (y[:, None, None], "y must have"),
    ):
        with pytest.raises((ValueError, TypeError), match=text):
            model.fit(x, wrong, verbose=0)


def test_one_output_with_a_column_of_targets() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.integers(0, 2, 20)
    for loss in ("mse", "binary_cross_entropy"):
        results = [
            fastcnn.Sequential([Dense(1)], seed=0).fit(x, t, loss=loss, verbose=0).history["loss"]
            for t in (y, y[:, None])
        ]
        assert results[0] == results[1]
