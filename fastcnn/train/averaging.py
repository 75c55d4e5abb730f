"""Callbacks that act on the optimizer and on the weights: lower rates, averaged weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import below_one, count, number
from fastcnn.nn.schedules import Schedule
from fastcnn.train.callbacks import Best, Callback, Logs

if TYPE_CHECKING:
    from fastcnn.models.model import Model


class ReduceLROnPlateau(Callback):
    """Lower the learning rate when a figure no longer gets better.

    Args:
        monitor: the figure's name, see :class:`fastcnn.callbacks.EarlyStopping`.
        factor: the rate is multiplied by this, above 0 and below 1.
        patience: so many epochs in a row without a better value lower the rate.
        min_delta: a value must be better by more than this to count.
        cooldown: epochs after a lower rate that do not count.
        min_rate: the rate is never lowered below this.
        mode: "min", "max" or None; see :class:`fastcnn.callbacks.EarlyStopping`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value. When the training begins: the
            optimizer's rate follows a schedule. At the first epoch's end: ``monitor`` names no
            figure of this training.

    >>> ReduceLROnPlateau(factor=0.5, patience=2).factor
    0.5
    """

    on_every_process = True

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_rate: float = 0.0,
        mode: str | None = None,
    ) -> None:
        self.monitor, self.mode = monitor, mode
        self.factor = below_one("factor", factor)
        if not self.factor:
            raise ValueError(f"factor must be above 0 and below 1, got {quoted(factor)}")
        self.patience = count("patience", patience)
        self.min_delta = number("min_delta", min_delta)
        self.cooldown = count("cooldown", cooldown, least=0)
        self.min_rate = number("min_rate", min_rate)
        self._start()

    def _start(self) -> None:
        self._best = Best(self.monitor, self.mode, self.min_delta)
        self._waited = self._cooling = 0

    def on_train_begin(self, model: Model, logs: Logs) -> None:
        if isinstance(model.optimizer.learning_rate, Schedule):
            raise ValueError(
                f"ReduceLROnPlateau needs an optimizer whose learning_rate is a number, got "
                f"{quoted(model.optimizer.learning_rate)}"
            )
        if logs["epoch"] == 0:
            self._start()

    def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
        better, cooling = self._best.improved(logs), self._cooling > 0
        if cooling:
            self._cooling -= 1
        self._waited = 0 if better or cooling else self._waited + 1
        if self._waited < self.patience:
            return
        rate = model.optimizer.learning_rate
        assert isinstance(rate, float)
        if rate > self.min_rate:
            model.optimizer.learning_rate = max(rate * self.factor, self.min_rate)
            self._cooling, self._waited = self.cooldown, 0

    def state(self) -> JsonObject:
        return {
            "monitor": self.monitor,
            "best": self._best.value,
            "waited": self._waited,
            "cooling": self._cooling,
        }

    def restore(self, state: JsonObject) -> None:
        if state.get("monitor", self.monitor) == self.monitor:
            self._best.value = state["best"]
            self._waited, self._cooling = state["waited"], state["cooling"]


class WeightAverage(Callback):
    """The exponential moving average of the weights, which the model gets when the training ends.

    After each step the average moves by the share ``1 − d`` towards the weights, with
    ``d = min(decay, (1 + n) / (10 + n))`` at step n, so that the first weights are soon forgotten.
    Running statistics of BatchNorm are averaged too. Validation during the training sees the
    weights themselves. Do not use it beside ``EarlyStopping(restore_best=True)``, because both give
    the model other weights at the end.

    Args:
        decay: at least 0 and below 1.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value.

    Source: B. T. Polyak, A. B. Juditsky, "Acceleration of Stochastic Approximation by Averaging",
    1992; the limit of the first steps is that of TensorFlow's ``ExponentialMovingAverage``.

    >>> WeightAverage(0.99).decay
    0.99
    """

    on_every_process = True

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = below_one("decay", decay)
        self._average: list[Array] | None = None
        self._steps = 0

    @property
    def average(self) -> list[Array] | None:
        """The averages, in the order of ``model.get_weights()``; None before the first step."""
        return self._average

    def on_train_begin(self, model: Model, logs: Logs) -> None:
        if logs["epoch"] == 0:
            self._average, self._steps = None, 0

    def on_batch_end(self, model: Model, batch: int, logs: dict[str, float]) -> None:
        weights = model.get_weights()
        if self._average is None:
            self._average = weights
            return
        self._steps += 1
        share = 1 - min(self.decay, (1 + self._steps) / (10 + self._steps))
        for average, array in zip(self._average, weights, strict=True):
            array -= average
            array *= average.dtype.type(share)
            average += array

    def on_train_end(self, model: Model, logs: dict[str, float]) -> None:
        if self._average is not None:
            model.set_weights(self._average)

    def state(self) -> JsonObject:
        average = self._average
        return {
            "average": None if average is None else [array.copy() for array in average],
            "steps": self._steps,
        }

    def restore(self, state: JsonObject) -> None:
        average = state["average"]
        self._average = None if average is None else [np.array(array) for array in average]
        self._steps = state["steps"]
