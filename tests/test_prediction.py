"""Predictions by one program: which layers are fused, which must not be, and the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from threading import Thread
from typing import Any, Literal

import numpy as np
import pytest
from graphs import near, on_engine, same_bits

import fastcnn
from fastcnn import Input, Model, Sequential
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime import arrays, memory, program, rehearsal
from fastcnn.layers import (
    ELU,
    GELU,
    Add,
    AvgPool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    Maximum,
    MaxPool2D,
    Multiply,
    ReLU,
    Residual,
    Softmax,
    Tanh,
)
from fastcnn.models.execution.fusion import Fused
from fastcnn.models.execution.prediction import Prediction
from fastcnn.models.execution.prepared import Prepared
from fastcnn.nn.layers import Tensor, all_layers

pytestmark = pytest.mark.skipif(not program.compiles(), reason="programs are of compiled code")

SHARE = {"float32": 2e-5, "float64": 1e-12}
Float = Literal["float32", "float64"]
Form = Callable[[Tensor], Tensor | list[Tensor]]
"""From an input to the outputs of a graph."""


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


def model_of(form: Form, shape: tuple[int, ...], dtype: Float = "float32") -> Model:
    """A graph that predicts raw outputs; no bias, scale or statistic is 0 or 1."""
    inputs = Input(shape)
    model = Model(inputs, form(inputs), seed=0, dtype=dtype)
    rng = np.random.default_rng(1)
    model.set_weights(
        [w + (w.ndim == 1) * rng.uniform(0.1, 0.6, w.shape) for w in model.get_weights()]
    )
    model.loss = "mse"  # type: ignore[assignment]
    return model


def prediction_of(model: Model) -> Prediction:
    executor = model._executor(model._trunk(model._predicting()))
    assert executor is not None
    assert executor._prediction is not None, "the net is no segment"
    return executor._prediction


def fused_in(model: Model) -> list[str]:
    """The layers that are computed together, by their classes, in the order in which they run."""
    return [
        "+".join(type(layer).__name__ for layer in one.members)
        for section in prediction_of(model).sections
        for one in section.layers
    ]


def draw(model: Model, count: int, seed: int = 2) -> Array:
    shape = (count, *model.inputs[0].shape)
    return np.random.default_rng(seed).standard_normal(shape).astype(model.dtype)


def check(model: Model, x: Array | None = None) -> None:
    """The specification's predictions, of some batch sizes; to the bit the same in each of them."""
    x = draw(model, 7) if x is None else x
    whole = model.predict(x)
    near(whole, on_engine(model, "naive").predict(x), SHARE[model.dtype.name])
    for threads in (1, 3):
        fastcnn.set_num_threads(threads)
        same_bits(model.predict(x), whole)
        same_bits(model.predict(x, batch_size=3), whole)
    last = [a[-1:] for a in whole] if isinstance(whole, list) else whole[-1:]
    same_bits(model.predict(x[-1:]), last)


def conv(**more: Any) -> Conv2D:
    return Conv2D(6, (3, 2), padding="same", **more)


def winograd(filters: int = 6, **more: Any) -> Conv2D:
    return Conv2D(filters, 3, padding="same", algorithm="winograd", **more)


def with_tanh(form: Form) -> Form:
    """A layer before, so that the value of the input is one of the graph, and one without steps."""
    return lambda x: form(Tanh()(x))


# --- what is fused --------------------------------------------------------------------------------

CONVOLUTIONS: dict[str, Callable[..., Layer]] = {
    "direct": conv,
    "winograd": winograd,
    "depthwise": lambda **more: DepthwiseConv2D((3, 2), padding="same", **more),
}

FUSED: dict[str, tuple[Callable[[Layer], Form], str]] = {
    "a normalisation": (lambda c: lambda x: BatchNorm()(c(x)), "BatchNorm"),
    "a ReLU": (lambda c: lambda x: ReLU()(c(x)), "ReLU"),
    "an addition": (lambda c: lambda x: Add()([c(x), x]), "Add"),
    "an addition from the left": (lambda c: lambda x: Add()([x, c(x)]), "Add"),
    "normalisation and ReLU": (lambda c: lambda x: ReLU()(BatchNorm()(c(x))), "BatchNorm+ReLU"),
    "normalisation and addition": (
        lambda c: lambda x: Add()([x, BatchNorm()(c(x))]),
        "BatchNorm+Add",
    ),
    "all of it": (
        lambda c: lambda x: ReLU()(Add()([BatchNorm()(c(x)), x])),
        "BatchNorm+Add+ReLU",
    ),
    "a block": (
        lambda c: lambda x: Residual([c, BatchNorm(), Dropout(0.5)], activation="relu")(x),
        "BatchNorm+Add+ReLU",
    ),
}


