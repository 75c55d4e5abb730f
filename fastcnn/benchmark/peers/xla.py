"""JAX, compiled by XLA, on fastcnn's own layout (NHWC, HWIO)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fastcnn.arguments import Array
from fastcnn.benchmark.contest import Runner, Skipped
from fastcnn.benchmark.nets import RATE, NetTask, Part, losses_of, parts

FAMILY = "JAX"
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_started_with = 0


def set_threads(n: int) -> None:
    """Let XLA use ``n`` threads.

    Raises ``RuntimeError`` where it runs with another number: it reads it once, when it starts.
    """
    global _started_with
    if _started_with == n:
        return
    if _started_with:
        raise RuntimeError(f"it keeps the {_started_with} threads that it started with")
    os.environ["NPROC"] = str(n)  # what XLA sizes its pool by
    jax.config.update("jax_platforms", "cpu")
    jax.devices()
    _started_with = n


def net_runners(task: NetTask) -> Iterator[Runner | Skipped]:
    """The net under ``jax.jit``."""
    layers = parts(task.model())
    weights = [
        tuple(jnp.asarray(array) for array in (part.w, part.b) if array is not None)
        for part in layers
    ]
    x, labels = jnp.asarray(task.x), jnp.asarray(task.labels)

    def scores(weights: Any, x: Any) -> Any:
        for part, mine in zip(layers, weights, strict=True):
            x = _apply(part, mine, x)
        return x

    if task.mode == "predict":
        forward = jax.jit(lambda weights, x: jax.nn.softmax(scores(weights, x)))

        def predict() -> Array:
            return np.asarray(forward(weights, x))

        yield Runner(FAMILY, FAMILY, predict, lambda: (predict(),))
        return

    def loss_of(weights: Any, x: Any, labels: Any) -> Any:
        logs = jax.nn.log_softmax(scores(weights, x))
        return -jnp.take_along_axis(logs, labels[:, None], 1).mean()

    def update(weights: Any, x: Any, labels: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(weights, x, labels)
        return loss, jax.tree.map(lambda w, g: w - RATE * g, weights, gradients)

    compiled = jax.jit(update, donate_argnums=0)

    def step() -> float:
        nonlocal weights
        loss, weights = compiled(weights, x, labels)
        return float(loss)

    yield Runner(FAMILY, FAMILY, step, lambda: (losses_of(step),))


def _apply(part: Part, weights: Any, x: Any) -> Any:
    if part.kind == "conv":
        top, bottom, left, right = part.padding
        x = lax.conv_general_dilated(
            x, weights[0], part.stride, ((top, bottom), (left, right)), dimension_numbers=DIMENSIONS
        )
        if len(weights) == 2:
            x = x + weights[1]
    elif part.kind == "pool":
        window = (1, *part.size, 1)
        x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    elif part.kind == "flatten":
        x = x.reshape(len(x), -1)
    else:
        x = x @ weights[0] + weights[1]
    return jnp.maximum(x, 0) if part.relu else x
