"""``CNNClassifier``: a net that classifies, for scikit-learn's pipelines and searches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.json_arrays import JsonObject
from fastcnn.estimator import estimator_files as files
from fastcnn.estimator.base import (
    CNNEstimator,
    Net,
    NotFittedError,
    check_finite,
    mean_and_deviation,
    net_input,
    not_all_zero,
)
from fastcnn.estimator.class_labels import balanced, checked_labels, feature_names
from fastcnn.estimator.stratified import hold_out
from fastcnn.models.sequential import Sequential
from fastcnn.nn.optimizers import Optimizer
from fastcnn.train.callbacks import Callback
from fastcnn.train.epochs import Augmentation
from fastcnn.train.sample_weights import checked

__all__ = ["CNNClassifier", "NotFittedError", "mean_and_deviation"]


class CNNClassifier(CNNEstimator):
    """A net that classifies, with scikit-learn's methods.

    **Samples.** X holds images (n, H, W) or (n, H, W, C), or rows (n, features). With
    ``image_shape`` rows are images of this shape. Without it, rows are square images of one channel
    if these have at least 8×8 pixels (64, 81, …, 784 features), otherwise vectors of features. Pass
    ``image_shape=(features,)`` for vectors that only look like images.

    **Scaling.** Bytes (uint8) are pixels, and are scaled to ``x / 255 − 0.5``. Other numbers are
    shifted and scaled so that the training data have mean 0 and deviation 1: images as a whole,
    vectors feature by feature. Large arrays and memory-mapped files are scaled batch by batch,
    without a copy of all. Later samples must have the same scale, in any dtype. Numbers far beyond
    the training's range raise an error or give one ``InputWarning``.

    **Weights.** ``class_weight`` and the ``sample_weight`` of :meth:`fit` are multiplied, and
    divided by their mean, so only their ratios matter. The loss of a batch of B samples is then
    ``Σ w · loss / B``, as in :meth:`fastcnn.Sequential.fit`. Samples of weight 0 take no part.

    Args:
        net: "auto", a name of ``fastcnn.nets.NETS``, a function from the number of classes to
            layers, or layers whose last one gives a score for each class. "auto" is the net "small"
            for images of at least 10×10 pixels, "wide" down to 8×8, and otherwise a hidden layer of
            64 units. Each fit copies the layers. New layers get random parameters, and layers of a
            trained model keep their parameters.
        image_shape: (H, W), (H, W, C) or (features,), or None.
        epochs: number of passes over all samples.
        batch_size: number of samples in a step.
        optimizer: "sgd", "adam", "adamw", "rmsprop", or an optimizer, which is copied.
        learning_rate: the learning rate, or None for the optimizer's own.
        augment: an augmentation such as ``fastcnn.Augment(shift=2)``, or None.
        validation_split: the share of each class's samples that is held out, at random. Each class
            keeps at least one sample for training.
        class_weight: the weights of the classes: a dict of labels and weights (default 1),
            "balanced" for weights that make the classes count alike, or None.
        callbacks: see :mod:`fastcnn.train.callbacks`.
        random_state: an integer, a generator of NumPy, or None for another result each time.
        verbose: 1 prints a line for each epoch.

    Attributes:
        classes_: the labels, sorted; the order of the columns of ``predict_proba``.
        n_features_in_: number of features of a sample.
        feature_names_in_: the names of the columns, if X is a table whose column names are all
            strings.
        image_shape_: the shape of a sample for the net, (H, W, C) or (features,).
        model_: the trained :class:`fastcnn.Sequential`. It takes scaled samples.
        history_: the training's :class:`fastcnn.History`.
        samples_: a record of the samples of ``fit``, with which later ones are compared.
        mean_, scale_: the mean that was subtracted from samples, and the divisor; None for bytes.

    ``fit`` checks the arguments, as is usual in scikit-learn.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = rng.integers(0, 100, (60, 9, 8), dtype=np.uint8)
        >>> images[::2, :4] += 120
        >>> labels = np.where(np.arange(60) % 2, "dark", "bright")
        >>> classifier = CNNClassifier(epochs=5, random_state=0).fit(images, labels)
        >>> classifier.predict(images[:3]).tolist(), classifier.score(images, labels)
        (['bright', 'dark', 'bright'], 1.0)
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        net: Net = "auto",
        *,
        image_shape: Sequence[int] | None = None,
        epochs: int = 10,
        batch_size: int = 32,
        optimizer: str | Optimizer = "adam",
        learning_rate: float | None = None,
        augment: Augmentation | None = None,
        validation_split: float = 0.0,
        callbacks: Sequence[Callback] = (),
        random_state: object = None,
        verbose: int = 0,
        class_weight: Mapping[Any, float] | str | None = None,
    ) -> None:
        self.net = net
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.augment = augment
        self.validation_split = validation_split
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=True, three_d_array=True),
        )

    # --- training and prediction ------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train a new net on samples X and labels y (n,) of any type that can be sorted.

        ``sample_weight`` (n,) holds the weight of each sample, see the class.

        Raises ``TypeError`` or ``ValueError`` for a wrong argument of the constructor, NaN or
        infinity, missing labels, labels of several types, X and y of different lengths, weights
        that are negative or all zero, fewer than two classes, or layers that do not fit.

        Warns with ``UserWarning`` if a class is too small for ``validation_split``.
        """
        split, optimizer, seed = self._settings()
        samples, names = net_input(X), feature_names(X)
        labels = checked_labels(y, len(samples))
        weights = checked(sample_weight, len(samples))
        shape = self._shape_for(samples)
        check_finite(samples)
        classes, targets = np.unique(labels, return_inverse=True)
        targets = targets.reshape(-1)
        rows = _rows_that_count(weights, targets)
        weights = balanced(self.class_weight, classes, targets, weights)
        model = Sequential(self._layers(shape, len(classes)), shape, seed=seed)
        if model.output_shape != (len(classes),):
            raise ValueError(
                f"net must give a score for each of {len(classes)} classes, got an output of shape "
                f"{model.output_shape}"
            )

        train, held_out = rows, None
        if split:
            train, held_out = _split(targets, classes, rows, split, seed)
        self._train(model, samples, shape, names, targets, (train, held_out), weights, optimizer)
        self.classes_: Array = classes
        return self

    def _own_record(self) -> JsonObject:
        return {"classes": files.as_record(self.classes_)}

    def _take_record(self, record: JsonObject) -> None:
        classes = files.array_from(record["classes"])
        if classes is None or (len(classes),) != self.model_.output_shape:
            raise ValueError(f"classes must be {self.model_.output_shape}, as the net's outputs")
        self.classes_ = classes

    def predict(self, X: ArrayLike) -> Array:
        """The most probable label of each sample, (n,), of the dtype of ``classes_``."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities (n, classes), in the order of ``classes_``.

        Raises ``NotFittedError`` before ``fit``. Raises ``ValueError`` for samples of another size
        than in ``fit``, and for NaN and infinity.
        """
        return self._predicted(X)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The accuracy: the share of samples whose predicted label is right.

        With ``sample_weight`` it is the share of the sum of the weights.

        Raises ``ValueError`` for weights that are negative or all zero.
        """
        predicted = self.predict(X)
        right = predicted == checked_labels(y, len(predicted))
        weights = checked(sample_weight, len(predicted))
        if weights is None:
            return float(right.mean())
        not_all_zero(weights)
        return float(np.average(right, weights=weights))