KINDS: list[tuple[Float, str]] = [("float32", kind) for kind in CONVOLUTIONS]
KINDS += [("float64", kind) for kind in CONVOLUTIONS if kind != "winograd"]  # float32 alone


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize(("dtype", "kind"), KINDS)
def test_a_convolution_takes_what_follows_into_its_epilogue(
    dtype: Float, kind: str, name: str
) -> None:
    form, members = FUSED[name]
    convolution = CONVOLUTIONS[kind]()
    model = model_of(lambda x: form(convolution)(Conv2D(6, 1)(Tanh()(x))), (5, 9, 3), dtype)
    assert fused_in(model) == ["Tanh", "Conv2D", f"{type(convolution).__name__}+{members}"]
    check(model)


@pytest.mark.parametrize("kind", ["direct", "winograd"])
def test_a_convolution_pools_2x2_after_its_relu(kind: str) -> None:
    """Rows and columns that no window takes are left out; the direct kernel is float32 alone."""
    convolution = CONVOLUTIONS[kind]()
    model = model_of(lambda x: Flatten()(MaxPool2D()(ReLU()(convolution(Tanh()(x))))), (7, 33, 3))
    assert fused_in(model) == ["Tanh", "Conv2D+ReLU+MaxPool2D"]
    check(model)
    if kind == "winograd":  # which pools after a normalisation too
        model = model_of(
            lambda x: MaxPool2D()(ReLU()(BatchNorm()(winograd()(Tanh()(x))))), (7, 9, 3)
        )
        assert fused_in(model) == ["Tanh", "Conv2D+BatchNorm+ReLU+MaxPool2D"]
        check(model)


@pytest.mark.parametrize(("dtype", "kind"), KINDS)
def test_a_hard_swish_is_the_last_part_of_an_epilogue(dtype: Float, kind: str) -> None:
    """Winograd's kernel does not have it, and what follows on it stays apart."""
    convolution = CONVOLUTIONS[kind]()
    name = type(convolution).__name__
    model = model_of(
        lambda x: MaxPool2D()(ReLU()(HardSwish()(Add()([BatchNorm()(convolution(x)), x])))),
        (5, 9, 6), dtype,
    )  # fmt: skip
    parts = [f"{name}+BatchNorm+Add", "HardSwish"]
    fused = fused_in(model)
    assert fused[:-2] == (parts if kind == "winograd" else ["+".join(parts)])
    assert fused[-2:] == ["ReLU", "MaxPool2D"]
    check(model, 3 * draw(model, 7))  # both ends of the curve
    assert ("addition, HardSwish" in model.explain()) == (kind != "winograd")


def test_a_normalisation_and_an_addition_take_a_relu() -> None:
    model = model_of(lambda x: ReLU()(Add()([ReLU()(BatchNorm()(x)), Tanh()(x)])), (4, 5, 17))
    assert fused_in(model) == ["BatchNorm+ReLU", "Tanh", "Add+ReLU"]
    check(model)


def test_layers_that_do_nothing_in_prediction_disappear() -> None:
    model = model_of(
        lambda x: Dense(3)(Dropout(0.5)(Flatten()(Dropout(0.2)(Add()([conv()(x), conv()(x)]))))),
        (4, 5, 2),
    )
    assert fused_in(model) == ["Conv2D", "Conv2D+Add", "Dense"]
    check(model)


def test_parts_of_a_concatenation_are_written_where_it_needs_them() -> None:
    def form(x: Tensor) -> Tensor:
        parts = [ReLU()(BatchNorm()(conv()(x))), winograd(17)(x), MaxPool2D(3, 1, "same")(x)]
        return Concatenate()([*parts, Conv2D(5, 1, activation="relu")(x)])

    model = model_of(with_tanh(form), (5, 7, 3))
    explained = model.explain()
    assert explained.count("where the concatenation needs it") >= 3
    check(model)
    check(model_of(lambda x: Concatenate()([Dense(3)(x), x, Dense(4)(x)]), (5,)))


