"""One optimizer or schedule in several trainings: each is what it would be with a new one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from tiny import net, stripes

from fastcnn import Callback, Sequential, load_model
from fastcnn.callbacks import LearningRateSchedule
from fastcnn.core.arguments import Array
from fastcnn.layers import Dense, Flatten
from fastcnn.losses import CrossEntropy
from fastcnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from fastcnn.schedules import Cosine, OneCycle, Schedule, Step, rate_at

X, Y = stripes(20)


def model_of(seed: int = 0, engine: str | None = None) -> Sequential:
    return Sequential(net(), (9, 8), seed=seed, engine=engine)


Trained = tuple[list[Array], list[float]]
"""The weights after a training, and the rate of each epoch's last step."""


def fit(model: Sequential, optimizer: Optimizer, epochs: int = 2) -> Trained:
    history = model.fit(
        X, Y, epochs=epochs, batch_size=8, optimizer=optimizer, seed=1, verbose=0
    ).history
    return model.get_weights(), history["learning_rate"]


def same(one: Trained, other: Trained) -> None:
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[1] == other[1]


MAKERS: dict[str, Callable[[], Optimizer]] = {
    "adam": lambda: Adam(Cosine(0.002)),
    "momentum": lambda: SGD(OneCycle(0.1), momentum=0.9),
    "rmsprop": lambda: RMSprop(Step(0.01, every=2)),
    "steps": lambda: AdamW(Cosine(0.01, steps=5)),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("engine", [None, "im2col"])
def test_each_fold_of_a_loop_is_what_a_new_optimizer_would_give(
    name: str, engine: str | None
) -> None:
    shared, models = MAKERS[name](), []
    for seed in (1, 2, 3):
        model = model_of(seed, engine)
        result = fit(model, shared)
        same(result, fit(model_of(seed, engine), MAKERS[name]()))
        models.append((model, result))
    for model, (weights, _) in models:
        for a, b in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_first_model_keeps_its_steps_and_state_and_can_be_resumed(tmp_path: Path) -> None:
    shared, path = Adam(Cosine(0.002, steps=30)), tmp_path / "c.safetensors"
    first, second = model_of(1), model_of(2)
    fit(first, shared)
    assert first.optimizer is shared
    state = {name: array.copy() for name, array in shared.state.items()}
    fit(second, shared, epochs=1)
    assert second.optimizer is shared
    assert (first.optimizer.step_count, shared.step_count) == (6, 3)
    for name, array in first.optimizer.state.items():
        np.testing.assert_array_equal(array, state[name])
        assert not np.shares_memory(array, shared.state[name])
    first.save_checkpoint(path)
    begun = model_of(1)
    begun.fit(X, Y, epochs=4, batch_size=8, resume=path, verbose=0)
    whole = model_of(1)
    expected = fit(whole, Adam(Cosine(0.002, steps=30)), epochs=4)
    for a, b in zip(begun.get_weights(), expected[0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_schedule_counts_from_the_beginning_of_each_training(
    make: Callable[[], Optimizer], tmp_path: Path
) -> None:
    """Also in a second fit of the same model, which goes on with the optimizer's state."""
    optimizer, model = make(), model_of()
    _, first = fit(model, optimizer)
    steps, state = optimizer.step_count, {k: a.copy() for k, a in optimizer.state.items()}
    model.fit(X[:8], Y[:8], optimizer=optimizer, verbose=0)
    assert optimizer.step_count == steps + 1
    for name, array in optimizer.state.items():
        assert state[name].any()
        assert not np.array_equal(array, state[name])
    _, second = fit(model, optimizer)
    assert second == first
    path = tmp_path / "c.safetensors"
    model.fit(X, Y, epochs=1, batch_size=8, optimizer=optimizer, seed=1, verbose=0)
    model.save_checkpoint(path)
    assert load_model(path).optimizer.began == optimizer.began > 0
    whole = model.fit(X, Y, epochs=2, batch_size=8, resume=path, verbose=0)
    assert whole.history["learning_rate"][1] == first[1]
    optimizer.reset()
    assert (optimizer.step_count, optimizer.began, optimizer.state) == (0, 0, {})


def test_files_of_earlier_versions_have_schedules_that_count_from_the_first_step() -> None:
    from fastcnn.train.progress import as_dict, progress_from

    model = model_of()
    fit(model, Adam(Cosine(0.002)))
    assert model.progress is not None
    description, _ = as_dict(model.progress, model.rng)
    del description["optimizer"]["began"]
    assert progress_from(description)[0].optimizer.began == 0
    description["optimizer"]["began"] = 7
    with pytest.raises(ValueError, match="began must be at most 6, got 7"):
        progress_from(description)


def test_one_schedule_serves_several_optimizers_at_once() -> None:
    schedule = Cosine(0.1)
    one, other = SGD(schedule), SGD(schedule)
    one.expect(11)
    other.expect(101)
    for optimizer, total in ((one, 11), (other, 101)):
        optimizer.step_count = 5
        assert optimizer.rate == rate_at(Cosine(0.1), 5, total) != 0.1
    assert one.rate < other.rate
    assert schedule.total is None
    with pytest.raises(ValueError, match="steps must be set"):
        schedule(5)
    schedule.rate = 0.2
    assert other.rate == rate_at(Cosine(0.2), 5, 101)
    shared = Cosine(0.01)
    for callback in (LearningRateSchedule(shared), LearningRateSchedule(shared, by="step")):
        model = model_of()
        model.fit(X, Y, epochs=2, batch_size=8, callbacks=[callback], verbose=0)
        assert model.optimizer.rate == 0


@pytest.mark.parametrize("engine", [None, "im2col"])
def test_batches_of_another_model_are_refused_before_any_work(engine: str | None) -> None:
    optimizer, one, other = SGD(0.1, momentum=0.9), model_of(1, engine), model_of(2, engine)
    one.train_on_batch(X, Y, optimizer)
    weights = other.get_weights()
    with pytest.raises(ValueError, match="taken 1 steps for another model; make one for each mod"):
        other.train_on_batch(X, Y, optimizer)
    for a, b in zip(other.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    one.train_on_batch(X, Y, optimizer)
    optimizer.reset()
    other.train_on_batch(X, Y, optimizer)
    assert optimizer.step_count == 1


def test_batches_after_a_fit_begin_a_training_of_their_own() -> None:
    model = model_of()
    fit(model, optimizer := SGD(Cosine(0.1, steps=6)))
    model.train_on_batch(X, Y, optimizer)
    assert optimizer.rate == Cosine(0.1, steps=6)(1)
    fit(model, optimizer := SGD(Cosine(0.1)))
    weights = model.get_weights()
    with pytest.raises(ValueError, match="steps must be set for a schedule outside of fit"):
        model.train_on_batch(X, Y, optimizer)
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_running_fit_has_its_optimizer_to_itself() -> None:
    optimizer, started, go_on = Adam(Cosine(0.01)), Event(), Event()
    errors: list[str] = []

    class Waits(Callback):
        def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
            started.set()
            assert go_on.wait(60)

    first, result = model_of(1), []
    thread = Thread(
        target=lambda: result.append(
            first.fit(X, Y, optimizer=optimizer, callbacks=[Waits()], seed=1, verbose=0)
        )
    )
    thread.start()
    assert started.wait(60)
    second = model_of(2)
    for act in (
        lambda: second.fit(X, Y, optimizer=optimizer, verbose=0),
        lambda: second.train_on_batch(X, Y, optimizer),
        optimizer.reset,
    ):
        with pytest.raises(ValueError, match="optimizer must be one that"):
            act()
        errors.append("")
    assert second.progress is None
    go_on.set()
    thread.join()
    assert (len(errors), len(result)) == (3, 1)
    fit(second, optimizer)  # now it is free

    class Fails(Callback):
        def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        model_of(3).fit(X, Y, optimizer=optimizer, callbacks=[Fails()], verbose=0)
    fit(second, optimizer)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))]
)
def test_copies_keep_the_state_and_share_nothing(copied: Callable[[Any], Any]) -> None:
    model, optimizer = model_of(), SGD(Cosine(0.1, steps=20), momentum=0.9)
    for _ in range(3):
        model.train_on_batch(X, Y, optimizer)
    other, twin = copied(optimizer), copied(model)
    assert (other.step_count, other.rate) == (3, optimizer.rate)
    assert not np.shares_memory(other.state["velocity"], optimizer.state["velocity"])
    model.train_on_batch(X, Y, optimizer)
    twin.train_on_batch(X, Y, other)  # the pair goes on as the first pair does
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="for another model"):
        model.train_on_batch(X, Y, other)

    fit(model, mine := Adam())
    twin = copied(model)
    assert twin.optimizer is not mine
    fit(twin, twin.optimizer)
    fit(model, mine)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


