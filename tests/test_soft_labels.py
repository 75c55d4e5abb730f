"""Rows of probabilities as targets of the cross-entropy: operation, loss, nets in every engine."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from slopes import same, slope

import fastcnn
from fastcnn import Sequential
from fastcnn.core.arguments import Array
from fastcnn.layers import BatchNorm, Conv2D, Dense, Flatten, MaxPool2D, Softmax
from fastcnn.losses import CrossEntropy
from fastcnn.optimizers import SGD

ENGINES = (None, *fastcnn.engines())
Float = Literal["float32", "float64"]


def rows_of(n: int, classes: int, zeros: bool = True) -> Array:
    """Rows of probabilities, float64, with some zeros."""
    rng = np.random.default_rng([n, classes])
    rows = rng.dirichlet(np.ones(classes), n)
    if zeros and classes > 1:
        rows[::2, 0] = 0
        rows /= rows.sum(axis=1, keepdims=True)
    return rows


def formula(z: Array, p: Array) -> Array:
    shifted = z - z.max(axis=1, keepdims=True)
    return np.asarray(
        -(p * (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))).sum(axis=1)
    )


# --- the operation --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("shape", [(5, 3), (1, 10), (3, 17), (4, 1), (2, 1000)])
def test_loss_and_slope_are_those_of_the_formula(shape: tuple[int, int], engine: str) -> None:
    z, p = np.random.default_rng(shape).standard_normal(shape), rows_of(*shape)
    losses = fastcnn.cross_entropy(z, p, reduction="none", engine=engine)
    np.testing.assert_allclose(losses, formula(z, p), rtol=1e-12, atol=1e-14)
    gradient = fastcnn.cross_entropy_backward(z, p, engine=engine)
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, (softmax - p) / len(z), atol=1e-15)
    if 1 < shape[1] < 100:
        same(gradient, slope(lambda: float(fastcnn.cross_entropy(z, p, engine=engine)), z))
    narrow = fastcnn.cross_entropy(z.astype(np.float32), p, engine=engine)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, formula(z, p).mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_hot_rows_give_the_bits_of_labels(dtype: type, engine: str) -> None:
    z = np.random.default_rng(0).standard_normal((50, 7)).astype(dtype) * 9
    labels = np.arange(50) % 7
    for one_hot in (np.eye(7)[labels], np.eye(7, dtype=bool)[labels]):
        for f in (fastcnn.cross_entropy, fastcnn.cross_entropy_backward):
            expected = f(z, labels, reduction="none", engine=engine)
            result = f(z, one_hot, reduction="none", engine=engine)
            assert result.dtype == dtype
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("engine", fastcnn.engines())
def test_a_class_of_probability_zero_does_not_count(engine: str) -> None:
    z, p = np.array([[-np.inf, 0.0, 0.0], [-1e4, 0.0, 0.0]]), np.array([[0, 0.5, 0.5]] * 2)
    with np.errstate(all="ignore"):
        losses = fastcnn.cross_entropy(z, p, reduction="none", engine=engine)
    np.testing.assert_allclose(losses, np.log(2))


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([[0.5, 0.6], [1, 0]], ValueError, r"add up to 1, got \[0.5, 0.6\] in row 0"),
        ([[1, 0], [1.5, -0.5]], ValueError, r"at least 0 and .* got \[1.5, -0.5\] in row 1"),
        ([[1, 0], [np.nan, 1]], ValueError, r"got \[nan, 1.0\] in row 1"),
        ([[0, 0], [1, 0]], ValueError, r"got \[0, 0\] in row 0"),
        ([["1", "0"], ["0", "1"]], TypeError, "labels must hold real numbers"),
        ([[0.5, 0.25, 0.25]] * 2, TypeError, "labels must be integers"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("f", [fastcnn.cross_entropy, fastcnn.cross_entropy_backward])
def test_wrong_rows_are_named(f: Any, labels: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        f(np.zeros((2, 2)), labels)


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", "<f8"])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_rows_that_are_normalised_in_their_own_dtype_are_taken(dtype: Any, classes: int) -> None:
    rows = rows_of(64, classes, zeros=False).astype(dtype)
    rows /= rows.sum(axis=1, keepdims=True)
    targets = CrossEntropy().targets(rows, 64, (classes,), np.float32)
    assert (targets.shape, targets.dtype) == ((64, classes), np.float32)
    mixed = np.asarray(0.3, dtype) * rows + np.asarray(0.7, dtype) * rows[::-1]
    assert CrossEntropy().targets(mixed, 64, (classes,), np.float64).dtype == np.float64


@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed", "list", "read-only"])
def test_rows_in_any_layout(layout: str) -> None:
    rows = rows_of(6, 4)
    given: Any = {
        "C": rows,
        "F": np.asfortranarray(rows),
        "strided": np.repeat(rows, 2, axis=1)[:, ::2],
        "reversed": rows[::-1, ::-1].copy()[::-1, ::-1],
        "list": rows.tolist(),
        "read-only": rows.copy(),
    }[layout]
    if layout == "read-only":
        given.flags.writeable = False
    x = np.random.default_rng(0).standard_normal((6, 5))
    models = [Sequential([Dense(4)], (5,), seed=0, dtype="float64") for _ in range(2)]
    assert models[0].train_on_batch(x, rows) == models[1].train_on_batch(x, given)
    np.testing.assert_array_equal(models[0].get_weights()[0], models[1].get_weights()[0])


@pytest.mark.parametrize(
    ("y", "error", "text"),
    [
        ([[0, 1, 0], [0.5, 0.4, 0]], ValueError, r"y must hold .* \[0.5, 0.4, 0.0\] in row 1"),
        ([[0.2, 1, 0], [0.5, 0.5, 0]], ValueError, r"add up to 1, got \[0.2, 1.0, 0.0\] in row 0"),
        ([[-0.5, 1, 0.5], [0.5, 0.5, 0]], ValueError, r"at least 0 .* \[-0.5, 1.0, 0.5\] in row 0"),
        ([[np.inf, 0, 0], [0.5, 0.5, 0]], ValueError, r"got \[inf, 0.0, 0.0\] in row 0"),
        ([[0.5, 0.5], [0.5, 0.5]], ValueError, r"one-hot rows \(N, 3\), got \(2, 2\)"),
        ([[0.5, 0.5, 0]], ValueError, "one label per sample, 2, got 1"),
        (np.full((2, 3), 1 / 3, np.longdouble), TypeError, "at most 64 bits"),
    ],
)  # fmt: skip
def test_wrong_targets_are_named_before_any_work(y: Any, error: type[Exception], text: str) -> None:
    x = np.zeros((2, 4), np.float32)
    model = Sequential([Dense(3)], (4,), seed=0)
    before = model.get_weights()[0]
    for call in (model.fit, model.train_on_batch, model.evaluate):
        with pytest.raises(error, match=text):
            call(x, y)
    with pytest.raises(error, match=f"validation_data: .*{text}"):
        model.fit(x, [0, 1], validation_data=(x, y), verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before)


def test_accuracy_counts_the_most_probable_class_of_ties_the_first() -> None:
    p = np.array([[0.4, 0.6, 0], [0.5, 0.5, 0], [0.2, 0.2, 0.6]])
    z = np.array([[1.0, 2, 0], [1, 2, 0], [0, 0, 1]])
    assert CrossEntropy().correct(z, p) == 2
    assert CrossEntropy(0.1).correct(z, p) == 2


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("engine", fastcnn.engines())
def test_smoothing_is_a_row_of_probabilities(soft: bool, engine: str) -> None:
    z = np.random.default_rng(3).standard_normal((5, 4))
    y = rows_of(5, 4) if soft else np.array([3, 0, 1, 1, 2])
    rows = y if soft else np.eye(4)[y]
    smoothed = 0.8 * rows + 0.2 / 4
    loss = CrossEntropy(label_smoothing=0.2)
    np.testing.assert_allclose(loss.values(z, y, engine), formula(z, smoothed), rtol=1e-12)
    same(loss.gradient(z, y, engine), slope(lambda: float(formula(z, smoothed).sum()), z))


# --- whole nets -----------------------------------------------------------------------------------

NETS: dict[str, Any] = {
    "one run": lambda: [Conv2D(4, 3, activation="relu"), MaxPool2D(), Flatten(), Dense(5)],
    "padded": lambda: [Conv2D(4, 3, padding="same"), Flatten(), Dense(5)],
    "coupled": lambda: [Conv2D(4, 3), BatchNorm(), Flatten(), Dense(5)],
    "softmax at the end": lambda: [Flatten(), Dense(5), Softmax()],
}
TARGETS: dict[str, Any] = {
    "soft": (rows_of(37, 5), 0.0),
    "smoothed": (np.arange(37) % 5, 0.1),
    "soft and smoothed": (rows_of(37, 5), 0.1),
}


def trained(
    net: str, y: Any, smoothing: float, engine: str | None, dtype: Float = "float64"
) -> tuple[Any, ...]:
    x = np.random.default_rng(5).standard_normal((37, 9, 8, 1))
    model = Sequential(NETS[net](), (9, 8, 1), seed=0, dtype=dtype, engine=engine)
    history = model.fit(
        x, y, epochs=2, batch_size=16, optimizer="adam", loss=CrossEntropy(smoothing),
        validation_data=(x, y), verbose=0,
    ).history  # fmt: skip
    after = [history[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")]
    return *after, *model.get_weights()


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("net", NETS)
def test_nets_train_the_same_in_every_engine(net: str, targets: str) -> None:
    expected = trained(net, *TARGETS[targets], "naive")
    for engine in ENGINES:
        for a, b in zip(trained(net, *TARGETS[targets], engine), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9, err_msg=str(engine))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("net", NETS)
def test_the_gradient_of_a_net_is_the_slope_of_its_loss(net: str, dtype: Float) -> None:
    model = Sequential(NETS[net](), (9, 8, 1), seed=0, dtype=dtype)
    x, p = np.random.default_rng(6).standard_normal((3, 9, 8, 1)), rows_of(3, 5)
    loss = CrossEntropy(0.1)
    targets = loss.targets(p, 3, (5,), model.dtype)
    total, _, gradients = model._gradients(x, targets, loss, model.rng)
    reference = Sequential(NETS[net](), (9, 8, 1), seed=0, dtype="float64", engine="im2col")
    reference.set_weights(model.get_weights())
    bias = reference.layers[-1 if net != "softmax at the end" else -2].parameters["b"]

    def mean() -> float:
        # In training, because batch normalisation takes other statistics there.
        return reference._gradients(x, p, loss, reference.rng)[0] / 3

    i = next(j for j, one in enumerate(model.layers) if isinstance(one, Dense))
    tolerance = 1e-4 if dtype == "float32" else 1e-6
    assert total / 3 == pytest.approx(mean(), rel=tolerance)
    np.testing.assert_allclose(gradients[i]["b"], slope(mean, bias), atol=tolerance)


@pytest.mark.parametrize("batch", [1, 7, 16, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_compiled_step_on_one_hot_rows_of_floats_takes_the_bits_of_labels(
    batch: int, dtype: Float
) -> None:
    """Also where one row of a fit is no one-hot row, so that all rows are probabilities."""
    x = np.random.default_rng(5).standard_normal((batch, 9, 8, 1)).astype(dtype)
    labels = np.arange(batch) % 5
    after = []
    for targets in (labels, np.eye(5, dtype=dtype)[labels]):
        model = Sequential(NETS["one run"](), (9, 8, 1), seed=0, dtype=dtype)
        executor = model._executor(model._trunk(CrossEntropy()))
        assert executor is not None
        result = executor.gradients([x], targets, CrossEntropy(), model.rng)
        after.append((result, model._weights.gradient.tobytes()))
    assert after[0] == after[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    before = fastcnn.get_num_threads()
    expected = trained("one run", *TARGETS["soft"], None, "float32")
    try:
        fastcnn.set_num_threads(threads)
        result = trained("one run", *TARGETS["soft"], None, "float32")
    finally:
        fastcnn.set_num_threads(before)
    for a, b in zip(result, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("batch", [1, 2, 32])
@pytest.mark.parametrize("targets", TARGETS)
def test_a_training_step_on_rows_is_one_compiled_call(
    targets: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastcnn.engine.numba.runtime import program

    x, (y, smoothing) = np.random.default_rng(5).random((37, 9, 8, 1), np.float32), TARGETS[targets]
    model = Sequential(NETS["one run"](), (9, 8, 1), seed=0)
    model.fit(x, y, batch_size=batch, loss=CrossEntropy(smoothing), verbose=0)
    calls, original = [], program.parallel_for

    def counted(*arguments: Any) -> Any:
        calls.append(arguments[0].__name__)
        return original(*arguments)

    monkeypatch.setattr(program, "parallel_for", counted)
    model.fit(x, y, batch_size=batch, loss=CrossEntropy(smoothing), verbose=0)
    assert calls == ["_train"] * -(-37 // batch)


def test_nan_among_rows_that_changed_after_the_check_is_no_step() -> None:
    """Rows are read where they are; the compiled step refuses a loss that is not finite."""
    x, p = np.random.default_rng(0).standard_normal((4, 9, 8, 1)), rows_of(4, 5)
    model = Sequential(NETS["one run"](), (9, 8, 1), seed=0, dtype="float64")
    executor = model._executor(model._trunk(CrossEntropy()))
    assert executor is not None
    before = model.get_weights()
    p[1, 2] = np.nan
    with np.errstate(all="ignore"):
        assert executor.step([x], p, CrossEntropy(), model.rng, SGD()) is None
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_training_on_rows_is_resumed_to_the_same_bits(tmp_path: Any) -> None:
    x, p = np.random.default_rng(0).standard_normal((20, 9, 8, 1)), rows_of(20, 5)

    def model() -> Sequential:
        return Sequential(NETS["one run"](), (9, 8, 1), seed=0)

    whole, first = model(), model()
    whole.fit(x, p, epochs=3, batch_size=8, seed=1, verbose=0)
    first.fit(x, p, epochs=2, batch_size=8, seed=1, verbose=0)
    first.save_checkpoint(tmp_path / "c")
    second = model()
    second.fit(x, p, epochs=3, batch_size=8, resume=tmp_path / "c", verbose=0)
    for a, b in zip(second.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"y must be the data that the training .* began with"):
        model().fit(x, p[::-1], epochs=3, batch_size=8, resume=tmp_path / "c", verbose=0)
