"""Frozen layers: ``trainable`` counts at once, in every engine, and nothing of them moves."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn import Callback, Sequential, load_model
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
    MaxPool2D,
    ReLU,
    Residual,
    Shape,
    Spec,
)
from fastcnn.losses import CrossEntropy, MeanSquaredError
from fastcnn.models import model_files
from fastcnn.nn.layers import all_layers
from fastcnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop

ENGINES = (None, "numba", "im2col", "naive")
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "sgd": lambda: SGD(0.05, weight_decay=0.1),
    "momentum": lambda: SGD(0.05, momentum=0.9, nesterov=True, clip_norm=0.5),
    "adam": lambda: Adam(0.01, clip_value=0.01),
    "adamw": lambda: AdamW(0.01, weight_decay=0.2),
    "rmsprop": lambda: RMSprop(0.01, momentum=0.5),
}


def small() -> list[Layer]:
    """One run as a whole, to the optimizer's step."""
    conv = Conv2D(4, 3, activation="relu", padding="same")
    return [
        conv,
        MaxPool2D(),
        Conv2D(5, 2),
        ReLU(),
        Flatten(),
        Dense(6, activation="relu"),
        Dense(3),
    ]


def mixed() -> list[Layer]:
    """Runs, and layers of each kind that stand alone."""
    block = Residual(
        [Conv2D(6, 3, padding="same"), BatchNorm(), Conv2D(6, 1)], [Conv2D(6, 1)], activation="relu"
    )
    return [
        Conv2D(4, 3, use_bias=False), BatchNorm(), ReLU(), DepthwiseConv2D(3, padding="same"),
        block, Dropout(0.2), MaxPool2D(), Conv2D(8, 3, padding="same", algorithm="im2col"),
        Flatten(), Dense(600, activation="relu"), Dense(300), Dense(3),
    ]  # fmt: skip


def large() -> list[Layer]:
    """Convolutions and dense layers that stand alone, because each is worth all threads."""
    return [
        Conv2D(32, 3, padding="same", activation="relu"),
        Conv2D(48, 3, padding="same", activation="relu"),
        MaxPool2D(),
        Conv2D(48, 3, padding="same", activation="relu"),
        AvgPool2D(2),
        Flatten(),
        Dense(400, activation="relu"),
        Dense(3),
    ]


def data(shape: Shape, count: int = 12) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((count, *shape)).astype(np.float32), rng.integers(0, 3, count)


def arrays(model: Sequential) -> list[Array]:
    return [array.copy() for _, array in model._arrays()]


def frozen_names(model: Sequential) -> set[str]:
    return {
        f"layers.{i}.{name}"
        for i, layer in enumerate(model.layers)
        for name in layer.parameters
        if name not in layer.trained_names()
    }


def steps(model: Sequential, optimizer: Optimizer, count: int = 3, size: int = 6) -> None:
    x, y = data(model.input_shape or ())
    for i in range(count):
        some = slice(i * size % len(x), i * size % len(x) + size)
        model.train_on_batch(x[some], y[some], optimizer)


def check_frozen(model: Sequential, before: dict[str, Array], optimizer: Optimizer) -> None:
    """What is frozen, also in the optimizer's state, has its bits, and the rest has moved."""
    frozen, moved = frozen_names(model), 0
    for name, array in model._arrays():
        if name in frozen:
            np.testing.assert_array_equal(array, before[name])
        else:
            moved += not np.array_equal(array, before[name])
    assert moved
    for flat in optimizer.state.values():
        for name, part in model_files.named(model, flat):
            assert bool(part.any()) == (name not in frozen), name


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("engine", [None, "im2col"])
@pytest.mark.parametrize("frozen", [(0,), (0, 2), (2,), (5,), (0, 5), (6,), (0, 2, 5)])
def test_frozen_parameters_do_not_move(
    name: str, engine: str | None, frozen: tuple[int, ...]
) -> None:
    model = Sequential(small(), (7, 6, 2), seed=0, engine=engine)
    for i in frozen:
        model.layers[i].trainable = False
    before, optimizer = dict(zip([n for n, _ in model._arrays()], arrays(model), strict=True)), None
    optimizer = OPTIMIZERS[name]()
    steps(model, optimizer)
    check_frozen(model, before, optimizer)


