"""What happens between batches and epochs: stop early, keep the best, log, show progress.

A callback is an object with hooks; :meth:`fastcnn.model.Sequential.fit` calls each hook of each
callback in the order in which they were given. Subclass :class:`Callback` for your own.
"""

from __future__ import annotations

import csv
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from io import TextIOWrapper
from math import isnan
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcnn.arguments import Array
from fastcnn.reading import open_regular, regular
from fastcnn.scalars import count, number, truth
from fastcnn.schedules import Schedule, rate_at
from fastcnn.terminal import shows_bars

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from fastcnn.model import Sequential


class StopTraining(Exception):
    """Raised in a callback: the training ends after this batch or epoch, and ``fit`` returns."""


class Callback:
    """Base class: override what should happen when.

    ``logs`` are the means so far, such as ``{"loss": 0.3, "accuracy": 0.91}``; at the end of an
    epoch also ``val_loss``, ``val_accuracy``, ``learning_rate`` and ``seconds``.

    Example:
        >>> class StopAt(Callback):
        ...     def __init__(self, accuracy: float) -> None:
        ...         self.accuracy = accuracy
        ...
        ...     def on_epoch_end(self, model, epoch, logs):
        ...         if logs["val_accuracy"] >= self.accuracy:
        ...             raise StopTraining
    """

    def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
        """Before the first batch; ``logs`` has ``epochs``, ``batches`` (to an epoch), ``samples``
        and ``epoch``, from which a resumed training goes on."""

    def on_epoch_begin(self, model: Sequential, epoch: int) -> None:
        """Before an epoch, counted from 0."""

    def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
        """After each batch, counted from 0; ``logs`` also has ``samples`` seen in this epoch."""

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        """After an epoch and its validation."""

    def on_train_end(self, model: Sequential, logs: dict[str, float]) -> None:
        """After the last epoch, or when the training was stopped; with the last epoch's logs."""

    def state(self) -> dict[str, Any]:
        """What a resumed training must give back, as JSON holds it."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what ``state()`` returned."""


