"""Zeros around images, and the gradient."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array

Margins = tuple[int, int, int, int]
"""Pixels at the top, bottom, left and right."""


def zero_pad2d(x: Array, margins: Margins) -> Array:
    """The images with zeros around them.

    (N, H, W, C) to (N, top + H + bottom, left + W + right, C).

    >>> zero_pad2d(np.ones((1, 1, 2, 1)), (1, 0, 0, 1))[0, :, :, 0]
    array([[0., 0., 0.],
           [1., 1., 0.]])
    """
    top, bottom, left, right = margins
    n, h, w, c = x.shape
    y = np.zeros((n, top + h + bottom, left + w + right, c), x.dtype)
    y[:, top : top + h, left : left + w] = x
    return y


def zero_pad2d_backward(dy: Array, margins: Margins) -> Array:
    """Gradient dx: dy without its margins."""
    top, bottom, left, right = margins
    _, h, w, _ = dy.shape
    return dy[:, top : h - bottom, left : w - right].copy()
