"""The run of the suite, which verifies each contest and then times it in turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, NamedTuple

from fastcnn.bench import measure, nets, operations, own_models, peers
from fastcnn.bench import peak as hardware
from fastcnn.bench.contest import CannotRun, Contest, Runner, WrongResult
from fastcnn.bench.own_models import ModelTask
from fastcnn.bench.problems import NetProblem, select
from fastcnn.bench.report import ENGINE_OF, Absent, Cost, Entry, Figure, Report
from fastcnn.core.settings import get_num_threads, set_num_threads
from fastcnn.engine.machine import facts
from fastcnn.engine.registry import engines
from fastcnn.proof.problems import Problem

Progress = Callable[[int, int, str], None]
QUICK_SECONDS = 35.0
"""After this time a quick run begins no further contest."""
PATIENCE = 5.0
"""Seconds that a contest of a full run waits for free cores."""
CACHED = 4_000_000
"""A core's own caches may hold a large part of up to this many bytes."""
_BUSY = "Other processes were busy"
CACHED_INTENSITY = 4
"""With fewer operations per byte, memory is the limit on any current processor."""


class Effort(NamedTuple):
    """Times of a run: in all, of one contest, and of one call of the naive engine."""

    seconds: float
    contest: float
    naive: float
    pace: measure.Pace
    compiled: bool  # whether PyTorch's compiler runs
    peak_rounds: int


QUICK = Effort(QUICK_SECONDS, 1.2, 0.1, measure.QUICK, False, 24)
FULL = Effort(float("inf"), 6.0, 0.3, measure.USUAL, True, hardware.ROUNDS)


def bench(
    *,
    quick: bool = True,
    ops: Sequence[str] | None = None,
    net: Sequence[str] | None = None,
    problems: Sequence[Problem | NetProblem | ModelTask] | None = None,
    engine: Sequence[str] | None = None,
    peer: Sequence[str] | None = None,
    threads: int | None = None,
    seconds: float | None = None,
    costs: Callable[[], tuple[Cost, ...]] | None = None,
    progress: Progress | None = None,
    before: Report | None = None,
    limit: float | None = None,
    finished: Callable[[Report], None] | None = None,
) -> Report:
    """Run the suite.

    Args:
        quick: whether to run the quick part of the table in at most a minute, or all of it.
        ops, net: names of operations and nets. With either, only the named ones run.
        problems: run these problems instead of the table's; a ``ModelTask`` is a file's model.
        engine: names of fastcnn's engines; None for all.
        peer: names of :data:`fastcnn.bench.peers.PEERS`; None for all.
        threads: number of threads for all runners; None for fastcnn's setting.
        seconds: time for each contest; None for the default of ``quick``.
        costs: is called for the figures that are no contests, at the end of a run that has all
            contests and lacks these figures.
        progress: called as ``progress(done, total, name)`` before each contest and after the last.
        before: the report of an interrupted run, which this run continues: contests that it has are
            not run again, unless noise makes their ratio doubtful. Of two runs of a contest the
            one with less noise is kept.
        limit: seconds after which no further contest begins; None for no limit.
        finished: called with the report of all contests so far, after each of them.

    Returns:
        The report. Runners with a wrong result are in its entries' ``absent`` and are not timed.

    Raises:
        ValueError: a name is unknown, or ``before`` is of another machine, of other versions, or of
            another number of threads.
        ImportError: Numba is not installed.

    >>> found = bench(ops=["conv2d_input_gradient"], peer=[], seconds=0.01)
    >>> [entry.best.family for entry in found.entries], found.wrong
    (['fastcnn'], ())
    """
    if "numba" not in engines():
        raise ImportError(
            "bench needs Numba (pip install numba), because every figure is a share of what "
            "compiled multiply-adds reach on this machine"
        )
    if problems is None:
        layers, whole = select(quick, ops, net)
        problems = [*whole, *layers]
    names = tuple(peers.PEERS) if peer is None else tuple(peer)
    for name in names:
        if name not in peers.PEERS:
            raise ValueError(f"peer must be one of {', '.join(peers.PEERS)}, got {name!r}")
    own = engines() if engine is None else tuple(engine)
    for name in own:
        if name not in engines():
            raise ValueError(f"engine must be one of {', '.join(engines())}, got {name!r}")
    effort = QUICK if quick else FULL
    if seconds is not None:
        effort = effort._replace(contest=seconds, seconds=float("inf"))
    if before is not None:  # its peaks count too
        effort = effort._replace(peak_rounds=QUICK.peak_rounds)
    start, count_before = time.perf_counter(), get_num_threads()
    count = count_before if threads is None else threads
    set_num_threads(count)
    try:
        with _limited_blas(count) as notes:
            run = _Run(own, names, count, effort, quick, notes, start, before)
            return run.all(problems, progress, costs, limit, finished)
    finally:
        set_num_threads(count_before)


