"""One value has no variance: a batch normalisation of one is refused before anything changes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import CNNClassifier, Sequential
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
)
from fastcnn.nn.layers import all_layers

ENGINES = (None, "numba", "im2col", "naive")
X = np.random.default_rng(0).standard_normal((65, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def net() -> list[Layer]:
    return [Dense(8), Dropout(0.5), Residual([Dense(8), BatchNorm()]), ReLU(), Dense(2)]


def everything(model: Sequential) -> tuple[Any, ...]:
    arrays = [a.copy() for one in all_layers(model.layers) for a in one.state.values()]
    return model.get_weights(), arrays, copy.deepcopy(model.rng.bit_generator.state)


def unchanged(model: Sequential, before: tuple[Any, ...]) -> None:
    now = everything(model)
    for a, b in zip((*now[0], *now[1]), (*before[0], *before[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert now[2] == before[2]


@pytest.mark.parametrize("engine", ENGINES)
def test_operations_refuse_it(engine: str | None) -> None:
    ones, zeros = np.ones(3), np.zeros(3)
    for shape in ((1, 3), (1, 1, 1, 3)):
        x = np.ones(shape)
        with pytest.raises(ValueError, match="x must hold more than one value for each channel"):
            fastcnn.batch_norm(x, ones, zeros, engine=engine)
        with pytest.raises(ValueError, match="x must hold more than one value for each channel"):
            fastcnn.batch_norm_backward(x, x, ones, zeros, ones, engine=engine)
        y = fastcnn.batch_norm_inference(x, ones, zeros, zeros, ones, 0.0, engine=engine)
        np.testing.assert_array_equal(y, x)
    for shape in ((2, 3), (1, 2, 1, 3), (0, 3)):
        assert fastcnn.batch_norm(np.ones(shape), ones, zeros, engine=engine)[0].shape == shape
    layer = BatchNorm()
    layer.build((3,), np.random.default_rng(0))
    with pytest.raises(ValueError, match="more than one value"):
        layer.forward(np.ones((1, 3), np.float32), True, None, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_a_step_on_one_sample_is_refused_and_nothing_changes(
    engine: str | None, dtype: Any
) -> None:
    model = Sequential(net(), (4,), seed=0, engine=engine)
    x = (X * 50).astype(dtype)
    if dtype != np.uint8:
        model.train_on_batch(x[:3], Y[:3])  # kernels for other batches are there
    before = everything(model)
    with pytest.raises(ValueError, match=r"x must hold at least 2 samples in training.*got 1"):
        model.train_on_batch(x[:1], Y[:1])
    unchanged(model, before)
    model.train_on_batch(x[:2], Y[:2])
    assert model.predict(x[:1]).shape == (1, 2)
    assert model.evaluate(x[:1], Y[:1])["loss"] > 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("samples", "batch_size"), [(65, 32), (65, 64), (65, 1), (1, 32), (33, 2), (7, 3)]
)
def test_a_training_with_a_batch_of_one_is_refused_before_it_begins(
    engine: str | None, samples: int, batch_size: int
) -> None:
    model = Sequential(net(), (4,), seed=0, engine=engine)
    before = everything(model)
    text = f"batch_size must give each batch of {samples} samples at least 2.*={batch_size}; take"
    with pytest.raises(ValueError, match=text):
        model.fit(X[:samples], Y[:samples], batch_size=batch_size, verbose=0)
    unchanged(model, before)
    assert model.progress is None
    assert model.loss is None
    late = Sequential(net(), seed=0)
    with pytest.raises(ValueError, match="batch_size must give"):
        late.fit(X[:samples], Y[:samples], batch_size=batch_size, verbose=0)
    assert not late.built


def test_what_counts_are_the_values_of_a_channel() -> None:
    model = Sequential(net(), (4,), seed=0)
    model.fit(X[:64], Y[:64], batch_size=32, verbose=0)
    model.fit(X, Y, batch_size=65, verbose=0)
    with pytest.raises(ValueError, match="got 1 from batch_size=60"):
        model.fit(X, Y, batch_size=60, validation_split=4 / 65, verbose=0)
    images = np.random.default_rng(0).random((5, 4, 4, 1), np.float32)
    maps = [Conv2D(3, 3), BatchNorm(), Flatten(), Dense(2)]  # four values in each image
    Sequential(maps, (4, 4, 1)).fit(images, Y[:5], batch_size=1, verbose=0)
    for layers in (
        [Conv2D(3, 4), BatchNorm(), Flatten(), Dense(2)],
        [Conv2D(3, 3), GlobalAvgPool2D(), BatchNorm(), Dense(2)],
    ):
        with pytest.raises(ValueError, match="at least 2 samples"):
            Sequential(layers, (4, 4, 1)).fit(images, Y[:5], batch_size=4, verbose=0)
    frozen = Sequential(net(), (4,), seed=0)
    frozen.layers[2].layers[1].trainable = False  # type: ignore[attr-defined]
    frozen.fit(X, Y, batch_size=1, verbose=0)
    model.compile_kernels()  # rehearses batches of one too
    with pytest.raises(ValueError, match="batch_size must give each batch of 65"):
        CNNClassifier(net(), epochs=1).fit(X, Y)
