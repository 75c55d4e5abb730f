"""`import fastcnn` is cheap: NumPy and little else."""

from __future__ import annotations

import sys

import limits

HEAVY = ("numba", "llvmlite", "typer", "click", "rich", "mnist", "urllib", "matplotlib", "scipy")


def run(code: str) -> str:
    output: str = limits.run([sys.executable, "-c", code], check=True).stdout
    return output


def seconds_to_import(module: str) -> float:
    return float(
        run(
            "import time; start = time.process_time(); "
            f"import {module}; print(time.process_time() - start)"
        )
    )


def test_import_takes_at_most_1_6_times_that_of_numpy() -> None:
    # Each in fresh processes, taking turns, and of the processor's time, since others want it too;
    # the minimum is what the import costs undisturbed, and on a busy machine it takes more turns.
    numpy = fastcnn = float("inf")
    for turn in range(40):
        numpy = min(numpy, seconds_to_import("numpy"))
        fastcnn = min(fastcnn, seconds_to_import("fastcnn"))
        if turn >= 7 and fastcnn < 1.6 * numpy:
            break
    assert fastcnn < 1.6 * numpy


def test_import_brings_in_nothing_heavy_beyond_numpy() -> None:
    loaded = run(
        "import sys, numpy; before = set(sys.modules); import fastcnn; "
        "print(*sorted(set(sys.modules) - before))"
    ).split()
    assert "fastcnn.ops" in loaded
    assert [name for name in loaded if name.split(".")[0] in HEAVY] == []
