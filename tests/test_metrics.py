"""Metrics of validation and evaluation, against scikit-learn and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Sequential
from fastcnn.callbacks import EarlyStopping
from fastcnn.layers import Dense, Flatten, Input
from fastcnn.metrics import AUC, F1, AbsoluteError, Metric, Precision, Recall, TopKAccuracy
from fastcnn.nn.metrics import metric_named, value_of

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 60)
LABELS[LABELS == 3] *= RNG.random((LABELS == 3).sum()) < 0.5
SCORES = RNG.dirichlet(np.ones(4), 60).round(2)  # with ties
SCORES[:, 2] *= 0.2


def test_figures_of_classes_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    guesses = SCORES.argmax(axis=1)
    for average in ("macro", "micro", "weighted"):
        reference = metrics.precision_recall_fscore_support(
            LABELS, guesses, average=average, zero_division=0
        )
        for metric, value in zip((Precision, Recall, F1), reference[:3], strict=True):
            assert metric(average).value(LABELS, SCORES) == pytest.approx(value, abs=1e-12)
    area = np.mean([metrics.roc_auc_score(k == LABELS, SCORES[:, k]) for k in range(4)])
    assert AUC().value(LABELS, SCORES) == pytest.approx(area, abs=1e-12)
    top = metrics.top_k_accuracy_score(LABELS, SCORES + 1e-9 * -np.arange(4), k=2)
    assert TopKAccuracy(2).value(LABELS, SCORES) == pytest.approx(top)


def test_two_classes_and_one_output() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, scores = LABELS % 2, SCORES[:, :1]
    guesses = scores[:, 0] > 0.5
    two = np.concatenate([1 - scores, scores], axis=1)
    for predictions, targets in ((scores, labels), (scores, labels[:, None] * 1.0), (two, labels)):
        assert F1().value(targets, predictions) == pytest.approx(metrics.f1_score(labels, guesses))
        assert AUC().value(targets, predictions) == pytest.approx(
            metrics.roc_auc_score(labels, scores[:, 0])
        )
    rows = np.eye(2)[labels]
    assert Recall().value(rows, two) == pytest.approx(metrics.recall_score(labels, guesses))


def test_classes_that_do_not_occur() -> None:
    labels = np.array([0, 0, 1])
    scores = np.eye(4)[[0, 1, 1]]
    assert Precision("macro").value(labels, scores) == pytest.approx((1 + 0.5) / 2)
    assert np.isnan(AUC().value(labels, scores))


def net(**settings: Any) -> Sequential:
    return Sequential([Flatten(), Dense(3)], (3, 2, 1), seed=0, engine="im2col", **settings)


X = RNG.integers(0, 256, (30, 3, 2, 1), dtype=np.uint8)
Y = RNG.integers(0, 3, 30)


def share_of_zeros(targets: Any, predictions: Any) -> float:
    assert not targets.flags.writeable
    return float((predictions.argmax(axis=1) == 0).mean())


class Largest(Metric):
    """The largest probability."""

    def value(self, targets: Any, predictions: Any) -> float:
        return predictions.max()  # type: ignore[no-any-return]


def test_fit_and_evaluate_compute_them() -> None:
    model = net()
    metrics = ["f1", TopKAccuracy(2), share_of_zeros, Largest]
    history = model.fit(
        X, Y, epochs=2, validation_data=(X[:17], Y[:17]), metrics=metrics, verbose=0
    )
    names = ["val_f1", "val_top_2_accuracy", "val_share_of_zeros", "val_Largest"]
    assert [name for name in history.history if name in names] == names
    result = model.evaluate(X[:17], Y[:17], batch_size=5, metrics=metrics)
    predicted = model.predict(X[:17])
    assert result["f1"] == F1().value(Y[:17], predicted) == history.history["val_f1"][-1]
    assert result["Largest"] == float(predicted.max())
    assert model.evaluate(X, Y).keys() == {"loss", "accuracy"}


def test_metrics_of_several_outputs() -> None:
    inputs = Input((4,))
    model = fastcnn.Model(
        inputs, [Dense(2, name="kind")(inputs), Dense(1, name="size")(inputs)], seed=0
    )
    x, kinds, sizes = RNG.standard_normal((20, 4)), RNG.integers(0, 2, 20), RNG.random(20)
    history = model.fit(
        x, {"kind": kinds, "size": sizes}, loss={"kind": "cross_entropy", "size": "mae"},
        loss_weights={"kind": 1, "size": 0.5}, validation_data=(x, [kinds, sizes]), verbose=0,
        metrics={"kind": ["auc"], "size": ["mae"]},
    )  # fmt: skip
    assert history.history["val_size_mae"] == pytest.approx(history.history["val_size_loss"])
    kind, size = model.predict(x)
    result = model.evaluate(x, [kinds, sizes], metrics={"kind": "auc", "size": "mae"})
    assert result["kind_auc"] == AUC().value(kinds, kind)
    expected = AbsoluteError().value(sizes[:, None].astype(np.float32), size)
    assert result["size_mae"] == pytest.approx(expected, rel=1e-6)


def test_callbacks_know_which_values_are_better() -> None:
    model = net()
    stopping = EarlyStopping("val_f1", patience=1)
    model.fit(
        X, Y, epochs=5, validation_data=(X, Y), metrics=["f1"], callbacks=[stopping], verbose=0
    )
    assert stopping.best == model.evaluate(X, Y, metrics=["f1"])["f1"]
    with pytest.raises(ValueError, match="mode must say which values of 'val_Largest'"):
        net().fit(X, Y, callbacks=[EarlyStopping("val_Largest")], verbose=0)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["accurracy"], "metrics must be made of precision, recall, f1"),
        ([3], "metrics must be made of"),
        (["f1", "f1"], "names of their own, got 'f1' twice"),
        (["mae"], "metric 'mae' needs targets in the shape of the predictions"),
        ([F1("binary")], "average must not be 'binary' for 3 classes"),
    ],
)
def test_wrong_metrics(metrics: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        net().evaluate(X, Y, metrics=metrics)


def test_metrics_need_validation_and_numbers() -> None:
    with pytest.raises(ValueError, match="metrics must be None without validation_data"):
        net().fit(X, Y, metrics=["f1"], verbose=0)
    with pytest.raises(TypeError, match="must return a number, got 'much'"):
        value_of(metric_named(lambda targets, predictions: "much"), Y, X)
    with pytest.raises(NotImplementedError, match="must define value"):
        Metric().value(Y, X)
