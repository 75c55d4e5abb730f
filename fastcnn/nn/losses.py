"""Losses: the distances of a net's outputs from its targets, and their gradients.

A loss takes the net's raw outputs. The cross-entropy contains the softmax, and the binary
cross-entropy the sigmoid, so that no tiny probabilities are computed.

Sources: C. Szegedy et al., "Rethinking the Inception Architecture", arXiv:1512.00567 (label
smoothing); H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412, and
G. Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531 (rows of
probabilities).
"""

from __future__ import annotations

import inspect
from math import prod
from typing import ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastcnn import ops
from fastcnn.core.arguments import (
    Array,
    are_labels,
    class_labels,
    floats,
    in_range,
    probabilities,
    shown_row,
)
from fastcnn.core.attributes import Checked, FixedAttributes
from fastcnn.core.class_registry import Registry
from fastcnn.core.float_errors import unreported
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import below_one, number
from fastcnn.core.user_code import (
    Call,
    Contract,
    Source,
    check_methods,
    count_to,
    finite,
    numbers,
    read_only,
    real_numbers,
    refuse,
    refuse_method,
)
from fastcnn.nn.layers import Shape


def _positive(name: str, value: object) -> float:
    result = number(name, value)
    if not result:
        raise ValueError(f"{name} must be above 0, got {quoted(value)}")
    return result


# --- checks of the methods of users' losses -------------------------------------------------------


def _checked_targets(
    loss: Loss, call: Call, y: ArrayLike, count: int, output: Shape, dtype: DTypeLike
) -> Array:
    source, requirement = Source(loss, "targets"), f"an array of {count} targets"
    array = real_numbers(source, requirement, result := call(y, count, output, dtype))
    if array.ndim < 1 or len(array) != count:
        refuse(source, requirement, result)
    return np.asarray(array, dtype) if array.dtype.kind == "f" else array


def _checked_values(
    loss: Loss, call: Call, outputs: Array, targets: Array, *engine: object, **more: object
) -> Array:
    outputs = read_only(outputs)
    values = call(outputs, read_only(targets), *engine, **more)
    source, what = Source(loss, "values"), "the loss of each sample"
    kind = getattr(values, "dtype", None)
    dtype = kind if kind in _FLOATS else np.dtype(np.float64)
    return numbers(source, what, values, (len(outputs),), dtype)


def _checked_gradient(
    loss: Loss, call: Call, outputs: Array, targets: Array, *engine: object, **more: object
) -> Array:
    outputs = read_only(outputs)
    gradient = call(outputs, read_only(targets), *engine, **more)
    source, what = Source(loss, "gradient"), "a gradient"
    array = numbers(source, what, gradient, outputs.shape, outputs.dtype)
    finite(source, what, array, outputs)
    return array


def _checked_correct(
    loss: Loss, call: Call, outputs: Array, targets: Array, *more: object
) -> float:
    right = call(read_only(outputs), read_only(targets), *more)
    return count_to(Source(loss, "correct"), len(outputs), right, nan=not loss.counts)


def _checked_predictions(
    loss: Loss, call: Call, outputs: Array, *engine: object, **more: object
) -> Array:
    source, requirement = Source(loss, "predictions"), f"an array of {len(outputs)} predictions"
    result = call(read_only(outputs), *engine, **more)
    array = real_numbers(source, requirement, result)
    if array.ndim < 1 or len(array) != len(outputs):
        refuse(source, requirement, result)
    dtype = outputs.dtype if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    return np.array(array, dtype, order="C")


_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_CONTRACT: Contract = {
    "targets": _checked_targets,
    "values": _checked_values,
    "gradient": _checked_gradient,
    "correct": _checked_correct,
    "predictions": _checked_predictions,
}


