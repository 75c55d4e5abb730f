"""Names of classes: fastcnn's own cannot be taken, and files tell the user's own by module."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Sequential, load_model
from fastcnn.layers import Dense, Dropout, Layer
from fastcnn.losses import CrossEntropy, Loss
from fastcnn.nets import NETS
from fastcnn.nn.losses import loss_named
from fastcnn.optimizers import SGD, Optimizer
from fastcnn.schedules import Cosine, Schedule
from fastcnn.train.checkpoint import ModelFileError

X = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)

LAYER = """
from fastcnn.layers import Layer
class Scaled(Layer):
    def __init__(self, by=1.0):
        super().__init__()
        self.by = by
    def infer(self, shape):
        return shape
    def forward(self, x, training, rng, engine):
        return x * x.dtype.type(self.by * {factor}), None
    def backward(self, dy, saved, engine, needs_dx=True):
        return dy * dy.dtype.type(self.by * {factor}), {{}}
"""


@pytest.fixture(autouse=True)
def _names() -> Iterator[None]:
    """What a test adds to the names is taken away after it."""
    before = {kind: set(kind.registry) for kind in (Layer, Loss, Optimizer, Schedule)}
    yield
    for kind, names in before.items():
        for name in set(kind.registry) - names:
            kind.registry.pop(name)
    for name in ("mine_a", "mine_b"):
        sys.modules.pop(name, None)


def defined(module: str, source: str) -> ModuleType:
    """A module of a user's, as a notebook's cell or a file would define it."""
    module_of_name = sys.modules.setdefault(module, ModuleType(module))
    exec(source, vars(module_of_name))
    return module_of_name


def test_a_class_that_takes_a_name_of_fastcnns_own_is_refused_where_it_is_defined(
    tmp_path: Path,
) -> None:
    model = Sequential([Dropout(0.5), Dense(2)], (4,), seed=0)
    model.loss = CrossEntropy()
    before = model.predict(X)
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(TypeError, match=r"layer name 'Dropout' belongs to .*Dropout; give the"):
        type("Dropout", (Layer,), {})
    with pytest.raises(TypeError, match="optimizer name 'SGD' belongs to"):
        type("SGD", (Optimizer,), {})
    with pytest.raises(TypeError, match="schedule name 'Cosine' belongs to"):
        type("Cosine", (Cosine,), {})
    with pytest.raises(TypeError, match="loss name 'cross_entropy' belongs to"):
        type("Weighted", (CrossEntropy,), {"name": "cross_entropy"})
    for kind in (Layer, Loss, Optimizer, Schedule):
        own = next(iter(kind.registry))
        with pytest.raises(TypeError, match="belongs to fastcnn's own"):
            kind.registry[own] = kind  # type: ignore[type-abstract]
        with pytest.raises(TypeError, match="belongs to fastcnn's own"):
            kind.registry.pop(own)
        with pytest.raises(TypeError, match="belongs to fastcnn's own"):
            del kind.registry[own]
        for change in ("clear", "popitem", "update"):
            with pytest.raises(TypeError, match="enter the names"):
                getattr(kind.registry, change)()
    with pytest.raises(TypeError):
        NETS["small"] = NETS["wide"]  # type: ignore[index]
    again = load_model(tmp_path / "m.safetensors")
    assert type(again.loss) is CrossEntropy
    assert type(again.layers[0]) is Dropout
    np.testing.assert_array_equal(again.predict(X), before)


def test_a_loss_without_a_name_of_its_own_has_its_classs_name(tmp_path: Path) -> None:
    class Weighted(CrossEntropy):
        def values(self, outputs: Any, targets: Any, engine: str | None = None) -> Any:
            return 5 * super().values(outputs, targets, engine)

    assert type(loss_named("cross_entropy")) is CrossEntropy
    assert type(loss_named("Weighted")) is Weighted
    model = Sequential([Dense(2)], (4,), seed=0)
    model.train_on_batch(X, Y, loss=Weighted())
    model.save(tmp_path / "m.safetensors")
    assert type(load_model(tmp_path / "m.safetensors").loss) is Weighted


def test_a_class_may_be_defined_twice_and_the_later_one_counts(tmp_path: Path) -> None:
    mine = defined("mine_a", LAYER.format(factor=1))
    model = Sequential([mine.Scaled(2.0), Dense(2)], (4,), seed=0)
    model.save(tmp_path / "m.safetensors")
    defined("mine_a", LAYER.format(factor=1))  # the notebook's cell, run again
    again = load_model(tmp_path / "m.safetensors")
    assert type(again.layers[0]) is mine.Scaled
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    Layer.registry.add("Dense", Dense)  # an editor loads fastcnn's own module again


def test_a_file_tells_classes_of_one_name_by_their_modules(tmp_path: Path) -> None:
    for module, factor in (("mine_a", 1), ("mine_b", 10)):
        mine = defined(module, LAYER.format(factor=factor))
        model = Sequential([mine.Scaled(2.0), Dense(2)], (4,), seed=0)
        model.save(tmp_path / f"{module}.safetensors")
        np.save(tmp_path / module, model.predict(X))
    for module in ("mine_a", "mine_b"):
        again = load_model(tmp_path / f"{module}.safetensors")
        assert type(again.layers[0]).__module__ == module
        np.testing.assert_array_equal(again.predict(X), np.load(tmp_path / f"{module}.npy"))


def test_a_file_with_an_unknown_class_names_the_module_and_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_a.py").write_text("raise SystemExit('imported')\n" + LAYER.format(factor=1))
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = defined("mine_a", LAYER.format(factor=1))
    path = tmp_path / "m.safetensors"
    model = Sequential([mine.Scaled(2.0), Dense(2)], (4,), seed=0)
    model.save(path)
    Layer.registry.pop("Scaled")
    del sys.modules["mine_a"]
    with pytest.raises(
        ModelFileError, match=r"layer 'Scaled' is not known here.*'mine_a'; import its"
    ):
        load_model(path)
    assert "mine_a" not in sys.modules
    other = defined("mine_b", LAYER.format(factor=1))  # the class has moved
    assert type(load_model(path).layers[0]) is other.Scaled


def test_checkpoints_name_the_modules_of_optimizers_and_schedules(tmp_path: Path) -> None:
    source = """
from fastcnn.optimizers import SGD
from fastcnn.schedules import Schedule
class Slow(SGD): ...
class Half(Schedule):
    def __init__(self, rate=0.5):
        self.rate = rate
    def __call__(self, step):
        return self.rate
"""
    mine = defined("mine_a", source)
    path, model = tmp_path / "c.safetensors", Sequential([Dense(2)], (4,), seed=0)
    model.fit(X, Y, optimizer=mine.Slow(mine.Half(0.25)), seed=0, verbose=0)
    model.save_checkpoint(path)
    again = load_model(path)
    assert type(again.optimizer) is mine.Slow
    assert again.optimizer.rate == 0.25
    for kind, name in ((Schedule, "Half"), (Optimizer, "Slow")):
        kind.registry.pop(name)  # type: ignore[attr-defined]
        with pytest.raises(ModelFileError, match=f"'{name}' is not known here.*'mine_a'"):
            load_model(path)


def test_files_of_fastcnns_own_classes_hold_no_module(tmp_path: Path) -> None:
    model = Sequential([Dense(2)], (4,), seed=0)
    model.fit(X, Y, optimizer=SGD(Cosine(0.1)), verbose=0)
    model.save_checkpoint(tmp_path / "c.safetensors")
    assert "module" not in json.dumps(
        fastcnn.train.checkpoint.read(tmp_path / "c.safetensors").model
    )
