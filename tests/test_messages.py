"""Messages that tell a newcomer what would do, and lines that fit a terminal."""

from __future__ import annotations

import inspect
import re
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import fastcnn
from fastcnn import Augment, Sequential
from fastcnn.article import Conv3x3, MaxPool2, Softmax
from fastcnn.augmentation import Cutout
from fastcnn.callbacks import Callback, CSVLog, EarlyStopping, ProgressBar
from fastcnn.cli import app
from fastcnn.core.attributes import constructor_arguments
from fastcnn.core.class_registry import is_own
from fastcnn.layers import Conv2D, Dense, Flatten, GlobalAvgPool2D, Layer
from fastcnn.losses import Loss
from fastcnn.metrics import Metric
from fastcnn.optimizers import SGD, Adam, AdamW, RMSprop
from fastcnn.recipes import training
from fastcnn.schedules import OneCycle, Warmup

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (12, 9, 8, 1), dtype=np.uint8)
Y = np.arange(12) % 3


def net() -> Sequential:
    return Sequential([Flatten(), Dense(3)], (9, 8, 1), seed=0, engine="im2col")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y * 1.0, r"got dtype float64; whole numbers become class numbers by y\.astype\(int\)"),
        (Y + 0.5, "numbers that are no classes need another loss, such as loss='mse'"),
        (["cat", "dog", "cat"] * 4, r"names become class numbers by classes, y = numpy\.unique"),
        (np.array(["a", "b", "c"], object)[Y], "names become class numbers by"),
        (Y + 1, "got 3; labels that begin with 1 become class numbers by y - 1"),
        (Y * 2, "got 4; for these labels the net must end in 5 outputs"),
        (np.eye(5)[Y], r"one-hot rows \(N, 3\), got \(12, 5\)"),
    ],
)
def test_labels_that_are_no_class_numbers(labels: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        net().fit(X, labels, verbose=0)


def test_labels_that_are_taken() -> None:
    losses = [
        net().fit(X, labels, seed=0, verbose=0).history["loss"]
        for labels in (Y, Y[:, None], np.eye(3)[Y], Y.tolist(), Y.astype(np.uint8))
    ]
    assert all(loss == losses[0] for loss in losses)


def test_images_with_the_channels_first_are_named() -> None:
    colours = np.zeros((4, 3, 9, 8), np.uint8)
    model = Sequential([Conv2D(2, 3), Flatten(), Dense(3)], (9, 8, 3), engine="im2col")
    remedy = r"its channels seem to come first: fastcnn\.nchw_to_nhwc\(x\)"
    for call in (model.predict, lambda x: model.fit(x, Y[:4]), lambda x: model.evaluate(x, Y[:4])):
        with pytest.raises(ValueError, match=remedy):
            call(colours)


def test_epochs_and_batches_are_counted_from_one_everywhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    x = (X / 255).astype(np.float32)
    net().fit(x, Y, verbose=1)
    assert re.match(r"epoch 1/1: loss \d\.\d{4}  accuracy \d+\.\d\d%  ", capsys.readouterr().out)
    model = net()
    model.fit(x, Y, verbose=0)
    x[7] = 3e38
    with (
        pytest.raises(FloatingPointError, match=r"in batch 2 of epoch 1; .* clip_norm of the"),
        pytest.warns(fastcnn.InputWarning),
    ):
        model.fit(x, Y, batch_size=6, shuffle=False, verbose=0)


def test_the_command_advises_its_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any) -> None:
        raise FloatingPointError(
            "the loss is nan, in batch 1 of epoch 1; the model keeps the weights from before it. "
            "A lower learning rate may help, or clip_norm of the optimizer"
        )

    monkeypatch.setattr(training, "train", diverge)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["train", "--net", "LeNet-5", "--lr", "3"])
    assert done.exit_code == 1
    assert done.stderr.endswith("in batch 1 of epoch 1. A lower rate may help: --lr 0.3\n")


def test_a_picture_is_no_model_and_a_folder_of_pictures_no_data_set(tmp_path: Path) -> None:
    from PIL import Image

    for i, name in enumerate(("a", "b")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (4 + i, 5)).save(tmp_path / "pictures" / name / "1.png")
    picture = str(tmp_path / "pictures" / "a" / "1.png")
    done = CliRunner().invoke(app, ["predict", picture, picture])
    assert "it is a picture, no model" in done.stderr
    done = CliRunner().invoke(app, ["train", "--data", str(tmp_path / "pictures")])
    assert done.exit_code == 2
    assert "and so does `fastcnn train --images" in done.stderr


@pytest.mark.parametrize("width", [100, 80, 60])
def test_epoch_lines_fit_the_terminal(width: int) -> None:
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    settings: dict[str, Any] = {"validation_data": (X, Y), "epochs": 2, "verbose": 0}
    net().fit(X, Y, batch_size=4, callbacks=[ProgressBar(console)], **settings)
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", file.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert all(len(line.rstrip()) <= width for line in lines), lines
    last = text[text.rindex("epoch 2/2:") :]  # it breaks between figures
    assert re.search(r"val_accuracy \d+\.\d\d%\s+[\d,]+ images/s\s", last)


