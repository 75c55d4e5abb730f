"""Python processes of their own, for what depends on the environment at start, or may crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from limits import run

import fastcnn
from fastcnn.engine.numba.runtime.instruction_sets import host_registers

SOURCE = Path(fastcnn.__file__).resolve().parent.parent
"""The folder that holds the package under test."""

# Numba's environment for the instruction sets below that of a processor.
_AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}
_SSE2 = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
_BELOW: dict[str, dict[str, dict[str, str]]] = {
    "avx512": {"avx2": _AVX2, "sse2": _SSE2},
    "avx2": {"sse2": _SSE2},
}


def instruction_sets() -> dict[str, dict[str, str]]:
    """What this processor can run, its own first, by the environment that makes Numba use it."""
    host = host_registers().isa
    return {host: {}, **_BELOW.get(host, {})}


def environment(source: Path = SOURCE, **more: str) -> dict[str, str]:
    """This process's, with the package in ``source`` to be imported first, and these variables."""
    path = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def python(
    *arguments: str, source: Path = SOURCE, check: bool = True, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python *arguments`` on the package in ``source`` with these environment variables.

    With ``check`` the process must succeed. It has the time that the test has left.
    """
    done: subprocess.CompletedProcess[str] = run(
        [sys.executable, *arguments], check=check, env=environment(source, **more), cwd=source
    )
    return done
