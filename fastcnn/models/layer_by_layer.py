"""A graph run layer by layer, on any engine: forward, and the gradients of a batch.

This is the plain form of what compiled programs do. Nodes run in the order of the graph, and their
gradients in the opposite order. Where several nodes take one value, its gradients are added in this
order, and so are those of parameters that several nodes share.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Protocol

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import Divergence, unreported
from fastcnn.data.several import Data, Several
from fastcnn.models.graph import Graph
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Layer, Saved
from fastcnn.train.output_losses import Goal, OutputLosses
from fastcnn.train.sample_weights import scale_to_mean, weighted_losses

Figures = tuple[float, float, dict[str, float]]
"""The sum of a batch's losses, how many samples are right, and the sums of several outputs."""
NO_FIGURES: dict[str, float] = {}


class Observer(Protocol):
    """Sees the outputs of the batches of a training."""

    def __call__(self, outputs: Any, targets: Data, /) -> None:
        """Take the raw outputs of a batch, or a list of several, and its targets."""

    def __len__(self) -> int:
        """The number of batches."""

    def truncate(self, count: int) -> None:
        """Forget all but the first batches, because the others are computed again."""


@unreported
def forward(graph: Graph, inputs: Sequence[Array], engine: str | None) -> list[Array]:
    """The outputs in prediction, for one array (N, …) for each input."""
    values: dict[int, Array] = dict(enumerate(inputs))
    for node, last in zip(graph.nodes, graph.last_uses, strict=True):
        x = node.input_among(values)
        values[node.output], _ = node.layer.forward(x, False, None, engine)
        for value in last:
            del values[value]
    return [values[value] for value in graph.outputs]


def trained_values(graph: Graph, trains: Sequence[bool]) -> set[int]:
    """The values that depend on parameters that train; ``trains`` says it of each node's layer."""
    result: set[int] = set()
    for node, own in zip(graph.nodes, trains, strict=True):
        if own or not result.isdisjoint(node.inputs):
            result.add(node.output)
    return result


@unreported
def gradients(
    graph: Graph,
    weights: Weights,
    inputs: Sequence[Array],
    targets: Data,
    loss: Goal,
    rng: np.random.Generator,
    engine: str | None,
    sample_weights: Array | None,
    observe: Observer | None = None,
) -> Figures:
    """The figures of a batch; the gradient of the mean loss goes to ``weights``.

    Running statistics change where the loss is finite; else ``FloatingPointError`` is raised.
    """
    trained = trained_values(graph, [bool(weights.gradients_of(n.layer)) for n in graph.nodes])
    values, saved = dict(enumerate(inputs)), dict[int, Saved]()
    for node, last in zip(graph.nodes, graph.last_uses, strict=True):
        x = node.input_among(values)
        y, saved_of_node = node.layer.forward(x, True, rng, engine)
        values[node.output] = y
        if node.output in trained:
            saved[node.output] = saved_of_node
        for value in last:
            del values[value]
    outputs = [values[value] for value in graph.outputs]
    figures, dys = loss_of(loss, outputs, targets, engine, sample_weights, observe=observe)
    gradients_of_value = dict[int, Array]()
    for value, dy in zip(graph.outputs, dys, strict=True):
        add_gradient(gradients_of_value, value, dy)
    layer_ids = set[int]()
    for node in reversed(graph.nodes):
        if node.output not in trained:
            continue
        needs_dx = not trained.isdisjoint(node.inputs)
        dy = gradients_of_value.pop(node.output)
        dx, by_name = node.layer.backward(dy, saved.pop(node.output), engine, needs_dx=needs_dx)
        _write(weights, node.layer, by_name, layer_ids)
        if needs_dx:
            for value, part in zip(node.inputs, gradients_of_inputs(node.layer, dx), strict=True):
                if value in trained:
                    assert part is not None
                    add_gradient(gradients_of_value, value, part)
    return figures


def loss_of(
    loss: Goal,
    outputs: list[Array],
    targets: Data,
    engine: str | None,
    sample_weights: Array | None,
    count: int | None = None,
    observe: Observer | None = None,
) -> tuple[Figures, list[Array]]:
    """The figures of a batch, and the gradients of the mean loss at the outputs.

    ``observe`` is called where the loss is finite.

    The mean is the sum divided by ``count``, by default the number of samples.

    Raises ``FloatingPointError`` if the loss is not finite.
    """
    several = isinstance(loss, OutputLosses)
    y: Any = outputs if several else outputs[0]
    goal: Any = loss
    losses = weighted_losses(loss, y, targets, sample_weights, engine)
    total = float(losses.sum(dtype=np.float64))
    if not isfinite(total):
        raise Divergence(f"the loss of a batch is {total}")
    if observe is not None:
        observe(y, targets)
    dys = goal.gradient(y, targets, engine)
    dys = dys if several else [dys]
    for dy in dys:
        scale_to_mean(dy, sample_weights, count)
    of_outputs = NO_FIGURES
    if isinstance(loss, OutputLosses):
        assert isinstance(targets, Several)
        of_outputs = loss.figures(outputs, targets, sample_weights, engine)
    return (total, goal.correct(y, targets), of_outputs), dys


def gradients_of_inputs(layer: Layer, dx: Any) -> Sequence[Array | None]:
    """What ``backward`` returns of a layer, as one gradient for each of its inputs."""
    return dx if layer.takes_several else (dx,)


def add_gradient(sums: dict[int, Array], value: int, gradient: Array) -> None:
    """Add a gradient to the sum for a value; the sum is a new array, because others may read it."""
    total = sums.get(value)
    sums[value] = gradient if total is None else total + gradient


def _write(
    weights: Weights, layer: Layer, gradients_by_name: dict[str, Array], layer_ids: set[int]
) -> None:
    """Write the gradients of a layer's parameters, or add them where another call wrote."""
    destinations = weights.gradients_of(layer)
    for name, gradient in gradients_by_name.items():
        if name in destinations:
            if id(layer) in layer_ids:
                destinations[name] += gradient
            else:
                destinations[name][...] = gradient
    layer_ids.add(id(layer))
