"""The command line as its user meets it: output, exit codes, one-line errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from limits import run
from processes import python
from rich.console import Console
from typer.testing import CliRunner

import fastcnn
from fastcnn.cli import app
from fastcnn.engine import im2col
from fastcnn.engine.registry import replaced
from fastcnn.models.nets import article
from fastcnn.models.sequential import Sequential
from fastcnn.nn.optimizers import SGD
from fastcnn.recipes.demo import DemoResult, demo

RUN = (sys.executable, "-m", "fastcnn")


def test_version_and_help() -> None:
    run = CliRunner()
    assert run.invoke(app, ["--version"]).output == f"fastcnn {fastcnn.__version__}\n"
    shown = run.invoke(app, ["--help"]).output
    assert "demo" in shown
    assert "compare" in shown


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fastcnn.cli import app; app(['--help'], standalone_mode=False);"
        "print([m for m in ('numba', 'mnist', 'fastcnn.proof') if m in sys.modules])"
    )
    shown = run([sys.executable, "-c", code], check=True)
    assert shown.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "conv3d"], "fastcnn: op must be one of conv2d, "),
        (["--engine", "cuda"], "fastcnn: engine must be one of "),
        (["--engine", "naive"], "fastcnn: engine 'naive' is the specification"),
        (["--case", "relu"], "fastcnn: case must name one of the matrix, such as relu/"),
        (["--case", "relu/1/float32/exact", "--quick"], "fastcnn: --case names one case"),
        (["--json", "no/such/folder.json"], "fastcnn: --json must name a file"),
        (["--json", "."], "fastcnn: --json must name a file"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str) -> None:
    outcome = CliRunner().invoke(app, ["compare", *arguments])
    assert outcome.exit_code == 2
    assert outcome.output.startswith(message)
    assert outcome.output.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", "x"], ["--nothing"]])
def test_malformed_options_exit_with_2(arguments: list[str]) -> None:
    for command in ("compare", "demo"):
        assert CliRunner().invoke(app, [command, *arguments]).exit_code == 2


def test_damaged_data_is_one_line(tmp_path: Path) -> None:
    done = run([*RUN, "demo"], env=os.environ | {"FASTCNN_DATA_DIR": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.startswith("fastcnn: ")
    assert done.stderr.count("\n") == 1


def test_interrupt_is_one_line_and_130() -> None:
    child = subprocess.Popen(
        [*RUN, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    for line in child.stdout:
        if "initialized" in line:
            break
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130
    assert errors == "fastcnn: interrupted\n"


INTERRUPTED_WHILE = {
    # Where the command is when Ctrl-C comes: instead of a moment that is hard to meet.
    "modules are imported": "sys.modules['typer'] = Late()",
    "kernels are compiled, which swallow it": (
        "import fastcnn.proof\nfastcnn.proof.compare = compiling"
    ),
    "Python's own end lasts": (
        "import fastcnn.proof\nfastcnn.proof.compare = lambda *_, **__: strike()\n"
        "class Heavy:\n    def __del__(self, sleep=time.sleep):\n        sleep(250)\nlast = Heavy()"
    ),
    "something lasts that cannot be interrupted": (
        "import fastcnn.proof\nfastcnn.proof.compare = lasting"
    ),
}
INTERRUPTED = """
import ctypes, os, signal, sys, time

def strike():
    os.kill(os.getpid(), signal.SIGINT)

class Late:
    def __getattr__(self, name):
        strike()
        time.sleep(250)

@ctypes.CFUNCTYPE(None)
def callback():
    strike()
    time.sleep(0.01)

def compiling(*arguments, **options):
    callback()
    time.sleep(250)

def lasting(*arguments, **options):
    try:
        strike()
        time.sleep(1)
    except KeyboardInterrupt:
        time.sleep(250)

