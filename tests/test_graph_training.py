"""Graphs against the specification: predictions, losses, gradients, and whole trainings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
from graphs import GRAPHS, graph, listed, near, on_engine, same_bits, samples, targets
from slopes import same, slope

import fastcnn
from fastcnn import Input, Model
from fastcnn.core.arguments import Array
from fastcnn.data.several import Several
from fastcnn.layers import (
    Add,
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    Multiply,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from fastcnn.losses import CrossEntropy, MeanSquaredError
from fastcnn.models.execution import Executor
from fastcnn.models.execution.prepared import Prepared
from fastcnn.optimizers import SGD

SHARE = {"float32": 2e-5, "float64": 1e-12}


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """The number of threads stays for the next test."""
    before = fastcnn.get_num_threads()
    yield
    fastcnn.set_num_threads(before)


@pytest.fixture
def compiled_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor must not hand a batch back to single operations, which would hide its faults."""
    for name in ("forward", "gradients", "step"):
        whole = getattr(Executor, name)

        def served(*arguments: Any, whole: Any = whole) -> Any:
            result = whole(*arguments)
            assert result is not None
            return result

        monkeypatch.setattr(Executor, name, served)


def gradients(
    model: Model, x: Any, y: Any, weights: Array | None = None
) -> tuple[float, dict[str, Array]]:
    """The loss of a batch, and the gradients of all parameters and running statistics by name."""
    goal: Any = model._loss()
    count = len(listed(x)[0])
    images = Several(tuple(x)) if isinstance(x, list) else x
    checked = goal.targets(y, count, model._outputs(goal), model.dtype)
    rng = np.random.default_rng(5)
    total, _, by_layer = model._gradients(images, checked, goal, rng, weights)
    result = {f"{i}.{k}": a.copy() for i, one in enumerate(by_layer) for k, a in one.items()}
    for i, layer in enumerate(model.layers):
        result |= {f"{i}.{name}": array.copy() for name, array in layer.state.items()}
    return total, result


def agree(found: dict[str, Array], expected: dict[str, Array], share: float) -> None:
    """Each to this share of its largest number; of those that are nearly 0, of the others'."""
    largest = max(abs(one).max() for one in expected.values())
    for (name, a), (other, b) in zip(found.items(), expected.items(), strict=True):
        assert name == other
        allowed = share * max(abs(b).max(), 1e-3 * largest)
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed, err_msg=name)


# --- against the specification --------------------------------------------------------------------


@pytest.mark.usefixtures("compiled_alone")
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("name", GRAPHS)
def test_predictions_are_those_of_the_specification(name: str, kind: str) -> None:
    dtype: Literal["float32", "float64"] = "float64" if kind == "float64" else "float32"
    model = graph(name, dtype)
    plain = on_engine(model, "naive")
    for count in (0, 1, 3):
        x = samples(model, count, kind)
        near(model.predict(x), plain.predict(x), SHARE[dtype])


@pytest.mark.usefixtures("compiled_alone")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", GRAPHS)
def test_loss_and_gradients_are_those_of_the_specification(
    name: str, dtype: Literal["float32", "float64"]
) -> None:
    model = graph(name, dtype)
    plain = on_engine(model, "naive")
    x, y = samples(model, 5, dtype), targets(model, 5)
    weights = np.random.default_rng(6).uniform(0, 2, 5).astype(dtype)
    for of_samples in (None, weights):
        total, result = gradients(model, x, y, of_samples)
        reference, expected = gradients(plain, x, y, of_samples)
        assert total == pytest.approx(reference, rel=10 * SHARE[dtype])
        agree(result, expected, 20 * SHARE[dtype])
        assert all(array.any() for array in expected.values())


@pytest.mark.usefixtures("compiled_alone")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_that_several_values_share_passes_a_relu_for_one_of_them(
    dtype: Literal["float32", "float64"],
) -> None:
    """Both operands of a sum have its gradient. A segment must not mask it where it lies."""
    images = Input((4, 7, 2))
    x = Conv2D(5, 1)(images)
    x = Add()([Conv2D(5, 1, activation="relu")(x), x])
    x = Add()([x, ReLU()(x)])
    wide = Conv2D(5, (1, 3), padding="same", activation="relu")
    x = Add()([MaxPool2D()(wide(x)), MaxPool2D()(x)])
    narrow = Conv2D(5, 1, activation="relu")
    x = Flatten()(Add()([MaxPool2D((1, 2), 1, "same")(narrow(x)), x]))
    x = Add()([Dense(30, activation="relu")(x), x])
    model = Model(images, Dense(3)(x), seed=0, dtype=dtype)
    data = samples(model, 5, dtype), targets(model, 5)
    expected = gradients(on_engine(model, "naive"), *data)[1]
    agree(gradients(model, *data)[1], expected, 20 * SHARE[dtype])


