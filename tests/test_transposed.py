"""Transposed convolution: its sizes by enumeration, the literal sums, and its gradients.

On other numbers engines are held against the specification in ``test_agreement.py``.
"""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import Any

import numpy as np
import pytest
from slopes import same, slope

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import transposed_geometry

ENGINES = fastcnn.engines()


def literal(x: Array, w: Array, shape: tuple[int, ...], top: int, left: int, how: Any) -> Array:
    """Each pixel of x, times the filter, added to y, whose rows and columns begin earlier."""
    (sh, sw), (dh, dw), groups = how["stride"], how["dilation"], how["groups"]
    kh, kw, group_oc, ic = w.shape
    y = np.zeros(shape)
    for n, i, j, c in np.ndindex(x.shape):
        first = c // (ic // groups) * group_oc
        for a, b, o in np.ndindex(kh, kw, group_oc):
            row, column = i * sh - top + a * dh, j * sw - left + b * dw
            if 0 <= row < shape[1] and 0 <= column < shape[2]:
                y[n, row, column, first + o] += x[n, i, j, c] * w[a, b, o, c]
    return y


def keras_length(size: int, reach: int, padding: str, more: int | None, stride: int) -> int:
    """The length of Keras's ``Conv2DTranspose``, by its documentation."""
    if more is None:
        return size * stride + (max(reach - stride, 0) if padding == "valid" else 0)
    cut = reach // 2 if padding == "same" else 0
    return (size - 1) * stride + reach - 2 * cut + more


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_named_paddings_give_the_sides_of_keras(padding: str) -> None:
    fitting = 0
    for size, k, stride, dilation in product((1, 2, 5), (1, 2, 3, 4), (1, 2, 3), (1, 2)):
        reach = (k - 1) * dilation + 1
        for more in (None, *range(stride)):
            expected = keras_length(size, reach, padding, more, stride)
            arguments: dict[str, Any] = {"stride": (stride, 1), "dilation": (dilation, 1)}
            if more is not None:
                arguments["output_padding"] = (more, 0)
            shapes = (2, size, 4, 3), (k, 1, 5, 3)
            if padding == "same" and ceil(expected / stride) != size:
                # No convolution with the same padding takes the result back to x.
                with pytest.raises(ValueError, match=r"output_padding must be None|at least one"):
                    transposed_geometry(*shapes, padding=padding, **arguments)
                continue
            g = transposed_geometry(*shapes, padding=padding, **arguments)
            assert g.input_shape == (2, expected, 4, 5)
            assert g.output_shape == shapes[0]
            assert g.filter_shape == shapes[1]
            total = max((size - 1) * stride + reach - expected, 0) if padding == "same" else 0
            assert (g.pad_top, g.pad_bottom) == (total // 2, total - total // 2)
            fitting += 1
    assert fitting > 100


def test_numbers_give_the_sides_of_pytorch() -> None:
    for size, k, stride, dilation in product((2, 5), (1, 2, 3), (1, 2, 3), (1, 2)):
        for top, bottom, more in product((0, 1), (0, 2), range(stride)):
            length = (size - 1) * stride - top - bottom + dilation * (k - 1) + more + 1
            arguments = {"stride": (1, stride), "dilation": (1, dilation)}
            if length < 1:
                continue
            g = transposed_geometry(
                (1, 3, size, 2),
                (2, k, 7, 2),
                padding=(0, (top, bottom)),
                output_padding=(0, more),
                **arguments,
            )
            assert g.input_shape == (1, 4, length, 7)
            assert (g.pad_left, g.pad_right) == (top, bottom)


CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 4, 3), (2, 2, 5, 3), {"stride": (2, 2)}),
    ((1, 4, 3, 2), (3, 2, 3, 2), {"stride": (2, 3), "padding": ((1, 0), (0, 1))}),
    ((1, 3, 5, 4), (3, 3, 2, 4), {"padding": "same"}),
    ((2, 3, 2, 3), (4, 3, 2, 3), {"stride": (2, 2), "padding": "same"}),
    ((1, 2, 3, 4), (1, 2, 3, 4), {"stride": (3, 4)}),
    ((1, 3, 4, 4), (2, 3, 3, 4), {"dilation": (2, 1), "stride": (1, 2), "groups": 2}),
    ((2, 4, 3, 3), (3, 2, 1, 3), {"groups": 3, "stride": (2, 1), "padding": 1}),
    ((1, 3, 3, 2), (3, 3, 3, 2), {"stride": (2, 2), "padding": 1, "output_padding": (1, 0)}),
]


