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
from fastcnn.core.capacity import affordable
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import below_one, count, generator, truth
from fastcnn.data.class_names import check_number
from fastcnn.data.image_sets import ImageSet
from fastcnn.data.on_demand import SamplesOnDemand
from fastcnn.data.pixel_augmentation import keeps_scale, mixes
from fastcnn.data.preparation import preparation_of, preparation_of_pictures
from fastcnn.data.several import Data, Several, in_order, parts_of, shape_of
from fastcnn.models.graph import Graph
from fastcnn.models.inputs import Inputs, Source, finite, remedy, samples
from fastcnn.models.model_files import model_from
from fastcnn.models.net import Net, outputs_of, too_few
from fastcnn.nn.layers import Shape, image_shape, to_dict
from fastcnn.nn.metrics import Metric, metric_named
from fastcnn.nn.optimizers import Optimizer, optimizer_named
from fastcnn.train.callbacks import Callback
from fastcnn.train.checkpoint import ModelFile
from fastcnn.train.epochs import Augmentation, centred
from fastcnn.train.output_losses import Goal, Losses, OutputLosses
from fastcnn.train.progress import Progress, checksum_of_samples
from fastcnn.train.sample_weights import checked, weights_of
from fastcnn.train.streams import Batch, Check, Stream, is_stream

# Arguments of ``fit`` for settings that a resumed training must share.
_DATA = {
    "targets": "y",
    "samples": "x",
    "images": "x",
    "weights": "sample_weight and class_weight",
}


class TrainingData(NamedTuple):
    """Samples, their targets, and how much the loss of each counts; checked."""

    images: Data | Stream
    targets: Any
    weights: Array | None


