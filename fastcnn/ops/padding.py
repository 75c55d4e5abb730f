"""Zeros around images, images without their borders, and the gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import Padding, four_sides
from fastcnn.core.quoting import quoted
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
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
    y: Array = call(_padded, (x,), padding, engine)
    return y


@binding("x")
def _padded(x: Facts, padding: Padding, engine: str | None) -> Callable[..., Any]:
    margins = _margins("x", x, padding)
    return registry.bind("zero_pad2d", (*x.shape, *margins), x.dtype, margins, how=(engine,))


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
    dx: Array = call(_without_padding, (dy,), padding, engine)
    return dx


@binding("dy")
def _without_padding(dy: Facts, padding: Padding, engine: str | None) -> Callable[..., Any]:
    margins = _margins("dy", dy, padding)
    top, bottom, left, right = margins
    if dy.shape[1] < top + bottom or dy.shape[2] < left + right:
        raise ValueError(
            f"dy must be larger than its padding, got {dy.shape} with {quoted(padding)}"
        )
    geometry = *dy.shape, *margins
    return registry.bind("zero_pad2d_backward", geometry, dy.dtype, margins, how=(engine,))


@operation()
def crop2d(x: ArrayLike, cropping: Padding, *, engine: str | None = None) -> Array:
    """Images without pixels at their borders.

    Args:
        x: images, (N, H, W, C).
        cropping: pixels that are taken away, an int, (vertical, horizontal) or
            ((top, bottom), (left, right)). At least one pixel must be left.

    Returns:
        y, (N, H − top − bottom, W − left − right, C), of the dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.arange(12.0).reshape(1, 3, 4, 1)
        >>> fastcnn.crop2d(x, ((1, 0), (0, 2)))[0, :, :, 0]
        array([[4., 5.],
               [8., 9.]])
    """
    y: Array = call(_cropped, (x,), cropping, engine)
    return y


@binding("x")
def _cropped(x: Facts, cropping: Padding, engine: str | None) -> Callable[..., Any]:
    margins = top, bottom, left, right = _margins("x", x, cropping, "cropping")
    if x.shape[1] <= top + bottom or x.shape[2] <= left + right:
        raise ValueError(
            f"cropping must leave at least one pixel of x, {x.shape}, got {quoted(cropping)}"
        )
    geometry = *x.shape, *margins
    return registry.bind("zero_pad2d_backward", geometry, x.dtype, margins, how=(engine,))


@operation()
def crop2d_backward(dy: ArrayLike, cropping: Padding, *, engine: str | None = None) -> Array:
    """Gradient of :func:`crop2d`: dy with zeros around it.

    Args:
        dy: gradient of the output, (N, H − top − bottom, W − left − right, C).
        cropping: the pixels that :func:`crop2d` took away, in the same forms.

    Returns:
        dx, (N, H, W, C), of the dtype of dy.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.crop2d_backward(np.ones((1, 1, 2, 1)), ((1, 0), (0, 1)))[0, :, :, 0]
        array([[0., 0., 0.],
               [1., 1., 0.]])
    """
    dx: Array = call(_uncropped, (dy,), cropping, engine)
    return dx


@binding("dy")
def _uncropped(dy: Facts, cropping: Padding, engine: str | None) -> Callable[..., Any]:
    margins = _margins("dy", dy, cropping, "cropping")
    return registry.bind("zero_pad2d", (*dy.shape, *margins), dy.dtype, margins, how=(engine,))


def _margins(
    name: str, images: Facts, value: object, argument: str = "padding"
) -> tuple[int, int, int, int]:
    if images.ndim != 4:
        raise ValueError(f"{name} must have the shape (N, H, W, C), got {images.shape}")
    expected = "an int, (vertical, horizontal) or ((top, bottom), (left, right))"
    return four_sides(argument, value, expected)
