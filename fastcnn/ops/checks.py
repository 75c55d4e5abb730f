"""Checks of arguments that functions of several kinds share, and the types of these arguments."""

from __future__ import annotations

from math import inf, isfinite
from typing import Literal, TypeAlias

import numpy as np

from fastcnn.core.geometry import ConvGeometry, conv_geometry
from fastcnn.core.quoting import quoted

Activation: TypeAlias = Literal["relu"] | None
Algorithm: TypeAlias = Literal["auto", "direct", "winograd", "im2col"]
Math: TypeAlias = Literal["fast", "strict"]
Reduction: TypeAlias = Literal["mean", "sum", "none"]


def check_activation(value: object) -> None:
    """Raise a ``ValueError`` unless ``value`` is "relu" or None."""
    if value is not None and value != "relu":
        raise ValueError(f'activation must be "relu" or None, got {quoted(value)}')


def finite_number(name: str, value: object) -> float:
    """``value`` as a float, and -0.0 as 0.0, which equals it in keys.

    Raises ``TypeError`` or ``ValueError`` unless it is a finite number.

    >>> finite_number("slope", 2)
    2.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise TypeError(f"{name} must be a number, got {quoted(value)}")
    try:
        number = float(value) + 0.0
    except OverflowError:  # an integer beyond all floats
        number = inf
    if not isfinite(number):
        raise ValueError(f"{name} must be finite, got {quoted(value)}")
    return number


def image_shape(name: str, value: object) -> tuple[int, ...]:
    """``value`` as the shape of images (N, H, W, C). Raises ``TypeError`` or ``ValueError``.

    >>> image_shape("x_shape", [2, 5, 7, 3])
    (2, 5, 7, 3)
    """
    if not isinstance(value, tuple | list) or not all(type(side) is int for side in value):
        raise TypeError(f"{name} must be a tuple of ints, got {quoted(value)}")
    if len(value) != 4 or min(value) < 0:
        raise ValueError(f"{name} must be (N, H, W, channels), none negative, got {quoted(value)}")
    return tuple(value)


def geometry_of_pixels(shape: tuple[int, ...]) -> ConvGeometry:
    """A geometry whose output has this shape (N, OH, OW, OC), for the gradient of a bias.

    Only the output's shape matters, so the geometry of a filter of one pixel will do.
    """
    return conv_geometry(shape, (1, 1, shape[3], shape[3]))
