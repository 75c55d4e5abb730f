"""Every layer has steps in a prediction's program, which give the bits of its operations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pytest
from graphs import near, same_bits

import fastcnn
from fastcnn import Input, Model, layers
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.dense import chooser as dense_chooser
from fastcnn.engine.numba.dense import large
from fastcnn.engine.numba.runtime import arrays, memory, program, rehearsal
from fastcnn.layers import (
    ELU,
    GELU,
    LRN,
    Add,
    Average,
    AvgPool2D,
    BatchNorm,
    Composite,
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
    Merge,
    MinPool2D,
    Multiply,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Resize,
    SeparableConv2D,
    Shape,
    Sigmoid,
    Softmax,
    Softplus,
    Subtract,
    Swish,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
)
from fastcnn.models import layer_by_layer
from fastcnn.models.execution import prediction, turn_list
from fastcnn.models.execution.prediction import Prediction
from fastcnn.models.execution.prediction_steps import STEPS
from fastcnn.nn.layers import Tensor

pytestmark = pytest.mark.skipif(not program.compiles(), reason="programs are of compiled code")

Float = Literal["float32", "float64"]
Make = Callable[[], Layer]
"""Makes a layer of one input."""
IMAGES = 5, 6, 12


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New memory is NaN, and the number of threads is restored."""

    def allocate(shape: tuple[int, ...], dtype: Any) -> Array:
        array = memory.empty(shape, dtype)
        if not rehearsal.rehearsing():
            array.reshape(-1).view(np.uint8)[...] = 255  # NaN in all floats
        return array

    monkeypatch.setattr(arrays, "allocate", allocate)
    before = fastcnn.get_num_threads()
    yield
    fastcnn.set_num_threads(before)


def model_of(inputs: Tensor, outputs: list[Tensor], dtype: Float = "float32") -> Model:
    """A graph in which no bias, scale or statistic is 0 or 1."""
    model = Model(inputs, outputs, seed=0, dtype=dtype)
    rng = np.random.default_rng(1)
    model.set_weights(
        [w + (w.ndim == 1) * rng.uniform(0.1, 0.6, w.shape) for w in model.get_weights()]
    )
    return model


def predicting(model: Model) -> Prediction:
    return Prediction(model._graph, model._weights, model._known_shapes())


def whole(one: Prediction) -> bool:
    """Whether all layers are one program."""
    return [section.compiled for section in one.sections] == [True]


def draw(model: Model, count: int) -> Array:
    rng = np.random.default_rng(2)
    return rng.standard_normal((count, *model.inputs[0].shape)).astype(model.dtype)


def check(model: Model, monkeypatch: pytest.MonkeyPatch, share: float = 0) -> Prediction:
    """The bits of the operations, layer by layer, for any number of threads and samples.

    With a ``share``, each result lies within this share of its largest number.
    """
    x = draw(model, 5)
    expected = layer_by_layer.forward(model._graph, [x], "numba")
    one = predicting(model)
    assert whole(one), one.explain()
    if share:
        result = one.run([x])
        near(result, expected, share)
        expected = result or []
    for threads in (1, 2, 3):
        fastcnn.set_num_threads(threads)
        for count in (0, 1, 3, 5):
            same_bits(one.run([x[:count]]), [y[:count] for y in expected])
    monkeypatch.setattr(prediction, "_ARENA", 2 * one._bytes_of_sample)
    same_bits(one.run([x]), expected)  # in parts of two samples at most
    return one


# --- each class of layers -------------------------------------------------------------------------

