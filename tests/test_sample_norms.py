"""Layer, group and local response normalisation: values of the definitions, slopes, far and long.

On the matrix of ``fastcnn compare`` engines are held against the specification in
``test_agreement.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from slopes import same, slope

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH

ENGINES = fastcnn.engines()
FAST = [engine for engine in ENGINES if engine != "naive"]

every_engine = pytest.mark.parametrize("engine", ENGINES)
fast_engines = pytest.mark.parametrize("engine", FAST)

X = np.array([[1, 2, 4, -3], [0.5, 0.25, 8, 1]])
DY = np.array([[1, -2, 3, 0.5], [2, 1, -1, 4]])
GAMMA, BETA = np.array([1, 2, 0.5, -1]), np.array([0.0, 1, -1, 2])


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


# --- layer normalisation -------------------------------------------------------------------------


@every_engine
def test_layer_normalisation_has_the_values_of_pytorch(engine: str) -> None:
    y = fastcnn.layer_norm(X, GAMMA, BETA, engine=engine)
    np.testing.assert_allclose(y, [
        [0.0, 1.7844042040883503, -0.4116968469337372, 3.5688084081767006],
        [-0.6011482953478834, -0.35743163465651073, -0.13706131796836096, 2.4460132513871393],
    ], rtol=1e-12, atol=1e-15)  # fmt: skip
    dx, dgamma, dbeta = fastcnn.layer_norm_backward(DY, X, GAMMA, engine=engine)
    np.testing.assert_allclose(dx, [
        [0.5883031530662627, -1.4104132968219887, 0.6712863850862233, 0.15082375866950284],
        [0.5829160528883355, 0.573056971089003, 0.10301328706459009, -1.2589863110419288],
    ], rtol=1e-12)  # fmt: skip
    expected = [-1.2022965906957668, -1.4631200214166058, 1.8039415543342987, -2.5684572096369074]
    np.testing.assert_allclose(dgamma, expected, rtol=1e-12)
    np.testing.assert_allclose(dbeta, [3, -1, 2, 4.5], rtol=1e-12)


@every_engine
@pytest.mark.parametrize("features", [(5,), (3, 5), (2, 3, 5)])
def test_a_row_is_as_many_of_the_last_axes_as_gamma_has(
    features: tuple[int, ...], engine: str
) -> None:
    x, gamma, beta = normal(4, 2, 3, 5), normal(*features, seed=1), normal(*features, seed=2)
    y = fastcnn.layer_norm(x, gamma, beta, 0.01, engine=engine)
    over = tuple(range(4 - len(features), 4))
    mean, variance = x.mean(over, keepdims=True), x.var(over, keepdims=True)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 0.01) * gamma + beta, rtol=1e-10)
    dx, dgamma, dbeta = fastcnn.layer_norm_backward(x, x, gamma, engine=engine)
    assert (dx.shape, dgamma.shape, dbeta.shape) == (x.shape, features, features)


@every_engine
def test_slope_of_layer_normalisation(engine: str) -> None:
    x, dy = normal(3, 2, 7), normal(3, 2, 7, seed=1)
    gamma, beta = normal(7, seed=2), normal(7, seed=3)

    def value() -> float:
        return float((fastcnn.layer_norm(x, gamma, beta, 0.1, engine=engine) * dy).sum())

    gradients = fastcnn.layer_norm_backward(dy, x, gamma, 0.1, engine=engine)
    for gradient, at in zip(gradients, (x, gamma, beta), strict=True):
        same(gradient, slope(value, at))


@every_engine
def test_a_row_of_equal_numbers_becomes_beta(engine: str) -> None:
    x, beta = np.full((2, 5), 3.7, np.float32), np.arange(5, dtype=np.float32)
    y = fastcnn.layer_norm(x, np.ones(5, np.float32), beta, engine=engine)
    np.testing.assert_allclose(y, [beta, beta], atol=1e-5)
    one = fastcnn.layer_norm(x[:, :1], np.ones(1, np.float32), beta[2:3], engine=engine)
    np.testing.assert_array_equal(one, [[2], [2]])


@fast_engines
@pytest.mark.parametrize("features", [STRETCH - 1, STRETCH, STRETCH + 1, 3 * STRETCH + 5])
def test_rows_around_the_length_of_a_stretch(features: int, engine: str) -> None:
    rows = 9
    x = (normal(rows, features) * 3 + 200).astype(np.float32)
    dy = normal(rows, features, seed=1).astype(np.float32)
    gamma, beta = (normal(features, seed=seed).astype(np.float32) for seed in (2, 3))
    y = fastcnn.layer_norm(x, gamma, beta, engine=engine)
    wide = tuple(array.astype(np.float64) for array in (x, gamma, beta))
    exact = fastcnn.layer_norm(*wide, engine="naive")
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)
    gradients = fastcnn.layer_norm_backward(dy, x, gamma, engine=engine)
    reference = fastcnn.layer_norm_backward(dy.astype(np.float64), *wide[:2], engine="naive")
    for gradient, exact in zip(gradients, reference, strict=True):
        np.testing.assert_allclose(gradient, exact, rtol=1e-4, atol=1e-5 * abs(exact).max())


# --- group normalisation -------------------------------------------------------------------------


@every_engine
def test_group_normalisation_has_the_values_of_pytorch(engine: str) -> None:
    x, dy = X.reshape(1, 1, 2, 4), DY.reshape(1, 1, 2, 4)
    y = fastcnn.group_norm(x, 2, GAMMA, BETA, engine=engine)
    np.testing.assert_allclose(y[0, 0], [
        [0.09314686195091504, 4.166993306331114, -0.813953622532043, 3.364340101431686],
        [-0.6520280336564059, -1.0492309629201326, -0.3178299492841572, 2.3720927549359145],
    ], rtol=1e-12)  # fmt: skip
    dx, dgamma, dbeta = fastcnn.group_norm_backward(dy, x, 2, GAMMA, engine=engine)
    np.testing.assert_allclose(dx[0, 0], [
        [1.4507298863048614, -0.6735383834662674, 0.5419226107323829, 0.26617877664874395],
        [0.27733933436846314, -1.0545308372070563, -0.08013239918078674, -0.72796898820034],
    ], rtol=1e-12)  # fmt: skip
    expected = [-1.2109092053618966, -4.19160878779118, -0.24806183662394288, -2.1705410704595]
    np.testing.assert_allclose(dgamma, expected, rtol=1e-12)
    np.testing.assert_allclose(dbeta, [3, -1, 2, 4.5], rtol=1e-12)


@every_engine
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_slope_of_group_normalisation(groups: int, engine: str) -> None:
    x, dy = normal(2, 3, 2, 6), normal(2, 3, 2, 6, seed=1)
    gamma, beta = normal(6, seed=2), normal(6, seed=3)

    def value() -> float:
        return float((fastcnn.group_norm(x, groups, gamma, beta, 0.1, engine=engine) * dy).sum())

    gradients = fastcnn.group_norm_backward(dy, x, groups, gamma, 0.1, engine=engine)
    for gradient, at in zip(gradients, (x, gamma, beta), strict=True):
        same(gradient, slope(value, at))


@every_engine
def test_one_group_is_layer_normalisation_and_a_group_for_each_channel_is_of_each_image(
    engine: str,
) -> None:
    x, ones, zeros = normal(3, 4, 5, 6), np.ones(6), np.zeros(6)
    whole = np.ones((4, 5, 6)), np.zeros((4, 5, 6))
    y = fastcnn.group_norm(x, 1, ones, zeros, engine=engine)
    np.testing.assert_allclose(y, fastcnn.layer_norm(x, *whole, engine=engine), rtol=1e-10)
    y = fastcnn.group_norm(x, 6, ones, zeros, 0.0, engine=engine)
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.std((1, 2)), 1, rtol=1e-12)
    rows = normal(5, 6)
    y = fastcnn.group_norm(rows, 1, ones, zeros, engine=engine)
    np.testing.assert_allclose(y, fastcnn.layer_norm(rows, ones, zeros, engine=engine), rtol=1e-10)


@fast_engines
@pytest.mark.parametrize("pixels", [1, 3, 255, 256, 257, 300, 769, 1031])
def test_images_of_any_number_of_pixels(pixels: int, engine: str) -> None:
    """Chunks of 256 pixels of 64 channels, rows by twos and fours, and remainders of all."""
    x = (normal(2, pixels, 64) * 3 + 50).astype(np.float32)
    dy = normal(2, pixels, 64, seed=1).astype(np.float32)
    gamma, beta = (normal(64, seed=seed).astype(np.float32) for seed in (2, 3))
    wide = tuple(array.astype(np.float64) for array in (dy, x, gamma, beta))
    y = fastcnn.group_norm(x, 16, gamma, beta, engine=engine)
    exact = fastcnn.group_norm(wide[1], 16, *wide[2:], engine="naive")
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)
    gradients = fastcnn.group_norm_backward(dy, x, 16, gamma, engine=engine)
    reference = fastcnn.group_norm_backward(*wide[:2], 16, wide[2], engine="naive")
    for gradient, exact in zip(gradients, reference, strict=True):
        np.testing.assert_allclose(gradient, exact, rtol=1e-4, atol=1e-5 * abs(exact).max())


# --- both ----------------------------------------------------------------------------------------


@every_engine
def test_numbers_far_from_zero_keep_their_digits(engine: str) -> None:
    x = (1e4 + normal(4, 70, 31, 32)).astype(np.float32)
    wide = x.astype(np.float64)
    ones, zeros = np.ones(32, np.float32), np.zeros(32, np.float32)
    y = fastcnn.layer_norm(x, ones, zeros, 0.0, engine=engine)
    exact = (wide - wide.mean(3, keepdims=True)) / wide.std(3, keepdims=True)
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=3e-6)
    y = fastcnn.group_norm(x, 1, ones, zeros, 0.0, engine=engine)
    over = (1, 2, 3)
    exact = (wide - wide.mean(over, keepdims=True)) / wide.std(over, keepdims=True)
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=3e-6)


@every_engine
def test_nan_stays_in_its_row_or_group(engine: str) -> None:
    x = normal(2, 3, 4, 6)
    x[0, 1, 2, 3] = np.nan
    ones, zeros = np.ones(6), np.zeros(6)
    y = fastcnn.layer_norm(x, ones, zeros, engine=engine)
    wrong = np.zeros(x.shape, bool)
    wrong[0, 1, 2] = True
    np.testing.assert_array_equal(np.isnan(y), wrong)
    y = fastcnn.group_norm(x, 3, ones, zeros, engine=engine)
    wrong[...] = False
    wrong[0, :, :, 2:4] = True
    np.testing.assert_array_equal(np.isnan(y), wrong)


@every_engine
def test_arrays_of_any_layout_give_the_same(engine: str) -> None:
    x, dy = (normal(4, 5, 6, seed=seed).astype(np.float32) for seed in (0, 1))
    gamma, beta = (normal(6, seed=seed).astype(np.float32) for seed in (2, 3))
    calls: list[Any] = [
        lambda dy, x, g, b: (fastcnn.layer_norm(x, g, b, engine=engine),),
        lambda dy, x, g, b: fastcnn.layer_norm_backward(dy, x, g, engine=engine),
        lambda dy, x, g, b: (fastcnn.group_norm(x, 3, g, b, engine=engine),),
        lambda dy, x, g, b: fastcnn.group_norm_backward(dy, x, 3, g, engine=engine),
        lambda dy, x, g, b: (fastcnn.local_response_norm(x, engine=engine),),
        lambda dy, x, g, b: (fastcnn.local_response_norm_backward(dy, x, engine=engine),),
    ]
    other = np.asfortranarray(dy), np.repeat(x, 2, axis=1)[:, ::2], gamma[::-1].copy()[::-1], beta
    for array in (dy, x, gamma, beta):
        array.setflags(write=False)
    for call in calls:
        for one, expected in zip(call(*other), call(dy, x, gamma, beta), strict=True):
            np.testing.assert_array_equal(one, expected)
            assert one.dtype == np.float32
            assert one.flags.c_contiguous


# --- local response normalisation ----------------------------------------------------------------


@every_engine
def test_response_normalisation_has_the_values_of_pytorch(engine: str) -> None:
    x, dy = np.array([[1, 2, 4, -3, 0.5]]), np.array([[1, -2, 3, 0.5, 2]])
    y = fastcnn.local_response_norm(x, 3, 0.6, 0.75, 2.0, engine=engine)
    expected = [0.43869133765083085, 0.5090216197013508, 0.8570162156497377, -0.6933929424589944]
    np.testing.assert_allclose(y, [[*expected, 0.18191749083025438]], rtol=1e-13)
    dx = fastcnn.local_response_norm_backward(dy, x, 3, 0.6, 0.75, 2.0, engine=engine)
    expected = [0.44408236063103973, -0.6960125465831801, 0.5032690083496362, 0.4530181590616426]
    np.testing.assert_allclose(dx, [[*expected, 0.7208710950896109]], rtol=1e-13)


@every_engine
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 13, 10**12])
def test_the_window_is_that_of_onnx(size: int, engine: str) -> None:
    """From c − ⌊(size − 1)/2⌋ to c + ⌈(size − 1)/2⌉, as far as there are channels."""
    x = normal(3, 7)
    y = fastcnn.local_response_norm(x, size, 0.9, 0.75, 1.5, engine=engine)
    for c in range(7):
        first, last = max(0, c - (size - 1) // 2), min(6, c + size // 2)
        base = 1.5 + 0.9 / size * (x[:, first : last + 1] ** 2).sum(1)
        np.testing.assert_allclose(y[:, c], x[:, c] / base**0.75, rtol=1e-12)


@every_engine
@pytest.mark.parametrize(("size", "beta"), [(3, 0.75), (4, 0.75), (5, 1.3), (2, 0.5), (9, -0.4)])
def test_slope_of_response_normalisation(size: int, beta: float, engine: str) -> None:
    x, dy = normal(2, 3, 6) * 2, normal(2, 3, 6, seed=1)
    parameters_of_norm = size, 0.8, beta, 1.5

    def value() -> float:
        return float(
            (fastcnn.local_response_norm(x, *parameters_of_norm, engine=engine) * dy).sum()
        )

    dx = fastcnn.local_response_norm_backward(dy, x, *parameters_of_norm, engine=engine)
    same(dx, slope(value, x))


@every_engine
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_response_at_the_ends_of_the_number_line(beta: float, engine: str) -> None:
    x = np.zeros((5, 6), np.float32)
    x[0, 2], x[1, 2], x[2], x[3] = np.nan, np.inf, 0, 1
    y = fastcnn.local_response_norm(x, 3, 1.0, beta, 1.0, engine=engine)
    nan = np.nan
    np.testing.assert_array_equal(y[0], [0, nan, nan, nan, 0, 0])
    np.testing.assert_array_equal(y[1], [0, 0, nan, 0, 0, 0])
    np.testing.assert_array_equal(y[2], 0)
    np.testing.assert_allclose(y[3, 1:5], 2.0**-beta, rtol=1e-6)
    without_bias = fastcnn.local_response_norm(x[2:4], 3, 1.0, beta, 0.0, engine=engine)
    assert np.isnan(without_bias[0]).all()
    np.testing.assert_allclose(without_bias[1, 1:5], 1, rtol=1e-6)
