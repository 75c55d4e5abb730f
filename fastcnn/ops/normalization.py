"""Normalisation over the batch, over a row, over groups of channels, and by the channels around."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, shaped
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.checks import finite_number
from fastcnn.ops.declaration import operation

_CHANNELS = """
gamma: scale of each channel, (C,).
beta: offset of each channel, (C,).
mean: mean of each channel, (C,).
variance: variance of each channel, (C,).
epsilon: is added to the variance, so that the quotient is finite; at least 0. Default 0.001.
"""


@operation(_CHANNELS)
def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike,
    beta: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> tuple[Array, Array, Array]:
    """Batch normalisation in training: ``gamma * (x - mean) / √(variance + epsilon) + beta``.

    Each channel has its own mean and variance, over all other axes. The variance is the mean of the
    squared distances from the mean. Both are summed in float64.

    Args:
        x: images (N, H, W, C), samples (N, C), or any other shape with the channels last. One value
            for each channel is a ``ValueError``, because one value has no variance.

    Returns:
        y in the shape of x, mean (C,) and variance (C,), of the common dtype of the arrays. An
        empty batch has mean and variance 0.

    Example:
        >>> import numpy as np, fastcnn
        >>> y, mean, variance = fastcnn.batch_norm(
        ...     np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1), 0.0)
        >>> y[:, 0], mean, variance
        (array([-1.,  1.]), array([2.]), array([1.]))

    Source: S. Ioffe, C. Szegedy, "Batch Normalization", arXiv:1502.03167.
    """
    y, mean, variance = call(_batch_norm, (x, gamma, beta), epsilon, engine)
    return y, mean, variance


@binding("x", "gamma", "beta")
def _batch_norm(
    x: Facts, gamma: Facts, beta: Facts, epsilon: float, engine: str | None
) -> Callable[..., Any]:
    shape, rows = x.shape, _several(x, _channel_rows(x, gamma=gamma, beta=beta))
    bound = registry.bind("batch_norm", rows, x.dtype, _epsilon(epsilon), how=(engine,))

    def normalized(x: Array, gamma: Array, beta: Array) -> tuple[Array, Array, Array]:
        y, mean, variance = bound(x.reshape(rows), gamma, beta)
        return y.reshape(shape), mean, variance

    return normalized


@operation(_CHANNELS)
def batch_norm_inference(
    x: ArrayLike,
    gamma: ArrayLike,
    beta: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> Array:
    """Batch normalisation with the caller's mean and variance, such as running ones.

    Args:
        x: images (N, H, W, C), samples (N, C), or any other shape with the channels last.

    Returns:
        y in the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.batch_norm_inference(
        ...     np.array([[5.0]]), np.ones(1), np.ones(1), np.array([1.0]), np.array([4.0]), 0.0)
        array([[3.]])
    """
    y: Array = call(_with_moments, (x, gamma, beta, mean, variance), epsilon, engine)
    return y


@binding("x", "gamma", "beta", "mean", "variance")
def _with_moments(
    x: Facts,
    gamma: Facts,
    beta: Facts,
    mean: Facts,
    variance: Facts,
    epsilon: float,
    engine: str | None,
) -> Callable[..., Any]:
    shape = x.shape
    rows = _channel_rows(x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    bound = registry.bind("batch_norm_inference", rows, x.dtype, _epsilon(epsilon), how=(engine,))
    return lambda x, *channels: bound(x.reshape(rows), *channels).reshape(shape)


@operation(_CHANNELS)
def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> tuple[Array, Array, Array]:
    """All gradients of :func:`batch_norm`.

    Args:
        x: images (N, H, W, C), samples (N, C), or any other shape with the channels last. One value
            for each channel is a ``ValueError``, because one value has no variance.
        mean, variance: the results of :func:`batch_norm` for each channel, (C,).

    Returns:
        dx in the shape of x, dgamma (C,) and dbeta (C,), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy, x = np.array([[2.0], [4.0]]), np.array([[1.0], [3.0]])
        >>> fastcnn.batch_norm_backward(dy, x, np.ones(1), np.array([2.0]), np.ones(1), 0.0)
        (array([[0.],
               [0.]]), array([2.]), array([6.]))
    """
    arrays = dy, x, gamma, mean, variance
    dx, dgamma, dbeta = call(_batch_norm_backward, arrays, epsilon, engine)
    return dx, dgamma, dbeta


@binding("dy", "x", "gamma", "mean", "variance")
def _batch_norm_backward(
    dy: Facts,
    x: Facts,
    gamma: Facts,
    mean: Facts,
    variance: Facts,
    epsilon: float,
    engine: str | None,
) -> Callable[..., Any]:
    shape = x.shape
    shaped("dy", dy, shape, "the shape of x")
    rows = _several(x, _channel_rows(x, gamma=gamma, mean=mean, variance=variance))
    bound = registry.bind("batch_norm_backward", rows, x.dtype, _epsilon(epsilon), how=(engine,))

    def backward(dy: Array, x: Array, *channels: Array) -> tuple[Array, Array, Array]:
        dx, dgamma, dbeta = bound(dy.reshape(rows), x.reshape(rows), *channels)
        return dx.reshape(shape), dgamma, dbeta

    return backward


_ROWS = """
x: rows of any shape: gamma has the shape of the last axes of x, and each index of the axes
    before these is a row.
