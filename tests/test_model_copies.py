"""Copied and pickled models are models: they predict and train alike, apart from each other."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from fastcnn import Sequential
from fastcnn.layers import BatchNorm, Conv2D, Dense, Flatten, Residual
from fastcnn.optimizers import SGD


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deep", "pickle"],
)
def test_a_copy_trains_like_its_model_and_leaves_it_alone(
    copied: Callable[[Sequential], Sequential],
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 6, 5, 2), np.float32), rng.integers(0, 3, 12)
    layers = [Residual([Conv2D(2, 3, padding="same"), BatchNorm()]), Flatten(), Dense(3)]
    model = Sequential(layers, (6, 5, 2), seed=0)
    before = [array.copy() for array in model.get_weights()]
    other = copied(model)

    model.fit(x, y, epochs=3, batch_size=5, optimizer=SGD(0.1, momentum=0.9), verbose=0)
    assert not np.array_equal(model.get_weights()[-1], before[-1])
    for a, b in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    other.fit(x, y, epochs=3, batch_size=5, optimizer=SGD(0.1, momentum=0.9), verbose=0)
    for a, b in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(copied(model).predict(x), model.predict(x))


def test_a_copy_of_a_model_without_shapes_draws_what_the_model_draws_later() -> None:
    model = Sequential([Dense(3)], seed=0)
    state, x = model.__getstate__(), np.ones((2, 4), np.float32)
    expected = model.predict(x)  # it draws the weights, before the state is copied
    other = Sequential.__new__(Sequential)
    other.__setstate__(copy.deepcopy(state))
    np.testing.assert_array_equal(other.predict(x), expected)


def test_a_model_without_shapes_can_be_copied() -> None:
    other = copy.deepcopy(Sequential([Dense(3)], seed=0))
    assert other.predict(np.ones((2, 4), np.float32)).shape == (2, 3)
