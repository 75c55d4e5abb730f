"""Each way of changing weights counts from the next prediction, whoever changes them and when."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, TypeGuard

import numpy as np
import pytest
from graphs import near, on_engine, same_bits

from fastcnn import Callback, Input, Model, Sequential, load_model
from fastcnn.callbacks import EarlyStopping
from fastcnn.core.arguments import Array
from fastcnn.layers import Add, BatchNorm, Conv2D, Dense, Flatten, Layer, MaxPool2D, Residual, Tanh
from fastcnn.losses import CrossEntropy
from fastcnn.models import shared_norms
from fastcnn.models.execution.compiled import CompiledSegment
from fastcnn.models.execution.executor import Executor
from fastcnn.models.execution.prepared import Prepared
from fastcnn.nn.layers import Arrays, Watch, all_layers
from fastcnn.optimizers import SGD, Adam, Optimizer

SHAPE = 5, 7, 3


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads change places as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def net(seed: int = 0, algorithm: Any = "winograd", **more: Any) -> Model:
    """Transformed filters, scales of normalisations, and weights that are read where they lie."""
    images = Input(SHAPE)
    convolution = Conv2D(6, 3, padding="same", algorithm=algorithm)
    x = BatchNorm()(convolution(images))
    x = Add()([x, Conv2D(6, (2, 1), padding="same")(images)])
    block = Residual([Conv2D(6, 3, padding="same", algorithm=algorithm), BatchNorm()])
    x = MaxPool2D()(block(Tanh()(x)))
    return Model(images, Dense(3)(Flatten()(x)), seed=seed, **more)


def data(count: int = 8) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, *SHAPE)).astype(np.float32), np.arange(count) % 3


def seen(model: Model, change: Callable[[], object]) -> None:
    """The change counts in the next prediction, and the one after it, of each batch size."""
    x, _ = data()
    before = model.predict(x)
    for count in (1, 8):
        model.predict(x[:count])  # all programs are made
    change()
    after = model.predict(x)
    near(after, on_engine(model, "naive").predict(x), 1e-4)
    assert not np.array_equal(after, before)
    same_bits(model.predict(x), after)
    same_bits(model.predict(x[:1]), after[:1])


class Descent(Optimizer):
    """An optimizer of a user's own, which keeps the flat array of all parameters."""

    def step(self, parameters: Array, gradient: Array) -> None:
        parameters -= self.rate * gradient
        self.flat = parameters


Optimizer.registry.pop("Descent")  # other tests take every optimizer that is known


class Halve(Callback):
    """Halves the first filters after each batch, and keeps what a prediction then says."""

    def __init__(self) -> None:
        self.predictions: list[tuple[Array, list[Array]]] = []

    def on_batch_end(self, model: Model, batch: int, logs: dict[str, float]) -> None:
        model.layers[0].parameters["w"] /= 2
        self.predictions.append((model.predict(data()[0]), model.get_weights()))


def test_set_weights() -> None:
    model, other = net(), net(seed=1)
    seen(model, lambda: model.set_weights(other.get_weights()))