class _Best:
    """The best value of a figure so far."""

    def __init__(self, monitor: str, mode: str | None, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be a figure's name such as 'val_loss', got {monitor!r}")
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode must be 'min', 'max' or None, got {mode!r}")
        if mode is None:
            mode = "max" if monitor.endswith("accuracy") else "min"
        self.monitor = monitor
        self.sign = 1 if mode == "max" else -1
        self.min_delta = min_delta
        self.value: float | None = None

    def improved(self, logs: dict[str, float]) -> bool:
        """Whether these logs are better than all before; then they are the best."""
        if self.monitor not in logs:
            hint = "; give fit validation_data or validation_split"
            raise ValueError(
                f"monitor must be one of {', '.join(logs)}, got {self.monitor!r}"
                + (hint if self.monitor.startswith("val_") else "")
            )
        value = float(logs[self.monitor])
        if isnan(value):
            return False
        if self.value is not None and not self.sign * (value - self.value) > self.min_delta:
            return False
        self.value = value
        return True


class EarlyStopping(Callback):
    """End the training when a figure no longer gets better.

    Args:
        monitor: the figure's name: "loss", "accuracy", "val_loss" or "val_accuracy".
        patience: so many epochs in a row without a better value end the training.
        min_delta: a value must be better by more than this to count.
        restore_best: whether the model gets the best epoch's weights back when the training ends,
            however it ends.
        mode: "min" or "max", which values are better; None means greater ones for an accuracy and
            smaller ones for all else.

    After the training ``best`` is the best value, ``best_epoch`` its epoch (from 0), and
    ``stopped_epoch`` the epoch that ended it, or None.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value. At the first epoch's end:
            ``monitor`` names no figure of this training.

    Source: L. Prechelt, "Early Stopping – But When?", 1998.

    >>> EarlyStopping("val_accuracy", patience=5).patience
    5
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: str | None = None,
    ) -> None:
        self.monitor = monitor
        self.patience = count("patience", patience)
        self.min_delta = number("min_delta", min_delta)
        self.restore_best = truth("restore_best", restore_best)
        self.mode = mode
        self._start()

    def _start(self) -> None:
        self._best = _Best(self.monitor, self.mode, self.min_delta)
        self._weights: list[Array] | None = None
        self._waited = 0
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._best.value

    def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
        if logs["epoch"] == 0:
            self._start()

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        if self._best.improved(logs):
            self._waited = 0
            self.best_epoch = epoch
            if self.restore_best:
                self._weights = [array.copy() for array in model.get_weights()]
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = epoch
            raise StopTraining

    def on_train_end(self, model: Sequential, logs: dict[str, float]) -> None:
        if self._weights is not None:
            model.set_weights(self._weights)
            self._weights = None

    def state(self) -> dict[str, Any]:
        kept = None if self._weights is None else [_as_text(array) for array in self._weights]
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self._waited,
            "weights": kept,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._best.value = state["best"]
        self.best_epoch = state["best_epoch"]
        self._waited = state["waited"]
        kept = state["weights"]
        self._weights = None if kept is None else [_as_array(text) for text in kept]


class ModelCheckpoint(Callback):
    """Save the model after each epoch that is the best so far, or after every epoch.

    The file is written beside its place and then renamed: it is whole at every moment.

    Args:
        path: where to; a file in an existing folder.
        monitor: the figure that decides what is best; see :class:`EarlyStopping`.
        best_only: whether to save only after an epoch with a better value than all before.
        mode: "min", "max" or None; see :class:`EarlyStopping`.

    ``best`` is the best value so far.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value. At the first epoch's end:
            ``monitor`` names no figure of this training.

    >>> ModelCheckpoint("no/such/folder/model.safetensors")
    Traceback (most recent call last):
    ValueError: path must be a file in an existing folder, got 'no/such/folder/model.safetensors'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        best_only: bool = True,
        mode: str | None = None,
    ) -> None:
        self.path = _file(path)
        self.monitor = monitor
        self.best_only = truth("best_only", best_only)
        self.mode = mode
        self._best = _Best(monitor, mode)

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._best.value

    def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
        if logs["epoch"] == 0:
            self._best = _Best(self.monitor, self.mode)

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        if not self.best_only or self._best.improved(logs):
            model.save(self.path)

    def state(self) -> dict[str, Any]:
        return {"best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        self._best.value = state["best"]


class CSVLog(Callback):
    """One line for each epoch in a CSV file: the epoch (from 1), then its figures.

    Each line is on disk when its epoch is done. A resumed training carries its file on.

    Args:
        path: where to; a file in an existing folder.
        append: whether to carry on an existing file instead of replacing it.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value. At the first epoch's end:
            the file to carry on has other columns.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = _file(path)
        self.append = truth("append", append)
        self._columns: list[str] | None = None

    def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
        self._columns = None
        self._carry_on = self.append or logs["epoch"] > 0
        if self._carry_on and self.path.exists():
            regular(self.path)  # before an epoch is trained

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        if self._columns is None:
            self._columns = ["epoch", *logs]
            found = self._header() if self._carry_on else None
            if found is None:
                self._write("w", self._columns)
            elif found != self._columns:
                raise ValueError(
                    f"{self.path} has the columns {', '.join(found)}, but this training's are "
                    f"{', '.join(self._columns)}; use another path"
                )
        self._write("a", [epoch + 1, *(repr(float(logs[name])) for name in self._columns[1:])])

    def _header(self) -> list[str] | None:
        if not self.path.exists():
            return None
        with open_regular(self.path) as file:
            return next(csv.reader(TextIOWrapper(file, encoding="utf-8", newline="")), None)

    def _write(self, mode: str, row: list[Any]) -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)


class LearningRateSchedule(Callback):
    """Set the optimizer's learning rate before each epoch, or before each step.

    Args:
        schedule: a function of the number of the epoch (or step), from 0, that returns the rate;
            the schedules of ``fastcnn.schedules`` are such functions.
        by: "epoch" or "step".

    Raises:
        TypeError, ValueError: an argument of the wrong type or value. While training: the schedule
            returns no finite rate of at least 0.

    >>> LearningRateSchedule(lambda epoch: 0.1 * 0.5**epoch).by
    'epoch'
    """

    def __init__(self, schedule: Callable[[int], float], by: str = "epoch") -> None:
        if by not in ("epoch", "step"):
            raise ValueError(f"by must be 'epoch' or 'step', got {by!r}")
        if not callable(schedule):
            raise TypeError(f"schedule must be a function of the {by}'s number, got {schedule!r}")
        self.schedule = schedule
        self.by = by
        self._batches = 0
        self._total = 0
        self._step = 0

    def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
        self._batches = logs["batches"]
        self._step = logs["epoch"] * self._batches
        self._total = logs["epochs"] * (self._batches if self.by == "step" else 1)

    def on_epoch_begin(self, model: Sequential, epoch: int) -> None:
        self._step = epoch * self._batches
        self._set(model, epoch if self.by == "epoch" else self._step)

    def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
        if self.by == "step" and batch + 1 < self._batches:
            self._set(model, self._step + batch + 1)

    def _set(self, model: Sequential, at: int) -> None:
        if isinstance(self.schedule, Schedule):
            found = rate_at(self.schedule, at, self._total)
        else:
            found = self.schedule(at)
        rate = number(f"the schedule's rate for {self.by} {at}", found)
        assert model.progress is not None
        model.progress.optimizer.learning_rate = rate


class ProgressBar(Callback):
    """Loss, accuracy and images per second: a bar on a terminal, and a line for each epoch.

    Where the output is no terminal, the lines alone. The time of validation does not count.

    Args:
        console: the Rich console to print on; None for the standard output.
    """

    _SECONDS = 0.1  # between two drawings of the bar

    def __init__(self, console: Console | None = None) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
        from rich.console import Console

        self._console = self.console or Console(highlight=False)
        self._epochs, self._samples = logs["epochs"], logs["samples"]
        if shows_bars(self._console):
            self._bar = _bar(self._console)
            self._bar.start()
        self._begin_epoch(logs["epoch"])

    def on_epoch_begin(self, model: Sequential, epoch: int) -> None:
        self._begin_epoch(epoch)

    def _begin_epoch(self, epoch: int) -> None:
        self._begin = self._last = self._drawn = perf_counter()
        self._seen = self._batches = 0
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(
                f"epoch {epoch + 1}/{self._epochs}", total=self._samples, figures=""
            )

    def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
        self._last = perf_counter()
        self._seen, self._batches = int(logs["samples"]), self._batches + 1
        # An epoch that is resumed on its way begins with a later batch than 0.
        self._speed = self._seen * self._batches / (batch + 1) / max(self._last - self._begin, 1e-9)
        if self._bar is None or self._task is None or self._last - self._drawn < self._SECONDS:
            return
        self._drawn = self._last
        figures = f"{_figures(logs)}  {self._speed:,.0f} images/s"
        self._bar.update(self._task, completed=self._seen, figures=figures)

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self._console.print(
            f"epoch {epoch + 1}/{self._epochs}: {_figures(logs)}  {self._speed:,.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )

    def on_train_end(self, model: Sequential, logs: dict[str, float]) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _figures(logs: dict[str, float]) -> str:
    return "  ".join(
        f"{name} {value:.2%}" if name.endswith("accuracy") else f"{name} {value:.4f}"
        for name, value in logs.items()
        if name.endswith(("loss", "accuracy"))
    )


def _file(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a path, got {path!r}")
    place = Path(path)
    if place.is_dir() or not place.absolute().parent.is_dir():
        raise ValueError(f"path must be a file in an existing folder, got {str(path)!r}")
    return place


def _as_text(array: Array) -> dict[str, Any]:
    """An array in a form that JSON holds, exact to the last bit."""
    data = b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"dtype": array.dtype.str, "shape": array.shape, "data": data}


def _as_array(text: dict[str, Any]) -> Array:
    return np.frombuffer(b64decode(text["data"]), text["dtype"]).reshape(text["shape"])
