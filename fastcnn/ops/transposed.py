"""Transposed convolution, which enlarges images by filters, and its gradients."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, floats, shaped
from fastcnn.core.geometry import Padding, Pair, transposed_geometry
from fastcnn.engine import registry
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
    x, w, b = floats(x=x, w=w, b=b)
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
    y: Array = registry.choose("conv2d_transpose", g, x.dtype, engine, algorithm, math)(
        x, w, b, activation, g
    )
    return y


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
    dy, x, w = floats(dy=dy, x=x, w=w)
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
    to_input = registry.choose("conv2d", g, x.dtype, engine, algorithm, math)
    to_filters = registry.choose("conv2d_filter_gradient", g, x.dtype, engine, algorithm, math)
    sums = geometry_of_pixels(g.input_shape)
    to_bias = registry.choose("conv2d_bias_gradient", sums, x.dtype, engine)
    return to_input(dy, w, None, None, g), to_filters(x, dy, g), to_bias(dy, sums)
