"""Activations element by element, softmax and its logarithm, and their gradients."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, floats, shaped
from fastcnn.engine import registry
from fastcnn.ops.checks import finite_number
from fastcnn.ops.declaration import operation


@operation()
def relu(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``max(x, 0)``, element by element. NaN stays NaN.

    Args:
        x: numbers, any shape.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.relu(np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 2.])
    """
    (x,) = floats(x=x)
    y: Array = registry.choose("relu", x.shape, x.dtype, engine)(x.reshape(-1))
    return y.reshape(x.shape)


@operation()
def relu_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`relu`: dy where x is above 0, and 0 elsewhere.

    It is 0 also where x is 0 or NaN.

    Args:
        dy: gradient of the output, the shape of x.
        x: numbers, any shape.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 5.])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    dx: Array = registry.choose("relu_backward", x.shape, x.dtype, engine)(
        dy.reshape(-1), x.reshape(-1)
    )
    return dx.reshape(x.shape)


@operation()
def leaky_relu(x: ArrayLike, slope: float = 0.01, *, engine: str | None = None) -> Array:
    """x where it is above 0, and ``slope * x`` elsewhere. NaN stays NaN.

    Args:
        x: numbers, any shape.
        slope: the factor of numbers that are not above 0, a finite number. Default 0.01.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.leaky_relu(np.array([-2.0, 0.0, 2.0]), 0.5)
        array([-1.,  0.,  2.])
    """
    (x,) = floats(x=x)
    value = finite_number("slope", slope)
    y: Array = registry.choose("leaky_relu", x.shape, x.dtype, engine)(x.reshape(-1), value)
    return y.reshape(x.shape)


@operation()
def leaky_relu_backward(
    dy: ArrayLike, x: ArrayLike, slope: float = 0.01, *, engine: str | None = None
) -> Array:
    """Gradient of :func:`leaky_relu`: dy where x is above 0, and ``slope * dy`` elsewhere.

    Args:
        dy: gradient of the output, the shape of x.
        x: numbers, any shape.
        slope: the factor of numbers that are not above 0, a finite number. Default 0.01.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.leaky_relu_backward(np.array([5.0, 5.0]), np.array([-1.0, 2.0]), 0.5)
        array([2.5, 5. ])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    value = finite_number("slope", slope)
    function = registry.choose("leaky_relu_backward", x.shape, x.dtype, engine)
    dx: Array = function(dy.reshape(-1), x.reshape(-1), value)
    return dx.reshape(x.shape)


@operation()
def tanh(x: ArrayLike, *, engine: str | None = None) -> Array:
    """Hyperbolic tangent, element by element.

    Args:
        x: numbers, any shape.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.tanh(np.array([-1000.0, 0.0]))
        array([-1.,  0.])
    """
    (x,) = floats(x=x)
    y: Array = registry.choose("tanh", x.shape, x.dtype, engine)(x.reshape(-1))
    return y.reshape(x.shape)


@operation()
def tanh_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`tanh`: ``dy / cosh(x)²``.

    Args:
        dy: gradient of the output, the shape of x.
        x: numbers, any shape.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.tanh_backward(np.array([5.0, 5.0]), np.array([0.0, 1000.0]))
        array([5., 0.])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    dx: Array = registry.choose("tanh_backward", x.shape, x.dtype, engine)(
        dy.reshape(-1), x.reshape(-1)
    )
    return dx.reshape(x.shape)


@operation()
def sigmoid(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``1 / (1 + exp(-x))``, element by element.

    Args:
        x: numbers, any shape.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
        array([0. , 0.5, 1. ])
    """
    (x,) = floats(x=x)
    y: Array = registry.choose("sigmoid", x.shape, x.dtype, engine)(x.reshape(-1))
    return y.reshape(x.shape)


@operation()
def sigmoid_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`sigmoid`: ``dy * s * (1 - s)`` with ``s = sigmoid(x)``.

    Args:
        dy: gradient of the output, the shape of x.
        x: numbers, any shape.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.sigmoid_backward(np.array([4.0, 4.0]), np.array([0.0, 1000.0]))
        array([1., 0.])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    dx: Array = registry.choose("sigmoid_backward", x.shape, x.dtype, engine)(
        dy.reshape(-1), x.reshape(-1)
    )
    return dx.reshape(x.shape)


@operation()
def softmax(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``exp(x) / Σ exp(x)`` over the last axis.

    The maximum is subtracted from x first, so that nothing overflows.

    Args:
        x: scores, any shape of at least one axis. The classes are the last axis, (..., C).

    Returns:
        y, the shape and dtype of x. Each row sums to 1.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.softmax(np.array([[1000.0, 1000.0]]))
        array([[0.5, 0.5]])
    """
    x, rows = _rows(x)
    y: Array = registry.choose("softmax", rows.shape, x.dtype, engine)(rows)
    return y.reshape(x.shape)


@operation()
def softmax_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`softmax`.

    Args:
        dy: gradient of the output, the shape of x.
        x: scores, any shape of at least one axis. The classes are the last axis, (..., C).

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.softmax_backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
        array([ 0.25, -0.25])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    x, rows = _rows(x)
    dx: Array = registry.choose("softmax_backward", rows.shape, x.dtype, engine)(
        dy.reshape(rows.shape), rows
    )
    return dx.reshape(x.shape)


@operation()
def log_softmax(x: ArrayLike, *, engine: str | None = None) -> Array:
    """Logarithm of :func:`softmax`.

    It is computed without the probabilities, because these may be too small for the dtype.

    Args:
        x: scores, any shape of at least one axis. The classes are the last axis, (..., C).

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.log_softmax(np.array([0.0, -2000.0]))
        array([    0., -2000.])
    """
    x, rows = _rows(x)
    y: Array = registry.choose("log_softmax", rows.shape, x.dtype, engine)(rows)
    return y.reshape(x.shape)


@operation()
def log_softmax_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`log_softmax`.

    Args:
        dy: gradient of the output, the shape of x.
        x: scores, any shape of at least one axis. The classes are the last axis, (..., C).

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.log_softmax_backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
        array([ 0.5, -0.5])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    x, rows = _rows(x)
    dx: Array = registry.choose("log_softmax_backward", rows.shape, x.dtype, engine)(
        dy.reshape(rows.shape), rows
    )
    return dx.reshape(x.shape)


def _rows(x: ArrayLike) -> tuple[Array, Array]:
    (array,) = floats(x=x)
    if array.ndim < 1 or array.shape[-1] < 1:
        raise ValueError(f"x must have at least one class on its last axis, got {array.shape}")
    return array, array.reshape(-1, array.shape[-1])
