"""What was checked is what is used: no array that a caller changes later leads beyond another."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import guarded
import numpy as np
import pytest
from processes import python
from tiny import net, stripes

from fastcnn import Augment, Callback, Sequential, cross_entropy, cross_entropy_backward
from fastcnn.core.arguments import Array
from fastcnn.engine.numba.elementwise import loss as loss_kernels
from fastcnn.layers import BatchNorm, Conv2D, Dense, Flatten, MaxPool2D, Residual
from fastcnn.losses import CrossEntropy
from fastcnn.optimizers import SGD, Adam

NO_CLASSES = (3, -1, 50_000, 10**12, -(10**12), 2**63 - 1, -(2**63))


class Changes(Callback):
    """Does something to arrays of the caller after each epoch."""

    def __init__(self, change: Callable[[], object]) -> None:
        super().__init__()
        self.change = change

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        self.change()


TRAINING = """
import sys
import numpy as np
import fastcnn
from fastcnn.losses import CrossEntropy
from tiny import net, stripes

engine, smoothing, *values = sys.argv[1:]

class Changes(fastcnn.Callback):
    def on_epoch_end(self, model, epoch, logs):
        if changes:
            y[...] = value
            held_out[...] = value

for value in map(int, values):
    print(value, end=": ", flush=True)
    ends = []
    for changes in (False, True):
        x, y = stripes(40)
        held_out = y.copy()
        model = fastcnn.Sequential(net(), (9, 8), seed=0, engine=engine or None)
        history = model.fit(
            x, y, epochs=3, batch_size=16, verbose=0, callbacks=[Changes()],
            validation_data=(x, held_out), loss=CrossEntropy(float(smoothing)),
        )
        ends.append((model.get_weights(), history.history["loss"], history.history["val_loss"]))
    (a, *losses), (b, *others) = ends
    assert losses == others, (losses, others)
    for one, other in zip(a, b):
        np.testing.assert_array_equal(one, other)
    print("same")
"""


@pytest.mark.parametrize(("engine", "smoothing"), [("", 0), ("numba", 0.1), ("im2col", 0)])
def test_a_training_uses_the_labels_that_it_has_checked(engine: str, smoothing: float) -> None:
    """Labels of the training and of the validation, changed between two epochs."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{TRAINING}"
    values = [str(value) for value in (3, -1, 50_000, 10**12)]  # the last may end the process
    lines = python("-c", code, engine, str(smoothing), *values).stdout.splitlines()
    assert lines == [f"{value}: same" for value in values]


