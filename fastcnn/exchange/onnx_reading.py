"""Reading of ONNX files into graphs of our own types, with every check that needs no computation.

Files may be hostile. :mod:`fastcnn.exchange.onnx_wire` limits what a file can become, and
:mod:`fastcnn.exchange.onnx_tensors` checks the sizes of its tensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.files import FilePath
from fastcnn.core.quoting import quoted
from fastcnn.core.reading import open_regular
from fastcnn.exchange.onnx_functions import FUNCTIONS, Array, OnnxFileError, OnnxNode
from fastcnn.exchange.onnx_functions.elementwise import dtype_named
from fastcnn.exchange.onnx_functions.nodes import Attribute, Branch
from fastcnn.exchange.onnx_tensors import MOST_AXES, tensor_array
from fastcnn.exchange.onnx_wire import split_off_tensors, walk

FIRST_OPSET = 7
MOST_NODES = 200_000
MOST_BYTES = (1 << 31) - 1  # of a file, as protobuf allows
_GRAPH_KIND = 5  # of an attribute that is a graph
_BRANCHES = ("then_branch", "else_branch")

Side = int | str | None
"""A side of a declared shape: a number, the name of a free size, or unknown."""


@dataclass(frozen=True)
class Declared:
    """An input or output as the file declares it.

    Attributes:
        name: its name.
        dtype: of its numbers.
        shape: its sides; None if the file does not say how many axes there are.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[Side, ...] | None


@dataclass
class OnnxGraph:
    """The graph of a file, whose nodes are in an order in which they can run.

    Attributes:
        inputs, outputs: as declared.
        constants: the arrays of the file by name.
        nodes: the calls of operators.
        opset: the version of the operators.
        producer: the program that wrote the file.
        metadata: what the file says beside its graph, by key.
    """

    inputs: list[Declared]
    outputs: list[Declared]
    constants: dict[str, Array]
    nodes: list[OnnxNode]
    opset: int
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def onnx_package() -> ModuleType:
    """The package ``onnx``; a ``ModuleNotFoundError`` that says how to install it."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'ONNX files need the package onnx: pip install "fastcnn[onnx]"', name="onnx"
        ) from None
    module: ModuleType = onnx
    return module


def read_onnx(path: FilePath) -> OnnxGraph:
    """The graph of a file.

    Raises:
        OnnxFileError: the file is no ONNX file, is damaged, or needs what fastcnn does not do.
        OSError: the file cannot be opened.
        ModuleNotFoundError: the package ``onnx`` is not installed.
    """
    onnx = onnx_package()
    name = os.fsdecode(path)
    with open_regular(name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise OnnxFileError(f"{quoted(name)} has {size:,} bytes, more than {MOST_BYTES:,}")
        data = file.read(MOST_BYTES + 1)
    try:
        return _graph(onnx, data, os.path.dirname(os.path.realpath(name)))
    except OnnxFileError as error:
        raise OnnxFileError(f"{quoted(name)}: {error}") from None


def _graph(onnx: ModuleType, data: bytes, folder: str) -> OnnxGraph:
    walk(data)
    model = onnx.ModelProto()
    try:
        rest, tensors = split_off_tensors(data)
        model.ParseFromString(rest)
        initializers = [(onnx.TensorProto.FromString(one.message), one) for one in tensors]
    except Exception as error:  # protobuf's versions raise errors of different classes
        raise OnnxFileError(f"it is no ONNX file: {quoted(str(error))}") from None
    graph = model.graph
    if not graph.node and not graph.output:
        raise OnnxFileError("it is no ONNX file, or its graph is empty")
    opset = _opset(onnx, model)
    graphs = list(_with_branches(graph))
    count = sum(len(one.node) for one in graphs)
    if count > MOST_NODES:
        raise OnnxFileError(f"it has {count:,} nodes, more than {MOST_NODES:,}")
    if any(len(one.sparse_initializer) for one in graphs):
        raise OnnxFileError("it has sparse tensors, which fastcnn does not read; make them dense")
    _check_operators([node for one in graphs for node in one.node])
    constants: dict[str, Array] = {}
    for tensor, own in initializers:
        if not tensor.name or tensor.name in constants:
            raise OnnxFileError(f"tensor {quoted(tensor.name)} has no name of its own")
        constants[tensor.name] = tensor_array(tensor, folder, own)
    inputs = [_declared(one, "input") for one in graph.input if one.name not in constants]
    outputs = [_declared(one, "output") for one in graph.output]
    context = _Context(opset, folder)
    nodes = [node for one in graph.node for node in _node(one, context, constants)]
    nodes = _in_order([one.name for one in inputs], constants, nodes)
    available = {*constants, *(one.name for one in inputs)}
    available.update(name for node in nodes for name in node.outputs)
    for one in outputs:
        if one.name not in available:
            raise OnnxFileError(f"output {quoted(one.name)} is made by no node")
    for kind, several in (("input", inputs), ("output", outputs)):
        if len({one.name for one in several}) < len(several):
            raise OnnxFileError(f"two {kind}s have one name")
    if not outputs:
        raise OnnxFileError("it has no outputs")
    metadata = {one.key: one.value for one in model.metadata_props}
    producer = model.producer_name[:200]
    return OnnxGraph(inputs, outputs, constants, nodes, opset, producer, metadata)


# --- nodes --------------------------------------------------------------------------------------


def _opset(onnx: ModuleType, model: Any) -> int:
    versions = {one.domain: one.version for one in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx"))
    newest = onnx.defs.onnx_opset_version()
    if opset is None:
        raise OnnxFileError("it does not say which version of the operators it uses")
    if not FIRST_OPSET <= opset <= newest:
        raise OnnxFileError(
            f"it uses version {opset} of the operators, and fastcnn reads {FIRST_OPSET} to {newest}"
            f"; convert it with onnx.version_converter"
        )
    return int(opset)


OPERATORS = {*FUNCTIONS, "Constant", "If"} - {"MatMulBias", "ScaleShift"}
"""Every operator that can be read."""


def _with_branches(graph: Any) -> Iterator[Any]:
    """The graph, and the branches of its If nodes, and of the nodes in these."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "If" else ():
            if attribute.type == _GRAPH_KIND:
                yield from _with_branches(attribute.g)