class Fit(NamedTuple):
    """The checked arguments of a ``fit``: a field for each, so the fields are many.

    Attributes:
        data, validation: what is trained on, and what is evaluated after each epoch.
        epochs, augment, verbose: as the arguments.
        shapes: the shape of a sample of each input, as the layers take it.
        loss, optimizer: from the arguments, or the default ones.
        rng: a generator of the seed, or None.
        callbacks: the callbacks as a list.
        settings: must be the same when the training is resumed.
        steps: batches to an epoch, or None for all.
        classes: the names of an image set's classes, or None.
        metrics, training_metrics: what is computed on the validation data, and whether on training
            batches too.
        accumulate: parts of a batch.
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
    steps: int | None = None
    classes: tuple[str, ...] | None = None
    metrics: tuple[NamedMetric, ...] = ()
    accumulate: int = 1
    training_metrics: bool = True


class FitArguments(NamedTuple):
    """The arguments of ``fit``, as its caller gives them: a field for each parameter."""

    x: Source
    y: Inputs | None
    epochs: int
    batch_size: int
    optimizer: Optimizer | str | None
    loss: Losses | None
    validation_data: object
    validation_split: float
    callbacks: Iterable[Callback]
    shuffle: bool
    seed: int | None
    verbose: int
    augment: Augmentation | None
    class_weight: Mapping[int, float] | None
    sample_weight: ArrayLike | None
    loss_weights: Sequence[float] | Mapping[str, float] | None
    steps_per_epoch: int | None
    metrics: object
    accumulate: int
    training_metrics: bool


class _Settings(NamedTuple):
    """The checked arguments of ``fit`` that are no data; ``split`` is ``validation_split``."""

    epochs: int
    batch_size: int
    shuffle: bool
    rng: np.random.Generator | None
    verbose: bool
    optimizer: Optimizer
    loss: Goal
    callbacks: list[Callback]
    metrics: tuple[NamedMetric, ...]
    accumulate: int
    training_metrics: bool
    augment: Augmentation | None
    split: float
    steps: int | None

    def fit(
        self,
        data: TrainingData,
        validation: TrainingData | None,
        shapes: tuple[Shape, ...],
        checksums: JsonObject,
        classes: tuple[str, ...] | None = None,
    ) -> Fit:
        """The checked arguments with the data."""
        settings = {
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            **({} if self.steps is None else {"steps": self.steps}),
            **checksums,
        }
        return Fit(
            data, validation, self.epochs, self.augment, self.verbose, shapes, self.loss,
            self.optimizer, self.rng, self.callbacks, settings, self.steps, classes, self.metrics,
            self.accumulate, self.training_metrics,
        )  # fmt: skip


def checked_fit(model: Net, arguments: FitArguments) -> Fit:
    """Check the arguments of ``fit``, before the model changes.

    The checks have an order, in which each relies on those before it.
    """
    settings = _checked_settings(model, arguments)
    if is_source(arguments.x):
        return _checked_stream(model, arguments, settings)
    return _checked_arrays(model, arguments, settings)


def _checked_settings(model: Net, arguments: FitArguments) -> _Settings:
    """Check the arguments that are no data."""
    epochs = count("epochs", arguments.epochs)
    batch_size = count("batch_size", arguments.batch_size)
    shuffle = truth("shuffle", arguments.shuffle)
    rng = None if arguments.seed is None else generator("seed", arguments.seed)
    if arguments.verbose not in (0, 1):
        raise ValueError(f"verbose must be 0 or 1, got {quoted(arguments.verbose)}")
    optimizer = optimizer_named("sgd" if arguments.optimizer is None else arguments.optimizer)
    optimizer.check_free()
    loss, loss_weights = arguments.loss, arguments.loss_weights
    goal = model._loss() if loss is None else model._goal(loss, loss_weights)
    if loss is None and loss_weights is not None:
        goal = model._goal(goal, loss_weights)
    callbacks = _checked_callbacks(arguments.callbacks)
    metrics = named_metrics(model, arguments.metrics)
    accumulate = count("accumulate", arguments.accumulate)
    training_metrics = truth("training_metrics", arguments.training_metrics)
    has_validation = arguments.validation_data is not None or arguments.validation_split
    if metrics and not has_validation and not training_metrics:
        raise ValueError(
            "metrics must be None without validation_data or validation_split, and with "
            "training_metrics=False, because they would be computed on no data"
        )
    augment = arguments.augment
    if augment is not None and not callable(augment):
        raise TypeError(
            f"augment must be called with images and a generator, got {quoted(augment)}"
        )
    split = below_one("validation_split", arguments.validation_split)
    if split and arguments.validation_data is not None:
        raise ValueError("validation_split must be 0 where validation_data is given")
    steps = arguments.steps_per_epoch
    steps = None if steps is None else count("steps_per_epoch", steps)
    return _Settings(
        epochs, batch_size, shuffle, rng, bool(arguments.verbose), optimizer, goal, callbacks,
        metrics, accumulate, training_metrics, augment, split, steps,
    )  # fmt: skip


def _checked_arrays(model: Net, arguments: FitArguments, settings: _Settings) -> Fit:
    """:func:`checked_fit` for samples that are all there."""
    x, y, validation_data = arguments.x, arguments.y, arguments.validation_data
    goal, augment, split = settings.loss, settings.augment, settings.split
    batch_size, class_weight = settings.batch_size, arguments.class_weight
    if isinstance(x, ImageSet) and split:
        if arguments.sample_weight is not None:
            raise ValueError("validation_split must be 0 for images with sample_weight")
        # Images are sorted by class, so their end would be one class.
        (x, validation_data), split = x.split(split), 0.0
    arrays, y, classes = parts_of_set(x, y)
    images = _samples(model, "x", arrays)
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
    weights_of_samples = checked(arguments.sample_weight, len(images), pixels=None)
    if split:
        parts = _split(images, labels, weights_of_samples, split)
        (images, labels, weights_of_samples), others = parts
        validation_data = others[0], others[1] if several else others[1][0], others[2]
    if augment is not None and isinstance(images, Several):
        raise ValueError(
            "augment must be None for a model with several inputs, because an augmentation takes "
            "the images of one; augment them before fit"
        )
    crop = centred(augment)
    shapes = _shapes_of(images, crop)
    _check_shapes(model, shapes, images, is_cropped=crop is not None)
    all_finite("x", images)
    model._knowledge.check("x", images)
    if not model.built:
        model._doubt_layout("x", shapes[0], len(images))
    values = model._graph.infer(shapes)
    _check_batches(model._graph, values, len(images), batch_size, settings.accumulate)
    outputs = outputs_of(model._trunk(goal), shapes)
    label_copies = [*map(_own_labels, labels)] if several else _own_labels(labels[0])
    targets = checked_targets(goal, label_copies, len(images), outputs, model.dtype)
    if mixes(augment):
        targets = rows_to_mix(goal, targets, outputs, model.dtype)
    weights = weights_of(weights_of_samples, class_weight, goal, targets, outputs, model.dtype)
    validation = None
    if validation_data is not None:
        training_images = images if split == 0 else None  # a part of x is scaled as x is
        validation = checked_validation(
            model, validation_data, shapes, goal, outputs, crop, training_images
        )
    if settings.metrics and settings.training_metrics:
        _check_memory(len(images), goal, outputs, model.dtype)
    batches, steps = -(-len(images) // batch_size), settings.steps
    if steps is not None and steps > batches:
        raise ValueError(f"steps_per_epoch must be at most the {batches} batches of x, got {steps}")
    data = TrainingData(images, targets, weights)
    checksums = _checksums(len(images), data)
    return settings.fit(data, validation, shapes, checksums, classes)


def _check_shapes(model: Net, shapes: tuple[Shape, ...], images: Data, *, is_cropped: bool) -> None:
    """Raise the ``ValueError`` where a built model takes samples of another shape."""
    if model.built and shapes != model._known_shapes():
        sample_shapes = shapes if len(shapes) > 1 else shapes[0]
        raise ValueError(
            f"x must hold samples of shape {model.input_shape}, got {sample_shapes}"
            + (" after augmentation" if is_cropped else _remedy_for(model, images))
        )


def _checksums(samples: int | None, data: TrainingData) -> JsonObject:
    """What tells the data of a training from others."""
    images: Any = data.images
    return {
        "samples": samples,
        "images": _checksum([checksum_of_samples(part) for part in parts_of(images)]),
        "targets": _checksum([crc32(np.asarray(p).tobytes()) for p in parts_of(data.targets)]),
        "weights": None if data.weights is None else crc32(data.weights.tobytes()),
    }


def _check_memory(samples: int, goal: Goal, outputs: Any, dtype: np.dtype[np.floating]) -> None:
    """Raise ``MemoryError`` where an epoch's predictions, which metrics need, cannot be kept."""
    for shape in outputs if isinstance(goal, OutputLosses) else (outputs,):
        try:
            affordable("predictions of an epoch for metrics", (samples, *shape), dtype)
        except MemoryError as error:
            raise MemoryError(
                f"{error}; training_metrics=False computes metrics on validation data alone"
            ) from None


