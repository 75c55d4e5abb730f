"""Arrays merged by NumPy, element by element or side by side, and the gradients of each.

Gradients are summed in float64, sample by sample and some rows at a time, so that the sums of a
sample depend on no other sample, and no product of a whole batch lies in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.broadcasting import Shape, summed_axes
from fastcnn.engine.im2col.windows import row_slices


def add(a: Array, b: Array) -> Array:
    """``a + b``."""
    y: Array = np.add(a, b)
    return y


def add_backward(dy: Array, a_shape: Shape, b_shape: Shape) -> tuple[Array, Array]:
    """``da`` and ``db``: dy, summed over the axes that are 1 in a or b."""
    return _summed(dy, a_shape, _same), _summed(dy, b_shape, _same)


def subtract(a: Array, b: Array) -> Array:
    """``a - b``."""
    y: Array = np.subtract(a, b)
    return y


def subtract_backward(dy: Array, a_shape: Shape, b_shape: Shape) -> tuple[Array, Array]:
    """``da`` and ``db``: dy and −dy, summed over the axes that are 1 in a or b."""
    return _summed(dy, a_shape, _same), _summed(dy, b_shape, np.negative)


def multiply(a: Array, b: Array) -> Array:
    """``a * b``."""
    y: Array = np.multiply(a, b)
    return y


def multiply_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """``da`` and ``db``: dy times the other operand, summed over the axes that are 1 in a or b."""
    return _summed(dy, a.shape, np.multiply, b), _summed(dy, b.shape, np.multiply, a)


def maximum(a: Array, b: Array) -> Array:
    """``max(a, b)``; NaN where one of them is NaN."""
    y: Array = np.maximum(a, b)
    return y


def maximum_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """``da`` and ``db``: dy where a or b is the maximum, summed over the axes that are 1 in a or b.

    At a tie the maximum is a.
    """
    return _summed(dy, a.shape, _where_first, a, b), _summed(dy, b.shape, _where_second, a, b)


def concatenate(arrays: tuple[Array, ...], axis: int) -> Array:
    """The arrays side by side along an axis."""
    return np.concatenate(arrays, axis)


def concatenate_backward(dy: Array, sizes: tuple[int, ...], axis: int) -> tuple[Array, ...]:
    """The parts of dy that have these sizes along an axis."""
    parts = np.split(dy, np.cumsum(sizes)[:-1], axis)
    return tuple(np.array(part, order="C") for part in parts)


def _same(dy: Array) -> Array:
    return dy


def _where_first(dy: Array, a: Array, b: Array) -> Array:
    return np.where((a >= b) | np.isnan(a), dy, 0)


def _where_second(dy: Array, a: Array, b: Array) -> Array:
    return np.where((a >= b) | np.isnan(a), 0, dy)


def _summed(dy: Array, shape: Shape, term: Callable[..., Array], *operands: Array) -> Array:
    """``term(dy, *operands)``, summed over the axes in which ``shape`` is 1, in this shape."""
    result = np.empty(shape, dy.dtype)
    over = summed_axes(shape, dy.shape)
    arrays = [dy, *(np.broadcast_to(operand, dy.shape) for operand in operands)]
    for n in range(len(dy)):
        sample = slice(n, n + 1)
        totals = np.zeros(result[sample].shape) if over else result[sample]
        for some in row_slices(dy[n], 4):
            part = term(*(array[sample, some] for array in arrays))
            if 1 in over:
                totals += part.sum(over, np.float64, keepdims=True)
            elif over:
                totals[:, some] = part.sum(over, np.float64, keepdims=True)
            else:
                totals[:, some] = part
        if over:
            result[sample] = totals
    return result
