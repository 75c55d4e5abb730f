"""Zeros around images, and their gradient, as copies of rows."""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import copy_run, zero_run
from fastcnn.engine.numba.runtime.threads import parallel_for

Margins = tuple[int, int, int, int]


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


def zero_pad2d(x: Array, margins: Margins) -> Array:
    """The images with zeros at the top, bottom, left and right."""
    rows = padded_rows(x.shape, margins)
    top, bottom, left, right = margins
    n, h, w, c = x.shape
    y = empty_like_type(x, n, top + h + bottom, left + w + right, c)
    flat = readable(x).reshape(-1), y.reshape(-1)
    parallel_for(pad_rows, n * y.shape[1], y.size, *flat, record(rows))
    return y


def zero_pad2d_backward(dy: Array, margins: Margins) -> Array:
    """``dx``: dy without its margins."""
    top, bottom, left, right = margins
    n, h, w, c = dy.shape
    dx = empty_like_type(dy, n, h - top - bottom, w - left - right, c)
    rows = padded_rows(dx.shape, margins)
    flat = readable(dy).reshape(-1), dx.reshape(-1)
    parallel_for(crop_rows, n * dx.shape[1], dx.size, *flat, record(rows))
    return dx


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
