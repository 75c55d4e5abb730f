"""Callbacks between batches and epochs: stop early, keep the best, log, show progress.

A callback is an object with hooks. :meth:`fastcnn.Model.fit` calls each hook
of each callback in the order of its list. Subclass :class:`Callback` for your own.
"""

from __future__ import annotations

import csv
import os
from base64 import b64decode
from collections.abc import Callable, Sequence
from copy import deepcopy
from io import TextIOWrapper
from math import isnan
from pathlib import Path
from string import Formatter
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import NamedArguments
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.reading import open_regular, regular
from fastcnn.core.scalars import count, number, truth
from fastcnn.core.terminal import NotebookLines, fitted, shows_bars, with_width
from fastcnn.nn.metrics import Metric
from fastcnn.nn.schedules import Schedule, rate_at
from fastcnn.train.epoch_lines import FIRST_BATCH, parts_of_epoch, texts
from fastcnn.train.trainee import Trainee

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from fastcnn.models.model import Model


class StopTraining(Exception):
    """Raised in a callback: the training ends after this batch or epoch, and ``fit`` returns."""


Logs: TypeAlias = dict[str, Any]
"""Figures of a batch, an epoch or a training by name."""


class Callback(NamedArguments):
    """Base class: override the hooks that should do something.

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

    on_every_process: ClassVar[bool] = False
    """Whether a training in a group of processes calls the hooks on each of them.

    All see the same figures. Without it rank 0 alone calls the hooks. All processes stop where one
    does. A callback that changes the model or its optimizer must have it.
    """

    def on_train_begin(self, model: Model, logs: Logs) -> None:
        """Before the first batch; ``logs`` has ``epochs``, ``batches`` (to an epoch), ``samples``
        and ``epoch``, from which a resumed training goes on."""

    def on_epoch_begin(self, model: Model, epoch: int) -> None:
        """Before an epoch, counted from 0."""

    def on_batch_end(self, model: Model, batch: int, logs: dict[str, float]) -> None:
        """After each batch, counted from 0; ``logs`` also has ``samples`` seen in this epoch."""

    def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
        """After an epoch and its validation."""

    def on_train_end(self, model: Model, logs: dict[str, float]) -> None:
        """After the last epoch, or when the training was stopped; with the last epoch's logs."""

    def state(self) -> JsonObject:
        """What a resumed training must give back: numbers, text, None, lists, dicts and arrays.

        Checkpoints, copies and pickles of the model hold this state instead of the callback.
        Arrays and long lists of numbers are stored as arrays.
        """
        return {}

    def restore(self, state: JsonObject) -> None:
        """Take back a result of ``state()``, after :meth:`on_train_begin`.

        ``StopTraining`` ends the training before its next batch.
        """

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """A copy for another training, so that an estimator with callbacks can be cloned.

        Attributes that cannot be copied, such as a file or a lock, are shared.
        """
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        for name, value in vars(self).items():
            try:
                vars(copied)[name] = deepcopy(value, memo)
            except Exception:  # an object that cannot be copied may raise anything
                vars(copied)[name] = value
        return copied


def call_hook(callback: Callback, hook: str, model: Trainee, *arguments: object) -> None:
    """Call a hook by its name, because its signature has the class of the model.

    The training loop knows its model as a :class:`fastcnn.train.trainee.Trainee`.
    """
    getattr(callback, hook)(model, *arguments)


_GREATER = ("accuracy",)
_SMALLER = ("loss", "learning_rate", "seconds")
"""Ends of the names of figures of which greater values are better, or smaller ones."""


def _better(figure: str) -> str | None:
    """Which values of a figure are better, "max" or "min"; None for a name that tells nothing."""
    metrics = [name for name in Metric.registry if f"_{figure}".endswith(f"_{name}")]
    if metrics:  # the longest name, because one metric's name may end with another's
        return "max" if Metric.registry[max(metrics, key=len)].greater_is_better else "min"
    if figure.endswith(_GREATER):
        return "max"
    return "min" if figure.endswith(_SMALLER) else None


