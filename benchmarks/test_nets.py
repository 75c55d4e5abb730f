"""Whole nets, inference and training steps, on every engine and beside every peer."""

from __future__ import annotations

from typing import Any

from fastcnn.bench.problems import NetProblem


def test_net(compete: Any, problem: NetProblem, runner: str) -> None:
    compete(problem, runner)
