"""Dense layers with more weights than the cache holds: the same sums, read another way."""

from __future__ import annotations

import numpy as np
import pytest

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.dense import large as large_dense
from fastcnn.engine.numba.runtime.instruction_sets import registers


def integers(seed: int, *shape: int, dtype: str) -> Array:
    result: Array = np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("inputs", "outputs"), [(4200, 33), (1031, 131), (517, 1100), (2, 70_000)])
def test_large_layers_agree_with_the_specification(inputs: int, outputs: int, dtype: str) -> None:
    w, b = integers(1, inputs, outputs, dtype=dtype), integers(2, outputs, dtype=dtype)
    assert large_dense.is_large(inputs, outputs, w.itemsize)
    for n in (0, 1, 2, 3, 9):
        x = integers(3 + n, n, inputs, dtype=dtype)
        reference = x @ w + b
        np.testing.assert_array_equal(fastcnn.dense(x, w, b, engine="numba"), reference)
        reference = fastcnn.dense(x[:1], w, activation="relu", engine="naive")
        fast = fastcnn.dense(x[:1], w, activation="relu", engine="numba")
        np.testing.assert_array_equal(fast, reference)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer is large, and cut up in all ways."""
    for name, value in {
        "CACHE_BYTES": 0, "_PIECE": 1024, "_ROW": 512, "ROWS": 30, "_SCRATCH": 40_000, "_LEAST": 9,
    }.items():  # fmt: skip
        monkeypatch.setattr(large_dense, name, value)
    large_dense.plans_of.cache_clear()


SAMPLES = [1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 15, 16, 17, 29, 30, 31, 45, 61, 100]


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [9, 17, 33, 64, 65, 127, 128, 130, 255, 257, 300])
@pytest.mark.parametrize("inputs", [1, 8, 17, 19, 75])
def test_pieces_groups_and_parts(inputs: int, outputs: int, dtype: str, small_pieces: None) -> None:
    lanes = registers().vector_bytes // np.dtype(dtype).itemsize
    outputs = max(outputs, registers().tile_vectors * lanes + 1)
    w, b = integers(1, inputs, outputs, dtype=dtype), integers(2, outputs, dtype=dtype)
    x = integers(3, SAMPLES[-1], inputs, dtype=dtype)
    reference = x @ w + b
    for n in SAMPLES:
        np.testing.assert_array_equal(large_dense.dense(x[:n], w, b, None), reference[:n])
    relu = large_dense.dense(x, w, b, "relu")
    np.testing.assert_array_equal(relu, np.maximum(reference, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1300, 131), (700, 256), (300, 600)])
def test_a_sample_gives_the_same_bits_in_any_batch(shape: tuple[int, int], dtype: str) -> None:
    rng = np.random.default_rng(7)
    w, b = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape[1]).astype(dtype)
    x = rng.standard_normal((200, shape[0])).astype(dtype)
    assert large_dense.is_large(*shape, w.itemsize)
    together = fastcnn.dense(x, w, b, engine="numba")
    for n in (1, 2, 3, 4, 9, 15, 127, 129):
        np.testing.assert_array_equal(fastcnn.dense(x[:n], w, b, engine="numba"), together[:n])
    threads = fastcnn.get_num_threads()
    try:
        for count in (1, 2, 3):
            fastcnn.set_num_threads(count)
            np.testing.assert_array_equal(fastcnn.dense(x, w, b, engine="numba"), together)
    finally:
        fastcnn.set_num_threads(threads)


def test_parts_are_added_in_order() -> None:
    inputs, outputs = 1160, 130
    rng = np.random.default_rng(8)
    w, b = rng.standard_normal((inputs, outputs)), rng.standard_normal(outputs)
    x = rng.standard_normal((3, inputs))
    parts = large_dense.plans_of(3, inputs, outputs, x.itemsize).product.splits
    assert parts > 1
    total, nothing = b, np.zeros_like(b)
    for k in range(parts):
        part = slice(inputs * k // parts, inputs * (k + 1) // parts)
        assert not large_dense.is_large(*w[part].shape, w.itemsize)
        total = total + fastcnn.dense(x[:, part], w[part], nothing, engine="numba")
    np.testing.assert_array_equal(fastcnn.dense(x, w, b, engine="numba"), total)


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("n", [1, 4])
def test_nan_infinity_and_which_zero(n: int) -> None:
    inputs, outputs = 1031, 131
    x, w = np.zeros((n, inputs), np.float32), np.ones((inputs, outputs), np.float32)
    x[0, 700], w[9, 5], w[9, 130] = np.inf, np.nan, -np.inf
    for activation in (None, "relu"):
        with np.errstate(invalid="ignore"):
            reference = fastcnn.dense(x, w, activation=activation, engine="naive")
        fast = fastcnn.dense(x, w, activation=activation, engine="numba")
        np.testing.assert_array_equal(fast, reference)
        np.testing.assert_array_equal(np.signbit(fast), np.signbit(reference))
