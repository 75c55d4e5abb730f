"""What a model owns cannot be changed behind it: a change counts at once, or it is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import net, stripes

from fastcnn import Sequential, load_model
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    MaxPool2D,
    Residual,
    Shape,
    ZeroPadding2D,
)
from fastcnn.losses import BinaryCrossEntropy, CrossEntropy, MeanSquaredError
from fastcnn.nn.layers import all_layers

ENGINES = (None, "numba", "im2col", "naive")


def many() -> list[Layer]:
    return [
        ZeroPadding2D(1),
        Conv2D(4, 3, activation="relu"),
        DepthwiseConv2D(3, padding="same"),
        LeakyReLU(0.1),
        MaxPool2D(2),
        AvgPool2D(2, strides=1, padding="same"),
        Residual([Conv2D(4, 3, padding="same"), BatchNorm()], [Conv2D(4, 1)], activation="relu"),
        Dropout(0.3),
        Flatten(),
        Dense(3),
    ]


OTHER = {
    "filters": 5, "kernel_size": 1, "strides": 2, "padding": "valid", "dilation": 2, "groups": 2,
    "activation": None, "use_bias": False, "kernel_initializer": "zeros", "algorithm": "direct",
    "depth_multiplier": 3, "slope": 0.5, "pool_size": 3, "momentum": 0.1, "epsilon": 0.5,
    "rate": 0.9, "units": 7, "layers": [Dense(3)], "shortcut": [],
    "input_shape": (1,), "output_shape": (1,),
}  # fmt: skip


def test_a_layer_of_a_model_refuses_each_of_its_constructors_arguments() -> None:
    import inspect

    x, _ = stripes(5)
    model = Sequential(many(), (9, 8), seed=0)
    before = model.predict(x)
    seen = 0
    for layer in all_layers(model.layers):
        names = [n for n in inspect.signature(type(layer).__init__).parameters if n in OTHER]
        for name in (*names, "input_shape", "output_shape"):
            old = getattr(layer, name)
            with pytest.raises(AttributeError, match=f"{name} of .* cannot change.*another model"):
                setattr(layer, name, OTHER[name])
            with pytest.raises(AttributeError, match="cannot"):
                delattr(layer, name)
            assert getattr(layer, name) is old
            seen += 1
        for name in ("parameters", "state", "trainable"):
            with pytest.raises(AttributeError):
                delattr(layer, name)
        with pytest.raises(AttributeError, match="cannot change"):
            layer.__class__ = Flatten  # type: ignore[assignment]
        for call in (
            lambda layer=layer: layer.build(layer.input_shape, np.random.default_rng(0)),
            lambda layer=layer: layer.adopt({}),
        ):
            with pytest.raises(AttributeError, match="belongs to a model"):
                call()
    assert seen > 50
    block = model.layers[6]
    for path in (block.layers, block.shortcut):  # type: ignore[attr-defined]
        assert isinstance(path, tuple)
    np.testing.assert_array_equal(model.predict(x), before)


@pytest.mark.parametrize("built", [False, True])
def test_names_that_are_none_are_refused_with_a_suggestion(built: bool) -> None:
    layers: Sequence[Layer] = many()
    if built:
        layers = Sequential(layers, (9, 8), seed=0).layers
    for wrong, right in (("trainabel", "trainable"), ("activaton", "activation")):
        with pytest.raises(AttributeError, match=f"no attribute '{wrong}'; do you mean {right}"):
            setattr(layers[1], wrong, False)
    with pytest.raises(AttributeError, match="forward is a method of Conv2D"):
        layers[1].forward = lambda *_: None  # type: ignore[assignment,method-assign]
    model = Sequential(net(), (9, 8))
    with pytest.raises(AttributeError, match="no attribute 'trainabel'; do you mean trainable"):
        model.trainabel = False  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'learning_rate'"):
        model.learning_rate = 0.1  # type: ignore[attr-defined]


def test_an_unbuilt_layer_may_be_changed_and_is_checked_when_a_model_takes_it() -> None:
    x, _ = stripes(4)
    layer = Conv2D(4, 3)
    layer.filters, layer.kernel_size, layer.activation = 2, [3, 3], "relu"
    model = Sequential([layer, Flatten(), Dense(3)], (9, 8), seed=0)
    other = Sequential([Conv2D(2, 3, activation="relu"), Flatten(), Dense(3)], (9, 8), seed=0)
    np.testing.assert_array_equal(model.predict(x), other.predict(x))
    assert repr(model.layers[0]) == "Conv2D(2, 3, activation='relu')"
    assert layer.kernel_size == [3, 3]
    layer.activation = "tanh"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="activation must be \"relu\" or None, got 'tanh'"):
        Sequential([layer, Flatten(), Dense(3)], (9, 8))


class Taps(Layer):
    """A layer of a user's own: mutable arguments, and attributes that are no arguments."""

    def __init__(self, taps: list[float], table: dict[str, float], weights: Any) -> None:
        super().__init__()
        self.taps, self.table, self.weights = taps, table, weights
        self.calls = 0

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        self.calls += 1
        scale = sum(self.taps) * self.table["by"] * float(np.sum(self.weights))
        return x * x.dtype.type(scale), None

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return dy, {}


