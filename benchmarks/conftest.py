"""pytest-benchmark over the one table of problems; scripts are run, not collected.

    python -m pytest benchmarks --benchmark-enable [--benchmark-json FILE]

Timed, everything runs, beside the peers that are installed. Untimed, as in the test suite, the
quick part of the table runs once on the faster engines. What pytest-benchmark has no columns for is
in ``extra_info`` of its JSON, and comes from here: ratios are known when all has been timed.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fastcnn.bench import nets, operations, peers
from fastcnn.bench import peak as hardware
from fastcnn.bench.contest import CannotRun, Contest
from fastcnn.bench.problems import NetProblem, select
from fastcnn.core.settings import get_num_threads
from fastcnn.proof.problems import Problem

collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("*.py")
    if not path.name.startswith(("test_", "conftest"))
]

NAIVE_SECONDS = 1.0
OPERATION_ENGINES = ("naive", "im2col", "fastcnn", "fastcnn, 1 thread")
NET_ENGINES = ("naive", "im2col", "fastcnn", "fastcnn, 1 thread")
OURS = {*OPERATION_ENGINES, *NET_ENGINES}
PEERS = {
    "PyTorch NCHW": "torch",
    "PyTorch NHWC": "torch",
    "PyTorch": "torch",
    "PyTorch compiled NCHW": "torch",
    "PyTorch compiled NHWC": "torch",
    "PyTorch frozen": "torch",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "LiteRT": "litert",
    "JAX": "jax",
    "SciPy": "scipy",
}


def untimed(config: pytest.Config) -> bool:
    """Whether this run is a test of the benchmarks themselves."""
    return config.getoption("benchmark_disable") and not config.getoption("benchmark_enable")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "problem" not in metafunc.fixturenames:
        return
    short = untimed(metafunc.config)
    layers, whole = select(quick=short)
    problems: list[tuple[str, Any]] = [(p.name, p) for p in layers]
    engines = OPERATION_ENGINES
    if "net" in metafunc.function.__name__:
        problems = [(nets.title(p), p) for p in whole if not (short and p.net == "wide")]
        engines = NET_ENGINES
    runners = engines[1:] if short else (*engines, *PEERS)
    pairs = [
        pytest.param(problem, runner, id=f"{name}-{runner}")
        for name, problem in problems
        for runner in runners
    ]
    metafunc.parametrize(("problem", "runner"), pairs)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Compiling everything anew is for timed runs alone; ``tests/test_compile.py`` guards it."""
    if untimed(config):
        name = "test_first_call_with_a_full_cache"
        items[:] = [item for item in items if item.name != name]


@cache
def contest_of(problem: Problem | NetProblem, peer: str | None) -> Contest:
    """The contest with the engines, or with one peer too."""
    if isinstance(problem, Problem):
        contest = operations.contest(problem, NAIVE_SECONDS)
        if peer is not None:
            peers.join_operation(contest, problem, [peer], get_num_threads())
        return contest
    task = nets.task(problem.net, problem.mode, problem.batch)
    contest = nets.contest(task, NAIVE_SECONDS)
    if peer is not None:
        peers.join_net(contest, task, [peer], get_num_threads())
    return contest


@cache
def measured_peak() -> hardware.Peak:
    return hardware.measure([1, get_num_threads()])


@pytest.fixture
def compete(benchmark: Any) -> Any:
    """Verify and time one runner of a problem's contest, or say why it does not take part."""

    def run(problem: Problem | NetProblem, name: str) -> None:
        contest = contest_of(problem, PEERS.get(name))
        benchmark.group = contest.name
        runner = next((r for r in contest.runners if r.name == name), None)
        if runner is None:
            family = name.split(" compiled")[0]
            reasons = [s.reason for s in contest.skipped if s.name in (name, family)]
            pytest.skip(reasons[0] if reasons else f"it does not run {contest.group} so")
        try:
            contest.verify(runner)
        except CannotRun as error:
            pytest.skip(str(error))
        benchmark(runner.run)
        if benchmark.disabled:
            return
        seconds = benchmark.stats.stats.min / runner.share
        threads, top = get_num_threads(), measured_peak()
        benchmark.extra_info.update(
            seconds=seconds,
            part_of_the_batch=runner.share,
            ours=name in OURS,
            gflops=contest.flops / seconds / 1e9,
            share_of_peak=top.share(contest.flops / seconds / 1e9, threads),
            share_of_bandwidth=contest.bytes / seconds / 1e9 / top.copy[threads],
        )

    return run


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]
) -> None:
    """Ratios to the naive engine and to the best peer, from all that ran."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in output_json["benchmarks"]:
        if "seconds" in one["extra_info"]:
            groups[one["group"]].append(one)
    for timed in groups.values():
        naive = [t["extra_info"]["seconds"] for t in timed if t["params"]["runner"] == "naive"]
        best = [t["extra_info"]["seconds"] for t in timed if not t["extra_info"]["ours"]]
        for one in timed:
            info = one["extra_info"]
            if naive:
                info["times_naive"] = naive[0] / info["seconds"]
            if best:
                info["times_best_peer"] = min(best) / info["seconds"]
