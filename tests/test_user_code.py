"""What objects of a user's own return is converted, or refused by name, in every engine."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import misbehaving
import numpy as np
import pytest
from misbehaving import DIVERGED, RIGHT, WRONG, Descent, Distance, Rates, Scale
from tiny import net, stripes

import fastcnn
from fastcnn import Augment, Sequential
from fastcnn.callbacks import LearningRateSchedule
from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Residual,
    Spec,
)
from fastcnn.losses import CrossEntropy, Loss, MeanSquaredError
from fastcnn.optimizers import SGD, Adam, Optimizer
from fastcnn.schedules import Schedule

ENGINES = (None, *fastcnn.engines())
SHAPE = (5, 4, 2)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Classes that a test defines are not known to other tests."""
    known = Layer.registry, Loss.registry, Optimizer.registry, Schedule.registry
    before = [set(one) for one in known]
    yield
    for one, names in zip(known, before, strict=True):
        for name in set(one) - names:
            one.pop(name)


def data(count: int = 6) -> tuple[Array, Array]:
    """Samples of small integers, and targets of two numbers."""
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (count, *SHAPE)).astype(np.float32)
    return x, rng.integers(-3, 4, (count, 2)).astype(np.float32)


PLACES: dict[str, Callable[[Layer], list[Layer]]] = {
    "first": lambda one: [one, Conv2D(3, (2, 3), activation="relu"), Flatten(), Dense(2)],
    "between": lambda one: [Conv2D(3, 2), one, MaxPool2D(), Flatten(), Dense(2)],
    "before a dense layer": lambda one: [Conv2D(2, 2), ReLU(), Flatten(), one, Dense(2)],
    "in a block": lambda one: [Conv2D(2, 2), Residual([one], activation="relu"), Flatten(),
                               Dense(2)],
    "in a shortcut": lambda one: [
        Conv2D(2, 2), Residual([Conv2D(2, 1)], [one]), Flatten(), Dense(2)
    ],
    "last": lambda one: [Conv2D(2, 2), Flatten(), Dense(2), one],
    "alone": lambda one: [Flatten(), Dense(2), BatchNorm(), one],
}  # fmt: skip


def model(place: str, layer: Layer, engine: str | None, loss: Loss | None = None) -> Sequential:
    built = Sequential(PLACES[place](layer), SHAPE, seed=1, engine=engine)
    built.loss = MeanSquaredError() if loss is None else loss
    return built


def bits(model: Sequential) -> list[bytes]:
    return [array.tobytes() for array in model.get_weights()]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", ["output", "dx", "dw"])
def test_layers(method: str, place: str, engine: str | None) -> None:
    x, y = data()
    good = model(place, Scale(), engine)
    predicted = good.predict(x)
    for _ in range(2):
        good.train_on_batch(x, y)
    for change in RIGHT:
        same = model(place, Scale(method, change), engine)
        np.testing.assert_array_equal(same.predict(x), predicted, err_msg=change)
        for _ in range(2):
            same.train_on_batch(x, y)
        assert bits(same) == bits(good), change
    asked = method != "dx" or place not in ("first",)  # nobody asks for the gradient of samples
    for change in WRONG:
        wrong = model(place, Scale(method, change), engine)
        before = bits(wrong)
        message = f"Scale(place={method!r}, change={change!r})"
        where = (
            f"{re.escape(message)}.{'forward' if method == 'output' else 'backward'} must return "
        )
        if method == "output":
            with pytest.raises((TypeError, ValueError), match=where):
                wrong.predict(x)
        if asked:
            with pytest.raises((TypeError, ValueError), match=where):
                wrong.train_on_batch(x, y)
        assert bits(wrong) == before, change
    if method != "output" and asked:
        for change in DIVERGED:
            wrong = model(place, Scale(method, change), engine)
            before = bits(wrong)
            with pytest.raises(FloatingPointError, match="backward returned a gradient of"):
                wrong.train_on_batch(x, y)
            assert bits(wrong) == before, change


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", ["targets", "values", "gradient", "correct", "predictions"])
def test_losses(method: str, engine: str | None) -> None:
    x, y = data()
    good = model("between", Scale(), engine, Distance())
    predicted, actual = good.predict(x), good.train_on_batch(x, y)
    for change in RIGHT if method != "correct" else ("itself", "float64", "list"):
        same = model("between", Scale(), engine, Distance(method, change))
        np.testing.assert_array_equal(same.predict(x), predicted, err_msg=change)
        assert same.train_on_batch(x, y) == actual, change
        assert bits(same) == bits(good), change
    allowed = {
        "targets": {"one of each", "one more of each", "more axes"},
        "predictions": {"one of each", "one more of each"},
        "correct": {"number", "no axes"},
    }
    for change in WRONG:
        if change in allowed.get(method, ()):
            continue
        if method == "correct" and change not in ("nothing", "text", "complex", "words", "type"):
            continue  # the right result has no axes
        loss = Distance(method, change)
        wrong = model("between", Scale(), engine, loss)
        before = bits(wrong)
        message = f"{re.escape(repr(loss))}.{method} must return "
        if method == "predictions":
            with pytest.raises((TypeError, ValueError), match=message):
                wrong.predict(x)
            continue
        with pytest.raises((TypeError, ValueError), match=message):
            wrong.train_on_batch(x, y)
        if method not in ("gradient", "targets"):
            with pytest.raises((TypeError, ValueError), match=message):
                wrong.evaluate(x, y)
        assert bits(wrong) == before, change
    for change in DIVERGED if method in ("values", "gradient") else ():
        wrong = model("between", Scale(), engine, Distance(method, change))
        before = bits(wrong)
        with pytest.raises(FloatingPointError):
            wrong.train_on_batch(x, y)
        assert bits(wrong) == before, change