def test_a_part_of_a_concatenation_that_something_else_takes_lies_apart() -> None:
    def form(x: Tensor) -> list[Tensor]:
        a, b = conv()(x), conv()(x)
        outside = Cropping2D(((1, 0), (0, 1)))(b)  # a section of its own
        return [Concatenate()([a, b, conv()(x)]), a, outside]

    model = model_of(form, (4, 5, 3))
    assert model.explain().count("where the concatenation needs it") == 1
    check(model)


def test_a_sum_that_a_convolution_takes_lies_apart_from_the_concatenation_behind_it() -> None:
    def form(x: Tensor) -> Tensor:
        sums = [ReLU()(Add()([c(x), Conv2D(6, 1)(x)])) for c in (conv(), winograd())]
        return Concatenate()([*sums, Conv2D(5, 1)(x)])

    check(model_of(with_tanh(form), (4, 7, 6)))


@pytest.mark.parametrize("axis", [1, 2, -2, 3])
def test_a_concatenation_along_any_axis(axis: int) -> None:
    parts = [conv(), winograd(), Tanh()]
    check(model_of(lambda x: Tanh()(Concatenate(axis)([p(x) for p in parts])), (3, 4, 6)))


MAKERS: dict[str, Callable[[int], Layer]] = {
    "direct": lambda channels: Conv2D(channels, 1),
    "3×3": lambda channels: Conv2D(channels, 3, padding="same"),
    "depthwise": lambda channels: DepthwiseConv2D(3, padding="same"),
    "grouped": lambda channels: Conv2D(channels, 3, padding="same", groups=2),
}


FREE_LINE = "with a free cache line after each pixel"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", MAKERS)
def test_pixels_that_would_share_cache_sets_lie_apart_without_a_copy(
    kind: str, dtype: Float
) -> None:
    channels = 2048 // np.dtype(dtype).itemsize

    def form(x: Tensor) -> Tensor:
        for layer in (MAKERS[kind](channels), BatchNorm(), ReLU(), Conv2D(5, 1)):
            x = layer(x)
        return x

    model = model_of(form, (3, 5, 18 if kind == "direct" else channels), dtype)
    explained = model.explain()
    assert explained.count(FREE_LINE) == 1
    padded = kind == "grouped" or (kind == "3×3" and "direct" in explained.split(FREE_LINE)[0])
    assert explained.count("lay_out_rows") == padded  # the images of the maker itself
    check(model, draw(model, 4))


@pytest.mark.parametrize("other", ["an output", "a pooling", "a Flatten"])
def test_pixels_stay_side_by_side_for_what_else_takes_them(other: str) -> None:
    def form(x: Tensor) -> list[Tensor]:
        y = DepthwiseConv2D(3, padding="same")(x)
        if other == "a Flatten":
            return [Dense(3)(Flatten()(y))]
        return [Conv2D(5, 1)(y), y if other == "an output" else AvgPool2D((1, 2))(y)]

    model = model_of(form, (3, 5, 512))
    assert FREE_LINE not in model.explain()
    check(model, draw(model, 4))


def test_activations_take_their_parameters() -> None:
    layers = [ELU(0.3), LeakyReLU(0.2), HardSigmoid(0.3, 0.1), ReLU(0.7), GELU(), GELU(True)]
    check(model_of(lambda x: [layer(x) for layer in layers], (3, 5)))


# --- what must not be fused -----------------------------------------------------------------------

