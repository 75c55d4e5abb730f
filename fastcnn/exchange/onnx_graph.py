"""``OnnxGraph``: an ONNX graph that is written node by node, and the layouts of its values.

A value of the model is an image (H, W, C), a vector (features,), or has another number of axes. In
the ONNX graph an image has its channels first, (N, C, H, W), because convolutions want it so. It is
transposed where the model's inputs and outputs have channels last, and where a layer needs that,
such as a ``Reshape``. A vector that a Flatten makes of an image therefore has another order of its
features; a :class:`Dense` behind it gets its weights in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.exchange.feature_order import Order
from fastcnn.nn.layers import Shape

OPSET = 17
"""The version of ONNX's operators, the first with LayerNormalization."""
IR_VERSION = 8
"""The version of the file format that belongs to the operators."""

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class Value(NamedTuple):
    """A value of the ONNX graph.

    Attributes:
        name: its name.
        shape: the shape of a sample in fastcnn, such as (H, W, C).
        channels_last: whether an image has its channels last in the graph.
        order: the order of a vector's features in the graph: at each position of fastcnn's vector
            the position of that feature in the graph; None for equal orders.
    """

    name: str
    shape: Shape
    channels_last: bool = False
    order: Order = None


class OnnxGraph:
    """The nodes and constants of a graph, in the order in which they are added.

    A layer of your own writes its nodes through this class, in a method ``to_onnx(graph, x)``:
    ``x`` is the name of its input, or a list of names for a layer of several inputs, and the result
    is the name of its output. Images have their channels first there, (N, C, H, W).

    Attributes:
        layer: the name of the layer's call that writes, which begins the names of its nodes.
        owner: the name of the layer, which begins the names of its constants.
    """

    def __init__(self) -> None:
        self.onnx: Any = onnx_package("save_onnx")
        self.layer = self.owner = ""
        self.nodes: list[Any] = []
        self._arrays: dict[str, Array] = {}
        self._names = set[str]()
        self._converted: dict[tuple[str, str], str] = {}

    def add(
        self, operator: str, inputs: str | Sequence[str], part: str = "", **attributes: Any
    ) -> str:
        """Add a node of one output.

        Args:
            operator: the operator of ONNX, such as "Conv".
            inputs: the names of its inputs; an empty name leaves an optional input out.
            part: what the node is in its layer; empty for the last node, whose output has the name
                of the layer.
            attributes: the operator's attributes; those that are None are left out.

        Returns:
            The name of the output.
        """
        name = self.unique(f"{self.layer}/{part}" if part else self.layer)
        names = [inputs] if isinstance(inputs, str) else list(inputs)
        present = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(self.onnx.helper.make_node(operator, names, [name], name, **present))
        return name

    def constant(self, array: Any, part: str) -> str:
        """The name of a constant of the layer; equal constants of one name are one constant."""
        values = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        name, number = f"{self.owner}.{part}", 1
        while name in self._arrays or name in self._names:
            if name in self._arrays and _same(self._arrays[name], values):
                return name
            number += 1
            name = f"{self.owner}.{part}_{number}"
        self._arrays[name] = values
        self._names.add(name)
        return name

    def unique(self, name: str) -> str:
        """The name, or one like it that no other value has."""
        result, number = name, 1
        while result in self._names:
            number += 1
            result = f"{name}_{number}"
        self._names.add(result)
        return result

    def reserve(self, names: Sequence[str]) -> None:
        """Keep names for the inputs of the model."""
        self._names.update(names)

    def renamed(self, old: str, new: str) -> None:
        """Note that a value has another name."""
        self._names.add(new)
        self._converted = {
            key: new if name == old else name for key, name in self._converted.items()
        }

    @property
    def size(self) -> int:
        """The bytes of all constants."""
        return sum(array.nbytes for array in self._arrays.values())

    def initializers(self) -> list[Any]:
        """The constants as ONNX holds them."""
        make = self.onnx.numpy_helper.from_array
        return [make(array, name) for name, array in self._arrays.items()]

    def first(self, value: Value) -> Value:
        """The value with channels first, if it is an image."""
        if len(value.shape) != 3 or not value.channels_last:
            return value
        return value._replace(
            name=self._transposed(value.name, "channels_first", TO_FIRST), channels_last=False
        )

    def plain(self, value: Value) -> Value:
        """The value as fastcnn has it: an image with channels last, a vector in its order."""
        if len(value.shape) == 3 and not value.channels_last:
            return value._replace(
                name=self._transposed(value.name, "channels_last", TO_LAST), channels_last=True
            )
        if value.order is not None:
            key = value.name, "order"
            if key not in self._converted:
                indices = self.constant(value.order.astype(np.int64), "order")
                self._converted[key] = self.add("Gather", (value.name, indices), "in order", axis=1)
            return value._replace(name=self._converted[key], order=None)
        return value

    def _transposed(self, name: str, part: str, order: Sequence[int]) -> str:
        """The value with its axes in another order; a second call returns the same node."""
        key = name, part
        if key not in self._converted:
            self._converted[key] = self.add("Transpose", name, part, perm=list(order))
        return self._converted[key]


def onnx_package(what: str) -> Any:
    """The package onnx; ``ImportError`` with advice without it."""
    try:
        onnx = import_module("onnx")
        import_module("onnx.checker")
    except ImportError:
        raise ImportError(f"onnx is needed for {what}: pip install 'fastcnn[onnx]'") from None
    return onnx


def _same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
