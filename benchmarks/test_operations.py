"""Layers, forward and backward, on every engine and beside every peer; see ``conftest.py``."""

from __future__ import annotations

from typing import Any

from fastcnn.proof.problems import Problem


def test_operation(compete: Any, problem: Problem, runner: str) -> None:
    compete(problem, runner)
