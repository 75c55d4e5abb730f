"""Metrics: figures of predictions that are no losses, such as the F1 score.

``fit`` computes them on the batches of each epoch and on the validation data, and ``evaluate`` on
its data. A metric sees all targets and predictions at once, so it is exact.

Sources: T. Fawcett, "An introduction to ROC analysis", 2006 (AUC, from ranks); the averages over
classes are those of scikit-learn.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from math import nan
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import Checked, FixedAttributes
from fastcnn.core.class_registry import Registry
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.core.user_code import read_only

Average = Literal["binary", "macro", "micro", "weighted"]
_AVERAGES = ("binary", "macro", "micro", "weighted")


class Metric(FixedAttributes):
    """Base class of all metrics: a subclass defines :meth:`value`.

    Attributes:
        name: the metric's name in the results, and in ``metrics=["name"]``. A subclass without a
            ``name`` of its own gets its class's name.
        greater_is_better: whether greater values are better, for callbacks that look for the best.

    >>> class Bias(Metric):
    ...     '''The mean of the differences.'''
    ...
    ...     def value(self, targets, predictions):
    ...         return (predictions - targets).mean()
    >>> float(Bias().value(np.array([1.0]), np.array([3.0])))
    2.0
    """

    registry: ClassVar[Registry[Metric]] = Registry("metric")
    attributes_beside_arguments = ("name",)
    name: str
    greater_is_better: bool = True

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if abstract:
            return
        if "name" not in vars(cls):
            cls.name = cls.__name__
        Metric.registry.add(cls.name, cls)

    def value(self, targets: Array, predictions: Array) -> float:
        """The figure for all samples together.

        Args:
            targets: as the loss takes them: class numbers (N,), rows of probabilities (N, C), or
                numbers in the outputs' shape. Read-only.
            predictions: what ``predict`` returns for the samples. Read-only.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define value(self, targets, predictions), which returns a "
            f"number"
        )

    def __repr__(self) -> str:
        names = inspect.signature(type(self).__init__).parameters
        shown = [f"{n}={getattr(self, n)!r}" for n in names if hasattr(self, n)]
        return f"{type(self).__name__}({', '.join(shown)})"