def test_more_right_samples_than_there_are() -> None:
    class Boasting(Distance):
        def correct(self, outputs: Array, targets: Array) -> float:
            return len(outputs) + 0.5

    x, y = data()
    with pytest.raises(ValueError, match=r"correct must return a number from 0 to 6, got 6\.5"):
        model("last", Scale(), None, Boasting()).evaluate(x, y)


@pytest.mark.parametrize("engine", ENGINES)
def test_methods_cannot_write_to_what_others_read(engine: str | None) -> None:
    class Doubling(Scale):
        def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
            x *= 2
            return super().forward(x, training, rng, engine)

    class Shifting(Distance):
        def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Any:
            outputs -= targets
            return np.square(outputs).sum(axis=1)

    x, y = data()
    before, targets = x.copy(), y.copy()
    for place in PLACES:
        with pytest.raises(ValueError, match="read-only"):
            model(place, Doubling(), engine).predict(x)
    shifting = model("between", Scale(), engine, Shifting())
    with pytest.raises(ValueError, match="read-only"):
        shifting.train_on_batch(x, y)
    with pytest.raises(ValueError, match="read-only"):
        shifting.evaluate(x, y)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(y, targets)


@pytest.mark.parametrize("engine", ENGINES)
def test_results_do_not_depend_on_arrays_that_are_used_again(engine: str | None) -> None:
    class Buffered(Scale):
        def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
            memory = vars(self).setdefault("memory", {})
            out = memory.setdefault(x.shape, np.empty_like(x))
            return np.multiply(x, self.parameters["w"], out=out), x

    x, _ = data(7)
    expected = model("last", Scale(), engine).predict(x)
    buffered = model("last", Buffered(), engine)
    first = buffered.predict(x, batch_size=2)
    np.testing.assert_array_equal(first, expected)
    buffered.predict(x[::-1])
    np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("base", [Conv2D, Dense, ReLU, MaxPool2D, Dropout])
def test_a_class_derived_from_a_built_in_one_is_run_as_it_is_written(
    base: Any, engine: str | None
) -> None:
    class Negative(base):  # type: ignore[misc]
        def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
            y, saved = super().forward(x, training, rng, engine)
            return -y, saved

    settings: dict[Any, tuple[Any, ...]] = {Conv2D: (2, 2), Dense: (3,), Dropout: (0.5,)}
    arguments = settings.get(base, ())
    before: list[Layer] = [Flatten()] if base is Dense else [Conv2D(2, 2)]
    x, _ = data()
    plain = Sequential([*before, base(*arguments)], SHAPE, seed=0, engine=engine)
    turned = Sequential([*before, Negative(*arguments)], SHAPE, seed=0, engine=engine)
    for one in (plain, turned):
        one.loss = MeanSquaredError()
    np.testing.assert_array_equal(turned.predict(x), -plain.predict(x))


