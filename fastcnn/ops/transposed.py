"""Transposed convolution, which enlarges images by filters, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, shaped
from fastcnn.core.geometry import Padding, Pair, transposed_geometry
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.checks import Activation, Algorithm, Math, check_activation, geometry_of_pixels
from fastcnn.ops.declaration import operation

_TRANSPOSED = """
x: images, (N, H, W, IC).
dy: gradient of the output, (N, OH, OW, OC).
stride: pixels of the result from one pixel of x to the next, an int or (vertical, horizontal).
    Default 1.
padding: which pixels of the result are left out: "valid", "same", an int,
    (vertical, horizontal) or ((top, bottom), (left, right)). Default "valid".
output_padding: pixels that are added to the result at the bottom and at the right, an int or
    (vertical, horizontal), below the stride. None means 0, except with "valid" and "same".
    Default None.
dilation: pixels from one tap of a filter to the next, an int or (vertical, horizontal).
    Default 1, which leaves no gaps.
groups: the channels are split into this many independent convolutions; ``groups=IC`` is a
    depthwise transposed convolution. Default 1.
"""


@operation(_TRANSPOSED)
def conv2d_transpose(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = "valid",
    output_padding: Pair | None = None,
    dilation: Pair = 1,
    groups: int = 1,
    activation: Activation = None,
    algorithm: Algorithm = "auto",
    math: Math | None = None,
    engine: str | None = None,
) -> Array:
    """Transposed convolution of a batch of images with filters.

    Each pixel of x adds its number times the filter to a region of y. It is the gradient of
    :func:`conv2d` with respect to its input, with a bias:
    ``y[n, h·S − P + kh·D, w·S − P + kw·D, oc] = b[oc] + Σ x[n, h, w, ic] · w[kh, kw, oc, ic]``.
    The sum goes over all h, w, kh and kw that give the same pixel, and over the input channels of
    oc's group.

    The sides of y follow from the padding. With ``reach = (KH − 1)·D + 1``, the height is

    ==========  ==================================  ==================================
    padding     output_padding None                 output_padding O
    ==========  ==================================  ==================================
    "same"      H·S                                 (H − 1)·S + reach % 2 + O
    "valid"     (H − 1)·S + max(reach, S)           (H − 1)·S + reach + O
    numbers     (H − 1)·S + reach − top − bottom    the same + O
    ==========  ==================================  ==================================

    and the width likewise. The names give the sizes of Keras, the numbers those of PyTorch. With
    "same", half of the pixels that are left out lie at the top and left, and an odd one at the
    bottom or right.

    Args:
        w: filters, (KH, KW, OC/groups, IC), as of Keras and of the :func:`conv2d` that takes y back
            to x.
        b: bias, (OC,), or None for no bias. Default None.

    Returns:
        y, (N, OH, OW, OC), of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
        >>> fastcnn.conv2d_transpose(x, np.ones((2, 2, 1, 1)), stride=2)[0, :, :, 0]
        array([[1., 1., 2., 2.],
               [1., 1., 2., 2.],
               [3., 3., 4., 4.],
               [3., 3., 4., 4.]])
        >>> fastcnn.conv2d_transpose(x, np.ones((3, 3, 5, 1)), stride=2, padding="same").shape
        (1, 4, 4, 5)

    Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285, chapter 4.
    """
    arrays = (x, w) if b is None else (x, w, b)
    sizes = stride, padding, output_padding, dilation, groups
    y: Array = call(_transposed, arrays, *sizes, activation, engine, algorithm, math)
    return y


@binding("x", "w", "b")
def _transposed(
    x: Facts,
    w: Facts,
    b: Facts | None,
    stride: Pair,
    padding: Padding,
    output_padding: Pair | None,
    dilation: Pair,
    groups: int,
    activation: Activation,
    engine: str | None,
    algorithm: Algorithm,
    math: Math | None,
) -> Callable[..., Any]:
    g = transposed_geometry(
        x.shape,
        w.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
    )
    if b is not None:
        shaped("b", b, (g.ic,), "one bias per output channel")
    check_activation(activation)
    how = engine, algorithm, math
    return registry.bind("conv2d_transpose", g, x.dtype, activation, how=how)


@operation(_TRANSPOSED)
def conv2d_transpose_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: Pair = 1,
    padding: Padding = "valid",
    output_padding: Pair | None = None,
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: Algorithm = "auto",
    math: Math | None = None,
    engine: str | None = None,
) -> tuple[Array, Array, Array]:
    """All gradients of :func:`conv2d_transpose` without activation.

    The gradient of x is the convolution of dy. The gradient of w is that of this convolution's
    filters, in which x has the part of the output's gradient.

    Args:
        w: filters, (KH, KW, OC/groups, IC).

    Returns:
        dx (N, H, W, IC), dw (KH, KW, OC/groups, IC) and db (OC,), of the common dtype of the
        arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> x, w = np.ones((1, 2, 3, 1)), np.ones((2, 2, 4, 1))
        >>> dx, dw, db = fastcnn.conv2d_transpose_backward(np.ones((1, 4, 6, 4)), x, w, stride=2)
        >>> dx.shape, dw.shape, db
        ((1, 2, 3, 1), (2, 2, 4, 1), array([24., 24., 24., 24.]))

    Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285, chapter 4.
    """
    sizes = stride, padding, output_padding, dilation, groups
    gradients: tuple[Array, Array, Array] = call(
        _transposed_backward, (dy, x, w), *sizes, engine, algorithm, math
    )
    return gradients


@binding("dy", "x", "w")
def _transposed_backward(
    dy: Facts,
    x: Facts,
    w: Facts,
    stride: Pair,
    padding: Padding,
    output_padding: Pair | None,
    dilation: Pair,
    groups: int,
    *how: Any,
) -> Callable[..., Any]:
    g = transposed_geometry(
        x.shape,
        w.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
    )
    shaped("dy", dy, g.input_shape, "the output's shape")
    to_input = registry.bind("conv2d", g, x.dtype, None, how=how)
    to_filters = registry.bind("conv2d_filter_gradient", g, x.dtype, how=how)
    sums = geometry_of_pixels(g.input_shape)
    to_bias = registry.bind("conv2d_bias_gradient", sums, x.dtype, how=how[:1])
    return lambda dy, x, w: (to_input(dy, w), to_filters(x, dy), to_bias(dy))
