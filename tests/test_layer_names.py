"""Names of layers: given to a constructor, shown, kept in files, and found in models."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn import Input, Model, Sequential, layers, load_model
from fastcnn.layers import Composite, Dense, Flatten, Layer, Merge, ReLU, Residual
from fastcnn.nn.layers import layer_from_dict, to_dict

VALUES: dict[str, Any] = {
    "filters": 2, "kernel_size": 3, "units": 4, "rate": 0.5, "block_size": 2,
    "target_shape": (2, 3), "dims": (2, 1), "height": 4, "width": 5,
    "layers": [Dense(3, name="inner")],
}  # fmt: skip
"""A value for each argument that a constructor needs."""
CLASSES = sorted(
    {
        one
        for one in map(vars(layers).get, layers.__all__)
        if inspect.isclass(one) and issubclass(one, Layer) and one not in (Layer, Merge, Composite)
    },
    key=lambda one: one.__name__,
)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_layer_takes_a_name(kind: type[Layer]) -> None:
    parameters = inspect.signature(kind).parameters
    needed = [one for one in parameters.values() if one.default is inspect.Parameter.empty]
    values = {one.name: VALUES[one.name] for one in needed}
    assert parameters["name"].kind is inspect.Parameter.KEYWORD_ONLY
    named, plain = kind(**values, name="mine"), kind(**values)
    assert named.name == "mine"
    assert "name='mine'" in repr(named)
    assert "name='mine'" not in repr(plain)
    for one in (named, plain):
        again = layer_from_dict(json.loads(json.dumps(to_dict(one))))
        assert (again.name, repr(again)) == (one.name, repr(one))
    assert "name" not in plain.config()
    for wrong in (7, ""):
        message = f"name must be text, not empty, or None, got {wrong!r}"
        with pytest.raises(TypeError, match=message):
            kind(**values, name=wrong)


def test_names_are_found_in_models_and_kept_in_files(tmp_path: Path) -> None:
    block = Residual([Dense(3, name="inner")], activation="relu", name="block")
    model = Sequential([Dense(3), block, Dense(2, name="scores")], (4,), seed=0)
    assert [layer.name for layer in model.layers] == ["dense", "block", "scores"]
    model.save(tmp_path / "net.safetensors")
    again = load_model(tmp_path / "net.safetensors")
    assert [layer.name for layer in again.layers] == ["dense", "block", "scores"]
    assert "name='inner'" in repr(again.get_layer("block"))
    x = np.ones((2, 4), np.float32)
    assert again.predict(x).tobytes() == model.predict(x).tobytes()
    with pytest.raises(AttributeError, match="name cannot change, because the layer belongs to"):
        model.layers[2].name = "other"
    copied = Model(model.inputs, ReLU(name="last")(model.get_layer("block").output))
    assert [layer.name for layer in copied.layers] == ["dense", "block", "last"]


def test_two_layers_of_one_name_are_refused() -> None:
    inputs = Input((3,))
    outputs = Dense(2, name="twice")(Dense(3, name="twice")(inputs))
    with pytest.raises(ValueError, match=r"layers must have different names, got two .*'twice'"):
        Model(inputs, outputs)
    with pytest.raises(ValueError, match="layers must have different names"):
        Sequential([Dense(2, name="twice"), Flatten(name="twice")], (3,)).build()
    # A name that a model would give by itself is left to the layer that was given it.
    model = Sequential([Dense(3), Dense(2, name="dense")], (3,), seed=0)
    assert [layer.name for layer in model.layers] == ["dense_1", "dense"]


class Doubling(Layer):
    """A layer of a user's own, whose constructor takes no name."""

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def forward(self, x: Any, training: bool, rng: Any, engine: str | None) -> Any:
        return 2 * x, None

    def backward(self, dy: Any, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return 2 * dy, {}


Layer.registry.pop("Doubling")  # other tests take every layer that is known


def test_classes_of_users_take_a_name_from_their_base() -> None:
    class Scaled(Doubling):
        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    Layer.registry.pop("Scaled")
    assert Doubling(name="mine").config() == {"name": "mine"}
    scaled = Scaled(3)
    scaled.name = "mine"
    assert scaled.config() == {"by": 3}
    assert Sequential([Doubling(name="a"), scaled], (3,), seed=0).get_layer("mine").name == "mine"
