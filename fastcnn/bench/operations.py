"""Single operations as contests: fastcnn's engines, ready to be joined by peers.

The arrays hold small integers, so that every product and partial sum is exact whatever the order:
there is one right result, and an error of one term shows as a difference of at least 1, however
long the sum. What computes in detours, through transforms, may be off by a quarter. Pooling selects
from normal numbers, and must be right to the last bit.

The reference is the im2col engine in float64, which the agreement tests hold against the
specification; the specification itself runs as the engine "naive", where its time allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from zlib import crc32

import numpy as np

from fastcnn import ops
from fastcnn.bench.contest import Contest, Runner, Skipped, on_one_thread
from fastcnn.bench.pages import at_page
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.engine.registry import engines
from fastcnn.proof.problems import Problem

OFF_BY = 0.25
"""How far results of integers may be off: half of what would round to another integer."""
MEAN_OFF_BY = 1e-5
ONE_THREAD = "numba, 1 thread"
PLACES, STAY, MOVED = 3, 5e-3, 16 << 20
"""Copies of the arrays that take turns on one thread, seconds of each, and up to how many bytes.

The system decides which pages of memory a process gets, and so which of them share sets of a cache:
of thirty processes two had a depthwise layer slower by a sixth and more, for all of their time. The
least of several places is the same in each process.
"""
_LARGEST = 3


def contest(problem: Problem, naive_seconds: float) -> Contest:
    """The contest of fastcnn's engines.

    Args:
        problem: one of :func:`fastcnn.bench.problems.layer_problems`.
        naive_seconds: how long a call of the naive engine may take. Where the whole batch would
            take longer it runs on a part of it, and where one image would, not at all.
    """
    arrays = make_arrays(problem)
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    reference = run(problem, wide, "im2col")
    tolerance = OFF_BY
    if "pool" in problem.op:
        tolerance = MEAN_OFF_BY if problem.op.startswith("avg") else 0.0
    moved = sum(a.nbytes for a in arrays.values()) + sum(y.nbytes // 2 for y in reference)
    result = Contest(problem.name, problem.op, flops(problem), moved, reference, tolerance)
    for engine in engines():
        if engine == "naive":
            _join_naive(result, problem, arrays, naive_seconds)
        else:
            result.runners.append(_runner(engine, problem, arrays, engine))
        if engine == "numba":
            runner = _runner(ONE_THREAD, problem, arrays, engine)
            if moved <= MOVED:
                runner = replace(runner, run=_in_places(problem, arrays, engine))
            result.runners.append(on_one_thread(runner))
    return result


def run(problem: Problem, arrays: dict[str, Array], engine: str | None) -> tuple[Array, ...]:
    """The public function on these arrays, its results as a tuple."""
    results = getattr(ops, problem.op)(**arrays, **problem.parameters, engine=engine)
    return results if isinstance(results, tuple) else (results,)


def make_arrays(problem: Problem) -> dict[str, Array]:
    """Float32 arrays, the same for every run: small integers, or normal numbers to choose from."""
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
    """Multiply-adds times 2, from the geometry, padding not counted; 0 where there are none."""
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
    """The operation on copies of its arrays by turns, each with a result of its own."""
    function: Callable[..., object] = getattr(ops, problem.op)
    copies = [{n: at_page(a) for n, a in arrays.items()} for _ in range(PLACES)]
    results: list[object] = [None] * PLACES

    def run() -> object:
        place = int(perf_counter() / STAY) % PLACES
        results[place] = None  # so that its memory serves again
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
    """About how long the naive engine takes: for a region of the image, and for a multiply-add.

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
        regions = problem.arrays["x"][0]
    return 12e-6 * regions + 1e-9 * flops(problem)