def rows_to_mix(goal: Goal, targets: Any, outputs: Any, dtype: np.dtype[np.floating]) -> Array:
    """Targets that can be mixed: numbers as they are, and rows of probabilities of class numbers.

    Raises ``ValueError`` where the loss takes nothing of the kind.
    """
    if isinstance(goal, OutputLosses) or len(outputs) > 1:
        raise ValueError("augment must not mix targets of several outputs or of pixels")
    if targets.dtype.kind == "f":
        return np.asarray(targets)
    rows: Array = np.eye(outputs[0], dtype=dtype)[targets]
    try:
        halves = (rows + np.roll(rows, 1, axis=1)) / 2
        goal.targets(halves, len(rows), outputs, dtype)
    except ValueError:
        raise ValueError(
            f"augment must not mix targets for {goal!r}, which takes no rows of probabilities"
        ) from None
    return rows


def _to_mix(check: Any, model: Net, goal: Goal) -> Check:
    """The check of a stream's batches, with targets in a form that can be mixed."""

    def checked_batch(item: tuple[Any, ...], number: int) -> Batch:
        batch: Batch = check(item, number)
        rows = rows_to_mix(goal, batch.targets, model._outputs(goal), model.dtype)
        return batch._replace(targets=rows)

    return checked_batch


class NamedMetric(NamedTuple):
    """A metric, the number of the output that it is of, and its name in the results."""

    name: str
    output: int
    metric: Metric


def named_metrics(model: Net, metrics: object) -> tuple[NamedMetric, ...]:
    """The metrics of the argument ``metrics``.

    Raises ``TypeError`` or ``ValueError`` for anything but a list of metrics; for several outputs
    a dict of such lists.
    """
    if metrics is None:
        return ()
    several = len(model._graph.outputs) > 1
    result = list[NamedMetric]()
    if several:
        names = model._output_names()
        if not isinstance(metrics, Mapping) or not {*metrics} <= {*names}:
            raise ValueError(
                f"metrics must be a dict by the names of the outputs, {', '.join(names)}, got "
                f"{quoted(metrics)}"
            )
        for name, of_output in metrics.items():
            for one in _metric_list(of_output):
                result.append(NamedMetric(f"{name}_{one.name}", names.index(name), one))
    else:
        result = [NamedMetric(one.name, 0, one) for one in _metric_list(metrics)]
    used_names = {"loss", "accuracy", "learning_rate", "seconds"}
    for figure in result:
        if figure.name in used_names:
            raise ValueError(
                f"metrics must have names of their own, got {quoted(figure.name)} twice"
            )
        used_names.add(figure.name)
    return tuple(result)