gamma: scale of each number of a row, such as (C,) for x (N, H, W, C), or (H, W, C).
beta: offset of each number of a row, in the shape of gamma.
epsilon: is added to the variance, so that the quotient is finite; at least 0. Default 0.001.
"""


@operation(_ROWS)
def layer_norm(
    x: ArrayLike,
    gamma: ArrayLike,
    beta: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> Array:
    """Layer normalisation: ``gamma * (x - mean) / √(variance + epsilon) + beta``.

    Each row has its own mean and variance, so a sample does not depend on its batch. The variance
    is the mean of the squared distances from the mean.

    Returns:
        y in the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), 0.0)
        array([[-1.,  1.]])

    Source: J. Ba, J. Kiros, G. Hinton, "Layer Normalization", arXiv:1607.06450.
    """
    y: Array = call(_layer_norm, (x, gamma, beta), epsilon, engine)
    return y


@binding("x", "gamma", "beta")
def _layer_norm(
    x: Facts, gamma: Facts, beta: Facts, epsilon: float, engine: str | None
) -> Callable[..., Any]:
    shape, rows = x.shape, _rows(x, gamma)
    shaped("beta", beta, gamma.shape, "the shape of gamma")
    bound = registry.bind("layer_norm", rows, x.dtype, _epsilon(epsilon), how=(engine,))

    def normalized(x: Array, gamma: Array, beta: Array) -> Array:
        y: Array = bound(x.reshape(rows), gamma.reshape(-1), beta.reshape(-1)).reshape(shape)
        return y

    return normalized


@operation(_ROWS)
def layer_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> tuple[Array, Array, Array]:
    """All gradients of :func:`layer_norm`.

    Returns:
        dx in the shape of x, dgamma and dbeta in the shape of gamma, of the common dtype of the
        arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy, x = np.array([[2.0, 4.0]]), np.array([[1.0, 3.0]])
        >>> fastcnn.layer_norm_backward(dy, x, np.ones(2), 0.0)
        (array([[0., 0.]]), array([-2.,  4.]), array([2., 4.]))
    """
    dx, dgamma, dbeta = call(_layer_norm_backward, (dy, x, gamma), epsilon, engine)
    return dx, dgamma, dbeta


@binding("dy", "x", "gamma")
def _layer_norm_backward(
    dy: Facts, x: Facts, gamma: Facts, epsilon: float, engine: str | None
) -> Callable[..., Any]:
    shape, features, rows = x.shape, gamma.shape, _rows(x, gamma)
    shaped("dy", dy, shape, "the shape of x")
    bound = registry.bind("layer_norm_backward", rows, x.dtype, _epsilon(epsilon), how=(engine,))

    def backward(dy: Array, x: Array, gamma: Array) -> tuple[Array, Array, Array]:
        dx, dgamma, dbeta = bound(dy.reshape(rows), x.reshape(rows), gamma.reshape(-1))
        return dx.reshape(shape), dgamma.reshape(features), dbeta.reshape(features)

    return backward


_GROUPS = """
x: images (N, H, W, C), samples (N, C), or any other shape with the batch first and the channels
    last.
groups: groups of neighbouring channels; a number that divides C. 1 is one group of all
    channels, and C groups are one for each channel, which is instance normalisation.
