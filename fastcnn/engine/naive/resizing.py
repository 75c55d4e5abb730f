"""Images in another size, and the gradient.

A pixel of the result is a weighted sum over a region of one or two rows and columns of the image.
:class:`~fastcnn.core.resizing.ResizeGeometry` says which, and with which weights. So the gradient
of a pixel of the image is a sum over all regions that hold the pixel.

Source: ONNX, operator Resize.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.resizing import ResizeGeometry, Sources


def resize2d(x: Array, g: ResizeGeometry) -> Array:
    """Images x (N, H, W, C) as y (N, OH, OW, C).

    >>> from fastcnn.core.resizing import resize_geometry
    >>> x = np.array([[0.0, 8.0]]).reshape(1, 1, 2, 1)
    >>> g = resize_geometry(x.shape, (1, 4), "bilinear", "half_pixel", "floor")
    >>> resize2d(x, g)[0, :, :, 0]
    array([[0., 2., 6., 8.]])
    """
    images = x.astype(np.float64)
    y = np.zeros(g.output_shape)
    for n in range(g.n):
        for im_region, weights, i, j in _iterate_sources(images[n], g):
            y[n, i, j] = np.sum(im_region * weights, axis=(0, 1))
    return y.astype(x.dtype)


def resize2d_backward(dy: Array, g: ResizeGeometry) -> Array:
    """Gradient dx (N, H, W, C): each dy goes to the pixels of its region, times their weights."""
    gradients = dy.astype(np.float64)
    dx = np.zeros(g.input_shape)
    for n in range(g.n):
        for dx_region, weights, i, j in _iterate_sources(dx[n], g):
            dx_region += gradients[n, i, j] * weights
    return dx.astype(dy.dtype)


def _iterate_sources(image: Array, g: ResizeGeometry) -> Iterator[tuple[Array, Array, int, int]]:
    """Yield ``(im_region, weights, i, j)`` for each pixel (i, j) of the result.

    ``im_region`` is a view of the image, (rows, columns, C), and ``weights`` is (rows, columns, 1).
    """
    for i in range(g.oh):
        rows, weights_of_rows = _source(g.rows, i)
        for j in range(g.ow):
            columns, weights_of_columns = _source(g.columns, j)
            weights = np.outer(weights_of_rows, weights_of_columns)[:, :, np.newaxis]
            yield image[rows, columns], weights, i, j


def _source(sources: Sources, i: int) -> tuple[slice, Array]:
    """The sources of result ``i`` along one side, and their weights."""
    weights = sources.weights[sources.starts[i] : sources.starts[i + 1]]
    first = int(sources.first[i])
    return slice(first, first + len(weights)), weights
