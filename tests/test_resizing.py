"""Resizing: sources and weights by enumeration, and images as products with them.

On other numbers engines are held against the specification in ``test_agreement.py``.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
from slopes import same, slope

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.resizing import (
    COORDINATES,
    METHODS,
    ROUNDINGS,
    Sources,
    outputs,
    resize_geometry,
    sources,
)

ENGINES = fastcnn.engines()
WAYS = [
    *product(("nearest",), COORDINATES, ROUNDINGS),
    *product(("bilinear",), COORDINATES, ("floor",)),
]
"""Each method with all parameters that change its result."""
SIDES = [*product(range(1, 8), range(1, 12)), (9, 64), (64, 9), (26, 64), (3, 100)]
"""Pixels of a side of the image, and of the result."""


def coordinate(o: int, size: int, out: int, coordinates: str) -> Fraction:
    """Where output ``o`` lies among ``size`` pixels, as ONNX's documentation of Resize says."""
    if coordinates == "half_pixel":
        return (o + Fraction(1, 2)) * size / out - Fraction(1, 2)
    if coordinates == "align_corners":
        return Fraction(o * (size - 1), out - 1) if out > 1 else Fraction(0)
    return Fraction(o * size, out)


def expected_weights(o: int, size: int, out: int, method: str, coordinates: str, rounding: str):
    """The pixels that make output ``o``, with their weights."""
    place = coordinate(o, size, out, coordinates)
    if method == "nearest":
        half = Fraction(1, 2)
        pixel = {
            "floor": floor(place),
            "ceil": ceil(place),
            "round_prefer_floor": ceil(place - half),
            "round_prefer_ceil": floor(place + half),
        }[rounding]
        return {min(max(pixel, 0), size - 1): Fraction(1)}
    weights: dict[int, Fraction] = {}
    for pixel, weight in (
        (floor(place), 1 - (place - floor(place))),
        (floor(place) + 1, place - floor(place)),
    ):
        inside = min(max(pixel, 0), size - 1)
        if weight:
            weights[inside] = weights.get(inside, Fraction(0)) + weight
    return weights


def matrix(of: Sources, count: int) -> Array:
    """The weights of ``count`` sources in each result."""
    dense = np.zeros((len(of.first), count))
    for i, first in enumerate(of.first):
        weights = of.weights[of.starts[i] : of.starts[i + 1]]
        dense[i, first : first + len(weights)] = weights
    return dense


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_sources_and_weights_by_counting(way: tuple[str, str, str]) -> None:
    for size, out in SIDES:
        of = sources(size, out, *way)
        assert len(of.first) == out
        assert of.starts[0] == 0
        for o in range(out):
            weights = of.weights[of.starts[o] : of.starts[o + 1]]
            result = {int(of.first[o]) + k: float(weight) for k, weight in enumerate(weights)}
            exact = expected_weights(o, size, out, *way)
            assert result.keys() == exact.keys(), (size, out, o)
            # A weight is one quotient, or 1 less a quotient: at most two roundings.
            for pixel, weight in exact.items():
                assert abs(result[pixel] - float(weight)) <= 2.0**-53, (size, out, o)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_outputs_are_the_transpose_of_sources(way: tuple[str, str, str]) -> None:
    for size, out in SIDES:
        back = outputs(size, out, *way)
        assert len(back.first) == size
        forward = matrix(sources(size, out, *way), size)
        np.testing.assert_array_equal(matrix(back, out), forward.T, err_msg=f"{size} to {out}")
        assert (back.weights != 0).all()
        np.testing.assert_array_equal(back.counts, (forward != 0).sum(axis=0))


def test_coordinates_of_long_sides_are_exact() -> None:
    """Products of sides stay exact integers, where float32, and then float64, would round them."""
    size, out = 2**21 - 1, 2**20 + 7
    of = sources(size, out, "nearest", "half_pixel", "round_prefer_floor")
    for o in (0, 1, 12_345, 524_287, out - 2, out - 1):
        exact = expected_weights(o, size, out, "nearest", "half_pixel", "round_prefer_floor")
        assert {int(of.first[o])} == exact.keys()
    assert sources(2**30, 3, "bilinear", "align_corners", "floor").first.tolist() == [
        0, 2**29 - 1, 2**30 - 1
    ]  # fmt: skip


def test_work_counts_the_weights_that_are_multiplied() -> None:
    g = resize_geometry((3, 4, 1, 5), (6, 7), "bilinear", "half_pixel", "floor")
    taps = [len(expected_weights(o, 4, 6, "bilinear", "half_pixel", "floor")) for o in range(6)]
    assert g.flops == 2 * 3 * 5 * sum(taps) * 7
    assert g._replace(method="nearest").flops == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_images_are_products_with_the_weights(way: tuple[str, str, str], engine: str) -> None:
    rng = np.random.default_rng(0)
    for (h, w), (oh, ow), c in (((5, 7), (8, 3), 2), ((4, 3), (9, 12), 19), ((1, 6), (4, 2), 70)):
        x, dy = rng.standard_normal((2, h, w, c)), rng.standard_normal((2, oh, ow, c))
        rows, columns = (matrix(sources(size, out, *way), size) for size, out in ((h, oh), (w, ow)))
        y = fastcnn.resize2d(x, (oh, ow), *way, engine=engine)
        expected = np.einsum("ih,nhwc,jw->nijc", rows, x, columns)
        np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-14)
        dx = fastcnn.resize2d_backward(dy, x.shape, *way, engine=engine)
        expected = np.einsum("ih,nijc,jw->nhwc", rows, dy, columns)
        np.testing.assert_allclose(dx, expected, rtol=1e-13, atol=1e-14)


