"""Products of matrices whose sums may be long.

BLAS itself decides in which order it adds, and how many terms in float32. So a product over more
terms than a stretch (:mod:`fastcnn.core.long_sums`) is computed as a float64 sum of products.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH


def totals_dtype(dtype: np.dtype[Any], terms: int) -> np.dtype[Any]:
    """The dtype in which sums of ``terms`` terms are collected.

    >>> totals_dtype(np.dtype("float32"), 100), totals_dtype(np.dtype("float32"), 25_000_000)
    (dtype('float32'), dtype('float64'))
    """
    return dtype if terms <= STRETCH else np.dtype(np.float64)


def product(a: Array, b: Array) -> Array:
    """``a @ b``, for stacks of matrices; in float64 if the sums are long.

    >>> product(np.ones((1, 3), np.float32), np.ones((3, 2), np.float32)).dtype
    dtype('float32')
    >>> product(np.ones((1, 5000), np.float32), np.ones((5000, 2), np.float32))
    array([[5000., 5000.]])
    """
    steps = a.shape[-1]
    if steps <= STRETCH:
        result: Array = np.matmul(a, b)
        return result
    first: Array = np.matmul(a[..., :STRETCH], b[..., :STRETCH, :])
    totals = first.astype(np.float64)
    for start in range(STRETCH, steps, STRETCH):
        stretch = slice(start, start + STRETCH)
        totals += np.matmul(a[..., stretch], b[..., stretch, :])
    return totals
