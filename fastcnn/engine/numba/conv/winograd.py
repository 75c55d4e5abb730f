"""Winograd's minimal filtering on register tiles: forward, and the gradient of the input.

An image is cut into squares of m × m outputs, each with the (m + 2) × (m + 2) inputs that it needs
for a 3×3 filter. Squares and filters are transformed (:mod:`fastcnn.core.minimal_filtering`), and
each of the n² numbers of a transformed square becomes a matrix product of its own,

    M[e][square, oc] = Σ_ic V[e][square, ic] · U[e][ic, oc]

after which M is transformed back. F(4×4, 3×3) takes 36 products for 16 outputs instead of 144.

    winograd_partition.py   how a layer is cut
    winograd_plan.py        in which order it is computed, on which tile, and why
    winograd_kernel.py      the transforms and the products
    winograd_gradient.py    the gradient of the filters

**What is not finite.** A transformed infinity becomes NaN in all outputs of its square. An image
with an output that is not finite is computed again directly.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, pool_geometry
from fastcnn.engine.numba.contraction.packing import transpose_filters
from fastcnn.engine.numba.conv import direct
from fastcnn.engine.numba.conv.winograd_partition import SquareEpilogue
from fastcnn.engine.numba.conv.winograd_plan import (
    WinogradPlan,
    forward_plan,
    input_gradient_plan,
    scratch_of,
)
from fastcnn.engine.numba.pool.operations import max_pool2d
from fastcnn.engine.numba.runtime.arrays import bias_or_zeros, empty_like_type, readable
from fastcnn.engine.numba.runtime.threads import parallel_for


def conv2d(x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry) -> Array:
    """``y``, for filters of 3×3 or 5×5 with stride 1, dense, in one group."""
    y = empty_like_type(x, *g.output_shape)
    if y.size == 0:
        return y
    plan = forward_plan(g, x.itemsize, SquareEpilogue(relu=activation == "relu"))
    for n in _run(plan, x, readable(w).reshape(-1), b, y):
        y[n : n + 1] = direct.conv2d(x[n : n + 1], w, b, activation, g._replace(n=1))
    return y


def conv2d_pooled(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry
) -> Array:
    """``y`` after 2×2 max-pooling; the sign of a zero may differ, as in the direct convolution."""
    y = empty_like_type(x, g.n, g.oh // 2, g.ow // 2, g.oc)
    _pool(x, w, b, activation, g, y)
    return y


def conv2d_pooled_with_indices(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry
) -> tuple[Array, Array]:
    """:func:`conv2d_pooled`, and its argmax indices, 0 to 3.

    Where the ReLU made a number 0 the index has no meaning, because no gradient goes there.
    """
    y, indices = (empty_like_type(x, g.n, g.oh // 2, g.ow // 2, g.oc) for _ in range(2))
    _pool(x, w, b, activation, g, y, indices)
    return y, indices


def conv2d_input_gradient(dy: Array, w: Array, g: ConvGeometry) -> Array:
    """``dx``: the convolution of ``dy`` with the filters turned by 180°."""
    return conv2d_transpose(dy, w, None, None, g)


def conv2d_transpose(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry
) -> Array:
    """``y``: the input's gradient, with bias and activation."""
    y = empty_like_type(x, *g.input_shape)
    if y.size == 0:
        return y
    epilogue = SquareEpilogue(relu=True) if activation == "relu" else None
    plan = input_gradient_plan(g, x.itemsize, epilogue)
    transposed = transpose_filters(readable(w), 1, plan.width)
    for n in _run(plan, x, transposed, b, y):
        y[n : n + 1] = direct.conv2d_transpose(x[n : n + 1], w, b, activation, g._replace(n=1))
    return y


def explanation(op: str, g: ConvGeometry, itemsize: int) -> Iterator[str]:
    """In which order an operation is computed, and why; what :func:`fastcnn.explain` prints."""
    if g.n == 0:
        yield "kernel: none, because the batch is empty"
        return
    plan = forward_plan if op == "conv2d" else input_gradient_plan
    yield from plan(g, itemsize).lines()


def _pool(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry, y: Array,
    indices: Array | None = None,
) -> None:  # fmt: skip
    if y.size == 0:
        return
    epilogue = SquareEpilogue(activation == "relu", pooled=True, indices=indices is not None)
    plan = forward_plan(g, x.itemsize, epilogue)
    for n in _run(plan, x, readable(w).reshape(-1), b, y, indices):
        unpooled = direct.conv2d(x[n : n + 1], w, b, activation, g._replace(n=1))
        y[n : n + 1] = max_pool2d(unpooled, pool_geometry(unpooled.shape, 2, stride=2))
        if indices is not None:
            indices[n] = _argmax_indices(unpooled[0])


def _argmax_indices(image: Array) -> Array:
    """Which of each 2×2 pixels is the largest: the first of equals, or the first NaN."""
    h, w, c = image.shape[0] // 2, image.shape[1] // 2, image.shape[2]
    windows = image[: 2 * h, : 2 * w].reshape(h, 2, w, 2, c).swapaxes(1, 2)
    indices: Array = windows.reshape(h, w, 4, c).argmax(axis=2)
    return indices


def _run(
    plan: WinogradPlan, x: Array, w: Array, b: Array | None, y: Array, indices: Array | None = None
) -> list[int]:
    """Write ``y`` and ``indices``; return the images in which an output is not finite."""
    scratch, flat_y = scratch_of(plan, x.dtype), y.reshape(-1)
    suspects = scratch.suspects
    operands = (
        readable(x).reshape(-1),
        w,
        bias_or_zeros(b, plan.partition.images.oc, x),
        flat_y,
        flat_y if indices is None else indices.reshape(-1),
        scratch.memory,
        scratch.u,
        suspects,
    )
    for launch in scratch.launches:
        parallel_for(
            plan.kernel, launch.shares, launch.work, *operands, plan.numbers, launch.launch
        )
    images: list[int] = []
    if b"\1" in suspects.tobytes():  # faster than any() on the few images of a small layer
        images = np.flatnonzero(suspects).tolist()
        suspects[...] = False
    if scratch.is_kept:
        plan.kept_scratch.append(scratch)
    return images
