"""Bounds for the article's net: its losses and all gradients, layer after layer.

The net is conv 3×3×8 → max-pool 2 → dense 1352→10 → softmax and cross-entropy. All layers run on
one engine, so the roundings of the first layer reach the last one and all gradients.
:func:`article_net` runs the net as a model does. The bounds are computed with NumPy, without any
engine.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fastcnn.core.arguments import Array
from fastcnn.models.nets import article
from fastcnn.models.sequential import Sequential
from fastcnn.nn.losses import CrossEntropy
from fastcnn.proof.bounds import Rows, linear_bound, unit_roundoff


def article_net(
    x: Array,
    labels: Array,
    filters: Array,
    weights: Array,
    bias: Array,
    *,
    engine: str | None = None,
) -> tuple[Array, Array, Array, Array, Array]:
    """Scores and losses of the images, and the gradients of the mean loss.

    Args:
        x: images, (N, 28, 28, 1), from −0.5 to 0.5, float32 or float64.
        labels: digits, (N,).
        filters: (3, 3, 1, 8).
        weights: (1352, 10).
        bias: (10,).
        engine: an engine's name, or None for the compiled programs of models.

    Returns:
        scores (N, 10), before the softmax; losses (N,); dfilters, dweights, dbias.

    Example:
        >>> x, labels = np.zeros((2, 28, 28, 1), np.float32), np.array([3, 7])
        >>> parameters = np.ones((3, 3, 1, 8)), np.ones((1352, 10)), np.zeros(10)
        >>> [a.shape for a in article_net(x, labels, *parameters)]
        [(2, 10), (2,), (3, 3, 1, 8), (1352, 10), (10,)]
    """
    model, loss = _model("float64" if x.dtype == np.float64 else "float32", engine), CrossEntropy()
    model.set_weights([filters, weights, bias])
    scores = model._forward_batch(x, loss)
    losses = loss.values(scores, labels, engine)
    _, _, gradients = model._gradients(x, labels, loss, model.rng)
    (dfilters,), (dweights, dbias) = gradients[0].values(), gradients[3].values()
    return scores, losses, dfilters.copy(), dweights.copy(), dbias.copy()


@cache
def _model(dtype: Literal["float32", "float64"], engine: str | None) -> Sequential:
    """One model for all cases, because building it takes longer than a batch on a fast engine."""
    return Sequential(article(), (28, 28, 1), seed=0, dtype=dtype, engine=engine)


class _Forward:
    """The net's values in float64, and bounds of an engine's distance from the reference."""

    def __init__(
        self, x: Array, labels: Array, filters: Array, weights: Array, bias: Array
    ) -> None:
        dtype = x.dtype
        self.x, filters, self.weights, bias = (
            array.astype(np.float64) for array in (x, filters, weights, bias)
        )
        self.u, n = unit_roundoff(dtype), len(x)
        self.y = _convolution(self.x, filters)
        windows = _windows(self.y)
        self.pooled_shape = (*windows.shape[:3], windows.shape[4])
        self.a = windows.max(axis=3).reshape(n, -1)
        self.z = self.a @ self.weights + bias
        self.rows = Rows(self.z, dtype)
        self.at = np.arange(n), labels

        size = _convolution(abs(self.x), abs(filters))
        self.y_error = linear_bound(9, size, self.y, self.u)
        self.a_error = _windows(self.y_error).max(axis=3).reshape(n, -1)
        self.a_size = abs(self.a) + self.a_error
        size = self.a_size @ abs(self.weights) + abs(bias)
        self.z_error = self.a_error @ abs(self.weights)
        self.z_error += linear_bound(self.a.shape[1] + 1, size, self.z, self.u)
        self.z_worst = self.z_error.max(axis=1, keepdims=True)
        rounding = self.rows.log_softmax()[1][self.at]
        self.loss_error = self.z_worst[:, 0] + self.z_error[self.at] + rounding


def article_loss_bounds(
    x: Array, labels: Array, filters: Array, weights: Array, bias: Array
) -> Array:
    """The bound of each image's loss, (N,); :func:`article_net_bounds` explains it."""
    bound: Array = _Forward(x, labels, filters, weights, bias).loss_error
    return bound