class _FromFunction(Metric, abstract=True):
    """A function of targets and predictions as a metric."""

    name = "function"

    def __init__(self, function: Callable[[Array, Array], float]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", "function")

    def value(self, targets: Array, predictions: Array) -> float:
        return self.function(targets, predictions)


class TopKAccuracy(Metric):
    """The share of samples whose class is among the k most probable ones; "top_5_accuracy" is k=5.

    Of equal probabilities the class with the smaller number counts as more probable.

    >>> predictions = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    >>> TopKAccuracy(2).value(np.array([1, 0]), predictions)
    0.5
    """

    name = "top_k_accuracy"

    k = Checked(count)

    def __init__(self, k: int = 5) -> None:
        self.k = k
        self.name = f"top_{self.k}_accuracy"

    def value(self, targets: Array, predictions: Array) -> float:
        labels, rows = _classes_and_rows(self, targets, predictions)
        best = np.argsort(-rows, axis=1, kind="stable")[:, : self.k]
        return float((best == labels[:, np.newaxis]).any(axis=1).mean())


def _average(name: str, value: object) -> Any:
    if value is not None and value not in _AVERAGES:
        raise ValueError(
            f"{name} must be one of {', '.join(_AVERAGES)}, or None, got {quoted(value)}"
        )
    return value


class _OfClasses(Metric, abstract=True):
    """A figure of each class, averaged.

    Args:
        average: "binary" is the figure of class 1, "macro" the mean over the classes that occur,
            "weighted" the same with each class weighted by its samples, and "micro" counts all
            classes together. None is "binary" for two classes, "macro" for more.
    """

    average = Checked(_average)

    def __init__(self, average: Average | None = None) -> None:
        self.average = average

    @unreported
    def value(self, targets: Array, predictions: Array) -> float:
        labels, rows = _classes_and_rows(self, targets, predictions)
        classes = rows.shape[1]
        guesses = rows.argmax(axis=1)
        hits = np.bincount(labels[guesses == labels], minlength=classes).astype(np.float64)
        guessed = np.bincount(guesses, minlength=classes)
        actual = np.bincount(labels, minlength=classes)
        average = self.average or ("binary" if classes == 2 else "macro")
        if average == "micro":
            return float(self.ratio(hits.sum(), guessed.sum(), actual.sum()))
        with np.errstate(all="ignore"):
            of_each = np.nan_to_num(self.ratio(hits, guessed, actual))
        if average == "binary":
            if classes != 2:
                raise ValueError(f"average must not be 'binary' for {classes} classes")
            return float(of_each[1])
        occurs = (guessed > 0) | (actual > 0)
        weights = actual[occurs] if average == "weighted" else np.ones(occurs.sum())
        return float(np.average(of_each[occurs], weights=weights))

    def ratio(self, hits: Any, guessed: Any, actual: Any) -> Any:
        """The figure from the numbers of right guesses, of guesses and of samples.

        0 / 0 counts 0.
        """
        raise NotImplementedError(f"{type(self).__name__} must define ratio")


class Precision(_OfClasses):
    """The share of the guesses of a class that are right.

    Args:
        average: "binary" (class 1), "macro", "weighted", "micro", or None: "binary" for two
            classes, "macro" for more.

    >>> Precision().value(np.array([0, 1, 1]), np.array([0.9, 0.8, 0.2])[:, None])
    0.5
    """

    name = "precision"

    def ratio(self, hits: Any, guessed: Any, actual: Any) -> Any:
        return hits / guessed


class Recall(_OfClasses):
    """The share of a class's samples that are found; ``average`` as for :class:`Precision`.

    >>> Recall().value(np.array([0, 1, 1]), np.array([0.9, 0.8, 0.2])[:, None])
    0.5
    """

    name = "recall"

    def ratio(self, hits: Any, guessed: Any, actual: Any) -> Any:
        return hits / actual


class F1(_OfClasses):
    """The harmonic mean of precision and recall; ``average`` as for :class:`Precision`.

    >>> F1("macro").value(np.array([0, 1, 1]), np.array([0.1, 0.8, 0.9])[:, None])
    1.0
    """

    name = "f1"

    def ratio(self, hits: Any, guessed: Any, actual: Any) -> Any:
        return 2 * hits / (guessed + actual)


class AUC(Metric):
    """The area under the ROC curve; of more than two classes the mean of each against the rest.

    It is the probability that a sample of the class has a higher score than another sample; equal
    scores count one half. NaN where a class has no sample, or every sample.

    >>> AUC().value(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])[:, None])
    0.75
    """

    name = "auc"

    def value(self, targets: Array, predictions: Array) -> float:
        labels, rows = _classes_and_rows(self, targets, predictions)
        classes = range(1, 2) if rows.shape[1] == 2 else range(rows.shape[1])
        return float(np.mean([_area(labels == label, rows[:, label]) for label in classes]))


def _area(positive: NDArray[np.bool_], scores: Array) -> float:
    """The area under the ROC curve from the ranks of the scores."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives or np.isnan(scores).any():
        return nan
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    total = float(ranks[which.reshape(-1)][positive].sum())
    return (total - positives * (positives + 1) / 2) / (positives * negatives)


class AbsoluteError(Metric):
    """The mean absolute difference of predictions and targets, "mae".

    >>> AbsoluteError().value(np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))
    1.5
    """

    name = "mae"
    greater_is_better = False

    def value(self, targets: Array, predictions: Array) -> float:
        return float(np.abs(_differences(self, targets, predictions)).mean())


class SquaredError(Metric):
    """The mean squared difference of predictions and targets, "mse".

    >>> SquaredError().value(np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))
    2.5
    """

    name = "mse"
    greater_is_better = False

    def value(self, targets: Array, predictions: Array) -> float:
        return float(np.square(_differences(self, targets, predictions)).mean())


def _differences(metric: Metric, targets: Array, predictions: Array) -> Array:
    if targets.shape != predictions.shape:
        raise ValueError(
            f"metric {metric.name!r} needs targets in the shape of the predictions, "
            f"{predictions.shape}, got {targets.shape}"
        )
    return np.subtract(predictions, targets, dtype=np.float64)


def _classes_and_rows(
    metric: Metric, targets: Array, predictions: Array
) -> tuple[NDArray[np.int64], Array]:
    """The class of each sample or pixel, (M,), and its scores for at least two classes, (M, C)."""
    rows = predictions.reshape(-1, predictions.shape[-1])
    if rows.shape[1] == 1:  # the probability of class 1
        if not ((targets == 0) | (targets == 1)).all():
            raise ValueError(f"metric {metric.name!r} needs targets 0 and 1 for one output")
        return targets.reshape(-1).astype(np.int64), np.concatenate([1 - rows, rows], axis=1)
    if targets.dtype.kind == "f":
        if targets.shape != predictions.shape:
            raise ValueError(
                f"metric {metric.name!r} needs classes, got targets of shape {targets.shape}"
            )
        targets = targets.argmax(axis=-1)
    return targets.reshape(-1).astype(np.int64), rows


def metric_named(value: object) -> Metric:
    """A metric, from an object, its name such as "f1" or "top_5_accuracy", or a function.

    Raises ``ValueError`` for an unknown name, ``TypeError`` for anything else.

    >>> metric_named("top_3_accuracy").name, metric_named("f1")
    ('top_3_accuracy', F1(average=None))
    """
    if isinstance(value, Metric):
        return value
    if isinstance(value, str):
        top = re.fullmatch(r"top_([1-9]\d{0,5})_accuracy", value)
        if top is not None:
            return TopKAccuracy(int(top[1]))
        kind = Metric.registry.get(value)
        if kind is not None:
            return kind()
    elif isinstance(value, type) and issubclass(value, Metric):
        return value()
    elif callable(value):
        return _FromFunction(value)
    names = [name for name in Metric.registry if name != "top_k_accuracy"]
    message = (
        f"metrics must be made of {', '.join(names)}, top_5_accuracy (or another number), metrics "
        f"such as F1(), or functions of targets and predictions, got {quoted(value)}"
    )
    raise ValueError(message) if isinstance(value, str) else TypeError(message)


def value_of(metric: Metric, targets: Array, predictions: Array) -> float:
    """The value of a metric, checked: a number, which may be NaN.

    Raises ``TypeError`` for anything else.
    """
    result = metric.value(read_only(targets), read_only(predictions))
    try:
        return float(result)
    except (TypeError, ValueError):
        raise TypeError(
            f"metric {metric.name!r} must return a number, got {quoted(result)}"
        ) from None