APART: dict[str, tuple[Form, list[str]]] = {
    "a value that two layers take": (
        lambda x: (lambda c: Add()([ReLU()(c), BatchNorm()(c)]))(conv()(x)),
        ["Conv2D", "ReLU", "BatchNorm", "Add"],
    ),
    "a value that one layer takes twice": (
        lambda x: (lambda c: Add()([c, c]))(conv()(x)),
        ["Conv2D", "Add"],
    ),
    "an output in the middle": (
        lambda x: (lambda c: [c, ReLU()(c)])(conv()(x)),
        ["Conv2D", "ReLU"],
    ),
    "an output behind a Flatten": (
        lambda x: (lambda c: [Flatten()(c), ReLU()(c)])(conv()(x)),
        ["Conv2D", "ReLU"],
    ),
    "a normalisation after the convolution's own ReLU": (
        lambda x: Tanh()(BatchNorm()(conv(activation="relu")(x))),
        ["Conv2D", "BatchNorm", "Tanh"],
    ),
    "a normalisation after a ReLU": (
        lambda x: Tanh()(BatchNorm()(ReLU()(conv()(x)))),
        ["Conv2D+ReLU", "BatchNorm", "Tanh"],
    ),
    "two normalisations": (
        lambda x: Tanh()(BatchNorm()(BatchNorm()(conv()(x)))),
        ["Conv2D+BatchNorm", "BatchNorm", "Tanh"],
    ),
    "a normalisation after an addition": (
        lambda x: Tanh()(BatchNorm()(Add()([conv()(x), Conv2D(6, 1)(x)]))),
        ["Conv2D", "Conv2D+Add", "BatchNorm", "Tanh"],
    ),
    "an addition whose other side comes later": (
        lambda x: (lambda c: Add()([c, Tanh()(Conv2D(6, 1)(x))]))(conv()(x)),
        ["Conv2D", "Conv2D", "Tanh", "Add"],
    ),
    "an addition after a ReLU": (
        lambda x: Add()([conv(activation="relu")(x), Conv2D(6, 1, activation="relu")(x)]),
        ["Conv2D", "Conv2D", "Add"],
    ),
    "a second addition": (
        lambda x: Add()([Conv2D(6, 1)(x), Add()([conv()(x), Tanh()(Conv2D(6, 1)(x))])]),
        ["Conv2D", "Conv2D", "Conv2D", "Tanh", "Add", "Add"],
    ),
    "an addition of three": (
        lambda x: ReLU()(Add()([conv()(x), Conv2D(6, 1)(x), Conv2D(6, 2, padding="same")(x)])),
        ["Conv2D", "Conv2D", "Conv2D", "Add", "ReLU"],
    ),
    "an addition that repeats one side": (
        lambda x: ReLU()(Add()([Conv2D(1, 1)(x), conv()(x)])),
        ["Conv2D", "Conv2D", "Add", "ReLU"],
    ),
    "another sum": (
        lambda x: Maximum()([Conv2D(6, 1)(x), conv()(x)]),
        ["Conv2D", "Conv2D", "Maximum"],
    ),
    "a normalisation of numbers that were pixels": (
        lambda x: Dense(3)(BatchNorm()(Flatten()(conv()(x)))),
        ["Conv2D", "BatchNorm", "Dense"],
    ),
    "a ReLU of numbers that were pixels": (
        lambda x: Dense(3)(ReLU()(Flatten()(BatchNorm()(conv()(x))))),
        ["Conv2D+BatchNorm", "ReLU", "Dense"],
    ),
    "a ReLU after a normalisation and a Flatten": (
        lambda x: Dense(3)(ReLU()(Flatten()(BatchNorm()(Tanh()(x))))),
        ["Tanh", "BatchNorm", "ReLU", "Dense"],
    ),
    "an addition of numbers that were pixels": (
        lambda x: Add()([Flatten()(conv()(x)), Flatten()(Conv2D(6, 1)(x))]),
        ["Conv2D", "Conv2D", "Add"],
    ),
    "an algorithm without steps": (
        lambda x: ReLU()(Add()([BatchNorm()(conv(algorithm="im2col")(x)), Conv2D(6, 1)(x)])),
        ["Conv2D", "BatchNorm", "Conv2D+Add+ReLU"],
    ),
    "a pooling with other windows": (
        lambda x: MaxPool2D((2, 1))(winograd()(Tanh()(x))),
        ["Tanh", "Conv2D", "MaxPool2D"],
    ),
    "a pooling with padding": (
        lambda x: MaxPool2D(padding="same")(winograd()(Tanh()(x))),
        ["Tanh", "Conv2D", "MaxPool2D"],
    ),
    "a mean": (
        lambda x: AvgPool2D()(winograd()(Tanh()(x))),
        ["Tanh", "Conv2D", "AvgPool2D"],
    ),
    "a pooling after an addition": (
        lambda x: MaxPool2D()(Add()([winograd()(x), Conv2D(6, 1)(x)])),
        ["Conv2D", "Conv2D+Add", "MaxPool2D"],
    ),
    "a ReLU after a pooling": (
        lambda x: ReLU()(MaxPool2D()(winograd()(Tanh()(x)))),
        ["Tanh", "Conv2D+MaxPool2D", "ReLU"],
    ),
    "a dense layer": (
        lambda x: ReLU()(BatchNorm()(Dense(5)(Flatten()(Add()([x, Tanh()(x)]))))),
        ["Tanh", "Add", "Dense", "BatchNorm+ReLU"],
    ),
}


@pytest.mark.parametrize("name", APART)
def test_what_cannot_be_fused_stays_apart(name: str) -> None:
    form, members = APART[name]
    model = model_of(form, (5, 7, 3))
    assert sorted(fused_in(model)) == sorted(members)
    check(model)


