"""ONNX Runtime, on graphs that this module writes; for inference only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fastcnn.bench.contest import Runner, Skipped
from fastcnn.bench.nets import NetTask, Part, parts
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.proof.problems import Problem

FAMILY = "ONNX Runtime"
_OPSET, _IR = 17, 8
_threads = 1


def set_threads(n: int) -> None:
    """Let new sessions use ``n`` threads."""
    global _threads
    _threads = n


def net_runners(task: NetTask, compiled: bool) -> Iterator[Runner | Skipped]:
    """The net's inference; training is skipped."""
    if task.mode != "predict":
        yield Skipped(FAMILY, "it does inference alone")
        return
    graph = Graph({"x": to_nchw(task.x).shape})
    graph.net(parts(task.model()))
    session = graph.session(rank=2)
    x = to_nchw(task.x)

    def predict() -> Array:
        y: Array = session.run(None, {"x": x})[0]
        return y

    yield Runner(FAMILY, FAMILY, predict, lambda: (predict(),))


def to_nchw(x: Array) -> Array:
    """Images (N, H, W, C) in ONNX's layout (N, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


class Graph:
    """A builder of an ONNX graph, a row of nodes that each take the last node's output."""

    def __init__(self, inputs: dict[str, tuple[int, ...]]) -> None:
        self.inputs = inputs
        self.last = next(iter(inputs))
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: Array) -> str:
        """Add a constant array to the graph, and return its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, *more: str, **attributes: Any) -> None:
        """Add a node that takes the last output and ``more``."""
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *more], [output], **attributes))
        self.last = output

    def convolution(self, part: Part, groups: int = 1) -> None:
        """Add a convolution with constant filters."""
        assert part.w is not None
        more = [self.constant(part.w.transpose(3, 2, 0, 1))]
        if part.b is not None:
            more.append(self.constant(part.b))
        top, bottom, left, right = part.padding
        self.node(
            "Conv",
            *more,
            kernel_shape=part.w.shape[:2],
            strides=part.stride,
            pads=(top, left, bottom, right),
            group=groups,
        )

    def net(self, layers: list[Part]) -> None:
        """Add all layers of a net, and the softmax."""
        flattened: tuple[int, ...] = ()
        for part in layers:
            if part.kind == "conv":
                self.convolution(part)
            elif part.kind == "pool":
                self.node("MaxPool", kernel_shape=part.size, strides=part.size)
            elif part.kind == "flatten":
                self.node("Flatten")
                flattened = part.shape
            else:
                assert part.w is not None
                assert part.b is not None
                w = part.w
                if flattened:
                    w = w.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(w.shape)
                    flattened = ()
                self.node("Gemm", self.constant(w), self.constant(part.b))
            if part.relu:
                self.node("Relu")
        self.node("Softmax", axis=1)

    def session(self, rank: int) -> Any:
        """A session for the graph, whose output has ``rank`` axes, on the set number of threads."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in self.inputs.items()
            ],
            [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, [None] * rank)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = _IR
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def operation_runners(problem: Problem, arrays: dict[str, Array]) -> Iterator[Runner | Skipped]:
    """One operation, forward; filters and weights are constants of the graph."""
    if "gradient" in problem.op or "backward" in problem.op:
        yield Skipped(FAMILY, "it does inference alone")
        return
    g, x = problem.geometry, arrays["x"]
    if isinstance(g, ConvGeometry | PoolGeometry):
        x = to_nchw(x)
        padding = (g.pad_top, g.pad_bottom, g.pad_left, g.pad_right)
        stride = (g.stride_h, g.stride_w)
    graph = Graph({"x": x.shape})
    if isinstance(g, ConvGeometry):
        part = Part("conv", arrays["w"], arrays["b"], stride, padding)
        graph.convolution(part, g.groups)
    elif isinstance(g, PoolGeometry):
        kind = "MaxPool" if problem.op.startswith("max") else "AveragePool"
        pads = [g.pad_top, g.pad_left, g.pad_bottom, g.pad_right]
        graph.node(kind, kernel_shape=[g.kh, g.kw], strides=stride, pads=pads)
    else:
        graph.node("Gemm", graph.constant(arrays["w"]), graph.constant(arrays["b"]))
    session = graph.session(rank=x.ndim)

    def run() -> Any:
        return session.run(None, {"x": x})[0]

    def result() -> tuple[Array, ...]:
        y = run()
        return (y.transpose(0, 2, 3, 1) if y.ndim == 4 else y,)

    yield Runner(FAMILY, FAMILY, run, result)
