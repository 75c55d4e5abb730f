"""``save_onnx``: a model as an ONNX file, which other runtimes read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fastcnn.core.files import FilePath, check_writable, write_whole
from fastcnn.core.quoting import quoted
from fastcnn.exchange.onnx_graph import IR_VERSION, OPSET, TO_FIRST, OnnxGraph, Value, onnx_package
from fastcnn.exchange.onnx_layers import write_layer
from fastcnn.models.graph import Graph
from fastcnn.models.input_gradients import graph_to
from fastcnn.models.model import Model
from fastcnn.models.summary import value_names
from fastcnn.nn.layers import Shape
from fastcnn.version import __version__

Layout = Literal["channels_last", "channels_first"]

_LARGEST = (2 << 30) - (64 << 20)
"""Bytes of weights in one file, because Protocol Buffers end at 2 GiB."""
_BATCH = "batch"
"""The name of the free dimension."""


def save_onnx(
    model: Model,
    path: FilePath,
    layout: Layout = "channels_last",
    of: Literal["predictions", "scores"] = "predictions",
) -> None:
    """Write a model to an ONNX file; :meth:`fastcnn.Model.save_onnx` describes the arguments."""
    check_writable(path)
    write(path, onnx_model(model, layout, of))


def write(path: FilePath, proto: Any) -> None:
    """Write a result of :func:`onnx_model`, or replace a file by it, at once."""
    write_whole(path, proto.SerializeToString())


def borders(proto: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Name, dtype and shape of each input and of each output, as JSON values."""
    dtype_of = onnx_package("save_onnx").helper.tensor_dtype_to_np_dtype

    def described(value: Any) -> dict[str, Any]:
        kind = value.type.tensor_type
        sides = [side.dim_param or side.dim_value for side in kind.shape.dim]
        return {"name": value.name, "dtype": str(dtype_of(kind.elem_type)), "shape": sides}

    return [*map(described, proto.graph.input)], [*map(described, proto.graph.output)]


def onnx_model(
    model: Model,
    layout: Layout = "channels_last",
    of: Literal["predictions", "scores"] = "predictions",
) -> Any:
    """The model as an ``onnx.ModelProto``, which onnx's checker has passed.

    >>> import pytest
    >>> _ = pytest.importorskip("onnx")
    >>> from fastcnn import Sequential
    >>> from fastcnn.nn.layers import Dense
    >>> proto = onnx_model(Sequential([Dense(2)], (3,)), of="scores")
    >>> [node.op_type for node in proto.graph.node]
    ['Gemm']
    """
    if layout not in ("channels_last", "channels_first"):
        raise ValueError(
            f'layout must be "channels_last" or "channels_first", got {quoted(layout)}'
        )
    shapes = model._known_shapes()
    if model.dtype != np.float32:
        raise ValueError(
            f"the model must have the dtype float32, because runtimes have few operators of "
            f'{model.dtype}; a model of its layers with dtype="float32" is a copy that fits'
        )
    graph = graph_to(model, of)
    written = _Export(model, graph, shapes, layout)
    if written.graph.size > _LARGEST:
        raise ValueError(
            f"the model has {written.graph.size:,} bytes of weights, and an ONNX file holds "
            f"{_LARGEST:,}"
        )
    proto = written.proto()
    onnx = written.graph.onnx
    onnx.checker.check_model(proto, full_check=True)
    return proto


