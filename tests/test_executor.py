"""The executor of whole nets against single operations, and both against the specification."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Sequential
from fastcnn.core.arguments import Array
from fastcnn.engine import policy
from fastcnn.engine.numba import relu
from fastcnn.engine.numba.contraction import column_sums
from fastcnn.engine.numba.conv import winograd
from fastcnn.engine.numba.runtime import arrays, memory, program, rehearsal
from fastcnn.engine.numba.runtime.program import SHARED, Operand
from fastcnn.engine.numba.runtime.threads import SMALL
from fastcnn.engine.registry import replaced
from fastcnn.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    LeakyReLU,
    MaxPool2D,
    MinPool2D,
    ReLU,
    Residual,
    Sigmoid,
    Softmax,
    Tanh,
    ZeroPadding2D,
)
from fastcnn.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError
from fastcnn.models.execution import Executor, compiled, lowering, programs, slices
from fastcnn.models.execution.compiled import CompiledSegment
from fastcnn.nets import article, lenet5
from fastcnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from fastcnn.schedules import Cosine, Step

pytestmark = pytest.mark.skipif(not program.compiles(), reason="programs are of compiled code")

Net = tuple[list[Layer], tuple[int, ...]]

NETS: dict[str, Callable[[], Net]] = {
    "article": lambda: (article(), (15, 12, 1)),
    "lenet5": lambda: (lenet5(7), (17, 15, 2)),
    "groups": lambda: (
        [
            Conv2D(33, (2, 3), padding=((0, 2), (3, 1)), activation="relu"),
            BatchNorm(),
            Conv2D(6, (3, 2), groups=3, dilation=(2, 1)),  # more input than output channels
            ReLU(),
            Flatten(),
            Dense(3, use_bias=False),
        ],
        (9, 7, 3),
    ),
    "depthwise": lambda: (
        [
            DepthwiseConv2D((3, 2), padding="same", activation="relu"),
            MinPool2D((2, 3), strides=(1, 2), padding="same"),
            DepthwiseConv2D(2, strides=(3, 2), depth_multiplier=2, use_bias=False),
            AvgPool2D((2, 1), strides=1, padding=((1, 0), (0, 0))),
            GlobalMaxPool2D(),
            Dense(4),
        ],
        (10, 9, 17),
    ),
    "strides": lambda: (
        [
            ReLU(),
            Conv2D(9, (2, 1), strides=(3, 2), use_bias=False),
            Conv2D(5, (1, 2), strides=(2, 3), padding=(0, 2)),  # untouched pixels between
            Conv2D(8, 1, strides=2, activation="relu"),
            GlobalAvgPool2D(),
            Flatten(),
            Dense(5),
            ReLU(),
        ],
        (17, 13, 2),
    ),
    "alone": lambda: (
        [
            Tanh(),
            ZeroPadding2D(((1, 0), (0, 2))),
            MaxPool2D((3, 2), strides=(2, 1), padding=1),
            Conv2D(4, 3, padding="same"),
            BatchNorm(),
            LeakyReLU(0.1),
            Dropout(0.3),
            Residual(
                [Conv2D(6, (1, 3), strides=2, padding="same"), Dropout(0.2)],
                [AvgPool2D(2, padding="same"), Conv2D(6, 1)],
                activation="relu",
            ),
            Flatten(),
            Dense(6),
            Softmax(),
            Dense(3),
        ],
        (8, 6, 3),
    ),
    # A maximum is not that of a ReLU that is done with the convolution or dense layer before it.
    "with maxima": lambda: (
        [
            Conv2D(40, (3, 3), padding="same"),  # stands alone, with what is done with it
            ReLU(max_value=0.4),
            MaxPool2D(),
            DepthwiseConv2D(3, padding="same"),
            ReLU(),
            ReLU(max_value=0.3),
            MaxPool2D(),
            Flatten(),
            Dense(9),
            ReLU(max_value=0.2),
            Dense(4),
        ],
        (15, 12, 50),
    ),
    "never together": lambda: ([Flatten(), Tanh(), Flatten(), Sigmoid()], (4, 3, 2)),
    "nothing to train": lambda: ([MaxPool2D((2, 3)), Flatten()], (5, 6, 2)),
    "flatten only": lambda: ([Flatten()], (3, 2, 1)),
    "vectors": lambda: ([Flatten(), Dense(19, activation="relu"), Dense(2)], (11,)),
    # The first convolution is pooled at once, in float32; else one comes after the other.
    "alone and pooled": lambda: (
        [
            Conv2D(40, 3, padding="same", activation="relu"),
            MaxPool2D(),  # of 15 rows the last is in no window
            Conv2D(200, 3, padding="same", use_bias=False),
            ReLU(),
            MaxPool2D(),
            Flatten(),
            Dense(3),
        ],
        (15, 12, 50),
    ),
    # What comes back to the convolution is masked while it is small: pooled, in windows that share.
    "heavy and pooled": lambda: (
        [
            Conv2D(40, (5, 4), strides=(1, 2), padding="same", activation="relu"),
            MaxPool2D((3, 2), strides=(2, 1), padding=1),
            Flatten(),
            Dense(53, activation="relu"),
            Dense(3),
        ],
        (11, 15, 50),
    ),
    "heavy": lambda: (
        [
            Conv2D(40, (5, 4), strides=(1, 2), padding="same"),
            ReLU(),
            Flatten(),
            Dense(160),
            ReLU(),
            Dense(3),
        ],
        (11, 15, 50),
    ),
}
LARGE = "heavy"
ROUNDED = {"groups", "alone"}
"""Nets with a batch normalisation, which predictions round otherwise than the operation does."""
BATCHES = (1, 2, 3, 7, 8, 9, 31, 33)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = fastcnn.get_num_threads()
    yield
    fastcnn.set_num_threads(before)


@pytest.fixture(autouse=True)
def memory_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels get memory without what an earlier run has left there, which may be right."""

    def allocate(shape: tuple[int, ...], dtype: Any) -> Array:
        array = memory.empty(shape, dtype)
        if not rehearsal.rehearsing():
            array.reshape(-1).view(np.uint8)[...] = 255  # NaN in all floats
        return array

    monkeypatch.setattr(arrays, "allocate", allocate)


