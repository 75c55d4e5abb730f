"""Arrays merged into one, element by element or side by side, and the gradients of each.

The arrays a and b have the same number of axes and the same batch. Each other axis is equal in
both, or 1 in one of them. Where an axis is 1, the same numbers meet each index of the other array's
axis. So (N, 1, 1, C) scales the channels of images (N, H, W, C), and (N, H, W, 1) their pixels.

An element that meets several elements of the result gets the sum of their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastcnn.core.arguments import Array

Shape = tuple[int, ...]


def add(a: Array, b: Array) -> Array:
    """a + b.

    >>> add(np.array([[1.0, 2.0]]), np.array([[10.0]]))
    array([[11., 12.]])
    """
    y: Array = a.astype(np.float64) + b.astype(np.float64)
    return y.astype(a.dtype)


def add_backward(dy: Array, a_shape: Shape, b_shape: Shape) -> tuple[Array, Array]:
    """Gradients da and db: dy, summed over the axes that are 1 in a or in b.

    >>> add_backward(np.array([[3.0, 4.0]]), (1, 2), (1, 1))
    (array([[3., 4.]]), array([[7.]]))
    """
    return _summed(dy, a_shape, dy), _summed(dy, b_shape, dy)


def subtract(a: Array, b: Array) -> Array:
    """a − b."""
    y: Array = a.astype(np.float64) - b.astype(np.float64)
    return y.astype(a.dtype)


def subtract_backward(dy: Array, a_shape: Shape, b_shape: Shape) -> tuple[Array, Array]:
    """Gradients da and db: dy and −dy, summed over the axes that are 1 in a or in b."""
    return _summed(dy, a_shape, dy), _summed(-dy, b_shape, dy)


def multiply(a: Array, b: Array) -> Array:
    """a · b.

    >>> multiply(np.array([[1.0, 2.0]]), np.array([[10.0]]))
    array([[10., 20.]])
    """
    y: Array = a.astype(np.float64) * b.astype(np.float64)
    return y.astype(a.dtype)


def multiply_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Gradients da and db: dy · b and dy · a, summed over the axes that are 1 in a or in b."""
    gradients = dy.astype(np.float64)
    return _summed(gradients * b, a.shape, dy), _summed(gradients * a, b.shape, dy)


def maximum(a: Array, b: Array) -> Array:
    """The larger of a and b; NaN where one of them is NaN.

    >>> maximum(np.array([1.0, 5.0, np.nan]), np.array([2.0, 4.0, 3.0]))
    array([ 2.,  5., nan])
    """
    return np.where(_wins(a, b), a, b)


def maximum_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Gradients da and db: dy goes to the operand that is the result. At a tie this is a.

    >>> maximum_backward(np.array([6.0, 7.0]), np.array([1.0, 2.0]), np.array([3.0, 2.0]))
    (array([0., 7.]), array([6., 0.]))
    """
    wins = _wins(a, b)
    return _summed(np.where(wins, dy, 0), a.shape, dy), _summed(np.where(wins, 0, dy), b.shape, dy)


def concatenate(arrays: tuple[Array, ...], axis: int) -> Array:
    """The arrays side by side along an axis, in which they may differ in length.

    >>> concatenate((np.array([[1.0, 2.0]]), np.array([[3.0]])), 1)
    array([[1., 2., 3.]])
    """
    shape = list(arrays[0].shape)
    shape[axis] = sum(array.shape[axis] for array in arrays)
    y = np.zeros(shape, arrays[0].dtype)
    for array, place in zip(arrays, _places([a.shape[axis] for a in arrays], axis), strict=True):
        y[place] = array
    return y


def concatenate_backward(dy: Array, sizes: tuple[int, ...], axis: int) -> tuple[Array, ...]:
    """The gradient of each array: the part of dy where the array lies in the result."""
    return tuple(dy[place].copy() for place in _places(sizes, axis))


def _places(sizes: Sequence[int], axis: int) -> Iterator[tuple[slice, ...]]:
    """Where arrays of these sizes along an axis lie in the result, as indices."""
    start = 0
    for size in sizes:
        yield (*[slice(None)] * axis, slice(start, start + size))
        start += size


def _wins(a: Array, b: Array) -> Array:
    """Where the maximum is a: at ties too, and where a is NaN."""
    wins: Array = (a >= b) | np.isnan(a)
    return wins


def _summed(gradients: Array, shape: Shape, dy: Array) -> Array:
    """Gradients in the shape of dy, summed over the axes in which ``shape`` is 1, in dy's dtype."""
    result = np.zeros(shape)
    over = tuple(axis for axis in range(1, dy.ndim) if shape[axis] != dy.shape[axis])
    for n in range(len(dy)):
        sample = gradients[n : n + 1].astype(np.float64)
        result[n : n + 1] = np.sum(sample, axis=over, keepdims=True) if over else sample
    return result.astype(dy.dtype)
