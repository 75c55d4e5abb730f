"""The arrays that public functions take, and how they are converted.

**The dtype rule.** Arrays combine by NumPy's promotion with float32 as the floor: float32 stays
float32, float64 stays float64, a mix becomes the wider; float16, booleans and integers of at most
16 bits become float32, wider integers float64. Complex numbers, extended precision, objects,
strings and dates are a ``TypeError``.

**The layout rule.** Engines get C-contiguous, aligned arrays in native byte order: any other
layout (Fortran order, strided or reversed views, broadcasts) is copied. Nothing is ever written
to a caller's array.
"""

from __future__ import annotations

from math import prod
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastcnn.core.capacity import affordable
from fastcnn.core.float_errors import unreported

Array: TypeAlias = NDArray[Any]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
"""The dtypes that engines compute."""
SUM_TOLERANCE = 1e-3
"""How far from 1 the sum of a row of probabilities may be: some roundings of float16."""

_LABELS = np.dtype(np.int64)
_FEW = 8  # labels


class _Memory:
    """The memory of a read-only array for NumPy, without the mark; it keeps the array alive."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.__array_interface__["data"][0], False),
        }


def readable(array: Array) -> Array:
    """``array`` itself if it is writable, else a view of it that is; engines write to no input."""
    if array.flags.writeable:
        return array
    return np.asarray(_Memory(array))


def floats(**arrays: ArrayLike | None) -> list[Array]:
    """The arrays under the dtype and layout rules, all of one dtype.

    Raises ``TypeError`` for a dtype that the rule refuses, ``ValueError`` for ragged lists; both
    name the argument.

    >>> [a.dtype.name for a in floats(x=np.zeros(2, np.uint8), w=np.zeros(2, np.float64))]
    ['float64', 'float64']
    """
    present: list[Any] = list(arrays.values())
    if all(map(_is_plain, present)) and len({a.dtype for a in present}) == 1:
        return present  # nothing to convert
    converted = [_real(name, a) for name, a in arrays.items()]
    kinds = {a.dtype for a in converted}
    dtype = kinds.pop() if len(kinds) == 1 else np.result_type(np.float32, *kinds)
    if dtype not in FLOATS:
        dtype = np.result_type(np.float32, dtype)
    return [_plain(name, a, dtype) for name, a in zip(arrays, converted, strict=True)]


class HasShape(Protocol):
    """An array, or what describes one."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def shaped(name: str, array: HasShape, shape: tuple[int, ...], meaning: str) -> None:
    """Raise a ``ValueError`` if an array has another shape than the other arguments imply."""
    if array.shape != shape:
        raise ValueError(f"{name} must have {meaning}, {shape}, got {array.shape}")


def class_labels(value: ArrayLike, count: int, classes: int) -> NDArray[np.int64]:
    """Class numbers as int64 of shape (count,), each checked to be in ``range(classes)``.

    A new array, because the caller may change the old one after the check.
    """
    if are_labels(value, count):
        return in_range(cast("NDArray[np.int64]", value).copy(), classes)
    array = _array("labels", value)
    if array.size == 0 and array.dtype.kind == "f":  # an empty list has no integer dtype
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {array.dtype}")
    shaped("labels", array, (count,), "one class number per sample")
    return in_range(np.array(array, np.int64, order="C"), classes, array)


