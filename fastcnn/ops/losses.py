"""The cross-entropy, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, class_targets, floats
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted
from fastcnn.engine import registry
from fastcnn.ops.checks import Reduction
from fastcnn.ops.declaration import operation

_SAMPLES = """
logits: scores before the softmax, (N, C).
labels: the integer class of each sample, (N,), in ``range(C)``; or a row of probabilities for
    each sample, (N, C), none negative and with the sum 1.
"""


@operation(_SAMPLES)
def cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    reduction: Reduction = "mean",
    engine: str | None = None,
) -> Any:
    """Softmax cross-entropy of each sample, ``-log_softmax(logits)[label]``.

    With a row of probabilities p as the label, the loss is ``-Σ p · log_softmax(logits)``.

    Args:
        reduction: "mean" or "sum" of the losses over the batch, or "none". Default "mean".

    Returns:
        A scalar of the dtype of logits (0 for an empty batch), or with "none" the losses, (N,).

    Example:
        >>> import numpy as np, fastcnn
        >>> round(float(fastcnn.cross_entropy(np.zeros((5, 10)), [0, 1, 2, 3, 4])), 4)
        2.3026
        >>> round(float(fastcnn.cross_entropy([[0.0, 1.0]], [[0.5, 0.5]])), 4)
        0.8133
    """
    logits, numbers, scale = _loss_arguments(logits, labels, reduction)
    losses: Array = registry.choose("cross_entropy", logits.shape, logits.dtype, engine)(
        logits, numbers
    )
    return losses if reduction == "none" else _total(losses, scale)


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
            of each sample's own loss, which is also the result of "sum". Default "mean".

    Returns:
        dlogits, (N, C), of the dtype of logits.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.cross_entropy_backward(np.zeros((1, 4)), [2])
        array([[ 0.25,  0.25, -0.75,  0.25]])
    """
    logits, numbers, scale = _loss_arguments(logits, labels, reduction)
    gradient: Array = registry.choose("cross_entropy_backward", logits.shape, logits.dtype, engine)(
        logits, numbers
    )
    scaled: Array = gradient * logits.dtype.type(scale)
    return scaled


@unreported
def _total(losses: Array, scale: float) -> Any:
    return losses.dtype.type(losses.sum(dtype=np.float64) * scale)


def _loss_arguments(
    logits: ArrayLike, labels: ArrayLike, reduction: object
) -> tuple[Array, Array, float]:
    (scores,) = floats(logits=logits)
    if scores.ndim != 2 or scores.shape[1] < 1:
        raise ValueError(f"logits must have the shape (N, C), C at least 1, got {scores.shape}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {quoted(reduction)}')
    targets = class_targets(labels, scores.shape, scores.dtype)
    return scores, targets, 1 / max(len(scores), 1) if reduction == "mean" else 1.0