class _Run:
    """One run, which may continue an earlier one.

    Args:
        engines: fastcnn's engines.
        names: the peers.
        threads: number of threads for all runners.
        effort: times of the run.
        quick: whether the run is of the quick part.
        notes: what a reader needs to know of the machine.
        start: the clock when the run began.
        before: the report that this run continues, or None.
    """

    def __init__(
        self,
        engines: tuple[str, ...],
        names: tuple[str, ...],
        threads: int,
        effort: Effort,
        quick: bool,
        notes: list[str],
        start: float,
        before: Report | None,
    ) -> None:
        self.engines, self.names, self.threads = engines, names, threads
        self.effort, self.quick = effort, quick
        self.notes, self.start, self.before = [*notes, *_busy()], start, before
        self.machine = facts()
        self.machine["packages"] |= peers.versions()
        if before is not None:
            _check_same_kind(before, self.machine, threads, quick)
        self.entries = {entry.name: entry for entry in before.entries} if before else {}
        self.costs = before.costs if before else ()
        self.peaks = list[hardware.Peak]()
        self._measure_peak()

    def _measure_peak(self) -> None:
        counts = sorted({1, self.threads})
        self.peaks.append(hardware.measure(counts, self.effort.peak_rounds))

    def all(
        self,
        problems: Sequence[Problem | NetProblem | ModelTask],
        progress: Progress | None,
        costs: Callable[[], tuple[Cost, ...]] | None,
        limit: float | None,
        finished: Callable[[Report], None] | None,
    ) -> Report:
        """Run all problems that are not in the report before; the arguments are those of bench."""
        titles = [_title(problem) for problem in problems]
        pairs = [*zip(titles, problems, strict=True)]
        lacking = [pair for pair in pairs if pair[0] not in self.entries]
        again = [pair for pair in pairs if pair not in lacking and self._is_doubtful(pair[0])]
        left_out = list[str]()
        kept = len(pairs) - len(lacking) - len(again)
        for done, (name, problem) in enumerate([*lacking, *again], kept):
            spent = time.perf_counter() - self.start
            left = self.effort.seconds - spent
            if left <= 0 or (limit is not None and spent >= limit):
                left_out += [name] if name not in self.entries else []
                continue
            if progress:
                progress(done, len(problems), name)
            if not self.quick:
                hardware.wait_until_free(self.threads, PATIENCE)
            # Each gets half of its share of the time: verifying and compiling take the rest.
            seconds = min(self.effort.contest, left / (len(problems) - done) / 2)
            entry = _entry(problem, self.engines, self.names, self.threads, self.effort, seconds)
            if name not in self.entries or entry.noise < self.entries[name].noise:
                self.entries[name] = entry
            if finished:
                finished(self._report(titles, ()))
        if progress:
            progress(len(problems) - len(left_out), len(problems), "")
        self._measure_peak()
        if costs and not left_out and not self.costs:
            self.costs = costs()
        more = (f"Not run, for want of time: {'; '.join(left_out)}.",) if left_out else ()
        return self._report(titles, more)

    def _is_doubtful(self, name: str) -> bool:
        return name in self.entries and self.entries[name].is_doubtful

    def _report(self, titles: Sequence[str], more_notes: tuple[str, ...]) -> Report:
        """The report of all contests so far, in the order of the titles."""
        before = self.before
        peaks = [*self.peaks, *([_peak_of(before)] if before else [])]
        together = min(_together(p, self.threads) for p in self.peaks)
        earlier = () if before is None else before.notes
        # Each run of a file would add its own.
        kept = (note for note in earlier if not note.startswith(("Not run", _BUSY)))
        ordered = [*titles, *(name for name in self.entries if name not in titles)]
        return Report(
            self.machine,
            self.threads,
            datetime.now(UTC).isoformat(timespec="seconds"),
            time.perf_counter() - self.start + (before.seconds if before else 0.0),
            self.quick,
            _as_json(hardware.best(peaks)),
            min(together, before.quiet) if before else together,
            tuple(self.entries[name] for name in ordered if name in self.entries),
            self.costs,
            tuple(dict.fromkeys([*kept, *self.notes, *more_notes])),
        )


def _check_same_kind(before: Report, machine: dict[str, Any], threads: int, quick: bool) -> None:
    """Raise ``ValueError`` unless a run on this machine can continue a report."""
    facts_of_both = [
        ("threads", before.threads, threads),
        ("extent", *("quick" if value else "full" for value in (before.quick, quick))),
        *(
            (name, before.machine.get(name), machine[name])
            for name in ("processor", "isa", "fastcnn", "packages")
        ),
    ]
    for name, old, new in facts_of_both:
        if old != new:
            raise ValueError(
                f"before must be a report of the same machine, versions and options, got one with "
                f"{name} {old}; here it is {new}"
            )


