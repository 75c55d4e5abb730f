"""``model.activations``: each layer's results, by every name of a layer, on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Input, Model, Sequential
from fastcnn.layers import (
    Add,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    Residual,
)

RNG = np.random.default_rng(0)


def stack(dtype: Any = "float32") -> Sequential:
    """Every kind of layer that a name must reach: plain, inside of another, twice inside."""
    inner = Residual([Conv2D(4, 1)])
    layers: list[Layer] = [
        Conv2D(4, (3, 2), activation="relu"),
        BatchNorm(name="norm"),
        Residual([Conv2D(4, 3, padding="same"), inner], activation="relu"),
        MaxPool2D((2, 1)),
        Dropout(0.5),
        Flatten(),
        Dense(3),
    ]
    model = Sequential(layers, (9, 6, 2), seed=1, dtype=dtype, engine="im2col")
    for array in model.layers[1].state.values():
        array[...] = RNG.uniform(0.5, 1.5, array.shape)
    return model


def by_hand(model: Sequential, x: Any, engine: str | None = None) -> dict[str, Any]:
    """The result of each layer, from the layers' own ``forward``."""
    results, y = {}, np.asarray(x, model.dtype)
    for layer in model.layers:
        if layer.name == "residual":
            convolution, inside = layer.layers  # type: ignore[attr-defined]
            z, _ = convolution.forward(y, False, None, engine)
            results["residual.layers.0"] = z
            results["residual.layers.1.layers.0"], _ = inside.layers[0].forward(
                z, False, None, engine
            )
            results["residual.layers.1"] = z + results["residual.layers.1.layers.0"]
        y, _ = layer.forward(y, False, None, engine)
        results[layer.name] = y
    return results


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_layer_by_name_on_every_engine(engine: str, dtype: str) -> None:
    model = stack(dtype)
    model.engine = engine
    x = RNG.standard_normal((3, 9, 6, 2))
    expected = by_hand(model, x, engine)
    arrays = model.activations(x, list(expected), batch_size=2)
    assert len(arrays) == 10
    for (name, array), result in zip(expected.items(), arrays, strict=True):
        assert result.dtype == dtype
        np.testing.assert_allclose(result, array, atol=1e-5, err_msg=name)
    scores = np.exp(arrays[-1] - arrays[-1].max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        scores / scores.sum(axis=1, keepdims=True), model.predict(x), atol=1e-5
    )


def test_number_layer_and_tensor_name_the_same_call() -> None:
    model = stack()
    x = RNG.integers(0, 256, (5, 9, 6, 2)).astype(np.uint8)
    norm = model.get_layer("norm")
    expected = by_hand(model, x / np.float32(255) - np.float32(0.5))["norm"]
    for choice in ("norm", 1, -6, np.int64(1), norm, norm.output):
        np.testing.assert_allclose(model.activations(x, choice), expected, atol=1e-5)
    inside = model.layers[2].inner_layers()[0][1]
    by_path = model.activations(x, "residual.layers.0")
    np.testing.assert_array_equal(model.activations(x, inside), by_path)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_the_batch_size_does_not_change_the_result(size: int) -> None:
    model = stack()
    x = RNG.standard_normal((5, 9, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(
        model.activations(x, "max_pool2d", size), model.activations(x, "max_pool2d")
    )


def test_no_samples_give_no_results() -> None:
    model = stack()
    shapes = [a.shape for a in model.activations(np.zeros((0, 9, 6, 2)), [0, "residual.layers.0"])]
    assert shapes == [(0, 7, 5, 4), (0, 7, 5, 4)]


def test_results_are_new_arrays_and_samples_may_be_read_only() -> None:
    model = Sequential([Dropout(0.5), Flatten(), Dense(2)], (4, 3, 1), engine="im2col")
    x = RNG.standard_normal((2, 4, 3, 1)).astype(np.float32)[:, ::-1]
    x.flags.writeable = False
    same, again, flat = model.activations(x, [0, 0, 1])
    np.testing.assert_array_equal(same, x)
    assert not any(
        np.may_share_memory(a, b) for a, b in ((same, x), (same, again), (same, flat), (flat, x))
    )


def test_several_inputs_shared_layers_and_outputs() -> None:
    left, right = Input((6, 5, 1), name="left"), Input((4,), name="right")
    shared = Dense(4, name="shared")
    first, maps = shared(right), Conv2D(4, 3)(left)
    joined = Add()([GlobalAvgPool2D()(maps), shared(first)])
    model = Model([left, right], [Dense(2)(joined), Dense(3)(first)], seed=0, engine="im2col")
    x = {"left": RNG.standard_normal((3, 6, 5, 1)), "right": RNG.standard_normal((3, 4))}
    one, two, total, end, given = model.activations(
        x, ["shared, call 1", "shared, call 2", "add", "dense_1", model.inputs[1]]
    )
    weights = model.get_layer("shared").parameters
    np.testing.assert_allclose(one, x["right"] @ weights["w"] + weights["b"], atol=1e-5)
    np.testing.assert_allclose(two, one @ weights["w"] + weights["b"], atol=1e-5)
    pooled = model.activations(x, model.get_layer("global_avg_pool2d"))
    np.testing.assert_allclose(total, pooled + two, atol=1e-5)
    assert end.shape == (3, 3)
    np.testing.assert_array_equal(given, x["right"].astype(np.float32))
    for choice in ("shared", model.get_layer("shared")):
        with pytest.raises(ValueError, match=r"called 2 times.*'shared, call 1', 'shared, call 2'"):
            model.activations(x, choice)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ("conv", ValueError, "did you mean 'conv2d'"),
        ("", ValueError, "layer must be the name of one of the model's layers, conv2d, norm"),
        (7, ValueError, "layer must be from -7 to 6, because the model has 7 layers, got 7"),
        (-8, ValueError, "got -8"),
        (True, TypeError, "layer must be a name, a number, a layer or a tensor"),
        (1.0, TypeError, "got 1.0"),
        (None, TypeError, "got None"),
        ([], ValueError, "at least one layer"),
        ([0, "nothing"], ValueError, "got 'nothing'"),
        (Dense(3), ValueError, r"one of the model's own.*model.layers"),
        (Input((9, 6, 2)), ValueError, "one of the model's own"),
    ],
)
def test_a_wrong_layer_is_named(layer: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        stack().activations(np.zeros((1, 9, 6, 2)), layer)


def test_a_layer_of_another_model_and_a_model_without_shape() -> None:
    model, other = stack(), stack()
    with pytest.raises(ValueError, match="one of the model's own"):
        model.activations(np.zeros((1, 9, 6, 2)), other.layers[0])
    with pytest.raises(ValueError, match="input_shape must be known"):
        Sequential([Flatten(), Dense(2)]).activations(np.zeros((1, 3)), 0)
    with pytest.raises(ValueError, match="x must have the shape"):
        model.activations(np.zeros((1, 6, 9, 2)), 0)


def test_the_model_stays_as_it_is() -> None:
    model = stack()
    before = model.get_weights()
    model.activations(np.zeros((1, 9, 6, 2)), ["norm", "residual.layers.0"])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert "forward" not in vars(model.layers[2].inner_layers()[0][1])
