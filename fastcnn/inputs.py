"""What a model takes as samples: images or vectors, bytes or floats.

Bytes (uint8) are pixels, and are scaled to ``x / 255 − 0.5``, batch by batch. Everything else is
taken as it is given. (N, H, W) is one channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.arguments import Array
from fastcnn.float_errors import unreported
from fastcnn.layers import Shape
from fastcnn.on_demand import Samples

SCALING = "x / 255 - 0.5"
"""What is done to bytes; written to model files."""

_TAKEN = frozenset(map(np.dtype, (np.uint8, np.float32, np.float64)))
_PART = 1 << 20  # numbers that are looked at together


def samples(name: str, x: ArrayLike, input_shape: Shape | None) -> Array:
    """``x`` as (N, H, W, C) or (N, features), in the dtype that it has.

    A view of its own, because the caller may give ``x`` another shape in place.

    Raises ``TypeError`` for what are no numbers, ``ValueError`` for samples of another shape than
    ``input_shape``; both name the argument.

    >>> samples("x", np.zeros((5, 28, 28), np.uint8), (28, 28, 1)).shape
    (5, 28, 28, 1)
    """
    if type(x) is np.ndarray:
        x = x[...]
        if x.dtype in _TAKEN and x.ndim == 4 and x.shape[1:] == input_shape:
            return x  # nearly always, and a prediction of one sample is short
    try:
        array: Array = np.asarray(x)[...]
    except ValueError as error:
        raise ValueError(f"{name} must be an array, got a ragged sequence: {error}") from None
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim not in (2, 4) or (input_shape is not None and array.shape[1:] != input_shape):
        wanted = "(N, H, W), (N, H, W, C) or (N, features)"
        if input_shape is not None:
            wanted = f"(N, {', '.join(map(str, input_shape))})"
        raise ValueError(f"{name} must have the shape {wanted}, got {np.shape(x)}")
    return array


def finite(name: str, array: Samples) -> None:
    """Raise the ``ValueError`` for NaN or infinity in the samples, naming the first such."""
    if array.dtype.kind != "f":
        return
    step = max(1, _PART // max(1, array[:1].size))
    for first in range(0, len(array), step):
        part = array[first : first + step]
        good = np.isfinite(part)
        if not good.all():
            sample = first + int(np.argmin(good.reshape(len(part), -1).all(axis=1)))
            raise ValueError(f"{name} must hold finite numbers, got NaN or infinity in {sample=}")


def batch(array: Array, dtype: np.dtype[Any]) -> Array:
    """Some samples as the layers take them: bytes scaled, all of ``dtype`` and C-contiguous.

    >>> batch(np.array([[0, 255]], np.uint8), np.dtype("float32"))
    array([[-0.5,  0.5]], dtype=float32)
    """
    if array.dtype is dtype and array.flags.c_contiguous:
        return array
    return _converted(array, dtype)


@unreported
def _converted(array: Array, dtype: np.dtype[Any]) -> Array:
    if array.dtype == np.uint8:
        scaled: Array = np.multiply(array, dtype.type(1 / 255), dtype=dtype, order="C")
        scaled -= dtype.type(0.5)
        return scaled
    return np.ascontiguousarray(array, dtype)
