"""ZeroPadding2D: zeros around images."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import Padding, pads
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
