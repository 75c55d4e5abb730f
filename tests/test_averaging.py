"""Averaged weights, lower rates, warm-up, and batches that are computed in parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn import Callback, Sequential, StopTraining
from fastcnn.callbacks import ReduceLROnPlateau, WeightAverage
from fastcnn.core.arguments import Array
from fastcnn.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten
from fastcnn.nn.schedules import rate_at, schedule_to_dict
from fastcnn.optimizers import SGD
from fastcnn.schedules import Cosine, Step, Warmup, schedule_from_dict

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (24, 6, 5, 1), dtype=np.uint8)
Y = RNG.integers(0, 3, 24)


def net(*more: Any, dtype: Any = "float32") -> Sequential:
    layers = [Conv2D(2, 3, activation="relu"), *more, Flatten(), Dense(3)]
    return Sequential(layers, (6, 5, 1), seed=0, engine="im2col", dtype=dtype)


def same(some: Sequential, other: Sequential) -> bool:
    pairs = zip(some.get_weights(), other.get_weights(), strict=True)
    return all((mine == theirs).all() for mine, theirs in pairs)


class Record(Callback):
    """The weights after each step."""

    def on_train_begin(self, model: Any, logs: Any) -> None:
        self.weights: list[list[Any]] = []

    def on_batch_end(self, model: Any, batch: int, logs: Any) -> None:
        self.weights.append(model.get_weights())


class Stop(Callback):
    """The end of a training in its second epoch."""

    def on_batch_end(self, model: Any, batch: int, logs: Any) -> None:
        if (model.progress.epoch, batch) == (1, 0):
            raise StopTraining


def test_the_model_gets_the_average_at_the_end() -> None:
    record, average, model = Record(), WeightAverage(0.5), net(BatchNorm(), dtype="float64")
    model.fit(X, Y, epochs=3, batch_size=8, callbacks=[record, average], seed=0, verbose=0)
    expected = record.weights[0]
    for step, weights in enumerate(record.weights[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * a + (1 - decay) * b for a, b in zip(expected, weights, strict=True)]
    for mine, theirs in zip(model.get_weights(), expected, strict=True):
        assert np.abs(mine - theirs).max() < 1e-14
    assert any((a != b).any() for a, b in zip(expected, record.weights[-1], strict=True))


def test_averages_and_rates_resume(tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        plateau = ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10)
        return [WeightAverage(0.9), plateau]

    settings: dict[str, Any] = {"epochs": 4, "batch_size": 8, "verbose": 0}
    whole, stopped, resumed = net(), net(), net()
    history = whole.fit(X, Y, seed=0, callbacks=callbacks(), **settings)
    stopped.fit(X, Y, seed=0, callbacks=[*callbacks(), Stop()], **settings)
    stopped.save_checkpoint(tmp_path / "training.st")
    again = resumed.fit(X, Y, callbacks=callbacks(), resume=tmp_path / "training.st", **settings)
    assert same(whole, resumed)
    assert history.history["learning_rate"] == again.history["learning_rate"]
    assert history.history["learning_rate"] == [0.01, 0.01, 0.005, 0.0025]


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"patience": 1}, [1, 1, 0.5, 0.25, 0.125]),
        ({"patience": 2}, [1, 1, 1, 0.5, 0.5]),
        ({"patience": 1, "cooldown": 1}, [1, 1, 0.5, 0.5, 0.25]),
        ({"patience": 1, "min_rate": 4e-4}, [1, 1, 0.5, 0.4, 0.4]),
    ],
)
def test_rates_go_down(settings: Any, rates: list[float]) -> None:
    plateau = ReduceLROnPlateau("loss", factor=0.5, min_delta=100, **settings)
    history = net().fit(X, Y, epochs=5, optimizer=SGD(1e-3), callbacks=[plateau], verbose=0)
    assert history.history["learning_rate"] == pytest.approx([1e-3 * rate for rate in rates])


def test_a_plateau_needs_a_rate_that_is_a_number() -> None:
    with pytest.raises(ValueError, match="whose learning_rate is a number, got Cosine"):
        net().fit(X, Y, optimizer=SGD(Cosine(0.1)), callbacks=[ReduceLROnPlateau()], verbose=0)
    for arguments in ({"factor": 0}, {"factor": 1}, {"patience": 0}, {"cooldown": -1}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            ReduceLROnPlateau(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(1.0)


def test_warmup_precedes_another_schedule() -> None:
    schedule = Warmup(Cosine(0.1), warmup=4)
    rates = [rate_at(schedule, step, 15) for step in range(15)]
    assert rates[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert rates[4:] == [rate_at(Cosine(0.1), step, 11) for step in range(11)]
    for one in (schedule, Warmup(0.1, 2), Warmup(Warmup(Step(0.1, 3), 1), 0)):
        again = schedule_from_dict(schedule_to_dict(one))
        assert repr(again) == repr(one)
        assert [rate_at(again, k, 9) for k in range(9)] == [rate_at(one, k, 9) for k in range(9)]
    with pytest.raises(TypeError, match="then must be a number"):
        Warmup("fast", 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", [2, 3, 5, 50])
def test_parts_of_a_batch_add_up_to_the_batch(parts: int) -> None:
    whole, other = net(dtype="float64"), net(dtype="float64")
    weights = RNG.random(24)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 11, "seed": 0, "verbose": 0}
    history = whole.fit(X, Y, sample_weight=weights, **settings)
    of_other = other.fit(X, Y, sample_weight=weights, accumulate=parts, **settings)
    for mine, theirs in zip(whole.get_weights(), other.get_weights(), strict=True):
        assert np.abs(mine - theirs).max() < 1e-12
    assert history.history["loss"] == pytest.approx(of_other.history["loss"], rel=1e-12)
    assert history.history["accuracy"] == of_other.history["accuracy"]


def test_a_step_in_parts_is_whole_or_nothing() -> None:
    model = net(BatchNorm(), Dropout(0.2))
    x = (X / 255).astype(np.float32)
    model.fit(x, Y, batch_size=12, accumulate=3, seed=0, verbose=0)
    before = model.get_weights()
    x[20:] = 3e38
    with (
        pytest.raises(FloatingPointError, match="in batch 1 of epoch 1"),
        np.errstate(all="ignore"),
    ):
        model.fit(x, Y, batch_size=24, accumulate=3, shuffle=False, verbose=0)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_each_part_of_a_batch_must_have_the_samples_that_a_normalisation_needs() -> None:
    x = (X / 255).astype(np.float32).reshape(len(X), -1)

    for batch_size, accumulate, samples in ((24, 24, 24), (8, 8, 24), (10, 4, 20), (8, 2, 19)):
        model = Sequential([BatchNorm(), Dense(3)], x.shape[1:], seed=0)
        before = model.get_weights()
        with pytest.raises(ValueError, match=f"from accumulate={accumulate}; take fewer parts"):
            model.fit(
                x[:samples], Y[:samples], batch_size=batch_size, accumulate=accumulate, verbose=0
            )
        assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    model = Sequential([BatchNorm(), Dense(3)], x.shape[1:], seed=0)
    model.fit(x, Y, batch_size=8, accumulate=4, verbose=0)

    def batches() -> Iterator[tuple[Array, Array]]:
        yield x[:4], Y[:4]
        yield x[:3], Y[:3]

    with pytest.raises(ValueError, match="batch of 3 samples at least 2"):
        model.fit(batches(), accumulate=2, steps_per_epoch=2, verbose=0)
