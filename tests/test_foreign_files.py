"""Model files that mean harm: refused with a short message, in time that grows with their size."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limits import computing

from fastcnn.bench.report import Report
from fastcnn.layers import Dense, Flatten, Layer, Residual
from fastcnn.models.sequential import Sequential, load_model
from fastcnn.nn.layers.stack import DEEPEST, MOST_LAYERS
from fastcnn.train import checkpoint
from fastcnn.train.checkpoint import ModelFileError

SECONDS = 5  # of computing for a header of 6 MiB; all take a second at most
SIZE = 6 << 20
FLAT = '{"class":"Flatten","config":{}}'


def inside(depth: int, layer: str = FLAT) -> str:
    """A layer inside of ``depth`` others."""
    return '{"class":"Residual","config":{"layers":[' * depth + layer + "]}}" * depth


def row(layer: str) -> str:
    """As many of a layer as the header holds."""
    return ",".join([layer] * (SIZE // (len(json.dumps(layer)) + 1)))


def written(path: Path, text: str, more: dict[str, Any] | None = None, **metadata: str) -> Path:
    """A model file that says ``text`` of its model, signed; ``more`` goes into its header."""
    Sequential([Dense(2)], (3,), seed=0).save(path)
    arrays = checkpoint.read(path).arrays()
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    header["__metadata__"] |= {
        "model": text, "sha256": checkpoint._digest(text, arrays, arrays.__getitem__), **metadata
    }  # fmt: skip
    said = json.dumps({**header, **(more or {})}).encode()
    said += b" " * (-len(said) % 8)
    path.write_bytes(struct.pack("<Q", len(said)) + said + rest)
    return path


MODEL = {"layers": [{"class": "Dense", "config": {"units": 2}}], "input_shape": [3],
         "dtype": "float32", "loss": {"name": "cross_entropy", "config": {}},
         "bytes": "x / 255 - 0.5", "trained_on": None}  # fmt: skip
TRAINING = {"optimizer": {"class": "SGD", "config": {}, "steps": 1, "slots": []}, "order": None,
            "history": {}, "callbacks": [], "settings": {}, "epoch": 0, "batch": 0, "loss_sum": 0,
            "correct": 0, "rate": 0,
            "generator": np.random.default_rng(0).bit_generator.state}  # fmt: skip


def layers(text: str) -> str:
    return json.dumps({**MODEL, "layers": "HERE"}).replace('"HERE"', f"[{text}]")


def dense(units: str) -> str:
    return layers('{"class":"Dense","config":{"units":HERE}}'.replace("HERE", units))


def training(**parts: Any) -> str:
    return json.dumps({**MODEL, "training": {**TRAINING, **parts}})


LONG, ONES = "x" * SIZE, "[" + "1," * (SIZE // 2) + "1]"
HOSTILE: dict[str, Any] = {
    "layers": lambda: layers(row(FLAT)),
    "dense layers": lambda: layers(row('{"class":"Dense","config":{"units":1}}')),
    "layers in one": lambda: layers(inside(1, row(FLAT))),
    "blocks": lambda: layers(row(inside(1))),
    "deeper blocks": lambda: layers(row(inside(50))),
    "deepest blocks": lambda: layers(row(inside(190))),
    "as deep as may be": lambda: layers(",".join([inside(DEEPEST - 1)] * (9999 // DEEPEST))),
    "all in the deepest": lambda: layers(inside(DEEPEST - 1, ",".join(['{"class":"BatchNorm",'
                                                                     '"config":{}}'] * 9900))),
    "brackets": lambda: "[" * SIZE,
    "class": lambda: layers('{"class":"HERE","config":{}}'.replace("HERE", LONG)),
    "classes": lambda: layers('{"class":HERE,"config":{}}'.replace("HERE", ONES)),
    "argument": lambda: layers('{"class":"Dense","config":{"HERE":1}}'.replace("HERE", LONG)),
    "text": lambda: dense(f'"{LONG}"'),
    "list": lambda: dense(ONES),
    "digits": lambda: dense("9" * SIZE),
    "4,000 digits": lambda: dense("9" * 4000),
    "60 digits": lambda: dense("9" * 60),
    "1e400": lambda: dense("1e400"),
    "NaN": lambda: dense("NaN"),
    "padding": lambda: layers('{"class":"Conv2D","config":{"filters":1,"kernel_size":1,"padding":'
                              'HERE}}'.replace("HERE", ONES)),
    "input": lambda: json.dumps({**MODEL, "input_shape": [1] * (SIZE // 3)}),
    "input of 4,000 digits": lambda: json.dumps({**MODEL, "input_shape": [10**4000]}),
    "input NaN": lambda: json.dumps({**MODEL, "input_shape": [float("nan")]}),
    "dtype": lambda: json.dumps({**MODEL, "dtype": LONG}),
    "loss": lambda: json.dumps({**MODEL, "loss": {"name": LONG}}),
    "loss's argument": lambda: json.dumps({**MODEL, "loss": {"name": "mse", "config": {LONG: 1}}}),
    "bytes": lambda: json.dumps({**MODEL, "bytes": LONG}),
    "training": lambda: json.dumps({**MODEL, "training": LONG}),
    "optimizer": lambda: training(optimizer={"class": LONG}),
    "rate": lambda: training(optimizer={**TRAINING["optimizer"],
                                        "config": {"learning_rate": {"class": LONG}}}),
    "steps": lambda: training(optimizer={**TRAINING["optimizer"], "steps": LONG}),
    "slots": lambda: training(optimizer={**TRAINING["optimizer"], "slots": ["x"] * (SIZE // 7)}),
    "generator": lambda: training(generator={"bit_generator": LONG}),
    "4,000 digits of a generator": lambda: training(
        generator={"bit_generator": "PCG64", "state": {"state": 10**4000, "inc": 1},
                   "has_uint32": 0, "uinteger": 0}),
    "epoch": lambda: training(epoch=10**4000),
}  # fmt: skip


def refused(path: Path) -> str:
    """The message that a file is refused with, soon."""
    with (
        computing(SECONDS),
        pytest.raises(ModelFileError, match="cannot be loaded: ") as caught,
    ):
        load_model(path)
    assert len(str(caught.value)) < 1100 + len(str(path))
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_says_very_much_is_refused_soon_and_shortly(name: str, tmp_path: Path) -> None:
    message = refused(written(tmp_path / "m", HOSTILE[name]()))
    if "blocks" in name or "layers" in name:
        assert "10,000 layers in all" in message or "16 deep inside of each other" in message


def test_headers_that_say_very_much(tmp_path: Path) -> None:
    text, path = json.dumps(MODEL), tmp_path / "m"
    for name in ("version", "format", "sha256"):
        refused(written(path, text, **{name: LONG}))
    part = {"dtype": "F32", "shape": [0], "data_offsets": [32, 32]}
    refused(written(path, text, {f"a{i}": part for i in range(SIZE // 72)}))
    refused(written(path, text, {LONG: part}))
    refused(written(path, text, {"z": {**part, "shape": [0] + [1] * (SIZE // 3)}}))


@pytest.mark.parametrize(
    "parts",
    [
        {"history": {f"k{i}": [1] for i in range(300_000)}},
        {"history": {"k": [1] * 3_000_000}},
        {"callbacks": [{"class": "x", "state": {}}] * 300_000},
    ],
    ids=["names", "numbers", "callbacks"],
)
def test_a_long_training_is_read_in_time(parts: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "m", training(**parts))
    with computing(SECONDS):
        load_model(path)


def test_a_model_may_have_as_many_layers_as_its_file(tmp_path: Path) -> None:
    for many in ([Flatten() for _ in range(MOST_LAYERS)], nested(DEEPEST)):
        model = Sequential(many, (3,))
        model.save(tmp_path / "m")
        assert len(load_model(tmp_path / "m").layers) == len(many)
    with pytest.raises(ValueError, match="layers must hold at most 10,000 layers in all, got more"):
        Sequential([Flatten() for _ in range(MOST_LAYERS + 1)])
    with pytest.raises(ValueError, match="layers must hold at most 10,000 layers in all, got more"):
        Sequential([Flatten(), Residual([Flatten() for _ in range(MOST_LAYERS - 1)])])
    with pytest.raises(ValueError, match="must lie at most 16 deep inside of each other, got more"):
        Sequential(nested(DEEPEST + 1))


def nested(depth: int) -> list[Layer]:
    layer: Layer = Flatten()
    for _ in range(depth - 1):
        layer = Residual([layer])
    return [layer]


@pytest.mark.parametrize(
    "text",
    ["[" * 1_000_000, '{"format": ' * 1_000_000, '{"format": ' + "9" * 10_000 + "}", "NaN", "[]",
     '{"format": 1}', '{"format": 1, "entries": [1]}', f'{{"format": "{"x" * 1_000_000}"}}'],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_report_of_others_is_refused_soon_and_shortly(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, "utf-8")
    with computing(SECONDS), pytest.raises(ValueError, match=r"report\.json") as caught:
        Report.read(path)
    assert len(str(caught.value)) < 1000 + len(str(path))
