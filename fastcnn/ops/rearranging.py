"""The numbers of a sample at other places: axes in another order, depth as space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.rearranging import (
    DepthOrder,
    axes_order,
    depth_to_space_axes,
    depth_to_space_shape,
    space_to_depth_shape,
)
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.declaration import operation

_BLOCKS = """
x: images, (N, H, W, C).
block: height and width of the blocks of pixels, an int of at least 1.
order: which of C·block² channels goes to channel c of the pixel (i, j) of a block: "DCR" is
    channel ``(i·block + j)·C + c``, as in TensorFlow and in ONNX by default, "CRD" is channel
    ``(c·block + i)·block + j``, as in PyTorch's pixel shuffle. Default "DCR".
"""


@operation()
def permute(x: ArrayLike, order: Sequence[int], *, engine: str | None = None) -> Array:
    """The axes of each sample in another order.

    Args:
        x: samples, (N, …).
        order: for each axis of a sample of y the axis of a sample of x, counted from 1, as in
            Keras. The batch stays in front.

    Returns:
        y, of the dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.permute(np.zeros((2, 5, 7, 3)), (3, 1, 2)).shape
        (2, 3, 5, 7)
    """
    y: Array = call(_permuted, (x,), order, engine)
    return y


@binding("x")
def _permuted(x: Facts, order: object, engine: str | None) -> Callable[..., Any]:
    return _moved("x", x.shape, x, axes_order("order", order), engine)


@operation()
def permute_backward(dy: ArrayLike, order: Sequence[int], *, engine: str | None = None) -> Array:
    """Gradient of :func:`permute`: the axes of dy in the order that they had before.

    Args:
        dy: gradient of the output, (N, …).
        order: the order of :func:`permute`.

    Returns:
        dx, of the dtype of dy.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.permute_backward(np.zeros((2, 3, 5, 7)), (3, 1, 2)).shape
        (2, 5, 7, 3)
    """
    dx: Array = call(_moved_back, (dy,), order, engine)
    return dx


@binding("dy")
def _moved_back(dy: Facts, order: object, engine: str | None) -> Callable[..., Any]:
    checked = axes_order("order", order)
    inverse = tuple(checked.index(axis) + 1 for axis in range(1, len(checked) + 1))
    return _moved("dy", dy.shape, dy, inverse, engine)


@operation(_BLOCKS)
def depth_to_space(
    x: ArrayLike, block: int, order: DepthOrder = "DCR", *, engine: str | None = None
) -> Array:
    """Channels as pixels: block² channels of a pixel become a block of pixels.

    ``y[n, h·block + i, w·block + j, c]`` is a channel of ``x[n, h, w]``; ``order`` says which. The
    gradient is :func:`space_to_depth` of dy.

    Returns:
        y, (N, H·block, W·block, C/block²), of the dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
        >>> fastcnn.depth_to_space(x, 2)[0, :, :, 0]
        array([[1., 2.],
               [3., 4.]])

    Source: W. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network", arXiv:1609.05158; ONNX, operator DepthToSpace.
    """
    y: Array = call(_depth_to_space, (x,), block, order, engine)
    return y


@binding("x")
def _depth_to_space(
    x: Facts, block: int, order: DepthOrder, engine: str | None
) -> Callable[..., Any]:
    shape = depth_to_space_shape(x.shape, block, order)
    shape_of_blocks, axes = depth_to_space_axes(x.shape, int(block), order)
    moved = _moved("x", shape_of_blocks, x, axes, engine)
    return lambda x: moved(x.reshape(shape_of_blocks)).reshape(shape)


@operation(_BLOCKS)
def space_to_depth(
    x: ArrayLike, block: int, order: DepthOrder = "DCR", *, engine: str | None = None
) -> Array:
    """Pixels as channels: a block of pixels becomes one pixel with block² times the channels.

    It takes :func:`depth_to_space` back. The gradient is :func:`depth_to_space` of dy.

    Returns:
        y, (N, H/block, W/block, C·block²), of the dtype of x.

    Example:
        >>> import numpy as np, fastcnn
        >>> x = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
        >>> fastcnn.space_to_depth(x, 2)[0, 0, 0]
        array([1., 2., 3., 4.])
    """
    y: Array = call(_space_to_depth, (x,), block, order, engine)
    return y


@binding("x")
def _space_to_depth(
    x: Facts, block: int, order: DepthOrder, engine: str | None
) -> Callable[..., Any]:
    shape = n, h, w, _ = space_to_depth_shape(x.shape, block, order)
    side = int(block)
    # (H, i, W, j, C) becomes (H, W, i, j, C) or (H, W, C, i, j).
    axes = (1, 3, 2, 4, 5) if order == "DCR" else (1, 3, 5, 2, 4)
    blocks = n, h, side, w, side, x.shape[3]
    moved = _moved("x", blocks, x, axes, engine)
    return lambda x: moved(x.reshape(blocks)).reshape(shape)


def _moved(
    name: str, shape: tuple[int, ...], x: Facts, order: tuple[int, ...], engine: str | None
) -> Callable[..., Any]:
    """The bound call that moves the axes of ``x``, reshaped to ``shape``."""
    if len(shape) != len(order) + 1:
        raise ValueError(
            f"{name} must have the batch and {len(order)} more axes, as many as order, got {shape}"
        )
    return registry.bind("permute", shape, x.dtype, order, how=(engine,))