def _check_operators(nodes: Iterable[Any]) -> None:
    missing: dict[str, list[str]] = {}
    for one in nodes:
        known = one.domain in ("", "ai.onnx") and one.op_type in OPERATORS
        if not known:
            name = f"{one.domain}.{one.op_type}" if one.domain else one.op_type
            label = one.name or (one.output[0] if one.output else "")
            missing.setdefault(quoted(name), []).append(quoted(label))
    if not missing:
        return
    listing = [
        f"{name} (node {', '.join(labels[:3])}{' and more' if len(labels) > 3 else ''})"
        for name, labels in list(missing.items())[:50]
    ]
    raise OnnxFileError(f"fastcnn lacks these operators: {'; '.join(listing)}")


class _Context(NamedTuple):
    """Where a node stands: the version of its operators, the folder of its file, and a prefix.

    The prefix sets the names of a branch's values apart from all others.
    """

    opset: int
    folder: str
    prefix: str = ""


def _node(one: Any, context: _Context, constants: dict[str, Array]) -> Iterator[OnnxNode]:
    """A node as our own type; a constant goes to ``constants`` instead."""
    label = f"node {quoted(one.name or (one.output[0] if one.output else ''))} ({one.op_type})"
    attributes: dict[str, Attribute] = {}
    tensors: dict[str, Array] = {}
    graphs: dict[str, Any] = {}
    for attribute in one.attribute:
        kind = attribute.type
        if any(attribute.name in several for several in (attributes, tensors, graphs)):
            raise OnnxFileError(f"{label} has two attributes {quoted(attribute.name)}")
        if kind == 4:
            tensors[attribute.name] = tensor_array(attribute.t, context.folder)
        elif kind == _GRAPH_KIND and one.op_type == "If":
            graphs[attribute.name] = attribute.g
        elif kind in _READERS and not attribute.ref_attr_name:
            attributes[attribute.name] = _READERS[kind](attribute)
        else:
            raise OnnxFileError(f"{label}: {quoted(attribute.name)} is of a kind it cannot have")
    inputs, outputs = list(one.input), list(one.output)
    if not outputs or (one.op_type != "Split" and not any(outputs)):
        raise OnnxFileError(f"{label} has no outputs")
    if one.op_type == "If":
        if set(graphs) != set(_BRANCHES) or attributes or tensors:
            raise OnnxFileError(f"{label} must have the branches then_branch and else_branch")
        yield _conditional(one, label, graphs, context, constants)
        return
    if one.op_type == "Constant":
        if outputs[0] in constants:
            raise OnnxFileError(f"{label} makes {quoted(outputs[0])}, which is there already")
        constants[outputs[0]] = _constant(label, attributes, tensors)
        return
    least, most = _number_of_inputs(one.op_type, context.opset)
    if not least <= len(inputs) <= most:
        expected = str(least) if least == most else f"{least} to {most}"
        raise OnnxFileError(f"{label}: the number of inputs must be {expected}, got {len(inputs)}")
    if one.op_type == "ConstantOfShape" and "value" in tensors:
        name = f"{outputs[0]}:value"
        while name in constants:
            name += "'"
        constants[name] = tensors.pop("value")
        inputs.append(name)
    if tensors:
        raise OnnxFileError(f"{label}: {quoted(min(tensors))} is of a kind it cannot have")
    yield OnnxNode(one.op_type, one.name, tuple(inputs), tuple(outputs), attributes, context.opset)