def _metric_list(value: object) -> list[Metric]:
    if isinstance(value, str | Metric) or not isinstance(value, Iterable):
        value = [value]
    return [metric_named(one) for one in value]


def is_source(x: object) -> bool:
    """Whether ``x`` gives batches or samples one by one, with their targets."""
    return is_stream(x) and not isinstance(x, ImageSet)


def parts_of_set(x: object, y: object) -> tuple[Any, Any, tuple[str, ...] | None]:
    """Images, labels and names of the classes; the names are None where x is no image set."""
    if isinstance(x, ImageSet):
        if y is not None:
            raise ValueError("y must be None where x is an image set, which has its labels")
        return x.images, x.labels, x.classes
    if y is None:
        raise ValueError("y must be the targets of x; only image sets and batches have their own")
    return x, y, None


def stream_of(
    model: Net,
    name: str,
    x: object,
    batch_size: int,
    steps: int | None,
    goal: Goal,
    repeats: bool,
    crop: Callable[[Array], Array] | None = None,
) -> tuple[Stream, tuple[Shape, ...]]:
    """A source as checked batches, and the shape of a sample of each input; cropped by ``crop``."""
    shape = model._known_shapes()[0] if model.built and model._graph.inputs == 1 else None
    stream = Stream(name, x, batch_size, steps, shape, repeats=repeats)
    first = stream.batch(stream.first, 0)
    shapes = _shapes_of(_samples(model, name, first[0]), None)

    def check(item: tuple[Any, ...], number: int) -> Batch:
        try:
            several = model._graph.inputs > 1
            images = model._samples(name, item[0]) if several else samples(name, item[0], shapes[0])
            if not len(images):
                raise ValueError(f"{name} must hold at least one sample")
            all_finite(name, images)
            images = images if crop is None else crop(images)
            model._knowledge.glance(name, images)
            outputs = model._outputs(goal)
            targets = checked_targets(goal, item[1], len(images), outputs, model.dtype)
            of_batch = item[2] if len(item) > 2 else None
            weights = weights_of(of_batch, None, goal, targets, outputs, model.dtype)
        except (TypeError, ValueError) as error:
            raise type(error)(f"batch {number + 1} of {name}: {error}") from None
        return Batch(images, targets, weights)

    stream.check = check
    return stream, _shapes_of(_samples(model, name, first[0]), crop)


def _checked_stream(model: Net, arguments: FitArguments, settings: _Settings) -> Fit:
    """:func:`checked_fit` for batches; each batch is checked when its turn comes, the first now."""
    weights = arguments.sample_weight, arguments.class_weight
    if settings.split or any(one is not None for one in weights):
        raise ValueError(
            "validation_split, sample_weight and class_weight must not be given with batches; "
            "give validation_data, and batches of (x, y, sample_weight)"
        )
    if arguments.y is not None:
        raise ValueError("y must be None where x gives batches, which have their targets")
    goal, augment, batch_size = settings.loss, settings.augment, settings.batch_size
    stream, _ = stream_of(model, "x", arguments.x, batch_size, settings.steps, goal, repeats=True)
    crop = centred(augment)
    item = stream.batch(stream.first, 0)
    first = _samples(model, "x", item[0])
    if augment is not None and isinstance(first, Several):
        raise ValueError("augment must be None for a model with several inputs")
    shapes = _shapes_of(first, crop)
    _check_shapes(model, shapes, first, is_cropped=crop is not None)
    if not model.built:
        model._doubt_layout("x", shapes[0], len(first))
    values = model._graph.infer(shapes)
    _check_batches(model._graph, values, len(first), len(first), settings.accumulate)
    outputs = outputs_of(model._trunk(goal), shapes)
    targets = checked_targets(goal, item[1], len(first), outputs, model.dtype)
    if mixes(augment):
        stream.check = _to_mix(stream.check, model, goal)
        rows_to_mix(goal, targets, outputs, model.dtype)
    validation, validation_data = None, arguments.validation_data
    if validation_data is not None:
        validation = checked_validation(model, validation_data, shapes, goal, outputs, crop, None)
    checksums = _checksums(stream.length, TrainingData(first, targets, None))
    return settings.fit(TrainingData(stream, None, None), validation, shapes, checksums)


