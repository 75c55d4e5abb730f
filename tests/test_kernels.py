"""The compiled kernels by themselves: loops behind the tiles, remainders, what is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from llvmlite import binding
from numba.core import config

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import conv_geometry, pool_geometry
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine import naive
from fastcnn.engine import numba as kernels
from fastcnn.engine.numba.contraction import chooser, contraction, few_steps, packing
from fastcnn.engine.numba.contraction.lines import Lines
from fastcnn.engine.numba.conv import direct
from fastcnn.engine.numba.dense import backward
from fastcnn.engine.numba.dense import few_samples as dense_input
from fastcnn.engine.numba.dense.chooser import dense_plan
from fastcnn.engine.numba.pool import chooser as pooling
from fastcnn.engine.numba.runtime import arrays, instruction_sets
from fastcnn.engine.numba.runtime.instruction_sets import (
    INSTRUCTION_SETS,
    choice_of,
    choosing_for,
    host_registers,
    registers,
)
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.layers import Conv2D, MaxPool2D
from fastcnn.models.sequential import Sequential
from fastcnn.proof.data import make_arrays
from fastcnn.proof.problems import Case, cases

LAYERS = ("conv2d", "conv2d_input_gradient", "conv2d_filter_gradient")


def integers(seed: int, *shape: int, dtype: str = "float32") -> Array:
    """Small integers, so that every sum of products is exact in any order."""
    drawn = np.random.default_rng([seed, *shape]).integers(-4, 5, shape)
    return np.asarray(drawn, dtype)


@pytest.fixture(params=INSTRUCTION_SETS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set in turn, and kernels chosen for it."""
    with choosing_for(request.param):
        yield request.param


# The loops: the registry has them behind the tiles, so they are called directly.


def convolutions(op: str) -> list[Any]:
    exact = [case for case in cases([op]) if case.mode == "exact"]
    return [pytest.param(case, id=case.name) for case in exact]


@pytest.mark.parametrize("case", convolutions("conv2d"))
def test_loops_forward(case: Case) -> None:
    arrays, g = make_arrays(case, 3), case.problem.geometry
    operands = (
        arrays["x"],
        arrays["w"],
        arrays.get("b"),
        case.problem.parameters.get("activation"),
    )
    reference = naive.conv2d(*operands, g)
    fast = kernels.conv2d(*operands, g)
    assert fast.dtype == reference.dtype
    np.testing.assert_array_equal(fast, reference)


@pytest.mark.parametrize("case", convolutions("conv2d_input_gradient"))
def test_loops_for_the_gradient_of_the_input(case: Case) -> None:
    arrays, g = make_arrays(case, 3), case.problem.geometry
    reference = naive.conv2d_input_gradient(arrays["dy"], arrays["w"], g)
    fast = kernels.conv2d_input_gradient(arrays["dy"], arrays["w"], g)
    assert fast.dtype == reference.dtype
    np.testing.assert_array_equal(fast, reference)


@pytest.mark.parametrize("case", convolutions("conv2d_filter_gradient"))
def test_loops_for_the_gradient_of_the_filters_and_the_bias(case: Case) -> None:
    arrays, g = make_arrays(case, 3), case.problem.geometry
    reference = naive.conv2d_filter_gradient(arrays["dy"], arrays["x"], g)
    fast = kernels.conv2d_filter_gradient(arrays["dy"], arrays["x"], g)
    assert fast.dtype == reference.dtype
    np.testing.assert_array_equal(fast, reference)
    np.testing.assert_array_equal(
        kernels.conv2d_bias_gradient(arrays["dy"], g), naive.conv2d_bias_gradient(arrays["dy"], g)
    )


# Packed filters: what narrow vectors take for large filters, here for all.


@pytest.fixture
def filters_packed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(chooser, "packing_pays", lambda rows, w_bytes, tile: True)
    monkeypatch.setattr(chooser, "PACKED_BLOCKS", 1)
    direct.forward_decision.cache_clear()
    yield
    direct.forward_decision.cache_clear()


@pytest.mark.parametrize("case", convolutions("conv2d"))
@pytest.mark.usefixtures("filters_packed")
def test_packed_filters_give_the_same(case: Case) -> None:
    arrays, g = make_arrays(case, 3), case.problem.geometry
    operands = (
        arrays["x"],
        arrays["w"],
        arrays.get("b"),
        case.problem.parameters.get("activation"),
    )
    np.testing.assert_array_equal(direct.conv2d(*operands, g), naive.conv2d(*operands, g))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("vectors", "vector"), [(1, 4), (2, 4), (2, 8)])
def test_packed_filters_lie_in_blocks(vectors: int, vector: int, groups: int) -> None:
    w, width = integers(1, 3, 2, 5, 38), vectors * vector
    columns = 38 // groups
    for group in range(groups):
        packed = packing.pack_filters(w, group * columns, columns, vectors, vector)
        rows = np.concatenate(list(packed.reshape(-1, 3, 2, 5, width)), axis=3)
        expected = w[..., group * columns : (group + 1) * columns]
        np.testing.assert_array_equal(rows[..., :columns], expected)
        np.testing.assert_array_equal(rows[..., columns:], 0)


