"""Which pixels make a pixel of a resized image, and with which weights: integers, and quotients.

All engines take these numbers from here, the specification included. Therefore this file is tested
on its own, by enumeration.

Along one side, output ``o`` of ``out`` lies at the coordinate ``p / q`` among ``size`` pixels:

    "half_pixel"     (2·o + 1)·size / (2·out) − 1/2    pixels are squares, and both images cover
                                                       the same area
    "align_corners"  o·(size − 1) / (out − 1)          the centres of the first and the last pixels
                                                       coincide; 0 for an output of one pixel
    "asymmetric"     o·size / out                      the upper left corners coincide

The coordinate is kept as a fraction of integers, so it is exact. "nearest" rounds it to a pixel.
"bilinear" divides it into ⌊p / q⌋, whose pixel has the weight 1 − r / q, and the remainder r: the
next pixel has the weight r / q. A pixel of weight 0 takes no part, and coordinates beyond the image
are moved to its first or last pixel. So each output has one or two sources along each side.

The gradient reads the same weights the other way: each pixel has consecutive outputs along each
side, because coordinates grow with ``o``. :func:`outputs` lists them.

Sources: ONNX, operator Resize (names and meanings of coordinates and roundings); PyTorch,
``torch.nn.functional.interpolate``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.geometry import pair
from fastcnn.core.scalars import one_of

Method: TypeAlias = Literal["nearest", "bilinear"]
Coordinates: TypeAlias = Literal["half_pixel", "align_corners", "asymmetric"]
Rounding: TypeAlias = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
METHODS: tuple[Method, ...] = get_args(Method)
COORDINATES: tuple[Coordinates, ...] = get_args(Coordinates)
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)

Indices: TypeAlias = NDArray[np.int64]


class Sources(NamedTuple):
    """The consecutive sources of each result along one side, and their weights.

    Result ``i`` reads the sources ``first[i], first[i] + 1, …`` with the weights from
    ``weights[starts[i]]`` to before ``weights[starts[i + 1]]``. No weight is 0.
    """

    first: Indices
    starts: Indices
    weights: NDArray[np.float64]

    @property
    def counts(self) -> Indices:
        """How many sources each result has."""
        counts: Indices = np.diff(self.starts)
        return counts


class ResizeGeometry(NamedTuple):
    """All that a resizing of images depends on, NHWC; made by :func:`resize_geometry`.

    ``n, h, w, c`` are the input's sides, ``oh, ow`` the output's.
    """

    n: int
    h: int
    w: int
    c: int
    oh: int
    ow: int
    method: str
    coordinates: str
    rounding: str

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of ``x`` and ``dx``: (N, H, W, C)."""
        return self.n, self.h, self.w, self.c

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of ``y`` and ``dy``: (N, OH, OW, C)."""
        return self.n, self.oh, self.ow, self.c

    @property
    def rows(self) -> Sources:
        """The rows that make each row of the output."""
        return sources(self.h, self.oh, self.method, self.coordinates, self.rounding)

    @property
    def columns(self) -> Sources:
        """The columns that make each column of the output."""
        return sources(self.w, self.ow, self.method, self.coordinates, self.rounding)

    @property
    def outputs_of_rows(self) -> Sources:
        """The rows of the output in which each row of the input takes part."""
        return outputs(self.h, self.oh, self.method, self.coordinates, self.rounding)

    @property
    def outputs_of_columns(self) -> Sources:
        """The columns of the output in which each column of the input takes part."""
        return outputs(self.w, self.ow, self.method, self.coordinates, self.rounding)

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiply-add counts as 2, and "nearest" multiplies nothing.

        >>> resize_geometry((1, 5, 4, 3), (10, 8), "bilinear", "half_pixel", "floor").flops
        1512
        """
        if self.method == "nearest":
            return 0
        return 2 * self.n * self.c * self.rows.weights.size * self.columns.weights.size


