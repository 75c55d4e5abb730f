"""Steps of layers that pool images, or move numbers to other places."""

from __future__ import annotations

from math import prod
from typing import cast

from fastcnn.core.geometry import pool_geometry
from fastcnn.engine.numba.elementwise import steps
from fastcnn.engine.numba.pool import chooser as pool_chooser
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Operand
from fastcnn.models.execution.fusion import Fused
from fastcnn.models.execution.prediction_list import PredictionList
from fastcnn.models.execution.stages import Pool
from fastcnn.nn.layers import (
    AvgPool2D,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    MaxPool2D,
    MinPool2D,
)


def concatenate(f: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """The inputs side by side, along the channels."""
    first, pitch, like = 0, f.shape[-1], to.like
    rows = to.n * prod(f.shape) // pitch
    for value, place, shape in zip(f.inputs, places, f.shapes, strict=True):
        if value not in to.in_place:
            numbers = record(steps.Part(shape[-1], pitch, first))
            to.step(
                steps.copy_columns, (like, like, numbers), rows, place, y, to.constant(numbers),
                work=rows * shape[-1],
            )  # fmt: skip
        first += shape[-1]


def pool(f: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A pooling, over windows or over the image."""
    layer, shape = cast(Pool, f.layer), (to.n, *f.shapes[0])
    if isinstance(layer, GlobalMaxPool2D | GlobalAvgPool2D):
        g = pool_geometry(shape, shape[1:3])
    else:
        g = pool_geometry(shape, layer.pool_size, stride=layer.strides, padding=layer.padding)
    kernel, items = pool_chooser.forward_kernel(POOLINGS[type(layer)], g, to.itemsize)
    numbers, work = record(g), prod(g.output_shape) * g.kh * g.kw
    samples = to.like, to.like, numbers
    to.step(kernel, samples, items, places[0], y, to.constant(numbers), work=work)


POOLINGS: dict[type[Layer], str] = {
    MaxPool2D: "max",
    GlobalMaxPool2D: "max",
    MinPool2D: "min",
    AvgPool2D: "average",
    GlobalAvgPool2D: "average",
}
