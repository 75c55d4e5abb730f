"""fastcnn show and fastcnn convert as their user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import state_files
from digits import write_digits
from PIL import Image
from typer.testing import CliRunner

import fastcnn
from fastcnn import Input, Model, Preparation, Sequential
from fastcnn.cli import app
from fastcnn.layers import Add, BatchNorm, Conv2D, Dense, Flatten, ReLU


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file of a small net of images."""
    model = Sequential([Conv2D(4, 3, activation="relu"), Flatten(), Dense(3)], (6, 7, 2), seed=0)
    model.trained_on, model.preparation = "uint8", Preparation(background="dark")
    model.save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_show_a_chain(saved: Path) -> None:
    done = run("show", saved)
    assert done.exit_code == 0, done.output
    for line in (
        "input  input_0  (6, 7, 2)", "output dense  (3,)", "trained on uint8", "dark background",
        "Conv2D(4, 3, activation='relu')  (4, 5, 4)", "total", "prediction:",
    ):  # fmt: skip
        assert line in done.output
    assert "training:" not in done.output


def test_show_a_graph_as_text_and_json(tmp_path: Path) -> None:
    inputs = Input((8, 8, 4), name="pixels")
    x = Add()([ReLU()(BatchNorm()(Conv2D(4, 3, padding=1)(inputs))), inputs])
    model = Model(inputs, Dense(2)(Flatten()(x)))
    model.save(tmp_path / "net.safetensors")
    done = run("show", tmp_path / "net.safetensors", "--training")
    assert done.exit_code == 0, done.output
    assert model.draw() in done.output
    assert "Conv2D(4, 3, padding=1) + BatchNorm() + ReLU()" in done.output
    facts = json.loads(run("show", tmp_path / "net.safetensors", "--json").output)
    assert facts["inputs"] == {"pixels": [8, 8, 4]}
    assert facts["outputs"] == {"dense": [2]}
    sizes = (array.size for layer in model.layers for array in layer.parameters.values())
    assert facts["parameters"] == sum(sizes)
    (add,) = (one for one in facts["layers"] if one["name"] == "add")
    assert add["inputs"] == [model.layers[2].name, "pixels"]
    assert add["output_shape"] == [8, 8, 4]
    assert sum(one["parameters"] for one in facts["layers"]) == facts["parameters"]
    assert facts["mflop"] == pytest.approx(sum(one["mflop"] for one in facts["layers"]))


def test_show_what_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    state_files.write_safetensors(path, {"fc.weight": np.zeros((2, 3), np.float32)})
    done = run("show", path)
    assert done.exit_code == 2
    assert "fastcnn.load_weights" in done.stderr
    assert run("show", tmp_path / "none").exit_code == 2


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_convert(saved: Path, layout: str) -> None:
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    target = saved.parent / "net.onnx"
    done = run("convert", saved, target, "--layout", layout, "--of", "scores", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    sides = [6, 7, 2] if layout == "channels_last" else [2, 6, 7]
    assert facts["inputs"] == [{"name": "input_0", "dtype": "uint8", "shape": ["batch", *sides]}]
    assert facts["outputs"] == [{"name": "dense", "dtype": "float32", "shape": ["batch", 3]}]
    proto = onnx.load(target)
    assert facts["nodes"] == len(proto.graph.node)
    assert proto.graph.node[-1].op_type == "Gemm"
    text = run("convert", saved, target).output
    assert "input  input_0  uint8  ('batch', 6, 7, 2)" in text
    assert onnx.load(target).graph.node[-1].op_type == "Softmax"


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("net.pt", "net.onnx", "fastcnn.load_weights(model, "),
        ("net.weights.h5", "net.onnx", "fastcnn.load_weights(model, "),
        ("net.onnx", "other.tflite", "OUT must end in .safetensors"),
        ("net.pkl", "net.onnx", "which holds weights"),
        ("net.safetensors", "net.tflite", "OUT must end in .onnx"),
        ("net.safetensors", "nowhere/net.onnx", "OUT must name a file"),
        ("none.safetensors", "net.onnx", "No such file"),
    ],
)
def test_what_is_not_converted(saved: Path, source: str, target: str, message: str) -> None:
    done = run("convert", saved.parent / source, saved.parent / target)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (saved.parent / target).exists()


