"""The public functions: each checks its arguments, takes the geometry, and dispatches.

Activations are NHWC, filters HWIO. Every function takes ``engine=None`` (the fastest that serves
the problem) or the name of an engine; dtypes and layouts follow the two rules of
:mod:`fastcnn.core.arguments`; results are new arrays. Empty batches give empty results.
"""

from __future__ import annotations

import sys
from math import inf, isfinite, prod
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, class_targets, floats, shaped
from fastcnn.core.float_errors import unreported
from fastcnn.core.geometry import (
    Padding,
    Pair,
    PoolGeometry,
    conv_geometry,
    integer,
    pads,
    pair,
    pool_geometry,
)
from fastcnn.core.quoting import quoted
from fastcnn.engine.registry import Explanation, choose, recorded

Activation: TypeAlias = Literal["relu"] | None
Algorithm: TypeAlias = Literal["auto", "direct", "winograd", "im2col"]
Math: TypeAlias = Literal["fast", "strict"]
Reduction: TypeAlias = Literal["mean", "sum", "none"]


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
    """Convolution (cross-correlation, as in every neural-network library) of a batch of images.

    ``y[n, oh, ow, oc] = b[oc] + Σ x[n, oh·S − P + kh·D, ow·S − P + kw·D, ic] · w[kh, kw, ic, oc]``,
    summed over kh, kw and the input channels of oc's group; outside the image x is 0.

    Args:
        x: images, (N, H, W, IC).
        w: filters, (KH, KW, IC/groups, OC).
        b: bias, (OC,), or None for none.
        stride: pixels between outputs, an int or (vertical, horizontal).
        padding: "valid" (none), "same" (output ⌈H/stride⌉, the odd pixel at the end), an int,
            (vertical, horizontal) or ((top, bottom), (left, right)).
        dilation: pixels between filter taps; 1 is dense.
        groups: the channels are split into this many independent convolutions; ``groups=IC`` is a
            depthwise convolution.
        activation: "relu" is applied to the result at no extra pass, None to nothing.
        algorithm: "direct", "winograd" (float32, filters of 3×3 and 5×5, stride 1, no dilation,
            one group; see :mod:`fastcnn.core.minimal_filtering`), "im2col", or "auto" for the
            fastest that ``math`` allows.
        math: what "auto" chooses from: "fast" allows Winograd's filtering, "strict" does not;
            None is :func:`fastcnn.get_math`. :mod:`fastcnn.core.settings` says more.
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        (N, OH, OW, OC), of the common dtype of the arrays.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

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
    _activation(activation)
    y: Array = choose("conv2d", g, x.dtype, engine, algorithm, math)(x, w, b, activation, g)
    return y


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
    """Gradients of :func:`conv2d` (without activation): ``(dx, dw, db)``.

    Args:
        dy: gradient of the output, (N, OH, OW, OC).
        x, w, stride, padding, dilation, groups, algorithm, math, engine: as they were given to
            :func:`conv2d`.

    Returns:
        dx (N, H, W, IC), dw (KH, KW, IC/groups, OC), db (OC,).

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> x, w = np.ones((1, 4, 5, 2)), np.ones((3, 2, 2, 4))
        >>> dx, dw, db = fastcnn.conv2d_backward(np.ones((1, 2, 4, 4)), x, w)
        >>> dx.shape, dw.shape, db
        ((1, 4, 5, 2), (3, 2, 2, 4), array([8., 8., 8., 8.]))

    Source: as for :func:`conv2d`, chapter 4.
    """
    dy, x, w = floats(dy=dy, x=x, w=w)
    g = conv_geometry(
        x.shape, w.shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    shaped("dy", dy, g.output_shape, "the output's shape")
    to_input = choose("conv2d_input_gradient", g, x.dtype, engine, algorithm, math)
    to_filters = choose("conv2d_filter_gradient", g, x.dtype, engine, algorithm, math)
    to_bias = choose("conv2d_bias_gradient", g, x.dtype, engine)
    return to_input(dy, w, g), to_filters(dy, x, g), to_bias(dy, g)


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
    """Gradient of :func:`conv2d` with respect to x alone; also the transposed convolution.

    Args:
        dy: gradient of the output, (N, OH, OW, OC).
        w: filters, (KH, KW, IC/groups, OC).
        x_shape: shape of the input, (N, H, W, IC).
        stride, padding, dilation, groups, algorithm, math, engine: as for :func:`conv2d`.

    Returns:
        dx, (N, H, W, IC).

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

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
        _image_shape("x_shape", x_shape),
        w.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    shaped("dy", dy, g.output_shape, "the output's shape")
    dx: Array = choose("conv2d_input_gradient", g, dy.dtype, engine, algorithm, math)(dy, w, g)
    return dx


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
    """Gradient of :func:`conv2d` with respect to w alone.

    Args:
        dy: gradient of the output, (N, OH, OW, OC).
        x: images, (N, H, W, IC).
        kernel_size: (KH, KW), or an int for both.
        stride, padding, dilation, groups, algorithm, math, engine: as for :func:`conv2d`.

    Returns:
        dw, (KH, KW, IC/groups, OC).

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

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
    dw: Array = choose("conv2d_filter_gradient", g, dy.dtype, engine, algorithm, math)(dy, x, g)
    return dw


def conv2d_bias_gradient(dy: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`conv2d` with respect to b alone: the sum over images and pixels.

    Args:
        dy: gradient of the output, (N, OH, OW, OC).
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        db, (OC,).

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.conv2d_bias_gradient(np.ones((2, 4, 5, 3)))
        array([40., 40., 40.])
    """
    (dy,) = floats(dy=dy)
    if dy.ndim != 4 or dy.shape[3] < 1:
        raise ValueError(f"dy must have the shape (N, OH, OW, OC), OC at least 1, got {dy.shape}")
    channels = dy.shape[3]
    # Of the geometry only the output's shape matters: that of a filter of one pixel.
    g = conv_geometry(dy.shape, (1, 1, channels, channels))
    db: Array = choose("conv2d_bias_gradient", g, dy.dtype, engine)(dy, g)
    return db


