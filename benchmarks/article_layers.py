"""The layers of the article's net as problems to time, each verified before it is timed.

conv 28×28×1 → 26×26×8 (3×3), max-pool 2×2 → 13×13×8, dense 1352 → 10, forward and backward; and
conv + pool over 100 MNIST digits, the article's own inner loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastcnn
from fastcnn.core.geometry import conv_geometry, pool_geometry
from fastcnn.proof.bounds import linear_bound, unit_roundoff
from fastcnn.proof.check import call, check, reference_of
from fastcnn.proof.data import make_arrays
from fastcnn.proof.problems import Case, Problem

ENGINES = ("naive", "im2col", "numba")
BATCHES = (1, 32)
DIGITS = 100
SEED = 7


@dataclass(frozen=True)
class Timed:
    """A computation of which every engine has a version.

    ``operations`` counts multiply-adds as 2 and comparisons as 1; ``verify(engine)`` raises where
    the engine disagrees with the specification.
    """

    name: str
    operations: int
    run: Callable[[str], object]
    verify: Callable[[str], None]


def layers() -> Iterator[Timed]:
    """Each layer, forward and backward, at each batch size; float32."""
    for n in BATCHES:
        image, filters, maps = (n, 28, 28, 1), (3, 3, 1, 8), (n, 26, 26, 8)
        conv = conv_geometry(image, filters)
        yield _layer(Problem("conv2d", f"{n}", {"x": image, "w": filters, "b": (8,)}, {}, conv))
        yield _layer(
            Problem("conv2d_backward", f"{n}", {"dy": maps, "x": image, "w": filters}, {}, conv)
        )
        size, pooled = {"size": 2}, (n, 13, 13, 8)
        pool = pool_geometry(maps, 2)
        yield _layer(Problem("max_pool2d", f"{n}", {"x": maps}, size, pool))
        yield _layer(Problem("max_pool2d_backward", f"{n}", {"dy": pooled, "x": maps}, size, pool))
        flat, weights, scores = (n, 1352), (1352, 10), (n, 10)
        yield _layer(Problem("dense", f"{n}", {"x": flat, "w": weights, "b": (10,)}))
        yield _layer(Problem("dense_backward", f"{n}", {"dy": scores, "x": flat, "w": weights}))


def conv_and_pool() -> Timed:
    """The article's conv + pool over 100 MNIST test digits, in one batch; float32."""
    _, (images, _) = fastcnn.load_mnist()
    x = (images[:DIGITS, :, :, None] / 255 - 0.5).astype(np.float32)
    w = (np.random.default_rng(SEED).standard_normal((3, 3, 1, 8)) / 9).astype(np.float32)

    def run(engine: str) -> Any:
        return fastcnn.max_pool2d(fastcnn.conv2d(x, w, engine=engine), 2, engine=engine)

    def verify(engine: str) -> None:
        y = fastcnn.conv2d(x, w, engine="naive")
        magnitude = fastcnn.conv2d(
            np.abs(x).astype(np.float64), np.abs(w).astype(np.float64), engine="naive"
        )
        bound = linear_bound(9, magnitude, y, unit_roundoff(np.float32))
        # Maxima of two windows differ by no more than the windows' worst elements do.
        allowed = fastcnn.max_pool2d(bound, 2, engine="naive")
        expected = fastcnn.max_pool2d(y, 2, engine="naive")
        error = np.abs(run(engine).astype(np.float64) - expected)
        if not (error <= allowed).all():
            raise AssertionError(f"{engine} disagrees by {error.max():.1e} on conv + pool")

    comparisons = DIGITS * 26 * 26 * 8
    operations = conv_geometry(x.shape, w.shape).flops + comparisons
    return Timed(f"conv + pool, {DIGITS} digits", operations, run, verify)


def _layer(problem: Problem) -> Timed:
    # Verified on integers, to the last bit: sums over 32 images are too long for the bound of
    # rounding errors to prove anything. Timed on normal numbers.
    exact = Case(problem, "float32", "exact")
    reference = reference_of(exact, SEED)
    arrays = make_arrays(Case(problem, "float32", "float"), SEED)

    def verify(engine: str) -> None:
        result = check(reference, engine)
        if not result.ok:
            raise AssertionError(f"{engine} on {exact.name}: {result.problem}")

    return Timed(
        f"{problem.op}, batch {problem.label}",
        _operations(problem),
        lambda engine: call(problem, arrays, engine),
        verify,
    )


def _operations(problem: Problem) -> int:
    """Of the products and comparisons; a backward pass has two products for each forward one."""
    passes = 2 if problem.op in ("conv2d_backward", "dense_backward") else 1
    if problem.op.startswith("dense"):
        return passes * 2 * problem.arrays["x"][0] * int(np.prod(problem.arrays["w"]))
    if problem.op.startswith("max_pool2d"):
        return int(np.prod(problem.arrays["x"]))
    return passes * conv_geometry(problem.arrays["x"], problem.arrays["w"]).flops
