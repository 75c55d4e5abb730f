"""ONNX graphs of operations and nets, for the peers that read them."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastcnn.bench.nets import NetTask, Part, parts
from fastcnn.bench.standard import StandardTask
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.proof.problems import Problem

_OPSET, _IR = 17, 8


def to_nchw(x: Array) -> Array:
    """Images (N, H, W, C) in ONNX's layout (N, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def to_nhwc(y: Array) -> Array:
    """Images (N, C, H, W) in fastcnn's layout; other arrays as they are."""
    return y.transpose(0, 2, 3, 1) if y.ndim == 4 else y


def net(task: NetTask | StandardTask) -> tuple[bytes, Array]:
    """A model in ONNX's format that computes a net's inference, and its input.

    Raises ``NotImplementedError`` for training, and for a standard net where a package is missing
    that exports it.
    """
    if isinstance(task, StandardTask):
        missing = [package for package in ("torch", "onnxscript") if find_spec(package) is None]
        if missing:
            raise NotImplementedError(
                f"torch.onnx exports the net, but needs: pip install {' '.join(missing)}"
            )
        return _exported(task), to_nchw(task.images())
    if task.mode != "predict":
        raise NotImplementedError("it does inference alone")
    graph = Graph({"x": to_nchw(task.x).shape})
    graph.net(parts(task.model()))
    return graph.model(rank=2), to_nchw(task.x)


@lru_cache(maxsize=1)
def _exported(task: StandardTask) -> bytes:
    from fastcnn.bench.peers.torch_nets import exported

    return exported(task)


def operation(problem: Problem, arrays: dict[str, Array]) -> tuple[bytes, Array]:
    """A model that computes an operation, forward, and its input; the weights are constants.

    Raises ``NotImplementedError`` for a gradient.
    """
    if "gradient" in problem.op or "backward" in problem.op:
        raise NotImplementedError("it does inference alone")
    if "x" not in arrays:
        raise NotImplementedError(f"it is not taught {problem.op} here")
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
    elif problem.op == "dense":
        graph.node("Gemm", graph.constant(arrays["w"]), graph.constant(arrays["b"]))
    else:
        graph.node({"relu": "Relu", "softmax": "Softmax"}[problem.op])
    return graph.model(rank=x.ndim), x


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

    def model(self, rank: int) -> bytes:
        """The model in ONNX's format; its output has ``rank`` axes."""
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
        result: bytes = model.SerializeToString()
        return result