@pytest.fixture
def no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor must not hand a batch back to single operations, which would hide its faults."""
    for name in ("forward", "gradients", "step"):
        whole = getattr(Executor, name)

        def served(executor: Any, *arguments: Any, whole: Any = whole, name: str = name) -> Any:
            result = whole(executor, *arguments)
            only_moves = executor._only_segment is None and executor._prediction is None
            assert result is not None or (name == "forward" and only_moves)
            return result

        monkeypatch.setattr(Executor, name, served)


def model_of(name: str, dtype: Any = "float32", engine: str | None = None) -> Sequential:
    """A net with biases, scales and running statistics that are nowhere 0 or 1."""
    layers, shape = NETS[name]()
    model = Sequential(layers, shape, seed=0, dtype=dtype, engine=engine)
    rng = np.random.default_rng(1)
    moved = [w + (w.ndim == 1) * rng.uniform(0.01, 0.2, w.shape) for w in model.get_weights()]
    model.set_weights(moved)
    return model


def data_of(name: str, count: int, kind: str = "float32") -> tuple[Array, Array]:
    rng = np.random.default_rng(count)
    _, shape = NETS[name]()
    if kind == "uint8":
        x = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
    else:
        x = rng.standard_normal((count, *shape)).astype(kind)
    return x, rng.integers(0, 2, count)


def served_by_the_executor(model: Sequential) -> Executor:
    result = model._executor(model._trunk(model._loss()))
    assert result is not None
    return result


def gradients(
    model: Sequential, x: Array, y: Array, loss: Loss | None = None
) -> tuple[float, float, list[tuple[str, Array]]]:
    """Loss, samples that are right, and copies of all gradients and running statistics."""
    goal = CrossEntropy() if loss is None else loss
    trunk = model._trunk(goal)
    targets = goal.targets(y, len(x), model._outputs(goal), model.dtype)
    total, correct, result = model._gradients(x, targets, goal, np.random.default_rng(5))
    named = [(f"{i}.{k}", a.copy()) for i, one in enumerate(result) for k, a in one.items()]
    assert len(named) == sum(len(layer.parameters) for layer in trunk.layers)
    layers = enumerate(trunk.layers)
    state = [(f"{i}.{k}", a.copy()) for i, one in layers for k, a in one.state.items()]
    return total, correct, [*named, *state]


def agree(found: list[tuple[str, Array]], expected: list[tuple[str, Array]], share: float) -> None:
    """Each to this share of its largest number; of those that are nearly 0, of the others'."""
    largest = max([abs(b).max() for _, b in expected], default=0)
    for (name, a), (_, b) in zip(found, expected, strict=True):
        allowed = share * max(abs(b).max(), 1e-3 * largest)
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed, err_msg=name)


