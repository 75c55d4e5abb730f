"""The specification against the formulas in the docstrings, spelled out index by index here."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastcnn
from fastcnn.core.geometry import conv_geometry, pool_geometry
from fastcnn.core.resizing import resize_geometry
from fastcnn.engine import naive
from fastcnn.engine.naive.regions import iterate_regions, iterate_windows
from fastcnn.engine.registry import OPERATIONS

DTYPES = [np.float32, np.float64]


@pytest.fixture(autouse=True)
def _naive_engine() -> Iterator[None]:
    with fastcnn.use_engine("naive"):
        yield


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Small integers: every partial sum is representable, so results must be equal to the bit."""
    return rng.integers(-4, 5, shape).astype(dtype)


# --- convolution, literally ----------------------------------------------------------------------


def literal_convolution(x, w, dy_of, stride, pads, dilation, groups):
    """y, dx, dw, db from y[n, oh, ow, oc] = Σ x[n, oh·S − P + kh·D, ow·S − P + kw·D, ic] · w[…]."""
    (n_, h, w_, _), (kh_, kw_, icg, oc_) = x.shape, w.shape
    (top, bottom), (left, right) = pads
    oh_ = (h + top + bottom - (kh_ - 1) * dilation[0] - 1) // stride[0] + 1
    ow_ = (w_ + left + right - (kw_ - 1) * dilation[1] - 1) // stride[1] + 1
    dy = dy_of((n_, oh_, ow_, oc_))
    y, dx, dw, db = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(w.shape), np.zeros(oc_)
    for n, oh, ow, oc in np.ndindex(dy.shape):
        db[oc] += dy[n, oh, ow, oc]
        for kh, kw, k in itertools.product(range(kh_), range(kw_), range(icg)):
            ih = oh * stride[0] - top + kh * dilation[0]
            iw = ow * stride[1] - left + kw * dilation[1]
            ic = oc // (oc_ // groups) * icg + k
            if 0 <= ih < h and 0 <= iw < w_:
                y[n, oh, ow, oc] += x[n, ih, iw, ic] * w[kh, kw, k, oc]
                dx[n, ih, iw, ic] += dy[n, oh, ow, oc] * w[kh, kw, k, oc]
                dw[kh, kw, k, oc] += dy[n, oh, ow, oc] * x[n, ih, iw, ic]
    return dy, y, dx, dw, db


