"""Checks of arguments that functions of several kinds share, and the types of these arguments."""

from __future__ import annotations

from math import inf, isfinite
from typing import Literal, TypeAlias

import numpy as np

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
    """``value`` as a float. Raises ``TypeError`` or ``ValueError`` unless it is a finite number.

    >>> finite_number("slope", 2)
    2.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise TypeError(f"{name} must be a number, got {quoted(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = inf
    if not isfinite(number):
        raise ValueError(f"{name} must be finite, got {quoted(value)}")
    return number