# --- shapes, specs and parameters -----------------------------------------------------------------


def layer(**methods: Any) -> Layer:
    """A layer of the user's own with other methods."""
    kind: Any = type("Other", (Scale,), methods)
    return kind()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "shape",
    [None, 3, (), (0,), (-1, 2), (2.0,), (True,), "34", {"features": 3}, (None,), [[3]]],
    ids=repr,
)
def test_shapes_that_are_none(shape: Any) -> None:
    wrong = layer(infer=lambda self, input_shape: shape)
    with pytest.raises((TypeError, ValueError), match=r"Other\(\)\.infer must return the output's"):
        Sequential([wrong, Dense(2)], (3,))


def test_a_shape_may_be_a_list_of_numpys_integers() -> None:
    same = layer(infer=lambda self, shape: [*map(np.int64, shape)])
    assert Sequential([same, Dense(2)], (3,)).layers[0].output_shape == (3,)
    assert type(Sequential([same], (3,)).output_shape[0]) is int  # type: ignore[index]


@pytest.mark.parametrize("method", ["parameter_specs", "state_specs"])
@pytest.mark.parametrize(
    "specs",
    [
        None,
        [Spec((3,), "ones")],
        {"v": (3,)},
        {"v": np.zeros(3)},
        {"v": None},
        {3: Spec((3,), "ones")},
        {"": Spec((3,), "ones")},
        {"v": Spec((-3,), "ones")},
        {"v": Spec((0,), "ones")},
        {"v": Spec(3, "ones")},  # type: ignore[arg-type]
        {"v": Spec((3,), "mine")},
        {"v": Spec((3,), np.zeros)},  # type: ignore[arg-type]
        {"v": Spec((3,), "he_normal", 0)},
        {"v": Spec((3,), "he_normal", -1)},
        {"v": Spec((3,), "glorot_uniform", 1, 0.5)},  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_specs_that_are_none(method: str, specs: Any) -> None:
    wrong = layer(**{method: lambda self, input_shape: specs})
    with pytest.raises((TypeError, ValueError), match=rf"Other\(\)\.{method} must return "):
        Sequential([wrong, Dense(2)], (3,))


def test_a_name_of_a_parameter_and_of_a_state() -> None:
    wrong = layer(state_specs=lambda self, shape: {"w": Spec((3,), "ones")})
    with pytest.raises(ValueError, match="must return names that no parameter has, got 'w'"):
        Sequential([wrong], (3,))


@pytest.mark.parametrize(
    "arrays",
    [
        {"w": np.zeros(4)},
        {"w": np.zeros((3, 1))},
        {"w": None},
        {"w": np.zeros(3, complex)},
        {"w": np.full(3, np.nan)},
        {},
        {"w": np.zeros(3), "v": np.zeros(3)},
        [np.zeros(3)],
        None,
    ],
    ids=repr,
)
def test_parameters_that_a_layer_must_not_make(arrays: Any) -> None:
    def build(self: Any, input_shape: Any, rng: Any, dtype: Any = np.float32) -> Any:
        self.parameters = arrays

    with pytest.raises((TypeError, ValueError), match=r"Other\(\)\.build must "):
        Sequential([layer(build=build)], (3,))


def test_parameters_that_a_layer_makes_itself() -> None:
    def build(self: Any, input_shape: Any, rng: Any, dtype: Any = np.float32) -> Any:
        self.parameters = {"w": [1, 2, 3]}

    built = Sequential([layer(build=build)], (3,))
    built.loss = MeanSquaredError()
    assert built.layers[0].parameters["w"].dtype == np.float32
    np.testing.assert_array_equal(built.predict(np.ones((1, 3))), [[1, 2, 3]])


def test_a_layer_whose_constructor_forgets_its_base() -> None:
    class Forgetful(Layer):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"constructor calls super\(\).__init__\(\), got Forgetful"):
        Sequential([Forgetful()], (3,))


@pytest.mark.parametrize("result", [None, "x", [1, 2], (1,), (1, 2, 3), np.zeros((2, 3))], ids=repr)
def test_results_that_are_no_pair(result: Any) -> None:
    x, y = np.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
    for method in ("forward", "backward"):
        wrong = Sequential([layer(**{method: lambda *_, **__: result})], (3,))
        with pytest.raises(TypeError, match=rf"Other\(\)\.{method} must return a pair"):
            wrong.train_on_batch(x, y, loss="mse")


@pytest.mark.parametrize("gradients", [None, {}, {"v": 0}, {"w": 0, "v": 0}, {"w": None}], ids=repr)
def test_gradients_of_other_parameters(gradients: Any) -> None:
    def backward(self: Any, dy: Array, saved: Any, engine: Any, needs_dx: bool = True) -> Any:
        return dy, gradients

    for engine in ENGINES:
        wrong = Sequential([layer(backward=backward)], (3,), engine=engine)
        with pytest.raises((TypeError, ValueError), match=r"Other\(\)\.backward must return "):
            wrong.train_on_batch(np.ones((4, 3)), np.ones((4, 3)), loss="mse")


@pytest.mark.parametrize("engine", ENGINES)
def test_running_statistics_stay_where_a_later_step_back_fails(engine: str | None) -> None:
    def backward(self: Any, dy: Array, saved: Any, engine: Any, needs_dx: bool = True) -> Any:
        raise ArithmeticError("no")

    layers = [Flatten(), Dense(3), layer(backward=backward), BatchNorm(), Dense(2)]
    failing = Sequential(layers, SHAPE, engine=engine)
    before = bits(failing)
    with pytest.raises(ArithmeticError):
        failing.train_on_batch(*data(), loss="mse")
    assert bits(failing) == before


@pytest.mark.parametrize("engine", ENGINES)
def test_running_statistics_stay_where_the_optimizer_fails(engine: str | None) -> None:
    failing = Sequential([Flatten(), Dense(3), BatchNorm(), Dense(2)], SHAPE, engine=engine)
    before = bits(failing)
    with pytest.raises(ValueError, match="the rate of Rates"):
        failing.train_on_batch(*data(), SGD(Rates([-1])), loss="mse")
    assert bits(failing) == before


# --- methods of one object, mixins, names ---------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (lambda: Dense(2), "forward"),
        (lambda: Dense(2), "infer"),
        (lambda: Scale(), "backward"),
        (CrossEntropy, "values"),
        (Distance, "gradient"),
    ],
)
def test_a_method_of_one_object_cannot_be_replaced(make: Any, method: str) -> None:
    message = (
        rf"{method} (of .* cannot be replaced in one object; |is a method of \w+; )derive a class"
    )
    with pytest.raises((TypeError, AttributeError), match=message):
        setattr(make(), method, lambda *_, **__: None)