"""


@operation(_GROUPS + _CHANNELS)
def group_norm(
    x: ArrayLike,
    groups: int,
    gamma: ArrayLike,
    beta: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> Array:
    """Group normalisation: ``gamma * (x - mean) / √(variance + epsilon) + beta``.

    Each group of channels of each sample has its own mean and variance, over its channels and all
    pixels, so a sample does not depend on its batch. The variance is the mean of the squared
    distances from the mean.

    Returns:
        y in the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.array([[[1.0, 10.0], [3.0, 30.0]]])
        >>> fastcnn.group_norm(x, 2, np.ones(2), np.zeros(2), 0.0)
        array([[[-1., -1.],
                [ 1.,  1.]]])

    Source: Y. Wu, K. He, "Group Normalization", arXiv:1803.08494.
    """
    y: Array = call(_group_norm, (x, gamma, beta), groups, epsilon, engine)
    return y


@binding("x", "gamma", "beta")
def _group_norm(
    x: Facts, gamma: Facts, beta: Facts, groups: object, epsilon: float, engine: str | None
) -> Callable[..., Any]:
    _channel_rows(x, gamma=gamma, beta=beta)
    parts, shape, images = _groups(groups, x), x.shape, _images(x)
    small = _epsilon(epsilon)
    function = registry.choose("group_norm", images, x.dtype, engine)

    def normalized(x: Array, gamma: Array, beta: Array) -> Array:
        y: Array = function(x.reshape(images), parts, gamma, beta, small).reshape(shape)
        return y

    return normalized


@operation(_GROUPS + _CHANNELS)
def group_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    groups: int,
    gamma: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> tuple[Array, Array, Array]:
    """All gradients of :func:`group_norm`.

    Returns:
        dx in the shape of x, dgamma (C,) and dbeta (C,), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy, x = np.array([[[2.0], [4.0]]]), np.array([[[1.0], [3.0]]])
        >>> fastcnn.group_norm_backward(dy, x, 1, np.ones(1), 0.0)
        (array([[[0.],
                [0.]]]), array([2.]), array([6.]))
    """
    dx, dgamma, dbeta = call(_group_norm_backward, (dy, x, gamma), groups, epsilon, engine)
    return dx, dgamma, dbeta


@binding("dy", "x", "gamma")
def _group_norm_backward(
    dy: Facts, x: Facts, gamma: Facts, groups: object, epsilon: float, engine: str | None
) -> Callable[..., Any]:
    shape = x.shape
    shaped("dy", dy, shape, "the shape of x")
    _channel_rows(x, gamma=gamma)
    parts, images, small = _groups(groups, x), _images(x), _epsilon(epsilon)
    function = registry.choose("group_norm_backward", images, x.dtype, engine)

    def backward(dy: Array, x: Array, gamma: Array) -> tuple[Array, Array, Array]:
        operands = dy.reshape(images), x.reshape(images), parts, gamma, small
        dx, dgamma, dbeta = function(*operands)
        return dx.reshape(shape), dgamma, dbeta

    return backward


_RESPONSE = """
x: images (N, H, W, C), or any other shape with the channels last.
size: channels of a window, at least 1. A window of an even size has one channel more after
    its own than before it. Default 5.
alpha: the weight of the mean of the squares, at least 0. Default 0.0001.
beta: the exponent. Default 0.75.
bias: is added to the weighted mean, at least 0. With 0, a number is NaN where all numbers of
    its window are 0. Default 1.
