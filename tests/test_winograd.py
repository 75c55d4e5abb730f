"""Winograd's filtering: exact matrices, the same numbers as direct, the same bits everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from processes import python

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, conv_geometry, pool_geometry
from fastcnn.core.minimal_filtering import filtering
from fastcnn.engine import policy
from fastcnn.engine.numba.conv import winograd, winograd_gradient, winograd_plan
from fastcnn.engine.numba.pool.operations import argmax_gradient
from fastcnn.engine.registry import replaced
from fastcnn.layers import Conv2D
from fastcnn.proof.check import check, reference_of
from fastcnn.proof.problems import case_named


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = fastcnn.get_num_threads()
    yield
    fastcnn.set_num_threads(before)


@pytest.mark.parametrize(
    ("m", "r"), [(2, 3), (4, 3), (3, 4), (2, 5), (5, 2), (3, 2), (1, 2), (2, 1)]
)
def test_matrices_make_a_filter_of_fewer_products(m: int, r: int) -> None:
    rng = np.random.default_rng(m * 10 + r)
    inputs, filters, outputs = (np.array(matrix) for matrix in filtering(m, r))
    d, g = (np.array([Fraction(int(v)) for v in rng.integers(-9, 10, k)]) for k in (m + r - 1, r))
    y = outputs @ ((filters @ g) * (inputs @ d))
    assert list(y) == [sum(d[i : i + r] * g) for i in range(m)]


@pytest.mark.parametrize(("m", "r"), [(0, 3), (5, 3), (3, 0)])
def test_matrices_of_what_there_is_not(m: int, r: int) -> None:
    with pytest.raises(ValueError, match=rf"from 2 to 6, got F\({m}, {r}\)"):
        filtering(m, r)


LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Any]] = {
    # Whole squares, squares at the edges, images smaller than a square, padding of all kinds.
    "whole-squares": ((1, 10, 18, 16), (3, 3, 16, 32), 0),
    "edges": ((2, 9, 13, 5), (3, 3, 5, 37), 1),
    "small-squares": ((3, 5, 6, 17), (3, 3, 17, 8), ((0, 1), (1, 0))),
    "one-output": ((2, 3, 3, 7), (3, 3, 7, 3), 0),
    "one-row": ((1, 1, 23, 3), (3, 3, 3, 4), 1),
    "wide-padding": ((2, 6, 7, 33), (3, 3, 33, 70), ((4, 0), (3, 5))),
    "many-filters": ((2, 7, 9, 150), (3, 3, 150, 250), 1),
    "many-squares": ((2, 61, 83, 6), (3, 3, 6, 9), 1),
    "five-by-five": ((2, 9, 6, 19), (5, 5, 19, 10), ((2, 1), (0, 6))),
    "many-filters-of-five": ((1, 6, 7, 130), (5, 5, 130, 140), 2),
}


def arrays(layer: str) -> tuple[Array, Array, Array, Array, Any, ConvGeometry]:
    """x, w, b, dy, the padding, the geometry."""
    x_shape, w_shape, padding = LAYERS[layer]
    g = conv_geometry(x_shape, w_shape, padding=padding)
    rng = np.random.default_rng(len(layer))
    drawn = [rng.standard_normal(s) for s in (x_shape, w_shape, w_shape[3:], g.output_shape)]
    for array in drawn:
        array.setflags(write=False)
    x, w, b, dy = (array.astype("float32") for array in drawn)
    return x, w, b, dy, padding, g


def assert_close(found: Array, expected: Array) -> None:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    tolerance = 300 * float(np.finfo(np.float32).eps) * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("layer", LAYERS)
def test_numbers_are_those_of_the_direct_sum(layer: str) -> None:
    x, w, b, dy, padding, _ = arrays(layer)
    exact = {"padding": padding, "algorithm": "direct"}
    fast = {"padding": padding, "algorithm": "winograd"}
    x64, w64, b64, dy64 = (array.astype("float64") for array in (x, w, b, dy))
    y = fastcnn.conv2d(x, w, b, activation="relu", **fast)
    assert_close(y, fastcnn.conv2d(x64, w64, b64, activation="relu", **exact))
    y = fastcnn.conv2d(x, w, **fast)
    assert_close(y, fastcnn.conv2d(x64, w64, **exact))
    dx = fastcnn.conv2d_input_gradient(dy, w, x.shape, **fast)
    assert_close(dx, fastcnn.conv2d_input_gradient(dy64, w64, x.shape, **exact))
    size = w.shape[:2]
    dw = fastcnn.conv2d_filter_gradient(dy, x, size, **fast)
    assert_close(dw, fastcnn.conv2d_filter_gradient(dy64, x64, size, **exact))


def test_layers_above_take_both_ways_and_both_squares() -> None:
    orders, sides, slabs = set(), set(), set()
    for layer in LAYERS:
        *_, g = arrays(layer)
        for plan in (winograd_plan.forward_plan(g, 4), winograd_plan.input_gradient_plan(g, 4)):
            orders.add(plan.by_columns)
            sides.add((policy.squares(g).side, g.kh))
        slabs.add(winograd_gradient.gradient_plan(g, 4).slabs > 1)
    assert orders == slabs == {True, False}
    assert sides == {(2, 3), (4, 3), (2, 5)}


@pytest.mark.parametrize("layer", LAYERS)
def test_bits_do_not_depend_on_threads_batch_or_way(
    layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w, b, dy, padding, g = arrays(layer)
    operands = {"padding": padding, "algorithm": "winograd"}

    def bits(k: slice) -> list[bytes]:
        shape = x[k].shape
        y = fastcnn.conv2d(x[k], w, b, **operands)
        dx = fastcnn.conv2d_input_gradient(dy[k], w, shape, **operands)
        pooled = winograd.conv2d_pooled_with_indices(x[k], w, b, None, g._replace(n=len(x[k])))
        return [array.tobytes() for array in (y, dx, *pooled)]

    def of_filters() -> bytes:
        return fastcnn.conv2d_filter_gradient(dy, x, w.shape[:2], **operands).tobytes()

    together, alone, dw = bits(slice(None)), bits(slice(-1, None)), of_filters()
    assert all(one.endswith(other) for one, other in zip(together, alone, strict=True))
    for count in (1, 3, 7):
        fastcnn.set_num_threads(count)
        assert bits(slice(None)) == together
        assert of_filters() == dw
    for refusal in (None, "by columns"):  # in each order, in as many passes as can be
        monkeypatch.setattr(
            winograd_plan, "not_by_squares", lambda *problem, refusal=refusal: refusal
        )
        monkeypatch.setattr(winograd_plan, "BLOCKS_AT_ONCE", 1)
        monkeypatch.setattr(winograd_plan, "CHUNK", 5)
        monkeypatch.setattr(winograd_gradient, "LEAST_PASS", 1)
        monkeypatch.setattr(winograd_gradient, "MOST_PASS", 1)
        _forget_plans()
        assert bits(slice(None)) == together
        assert of_filters() == dw
    _forget_plans()


def _forget_plans() -> None:
    winograd_plan.forward_plan.cache_clear()
    winograd_plan.input_gradient_plan.cache_clear()
    winograd_gradient.gradient_plan.cache_clear()


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(
    "layer", [name for name in LAYERS if name not in ("one-output", "one-row")]
)
def test_with_pooling_at_once(layer: str, activation: Any) -> None:
    x, w, b, _, _, g = arrays(layer)
    for operands in (b, None):
        y = winograd.conv2d(x, w, operands, activation, g)
        result = winograd.conv2d_pooled(x, w, operands, activation, g)
        np.testing.assert_array_equal(result, fastcnn.max_pool2d(y, 2))
    spoiled = x.copy()
    spoiled[-1, 1, 2, 0] = np.inf
    y = winograd.conv2d(spoiled, w, b, activation, g)
    result = winograd.conv2d_pooled(spoiled, w, b, activation, g)
    np.testing.assert_array_equal(result, fastcnn.max_pool2d(y, 2))
    assert winograd.conv2d_pooled(x[:0], w, b, activation, g._replace(n=0)).shape[0] == 0


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(
    "layer", [name for name in LAYERS if name not in ("one-output", "one-row")]
)
def test_places_of_pooling_at_once_lead_back(layer: str, activation: Any) -> None:
    """Beside a large bias numbers that differ become equal; beside NaN all are."""
    x, w, b, _, _, g = arrays(layer)
    dy = np.random.default_rng(1).integers(1, 9, (g.n, g.oh // 2, g.ow // 2, g.oc))
    dy = dy.astype(np.float32)
    of_pool = pool_geometry(g.output_shape, 2, stride=2)
    large, spoiled = b + np.float32(1e7), b.copy()
    spoiled[::2] = np.nan
    for value in (None, np.inf, -np.inf, np.nan):
        images = x.copy()
        if value is not None:
            images[-1, 1, 2, 0] = value
        for bias in (b, None, large, spoiled):
            operands = images, w, bias, activation, g
            with np.errstate(invalid="ignore"):
                whole, pooled = winograd.conv2d(*operands), winograd.conv2d_pooled(*operands)
                y, places = winograd.conv2d_pooled_with_indices(*operands)
                dy_of_sums = np.where(y > 0, dy, 0) if activation else dy
                expected = fastcnn.max_pool2d_backward(dy_of_sums, whole, 2, engine="naive")
            assert y.tobytes() == pooled.tobytes()
            result = argmax_gradient(dy_of_sums, places, of_pool)
            np.testing.assert_array_equal(result, expected)
    y, places = winograd.conv2d_pooled_with_indices(x[:0], w, b, activation, g._replace(n=0))
    assert y.shape == places.shape == (0, *dy.shape[1:])


def test_small_squares_are_exact_on_small_integers() -> None:
    """F(2×2, 3×3) divides by 4 at most, and adds."""
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, s).astype("float32") for s in ((2, 5, 2, 33), (3, 3, 33, 40)))
    operands: dict[str, Any] = {"padding": ((1, 2), (2, 0))}
    assert policy.squares(conv_geometry(x.shape, w.shape, **operands)).side == 2
    y = fastcnn.conv2d(x, w, algorithm="winograd", **operands)
    np.testing.assert_array_equal(y, fastcnn.conv2d(x, w, engine="naive", **operands))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("layer", ["edges", "small-squares", "many-filters"])
def test_what_is_not_finite_goes_where_a_direct_sum_has_it(layer: str, value: float) -> None:
    x, w, b, dy, padding, _ = arrays(layer)
    for k, array in enumerate((x, w, b, dy)):
        spoiled = [a.copy() for a in (x, w, b, dy)]
        spoiled[k].reshape(-1)[array.size // 3] = value
        bad_x, bad_w, bad_b, bad_dy = spoiled
        results = []
        with np.errstate(all="ignore"):
            for algorithm in ("winograd", "direct"):
                call = {"padding": padding, "algorithm": algorithm}
                y = fastcnn.conv2d(bad_x, bad_w, bad_b, **call)
                cut = fastcnn.conv2d(bad_x, bad_w, bad_b, activation="relu", **call)
                dx = fastcnn.conv2d_input_gradient(bad_dy, bad_w, x.shape, **call)
                dw = fastcnn.conv2d_filter_gradient(bad_dy, bad_x, w.shape[:2], **call)
                results.append((y, cut, dx, dw))
        assert value == 3e38 or not all(np.isfinite(exact).all() for exact in results[1])
        for fast, exact in zip(*results, strict=True):
            finite = np.isfinite(exact)
            np.testing.assert_array_equal(np.isfinite(fast), finite)
            np.testing.assert_array_equal(fast[~finite], exact[~finite])


def test_an_image_of_nan_leaves_the_bits_of_the_others() -> None:
    x, w, b, _, padding, _ = arrays("edges")
    spoiled = x.copy()
    spoiled[0] = np.nan
    call = {"padding": padding, "algorithm": "winograd"}
    y, clean = fastcnn.conv2d(spoiled, w, b, **call), fastcnn.conv2d(x, w, b, **call)
    assert np.isnan(y[0]).any()
    assert y[1].tobytes() == clean[1].tobytes()
    _forget_plans()  # and the memory that they keep: no image is in doubt from an earlier call
    assert fastcnn.conv2d(x, w, b, **call).tobytes() == clean.tobytes()


def test_empty_batch() -> None:
    x, w = np.ones((0, 5, 7, 3), "float32"), np.ones((3, 3, 3, 4), "float32")
    assert fastcnn.conv2d(x, w, algorithm="winograd").shape == (0, 3, 5, 4)
    dy = np.ones((0, 3, 5, 4), "float32")
    dx = fastcnn.conv2d_input_gradient(dy, w, x.shape, algorithm="winograd")
    assert dx.shape == x.shape
    assert not fastcnn.conv2d_filter_gradient(dy, x, 3, algorithm="winograd").any()


@pytest.mark.parametrize(("side", "limit"), [(4, 2e-5), (2, 5e-6)])
def test_error_on_512_channels(side: int, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the largest output, on normal data."""
    cut = policy.squares
    monkeypatch.setattr(policy, "squares", lambda g: cut(g) if side == 4 else _small(g))
    winograd_plan.forward_plan.cache_clear()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 13, 14, 512), np.float32)
    w = rng.standard_normal((3, 3, 512, 64), np.float32)
    y = fastcnn.conv2d(x, w, padding=1, algorithm="winograd")
    winograd_plan.forward_plan.cache_clear()
    exact = fastcnn.conv2d(x.astype("float64"), w.astype("float64"), padding=1, math="strict")
    error = np.abs(y - exact).max() / np.abs(exact).max()
    assert limit / 100 < error <= limit


