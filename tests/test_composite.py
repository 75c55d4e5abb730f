"""Layers that are made of other layers: as the same graph without them, in engines and files."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slopes import same, slope
from state_files import write_safetensors

import fastcnn
from fastcnn import Input, Model, Sequential
from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.exchange.weights import load_weights
from fastcnn.layers import (
    Add,
    BatchNorm,
    Composite,
    Concatenate,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    Multiply,
    ReLU,
    Reshape,
    Residual,
    Sigmoid,
    Tensor,
)
from fastcnn.losses import Loss
from fastcnn.models.execution.preparation import is_built_in
from fastcnn.optimizers import Optimizer

SHAPE = (5, 4, 2)
ENGINES = (None, "im2col", "naive")


class Gated(Composite):
    """Two convolutions side by side and a gate, whose layers ``connect`` makes."""

    def __init__(self, filters: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.filters = filters
        self.narrow = Conv2D(filters, 1, activation="relu")
        self.wide = [Conv2D(filters, (3, 2), padding="same"), BatchNorm()]

    def connect(self, x: Tensor) -> Tensor:
        y = Concatenate()([self.narrow(x), self.wide[1](self.wide[0](x))])
        gate = Sigmoid()(Dense(y.shape[-1])(GlobalAvgPool2D()(y)))
        return Multiply()([y, Reshape((1, 1, y.shape[-1]))(gate)])


class Twice(Composite):
    """A layer that is called twice, inside of a composite layer that an argument brings."""

    def __init__(self, inner: Layer, more: list[Layer], *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.inner, self.more = inner, more

    def connect(self, x: Tensor) -> Tensor:
        for layer in self.more:
            x = layer(x)
        return Add()([self.inner(self.inner(x)), x])


class Joined(Composite):
    """A layer of two inputs."""

    takes_several = True

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.halves = {"left": Dense(3), "right": Dense(3, use_bias=False)}

    def connect(self, x: list[Tensor]) -> Tensor:
        return ReLU()(Add()([self.halves["left"](x[0]), self.halves["right"](x[1])]))


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {*Layer.registry}
    yield
    for name in {*Layer.registry} - before:  # those that a test defines
        if not is_own(Layer.registry[name]):
            Layer.registry.pop(name)


def data(count: int = 9) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, *SHAPE)).astype(np.float32), np.arange(count) % 3


def composed(engine: str | None = "im2col") -> Sequential:
    layers = [Gated(3), Twice(Conv2D(6, 3, padding="same"), [Gated(3)]), Flatten(), Dense(3)]
    return Sequential(layers, SHAPE, seed=1, engine=engine)


def written_out(engine: str | None = "im2col") -> Model:
    """The same net without composite layers."""

    def gated(x: Tensor) -> Tensor:
        wide = BatchNorm()(Conv2D(3, (3, 2), padding="same")(x))
        y = Concatenate()([Conv2D(3, 1, activation="relu")(x), wide])
        return Multiply()([y, Reshape((1, 1, 6))(Sigmoid()(Dense(6)(GlobalAvgPool2D()(y))))])

    inputs = Input(SHAPE)
    x, shared = gated(gated(inputs)), Conv2D(6, 3, padding="same")
    return Model(inputs, Dense(3)(Flatten()(Add()([shared(shared(x)), x]))), engine=engine)


def as_written_out(model: Sequential) -> Model:
    """The net of :func:`written_out` with the weights of a composed one, by names of layers."""
    other = written_out(model.engine)
    ours = dict(model._arrays())
    first, second = "layers.0.", "layers.1.more.0."
    names = ["wide.0", "wide.1", "narrow", "dense"]
    layers = ["conv2d", "batch_norm", "conv2d_1", "dense", "conv2d_2", "batch_norm_1", "conv2d_3",
              "dense_1", "conv2d_4", "dense_2"]  # fmt: skip
    paths = [*(first + one for one in names), *(second + one for one in names)]
    for name, path in zip(layers, [*paths, "layers.1.inner", "layers.3"], strict=True):
        layer = other.get_layer(name)
        for arrays in (layer.parameters, layer.state):
            for key in arrays:
                arrays[key] = ours[f"{path}.{key}"]
    return other


@pytest.mark.parametrize("engine", ENGINES)
def test_the_net_is_the_graph_without_composite_layers(engine: str | None) -> None:
    x, y = data()
    model = composed(engine)
    other = as_written_out(model)
    np.testing.assert_allclose(model.predict(x), other.predict(x), rtol=1e-6)
    for one in (model, other):
        one.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.predict(x), other.predict(x), rtol=1e-5)
    means = [a for name, a in model._arrays() if name.endswith("mean")]
    assert all(np.abs(mean).max() > 0 for mean in means)  # running statistics follow


def test_the_layers_inside_run_with_their_neighbours() -> None:
    model = Sequential([Gated(3), Flatten(), Dense(3)], SHAPE, seed=1)
    model.fit(*data(), verbose=0)
    assert "Gated" not in model.explain()
    assert is_built_in(model.layers[0])  # so first calls compile ahead
    assert "Conv2D(3, (3, 2), padding='same') + BatchNorm()" in model.explain()


def test_its_own_gradients_are_slopes() -> None:
    rng = np.random.default_rng(2)
    layer = Twice(Conv2D(2, (3, 2), padding="same"), [Conv2D(2, 1)])
    layer.build(SHAPE, rng, np.float64)
    x = rng.standard_normal((3, *SHAPE))
    dy = rng.standard_normal(x.shape)
    _, saved = layer.forward(x, True, rng, "im2col")
    dx, gradients = layer.backward(dy, saved, "im2col")
    assert gradients.keys() == {"more.0.w", "more.0.b", "inner.w", "inner.b"}

    def total() -> float:
        y, _ = layer.forward(x, False, None, "im2col")
        return float((y * dy).sum())

    same(dx, slope(total, x))
    for name, gradient in gradients.items():
        same(gradient, slope(total, layer.parameters[name]))
    layer.more[0].trainable = False
    assert layer.backward(dy, saved, "im2col", needs_dx=False)[0] is None
    assert {*layer.trained_names()} == {"inner.w", "inner.b"}


def test_inside_of_a_residual_and_on_several_inputs() -> None:
    x, y = data()
    block = Residual([Gated(1)], activation="relu")
    model = Sequential([block, Flatten(), Dense(3)], SHAPE, seed=1, engine="im2col")
    model.fit(x, y, verbose=0)
    assert any(name.startswith("layers.0.layers.0.dense") for name, _ in model._arrays())
    a, b = Input((4,), name="a"), Input((2,), name="b")
    two = Model([a, b], Dense(3)(Joined()([a, b])), seed=0, engine="im2col")
    two.fit([x[:, 0, :, 0], x[:, 0, 0]], y, verbose=0)
    assert [*two.layers[0].parameters] == ["halves.left.w", "halves.left.b", "halves.right.w"]


@pytest.mark.parametrize("change", ["none", "inner", "all"])
def test_files_copies_and_frozen_layers(change: str, tmp_path: Path) -> None:
    x, y = data()
    model = composed()
    model.fit(x, y, verbose=0, seed=1)
    block: Any = model.layers[1]
    if change == "inner":
        block.more[0].narrow.trainable = False
        dict(block.more[0].inner_layers())["dense"].trainable = False
    elif change == "all":
        block.trainable = False
    model.save(tmp_path / "net.safetensors")
    others = [fastcnn.load_model(tmp_path / "net.safetensors"), copy.deepcopy(model)]
    others.append(pickle.loads(pickle.dumps(model)))
    before = model.get_weights()
    model.fit(x, y, verbose=0, seed=2)
    for other in others:
        other.engine = "im2col"
        assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))
        assert other.layers[1].trained_names() == block.trained_names()
        other.fit(x, y, verbose=0, seed=2)
        for a, b in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    names = [name for name in block.parameters if name not in block.trained_names()]
    frozen = {"none": 0, "inner": 4, "all": len(block.parameters)}[change]
    assert len(names) == frozen
    transfer = Sequential([*model.layers[:2], GlobalAvgPool2D(), Dense(2)], SHAPE)
    for name, array in model.layers[0].parameters.items():
        np.testing.assert_array_equal(transfer.layers[0].parameters[name], array)


def test_onnx_and_weights_of_other_libraries(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="ONNX files need onnx")
    x, _ = data()
    model = composed()
    model.save_onnx(tmp_path / "net.onnx")
    read = fastcnn.load_onnx(tmp_path / "net.onnx")
    read.engine = "im2col"
    np.testing.assert_allclose(read.predict(x), model.predict(x), rtol=1e-5)

    class Head(Composite):
        """A Flatten inside, whose order of features the weights of PyTorch follow."""

        def connect(self, x: Tensor) -> Tensor:
            return Dense(3)(Flatten()(x))

    inside, outside = Sequential([Head()], SHAPE), Sequential([Flatten(), Dense(3)], SHAPE)
    rng = np.random.default_rng(0)
    arrays = {"fc.weight": rng.standard_normal((3, 40)).astype("f"), "fc.bias": np.ones(3, "f")}
    write_safetensors(tmp_path / "w.safetensors", arrays)
    for model in (inside, outside):
        load_weights(model, tmp_path / "w.safetensors")
    np.testing.assert_allclose(inside.predict(x), outside.predict(x), rtol=1e-6)


def test_what_is_wrong_is_said_before_any_work() -> None:
    class Nothing(Composite):
        pass

    class Number(Composite):
        def connect(self, x: Tensor) -> Any:
            return 3

    class Itself(Composite):
        def connect(self, x: Tensor) -> Tensor:
            return Dense(2)(Input((3,)))

    class Misfit(Composite):
        def connect(self, x: Tensor) -> Tensor:
            return Dense(2)(x)

    class Holder(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Dense(2)

        def infer(self, input_shape: Any) -> Any:
            return input_shape

    for layer, error, message in (
        (Nothing(), NotImplementedError, r"Nothing must define connect\(self, x\)"),
        (Number(), TypeError, r"Number\(\)\.connect must return a tensor, got 3"),
        (Itself(), ValueError, r"Itself\(\)\.connect must return a tensor that comes from its"),
        (Misfit(), ValueError, r"Dense\(2\).* got an input of shape \(5, 4, 2\): Dense needs"),
        (Holder(), ValueError, r"holds Dense\(2\).* derive Holder from fastcnn.layers.Composite"),
    ):
        with pytest.raises(error, match=message):
            Sequential([layer], SHAPE)
    with pytest.raises(TypeError, match="Wrong must not define forward, because it follows"):
        type("Wrong", (Composite,), {"forward": lambda self, x: x})


def test_methods_that_a_class_lacks_are_named() -> None:
    x, y = data()
    methods: dict[str, Any] = {}
    for name, method in (
        ("infer(self, input_shape)", lambda self, shape: shape),
        ("forward(self, x, training, rng, engine)", lambda self, x, t, r, e: (x, None)),
        ("backward(self, dy, saved, engine, needs_dx=True)", None),
    ):
        kind: Any = type("Lacking", (Layer,), dict(methods))
        layers = [Conv2D(2, 2), kind(), Flatten(), Dense(3)]
        with pytest.raises(NotImplementedError, match=f"Lacking must define {re.escape(name)}, w"):
            Sequential(layers, SHAPE, engine="im2col").train_on_batch(x, y)
        methods[name.split("(")[0]] = method
        Layer.registry.pop("Lacking")
    optimizer: Any = type("Still", (Optimizer,), {})
    model = Sequential([Flatten(), Dense(3)], SHAPE, seed=0, engine="im2col")
    before = model.get_weights()
    with pytest.raises(NotImplementedError, match=r"Still must define step\(self, parameters, gr"):
        model.fit(x, y, optimizer=optimizer(), verbose=0)
    Optimizer.registry.pop("Still")
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


class Softsign(Layer):
    """``x / (1 + |x|)``."""

    def infer(self, input_shape: Any) -> Any:
        return input_shape

    def forward(self, x: Array, training: bool, rng: Any, engine: Any) -> Any:
        return x / (1 + np.abs(x)), x

    def backward(self, dy: Array, saved: Any, engine: Any, needs_dx: bool = True) -> Any:
        return dy / (1 + np.abs(saved)) ** 2, {}


class Cubes(Loss):
    """The mean of ``|d|³``."""

    counts = False

    def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        return (np.abs(outputs - targets) ** 3).mean(axis=1)

    def gradient(self, outputs: Array, targets: Array, engine: str | None = None) -> Array:
        d = outputs - targets
        return 3 * d * np.abs(d) / d.shape[1]


class Plain(Optimizer):
    """Gradient descent."""

    def step(self, parameters: Array, gradient: Array) -> None:
        parameters -= self.rate * gradient


@pytest.mark.parametrize("engine", [None, "im2col"])
def test_own_parts_train_in_parts_in_groups_and_with_weights(engine: str | None) -> None:
    x, _ = data(12)
    y = np.random.default_rng(1).standard_normal((12, 3)).astype(np.float32)
    twice: dict[str, Any] = {"sample_weight": np.full(12, 2.0)}
    ways: list[dict[str, Any]] = [
        {}, {"accumulate": 3}, {"group": fastcnn.distributed.alone(3)}, twice,
        {"accumulate": 3, **twice}, {"group": fastcnn.distributed.alone(3), **twice},
    ]  # fmt: skip
    results = []
    for way in ways:
        inner = [Conv2D(2, 1), Softsign()]
        block = Twice(Conv2D(2, 3, padding="same"), inner)
        model = Sequential([block, Flatten(), Dense(3)], SHAPE, seed=3, engine=engine)
        rate = 0.02 if "sample_weight" in way else 0.04  # so that all take the same steps
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 6, "shuffle": False, "verbose": 0}
        model.fit(x, y, loss=Cubes(), optimizer=Plain(rate), **settings, **way)
        results.append(np.concatenate([one.ravel() for one in model.get_weights()]))
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"class_weight needs a loss of classes, .* got Cubes\(\)"):
        model.fit(x, y, loss=Cubes(), class_weight={0: 2.0})
