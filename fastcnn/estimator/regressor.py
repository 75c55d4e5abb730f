"""``CNNRegressor``: a net that predicts numbers, for scikit-learn's pipelines and searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.scalars import truth
from fastcnn.estimator import estimator_files as files
from fastcnn.estimator.base import (
    CNNEstimator,
    Net,
    check_finite,
    mean_and_deviation,
    net_input,
    not_all_zero,
)
from fastcnn.estimator.class_labels import feature_names
from fastcnn.models.sequential import Sequential
from fastcnn.nn.losses import Loss, loss_from_dict, loss_named
from fastcnn.nn.optimizers import Optimizer
from fastcnn.train.callbacks import Callback
from fastcnn.train.epochs import Augmentation
from fastcnn.train.output_losses import loss_to_dict
from fastcnn.train.sample_weights import checked


class CNNRegressor(CNNEstimator):
    """A net that predicts numbers, with scikit-learn's methods.

    **Samples** and their scaling are as for :class:`fastcnn.CNNClassifier`.

    **Targets** y are (n,) or (n, outputs). They are scaled to mean 0 and deviation 1 for the
    training, output by output, and predictions are scaled back. So targets of any size train.

    **Weights.** The ``sample_weight`` of :meth:`fit` is divided by its mean, so only its ratios
    matter. Samples of weight 0 take no part.

    Args:
        net: as for :class:`fastcnn.CNNClassifier`, with a number for each output at the end. A
            function takes the number of outputs.
        loss: "mse", "mae", "huber", or a loss of ``fastcnn.losses`` for numbers, which is copied.
            It compares scaled targets.
        image_shape, epochs, batch_size, optimizer, learning_rate, augment, callbacks: as for
            :class:`fastcnn.CNNClassifier`.
        validation_split: the share of the samples that is held out, at random.
        random_state, verbose: as for :class:`fastcnn.CNNClassifier`.

    Attributes:
        target_mean_, target_scale_: what is subtracted from targets, and the divisor, (outputs,).
        n_features_in_, feature_names_in_, image_shape_, model_, history_, samples_, mean_, scale_:
            as for :class:`fastcnn.CNNClassifier`. ``model_`` predicts scaled targets.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = rng.integers(0, 256, (80, 9, 8), dtype=np.uint8)
        >>> brightness = images.mean(axis=(1, 2))
        >>> regressor = CNNRegressor(epochs=40, random_state=0).fit(images, brightness)
        >>> regressor.score(images, brightness) > 0.9
        True
    """

    _estimator_type = "regressor"

    def __init__(
        self,
        net: Net = "auto",
        *,
        loss: str | Loss = "mse",
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
    ) -> None:
        self.net = net
        self.loss = loss
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

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True, multi_output=True),
            regressor_tags=RegressorTags(),
            input_tags=InputTags(two_d_array=True, three_d_array=True),
        )

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train a new net on samples X and numbers y, (n,) or (n, outputs).

        Raises ``TypeError`` or ``ValueError`` for a wrong argument of the constructor, NaN or
        infinity, X and y of different lengths, weights that are negative or all zero, a loss of
        classes, or layers that do not fit.
        """
        split, optimizer, seed = self._settings()
        loss = loss_from_dict(loss_to_dict(loss_named(self.loss)))
        if loss.implies is not None or loss.counts:
            raise ValueError(f"loss must be one of numbers, such as 'mse' or 'mae', got {loss!r}")
        samples, names = net_input(X), feature_names(X)
        targets = _targets(y, len(samples))
        weights = checked(sample_weight, len(samples))
        shape = self._shape_for(samples)
        check_finite(samples)
        rows = None
        if weights is not None:
            not_all_zero(weights)
            rows = None if weights.all() else np.flatnonzero(weights)
        outputs = 1 if targets.ndim == 1 else targets.shape[1]
        model = Sequential(self._layers(shape, outputs), shape, seed=seed)
        if model.output_shape != (outputs,):
            raise ValueError(
                f"net must end in {outputs} numbers, as y has, got an output of shape "
                f"{model.output_shape}"
            )
        train, rest = rows, None
        if split:
            order = np.arange(len(samples)) if rows is None else rows
            order = np.random.default_rng(seed).permutation(order)
            held_out = int(len(order) * split)
            if not held_out:
                raise ValueError(
                    f"validation_split={split} of {len(order)} samples leaves none to validate on"
                )
            train, rest = np.sort(order[held_out:]), np.sort(order[:held_out])
        table = targets.reshape(len(targets), outputs)
        mean, scale = mean_and_deviation(table, (outputs,), train)
        scaled = ((table - mean) / scale).astype(np.float32)
        rows_of_sets = train, rest
        self._train(model, samples, shape, names, scaled, rows_of_sets, weights, optimizer, loss)
        self.target_mean_: Array = np.asarray(mean)
        self.target_scale_: Array = np.asarray(scale)
        self._is_vector = targets.ndim == 1
        return self

    def _own_record(self) -> JsonObject:
        return {
            "target_mean": files.as_record(self.target_mean_),
            "target_scale": files.as_record(self.target_scale_),
            "is_vector": self._is_vector,
        }

    def _take_record(self, record: JsonObject) -> None:
        arrays = [files.array_from(record[name]) for name in ("target_mean", "target_scale")]
        for array in arrays:
            if array is None or array.dtype.kind != "f" or array.shape != self.model_.output_shape:
                raise ValueError("its targets must be scaled as the net's outputs are")
        self.target_mean_, self.target_scale_ = arrays  # type: ignore[assignment]
        self._is_vector = truth("is_vector", record["is_vector"])

    def predict(self, X: ArrayLike) -> Array:
        """The numbers for each sample, (n,) or (n, outputs) float64, as y was in :meth:`fit`.

        Raises ``NotFittedError`` before ``fit``. Raises ``ValueError`` for samples of another size
        than in ``fit``, and for NaN and infinity.
        """
        predicted = self._predicted(X) * self.target_scale_ + self.target_mean_
        return np.asarray(predicted[:, 0] if self._is_vector else predicted)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The coefficient of determination R², the mean over the outputs; 1 is perfect.

        It is ``1 − Σ w (y − p)² / Σ w (y − ȳ)²`` with predictions p and the weighted mean ȳ. Of
        constant targets it is 1 if all are right, else 0.

        Raises ``ValueError`` for weights that are negative or all zero, or targets of another
        shape.
        """
        predicted = self.predict(X)
        targets = _targets(y, len(predicted))
        if targets.shape != predicted.shape:
            raise ValueError(f"y must have the shape {predicted.shape}, got {targets.shape}")
        weights = checked(sample_weight, len(predicted))
        if weights is None:
            weights = np.ones(len(predicted))
        not_all_zero(weights)
        return _determination(
            targets.reshape(len(targets), -1), predicted.reshape(len(targets), -1), weights
        )


@unreported
def _determination(targets: Array, predicted: Array, weights: Array) -> float:
    mean = np.average(targets, axis=0, weights=weights)
    residual = weights @ np.square(targets - predicted)
    total = weights @ np.square(targets - mean)
    safe = np.where(total > 0, total, 1)
    of_each = np.where(total > 0, 1 - residual / safe, np.where(residual > 0, 0.0, 1.0))
    return float(of_each.mean())


def _targets(y: Any, samples: int) -> Array:
    """Targets (n,) or (n, outputs) as float64; the messages of errors are those of scikit-learn."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    if hasattr(y, "tocsr"):
        raise TypeError("y must be a dense array, but sparse data was passed; use y.toarray()")
    if np.ma.is_masked(y):
        raise ValueError("Input y contains masked numbers")
    try:
        array = np.asarray(y)
        if array.dtype.kind == "c":
            raise ValueError(f"Complex data not supported, got {array.dtype}")
        targets = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"y must hold real numbers: {error}") from None
    if targets.ndim not in (1, 2) or (targets.ndim == 2 and not targets.shape[1]):
        raise ValueError(f"y must have the shape (n,) or (n, outputs), got {targets.shape}")
    if len(targets) != samples:
        raise ValueError(f"y must have a target for each of {samples} samples, got {len(targets)}")
    if not np.isfinite(targets).all():
        raise ValueError("Input y contains NaN or infinity (inf)")
    return targets
