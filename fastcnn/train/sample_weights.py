"""How much each sample counts: the checks of ``sample_weight`` and ``class_weight``, and their use.

With the weights w the loss of a batch of N samples is ``Σ w · loss / N``, as in Keras: it is
divided by the number of samples, not by the sum of the weights. So is its gradient. Where the
cross-entropy has a class for each pixel, pixels may have weights, and the loss of a sample is the
mean of ``w · loss`` over its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.scalars import number
from fastcnn.data.several import Data
from fastcnn.nn.layers import Shape
from fastcnn.nn.losses import CrossEntropy, Loss, mean_of_each
from fastcnn.train.output_losses import Goal, OutputLosses


def checked(
    value: ArrayLike | None,
    count: int,
    name: str = "sample_weight",
    pixels: Shape | None = (),
) -> Array | None:
    """A weight for each of ``count`` samples, float64, or None where there are none.

    A new array, because the caller may change the old one after the check.

    Args:
        pixels: the axes of a sample's pixels, each of which may have a weight; () if none may, and
            None if the axes are not known yet.

    Raises ``TypeError`` for anything but real numbers; ``ValueError`` for another shape than
    (count,) or (count, *pixels), for negative numbers, NaN and infinity.

    >>> checked([1, 0, 2], 3)
    array([1., 0., 2.])
    """
    if value is None:
        return None
    try:
        values = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array, got a ragged sequence: {error}") from None
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {values.dtype}")
    fitting_shape = pixels if pixels is not None or not values.ndim else values.shape[1:]
    if values.shape != (count,) and values.shape != (count, *(fitting_shape or ())):
        of_pixels = (
            f", or {(count, *fitting_shape)}, one for each pixel"
            if fitting_shape and pixels
            else ""
        )
        raise ValueError(
            f"{name} must have the shape ({count},), one weight for each sample{of_pixels}, got "
            f"{values.shape}"
        )
    weights = np.array(values, np.float64)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        sample = wrong.reshape(count, -1).any(axis=1).argmax()
        raise ValueError(
            f"{name} must hold finite numbers of at least 0, got {weights[wrong][0]:g} for sample "
            f"{sample}"
        )
    return weights


def by_class(class_weight: Mapping[int, float], loss: Loss, targets: Array, output: Shape) -> Array:
    """The weight of each sample's or pixel's class, float64; 1 for a class that is not named.

    Raises ``TypeError`` for anything but a mapping of numbers, ``ValueError`` for a key that is no
    class, a weight that is negative or not finite, and a loss whose targets are no classes.
    """
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"class_weight must be a dict of classes and their weights, such as {{0: 1, 1: 99}}, "
            f"got {type(class_weight).__name__}"
        )
    labels, classes = loss.classes(targets, output)
    weights = np.ones(classes)
    for label, weight in class_weight.items():
        is_number = isinstance(label, int | float | np.integer | np.floating)
        if not is_number or label not in range(classes):
            raise ValueError(
                f"class_weight must have the classes 0 to {classes - 1} as keys, got {label!r}"
            )
        weights[int(label)] = number(f"class_weight[{label!r}]", weight)
    return np.asarray(weights[labels])


@unreported
def weights_of(
    sample_weight: ArrayLike | None,
    class_weight: Mapping[int, float] | None,
    loss: Goal,
    targets: Data,
    output: Any,
    dtype: np.dtype[np.floating],
) -> Array | None:
    """The product of both for each sample, (N,) of ``dtype``; None where neither is there.

    Where the cross-entropy has classes of pixels, the result may be one for each pixel, (N, H, W).

    Raises ``TypeError`` and ``ValueError`` as :func:`checked` and :func:`by_class`, and
    ``ValueError`` where ``dtype`` cannot hold a weight.
    """
    by_pixels = type(loss) is CrossEntropy and len(output) > 1
    pixels: Shape = output[:-1] if by_pixels else ()
    weights = checked(sample_weight, len(targets), pixels=pixels)
    if class_weight is not None:
        if isinstance(loss, OutputLosses):
            raise ValueError("class_weight needs a model with one output; use sample_weight")
        assert isinstance(targets, np.ndarray)
        of_classes = by_class(class_weight, loss, targets, output)
        if of_classes.ndim > 1 and not by_pixels:
            raise ValueError(
                f"class_weight needs CrossEntropy itself where each pixel has a class, got {loss!r}"
            )
        if weights is not None:
            of_classes *= _beside(weights, of_classes.ndim)
        weights = of_classes
    if weights is None:
        return None
    result = weights.astype(dtype)
    if not np.isfinite(result).all():
        name = "sample_weight" if class_weight is None else "class_weight"
        raise ValueError(f"{name} must hold weights that {dtype} can hold, got {weights.max():g}")
    return result


def _beside(weights: Array, axes: int) -> Array:
    """Weights (N,) or (N, H, W) with axes of length 1 at the end, so that they have ``axes``."""
    return weights.reshape(weights.shape + (1,) * (axes - weights.ndim))


@unreported
def weighted_losses(
    loss: Goal, outputs: Any, targets: Any, weights: Array | None, engine: str | None
) -> Array:
    """The loss of each sample, (N,), times its weight, or with the weights of its pixels."""
    if weights is not None and weights.ndim > 1:
        assert isinstance(loss, CrossEntropy)
        return mean_of_each(loss.losses(outputs, targets, engine) * weights)
    losses = loss.values(outputs, targets, engine)
    return losses if weights is None else losses * weights


def scale_to_mean(gradient: Array, weights: Array | None, count: int | None = None) -> None:
    """Make gradients of each sample's own loss, (N, …), those of ``Σ w · loss / count``, in place.

    ``count`` is by default N; for a shard of a batch it is the number of the batch's samples.
    """
    share = gradient.dtype.type(1 / (len(gradient) if count is None else count))
    if weights is None:
        gradient *= share
    else:
        gradient *= _beside(share * weights, gradient.ndim)
