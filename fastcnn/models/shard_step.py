"""Training in a group of processes: a step on the shards of a batch, validation, and checks.

A process takes its shards through the net together. Their gradients are added along the tree of
the group.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.core.float_errors import Divergence, unreported
from fastcnn.core.quoting import quoted
from fastcnn.data.several import Data
from fastcnn.distributed import Group
from fastcnn.distributed.tree import sizes_of_shards
from fastcnn.models import shared_norms
from fastcnn.models.expansion import expand
from fastcnn.models.figures import Collected
from fastcnn.models.graph import Graph
from fastcnn.models.layer_by_layer import Figures
from fastcnn.models.net import Net
from fastcnn.models.shard_layers import Joint, LayerPasses, Passes, ShardedBatch
from fastcnn.models.training import NamedMetric
from fastcnn.nn.layers import BatchNorm, Dropout, all_layers, to_dict
from fastcnn.nn.optimizers import Optimizer, optimizer_to_dict
from fastcnn.train.output_losses import Goal, OutputLosses
from fastcnn.train.shards import Shards

if TYPE_CHECKING:
    from fastcnn.models.execution import Executor

_FAILED = 2  # index among the figures of a shard: whether its pass could not end


class ShardSteps:
    """Steps of a model on shards.

    Args:
        model: the model, which is built.
        group: the processes.
        loss, optimizer: of the training.
        collector: gets the outputs and targets of each whole batch, on all processes; or None.
    """

    def __init__(
        self,
        model: Net,
        group: Group,
        loss: Goal,
        optimizer: Optimizer,
        collector: Collected | None = None,
    ) -> None:
        self._model, self._group, self._loss, self._optimizer = model, group, loss, optimizer
        self._collector, self._own = collector, collector
        self._names = list[str]()
        if isinstance(loss, OutputLosses):
            for name, one in zip(loss.names, loss.losses, strict=True):
                self._names += [f"{name}_loss", *([f"{name}_accuracy"] if one.counts else [])]
        self._is_prepared = False
        self._followed = list[tuple[BatchNorm, Array]]()
        self._layers: LayerPasses | None = None
        self._version = -1

    @property
    def draws(self) -> bool:
        """Whether layers draw random numbers, as those of a user's own may."""
        layers = [*all_layers(self._model.layers)]
        return any(isinstance(one, Dropout) or not is_own(type(one)) for one in layers)

    @unreported
    def step(self, batch: Shards) -> tuple[float, float]:
        """A step on a batch; its sum of losses, and how many samples are right.

        All processes get the same numbers, and the same ``FloatingPointError`` if the loss is not
        finite.
        """
        model, group, shards = self._model, self._group, batch.shards
        trunk = model._trunk(self._loss)
        executor = model._executor(trunk)
        states = [None if one.rng is None else one.rng.bit_generator.state for one in shards]
        with group.busy("a step" if self._is_prepared else "its first step"):
            figures = None
            if executor is not None:
                inputs = model._executor_inputs(batch.images, executor, training=True)
                if not self._is_prepared:
                    self._prepare(executor, inputs, batch.targets)
                figures = self._run(executor.shard_passes, inputs, batch)
                if figures is not None and not executor.gradient_is_decided():
                    figures = None
            self._is_prepared = True
            if figures is None:
                for shard, state in zip(shards, states, strict=True):
                    if shard.rng is not None and state is not None:
                        shard.rng.bit_generator.state = state
                figures = self._run(self._layer_passes(trunk), model._batch(batch.images), batch)
            if figures is None:
                raise Divergence("the loss of a batch is not finite")
            if self._collector is not None and self._own is not None:
                self._collector.add(group.gathered(self._own.as_bytes()))
            for layer, moments in self._followed:
                shared_norms.follow(layer, moments)
            model._weights.move(self._optimizer)
        model._figures = figures[2]
        return figures[0], figures[1]

    def _prepare(self, executor: Executor, inputs: Sequence[Array], targets: Data) -> None:
        """Compile kernels on rank 0 first, so that the other processes can read its cache."""
        group = self._group
        if group.rank:
            group.barrier()
        executor.prepare_step(inputs, targets, self._loss, self._optimizer)
        if not group.rank:
            group.barrier()

    def _layer_passes(self, trunk: Graph) -> LayerPasses:
        if self._layers is None or self._version != self._model._derived_for:
            self._layers = LayerPasses(trunk, self._model._weights, self._model.engine)
            self._version = self._model._derived_for
        return self._layers

    def _run(self, passes: Passes, inputs: Sequence[Array], batch: Shards) -> Figures | None:
        """The figures of the whole batch, whose gradient goes to the weights; None if a pass fails.

        Then layers must run one by one, or the loss is not finite.
        """
        weights, model = self._model._weights, self._model
        joint = Joint(self._group, batch.total, weights.gradient)
        _, _, targets, of_samples, total = batch
        self._own = None if self._collector is None else self._collector.like()
        sharded = ShardedBatch(
            inputs, targets, of_samples, batch.shards, total, model.rng,
            self._own if joint.takes_part else None,
        )  # fmt: skip
        results = passes.run(sharded, self._loss, joint)
        if results is None:  # the other processes wait for these parts
            for parts in passes.parts:
                joint.put(0, parts)
        joint.sums.leave_all()  # gradients and figures are under way together
        no_results: list[Figures | None] = [None] * len(batch.shards)
        shard_numbers = np.array([self._numbers(one) for one in results or no_results])
        figures = joint.combined(shard_numbers)
        joint.sums.finish()
        if figures[_FAILED]:
            return None
        self._followed = joint.followed
        by_name = dict(zip(self._names, figures[_FAILED + 1 :].tolist(), strict=True))
        return float(figures[0]), float(figures[1]), by_name

    def _numbers(self, figures: Figures | None) -> list[float]:
        """The figures of a shard as numbers that are summed."""
        if figures is None:
            return [0.0, 0.0, 1.0, *(0.0 for _ in self._names)]
        loss_sum, correct, by_name = figures
        return [loss_sum, correct, 0.0, *(by_name[name] for name in self._names)]