def test_packing_is_for_large_filters_on_narrow_vectors() -> None:
    def pays(isa: str, pixels: int, ic: int, oc: int) -> bool:
        size = 9 * ic * oc * 4
        with choosing_for(isa):
            return chooser.packing_pays(pixels, size, chooser.tile_for(pixels, oc, 4))

    assert pays("avx2", 7 * 7, 512, 512)
    assert not pays("avx2", 4 * 4, 512, 512)  # read too seldom
    assert not pays("avx2", 28 * 28, 128, 128)  # small enough as it is
    assert not pays("avx512", 7 * 7, 512, 512)


# Tiles of rows in lines.

LINES = {
    # Widths of the output around the sides of both tiles, those with an overlap and those without.
    **{
        f"width-{ow}": ((2, 4, ow + 2, 1), (2, 3, 1, 5), {})
        for ow in (*range(7, 18), 22, 27, 28, 29, 43)
    },
    "strided": ((2, 9, 33, 3), (3, 2, 3, 7), {"stride": (2, 2), "padding": ((1, 2), (0, 1))}),
    "dilated": ((1, 9, 30, 2), (3, 2, 2, 3), {"dilation": (2, 3), "padding": "same"}),
    "grouped": ((2, 5, 17, 6), (2, 3, 2, 9), {"groups": 3, "padding": "same"}),
    "pointwise": ((3, 5, 7, 4), (1, 1, 4, 6), {}),
    "all-lanes": ((1, 4, 34, 8), (3, 3, 8, 16), {"padding": "same"}),
    # More columns than one vector holds.
    **{
        f"wide-{ow}-{oc}": ((2, 3, ow, ic), (1, 1, ic, oc), {})
        for ow, ic, oc in ((4, 3, 32), (13, 2, 30), (15, 1, 33), (16, 5, 65), (28, 4, 40))
    },
    "wide-rows": ((2, 6, 9, 3), (3, 3, 3, 34), {"padding": "same"}),
    "wide-strided": ((2, 9, 33, 3), (3, 2, 3, 37), {"stride": (2, 2), "padding": ((1, 2), (0, 1))}),
    "wide-grouped": ((2, 5, 17, 6), (2, 3, 2, 60), {"groups": 3, "padding": "same"}),
    # All taps in one tile.
    "3x3": ((3, 7, 11, 1), (3, 3, 1, 8), {}),
    "3x3-padded": ((2, 5, 6, 1), (3, 3, 1, 3), {"padding": "same", "stride": (1, 2)}),
    "3x3-dilated": ((1, 9, 8, 1), (3, 3, 1, 16), {"dilation": 2}),
    "5x5": ((3, 8, 12, 1), (5, 5, 1, 6), {}),
    "3x5": ((1, 8, 12, 1), (3, 5, 1, 6), {}),
    # Rows of three and five taps on one channel: lines that tiles fill, that overlap, too short.
    **{
        f"taps-{ow}": ((2, 5, ow + 2, 1), (2, 3, 1, 19), {})
        for ow in (5, 6, 7, 8, 10, 11, 12, 13, 18, 26)
    },
    **{f"5-taps-{ow}": ((2, 6, ow + 4, 1), (3, 5, 1, 33), {}) for ow in (4, 8, 9, 12)},
    "taps-padded": ((2, 7, 11, 1), (3, 3, 1, 40), {"padding": "same", "dilation": (2, 1)}),
    "taps-strided": ((2, 9, 12, 1), (4, 3, 1, 24), {"stride": (2, 1)}),
    "taps-strided-too": ((2, 9, 27, 1), (3, 3, 1, 24), {"stride": (1, 2)}),
    # An output of as many rows and pixels as a filter has taps, at steps that no line has.
    "3x3-pixels": ((1, 7, 9, 2), (3, 3, 2, 4), {"stride": (2, 3)}),
}


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LINES)
def test_rows_in_lines(layer: str, dtype: str) -> None:
    x_shape, w_shape, parameters = LINES[layer]
    x, w = integers(1, *x_shape, dtype=dtype), integers(2, *w_shape, dtype=dtype)
    b = integers(3, w_shape[3], dtype=dtype)
    arguments: dict[str, Any] = parameters | {"algorithm": "direct"}
    y = fastcnn.conv2d(x, w, b, activation="relu", **arguments, engine="naive")
    np.testing.assert_array_equal(fastcnn.conv2d(x, w, b, activation="relu", **arguments), y)
    dy = integers(4, *y.shape, dtype=dtype)
    for call in (
        lambda e: fastcnn.conv2d_filter_gradient(dy, x, w_shape[:2], **arguments, engine=e),
        lambda e: fastcnn.conv2d_input_gradient(dy, w, x_shape, **arguments, engine=e),
    ):
        np.testing.assert_array_equal(call(None), call("naive"))