def test_a_step_of_one_optimizer_cannot_be_replaced() -> None:
    for own in (SGD(), Adam()):
        with pytest.raises(AttributeError, match="has no attribute 'step'"):
            own.step = lambda *_: None  # type: ignore[method-assign]
    optimizer: Any = Descent()
    optimizer.step = lambda *_: None
    x, y = data()
    for call in (
        lambda: model("last", Scale(), None).train_on_batch(x, y, optimizer),
        lambda: model("last", Scale(), None).fit(x, y, optimizer=optimizer, verbose=0),
    ):
        with pytest.raises(TypeError, match=r"step of .* cannot be replaced"):
            call()


def test_methods_of_a_mixin_are_checked_too() -> None:
    class Halved:
        def values(self, outputs: Array, targets: Array, engine: str | None = None) -> Any:
            return 0.5

    class Mixed(Halved, MeanSquaredError):  # type: ignore[misc]
        name = "mixed"

    x, y = data()
    with pytest.raises(ValueError, match=r"Mixed\(\)\.values must return the loss of each sample"):
        model("last", Scale(), None, Mixed()).train_on_batch(x, y)


def test_a_method_may_use_that_of_its_base_for_something_else() -> None:
    class Padded(Scale):
        def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
            y, saved = super().forward(np.repeat(x, 2, axis=0), training, rng, engine)
            return y[::2], saved[::2]

    x, _ = data()
    np.testing.assert_array_equal(
        model("last", Padded(), None).predict(x), model("last", Scale(), None).predict(x)
    )


