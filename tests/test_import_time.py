"""`import fastcnn` is cheap: NumPy and little else."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("numba", "llvmlite", "typer", "click", "rich", "mnist", "urllib", "matplotlib", "scipy")


def run(code: str) -> str:
    return subprocess.check_output([sys.executable, "-c", code], text=True)


def seconds_to_import(module: str) -> float:
    return float(
        run(
            "import time; start = time.perf_counter(); "
            f"import {module}; print(time.perf_counter() - start)"
        )
    )


def test_import_takes_at_most_1_6_times_that_of_numpy() -> None:
    # Each in fresh processes, taking turns; the minimum is what the import costs undisturbed.
    turns = [(seconds_to_import("numpy"), seconds_to_import("fastcnn")) for _ in range(8)]
    numpy, fastcnn = (min(times) for times in zip(*turns, strict=True))
    assert fastcnn < 1.6 * numpy


def test_import_brings_in_nothing_heavy_beyond_numpy() -> None:
    loaded = run(
        "import sys, numpy; before = set(sys.modules); import fastcnn; "
        "print(*sorted(set(sys.modules) - before))"
    ).split()
    assert "fastcnn.ops" in loaded
    assert [name for name in loaded if name.split(".")[0] in HEAVY] == []
