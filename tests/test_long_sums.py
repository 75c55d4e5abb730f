"""Long sums in every engine: exact counts beyond 2²⁴, and errors that do not grow with length."""

from __future__ import annotations

import numpy as np
import pytest

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH, roundings
from fastcnn.core.settings import use_math
from fastcnn.engine.registry import replaced
from fastcnn.layers import AvgPool2D, Conv2D, Dense, GlobalAvgPool2D
from fastcnn.optimizers import SGD
from fastcnn.proof.bounds import linear_bound, unit_roundoff
from fastcnn.proof.check import check, reference_of
from fastcnn.proof.problems import case_named, cases

FAST = [engine for engine in fastcnn.engines() if engine != "naive"]
DTYPES = ("float32", "float64")
LENGTHS = (STRETCH - 1, STRETCH, STRETCH + 1, 9 * STRETCH - 5)

fast_engines = pytest.mark.parametrize("engine", FAST)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
lengths = pytest.mark.parametrize("length", LENGTHS)


def draw(dtype: str, *shape: int, seed: int = 0) -> Array:
    """Normal numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def within_bound(y: Array, terms: int, *factors: tuple[str, Array, Array]) -> None:
    """Hold a sum of products against the same in float64, with the derived bound."""
    (subscripts, a, b), *others = factors
    a, b = a.astype(np.float64), b.astype(np.float64)
    exact, size = np.einsum(subscripts, a, b), np.einsum(subscripts, abs(a), abs(b))
    for _, bias, _ in others:
        exact, size = exact + bias, size + abs(bias.astype(np.float64))
    bound = linear_bound(terms, size, exact, unit_roundoff(y.dtype))
    assert y.shape == exact.shape
    assert (abs(y - exact) <= bound).all()


def test_roundings_of_a_long_sum_do_not_grow() -> None:
    assert roundings(STRETCH) == STRETCH
    assert roundings(STRETCH + 1) == roundings(10**12) == STRETCH + 2


# --- ones, beyond the last integer that float32 counts to -----------------------------------------

WIDE = (1, 4099, 4202, 1)  # pixels: more than 2²⁴, and an even number


@fast_engines
def test_ones_beyond_two_to_the_24_are_counted(engine: str) -> None:
    count = WIDE[1] * WIDE[2]
    assert count > 2**24
    image = np.ones(WIDE, np.float32)
    exact = np.float32(count)
    assert fastcnn.conv2d_bias_gradient(image, engine=engine) == exact
    assert (fastcnn.conv2d_filter_gradient(image, image, 1, engine=engine) == exact).all()
    row, column = image.reshape(1, -1), image.reshape(-1, 1)
    assert fastcnn.dense(row, column, engine=engine) == exact
    _, dw, db = fastcnn.dense_backward(column, column, np.ones((1, 1), np.float32), engine=engine)
    assert dw == exact
    assert db == exact
    rows = column * np.float32(0.1)
    _, mean, variance = fastcnn.batch_norm(
        rows, np.ones(1, np.float32), np.zeros(1, np.float32), engine=engine
    )
    assert mean == np.float32(0.1)
    assert variance < 1e-16


@pytest.mark.each_instruction_set
def test_mean_of_a_large_window_is_exact() -> None:
    image = np.full(WIDE, 2, np.float32)
    assert fastcnn.avg_pool2d(image, WIDE[1:3], engine="numba") == 2


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("channels", [1, 3, 20])
@fast_engines
def test_filters_gradient_counts_each_tap(engine: str, channels: int, size: int) -> None:
    """Threes and fives of an image's pixels: sums beyond 2²⁴ that are multiples of 15."""
    x, dy = np.full((1, 1100, 1031, channels), 5.0, np.float32), np.float32(3)
    dy = np.full((1, 1101 - size, 1032 - size, 2), dy)
    with use_math("strict"):
        dw = fastcnn.conv2d_filter_gradient(dy, x, size, engine=engine)
    exact = 15 * dy[..., 0].size
    assert exact > 2**23
    assert np.array_equal(dw, np.full((size, size, channels, 2), exact, np.float32))


@pytest.mark.parametrize("channels", [(1, 2), (40, 96)], ids=["slabs", "passes"])
def test_winograd_gradient_of_many_squares(channels: tuple[int, int]) -> None:
    """Some thousand squares: their sums err as one of a stretch does, in slabs and in passes."""
    ic, oc = channels
    x, dy = draw("float32", 1, 402, 302, ic) + 1, draw("float32", 1, 400, 300, oc) + 1
    x, dy = x.astype(np.float32), dy.astype(np.float32)
    dw = fastcnn.conv2d_filter_gradient(dy, x, 3, algorithm="winograd")
    wide = x.astype(np.float64), dy.astype(np.float64)
    for kh, kw in ((0, 0), (1, 2), (2, 1)):
        exact = np.tensordot(wide[0][0, kh : kh + 400, kw : kw + 300], wide[1][0], ((0, 1), (0, 1)))
        assert abs(dw[kh, kw] - exact).max() < 1e-5 * abs(exact).max()