def test_convert_reads_a_model_under_any_name(saved: Path) -> None:
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    source, target = saved.rename(saved.parent / "net.model"), saved.parent / "net.onnx"
    assert run("convert", source, target).exit_code == 0
    assert run("convert", target, saved.parent / "back.safetensors").exit_code == 0


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Path, str]:
    """A file of a net that is trained a little on few digits, and their folder."""
    data = write_digits(tmp_path)
    (x, y), _ = fastcnn.load_mnist(data)
    model = Sequential(fastcnn.nets.article(), seed=0, engine="im2col")
    model.fit(x[:600], y[:600], optimizer="adam", seed=0, verbose=0)
    model.save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors", data


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_onnx_files_in_place_of_models(digits: tuple[Path, str], layout: str) -> None:
    """evaluate, predict and show of the file that convert writes, as of the model itself."""
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    saved, data = digits
    target, picture = saved.parent / "net.onnx", saved.parent / "digit.png"
    assert run("convert", saved, target, "--layout", layout).exit_code == 0
    expected = json.loads(run("evaluate", saved, "--data", data, "--json").output)
    result = json.loads(run("evaluate", target, "--data", data, "--json").output)
    assert result["accuracy"] == expected["accuracy"] > 0.4
    assert result["classes"] == expected["classes"]
    assert "test accuracy" in run("evaluate", target, "--data", data).output
    (_, _), (x, _) = fastcnn.load_mnist(data)
    Image.fromarray(x[0]).save(picture)
    (expected,) = json.loads(run("predict", saved, picture, "--json").output)
    (result,) = json.loads(run("predict", target, picture, "--json").output)
    assert result["class"] == expected["class"]
    assert result["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
    assert result["steps"] == expected["steps"]
    facts = json.loads(run("show", target, "--json").output)
    assert facts["inputs"] == {"input_0": [28, 28, 1]}
    assert facts["preparation"]["background"] == "dark"


def test_onnx_files_become_models_that_take_floats(digits: tuple[Path, str]) -> None:
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    saved, data = digits
    model = fastcnn.load_model(saved)
    model.trained_on, model.engine = "floats", "im2col"
    model.save_onnx(saved.parent / "net.onnx", "channels_first")
    for command in ("evaluate", "predict"):
        more = ("--data", data) if command == "evaluate" else (saved.parent / "x.png",)
        (_, _), (x, _) = fastcnn.load_mnist(data)
        Image.fromarray(x[0]).save(saved.parent / "x.png")
        done = run(command, saved.parent / "net.onnx", *more)
        assert done.exit_code == 2
        assert "this one takes floats" in done.stderr
    of_bytes = fastcnn.load_model(saved)
    of_bytes.save_onnx(saved.parent / "bytes.onnx")
    done = run("convert", saved.parent / "bytes.onnx", saved.parent / "back.safetensors")
    assert done.exit_code == 0, done.output
    back, again = (fastcnn.load_model(one) for one in (saved, saved.parent / "back.safetensors"))
    back.engine = again.engine = "im2col"
    np.testing.assert_array_equal(again.predict_classes(x), back.predict_classes(x))
    done = run("convert", saved.parent / "net.onnx", saved.parent / "back.safetensors")
    assert done.exit_code == 0, done.output
    assert "5 layers" in done.output
    back = fastcnn.load_model(saved.parent / "back.safetensors")
    back.engine = "im2col"
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    assert np.abs(back.predict(images) - model.predict(images)).max() < 1e-6
    with pytest.raises(ValueError, match="uint8"):
        back.predict(np.zeros((1, 28, 28, 1), np.uint8))


def test_both_commands_are_listed() -> None:
    text = run("--help").output
    assert "convert" in text
    assert "show" in text
    assert fastcnn.__version__ in run("--version").output
