"""``fit``, ``evaluate`` and ``predict`` on sequences, data sets of samples and iterables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Callback, Sequential, StopTraining
from fastcnn.layers import Add, Conv2D, Dense, Flatten, Input

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (50, 8, 6, 3), dtype=np.uint8)
Y = RNG.integers(0, 3, 50)
W = RNG.random(50)


class Batches:
    """A sequence of batches of 12; the last has 2 samples."""

    weighted = False

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        some = slice(12 * index, 12 * index + 12)
        return (X[some], Y[some], W[some]) if self.weighted else (X[some], Y[some])


class Samples:
    """A data set of single samples."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return X[index], Y[index]


class Anew:
    """An iterable that begins anew with each epoch, and has no length."""

    def __iter__(self) -> Iterator[Any]:
        return (Batches()[i] for i in range(5))


def endless() -> Iterator[Any]:
    while True:
        yield from Anew()


def net(shape: Any = (8, 6, 3)) -> Sequential:
    layers = [Conv2D(3, 3, activation="relu"), Flatten(), Dense(3)]
    return Sequential(layers, shape, seed=0, engine="im2col")


def same(some: Any, other: Any) -> bool:
    pairs = zip(some.get_weights(), other.get_weights(), strict=True)
    return all((mine == theirs).all() for mine, theirs in pairs)


@pytest.mark.parametrize(
    ("source", "steps"),
    [(Batches, None), (Samples, None), (Anew, 5), (endless, 5)],
    ids=["batches", "samples", "iterable", "generator"],
)
@pytest.mark.parametrize("shape", [(8, 6, 3), None])
def test_sources_train_as_arrays_do(source: Any, steps: int | None, shape: Any) -> None:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 12, "shuffle": False, "verbose": 0}
    model, other = net(), net(shape)
    history = model.fit(X, Y, **settings)
    of_other = other.fit(source(), steps_per_epoch=steps, **settings)
    assert same(model, other)
    for name in ("loss", "accuracy"):
        assert of_other.history[name] == pytest.approx(history.history[name], rel=1e-12)


def test_weights_of_samples_come_with_batches() -> None:
    source = Batches()
    source.weighted = True
    model, other = net(), net()
    model.fit(X, Y, sample_weight=W, batch_size=12, shuffle=False, verbose=0)
    other.fit(source, shuffle=False, verbose=0)
    assert same(model, other)
    assert other.evaluate(source)["loss"] == pytest.approx(
        model.evaluate(X, Y, sample_weight=W)["loss"], rel=1e-6
    )


def test_shuffling_takes_samples_or_batches_in_another_order() -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 12, "seed": 3, "verbose": 0}
    model, samples, batches, again = net(), net(), net(), net()
    model.fit(X, Y, **settings)
    samples.fit(Samples(), **settings)
    assert same(model, samples)
    batches.fit(Batches(), **settings)
    again.fit(Batches(), **settings)
    assert same(batches, again)
    assert not same(batches, model)


@pytest.mark.parametrize("source", [Batches, Samples, Anew])
def test_evaluation_and_prediction(source: Any) -> None:
    model = net()
    reference = model.evaluate(X, Y)
    assert model.evaluate(source()) == pytest.approx(reference, rel=1e-6)
    assert np.abs(model.predict(source()) - model.predict(X)).max() < 1e-6
    inputs = (batch for batch, _ in Anew())
    assert np.abs(model.predict(inputs) - model.predict(X)).max() < 1e-6
    history = model.fit(X, Y, validation_data=source(), epochs=2, verbose=0)
    final = model.evaluate(X, Y)
    assert history.history["val_loss"][1] == pytest.approx(final["loss"], rel=1e-6)


def test_several_inputs_come_as_lists() -> None:
    left, right = Input((4,)), Input((3,))
    outputs = Dense(2)(Add()([Dense(5)(left), Dense(5)(right)]))
    a, b, y = RNG.standard_normal((20, 4)), RNG.standard_normal((20, 3)), RNG.integers(0, 2, 20)
    source = [([a[:10], b[:10]], y[:10]), ([a[10:], b[10:]], y[10:])]
    model, other = (fastcnn.Model([left, right], outputs, seed=0) for _ in range(2))
    model.fit([a, b], y, batch_size=10, shuffle=False, verbose=0)
    other.fit(iter(source), steps_per_epoch=2, verbose=0)
    assert same(model, other)


