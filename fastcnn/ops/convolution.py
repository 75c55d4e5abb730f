"""Convolution of images, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, shaped
from fastcnn.core.geometry import Padding, Pair, conv_geometry, integer, pair
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
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
    arrays = (x, w) if b is None else (x, w, b)
    y: Array = call(
        _conv2d, arrays, stride, padding, dilation, groups, activation, engine, algorithm, math
    )
    return y


@binding("x", "w", "b")
def _conv2d(
    x: Facts,
    w: Facts,
    b: Facts | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    activation: Activation,
    engine: str | None,
    algorithm: Algorithm,
    math: Math | None,
) -> Callable[..., Any]:
    g = conv_geometry(
        x.shape, w.shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    if b is not None:
        shaped("b", b, (g.oc,), "one bias per output channel")
    check_activation(activation)
    how = engine, algorithm, math
    return registry.bind("conv2d", g, x.dtype, activation, how=how)


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
    how = engine, algorithm, math
    gradients: tuple[Array, Array, Array] = call(
        _conv2d_backward, (dy, x, w), stride, padding, dilation, groups, *how
    )
    return gradients


@binding("dy", "x", "w")
def _conv2d_backward(
    dy: Facts,
    x: Facts,
    w: Facts,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *how: Any,
) -> Callable[..., Any]:
    g = conv_geometry(
        x.shape, w.shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    shaped("dy", dy, g.output_shape, "the output's shape")
    to_input = registry.bind("conv2d_input_gradient", g, x.dtype, how=how)
    to_filters = registry.bind("conv2d_filter_gradient", g, x.dtype, how=how)
    to_bias = registry.bind("conv2d_bias_gradient", g, x.dtype, how=how[:1])
    return lambda dy, x, w: (to_input(dy, w), to_filters(dy, x), to_bias(dy))


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
    how = engine, algorithm, math
    dx: Array = call(_input_gradient, (dy, w), x_shape, stride, padding, dilation, groups, *how)
    return dx


@binding("dy", "w")
def _input_gradient(
    dy: Facts,
    w: Facts,
    x_shape: object,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *how: Any,
) -> Callable[..., Any]:
    g = conv_geometry(
        image_shape("x_shape", x_shape),
        w.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    shaped("dy", dy, g.output_shape, "the output's shape")
    return registry.bind("conv2d_input_gradient", g, dy.dtype, how=how)


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
    how = engine, algorithm, math
    dw: Array = call(
        _filter_gradient, (dy, x), kernel_size, stride, padding, dilation, groups, *how
    )
    return dw


@binding("dy", "x")
def _filter_gradient(
    dy: Facts,
    x: Facts,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *how: Any,
) -> Callable[..., Any]:
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
    return registry.bind("conv2d_filter_gradient", g, dy.dtype, how=how)


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
    db: Array = call(_bias_gradient, (dy,), engine)
    return db


@binding("dy")
def _bias_gradient(dy: Facts, engine: str | None) -> Callable[..., Any]:
    if dy.ndim != 4 or dy.shape[3] < 1:
        raise ValueError(f"dy must have the shape (N, OH, OW, OC), OC at least 1, got {dy.shape}")
    g = geometry_of_pixels(dy.shape)
    return registry.bind("conv2d_bias_gradient", g, dy.dtype, how=(engine,))
