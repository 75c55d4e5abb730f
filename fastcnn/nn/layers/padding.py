"""ZeroPadding2D and Cropping2D: zeros around images, and images without their borders."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import Padding, four_sides, pads
from fastcnn.core.quoting import quoted
from fastcnn.nn.layers.base import Gradients, Layer, image
from fastcnn.nn.layers.initializers import Shape


class ZeroPadding2D(Layer):
    """Zeros around images, (H, W, C) to (top + H + bottom, left + W + right, C).

    Args:
        padding: an int, (vertical, horizontal) or ((top, bottom), (left, right)).

    Example:
        >>> ZeroPadding2D(((0, 1), (2, 3))).infer((28, 28, 1))
        (29, 33, 1)
    """

    def __init__(self, padding: Padding = 1) -> None:
        super().__init__()
        if isinstance(padding, str):
            raise ValueError(
                f"padding must be an int, (vertical, horizontal) or ((top, bottom), (left, "
                f"right)), got {quoted(padding)}"
            )
        top, bottom, left, right = pads(padding, (1, 1), (1, 1), (1, 1))
        self.padding: Any = ((top, bottom), (left, right))
        if isinstance(padding, int):
            self.padding = padding

    def infer(self, input_shape: Shape) -> Shape:
        h, w, c = image("ZeroPadding2D", input_shape)
        top, bottom, left, right = pads(self.padding, (1, 1), (1, 1), (1, 1))
        return top + h + bottom, left + w + right, c

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Any]:
        return ops.zero_pad2d(x, self.padding, engine=engine), None

    def backward(
        self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        return ops.zero_pad2d_backward(dy, self.padding, engine=engine), {}


class Cropping2D(Layer):
    """Images without pixels at their borders, (H, W, C) to (H − top − bottom, W − left − right, C).

    Args:
        cropping: an int, (vertical, horizontal) or ((top, bottom), (left, right)). At least one
            pixel must be left.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value, named in the message.

    Example:
        >>> Cropping2D(((0, 1), (2, 3))).infer((28, 28, 1))
        (27, 23, 1)
    """

    def __init__(self, cropping: Padding = 0) -> None:
        super().__init__()
        top, bottom, left, right = _cropped(cropping)
        self.cropping: Any = ((top, bottom), (left, right))
        if isinstance(cropping, int):
            self.cropping = cropping

    def infer(self, input_shape: Shape) -> Shape:
        h, w, c = image("Cropping2D", input_shape)
        top, bottom, left, right = _cropped(self.cropping)
        if h <= top + bottom or w <= left + right:
            raise ValueError(
                f"cropping must leave at least one pixel, got {self.cropping} for {input_shape}"
            )
        return h - top - bottom, w - left - right, c

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Any]:
        return ops.crop2d(x, self.cropping, engine=engine), None

    def backward(
        self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        if not needs_dx:
            return None, {}
        return ops.crop2d_backward(dy, self.cropping, engine=engine), {}


def _cropped(cropping: object) -> tuple[int, int, int, int]:
    expected = "an int, (vertical, horizontal) or ((top, bottom), (left, right))"
    return four_sides("cropping", cropping, expected)
