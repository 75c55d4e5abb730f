"""Checks of ``y`` and ``class_weight`` as scikit-learn's users pass them, and of column names."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.scalars import number


def checked_labels(y: Any, samples: int) -> Array:
    """Labels (n,) that can be compared with each other, one for each sample.

    Raises:
        TypeError: the labels have several types, or a type that cannot be sorted.
        ValueError: a label is missing (None, NaN, NaT or masked), the number of labels is wrong, a
            sample has several labels, or the labels are numbers that are no classes.

    >>> checked_labels(["a", "b", None], 3)
    Traceback (most recent call last):
        ...
    ValueError: Input y contains None: the label y[2] is missing
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    if np.ma.is_masked(y):
        i = int(np.ma.getmaskarray(y).reshape(len(y), -1).any(axis=1).argmax())
        raise ValueError(f"Input y contains masked numbers: the label y[{i}] is missing")
    try:
        labels = np.asarray(y)
    except ValueError:
        raise ValueError(
            "y must have the shape (n,), one label for each sample, got a ragged sequence"
        ) from None
    if labels.dtype.kind in "US" and not hasattr(y, "dtype") and labels.ndim == 1:
        # NumPy turns numbers, None and NaN into strings if the list also holds strings.
        _of_one_type(_objects(y))
    if labels.ndim == 2 and labels.shape[1] == 1:
        module = sys.modules.get("sklearn.exceptions")
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape of "
            "y to (n_samples,), for example using ravel().",
            UserWarning if module is None else module.DataConversionWarning,
            stacklevel=3,
        )
        labels = labels.reshape(-1)
    if labels.ndim != 1:
        raise ValueError(
            f"y must have the shape (n,), one label for each sample, got {np.shape(y)}"
        )
    if len(labels) != samples:
        raise ValueError(f"y must have one label for each of {samples} samples, got {len(labels)}")
    kind = labels.dtype.kind
    if kind == "f":
        _integral(labels)
    elif kind in "mM" and np.isnat(labels).any():
        i = int(np.isnat(labels).argmax())
        raise ValueError(f"Input y contains NaT: the label y[{i}] is missing")
    elif kind == "c":
        raise ValueError(f"Complex data not supported, y must hold classes, got {labels.dtype}")
    elif kind == "V":
        raise TypeError(f"y must hold labels that can be sorted, got dtype {labels.dtype}")
    elif kind == "O":
        _of_one_type(labels)
    return labels


def _objects(values: Any) -> Array:
    result = np.empty(len(values), object)
    for i, value in enumerate(values):
        result[i] = value
    return result


def _integral(labels: Array) -> None:
    good = np.isfinite(labels)
    if not good.all():
        i = int(good.argmin())
        raise ValueError(f"Input y contains NaN or infinity (inf): y[{i}] is {labels[i]}")
    is_integer = labels == np.floor(labels)
    if not is_integer.all():
        i = int(is_integer.argmin())
        raise ValueError(
            f"Unknown label type: y must hold classes, got continuous numbers: y[{i}] is "
            f"{labels[i]}"
        )


def _of_one_type(labels: Array) -> None:
    """Raise an error for objects, unless all are text, all are numbers, or all can be compared."""
    kinds = []
    for i, label in enumerate(labels):
        if _is_missing(label):
            raise ValueError(f"Input y contains {_name(label)}: the label y[{i}] is missing")
        if isinstance(label, list | tuple | set | frozenset | dict | np.ndarray):
            raise ValueError(
                f"y must have the shape (n,), one label for each sample, got {label!r} in y[{i}]"
            )
        kinds.append(_kind(label))
        if kinds[i] != kinds[0]:
            raise TypeError(
                f"y must hold labels of one type, got {labels[0]!r} in y[0] and {label!r} in y[{i}]"
            )
        if isinstance(label, float | np.floating):
            _integral(np.array([label]))
    try:
        np.sort(labels)
    except TypeError as error:
        raise TypeError(f"y must hold labels that can be sorted: {error}") from None