def class_targets(value: ArrayLike, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """``labels`` for logits of this shape (…, C): class numbers (…), or probabilities (…, C).

    The result is for logits as rows: class numbers (R,), or probabilities (R, C).
    :func:`class_labels` checks class numbers, :func:`probabilities` checks rows.
    """
    *sides, classes = shape
    count = prod(sides)
    if len(sides) == 1 and are_labels(value, count):
        return class_labels(value, count, classes)
    labels = _array("labels", value)
    if labels.shape == shape:
        return probabilities("labels", labels.reshape(count, classes), dtype)
    if len(sides) > 1:
        shaped("labels", labels, tuple(sides), "one class number per pixel")
        labels = labels.reshape(-1)
    return class_labels(labels, count, classes)


@unreported
def probabilities(name: str, rows: Array, dtype: DTypeLike) -> Array:
    """Rows of numbers (N, C) as probabilities of ``dtype``, C-contiguous; perhaps the same array.

    Raises ``TypeError`` if the dtype is not one of real numbers, and ``ValueError`` if a number is
    negative or a row's sum differs from 1 by more than :data:`SUM_TOLERANCE`.

    >>> probabilities("y", np.array([[0.5, 0.5], [0.25, 0.5]]), np.float32)
    Traceback (most recent call last):
        ...
    ValueError: y must hold class numbers, or rows of probabilities that are at least 0 and add up
    to 1, got [0.25, 0.5] in row 1
    """
    if rows.dtype.kind not in "fiub" or rows.dtype.itemsize > 8:
        raise TypeError(f"{name} must hold real numbers of at most 64 bits, got dtype {rows.dtype}")
    off = np.abs(rows.sum(axis=1, dtype=np.float64) - 1)
    right = off <= SUM_TOLERANCE  # false for NaN
    if rows.size and not (right.all() and rows.min() >= 0):
        row = int(np.argmin(right & (rows >= 0).all(axis=1)))
        raise ValueError(
            f"{name} must hold class numbers, or rows of probabilities that are at least 0 and add "
            f"up to 1, got {shown_row(rows[row])} in row {row}"
        )
    return np.require(rows, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def shown_row(row: Array) -> str:
    """A row in an error message: its first numbers.

    >>> shown_row(np.arange(20))
    '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...]'
    """
    numbers = [repr(value) for value in row[:10].tolist()]
    return f"[{', '.join(numbers + ['...'] * (row.size > 10))}]"


def in_range(
    labels: NDArray[np.int64], classes: int, original: Array | None = None
) -> NDArray[np.int64]:
    """``labels`` if each is in ``range(classes)``; otherwise a ``ValueError``.

    The error shows the first wrong label, taken from ``original`` if the caller passes it.
    """
    if 0 < len(labels) <= _FEW:  # Python is faster than NumPy on a few labels
        few = labels.tolist()
        if min(few) >= 0 and max(few) < classes:
            return labels
    wrong = labels.view(np.uint64) >= classes  # a negative label is a large unsigned number
    if np.count_nonzero(wrong):
        shown = (labels if original is None else original)[wrong][0]
        raise ValueError(f"labels must be at least 0 and below {classes}, got {shown}")
    return labels


def are_labels(value: object, count: int) -> bool:
    """Whether ``value`` is an array of labels that kernels can read; the range is not checked."""
    if type(value) is not np.ndarray or value.dtype is not _LABELS:
        return False
    return value.shape == (count,) and value.flags.c_contiguous and value.flags.aligned


def _array(name: str, value: ArrayLike | None) -> Array:
    try:
        # None becomes an array of objects, which the caller refuses by its dtype.
        array: Array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array, got a ragged sequence: {error}") from None
    return array


def _real(name: str, value: ArrayLike | None) -> Array:
    array = _array(name, value)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{name} must hold real numbers of at most 64 bits (float32 and float64 are computed "
            f"as they are, smaller ones and integers converted), got "
            f"{'None, of ' if value is None else ''}dtype {array.dtype}"
        )
    return array


def _is_plain(value: object) -> bool:
    if type(value) is not np.ndarray:
        return False
    return value.dtype in FLOATS and value.flags.c_contiguous and value.flags.aligned


@unreported
def _plain(name: str, array: Array, dtype: np.dtype[np.generic]) -> Array:
    flags = array.flags
    if array.dtype is dtype and flags.c_contiguous and flags.aligned:
        return array
    affordable(f"a copy of {name}", array.shape, dtype)  # a broadcast array takes no memory itself
    return np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED"])
