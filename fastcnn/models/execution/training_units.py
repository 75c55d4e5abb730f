"""A graph as units that train: segments, lone layers, and calls of merging or shared layers.

Layers in a row become segments and lone layers, if each value between them has one reader. A layer
that merges several values, and a layer that several nodes call, is a unit of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.models import shared_norms
from fastcnn.models.execution.compiled import CompiledSegment
from fastcnn.models.execution.layer_facts import ends_in_plain_relu, normalises_batch
from fastcnn.models.execution.lone import LoneLayer, NormalisedSum, checked_result
from fastcnn.models.execution.lowering import lone_kind, stands_alone
from fastcnn.models.execution.preparation import is_built_in
from fastcnn.models.execution.stages import stage_end
from fastcnn.models.graph import Graph, Node
from fastcnn.models.layer_by_layer import trained_values
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import (
    Add,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    Layer,
    ReLU,
    Saved,
    Shape,
    input_of_call,
)


class LoneNode:
    """A call of a layer that merges several values, or that other nodes call too.

    Attributes are those of :class:`.lone.LoneLayer`, and ``adds``: whether other calls of the layer
    have written its gradients before, so that this one adds to them.
    """

    padded = False
    sums_shards = False

    def __init__(
        self, node: Node, shapes: Sequence[Shape], weights: Weights, needs_dx: bool, adds: bool
    ) -> None:
        self.layer, self._needs_dx, self.adds = node.layer, needs_dx, adds
        self.takes_several = node.layer.takes_several
        self._inputs = [shapes[value] for value in node.inputs]
        self._output = shapes[node.output]
        self._gradients = weights.gradients_of(node.layer)
        self._dtype = weights.parameters.dtype
        # A shared layer may be a BatchNorm or a Dropout.
        self.is_deterministic = is_built_in(node.layer) and node.layer.takes_several

    def gradients(self) -> list[Array]:
        """The gradients that :meth:`backward` writes, as views of the flat one."""
        return list(self._gradients.values())

    def explain(self) -> str:
        """The unit's line in ``Model.explain``."""
        why = "it merges several values" if self.layer.takes_several else "it is shared"
        return f"alone: {self.layer!r}, {why}"

    def forward(self, x: Any, rng: np.random.Generator | None) -> tuple[Array, Saved] | None:
        """The output (N, …), and what :meth:`backward` takes of it; with ``rng`` in training."""
        y, saved = self.layer.forward(x, rng is not None, rng, None)
        count = len(x[0]) if self.layer.takes_several else len(x)
        return self._checked("forward", y, (count, *self._output)), saved

    def backward(self, dy: Array, saved: Saved) -> Any:
        """The gradient of each input, if it is needed; those of parameters go to the weights."""
        dx, by_name = self.layer.backward(dy, saved, None, needs_dx=self._needs_dx)
        self._write(by_name)
        if not self._needs_dx:
            return None
        parts: Any = dx if self.layer.takes_several else (dx,)
        checked = [
            self._checked("backward", part, (len(dy), *shape))
            for part, shape in zip(parts, self._inputs, strict=True)
        ]
        return input_of_call(self.layer, checked)

    def _write(self, by_name: dict[str, Array]) -> None:
        for name, gradient in by_name.items():
            if name in self._gradients:
                if self.adds:
                    self._gradients[name] += gradient
                else:
                    self._gradients[name][...] = gradient

    # --- a batch normalisation over shards, as in :class:`.lone.LoneNormalisation` ----------------

    def moments(self, x: Array, shards: int) -> Array:
        """The moments (shards, 3, C) of shards of equal size."""
        layer = cast(BatchNorm, self.layer)
        return np.stack([shared_norms.moments_of(layer, one, None) for one in np.split(x, shards)])

    def forward_by(self, x: Array, moments: Array) -> tuple[Array, Saved]:
        """The output, by the moments of all shards."""
        return shared_norms.forward(cast(BatchNorm, self.layer), x, moments, None), (x, moments)

    def before_activation(self, dy: Array, saved: Saved) -> Array:
        """The gradient itself, because no activation is done with a shared layer."""
        return dy

    def backward_sums(self, dy: Array, saved: Saved, part: slice | None, shards: int) -> Array:
        """The sums (shards, 2, C) of shards: dgamma and dbeta.

        ``part`` are their samples in the input.
        """
        x, moments = saved
        x = x if part is None else x[part]
        layer = cast(BatchNorm, self.layer)
        return np.stack(
            [
                shared_norms.backward_sums(layer, own_dy, own_x, moments, None)
                for own_dy, own_x in zip(np.split(dy, shards), np.split(x, shards), strict=True)
            ]
        )

    def parameter_gradients(self, own: Array, saved: Saved) -> list[Array]:
        """The gradients of a shard from its sums, in the order of :meth:`gradients`."""
        by_name = {"gamma": own[0], "beta": own[1]}
        return [by_name[name].astype(self._dtype) for name in self._gradients]

    def backward_by(self, dy: Array, saved: Saved, sums: Array) -> tuple[Array, Array]:
        """The gradient of the input, by the sums of all shards; and the moments."""
        x, moments = saved
        layer = cast(BatchNorm, self.layer)
        return shared_norms.backward(layer, dy, x, moments, sums, None), moments

    def _checked(self, method: str, array: object, shape: tuple[int, ...]) -> Array:
        return checked_result(self.layer, method, array, shape, self._dtype)


