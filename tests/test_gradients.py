"""Gradients of every engine: adjoint to the forward operation, and its slope.

These need no reference: a bilinear operation and its gradients satisfy
⟨conv(x, w), dy⟩ = ⟨x, dx⟩ = ⟨w, dw⟩, and every gradient is the limit of a difference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.proof.bounds import gamma, unit_roundoff
from fastcnn.proof.problems import Problem, problems

ENGINES = fastcnn.engines()
LAYERS = [p for p in problems() if p.op == "conv2d_backward"]
WINDOWS = [p for p in problems() if p.op == "avg_pool2d_backward"]


def normal(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def dot(a: Array, b: Array) -> float:
    return float((a.astype(np.float64) * b.astype(np.float64)).sum())


def close(a: float, b: float, size: float, terms: int, dtype: str) -> bool:
    """Both sums of products of three, |x||w||dy| summing to ``size``, with a rounding between."""
    return abs(a - b) <= 2 * gamma(terms + 2, unit_roundoff(dtype)) * size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("problem", LAYERS, ids=lambda p: p.label)
def test_convolution_and_its_gradients_are_adjoint(
    problem: Problem, engine: str, dtype: str
) -> None:
    x, w, dy = (normal(problem.arrays[name], dtype, 3) for name in ("x", "w", "dy"))
    parameters, g = problem.parameters, problem.geometry
    y = fastcnn.conv2d(x, w, **parameters, engine=engine)
    dx, dw, db = fastcnn.conv2d_backward(dy, x, w, **parameters, engine=engine)

    size = dot(fastcnn.conv2d(abs(x), abs(w), **parameters, engine="im2col"), abs(dy))
    terms = g.kh * g.kw * max(g.group_ic, g.group_oc) + g.n * g.oh * g.ow
    assert close(dot(y, dy), dot(x, dx), size, terms, dtype)
    assert close(dot(y, dy), dot(w, dw), size, terms, dtype)
    np.testing.assert_allclose(
        db,
        dy.astype(np.float64).sum(axis=(0, 1, 2)),
        rtol=0,
        atol=1e-3 if dtype[-2:] == "32" else 1e-10,
    )
    if g.n:
        assert abs(dot(y, dy)) > 100 * unit_roundoff(dtype) * size  # zeros would not do


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("problem", WINDOWS, ids=lambda p: p.label)
def test_average_pooling_and_its_gradient_are_adjoint(problem: Problem, engine: str) -> None:
    x, dy = (normal(problem.arrays[name], "float64", 4) for name in ("x", "dy"))
    y = fastcnn.avg_pool2d(x, **problem.parameters, engine=engine)
    dx = fastcnn.avg_pool2d_backward(dy, x, **problem.parameters, engine=engine)
    assert dot(y, dy) == pytest.approx(dot(x, dx), abs=1e-11 * max(x.size, 1))


@pytest.mark.parametrize("engine", ENGINES)
def test_dense_and_its_gradients_are_adjoint(engine: str) -> None:
    x, w, dy = (normal(shape, "float64", 5) for shape in ((7, 33), (33, 10), (7, 10)))
    dx, dw, db = fastcnn.dense_backward(dy, x, w, engine=engine)
    y = fastcnn.dense(x, w, engine=engine)
    assert dot(y, dy) == pytest.approx(dot(x, dx), rel=1e-12)
    assert dot(y, dy) == pytest.approx(dot(w, dw), rel=1e-12)
    np.testing.assert_allclose(db, dy.sum(axis=0), rtol=1e-12)


def slope(function: Callable[[Array], Array], at: Array, dy: Array, step: float = 1e-5) -> Array:
    """Central differences of ⟨function(x), dy⟩ by each element of x, in float64."""
    result = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[i] += step
        down[i] -= step
        result[i] = dot(function(up) - function(down), dy) / (2 * step)
    return result


def same(gradient: Array, expected: Array) -> None:
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)
    assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize("engine", ENGINES)
def test_slope_of_convolution(engine: str) -> None:
    parameters = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2), "groups": 2}
    x, w, b = normal((1, 5, 6, 4), "float64", 6), normal((3, 2, 2, 6), "float64", 6), np.ones(6)
    dy = normal(fastcnn.conv2d(x, w, **parameters).shape, "float64", 7)

    def forward(x: Array, w: Array, b: Array) -> Array:
        return fastcnn.conv2d(x, w, b, **parameters, engine=engine)

    dx, dw, db = fastcnn.conv2d_backward(dy, x, w, **parameters, engine=engine)
    same(dx, slope(lambda v: forward(v, w, b), x, dy))
    same(dw, slope(lambda v: forward(x, v, b), w, dy))
    same(db, slope(lambda v: forward(x, w, v), b, dy))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["max", "min", "avg"])
def test_slope_of_pooling(kind: str, engine: str) -> None:
    parameters = {"size": (3, 2), "stride": (2, 1), "padding": ((1, 0), (0, 1))}
    forward, backward = (
        getattr(fastcnn, f"{kind}_pool2d"),
        getattr(fastcnn, f"{kind}_pool2d_backward"),
    )
    # A shuffled range: no two pixels are closer than the step of the difference.
    x = np.random.default_rng(8).permutation(1 * 6 * 5 * 3).reshape(1, 6, 5, 3) / 10
    dy = normal(forward(x, **parameters).shape, "float64", 8)
    dx = backward(dy, x, **parameters, engine=engine)
    same(dx, slope(lambda v: forward(v, **parameters, engine=engine), x, dy))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("op", ["relu", "softmax", "log_softmax"])
def test_slope_of_activations(op: str, engine: str) -> None:
    forward, backward = getattr(fastcnn, op), getattr(fastcnn, f"{op}_backward")
    x, dy = normal((3, 7), "float64", 9), normal((3, 7), "float64", 10)
    same(backward(dy, x, engine=engine), slope(lambda v: forward(v, engine=engine), x, dy))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_slope_of_cross_entropy(reduction: str, engine: str) -> None:
    logits, labels = normal((4, 6), "float64", 11), np.array([5, 0, 2, 2])

    def loss(v: Array) -> Array:
        return np.asarray(fastcnn.cross_entropy(v, labels, reduction=reduction, engine=engine))

    gradient = fastcnn.cross_entropy_backward(logits, labels, reduction=reduction, engine=engine)
    same(gradient, slope(loss, logits, np.ones(())))


@pytest.mark.parametrize("engine", ENGINES)
def test_slope_of_dense(engine: str) -> None:
    x, w, b = normal((3, 5), "float64", 12), normal((5, 4), "float64", 12), np.ones(4)
    dy = normal((3, 4), "float64", 13)
    dx, dw, db = fastcnn.dense_backward(dy, x, w, engine=engine)
    same(dx, slope(lambda v: fastcnn.dense(v, w, b, engine=engine), x, dy))
    same(dw, slope(lambda v: fastcnn.dense(x, v, b, engine=engine), w, dy))
    same(db, slope(lambda v: fastcnn.dense(x, w, v, engine=engine), b, dy))
