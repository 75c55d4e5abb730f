"""The article's worked examples: a 4×4 image by a 3×3 filter, Sobel filters, "same" padding.

>>> VERTICAL_SOBEL
array([[-1.,  0.,  1.],
       [-2.,  0.,  2.],
       [-1.,  0.,  1.]])
>>> four_by_four()
array([[  29., -192.],
       [ -35.,  -22.]])
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastcnn import ops
from fastcnn.core.arguments import Array, floats

IMAGE: Array = np.array([[0, 50, 0, 29], [0, 80, 31, 2], [33, 90, 0, 75], [0, 9, 0, 95]], float)
"""The article's 4×4 image."""

VERTICAL_SOBEL: Array = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], float)
"""Finds vertical edges: bright on the right of dark gives large values."""

HORIZONTAL_SOBEL: Array = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]], float)
"""Finds horizontal edges: bright above dark gives large values."""

for _constant in (IMAGE, VERTICAL_SOBEL, HORIZONTAL_SOBEL):
    _constant.setflags(write=False)


def filter_image(
    image: ArrayLike,
    kernel: ArrayLike,
    *,
    padding: Literal["valid", "same"] = "valid",
    engine: str | None = None,
) -> Array:
    """One grey image by one filter.

    Args:
        image: (H, W).
        kernel: the filter, (KH, KW).
        padding: "valid" for none, "same" for an output of the image's size.
        engine: an engine's name, or None for the fastest.

    Returns:
        (H − KH + 1, W − KW + 1) for "valid", (H, W) for "same".

    Raises:
        TypeError, ValueError: an argument of the wrong type, rank or value, named in the message.

    Example:
        >>> filter_image([[1, 2, 3], [4, 5, 6]], [[1, -1]])
        array([[-1., -1.],
               [-1., -1.]])
    """
    pixels, taps = floats(image=image, kernel=kernel)
    if pixels.ndim != 2:
        raise ValueError(f"image must have the shape (H, W), got {pixels.shape}")
    if taps.ndim != 2:
        raise ValueError(f"kernel must have the shape (KH, KW), got {taps.shape}")
    x, w = pixels[np.newaxis, :, :, np.newaxis], taps[:, :, np.newaxis, np.newaxis]
    return np.ascontiguousarray(ops.conv2d(x, w, padding=padding, engine=engine)[0, :, :, 0])


def four_by_four(*, engine: str | None = None) -> Array:
    """The article's first example: its 4×4 image by the vertical Sobel filter gives 2×2."""
    return filter_image(IMAGE, VERTICAL_SOBEL, engine=engine)


def same_padding(*, engine: str | None = None) -> Array:
    """The same example with a border of zeros around the image, so that 4×4 stays 4×4.

    >>> same_padding()
    array([[ 180.,   31., -120.,  -31.],
           [ 300.,   29., -192.,  -62.],
           [ 269.,  -35.,  -22.,  -31.],
           [ 108.,  -33.,  157.,    0.]])
    """
    return filter_image(IMAGE, VERTICAL_SOBEL, padding="same", engine=engine)


def vertical_sobel(image: ArrayLike, *, engine: str | None = None) -> Array:
    """Vertical edges of a grey image (H, W), in its size.

    >>> vertical_sobel([[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]])[1]
    array([  0.,  36.,  36., -36.])
    """
    return filter_image(image, VERTICAL_SOBEL, padding="same", engine=engine)


def horizontal_sobel(image: ArrayLike, *, engine: str | None = None) -> Array:
    """Horizontal edges of a grey image (H, W), in its size.

    >>> horizontal_sobel([[9, 9, 9], [9, 9, 9], [0, 0, 0], [0, 0, 0]])[:, 1]
    array([-36.,  36.,  36.,   0.])
    """
    return filter_image(image, HORIZONTAL_SOBEL, padding="same", engine=engine)
