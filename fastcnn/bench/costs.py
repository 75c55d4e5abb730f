"""Costs before the first result: installed size, import, first call, memory.

Each figure comes from new processes. A process imports a library and convolves one 28×28 image with
8 filters. For fastcnn there are figures with an empty and with a full cache of compiled kernels.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fastcnn.bench.report import Cost

PROCESSES = 3
DEPENDENCIES = ("numpy", "numba", "mnist", "rich", "safetensors", "typer")

_TIMED = """
import json, time
start = time.perf_counter()
{load}
loaded = time.perf_counter()
{call}
done = time.perf_counter()
memory = None
try:
    with open("/proc/self/status") as status:  # the other source counts the parent in
        for line in status:
            if line.startswith("VmHWM:"):
                memory = float(line.split()[1]) * 1024 / 1e6
except OSError:
    pass
print(json.dumps({{"import": loaded - start, "first": done - start, "memory": memory}}))
"""


class Library(NamedTuple):
    """A library, its package, and the code that loads and calls it."""

    family: str
    package: str
    load: str
    call: str


OURS = Library(
    "fastcnn",
    "fastcnn",
    "import numpy as np, fastcnn",
    """
x, w = np.ones((1, 28, 28, 1), np.float32), np.ones((3, 3, 1, 8), np.float32)
fastcnn.conv2d(x, w)
""",
)
_OTHERS = (
    Library(
        "PyTorch",
        "torch",
        "import torch",
        """
with torch.inference_mode():
    torch.nn.functional.conv2d(torch.ones(1, 1, 28, 28), torch.ones(8, 1, 3, 3))
""",
    ),
    Library(
        "JAX",
        "jax",
        "import jax, jax.numpy as jnp",
        """
jax.config.update("jax_platforms", "cpu")
conv = jax.jit(lambda x, w: jax.lax.conv_general_dilated(
    x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")))
conv(jnp.ones((1, 28, 28, 1)), jnp.ones((3, 3, 1, 8))).block_until_ready()
""",
    ),
)


def costs() -> tuple[Cost, ...]:
    """All figures of fastcnn and of the installed peers."""
    result = [Cost("installed, with what it needs", OURS.family, installed_size(), "MB")]
    with tempfile.TemporaryDirectory() as folder:
        cold = process(OURS, folder)
        warm = [process(OURS, folder) for _ in range(PROCESSES)]
    result.append(
        Cost("first convolution, kernels not compiled yet", "fastcnn", cold["first"], "s")
    )
    result += _costs(OURS, warm)
    for other in _OTHERS:
        if find_spec(other.package) is not None:
            result.append(
                Cost("installed, with what it needs", other.family, _size([other.package]), "MB")
            )
            result += _costs(other, [process(other) for _ in range(PROCESSES)])
    return tuple(sorted(result, key=lambda cost: cost.name))


def _costs(library: Library, runs: list[dict[str, float]]) -> list[Cost]:
    smallest = {key: min(run[key] for run in runs) for key in ("import", "first")}
    costs = [
        Cost("import", library.family, smallest["import"], "s"),
        Cost("import and first convolution", library.family, smallest["first"], "s"),
    ]
    if runs[0]["memory"]:
        memory = min(run["memory"] for run in runs)
        costs.append(Cost("memory after the first convolution", library.family, memory, "MB"))
    return costs


def process(library: Library, cache: str | None = None, call: bool = True) -> dict[str, float]:
    """Run a library in a new process: seconds of its import and to its first result, and MB.

    Args:
        library: the library.
        cache: the folder of fastcnn's compiled kernels.
        call: whether the process also computes a result, after the import.
    """
    code = _TIMED.format(load=library.load, call=library.call if call else "")
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = cache
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True
    )
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def installed_size() -> float:
    """MB of fastcnn and its requirements, as installed here."""
    package = Path(__file__).resolve().parents[1]
    own_bytes = sum(
        path.stat().st_size
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    return own_bytes / 1e6 + _size(DEPENDENCIES)


def _size(packages: list[str] | tuple[str, ...]) -> float:
    """MB of these packages and their requirements, as installed here."""
    waiting, names, total = list(packages), set[str](), 0.0
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in names:
            continue
        names.add(name)
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # a requirement of another system, or of an extra
            continue
        for file in package.files or ():
            place = Path(str(file.locate()))
            if place.is_file() and place.suffix != ".pyc":
                total += place.stat().st_size
        for line in package.requires or ():
            requirement, _, marker = line.partition(";")
            if "extra" not in marker and (match := re.match(r"[\w.-]+", requirement)):
                waiting.append(match[0])
    return total / 1e6
