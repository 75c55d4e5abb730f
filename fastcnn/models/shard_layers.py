"""Shards of a batch layer by layer, on any engine; the plain form of what executors do.

The pass of a shard is a generator. Where a batch normalisation needs numbers of the other shards,
it yields an array of its own shard, and gets that of all. So all shards of a process go from one
normalisation to the next together.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import Divergence
from fastcnn.core.halving import Add, sum_by_halves
from fastcnn.data.several import Data
from fastcnn.distributed import Group
from fastcnn.models import shared_norms
from fastcnn.models.expansion import expand
from fastcnn.models.graph import Graph
from fastcnn.models.layer_by_layer import (
    Figures,
    Observer,
    add_gradient,
    gradients_of_inputs,
    loss_of,
    trained_values,
)
from fastcnn.models.shared_norms import Exchange
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import BatchNorm, Saved
from fastcnn.train.output_losses import Goal
from fastcnn.train.shards import Shard

_Pass: TypeAlias = Generator[Exchange, Array, Figures | None]
"""A pass of a shard; its result are the shard's figures, or None where it could not end."""


@dataclass(frozen=True, eq=False)
class ShardedBatch:
    """The shards of a process, as the layers take them.

    Attributes:
        inputs: the samples of all shards, an array for each input.
        targets, weights, shards, total: as those of :class:`fastcnn.train.shards.Shards`.
        rng: draws for shards without a generator of their own, where nothing is random.
        observe: sees the outputs of each shard, in their order; or None.
    """

    inputs: Sequence[Array]
    targets: Data
    weights: Array | None
    shards: Sequence[Shard]
    total: int
    rng: np.random.Generator
    observe: Observer | None = None


class Joint:
    """What the shards of this process share with those of others in a step.

    Attributes:
        over_batch: whether a batch normalisation takes its statistics over the whole batch.
        takes_part: whether the shards are the process's own. The numbers of a process without
            samples do not count.
        sums: the sum of the gradients.
        runs: for each slot of the sum its shards.
        followed: batch normalisations with the moments towards which their statistics move.
    """

    def __init__(self, group: Group, total: int, gradient: Array) -> None:
        self._group, self._total = group, total
        self.over_batch = group.statistics == "batch"
        self.takes_part = bool(group.shards_of(total))
        self.sums = group.sum_of_gradients(total, gradient)
        self.runs = self.sums.runs if self.takes_part else [slice(0, 1)]
        self.followed = list[tuple[BatchNorm, Array]]()

    def combined(self, parts: Sequence[Array] | Array, add: Add = np.add) -> Array:
        """The sum of an array of each shard, over the shards of all processes.

        ``parts`` is a list of these arrays, or an array that holds them along its first axis.
        """
        return self._group.combined(parts if self.takes_part else [], self._total, add)

    def follow(self, layer: BatchNorm, moments: Sequence[Array]) -> None:
        """Let running statistics move towards the moments of the batch, or of each shard."""
        of_batch = moments[0]
        if not self.over_batch:
            of_batch = self.combined(moments, shared_norms.joined)
        self.followed.append((layer, of_batch))

    def add(self, shard: Shard, gradient: Array, parts: Sequence[slice]) -> None:
        """Add parts of the gradient of a shard."""
        for part in parts:
            if self.takes_part:
                self.sums.add(shard.number, gradient, part)
            if not self.takes_part or shard.number == self.sums.last_shard:
                self.sums.leave(part)

    def put(self, slot: int, parts: Sequence[slice]) -> None:
        """Take parts of the flat gradient as the sum over a slot; the slots go down to 0."""
        for part in parts:
            if self.takes_part:
                self.sums.put(slot, part)
            if slot == 0:
                self.sums.leave(part)


class Passes(Protocol):
    """What runs shards: an executor's units, or layers one by one."""

    @property
    def parts(self) -> Sequence[Sequence[slice]]:
        """The parts of the flat gradient, in the order in which they leave."""
        ...

    def run(self, batch: ShardedBatch, loss: Goal, joint: Joint) -> Sequence[Figures] | None:
        """The figures of each shard; None if a loss is not finite, or layers must run one by one.

        Without figures, no part of the gradient has left.
        """
        ...


