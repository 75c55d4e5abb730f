"""Bound calls: a remembered call costs little, and changes no result and no error."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from valid_calls import RIGHT, normal

import fastcnn
from fastcnn.core import settings
from fastcnn.core.settings import forget_choices
from fastcnn.engine.numba.runtime import rehearsal, threads
from fastcnn.engine.registry import replaced
from fastcnn.ops import bound_calls
from fastcnn.ops.bound_calls import Facts, binding, call

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)

FRAMES = {
    "conv2d": 4, "dense": 4, "max_pool2d": 12, "relu": 6, "softmax": 4, "add": 4,
    "conv2d_backward": 66,
}  # fmt: skip
"""Python functions that a remembered call enters, the public function itself included."""
MOST_FRAMES = 50


def frames(call: Callable[[], object]) -> int:
    """How many Python functions the call enters."""
    count = 0

    def noted(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(noted)
    try:
        call()
    finally:
        sys.setprofile(before)
    return count - 1  # the lambda


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    before = fastcnn.get_num_threads()
    fastcnn.set_num_threads(1)
    yield
    fastcnn.set_num_threads(before)


@pytest.mark.parametrize("function", RIGHT)
def test_a_remembered_call_enters_few_functions(function: str) -> None:
    run = getattr(fastcnn, function)
    for _ in range(3):  # the first call binds, and the second may compile
        run(**RIGHT[function])
    count = frames(lambda: run(**RIGHT[function]))
    assert count <= FRAMES.get(function, MOST_FRAMES), f"{function} enters {count} functions"


def test_calls_with_usual_arguments_enter_four_functions() -> None:
    x, w, dense = normal(1, 3, 4, 2), normal(2, 3, 2, 5), normal(5, 2)
    calls: list[Callable[[], object]] = [
        lambda: fastcnn.conv2d(x, w),
        lambda: fastcnn.dense(w[0, 0], dense),
        lambda: fastcnn.max_pool2d(x, 2),
        lambda: fastcnn.relu(x[0, 0, 0]),
    ]
    for one in calls:
        one()
        assert frames(one) <= 6


# Equal arguments of other types, and arrays that are not plain.


@pytest.mark.parametrize(
    ("right", "wrong"), [(1, True), (1, 1.0), ((1, 1), (1, True)), ((1, 1), (1.0, 1))]
)
def test_an_equal_argument_of_another_type_is_refused_after_the_right_one(
    right: Any, wrong: Any
) -> None:
    x, w = normal(1, 5, 6, 2), normal(3, 2, 2, 3)
    for _ in range(2):
        fastcnn.conv2d(x, w, stride=right)
        with pytest.raises(TypeError, match="stride must be made of integers"):
            fastcnn.conv2d(x, w, stride=wrong)


def test_a_list_may_change_between_two_calls() -> None:
    x, w, stride = normal(1, 5, 6, 2), normal(3, 2, 2, 3), [1, 1]
    assert fastcnn.conv2d(x, w, stride=stride).shape == (1, 3, 5, 3)
    stride[1] = 2
    assert fastcnn.conv2d(x, w, stride=stride).shape == (1, 3, 3, 3)


def test_a_zero_of_the_other_sign_is_the_same_parameter() -> None:
    x = np.array([-1.0, 2.0], np.float32)
    for engine in fastcnn.engines():
        for slope in (-0.0, 0.0, 0):
            y = fastcnn.leaky_relu(x, slope, engine=engine)
            assert y.tobytes() == np.array([-0.0, 2.0], np.float32).tobytes()


class Marked(np.ndarray):
    """A subclass whose shape is not that of its memory."""

    @property
    def shape(self) -> Any:
        return (1000, 1000)


class Held:
    """An object with an array, and with all attributes of an array that a key holds."""

    __class__ = np.ndarray  # type: ignore[assignment]

    def __init__(self, array: Any) -> None:
        self.array, self.shape = array, (1000, *array.shape[1:])
        self.dtype, self.flags = array.dtype, array.flags

    def __array__(self, *arguments: Any, **more: Any) -> Any:
        return np.asarray(self.array)


def every_second(x: Any) -> Any:
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def unaligned(x: Any) -> Any:
    memory = np.zeros(x.nbytes + 1, np.uint8)
    result = memory[1:].view(x.dtype).reshape(x.shape)
    result[...] = x
    return result


def read_only(x: Any) -> Any:
    x = x.copy()
    x.flags.writeable = False
    return x


FORMS: dict[str, Callable[[Any], Any]] = {
    "list": lambda x: x.tolist(),
    "fortran": np.asfortranarray,
    "every second": every_second,
    "unaligned": unaligned,
    "read-only": read_only,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder()),
    "subclass": lambda x: x.view(Marked),
    "with __array__": Held,
    "float64": lambda x: x.astype(np.float64),
    "integers": lambda x: x.astype(np.int64),
    "reversed": lambda x: x[::-1].copy()[::-1],
}
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "conv2d": lambda x, w: fastcnn.conv2d(x, w),
    "relu": lambda x, w: fastcnn.relu(x),
    "max_pool2d": lambda x, w: fastcnn.max_pool2d(x, (2, 1)),
    "add": lambda x, w: fastcnn.add(x, x),
    "concatenate": lambda x, w: fastcnn.concatenate([x, x], 1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", CALLS)
def test_arrays_of_other_forms_give_what_plain_ones_give(function: str, form: str) -> None:
    x, w = np.rint(8 * normal(2, 5, 4, 3)), np.rint(8 * normal(2, 3, 3, 2))
    run, expected = CALLS[function], CALLS[function](x, w)
    changed = FORMS[form](x)
    for _ in range(2):
        result = run(changed, w)
        np.testing.assert_array_equal(result, expected)
        assert type(result) is np.ndarray
        assert result.dtype == (F64 if form in ("float64", "integers", "list") else F32)
        np.testing.assert_array_equal(run(x, w), expected)
    if form == "read-only":
        assert not changed.flags.writeable


def test_empty_arrays_and_dtypes_that_change_between_calls() -> None:
    w = normal(2, 3, 3, 2)
    for n in (1, 0, 2, 0):
        for dtype in (F32, F64, F32):
            x = normal(n, 5, 4, 3).astype(dtype)
            y = fastcnn.conv2d(x, w.astype(dtype))
            assert (y.shape, y.dtype) == ((n, 4, 2, 2), dtype)
            expected = fastcnn.conv2d(x, w.astype(dtype), engine="naive")
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_another_thread_may_change_the_shape_of_an_array() -> None:
    x, w = np.rint(8 * normal(1, 4, 6, 1)), np.rint(8 * normal(2, 3, 1, 2))
    shapes = (1, 4, 6, 1), (1, 6, 4, 1)
    expected = {fastcnn.conv2d(x.reshape(s), w).tobytes() for s in shapes}
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            for shape in shapes:
                x.shape = shape

    other, before = threading.Thread(target=change), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other.start()
    try:
        assert {fastcnn.conv2d(x, w).tobytes() for _ in range(300)} <= expected
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(before)


# Settings that change after a call was bound.


def test_settings_hold_from_the_next_call_on() -> None:
    x, w = normal(1, 24, 24, 32), normal(3, 3, 32, 32)
    run = lambda **how: fastcnn.conv2d(x, w, padding=1, **how).tobytes()  # noqa: E731
    fast, strict = run(math="fast"), run(math="strict")
    assert fast != strict
    before = fastcnn.get_math()
    try:
        for _ in range(2):
            fastcnn.set_math("fast")
            assert run() == fast
            with fastcnn.use_math("strict"):
                assert run() == strict
            fastcnn.set_math("strict")
            assert run() == strict
            with fastcnn.use_math("fast"):
                assert run() == fast
    finally:
        fastcnn.set_math(before)


def test_engines_and_replaced_operations_hold_from_the_next_call_on() -> None:
    x = normal(5)
    expected = fastcnn.relu(x)
    for engine in (None, "numba"):
        with replaced("relu", "numba", lambda x: x + 1):
            np.testing.assert_array_equal(fastcnn.relu(x, engine=engine), x + 1)
        np.testing.assert_array_equal(fastcnn.relu(x, engine=engine), expected)
    with replaced("relu", "naive", lambda x: x + 2), fastcnn.use_engine("naive"):
        np.testing.assert_array_equal(fastcnn.relu(x), x + 2)
        np.testing.assert_array_equal(fastcnn.relu(x, engine="numba"), expected)
    np.testing.assert_array_equal(fastcnn.relu(x), expected)


def test_a_call_that_is_explained_does_not_run() -> None:
    x = normal(7)
    fastcnn.relu(x)
    with replaced("relu", "im2col", lambda x: pytest.fail("it ran")):
        fastcnn.relu(normal(2), engine="numba")
        assert "put in its place" in str(fastcnn.explain("relu", x, engine="im2col"))
    assert "numba.relu" in str(fastcnn.explain("relu", x))


def test_a_remembered_call_reads_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    x = normal(2 * threads.SMALL)
    fastcnn.relu(x)
    monkeypatch.setattr(threads._Pool, "call", lambda pool, n: asked.append(n))
    for n in (2, 1, 3):
        fastcnn.set_num_threads(n)
        fastcnn.relu(x)
    assert asked == [2, 3]


def test_a_rehearsal_runs_no_kernel_of_a_remembered_call() -> None:
    x = 1 + abs(normal(9))
    expected = fastcnn.relu(x)
    with rehearsal.rehearsal() as requests:
        np.testing.assert_array_equal(fastcnn.relu(x), np.zeros(9))
    assert len(requests) == 1
    np.testing.assert_array_equal(fastcnn.relu(x), expected)


# The table.


def test_the_table_is_bounded_and_remembers_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound_calls, "MOST", 3)
    monkeypatch.setattr(settings, "remembered", [])
    bindings = 0

    @binding("x")
    def doubled(x: Facts, factor: int) -> Callable[[Any], Any]:
        nonlocal bindings
        bindings += 1
        if factor > 9:
            raise ValueError(f"factor must be at most 9, got {factor}")
        return lambda x: x * factor

    x = normal(3)
    for factor in (1, 2, 3, 3, 2, 1):
        np.testing.assert_array_equal(call(doubled, (x,), factor), x * factor)
    assert bindings == 3
    for _ in range(2):
        with pytest.raises(ValueError, match="at most 9"):
            call(doubled, (x,), 10)
    assert bindings == 5
    for factor in range(8):
        call(doubled, (x,), factor)
    assert doubled.find.cache_info().currsize == 3


def test_what_is_bound_while_choices_are_forgotten_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "remembered", [])
    choice = ["old"]

    @binding("x")
    def chosen(x: Facts, of: object) -> Callable[[Any], Any]:
        result = choice[0]
        if result == "old":  # the setting changes while the call is bound
            choice[0] = "new"
            forget_choices()
        return lambda x: result

    for of in (1, (1, 2)):
        choice[0] = "old"
        forget_choices()
        assert [call(chosen, (normal(3),), of) for _ in range(3)] == ["old", "new", "new"]