# --- forward ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("name", NETS)
def test_predictions_are_those_of_single_operations_to_the_bit(name: str, kind: str) -> None:
    dtype = "float64" if kind == "float64" else "float32"
    model, plain = model_of(name, dtype), model_of(name, dtype, "numba")
    share = 0 if name not in ROUNDED else 1e-14 if dtype == "float64" else 2e-6
    for count in (0, 1, 9) if name == LARGE else (0, *BATCHES):
        x, _ = data_of(name, count, kind)
        result = model._forward_batch(x)
        assert result.dtype == dtype
        for one, other in ((result, plain._forward_batch(x)), (model.predict(x), plain.predict(x))):
            allowed = share * abs(other).max(initial=0)
            np.testing.assert_allclose(one, other, rtol=0, atol=allowed)


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize("relu", ["of the convolution", "a layer", None])
@pytest.mark.parametrize(
    "pool",
    [
        MaxPool2D(), MinPool2D(), MaxPool2D(3, strides=2), MaxPool2D(2, strides=1),
        MaxPool2D(2, padding=((0, 1), (1, 0))), MaxPool2D((2, 1)), AvgPool2D(),
    ],
    ids=repr,
)  # fmt: skip
def test_convolution_and_pooling_are_one_step_where_they_can_be(pool: Layer, relu: Any) -> None:
    layers: list[Layer] = [
        Conv2D(5, (3, 2), activation="relu" if relu == "of the convolution" else None),
        *([ReLU()] if relu == "a layer" else []),
        pool,
        Flatten(),
        Dense(4),
    ]
    model = Sequential(copy.deepcopy(layers), (9, 29, 2), seed=1)
    x = np.random.default_rng(2).standard_normal((3, 9, 29, 2)).astype(np.float32)
    plain = Sequential(copy.deepcopy(layers), (9, 29, 2), seed=1, engine="numba")
    np.testing.assert_array_equal(model._forward_batch(x), plain._forward_batch(x))
    ((unit, *_),) = served_by_the_executor(model)._units
    assert isinstance(unit, CompiledSegment)
    programs = unit._programs.of_batch(3, "predict", False)
    apart = 3 + (relu == "a layer")
    assert programs.forward.numbers[0] == (2 if repr(pool) == "MaxPool2D()" else apart)
    for count in (1, 3, 9):
        x = np.random.default_rng(count).standard_normal((count, 9, 29, 2)).astype(np.float32)
        y = np.arange(count) % 4
        result, expected = gradients(model, x, y), gradients(plain, x, y)
        assert result[0] == pytest.approx(expected[0], rel=1e-6)
        assert result[1] == expected[1]
        agree(result[2], expected[2], 1e-5)