"""


@operation(_RESPONSE)
def local_response_norm(
    x: ArrayLike,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    bias: float = 1.0,
    *,
    engine: str | None = None,
) -> Array:
    """Local response normalisation: ``x / (bias + alpha / size * Σ x²) ** beta``.

    The sum goes over a window of channels around each number's own, at the same pixel. Channels
    beyond the first and the last count as 0, and the divisor stays ``size``.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.local_response_norm(np.array([[1.0, 2.0, 2.0]]), 3, 3.0, 1.0, 1.0)
        array([[0.16666667, 0.2       , 0.22222222]])

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional
    Neural Networks", 2012, section 3.3, where the sum is not divided by ``size``.
    """
    y: Array = call(_response_norm, (x,), size, alpha, beta, bias, engine)
    return y


@binding("x")
def _response_norm(
    x: Facts, size: object, alpha: object, beta: object, bias: object, engine: str | None
) -> Callable[..., Any]:
    shape, rows, parameters = x.shape, _pixel_rows(x), _response(size, alpha, beta, bias)
    bound = registry.bind("local_response_norm", rows, x.dtype, *parameters, how=(engine,))
    return lambda x: bound(x.reshape(rows)).reshape(shape)


@operation(_RESPONSE)
def local_response_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    bias: float = 1.0,
    *,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`local_response_norm`.

    Returns:
        dx in the shape of x, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy, x = np.array([[9.0, 0.0]]), np.array([[1.0, 2.0]])
        >>> fastcnn.local_response_norm_backward(dy, x, 1, 2.0, 1.0, 1.0)
        array([[-1.,  0.]])
    """
    dx: Array = call(_response_norm_backward, (dy, x), size, alpha, beta, bias, engine)
    return dx


@binding("dy", "x")
def _response_norm_backward(
    dy: Facts,
    x: Facts,
    size: object,
    alpha: object,
    beta: object,
    bias: object,
    engine: str | None,
) -> Callable[..., Any]:
    shape = x.shape
    shaped("dy", dy, shape, "the shape of x")
    rows, parameters = _pixel_rows(x), _response(size, alpha, beta, bias)
    op, how = "local_response_norm_backward", (engine,)
    bound = registry.bind(op, rows, x.dtype, *parameters, how=how)
    return lambda dy, x: bound(dy.reshape(rows), x.reshape(rows)).reshape(shape)


def _rows(x: Facts, gamma: Facts) -> tuple[int, int]:
    """x (…, features) as rows of as many numbers as gamma has."""
    axes = gamma.ndim
    if not 0 < axes < x.ndim or gamma.shape != x.shape[x.ndim - axes :] or not prod(gamma.shape):
        raise ValueError(
            f"gamma must have the shape of the last axes of x, which has at least one axis more, "
            f"and hold at least one number, got {gamma.shape} for x {x.shape}"
        )
    return prod(x.shape[: x.ndim - axes]), prod(gamma.shape)


def _images(x: Facts) -> tuple[int, int, int]:
    """The shape of x as samples × pixels × channels."""
    return x.shape[0], prod(x.shape[1:-1]), x.shape[-1]


def _groups(value: object, x: Facts) -> int:
    groups = count("groups", value)
    if x.shape[-1] % groups:
        raise ValueError(
            f"groups must divide the channels of x, got {quoted(value)} for {x.shape[-1]}"
        )
    return groups


def _pixel_rows(x: Facts) -> tuple[int, int]:
    if x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(f"x must have the shape (…, C), C at least 1, got {x.shape}")
    return prod(x.shape[:-1]), x.shape[-1]


def _response(
    size: object, alpha: object, beta: object, bias: object
) -> tuple[int, float, float, float]:
    """The parameters of a local response normalisation, checked."""
    window, weight = count("size", size), finite_number("alpha", alpha)
    base = finite_number("bias", bias)
    for name, number, value in (("alpha", weight, alpha), ("bias", base, bias)):
        if number < 0:
            raise ValueError(f"{name} must be at least 0, got {quoted(value)}")
    return window, weight, finite_number("beta", beta), base


def _several(x: Facts, rows: tuple[int, int]) -> tuple[int, int]:
    """``rows``; ``ValueError`` if there is exactly one."""
    if rows[0] == 1:
        raise ValueError(
            f"x must hold more than one value for each channel, because one value has no variance, "
            f"got the shape {x.shape}; use a larger batch, or batch_norm_inference with running "
            f"statistics"
        )
    return rows


def _epsilon(value: object) -> float:
    epsilon = finite_number("epsilon", value)
    if epsilon < 0:
        raise ValueError(f"epsilon must be at least 0, got {quoted(value)}")
    return epsilon


def _channel_rows(x: Facts, **channels: Facts) -> tuple[int, int]:
    if x.ndim < 2 or x.shape[-1] < 1:
        raise ValueError(f"x must have the shape (N, …, C), C at least 1, got {x.shape}")
    for name, array in channels.items():
        shaped(name, array, x.shape[-1:], "one number per channel")
    return prod(x.shape[:-1]), x.shape[-1]