def test_a_repr_that_fails_does_not_hide_the_error() -> None:
    class Shy(Distance):
        def __repr__(self) -> str:
            raise RuntimeError("not you")

        def values(self, *_: Any, **__: Any) -> Any:
            return None

    with pytest.raises(TypeError, match=r"an object of Shy\.values must return the loss of each"):
        model("last", Scale(), None, Shy()).train_on_batch(*data())


def test_built_in_methods_are_left_as_they_are() -> None:
    for known in (Layer.registry, Loss.registry, Optimizer.registry, Schedule.registry):
        for kind in list(known.values()):
            if is_own(kind):
                methods = [getattr(one, "is_checked", None) for one in vars(kind).values()]
                assert not any(methods), kind


@pytest.mark.parametrize("engine", ENGINES)
def test_an_array_of_a_layer_whose_shape_is_set_in_place(engine: str | None) -> None:
    """The layer's arrays have the shape that they need, whoever sets another."""
    x, y = data()
    one = Sequential(PLACES["in a block"](Scale()), SHAPE, seed=0, engine=engine)
    other = copy.deepcopy(one)
    for layer in one.layers:
        for array in (*layer.parameters.values(), *layer.state.values()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                array.shape = (array.size, 1, 1)
                array.dtype = np.int32
    assert bits(copy.deepcopy(one)) == bits(other)
    for _ in range(2):
        losses = [each.train_on_batch(x, y, loss="mse")[0] for each in (one, other)]
        assert losses[0] == losses[1]
    np.testing.assert_array_equal(one.predict(x), other.predict(x))
    assert bits(one) == bits(other)
    w = one.layers[0].parameters.get("w")
    assert w is not None
    assert w.shape == other.layers[0].parameters["w"].shape


# --- augmentation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.int64])
@pytest.mark.parametrize("shuffle", [True, False])
def test_augmentations(kind: Any, shuffle: bool) -> None:
    x, y = stripes(20)
    x = x[..., np.newaxis].astype(kind)

    def trained(augment: Any) -> list[bytes]:
        one = Sequential(net(), (9, 8, 1), seed=0)
        one.fit(x, y, batch_size=8, augment=augment, verbose=0, shuffle=shuffle, seed=1)
        return bits(one)

    expected = trained(lambda images, rng: images)
    for name, change in RIGHT.items():
        if kind is np.uint8 and name in ("float64", "long double"):
            with pytest.raises(TypeError, match="augment must return images of the dtype that it"):
                trained(lambda images, rng, change=change: change(images))
            continue
        assert trained(lambda images, rng, change=change: change(images)) == expected, name
    for name, change in WRONG.items():
        if name == "one of each":
            continue  # one channel is all that there are
        with pytest.raises((TypeError, ValueError), match="augment must return images of shape "):
            trained(lambda images, rng, change=change: change(images))
    for change in DIVERGED.values() if kind is np.float32 else ():
        with pytest.raises(ValueError, match="augment must return finite numbers"):
            trained(lambda images, rng, change=change: change(images))


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_augmentation_may_write_to_what_it_gets(shuffle: bool) -> None:
    def brighter(images: Array, rng: np.random.Generator) -> Array:
        images[:, 0] = 200
        return images

    x, y = stripes(20)
    before = x.copy()
    Sequential(net(), (9, 8), seed=0).fit(x, y, augment=brighter, verbose=0, shuffle=shuffle)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "centred", [3, lambda images: None, lambda images: images[:0], lambda images: "middle"]
)
def test_what_an_augmentation_leaves_of_images(centred: Any) -> None:
    class Own:
        def __call__(self, images: Array, rng: np.random.Generator) -> Array:
            return images

    own: Any = Own()
    own.centred = centred
    x, y = stripes(20)
    with pytest.raises((TypeError, ValueError), match=r"augment\.centred must "):
        Sequential(net(), (9, 8)).fit(x, y, augment=own, verbose=0)


