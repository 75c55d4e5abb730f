"""The check that all numbers of an array are finite.

Kernels that pad images with zeros run it on their result, because the product of zero and infinity
is NaN, but the specification never multiplies padding. A training step runs it on the gradient.
"""

from __future__ import annotations

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import rehearsal
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.jit import compiled
from fastcnn.engine.numba.runtime.types import Number


def all_finite(values: Array) -> bool:
    """Whether no number of a flat array is infinite or NaN; True in a rehearsal."""
    if rehearsal.active and rehearsal.list_kernel(_sum_of_zeros, (values,)):
        return True
    return bool(_sum_of_zeros(values) == 0)


@device
def sum_of_zeros(values: Array) -> Number:
    """The sum of ``values * 0``: 0 if all numbers of the flat array are finite, else NaN.

    The loop has no early exit, because it would not be compiled to vectors then.
    """
    total: Number = values.dtype.type(0)
    for i in range(values.size):
        total += values[i] * values.dtype.type(0)
    return total


@compiled
def _sum_of_zeros(values: Array) -> Number:
    return sum_of_zeros(values)