LAYERS: dict[str, tuple[Make, Shape]] = {
    "Conv2D": (lambda: Conv2D(7, (2, 3), padding="same", activation="relu"), IMAGES),
    "DepthwiseConv2D": (lambda: DepthwiseConv2D((3, 2), 2, depth_multiplier=2), IMAGES),
    "Conv2DTranspose": (lambda: Conv2DTranspose(5, (3, 2), 2, "same"), IMAGES),
    "SeparableConv2D": (
        lambda: SeparableConv2D(7, (2, 3), 1, "same", 2, 2, activation="relu"),
        IMAGES,
    ),
    "SeparableConv2D without a bias": (lambda: SeparableConv2D(7, 3, 2, use_bias=False), IMAGES),
    "Dense": (lambda: Dense(7, activation="relu"), (13,)),
    "BatchNorm": (BatchNorm, IMAGES),
    "LayerNorm": (LayerNorm, IMAGES),
    "LayerNorm of images": (lambda: LayerNorm((-3, -2, -1), center=False), IMAGES),
    "LayerNorm of vectors": (lambda: LayerNorm(scale=False), (13,)),
    "GroupNorm": (lambda: GroupNorm(3), (31, 50, 12)),
    "GroupNorm of channels": (lambda: GroupNorm(12, center=False, scale=False), IMAGES),
    "GroupNorm of vectors": (lambda: GroupNorm(2), (14,)),
    "LRN": (LRN, IMAGES),
    "LRN with a power": (lambda: LRN(4, 0.5, 0.6, 2.0), (7,)),
    "LRN of a long window": (lambda: LRN(400, 0.5), (2, 1, 300)),
    "ReLU": (ReLU, IMAGES),
    "ReLU up to 0.5": (lambda: ReLU(0.5), IMAGES),
    "LeakyReLU": (lambda: LeakyReLU(0.2), (13,)),
    "PReLU": (PReLU, (5, 3, 3)),
    "PReLU of many channels": (PReLU, (2, 1, 300)),
    "ELU": (lambda: ELU(0.7), IMAGES),
    "GELU": (GELU, IMAGES),
    "GELU by tanh": (lambda: GELU(approximate=True), IMAGES),
    "HardSigmoid": (lambda: HardSigmoid(0.2, 0.4), IMAGES),
    "HardSwish": (HardSwish, IMAGES),
    "Sigmoid": (Sigmoid, IMAGES),
    "Softplus": (Softplus, IMAGES),
    "Swish": (Swish, IMAGES),
    "Tanh": (Tanh, IMAGES),
    "Softmax": (Softmax, IMAGES),
    "Softmax of vectors": (Softmax, (13,)),
    "MaxPool2D": (lambda: MaxPool2D((2, 3), (1, 2), "same"), IMAGES),
    "MinPool2D": (lambda: MinPool2D(2), IMAGES),
    "AvgPool2D": (lambda: AvgPool2D(3, 2, "same"), IMAGES),
    "GlobalMaxPool2D": (GlobalMaxPool2D, IMAGES),
    "GlobalAvgPool2D": (GlobalAvgPool2D, IMAGES),
    "ZeroPadding2D": (lambda: ZeroPadding2D(((1, 0), (2, 3))), IMAGES),
    "Cropping2D": (lambda: Cropping2D(((1, 2), (0, 3))), IMAGES),
    "UpSampling2D": (lambda: UpSampling2D((2, 3)), IMAGES),
    "UpSampling2D by weights": (lambda: UpSampling2D((3, 2), "bilinear"), IMAGES),
    "Resize": (lambda: Resize(7, 4), IMAGES),
    "Resize to the nearest": (lambda: Resize(3, 11, "nearest"), IMAGES),
    "Permute": (lambda: Permute((3, 1, 2)), IMAGES),
    "Permute of runs": (lambda: Permute((2, 1, 3)), IMAGES),
    "DepthToSpace": (lambda: DepthToSpace(2), IMAGES),
    "DepthToSpace by channels": (lambda: DepthToSpace(2, "CRD"), IMAGES),
    "Flatten": (Flatten, IMAGES),
    "Reshape": (lambda: Reshape((12, -1)), IMAGES),
    "Dropout": (lambda: Dropout(0.5), IMAGES),
    "Residual": (
        lambda: Residual([SeparableConv2D(12, 3, padding="same"), LayerNorm()], activation="relu"),
        IMAGES,
    ),
}

MERGING: dict[str, Callable[[], Merge]] = {
    "Add": Add,
    "Average": Average,
    "Maximum": Maximum,
    "Multiply": Multiply,
    "Subtract": Subtract,
    "Concatenate": Concatenate,
}
NO_LAYERS = {Layer, Merge, Composite}
"""Bases of classes, which compute nothing."""


def test_every_class_of_layers_is_tested_here() -> None:
    classes = {one for one in map(vars(layers).get, layers.__all__) if inspect.isclass(one)}
    built_in = {one for one in classes if issubclass(one, Layer)} - NO_LAYERS
    tested = {type(make()) for make, _ in LAYERS.values()} | {*map(type, map(_made, MERGING))}
    assert tested == built_in
    same = {Flatten, Dropout, Reshape}  # these move nothing, and have no steps
    expanded = {SeparableConv2D, Residual}  # these become other layers
    assert {*STEPS} == built_in - same - expanded