SETTINGS: list[tuple[Callable[[], Optimizer], str, Any]] = [
    (lambda: SGD(0.1), "learning_rate", 0.01),
    (lambda: SGD(0.1), "momentum", 0.5),
    (lambda: SGD(0.1, momentum=0.5), "momentum", 0.9),
    (lambda: SGD(0.1, momentum=0.5), "momentum", 0.0),
    (lambda: SGD(0.1, momentum=0.5), "nesterov", True),
    (lambda: SGD(0.1), "weight_decay", 0.5),
    (lambda: SGD(0.1), "clip_norm", 0.01),
    (lambda: SGD(0.1, clip_norm=0.01), "clip_norm", None),
    (lambda: SGD(0.1), "clip_value", 0.001),
    (lambda: Adam(0.1), "beta_1", 0.5),
    (lambda: Adam(0.1), "beta_2", 0.5),
    (lambda: Adam(0.1), "epsilon", 0.5),
    (lambda: AdamW(0.1), "weight_decay", 0.5),
    (lambda: RMSprop(0.1), "rho", 0.5),
    (lambda: RMSprop(0.1), "momentum", 0.5),
    (lambda: RMSprop(0.1, momentum=0.5), "momentum", 0.0),
]


@pytest.mark.parametrize(("make", "name", "value"), SETTINGS)
def test_each_argument_may_be_set_between_steps(
    make: Callable[[], Optimizer], name: str, value: Any, tmp_path: Path
) -> None:
    """The next step is that of an optimizer which was made so, with the state that there is."""
    finals = []
    for engine in (None, "im2col"):
        model = Sequential([Flatten(), Dense(3)], (9, 8), seed=0, engine=engine)
        optimizer = make()
        model.train_on_batch(X, Y, optimizer)
        still = copy.deepcopy(model)
        setattr(optimizer, name, value)
        config = optimizer.config()
        made = type(optimizer)(**config)
        state = {k: a.copy() for k, a in optimizer.state.items() if k in made.slots_needed()}
        made.state, made.step_count = state, optimizer.step_count
        model.train_on_batch(X, Y, optimizer)
        still.train_on_batch(X, Y, made)
        for a, b in zip(model.get_weights(), still.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        finals.append(model.get_weights()[0])
        model.fit(X, Y, epochs=2, optimizer=optimizer, verbose=0)
        model.save_checkpoint(tmp_path / "c.safetensors")
        assert repr(load_model(tmp_path / "c.safetensors").optimizer) == repr(optimizer)
    np.testing.assert_allclose(finals[0], finals[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "name", "value", "error"),
    [
        (lambda: SGD(0.1), "momentum", 1.5, ValueError),
        (lambda: SGD(0.1), "nesterov", True, ValueError),
        (lambda: SGD(0.1, momentum=0.5, nesterov=True), "momentum", 0.0, ValueError),
        (lambda: SGD(0.1), "clip_norm", 0, ValueError),
        (lambda: SGD(0.1), "weight_decay", "much", TypeError),
        (lambda: SGD(0.1), "step_count", -1, ValueError),
        (lambda: SGD(0.1), "learning_rat", 0.5, AttributeError),
        (lambda: SGD(0.1), "lr", 0.5, AttributeError),
        (lambda: SGD(0.1), "step", print, AttributeError),
        (lambda: Adam(0.1), "beta_1", 1, ValueError),
        (lambda: RMSprop(0.1), "rho", -1, ValueError),
        (lambda: Cosine(0.1), "steps", 0, ValueError),
        (lambda: Cosine(0.1), "total", 0, ValueError),
        (lambda: Cosine(0.1), "rat", 0.5, AttributeError),
        (lambda: OneCycle(0.1), "rise", 1, ValueError),
        (lambda: OneCycle(0.1), "end", 0, ValueError),
        (lambda: Step(0.1, 3), "every", 0, ValueError),
        (lambda: CrossEntropy(), "label_smoothing", 1, ValueError),
        (lambda: CrossEntropy(), "smoothing", 0.1, AttributeError),
    ],
)
def test_what_may_not_be_set_is_refused_at_the_act(
    make: Callable[[], Any], name: str, value: Any, error: type[Exception]
) -> None:
    thing = make()
    before = repr(thing)
    with pytest.raises(error, match=name):
        setattr(thing, name, value)
    assert repr(thing) == before


class Halves(Schedule):
    """A schedule of a user's own, with state and attributes of its own."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.seen: list[int] = []

    def __call__(self, step: int) -> float:
        self.seen.append(step)
        return self.rate / 2**step


Schedule.registry.pop("Halves")  # other tests take every schedule that is known


def test_schedules_of_a_users_own_count_from_the_beginning_too() -> None:
    schedule = Halves(0.1)
    for _ in range(2):
        model = model_of()
        model.fit(X, Y, batch_size=10, optimizer=SGD(schedule), verbose=0)
        assert set(schedule.seen) <= {0, 1, 2}
    schedule.rate = 0.0
    weights = model.get_weights()
    model.fit(X, Y, optimizer=model.optimizer, verbose=0)
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loop_of_ones_own_says_how_many_steps_it_takes() -> None:
    x, y = np.eye(4, 3), [0, 1, 0, 1]
    for before in (None, "a fit", "a loop"):
        model = Sequential([Dense(2)], (3,), seed=0)
        optimizer = SGD(Cosine(0.1))
        if before == "a fit":
            model.fit(x, y, epochs=3, optimizer=optimizer, verbose=0)
        elif before == "a loop":
            optimizer.expect(2)
            model.train_on_batch(x, y, optimizer)
            model.train_on_batch(x, y, optimizer)
        optimizer.expect(5)
        rates = []
        for _ in range(5):
            rates.append(optimizer.rate)
            model.train_on_batch(x, y, optimizer)
        assert rates == [rate_at(Cosine(0.1), step, 5) for step in range(5)], before