def max_pool2d(
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Largest value of each window; NaN wins over every number, padding over none.

    Args:
        x: images, (N, H, W, C).
        size: the window, an int or (vertical, horizontal).
        stride: pixels between windows; None means ``size``.
        padding: as for :func:`conv2d`, but smaller than the window.
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        (N, OH, OW, C), of x's dtype.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.max_pool2d(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
        array([[ 5.,  7.],
               [13., 15.]])
    """
    x, g = _pool_arguments(x, size, stride, padding)
    y: Array = choose("max_pool2d", g, x.dtype, engine)(x, g)
    return y


def min_pool2d(
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Smallest value of each window; else as :func:`max_pool2d`.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.min_pool2d(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
        array([[ 0.,  2.],
               [ 8., 10.]])
    """
    x, g = _pool_arguments(x, size, stride, padding)
    y: Array = choose("min_pool2d", g, x.dtype, engine)(x, g)
    return y


def avg_pool2d(
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Mean of those pixels of each window that lie in the image; else as :func:`max_pool2d`.

    Padding never counts: a window with one pixel in the image has that pixel's value.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.avg_pool2d(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
        array([[ 2.5,  4.5],
               [10.5, 12.5]])
    """
    x, g = _pool_arguments(x, size, stride, padding)
    y: Array = choose("avg_pool2d", g, x.dtype, engine)(x, g)
    return y


def max_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`max_pool2d`: each window's goes to its maximum, alone.

    Of several equal maxima it is the first in row-major order; a NaN is the maximum, the first
    NaN where there are several.

    Args:
        dy: gradient of the output, (N, OH, OW, C).
        x, size, stride, padding, engine: as they were given to :func:`max_pool2d`.

    Returns:
        dx, (N, H, W, C).

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.array([[1.0, 7.0], [7.0, 2.0]]).reshape(1, 2, 2, 1)
        >>> fastcnn.max_pool2d_backward(np.ones((1, 1, 1, 1)), x, 2)[0, :, :, 0]
        array([[0., 1.],
               [0., 0.]])
    """
    dy, x, g = _pool_gradient_arguments(dy, x, size, stride, padding)
    dx: Array = choose("max_pool2d_backward", g, x.dtype, engine)(dy, x, g)
    return dx


def min_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`min_pool2d`: as :func:`max_pool2d_backward`, for the minimum.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.array([[1.0, 7.0], [7.0, 1.0]]).reshape(1, 2, 2, 1)
        >>> fastcnn.min_pool2d_backward(np.ones((1, 1, 1, 1)), x, 2)[0, :, :, 0]
        array([[1., 0.],
               [0., 0.]])
    """
    dy, x, g = _pool_gradient_arguments(dy, x, size, stride, padding)
    dx: Array = choose("min_pool2d_backward", g, x.dtype, engine)(dy, x, g)
    return dx


def avg_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Pair,
    stride: Pair | None = None,
    padding: Padding = "valid",
    *,
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`avg_pool2d`: shared equally by the window's pixels in the image.

    Arguments and result as for :func:`max_pool2d_backward`; of ``x`` only the shape and dtype
    matter.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.zeros((1, 2, 2, 1))
        >>> fastcnn.avg_pool2d_backward(np.ones((1, 1, 1, 1)), x, 2)[0, :, :, 0]
        array([[0.25, 0.25],
               [0.25, 0.25]])
    """
    dy, x, g = _pool_gradient_arguments(dy, x, size, stride, padding)
    dx: Array = choose("avg_pool2d_backward", g, x.dtype, engine)(dy, g)
    return dx


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
        b: bias, (O,), or None for none.
        activation: "relu" or None.
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        (N, O), of the common dtype of the arrays.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.dense(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.array([0.5]))
        array([[11.5]])
    """
    x, w, b = floats(x=x, w=w, b=b)
    sides = _dense_sides(x, w)
    if b is not None:
        shaped("b", b, (sides[2],), "one bias per output")
    _activation(activation)
    y: Array = choose("dense", sides, x.dtype, engine)(x, w, b, activation)
    return y


def dense_backward(
    dy: ArrayLike, x: ArrayLike, w: ArrayLike, *, engine: str | None = None
) -> tuple[Array, Array, Array]:
    """Gradients of :func:`dense` (without activation): ``(dx, dw, db)``.

    Args:
        dy: gradient of the output, (N, O).
        x, w, engine: as they were given to :func:`dense`.

    Returns:
        dx (N, I), dw (I, O), db (O,).

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.dense_backward(np.array([[2.0]]), np.array([[1.0, 3.0]]), np.ones((2, 1)))[1]
        array([[2.],
               [6.]])
    """
    dy, x, w = floats(dy=dy, x=x, w=w)
    sides = _dense_sides(x, w)
    shaped("dy", dy, (sides[0], sides[2]), "the output's shape")
    gradients: tuple[Array, Array, Array] = choose("dense_backward", sides, x.dtype, engine)(
        dy, x, w
    )
    return gradients


def relu(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``max(x, 0)``, element by element, on any shape; NaN stays NaN.

    Args:
        x: numbers, any shape.
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.relu(np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 2.])
    """
    (x,) = floats(x=x)
    y: Array = choose("relu", x.shape, x.dtype, engine)(x.reshape(-1))
    return y.reshape(x.shape)


def relu_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`relu`: dy where x is above 0, else 0 (at 0 and at NaN too).

    Args:
        dy: gradient of the output, the shape of x.
        x, engine: as they were given to :func:`relu`.

    Returns:
        dx, the shape of x, of the common dtype.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 5.])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    dx: Array = choose("relu_backward", x.shape, x.dtype, engine)(dy.reshape(-1), x.reshape(-1))
    return dx.reshape(x.shape)