class Rectified(Conv2D):
    """A convolution of a user's own, which does something else."""

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        y, saved = super().forward(x, training, rng, engine)
        return abs(y), saved


Layer.registry.pop("Rectified")  # other tests take every layer that is known


def test_classes_derived_from_a_convolution_run_as_they_are_written() -> None:
    model = model_of(lambda x: ReLU()(BatchNorm()(Rectified(6, 3)(x))), (5, 7, 3))
    assert fused_in(model) == ["Rectified", "BatchNorm+ReLU"]
    check(model)


class Doubled(Residual):
    """A block of a user's own, whose result is twice as large."""

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        y, saved = super().forward(x, training, rng, engine)
        return 2 * y, saved


Layer.registry.pop("Doubled")


def test_classes_derived_from_a_block_run_as_they_are_written() -> None:
    model = model_of(lambda x: Tanh()(Doubled([conv()])(x)), (4, 5, 6))
    assert fused_in(model) == ["Doubled", "Tanh"]
    check(model)


def test_workers_sleep_after_a_prediction() -> None:
    model = model_of(lambda x: Tanh()(Conv2D(32, 3)(Tanh()(x))), (28, 28, 16))
    fastcnn.set_num_threads(2)
    model.predict(draw(model, 8))
    end = time.monotonic() + 20  # on a busy machine a worker takes a while to look for more work
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(0.2)
        if time.process_time() - before < 0.02:
            return
    pytest.fail("a worker computes, and no work is left")


# --- shared layers --------------------------------------------------------------------------------


def test_a_shared_convolution_has_filters_for_each_size_of_its_images() -> None:
    """Squares of 4×4 outputs for one of them, of 2×2 for the other."""
    for sizes in (((10, 10), (6, 6)), ((6, 6), (10, 10))):
        inputs, shared = [Input((*size, 8)) for size in sizes], winograd(8)
        model = Model(inputs, [BatchNorm()(shared(x)) for x in inputs], seed=0)
        model.loss = "mse"  # type: ignore[assignment]
        rng = np.random.default_rng(0)
        x = [rng.standard_normal((3, *size, 8)).astype(np.float32) for size in sizes]
        near(model.predict(x), on_engine(model, "naive").predict(x), 1e-5)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_shared_convolution_has_scales_and_maxima_for_each_of_its_calls(kind: str) -> None:
    def form(x: Tensor) -> list[Tensor]:
        shared = CONVOLUTIONS[kind]()
        last: list[Layer] = [BatchNorm(), BatchNorm(), ReLU(0.5), ReLU(0.1)]
        return [layer(shared(x)) for layer in last]

    model = model_of(form, (5, 6, 3))
    check(model)
    assert len({array.tobytes() for array in model.predict(draw(model, 2))}) == 4


def test_packed_filters_are_as_wide_as_the_tiles_of_each_batch() -> None:
    model = model_of(with_tanh(lambda x: Conv2D(96, 1)(x)), (1, 1, 96))
    check(model)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_shared_pooling_is_fused_by_the_image_of_each_call(padding: Any) -> None:
    """An image of even sides is pooled in registers, one of odd sides has a padding."""
    even, odd, pool = Input((8, 6, 8)), Input((7, 5, 8)), MaxPool2D(padding=padding)
    for inputs in ([even, odd], [odd, even]):
        outputs = [pool(winograd()(Tanh()(x))) for x in inputs]
        model = Model(inputs, outputs, seed=0)
        model.loss = "mse"  # type: ignore[assignment]
        rng = np.random.default_rng(0)
        x = [rng.standard_normal((3, *one.shape)).astype(np.float32) for one in inputs]
        result = model.predict(x)
        near(result, on_engine(model, "naive").predict(x), 1e-5)
        pooled = [name.endswith("MaxPool2D") and "+" in name for name in fused_in(model)]
        assert sum(pooled) == (1 if padding == "same" else 2)


# --- sections, bytes, parts of a batch ------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "classes"),
    [
        (lambda x: Multiply()([Dense(4)(x), Dense(4)(x)]), 4),
        (lambda x: Add()([Dense(4)(x), Dense(4)(x)]), 4),
        (lambda x: Concatenate()([Dense(2)(x), Dense(3)(x)]), 5),
        (lambda x: Rows(4)(Dense(4)(x)), 4),
    ],
    ids=["product", "sum", "concatenation", "a layer of a user's own"],
)
def test_probabilities_are_the_softmax_of_any_last_layer(last: Form, classes: int) -> None:
    """Also where it has no steps, so that the softmax is no part of a program."""
    model = model_of(last, (6,))
    x = draw(model, 5)
    scores = model.predict(x).astype(np.float64)
    model.loss = "cross_entropy"  # type: ignore[assignment]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5)
    assert model.predict(x[:0]).shape == (0, classes)


