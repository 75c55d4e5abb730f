"""Dtypes and layouts: one rule for each, the same for every function and engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from valid_calls import RIGHT, Call, normal

import fastcnn
from fastcnn.core.arguments import class_labels, floats

CALLS: dict[str, tuple[str, Call]] = {
    **{function: (function, call) for function, call in RIGHT.items()},
    "conv2d with relu": (
        "conv2d",
        {**RIGHT["conv2d"], "padding": "same", "activation": "relu"},
    ),
    "dense with relu": ("dense", {**RIGHT["dense"], "activation": "relu"}),
}

F32, F64 = np.float32, np.float64
DTYPES = {
    F32: F32,
    F64: F64,
    np.float16: F32,
    np.bool_: F32,
    np.int8: F32,
    np.uint8: F32,
    np.int16: F32,
    np.uint16: F32,
    np.int32: F64,
    np.uint32: F64,
    np.int64: F64,
    np.uint64: F64,
}


@pytest.mark.parametrize(("given", "computed"), DTYPES.items())
def test_dtype_of_one_array(given: type, computed: type) -> None:
    (array,) = floats(x=np.arange(3).astype(given))
    assert array.dtype == computed
    np.testing.assert_array_equal(array, np.arange(3).astype(given).astype(computed))


@pytest.mark.parametrize(("one", "of_one"), DTYPES.items())
@pytest.mark.parametrize(("other", "of_other"), DTYPES.items())
def test_dtype_of_two_arrays_is_the_wider(
    one: type, of_one: type, other: type, of_other: type
) -> None:
    arrays = floats(x=np.ones(2, one), w=np.ones(3, other))
    assert {array.dtype for array in arrays} == {
        np.dtype(F64 if F64 in (of_one, of_other) else F32)
    }


def test_lists_of_numbers_are_arrays() -> None:
    assert floats(x=[[1.0, 2.0]])[0].dtype == F64
    assert class_labels([1, 0], 2, 2).dtype == np.int64


def test_what_is_right_already_is_not_copied() -> None:
    x = normal(2, 3)
    assert floats(x=x)[0] is x


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i2"])
def test_labels_of_every_integer_type(dtype: Any) -> None:
    logits = normal(3, 4)
    expected = fastcnn.cross_entropy(logits, [3, 0, 2], engine="naive")
    result = fastcnn.cross_entropy(logits, np.array([3, 0, 2], dtype), engine="naive")
    assert result == expected


def fortran(array: Any) -> Any:
    return np.asfortranarray(array)


def reversed_axes(array: Any) -> Any:
    every = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[every])[every]


def every_second(array: Any) -> Any:
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def read_only(array: Any) -> Any:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def unaligned(array: Any) -> Any:
    raw = np.empty(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def swapped(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder())


def subclass(array: Any) -> Any:
    return array.copy().view(type("Tagged", (np.ndarray,), {}))


LAYOUTS: list[Callable[[Any], Any]] = [
    fortran,
    reversed_axes,
    every_second,
    read_only,
    unaligned,
    swapped,
    subclass,
]


def test_the_layouts_are_what_they_say() -> None:
    x = normal(2, 3, 4, 5)
    assert not fortran(x).flags.c_contiguous
    assert max(reversed_axes(x).strides) < 0
    assert every_second(x).strides[-1] == 2 * x.itemsize
    assert not read_only(x).flags.writeable
    assert not unaligned(x).flags.aligned
    assert not swapped(x).dtype.isnative
    for layout in LAYOUTS:
        np.testing.assert_array_equal(layout(x), x)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_engines_get_plain_arrays(layout: Callable[[Any], Any]) -> None:
    (array,) = floats(x=layout(normal(2, 3, 4, 5)))
    assert array.flags.c_contiguous
    assert array.flags.aligned
    assert array.dtype.isnative
    assert type(array) is np.ndarray


def computed(function: str, call: Call, engine: str) -> tuple[Any, ...]:
    results = getattr(fastcnn, function)(**{**call, "engine": engine})
    return results if isinstance(results, tuple) else (results,)


def arrays_of(call: Call) -> dict[str, Any]:
    """The arrays of a call by name; those of a list have the list's name and a number."""
    result: dict[str, Any] = {}
    changed(call, lambda array: array, result)
    return result