class LayerPasses:
    """Runs shards layer by layer."""

    def __init__(self, graph: Graph, weights: Weights, engine: str | None) -> None:
        self._graph, self._weights, self._engine = expand(graph), weights, engine
        nodes = self._graph.nodes
        trains = [bool(weights.gradients_of(node.layer)) for node in nodes]
        self._trained = trained_values(self._graph, trains)
        self._joins = any(shared_norms.normalises(node.layer) for node in nodes)
        first_calls = {id(node.layer): node for node in reversed(nodes)}
        self._parts_of_first_calls = {
            node.output: weights.parts(weights.gradients_of(node.layer).values())
            for node in first_calls.values()
            if node.output in self._trained
        }

    @property
    def parts(self) -> Sequence[Sequence[slice]]:
        """The parts of the flat gradient, in the order in which they are stored."""
        return [
            self._parts_of_first_calls[output]
            for output in sorted(self._parts_of_first_calls, reverse=True)
        ]

    def run(self, batch: ShardedBatch, loss: Goal, joint: Joint) -> Sequence[Figures] | None:
        """The figures of each shard; None if the loss of one is not finite."""
        followed: list[list[tuple[BatchNorm, Array]]] = [[] for _ in batch.shards]
        passes = [
            self._pass(batch, one, loss, joint, moments_of_shard)
            for one, moments_of_shard in zip(batch.shards, followed, strict=True)
        ]
        results: list[Figures | None] = [None] * len(passes)
        active, reply = list(enumerate(passes)), None
        while active:
            exchanges, going = list[Exchange](), list[tuple[int, _Pass]]()
            for i, one in active:
                try:
                    exchanges.append(one.send(reply))  # type: ignore[arg-type]
                    going.append((i, one))
                except StopIteration as end:
                    results[i] = end.value
            active = going
            if exchanges:
                arrays, add = [one.array for one in exchanges], exchanges[0].add
                within = exchanges[0].within_process
                reply = sum_by_halves(arrays, add) if within else joint.combined(arrays, add)
        figures = [one for one in results if one is not None]
        if len(figures) < len(results):
            return None
        for calls in zip(*followed, strict=True):
            joint.follow(calls[0][0], [moments for _, moments in calls])
        return figures

    def _pass(
        self,
        batch: ShardedBatch,
        shard: Shard,
        loss: Goal,
        joint: Joint,
        followed: list[tuple[BatchNorm, Array]],
    ) -> _Pass:
        """The pass of a shard."""
        graph, engine, trained = self._graph, self._engine, self._trained
        rng, rows = shard.rng or batch.rng, shard.rows
        weights = None if batch.weights is None else batch.weights[rows]
        values = {i: array[rows] for i, array in enumerate(batch.inputs)}
        saved = dict[int, Saved]()
        for node, last in zip(graph.nodes, graph.last_uses, strict=True):
            x: Any = node.input_among(values)
            if isinstance(node.layer, BatchNorm) and node.layer.trainable:
                moments = shared_norms.moments_of(node.layer, x, engine)
                if joint.over_batch:
                    moments = yield Exchange(moments, shared_norms.joined)
                y = shared_norms.forward(node.layer, x, moments, engine)
                saved_of_node = x, moments
            else:
                y, saved_of_node = node.layer.forward(x, True, rng, engine)
            values[node.output] = y
            if node.output in trained:
                saved[node.output] = saved_of_node
            for value in last:
                del values[value]
        outputs = [values[value] for value in graph.outputs]
        figures: Figures | None = None
        dys = list[Array]()
        with suppress(Divergence):
            figures, dys = loss_of(
                loss, outputs, batch.targets[rows], engine, weights, batch.total, batch.observe
            )
        # All shards go back, or none. Other processes go back alone, unless a normalisation of the
        # whole batch waits for them.
        alone = not (joint.over_batch and self._joins)
        failures = yield Exchange(np.array([float(figures is None)]), within_process=alone)
        if figures is None or failures[0]:
            return None
        gradients_of_value, sums = dict[int, Array](), dict[int, dict[str, Array]]()
        for value, dy in zip(graph.outputs, dys, strict=True):
            add_gradient(gradients_of_value, value, dy)
        for node in reversed(graph.nodes):
            if node.output not in trained:
                continue
            layer, needs_dx = node.layer, not trained.isdisjoint(node.inputs)
            dy, saved_of_node = gradients_of_value.pop(node.output), saved.pop(node.output)
            dx: Any
            if isinstance(layer, BatchNorm) and layer.trainable:
                x, moments = saved_of_node
                all_sums = sums_of_shard = shared_norms.backward_sums(layer, dy, x, moments, engine)
                if joint.over_batch:
                    all_sums = yield Exchange(sums_of_shard)
                dx = shared_norms.backward(layer, dy, x, moments, all_sums, engine)
                by_name = {
                    "gamma": sums_of_shard[0].astype(dy.dtype),
                    "beta": sums_of_shard[1].astype(dy.dtype),
                }
                followed.append((layer, moments))
            else:
                dx, by_name = layer.backward(dy, saved_of_node, engine, needs_dx=needs_dx)
            of_layer = sums.setdefault(id(layer), {})
            for name, gradient in by_name.items():
                sum_so_far = of_layer.get(name)
                of_layer[name] = gradient if sum_so_far is None else sum_so_far + gradient
            if node.output in self._parts_of_first_calls:
                for name, destination in self._weights.gradients_of(layer).items():
                    destination[...] = of_layer[name]
                joint.add(shard, self._weights.gradient, self._parts_of_first_calls[node.output])
            if needs_dx:
                for value, part in zip(node.inputs, gradients_of_inputs(layer, dx), strict=True):
                    if value in trained and part is not None:
                        add_gradient(gradients_of_value, value, part)
        return figures