class Rows(Layer):
    """A layer of a user's own that does nothing."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        return x, None

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return dy, {}


Layer.registry.pop("Rows")  # other tests take every layer that is known


def test_probabilities_of_pixels_that_become_classes() -> None:
    model = model_of(lambda x: Flatten()(Add()([conv()(x), Conv2D(6, 1)(x)])), (2, 3, 2))
    x = draw(model, 4)
    scores = model.predict(x).astype(np.float64)
    model.loss = "cross_entropy"  # type: ignore[assignment]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5)


def test_a_layer_without_steps_stands_between_two_programs() -> None:

    def form(x: Tensor) -> list[Tensor]:
        shared = conv()(x)
        apart = Rows(6)(shared)  # which nothing compiles
        return [Add()([apart, ReLU()(BatchNorm()(shared))]), GlobalAvgPool2D()(shared)]

    model = model_of(form, (5, 7, 3))
    compiled = [section.compiled for section in prediction_of(model).sections]
    assert compiled.count(False) == 1
    assert compiled.count(True) >= 1
    assert not any(a and b for a, b in pairwise(compiled)), "two in a row would be one section"
    check(model)


def test_bytes_are_scaled_where_they_are_read() -> None:
    """Also where several layers, compiled or not, take them."""
    model = model_of(
        lambda x: Add()([conv()(x), Multiply()([Conv2D(6, 1)(x), Softmax()(Conv2D(6, 1)(x))])]),
        (5, 7, 3),
    )
    x = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3)).astype(np.uint8)
    check(model, x)
    floats = (x / np.float32(255) - np.float32(0.5)).astype(np.float32)
    near(model.predict(x), model.predict(floats), 1e-6)
    check(model, x[:, ::-1, :, ::-1])


def test_a_large_batch_runs_in_parts_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(
        lambda x: [MaxPool2D()(winograd()(Tanh()(x))), Add()([conv()(x), winograd()(x)])], (5, 9, 3)
    )
    x = draw(model, 11)
    whole = model.predict(x)
    size = prediction_of(model)._bytes_of_sample
    for samples in (1, 2, 4):
        other = model_of(
            lambda x: [MaxPool2D()(winograd()(Tanh()(x))), Add()([conv()(x), winograd()(x)])],
            (5, 9, 3),
        )
        monkeypatch.setattr("fastcnn.models.execution.prediction._ARENA", samples * size)
        same_bits(other.predict(x), whole)


def test_an_arena_keeps_to_its_bound_where_many_values_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of_skips(x: Any) -> Any:
        skips = [x := Conv2D(4, 1)(x) for _ in range(7)]
        for skip in reversed(skips[:-1]):
            x = Add()([x, skip])
        return x

    model = model_of(of_skips, (4, 5, 3))
    monkeypatch.setattr("fastcnn.models.execution.prediction._ARENA", 100_000)
    x = draw(model, 91)
    model.predict(x)
    programs = list(prediction_of(model)._programs.values())
    assert 100_000 // 2 < max(program.arena for program in programs) <= 100_000


def test_explain_says_of_a_concatenation_written_in_place_that_it_does_nothing() -> None:
    model = model_of(lambda x: ReLU()(Concatenate()([conv()(x), MaxPool2D(3, 1, 1)(x)])), (5, 9, 3))
    lines = model.explain().splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("  Concatenate")]
    assert lines[at + 1] == "    nothing to do, because its inputs were written into its place"


def test_an_executor_keeps_the_mathematics_for_which_it_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread may set another one at any moment."""
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 64)).astype(np.float32)

    def make() -> fastcnn.Sequential:
        layers = [Conv2D(64, 3, padding="same") for _ in range(2)]
        return fastcnn.Sequential(layers, x.shape[1:], seed=0)

    def outputs(model: fastcnn.Sequential) -> list[Array]:
        y = np.ones((2, 16, 16, 64), np.float32)
        losses = model.train_on_batch(x, y, loss="mse")
        return [model.predict(x[:1]), model.predict(x), np.array(losses)]

    with fastcnn.use_math("strict"):
        strict = outputs(make())
    fast = outputs(make())
    assert not (fast[0] == strict[0]).all()
    monkeypatch.setattr("fastcnn.models.net.get_math", lambda: "strict")
    with fastcnn.use_math("fast"):
        same_bits(outputs(make()), strict)