@pytest.mark.parametrize("algorithm", ["winograd", "im2col"])
def test_lone_convolutions_pool_at_once_where_they_can(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [
        Conv2D(5, 3, algorithm=algorithm),  # type: ignore[arg-type]
        ReLU(),
        MaxPool2D(),
        Conv2D(7, 3, activation="relu", algorithm=algorithm),  # type: ignore[arg-type]
        MaxPool2D(),
        Conv2D(4, 3, padding="same", algorithm=algorithm),  # type: ignore[arg-type]
        MaxPool2D(2, strides=1),
        Flatten(),
        Dense(3),
    ]
    calls = []
    for name in ("conv2d_pooled", "conv2d_pooled_with_indices"):
        whole = getattr(winograd, name)

        def spied(*given: Any, whole: Any = whole, name: str = name) -> Any:
            if not rehearsal.rehearsing():
                calls.append((name, given[3]))
            return whole(*given)

        monkeypatch.setattr(winograd, name, spied)
    engine, at_once = ("numba", True) if algorithm == "winograd" else ("im2col", False)
    model = Sequential(copy.deepcopy(layers), (20, 27, 2), seed=1)
    plain = Sequential(copy.deepcopy(layers), (20, 27, 2), seed=1, engine=engine)
    x = np.random.default_rng(2).standard_normal((3, 20, 27, 2)).astype(np.float32)
    expected = plain._forward_batch(x)
    rounding = 0 if at_once else 1e-5
    (result,) = served_by_the_executor(model).forward([x]) or [None]
    np.testing.assert_allclose(result, expected, rtol=rounding, atol=rounding)
    np.testing.assert_allclose(model.predict(x), plain.predict(x), rtol=rounding, atol=rounding)
    prediction = model.explain().split("training:")[0]
    assert prediction.count("2×2 max-pooling") == (2 if at_once else 0)
    calls.clear()
    y = np.array([0, 2, 1])
    trained, reference = gradients(model, x, y), gradients(plain, x, y)
    assert calls == [("conv2d_pooled_with_indices", "relu")] * (2 if at_once else 0)
    assert trained[0] == pytest.approx(reference[0], rel=1e-6)
    agree(trained[2], reference[2], 1e-5)


def test_only_filters_at_a_padding_must_be_finite() -> None:
    model = Sequential([Conv2D(2, 3, padding="same"), Flatten(), Dense(3)], (4, 5, 1), seed=0)
    x, result = np.ones((2, 4, 5, 1), np.float32), served_by_the_executor(model)
    model.layers[2].parameters["w"][3, 1] = np.inf
    y = result.forward([x])
    assert y is not None
    np.testing.assert_array_equal(np.isinf(y[0]), [[False, True, False]] * 2)
    model.layers[0].parameters["w"][1, 1, 0, 1] = np.inf
    assert result.forward([x]) is None


@pytest.mark.usefixtures("no_way_out")
def test_a_prediction_stays_when_others_follow() -> None:
    for classes in (3, 5000):  # copied, and new
        model = Sequential([Flatten(), Dense(classes)], (2, 2, 1), seed=0)
        x = np.random.default_rng(0).standard_normal((2, 1, 2, 2, 1)).astype(np.float32)
        first = model.predict(x[0])
        copy_of_first = first.copy()
        assert not np.array_equal(model.predict(x[1]), copy_of_first)
        np.testing.assert_array_equal(first, copy_of_first)


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize("name", NETS)
def test_batch_size_and_place_in_the_batch_change_no_bit(name: str) -> None:
    model = model_of(name)
    x, _ = data_of(name, 33)
    whole = model.predict(x)
    for size in (1, 2, 7, 16, 32):
        np.testing.assert_array_equal(model.predict(x, batch_size=size), whole)
    np.testing.assert_array_equal(model.predict(x[::-1]), whole[::-1])
    np.testing.assert_array_equal(model.predict(x[5:6]), whole[5:6])


def test_inputs_of_every_form_are_taken() -> None:
    model, plain = model_of("lenet5"), model_of("lenet5", engine="numba")
    x, _ = data_of("lenet5", 7)
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1).reshape(x.shape)
    turned = x.swapaxes(1, 2).copy().swapaxes(1, 2)
    wider = np.repeat(x, 2, axis=2)[:, :, ::2], x.astype(">f4"), x.astype(np.float64)
    forms = np.asfortranarray(x), x[::-1][::-1], shifted, turned, *wider
    for given in forms:
        given.setflags(write=False)
        np.testing.assert_array_equal(model.predict(given), plain.predict(x))
    bytes_in = data_of("lenet5", 7, "uint8")[0]
    np.testing.assert_array_equal(
        model.predict(bytes_in[:, ::-1]), plain.predict(bytes_in[:, ::-1])
    )


def test_two_threads_predict_with_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = model_of("lenet5"), model_of("lenet5", engine="numba")
    monkeypatch.setattr(programs, "_PROGRAMS", 3)
    counts = [1, 9, 2, 16, 33, 7] * 4
    x, _ = data_of("lenet5", max(counts))
    expected = plain.predict(x)
    wrong: list[object] = []

    def predict(order: list[int]) -> None:
        try:
            wrong.extend(n for n in order if not np.array_equal(model.predict(x[:n]), expected[:n]))
        except Exception as error:
            wrong.append(error)

    both = [threading.Thread(target=predict, args=(o,)) for o in (counts, counts[::-1])]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert not wrong


def test_the_programs_of_a_batch_know_nothing_of_those_of_others() -> None:
    """So threads that make some at the same moment cannot mix up where things lie in memory."""

    def bytes_for(*batches: int) -> int:
        model = Sequential([Dense(120), Dense(84), Dense(3)], (5,), seed=0)
        segment = served_by_the_executor(model)._units[0].unit
        assert isinstance(segment, CompiledSegment)
        programs = segment._programs
        return [programs.of_batch(n, "step", False).forward.scratch_bytes for n in batches][-1]

    assert bytes_for(2, 40) == bytes_for(
        40
    )  # whose filters are transposed into blocks of other widths
    assert bytes_for(40, 2) == bytes_for(2)


# --- gradients ----------------------------------------------------------------------------------

