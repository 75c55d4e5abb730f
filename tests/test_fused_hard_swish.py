"""A HardSwish that a convolution computes has the values of the layer by itself, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

import fastcnn
from fastcnn import Input, Model
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import program
from fastcnn.layers import Conv2D, DepthwiseConv2D, HardSwish
from fastcnn.nn.layers import Layer

pytestmark = pytest.mark.skipif(not program.compiles(), reason="programs are of compiled code")

Float = Literal["float32", "float64"]
CHANNELS = 20
"""More than one vector, and a tail."""
CONVOLUTIONS: dict[str, Callable[[], Layer]] = {
    "one pixel": lambda: Conv2D(CHANNELS, 1),
    "stride": lambda: Conv2D(CHANNELS, (3, 5), strides=2, padding="same"),
    "depthwise": lambda: DepthwiseConv2D(3, padding="same"),
    "depthwise, one pixel": lambda: DepthwiseConv2D(1),
}
"""Convolutions that end with the fused kernel, and one that has a kernel of its own."""


def model_of(name: str, dtype: Float, *after: Layer) -> Model:
    """A convolution that gives each pixel as it is, and the layers after it."""
    inputs = Input((5, 7, CHANNELS))
    convolution = CONVOLUTIONS[name]()
    tensor = convolution(inputs)
    for layer in after:
        tensor = layer(tensor)
    model = Model(inputs, tensor, seed=0, dtype=dtype)
    model.loss = "mse"  # type: ignore[assignment]
    w = model.layers[0].parameters["w"]
    w[...] = 0
    w[w.shape[0] // 2, w.shape[1] // 2] = (
        1 if type(convolution) is DepthwiseConv2D else np.eye(CHANNELS)
    )
    return model


def numbers(dtype: Float, seed: int) -> Array:
    """Multiples of 1/8 from −8 to 8; every third number is −3, its neighbours, 3, or very large."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-64, 65, (3, 5, 7, CHANNELS)) / np.array(8, dtype)
    beside = [np.nextafter(np.array(-3, dtype), np.array(side, dtype)) for side in (-9, 0)]
    special = np.array([-3, *beside, 3, -3.5, -1e30, 1e30, 0], dtype)
    flat = x.reshape(-1)
    flat[::3] = rng.choice(special, len(flat[::3]))
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_it_has_the_bits_of_the_layer(name: str, dtype: Float) -> None:
    """Sums of multiples of 1/8 are exact, so that only the curve could differ."""
    x = numbers(dtype, 1)
    model = model_of(name, dtype, HardSwish())
    assert ("in registers: HardSwish" in model.explain()) == (name != "depthwise, one pixel")
    sums = model_of(name, dtype).predict(x)
    y = model.predict(x)
    np.testing.assert_array_equal(y, fastcnn.hard_swish(sums))
    np.testing.assert_array_equal(y[sums <= -3], 0)
    assert np.count_nonzero(sums == -3) > 10


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(number: float) -> None:
    """A bias that is not finite reaches the results of its channel alone."""
    model = model_of("stride", "float32", HardSwish())
    bias = model.layers[0].parameters["b"]
    bias[3] = number
    y = model.predict(numbers("float32", 2))
    expected = 0 if number == -np.inf else number
    np.testing.assert_array_equal(y[..., 3], np.full(y.shape[:-1], expected, np.float32))
    assert np.isfinite(np.delete(y, 3, axis=-1)).all()
