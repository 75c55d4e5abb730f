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
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import below_one, count, generator, truth
from fastcnn.data.augmentation import Augment
from fastcnn.data.on_demand import SamplesOnDemand
from fastcnn.data.preparation import preparation_of
from fastcnn.data.several import Data, Several, in_order, parts_of, shape_of
from fastcnn.models.graph import Graph
from fastcnn.models.inputs import Inputs, finite, samples
from fastcnn.models.model_files import model_from
from fastcnn.models.net import Net, outputs_of, too_few
from fastcnn.nn.layers import Shape, image_shape, to_dict
from fastcnn.nn.optimizers import Optimizer, optimizer_named
from fastcnn.train.callbacks import Callback
from fastcnn.train.checkpoint import ModelFile
from fastcnn.train.epochs import Augmentation, centred
from fastcnn.train.output_losses import Goal, Losses, OutputLosses
from fastcnn.train.progress import Progress, checksum_of_samples
from fastcnn.train.sample_weights import checked, weights_of

# Arguments of ``fit`` for settings that a resumed training must share.
_DATA = {
    "targets": "y",
    "samples": "x",
    "images": "x",
    "weights": "sample_weight and class_weight",
}


class TrainingData(NamedTuple):
    """Samples, their targets, and how much the loss of each counts; checked."""

    images: Data
    targets: Data
    weights: Array | None


class Fit(NamedTuple):
    """The checked arguments of a ``fit``.

    Attributes:
        data, validation: what is trained on, and what is evaluated after each epoch.
        epochs, augment, verbose: as the arguments.
        shapes: the shape of a sample of each input, as the layers take it.
        loss, optimizer: from the arguments, or the default ones.
        rng: a generator of the seed, or None.
        callbacks: the callbacks as a list.
        settings: must be the same when the training is resumed.
    """

    data: TrainingData
    validation: TrainingData | None
    epochs: int
    augment: Augmentation | None
    verbose: bool
    shapes: tuple[Shape, ...]
    loss: Goal
    optimizer: Optimizer
    rng: np.random.Generator | None
    callbacks: list[Callback]
    settings: JsonObject


