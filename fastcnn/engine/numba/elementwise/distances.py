"""Distances from a mean that is kept as two numbers of the arrays' dtype.

The first number is the mean, rounded; the second is what it lost when it was rounded. A number less
the first is rounded relative to the difference, so distances are as exact as in a wider dtype.
"""

from __future__ import annotations

from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.types import Number


@ordered_device
def distance_from(x: Number, mean: Number, mean_low: Number) -> Number:
    """``x`` less the mean, which is ``mean + mean_low``."""
    distance: Number = x - mean - mean_low
    return distance
