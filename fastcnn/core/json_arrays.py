"""Values as JSON text and separate arrays.

A model file stores arrays apart from the text of its header, whose size is limited. :func:`split`
replaces the arrays and long lists of numbers in a value by their names and shapes. :func:`join`
puts the arrays back. :func:`shapes` lists the arrays that a file must have, before any is read.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted

JsonObject: TypeAlias = dict[str, Any]
"""An object of JSON: values by name."""

DTYPES = (
    "float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64",
)  # fmt: skip
"""Dtypes of the arrays that :func:`split` separates."""

_KEY = "__array__"
_LONG = 100  # a list of at least this many numbers becomes an array
_DEEPEST = 50  # levels of lists and dicts inside each other


def split(what: str, value: object, prefix: str) -> tuple[Any, dict[str, Array]]:
    """A value without its arrays, and a dict of the arrays.

    Args:
        what: the value's name in errors.
        value: numbers, text, None, lists, dicts with text as keys, and arrays of numbers, in any
            arrangement. A tuple becomes a list.
        prefix: the beginning of the arrays' names.

    Raises:
        TypeError: the value holds anything else.
        ValueError: the value is nested too deeply.

    >>> split("a state", {"best": 0.5, "weights": [np.zeros(3)]}, "callback")[0]
    {'best': 0.5, 'weights': [{'__array__': 'callback.0', 'dtype': 'float64', 'shape': [3]}]}
    """
    arrays: dict[str, Array] = {}

    def beside(array: Array, **more: object) -> JsonObject:
        array = np.array(array, array.dtype.newbyteorder("="), order="C")
        name = f"{prefix}.{len(arrays)}"
        arrays[name] = array
        return {_KEY: name, "dtype": array.dtype.name, "shape": [*array.shape], **more}

    def plain(one: object, depth: int) -> Any:
        if one is None or type(one) in (bool, int, float, str):
            return one
        if isinstance(one, np.ndarray | np.generic) and one.dtype.name in DTYPES:
            return one.item() if isinstance(one, np.generic) else beside(np.asarray(one))
        if depth == _DEEPEST:
            raise ValueError(f"{what} must not be nested deeper than {_DEEPEST} lists and dicts")
        if isinstance(one, list | tuple):
            numbers = _as_numbers(one)
            if numbers is not None:
                return beside(numbers, list=True)
            return [plain(part, depth + 1) for part in one]
        if isinstance(one, dict):
            for key in one:
                if type(key) is not str or key == _KEY:
                    raise TypeError(f"{what} must have text as keys of dicts, got {quoted(key)}")
            return {key: plain(part, depth + 1) for key, part in one.items()}
        raise TypeError(
            f"{what} must hold numbers, text, None, lists, dicts and arrays of numbers, got "
            f"{quoted(one)}"
        )

    return plain(value, 0), arrays


def _as_numbers(values: list[Any] | tuple[Any, ...]) -> Array | None:
    """A long list of numbers of one type as an array that holds exactly these numbers, or None."""
    if len(values) < _LONG or len({*map(type, values)}) > 1:
        return None
    try:
        dtype = {float: np.float64, int: np.int64}.get(type(values[0]))
        return None if dtype is None else np.array(values, dtype)
    except OverflowError:  # integers of more than 64 bits
        return None


def shapes(text: object, prefix: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each array that :func:`split` separated from a value, by name.

    Raises ``ValueError`` if ``text`` is no result of :func:`split`.
    """
    result: dict[str, tuple[tuple[int, ...], str]] = {}
    waiting: list[Any] = [text] if isinstance(text, _HOLDERS) else []
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict) and _KEY in one:
            name, dtype, shape = one[_KEY], str(one.get("dtype")), one.get("shape")
            good = isinstance(name, str) and name.startswith(f"{prefix}.") and name not in result
            good = good and dtype in DTYPES and one.get("list", True) is True
            if not (good and isinstance(shape, list) and all(type(side) is int for side in shape)):
                raise ValueError(f"{prefix} must name an array, its dtype and shape, got {one!r}")
            result[name] = tuple(shape), dtype
        else:
            inner = one.values() if isinstance(one, dict) else one
            waiting += [value for value in inner if isinstance(value, _HOLDERS)]
    return result


def join(text: object, arrays: dict[str, Array]) -> Any:
    """The original value of :func:`split`; lists and dicts of ``text`` are changed in place.

    >>> join(*split("a state", {"seen": [1.5] * 100}, "callback"))["seen"][:2]
    [1.5, 1.5]
    """
    root = [text]
    waiting: list[Any] = [root]
    while waiting:
        holder = waiting.pop()
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if not isinstance(value, _HOLDERS):
                continue
            if isinstance(value, dict) and _KEY in value:
                array = arrays[value[_KEY]]
                holder[key] = array.tolist() if value.get("list") else array
            else:
                waiting.append(value)
    return root[0]


_HOLDERS = (dict, list)
