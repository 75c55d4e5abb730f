"""The training loop: epochs of batches, their figures, and the calls of callbacks.

It knows no layer, because a step on a batch and the validation are functions of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.core.float_errors import Divergence
from fastcnn.core.quoting import quoted
from fastcnn.core.user_code import read_only, real_numbers, refuse
from fastcnn.data.image_sets import LazyImages
from fastcnn.data.pixel_augmentation import mixes
from fastcnn.data.read_ahead import parts_ahead
from fastcnn.data.several import Data
from fastcnn.nn.layers import Shape
from fastcnn.train.averaging import WeightAverage
from fastcnn.train.callbacks import (
    Callback,
    EarlyStopping,
    ProgressBar,
    StopTraining,
    call_hook,
)
from fastcnn.train.epoch_lines import EpochLines
from fastcnn.train.progress import Event, History, Progress
from fastcnn.train.shards import Shard, Sharding, Shards
from fastcnn.train.streams import Batch, Stream, length_of
from fastcnn.train.trainee import Trainee

Augmentation = Callable[[Array, np.random.Generator], Array]
"""Images (N, H, W, C) of a batch and a generator, to new images of the same dtype."""


@dataclass(frozen=True, eq=False)
class Epochs:
    """Epochs over checked samples, from where a training stands.

    Attributes:
        model: the model; callbacks get it, and its generator draws what is random.
        progress: where the training stands; each batch moves it on.
        images, targets: the samples; a stream has its targets and weights itself.
        weights: how much the loss of each sample counts, or None.
        step: takes a step on a batch; the sum of its losses, and how many samples are right.
        validate: the figures of a validation, after each epoch; or None.
        has_accuracy: whether the loss has an accuracy.
        augment: applied to the images of each batch, or None.
        steps: batches to an epoch, or None for all.
        sharding: how a training in a group runs; ``step`` is not used then.
        epoch_figures: the metrics of the epoch's batches, which it then forgets; or None.
    """

    model: Trainee
    progress: Progress
    images: Data | Stream
    targets: Any
    weights: Array | None
    step: Callable[[Data, Data, Array | None], tuple[float, float]]
    validate: Callable[[], dict[str, float]] | None
    has_accuracy: bool
    augment: Augmentation | None
    steps: int | None = None
    sharding: Sharding | None = None
    epoch_figures: Callable[[], dict[str, float]] | None = None

    def run(self, epochs: int, verbose: bool) -> History:
        """Train until so many epochs are done, counted from the beginning of the training."""
        model, progress = self.model, self.progress
        batches = self._batches
        progress.optimizer.expect(epochs * batches)
        model.stop_training = False
        logs = {name: values[-1] for name, values in progress.history.history.items()}
        active: list[Callback] = []
        lines: EpochLines | None = None
        if verbose and self._is_first:
            has_bar = any(isinstance(one, ProgressBar) for one in progress.callbacks)
            lines = EpochLines(epochs, batches, moves=not has_bar)
        try:
            self._begin(epochs, batches, active)
            while progress.epoch < epochs and not model.stop_training:
                started = perf_counter()
                if lines is not None:
                    lines.begin(progress.epoch)
                self._epoch(lines)
                if progress.batch < batches:
                    break  # stopped on the way
                logs = self._means(self._seen)
                if self.epoch_figures is not None:
                    logs |= self.epoch_figures()
                if self.validate is not None:
                    if lines is not None:
                        lines.validate(logs)
                    logs |= {f"val_{name}": value for name, value in self.validate().items()}
                logs |= {"learning_rate": progress.rate, "seconds": perf_counter() - started}
                if self.sharding is not None:
                    logs["seconds"] = self.sharding.of_first(logs["seconds"])
                progress.history.append(logs)
                epoch = progress.epoch
                progress.epoch, progress.batch, progress.seen = epoch + 1, 0, 0
                progress.loss_sum, progress.correct, progress.sums = 0.0, 0.0, {}
                progress.begun = False
                if lines is not None:
                    lines.end(logs)
                self._tell("on_epoch_end", epoch, logs)
                if self.sharding is not None:
                    self.sharding.check()
        finally:
            if lines is not None:
                lines.close()
            self._end(active, logs)
        return progress.history

    @property
    def _is_first(self) -> bool:
        """Whether this process prints and writes: the only one of a training, or rank 0."""
        return self.sharding is None or self.sharding.group.rank == 0

    def _runs(self, callback: Callback) -> bool:
        """Whether the hooks of a callback are called in this process."""
        return self._is_first or callback.on_every_process

    def _calling(self) -> AbstractContextManager[None]:
        """Within this context other processes know that this one calls callbacks."""
        return nullcontext() if self.sharding is None else self.sharding.group.busy("callbacks")

    def _agree_to_stop(self) -> None:
        """Stop on all processes if one stops, because its callbacks may have said so."""
        if self.sharding is not None:
            self.model.stop_training = self.sharding.group.any(self.model.stop_training)

    def _begin(self, epochs: int, batches: int, active: list[Callback]) -> None:
        """Call ``on_train_begin``, and give callbacks back their state in a saved training.

        ``active`` gets the callbacks whose hook was called.
        """
        model, progress = self.model, self.progress
        logs = {"epochs": epochs, "batches": batches, "samples": self._total}
        for i, callback in enumerate(progress.callbacks):
            if not self._runs(callback):
                continue
            active.append(callback)
            try:
                call_hook(callback, "on_train_begin", model, {**logs, "epoch": progress.epoch})
                if i in progress.waiting:
                    callback.restore(progress.waiting.pop(i).state)
            except StopTraining:
                model.stop_training = True
        self._agree_to_stop()
        if progress.event is not None:  # those that had not been called when the training was saved
            self._call_hook(progress.event)

    def _end(self, active: list[Callback], logs: dict[str, float]) -> None:
        """Call ``on_train_end`` of each callback, whatever another one raises."""
        model, progress = self.model, self.progress
        if any(map(_may_change_weights, active)):
            progress.weights, progress.weights_of_model = model.get_weights(), None
        with ExitStack() as hooks:
            hooks.callback(self._remember_weights)
            for callback in reversed(active):
                hooks.callback(_tell_the_end, callback, model, dict(logs))

    def _remember_weights(self) -> None:
        if self.progress.weights is not None:
            self.progress.remember_weights(self.progress.weights, self.model.get_weights())

    @property
    def _batches(self) -> int:
        """Batches to an epoch."""
        if isinstance(self.images, Stream):
            assert self.images.batches is not None
            return self.images.batches
        return int(-(-self._total // self.progress.settings["batch_size"]))

    @property
    def _total(self) -> int:
        """Samples of an epoch; of a stream as many as batches of the first one's size hold."""
        if isinstance(self.images, Stream):
            batches = self._batches
            first = self.images.batch(self.images.first, 0)
            size = self.images.size if self.images.kind == "samples" else length_of(first[0])
            return int(batches * size)
        total, size = len(self.images), self.progress.settings["batch_size"]
        return int(total if self.steps is None else min(total, self.steps * size))

    @property
    def _seen(self) -> int:
        """Samples of the epoch so far."""
        if isinstance(self.images, Stream):
            return self.progress.seen
        return int(min(self.progress.batch * self.progress.settings["batch_size"], self._total))

    def _epoch(self, lines: EpochLines | None) -> None:
        model, progress = self.model, self.progress
        order, seed = self._order()
        if not progress.begun:
            progress.begun = True
            self._tell("on_epoch_begin", progress.epoch)
        batches = self._batches
        if model.stop_training or progress.batch >= batches:
            return
        source: Generator[Batch | Shards, None, None]
        if self.sharding is None:
            source = self._batches_from(order, seed)
        else:
            source = self._shards_from(order, self.sharding)
        with closing(source):
            for batch in source:
                # Callbacks read the rate, and so does the history.
                if progress.callbacks or progress.batch + 1 >= batches:
                    progress.rate = progress.optimizer.rate
                self._batch(batch)
                if lines is not None and lines.is_due(progress.batch):
                    lines.show(progress.batch, self._means(self._seen))
                if progress.callbacks:
                    samples = self._seen
                    logs = self._means(samples) | {"samples": samples}
                    self._tell("on_batch_end", progress.batch - 1, logs)
                if model.stop_training:
                    return

    def _shards_from(
        self, order: Array | None, sharding: Sharding
    ) -> Generator[Shards, None, None]:
        """The shards of this process, of each batch of an epoch that is not done yet."""
        images: Any = self.images
        size, total = self.progress.settings["batch_size"], self._total
        for start in range(self.progress.batch * size, total, size):
            count = min(size, total - start)
            rows = sharding.rows(count)
            rngs = sharding.generators(self.model.rng, [number for number, _ in rows])
            first, end = rows[0][1].start, rows[-1][1].stop
            shards = [
                Shard(number, slice(part.start - first, part.stop - first), rng)
                for (number, part), rng in zip(rows, rngs, strict=True)
            ]
            indices: Any = slice(start + first, start + end)
            if order is not None:
                indices = order[indices]
            x, targets = images[indices], self.targets[indices]
            if self.augment is not None:
                x, targets = self._augmented_shards(self.augment, shards, x, targets)
            weights = None if self.weights is None else self.weights[indices]
            yield Shards(shards, x, targets, weights, count)

    def _augmented_shards(
        self, augment: Augmentation, shards: list[Shard], x: Any, targets: Any
    ) -> tuple[Array, Any]:
        """Images and targets after augmentation, each shard by its own generator."""
        images, labels = list[Array](), list[Any]()
        for one in shards:
            assert one.rng is not None
            some, own = x[one.rows], targets[one.rows]
            some = augmented(augment, some, one.rng, self.model.input_shape)
            if mixes(augment):
                mix = augment.mix  # type: ignore[attr-defined]
                some, own = mixed(mix, some, own, one.rng)
            images.append(some)
            labels.append(own)
        return np.concatenate(images), np.concatenate(labels) if mixes(augment) else targets

    def _batches_from(self, order: Array | None, seed: int) -> Generator[Batch, None, None]:
        """The batches of an epoch that are not done yet."""
        images, first = self.images, self.progress.batch
        if isinstance(images, Stream):
            yield from images.epoch(order, first)
            return
        size, total = self.progress.settings["batch_size"], self._total
        parts: list[Any] = []
        for start in range(first * size, total, size):
            batch = slice(start, min(start + size, total))
            parts.append(batch if order is None else order[batch])
        ahead: Iterator[Any] | None = None
        if isinstance(images, LazyImages):

            def convert(some: Array, number: int) -> Array:
                if self.augment is None:
                    return some
                rng = np.random.default_rng((seed, first + number))
                return augmented(self.augment, some, rng, self.model.input_shape)

            ahead = parts_ahead(images, parts, convert)
        try:
            for part in parts:
                weights = None if self.weights is None else self.weights[part]
                targets = self.targets[part]
                some = images[part] if ahead is None else next(ahead)
                yield Batch(some, targets, weights)
        finally:
            if isinstance(ahead, Generator):
                ahead.close()

    def _batch(self, batch: Batch | Shards) -> None:
        progress = self.progress
        progress.in_batch = True
        try:
            loss_sum, correct = self._step(batch)
        except Divergence as error:
            raise FloatingPointError(
                f"{error}, in batch {progress.batch + 1} of epoch {progress.epoch + 1}; the model "
                f"keeps the weights from before it. A lower learning rate may help, or clip_norm "
                f"of the optimizer"
            ) from None
        finally:
            progress.in_batch = False
        progress.loss_sum += loss_sum
        progress.correct += correct
        progress.batch += 1
        if isinstance(batch, Batch) and isinstance(self.images, Stream):
            progress.seen += len(batch.images)

    def _step(self, batch: Batch | Shards) -> tuple[float, float]:
        """A step on a batch, or on the shards of one."""
        if isinstance(batch, Shards):
            assert self.sharding is not None
            return self.sharding.step(batch)
        images, targets, weights = batch
        if self.augment is not None and not isinstance(self.images, LazyImages):
            assert isinstance(images, np.ndarray)
            images = augmented(self.augment, images, self.model.rng, self.model.input_shape)
        if self.augment is not None and mixes(self.augment):
            mix = self.augment.mix  # type: ignore[attr-defined]
            images, targets = mixed(mix, images, targets, self.model.rng)
        return self.step(images, targets, weights)

    def _order(self) -> tuple[Array | None, int]:
        """The epoch's order, and a seed; in an epoch that is resumed, those it began with.

        The seed is for augmentations of images that are read ahead, which have a generator for each
        batch. So their results do not depend on the number of threads.
        """
        progress, rng = self.progress, self.model.rng
        stream = self.images if isinstance(self.images, Stream) else None
        images: Any = self.images
        total = len(images) if stream is None else stream.length or 0
        shuffles = progress.settings["shuffle"] and (stream is None or stream.kind != "iterable")
        needs_seed = self.augment is not None and isinstance(self.images, LazyImages)
        needs_seed &= self.sharding is None
        if not (shuffles or needs_seed):
            if not progress.begun and progress.settings["shuffle"]:
                progress.order = rng.bit_generator.state
            return None, 0
        now = rng.bit_generator.state
        if progress.begun:
            assert progress.order is not None
            rng.bit_generator.state = progress.order
        else:
            progress.order = now
        order = rng.permutation(total) if shuffles else None
        seed = int(rng.integers(1 << 62)) if needs_seed else 0
        if progress.begun:
            rng.bit_generator.state = now
        return order, seed

    def _means(self, samples: int) -> dict[str, float]:
        logs = {"loss": self.progress.loss_sum / samples}
        logs |= {name: value / samples for name, value in self.progress.sums.items()}
        if self.has_accuracy:
            logs["accuracy"] = self.progress.correct / samples
        return logs

    def _tell(self, hook: str, number: int, logs: dict[str, float] | None = None) -> None:
        """Call a hook of each callback; one that raises StopTraining ends the training after it."""
        if self.progress.callbacks:
            self._call_hook(Event(hook, number, logs, [False] * len(self.progress.callbacks)))

    def _call_hook(self, event: Event) -> None:
        self.progress.event = event
        with self._calling():
            self._call_hooks(event)
        self.progress.event = None
        self._agree_to_stop()

    def _call_hooks(self, event: Event) -> None:
        for i, callback in enumerate(self.progress.callbacks):
            if event.was_called[i]:
                continue
            event.was_called[i] = True
            if not self._runs(callback):
                continue
            logs = [] if event.logs is None else [dict(event.logs)]
            try:
                call_hook(callback, event.hook, self.model, event.number, *logs)
            except StopTraining:
                self.model.stop_training = True


