"""Shapes of samples whose numbers move to other places: integers only.

``shape`` is the shape of a batch (N, …) in all functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from fastcnn.core.geometry import integer
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, one_of

DepthOrder: TypeAlias = Literal["DCR", "CRD"]
DEPTH_ORDERS: tuple[DepthOrder, ...] = get_args(DepthOrder)


def axes_order(name: str, value: object) -> tuple[int, ...]:
    """``value`` as a tuple, if it holds each axis of a sample once, counted from 1.

    Raises ``TypeError`` or ``ValueError`` that names the argument.

    >>> axes_order("order", [2, 1])
    (2, 1)
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list of axes, got {quoted(value)}")
    axes = tuple(integer(name, axis, value) for axis in value)
    if not axes or sorted(axes) != list(range(1, len(axes) + 1)):
        raise ValueError(
            f"{name} must hold each axis of a sample once, counted from 1, got {quoted(value)}"
        )
    return axes


def depth_to_space_shape(
    shape: tuple[int, ...], block: object, order: object
) -> tuple[int, int, int, int]:
    """The shape of images after each ``block²`` channels have become a block of pixels.

    >>> depth_to_space_shape((2, 5, 7, 12), 2, "DCR")
    (2, 10, 14, 3)
    """
    side = _block_of(shape, block, order)
    n, h, w, c = shape
    if c % side**2:
        raise ValueError(f"x must have a multiple of block² = {side**2} channels, got {shape}")
    return n, h * side, w * side, c // side**2


def depth_to_space_axes(
    shape: tuple[int, ...], block: int, order: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Images of this shape with their channels as three axes, and the order that makes blocks.

    >>> depth_to_space_axes((2, 5, 7, 12), 2, "DCR")
    ((2, 5, 7, 2, 2, 3), (1, 3, 2, 4, 5))
    """
    channels = shape[3] // block**2
    if order == "DCR":  # (H, W, i, j, C) becomes (H, i, W, j, C)
        return (*shape[:3], block, block, channels), (1, 3, 2, 4, 5)
    # (H, W, C, i, j) becomes (H, i, W, j, C)
    return (*shape[:3], channels, block, block), (1, 4, 2, 5, 3)


def stays_in_place(shape: tuple[int, ...], order: tuple[int, ...]) -> bool:
    """Whether axes in another order leave all numbers where they are.

    ``shape`` is that of a sample, and ``order`` counts its axes from 1.

    >>> stays_in_place((1, 1, 8), (3, 1, 2)), stays_in_place((2, 1, 8), (3, 1, 2))
    (True, False)
    """
    long = [axis for axis in order if shape[axis - 1] > 1]
    return long == sorted(long)


def space_to_depth_shape(
    shape: tuple[int, ...], block: object, order: object
) -> tuple[int, int, int, int]:
    """The shape of images after each block of pixels has become one pixel.

    >>> space_to_depth_shape((2, 10, 14, 3), 2, "DCR")
    (2, 5, 7, 12)
    """
    side = _block_of(shape, block, order)
    n, h, w, c = shape
    if h % side or w % side:
        raise ValueError(f"x must have sides that block = {side} divides, got {shape}")
    return n, h // side, w // side, c * side**2


def _block_of(shape: tuple[int, ...], block: object, order: object) -> int:
    if len(shape) != 4:
        raise ValueError(f"x must have the shape (N, H, W, C), got {shape}")
    one_of("order", order, DEPTH_ORDERS)
    return count("block", block)
