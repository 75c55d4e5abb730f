"""The layers with weights of an ONNX file, which all traces of the file share.

A trace makes a layer without memory for its weights. The weights go from the arrays of the file
into those of the built model, so that each is copied once. After that, only the model has them, and
a stand-in takes the place of each array of the file that became weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from fastcnn.core.arguments import Array as Floats
from fastcnn.core.copies import copy_into
from fastcnn.exchange.onnx_functions import Array
from fastcnn.exchange.onnx_functions.nodes import uses_of
from fastcnn.exchange.onnx_reading import OnnxGraph
from fastcnn.nn.layers import Layer, Spec, own_arrays

L = TypeVar("L", bound=Layer)

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulBias")
"""Operators whose second input is a matrix of weights, or filters."""


class NeedsWeights(Exception):
    """A later trace needs weights that the layers of the first trace do not have."""


@dataclass(frozen=True)
class _Place:
    """Where the numbers of a constant are.

    Attributes:
        layer, name: of the weight.
        view: the shape of the weight as it was taken from the constant.
        order: of the axes of that view in the constant's memory.
        shape: of the constant.
    """

    layer: Layer
    name: str
    view: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    def numbers(self) -> Floats:
        """The constant, with the weight's numbers."""
        arrays = own_arrays(self.layer.parameters) | own_arrays(self.layer.state)
        return arrays[self.name].reshape(self.view).transpose(self.order).reshape(self.shape)


class LayerStore:
    """Layers with weights by the values that they make.

    Attributes:
        layers: the layers by the names of their values.
        dtype: of the weights.
    """

    def __init__(self, dtype: np.dtype[np.floating]) -> None:
        self.layers: dict[str, Layer] = {}
        self.dtype = dtype
        self._sources: dict[int, dict[str, Array]] = {}
        self._moved: dict[str, _Place] = {}
        self._stand_ins: dict[int, Array] = {}
        self._settled = False

    def layer(self, key: str, make: Callable[[], L], shape: Any, **arrays: Array | None) -> L:
        """The layer of a key; at first ``make()``, for ``shape``, whose weights are these arrays.

        An array may have another shape than the weight, with as many numbers in the same order.

        Raises :class:`NeedsWeights` where the built model has no such layer, or has it with weights
        of other shapes than inputs of ``shape`` need.
        """
        layer = self.layers.get(key)
        if layer is None and self._settled:
            raise NeedsWeights
        if layer is None:
            layer = make()
            layer.output_shape = layer.infer(shape)
            layer.parameters = self._unset_arrays(layer.parameter_specs(shape))
            layer.state = self._unset_arrays(layer.state_specs(shape))
            layer.input_shape = shape
            self._sources[id(layer)] = {k: v for k, v in arrays.items() if v is not None}
            self.layers[key] = layer
        elif shape != layer.input_shape and not _takes(layer, shape):
            raise NeedsWeights
        return layer  # type: ignore[return-value]  # a key always names one class

    def _unset_arrays(self, specs: dict[str, Spec]) -> dict[str, Floats]:
        return {name: _unset(spec.shape, self.dtype) for name, spec in specs.items()}

    def build(self) -> None:
        """Give the layers arrays of their own, where no model has them."""
        for layer in self.layers.values():
            sources = self._sources.pop(id(layer), {})
            for arrays in (layer.parameters, layer.state):
                for name, source in sources.items():
                    if name in arrays:
                        arrays[name] = np.zeros(arrays[name].shape, self.dtype)
                        copy_into(arrays[name].reshape(source.shape), source)

    def settle(self, graph: OnnxGraph) -> None:
        """Write the weights into the layers, which belong to a built model now.

        ``graph`` gets a stand-in for each constant that is the weight of one node, and copies of
        the others, so that nothing refers to the bytes of the file any more.
        """
        names = _weights(graph)
        for layer in self.layers.values():
            targets = own_arrays(layer.parameters) | own_arrays(layer.state)
            for name, source in self._sources.pop(id(layer), {}).items():
                target = targets[name].reshape(source.shape)
                copy_into(target, source)
                order = np.argsort([-stride for stride in source.strides], kind="stable")
                contiguous = source.transpose(order).flags.c_contiguous
                constant = names.get(source.ctypes.data)
                if constant is not None and contiguous and source.dtype == self.dtype:
                    shape, places = graph.constants[constant].shape, tuple(map(int, order))
                    self._moved[constant] = _Place(layer, name, source.shape, places, shape)
        self._settled = True
        for name, array in graph.constants.items():
            if not array.flags.owndata and name not in self._moved:
                graph.constants[name] = array.copy()
        self.enter_stand_ins(graph)

    def enter_stand_ins(self, graph: OnnxGraph) -> None:
        """Give ``graph`` a stand-in for each constant that became a weight."""
        for name, place in self._moved.items():
            stand_in = _unset(place.shape, self.dtype)
            self._stand_ins[id(stand_in)] = graph.constants[name] = stand_in

    def check(self, array: Array) -> None:
        """Raise an error for a stand-in, whose numbers a trace needs outside of its layer.

        They are no constants any more, because training may change them.
        """
        if id(array) in self._stand_ins:
            raise NeedsWeights

    def with_numbers(self, graph: OnnxGraph) -> OnnxGraph:
        """The graph with the numbers of all constants, as the model has them now."""
        numbers = {name: place.numbers() for name, place in self._moved.items()}
        return replace(graph, constants=graph.constants | numbers)

    def without_stand_ins(self, graph: OnnxGraph) -> OnnxGraph:
        """The graph without the constants that became weights, for a copy of the model."""
        constants = {k: v for k, v in graph.constants.items() if k not in self._moved}
        return replace(graph, constants=constants)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_stand_ins": {}}

    def forget(self, keys: list[str]) -> None:
        """Forget these layers."""
        for key in keys:
            self._sources.pop(id(self.layers.pop(key)), None)


def _takes(layer: Layer, shape: Any) -> bool:
    """Whether a layer takes inputs of a shape with the weights that it has."""
    try:
        layer.infer(shape)
        specs = layer.parameter_specs(shape) | layer.state_specs(shape)
    except ValueError:
        return False
    arrays = own_arrays(layer.parameters) | own_arrays(layer.state)
    return {k: v.shape for k, v in specs.items()} == {k: v.shape for k, v in arrays.items()}


def _weights(graph: OnnxGraph) -> dict[int, str]:
    """By their addresses the names of constants that only one node takes, as its weights."""
    users = uses_of(graph.nodes)
    users.update(one.name for one in graph.outputs)
    return {
        graph.constants[name].ctypes.data: name
        for node in graph.nodes
        if node.operator in _WEIGHTED
        for name in node.inputs[1:2]
        if name in graph.constants and users[name] == 1
    }


def _unset(shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> Floats:
    """An array of zeros that takes no memory."""
    array: Floats = np.broadcast_to(np.zeros((), dtype), shape)
    return array