def _is_missing(label: object) -> bool:
    if label is None:
        return True
    try:
        return bool(label != label)
    except (TypeError, ValueError):  # pandas' NA and arrays have no truth value
        return type(label).__name__ == "NAType"


def _name(label: object) -> str:
    return "NaN" if isinstance(label, float | np.floating) else repr(label)


def _kind(label: object) -> object:
    """The kind of a label. Labels of one kind can be compared with each other."""
    if isinstance(label, str | bytes):
        return type(label).__mro__[-2]
    if isinstance(label, int | float | np.number | np.bool_):
        return "number"
    return type(label)


@unreported
def balanced(
    class_weight: Mapping[Any, float] | str | None,
    classes: Array,
    targets: Array,
    sample_weight: Array | None,
) -> Array | None:
    """The weight of each sample, (n,): its class's weight times its ``sample_weight``.

    The result is None if there are neither class weights nor sample weights. "balanced" means class
    weights with which all classes count alike.

    Raises ``TypeError`` or ``ValueError`` for class weights that are neither a dict of labels and
    weights, nor "balanced", nor None, and for a weight that is negative or not finite. A label that
    is not in y is an error only if a label of y has no weight, because it may be a misspelling.

    >>> balanced("balanced", np.array(["a", "b"]), np.array([0, 0, 0, 1]), None).round(4).tolist()
    [0.6667, 0.6667, 0.6667, 2.0]
    """
    if class_weight is None:
        return sample_weight
    ones = np.ones(len(targets)) if sample_weight is None else sample_weight
    by_class = np.ones(len(classes))
    if isinstance(class_weight, str) and class_weight == "balanced":
        sums = np.bincount(targets, ones, len(classes))
        np.divide(sums.sum() / len(classes), sums, out=by_class, where=sums > 0)
    elif isinstance(class_weight, Mapping):
        unnamed = [label for label in classes.tolist() if label not in class_weight]
        unknown = [label for label in class_weight if label not in classes.tolist()]
        if unnamed and unknown:
            raise ValueError(
                f"class_weight must have labels of y as keys, got {unknown[0]!r}, and no weight of "
                f"{unnamed[0]!r}"
            )
        for i, label in enumerate(classes.tolist()):
            if label in class_weight:
                by_class[i] = number(f"class_weight[{label!r}]", class_weight[label])
    else:
        raise ValueError(
            f'class_weight must be a dict of labels and their weights, "balanced" or None, got '
            f"{class_weight!r}"
        )
    weights = ones * by_class[targets]
    if not weights.any():
        raise ValueError("class_weight must not be zero for all samples")
    return weights


def feature_names(table: object) -> Array | None:
    """The names of a table's columns, if all are strings; None for anything else."""
    columns = getattr(table, "columns", None)
    if columns is None:
        return None
    names = list(columns)
    if not names or not all(isinstance(name, str) for name in names):
        return None
    return np.array(names, object)


def same_names(table: object, fitted: Array | None, estimator: str) -> None:
    """Raise ``ValueError`` if columns have other names, or another order, than in ``fit``.

    Warns if only one of the two had names. The messages are those of scikit-learn.
    """
    names = feature_names(table)
    if names is None and fitted is None:
        return
    if fitted is None or names is None:
        here, there = "X has feature names", "without"
        if fitted is not None:
            here, there = "X does not have valid feature names", "with"
        difference = f"{here}, but {estimator} was fitted {there} feature names"
        warnings.warn(difference, UserWarning, stacklevel=3)
        return
    if names.tolist() == fitted.tolist():
        return
    message = "The feature names should match those that were passed during fit.\n"
    unexpected = sorted({*names.tolist()} - {*fitted.tolist()})
    missing = sorted({*fitted.tolist()} - {*names.tolist()})
    for heading, some in (
        ("Feature names unseen at fit time:", unexpected),
        ("Feature names seen at fit time, yet now missing:", missing),
    ):
        if some:
            shown = some[:5] + ["..."] * (len(some) > 5)
            message += f"{heading}\n" + "".join(f"- {name}\n" for name in shown)
    if not unexpected and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(message)
