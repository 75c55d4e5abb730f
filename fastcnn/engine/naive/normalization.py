"""Normalisation: numbers with mean 0 and variance 1, then scaled; and by the channels around each.

Batch normalisation averages each channel over the rows, which are the pixels of all images, or the
samples. Layer normalisation averages each row alone. Group normalisation averages the pixels of an
image over some of its channels. So the last two do not depend on the batch. Local response
normalisation has no mean: it divides each number by a measure of the channels around it.

Sources: S. Ioffe, C. Szegedy, "Batch Normalization", arXiv:1502.03167; J. Ba, J. Kiros, G. Hinton,
"Layer Normalization", arXiv:1607.06450; Y. Wu, K. He, "Group Normalization", arXiv:1803.08494; A.
Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks", 2012, section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastcnn.core.arguments import Array


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """y = gamma · (x − mean) / √(variance + epsilon) + beta, and the mean and variance.

    x (R, C), gamma and beta (C,) to y (R, C), mean (C,) and variance (C,). The variance is the mean
    square distance from the mean. Without rows, mean and variance are 0.

    >>> batch_norm(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1), 0.0)
    (array([[-1.],
           [ 1.]]), array([2.]), array([1.]))
    """
    rows = x.astype(np.float64)
    count = max(len(rows), 1)
    mean = np.sum(rows, axis=0) / count
    variance = np.sum((rows - mean) ** 2, axis=0) / count
    y = gamma * ((rows - mean) / np.sqrt(variance + epsilon)) + beta
    return y.astype(x.dtype), mean.astype(x.dtype), variance.astype(x.dtype)


def batch_norm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    """The same with the caller's mean and variance: (R, C) to (R, C)."""
    deviation = np.sqrt(variance.astype(np.float64) + epsilon)
    y: Array = gamma * ((x.astype(np.float64) - mean) / deviation) + beta
    return y.astype(x.dtype)


def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Gradients dx (R, C), dgamma (C,), dbeta (C,), for the mean and variance of the rows of x.

    With n = (x − mean) / √(variance + epsilon): dbeta = Σ dy, dgamma = Σ dy · n, and
    dx = gamma / √(variance + epsilon) · (dy − (dbeta + n · dgamma) / R), because mean and variance
    also depend on x.
    """
    deviation = np.sqrt(variance.astype(np.float64) + epsilon)
    normal = (x.astype(np.float64) - mean) / deviation
    gradients = dy.astype(np.float64)
    dbeta = np.sum(gradients, axis=0)
    dgamma = np.sum(gradients * normal, axis=0)
    dx = gamma / deviation * (gradients - (dbeta + normal * dgamma) / max(len(x), 1))
    return dx.astype(dy.dtype), dgamma.astype(dy.dtype), dbeta.astype(dy.dtype)


def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """y = gamma · (x − mean) / √(variance + epsilon) + beta, with mean and variance of each row.

    x (R, F), gamma and beta (F,) to y (R, F).

    >>> layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), 0.0)
    array([[-1.,  1.]])
    """
    y = np.zeros(x.shape)
    for r, row in enumerate(x.astype(np.float64)):
        normal, _ = _normal(row, epsilon)
        y[r] = gamma * normal + beta
    return y.astype(x.dtype)


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Gradients dx (R, F), dgamma (F,), dbeta (F,).

    With n = (x − mean) / √(variance + epsilon): dbeta = Σ dy and dgamma = Σ dy · n over the rows.
    """
    dx, dgamma, dbeta = np.zeros(x.shape), np.zeros(gamma.shape), np.zeros(gamma.shape)
    for r, (row, gradient) in enumerate(
        zip(x.astype(np.float64), dy.astype(np.float64), strict=True)
    ):
        normal, deviation = _normal(row, epsilon)
        dx[r] = _gradient(gamma * gradient, normal, deviation)
        dgamma += gradient * normal
        dbeta += gradient
    return dx.astype(dy.dtype), dgamma.astype(dy.dtype), dbeta.astype(dy.dtype)


def group_norm(x: Array, groups: int, gamma: Array, beta: Array, epsilon: float) -> Array:
    """The same with mean and variance of each image and group, over pixels and channels.

    x (N, P, C), gamma and beta (C,) to y (N, P, C). A group has C / groups neighbouring channels.

    >>> group_norm(np.array([[[1.0, 10.0], [3.0, 30.0]]]), 2, np.ones(2), np.zeros(2), 0.0)
    array([[[-1., -1.],
            [ 1.,  1.]]])
    """
    y = np.zeros(x.shape)
    for n, image in enumerate(x.astype(np.float64)):
        for channels in _iterate_channels(x.shape[2], groups):
            normal, _ = _normal(image[:, channels], epsilon)
            y[n][:, channels] = gamma[channels] * normal + beta[channels]
    return y.astype(x.dtype)


