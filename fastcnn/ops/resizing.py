"""Images in another size, and the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, shaped
from fastcnn.core.geometry import Pair
from fastcnn.core.resizing import Coordinates, Method, Rounding, resize_geometry
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.checks import image_shape
from fastcnn.ops.declaration import operation

_RESIZING = """
method: "nearest" takes one pixel, "bilinear" weights up to four pixels by their distance.
    Default "bilinear".
coordinates: where pixel o of OH lies among the H pixels of the image: "half_pixel" at
    ``(o + 1/2)·H/OH − 1/2``, "align_corners" at ``o·(H − 1)/(OH − 1)``, "asymmetric" at
    ``o·H/OH``; columns likewise. Default "half_pixel".
rounding: to which pixel "nearest" goes: "round_prefer_floor" and "round_prefer_ceil" to the
    nearest, and to the lower or upper one from half-way between two, "floor" to the lower one,
    "ceil" to the upper one. Default "round_prefer_floor".
"""


@operation(_RESIZING)
def resize2d(
    x: ArrayLike,
    size: Pair,
    method: Method = "bilinear",
    coordinates: Coordinates = "half_pixel",
    rounding: Rounding = "round_prefer_floor",
    *,
    engine: str | None = None,
) -> Array:
    """Images in another size.

    The names are those of ONNX's operator Resize. These are the arguments for functions of other
    libraries; sizes are all that they must have in common:

    =============================================  =============================================
    PyTorch, ``mode="nearest"``                    "nearest", "asymmetric", "floor"
    PyTorch, ``mode="nearest-exact"``              "nearest", "half_pixel", "round_prefer_ceil"
    PyTorch, ``mode="bilinear"``                   "bilinear", "half_pixel"
    PyTorch, ``align_corners=True``                "bilinear", "align_corners"
    Keras, ``UpSampling2D()``                      "nearest", "asymmetric", "floor"
    Keras, ``UpSampling2D``, "bilinear"            "bilinear", "half_pixel"
    TensorFlow, ``image.resize``, "nearest"        "nearest", "half_pixel", "round_prefer_ceil"
    =============================================  =============================================

    Coordinates are exact fractions of integers. (PyTorch rounds those of "nearest" to float32, and
    takes the pixel before in a few sizes, such as 82 of 2.) Pixels beyond the border are those on
    the border, and a pixel of weight 0 takes no part, even if it is NaN or infinite. An image that
    becomes smaller is not smoothed first.

    Args:
        x: images, (N, H, W, C).
        size: (OH, OW), or an int for both.

    Returns:
        y, (N, OH, OW, C), of the dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.array([[0.0, 4.0]]).reshape(1, 1, 2, 1)
        >>> fastcnn.resize2d(x, (1, 4))[0, :, :, 0]
        array([[0., 1., 3., 4.]])
        >>> fastcnn.resize2d(x, (2, 4), "nearest")[0, :, :, 0]
        array([[0., 0., 4., 4.],
               [0., 0., 4., 4.]])

    Source: ONNX, operator Resize.
    """
    y: Array = call(_resized, (x,), size, method, coordinates, rounding, engine)
    return y


@binding("x")
def _resized(
    x: Facts,
    size: Pair,
    method: Method,
    coordinates: Coordinates,
    rounding: Rounding,
    engine: str | None,
) -> Callable[..., Any]:
    g = resize_geometry(x.shape, size, method, coordinates, rounding)
    return registry.bind("resize2d", g, x.dtype, how=(engine,))


@operation(_RESIZING)
def resize2d_backward(
    dy: ArrayLike,
    x_shape: tuple[int, int, int, int],
    method: Method = "bilinear",
    coordinates: Coordinates = "half_pixel",
    rounding: Rounding = "round_prefer_floor",
    *,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`resize2d`, which is its transpose.

    Each pixel of dy adds itself, times their weights, to the pixels that it was made of.

    Args:
        dy: gradient of the output, (N, OH, OW, C).
        x_shape: the shape of x, a tuple of ints (N, H, W, C).

    Returns:
        dx, (N, H, W, C), of the dtype of dy.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy = np.array([[1.0, 2.0, 3.0, 4.0]]).reshape(1, 1, 4, 1)
        >>> fastcnn.resize2d_backward(dy, (1, 1, 2, 1), "nearest")[0, :, :, 0]
        array([[3., 7.]])
    """
    dx: Array = call(_gradient, (dy,), x_shape, method, coordinates, rounding, engine)
    return dx


@binding("dy")
def _gradient(
    dy: Facts,
    x_shape: object,
    method: Method,
    coordinates: Coordinates,
    rounding: Rounding,
    engine: str | None,
) -> Callable[..., Any]:
    shape = image_shape("x_shape", x_shape)
    if min(shape[1:]) < 1:
        raise ValueError(f"x_shape must have at least one pixel and one channel, got {shape}")
    if dy.ndim != 4 or min(dy.shape[1:]) < 1:
        raise ValueError(
            f"dy must have the shape (N, OH, OW, C), with at least one pixel and one channel, got "
            f"{dy.shape}"
        )
    g = resize_geometry(shape, dy.shape[1:3], method, coordinates, rounding)
    shaped("dy", dy, g.output_shape, "the output's shape")
    return registry.bind("resize2d_backward", g, dy.dtype, how=(engine,))
