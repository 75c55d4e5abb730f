"""Batch normalisation in training and in inference, and its gradients."""

from __future__ import annotations

from math import prod

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, floats, shaped
from fastcnn.core.quoting import quoted
from fastcnn.engine import registry
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
    x, gamma, beta = floats(x=x, gamma=gamma, beta=beta)
    rows = _several(x, _channel_rows(x, gamma=gamma, beta=beta))
    small = _epsilon(epsilon)
    function = registry.choose("batch_norm", rows.shape, x.dtype, engine)
    y, mean, variance = function(rows, gamma, beta, small)
    return y.reshape(x.shape), mean, variance


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
    x, gamma, beta, mean, variance = floats(
        x=x, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    rows = _channel_rows(x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    small = _epsilon(epsilon)
    function = registry.choose("batch_norm_inference", rows.shape, x.dtype, engine)
    y: Array = function(rows, gamma, beta, mean, variance, small)
    return y.reshape(x.shape)


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
        dy: gradient of the output, the shape of x.
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
    dy, x, gamma, mean, variance = floats(dy=dy, x=x, gamma=gamma, mean=mean, variance=variance)
    shaped("dy", dy, x.shape, "the shape of x")
    rows = _several(x, _channel_rows(x, gamma=gamma, mean=mean, variance=variance))
    small = _epsilon(epsilon)
    function = registry.choose("batch_norm_backward", rows.shape, x.dtype, engine)
    dx, dgamma, dbeta = function(dy.reshape(rows.shape), rows, gamma, mean, variance, small)
    return dx.reshape(x.shape), dgamma, dbeta


def _several(x: Array, rows: Array) -> Array:
    """``rows``; ``ValueError`` if there is exactly one."""
    if len(rows) == 1:
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


def _channel_rows(x: Array, **channels: Array) -> Array:
    if x.ndim < 2 or x.shape[-1] < 1:
        raise ValueError(f"x must have the shape (N, …, C), C at least 1, got {x.shape}")
    for name, array in channels.items():
        shaped(name, array, x.shape[-1:], "one number per channel")
    rows: Array = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    return rows