def leaky_relu(x: ArrayLike, slope: float = 0.01, *, engine: str | None = None) -> Array:
    """x where it is above 0, else ``slope * x``, element by element; NaN stays NaN.

    Args:
        x: numbers, any shape.
        slope: a finite number.
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.leaky_relu(np.array([-2.0, 0.0, 2.0]), 0.5)
        array([-1.,  0.,  2.])
    """
    (x,) = floats(x=x)
    value = _number("slope", slope)
    y: Array = choose("leaky_relu", x.shape, x.dtype, engine)(x.reshape(-1), value)
    return y.reshape(x.shape)


def leaky_relu_backward(
    dy: ArrayLike, x: ArrayLike, slope: float = 0.01, *, engine: str | None = None
) -> Array:
    """Gradient of :func:`leaky_relu`: dy where x is above 0, else ``slope * dy``.

    Arguments and result as for :func:`relu_backward`, ``slope`` as it was given.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.leaky_relu_backward(np.array([5.0, 5.0]), np.array([-1.0, 2.0]), 0.5)
        array([2.5, 5. ])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    value = _number("slope", slope)
    function = choose("leaky_relu_backward", x.shape, x.dtype, engine)
    dx: Array = function(dy.reshape(-1), x.reshape(-1), value)
    return dx.reshape(x.shape)


def tanh(x: ArrayLike, *, engine: str | None = None) -> Array:
    """Hyperbolic tangent, element by element; arguments and result as for :func:`relu`.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.tanh(np.array([-1000.0, 0.0]))
        array([-1.,  0.])
    """
    (x,) = floats(x=x)
    y: Array = choose("tanh", x.shape, x.dtype, engine)(x.reshape(-1))
    return y.reshape(x.shape)


def tanh_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`tanh`, ``dy / cosh(x)²``; arguments as for :func:`relu_backward`.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.tanh_backward(np.array([5.0, 5.0]), np.array([0.0, 1000.0]))
        array([5., 0.])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    dx: Array = choose("tanh_backward", x.shape, x.dtype, engine)(dy.reshape(-1), x.reshape(-1))
    return dx.reshape(x.shape)


def sigmoid(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``1 / (1 + exp(-x))``, element by element; arguments and result as for :func:`relu`.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
        array([0. , 0.5, 1. ])
    """
    (x,) = floats(x=x)
    y: Array = choose("sigmoid", x.shape, x.dtype, engine)(x.reshape(-1))
    return y.reshape(x.shape)