@cache
def _number_of_inputs(operator: str, opset: int) -> tuple[int, int]:
    """The least and the largest number of inputs of an operator in a version of the operators."""
    defs = onnx_package().defs
    try:
        schema = defs.get_schema(operator, opset, "")
    except defs.SchemaError:  # a file may use an operator that its version does not have yet
        return 0, MOST_NODES
    return schema.min_input, schema.max_input


def _conditional(
    one: Any, label: str, graphs: dict[str, Any], context: _Context, constants: dict[str, Array]
) -> OnnxNode:
    """An If, whose branches take the values around it as inputs of the node."""
    if len(one.input) != 1:
        raise OnnxFileError(f"{label} must have one input, the condition")
    key = context.prefix + next(filter(None, one.output))
    branches, around = [], dict[str, None]()
    for kind in _BRANCHES:
        inner = context._replace(prefix=f"{key}/{kind}/")
        branch = _branch(graphs[kind], label, len(one.output), inner, constants)
        around.update(dict.fromkeys(branch.arguments))
        branches.append(branch)
    several = []
    for kind, branch in zip(_BRANCHES, branches, strict=True):
        names = {name: f"{key}/{kind}:{name}" for name in around}
        branch = replace(branch, arguments=tuple(around))
        several.append(_branch_with_names(branch, names))
    inputs, outputs = (one.input[0], *around), tuple(one.output)
    return OnnxNode("If", one.name, inputs, outputs, {}, context.opset, tuple(several))


def _branch(
    graph: Any, label: str, outputs: int, context: _Context, constants: dict[str, Array]
) -> Branch:
    """A branch, whose arguments are the names of the values around it that it takes.

    Its own values get the prefix of ``context``, and its constants go to ``constants``.
    """
    if len(graph.input) or len(graph.output) != outputs:
        raise OnnxFileError(f"{label}: a branch must have no inputs, and {outputs} outputs")
    inner = dict[str, Array]()
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in inner:
            raise OnnxFileError(f"tensor {quoted(tensor.name)} has no name of its own")
        inner[tensor.name] = tensor_array(tensor, context.folder)
    nodes = [node for one in graph.node for node in _node(one, context, inner)]
    own_names = {*inner, *(name for node in nodes for name in node.outputs if name)}
    results = tuple(one.name for one in graph.output)
    names_read = (*(name for node in nodes for name in node.inputs if name), *results)
    around = tuple(dict.fromkeys(name for name in names_read if name not in own_names))
    branch = Branch(around, tuple(_in_order(around, inner, nodes)), results)
    names = {name: context.prefix + name for name in own_names}
    for name, array in inner.items():
        if names[name] in constants:
            raise OnnxFileError(f"{label} makes {quoted(names[name])}, which is there already")
        constants[names[name]] = array
    return _branch_with_names(branch, names)


