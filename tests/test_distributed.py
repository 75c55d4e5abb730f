"""Training on shards: the same bits for any number of processes, here threads of this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from groups_of_threads import together
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import fastcnn
from fastcnn import Augment, Callback, Input, Model, Sequential, StopTraining
from fastcnn.cli import app
from fastcnn.core.arguments import Array
from fastcnn.distributed import Group, alone
from fastcnn.distributed.tree import sizes_of_shards
from fastcnn.layers import (
    Add,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    PReLU,
    ReLU,
    Residual,
    Spec,
)
from fastcnn.models.execution import Executor
from fastcnn.models.shard_step import ShardSteps
from fastcnn.optimizers import SGD
from fastcnn.train.progress import checksum_of_weights
from fastcnn.train.shards import Shard, Sharding, Shards

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (45, 9, 7, 1), dtype=np.uint8)
Y = RNG.integers(0, 3, 45)


def plain(engine: str | None = "im2col") -> Model:
    layers = [Conv2D(3, 3, activation="relu"), MaxPool2D(), Flatten(), Dropout(0.4), Dense(3)]
    return Sequential(layers, seed=1, engine=engine)


def normalised(engine: str | None = "im2col") -> Model:
    main = [Conv2D(2, 3, padding="same"), BatchNorm()]
    layers = [
        Conv2D(2, 3, use_bias=False), BatchNorm(), ReLU(), Residual(main, activation="relu"),
        Flatten(), Dense(4), BatchNorm(), ReLU(), Dense(3),
    ]  # fmt: skip
    return Sequential(layers, seed=1, engine=engine)


def shared(engine: str | None = "im2col") -> Model:
    x = Input((9, 7, 1))
    convolution, norm = Conv2D(2, 3, padding="same"), BatchNorm()
    a = Conv2D(2, 3)(x)
    b = norm(convolution(a))
    y = Add()([b, norm(convolution(ReLU()(b)))])
    return Model(x, Dense(3)(Flatten()(y)), seed=1, engine=engine)


def large(engine: str | None = None) -> Model:
    """A segment of convolutions, and a dense layer and a PReLU that stand alone."""
    layers = [
        Conv2D(32, 3, padding="same"), Conv2D(48, 3, padding="same", activation="relu"),
        MaxPool2D(), BatchNorm(), Flatten(), Dense(1100, activation="relu"), PReLU(), Dense(3),
    ]  # fmt: skip
    return Sequential(layers, seed=1, engine=engine)


NETS = [plain, normalised, shared]
ENGINES = [None, "im2col", "naive"]


def fit(model: Model, group: Group | None, **more: Any) -> str:
    arguments: dict[str, Any] = {
        "epochs": 2, "batch_size": 13, "optimizer": SGD(0.05, momentum=0.9), "seed": 2,
        "verbose": 0, "validation_data": (X[:20], Y[:20]), "augment": Augment(shift=1),
    }  # fmt: skip
    model.fit(X, Y, group=group, **arguments | more)
    return checksum_of_weights(model.get_weights())


# --- the tree -------------------------------------------------------------------------------------


def by_the_tree(parts: Sequence[Array]) -> Array:
    """The sum of the parts, half by half."""
    if len(parts) == 1:
        return parts[0]
    half = 1 << ((len(parts) - 1).bit_length() - 1)
    return by_the_tree(parts[:half]) + by_the_tree(parts[half:])


@settings(max_examples=25)
@given(st.data())
def test_sums_follow_the_tree_for_any_number_of_processes(data: st.DataObject) -> None:
    shards = data.draw(st.integers(1, 9))
    size = data.draw(st.integers(1, min(shards, 5)))
    samples = data.draw(st.integers(1, 12))
    sizes = [n for n in sizes_of_shards(samples, shards) if n]
    parts = [RNG.standard_normal(40).astype(np.float32) for _ in sizes]
    cuts = [slice(24, 40), slice(16, 24), slice(0, 16)]

    def work(group: Group) -> tuple[Array, Array]:
        numbers = [number for number, _ in group.shards_of(samples)]
        into = np.zeros(40, np.float32)
        for _ in range(2):  # memory is used again
            sums = group.sum_of_gradients(samples, into)
            for cut in cuts:
                for number in numbers:
                    sums.add(number, parts[number], cut)
                sums.leave(cut)
            sums.finish()
        return into, group.combined([parts[number] for number in numbers], samples)

    expected = by_the_tree(parts)
    for flat, combined in together(work, size, shards):
        np.testing.assert_array_equal(flat, expected)
        np.testing.assert_array_equal(combined, expected)


def test_buckets_leave_before_the_last_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcnn.distributed.groups.BUCKET", 64)
    test_sums_follow_the_tree_for_any_number_of_processes()


# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_number_of_processes_gives_the_same_bits(net: Callable[..., Model], size: int) -> None:
    expected = fit(net(), alone(shards=5))
    assert together(lambda group: fit(net(), group), size, 5) == [expected] * size


def test_shards_of_a_batch_draw_different_numbers() -> None:
    sharding = Sharding(alone(shards=3), lambda shards: (0.0, 0.0), True, lambda: None)

    def draws(numbers: list[int]) -> list[list[float]]:
        generators = sharding.generators(np.random.default_rng(4), numbers)
        return [one.random(5).tolist() for one in generators if one is not None]

    of_all = draws([0, 1, 2])
    assert len({tuple(row) for row in of_all}) == 3
    assert draws([1]) == of_all[1:2]  # whichever process has the shard


def test_a_step_that_starts_again_layer_by_layer_draws_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group, calls = alone(shards=5), list[str]()

    def undecided(executor: Executor) -> bool:
        calls.append("undecided")
        return False

    with monkeypatch.context() as patch:
        patch.setattr(Executor, "gradient_is_decided", undecided)
        results = [fit(plain(None), group)]
    with monkeypatch.context() as patch:
        patch.setattr(Model, "_executor", lambda model, trunk: None)
        results.append(fit(plain(None), group))
    assert calls
    assert results[0] == results[1]


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_convolutions_that_stand_alone_sum_their_shards(shards: int) -> None:
    def net(engine: str | None, algorithm: Literal["winograd", "auto"]) -> Model:
        layers = [Conv2D(4, 3, padding="same", algorithm=algorithm), ReLU(), Flatten(), Dense(3)]
        return Sequential(layers, seed=1, engine=engine)

    one, other = net(None, "winograd"), net("im2col", "auto")
    for model in (one, other):
        model.fit(X, Y, 2, 13, SGD(0.05), seed=2, verbose=0, group=alone(shards=shards))
    assert "alone: Conv2D" in one.explain()
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


@pytest.mark.parametrize("net", [normalised, shared, large])
def test_compiled_nets_give_the_same_bits_for_any_number_of_processes(
    net: Callable[..., Model],
) -> None:
    expected = fit(net(None), alone(shards=5))
    for size in (2, 3, 5):  # blocks of one to five shards; batches of 13 and of 6 samples
        assert together(lambda group: fit(net(None), group), size, 5) == [expected] * size


@pytest.mark.parametrize("net", [normalised, shared, large])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_gradient_is_that_of_the_whole_batch(
    net: Callable[..., Model], engine: str | None
) -> None:
    one, other, group = net(engine), net(engine), alone(shards=4)
    for model in (one, other):
        model._build_once(((9, 7, 1),))
    loss = one._loss()
    total, correct, _ = one._gradients(X[:13], Y[:13], loss, one.rng)
    optimizer = SGD(0.0)
    optimizer.begin(other._ownership, other)
    shards = [Shard(number, rows, None) for number, rows in group.shards_of(13)]
    batch = Shards(shards, X[:13], Y[:13], None, 13)
    figures = ShardSteps(other, group, loss, optimizer).step(batch)
    assert figures == pytest.approx((total, correct), rel=1e-5)
    np.testing.assert_allclose(other._weights.gradient, one._weights.gradient, rtol=2e-4, atol=2e-6)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # running statistics among them


def test_statistics_of_shards_are_those_of_small_batches() -> None:
    model = normalised()
    history = model.fit(X[:12], Y[:12], batch_size=12, seed=2, verbose=0, group=alone(3, "shard"))
    other = normalised()
    other._build_once(((9, 7, 1),))
    order = np.random.default_rng(2).permutation(12)
    losses = [
        other._gradients(X[order[i : i + 4]], Y[order[i : i + 4]], other._loss(), other.rng)[0]
        for i in (0, 4, 8)
    ]
    assert history.history["loss"][0] == pytest.approx(sum(losses) / 12, rel=1e-5)
    expected = fit(normalised(), alone(3, "shard"))
    assert together(lambda g: fit(normalised(), g), 2, 3, "shard") == [expected] * 2


def test_weights_of_samples_count_as_without_a_group() -> None:
    weights = np.linspace(0, 2, 45)
    results = []
    for group in (None, alone(3)):
        model = Sequential([Flatten(), Dense(3)], seed=1)
        arguments: dict[str, Any] = {"sample_weight": weights, "epochs": 3, "seed": 4}
        model.fit(X, Y, batch_size=45, verbose=0, group=group, **arguments)
        results.append(model.get_weights()[0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-6)


def test_a_training_goes_on_with_another_number_of_processes(tmp_path: Any) -> None:
    expected = fit(normalised(), alone(6), epochs=3)
    path = tmp_path / "half.safetensors"

    class SaveAndStop(Callback):
        def on_batch_end(self, model: Model, batch: int, logs: dict[str, float]) -> None:
            if batch == 1 and model.progress is not None and model.progress.epoch == 1:
                model.save_checkpoint(path)
                raise StopTraining

    callbacks = [SaveAndStop()]
    together(lambda g: fit(normalised(), g, epochs=3, callbacks=callbacks), 2, 6)
    goes_on = together(lambda g: fit(normalised(), g, epochs=3, resume=path), 3, 6)
    assert goes_on == [expected] * 3
    with pytest.raises(ValueError, match=r"group must be one of 6 shards, .* got None"):
        fit(normalised(), None, resume=path)
    with pytest.raises(ValueError, match=r"shards must be 6 that the training"):
        fit(normalised(), alone(4), resume=path)


def right(targets: Array, predictions: Array) -> float:
    """The accuracy, which a training counts in another way."""
    return float((predictions.argmax(axis=1) == targets).mean())


def in_order(targets: Array, predictions: Array) -> float:
    """A number that depends on the order of the samples."""
    return float((predictions[:, 0] * np.arange(len(targets))).sum())


@pytest.mark.parametrize(("net", "engine"), [(plain, "im2col"), (normalised, None), (shared, None)])
def test_metrics_of_training_batches_are_those_of_all_samples(
    net: Callable[..., Model], engine: str | None, tmp_path: Path
) -> None:
    """The last batch has two samples, so that some processes have none of it."""
    path, x, y = tmp_path / "training.st", X[:20], Y[:20]
    options: dict[str, Any] = {"batch_size": 9, "metrics": [right, in_order], "verbose": 0}

    class Saves(Callback):
        def on_batch_end(self, model: Any, batch: int, logs: dict[str, float]) -> None:
            if model.progress.epoch == 1 and batch == 1:
                model.save_checkpoint(path)

    def work(group: Group, **more: Any) -> list[list[float]]:
        model = net(engine)
        history = model.fit(x, y, epochs=3, group=group, **options, **more).history
        return [history[name] for name in ("accuracy", "right", "in_order")]

    expected = work(alone(shards=5), seed=3)
    assert expected[0] == pytest.approx(expected[1], abs=1e-12)
    assert len({*expected[2]}) == 3
    for size in (2, 4):
        histories = together(lambda g: work(g, seed=3, callbacks=[Saves()]), size, 5)
        assert histories == [expected] * size
    assert together(lambda g: work(g, resume=path), 3, 5) == [expected] * 3


def test_image_sets_and_metrics_of_a_validation_are_shared_out(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (23, 9, 7), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        place = tmp_path / "abc"[i % 3]
        place.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place / f"{i}.png")
    validation = np.tile(X, (12, 1, 1, 1)), np.tile(Y, 12)  # three batches

    def work(group: Group) -> tuple[str, dict[str, list[float]]]:
        images = fastcnn.load_images(tmp_path, (9, 7), lazy=True, color="gray")
        model = plain()
        model.fit(
            images, None, 2, 9, "adam", seed=2, verbose=0, group=group,
            metrics=["top_2_accuracy", fastcnn.metrics.F1("macro")], validation_data=validation,
            class_weight={0: 1.0, 1: 2.0, 2: 0.5},
        )  # fmt: skip
        assert model.progress is not None
        history = model.progress.history.history
        return checksum_of_weights(model.get_weights()), {
            name: values for name, values in history.items() if name != "seconds"
        }

    expected = work(alone(shards=5))
    assert len([n for n in expected[1] if n.startswith("val_")]) == 4, expected[1]
    for size in (2, 4):  # of four processes one has no batch
        assert together(work, size, 5) == [expected] * size


# --- figures, callbacks, faults -------------------------------------------------------------------


def test_rank_0_alone_calls_callbacks_and_all_stop_with_it() -> None:
    seen = list[tuple[str, int]]()

    class OnRank0(Callback):
        def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
            seen.append(("one", epoch))
            if epoch == 1:
                model.stop_training = True

    class OnAll(Callback):
        on_every_process = True

        def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
            seen.append((f"all {logs['val_loss']}", epoch))

    def work(group: Group) -> int:
        model = plain()
        fit(model, group, epochs=5, callbacks=[OnRank0(), OnAll()])
        assert model.progress is not None
        return model.progress.epoch

    assert together(work, 3) == [2, 2, 2]
    assert seen.count(("one", 0)) == seen.count(("one", 1)) == 1
    of_all = [what for what in seen if what[0] != "one" and what[1] == 0]
    assert len(of_all) == 3
    assert len(set(of_all)) == 1


def test_a_callback_that_changes_the_model_on_rank_0_alone_is_found() -> None:
    class Changes(Callback):
        def on_epoch_end(self, model: Model, epoch: int, logs: dict[str, float]) -> None:
            model.set_weights([array + 1 for array in model.get_weights()])

    with pytest.raises(ValueError, match=r"the weights must be the same .* on_every_process"):
        together(lambda group: fit(plain(), group, callbacks=[Changes()]), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": Y[::-1]}, "y must be the same on all processes, but rank 1 of 2"),
        ({"x": X[::-1]}, "x must be the same on all processes, but rank 1 of 2"),
        ({"batch_size": 5}, "batch_size must be the same"),
        ({"seed": 3}, "the weights must be the same|rng must be the same"),
        ({"y": Y + 1}, r"rank 1 of 2 cannot begin: ValueError: y must|^y must"),
        ({"model": normalised}, "model must be the same"),
    ],
)
def test_processes_that_differ_are_told_so(change: dict[str, Any], message: str) -> None:
    def work(group: Group) -> None:
        own = {"x": X, "y": Y, "batch_size": 9, "seed": 2, "model": plain}
        own |= change if group.rank else {}
        model = own["model"]()
        arguments = {name: own[name] for name in ("batch_size", "seed")}
        model.fit(own["x"], own["y"], group=group, verbose=0, **arguments)

    with pytest.raises((ValueError, RuntimeError), match=message):
        together(work, 2)


def test_a_loss_that_is_not_finite_is_one_on_all_processes() -> None:
    errors, x = list[str](), np.random.default_rng(0).standard_normal((8, 9, 7, 1))

    def work(group: Group) -> None:
        model = normalised(None)
        with pytest.raises(FloatingPointError) as info:
            model.fit(x, Y[:8], 8, 8, SGD(1e30), shuffle=False, verbose=0, seed=1, group=group)
        errors.append(str(info.value))

    together(work, 2)
    assert len(errors) == 2
    assert errors[0] == errors[1]


def test_layers_with_a_state_of_their_own_are_refused() -> None:
    class Holds(Layer):
        def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
            return input_shape

        def state_specs(self, input_shape: tuple[int, ...]) -> dict[str, Spec]:
            return {"count": Spec((1,), "zeros", 1, 1)}

        def forward(self, x: Array, training: bool, rng: Any, engine: Any) -> Any:
            return x, None

        def backward(self, dy: Array, saved: Any, engine: Any, needs_dx: bool = True) -> Any:
            return dy, {}

    model = Sequential([Holds(), Flatten(), Dense(3)], seed=1)
    with pytest.raises(ValueError, match=r"group must be None for a model with"):
        model.fit(X, Y, verbose=0, group=alone())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: alone(0), "shards must be"),
        (lambda: alone(2.5), "shards must be"),
        (lambda: alone(2, "all"), 'statistics must be "batch" or "shard"'),
        (lambda: plain().fit(X, Y, group=4), "group must be None or a group"),
        (
            lambda: normalised().fit(X, Y, batch_size=9, group=alone(5, "shard")),
            "shards must leave at least 2 samples",
        ),
    ],
)
def test_wrong_arguments(make: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_the_command_line_asks_for_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[int, float]]()

    def world(shards: int, patience: float) -> Group:
        asked.append((shards, patience))
        raise ImportError("no MPI in this test")

    monkeypatch.setattr(fastcnn.distributed, "world", world)
    for more in ([], ["--patience", "12.5", "--shards", "3"]):
        result = CliRunner().invoke(app, ["train", "--distributed", *more])
        assert (result.exit_code, "no MPI in this test" in result.output) == (2, True)
    assert asked == [(8, 600.0), (3, 12.5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patience", "5"], "--patience needs --distributed"),
        (["--distributed", "--patience", "0"], "patience must be"),
        (["--distributed", "--patience", "nan"], "patience must be"),
        (["--distributed", "--shards", "0"], "shards"),
    ],
)
def test_wrong_options_of_the_command_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_fastcnn_does_not_touch_mpi() -> None:
    from processes import python

    code = "import sys, fastcnn; fastcnn.distributed.alone(); print('mpi4py' in sys.modules)"
    assert python("-c", code).stdout.strip() == "False"
    assert fastcnn.distributed.alone().size == 1
