"""Layers of one model in another: parameters stay, and neither model changes the other."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import pytest
from tiny import net, stripes

from fastcnn import CNNClassifier, Sequential, load_model
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    Residual,
    Shape,
    Sigmoid,
    Softmax,
    Spec,
)

ENGINES = (None, "numba", "im2col", "naive")


def trained(layers: Sequence[Layer] | None = None, seed: int = 0) -> Sequential:
    model = Sequential(net() if layers is None else layers, (9, 8), seed=seed)
    model.fit(*stripes(60), epochs=2, optimizer="adam", seed=seed, verbose=0)
    return model


def same(one: Sequence[Array], other: Sequence[Array]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_part_of_a_net_gives_its_feature_maps(engine: str | None, tmp_path: Path) -> None:
    x, y = stripes(30, seed=1)
    model = trained()
    before, weights = model.evaluate(x, y), model.get_weights()
    part = Sequential(model.layers[:2], input_shape=(9, 8), seed=5, engine=engine)
    same(part.get_weights(), weights[:2])
    maps = np.asarray(x, np.float32)[..., None] / 255 - np.float32(0.5)
    for layer in model.layers[:2]:
        maps, _ = layer.forward(maps, False, None, "naive")
    for size in (1, 7, 30):
        np.testing.assert_allclose(part.predict(x[:size]), maps[:size], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(part.predict(x, batch_size=4), maps, rtol=1e-4, atol=1e-6)
    assert part.predict(x[:0]).shape == (0, *maps.shape[1:])
    part.save(tmp_path / "part.safetensors")
    again = load_model(tmp_path / "part.safetensors")
    np.testing.assert_allclose(again.predict(x), maps, rtol=1e-4, atol=1e-6)
    for call in (part.fit, part.evaluate, part.train_on_batch):
        with pytest.raises(ValueError, match=r"ends in maps \(7, 3, 4\), got \(30,\); .* put a Fl"):
            call(x, y)
    with pytest.raises(ValueError, match=r"ends in \(classes,\)"):
        part.predict_classes(x)
    assert model.evaluate(x, y) == before
    same(model.get_weights(), weights)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_net_of_images_predicts_what_its_last_layer_gives(engine: str | None) -> None:
    """Also where that is the activation which a loss would imply."""
    x, _ = stripes(5)
    body = Sequential([Conv2D(4, 3)], (9, 8), seed=0)
    scores = np.asarray(body.predict(x), np.float64)
    kinds = {Softmax: np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)}
    kinds[Sigmoid] = 1 / (1 + np.exp(-scores))
    for kind, expected in kinds.items():
        model = Sequential([*body.layers, kind()], (9, 8), engine=engine)
        np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4)
        assert "Conv2D" in model.explain() or engine
    model = Sequential(body.layers, (9, 8), engine=engine)
    model.fit(x, np.zeros_like(body.predict(x)), loss="mse", verbose=0)
    assert model.evaluate(x, np.zeros_like(scores))["loss"] >= 0


def test_transfer_keeps_the_layers_and_leaves_the_first_net_alone(tmp_path: Path) -> None:
    x, y = stripes(30, seed=1)
    base = trained()
    before, weights = base.evaluate(x, y), base.get_weights()
    new = Sequential([*base.layers[:-1], Dense(5)], (9, 8), seed=1)
    same(new.get_weights()[:4], weights[:4])
    assert all(a is not b for a, b in zip(new.layers, base.layers, strict=True))
    new.fit(x, y + 2, epochs=2, verbose=0)
    assert not np.array_equal(new.get_weights()[0], weights[0])
    same(base.get_weights(), weights)
    assert base.evaluate(x, y) == before
    for i, model in enumerate((base, new)):
        model.save(tmp_path / f"{i}.safetensors")
        loaded = load_model(tmp_path / f"{i}.safetensors")
        np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
        for engine in ("im2col", "naive"):
            other = Sequential(model.layers, (9, 8), engine=engine)
            np.testing.assert_allclose(other.predict(x), model.predict(x), rtol=1e-3, atol=1e-6)
    base.fit(x, y, verbose=0)
    assert not np.array_equal(base.get_weights()[0], weights[0])


def test_one_list_of_new_layers_makes_models_that_know_nothing_of_each_other() -> None:
    """A loop over folds: no net begins with what another has learned from its validation data."""
    layers = net()
    first = trained(layers, seed=3)
    weights = first.get_weights()
    same(trained(layers, seed=3).get_weights(), weights)
    assert not np.array_equal(trained(layers, seed=4).get_weights()[0], weights[0])
    same(first.get_weights(), weights)
    assert all(not layer.parameters and layer.input_shape is None for layer in layers)
    with pytest.raises(KeyError, match=r"'w': this layer is not built.* look at model.layers"):
        layers[0].parameters["w"]
    late = [Sequential(layers, seed=seed) for seed in (3, 4)]  # built by their first call
    shapes = [
        model.predict(np.zeros((2, 9, side))).shape
        for model, side in zip(late, (8, 6), strict=True)
    ]
    assert shapes == [(2, 3), (2, 3)]


def test_layers_inside_of_a_block_keep_their_parameters_and_statistics() -> None:
    x, _ = stripes(6)
    block = Residual([Conv2D(1, 3, padding="same"), BatchNorm()], activation="relu")
    base = trained([block, Flatten(), Dense(3)])
    weights = base.get_weights()
    same(Sequential([base.layers[0]], (9, 8)).get_weights(), weights[:6])
    inner = base.layers[0].layers  # type: ignore[attr-defined]
    outer = Sequential([Residual(inner, [Conv2D(1, 1)]), Flatten(), Dense(3)], (9, 8))
    same(outer.get_weights()[:4], weights[:4])
    assert outer.get_weights()[4].shape == (1, 1, 1, 1)
    same(outer.get_weights()[6:8], weights[4:6])
    outer.fit(x, [0, 1, 2, 0, 1, 2], verbose=0)
    same(base.get_weights(), weights)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("other", ["float32", "float64"])
def test_parameters_take_the_dtype_of_the_model(
    dtype: Literal["float32", "float64"], other: Literal["float32", "float64"]
) -> None:
    base = Sequential(net(), (9, 8), seed=0, dtype=dtype)
    new = Sequential(base.layers, (9, 8), dtype=other)
    for a, b in zip(base.get_weights(), new.get_weights(), strict=True):
        assert b.dtype == other
        np.testing.assert_array_equal(b, a.astype(other))
    x, _ = stripes(4)
    np.testing.assert_allclose(new.predict(x), base.predict(x), rtol=1e-4, atol=1e-6)


def test_a_built_layer_goes_where_its_parameters_fit() -> None:
    base = trained([Conv2D(4, 3), GlobalAvgPool2D(), Dense(3)])
    wide = Sequential(base.layers, (12, 20))
    same(wide.get_weights(), base.get_weights())
    assert wide.predict(np.zeros((2, 12, 20))).shape == (2, 3)

    new = Dense(3, kernel_initializer="ones")
    model = Sequential([base.layers[0], Flatten(), base.layers[2]], seed=0)
    state, before = model.rng.bit_generator.state, base.get_weights()
    with pytest.raises(ValueError, match=r"layer 2, Dense\(3\), is built and holds w of shape "):
        model.predict(np.zeros((2, 9, 8)))
    with pytest.raises(ValueError, match=r"\(4, 3\), but for an input of shape \(168,\) it needs"):
        model.fit(*stripes(8), verbose=0)
    assert not model.built
    assert model.rng.bit_generator.state == state
    same(model.layers[0].parameters.values(), before[:2])  # type: ignore[arg-type]
    same(base.get_weights(), before)
    with pytest.raises(ValueError, match="holds w of shape"):
        Sequential([new, base.layers[2]], (7,))
    assert not new.parameters


class Locked(Dense):
    """A layer that cannot be copied, and one without specs."""

    def __init__(self, units: int = 3) -> None:
        super().__init__(units)
        self.held: object = None

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        return {}

    def build(self, input_shape: Shape, rng: np.random.Generator, dtype: Any = np.float32) -> Shape:
        shape = super().build(input_shape, rng, dtype)
        self.parameters["w"] = rng.random((*input_shape, self.units)).astype(dtype)
        self.parameters["b"] = np.zeros(self.units, dtype)
        return shape


Layer.registry.pop("Locked")  # other tests take every layer that is known


def test_layers_of_other_makers_are_copied_too_or_named() -> None:
    base = Sequential([Locked(4), Dense(2)], (5,), seed=0)
    weights = base.get_weights()
    same(Sequential(base.layers, (5,), seed=1).get_weights(), weights)
    with pytest.raises(
        ValueError, match=r"layer 0, Locked\(units=4\), is built and holds w of shape"
    ):
        Sequential(base.layers, (6,))
    layer = Locked(3)
    layer.held = Lock()
    with pytest.raises(TypeError, match=r"layers must be such as can be copied, got Locked\(\)"):
        Sequential([layer], (4,))


def test_a_layer_is_in_a_model_once() -> None:
    one = Dense(4)
    for layers in (
        [one, one],
        [one, Residual([one])],
        [Residual([one]), Residual([Residual([one])])],
    ):
        with pytest.raises(
            ValueError, match=r"layers must not hold one layer twice, got Dense\(4\)"
        ):
            Sequential(layers, (4,))
    with pytest.raises(ValueError, match="shortcut must have layers of its own"):
        Residual([Residual([one])], [one])


def test_the_layers_of_a_model_cannot_be_exchanged() -> None:
    model = trained()
    weights = model.get_weights()
    with pytest.raises(TypeError, match=r"cannot change; make another model, such as Sequential"):
        model.layers[-1] = Dense(5)  # type: ignore[index]
    for call in ("append", "extend", "remove", "clear"):
        with pytest.raises(TypeError, match="the layers of a model cannot change"):
            getattr(model.layers, call)(model.layers[-1])
    assert type(model.layers[:2]) is list
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        same(other.get_weights(), weights)
        with pytest.raises(TypeError, match="the layers of a model cannot change"):
            other.layers[0] = model.layers[0]
        held = other.layers[0].parameters["w"]
        assert np.shares_memory(held, other._weights.parameters)
    loose = copy.deepcopy(model.layers[0])
    loose.parameters["w"] = np.zeros(3)  # it belongs to no model
    assert loose.parameters["w"].shape == (3,)


def test_a_classifier_begins_anew_with_each_fit_and_trained_layers_as_they_are() -> None:
    x, y = stripes(60)
    layers = net()
    new = CNNClassifier(layers, epochs=1, random_state=0)
    first = new.fit(x, y).model_.get_weights()
    same(new.fit(x, y).model_.get_weights(), first)
    assert not layers[0].parameters

    base = trained()
    weights = base.get_weights()
    transfer = CNNClassifier([*base.layers[:-1], Dense(3)], epochs=1, random_state=0)
    first = transfer.fit(x, y).model_.get_weights()
    same(transfer.fit(x, y).model_.get_weights(), first)
    same(base.get_weights(), weights)
    still = CNNClassifier(
        [*base.layers[:-1], Dense(3)], epochs=1, optimizer="sgd", learning_rate=1e-30
    )
    same(still.fit(x, y).model_.get_weights()[:4], weights[:4])


@pytest.mark.parametrize("engine", [None, "numba"])
def test_a_net_that_begins_with_pooling_or_stands_alone_is_taken_too(engine: str | None) -> None:
    layers = [
        MaxPool2D(),
        Conv2D(8, 5, padding="same", algorithm="winograd"),
        MaxPool2D(),
        Flatten(),
    ]
    base = Sequential([*layers, Dense(3)], (24, 24), seed=0)
    x = np.random.default_rng(0).random((3, 24, 24), np.float32)
    part = Sequential(base.layers[:3], (24, 24), engine=engine)
    whole = Sequential(base.layers, (24, 24), engine=engine)
    flat = part.predict(x).reshape(3, -1)
    w, b = base.get_weights()[2:]
    np.testing.assert_allclose(
        whole._forward_batch(x[..., None]), flat @ w + b, rtol=1e-3, atol=1e-4
    )
