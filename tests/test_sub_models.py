"""What a model of another model's layers takes over: scaling, colour, classes, and its loss."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Input, Model, Preparation, Scaling, Sequential
from fastcnn.core.arguments import Array
from fastcnn.data.pixel_scaling import CENTRED
from fastcnn.layers import Add, Conv2D, Dense, Flatten, ReLU

SHAPE = (6, 5, 3)
SCALING = Scaling((0.4, 0.5, 0.6), (0.2, 0.2, 0.3))
COLOUR = Preparation(box=None, background=None, edges="crop")


def images(count: int = 12) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


@pytest.fixture(params=["trained", "read", "pickled"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Sequential:
    layers = [Conv2D(2, 3, activation="relu"), Flatten(), Dense(4, name="features"), Dense(3)]
    model = Sequential(layers, SHAPE, seed=0, engine="im2col")
    model.scaling, model.classes = SCALING, ["a", "b", "c"]
    model.fit(images(), np.arange(12) % 3, verbose=0)
    model.preparation = COLOUR
    if request.param == "read":
        model.save(tmp_path / "net.safetensors")
        model = fastcnn.load_model(tmp_path / "net.safetensors")  # type: ignore[assignment]
        model.engine = "im2col"
    elif request.param == "pickled":
        model = pickle.loads(pickle.dumps(model))
    return model


def test_a_model_that_begins_as_another_prepares_its_inputs_so(base: Sequential) -> None:
    x, before = images(), base.get_weights()
    maps = base.activations(x, ["conv2d", "features"])
    parts: list[Any] = [
        Sequential(base.layers[:1], SHAPE, engine="im2col"),
        Model(base.inputs, base.get_layer("features").output, engine="im2col"),
    ]
    for part, expected in zip(parts, maps, strict=True):
        assert (part.scaling, part.preparation, part.trained_on) == (SCALING, COLOUR, "uint8")
        assert (part.classes, part.loss) == (None, None)
        # The results as they are: a part has learned no classes, so there is no softmax.
        np.testing.assert_allclose(part.predict(x), expected, rtol=1e-4, atol=1e-5)
    assert base.layers[0].input_shape == SHAPE
    with pytest.raises(ValueError, match=r"x must hold bytes \(uint8\), as in the training"):
        parts[1].predict(x.astype(np.int64))
    head = Sequential([*base.layers[:-1], Dense(2)], SHAPE, engine="im2col")
    assert (head.scaling, head.classes, head.loss) == (SCALING, None, None)
    np.testing.assert_allclose(head.predict(x).sum(axis=1), 1, rtol=1e-5)
    head.fit(x, np.arange(12) % 2, verbose=0)
    assert (base.scaling, base.classes) == (SCALING, ("a", "b", "c"))
    for a, b in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_that_ends_as_another_has_its_classes_and_its_loss(base: Sequential) -> None:
    whole = Sequential(base.layers, SHAPE, engine="im2col")
    assert (whole.scaling, whole.classes) == (SCALING, ("a", "b", "c"))
    np.testing.assert_array_equal(whole.predict(images()), base.predict(images()))
    again: Any = Model(inputs := Input(SHAPE), base(inputs), engine="im2col")  # type: ignore[arg-type]
    assert (again.scaling, again.classes, again.preparation) == (SCALING, ("a", "b", "c"), COLOUR)
    base.loss = "mse"
    whole = Sequential(base.layers, SHAPE, engine="im2col")
    np.testing.assert_array_equal(whole.predict(images()), base.predict(images()))
    whole.scaling = Scaling()
    assert base.scaling == SCALING  # a copy's changes are its own


def test_a_model_that_begins_elsewhere_takes_nothing_over(base: Sequential) -> None:
    inner = Model(base.layers[0].output, base.outputs[0], engine="im2col")
    assert (inner.scaling, inner.preparation, inner.trained_on) == (CENTRED, None, None)
    assert inner.classes is None
    inputs = Input(SHAPE)
    first = Conv2D(2, 3)(inputs)
    mixed = Model(inputs, Flatten()(Add()([base.layers[0](inputs), ReLU()(first)])))
    assert mixed.scaling == CENTRED  # two models' first layers read the input
    for layer in (*base.layers, *Sequential([Dense(2)], (3,)).layers):
        assert layer.input_shape is not None


def test_several_inputs() -> None:
    a, b = Input((4,), name="a"), Input((4,), name="b")
    model = Model([a, b], Dense(2)(Add()([Dense(3)(a), Dense(3)(b)])), seed=0, engine="im2col")
    model.scaling = Scaling()
    features = Model(model.inputs, model.get_layer("add").output)
    assert features.scaling == Scaling()
    assert Model(model.inputs[::-1], model.get_layer("add").output).scaling == CENTRED
