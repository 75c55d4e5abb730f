"""What ``fit(verbose=1)`` shows on terminals, in notebooks and in files."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fastcnn import Callback, Sequential
from fastcnn.callbacks import ProgressBar
from fastcnn.layers import Dense
from fastcnn.train import epoch_lines
from fastcnn.train.epoch_lines import EpochLines

X, Y = np.eye(9, dtype=np.float32), np.arange(9) % 3


class Terminal(StringIO):
    """A standard output that says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines that stay, after each return of the cursor has been followed."""
        lines = list[str]()
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return lines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    result = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(EpochLines, "SECONDS", 0.0)
    return result


def fit(output: StringIO, **settings: Any) -> None:
    model = Sequential([Dense(3)], (9,), seed=0, engine="im2col")
    with redirect_stdout(output):
        model.fit(X, Y, **{"epochs": 2, "batch_size": 3, "seed": 0, **settings})


@pytest.mark.parametrize("width", [80, 60, 24])
def test_a_line_moves_on_a_terminal(
    terminal: Terminal, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    fit(terminal, validation_data=(X, Y))
    shown = [one.rstrip() for one in re.split("[\r\n]", terminal.getvalue()) if one.strip()]
    moving = [one for one in shown if re.match(r"epoch \d/2: (\d/|first|validation)", one)]
    assert moving[0] == "epoch 1/2: first batch: kernels may compile"[: width - 1].rstrip()
    places = [one.split("  ")[0] for one in moving[1:]]
    assert places == [
        f"epoch {k}/2: {n}" for k in (1, 2) for n in ("1/3", "2/3", "3/3", "validation")
    ]
    assert all(len(one) < width for one in moving)
    if width == 60:
        assert re.fullmatch(
            r"epoch 2/2: 2/3  0 s left  loss \d\.\d{4}  accuracy \d+\.\d\d%", moving[6]
        )
    assert moving[1:2] == ["epoch 1/2: 1/3"] if width == 24 else moving[1:2] != ["epoch 1/2: 1/3"]
    stays = [one for one in terminal.screen() if one]  # nothing of the moving line
    assert re.fullmatch(r"epoch 1/2: loss \d\.\d{4}", stays[0][:22])
    assert not [one for one in stays if re.search("left|validation|/3", one)]
    assert terminal.screen()[-1] == ""


def test_the_line_goes_with_an_error(terminal: Terminal) -> None:
    class Fails(Callback):
        def on_batch_end(self, model: Any, batch: int, logs: Any) -> None:
            raise RuntimeError("planned")

    with pytest.raises(RuntimeError, match="planned"):
        fit(terminal, callbacks=[Fails()])
    assert "1/3" in terminal.getvalue()
    assert terminal.screen() == [""]


def test_time_that_is_left(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([50.0, 50.2, 55.0, 55.0, 62.0])
    monkeypatch.setattr(epoch_lines, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(EpochLines, "SECONDS", 6.0)
    with redirect_stdout(terminal):
        lines = EpochLines(1, 100, moves=True)
    with redirect_stdout(terminal):
        lines.begin(0)
    due = [
        lines.is_due(number) for number in (7, 8, 9)
    ]  # a resumed epoch; the first does not count
    assert due == [False, False, False]
    with redirect_stdout(terminal):
        lines.show(11, {"loss": 1.0})  # at 55 s: 4 batches in 5 s, 89 are left
    assert terminal.screen()[-1] == "epoch 1/1: 11/100  1 min 51 s left  loss 1.0000"
    assert lines.is_due(12)


@pytest.mark.parametrize("case", ["dumb", "file", "bar", "quiet"])
def test_where_no_line_moves(
    terminal: Terminal, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    elif case == "file":
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    bar = [ProgressBar(Console(file=StringIO()))] if case == "bar" else []
    fit(terminal, verbose=case != "quiet", callbacks=bar)
    assert "\r" not in terminal.getvalue()
    lines = terminal.getvalue().splitlines()
    assert [one[:15] for one in lines] == (
        [] if case == "quiet" else ["epoch 1/2: loss", "epoch 2/2: loss"]
    )


@pytest.mark.parametrize("columns", [60, 100])
def test_a_bar_on_a_dumb_terminal_has_lines_of_its_width(
    terminal: Terminal, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(columns))
    fit(terminal, verbose=0, callbacks=[ProgressBar()], validation_data=(X, Y))
    lines = terminal.getvalue().splitlines()
    assert len(lines) == (4 if columns == 60 else 2)
    assert max(map(len, lines)) in range(columns - 30, columns + 1)


def test_a_notebook_shows_one_output_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = list[str]()

    class Lines:
        def __init__(self) -> None:
            self.lines = list[str]()

        def add(self, text: str) -> None:
            self.lines.append(text)
            outputs.append("\n".join(self.lines))

        def pass_by(self, text: str) -> None:
            outputs.append("\n".join([*self.lines, text]))

    monkeypatch.setattr(epoch_lines, "output_is_notebook", lambda: True)
    monkeypatch.setattr(epoch_lines, "NotebookLines", Lines)
    monkeypatch.setattr(EpochLines, "SECONDS_IN_NOTEBOOK", 0.0)
    fit(StringIO())
    assert outputs[0] == "epoch 1/2: first batch: kernels may compile"
    assert outputs[2].startswith("epoch 1/2: 2/3  0 s left  loss")
    last = outputs[-1].split("\n")
    assert [one[:15] for one in last] == ["epoch 1/2: loss", "epoch 2/2: loss", ""]
