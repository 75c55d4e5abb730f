"""What the readers of files of weights share: their error, and checks of arrays."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted, shortened
from fastcnn.train.checkpoint import ModelFileError

_LONGEST_REASON = 1000  # characters
_MOST_AXES = 32


def refusal(name: str, reason: str) -> ModelFileError:
    """The error for a file. Its reason is shortened, because it may quote much of the file."""
    return ModelFileError(f"{name} cannot be loaded: {shortened(reason, _LONGEST_REASON)}")


def bfloat16(bits: Array) -> Array:
    """The float32 numbers of bfloat16 bits (uint16): bfloat16 is the upper half of a float32.

    >>> bfloat16(np.array([0x3F80, 0xC020], np.uint16))
    array([ 1. , -2.5], dtype=float32)
    """
    result: Array = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return result


def checked_shape(name: str, key: str, shape: object) -> tuple[int, ...]:
    """The sides of an array of a file, as a tuple of integers of at least 0."""
    if not isinstance(shape, list | tuple) or len(shape) > _MOST_AXES:
        raise refusal(name, f"the array {quoted(key)} has no shape, but {quoted(shape)}")
    if not all(type(side) is int and 0 <= side < 2**62 for side in shape):
        raise refusal(name, f"the array {quoted(key)} has the impossible shape {quoted(shape)}")
    return tuple(shape)
