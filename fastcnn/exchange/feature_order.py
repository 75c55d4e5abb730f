"""The order of a vector's features in fastcnn, and in a library whose images have channels first.

Images are (H, W, C) here and (C, H, W) in PyTorch, so a Flatten lists the same numbers in another
order. A layer with a parameter for each feature of such a vector needs its parameters in the order
of fastcnn. The order follows a vector through layers that keep each feature in its place.

An order is an array (features,): at each position of fastcnn's vector the position of that feature
in the other library's. None stands for equal orders.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.quoting import quoted
from fastcnn.models.graph import Graph
from fastcnn.nn.layers import (
    ELU,
    GELU,
    BatchNorm,
    Concatenate,
    Dense,
    Dropout,
    Flatten,
    HardSigmoid,
    HardSwish,
    Layer,
    LayerNorm,
    LeakyReLU,
    Merge,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Shape,
    Sigmoid,
    Softmax,
    Softplus,
    Swish,
    Tanh,
)

Order = NDArray[np.intp] | None

_IN_PLACE = (
    ReLU, LeakyReLU, Tanh, Sigmoid, Softmax, ELU, HardSigmoid, HardSwish, Swish, GELU, Softplus,
    PReLU, Dropout, BatchNorm, LayerNorm,
)  # fmt: skip
"""Layers that keep each feature of a vector in its place."""


class FeatureOrders:
    """The orders of the vectors of a graph.

    Attributes:
        doubts: what could not be decided, as sentences.
    """

    def __init__(self, graph: Graph, shapes: list[Shape]) -> None:
        self._graph, self._shapes = graph, shapes
        self.doubts: list[str] = []
        self._from_reshape: dict[int, Order] = {}  # by the value that a Dense makes
        self._find_reshapes()
        self._orders = dict[int, Order]()
        for node in graph.nodes:
            self._orders[node.output] = self._order(node.layer, node.inputs, node.output)

    def of_input(self, layer: Layer) -> Order:
        """The order of the vector that a layer takes, which is the first one's if it is shared."""
        nodes = [node for node in self._graph.nodes if node.layer is layer]
        orders = [self._orders.get(node.inputs[0]) for node in nodes]
        if not all(same_order(one, orders[0]) for one in orders):
            self.doubts.append(
                f"{quoted(layer)} is shared by vectors whose features are in different orders"
            )
        return orders[0] if orders else None

    def of_output(self, layer: Layer) -> Order:
        """The order of the vector that a layer makes."""
        outputs = (node.output for node in self._graph.nodes if node.layer is layer)
        return next((self._orders.get(output) for output in outputs), None)

    def of_outputs(self) -> list[Order]:
        """The order of each output of the model."""
        return [self._orders.get(value) for value in self._graph.outputs]

    def _find_reshapes(self) -> None:
        """Go back from each Reshape of a vector to an image, to the Dense that makes the vector."""
        makers = {node.output: node for node in self._graph.nodes}
        for node in self._graph.nodes:
            value, after = node.inputs[0], self._shapes[node.output]
            if isinstance(node.layer, Reshape) and len(after) == 3:
                while value in makers and isinstance(makers[value].layer, _IN_PLACE):
                    value = makers[value].inputs[0]
                if value in makers and isinstance(makers[value].layer, Dense):
                    self._from_reshape.setdefault(value, channels_first(after))

    def _doubt_reshape(self, layer: Layer, shape: Shape) -> None:
        self.doubts.append(
            f"{quoted(layer)} of {shape} reads the numbers with channels last; with channels "
            f"first, as in PyTorch, a reshape gives another order"
        )

    def _order(self, layer: Layer, inputs: tuple[int, ...], output: int) -> Order:
        before, after = self._shapes[inputs[0]], self._shapes[output]
        input_orders = [self._orders.get(value) for value in inputs]
        if len(before) == 3 and len(after) == 1 and isinstance(layer, Flatten | Reshape):
            return None if self._is_permuted(inputs[0]) else channels_first(before)
        if isinstance(layer, Reshape) and len(before) == 1 and len(after) == 3:
            if not same_order(input_orders[0], channels_first(after)):
                self._doubt_reshape(layer, before)
            return None
        if isinstance(layer, Dense):
            return self._from_reshape.get(output)
        if len(after) != 1:
            if len(before) != len(after) and isinstance(layer, Reshape | Flatten):
                self._doubt_reshape(layer, before)
            return None
        if isinstance(layer, Concatenate):
            sizes = [self._shapes[value][0] for value in inputs]
            return joined_orders(input_orders, sizes)
        if isinstance(layer, (Flatten, Reshape, *_IN_PLACE)):
            return input_orders[0]
        if isinstance(layer, Merge):
            full = [
                order
                for order, value in zip(input_orders, inputs, strict=True)
                if self._shapes[value] == after
            ]
            if not all(same_order(one, full[0]) for one in full):
                self.doubts.append(
                    f"{quoted(layer)} merges vectors whose features are in different orders"
                )
            return full[0] if full else None
        if input_orders[0] is not None:
            self.doubts.append(f"{quoted(layer)} takes a vector that a Flatten made of an image")
        return None

    def _is_permuted(self, value: int) -> bool:
        """Whether a Permute has put the channels of an image first."""
        maker = next((node for node in self._graph.nodes if node.output == value), None)
        if maker is None or not isinstance(maker.layer, Permute):
            return False
        if maker.layer.dims != (3, 1, 2):
            self.doubts.append(f"{quoted(maker.layer)} is before a Flatten")
        return True


def channels_first(shape: Shape) -> Order:
    """The order of the features of an image (H, W, C) that is flattened.

    >>> channels_first((1, 2, 3))
    array([0, 2, 4, 1, 3, 5])
    >>> channels_first((7, 5, 1)) is None
    True
    """
    h, w, c = shape
    if c == 1 or h * w == 1:
        return None
    order = np.arange(prod(shape), dtype=np.intp).reshape(c, h, w)
    return order.transpose(1, 2, 0).reshape(-1)


def same_order(a: Order, b: Order) -> bool:
    """Whether two orders are equal."""
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b)


def joined_orders(orders: list[Order], sizes: list[int]) -> Order:
    """The order of vectors side by side."""
    if all(order is None for order in orders):
        return None
    first, parts = 0, []
    for order, size in zip(orders, sizes, strict=True):
        parts.append((np.arange(size, dtype=np.intp) if order is None else order) + first)
        first += size
    return np.concatenate(parts)
