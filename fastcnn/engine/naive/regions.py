"""Regions of an image, one for each output position, like the article's ``iterate_regions``.

A region holds only pixels inside the image. Padding is never stored, multiplied or compared: an
output at the border sees fewer pixels, through fewer taps of the filter. Therefore an infinite
weight over the padding does no harm; times a stored 0 it would give NaN.

Regions are views, so adding to a region adds to its image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry

Taps: TypeAlias = tuple[slice, slice]


def iterate_regions(image: Array, g: ConvGeometry) -> Iterator[tuple[Array, Taps, int, int]]:
    """Yield ``(im_region, taps, i, j)`` for each output position (i, j) of a convolution.

    Args:
        image: one image, (H, W, C) for any C.
        g: the geometry.

    Yields:
        im_region: the pixels that the filter meets, a view of shape (at most KH, at most KW, C).
        taps: the taps that meet these pixels: ``w[taps]`` has the region's height and width.
        i, j: the position in the output.

    Example, a 3×3 filter on a 4×5 image with one pixel of padding around it:
        >>> import numpy as np
        >>> from fastcnn.core.geometry import conv_geometry
        >>> g = conv_geometry((1, 4, 5, 1), (3, 3, 1, 1), padding=1)
        >>> im_region, taps, i, j = next(iterate_regions(np.zeros((4, 5, 1)), g))
        >>> im_region.shape, taps, (i, j)
        ((2, 2, 1), (slice(1, 3, None), slice(1, 3, None)), (0, 0))
    """
    rows = [_meet(i * g.stride_h - g.pad_top, g.kh, g.dilation_h, g.h) for i in range(g.oh)]
    columns = [_meet(j * g.stride_w - g.pad_left, g.kw, g.dilation_w, g.w) for j in range(g.ow)]
    for i, (pixel_rows, tap_rows) in enumerate(rows):
        for j, (pixel_columns, tap_columns) in enumerate(columns):
            yield image[pixel_rows, pixel_columns], (tap_rows, tap_columns), i, j


def iterate_windows(image: Array, g: PoolGeometry) -> Iterator[tuple[Array, int, int]]:
    """Yield ``(im_region, i, j)`` for each output position (i, j) of a pooling.

    Args:
        image: one image, (H, W, C).
        g: the geometry.

    Yields:
        im_region: the window's pixels in the image, a view of shape (1 to KH, 1 to KW, C).
        i, j: the position in the output.

    Example:
        >>> import numpy as np
        >>> from fastcnn.core.geometry import pool_geometry
        >>> image = np.arange(8).reshape(2, 4, 1)
        >>> for im_region, i, j in iterate_windows(image, pool_geometry((1, 2, 4, 1), 2)):
        ...     print(im_region[:, :, 0].tolist(), i, j)
        [[0, 1], [4, 5]] 0 0
        [[2, 3], [6, 7]] 0 1
    """
    rows = [_meet(i * g.stride_h - g.pad_top, g.kh, 1, g.h)[0] for i in range(g.oh)]
    columns = [_meet(j * g.stride_w - g.pad_left, g.kw, 1, g.w)[0] for j in range(g.ow)]
    for i, pixel_rows in enumerate(rows):
        for j, pixel_columns in enumerate(columns):
            yield image[pixel_rows, pixel_columns], i, j


def iterate_groups(g: ConvGeometry) -> Iterator[tuple[slice, slice]]:
    """Yield ``(inputs, outputs)``: the channels that each group reads, and the ones it writes.

    >>> from fastcnn.core.geometry import conv_geometry
    >>> list(iterate_groups(conv_geometry((1, 3, 3, 2), (3, 3, 1, 6), groups=2)))
    [(slice(0, 1, None), slice(0, 3, None)), (slice(1, 2, None), slice(3, 6, None))]
    """
    for group in range(g.groups):
        yield (
            slice(group * g.group_ic, (group + 1) * g.group_ic),
            slice(group * g.group_oc, (group + 1) * g.group_oc),
        )


def _meet(start: int, taps: int, dilation: int, size: int) -> tuple[slice, slice]:
    """The pixels that a filter at ``start`` meets along one side of the image, and their taps.

    ``start`` is the pixel under tap 0; it may lie in the padding.
    """
    inside = [tap for tap in range(taps) if 0 <= start + tap * dilation < size]
    if not inside:
        return slice(0), slice(0)
    first, last = inside[0], inside[-1]
    return (
        slice(start + first * dilation, start + last * dilation + 1, dilation),
        slice(first, last + 1),
    )