def test_lines_are_for_short_sums_and_little_overlap() -> None:
    def chosen(isa: str, x: tuple[int, ...], w: tuple[int, ...]) -> list[Any]:
        """For the forward pass, and for the gradient of the filters."""
        g = conv_geometry(x, w)
        with choosing_for(isa):
            plans = direct.forward_plan(g, 4)[1], direct.filter_sum_plan(g, 4)[1]
            return [choice_of(plan.function).literals.get("lines") for plan in plans]

    assert chosen("avx512", (8, 28, 28, 1), (3, 3, 1, 8)) == [Lines(1, 14), Lines(3, 3)]
    assert chosen("avx512", (8, 32, 32, 1), (5, 5, 1, 6)) == [Lines(1, 14), Lines(5, 5)]
    # Few registers: rows of taps, in tiles that fill 28 and 32 pixels.
    mixed = Lines(1, 8, 5, mixed=True)
    assert chosen("avx2", (8, 32, 32, 1), (5, 5, 1, 6)) == [mixed, None]
    assert chosen("avx2", (8, 34, 34, 1), (3, 3, 1, 32)) == [Lines(1, 8, 3), None]
    assert chosen("avx2", (8, 7, 7, 1), (3, 3, 1, 32)) == [None, None]  # shorter than a tile
    assert chosen("avx512", (8, 34, 34, 3), (3, 3, 3, 8)) == [Lines(1, 8), None]  # 9 rows: 7 twice
    assert chosen("avx512", (8, 34, 34, 3), (3, 3, 3, 32)) == [Lines(1, 8), None]
    assert chosen("avx512", (8, 58, 58, 3), (3, 3, 3, 32)) == [Lines(1, 14), None]
    assert chosen("avx2", (8, 34, 34, 3), (3, 3, 3, 32)) == [None, None]
    assert chosen("avx512", (8, 34, 34, 32), (3, 3, 32, 64)) == [None, None]  # many steps
    assert chosen("avx512", (8, 14, 14, 6), (5, 5, 6, 16))[0] is None  # 10 pixels: 6 twice


# Convolution with 2×2 max-pooling at once.

POOLED = {
    # Pixels that most tiles fill, with an overlap and without; one too many for pairs.
    **{f"width-{ow}": ((2, 6, ow + 2, 1), (2, 3, 1, 5), {}) for ow in (14, 20, 26, 27, 28, 29)},
    # Rows of three and five taps on one channel, which some processors take at once.
    **{f"3x3-{ow}": ((2, 9, ow + 2, 1), (3, 3, 1, 6), {}) for ow in (12, 15, 16, 18, 22, 24)},
    **{f"5x5-{ow}": ((2, 9, ow + 4, 1), (5, 5, 1, 6), {}) for ow in (4, 7, 10, 28, 30)},
    "5x5-padded": ((2, 7, 14, 1), (4, 5, 1, 8), {"padding": "same"}),
    "3x3-wide": ((2, 7, 13, 1), (3, 3, 1, 20), {"padding": 1, "dilation": (2, 1)}),
    "3x3-strided": ((2, 9, 30, 1), (3, 3, 1, 8), {"stride": (2, 1)}),
    "one-line": ((3, 3, 15, 2), (2, 2, 2, 3), {}),
    "strided": ((2, 11, 57, 3), (3, 2, 3, 7), {"stride": (2, 2), "padding": ((1, 2), (0, 1))}),
    "strided-1x1": ((2, 9, 55, 3), (1, 1, 3, 7), {"stride": (2, 2)}),
    "1x1": ((3, 5, 14, 4), (1, 1, 4, 6), {}),
    "dilated": ((1, 9, 30, 2), (3, 2, 2, 3), {"dilation": (2, 2), "padding": "same"}),
    "grouped": ((2, 5, 16, 6), (2, 3, 2, 9), {"groups": 3}),
    # Long sums: of widths that all tiles fill; those above overlap on each instruction set.
    "lenet": ((2, 14, 24, 6), (5, 5, 6, 16), {}),
    **{f"columns-{oc}": ((1, 5, 16, 3), (3, 3, 3, oc), {}) for oc in (1, 4, 8, 9, 15, 17, 33)},
    "image-without-rests": ((2, 14, 28, 64), (3, 3, 64, 16), {"padding": "same"}),
}
# The layers whose lines are too short for tiles of 14 rows; they are convolved, then pooled.
SHORT = ["3x3-12", "5x5-4", "5x5-7", "3x3-wide"]
NOT_AT_ONCE = {"avx512": SHORT, "avx2": [], "sse2": [], "neon": SHORT, "baseline": []}


def is_at_once(layer: str) -> bool:
    """Whether the instruction set that kernels are chosen for has a pooled plan of the layer."""
    x_shape, w_shape, parameters = POOLED[layer]
    return direct.pooled_plan(conv_geometry(x_shape, w_shape, **parameters), 4) is not None


def test_layers_that_are_convolved_and_pooled_at_once(isa: str) -> None:
    assert [layer for layer in POOLED if not is_at_once(layer)] == NOT_AT_ONCE[isa]


def pooled(x: Array, w: Array, b: Array, relu: bool, **parameters: Any) -> Array:
    """By one plan; what no window has is cut off by it."""
    return pooled_and_places(x, w, b, relu, places=False, **parameters)[0]


