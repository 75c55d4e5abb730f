"""What the metadata of ONNX files tell: class names, layout, scaling and preparation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fastcnn
from fastcnn import Preparation, Scaling, Sequential
from fastcnn.cli import app
from fastcnn.layers import Conv2D, Dense, Flatten

onnx = pytest.importorskip("onnx", reason="files are read through the package onnx")

from onnx_files import node, normal, write  # noqa: E402

NAMES = ["cat", "dog", "it's"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("names", str(dict(enumerate(NAMES)))),
        ("NAMES", json.dumps({str(i): name for i, name in enumerate(NAMES)})),
        ("labels", json.dumps(NAMES)),
        ("labels", str(tuple(NAMES))),
        ("class_names", "\n".join(NAMES)),
        ("classes", ", ".join(NAMES)),
        ("id2label", str({name: i for i, name in enumerate(NAMES)})),
    ],
)
def test_class_names_of_other_exporters(tmp_path: Path, key: str, text: str) -> None:
    path = write(
        tmp_path / "net.onnx", [node("MatMul", "x w", "y")], {"x": ["N", 4]}, ["y"],
        {"w": normal(4, 3)},
    )  # fmt: skip
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"author": "somebody", key: text})
    onnx.save(proto, path)
    assert fastcnn.load_onnx(path).classes == tuple(NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "{0: 'a'}", "{0: 'a', 1: 'b', 3: 'c'}", "[1, 2, 3]", "['a', 'a', 'b']",
        "[" * 5000, "{True: 'a', 1: 'b', 2: 'c'}", "__import__('os').getcwd()", "{{}: 1}",
    ],
)  # fmt: skip
def test_what_names_no_classes_is_left_out(tmp_path: Path, text: str) -> None:
    path = write(
        tmp_path / "net.onnx", [node("MatMul", "x w", "y")], {"x": ["N", 4]}, ["y"],
        {"w": normal(4, 3)},
    )  # fmt: skip
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"names": text})
    onnx.save(proto, path)
    assert fastcnn.load_onnx(path).classes is None


def net_of_bytes(scaling: Scaling) -> Sequential:
    model = Sequential([Conv2D(4, 3), Flatten(), Dense(3)], (6, 7, 2), seed=0, engine="im2col")
    model.scaling, model.trained_on = scaling, "uint8"
    model.preparation, model.classes = Preparation(background="dark"), NAMES
    return model


SCALINGS = (Scaling(), Scaling(mean=(0.4, 0.5), std=(0.2, 0.3)))


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_our_own_files_come_back_whole(tmp_path: Path, layout: Any, scaling: Scaling) -> None:
    """Bytes are scaled once: in prediction, in training, and in the file that is saved next."""
    model = net_of_bytes(scaling)
    x = np.random.default_rng(0).integers(0, 256, (8, 6, 7, 2), np.uint8)
    model.save_onnx(tmp_path / "net.onnx", layout, of="scores")
    other = fastcnn.load_onnx(tmp_path / "net.onnx", "channels_last")
    other.engine = "im2col"
    assert (other.trained_on, other.scaling, other.classes) == ("uint8", scaling, tuple(NAMES))
    assert other.preparation == model.preparation
    assert [type(one).__name__ for one in other.layers] == ["Conv2D", "Flatten", "Dense"]
    model.loss = "mse"
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    floats = scaling.of(x, np.float32)
    np.testing.assert_array_equal(other.predict(floats), model.predict(x))
    other.save(tmp_path / "net.safetensors")
    other.save_onnx(tmp_path / "again.onnx", "channels_first", of="scores")
    third = fastcnn.load_onnx(tmp_path / "again.onnx", "channels_last")
    third.engine = "im2col"
    np.testing.assert_array_equal(third.predict(x), model.predict(x))
    assert fastcnn.load_model(tmp_path / "net.safetensors").classes == tuple(NAMES)
    model.loss = None
    labels = np.arange(8) % 3
    for one in (model, other):
        one.fit(x, labels, loss="cross_entropy", optimizer="adam", epochs=2, seed=0, verbose=0)
    np.testing.assert_array_equal(other.predict(x), model.predict(x))


def test_scaling_that_the_graph_does_not_compute_stays_in_it(tmp_path: Path) -> None:
    model = net_of_bytes(Scaling())
    x = np.random.default_rng(0).integers(0, 256, (3, 6, 7, 2), np.uint8)
    model.save_onnx(tmp_path / "net.onnx")
    proto = onnx.load(tmp_path / "net.onnx")
    for one in proto.metadata_props:
        if one.key == "scaling":
            one.value = json.dumps(Scaling(mean=0.1, std=0.2).as_dict())
    onnx.save(proto, tmp_path / "net.onnx")
    other = fastcnn.load_onnx(tmp_path / "net.onnx")
    other.engine = "im2col"
    assert other.trained_on is None
    assert np.abs(other.predict(x) - model.predict(x)).max() < 1e-6


def test_predict_names_classes_of_other_exporters(tmp_path: Path) -> None:
    """A net that scales bytes itself, and whose names are a Python literal."""
    nodes = [
        node("Cast", "x", "f", to=1), node("GlobalAveragePool", "f", "g"),
        node("Flatten", "g", "v"), node("MatMul", "v w", "y"),
    ]  # fmt: skip
    constants = {"w": np.eye(3, dtype=np.float32)}
    path = write(tmp_path / "net.onnx", nodes, {"x": ["N", 3, 6, 7]}, ["y"], constants)
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.helper.set_model_props(proto, {"names": str(dict(enumerate(NAMES)))})
    onnx.save(proto, path)
    picture = Image.new("RGB", (7, 6), (10, 200, 30))
    picture.putpixel((2, 3), (0, 0, 0))
    picture.save(tmp_path / "green.png")
    done = CliRunner().invoke(app, ["predict", str(path), str(tmp_path / "green.png")])
    assert done.exit_code == 0, done.output
    assert "dog (100.00%)" in done.output
    assert "it's" in done.output