def article_net_bounds(
    x: Array, labels: Array, filters: Array, weights: Array, bias: Array
) -> list[Array]:
    """The bound of each element of each result of :func:`article_net`.

    The roundings of each layer are those of :mod:`fastcnn.proof.bounds`, for the engine and the
    specification together. An error e of a layer's input reaches its output as

    - convolution and dense: the same sum over absolute values, Σ|w|·e;
    - max-pool: the largest e of the window;
    - cross-entropy: with e the largest error of the logits, e plus the error of the label's logit
      (log Σ exp moves by no more than its arguments); softmax moves by a factor of exp(±2e);
    - products of two that err: |a|·Δb + |b|·Δa + Δa·Δb.

    The gradient of a maximum goes to one pixel of the window. If several pixels are within their
    errors of the maximum, the gradient may go to any of them. The gradient of the filters is then
    off by |dy| times the difference between the patches under these pixels. On the digits'
    background all patches are equal, so the difference is 0.
    """
    f = _Forward(x, labels, filters, weights, bias)
    n, u, rows, weights = len(x), f.u, f.rows, f.weights
    g = rows.p.copy()
    g[f.at] -= 1
    rounding = (2 * rows.both + 3 * rows.u) * abs(g) + rows.least
    g_error = (rows.p * (np.expm1(2 * f.z_worst) + rows.rho * (1 + rows.rho)) + rounding) / n
    g /= n
    g_size = abs(g) + g_error
    dweights_error = f.a_error.T @ abs(g) + f.a_size.T @ g_error
    dweights_error += linear_bound(n, f.a_size.T @ g_size, f.a.T @ g, u)
    dbias_error = g_error.sum(axis=0) + linear_bound(n, g_size.sum(axis=0), g.sum(axis=0), u)
    da = g @ weights.T
    da_error = g_error @ abs(weights).T + linear_bound(10, g_size @ abs(weights).T, da, u)
    da, da_error = da.reshape(f.pooled_shape), da_error.reshape(f.pooled_shape)

    # The gradient of a filter tap is a sum over windows, with one pixel of each. The other
    # products are zeros, which are added exactly.
    patches = _windows(_patches(f.x))
    first = _windows(f.y).argmax(axis=3)
    values = np.take_along_axis(patches, first[..., None], axis=3)

    def to_filters(gradient: Array, pixels: Array) -> Array:
        taps: Array = np.einsum("nhwct,nhwc->tc", pixels, gradient)
        return taps.reshape(3, 3, 1, -1)

    size = to_filters(abs(da) + da_error, abs(values))
    dfilters_error = to_filters(da_error, abs(values))
    dfilters_error += linear_bound(da[..., 0].size, size, to_filters(da, values), u)
    dfilters_error += to_filters(abs(da) + da_error, _spread(patches, f.y, f.y_error))
    return [f.z_error, f.loss_error, dfilters_error, dweights_error, dbias_error]


def clear_maxima(x: Array, filters: Array) -> NDArray[np.bool_]:
    """Whether rounding cannot change the maximum of any window, for each image, (N,).

    On the few other images, a correct engine's gradient may differ by the gradient of one pixel.
    """
    dtype = x.dtype
    x, filters = x.astype(np.float64), filters.astype(np.float64)
    y = _convolution(x, filters)
    error = linear_bound(9, _convolution(abs(x), abs(filters)), y, unit_roundoff(dtype))
    spread = _spread(_windows(_patches(x)), y, error)
    clear: NDArray[np.bool_] = (spread == 0).all(axis=(1, 2, 3, 4))
    return clear


def _spread(patches: Array, y: Array, y_error: Array) -> Array:
    """The difference, tap by tap, between the patches under all possible maxima of a window."""
    value, error = _windows(y), _windows(y_error)
    masked = (value + error >= (value - error).max(axis=3, keepdims=True))[..., None]
    tall = patches[..., None, :]
    most = np.where(masked, tall, -np.inf).max(axis=3)
    spread: Array = most - np.where(masked, tall, np.inf).min(axis=3)
    return spread


def _patches(x: Array) -> Array:
    """The 3×3 pixels under each output of the convolution: (N, H − 2, W − 2, 9)."""
    views = sliding_window_view(x[..., 0], (3, 3), axis=(1, 2))
    return views.reshape(*views.shape[:3], 9)


def _convolution(x: Array, filters: Array) -> Array:
    y: Array = _patches(x) @ filters.reshape(9, -1)
    return y


def _windows(a: Array) -> Array:
    """(N, 2H, 2W, C) as (N, H, W, 4, C), with the four pixels of each window side by side."""
    n, h, w, c = a.shape
    split = a.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return split.reshape(n, h // 2, w // 2, 4, c)
