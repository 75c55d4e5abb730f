"""Results of frozen layers that a training keeps from one epoch to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.augmentation import Cutout
from fastcnn.callbacks import Callback
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Residual,
)

pytest.importorskip("numba", reason="layers run one by one without Numba")
from fastcnn.models.execution.kept_results import KeptResults
from fastcnn.models.execution.prediction import Prediction

SHAPE, EPOCHS = (24, 20, 3), 4


class Other(Callback):
    """Calls a function after the second epoch."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def on_epoch_end(self, model: Any, epoch: int, logs: dict[str, float]) -> None:
        if epoch == 1:
            self.change(model)


def net(frozen: int = 6) -> fastcnn.Sequential:
    """Layers with a residual block, of which the first ``frozen`` do not train."""
    block = [Conv2D(16, 3, padding="same"), ReLU(), Conv2D(16, 3, padding="same")]
    layers: list[Layer] = [
        Conv2D(16, 3, padding="same"), BatchNorm(), ReLU(), Residual(block), MaxPool2D(),
        Conv2D(32, 3, padding="same", activation="relu"), Flatten(), Dense(8, activation="relu"),
        Dense(5),
    ]  # fmt: skip
    model = fastcnn.Sequential(layers, SHAPE, seed=0)
    for layer in model.layers[:frozen]:
        layer.trainable = False
    return model


def data(count: int = 50) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.random((count, *SHAPE), np.float32), rng.integers(0, 5, count)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Array]]:
    """The samples of each call of the frozen layers' program."""
    samples, run = list[Array](), Prediction.run

    def noted(self: Prediction, inputs: Sequence[Array], softmax: bool = False) -> Any:
        if self._prepared._version.__name__ == "frozen_version":  # type: ignore[attr-defined]
            samples.append(inputs[0].copy())
        return run(self, inputs, softmax)

    net().fit(*data(), epochs=1, batch_size=16, verbose=0)  # prepares
    monkeypatch.setattr(Prediction, "run", noted)
    return samples  # type: ignore[return-value]


def trained(x: Array, y: Array, keeps: bool = True, **arguments: Any) -> list[Array]:
    """The weights after a training that keeps results, or that computes them in each epoch."""
    model = net()
    with pytest.MonkeyPatch.context() as patch:
        if not keeps:
            patch.setattr(KeptResults, "pays", lambda self, inputs: False)
        model.fit(x, y, epochs=EPOCHS, batch_size=16, seed=1, verbose=0, **arguments)
    return model.get_weights()


def check_same(a: Sequence[Array], b: Sequence[Array]) -> None:
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_sample_is_computed_once_and_the_bits_are_the_same(computed: list[Array]) -> None:
    x, y = data()
    result = trained(x, y)
    assert sum(map(len, computed)) == len(x)
    computed.clear()
    check_same(result, trained(x, y, keeps=False))
    assert sum(map(len, computed)) == EPOCHS * len(x)


def test_reading_weights_between_epochs_forgets_nothing(computed: list[Array]) -> None:
    x, y = data()
    trained(x, y, callbacks=[Other(lambda model: model.get_weights())])
    assert sum(map(len, computed)) == len(x)


def test_samples_that_change_are_computed_anew(computed: list[Array]) -> None:
    results = []
    for keeps in (True, False):
        x, y = data()

        def change(model: Any, x: Array = x) -> None:
            x[3] = x[3, ::-1].copy()  # the same numbers in another order

        computed.clear()
        results.append(trained(x, y, keeps, callbacks=[Other(change)]))
        assert sum(map(len, computed)) == (len(x) + 1 if keeps else EPOCHS * len(x))
    check_same(*results)


@pytest.mark.parametrize("way", ["parameter", "statistics", "set_weights"])
def test_weights_that_change_give_other_results(way: str, computed: list[Array]) -> None:
    def change(model: Any) -> None:
        if way == "parameter":
            model.layers[0].parameters["w"][0, 0, 0, 0] += 1
        elif way == "statistics":
            model.layers[1].state["mean"][0] += 1
        else:
            model.set_weights([2 * array for array in model.get_weights()])

    x, y = data()
    result = trained(x, y, callbacks=[Other(change)])
    assert sum(map(len, computed)) == 2 * len(x)
    check_same(result, trained(x, y, keeps=False, callbacks=[Other(change)]))


def test_layers_that_begin_to_train(computed: list[Array]) -> None:
    def change(model: Any) -> None:
        model.layers[5].trainable = True

    x, y = data()
    result = trained(x, y, callbacks=[Other(change)])
    check_same(result, trained(x, y, keeps=False, callbacks=[Other(change)]))


