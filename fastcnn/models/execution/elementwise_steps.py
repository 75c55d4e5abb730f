"""Steps of layers that compute number by number: activations, and what merges several values."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from fastcnn.core.broadcasting import merged_shape
from fastcnn.engine.numba.elementwise import activations, formulas, merging, steps
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Operand, number
from fastcnn.models.execution.fusion import Fused
from fastcnn.models.execution.prediction_list import PredictionList
from fastcnn.nn.layers import (
    ELU,
    GELU,
    Add,
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
    count, like = to.n * prod(f.shape), to.like
    if isinstance(f.layer, ReLU) and f.top is None:
        to.step(activations.relu_kernel, (like, like), count, places[0], y)
        return
    name, parameters = FORMULAS[type(f.layer)](f.layer)
    numbers = record(activations.Parameters(*parameters))
    kernel, work = activations.activation_kernel(name), formulas.FORMULAS[name].work * count
    to.step(kernel, (like, like, numbers), count, places[0], y, to.constant(numbers), work=work)


Named = Callable[[Any], tuple[str, tuple[float, float]]]
"""The formula of a layer, by its name, and the parameters."""

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


def merge(f: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """The inputs merged number by number, from left to right, and a ReLU after a single sum."""
    op, like, left, shape = MERGES[type(f.layer)], to.like, places[0], f.shapes[0]
    if f.relu:
        samples, count = (like, like, like, True), to.n * prod(f.shape)
        to.step(steps.add_finished, samples, count, left, places[1], y, number(True))
        return
    for i, right in enumerate(places[1:], 1):
        result = merged_shape((to.n, *shape), (to.n, *f.shapes[i]))
        place = y if i == len(f.inputs) - 1 else to.room(prod(result))
        plan = merging.merge_plan(op, (to.n, *shape), (to.n, *f.shapes[i]))
        tables = map(to.constant, plan.tables)
        to.step(
            plan.kernel, (like, like, like, *plan.tables), plan.items, left, right, place, *tables,
            work=prod(result),
        )  # fmt: skip
        left, shape = place, result[1:]


MERGES: dict[type[Layer], merging.Op] = {
    Add: "add",
    Subtract: "subtract",
    Multiply: "multiply",
    Maximum: "maximum",
}