LOSSES = (CrossEntropy(), CrossEntropy(0.1), MeanSquaredError(), BinaryCrossEntropy())


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("name", [name for name in NETS if name != LARGE])
def test_gradients_are_those_of_the_specification(name: str, loss: Loss) -> None:
    reference, model = model_of(name, "float64", "naive"), model_of(name, "float64")
    outputs = reference._outputs(loss)
    for count in (1, 3, 9) if loss is LOSSES[0] else (3,):
        x, y = data_of(name, count, "float64")
        if not isinstance(loss, CrossEntropy):
            y = np.random.default_rng(2).random((count, *outputs))
        expected, result = gradients(reference, x, y, loss), gradients(model, x, y, loss)
        assert result[0] == pytest.approx(expected[0], rel=1e-12)
        assert result[1] == pytest.approx(expected[1], nan_ok=True)
        agree(result[2], expected[2], 1e-11)


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize("count", BATCHES)
@pytest.mark.parametrize("name", ["lenet5", "depthwise", "alone", "alone and pooled", LARGE])
def test_gradients_of_every_batch_size_are_those_of_single_operations(
    name: str, count: int
) -> None:
    if name == LARGE and count > 3:
        count = 3
    x, y = data_of(name, count, "uint8")
    expected = gradients(model_of(name, "float64", "numba"), x, y)
    assert expected[0] < 10 * count, "no saturated softmax: every sample counts"
    result = gradients(model_of(name, "float64"), x, y)
    assert result[:2] == pytest.approx(expected[:2], rel=1e-12)
    agree(result[2], expected[2], 1e-11)


@pytest.mark.usefixtures("no_way_out")
def test_gradients_of_small_integers_are_exact() -> None:
    """Loss and gradients to the bit: all numbers are small integers, all factors powers of two."""
    layers = [
        Conv2D(5, (3, 2), strides=(2, 1), padding=((1, 0), (0, 2)), activation="relu"),
        DepthwiseConv2D((1, 3), dilation=(1, 2)),
        MinPool2D((2, 1)),
        Flatten(),
        Dense(6, activation="relu"),
        Dense(4),
    ]
    rng = np.random.default_rng(0)
    results = []
    for engine in ("naive", None):
        model = Sequential(copy.deepcopy(layers), (9, 7, 3), engine=engine)
        rng = np.random.default_rng(0)
        model.set_weights([rng.integers(-1, 2, w.shape) for w in model.get_weights()])
        x = rng.integers(-2, 3, (16, 9, 7, 3)).astype(np.float32)
        total, _, named = gradients(model, x, rng.integers(-3, 4, (16, 4)), MeanSquaredError())
        results.append((total, named))
    assert results[0][0] == results[1][0]
    agree(results[1][1], results[0][1], 0)
    assert all(a.any() for _, a in results[0][1])


def pooled_layers(engine: str | None, relu: bool) -> list[Layer]:
    """A lone convolution and its pooling; of five rows of outputs the last is in no window."""
    algorithm: Any = "auto" if engine else "winograd"
    activation = "relu" if relu else None
    return [
        Conv2D(13, 3, padding=((0, 1), (2, 1)), activation=activation, algorithm=algorithm),
        MaxPool2D(),
        Flatten(),
        Dense(4),
    ]


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize("count", [1, 16])
@pytest.mark.parametrize("relu", [True, False])
def test_of_equal_numbers_that_are_pooled_at_once_the_first_takes_the_gradient(
    relu: bool, count: int
) -> None:
    """To the bit: all numbers are small integers, which squares of 2×2 outputs keep."""
    results = []
    for engine in ("naive", None):
        layers = pooled_layers(engine, relu)
        model = Sequential(layers, (6, 5, 3), engine=engine)
        conv: Any = model.layers[0]
        assert policy.squares(conv.geometry((6, 5, 3), count)).side == 2
        rng = np.random.default_rng(count)
        model.set_weights([rng.integers(-1, 2, w.shape) for w in model.get_weights()])
        x = rng.integers(-1, 2, (count, 6, 5, 3)).astype(np.float32)
        total, _, named = gradients(model, x, rng.integers(-3, 4, (count, 4)), MeanSquaredError())
        results.append((total, named))
    assert results[0][0] == results[1][0]
    agree(results[1][1], results[0][1], 0)
    assert all(a.any() for _, a in results[0][1])


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize("name", ["lenet5", "depthwise", "alone", "alone and pooled", LARGE])
def test_number_of_threads_changes_no_bit_of_trained_weights(name: str) -> None:
    x, y = data_of(name, 40, "uint8")
    results = []
    for count in (1, 2, 3):
        fastcnn.set_num_threads(count)
        model = model_of(name)
        served_by_the_executor(model)
        descent = SGD(0.01, momentum=0.9)
        model.fit(x, y, 1 if name == LARGE else 2, 16, descent, seed=3, verbose=0)
        results.append([w.tobytes() for w in model.get_weights()])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deep", "shallow", "pickle"],
)
def test_a_copy_runs_on_arrays_of_its_own(copied: Callable[[Sequential], Sequential]) -> None:
    x, y = data_of("lenet5", 10)
    model = model_of("lenet5")
    model.train_on_batch(x, y)  # has programs with the addresses of its arrays
    before, weights = model.predict(x), model.get_weights()
    other = copied(model)
    other.fit(x, y, 2, optimizer=SGD(0.1), seed=1, verbose=0)
    np.testing.assert_array_equal(model.predict(x), before)
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(other.predict(x), before)
    model.fit(x, y, 2, optimizer=SGD(0.1), seed=1, verbose=0)
    np.testing.assert_array_equal(model.predict(x), other.predict(x))