class _Export:
    """One model on its way into a file."""

    def __init__(self, model: Model, graph: Graph, shapes: Sequence[Shape], layout: Layout) -> None:
        self._model, self._shapes, self._layout = model, shapes, layout
        self.graph = OnnxGraph()
        self._input_names = model._input_names()
        self.graph.reserve(self._input_names)
        self._kinds = _kinds(model)
        self._values = [self._input(i) for i in range(len(shapes))]
        names = _names(graph, self._input_names)
        inferred = graph.infer(shapes)
        for node in graph.nodes:
            self.graph.layer, self.graph.owner = names[node.output], node.layer.name
            operands = [self._values[value] for value in node.inputs]
            self._values.append(
                write_layer(self.graph, node.layer, operands, inferred[node.output])
            )
        self._named = set[str]()
        self._outputs = [
            self._output(value, name)
            for value, name in zip(graph.outputs, model._output_names(), strict=True)
        ]

    def _input(self, i: int) -> Value:
        """An input, scaled where it takes bytes."""
        name, shape = self._input_names[i], self._shapes[i]
        graph = self.graph
        graph.layer = graph.owner = name
        last = len(shape) == 3 and self._layout == "channels_last"
        if self._kinds[i] == "uint8":
            name = graph.add("Cast", name, "float", to=graph.onnx.TensorProto.FLOAT)
            factor, subtrahend = self._model.scaling.factors(np.float32)
            if len(shape) == 3 and not last and factor.size + subtrahend.size > 2:
                factor, subtrahend = (one.reshape(-1, 1, 1) for one in (factor, subtrahend))
            name = graph.add("Mul", (name, graph.constant(factor, "share")), "share")
            name = graph.add("Sub", (name, graph.constant(subtrahend, "half")), "scaled")
        return Value(name, shape, channels_last=last)

    def _output(self, value: int, name: str) -> tuple[str, Shape]:
        """The name of an output, and its shape in the file without the batch."""
        graph, one = self.graph, self._values[value]
        graph.layer = graph.owner = name
        first = self._layout == "channels_first" and len(one.shape) == 3
        result = (graph.first(one) if first else graph.plain(one)).name
        if result != name:
            self._rename(name, graph.unique(f"{name}/inner"))
            if result in self._input_names or result in self._named:
                node = graph.onnx.helper.make_node("Identity", [result], [name], f"{name}/output")
                graph.nodes.append(node)
            else:
                self._rename(result, name)
        self._named.add(name)
        return name, self._border(one.shape)

    def _rename(self, old: str, new: str) -> None:
        """Give a value another name, wherever it is named."""
        for node in self.graph.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new
        self._values = [
            value._replace(name=new) if value.name == old else value for value in self._values
        ]
        self.graph.renamed(old, new)

    def _border(self, shape: Shape) -> Shape:
        """The shape of a sample at the border of the file."""
        if len(shape) == 3 and self._layout == "channels_first":
            return tuple(shape[axis - 1] for axis in TO_FIRST[1:])
        return shape

    def proto(self) -> Any:
        """The model as onnx holds it."""
        helper, kinds = self.graph.onnx.helper, self.graph.onnx.TensorProto

        def described(name: str, shape: Shape, kind: int) -> Any:
            return helper.make_tensor_value_info(name, kind, [_BATCH, *shape])

        inputs = [
            described(name, self._border(shape), kinds.UINT8 if kind == "uint8" else kinds.FLOAT)
            for name, shape, kind in zip(self._input_names, self._shapes, self._kinds, strict=True)
        ]
        outputs = [described(name, shape, kinds.FLOAT) for name, shape in self._outputs]
        graph = helper.make_graph(
            self.graph.nodes, "fastcnn", inputs, outputs, self.graph.initializers()
        )
        proto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="fastcnn",
            producer_version=__version__,
        )
        helper.set_model_props(proto, _metadata(self._model, self._layout, self._kinds))
        return proto


def _kinds(model: Model) -> list[str]:
    """For each input "uint8" or "float32"."""
    known: Any = model.trained_on
    kinds = known if isinstance(known, tuple) else (known,)
    return ["uint8" if kind == "uint8" else "float32" for kind in kinds]


def _names(graph: Graph, inputs: Sequence[str]) -> list[str]:
    """A name for each value: those of inputs and layers, with the call of a shared layer."""
    names, used = list[str](), set[str]()
    for described in value_names(graph, inputs):
        name = described.replace(", call ", "_call_")
        unique, number = name, 1
        while unique in used:
            number += 1
            unique = f"{name}_{number}"
        used.add(unique)
        names.append(unique)
    return names


def _metadata(model: Model, layout: Layout, kinds: Sequence[str]) -> dict[str, str]:
    """What the file says about the model beside its graph."""
    result: dict[str, str] = {"layout": layout}
    if "uint8" in kinds:
        result["bytes"] = str(model.scaling)
        result["scaling"] = json.dumps(model.scaling.as_dict())
    if model.preparation is not None:
        result["preparation"] = json.dumps(model.preparation.as_dict())
    if model.classes is not None:
        result["classes"] = json.dumps(list(model.classes))
    return result
