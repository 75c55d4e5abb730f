"""Tables at 60 and at 80 columns: numbers stay whole, and what is cut ends with a mark."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from digits import write_digits
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_benchmark import entry, report
from typer.testing import CliRunner

import fastcnn
from fastcnn.bench.history import compare as compare_runs
from fastcnn.bench.report import Cost
from fastcnn.bench.text import comparison_table, show
from fastcnn.cli import app
from fastcnn.cli.compare import _print_report
from fastcnn.core.tables import fitted_table, lines_of
from fastcnn.layers import Add, Concatenate, Conv2D, Dense, GlobalAvgPool2D
from fastcnn.nets import resnet8
from fastcnn.proof import compare
from fastcnn.recipes.demo import Agreement, EngineRun, _print_agreements

WIDTHS = pytest.mark.parametrize("width", [60, 80])
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])[;m]")


def numbers(text: str) -> set[str]:
    """What looks like a number, but for those that a cut goes through."""
    return set(re.findall(r"(?<![\w.,])\d[\d.,e×%+-]*(?!…)\b", text))


def check(narrow: str, wide: str, width: int) -> None:
    """Lines fit, and each number of the narrow output is a number of the wide one."""
    assert max(map(len, narrow.splitlines())) <= width
    assert numbers(narrow) <= numbers(wide)
    assert numbers(narrow)


def printed(draw: Callable[[Console], None], width: int, **options: Any) -> str:
    text = StringIO()
    draw(Console(file=text, width=width, highlight=False, **options))
    return text.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of a deep net, and of a graph, with a class whose name is long."""
    folder = tmp_path_factory.mktemp("models")
    x = inputs = fastcnn.Input((28, 28, 1))
    x = Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    x = Concatenate()([Add()([x, Conv2D(8, 3, padding="same")(x)]), x])
    graph = fastcnn.Model(inputs, Dense(10)(GlobalAvgPool2D()(x)), seed=0)
    graph.classes = [f"a name of many words, number {i}" for i in range(10)]
    graph.trained_on = "uint8"
    nets = {"resnet8": fastcnn.Sequential(resnet8(), (28, 28, 1), seed=0), "graph": graph}
    for name, net in nets.items():
        net.save(folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in nets}


def run(*arguments: str, **environment: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env=environment)
    assert done.exit_code == 0, done.output
    return done.output


