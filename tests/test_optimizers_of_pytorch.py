"""Steps of the optimizers agree with PyTorch's to rounding, where the definitions agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastcnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop

CASES: list[tuple[Optimizer, str, dict[str, Any]]] = [
    (SGD(0.05), "SGD", {"lr": 0.05}),
    (SGD(0.05, weight_decay=0.1), "SGD", {"lr": 0.05, "weight_decay": 0.1}),
    (SGD(0.05, momentum=0.9), "SGD", {"lr": 0.05, "momentum": 0.9}),
    (
        SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    (Adam(0.01), "Adam", {"lr": 0.01}),
    (
        Adam(0.01, beta_1=0.8, beta_2=0.95, epsilon=1e-3, weight_decay=0.1),
        "Adam",
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    ),
    (AdamW(0.01), "AdamW", {"lr": 0.01}),
    (AdamW(0.01, weight_decay=0.3), "AdamW", {"lr": 0.01, "weight_decay": 0.3}),
    (RMSprop(0.01), "RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-7}),
    (
        RMSprop(0.01, rho=0.99, momentum=0.5, epsilon=1e-8, weight_decay=0.1),
        "RMSprop",
        {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.1},
    ),
]


@pytest.mark.parametrize(("mine", "name", "arguments"), CASES, ids=lambda one: repr(one)[:60])
def test_a_hundred_steps_agree(mine: Optimizer, name: str, arguments: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = rng.standard_normal(37)
    gradients = rng.standard_normal((100, 37)) * np.logspace(-3, 1, 37)
    parameters = start.copy()
    theirs = torch.nn.Parameter(torch.tensor(start))
    optimizer = getattr(torch.optim, name)([theirs], **arguments)
    largest = 0.0
    for gradient in gradients:
        mine.step(parameters, gradient.copy())
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        largest = max(largest, np.abs(parameters - theirs.detach().numpy()).max())
    assert largest < 1e-13
    assert np.abs(parameters - start).max() > 0.1
