"""Single operations as contests of fastcnn's engines, which peers can join.

The arrays hold small integers, so that every product and partial sum is exact in any order. So
there is one right result, and an error of one term makes a difference of at least 1, even in a long
sum. Algorithms that use transforms may be off by a quarter. Pooling selects from normal numbers,
and must be right to the last bit.

The reference is the im2col engine in float64, which the agreement tests compare with the
specification. The specification itself takes part as the engine "naive", if its time allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from zlib import crc32

import numpy as np

from fastcnn import ops
from fastcnn.bench.contest import Contest, Runner, Skipped, in_strict_math, on_one_thread
from fastcnn.bench.pages import at_page
from fastcnn.bench.report import ALONE, OURS, STRICT
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.core.operations import OPERATIONS
from fastcnn.engine.registry import engines
from fastcnn.proof.problems import Problem

OFF_BY = 0.25
"""Largest error on integers: half of the error that would round to another integer."""
MEAN_OFF_BY = 1e-5
PLACES, STAY, LARGEST_COPY = 3, 5e-3, 16 << 20
"""Number of copies of the arrays that take turns on one thread, seconds in each, and bytes up to
which arrays are copied.

The system decides which pages of memory a process gets, and thereby which arrays share sets of a
cache. This can slow a process down for all of its time. The least of several places is the same in
each process. docs/measurements.md has the row "Arrays lie in three places by turns".
"""
_LARGEST = 3


def contest(problem: Problem, naive_seconds: float) -> Contest:
    """The contest of fastcnn's engines.

    Args:
        problem: one of :func:`fastcnn.bench.problems.layer_problems`.
        naive_seconds: the longest time of a call of the naive engine. If the whole batch takes
            longer, the engine runs on a part of it. If one image takes longer, it does not run.
    """
    arrays = make_arrays(problem)
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    reference = run(problem, wide, "im2col")
    tolerance = OFF_BY
    if "pool" in problem.op:
        tolerance = MEAN_OFF_BY if problem.op.startswith("avg") else 0.0
    size = sum(a.nbytes for a in arrays.values()) + sum(y.nbytes // 2 for y in reference)
    result = Contest(problem.name, problem.op, flops(problem), size, reference, tolerance)
    for engine in engines():
        if engine == "naive":
            _join_naive(result, problem, arrays, naive_seconds)
        else:
            name = OURS if engine == "numba" else engine
            result.runners.append(_runner(name, problem, arrays, engine))
        if engine == "numba":
            runner = _runner(ALONE, problem, arrays, engine)
            if size <= LARGEST_COPY:
                runner = replace(runner, run=_in_places(problem, arrays, engine))
            result.runners.append(on_one_thread(runner))
            if method(problem) == "winograd":  # all other work is the same in both mathematics
                strict = _runner(OURS, problem, arrays, engine)
                result.runners.append(in_strict_math(strict, STRICT))
    return result


def run(problem: Problem, arrays: dict[str, Array], engine: str | None) -> tuple[Array, ...]:
    """The results of the public function on these arrays, as a tuple."""
    results = getattr(ops, problem.op)(**arrays, **problem.parameters, engine=engine)
    return results if isinstance(results, tuple) else (results,)


def method(problem: Problem) -> str:
    """The algorithm of fastcnn's call, such as "winograd"; empty where there is but one."""
    if not OPERATIONS[problem.op].by_algorithm:
        return ""
    arrays = {name: np.empty(shape, np.float32) for name, shape in problem.arrays.items()}
    algorithm = ops.explain(problem.op, **arrays, **problem.parameters)[0].chosen.algorithm
    return algorithm or ""


def make_arrays(problem: Problem) -> dict[str, Array]:
    """Float32 arrays, the same in every run: small integers, or for pooling normal numbers."""
    rng = np.random.default_rng(crc32(problem.name.encode()))
    arrays: dict[str, Array] = {}
    for name, shape in problem.arrays.items():
        if name == "x" and problem.op.startswith("max"):
            numbers = rng.standard_normal(shape, np.float32)
        else:
            numbers = rng.integers(-_LARGEST, _LARGEST + 1, shape).astype(np.float32)
        arrays[name] = at_page(numbers)
    return arrays


def flops(problem: Problem) -> int:
    """Multiply-adds times 2, from the geometry, without padding; 0 for other operations."""
    g = problem.geometry
    if isinstance(g, ConvGeometry):
        return g.flops
    if problem.op.startswith("dense"):
        inputs, outputs = problem.arrays["w"]
        passes = 2 if problem.op == "dense_backward" else 1
        return passes * 2 * problem.arrays["x"][0] * inputs * outputs
    return 0


def _runner(name: str, problem: Problem, arrays: dict[str, Array], engine: str) -> Runner:
    function: Callable[..., object] = getattr(ops, problem.op)
    return Runner(
        name,
        "fastcnn",
        lambda: function(**arrays, **problem.parameters, engine=engine),
        lambda: run(problem, arrays, engine),
    )


def _in_places(problem: Problem, arrays: dict[str, Array], engine: str) -> Callable[[], object]:
    """The operation on copies of its arrays in turns; each copy has a result of its own."""
    function: Callable[..., object] = getattr(ops, problem.op)
    copies = [{n: at_page(a) for n, a in arrays.items()} for _ in range(PLACES)]
    results: list[object] = [None] * PLACES

    def run() -> object:
        place = int(perf_counter() / STAY) % PLACES
        results[place] = None  # so that the new result can use its memory
        results[place] = function(**copies[place], **problem.parameters, engine=engine)
        return results[place]

    return run


def _join_naive(
    contest: Contest, problem: Problem, arrays: dict[str, Array], seconds: float
) -> None:
    batch = next(iter(problem.arrays.values()))[0]
    once = expected_seconds(problem) / batch
    if once > seconds:
        contest.skipped.append(Skipped("naive", f"one image takes it about {once:.1f} s"))
        return
    images = min(batch, int(seconds / once))
    if images == batch:
        contest.runners.append(_runner("naive", problem, arrays, "naive"))
        return
    part, some = _part(problem, arrays, images)
    wide = {name: array.astype(np.float64) for name, array in some.items()}
    runner = _runner("naive", part, some, "naive")
    contest.runners.append(
        replace(runner, share=images / batch, expected=run(part, wide, "im2col"))
    )


def _part(
    problem: Problem, arrays: dict[str, Array], images: int
) -> tuple[Problem, dict[str, Array]]:
    """The problem on the first images of its batch."""
    cut = {name: array[:images] if name in ("x", "dy") else array for name, array in arrays.items()}
    parameters = dict(problem.parameters)
    if "x_shape" in parameters:
        parameters["x_shape"] = (images, *parameters["x_shape"][1:])
    shapes = {name: array.shape for name, array in cut.items()}
    return replace(problem, arrays=shapes, parameters=parameters), cut


def expected_seconds(problem: Problem) -> float:
    """An estimate of the naive engine's time, by its regions of the image and its multiply-adds.

    >>> from fastcnn.bench.problems import layer_problems
    >>> expected_seconds(layer_problems()[0]) < 0.1
    True
    """
    g = problem.geometry
    if isinstance(g, ConvGeometry):
        regions = g.n * g.oh * g.ow * g.groups
    elif isinstance(g, PoolGeometry):
        regions = g.n * g.oh * g.ow
    else:
        regions = next(iter(problem.arrays.values()))[0]
    return 12e-6 * regions + 1e-9 * flops(problem)
