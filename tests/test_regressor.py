"""``CNNRegressor``, and estimators in files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import CNNClassifier, CNNRegressor, ModelFileError
from fastcnn.layers import Dense, Flatten
from fastcnn.optimizers import SGD

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 6, 5), dtype=np.uint8)
BRIGHTNESS = IMAGES.mean(axis=(1, 2))
ROWS = RNG.standard_normal((60, 7)) * [1, 2, 3, 4, 500, 6, 7]
PAIRS = np.stack([1e6 + 1e4 * ROWS[:, 0], ROWS[:, 1] / 1e4], axis=1)
ONE_LAYER = [Dense(1)]


def linear(outputs: int) -> list[Any]:
    return [Flatten(), Dense(outputs)]


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_targets_of_any_size_train(loss: str) -> None:
    """Targets around a million, and of a ten-thousandth, in one net."""
    regressor = CNNRegressor(
        [Dense(2)], loss=loss, epochs=100, optimizer=SGD(0.2), random_state=0
    ).fit(ROWS, PAIRS)
    assert regressor.score(ROWS, PAIRS) > 0.95
    predicted = regressor.predict(ROWS)
    assert predicted.shape == (60, 2)
    assert np.abs(predicted.mean(axis=0) / PAIRS.mean(axis=0) - 1)[0] < 0.01


def test_images_predict_a_number() -> None:
    regressor = CNNRegressor(
        linear, epochs=150, learning_rate=0.01, validation_split=0.1, random_state=0
    )
    regressor.fit(IMAGES, BRIGHTNESS)
    assert regressor.score(IMAGES, BRIGHTNESS) > 0.8
    assert regressor.predict(IMAGES[:5]).shape == (5,)
    assert {"val_loss"} <= regressor.history_.history.keys()
    as_floats = regressor.predict(IMAGES.astype(np.float64))
    assert np.abs(as_floats - regressor.predict(IMAGES)).max() < 0.01


def test_weights_and_score() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    weights = RNG.random(60)
    weights[:20] = 0
    regressor = CNNRegressor(ONE_LAYER, epochs=3, random_state=0)
    regressor.fit(ROWS, PAIRS[:, 0], sample_weight=weights)
    others = PAIRS[:, 0].copy()
    others[:20] = 1e9  # of weight 0
    again = CNNRegressor(ONE_LAYER, epochs=3, random_state=0)
    again.fit(ROWS, others, sample_weight=weights)
    assert (regressor.predict(ROWS) == again.predict(ROWS)).all()
    for w in (None, weights):
        expected = metrics.r2_score(PAIRS[:, 0], regressor.predict(ROWS), sample_weight=w)
        assert regressor.score(ROWS, PAIRS[:, 0], w) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "y", "message"),
    [
        ({}, ["a"] * 60, "y must hold real numbers"),
        ({}, BRIGHTNESS[:5], "a target for each of 60 samples, got 5"),
        ({}, BRIGHTNESS * np.nan, "y contains NaN or infinity"),
        ({"loss": "cross_entropy"}, BRIGHTNESS, "loss must be one of numbers"),
        ({"net": [Dense(3)]}, BRIGHTNESS, "net must end in 1 numbers"),
        ({"validation_split": 0.001}, BRIGHTNESS, "leaves none to validate on"),
    ],
)
def test_wrong_arguments(settings: Any, y: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        CNNRegressor(**{"net": ONE_LAYER, **settings}).fit(ROWS, y)


def test_the_checks_of_scikit_learn() -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    regressor = CNNRegressor([Dense(1)], epochs=1)
    for name in (
        "check_estimators_dtypes", "check_fit_score_takes_y", "check_estimators_pickle",
        "check_estimator_sparse_tag", "check_supervised_y_no_nan", "check_regressors_int",
        "check_estimators_nan_inf", "check_dict_unchanged", "check_fit_idempotent",
        "check_n_features_in", "check_regressors_no_decision_function",
    ):  # fmt: skip
        getattr(checks, name)("CNNRegressor", regressor)


def test_pipelines_and_searches() -> None:
    pytest.importorskip("sklearn")
    from sklearn.base import is_regressor
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regressor = CNNRegressor([Dense(1)], random_state=0)
    assert is_regressor(regressor)
    pipeline = make_pipeline(StandardScaler(), regressor)
    search = GridSearchCV(pipeline, {"cnnregressor__epochs": [1, 25]}, cv=2)
    search.fit(ROWS, PAIRS[:, 0])
    assert search.best_params_ == {"cnnregressor__epochs": 25}


LABELS = {
    "texts": np.array(["Ähre", "b"])[np.arange(60) % 2],
    "objects": np.array(["x", "yy", "z"], object)[np.arange(60) % 3],
    "numbers": np.array([-7, 12])[np.arange(60) % 2],
    "floats": np.array([1.0, 2.0])[np.arange(60) % 2],
    "booleans": np.arange(60) % 2 == 0,
}


@pytest.mark.parametrize("name", LABELS)
def test_classifiers_come_back_whole(name: str, tmp_path: Path) -> None:
    y = LABELS[name]
    classifier = CNNClassifier([Dense(len(np.unique(y)))], epochs=2, random_state=0, verbose=0)
    classifier.fit(ROWS, y)
    classifier.save(tmp_path / "classifier.st")
    again = CNNClassifier.load(tmp_path / "classifier.st")
    assert (again.predict(ROWS) == classifier.predict(ROWS)).all()
    assert again.predict(ROWS).dtype.kind == classifier.predict(ROWS).dtype.kind.replace("O", "U")
    assert (again.predict_proba(ROWS) == classifier.predict_proba(ROWS)).all()
    assert again.score(ROWS, y) == classifier.score(ROWS, y)
    assert again.get_params()["epochs"] == 2
    assert again.history_.history == classifier.history_.history


@pytest.mark.parametrize("x", [IMAGES, ROWS], ids=["bytes", "floats"])
def test_regressors_come_back_whole(x: Any, tmp_path: Path) -> None:
    regressor = CNNRegressor(linear if x is IMAGES else ONE_LAYER, epochs=2, optimizer=SGD(0.01))
    regressor.fit(x, PAIRS[:, 0])
    regressor.save(tmp_path / "regressor.st")
    again = CNNRegressor.load(tmp_path / "regressor.st")
    assert (again.predict(x) == regressor.predict(x)).all()
    assert repr(again.optimizer) == repr(regressor.optimizer)
    net = fastcnn.load_model(tmp_path / "regressor.st")
    assert net.output_shape == (1,)
    copied = pickle.loads(pickle.dumps(regressor))
    assert (copied.predict(x) == regressor.predict(x)).all()


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.st"
    with pytest.raises(ValueError, match="is not fitted yet"):
        CNNRegressor().save(path)
    regressor = CNNRegressor(ONE_LAYER, epochs=1).fit(ROWS, PAIRS[:, 0])
    regressor.save(path)
    with pytest.raises(ModelFileError, match="it holds no CNNClassifier, but a 'CNNRegressor'"):
        CNNClassifier.load(path)
    regressor.model_.save(tmp_path / "model.st")
    with pytest.raises(ModelFileError, match=r"fastcnn\.load_model reads models"):
        CNNRegressor.load(tmp_path / "model.st")


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": {"unknown": 1}},
        {"image_shape": [8]},
        {"mean": None},
        {"scale": {"dtype": "<f8", "values": [1.0, 2.0]}},
        {"scale": {"dtype": "O", "values": [1.0] * 7}},
        {"samples": {"kind": "pictures", "record": None}},
        {"target_mean": {"dtype": "<f8", "values": [1.0, 2.0]}},
        {"history": [1]},
        {"is_vector": "yes"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_damaged_records_are_refused(change: Any, tmp_path: Path) -> None:
    from fastcnn.estimator import estimator_files
    from fastcnn.train import checkpoint

    path = tmp_path / "file.st"
    regressor = CNNRegressor(ONE_LAYER, epochs=1).fit(ROWS, PAIRS[:, 0])
    regressor.save(path)
    record = json.loads(json.dumps(checkpoint.read(path).model["estimator"])) | change
    estimator_files.write(path, regressor.model_, record)
    with pytest.raises((ModelFileError, ValueError), match=r"cannot be loaded|must be"):
        CNNRegressor.load(path)
