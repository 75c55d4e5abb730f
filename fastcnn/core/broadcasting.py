"""How two arrays meet that are merged element by element.

Both have the same number of axes, at least two, and the same batch, which is the first axis. Each
other axis is equal in both, or 1 in one of them, whose numbers then meet each index of the other's
axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from fastcnn.core.geometry import integer
from fastcnn.core.quoting import quoted

Shape = tuple[int, ...]


@lru_cache(maxsize=1024)
def merged_shape(a: Shape, b: Shape, names: str = "a and b") -> Shape:
    """The shape of the result. Raises ``ValueError``, which names both shapes, if there is none.

    >>> merged_shape((8, 5, 7, 3), (8, 1, 1, 3)), merged_shape((8, 5, 1, 3), (8, 1, 7, 1))
    ((8, 5, 7, 3), (8, 5, 7, 3))
    """
    meet = len(a) == len(b) > 1 and a[0] == b[0]
    if not meet or any(i != j and 1 not in (i, j) for i, j in zip(a, b, strict=True)):
        raise ValueError(
            f"{names} must have the same number of axes, at least 2, and the same batch, and each "
            f"other axis must be equal in both, or 1 in one of them, got {quoted(a)} and "
            f"{quoted(b)}"
        )
    return tuple(j if i == 1 else i for i, j in zip(a, b, strict=True))


def summed_axes(operand: Shape, merged: Shape) -> Shape:
    """The axes over which the gradient of an operand is summed.

    >>> summed_axes((8, 1, 1, 3), (8, 5, 7, 3))
    (1, 2)
    """
    pairs = enumerate(zip(operand, merged, strict=True))
    return tuple(axis for axis, (own, whole) in pairs if own != whole)


def checked_shape(name: str, value: object) -> Shape:
    """``value`` as a tuple of ints of at least 0.

    >>> checked_shape("a_shape", [2, 1])
    (2, 1)
    """
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a tuple of ints, got {quoted(value)}")
    shape = tuple(integer(name, side, value) for side in value)
    if any(side < 0 for side in shape):
        raise ValueError(f"{name} must not be negative, got {quoted(value)}")
    return shape
