"""Central differences: what every gradient is held against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcnn.core.arguments import Array


def slope(function: Callable[[], float], at: Array, step: float = 1e-5) -> Array:
    """Central differences of ``function()`` by each element of ``at``, which is moved in place."""
    result = np.zeros(at.shape)
    for i in np.ndindex(at.shape):
        before = at[i]
        at[i] = before + step
        up = function()
        at[i] = before - step
        down = function()
        at[i] = before
        result[i] = (up - down) / (2 * step)
    return result


def same(gradient: Array, expected: Array) -> None:
    """Both agree as closely as central differences in float64 can tell, and are not all zero."""
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)
    assert np.abs(expected).max() > 1e-3