def sigmoid_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`sigmoid`, ``dy * s * (1 - s)``; arguments as for :func:`relu_backward`.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.sigmoid_backward(np.array([4.0, 4.0]), np.array([0.0, 1000.0]))
        array([1., 0.])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    dx: Array = choose("sigmoid_backward", x.shape, x.dtype, engine)(dy.reshape(-1), x.reshape(-1))
    return dx.reshape(x.shape)


def dropout(x: ArrayLike, kept: ArrayLike, rate: float, *, engine: str | None = None) -> Array:
    """``x / (1 - rate)`` where it is kept, else 0; the gradient is the same function of dy.

    Args:
        x: numbers, any shape.
        kept: which of them are kept, booleans of the shape of x.
        rate: the share that is not kept on the mean, at least 0 and below 1.
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.dropout(np.array([1.0, 2.0]), np.array([True, False]), 0.5)
        array([2., 0.])

    Source: N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", 2014, with the scale at training time.
    """
    (x,) = floats(x=x)
    share = _number("rate", rate)
    if not 0 <= share < 1:
        raise ValueError(f"rate must be at least 0 and below 1, got {quoted(rate)}")
    mask: Array = np.asarray(kept)
    if mask.dtype != np.bool_:
        raise TypeError(f"kept must hold booleans, got dtype {mask.dtype}")
    shaped("kept", mask, x.shape, "the shape of x")
    flat = np.ascontiguousarray(mask).reshape(-1)
    y: Array = choose("dropout", x.shape, x.dtype, engine)(x.reshape(-1), flat, share)
    return y.reshape(x.shape)


