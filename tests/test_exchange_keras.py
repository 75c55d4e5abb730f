"""Weights of Keras 3, in files that h5py writes in Keras's layout, and by Keras itself."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Sequential, load_weights
from fastcnn.core.arguments import Array
from fastcnn.exchange import keras_files
from fastcnn.layers import (
    BatchNorm,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Flatten,
    GroupNorm,
    LayerNorm,
    PReLU,
    SeparableConv2D,
)

RNG = np.random.default_rng(0)
try:
    import h5py
except ImportError:
    h5py = None
needs_h5py = pytest.mark.skipif(h5py is None, reason="h5py is not installed")


def numbers(*shape: int) -> Array:
    return RNG.random(shape, np.float32) + np.float32(0.1)


def write(path: Path | BytesIO, arrays: Mapping[str, Array], root: str = "layers") -> None:
    """Write arrays by names such as "conv2d.0" as Keras 3 does."""
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        file.create_group("optimizer/vars")["0"] = np.array(3)
        file.create_group(f"{root}/dropout/seed_generator/vars")["0"] = np.zeros(2, np.uint32)
        for name, array in arrays.items():
            layer, _, number = name.rpartition(".")
            file.require_group(f"{root}/{layer}/vars")[number] = array


def net() -> tuple[Sequential, dict[str, Array]]:
    """A model with each kind of layer, and the arrays of Keras for it."""
    layers = [
        Conv2D(4, 3, 2, "same"), BatchNorm(), DepthwiseConv2D(3, depth_multiplier=2),
        SeparableConv2D(5, 2), PReLU(), Conv2DTranspose(4, 2, 2), LayerNorm(), GroupNorm(2),
        Conv2D(4, 1), Conv2D(4, 1, use_bias=False), Flatten(), Dense(3),
    ]  # fmt: skip
    model = Sequential(layers, (9, 11, 3), engine="im2col")
    model.loss = "mse"
    arrays = {
        "conv2d.0": numbers(3, 3, 3, 4), "conv2d.1": numbers(4),
        **{f"batch_normalization.{i}": numbers(4) for i in range(4)},
        "depthwise_conv2d.0": numbers(3, 3, 4, 2), "depthwise_conv2d.1": numbers(8),
        "separable_conv2d.0": numbers(2, 2, 8, 1), "separable_conv2d.1": numbers(1, 1, 8, 5),
        "separable_conv2d.2": numbers(5), "p_re_lu.0": numbers(1, 1, 5),
        "conv2d_transpose.0": numbers(2, 2, 4, 5), "conv2d_transpose.1": numbers(4),
        "layer_normalization.0": numbers(4), "layer_normalization.1": numbers(4),
        "group_normalization.0": numbers(4), "group_normalization.1": numbers(4),
        "conv2d_1.0": numbers(1, 1, 4, 4), "conv2d_1.1": numbers(4),
        "conv2d_2.0": numbers(1, 1, 4, 4), "dense.0": numbers(96, 3), "dense.1": numbers(3),
    }  # fmt: skip
    return model, arrays


@needs_h5py
@pytest.mark.parametrize("kind", ["net.weights.h5", "net.keras"])
def test_weights_of_every_layer(tmp_path: Path, kind: str) -> None:
    model, arrays = net()
    path = tmp_path / kind
    if kind == "net.keras":
        memory = BytesIO()
        write(memory, arrays)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("metadata.json", "{}")
            file.writestr("config.json", "{}")
            file.writestr("model.weights.h5", memory.getvalue())
    else:
        write(path, arrays)
    assert fastcnn.read_weights(path).keys() == arrays.keys()
    report = load_weights(model, path)
    assert report.library == "keras"
    assert report.notes == ()
    for match in report.matches:
        assert match.source is not None
        layer = model.get_layer(match.layer)
        array = (dict(layer.parameters) | dict(layer.state))[match.array]
        assert (array.reshape(-1) == arrays[match.source].reshape(-1)).all()
    assert len(report.matches) == len(arrays)


@needs_h5py
def test_other_layouts_of_groups(tmp_path: Path) -> None:
    model = Sequential([Dense(2)], (3,))
    arrays = {"dense.0": numbers(3, 2), "dense.1": numbers(2)}
    for root in ("_layer_checkpoint_dependencies", "layers/sequential/layers"):
        write(tmp_path / "net.weights.h5", arrays, root)
        load_weights(model, tmp_path / "net.weights.h5")
        assert (model.layers[0].parameters["w"] == arrays["dense.0"]).all()


@needs_h5py
def test_a_normalisation_without_scale_is_refused(tmp_path: Path) -> None:
    model, path = Sequential([BatchNorm()], (3,)), tmp_path / "net.weights.h5"
    write(path, {f"batch_normalization.{i}": numbers(3) for i in range(3)})
    with pytest.raises(ValueError, match="no order of the modules fits"):
        load_weights(model, path)


def hostile(path: Path, what: str) -> None:
    """A file with something that Keras never writes."""
    write(path, {"dense.0": numbers(3, 2)})
    with h5py.File(path, "a") as file:
        group = file["layers/dense/vars"]
        if what == "external link":
            group["1"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif what == "soft link":
            group["1"] = h5py.SoftLink("/layers")
        elif what == "cycle":
            file["layers/dense/again"] = file["layers"]
        elif what == "compressed":
            group.create_dataset("1", data=np.zeros(10**6), compression="gzip")
        elif what == "in another file":
            group.create_dataset("1", (3,), "f4", external=[("other", 0, 12)])
        elif what == "larger than the file":
            group.create_dataset("1", (10**9,), "f8")
        elif what == "text":
            group.create_dataset("1", data=[b"text"])
        elif what == "Keras 2":
            file.attrs["layer_names"] = [b"dense"]
        elif what == "no arrays":
            del file["layers"]
        else:
            group.create_group("1")


HOSTILE = {
    "external link": "is a link", "soft link": "is a link", "cycle": "linked twice",
    "compressed": "is compressed", "in another file": "lies in another file",
    "larger than the file": "is larger than the file", "text": "no numbers",
    "Keras 2": "layout of Keras 2", "no arrays": "no group vars",
}  # fmt: skip


@needs_h5py
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files(tmp_path: Path, what: str) -> None:
    path = tmp_path / "net.weights.h5"
    hostile(path, what)
    with pytest.raises(fastcnn.ModelFileError, match=HOSTILE[what]) as raised:
        fastcnn.read_weights(path)
    assert str(path) in str(raised.value)


@needs_h5py
def test_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "net.weights.h5"
    write(path, {"dense.0": numbers(3, 2)})
    whole = path.read_bytes()
    for size in range(8, len(whole), len(whole) // 12):
        path.write_bytes(whole[:size])
        with pytest.raises(fastcnn.ModelFileError):
            fastcnn.read_weights(path)


def test_an_archive_without_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(fastcnn.ModelFileError, match="save_weights"):
        fastcnn.read_weights(path)


def test_without_h5py_a_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    path = tmp_path / "net.weights.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ImportError, match=r"fastcnn\[keras\]"):
        fastcnn.read_weights(path)
    assert keras_files.__doc__


@needs_h5py
def test_nets_of_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against Keras itself, on whichever back end it has."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras: Any = pytest.importorskip("keras", reason="Keras is not installed")
    k = keras.layers
    theirs = keras.Sequential(
        [
            keras.Input((9, 11, 3)), k.Conv2D(4, 3, 2, "same"), k.BatchNormalization(),
            k.DepthwiseConv2D(3, depth_multiplier=2), k.SeparableConv2D(5, 2),
            k.PReLU(shared_axes=[1, 2]), k.Conv2DTranspose(4, 2, 2), k.LayerNormalization(),
            k.GroupNormalization(2), k.Conv2D(4, 1), k.Conv2D(4, 1, use_bias=False), k.Flatten(),
            k.Dropout(0.2), k.Dense(3, name="head"),
        ]
    )  # fmt: skip
    theirs.set_weights([numbers(*array.shape) for array in theirs.get_weights()])
    theirs.compile("adam", "mse")
    model, _ = net()
    x = numbers(2, 9, 11, 3)
    expected = theirs.predict(x, verbose=0)
    for name in ("net.weights.h5", "net.keras"):
        path = tmp_path / name
        (theirs.save_weights if name.endswith("h5") else theirs.save)(path)
        load_weights(model, path)
        assert np.abs(model.predict(x) - expected).max() < 1e-5 * np.abs(expected).max()
