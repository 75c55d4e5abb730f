"""Axes in another order, and depth as space: the formulas, and every form of copy.

On other shapes engines are held against the specification in ``test_agreement.py``.
"""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from slopes import same, slope

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.resizing import resize_geometry
from fastcnn.engine.numba.elementwise import padding, rearranging, resizing
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.calls import NO_BOARD, step_address
from fastcnn.engine.numba.runtime.instruction_sets import choosing_for
from fastcnn.engine.numba.runtime.types import Kernel

ENGINES = fastcnn.engines()
ORDERS = ("DCR", "CRD")


def numbered(*shape: int, dtype: str = "float32") -> Array:
    """Numbers that are all different."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("engine", ENGINES)
def test_axes_of_a_sample_are_counted_from_1(engine: str) -> None:
    x = numbered(2, 5, 7, 3)
    y = fastcnn.permute(x, (3, 1, 2), engine=engine)
    for n, h, w, c in np.ndindex(x.shape):
        assert y[n, c, h, w] == x[n, h, w, c]
    np.testing.assert_array_equal(y, fastcnn.nhwc_to_nchw(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "naive"])
@pytest.mark.parametrize(
    "shape",
    [(1, 3, 2, 4, 5), (2, 1, 17, 3, 2), (3, 70, 2, 1, 33), (2, 66, 67, 1, 1), (1, 5, 4, 16, 18)],
)
def test_every_order_is_that_of_numpy_and_goes_back(
    shape: tuple[int, ...], engine: str, dtype: str
) -> None:
    x = numbered(*shape, dtype=dtype)
    for order in permutations(range(1, len(shape))):
        y = fastcnn.permute(x, order, engine=engine)
        assert y.flags.c_contiguous
        assert not np.shares_memory(x, y)
        np.testing.assert_array_equal(y, x.transpose(0, *order), err_msg=str(order))
        back = fastcnn.permute_backward(y, order, engine=engine)
        np.testing.assert_array_equal(back, x, err_msg=str(order))


PLANES = [
    *product((2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33), repeat=2),
    (3, 1500),
    (64, 130),
    (131, 65),
]


@pytest.mark.parametrize("isa", ["sse2", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_planes_of_all_sides(dtype: str, isa: str) -> None:
    """Squares of all sizes, their tails, and planes with two to four rows or columns."""
    with choosing_for(isa):
        for rows, columns in PLANES:
            for shape, order in (
                ((2, rows, columns), (2, 1)),
                ((1, 3, rows, 2, columns), (1, 4, 3, 2)),  # other planes lie between the rows
                ((2, rows, 3, columns), (3, 2, 1)),
            ):
                x = numbered(*shape, dtype=dtype)
                y = fastcnn.permute(x, order, engine="numba")
                np.testing.assert_array_equal(y, x.transpose(0, *order), err_msg=f"{shape}")


def test_axes_that_stay_neighbours_are_one() -> None:
    assert rearranging._merged_axes((2, 3, 4, 5), (1, 2, 3)) == [(120, 1)]
    assert rearranging._merged_axes((2, 1, 4, 1), (3, 2, 1)) == [(8, 1)]
    assert rearranging._merged_axes((2, 3, 4, 5), (3, 1, 2)) == [(2, 60), (5, 1), (12, 5)]
    assert rearranging._merged_axes((2, 3, 4, 5), (2, 1, 3)) == [(2, 60), (4, 5), (3, 20), (5, 1)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("block", "channels"), [(2, 3), (3, 1), (2, 17), (1, 4), (4, 2)])
def test_depth_is_space_by_the_formula(block: int, channels: int, order: str, engine: str) -> None:
    x = numbered(2, 3, 2, channels * block**2)
    y = fastcnn.depth_to_space(x, block, order, engine=engine)  # type: ignore[arg-type]
    assert y.shape == (2, 3 * block, 2 * block, channels)
    for n, h, w, i, j, c in np.ndindex(2, 3, 2, block, block, channels):
        depth = (i * block + j) * channels + c if order == "DCR" else (c * block + i) * block + j
        assert y[n, h * block + i, w * block + j, c] == x[n, h, w, depth]
    back = fastcnn.space_to_depth(y, block, order, engine=engine)  # type: ignore[arg-type]
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("engine", ENGINES)
def test_depth_to_space_is_that_of_onnx_and_pytorch(engine: str) -> None:
    """A pixel of 8 channels: ONNX's DepthToSpace by default, and PyTorch's ``pixel_shuffle``."""
    x = np.arange(8.0).reshape(1, 1, 1, 8)
    y = fastcnn.depth_to_space(x, 2, engine=engine)
    assert y[0].transpose(2, 0, 1).tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]
    y = fastcnn.depth_to_space(x, 2, "CRD", engine=engine)
    assert y[0].transpose(2, 0, 1).tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_slopes(engine: str) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 2, 3, 8)), rng.standard_normal((2, 4, 6, 2))

    def depth() -> float:
        return float((fastcnn.depth_to_space(x, 2, "CRD", engine=engine) * dy).sum())

    same(fastcnn.space_to_depth(dy, 2, "CRD", engine=engine), slope(depth, x))
    turned = rng.standard_normal((2, 8, 2, 3))

    def permuted() -> float:
        return float((fastcnn.permute(x, (3, 1, 2), engine=engine) * turned).sum())

    same(fastcnn.permute_backward(turned, (3, 1, 2), engine=engine), slope(permuted, x))
    inner = rng.standard_normal((2, 1, 1, 8))

    def cropped() -> float:
        return float((fastcnn.crop2d(x, ((1, 0), (0, 2)), engine=engine) * inner).sum())

    back = fastcnn.crop2d_backward(inner, ((1, 0), (0, 2)), engine=engine)
    same(back, slope(cropped, x))


@pytest.mark.parametrize("engine", ENGINES)
def test_cropping_is_a_slice_and_padding_takes_it_back(engine: str) -> None:
    x = numbered(2, 5, 7, 3)
    y = fastcnn.crop2d(x, ((1, 2), (0, 3)), engine=engine)
    np.testing.assert_array_equal(y, x[:, 1:3, :4])
    back = fastcnn.crop2d_backward(y, ((1, 2), (0, 3)), engine=engine)
    np.testing.assert_array_equal(back, np.pad(y, ((0, 0), (1, 2), (0, 3), (0, 0))))
    assert fastcnn.crop2d(x, (2, 3), engine=engine).shape == (2, 1, 1, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_can_be_steps_of_programs(dtype: type) -> None:
    """Each kernel has an entry that reads flat arrays and numbers from at most seven operands."""
    like = np.zeros(1, dtype)
    itemsize = like.itemsize
    for shape, order in (
        ((2, 5, 7, 3), (3, 1, 2)), ((2, 3, 50), (2, 1)), ((2, 9, 33), (2, 1)),
        ((2, 3, 4, 5), (2, 1, 3)),
    ):  # fmt: skip
        plan = rearranging.permutation(shape, order, itemsize)
        assert plan.numbers is not None
        assert step_address(plan.function, like, like, plan.axes, plan.numbers)
    identity = rearranging.permutation((2, 5, 7), (1, 2), itemsize)
    assert identity.numbers is None
    assert step_address(identity.function, like, like)
    for method, backward in product(("nearest", "bilinear"), (False, True)):
        g = resize_geometry((2, 3, 4, 5), (6, 8), method, "half_pixel", "floor")
        sums = resizing.resampling(g, backward, itemsize)
        assert step_address(sums.function, like, like, sums.table, sums.weights, sums.numbers)
    rows = record(padding.padded_rows((2, 3, 4, 5), (1, 0, 2, 1)))
    for kernel in (padding.pad_rows, padding.crop_rows):
        assert step_address(kernel, like, like, rows)


def by_items(function: Kernel, items: int, *operands: Array) -> None:
    """Run the items of a kernel one by one, the last first."""
    for item in reversed(range(items)):
        function(NO_BOARD, 1, item, item + 1, *operands)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_items_of_kernels_do_not_need_each_other(dtype: str) -> None:
    """Threads take them in any order."""
    itemsize = np.dtype(dtype).itemsize
    for shape, order in (
        ((2, 150, 70), (2, 1)), ((1, 3000, 3), (2, 1)), ((3, 9, 40, 12), (3, 1, 2)),
        ((2, 90, 7, 20), (2, 1, 3)), ((1, 40, 30, 3, 2), (1, 4, 2, 3)),
    ):  # fmt: skip
        x = numbered(*shape, dtype=dtype)
        plan = rearranging.permutation(shape, order, itemsize)
        assert plan.items > 1
        assert plan.numbers is not None
        y = np.full(x.size, np.nan, dtype)
        by_items(plan.function, plan.items, x.reshape(-1), y, plan.axes, plan.numbers)
        np.testing.assert_array_equal(y, x.transpose(0, *order).reshape(-1))
    for method, backward in product(("nearest", "bilinear"), (False, True)):
        g = resize_geometry((2, 7, 5, 3), (33, 11), method, "half_pixel", "floor")
        x = numbered(*(g.output_shape if backward else g.input_shape), dtype=dtype)
        sums = resizing.resampling(g, backward, itemsize)
        assert sums.items > 2
        y = np.full(g.input_shape if backward else g.output_shape, np.nan, dtype)
        flat = x.reshape(-1), y.reshape(-1)
        by_items(sums.function, sums.items, *flat, sums.table, sums.weights, sums.numbers)
        names: tuple[Any, ...] = method, "half_pixel", "floor"
        if backward:
            expected = fastcnn.resize2d_backward(x, g.input_shape, *names, engine="im2col")
        else:
            expected = fastcnn.resize2d(x, (33, 11), *names, engine="im2col")
        np.testing.assert_allclose(y, expected, rtol=1e-5)
