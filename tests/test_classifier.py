"""CNNClassifier: scikit-learn's own checks, what X may be, scaling, labels, and life without it."""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limits import run
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_digits
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import fastcnn
from fastcnn import Augment, CNNClassifier, callbacks
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D
from fastcnn.optimizers import SGD

# Of scikit-learn's checks these do not apply, or need what is not installed with the tests:
NOT_APPLICABLE = {
    "check_dataframe_column_names_consistency": "names of columns are not kept: pixels have none",
    "check_array_api_input": "arrays are NumPy's",
    "check_classifier_data_not_an_array": "needs pandas; other array-likes are tested below",
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
    CHECKS[name](CNNClassifier())


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
        (np.zeros((2, 3)), np.eye(2), r"y must have the shape \(n,\), one label for each sample"),
        (np.full((2, 3), np.inf), [0, 1], "X must hold finite numbers"),
        (np.zeros((2, 1, 1, 1, 1)), [0, 1], r"X must have the shape \(n, H, W, C\) at most"),
    ],
)
def test_bad_data(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNNClassifier().fit(x, y)


def test_without_scikit_learn() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
import numpy as np
from fastcnn import CNNClassifier
from fastcnn.classifier import NotFittedError
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
