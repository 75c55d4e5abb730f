"""What compiling costs: the whole matrix with an empty cache, and the first call with a full one.

    python benchmarks/compile_time.py [--processes 5] [--json FILE]

The matrix is that of the agreement tests, both dtypes. The first call is a 3×3 convolution of one
28×28 image, in a process that has done nothing else: it imports Numba, reads the cache and runs.
Each figure comes from processes of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import fastcnn

MATRIX = """
import json, time
start = time.perf_counter()
from numba.core import event
from fastcnn.proof.check import call
from fastcnn.proof.data import make_arrays
from fastcnn.proof.problems import ARTICLE_NET, cases

spent = []
seen = set()
with event.install_recorder("numba:compile") as recorder:
    for case in cases():
        if case.problem.op != ARTICLE_NET and (case.problem, case.dtype) not in seen:
            seen.add((case.problem, case.dtype))
            call(case.problem, make_arrays(case, 0), "numba")

compiling, depth, kernels, began = 0.0, 0, 0, 0.0
for when, what in recorder.buffer:
    if what.is_start:
        began, kernels = (when, kernels + 1) if depth == 0 else (began, kernels)
        depth += 1
    else:
        depth -= 1
        compiling += when - began if depth == 0 else 0
print(json.dumps({"compile": compiling, "kernels": kernels,
                  "all": time.perf_counter() - start}))
"""

FIRST_CALL = """
import json, time
import numpy as np
import fastcnn
x, w = np.ones((1, 28, 28, 1), np.float32), np.ones((3, 3, 1, 8), np.float32)
marks = [time.perf_counter()]
for _ in range(2):
    fastcnn.conv2d(x, w, engine="numba")
    marks.append(time.perf_counter())
print(json.dumps({"first": marks[1] - marks[0], "second": marks[2] - marks[1]}))
"""

IMPORT = """
import json, time
import numpy
start = time.perf_counter()
import numba
print(json.dumps({"import": time.perf_counter() - start}))
"""


def measure(processes: int) -> dict[str, float]:
    """All figures: seconds, and the number of kernels that the matrix compiles."""
    with tempfile.TemporaryDirectory() as folder:
        cold = _run(MATRIX, folder)
        warm = _run(MATRIX, folder)
        assert warm["kernels"] == 0, "what was compiled a moment ago is in the cache"
        calls = [_run(FIRST_CALL, folder) for _ in range(processes)]
        imports = [_run(IMPORT, folder)["import"] for _ in range(processes)]
    return {
        "kernels": cold["kernels"],
        "matrix_compile": cold["compile"],
        "matrix_cold": cold["all"],
        "matrix_warm": warm["all"],
        "first_call": median(call["first"] for call in calls),
        "second_call": median(call["second"] for call in calls),
        "import_numba": median(imports),
    }


def _run(code: str, cache: str) -> dict[str, float]:
    source = str(Path(fastcnn.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def table(figures: dict[str, float]) -> Table:
    """The figures in words."""
    result = Table("what", "seconds", title="Compiling")
    rows = {
        f"compiling the {figures['kernels']:.0f} kernels of the whole matrix": "matrix_compile",
        "the whole matrix with an empty cache": "matrix_cold",
        "the whole matrix with a full cache": "matrix_warm",
        "first conv2d of a process with a full cache": "first_call",
        "of that, import of Numba": "import_numba",
        "second conv2d": "second_call",
    }
    result.columns[1].justify = "right"
    for what, key in rows.items():
        result.add_row(
            what, f"{figures[key]:.6f}" if figures[key] < 0.01 else f"{figures[key]:.2f}"
        )
    return result


def main(
    processes: Annotated[int, typer.Option(min=1, help="Whose median is the first call.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Measure what compiling costs."""
    figures = measure(processes)
    Console().print(table(figures))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
