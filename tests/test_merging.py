"""Merged arrays: the engines against NumPy's broadcasting, ties and NaN, slopes, and joined axes.

On the matrix of ``fastcnn compare`` engines are held against the specification in
``test_agreement.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from slopes import same, slope

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.core.broadcasting import merged_shape
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.elementwise.broadcasting import joined_axes, offsets_of, table_of

ENGINES = fastcnn.engines()
OPERATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
}
SHAPES = [
    ((3, 5, 2, 7), (3, 5, 2, 7)),
    ((3, 5, 2, 7), (3, 1, 1, 7)),
    ((3, 5, 2, 7), (3, 5, 2, 1)),
    ((3, 1, 2, 1), (3, 5, 2, 7)),
    ((3, 5, 2, 1), (3, 1, 1, 7)),
    ((3, 5, 1), (3, 1, 4)),
    ((3, 2), (3, 1)),
]

every_engine = pytest.mark.parametrize("engine", ENGINES)
every_operation = pytest.mark.parametrize("op", OPERATIONS)
every_shape = pytest.mark.parametrize(("a_shape", "b_shape"), SHAPES)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def backward(op: str, dy: Array, a: Array, b: Array, engine: str | None) -> tuple[Array, Array]:
    function = getattr(fastcnn, f"{op}_backward")
    if op in ("add", "subtract"):
        gradients: tuple[Array, Array] = function(dy, a.shape, b.shape, engine=engine)
    else:
        gradients = function(dy, a, b, engine=engine)
    return gradients


@every_engine
@every_operation
@every_shape
def test_the_result_is_that_of_numpy_and_the_gradients_are_slopes(
    a_shape: tuple[int, ...], b_shape: tuple[int, ...], op: str, engine: str
) -> None:
    a, b = normal(*a_shape), normal(*b_shape, seed=1)
    y = getattr(fastcnn, op)(a, b, engine=engine)
    np.testing.assert_array_equal(y, OPERATIONS[op](a, b))
    dy = normal(*y.shape, seed=2)

    def value() -> float:
        return float((OPERATIONS[op](a, b) * dy).sum())

    for gradient, at in zip(backward(op, dy, a, b, engine), (a, b), strict=True):
        assert gradient.shape == at.shape
        same(gradient, slope(value, at))


@every_engine
def test_the_maximum_keeps_nan_and_its_gradient_goes_to_a_at_ties(engine: str) -> None:
    inf, nan = np.inf, np.nan
    a = np.array([[1, 5, 2, nan, 0, nan, -inf, inf, -0.0]])
    b = np.array([[3, 4, 2, 1, nan, nan, -inf, 9, 0.0]])
    for one, other in ((a, b), (a.astype(np.float32), b.astype(np.float32))):
        y = fastcnn.maximum(one, other, engine=engine)
        np.testing.assert_array_equal(y, [[3, 5, 2, nan, nan, nan, -inf, inf, 0]])
        dy = np.full_like(one, 7)
        da, db = fastcnn.maximum_backward(dy, one, other, engine=engine)
        np.testing.assert_array_equal(da, [[0, 7, 7, 7, 0, 7, 7, 7, 7]])
        np.testing.assert_array_equal(da + db, dy)


@every_engine
def test_a_gradient_that_is_not_finite_reaches_the_winner_alone(engine: str) -> None:
    dy, a, b = np.array([[np.inf, np.nan]]), np.array([[1.0, 2.0]]), np.array([[0.0, 5.0]])
    da, db = fastcnn.maximum_backward(dy, a, b, engine=engine)
    np.testing.assert_array_equal(da, [[np.inf, 0]])
    np.testing.assert_array_equal(db, [[0, np.nan]])


@every_engine
@every_operation
def test_arrays_of_any_layout_give_the_same(op: str, engine: str) -> None:
    a, b = normal(3, 4, 5).astype(np.float32), normal(3, 1, 5).astype(np.float32)
    y, dy = getattr(fastcnn, op)(a, b, engine=engine), normal(3, 4, 5).astype(np.float32)
    gradients = backward(op, dy, a, b, engine)
    twice = np.repeat(a, 2, axis=1)
    others = [
        (np.asfortranarray(a), np.asfortranarray(b)),
        (twice[:, ::2], b[:, :, ::-1].copy()[:, :, ::-1]),
        (a.astype(">f4"), b.astype(">f4")),
    ]
    for array in (a, b):
        array.setflags(write=False)
    for one, other in [(a, b), *others]:
        np.testing.assert_array_equal(getattr(fastcnn, op)(one, other, engine=engine), y)
        for gradient, expected in zip(
            backward(op, np.asfortranarray(dy), one, other, engine), gradients, strict=True
        ):
            np.testing.assert_array_equal(gradient, expected)
    wide = getattr(fastcnn, op)(a, b.astype(np.float64), engine=engine)
    assert (y.dtype, wide.dtype) == (np.float32, np.float64)


@every_engine
def test_gradients_are_new_arrays(engine: str) -> None:
    dy = normal(2, 3)
    da, db = fastcnn.add_backward(dy, (2, 3), (2, 3), engine=engine)
    assert not np.may_share_memory(da, dy)
    assert not np.may_share_memory(da, db)


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "naive"])
@pytest.mark.parametrize("b_shape", [(1, 1, 1, 1), (1, 1, 1, 4), (1, 1, 4099, 1), (1, 4202, 1, 1)])
def test_ones_beyond_two_to_the_24_are_counted(b_shape: tuple[int, ...], engine: str) -> None:
    dy = np.ones((1, 4202, 4099, 4), np.float32)
    _, db = fastcnn.add_backward(dy, dy.shape, b_shape, engine=engine)
    np.testing.assert_array_equal(db, np.full(b_shape, dy.size // db.size, np.float32))


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "naive"])
@pytest.mark.parametrize("length", [STRETCH - 1, STRETCH, STRETCH + 1, 9 * STRETCH - 5])
def test_sums_around_the_length_of_a_stretch(length: int, engine: str) -> None:
    rng = np.random.default_rng(length)
    for shape, b_shape in (((2, 3, length), (2, 3, 1)), ((2, length, 3), (2, 1, 3))):
        dy, a = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        b = np.ones(b_shape, np.float32)
        _, db = fastcnn.multiply_backward(dy, a, b, engine=engine)
        over = 2 if b_shape[2] == 1 else 1
        exact = (dy.astype(np.float64) * a).sum(over, keepdims=True)
        size = np.abs(dy.astype(np.float64) * a).sum(over, keepdims=True)
        assert (np.abs(db - exact) < (STRETCH + 2) * 2.0**-24 * size).all()


# --- joined axes ---------------------------------------------------------------------------------


def test_every_index_of_joined_axes_leads_to_the_numbers_that_meet() -> None:
    for lengths in product((1, 2, 3), repeat=3):
        for ones in product((0, 1, 2, 3), repeat=3):  # in which operand the axis is 1
            a = (2, *(1 if one & 1 else n for n, one in zip(lengths, ones, strict=True)))
            b = (2, *(1 if one & 2 else n for n, one in zip(lengths, ones, strict=True)))
            shape = merged_shape(a, b)
            axes = joined_axes(a, b)
            table = table_of(axes)
            a_indices, b_indices = (np.arange(np.prod(s)).reshape(s) for s in (a, b))
            meet = [np.broadcast_to(indices, shape).ravel() for indices in (a_indices, b_indices)]
            for index, pair in enumerate(zip(*meet, strict=True)):
                offsets: Any = offsets_of.py_func(table, 0, len(axes), index)  # type: ignore[attr-defined]
                assert offsets == (index, *pair)
            kinds = [(axis.a > 0, axis.b > 0) for axis in axes]
            assert all(one != other for one, other in pairwise(kinds))


# --- concatenation -------------------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_arrays_are_joined_as_by_numpy_and_parted_again(axis: int, engine: str) -> None:
    sizes = (3, 1, 0, 4, 2)
    shape = [2, 5, 7]
    arrays = []
    for seed, size in enumerate(sizes):
        shape[axis] = size
        arrays.append(normal(*shape, seed=seed))
    y = fastcnn.concatenate(arrays, axis, engine=engine)
    np.testing.assert_array_equal(y, np.concatenate(arrays, axis))
    gradients = fastcnn.concatenate_backward(y, sizes, axis, engine=engine)
    for gradient, array in zip(gradients, arrays, strict=True):
        np.testing.assert_array_equal(gradient, array)
        assert not np.may_share_memory(gradient, y)
        assert gradient.flags.c_contiguous


@every_engine
def test_joined_arrays_have_the_widest_dtype_and_any_layout(engine: str) -> None:
    arrays = [
        normal(3, 4).astype(np.float32),
        np.asfortranarray(normal(3, 2)),
        normal(3, 6)[:, ::2],
    ]
    for array in arrays:
        array.setflags(write=False)
    y = fastcnn.concatenate(tuple(arrays), engine=engine)
    np.testing.assert_array_equal(y, np.concatenate(arrays, 1))
    assert y.dtype == np.float64
    alone = fastcnn.concatenate(arrays[:1], engine=engine)
    np.testing.assert_array_equal(alone, arrays[0])
    assert alone.dtype == np.float32
    assert not np.may_share_memory(alone, arrays[0])


@every_engine
def test_long_rows_are_cut_into_pieces_without_a_gap(engine: str) -> None:
    arrays = [np.arange(2 * n).reshape(2, n).astype(np.float32) for n in (40_001, 1, 20_000, 7)]
    y = fastcnn.concatenate(arrays, engine=engine)
    np.testing.assert_array_equal(y, np.concatenate(arrays, 1))
    for gradient, array in zip(
        fastcnn.concatenate_backward(y, (40_001, 1, 20_000, 7), engine=engine), arrays, strict=True
    ):
        np.testing.assert_array_equal(gradient, array)


@pytest.mark.parametrize("engine", fastcnn.engines())
def test_arrays_of_one_axis_have_no_samples_to_merge(engine: str) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        fastcnn.add(np.ones(3), np.ones(3), engine=engine)
