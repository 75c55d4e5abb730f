"""What cannot fit into memory is a MemoryError that says so, before anything is allocated."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.core import capacity
from fastcnn.layers import Conv2D, Dense, Flatten, ZeroPadding2D
from fastcnn.models.sequential import Sequential

ONE = np.ones((1, 1, 1, 1), np.float32)
FAR = 1 << 20
ROW, COLUMN = np.ones((1, FAR), np.float32), np.ones((FAR, 1), np.float32)
HUGE = np.broadcast_to(np.float32(1), (FAR, FAR))

# Each would need at least 2^40 bytes, out of arguments that need a few.
CALLS: dict[str, Callable[[str], Any]] = {
    "conv2d": lambda e: fastcnn.conv2d(ONE, ONE, padding=FAR, engine=e),
    "conv2d-channels": lambda e: fastcnn.conv2d(
        np.ones((1, 1 << 11, 1 << 11, 1), np.float32), np.ones((1, 1, 1, FAR), np.float32), engine=e
    ),
    "conv2d_input_gradient": lambda e: fastcnn.conv2d_input_gradient(
        ONE, ONE, (1, FAR, FAR, 1), stride=FAR, engine=e
    ),
    "conv2d_input_gradient-2^93": lambda e: fastcnn.conv2d_input_gradient(
        ONE, ONE, (1, 2**31 - 1, 2**31 - 1, 1), stride=2**31 - 1, engine=e
    ),
    "conv2d_filter_gradient": lambda e: fastcnn.conv2d_filter_gradient(
        ONE, ONE, 2 * FAR + 1, padding=FAR, engine=e
    ),
    "max_pool2d": lambda e: fastcnn.max_pool2d(ONE, FAR + 1, 1, FAR, engine=e),
    "min_pool2d": lambda e: fastcnn.min_pool2d(ONE, FAR + 1, 1, FAR, engine=e),
    "avg_pool2d": lambda e: fastcnn.avg_pool2d(ONE, FAR + 1, 1, FAR, engine=e),
    "dense": lambda e: fastcnn.dense(COLUMN, ROW, engine=e),
    "zero_pad2d": lambda e: fastcnn.zero_pad2d(ONE, FAR, engine=e),
    "zero_pad2d-2^65": lambda e: fastcnn.zero_pad2d(ONE, 2**31 - 1, engine=e),
    "relu-broadcast": lambda e: fastcnn.relu(HUGE, engine=e),
    "softmax-broadcast": lambda e: fastcnn.softmax(HUGE, engine=e),
    "multiply": lambda e: fastcnn.multiply(ROW[:, :, None], ROW[:, None], engine=e),
}


@pytest.fixture(autouse=True)
def little_is_allocated() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("name", CALLS)
def test_too_large_a_result_is_told_by_every_engine(
    name: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine of a terabyte, less a byte: the smallest of these does not fit either.
    monkeypatch.setattr(capacity, "memory", lambda: (1 << 40) - 1)
    with pytest.raises(MemoryError, match=r"of shape \(.*\) needs [\d,]+ bytes") as raised:
        CALLS[name](engine)
    (needed,) = re.findall(r"needs ([\d,]+) bytes", str(raised.value))
    assert int(needed.replace(",", "")) >= 1 << 40


def test_the_kernels_own_copies_are_counted_too() -> None:
    # The result has nine numbers, but the image between its zeros has 2^42.
    with pytest.raises(MemoryError, match="memory for a result or a copy"):
        fastcnn.conv2d(ONE, ONE, padding=FAR, stride=FAR, engine="numba")
    # The columns of its only row have 2^38 numbers.
    with pytest.raises(MemoryError, match="columns"):
        fastcnn.conv2d(
            ROW.reshape(1, 1, FAR, 1), np.ones((1, FAR // 2, 1, 1), np.float32), engine="im2col"
        )


def test_offsets_beyond_64_bits_are_told() -> None:
    largest = 2**31 - 1
    wide = np.ones((1, 1, 1, 64), np.float32)
    with pytest.raises(MemoryError):
        fastcnn.conv2d(
            wide, np.ones((1, 1, 64, 1)), padding=largest, stride=largest, dilation=largest
        )


@pytest.mark.parametrize("name", ["stride", "dilation", "padding"])
def test_steps_beyond_32_bits_are_refused(name: str) -> None:
    for value in (2**31, 10**30, (1, 2**63)):
        with pytest.raises(ValueError, match=f"{name} must be at most 2147483647"):
            fastcnn.conv2d(ONE, ONE, **{name: value})
    with pytest.raises(ValueError, match="size must be at most 2147483647"):
        fastcnn.max_pool2d(ONE, 10**30, padding="same")


def test_too_large_a_model_is_told_before_a_number_is_drawn() -> None:
    class Never(np.random.Generator):
        def __init__(self) -> None:
            super().__init__(np.random.PCG64(0))

        def standard_normal(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("numbers were drawn")

        uniform = standard_normal

    for layers in (
        [Dense(5), Dense(FAR), Dense(FAR)],
        [Flatten(), Dense(10**30)],
    ):
        model = Sequential(layers)
        model.rng = Never()
        with pytest.raises(MemoryError, match=r"w of Dense\(\d+\) of shape .* needs"):
            model.build((3,) if len(layers) == 3 else (2, 2))
        assert not model.built


def test_too_large_a_layer_is_told_when_it_runs() -> None:
    model = Sequential([ZeroPadding2D(FAR), Conv2D(1, 1)], (1, 1, 1))
    with pytest.raises(MemoryError, match="needs"):
        model.predict(ONE)


def test_what_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((4, 100, 100, 8), np.float32)
    monkeypatch.setattr(capacity, "memory", lambda: x.nbytes)
    for engine in fastcnn.engines():
        if engine != "naive":
            assert fastcnn.max_pool2d(x, 2, 1, "same", engine=engine).shape == x.shape
