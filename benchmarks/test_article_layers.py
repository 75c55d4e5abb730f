"""naive against im2col against Numba on the article's layers.

    python -m pytest benchmarks --benchmark-enable

Grouped by problem; each engine is verified against the specification before it is timed. The
columns that pytest-benchmark has no room for, GFLOP/s and the ratio to naive, are in its JSON
(``--benchmark-json FILE``, under ``extra_info``).
"""

from __future__ import annotations

from typing import Any

import pytest
from article_layers import ENGINES, Timed, conv_and_pool, layers

PROBLEMS = [*layers(), conv_and_pool()]

_naive_seconds: dict[str, float] = {}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_article_layer(benchmark: Any, problem: Timed, engine: str) -> None:
    benchmark.group = problem.name
    problem.verify(engine)
    benchmark(problem.run, engine)
    if benchmark.disabled:
        return
    seconds = benchmark.stats.stats.min
    benchmark.extra_info["gflops"] = problem.operations / seconds / 1e9
    if engine == "naive":
        _naive_seconds[problem.name] = seconds
    if problem.name in _naive_seconds:
        benchmark.extra_info["times_naive"] = _naive_seconds[problem.name] / seconds