def _made(name: str) -> Merge:
    return MERGING[name]()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_steps_of_its_operations_kernels(
    name: str, dtype: Float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a value that nothing else takes, over which it may write, and on one of two users."""
    make, shape = LAYERS[name]
    layer, inputs = make(), Input(shape)
    values = Tanh()(inputs)
    outputs = [layer(ReLU()(inputs)), Tanh()(layer(values)), LeakyReLU()(values)]
    # A BatchNorm alone is scaled by numbers that are made once, and rounds them once more.
    share = 8 * np.finfo(dtype).eps if name == "BatchNorm" else 0
    check(model_of(inputs, outputs, dtype), monkeypatch, share)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MERGING)
def test_merging_layers_are_steps_of_their_operations_kernels(
    name: str, dtype: Float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the first input, over the second, over none; with two inputs and with three."""
    merging, inputs = MERGING[name](), Input((3, 4, 5))
    a, b, c = Tanh()(inputs), Swish()(inputs), ELU()(inputs)
    outputs = [
        merging([Tanh()(inputs), b]),
        merging([b, Tanh()(inputs)]),
        merging([Sigmoid()(inputs), Tanh()(inputs), b]),
        merging([a, b]),
        merging([a, a]),
        merging([b, a, c]),
        a,
    ]
    if name != "Concatenate":
        outputs += [Tanh()(merging([b, Tanh()(inputs)])), ReLU()(merging([a, c]))]
    check(model_of(inputs, outputs, dtype), monkeypatch)


@pytest.mark.parametrize("op", [Add, Average, Subtract, Maximum, Multiply])
def test_gates_are_repeated_over_the_pixels(
    op: type[Merge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate from either side, in place of the images and apart from them, and two gates."""
    inputs = Input((4, 5, 18))
    gate = Reshape((1, 1, 18))(Sigmoid()(GlobalAvgPool2D()(inputs)))
    rows = Sigmoid()(AvgPool2D((1, 5))(inputs))
    shared = Tanh()(inputs)
    outputs = [
        op()([Tanh()(inputs), gate]),
        op()([gate, Tanh()(inputs)]),
        op()([shared, gate]),
        op()([gate, rows, shared]),
        op()([Tanh()(inputs), rows, gate]),
        op()([rows, Sigmoid()(gate)]),
    ]
    one = check(model_of(inputs, outputs), monkeypatch)
    assert one.explain().count("over its input") >= 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filters_of_one_pixel_scale_channels(dtype: Float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of their input and apart from it, with and without a bias and a ReLU."""
    inputs = Input((3, 4, 21))
    shared = Tanh()(inputs)
    scaled = [
        DepthwiseConv2D(1)(inputs),
        DepthwiseConv2D(1, use_bias=False)(Swish()(inputs)),
        ReLU()(DepthwiseConv2D(1)(shared)),
        DepthwiseConv2D(1, activation="relu")(Reshape((4, 3, 21))(Tanh()(inputs))),
        Concatenate()([DepthwiseConv2D(1)(ELU()(inputs)), shared]),
        MaxPool2D(2)(DepthwiseConv2D(1)(Tanh()(inputs))),
    ]
    others = [
        ReLU(6.0)(DepthwiseConv2D(1)(Tanh()(inputs))),
        DepthwiseConv2D(1, depth_multiplier=2)(shared),
        DepthwiseConv2D(1, strides=2)(shared),
        DepthwiseConv2D(1, padding=1)(shared),
    ]
    one = check(model_of(inputs, [*scaled, *others], dtype), monkeypatch)
    assert one.explain().count("a factor and a bias for each channel") == len(scaled)
    assert one.explain().count("over its input") == 4


def test_steps_write_into_their_rooms_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the rooms of an arena lie gaps, which stay as they were."""
    gap, gaps, arenas = 1 << 14, list[int](), list[Array]()
    allocate = arrays.allocate

    def apart(rooms: list[Any]) -> tuple[list[int], int]:
        places = [sum(room.size + gap for room in rooms[:i]) for i in range(len(rooms))]
        if rooms:
            gaps[:] = [place + room.size for place, room in zip(places, rooms, strict=True)]
        return places, sum(room.size + gap for room in rooms)

    def recorded(shape: tuple[int, ...], dtype: Any) -> Array:
        array = allocate(shape, dtype)
        if array.dtype == np.uint8:
            arenas.append(array)
        return array

    monkeypatch.setattr(turn_list, "place_rooms", apart)
    monkeypatch.setattr(arrays, "allocate", recorded)
    inputs = Input((4, 5, 18))
    gate = Reshape((1, 1, 18))(Sigmoid()(GlobalAvgPool2D()(inputs)))
    rows = Sigmoid()(AvgPool2D((1, 5))(inputs))
    model = model_of(inputs, [Multiply()([gate, rows, Tanh()(inputs)])])
    x = draw(model, 3)
    same_bits(predicting(model).run([x]), layer_by_layer.forward(model._graph, [x], "numba"))
    (arena,) = (array for array in arenas if array.size == gaps[-1] + gap)
    assert len(gaps) >= 4
    assert all((arena[first : first + gap] == 255).all() for first in gaps)


def test_a_large_dense_layer_runs_in_parts_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CACHE_BYTES": 0, "ROWS": 8, "_SCRATCH": 1}.items():
        monkeypatch.setattr(large, name, value)
    inputs = Input((11,))
    model = model_of(inputs, [Dense(130, activation="relu")(inputs)])
    for choices in (large.plans_of, dense_chooser.forward_decision):
        choices.cache_clear()
    x = draw(model, 2 * large.plans_of(40, 11, 130, 4).product.samples + 1)
    one = predicting(model)
    same_bits(one.run([x]), layer_by_layer.forward(model._graph, [x], "numba"))
    (program,) = one._programs.values()
    assert program.turns.works.size == 6, "three parts, each of products and their sums"


def test_outputs_and_inputs_are_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum with an input that nothing else takes lies over its other side."""
    inputs, other = Input((3, 4, 5)), Input((3, 4, 5))
    shown = Swish()(inputs)
    model = model_of(inputs, [shown, Tanh()(shown)])
    assert "over its input" not in check(model, monkeypatch).explain()
    both = Model([inputs, other], Add()([inputs, ELU()(other)]))
    x = [draw(model, 3), -draw(model, 3)]
    before, one = [array.copy() for array in x], predicting(both)
    assert one.explain().count("over its input") == 1
    same_bits(one.run(x), layer_by_layer.forward(both._graph, x, "numba"))
    same_bits(x, before)


# --- concatenations -------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [1, 2, 3, -2])
def test_concatenations_go_along_any_axis(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two inputs, and of more than a kernel copies at once."""
    inputs = Input((3, 4, 5))
    a, b = Tanh()(inputs), Conv2D(5, 2, padding="same")(inputs)
    outputs = [Concatenate(axis)([a, b]), Tanh()(Concatenate(axis)([b, a, a, b, a, b]))]
    parts = [Conv2D(5, 2, padding="same")(a), MaxPool2D(2, 1, "same")(b)]
    one = check(model_of(inputs, [*outputs, Concatenate(axis)(parts)]), monkeypatch)
    assert one.explain().count("where the concatenation needs it") == 2 * (axis == 3)


PARTS: dict[str, Make] = {
    "a convolution": lambda: Conv2D(7, 3, padding="same", activation="relu"),
    "a transposed convolution": lambda: Conv2DTranspose(6, (3, 2), 1, "same", activation="relu"),
    "one of groups": lambda: Conv2DTranspose(4, 3, 1, "same", groups=2),
    "enlarged images": lambda: UpSampling2D(1, "bilinear"),
    "the nearest pixels": lambda: Resize(5, 6, "nearest", "asymmetric"),
    "a maximum": lambda: MaxPool2D(3, 1, "same"),
    "a maximum of 2×2": lambda: MaxPool2D(2, 1, "same"),
    "a minimum": lambda: MinPool2D((1, 3), 1, "same"),
    "a mean": lambda: AvgPool2D(3, 1, "same"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_concatenation_are_written_where_it_needs_them(
    name: str, dtype: Float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where poolings before it take the part, and where the result is overwritten."""
    inputs = Input(IMAGES)
    x = Tanh()(inputs)
    part, other_part = PARTS[name]()(x), PARTS[name]()(x)
    pooled = [
        MaxPool2D(2)(other_part),
        AvgPool2D((2, 3))(other_part),
        GlobalMaxPool2D()(other_part),
    ]
    joined = LeakyReLU()(Concatenate()([x, part, Swish()(x), other_part]))
    model = model_of(inputs, [joined, *pooled], dtype)
    one = check(model, monkeypatch)
    assert one.explain().count("where the concatenation needs it") == 2, one.explain()


def test_parts_that_others_take_too_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a pooling after the concatenation, whose result may be overwritten; and by any other."""
    inputs = Input(IMAGES)
    x = Conv2D(4, 3, padding="same")(inputs)

    def part() -> Tensor:
        return Conv2D(4, 3, padding="same")(x)

    late, elsewhere, twice, shown = part(), part(), part(), part()
    joined = LeakyReLU()(Concatenate()([late, elsewhere, twice, twice, shown]))
    outputs = [joined, MaxPool2D(2)(late), Tanh()(elsewhere), shown]
    one = check(model_of(inputs, outputs), monkeypatch)
    assert "where the concatenation needs it" not in one.explain()


def test_a_u_net_copies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = Input((8, 12, 2))
    top = Conv2D(6, (2, 3), padding="same", activation="relu")(inputs)
    low = Conv2D(8, (2, 3), padding="same", activation="relu")(MaxPool2D()(top))
    lowest = Conv2D(9, (2, 3), padding="same")(MaxPool2D()(low))
    low = Concatenate()([low, Conv2DTranspose(8, 2, 2)(ReLU()(lowest))])
    top = Concatenate()([UpSampling2D()(low), top])
    one = check(model_of(inputs, [Conv2D(2, 1)(top)]), monkeypatch)
    assert "copied_runs" not in one.explain()
