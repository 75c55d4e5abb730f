"""ONNX files that tests write, and what ONNX's own evaluator computes for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx


def write(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: list[str],
    constants: dict[str, Any],
    opset: int = 17,
) -> Path:
    """A file of these nodes, with float inputs and outputs."""
    helper = onnx.helper
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(model.SerializeToString())
    return path


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def reference(path: Path, **inputs: Any) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(str(path)).run(None, inputs)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
