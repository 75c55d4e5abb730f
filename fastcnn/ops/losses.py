"""The cross-entropy, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, class_targets
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.checks import Reduction
from fastcnn.ops.declaration import operation

_SAMPLES = """
logits: scores before the softmax, (N, C), or of each pixel, (N, H, W, C). Any number of axes
    may be between N and C.
labels: the integer class of each sample, (N,), or of each pixel, (N, H, W), in ``range(C)``; or
    probabilities in the shape of the logits, none negative and with the sum 1 over the classes.
"""


@operation(_SAMPLES)
def cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    reduction: Reduction = "mean",
    engine: str | None = None,
) -> Any:
    """Softmax cross-entropy of each sample or pixel, ``-log_softmax(logits)[label]``.

    With a row of probabilities p as the label, the loss is ``-Σ p · log_softmax(logits)``.

    Args:
        reduction: "mean" or "sum" of the losses over the batch and all pixels, or "none". Default
            "mean".

    Returns:
        A scalar of the dtype of logits (0 for an empty batch), or with "none" the losses, (N,) or
        (N, H, W).

    Example:
        >>> import numpy as np, fastcnn
        >>> round(float(fastcnn.cross_entropy(np.zeros((5, 10)), [0, 1, 2, 3, 4])), 4)
        2.3026
        >>> round(float(fastcnn.cross_entropy([[0.0, 1.0]], [[0.5, 0.5]])), 4)
        0.8133
        >>> maps, classes = np.zeros((1, 2, 3, 4)), [[[0, 1, 2], [3, 0, 1]]]
        >>> round(float(fastcnn.cross_entropy(maps, classes)), 4)
        1.3863
        >>> fastcnn.cross_entropy(maps, classes, reduction="none").shape
        (1, 2, 3)
    """
    return call(_loss, (logits,), reduction, engine)(labels)


@binding("logits")
def _loss(logits: Facts, reduction: object, engine: str | None) -> Callable[..., Any]:
    shape, dtype = logits.shape, logits.dtype
    rows, scale = _loss_arguments(shape, reduction)
    bound = registry.bind("cross_entropy", rows, dtype, how=(engine,))

    def loss(logits: Array, labels: ArrayLike) -> Any:
        losses: Array = bound(logits.reshape(rows), class_targets(labels, shape, dtype))
        return losses.reshape(shape[:-1]) if reduction == "none" else _total(losses, scale)

    return lambda logits: partial(loss, logits)


@operation(_SAMPLES)
def cross_entropy_backward(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    reduction: Reduction = "mean",
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`cross_entropy` with respect to the logits.

    It is the softmax minus 1 at the label, or minus the row of probabilities.

    Args:
        reduction: "mean", "sum" or "none", as for :func:`cross_entropy`. "none" gives the gradient
            of each sample's or pixel's own loss, which is also the result of "sum". Default "mean".

    Returns:
        dlogits, of the shape and dtype of logits.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.cross_entropy_backward(np.zeros((1, 4)), [2])
        array([[ 0.25,  0.25, -0.75,  0.25]])
    """
    dlogits: Array = call(_gradient, (logits,), reduction, engine)(labels)
    return dlogits


@binding("logits")
def _gradient(logits: Facts, reduction: object, engine: str | None) -> Callable[..., Any]:
    shape, dtype = logits.shape, logits.dtype
    rows, scale = _loss_arguments(shape, reduction)
    bound = registry.bind("cross_entropy_backward", rows, dtype, how=(engine,))

    def gradient(logits: Array, labels: ArrayLike) -> Array:
        targets = class_targets(labels, shape, dtype)
        dlogits: Array = bound(logits.reshape(rows), targets).reshape(shape)
        return dlogits if scale == 1 else dlogits * dtype.type(scale)

    return lambda logits: partial(gradient, logits)


@unreported
def _total(losses: Array, scale: float) -> Any:
    return losses.dtype.type(losses.sum(dtype=np.float64) * scale)


def _loss_arguments(shape: tuple[int, ...], reduction: object) -> tuple[tuple[int, int], float]:
    """The shape of logits of this shape as rows, and the factor of the sum of their losses."""
    if len(shape) < 2 or shape[-1] < 1:
        raise ValueError(
            f"logits must have the shape (N, C), or (N, …, C) for a class of each pixel, C at "
            f"least 1, got {shape}"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {quoted(reduction)}')
    rows = prod(shape[:-1])
    return (rows, shape[-1]), 1 / max(rows, 1) if reduction == "mean" else 1.0