@pytest.mark.parametrize("border", ["first", "last"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_read_and_write_nothing_by_a_label_that_is_no_class(
    border: Any, dtype: str
) -> None:
    """Even where nobody has checked it; the sample's result is NaN, others are what they were."""
    rng = np.random.default_rng(0)
    logits = guarded.guarded_copy(rng.standard_normal((9, 3)).astype(dtype), border)
    good = rng.integers(3, size=9)
    wrong = np.arange(7) + 1
    labels = good.copy()
    labels[wrong] = NO_CLASSES
    losses, gradient = (
        f(logits, guarded.guarded_copy(labels, border))
        for f in (loss_kernels.cross_entropy, loss_kernels.cross_entropy_backward)
    )
    expected = cross_entropy(logits, good, reduction="none")
    slopes = cross_entropy_backward(logits, good, reduction="none")
    assert np.isnan(losses[wrong]).all()
    assert np.isnan(gradient[wrong]).all()
    for i in (0, 8):
        assert losses[i] == expected[i]
        np.testing.assert_array_equal(gradient[i], slopes[i])


@pytest.mark.parametrize("value", NO_CLASSES)
def test_a_step_of_the_compiled_net_changes_nothing_by_a_label_that_is_no_class(
    value: int,
) -> None:
    x, y = stripes(5)
    model = Sequential(net(), (9, 8), seed=0)
    executor = model._executor(model._trunk(CrossEntropy()))
    assert executor is not None
    y[3] = value
    before = model.get_weights()
    samples = model._executor_inputs(x[..., None], executor, training=True)
    result = executor.step(samples, y, CrossEntropy(), model.rng, SGD())
    assert result is None, "single operations must decide, and refuse the label"
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"labels must be at least 0 and below 3"):
        model._step(x[..., None], y, CrossEntropy(), SGD())


def test_labels_that_another_thread_changes_are_taken_or_refused() -> None:
    x, y = stripes(64)
    good, ends = y.copy(), threading.Event()
    model = Sequential(net(), (9, 8), seed=0)
    scores = model.predict(x)

    def change() -> None:
        while not ends.is_set():
            for labels in (2**40, good):
                y[:] = labels
                sleep(0)  # the interpreter changes threads here

    thread = threading.Thread(target=change)
    thread.start()
    errors = list[str]()
    try:
        end = monotonic() + 2
        while monotonic() < end:
            for call in (
                lambda: model.train_on_batch(x, y),
                lambda: model.evaluate(x, y),
                lambda: cross_entropy(scores, y),
                lambda: cross_entropy_backward(scores, y),
            ):
                try:
                    call()
                except ValueError as error:
                    errors.append(str(error))
    finally:
        ends.set()
        thread.join()
    assert errors, "the thread never came between"
    assert all("must be at least 0 and below 3" in error for error in errors)
    assert all(np.isfinite(w).all() for w in model.get_weights())


def reshaped(array: Array, shape: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        array.shape = shape


def test_samples_may_get_another_shape_in_place_while_a_training_runs() -> None:
    ends = []
    for changes in (False, True):
        x, y = stripes(40)
        x = x[..., None].astype(np.float32)
        targets = np.eye(3, dtype=np.float32)[y]
        held_out = x.copy()

        def change(x: Array = x, held_out: Array = held_out, targets: Array = targets) -> None:
            reshaped(x, (40 * 9, 8, 1, 1))
            reshaped(held_out, (40 * 9, 8, 1, 1))
            reshaped(targets, (120, 1))

        callbacks = [Changes(change)] if changes else []
        model = Sequential(net(), (9, 8), seed=0)
        history = model.fit(
            x, targets, epochs=2, loss="mse", validation_data=(held_out, targets.copy()),
            callbacks=callbacks, verbose=0,
        )  # fmt: skip
        ends.append((model.get_weights(), history.history["val_loss"]))
    assert ends[0][1] == ends[1][1]
    for a, b in zip(ends[0][0], ends[1][0], strict=True):
        np.testing.assert_array_equal(a, b)


WRONG_BATCHES: dict[str, Callable[[Array, Any], Any]] = {
    "twice as many": lambda a, rng: np.concatenate([a, a]),
    "one fewer": lambda a, rng: a[:-1],
    "smaller": lambda a, rng: a[:, 1:-1, 1:-1],
    "more channels": lambda a, rng: np.repeat(a, 3, axis=3),
    "without channels": lambda a, rng: a[..., 0],
    "nothing": lambda a, rng: None,
    "floats for bytes": lambda a, rng: a / 255,
    "complex": lambda a, rng: a + 1j,
}


@pytest.mark.parametrize("what", WRONG_BATCHES)
def test_an_augmentation_must_return_the_batch_that_the_net_takes(what: str) -> None:
    x, y = stripes(40)
    model = Sequential(net(), (9, 8), seed=0)
    before = model.get_weights()
    with pytest.raises((TypeError, ValueError), match="augment must return images of "):
        model.fit(x, y, augment=WRONG_BATCHES[what], verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_augmentation_may_widen_floats_and_crop() -> None:
    x, y = stripes(40)
    floats = x.astype(np.float32)
    noise = Sequential(net(), (9, 8), seed=0)
    noise.fit(floats, y, augment=lambda a, rng: a + rng.normal(size=a.shape), verbose=0)
    crop = Sequential(net(), (7, 8), seed=0)
    crop.fit(x, y, augment=Augment(crop=(7, 8)), verbose=0)
    assert all(np.isfinite(w).all() for one in (noise, crop) for w in one.get_weights())


# --- arrays of layers and optimizers --------------------------------------------------------------


def shaped_anew(model: Sequential) -> None:
    for layer in model.layers:
        for array in layer.parameters.values():
            reshaped(array, (array.size, *(1 for _ in array.shape[1:])))


def test_compiled_programs_take_no_sizes_from_arrays_in_reach_of_the_user() -> None:
    x, y = stripes(40)
    layers = [Conv2D(4, 3, padding="same"), MaxPool2D(), *net()]
    models = [Sequential(layers, (9, 8), seed=0) for _ in range(2)]
    shaped_anew(models[1])
    for size in (1, 5, 40):
        a, b = (model.predict(x[:size]) for model in models)
        np.testing.assert_array_equal(a, b)
        losses = [model.train_on_batch(x[:size], y[:size]) for model in models]
        assert losses[0] == losses[1]


@pytest.mark.parametrize("engine", [None, "im2col"])
def test_assigned_parameters_count_in_each_batch_size(engine: str | None) -> None:
    x, _ = stripes(4)
    block = Residual([Conv2D(1, 3, padding="same"), BatchNorm()])
    model = Sequential([block, Flatten(), Dense(3)], (9, 8), seed=0, engine=engine)
    other = Sequential([block, Flatten(), Dense(3)], (9, 8), seed=1)
    for size in (1, 2):
        model.predict(x[:size])
    for layer, values in zip(model.layers, other.layers, strict=True):
        for name, array in values.parameters.items():
            held = layer.parameters[name]
            layer.parameters[name] = array.astype(np.float64)
            assert layer.parameters[name] is held
    model.layers[0].state["layers.1.mean"] = other.layers[0].state["layers.1.mean"] = [0.5]
    expected = other.predict(x)
    for size in (1, 2, 4):
        np.testing.assert_allclose(model.predict(x[:size]), expected[:size], rtol=1e-4)
    dense = model.layers[2]
    dense.parameters = {"w": np.zeros((72, 3)), "b": np.array([0, 0, 500])}  # type: ignore[assignment]
    for size in (1, 2, 4):
        np.testing.assert_array_equal(model.predict(x[:size]), np.tile([0.0, 0, 1], (size, 1)))
    before = dense.parameters["b"].copy()
    changes: list[Callable[[], object]] = [
        lambda: dense.parameters.update(b=np.ones(3), w=np.zeros((3, 72))),
        lambda: dense.parameters.update(b=np.ones(3), v=np.zeros(3)),
        lambda: setattr(dense, "parameters", {"b": np.ones(3)}),
        lambda: setattr(dense, "parameters", None),
    ]
    for change in changes:
        with pytest.raises(ValueError, match=r"must hold numbers|has the arrays|must be a dict"):
            change()
    with pytest.raises(TypeError, match="cannot be taken away"):
        del dense.parameters["b"]
    with pytest.raises(TypeError, match="cannot be taken away"):
        dense.parameters.clear()
    np.testing.assert_array_equal(dense.parameters["b"], before)


def test_an_optimizer_refuses_arrays_that_its_loop_would_leave() -> None:
    x, y = stripes(8)
    for optimizer, slot in ((SGD(0.1, momentum=0.9), "velocity"), (Adam(), "mean")):
        model = Sequential(net(), (9, 8), seed=0)
        model.train_on_batch(x, y, optimizer)
        name = slot if slot in optimizer.state else next(iter(optimizer.state))
        state = optimizer.state[name]
        before = model.get_weights()
        read_only = state.copy()
        read_only.setflags(write=False)
        for wrong in (np.repeat(state, 2)[::2], read_only, state[:-1], state.astype(np.float64)):
            optimizer.state[name] = wrong
            with pytest.raises(ValueError, match=r"state\[|optimizer has taken steps"):
                model.train_on_batch(x, y, optimizer)
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="gradient must have the parameters' shape"):
        SGD(0.1).step(np.zeros(100_000), np.zeros(3))
    with pytest.raises(ValueError, match="gradient must have the parameters' shape"):
        Adam().step(np.zeros(4), np.zeros(4, np.float32))
