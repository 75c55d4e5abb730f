"""Steps of layers that pool images, or move numbers to other places."""

from __future__ import annotations

from math import prod
from typing import cast

from fastcnn.core.rearranging import depth_to_space_axes
from fastcnn.engine.numba.elementwise import padding
from fastcnn.engine.numba.elementwise.concatenation import TOGETHER, copied_runs
from fastcnn.engine.numba.elementwise.rearranging import permutation
from fastcnn.engine.numba.elementwise.resizing import resampling
from fastcnn.engine.numba.pool import chooser as pool_chooser
from fastcnn.engine.numba.pool.windows import pooling_of_pixels
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Operand
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.models.execution.fusion import Fused
from fastcnn.models.execution.layer_facts import Pool, pooling_of
from fastcnn.models.execution.prediction_list import PredictionList
from fastcnn.nn.layers import (
    AvgPool2D,
    Concatenate,
    Cropping2D,
    DepthToSpace,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    MaxPool2D,
    MinPool2D,
    Permute,
    Resize,
    Shape,
    UpSampling2D,
    ZeroPadding2D,
)


def concatenate(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """The inputs side by side along an axis; parts that lie where they belong are not copied."""
    axis = axis_of(fused)
    inner, like = prod(fused.shape[axis + 1 :]), to.like
    rows, pitch, first = to.n * prod(fused.shape[:axis]), fused.shape[axis] * inner, 0
    waiting: list[tuple[Operand, int]] = []

    def copy() -> None:
        nonlocal first
        runs = [run for _, run in waiting]
        plan = copied_runs(True, runs, rows, first, pitch)
        sources = [place for place, _ in waiting]
        sources += sources[:1] * (TOGETHER - len(sources))
        to.step(
            plan.function, (like, like, like, like, like, plan.numbers), plan.items,
            *sources, y, to.constant(plan.numbers), work=plan.work,
        )  # fmt: skip
        first += sum(runs)
        waiting.clear()

    for value, place, shape in zip(fused.inputs, places, fused.shapes, strict=True):
        lies_there = value in to.pitches
        if waiting and (lies_there or len(waiting) == TOGETHER):
            copy()
        if lies_there:
            first += shape[axis] * inner
        else:
            waiting.append((place, shape[axis] * inner))
    if waiting:
        copy()


def axis_of(fused: Fused) -> int:
    """The axis of a sample along which a concatenation goes, counted from 0."""
    axis = cast(Concatenate, fused.layer).axis
    return axis - 1 if axis > 0 else axis + len(fused.shape)


def pad(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """Zeros around images."""
    _rows(padding.pad_rows, fused.shapes[0], fused.shape, fused, places[0], y, to)


def crop(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """Images without their borders."""
    _rows(padding.crop_rows, fused.shape, fused.shape, fused, places[0], y, to)


def _rows(
    kernel: Kernel, inner: Shape, result: Shape, fused: Fused, x: Operand, y: Operand,
    to: PredictionList,
) -> None:  # fmt: skip
    """A step over the rows of the results; ``inner`` is the shape of images without margins."""
    margins = cast(ZeroPadding2D | Cropping2D, fused.layer).margins()
    numbers = record(padding.padded_rows((to.n, *inner), margins))
    examples = to.like, to.like, numbers
    work = to.n * prod(result)
    to.step(kernel, examples, to.n * result[0], x, y, to.constant(numbers), work=work)


def resize(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """Images in another size, whose pixels may lie apart."""
    g = cast(UpSampling2D | Resize, fused.layer).geometry(fused.shapes[0], to.n)
    plan = resampling(g, False, to.itemsize, to.pitch)
    arrays = plan.table, plan.weights, plan.numbers
    to.step(
        plan.function, (to.like, to.like, *arrays), plan.items,
        places[0], y, *map(to.constant, arrays), work=plan.work,
    )  # fmt: skip


def permute(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """Axes in another order."""
    _permute((to.n, *fused.shapes[0]), cast(Permute, fused.layer).dims, places[0], y, to)


def depth_to_space(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """Channels as blocks of pixels."""
    layer = cast(DepthToSpace, fused.layer)
    shape = to.n, *fused.shapes[0]
    _permute(*depth_to_space_axes(shape, layer.block_size, layer.order), places[0], y, to)


def _permute(
    shape: tuple[int, ...], order: tuple[int, ...], x: Operand, y: Operand, to: PredictionList
) -> None:
    plan = permutation(shape, order, to.itemsize)
    arrays = () if plan.numbers is None else (plan.axes, plan.numbers)
    examples = to.like, to.like, *arrays
    operands = x, y, *map(to.constant, arrays)
    to.step(plan.function, examples, plan.items, *operands, work=prod(shape))


def pool(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A pooling, over windows or over the image; pixels of both may lie apart."""
    layer = cast(Pool, fused.layer)
    g = pooling_of(layer, to.n, fused.shapes[0])
    kernel, items = pool_chooser.forward_kernel(POOLINGS[type(layer)], g, to.itemsize)
    numbers = record(pooling_of_pixels(g, to.pitches.get(fused.inputs[0], 0), to.pitch))
    work = prod(g.output_shape) * g.kh * g.kw
    examples = to.like, to.like, numbers
    to.step(kernel, examples, items, places[0], y, to.constant(numbers), work=work)


POOLINGS: dict[type[Layer], str] = {
    MaxPool2D: "max",
    GlobalMaxPool2D: "max",
    MinPool2D: "min",
    AvgPool2D: "average",
    GlobalAvgPool2D: "average",
}
