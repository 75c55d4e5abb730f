"""A graph in which layers that are made of other layers are replaced by these."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastcnn.models.graph import Graph, Node
from fastcnn.nn.layers import (
    Add,
    Composite,
    Conv2D,
    DepthwiseConv2D,
    Layer,
    ReLU,
    Residual,
    SeparableConv2D,
)

Convolutions = Callable[[SeparableConv2D], tuple[DepthwiseConv2D, Conv2D]]
"""The two convolutions of a separable convolution."""


def expand(graph: Graph, convolutions_of: Convolutions | None = None) -> Graph:
    """The same graph with the layers inside of each ``Residual`` and ``Composite`` as nodes.

    A ``Residual`` becomes its paths, their sum and its ReLU. With ``convolutions_of``, each
    ``SeparableConv2D`` becomes two nodes as well.
    """
    nodes: list[Node] = []
    values = {value: value for value in range(graph.inputs)}

    def add(layer: Layer, *inputs: int) -> int:
        output = graph.inputs + len(nodes)
        nodes.append(Node(layer, inputs, output))
        return output

    def add_row(layers: Sequence[Layer], value: int) -> int:
        for layer in layers:
            value = add_layer(layer, value)
        return value

    def add_layer(layer: Layer, *inputs: int) -> int:
        if type(layer) is SeparableConv2D and convolutions_of is not None:
            return add_row(convolutions_of(layer), *inputs)
        if isinstance(layer, Composite):
            inside = list(inputs)
            for node in layer.connected(layer.input_shape):
                inside.append(add_layer(node.layer, *(inside[value] for value in node.inputs)))
            return inside[-1]
        if type(layer) is not Residual:
            return add(layer, *inputs)
        (value,) = inputs
        main, other = add_row(layer.layers, value), add_row(layer.shortcut, value)
        total = add(_built(Add(), (layer.output_shape,) * 2, layer), main, other)
        if not layer.activation:
            return total
        return add(_built(ReLU(), layer.output_shape, layer), total)

    for node in graph.nodes:
        values[node.output] = add_layer(node.layer, *(values[value] for value in node.inputs))
    return Graph(graph.names, nodes, [values[value] for value in graph.outputs])


def _built(layer: Layer, input_shape: object, residual: Residual) -> Layer:
    """A layer without parameters that takes part in a ``Residual``, with its shapes."""
    vars(layer).update(input_shape=input_shape, output_shape=residual.output_shape)
    return layer
