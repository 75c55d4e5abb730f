"""Dropout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, shaped
from fastcnn.core.quoting import quoted
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.checks import finite_number
from fastcnn.ops.declaration import operation


@operation()
def dropout(x: ArrayLike, mask: ArrayLike, rate: float, *, engine: str | None = None) -> Array:
    """``x / (1 - rate)`` where ``mask`` is true, and 0 elsewhere.

    The gradient is the same function of dy.

    Args:
        x: numbers, any shape.
        mask: whether each number stays, booleans of the shape of x.
        rate: the expected share of numbers that become 0, at least 0 and below 1.

    Returns:
        y, the shape and dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.dropout(np.array([1.0, 2.0]), np.array([True, False]), 0.5)
        array([2., 0.])

    Source: N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", 2014, with the scale at training time.
    """
    # The mask is no array of floats: the bound call takes x, and returns a function of the mask.
    y: Array = call(_dropped, (x,), rate, engine)(mask)
    return y


@binding("x")
def _dropped(x: Facts, rate: object, engine: str | None) -> Callable[..., Any]:
    share, shape = finite_number("rate", rate), x.shape
    if not 0 <= share < 1:
        raise ValueError(f"rate must be at least 0 and below 1, got {quoted(rate)}")
    bound = registry.bind("dropout", shape, x.dtype, share, how=(engine,))

    def dropped(x: Array, mask: ArrayLike) -> Array:
        stays: Array = np.asarray(mask)
        if stays.dtype != np.bool_:
            raise TypeError(f"mask must hold booleans, got dtype {stays.dtype}")
        shaped("mask", stays, shape, "the shape of x")
        y: Array = bound(x.reshape(-1), np.ascontiguousarray(stays).reshape(-1)).reshape(shape)
        return y

    return lambda x: partial(dropped, x)