# --- remainders around the length of a stretch ----------------------------------------------------


@fast_engines
@both_dtypes
@lengths
def test_dense(length: int, dtype: str, engine: str) -> None:
    for outputs in (1, 10, 19, 37, 130):
        w, b = draw(dtype, length, outputs), draw(dtype, outputs)
        for samples in (1, 3, 7):
            x = draw(dtype, samples, length)
            y = fastcnn.dense(x, w, b, engine=engine)
            within_bound(y, length + 1, ("ni,io->no", x, w), ("", b, b))


@fast_engines
@both_dtypes
@lengths
def test_gradients_of_dense(length: int, dtype: str, engine: str) -> None:
    for inputs, outputs in ((1, 1), (2, 70), (13, 10), (37, 19)):  # a batch of so many rows
        x, dy, w = (
            draw(dtype, *s) for s in ((length, inputs), (length, outputs), (inputs, outputs))
        )
        _, dw, db = fastcnn.dense_backward(dy, x, w, engine=engine)
        within_bound(dw, length, ("ni,no->io", x, dy))
        within_bound(db, length, ("no,n->o", dy, np.ones(length)))
    for samples in (1, 3, 7):  # so many outputs
        x, dy, w = (draw(dtype, *s) for s in ((samples, 21), (samples, length), (21, length)))
        dx, _, _ = fastcnn.dense_backward(dy, x, w, engine=engine)
        within_bound(dx, length, ("no,io->ni", dy, w))


@fast_engines
@both_dtypes
@lengths
def test_convolution_over_channels(length: int, dtype: str, engine: str) -> None:
    for columns in (1, 7, 40, 70):
        w = draw(dtype, 1, 1, length, columns)
        for shape in ((1, 1, 2), (2, 3, 5)):
            x = draw(dtype, *shape, length)
            y = fastcnn.conv2d(x, w, engine=engine)
            within_bound(y, length, ("nhwi,io->nhwo", x, w[0, 0]))
            back = w[0, 0].T.reshape(1, 1, columns, length)
            dx = fastcnn.conv2d_input_gradient(x, back, (*shape, columns), engine=engine)
            within_bound(dx, length, ("nhwo,io->nhwi", x, back[0, 0]))


@pytest.mark.each_instruction_set
@fast_engines
@both_dtypes
@lengths
def test_gradients_over_pixels(length: int, dtype: str, engine: str) -> None:
    for shape in ((1, 1, length), (1, length, 1), (3, 1, length), (2, 2, length)):
        terms = int(np.prod(shape))
        for ic, oc in ((1, 1), (1, 8), (2, 70), (20, 33)):
            x, dy = draw(dtype, *shape, ic), draw(dtype, *shape, oc, seed=1)
            dw = fastcnn.conv2d_filter_gradient(dy, x, 1, engine=engine)
            within_bound(dw[0, 0], terms, ("nhwi,nhwo->io", x, dy))
            db = fastcnn.conv2d_bias_gradient(dy, engine=engine)
            within_bound(db, terms, ("nhwo,nhw->o", dy, np.ones(shape)))
        x, dy = draw(dtype, *shape, 5), draw(dtype, *shape, 5, seed=1)
        dw = fastcnn.conv2d_filter_gradient(dy, x, 1, groups=5, engine=engine)
        within_bound(dw[0, 0, 0], terms, ("nhwi,nhwi->i", x, dy))


@pytest.mark.each_instruction_set
@fast_engines
@both_dtypes
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 4)])
def test_filters_gradient_over_wide_rows(kernel: tuple[int, int], dtype: str, engine: str) -> None:
    """Rows of more pixels than a stretch, several of them, of several images."""
    kh, kw = kernel
    out = 2, 3, STRETCH + 5
    for ic, oc in ((1, 7), (1, 40), (3, 17)):
        x, dy = draw(dtype, 2, out[1] + kh - 1, out[2] + kw - 1, ic), draw(dtype, *out, oc)
        with use_math("strict"):
            dw = fastcnn.conv2d_filter_gradient(dy, x, kernel, engine=engine)
        for i, j in ((0, 0), (kh - 1, kw - 1)):
            part = x[:, i : i + out[1], j : j + out[2]]
            within_bound(dw[i, j], int(np.prod(out)), ("nhwi,nhwo->io", part, dy))


