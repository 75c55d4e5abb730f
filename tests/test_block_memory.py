"""Memory that is used again: no two arrays share it, and what nobody needs is given up."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

import fastcnn
from fastcnn.core.arguments import Array

memory = pytest.importorskip("fastcnn.engine.numba.runtime.memory")

SIZES = (100_000, 200_000, 1 << 18, 300_001, 1 << 20, (1 << 20) + 1, 3 << 20, 4 << 20, 5_000_000)


@pytest.fixture(autouse=True)
def own_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of blocks of the test's own, and few bytes that are kept."""
    monkeypatch.setattr(memory, "_blocks", {})
    monkeypatch.setattr(memory, "_most_in_use", [0])
    monkeypatch.setattr(memory, "MOST_UNUSED", 8 << 20)


@pytest.fixture(params=["huge pages", "small pages", "refused"])
def pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With huge pages, on systems that have none, and where the system refuses memory for them."""
    if request.param == "small pages":
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    elif request.param == "refused":

        def refuse(size: int) -> mmap.mmap:
            raise OSError("no room")

        monkeypatch.setattr(memory, "_pages", refuse)
    elif not hasattr(mmap, "MADV_HUGEPAGE"):
        pytest.skip("the operating system has no huge pages")


def filled(size: int, value: int) -> Array:
    array: Array = memory.empty((size,), np.uint8)
    assert array.ctypes.data % 64 == 0
    array[...] = value
    return array


@pytest.mark.usefixtures("pages")
def test_arrays_that_live_together_share_no_byte() -> None:
    arrays = [filled(size, i) for i, size in enumerate(SIZES * 3)]
    for i, array in enumerate(arrays):
        assert (array == i).all()
    views = [array[7::3].reshape(1, -1) for array in arrays]
    del arrays  # views keep the memory in use
    more = [filled(size, 99) for size in SIZES]
    for i, view in enumerate(views):
        assert (view == i).all()
    assert all((array == 99).all() for array in more)


@pytest.mark.usefixtures("pages")
def test_memory_that_nothing_refers_to_is_used_again() -> None:
    for size in SIZES:
        address = filled(size, 1).ctypes.data
        before = memory.kept_bytes()
        assert filled(size, 2).ctypes.data == address
        assert filled(size - size // 8, 3).ctypes.data == address  # a little less
        assert memory.kept_bytes() == before


@pytest.mark.usefixtures("pages")
def test_unused_memory_is_given_up_down_to_a_limit() -> None:
    for size in range(1 << 20, 6 << 20, 700_000):
        filled(size, 1)
        assert memory.kept_bytes() <= memory.MOST_UNUSED + (6 << 20)
    memory.give_up_surplus()
    assert 0 < memory.kept_bytes() <= memory.MOST_UNUSED


@pytest.mark.usefixtures("pages")
def test_a_step_that_needs_more_finds_its_memory_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> int:
        arrays = [filled(size, 1) for size in SIZES * 4]
        assert sum(array.nbytes for array in arrays) > 2 * memory.MOST_UNUSED
        return int(memory.kept_bytes())

    for _ in range(3):
        step()
    made: list[object] = []
    new = memory._new_block
    monkeypatch.setattr(memory, "_new_block", lambda size: made.append(size) or new(size))
    assert step() > memory.MOST_UNUSED
    assert not made
    memory.give_up_surplus()
    assert memory.kept_bytes() <= memory.MOST_UNUSED


def test_small_blocks_share_a_huge_page() -> None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        pytest.skip("the operating system has no huge pages")
    arrays = [filled(1 << 18, i) for i in range(16)]
    pages = {array.ctypes.data >> 21 for array in arrays}
    assert len(pages) == 2
    whole = filled(4 << 20, 1)
    assert whole.ctypes.data % (2 << 20) == 0


def test_more_than_the_machine_has_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="memory for a result or a copy"):
        memory.empty((1 << 50,), np.uint8)


def test_a_side_may_be_a_number_of_numpy() -> None:
    """Records of kernels hold such numbers."""
    array = memory.empty((3, np.int64(100_000)), np.float32)
    assert array.shape == (3, 100_000)
    assert array.ctypes.data % 64 == 0


def test_a_bias_gradient_whose_totals_are_a_block() -> None:
    """The rows are cut into so many splits that the splits' totals are no small array."""
    dy = np.random.default_rng(1).integers(-4, 5, (2, 66, 64, 512)).astype(np.float32)
    db = fastcnn.conv2d_bias_gradient(dy)
    np.testing.assert_array_equal(db, dy.sum(axis=(0, 1, 2), dtype=np.float64).astype(np.float32))