def sums_behind_normalisations(kind: str) -> Model:
    """Sums of a normalisation and another value, which one pass can do, or must not."""
    images = Input((4, 7, 2))
    x, norm = Conv2D(5, 1)(images), BatchNorm()
    y = norm(Conv2D(5, 3, padding="same")(x))
    if kind == "shared":
        y = Add()([norm(x), y])
    if kind == "both":
        x = BatchNorm()(Conv2D(5, 1)(x))
    order = [y, x] if kind == "second" else [x, y]
    total = Add()([y, y]) if kind == "twice" else Add()(order)
    if kind != "no ReLU":
        total = ReLU(max_value=2.0 if kind == "capped" else None)(total)
    if kind == "used":
        total = Multiply()([total, y])
    result = [Dense(3)(Flatten()(total))]
    if kind == "two users":
        result.append(Dense(2)(Flatten()(total)))
    return Model(images, result, seed=0)


@pytest.mark.usefixtures("compiled_alone")
@pytest.mark.parametrize(
    ("kind", "together"),
    [
        ("first", "BatchNorm(), Add(), ReLU()"),
        ("second", "BatchNorm(), Add(), ReLU()"),
        ("both", "BatchNorm(), Add(), ReLU()"),
        ("two users", "BatchNorm(), Add(), ReLU()"),
        ("no ReLU", "BatchNorm(), Add(),"),
        ("capped", "BatchNorm(), Add(),"),
        ("shared", None),
        ("twice", None),
        ("used", None),
    ],
)
def test_a_normalisation_a_sum_and_a_relu_are_one_unit(kind: str, together: str | None) -> None:
    model = sums_behind_normalisations(kind)
    training = model.explain().split("training:\n")[1]
    assert training.count("BatchNorm(), Add()") == (together is not None)
    assert together is None or together in training
    plain = on_engine(model, "naive")
    x, y = samples(model, 5), targets(model, 5)
    agree(gradients(model, x, y)[1], gradients(plain, x, y)[1], 4e-4)


@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_of_inputs_are_those_of_the_specification(name: str) -> None:
    model = graph(name, "float64")
    plain = on_engine(model, "naive")
    x = samples(model, 3, "float64")
    if name == "u_net":
        output: Any = np.random.default_rng(0).standard_normal((3, *model.outputs[0].shape))
    else:
        output = {"classes": [1, 0, 2], "size": 1} if name == "two_of_each" else [1, 0, 2]
    for of in ("scores", "predictions"):
        result = model.input_gradient(x, output, of=of)  # type: ignore[arg-type]
        expected = plain.input_gradient(x, output, of=of)  # type: ignore[arg-type]
        near(result, expected, 1e-11)
        assert all(array.any() for array in listed(expected))


def test_gradients_are_central_differences() -> None:
    """Of every parameter and of both inputs, of a net with two inputs and two heads."""
    model = graph("two_of_each", "float64")
    x, y = samples(model, 3, "float64"), targets(model, 3)
    goal = model._goal({"classes": "cross_entropy", "size": "mse"}, {"classes": 0.5, "size": 3})
    model.loss = goal
    _, result = gradients(model, x, y)

    def loss() -> float:
        return model.evaluate(x, y)["loss"]

    for i, layer in enumerate(model.layers):
        for key, array in layer.parameters.items():
            same(result[f"{i}.{key}"], slope(loss, array))

    def scores() -> float:
        classes, sizes = model.predict(x)
        return float(np.log(classes[:, 1]).sum() + 2 * sizes[:, 0].sum())

    classes = np.eye(4)[[1, 1, 1]] - model.predict(x)[0]  # the slope of log softmax at its scores
    sizes = np.tile([2.0, 0.0], (3, 1))
    for gradient, array in zip(model.input_gradient(x, [classes, sizes]), x, strict=True):
        same(gradient, slope(scores, array))


