"""A training from its checks to its end, in one process or in a group of them."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath
from fastcnn.core.quoting import quoted
from fastcnn.data.pixel_augmentation import keeps_scale
from fastcnn.data.several import Data
from fastcnn.distributed import Group
from fastcnn.models import shard_step, training
from fastcnn.models.figures import Collected, accumulated_step
from fastcnn.models.net import Net
from fastcnn.models.shard_step import ShardSteps
from fastcnn.models.training import FitArguments
from fastcnn.train import checkpoint
from fastcnn.train.epochs import Epochs
from fastcnn.train.progress import History
from fastcnn.train.shards import Sharding, Shards
from fastcnn.train.streams import Stream


class Resumed(NamedTuple):
    """The training that goes on.

    Attributes:
        path: its file.
        compares_loss, compares_optimizer: whether the caller gave them, so that they must be those
            of the file.
    """

    path: FilePath
    compares_loss: bool
    compares_optimizer: bool


def run(
    model: Net, resumed: Resumed | None, group: Group | None, arguments: FitArguments
) -> History:
    """Train a model."""
    if group is None:
        fit = training.checked_fit(model, arguments)
        _begin(model, fit, resumed)
        return _epochs(model, fit, resumed, None)
    if not isinstance(group, Group):
        raise TypeError(
            f"group must be None or a group such as fastcnn.distributed.world(), got "
            f"{quoted(group)}"
        )
    with group.watched():
        with group.busy("checks"), group.agreed():
            fit = training.checked_fit(model, arguments)
            if fit.accumulate > 1:
                raise ValueError(
                    f"accumulate must be 1 with a group, whose shards are such parts of a batch, "
                    f"got {fit.accumulate}; take more shards"
                )
            samples = _samples_of(fit.data.images)
            validation = 0 if fit.validation is None else _samples_of(fit.validation.images)
            fit.settings.update(shards=group.shards, statistics=group.statistics)
            _begin(model, fit, resumed)
            shard_step.check_group(model, group, samples, fit.settings["batch_size"])
        shard_step.check_same(
            model, group, fit.settings, epochs=fit.epochs, loss=model._loss(),
            augment=fit.augment is None, validation_data=validation,
            callbacks=[type(one).__name__ for one in fit.callbacks],
            metrics=[one.name for one in fit.metrics], training_metrics=fit.training_metrics,
        )  # fmt: skip
        with group.guarded():
            return _epochs(model, fit, resumed, group)


def _samples_of(images: Data | Stream) -> int:
    """The number of samples; ``ValueError`` where they come from a source of batches."""
    if isinstance(images, Stream):
        raise ValueError(
            "group must be None where batches come from a sequence or an iterable, because each "
            "process reads its own share of the samples; give arrays, a memory-mapped file, or "
            "fastcnn.ImageSet"
        )
    return len(images)


def _begin(model: Net, fit: training.Fit, resumed: Resumed | None) -> None:
    """Make the model ready for a new training, or for one that goes on."""
    if resumed is None:
        training.begin(model, fit)
        return
    training.resume(
        model,
        checkpoint.read(resumed.path),
        fit,
        compares_loss=resumed.compares_loss,
        compares_optimizer=resumed.compares_optimizer,
    )


def _epochs(model: Any, fit: training.Fit, resumed: Resumed | None, group: Group | None) -> History:
    """Epochs from where ``model.progress`` stands."""
    progress = model.progress
    loss, optimizer = model._loss(), progress.optimizer
    learns = not keeps_scale(fit.augment)

    def add_figures() -> None:
        for name, value in model._figures.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value

    collector = None
    if fit.metrics and fit.training_metrics:
        collector = Collected(loss, fit.metrics, model.engine)
        if resumed is not None and progress.batch:
            collector.restore(progress.outputs)
    progress.outputs, progress.collector = {}, collector

    def epoch_figures() -> dict[str, float]:
        assert collector is not None
        result = collector.values()
        collector.truncate(0)
        return result

    def step(images: Data, targets: Data, weights: Array | None) -> tuple[float, float]:
        if learns:  # the layers are trained on the results of a user's augmentation, not on x
            model._knowledge.learn_batch(images, model._normalises)
        result: tuple[float, float]
        if fit.accumulate == 1:
            result = model._step(images, targets, loss, optimizer, weights, collector)
        else:
            result = accumulated_step(
                model, images, targets, loss, optimizer, weights, fit.accumulate, collector
            )
        add_figures()
        return result

    validate = fit.validation and partial(model._evaluate, *fit.validation, 256, fit.metrics)
    sharding = None
    if group is not None:
        steps = ShardSteps(model, group, loss, optimizer, collector)

        def step_on_shards(batch: Shards) -> tuple[float, float]:
            if learns and batch.shards[0].number == 0:
                first: Any = batch.images
                model._knowledge.learn_batch(first[batch.shards[0].rows], model._normalises)
            result = steps.step(batch)
            add_figures()
            return result

        draws = fit.augment is not None or steps.draws
        check = partial(shard_step.check_weights, model, group)
        sharding = Sharding(group, step_on_shards, draws, check)
        if fit.validation is not None:
            x: Any = fit.validation.images  # no stream, because these are refused
            targets, weights = fit.validation.targets, fit.validation.weights
            validate = partial(
                shard_step.evaluate, model, group, x, targets, weights, 256, fit.metrics
            )
    loop = Epochs(
        model, progress, *fit.data, step, validate, loss.counts, fit.augment, fit.steps, sharding,
        None if collector is None else epoch_figures,
    )  # fmt: skip
    with optimizer.running():
        if resumed is None:
            optimizer.begin(model._ownership, progress)
        model._fits = os.getpid()
        # Augmentations, and sources of a user's own, give other samples in each epoch.
        repeats = fit.augment is None and not isinstance(fit.data.images, Stream)
        model._weights.repeats_samples = repeats and fit.epochs - progress.epoch > 1
        try:
            return loop.run(fit.epochs, fit.verbose)
        finally:
            model._fits, model._weights.repeats_samples = 0, False
            progress.outputs, progress.collector = progress.outputs_so_far(), None
            model._give_up_memory()
