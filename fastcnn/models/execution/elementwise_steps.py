"""Steps of layers that compute number by number: activations and merging layers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from fastcnn.core.broadcasting import merged_shape
from fastcnn.engine.numba.elementwise import activations, formulas, merging, prelu, steps
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Operand, number
from fastcnn.models.execution.fusion import Fused
from fastcnn.models.execution.prediction_list import PredictionList
from fastcnn.models.execution.turn_list import TurnList
from fastcnn.nn.layers import (
    ELU,
    GELU,
    Add,
    Average,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    Maximum,
    Multiply,
    ReLU,
    Sigmoid,
    Softplus,
    Subtract,
    Swish,
    Tanh,
)


def activation(f: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """An activation that stands alone."""
    count, like, in_place = to.n * prod(f.shape), to.like, places[0] == y
    if isinstance(f.layer, ReLU) and f.top is None:
        if in_place:
            to.step(activations.relu_in_place, (like,), count, y)
        else:
            to.step(activations.relu_kernel, (like, like), count, places[0], y)
        return
    name, parameters = FORMULAS[type(f.layer)](f.layer)
    numbers, work = record(activations.Parameters(*parameters)), formulas.FORMULAS[name].work
    to.step(
        activations.activation_kernel(name, in_place), (like, like, numbers), count,
        places[0], y, to.constant(numbers), work=work * count,
    )  # fmt: skip


Named = Callable[[Any], tuple[str, tuple[float, float]]]
"""Returns the name of a layer's formula, and its parameters."""

FORMULAS: dict[type[Layer], Named] = {
    ReLU: lambda layer: ("clipped_relu", (layer.max_value, 0.0)),
    LeakyReLU: lambda layer: ("leaky_relu", (layer.slope, 0.0)),
    Tanh: lambda _: ("tanh", (0.0, 0.0)),
    Sigmoid: lambda _: ("sigmoid", (0.0, 0.0)),
    ELU: lambda layer: ("elu", (layer.alpha, 0.0)),
    HardSigmoid: lambda layer: ("hard_sigmoid", (layer.slope, layer.offset)),
    HardSwish: lambda _: ("hard_swish", (0.0, 0.0)),
    Swish: lambda _: ("swish", (0.0, 0.0)),
    GELU: lambda layer: ("gelu_tanh" if layer.approximate else "gelu", (0.0, 0.0)),
    Softplus: lambda _: ("softplus", (0.0, 0.0)),
}


def prelu_of(f: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A PReLU, whose slopes are repeated to fill a row of its kernel."""
    slope, like, layer = to.weights.of(f.layer)["slope"], to.like, f.layer
    channels = slope.size
    rows = prelu.rows_of((to.n * prod(f.shape) // channels, channels))
    slopes, numbers = to.constant(slope), record(rows)
    if rows.period > channels:

        def write(steps_of: TurnList, place: Operand) -> None:
            source, length = steps_of.constant(slope), channels
            steps_of.step(steps.copy, (like, like), length, source, place)
            while length < rows.period:  # twice as much each time
                count = min(length, rows.period - length)
                behind = Operand(place.base, place.at + length * steps_of.itemsize)
                steps_of.step(steps.copy, (like, like), count, place, behind)
                length += count

        slopes = to.prepared.entry(("slopes", id(layer)), rows.period, write)
    to.step(
        prelu.prelu_kernel(places[0] == y), (like, like, like, numbers), rows.chunks,
        places[0], slopes, y, to.constant(numbers), work=rows.length,
    )  # fmt: skip


def softmax(f: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A softmax over the last axis."""
    count, classes, like = to.n * prod(f.shape), f.shape[-1], to.like
    numbers = record(activations.Rows(count // classes, classes, count // classes))
    to.step(
        activations.softmax_rows, (like, like, numbers), count // classes,
        places[0], y, to.constant(numbers), work=activations.EXP * count,
    )  # fmt: skip


def merge(f: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """The inputs merged number by number, from left to right, and a ReLU after a single sum.

    A mean is the sum times a constant. Each result of the shape of ``y`` is written to ``y``.
    """
    op, like, left, shape = MERGES[type(f.layer)], to.like, places[0], (to.n, *f.shapes[0])
    shape_of_y = to.n, *f.shape
    if f.relu:
        samples, count = (like, like, like, True), prod(shape_of_y)
        to.step(steps.add_finished, samples, count, left, places[1], y, number(True))
        return

    def merge_with(op: merging.Op, right: Operand, right_shape: tuple[int, ...]) -> None:
        nonlocal left, shape
        result = merged_shape(shape, right_shape)
        place = y if result == shape_of_y else to.room(prod(result))
        over: merging.Side | None = "a" if left == place else "b" if right == place else None
        plan = merging.merge_plan(op, shape, right_shape, over)
        tables = map(to.constant, plan.tables)
        to.step(
            plan.kernel, (like, like, like, *plan.tables), plan.items, left, right, place, *tables,
            work=prod(result),
        )  # fmt: skip
        left, shape = place, result

    for right, right_shape in zip(places[1:], f.shapes[1:], strict=True):
        merge_with(op, right, (to.n, *right_shape))
    if type(f.layer) is Average:
        factors = to.filled(to.n, 1 / len(f.inputs))
        merge_with("multiply", factors, (to.n, *[1] * len(f.shape)))


MERGES: dict[type[Layer], merging.Op] = {
    Add: "add",
    Average: "add",
    Subtract: "subtract",
    Multiply: "multiply",
    Maximum: "maximum",
}
