"""Metrics of an evaluation, and steps whose gradients are added from parts of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.user_code import unchanged_by_errors
from fastcnn.data.several import Data, parts_of
from fastcnn.models.layer_by_layer import Observer
from fastcnn.models.net import Net
from fastcnn.models.training import NamedMetric, check_parts, size_of_parts
from fastcnn.nn.metrics import Metric, value_of
from fastcnn.nn.optimizers import Optimizer
from fastcnn.train.output_losses import Goal

MetricList = Sequence[str | Metric | Callable[[Array, Array], float]]
Metrics = MetricList | Mapping[str, MetricList] | None
"""The argument ``metrics`` of ``fit`` and ``evaluate``."""


class Collected:
    """Predictions and targets of the batches of an evaluation or an epoch, for its metrics.

    Args:
        loss: makes predictions of outputs.
        metrics: what is computed; without any, nothing is kept.
        engine: runs what the loss computes.
    """

    def __init__(self, loss: Any, metrics: Sequence[NamedMetric], engine: str | None) -> None:
        self._loss, self._metrics, self._engine = loss, metrics, engine
        self._parts: dict[int, tuple[list[Array], list[Array]]] = {
            one.output: ([], []) for one in metrics
        }

    def __len__(self) -> int:
        return max((len(some) for some, _ in self._parts.values()), default=0)

    def truncate(self, count: int) -> None:
        """Forget all but the first batches."""
        for lists in self._parts.values():
            for one in lists:
                del one[count:]

    def __call__(self, outputs: Any, targets: Any) -> None:
        """Keep what a batch gave."""
        if not self._metrics:
            return
        predicted = self._loss.predictions(outputs, self._engine)
        of_outputs = predicted if isinstance(predicted, list) else [predicted]
        of_targets = [np.asarray(part) for part in parts_of(targets)]
        for output, (some, others) in self._parts.items():
            some.append(np.array(of_targets[output]))
            others.append(np.array(of_outputs[output]))  # the memory of outputs is used again

    def arrays(self) -> dict[str, dict[str, Array]]:
        """What was kept so far, as a checkpoint holds it, for :meth:`restore`."""
        return {
            str(output): {"targets": np.concatenate(some), "predictions": np.concatenate(others)}
            for output, (some, others) in self._parts.items()
            if some
        }

    def restore(self, arrays: Mapping[str, Mapping[str, Array]]) -> None:
        """Go on from a result of :meth:`arrays` of the same outputs."""
        for output, lists in self._parts.items():
            of_output = arrays[str(output)]
            for one, name in zip(lists, ("targets", "predictions"), strict=True):
                one[:] = [np.asarray(of_output[name])]

    def as_bytes(self) -> bytes:
        """What was kept so far, for :meth:`add`."""
        file = BytesIO()
        for of_output in self.arrays().values():
            for array in of_output.values():
                np.save(file, array, allow_pickle=False)
        return file.getvalue()

    def add(self, everyones: Sequence[bytes]) -> None:
        """Keep what several processes have kept of the same outputs, in this order, as a batch."""
        files = [BytesIO(one) for one in everyones if one]
        for lists in self._parts.values():
            parts = [[np.load(file, allow_pickle=False) for _ in lists] for file in files]
            for one, of_processes in zip(lists, zip(*parts, strict=True), strict=True):
                one.append(np.concatenate(of_processes))

    def like(self) -> Collected:
        """Another one of the same metrics, which has kept nothing yet."""
        return Collected(self._loss, self._metrics, self._engine)

    def values(self) -> dict[str, float]:
        """The figures by name."""
        arrays_of_output = {
            output: (np.concatenate(some), np.concatenate(others))
            for output, (some, others) in self._parts.items()
        }
        return {
            one.name: value_of(one.metric, *arrays_of_output[one.output]) for one in self._metrics
        }


def accumulated_step(
    model: Net,
    images: Data,
    targets: Data,
    loss: Goal,
    optimizer: Optimizer,
    weights: Array | None,
    parts: int,
    observe: Observer | None = None,
) -> tuple[float, float]:
    """A step on a batch that is computed in parts: the sum of its losses, and what is right.

    The gradient is that of the mean loss of the whole batch. Batch normalisation normalises each
    part on its own. After an error nothing of the model has changed.
    """
    gradient_of_part = model._weights.gradient
    state = [array for layer in model.layers for array in layer.state.values()]
    check_parts(model._least_batch, len(images), parts)  # a stream's batches may differ
    size = size_of_parts(len(images), parts)
    total, correct, figures = 0.0, 0.0, dict[str, float]()
    gradient = np.zeros_like(gradient_of_part)
    with unchanged_by_errors(state):
        for first in range(0, len(images), size):
            rows = slice(first, first + size)
            of_part = None if weights is None else weights[rows]
            part, of_targets = images[rows], targets[rows]
            loss_sum, right, _ = model._gradients(
                part, of_targets, loss, model.rng, of_part, optimizer, observe
            )
            share = len(part) / len(images)
            gradient += gradient_of_part * gradient_of_part.dtype.type(share)
            total, correct = total + loss_sum, correct + right
            for name, value in model._figures.items():
                figures[name] = figures.get(name, 0.0) + value
        gradient_of_part[...] = gradient
        model._weights.move(optimizer)
    model._figures = figures
    return total, correct
