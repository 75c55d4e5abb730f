"""The page's JavaScript computes what the specification says: layers, and whole nets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from javascript import part, run

import fastcnn
from fastcnn.core.class_registry import is_own
from fastcnn.exchange.html_export import described
from fastcnn.exchange.html_layers import USUAL_KINDS, WRITERS
from fastcnn.exchange.onnx_operation import OnnxOperation
from fastcnn.layers import (
    ELU,
    GELU,
    LRN,
    Add,
    Average,
    AvgPool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    DepthToSpace,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    LayerNorm,
    LeakyReLU,
    Maximum,
    MaxPool2D,
    MinPool2D,
    Multiply,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Resize,
    SeparableConv2D,
    Sigmoid,
    Softmax,
    Softplus,
    Subtract,
    Swish,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
)
from fastcnn.nn.layers import Layer, all_layers

SHAPE = 9, 7, 3

CHAINS: dict[str, list[Layer]] = {
    "strides": [Conv2D(4, (3, 2), strides=(2, 1), padding=((1, 0), (2, 1))), ReLU()],
    "dilation": [
        Conv2D(5, (2, 3), dilation=(2, 1), activation="relu"),
        Conv2D(3, 1, use_bias=False),
    ],
    "groups": [Conv2D(6, 3, groups=3, padding="same"), Conv2D(4, 2, groups=2)],
    "depthwise": [DepthwiseConv2D((3, 2), depth_multiplier=2, strides=(1, 2), padding="same")],
    "separable": [SeparableConv2D(5, (2, 3), depth_multiplier=2, activation="relu")],
    "transposed": [
        Conv2DTranspose(4, (3, 2), strides=(2, 3), padding="same", activation="relu"),
        Conv2DTranspose(6, (2, 3), dilation=(1, 2), padding=1, groups=2, output_padding=0),
    ],
    "max pools": [MaxPool2D((3, 2), strides=(2, 1), padding=((1, 0), (1, 1)))],
    "min pools": [MinPool2D(2, strides=1, padding="same"), MinPool2D((1, 2))],
    "average pools": [
        AvgPool2D((3, 2), strides=(2, 1), padding=((1, 1), (0, 1))),
        GlobalAvgPool2D(),
    ],
    "global maximum": [
        Conv2D(4, 2),
        GlobalMaxPool2D(),
        Dense(3, activation="relu"),
        Dense(2, use_bias=False),
    ],
    "clipped": [Conv2D(4, 2), ReLU(0.25), LeakyReLU(0.3), PReLU()],
    "gates": [Tanh(), Conv2D(4, 2), Sigmoid(), HardSigmoid(0.4, 0.3)],
    "smooth": [Conv2D(4, 2), ELU(0.7), Conv2D(4, 2), GELU(), GELU(approximate=True), Softplus()],
    "swish": [Conv2D(4, 2), HardSwish(), Conv2D(3, 1), Swish(), Softmax()],
    "norms": [
        BatchNorm(),
        Conv2D(6, 2),
        GroupNorm(3),
        LayerNorm(axis=(-2, -1)),
        LRN(4, 0.3, 0.6, 0.8),
    ],
    "other norms": [
        LayerNorm(center=False),
        GroupNorm(1, scale=False),
        LayerNorm(axis=(-3, -2, -1)),
    ],
    "norms of features": [Flatten(), Dense(6), BatchNorm(), GroupNorm(2), LRN(3, 0.5), PReLU()],
    "shapes": [
        ZeroPadding2D(((0, 1), (2, 3))),
        Cropping2D(((1, 0), (0, 2))),
        Dropout(0.5),
        Reshape((5, -1, 2)),
        Permute((3, 1, 2)),
        Permute((2, 1, 3)),
    ],
    "pixels": [Conv2D(12, 1), DepthToSpace(2), Conv2D(8, 2), DepthToSpace(2, "CRD")],
    "enlarged": [UpSampling2D((2, 3)), UpSampling2D(2, "bilinear")],
    "resized": [
        Resize(5, 11),
        Resize(8, 4, "nearest", "half_pixel", "round_prefer_ceil"),
        Resize(3, 7, "bilinear", "align_corners"),
    ],
    "residual": [
        Residual([Conv2D(3, 3, padding="same"), BatchNorm()], activation="relu"),
        Residual([Conv2D(4, 3, strides=2)], [Conv2D(4, 3, strides=2, use_bias=False)]),
    ],
}


def merged(kind: Layer, *others: Layer) -> fastcnn.Model:
    """A net that merges an image with one of one row, and with one of one channel."""
    inputs = fastcnn.Input(SHAPE)
    image = Conv2D(4, 2)(inputs)
    row = Conv2D(4, (9, 2))(inputs)
    channel = Conv2D(1, 2)(inputs)
    outputs = kind([row, image, channel])
    for layer in others:
        outputs = layer([outputs, image])
    return fastcnn.Model(inputs, outputs, seed=0)


def concatenated() -> fastcnn.Model:
    """A net that concatenates along each axis, and calls a layer twice."""
    inputs = fastcnn.Input(SHAPE)
    shared = Conv2D(3, 3, padding="same")
    once = shared(inputs)
    twice = shared(once)
    outputs = Concatenate()([inputs, once, twice])
    outputs = Concatenate(1)([outputs, outputs])
    outputs = Concatenate(-2)([outputs, outputs, outputs])
    return fastcnn.Model(inputs, outputs, seed=0)


GRAPHS = {
    "sums": lambda: merged(Add(), Subtract()),
    "products": lambda: merged(Multiply(), Average()),
    "maxima": lambda: merged(Maximum()),
    "concatenated": concatenated,
}


def nets(dtype: Any = "float32") -> dict[str, fastcnn.Model]:
    """All nets, with random numbers in each parameter and statistic; graphs of float32 alone."""
    result: dict[str, fastcnn.Model] = {
        name: fastcnn.Sequential(layers, SHAPE, seed=0, dtype=dtype)
        for name, layers in CHAINS.items()
    }
    if dtype == "float32":
        result |= {name: make() for name, make in GRAPHS.items()}
    rng = np.random.default_rng(1)
    for model in result.values():
        model.loss = "mse"  # so that predictions are the outputs
        model.engine = "im2col"  # which compiles nothing
        for _, array in model._arrays():
            array[...] = rng.uniform(0.2, 1.2, array.shape) * rng.choice([-1, 1], array.shape)
        for layer in all_layers(model.layers):
            if "variance" in layer.state:
                layer.state["variance"] = np.abs(layer.state["variance"])
    return result


def specification(model: fastcnn.Model, pixels: Any) -> Any:
    """The predictions of the engine "naive", layer by layer."""
    values = [model.scaling.of(pixels, model.dtype)]
    for node in model._graph.nodes:
        inputs = tuple(values[value] for value in node.inputs)
        x: Any = inputs if node.layer.takes_several else inputs[0]
        values.append(node.layer.forward(x, False, None, "naive")[0])
    return values[model._graph.outputs[0]]


def describe(model: fastcnn.Model, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The description of a net that gives maps, which a page would not show as classes."""
    module = "fastcnn.exchange.html_export"
    monkeypatch.setattr(f"{module}.picture_shape", lambda model: model.input_shape)
    monkeypatch.setattr(f"{module}._classes", lambda model, names: [])
    return described(model)


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 1e-5), ("float64", 1e-12)])
def test_layers_compute_what_the_specification_says(
    dtype: str, relative: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_nets = nets(dtype)
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    argument = {
        "nets": [describe(model, monkeypatch) for model in all_nets.values()],
        "pixels": pixels.ravel().tolist(),
    }
    outputs = run(
        """
        const results = [];
        for (const description of argument.nets) {
          const net = await readNet(description);
          const output = forward(net, argument.pixels)[net.output];
          results.push({ shape: output.shape, data: Array.from(output.data) });
        }
        return results;
        """,
        argument,
    )
    for (name, model), output in zip(all_nets.items(), outputs, strict=True):
        expected = specification(model, pixels[None])[0]
        assert tuple(output["shape"]) == expected.shape, name
        actual = np.array(output["data"]).reshape(expected.shape)
        largest = float(np.abs(expected).max())
        assert np.unique(expected).size > 1, f"{name} gives one number"
        np.testing.assert_allclose(actual, expected, relative, relative / 5 * largest, err_msg=name)


def test_each_layer_is_tried() -> None:
    own = {kind for kind in map(Layer.registry.get, Layer.registry) if is_own(kind)} - {
        OnnxOperation
    }
    assert set(WRITERS) == own
    tried = {type(layer) for model in nets().values() for layer in all_layers(model.layers)}
    assert tried == own


def test_kinds_are_in_the_files_that_are_said_to_have_them() -> None:
    table = re.search(r"const LAYERS = \{\n(.*?)\n\};", part("layers.js"), re.DOTALL)
    assert table
    assert set(re.findall(r"^  (\w+)", table[1], re.MULTILINE)) == USUAL_KINDS


SPECIAL = (
    -np.inf,
    -1000.0,
    -3.5,
    -3.0,
    -1.0,
    -1e-4,
    0.0,
    1e-4,
    0.5,
    2.9,
    3.0,
    40.0,
    np.inf,
    np.nan,
)
FUNCTIONS: dict[str, tuple[Any, dict[str, float | bool]]] = {
    "relu": (fastcnn.relu, {}),
    "leaky_relu": (fastcnn.leaky_relu, {"slope": 0.3}),
    "tanh": (fastcnn.tanh, {}),
    "sigmoid": (fastcnn.sigmoid, {}),
    "elu": (fastcnn.elu, {"alpha": 0.7}),
    "hard_sigmoid": (fastcnn.hard_sigmoid, {"slope": 0.4, "offset": 0.3}),
    "hard_swish": (fastcnn.hard_swish, {}),
    "swish": (fastcnn.swish, {}),
    "gelu": (fastcnn.gelu, {"approximate": False}),
    "softplus": (fastcnn.softplus, {}),
}


def numbers(values: Sequence[Any]) -> list[float]:
    """Numbers from text, because JSON has neither NaN nor infinity."""
    return [float(value) for value in values]


def test_activations_of_special_numbers() -> None:
    text = [str(number).replace("inf", "Infinity").replace("nan", "NaN") for number in SPECIAL]
    results = run(
        """
        const x = { shape: [argument.x.length], data: Float32Array.from(argument.x, Number) };
        return argument.layers.map((layer) => Array.from(activation([x], layer).data, String));
        """,
        {"x": text, "layers": [{"function": name, **a} for name, (_, a) in FUNCTIONS.items()]},
    )
    for (name, (function, arguments)), result in zip(FUNCTIONS.items(), results, strict=True):
        expected = function(np.array(SPECIAL, np.float32), **arguments, engine="naive")
        np.testing.assert_allclose(numbers(result), expected, 3e-7, 1e-30, err_msg=name)


def test_pools_keep_nan_and_infinity() -> None:
    x = np.array([[np.nan, 1, 2], [-np.inf, -np.inf, 3]], np.float32).reshape(1, 2, 3, 1)
    layer = {
        "windows": [1, 2],
        "kernel": [2, 2],
        "stride": [1, 1],
        "padding": [0, 0],
        "shape": [1, 2, 1],
    }
    results = run(
        """
        const x = { shape: [2, 3, 1], data: Float32Array.from(argument.x, Number) };
        return [maxPool, minPool].map((pool) => Array.from(pool([x], argument.layer).data, String));
        """,
        {"x": ["NaN", "1", "2", "-Infinity", "-Infinity", "3"], "layer": layer},
    )
    for result, function in zip(results, (fastcnn.max_pool2d, fastcnn.min_pool2d), strict=True):
        expected = function(x, 2, stride=1, engine="naive").ravel()
        np.testing.assert_array_equal(numbers(result), expected)
