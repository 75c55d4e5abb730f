"""JAX, compiled by XLA, on fastcnn's own layout (NHWC, HWIO)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fastcnn.bench.contest import Runner, Skipped
from fastcnn.bench.nets import RATE, NetTask, Part, losses_of, parts
from fastcnn.bench.standard import StandardTask
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.proof.problems import Problem

FAMILY = "JAX"
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_started_with = 0


def set_threads(n: int) -> None:
    """Let XLA use ``n`` threads.

    Raises ``RuntimeError`` if XLA runs with another number, because it reads the number only when
    it starts.
    """
    global _started_with
    if _started_with == n:
        return
    if _started_with:
        raise RuntimeError(f"it keeps the {_started_with} threads that it started with")
    os.environ["NPROC"] = str(n)  # the size of XLA's pool
    jax.config.update("jax_platforms", "cpu")
    jax.devices()
    _started_with = n


def net_runners(task: NetTask | StandardTask, compiled: bool) -> Iterator[Runner | Skipped]:
    """The net under ``jax.jit``."""
    if isinstance(task, StandardTask):
        yield Skipped(FAMILY, "it is taught nets in a row alone here")
        return
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

    stepped = jax.jit(update, donate_argnums=0)

    def step() -> float:
        nonlocal weights
        loss, weights = stepped(weights, x, labels)
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


def operation_runners(
    problem: Problem, arrays: dict[str, Array], compiled: bool
) -> Iterator[Runner | Skipped]:
    """One operation under ``jax.jit``. JAX derives only the gradient that is asked for."""
    function, names = _operation(problem)
    jitted = jax.jit(function)
    operands = [jnp.asarray(arrays[name]) for name in names]

    def run() -> Any:
        return jax.block_until_ready(jitted(*operands))

    def result() -> tuple[Array, ...]:
        results = run()
        return tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))

    yield Runner(FAMILY, FAMILY, run, result)


def _operation(problem: Problem) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """The function, and the names of its arrays."""
    g = problem.geometry
    if isinstance(g, ConvGeometry):
        sides = (g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right)

        def conv(x: Any, w: Any) -> Any:
            return lax.conv_general_dilated(
                x,
                w,
                (g.stride_h, g.stride_w),
                sides,
                dimension_numbers=DIMENSIONS,
                feature_group_count=g.groups,
            )

        if problem.op == "conv2d":
            return lambda x, w, b: conv(x, w) + b, ("x", "w", "b")
        if problem.op == "conv2d_input_gradient":
            x = jax.ShapeDtypeStruct(g.input_shape, jnp.float32)
            return lambda dy, w: jax.linear_transpose(lambda x: conv(x, w), x)(dy)[0], ("dy", "w")
        w = jax.ShapeDtypeStruct(g.filter_shape, jnp.float32)
        return lambda dy, x: jax.linear_transpose(lambda w: conv(x, w), w)(dy)[0], ("dy", "x")
    if isinstance(g, PoolGeometry):
        return _pooling(problem, g)
    if problem.op == "dense":
        return lambda x, w, b: x @ w + b, ("x", "w", "b")
    if problem.op == "dense_backward":
        return lambda dy, x, w: (dy @ w.T, x.T @ dy, dy.sum(0)), ("dy", "x", "w")
    raise NotImplementedError(f"it is not taught {problem.op} here")


def _pooling(problem: Problem, g: PoolGeometry) -> tuple[Callable[..., Any], tuple[str, ...]]:
    sides = (0, 0), (g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right), (0, 0)
    window, strides = (1, g.kh, g.kw, 1), (1, g.stride_h, g.stride_w, 1)
    if problem.op.startswith("avg") and any(map(any, sides)):
        raise NotImplementedError("means that leave padding out are not among its operations")

    def forward(x: Any) -> Any:
        if problem.op.startswith("max"):
            return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, sides)
        return lax.reduce_window(x, 0.0, lax.add, window, strides, sides) / (g.kh * g.kw)

    if problem.op.endswith("_backward"):
        return lambda dy, x: jax.vjp(forward, x)[1](dy)[0], ("dy", "x")
    return forward, ("x",)