def pooled_and_places(
    x: Array, w: Array, b: Array, relu: bool, places: bool = True, **parameters: Any
) -> tuple[Array, Array]:
    g = conv_geometry(x.shape, w.shape, **parameters)
    result = direct.pooled_plan(g, x.itemsize, places)
    assert result is not None, f"no pooled plan for {registers().isa}"
    to, plan = result
    y, z = np.full((2, g.n, g.oh // 2, g.ow // 2, g.oc), np.nan, x.dtype)
    operands = packing.lay_out(np.ascontiguousarray(x), to), w.reshape(-1), b
    numbers = y.reshape(-1), z.reshape(-1), relu, plan.numbers
    parallel_for(plan.function, plan.items, plan.work, *operands, *numbers)
    assert places or np.isnan(z).all()
    return y, z


@pytest.mark.each_instruction_set
@pytest.mark.parametrize(
    "shape", [(2, 6, 8, 1), (1, 7, 4, 8), (3, 4, 9, 7), (1, 5, 7, 40), (2, 3, 2, 16)]
)
@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_places_lead_back(shape: tuple[int, ...], value: float) -> None:
    x, dy = integers(1, *shape), integers(2, shape[0], shape[1] // 2, shape[2] // 2, shape[3])
    x.reshape(-1)[::7] = value
    with np.errstate(invalid="ignore"):
        expected = fastcnn.max_pool2d_backward(dy, x, 2, engine="naive")
    g = pool_geometry(shape, 2, stride=2)
    places = np.zeros(dy.shape, np.float32)
    for row, column in np.ndindex(*dy.shape[1:3]):
        window = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        places[:, row, column] = window.reshape(shape[0], 4, shape[3]).argmax(axis=1)
    dx = np.full(shape, np.nan, np.float32)
    function, items = pooling.argmax_gradient_kernel(g, 4)
    operands = dy.reshape(-1), places.reshape(-1), dx.reshape(-1), arrays.record(g)
    parallel_for(function, items, 0, *operands)
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("layer", POOLED)
def test_convolution_with_pooling_tells_the_places(layer: str) -> None:
    x_shape, w_shape, parameters = POOLED[layer]
    x, w, b = integers(1, *x_shape), integers(2, *w_shape), integers(3, w_shape[3])
    whole = fastcnn.conv2d(x, w, b, **parameters, engine="naive")
    if not is_at_once(layer):  # the way back leads through the pooling's own gradient
        dy = integers(4, *fastcnn.max_pool2d(whole, 2).shape)
        assert_same(lambda engine: fastcnn.max_pool2d_backward(dy, whole, 2, engine=engine))
        return
    y, places = pooled_and_places(x, w, b, False, **parameters)
    n, oh, ow, oc = y.shape
    windows = whole[:, : 2 * oh, : 2 * ow].reshape(n, oh, 2, ow, 2, oc).transpose(0, 1, 3, 2, 4, 5)
    np.testing.assert_array_equal(places, windows.reshape(n, oh, ow, 4, oc).argmax(axis=3))
    assert not np.isnan(y).any()


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("layer", POOLED)
def test_convolution_with_pooling(layer: str, activation: Any) -> None:
    x_shape, w_shape, parameters = POOLED[layer]
    x, w, b = integers(1, *x_shape), integers(2, *w_shape), integers(3, w_shape[3])
    y = fastcnn.conv2d(x, w, b, activation=activation, **parameters, engine="naive")
    y = fastcnn.max_pool2d(y, 2, engine="naive")
    if is_at_once(layer):
        np.testing.assert_array_equal(pooled(x, w, b, activation == "relu", **parameters), y)
    # A model takes that plan where there is one, else both layers in turn.
    strides = {"strides" if key == "stride" else key: value for key, value in parameters.items()}
    convolution = Conv2D(
        w_shape[3], w_shape[:2], activation=activation, algorithm="direct", **strides
    )
    model = Sequential([convolution, MaxPool2D()], x_shape[1:], seed=0)
    model.set_weights([w, b])
    np.testing.assert_array_equal(model._forward_batch(x), y)


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_convolution_with_pooling_of_what_is_not_finite(value: float) -> None:
    w, b = integers(2, 2, 3, 1, 5), integers(3, 5)
    for x in spoiled(integers(1, 2, 5, 30, 1), value):
        with np.errstate(invalid="ignore"):
            y = fastcnn.max_pool2d(fastcnn.conv2d(x, w, b, engine="naive"), 2, engine="naive")
        np.testing.assert_array_equal(pooled(x, w, b, False), y)
    for bias in spoiled(b, value):
        y = fastcnn.max_pool2d(fastcnn.conv2d(x, w, bias, engine="numba"), 2)
        np.testing.assert_array_equal(pooled(x, w, bias, False), y)


@pytest.mark.each_instruction_set
def test_of_equal_numbers_the_first_is_the_largest() -> None:
    x, w, b = integers(1, 1, 8, 28, 1), np.zeros((1, 1, 1, 8), np.float32), np.zeros(8, np.float32)
    w[..., ::2], b[...] = -0.0, -0.0
    y = fastcnn.max_pool2d(fastcnn.conv2d(x, w, b, algorithm="direct"), 2)
    assert 0 < np.signbit(y).sum() < y.size
    np.testing.assert_array_equal(np.signbit(pooled(x, w, b, False)), np.signbit(y))


def test_pooling_at_once_is_for_lines_that_tiles_fill() -> None:
    def pays(isa: str, ow: int, ic: int = 1, oc: int = 8, itemsize: int = 4, **more: Any) -> bool:
        g = conv_geometry((1, 9, ow + 2, ic), (3, 3, ic // more.get("groups", 1), oc), **more)
        with choosing_for(isa):
            return direct.pooled_plan(g, itemsize) is not None

    def widths(isa: str, ic: int) -> list[int]:
        return [ow for ow in range(1, 33) if pays(isa, ow, ic)]

    assert widths("avx512", 1) == [10, 11, *range(14, 33)]
    assert widths("avx512", 3) == [10, 11, *range(14, 33)]
    assert widths("avx512", 16) == [10, 11, 14, 15, 20, 21, 28, 29, 30, 31]
    assert widths("avx2", 1) == list(range(4, 33))
    assert widths("avx2", 16) == [*range(4, 10), 12, 13, *range(16, 22), 24, 25, *range(28, 33)]
    assert pays("avx512", 28, oc=64)
    assert not pays("avx512", 16, 3, oc=16)  # as long on full vectors as four times the steps
    assert not pays("avx512", 28, itemsize=8)
    assert not pays("avx512", 28, ic=8, groups=8)  # depthwise has a kernel of its own


# Sums of many inputs and few outputs: vectors hold several rows of weights.


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 3, 4, 7, 8, 10, 12, 16, 20, 33])
@pytest.mark.parametrize("inputs", [255, 256, 259, 1352, 4300])
def test_many_inputs_and_few_outputs(inputs: int, outputs: int, dtype: str) -> None:
    w, b = integers(2, inputs, outputs, dtype=dtype), integers(3, outputs, dtype=dtype)
    x = integers(1, 29, inputs, dtype=dtype)
    y = np.maximum(x @ w + b, 0)
    for n in (1, 2, 3, 4, 5, 7, 8, 9, 14, 15, 29):
        np.testing.assert_array_equal(fastcnn.dense(x[:n], w, b, activation="relu"), y[:n])
    # Of other numbers the order shows: the same for any batch.
    x, w, b = (np.random.default_rng(5).standard_normal(a.shape).astype(dtype) for a in (x, w, b))
    y = fastcnn.dense(x, w, b)
    for n in (1, 2, 3, 4, 5, 7, 8, 9, 14, 15):
        np.testing.assert_array_equal(fastcnn.dense(x[:n], w, b), y[:n])
    choice = choice_of(dense_plan(1, inputs, outputs, x.itemsize).function)
    if choice.name != "packed" or inputs > STRETCH:
        return
    # An accumulator takes every so many inputs; those of an output are added in order.
    apart = choice.literals["vectors"] * choice.literals["lanes"] // outputs
    total = np.zeros(y.shape, dtype)
    for k in range(apart):
        some = slice(k, None, apart)
        if len(w[some]) >= 256:  # in several accumulators itself
            return
        total += fastcnn.dense(x[:, some], w[some], np.zeros_like(b) if k else b)
    np.testing.assert_array_equal(y, total)


def test_layers_of_few_outputs_that_have_packed_sums() -> None:
    def outputs(isa: str, itemsize: int = 4, inputs: int = 256) -> list[int]:
        with choosing_for(isa):
            plans = {n: dense_plan(3, inputs, n, itemsize) for n in range(1, 50)}
            return [n for n, plan in plans.items() if choice_of(plan.function).name == "packed"]

    assert outputs("avx512") == [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32]
    assert outputs("avx2") == [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24]
    assert outputs("avx512", itemsize=8) == outputs("avx2")
    assert outputs("sse2") == [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20]
    assert outputs("avx512", inputs=255) == []


def test_packed_sums_keep_what_is_not_finite_to_itself() -> None:
    rng = np.random.default_rng(3)
    for inputs in (256, 257, 258, 259, 263):
        x = rng.standard_normal((5, inputs)).astype(np.float32)
        w = rng.standard_normal((inputs, 10)).astype(np.float32)
        x[1, 0], x[2, -1], x[3, inputs - inputs % 4 - 1] = np.inf, -np.inf, np.nan
        w[-1, 3], w[17, 0] = np.inf, np.nan
        with np.errstate(invalid="ignore"):
            reference = fastcnn.dense(x, w, engine="naive")
        y = fastcnn.dense(x, w)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(reference))
        finite = np.isfinite(reference)
        np.testing.assert_array_equal(y[~finite], reference[~finite])
        np.testing.assert_allclose(y[finite], reference[finite], atol=1e-3)


# One or two rows: a tile has one row of many vectors.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [17, 33, 64, 65, 130, 256, 1030, 2100])
@pytest.mark.parametrize("inputs", [1, 7, 9, 150])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows(n: int, inputs: int, outputs: int, dtype: str) -> None:
    x, w = integers(1, n, inputs, dtype=dtype), integers(2, inputs, outputs, dtype=dtype)
    b, dy = integers(3, outputs, dtype=dtype), integers(4, n, outputs, dtype=dtype)
    for activation in (None, "relu"):
        y = fastcnn.dense(x, w, b, activation=activation)
        reference = fastcnn.dense(x, w, b, activation=activation, engine="naive")
        np.testing.assert_array_equal(y, reference)
    fast, reference = (fastcnn.dense_backward(dy, x, w, engine=e) for e in ("numba", "naive"))
    for result, expected in zip(fast, reference, strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 3, 7, 8, 10, 16, 17, 33, 100, 131])
@pytest.mark.parametrize("inputs", [1, 2, 13, 257, 700])
def test_weight_gradient_of_few_samples(inputs: int, outputs: int, dtype: str) -> None:
    rng = np.random.default_rng([inputs, outputs])
    w = np.zeros((inputs, outputs), dtype)
    for n in range(1, few_steps.STEPS + 1):
        x, dy = integers(n, n, inputs, dtype=dtype), integers(n + 9, n, outputs, dtype=dtype)
        _, dw, _ = fastcnn.dense_backward(dy, x, w, engine="numba")
        np.testing.assert_array_equal(dw, x.T @ dy)
        # Of other numbers the order shows: that of more samples, of which some are zero.
        x, dy = (rng.standard_normal(a.shape).astype(dtype) for a in (x, dy))
        _, dw, _ = fastcnn.dense_backward(dy, x, w, engine="numba")
        x, dy = (np.concatenate([a, np.zeros((5, a.shape[1]), dtype)]) for a in (x, dy))
        _, of_more, _ = fastcnn.dense_backward(dy, x, w, engine="numba")
        np.testing.assert_array_equal(dw, of_more)


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 7, 8, 9, 10, 15, 16, 17, 31, 33, 130])
@pytest.mark.parametrize("inputs", [1, 2, 5, 8, 13, 16, 257, 700])
def test_input_gradient_of_few_samples(inputs: int, outputs: int, dtype: str) -> None:
    rng = np.random.default_rng([inputs, outputs])
    w, exact = (rng.standard_normal((inputs, outputs)).astype(dtype) for _ in range(2))
    exact = np.rint(exact * 3)
    for n in range(1, dense_input.FEW + 2):
        x = np.zeros((n, inputs), dtype)
        dy = integers(n, n, outputs, dtype=dtype)
        dx, _, _ = fastcnn.dense_backward(dy, x, exact, engine="numba")
        np.testing.assert_array_equal(dx, dy @ exact.T)
        # Of other numbers the order shows: that of more samples.
        dy = rng.standard_normal(dy.shape).astype(dtype)
        dx, _, _ = fastcnn.dense_backward(dy, x, w, engine="numba")
        dy, x = np.concatenate([dy] * 7), np.zeros((7 * n, inputs), dtype)
        of_more, _, _ = fastcnn.dense_backward(dy, x, w, engine="numba")
        np.testing.assert_array_equal(dx, of_more[:n])


