"""Activations element by element, softmax and its logarithm, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, shaped
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import truth
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.checks import finite_number
from fastcnn.ops.declaration import operation

_NUMBERS = """
x: numbers, any shape.
top: the largest result, a finite number above 0. It is rounded to the dtype of x.
alpha: the result approaches ``-alpha`` where x is far below 0; a finite number. Default 1.
approximate: True computes ``x * (1 + tanh(√(2/π) * (x + 0.044715 * x³))) / 2`` instead,
    which differs by up to 0.0005. Default False.
"""
_LEAKY = """
slope: the factor of numbers that are not above 0, a finite number. Default 0.01.
"""
_LINE = """
slope: the factor of x, a finite number. Default 1/6.
offset: the result where x is 0, a finite number. Default 0.5.
"""
_SCORES = """
x: scores, any shape of at least one axis. The classes are the last axis, (..., C).
"""
_CHANNELS = """
x: images (N, H, W, C), samples (N, C), or any other shape with the channels last.
slope: factor of the numbers of each channel that are not above 0, (C,).
"""


@operation(_NUMBERS)
def relu(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``max(x, 0)``, element by element. NaN stays NaN.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.relu(np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 2.])
    """
    return _applied("relu", x, engine)


@operation(_NUMBERS)
def relu_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`relu`: dy where x is above 0, and 0 elsewhere.

    It is 0 also where x is 0 or NaN.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 5.])
    """
    return _gradient("relu_backward", dy, x, engine)


@operation(_LEAKY + _NUMBERS)
def leaky_relu(x: ArrayLike, slope: float = 0.01, *, engine: str | None = None) -> Array:
    """x where it is above 0, and ``slope * x`` elsewhere. NaN stays NaN.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.leaky_relu(np.array([-2.0, 0.0, 2.0]), 0.5)
        array([-1.,  0.,  2.])
    """
    return _applied("leaky_relu", x, engine, finite_number("slope", slope))


@operation(_LEAKY + _NUMBERS)
def leaky_relu_backward(
    dy: ArrayLike, x: ArrayLike, slope: float = 0.01, *, engine: str | None = None
) -> Array:
    """Gradient of :func:`leaky_relu`: dy where x is above 0, and ``slope * dy`` elsewhere.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.leaky_relu_backward(np.array([5.0, 5.0]), np.array([-1.0, 2.0]), 0.5)
        array([2.5, 5. ])
    """
    return _gradient("leaky_relu_backward", dy, x, engine, finite_number("slope", slope))


@operation(_NUMBERS)
def tanh(x: ArrayLike, *, engine: str | None = None) -> Array:
    """Hyperbolic tangent, element by element.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.tanh(np.array([-1000.0, 0.0]))
        array([-1.,  0.])
    """
    return _applied("tanh", x, engine)


@operation(_NUMBERS)
def tanh_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`tanh`: ``dy / cosh(x)²``.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.tanh_backward(np.array([5.0, 5.0]), np.array([0.0, 1000.0]))
        array([5., 0.])
    """
    return _gradient("tanh_backward", dy, x, engine)