# --- numbers that are not finite -----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_padding_never_meets_parameters_that_are_not_finite(value: float) -> None:
    for name in ("lenet5", "depthwise", "groups", "strides"):
        model, plain = model_of(name), model_of(name, engine="numba")
        x, _ = data_of(name, 9)
        for one in (model, plain):
            one.predict(x)
            conv = next(layer for layer in one.layers if "w" in layer.parameters)
            conv.parameters["w"][0, 0] = value
        np.testing.assert_array_equal(model._forward_batch(x), plain._forward_batch(x))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_data_that_are_not_finite_give_what_single_operations_give() -> None:
    for name in ("article", "lenet5", "depthwise", "strides", "alone", "alone and pooled"):
        model, plain = model_of(name), model_of(name, engine="numba")
        x, _ = data_of(name, 9)
        x[0, 0, 0, 0], x[2, 2, 3, 0], x[3, 1, 2, 0] = np.nan, np.inf, -np.inf
        share = 2e-6 if name in ROUNDED else 0
        np.testing.assert_allclose(model._forward_batch(x), plain._forward_batch(x), share, share)


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_image_that_overflows_when_filtered_takes_its_gradient_where_others_do() -> None:
    """Direct sums are finite there, and ReLU makes 0 of them; of all else nothing is."""
    results = []
    x, y = np.random.default_rng(0).standard_normal((5, 6, 10, 3)).astype(np.float32), np.arange(5)
    x[2, 3, 4, 1] = -3e38
    for engine in ("naive", None):
        layers = pooled_layers(engine, relu=True)
        model = Sequential(layers, (6, 10, 3), seed=3, engine=engine)
        conv: Any = model.layers[0]
        assert policy.squares(conv.geometry((6, 10, 3), 5)).side == 4
        np.abs(conv.parameters["w"], out=conv.parameters["w"])
        results.append(gradients(model, x, y % 4))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-6)
    assert all(np.isfinite(a).all() for _, a in results[0][2])
    agree(results[1][2], results[0][2], 1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_padding_never_meets_gradients_that_are_not_finite() -> None:
    """The loss is finite; the gradient at the first pixel, of which padding is a neighbour, not."""
    result, moved = [], []
    for engine in ("naive", "numba", None):
        layers = [Conv2D(1, 3, padding="same", activation="relu"), Flatten(), Dense(2)]
        model = Sequential(layers, (4, 3, 1), engine=engine)
        conv, dense = model.layers[0].parameters, model.layers[2].parameters
        conv["w"][...], conv["b"][...] = 0, 1e-38
        dense["w"][...] = 0
        dense["w"][0] = 3e38, -3e38
        x, y = np.ones((1, 4, 3, 1)), np.array([1])
        result.append(gradients(model, x, y))
        model.train_on_batch(x, y)
        moved.append(model.get_weights()[0][:, :, 0, 0])
    assert np.isfinite(result[0][0])
    for one in result[1:]:
        assert one[0] == pytest.approx(result[0][0], rel=1e-6)
        agree(one[2][:1], result[0][2][:1], 0)
    w = result[0][2][0][1][:, :, 0, 0]
    assert np.isinf(w[1:, 1:]).all()
    assert not w[0].any()
    for w in moved:  # by these gradients, in one call with them or not
        np.testing.assert_array_equal(w, moved[0])
    assert not moved[0][0].any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["lenet5", "alone"])
def test_a_loss_that_overflows_leaves_everything_as_it_was(name: str) -> None:
    states = []
    for engine in (None, "numba"):
        model = model_of(name, engine=engine)
        x, y = data_of(name, 9)
        model.train_on_batch(x, y)
        *_, last = (layer for layer in model.layers if layer.parameters)
        last.parameters["w"][...] = 3e38
        last.parameters["b"][...] = 3e38
        before = model.get_weights()
        with pytest.raises(FloatingPointError, match="loss of a batch is"):
            model.train_on_batch(10 * abs(x), y)
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
        states.append(model.rng.bit_generator.state)
    assert states[0] == states[1], "chance is drawn once, as by single operations"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_chance_in_a_residual_block_is_drawn_once() -> None:
    states = []
    for engine in (None, "numba"):
        layers = [Residual([Dense(4), Dropout(0.5)]), Dense(4)]
        model = Sequential(layers, (4,), seed=0, engine=engine)
        model.layers[1].parameters["w"][...] = 3e38
        with pytest.raises(FloatingPointError):
            model.train_on_batch(np.full((3, 4), 50, np.float32), np.array([0, 1, 2]))
        states.append(model.rng.bit_generator.state)
    assert states[0] == states[1]