@pytest.mark.parametrize("make", [SGD, Adam, lambda rate: SGD(rate, clip_norm=1.0)])
def test_a_step_on_a_batch(make: Callable[[float], Optimizer]) -> None:
    model, optimizer, (x, y) = net(), make(0.1), data()
    for _ in range(2):
        seen(model, lambda: model.train_on_batch(x, y, optimizer))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_prediction_in_the_middle_of_a_step_is_no_prediction_after_it(
    frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler may predict there; what it made of the old weights must not stay."""
    model, (x, y) = net(), data()
    if frozen:
        model.get_layer("dense").trainable = False
    name = "step_within" if frozen else "step"
    whole = getattr(SGD, name)

    def step(optimizer: SGD, *arguments: Any) -> None:
        model.predict(x)
        whole(optimizer, *arguments)

    monkeypatch.setattr(SGD, name, step)
    seen(model, lambda: model.train_on_batch(x, y, SGD(0.1)))


def test_a_step_on_a_batch_layer_by_layer() -> None:
    model, (x, y) = net(algorithm="auto"), data()

    def step() -> None:
        model.engine = "im2col"
        model.train_on_batch(x, y, SGD(0.1))
        model.engine = None

    seen(model, step)


def test_a_fit() -> None:
    model, (x, y) = net(), data()
    seen(model, lambda: model.fit(x, y, 2, 4, "adam", verbose=0))


def test_a_callback_in_the_middle_of_a_fit() -> None:
    model, (x, y), halving = net(), data(), Halve()
    model.fit(x, y, 2, 4, SGD(0.05), verbose=0, callbacks=[halving])
    assert len(halving.predictions) == 4
    for predicted, weights in halving.predictions:
        plain = on_engine(model, "naive")
        plain.set_weights(weights)
        near(predicted, plain.predict(x), 1e-4)


def test_a_callback_that_gives_the_best_weights_back() -> None:
    model, (x, y) = net(), data()
    stopping = EarlyStopping("loss", patience=1, restore_best=True)
    seen(model, lambda: model.fit(x, y, 4, 4, SGD(3.0), verbose=0, callbacks=[stopping]))


@pytest.mark.parametrize("place", ["layers", "block"])
def test_a_write_into_an_array_that_was_taken_before(place: str) -> None:
    model = net()
    layer, name = (model.layers[0], "w") if place == "layers" else (_block(model), "layers.0.w")
    held = layer.parameters[name]
    for value in (2, 0.5):
        seen(model, lambda value=value: np.multiply(held, value, out=held))  # type: ignore[misc]
    assert held is layer.parameters[name]


def _block(model: Model) -> Layer:
    return next(layer for layer in model.layers if isinstance(layer, Residual))


VIEWS: dict[str, Callable[[Array], Array]] = {
    "a view": lambda a: a[...],
    "a view of a view": lambda a: a[...][1:][::-1],
    "rows of another shape": lambda a: a.reshape(-1)[5:],
    "turned": lambda a: a.T.swapaxes(0, 1),
    "of bytes": lambda a: a.view(np.uint8).view(np.float32),
    "a flat iterator's array": lambda a: a.flat.base,
    "a memoryview": lambda a: np.asarray(memoryview(a)),
    "an array of its buffer": lambda a: np.frombuffer(a, np.float32),
    "broadcast": lambda a: np.lib.stride_tricks.as_strided(a, a.shape, a.strides, writeable=True),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_write_into_a_view_whose_array_nobody_has_any_more(name: str) -> None:
    model = net()
    view = VIEWS[name](model.layers[0].parameters["w"])
    gc.collect()
    for value in (2, 0.5):
        seen(model, lambda value=value: np.multiply(view, value, out=view))  # type: ignore[misc]


def _by_dict(arrays: dict[str, Array]) -> None:
    dict(arrays)["w"][...] *= 2


WRITES: dict[str, Callable[[dict[str, Array]], object]] = {
    "dict()": _by_dict,
    "a display": lambda arrays: np.multiply({**arrays}["w"], 2, out={**arrays}["w"]),
    "a copy of the dict": lambda arrays: arrays.copy()["w"].__imul__(2),
    "values": lambda arrays: [a.__imul__(2) for a in arrays.values()],
    "items": lambda arrays: [a.__imul__(2) for _, a in arrays.items()],
    "get": lambda arrays: arrays.get("w", np.ones(1)).__imul__(2),
    "a union": lambda arrays: (arrays | {})["w"].__imul__(2),
    "a union from the right": lambda arrays: ({} | arrays)["w"].__imul__(2),
    "an iteration": lambda arrays: [arrays[name].__imul__(2) for name in arrays],
    "an assignment": lambda arrays: arrays.__setitem__("w", arrays["w"] * 2),
    "update": lambda arrays: arrays.update(w=arrays["w"] * 2),
    "update with a dict": lambda arrays: arrays.update({"w": arrays["w"] * 2}),
    "an update in place": lambda arrays: arrays.__ior__({"w": arrays["w"] * 2}),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_through_the_dict_of_parameters(name: str) -> None:
    model = net()
    for _ in range(2):
        seen(model, lambda: WRITES[name](model.layers[0].parameters))


def test_all_parameters_at_once() -> None:
    model = net()
    layer = model.layers[0]

    def assign() -> None:
        new = {"w": layer.parameters["w"] * 2, "b": np.ones(6)}
        layer.parameters = new

    seen(model, assign)


@pytest.mark.parametrize("name", ["mean", "variance"])
@pytest.mark.parametrize("place", ["layers", "block"])
def test_running_statistics(name: str, place: str) -> None:
    model = net()
    if place == "layers":
        state, key = model.get_layer("batch_norm").state, name
    else:
        state, key = _block(model).state, f"layers.1.{name}"
    array = state[key]
    seen(model, lambda: array.__iadd__(0.5))
    seen(model, lambda: state.update({key: array * 2}))
    seen(model, lambda: state[key].__iadd__(0.25))


def test_a_checkpoint_that_is_resumed(tmp_path: Path) -> None:
    (x, y), path = data(), tmp_path / "training.safetensors"
    trained = net()
    trained.fit(x, y, 1, 4, SGD(0.1), verbose=0, seed=1)
    trained.save_checkpoint(path)
    model = net(seed=5)
    seen(model, lambda: model.fit(x, y, 1, 4, verbose=0, resume=path))
    same_bits(model.predict(x), trained.predict(x))
    same_bits(load_model(path).predict(x), trained.predict(x))


def test_an_optimizer_of_a_users_own_that_keeps_the_flat_array() -> None:
    """It may write to it at any time, after its step, and nobody is told."""
    model, (x, y), descent = net(), data(), Descent(0.1)
    seen(model, lambda: model.train_on_batch(x, y, descent))
    for _ in range(2):
        seen(model, lambda: descent.flat.__imul__(1.5))
    copied = pickle.loads(pickle.dumps(model))
    before = copied.predict(x)
    descent.flat *= 2
    same_bits(copied.predict(x), before)


def test_an_optimizers_step_that_fails_in_the_middle() -> None:
    """The parameters are what they were, and predictions say so."""

    class Failing(Descent):
        def step(self, parameters: Array, gradient: Array) -> None:
            parameters[: parameters.size // 2] *= 2
            raise KeyError("in the middle")

    Optimizer.registry.pop("Failing")
    model, (x, y) = net(), data()
    before = model.predict(x)
    with pytest.raises(KeyError, match="in the middle"):
        model.train_on_batch(x, y, Failing(0.1))
    near(model.predict(x), on_engine(model, "naive").predict(x), 1e-4)
    same_bits(model.predict(x), before)


class Looking(Layer):
    """A layer of a user's own, whose ``backward`` predicts with the model and then fails."""

    def infer(self, input_shape: Any) -> Any:
        return input_shape

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        return x.copy(), None

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        vars(self)["look"]()
        raise RuntimeError("no gradient")


Layer.registry.pop("Looking")  # other tests take every layer that is known


@pytest.mark.parametrize("engine", [None, "im2col"])
def test_statistics_that_an_error_restores_count_from_the_next_prediction(
    engine: str | None,
) -> None:
    """The prediction in the middle of the step has read others."""
    images, (x, y) = Input(SHAPE), data()
    scaled = BatchNorm()(Looking()(Conv2D(4, 1)(images)))
    model = Model(images, Dense(3)(Flatten()(Conv2D(2, 1)(scaled))), seed=0)
    model.engine = engine
    predictions, before = [model.predict(x)], [a.tobytes() for a in model.get_weights()]
    vars(model.layers[1])["look"] = lambda: predictions.append(model.predict(x))
    with pytest.raises(RuntimeError, match="no gradient"):
        model.train_on_batch(x, y, SGD(0.1))
    first, middle = predictions
    assert not np.array_equal(first, middle)
    same_bits(model.predict(x), first)
    assert [a.tobytes() for a in model.get_weights()] == before


def test_weights_that_change_while_filters_are_made_count_from_the_next_prediction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By another thread, or by a signal handler: what was made of the old ones must not stay."""
    model, other, (x, _) = net(), net(seed=1), data()
    model.predict(x)
    model.layers[0].parameters["w"] *= 2
    make_version, changes = Prepared._make_version, [other.get_weights()]

    def make_and_change(prepared: Prepared, *arguments: Any) -> Any:
        version = make_version(prepared, *arguments)
        if changes:
            model.set_weights(changes.pop())
        return version

    monkeypatch.setattr(Prepared, "_make_version", make_and_change)
    model.predict(x)
    assert not changes
    same_bits(model.predict(x), other.predict(x))


def test_copies_have_arrays_and_watches_of_their_own() -> None:
    model, (x, _) = net(), data()
    held, before = model.layers[0].parameters["w"], model.predict(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        same_bits(other.predict(x), before)
        other_held = other.layers[0].parameters["w"]
        other_held *= 2
        near(other.predict(x), on_engine(other, "naive").predict(x), 1e-4)
        same_bits(model.predict(x), before)
    held *= 3
    near(model.predict(x), on_engine(model, "naive").predict(x), 1e-4)


# --- the watch itself -----------------------------------------------------------------------------


def arrays_of(watch: Watch) -> Arrays:
    arrays = Arrays(a=np.zeros((2, 3)), b=np.ones(4))
    arrays.watch = watch
    return arrays


def test_a_version_stays_as_long_as_nobody_can_have_written() -> None:
    watch = Watch()
    arrays = arrays_of(watch)
    first = watch.version()
    assert watch.version() == first
    held = arrays["a"]
    versions = [watch.version() for _ in range(3)]
    assert len({first, *versions}) == 4, "as long as somebody has the array"
    view = held[1:]
    del held
    assert watch.version() not in versions, "a view keeps its array"
    del view
    last = watch.version()
    assert last not in versions, "it may have been written to before it went away"
    assert watch.version() == watch.version() == last
    watch.changed()
    assert watch.version() != last
    watch.always = True
    assert watch.version() != watch.version()


def test_an_array_of_an_interrupt_is_watched_too() -> None:
    """Somebody else asks for the array while it is handed out, and holds what comes."""
    held: list[Array] = []

    class Late(Watch):
        def hand_out(self, array: Array) -> None:
            if not held:
                held.append(array)  # no request of its own begins in this one
                held.append(arrays["a"])
                versions = [self.version() for _ in range(3)]
                assert len(set(versions)) == 3, "as long as somebody has the array"
            super().hand_out(array)

    arrays = arrays_of(Late())
    held.append(arrays["a"])
    assert arrays.watch.version() != arrays.watch.version()
    assert len(held) == 3


class Interrupted(Watch):
    """A watch in whose look at the arrays something else comes in between, once."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Callable[[], object]] = []
        self.after: list[Callable[[], object]] = []

    def _is_held(self) -> bool:
        while self.before:
            self.before.pop()()
        held = super()._is_held()
        while self.after:
            self.after.pop()()
        return held


def test_what_happens_during_a_look_at_the_arrays_counts_afterwards() -> None:
    watch, versions = Interrupted(), list[int]()
    held = [arrays_of(watch)["a"]]

    def another_thread() -> None:
        versions.append(watch.version())
        held.clear()  # who had the array has written to it

    watch.before.append(another_thread)
    version = watch.version()
    assert version not in versions
    assert watch.version() == version

    arrays = arrays_of(watch)
    assert not arrays["a"].any()  # nobody has the array afterwards
    watch.after.append(lambda: held.append(arrays["a"]))
    version = watch.version()
    assert len({version, watch.version(), watch.version()}) == 3, "somebody has the array"


def test_an_assignment_is_noted_after_the_values_are_written() -> None:
    values = list[Any]()

    class Noting(Watch):
        def changed(self) -> None:
            values.append(arrays.own()["b"].tolist())

    arrays = arrays_of(Noting())
    arrays["b"] = [1, 2, 3, 4]
    arrays.update(b=np.zeros(4))
    assert values == [[1, 2, 3, 4], [0, 0, 0, 0]]


def test_arrays_hand_out_one_object_as_long_as_somebody_has_it() -> None:
    arrays = arrays_of(Watch())
    held = arrays["a"]
    assert arrays["a"] is held is arrays.get("a")
    assert arrays.values()[0] is arrays.items()[0][1] is dict(arrays)["a"] is held
    held.shape = (6,)  # in place, which nobody else's array follows
    assert arrays["a"].shape == (2, 3)
    arrays["a"][0, 1] = 5
    assert held[1] == 5
    assert arrays.own()["a"][0, 1] == 5
    with pytest.raises(KeyError):
        arrays["c"]
    assert arrays.get("c", 3) == 3
    assert list(arrays) == list(arrays.keys()) == ["a", "b"]
    assert len(arrays) == 2
    assert "a" in arrays
    assert "c" not in arrays


def test_what_c_code_reads_cannot_be_written_to() -> None:
    arrays = arrays_of(Watch())
    past = dict.__getitem__(arrays, "a")
    with pytest.raises(ValueError, match="read-only"):
        past[0] = 1


def test_arrays_refuse_what_no_layer_has_and_write_nothing_then() -> None:
    arrays = arrays_of(Watch())
    for change, error, text in [
        (lambda: arrays.update(a=np.ones((2, 3)), c=1), ValueError, "has the arrays a, b, got 'c'"),
        (lambda: arrays.update(a=np.ones((2, 3)), b=[1]), ValueError, "b must hold numbers of"),
        (lambda: arrays.__setitem__("a", "text"), ValueError, "a must hold numbers"),
        (lambda: arrays.pop("a"), TypeError, "cannot be taken away or added"),
        (lambda: arrays.popitem(), TypeError, "cannot be taken away or added"),
        (lambda: arrays.clear(), TypeError, "cannot be taken away or added"),
        (lambda: arrays.setdefault("c", np.ones(1)), TypeError, "cannot be taken away or added"),
        (lambda: arrays.__delitem__("a"), TypeError, "cannot be taken away or added"),
    ]:
        with pytest.raises(error, match=text):
            change()
    assert not arrays["a"].any()
    plain = pickle.loads(pickle.dumps(arrays))
    assert type(plain) is type(copy.deepcopy(arrays)) is dict


# --- other threads --------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurried")
def test_no_write_is_lost_while_other_threads_ask_for_the_version() -> None:
    """What a thread has written and let go is in the version that is asked for afterwards."""
    watch, ends = Watch(), Event()
    arrays = arrays_of(watch)
    noted: dict[int, float] = {}
    wrong = list[str]()

    def ask() -> None:
        while not ends.is_set():
            watch.version()

    threads = [Thread(target=ask) for _ in range(3)]
    for one in threads:
        one.start()
    try:
        end = monotonic() + 1.5
        value = 0.0
        while monotonic() < end and not wrong:
            before = watch.version()
            value += 1
            arrays["a"][0, 0] = value  # nobody has it afterwards
            after = watch.version()
            if after == before:
                wrong.append(f"the version is still {after} after a write")
            if noted.setdefault(after, value) != value:
                wrong.append(f"version {after} stands for two values")
    finally:
        ends.set()
        for one in threads:
            one.join()
    assert not wrong


@pytest.mark.usefixtures("hurried")
def test_threads_that_predict_see_one_of_two_versions() -> None:
    """A number changes back and forth in one write: each result is that of one of both values.

    A prediction that begins after a write has ended never has the value from before it.
    """
    model, (x, _) = net(), data(3)
    w = model.layers[0].parameters["w"]
    place, both = (1, 1, 2, 3), (w[1, 1, 2, 3], np.float32(2.5))
    expected = []
    for value in both:
        w[place] = value
        expected.append(model.predict(x).tobytes())
    assert expected[0] != expected[1]
    del w
    ends, wrong, seen_by_threads = Event(), list[str](), list[int]()

    def predict() -> None:
        while not ends.is_set():
            actual = model.predict(x).tobytes()
            if actual not in expected:
                wrong.append("a mixture")
                return
            seen_by_threads.append(expected.index(actual))

    threads = [Thread(target=predict) for _ in range(2)]
    for one in threads:
        one.start()
    try:
        end, turn = monotonic() + 3, 0
        while monotonic() < end and not wrong:
            turn += 1
            model.layers[0].parameters["w"][place] = both[turn % 2]
            for _ in range(2):
                if model.predict(x).tobytes() != expected[turn % 2]:
                    wrong.append("a prediction after the write has the value from before it")
    finally:
        ends.set()
        for one in threads:
            one.join()
    assert not wrong
    assert {*seen_by_threads} == {0, 1}, "the threads never saw both"


def test_an_executor_and_statistics_of_shards_read_arrays_without_a_hand_out() -> None:
    model = net()
    watch, norm = (
        model._weights.watch,
        next(one for one in all_layers(model.layers) if is_norm(one)),
    )
    watch.version()
    before = watch.version()
    executor = Executor(model._graph, model._weights, [SHAPE])
    assert executor.explain()
    x, moments = np.ones((2, 3, 6), np.float32), np.ones((3, 6))
    y = shared_norms.forward(norm, x, moments, "im2col")
    shared_norms.backward(norm, y, x, moments, np.ones((2, 6)), "im2col")
    assert watch.version() == before
    shared_norms.follow(norm, moments)
    assert watch.version() > before


def is_norm(layer: Layer) -> TypeGuard[BatchNorm]:
    return isinstance(layer, BatchNorm)


@pytest.mark.parametrize("needs_dx", [False, True])
def test_a_segment_returns_no_gradient_that_nothing_needs(needs_dx: bool) -> None:
    model = Sequential([Dense(3)], input_shape=(4,), seed=0)
    segment = CompiledSegment(model.layers, model._weights, needs_dx)
    x, rng = np.ones((5, 4), np.float32), np.random.default_rng(0)
    result = segment.forward(x, rng)
    assert result is not None
    y, saved = result
    dx = segment.backward(np.ones_like(y), saved)
    step = segment.step(x, np.zeros(5, np.int64), CrossEntropy(), None)
    assert step is not None
    for gradient in (dx, step[2]):
        assert (None if gradient is None else gradient.shape) == (x.shape if needs_dx else None)
