"""The checks before a training: arguments and data of ``fit``, and the training that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from math import inf
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import below_one, count, generator, truth
from fastcnn.data.augmentation import Augment
from fastcnn.data.on_demand import Samples, SamplesOnDemand
from fastcnn.data.preparation import preparation_of
from fastcnn.models.inputs import finite, samples
from fastcnn.models.model_files import model_from
from fastcnn.models.net import Net, image_shape, least_batch, too_few
from fastcnn.nn.layers import Layer, Shape, infer_stack, to_dict
from fastcnn.nn.losses import Loss, loss_named
from fastcnn.nn.optimizers import Optimizer, optimizer_named
from fastcnn.train.callbacks import Callback
from fastcnn.train.checkpoint import ModelFile
from fastcnn.train.epochs import Augmentation, centred
from fastcnn.train.progress import Progress, checksum_of_samples
from fastcnn.train.sample_weights import checked, weights_of

# Arguments of ``fit`` for settings that a resumed training must share.
_DATA = {
    "targets": "y",
    "samples": "x",
    "images": "x",
    "weights": "sample_weight and class_weight",
}


Pair = tuple[ArrayLike, ArrayLike]
Triple = tuple[ArrayLike, ArrayLike, ArrayLike | None]


class Data(NamedTuple):
    """Samples, their targets, and how much the loss of each counts; checked."""

    images: Samples
    targets: Array
    weights: Array | None


class Fit(NamedTuple):
    """The checked arguments of a ``fit``.

    Attributes:
        data, validation: what is trained on, and what is evaluated after each epoch.
        epochs, augment, verbose: as the arguments.
        shape: the shape of a sample, as the layers take it.
        loss, optimizer: from the arguments, or the default ones.
        rng: a generator of the seed, or None.
        callbacks: the callbacks as a list.
        settings: must be the same when the training is resumed.
    """

    data: Data
    validation: Data | None
    epochs: int
    augment: Augmentation | None
    verbose: bool
    shape: Shape
    loss: Loss
    optimizer: Optimizer
    rng: np.random.Generator | None
    callbacks: list[Callback]
    settings: dict[str, Any]


def checked_fit(
    model: Net,
    x: ArrayLike,
    y: ArrayLike,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer | str | None,
    loss: Loss | str | None,
    validation_data: Pair | Triple | None,
    validation_split: float,
    callbacks: Iterable[Callback],
    shuffle: bool,
    seed: int | None,
    verbose: int,
    augment: Augmentation | None,
    class_weight: Mapping[int, float] | None,
    sample_weight: ArrayLike | None,
) -> Fit:
    """Check the arguments of ``fit``, before the model changes.

    The function is long because the checks have an order, in which each relies on those before it.
    Its parameters are those of ``fit``.
    """
    epochs, batch_size = count("epochs", epochs), count("batch_size", batch_size)
    shuffle = truth("shuffle", shuffle)
    fresh = None if seed is None else generator("seed", seed)
    if verbose not in (0, 1):
        raise ValueError(f"verbose must be 0 or 1, got {quoted(verbose)}")
    descent = optimizer_named("sgd" if optimizer is None else optimizer)
    descent.check_free()
    goal = model._loss() if loss is None else loss_named(loss)
    listeners = _checked_callbacks(callbacks)
    if augment is not None and not callable(augment):
        raise TypeError(
            f"augment must be called with images and a generator, got {quoted(augment)}"
        )

    split = below_one("validation_split", validation_split)
    if split and validation_data is not None:
        raise ValueError("validation_split must be 0 where validation_data is given")
    images = x if isinstance(x, SamplesOnDemand) else samples("x", x, None)
    if not len(images):
        raise ValueError(f"x must hold at least one sample, got {np.shape(x)}")
    if len(images) != (size := len(np.asarray(y)) if np.ndim(y) else -1):
        raise ValueError(f"y must have one label per sample, {len(images)}, got {size}")
    weights_of_samples = checked(sample_weight, len(images))
    held_out = validation_data
    if split:
        (images, y, weights_of_samples), held_out = _split(images, y, weights_of_samples, split)
    crop = centred(augment)
    first = images[:1] if crop is None else crop(images[:1])
    shape = image_shape(first.shape[1:])
    if model.built and shape != model.input_shape:
        raise ValueError(
            f"x must hold samples of shape {model.input_shape}, got {shape}"
            + (" after augmentation" if crop else "")
        )
    finite("x", images)
    model._known.check("x", images)
    if not model.built:
        model._doubt_layout("x", shape, len(images))
    shapes = infer_stack(model.layers, shape)
    _check_batches(model.layers, shapes, len(images), batch_size)
    outputs = shapes[len(model._trunk(goal))]
    targets = goal.targets(_own_labels(y), len(images), outputs, model.dtype)
    weights = weights_of(weights_of_samples, class_weight, goal, targets, outputs, model.dtype)
    validation = None
    if held_out is not None:
        trained_on = images if split == 0 else None  # a part of x is scaled as x is
        validation = checked_validation(model, held_out, shape, goal, outputs, crop, trained_on)

    settings = {
        "batch_size": batch_size,
        "shuffle": shuffle,
        "samples": len(images),
        "images": checksum_of_samples(images),
        "targets": crc32(targets.tobytes()),
        "weights": None if weights is None else crc32(weights.tobytes()),
    }
    return Fit(
        Data(images, targets, weights), validation, epochs, augment, bool(verbose), shape, goal,
        descent, fresh, listeners, settings,
    )  # fmt: skip


def _split(
    images: Samples, y: ArrayLike, weights: Array | None, share: float
) -> tuple[tuple[Samples, Array, Array | None], Triple]:
    """The samples that are trained on, and the share at their end that is held out."""
    first = len(images) - int(len(images) * share)
    if first == len(images):
        raise ValueError(
            f"validation_split={share} of {len(images)} samples leaves none to validate on"
        )
    labels, rest = np.asarray(y), None
    if weights is not None:
        weights, rest = weights[:first], weights[first:]
    return (images[:first], labels[:first], weights), (images[first:], labels[first:], rest)


def begin(model: Net, fit: Fit) -> None:
    """Make the model ready for a new training."""
    images = fit.data.images
    model._build_with(fit.shape, fit.rng)
    model.loss = fit.loss
    if keeps_scale(fit.augment):
        model._known.check_training("x", images, model._normalises())
        model._known.learn(images)
    if model._preparation is None and images.dtype == np.uint8 and images.shape[-1] in (1, 3):
        model._preparation = preparation_of(images) if images.ndim == 4 else None
    model.progress = Progress(fit.optimizer, fit.settings, callbacks=fit.callbacks)


def resume(
    model: Net, file: ModelFile, fit: Fit, *, compares_loss: bool, compares_optimizer: bool
) -> None:
    """Continue a checkpoint's training, after all of it was checked."""
    other = model_from(file, Net)
    if other.progress is None:
        raise file.error("it holds a model, but no training to resume")
    mine = [to_dict(layer) for layer in model.layers], fit.shape, model.dtype
    theirs = [to_dict(layer) for layer in other.layers], other.input_shape, other.dtype
    if mine != theirs:
        raise ValueError(f"resume must be a training of this model's layers, got {file.path}")
    other._known.check("x", fit.data.images)  # first, because it says how other data are other
    progress = other.progress
    for name, value in fit.settings.items():
        if name == "images" and name not in progress.settings:
            continue  # a file of an earlier version
        if progress.settings.get(name) != value:
            argument = _DATA.get(name, name)
            what = "the data" if name in _DATA else quoted(progress.settings.get(name))
            value_here = "other data" if name in _DATA else repr(value)
            raise ValueError(
                f"{argument} must be {what} that the training in {file.path} began with, got "
                f"{value_here}"
            )
    if compares_loss and repr(fit.loss) != repr(other.loss):
        raise ValueError(
            f"loss must be that of the training, {quoted(other.loss)}, got {quoted(fit.loss)}"
        )
    if compares_optimizer and _but_rate(fit.optimizer) != _but_rate(progress.optimizer):
        raise ValueError(
            f"optimizer must be that of the training, {quoted(progress.optimizer)}, got "
            f"{quoted(fit.optimizer)}"
        )
    model._build_once(fit.shape)
    model.set_weights(other.get_weights() if progress.weights is None else progress.weights)
    model.rng, model.loss, model._known = other.rng, other.loss, other._known
    progress.optimizer.belong(model._ownership, progress)
    model._preparation = model._preparation or other._preparation
    progress.weights = None
    progress.take_callbacks(fit.callbacks)
    model.progress = progress


