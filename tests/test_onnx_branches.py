"""If nodes of ONNX files: which branch runs, what it takes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.exchange.onnx_functions import OnnxFileError

onnx = pytest.importorskip("onnx", reason="files are read through the package onnx")

from onnx_files import node, normal, reference  # noqa: E402

helper = onnx.helper
FLOAT, INT64, BOOL = 1, 7, 9
W, V = normal(6, 4), normal(4, 4, seed=1)


def branch(nodes: list[Any], *outputs: str, **constants: Any) -> Any:
    """A branch with constants of its own."""
    return helper.make_graph(
        nodes, "branch", [], [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip


def choice(condition: str, result: str, then: Any, otherwise: Any) -> Any:
    return node("If", condition, result, then_branch=then, else_branch=otherwise)


def write(
    path: Path, nodes: list[Any], inputs: dict[str, Any], *outputs: str, **constants: Any
) -> Path:
    """A file whose inputs are pairs of an element type and a shape."""
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    return path


def check(path: Path, model: Any, **inputs: Any) -> None:
    model.engine = "im2col"
    results = model.predict(inputs)
    results = results if isinstance(results, list) else [results]
    for result, expected in zip(results, reference(path, **inputs), strict=True):
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [BOOL, INT64])
def test_an_input_of_integers_chooses(tmp_path: Path, kind: int) -> None:
    """The branches differ in shape, take values from around them, and have own weights."""
    then = branch([node("MatMul", "m v", "t"), node("Relu", "t", "u")], "u", v=V)
    otherwise = branch([node("Flatten", "h", "u", axis=0)], "u")
    nodes = [
        node("MatMul", "x w", "m"), node("Tanh", "m", "h"), node("Equal", "s one", "c"),
        choice("c", "z", then, otherwise), node("Neg", "z", "y"),
    ]  # fmt: skip
    one = np.array(kind == BOOL or 1, bool if kind == BOOL else np.int64)
    inputs = {"x": (FLOAT, ["N", 6]), "s": (kind, [])}
    path = write(tmp_path / "net.onnx", nodes, inputs, "y", w=W, one=one)
    model = fastcnn.load_onnx(path)
    for n, setting in ((3, 1), (3, 0), (1, 1), (3, 1)):
        check(path, model, x=normal(n, 6), s=np.asarray(setting, one.dtype))


def test_branches_in_branches_may_use_names_again(tmp_path: Path) -> None:
    def pair(operator: str, condition: str) -> Any:
        inner = [branch([node("MatMul", f"{value} k", "r")], "r", k=k)
                 for value, k in (("a", V), ("x", W))]  # fmt: skip
        return branch([node(operator, "h", "a"), choice(condition, "o", *inner)], "o")

    nodes = [
        node("MatMul", "x w", "h"), choice("c", "y", pair("Abs", "d"), pair("Neg", "d")),
    ]  # fmt: skip
    inputs = {"x": (FLOAT, ["N", 6]), "c": (BOOL, []), "d": (BOOL, [])}
    path = write(tmp_path / "net.onnx", nodes, inputs, "y", w=W)
    model = fastcnn.load_onnx(path)
    for c in (True, False):
        for d in (True, False):
            check(path, model, x=normal(2, 6), c=np.array(c), d=np.array(d))


def test_numbers_of_a_sample_choose_between_both(tmp_path: Path) -> None:
    then = branch([node("MatMul", "m v", "t"), node("Exp", "t", "u")], "u", "t", v=V)
    otherwise = branch([node("Identity", "m", "i"), node("Abs", "m", "j")], "i", "j")
    nodes = [
        node("MatMul", "x w", "m"), node("ReduceMax", "m", "p", axes=[1]),
        node("Greater", "p zero", "c"),
        node("If", "c", "y z", then_branch=then, else_branch=otherwise),
    ]  # fmt: skip
    zero = np.zeros((1, 1), np.float32)
    path = write(tmp_path / "net.onnx", nodes, {"x": (FLOAT, [1, 6])}, "y", "z", w=W, zero=zero)
    model = fastcnn.load_onnx(path)
    assert not model._needed
    x = normal(1, 6)
    signs = {bool((sign * x @ W).max() > 0) for sign in (1, -1, 0)}
    assert signs == {True, False}
    for sign in (1, -1, 0):
        check(path, model, x=np.float32(sign) * x)


def test_numbers_that_choose_between_shapes_are_known_first(tmp_path: Path) -> None:
    then = branch([node("Concat", "x x", "u", axis=1)], "u")
    otherwise = branch([node("Identity", "x", "u")], "u")
    nodes = [node("ReduceSum", "x", "p", keepdims=0), node("Greater", "p zero", "c"),
             choice("c", "y", then, otherwise)]  # fmt: skip
    path = write(
        tmp_path / "net.onnx", nodes, {"x": (FLOAT, ["N", 3])}, "y", zero=np.array(0, np.float32)
    )
    model = fastcnn.load_onnx(path)
    for sign in (1, -1):
        check(path, model, x=sign * np.ones((2, 3), np.float32))


def test_shapes_that_choose_cost_nothing(tmp_path: Path) -> None:
    """The condition folds, so the net runs in batches, as one program."""
    then = branch([node("MatMul", "x w", "t"), node("Relu", "t", "u")], "u")
    otherwise = branch([node("Det", "x", "u")], "u")  # an operator that fastcnn lacks
    nodes = [
        node("Shape", "x", "s"), node("Gather", "s one", "side"), node("Equal", "side six", "c"),
        choice("c", "y", then, then),
    ]  # fmt: skip
    constants = {"w": W, "one": np.array(1), "six": np.array(6)}
    inputs = {"x": (FLOAT, ["N", 6])}
    path = write(tmp_path / "net.onnx", nodes, inputs, "y", **constants)
    model = fastcnn.load_onnx(path)
    assert not model._whole
    check(path, model, x=normal(5, 6))
    nodes[-1] = choice("c", "y", then, otherwise)
    with pytest.raises(OnnxFileError, match="lacks these operators: 'Det'"):
        fastcnn.load_onnx(write(path, nodes, inputs, "y", **constants))


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (lambda b: node("If", "c", "y", then_branch=b), "must have the branches then_branch and"),
        (lambda b: node("If", "c", "y", then_branch=b, else_branch=b, other=1), "must have the"),
        (lambda b: node("If", "c c", "y", then_branch=b, else_branch=b), "must have one input"),
        (lambda b: node("If", "c", "y z", then_branch=b, else_branch=b), "and 2 outputs"),
        (lambda b: choice("c", "y", b, branch([node("Relu", "a", "a")], "a")), "cycle"),
        (lambda b: choice("c", "y", b, branch([], "nothing")), "'nothing', which nothing makes"),
        (lambda b: choice("x", "y", b, b), "condition must be one number, got shape"),
        (lambda b: node("Relu", "c", "y", then_branch=b), "is of a kind it cannot have"),
    ],
)  # fmt: skip
def test_ifs_that_are_refused(tmp_path: Path, last: Any, message: str) -> None:
    inputs = {"x": (FLOAT, [2, 3]), "c": (BOOL, [])}
    nodes = [last(branch([node("Relu", "x", "u")], "u"))]
    path = write(tmp_path / "net.onnx", nodes, inputs, "y")
    with pytest.raises(OnnxFileError, match=message):
        fastcnn.load_onnx(path)
