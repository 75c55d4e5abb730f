"""Kernels of merged arrays and of normalisation run as steps of a program, to the same bits.

A step has few operands: addresses of arrays, which seem to have no end there, and integers.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.calls import OPERANDS
from fastcnn.engine.numba.runtime.program import fixed_address, number, run_apart, split_step, step
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.proof.check import call
from fastcnn.proof.data import make_arrays
from fastcnn.proof.problems import cases

ROOM = "fastcnn.engine.numba.elementwise"
MODULES = ("merging", "concatenation", "totals", "layer_norm", "group_norm", "response_norm")
OPERATIONS = (
    *("add", "subtract", "multiply", "maximum"),
    *("concatenate", "layer_norm", "group_norm", "local_response_norm"),
)


def as_steps(kernel: Kernel, count: int, work: int, *arguments: Array | int) -> None:
    """Run a kernel as two steps, each with a part of its range."""
    assert len(arguments) <= OPERANDS
    operands = [fixed_address(a) if isinstance(a, np.ndarray) else number(a) for a in arguments]
    for one in split_step(step(kernel, arguments, count, *operands), 2):
        run_apart(one, 0, work)


@pytest.mark.parametrize("op", [f"{op}{kind}" for op in OPERATIONS for kind in ("", "_backward")])
def test_kernels_run_as_steps(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [case for case in cases([op]) if case.mode in ("float", "special")]
    assert len(chosen) > 6
    arrays = [make_arrays(case, 0) for case in chosen]
    expected = [
        call(case.problem, inputs, "numba") for case, inputs in zip(chosen, arrays, strict=True)
    ]
    for name in MODULES:
        monkeypatch.setattr(import_module(f"{ROOM}.{name}"), "parallel_for", as_steps)
    for case, inputs, results in zip(chosen, arrays, expected, strict=True):
        for one, reference in zip(call(case.problem, inputs, "numba"), results, strict=True):
            assert one.tobytes() == reference.tobytes(), case.name
