"""``CNNClassifier``: a net as a scikit-learn estimator, for pipelines, searches, cross-validation.

scikit-learn itself is not needed: the estimator's protocol is a handful of methods, written here.
Where scikit-learn is in use, errors and tags are its own.

Source: L. Buitinck et al., "API design for machine learning software", arXiv:1309.0238.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from math import isqrt, prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcnn.arguments import Array
from fastcnn.callbacks import Callback
from fastcnn.epochs import Augmentation
from fastcnn.float_errors import unreported
from fastcnn.inputs import layout_doubt
from fastcnn.layers import Dense, Flatten, Layer, Shape, checked_layers
from fastcnn.model import Sequential, image_shape
from fastcnn.nets import NETS
from fastcnn.optimizers import Optimizer, optimizer_from_dict, optimizer_named, optimizer_to_dict
from fastcnn.progress import History
from fastcnn.quoting import quoted
from fastcnn.scalars import count, number
from fastcnn.scaling import KnownSamples

Net = str | Callable[[int], list[Layer]] | Sequence[Layer]

_POOLED_TWICE = 10  # side of the smallest image for the net "small"
_SMALLEST_IMAGE = 8  # side; what is smaller is taken as a vector of features


class NotFittedError(ValueError, AttributeError):
    """A method that needs a fitted classifier was called before ``fit``."""


class CNNClassifier:
    """A net that classifies, with scikit-learn's methods.

    **What X may be.** Images (n, H, W) or (n, H, W, C), or rows (n, features). Rows are images
    where ``image_shape`` says so. Without it rows are square images of one channel where that gives
    at least 8×8 pixels (64, 81, …, 784 features), and vectors of features else; give
    ``image_shape=(features,)`` for vectors that only look like images.

    **Scaling.** Bytes (uint8) are pixels, and are scaled to ``x / 255 − 0.5``. Other numbers are
    shifted and scaled so that the training data have mean 0 and deviation 1: images as a whole,
    vectors feature by feature. Later samples must hold numbers of the same scale, in any dtype:
    what reaches far beyond the training's numbers is refused or there is one ``InputWarning``.

    Args:
        net: "auto"; a name of ``fastcnn.nets.NETS``; a function from the number of classes to
            layers; or layers, of which the last gives a score for each class. "auto" is the net
            "small" for images of at least 10×10 pixels, "wide" down to 8×8, and a hidden layer of
            64 units for the rest. Each fit copies the layers: new layers are drawn anew, and layers
            of a trained model begin with the parameters that they have there.
        image_shape: (H, W), (H, W, C) or (features,), or None.
        epochs: how many times all samples are seen.
        batch_size: samples to a step.
        optimizer: "sgd", "adam", "adamw", "rmsprop", or an optimizer, which is copied.
        learning_rate: the optimizer's rate, or None for its own.
        augment: such as ``fastcnn.Augment(shift=2)``, or None.
        validation_split: the share of the samples, taken from their end, that is held out.
        callbacks: see :mod:`fastcnn.callbacks`.
        random_state: an integer, a generator of NumPy, or None for another result each time.
        verbose: 1 prints a line for each epoch.

    Attributes:
        classes_: the labels, sorted; the order of the columns of ``predict_proba``.
        n_features_in_: numbers to a sample.
        image_shape_: how the net takes a sample, (H, W, C) or (features,).
        model_: the trained :class:`fastcnn.Sequential`. It takes X as it is scaled here.
        history_: the training's :class:`fastcnn.History`.
        samples_: what samples of ``fit`` were like, with which later ones are compared.
        mean_, scale_: what samples were shifted and scaled by; None for bytes.

    Arguments are checked by ``fit``, as scikit-learn's custom is.

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
        random_state: Any = None,
        verbose: int = 0,
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

    # --- the estimator's protocol -----------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; ``deep`` changes nothing."""
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: Any) -> Self:
        """Set constructor's arguments by name; ``ValueError`` for a name that is none of them.

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
        told = [
            f"{name}={getattr(self, name)!r}"
            for name, default in self._parameters().items()
            if repr(getattr(self, name)) != repr(default)
        ]
        return f"{type(self).__name__}({', '.join(told)})"

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

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train a new net on samples X and labels y (n,) of any type that can be sorted.

        Raises ``TypeError`` or ``ValueError`` for a wrong argument of the constructor, NaN or
        infinity, X and y of different lengths, fewer than two classes, or layers that do not fit.
        """
        epochs, batch_size = count("epochs", self.epochs), count("batch_size", self.batch_size)
        optimizer = self._fresh_optimizer()
        samples = _samples(X)
        labels = _labels(y, len(samples))
        shape = self._shape_for(samples)
        _finite(samples)
        classes, targets = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y must have at least two classes, got {len(classes)} class")
        model = Sequential(self._layers(shape, len(classes)), shape, seed=_seed(self.random_state))
        if model.output_shape != (len(classes),):
            raise ValueError(
                f"net must give a score for each of {len(classes)} classes, got an output of shape "
                f"{model.output_shape}"
            )

        known = KnownSamples(scales_bytes=False)
        known.learn(samples)
        samples = samples.reshape(len(samples), *shape)
        mean = scale = None
        if samples.dtype != np.uint8:
            axes = 0 if len(shape) == 1 else None
            mean, scale = _mean_and_scale(samples, axes)
            samples = _scaled(samples, mean, scale)
        history = model.fit(
            samples,
            targets.reshape(-1),
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            validation_split=self.validation_split,
            callbacks=self.callbacks,
            verbose=self.verbose,
            augment=self.augment,
        )
        self.classes_: Array = classes
        self.n_features_in_: int = prod(shape)
        self.image_shape_: Shape = shape
        self.mean_, self.scale_ = mean, scale
        self.samples_: KnownSamples = known
        self.model_: Sequential = model
        self.history_: History = history
        return self

    def predict(self, X: ArrayLike) -> Array:
        """The most probable label of each sample, (n,), of the dtype of ``classes_``."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities (n, classes), in the order of ``classes_``.

        Raises ``NotFittedError`` before ``fit``, ``ValueError`` for samples of another size than
        those of ``fit``, and for NaN and infinity.
        """
        self._fitted()
        samples = _samples(X)
        if prod(samples.shape[1:]) != self.n_features_in_:
            raise ValueError(
                f"X has {prod(samples.shape[1:])} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        if samples.ndim > 2 and _sides(samples.shape[1:]) != _sides(self.image_shape_):
            raise ValueError(
                f"X must hold samples of shape {self.image_shape_}, as those of fit, or rows of "
                f"{self.n_features_in_} features, got samples of shape {samples.shape[1:]}"
            )
        _finite(samples)
        if hasattr(self, "samples_"):  # not in pickles of earlier versions
            self.samples_.check("X", samples)
        samples = samples.reshape(len(samples), *self.image_shape_)
        if self.mean_ is not None:
            samples = _scaled(samples, self.mean_, self.scale_)
        elif samples.dtype != np.uint8:  # a net that was trained on bytes, and the same in floats
            samples = _scaled(samples, np.float64(127.5), np.float64(255))
        return self.model_.predict_checked(samples)

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """The share of samples whose label is predicted."""
        predicted = self.predict(X)
        return float((predicted == _labels(y, len(predicted))).mean())

    # --- what arguments mean ----------------------------------------------------------------------

    def _fitted(self) -> None:
        if not hasattr(self, "model_"):
            known = sys.modules.get("sklearn.exceptions")  # where it is in use, its own error
            error = NotFittedError if known is None else known.NotFittedError
            raise error(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )

    def _shape_for(self, samples: Array) -> Shape:
        """How the net takes one sample."""
        given = samples.shape[1:]
        if self.image_shape is not None:
            shape = image_shape(tuple(self.image_shape))
            if prod(shape) != prod(given):
                raise ValueError(
                    f"image_shape must hold the {prod(given)} features of X, got {self.image_shape}"
                )
            return shape
        doubt = layout_doubt("X", image_shape(given), len(samples))
        if doubt is not None:
            raise ValueError(f"{doubt}; image_shape={given} says that X is meant as it is")
        if len(given) == 1:
            side = isqrt(given[0])
            if side * side == given[0] and side >= _SMALLEST_IMAGE:
                return (side, side, 1)
        return image_shape(given)

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
        layers = net(classes) if callable(net) else net
        return checked_layers("net", layers)  # the model copies them

    def _fresh_optimizer(self) -> Optimizer:
        optimizer = optimizer_named(self.optimizer)
        optimizer = optimizer_from_dict(optimizer_to_dict(optimizer))
        if self.learning_rate is not None:
            optimizer.learning_rate = number("learning_rate", self.learning_rate)
        return optimizer


def _sides(shape: Shape) -> Shape:
    """The sides of a sample that are more than 1: (1, 28, 28) and (28, 28, 1) hold the same."""
    return tuple(side for side in shape if side > 1)


def _seed(random_state: Any) -> int | None:
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


def _samples(x: Any) -> Array:
    """X as (n, …) numbers, in the words that scikit-learn has for what is wrong with it."""
    if hasattr(x, "tocsr"):
        raise TypeError("X must be a dense array, but sparse data was passed; use X.toarray()")
    array = np.asarray(x)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported, X must hold real numbers, got {array.dtype}")
    if array.dtype.kind in "OUS":  # numbers in disguise, or what float() says of it
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
    if array.dtype.kind != "f" or np.isfinite(array.sum(dtype=np.float64)):
        return
    if not np.isfinite(array).all():
        raise ValueError("X must hold finite numbers, got NaN or infinity (inf)")


def _labels(y: Any, samples: int) -> NDArray[Any]:
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        known = sys.modules.get("sklearn.exceptions")
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape of "
            "y to (n_samples,), for example using ravel().",
            UserWarning if known is None else known.DataConversionWarning,
            stacklevel=3,
        )
        labels = labels.reshape(-1)
    if labels.ndim != 1:
        raise ValueError(
            f"y must have the shape (n,), one label for each sample, got {np.shape(y)}"
        )
    if len(labels) != samples:
        raise ValueError(f"y must have one label for each of {samples} samples, got {len(labels)}")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise ValueError("Input y contains NaN or infinity (inf)")
        if (labels != np.floor(labels)).any():
            raise ValueError("Unknown label type: y must hold classes, got continuous numbers")
    elif labels.dtype.kind == "c":
        raise ValueError(f"Complex data not supported, y must hold classes, got {labels.dtype}")
    return labels


@unreported
def _mean_and_scale(samples: Array, axes: int | None) -> tuple[Any, Any]:
    """Means and standard deviations; 1 for a feature that is constant but for rounding."""
    mean = samples.mean(axis=axes, dtype=np.float64)
    deviation = samples.std(axis=axes, dtype=np.float64)
    still = deviation <= 1e-12 * np.maximum(np.abs(mean), 1)
    return mean, np.where(still, 1.0, deviation)


@unreported
def _scaled(samples: Array, mean: Any, scale: Any) -> Array:
    """Shifted and scaled in float64, so that large means cost no digits; then float32."""
    result = np.empty(samples.shape, np.float32)
    for first in range(0, len(samples), 1024):
        part = slice(first, first + 1024)
        result[part] = (samples[part] - mean) / scale
    return result