class Loss(FixedAttributes):
    """Base class of all losses.

    The methods of a subclass get read-only arrays. Their results are checked: shapes, dtypes, and
    that the gradient of finite outputs is finite.

    Attributes:
        name: the loss's name in ``fit(loss=…)`` and in files. A subclass without a ``name`` of its
            own gets its class's name.
        implies: the class of the layer that turns outputs into predictions, "Softmax", "Sigmoid"
            or None. Training omits this layer at the end of a net.
        counts: whether the loss has an accuracy, which :meth:`correct` computes.
    """

    registry: ClassVar[Registry[Loss]] = Registry("loss")
    name: ClassVar[str]
    implies: ClassVar[str | None] = None
    counts: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):  # an inherited name belongs to another loss
            cls.name = cls.__name__
        Loss.registry.add(cls.name, cls)
        check_methods(cls, _CONTRACT)

    def __setattr__(self, name: str, value: object) -> None:
        refuse_method(self, name, _CONTRACT)
        super().__setattr__(name, value)

    def targets(self, y: ArrayLike, count: int, output: Shape, dtype: DTypeLike) -> Array:
        """``y`` of ``count`` samples, checked, in the form that the other methods take.

        The result may be ``y`` itself or a view of it. Unless a subclass says otherwise, targets
        are numbers in the outputs' shape, or (N,) for outputs (N, 1).

        Raises a ``ValueError`` or ``TypeError`` that says what is wrong with ``y``.
        """
        return _numbers(y, count, output, dtype)

    def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        """The loss of each sample, (N,)."""
        raise self._undefined(
            "values(self, outputs, targets, engine=None)", "the loss of each sample"
        )

    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        """Gradient of each sample's own loss with respect to the outputs, in their shape."""
        raise self._undefined(
            "gradient(self, outputs, targets, engine=None)",
            "the gradient of each sample's own loss, in the shape of the outputs",
        )

    def correct(self, outputs: Array, targets: Array) -> float:
        """The number of samples that are right; NaN for a loss without an accuracy."""
        if not self.counts:
            return float("nan")
        raise self._undefined(
            "correct(self, outputs, targets)",
            "the number of samples that are right; or set counts = False, and there is no accuracy",
        )

    def _undefined(self, method: str, result: str) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__} must define {method}, which returns {result}"
        )

    def predictions(self, outputs: Array, engine: str | None = None) -> Array:
        """The predictions that ``predict`` returns, from raw outputs."""
        return outputs

    def classes(self, targets: Array, output: Shape) -> tuple[NDArray[np.int64], int]:
        """The class number of each sample, and the number of classes, for ``class_weight``.

        Raises ``ValueError`` if the targets are no classes.
        """
        raise ValueError(
            f"class_weight needs a loss of classes, such as cross-entropy, got {self!r}; use "
            f"sample_weight"
        )

    def config(self) -> JsonObject:
        """The constructor's arguments."""
        names = inspect.signature(type(self).__init__).parameters
        return {k: getattr(self, k) for k in names if k not in ("self", "args", "kwargs")}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"


