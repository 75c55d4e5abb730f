"""The losses of a model with several outputs: a loss for each, and how much each counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import module_of
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import number
from fastcnn.data.several import Several, in_order
from fastcnn.nn.layers import Shape
from fastcnn.nn.losses import CrossEntropy, Loss, MeanSquaredError, loss_from_dict, loss_named


class OutputLosses:
    """A loss for each output of a model. The loss of a sample is their weighted sum.

    Attributes:
        names: of the outputs.
        losses: a loss for each output.
        weights: how much each loss counts.
        counts: whether the whole has an accuracy; it has none, because each output has its own.
    """

    counts = False

    def __init__(
        self,
        names: Sequence[str],
        losses: Sequence[Loss],
        weights: Sequence[float] | None = None,
    ) -> None:
        self.names, self.losses = tuple(names), tuple(losses)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(self.losses)

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{name}: {weight:g} · {loss!r}"
            for name, loss, weight in zip(self.names, self.losses, self.weights, strict=True)
        )
        return f"OutputLosses({parts})"

    def targets(self, y: object, count: int, outputs: Sequence[Shape], dtype: DTypeLike) -> Several:
        """The targets of ``count`` samples for each output, checked.

        Raises the errors of the losses, which name the output.
        """
        parts = []
        values = in_order("y", y, self.names, "output")
        for name, loss, one, output in zip(self.names, self.losses, values, outputs, strict=True):
            try:
                parts.append(loss.targets(one, count, output, dtype))  # type: ignore[arg-type]
            except (TypeError, ValueError) as error:
                raise type(error)(f"y for output {name!r}: {error}") from None
        return Several(tuple(parts))

    def values(
        self, outputs: Sequence[Array], targets: Several, engine: str | None = None
    ) -> Array:
        """The loss of each sample, (N,)."""
        total: Array | None = None
        for values, weight in zip(self.each(outputs, targets, engine), self.weights, strict=True):
            term = values * values.dtype.type(weight)
            total = term if total is None else total + term
        assert total is not None
        return total

    def each(
        self, outputs: Sequence[Array], targets: Several, engine: str | None = None
    ) -> list[Array]:
        """The losses of each output, without their weights, (N,) each."""
        triples = zip(self.losses, outputs, targets.parts, strict=True)
        return [loss.values(y, np.asarray(t), engine) for loss, y, t in triples]

    def gradient(
        self, outputs: Sequence[Array], targets: Several, engine: str | None = None
    ) -> list[Array]:
        """The gradient of each sample's own loss with respect to each of the outputs."""
        result = []
        for loss, y, t, weight in zip(
            self.losses, outputs, targets.parts, self.weights, strict=True
        ):
            gradient = np.array(loss.gradient(y, np.asarray(t), engine))
            gradient *= gradient.dtype.type(weight)
            result.append(gradient)
        return result

    def figures(
        self,
        outputs: Sequence[Array],
        targets: Several,
        weights: Array | None = None,
        engine: str | None = None,
    ) -> dict[str, float]:
        """Sums over the samples: ``{name}_loss`` of each output, and ``{name}_accuracy``."""
        result = {}
        for name, loss, y, t, values in zip(
            self.names, self.losses, outputs, targets.parts,
            self.each(outputs, targets, engine), strict=True,
        ):  # fmt: skip
            scaled = values if weights is None else values * weights
            result[f"{name}_loss"] = float(scaled.sum(dtype=np.float64))
            if loss.counts:
                result[f"{name}_accuracy"] = float(loss.correct(y, np.asarray(t)))
        return result

    def correct(self, outputs: Sequence[Array], targets: Several) -> float:
        """NaN, because each output has an accuracy of its own."""
        return float("nan")

    def predictions(self, outputs: Sequence[Array], engine: str | None = None) -> list[Array]:
        """The predictions of each output."""
        pairs = zip(self.losses, outputs, strict=True)
        return [loss.predictions(y, engine) for loss, y in pairs]

    def without_softmax_of_maps(self, shapes: Sequence[Shape]) -> OutputLosses:
        """The same, where outputs that are maps are predicted as they are."""
        raw = MeanSquaredError()
        losses = [
            raw if isinstance(loss, CrossEntropy) and len(shape) > 1 else loss
            for loss, shape in zip(self.losses, shapes, strict=True)
        ]
        return OutputLosses(self.names, losses, self.weights)

    def as_dict(self) -> JsonObject:
        """The losses as JSON values, for :func:`goal_from_dict`."""
        return {
            "losses": [loss_to_dict(loss) for loss in self.losses],
            "weights": list(self.weights),
        }


Goal = Loss | OutputLosses
"""What a training minimises: a loss, or the losses of several outputs."""

Losses = Loss | str | Sequence[Loss | str] | Mapping[str, Loss | str] | OutputLosses
"""A loss or its name; for several outputs also a list of them, or a dict by name."""


def goal_named(value: object, outputs: Sequence[str] | None, weights: object = None) -> Goal:
    """A loss, or a loss for each output, from the argument ``loss`` of ``fit``.

    Args:
        value: a loss or its name; for several outputs one for all, or a list or dict of them.
        outputs: the names of several outputs, or None for a model with one.
        weights: a list or dict of numbers of at least 0, how much each loss counts; None for 1.

    Raises ``TypeError`` or ``ValueError`` for anything else.

    >>> goal_named("mse", ["depth", "edges"])
    OutputLosses(depth: 1 · MeanSquaredError(), edges: 1 · MeanSquaredError())
    """
    if outputs is None:
        if weights is not None:
            raise ValueError("loss_weights must be None for a model with one output")
        return loss_named(value)
    if isinstance(value, OutputLosses):
        losses: list[Loss] = list(value.losses)
        if len(losses) != len(outputs):
            raise ValueError(f"loss must be for {len(outputs)} outputs, got one for {len(losses)}")
        numbers = list(value.weights)
    else:
        single = isinstance(value, str | Loss)
        values = [value] * len(outputs) if single else in_order("loss", value, outputs, "output")
        losses, numbers = [loss_named(one) for one in values], [1.0] * len(outputs)
    if weights is not None:
        factors = in_order("loss_weights", weights, outputs, "output")
        numbers = [
            number(f"loss_weights[{name!r}]", one)
            for name, one in zip(outputs, factors, strict=True)
        ]
    return OutputLosses(outputs, losses, numbers)


def implied_by(goal: Goal, outputs: int) -> tuple[str | None, ...]:
    """For each output the class of the last layer that its loss implies, or None."""
    if isinstance(goal, OutputLosses):
        return tuple(loss.implies for loss in goal.losses)
    return (goal.implies,) * outputs


def loss_to_dict(loss: Loss) -> JsonObject:
    """A loss as JSON values: its name and config, and the module of a user's class."""
    return {"name": loss.name, **module_of(type(loss)), "config": loss.config()}


def goal_to_dict(goal: Goal) -> JsonObject:
    """A loss, or several, as JSON values."""
    return goal.as_dict() if isinstance(goal, OutputLosses) else loss_to_dict(goal)


def goal_from_dict(value: object, outputs: Sequence[str] | None) -> Goal:
    """The loss, or losses, of a result of :func:`goal_to_dict`; ``ValueError`` for another."""
    if outputs is None:
        return loss_from_dict(value)
    if not isinstance(value, dict) or value.keys() != {"losses", "weights"}:
        raise ValueError(f"loss must be one for each output, got {quoted(value)}")
    losses = [loss_from_dict(one) for one in value["losses"]]
    return goal_named(losses, outputs, value["weights"])