Unit = CompiledSegment | LoneLayer | LoneNode
"""A part of a graph; an executor runs one unit after the other."""


class UnitCall(NamedTuple):
    """A unit, and the values of the graph between which it stands.

    Attributes:
        unit: the unit.
        inputs: the values that it takes.
        output: the value that it makes.
        goes_back: whether the gradient goes back through it.
    """

    unit: Unit
    inputs: tuple[int, ...]
    output: int
    goes_back: bool


def units_of(graph: Graph, weights: Weights, input_shapes: Sequence[Shape]) -> list[UnitCall]:
    """The units of an expanded graph, in an order in which they can run."""
    shapes = graph.infer(input_shapes)
    trains = [bool(weights.gradients_of(node.layer)) for node in graph.nodes]
    values_that_train = trained_values(graph, trains)
    uses = Counter([value for node in graph.nodes for value in node.inputs])
    uses.update(graph.outputs)
    calls = Counter(id(node.layer) for node in graph.nodes)
    last_calls = {id(node.layer): node for node in graph.nodes}
    consumers = {value: node for node in graph.nodes for value in node.inputs}
    sums = _normalised_sums(graph, consumers, uses, calls, shapes)
    outputs_inside_sums = {one.output for parts in sums.values() for one in parts}
    result, finished_outputs = list[UnitCall](), set[int]()
    for node in graph.nodes:
        if node.output in sums:
            result.append(_call_of_sum(node, sums[node.output], weights, values_that_train))
        elif node.output in finished_outputs or node.output in outputs_inside_sums:
            continue
        elif _is_single(node, calls):
            needs_dx = not values_that_train.isdisjoint(node.inputs)
            adds = last_calls[id(node.layer)] is not node
            unit = LoneNode(node, shapes, weights, needs_dx, adds)
            goes_back = node.output in values_that_train
            result.append(UnitCall(unit, node.inputs, node.output, goes_back))
        else:
            chain = _chain_from(node, graph, consumers, uses, calls, outputs_inside_sums)
            finished_outputs.update(one.output for one in chain)
            result += _calls_of_chain(chain, weights, values_that_train)
    return result


def _chain_from(
    node: Node, graph: Graph, consumers: dict[int, Node], uses: Counter[int], calls: Counter[int],
    inside_sums: set[int],
) -> list[Node]:  # fmt: skip
    """The nodes in a row from this one on, without those that are done in other units.

    Each value between two of them has one consumer. Layers that draw random numbers do so in the
    order of the graph, so the row ends before such a layer if other nodes come before it.
    """
    chain = [node]
    while uses[chain[-1].output] == 1 and chain[-1].output not in graph.outputs:
        after = consumers[chain[-1].output]
        if _is_single(after, calls) or after.output in inside_sums:
            break
        follows = after.output == node.output + len(chain)
        if uses_randomness(after.layer) and not follows:
            break
        chain.append(after)
    return chain


