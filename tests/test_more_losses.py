"""Absolute, Huber, focal, hinge and Kullback-Leibler losses, and losses of a user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastcnn import Sequential
from fastcnn.layers import Conv2D, Dense, Flatten
from fastcnn.losses import (
    Focal,
    Hinge,
    Huber,
    KLDivergence,
    Loss,
    MeanAbsoluteError,
)

RNG = np.random.default_rng(0)
Z = 3 * RNG.standard_normal((11, 4))
NUMBERS = 3 * RNG.standard_normal((11, 4))
LABELS = RNG.integers(0, 4, 11)
ROWS = RNG.dirichlet(np.ones(4), 11)
ROWS[0] = [0, 0, 1, 0]  # zeros have no logarithm

CASES: list[tuple[Loss, Any]] = [
    (MeanAbsoluteError(), NUMBERS),
    (Huber(), NUMBERS),
    (Huber(0.3), NUMBERS),
    (Focal(), LABELS),
    (Focal(0.5), ROWS),
    (Focal(0.0), ROWS),
    (KLDivergence(), ROWS),
    (KLDivergence(), LABELS),
    (Hinge(), LABELS),
    (Hinge(0.2), np.eye(4)[LABELS]),
]
IDS = [f"{loss!r}-{np.ndim(targets)}" for loss, targets in CASES]


@pytest.mark.parametrize(("loss", "y"), CASES, ids=IDS)
def test_gradients_are_those_of_the_values(loss: Loss, y: Any) -> None:
    targets = loss.targets(y, len(Z), (4,), np.float64)
    gradient = loss.gradient(Z, targets)
    h = 1e-6
    for j in range(4):
        step = h * np.eye(4)[j]
        slope = (loss.values(Z + step, targets) - loss.values(Z - step, targets)) / (2 * h)
        assert np.abs(slope - gradient[:, j]).max() < 1e-8
    single = loss.targets(y, len(Z), (4,), np.float32)
    for engine in ("naive", "im2col", "numba"):
        values = loss.values(Z.astype(np.float32), single, engine)
        assert values.dtype == np.float32
        assert np.abs(values - loss.values(Z, targets)).max() < 1e-5
        dz = loss.gradient(Z.astype(np.float32), single, engine)
        assert np.abs(dz - gradient).max() < 1e-5


@pytest.mark.parametrize(("loss", "y"), CASES, ids=IDS)
def test_values_and_gradients_are_those_of_pytorch(loss: Loss, y: Any) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    z = torch.tensor(Z, requires_grad=True)
    targets = loss.targets(y, len(Z), (4,), np.float64)
    rows = torch.tensor(targets if targets.ndim == 2 else np.eye(4)[targets])
    logs = functional.log_softmax(z, dim=1)
    reference: Any
    if isinstance(loss, MeanAbsoluteError):
        reference = functional.l1_loss(z, rows, reduction="none").mean(dim=1)
    elif isinstance(loss, Huber):
        reference = functional.huber_loss(z, rows, reduction="none", delta=loss.delta).mean(dim=1)
    elif isinstance(loss, Focal):
        reference = -(rows * (1 - logs.exp()) ** loss.gamma * logs).sum(dim=1)
    elif isinstance(loss, KLDivergence):
        reference = functional.kl_div(logs, rows, reduction="none").sum(dim=1)
    else:
        assert isinstance(loss, Hinge)
        reference = functional.multi_margin_loss(
            z, torch.tensor(targets), margin=loss.margin, reduction="none"
        )
    reference.sum().backward()
    assert np.abs(loss.values(Z, targets) - reference.detach().numpy()).max() < 1e-13
    assert np.abs(loss.gradient(Z, targets) - z.grad.numpy()).max() < 1e-13


def test_extreme_scores_stay_finite() -> None:
    scores = np.array([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 0.0]])
    for loss in (Focal(2.0), Focal(0.5), KLDivergence(), Hinge()):
        targets = loss.targets([0, 0], 2, (3,), np.float64)
        assert np.isfinite(loss.values(scores, targets)).all()
        assert np.isfinite(loss.gradient(scores, targets)).all()


@pytest.mark.parametrize("name", ["mae", "huber", "focal", "hinge", "kl_divergence"])
def test_names_train_and_files_keep_them(name: str, tmp_path: Any) -> None:
    x = RNG.integers(0, 256, (20, 5, 4, 1), dtype=np.uint8)
    y = RNG.integers(0, 3, 20)
    numbers = name in ("mae", "huber")
    model = Sequential([Conv2D(2, 3), Flatten(), Dense(3)], (5, 4, 1), seed=0, engine="im2col")
    history = model.fit(
        x, np.eye(3)[y] if numbers else y, loss=name, epochs=15, optimizer="adam", verbose=0
    )
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert ("accuracy" in history.history) != numbers
    model.save(tmp_path / "model.st")
    from fastcnn import load_model

    again = load_model(tmp_path / "model.st")
    again.engine = "im2col"
    assert repr(again.loss) == repr(model.loss)
    assert (again.predict(x) == model.predict(x)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Huber(0), "delta must be above 0"),
        (lambda: Hinge(-1), "margin must be a finite number"),
        (lambda: Focal("2"), "gamma must be a number"),
        (lambda: Hinge().targets([0, 1], 2, (1,), np.float64), "at least two classes"),
        (lambda: Hinge().targets(ROWS, 11, (4,), np.float64), "got probabilities"),
        (lambda: KLDivergence().targets(2 * ROWS, 11, (4,), np.float64), "y must"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


class Squared(Loss):
    """A user's loss: what a regression needs, and nothing else."""

    counts = False

    def values(self, outputs: Any, targets: Any, engine: Any = None) -> Any:
        return np.square(outputs - targets).mean(axis=1)

    def gradient(self, outputs: Any, targets: Any, engine: Any = None) -> Any:
        return 2 * (outputs - targets) / outputs.shape[1]


def test_a_loss_of_ones_own_needs_two_methods() -> None:
    x, y = RNG.standard_normal((30, 3)), RNG.standard_normal(30)
    mine, theirs = (Sequential([Dense(1)], (3,), seed=0, engine="im2col") for _ in range(2))
    first = mine.fit(x, y, loss=Squared(), epochs=2, seed=0, verbose=0)
    second = theirs.fit(x, y, loss="mse", epochs=2, seed=0, verbose=0)
    assert first.history["loss"] == pytest.approx(second.history["loss"], rel=1e-5)
    assert np.isnan(mine.train_on_batch(x, y, loss=Squared())[1])


def test_missing_methods_are_named() -> None:
    class Unfinished(Loss):
        """It counts, and does not say how."""

        def values(self, outputs: Any, targets: Any, engine: Any = None) -> Any:
            return np.abs(outputs - targets).mean(axis=1)

    loss, z = Unfinished(), np.zeros((2, 1))
    with pytest.raises(NotImplementedError, match=r"Unfinished must define gradient\(self"):
        loss.gradient(z, z)
    with pytest.raises(NotImplementedError, match="or set counts = False"):
        loss.correct(z, z)