@pytest.mark.parametrize("engine", ["im2col", None])
def test_gradients_that_meet_are_added_and_those_of_others_stay(engine: str | None) -> None:
    """A sum gives both operands one array, to which another layer's gradient comes for one."""
    inputs = Input((3,))
    a, b = Dense(4)(inputs), Dense(4)(inputs)
    x = Concatenate()([Tanh()(a), Add()([a, b])])
    model = Model(inputs, Dense(2)(x), seed=0, dtype="float64", engine=engine)
    x, y = samples(model, 3, "float64"), targets(model, 3)
    _, result = gradients(model, x, y)
    for i, layer in enumerate(model.layers):
        for key, array in layer.parameters.items():
            same(result[f"{i}.{key}"], slope(lambda: model.evaluate(x, y)["loss"], array))


@pytest.mark.parametrize("engine", ["im2col", None])
def test_two_outputs_of_one_value_train_it_together(engine: str | None) -> None:
    inputs = Input((4,))
    scores = Dense(3)(inputs)
    model = Model(inputs, [Softmax()(scores), Sigmoid()(scores)], seed=0, dtype="float64")
    model.engine = engine
    x = np.random.default_rng(0).standard_normal((3, 4))
    y = [np.array([2, 0, 1]), np.eye(3)[[1, 1, 0]]]
    _, result = gradients(model, x, y)
    for key, array in model.layers[0].parameters.items():
        same(result[f"0.{key}"], slope(lambda: model.evaluate(x, y)["loss"], array))


def test_an_output_that_counts_for_nothing_has_no_gradient() -> None:
    model = graph("two_of_each", "float64")
    x = samples(model, 3, "float64")
    first = Model(model.inputs, model.outputs[:1], dtype="float64")
    result = model.input_gradient(x, {"classes": 1, "size": None})
    near(result, first.input_gradient(x, 1), 1e-14)


def test_outputs_of_one_value_add_their_gradients() -> None:
    inputs = Input((4,))
    scores = Dense(3)(inputs)
    model = Model(inputs, [Softmax()(scores), Sigmoid()(scores)], seed=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 4))
    w = model.layers[0].parameters["w"]
    result = model.input_gradient(x, [0, 2])
    np.testing.assert_allclose(result, np.tile(w[:, 0] + w[:, 2], (2, 1)), rtol=1e-14)
    first, second = (Model(model.inputs, one, dtype="float64") for one in model.outputs)
    for one, other in ((model.predict(x)[0], first), (model.predict(x)[1], second)):
        np.testing.assert_allclose(one, other.predict(x), rtol=1e-14)


# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_threads_and_batches_change_no_bit_of_a_prediction(name: str) -> None:
    model = graph(name)
    x = samples(model, 9)
    whole = model.predict(x)
    for count in (1, 3):
        fastcnn.set_num_threads(count)
        same_bits(model.predict(x), whole)
    fastcnn.set_num_threads(2)
    for size in (1, 4):
        same_bits(model.predict(x, batch_size=size), whole)
    turned = [array[::-1] for array in listed(x)]
    result = model.predict(turned if len(turned) > 1 else turned[0])
    same_bits([array[::-1] for array in listed(result)], whole)


@pytest.mark.parametrize("name", GRAPHS)
def test_threads_change_no_bit_of_a_training(name: str) -> None:
    trained = []
    for count in (1, 2, 3):
        fastcnn.set_num_threads(count)
        model = graph(name)
        x, y = samples(model, 13), targets(model, 13)
        history = model.fit(x, y, 2, 5, SGD(0.01, momentum=0.9), verbose=0, seed=2).history
        losses = {name: values for name, values in history.items() if name != "seconds"}
        trained.append((losses, [array.tobytes() for array in model.get_weights()]))
    assert trained[0] == trained[1] == trained[2]


@pytest.mark.parametrize("name", GRAPHS)
def test_a_training_layer_by_layer_ends_near_the_compiled_one(name: str) -> None:
    ends = []
    for engine in (None, "im2col"):
        model = graph(name, "float64", engine)
        x, y = samples(model, 10, "float64"), targets(model, 10)
        model.fit(x, y, 2, 5, SGD(0.05, momentum=0.5), verbose=0, seed=2)
        ends.append(model.get_weights())
    near(*ends, 1e-9)


# --- several losses -------------------------------------------------------------------------------