def test_an_array_in_somebodys_hands_may_change_at_any_time(computed: list[Array]) -> None:
    x, y = data()
    results = []
    for keeps in (True, False):
        model, held = net(), list[Array]()
        held.append(model.layers[0].parameters["w"])

        class Writer(Callback):
            def on_batch_end(
                self, model: Any, batch: int, logs: Any, held: list[Array] = held
            ) -> None:
                held[0][0, 0, 0, 0] += 0.01

        with pytest.MonkeyPatch.context() as patch:
            if not keeps:
                patch.setattr(KeptResults, "pays", lambda self, inputs: False)
            model.fit(x, y, epochs=2, batch_size=16, seed=1, verbose=0, callbacks=[Writer()])
        results.append(model.get_weights())
    check_same(*results)


def test_augmentations_give_other_samples(computed: list[Array]) -> None:
    x, y = data()
    trained(x, y, augment=Cutout(4))
    assert sum(map(len, computed)) == EPOCHS * len(x)


def test_sources_of_a_users_own_are_not_kept(computed: list[Array]) -> None:
    x, y = data(32)

    class Batches:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, i: int) -> tuple[Array, Array]:
            return x[16 * i : 16 * i + 16], y[16 * i : 16 * i + 16]

    net().fit(Batches(), epochs=EPOCHS, verbose=0)
    assert sum(map(len, computed)) >= EPOCHS * len(x)


def test_one_epoch_keeps_nothing_and_no_training_leaves_anything(
    computed: list[Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = data()
    kept, results = list[int](), KeptResults.results

    def noted(self: KeptResults, inputs: Sequence[Array]) -> Any:
        result = results(self, inputs)
        kept.append(len(self._kept))
        return result

    monkeypatch.setattr(KeptResults, "results", noted)
    model = net()
    model.fit(x, y, epochs=1, batch_size=16, verbose=0)
    assert not kept
    model.fit(x, y, epochs=2, batch_size=16, verbose=0)
    assert max(kept) == len(x)
    (executor,) = model._executors.values()
    assert executor is not None
    assert executor._kept is not None
    assert not executor._kept._kept


@pytest.mark.parametrize(("most", "stay"), [(0, 0), (20, 16 + 2)])
def test_more_samples_than_there_is_memory_for(
    most: int, stay: int, computed: list[Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the batches of 16, 16, 16 and 2 the first and the last one fit."""
    x, y = data()
    expected, made = trained(x, y, keeps=False, shuffle=False), KeptResults.__init__

    def small(self: KeptResults, *arguments: Any) -> None:
        made(self, *arguments)
        self._most = most

    monkeypatch.setattr(KeptResults, "__init__", small)
    computed.clear()
    check_same(trained(x, y, shuffle=False), expected)
    assert sum(map(len, computed)) == len(x) + (EPOCHS - 1) * (len(x) - stay)


def test_samples_that_are_equal_and_samples_that_are_not_finite(computed: list[Array]) -> None:
    x, y = data()
    x[7] = x[3]
    x[20:30] = x[3]
    check_same(trained(x, y), trained(x, y, keeps=False))
    calls = list[int]()

    def refuses(inputs: Sequence[Array]) -> list[Array] | None:
        calls.append(len(inputs[0]))
        return None if not np.isfinite(inputs[0]).all() else [inputs[0] + 1, inputs[0][:, :2]]

    kept = KeptResults(refuses, lambda: 0, [], 1 << 40, 48)
    a = np.arange(40, dtype=np.float32).reshape(5, 8)
    b = a.copy()
    b[2] = np.nan
    assert kept.results([b]) is None
    kept.results([a[1:3]])
    first, second = kept.results([a]) or ()
    np.testing.assert_array_equal(first, a + 1)
    np.testing.assert_array_equal(second, a[:, :2])
    assert kept.results([b]) is None
    assert calls == [5, 2, 3, 1]


def test_two_inputs_together_are_a_sample() -> None:
    kept = KeptResults(lambda inputs: [inputs[0] - inputs[1]], lambda: 0, [], 1 << 40, 8)
    a = np.array([[1, 2], [1, 2]], np.float32)
    b = np.array([[3, 4], [5, 6]], np.float32)
    for _ in range(2):
        (result,) = kept.results([a, b]) or ()
        np.testing.assert_array_equal(result, a - b)


def test_results_are_nobodys_memory() -> None:
    kept, a = (
        KeptResults(lambda inputs: [inputs[0] + 1], lambda: 0, [], 1 << 40, 8),
        np.ones((2, 3)),
    )
    for _ in range(3):
        (result,) = kept.results([a]) or ()
        np.testing.assert_array_equal(result, a + 1)
        result[...] = 0


@pytest.mark.parametrize(("work", "calls"), [(0, 3), (1 << 40, 1)])
def test_little_work_is_done_again(work: int, calls: int) -> None:
    seen = list[int]()

    def compute(inputs: Sequence[Array]) -> list[Array]:
        seen.append(len(inputs[0]))
        return [inputs[0] + 1]

    kept, a = KeptResults(compute, lambda: 0, [], work, 8), np.ones((2, 3))
    for _ in range(3):
        (result,) = kept.results([a]) or ()
        np.testing.assert_array_equal(result, a + 1)
    assert len(seen) == calls