def test_the_first_batch_does_not_count_in_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 101.0, 102.0, 102.0, 103.0, 104.0, 105.0] + [105.0] * 20)
    monkeypatch.setattr("fastcnn.train.callbacks.perf_counter", lambda: next(clock))
    file, model = StringIO(), net()
    bar = ProgressBar(Console(file=file, width=200))
    bar.on_train_begin(model, {"epochs": 1, "samples": 30, "epoch": 0})
    for batch in range(3):
        logs = {"loss": 0.5, "samples": 10.0 * (batch + 1)}
        bar.on_batch_end(model, batch, logs)
    bar.on_epoch_end(model, 0, {"loss": 0.5})
    assert file.getvalue().endswith("10 images/s\n")


def test_the_articles_classes_show_themselves() -> None:
    shown = [repr(one) for one in (Conv3x3(8), MaxPool2(), Softmax(13 * 13 * 8, 10))]
    assert shown == ["Conv3x3(8)", "MaxPool2()", "Softmax(1352, 10)"]


def test_an_image_and_a_filter_without_their_other_axes() -> None:
    image, sobel = np.zeros((20, 30)), np.zeros((3, 3))
    with pytest.raises(ValueError, match=r"one image of one channel is x\[None, :, :, None\]"):
        fastcnn.conv2d(image, sobel)
    with pytest.raises(ValueError, match=r"one filter of one channel is w\[:, :, None, None\]"):
        fastcnn.conv2d(image[None, :, :, None], sobel)
    with pytest.raises(ValueError, match=r"one image of one channel is x\[None, :, :, None\]"):
        fastcnn.max_pool2d(image, 2)
    assert fastcnn.conv2d(image[None, :, :, None], sobel[:, :, None, None]).shape == (1, 18, 28, 1)


def test_the_help_is_plain_and_names_are_taken_in_any_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nets: list[str] = []
    monkeypatch.setattr(training, "train", lambda settings, *_, **__: nets.append(settings.net))
    for name in ("LeNet5", "lenet-5", "LENET5"):
        CliRunner().invoke(app, ["train", "--net", name])
    assert nets == ["lenet5"] * 3
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "80"}).output
    assert "Seed of all random numbers." in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    done = CliRunner().invoke(app, ["trian"])
    assert "Did you mean 'train'?" in done.output


def test_large_targets_of_a_regression_are_no_silent_overflow() -> None:
    x = X.astype(np.float32) / 255
    model = Sequential([Flatten(), Dense(8), Dense(1)], x.shape[1:], seed=0, engine="im2col")
    targets = 255.0 * np.arange(len(x))
    with pytest.raises(FloatingPointError, match=r"A lower learning rate may help, or clip_norm"):
        model.fit(x, targets, loss="mse", epochs=300, optimizer=SGD(0.5), verbose=0)
    assert np.isfinite(np.concatenate([a.ravel() for a in model.get_weights()])).all()
    regressor = fastcnn.CNNRegressor([Flatten(), Dense(1)], epochs=2, random_state=0)
    assert np.isfinite(regressor.fit(x, targets).predict(x)).all()


OWN: list[Any] = [
    *(cls for kind in (Layer, Loss, Metric) for cls in kind.registry.values()),  # type: ignore[attr-defined]
    SGD, Adam, AdamW, RMSprop, OneCycle, Warmup, EarlyStopping, CSVLog, Augment, Cutout,
]  # fmt: skip
OWN = [cls for cls in OWN if is_own(cls)]


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_an_unknown_argument_is_told_with_its_class_and_those_that_exist(cls: Any) -> None:
    names = constructor_arguments(cls)
    assert [*inspect.signature(cls).parameters] == [*names]  # as pages and editors show it
    end = f"rguments are {', '.join(names)}" if len(names) > 1 else ", ".join(names)
    with pytest.raises(TypeError, match=f"^{cls.__name__} has no argument 'qqq'; ") as error:
        cls(qqq=3)
    assert str(error.value).endswith(end or "it has no arguments")
    with pytest.raises(TypeError, match=f"^{cls.__name__} takes .* without its name, got 20; it"):
        cls(*range(20))


def test_other_wrong_calls_of_constructors() -> None:
    with pytest.raises(TypeError, match=r"^Dense has no argument 'unit'; do you mean units\? Its"):
        Dense(unit=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^Dense needs the argument units; its arguments are"):
        Dense(use_bias=False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^Dense got the argument units twice; its arguments"):
        Dense(3, units=4)  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"^GlobalAvg.*'keepdims'; its only argument is name"):
        GlobalAvgPool2D(keepdims=True)  # type: ignore[call-arg]

    class Named:
        def __init__(self, colour: str) -> None:
            self.colour = colour

    class Both(Callback, Named):
        """A callback with another base class, whose constructor is its own."""

    assert Both("red").colour == "red"
    assert deepcopy(Both("red")).colour == "red"
    with pytest.raises(TypeError, match="Both has no argument 'color'; do you mean colour"):
        Both(color="red")  # type: ignore[call-arg]


def test_an_explanation_shows_itself_at_a_prompt_and_in_a_notebook() -> None:
    plan = fastcnn.explain("max_pool2d", (1, 4, 6, 2), 2, engine="im2col")
    shown = list[str]()

    class Printer:
        text = shown.append

    plan._repr_pretty_(Printer(), False)
    assert [repr(plan)] == shown == [str(plan)]
    assert repr(plan).startswith("max_pool2d: im2col.max_pool2d, ")
