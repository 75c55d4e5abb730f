"""A graph in two: what training computes as a prediction does, and the rest.

Before the first layers whose parameters train, nothing needs a gradient. If these layers also draw
no random numbers and take no statistics of the batch, a training step computes them by the programs
that predict: batch normalisations are folded into convolutions, and values share one arena.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastcnn.models.execution.layer_facts import normalises_batch
from fastcnn.models.execution.preparation import is_built_in
from fastcnn.models.graph import Graph, Node
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Dropout, Layer, Shape


class Division(NamedTuple):
    """A graph in two.

    Attributes:
        frozen_graph: the nodes that training computes as a prediction does.
        trained_graph: the other nodes. Their inputs are the outputs of ``frozen_graph``, and then
            ``passed_inputs``.
        passed_inputs: the inputs of the whole graph that the rest takes.
        input_shapes: the shapes of a sample of each input of the rest.
    """

    frozen_graph: Graph
    trained_graph: Graph
    passed_inputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]


def division_of(graph: Graph, weights: Weights, input_shapes: Sequence[Shape]) -> Division | None:
    """The division of an expanded graph; None where no parameters are frozen before the rest."""
    values = _frozen_values(graph, weights)
    nodes = [node for node in graph.nodes if node.output not in values]
    if not any(weights.of(node.layer) for node in graph.nodes if node.output in values):
        return None
    inputs_of_nodes = dict.fromkeys(value for node in nodes for value in node.inputs)
    values_taken_later = dict.fromkeys((*inputs_of_nodes, *graph.outputs))
    border = [value for value in values_taken_later if value in values]
    results = [value for value in border if value >= graph.inputs]
    passed_inputs = tuple(value for value in border if value < graph.inputs)
    places = {value: i for i, value in enumerate((*results, *passed_inputs))}
    count, nodes_that_train = len(places), list[Node]()
    for node in nodes:
        places[node.output] = count + len(nodes_that_train)
        inputs = tuple(places[value] for value in node.inputs)
        nodes_that_train.append(Node(node.layer, inputs, places[node.output]))
    shapes = graph.infer(input_shapes)
    return Division(
        graph.to_outputs(results),
        Graph([None] * count, nodes_that_train, [places[value] for value in graph.outputs]),
        passed_inputs,
        tuple(shapes[value] for value in (*results, *passed_inputs)),
    )


def _frozen_values(graph: Graph, weights: Weights) -> set[int]:
    """The values that training computes as a prediction does, and the inputs.

    Calls of one shared layer are all among them or none, because a layer knows the shape of a
    single call.
    """
    ids_on_both_sides = set[int]()  # shared layers, by id
    while True:
        values = {*range(graph.inputs)}
        for node in graph.nodes:
            stays = id(node.layer) not in ids_on_both_sides and _predicts(node.layer, weights)
            if stays and values.issuperset(node.inputs):
                values.add(node.output)
        ids_before = {id(node.layer) for node in graph.nodes if node.output in values}
        ids_after = {id(node.layer) for node in graph.nodes if node.output not in values}
        if ids_before.isdisjoint(ids_after):
            return values
        ids_on_both_sides |= ids_before & ids_after


def _predicts(layer: Layer, weights: Weights) -> bool:
    """Whether training takes a layer's values as a prediction does, and moves none of it."""
    if weights.gradients_of(layer) or not is_built_in(layer):
        return False
    return not (isinstance(layer, Dropout) or normalises_batch(layer))