@pytest.mark.parametrize("shape", [(3, 2), (1,), (0, 4)])
@pytest.mark.parametrize("writable", [True, False])
def test_address_is_that_of_the_first_element(shape: tuple[int, ...], writable: bool) -> None:
    array = np.zeros((5, *shape), np.float32)[2]
    array.setflags(write=writable)
    assert program.address(array) == array.ctypes.data


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "descent": SGD,
    "momentum": partial(SGD, momentum=0.9, weight_decay=0.01),
    "nesterov": partial(SGD, Step(0.1, 2), momentum=0.5, nesterov=True),
    "adam": partial(Adam, weight_decay=0.01),
    "adamw": partial(AdamW, Cosine(0.01)),
    "rmsprop": partial(RMSprop, momentum=0.5),
}


@pytest.mark.parametrize("net", ["lenet5", "article"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_step_in_the_program_is_the_one_apart(name: str, net: str) -> None:
    """To the bit; an optimizer that clips takes its steps apart."""
    x, y = data_of(net, 45)
    trained = []
    for optimizer in (OPTIMIZERS[name](), OPTIMIZERS[name](clip_value=1e30)):
        model = model_of(net)
        optimizer.expect(9)
        losses = [model.train_on_batch(x[:n], y[:n], optimizer) for n in (45, 1, 32, 45, 2)]
        other = copy.deepcopy(model)  # whose steps must not move this one's parameters
        if name == "momentum":  # from here on, another array
            optimizer.state["velocity"] = optimizer.state["velocity"].copy()
        other.train_on_batch(x, y, copy.deepcopy(optimizer))
        losses.append(model.train_on_batch(x, y, optimizer))
        assert optimizer.step_count == 6
        trained.append((losses, model.get_weights(), list(optimizer.state.values())))
        assert all(map(np.array_equal, other.get_weights(), model.get_weights()))
    (losses, *arrays), (losses_apart, *arrays_apart) = trained
    assert losses == losses_apart
    for some, some_apart in zip(arrays, arrays_apart, strict=True):
        for array, apart in zip(some, some_apart, strict=True):
            np.testing.assert_array_equal(array, apart)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize("net", ["article", "lenet5"])  # without padding, and with
def test_nothing_moves_where_the_loss_is_not_finite(net: str, n: int) -> None:
    (x, y), optimizer = data_of(net, n), SGD(0.1, momentum=0.9)
    model = model_of(net)
    model.train_on_batch(x, y, optimizer)
    before = [*model.get_weights(), optimizer.state["velocity"].copy()]
    x[-1] = np.inf
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.train_on_batch(x, y, optimizer)
    after = [*model.get_weights(), optimizer.state["velocity"]]
    assert all(map(np.array_equal, before, after))
    assert optimizer.step_count == 1


# --- who serves -----------------------------------------------------------------------------------


def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the number of slices of each program that runs."""
    seen: list[int] = []

    def spy(made: program.Program, *rest: Any) -> None:
        if not rehearsal.rehearsing():
            seen.append(int(made.numbers[program._SLICES]))
        program.run(made, *rest)

    def spy_of_steps(made: program.Training, *rest: Any) -> None:
        if not rehearsal.rehearsing():
            seen.append(int(made.program.numbers[program._SLICES]))
        program.train(made, *rest)

    monkeypatch.setattr(compiled, "run", spy)
    monkeypatch.setattr(compiled, "train", spy_of_steps)
    return seen


def test_programs_serve_where_they_are_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = runs(monkeypatch)
    model, (x, y) = model_of("lenet5"), data_of("lenet5", 20, "uint8")
    model.train_on_batch(x, y)
    assert seen == [2], "one call forward and backward, of two slices"
    model.fit(x, y, 1, 10, verbose=0)
    assert seen == [2, 2, 2]
    before = len(seen)
    model.predict(x)
    assert len(seen) == before + 1
    model.evaluate(x, y)
    assert len(seen) == before + 2
    gradients(model, x, y, CrossEntropy(0.1))
    assert len(seen) == before + 3, "one call, with smoothed labels too"
    gradients(model, x, np.eye(7, dtype=np.float32)[y], MeanSquaredError())
    assert len(seen) == before + 5, "forward and backward apart"


def test_an_engine_by_name_and_replaced_operations_turn_programs_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = runs(monkeypatch)
    model, (x, y) = model_of("lenet5"), data_of("lenet5", 5)
    with fastcnn.use_engine("im2col"):
        model.train_on_batch(x, y)
        assert model.explain() == "layer by layer: the engine 'im2col' was asked for"
    with replaced("relu", "numba", relu):
        model.predict(x)
        assert model.explain() == "layer by layer: relu is replaced"
    other = model_of("lenet5", engine="numba")
    other.train_on_batch(x, y)
    assert other.explain() == "layer by layer: the engine 'numba' was asked for"
    assert seen == []
    model.predict(x)
    assert len(seen) == 1


def test_models_say_how_they_run() -> None:
    def of_training(name: str) -> list[str]:
        return model_of(name).explain().partition("training:\n")[2].splitlines()

    assert of_training("never together") == [
        "alone: Flatten(), nothing to compile",
        "alone: Tanh(), an operation of its own over the whole batch",
        "alone: Flatten(), nothing to compile",
    ]  # the sigmoid is the loss's
    assert of_training(LARGE) == [
        "alone: Conv2D(40, (5, 4), strides=(1, 2), padding='same'), its work is worth all threads",
        "compiled together: ReLU(), Flatten()",
        "alone: Dense(160), its weights are passed over once for the batch",
        "compiled together: ReLU(), Dense(3)",
    ]
    assert of_training("groups")[1].startswith("alone: BatchNorm()")
    asked = "numba.winograd is better for it, or was asked for"
    assert of_training("alone and pooled") == [
        f"alone: Conv2D(40, 3, padding='same', activation='relu'), MaxPool2D(), {asked}",
        "alone: Conv2D(200, 3, padding='same', use_bias=False), ReLU(), MaxPool2D(), "
        "its work is worth all threads",
        "compiled together: Flatten(), Dense(3)",
    ]


@pytest.mark.usefixtures("no_way_out")
def test_a_large_dense_layer_takes_the_images_before_it_as_they_are() -> None:
    layers = [Conv2D(4, (5, 4), padding="same"), Tanh(), Flatten(), Flatten(), Dense(160), Dense(3)]
    model, plain = (
        Sequential(copy.deepcopy(layers), (11, 15, 50), seed=0, engine=engine)
        for engine in (None, "numba")
    )
    assert model.explain().splitlines()[-2:] == [
        "alone: Flatten(), Flatten(), Dense(160), its weights are passed over once for the batch",
        "compiled together: Dense(3)",
    ]
    rng = np.random.default_rng(2)
    for count in (0, 1, 9):
        x, y = rng.standard_normal((count, 11, 15, 50), np.float32), rng.integers(0, 3, count)
        np.testing.assert_array_equal(model.predict(x), plain.predict(x))
        if count:
            result, expected = gradients(model, x, y), gradients(plain, x, y)
            assert result[:2] == pytest.approx(expected[:2], rel=1e-6)
            agree(result[2], expected[2], 1e-5)


def test_programs_of_many_batch_sizes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_PROGRAMS", 5)
    model = model_of("vectors")
    for count in range(1, 14):
        model.predict(data_of("vectors", count)[0])
    ((segment, *_),) = served_by_the_executor(model)._units
    assert isinstance(segment, CompiledSegment)
    assert len(segment._programs._programs) == 3


# --- these tests can fail -------------------------------------------------------------------------


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize("fault", ["slabs", "over batch", "transposed", "bias"])
def test_planted_faults_are_seen(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault == "slabs":
        whole = column_sums.Slabs
        monkeypatch.setattr(column_sums, "Slabs", lambda count, *rest: whole(count - 1, *rest))
    elif fault == "over batch":
        monkeypatch.setattr(slices, "_whole", lambda *_: Operand(SHARED, 0))
    elif fault == "transposed":
        monkeypatch.setattr(programs, "_transposes", lambda *_: [])
    else:
        monkeypatch.setattr(lowering.Lowering, "bias_gradient", lambda *_: None)
    with pytest.raises(AssertionError):
        test_gradients_of_every_batch_size_are_those_of_single_operations("lenet5", 9)


def test_a_segment_that_only_moves_numbers_is_work_for_several_threads() -> None:
    model = Sequential([MaxPool2D()], (64, 66, 16), seed=0)
    x = np.zeros((8, 64, 66, 16), np.float32)
    model.predict(x)
    segment = model._executor(model._graph)._only_segment  # type: ignore[union-attr]
    assert segment is not None
    work = segment._programs.of_batch(8, "predict", False).forward.work
    assert work > 2 * SMALL
    assert segment._programs.of_batch(1, "predict", False).forward.work < work
