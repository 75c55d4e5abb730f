"""Conversions between fastcnn's layouts (NHWC, HWIO) and PyTorch's (NCHW, OIHW)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array


def nchw_to_nhwc(x: ArrayLike) -> Array:
    """Activations (N, C, H, W) as a new C-contiguous (N, H, W, C).

    >>> nchw_to_nhwc(np.zeros((2, 3, 4, 5))).shape
    (2, 4, 5, 3)
    """
    return _permuted("x", x, (0, 2, 3, 1), "(N, C, H, W)")


def nhwc_to_nchw(x: ArrayLike) -> Array:
    """Activations (N, H, W, C) as a new C-contiguous (N, C, H, W).

    >>> nhwc_to_nchw(np.zeros((2, 4, 5, 3))).shape
    (2, 3, 4, 5)
    """
    return _permuted("x", x, (0, 3, 1, 2), "(N, H, W, C)")


def oihw_to_hwio(w: ArrayLike) -> Array:
    """Filters (OC, IC/groups, KH, KW) as a new C-contiguous (KH, KW, IC/groups, OC).

    >>> oihw_to_hwio(np.zeros((8, 3, 5, 7))).shape
    (5, 7, 3, 8)
    """
    return _permuted("w", w, (2, 3, 1, 0), "(OC, IC/groups, KH, KW)")


def hwio_to_oihw(w: ArrayLike) -> Array:
    """Filters (KH, KW, IC/groups, OC) as a new C-contiguous (OC, IC/groups, KH, KW).

    >>> hwio_to_oihw(np.zeros((5, 7, 3, 8))).shape
    (8, 3, 5, 7)
    """
    return _permuted("w", w, (3, 2, 0, 1), "(KH, KW, IC/groups, OC)")


def _permuted(name: str, value: ArrayLike, axes: tuple[int, ...], form: str) -> Array:
    array = np.asarray(value)
    if array.ndim != 4:
        raise ValueError(f"{name} must have the shape {form}, got {array.shape}")
    return np.array(array.transpose(axes), order="C", copy=True)
