"""Layers: shapes, parameters, and gradients against central differences in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from limits import computing
from slopes import same, slope

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    ELU,
    GELU,
    INITIALIZERS,
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
    Layer,
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
    SiLU,
    Softmax,
    Softplus,
    Subtract,
    Swish,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
)
from fastcnn.models.graph import chain
from fastcnn.models.summary import rows
from fastcnn.nn.layers import infer_stack, input_of_call, layer_from_dict, to_dict
from fastcnn.nn.layers.stack import MOST_LAYERS, checked_layers

# A maker of each layer, an input's shape or those of several, and the output's.
Case = tuple[Callable[[], Layer], tuple[Any, ...], tuple[int, ...]]
LAYERS: dict[str, Case] = {
    "Conv2D": (lambda: Conv2D(3, (2, 3)), (5, 4, 2), (4, 2, 3)),
    "Conv2D-every-parameter": (
        lambda: Conv2D(4, (3, 2), (2, 1), ((1, 0), (0, 2)), (1, 2), 2, "relu", False, "he_normal"),
        (5, 6, 2),
        (2, 6, 4),
    ),
    "DepthwiseConv2D": (
        lambda: DepthwiseConv2D((2, 3), (1, 2), "same", depth_multiplier=2, activation="relu"),
        (4, 5, 3),
        (4, 3, 6),
    ),
    "MaxPool2D": (lambda: MaxPool2D((2, 3), (1, 2), (1, 0)), (4, 5, 2), (5, 2, 2)),
    "MinPool2D": (lambda: MinPool2D((3, 2)), (6, 5, 2), (2, 2, 2)),
    "AvgPool2D": (lambda: AvgPool2D((2, 3), padding="same"), (5, 4, 2), (3, 2, 2)),
    "GlobalAvgPool2D": (lambda: GlobalAvgPool2D(), (3, 4, 5), (5,)),
    "GlobalMaxPool2D": (lambda: GlobalMaxPool2D(), (3, 4, 5), (5,)),
    "Dense": (lambda: Dense(4), (7,), (4,)),
    "Dense-relu": (lambda: Dense(5, "relu", use_bias=False), (3,), (5,)),
    "Flatten": (lambda: Flatten(), (3, 2, 4), (24,)),
    "LeakyReLU": (lambda: LeakyReLU(0.3), (3, 2, 4), (3, 2, 4)),
    "Tanh": (lambda: Tanh(), (3, 4), (3, 4)),
    "Sigmoid": (lambda: Sigmoid(), (5,), (5,)),
    "Dropout": (lambda: Dropout(0.4), (3, 2, 4), (3, 2, 4)),
    "BatchNorm": (lambda: BatchNorm(0.8, 0.1), (3, 2, 4), (3, 2, 4)),
    "BatchNorm-vectors": (lambda: BatchNorm(), (4,), (4,)),
    "ZeroPadding2D": (lambda: ZeroPadding2D(((1, 0), (2, 3))), (3, 2, 4), (4, 7, 4)),
    "ZeroPadding2D-all-sides": (lambda: ZeroPadding2D(2), (3, 2, 1), (7, 6, 1)),
    "LayerNorm": (lambda: LayerNorm(), (3, 2, 4), (3, 2, 4)),
    "LayerNorm-images": (lambda: LayerNorm((-3, -2, -1), 0.1), (3, 2, 4), (3, 2, 4)),
    "LayerNorm-rows": (lambda: LayerNorm([-1, -2], scale=False), (3, 2, 4), (3, 2, 4)),
    "LayerNorm-vectors": (lambda: LayerNorm(center=False), (5,), (5,)),
    "LayerNorm-alone": (lambda: LayerNorm(center=False, scale=False), (3, 4), (3, 4)),
    "GroupNorm": (lambda: GroupNorm(2), (3, 2, 4), (3, 2, 4)),
    "GroupNorm-vectors": (lambda: GroupNorm(3, 0.1, center=False), (6,), (6,)),
    "GroupNorm-instances": (lambda: GroupNorm(4, scale=False), (3, 5, 4), (3, 5, 4)),
    "LRN": (lambda: LRN(3, 0.5, 0.75, 2.0), (3, 2, 4), (3, 2, 4)),
    "LRN-even": (lambda: LRN(4, 0.9, 0.6), (5,), (5,)),
    "ReLU": (lambda: ReLU(), (3, 2, 4), (3, 2, 4)),
    "ReLU-maximum": (lambda: ReLU(0.8), (3, 2, 4), (3, 2, 4)),
    "PReLU": (lambda: PReLU(), (3, 2, 4), (3, 2, 4)),
    "PReLU-vectors": (lambda: PReLU(), (5,), (5,)),
    "ELU": (lambda: ELU(0.7), (3, 2, 4), (3, 2, 4)),
    "HardSigmoid": (lambda: HardSigmoid(0.4, 0.3), (3, 2, 4), (3, 2, 4)),
    "HardSwish": (lambda: HardSwish(), (7,), (7,)),
    "Swish": (lambda: Swish(), (3, 2, 4), (3, 2, 4)),
    "GELU": (lambda: GELU(), (3, 2, 4), (3, 2, 4)),
    "GELU-tanh": (lambda: GELU(approximate=True), (3, 2, 4), (3, 2, 4)),
    "Softplus": (lambda: Softplus(), (3, 2, 4), (3, 2, 4)),
    "Softmax": (lambda: Softmax(), (6,), (6,)),
    "Residual": (
        lambda: Residual([Conv2D(2, (3, 2), padding="same", activation="relu"), ReLU()]),
        (4, 3, 2),
        (4, 3, 2),
    ),
    "Residual-shortcut": (
        lambda: Residual(
            [Conv2D(3, 3, 2, "same"), Residual([Conv2D(3, 1)])],
            [AvgPool2D(2, padding="same"), Conv2D(3, 1, use_bias=False), BatchNorm(), Dropout(0.2)],
            activation="relu",
        ),
        (5, 4, 2),
        (3, 2, 3),
    ),
    "Add": (lambda: Add(), ((3, 2, 4), (3, 2, 4), (3, 2, 4)), (3, 2, 4)),
    "Add-broadcast": (lambda: Add(), ((1, 2, 1), (3, 1, 4)), (3, 2, 4)),
    "Subtract": (lambda: Subtract(), ((3, 2, 4), (1, 2, 1), (3, 1, 4)), (3, 2, 4)),
    "Multiply": (lambda: Multiply(), ((3, 2, 4), (1, 1, 4), (3, 2, 1)), (3, 2, 4)),
    "Average": (lambda: Average(), ((3, 2, 4), (3, 2, 4), (3, 1, 4)), (3, 2, 4)),
    "Maximum": (lambda: Maximum(), ((5,), (1,), (5,)), (5,)),
    "Concatenate": (lambda: Concatenate(), ((3, 2, 4), (3, 2, 1), (3, 2, 2)), (3, 2, 7)),
    "Concatenate-rows": (lambda: Concatenate(1), ((3, 2, 4), (1, 2, 4)), (4, 2, 4)),
    "Concatenate-vectors": (lambda: Concatenate(-1), ((5,), (3,)), (8,)),
    "Conv2DTranspose": (lambda: Conv2DTranspose(3, (2, 3), 2), (3, 4, 2), (6, 9, 3)),
    "Conv2DTranspose-same": (
        lambda: Conv2DTranspose(4, (3, 2), (2, 1), "same", activation="relu"),
        (3, 4, 2),
        (6, 4, 4),
    ),
    "Conv2DTranspose-every-parameter": (
        lambda: Conv2DTranspose(
            4,
            (3, 2),
            (2, 3),
            ((1, 0), (0, 2)),
            (1, 2),
            (1, 2),
            2,
            "relu",
            False,
            "he_normal",
        ),
        (3, 2, 6),
        (7, 6, 4),
    ),
    "SeparableConv2D": (lambda: SeparableConv2D(4, (3, 2)), (5, 4, 3), (3, 3, 4)),
    "SeparableConv2D-every-parameter": (
        lambda: SeparableConv2D(
            5, (2, 3), (1, 2), "same", (2, 1), 2, "relu", False, "he_normal", "lecun_normal"
        ),
        (4, 5, 3),
        (4, 3, 5),
    ),
    "UpSampling2D": (lambda: UpSampling2D(), (3, 2, 4), (6, 4, 4)),
    "UpSampling2D-bilinear": (lambda: UpSampling2D((2, 3), "bilinear"), (3, 2, 4), (6, 6, 4)),
    "Resize": (lambda: Resize(5, 3), (3, 4, 2), (5, 3, 2)),
    "Resize-nearest": (
        lambda: Resize(2, 7, "nearest", "align_corners", "ceil"),
        (3, 4, 2),
        (2, 7, 2),
    ),
    "Cropping2D": (lambda: Cropping2D(((1, 0), (0, 2))), (3, 5, 4), (2, 3, 4)),
    "Cropping2D-all-sides": (lambda: Cropping2D(1), (3, 5, 1), (1, 3, 1)),
    "DepthToSpace": (lambda: DepthToSpace(2), (3, 2, 8), (6, 4, 2)),
    "DepthToSpace-pixel-shuffle": (lambda: DepthToSpace(2, "CRD"), (3, 2, 8), (6, 4, 2)),
    "Permute": (lambda: Permute((3, 1, 2)), (3, 2, 4), (4, 3, 2)),
    "Permute-vectors": (lambda: Permute([1]), (5,), (5,)),
    "Reshape": (lambda: Reshape((4, 6)), (3, 2, 4), (4, 6)),
    "Reshape-one-side-free": (lambda: Reshape([2, -1, 3]), (3, 2, 4), (2, 4, 3)),
}


def built(name: str) -> tuple[Layer, Any]:
    make, shape, _ = LAYERS[name]
    rng = np.random.default_rng(3)
    layer = make()
    layer.build(shape, rng, np.float64)
    for array in layer.parameters.values():
        array += rng.standard_normal(array.shape) / 10  # no bias is 0
    if layer.takes_several:
        return layer, tuple(rng.standard_normal((2, *one)) for one in shape)
    return layer, rng.standard_normal((2, *shape))


def parts(layer: Layer, x: Any) -> list[Array]:
    """The arrays of one input or of several."""
    return [*x] if layer.takes_several else [x]


def test_every_layer_is_here() -> None:
    public = {name for name in Layer.registry if not name.startswith("_")}
    assert {name.split("-")[0] for name in LAYERS} == {
        name for name in public if Layer.registry[name].__module__.startswith("fastcnn.nn.")
    }


@pytest.mark.parametrize("name", LAYERS)
def test_shapes(name: str) -> None:
    layer, x = built(name)
    _, shape, output = LAYERS[name]
    assert layer.infer(shape) == layer.output_shape == output
    y, _ = layer.forward(x, False, None, None)
    assert y.shape == (2, *output)
    assert y.dtype == np.float64
    nothing: Any = input_of_call(layer, [part[:0] for part in parts(layer, x)])
    empty, _ = layer.forward(nothing, False, None, None)
    assert empty.shape == (0, *output)
    specs = layer.parameter_specs(shape)
    assert {k: v.shape for k, v in specs.items()} == {
        k: v.shape for k, v in layer.parameters.items()
    }
    numbers = sum(v.size for v in layer.parameters.values())
    assert layer.size == (LAYERS[name][0]().size if name.startswith("UpSampling") else numbers)


@pytest.mark.parametrize("engine", ["naive", None])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_slopes(name: str, engine: str | None) -> None:
    layer, x = built(name)

    def forward(rng_seed: int = 5) -> tuple[Array, Any]:
        return layer.forward(x, True, np.random.default_rng(rng_seed), "im2col")

    y, _ = forward()
    dy = np.random.default_rng(4).standard_normal(y.shape)

    def value() -> float:
        return float((forward()[0] * dy).sum())

    _, saved = layer.forward(x, True, np.random.default_rng(5), engine)
    copy_of_dy = dy.copy()
    dx, gradients = layer.backward(dy, saved, engine)
    np.testing.assert_array_equal(dy, copy_of_dy)
    assert dx is not None
    for gradient, part in zip(parts(layer, dx), parts(layer, x), strict=True):
        same(gradient, slope(value, part))
    assert gradients.keys() == layer.parameters.keys()
    for key, array in layer.parameters.items():
        same(gradients[key], slope(value, array))
    _, alone = layer.backward(dy, saved, engine, needs_dx=False)
    for key in gradients:
        np.testing.assert_array_equal(alone[key], gradients[key])


@pytest.mark.parametrize("name", LAYERS)
def test_config_goes_through_json_and_back(name: str) -> None:
    layer, x = built(name)
    text = json.dumps(to_dict(layer))
    again = layer_from_dict(json.loads(text))
    assert json.dumps(to_dict(again)) == text
    shapes: Any = input_of_call(again, [part.shape[1:] for part in parts(layer, x)])
    assert again.infer(shapes) == layer.output_shape
    assert repr(again) == repr(layer)


def test_mistaken_layers() -> None:
    for make, error, text in [
        (lambda: Conv2D(0, 3), ValueError, "filters must be at least 1, got 0"),
        (lambda: Conv2D(2.5, 3), TypeError, "filters must be made of integers, got 2.5"),
        (lambda: Conv2D(8, (3, 0)), ValueError, r"kernel_size must be at least 1, got \(3, 0\)"),
        (lambda: Conv2D(8, 3, 0), ValueError, "strides must be at least 1"),
        (lambda: Conv2D(8, 3, padding="full"), ValueError, "padding must be .* got 'full'"),
        (lambda: Conv2D(8, 3, dilation=-1), ValueError, "dilation must be at least 1"),
        (lambda: Conv2D(8, 3, groups=0), ValueError, "groups must be at least 1"),
        (lambda: Conv2D(8, 3, activation="tanh"), ValueError, "activation .* got 'tanh'.*Tanh"),
        (lambda: Conv2D(8, 3, use_bias=1), TypeError, "use_bias must be True or False, got 1"),
        (
            lambda: Conv2D(8, 3, kernel_initializer="he"),
            ValueError,
            "kernel_initializer must be one of .*he_normal.* got 'he'",
        ),
        (lambda: DepthwiseConv2D(3, depth_multiplier=0), ValueError, "depth_multiplier"),
        (lambda: MaxPool2D(0), ValueError, "pool_size must be at least 1, got 0"),
        (lambda: AvgPool2D(2, "2"), TypeError, "strides must be made of integers, got '2'"),
        (lambda: MinPool2D(2, padding=-1), ValueError, "padding must not be negative"),
        (lambda: Dense(-3), ValueError, "units must be at least 1, got -3"),
        (lambda: Dense(3, "softmax"), ValueError, r"Softmax\(\)"),
        (lambda: Dropout(1), ValueError, "rate must be .* below 1, got 1"),
        (lambda: BatchNorm(momentum=1.0), ValueError, "momentum must be .* below 1"),
        (lambda: BatchNorm(epsilon=-1), ValueError, "epsilon must be .* got -1"),
        (lambda: LeakyReLU(-0.1), ValueError, "slope must be .* got -0.1"),
        (lambda: LeakyReLU(1.5), ValueError, "slope must be at least 0 and at most 1"),
        (lambda: ReLU(0), ValueError, "max_value must be above 0, or None, got 0"),
        (lambda: ReLU(-6), ValueError, "max_value must be a finite number .* got -6"),
        (lambda: ReLU("6"), TypeError, "max_value must be a number, got '6'"),
        (lambda: ELU(-1), ValueError, "alpha must be a finite number of at least 0, got -1"),
        (lambda: HardSigmoid(slope=-1), ValueError, "slope must be .* got -1"),
        (lambda: HardSigmoid(offset=np.nan), ValueError, "offset must be finite, got nan"),
        (lambda: GELU("tanh"), TypeError, "approximate must be True or False, got 'tanh'"),
        (
            lambda: LayerNorm(-2),
            ValueError,
            r"axis must be -1, or a tuple .*\(-3, -2, -1\), got -2",
        ),
        (lambda: LayerNorm(1), ValueError, "axis must be -1, .* got 1"),
        (lambda: LayerNorm((-3, -1)), ValueError, r"axis must be -1, .* got \(-3, -1\)"),
        (lambda: LayerNorm(()), ValueError, r"axis must be -1, .* got \(\)"),
        (lambda: LayerNorm((-1.0,)), TypeError, r"axis must be made of integers, got \(-1.0,\)"),
        (lambda: LayerNorm("-1"), TypeError, "axis must be made of integers, got '-1'"),
        (lambda: LayerNorm(epsilon=-1), ValueError, "epsilon must be .* got -1"),
        (lambda: LayerNorm(center=0), TypeError, "center must be True or False, got 0"),
        (lambda: GroupNorm(0), ValueError, "groups must be at least 1, got 0"),
        (lambda: GroupNorm(2, scale="yes"), TypeError, "scale must be True or False"),
        (lambda: LRN(0), ValueError, "window must be at least 1, got 0"),
        (lambda: LRN(alpha=-1), ValueError, "alpha must be .* got -1"),
        (lambda: LRN(bias="2"), TypeError, "bias must be a number, got '2'"),
        (lambda: ZeroPadding2D("same"), ValueError, "padding must be an int, .* got 'same'"),
        (lambda: ZeroPadding2D(-1), ValueError, "padding must not be negative"),
        (lambda: Residual([]), ValueError, "layers must hold at least one layer"),
        (lambda: Conv2DTranspose(0, 3), ValueError, "filters must be at least 1, got 0"),
        (lambda: Conv2DTranspose(8, 3, 0), ValueError, "strides must be at least 1"),
        (lambda: Conv2DTranspose(8, 3, output_padding=-1), ValueError, "output_padding must be at"),
        (lambda: Conv2DTranspose(8, 3, activation="tanh"), ValueError, "activation .* got 'tanh'"),
        (lambda: SeparableConv2D(8, 3, depth_multiplier=0), ValueError, "depth_multiplier must be"),
        (lambda: SeparableConv2D(8, 3, padding="full"), ValueError, "padding must be .* 'full'"),
        (
            lambda: SeparableConv2D(8, 3, pointwise_initializer="he"),
            ValueError,
            "pointwise_initializer must be one of .* got 'he'",
        ),
        (lambda: UpSampling2D(0), ValueError, "size must be at least 1, got 0"),
        (lambda: UpSampling2D(2, "cubic"), ValueError, "interpolation must be one of .* 'cubic'"),
        (lambda: Resize(0, 3), ValueError, "height must be at least 1, got 0"),
        (lambda: Resize(3, 2.5), TypeError, "width must be made of integers, got 2.5"),
        (lambda: Resize(3, 3, coordinates="centre"), ValueError, "coordinates must be .* 'centre'"),
        (lambda: Resize(3, 3, rounding="even"), ValueError, "rounding must be one of .* 'even'"),
        (lambda: Cropping2D("same"), ValueError, "cropping must be an int, .* got 'same'"),
        (lambda: Cropping2D(-1), ValueError, "cropping must not be negative"),
        (lambda: DepthToSpace(0), ValueError, "block_size must be at least 1, got 0"),
        (lambda: DepthToSpace(2, "RCD"), ValueError, "order must be one of .*CRD.* got 'RCD'"),
        (lambda: Permute((0, 1)), ValueError, r"dims must hold each axis .* got \(0, 1\)"),
        (lambda: Permute("12"), TypeError, "dims must be a list of axes, got '12'"),
        (lambda: Reshape((2, -1, -1)), ValueError, r"target_shape must .* got \(2, -1, -1\)"),
        (lambda: Reshape(()), ValueError, r"target_shape must hold sides .* got \(\)"),
        (lambda: Reshape((2, 0)), ValueError, r"target_shape must hold sides .* got \(2, 0\)"),
        (lambda: Reshape(6), TypeError, "target_shape must be a list of sides, got 6"),
        (lambda: Residual([Flatten]), TypeError, "layers must be layers such as Dense"),
        (lambda: Residual(3), TypeError, "layers must be a list of layers, got 3"),
    ]:
        with pytest.raises(error, match=text):
            make()
    shared = Conv2D(3, 1)
    with pytest.raises(ValueError, match="must not hold one layer twice"):
        Residual([shared, shared])
    with pytest.raises(ValueError, match="shortcut must have layers of its own"):
        Residual([shared], [shared])


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([Conv2D(8, 3), Dense(10)], r"layer 1, Dense\(10\), got .*\(26, 27, 8\).*Flatten\(\)"),
        ([Flatten(), Conv2D(8, 3)], r"layer 1, Conv2D\(8, 3\), .*needs images \(H, W, C\), got"),
        ([MaxPool2D(9), MaxPool2D(5)], r"layer 1, MaxPool2D\(pool_size=5\), .*\(3, 3, 1\).*spans"),
        ([Conv2D(4, 3), Conv2D(4, 3, groups=3)], "layer 1, .*groups must divide .* got 3 for 4"),
        ([Flatten(), GlobalAvgPool2D()], "layer 1, GlobalAvgPool2D.*needs images"),
        ([Conv2D(4, 3), GroupNorm(3)], "layer 1, GroupNorm.*divide the channels, got 3 for 4"),
        ([Flatten(), LayerNorm((-2, -1))], "layer 1, LayerNorm.*at least 2 axes, got"),
        (
            [Residual([Conv2D(4, 3)])],
            r"layer 0, Residual.*its layers give \(26, 27, 4\), its shortcut \(28, 29, 1\)",
        ),
        ([Residual([Conv2D(4, 3), Dense(2)])], "layer 0, Residual.*Residual's layer 1, Dense"),
        ([Conv2DTranspose(4, 3, groups=2)], "layer 0, .*groups must divide .* got 2 for 1 input"),
        ([Conv2DTranspose(4, 3, output_padding=1)], r"layer 0, .*output_padding must be below"),
        ([Conv2DTranspose(4, 2, 1, 15)], "layer 0, .*padding must leave .* got 15"),
        ([Flatten(), UpSampling2D()], r"layer 1, UpSampling2D\(\), .*needs images"),
        ([Cropping2D((14, 0))], r"layer 0, .*cropping must leave .* \(28, 29, 1\)"),
        ([DepthToSpace(2)], r"layer 0, .*a multiple of block_size² = 4 channels, got \(28, 29, 1"),
        ([Permute((2, 1))], r"layer 0, .*needs samples of 2 axes, got \(28, 29, 1\)"),
        ([Reshape((9, -1))], r"layer 0, .*as many numbers as the input, 812, got \(9, -1\)"),
        ([Reshape((28, 28))], "layer 0, .*as many numbers as the input, 812"),
    ],
)
def test_wrong_stack_says_which_layer_what_it_got_and_what_it_needs(
    layers: list[Layer], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        infer_stack(layers, (28, 29, 1))


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_have_their_spread(name: str) -> None:
    layer = Conv2D(40, (5, 3), kernel_initializer=name)
    layer.build((9, 9, 20), np.random.default_rng(0))
    w = layer.parameters["w"]
    fan_in, fan_out = 5 * 3 * 20, 5 * 3 * 40
    variance = {
        "zeros": 0.0,
        "ones": 0.0,
        "glorot_uniform": 2 / (fan_in + fan_out),
        "glorot_normal": 2 / (fan_in + fan_out),
        "he_uniform": 2 / fan_in,
        "he_normal": 2 / fan_in,
        "lecun_normal": 1 / fan_in,
        "article": 1 / fan_in**2,
        "quarters": 0.0,
    }[name]
    assert w.dtype == np.float32
    assert w.var() == pytest.approx(variance, rel=0.05)
    mean = {"ones": 1.0, "quarters": 0.25}.get(name, 0.0)
    assert w.mean() == pytest.approx(mean, abs=0.05 * variance**0.5)
    if name.endswith("uniform"):
        assert np.abs(w).max() <= (3 * variance) ** 0.5


def test_article_initializer_is_the_articles() -> None:
    layer = Conv2D(8, 3, kernel_initializer="article")
    layer.build((28, 28, 1), np.random.default_rng(0))
    expected = np.random.default_rng(0).standard_normal((3, 3, 1, 8)) / 9
    np.testing.assert_array_equal(layer.parameters["w"], expected.astype(np.float32))


def test_work_of_a_residual_is_that_of_its_parts() -> None:
    layer, _ = built("Residual-shortcut")
    first, inner = Conv2D(3, 3, 2, "same"), Conv2D(3, 1)
    expected = first.flops((5, 4, 2)) + inner.flops((3, 2, 3)) + Conv2D(3, 1).flops((3, 2, 2))
    assert layer.flops((5, 4, 2)) == expected > 0


def test_work_of_layers_that_multiply() -> None:
    assert Conv2DTranspose(5, 2, 2).flops((3, 4, 6)) == 2 * 3 * 4 * 4 * 6 * 5
    assert Conv2DTranspose(6, 2, 2, groups=3).flops((3, 4, 6)) == 2 * 3 * 4 * 4 * 6 * 2
    depthwise, pointwise = DepthwiseConv2D(3, depth_multiplier=2), Conv2D(7, 1)
    expected = depthwise.flops((5, 6, 4)) + pointwise.flops((3, 4, 8))
    assert SeparableConv2D(7, 3, depth_multiplier=2).flops((5, 6, 4)) == expected
    assert UpSampling2D().flops((3, 4, 5)) == 0
    # Each side has two pixels of one source, and all others have two.
    assert UpSampling2D(2, "bilinear").flops((3, 4, 5)) == 2 * (2 + 2 * 4) * (2 + 2 * 6) * 5
    assert Resize(6, 8).flops((3, 4, 5)) == UpSampling2D(2, "bilinear").flops((3, 4, 5))


def test_upsampling_is_that_of_keras() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    y, _ = UpSampling2D((2, 3)).forward(x, False, None, None)
    np.testing.assert_array_equal(y, x.repeat(2, axis=1).repeat(3, axis=2))
    y, _ = UpSampling2D((2, 3), "bilinear").forward(x, False, None, None)
    np.testing.assert_array_equal(y, fastcnn.resize2d(x, (6, 12), "bilinear", "half_pixel"))
    # Its argument has the name of other layers' number of parameters, which the summary shows.
    layer = UpSampling2D(7)
    layer.build((3, 4, 5), np.random.default_rng(0))
    table = rows(chain([layer]), [(3, 4, 5)], ["images"])
    assert [row.parameters for row in table] == [0, 0]


def test_separable_convolution_is_a_depthwise_and_a_pointwise_one() -> None:
    layer = SeparableConv2D(4, (3, 2), 2, "same", depth_multiplier=2, activation="relu")
    layer.build((6, 5, 3), np.random.default_rng(1))
    x = np.random.default_rng(0).standard_normal((3, 6, 5, 3)).astype(np.float32)
    parts = DepthwiseConv2D((3, 2), 2, "same", depth_multiplier=2), Conv2D(4, 1, activation="relu")
    shape: tuple[int, ...] = (6, 5, 3)
    for part, name in zip(parts, ("depthwise_w", "pointwise_w"), strict=True):
        shape = part.build(shape, np.random.default_rng(2))
        part.parameters["w"] = layer.parameters[name]
    between, _ = parts[0].forward(x, False, None, None)
    expected, _ = parts[1].forward(between, False, None, None)
    np.testing.assert_array_equal(layer.forward(x, False, None, None)[0], expected)
    fans = {name: (s.fan_in, s.fan_out) for name, s in layer.parameter_specs((6, 5, 3)).items()}
    assert fans == {"depthwise_w": (6, 12), "pointwise_w": (6, 4), "b": (1, 1)}


def test_a_transposed_convolution_takes_another_back() -> None:
    shape = (7, 9, 3)
    for padding in ("valid", "same", ((1, 0), (2, 1))):
        forward = Conv2D(4, (3, 2), (2, 3), padding)  # type: ignore[arg-type]
        g = forward.geometry(shape)
        rest = [
            size + before + after - ((out - 1) * step + k)
            for size, before, after, out, step, k in (
                (7, g.pad_top, g.pad_bottom, g.oh, 2, 3), (9, g.pad_left, g.pad_right, g.ow, 3, 2)
            )
        ]  # fmt: skip
        sides = (g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right)
        back = Conv2DTranspose(3, (3, 2), (2, 3), sides, tuple(rest))
        assert back.infer(forward.infer(shape)) == shape
        assert back.geometry(forward.infer(shape)) == g
    spec = Conv2DTranspose(12, (5, 3), groups=4).parameter_specs((9, 9, 8))["w"]
    assert (spec.fan_in, spec.fan_out) == (15 * 2, 15 * 3)


def test_activation_in_a_layer_is_the_activation_after_it() -> None:
    x = np.random.default_rng(0).standard_normal((3, 6, 5, 2)).astype(np.float32)
    for within, alone in ((Conv2D(4, 3, activation="relu"), Conv2D(4, 3)),):
        within.build((6, 5, 2), np.random.default_rng(1))
        alone.build((6, 5, 2), np.random.default_rng(1))
        y, _ = within.forward(x, False, None, None)
        z, _ = alone.forward(x, False, None, None)
        np.testing.assert_array_equal(y, fastcnn.relu(z))


def test_dropout_acts_in_training_alone_and_keeps_the_mean() -> None:
    layer, x = Dropout(0.3), np.ones((100, 40, 5), np.float32)
    assert layer.forward(x, False, None, None)[0] is x
    y, _ = layer.forward(x, True, np.random.default_rng(0), None)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.01)
    again, _ = layer.forward(x, True, np.random.default_rng(0), None)
    np.testing.assert_array_equal(again, y)
    none, saved = Dropout(0).forward(x, True, np.random.default_rng(0), None)
    np.testing.assert_array_equal(none, x)
    np.testing.assert_array_equal(Dropout(0).backward(x, saved, None)[0], x)


def test_batch_norm_predicts_with_statistics_that_follow_the_batches() -> None:
    rng = np.random.default_rng(0)
    layer = BatchNorm(momentum=0.75, epsilon=0.0)
    layer.build((3, 2), rng, np.float64)
    mean, variance = np.zeros(2), np.ones(2)
    for _ in range(3):
        x = rng.standard_normal((5, 3, 2)) * [1, 4] + [7, -2]
        before = layer.state["mean"].copy()
        np.testing.assert_allclose(before, mean, rtol=1e-14)
        y, saved = layer.forward(x, True, None, None)
        np.testing.assert_array_equal(layer.state["mean"], before)  # forward changes nothing
        np.testing.assert_allclose(y.std((0, 1)), 1)
        layer.backward(y, saved, None)
        mean = 0.75 * mean + 0.25 * x.mean((0, 1))
        variance = 0.75 * variance + 0.25 * x.var((0, 1))
        np.testing.assert_allclose(layer.state["mean"], mean)
        np.testing.assert_allclose(layer.state["variance"], variance)
    x = rng.standard_normal((5, 3, 2))
    y, _ = layer.forward(x, False, None, None)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance))


def test_very_many_layers_are_checked_in_no_time() -> None:
    # Each against all before it: 10,000 would take seconds.
    with computing(seconds=1):
        assert len(checked_layers("layers", (Flatten() for _ in range(MOST_LAYERS)))) == MOST_LAYERS


def test_defaults_are_those_of_the_documentation() -> None:
    assert BatchNorm().config() == {"momentum": 0.9, "epsilon": 1e-3}
    norm = {"epsilon": 1e-3, "center": True, "scale": True}
    assert LayerNorm().config() == {"axis": -1, **norm}
    assert GroupNorm().config() == {"groups": 32, **norm}
    assert LRN().config() == {"window": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    assert Conv2D(1, 1).config() == {
        "filters": 1, "kernel_size": 1, "strides": 1, "padding": "valid", "dilation": 1,
        "groups": 1, "activation": None, "use_bias": True,
        "kernel_initializer": "glorot_uniform", "algorithm": "auto",
    }  # fmt: skip


def test_a_silu_is_a_swish() -> None:
    assert SiLU is Swish
    assert repr(SiLU()) == "Swish()"


def test_a_relu_without_a_maximum_shows_none() -> None:
    assert (repr(ReLU()), repr(ReLU(6))) == ("ReLU()", "ReLU(max_value=6.0)")
    assert repr(ReLU.from_config({})) == "ReLU()"  # from a file that was written without it


def test_groups_count_their_own_channels_as_fans() -> None:
    spec = Conv2D(12, (5, 3), groups=4).parameter_specs((9, 9, 8))["w"]
    assert (spec.fan_in, spec.fan_out) == (15 * 2, 15 * 3)
    spec = DepthwiseConv2D((5, 3), depth_multiplier=2).parameter_specs((9, 9, 8))["w"]
    assert (spec.fan_in, spec.fan_out) == (15, 15 * 2)