class CrossEntropy(Loss):
    """Softmax cross-entropy on class numbers (N,) or (N, 1), or rows of probabilities (N, C).

    For a net that ends in maps (H, W, C), each pixel has a class: class numbers (N, H, W) or
    (N, H, W, 1), or probabilities (N, H, W, C). The loss of a sample is the mean over its pixels,
    and its accuracy the share of its pixels that are right.

    With q the softmax of a sample's outputs, its loss is −log q at its class. For a row of
    probabilities p the loss is −Σ p log q. Such rows come from mixup, distillation or several
    annotators; one-hot rows are a special case. A sample is right if its largest output and its
    largest probability are at the same class.

    Args:
        label_smoothing: the share s of each label that is spread evenly over all C classes:
            p becomes (1 − s) p + s / C.

    Example:
        >>> loss = CrossEntropy()
        >>> labels = loss.targets([[0, 1], [1, 0]], 2, (2,), np.float32)
        >>> labels, loss.values(np.zeros((2, 2)), labels).round(4)
        (array([1, 0]), array([0.6931, 0.6931]))
        >>> maps, classes = np.zeros((1, 2, 3, 2)), [[[0, 1, 1], [1, 0, 0]]]
        >>> loss.correct(maps, loss.targets(classes, 1, (2, 3, 2), np.float32))
        0.5
    """

    name = "cross_entropy"
    implies = "Softmax"

    label_smoothing = Checked(below_one)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def targets(self, y: ArrayLike, count: int, output: Shape, dtype: DTypeLike) -> Array:
        if len(output) > 1:
            return _classes_of_pixels(y, count, output, dtype)
        (classes,) = output
        try:
            if are_labels(y, count):
                return in_range(cast("NDArray[np.int64]", y), classes)
            labels = _classes(y, count, classes)
            if labels.ndim == 2:
                return probabilities("y", labels, dtype)[...]
            return class_labels(labels, count, classes)
        except (TypeError, ValueError) as error:
            message = str(error).replace("labels", "y", 1) + _remedy(y, classes)
            raise type(error)(message) from None

    @unreported
    def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        losses = self.losses(outputs, targets, engine)
        return losses if losses.ndim == 1 else mean_of_each(losses)

    @unreported
    def losses(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        """The loss of each sample, (N,), or of each pixel, (N, H, W)."""
        smooth = self.smoothed(targets, outputs.shape[-1], outputs.dtype)
        losses: Array = ops.cross_entropy(outputs, smooth, reduction="none", engine=engine)
        return losses

    @unreported
    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        smooth = self.smoothed(targets, outputs.shape[-1], outputs.dtype)
        gradient = ops.cross_entropy_backward(outputs, smooth, reduction="none", engine=engine)
        if gradient.ndim > 2:
            gradient *= gradient.dtype.type(1 / prod(gradient.shape[1:-1]))
        return gradient

    @unreported
    def smoothed(self, targets: Array, classes: int, dtype: DTypeLike) -> Array:
        """``targets``, or with ``label_smoothing`` smoothed probabilities (N, …, classes).

        >>> CrossEntropy(0.5).smoothed(np.array([1]), 2, np.float32)
        array([[0.25, 0.75]], dtype=float32)
        """
        share = self.label_smoothing
        if not share:
            return targets
        if targets.dtype.kind == "f":
            rows = np.asarray((1 - share) * targets, dtype)
            rows += share / classes
            return rows
        labels = class_labels(targets.reshape(-1), targets.size, classes)
        rows = np.full((len(labels), classes), share / classes, dtype)
        rows[np.arange(len(labels)), labels] += 1 - share
        return rows.reshape(*targets.shape, classes)

    def correct(self, outputs: Array, targets: Array) -> float:
        classes, _ = self.classes(targets, outputs.shape[1:])
        right = np.count_nonzero(outputs.argmax(axis=-1) == classes)
        return int(right) if outputs.ndim == 2 else float(right / prod(outputs.shape[1:-1]))

    def classes(self, targets: Array, output: Shape) -> tuple[NDArray[np.int64], int]:
        return (targets if targets.dtype.kind != "f" else targets.argmax(axis=-1)), output[-1]

    def predictions(self, outputs: Array, engine: str | None = None) -> Array:
        return ops.softmax(outputs, engine=engine)


class MeanSquaredError(Loss):
    """Mean of the squared differences between outputs and targets of the same shape.

    With one output (1,), targets may be (N,). There is no accuracy.
    """

    name = "mse"
    counts = False

    @unreported
    def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        return mean_of_each(np.square(outputs - targets))

    @unreported
    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        gradient: Array = outputs - targets
        gradient *= 2 / max(gradient[:1].size, 1)
        return gradient


class BinaryCrossEntropy(Loss):
    """Mean over the outputs of the cross-entropy of their sigmoid, with targets from 0 to 1.

    Targets have the outputs' shape; for outputs (N, 1) also (N,). The accuracy of a sample is the
    share of its outputs whose sigmoid is on the same side of one half as the target.
    """

    name = "binary_cross_entropy"
    implies = "Sigmoid"

    def targets(self, y: ArrayLike, count: int, output: Shape, dtype: DTypeLike) -> Array:
        targets = _numbers(y, count, output, dtype)
        wrong = targets[(targets < 0) | (targets > 1)]
        if wrong.size:
            raise ValueError(f"y must be from 0 to 1 for binary cross-entropy, got {wrong[0]}")
        return targets

    @unreported
    def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        # −t·log σ(z) − (1 − t)·log σ(−z), without an exponential above 1.
        losses = np.maximum(outputs, 0) - outputs * targets + np.log1p(np.exp(-np.abs(outputs)))
        return mean_of_each(losses)

    @unreported
    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        gradient = self.predictions(outputs, engine)
        gradient -= targets
        gradient *= 1 / max(gradient[:1].size, 1)
        return gradient

    def correct(self, outputs: Array, targets: Array) -> float:
        right = (outputs > 0) == (targets > 0.5)
        return float(right.sum() / max(right[:1].size, 1))

    def classes(self, targets: Array, output: Shape) -> tuple[NDArray[np.int64], int]:
        if output != (1,) or not ((targets == 0) | (targets == 1)).all():
            raise ValueError(
                "class_weight needs one output and targets 0 and 1 with binary cross-entropy, got "
                f"{output} outputs; use sample_weight"
            )
        return targets[:, 0].astype(np.int64), 2

    def predictions(self, outputs: Array, engine: str | None = None) -> Array:
        return ops.sigmoid(outputs, engine=engine)


class MeanAbsoluteError(Loss):
    """Mean of the absolute differences between outputs and targets of the same shape.

    Outliers count less than in the mean squared error. The gradient of a difference of 0 is 0. With
    one output (1,), targets may be (N,). There is no accuracy.

    >>> loss = MeanAbsoluteError()
    >>> loss.values(np.array([[1.0, 5.0]]), np.array([[2.0, 2.0]]))
    array([2.])
    """

    name = "mae"
    counts = False

    @unreported
    def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        return mean_of_each(np.abs(outputs - targets))

    @unreported
    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        gradient: Array = np.sign(outputs - targets)
        gradient *= 1 / max(gradient[:1].size, 1)
        return gradient


class Huber(Loss):
    """The squared error of small differences d, the absolute error of large ones.

    It is the mean over the outputs of ``d² / 2`` where ``|d|`` is at most ``delta``, and of
    ``delta · (|d| − delta / 2)`` elsewhere. With one output (1,), targets may be (N,). There is no
    accuracy.

    Args:
        delta: a number above 0.

    Source: P. J. Huber, "Robust Estimation of a Location Parameter", 1964.

    >>> Huber(delta=1.0).values(np.array([[0.5], [3.0]]), np.zeros((2, 1)))
    array([0.125, 2.5  ])
    """

    name = "huber"
    counts = False

    delta = Checked(_positive)

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = delta

    @unreported
    def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        distance = np.abs(outputs - targets)
        delta = distance.dtype.type(self.delta)
        near = np.minimum(distance, delta)
        return mean_of_each(near * (distance - near / 2))

    @unreported
    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        gradient: Array = np.clip(outputs - targets, -self.delta, self.delta)
        gradient *= 1 / max(gradient[:1].size, 1)
        return gradient


class Focal(CrossEntropy):
    """The cross-entropy, in which samples that are already right count little.

    With q the softmax of a sample's outputs and p its row of probabilities (one-hot for a class
    number) the loss is ``−Σ p (1 − q)^gamma log q``. Targets, accuracy and maps are as for
    :class:`CrossEntropy`. Weights of classes are the ``class_weight`` of ``fit``.

    Args:
        gamma: a number of at least 0; 0 gives the cross-entropy.

    Source: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002.

    >>> Focal(0.0).values(np.zeros((1, 2)), np.array([1])).round(4)
    array([0.6931])
    >>> Focal(2.0).values(np.zeros((1, 2)), np.array([1])).round(4)
    array([0.1733])
    """

    name = "focal"

    gamma = Checked(number)

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    @unreported
    def losses(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        logs = ops.log_softmax(outputs, engine=engine)
        rows = _rows(targets, outputs)
        terms: Array = rows * np.power(-np.expm1(logs), self.gamma) * logs
        return np.asarray(-terms.sum(axis=-1), outputs.dtype)

    @unreported
    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        logs = ops.log_softmax(outputs, engine=engine)
        q, complements, gamma = np.exp(logs), -np.expm1(logs), self.gamma
        slope = np.power(complements, gamma)
        if gamma:
            # Where the rest is 0, the logarithm is 0 too, and so is their product.
            powers = np.power(
                complements, gamma - 1, where=complements > 0, out=np.zeros_like(complements)
            )
            slope -= gamma * powers * q * logs
        of_logs = -_rows(targets, outputs) * slope
        gradient: Array = of_logs - q * of_logs.sum(axis=-1, keepdims=True)
        gradient *= 1 / prod(gradient.shape[1:-1])
        return np.asarray(gradient, outputs.dtype)


class KLDivergence(CrossEntropy):
    """The Kullback-Leibler divergence of the softmax from rows of probabilities.

    With q the softmax of a sample's outputs and p its row the loss is ``Σ p (log p − log q)``: the
    cross-entropy without the entropy of p, so that its smallest value is 0. Its gradient is that of
    the cross-entropy. Targets, accuracy and maps are as for :class:`CrossEntropy`.

    Source: S. Kullback, R. A. Leibler, "On Information and Sufficiency", 1951.

    >>> KLDivergence().values(np.zeros((1, 2)), np.array([[0.5, 0.5]]))
    array([0.])
    """

    name = "kl_divergence"

    def __init__(self) -> None:
        super().__init__()

    @unreported
    def losses(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        losses = super().losses(outputs, targets, engine)
        if targets.dtype.kind != "f":
            return losses
        rows = targets.astype(np.float64)
        logs = np.log(rows, where=rows > 0, out=np.zeros_like(rows))
        return np.asarray(losses + (rows * logs).sum(axis=-1), outputs.dtype)


class Hinge(Loss):
    """The margin between the score of the right class and those of the others, as in SVMs.

    With z the outputs and y the class of a sample the loss is
    ``Σ max(0, margin − z[y] + z[j]) / C`` over the classes j ≠ y. ``predict`` returns the scores.
    Targets are class numbers (N,), or one-hot rows; a net for two classes has two outputs.

    Args:
        margin: a number above 0.

    Source: J. Weston, C. Watkins, "Support Vector Machines for Multi-Class Pattern Recognition",
    1999.

    >>> Hinge().values(np.array([[2.0, 1.5, 0.0, 0.0]]), np.array([0]))
    array([0.125])
    """

    name = "hinge"

    margin = Checked(_positive)

    def __init__(self, margin: float = 1.0) -> None:
        self.margin = margin

    def targets(self, y: ArrayLike, count: int, output: Shape, dtype: DTypeLike) -> Array:
        if len(output) != 1 or output[0] < 2:
            raise ValueError(
                f"hinge needs a net that ends in a score for each of at least two classes, got "
                f"outputs of shape {output}"
            )
        labels = CrossEntropy().targets(y, count, output, dtype)
        if labels.dtype.kind == "f":
            raise ValueError("y must be class numbers or one-hot rows for hinge, got probabilities")
        return labels

    @unreported
    def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        excess = np.maximum(self._excess(outputs, targets), 0)
        return mean_of_each(excess)

    @unreported
    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        gradient = np.asarray(self._excess(outputs, targets) > 0, outputs.dtype)
        rows = np.arange(len(targets))
        gradient[rows, targets] = -gradient.sum(axis=1)
        gradient *= gradient.dtype.type(1 / outputs.shape[1])
        return gradient

    def _excess(self, outputs: Array, targets: Array) -> Array:
        """What each score has above the right one less the margin; 0 for the right one."""
        rows = np.arange(len(targets))
        excess: Array = outputs - outputs[rows, targets][:, np.newaxis]
        excess += excess.dtype.type(self.margin)
        excess[rows, targets] = 0
        return excess

    def correct(self, outputs: Array, targets: Array) -> float:
        return int(np.count_nonzero(outputs.argmax(axis=1) == targets))

    def classes(self, targets: Array, output: Shape) -> tuple[NDArray[np.int64], int]:
        return targets, output[-1]


def loss_named(value: object) -> Loss:
    """``value`` if it is a loss, or a new loss with this name, such as "cross_entropy" or "mse".

    >>> loss_named("mse")
    MeanSquaredError()
    """
    if isinstance(value, Loss):
        return value
    if not isinstance(value, str) or value not in Loss.registry:
        raise ValueError(
            f"loss must be one of {', '.join(Loss.registry)}, or a loss such as CrossEntropy(), "
            f"got {quoted(value)}"
        )
    return Loss.registry[value]()


def loss_from_dict(record: object) -> Loss:
    """The loss for a ``{"name": …, "config": …}``; ``ValueError`` for an unknown name."""
    if not isinstance(record, dict) or "name" not in record:
        raise ValueError(f"loss must be one of {', '.join(Loss.registry)}, got {quoted(record)}")
    kind = Loss.registry.find(record["name"], record.get("module"))
    return kind(**record["config"])


def _rows(targets: Array, outputs: Array) -> Array:
    """Rows of probabilities (N, …, C) of the outputs' dtype; of class numbers one-hot rows."""
    if targets.dtype.kind == "f":
        return np.asarray(targets, outputs.dtype)
    rows = np.zeros(outputs.shape, outputs.dtype)
    np.put_along_axis(rows, targets[..., np.newaxis].astype(np.int64), 1, axis=-1)
    return rows


def _classes(y: ArrayLike, count: int, classes: int) -> Array:
    try:
        array = np.asarray(y)
    except ValueError as error:
        raise ValueError(f"y must be an array, got a ragged sequence: {error}") from None
    if array.ndim == 2 and array.shape[1] == 1 and classes > 1:
        array = array[:, 0]  # a column, as in tables and in keras.datasets
    if array.ndim == 2:
        array = _unless_one_hot(array, classes)
    if array.ndim in (1, 2) and len(array) != count:
        raise ValueError(f"y must have one label per sample, {count}, got {len(array)}")
    return array


def _classes_of_pixels(y: ArrayLike, count: int, output: Shape, dtype: DTypeLike) -> Array:
    """Class numbers (N, H, W) in their own dtype, or probabilities (N, H, W, C); a new array.

    Class numbers keep their dtype, because images of bytes are an eighth as large as int64.
    """
    try:
        array = np.asarray(y)
    except ValueError as error:
        raise ValueError(f"y must be an array, got a ragged sequence: {error}") from None
    shape, classes = (count, *output), output[-1]
    if array.shape == shape and classes > 1:
        rows = _unless_one_hot(array.reshape(-1, classes), classes)
        if rows.ndim == 1:
            return rows.reshape(shape[:-1])
        return np.array(probabilities("y", rows, dtype)).reshape(shape)
    if array.shape == (*shape[:-1], 1):
        array = array[..., 0]
    if array.shape != shape[:-1]:
        raise ValueError(
            f"y must hold a class for each pixel, {shape[:-1]}, or probabilities {shape}, because "
            f"the net ends in maps {output}, got {array.shape}; for one class of an image, put a "
            f"Flatten() or GlobalAvgPool2D() and a Dense(classes) at the end of the net"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"y must be integers, got dtype {array.dtype}")
    labels = np.array(array, array.dtype.newbyteorder("="), order="C")
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise ValueError(
            f"y must be at least 0 and below {classes}, the number of channels that the net ends "
            f"in, got {labels[wrong][0]}"
        )
    return labels


def _remedy(y: ArrayLike, classes: int) -> str:
    """How labels that are no class numbers could become such, where they suggest it."""
    try:
        labels = np.asarray(y)
    except ValueError:
        return ""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not labels.size:
        return ""
    kind = labels.dtype.kind
    if kind in "US" or (kind == "O" and all(isinstance(one, str) for one in labels)):
        return "; names become class numbers by classes, y = numpy.unique(y, return_inverse=True)"
    if kind == "f" and np.isfinite(labels).all():
        if (labels == np.rint(labels)).all():
            return "; whole numbers become class numbers by y.astype(int)"
        return "; numbers that are no classes need another loss, such as loss='mse'"
    if kind not in "iu" or labels.min() < 0:
        return ""
    if labels.min() == 1 and labels.max() == classes:
        return "; labels that begin with 1 become class numbers by y - 1"
    if labels.max() >= classes:
        return f"; for these labels the net must end in {int(labels.max()) + 1} outputs"
    return ""


def _unless_one_hot(rows: Array, classes: int) -> Array:
    """The classes (N,) of one-hot rows; other rows (N, C) of floats are returned as they are."""
    if rows.shape[1] != classes:
        raise ValueError(
            f"y must be class numbers (N,), or rows of probabilities or one-hot rows "
            f"(N, {classes}), got {rows.shape}"
        )
    if rows.dtype.kind not in "fiub":
        raise TypeError(f"y must hold numbers, got dtype {rows.dtype}")
    right = ((rows == 0) | (rows == 1)).all(axis=1) & (np.count_nonzero(rows, axis=1) == 1)
    if right.all():
        return np.asarray(rows.argmax(axis=1))
    if rows.dtype.kind != "f":
        row = int(right.argmin())
        raise ValueError(
            f"y must be class numbers, one-hot rows, each with one 1 among 0s, or rows of "
            f"probabilities, got {shown_row(rows[row])} in row {row}"
        )
    return rows


@unreported
def _numbers(y: ArrayLike, count: int, output: Shape, dtype: DTypeLike) -> Array:
    (targets,) = floats(y=y)
    if targets.ndim == 1 and output == (1,):
        targets = targets[:, np.newaxis]
    if targets.shape != (count, *output):
        remedy = ""
        if targets.shape == (count,) and len(output) == 1:
            remedy = "; class numbers need 'cross_entropy' as the loss of fit, or as model.loss"
        raise ValueError(f"y must have the shape {(count, *output)}, got {targets.shape}{remedy}")
    if not np.isfinite(targets).all():
        raise ValueError("y must hold finite numbers, got NaN or infinity")
    return np.ascontiguousarray(targets, dtype)[...]


def mean_of_each(values: Array) -> Array:
    """The mean over all but the first axis, summed in float64."""
    means = values.mean(axis=tuple(range(1, values.ndim)), dtype=np.float64)
    return np.asarray(means, values.dtype)