def test_a_sequence_resumes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_batch_end(self, model: Any, batch: int, logs: Any) -> None:
            if (model.progress.epoch, batch) == (1, 2):
                raise StopTraining

    for source in (Batches(), Samples()):
        settings: dict[str, Any] = {"epochs": 3, "batch_size": 7, "verbose": 0}
        model, stopped, resumed = net(), net(), net()
        history = model.fit(source, seed=5, **settings)
        stopped.fit(source, seed=5, callbacks=[Stop()], **settings)
        stopped.save_checkpoint(tmp_path / "training.st")
        of_resumed = resumed.fit(source, resume=tmp_path / "training.st", **settings)
        assert same(model, resumed)
        assert history.history["loss"] == of_resumed.history["loss"]
    with pytest.raises(ValueError, match="x must be a sequence, or an iterable whose epochs"):
        net().fit(endless(), steps_per_epoch=5, resume=tmp_path / "training.st", verbose=0)


def test_epochs_of_some_batches() -> None:
    model, other = net(), net()
    history = model.fit(X, Y, batch_size=12, steps_per_epoch=2, shuffle=False, verbose=0)
    other.fit(X[:24], Y[:24], batch_size=12, shuffle=False, verbose=0)
    assert same(model, other)
    assert history.epochs == 1
    with pytest.raises(ValueError, match="steps_per_epoch must be at most the 5 batches of x, got"):
        model.fit(X, Y, batch_size=12, steps_per_epoch=6)


def bad(item: Any) -> Iterator[Any]:
    yield Batches()[0]
    yield item


@pytest.mark.parametrize(
    ("source", "settings", "error", "message"),
    [
        (Anew(), {}, ValueError, "steps_per_epoch must say how many batches"),
        (iter([]), {"steps_per_epoch": 1}, ValueError, "at least one batch, got none"),
        (iter(Anew()), {"steps_per_epoch": 6}, ValueError, "ended after 5 of 6 batches"),
        (bad(X), {"steps_per_epoch": 2}, TypeError, r"pairs \(x, y\).*got ndarray as item 1"),
        (
            bad((X, Y[:9])),
            {"steps_per_epoch": 2},
            ValueError,
            "batch 2 of x: y must have one",
        ),
        (
            bad((X[:, 1:], Y)),
            {"steps_per_epoch": 2},
            ValueError,
            "batch 2 of x: x must have the",
        ),
        (bad((X / np.nan, Y)), {"steps_per_epoch": 2}, ValueError, "batch 2 of x: x must hold fin"),
        (bad((X, Y + 3)), {"steps_per_epoch": 2}, ValueError, "batch 2 of x: y must be .* below 3"),
        (Batches(), {"y": Y}, ValueError, "y must be None where x gives batches"),
        (Batches(), {"sample_weight": W}, ValueError, "must not be given with batches"),
        (Batches(), {"steps_per_epoch": 6}, ValueError, "at most the 5 batches of x, got 6"),
        (Batches(), {"validation_data": iter(Anew())}, ValueError, "validation_data must give its"),
        (X, {}, ValueError, "y must be the targets of x"),
    ],
)
def test_wrong_sources(source: Any, settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        net().fit(source, verbose=0, epochs=1, **settings)


def test_batches_with_the_channels_first_are_named() -> None:
    class First(Batches):
        def __getitem__(self, index: int) -> Any:
            x, y = super().__getitem__(index)
            return x.transpose(0, 3, 1, 2), y

    with pytest.raises(ValueError, match=r"its channels seem to come first: fastcnn\.nchw_to_nhwc"):
        net().fit(First(), verbose=0)


def test_loaders_of_pytorch_train() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = DataLoader(data, batch_size=12)
    model, other, third = net(), net(), net()
    model.fit(X, Y, batch_size=12, shuffle=False, epochs=2, verbose=0)
    other.fit(loader, epochs=2, verbose=0)
    third.fit(data, batch_size=12, shuffle=False, epochs=2, verbose=0)
    assert same(model, other)
    assert same(model, third)
