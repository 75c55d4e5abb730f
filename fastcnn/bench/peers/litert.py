"""LiteRT with its kernels of XNNPACK, on models that are written here; for inference only.

A model is a flatbuffer of TensorFlow Lite's schema. The package has the schema's classes, so
nothing else is needed to write one. Its images are NHWC as fastcnn's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from fastcnn.bench.contest import Runner, Skipped
from fastcnn.bench.nets import NetTask, Part, parts
from fastcnn.bench.standard import StandardTask
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.proof.problems import Problem

FAMILY = "LiteRT"
_VERSION = 3  # of the schema
_threads = 1
_codes = schema.BuiltinOperator
_kinds = schema.BuiltinOptions
_RELU = schema.ActivationFunctionType.RELU
_NONE = schema.ActivationFunctionType.NONE
Sides = tuple[int, int, int, int]
"""Padding as (top, bottom, left, right)."""


def set_threads(n: int) -> None:
    """Let new models use ``n`` threads."""
    global _threads
    _threads = n


def net_runners(task: NetTask | StandardTask, compiled: bool) -> Iterator[Runner | Skipped]:
    """The net's inference; training is skipped."""
    if isinstance(task, StandardTask):
        yield Skipped(FAMILY, "it is taught nets in a row alone here")
        return
    if task.mode != "predict":
        raise NotImplementedError("it does inference alone")
    graph = Graph([task.x.shape])
    for part in parts(task.model()):
        graph.layer(part)
    graph.softmax()
    yield _runner(graph, [task.x])


def operation_runners(
    problem: Problem, arrays: dict[str, Array], compiled: bool
) -> Iterator[Runner | Skipped]:
    """One operation, forward; filters and weights are constants of the model."""
    if "gradient" in problem.op or "backward" in problem.op:
        raise NotImplementedError("it does inference alone")
    g = problem.geometry
    weights = () if problem.op == "add" else ("w", "b")
    inputs = [array for name, array in arrays.items() if name not in weights]
    graph = Graph([array.shape for array in inputs])
    if isinstance(g, ConvGeometry):
        sides = (g.pad_top, g.pad_bottom, g.pad_left, g.pad_right)
        part = Part("conv", arrays["w"], arrays["b"], (g.stride_h, g.stride_w), sides)
        graph.convolution(part, g.groups)
    elif isinstance(g, PoolGeometry):
        sides = (g.pad_top, g.pad_bottom, g.pad_left, g.pad_right)
        is_max = problem.op.startswith("max")
        graph.pooling((g.kh, g.kw), (g.stride_h, g.stride_w), sides, is_max)
    elif problem.op == "dense":
        graph.dense(Part("dense", arrays["w"], arrays["b"]))
    elif problem.op == "relu":
        graph.operator(_codes.RELU, _kinds.NONE, None, graph.shape)
    elif problem.op == "softmax":
        graph.softmax()
    elif problem.op == "add":
        options = schema.AddOptionsT()
        graph.operator(_codes.ADD, _kinds.AddOptions, options, graph.shape, graph.inputs[1:])
    else:
        raise NotImplementedError(f"it is not taught {problem.op} here")
    yield _runner(graph, inputs)


