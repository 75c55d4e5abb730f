"""Copies between arrays whose axes lie in different orders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STRIPE = 64  # numbers of the last axis that are copied at once


def copy_into(target: NDArray[np.generic], source: NDArray[np.generic]) -> None:
    """Write ``source`` into ``target``, which has the same shape and may have another dtype.

    A matrix whose transpose is copied row by row is read in steps of a whole line of memory. So the
    last axis is copied in stripes, because the numbers of a stripe share the lines that are read.

    >>> target = np.zeros((3, 2), np.float32)
    >>> copy_into(target, np.arange(6.0).reshape(2, 3).T)
    >>> target
    array([[0., 3.],
           [1., 4.],
           [2., 5.]], dtype=float32)
    """
    if target.ndim < 2 or abs(source.strides[-1]) <= source.itemsize:
        target[...] = source
        return
    for first in range(0, target.shape[-1], _STRIPE):
        stripe = (..., slice(first, first + _STRIPE))
        target[stripe] = source[stripe]
