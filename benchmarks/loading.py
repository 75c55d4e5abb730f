"""The time and the memory that it takes to load one ONNX file, in a process of its own.

    python benchmarks/loading.py fastcnn net.onnx 1,3,224,224

It prints JSON: seconds until the file is loaded, seconds until the first prediction is there, and
the bytes by which the process's peak memory grew beyond its imports. ``imported_nets.py`` calls it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

RUNNERS = ("fastcnn", "onnxruntime")


class Loading(NamedTuple):
    """What a load takes: seconds to load, seconds with the first prediction, bytes of memory."""

    load: float
    ready: float
    peak: int


def peak() -> int:
    """The largest memory of this process so far, in bytes.

    Linux tells it in ``/proc``. Its ``getrusage`` counts the parent's memory too, because a child
    begins as a copy of the process that starts it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(runner: str, path: str, shape: tuple[int, ...]) -> Loading:
    """Load a file in this process, and predict once."""
    x = np.zeros(shape, np.float32)
    if runner == "fastcnn":
        import onnx  # noqa: F401 - part of the imports, not of the load

        import fastcnn
        from fastcnn.exchange.onnx_import import load_onnx
        from fastcnn.models.execution import Executor  # noqa: F401

        fastcnn.set_num_threads(2)
        before, start = peak(), perf_counter()
        model = load_onnx(path)
        load = perf_counter() - start
        model.predict(x)
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 3
        before, start = peak(), perf_counter()
        session = onnxruntime.InferenceSession(path, options)
        load = perf_counter() - start
        session.run(None, {session.get_inputs()[0].name: x})
    return Loading(load, perf_counter() - start, peak() - before)


def of_child(runner: str, path: Path, shape: tuple[int, ...], runs: int = 3) -> Loading:
    """The smallest figures of some processes, after one that fills the caches."""
    command = [sys.executable, __file__, runner, str(path), ",".join(map(str, shape))]
    results = []
    for _ in range(runs + 1):
        done = subprocess.run(command, check=True, capture_output=True, env=dict(os.environ))
        results.append(Loading(*json.loads(done.stdout.splitlines()[-1])))
    return Loading(*map(min, zip(*results[1:], strict=True)))  # type: ignore[arg-type]


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in RUNNERS:
        sys.exit(f"usage: python {sys.argv[0]} {'|'.join(RUNNERS)} FILE SHAPE")
    print(json.dumps(measure(sys.argv[1], sys.argv[2], tuple(map(int, sys.argv[3].split(","))))))