class Graph:
    """A builder of a model, a row of operators that each take the last operator's output.

    Attributes:
        inputs: the indices of the input tensors.
        last: the index of the last operator's output.
        shape: the shape of this output.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._tensors: list[schema.TensorT] = []
        self._buffers = [schema.BufferT()]  # the first is that of tensors without constant numbers
        self._codes: list[int] = []
        self._operators: list[schema.OperatorT] = []
        self.inputs = [self._tensor(shape) for shape in shapes]
        self.last, self.shape = self.inputs[0], tuple(shapes[0])

    def _tensor(self, shape: Sequence[int], array: Array | None = None) -> int:
        tensor = schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = schema.TensorType.FLOAT32
        tensor.name = f"t{len(self._tensors)}".encode()
        tensor.buffer = 0
        if array is not None:
            if array.dtype == np.int32:
                tensor.type = schema.TensorType.INT32
            data = schema.BufferT()
            data.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(data)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(self, array: Array) -> int:
        """Add a constant array to the model, and return its index."""
        return self._tensor(array.shape, array)

    def operator(
        self,
        code: int,
        kind: int,
        options: object,
        shape: tuple[int, ...],
        more: Sequence[int] = (),
    ) -> None:
        """Add an operator that takes the last output and ``more``, and gives ``shape``."""
        if code not in self._codes:
            self._codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.index(code)
        operator.inputs = np.array([self.last, *more], np.int32)
        self.last, self.shape = self._tensor(shape), shape
        operator.outputs = np.array([self.last], np.int32)
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        self._operators.append(operator)

    def layer(self, part: Part) -> None:
        """Add a layer of a net."""
        if part.kind == "conv":
            self.convolution(part)
        elif part.kind == "pool":
            self.pooling(part.size, part.size, (0, 0, 0, 0), is_max=True)
        elif part.kind == "flatten":
            shape = (self.shape[0], int(np.prod(self.shape[1:])))
            options = schema.ReshapeOptionsT()
            options.newShape = list(shape)
            more = [self.constant(np.array(shape, np.int32))]
            self.operator(_codes.RESHAPE, _kinds.ReshapeOptions, options, shape, more)
        else:
            self.dense(part)

    def convolution(self, part: Part, groups: int = 1) -> None:
        """Add a convolution with constant filters; with groups, one of one channel each."""
        assert part.w is not None
        kh, kw, ic, oc = part.w.shape
        b = np.zeros(oc, np.float32) if part.b is None else part.b
        sides = self._sides_left((kh, kw), part.stride, part.padding, 0.0)
        if groups == 1:
            options, code, kind = schema.Conv2DOptionsT(), _codes.CONV_2D, _kinds.Conv2DOptions
            w = part.w.transpose(3, 0, 1, 2)
        elif ic == 1:
            options, code = schema.DepthwiseConv2DOptionsT(), _codes.DEPTHWISE_CONV_2D
            kind = _kinds.DepthwiseConv2DOptions
            options.depthMultiplier = oc // groups
            w = part.w.transpose(2, 0, 1, 3)
        else:
            raise NotImplementedError("groups of several channels are not among its operators")
        options.padding = sides
        options.strideH, options.strideW = part.stride
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = _RELU if part.relu else _NONE
        shape = (*self._windows((kh, kw), part.stride, sides), oc)
        self.operator(code, kind, options, shape, [self.constant(w), self.constant(b)])

    def pooling(
        self, size: tuple[int, int], stride: tuple[int, int], padding: Sides, is_max: bool
    ) -> None:
        """Add a pooling; an average cannot leave out other padding than TensorFlow's."""
        options = schema.Pool2DOptionsT()
        options.padding = self._sides_left(size, stride, padding, -np.inf if is_max else None)
        options.filterHeight, options.filterWidth = size
        options.strideH, options.strideW = stride
        shape = (*self._windows(size, stride, options.padding), self.shape[3])
        code = _codes.MAX_POOL_2D if is_max else _codes.AVERAGE_POOL_2D
        self.operator(code, _kinds.Pool2DOptions, options, shape)

    def dense(self, part: Part) -> None:
        """Add a dense layer."""
        assert part.w is not None
        assert part.b is not None
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = _RELU if part.relu else _NONE
        more = [self.constant(part.w.T), self.constant(part.b)]
        shape = (self.shape[0], part.w.shape[1])
        kind = _kinds.FullyConnectedOptions
        self.operator(_codes.FULLY_CONNECTED, kind, options, shape, more)

    def softmax(self) -> None:
        """Add a softmax over the last axis."""
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        self.operator(_codes.SOFTMAX, _kinds.SoftmaxOptions, options, self.shape)

    def _sides_left(
        self, size: tuple[int, int], stride: tuple[int, int], padding: Sides, value: float | None
    ) -> int:
        """The padding that an operator has itself; other padding becomes an operator before it.

        TensorFlow's "same" follows from the sizes. ``value`` fills other padding; None refuses it.
        """
        if not any(padding):
            return int(schema.Padding.VALID)
        same = [
            max(0, (-(-side // step) - 1) * step + taps - side)
            for side, step, taps in zip(self.shape[1:3], stride, size, strict=True)
        ]
        (h, w), (top, bottom, left, right) = same, padding
        if (h // 2, h - h // 2, w // 2, w - w // 2) == padding:
            return int(schema.Padding.SAME)
        if value is None:
            raise NotImplementedError(
                "means that leave out this padding are not among its operators"
            )
        n, height, width, c = self.shape
        shape = (n, height + top + bottom, width + left + right, c)
        sides = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        more = [self.constant(sides)]
        if value == 0:
            self.operator(_codes.PAD, _kinds.PadOptions, schema.PadOptionsT(), shape, more)
        else:
            more.append(self.constant(np.array(value, np.float32)))
            self.operator(_codes.PADV2, _kinds.PadV2Options, schema.PadV2OptionsT(), shape, more)
        return int(schema.Padding.VALID)

    def _windows(
        self, size: tuple[int, int], stride: tuple[int, int], padding: int
    ) -> tuple[int, int, int]:
        """The number of samples, and of windows in each column and row."""
        n, h, w, _ = self.shape
        if padding == schema.Padding.SAME:
            return n, -(-h // stride[0]), -(-w // stride[1])
        return n, (h - size[0]) // stride[0] + 1, (w - size[1]) // stride[1] + 1

    def model(self) -> bytes:
        """The model as a file of TensorFlow Lite."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs = np.array(self.inputs, np.int32)
        graph.outputs = np.array([self.last], np.int32)
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = _VERSION, [graph], self._buffers
        model.operatorCodes = []
        for code in self._codes:
            described = schema.OperatorCodeT()
            described.builtinCode = described.deprecatedBuiltinCode = code
            described.version = 1
            model.operatorCodes.append(described)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def _runner(graph: Graph, inputs: Sequence[Array]) -> Runner:
    """A runner whose inputs lie in the interpreter's memory before it is timed."""
    interpreter = Interpreter(model_content=graph.model(), num_threads=_threads)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    output: int = interpreter.get_output_details()[0]["index"]
    invoke: Callable[[], None] = interpreter.invoke

    def result() -> tuple[Array, ...]:
        invoke()
        y: Array = interpreter.get_tensor(output)
        return (y,)

    return Runner(FAMILY, FAMILY, invoke, result)