def test_losses_of_several_outputs_are_weighted_and_told() -> None:
    model = graph("two_of_each", "float64")
    x, y = samples(model, 6, "float64"), targets(model, 6)
    figures = model.evaluate(x, y)
    assert list(figures) == ["loss", "classes_loss", "classes_accuracy", "size_loss"]
    assert figures["loss"] == pytest.approx(figures["classes_loss"] + figures["size_loss"])
    classes, sizes = model.predict(x)
    assert figures["classes_accuracy"] == (classes.argmax(axis=1) == y[0]).mean()
    assert figures["classes_loss"] == pytest.approx(-np.log(classes[np.arange(6), y[0]]).mean())
    assert figures["size_loss"] == pytest.approx(np.square(sizes - y[1]).mean())
    weights = np.array([0, 1, 2, 0, 1, 3.0])
    weighted = model.evaluate(x, y, sample_weight=weights)
    of_samples = np.square(sizes - y[1]).mean(axis=1)
    assert weighted["size_loss"] == pytest.approx((weights * of_samples).sum() / 6)
    assert weighted["classes_accuracy"] == figures["classes_accuracy"]

    history = model.fit(
        x, y, 2, 3, SGD(0.0), ["cross_entropy", "mse"], validation_data=(x, y), verbose=0,
        loss_weights={"size": 0.25, "classes": 2},
    ).history  # fmt: skip
    expected = 2 * figures["classes_loss"] + 0.25 * figures["size_loss"]
    assert history["loss"] == pytest.approx([expected] * 2)
    assert history["val_loss"] == pytest.approx([expected] * 2)
    for name in ("classes_loss", "classes_accuracy", "size_loss"):
        assert history[name] == pytest.approx([figures[name]] * 2)
        assert history[f"val_{name}"] == pytest.approx([figures[name]] * 2)
    loss, accuracy = model.train_on_batch(x, y, SGD(0.0))
    assert loss == pytest.approx(expected), "the weights stay with the model's loss"
    assert np.isnan(accuracy)


def test_figures_run_on_the_engine_that_the_model_names() -> None:
    """Also those of each output; a fault of another engine must not show."""
    model = graph("two_of_each", engine="im2col")
    x, y = samples(model, 4), targets(model, 4)
    before = model.evaluate(x, y)
    from fastcnn.engine.registry import replaced

    def broken(*_: Any) -> Any:
        raise AssertionError("the compiled engine ran")

    with replaced("cross_entropy", "numba", broken):
        assert model.evaluate(x, y) == before
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize("kinds", ["lists", "dicts"])
def test_lists_and_dicts_say_the_same(kinds: str) -> None:
    def given(values: list[Any], *names: str) -> Any:
        pairs = [*zip(names, values, strict=True)]
        return dict(reversed(pairs)) if kinds == "dicts" else tuple(values)

    model = graph("two_of_each")
    x, y = samples(model, 12), targets(model, 12)
    reference = graph("two_of_each")
    expected = reference.fit(x, y, 2, 4, "adam", seed=1, verbose=0, validation_split=0.25).history
    inputs, outputs = given(x, "images", "numbers"), given(y, "classes", "size")
    losses = given(["cross_entropy", MeanSquaredError()], "classes", "size")
    result = model.fit(
        inputs, outputs, 2, 4, "adam", losses, seed=1, verbose=0, validation_split=0.25,
        loss_weights=given([1, 1.0], "classes", "size"),
    ).history  # fmt: skip
    assert {**result, "seconds": 0} == {**expected, "seconds": 0}
    same_bits(model.get_weights(), reference.get_weights())
    same_bits(model.predict(inputs), reference.predict(x))
    assert model.evaluate(inputs, outputs) == reference.evaluate(x, y)
    assert model.train_on_batch(inputs, outputs)[0] == reference.train_on_batch(x, y)[0]
    output = given([2, 1], "classes", "size")
    same_bits(model.input_gradient(inputs, output), reference.input_gradient(x, [2, 1]))


def test_one_loss_by_its_name_is_for_all_outputs() -> None:
    model = graph("two_of_each")
    x = samples(model, 6)
    y = [np.zeros((6, 4)), np.zeros((6, 2))]
    model.fit(x, y, loss="mse", verbose=0)
    assert repr(model.loss) == (
        "OutputLosses(classes: 1 · MeanSquaredError(), size: 1 · MeanSquaredError())"
    )


def test_a_net_that_ends_in_a_sigmoid_and_one_that_ends_in_scores_have_their_losses() -> None:
    inputs = Input((3,))
    model = Model(inputs, [Sigmoid()(Dense(1)(inputs)), Dense(2)(inputs)])
    x = np.random.default_rng(0).standard_normal((4, 3))
    model.fit(x, [np.array([[0.0], [1], [1], [0]]), [0, 1, 1, 0]], verbose=0)
    assert "BinaryCrossEntropy" in repr(model.loss)
    assert "CrossEntropy()" in repr(model.loss)
    first, second = model.predict(x)
    assert ((first > 0) & (first < 1)).all()
    np.testing.assert_allclose(second.sum(axis=1), 1, rtol=1e-6)