def zero_pad2d(x: ArrayLike, padding: Padding, *, engine: str | None = None) -> Array:
    """Images with zeros around them.

    Args:
        x: images, (N, H, W, C).
        padding: an int, (vertical, horizontal) or ((top, bottom), (left, right)).
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        (N, top + H + bottom, left + W + right, C), of x's dtype.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.zero_pad2d(np.ones((1, 1, 2, 1)), ((1, 0), (0, 1)))[0, :, :, 0]
        array([[0., 0., 0.],
               [1., 1., 0.]])
    """
    (x,) = floats(x=x)
    margins = _margins("x", x, padding)
    y: Array = choose("zero_pad2d", (*x.shape, *margins), x.dtype, engine)(x, margins)
    return y


def zero_pad2d_backward(dy: ArrayLike, padding: Padding, *, engine: str | None = None) -> Array:
    """Gradient of :func:`zero_pad2d`: dy without its margins.

    Args:
        dy: gradient of the output, (N, top + H + bottom, left + W + right, C).
        padding: as it was given to :func:`zero_pad2d`.
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        dx, (N, H, W, C).

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

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
    dx: Array = choose("zero_pad2d_backward", (*dy.shape, *margins), dy.dtype, engine)(dy, margins)
    return dx


def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike,
    beta: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> tuple[Array, Array, Array]:
    """Batch normalisation in training: ``gamma * (x - mean) / √(variance + epsilon) + beta``.

    Mean and variance are those of each channel over all other axes, the variance the mean square
    distance from the mean; both are summed in float64.

    Args:
        x: images (N, H, W, C), samples (N, C), or any other shape with the channels last.
        gamma: scale, (C,).
        beta: offset, (C,).
        epsilon: keeps the quotient finite, at least 0.
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        y in the shape of x, mean (C,), variance (C,); of the common dtype. An empty batch has
        mean and variance 0.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message;
            x with one value for each channel, which has no variance.

    Example:
        >>> import numpy as np, fastcnn
        >>> y, mean, variance = fastcnn.batch_norm(
        ...     np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1), 0.0)
        >>> y[:, 0], mean, variance
        (array([-1.,  1.]), array([2.]), array([1.]))

    Source: S. Ioffe, C. Szegedy, "Batch Normalization", arXiv:1502.03167.
    """
    x, gamma, beta = floats(x=x, gamma=gamma, beta=beta)
    rows = _several(x, _channel_rows(x, gamma=gamma, beta=beta))
    small = _epsilon(epsilon)
    function = choose("batch_norm", rows.shape, x.dtype, engine)
    y, mean, variance = function(rows, gamma, beta, small)
    return y.reshape(x.shape), mean, variance


def batch_norm_inference(
    x: ArrayLike,
    gamma: ArrayLike,
    beta: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> Array:
    """Batch normalisation with a mean and variance that are given, such as running ones.

    Args:
        x, gamma, beta, epsilon, engine: as for :func:`batch_norm`.
        mean, variance: of each channel, (C,).

    Returns:
        y in the shape of x, of the common dtype.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.batch_norm_inference(
        ...     np.array([[5.0]]), np.ones(1), np.ones(1), np.array([1.0]), np.array([4.0]), 0.0)
        array([[3.]])
    """
    x, gamma, beta, mean, variance = floats(
        x=x, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    rows = _channel_rows(x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    small = _epsilon(epsilon)
    function = choose("batch_norm_inference", rows.shape, x.dtype, engine)
    y: Array = function(rows, gamma, beta, mean, variance, small)
    return y.reshape(x.shape)


def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    epsilon: float = 1e-3,
    *,
    engine: str | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of :func:`batch_norm`: ``(dx, dgamma, dbeta)``.

    Args:
        dy: gradient of the output, the shape of x.
        x, gamma, epsilon, engine: as they were given to :func:`batch_norm`.
        mean, variance: as it returned them, (C,).

    Returns:
        dx in the shape of x, dgamma (C,), dbeta (C,); of the common dtype.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy, x = np.array([[2.0], [4.0]]), np.array([[1.0], [3.0]])
        >>> fastcnn.batch_norm_backward(dy, x, np.ones(1), np.array([2.0]), np.ones(1), 0.0)
        (array([[0.],
               [0.]]), array([2.]), array([6.]))
    """
    dy, x, gamma, mean, variance = floats(dy=dy, x=x, gamma=gamma, mean=mean, variance=variance)
    shaped("dy", dy, x.shape, "the shape of x")
    rows = _several(x, _channel_rows(x, gamma=gamma, mean=mean, variance=variance))
    small = _epsilon(epsilon)
    function = choose("batch_norm_backward", rows.shape, x.dtype, engine)
    dx, dgamma, dbeta = function(dy.reshape(rows.shape), rows, gamma, mean, variance, small)
    return dx.reshape(x.shape), dgamma, dbeta


