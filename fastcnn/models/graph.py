"""``Graph``: the layers of a model, and the values between them.

Values are numbered: first the inputs, then the result of each node. A node is a call of a layer on
values. The nodes are in an order in which they can run, so a node takes values of smaller numbers.
A layer that several nodes call is shared: it has one set of parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.nn.layers import (
    Layer,
    Shape,
    Tensor,
    all_layers,
    checked_layers,
    infer_calls,
    snake_case,
)
from fastcnn.nn.layers import Node as Node

MOST_VALUES = 300_000
"""Largest number of calls in a graph, and of the values that they take, together."""


class Graph:
    """Nodes between inputs and outputs.

    Attributes:
        names: the names of the inputs, None for an input without one.
        nodes: the nodes, in an order in which they can run.
        outputs: the values that the model returns.
    """

    def __init__(
        self, names: Sequence[str | None], nodes: Iterable[Node], outputs: Sequence[int]
    ) -> None:
        self.names, self.nodes, self.outputs = tuple(names), tuple(nodes), tuple(outputs)

    def __getstate__(self) -> dict[str, object]:
        # Without what is cached, because another thread may cache it while this one copies.
        return {"names": self.names, "nodes": self.nodes, "outputs": self.outputs}

    @property
    def inputs(self) -> int:
        """The number of inputs."""
        return len(self.names)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Each layer once, in the order of its first node."""
        return tuple({id(node.layer): node.layer for node in self.nodes}.values())

    @cached_property
    def is_chain(self) -> bool:
        """Whether each node takes the value before it alone, and the last one is the output."""
        return (
            self.inputs == 1
            and self.outputs == (len(self.nodes),)
            and len(self.layers) == len(self.nodes)
            and all(node.inputs == (i,) for i, node in enumerate(self.nodes))
            and not any(node.layer.takes_several for node in self.nodes)
        )

    @cached_property
    def last_uses(self) -> tuple[tuple[int, ...], ...]:
        """For each node the values that nothing takes after it."""
        later, result = set(self.outputs), list[tuple[int, ...]]()
        for node in reversed(self.nodes):
            last = {value for value in (*node.inputs, node.output) if value not in later}
            later |= last
            result.append(tuple(sorted(last)))
        return tuple(reversed(result))

    def single(self, layer: Layer) -> Node:
        """The first node of a layer."""
        return next(node for node in self.nodes if node.layer is layer)

    def infer(self, shapes: Sequence[Shape]) -> list[Shape]:
        """The shapes of all values, from those of the inputs.

        Raises a ``ValueError`` that names the layer that does not fit, its input and its needs.

        >>> from fastcnn.nn.layers import Conv2D, Dense, Flatten
        >>> chain([Conv2D(8, 3), Flatten()]).infer([(28, 28, 1)])
        [(28, 28, 1), (26, 26, 8), (5408,)]
        """
        return infer_calls(self.nodes, shapes, numbered=True)

    def flops(self, shapes: Sequence[Shape]) -> int:
        """The work of all calls for one sample, from the shapes of the inputs.

        >>> from fastcnn.nn.layers import Conv2D, Dense, Flatten
        >>> chain([Conv2D(8, 3), Flatten()]).flops([(28, 28, 1)]) == 2 * 26 * 26 * 9 * 8
        True
        """
        values = self.infer(shapes)
        return sum(node.layer.flops(node.input_among(values)) for node in self.nodes)

    def input_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        """For each layer the shape of its input, from the shapes of all values.

        Raises ``ValueError`` for a shared layer whose calls need different parameters.
        """
        result: dict[int, Shape] = {}
        for node in self.nodes:
            layer = node.layer
            input_shape = node.input_among(shapes)
            first = result.setdefault(id(layer), input_shape)
            if first == input_shape:
                continue
            if (layer.parameter_specs(first), layer.state_specs(first)) != (
                layer.parameter_specs(input_shape), layer.state_specs(input_shape),
            ):  # fmt: skip
                raise ValueError(
                    f"{quoted(layer)} is shared, so all its inputs must need the same parameters, "
                    f"got inputs of shapes {first} and {input_shape}; give each a layer of its own"
                )
        return [result[id(layer)] for layer in self.layers]

    def least_batch(self, shapes: Sequence[Shape]) -> int:
        """The fewest samples that a training batch may have, from the shapes of all values."""
        return max(node.layer.least_batch(node.input_among(shapes)) for node in self.nodes)

    def check_gradients(self) -> None:
        """Raise ``ValueError`` for a layer without a gradient behind one that trains."""
        if not any(node.layer.lacks_gradient for node in self.nodes):
            return
        trained: dict[int, Layer] = {}
        for node in self.nodes:
            earlier = [trained[value] for value in node.inputs if value in trained]
            reason = node.layer.lacks_gradient
            if earlier and reason is not None:
                raise ValueError(
                    f"fit cannot train layer {quoted(earlier[0].name)}, because its gradient would "
                    f"pass layer {quoted(node.layer.name)}: {reason}; set trainable = False on all "
                    f"layers before {quoted(node.layer.name)}"
                )
            trainable_layers = [
                one for one in all_layers([node.layer]) if one.trainable and one.parameters
            ]
            if earlier or trainable_layers:
                trained[node.output] = earlier[0] if earlier else node.layer

    def with_layers(self, layers: Sequence[Layer]) -> Graph:
        """The same graph of other layers, in the order of :attr:`layers`."""
        copies = dict(zip(map(id, self.layers), layers, strict=True))
        nodes = (node._replace(layer=copies[id(node.layer)]) for node in self.nodes)
        return Graph(self.names, nodes, self.outputs)

    def to_outputs(self, values: Sequence[int]) -> Graph:
        """The nodes that lead to these values, which become the outputs."""
        sources, nodes = set(values), list[Node]()
        for node in reversed(self.nodes):
            if node.output in sources:
                sources.update(node.inputs)
                nodes.append(node)
        new = {value: value for value in range(self.inputs)}
        result = list[Node]()
        for node in reversed(nodes):
            new[node.output] = self.inputs + len(result)
            inputs = tuple(new[value] for value in node.inputs)
            result.append(Node(node.layer, inputs, new[node.output]))
        return Graph(self.names, result, [new[value] for value in values])

    def without_last(self, classes: Sequence[str | None]) -> Graph:
        """The graph whose outputs come before a last layer of a class, where there is one.

        ``classes`` has a name for each output, or None for an output that stays. A layer that is
        the whole net stays, and so does one whose result something else takes.
        """
        uses = Counter([value for node in self.nodes for value in node.inputs])
        uses.update(self.outputs)
        values = list(self.outputs)
        for i, (value, name) in enumerate(zip(self.outputs, classes, strict=True)):
            if name is None or value < self.inputs or uses[value] > 1:
                continue
            node = self.nodes[value - self.inputs]
            (before, *others) = node.inputs
            if type(node.layer).__name__ == name and not others and before >= self.inputs:
                values[i] = before
        return self if values == list(self.outputs) else self.to_outputs(values)

    def as_dict(self) -> JsonObject:
        """The graph without its layers, as JSON values, for :func:`graph_from`."""
        index = {id(layer): i for i, layer in enumerate(self.layers)}
        return {
            "inputs": list(self.names),
            "nodes": [[index[id(node.layer)], *node.inputs] for node in self.nodes],
            "outputs": list(self.outputs),
        }


