"""Pooling of images, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, shaped
from fastcnn.core.geometry import Padding, Pair, pool_geometry
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.declaration import operation

_WINDOWS = """
x: images, (N, H, W, C).
dy: gradient of the output, (N, OH, OW, C).
size: height and width of the windows, an int or (vertical, horizontal).
stride: pixels between windows, an int or (vertical, horizontal), or None for ``size``.
    Default None.
padding: pixels around the images, fewer than the window has: "valid" (none), "same" (the output
    is ⌈H/stride⌉ pixels high and ⌈W/stride⌉ wide, and an odd pixel goes to the end), an int,
    (vertical, horizontal) or ((top, bottom), (left, right)). Default "valid".
"""


@operation(_WINDOWS)
def max_pool2d(
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Largest value of each window.

    NaN wins over every number. Padding never wins.

    Returns:
        y, (N, OH, OW, C), of the dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.max_pool2d(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
        array([[ 5.,  7.],
               [13., 15.]])
    """
    y: Array = call(_pooled, (x,), "max_pool2d", size, stride, padding, engine)
    return y


@operation(_WINDOWS)
def min_pool2d(
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Smallest value of each window.

    NaN wins over every number. Padding never wins.

    Returns:
        y, (N, OH, OW, C), of the dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.min_pool2d(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
        array([[ 0.,  2.],
               [ 8., 10.]])
    """
    y: Array = call(_pooled, (x,), "min_pool2d", size, stride, padding, engine)
    return y


@operation(_WINDOWS)
def avg_pool2d(
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Mean of each window.

    Padding does not count: a window with one pixel in the image has the value of that pixel.

    Returns:
        y, (N, OH, OW, C), of the dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.avg_pool2d(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
        array([[ 2.5,  4.5],
               [10.5, 12.5]])
    """
    y: Array = call(_pooled, (x,), "avg_pool2d", size, stride, padding, engine)
    return y


@operation(_WINDOWS)
def max_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`max_pool2d`.

    The gradient of a window goes only to its maximum, and to the first of equal maxima in row-major
    order. NaN counts as the maximum, and the first of several NaNs wins.

    Returns:
        dx, (N, H, W, C), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.array([[1.0, 7.0], [7.0, 2.0]]).reshape(1, 2, 2, 1)
        >>> fastcnn.max_pool2d_backward(np.ones((1, 1, 1, 1)), x, 2)[0, :, :, 0]
        array([[0., 1.],
               [0., 0.]])
    """
    op = "max_pool2d_backward"
    dx: Array = call(_gradient, (dy, x), op, size, stride, padding, engine)
    return dx


@operation(_WINDOWS)
def min_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`min_pool2d`.

    The gradient of a window goes only to its minimum, and to the first of equal minima in row-major
    order. NaN counts as the minimum, and the first of several NaNs wins.

    Returns:
        dx, (N, H, W, C), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.array([[1.0, 7.0], [7.0, 1.0]]).reshape(1, 2, 2, 1)
        >>> fastcnn.min_pool2d_backward(np.ones((1, 1, 1, 1)), x, 2)[0, :, :, 0]
        array([[1., 0.],
               [0., 0.]])
    """
    op = "min_pool2d_backward"
    dx: Array = call(_gradient, (dy, x), op, size, stride, padding, engine)
    return dx


@operation(_WINDOWS)
def avg_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`avg_pool2d`.

    The pixels of a window that lie in the image share its gradient equally. Only the shape and the
    dtype of ``x`` matter.

    Returns:
        dx, (N, H, W, C), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.zeros((1, 2, 2, 1))
        >>> fastcnn.avg_pool2d_backward(np.ones((1, 1, 1, 1)), x, 2)[0, :, :, 0]
        array([[0.25, 0.25],
               [0.25, 0.25]])
    """
    op = "avg_pool2d_backward"
    dx: Array = call(_gradient, (dy, x), op, size, stride, padding, engine)
    return dx


@binding("x")
def _pooled(
    x: Facts, op: str, size: Pair, stride: Pair | None, padding: Padding, engine: str | None
) -> Callable[..., Any]:
    g = pool_geometry(x.shape, size, stride=stride, padding=padding)
    return registry.bind(op, g, x.dtype, how=(engine,))


@binding("dy", "x")
def _gradient(
    dy: Facts,
    x: Facts,
    op: str,
    size: Pair,
    stride: Pair | None,
    padding: Padding,
    engine: str | None,
) -> Callable[..., Any]:
    g = pool_geometry(x.shape, size, stride=stride, padding=padding)
    shaped("dy", dy, g.output_shape, "the output's shape")
    bound = registry.bind(op, g, x.dtype, how=(engine,))
    return bound if op != "avg_pool2d_backward" else lambda dy, x: bound(dy)
