"""The engines have the functions that are declared, and public functions document all arguments."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from valid_calls import RIGHT

import fastcnn
from fastcnn import ops
from fastcnn.core.operations import DECLARED, OPERATIONS, Composite, Operation
from fastcnn.engine.registry import REGISTRY, use_engine
from fastcnn.ops.declaration import FUNCTIONS, operation
from fastcnn.proof import bounds
from fastcnn.proof.problems import operations

ARCHITECTURE = (Path(__file__).resolve().parent.parent / "ARCHITECTURE.md").read_text("utf-8")
PACKAGES = ("fastcnn.engine.naive", "fastcnn.engine.im2col", "fastcnn.engine.numba")


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("op", OPERATIONS)
def test_engine_has_the_function_of_the_declaration(op: str, package: str) -> None:
    function = getattr(import_module(package), op, None)
    assert inspect.isfunction(function)
    assert parameters(function) == list(OPERATIONS[op].parameters)
    kinds = {p.kind for p in inspect.signature(function).parameters.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


@pytest.mark.parametrize("package", PACKAGES)
def test_engine_exports_no_other_function(package: str) -> None:
    functions = {name for name, v in vars(import_module(package)).items() if inspect.isfunction(v)}
    assert functions == set(OPERATIONS)


@pytest.mark.parametrize("op", OPERATIONS)
def test_registry_holds_the_operation_of_every_engine(op: str) -> None:
    assert {candidate.engine for candidate in REGISTRY[op]} == {"numba", "im2col", "naive"}
    for candidate in REGISTRY[op]:
        assert parameters(candidate.load()) == list(OPERATIONS[op].parameters)
        assert candidate.reason
    assert REGISTRY[op][-1].engine == "naive"


def missing_pieces(declared: Operation | Composite) -> list[str]:
    """What a declared operation still lacks, each with the file where it belongs."""
    name, pieces = declared.name, []

    def needs(there: object, piece: str) -> None:
        if not there:
            pieces.append(f"{name} lacks {piece}")

    if isinstance(declared, Operation):
        for package in PACKAGES:
            function = getattr(import_module(package), name, None)
            folder = package.replace(".", "/")
            signature = f"{name}({', '.join(declared.parameters)})"
            right = function and parameters(function) == list(declared.parameters)
            needs(right, f"the function {signature} in {folder}")
        contract = re.escape(declared.signature) + r"(?: {2,}.*)?$"
        written = re.search(rf"^{contract}", ARCHITECTURE, re.MULTILINE)
        needs(written, f'the line "{declared.signature}" of the engine contract in ARCHITECTURE.md')
    needs(name in FUNCTIONS, "a public function with @operation in fastcnn/ops")
    needs(callable(getattr(ops, name, None)), "an import in fastcnn/ops/__init__.py")
    needs(callable(getattr(fastcnn, name, None)), "an import in fastcnn/__init__.py")
    needs(name in fastcnn.__all__, "its name in fastcnn.__all__ in fastcnn/__init__.py")
    needs(name in operations(), "problems in fastcnn/proof/problems.py")
    needs(name in bounds._DERIVED, "a bound in fastcnn/proof/bounds.py")
    needs(name in RIGHT, "a valid call in tests/valid_calls.py")
    return pieces


@pytest.mark.parametrize("declared", DECLARED, ids=lambda one: one.name)
def test_a_declared_operation_lacks_nothing(declared: Operation | Composite) -> None:
    assert missing_pieces(declared) == []


def test_every_piece_that_a_new_operation_lacks_is_named() -> None:
    assert missing_pieces(Operation("cube", ("x", "side"), ("y",))) == [
        "cube lacks the function cube(x, side) in fastcnn/engine/naive",
        "cube lacks the function cube(x, side) in fastcnn/engine/im2col",
        "cube lacks the function cube(x, side) in fastcnn/engine/numba",
        'cube lacks the line "cube(x, side) -> y" of the engine contract in ARCHITECTURE.md',
        "cube lacks a public function with @operation in fastcnn/ops",
        "cube lacks an import in fastcnn/ops/__init__.py",
        "cube lacks an import in fastcnn/__init__.py",
        "cube lacks its name in fastcnn.__all__ in fastcnn/__init__.py",
        "cube lacks problems in fastcnn/proof/problems.py",
        "cube lacks a bound in fastcnn/proof/bounds.py",
        "cube lacks a valid call in tests/valid_calls.py",
    ]


def test_an_engine_with_another_signature_is_named() -> None:
    pieces = missing_pieces(Operation("relu", ("x", "ceiling"), ("y",)))
    assert [piece.rpartition("/")[2] for piece in pieces[:3]] == ["naive", "im2col", "numba"]
    assert "relu(x, ceiling) -> y" in pieces[3]
    assert len(pieces) == 4


def test_a_public_function_without_a_declaration_is_refused() -> None:
    def cube(x: object, *, engine: str | None = None) -> object:
        """The cube."""
        return x

    with pytest.raises(LookupError, match=r"cube .* fastcnn/core/operations\.py"):
        operation()(cube)


@pytest.mark.parametrize("declared", DECLARED, ids=lambda one: one.name)
def test_a_public_function_calls_the_operations_of_its_declaration(
    declared: Operation | Composite,
) -> None:
    name, call = declared.name, RIGHT[declared.name]
    with use_engine("naive"):
        explanations = fastcnn.explain(name, **call)
    called = tuple(explanation.problem.op for explanation in explanations)
    assert called == (declared.parts if isinstance(declared, Composite) else (name,))


@pytest.mark.parametrize("op", [*ops.EXPLAINABLE, "explain"])
def test_public_function_is_documented(op: str) -> None:
    function = getattr(fastcnn, op)
    doc = inspect.getdoc(function) or ""
    order = [doc.find(f"\n{section}:\n") for section in ("Args", "Returns", "Raises", "Example")]
    assert 0 < order[0] < order[1] < order[2] < order[3]
    assert ">>>" in doc[order[3] :]
    described = [
        name
        for line in re.findall(r"^ {4}(\w+(?:, \w+)*):", doc[order[0] : order[1]], re.MULTILINE)
        for name in line.split(", ")
    ]
    assert described == parameters(function)
    assert max(map(len, doc.splitlines())) <= 100


@pytest.mark.parametrize("op", ops.EXPLAINABLE)
def test_engine_and_parameters_go_by_name_alone(op: str) -> None:
    by_name = {
        name
        for name, p in inspect.signature(getattr(fastcnn, op)).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert "engine" in by_name
    assert by_name <= {"stride", "padding", "output_padding", "dilation", "groups", "activation",
                       "reduction", "algorithm", "math", "engine"}  # fmt: skip
