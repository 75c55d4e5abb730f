"""Gradients of predictions at the input, against central differences and the specification."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Sequential
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    ReLU,
    Residual,
    Shape,
    Sigmoid,
    Softmax,
    Spec,
)
from fastcnn.losses import CrossEntropy, Loss
from fastcnn.proof.models import all_layers as every_kind

ENGINES = (None, "numba", "im2col", "naive")


def net() -> list[Layer]:
    block = Residual([Conv2D(4, 3, padding="same"), BatchNorm()], [Conv2D(4, 1)], activation="relu")
    return [Conv2D(4, 3), BatchNorm(), ReLU(), block, Dropout(0.5), GlobalAvgPool2D(), Dense(3)]


def trained(layers: list[Layer] | None = None, shape: Shape = (8, 7, 2), **more: Any) -> Sequential:
    """A model in float64 with running statistics that are not 0 and 1."""
    rng = np.random.default_rng(0)
    layers = net() if layers is None else layers
    model = Sequential(layers, shape, seed=0, dtype="float64", **more)
    x = rng.standard_normal((12, *shape))
    for _ in range(3):
        model.train_on_batch(x, rng.integers(0, 3, 12), loss="cross_entropy")
    return model


def slopes(model: Sequential, x: Array, value: Any, h: float = 1e-5) -> Array:
    """Central differences of ``value(x)``, one number for each sample."""
    result = np.zeros(x.shape)
    flat, actual = x.reshape(len(x), -1), result.reshape(len(x), -1)
    for j in range(flat.shape[1]):
        up, down = flat.copy(), flat.copy()
        up[:, j] += h
        down[:, j] -= h
        actual[:, j] = (value(up.reshape(x.shape)) - value(down.reshape(x.shape))) / (2 * h)
    return result


def close(found: Array, expected: Array) -> None:
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def state_of(model: Sequential) -> tuple[list[Array], Any]:
    return model.get_weights(), copy.deepcopy(model.rng.bit_generator.state)


def untouched(model: Sequential, before: tuple[list[Array], Any]) -> None:
    for a, b in zip(model.get_weights(), before[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.rng.bit_generator.state == before[1]


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_the_slope_of_the_score_and_the_model_is_untouched(engine: str | None) -> None:
    model = trained(engine=engine)
    x = np.random.default_rng(1).standard_normal((3, 8, 7, 2))
    classes = np.array([2, 0, 1])
    before = state_of(model)
    result = model.input_gradient(x, classes)
    untouched(model, before)
    model.engine = "im2col"

    def score(images: Array) -> Array:
        return model._forward_batch(images)[np.arange(3), classes]

    close(result, slopes(model, x, score))
    model.engine = engine
    np.testing.assert_array_equal(model.input_gradient(x, classes, batch_size=2), result)
    np.testing.assert_array_equal(model.input_gradient(x[1:2], 0), result[1:2])
    dy = np.zeros((3, 3))
    dy[np.arange(3), classes] = 1
    np.testing.assert_array_equal(model.input_gradient(x, dy), result)
    np.testing.assert_allclose(model.input_gradient(x, -2 * dy), -2 * result, rtol=1e-9)
    assert model.input_gradient(x[:0], 1).shape == (0, 8, 7, 2)


@pytest.mark.parametrize("engine", [None, "im2col", "naive"])
def test_it_goes_through_every_kind_of_layer(engine: str | None) -> None:
    model = trained(every_kind(3), (13, 9, 3), engine=engine)
    x = np.random.default_rng(1).standard_normal((2, 13, 9, 3))
    dy = np.random.default_rng(2).standard_normal((2, 3))
    result = model.input_gradient(x, dy)
    model.engine = "im2col"
    close(result, slopes(model, x, lambda images: (model._forward_batch(images) * dy).sum(axis=1)))


@pytest.mark.parametrize("kind", [Softmax, Sigmoid, None])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse"])
def test_scores_are_before_the_last_activation_and_predictions_are_what_predict_returns(
    kind: type[Layer] | None, loss: str
) -> None:
    layers: list[Layer] = [Dense(5), BatchNorm(), Dense(3)]
    model = trained(layers if kind is None else [*layers, kind()], (4,))
    model.loss = loss  # type: ignore[assignment]
    x = np.random.default_rng(1).standard_normal((3, 4))
    scores = Sequential(model.layers[:3], (4,), dtype="float64")
    scores.loss = "mse"  # type: ignore[assignment]
    close(model.input_gradient(x, 1), slopes(model, x, lambda a: scores.predict(a)[:, 1]))
    expected = slopes(model, x, lambda a: model.predict(a)[:, 1])
    close(model.input_gradient(x, 1, of="predictions"), expected)


def test_forward_in_prediction_and_backward_give_all_gradients() -> None:
    rng = np.random.default_rng(0)
    for engine in ENGINES:
        layer = BatchNorm(epsilon=0.1)
        layer.build((2, 3, 4), rng, np.float64)
        for array in (*layer.parameters.values(), *layer.state.values()):
            array += rng.uniform(0.1, 1, array.shape)
        x, dy = rng.standard_normal((2, 2, 2, 3, 4))
        before = {name: array.copy() for name, array in layer.state.items()}
        _, saved = layer.forward(x, False, None, engine)
        dx, gradients = layer.backward(dy, saved, engine)
        gamma, (mean, variance) = layer.parameters["gamma"], before.values()
        normal = (x - mean) / np.sqrt(variance + 0.1)
        np.testing.assert_allclose(dx, dy * gamma / np.sqrt(variance + 0.1))
        np.testing.assert_allclose(gradients["gamma"], (dy * normal).sum(axis=(0, 1, 2)))
        np.testing.assert_allclose(gradients["beta"], dy.sum(axis=(0, 1, 2)))
        assert layer.backward(dy, saved, engine, needs_dx=False)[0] is None
        for name, array in layer.state.items():
            np.testing.assert_array_equal(array, before[name])
        one = layer.forward(x[:1, :1, :1], False, None, engine)[1]
        assert layer.backward(dy[:1, :1, :1], one, engine)[1]["gamma"].shape == (4,)


def test_a_net_cut_at_a_layer_gives_its_gradients_there() -> None:
    model = trained()
    x = np.random.default_rng(1).standard_normal((2, 8, 7, 2))
    maps = Sequential(model.layers[:3], (8, 7, 2), dtype="float64")
    rest = Sequential(model.layers[3:], maps.output_shape, dtype="float64")
    weights = rest.input_gradient(maps.predict(x), 2)
    assert weights.shape == (2, 6, 5, 4)
    np.testing.assert_allclose(maps.input_gradient(x, weights), model.input_gradient(x, 2))


def test_bytes_and_images_of_one_channel() -> None:
    model = Sequential([Conv2D(3, 3), Flatten(), Dense(2)], (6, 5), seed=0)
    x = np.random.default_rng(0).integers(0, 256, (4, 6, 5)).astype(np.uint8)
    result = model.input_gradient(x, [0, 1, 1, 0])
    assert (result.shape, result.dtype) == (x.shape, np.float32)
    scaled = np.float32(x / 255 - 0.5)
    np.testing.assert_allclose(model.input_gradient(scaled, [0, 1, 1, 0]), result, rtol=1e-5)
    frozen = copy.deepcopy(model)
    frozen.trainable = False
    np.testing.assert_array_equal(frozen.input_gradient(x, [0, 1, 1, 0]), result)
    with fastcnn.use_engine("im2col"):
        np.testing.assert_allclose(model.input_gradient(x, [0, 1, 1, 0]), result, rtol=1e-4)


class Moving(Layer):
    """A user's layer that moves a state in backward, as a batch normalisation does."""

    saves = True

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def state_specs(self, input_shape: Shape) -> dict[str, Spec]:
        return {"seen": Spec((1,), "zeros")}

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        return x * 2, (x if self.saves else None)

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        self.state["seen"] += len(saved)
        return dy * 2, {}