class Best:
    """The best value of a figure so far."""

    def __init__(self, monitor: str, mode: str | None, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str):
            raise TypeError(
                f"monitor must be a figure's name such as 'val_loss', got {quoted(monitor)}"
            )
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode must be 'min', 'max' or None, got {quoted(mode)}")
        mode = _better(monitor) if mode is None else mode
        if mode is None:
            raise ValueError(
                f"mode must say which values of {quoted(monitor)} are better, 'min' or 'max', got "
                f"None"
            )
        self.monitor = monitor
        self.sign = 1 if mode == "max" else -1
        self.min_delta = min_delta
        self.value: float | None = None

    def improved(self, logs: dict[str, float]) -> bool:
        """Whether these logs are better than all before; the best value is then theirs."""
        if self.monitor not in logs:
            hint = "; give fit validation_data or validation_split"
            raise ValueError(
                f"monitor must be one of {', '.join(logs)}, got {quoted(self.monitor)}"
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
        monitor: the figure's name: "loss", "accuracy", "val_loss", "val_accuracy", or a metric of
            ``fit`` such as "val_f1".
        patience: so many epochs in a row without a better value end the training.
        min_delta: a value must be better by more than this to count.
        restore_best: whether the model gets the best epoch's weights back when the training ends,
            however it ends.
        mode: "min" or "max", which values are better; None means greater ones for accuracy,
            precision, recall, F1 and AUC, and smaller ones for losses and errors; a metric of your
            own needs it.

    After the training ``best`` is the best value, ``best_epoch`` its epoch (from 0), and
    ``stopped_epoch`` the epoch that ended it, or None.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value. At the first epoch's end:
            ``monitor`` names no figure of this training.

    Source: L. Prechelt, "Early Stopping – But When?", 1998.

    >>> EarlyStopping("val_accuracy", patience=5).patience
    5
    """

    on_every_process = True

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
        self._ended = False
        self._best = Best(self.monitor, self.mode, self.min_delta)
        self._weights: list[Array] | None = None
        self._waited = 0
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._best.value

    def on_train_begin(self, model: Model, logs: Logs) -> None:
        if logs["epoch"] == 0 or self._ended:
            self._start()

    def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
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

    def on_train_end(self, model: Model, logs: dict[str, float]) -> None:
        self._ended = True
        if self._weights is not None:
            model.set_weights(self._weights)

    def state(self) -> JsonObject:
        return {
            "monitor": self.monitor,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self._waited,
            "weights": self._weights,
        }

    def restore(self, state: JsonObject) -> None:
        if state.get("monitor", self.monitor) != self.monitor:
            return  # of another figure
        self._best.value = state["best"]
        self.best_epoch = state["best_epoch"]
        self._waited = state["waited"]
        weights = state["weights"]
        self._weights = None if weights is None else [_as_array(one) for one in weights]
        if self._waited >= self.patience:  # the saved training had ended
            raise StopTraining


class ModelCheckpoint(Callback):
    """Save the model after each epoch that is the best so far, or after every epoch.

    The file is written beside its place and then renamed: it is whole at every moment.

    Args:
        path: where to; a file in an existing folder. Its name may have fields of the epoch, counted
            from 1, and of figures of the training: ``"net-{epoch:02d}-{val_loss:.3f}.st"``. A brace
            that is part of the name is written twice.
        monitor: the figure that decides what is best; see :class:`EarlyStopping`.
        best_only: whether to save only after an epoch with a better value than all before.
        mode: "min", "max" or None; see :class:`EarlyStopping`.

    ``best`` is the best value so far.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value. At the first epoch's end:
            ``monitor`` or a field of ``path`` names no figure of this training.

    >>> ModelCheckpoint("net-{epoch:02d}.safetensors").best is None
    True
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
        _check_fields(self.path)
        self.monitor = monitor
        self.best_only = truth("best_only", best_only)
        self.mode = mode
        self._ended = False
        self._best = Best(monitor, mode)

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._best.value

    def on_train_begin(self, model: Model, logs: Logs) -> None:
        if logs["epoch"] == 0 or self._ended:
            self._best = Best(self.monitor, self.mode)
        self._ended = False

    def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
        path = _path_of_epoch(self.path, epoch, logs)
        if not self.best_only or self._best.improved(logs):
            model.save(path)

    def on_train_end(self, model: Model, logs: dict[str, float]) -> None:
        self._ended = True

    def state(self) -> JsonObject:
        return {"monitor": self.monitor, "best": self.best}

    def restore(self, state: JsonObject) -> None:
        if state.get("monitor", self.monitor) == self.monitor:
            self._best.value = state["best"]


class CSVLog(Callback):
    """One line for each epoch in a CSV file: the epoch (from 1), then its figures.

    Each line is on disk when its epoch is done. A resumed training carries its file on, and
    replaces the lines of epochs that it does once more.

    Args:
        path: where to; a file in an existing folder. Its name can have no fields such as
            ``{epoch}``, because all epochs go into one file.
        append: whether to carry on an existing file instead of replacing it.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value. At the first epoch's end:
            the file to carry on has other columns.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = _file(path)
        if any(field is not None for _, field in _parts(self.path)):
            raise ValueError(
                f"path must have no fields, because all epochs go into one file, got {str(path)!r}"
            )
        self.append = truth("append", append)
        self._columns: list[str] | None = None

    def on_train_begin(self, model: Model, logs: Logs) -> None:
        self._columns = None
        self._resumed = logs["epoch"] > 0
        if (self.append or self._resumed) and self.path.exists():
            regular(self.path)  # before an epoch is trained

    def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
        if self._columns is None:
            self._columns = ["epoch", *logs]
            rows = self._rows() if self.append or self._resumed else []
            if not rows:
                self._write("w", [self._columns])
            elif rows[0] != self._columns:
                raise ValueError(
                    f"{self.path} has the columns {', '.join(rows[0])}, but this training's are "
                    f"{', '.join(self._columns)}; use another path"
                )
            elif self._resumed and (earlier := _before(rows, epoch + 1)) != rows:
                self._write("w", earlier)
        row = [epoch + 1, *(repr(float(logs[name])) for name in self._columns[1:])]
        self._write("a", [row])

    def _rows(self) -> list[list[str]]:
        if not self.path.exists():
            return []
        with open_regular(self.path) as file:
            return list(csv.reader(TextIOWrapper(file, encoding="utf-8", newline="")))

    def _write(self, mode: str, rows: Sequence[Sequence[object]]) -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def _before(rows: list[list[str]], epoch: int) -> list[list[str]]:
    """The rows without the last ones, which are of this epoch or a later one."""
    end = len(rows)
    while end > 1 and rows[end - 1] and rows[end - 1][0].isdecimal():
        if int(rows[end - 1][0]) < epoch:
            break
        end -= 1
    return rows[:end]


class LearningRateSchedule(Callback):
    """Set the optimizer's learning rate before each epoch, or before each step.

    Args:
        schedule: a function of the number of the epoch (or step), from 0, that returns the rate;
            the schedules of ``fastcnn.nn.schedules`` are such functions.
        by: "epoch" or "step".

    Raises:
        TypeError, ValueError: an argument of the wrong type or value. While training: the schedule
            returns no finite rate of at least 0.

    >>> LearningRateSchedule(lambda epoch: 0.1 * 0.5**epoch).by
    'epoch'
    """

    on_every_process = True

    def __init__(self, schedule: Callable[[int], float], by: str = "epoch") -> None:
        if by not in ("epoch", "step"):
            raise ValueError(f"by must be 'epoch' or 'step', got {quoted(by)}")
        if not callable(schedule):
            raise TypeError(
                f"schedule must be a function of the {by}'s number, got {quoted(schedule)}"
            )
        self.schedule = schedule
        self.by = by
        self._batches = 0
        self._total = 0
        self._step = 0

    def on_train_begin(self, model: Model, logs: Logs) -> None:
        self._batches = logs["batches"]
        self._step = logs["epoch"] * self._batches
        self._total = logs["epochs"] * (self._batches if self.by == "step" else 1)

    def on_epoch_begin(self, model: Model, epoch: int) -> None:
        self._step = epoch * self._batches
        self._set(model, epoch if self.by == "epoch" else self._step)

    def on_batch_end(self, model: Model, batch: int, logs: dict[str, float]) -> None:
        if self.by == "step" and batch + 1 < self._batches:
            self._set(model, self._step + batch + 1)

    def _set(self, model: Model, at: int) -> None:
        if isinstance(self.schedule, Schedule):
            rate_of_schedule = rate_at(self.schedule, at, self._total)
        else:
            rate_of_schedule = self.schedule(at)
        rate = number(f"the schedule's rate for {self.by} {at}", rate_of_schedule)
        assert model.progress is not None
        model.progress.optimizer.learning_rate = rate


class ProgressBar(Callback):
    """Loss, accuracy and images per second: how far an epoch is, and a line for each epoch.

    A terminal shows a bar. A notebook shows a line that changes. A file, and a terminal that cannot
    move its cursor, get the lines of the epochs alone. The time of validation does not count.

    Args:
        console: the Rich console to print on; None for the standard output.
    """

    _SECONDS, _SECONDS_IN_NOTEBOOK = 0.1, 0.5  # between two updates

    def __init__(self, console: Console | None = None) -> None:
        self.console = console
        self._console: Console | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._notebook: NotebookLines | None = None
        self._first, self._shows_speed = True, True
        self._since, self._speed = (0.0, 0.0), 0.0

    def __getstate__(self) -> dict[str, object]:
        # A console belongs to its process, so a pickled bar prints on the standard output.
        not_copied = ("console", "_console", "_bar", "_task", "_notebook")
        return {**vars(self), **dict.fromkeys(not_copied)}

    def on_train_begin(self, model: Model, logs: Logs) -> None:
        from rich.console import Console

        self._console = self.console or with_width(Console(highlight=False))
        self._epochs, self._samples = logs["epochs"], logs["samples"]
        self._first, self._shows_speed = True, self._console.width >= _WIDE
        self._notebook = NotebookLines() if self._console.is_jupyter else None
        if shows_bars(self._console):
            self._bar = _bar(self._console)
            self._bar.start()
        self._begin_epoch(logs["epoch"])

    def on_epoch_begin(self, model: Model, epoch: int) -> None:
        self._begin_epoch(epoch)

    def _begin_epoch(self, epoch: int) -> None:
        self._begin = self._last = self._updated = perf_counter()
        self._samples_done = self._batches = 0
        self._since, self._speed = (self._begin, 0.0), 0.0
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(
                f"epoch {epoch + 1}/{self._epochs}",
                total=self._samples,
                figures=FIRST_BATCH if self._first else "",
            )
        self._epoch = epoch
        if self._notebook is not None and self._first:
            self._notebook.pass_by(f"epoch {epoch + 1}/{self._epochs}: {FIRST_BATCH}")

    def on_batch_end(self, model: Model, batch: int, logs: dict[str, float]) -> None:
        self._last = perf_counter()
        self._samples_done, self._batches = int(logs["samples"]), self._batches + 1
        # A resumed epoch begins with a later batch than 0.
        samples_here = self._samples_done * self._batches / (batch + 1)
        if self._first:  # its time may be that of compiling, so the speed is that of the others
            self._first, self._since = False, (self._last, samples_here)
        start, before = self._since
        if samples_here <= before:
            start, before = self._begin, 0.0
        self._speed = (samples_here - before) / max(self._last - start, 1e-9)
        pause = self._SECONDS if self._notebook is None else self._SECONDS_IN_NOTEBOOK
        if self._last - self._updated < pause:
            return
        self._updated = self._last
        figures = texts({k: v for k, v in logs.items() if k in ("loss", "accuracy")})
        if self._shows_speed:
            figures.append(f"{self._speed:,.0f} images/s")
        if self._notebook is not None:
            share = f"{self._samples_done / max(self._samples, 1):.0%}"
            progress = f"epoch {self._epoch + 1}/{self._epochs}: {share}"
            self._notebook.pass_by("  ".join([progress, *figures]))
        elif self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._samples_done, figures="  ".join(figures))

    def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        assert self._console is not None
        parts = parts_of_epoch(epoch, self._epochs, logs, f"{self._speed:,.0f} images/s")
        if self._notebook is not None:
            self._notebook.add("  ".join(parts))
        else:
            self._console.print(fitted(parts, self._console), highlight=False, soft_wrap=True)

    def on_train_end(self, model: Model, logs: dict[str, float]) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._notebook is not None:
            self._notebook.pass_by("")
        self._bar = self._task = self._console = self._notebook = None


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24 if console.width >= _WIDEST else 8),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


_WIDEST, _WIDE = 92, 76
"""Columns for a bar of full length, and for the speed beside a shorter one."""


def _file(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a path, got {quoted(path)}")
    place = Path(path)
    if place.is_dir() or not place.absolute().parent.is_dir():
        raise ValueError(f"path must be a file in an existing folder, got {quoted(str(path))}")
    return place


_FIGURES = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


def _parts(path: Path) -> list[tuple[str, str | None]]:
    """Text and fields of a file's name."""
    try:
        return [(text, field) for text, field, _, _ in Formatter().parse(path.name)]
    except ValueError as error:
        raise ValueError(
            f"path must have a name whose braces enclose fields, or are doubled, got "
            f"{str(path)!r}: {error}"
        ) from None


def _check_fields(path: Path) -> None:
    """Raise ``ValueError`` for a name with a field that cannot be filled in."""
    for _, field in _parts(path):
        if field is not None and field not in _FIGURES:
            raise ValueError(
                f"path must have fields of {', '.join(_FIGURES)}, and braces that are no field "
                f"doubled, got {str(path)!r}"
            )
    _path_of_epoch(path, 0, dict.fromkeys(_FIGURES[1:], 0.5))


def _path_of_epoch(path: Path, epoch: int, logs: dict[str, float]) -> Path:
    """The path for an epoch, counted from 0."""
    figures = {**logs, "epoch": epoch + 1}
    for _, field in _parts(path):
        if field is not None and field not in figures:
            hint = "; give fit validation_data or validation_split"
            raise ValueError(
                f"path must have fields of {', '.join(['epoch', *logs])}, got {str(path)!r}"
                + (hint if field.startswith("val_") else "")
            )
    try:
        name = path.name.format(**figures)
        return path.with_name(name)
    except (ValueError, LookupError, AttributeError, MemoryError) as error:
        raise ValueError(
            f"path must have fields with formats for numbers, got {str(path)!r}: {error}"
        ) from None


def _as_array(value: object) -> Array:
    """An array of a callback's state; files of earlier versions have it as text."""
    if not isinstance(value, dict):
        return np.array(value)
    data = b64decode(value["data"])
    return np.frombuffer(data, value["dtype"]).reshape(value["shape"])
