"""ZeroPadding2D and Cropping2D: zeros around images, and images without their borders."""

from __future__ import annotations

from fastcnn import ops
from fastcnn.core.geometry import Padding, four_sides, pads
from fastcnn.core.quoting import quoted
from fastcnn.nn.layers.base import image
from fastcnn.nn.layers.initializers import Shape
from fastcnn.nn.layers.operation import OperationLayer


class ZeroPadding2D(OperationLayer):
    """Zeros around images, (H, W, C) to (top + H + bottom, left + W + right, C).

    Args:
        padding: an int, (vertical, horizontal) or ((top, bottom), (left, right)).

    Example:
        >>> ZeroPadding2D(((0, 1), (2, 3))).infer((28, 28, 1))
        (29, 33, 1)
    """

    _operations = ops.zero_pad2d, ops.zero_pad2d_backward
    _gradient_takes_input = False

    def __init__(self, padding: Padding = 1, *, name: str | None = None) -> None:
        super().__init__(name=name)
        if isinstance(padding, str):
            raise ValueError(
                f"padding must be an int, (vertical, horizontal) or ((top, bottom), (left, "
                f"right)), got {quoted(padding)}"
            )
        top, bottom, left, right = pads(padding, (1, 1), (1, 1), (1, 1))
        sides = (top, bottom), (left, right)
        self.padding = padding if isinstance(padding, int) else sides

    def margins(self) -> tuple[int, int, int, int]:
        """Pixels at the top, bottom, left and right."""
        return pads(self.padding, (1, 1), (1, 1), (1, 1))

    def infer(self, input_shape: Shape) -> Shape:
        h, w, c = image("ZeroPadding2D", input_shape)
        top, bottom, left, right = self.margins()
        return top + h + bottom, left + w + right, c

    def _arguments(self) -> tuple[object, ...]:
        return (self.padding,)


class Cropping2D(OperationLayer):
    """Images without pixels at their borders, (H, W, C) to (H − top − bottom, W − left − right, C).

    Args:
        cropping: an int, (vertical, horizontal) or ((top, bottom), (left, right)). At least one
            pixel must be left.

    Example:
        >>> Cropping2D(((0, 1), (2, 3))).infer((28, 28, 1))
        (27, 23, 1)
    """

    _operations = ops.crop2d, ops.crop2d_backward
    _gradient_takes_input = False

    def __init__(self, cropping: Padding = 0, *, name: str | None = None) -> None:
        super().__init__(name=name)
        top, bottom, left, right = _cropped(cropping)
        sides = (top, bottom), (left, right)
        self.cropping = cropping if isinstance(cropping, int) else sides

    def margins(self) -> tuple[int, int, int, int]:
        """Pixels that are taken away at the top, bottom, left and right."""
        return _cropped(self.cropping)

    def infer(self, input_shape: Shape) -> Shape:
        h, w, c = image("Cropping2D", input_shape)
        top, bottom, left, right = self.margins()
        if h <= top + bottom or w <= left + right:
            raise ValueError(
                f"cropping must leave at least one pixel, got {self.cropping} for {input_shape}"
            )
        return h - top - bottom, w - left - right, c

    def _arguments(self) -> tuple[object, ...]:
        return (self.cropping,)


def _cropped(cropping: object) -> tuple[int, int, int, int]:
    expected = "an int, (vertical, horizontal) or ((top, bottom), (left, right))"
    return four_sides("cropping", cropping, expected)