def checked_validation(
    model: Net,
    data: Pair | Triple,
    shape: Shape,
    loss: Loss,
    outputs: Shape,
    crop: Callable[[Array], Array] | None,
    trained: Samples | None,
) -> Data:
    """Check the data that are evaluated after each epoch."""
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise TypeError(
            f"validation_data must be a pair (x, y) or (x, y, sample_weight), got "
            f"{type(data).__name__}"
            + (f" of {len(data)}" if isinstance(data, tuple | list) else "")
        )
    x = data[0]
    images = x if isinstance(x, SamplesOnDemand) else samples("validation_data", x, None)
    if not len(images):
        raise ValueError("validation_data must hold at least one sample")
    if images.shape[1:] != shape and crop is not None:
        images = images.then(crop) if isinstance(images, SamplesOnDemand) else crop(images)
    if images.shape[1:] != shape:
        raise ValueError(
            f"validation_data must hold samples of shape {shape}, got {images.shape[1:]}"
        )
    finite("validation_data", images)
    if trained is not None:
        known = deepcopy(model._known)
        known.learn(trained)
        known.check("validation_data", images)
    try:
        targets = loss.targets(_own_labels(data[1]), len(images), outputs, model.dtype)
        sample_weight = data[2] if len(data) == 3 else None
        weights = weights_of(sample_weight, None, loss, targets, outputs, model.dtype)
        return Data(images, targets, weights)
    except (TypeError, ValueError) as error:
        raise type(error)(f"validation_data: {error}") from None