def test_input_gradient_of_few_samples_keeps_what_is_not_finite_to_itself() -> None:
    w, dy = np.ones((19, 13), np.float32), np.ones((3, 13), np.float32)
    dy[1, 2], dy[2, 12], w[4, 6], w[18, 1] = np.inf, np.nan, -np.inf, np.nan
    x = np.zeros((3, 19), np.float32)
    with np.errstate(invalid="ignore"):
        of_both = [fastcnn.dense_backward(dy, x, w, engine=e)[0] for e in ("numba", "naive")]
    np.testing.assert_array_equal(*of_both)


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 5, 32, 33])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (19, 13), (700, 9), (1031, 300)])
def test_gradients_by_blocks_are_those_of_whole_products(
    inputs: int, outputs: int, n: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng([inputs, n])
    shapes = (n, outputs), (n, inputs), (inputs, outputs)
    dy, x, w = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    results = []
    for one_call in (True, False):
        monkeypatch.setattr(backward, "is_one_call", lambda *_, one_call=one_call: one_call)
        results.append(backward.dense_backward(dy, x, w))
    for by_blocks, whole in zip(*results, strict=True):
        np.testing.assert_array_equal(by_blocks, whole)


# A square of numbers turned in registers.


SQUARES = [
    (lanes, dtype)
    for dtype in ("float32", "float64")
    for lanes in (2, 4, 8, 16)
    if lanes * np.dtype(dtype).itemsize <= registers().vector_bytes
]


@pytest.mark.each_instruction_set
@pytest.mark.parametrize(("lanes", "dtype"), SQUARES)
def test_squares_are_turned(lanes: int, dtype: str) -> None:
    w = np.arange(lanes * lanes * 6, dtype=dtype).reshape(1, 2, lanes, 3 * lanes)
    turned = packing.transpose_filters(w, 1, lanes).reshape(1, 2, 3 * lanes, lanes)
    np.testing.assert_array_equal(turned, w.transpose(0, 1, 3, 2))


@pytest.mark.parametrize("parameters", [{}, {"padding": 1, "stride": (4, 5)}, {"groups": 2}])
def test_images_of_one_or_two_pixels(parameters: dict[str, Any]) -> None:
    groups = parameters.get("groups", 1)
    x, w = integers(1, 1, 4, 4, 6), integers(2, 3, 4, 6 // groups, 80)
    b, arguments = integers(3, 80), parameters | {"algorithm": "direct"}
    y = fastcnn.conv2d(x, w, b, activation="relu", **arguments, engine="naive")
    assert y.shape[0] * y.shape[1] * y.shape[2] <= 2
    np.testing.assert_array_equal(fastcnn.conv2d(x, w, b, activation="relu", **arguments), y)


# Infinity and NaN: padding is skipped, not multiplied by zero.

NOT_FINITE = {
    # Images many against filters few, and the other way round: the two places where it is checked.
    "plain": ((2, 7, 6, 3), (3, 2, 3, 5), {}),
    "wide-filters": ((1, 3, 4, 6), (3, 4, 6, 17), {}),
    "strided": ((1, 7, 8, 2), (3, 3, 2, 4), {"stride": (2, 3)}),
    "dilated": ((1, 7, 8, 2), (3, 2, 2, 4), {"dilation": (2, 3)}),
    "grouped": ((1, 5, 6, 6), (2, 3, 3, 4), {"groups": 2}),
    "depthwise": ((1, 5, 6, 17), (3, 3, 1, 17), {"groups": 17}),
    "pointwise": ((1, 5, 6, 3), (1, 1, 3, 7), {}),
}
PADDINGS = ("valid", "same", ((1, 0), (0, 2)))
VALUES = (np.inf, -np.inf, np.nan)


def spoiled(array: Array, value: float) -> Iterator[Array]:
    """Copies with the value at one end, at the other, or in the middle."""
    for place in (0, array.size // 2, array.size - 1):
        copy = array.copy()
        copy.reshape(-1)[place] = value
        yield copy


def assert_same(call: Callable[[str], Any]) -> None:
    with np.errstate(invalid="ignore"):
        reference, fast = call("naive"), call("numba")
    np.testing.assert_array_equal(fast, reference)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("layer", NOT_FINITE)
def test_what_is_not_finite_goes_where_the_specification_says(
    layer: str, padding: Any, value: float
) -> None:
    x_shape, w_shape, parameters = NOT_FINITE[layer]
    x, w, b = integers(1, *x_shape), integers(2, *w_shape), integers(3, w_shape[3])
    arguments: dict[str, Any] = parameters | {"padding": padding}
    dy = integers(4, *fastcnn.conv2d(x, w, **arguments).shape)
    for bad in spoiled(w, value):
        assert_same(lambda e, w=bad: fastcnn.conv2d(x, w, b, **arguments, engine=e))
        assert_same(
            lambda e, w=bad: fastcnn.conv2d(x, w, b, activation="relu", **arguments, engine=e)
        )
        assert_same(
            lambda e, w=bad: fastcnn.conv2d_input_gradient(dy, w, x_shape, **arguments, engine=e)
        )
    for bad in spoiled(x, value):
        assert_same(lambda e, x=bad: fastcnn.conv2d(x, w, b, **arguments, engine=e))
        assert_same(
            lambda e, x=bad: fastcnn.conv2d_filter_gradient(
                dy, x, w_shape[:2], **arguments, engine=e
            )
        )
    for bad in spoiled(dy, value):
        assert_same(
            lambda e, dy=bad: fastcnn.conv2d_filter_gradient(
                dy, x, w_shape[:2], **arguments, engine=e
            )
        )
        assert_same(
            lambda e, dy=bad: fastcnn.conv2d_input_gradient(dy, w, x_shape, **arguments, engine=e)
        )


def test_an_infinite_tap_over_the_padding_leaves_the_border_finite() -> None:
    """The case that multiplying by zeros gets wrong, written out."""
    x, w = np.ones((1, 3, 4, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
    w[0, 0] = np.inf
    y = fastcnn.conv2d(x, w, padding=1, engine="numba")[0, :, :, 0]
    np.testing.assert_array_equal(np.isfinite(y[0]), True)
    np.testing.assert_array_equal(np.isfinite(y[:, 0]), True)
    np.testing.assert_array_equal(y[1:, 1:], np.inf)


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_denormal_numbers_are_kept(dtype: str, engine: str) -> None:
    least = np.finfo(dtype).smallest_subnormal
    x = np.arange(1, 121, dtype=dtype).reshape(1, 4, 5, 6) * least
    assert 0 < x.max() < np.finfo(dtype).tiny
    for y in (
        fastcnn.relu(x, engine=engine),
        fastcnn.max_pool2d(x, 1, engine=engine),
        fastcnn.conv2d(x, np.eye(6, dtype=dtype)[None, None], engine=engine),
        fastcnn.dense(x.reshape(20, 6), np.eye(6, dtype=dtype), engine=engine),
    ):
        np.testing.assert_array_equal(y.reshape(x.shape), x)


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 3, 8, 17, 33])
def test_relu_keeps_nan(columns: int, dtype: str) -> None:
    x = np.array([[np.nan, -1], [2, -np.inf], [-0.0, np.inf]], dtype)
    w = np.full((2, columns), 0.5, dtype)
    y = fastcnn.dense(x, w, activation="relu", engine="numba")
    np.testing.assert_array_equal(y, np.repeat([[np.nan], [0], [np.inf]], columns, axis=1))
    image, filters = x.reshape(1, 3, 1, 2), w.reshape(1, 1, 2, columns)
    np.testing.assert_array_equal(
        fastcnn.conv2d(image, filters, activation="relu", engine="numba")[0, :, 0], y
    )
    np.testing.assert_array_equal(
        fastcnn.relu(x, engine="numba"), [[np.nan, 0], [2, 0], [0, np.inf]]
    )


# Remainders, by name: how many rows and columns are left for the last tile.


def around(side: int) -> dict[str, int]:
    """Extents by how they lie to one side of a tile."""
    half = max(side // 2, 1)
    return {
        "one": 1,
        "half": half,
        "half_gt": half + 1,
        "lt": max(side - 1, 1),
        "eq": side,
        "gt": side + 1,
        "div": 3 * side,
        "div_lt": 3 * side - 1,
        "div_gt": 3 * side + 1,
    }


def lanes(dtype: str) -> int:
    return registers().vector_bytes // np.dtype(dtype).itemsize


def columns_of(name: str, dtype: str) -> int:
    unit, _, place = name.partition("-")
    side = lanes(dtype) * (registers().tile_vectors if unit == "tile" else 1)
    return around(side)[place]


ROWS = [*around(2), "parts"]
COLUMNS = [f"{unit}-{place}" for unit in ("vector", "tile") for place in around(2)]


def rows_of(name: str) -> int:
    side = registers().tile_rows
    # More tiles than one item holds, and one row more.
    return contraction.GRAIN * side + 1 if name == "parts" else around(side)[name]


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns_name", COLUMNS)
@pytest.mark.parametrize("rows_name", ROWS)
def test_remainders(rows_name: str, columns_name: str, dtype: str) -> None:
    rows, columns = rows_of(rows_name), columns_of(columns_name, dtype)
    many, few = integers(1, rows, 3, dtype=dtype), integers(2, 3, columns, dtype=dtype)
    wide, b = integers(3, rows, columns, dtype=dtype), integers(4, columns, dtype=dtype)

    # Rows are samples, or inputs; columns are outputs.
    np.testing.assert_array_equal(fastcnn.dense(many, few, b, engine="numba"), many @ few + b)
    dx, dw, db = fastcnn.dense_backward(wide, many, few, engine="numba")
    np.testing.assert_array_equal(dx, wide @ few.T)
    np.testing.assert_array_equal(dw, many.T @ wide)
    np.testing.assert_array_equal(db, wide.sum(axis=0))

    # Rows are pixels, columns output channels; then columns are input channels.
    x, w = many.reshape(1, 1, rows, 3), few.reshape(1, 1, 3, columns)
    y = fastcnn.conv2d(x, w, b, engine="numba")
    np.testing.assert_array_equal(y[0, 0], many @ few + b)
    w = few.T.reshape(1, 1, columns, 3)
    dx = fastcnn.conv2d_input_gradient(x, w, (1, 1, rows, columns), engine="numba")
    np.testing.assert_array_equal(dx[0, 0], many @ few)

    # Rows are input channels, columns output channels.
    x, dy = many.T.reshape(1, 3, 1, rows), few.reshape(1, 3, 1, columns)
    dw = fastcnn.conv2d_filter_gradient(dy, x, 1, engine="numba")
    np.testing.assert_array_equal(dw[0, 0], many @ few)

    # Each column its own channel.
    if columns > 1:
        x = wide.reshape(1, 1, rows, columns)
        y = fastcnn.conv2d(x, b.reshape(1, 1, 1, columns), groups=columns, engine="numba")
        np.testing.assert_array_equal(y[0, 0], wide * b)


# The choice of tiles.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tile_fits_the_problem_and_the_registers(isa: str, dtype: str) -> None:
    widest = registers().vector_bytes // np.dtype(dtype).itemsize
    for rows in range(1, 65):
        for columns in range(1, 131):
            tile = chooser.tile_for(rows, columns, np.dtype(dtype).itemsize)
            problem = f"{rows}×{columns}: {tile}"
            assert min(tile) >= 1, problem
            assert tile.lanes <= widest, problem
            assert tile.lanes & (tile.lanes - 1) == 0, problem
            if rows > chooser.FEW_ROWS:
                assert tile.lanes <= 4 or tile.lanes < 2 * columns, problem
            assert tile.columns == tile.vectors * tile.lanes
            # Sums alone must leave room for what they are made of.
            assert tile.rows * tile.vectors < registers().number, problem


def asked(monkeypatch: pytest.MonkeyPatch, name: str | None, features: str | None) -> str:
    """What host_registers() says under NUMBA_CPU_NAME and NUMBA_CPU_FEATURES."""
    monkeypatch.setattr(config, "CPU_NAME", name)
    monkeypatch.setattr(config, "CPU_FEATURES", features)
    return host_registers.__wrapped__().isa


def test_registers_follow_the_processor_that_numba_compiles_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instruction_sets.platform, "machine", lambda: "x86_64")
    assert asked(monkeypatch, "skylake-avx512", "") == "avx512"
    assert asked(monkeypatch, "znver4", None) == "avx512"
    assert asked(monkeypatch, "haswell", "") == "avx2"
    assert asked(monkeypatch, "znver2", "") == "avx2"
    assert asked(monkeypatch, "x86-64", "") == "sse2"
    assert asked(monkeypatch, "generic", "") == "sse2"
    assert asked(monkeypatch, "x86-64", "+avx2,+fma") == "avx2"
    assert asked(monkeypatch, "x86-64", "+avx2") == "sse2"
    assert asked(monkeypatch, "skylake-avx512", "-avx512f") == "avx2"

    has = dict.fromkeys(("avx2", "fma", "avx512f"), True)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: has)
    assert asked(monkeypatch, None, None) == "avx512"
    assert asked(monkeypatch, None, "-avx512f") == "avx2"
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: has | {"avx512f": False})
    assert asked(monkeypatch, None, None) == "avx2"
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: has | {"fma": False})
    assert asked(monkeypatch, None, None) == "sse2"


