"""Normalisation over whole arrays, some rows at a time, with statistics in float64."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.im2col.windows import row_slices

_COPIES = 6  # copies of its rows in float64 that a step holds


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """y (R, C), and the mean and variance (C,) of the rows."""
    count = max(len(x), 1)
    mean = x.sum(axis=0, dtype=np.float64) / count
    variance = np.zeros(x.shape[1])
    for some in row_slices(x, _COPIES):
        variance += np.square(x[some] - mean).sum(axis=0)
    variance /= count
    y = _normalised(x, gamma, beta, mean, variance, epsilon)
    return y, mean.astype(x.dtype), variance.astype(x.dtype)


def batch_norm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    """y (R, C) with the caller's mean and variance."""
    statistics = mean.astype(np.float64), variance.astype(np.float64)
    return _normalised(x, gamma, beta, *statistics, epsilon)


def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """``dx`` (R, C), ``dgamma`` and ``dbeta`` (C,)."""
    centre = mean.astype(np.float64)
    inverse = 1 / np.sqrt(variance.astype(np.float64) + epsilon)
    dbeta, dgamma = dy.sum(axis=0, dtype=np.float64), np.zeros(x.shape[1])
    for some in row_slices(x, _COPIES):
        dgamma += (dy[some] * ((x[some] - centre) * inverse)).sum(axis=0)
    dx = np.empty_like(dy)
    count = max(len(x), 1)
    for some in row_slices(x, _COPIES):
        part = (x[some] - centre) * inverse
        part *= dgamma / count
        part += dbeta / count
        np.subtract(dy[some], part, out=part)
        part *= gamma * inverse
        dx[some] = part
    return dx, dgamma.astype(dy.dtype), dbeta.astype(dy.dtype)


def _normalised(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    y = np.empty_like(x)
    scale = gamma / np.sqrt(variance + epsilon)
    for some in row_slices(x, _COPIES):
        part = x[some] - mean
        part *= scale
        part += beta
        y[some] = part
    return y


def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """y (R, F), each row normalised by its own mean and variance."""
    y = np.empty_like(x)
    for some in row_slices(x, _COPIES):
        part, inverse = _centred(x[some], epsilon)
        part *= inverse
        part *= gamma
        part += beta
        y[some] = part
    return y


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """``dx`` (R, F), ``dgamma`` and ``dbeta`` (F,)."""
    dgamma, dbeta = np.zeros(gamma.shape), np.zeros(gamma.shape)
    dx = np.empty_like(dy)
    for some in row_slices(x, _COPIES):
        normal, inverse = _centred(x[some], epsilon)
        normal *= inverse
        part = dy[some].astype(np.float64)
        dgamma += np.einsum("rf,rf->f", part, normal)
        dbeta += part.sum(axis=0)
        part *= gamma
        product = np.einsum("rf,rf->r", part, normal)[:, np.newaxis]
        part -= part.mean(axis=1, keepdims=True)
        normal *= product / x.shape[1]
        part -= normal
        part *= inverse
        dx[some] = part
    return dx, dgamma.astype(dy.dtype), dbeta.astype(dy.dtype)


def _centred(rows: Array, epsilon: float) -> tuple[Array, Array]:
    """Rows less their means in float64, and 1 / √(variance + epsilon) of each (R, 1)."""
    part = rows.astype(np.float64)
    part -= part.mean(axis=1, keepdims=True)
    variance = np.einsum("rf,rf->r", part, part)[:, np.newaxis] / rows.shape[1]
    inverse: Array = 1 / np.sqrt(variance + epsilon)
    return part, inverse


def group_norm(x: Array, groups: int, gamma: Array, beta: Array, epsilon: float) -> Array:
    """y (N, P, C): an image's channels, normalised by the mean and variance of their groups."""
    y = np.empty_like(x)
    for image, out in zip(x, y, strict=True):
        mean, variance = _of_groups(image, groups)
        out[...] = _normalised(image, gamma, beta, mean, variance, epsilon)
    return y


def group_norm_backward(
    dy: Array, x: Array, groups: int, gamma: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """``dx`` (N, P, C), ``dgamma`` and ``dbeta`` (C,)."""
    dgamma, dbeta = np.zeros(gamma.shape), np.zeros(gamma.shape)
    dx = np.empty_like(dy)
    for gradient, image, out in zip(dy, x, dx, strict=True):
        mean, variance = _of_groups(image, groups)
        inverse = 1 / np.sqrt(variance + epsilon)
        sums, products = gradient.sum(axis=0, dtype=np.float64), np.zeros(gamma.shape)
        for some in row_slices(image, _COPIES):
            products += (gradient[some] * ((image[some] - mean) * inverse)).sum(axis=0)
        dgamma += products
        dbeta += sums
        count = max(len(image), 1)
        offset = _mean_of_groups(gamma * sums, groups) / count
        slope = _mean_of_groups(gamma * products, groups) / count
        for some in row_slices(image, _COPIES):
            part = (image[some] - mean) * inverse
            part *= slope
            part += offset
            np.subtract(gradient[some] * gamma.astype(np.float64), part, out=part)
            part *= inverse
            out[some] = part
    return dx, dgamma.astype(dy.dtype), dbeta.astype(dy.dtype)


def _of_groups(image: Array, groups: int) -> tuple[Array, Array]:
    """Mean and variance of the group of each channel (C,) of an image (P, C), in float64."""
    count = max(len(image), 1)
    mean = _mean_of_groups(image.sum(axis=0, dtype=np.float64), groups) / count
    squares = np.zeros(mean.shape)
    for some in row_slices(image, _COPIES):
        squares += np.square(image[some] - mean).sum(axis=0)
    return mean, _mean_of_groups(squares, groups) / count


def _mean_of_groups(channels: Array, groups: int) -> Array:
    """The mean of the group of each channel (C,)."""
    means = channels.reshape(groups, -1).mean(axis=1)
    return np.repeat(means, len(channels) // groups)


def local_response_norm(x: Array, size: int, alpha: float, beta: float, bias: float) -> Array:
    """``y = x / (bias + alpha / size · Σ x²) ** beta`` over windows of channels (R, C)."""
    y = np.empty_like(x)
    for some in row_slices(x, 2 * _COPIES):
        part = x[some].astype(np.float64)
        base = _window_sums(np.square(part), size, forwards=True)
        base *= alpha / size
        base += bias
        y[some] = part / base**beta
    return y


def local_response_norm_backward(
    dy: Array, x: Array, size: int, alpha: float, beta: float, bias: float
) -> Array:
    """``dx`` (R, C)."""
    dx = np.empty_like(dy)
    for some in row_slices(x, 2 * _COPIES):
        part = x[some].astype(np.float64)
        base = _window_sums(np.square(part), size, forwards=True)
        base *= alpha / size
        base += bias
        direct = dy[some] / base**beta
        terms = _window_sums(direct * part / base, size, forwards=False)
        part *= terms
        part *= 2 * alpha * beta / size
        dx[some] = direct - part
    return dx


def _window_sums(rows: Array, size: int, forwards: bool) -> Array:
    """The sum over the window of each channel of (R, C), one position of the window at a time.

    A window of an even size has one channel more after its own than before it, or, if not
    ``forwards``, one more before it.
    """
    channels = rows.shape[1]
    before = (size - 1) // 2 if forwards else size // 2
    sums = np.zeros(rows.shape)
    for step in range(-min(before, channels - 1), min(size - 1 - before, channels - 1) + 1):
        first, last = max(0, -step), min(channels, channels - step)
        sums[:, first:last] += rows[:, first + step : last + step]
    return sums
