"""All engines on the whole matrix: integers to the last bit, floats within derived bounds."""

from __future__ import annotations

import numpy as np
import pytest

import fastcnn
from fastcnn.engine.registry import OPERATIONS
from fastcnn.proof.article_net import clear_maxima
from fastcnn.proof.bounds import bounds, unit_roundoff
from fastcnn.proof.check import EXACT_MODES, REFERENCE, call, check, reference_of
from fastcnn.proof.data import MODES, make_arrays
from fastcnn.proof.problems import CHANNELS, Case, Problem, case_named, cases, operations, problems

OTHERS = [engine for engine in fastcnn.engines() if engine != REFERENCE]


@pytest.mark.parametrize("problem", problems(), ids=lambda problem: problem.name)
def test_engines_agree_with_the_specification(problem: Problem) -> None:
    engines = [engine for engine in OTHERS if problem.runs_on(engine)]
    cases = [Case(problem, dtype, mode) for dtype in problem.dtypes for mode in problem.modes]
    references = [reference_of(case, seed=1) for case in cases]
    results = [check(reference, engine) for reference in references for engine in engines]
    assert results
    failed = [f"{result.command}: {result.problem}" for result in results if not result.ok]
    assert not failed, "\n".join(failed)


def test_specification_reproduces_itself_on_integers_in_either_dtype() -> None:
    for case in cases(quick=True):
        if case.mode in EXACT_MODES and case.dtype == "float32":
            narrow = call(case.problem, make_arrays(case, 2), REFERENCE)
            wide_arrays = {
                k: v if k == "mask" else v.astype(np.float64)
                for k, v in make_arrays(case, 2).items()
            }
            for a, b in zip(narrow, call(case.problem, wide_arrays, REFERENCE), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=case.name)


def test_matrix_covers_every_operation_of_every_engine() -> None:
    assert set(OPERATIONS) <= set(operations())
    assert "conv2d_backward" in operations()


def test_matrix_holds_what_engines_get_wrong() -> None:
    layers = [p.geometry for p in problems() if p.op == "conv2d"]
    windows = [p.geometry for p in problems() if p.op == "max_pool2d"]
    assert {g.ic for g in layers} >= set(CHANNELS) <= {g.oc for g in layers}
    assert {g.w for g in layers} >= set(range(5, 18)) <= {g.w for g in windows}
    assert any(g.n == 0 for g in layers)
    assert any(g.groups > 1 and g.depthwise for g in layers)
    assert any(g.groups > 1 and not g.depthwise for g in layers)
    square = {p.label for p in problems() if p.geometry and p.geometry.h == p.geometry.w}
    assert square == {"article-3x3", "article-2x2", "one-pixel"}
    for pair in ("stride_h stride_w", "pad_top pad_bottom", "pad_left pad_right", "kh kw"):
        first, second = pair.split()
        for some in (layers, windows):
            assert any(getattr(g, first) < getattr(g, second) for g in some), pair
            assert any(getattr(g, first) > getattr(g, second) for g in some), pair
    assert any(g.dilation_h < g.dilation_w for g in layers)
    assert any(g.dilation_h > g.dilation_w for g in layers)


def test_every_case_is_found_by_its_name() -> None:
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)
    assert case_named(names[-1]) == cases()[-1]
    with pytest.raises(ValueError, match="relu/17x3/float32/exact"):
        case_named("relu/17x3/float32/exact")


def test_modes_are_all_used() -> None:
    assert {case.mode for case in cases()} == set(MODES)


@pytest.mark.parametrize("op", operations())
def test_data_are_read_only_reproducible_and_never_constant(op: str) -> None:
    for case in cases([op], quick=True):
        arrays, again, other = make_arrays(case, 0), make_arrays(case, 0), make_arrays(case, 1)
        for name, array in arrays.items():
            message = f"{name} of {case.name}"
            assert not array.flags.writeable, message
            np.testing.assert_array_equal(array, again[name], err_msg=message)
            if array.size > 3 and name not in ("labels", "mask"):
                assert len(np.unique(array)) > 1, message
                assert not np.array_equal(array, other[name], equal_nan=True), message


def test_partial_sums_of_exact_data_are_exact() -> None:
    for case in cases(["conv2d", "dense", "conv2d_filter_gradient"]):
        if case.mode == "exact":
            arrays = {k: np.abs(v.astype(np.float64)) for k, v in make_arrays(case, 0).items()}
            parameters = {k: v for k, v in case.problem.parameters.items() if k != "activation"}
            plain = Problem(case.problem.op, "", case.problem.arrays, parameters)
            (largest,) = call(plain, arrays, "im2col")
            assert largest.max(initial=0) < 2 ** (np.finfo(case.dtype).nmant + 1)


def test_bound_of_a_dot_product_is_the_textbook_one() -> None:
    case = case_named("dense/1x1352-to-10/float32/float")
    arrays = make_arrays(case, 0)
    y = call(case.problem, arrays, REFERENCE)
    (bound,) = bounds(case.problem, arrays, y)
    x, w, b = (arrays[name].astype(np.float64) for name in "xwb")
    u = unit_roundoff("float32")
    n = 1352 + 1
    textbook = n * u / (1 - n * u) * (abs(x) @ abs(w) + abs(b)) + u * abs(y[0])
    np.testing.assert_allclose(bound, textbook, rtol=1e-8)


def test_float64_results_lie_within_the_float64_bound_of_float32_inputs() -> None:
    """The bound of float32 is not needed by float64: it would hide a float32 accumulator."""
    case = case_named("conv2d/kernel-4x5/float64/float")
    expected = reference_of(case, 0)
    x32 = {name: array.astype(np.float32) for name, array in expected.arrays.items()}
    (rounded,) = call(case.problem, x32, "im2col")
    assert (np.abs(rounded - expected.outputs[0]) > expected.bounds[0]).any()


def test_digits_with_a_maximum_that_rounding_decides_are_passed_over() -> None:
    x = np.random.default_rng(0).standard_normal((2, 28, 28, 1))
    x[0, 11, 11], x[0, 11, 12] = 5, 5 + 1e-9  # side by side in one window of the pooling
    middle = np.zeros((3, 3, 1, 8))
    middle[1, 1] = 1
    assert clear_maxima(x, middle).tolist() == [True, True]
    narrow = clear_maxima(x.astype(np.float32), middle.astype(np.float32))
    assert narrow.tolist() == [False, True]
