"""``CNNEstimator``: what the classifier and the regressor share, as scikit-learn's estimators.

scikit-learn itself is not needed, because the estimator's protocol is a handful of methods. If
scikit-learn has been imported, errors and tags are its own.

Source: L. Buitinck et al., "API design for machine learning software", arXiv:1309.0238.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from math import isqrt, prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath
from fastcnn.core.float_errors import unreported
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import below_one, count, number
from fastcnn.data.on_demand import SamplesOnDemand, is_memory_mapped
from fastcnn.data.scaling import KnownSamples
from fastcnn.estimator import estimator_files as files
from fastcnn.estimator.class_labels import same_names
from fastcnn.estimator.metadata_routing import RequestsSampleWeight
from fastcnn.models.inputs import finite, layout_doubt
from fastcnn.models.model import Model
from fastcnn.models.nets import NETS
from fastcnn.models.sequential import Sequential
from fastcnn.nn.layers import Dense, Flatten, Layer, Shape, checked_layers, image_shape
from fastcnn.nn.losses import Loss
from fastcnn.nn.optimizers import Optimizer, optimizer_from_dict, optimizer_named, optimizer_to_dict
from fastcnn.train.callbacks import Callback
from fastcnn.train.epochs import Augmentation
from fastcnn.train.progress import History

Net = str | Callable[[int], list[Layer]] | Sequence[Layer]

_POOLED_TWICE = 10  # side of the smallest image for the net "small"
_SMALLEST_IMAGE = 8  # side; smaller samples are vectors of features
_PART = 1 << 18  # numbers that are processed at a time
_COPY_BYTES = 1 << 25  # samples of at most this size are scaled once, larger ones batch by batch


class NotFittedError(ValueError, AttributeError):
    """A method that needs a fitted estimator was called before ``fit``."""


class CNNEstimator(RequestsSampleWeight):
    """Base class of :class:`CNNClassifier` and :class:`CNNRegressor`.

    The attributes are many, because scikit-learn asks for one of each argument and each result.

    Attributes:
        n_features_in_, feature_names_in_, image_shape_, model_, history_, samples_, mean_, scale_:
            what ``fit`` found, see the subclasses.
    """

    net: Net
    image_shape: Sequence[int] | None
    epochs: int
    batch_size: int
    optimizer: str | Optimizer
    learning_rate: float | None
    augment: Augmentation | None
    validation_split: float
    callbacks: Sequence[Callback]
    random_state: object
    verbose: int

    n_features_in_: int
    feature_names_in_: Array
    image_shape_: Shape
    model_: Sequential
    history_: History
    samples_: KnownSamples
    mean_: Any
    scale_: Any

    # --- the estimator's protocol -----------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; ``deep`` has no effect."""
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: object) -> Self:
        """Set arguments of the constructor by name; ``ValueError`` for an unknown name.

        >>> from fastcnn import CNNClassifier
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

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: FilePath) -> None:
        """Write the fitted estimator to a file, which :meth:`load` reads; it runs no code.

        The file is that of ``model_``, so :func:`fastcnn.load_model` reads the net alone. It holds
        the labels, the scaling, the optimizer and all arguments that are numbers, texts or None.
        Layers, augmentations, callbacks and generators among the arguments are not kept; a pickle
        keeps them.

        Raises ``NotFittedError`` before ``fit``, ``ValueError`` for labels that are no numbers,
        booleans or texts; else as :meth:`fastcnn.Model.save`.
        """
        self._check_fitted()
        arguments: dict[str, Any] = {
            name: value
            for name in self._parameters()
            if isinstance(value := getattr(self, name), str | int | float | bool | None)
        }
        if isinstance(self.optimizer, Optimizer):
            arguments["optimizer"] = optimizer_to_dict(self.optimizer)
        names = getattr(self, "feature_names_in_", None)
        record = {
            "class": type(self).__name__,
            "arguments": arguments,
            "image_shape": list(self.image_shape_),
            "mean": files.as_record(self.mean_),
            "scale": files.as_record(self.scale_),
            "samples": files.knowledge_record(self.samples_),
            "feature_names": files.as_record(names),
            "history": self.history_.history,
            **self._own_record(),
        }
        files.write(path, self.model_, record)

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """The fitted estimator of a file that :meth:`save` wrote.

        Raises ``ModelFileError`` for a damaged file or one of another kind, ``OSError`` where it
        cannot be opened.
        """
        model, record, file = files.read(path, cls.__name__)
        try:
            arguments = dict(record["arguments"])
            if isinstance(arguments.get("optimizer"), dict):
                arguments["optimizer"] = optimizer_from_dict(arguments["optimizer"])
            if unknown := arguments.keys() - cls._parameters().keys():
                raise ValueError(f"it has the unknown argument {quoted(min(unknown))}")
            estimator = cls(**arguments)
            shape = files.shape_of(record["image_shape"])
            if shape != model.input_shape:
                raise ValueError(f"its samples must be of shape {model.input_shape}, got {shape}")
            mean, scale = (files.array_from(record[name]) for name in ("mean", "scale"))
            if (mean is None) != (scale is None):
                raise ValueError("it must have both mean and scale, or none")
            scaling = None if mean is None or scale is None else (mean, scale)
            for one in scaling or ():
                if one.dtype.kind != "f" or one.shape not in ((), shape[-1:]):
                    raise ValueError(f"its scaling must fit samples of shape {shape}")
            history = History({str(k): [*map(float, v)] for k, v in record["history"].items()})
            known = files.knowledge_of(record["samples"])
            names = files.array_from(record["feature_names"])
            names = None if names is None else names.astype(object)
            estimator._remember(model, history, known, scaling, shape, names)
            estimator._take_record(record)
        except files.UNREADABLE as error:
            raise file.error(f"its estimator: {error}") from None
        return estimator

    def _own_record(self) -> JsonObject:
        """What a class's file holds beside what all estimators have."""
        raise NotImplementedError(f"{type(self).__name__} must define _own_record")

    def _take_record(self, record: JsonObject) -> None:
        """Take back what :meth:`_own_record` returned."""
        raise NotImplementedError(f"{type(self).__name__} must define _take_record")

    # --- training and prediction ------------------------------------------------------------------

    def _settings(self) -> tuple[float, Optimizer, int | None]:
        """``validation_split``, a new optimizer and a seed, after a check of the arguments."""
        count("epochs", self.epochs)
        count("batch_size", self.batch_size)
        split = below_one("validation_split", self.validation_split)
        return split, self._fresh_optimizer(), seed_of(self.random_state)

    def _train(
        self,
        model: Sequential,
        samples: Array,
        shape: Shape,
        names: Array | None,
        targets: Array,
        rows: tuple[Array | None, Array | None],
        weights: Array | None,
        optimizer: Optimizer,
        loss: Loss | None = None,
    ) -> None:
        """Train the model, and set the attributes that a fit leaves.

        ``rows`` are the samples to train on, or None for all, and those that are held out, or None.
        """
        train, held_out = rows
        knowledge = KnownSamples(scales_bytes=False)
        knowledge.learn(samples)
        scaling = None if samples.dtype == np.uint8 else mean_and_deviation(samples, shape, train)
        of_train = slice(None) if train is None else train
        validation = None
        if held_out is not None:
            unseen = net_samples(samples, shape, scaling, held_out)
            validation = unseen, targets[held_out], of_mean_one(weights, held_out)
        history = model.fit(
            net_samples(samples, shape, scaling, train),
            targets[of_train],
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=optimizer,
            loss=loss,
            validation_data=validation,
            callbacks=self.callbacks,
            verbose=self.verbose,
            augment=self.augment,
            sample_weight=of_mean_one(weights, of_train),
        )
        self._remember(model, history, knowledge, scaling, shape, names)

    def _remember(
        self,
        model: Sequential,
        history: History,
        knowledge: KnownSamples,
        scaling: Scaling | None,
        shape: Shape,
        names: Array | None,
    ) -> None:
        """Set the attributes that a fit leaves."""
        self.n_features_in_ = prod(shape)
        self.image_shape_ = shape
        self.mean_ = None if scaling is None else scaling[0]
        self.scale_ = None if scaling is None else scaling[1]
        self.samples_, self.model_, self.history_ = knowledge, model, history
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _predicted(self, X: ArrayLike) -> Array:
        """What the net predicts for samples, (n, outputs).

        Raises ``NotFittedError`` before ``fit``. Raises ``ValueError`` for samples of another size
        than in ``fit``, and for NaN and infinity.
        """
        self._check_fitted()
        same_names(X, getattr(self, "feature_names_in_", None), type(self).__name__)
        samples = net_input(X)
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
        check_finite(samples)
        if hasattr(self, "samples_"):  # not in pickles of earlier versions
            self.samples_.check("X", samples)
        scaling = None if self.mean_ is None else (self.mean_, self.scale_)
        if scaling is None and samples.dtype != np.uint8:
            # The net was trained on bytes, and gets them as floats.
            scaling = np.float64(127.5), np.float64(255)
        convert = conversion(self.image_shape_, scaling)
        step = max(1, _PART // self.n_features_in_)
        parts = [
            self.model_.predict_checked(convert(samples[first : first + step]))
            for first in range(0, len(samples), step)
        ]
        return np.concatenate(parts)

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


def seed_of(random_state: object) -> int | None:
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


def net_input(x: Any) -> Array:
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


def check_finite(array: Array) -> None:
    try:
        finite("X", array)
    except ValueError as error:
        # scikit-learn's checks expect the words "NaN" and "inf".
        raise ValueError(str(error).replace("infinity", "infinity (inf)")) from None


def not_all_zero(weights: Array) -> None:
    if not weights.any():
        raise ValueError("sample_weight must not be zero for all samples: no weight is above zero")


@unreported
def of_mean_one(weights: Array | None, rows: Array | slice) -> Array | None:
    """The weights of these samples, divided by their mean."""
    if weights is None:
        return None
    shares = weights[rows] / weights[rows].max()
    result: Array = shares / shares.mean()
    return result


Scaling = tuple[Array | np.float64, Array | np.float64]
"""The mean that is subtracted from samples, and the divisor of the difference."""


def conversion(shape: Shape, scaling: Scaling | None) -> Callable[[Array], Array]:
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
            rows = slice(first, first + step)
            # The mean is float64, so that a large mean costs no digits.
            result[rows] = (part[rows] - mean) / scale
        return result

    return convert


def net_samples(
    samples: Array, shape: Shape, scaling: Scaling | None, rows: Array | None
) -> Array | SamplesOnDemand:
    """These samples in the net's shape and scale, converted at once if small, or batch by batch."""
    result = SamplesOnDemand(samples, conversion(shape, scaling), rows)
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
            selected = samples[part if rows is None else rows[part]]
            yield selected.reshape(len(selected), *shape).astype(np.float64)

    numbers = count * (1 if axis == 0 else prod(shape))
    mean = sum(part.sum(axis=axis) for part in parts()) / numbers
    variance = sum(np.square(part - mean).sum(axis=axis) for part in parts()) / numbers
    deviation = np.sqrt(variance)
    # A feature that is constant, except for rounding, holds no information and is not scaled up.
    still = deviation <= 1e-12 * np.maximum(np.abs(mean), 1)
    return mean, np.where(still, 1.0, deviation)
