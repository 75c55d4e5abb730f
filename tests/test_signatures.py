"""The three engines have the same functions, and the public ones say all there is to know."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest

import fastcnn
from fastcnn import ops
from fastcnn.engine.registry import OPERATIONS, REGISTRY

PACKAGES = ("fastcnn.engine.naive", "fastcnn.engine.im2col", "fastcnn.engine.numba")


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("package", PACKAGES)
def test_engine_exports_every_operation(package: str) -> None:
    module = import_module(package)
    assert [op for op in OPERATIONS if not inspect.isfunction(getattr(module, op, None))] == []


@pytest.mark.parametrize("package", PACKAGES[1:])
@pytest.mark.parametrize("op", OPERATIONS)
def test_signature_is_that_of_the_specification(op: str, package: str) -> None:
    specified = getattr(import_module("fastcnn.engine.naive"), op)
    function = getattr(import_module(package), op)
    assert parameters(function) == parameters(specified)
    kinds = {p.kind for p in inspect.signature(function).parameters.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


@pytest.mark.parametrize("op", OPERATIONS)
def test_registry_holds_the_operation_of_every_engine(op: str) -> None:
    specified = parameters(getattr(import_module("fastcnn.engine.naive"), op))
    assert {candidate.engine for candidate in REGISTRY[op]} == {"numba", "im2col", "naive"}
    for candidate in REGISTRY[op]:
        assert parameters(candidate.load()) == specified
        assert candidate.reason
    assert REGISTRY[op][-1].engine == "naive"


@pytest.mark.parametrize("op", [*ops.EXPLAINABLE, "explain"])
def test_public_function_is_documented(op: str) -> None:
    function = getattr(fastcnn, op)
    doc = inspect.getdoc(function) or ""
    assert ">>>" in doc
    if op == "explain":
        return
    assert "Example:" in doc
    if "Args:" not in doc:
        assert re.search(r"\bas (for )?:func:", doc), "neither lists its arguments nor says whose"
        return
    told = doc.split("Args:")[1].split("\n\n")[0]
    named = {
        name.strip()
        for line in re.findall(r"^ {4}(\w+(?:, \w+)*):", told, re.MULTILINE)
        for name in line.split(",")
    }
    assert named == set(parameters(function))
    assert "Returns:" in doc
    assert "Raises:" in doc


@pytest.mark.parametrize("op", ops.EXPLAINABLE)
def test_engine_and_parameters_go_by_name_alone(op: str) -> None:
    by_name = {
        name
        for name, p in inspect.signature(getattr(fastcnn, op)).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert "engine" in by_name
    assert by_name <= {"stride", "padding", "dilation", "groups", "activation", "reduction",
                       "algorithm", "math", "engine"}  # fmt: skip