@operation(_NUMBERS)
def sigmoid(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``1 / (1 + exp(-x))``, element by element.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
        array([0. , 0.5, 1. ])
    """
    return _applied("sigmoid", x, engine)


@operation(_NUMBERS)
def sigmoid_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`sigmoid`: ``dy * s * (1 - s)`` with ``s = sigmoid(x)``.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.sigmoid_backward(np.array([4.0, 4.0]), np.array([0.0, 1000.0]))
        array([1., 0.])
    """
    return _gradient("sigmoid_backward", dy, x, engine)


@operation(_SCORES)
def softmax(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``exp(x) / Σ exp(x)`` over the last axis.

    The maximum is subtracted from x first, so that nothing overflows.

    Returns:
        y, the shape and dtype of x. Each row sums to 1.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.softmax(np.array([[1000.0, 1000.0]]))
        array([[0.5, 0.5]])
    """
    y: Array = call(_applied_to_rows, (x,), "softmax", engine)
    return y


@operation(_SCORES)
def softmax_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`softmax`.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.softmax_backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
        array([ 0.25, -0.25])
    """
    dx: Array = call(_gradient_of_rows, (dy, x), "softmax_backward", engine)
    return dx


@operation(_SCORES)
def log_softmax(x: ArrayLike, *, engine: str | None = None) -> Array:
    """Logarithm of :func:`softmax`.

    It is computed without the probabilities, because these may be too small for the dtype.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.log_softmax(np.array([0.0, -2000.0]))
        array([    0., -2000.])
    """
    y: Array = call(_applied_to_rows, (x,), "log_softmax", engine)
    return y


@operation(_SCORES)
def log_softmax_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`log_softmax`.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.log_softmax_backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
        array([ 0.5, -0.5])
    """
    dx: Array = call(_gradient_of_rows, (dy, x), "log_softmax_backward", engine)
    return dx


@operation(_NUMBERS)
def clipped_relu(x: ArrayLike, top: float, *, engine: str | None = None) -> Array:
    """``min(max(x, 0), top)``, element by element. NaN stays NaN.

    With ``top`` 6 it is known as ReLU6.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.clipped_relu(np.array([-1.0, 2.0, 9.0]), 6)
        array([0., 2., 6.])

    Source: A. Krizhevsky, "Convolutional Deep Belief Networks on CIFAR-10", 2010.
    """
    maximum = _top(top)
    return _applied("clipped_relu", x, engine, maximum)


@operation(_NUMBERS)
def clipped_relu_backward(
    dy: ArrayLike, x: ArrayLike, top: float, *, engine: str | None = None
) -> Array:
    """Gradient of :func:`clipped_relu`: dy where x lies between 0 and ``top``, and 0 elsewhere.

    It is 0 also where x is 0, ``top`` or NaN.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.clipped_relu_backward(np.ones(4), np.array([-1.0, 2.0, 6.0, 9.0]), 6)
        array([0., 1., 0., 0.])
    """
    maximum = _top(top)
    return _gradient("clipped_relu_backward", dy, x, engine, maximum)


@operation(_NUMBERS)
def elu(x: ArrayLike, alpha: float = 1.0, *, engine: str | None = None) -> Array:
    """x where it is above 0, and ``alpha * (exp(x) - 1)`` elsewhere. NaN stays NaN.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.elu(np.array([-1000.0, 0.0, 2.0]), 0.5)
        array([-0.5,  0. ,  2. ])

    Source: D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and Accurate Deep Network Learning
    by Exponential Linear Units (ELUs)", arXiv:1511.07289.
    """
    return _applied("elu", x, engine, finite_number("alpha", alpha))


@operation(_NUMBERS)
def elu_backward(
    dy: ArrayLike, x: ArrayLike, alpha: float = 1.0, *, engine: str | None = None
) -> Array:
    """Gradient of :func:`elu`: dy where x is above 0, and ``dy * alpha * exp(x)`` elsewhere.

    Where x is 0 it is ``alpha * dy``, and NaN where x is NaN.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.elu_backward(np.ones(3), np.array([-1000.0, 0.0, 2.0]), 0.5)
        array([0. , 0.5, 1. ])
    """
    return _gradient("elu_backward", dy, x, engine, finite_number("alpha", alpha))


@operation(_LINE + _NUMBERS)
def hard_sigmoid(
    x: ArrayLike, slope: float = 1 / 6, offset: float = 0.5, *, engine: str | None = None
) -> Array:
    """``slope * x + offset``, but at least 0 and at most 1. NaN stays NaN.

    Three straight lines take the place of :func:`sigmoid`.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.hard_sigmoid(np.array([-9.0, 0.0, 1.5]))
        array([0.  , 0.5 , 0.75])

    Sources: M. Courbariaux, Y. Bengio, J.-P. David, "BinaryConnect", arXiv:1511.00363; the slope of
    1/6: A. Howard et al., "Searching for MobileNetV3", arXiv:1905.02244.
    """
    return _applied("hard_sigmoid", x, engine, *_line(slope, offset))


@operation(_LINE + _NUMBERS)
def hard_sigmoid_backward(
    dy: ArrayLike,
    x: ArrayLike,
    slope: float = 1 / 6,
    offset: float = 0.5,
    *,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`hard_sigmoid`: ``slope * dy`` where its line lies between 0 and 1, else 0.

    It is 0 also where ``slope * x + offset`` is 0, 1 or NaN.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.hard_sigmoid_backward(np.full(3, 6.0), np.array([-9.0, 0.0, 3.0]))
        array([0., 1., 0.])
    """
    return _gradient("hard_sigmoid_backward", dy, x, engine, *_line(slope, offset))


@operation(_NUMBERS)
def hard_swish(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``x * hard_sigmoid(x)``: 0 up to -3, x from 3 on. NaN stays NaN.

    At -∞ the result is 0, the limit.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.hard_swish(np.array([-1.5, 0.0, 3.0]))
        array([-0.375,  0.   ,  3.   ])

    Source: A. Howard et al., "Searching for MobileNetV3", arXiv:1905.02244.
    """
    return _applied("hard_swish", x, engine)


@operation(_NUMBERS)
def hard_swish_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`hard_swish`: ``dy * (x / 3 + 1/2)`` where x lies between -3 and 3.

    It is 0 where x is at most -3, dy where x is at least 3, and NaN where x is NaN.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.hard_swish_backward(np.ones(4), np.array([-3.0, -1.5, 0.0, 3.0]))
        array([0. , 0. , 0.5, 1. ])
    """
    return _gradient("hard_swish_backward", dy, x, engine)


@operation(_NUMBERS)
def swish(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``x * sigmoid(x)``, element by element; it is also called SiLU. NaN stays NaN.

    At -∞ the result is 0, the limit.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.swish(np.array([-1.0, 0.0, 1.0])).round(4)
        array([-0.2689,  0.    ,  0.7311])

    Sources: S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-Weighted Linear Units", arXiv:1702.03118;
    P. Ramachandran, B. Zoph, Q. V. Le, "Searching for Activation Functions", arXiv:1710.05941.
    """
    return _applied("swish", x, engine)


@operation(_NUMBERS)
def swish_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`swish`: ``dy * (s + x * s * (1 - s))`` with ``s = sigmoid(x)``.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.swish_backward(np.ones(3), np.array([-1000.0, 0.0, 1000.0]))
        array([0. , 0.5, 1. ])
    """
    return _gradient("swish_backward", dy, x, engine)


@operation(_NUMBERS)
def gelu(x: ArrayLike, approximate: bool = False, *, engine: str | None = None) -> Array:
    """``x * Φ(x)``, where Φ(x) is the probability that a standard normal number is at most x.

    NaN stays NaN, and at -∞ the result is 0, the limit. Where x is negative, the result keeps its
    digits, so that it is more exact than ``x * (1 + erf(x / √2)) / 2``.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.gelu(np.array([-1.0, 0.0, 9.0])).round(4)
        array([-0.1587,  0.    ,  9.    ])

    Source: D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units (GELUs)", arXiv:1606.08415.
    """
    return _applied("gelu", x, engine, truth("approximate", approximate))


@operation(_NUMBERS)
def gelu_backward(
    dy: ArrayLike, x: ArrayLike, approximate: bool = False, *, engine: str | None = None
) -> Array:
    """Gradient of :func:`gelu`: ``dy * (Φ(x) + x * φ(x))``, where φ is the slope of Φ.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.gelu_backward(np.ones(3), np.array([-1000.0, 0.0, 1000.0]))
        array([0. , 0.5, 1. ])
    """
    return _gradient("gelu_backward", dy, x, engine, truth("approximate", approximate))


@operation(_NUMBERS)
def softplus(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``log(1 + exp(x))``, element by element, without overflow. NaN stays NaN.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.softplus(np.array([-1000.0, 0.0, 1.0])).round(4)
        array([0.    , 0.6931, 1.3133])

    Source: C. Dugas et al., "Incorporating Second-Order Functional Knowledge for Better Option
    Pricing", NIPS 2000.
    """
    return _applied("softplus", x, engine)


@operation(_NUMBERS)
def softplus_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`softplus`: ``dy * sigmoid(x)``.

    Returns:
        dx, the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.softplus_backward(np.ones(3), np.array([-1000.0, 0.0, 1000.0]))
        array([0. , 0.5, 1. ])
    """
    return _gradient("softplus_backward", dy, x, engine)


@operation(_CHANNELS)
def prelu(x: ArrayLike, slope: ArrayLike, *, engine: str | None = None) -> Array:
    """x where it is above 0, and ``slope * x`` elsewhere, with a slope for each channel.

    NaN stays NaN. A net learns the slopes.

    Returns:
        y in the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.prelu(np.array([[-4.0, -4.0], [3.0, 0.0]]), np.array([0.5, 0.25]))
        array([[-2., -1.],
               [ 3.,  0.]])

    Source: K. He et al., "Delving Deep into Rectifiers", arXiv:1502.01852.
    """
    y: Array = call(_prelu, (x, slope), engine)
    return y


@binding("x", "slope")
def _prelu(x: Facts, slope: Facts, engine: str | None) -> Callable[..., Any]:
    shape, rows = x.shape, _channel_rows(x, slope)
    bound = registry.bind("prelu", rows, x.dtype, how=(engine,))
    return lambda x, slope: bound(x.reshape(rows), slope).reshape(shape)


@operation(_CHANNELS)
def prelu_backward(
    dy: ArrayLike, x: ArrayLike, slope: ArrayLike, *, engine: str | None = None
) -> tuple[Array, Array]:
    """All gradients of :func:`prelu`.

    The gradient of x is dy where x is above 0, and ``slope * dy`` elsewhere, also where x is 0 or
    NaN. The gradient of a slope is the sum of ``dy * x`` over the numbers of its channel that are
    not above 0.

    Returns:
        dx in the shape of x and dslope (C,), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy, x = np.ones((2, 2)), np.array([[-4.0, -4.0], [3.0, -1.0]])
        >>> fastcnn.prelu_backward(dy, x, np.array([0.5, 0.25]))
        (array([[0.5 , 0.25],
               [1.  , 0.25]]), array([-4., -5.]))
    """
    dx, dslope = call(_prelu_backward, (dy, x, slope), engine)
    return dx, dslope


@binding("dy", "x", "slope")
def _prelu_backward(dy: Facts, x: Facts, slope: Facts, engine: str | None) -> Callable[..., Any]:
    shaped("dy", dy, x.shape, "the shape of x")
    shape, rows = x.shape, _channel_rows(x, slope)
    bound = registry.bind("prelu_backward", rows, x.dtype, how=(engine,))

    def backward(dy: Array, x: Array, slope: Array) -> tuple[Array, Array]:
        dx, dslope = bound(dy.reshape(rows), x.reshape(rows), slope)
        return dx.reshape(shape), dslope

    return backward


def _applied(op: str, x: ArrayLike, engine: str | None, *values: float) -> Array:
    """An operation on each number."""
    y: Array = call(_function, (x,), op, engine, *values)
    return y


@binding("x")
def _function(x: Facts, op: str, engine: str | None, *values: float) -> Callable[..., Any]:
    shape = x.shape
    bound = registry.bind(op, shape, x.dtype, *values, how=(engine,))
    if len(shape) == 1:
        return bound
    return lambda x: bound(x.ravel()).reshape(shape)


def _gradient(op: str, dy: ArrayLike, x: ArrayLike, engine: str | None, *values: float) -> Array:
    """The gradient of an operation on each number."""
    dx: Array = call(_function_backward, (dy, x), op, engine, *values)
    return dx


@binding("dy", "x")
def _function_backward(
    dy: Facts, x: Facts, op: str, engine: str | None, *values: float
) -> Callable[..., Any]:
    shape = x.shape
    shaped("dy", dy, shape, "the shape of x")
    bound = registry.bind(op, shape, x.dtype, *values, how=(engine,))
    if len(shape) == 1:
        return bound
    return lambda dy, x: bound(dy.ravel(), x.ravel()).reshape(shape)


def _top(value: object) -> float:
    top = finite_number("top", value)
    if top <= 0:
        raise ValueError(f"top must be above 0, got {quoted(value)}")
    return top


def _line(slope: object, offset: object) -> tuple[float, float]:
    return finite_number("slope", slope), finite_number("offset", offset)


def _channel_rows(x: Facts, slope: Facts) -> tuple[int, int]:
    """The shape of x as pixels or samples × channels; ``slope`` has a number for each channel."""
    if x.ndim < 2 or x.shape[-1] < 1:
        raise ValueError(f"x must have the shape (N, …, C), C at least 1, got {x.shape}")
    shaped("slope", slope, x.shape[-1:], "one number per channel")
    return prod(x.shape[:-1]), x.shape[-1]


@binding("x")
def _applied_to_rows(x: Facts, op: str, engine: str | None) -> Callable[..., Any]:
    """An operation that takes each row by itself."""
    shape, rows = x.shape, _rows(x)
    bound = registry.bind(op, rows, x.dtype, how=(engine,))
    return bound if shape == rows else lambda x: bound(x.reshape(rows)).reshape(shape)


@binding("dy", "x")
def _gradient_of_rows(dy: Facts, x: Facts, op: str, engine: str | None) -> Callable[..., Any]:
    """The gradient of an operation that takes each row by itself."""
    shape = x.shape
    shaped("dy", dy, shape, "the shape of x")
    rows = _rows(x)
    bound = registry.bind(op, rows, x.dtype, how=(engine,))
    return lambda dy, x: bound(dy.reshape(rows), x.reshape(rows)).reshape(shape)


def _rows(x: Facts) -> tuple[int, int]:
    """The shape of x as rows of classes."""
    if x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(f"x must have at least one class on its last axis, got {x.shape}")
    return prod(x.shape[:-1]), x.shape[-1]
