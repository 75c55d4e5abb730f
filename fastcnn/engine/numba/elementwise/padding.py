"""Zeros around images, and their gradient, as copies of rows."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.arrays import readable, record
from fastcnn.engine.numba.runtime.bound import allocator, bound_by, launcher
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import copy_run, zero_run
from fastcnn.engine.numba.runtime.types import Kernel

Margins: TypeAlias = tuple[int, int, int, int]
Shape: TypeAlias = tuple[int, ...]


class PaddedRows(NamedTuple):
    """Images without and with margins, in rows.

    Attributes:
        rows, length: rows of an image without margins, and numbers of a row.
        padded_rows, padded_length: the same with margins.
        top: rows of the margin at the top.
        left: numbers of the margin at the left.
    """

    rows: int
    length: int
    padded_rows: int
    padded_length: int
    top: int
    left: int


def _bound(
    kernel: Kernel, shape: Shape, rows: PaddedRows, dtype: np.dtype[Any]
) -> Callable[[Array], Array]:
    """The bound call of a kernel whose result has this shape."""
    new, numbers = allocator(shape, dtype), record(rows)
    launch = launcher(kernel, shape[0] * shape[1], prod(shape))

    def bound(images: Array) -> Array:
        result = new()
        launch(images.ravel(), result.ravel(), numbers)
        return result

    return bound


def _bind_pad(geometry: Shape, dtype: np.dtype[Any], margins: Margins) -> Callable[[Array], Array]:
    n, h, w, c = geometry[:4]
    top, bottom, left, right = margins
    shape = n, top + h + bottom, left + w + right, c
    return _bound(pad_rows, shape, padded_rows((n, h, w, c), margins), dtype)


@bound_by(_bind_pad)
def zero_pad2d(x: Array, margins: Margins) -> Array:
    """The images with zeros at the top, bottom, left and right."""
    return _bind_pad(x.shape, x.dtype, margins)(readable(x))


def _bind_crop(geometry: Shape, dtype: np.dtype[Any], margins: Margins) -> Callable[[Array], Array]:
    n, h, w, c = geometry[:4]
    top, bottom, left, right = margins
    shape = n, h - top - bottom, w - left - right, c
    return _bound(crop_rows, shape, padded_rows(shape, margins), dtype)


@bound_by(_bind_crop)
def zero_pad2d_backward(dy: Array, margins: Margins) -> Array:
    """``dx``: dy without its margins."""
    return _bind_crop(dy.shape, dy.dtype, margins)(readable(dy))


def padded_rows(shape: tuple[int, ...], margins: Margins) -> PaddedRows:
    """The rows of images whose shape without margins is ``shape``."""
    top, bottom, left, right = margins
    _, h, w, c = shape
    return PaddedRows(h, w * c, top + h + bottom, (left + w + right) * c, top, left * c)


@kernel
def pad_rows(start: int, stop: int, x: Array, y: Array, numbers: Array) -> None:
    """Rows ``start`` to ``stop`` of y, images with margins, from x, images without; flat."""
    s: PaddedRows = numbers[0]
    for row in range(start, stop):
        n, ih, at = row // s.padded_rows, row % s.padded_rows - s.top, row * s.padded_length
        if ih < 0 or ih >= s.rows:
            zero_run(y, at, s.padded_length)
        else:
            zero_run(y, at, s.left)
            copy_run(y, at + s.left, x, (n * s.rows + ih) * s.length, s.length)
            right = at + s.left + s.length
            zero_run(y, right, at + s.padded_length - right)


@kernel
def crop_rows(start: int, stop: int, dy: Array, dx: Array, numbers: Array) -> None:
    """Rows ``start`` to ``stop`` of dx, images without margins, from dy, images with them; flat."""
    s: PaddedRows = numbers[0]
    for row in range(start, stop):
        n, ih = row // s.rows, row % s.rows
        source = (n * s.padded_rows + s.top + ih) * s.padded_length + s.left
        copy_run(dx, row * s.length, dy, source, s.length)