def literal_of(x: Array, w: Array, parameters: dict[str, Any]) -> Array:
    how = {"stride": (1, 1), "dilation": (1, 1), "groups": 1} | parameters
    g = transposed_geometry(x.shape, w.shape, **parameters)
    return literal(x, w, g.input_shape, g.pad_top, g.pad_left, how)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_result_is_the_literal_sum(case: tuple[Any, ...], dtype: type, engine: str) -> None:
    x_shape, w_shape, parameters = case
    rng = np.random.default_rng(3)
    x, w = (rng.integers(-4, 5, shape).astype(dtype) for shape in (x_shape, w_shape))
    expected = literal_of(x, w, parameters)
    b = rng.integers(-4, 5, expected.shape[3]).astype(dtype)
    y = fastcnn.conv2d_transpose(x, w, **parameters, engine=engine)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    y = fastcnn.conv2d_transpose(x, w, b, **parameters, engine=engine)
    np.testing.assert_array_equal(y, expected + b)
    y = fastcnn.conv2d_transpose(x, w, b, activation="relu", **parameters, engine=engine)
    np.testing.assert_array_equal(y, np.maximum(expected + b, 0))


@pytest.mark.parametrize("engine", ENGINES)
def test_result_is_that_of_pytorch(engine: str) -> None:
    """``conv_transpose2d`` with stride 2, padding 1 and output padding 1; with dilation 2."""
    x = np.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    w = np.arange(1.0, 10.0).reshape(3, 3, 1, 1)
    b = np.array([0.5])
    y = fastcnn.conv2d_transpose(x, w, b, stride=2, padding=1, output_padding=1, engine=engine)
    assert y[0, :, :, 0].tolist() == [
        [5.5, 14.5, 10.5, 24.5, 15.5, 18.5],
        [16.5, 40.5, 26.5, 60.5, 36.5, 45.5],
        [20.5, 44.5, 25.5, 54.5, 30.5, 36.5],
        [32.5, 71.5, 40.5, 87.5, 48.5, 54.5],
    ]
    y = fastcnn.conv2d_transpose(
        x, w, stride=(1, 2), padding=(2, 1), dilation=(2, 1), engine=engine
    )
    assert y[0, :, :, 0].tolist() == [[5, 14, 10, 24, 15], [20, 44, 25, 54, 30]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_adjoint_to_the_convolution_that_goes_back(
    case: tuple[Any, ...], engine: str
) -> None:
    """⟨convT(x, w), dy⟩ = ⟨x, dx⟩ = ⟨w, dw⟩, and dx is the convolution of dy."""
    x_shape, w_shape, parameters = case
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    y = fastcnn.conv2d_transpose(x, w, **parameters, engine=engine)
    dy = rng.standard_normal(y.shape)
    dx, dw, db = fastcnn.conv2d_transpose_backward(dy, x, w, **parameters, engine=engine)
    scale = np.abs(y * dy).sum()
    assert abs((x * dx).sum() - (y * dy).sum()) < 1e-13 * scale
    assert abs((w * dw).sum() - (y * dy).sum()) < 1e-13 * scale
    np.testing.assert_allclose(db, dy.sum(axis=(0, 1, 2)), rtol=1e-12)
    g = transposed_geometry(x_shape, w_shape, **parameters)
    back = fastcnn.conv2d(
        dy,
        w,
        stride=(g.stride_h, g.stride_w),
        padding=((g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right)),
        dilation=(g.dilation_h, g.dilation_w),
        groups=g.groups,
        engine=engine,
    )
    np.testing.assert_allclose(dx, back, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_slopes(engine: str) -> None:
    parameters: dict[str, Any] = {
        "stride": (2, 1), "padding": ((1, 0), (0, 1)), "dilation": (1, 2), "groups": 2
    }  # fmt: skip
    rng = np.random.default_rng(6)
    x, w = rng.standard_normal((1, 3, 4, 4)), rng.standard_normal((3, 2, 3, 4))
    b = rng.standard_normal(6)
    dy = rng.standard_normal(fastcnn.conv2d_transpose(x, w, **parameters).shape)

    def value() -> float:
        return float((fastcnn.conv2d_transpose(x, w, b, **parameters, engine=engine) * dy).sum())

    result = fastcnn.conv2d_transpose_backward(dy, x, w, **parameters, engine=engine)
    for gradient, at in zip(result, (x, w, b), strict=True):
        same(gradient, slope(value, at))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("groups", [1, 4])
def test_pixels_that_meet_no_tap_are_the_bias_alone(groups: int, engine: str) -> None:
    """Whatever the filters are: nothing is multiplied there, not even by 0."""
    x = np.ones((1, 2, 3, 4), np.float32)
    w = np.full((1, 1, 8 // groups, 4), np.inf, np.float32)
    b = np.arange(8, dtype=np.float32) - 3
    for activation, alone in ((None, b), ("relu", np.maximum(b, 0))):
        y = fastcnn.conv2d_transpose(
            x, w, b, stride=(2, 3), groups=groups, activation=activation, engine=engine
        )
        met = np.zeros(y.shape, bool)
        met[:, ::2, ::3] = True
        np.testing.assert_array_equal(y[~met].reshape(-1, 8), np.broadcast_to(alone, (30, 8)))
        assert np.isposinf(y[met]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_finite_stays_where_it_belongs(engine: str, dtype: type) -> None:
    """An infinite tap and a NaN reach the pixels that they are added to, and no other."""
    x, w = np.ones((1, 4, 5, 3), dtype), np.ones((3, 3, 2, 3), dtype)
    x[0, 0, 0, 1], w[2, 1, 0, 0] = np.nan, np.inf
    b = np.zeros(2, dtype)
    for activation in (None, "relu"):
        parameters: dict[str, Any] = {"padding": 1, "activation": activation}
        y = fastcnn.conv2d_transpose(x, w, b, **parameters, engine=engine)
        expected = fastcnn.conv2d_transpose(x, w, b, **parameters, engine="naive")
        np.testing.assert_array_equal(y, expected)
        assert np.isnan(y[0, :2, :2]).any()
        assert np.isfinite(y[0, 2:, 2:, 1]).all()


@pytest.mark.parametrize("activation", [None, "relu"])
def test_winograd_adds_the_bias_and_rectifies(activation: Any) -> None:
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((2, 9, 11, 24)), rng.standard_normal((3, 3, 20, 24))
    x, w, b = (a.astype(np.float32) for a in (x, w, rng.standard_normal(20)))
    parameters: dict[str, Any] = {"padding": ((1, 0), (2, 1)), "activation": activation}
    y = fastcnn.conv2d_transpose(x, w, b, **parameters, algorithm="winograd")
    direct = fastcnn.conv2d_transpose(x, w, b, **parameters, algorithm="direct")
    np.testing.assert_allclose(y, direct, atol=1e-4 * np.abs(direct).max())
    x[1, 4, 5, 6] = np.inf  # the second image is computed again
    y = fastcnn.conv2d_transpose(x, w, b, **parameters, algorithm="winograd")
    direct = fastcnn.conv2d_transpose(x, w, b, **parameters, algorithm="direct")
    np.testing.assert_array_equal(y[1], direct[1])


def test_explain_says_which_way_it_goes() -> None:
    text = str(fastcnn.explain("conv2d_transpose", (1, 5, 7, 16), (2, 2, 8, 16), stride=2))
    assert text.startswith("conv2d_transpose: numba.direct, ")
    assert "  not numba.winograd: it is made for filters of 3×3 and 5×5, not 2×2" in text
    assert "  problem: (1, 5, 7, 16) -> (1, 10, 14, 8), float32" in text
    assert "  kernel: " in text
    text = str(fastcnn.explain("conv2d_transpose", (8, 56, 56, 64), (3, 3, 64, 64), padding="same"))
    assert text.startswith("conv2d_transpose: numba.winograd, ")
