"""Layers that move the numbers of a sample: Reshape, Permute and DepthToSpace."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import integer
from fastcnn.core.quoting import quoted
from fastcnn.core.rearranging import DEPTH_ORDERS, axes_order, depth_to_space_shape
from fastcnn.core.scalars import count, one_of
from fastcnn.nn.layers.base import Gradients, Layer, Saved, image
from fastcnn.nn.layers.initializers import Shape
from fastcnn.nn.layers.operation import OperationLayer


class Reshape(Layer):
    """Samples of another shape with as many numbers, in the same row-major order.

    Args:
        target_shape: the new shape without the batch. One side may be −1, and then follows from the
            others.

    Example:
        >>> Reshape((4, -1)).infer((2, 6, 3))
        (4, 9)
    """

    def __init__(self, target_shape: Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name=name)
        name = "target_shape"
        if isinstance(target_shape, str) or not isinstance(target_shape, Sequence):
            raise TypeError(f"{name} must be a list of sides, got {quoted(target_shape)}")
        sides = tuple(integer(name, side, target_shape) for side in target_shape)
        if not sides or any(side < 1 and side != -1 for side in sides) or sides.count(-1) > 1:
            raise ValueError(
                f"{name} must hold sides of at least 1, of which one may be -1, got "
                f"{quoted(target_shape)}"
            )
        self.target_shape = sides

    def infer(self, input_shape: Shape) -> Shape:
        numbers, others = prod(input_shape), prod(side for side in self.target_shape if side > 0)
        if numbers % others or (-1 not in self.target_shape and numbers != others):
            raise ValueError(
                f"target_shape must have as many numbers as the input, {numbers}, got "
                f"{self.target_shape} for {input_shape}"
            )
        return tuple(numbers // others if side == -1 else side for side in self.target_shape)

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        return x.reshape(len(x), *self.infer(x.shape[1:])), x.shape

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        return dy.reshape(saved), {}


class Permute(OperationLayer):
    """The axes of each sample in another order.

    Args:
        dims: for each axis of the output the axis of the input, counted from 1.

    Example:
        >>> Permute((3, 1, 2)).infer((5, 7, 3))
        (3, 5, 7)
    """

    _operations = ops.permute, ops.permute_backward
    _gradient_takes_input = False

    def __init__(self, dims: Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.dims = axes_order("dims", dims)

    def infer(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.dims):
            raise ValueError(
                f"Permute with dims {self.dims} needs samples of {len(self.dims)} axes, got "
                f"{input_shape}"
            )
        return tuple(input_shape[axis - 1] for axis in self.dims)

    def _arguments(self) -> tuple[object, ...]:
        return (self.dims,)


class DepthToSpace(OperationLayer):
    """Channels as pixels, (H, W, C · block_size²) to (H · block_size, W · block_size, C).

    Args:
        block_size: height and width of the blocks of pixels that pixels become.
        order: "DCR", as in TensorFlow, or "CRD", as in PyTorch's pixel shuffle; see
            :func:`fastcnn.depth_to_space`.

    Example:
        >>> DepthToSpace(2).infer((5, 7, 12))
        (10, 14, 3)
    """

    _operations = ops.depth_to_space, ops.space_to_depth
    _gradient_takes_input = False

    def __init__(
        self, block_size: int, order: ops.DepthOrder = "DCR", *, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.block_size = count("block_size", block_size)
        self.order = one_of("order", order, DEPTH_ORDERS)

    def infer(self, input_shape: Shape) -> Shape:
        sides = image("DepthToSpace", input_shape)
        block = self.block_size
        if sides[2] % block**2:
            raise ValueError(
                f"DepthToSpace needs a multiple of block_size² = {block**2} channels, got "
                f"{input_shape}"
            )
        return depth_to_space_shape((1, *sides), block, self.order)[1:]

    def _arguments(self) -> tuple[object, ...]:
        return self.block_size, self.order