import fastcnn.__main__
{}
sys.argv = ["fastcnn", "compare"]
fastcnn.__main__.main()
"""


@pytest.mark.parametrize("where", INTERRUPTED_WHILE)
def test_interrupts_end_the_command_wherever_it_is(where: str) -> None:
    start = time.perf_counter()
    done = python("-c", INTERRUPTED.format(INTERRUPTED_WHILE[where]), check=False)
    assert (done.returncode, done.stderr) == (130, "fastcnn: interrupted\n")
    assert time.perf_counter() - start < 40  # of the 250 seconds that it would last otherwise


def test_a_command_in_the_background_is_left_alone() -> None:
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import fastcnn.__main__, fastcnn.engine.machine\n"
        "fastcnn.core.hardware.processor_name = (\n"
        "    lambda: os.kill(os.getpid(), signal.SIGINT) or 'ours')\n"
        "sys.argv = ['fastcnn', 'info']\nfastcnn.__main__.main()"
    )
    assert "ours" in python("-c", code).stdout


def shown_demo(seed: int = 0) -> tuple[DemoResult, str]:
    text = StringIO()
    console = Console(file=text, width=80, highlight=False)
    result = demo(
        seed=seed,
        article_images=100,
        train_images=640,
        test_images=500,
        epochs=2,
        console=console,
    )
    return result, text.getvalue()


def test_demo_prints_the_articles_lines_for_each_engine() -> None:
    result, text = shown_demo()
    assert result.ok
    assert [run.engine for run in result.runs] == list(reversed(fastcnn.engines()))
    assert text.count("MNIST CNN initialized!") == len(result.runs)
    first = result.runs[0].losses
    line = f"[Step 100] Past 100 steps: Average Loss {first.mean():.3f} | Accuracy: "
    assert text.count(line) == len(result.runs)
    assert len(result.accuracies) == 2
    assert "epoch 2: loss " in text
    assert f"({result.accuracies[-1]:.2%})" in text
    assert max(map(len, text.splitlines())) <= 80


def test_demo_is_the_same_for_the_same_seed() -> None:
    (first, _), (again, _), (other, _) = shown_demo(1), shown_demo(1), shown_demo(2)
    for a, b in zip(first.runs, again.runs, strict=True):
        np.testing.assert_array_equal(a.losses, b.losses)
    assert first.accuracies == again.accuracies
    assert not np.array_equal(first.runs[0].losses, other.runs[0].losses)


def test_demo_finds_a_broken_engine() -> None:
    def broken(x, w, b, activation, g):  # type: ignore[no-untyped-def]
        return im2col.conv2d(x, w, b, activation, g) * (1 + 1e-9)

    with replaced("conv2d", "im2col", broken):
        result, text = shown_demo()
    assert not result.ok
    assert "DISAGREES" in text


def test_training_learns_on_held_out_digits() -> None:
    (images, labels), _ = fastcnn.load_mnist()
    model = Sequential(article(), (28, 28, 1), seed=0)
    before = model.predict_classes(images[-2000:])
    descent = SGD(0.01, momentum=0.9)
    history = model.fit(images[:4000], labels[:4000], 3, optimizer=descent, verbose=0)
    losses = history.history["loss"]
    after = model.predict(images[-2000:])
    assert losses[0] > losses[1] > losses[2]
    assert (before == labels[-2000:]).mean() < 0.3
    assert (after.argmax(axis=1) == labels[-2000:]).mean() > 0.85
    assert after.max(axis=1).min() >= 0.1


def test_training_is_the_same_for_the_same_seed_on_every_engine_within_rounding() -> None:
    (images, labels), _ = fastcnn.load_mnist()
    weights = []
    for engine in (None, *fastcnn.engines()):
        model = Sequential(article(), (28, 28, 1), seed=0, engine=engine)
        model.train_on_batch(images[:32], labels[:32], SGD(0.03, momentum=0.9))
        weights.append(model.get_weights())
    for other in weights[1:]:
        for a, b in zip(other, weights[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
