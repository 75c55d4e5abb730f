"""CNNClassifier: scikit-learn's own checks, what X may be, scaling, labels, and life without it."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limits import run
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, VotingClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import fastcnn
from fastcnn import Augment, CNNClassifier
from fastcnn.estimator import stratified
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D
from fastcnn.optimizers import SGD
from fastcnn.train import callbacks

# Of scikit-learn's checks these do not apply, or need what is not installed with the tests:
NOT_APPLICABLE = {
    "check_dataframe_column_names_consistency": "names of columns are not kept: pixels have none",
    "check_array_api_input": "arrays are NumPy's",
    "check_classifier_data_not_an_array": "needs pandas; other array-likes are tested below",
    "check_sample_weights_pandas_series": "needs pandas; other array-likes are tested below",
    "check_sample_weight_equivalence_on_dense_data": "repeated samples make other batches, and so "
    "other steps, than weighted ones; samples of weight 0 are tested below",
}
# Settings of the classifier for a check; else it has none.
SETTINGS: dict[str, dict[str, Any]] = {
    # It gives an estimator 1000 iterations; here it makes 20 steps, too few at the usual rate.
    "check_class_weight_classifiers": {"learning_rate": 0.02},
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of an estimator that does not inherit from scikit-learn's
    CHECKS = {
        name: check
        for _, check in estimator_checks_generator(CNNClassifier())
        if (name := check.func.__name__) not in NOT_APPLICABLE
    }


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_checks(name: str) -> None:
    CHECKS[name](CNNClassifier(**SETTINGS.get(name, {})))


def test_scikit_learn_has_its_checks_for_classifiers() -> None:
    assert len(CHECKS) > 40
    assert {"check_classifiers_train", "check_estimators_nan_inf", "check_fit2d_1feature"} <= set(
        CHECKS
    )


@pytest.fixture(scope="module")
def digits() -> Any:
    x, y = load_digits(return_X_y=True)
    return x[:600], y[:600]


def small_net(classes: int) -> list[Any]:
    return [Conv2D(6, 3, strides=2, activation="relu"), Flatten(), Dense(classes)]


def quick(**settings: Any) -> CNNClassifier:
    return CNNClassifier(**{"net": small_net, "epochs": 5, "random_state": 0, **settings})


def test_learns_digits_in_a_search_and_a_pipeline(digits: Any) -> None:
    x, y = digits
    assert is_classifier(quick())
    net = [Conv2D(8, 3, activation="relu"), MaxPool2D(2), Flatten(), Dense(10)]
    classifier = quick(net=net, learning_rate=0.02, epochs=20)
    assert cross_val_score(classifier, x, y, cv=2).min() > 0.8
    search = GridSearchCV(classifier, {"epochs": [1, 20]}, cv=2).fit(x, y)
    assert search.best_params_ == {"epochs": 20}
    pipeline = make_pipeline(StandardScaler(), classifier)
    assert pipeline.fit(x[:400], y[:400]).score(x[400:], y[400:]) > 0.8


def test_rows_and_images_are_the_same_where_their_shape_is(digits: Any) -> None:
    x, y = digits
    images = x.reshape(-1, 8, 8)
    reference = quick().fit(images, y)
    assert reference.image_shape_ == (8, 8, 1)
    assert reference.n_features_in_ == 64
    expected = reference.predict_proba(images)
    for same in (x, images[..., np.newaxis], x.astype(int), np.asfortranarray(x), x.tolist()):
        np.testing.assert_array_equal(reference.predict_proba(same), expected)
        np.testing.assert_array_equal(quick().fit(same, y).predict_proba(x), expected)


@pytest.mark.parametrize(
    ("given", "image_shape", "found"),
    [
        ((64,), None, (8, 8, 1)),
        ((64,), (64,), (64,)),
        ((64,), (4, 16), (4, 16, 1)),
        ((192,), (8, 8, 3), (8, 8, 3)),
        ((49,), None, (49,)),
        ((65,), None, (65,)),
        ((3, 5), None, (3, 5, 1)),
        ((10, 9, 2), None, (10, 9, 2)),
    ],
)
def test_what_rows_are_taken_as(
    given: tuple[int, ...], image_shape: tuple[int, ...] | None, found: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).random((12, *given))
    classifier = CNNClassifier(image_shape=image_shape, epochs=1, random_state=0)
    classifier.fit(x, np.arange(12) % 3)
    assert classifier.image_shape_ == found
    assert classifier.predict_proba(x).shape == (12, 3)
    layers = [type(layer).__name__ for layer in classifier.model_.layers]
    assert ("Conv2D" in layers) == (len(found) == 3 and min(found[:2]) >= 8)


def test_scaling_of_floats_makes_their_unit_irrelevant(digits: Any) -> None:
    x, y = digits
    reference = quick().fit(x, y).predict_proba(x)
    np.testing.assert_allclose(quick().fit(x * 1e6 + 1e7, y).predict_proba(x * 1e6 + 1e7),
                               reference, atol=1e-3)  # fmt: skip
    vectors = x[:, [0, 10, 20, 33]]
    settings = {"net": "auto", "epochs": 3, "random_state": 0}
    reference = CNNClassifier(**settings).fit(vectors, y).predict_proba(vectors)
    other = vectors * [3, 1000, 1e-6, 1] + [0, -7, 5e-6, 2]
    fitted = CNNClassifier(**settings).fit(other, y)
    np.testing.assert_allclose(fitted.predict_proba(other), reference, atol=1e-3)
    assert fitted.scale_[0] == 1  # pixel 0 never changes


def test_bytes_are_scaled_by_the_model_and_meet_the_same_in_floats(digits: Any) -> None:
    images = (digits[0].reshape(-1, 8, 8) * 15).astype(np.uint8)
    classifier = quick().fit(images, digits[1])
    assert classifier.mean_ is None
    assert classifier.model_.trained_on == "uint8"
    expected = classifier.predict_proba(images)
    np.testing.assert_array_equal(classifier.model_.predict(images), expected)
    np.testing.assert_allclose(classifier.predict_proba(images * 1.0), expected, atol=1e-5)


@pytest.mark.parametrize(
    "labels", [["no", "yes", "or"], [-5, 7, 100], [2.0, 4.0, 9.0], [b"a", b"b", b"c"]]
)
def test_labels_of_every_kind(labels: list[Any], digits: Any) -> None:
    x = digits[0]
    y = np.array(labels)[digits[1] % 3]
    classifier = quick(learning_rate=0.01, epochs=12).fit(x, y)
    np.testing.assert_array_equal(classifier.classes_, np.unique(y))
    predicted = classifier.predict(x)
    assert predicted.dtype == classifier.classes_.dtype
    assert classifier.score(x, y) == (predicted == y).mean() > 0.8
    best = classifier.predict_proba(x).argmax(axis=1)
    np.testing.assert_array_equal(classifier.classes_[best], predicted)


def test_the_same_seed_gives_the_same_and_parameters_reach_the_training(digits: Any) -> None:
    x, y = digits[0][:200], digits[1][:200]

    def result(**settings: Any) -> Any:
        return quick(epochs=2, **settings).fit(x, y).predict_proba(x)

    reference = result()
    np.testing.assert_array_equal(result(), reference)
    generators = np.random.default_rng(3), np.random.default_rng(3), np.random.RandomState(3)
    first, again, old = (result(random_state=generator) for generator in generators)
    np.testing.assert_array_equal(first, again)
    for other in (
        first,
        old,
        result(random_state=1),
        result(batch_size=7),
        result(optimizer="sgd"),
        result(optimizer=SGD(0.1)),
        result(learning_rate=0.1),
        result(augment=Augment(shift=1)),
        result(validation_split=0.5),
        result(net=[Flatten(), Dense(10)]),
        result(random_state=None),
    ):
        assert not np.array_equal(other, reference)


def test_fit_leaves_what_it_was_given_alone_and_begins_anew(
    digits: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = digits
    layers, optimizer, stop = (
        small_net(10),
        SGD(0.05, momentum=0.9),
        callbacks.EarlyStopping("loss"),
    )
    classifier = quick(net=layers, optimizer=optimizer, callbacks=[stop], verbose=1)
    first = classifier.fit(x, y).predict_proba(x)
    assert capsys.readouterr().out.count("epoch ") == classifier.history_.epochs == 5
    assert stop.best == min(classifier.history_.history["loss"])
    np.testing.assert_array_equal(classifier.fit(x, y).predict_proba(x), first)
    assert layers[0].parameters == {}
    assert optimizer.step_count == 0


def test_params_clone_and_repr() -> None:
    layers = small_net(3)
    classifier = CNNClassifier(layers, epochs=3, augment=Augment(shift=1))
    assert classifier.get_params()["net"] is layers
    copied = clone(classifier)
    assert repr(copied) == repr(classifier)
    assert repr(CNNClassifier(epochs=3)) == "CNNClassifier(epochs=3)"
    with pytest.raises(ValueError, match="Invalid parameter 'depth' for estimator CNNClassifier"):
        classifier.set_params(epochs=9, depth=3)
    assert classifier.epochs == 3


def test_pickled_it_predicts_the_same(digits: Any) -> None:
    x, y = digits
    classifier = CNNClassifier([Flatten(), Dense(10)], epochs=1, random_state=0).fit(x, y)
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(x), classifier.predict_proba(x))


@pytest.mark.parametrize("split", [0.1, 0.2, 0.5, 0.75])
def test_a_validation_split_of_sorted_labels_holds_out_a_share_of_each_class(
    split: float, digits: Any
) -> None:
    x, y = digits
    order = np.argsort(y, kind="stable")
    held_out: list[Any] = []

    class Watches(fastcnn.Callback):
        def on_train_begin(self, model: Any, logs: Any) -> None:
            held_out.append(logs["samples"])

    scores = []
    for some in (order, np.arange(600)):
        classifier = quick(
            epochs=8, learning_rate=0.02, validation_split=split, callbacks=[Watches()]
        ).fit(x[some], y[some])
        scores.append(classifier.history_.history["val_accuracy"][-1])
    assert held_out == [600 - int(600 * split)] * 2
    assert min(scores) > 0.7
    train, rest = stratified.hold_out(y[order], split, np.random.default_rng(0))
    assert sorted([*train, *rest]) == list(range(600))
    parts = np.bincount(y[order][rest], minlength=10)
    assert (abs(parts - np.bincount(y) * split) < 1).all()


def test_the_samples_held_out_are_drawn_anew_for_each_seed_and_the_same_for_one() -> None:
    labels = np.arange(40) % 2
    draws = [stratified.hold_out(labels, 0.5, np.random.default_rng(i))[1] for i in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert set(draws[0]) != set(draws[2])
    assert set(draws[0]) != set(range(20, 40))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_each_class_keeps_a_sample_to_train_on(share: float) -> None:
    labels = np.repeat(np.arange(6), [1, 2, 3, 5, 40, 100])
    train, rest = stratified.hold_out(labels, share, np.random.default_rng(0))
    assert set(labels[train]) == set(range(6))
    assert len(rest) == min(int(151 * share), 151 - 6)
    assert sorted([*train, *rest]) == list(range(151))


def test_classes_too_small_for_a_validation_split_are_named() -> None:
    x, y = np.random.default_rng(0).random((21, 5)), np.array([*"aaaaaaaaaabbbbbbbbbbc"])
    with pytest.warns(UserWarning, match="leaves 1 of 3 classes without .* too few: 'c'"):
        classifier = CNNClassifier(epochs=1, validation_split=0.2).fit(x, y)
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"validation_split=0.1 of 4 samples leaves none to valid"):
        CNNClassifier(epochs=1, validation_split=0.1).fit(x[:4], [0, 1, 0, 1])
    with pytest.raises(ValueError, match="validation_split must be at least 0 and below 1, got 1"):
        CNNClassifier(epochs=1, validation_split=1).fit(x, y)


# --- weights --------------------------------------------------------------------------------------


def test_only_the_ratios_of_weights_matter(digits: Any) -> None:
    x, y = digits
    weights = np.random.default_rng(0).uniform(0.5, 2, 600)
    for settings in ({}, {"optimizer": "sgd", "validation_split": 0.2}):
        reference = quick(**settings).fit(x, y, weights)
        for other in (weights * 1e-300, weights / 600, weights * 2.0**900):
            result = quick(**settings).fit(x, y, sample_weight=other)
            np.testing.assert_allclose(
                result.predict_proba(x), reference.predict_proba(x), atol=1e-5
            )
            for name in {"loss", "val_loss"} & reference.history_.history.keys():
                np.testing.assert_allclose(
                    result.history_.history[name], reference.history_.history[name], rtol=1e-4
                )
        unweighted = quick(**settings).fit(x, y).predict_proba(x)
        assert not np.array_equal(unweighted, reference.predict_proba(x))


def test_weights_of_one_leave_every_bit(digits: Any) -> None:
    x, y = digits
    expected = quick(validation_split=0.2).fit(x, y).predict_proba(x)
    for ones in (np.ones(600), [1] * 600, np.ones(600, bool)):
        result = quick(validation_split=0.2).fit(x, y, sample_weight=ones).predict_proba(x)
        np.testing.assert_array_equal(result, expected)
    same = quick(validation_split=0.2, class_weight=dict.fromkeys(range(10), 1)).fit(x, y)
    np.testing.assert_array_equal(same.predict_proba(x), expected)


@pytest.mark.parametrize("split", [0.0, 0.25])
def test_samples_of_weight_zero_take_no_part(split: float, digits: Any) -> None:
    """Also not in the mean and deviation of the pixels; classes are those of y in any case."""
    x, y = digits
    weights = (np.arange(600) % 3 > 0) * 1.0
    wild = x.copy()
    wild[weights == 0] = 1e6
    expected = quick(validation_split=split).fit(x[weights > 0], y[weights > 0])
    result = quick(validation_split=split).fit(wild, y, sample_weight=weights)
    np.testing.assert_array_equal(result.predict_proba(x), expected.predict_proba(x))
    result.fit(x, y, sample_weight=(y != 3) * 1.0)
    assert result.classes_.tolist() == list(range(10))


def test_class_weights_are_sample_weights_and_balanced_ones_make_classes_count_alike(
    digits: Any,
) -> None:
    x, y = digits
    x, y = x[(y < 2) | (np.arange(600) % 4 == 0)], y[(y < 2) | (np.arange(600) % 4 == 0)]
    names = np.array([*"abcdefghij"])[y]
    by_class = quick(class_weight={"b": 5, "c": 0.5}).fit(x, names)
    weights = np.array([1, 5, 0.5, *[1] * 7])[y]
    expected = quick().fit(x, names, sample_weight=weights).predict_proba(x)
    np.testing.assert_array_equal(by_class.predict_proba(x), expected)
    both = quick(class_weight={"b": 5, "c": 0.5}).fit(x, names, sample_weight=1 / weights)
    np.testing.assert_allclose(
        both.predict_proba(x), quick().fit(x, names).predict_proba(x), atol=1e-6
    )
    uniform_weights = np.random.default_rng(0).uniform(0, 2, len(y))
    for sample_weight in (None, uniform_weights):
        ones = np.ones(len(y)) if sample_weight is None else sample_weight
        alike = len(y) / np.bincount(y, ones)[y] * ones
        expected = quick().fit(x, names, sample_weight=alike).predict_proba(x)
        result = quick(class_weight="balanced").fit(x, names, sample_weight).predict_proba(x)
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_score_counts_by_weights(digits: Any) -> None:
    x, y = digits
    classifier = quick(epochs=2).fit(x, y)
    right = classifier.predict(x) == y
    weights = np.random.default_rng(0).random(600)
    assert classifier.score(x, y) == right.mean()
    assert classifier.score(x, y, weights) == pytest.approx((right * weights).sum() / weights.sum())
    assert classifier.score(x, y, sample_weight=None) == classifier.score(x, y)
    with pytest.raises(ValueError, match="sample_weight must not be zero for all samples"):
        classifier.score(x, y, np.zeros(600))


@pytest.mark.parametrize(
    ("settings", "weights", "error", "message"),
    [
        ({}, np.ones(3), ValueError, r"sample_weight must have the shape \(4,\)"),
        ({}, [1, 1, -1, 1], ValueError, "at least 0, got -1 for sample 2"),
        ({}, [1, 1, np.nan, 1], ValueError, "sample_weight must hold finite numbers"),
        ({}, np.zeros(4), ValueError, "sample_weight must not be zero for all samples"),
        ({}, [1, 0, 1, 0], ValueError, "at least two classes with a sample_weight above 0, got 1"),
        ({}, ["1"] * 4, TypeError, "sample_weight must hold real numbers"),
        ({"class_weight": {0: 1, 2: 5}}, None, ValueError,
         "class_weight must have labels of y as keys, got 2, and no weight of 1"),
        ({"class_weight": {0: -1}}, None, ValueError, r"class_weight\[0\] must be a finite"),
        ({"class_weight": {0: "x"}}, None, TypeError, r"class_weight\[0\] must be a number"),
        ({"class_weight": {0: 0, 1: 0}}, None, ValueError, "class_weight must not be zero for all"),
        ({"class_weight": "equal"}, None, ValueError, 'class_weight must be a dict .* "balanced"'),
        ({"class_weight": [1, 2]}, None, ValueError, "class_weight must be a dict"),
    ],
)  # fmt: skip
def test_wrong_weights_are_found_by_fit(
    settings: dict[str, Any], weights: Any, error: type[Exception], message: str
) -> None:
    classifier = CNNClassifier(epochs=1, **settings)
    with pytest.raises(error, match=message):
        classifier.fit(np.eye(4), [0, 1, 0, 1], sample_weight=weights)
    assert not hasattr(classifier, "model_")


def test_ensembles_and_wrappers_pass_weights_on(digits: Any) -> None:
    x, y = digits[0][:200], digits[1][:200] % 3
    weights = np.random.default_rng(0).uniform(0.1, 2, 200)
    classifier = quick(net=lambda classes: [Flatten(), Dense(classes)], learning_rate=0.05)
    for wrapper in (
        AdaBoostClassifier(classifier, n_estimators=3),
        BaggingClassifier(classifier, n_estimators=2, random_state=0),
        CalibratedClassifierCV(classifier, cv=2),
        VotingClassifier([("one", classifier), ("two", clone(classifier))], voting="soft"),
    ):
        assert wrapper.fit(x, y, sample_weight=weights).score(x, y, weights) > 0.7, wrapper
    assert OneVsRestClassifier(classifier).fit(x, y).score(x, y) > 0.7


# --- metadata routing -----------------------------------------------------------------------------


def test_sample_weights_are_routed_through_pipelines_searches_and_cross_validation(
    digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits[0][:120], digits[1][:120] % 2
    weights = np.random.default_rng(0).uniform(0.1, 2, 120)
    seen: list[tuple[str, bool]] = []
    for name in ("fit", "score"):
        original = getattr(CNNClassifier, name)

        def watched(
            self: Any, X: Any, y: Any, sample_weight: Any = None, *, of: Any = original
        ) -> Any:
            seen.append((of.__name__, sample_weight is not None))
            return of(self, X, y, sample_weight)

        monkeypatch.setattr(CNNClassifier, name, watched)
    plain = quick(net=[Flatten(), Dense(2)], epochs=1)
    with config_context(enable_metadata_routing=True):
        assert np.isfinite(
            cross_val_score(make_pipeline(StandardScaler(), plain), x, y, cv=2)
        ).all()
        assert set(seen) == {("fit", False), ("score", False)}
        with pytest.raises(Exception, match=r"sample_weight.* not explicitly set as requested"):
            cross_validate(plain, x, y, cv=2, params={"sample_weight": weights})
        asks = (
            clone(plain).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        )
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, clone(asks))
        for estimator in (
            asks,
            pipeline,
            GridSearchCV(pipeline, {"cnnclassifier__epochs": [1, 2]}, cv=2),
        ):
            seen.clear()
            cross_validate(
                estimator, x, y, cv=2, params={"sample_weight": weights}, error_score="raise"
            )
            assert set(seen) == {("fit", True), ("score", True)}
        other = (
            clone(asks)
            .set_fit_request(sample_weight="importance")
            .set_score_request(sample_weight=False)
        )
        cross_validate(other, x, y, cv=2, params={"importance": weights}, error_score="raise")
        assert asks.get_metadata_routing().fit.requests == {"sample_weight": True}
        assert other.get_metadata_routing().fit.requests == {"sample_weight": "importance"}
        assert plain.get_metadata_routing().fit.requests == {"sample_weight": None}
        again = pickle.loads(pickle.dumps(other))
        assert again.get_metadata_routing().score.requests == {"sample_weight": False}
        assert asks.set_fit_request().get_metadata_routing().fit.requests == {"sample_weight": True}
    with pytest.raises(RuntimeError, match="only available when metadata routing is enabled"):
        plain.set_fit_request(sample_weight=True)


# --- large data -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "order"), [("f4", "C"), ("f8", "F"), ("u1", "C"), ("i2", "C")])
@pytest.mark.parametrize("split", [0.0, 0.25])
def test_no_copy_is_made_of_a_memory_mapped_file(
    split: float, dtype: str, order: Any, tmp_path: Path
) -> None:
    shape = 5000, 32, 32, 2
    x = np.lib.format.open_memmap(
        tmp_path / "x.npy", "w+", dtype, shape, fortran_order=order == "F"
    )
    y = np.arange(len(x)) % 4
    x[...] = (y * 9).reshape(-1, 1, 1, 1)
    weights = 1.0 + (y == 0)
    net = [Conv2D(2, 8, strides=8), Flatten(), Dense(4)]

    def fitted() -> CNNClassifier:
        classifier = CNNClassifier(net, epochs=1, validation_split=split, class_weight="balanced")
        return classifier.fit(x, y, sample_weight=weights)

    fitted()  # compiles
    tracemalloc.start()
    classifier = fitted()
    classifier.score(x, y)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A million numbers, compared with those of the training, take most of it, whatever the file's
    # size.
    assert most < 22 << 20 < x.size * 4 / 1.7
    samples = np.asarray(x[:8])
    if dtype != "u1":
        samples = ((samples - classifier.mean_) / classifier.scale_).astype("f4")
    assert classifier.model_.predict(samples).shape == (8, 4)


def test_scaled_batch_by_batch_it_learns_the_same_bits(
    digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastcnn.estimator import base as module

    x, y = digits
    settings = {"validation_split": 0.2, "augment": Augment(shift=1)}
    expected = quick(**settings).fit(x, y)
    monkeypatch.setattr(module, "_COPY_BYTES", 0)
    result = quick(**settings).fit(x, y)
    np.testing.assert_array_equal(result.predict_proba(x), expected.predict_proba(x))
    assert result.history_.history["val_loss"] == expected.history_.history["val_loss"]
    images = (x.reshape(-1, 8, 8) * 15).astype(np.uint8)
    crops = quick(net=[Flatten(), Dense(10)], augment=Augment(crop=6), validation_split=0.2)
    with pytest.raises(ValueError, match="x must hold samples of shape"):
        crops.fit(images, y)  # as without: the net is built for whole images


def test_mean_and_deviation_in_parts_are_those_of_numpy(
    digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastcnn.estimator import base as module

    monkeypatch.setattr(module, "_PART", 1000)
    x = digits[0] + 1e6
    for shape, axis in (((8, 8, 1), None), ((64,), 0)):
        for rows in (None, np.arange(0, 600, 7)):
            some = x if rows is None else x[rows]
            mean, deviation = module.mean_and_deviation(x, shape, rows)
            np.testing.assert_allclose(mean, some.mean(axis=axis), rtol=1e-12)
            expected = some.std(axis=axis)
            np.testing.assert_allclose(deviation, np.where(expected == 0, 1, expected), rtol=1e-9)


# --- tables ---------------------------------------------------------------------------------------


class Table:
    """As much of a data frame as the classifier looks at."""

    def __init__(self, array: Any, columns: list[Any]) -> None:
        self.array, self.columns = array, columns

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.array, dtype)


def test_columns_of_a_table_must_be_those_of_fit(recwarn: pytest.WarningsRecorder) -> None:
    x, y = np.random.default_rng(0).random((6, 3)), [0, 1] * 3
    classifier = CNNClassifier(epochs=1).fit(Table(x, ["a", "b", "c"]), y)
    assert classifier.feature_names_in_.tolist() == ["a", "b", "c"]
    classifier.predict(Table(x, ["a", "b", "c"]))
    assert not recwarn.list
    for columns, text in (
        (["b", "a", "c"], "must be in the same order"),
        (["a", "b", "z"], "unseen at fit time:\n- z\nFeature names seen at fit time.*\n- c"),
    ):
        with pytest.raises(ValueError, match=text):
            classifier.predict(Table(x, columns))
    with pytest.warns(UserWarning, match="X does not have valid feature names, but CNNClassifier"):
        classifier.predict(x)
    classifier.fit(x, y)
    assert not hasattr(classifier, "feature_names_in_")
    with pytest.warns(
        UserWarning, match="X has feature names, but CNNClassifier was fitted without"
    ):
        classifier.score(Table(x, ["a", "b", "c"]), y)
    assert not hasattr(CNNClassifier(epochs=1).fit(Table(x, [0, 1, 2]), y), "feature_names_in_")


def test_before_fit_it_says_so() -> None:
    with pytest.raises(NotFittedError, match="This CNNClassifier instance is not fitted yet"):
        CNNClassifier().predict(np.zeros((1, 4)))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"net": "vgg"}, ValueError, "net must be one of auto, article, "),
        ({"net": lambda classes: [Flatten(), Dense(7)]}, ValueError,
         r"net must give a score for each of 3 classes, got an output of shape \(7,\)"),
        ({"net": [3]}, TypeError, "net"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be"),
        ({"optimizer": "x"}, ValueError, "optimizer must be one of sgd"),
        ({"learning_rate": -1}, ValueError, "learning_rate must be a finite number"),
        ({"image_shape": (3, 4)}, ValueError, "image_shape must hold the 64 features of X"),
        ({"random_state": "x"}, TypeError, "random_state must be an integer, a generator or None"),
        ({"random_state": -1}, ValueError, "random_state must be at least 0, got -1"),
    ],
)  # fmt: skip
def test_bad_parameters_are_found_by_fit(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    classifier = CNNClassifier(**settings)
    with pytest.raises(error, match=message):
        classifier.fit(np.random.default_rng(0).random((9, 64)), np.arange(9) % 3)
    assert not hasattr(classifier, "model_")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 3)), [0, 1, 0], "y must have one label for each of 4 samples, got 3"),
        (np.zeros((4, 3)), [0, 0, 0, 0], "y must have at least two classes, got 1 class"),
        (np.zeros((4, 3)), [0.5, 1, 0, 1], "Unknown label type: y must hold classes"),
        (np.zeros((4, 3)), [0, 1, 0, np.nan], "Input y contains NaN"),
        (
            np.zeros((4, 3)),
            ["a", "b", None, "a"],
            r"Input y contains None: the label y\[2\] is miss",
        ),
        (
            np.zeros((4, 3)),
            ["a", "b", np.nan, "a"],
            r"Input y contains NaN: the label y\[2\] is mis",
        ),
        (np.zeros((4, 3)), np.array([1, None, 0, 1], object), r"contains None: the label y\[1\]"),
        (np.zeros((4, 3)), np.array([1, np.nan, 0, 1], object), r"contains NaN: the label y\[1\]"),
        (
            np.zeros((4, 3)),
            np.array([1, 0.5, 0, 1], object),
            r"y must hold classes, .*y\[0\] is 0.5",
        ),
        (
            np.zeros((2, 3)),
            np.array(["2020-01-01", "NaT"], "M8[D]"),
            r"NaT: the label y\[1\] is mis",
        ),
        (
            np.zeros((3, 3)),
            np.ma.array([0, 1, 2], mask=[0, 0, 1]),
            r"masked .* label y\[2\] is miss",
        ),
        (np.ma.array(np.eye(2), mask=np.eye(2)), [0, 1], "X must have no masked numbers"),
        (np.zeros((2, 3)), [[0, 1], [0]], "one label for each sample, got a ragged sequence"),
        (
            np.zeros((2, 3)),
            np.array([{1}, {2}], object),
            r"one label for each .* got \{1\} in y\[0\]",
        ),
        (np.zeros((2, 3)), np.eye(2), r"y must have the shape \(n,\), one label for each sample"),
        (np.full((2, 3), np.inf), [0, 1], "X must hold finite numbers"),
        (np.zeros((2, 1, 1, 1, 1)), [0, 1], r"X must have the shape \(n, H, W, C\) at most"),
    ],
)
def test_bad_data(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNNClassifier().fit(x, y)


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", "b", 3, "a"], r"labels of one type, got 'a' in y\[0\] and 3 in y\[2\]"),
        ([1, "b", 3, 1], r"labels of one type, got 1 in y\[0\] and 'b' in y\[1\]"),
        (["a", b"b", "a", "a"], r"labels of one type, got 'a' in y\[0\] and b'b' in y\[1\]"),
        ([1j, 2j, 1j, 2j], "Complex data not supported|can be sorted"),
    ],
)
def test_labels_of_several_types_are_named(y: list[Any], message: str, array: bool) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        CNNClassifier(epochs=1).fit(np.zeros((4, 3)), np.array(y, object) if array else y)


def test_labels_as_objects_are_classes() -> None:
    for y in (["a", "b"] * 3, [True, False] * 3, [3, 4.0] * 3, [np.int8(1), 2] * 3):
        labels = np.array(y, object)
        classifier = CNNClassifier(epochs=1).fit(np.eye(6), labels)
        assert classifier.classes_.dtype == object
        assert set(classifier.predict(np.eye(6))) <= set(y)


def test_without_scikit_learn() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
import numpy as np
from fastcnn import CNNClassifier
from fastcnn.estimator.classifier import NotFittedError
x, y = np.random.default_rng(0).random((20, 9)), np.arange(20) % 2
try:
    CNNClassifier().predict(x)
except NotFittedError as error:
    assert isinstance(error, ValueError) and isinstance(error, AttributeError)
    print(error)
print(CNNClassifier(epochs=1).fit(x, y).predict(x).shape)
"""
    source = Path(fastcnn.__file__).parent.parent
    done = run([sys.executable, "-c", code], cwd=source)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("This CNNClassifier instance is not fitted yet.")
    assert done.stdout.endswith("(20,)\n")


def test_importing_the_classifier_leaves_scikit_learn_out() -> None:
    code = "import sys; from fastcnn import CNNClassifier; print('sklearn' in sys.modules)"
    source = Path(fastcnn.__file__).parent.parent
    assert run([sys.executable, "-c", code], check=True, cwd=source).stdout == "False\n"


def test_a_column_of_labels_is_taken_with_scikit_learns_warning(digits: Any) -> None:
    x, y = digits
    expected = quick().fit(x, y)
    for column in (y[:, None], y[:, None].tolist()):
        with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
            fitted = quick().fit(x, column)
        np.testing.assert_array_equal(fitted.predict_proba(x), expected.predict_proba(x))
        with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
            assert fitted.score(x, column) == expected.score(x, y)
