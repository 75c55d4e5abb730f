"""Steps of layers that compute number by number: activations and merging layers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

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


def activation(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """An activation that stands alone."""
    count, like, in_place = to.n * prod(fused.shape), to.like, places[0] == y
    if isinstance(fused.layer, ReLU) and fused.top is None:
        if in_place:
            to.step(activations.relu_in_place, (like,), count, y)
        else:
            to.step(activations.relu_kernel, (like, like), count, places[0], y)
        return
    name, *parameters = FORMULA_OF_LAYER[type(fused.layer)](fused.layer)
    numbers, work = record(activations.Parameters(*parameters)), formulas.FORMULAS[name].work
    to.step(
        activations.activation_kernel(name, in_place), (like, like, numbers), count,
        places[0], y, to.constant(numbers), work=work * count,
    )  # fmt: skip


class LayerFormula(NamedTuple):
    """The name of a layer's formula in ``formulas.FORMULAS``, and its parameters."""

    name: str
    p: float = 0.0
    q: float = 0.0


FORMULA_OF_LAYER: dict[type[Layer], Callable[[Any], LayerFormula]] = {
    ReLU: lambda layer: LayerFormula("clipped_relu", layer.max_value),
    LeakyReLU: lambda layer: LayerFormula("leaky_relu", layer.slope),
    Tanh: lambda _: LayerFormula("tanh"),
    Sigmoid: lambda _: LayerFormula("sigmoid"),
    ELU: lambda layer: LayerFormula("elu", layer.alpha),
    HardSigmoid: lambda layer: LayerFormula("hard_sigmoid", layer.slope, layer.offset),
    HardSwish: lambda _: LayerFormula("hard_swish"),
    Swish: lambda _: LayerFormula("swish"),
    GELU: lambda layer: LayerFormula("gelu_tanh" if layer.approximate else "gelu"),
    Softplus: lambda _: LayerFormula("softplus"),
}


def prelu_of(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A PReLU, whose slopes are repeated to fill a row of its kernel."""
    slope, like, layer = to.weights.of(fused.layer)["slope"], to.like, fused.layer
    channels = slope.size
    rows = prelu.rows_of((to.n * prod(fused.shape) // channels, channels))
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


def softmax(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A softmax over the last axis."""
    count, classes, like = to.n * prod(fused.shape), fused.shape[-1], to.like
    numbers = record(activations.SoftmaxRows(count // classes, classes, count // classes))
    to.step(
        activations.softmax_rows, (like, like, numbers), count // classes,
        places[0], y, to.constant(numbers), work=activations.EXP * count,
    )  # fmt: skip


def merge(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """The inputs merged number by number, from left to right, and a ReLU after a single sum.

    A mean is the sum times a constant. Each result of the shape of ``y`` is written to ``y``.
    """
    op, like, shape_of_y = MERGES[type(fused.layer)], to.like, (to.n, *fused.shape)
    if fused.relu:
        examples, count = (like, like, like, True), prod(shape_of_y)
        to.step(steps.add_finished, examples, count, places[0], places[1], y, number(True))
        return
    merges = [
        (op, place, (to.n, *shape))
        for place, shape in zip(places[1:], fused.shapes[1:], strict=True)
    ]
    if type(fused.layer) is Average:
        factors = to.filled(to.n, 1 / len(fused.inputs))
        merges.append(("multiply", factors, (to.n, *[1] * len(fused.shape))))
    left, shape = places[0], (to.n, *fused.shapes[0])
    for op, right, right_shape in merges:
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


MERGES: dict[type[Layer], merging.Op] = {
    Add: "add",
    Average: "add",
    Subtract: "subtract",
    Multiply: "multiply",
    Maximum: "maximum",
}
