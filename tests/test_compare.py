"""The comparison finds a broken kernel, says how to see it again, and passes good ones."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fastcnn
from fastcnn.cli import app
from fastcnn.core.arguments import Array
from fastcnn.engine import im2col
from fastcnn.engine.numba.contraction import column_sums
from fastcnn.engine.numba.runtime import program
from fastcnn.engine.registry import replaced
from fastcnn.models.execution import compiled, executor, lowering
from fastcnn.proof import models
from fastcnn.proof.check import check, reference_of
from fastcnn.proof.problems import WINOGRAD, case_named, operations

Kernel = Callable[..., Any]


def drops_the_last_tap(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    w = w.copy()
    w[-1, -1] = 0
    return im2col.conv2d(x, w, b, activation, g)


def pads_one_too_far(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    """Padding on the left is taken for padding on the right."""
    shift = 1 if g.pad_left else 0
    return im2col.conv2d(np.roll(x, shift, axis=2), w, b, activation, g)


def returns_zeros(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    return np.zeros_like(im2col.conv2d(x, w, b, activation, g))


def forgets_the_bias(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    return im2col.conv2d(x, w, None, activation, g)


def adds_in_half_precision(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    y = im2col.conv2d(x, w, b, activation, g)
    return y.astype(np.float16).astype(y.dtype)


def adds_float64_in_float32(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    y = im2col.conv2d(x, w, b, activation, g)
    return y.astype(np.float32).astype(y.dtype)


def yields_nan(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    y = im2col.conv2d(x, w, b, activation, g)
    y[..., -1:] = np.nan
    return y


def yields_another_dtype(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    return im2col.conv2d(x, w, b, activation, g).astype(np.float16)


def yields_another_shape(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    return im2col.conv2d(x, w, b, activation, g)[..., :1]


def is_not_contiguous(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    return np.asfortranarray(im2col.conv2d(x, w, b, activation, g))


def writes_to_its_input(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
    x *= 2
    return im2col.conv2d(x, w, b, activation, g)


BROKEN = (
    drops_the_last_tap,
    pads_one_too_far,
    returns_zeros,
    forgets_the_bias,
    adds_in_half_precision,
    adds_float64_in_float32,
    yields_nan,
    yields_another_dtype,
    yields_another_shape,
    is_not_contiguous,
    writes_to_its_input,
)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda f: f.__name__)
def test_broken_convolution_is_found_and_its_line_reproduces_it(broken: Kernel) -> None:
    run = CliRunner()
    with replaced("conv2d", "im2col", broken):
        outcome = run.invoke(
            app, shlex.split("compare --quick --op conv2d --engine im2col --seed 3")
        )
        assert outcome.exit_code == 1
        lines = re.findall(r"^fastcnn (compare --case .*) # .*$", outcome.output, re.MULTILINE)
        assert lines
        again = run.invoke(app, shlex.split(lines[0]))
        assert again.exit_code == 1
        assert "0 of 1 checks agree" in again.output
    assert run.invoke(app, shlex.split(lines[0])).exit_code == 0


def last_maximum(dy: Array, x: Array, g: Any) -> Array:
    flipped = im2col.max_pool2d_backward(
        np.ascontiguousarray(dy[:, ::-1, ::-1]), np.ascontiguousarray(x[:, ::-1, ::-1]), g
    )
    return np.ascontiguousarray(flipped[:, ::-1, ::-1])


def padding_counts(x: Array, g: Any) -> Array:
    y = im2col.avg_pool2d(x, g)
    y[:, 0] *= (g.kh - g.pad_top) / g.kh
    return y


def zero_wins_in_padding(x: Array, g: Any) -> Array:
    y = im2col.max_pool2d(x, g)
    if g.pad_top:
        y[:, 0] = np.maximum(y[:, 0], 0)
    return y


def nan_loses(x: Array, g: Any) -> Array:
    return im2col.max_pool2d(np.where(np.isnan(x), -np.inf, x).astype(x.dtype), g)


def overflows(x: Array) -> Array:
    e = np.exp(x)
    return e / e.sum(axis=1, keepdims=True)


def loses_small_logarithms(x: Array) -> Array:
    return np.log(np.maximum(im2col.softmax(x), 1e-7).astype(x.dtype))


def forgets_the_label(scores: Array, labels: Array) -> Array:
    return im2col.softmax(scores)


def bias_of_one_image(dy: Array, g: Any) -> Array:
    return dy[:1].sum(axis=(0, 1, 2))


def transposed_filters(dy: Array, w: Array, g: Any) -> Array:
    return im2col.conv2d_input_gradient(dy, np.ascontiguousarray(w[::-1, ::-1]), g)


def relu_zero_passes(dy: Array, x: Array) -> Array:
    return np.where(x >= 0, dy, 0).astype(dy.dtype)


@pytest.mark.parametrize(
    ("op", "broken"),
    [
        ("max_pool2d_backward", last_maximum),
        ("avg_pool2d", padding_counts),
        ("max_pool2d", zero_wins_in_padding),
        ("max_pool2d", nan_loses),
        ("softmax", overflows),
        ("log_softmax", loses_small_logarithms),
        ("cross_entropy_backward", forgets_the_label),
        ("conv2d_bias_gradient", bias_of_one_image),
        ("conv2d_input_gradient", transposed_filters),
        ("relu_backward", relu_zero_passes),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_broken_operation_is_found(op: str, broken: Kernel) -> None:
    compared = "conv2d_backward" if op == "conv2d_bias_gradient" else op
    with replaced(op, "im2col", broken):
        assert not fastcnn.compare([compared], ["im2col"], quick=True).ok


def test_fault_that_only_the_net_meets_is_found_on_digits() -> None:
    def fails_on_digits(x: Array, w: Array, b: Array | None, activation: Any, g: Any) -> Array:
        y = im2col.conv2d(x, w, b, activation, g)
        y[-1, 4:9, 4:9] += 1e-3
        return y

    with replaced("conv2d", "im2col", fails_on_digits):
        report = fastcnn.compare(["article_net"], ["im2col"], quick=True)
    assert len(report.failures) == len(report.results) == 2


def test_engine_that_raises_is_a_failure_not_a_crash() -> None:
    def raises(x: Array) -> Array:
        raise FloatingPointError("planted")

    with replaced("relu", "im2col", raises):
        report = fastcnn.compare(["relu"], ["im2col"], quick=True)
    assert not report.ok
    assert report.failures[0].problem == "raises FloatingPointError: planted"


def test_bound_that_proves_nothing_fails() -> None:
    expected = reference_of(case_named("softmax/3x17/float32/float"), seed=0)
    vague = type(expected)(
        expected.case,
        expected.seed,
        expected.arrays,
        expected.outputs,
        (np.ones(expected.outputs[0].shape),),
        expected.seconds,
    )
    assert "no smaller than" in str(check(vague, "im2col").problem)


def test_good_engines_agree_and_the_table_says_so(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    outcome = CliRunner().invoke(app, ["compare", "--quick", "--json", str(file)])
    assert outcome.exit_code == 0, outcome.output
    for op in operations():
        assert re.search(rf"^{op} .*agrees", outcome.output, re.MULTILINE)
    written = json.loads(file.read_text("utf-8"))
    assert written["ok"] is True
    others = len(fastcnn.engines()) - 1
    assert len(written["rows"]) == (len(operations()) - len(WINOGRAD)) * others + len(WINOGRAD)
    assert all(case["ok"] and case["share_of_bound"] <= 1 for case in written["cases"])


def test_json_of_failures_is_strict(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with replaced("conv2d", "im2col", yields_nan):
        arguments = ["compare", "--quick", "--op", "conv2d", "--json", str(file)]
        assert CliRunner().invoke(app, arguments).exit_code == 1
    written = json.loads(file.read_text("utf-8"), parse_constant=pytest.fail)
    assert written["ok"] is False
    failed = [case for case in written["cases"] if not case["ok"]]
    assert failed
    assert all(case["engine"] == "im2col" and case["problem"] for case in failed)


def test_report_prints_and_counts() -> None:
    seen: list[tuple[int, int, str]] = []
    report = fastcnn.compare(
        ["relu", "dense"],
        ["im2col"],
        quick=True,
        progress=lambda done, total, name: seen.append((done, total, name)),
    )
    assert [row.op for row in report.rows] == ["dense", "relu"]
    assert f"{len(report.results)} of {len(report.results)} checks agree" in str(report)
    assert seen[0][0] == 0
    assert seen[-1][:2] == (len(report.results), len(report.results))


def test_same_seed_same_numbers() -> None:
    first, again, other = (
        fastcnn.compare(["dense"], ["im2col"], quick=True, seed=seed) for seed in (5, 5, 6)
    )
    errors = [[result.worst_absolute for result in r.results] for r in (first, again, other)]
    assert errors[0] == errors[1] != errors[2]


# --- whole nets -----------------------------------------------------------------------------------


def test_models_agree_and_the_table_says_so(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    outcome = CliRunner().invoke(app, ["compare", "--model", "--json", str(file)])
    assert outcome.exit_code == 0, outcome.output
    for net in models.NETS:
        assert re.search(rf"^{net} +executor .*agrees", outcome.output, re.MULTILINE)
    written = json.loads(file.read_text("utf-8"))
    assert written["ok"] is True
    assert len(written["rows"]) == len(models.NETS) * len(fastcnn.engines())
    # Bounds are no worst case: a sum of terms that cancel comes nearer to its bound than others.
    assert all(0 <= case["share_of_bound"] <= 0.75 for case in written["cases"])
    assert all(
        (case["share_of_bound"] == 0) == case["case"].endswith("exact") for case in written["cases"]
    )


def a_slice_less(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = column_sums.Slabs
    monkeypatch.setattr(column_sums, "Slabs", lambda count, *rest: whole(count - 1, *rest))


def no_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering.Lowering, "_bias", lambda self, to: to.zeros)


def handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor.Executor, "gradients", lambda *_: None)


def one_label(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compiled.train
    monkeypatch.setattr(compiled, "train", lambda *given: whole(*given[:-1], given[-1] - 8))


@pytest.mark.skipif(not program.compiles(), reason="programs are of compiled code")
@pytest.mark.parametrize(
    ("fault", "modes"),
    [
        (a_slice_less, {"exact", "float"}),
        (no_bias, {"exact", "float"}),
        (handed_back, {"exact", "float"}),
        (one_label, {"float"}),
    ],
)
def test_broken_executor_is_found_and_its_line_reproduces_it(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[Any], None], modes: set[str]
) -> None:
    run = CliRunner()
    with monkeypatch.context() as patched:
        fault(patched)
        outcome = run.invoke(app, shlex.split("compare --model --op lenet5 --seed 3"))
        assert outcome.exit_code == 1
        lines = re.findall(r"^fastcnn (compare --case .*) # .*$", outcome.output, re.MULTILINE)
        assert len(lines) == 2 * len(modes)  # in both dtypes, and no engine is to blame
        assert all("--engine executor" in line for line in lines)
        assert {line.split("'")[1].split("/")[-1] for line in lines} == modes
        assert run.invoke(app, shlex.split(lines[0])).exit_code == 1
    assert run.invoke(app, shlex.split(lines[0])).exit_code == 0


def test_broken_operation_is_found_in_a_net() -> None:
    with replaced("conv2d", "im2col", forgets_the_bias):
        report = fastcnn.compare(["lenet5"], ["im2col"], models=True, quick=True)
        assert len(report.failures) == 2
        executor_off = fastcnn.compare(["lenet5"], ["executor"], models=True, quick=True)
    assert "layer by layer: conv2d is replaced" in str(executor_off.failures[0].problem)


@pytest.mark.parametrize("case", [c for c in models.model_cases() if c.mode == "exact"])
def test_exact_nets_are_exact_in_any_order_of_summation(case: models.ModelCase) -> None:
    """The net on absolute values bounds all partial sums: integers that the dtype holds."""
    reference = models.model_reference_of(case, seed=0)
    model = models._model(case._replace(dtype="float64"), "im2col")
    model.set_weights([abs(a) for a in reference.parameters])
    images = [abs(array) for array in reference.data[0]]
    far = [y + 4 for y in models.forward(model, images)]  # all gradients of one sign
    _, outputs = models.results_of(model, (images, far, None), model._goal("mse"))
    for name, y, most in zip(reference.names, reference.outputs, outputs, strict=True):
        assert y.any(), name
        unit = abs(y[y != 0]).min()
        assert abs(most).max() / unit < 2 ** (np.finfo(case.dtype).nmant + 1), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ops": ["relu"], "models": True}, "op must be one of article, .*'relu'"),
        ({"engines": ["executor"]}, "engine must be one of .*'executor'"),
        ({"case": "model/lenet5/float32/vague"}, "case must name .*vague"),
        ({"ops": ["conv3d"]}, "op must be one of conv2d, .*'conv3d'"),
        ({"ops": "conv2d"}, "ops must be a list"),
        ({"engines": ["cuda"]}, "engine must be one of .*'cuda'"),
        ({"engines": ["naive"]}, "'naive' is the specification"),
        ({"engines": "numba"}, "engines must be a list"),
        ({"seed": -1}, "seed must be .*-1"),
        ({"seed": 1.5}, "seed must be .*1.5"),
        ({"case": "conv2d/nothing"}, "case must name .*'conv2d/nothing'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        fastcnn.compare(**arguments)
