"""How the nodes of an ONNX graph become calls of layers, for inputs of known shapes.

A trace goes through the nodes once. All shapes are numbers by then, so the arithmetic on shapes
folds like any other arithmetic on constants.

**Values.** A value of a trace is a constant, or a tensor of a graph of layers. Its axes may lie in
another order than in the file: a Transpose only notes the new order, and images lie as NHWC from
one layer to the next. The axis of the batch is the first of a layer's arrays, wherever it is in the
file. A layer that permutes axes is put in only where a consumer needs an order.

**Batches.** In a batched trace the first axis of each input is that of the batch, and nothing mixes
samples. Where something does, :class:`NotBatched` is raised. In a whole trace the batch is an axis
like any other: the layers see one sample, which is the whole input. A single sample can change from
one to the other, because an axis of one number can be added and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from fastcnn.exchange.onnx_functions import FUNCTIONS, Array, OnnxFileError, OnnxNode
from fastcnn.exchange.onnx_functions.moving import MOST_BYTES
from fastcnn.exchange.onnx_functions.nodes import Branch, uses_of, with_branches
from fastcnn.exchange.onnx_operation import MOST_NUMBERS, OnnxOperation, Source
from fastcnn.exchange.onnx_reading import OnnxGraph
from fastcnn.exchange.onnx_store import LayerStore, NeedsWeights
from fastcnn.models.graph import Graph, between
from fastcnn.nn.layers import Flatten, Layer, Permute, Reshape, Shape, Tensor


class NeedsInputs(Exception):
    """A shape depends on the numbers of inputs, whose names are ``names``."""

    def __init__(self, names: set[str]) -> None:
        super().__init__(names)
        self.names = names


class NotBatched(Exception):
    """Something mixes the samples of a batch, so the graph must run as a whole."""


@dataclass(frozen=True)
class Value:
    """A value of a trace.

    Attributes:
        shape: as in the file, with the batch.
        dtype: as in the file.
        constant: the array, if it is known.
        tensor: else the tensor of the graph of layers, whose shape is that of a sample.
        axes: for each axis of a sample the axis in the file.
        batch: the axis of the batch in the file, or None if it has none.
        merged: for a vector of features, the shape that was flattened and the order in which its
            axes lie, where it is not the file's.
    """

    shape: Shape
    dtype: np.dtype[np.generic]
    constant: Array | None = None
    tensor: Tensor | None = None
    axes: tuple[int, ...] = ()
    batch: int | None = None
    merged: tuple[Shape, tuple[int, ...]] | None = None

    @property
    def rank(self) -> int:
        """The number of axes in the file."""
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the numbers are floats."""
        return self.dtype.kind == "f" or self.dtype.name == "bfloat16"

    def place(self, axis: int) -> int:
        """The axis of a sample that an axis of the file is."""
        return self.axes.index(axis)


def constant(array: Array) -> Value:
    """A value that is known."""
    return Value(array.shape, array.dtype, array)