@WIDTHS
@pytest.mark.parametrize("name", ["resnet8", "graph"])
def test_show(models: dict[str, Path], name: str, width: int, tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(models[name].read_bytes())
    arguments = ["show", "net.safetensors", "--training"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        wide = run(*arguments, COLUMNS="1000")
        narrow = run(*arguments, COLUMNS=str(width))
        assert run(*arguments) == wide
    check(narrow, wide, width)
    assert "…" in narrow
    assert "…" not in wide
    table = wide[wide.index("parameters") :].splitlines()
    counts = re.findall(r"(?<= )(?:frozen )?[\d,]+  +[\d.]+$", "\n".join(table), re.M)
    assert counts
    assert all(count in narrow for count in counts)


@WIDTHS
def test_summary_in_a_terminal(
    models: dict[str, Path], width: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = fastcnn.load_model(models["graph"])
    model.summary()
    wide = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    model.summary()
    check(ESCAPE.sub("", capsys.readouterr().out), wide, width)


@WIDTHS
def test_evaluate(models: dict[str, Path], width: int, tmp_path: Path) -> None:
    arguments = ["evaluate", str(models["graph"]), "--data", write_digits(tmp_path)]
    wide, narrow = run(*arguments), run(*arguments, COLUMNS=str(width))
    check(narrow, wide, width)
    assert "  a name of … number 3: " in narrow


@WIDTHS
def test_compare(width: int) -> None:
    result = compare(["dense_backward"], ["im2col"], quick=True)
    wide = printed(lambda console: _print_report(console, result), 1000)
    narrow = printed(lambda console: _print_report(console, result), width)
    check(narrow, wide, width)
    assert "…" not in narrow
    assert "dense_backward im2col" in narrow
    assert ("abs err " in narrow.splitlines()[0]) == (width == 80)


def test_a_file_gets_the_whole_table_of_compare() -> None:
    arguments = ["compare", "--quick", "--op", "local_response_norm_backward"]
    assert "local_response_norm_backward im2col" in run(*arguments)
    assert "local_response_norm_backward im2col" not in run(*arguments, COLUMNS="70")


@WIDTHS
def test_bench(width: int) -> None:
    cost = Cost("first convolution, kernels not compiled yet", "fastcnn", 1.5, "s")
    result = report(entry(), entry("dense/b, batch 1", 1e-6), costs=(cost,))
    wide = printed(lambda console: show(console, result), 1000)
    narrow = printed(lambda console: show(console, result), width)
    check(narrow, wide, width)
    assert "fastcnn, 1 thread" in narrow
    assert "PyTorch NCHW" in narrow
    assert "noi…" not in narrow


@WIDTHS
def test_bench_of_two_runs(width: int) -> None:
    name = "conv2d/a layer with a name of some length, batch 1"
    comparison = compare_runs(report(entry(name)), report(entry(name, 2e-3)))
    wide = printed(lambda console: console.print(comparison_table(comparison, 1000)), 1000)
    narrow = printed(lambda console: console.print(comparison_table(comparison, width)), width)
    check(narrow, wide, width)
    assert "slower" in narrow
    assert ("conv2d/a layer with a n… " in narrow) == (width == 60)


@WIDTHS
def test_the_demos_table(width: int) -> None:
    import numpy as np

    losses = np.ones(1000)
    runs = (EngineRun("naive", losses, 99, 12.5, 0.0), EngineRun("numba", losses, 99, 0.25, 0.0))
    agreements = (Agreement("numba", 4.4e-16, 9.2e-14, True, 50.0),)
    wide = printed(lambda console: _print_agreements(console, runs, agreements), 1000)
    narrow = printed(lambda console: _print_agreements(console, runs, agreements), width)
    check(narrow, wide, width)
    assert "agrees" in narrow
    assert "4.4e-16" in narrow
    assert "…" not in narrow


def test_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    result = compare(["dense"], ["im2col"], quick=True)

    def draw(console: Console) -> None:
        _print_report(console, result)
        show(console, report(entry()))

    terminal = {"force_terminal": True, "color_system": "standard"}
    assert COLOUR.search(printed(draw, 80, **terminal))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(printed(draw, 80, **terminal))


CELLS = st.text("abc ,()=1", max_size=30)


@given(st.data(), st.integers(1, 120), st.integers(1, 3))
def test_a_fitted_table_shortens_texts_alone(data: st.DataObject, width: int, gap: int) -> None:
    rows = data.draw(st.lists(st.tuples(CELLS, st.just("1,234"), CELLS), min_size=1, max_size=4))
    columns, fitted = fitted_table(rows, width, [0, 2], [1], gap)
    assert columns in ([0, 1, 2], [0, 2])
    for row, result in zip(rows, fitted, strict=True):
        for column, cell in zip(columns, result, strict=True):
            whole = row[column]
            assert cell == whole or (column != 1 and cell.endswith("…") and len(cell) >= 10)
            assert cell == whole or whole.startswith(cell[:-1])
    sizes = [max(map(len, column)) for column in zip(*fitted, strict=True)]
    assert sum(sizes) + gap * (len(sizes) - 1) <= max(width, 20 + gap)
    assert fitted_table(rows, None, [0, 2], [1], gap).rows == [list(row) for row in rows]


@given(st.text("ab 1,"), st.integers(8, 40))
def test_lines_break_at_spaces(text: str, width: int) -> None:
    lines = lines_of(text, width, 2)
    assert " ".join(lines).split() == text.split()
    assert all(len(line) <= width or len(line.split()) <= 1 for line in lines)