def gradients_of(model: Sequential, x: Array, y: Array) -> list[Array]:
    _, _, gradients = model._gradients(x, y, CrossEntropy(), np.random.default_rng(1))
    return [gradient.copy() for layer in gradients for gradient in layer.values()]


@pytest.mark.parametrize("count", [2, 6, 40])
@pytest.mark.parametrize(
    ("layers", "shape", "choices"),
    [
        (small, (7, 6, 2), [(0,), (2,), (0, 2, 5), (6,), (5, 6), (0, 6)]),
        (mixed, (9, 8, 2), [(0,), (0, 1, 3), (4,), (7, 9), (9, 10), (11,), (0, 1, 3, 4, 7, 9)]),
        (large, (24, 24, 3), [(0,), (1,), (0, 1, 3), (6,), (3, 6), (7,)]),
    ],
)
def test_gradients_of_the_rest_are_what_they_were(
    layers: Callable[[], list[Layer]], shape: Shape, choices: list[tuple[int, ...]], count: int
) -> None:
    """In each engine, one step of a model that was used before its layers were frozen."""
    x, y = data(shape, count)
    engines = ENGINES if layers is small and count < 9 else (None, "im2col")
    for engine in engines:
        model = Sequential(layers(), shape, seed=0, engine=engine)

        def freeze(chosen: tuple[int, ...], model: Sequential = model) -> None:
            model.trainable = True
            for layer in (*(model.layers[i] for i in chosen), *all_layers(model.layers)):
                if layer in (model.layers[i] for i in chosen) or isinstance(layer, BatchNorm):
                    layer.trainable = False  # else its statistics were those of the batch

        freeze(())
        expected = gradients_of(model, x, y)
        names = [name for name, _ in model_files.named(model, model._weights.gradient)]
        for chosen in choices:
            freeze(chosen)
            out = frozen_names(model)
            assert out
            for name, a, b in zip(names, gradients_of(model, x, y), expected, strict=True):
                if name in out:
                    assert not a.any(), name
                else:
                    scale = np.abs(b).max()
                    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("engine", ENGINES)
def test_it_counts_at_once_before_and_after_building_and_back(engine: str | None) -> None:
    layers = small()
    layers[0].trainable = False
    model = Sequential(layers, (7, 6, 2), seed=0, engine=engine)
    first = arrays(model)
    steps(model, SGD(0.1))
    second = arrays(model)
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.array_equal(first[2], second[2])
    model.layers[0].trainable, model.layers[2].trainable = True, False
    steps(model, SGD(0.1))
    third = arrays(model)
    assert not np.array_equal(second[0], third[0])
    np.testing.assert_array_equal(second[2], third[2])
    model.trainable = True
    steps(model, SGD(0.1))
    assert not any(np.array_equal(a, b) for a, b in zip(arrays(model), third, strict=True))