Layer.registry.pop("Taps")  # other tests take every layer that is known


def test_a_users_layer_keeps_its_own_attributes_and_its_arguments_are_fixed() -> None:
    given: tuple[Any, ...] = [1.0, 2.0], {"by": 0.5}, np.ones(2)
    model = Sequential([Taps(*given), Dense(2)], (4,), seed=0)
    layer: Any = model.layers[0]
    layer.note = "mine"
    layer.calls = 10
    before = model.predict(np.ones((2, 4)))
    assert (layer.note, layer.calls) == ("mine", 11)
    for name in ("taps", "table", "weights"):
        with pytest.raises(AttributeError, match=f"{name} of .* cannot change"):
            setattr(layer, name, [])
    for change in (
        lambda: layer.taps.append(3.0),
        lambda: layer.taps.__setitem__(0, 5.0),
        lambda: layer.table.update(by=2.0),
        lambda: layer.table.__setitem__("by", 2.0),
        lambda: layer.table.pop("by"),
    ):
        with pytest.raises(TypeError, match="cannot change"):
            change()
    with pytest.raises(ValueError, match="read-only"):
        layer.weights[0] = 5
    with pytest.raises(ValueError, match="WRITEABLE"):
        layer.weights.setflags(write=True)
    given[0].append(3.0)  # the user's own list is the user's
    given[2][0] = 7
    np.testing.assert_array_equal(model.predict(np.ones((2, 4))), before)
    for loose in (copy.copy(layer), copy.deepcopy(layer)):
        loose.taps.append(1.0)
        loose.table["by"] = 1.0
        loose.weights[0] = 2.0
        loose.taps = [1.0]
        assert loose.note == "mine"


class Loose(Dense):
    """A user's layer that hands its arguments on."""

    def __init__(self, *arguments: Any, title: str = "", **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.title = title

    def __repr__(self) -> str:
        return f"Loose({self.title})"


Layer.registry.pop("Loose")


def test_arguments_of_the_class_that_a_users_layer_derives_from_are_fixed_too() -> None:
    model = Sequential([Loose(3, activation="relu", title="mine"), Dense(2)], (4,), seed=0)
    layer: Any = model.layers[0]
    for name in ("activation", "units", "title"):
        with pytest.raises(AttributeError, match=f"{name} of .* cannot change"):
            setattr(layer, name, None)
    layer.comment = "mine"


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))]
)
def test_copies_of_layers_belong_to_no_model(copied: Callable[[Any], Any]) -> None:
    x, _ = stripes(4)
    model = Sequential(many(), (9, 8), seed=0)
    before = model.predict(x)
    loose = copied(model.layers[1])
    loose.activation = None
    loose.parameters["w"][...] = 0
    loose.parameters["w"] = np.zeros((3, 3, 1, 4), np.float32)
    loose.trainable = False
    block = copied(model.layers[6])
    block.layers = [Conv2D(4, 1)]
    np.testing.assert_array_equal(model.predict(x), before)
    assert model.layers[1].trainable
    again = copied(model)
    with pytest.raises(AttributeError, match="belongs to a model"):
        again.layers[1].activation = None
    with pytest.raises(AttributeError, match="belongs to a model"):
        again.layers[6].layers[0].filters = 2
    again.layers[1].trainable = False
    assert model.layers[1].trainable
    np.testing.assert_array_equal(again.predict(x), before)


