"""Zeros around images, and the gradient."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, floats
from fastcnn.core.geometry import Padding, pads
from fastcnn.core.quoting import quoted
from fastcnn.engine import registry
from fastcnn.ops.declaration import operation


@operation()
def zero_pad2d(x: ArrayLike, padding: Padding, *, engine: str | None = None) -> Array:
    """Images with zeros around them.

    Args:
        x: images, (N, H, W, C).
        padding: pixels of zeros, an int, (vertical, horizontal) or ((top, bottom), (left, right)).

    Returns:
        y, (N, top + H + bottom, left + W + right, C), of the dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.zero_pad2d(np.ones((1, 1, 2, 1)), ((1, 0), (0, 1)))[0, :, :, 0]
        array([[0., 0., 0.],
               [1., 1., 0.]])
    """
    (x,) = floats(x=x)
    margins = _margins("x", x, padding)
    y: Array = registry.choose("zero_pad2d", (*x.shape, *margins), x.dtype, engine)(x, margins)
    return y


@operation()
def zero_pad2d_backward(dy: ArrayLike, padding: Padding, *, engine: str | None = None) -> Array:
    """Gradient of :func:`zero_pad2d`: dy without its margins.

    Args:
        dy: gradient of the output, (N, top + H + bottom, left + W + right, C).
        padding: pixels of zeros, an int, (vertical, horizontal) or ((top, bottom), (left, right)).

    Returns:
        dx, (N, H, W, C), of the dtype of dy.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy = np.arange(6.0).reshape(1, 2, 3, 1)
        >>> fastcnn.zero_pad2d_backward(dy, ((1, 0), (0, 1)))[0, :, :, 0]
        array([[3., 4.]])
    """
    (dy,) = floats(dy=dy)
    margins = _margins("dy", dy, padding)
    top, bottom, left, right = margins
    if dy.shape[1] < top + bottom or dy.shape[2] < left + right:
        raise ValueError(
            f"dy must be larger than its padding, got {dy.shape} with {quoted(padding)}"
        )
    dx: Array = registry.choose("zero_pad2d_backward", (*dy.shape, *margins), dy.dtype, engine)(
        dy, margins
    )
    return dx


def _margins(name: str, images: Array, padding: object) -> tuple[int, int, int, int]:
    if images.ndim != 4:
        raise ValueError(f"{name} must have the shape (N, H, W, C), got {images.shape}")
    if isinstance(padding, str):
        raise ValueError(
            f"padding must be an int, (vertical, horizontal) or ((top, bottom), (left, right)), "
            f"got {quoted(padding)}"
        )
    return pads(padding, (1, 1), (1, 1), (1, 1))