def checked_fit(
    model: Net,
    x: Inputs,
    y: Inputs,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer | str | None,
    loss: Losses | None,
    validation_data: tuple[Any, ...] | None,
    validation_split: float,
    callbacks: Iterable[Callback],
    shuffle: bool,
    seed: int | None,
    verbose: int,
    augment: Augmentation | None,
    class_weight: Mapping[int, float] | None,
    sample_weight: ArrayLike | None,
    loss_weights: Sequence[float] | Mapping[str, float] | None,
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
    goal = model._loss() if loss is None else model._goal(loss, loss_weights)
    if loss is None and loss_weights is not None:
        goal = model._goal(goal, loss_weights)
    listeners = _checked_callbacks(callbacks)
    if augment is not None and not callable(augment):
        raise TypeError(
            f"augment must be called with images and a generator, got {quoted(augment)}"
        )

    split = below_one("validation_split", validation_split)
    if split and validation_data is not None:
        raise ValueError("validation_split must be 0 where validation_data is given")
    images = _samples(model, "x", x)
    if not len(images):
        raise ValueError(f"x must hold at least one sample, got {shape_of(images)}")
    several = isinstance(goal, OutputLosses)
    labels: Sequence[object] = [y]
    if isinstance(goal, OutputLosses):
        labels = in_order("y", y, goal.names, "output")
    for one in labels:
        if len(images) != (size := len(np.asarray(one)) if np.ndim(one) else -1):  # type: ignore[arg-type]
            raise ValueError(f"y must have one label per sample, {len(images)}, got {size}")
    if class_weight is not None and several:
        raise ValueError(
            "class_weight must be None for a model with several outputs; use sample_weight"
        )
    weights_of_samples = checked(sample_weight, len(images), pixels=None)
    held_out = validation_data
    if split:
        parts = _split(images, labels, weights_of_samples, split)
        (images, labels, weights_of_samples), others = parts
        held_out = others[0], others[1] if several else others[1][0], others[2]
    if augment is not None and isinstance(images, Several):
        raise ValueError(
            "augment must be None for a model with several inputs, because an augmentation takes "
            "the images of one; augment them before fit"
        )
    crop = centred(augment)
    shapes = _shapes_of(images, crop)
    if model.built and shapes != model._known_shapes():
        got = shapes if len(shapes) > 1 else shapes[0]
        raise ValueError(
            f"x must hold samples of shape {model.input_shape}, got {got}"
            + (" after augmentation" if crop else "")
        )
    all_finite("x", images)
    knowledge: Any = model._knowledge
    knowledge.check("x", images)
    if not model.built:
        model._doubt_layout("x", shapes[0], len(images))
    values = model._graph.infer(shapes)
    _check_batches(model._graph, values, len(images), batch_size)
    outputs = outputs_of(model._trunk(goal), shapes)
    own = [*map(_own_labels, labels)] if several else _own_labels(labels[0])
    targets = checked_targets(goal, own, len(images), outputs, model.dtype)
    weights = weights_of(weights_of_samples, class_weight, goal, targets, outputs, model.dtype)
    validation = None
    if held_out is not None:
        trained_on = images if split == 0 else None  # a part of x is scaled as x is
        validation = checked_validation(model, held_out, shapes, goal, outputs, crop, trained_on)

    settings = {
        "batch_size": batch_size,
        "shuffle": shuffle,
        "samples": len(images),
        "images": _checksum([checksum_of_samples(part) for part in parts_of(images)]),
        "targets": _checksum([crc32(np.asarray(p).tobytes()) for p in parts_of(targets)]),
        "weights": None if weights is None else crc32(weights.tobytes()),
    }
    return Fit(
        TrainingData(images, targets, weights), validation, epochs, augment, bool(verbose), shapes,
        goal, descent, fresh, listeners, settings,
    )  # fmt: skip


def _samples(model: Net, name: str, x: Inputs | SamplesOnDemand) -> Data:
    """Samples of the input, or of each of several."""
    if isinstance(x, SamplesOnDemand):
        return x
    if model._graph.inputs == 1:
        return samples(name, x, None)  # type: ignore[arg-type]
    result: Data = model._samples(name, x)
    return result


def _shapes_of(images: Data, crop: Callable[[Array], Array] | None) -> tuple[Shape, ...]:
    """The shape of a sample of each input, after augmentation."""
    firsts = [part[:1] if crop is None else crop(part[:1]) for part in parts_of(images)]
    return tuple(image_shape(first.shape[1:]) for first in firsts)


def all_finite(name: str, images: Data) -> None:
    """Raise the ``ValueError`` for NaN or infinity in the samples of an input."""
    parts = parts_of(images)
    for i, part in enumerate(parts):
        finite(name if len(parts) == 1 else f"{name}[{i}]", part)


def checked_targets(
    goal: Goal, y: object, count: int, outputs: Any, dtype: np.dtype[np.floating]
) -> Any:
    """The targets of the loss, or of each of several, checked."""
    return goal.targets(y, count, outputs, dtype)  # type: ignore[arg-type]


def _checksum(parts: list[int]) -> int:
    """A checksum of checksums; that of a single part is the part's own."""
    return parts[0] if len(parts) == 1 else crc32(repr(parts).encode())


def _split(
    images: Data, y: Sequence[object], weights: Array | None, share: float
) -> tuple[
    tuple[Data, Sequence[object], Array | None], tuple[Data, Sequence[object], Array | None]
]:
    """The samples that are trained on, and the share at their end that is held out."""
    first = len(images) - int(len(images) * share)
    if first == len(images):
        raise ValueError(
            f"validation_split={share} of {len(images)} samples leaves none to validate on"
        )
    labels, rest = [np.asarray(one) for one in y], None
    if weights is not None:
        weights, rest = weights[:first], weights[first:]
    trained = images[:first], [one[:first] for one in labels], weights
    return trained, (images[first:], [one[first:] for one in labels], rest)


def begin(model: Net, fit: Fit) -> None:
    """Make the model ready for a new training."""
    images = fit.data.images
    model._build_with(fit.shapes, fit.rng)
    model.loss = fit.loss
    knowledge: Any = model._knowledge
    if keeps_scale(fit.augment):
        knowledge.check_training("x", images, model._normalises())
        knowledge.learn(images)
    if isinstance(images, Several):
        pass  # a picture is no input of it
    elif model._preparation is None and images.dtype == np.uint8 and images.shape[-1] in (1, 3):
        model._preparation = preparation_of(images) if images.ndim == 4 else None
    model.progress = Progress(fit.optimizer, fit.settings, callbacks=fit.callbacks)


def resume(
    model: Net, file: ModelFile, fit: Fit, *, compares_loss: bool, compares_optimizer: bool
) -> None:
    """Continue a checkpoint's training, after all of it was checked."""
    other = model_from(file, Net)
    if other.progress is None:
        raise file.error("it holds a model, but no training to resume")
    mine, theirs = (
        ([to_dict(layer) for layer in one.layers], one._graph.as_dict(), shapes, one.dtype)
        for one, shapes in ((model, fit.shapes), (other, other._known_shapes()))
    )
    if mine != theirs:
        raise ValueError(f"resume must be a training of this model's layers, got {file.path}")
    knowledge: Any = other._knowledge
    knowledge.check("x", fit.data.images)  # first, because it says how other data are other
    progress = other.progress
    if model._knowledge.scaling != other._knowledge.scaling:
        raise ValueError(
            f"scaling of the model must be that of the training, {other._knowledge.scaling!r}, got "
            f"{model._knowledge.scaling!r}"
        )
    if model._classes is not None and model._classes != other._classes:
        raise ValueError(
            f"classes of the model must be those of the training, {quoted(other._classes)}, got "
            f"{quoted(model._classes)}"
        )
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
    model._build_once(fit.shapes)
    model.set_weights(other.get_weights() if progress.weights is None else progress.weights)
    model.rng, model.loss, model._knowledge = other.rng, other.loss, other._knowledge
    progress.optimizer.belong(model._ownership, progress)
    model._preparation = model._preparation or other._preparation
    model._classes = other._classes
    progress.weights = None
    progress.take_callbacks(fit.callbacks)
    model.progress = progress


def checked_validation(
    model: Net,
    data: tuple[Any, ...],
    shapes: tuple[Shape, ...],
    loss: Goal,
    outputs: Any,
    crop: Callable[[Array], Array] | None,
    trained: Data | None,
) -> TrainingData:
    """Check the data that are evaluated after each epoch."""
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise TypeError(
            f"validation_data must be a pair (x, y) or (x, y, sample_weight), got "
            f"{type(data).__name__}"
            + (f" of {len(data)}" if isinstance(data, tuple | list) else "")
        )
    x = data[0]
    images = x if isinstance(x, Several) else _samples(model, "validation_data", x)
    if not len(images):
        raise ValueError("validation_data must hold at least one sample")
    if not isinstance(images, Several) and images.shape[1:] != shapes[0] and crop is not None:
        images = images.then(crop) if isinstance(images, SamplesOnDemand) else crop(images)
    for part, shape in zip(parts_of(images), shapes, strict=True):
        if part.shape[1:] != shape:
            raise ValueError(
                f"validation_data must hold samples of shape {shape}, got {part.shape[1:]}"
            )
    all_finite("validation_data", images)
    if trained is not None:
        knowledge: Any = deepcopy(model._knowledge)
        knowledge.learn(trained)
        knowledge.check("validation_data", images)
    try:
        labels: Any = data[1]
        if isinstance(loss, OutputLosses):
            labels = [*map(_own_labels, in_order("y", labels, loss.names, "output"))]
        else:
            labels = _own_labels(labels)
        targets = checked_targets(loss, labels, len(images), outputs, model.dtype)
        sample_weight = data[2] if len(data) == 3 else None
        weights = weights_of(sample_weight, None, loss, targets, outputs, model.dtype)
        return TrainingData(images, targets, weights)
    except (TypeError, ValueError) as error:
        raise type(error)(f"validation_data: {error}") from None


def _check_batches(graph: Graph, values: Sequence[Shape], samples: int, batch_size: int) -> None:
    """Raise the ``ValueError`` where a batch of an epoch is too small, or no layer trains.

    ``values`` are the shapes of all values of the graph.
    """
    pairs = zip(graph.layers, graph.input_shapes(values), strict=True)
    has_parameters = [one for one, shape in pairs if one.parameter_specs(shape)]
    if has_parameters and not any(one.trainable for one in has_parameters):
        raise ValueError(too_few("x must hold", inf, samples))
    least, smallest = graph.least_batch(values), samples % batch_size or batch_size
    if min(smallest, samples) < least:
        what = f"batch_size must give each batch of {samples} samples"
        raise ValueError(
            too_few(what, least, min(smallest, samples))
            + f" from batch_size={batch_size}; take another one, or leave samples out"
        )


def keeps_scale(augment: Augmentation | None) -> bool:
    """Whether augmented samples are scaled as before: a user's function may scale them."""
    return augment is None or isinstance(augment, Augment)


def _own_labels(y: Any) -> Any:
    """Class numbers as a copy, because a training must use the numbers that it has checked.

    Other targets become a new array later, or are no addresses.
    """
    is_labels = isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "iu"
    return np.array(y) if is_labels else y


def _but_rate(optimizer: Optimizer) -> tuple[str, JsonObject]:
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
