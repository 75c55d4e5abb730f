"""The fully connected layer, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, shaped
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.checks import Activation, check_activation
from fastcnn.ops.declaration import operation


@operation()
def dense(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    activation: Activation = None,
    engine: str | None = None,
) -> Array:
    """Fully connected layer: ``x @ w + b``.

    Args:
        x: samples, (N, I).
        w: weights, (I, O).
        b: bias, (O,), or None for no bias. Default None.

    Returns:
        y, (N, O), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.dense(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.array([0.5]))
        array([[11.5]])
    """
    y: Array = call(_dense, (x, w) if b is None else (x, w, b), activation, engine)
    return y


@binding("x", "w", "b")
def _dense(
    x: Facts, w: Facts, b: Facts | None, activation: Activation, engine: str | None
) -> Callable[..., Any]:
    sides = _dense_sides(x, w)
    if b is not None:
        shaped("b", b, (sides[2],), "one bias per output")
    check_activation(activation)
    return registry.bind("dense", sides, x.dtype, activation, how=(engine,))


@operation()
def dense_backward(
    dy: ArrayLike, x: ArrayLike, w: ArrayLike, *, engine: str | None = None
) -> tuple[Array, Array, Array]:
    """All gradients of :func:`dense` without activation.

    Args:
        dy: gradient of the output, (N, O).
        x: samples, (N, I).
        w: weights, (I, O).

    Returns:
        dx (N, I), dw (I, O) and db (O,), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.dense_backward(np.array([[2.0]]), np.array([[1.0, 3.0]]), np.ones((2, 1)))[1]
        array([[2.],
               [6.]])
    """
    gradients: tuple[Array, Array, Array] = call(_dense_backward, (dy, x, w), engine)
    return gradients


@binding("dy", "x", "w")
def _dense_backward(dy: Facts, x: Facts, w: Facts, engine: str | None) -> Callable[..., Any]:
    sides = _dense_sides(x, w)
    shaped("dy", dy, (sides[0], sides[2]), "the output's shape")
    return registry.bind("dense_backward", sides, x.dtype, how=(engine,))


def _dense_sides(x: Facts, w: Facts) -> tuple[int, int, int]:
    if x.ndim != 2:
        raise ValueError(f"x must have the shape (N, I), got {x.shape}")
    if w.ndim != 2 or min(w.shape) < 1:
        raise ValueError(f"w must have the shape (I, O), both at least 1, got {w.shape}")
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"w must have I = {x.shape[1]} rows, as x has columns, got {w.shape}")
    return x.shape[0], w.shape[0], w.shape[1]
