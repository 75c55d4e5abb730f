"""Random calls and random damage, a few; the same by the hundred thousand: ``reliability/``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import fuzz_calls
import fuzz_files
import fuzz_models
import fuzz_user_code
import misbehaving
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastcnn
from fastcnn import ops
from fastcnn.engine import im2col
from fastcnn.engine.registry import replaced

T = TypeVar("T")


class HypothesisDice:
    """Chances that Hypothesis makes smaller where something is wrong."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def integer(self, least: int, most: int) -> int:
        return int(self.draw(st.integers(least, most)))

    def choice(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))  # type: ignore[no-any-return]


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
def test_every_algorithm_gives_what_the_specification_gives(data: Any) -> None:
    call = fuzz_calls.drawn(HypothesisDice(data.draw))
    assert fuzz_calls.run(call) == [], str(call)


def test_the_same_from_the_seed_of_the_long_run() -> None:
    refused = 0
    for number in range(150):
        call = fuzz_calls.drawn(fuzz_calls.RandomDice(7, number))
        assert fuzz_calls.run(call) == [], f"--seed 7 --first {number}: {call}"
        refused += call.refused
    assert 10 < refused < 75  # some of the calls are wrong ones, and most are not


def test_all_is_drawn() -> None:
    calls = [fuzz_calls.drawn(fuzz_calls.RandomDice(0, number)) for number in range(3000)]
    assert {call.op for call in calls} == set(ops.EXPLAINABLE)
    assert {call.mode for call in calls} == {"exact", "float", "special", "extreme"}
    arrays = [array for call in calls for array in call.given.values()]
    kinds = [array for array in arrays if isinstance(array, np.ndarray)]
    assert any(isinstance(array, list) for array in arrays)
    assert any(array.size == 0 for array in kinds)
    assert any(array.size == 1 for array in kinds)
    assert any(not array.flags.aligned for array in kinds)
    assert any(not array.flags.writeable for array in kinds)
    assert any(min(array.strides, default=0) < 0 for array in kinds)
    assert any(0 in array.strides and array.size > 1 for array in kinds)
    assert any(array.flags.f_contiguous and not array.flags.c_contiguous for array in kinds)
    assert any(not array.dtype.isnative for array in kinds)
    overlapping = [a for a in kinds if a.ndim > 1 and set(a.strides) == {a.itemsize}]
    assert any(array.size > 4 for array in overlapping)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x: x.copy(),
        lambda x: np.maximum(x, 0).astype(np.float64),
        lambda x: np.fmax(x, 0),
        lambda x: np.maximum(x, 0, out=x),
        lambda x: np.maximum(x, 0)[:-1] if x.size > 3 else np.maximum(x, 0),
        lambda x: np.repeat(np.maximum(x, 0), 2)[::2],
        lambda x: (_ for _ in ()).throw(RuntimeError("crash")),
    ],
)
def test_a_broken_function_is_found(broken: Any) -> None:
    with replaced("relu", "im2col", broken):
        results = [
            wrong
            for number in range(60)
            for wrong in fuzz_calls.run(
                fuzz_calls.drawn(fuzz_calls.RandomDice(1, number), ["relu"])
            )
        ]
    assert results
    assert all(wrong.startswith("im2col") for wrong in results if "written to" not in wrong)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[fuzz_files.Kind, Path]]:
    return fuzz_files.files(tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "checkpoint",
        "idx-images",
        "idx-labels",
        "gzip-images",
        "gzip-labels",
        "weights",
        "torch",
        "pickle",
        "png",
        "jpeg",
    ],
)
def test_damage_of_every_kind_is_the_documented_error(
    name: str, files: dict[str, tuple[fuzz_files.Kind, Path]]
) -> None:
    kind, path = files[name]
    whole = path.read_bytes()
    for size in {*range(0, len(whole), 1 + len(whole) // 40), len(whole) - 1}:
        path.write_bytes(whole[:size])
        assert fuzz_files.complaint(kind, path) is None, size
        if name not in ("png", "jpeg"):  # a picture may be whole without its last bytes
            with pytest.raises(kind.error):
                kind.read(path)
    path.write_bytes(whole)
    wrong = list(fuzz_files.damages(kind, path, rounds=20, seed=0, truncate=False))
    assert wrong == []
    kind.read(path)


def test_damage_that_raises_another_error_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")

    def read(path: Path) -> None:
        if len(path.read_bytes()) == 3:
            raise OverflowError("three")

    kind = fuzz_files.Kind(read, ValueError, "file")
    ((where, what),) = fuzz_files.damages(kind, path, rounds=0, seed=0)
    assert where == "the first 3 bytes"
    assert "OverflowError" in what
    assert path.read_bytes() == b"12345"
    assert fastcnn.ModelFileError.__mro__[1] is ValueError


def test_models_run_as_the_specification_runs_them() -> None:
    for number in range(4):
        for kind in (fuzz_models.Case, fuzz_models.GraphCase):
            case = kind(fuzz_calls.RandomDice(7, number))
            assert fuzz_models.run(case) == [], f"--seed 7 --first {number}: {case}"


def test_graphs_of_every_form_are_drawn() -> None:
    cases = [fuzz_models.GraphCase(fuzz_calls.RandomDice(0, number)) for number in range(200)]
    models = [case.model("naive") for case in cases]
    kinds = {type(node.layer).__name__ for model in models for node in model._graph.nodes}
    merging = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Concatenate"}
    assert kinds >= merging | {"Residual", "BatchNorm", "Conv2D", "DepthwiseConv2D", "Dense"}
    assert any(len(model._graph.nodes) > len(model.layers) for model in models), "shared layers"
    assert any(len(model.inputs) > 1 and len(model.outputs) > 1 for model in models)
    assert {case.exact for case in cases} == {True, False}
    assert {case.dtype for case in cases} == {"float32", "float64"}


def test_a_model_that_runs_wrongly_is_found() -> None:
    def broken(dy: Any, x: Any, w: Any) -> Any:
        dx, dw, db = im2col.dense_backward(dy, x, w)
        return dx, dw + 0.1, db

    with replaced("dense_backward", "im2col", broken):
        wrong = fuzz_models.run(fuzz_models.Case(fuzz_calls.RandomDice(7, 0)))
    assert wrong
    assert {one.split(" ")[0] for one in wrong} == {"im2col:"}


@pytest.fixture
def known() -> Iterator[None]:
    """The misbehaving classes are known to files, and to no other test."""
    fuzz_user_code.remember()
    yield
    misbehaving.forget()


@pytest.mark.usefixtures("known")
def test_objects_of_users_are_taken_or_refused_everywhere() -> None:
    for number in range(4):
        case = fuzz_user_code.Case(fuzz_calls.RandomDice(7, number))
        assert fuzz_user_code.run(case) == [], f"--seed 7 --first {number}: {case}"


@pytest.mark.usefixtures("known")
def test_an_engine_that_differs_for_users_objects_is_found() -> None:
    def broken(x: Any, w: Any, b: Any, activation: Any) -> Any:
        return im2col.dense(x, w, b, activation) + 0.1

    with replaced("dense", "im2col", broken):
        wrong = fuzz_user_code.run(fuzz_user_code.Case(fuzz_calls.RandomDice(7, 0)))
    assert any("differs from the specification" in one for one in wrong), wrong