def test_programs_of_many_batch_sizes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcnn.models.execution.prediction._PROGRAMS", 3)
    model = model_of(lambda x: Add()([Dense(3)(x), Dense(3)(x)]), (4,))
    x = draw(model, 9)
    whole = model.predict(x)
    for count in range(1, 10):
        same_bits(model.predict(x[:count]), whole[:count])
    assert len(prediction_of(model)._programs) <= 3


def test_results_are_new_arrays_that_stay() -> None:
    model = model_of(lambda x: [Flatten()(conv()(x)), Tanh()(x)], (2, 3, 2))
    x = draw(model, 3)
    first = model.predict(x)
    copies = [array.copy() for array in first]
    model.predict(draw(model, 3, seed=9))
    same_bits(first, copies)
    for array in first:
        array[...] = 0
        assert not np.shares_memory(array, x)
    same_bits(model.predict(x), copies)
    inputs = Input((2, 3, 2))
    shown = conv()(inputs)
    twice = Model(inputs, [shown, Flatten()(shown)], seed=0)
    twice.loss = "mse"  # type: ignore[assignment]
    one, other = twice.predict(x)
    assert not np.shares_memory(one, other)
    same_bits(one.reshape(3, -1), other)


# --- numbers that are not finite ------------------------------------------------------------------

STRANGE = (np.inf, -np.inf, np.nan, 3e38)


def compared(model: Model, x: Array) -> None:
    """The specification's numbers: NaN, infinities and all others where it has them."""
    for result, expected in zip(
        model.predict(x), on_engine(model, "naive").predict(x), strict=True
    ):
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)


def strange_net(kind: str) -> Model:
    convolution: Layer = {"direct": conv, "winograd": winograd, "alone": ReLU}[kind]()
    return model_of(
        lambda x: [ReLU()(Add()([BatchNorm()(convolution(Conv2D(6, 1)(x))), x])), Tanh()(x)],
        (5, 6, 6),
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [*STRANGE, -2.0])
@pytest.mark.parametrize("array", ["gamma", "beta", "mean", "variance"])
@pytest.mark.parametrize("kind", ["direct", "winograd", "alone"])
def test_statistics_that_are_not_finite_give_what_the_specification_gives(
    kind: str, array: str, value: float
) -> None:
    model = strange_net(kind)
    norm = model.get_layer("batch_norm")
    x = draw(model, 3)
    model.predict(x)
    (norm.parameters if array in norm.parameters else norm.state)[array][1] = value
    norm.state["mean"][2] = 3
    compared(model, x)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", STRANGE)
@pytest.mark.parametrize("kind", ["direct", "winograd"])
def test_filters_and_biases_that_are_not_finite_give_what_the_specification_gives(
    kind: str, value: float
) -> None:
    for name, place in (("w", (0, 0, 0, 1)), ("w", (1, 1, 2, 3)), ("b", (2,))):
        model = strange_net(kind)
        x = draw(model, 3)
        model.predict(x)
        model.layers[1].parameters[name][place] = value
        compared(model, x)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_transposed_filters_that_are_not_finite_give_what_the_specification_gives() -> None:
    for value, strides in ((np.inf, 2), (np.nan, 1)):
        enlarged = Conv2DTranspose(4, 3, strides=strides)
        model = model_of(with_tanh(enlarged), (4, 5, 3))
        x = draw(model, 2)
        model.predict(x)
        assert "Conv2DTranspose" in model.explain()
        model.layers[1].parameters["w"][0, 2, 1, 1] = value
        compared(model, x)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["direct", "winograd", "alone"])
def test_images_that_are_not_finite_give_what_the_specification_gives(kind: str) -> None:
    model = strange_net(kind)
    x = draw(model, 6)
    clean = model.predict(x)
    for i, value in enumerate(STRANGE):
        x[i, i % 5, 1, i] = value
    compared(model, x)
    same_bits(model.predict(x[4:]), [a[4:] for a in clean])
    for first in (0, 1, 2, 3):  # a single one, which is each of the batch's
        compared(model, np.concatenate([x[4:], x[first : first + 1]]))
        compared(model, np.concatenate([x[first : first + 1], x[4:]]))


