"""Images in another size, and the gradient: weighted sums of whole rows, then of whole columns.

Both directions are the same computation. A result reads consecutive sources, forward one or two
pixels and backward all outputs in which a pixel takes part. Step ``k`` adds source ``k`` of all
results that have so many. So a source that a result does not have is never multiplied, and no
infinity meets a weight of 0.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.resizing import ResizeGeometry, Sources
from fastcnn.engine.im2col.products import totals_dtype
from fastcnn.engine.im2col.windows import slices


def resize2d(x: Array, g: ResizeGeometry) -> Array:
    """``y``, (N, OH, OW, C)."""
    return _weighted_sums(x, g.output_shape, g.rows, g.columns)


def resize2d_backward(dy: Array, g: ResizeGeometry) -> Array:
    """``dx``, (N, H, W, C)."""
    return _weighted_sums(dy, g.input_shape, g.outputs_of_rows, g.outputs_of_columns)


def _weighted_sums(
    x: Array, shape: tuple[int, int, int, int], rows: Sources, columns: Sources
) -> Array:
    """Weighted sums over rows and columns of x, as a new array of this shape."""
    y = np.zeros(shape, x.dtype)
    n, height, width, channels = shape
    if y.size == 0:
        return y
    # Sums over rows and sums over columns follow on each other, and each term is rounded in both.
    dtype = totals_dtype(x.dtype, int(rows.counts.max() + columns.counts.max()))
    # A step holds sums over rows, the next rows that they need, and sums over columns.
    row_bytes = (3 * x.shape[2] + 2 * width) * channels * dtype.itemsize
    for images, part in slices(n, height, row_bytes):
        sums = _along(x[images], 1, rows, part, dtype)
        y[images, part] = _along(sums, 2, columns, slice(0, width), dtype)
        del sums  # before the next is made
    return y


def _along(
    x: Array, axis: int, sources: Sources, part: slice, dtype: np.dtype[np.floating]
) -> Array:
    """The weighted sums of a part of the results along one axis."""
    first, counts = sources.first[part], sources.counts[part]
    starts = sources.starts[part]
    shape = list(x.shape)
    shape[axis] = len(first)
    sums = np.zeros(shape, dtype)
    of_results = np.moveaxis(sums, axis, 0)
    for k in range(int(counts.max(initial=0))):
        has = counts > k
        weights = sources.weights[starts[has] + k].astype(dtype)
        values = np.moveaxis(np.take(x, first[has] + k, axis), axis, 0)
        of_results[has] += values * weights[:, np.newaxis, np.newaxis, np.newaxis]
    return sums