X = np.arange(6.0).reshape(1, 2, 3, 1)

# What PyTorch 2 gives for X, in the order of its documentation's arguments.
PYTORCH: list[tuple[tuple[int, int], tuple[str, ...], list[list[float]]]] = [
    ((3, 5), ("nearest", "asymmetric", "floor"),
     [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]),
    ((3, 5), ("nearest", "half_pixel", "round_prefer_ceil"),
     [[0, 0, 1, 2, 2], [3, 3, 4, 5, 5], [3, 3, 4, 5, 5]]),
    ((3, 5), ("bilinear", "half_pixel"),
     [[0, 0.4, 1, 1.6, 2], [1.5, 1.9, 2.5, 3.1, 3.5], [3, 3.4, 4, 4.6, 5]]),
    ((3, 5), ("bilinear", "align_corners"),
     [[0, 0.5, 1, 1.5, 2], [1.5, 2, 2.5, 3, 3.5], [3, 3.5, 4, 4.5, 5]]),
    ((4, 2), ("bilinear", "half_pixel"), [[0.25, 1.75], [1, 2.5], [2.5, 4], [3.25, 4.75]]),
]  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("size", "way", "expected"), PYTORCH)
def test_images_are_those_of_pytorch(
    size: tuple[int, int], way: tuple[Any, ...], expected: list[list[float]], engine: str
) -> None:
    y = fastcnn.resize2d(X, size, *way, engine=engine)
    np.testing.assert_allclose(y[0, :, :, 0], expected, rtol=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
def test_defaults_are_those_of_onnx_for_coordinates_and_rounding(engine: str) -> None:
    row = np.array([10.0, 20.0]).reshape(1, 1, 2, 1)
    # Half-way between the pixels: ONNX's round_prefer_floor takes the first.
    y = fastcnn.resize2d(row, (1, 3), "nearest", engine=engine)
    assert y[0, 0, :, 0].tolist() == [10, 10, 20]
    y = fastcnn.resize2d(row, (1, 3), "nearest", rounding="round_prefer_ceil", engine=engine)
    assert y[0, 0, :, 0].tolist() == [10, 20, 20]
    assert fastcnn.resize2d(row, (1, 3), engine=engine)[0, 0, :, 0].tolist() == [10, 15, 20]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", METHODS)
def test_a_whole_multiple_repeats_pixels_or_stays_between_them(method: str, engine: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    y = fastcnn.resize2d(x, (6, 12), method, engine=engine)  # type: ignore[arg-type]
    if method == "nearest":
        np.testing.assert_array_equal(y, x.repeat(2, axis=1).repeat(3, axis=2))
    else:
        assert (y.max(axis=(1, 2)) <= x.max(axis=(1, 2))).all()
        assert (y.min(axis=(1, 2)) >= x.min(axis=(1, 2))).all()
    np.testing.assert_array_equal(
        fastcnn.resize2d(x, (3, 4), method, engine=engine),  # type: ignore[arg-type]
        x,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_pixel_of_weight_0_takes_no_part(engine: str, dtype: type) -> None:
    """Not even if it is infinite, and 0 times it would be NaN."""
    for c in (1, 5, 40):
        x = np.zeros((1, 3, 4, c), dtype)
        x[0, 1, 2], x[0, 0, 0] = np.inf, np.nan
        corners = fastcnn.resize2d(x, (5, 7), "bilinear", "align_corners", engine=engine)
        infinite, nan = np.isinf(corners[0, :, :, -1]), np.isnan(corners[0, :, :, -1])
        assert np.argwhere(infinite).tolist() == [
            [i, j] for i in (1, 2, 3) for j in (3, 4, 5)
        ]  # weights of exactly 1 on the pixel, and of 1/2 around it
        assert np.argwhere(nan).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
        again = fastcnn.resize2d(x, (3, 4), engine=engine)
        np.testing.assert_array_equal(again, x)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", [("nearest", "asymmetric", "floor"), ("bilinear", "half_pixel")])
def test_gradient_is_the_slope(way: tuple[Any, ...], engine: str) -> None:
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((1, 3, 4, 2)), rng.standard_normal((1, 5, 6, 2))

    def value() -> float:
        return float((fastcnn.resize2d(x, (5, 6), *way, engine=engine) * dy).sum())

    same(fastcnn.resize2d_backward(dy, x.shape, *way, engine=engine), slope(value, x))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sides", [(1, 20_000), (20_000, 1), (3000, 3000)])
def test_a_long_sum_of_gradients_keeps_its_digits(sides: tuple[int, int], engine: str) -> None:
    """In float32, term by term, 20,000 of these numbers would lose four of seven digits."""
    if engine == "naive" and min(sides) > 1:
        return  # a million loops
    value = 1 + 2.0**-12
    dy = np.full((1, *sides, 1), value, np.float32)
    dx = fastcnn.resize2d_backward(dy, (1, 1, 1, 1), "nearest", engine=engine)
    np.testing.assert_allclose(dx, sides[0] * sides[1] * value, rtol=1e-7)


@pytest.mark.parametrize("engine", ENGINES)
def test_pixels_that_no_output_takes_get_no_gradient(engine: str) -> None:
    dy = np.ones((1, 2, 2, 3))
    dx = fastcnn.resize2d_backward(dy, (1, 6, 8, 3), "nearest", engine=engine)
    assert sorted(dx[..., 0].reshape(-1)) == [0] * 44 + [1] * 4
