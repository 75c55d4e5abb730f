"""What layers are made of beside convolution: the specification against plain formulas, engines at
the ends of the number line, and slopes.

On other numbers engines are held against the specification in ``test_agreement.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from slopes import same, slope

import fastcnn
from fastcnn.core.arguments import Array

ENGINES = fastcnn.engines()
NUMBERS = [-3.5, -1.0, -0.25, 0.0, 0.5, 2.0, 7.0]

FORMULAS: dict[str, Callable[[float], float]] = {
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "leaky_relu": lambda x: x if x > 0 else 0.3 * x,
}
SLOPES: dict[str, Callable[[float], float]] = {
    "tanh": lambda x: 1 - math.tanh(x) ** 2,
    "sigmoid": lambda x: math.exp(-x) / (1 + math.exp(-x)) ** 2,
    "leaky_relu": lambda x: 1.0 if x > 0 else 0.3,
}
GIVEN: dict[str, dict[str, Any]] = {"leaky_relu": {"slope": 0.3}}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("op", FORMULAS)
def test_activations_and_gradients_are_those_of_the_formula(op: str, engine: str) -> None:
    x = np.array(NUMBERS)
    given = GIVEN.get(op, {})
    y = getattr(fastcnn, op)(x, **given, engine=engine)
    np.testing.assert_allclose(y, [FORMULAS[op](v) for v in NUMBERS], rtol=1e-14)
    dy = np.arange(1.0, 8.0)
    dx = getattr(fastcnn, f"{op}_backward")(dy, x, **given, engine=engine)
    np.testing.assert_allclose(dx, [d * SLOPES[op](v) for d, v in zip(dy, NUMBERS, strict=True)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_ends_of_the_number_line(engine: str, dtype: type) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([-inf, -1e30, -800, -0.0, 800, 1e30, inf, nan], dtype)
    ones = np.ones_like(x)
    with np.errstate(all="raise", under="ignore"):
        result = {
            "tanh": fastcnn.tanh(x, engine=engine),
            "tanh'": fastcnn.tanh_backward(ones, x, engine=engine),
            "sigmoid": fastcnn.sigmoid(x, engine=engine),
            "sigmoid'": fastcnn.sigmoid_backward(ones, x, engine=engine),
        }
    expected = {
        "tanh": [-1, -1, -1, 0, 1, 1, 1, nan],
        "tanh'": [0, 0, 0, 1, 0, 0, 0, nan],
        "sigmoid": [0, 0, 0, 0.5, 1, 1, 1, nan],
        "sigmoid'": [0, 0, 0, 0.25, 0, 0, 0, nan],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(result[name], np.array(values, dtype), atol=1e-30, err_msg=name)


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_far_out_keep_their_digits(engine: str) -> None:
    x = np.array([-30.0, 30.0], np.float32)
    bell = np.exp(-30.0)
    np.testing.assert_allclose(
        fastcnn.sigmoid_backward(np.ones_like(x), x, engine=engine), [bell, bell], rtol=1e-5
    )
    np.testing.assert_allclose(
        fastcnn.tanh_backward(np.ones_like(x), x / 2, engine=engine), [4 * bell] * 2, rtol=1e-5
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_dropped_is_0_whatever_it_was(engine: str) -> None:
    x = np.array([[1.0, np.nan], [np.inf, -3.0], [2.0, 5.0]])
    mask = np.array([[True, False], [False, True], [True, False]])
    y = fastcnn.dropout(x, mask, 0.75, engine=engine)
    np.testing.assert_array_equal(y, [[4, 0], [0, -12], [8, 0]])
    strided = np.asfortranarray(mask)
    np.testing.assert_array_equal(fastcnn.dropout(x, strided, 0.75, engine=engine), y)


@pytest.mark.parametrize("engine", ENGINES)
def test_padding_is_that_of_numpy_and_its_gradient_takes_it_off(engine: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    y = fastcnn.zero_pad2d(x, ((1, 2), (0, 3)), engine=engine)
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0))))
    back = fastcnn.zero_pad2d_backward(y, ((1, 2), (0, 3)), engine=engine)
    np.testing.assert_array_equal(back, x)
    assert fastcnn.zero_pad2d(x, (0, 1), engine=engine).shape == (2, 3, 6, 5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_normalised_batch_has_the_mean_and_deviation_that_are_asked_for(engine: str) -> None:
    x = np.random.default_rng(0).standard_normal((40, 5, 7, 3)) * [1, 10, 0.1] + [0, 100, -3]
    gamma, beta = np.array([1.0, 2.0, 0.5]), np.array([0.0, -1.0, 7.0])
    y, mean, variance = fastcnn.batch_norm(x, gamma, beta, 0.0, engine=engine)
    over = (0, 1, 2)
    np.testing.assert_allclose(mean, x.mean(over), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(variance, x.var(over), rtol=1e-12)
    np.testing.assert_allclose(y.mean(over), beta, atol=1e-12)
    np.testing.assert_allclose(y.std(over), gamma, rtol=1e-12)
    again = fastcnn.batch_norm_inference(x, gamma, beta, mean, variance, 0.0, engine=engine)
    np.testing.assert_allclose(again, y, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("engine", ENGINES)
def test_statistics_of_large_numbers_are_not_lost_in_float32(engine: str) -> None:
    x = (1000 + np.random.default_rng(0).standard_normal((3000, 2))).astype(np.float32)
    _, mean, variance = fastcnn.batch_norm(x, np.ones(2), np.zeros(2), engine=engine)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-7)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(0), rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_slope_of_batch_normalisation(engine: str) -> None:
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((4, 2, 3, 2)), rng.standard_normal((4, 2, 3, 2))
    gamma, beta = rng.standard_normal(2), rng.standard_normal(2)

    def value() -> float:
        return float((fastcnn.batch_norm(x, gamma, beta, 0.1, engine=engine)[0] * dy).sum())

    _, mean, variance = fastcnn.batch_norm(x, gamma, beta, 0.1, engine=engine)
    result: tuple[Array, ...] = fastcnn.batch_norm_backward(
        dy, x, gamma, mean, variance, 0.1, engine=engine
    )
    for gradient, at in zip(result, (x, gamma, beta), strict=True):
        same(gradient, slope(value, at))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bias_gradient_is_the_sum_over_images_and_pixels(engine: str) -> None:
    dy = np.random.default_rng(2).standard_normal((3, 4, 5, 7))
    np.testing.assert_allclose(
        fastcnn.conv2d_bias_gradient(dy, engine=engine), dy.sum((0, 1, 2)), rtol=1e-12
    )


@pytest.mark.parametrize("engine", fastcnn.engines())
def test_normalising_no_rows_gives_gradients_of_zero_whatever_the_statistics(engine: str) -> None:
    none, ones = np.zeros((2, 0, 3), np.float32), np.ones(3, np.float32)
    for statistics in (np.array([np.nan, np.inf, -np.inf], np.float32), ones):
        dx, dgamma, dbeta = fastcnn.batch_norm_backward(
            none, none, ones, statistics, abs(statistics), engine=engine
        )
        assert dx.shape == none.shape
        np.testing.assert_array_equal([dgamma, dbeta], 0)