def _normalised_sums(
    graph: Graph,
    consumers: dict[int, Node],
    uses: Counter[int],
    calls: Counter[int],
    shapes: Sequence[Shape],
) -> dict[int, tuple[Node, ...]]:
    """The sums that are done with a batch normalisation that trains, by the output of the Add.

    With each are the normalisation before it, and the ReLU behind it, if there is one.
    """
    makers = {node.output: node for node in graph.nodes}

    def is_free(value: int) -> bool:
        return uses[value] == 1 and value not in graph.outputs

    result: dict[int, tuple[Node, ...]] = {}
    for node in graph.nodes:
        distinct_shapes = {shapes[value] for value in (*node.inputs, node.output)}
        if type(node.layer) is not Add or len(node.inputs) != 2 or len(distinct_shapes) > 1:
            continue
        parts = [
            maker
            for value in node.inputs
            if is_free(value) and (maker := makers.get(value)) is not None
            if normalises_batch(maker.layer) and is_free(maker.inputs[0])
        ]
        if not parts or any(calls[id(one.layer)] > 1 for one in (node, *parts)):
            continue
        after = consumers[node.output] if is_free(node.output) else None
        last = max(parts, key=lambda one: one.output)
        if after is not None and type(after.layer) is ReLU and ends_in_plain_relu(after.layer):
            result[node.output] = (last, after) if calls[id(after.layer)] == 1 else (last,)
        else:
            result[node.output] = (last,)
    return result


def _call_of_sum(
    node: Node, parts: Sequence[Node], weights: Weights, values_that_train: set[int]
) -> UnitCall:
    """The unit of an Add with a batch normalisation before it, and perhaps a ReLU behind it."""
    norm, (first, second) = parts[0], node.inputs
    summand = first if second == norm.output else second
    inputs = norm.inputs[0], summand
    needs = inputs[0] in values_that_train, summand in values_that_train
    layers = norm.layer, node.layer, *(one.layer for one in parts[1:])
    unit = NormalisedSum(layers, weights, needs, "the batch is normalised as a whole")
    return UnitCall(unit, inputs, parts[-1].output if len(parts) > 1 else node.output, True)


def uses_randomness(layer: Layer) -> bool:
    """Whether a layer may draw random numbers, as one of a user's own may."""
    return isinstance(layer, Dropout) or not is_built_in(layer)


def _is_single(node: Node, calls: Counter[int]) -> bool:
    """Whether a node is a unit of its own."""
    return node.layer.takes_several or calls[id(node.layer)] > 1


def _calls_of_chain(
    chain: Sequence[Node], weights: Weights, values_that_train: set[int]
) -> list[UnitCall]:
    """The units of nodes in a row."""
    result, layers = [], [node.layer for node in chain]
    goes_before = chain[0].inputs[0] in values_that_train
    for unit, first, last in _units(layers, weights, goes_before):
        output = chain[last - 1].output
        result.append(UnitCall(unit, chain[first].inputs, output, output in values_that_train))
    return result


def _units(
    layers: Sequence[Layer], weights: Weights, goes_before: bool
) -> list[tuple[CompiledSegment | LoneLayer, int, int]]:
    """The layers as segments and lone layers, each with its first layer and the one after its last.

    ``goes_before`` says whether the gradient goes on to what comes before them. A lone convolution
    has its ReLU and max-pooling with it, a lone dense layer each Flatten before it.
    """
    dtype, i = weights.parameters.dtype, 0
    units: list[tuple[CompiledSegment | LoneLayer, int, int]] = []
    first = next((i for i, layer in enumerate(layers) if weights.gradients_of(layer)), len(layers))
    first = -1 if goes_before else first
    while i < len(layers):
        end = i
        while end < len(layers) and stands_alone(layers[end], dtype) is None:
            end += 1
        row = layers[i:end]
        if any(not isinstance(layer, Flatten) for layer in row):
            units.append((CompiledSegment(row, weights, needs_dx=i > first), i, end))
            i = end
            continue
        at = end if end < len(layers) and type(layers[end]) is Dense else i
        last = stage_end(layers, at)
        reason = stands_alone(layers[at], dtype) or "nothing to compile"
        kind, needs_dx = lone_kind(layers[at]), at > first
        unit = kind(layers[i:last], layers[at], weights, needs_dx, reason)
        units.append((unit, i, last))
        i = last
    return units
