"""Layers that resize images: UpSampling2D by a factor, Resize to a size."""

from __future__ import annotations

from typing import Any

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import Pair, pair
from fastcnn.core.resizing import (
    COORDINATES,
    METHODS,
    ROUNDINGS,
    ResizeGeometry,
    resize_geometry,
)
from fastcnn.core.scalars import count, one_of
from fastcnn.nn.layers.base import Saved, as_pair, image
from fastcnn.nn.layers.initializers import Shape
from fastcnn.nn.layers.operation import OperationLayer


class _Resizing(OperationLayer):
    """The common base of both layers, which differ in the output's size."""

    def _way(self) -> tuple[ops.Method, ops.Coordinates, ops.Rounding]:
        """Method, coordinates and rounding of :func:`fastcnn.resize2d`."""
        raise NotImplementedError

    def _size(self, h: int, w: int) -> tuple[int, int]:
        """The output's height and width for an image of h × w pixels."""
        raise NotImplementedError

    def geometry(self, input_shape: Shape, n: int = 1) -> ResizeGeometry:
        """The geometry for ``n`` images of this shape."""
        h, w, c = image(type(self).__name__, input_shape)
        return resize_geometry((n, h, w, c), self._size(h, w), *self._way())

    def infer(self, input_shape: Shape) -> Shape:
        return self.geometry(input_shape).output_shape[1:]

    def _operation(self, x: Array, engine: str | None) -> Array:
        return ops.resize2d(x, self._size(*x.shape[1:3]), *self._way(), engine=engine)

    def _saved(self, x: Array) -> Saved:
        return x.shape

    def _gradient(self, dy: Array, saved: Saved, engine: str | None) -> Array:
        return ops.resize2d_backward(dy, saved, *self._way(), engine=engine)

    def flops(self, input_shape: Shape) -> int:
        return self.geometry(input_shape).flops


class UpSampling2D(_Resizing):
    """Images enlarged by whole factors, (H, W, C) to (H · vertical, W · horizontal, C).

    Args:
        size: the factors, an int or (vertical, horizontal). It takes the place of the attribute
            ``size`` of other layers, the number of their parameters, of which this one has none.
        interpolation: "nearest" repeats each pixel, "bilinear" weights the four pixels around.

    Example:
        >>> UpSampling2D((2, 3)).infer((5, 7, 3))
        (10, 21, 3)
    """

    size: Any = 2

    def __init__(
        self, size: Pair = 2, interpolation: ops.Method = "nearest", *, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.size = as_pair(pair("size", size))
        self.interpolation = one_of("interpolation", interpolation, METHODS)

    def _way(self) -> tuple[ops.Method, ops.Coordinates, ops.Rounding]:
        if self.interpolation == "nearest":
            return self.interpolation, "asymmetric", "floor"
        return self.interpolation, "half_pixel", "floor"

    def _size(self, h: int, w: int) -> tuple[int, int]:
        vertical, horizontal = pair("size", self.size)
        return h * vertical, w * horizontal


class Resize(_Resizing):
    """Images in another size, (H, W, C) to (height, width, C).

    Args:
        height, width: sides of the output.
        interpolation: "nearest" or "bilinear".
        coordinates: "half_pixel", "align_corners" or "asymmetric": where the pixels of the output
            lie among those of the input, as for :func:`fastcnn.resize2d`.
        rounding: "round_prefer_floor", "round_prefer_ceil", "floor" or "ceil": to which pixel of
            the input "nearest" goes.

    Example:
        >>> Resize(8, 9).infer((5, 7, 3))
        (8, 9, 3)
    """

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: ops.Method = "bilinear",
        coordinates: ops.Coordinates = "half_pixel",
        rounding: ops.Rounding = "round_prefer_floor",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.height = count("height", height)
        self.width = count("width", width)
        self.interpolation = one_of("interpolation", interpolation, METHODS)
        self.coordinates = one_of("coordinates", coordinates, COORDINATES)
        self.rounding = one_of("rounding", rounding, ROUNDINGS)

    def _way(self) -> tuple[ops.Method, ops.Coordinates, ops.Rounding]:
        return self.interpolation, self.coordinates, self.rounding

    def _size(self, h: int, w: int) -> tuple[int, int]:
        return self.height, self.width