def _several(x: Array, rows: Array) -> Array:
    """``rows``, if there are two at least, or none: one value has no variance."""
    if len(rows) == 1:
        raise ValueError(
            f"x must hold more than one value for each channel, because one value has no variance, "
            f"got the shape {x.shape}; use a larger batch, or batch_norm_inference with running "
            f"statistics"
        )
    return rows


def softmax(x: ArrayLike, *, engine: str | None = None) -> Array:
    """``exp(x) / Σ exp(x)`` over the last axis, shifted by the maximum so that nothing overflows.

    Args:
        x: scores, any shape of at least one axis; the classes are the last, (..., C).
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        The shape and dtype of x; each row sums to 1.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.softmax(np.array([[1000.0, 1000.0]]))
        array([[0.5, 0.5]])
    """
    x, rows = _rows(x)
    y: Array = choose("softmax", rows.shape, x.dtype, engine)(rows)
    return y.reshape(x.shape)


def softmax_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`softmax` at ``x`` for the gradient ``dy`` of its output.

    Args:
        dy: gradient of the output, the shape of x.
        x, engine: as they were given to :func:`softmax`.

    Returns:
        dx, the shape of x, of the common dtype.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.softmax_backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
        array([ 0.25, -0.25])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    x, rows = _rows(x)
    dx: Array = choose("softmax_backward", rows.shape, x.dtype, engine)(
        dy.reshape(rows.shape), rows
    )
    return dx.reshape(x.shape)


def log_softmax(x: ArrayLike, *, engine: str | None = None) -> Array:
    """Logarithm of :func:`softmax`, computed without the detour through tiny probabilities.

    Arguments and result as for :func:`softmax`.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.log_softmax(np.array([0.0, -2000.0]))
        array([    0., -2000.])
    """
    x, rows = _rows(x)
    y: Array = choose("log_softmax", rows.shape, x.dtype, engine)(rows)
    return y.reshape(x.shape)


def log_softmax_backward(dy: ArrayLike, x: ArrayLike, *, engine: str | None = None) -> Array:
    """Gradient of :func:`log_softmax` at ``x`` for the gradient ``dy`` of its output.

    Arguments and result as for :func:`softmax_backward`.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.log_softmax_backward(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
        array([ 0.5, -0.5])
    """
    dy, x = floats(dy=dy, x=x)
    shaped("dy", dy, x.shape, "the shape of x")
    x, rows = _rows(x)
    dx: Array = choose("log_softmax_backward", rows.shape, x.dtype, engine)(
        dy.reshape(rows.shape), rows
    )
    return dx.reshape(x.shape)


def cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    reduction: Reduction = "mean",
    engine: str | None = None,
) -> Any:
    """Softmax cross-entropy, ``-log_softmax(logits)[label]``, of each sample.

    Args:
        logits: scores before the softmax, (N, C).
        labels: integer class of each sample, (N,), in ``range(C)``; or a row of probabilities p for
            each, (N, C), none negative and with the sum 1. The loss is then ``-Σ p · log_softmax``.
        reduction: "mean" or "sum" over the batch, or "none".
        engine: an engine's name, or None for the fastest that serves.

    Returns:
        A scalar of the dtype of logits (0 for an empty batch), or with "none" the losses, (N,).

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or value, named in the message.

    Example:
        >>> import numpy as np, fastcnn
        >>> round(float(fastcnn.cross_entropy(np.zeros((5, 10)), [0, 1, 2, 3, 4])), 4)
        2.3026
        >>> round(float(fastcnn.cross_entropy([[0.0, 1.0]], [[0.5, 0.5]])), 4)
        0.8133
    """
    logits, numbers, scale = _loss_arguments(logits, labels, reduction)
    losses: Array = choose("cross_entropy", logits.shape, logits.dtype, engine)(logits, numbers)
    return losses if reduction == "none" else _total(losses, scale)


def cross_entropy_backward(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    reduction: Reduction = "mean",
    engine: str | None = None,
) -> Array:
    """Gradient of :func:`cross_entropy` with respect to the logits, (N, C).

    It is the softmax, less 1 at the label or less the row of probabilities. With
    ``reduction="none"`` each sample's gradient is that of its own loss, as with "sum".

    Arguments as for :func:`cross_entropy`.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.cross_entropy_backward(np.zeros((1, 4)), [2])
        array([[ 0.25,  0.25, -0.75,  0.25]])
    """
    logits, numbers, scale = _loss_arguments(logits, labels, reduction)
    gradient: Array = choose("cross_entropy_backward", logits.shape, logits.dtype, engine)(
        logits, numbers
    )
    scaled: Array = gradient * logits.dtype.type(scale)
    return scaled


def explain(op: str, *args: Any, **kwargs: Any) -> Explanations:
    """What will serve this call, and why; nothing is computed.

    Takes the name of a public function and its arguments, where a tuple of ints may stand for an
    array of that shape (float32). Argument errors are raised as the call itself would.

    >>> print(explain("max_pool2d", (1, 26, 26, 8), 2, engine="naive"))
    max_pool2d: naive.max_pool2d, the specification, in Python loops
      not numba.max_pool2d: the engine 'naive' was asked for
      not im2col.max_pool2d: the engine 'naive' was asked for
      problem: (1, 26, 26, 8) -> (1, 13, 13, 8), float32
    """
    function = getattr(sys.modules[__name__], op, None) if op in EXPLAINABLE else None
    if function is None:
        raise ValueError(f"op must be one of {', '.join(EXPLAINABLE)}, got {quoted(op)}")
    arrays = function.__code__.co_varnames[: function.__code__.co_argcount]
    stand_in = {
        name: np.empty(value, np.float32)
        for name, value in zip(arrays, args, strict=False)
        if name in _ARRAYS and isinstance(value, tuple) and all(type(v) is int for v in value)
    }
    given = [stand_in.get(name, value) for name, value in zip(arrays, args, strict=False)]
    return Explanations(recorded(lambda: function(*given, *args[len(given) :], **kwargs)))


