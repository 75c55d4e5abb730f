"""The article's net as one operation: its losses and all its gradients, and how far they may err.

conv 3×3×8 → max-pool 2 → dense 1352→10 → softmax and cross-entropy, each on the same engine, so
that what one engine rounds in the first layer reaches the last one and comes all the way back.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fastcnn import ops
from fastcnn.arguments import Array
from fastcnn.comparison.bounds import Rows, linear_bound


def article_net(
    x: Array,
    labels: Array,
    filters: Array,
    weights: Array,
    bias: Array,
    *,
    engine: str | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Loss of each image, and gradients of the mean loss: ``(losses, dfilters, dweights, dbias)``.

    Args:
        x: images, (N, 28, 28, 1).
        labels: digits, (N,).
        filters: (3, 3, 1, 8).
        weights: (1352, 10).
        bias: (10,).
        engine: an engine's name, or None for the fastest that serves.
    """
    y = ops.conv2d(x, filters, engine=engine)
    pooled = ops.max_pool2d(y, 2, engine=engine)
    a = pooled.reshape(len(x), -1)
    logits = ops.dense(a, weights, bias, engine=engine)
    losses = ops.cross_entropy(logits, labels, reduction="none", engine=engine)

    dlogits = ops.cross_entropy_backward(logits, labels, engine=engine)
    da, dweights, dbias = ops.dense_backward(dlogits, a, weights, engine=engine)
    dy = ops.max_pool2d_backward(da.reshape(pooled.shape), y, 2, engine=engine)
    dfilters = ops.conv2d_filter_gradient(dy, x, filters.shape[:2], engine=engine)
    return losses, dfilters, dweights, dbias


def article_net_bounds(
    x: Array, labels: Array, filters: Array, weights: Array, bias: Array
) -> list[Array]:
    """The bound of each element of each result of :func:`article_net`.

    The roundings of each layer are those of :mod:`fastcnn.comparison.bounds`, the engine's and
    the specification's added; an error e of a layer's input reaches its output as

    - convolution and dense: the same sum over absolute values, Σ|w|·e;
    - max-pool: the largest e of the window;
    - cross-entropy: with e the largest error of the logits, e plus that of the label's logit
      (log Σ exp moves by no more than its arguments); softmax moves by a factor of exp(±2e);
    - products of two that err: |a|·Δb + |b|·Δa + Δa·Δb.

    The gradient of the maximum is a choice, and errors may choose otherwise: where several pixels
    of a window come within their errors of its maximum, the gradient may go to any of them. The
    gradient of the filters is then off by |dy| times the difference between the patches under
    those pixels. On the digits' background all patches are the same, and it is off by nothing.
    """
    dtype = x.dtype
    x, filters, weights, bias = (a.astype(np.float64) for a in (x, filters, weights, bias))
    u, n = float(np.finfo(dtype).eps) / 2, len(x)
    y = ops.conv2d(x, filters, engine="naive")
    pooled = ops.max_pool2d(y, 2, engine="naive")
    a = pooled.reshape(n, -1)
    z = a @ weights + bias
    rows = Rows(z, dtype)
    at = np.arange(n), labels

    y_error = linear_bound(9, ops.conv2d(abs(x), abs(filters), engine="naive"), y, u)
    a_error = ops.max_pool2d(y_error, 2, engine="naive").reshape(n, -1)
    a_size = abs(a) + a_error
    z_error = a_error @ abs(weights)
    z_error += linear_bound(a.shape[1] + 1, a_size @ abs(weights) + abs(bias), z, u)
    z_worst = z_error.max(axis=1, keepdims=True)
    loss_error = z_worst[:, 0] + z_error[at] + rows.log_softmax()[1][at]

    g = rows.p.copy()
    g[at] -= 1
    rounding = (2 * rows.both + 3 * rows.u) * abs(g) + rows.least
    g_error = (rows.p * (np.expm1(2 * z_worst) + rows.rho * (1 + rows.rho)) + rounding) / n
    g /= n
    g_size = abs(g) + g_error
    dweights_error = a_error.T @ abs(g) + a_size.T @ g_error
    dweights_error += linear_bound(n, a_size.T @ g_size, a.T @ g, u)
    dbias_error = g_error.sum(axis=0) + linear_bound(n, g_size.sum(axis=0), g.sum(axis=0), u)
    da = g @ weights.T
    da_error = g_error @ abs(weights).T + linear_bound(10, g_size @ abs(weights).T, da, u)

    da, da_error = da.reshape(pooled.shape), da_error.reshape(pooled.shape)
    dy = ops.max_pool2d_backward(da, y, 2, engine="naive")
    dy_error = ops.max_pool2d_backward(da_error, y, 2, engine="naive")

    def to_filters(gradient: Array, image: Array) -> Array:
        return ops.conv2d_filter_gradient(gradient, image, 3, engine="naive")

    # Each window sends its gradient to one pixel: the other products are zeros, added exactly.
    terms = da[..., 0].size
    dfilters_error = to_filters(dy_error, abs(x)) + _other_choices(x, y, y_error, da, da_error)
    dfilters_error += linear_bound(
        terms, to_filters(abs(dy) + dy_error, abs(x)), to_filters(dy, x), u
    )
    return [loss_error, dfilters_error, dweights_error, dbias_error]


def _other_choices(x: Array, y: Array, y_error: Array, da: Array, da_error: Array) -> Array:
    """What the gradient of the filters may differ by, where errors may choose the maximum."""
    value, error = _windows(y), _windows(y_error)
    possible = value + error >= (value - error).max(axis=3, keepdims=True)
    patches = sliding_window_view(x[..., 0], (3, 3), axis=(1, 2))
    patches = _windows(patches.reshape(*patches.shape[:3], 9))[..., None, :]
    masked = possible[..., None]
    spread = np.where(masked, patches, -np.inf).max(axis=3)
    spread -= np.where(masked, patches, np.inf).min(axis=3)
    difference: Array = np.einsum("nhwct,nhwc->tc", spread, abs(da) + da_error)
    return difference.reshape(3, 3, 1, -1)


def _windows(a: Array) -> Array:
    """(N, 2H, 2W, C) as (N, H, W, 4, C): the four pixels of each window side by side."""
    n, h, w, c = a.shape
    split = a.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return split.reshape(n, h // 2, w // 2, 4, c)