def chain(layers: Sequence[Layer]) -> Graph:
    """The graph of layers in a row."""
    nodes = (Node(layer, (i,), i + 1) for i, layer in enumerate(layers))
    return Graph((None,), nodes, (len(layers),))


def between(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Graph:
    """The graph from input tensors to output tensors; layers are those that were called.

    Raises ``ValueError`` for outputs that need another input, and for inputs that no output needs.
    """
    values = {id(tensor): i for i, tensor in enumerate(inputs)}
    tensors, waiting = dict[int, Tensor](), list(outputs)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in values or id(tensor) in tensors:
            continue
        if tensor.layer is None:
            raise ValueError(_unconnected(tensor, inputs, outputs))
        tensors[id(tensor)] = tensor
        waiting += tensor.inputs
    nodes = list[Node]()
    for tensor in sorted(tensors.values(), key=lambda one: one.number):
        assert tensor.layer is not None
        inputs_of_node = tuple(values[id(one)] for one in tensor.inputs)
        values[id(tensor)] = len(inputs) + len(nodes)
        nodes.append(Node(tensor.layer, inputs_of_node, values[id(tensor)]))
    used_values = {value for node in nodes for value in node.inputs}
    for i, tensor in enumerate(inputs):
        if i not in used_values:
            raise ValueError(
                f"inputs must all lead to an output, but no layer on the way to the outputs takes "
                f"input {i}, {tensor!r}; leave it out, or call a layer on it"
            )
    return Graph(
        [tensor.name for tensor in inputs], nodes, [values[id(tensor)] for tensor in outputs]
    )


def _unconnected(missing: Tensor, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    """The message for an input tensor that outputs need and that is not among the inputs."""
    user = next(tensor for tensor in _ancestors(outputs) if missing in tensor.inputs)
    layer = user.layer
    assert layer is not None
    of_other = "" if layer._owner is None else ", a layer of another model,"
    return (
        f"outputs must come from the inputs alone, but {quoted(layer)}{of_other} was called on "
        f"{missing!r}, which is not among them; add it to the inputs, or take outputs that come "
        f"from {', '.join(map(repr, inputs))}"
    )


def _ancestors(tensors: Sequence[Tensor]) -> Iterable[Tensor]:
    """The tensors and all that they come from."""
    ids, waiting = set[int](), list(tensors)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in ids:
            ids.add(id(tensor))
            waiting += tensor.inputs
            yield tensor


def checked_tensors(name: str, tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Inputs or outputs of a model as a tuple; ``TypeError`` or ``ValueError`` for others."""
    several = (tensors,) if isinstance(tensors, Tensor) else tensors
    if not isinstance(several, list | tuple) or not all(isinstance(t, Tensor) for t in several):
        raise TypeError(
            f"{name} must be a tensor or a list of tensors, such as fastcnn.Input((28, 28, 1)), "
            f"got {quoted(tensors)}"
        )
    if not several:
        raise ValueError(f"{name} must be at least one tensor")
    if len({id(tensor) for tensor in several}) < len(several):
        raise ValueError(f"{name} must be different tensors, got {quoted(several)}")
    return tuple(several)


def graph_of(inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Graph:
    """The checked graph of a functional model.

    Raises ``ValueError`` for an input that is the result of a layer, for one that no output needs,
    and for outputs that come from elsewhere.
    """
    _check_different([tensor.name for tensor in inputs])
    for tensor in outputs:
        if tensor.layer is None:
            raise ValueError(f"outputs must be results of layers, got {tensor!r}")
    graph = between(inputs, outputs)
    checked_layers("layers", graph.layers)
    _check_number(sum(1 + len(node.inputs) for node in graph.nodes))
    return graph


def _check_different(names: Sequence[str | None]) -> None:
    """Raise ``ValueError`` for two inputs of one name."""
    twice = [name for name, times in Counter(filter(None, names)).items() if times > 1]
    if twice:
        raise ValueError(f"inputs must have different names, got {quoted(twice[0])} twice")


def names_of(layers: Sequence[Layer]) -> list[str]:
    """A name for each layer: its own, or one of its class and a number.

    Raises ``ValueError`` for two layers of one name.

    >>> from fastcnn.nn.layers import Dense, Flatten
    >>> names_of([Flatten(), Dense(3), Dense(2)])
    ['flatten', 'dense', 'dense_1']
    """
    fixed_names = [layer._own_name for layer in layers]
    twice = [name for name, times in Counter(filter(None, fixed_names)).items() if times > 1]
    if twice:
        raise ValueError(f"layers must have different names, got two of the name {twice[0]!r}")
    used_names, counts, result = set(fixed_names), Counter[str](), list[str]()
    for layer, name in zip(layers, fixed_names, strict=True):
        while name is None:
            stem = snake_case(type(layer).__name__)
            candidate = f"{stem}_{counts[stem]}" if counts[stem] else stem
            counts[stem] += 1
            name = None if candidate in used_names else candidate
        result.append(name)
    return result


def graph_from(record: object, layers: Sequence[Layer]) -> Graph:
    """The graph of a result of :meth:`Graph.as_dict`, with these layers.

    Raises ``ValueError`` for a cycle, and for numbers that name no layer or value.
    """
    if not isinstance(record, dict) or record.keys() != {"inputs", "nodes", "outputs"}:
        raise ValueError(f"graph must have inputs, nodes and outputs, got {quoted(record)}")
    names = _checked_list("inputs", record["inputs"])
    for name in names:
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"a name of an input must be text, got {quoted(name)}")
    _check_different(names)
    nodes, total = list[Node](), 0
    for i, numbers in enumerate(_checked_list("nodes", record["nodes"])):
        if not isinstance(numbers, list) or len(numbers) < 2:
            raise ValueError(f"node {i} must be a layer and its inputs, got {quoted(numbers)}")
        total += len(numbers)
        _check_number(total)
        index, *inputs = (count(f"node {i}", number, least=0) for number in numbers)
        if index >= len(layers):
            raise ValueError(f"node {i} must call one of {len(layers)} layers, got {index}")
        layer, output = layers[index], len(names) + i
        for value in inputs:
            if value >= output:
                exists = value < len(names) + len(record["nodes"])
                raise ValueError(
                    f"node {i}, {quoted(layer)}, must take values that are computed before it, got "
                    f"value {value}, "
                    + ("so the graph has a cycle" if exists else "which does not exist")
                )
        if len(inputs) > 1 and not layer.takes_several:
            raise ValueError(f"node {i}, {quoted(layer)}, must take one value, got {len(inputs)}")
        nodes.append(Node(layer, tuple(inputs), output))
    outputs = [
        count("outputs", value, least=len(names))
        for value in _checked_list("outputs", record["outputs"])
    ]
    if max(outputs) >= len(names) + len(nodes) or len({*outputs}) < len(outputs):
        raise ValueError(f"outputs must be different results of nodes, got {quoted(outputs)}")
    graph = Graph(names, nodes, outputs)
    used_part = graph.to_outputs(outputs)
    if len(used_part.nodes) < len(nodes) or len(graph.layers) < len(layers):
        raise ValueError("each node must lead to an output, and each layer must have a node")
    unused = {*range(len(names))}.difference(*(node.inputs for node in nodes))
    if unused:
        raise ValueError(f"inputs must all lead to an output, but no node takes {min(unused)}")
    if any(layer is not other for layer, other in zip(graph.layers, layers, strict=True)):
        raise ValueError("layers must be in the order of their first nodes")
    return graph


def _check_number(values: int) -> None:
    """Raise ``ValueError`` for a graph that would take minutes to read."""
    if values > MOST_VALUES:
        raise ValueError(
            f"a graph must have at most {MOST_VALUES:,} calls and values that they take, got more"
        )


def _checked_list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} of the graph must be a list, got {quoted(value)}")
    return value