def changed(
    call: Call, change: Callable[[Any], Any], changes: dict[str, Any] | None = None, only: str = ""
) -> Call:
    """The call with ``change`` of each array, or of the one with the name ``only``.

    The results go to ``changes``, by the arrays' names.
    """

    def of(name: str, value: Any) -> Any:
        if _lists(value):
            return [of(f"{name}[{i}]", one) for i, one in enumerate(value)]
        if not isinstance(value, np.ndarray) or only not in ("", name):
            return value
        result = change(value)
        if changes is not None:
            changes[name] = result
        return result

    return {name: of(name, value) for name, value in call.items()}


def _lists(value: object) -> bool:
    """Whether it is a list of arrays."""
    return isinstance(value, list) and all(isinstance(one, np.ndarray) for one in value)


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("case", CALLS)
def test_layout_changes_nothing(case: str, layout: Callable[[Any], Any], engine: str) -> None:
    function, right = CALLS[case]
    call = changed(right, lambda array: np.array(array, order="C"))
    arguments = changed(call, layout)
    results = computed(function, arguments, engine)
    for result, expected in zip(results, computed(function, call, engine), strict=True):
        np.testing.assert_array_equal(result, expected)
        assert result.dtype == np.float32
        assert result.dtype.isnative
        assert isinstance(result, np.generic) or type(result) is np.ndarray
    before = arrays_of(call)
    for name, array in arrays_of(arguments).items():
        np.testing.assert_array_equal(array, before[name], err_msg=f"{name} was written to")


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("function", RIGHT)
def test_broadcast_arrays(function: str, engine: str) -> None:
    def broadcast(array: Any) -> Any:
        return np.broadcast_to(array.flat[0], array.shape)

    arguments = changed(RIGHT[function], broadcast)
    copies = changed(arguments, np.array)
    for result, expected in zip(
        computed(function, arguments, engine), computed(function, copies, engine), strict=True
    ):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CALLS)
def test_results_are_new_and_contiguous(case: str, dtype: type, engine: str) -> None:
    function, right = CALLS[case]
    call = changed(right, lambda array: array.astype(dtype) if array.dtype.kind == "f" else array)
    before = arrays_of(changed(call, np.copy))
    for result in computed(function, call, engine):
        assert result.dtype == dtype
        if isinstance(result, np.generic):
            continue
        assert result.flags.c_contiguous
        assert result.flags.aligned
        assert result.flags.writeable
        assert not any(np.shares_memory(result, array) for array in arrays_of(call).values())
        result[...] = 0
    for name, array in arrays_of(call).items():
        np.testing.assert_array_equal(array, before[name], err_msg=f"{name} was written to")


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("function", RIGHT)
def test_one_wide_array_makes_the_result_wide(function: str, engine: str) -> None:
    arrays = [name for name, array in arrays_of(RIGHT[function]).items() if array.dtype.kind == "f"]
    for wide in arrays:
        call = changed(RIGHT[function], lambda array: array.astype(F64), only=wide)
        assert {result.dtype for result in computed(function, call, engine)} == {np.dtype(F64)}


@pytest.mark.parametrize("engine", fastcnn.engines())
def test_images_of_bytes_are_computed_in_float32(engine: str) -> None:
    x = np.arange(2 * 5 * 6 * 4, dtype=np.uint8).reshape(2, 5, 6, 4)
    w = np.ones((3, 2, 4, 1), np.float32)
    result = fastcnn.conv2d(x, w, engine=engine)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, fastcnn.conv2d(x.astype(F32), w, engine=engine))