def _samples(model: Net, name: str, x: Inputs | SamplesOnDemand) -> Data:
    """Samples of the input, or of each of several."""
    if isinstance(x, SamplesOnDemand):
        return x
    if model._graph.inputs == 1 and not (model.built and len(model._known_shapes()[0]) in (2, 4)):
        return samples(name, x, None)  # type: ignore[arg-type]
    result: Data = model._samples(name, x)
    return result


def _remedy_for(model: Net, images: Data) -> str:
    """How samples of another shape could fit, where their shape suggests it."""
    if isinstance(images, Several):
        return ""
    hint = remedy("x", tuple(images.shape), model._known_shapes()[0])
    return hint or model._for_other_samples(tuple(images.shape[1:]))


def _shapes_of(images: Data, crop: Callable[[Array], Array] | None) -> tuple[Shape, ...]:
    """The shape of a sample of each input, after augmentation."""
    firsts = [part[:1] if crop is None else crop(part[:1]) for part in parts_of(images)]
    # Samples of two or four axes are those of an imported net; images have three by now.
    return tuple(
        shape if len(shape) in (2, 4) else image_shape(shape)
        for shape in (first.shape[1:] for first in firsts)
    )


def all_finite(name: str, images: Data) -> None:
    """Raise the ``ValueError`` for NaN or infinity in the samples of an input."""
    parts = parts_of(images)
    for i, part in enumerate(parts):
        finite(name if len(parts) == 1 else f"{name}[{i}]", part)