class Explanations(tuple[Explanation, ...]):
    """One ``Explanation`` for each operation that a call is made of."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))


_ARRAYS = frozenset({"x", "w", "b", "dy", "logits", "gamma", "beta", "mean", "variance"})

EXPLAINABLE = (
    "conv2d",
    "conv2d_backward",
    "conv2d_input_gradient",
    "conv2d_filter_gradient",
    "conv2d_bias_gradient",
    "max_pool2d",
    "max_pool2d_backward",
    "min_pool2d",
    "min_pool2d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "dense",
    "dense_backward",
    "relu",
    "relu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "tanh",
    "tanh_backward",
    "sigmoid",
    "sigmoid_backward",
    "dropout",
    "zero_pad2d",
    "zero_pad2d_backward",
    "batch_norm",
    "batch_norm_inference",
    "batch_norm_backward",
    "softmax",
    "softmax_backward",
    "log_softmax",
    "log_softmax_backward",
    "cross_entropy",
    "cross_entropy_backward",
)


def _activation(value: object) -> None:
    if value is not None and value != "relu":
        raise ValueError(f'activation must be "relu" or None, got {quoted(value)}')


def _image_shape(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(side) is int for side in value):
        raise TypeError(f"{name} must be a tuple of ints, got {quoted(value)}")
    if len(value) != 4 or min(value) < 0:
        raise ValueError(f"{name} must be (N, H, W, IC), none negative, got {quoted(value)}")
    return tuple(value)


def _pool_arguments(
    x: ArrayLike, size: Pair, stride: Pair | None, padding: Padding
) -> tuple[Array, PoolGeometry]:
    (array,) = floats(x=x)
    return array, pool_geometry(array.shape, size, stride=stride, padding=padding)


def _pool_gradient_arguments(
    dy: ArrayLike, x: ArrayLike, size: Pair, stride: Pair | None, padding: Padding
) -> tuple[Array, Array, PoolGeometry]:
    gradient, array = floats(dy=dy, x=x)
    g = pool_geometry(array.shape, size, stride=stride, padding=padding)
    shaped("dy", gradient, g.output_shape, "the output's shape")
    return gradient, array, g


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise TypeError(f"{name} must be a number, got {quoted(value)}")
    try:
        found = float(value)
    except OverflowError:  # an integer beyond all floats
        found = inf
    if not isfinite(found):
        raise ValueError(f"{name} must be finite, got {quoted(value)}")
    return found


def _epsilon(value: object) -> float:
    epsilon = _number("epsilon", value)
    if epsilon < 0:
        raise ValueError(f"epsilon must be at least 0, got {quoted(value)}")
    return epsilon


def _margins(name: str, images: Array, padding: object) -> tuple[int, int, int, int]:
    if images.ndim != 4:
        raise ValueError(f"{name} must have the shape (N, H, W, C), got {images.shape}")
    if isinstance(padding, str):
        raise ValueError(
            f"padding must be an int, (vertical, horizontal) or ((top, bottom), (left, right)), "
            f"got {quoted(padding)}"
        )
    return pads(padding, (1, 1), (1, 1), (1, 1))


def _channel_rows(x: Array, **channels: Array) -> Array:
    if x.ndim < 2 or x.shape[-1] < 1:
        raise ValueError(f"x must have the shape (N, …, C), C at least 1, got {x.shape}")
    for name, array in channels.items():
        shaped(name, array, x.shape[-1:], "one number per channel")
    rows: Array = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    return rows


def _dense_sides(x: Array, w: Array) -> tuple[int, int, int]:
    if x.ndim != 2:
        raise ValueError(f"x must have the shape (N, I), got {x.shape}")
    if w.ndim != 2 or min(w.shape) < 1:
        raise ValueError(f"w must have the shape (I, O), both at least 1, got {w.shape}")
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"w must have I = {x.shape[1]} rows, as x has columns, got {w.shape}")
    return x.shape[0], w.shape[0], w.shape[1]


def _rows(x: ArrayLike) -> tuple[Array, Array]:
    (array,) = floats(x=x)
    if array.ndim < 1 or array.shape[-1] < 1:
        raise ValueError(f"x must have at least one class on its last axis, got {array.shape}")
    return array, array.reshape(-1, array.shape[-1])


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
    wanted = class_targets(labels, scores.shape, scores.dtype)
    return scores, wanted, 1 / max(len(scores), 1) if reduction == "mean" else 1.0
