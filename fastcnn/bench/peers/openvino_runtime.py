"""OpenVINO, on models in ONNX's format, in float32, with its hint for latency; inference only."""

from __future__ import annotations

from collections.abc import Iterator

import openvino

from fastcnn.bench.contest import CannotRun, Runner, Skipped
from fastcnn.bench.nets import NetTask
from fastcnn.bench.own_models import ModelTask
from fastcnn.bench.peers import onnx_graphs
from fastcnn.bench.standard import StandardTask
from fastcnn.core.arguments import Array
from fastcnn.core.quoting import shortened
from fastcnn.proof.problems import Problem

FAMILY = "OpenVINO"
_threads = 1


def set_threads(n: int) -> None:
    """Let new models use ``n`` threads."""
    global _threads
    _threads = n


def options() -> dict[str, str | int]:
    """How models are compiled. Without the precision, processors with AMX compute in bfloat16."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": _threads,
    }


def net_runners(task: NetTask | StandardTask, compiled: bool) -> Iterator[Runner | Skipped]:
    """The net's inference; training is skipped."""
    yield _runner(*onnx_graphs.net(task))


def operation_runners(
    problem: Problem, arrays: dict[str, Array], compiled: bool
) -> Iterator[Runner | Skipped]:
    """One operation, forward; filters and weights are constants of the graph."""
    yield _runner(*onnx_graphs.operation(problem, arrays))


def model_runners(task: ModelTask, file: bytes | str) -> Iterator[Runner | Skipped]:
    """The inference of a file's model, which is compiled for the shapes of the inputs."""
    core = openvino.Core()
    try:
        model = core.read_model(file)
        model.reshape({name: list(array.shape) for name, array in task.inputs.items()})
        request = core.compile_model(model, "CPU", options()).create_infer_request()
    except Exception as error:  # its errors have no class of their own
        raise CannotRun(f"it cannot read the file: {shortened(str(error))}") from None

    def run() -> list[Array]:
        outputs = request.infer(task.inputs, share_inputs=True, share_outputs=True)
        return [outputs[i] for i in range(len(outputs))]

    yield Runner(FAMILY, FAMILY, run, lambda: task.results(run()))


def _runner(model: bytes, x: Array) -> Runner:
    core = openvino.Core()
    request = core.compile_model(core.read_model(model), "CPU", options()).create_infer_request()

    def run() -> Array:
        # The input is read where it lies, and the result is the request's own memory.
        y: Array = request.infer([x], share_inputs=True, share_outputs=True)[0]
        return y

    return Runner(FAMILY, FAMILY, run, lambda: (onnx_graphs.to_nhwc(run()).copy(),))