class Trace:
    """One way through the nodes of a graph, for inputs of known shapes."""

    def __init__(
        self,
        graph: OnnxGraph,
        shapes: Sequence[Shape],
        store: LayerStore,
        *,
        batched: bool,
        channels_last: bool,
        known_inputs: dict[str, Array],
    ) -> None:
        self.graph, self.store, self.batched = graph, store, batched
        self.single = not batched or all(shape[0] == 1 for shape in shapes)
        self.uses = uses_of(graph.nodes)
        self.uses.update(one.name for one in graph.outputs)
        self.values: dict[str, Value] = {"": constant(np.zeros(0, np.float32))}
        self.tensors: list[Tensor] = []
        self.input_shapes: list[Shape] = []
        for name, array in graph.constants.items():
            self.values[name] = constant(array)
        for declared, shape in zip(graph.inputs, shapes, strict=True):
            if declared.name in known_inputs:
                self.values[declared.name] = constant(known_inputs[declared.name])
                self.tensors.append(Tensor((1,)))
                continue
            self._begin(declared.name, declared.dtype, shape, channels_last)
        self._run(graph.nodes)

    def _begin(
        self, name: str, dtype: np.dtype[np.generic], shape: Shape, channels_last: bool
    ) -> None:
        axes = tuple(range(len(shape)))
        batch: int | None = None
        if self.batched:
            axes, batch = axes[1:], 0
            if channels_last and len(shape) == 4:
                axes = (2, 3, 1)
        tensor = Tensor(tuple(shape[i] for i in axes) or (1,), name=name)
        self.tensors.append(tensor)
        self.values[name] = Value(shape, dtype, None, tensor, axes, batch)

    def _run(self, nodes: Iterable[OnnxNode]) -> None:
        for node in nodes:
            try:
                self._node(node)
            except (NotBatched, NeedsInputs, NeedsWeights, OnnxFileError):
                raise
            except _UNFIT as error:  # inputs that a node lacks, or of another kind
                raise node.error(f"does not fit its inputs: {error}") from None

    def _node(self, node: OnnxNode) -> None:
        inputs = [self.values[name] if name else None for name in node.inputs]
        results: Sequence[Value] | None = None
        if node.branches:
            results = self._conditional(node, [needs(one) for one in inputs])
        elif _is_known(node, inputs):
            results = self.fold(node, inputs)
        if results is None:
            emitter = EMITTERS.get(node.operator)
            try:
                results = None if emitter is None else emitter(self, node, inputs)
            except NotBatched:
                if not self.single:
                    raise
            if results is None:
                results = self.operation(node, inputs)
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                self.values[name] = value
        for name in node.outputs:
            if name and name not in self.values:
                raise node.error(f"has no output {name!r} in prediction")

    def _conditional(self, node: OnnxNode, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of an If: of one branch, or of both, of which each number is chosen.

        Both run where the condition follows from numbers of the inputs, and the branches have
        outputs of one shape. Inputs of integers are settings, so their numbers must be known.
        """
        condition, *rest = inputs
        if prod(condition.shape) != 1:
            if condition.batch is not None and not self.single:
                raise NotBatched
            raise node.error(f"the condition must be one number, got shape {condition.shape}")
        if condition.constant is not None:
            return self._branch(node.branches[0 if condition.constant.all() else 1], rest)
        names = self._inputs_behind(node.inputs[:1])
        kinds = {one.name: one.dtype.kind for one in self.graph.inputs}
        if not self.single:
            raise NotBatched
        if all(kinds[name] in "iub" for name in names):
            raise NeedsInputs(names)
        try:
            first, second = (self._branch(branch, rest) for branch in node.branches)
        except (NotBatched, OnnxFileError):
            raise NeedsInputs(names) from None
        if any(
            (a.shape, a.dtype) != (b.shape, b.dtype) for a, b in zip(first, second, strict=True)
        ):
            raise NeedsInputs(names)
        choice = OnnxNode("Where", node.name, ("c", "a", "b"), ("y",), {}, node.opset)
        self.uses["y"] += 1
        one = OnnxNode("Reshape", node.name, ("c", "s"), ("y",), {}, 13)
        (scalar,) = self.operation(one, [condition, constant(np.zeros(0, np.int64))])
        return [
            self.operation(choice, [scalar, a, b])[0] for a, b in zip(first, second, strict=True)
        ]

    def _branch(self, branch: Branch, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a branch of an If."""
        self.values.update(zip(branch.arguments, inputs, strict=True))
        self._run(branch.nodes)
        return [self.values[name] for name in branch.outputs]

    def fold(self, node: OnnxNode, inputs: Sequence[Value | None]) -> list[Value]:
        """The results of a node whose inputs are known."""
        if node.operator in ("Shape", "Size"):
            assert inputs[0] is not None
            dummy = np.broadcast_to(np.zeros((), np.bool_), inputs[0].shape)
            arrays: list[Array | None] = [dummy]
        elif node.operator == "CastLike":
            like = needs(inputs[1])
            arrays = [needs(inputs[0]).constant, np.zeros((), like.dtype)]
        else:
            arrays = [None if one is None else one.constant for one in inputs]
        with np.errstate(all="ignore"):
            try:
                results = FUNCTIONS[node.operator](node, *arrays)
            except OnnxFileError:
                raise
            except (ValueError, TypeError, IndexError, MemoryError, OverflowError) as error:
                raise node.error(f"does not fit its inputs: {error}") from None
        several = results if isinstance(results, tuple) else (results,)
        return [constant(np.asarray(one)) for one in several]

    # --- layers ---------------------------------------------------------------------------------

    def call(self, layer: Layer, *inputs: Tensor) -> Tensor:
        """The tensor of a layer's call; the layer is built for it."""
        tensor = layer(list(inputs) if layer.takes_several else inputs[0])
        if prod(tensor.shape) > MOST_BYTES:
            raise OnnxFileError(f"the result of {layer!r} of shape {tensor.shape} is too large")
        if layer.input_shape is None:
            shapes = tuple(one.shape for one in inputs)
            layer.build(
                shapes if layer.takes_several else shapes[0],  # type: ignore[arg-type]
                np.random.default_rng(0),
                self.store.dtype,
            )
        return tensor

    def shaped(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The same numbers in another shape; () is stored as (1,)."""
        shape = shape or (1,)
        while isinstance(tensor.layer, Flatten | Reshape):  # which move no number
            (tensor,) = tensor.inputs
        if tensor.shape == shape:
            return tensor
        layer: Layer = Flatten() if len(shape) == 1 else Reshape(shape)
        if 0 in shape:
            raise NotBatched
        return self.call(layer, tensor)

    def plain(self, value: Value) -> Value:
        """The value without ``merged``: its features in the order of the file."""
        if value.merged is None:
            return value
        assert value.tensor is not None
        shape, order = value.merged
        tensor = self.shaped(value.tensor, tuple(shape[i] for i in order))
        back = tuple(order.index(i) for i in range(len(shape)))
        tensor = self.shaped(self.permuted(tensor, back), value.tensor.shape)
        return replace(value, tensor=tensor, merged=None)

    def permuted(self, tensor: Tensor, order: tuple[int, ...]) -> Tensor:
        """The axes of a sample in another order; only a new shape where no number moves."""
        shape = tuple(tensor.shape[i] for i in order)
        long = [i for i in order if tensor.shape[i] > 1]
        if long == sorted(long):
            return self.shaped(tensor, shape)
        return self.call(Permute([i + 1 for i in order]), tensor)

    def laid_out(self, value: Value, axes: tuple[int, ...]) -> Value:
        """The value with the axes of a sample in this order."""
        value = self.plain(value)
        if value.axes == axes:
            return value
        assert value.tensor is not None
        order = tuple(value.axes.index(axis) for axis in axes)
        return replace(value, tensor=self.permuted(value.tensor, order), axes=axes)

    def canonical(self, value: Value) -> Value:
        """The value with its axes in the order of the file, but for the batch, which is first."""
        return self.laid_out(value, tuple(i for i in range(value.rank) if i != value.batch))

    def image(self, value: Value) -> Value | None:
        """A value (N, C, H, W) as images (H, W, C); None if the batch is not its first axis."""
        if value.rank != 4:
            return None
        if value.batch is None and value.shape[0] == 1 and self.single:
            value = self.canonical(value)
            assert value.tensor is not None
            tensor = self.shaped(value.tensor, value.shape[1:])
            value = replace(value, tensor=tensor, axes=(1, 2, 3), batch=0)
        return self.laid_out(value, (2, 3, 1)) if value.batch == 0 else None

    def without_batch(self, value: Value) -> Value:
        """A value of a single sample as one without an axis of the batch."""
        if value.batch is None or value.constant is not None:
            return value
        value = self.canonical(value)
        assert value.tensor is not None
        tensor = self.shaped(value.tensor, value.shape)
        return replace(value, tensor=tensor, axes=tuple(range(value.rank)), batch=None)

    def operation(
        self,
        node: OnnxNode,
        inputs: Sequence[Value | None],
        *,
        batch: int | None = None,
        free_layout: bool = False,
    ) -> list[Value]:
        """A node as :class:`OnnxOperation`, one for each output that something takes.

        ``batch`` is the axis of the batch in the outputs; None runs a single sample as a whole.
        With ``free_layout`` the operator works on arrays in any order of axes, which are those of
        the first tensor among the inputs.
        """
        if batch is None:
            if not self.single:
                raise NotBatched
            inputs = [None if one is None else self.without_batch(one) for one in inputs]
        sources, tensors, dummies = list[Source](), list[Tensor](), list[Array | None]()
        state: dict[str, Array] = {}
        layout: tuple[int, ...] | None = None
        for i, value in enumerate(inputs):
            if value is None:
                sources.append(Source())
                dummies.append(None)
            elif value.constant is not None:
                self.store.check(value.constant)
                sources.append(_constant_source(value.constant, self.store.dtype))
                dummies.append(value.constant)
                if sources[-1].kind == "array":
                    state[f"constant_{i}"] = value.constant
            else:
                value = self.plain(value)
                assert value.tensor is not None
                stored = value.axes if value.batch is None else (value.batch, *value.axes)
                order = None
                if free_layout:
                    layout = layout or stored
                    order = tuple(range(len(stored))) if not value.axes else None
                elif not value.axes or stored != tuple(range(value.rank)):
                    order = tuple(stored.index(axis) for axis in range(value.rank))
                sources.append(Source("input", value.dtype.name, (), (), order))
                tensors.append(value.tensor)
                shape = tuple(value.shape[i] for i in stored) if free_layout else value.shape
                dummies.append(np.broadcast_to(np.ones((), value.dtype), shape))
        unknown = {i for i, one in enumerate(inputs) if one is not None and one.constant is None}
        outputs = self._outputs_for(node, dummies, unknown)
        results = list[Value]()
        for i, output in enumerate(outputs):
            is_used = i < len(node.outputs) and node.outputs[i] and self.uses[node.outputs[i]]
            if not is_used:
                results.append(constant(np.zeros(0)))
                continue
            axes = tuple(axis for axis in range(output.ndim) if axis != batch)
            order = None
            shape = output.shape
            if free_layout and layout is not None:
                back = tuple(layout.index(axis) for axis in range(len(layout)))
                shape = tuple(output.shape[i] for i in back)
                axes = tuple(axis for axis in layout if axis != batch)
                sample = (output.shape if batch is None else output.shape[1:]) or (1,)
            else:
                stored = axes if batch is None else (batch, *axes)
                order = None if stored == tuple(range(output.ndim)) else stored
                sample = tuple(output.shape[axis] for axis in axes) or (1,)
            layer = OnnxOperation(
                node.operator, dict(node.attributes), node.opset, max(1, len(node.outputs)), i,
                sources, [one.shape for one in tensors], sample, order, batch is None,
                node.name or next(filter(None, node.outputs), ""),
            )  # fmt: skip
            layer.build(
                tuple(one.shape for one in tensors),  # type: ignore[misc]
                np.random.default_rng(0),
                self.store.dtype,
            )
            for name, array in state.items():
                layer.state[name][...] = array
            tensor = layer(tensors)
            results.append(Value(shape, output.dtype, None, tensor, axes, batch))
        return results

    def _outputs_for(
        self, node: OnnxNode, dummies: Sequence[Array | None], unknown: set[int]
    ) -> list[Array]:
        """The outputs for inputs of ones, which tell the shapes and the types."""
        for one in dummies:  # a function of NumPy goes through them
            if one is not None and one.size * 4 > MOST_BYTES:
                raise node.error(f"an input of shape {one.shape} is too large")
        if node.operator in _DATA_DEPENDENT:
            place = _DATA_DEPENDENT[node.operator]
            if any(i >= place for i in unknown):
                raise NeedsInputs(self._inputs_behind(node.inputs[place:]))
        if node.operator in _TAKE_INDICES and 1 in unknown and dummies[1] is not None:
            zeros = np.broadcast_to(np.zeros((), dummies[1].dtype), dummies[1].shape)
            dummies = [dummies[0], zeros, *dummies[2:]]
        with np.errstate(all="ignore"):
            try:
                results = FUNCTIONS[node.operator](node, *dummies)
            except OnnxFileError:
                raise
            except (ValueError, TypeError, IndexError, MemoryError) as error:
                raise node.error(f"does not fit its inputs: {error}") from None
        return list(results) if isinstance(results, tuple) else [results]

    def _inputs_behind(self, names: Sequence[str]) -> set[str]:
        """The inputs of the file that values are computed from."""
        sources: dict[str, Sequence[str]] = {}
        for node in with_branches(self.graph.nodes):
            sources.update((name, node.inputs) for name in node.outputs)
            for branch in node.branches:
                arguments = zip(branch.arguments, node.inputs[1:], strict=True)
                sources.update((name, (source,)) for name, source in arguments)
        inputs = {one.name for one in self.graph.inputs}
        seen, waiting = set[str](), list(names)
        while waiting:
            name = waiting.pop()
            if name and name not in seen:
                seen.add(name)
                waiting += sources.get(name, ())
        return seen & inputs

    # --- the end --------------------------------------------------------------------------------

    def finished(self, channels_last: bool) -> tuple[Graph, list[Value], list[int]]:
        """The graph of layers, the outputs of the file, and the numbers of the inputs it takes.

        The axes of each output are in the file's order, but for the batch, which is first;
        with ``channels_last`` images are NHWC.
        """
        outputs = list[Value]()
        ends: dict[int, Tensor] = {}
        for declared in self.graph.outputs:
            value = self.values[declared.name]
            if value.constant is None:
                if channels_last and value.rank == 4 and value.batch == 0:
                    value = self.laid_out(value, (2, 3, 1))
                else:
                    value = self.canonical(value)
                assert value.tensor is not None
                if value.tensor.layer is None or id(value.tensor) in ends:
                    value = self.copied(value)
                assert value.tensor is not None
                ends[id(value.tensor)] = value.tensor
            outputs.append(value)
        needed_values = _needed(ends.values())
        used = [i for i, tensor in enumerate(self.tensors) if id(tensor) in needed_values]
        graph = between([self.tensors[i] for i in used], list(ends.values()))
        return graph, outputs, used

    def copied(self, value: Value) -> Value:
        """The result of a layer that returns the value."""
        node = OnnxNode("Identity", "", ("x",), ("y",))
        self.uses["y"] += 1
        if value.batch is None:
            return self.operation(node, [value])[0]
        return self.operation(node, [value], batch=value.batch, free_layout=True)[0]


_UNFIT = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, TypeError,
    ValueError,
)  # fmt: skip


def _needed(tensors: Any) -> set[int]:
    needed, waiting = set[int](), list(tensors)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in needed:
            needed.add(id(tensor))
            waiting += tensor.inputs
    return needed


def _is_known(node: OnnxNode, inputs: Sequence[Value | None]) -> bool:
    if node.operator in ("Shape", "Size"):
        return True
    if node.operator == "CastLike":
        return inputs[0] is not None and inputs[0].constant is not None
    return all(one is None or one.constant is not None for one in inputs)


_DATA_DEPENDENT = {
    "Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Range": 0, "Tile": 1, "Slice": 1, "Pad": 1,
    "Squeeze": 1, "Unsqueeze": 1, "Split": 1, "Resize": 1, "Upsample": 1, "ReduceSum": 1,
    "ReduceMean": 1, "ReduceMax": 1, "ReduceMin": 1, "ReduceL2": 1,
    "ReduceProd": 1, "Dropout": 1,
}  # fmt: skip
"""Operators whose inputs from a place on say what shape the result has."""


_TAKE_INDICES = frozenset(("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"))
"""Operators whose second input holds indices, of which 1 may be too large."""


def _constant_source(array: Array, dtype: np.dtype[Any]) -> Source:
    """Where a layer keeps a constant: in its description, or as an array of its state."""
    fits = array.dtype in (np.float16, np.float32) or array.dtype == dtype
    finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    if array.dtype.kind == "f" and fits and (array.size > 64 or not finite) and array.size:
        return Source("array", array.dtype.name, array.shape)
    if array.size > MOST_NUMBERS * 256:
        raise OnnxFileError(f"a constant of {array.size:,} integers is too large")
    return Source("values", array.dtype.name, array.shape, tuple(array.reshape(-1).tolist()))


Emitter = Callable[[Trace, OnnxNode, "Sequence[Value | None]"], "list[Value] | None"]
EMITTERS: dict[str, Emitter] = {}
"""What makes layers of a node, or returns None where the node runs as a whole."""


def emits(*operators: str) -> Callable[[Emitter], Emitter]:
    """Enter a function into :data:`EMITTERS`."""

    def enter(emitter: Emitter) -> Emitter:
        EMITTERS.update(dict.fromkeys(operators, emitter))
        return emitter

    return enter


def needs(value: Value | None) -> Value:
    """The value, which the operator cannot do without."""
    if value is None:
        raise OnnxFileError("an input is missing")
    return value


def known(value: Value | None) -> Array | None:
    """The array of a value; None if it is left out or not known."""
    return None if value is None else value.constant


def fits_memory(node: OnnxNode, shape: Shape) -> None:
    """Raise an error for a result that is too large."""
    if prod(shape) * 4 > 4 * MOST_BYTES:
        raise node.error(f"the result of shape {shape} is too large")
