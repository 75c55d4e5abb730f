"""``fastcnn predict``, ``evaluate``, ``show`` and ``convert`` on ONNX files of other programs.

The net of these tests is linear: each class is a channel's mean, so its numbers tell how the pixels
were scaled, in which order the channels came, and from which axis.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fastcnn
from fastcnn.cli import app
from fastcnn.cli.reading import scaling_of

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
import onnx_files as files  # noqa: E402 - it needs onnx

COLOR = (200, 100, 20)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "red"
    folder.mkdir(parents=True)
    pixels = np.tile(np.array(COLOR, np.uint8), (9, 12, 1))
    pixels[4, 5] += 20  # a picture of one colour shows nothing
    Image.fromarray(pixels).save(folder / "red.png")
    return folder / "red.png"


def means(path: Path, shape: list[Any], last: bool = False, **metadata: str) -> Path:
    """A net whose outputs are the means of the channels, by its input of this shape."""
    axes = np.array([1, 2] if last else [2, 3])
    nodes = [files.node("ReduceMean", "x", "y", axes=list(map(int, axes)), keepdims=0)]
    files.write(path, nodes, {"x": shape}, ["y"], {})
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, metadata)
    path.write_bytes(proto.SerializeToString())
    return path


def outputs_of(*arguments: object) -> list[float]:
    """What the net gives for the picture: logarithms of the probabilities, from the first on."""
    done = run("predict", *arguments, "--json")
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.output)
    numbers = np.array(one["probabilities"])
    if "softmax" in " ".join(one["steps"]):
        numbers = np.log(numbers)
    return list(numbers - numbers[0])


@pytest.mark.parametrize(
    ("shape", "last"), [([1, 3, 6, 8], False), (["N", 6, 8, 3], True), ([4, 3, 6, 8], False)]
)
@pytest.mark.parametrize(
    ("option", "mean", "std"),
    [("0..1", 0.0, 1.0), ("-1..1", 0.5, 0.5), ("-2..3", 0.4, 0.2),
     ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
     ("0.5,0.25,0/0.5", (0.5, 0.25, 0), 0.5)],
)  # fmt: skip
def test_scaling_is_that_of_the_option(
    tmp_path: Path, picture: Path, shape: list[Any], last: bool, option: str, mean: Any, std: Any
) -> None:
    path = means(tmp_path / "net.onnx", shape, last)
    scaled = (np.array(COLOR) / 255 - mean) / std
    result = outputs_of(path, picture, "--scaling", option)
    assert result == pytest.approx(list(scaled - scaled[0]), abs=2e-2)


def test_bytes_stay_as_they_are_from_0_to_255() -> None:
    everything = np.arange(256, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(
        scaling_of("0..255").of(everything, np.float32), np.arange(256, dtype=np.float32)[:, None]
    )


def test_metadata_say_scaling_and_order(tmp_path: Path, picture: Path) -> None:
    told = {"Image.NominalPixelRange": "Normalized_1_1", "Image.BitmapPixelFormat": "Bgr8"}
    path = means(tmp_path / "net.onnx", [1, 3, 6, 8], **told)
    scaled = np.array(COLOR[::-1]) / 127.5
    assert outputs_of(path, picture) == pytest.approx(list(scaled - scaled[0]), abs=2e-2)
    plain = means(tmp_path / "plain.onnx", [1, 3, 6, 8])
    assert outputs_of(plain, picture, "--scaling", "-1..1", "--bgr") == outputs_of(path, picture)


def test_sizes_and_names(tmp_path: Path, picture: Path) -> None:
    path = means(tmp_path / "net.onnx", ["N", 3, "H", "W"])
    done = run("predict", path, picture, "--scaling", "0..1")
    assert done.exit_code == 2
    assert "--size must be given" in done.stderr
    (tmp_path / "names.txt").write_text("red\ngreen\n\nblue\n", "utf-8")
    options = ("--scaling", "0..1", "--size", "7x5", "--classes", tmp_path / "names.txt")
    done = run("predict", path, picture, *options)
    assert done.exit_code == 0, done.output
    assert "red.png: red (" in done.output
    assert "scaled to 7×5" in done.output or "5×7" in done.output
    done = run("show", path, picture, *options, "--json")
    assert json.loads(done.output)["name"] == "red"
    assert json.loads(run("show", path, "--size", "7x5", "--json").output)["inputs"] == {
        "x": [7, 5, 3]
    }
    done = run("evaluate", path, "--images", picture.parent.parent, *options, "--json")
    assert json.loads(done.output)["accuracy"] == 1, done.output
    assert (
        "--classes must be given"
        in run("evaluate", path, "--images", picture.parent.parent, *options[:4]).stderr
    )


def test_a_converted_file_needs_no_options(tmp_path: Path, picture: Path) -> None:
    path, target = means(tmp_path / "net.onnx", ["N", 3, "H", "W"]), tmp_path / "net.safetensors"
    assert "--size must be given" in run("convert", path, target).stderr
    options = ("--scaling", "-1..1", "--size", "7x5")
    done = run("convert", path, target, *options, "--classes", "red,green,blue")
    assert done.exit_code == 0, done.output
    model = fastcnn.load_model(target)
    assert model.input_shape == (7, 5, 3)
    assert model.classes == ("red", "green", "blue")
    model.engine, model.loss = "im2col", "mse"
    pixels = np.tile(np.array(COLOR, np.uint8), (1, 7, 5, 1))
    expected = np.array([COLOR]) / 127.5 - 1
    np.testing.assert_allclose(model.predict(pixels), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Give --scaling as in the training"),
        (("--scaling", "1..0"), "LOW must be below HIGH"),
        (("--scaling", "brightly"), "--scaling must be imagenet"),
        (("--scaling", "0/0"), "--scaling must be imagenet"),
        (("--scaling", "1,2/3"), "scaling must be for 3 channels"),
        (("--scaling", "0..1", "--size", "7"), "--size must fit MODEL"),
        (("--size", "-7"), "--size must be a side"),
        (("--size", "99999"), "--size must have sides"),
        (("--scaling", "0..1", "--layout", "channels_last"), "one or three channels"),
        (("--scaling", "0..1", "--classes", "a,b"), "classes must have"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, picture: Path, options: tuple[str, ...], message: str
) -> None:
    done = run("predict", means(tmp_path / "net.onnx", ["N", 3, 6, 8]), picture, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_own_files_refuse_what_they_say(tmp_path: Path, picture: Path) -> None:
    model = fastcnn.Sequential([fastcnn.layers.Flatten(), fastcnn.layers.Dense(3)], (6, 8, 3))
    model.trained_on = "uint8"
    model.save(tmp_path / "net.safetensors")
    model.save_onnx(tmp_path / "net.onnx")
    for name in ("net.safetensors", "net.onnx"):
        for options in (("--scaling", "0..1"), ("--layout", "channels_first")):
            done = run("predict", tmp_path / name, picture, *options)
            assert done.exit_code == 2
            assert f"{options[0]} must be left out" in done.stderr
    assert outputs_of(tmp_path / "net.safetensors", picture, "--bgr") != outputs_of(
        tmp_path / "net.safetensors", picture
    )


def test_one_output_and_many(tmp_path: Path, picture: Path) -> None:
    """One output is the probability of the second class; of many classes the best are shown."""
    nodes = [
        files.node("ReduceMean", "x", "m", axes=[2, 3], keepdims=0),
        files.node("MatMul", "m w", "y"),
    ]
    weights = np.array([[0.0], [0.1], [0.0]], np.float32)
    path = files.write(tmp_path / "a.onnx", nodes, {"x": [1, 3, 6, 8]}, ["y"], {"w": weights})
    (one,) = json.loads(run("predict", path, picture, "--scaling", "0..1", "--json").output)
    assert one["probabilities"][1] == pytest.approx(10 / 255, abs=1e-3)
    assert one["class"] == 0
    weights = np.linspace(0, 9, 300, dtype=np.float32).reshape(3, 100)
    files.write(path, nodes, {"x": [1, 3, 6, 8]}, ["y"], {"w": weights})
    text = run("predict", path, picture, "--scaling", "0..1").output
    assert sum("%" in line for line in text.splitlines()) == 11
    assert " 99 " in text
