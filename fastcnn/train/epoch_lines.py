"""The line that a training prints for each epoch, and one that moves while an epoch runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from time import perf_counter

from fastcnn.core.terminal import (
    NotebookLines,
    broken,
    columns_of_output,
    output_is_notebook,
    output_rewinds,
)

FIRST_BATCH = "first batch: kernels may compile"


class EpochLines:
    """What ``fit(verbose=1)`` prints.

    A terminal and a notebook show how far an epoch is, in a line that is written over. A file, and
    a terminal that cannot move its cursor, get the lines of the epochs alone.

    Args:
        epochs: of the whole training.
        batches: to an epoch.
        moves: whether there may be a line that is written over.
    """

    SECONDS, SECONDS_IN_NOTEBOOK = 0.1, 0.5  # between two updates

    def __init__(self, epochs: int, batches: int, moves: bool) -> None:
        self._epochs, self._batches = epochs, batches
        self._notebook = NotebookLines() if output_is_notebook() else None
        self._rewinds = moves and self._notebook is None and output_rewinds()
        self._pause = math.inf
        if self._notebook is not None and moves:
            self._pause = self.SECONDS_IN_NOTEBOOK
        elif self._rewinds:
            self._pause = self.SECONDS
        self._next, self._since = math.inf, (0.0, 0)
        self._epoch, self._shown = 0, 0
        self._begins = self._compiles = True

    def begin(self, epoch: int) -> None:
        """Before an epoch, counted from 0."""
        self._epoch, self._begins = epoch, True
        if self._pause < math.inf and self._compiles:
            self._show([FIRST_BATCH])

    def is_due(self, batch: int) -> bool:
        """Whether it is time for :meth:`show`, after so many batches of the epoch."""
        now = perf_counter()
        if self._begins:  # the time of the first batch may be that of compiling
            self._since, self._begins, self._compiles = (now, batch), False, False
            self._next = now + self._pause
        return now >= self._next

    def show(self, batch: int, figures: Mapping[str, float]) -> None:
        """Show how far the epoch is, and the means of its batches."""
        now = perf_counter()
        start, before = self._since
        seconds_left = (now - start) / max(batch - before, 1) * (self._batches - batch)
        self._next = now + self._pause
        self._show([f"{batch}/{self._batches}", f"{_seconds(seconds_left)} left", *texts(figures)])

    def validate(self, figures: Mapping[str, float]) -> None:
        """Show that the validation runs."""
        if self._pause < math.inf:
            self._show(["validation", *texts(figures)])

    def end(self, figures: Mapping[str, float]) -> None:
        """Print the line of the epoch, which stays."""
        pace = f"{figures['seconds']:.1f} s"
        parts = parts_of_epoch(self._epoch, self._epochs, figures, pace)
        if self._notebook is not None:
            self._notebook.add("  ".join(parts))
            return
        self._clear()
        print(broken(parts, columns_of_output()), flush=True)

    def close(self) -> None:
        """Take away the line that moves."""
        if self._notebook is not None:
            self._notebook.pass_by("")
        self._clear()

    def _show(self, parts: Sequence[str]) -> None:
        """Write over the moving line, without the parts for which there is no room."""
        columns = math.inf if self._notebook is not None else (columns_of_output() or 80) - 1
        line = f"epoch {self._epoch + 1}/{self._epochs}: {parts[0]}"
        for part in parts[1:]:
            if len(line) + 2 + len(part) > columns:
                break
            line += f"  {part}"
        if self._notebook is not None:
            self._notebook.pass_by(line)
            return
        line = line[: int(columns)]
        sys.stdout.write("\r" + line.ljust(self._shown))
        sys.stdout.flush()
        self._shown = len(line)

    def _clear(self) -> None:
        if self._shown:
            sys.stdout.write("\r" + " " * self._shown + "\r")
            sys.stdout.flush()
            self._shown = 0


def _seconds(seconds: float) -> str:
    """A duration in the largest units that matter.

    >>> _seconds(0.4), _seconds(75.2), _seconds(3 * 3600 + 61)
    ('0 s', '1 min 15 s', '3 h 1 min')
    """
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    minutes, rest = divmod(rounded, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def parts_of_epoch(epoch: int, epochs: int, figures: Mapping[str, float], pace: str) -> list[str]:
    """The parts of the line for an epoch, between which it may be broken.

    Args:
        epoch: counted from 0.
        epochs: of the whole training.
        figures: by name; the rate and the seconds among them have no part.
        pace: the last part, such as "1.0 s".

    >>> parts_of_epoch(0, 3, {"loss": 0.5, "val_accuracy": 0.9, "seconds": 2.0}, "2.0 s")
    ['epoch 1/3: loss 0.5000', 'val_accuracy 90.00%', '2.0 s']
    """
    parts = [*texts(figures), pace]
    return [f"epoch {epoch + 1}/{epochs}: {parts[0]}", *parts[1:]]


def texts(figures: Mapping[str, float]) -> list[str]:
    """Figures with their names: accuracies in per cent, others with four decimal places."""
    return [
        f"{name} {value:.2%}" if name.endswith("accuracy") else f"{name} {value:.4f}"
        for name, value in figures.items()
        if name not in ("learning_rate", "seconds")
    ]