def test_it_counts_in_the_middle_of_a_fit() -> None:
    x, y = data((7, 6, 2))
    model = Sequential(small(), (7, 6, 2), seed=0)
    seen: list[Array] = []

    class Freeze(Callback):
        def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
            seen.append(model.layers[0].parameters["w"].copy())
            model.layers[0].trainable = epoch % 2 == 1

    model.fit(x, y, epochs=4, batch_size=5, callbacks=[Freeze()], optimizer="adam", verbose=0)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])
    np.testing.assert_array_equal(seen[2], seen[3])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_moves_is_what_a_model_of_these_layers_alone_would_do(name: str) -> None:
    """Clipping, decay and moments see the parameters that train and no others."""
    base = Sequential(small(), (7, 6, 2), seed=0)
    maps = Sequential(base.layers[:5], (7, 6, 2))
    maps.loss = MeanSquaredError()  # it predicts what its last layer gives
    head = Sequential(base.layers[5:], maps.output_shape, seed=0)
    for layer in base.layers[:5]:
        layer.trainable = False
    x, y = data((7, 6, 2))
    for model, samples in ((base, x), (head, maps.predict(x))):
        optimizer = OPTIMIZERS[name]()
        for _ in range(4):
            model.train_on_batch(samples, y, optimizer)
    for a, b in zip(base.get_weights()[4:], head.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_frozen_batch_norm_uses_its_running_statistics_and_keeps_them(engine: str | None) -> None:
    x, y = data((6,), 24)
    model = Sequential([Dense(5), BatchNorm(), Dense(3)], (6,), seed=0, engine=engine)
    steps(model, SGD(0.1))
    layer = model.layers[1]
    layer.trainable = False
    before = [array.copy() for array in (*layer.parameters.values(), *layer.state.values())]
    expected = model.evaluate(x, y)["loss"]
    loss, _ = model.train_on_batch(x, y, SGD(0.1))
    assert loss == pytest.approx(expected, rel=1e-5)
    for array, old in zip((*layer.parameters.values(), *layer.state.values()), before, strict=True):
        np.testing.assert_array_equal(array, old)
    model.train_on_batch(x[:1], y[:1], SGD(0.1))  # one value for each channel does no harm


def test_a_block_hands_it_to_its_parts_and_parts_may_differ(tmp_path: Path) -> None:
    block = Residual([Conv2D(2, 3, padding="same"), BatchNorm()], [Conv2D(2, 1)])
    model = Sequential([block, Flatten(), Dense(3)], (7, 6, 2), seed=0)
    block = model.layers[0]  # type: ignore[assignment]
    block.trainable = False
    assert not any(one.trainable for one in (*block.layers, *block.shortcut, block))
    state = block.state["layers.1.mean"].copy()
    before = dict(zip([n for n, _ in model._arrays()], arrays(model), strict=True))
    optimizer = SGD(0.1, momentum=0.9)
    steps(model, optimizer)
    check_frozen(model, before, optimizer)
    np.testing.assert_array_equal(block.state["layers.1.mean"], state)
    block.shortcut[0].trainable = True
    assert block.trainable
    assert set(block.trained_names()) == {"shortcut.0.w", "shortcut.0.b"}
    for engine in (None, "im2col", "naive"):
        model.engine = engine
        before = dict(zip([n for n, _ in model._arrays()], arrays(model), strict=True))
        steps(model, optimizer := SGD(0.1, momentum=0.9))
        check_frozen(model, before, optimizer)
    model.save(tmp_path / "m.safetensors")
    again: Any = load_model(tmp_path / "m.safetensors").layers[0]
    assert again.trained_names() == block.trained_names()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_files_copies_and_other_models_keep_it(
    copied: Callable[[Any], Any], tmp_path: Path
) -> None:
    x, y = data((7, 6, 2))
    model = Sequential(small(), (7, 6, 2), seed=0)
    model.save(tmp_path / "all.safetensors")
    assert b"trainable" not in (tmp_path / "all.safetensors").read_bytes()
    assert all(one.trainable for one in load_model(tmp_path / "all.safetensors").layers)
    model.layers[0].trainable = model.layers[2].trainable = False
    model.fit(x, y, optimizer="adam", seed=0, verbose=0)
    model.save_checkpoint(tmp_path / "c.safetensors")
    model.save(tmp_path / "m.safetensors")
    others = [
        copied(model),
        load_model(tmp_path / "m.safetensors"),
        load_model(tmp_path / "c.safetensors"),
        Sequential(model.layers, (7, 6, 2)),
    ]
    for other in others:
        assert [one.trainable for one in other.layers] == [one.trainable for one in model.layers]
        before = arrays(other)
        steps(other, SGD(0.1, weight_decay=0.1))
        for i, (a, b) in enumerate(zip(arrays(other), before, strict=True)):
            assert np.array_equal(a, b) == (i < 4)
    assert all(one.trainable for one in small())
    begun = Sequential(small(), (7, 6, 2), seed=0)
    with pytest.raises(ValueError, match="resume must be a training of this model's layers"):
        begun.fit(x, y, epochs=2, resume=tmp_path / "c.safetensors", verbose=0)
    begun.layers[0].trainable = begun.layers[2].trainable = False
    begun.fit(x, y, epochs=2, resume=tmp_path / "c.safetensors", verbose=0)
    whole = Sequential(small(), (7, 6, 2), seed=0)
    whole.layers[0].trainable = whole.layers[2].trainable = False
    whole.fit(x, y, epochs=2, optimizer="adam", seed=0, verbose=0)
    for a, b in zip(begun.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class Counted(Dense):
    """A user's layer that counts its ways back."""

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.backs = 0

    def backward(self, *arguments: Any, **more: Any) -> Any:
        self.backs += 1
        layer = Dense(self.units)  # gradients of all its parameters, whether frozen or not
        vars(layer).update(parameters=self.parameters)
        return layer.backward(*arguments, **more)


class Mine(SGD):
    """An optimizer with a step of its own, which knows no spans."""

    def slots_needed(self) -> tuple[str, ...]:
        return ("seen",)

    def step(self, parameters: Array, gradient: Array) -> None:
        (seen,) = self._arrays(parameters)
        seen += 1
        parameters -= 0.1 * gradient + 0.01 * parameters
        self.step_count += 1


class Scale(Layer):
    """A layer with parameters, without anything else."""

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        return {"by": Spec(input_shape, "ones")}

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        return x * self.parameters["by"], x

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return dy * self.parameters["by"], {"by": (dy * saved).sum(axis=0)}


for _name in ("Counted", "Scale"):
    Layer.registry.pop(_name)  # other tests take every layer that is known


@pytest.mark.parametrize("engine", [None, "im2col"])
def test_layers_and_optimizers_of_a_users_own_freeze_too(engine: str | None) -> None:
    layers = [Counted(4), Scale(), Counted(5), Dense(3)]
    model = Sequential(layers, (6,), seed=0, engine=engine)
    model.layers[0].trainable = model.layers[1].trainable = False
    before = arrays(model)
    for optimizer in (Mine(), SGD(0.1, momentum=0.9, weight_decay=0.1)):
        steps(model, optimizer)
        for flat in optimizer.state.values():
            named = dict(model_files.named(model, flat))
            assert not named["layers.0.w"].any()
            assert not named["layers.1.by"].any()
            assert named["layers.2.w"].all()
    for i, (a, b) in enumerate(zip(arrays(model), before, strict=True)):
        assert np.array_equal(a, b) == (i < 3)
    counts = [layer.backs for layer in model.layers if isinstance(layer, Counted)]
    assert counts == [0, 6]


def test_no_gradient_goes_below_the_first_layer_that_trains(monkeypatch: Any) -> None:
    model = Sequential(mixed(), (9, 8, 2), seed=0)
    for layer in model.layers[:-1]:
        layer.trainable = False
    called: list[str] = []
    for kind in {type(layer) for layer in model.layers}:
        before = kind.backward

        def backward(self: Layer, *a: Any, before: Any = before, **k: Any) -> Any:
            called.append(type(self).__name__)
            return before(self, *a, **k)

        monkeypatch.setattr(kind, "backward", backward)
    model.engine = "im2col"
    steps(model, SGD(0.1))
    assert called == ["Dense"] * 3


def test_a_model_in_which_nothing_trains_is_refused_before_any_work() -> None:
    x, y = data((7, 6, 2))
    for engine in (None, "im2col"):
        model = Sequential(small(), (7, 6, 2), seed=0, engine=engine)
        model.trainable = False
        assert not model.trainable
        before = arrays(model)
        for act in (
            lambda model=model: model.fit(x, y, verbose=0),
            lambda model=model: model.train_on_batch(x, y),
        ):
            with pytest.raises(ValueError, match="all layers with parameters are frozen"):
                act()
        assert model.progress is None
        for a, b in zip(arrays(model), before, strict=True):
            np.testing.assert_array_equal(a, b)
    late = Sequential(small())
    late.trainable = False
    with pytest.raises(ValueError, match="all layers with parameters are frozen"):
        late.fit(x, y, verbose=0)
    assert not late.built


def test_the_summary_shows_what_is_frozen(capsys: pytest.CaptureFixture[str]) -> None:
    model = Sequential(small(), (7, 6, 2), seed=0)
    model.layers[0].trainable = False
    model.summary()
    table = capsys.readouterr().out
    assert "frozen 76  " in table
    assert f"frozen 76 of {sum(a.size for a in model.get_weights())}" in table
