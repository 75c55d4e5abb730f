"""A shard of a batch layer by layer, on any engine; the plain form of what executors do.

The pass is a generator. Where a batch normalisation needs numbers of the other shards, it yields an
array of its own shard, and gets that of all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import Divergence
from fastcnn.data.several import Data
from fastcnn.models import shared_norms
from fastcnn.models.expansion import expand
from fastcnn.models.graph import Graph
from fastcnn.models.layer_by_layer import (
    Figures,
    add_gradient,
    gradients_of_inputs,
    loss_of,
    trained_values,
)
from fastcnn.models.shared_norms import Exchange, Follow
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import BatchNorm, Saved, input_of_call
from fastcnn.train.output_losses import Goal

Store: TypeAlias = Callable[[Sequence[slice]], None]
"""Gets parts of the flat gradient that are complete."""

ShardPass: TypeAlias = Generator[Exchange, Array, Figures | None]
"""A pass of a shard; its result are the shard's figures, or None where it could not end."""


@dataclass(frozen=True, eq=False)
class ShardContext:
    """What a pass needs beside its samples.

    Attributes:
        total: samples of the whole batch; the loss is the sum of the losses divided by it.
        over_batch: whether a batch normalisation takes its statistics over the whole batch.
        store: gets the parts of the flat gradient that are complete.
        follow: gets batch normalisations with the moments of their statistics, on the way back.
    """

    total: int
    over_batch: bool
    store: Store
    follow: Follow


class Passes(Protocol):
    """What runs shards: an executor's units, or layers one by one."""

    @property
    def parts(self) -> Sequence[Sequence[slice]]:
        """The parts of the flat gradient, in the order in which they are stored."""
        ...

    def run(
        self,
        inputs: Sequence[Array],
        targets: Data,
        loss: Goal,
        rng: np.random.Generator,
        weights: Array | None,
        context: ShardContext,
    ) -> ShardPass:
        """The pass of a shard."""
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
        self._completed = {
            node.output: weights.parts(weights.gradients_of(node.layer).values())
            for node in first_calls.values()
            if node.output in self._trained
        }

    @property
    def parts(self) -> Sequence[Sequence[slice]]:
        """The parts of the flat gradient, in the order in which they are stored."""
        return [self._completed[output] for output in sorted(self._completed, reverse=True)]

    def run(
        self,
        inputs: Sequence[Array],
        targets: Data,
        loss: Goal,
        rng: np.random.Generator,
        weights: Array | None,
        context: ShardContext,
    ) -> ShardPass:
        """The pass of a shard; None if its loss, or that of another shard, is not finite."""
        graph, engine, trained = self._graph, self._engine, self._trained
        values, saved = dict(enumerate(inputs)), dict[int, Saved]()
        for node, last in zip(graph.nodes, graph.last_uses, strict=True):
            x: Any = input_of_call(node.layer, [values[value] for value in node.inputs])
            if isinstance(node.layer, BatchNorm) and node.layer.trainable:
                moments = shared_norms.moments_of(node.layer, x, engine)
                if context.over_batch:
                    moments = yield Exchange(moments, shared_norms.joined)
                y, kept = shared_norms.forward(node.layer, x, moments, engine), (x, moments)
            else:
                y, kept = node.layer.forward(x, True, rng, engine)
            values[node.output] = y
            if node.output in trained:
                saved[node.output] = kept
            for value in last:
                del values[value]
        outputs = [values[value] for value in graph.outputs]
        figures: Figures | None = None
        dys = list[Array]()
        with suppress(Divergence):
            figures, dys = loss_of(loss, outputs, targets, engine, weights, context.total)
        if context.over_batch and self._joins:  # all shards go on, or none
            failures = yield Exchange(np.array([float(figures is None)]))
            if failures[0]:
                return None
        if figures is None:
            return None
        reached, sums = dict[int, Array](), dict[int, dict[str, Array]]()
        for value, dy in zip(graph.outputs, dys, strict=True):
            add_gradient(reached, value, dy)
        for node in reversed(graph.nodes):
            if node.output not in trained:
                continue
            layer, needs_dx = node.layer, not trained.isdisjoint(node.inputs)
            dy, kept = reached.pop(node.output), saved.pop(node.output)
            dx: Any
            if isinstance(layer, BatchNorm) and layer.trainable:
                x, moments = kept
                all_sums = sums_of_shard = shared_norms.backward_sums(layer, dy, x, moments, engine)
                if context.over_batch:
                    all_sums = yield Exchange(sums_of_shard)
                dx = shared_norms.backward(layer, dy, x, moments, all_sums, engine)
                by_name = {
                    "gamma": sums_of_shard[0].astype(dy.dtype),
                    "beta": sums_of_shard[1].astype(dy.dtype),
                }
                context.follow(layer, moments)
            else:
                dx, by_name = layer.backward(dy, kept, engine, needs_dx=needs_dx)
            of_layer = sums.setdefault(id(layer), {})
            for name, gradient in by_name.items():
                before = of_layer.get(name)
                of_layer[name] = gradient if before is None else before + gradient
            if node.output in self._completed:
                for name, destination in self._weights.gradients_of(layer).items():
                    destination[...] = of_layer[name]
                context.store(self._completed[node.output])
            if needs_dx:
                for value, part in zip(node.inputs, gradients_of_inputs(layer, dx), strict=True):
                    if value in trained and part is not None:
                        add_gradient(reached, value, part)
        return figures
