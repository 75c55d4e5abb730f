"""Zeros around images, and the gradient."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array


def zero_pad2d(x: Array, margins: tuple[int, int, int, int]) -> Array:
    """The images with zeros at the top, bottom, left and right."""
    top, bottom, left, right = margins
    y: Array = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    return y


def zero_pad2d_backward(dy: Array, margins: tuple[int, int, int, int]) -> Array:
    """``dx``: dy without its margins."""
    top, bottom, left, right = margins
    rows = slice(top, dy.shape[1] - bottom)
    columns = slice(left, dy.shape[2] - right)
    return np.array(dy[:, rows, columns], order="C")
