"""Convolution of images, and its gradients."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, floats, shaped
from fastcnn.core.geometry import Padding, Pair, conv_geometry, integer, pair
from fastcnn.engine import registry
from fastcnn.ops.checks import (
    Activation,
    Algorithm,
    Math,
    check_activation,
    geometry_of_pixels,
    image_shape,
)
from fastcnn.ops.declaration import operation

_CONVOLUTION = """
x: images, (N, H, W, IC).
w: filters, (KH, KW, IC/groups, OC).
dy: gradient of the output, (N, OH, OW, OC).
stride: pixels between outputs, an int or (vertical, horizontal). Default 1.
padding: pixels of zeros around the images: "valid" (none), "same" (the output is ⌈H/stride⌉
    pixels high and ⌈W/stride⌉ wide, and an odd pixel goes to the end), an int,
    (vertical, horizontal) or ((top, bottom), (left, right)). Default "valid".
dilation: pixels from one tap of a filter to the next, an int or (vertical, horizontal).
    Default 1, which leaves no gaps.
groups: the channels are split into this many independent convolutions; ``groups=IC`` is a
    depthwise convolution. Default 1.
"""


@operation(_CONVOLUTION)
def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = "valid",
    dilation: Pair = 1,
    groups: int = 1,
    activation: Activation = None,
    algorithm: Algorithm = "auto",
    math: Math | None = None,
    engine: str | None = None,
) -> Array:
    """Convolution of a batch of images with filters.

    The filters are not turned, so this is the cross-correlation that all neural-network libraries
    call convolution:
    ``y[n, oh, ow, oc] = b[oc] + Σ x[n, oh·S − P + kh·D, ow·S − P + kw·D, ic] · w[kh, kw, ic, oc]``.
    The sum goes over kh, kw and the input channels of oc's group. Outside the image x is 0.

    Args:
        b: bias, (OC,), or None for no bias. Default None.

    Returns:
        y, (N, OH, OW, OC), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
        >>> w = np.ones((3, 3, 1, 1), np.float32)
        >>> fastcnn.conv2d(x, w)[0, :, :, 0]
        array([[45., 54.],
               [81., 90.]], dtype=float32)
        >>> fastcnn.conv2d(x, w, stride=2, padding="same").shape
        (1, 2, 2, 1)

    Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285.
    """
    x, w, b = floats(x=x, w=w, b=b)
    g = conv_geometry(
        x.shape, w.shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    if b is not None:
        shaped("b", b, (g.oc,), "one bias per output channel")
    check_activation(activation)
    y: Array = registry.choose("conv2d", g, x.dtype, engine, algorithm, math)(
        x, w, b, activation, g
    )
    return y


@operation(_CONVOLUTION)
def conv2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: Pair = 1,
    padding: Padding = "valid",
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: Algorithm = "auto",
    math: Math | None = None,
    engine: str | None = None,
) -> tuple[Array, Array, Array]:
    """All gradients of :func:`conv2d` without activation.

    Returns:
        dx (N, H, W, IC), dw (KH, KW, IC/groups, OC) and db (OC,), of the common dtype of the
        arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> x, w = np.ones((1, 4, 5, 2)), np.ones((3, 2, 2, 4))
        >>> dx, dw, db = fastcnn.conv2d_backward(np.ones((1, 2, 4, 4)), x, w)
        >>> dx.shape, dw.shape, db
        ((1, 4, 5, 2), (3, 2, 2, 4), array([8., 8., 8., 8.]))

    Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285, chapter 4.
    """
    dy, x, w = floats(dy=dy, x=x, w=w)
    g = conv_geometry(
        x.shape, w.shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    shaped("dy", dy, g.output_shape, "the output's shape")
    to_input = registry.choose("conv2d_input_gradient", g, x.dtype, engine, algorithm, math)
    to_filters = registry.choose("conv2d_filter_gradient", g, x.dtype, engine, algorithm, math)
    to_bias = registry.choose("conv2d_bias_gradient", g, x.dtype, engine)
    return to_input(dy, w, g), to_filters(dy, x, g), to_bias(dy, g)


@operation(_CONVOLUTION)
def conv2d_input_gradient(
    dy: ArrayLike,
    w: ArrayLike,
    x_shape: tuple[int, int, int, int],
    *,
    stride: Pair = 1,
    padding: Padding = "valid",
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: Algorithm = "auto",
    math: Math | None = None,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`conv2d` with respect to x, which is also the transposed convolution.

    Args:
        x_shape: the shape of x, a tuple of ints (N, H, W, IC).

    Returns:
        dx, (N, H, W, IC), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> dx = fastcnn.conv2d_input_gradient(
        ...     np.ones((1, 2, 2, 1)), np.ones((2, 2, 1, 1)), (1, 3, 3, 1))
        >>> dx[0, :, :, 0]
        array([[1., 2., 1.],
               [2., 4., 2.],
               [1., 2., 1.]])
    """
    dy, w = floats(dy=dy, w=w)
    g = conv_geometry(
        image_shape("x_shape", x_shape),
        w.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    shaped("dy", dy, g.output_shape, "the output's shape")
    dx: Array = registry.choose("conv2d_input_gradient", g, dy.dtype, engine, algorithm, math)(
        dy, w, g
    )
    return dx


@operation(_CONVOLUTION)
def conv2d_filter_gradient(
    dy: ArrayLike,
    x: ArrayLike,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = "valid",
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: Algorithm = "auto",
    math: Math | None = None,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`conv2d` with respect to w.

    Args:
        kernel_size: (KH, KW), or an int for both.

    Returns:
        dw, (KH, KW, IC/groups, OC), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> dw = fastcnn.conv2d_filter_gradient(
        ...     np.ones((1, 2, 2, 1)), np.arange(9.0).reshape(1, 3, 3, 1), 2)
        >>> dw[:, :, 0, 0]
        array([[ 8., 12.],
               [20., 24.]])
    """
    dy, x = floats(dy=dy, x=x)
    if dy.ndim != 4 or dy.shape[3] < 1:
        raise ValueError(f"dy must have the shape (N, OH, OW, OC), OC at least 1, got {dy.shape}")
    if x.ndim != 4:
        raise ValueError(f"x must have the shape (N, H, W, IC), got {x.shape}")
    count = max(1, integer("groups", groups, groups))
    w_shape = (*pair("kernel_size", kernel_size), x.shape[3] // count, dy.shape[3])
    g = conv_geometry(
        x.shape, w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    shaped("dy", dy, g.output_shape, "the output's shape")
    dw: Array = registry.choose("conv2d_filter_gradient", g, dy.dtype, engine, algorithm, math)(
        dy, x, g
    )
    return dw


@operation(_CONVOLUTION)
def conv2d_bias_gradient(dy: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`conv2d` with respect to b: the sum of dy over images and pixels.

    Returns:
        db, (OC,), of the dtype of dy.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.conv2d_bias_gradient(np.ones((2, 4, 5, 3)))
        array([40., 40., 40.])
    """
    (dy,) = floats(dy=dy)
    if dy.ndim != 4 or dy.shape[3] < 1:
        raise ValueError(f"dy must have the shape (N, OH, OW, OC), OC at least 1, got {dy.shape}")
    g = geometry_of_pixels(dy.shape)
    db: Array = registry.choose("conv2d_bias_gradient", g, dy.dtype, engine)(dy, g)
    return db
