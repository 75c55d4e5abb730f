"""Callbacks, driven hook by hook as ``fit`` drives them, with losses that the test chooses."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fastcnn.callbacks import (
    Callback,
    CSVLog,
    EarlyStopping,
    LearningRateSchedule,
    ModelCheckpoint,
    ProgressBar,
    StopTraining,
)
from fastcnn.core.json_arrays import join, split
from fastcnn.optimizers import SGD
from fastcnn.schedules import Cosine
from fastcnn.train.progress import Progress


class Counter:
    """A model with one weight, which counts its epochs."""

    def __init__(self) -> None:
        self.weight = np.zeros(1)
        self.progress = Progress(SGD(0.3), {})
        self.saved: list[tuple[Path, float]] = []

    def get_weights(self) -> list[Any]:
        return [self.weight]

    def set_weights(self, weights: list[Any]) -> None:
        self.weight[:] = weights[0]

    def save(self, path: Path) -> None:
        self.saved.append((path, float(self.weight[0])))


def run(
    model: Any,
    callbacks: Sequence[Callback],
    logs: Sequence[dict[str, float]],
    first_epoch: int = 0,
) -> int:
    """Train for as many epochs as there are logs; how many were done."""
    done, last = 0, {}
    try:
        begin = {"epochs": first_epoch + len(logs), "batches": 3, "samples": 70}
        for callback in callbacks:
            callback.on_train_begin(model, {**begin, "epoch": first_epoch})
        for epoch, last in enumerate(logs, first_epoch):
            for callback in callbacks:
                callback.on_epoch_begin(model, epoch)
            for batch in range(3):
                seen = {"samples": (32, 64, 70)[batch], "loss": 9.0, "accuracy": 0.125}
                for callback in callbacks:
                    callback.on_batch_end(model, batch, seen)
            model.weight += 1
            done += 1
            for callback in callbacks:
                callback.on_epoch_end(model, epoch, last)
    except StopTraining:
        pass
    finally:
        for callback in callbacks:
            callback.on_train_end(model, last)
    return done


def losses(*values: float, name: str = "val_loss") -> list[dict[str, float]]:
    return [{name: value} for value in values]


@pytest.mark.parametrize(
    ("settings", "values", "done", "best_epoch"),
    [
        ({"patience": 2}, (3, 2, 2.5, 2.4, 1), 4, 1),
        ({"patience": 1}, (3, 2, 2, 1), 3, 1),
        ({"patience": 3}, (3, 2, 2.5, 1.5, 2, 2), 6, 3),
        ({"patience": 2, "min_delta": 0.5}, (3, 2.6, 2.4, 2.3, 2.2, 1), 5, 2),
        ({"patience": 2}, (math.nan, 2, math.nan, math.nan, 1), 4, 1),
        ({"patience": 2, "monitor": "val_accuracy"}, (0.5, 0.6, 0.6, 0.4, 0.9), 4, 1),
        ({"patience": 2, "monitor": "gain", "mode": "max"}, (1, 2, 1, 1), 4, 1),
        ({"patience": 2, "monitor": "val_accuracy", "mode": "min"}, (0.5, 0.6, 0.7), 3, 0),
    ],
)
def test_early_stopping(
    settings: dict[str, Any], values: tuple[float, ...], done: int, best_epoch: int
) -> None:
    name = settings.get("monitor", "val_loss")
    model, stop = Counter(), EarlyStopping(**settings)
    assert run(model, [stop], losses(*values, name=name)) == done
    assert stop.best_epoch == best_epoch
    assert stop.best == values[best_epoch]
    assert stop.stopped_epoch == (None if best_epoch == 3 else done - 1)
    assert model.weight == best_epoch + 1  # that epoch's weights are back

    model = Counter()
    run(model, [EarlyStopping(**settings, restore_best=False)], losses(*values, name=name))
    assert model.weight == done


def test_early_stopping_starts_anew_with_each_training() -> None:
    stop = EarlyStopping(patience=1)
    assert run(Counter(), [stop], losses(1, 2, 3)) == 2
    assert run(Counter(), [stop], losses(5, 4, 3)) == 3


def test_early_stopping_resumes_where_it_stood() -> None:
    values = (3, 1, 2.5, 2, 1.5, 0)
    whole, model = EarlyStopping(patience=3), Counter()
    assert run(model, [whole], losses(*values)) == 5
    assert model.weight == 2

    first, model = EarlyStopping(patience=3), Counter()
    states: list[dict[str, Any]] = []

    class Keep(Callback):
        def on_epoch_end(self, model: Any, epoch: int, logs: dict[str, float]) -> None:
            text, arrays = split("the state", deepcopy(first.state()), "callbacks.0")
            states.append(join(json.loads(json.dumps(text)), arrays))

    run(model, [first, Keep()], losses(*values[:3]))
    model.weight[:] = 3
    resumed = EarlyStopping(patience=3)
    resumed.restore(states[-1])
    assert run(model, [resumed], losses(*values[3:]), first_epoch=3) == 2
    assert model.weight == 2
    assert (resumed.best, resumed.best_epoch) == (whole.best, whole.best_epoch) == (1, 1)
    assert resumed.stopped_epoch == whole.stopped_epoch == 4


def test_an_interrupt_gives_the_best_weights_back() -> None:
    class Interrupt(Callback):
        def on_epoch_end(self, model: Any, epoch: int, logs: dict[str, float]) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    model = Counter()
    with pytest.raises(KeyboardInterrupt):
        run(model, [EarlyStopping(patience=9), Interrupt()], losses(3, 1, 2, 0))
    assert model.weight == 2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"patience": -1}, ValueError, "patience must be at least 1, got -1"),
        ({"patience": 1.5}, TypeError, r"patience must be .*integers?, got 1\.5"),
        ({"min_delta": -1}, ValueError, "min_delta must be a finite number of at least 0, got -1"),
        ({"restore_best": 1}, TypeError, "restore_best must be True or False, got 1"),
        ({"mode": "up"}, ValueError, "mode must be 'min', 'max' or None, got 'up'"),
        ({"monitor": 3}, TypeError, "monitor must be a figure's name such as 'val_loss', got 3"),
    ],
)
def test_bad_settings_of_early_stopping(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EarlyStopping(**settings)


@pytest.mark.parametrize("make", [EarlyStopping, lambda: ModelCheckpoint("model.safetensors")])
def test_a_missing_figure_is_named_with_those_that_there_are(make: Any) -> None:
    message = (
        "monitor must be one of loss, accuracy, got 'val_loss'; "
        "give fit validation_data or validation_split"
    )
    with pytest.raises(ValueError, match=message):
        run(Counter(), [make()], [{"loss": 1.0, "accuracy": 0.5}])


def test_checkpoint_of_the_best(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model, best = Counter(), ModelCheckpoint(path)
    run(model, [best], losses(3, 2, 4, math.nan, 1))
    assert model.saved == [(path, 1), (path, 2), (path, 5)]
    assert best.best == 1

    model, resumed = Counter(), ModelCheckpoint(path)
    resumed.restore(json.loads(json.dumps(best.state())))
    run(model, [resumed], losses(1.5, 0.5), first_epoch=5)
    assert model.saved == [(path, 2)]

    model = Counter()
    run(model, [ModelCheckpoint(str(path), best_only=False)], losses(3, 4))
    assert model.saved == [(path, 1), (path, 2)]


@pytest.mark.parametrize("make", [ModelCheckpoint, CSVLog])
def test_paths_must_be_files_in_existing_folders(make: Any, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "file"):
        with pytest.raises(ValueError, match="path must be a file in an existing folder, got '"):
            make(path)
    with pytest.raises(TypeError, match="path must be a path, got 3"):
        make(3)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("what was there before\n")
    logs = [{"loss": 0.1 + i, "val_accuracy": i / 3} for i in range(3)]

    class Read(Callback):
        lines = 0

        def on_epoch_end(self, model: Any, epoch: int, logs: dict[str, float]) -> None:
            self.lines = len(path.read_text().splitlines())
            assert self.lines == epoch + 2  # this epoch's line is on disk

    run(Counter(), [CSVLog(path), Read()], logs)
    rows = list(csv.DictReader(path.open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    numbers = [{k: float(v) for k, v in row.items() if k != "epoch"} for row in rows]
    assert numbers == logs

    run(Counter(), [CSVLog(path, append=True)], logs[:1], first_epoch=3)
    assert [row["epoch"] for row in csv.DictReader(path.open())] == ["1", "2", "3", "4"]
    run(Counter(), [CSVLog(path)], logs[:1], first_epoch=4)  # resumed: never starts over
    assert [row["epoch"] for row in csv.DictReader(path.open())] == ["1", "2", "3", "4", "5"]
    with pytest.raises(ValueError, match="has the columns epoch, loss, val_accuracy, but"):
        run(Counter(), [CSVLog(path, append=True)], losses(1))
    run(Counter(), [CSVLog(path)], losses(1))
    assert len(path.read_text().splitlines()) == 2


def test_rates_by_epoch_and_by_step() -> None:
    class Rates(Callback):
        """The rate of each step, as it is when the step is taken."""

        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_epoch_begin(self, model: Any, epoch: int) -> None:
            self.seen.append(model.progress.optimizer.rate)

        def on_batch_end(self, model: Any, batch: int, logs: dict[str, float]) -> None:
            if batch < 2:
                self.seen.append(model.progress.optimizer.rate)

    def rates(schedule: LearningRateSchedule, first_epoch: int = 0) -> list[float]:
        record = Rates()
        run(Counter(), [schedule, record], losses(1, 1), first_epoch)
        return record.seen

    assert rates(LearningRateSchedule(lambda epoch: 1 / (1 + epoch)), 1) == [0.5] * 3 + [1 / 3] * 3
    assert rates(LearningRateSchedule(Cosine(0.5))) == [0.5] * 3 + [0] * 3
    stepwise = rates(LearningRateSchedule(Cosine(0.5), by="step"))
    assert stepwise == [Cosine(0.5, steps=6)(step) for step in range(6)]
    resumed = rates(LearningRateSchedule(Cosine(0.5, steps=6), by="step"), 1)
    assert resumed[:3] == stepwise[3:]


def test_bad_schedules() -> None:
    with pytest.raises(TypeError, match="schedule must be a function of the epoch's number, got 3"):
        LearningRateSchedule(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="by must be 'epoch' or 'step', got 'batch'"):
        LearningRateSchedule(lambda step: 1.0, by="batch")
    for rate, error in ((-1.0, ValueError), (math.nan, ValueError), ("fast", TypeError)):
        schedule: Any = {0: rate}.get
        with pytest.raises(error, match="the schedule's rate for epoch 0 must be"):
            run(Counter(), [LearningRateSchedule(schedule)], losses(1))


def test_progress_as_plain_lines() -> None:
    text = StringIO()
    bar = ProgressBar(Console(file=text, width=30))
    logs = [{"loss": 0.25, "accuracy": 0.5, "val_loss": 0.1, "val_accuracy": 0.9876}]
    run(Counter(), [bar], logs, first_epoch=2)
    assert re.fullmatch(
        r"epoch 3/3: loss 0\.2500  accuracy 50\.00%  val_loss 0\.1000  val_accuracy 98\.76%  "
        r"[\d,]+ images/s\n",
        text.getvalue(),
    )


def test_progress_as_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProgressBar, "_SECONDS", 0.0)
    text = StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    bar = ProgressBar(console)

    class Look(Callback):
        def on_batch_end(self, model: Any, batch: int, logs: dict[str, float]) -> None:
            assert bar._bar is not None
            (task,) = bar._bar.tasks
            assert task.total == 70
            assert task.completed == (32, 64, 70)[batch]
            bar._bar.refresh()

    run(Counter(), [bar, Look()], losses(0.5, 0.25))
    shown = text.getvalue()
    assert re.search(r"epoch 2/2 .*loss 9\.0000  accuracy 12\.50%  [\d,]+ images/s", shown)
    assert "val_loss 0.2500" in shown
    assert bar._bar is None  # the terminal is free again