def _check_batches(
    layers: Sequence[Layer], shapes: Sequence[Shape], samples: int, batch_size: int
) -> None:
    """Raise the ``ValueError`` where a batch of an epoch is too small, or no layer trains."""
    pairs = [*zip(layers, shapes, strict=False)]
    has_parameters = [one for one, shape in pairs if one.parameter_specs(shape)]
    if has_parameters and not any(one.trainable for one in has_parameters):
        raise ValueError(too_few("x must hold", inf, samples))
    least, smallest = least_batch(layers, shapes), samples % batch_size or batch_size
    if min(smallest, samples) < least:
        what = f"batch_size must give each batch of {samples} samples"
        raise ValueError(
            too_few(what, least, min(smallest, samples))
            + f" from batch_size={batch_size}; take another one, or leave samples out"
        )


def keeps_scale(augment: Augmentation | None) -> bool:
    """Whether augmented samples are scaled as before: a user's function may scale them."""
    return augment is None or isinstance(augment, Augment)


def _own_labels(y: ArrayLike) -> ArrayLike:
    """Class numbers as a copy, because a training must use the numbers that it has checked.

    Other targets become a new array later, or are no addresses.
    """
    is_labels = isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "iu"
    return np.array(y) if is_labels else y


def _but_rate(optimizer: Optimizer) -> tuple[str, dict[str, Any]]:
    config = optimizer.config()
    config.pop("learning_rate")
    return type(optimizer).__name__, config


def _checked_callbacks(callbacks: Iterable[Callback]) -> list[Callback]:
    try:
        result = list(callbacks)
    except TypeError:
        raise TypeError(f"callbacks must be a list of callbacks, got {quoted(callbacks)}") from None
    for one in result:
        if not isinstance(one, Callback):
            raise TypeError(f"callbacks must be made of callbacks, got {quoted(one)}")
    return result