def _small(g: ConvGeometry) -> policy.Squares:
    return policy.Squares(2, -(-g.oh // 2), -(-g.ow // 2), 16)


def test_bound_is_kept_and_finds_a_tap_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_named("winograd/edges/float32/float")
    reference = reference_of(case, 0)
    assert check(reference, "numba").ok
    turn = winograd.conv2d

    def off(x: Array, w: Array, *rest: Any) -> Array:
        w = w.copy()
        w[1, 2] *= 1.01
        return turn(x, w, *rest)

    with replaced("conv2d", "numba", off):
        assert "disagree" in str(check(reference, "numba").problem)


# The choice.


def told(*args: Any, **kwargs: Any) -> str:
    return str(fastcnn.explain("conv2d", *args, **kwargs))


LARGE: tuple[Any, ...] = (1, 28, 28, 64), (3, 3, 64, 64)


def test_auto_takes_winograd_where_math_dtype_and_size_allow() -> None:
    assert told(*LARGE).startswith("conv2d: numba.winograd")
    assert "math fast" in told(*LARGE)
    assert "not numba.winograd: math is strict" in told(*LARGE, math="strict")
    with fastcnn.use_math("strict"):
        assert "not numba.winograd: math is strict" in told(*LARGE)
        assert told(*LARGE, math="fast").startswith("conv2d: numba.winograd")
    x, w = (np.zeros(shape) for shape in LARGE)
    assert "not numba.winograd: it is made for float32" in told(x, w)
    assert "times as long as direct" in told((1, 9, 8, 3), (3, 3, 3, 4))
    assert "made for stride 1, not (2, 2)" in told(*LARGE, stride=2)
    assert "without dilation, not (2, 1)" in told(*LARGE, dilation=(2, 1))
    assert "made for one group of channels, not 2" in told((1, 28, 28, 128), LARGE[1], groups=2)
    assert "3×3 and 5×5, not 3×5" in told((1, 28, 28, 64), (3, 5, 64, 64))


def test_a_named_algorithm_serves_or_fails() -> None:
    for algorithm, name in (
        ("direct", "numba.direct"),
        ("winograd", "numba.winograd"),
        ("im2col", "im2col.conv2d"),
    ):
        explained = told(*LARGE, algorithm=algorithm, math="strict")
        assert explained.startswith(f"conv2d: {name}")
        assert f"algorithm: {algorithm}" in explained
    with pytest.raises(ValueError, match=r"got 'winograd': numba.winograd: it is made for stride"):
        told(*LARGE, algorithm="winograd", stride=2)
    with pytest.raises(ValueError, match=r"im2col.conv2d: the engine 'numba' was asked for"):
        told(*LARGE, algorithm="im2col", engine="numba")
    with pytest.raises(ValueError, match=r'algorithm must be one of "auto", .* got \'fft\''):
        told(*LARGE, algorithm="fft")
    with pytest.raises(TypeError, match=r"algorithm must be one of .* got 3"):
        told(*LARGE, algorithm=3)


@pytest.mark.parametrize("bad", ["quick", 1])
def test_math_is_fast_or_strict(bad: Any) -> None:
    kind = ValueError if isinstance(bad, str) else TypeError
    match = f'math must be "fast" or "strict", got {bad!r}'
    with pytest.raises(kind, match=match):
        fastcnn.set_math(bad)
    with pytest.raises(kind, match=match):
        told(*LARGE, math=bad)
    with pytest.raises(kind, match=match), fastcnn.use_math(bad):
        pass


def test_math_is_set_for_all_or_here() -> None:
    before = fastcnn.get_math()
    try:
        fastcnn.set_math("strict")
        assert fastcnn.get_math() == "strict"
        with fastcnn.use_math("fast"):
            assert fastcnn.get_math() == "fast"
        assert fastcnn.get_math() == "strict"
    finally:
        fastcnn.set_math(before)
    ask = "import fastcnn; print(fastcnn.get_math())"
    assert python("-c", ask, FASTCNN_MATH="strict").stdout.strip() == "strict"
    wrong = python("-c", ask, check=False, FASTCNN_MATH="loose")
    assert 'FASTCNN_MATH must be "fast" or "strict", got \'loose\'' in wrong.stderr


def test_choice_does_not_depend_on_the_batch() -> None:
    for side in (4, 7, 9, 14, 30):
        for channels in (8, 16, 24, 32, 64, 512):
            chosen = {
                told((n, side, side + 1, channels), (3, 3, channels, 40)).split(",")[0]
                for n in (1, 2, 64)
            }
            assert len(chosen) == 1


def test_layers_keep_their_algorithm() -> None:
    layer = Conv2D(8, 3, algorithm="winograd")
    assert layer.config()["algorithm"] == "winograd"
    assert Conv2D.from_config(layer.config()).config() == layer.config()
    old = layer.config()
    del old["algorithm"]  # a file of before there was a choice
    assert Conv2D.from_config(old).config()["algorithm"] == "auto"
    layer.build((9, 8, 4), np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((2, 9, 8, 4), np.float32)
    y, saved = layer.forward(x, True, None, None)
    w, b = layer.parameters["w"], layer.parameters["b"]
    assert y.tobytes() == fastcnn.conv2d(x, w, b, algorithm="winograd").tobytes()
    dx, gradients = layer.backward(y, saved, None)
    expected = fastcnn.conv2d_input_gradient(y, w, x.shape, algorithm="winograd")
    assert dx is not None
    assert dx.tobytes() == expected.tobytes()
    expected = fastcnn.conv2d_filter_gradient(y, x, 3, algorithm="winograd")
    assert gradients["w"].tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match=r'"winograd" for this layer: it is made for stride 1'):
        Conv2D(8, 3, strides=2, algorithm="winograd").infer((9, 8, 4))
    with pytest.raises(ValueError, match="algorithm must be one of"):
        Conv2D(8, 3, algorithm="fft")  # type: ignore[arg-type]
