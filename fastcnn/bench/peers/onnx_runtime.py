"""ONNX Runtime, on models in ONNX's format, with all of its optimisations; for inference only."""

from __future__ import annotations

from collections.abc import Iterator

import onnxruntime

from fastcnn.bench.contest import CannotRun, Runner, Skipped
from fastcnn.bench.nets import NetTask
from fastcnn.bench.own_models import ModelTask
from fastcnn.bench.peers import onnx_graphs
from fastcnn.bench.standard import StandardTask
from fastcnn.core.arguments import Array
from fastcnn.core.quoting import shortened
from fastcnn.proof.problems import Problem

FAMILY = "ONNX Runtime"
_threads = 1


def set_threads(n: int) -> None:
    """Let new sessions use ``n`` threads."""
    global _threads
    _threads = n


def net_runners(task: NetTask | StandardTask, compiled: bool) -> Iterator[Runner | Skipped]:
    """The net's inference; training is skipped."""
    yield _runner(*onnx_graphs.net(task))


def operation_runners(
    problem: Problem, arrays: dict[str, Array], compiled: bool
) -> Iterator[Runner | Skipped]:
    """One operation, forward; filters and weights are constants of the graph."""
    yield _runner(*onnx_graphs.operation(problem, arrays))


def model_runners(task: ModelTask, file: bytes | str) -> Iterator[Runner | Skipped]:
    """The inference of a file's model."""
    try:
        runtime = session(file)
    except Exception as error:  # its errors have no class of their own
        raise CannotRun(f"it cannot read the file: {shortened(str(error))}") from None

    def run() -> list[Array]:
        outputs: list[Array] = runtime.run(None, task.inputs)
        return outputs

    yield Runner(FAMILY, FAMILY, run, lambda: task.results(run()))


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    """A session for a model, or for its file, on the set number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _runner(model: bytes, x: Array) -> Runner:
    runtime = session(model)
    feeds = {runtime.get_inputs()[0].name: x}

    def run() -> Array:
        y: Array = runtime.run(None, feeds)[0]
        return y

    return Runner(FAMILY, FAMILY, run, lambda: (onnx_graphs.to_nhwc(run()),))
