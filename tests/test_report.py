"""``train --report`` and ``show MODEL IMAGE``: a page of pictures, and pictures in characters."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from digits import write_digits
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import fastcnn
from fastcnn.callbacks import ProgressBar
from fastcnn.cli import app
from fastcnn.cli.characters import _reduced
from fastcnn.cli.show_picture import _shown
from fastcnn.core.terminal import fitted, shows_bars
from fastcnn.recipes.report import command_of
from fastcnn.recipes.training import settings_for


def run(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env=environment)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, the report of its training, and a picture of a digit."""
    folder = tmp_path_factory.mktemp("report")
    data = write_digits(tmp_path_factory.mktemp("digits"))
    done = run(
        "train", "--net", "article", "--epochs", "1", "--data", data,
        "--save", str(folder / "net.safetensors"), "--report", str(folder / "report.html"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"report: {folder / 'report.html'}"
    digit = fastcnn.load_mnist()[1][0][0]
    Image.fromarray(digit).resize((90, 90)).save(folder / "seven.png")
    return folder


class Page(HTMLParser):
    """Tags that are open, headings, and the labels of pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.labels: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "path", "use", "image", "rect"):
            self.open.append(tag)
        given = dict(attrs)
        self.links += [given[name] or "" for name in ("src", "href", "xlink:href") if name in given]
        if tag == "svg":
            self.labels.append(given.get("aria-label"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_report_is_one_page_with_pictures_settings_and_machine(trained: Path) -> None:
    text = (trained / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert len(page.labels) == 9
    assert all(link.startswith(("#", "data:image/png")) for link in page.links)
    assert re.findall(r"<h2>(.*?)</h2>", text) == [
        "Learning", "Where it is wrong", "What it has learned", "What an answer depends on",
        "The net", "Layers", "The same training again", "Machine",
    ]  # fmt: skip
    assert "prefers-color-scheme:dark" in text
    assert "currentColor" in text
    assert "#1d2433" not in text.split("</style>", 1)[1]  # the ink follows the page
    assert "--net article --epochs 1 --batch-size 32" in text
    model = fastcnn.load_model(trained / "net.safetensors")
    (x, y) = fastcnn.load_mnist()[1]
    assert f"{model.evaluate(x[:300], y[:300])['accuracy']:.2%}" in text
    assert "13,602" in text


def test_the_command_repeats_the_settings() -> None:
    settings = settings_for("small", data="a folder", size=32, augment=True, seed=7)
    assert command_of(settings) == (
        "fastcnn train --net small --epochs 3 --batch-size 64 --optimizer sgd --lr 0.1 --augment "
        "--seed 7 --data 'a folder' --size 32"
    )


@pytest.mark.parametrize(
    ("path", "message"), [("report.pdf", "must be an .html file"), ("no/r.html", "existing folder")]
)
def test_a_report_that_cannot_be_written_is_refused_before_the_training(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("train", "--report", path)
    assert done.exit_code == 2
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_picture_in_characters_fits_the_terminal(trained: Path, width: int) -> None:
    model, picture = str(trained / "net.safetensors"), str(trained / "seven.png")
    done = run("show", model, picture, COLUMNS=str(width))
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert max(map(len, lines[1:])) <= width
    assert "\x1b" not in done.output
    assert "  centred by mass in 28×28" in lines
    heads = [line.split("  ")[:2] for line in lines if line[:1].isalpha()]
    assert heads == [["conv2d", "26×26×8"], ["max_pool2d", "13×13×8"], ["dense", "10"]]
    shown = re.findall(r"the (\d) of 8 channels", done.output)
    assert shown == {60: ["3", "3"], 80: ["5", "5"], 120: ["7", "7"]}[width]


def test_what_the_layers_make_of_a_picture_as_json(trained: Path) -> None:
    model, picture = trained / "net.safetensors", trained / "seven.png"
    facts = json.loads(run("show", str(model), str(picture), "--json").output)
    assert facts["class"] == 7
    assert [layer["shape"] for layer in facts["layers"]] == [[26, 26, 8], [13, 13, 8], [10]]
    assert all(one["least"] <= one["mean"] <= one["greatest"] for one in facts["layers"])
    assert run("show", str(model), str(picture), "--training").exit_code == 2
    assert run("show", str(model), str(model)).exit_code == 2


def test_channels_that_vary_most_are_printed() -> None:
    values = np.zeros((3, 20, 6))
    values[1, 2] = [5, 1, 4, 0, 6, 2]
    values[..., 3] = 100  # large, and constant
    assert _shown(values, 40) == [0, 2, 4]


def test_a_reduced_picture_has_the_means_of_its_boxes() -> None:
    image = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.5]])
    np.testing.assert_allclose(_reduced(image, 2), [[0.0, 1.0], [1.0, 0.5]])


def test_lines_of_epochs_break_between_figures_alone() -> None:
    parts = ["epoch 1/3: loss 0.2301", "accuracy 93.16%", "val_loss 0.0921", "100,475 images/s"]
    for width in (40, 60, 80, 200):
        console = Console(file=StringIO(), width=width, force_terminal=True)
        lines = fitted(parts, console).split("\n")
        assert max(map(len, lines)) <= width
        assert "  ".join(line.strip() for line in lines) == "  ".join(parts)
    assert fitted(parts, Console(file=StringIO(), width=40)) == "  ".join(parts)


def small_fit(**options: Any) -> None:
    model = fastcnn.Sequential([fastcnn.layers.Dense(2)], (3,), engine="im2col")
    model.fit(np.eye(3), [0, 1, 1], epochs=2, batch_size=1, seed=0, **options)


def test_fit_breaks_its_lines_for_a_terminal_and_not_for_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_fit()
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d+\.\d+", "n", line) for line in lines] == [
        f"epoch {epoch}/2: loss n  accuracy n%  n s" for epoch in (1, 2)
    ]
    monkeypatch.setattr("fastcnn.train.epoch_lines.columns_of_output", lambda: 30)
    small_fit()
    narrow = capsys.readouterr().out.splitlines()
    assert max(map(len, narrow)) <= 30
    assert [line.split()[0] for line in narrow] == ["epoch", "accuracy"] * 2


def test_a_notebook_gets_one_output_whose_last_line_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            shown.append(data["text/plain"])

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert not shown
        shown.append(data["text/plain"])
        return Handle()

    module: Any = ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(ProgressBar, "_SECONDS_IN_NOTEBOOK", 0.0)
    small_fit(verbose=0, callbacks=[ProgressBar(Console(file=StringIO(), force_jupyter=True))])
    assert shown[0] == "epoch 1/2: first batch: kernels may compile"
    assert re.match(r"epoch 1/2: 33%  loss .*  accuracy .*%  [\d,]+ images/s$", shown[1])
    ends = [text.splitlines() for text in shown]
    assert max(map(len, ends)) == 2
    assert [line[:9] for line in ends[-1]] == ["epoch 1/2", "epoch 2/2"]
    assert all("images/s" in line and "%  loss" not in line for line in ends[-1])


def test_a_dumb_terminal_gets_lines_and_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    text = StringIO()
    console = Console(file=text, width=60, force_terminal=True, highlight=False)
    assert not shows_bars(console)
    model = fastcnn.Sequential([fastcnn.layers.Dense(2)], (3,), engine="im2col")
    model.fit(np.eye(3), [0, 1, 1], epochs=2, verbose=0, callbacks=[ProgressBar(console)])
    assert "\x1b" not in text.getvalue()
    assert [line[:9] for line in text.getvalue().splitlines()] == ["epoch 1/2", "epoch 2/2"]
