"""Weighted, masked and multi-output losses beside PyTorch's, with their gradients, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastcnn import Input, Model, Sequential
from fastcnn.core.arguments import Array
from fastcnn.layers import Conv2D, Dense, Flatten, Layer
from fastcnn.losses import CrossEntropy, Huber
from fastcnn.optimizers import SGD

torch = pytest.importorskip("torch", reason="the reference is PyTorch")
RNG = np.random.default_rng(3)
N, H, W, C, CLASSES = 5, 4, 3, 2, 3
X = RNG.standard_normal((N, H, W, C))
PIXELS = RNG.integers(0, CLASSES, (N, H, W))
WEIGHTS = RNG.uniform(0, 2, N)
WEIGHTS[2] = 0


def functional() -> Any:
    return torch.nn.functional


def tensor(array: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(array))


def maps(engine: str) -> Sequential:
    layers: list[Layer] = [Conv2D(CLASSES, (2, 3), padding="same")]
    return Sequential(layers, (H, W, C), seed=0, dtype="float64", engine=engine)


def its_maps(model: Any) -> tuple[Any, Any, Any]:
    """The scores of a convolution in PyTorch (N, classes, H, W), and its parameters."""
    w, b = (tensor(a).requires_grad_() for a in model.get_weights())
    x = functional().pad(tensor(X.transpose(0, 3, 1, 2)), (1, 1, 0, 1))
    return functional().conv2d(x, w.permute(3, 2, 0, 1), b), w, b


def step(model: Any, y: Any, **settings: Any) -> tuple[float, list[Array]]:
    """The loss of a batch, and the gradients: an SGD step of rate 1 subtracts them."""
    before = model.get_weights()
    history = model.fit(
        X, y, optimizer=SGD(1.0), batch_size=N, shuffle=False, verbose=0, **settings
    ).history
    return history["loss"][0], [a - b for a, b in zip(before, model.get_weights(), strict=True)]


@pytest.mark.parametrize("engine", ["numba", "im2col"])
@pytest.mark.parametrize("kind", ["ignored", "classes", "samples", "pixels"])
def test_losses_of_label_images(kind: str, engine: str) -> None:
    model = maps(engine)
    scores, w, b = its_maps(model)
    own = functional().cross_entropy(scores, tensor(PIXELS), reduction="none")
    settings: dict[str, Any] = {}
    y = PIXELS
    if kind == "ignored":  # as ignore_index: the mean over the pixels that count
        ignored = RNG.random(PIXELS.shape) < 0.4
        labels = np.where(ignored, -100, PIXELS)
        loss = functional().cross_entropy(scores, tensor(labels), ignore_index=-100)
        y, counts = np.where(ignored, 0, PIXELS), ~ignored
        settings["sample_weight"] = counts * (counts.size / counts.sum())
    elif kind == "classes":
        rates = np.array([0.5, 2.0, 1.0])
        loss = (own * tensor(rates[PIXELS])).mean()
        settings["class_weight"] = dict(enumerate(rates))
    elif kind == "samples":
        loss = (own.mean(dim=(1, 2)) * tensor(WEIGHTS)).mean()
        settings["sample_weight"] = WEIGHTS
    else:
        weights = RNG.uniform(0, 3, PIXELS.shape)
        loss = (own * tensor(weights)).mean()
        settings["sample_weight"] = weights
    loss.backward()
    value, gradients = step(model, y, loss=CrossEntropy(), **settings)
    assert value == pytest.approx(float(loss.detach()), rel=1e-12)
    for mine, its in zip(gradients, (w, b), strict=True):
        np.testing.assert_allclose(mine, its.grad.numpy(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("engine", ["numba", "im2col"])
def test_losses_of_several_outputs(engine: str, accumulate: int) -> None:
    inputs = Input((H, W, C))
    x = Flatten()(inputs)
    outputs = [Dense(CLASSES, name="kind")(x), Dense(2, name="place")(x)]
    model = Model(inputs, outputs, seed=0, dtype="float64", engine=engine)
    kinds, places = RNG.integers(0, CLASSES, N), RNG.standard_normal((N, 2))
    parameters = [tensor(a).requires_grad_() for a in model.get_weights()]
    flat = tensor(X.reshape(N, -1))
    scores, place = (flat @ parameters[i] + parameters[i + 1] for i in (0, 2))
    one = functional().cross_entropy(scores, tensor(kinds), label_smoothing=0.1, reduction="none")
    other = functional().huber_loss(place, tensor(places), delta=0.3, reduction="none").mean(dim=1)
    loss = ((0.7 * one + 2.5 * other) * tensor(WEIGHTS)).mean()
    loss.backward()
    value, gradients = step(
        model, {"kind": kinds, "place": places},
        loss={"kind": CrossEntropy(0.1), "place": Huber(0.3)}, sample_weight=WEIGHTS,
        loss_weights={"kind": 0.7, "place": 2.5}, accumulate=accumulate,
    )  # fmt: skip
    assert value == pytest.approx(float(loss.detach()), rel=1e-12)
    for mine, its in zip(gradients, parameters, strict=True):
        np.testing.assert_allclose(mine, its.grad.numpy(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse", "mae"])
def test_weighted_losses_of_samples(loss: str) -> None:
    model = Sequential([Flatten(), Dense(CLASSES)], (H, W, C), seed=0, dtype="float64",
                       engine="im2col")  # fmt: skip
    w, b = (tensor(a).requires_grad_() for a in model.get_weights())
    scores = tensor(X.reshape(N, -1)) @ w + b
    y = RNG.integers(0, CLASSES, N) if loss == "cross_entropy" else RNG.random((N, CLASSES))
    references = {
        "cross_entropy": functional().cross_entropy,
        "binary_cross_entropy": functional().binary_cross_entropy_with_logits,
        "mse": functional().mse_loss,
        "mae": functional().l1_loss,
    }
    own = references[loss](scores, tensor(y), reduction="none")
    total = ((own if own.ndim == 1 else own.mean(dim=1)) * tensor(WEIGHTS)).mean()
    total.backward()
    value, gradients = step(model, y, loss=loss, sample_weight=WEIGHTS)
    assert value == pytest.approx(float(total.detach()), rel=1e-12)
    for mine, its in zip(gradients, (w, b), strict=True):
        np.testing.assert_allclose(mine, its.grad.numpy(), rtol=1e-9, atol=1e-14)