def checked_targets(
    goal: Goal, y: object, count: int, outputs: object, dtype: np.dtype[np.floating]
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
    labels, weights_held_out = [np.asarray(one) for one in y], None
    if weights is not None:
        weights, weights_held_out = weights[:first], weights[first:]
    training_part = images[:first], [one[:first] for one in labels], weights
    return training_part, (images[first:], [one[first:] for one in labels], weights_held_out)


def begin(model: Net, fit: Fit) -> None:
    """Make the model ready for a new training."""
    images: Any = fit.data.images
    if isinstance(images, Stream):
        images = _samples(model, "x", images.batch(images.first, 0)[0])
    classes = model._classes
    if fit.classes is not None and classes not in (None, fit.classes):
        raise ValueError(
            f"x must have the classes of the model, {quoted(classes)}, got {quoted(fit.classes)}"
        )
    if fit.classes is not None:
        check_number(fit.classes, [model._graph.infer(fit.shapes)[i] for i in model._graph.outputs])
    model._build_with(fit.shapes, fit.rng)
    model.loss = fit.loss
    model._classes = fit.classes or classes
    knowledge = model._knowledge
    if keeps_scale(fit.augment):
        knowledge.check_training("x", images, model._normalises())
        knowledge.learn(images)
    if isinstance(images, Several):
        pass  # a picture is no input of it
    elif model._preparation is None and images.dtype == np.uint8 and images.shape[-1] in (1, 3):
        of_images = preparation_of if fit.classes is None else preparation_of_pictures
        model._preparation = of_images(images) if images.ndim == 4 else None
    model.progress = Progress(fit.optimizer, fit.settings, callbacks=fit.callbacks)


def resume(
    model: Net, file: ModelFile, fit: Fit, *, compares_loss: bool, compares_optimizer: bool
) -> None:
    """Continue a checkpoint's training, after all of it was checked."""
    file_model = model_from(file, Net)
    if file_model.progress is None:
        raise file.error("it holds a model, but no training to resume")
    structure, file_structure = (
        ([to_dict(layer) for layer in one.layers], one._graph.as_dict(), shapes, one.dtype)
        for one, shapes in ((model, fit.shapes), (file_model, file_model._known_shapes()))
    )
    if structure != file_structure:
        raise ValueError(f"resume must be a training of this model's layers, got {file.path}")
    knowledge = file_model._knowledge
    if isinstance(fit.data.images, Stream):
        if not fit.data.images.can_resume:
            raise ValueError(
                "x must be a sequence, or an iterable whose epochs are all of its batches, to "
                "resume a training, because other iterables cannot go on where it stopped"
            )
    else:
        knowledge.check("x", fit.data.images)  # first, because it says how other data are other
    progress = file_model.progress
    if model._knowledge.scaling != file_model._knowledge.scaling:
        raise ValueError(
            f"scaling of the model must be that of the training, "
            f"{file_model._knowledge.scaling!r}, got {model._knowledge.scaling!r}"
        )
    if model._classes is not None and model._classes != file_model._classes:
        raise ValueError(
            f"classes of the model must be those of the training, "
            f"{quoted(file_model._classes)}, got {quoted(model._classes)}"
        )
    if "shards" in progress.settings and "shards" not in fit.settings:
        raise ValueError(
            f"group must be one of {progress.settings['shards']} shards, that the training in "
            f"{file.path} began with, such as fastcnn.distributed.alone("
            f"shards={progress.settings['shards']}), which needs no MPI; got None"
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
    outputs = {str(one.output) for one in fit.metrics} if fit.training_metrics else set[str]()
    if progress.batch and not outputs <= progress.outputs.keys() and "shards" not in fit.settings:
        raise ValueError(
            f"metrics must be of the outputs that those of the training in {file.path} are of, "
            f"because it stopped within an epoch; training_metrics=False leaves them out"
        )
    if compares_loss and repr(fit.loss) != repr(file_model.loss):
        raise ValueError(
            f"loss must be that of the training, {quoted(file_model.loss)}, got {quoted(fit.loss)}"
        )
    if compares_optimizer and _but_rate(fit.optimizer) != _but_rate(progress.optimizer):
        raise ValueError(
            f"optimizer must be that of the training, {quoted(progress.optimizer)}, got "
            f"{quoted(fit.optimizer)}"
        )
    model._build_once(fit.shapes)
    model.set_weights(file_model.get_weights() if progress.weights is None else progress.weights)
    model.rng, model.loss, model._knowledge = file_model.rng, file_model.loss, file_model._knowledge
    progress.optimizer.belong(model._ownership, progress)
    model._preparation = model._preparation or file_model._preparation
    model._classes = file_model._classes
    progress.weights = None
    progress.take_callbacks(fit.callbacks)
    model.progress = progress


def checked_validation(
    model: Net,
    data: object,
    shapes: tuple[Shape, ...],
    loss: Goal,
    outputs: object,
    crop: Callable[[Array], Array] | None,
    trained: Data | None,
) -> TrainingData:
    """Check the data that are evaluated after each epoch."""
    if isinstance(data, ImageSet):
        data = data.images, data.labels
    elif is_source(data):
        stream, of_stream = stream_of(
            model, "validation_data", data, 256, None, loss, repeats=False, crop=crop
        )
        if stream.once:
            raise ValueError("validation_data must give its batches anew, got an iterator")
        if of_stream != shapes:
            raise ValueError(
                f"validation_data must hold samples of shape {shapes[0]}, got {of_stream[0]}"
            )
        return TrainingData(stream, None, None)
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
        knowledge = deepcopy(model._knowledge)
        knowledge.learn(trained)
        knowledge.check("validation_data", images)
    try:
        labels: object = data[1]
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


def _check_batches(
    graph: Graph, values: Sequence[Shape], samples: int, batch_size: int, accumulate: int
) -> None:
    """Raise the ``ValueError`` where a batch of an epoch is too small, or no layer trains.

    ``values`` are the shapes of all values of the graph. A batch runs in ``accumulate`` parts.
    """
    pairs = zip(graph.layers, graph.input_shapes(values), strict=True)
    has_parameters = [one for one, shape in pairs if one.parameter_specs(shape)]
    if has_parameters and not any(one.trainable for one in has_parameters):
        raise ValueError(too_few("x must hold", inf, samples))
    graph.check_gradients()
    fewest_samples, smallest = graph.least_batch(values), samples % batch_size or batch_size
    if min(smallest, samples) < fewest_samples:
        what = f"batch_size must give each batch of {samples} samples"
        raise ValueError(
            too_few(what, fewest_samples, min(smallest, samples))
            + f" from batch_size={batch_size}; take another one, or leave samples out"
        )
    for size in {min(batch_size, samples), min(smallest, samples)}:
        check_parts(fewest_samples, size, accumulate)


def size_of_parts(samples: int, parts: int) -> int:
    """Samples of each part of a batch but the last, which may have fewer."""
    return -(-samples // parts)


def check_parts(least: float, samples: int, parts: int) -> None:
    """Raise the ``ValueError`` where a part of a batch has fewer than ``least`` samples."""
    size = size_of_parts(samples, parts)
    smallest = samples % size or size
    if smallest < least:
        what = f"accumulate must give each part of a batch of {samples} samples"
        raise ValueError(
            too_few(what, least, smallest) + f" from accumulate={parts}; take fewer parts"
        )


def _own_labels(y: object) -> object:
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