def test_a_normalisation_of_numbers_far_from_0_keeps_their_digits() -> None:
    """The mean is subtracted before the scale, as the operation does it."""
    x = (1e6 + np.random.default_rng(0).standard_normal((3, 4, 5, 2))).astype(np.float32)
    inputs = Input((4, 5, 2))
    for model in (
        Model(inputs, Add()([BatchNorm()(inputs), BatchNorm()(inputs)])),
        Sequential([BatchNorm(), Flatten(), Dense(3)], (4, 5, 2), seed=0),
    ):
        model.loss = "mse"  # type: ignore[assignment]
        for layer in all_layers(model.layers):
            if isinstance(layer, BatchNorm):
                layer.state["mean"] = [1e6, 1e6]
        near(model.predict(x), on_engine(model, "naive").predict(x), 1e-6)


# --- what is made of the weights ------------------------------------------------------------------


def count_of_versions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with a number for each time that something is made of the weights."""
    calls, make_version = list[int](), Prepared._make_version

    def spy(prepared: Prepared, *arguments: Any) -> Any:
        calls.append(len(calls))
        return make_version(prepared, *arguments)

    monkeypatch.setattr(Prepared, "_make_version", spy)
    return calls


def test_filters_are_transformed_once_for_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    made = count_of_versions(monkeypatch)
    model = model_of(lambda x: Add()([winograd()(x), BatchNorm()(conv()(x))]), (5, 7, 3))
    x = draw(model, 5)
    first = model.predict(x)
    before = len(made)
    for count in (5, 1, 3, 2, 5):
        same_bits(model.predict(x[:count]), first[:count])
    assert len(made) == before
    model.layers[0].parameters["b"][0] += 1  # nobody holds the array afterwards
    for _ in range(3):
        model.predict(x)
    assert len(made) == before + 1


def test_layers_without_steps_do_not_make_filters_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run by their own methods, which read their parameters."""
    made = count_of_versions(monkeypatch)
    model = model_of(lambda x: Add()([winograd()(x), conv(algorithm="im2col")(x)]), (5, 7, 3))
    x = draw(model, 2)
    model.predict(x)
    before = len(made)
    for _ in range(3):
        model.predict(x)
    assert len(made) == before


def test_threads_that_make_programs_at_once_do_not_mix_up_what_is_made_of_weights() -> None:
    """Each thread asks for entries of several layers while the others ask for theirs."""

    def form(x: Tensor) -> list[Tensor]:
        def branch() -> Tensor:
            return BatchNorm()(winograd()(BatchNorm()(winograd()(BatchNorm()(conv()(x))))))

        return [branch() for _ in range(3)]

    expected = model_of(form, (6, 10, 6))
    x = draw(expected, 8)
    reference = expected.predict(x)
    for _ in range(5):
        model, wrong = model_of(form, (6, 10, 6)), list[object]()

        def predict(count: int, model: Model = model, wrong: list[object] = wrong) -> None:
            try:
                same_bits(model.predict(x[:count]), [array[:count] for array in reference])
            except BaseException as error:
                wrong.append(error)

        threads = [Thread(target=predict, args=(count,)) for count in (1, 2, 5, 8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert not wrong


def test_a_strict_prediction_after_a_fast_one_has_programs_of_its_own() -> None:
    model = model_of(lambda x: Tanh()(Conv2D(32, 3, padding="same")(Tanh()(x))), (28, 28, 16))
    x = draw(model, 1)
    fast = model.predict(x)
    with fastcnn.use_math("strict"):
        strict = on_engine(model, None).predict(x)
        same_bits(model.predict(x), strict)
        assert "Winograd" not in model.explain()
    same_bits(model.predict(x), fast)
    assert "Winograd" in model.explain()
    assert not np.array_equal(fast, strict)


def test_fused_layers_say_what_they_do() -> None:
    model = model_of(
        lambda x: MaxPool2D()(ReLU()(BatchNorm()(winograd()(Add()([conv()(x), Conv2D(6, 1)(x)]))))),
        (6, 8, 3),
    )
    explained = model.explain()
    assert explained.startswith("prediction:\none program of ")
    assert "in registers: addition" in explained
    assert "in registers: scale and shift, ReLU, 2×2 max-pooling" in explained
    assert "Winograd's filtering" in explained
    assert "training:" in explained
    (first, second, *_) = (
        one for section in prediction_of(model).sections for one in section.layers
    )
    assert isinstance(first, Fused)
    assert second.residual == first.output