def test_parameters_of_a_block_are_written_into() -> None:
    x, _ = stripes(4)
    model = Sequential(many(), (9, 8), seed=0)
    model.predict(x)
    block = model.layers[6]
    block.parameters = {name: np.zeros_like(a) for name, a in block.parameters.items()}
    zeros = model.predict(x)
    np.testing.assert_allclose(zeros, np.broadcast_to(zeros[0], zeros.shape), rtol=1e-6)
    np.testing.assert_array_equal(model.predict(x[:1]), zeros[:1])


def test_public_attributes_of_a_model_work_at_once_or_are_refused(tmp_path: Path) -> None:
    x, y = stripes(6)
    model = Sequential(net(), (9, 8), seed=0)
    before = model.predict(x)
    for name, value in (
        ("layers", net()), ("dtype", "float64"), ("input_shape", (9, 8)), ("output_shape", (2,)),
        ("optimizer", "adam"), ("built", False),
    ):  # fmt: skip
        with pytest.raises(AttributeError, match=f"{name} of a model cannot be set; "):
            setattr(model, name, value)
        with pytest.raises(AttributeError):
            delattr(model, name)
    for name, value, error in (
        ("engine", "fast", ValueError), ("engine", 3, TypeError), ("loss", "quartic", ValueError),
        ("rng", 42, TypeError), ("rng", None, TypeError), ("progress", 3, TypeError),
        ("trained_on", "bytes", ValueError), ("stop_training", "yes", TypeError),
        ("trainable", 1, TypeError),
    ):  # fmt: skip
        with pytest.raises(error, match=name):
            setattr(model, name, value)
    with pytest.raises(ValueError, match="engine must be one of"):
        Sequential(net(), engine="fast")
    np.testing.assert_array_equal(model.predict(x), before)

    model.loss = MeanSquaredError()
    raw = [model.predict(x[:size]) for size in (1, 6)]
    np.testing.assert_array_equal(raw[1], model._forward_batch(x[..., None]))
    np.testing.assert_array_equal(raw[0], raw[1][:1])
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(load_model(tmp_path / "m.safetensors").predict(x), raw[1])
    np.testing.assert_array_equal(copy.deepcopy(model).predict(x), raw[1])
    model.loss = "binary_cross_entropy"  # type: ignore[assignment]
    assert isinstance(model.loss, BinaryCrossEntropy)
    np.testing.assert_allclose(model.predict(x), 1 / (1 + np.exp(-raw[1])), rtol=1e-5)
    model.loss = None
    np.testing.assert_array_equal(model.predict(x), before)

    for engine in ENGINES:
        model.engine = engine
        np.testing.assert_allclose(model.predict(x), before, rtol=1e-4, atol=1e-6)
        assert ("was asked for" in model.explain()) == (engine is not None)
    model.engine = None
    model.trained_on = "floats"
    with pytest.raises(ValueError, match="uint8"):
        model.predict(x)
    model.trained_on = None
    model.rng = np.random.default_rng(5)
    other = Sequential(net(), (9, 8), seed=0)
    model.fit(x, y, verbose=0)
    other.fit(x, y, verbose=0, seed=5)
    np.testing.assert_array_equal(model.get_weights()[0], other.get_weights()[0])
    model.progress = None
    with pytest.raises(ValueError, match="before its first fit"):
        model.optimizer  # noqa: B018


def test_the_loss_stays_what_it_is_while_a_fit_runs() -> None:
    from fastcnn import Callback

    x, y = stripes(6)
    model = Sequential(net(), (9, 8), seed=0)
    raised: list[str] = []

    class Sets(Callback):
        def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
            for act in (
                lambda: setattr(model, "loss", "mse"),
                lambda: setattr(model, "progress", None),
                lambda: model.fit(x, y, verbose=0),
            ):
                with pytest.raises((AttributeError, ValueError), match="while a"):
                    act()
                raised.append("")

    model.fit(x, y, callbacks=[Sets()], verbose=0)
    assert len(raised) == 3
    assert isinstance(model.loss, CrossEntropy)
    model.loss = "mse"  # type: ignore[assignment]


def test_a_model_of_a_users_own_class_may_have_attributes() -> None:
    class Named(Sequential):
        pass

    model = Named(net(), (9, 8))
    model.title = "mine"  # type: ignore[attr-defined]
    assert copy.deepcopy(model).title == "mine"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="dtype of a model cannot be set"):
        model.dtype = np.dtype("float64")