def _peak_of(report: Report) -> hardware.Peak:
    """The peaks of a report, by numbers of threads as integers."""
    plain = report.peak
    return hardware.Peak(
        {
            dtype: {int(n): value for n, value in by_threads.items()}
            for dtype, by_threads in plain["flops"].items()
        },
        {int(n): value for n, value in plain["copy"].items()},
    )


def _title(problem: Problem | NetProblem | ModelTask) -> str:
    if isinstance(problem, ModelTask):
        return problem.title
    return problem.name if isinstance(problem, Problem) else nets.title(problem)


def _entry(
    problem: Problem | NetProblem | ModelTask,
    own: tuple[str, ...],
    names: tuple[str, ...],
    threads: int,
    effort: Effort,
    seconds: float,
) -> Entry:
    if isinstance(problem, Problem):
        contest = operations.contest(problem, effort.naive)
        peers.join_operation(contest, problem, names, threads, effort.compiled)
        label, batch = problem.name, next(iter(problem.arrays.values()))[0]
    elif isinstance(problem, ModelTask):
        contest = own_models.contest(problem)
        peers.join_model(contest, problem, names, threads)
        label, batch = problem.title, problem.batch
    else:
        task = nets.task(problem.net, problem.mode, problem.batch)
        contest = nets.contest(task, effort.naive)
        peers.join_net(contest, task, names, threads, effort.compiled)
        label, batch = contest.name, problem.batch
    contest.runners[:] = [
        runner
        for runner in contest.runners
        if runner.family != "fastcnn" or ENGINE_OF.get(runner.name, runner.name) in own
    ]
    method = operations.method(problem) if isinstance(problem, Problem) else ""
    absent = [Absent(s.name, s.reason) for s in contest.skipped] + remove_wrong(contest)
    bound_by_memory = contest.bytes > CACHED and contest.flops < CACHED_INTENSITY * contest.bytes
    probe = hardware.copy_probe(contest.bytes) if bound_by_memory else hardware.probe()
    probe()
    runners = contest.runners
    alone = {0, *(i for i, runner in enumerate(runners, 1) if runner.alone)}
    runs = [probe, *(runner.run for runner in runners)]
    timings = measure.interleaved(runs, seconds, effort.pace, alone)
    return Entry(
        contest.name,
        contest.group,
        label.rpartition(", batch")[0],
        batch,
        contest.flops,
        contest.bytes,
        tuple(map(_figure, runners, timings[1:])),
        tuple(absent),
        timings[0].core,
        timings[0].core_spread,
        "copy" if bound_by_memory else "multiply-adds",
        method,
    )


def remove_wrong(contest: Contest) -> list[Absent]:
    """Remove runners that fail or whose result is wrong, and return them with the reasons."""
    absent = []
    for runner in list(contest.runners):
        try:
            contest.verify(runner)
        except WrongResult as error:
            absent.append(Absent(runner.name, f"wrong result, not timed: {error}", wrong=True))
            contest.runners.remove(runner)
        except CannotRun as error:
            absent.append(Absent(runner.name, str(error)))
            contest.runners.remove(runner)
    return absent


def _figure(runner: Runner, timing: measure.Timing) -> Figure:
    return Figure(
        runner.name,
        runner.family,
        timing.least / runner.share,
        timing.middle / runner.share,
        timing.spread,
        timing.turns,
        timing.core / runner.share,
        timing.core_spread,
        runner.share,
    )


@contextmanager
def _limited_blas(threads: int) -> Iterator[list[str]]:
    """Limit NumPy's BLAS to ``threads`` threads, if threadpoolctl is installed."""
    notes: list[str] = []
    if find_spec("threadpoolctl") is None:
        notes.append(
            "NumPy's BLAS chose its own number of threads (pip install threadpoolctl sets it)."
        )
        yield notes
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, user_api="blas"):
        yield notes


def _busy() -> list[str]:
    """A note if other processes keep the machine busy as the run begins."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    if load <= 0.75 * cores:
        return []
    return [
        f"{_BUSY} when the run began (a load of {load:.1f} on {cores} cores): "
        "calls of more than some milliseconds were interrupted, and their times are too long."
    ]


def _together(peak: hardware.Peak, threads: int) -> float:
    """The speed of all threads together, as a share of the sum of their single speeds."""
    flops = peak.flops["float32"]
    return flops[threads] / (threads * flops[1])


def _as_json(peak: hardware.Peak) -> dict[str, Any]:
    """The peaks with the numbers of threads as text, because keys of JSON are text."""
    plain = asdict(peak)
    return {
        "flops": {
            dtype: {str(n): value for n, value in by_threads.items()}
            for dtype, by_threads in plain["flops"].items()
        },
        "copy": {str(n): value for n, value in plain["copy"].items()},
    }