# --- what trains ----------------------------------------------------------------------------------


def test_a_shared_layer_learns_from_all_its_calls() -> None:
    """``w · x + w · (w · x)``: the gradient of w is that of three uses."""
    inputs, layer = Input((1,)), Dense(1, use_bias=False)
    once = layer(inputs)
    model = Model(inputs, Add()([once, layer(once)]), dtype="float64")
    model.loss = "mse"  # type: ignore[assignment]
    model.layers[0].parameters["w"] = [[3.0]]
    x, y = np.array([[2.0]]), np.array([[1.0]])
    for engine in (None, "naive"):
        model.engine = engine
        total, result = gradients(model, x, y)
        error = 3 * 2 + 9 * 2 - 1
        assert total == error**2
        assert result["0.w"] == 2 * error * (2 + 2 * 3 * 2)


@pytest.mark.parametrize("name", GRAPHS)
def test_frozen_layers_keep_their_bits_and_others_learn_as_before(name: str) -> None:
    model = graph(name)
    x, y = samples(model, 8), targets(model, 8)
    layers = [layer for layer in model.layers if layer.parameters]
    frozen, *others = layers
    frozen.trainable = False
    plain = on_engine(model, "im2col")
    before = {id(layer): [a.copy() for a in layer.parameters.values()] for layer in layers}
    for one in (model, plain):
        one.rng = np.random.default_rng(3)  # of dropout
        one.train_on_batch(x, y, SGD(0.05, momentum=0.9, weight_decay=0.1))
    same_bits([*frozen.parameters.values()], before[id(frozen)])
    for layer in others:
        for array, old in zip(layer.parameters.values(), before[id(layer)], strict=True):
            assert not np.array_equal(array, old)
    near(model.get_weights(), plain.get_weights(), 1e-4)


def trunk_and_head() -> Model:
    """A net of which only the dense layers and a normalisation between them train.

    Before them are two branches, a normalisation, dropout, and a layer with a call before the
    dropout and one behind it.
    """
    images, vectors = Input((6, 5, 2)), Input((3,))
    shared = Conv2D(4, 1)
    x = BatchNorm()(Conv2D(4, 3, padding="same", use_bias=False)(images))
    x = ReLU()(Add()([shared(x), Conv2D(4, (1, 3), padding="same")(images)]))
    pooled = GlobalAvgPool2D()(x)
    y = MaxPool2D()(shared(Dropout(0.3)(x)))
    y = Concatenate()([Flatten()(y), pooled, Dense(2)(vectors)])
    y = BatchNorm(name="head")(Dense(7, use_bias=False)(y))
    model = Model([images, vectors], Dense(3)(Tanh()(y)), seed=0)
    for layer in model.layers:
        layer.trainable = isinstance(layer, Dense) or layer.name == "head"
    return model


@pytest.mark.usefixtures("compiled_alone")
def test_what_comes_before_all_that_trains_runs_as_a_prediction_does() -> None:
    model = trunk_and_head()
    rng = np.random.default_rng(4)
    norm = next(layer for layer in model.layers if isinstance(layer, BatchNorm))
    norm.state["mean"][...] = rng.standard_normal(4)
    norm.state["variance"][...] = rng.uniform(0.5, 2, 4)
    plain = on_engine(model, "naive")
    x, y = samples(model, 5), targets(model, 5)
    for _ in range(2):  # the second time with other filters in the frozen part
        agree(gradients(model, x, y)[1], gradients(plain, x, y)[1], 4e-4)
        other = np.flip(model.layers[0].parameters["w"], 3).copy()
        for one in (model, plain):
            one.layers[0].parameters["w"] = other
    frozen = model.explain().split("training:\n")[1].split("then:\n")[0]
    assert all(name in frozen for name in ("BatchNorm", "Conv2D(4, (1, 3)"))
    # A layer that both sides call is no part of it, nor what comes after the layer.
    assert not any(name in frozen for name in ("Conv2D(4, 1", "Add", "Dropout", "Dense"))


