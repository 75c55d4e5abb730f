"""Convolution, its gradients, and transposed convolution, region by region.

One output is the sum over its region of pixel times filter tap. So the gradient of a pixel is the
sum of tap times output gradient, over all regions that hold the pixel. The gradient of a tap is the
sum of pixel times output gradient, over all regions. The gradient of the pixels, taken as an
operation of its own, is the transposed convolution.

Source: V. Zhou, "CNNs, Part 1" and "Part 2"; V. Dumoulin, F. Visin, "A guide to convolution
arithmetic for deep learning", arXiv:1603.07285.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.engine.naive.activations import relu
from fastcnn.engine.naive.regions import iterate_groups, iterate_regions


def conv2d(x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry) -> Array:
    """Images x (N, H, W, IC) by filters w (KH, KW, IC/groups, OC), bias b (OC,): (N, OH, OW, OC).

    >>> from fastcnn.core.geometry import conv_geometry
    >>> x, w = np.arange(12.0).reshape(1, 3, 4, 1), np.ones((2, 2, 1, 1))
    >>> conv2d(x, w, None, None, conv_geometry(x.shape, w.shape))[0, :, :, 0]
    array([[10., 14., 18.],
           [26., 30., 34.]])
    """
    images, filters = x.astype(np.float64), w.astype(np.float64)
    y = np.zeros(g.output_shape)
    for n in range(g.n):
        for im_region, taps, i, j in iterate_regions(images[n], g):
            for inputs, outputs in iterate_groups(g):
                products = im_region[:, :, inputs, np.newaxis] * filters[taps][..., outputs]
                y[n, i, j, outputs] = np.sum(products, axis=(0, 1, 2))
    if b is not None:
        y += b
    if activation == "relu":
        y = relu(y)
    return y.astype(x.dtype)


def conv2d_input_gradient(dy: Array, w: Array, g: ConvGeometry) -> Array:
    """Gradient dx (N, H, W, IC) of the images, for the output's gradient dy (N, OH, OW, OC).

    Each gradient goes back to the region that its output was made of, through the same taps. This
    is the transposed convolution of dy.
    """
    return conv2d_transpose(dy, w, None, None, g)


def conv2d_transpose(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry
) -> Array:
    """Images x (N, OH, OW, OC) by filters w (KH, KW, IC/groups, OC), bias b (IC,): (N, H, W, IC).

    ``g`` is the convolution that goes the other way, so its outputs are the pixels of x, and its
    input is y. Each pixel of x adds its number times the filter to its region of y.

    >>> from fastcnn.core.geometry import transposed_geometry
    >>> x, w = np.array([1.0, 10.0]).reshape(1, 1, 2, 1), np.ones((2, 3, 1, 1))
    >>> conv2d_transpose(x, w, None, None, transposed_geometry(x.shape, w.shape))[0, :, :, 0]
    array([[ 1., 11., 11., 10.],
           [ 1., 11., 11., 10.]])
    """
    filters, pixels = w.astype(np.float64), x.astype(np.float64)
    y = np.zeros(g.input_shape)
    for n in range(g.n):
        for y_region, taps, i, j in iterate_regions(y[n], g):
            for inputs, outputs in iterate_groups(g):
                products = filters[taps][..., outputs] * pixels[n, i, j, outputs]
                y_region[:, :, inputs] += np.sum(products, axis=-1)
    if b is not None:
        y += b
    if activation == "relu":
        y = relu(y)
    return y.astype(x.dtype)


def conv2d_filter_gradient(dy: Array, x: Array, g: ConvGeometry) -> Array:
    """Gradient dw (KH, KW, IC/groups, OC) of the filters, for dy (N, OH, OW, OC)."""
    images, gradients = x.astype(np.float64), dy.astype(np.float64)
    dw = np.zeros(g.filter_shape)
    for n in range(g.n):
        for im_region, taps, i, j in iterate_regions(images[n], g):
            for inputs, outputs in iterate_groups(g):
                products = im_region[:, :, inputs, np.newaxis] * gradients[n, i, j, outputs]
                dw[taps][..., outputs] += products
    return dw.astype(dy.dtype)


def conv2d_bias_gradient(dy: Array, g: ConvGeometry) -> Array:
    """Gradient db (OC,) of the bias: the sum of dy over all positions of all images."""
    db = np.zeros(g.oc)
    for gradient in dy.astype(np.float64):
        db += np.sum(gradient, axis=(0, 1))
    return db.astype(dy.dtype)