def _rows_that_count(weights: Array | None, targets: Array) -> Array | None:
    """The indices of the samples with a weight above 0; None for all samples."""
    rows = None
    if weights is not None:
        not_all_zero(weights)
        if not weights.all():
            rows = np.flatnonzero(weights)
            targets = targets[rows]
    classes = len(np.unique(targets))
    if classes < 2:
        weighted = "" if weights is None else " with a sample_weight above 0"
        raise ValueError(f"y must have at least two classes{weighted}, got {classes} class")
    return rows


def _split(
    targets: Array, classes: Array, rows: Array | None, share: float, seed: int | None
) -> tuple[Array, Array]:
    """The samples to train on, and the samples to validate on, from ``rows`` or all samples."""
    of_rows = targets if rows is None else targets[rows]
    train, held_out = hold_out(of_rows, share, np.random.default_rng(seed))
    if not len(held_out):
        raise ValueError(
            f"validation_split={share} of {len(of_rows)} samples leaves none to validate on"
        )
    without = np.setdiff1d(of_rows, of_rows[held_out])
    if without.size:
        shown = ", ".join(map(repr, classes[without[:5]].tolist()))
        ellipsis = ", …" if without.size > 5 else ""
        warnings.warn(
            f"validation_split={share} leaves {without.size} of {len(classes)} classes without a "
            f"sample to validate on, because they have too few: {shown}{ellipsis}",
            UserWarning,
            stacklevel=3,
        )
    return (train, held_out) if rows is None else (rows[train], rows[held_out])