def _branch_with_names(branch: Branch, names: Mapping[str, str]) -> Branch:
    """A branch whose values have other names."""

    def renamed(several: Iterable[str]) -> tuple[str, ...]:
        return tuple(names.get(name, name) for name in several)

    nodes = tuple(
        replace(
            node,
            inputs=renamed(node.inputs),
            outputs=renamed(node.outputs),
            branches=tuple(_branch_with_names(inner, names) for inner in node.branches),
        )
        for node in branch.nodes
    )
    return Branch(renamed(branch.arguments), nodes, renamed(branch.outputs))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _number(single: float) -> float:
    """The shortest number that a float32 stands for, such as 0.001."""
    return float(str(np.float32(single)))


_READERS: dict[int, Any] = {
    1: lambda a: _number(a.f),
    2: lambda a: int(a.i),
    3: lambda a: _text(a.s),
    6: lambda a: [_number(one) for one in a.floats],
    7: lambda a: [int(one) for one in a.ints],
    8: lambda a: [_text(one) for one in a.strings],
}


def _constant(label: str, attributes: dict[str, Attribute], tensors: dict[str, Array]) -> Array:
    if "value" in tensors and len(tensors) == 1 and not attributes:
        return tensors["value"]
    kinds = {
        "value_float": np.float32, "value_floats": np.float32,
        "value_int": np.int64, "value_ints": np.int64,
    }  # fmt: skip
    if len(attributes) == 1 and not tensors:
        ((name, value),) = attributes.items()
        if name in kinds:
            return np.asarray(value, kinds[name])
    raise OnnxFileError(f"{label} holds no tensor of numbers")


def _declared(info: Any, what: str) -> Declared:
    if info.type.WhichOneof("value") != "tensor_type":
        raise OnnxFileError(f"{what} {quoted(info.name)} is no tensor, which is all fastcnn takes")
    declared = info.type.tensor_type
    kind = dtype_named(declared.elem_type)
    if kind is None:
        raise OnnxFileError(
            f"{what} {quoted(info.name)} has the element type {declared.elem_type}, which fastcnn "
            f"does not take"
        )
    if not declared.HasField("shape"):
        return Declared(info.name, kind, None)
    sides: list[Side] = []
    for dim in declared.shape.dim:
        if dim.HasField("dim_value"):
            sides.append(int(dim.dim_value) if dim.dim_value >= 0 else None)
        else:
            sides.append(dim.dim_param or None)
    if len(sides) > MOST_AXES:
        raise OnnxFileError(f"{what} {quoted(info.name)} has {len(sides)} axes")
    return Declared(info.name, kind, tuple(sides))


def _in_order(
    inputs: Iterable[str], constants: dict[str, Array], nodes: list[OnnxNode]
) -> list[OnnxNode]:
    """The nodes, each behind those that it takes values of."""
    maker: dict[str, int] = {}
    start = {*inputs, *constants}
    for i, node in enumerate(nodes):
        for name in filter(None, node.outputs):
            if name in maker or name in start:
                raise OnnxFileError(f"{node} makes {quoted(name)}, which is there already")
            maker[name] = i
    users: dict[int, list[int]] = {}
    missing = [0] * len(nodes)
    for i, node in enumerate(nodes):
        for name in set(filter(None, node.inputs)):
            if name in maker:
                users.setdefault(maker[name], []).append(i)
                missing[i] += 1
            elif name not in start:
                raise OnnxFileError(f"{node} takes {quoted(name)}, which nothing makes")
    ready = [i for i in reversed(range(len(nodes))) if not missing[i]]
    result: list[OnnxNode] = []
    while ready:
        i = ready.pop()
        result.append(nodes[i])
        for user in reversed(users.get(i, [])):
            missing[user] -= 1
            if not missing[user]:
                ready.append(user)
    if len(result) < len(nodes):
        stuck = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise OnnxFileError(f"{stuck} is part of a cycle")
    return result