def test_steps_prepare_frozen_filters_once_and_anew_when_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = trunk_and_head()
    x, y = samples(model, 4), targets(model, 4)
    calls, make_version = list[int](), Prepared._make_version

    def spy(self: Prepared, *arguments: Any) -> Any:
        calls.append(1)
        return make_version(self, *arguments)

    model.train_on_batch(x, y)
    monkeypatch.setattr(Prepared, "_make_version", spy)
    for _ in range(3):
        model.train_on_batch(x, y)
    assert not calls
    model.layers[0].parameters["w"] = model.layers[0].parameters["w"] * 2
    model.train_on_batch(x, y)
    assert calls == [1]
    before = model.predict(x)
    model.train_on_batch(x, y)
    assert not np.array_equal(model.predict(x), before)  # predictions see what moved


def test_a_net_in_which_nothing_trains_is_refused() -> None:
    model = graph("two_of_each")
    model.trainable = False
    assert not model.trainable
    with pytest.raises(ValueError, match="all layers with parameters are frozen"):
        model.fit(samples(model, 4), targets(model, 4), verbose=0)
    with pytest.raises(ValueError, match="all layers with parameters are frozen"):
        model.train_on_batch(samples(model, 4), targets(model, 4))


def test_each_call_of_a_shared_normalisation_needs_two_numbers_of_a_channel() -> None:
    """The first call has many pixels, the second a single one, which has no variance."""
    inputs, norm = Input((4, 3, 2)), BatchNorm()
    vectors = GlobalAvgPool2D()(inputs)
    model = Model(inputs, Dense(2)(Add()([GlobalAvgPool2D()(norm(inputs)), norm(vectors)])))
    x = np.random.default_rng(0).standard_normal((4, 4, 3, 2))
    before = model.get_weights()
    for call in (
        lambda: model.train_on_batch(x[:1], [0]),
        lambda: model.fit(x[:3], [0, 1, 0], batch_size=2, verbose=0),
    ):
        with pytest.raises(ValueError, match="at least 2 samples in training"):
            call()
    same_bits(model.get_weights(), before)
    model.fit(x, [0, 1, 0, 1], batch_size=2, verbose=0)


def test_running_statistics_of_a_shared_normalisation_follow_all_its_calls() -> None:
    left, right, norm = Input((3,)), Input((3,)), BatchNorm(momentum=0.5)
    outputs = Dense(2)(Add()([norm(left), norm(right)]))
    model = Model([left, right], outputs, seed=0, dtype="float64")
    plain = on_engine(model, "naive")
    rng = np.random.default_rng(0)
    x, y = [rng.standard_normal((8, 3)), rng.standard_normal((8, 3)) + 5], rng.integers(0, 2, 8)
    for one in (model, plain):
        one.train_on_batch(x, y)
    mean = model.get_layer("batch_norm").state["mean"]
    np.testing.assert_allclose(mean, 0.5 * 0.5 * x[1].mean(0) + 0.5 * x[0].mean(0))
    near(model.get_weights(), plain.get_weights(), 1e-12)


@pytest.mark.parametrize("name", ["two_of_each", "nested", "shared"])
def test_a_loss_that_overflows_leaves_everything_as_it_was(name: str) -> None:
    states = []
    for engine in (None, "numba"):
        model = graph(name, engine=engine)
        x, y = samples(model, 6), targets(model, 6)
        model.train_on_batch(x, y)
        *_, last = (layer for layer in model.layers if layer.parameters)
        last.parameters["w"][...] = 3e38
        before = model.get_weights()
        with pytest.raises(FloatingPointError, match="loss of a batch is"):
            model.train_on_batch(x, y)
        same_bits(model.get_weights(), before)
        states.append(model.rng.bit_generator.state)
    assert states[0] == states[1], "chance is drawn once, as by single operations"


def test_a_net_whose_output_another_layer_takes_trains_at_both() -> None:
    """An output in the middle gets the gradient of its own loss and of what comes after it."""
    images = Input((5, 4, 2))
    middle = Conv2D(3, (2, 3), padding="same")(images)
    model = Model(
        images, [Flatten()(middle), Dense(2)(GlobalAvgPool2D()(middle))], seed=0, dtype="float64"
    )
    model.loss = ["mse", CrossEntropy()]  # type: ignore[assignment]
    plain = on_engine(model, "naive")
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 2))
    y = [np.zeros((3, 60)), np.array([0, 1, 1])]
    total, result = gradients(model, x, y)
    reference, expected = gradients(plain, x, y)
    assert total == pytest.approx(reference)
    agree(result, expected, 1e-11)
    near(model.predict(x), plain.predict(x), 1e-12)
