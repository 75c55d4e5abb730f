"""``class_weight`` and ``sample_weight``: against NumPy, in every engine, checked before work."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from slopes import slope

import fastcnn
from fastcnn import Sequential
from fastcnn.core.arguments import Array
from fastcnn.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Sigmoid
from fastcnn.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError
from fastcnn.optimizers import SGD, Adam

ENGINES = (None, *fastcnn.engines())
Float = Literal["float32", "float64"]
N = 37

NETS: dict[str, Any] = {
    "one run": lambda: [Conv2D(4, 3, activation="relu"), MaxPool2D(), Flatten(), Dense(5)],
    "padded": lambda: [Conv2D(4, 3, padding="same"), Flatten(), Dense(5)],
    "coupled": lambda: [Conv2D(4, 3), BatchNorm(), Dropout(0.2), Flatten(), Dense(5)],
    "ends alone": lambda: [Flatten(), Dense(5), Sigmoid()],
}
LABELS = np.arange(N) % 5
ROWS = np.random.default_rng(2).dirichlet(np.ones(5), N)
NUMBERS = np.random.default_rng(2).random((N, 5))
LOSSES: dict[str, tuple[Loss, Array]] = {
    "labels": (CrossEntropy(), LABELS),
    "one-hot": (CrossEntropy(), np.eye(5)[LABELS]),
    "rows": (CrossEntropy(), ROWS),
    "smoothed": (CrossEntropy(0.1), LABELS),
    "mse": (MeanSquaredError(), NUMBERS),
    "binary": (BinaryCrossEntropy(), NUMBERS),
}
WEIGHTS = np.random.default_rng(1).uniform(0, 3, N)
WEIGHTS[::5] = 0


def images(n: int = N) -> Array:
    return np.random.default_rng(5).standard_normal((n, 9, 8, 1))


def model_of(net: str, engine: str | None = None, dtype: Float = "float64") -> Sequential:
    return Sequential(NETS[net](), (9, 8, 1), seed=0, dtype=dtype, engine=engine)


def trained(net: str, loss: str, engine: str | None = None, dtype: Float = "float64", **more: Any):
    model, (goal, y) = model_of(net, engine, dtype), LOSSES[loss]
    history = model.fit(
        images(), y, epochs=2, batch_size=16, optimizer="adam", loss=goal, verbose=0, **more
    ).history
    del history["seconds"]
    return *history.values(), *model.get_weights()


def same_bits(a: Any, b: Any) -> None:
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


# --- what weights mean ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_the_sum_of_weighted_losses_over_the_number_of_samples(
    loss: str, engine: str | None
) -> None:
    """And its gradient: against plain NumPy, and against central differences."""
    goal, y = LOSSES[loss]
    model = Sequential([Flatten(), Dense(5)], (9, 8, 1), seed=0, dtype="float64", engine=engine)
    model.loss = goal
    x, (w, b) = images(), model.get_weights()
    z = x.reshape(N, -1) @ w + b
    targets = goal.targets(y, N, (5,), np.float64)
    expected = float((WEIGHTS * goal.values(z, targets, "naive")).sum() / N)
    result = model.evaluate(x, y, batch_size=10, sample_weight=WEIGHTS)
    assert result["loss"] == pytest.approx(expected, rel=1e-12)
    accuracies = [model.evaluate(x, y), result]
    if goal.counts:
        assert accuracies[0]["accuracy"] == accuracies[1]["accuracy"]

    first = model.train_on_batch(x, y, SGD(0.5), sample_weight=WEIGHTS)[0]
    assert first == pytest.approx(expected, rel=1e-12)
    gradients = WEIGHTS[:, None] * goal.gradient(z, targets, "naive") / N
    step_w, step_b = x.reshape(N, -1).T @ gradients, gradients.sum(axis=0)
    np.testing.assert_allclose(model.get_weights()[0], w - 0.5 * step_w, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.get_weights()[1], b - 0.5 * step_b, rtol=1e-10, atol=1e-12)

    def at_bias() -> float:
        return float((WEIGHTS * goal.values(x.reshape(N, -1) @ w + b, targets)).sum() / N)

    np.testing.assert_allclose(step_b, slope(at_bias, b), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("net", NETS)
def test_weighted_trainings_are_the_same_in_every_engine(net: str, loss: str) -> None:
    more = {"sample_weight": WEIGHTS, "validation_data": (images(), LOSSES[loss][1], WEIGHTS)}
    expected = trained(net, loss, "naive", **more)
    unweighted = trained(net, loss, "im2col")
    assert not np.allclose(expected[-1], unweighted[-1])
    for engine in (None, *fastcnn.engines()):
        for a, b in zip(trained(net, loss, engine, **more), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9, err_msg=str(engine))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", LOSSES)
def test_weights_of_one_leave_every_bit(loss: str, engine: str | None, dtype: Float) -> None:
    for net in NETS:
        reference = trained(net, loss, engine, dtype, validation_data=(images(), LOSSES[loss][1]))
        held_out = images(), LOSSES[loss][1], np.ones(N)
        ones = {"sample_weight": np.ones(N, int), "validation_data": held_out}
        same_bits(trained(net, loss, engine, dtype, **ones), reference)


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_a_weighted_step_is_one_compiled_call(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastcnn.engine.numba.runtime import program

    x, y = images(), LABELS
    model = model_of("one run", dtype="float32")
    model.fit(x, y, batch_size=batch, verbose=0)
    calls, original = [], program.parallel_for

    def counted(*arguments: Any) -> Any:
        calls.append(arguments[0].__name__)
        return original(*arguments)

    monkeypatch.setattr(program, "parallel_for", counted)
    model.fit(x, y, batch_size=batch, verbose=0, sample_weight=WEIGHTS, class_weight={0: 3})
    assert calls == ["_train"] * -(-N // batch)


def test_weights_take_part_where_single_operations_must_decide() -> None:
    """A weight that is infinite behind padding: the executor hands the batch back."""
    models = [model_of("padded", engine) for engine in (None, "im2col")]
    for model in models:
        model.layers[0].parameters["w"][0, 0, 0, 0] = np.inf
    x = np.zeros((4, 9, 8, 1))  # the filters' corner meets padding alone
    for model in models:
        with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
            model.train_on_batch(x, [0, 1, 2, 3], sample_weight=[1, 2, 3, 4])


def test_a_sample_of_weight_zero_has_no_part_in_the_gradient() -> None:
    x, w = images(), (np.arange(N) < 20) * 1.0
    models = [model_of("one run") for _ in range(2)]
    models[0].train_on_batch(x, LABELS, SGD(0.1), sample_weight=w)
    models[1].train_on_batch(x[:20], LABELS[:20], SGD(0.1 * 20 / N))
    for a, b in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


# --- class_weight ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["labels", "one-hot", "rows", "smoothed"])
def test_class_weights_are_the_weights_of_their_samples(loss: str) -> None:
    y = LOSSES[loss][1]
    classes = y if y.ndim == 1 else y.argmax(axis=1)
    weights = np.array([1, 4, 0, 1, 0.25])[classes]
    by_class = trained("one run", loss, class_weight={1: 4, np.int64(2): 0, 4: 0.25})
    same_bits(by_class, trained("one run", loss, sample_weight=weights))
    both = trained("one run", loss, class_weight={1: 4, 2: 0, 4.0: 0.25}, sample_weight=WEIGHTS)
    same_bits(both, trained("one run", loss, sample_weight=weights * WEIGHTS))


def test_class_weights_of_one_output_with_the_binary_cross_entropy() -> None:
    x, y = images(), (np.arange(N) % 3 == 0).astype(int)
    after = []
    for more in ({"class_weight": {0: 1, 1: 9}}, {"sample_weight": 1 + 8 * y}):
        model = Sequential([Flatten(), Dense(1)], (9, 8, 1), seed=0)
        model.fit(x, y, loss="binary_cross_entropy", verbose=0, seed=0, **more)
        after.append(model.get_weights())
    same_bits(*after)


def test_class_weights_do_not_count_in_validation_sample_weights_do() -> None:
    options = {"seed": 0, "verbose": 0, "epochs": 1, "validation_split": 0.5}
    x = images()
    plain, by_class, by_sample = (
        model_of("one run").fit(x, LABELS, **options, **more).history  # type: ignore[arg-type]
        for more in ({}, {"class_weight": dict.fromkeys(range(5), 2)}, {"sample_weight": WEIGHTS})
    )
    assert by_class["loss"][0] > 1.5 * plain["loss"][0]
    model = model_of("one run")
    model.fit(x[:19], LABELS[:19], sample_weight=WEIGHTS[:19], seed=0, verbose=0)
    expected = model.evaluate(x[19:], LABELS[19:], sample_weight=WEIGHTS[19:])
    assert by_sample["val_loss"] == [expected["loss"]]
    plain, twice = (
        model_of("one run")
        .fit(x, LABELS, **options, class_weight=weights, optimizer=SGD(rate))
        .history
        for weights, rate in ((None, 0.02), (dict.fromkeys(range(5), 2.0), 0.01))
    )
    assert twice["val_loss"][0] == pytest.approx(plain["val_loss"][0], rel=1e-12)


def test_a_rare_class_is_learned_with_class_weights() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2))
    y = (np.arange(400) % 40 == 0).astype(int)
    x[y == 1] += 1.5
    recalls = []
    for class_weight in (None, {0: 1, 1: 39}):
        model = Sequential([Dense(2)], (2,), seed=0)
        model.fit(x, y, epochs=20, optimizer=Adam(0.05), class_weight=class_weight, verbose=0)
        recalls.append((model.predict_classes(x) == 1)[y == 1].mean())
    assert recalls[1] > recalls[0] + 0.5


# --- what is refused, before any work -------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sample_weight": np.ones(3)}, ValueError, r"sample_weight must have the shape \(4,\).*3,\)"),
    ({"sample_weight": np.ones((4, 1))}, ValueError, r"shape \(4,\), .* got \(4, 1\)"),
    ({"sample_weight": 1.0}, ValueError, r"sample_weight must have the shape \(4,\)"),
    ({"sample_weight": [1, -1, 1, 1]}, ValueError, "at least 0, got -1 for sample 1"),
    ({"sample_weight": [1, 1, np.nan, 1]}, ValueError, "finite numbers .* got nan for sample 2"),
    ({"sample_weight": [1, 1, 1, np.inf]}, ValueError, "got inf for sample 3"),
    ({"sample_weight": [1e300, 1, 1, 1]}, ValueError, "sample_weight .* float32 can hold, got 1e"),
    ({"sample_weight": ["1"] * 4}, TypeError, "sample_weight must hold real numbers, got dtype"),
    ({"sample_weight": [1j] * 4}, TypeError, "sample_weight must hold real numbers"),
    ({"sample_weight": [[1], [1, 2]]}, ValueError, "sample_weight must be an array, got a ragged"),
    ({"class_weight": [1, 2, 3]}, TypeError, "class_weight must be a dict .* got list"),
    ({"class_weight": "balanced"}, TypeError, "class_weight must be a dict .* got str"),
    ({"class_weight": {3: 1}}, ValueError, "classes 0 to 2 as keys, got 3"),
    ({"class_weight": {-1: 1}}, ValueError, "classes 0 to 2 as keys, got -1"),
    ({"class_weight": {0.5: 1}}, ValueError, "classes 0 to 2 as keys, got 0.5"),
    ({"class_weight": {"0": 1}}, ValueError, "classes 0 to 2 as keys, got '0'"),
    ({"class_weight": {0: -1}}, ValueError, r"class_weight\[0\] must be a finite number of at"),
    ({"class_weight": {1: np.nan}}, ValueError, r"class_weight\[1\] must be a finite number"),
    ({"class_weight": {1: "9"}}, TypeError, r"class_weight\[1\] must be a number"),
    ({"class_weight": {1: 1e200}}, ValueError, "class_weight must hold weights that float32"),
    ({"class_weight": {1: 2}, "loss": "mse"}, ValueError, "class_weight needs a loss of classes"),
    ({"class_weight": {1: 2}, "loss": "binary_cross_entropy"}, ValueError, "needs one output"),
]  # fmt: skip


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize(("given", "error", "text"), WRONG)
def test_wrong_weights_are_named_before_any_work(
    given: dict[str, Any], error: type[Exception], text: str, built: bool
) -> None:
    x = np.zeros((4, 2), np.float32)
    y: Any = [0, 1, 2, 1] if "loss" not in given else np.zeros((4, 3))
    model = Sequential([Dense(3)], (2,) if built else None, seed=0)
    before = model.get_weights() if built else []
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(error, match=text):
            call(x, y, **given)
    assert model.built == built
    assert model.progress is None
    if built:
        same_bits(model.get_weights(), before)
        if "sample_weight" in given:
            with pytest.raises(error, match=text):
                model.evaluate(x, y, sample_weight=given["sample_weight"])
            with pytest.raises(error, match=f"validation_data: .*{text}"):
                model.fit(x, y, validation_data=(x, y, given["sample_weight"]), verbose=0)


@pytest.mark.parametrize("data", [(1,), (1, 2, 3, 4), 5, None])
def test_validation_data_of_another_length_is_refused(data: Any) -> None:
    x, y = np.zeros((4, 2)), [0, 1, 0, 1]
    if data is None:
        Sequential([Dense(2)]).fit(x, y, validation_data=(x, y, None), verbose=0)
        return
    with pytest.raises(TypeError, match=r"must be a pair \(x, y\) or \(x, y, sample_weight\)"):
        Sequential([Dense(2)]).fit(x, y, validation_data=data, verbose=0)


@pytest.mark.parametrize("kind", [list, np.float16, np.float32, ">f8", bool, np.uint8, "strided"])
def test_weights_of_any_dtype_and_layout_are_taken_and_not_written_to(kind: Any) -> None:
    weights = np.round(WEIGHTS)
    if kind is bool:
        weights = (weights > 0) * 1.0
    given: Any = weights.tolist() if kind is list else weights
    if kind == "strided":
        given = np.repeat(weights, 2)[::2]
        given.flags.writeable = False
    elif kind is not list:
        given = weights.astype(kind)
    before = np.array(given)
    same_bits(
        trained("one run", "labels", sample_weight=given),
        trained("one run", "labels", sample_weight=weights),
    )
    np.testing.assert_array_equal(given, before)


def test_weights_that_a_callback_changes_stay_those_that_were_checked() -> None:
    class Changes(fastcnn.Callback):
        def on_batch_end(self, model: Any, batch: int, logs: Any = None) -> None:
            weights[:] = np.nan
            by_class[1] = -1.0

    weights, by_class = WEIGHTS.copy(), {1: 2.0}
    changed = trained("one run", "labels", sample_weight=weights, class_weight=by_class,
                      callbacks=[Changes()])  # fmt: skip
    assert np.isnan(weights).all()
    same_bits(changed, trained("one run", "labels", sample_weight=WEIGHTS, class_weight={1: 2.0}))


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [{"sample_weight": WEIGHTS}, {"class_weight": {1: 5.0}}])
def test_a_weighted_training_is_resumed_with_the_same_weights_alone(
    weights: dict[str, Any], tmp_path: Path
) -> None:
    file, x = tmp_path / "c", images()
    options: dict[str, Any] = {"batch_size": 8, "verbose": 0}
    whole, first, second = (model_of("one run") for _ in range(3))
    whole.fit(x, LABELS, epochs=3, seed=1, **options, **weights)
    first.fit(x, LABELS, epochs=2, seed=1, **options, **weights)
    first.save_checkpoint(file)
    second.fit(x, LABELS, epochs=3, resume=file, **options, **weights)
    same_bits(second.get_weights(), whole.get_weights())
    others: list[dict[str, Any]] = [
        {},
        {"sample_weight": WEIGHTS + 1},
        {"class_weight": {1: 4.0}},
        {**weights, "class_weight": {2: 3}},
    ]
    for other in others:
        before = first.get_weights()
        with pytest.raises(ValueError, match="sample_weight and class_weight must be the data tha"):
            first.fit(x, LABELS, epochs=3, resume=file, **options, **other)
        same_bits(first.get_weights(), before)


def test_a_training_without_weights_is_not_resumed_with_some(tmp_path: Path) -> None:
    file, x = tmp_path / "c", images()
    model = model_of("one run")
    model.fit(x, LABELS, verbose=0)
    model.save_checkpoint(file)
    with pytest.raises(ValueError, match="sample_weight and class_weight must be the data that"):
        model.fit(x, LABELS, epochs=2, resume=file, sample_weight=WEIGHTS, verbose=0)