# --- validation -----------------------------------------------------------------------------------


def evaluate(
    model: Any,
    group: Group,
    images: Data,
    targets: Data,
    weights: Array | None,
    size: int,
    metrics: Sequence[NamedMetric],
) -> dict[str, float]:
    """The figures of a validation. Each process evaluates some of its batches.

    The figures of batches are added in the order of the batches, so that they are the same for any
    number of processes. Metrics are computed of the outputs of all processes.
    """
    starts = range(0, len(images), size)
    figures_of_batches = list[tuple[int, dict[str, float]]]()
    collected = Collected(model._loss(), metrics, model.engine)
    with group.busy("a validation"):
        for i in group.share_of(len(starts)):
            batch_rows = slice(starts[i], starts[i] + size)
            of_batch = None if weights is None else weights[batch_rows]
            part = images[batch_rows], targets[batch_rows], of_batch, size
            figures = model._evaluate(*part, collected=collected)
            figures_of_batches.append((len(targets[batch_rows]), figures))
    sums = dict[str, float]()
    for text in group.everyones(json.dumps(figures_of_batches)):
        for count, figures in json.loads(text):
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + count * value
    means = {name: value / len(images) for name, value in sums.items()}
    if not metrics:
        return means
    everyones = group.gathered(collected.as_bytes())
    collected.truncate(0)
    collected.add(everyones)
    return means | collected.values()


# --- checks before a training, and between epochs -------------------------------------------------


def check_group(model: Net, group: Group, samples: int, batch_size: int) -> None:
    """Raise ``ValueError`` where the model cannot be trained on shards."""
    graph = expand(model._graph)
    for node in graph.nodes:
        layer = node.layer
        inner = [one for one in all_layers([layer]) if one is not layer]
        hidden = [one for one in inner if one.state and one.trainable]
        if hidden or (layer.state and type(layer) is not BatchNorm):
            raise ValueError(
                f"group must be None for a model with {quoted(layer)}, because the state of a "
                f"layer of a user's own, or of a layer inside of it, would differ between the "
                f"shards; a BatchNorm among the layers of the model is shared by all"
            )
    if group.statistics == "batch":
        return
    values = graph.infer(model._known_shapes())
    fewest_samples = graph.least_batch(values)
    for batch in {min(batch_size, samples), samples % batch_size or batch_size}:
        smallest = min(size for size in sizes_of_shards(batch, group.shards) if size)
        if smallest < fewest_samples:
            raise ValueError(
                f"shards must leave at least {fewest_samples} samples to each shard with "
                f'statistics="shard", because a BatchNorm gets one value for each channel of a '
                f"sample, got {group.shards} shards of a batch of {batch}"
            )


def check_same(model: Net, group: Group, settings: dict[str, object], **more: object) -> None:
    """Raise ``ValueError`` on all processes where data, model or settings differ."""
    names = {"images": "x", "targets": "y", "samples": "x"}
    graph = model._graph
    layers = [repr(to_dict(layer)) for layer in graph.layers]
    facts: dict[str, object] = {"model": [graph.as_dict(), layers, model.dtype.name]}
    for name, value in settings.items():
        facts[names.get(name, name)] = f"{facts.get(names.get(name, name), '')} {value}"
    facts |= {name: repr(value) for name, value in more.items()}
    group.check_same(facts, "give all processes the same arguments and files")
    check_weights(model, group, "give the model and fit a seed, or load one file on all processes")


def check_weights(model: Net, group: Group, advice: str | None = None) -> None:
    """Raise ``ValueError`` on all processes where weights, optimizers or generators differ."""
    checksum = 0
    for array in model.get_weights():
        checksum = crc32(np.ascontiguousarray(array).view(np.uint8).data, checksum)
    facts: dict[str, object] = {"the weights": checksum, "rng": model.rng.bit_generator.state}
    if model.progress is not None:
        facts["optimizer"] = optimizer_to_dict(model.progress.optimizer)
    group.check_same(
        facts,
        advice or "a callback that changes the model must have on_every_process = True",
    )
