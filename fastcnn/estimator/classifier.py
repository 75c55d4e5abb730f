"""``CNNClassifier``: a net as a scikit-learn estimator, for pipelines, searches, cross-validation.

scikit-learn itself is not needed, because the estimator's protocol is a handful of methods. If
scikit-learn has been imported, errors and tags are its own.

Source: L. Buitinck et al., "API design for machine learning software", arXiv:1309.0238.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isqrt, prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import below_one, count, number
from fastcnn.data.on_demand import SamplesOnDemand, is_memory_mapped
from fastcnn.data.scaling import KnownSamples
from fastcnn.estimator.class_labels import balanced, checked_labels, feature_names, same_names
from fastcnn.estimator.metadata_routing import RequestsSampleWeight
from fastcnn.estimator.stratified import hold_out
from fastcnn.models.inputs import finite, layout_doubt
from fastcnn.models.model import Model
from fastcnn.models.nets import NETS
from fastcnn.models.sequential import Sequential
from fastcnn.nn.layers import Dense, Flatten, Layer, Shape, checked_layers, image_shape
from fastcnn.nn.optimizers import Optimizer, optimizer_from_dict, optimizer_named, optimizer_to_dict
from fastcnn.train.callbacks import Callback
from fastcnn.train.epochs import Augmentation
from fastcnn.train.progress import History
from fastcnn.train.sample_weights import checked

Net = str | Callable[[int], list[Layer]] | Sequence[Layer]

_POOLED_TWICE = 10  # side of the smallest image for the net "small"
_SMALLEST_IMAGE = 8  # side; smaller samples are vectors of features
_PART = 1 << 18  # numbers that are processed at a time
_COPY_BYTES = 1 << 25  # samples of at most this size are scaled once, larger ones batch by batch


class NotFittedError(ValueError, AttributeError):
    """A method that needs a fitted classifier was called before ``fit``."""


class CNNClassifier(RequestsSampleWeight):
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

    # --- the estimator's protocol -----------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; ``deep`` has no effect."""
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: object) -> Self:
        """Set arguments of the constructor by name; ``ValueError`` for an unknown name.

        >>> CNNClassifier().set_params(epochs=3)
        CNNClassifier(epochs=3)
        """
        for name in params:
            if name not in self._parameters():
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: "
                    f"{list(self._parameters())}."
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        arguments = [
            f"{name}={getattr(self, name)!r}"
            for name, default in self._parameters().items()
            if repr(getattr(self, name)) != repr(default)
        ]
        return f"{type(self).__name__}({', '.join(arguments)})"

    @classmethod
    def _parameters(cls) -> dict[str, Any]:
        """The constructor's arguments with their defaults."""
        return {one.name: one.default for one in inspect.signature(cls).parameters.values()}

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
        epochs, batch_size = count("epochs", self.epochs), count("batch_size", self.batch_size)
        split = below_one("validation_split", self.validation_split)
        optimizer, seed = self._fresh_optimizer(), _seed(self.random_state)
        samples, names = _samples(X), feature_names(X)
        labels = checked_labels(y, len(samples))
        weights = checked(sample_weight, len(samples))
        shape = self._shape_for(samples)
        _finite(samples)
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

        train, rest = rows, None
        if split:
            train, rest = _split(targets, classes, rows, split, seed)
        knowledge = KnownSamples(scales_bytes=False)
        knowledge.learn(samples)
        scaling = None if samples.dtype == np.uint8 else mean_and_deviation(samples, shape, train)
        prepared = _net_samples(samples, shape, scaling, train)
        of_train = slice(None) if train is None else train
        validation = None
        if rest is not None:
            others = _net_samples(samples, shape, scaling, rest)
            validation = others, targets[rest], _of_mean_one(weights, rest)
        history = model.fit(
            prepared,
            targets[of_train],
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            validation_data=validation,
            callbacks=self.callbacks,
            verbose=self.verbose,
            augment=self.augment,
            sample_weight=_of_mean_one(weights, of_train),
        )
        self.classes_: Array = classes
        self.n_features_in_: int = prod(shape)
        self.image_shape_: Shape = shape
        self.mean_: Any = None if scaling is None else scaling[0]
        self.scale_: Any = None if scaling is None else scaling[1]
        self.samples_: KnownSamples = knowledge
        self.model_: Sequential = model
        self.history_: History = history
        if names is not None:
            self.feature_names_in_: Array = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def predict(self, X: ArrayLike) -> Array:
        """The most probable label of each sample, (n,), of the dtype of ``classes_``."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities (n, classes), in the order of ``classes_``.

        Raises ``NotFittedError`` before ``fit``. Raises ``ValueError`` for samples of another size
        than in ``fit``, and for NaN and infinity.
        """
        self._check_fitted()
        same_names(X, getattr(self, "feature_names_in_", None), type(self).__name__)
        samples = _samples(X)
        if prod(samples.shape[1:]) != self.n_features_in_:
            raise ValueError(
                f"X has {prod(samples.shape[1:])} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        if samples.ndim > 2 and _sides(samples.shape[1:]) != _sides(self.image_shape_):
            raise ValueError(
                f"X must hold samples of shape {self.image_shape_}, as in fit, or rows of "
                f"{self.n_features_in_} features, got samples of shape {samples.shape[1:]}"
            )
        _finite(samples)
        if hasattr(self, "samples_"):  # not in pickles of earlier versions
            self.samples_.check("X", samples)
        scaling = None if self.mean_ is None else (self.mean_, self.scale_)
        if scaling is None and samples.dtype != np.uint8:
            # The net was trained on bytes, and gets them as floats.
            scaling = np.float64(127.5), np.float64(255)
        convert = _conversion(self.image_shape_, scaling)
        step = max(1, _PART // self.n_features_in_)
        parts = [
            self.model_.predict_checked(convert(samples[first : first + step]))
            for first in range(0, len(samples), step)
        ]
        return np.concatenate(parts)

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
        _not_all_zero(weights)
        return float(np.average(right, weights=weights))

    # --- interpretation of arguments --------------------------------------------------------------

    def _check_fitted(self) -> None:
        if not hasattr(self, "model_"):
            sklearn = sys.modules.get("sklearn.exceptions")  # its own error, if it is imported
            error = NotFittedError if sklearn is None else sklearn.NotFittedError
            raise error(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )

    def _shape_for(self, samples: Array) -> Shape:
        """The shape of one sample for the net."""
        sample_shape = samples.shape[1:]
        if self.image_shape is not None:
            shape = image_shape(tuple(self.image_shape))
            if prod(shape) != prod(sample_shape):
                raise ValueError(
                    f"image_shape must hold the {prod(sample_shape)} features of X, got "
                    f"{self.image_shape}"
                )
            return shape
        doubt = layout_doubt("X", image_shape(sample_shape), len(samples))
        if doubt is not None:
            raise ValueError(f"{doubt}; image_shape={sample_shape} says that X is meant as it is")
        if len(sample_shape) == 1:
            side = isqrt(sample_shape[0])
            if side * side == sample_shape[0] and side >= _SMALLEST_IMAGE:
                return (side, side, 1)
        return image_shape(sample_shape)

    def _layers(self, shape: Shape, classes: int) -> list[Layer]:
        """The layers of a new net."""
        net = self.net
        if isinstance(net, str):
            if net == "auto":
                if len(shape) == 3 and min(shape[:2]) >= _SMALLEST_IMAGE:
                    return NETS["small" if min(shape[:2]) >= _POOLED_TWICE else "wide"](classes)
                hidden = Dense(64, activation="relu", kernel_initializer="he_normal")
                return [*([Flatten()] if len(shape) == 3 else []), hidden, Dense(classes)]
            if net not in NETS:
                raise ValueError(f"net must be one of auto, {', '.join(NETS)}, got {quoted(net)}")
            return NETS[net](classes)
        is_function = callable(net) and not isinstance(net, Layer | Model)  # called on tensors
        layers: Any = net
        if is_function:
            layers = layers(classes)
        return checked_layers("net", layers)  # the model copies them

    def _fresh_optimizer(self) -> Optimizer:
        optimizer = optimizer_named(self.optimizer)
        optimizer = optimizer_from_dict(optimizer_to_dict(optimizer))
        if self.learning_rate is not None:
            optimizer.learning_rate = number("learning_rate", self.learning_rate)
        return optimizer


def _sides(shape: Shape) -> Shape:
    """The sides of a sample above 1; they are equal for (1, 28, 28) and (28, 28, 1)."""
    return tuple(side for side in shape if side > 1)


def _seed(random_state: object) -> int | None:
    if random_state is None:
        return None
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        return count("random_state", random_state, least=0)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    raise TypeError(
        f"random_state must be an integer, a generator or None, got {quoted(random_state)}"
    )


def _samples(x: object) -> Array:
    """X as an array (n, …) of numbers; the messages of errors are those of scikit-learn."""
    if hasattr(x, "tocsr"):
        raise TypeError("X must be a dense array, but sparse data was passed; use X.toarray()")
    if np.ma.is_masked(x):
        raise ValueError("X must have no masked numbers, got a masked array with some")
    array = np.asarray(x)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported, X must hold real numbers, got {array.dtype}")
    if array.dtype.kind in "OUS":  # objects or text may be numbers; otherwise float() raises
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"X must hold real numbers, got dtype {array.dtype}")
    if array.ndim < 2:
        raise ValueError(
            "X must be a 2D array of rows, or images (n, H, W) or (n, H, W, C), got "
            f"{array.ndim}D. Reshape your data: array.reshape(1, -1) if it is a single sample"
        )
    if array.ndim > 4:
        raise ValueError(f"X must have the shape (n, H, W, C) at most, got {array.shape}")
    if not len(array):
        raise ValueError(
            f"Found array with 0 sample(s) (shape={array.shape}) while a minimum of 1 is required."
        )
    if not prod(array.shape[1:]):
        raise ValueError(
            f"Found array with 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
        )
    return array


def _finite(array: Array) -> None:
    try:
        finite("X", array)
    except ValueError as error:
        # scikit-learn's checks expect the words "NaN" and "inf".
        raise ValueError(str(error).replace("infinity", "infinity (inf)")) from None


def _not_all_zero(weights: Array) -> None:
    if not weights.any():
        raise ValueError("sample_weight must not be zero for all samples: no weight is above zero")


def _rows_that_count(weights: Array | None, targets: Array) -> Array | None:
    """The indices of the samples with a weight above 0; None for all samples."""
    rows = None
    if weights is not None:
        _not_all_zero(weights)
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
    train, rest = hold_out(of_rows, share, np.random.default_rng(seed))
    if not len(rest):
        raise ValueError(
            f"validation_split={share} of {len(of_rows)} samples leaves none to validate on"
        )
    without = np.setdiff1d(of_rows, of_rows[rest])
    if without.size:
        shown = ", ".join(map(repr, classes[without[:5]].tolist()))
        ellipsis = ", …" if without.size > 5 else ""
        warnings.warn(
            f"validation_split={share} leaves {without.size} of {len(classes)} classes without a "
            f"sample to validate on, because they have too few: {shown}{ellipsis}",
            UserWarning,
            stacklevel=3,
        )
    return (train, rest) if rows is None else (rows[train], rows[rest])


@unreported
def _of_mean_one(weights: Array | None, rows: Array | slice) -> Array | None:
    """The weights of these samples, divided by their mean."""
    if weights is None:
        return None
    some = weights[rows] / weights[rows].max()
    result: Array = some / some.mean()
    return result


Scaling = tuple[Array | np.float64, Array | np.float64]
"""The mean that is subtracted from samples, and the divisor of the difference."""


def _conversion(shape: Shape, scaling: Scaling | None) -> Callable[[Array], Array]:
    """A function that reshapes and scales samples for the net."""

    @unreported
    def convert(part: Array) -> Array:
        part = part.reshape(len(part), *shape)
        if scaling is None:
            return part
        mean, scale = scaling
        result = np.empty(part.shape, np.float32)
        step = max(1, _PART // prod(shape))
        for first in range(0, len(part), step):
            some = slice(first, first + step)
            # The mean is float64, so that a large mean costs no digits.
            result[some] = (part[some] - mean) / scale
        return result

    return convert


def _net_samples(
    samples: Array, shape: Shape, scaling: Scaling | None, rows: Array | None
) -> Array | SamplesOnDemand:
    """These samples in the net's shape and scale, converted at once if small, or batch by batch."""
    result = SamplesOnDemand(samples, _conversion(shape, scaling), rows)
    is_large = prod(result.shape) * result.dtype.itemsize > _COPY_BYTES
    return result if is_large or is_memory_mapped(samples) else np.asarray(result)


@unreported
def mean_and_deviation(samples: Array, shape: Shape, rows: Array | None) -> Scaling:
    """Mean and deviation of images as a whole, or of each feature of vectors.

    A deviation of 0 becomes 1. Both are computed in float64, from parts of ``samples``, with a few
    megabytes of memory.
    """
    axis = 0 if len(shape) == 1 else None
    count = len(samples) if rows is None else len(rows)
    step = max(1, _PART // max(1, prod(shape)))

    def parts() -> Iterator[Array]:
        for first in range(0, count, step):
            part = slice(first, first + step)
            some = samples[part if rows is None else rows[part]]
            yield some.reshape(len(some), *shape).astype(np.float64)

    numbers = count * (1 if axis == 0 else prod(shape))
    mean = sum(part.sum(axis=axis) for part in parts()) / numbers
    variance = sum(np.square(part - mean).sum(axis=axis) for part in parts()) / numbers
    deviation = np.sqrt(variance)
    # A feature that is constant, except for rounding, holds no information and is not scaled up.
    still = deviation <= 1e-12 * np.maximum(np.abs(mean), 1)
    return mean, np.where(still, 1.0, deviation)
