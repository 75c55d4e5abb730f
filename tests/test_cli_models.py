"""fastcnn train, evaluate, predict and info as their user meets them, on a few digits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import limits
import numpy as np
import pytest
from digits import idx, write_digits
from PIL import Image
from processes import python
from typer.testing import CliRunner

import fastcnn
from fastcnn.callbacks import Callback, StopTraining
from fastcnn.cli import app
from fastcnn.data.preparation import Preparation
from fastcnn.layers import Dense
from fastcnn.recipes import training

TRAIN = ("train", "--net", "article", "--epochs", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with 1,800 and 300 digits."""
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def model(data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    done = run(*TRAIN, "--data", data, "--save", str(path))
    assert done.exit_code == 0, done.output
    return str(path)


def run(*arguments: str) -> Any:
    threads = fastcnn.get_num_threads()
    try:
        return CliRunner().invoke(app, list(arguments))
    finally:
        fastcnn.set_num_threads(threads)


def test_train_says_what_it_does_and_learns(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*TRAIN, "--data", data)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "article: 13,602 parameters, 1,650 images to train on, 150 held out"
    assert [line.split(":")[0] for line in lines[1:3]] == ["epoch 1/2", "epoch 2/2"]
    assert "val_accuracy" in lines[2]
    assert lines[2].endswith(" images/s")
    assert lines[3].startswith("test accuracy ")
    assert float(lines[3].split()[2].rstrip("%,")) > 75
    assert lines[4:] == [
        "saved as fastcnn-article.safetensors",
        "try: fastcnn predict fastcnn-article.safetensors picture.png",
    ]
    assert os.listdir(tmp_path) == ["fastcnn-article.safetensors"]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {"optimizer": "sgd", "learning_rate": 0.05, "augment": False, "seed": 0}),
        (["--optimizer", "adam"], {"optimizer": "adam", "learning_rate": 0.002}),
        (["--optimizer", "adam", "--lr", "0.5"], {"optimizer": "adam", "learning_rate": 0.5}),
        (["--batch-size", "7", "--augment", "--seed", "3"], {"batch_size": 7, "augment": True}),
    ],
)
def test_options_reach_the_training(
    options: list[str], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[training.Settings] = []

    def train(settings: training.Settings, *others: Any) -> None:
        seen.append(settings)
        raise ValueError("seen")

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setitem(
        training.RECIPES, "article", training.Settings("article", 3, 32, "sgd", 0.05, False)
    )
    run(*TRAIN, *options)
    assert seen[0].epochs == 2
    assert {name: getattr(seen[0], name) for name in settings} == settings


def test_every_option_changes_the_weights(data: str, tmp_path: Path) -> None:
    def weights(*options: str) -> bytes:
        path = tmp_path / "model.safetensors"
        done = run(
            "train",
            "--net",
            "article",
            "--epochs",
            "1",
            "--data",
            data,
            "--save",
            str(path),
            *options,
        )
        assert done.exit_code == 0, done.output
        return b"".join(a.tobytes() for a in fastcnn.load_model(path).get_weights())

    reference = weights()
    assert weights("--threads", "1") == reference
    assert weights("--threads", "3", "--seed", "0") == reference
    for other in (
        ("--seed", "1"),
        ("--batch-size", "50"),
        ("--lr", "0.01"),
        ("--augment",),
        ("--optimizer", "rmsprop"),
        ("--optimizer", "adamw"),
    ):
        assert weights(*other) != reference


@pytest.mark.parametrize("net", sorted(training.RECIPES))
def test_every_net_has_a_recipe_that_fits_mnist(net: str) -> None:
    model = fastcnn.Sequential(fastcnn.nets.NETS[net](10), (28, 28))
    assert model.output_shape == (10,)
    assert training.settings_for(net).net == net


def interrupting(after: int) -> type[Callback]:
    """A callback that ends the training like Ctrl-C, after so many batches of the first epoch."""

    class Interrupting(training._Watch):
        def on_batch_end(self, model: Any, batch: int, logs: dict[str, float]) -> None:
            if batch + 1 == after and not self.interrupted:
                self.interrupted = True
                raise StopTraining

    Interrupting.__name__ = "_Watch"
    return Interrupting


def test_interrupted_and_resumed_is_the_same_to_the_bit(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    options = (*TRAIN, "--data", data, "--augment", "--seed", "5")
    assert run(*options, "--save", str(whole)).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(training, "_Watch", interrupting(after=20))
        done = run(*options, "--save", str(path))
    checkpoint = tmp_path / "part.checkpoint.safetensors"
    assert done.exit_code == 130
    assert "interrupted after 0 of 2 epochs" in done.output
    assert f"go on with: fastcnn train --resume {checkpoint}" in done.output
    assert not path.exists()

    done = run("train", "--resume", str(checkpoint))
    assert done.exit_code == 0, done.output
    assert f"saved as {path}" in done.output
    assert not checkpoint.exists()  # it has served
    weights = [fastcnn.load_model(one).get_weights() for one in (whole, path)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_interrupt_before_the_first_batch_is_done_ends_at_once(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kernels may have to be compiled for it, for half a minute; and nothing is there to be kept.
    def struck(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it goes on")

    monkeypatch.setattr(fastcnn.Sequential, "_step", struck)
    done = run(*TRAIN, "--data", data, "--save", str(tmp_path / "model.safetensors"))
    assert done.exit_code == 130
    assert os.listdir(tmp_path) == []


def test_the_second_interrupt_ends_it_in_the_middle_of_a_batch_and_writes_nothing_of_that(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = fastcnn.Sequential._step, []

    def struck(*arguments: Any) -> Any:
        calls.append(0)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it goes on")
        return step(*arguments)

    monkeypatch.setattr(fastcnn.Sequential, "_step", struck)
    done = run(*TRAIN, "--data", data, "--save", str(tmp_path / "model.safetensors"))
    assert done.exit_code == 130
    assert "stopping after this batch" in done.output
    assert os.listdir(tmp_path) == []


def test_an_interrupt_while_it_is_tested_leaves_the_trained_model(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def struck(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fastcnn.Sequential, "evaluate", struck)
    path = tmp_path / "model.safetensors"
    assert run(*TRAIN, "--data", data, "--save", str(path)).exit_code == 130
    assert fastcnn.load_model(path).built
    assert os.listdir(tmp_path) == [path.name]


def test_a_checkpoint_from_time_to_time(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    written: list[str] = []
    save = fastcnn.Sequential.save_checkpoint
    monkeypatch.setattr(
        fastcnn.Sequential,
        "save_checkpoint",
        lambda self, path: (written.append(path.name), save(self, path)),
    )
    done = run(*TRAIN, "--data", data, "--save", str(tmp_path / "model.safetensors"))
    assert done.exit_code == 0
    assert written == ["model.checkpoint.safetensors"] * 2
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_ctrl_c_leaves_a_checkpoint_and_the_earlier_model(data: str, tmp_path: Path) -> None:
    (tmp_path / "fastcnn-article.safetensors").write_bytes(b"an earlier model")
    child = subprocess.Popen(
        [sys.executable, "-m", "fastcnn", "train", "--net", "article", "--epochs", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONUNBUFFERED": "1",
            "FASTCNN_DATA_DIR": data,
            "PYTHONPATH": str(Path(fastcnn.__file__).parent.parent),
        },
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("epoch 2/"):
            break
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=20)
    assert child.returncode == 130
    assert errors == ""
    assert "go on with: fastcnn train --resume fastcnn-article.checkpoint.safetensors" in output
    assert (tmp_path / "fastcnn-article.safetensors").read_bytes() == b"an earlier model"
    settings = training.settings_of(tmp_path / "fastcnn-article.checkpoint.safetensors")
    assert settings == training.settings_for("article", epochs=100_000)


def test_bad_arguments_are_one_line(data: str, model: str, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name, images in (("train", 11), ("t10k", 3)):
        idx(few / f"{name}-images-idx3-ubyte.gz", np.zeros((images, 28, 28)))
        idx(few / f"{name}-labels-idx1-ubyte.gz", np.zeros(images))
    other = tmp_path / "seven.png"
    other.write_bytes(b"\x89PNG\r\n\x1a\n")
    cases = [
        (
            ["train", "--net", "vgg"],
            "net must be one of small, article, lenet5, wide, resnet8, got 'vgg'",
        ),
        (["train", "--optimizer", "x"], "optimizer must be one of sgd, adam, adamw, rmsprop, got"),
        (["train", "--data", str(few)], "data must have at least 12 training images, got 11"),
        (["train", "--data", str(tmp_path / "no")], "no such folder of a data set"),
        (["train", "--save", str(tmp_path)], "save must be a file in an existing folder"),
        (["train", "--save", "no/such/model"], "save must be a file in an existing folder"),
        (["train", "--resume", model], f"{model} cannot be resumed: it holds no training"),
        (["train", "--resume", model, "--lr", "1"], "--lr cannot be given with --resume"),
        (["train", "--resume", model, "--net", "small"], "--net cannot be given with --resume"),
        (["evaluate", str(tmp_path / "no")], f"{tmp_path / 'no'}: No such file or directory"),
        (["evaluate", __file__], f"{__file__} cannot be loaded: "),
        (["predict", __file__, "a.png"], f"{__file__} cannot be loaded: "),
        (["predict", model, str(tmp_path / "a.png")], f"{tmp_path / 'a.png'}: No such file"),
        (["predict", model, model], f"{model} is no PNG, JPEG, GIF, BMP or WebP file"),
        (["train", "--save", "a.onnx"], "--save must be a .safetensors file, which `fastcnn conv"),
        (["show", str(other)], f"{other} cannot be loaded: it is a picture, no model"),
    ]
    for arguments, message in cases:
        done = run(*arguments)
        assert done.exit_code == 2, arguments
        assert done.output.startswith(f"fastcnn: {message}"), done.output
        assert done.output.count("\n") == 1
    by_typer = (
        ["train", "--epochs", "0"],
        ["train", "--threads", "0"],
        ["train", "--lr", "nan"],
        ["predict", model],
    )
    for arguments in by_typer:
        assert run(*arguments).exit_code == 2


def test_a_training_that_diverges_exits_with_1(data: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    done = run(*TRAIN, "--data", data, "--lr", "1e30", "--save", str(path))
    assert done.exit_code == 1
    assert "fastcnn: the loss of a batch is " in done.output
    assert "Traceback" not in done.output
    assert not path.exists()


def test_evaluate(data: str, model: str) -> None:
    net = fastcnn.load_model(model)
    _, (x, y) = fastcnn.load_mnist(data)
    right = int((net.predict_classes(x) == y).sum())
    done = run("evaluate", model, "--data", data)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].startswith(f"test accuracy {right / 300:.2%}, loss ")
    assert lines[0].endswith(f"{right} of 300 images are right")
    assert len(lines) == 11

    result = json.loads(run("evaluate", model, "--data", data, "--json").output)
    assert result["accuracy"] == right / 300
    assert result["loss"] == net.evaluate(x, y)["loss"]
    assert sum(one["correct"] for one in result["classes"]) == result["correct"] == right
    assert sum(one["images"] for one in result["classes"]) == result["images"] == 300


def test_predict(model: str, tmp_path: Path) -> None:
    net = fastcnn.load_model(model)
    _, (x, _) = fastcnn.load_mnist()
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for image, path in zip(x, paths, strict=False):
        Image.fromarray(image).save(path)
    probabilities = net.predict(x[:3])

    done = run("predict", model, *paths)
    assert done.exit_code == 0
    for path, row in zip(paths, probabilities, strict=True):
        assert f"{path}: {row.argmax()} ({row.max():.2%})\n  28×28 pixels, PNG\n" in done.output
    bar = "█" * round(30 * float(probabilities[0].max()))
    assert f"{probabilities[0].argmax():>3} {probabilities[0].max():>8.2%} {bar}\n" in done.output

    result = json.loads(run("predict", model, *paths, "--json").output)
    assert [one["file"] for one in result] == paths
    np.testing.assert_allclose([one["probabilities"] for one in result], probabilities, rtol=1e-6)
    assert [one["class"] for one in result] == probabilities.argmax(axis=1).tolist()
    assert result[0]["steps"][0] == "28×28 pixels, PNG"


def test_predict_reads_the_others_where_one_is_damaged(model: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(fastcnn.load_mnist()[1][0][0]).save(good)
    bad.write_bytes(b"hello")
    done = CliRunner().invoke(app, ["predict", model, str(bad), str(good), "--json"])
    assert done.exit_code == 2
    assert done.stderr == f"fastcnn: {bad} is no PNG, JPEG, GIF, BMP or WebP file\n"
    assert len(json.loads(done.stdout)) == 1


def test_predict_refuses_models_that_take_no_pictures(model: str, tmp_path: Path) -> None:
    path, picture = tmp_path / "model.safetensors", tmp_path / "digit.png"
    Image.fromarray(fastcnn.load_mnist()[1][0][0]).save(picture)
    fastcnn.Sequential([Dense(3)], (4,)).save(path)
    done = run("predict", str(path), str(picture))
    assert done.exit_code == 2
    assert "MODEL must take pictures of one or three channels, it takes (4,)" in done.output

    floats = fastcnn.load_model(model)
    floats.trained_on = "floats"
    floats.save(path)
    done = run("predict", str(path), str(picture))
    assert done.exit_code == 2
    assert "this one takes floats" in done.output


def test_predict_shows_scores_as_probabilities(model: str, tmp_path: Path) -> None:
    path, picture = tmp_path / "model.safetensors", tmp_path / "digit.png"
    image = fastcnn.load_mnist()[1][0][0]
    Image.fromarray(image).save(picture)
    net = fastcnn.load_model(model)
    expected = net.predict(image[None])[0]
    net.loss = "mse"
    for shift in (-64, 128):  # scores that are all below 0, and then all above 1
        net.layers[-1].parameters["b"] += shift
        net.save(path)
        scores = net.predict(image[None])
        assert scores.min() > 1 if shift > 0 else scores.max() < 0
        (result,) = json.loads(run("predict", str(path), str(picture), "--json").output)
        np.testing.assert_allclose(result["probabilities"], expected, rtol=1e-4, atol=1e-6)
        assert "the model gives scores; the probabilities are their softmax" in result["steps"]


def test_evaluate_of_scores_counts_right_images(data: str, model: str, tmp_path: Path) -> None:
    path, net = tmp_path / "model.safetensors", fastcnn.load_model(model)
    net.loss = "mse"
    net.save(path)
    expected = json.loads(run("evaluate", model, "--data", data, "--json").output)
    result = json.loads(run("evaluate", str(path), "--data", data, "--json").output)
    assert "loss" not in result
    assert result["classes"] == expected["classes"]
    assert result["accuracy"] == expected["correct"] / 300


def test_show_says_how_pictures_are_prepared(model: str, tmp_path: Path) -> None:
    path, net = tmp_path / "model.safetensors", fastcnn.load_model(model)
    for preparation, line in (
        (Preparation(background="light"), "the whole picture, the rest filled, light background"),
        (Preparation(edges="crop"), "the whole picture, the edges cut off"),
        (
            Preparation(box=5 / 7, background="dark", transposed=True),
            "drawings are cropped, scaled to 71% of the side, centred by their centre of mass, "
            "dark background, rows and columns exchanged",
        ),
    ):
        net.preparation = preparation
        net.save(path)
        assert f"\n  pictures: {line}\n" in run("show", str(path)).output


def test_info() -> None:
    done = run("info")
    assert done.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in done.output.splitlines())
    assert facts["threads"].startswith(f"{fastcnn.get_num_threads()} (decided by: ")
    assert facts["numpy"] == np.__version__
    assert facts["engines"] == ", ".join(fastcnn.engines())
    result = json.loads(run("info", "--json").output)
    assert result["fastcnn"] == fastcnn.__version__
    assert result["packages"]["numpy"] == np.__version__
    assert result["isa"] in ("avx512", "avx2", "sse2", "neon", "baseline")
    assert result["usable_cores"] >= 1


def test_info_says_what_decided_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTCNN_NUM_THREADS", raising=False)
    command = "-m", "fastcnn", "info"
    variables = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "64"}
    assert "threads       1 (decided by: OMP_NUM_THREADS)" in python(*command, **variables).stdout
    result = json.loads(python(*command, "--json", FASTCNN_NUM_THREADS="3", **variables).stdout)
    assert (result["threads"], result["threads_decided_by"]) == (3, "FASTCNN_NUM_THREADS")


def test_info_without_numba() -> None:
    code = (
        "import importlib.util as u; f = u.find_spec;"
        "u.find_spec = lambda n, *a: None if n == 'numba' else f(n, *a);"
        "from fastcnn.cli import app; app(['info'])"
    )
    source = str(Path(fastcnn.__file__).parent.parent)
    shown = limits.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": source})
    assert shown.returncode == 0, shown.stderr
    assert "instructions  not known without Numba" in shown.stdout
    assert "engines       im2col, naive" in shown.stdout
