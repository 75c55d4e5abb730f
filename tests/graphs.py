"""Small graphs of every form, for tests: their inputs and outputs, samples, targets and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from fastcnn import Input, Model
from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.layers import (
    Add,
    Average,
    AvgPool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    Maximum,
    MaxPool2D,
    Multiply,
    ReLU,
    Residual,
    Shape,
    Sigmoid,
    Subtract,
    Tanh,
)
from fastcnn.models import weights
from fastcnn.nn.layers import Tensor, all_layers, base
from fastcnn.train import checkpoint

Tensors = tuple[list[Tensor], list[Tensor]]
"""The inputs and the outputs of a graph."""


class Doubled(Layer):
    """Each pixel twice in both directions: a layer of a user's own."""

    def infer(self, input_shape: Shape) -> Shape:
        h, w, c = input_shape
        return 2 * h, 2 * w, c

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        return x.repeat(2, axis=1).repeat(2, axis=2), None

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        n, h, w, c = dy.shape
        return dy.reshape(n, h // 2, 2, w // 2, 2, c).sum(axis=(2, 4)), {}


Layer.registry.pop("Doubled")  # other tests take every layer that is known


def inception() -> Tensors:
    images = Input((7, 9, 3))
    x = Conv2D(8, (3, 2), padding="same", activation="relu")(images)
    narrow = Conv2D(6, 1, activation="relu")(x)
    broad = ReLU()(BatchNorm()(Conv2D(5, 5, padding="same", use_bias=False)(Conv2D(3, 1)(x))))
    pooled = Conv2D(4, 1)(MaxPool2D(3, strides=1, padding="same")(x))
    x = Concatenate()([narrow, broad, pooled, x])
    return [images], [Dense(4)(GlobalAvgPool2D()(x))]


def gated() -> Tensors:
    """Squeeze and excitation."""
    images = Input((6, 8, 3))
    x = Conv2D(17, 3, padding="same")(images)
    gate = Conv2D(5, 1, activation="relu")(AvgPool2D((6, 8))(x))
    x = Multiply()([x, Sigmoid()(Conv2D(17, 1)(gate))])
    return [images], [Dense(4)(GlobalMaxPool2D()(x))]


def u_net() -> Tensors:
    images = Input((8, 12, 2))
    top = Conv2D(6, 3, padding="same", activation="relu")(images)
    low = Conv2D(8, 3, padding="same", activation="relu")(MaxPool2D()(top))
    lowest = Conv2D(9, (2, 3), padding="same", activation="relu")(MaxPool2D()(low))
    low = Conv2D(8, 3, padding="same")(Concatenate()([Doubled()(lowest), low]))
    top = Conv2D(5, 3, padding="same")(Concatenate()([Doubled()(ReLU()(low)), top]))
    return [images], [Conv2D(2, 1)(ReLU()(top))]


def two_of_each() -> Tensors:
    """Two inputs, images and vectors, and two heads of two losses."""
    images, numbers = Input((5, 6, 2), name="images"), Input((3,), name="numbers")
    x = GlobalAvgPool2D()(Conv2D(6, (2, 3), activation="relu")(images))
    both = Concatenate()([x, Tanh()(Dense(4)(numbers))])
    classes, size = Dense(4, name="classes"), Dense(2, name="size")
    return [images, numbers], [classes(both), size(Subtract()([Dense(6)(both), x]))]


def shared() -> Tensors:
    """One branch for two images, of two sizes."""
    left, right = Input((6, 7, 2)), Input((9, 5, 2))
    convolution, rectified = Conv2D(5, 3, padding="same"), ReLU()
    norm, pool = BatchNorm(), MaxPool2D(padding="same")

    def branch(x: Tensor) -> Tensor:
        return GlobalAvgPool2D()(pool(rectified(norm(convolution(x)))))

    a, b = branch(left), branch(right)
    return [left, right], [Dense(4)(Maximum()([a, b, Dense(5)(Average()([a, b]))]))]


def nested() -> Tensors:
    """Residual blocks inside of each other, between branches."""
    images = Input((7, 6, 4))
    inner = Residual([DepthwiseConv2D(3, padding="same"), BatchNorm()], activation="relu")
    block = Residual([Conv2D(4, 3, padding="same"), inner, Dropout(0.2)], [Conv2D(4, 1)])
    x = Add()([block(images), Conv2D(4, 1)(images), images])
    x = Residual([ReLU(), BatchNorm(), Conv2D(4, (3, 1), padding="same")])(x)
    return [images], [Dense(4)(Flatten()(MaxPool2D((2, 3))(x)))]


def called() -> Tensors:
    """A model on two other tensors, so that its layers are shared."""
    seen = Input((6, 5, 3))
    conv = Conv2D(4, 3)(seen)
    inner = Model(seen, GlobalAvgPool2D()(Add()([conv, Conv2D(4, 3)(seen)])), seed=7)
    images = Input((6, 5, 3))
    a, b = inner(images), inner(Conv2D(3, 1)(images))
    assert isinstance(a, Tensor)
    assert isinstance(b, Tensor)
    return [images], [Dense(4)(Concatenate()([a, b]))]


GRAPHS: dict[str, Callable[[], Tensors]] = {
    one.__name__: one for one in (inception, gated, u_net, two_of_each, shared, nested, called)
}


def graph(
    name: str,
    dtype: Literal["float32", "float64"] = "float32",
    engine: str | None = None,
    seed: int = 0,
) -> Model:
    """The model of a graph, with biases, scales and statistics that are nowhere 0 or 1."""
    model = Model(*GRAPHS[name](), seed=seed, dtype=dtype, engine=engine)
    rng = np.random.default_rng(1)
    moved = [w + (w.ndim == 1) * rng.uniform(0.02, 0.3, w.shape) for w in model.get_weights()]
    model.set_weights(moved)
    if name == "u_net":
        model.loss = "mse"  # type: ignore[assignment]
    if name == "two_of_each":
        model.loss = {"classes": "cross_entropy", "size": "mse"}  # type: ignore[assignment]
    return model


def on_engine(model: Model, engine: str | None) -> Model:
    """A copy of the model that runs on another engine."""
    other = Model(model.inputs, model.outputs, dtype=model.dtype.name, engine=engine)  # type: ignore[arg-type]
    for layer in all_layers(other.layers):
        if engine == "naive" and "algorithm" in vars(layer):  # the specification has no others
            vars(layer)["algorithm"] = "auto"
    if model.loss is not None:
        other.loss = model.loss
    return other


def samples(model: Model, count: int, kind: str = "float32", seed: int = 3) -> Any:
    """Samples of each input: an array, or a list of several."""
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (count, *tensor.shape)
        if kind == "uint8":
            arrays.append(rng.integers(0, 256, shape).astype(np.uint8))
        else:
            arrays.append(rng.standard_normal(shape).astype(kind))
    return arrays if len(arrays) > 1 else arrays[0]


def targets(model: Model, count: int, seed: int = 4) -> Any:
    """Targets of each output, for its loss: an array, or a list of several."""
    rng = np.random.default_rng(seed)
    goal: Any = model._loss()
    losses = goal.losses if len(model.outputs) > 1 else (goal,)
    arrays = [
        rng.integers(0, tensor.shape[0], count)
        if type(loss).__name__ == "CrossEntropy"
        else rng.standard_normal((count, *tensor.shape))
        for tensor, loss in zip(model.outputs, losses, strict=True)
    ]
    return arrays if len(arrays) > 1 else arrays[0]


def listed(arrays: Any) -> list[Array]:
    """A list of arrays, also of a single one."""
    return arrays if isinstance(arrays, list) else [arrays]


def near(found: Any, expected: Any, share: float) -> None:
    """Each array to this share of its largest number, with the same dtype and shape."""
    for a, b in zip(listed(found), listed(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=share * abs(b).max(initial=0))


def same_bits(found: Any, expected: Any) -> None:
    """Each array to the last bit."""
    for a, b in zip(listed(found), listed(expected), strict=True):
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


assert not is_own(Doubled)


def refuse_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything fail that draws a parameter or takes memory for one."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was drawn or allocated")

    monkeypatch.setattr(base, "draw", refuse)
    monkeypatch.setattr(weights, "_aligned", refuse)
    monkeypatch.setattr(checkpoint.ModelFile, "_array", refuse)