def _tell_the_end(callback: Callback, model: Trainee, logs: dict[str, float]) -> None:
    with suppress(StopTraining):  # the training has stopped already
        call_hook(callback, "on_train_end", model, logs)


def _may_change_weights(callback: Callback) -> bool:
    """Whether its ``on_train_end`` may give the model other weights."""
    return isinstance(callback, EarlyStopping | WeightAverage) or not is_own(type(callback))


def augmented(
    augment: Augmentation,
    images: Array,
    rng: np.random.Generator,
    input_shape: Shape | tuple[Shape, ...] | None,
) -> Array:
    """A batch after augmentation, as the layers take it.

    Raises ``TypeError`` or ``ValueError`` where the function returns anything else than images of
    ``input_shape``, bytes for bytes and finite numbers for numbers.
    """
    built_in = is_own(type(augment))
    if not built_in and images.base is not None:
        images = images.copy()  # a function may write to what it gets, but not to the caller's data
    shape: Any = input_shape  # of one input, because fit refuses augmentations of several
    return _images("augment", augment(images, rng), images, shape, trusted=built_in)


def mixed(
    mix: Callable[[Array, Array, np.random.Generator], Any],
    images: Any,
    targets: Any,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """A batch whose images and targets an augmentation has mixed.

    Raises ``TypeError`` or ``ValueError`` where the method returns anything else than images and
    targets of the same shapes and dtypes.
    """
    result = mix(read_only(images), read_only(targets), rng)
    if not isinstance(result, tuple | list) or len(result) != 2:
        refuse("augment.mix", "images and targets", result, TypeError)
    for array, before in zip(result, (images, targets), strict=True):
        same = isinstance(array, np.ndarray) and array.shape == before.shape
        if not same or array.dtype != before.dtype:
            requirement = f"an array of {before.dtype} of shape {before.shape}"
            refuse("augment.mix", requirement, array)
        if not np.isfinite(array).all():
            raise ValueError("augment.mix must return finite numbers, got NaN or infinity")
    return result[0], result[1]


def centred(augment: Augmentation | None) -> Callable[[Array], Array] | None:
    """The method ``centred`` of an augmentation, with checks: what it leaves of each image."""
    crop = getattr(augment, "centred", None)
    if crop is None:
        return None
    if not callable(crop):
        raise TypeError(f"augment.centred must be a method, got {quoted(crop)}")
    return lambda images: _images("augment.centred", crop(read_only(images)), images, None)


def _images(
    source: str, result: object, images: Array, shape: Shape | None, trusted: bool = False
) -> Array:
    """The result of an augmentation, as images of the dtype that it got."""
    requirement = f"{len(images)} images"
    if shape is not None:
        requirement = f"images of shape {(len(images), *shape)}"
    array = real_numbers(source, requirement, result)
    if array.ndim < 2 or len(array) != len(images):
        refuse(source, requirement, result)
    if shape is not None and array.shape[1:] != shape:
        refuse(source, requirement, result)
    if trusted:
        return array
    if images.dtype == np.uint8:
        if array.dtype.kind not in "iu" or array.min(initial=0) < 0 or array.max(initial=0) > 255:
            requirement = "images of the dtype that it gets, uint8, or integers from 0 to 255"
            refuse(source, requirement, result, TypeError)
        return array.astype(np.uint8, copy=False)
    if array.dtype == np.uint8:
        refuse(source, f"images of the dtype that it gets, {images.dtype}", result, TypeError)
    if not np.isfinite(array).all():
        raise ValueError(f"{source} must return finite numbers, got NaN or infinity")
    return array
