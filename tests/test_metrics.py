"""Metrics of validation and evaluation, against scikit-learn and by hand."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Callback, Sequential
from fastcnn.callbacks import EarlyStopping, StopTraining
from fastcnn.layers import Dense, Flatten, Input
from fastcnn.metrics import AUC, F1, AbsoluteError, Metric, Precision, Recall, TopKAccuracy
from fastcnn.nn.metrics import metric_named, value_of
from fastcnn.optimizers import SGD
from fastcnn.train.callbacks import Best

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
    smaller = type("Smaller", (Metric,), {"greater_is_better": False, "name": "own_f1"})
    for name, sign in (("val_own_f1", -1), ("kind_f1", 1), ("val_mae", -1), ("auc", 1)):
        assert Best(name, None).sign == sign
    Metric.registry.pop(smaller.name)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="mode must say which values of 'val_largest'"):
        net().fit(X, Y, callbacks=[EarlyStopping("val_largest")], verbose=0)


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


@pytest.mark.parametrize("engine", [None, "im2col"])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("source", ["arrays", "batches"])
def test_training_batches_have_figures_too(
    engine: str | None, accumulate: int, source: str
) -> None:
    model = net()
    model.engine = engine
    x: Any = (X, Y)
    if source == "batches":
        x = ([(X[:16], Y[:16]), (X[16:], Y[16:])].__iter__(), None)
    history = model.fit(
        *x, epochs=1, optimizer=SGD(0.0), metrics=["f1", "auc", share_of_zeros], verbose=0,
        accumulate=accumulate, steps_per_epoch=2 if source == "batches" else None, batch_size=8,
    ).history  # fmt: skip
    assert [*history] == [
        "loss", "accuracy", "f1", "auc", "share_of_zeros", "learning_rate", "seconds"
    ]  # fmt: skip
    result = model.evaluate(X, Y, metrics=["f1", "auc", share_of_zeros])
    for name, value in result.items():
        assert history[name] == pytest.approx([value], rel=1e-5), name


def test_figures_are_of_each_epoch_and_of_the_steps_themselves() -> None:
    seen = []

    def count(targets: Any, predictions: Any) -> float:
        seen.append(predictions)
        return len(targets)

    model, other = net(), net()
    history = model.fit(X, Y, epochs=2, batch_size=7, metrics=[count], verbose=0, seed=1)
    assert history.history["count"] == [30, 30]
    plain = other.fit(X, Y, epochs=2, batch_size=7, verbose=0, seed=1)
    assert plain.history["loss"] == history.history["loss"]
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(seen[0].mean(axis=0) - seen[1].mean(axis=0)).max() > 0
    quiet = net().fit(X, Y, metrics=["f1"], training_metrics=False, validation_split=0.2, verbose=0)
    assert {"val_f1"} == {name for name in quiet.history if "f1" in name}


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_figures_of_an_epoch_that_is_resumed_in_its_middle(batch: int, tmp_path: Path) -> None:
    class Stops(Callback):
        def on_batch_end(self, model: Any, number: int, logs: Any) -> None:
            if number + 1 == batch and self.epochs == 1:
                model.save_checkpoint(tmp_path / "at")
                raise StopTraining

        def on_epoch_end(self, model: Any, epoch: int, logs: Any) -> None:
            self.epochs += 1

        def on_train_begin(self, model: Any, logs: Any) -> None:
            self.epochs = 0

    settings: Any = {
        "epochs": 3,
        "batch_size": 8,
        "metrics": ["f1", "auc"],
        "verbose": 0,
        "seed": 1,
    }
    whole = net().fit(X, Y, **settings).history
    stopped = net()
    stopped.fit(X, Y, callbacks=[Stops()], **settings)
    copied = pickle.loads(pickle.dumps(stopped))
    copied.save_checkpoint(tmp_path / "copy")
    for name in ("at", "copy"):
        rest = net().fit(X, Y, resume=tmp_path / name, **settings).history
        for figure in ("loss", "f1", "auc"):
            assert rest[figure] == whole[figure], (name, figure)
    net().fit(X, Y, resume=tmp_path / "at", **{**settings, "metrics": None})
    stopped = net()
    stopped.fit(X, Y, callbacks=[Stops()], **{**settings, "metrics": None})
    with pytest.raises(ValueError, match="metrics must be of the outputs that those of the tr"):
        net().fit(X, Y, resume=tmp_path / "at", **settings)


def test_metrics_need_samples_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="metrics must be None without validation_data"):
        net().fit(X, Y, metrics=["f1"], training_metrics=False, verbose=0)
    monkeypatch.setattr("fastcnn.core.capacity.memory", lambda: 350)  # the model needs less
    with pytest.raises(MemoryError, match=r"predictions of an epoch.*training_metrics=False"):
        net().fit(X, Y, metrics=["f1"], verbose=0)
    with pytest.raises(TypeError, match="must return a number, got 'much'"):
        value_of(metric_named(lambda targets, predictions: "much"), Y, X)
    with pytest.raises(NotImplementedError, match="must define value"):
        Metric().value(Y, X)