def test_an_augmentation_derived_from_the_built_in_one() -> None:
    class Wrong(Augment):
        def __call__(self, images: Array, rng: np.random.Generator) -> Array:
            return np.full(images.shape, np.nan, images.dtype)

    x, y = stripes(20)
    with pytest.raises(ValueError, match="augment must return finite numbers"):
        Sequential(net(), (9, 8)).fit(x / 255, y, augment=Wrong(), verbose=0)


# --- optimizers and schedules ---------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_that_leaves_no_numbers_changes_nothing(engine: str | None) -> None:
    x, y = data()
    for change in DIVERGED:
        wrong = model("between", Scale(), engine)
        before = bits(wrong)
        with pytest.raises(FloatingPointError, match=r"Descent\(.*\)\.step returned parameters wi"):
            wrong.train_on_batch(x, y, Descent(0.01, change))
        assert bits(wrong) == before


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_is_counted_and_may_fail(engine: str | None) -> None:
    class Failing(SGD):
        def _move(self, p: Array, g: Array, scratch: Array, *state: Array) -> None:
            p[:] = 9
            raise ArithmeticError("no")

    x, y = data()
    descent, plain = Descent(), SGD(0.01)
    one, other = model("last", Scale(), engine), model("last", Scale(), engine)
    for _ in range(3):
        one.train_on_batch(x, y, descent)
        other.train_on_batch(x, y, plain)
    assert descent.step_count == plain.step_count == 3
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    before = bits(one)
    with pytest.raises(ArithmeticError):
        one.train_on_batch(x, y, Failing())
    assert bits(one) == before


def test_a_step_may_set_the_shape_of_what_it_gets() -> None:
    class Reshaping(Descent):
        def step(self, parameters: Array, gradient: Array) -> None:
            parameters.shape = gradient.shape = (-1, 1)
            super().step(parameters, gradient)

    x, y = data()
    one, other = model("last", Scale(), None), model("last", Scale(), None)
    one.fit(x, y, 3, optimizer=Reshaping(), seed=0, verbose=0)
    other.fit(x, y, 3, optimizer=Descent(), seed=0, verbose=0)
    assert bits(one) == bits(other)


@pytest.mark.parametrize("names", [None, "mean", ("mean", 3), 3], ids=repr)
def test_names_of_arrays_that_are_none(names: Any) -> None:
    class Odd(Adam):
        def slots_needed(self) -> Any:
            return names

    with pytest.raises(TypeError, match=r"Odd\(.*\)\.slots_needed must return a tuple of names"):
        model("last", Scale(), None).train_on_batch(*data(), Odd())


RATES = [(None, TypeError), ("0.1", TypeError), (-1, ValueError), (np.nan, ValueError),
         (np.inf, ValueError), ([0.1], TypeError), (1j, TypeError)]  # fmt: skip


@pytest.mark.parametrize(("rate", "error"), RATES, ids=repr)
def test_rates_that_are_none(rate: Any, error: Any) -> None:
    class Optimal(SGD):
        @property
        def rate(self) -> Any:
            return rate

    x, y = data()
    for optimizer in (SGD(Rates([0.1, rate])), Adam(Rates([0.1, rate])), Descent(Rates([1, rate]))):
        one = model("last", Scale(), None)
        one.train_on_batch(x, y, optimizer)
        before = bits(one)
        with pytest.raises(error, match=r"the rate of Rates\(.*\) for step 1 must be"):
            one.train_on_batch(x, y, optimizer)
        assert bits(one) == before
    with pytest.raises(error, match="rate must be "):
        model("last", Scale(), None).fit(x, y, optimizer=Optimal(), verbose=0)
    callback = LearningRateSchedule(Rates([rate]))
    with pytest.raises(error, match=r"rate .* must be "):
        model("last", Scale(), None).fit(x, y, callbacks=[callback], verbose=0)


def test_a_rate_may_be_a_number_of_numpys() -> None:
    x, y = data()
    one, other = model("last", Scale(), None), model("last", Scale(), None)
    one.train_on_batch(x, y, SGD(Rates([np.float32(0.25)])))
    other.train_on_batch(x, y, SGD(0.25))
    assert bits(one) == bits(other)


def test_the_names_are_those_of_the_catalogue() -> None:
    assert {kind.__module__ for kind in misbehaving.KNOWN} == {"misbehaving"}