def test_registers_of_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction_sets.platform, "machine", lambda: "arm64")
    assert host_registers.__wrapped__().isa == "neon"
    monkeypatch.setattr(instruction_sets.platform, "machine", lambda: "riscv64")
    assert host_registers.__wrapped__().isa == "baseline"


# Windows of 2×2 and 3×3 in the image: unrolled, and 2×2 without the steps that look for NaN.


@pytest.mark.parametrize("channels", [3, 8, 16, 20, 64, 70])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("parameters", [{}, {"stride": (1, 2)}, {"stride": (3, 2), "padding": 1}])
def test_max_pooling_of_what_is_not_finite(
    channels: int, size: int, parameters: dict[str, Any]
) -> None:
    rng = np.random.default_rng(channels)
    x = rng.integers(-2, 3, (2, 11, 14, channels)).astype("float32")
    x[x == 0] = rng.choice([0.0, -0.0], np.count_nonzero(x == 0))  # equal, whatever their sign
    clean = x.copy()
    for value in VALUES:
        x[rng.random(x.shape) < 0.01] = value
    for images in (x, clean):
        y = fastcnn.max_pool2d(images, size, **parameters)
        reference = fastcnn.max_pool2d(images, size, **parameters, engine="naive")
        np.testing.assert_array_equal(y, reference)
        dy = integers(3, *y.shape)
        fast, reference = (
            fastcnn.max_pool2d_backward(dy, images, size, **parameters, engine=engine)
            for engine in ("numba", "naive")
        )
        np.testing.assert_array_equal(fast, reference)