CONVOLUTIONS = [
    # x shape, (KH, KW), OC, stride, ((top, bottom), (left, right)), dilation, groups
    ((2, 5, 4, 1), (3, 3), 2, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((1, 6, 5, 3), (2, 3), 5, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((1, 4, 7, 3), (4, 2), 1, (2, 3), ((1, 0), (0, 2)), (1, 1), 1),
    ((2, 5, 6, 2), (3, 2), 3, (3, 1), ((2, 1), (1, 3)), (1, 2), 1),
    ((1, 7, 5, 4), (2, 2), 6, (1, 2), ((0, 1), (2, 0)), (3, 2), 2),
    ((2, 4, 5, 3), (3, 3), 3, (1, 1), ((1, 1), (1, 1)), (1, 1), 3),
    ((1, 5, 4, 3), (2, 3), 6, (2, 1), ((1, 2), (0, 1)), (2, 1), 3),
    ((1, 3, 2, 5), (1, 1), 3, (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((1, 3, 5, 2), (1, 1), 3, (2, 2), ((0, 0), (0, 0)), (4, 5), 1),
    ((1, 1, 1, 1), (3, 5), 2, (1, 1), ((1, 1), (2, 2)), (1, 1), 1),
    ((1, 2, 3, 1), (2, 2), 1, (1, 1), ((4, 3), (3, 4)), (1, 1), 1),  # some see padding alone
    ((1, 2, 3, 2), (3, 3), 2, (2, 2), ((5, 4), (6, 3)), (4, 3), 1),  # some taps never meet a pixel
    ((1, 9, 10, 1), (4, 5), 1, (2, 3), ((0, 0), (0, 0)), (1, 1), 1),  # pixels left over
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_and_gradients_are_the_literal_sums(case, dtype) -> None:
    x_shape, kernel, oc, stride, pads, dilation, groups = case
    rng = np.random.default_rng(7)
    x = integers(rng, x_shape, dtype)
    w = integers(rng, (*kernel, x_shape[3] // groups, oc), dtype)
    b = integers(rng, (oc,), dtype)
    dy, y, dx, dw, db = literal_convolution(
        x, w, lambda shape: integers(rng, shape, dtype), stride, pads, dilation, groups
    )
    how = {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}

    assert_array_equal(fastcnn.conv2d(x, w, **how), y)
    assert_array_equal(fastcnn.conv2d(x, w, b, **how), y + b)
    assert_array_equal(fastcnn.conv2d(x, w, b, activation="relu", **how), np.maximum(y + b, 0))
    for ours, literal in zip(fastcnn.conv2d_backward(dy, x, w, **how), (dx, dw, db), strict=True):
        assert ours.dtype == dtype
        assert_array_equal(ours, literal)


@pytest.mark.parametrize("padding", ["valid", "same", 2, (0, 2), ((1, 0), (2, 1))])
@pytest.mark.parametrize("stride", [1, (2, 1), 3])
def test_every_form_of_padding_and_stride(padding, stride) -> None:
    rng = np.random.default_rng(3)
    x, w = integers(rng, (1, 6, 7, 2), np.float64), integers(rng, (3, 4, 2, 3), np.float64)
    g = conv_geometry(x.shape, w.shape, stride=stride, padding=padding)
    sides = ((g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right))
    steps = (g.stride_h, g.stride_w)
    _, y, *_ = literal_convolution(x, w, np.zeros, steps, sides, (1, 1), 1)
    assert_array_equal(fastcnn.conv2d(x, w, stride=stride, padding=padding), y)


def test_the_articles_example() -> None:
    image = np.array([[0, 50, 0, 29], [0, 80, 31, 2], [33, 90, 0, 75], [0, 9, 0, 95]])
    vertical_sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    y = fastcnn.conv2d(image[None, :, :, None], vertical_sobel[:, :, None, None])
    assert_array_equal(y[0, :, :, 0], [[29, -192], [-35, -22]])


def test_the_articles_shapes() -> None:
    y = fastcnn.conv2d(np.zeros((1, 28, 28, 1)), np.zeros((3, 3, 1, 8)))
    assert y.shape == (1, 26, 26, 8)
    assert fastcnn.max_pool2d(y, 2).shape == (1, 13, 13, 8)


def test_sums_are_float64_and_rounded_once() -> None:
    large = np.array([2.0**30, 1, -(2.0**30)], np.float32)  # in float32 the 1 would be lost
    x, ones = large.reshape(1, 1, 3, 1), np.ones((1, 3, 1, 1), np.float32)
    assert fastcnn.conv2d(x, ones).item() == 1
    dy = large.reshape(1, 1, 1, 3)
    w = np.ones((1, 1, 1, 3), np.float32)
    assert fastcnn.conv2d_input_gradient(dy, w, (1, 1, 1, 1)).item() == 1
    assert fastcnn.conv2d_filter_gradient(x, np.ones_like(x), 1).item() == 1
    assert fastcnn.conv2d_backward(x, np.ones_like(x), np.ones((1, 1, 1, 1), np.float32))[2] == 1
    assert fastcnn.avg_pool2d(x, (1, 3)).item() == np.float32(1 / 3)
    assert fastcnn.dense(large[None], np.ones((3, 1), np.float32)).item() == 1


def test_padding_is_never_multiplied() -> None:
    x, w = np.ones((1, 2, 3, 1)), np.ones((3, 3, 1, 1))
    w[0] = np.inf
    w[:, 0] = np.nan
    y = fastcnn.conv2d(x, w, padding=((1, 0), (1, 1)))[0, :, :, 0]
    # The only position whose inf and NaN taps all lie in the padding is the first.
    assert y.shape == (1, 3)
    assert y[0, 0] == 4
    assert np.isnan(y[0, 1:]).all()
    dx = fastcnn.conv2d_input_gradient(
        np.array([1.0, 0, 0]).reshape(1, 1, 3, 1),
        np.ones((3, 3, 1, 1)),
        x.shape,
        padding=((1, 0), (1, 1)),
    )
    assert_array_equal(dx[0, :, :, 0], [[1, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_exactly_the_outputs_that_see_them(special) -> None:
    x = np.ones((1, 5, 6, 1))
    x[0, 1, 2, 0] = special
    y = fastcnn.conv2d(x, np.ones((2, 3, 1, 1)))[0, :, :, 0]
    sees = np.zeros((4, 4), bool)
    sees[0:2, 0:3] = True
    assert_array_equal(~np.isfinite(y), sees)


def test_regions_tile_the_image_and_match_their_taps() -> None:
    g = conv_geometry((1, 5, 6, 2), (2, 3, 2, 1), stride=(2, 3), padding=1, dilation=(2, 1))
    image = np.arange(60).reshape(5, 6, 2)
    positions = []
    for im_region, (rows, columns), i, j in iterate_regions(image, g):
        positions.append((i, j))
        assert np.shares_memory(im_region, image)
        for r, kh in enumerate(range(2)[rows]):
            for c, kw in enumerate(range(3)[columns]):
                assert_array_equal(im_region[r, c], image[2 * i - 1 + 2 * kh, 3 * j - 1 + kw])
    assert positions == list(np.ndindex(g.oh, g.ow))


def test_windows_hold_only_pixels_of_the_image() -> None:
    g = pool_geometry((1, 4, 5, 1), (3, 2), stride=2, padding=((2, 1), (1, 0)))
    image = np.arange(20).reshape(4, 5, 1)
    regions = {(i, j): im_region[:, :, 0].tolist() for im_region, i, j in iterate_windows(image, g)}
    assert regions[0, 0] == [[0]]
    assert regions[1, 1] == [[1, 2], [6, 7], [11, 12]]
    assert regions[2, 2] == [[13, 14], [18, 19]]
    assert list(regions) == list(np.ndindex(g.oh, g.ow))


# --- pooling, literally --------------------------------------------------------------------------

POOLINGS = [
    # x shape, size, stride, ((top, bottom), (left, right))
    ((2, 4, 6, 3), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((1, 5, 7, 2), (2, 2), (2, 2), ((0, 0), (0, 0))),  # a remainder that no window reaches
    ((1, 5, 6, 1), (3, 2), (1, 1), ((0, 0), (0, 0))),  # overlapping
    ((1, 6, 5, 2), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((2, 4, 5, 3), (3, 2), (2, 3), ((2, 0), (0, 1))),
    ((1, 7, 4, 1), (1, 2), (3, 1), ((0, 0), (1, 1))),
    ((1, 7, 8, 2), (2, 1), (3, 4), ((1, 1), (0, 0))),  # gaps between windows
    ((1, 1, 1, 2), (2, 3), (1, 1), ((1, 1), (2, 1))),
]


def literal_windows(x_shape, size, stride, pads):
    """The positions in the image of each window, in row-major order."""
    _, h, w, _ = x_shape
    (top, bottom), (left, right) = pads
    for i in range((h + top + bottom - size[0]) // stride[0] + 1):
        for j in range((w + left + right - size[1]) // stride[1] + 1):
            rows = [i * stride[0] - top + k for k in range(size[0])]
            columns = [j * stride[1] - left + k for k in range(size[1])]
            yield i, j, [(r, c) for r in rows for c in columns if 0 <= r < h and 0 <= c < w]


def first(values: list[float], better: Callable[[float, float], bool]) -> int:
    """Place of the winner: the first NaN, or the first of those that none is better than."""
    winner = 0
    for place, value in enumerate(values):
        if math.isnan(values[winner]):
            break
        if math.isnan(value) or better(value, values[winner]):
            winner = place
    return winner


@pytest.mark.parametrize("with_nan", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", POOLINGS, ids=str)
def test_pooling_and_gradients_are_the_literal_windows(case, dtype, with_nan) -> None:
    x_shape, size, stride, pads = case
    rng = np.random.default_rng(11)
    x = rng.integers(-1, 2, x_shape).astype(dtype)  # three values only: ties everywhere
    if with_nan:
        x[rng.random(x_shape) < 0.3] = np.nan
    windows = list(literal_windows(*case))
    y_shape = (x_shape[0], windows[-1][0] + 1, windows[-1][1] + 1, x_shape[3])
    dy = (integers(rng, y_shape, dtype)) * 12
    expected = {name: (np.zeros(y_shape), np.zeros(x_shape)) for name in ("max", "min", "avg")}
    for n, c in itertools.product(range(x_shape[0]), range(x_shape[3])):
        for i, j, pixels in windows:
            values = [float(x[n, r, s, c]) for r, s in pixels]
            for name, better in (("max", float.__gt__), ("min", float.__lt__)):
                y, dx = expected[name]
                place = first(values, better)
                y[n, i, j, c] = values[place]
                dx[n, *pixels[place], c] += dy[n, i, j, c]
            y, dx = expected["avg"]
            y[n, i, j, c] = sum(values) / len(values)
            for r, s in pixels:
                dx[n, r, s, c] += dy[n, i, j, c] / len(pixels)

    for name, (y, dx) in expected.items():
        ours = getattr(fastcnn, f"{name}_pool2d")(x, size, stride, pads)
        gradient = getattr(fastcnn, f"{name}_pool2d_backward")(dy, x, size, stride, pads)
        assert ours.dtype == gradient.dtype == dtype
        assert_allclose(ours, y.astype(dtype), rtol=1e-15 if name == "avg" else 0, atol=0)
        assert_allclose(gradient, dx.astype(dtype), rtol=1e-6 if name == "avg" else 0, atol=1e-6)


def test_of_tied_maxima_the_first_in_row_major_order_takes_the_gradient_alone() -> None:
    x = np.array([[1.0, 7, 7], [7, 7, 0]]).reshape(1, 2, 3, 1)
    dy = np.array([[10.0, 1.0]]).reshape(1, 1, 2, 1)
    dx = fastcnn.max_pool2d_backward(dy, x, 2, 1)
    assert_array_equal(dx[0, :, :, 0], [[0, 11, 0], [0, 0, 0]])
    assert_array_equal(fastcnn.min_pool2d_backward(dy, -x, 2, 1), dx)


def test_infinite_pixels_win_over_padding() -> None:
    x = np.full((1, 2, 2, 1), -np.inf)
    assert_array_equal(fastcnn.max_pool2d(x, 3, 1, 1), x)
    assert_array_equal(fastcnn.min_pool2d(-x, 3, 1, 1), -x)
    dx = fastcnn.max_pool2d_backward(np.ones((1, 2, 2, 1)), x, 3, 1, 1)
    assert_array_equal(dx[0, :, :, 0], [[4, 0], [0, 0]])


# --- dense, activations, loss --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_and_gradients_are_the_literal_sums(dtype) -> None:
    rng = np.random.default_rng(5)
    x, w, b, dy = (integers(rng, s, dtype) for s in [(3, 5), (5, 4), (4,), (3, 4)])
    y = [[b[o] + sum(x[n, i] * w[i, o] for i in range(5)) for o in range(4)] for n in range(3)]
    dx = [[sum(dy[n, o] * w[i, o] for o in range(4)) for i in range(5)] for n in range(3)]
    dw = [[sum(dy[n, o] * x[n, i] for n in range(3)) for o in range(4)] for i in range(5)]
    db = [sum(dy[n, o] for n in range(3)) for o in range(4)]
    assert_array_equal(fastcnn.dense(x, w, b), y)
    assert_array_equal(fastcnn.dense(x, w), np.array(y) - b)
    assert_array_equal(fastcnn.dense(x, w, b, activation="relu"), np.maximum(y, 0))
    for ours, literal in zip(fastcnn.dense_backward(dy, x, w), (dx, dw, db), strict=True):
        assert ours.dtype == dtype
        assert_array_equal(ours, literal)


def test_relu_and_its_gradient_at_every_kind_of_number() -> None:
    x = np.array([-np.inf, -1, -0.0, 0, 1e-300, 2, np.inf, np.nan])
    assert_array_equal(fastcnn.relu(x), [0, 0, 0, 0, 1e-300, 2, np.inf, np.nan])
    assert_array_equal(fastcnn.relu_backward(np.full(8, 3.0), x), [0, 0, 0, 0, 3, 3, 3, 0])


def test_softmax_is_its_formula() -> None:
    x = np.random.default_rng(2).normal(size=(4, 5))
    y = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in x.tolist()]
    assert_allclose(fastcnn.softmax(x), y, rtol=1e-14)
    assert_allclose(fastcnn.log_softmax(x), np.log(y), rtol=1e-14)
    labels = [4, 0, 3, 3]
    losses = fastcnn.cross_entropy(x, labels, reduction="none")
    assert_allclose(losses, -np.log([y[n][c] for n, c in enumerate(labels)]), rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_neither_overflows_nor_underflows(dtype) -> None:
    x = np.array([[1e4, 0, -np.inf], [-1e4, -1e4, -1e4]], dtype)
    with np.errstate(all="raise", under="ignore"):
        y, log_y = fastcnn.softmax(x), fastcnn.log_softmax(x)
        losses = fastcnn.cross_entropy(x, [1, 2], reduction="none")
    assert y.dtype == log_y.dtype == losses.dtype == dtype
    assert_array_equal(y, np.array([[1, 0, 0], [1 / 3] * 3], dtype))
    assert_array_equal(log_y, np.array([[0, -1e4, -np.inf], [-np.log(3.0)] * 3], dtype))
    assert_array_equal(losses, np.array([1e4, np.log(3.0)], dtype))


# --- gradients by differences --------------------------------------------------------------------


def central_differences(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, dy: np.ndarray):
    """Gradient of ⟨f(x), dy⟩, one element of x at a time."""
    gradient, step = np.zeros(x.shape), 1e-5
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += step
        down[at] -= step
        gradient[at] = np.sum((f(up) - f(down)) * dy) / (2 * step)
    return gradient


def test_gradients_are_central_differences_of_the_forward_functions() -> None:
    rng = np.random.default_rng(13)
    x, w, b = rng.normal(size=(1, 5, 6, 2)), rng.normal(size=(3, 2, 1, 4)), rng.normal(size=4)
    how = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 2), "groups": 2}
    dy = rng.normal(size=fastcnn.conv2d(x, w, **how).shape)
    dx, dw, db = fastcnn.conv2d_backward(dy, x, w, **how)
    near = {"rtol": 1e-7, "atol": 1e-8}
    assert_allclose(dx, central_differences(lambda v: fastcnn.conv2d(v, w, **how), x, dy), **near)
    assert_allclose(dw, central_differences(lambda v: fastcnn.conv2d(x, v, **how), w, dy), **near)
    assert_allclose(
        db, central_differences(lambda v: fastcnn.conv2d(x, w, v, **how), b, dy), **near
    )
    for name in ("max", "min", "avg"):
        forward = getattr(fastcnn, f"{name}_pool2d")
        backward = getattr(fastcnn, f"{name}_pool2d_backward")
        dy = rng.normal(size=forward(x, (3, 2), (2, 1), 1).shape)
        ours = backward(dy, x, (3, 2), (2, 1), 1)
        differences = central_differences(lambda v, f=forward: f(v, (3, 2), (2, 1), 1), x, dy)
        assert_allclose(ours, differences, **near)

    x, w, b, dy = (rng.normal(size=s) for s in [(3, 4), (4, 5), (5,), (3, 5)])
    dx, dw, db = fastcnn.dense_backward(dy, x, w)
    assert_allclose(dx, central_differences(lambda v: fastcnn.dense(v, w, b), x, dy), **near)
    assert_allclose(dw, central_differences(lambda v: fastcnn.dense(x, v, b), w, dy), **near)
    assert_allclose(db, central_differences(lambda v: fastcnn.dense(x, w, v), b, dy), **near)

    x, dy = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    for name in ("relu", "softmax", "log_softmax"):
        differences = central_differences(getattr(fastcnn, name), x, dy)
        assert_allclose(getattr(fastcnn, f"{name}_backward")(dy, x), differences, **near)
    labels = [4, 0, 2]
    for reduction, share in (("none", np.ones(3)), ("sum", np.ones(())), ("mean", np.ones(()))):
        differences = central_differences(
            lambda v, r=reduction: fastcnn.cross_entropy(v, labels, reduction=r), x, share
        )
        ours = fastcnn.cross_entropy_backward(x, labels, reduction=reduction)
        assert_allclose(ours, differences, **near)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_the_three_products_of_a_convolution_are_adjoint(case) -> None:
    """⟨conv(x, w), dy⟩ = ⟨x, dx⟩ = ⟨w, dw⟩."""
    x_shape, kernel, oc, stride, padding, dilation, groups = case
    rng = np.random.default_rng(17)
    x, w = rng.normal(size=x_shape), rng.normal(size=(*kernel, x_shape[3] // groups, oc))
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y = fastcnn.conv2d(x, w, **how)
    dy = rng.normal(size=y.shape)
    dx, dw, _ = fastcnn.conv2d_backward(dy, x, w, **how)
    scale = np.sum(np.abs(y * dy))
    assert scale > 0
    assert abs(np.sum(x * dx) - np.sum(y * dy)) < 1e-13 * scale
    assert abs(np.sum(w * dw) - np.sum(y * dy)) < 1e-13 * scale


# --- the engine contract -------------------------------------------------------------------------


BY_FORMULA: dict[str, tuple] = {
    "clipped_relu": (0.6,),
    "elu": (0.7,),
    "hard_sigmoid": (0.2, 0.4),
    "hard_swish": (),
    "swish": (),
    "gelu": (False,),
    "softplus": (),
}
"""Activations by formulas, and their parameters."""


def calls(n: int, dtype: type) -> dict[str, tuple]:
    """Arguments for every operation of the engine, with a batch of n."""
    rng = np.random.default_rng(19)

    def array(*shape: int) -> np.ndarray:
        values = rng.normal(size=shape).astype(dtype)
        values.setflags(write=False)
        return values

    g = conv_geometry((n, 4, 5, 2), (3, 2, 2, 3), padding="same", stride=2)
    p = pool_geometry((n, 4, 5, 2), 3, stride=2, padding=1)
    r = resize_geometry((n, 4, 5, 2), (7, 3), "bilinear", "half_pixel", "floor")
    x, w, dy = array(*g.input_shape), array(*g.filter_shape), array(*g.output_shape)
    flat, gate = array(4 * n), array(n, 4, 1, 1)
    pooled, rows, labels = array(*p.output_shape), array(n, 4), rng.integers(0, 4, n)
    return {
        "conv2d": (x, w, array(3), "relu", g),
        "conv2d_input_gradient": (dy, w, g),
        "conv2d_filter_gradient": (dy, x, g),
        "conv2d_bias_gradient": (dy, g),
        "max_pool2d": (x, p),
        "max_pool2d_backward": (pooled, x, p),
        "min_pool2d": (x, p),
        "min_pool2d_backward": (pooled, x, p),
        "avg_pool2d": (x, p),
        "avg_pool2d_backward": (pooled, p),
        "dense": (rows, array(4, 3), array(3), None),
        "dense_backward": (array(n, 3), rows, array(4, 3)),
        "relu": (array(4 * n),),
        "relu_backward": (array(4 * n), array(4 * n)),
        **dict.fromkeys(("tanh", "sigmoid"), (flat,)),
        **{f"{op}_backward": (array(4 * n), flat) for op in ("tanh", "sigmoid")},
        "leaky_relu": (flat, 0.1),
        "leaky_relu_backward": (array(4 * n), flat, 0.1),
        "dropout": (flat, flat > 0, 0.3),
        "zero_pad2d": (x, (1, 0, 2, 3)),
        "zero_pad2d_backward": (x, (1, 0, 2, 1)),
        "batch_norm": (rows, array(4), array(4), 0.01),
        "batch_norm_inference": (rows, array(4), array(4), array(4), array(4) ** 2, 0.01),
        "batch_norm_backward": (array(n, 4), rows, array(4), array(4), array(4) ** 2, 0.01),
        "softmax": (rows,),
        "softmax_backward": (array(n, 4), rows),
        "log_softmax": (rows,),
        "log_softmax_backward": (array(n, 4), rows),
        "cross_entropy": (rows, labels),
        "cross_entropy_backward": (rows, labels),
        **dict.fromkeys(("add", "subtract", "multiply", "maximum"), (x, gate)),
        **dict.fromkeys(("add_backward", "subtract_backward"), (x, x.shape, gate.shape)),
        **dict.fromkeys(("multiply_backward", "maximum_backward"), (array(*x.shape), x, gate)),
        "layer_norm": (rows, array(4), array(4), 0.01),
        "layer_norm_backward": (array(n, 4), rows, array(4), 0.01),
        "group_norm": (x.reshape(n, 10, 4), 2, array(4), array(4), 0.01),
        "group_norm_backward": (array(n, 10, 4), x.reshape(n, 10, 4), 2, array(4), 0.01),
        "local_response_norm": (rows, 3, 0.5, 0.75, 1.0),
        "local_response_norm_backward": (array(n, 4), rows, 3, 0.5, 0.75, 1.0),
        "concatenate": ((x, gate + x[:, :, :, :1]), 3),
        "concatenate_backward": (x, (1, 4), 2),
        **{op: (flat, *more) for op, more in BY_FORMULA.items()},
        **{f"{op}_backward": (array(4 * n), flat, *more) for op, more in BY_FORMULA.items()},
        "prelu": (rows, array(4)),
        "prelu_backward": (array(n, 4), rows, array(4)),
        "conv2d_transpose": (dy, w, array(2), "relu", g),
        "permute": (x, (3, 1, 2)),
        "resize2d": (x, r),
        "resize2d_backward": (array(*r.output_shape), r),
    }


@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPERATIONS)
def test_results_are_new_contiguous_arrays_of_the_dtype(op, dtype, n) -> None:
    arguments = calls(n, dtype)[op]
    results = getattr(naive, op)(*arguments)
    for result in results if isinstance(results, tuple) else (results,):
        assert result.dtype == dtype
        assert result.flags.c_contiguous
        assert result.flags.writeable
        assert not any(np.shares_memory(result, a) for a in arguments if isinstance(a, np.ndarray))
        if n == 0:
            assert not result.any()


def test_the_package_exports_the_operations_and_nothing_else() -> None:
    functions = {name for name, value in vars(naive).items() if inspect.isfunction(value)}
    assert functions == set(OPERATIONS)
    assert all(inspect.getdoc(getattr(naive, op)) for op in OPERATIONS)


OF_EACH_SAMPLE = sorted(
    set(OPERATIONS)
    - {"conv2d_filter_gradient", "conv2d_bias_gradient", "dense_backward"}  # these sum over it
    - {"batch_norm", "batch_norm_backward"}  # as do these
    - {"layer_norm_backward", "group_norm_backward"}
    - {"relu", "relu_backward", "leaky_relu", "leaky_relu_backward", "dropout"}  # no samples here
    - {"tanh", "tanh_backward", "sigmoid", "sigmoid_backward"}
    - {f"{op}{kind}" for op in BY_FORMULA for kind in ("", "_backward")}
    - {"prelu_backward"}  # the slopes' gradient is a sum over the batch
)


@pytest.mark.parametrize("op", OF_EACH_SAMPLE)
def test_a_sample_gives_the_same_bits_alone_and_in_a_batch(op) -> None:
    batch = calls(5, np.float64)[op]  # no other side of these arrays is 5
    whole = getattr(naive, op)(*batch)
    for n in range(5):
        alone = [
            a._replace(n=1)
            if hasattr(a, "_replace")
            else a[n : n + 1]
            if isinstance(a, np.ndarray) and len(a) == 5
            else (1, *a[1:])
            if isinstance(a, tuple) and type(a[0]) is int and a[0] == 5
            else tuple(each[n : n + 1] for each in a)
            if isinstance(a, tuple) and isinstance(a[0], np.ndarray)
            else a
            for a in batch
        ]
        results = getattr(naive, op)(*alone)
        pairs = zip(results, whole, strict=True) if type(whole) is tuple else [(results, whole)]
        for one, several in pairs:
            assert_array_equal(one, several[n : n + 1])