def resize_geometry(
    x_shape: tuple[int, ...], size: object, method: object, coordinates: object, rounding: object
) -> ResizeGeometry:
    """The geometry of ``resize2d`` on images of this shape, checked.

    Raises ``ValueError`` or ``TypeError`` that names the argument, its value and valid values.

    >>> resize_geometry((2, 5, 4, 3), (10, 8), "nearest", "asymmetric", "floor").output_shape
    (2, 10, 8, 3)
    """
    if len(x_shape) != 4:
        raise ValueError(f"x must have the shape (N, H, W, C), got {x_shape}")
    if min(x_shape[1:]) < 1:
        raise ValueError(f"x must have at least one pixel and one channel, got {x_shape}")
    sides = pair("size", size)
    names = (
        one_of("method", method, METHODS),
        one_of("coordinates", coordinates, COORDINATES),
        one_of("rounding", rounding, ROUNDINGS),
    )
    n, h, w, c = x_shape
    return ResizeGeometry(n, h, w, c, *sides, *names)


@lru_cache(maxsize=256)
def sources(size: int, out: int, method: str, coordinates: str, rounding: str) -> Sources:
    """The sources of each of ``out`` pixels along one side of ``size`` pixels.

    >>> sources(2, 4, "bilinear", "half_pixel", "floor").weights.tolist()
    [1.0, 0.75, 0.25, 0.25, 0.75, 1.0]
    >>> sources(2, 4, "nearest", "asymmetric", "floor").first.tolist()
    [0, 0, 1, 1]
    """
    o = np.arange(out, dtype=np.int64)
    if coordinates == "half_pixel":
        numerators, denominator = (2 * o + 1) * size - out, 2 * out
    elif coordinates == "align_corners":
        numerators, denominator = o * (size - 1), max(out - 1, 1)
    else:
        numerators, denominator = o * size, out
    whole, remainder = np.divmod(numerators, denominator)
    if method == "nearest":
        up = {
            "floor": np.zeros(out, np.bool_),
            "ceil": remainder > 0,
            "round_prefer_floor": remainder > denominator - remainder,
            "round_prefer_ceil": remainder >= denominator - remainder,
        }[rounding]
        return _consecutive(np.clip(whole + up, 0, size - 1), np.ones((out, 1)))
    outside = (whole < 0) | (whole >= size - 1)
    upper = np.where(outside, 0.0, remainder / denominator)
    return _consecutive(np.clip(whole, 0, size - 1), np.stack([1.0 - upper, upper], axis=1))


@lru_cache(maxsize=256)
def outputs(size: int, out: int, method: str, coordinates: str, rounding: str) -> Sources:
    """For each of ``size`` pixels the outputs that have it as a source, and its weights in them.

    It is the transpose of :func:`sources`: a gradient sums over these outputs. A pixel may have
    none.

    >>> back = outputs(2, 4, "bilinear", "half_pixel", "floor")
    >>> back.first.tolist(), back.counts.tolist(), back.weights.tolist()
    ([0, 1], [3, 3], [1.0, 0.75, 0.25, 0.25, 0.75, 1.0])
    """
    forward = sources(size, out, method, coordinates, rounding)
    pixels = np.arange(size)
    last = forward.first + forward.counts - 1
    first = np.searchsorted(last, pixels, "left")
    counts = np.searchsorted(forward.first, pixels, "right") - first
    starts = np.concatenate([[0], np.cumsum(counts)])
    # Entry k belongs to a pixel and to one of its outputs, of which it is source number ``which``.
    pixel = np.repeat(pixels, counts)
    output = np.arange(starts[-1]) - np.repeat(starts[:-1] - first, counts)
    which = pixel - forward.first[output]
    return _fixed(first, starts, forward.weights[forward.starts[output] + which])


def _consecutive(first: Indices, weights: NDArray[np.float64]) -> Sources:
    """Sources from the weights (out, k) of k sources of each result.

    In each row of ``weights``, the sources of weight 0 come last, and are left out.
    """
    used = weights != 0
    starts = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    return _fixed(first, starts, weights[used])


def _fixed(first: Indices, starts: Indices, weights: NDArray[np.float64]) -> Sources:
    """Sources in arrays that nobody can change, because they are cached."""
    for array in (first, starts, weights):
        array.setflags(write=False)
    return Sources(first, starts, weights)