@fast_engines
@both_dtypes
@pytest.mark.parametrize("kernel", [(3, 3000), (70, 61), (1, 4099), (5000, 1)])
def test_filters_of_many_taps(kernel: tuple[int, int], dtype: str, engine: str) -> None:
    kh, kw = kernel
    shape = 2, kh + 1, kw + 2
    for ic, oc, groups in ((1, 5, 1), (2, 40, 1), (3, 3, 3)):
        x, w = draw(dtype, *shape, ic), draw(dtype, kh, kw, ic // groups, oc)
        y = fastcnn.conv2d(x, w, groups=groups, engine=engine)
        part = x[:, 1 : 1 + kh, 2 : 2 + kw]
        if groups == 1:
            within_bound(y[:, 1, 2], kh * kw * ic, ("nhwi,hwio->no", part, w))
        else:
            within_bound(y[:, 1, 2], kh * kw, ("nhwi,hwi->ni", part, w[:, :, 0]))


@both_dtypes
@fast_engines
def test_input_gradient_of_many_taps(engine: str, dtype: str) -> None:
    kh, kw = 67, 71
    for ic, oc, groups in ((2, 3, 1), (3, 3, 3)):
        w, dy = draw(dtype, kh, kw, ic // groups, oc), draw(dtype, 1, 70, 75, oc)
        x_shape = 1, 70 + kh - 1, 75 + kw - 1, ic
        dx = fastcnn.conv2d_input_gradient(dy, w, x_shape, groups=groups, engine=engine)
        part = dy[:, 2 : 2 + kh, 3 : 3 + kw][:, ::-1, ::-1]  # what pixel (68, 73) gave to
        if groups == 1:
            within_bound(dx[:, 68, 73], kh * kw * oc, ("nhwo,hwio->ni", part, w))
        else:
            within_bound(dx[:, 68, 73], kh * kw, ("nhwi,hwi->ni", part, w[:, :, 0]))


@both_dtypes
@fast_engines
def test_poolings_of_large_windows(engine: str, dtype: str) -> None:
    x = draw(dtype, 2, 66, 63, 5)
    y = fastcnn.avg_pool2d(x, (66, 63), engine=engine)[:, 0, 0]
    within_bound(y * (66 * 63), 66 * 63 + 2, ("nhwc,hw->nc", x, np.ones((66, 63))))
    wide, size, outputs = draw(dtype, 1, 1, 2 * STRETCH + 7, 2), STRETCH + 3, STRETCH + 5
    dy = draw(dtype, 1, 1, outputs, 2)
    dx = fastcnn.avg_pool2d_backward(dy, wide, (1, size), stride=1, engine=engine)
    place = STRETCH + 2  # in all windows before it, and its own
    part = dy[0, 0, : place + 1]
    within_bound(dx[0, 0, place] * size, place + 2, ("oc,o->c", part, np.ones(len(part))))
    wide[0, 0, place] = 99
    dx = fastcnn.max_pool2d_backward(dy, wide, (1, size), stride=1, engine=engine)
    within_bound(dx[0, 0, place], place + 1, ("oc,o->c", part, np.ones(len(part))))


@fast_engines
def test_statistics_far_from_zero_keep_their_digits(engine: str) -> None:
    x = (draw("float32", 1_000_003, 2) + 1e4).astype(np.float32)
    scale = np.ones(2, np.float32), np.zeros(2, np.float32)
    y, mean, variance = fastcnn.batch_norm(x, *scale, engine=engine)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-7)
    np.testing.assert_allclose(variance, wide.var(0), rtol=1e-6)
    np.testing.assert_allclose(y, (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-3), atol=2e-3)


@fast_engines
def test_softmax_of_a_million_classes_sums_to_one(engine: str) -> None:
    x = draw("float32", 1, 1_000_003)
    y = fastcnn.softmax(x, engine=engine)
    assert abs(y.sum(dtype=np.float64) - 1) < 1e-6


@fast_engines
def test_loops_for_numbers_that_are_not_finite_sum_alike(engine: str) -> None:
    """Where padding meets infinity other loops serve: what stays finite is as exact."""
    x, dy = draw("float32", 1, 200, 203, 2), draw("float32", 1, 200, 203, 3)
    dy[0, 0, 0, 0] = np.inf
    dw = fastcnn.conv2d_filter_gradient(dy, x, 3, padding=1, engine=engine)
    part = x[:, :-1, :-1], dy[:, 1:, 1:, 1:]
    within_bound(dw[0, 0, :, 1:], 199 * 202, ("nhwi,nhwo->io", *part))


# --- the same bits --------------------------------------------------------------------------------


def gradients(length: int) -> list[Array]:
    x, dy = draw("float32", 2, 3, length, 3), draw("float32", 2, 3, length, 17)
    with use_math("strict"):
        results = [fastcnn.conv2d_filter_gradient(dy, x, 1), fastcnn.conv2d_bias_gradient(dy)]
    results += fastcnn.dense_backward(dy.reshape(-1, 17), x.reshape(-1, 3), draw("float32", 3, 17))
    results.append(fastcnn.dense(x.reshape(2, -1), draw("float32", 9 * length, 70)))
    results.append(fastcnn.avg_pool2d(x, (3, length)))
    return results


@pytest.mark.parametrize("length", [STRETCH + 1, 50_001])
def test_bits_do_not_depend_on_threads(length: int) -> None:
    threads = fastcnn.get_num_threads()
    try:
        fastcnn.set_num_threads(1)
        alone = gradients(length)
        for count in (2, 3, 7):
            fastcnn.set_num_threads(count)
            for one, other in zip(alone, gradients(length), strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        fastcnn.set_num_threads(threads)


@pytest.mark.each_instruction_set
@lengths
def test_bits_do_not_depend_on_the_batch(length: int) -> None:
    samples = draw("float32", 23, 1, 2, length)

    def forward(x: Array) -> list[Array]:
        rows = x.reshape(len(x), -1)
        results = [fastcnn.dense(rows, draw("float32", 2 * length, o)) for o in (1, 10, 20, 70)]
        for o in (3, 40):
            results.append(fastcnn.conv2d(x, draw("float32", 1, 1, length, o)))
            results.append(fastcnn.conv2d(x, draw("float32", 1, 2, length, o), padding=1))
        turned = x.reshape(len(x), length, 2, 1)
        results.append(fastcnn.conv2d(turned, draw("float32", length, 2, 1, 5)))
        results.append(fastcnn.avg_pool2d(turned, (length, 2)))
        dx, _, _ = fastcnn.dense_backward(
            rows, np.zeros((len(x), 21), np.float32), draw("float32", 21, 2 * length)
        )
        return [*results, dx]

    whole = forward(samples)
    for first, last in ((0, 1), (4, 6), (7, 10), (11, 16), (2, 22)):
        for all_of_it, some in zip(whole, forward(samples[first:last]), strict=True):
            np.testing.assert_array_equal(all_of_it[first:last], some)


# --- whole nets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 9])
def test_gradients_of_nets_of_large_images(samples: int) -> None:
    """What a slice of a batch sums, and what is added over slices: against a net in float64."""

    def net(dtype: str) -> fastcnn.Sequential:
        layers = [Conv2D(4, 1), AvgPool2D(2), Conv2D(3, (1, 3)), GlobalAvgPool2D(), Dense(5)]
        return fastcnn.Sequential(layers, (340, 360, 1), dtype=dtype, seed=3)

    x = np.full((samples, 340, 360, 1), 1.0017, np.float32)
    narrow, wide = net("float32"), net("float64")
    for layer, like in zip(narrow.layers, wide.layers, strict=True):
        for name, array in like.parameters.items():
            layer.parameters[name] = array
            array[...] = layer.parameters[name]  # rounded
    before = [array.copy() for layer in wide.layers for array in layer.parameters.values()]
    for model in (narrow, wide):
        model.train_on_batch(x.astype(model.dtype), np.zeros(samples, int), SGD(64.0))
    arrays = [
        [array for layer in model.layers for array in layer.parameters.values()]
        for model in (narrow, wide)
    ]
    for start, one, other in zip(before, *arrays, strict=True):
        moved = other - start
        assert abs(moved).max() > 1  # far more than the rounding of a parameter
        error = abs((one - start) - moved).max() / abs(moved).max()
        assert error < 2 * STRETCH * unit_roundoff("float32")


# --- what would be found --------------------------------------------------------------------------


def one_after_the_other(dy: Array, g: object) -> Array:
    """The bias's gradient as float32 adds it, term by term."""
    return np.cumsum(dy.reshape(-1, dy.shape[-1]), axis=0, dtype=np.float32)[-1]


def test_compare_finds_sums_that_are_taken_term_by_term() -> None:
    long = [case for case in cases(quick=True) if case.mode == "long"]
    assert len(long) >= 3
    case = case_named("conv2d_bias_gradient/long-1x3000x2001x1-by-1x1x1x1/float32/long")
    assert case in long
    reference = reference_of(case, seed=0)
    assert all(check(reference, engine).ok for engine in FAST)
    with replaced("conv2d_bias_gradient", "im2col", one_after_the_other):
        assert "elements disagree" in str(check(reference, "im2col").problem)