def group_norm_backward(
    dy: Array, x: Array, groups: int, gamma: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Gradients dx (N, P, C), dgamma (C,), dbeta (C,).

    With n as above: dbeta = Σ dy and dgamma = Σ dy · n over images and pixels.
    """
    dx, dgamma, dbeta = np.zeros(x.shape), np.zeros(gamma.shape), np.zeros(gamma.shape)
    images, gradients = x.astype(np.float64), dy.astype(np.float64)
    for n in range(len(x)):
        for channels in _iterate_channels(x.shape[2], groups):
            gradient = gradients[n][:, channels]
            normal, deviation = _normal(images[n][:, channels], epsilon)
            dx[n][:, channels] = _gradient(gamma[channels] * gradient, normal, deviation)
            dgamma[channels] += np.sum(gradient * normal, axis=0)
            dbeta[channels] += np.sum(gradient, axis=0)
    return dx.astype(dy.dtype), dgamma.astype(dy.dtype), dbeta.astype(dy.dtype)


def local_response_norm(x: Array, size: int, alpha: float, beta: float, bias: float) -> Array:
    """y = x / (bias + alpha / size · Σ x²)^beta, summed over ``size`` channels around each channel.

    x (R, C) to y (R, C). The window of an even size has one channel more after its own than before
    it. Channels that are not there count as 0.

    >>> local_response_norm(np.array([[1.0, 2.0, 3.0]]), 3, 3.0, 1.0, 1.0)
    array([[0.16666667, 0.13333333, 0.21428571]])
    """
    y = np.zeros(x.shape)
    for r, row in enumerate(x.astype(np.float64)):
        for c, window in _iterate_neighbours(x.shape[1], size):
            base = bias + alpha / size * np.sum(row[window] ** 2)
            y[r, c] = row[c] / base**beta
    return y.astype(x.dtype)


def local_response_norm_backward(
    dy: Array, x: Array, size: int, alpha: float, beta: float, bias: float
) -> Array:
    """Gradient dx (R, C).

    The number of a channel is divided by base^beta, and it also adds to the bases of all channels
    in whose windows it lies. A base has the gradient −beta · dy · x / base^(beta + 1), and the
    slope 2 · alpha / size · x by each number of its window.
    """
    dx = np.zeros(x.shape)
    for r, (row, gradient) in enumerate(
        zip(x.astype(np.float64), dy.astype(np.float64), strict=True)
    ):
        for c, window in _iterate_neighbours(x.shape[1], size):
            base = bias + alpha / size * np.sum(row[window] ** 2)
            dx[r, c] += gradient[c] / base**beta
            of_base = -beta * gradient[c] * row[c] / base ** (beta + 1)
            dx[r, window] += of_base * 2 * alpha / size * row[window]
    return dx.astype(dy.dtype)


def _normal(numbers: Array, epsilon: float) -> tuple[Array, float]:
    """The numbers with mean 0 and variance 1, and √(variance + epsilon)."""
    mean = np.sum(numbers) / max(numbers.size, 1)
    variance = np.sum((numbers - mean) ** 2) / max(numbers.size, 1)
    deviation = np.sqrt(variance + epsilon)
    return (numbers - mean) / deviation, deviation


def _gradient(gradient: Array, normal: Array, deviation: float) -> Array:
    """The gradient by the numbers of :func:`_normal`, from the one by its first result.

    Mean and variance depend on all numbers. So a share of the sum of the gradients, and a share of
    their product with the result, comes back to each number.
    """
    count = max(gradient.size, 1)
    shares = (np.sum(gradient) + normal * np.sum(gradient * normal)) / count
    result: Array = (gradient - shares) / deviation
    return result


def _iterate_channels(channels: int, groups: int) -> Iterator[slice]:
    """Yield the channels of each group.

    >>> list(_iterate_channels(6, 2))
    [slice(0, 3, None), slice(3, 6, None)]
    """
    width = channels // groups
    for group in range(groups):
        yield slice(group * width, (group + 1) * width)


def _iterate_neighbours(channels: int, size: int) -> Iterator[tuple[int, slice]]:
    """Yield each channel and its window of ``size`` channels, as far as they are there.

    >>> list(_iterate_neighbours(3, 2))
    [(0, slice(0, 2, None)), (1, slice(1, 3, None)), (2, slice(2, 3, None))]
    """
    before = (size - 1) // 2
    for c in range(channels):
        yield c, slice(max(c - before, 0), min(c - before + size, channels))
