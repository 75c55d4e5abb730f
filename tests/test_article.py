"""The article's layers against the mathematics, written down once more here in plain NumPy."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastcnn
from fastcnn.article import (
    HORIZONTAL_SOBEL,
    IMAGE,
    VERTICAL_SOBEL,
    ArticleNet,
    Conv3x3,
    MaxPool2,
    Softmax,
    filter_image,
    four_by_four,
    horizontal_sobel,
    same_padding,
    vertical_sobel,
)
from fastcnn.core.settings import forget_choices
from fastcnn.engine import registry

each_engine = pytest.mark.parametrize("engine", fastcnn.engines())
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


class PlainConv:
    """Filters (num_filters, 3, 3, channels) on (h, w, channels), tap by tap."""

    def __init__(self, filters: np.ndarray) -> None:
        self.filters = filters.copy()

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x, (h, w) = x, (x.shape[0] - 2, x.shape[1] - 2)
        out = np.zeros((h, w, len(self.filters)))
        for f, k, m in np.ndindex(len(self.filters), 3, 3):
            out[:, :, f] += x[k : k + h, m : m + w] @ self.filters[f, k, m]
        return out

    def backprop(self, d: np.ndarray, rate: float) -> np.ndarray:
        (h, w, _), dx, steps = d.shape, np.zeros(self.x.shape), np.zeros(self.filters.shape)
        for f, k, m in np.ndindex(len(self.filters), 3, 3):
            dx[k : k + h, m : m + w] += d[:, :, f, None] * self.filters[f, k, m]
            steps[f, k, m] = np.einsum("ij,ijc->c", d[:, :, f], self.x[k : k + h, m : m + w])
        self.filters = self.filters - rate * steps
        return dx


class PlainPool:
    def forward(self, x: np.ndarray) -> np.ndarray:
        h, w, c = x.shape
        self.shape = x.shape
        even = x[: h // 2 * 2, : w // 2 * 2]
        windows = even.reshape(h // 2, 2, w // 2, 2, c).transpose(0, 2, 4, 1, 3)
        windows = windows.reshape(h // 2, w // 2, c, 4)
        self.winners = np.argmax(windows, axis=-1)
        return windows.max(axis=-1)

    def backprop(self, d: np.ndarray) -> np.ndarray:
        dx = np.zeros(self.shape)
        for (i, j, c), winner in np.ndenumerate(self.winners):
            dx[2 * i + winner // 2, 2 * j + winner % 2, c] = d[i, j, c]
        return dx


class PlainSoftmax:
    def __init__(self, weights: np.ndarray) -> None:
        self.weights, self.biases = weights.copy(), np.zeros(weights.shape[1])

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        exponentials = np.exp(x.ravel() @ self.weights + self.biases)
        self.out = exponentials / exponentials.sum()
        return self.out

    def backprop(self, d: np.ndarray, rate: float) -> np.ndarray:
        jacobian = np.diag(self.out) - np.outer(self.out, self.out)
        d_totals = jacobian @ d
        dx = (self.weights @ d_totals).reshape(self.x.shape)
        self.weights = self.weights - rate * np.outer(self.x.ravel(), d_totals)
        self.biases = self.biases - rate * d_totals
        return dx


@pytest.fixture
def digit() -> np.ndarray:
    """A digit-like image: a noisy stroke on a background that is one large tie."""
    image = np.zeros((28, 28), np.uint8)
    image[5:23, 11:17] = np.random.default_rng(1).integers(0, 256, (18, 6))
    return image


@each_engine
def test_the_articles_net_trains_as_the_mathematics_says(engine, digit) -> None:
    net = ArticleNet(engine=engine, rng=np.random.default_rng(0))
    conv, pool = PlainConv(net.conv.filters[..., None]), PlainPool()
    softmax = PlainSoftmax(net.softmax.weights)
    start = net.conv.filters.copy()

    for label, rate in ((3, 0.005), (8, 0.5), (3, 0.2), (0, 0.2)):
        out = softmax.forward(pool.forward(conv.forward((digit / 255 - 0.5)[:, :, None])))
        gradient = np.zeros(10)
        gradient[label] = -1 / out[label]
        ours, ours_loss, ours_acc = net.forward(digit, label)
        assert_allclose(ours, out, **CLOSE)
        assert ours_loss == pytest.approx(-math.log(out[label]), rel=1e-12)
        assert ours_acc == int(out.argmax() == label)

        conv.backprop(pool.backprop(softmax.backprop(gradient, rate)), rate)
        assert net.train(digit, label, rate) == (ours_loss, ours_acc)
        assert_allclose(net.conv.filters, conv.filters[..., 0], **CLOSE)
        assert_allclose(net.softmax.weights, softmax.weights, **CLOSE)
        assert_allclose(net.softmax.biases, softmax.biases, **CLOSE)
    assert np.abs(net.conv.filters - start).max() > 1e-3


@each_engine
def test_two_convolutions_stack(engine) -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(size=(11, 14))  # to 9×12×3, then 7×10×5, then 3×5×5: one row is left out
    first, second = (Conv3x3(n, engine=engine, rng=rng) for n in (3, 5))
    pool, softmax = MaxPool2(engine=engine), Softmax(3 * 5 * 5, 4, engine=engine, rng=rng)
    second.forward(first.forward(image))
    assert first.filters.shape == (3, 3, 3)
    assert second.filters.shape == (5, 3, 3, 3)
    plain_first, plain_second = PlainConv(first.filters[..., None]), PlainConv(second.filters)
    plain_pool, plain_softmax = PlainPool(), PlainSoftmax(softmax.weights)

    for _ in range(4):
        out = softmax.forward(pool.forward(second.forward(first.forward(image))))
        plain_out = plain_second.forward(plain_first.forward(image[:, :, None]))
        plain_out = plain_softmax.forward(plain_pool.forward(plain_out))
        assert_allclose(out, plain_out, **CLOSE)
        gradient = rng.normal(size=4)  # no entry is zero
        d_pooled = softmax.backprop(gradient, 0.1)
        d_second = pool.backprop(d_pooled, 0.1)
        d_first = second.backprop(d_second, 0.1)
        assert d_first is not None
        assert first.backprop(d_first, 0.1) is None
        plain_pooled = plain_softmax.backprop(gradient, 0.1)
        plain_d_first = plain_second.backprop(plain_pool.backprop(plain_pooled), 0.1)
        plain_first.backprop(plain_d_first, 0.1)
        assert_allclose(d_pooled, plain_pooled, **CLOSE)
        assert_allclose(d_first, plain_d_first, **CLOSE)
        assert_allclose(first.filters, plain_first.filters[..., 0], **CLOSE)
        assert_allclose(second.filters, plain_second.filters, **CLOSE)
        assert_allclose(softmax.weights, plain_softmax.weights, **CLOSE)


@each_engine
def test_forward_is_what_iterate_regions_shows(engine) -> None:
    image = np.random.default_rng(3).normal(size=(6, 9))
    conv, pool = Conv3x3(4, engine=engine), MaxPool2(engine=engine)
    out = conv.forward(image)
    for im_region, i, j in conv.iterate_regions(image):
        assert_allclose(out[i, j], np.sum(im_region * conv.filters, axis=(1, 2)), **CLOSE)
    assert (i, j) == (3, 6)
    pooled = pool.forward(out)
    for im_region, i, j in pool.iterate_regions(out):
        assert_array_equal(pooled[i, j], np.amax(im_region, axis=(0, 1)))
    assert (i, j) == (1, 2)


@each_engine
def test_a_script_written_for_the_articles_classes_runs(engine, digit) -> None:
    with fastcnn.use_engine(engine):
        conv = Conv3x3(8)
        pool = MaxPool2()
        softmax = Softmax(13 * 13 * 8, 10)
        losses = []
        for _ in range(3):
            out = conv.forward((digit / 255) - 0.5)
            assert out.shape == (26, 26, 8)
            out = pool.forward(out)
            assert out.shape == (13, 13, 8)
            out = softmax.forward(out)
            assert out.shape == (10,)
            losses.append(-np.log(out[7]))
            gradient = np.zeros(10)
            gradient[7] = -1 / out[7]
            gradient = softmax.backprop(gradient, 0.005)
            assert gradient.shape == (13, 13, 8)
            gradient = pool.backprop(gradient)
            assert gradient.shape == (26, 26, 8)
            assert conv.backprop(gradient, 0.005) is None
    assert losses[0] > losses[1] > losses[2]


def test_every_number_comes_from_the_engine_that_was_asked_for(monkeypatch, digit) -> None:
    asked: dict[str, str | None] = {}

    def choose(op, geometry, dtype, engine, *how):
        assert dtype == np.float64
        asked[op] = engine
        return real(op, geometry, dtype, engine, *how)

    real = registry.choose
    monkeypatch.setattr(registry, "choose", choose)
    forget_choices()
    net = ArticleNet(engine="naive")
    net.train(digit, 1)
    second = Conv3x3(2, engine="naive")
    second.backprop(np.ones_like(second.forward(np.ones((4, 5, 3)))), 0.1)
    assert set(asked.values()) == {"naive"}
    assert set(asked) == {
        "conv2d",
        "conv2d_input_gradient",
        "conv2d_filter_gradient",
        "max_pool2d",
        "max_pool2d_backward",
        "dense",
        "dense_backward",
        "softmax",
        "softmax_backward",
        "cross_entropy",
    }


# --- parameters ----------------------------------------------------------------------------------


def test_parameters_are_drawn_as_in_the_article() -> None:
    conv = Conv3x3(1000, rng=np.random.default_rng(4))
    assert conv.filters.shape == (1000, 3, 3)
    assert conv.filters.std() == pytest.approx(1 / 9, rel=0.05)
    softmax = Softmax(50, 200, rng=np.random.default_rng(4))
    assert softmax.weights.shape == (50, 200)
    assert softmax.weights.std() == pytest.approx(1 / 50, rel=0.05)
    assert_array_equal(softmax.biases, np.zeros(200))
    assert conv.filters.dtype == softmax.weights.dtype == softmax.biases.dtype == np.float64


def test_the_same_generator_gives_the_same_parameters_and_none_gives_others() -> None:
    def stacked(rng):
        first, second = Conv3x3(2, rng=rng), Conv3x3(3, rng=rng)
        second.forward(first.forward(np.ones((6, 7))))
        return np.concatenate([first.filters.ravel(), second.filters.ravel()])

    assert_array_equal(stacked(np.random.default_rng(5)), stacked(np.random.default_rng(5)))
    assert not np.isin(stacked(None), stacked(None)).any()


def test_filters_that_someone_chose_are_never_drawn_over() -> None:
    colour = np.ones((4, 4, 3))
    assigned = Conv3x3(2)
    assigned.filters = np.stack([VERTICAL_SOBEL, HORIZONTAL_SOBEL])
    changed = Conv3x3(2)
    changed.filters[0] = VERTICAL_SOBEL
    trained = Conv3x3(2)
    trained.forward(np.ones((4, 4)))
    for conv in (assigned, changed, trained):
        before = conv.filters.copy()
        with pytest.raises(ValueError, match=r"filters must have the shape \(2, 3, 3, 3\).*got"):
            conv.forward(colour)
        assert_array_equal(conv.filters, before)

    deep = Conv3x3(2)
    deep.filters = np.arange(54.0).reshape(2, 3, 3, 3)
    assert_array_equal(deep.forward(colour)[0, 0], [np.arange(27).sum(), np.arange(27, 54).sum()])
    with pytest.raises(ValueError, match="filters must have the shape"):
        deep.forward(np.ones((4, 4)))
    with pytest.raises(ValueError, match="filters must have the shape"):
        deep.forward(np.ones((4, 4, 2)))


def test_one_channel_needs_no_third_dimension_of_the_filters() -> None:
    image = np.random.default_rng(6).normal(size=(5, 6))
    conv = Conv3x3(3)
    flat = conv.forward(image)
    assert_array_equal(conv.forward(image[:, :, None]), flat)
    assert conv.filters.shape == (3, 3, 3)
    dx = conv.backprop(np.ones_like(flat), 0.1)
    assert dx is not None
    assert dx.shape == (5, 6, 1)


def test_layers_can_be_copied_and_the_copy_trains_alone(digit) -> None:
    net = ArticleNet(rng=np.random.default_rng(7))
    twin = copy.deepcopy(net)
    twin.train(digit, 2)
    assert not np.array_equal(net.conv.filters, twin.conv.filters)
    net.train(digit, 2, lr=0.005)  # the article's rate, which is the default
    assert_array_equal(net.conv.filters, twin.conv.filters)


# --- details of the contract ---------------------------------------------------------------------


@each_engine
def test_the_first_of_tied_maxima_takes_the_gradient(engine) -> None:
    pool = MaxPool2(engine=engine)
    image = np.array([[1.0, 1, 0, 5, 9], [1, 1, 5, 5, 9]])[:, :, None]  # the last column is odd
    assert_array_equal(pool.forward(image)[:, :, 0], [[1, 5]])
    dx = pool.backprop(np.array([[[3.0], [4.0]]]))
    assert_array_equal(dx[:, :, 0], [[3, 0, 0, 4, 0], [0, 0, 0, 0, 0]])


@each_engine
def test_the_softmax_neither_overflows_nor_loses_the_loss(engine, digit) -> None:
    softmax = Softmax(2, 3, engine=engine)
    softmax.weights = np.array([[1000.0, 0, -1000], [0, 0, 0]])
    assert_array_equal(softmax.forward([[1.0], [5.0]]), [1, 0, 0])

    net = ArticleNet(engine=engine, rng=np.random.default_rng(8))
    net.softmax.biases[4] = 1000
    with np.errstate(all="raise", under="ignore"):
        loss, acc = net.train(digit, 3)
    assert loss == pytest.approx(1000, rel=1e-3)
    assert acc == 0
    for parameters in (net.conv.filters, net.softmax.weights, net.softmax.biases):
        assert np.isfinite(parameters).all()


@each_engine
def test_the_worked_examples(engine) -> None:
    golden = [[29, -192], [-35, -22]]
    assert_array_equal(four_by_four(engine=engine), golden)
    same = same_padding(engine=engine)
    assert same.shape == IMAGE.shape
    assert_array_equal(same[1:3, 1:3], golden)
    assert same[0, 0] == 2 * 50 + 80

    edge = np.zeros((6, 8))
    edge[:, 4:] = 1
    assert_array_equal(vertical_sobel(edge, engine=engine)[1:-1, 1:-1], [[0, 0, 4, 4, 0, 0]] * 4)
    assert_array_equal(horizontal_sobel(edge, engine=engine)[1:-1, 1:-1], np.zeros((4, 6)))
    ours = horizontal_sobel(edge.T[::-1], engine=engine)  # bright above dark
    assert_array_equal(ours[1:-1, 1:-1], np.array([[0, 0, 4, 4, 0, 0]] * 4).T)
    assert_array_equal(filter_image(edge, [[1, 1]], engine=engine)[0], [0, 0, 0, 1, 2, 2, 2])


def test_the_examples_constants_cannot_be_changed() -> None:
    for constant in (IMAGE, VERTICAL_SOBEL, HORIZONTAL_SOBEL):
        with pytest.raises(ValueError, match="read-only"):
            constant[0, 0] = 1


def test_callers_arrays_are_not_written_to(digit) -> None:
    image = np.random.default_rng(9).normal(size=(6, 7))
    gradients = np.ones((2, 2, 2))
    for array in (image, gradients):
        array.setflags(write=False)
    conv, pool, softmax = Conv3x3(2), MaxPool2(), Softmax(2 * 2 * 2, 3)
    softmax.forward(pool.forward(conv.forward(image)))
    conv.backprop(pool.backprop(gradients), 0.1)
    # Any layout and dtype will do, and gives the same numbers.
    fortran = np.asfortranarray(image)
    assert_array_equal(conv.forward(fortran), conv.forward(image))
    assert_array_equal(conv.forward(image[::-1, ::-1]), conv.forward(image[::-1, ::-1].copy()))
    assert_array_equal(conv.forward(digit), conv.forward(digit.astype(np.float64)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int64])
def test_results_are_float64_whatever_comes_in(dtype) -> None:
    image = np.ones((6, 7, 2), dtype)
    for layer in (Conv3x3(2), MaxPool2(), Softmax(6 * 7 * 2, 3)):
        out = layer.forward(image)
        assert out.dtype == np.float64
        assert layer.backprop(np.ones_like(out, dtype=dtype), 0.1).dtype == np.float64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Conv3x3(0), ValueError, "num_filters must be at least 1, got 0"),
        (lambda: Conv3x3(2.5), TypeError, "num_filters must be an integer, got 2.5"),
        (lambda: Softmax(-1, 2), ValueError, "input_len must be at least 1, got -1"),
        (lambda: Softmax(2, "3"), TypeError, "nodes must be an integer, got '3'"),
        (lambda: Conv3x3(1).forward(np.ones(9)), ValueError, r"input must be .* got \(9,\)"),
        (lambda: Conv3x3(1).forward(np.ones((2, 9))), ValueError, r"input must be .*\(2, 9\)"),
        (lambda: Conv3x3(1).forward(np.ones((4, 4, 0))), ValueError, r"input must .*\(4, 4, 0\)"),
        (lambda: Conv3x3(1).forward(np.ones((4, 4), complex)), TypeError, "input must hold real"),
        (lambda: Conv3x3(1, engine="gpu").forward(np.ones((4, 4))), ValueError, "engine .*'gpu'"),
        (lambda: MaxPool2().forward(np.ones((4, 4))), ValueError, r"input must have .*\(4, 4\)"),
        (lambda: MaxPool2().forward(np.ones((1, 4, 2))), ValueError, r"input must .*\(1, 4, 2\)"),
        (lambda: Softmax(4, 2).forward(np.ones((2, 3))), ValueError, r"input_len = 4 .*\(2, 3\)"),
        (lambda: Conv3x3(1).backprop(np.ones((2, 2, 1)), 0.1), RuntimeError, "call forward first"),
        (lambda: MaxPool2().backprop(np.ones((2, 2, 1))), RuntimeError, "call forward first"),
        (lambda: Softmax(4, 2).backprop(np.ones(2), 0.1), RuntimeError, "call forward first"),
        (lambda: ArticleNet().forward(np.ones((28, 27)), 1), ValueError, r"image .*\(28, 27\)"),
        (lambda: ArticleNet().train(np.ones((28, 28)), 10), ValueError, "labels .* got 10"),
        (lambda: ArticleNet().train(np.ones((28, 28)), 1.5), TypeError, "labels must be integers"),
        (lambda: filter_image(np.ones(3), np.ones((3, 3))), ValueError, r"image .*\(3,\)"),
        (lambda: filter_image(np.ones((3, 3)), 3), ValueError, r"kernel .*\(\)"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_gradient_of_another_shape_is_refused_before_anything_changes() -> None:
    conv, pool, softmax = Conv3x3(2), MaxPool2(), Softmax(12, 3)
    softmax.forward(pool.forward(conv.forward(np.ones((6, 8)))))
    before = conv.filters.copy(), softmax.weights.copy()
    for layer in (conv, pool, softmax):
        with pytest.raises(ValueError, match=r"d_L_d_out must have .* got \(5, 1\)"):
            layer.backprop(np.ones((5, 1)), 0.1)
    assert_array_equal(conv.filters, before[0])
    assert_array_equal(softmax.weights, before[1])