class Mine(CrossEntropy):
    def predictions(self, outputs: Array, engine: str | None = None) -> Array:
        return outputs**2


Layer.registry.pop("Moving")  # other tests take every layer that is known
Loss.registry.pop("Mine")


def test_layers_and_losses_of_a_users_own() -> None:
    model = Sequential([Moving(), Dense(2)], (3,), seed=0)
    plain = Sequential([model.layers[1]], (3,))
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(model.input_gradient(x, 1), 2 * plain.input_gradient(x, 1))
    assert model.layers[0].state["seen"] == 0
    model.layers[0].saves = False  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"layer 0, Moving\(\), has no gradient in prediction"):
        model.input_gradient(x, 1)
    assert model.layers[0].state["seen"] == 0
    plain.loss = Mine()
    with pytest.raises(ValueError, match='of must be "scores" with a loss of your own'):
        plain.input_gradient(x, 1, of="predictions")


@pytest.mark.parametrize(
    ("x", "output", "of", "error", "text"),
    [
        (np.zeros((2, 4)), 0, "scores", ValueError, "x must have the shape"),
        (np.zeros((2, 3)), 2, "scores", ValueError, "output must be from 0 to 1, got 2"),
        (np.zeros((2, 3)), -1, "scores", ValueError, "output must be from 0 to 1, got -1"),
        (
            np.zeros((2, 3)),
            [0, 1, 0],
            "scores",
            ValueError,
            r"output must be .* got the shape \(3,",
        ),
        (np.zeros((2, 3)), 0.5, "scores", TypeError, "output must be an integer"),
        (np.zeros((2, 3)), True, "scores", TypeError, "output must be an integer"),
        (
            np.zeros((2, 3)),
            np.full((2, 2), np.nan),
            "scores",
            ValueError,
            "output must hold finite",
        ),
        (np.zeros((2, 3)), [["a"] * 2] * 2, "scores", TypeError, "output must hold numbers"),
        (np.zeros((2, 3)), [[0], [0, 1]], "scores", ValueError, "output must be an array"),
        (np.zeros((2, 3)), 0, "logits", ValueError, 'of must be "scores" or "predictions"'),
    ],
)
def test_mistakes_are_named(
    x: Array, output: Any, of: Any, error: type[Exception], text: str
) -> None:
    model = Sequential([Dense(2)], (3,))
    with pytest.raises(error, match=text):
        model.input_gradient(x, output, of=of)
    with pytest.raises(ValueError, match="input_shape must be known"):
        Sequential([Dense(2)]).input_gradient(x, 0)
    maps = Sequential([Conv2D(2, 3)], (5, 5))
    with pytest.raises(ValueError, match=r"output must be a gradient of the shape \(1, 3, 3, 2\)"):
        maps.input_gradient(np.zeros((1, 5, 5)), 0)
