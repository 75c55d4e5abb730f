"""The benchmark suite: what is wrong is not timed, what is slow is found, what is said is so."""

from __future__ import annotations

import json
import mmap
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from time import thread_time
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import fastcnn
from fastcnn import ops
from fastcnn.bench import charts, measure, nets, operations, peers, suite
from fastcnn.bench import peak as hardware
from fastcnn.bench.contest import (
    CannotRun,
    Contest,
    Runner,
    Skipped,
    WrongResult,
    in_strict_math,
)
from fastcnn.bench.history import Verdict, compare
from fastcnn.bench.html import page
from fastcnn.bench.pages import at_page, empty_at_page
from fastcnn.bench.problems import layer_problems, select
from fastcnn.bench.report import ALONE, STRICT, Absent, Cost, Entry, Figure, Report
from fastcnn.bench.suite import bench
from fastcnn.bench.text import notes, show, summary, versions_of
from fastcnn.cli import app
from fastcnn.core.geometry import conv_geometry, pool_geometry
from fastcnn.core.settings import get_num_threads, set_num_threads
from fastcnn.engine import numba as kernels
from fastcnn.engine.registry import replaced
from fastcnn.nn.layers import Concatenate, Conv2D, Dense, Flatten, Input
from fastcnn.proof.problems import Problem

# --- the table ------------------------------------------------------------------------------------


def test_names_are_unique_and_the_quick_part_is_a_part() -> None:
    layers, whole = select(quick=False)
    names = [p.name for p in layers] + [nets.title(p) for p in whole]
    assert len(set(names)) == len(names)
    quick_layers, quick_nets = select(quick=True)
    assert 0 < len(quick_layers) < len(layers)
    assert 0 < len(quick_nets) < len(whole)
    assert {p.op for p in layers} <= set(dir(ops))


def test_operations_are_counted_from_the_geometry() -> None:
    (conv,) = (p for p in layer_problems() if p.name == "conv2d/article 3×3, batch 32")
    assert operations.flops(conv) == 2 * 32 * 26 * 26 * 8 * 9
    (dense,) = (p for p in layer_problems() if p.op == "dense_backward" and "article" in p.name)
    assert operations.flops(dense) == 2 * 2 * 32 * 1352 * 10


def test_op_and_net_choose_and_unknown_names_are_refused() -> None:
    layers, whole = select(quick=False, ops=["dense"], net=["lenet5"])
    assert {p.op for p in layers} == {"dense"}
    assert {p.net for p in whole} == {"lenet5"}
    with pytest.raises(ValueError, match=r"op must be one of conv2d, .* got 'conv3d'"):
        select(quick=True, ops=["conv3d"])
    with pytest.raises(ValueError, match=r"net must be one of article, .* got 'alexnet'"):
        select(quick=True, net=["alexnet"])
    with pytest.raises(ValueError, match=r"peer must be one of torch, .* got 'caffe'"):
        bench(peer=["caffe"])


# --- verified before it is timed ------------------------------------------------------------------


@pytest.fixture
def _no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's peak as given, for tests that are not about it."""

    def measured(counts: list[int], rounds: int) -> hardware.Peak:
        flops = {n: 100.0 * n for n in counts}
        return hardware.Peak({"float32": flops, "float64": flops}, dict.fromkeys(counts, 20.0))

    monkeypatch.setattr(hardware, "measure", measured)


@pytest.mark.usefixtures("_no_peak")
def test_a_wrong_kernel_is_refused_before_it_is_timed() -> None:
    calls = 0

    def wrong(dy: Any, w: Any, g: Any) -> Any:
        nonlocal calls
        calls += 1
        dx = kernels.conv2d_input_gradient(dy, w, g)
        dx[-1, -1, -1, -1] += 1  # one product of one element, left out or counted twice
        return dx

    op = ["conv2d_input_gradient"]
    with replaced(op[0], "numba", wrong):
        (entry,) = bench(ops=op, peer=[], threads=2, seconds=0.01).entries
    assert {a.name for a in entry.absent if a.wrong} == {"fastcnn", "fastcnn, 1 thread"}
    assert [f.name for f in entry.figures] == ["im2col"]
    assert entry.ours is None
    assert calls == 2  # each runner's verification, and no call more
    assert "REFUSED: fastcnn on conv2d_input_gradient/" in summary(report(entry))[0]
    right = bench(ops=op, peer=[], seconds=0.01)
    assert not right.wrong
    assert right.entries[0].ours is not None


@pytest.mark.usefixtures("_no_peak")
def test_a_wrong_kernel_ends_the_command_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*, expect: int) -> str:
        outcome = CliRunner().invoke(app, ["bench", "--op", "max_pool2d", "--peers", "none"])
        assert outcome.exit_code == expect, outcome.output
        return outcome.output

    monkeypatch.setattr(suite, "QUICK", suite.QUICK._replace(contest=0.01))
    assert "REFUSED" not in run(expect=0)
    with replaced("max_pool2d", "numba", lambda x, g: -kernels.min_pool2d(x, g)):
        assert "REFUSED: fastcnn on max_pool2d/article 2×2, batch 32: " in run(expect=1)


@pytest.mark.usefixtures("_no_peak")
def test_the_command_writes_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suite, "QUICK", suite.QUICK._replace(contest=0.01))
    expected = ["--op", "conv2d_input_gradient", "--peers", "none", "--threads", "1"]
    options_of_files = ["--json", "run.json", "--html", "run.html", "--save", "before"]
    outcome = CliRunner().invoke(app, ["bench", *expected, *options_of_files])
    assert outcome.exit_code == 0, outcome.output
    assert 80 < max(map(len, outcome.output.splitlines())) <= 120  # a pipe has whole names
    assert "…" not in outcome.output
    result = Report.read(Path("run.json"))
    assert result == Report.read(Path(".fastcnn-bench/before.json"))
    assert Path("run.html").read_text("utf-8") == page(result)
    assert (result.threads, result.top, result.is_quiet) == (1, 100.0, True)
    (entry,) = result.entries
    assert entry.name in outcome.output
    assert entry.best.seconds == min(f.seconds for f in entry.figures) > 0


def test_a_wrong_gradient_shows_in_the_losses_of_a_net() -> None:
    def wrong(dy: Any, x: Any, w: Any) -> Any:
        dx, dw, db = kernels.dense_backward(dy, x, w)
        return dx, dw * np.float32(1.1), db

    task = nets.task("article", "train", 3)
    contest = nets.contest(task, naive_seconds=1.0)
    assert [r.name for r in contest.runners] == ["fastcnn", ALONE, STRICT, "im2col", "naive"]
    for runner in contest.runners:
        contest.verify(runner)
    with replaced("dense_backward", "numba", wrong):
        contest = nets.contest(task, naive_seconds=0)
        with pytest.raises(WrongResult, match=r"fastcnn on article's net, training step, batch 3"):
            contest.verify(contest.runners[0])
    assert contest.skipped == [Skipped("naive", contest.skipped[0].reason)]


@pytest.mark.parametrize(
    "result",
    [
        (),
        (np.zeros((2, 3)), np.zeros(1)),
        (np.zeros((3, 2)),),
        (np.array([[0, 0, np.nan], [0, 0, 0]]),),
        (np.array([[0, 0, 0.3], [0, 0, 0]]),),
    ],
)
def test_results_that_are_no_results(result: tuple[Any, ...]) -> None:
    contest = Contest("a", "a", 1, 1, (np.zeros((2, 3)),), 0.25)
    contest.verify(Runner("good", "fastcnn", lambda: None, lambda: (np.full((2, 3), 0.2),)))
    with pytest.raises(WrongResult, match="bad on a"):
        contest.verify(Runner("bad", "fastcnn", lambda: None, lambda: result))


def test_what_is_timed_begins_at_a_page() -> None:
    (conv,) = (p for p in layer_problems() if p.name == "conv2d/article 3×3, batch 32")
    arrays = operations.make_arrays(conv)
    task = nets.task("article", "train", 3)
    for array in (*arrays.values(), task.x, task.labels, empty_at_page((3, 5), np.float64)):
        assert array.ctypes.data % mmap.PAGESIZE == 0
        assert array.flags.c_contiguous
    turned = np.arange(15.0).reshape(3, 5).T
    np.testing.assert_array_equal(at_page(turned), turned)


def test_on_one_thread_arrays_lie_in_several_places(monkeypatch: pytest.MonkeyPatch) -> None:
    (conv,) = (p for p in layer_problems() if p.name == "conv2d/article 3×3, batch 32")
    whole, seen, clock = ops.conv2d, [], [0.0]

    def recorded(x: Any, *given: Any, **more: Any) -> Any:
        y = whole(x, *given, **more)
        seen.append((x.ctypes.data, y.ctypes.data))
        return y

    monkeypatch.setattr(ops, "conv2d", recorded)
    monkeypatch.setattr(operations, "perf_counter", lambda: clock[0])
    contest = operations.contest(conv, naive_seconds=0)
    (runner,) = (r for r in contest.runners if r.name == ALONE)
    contest.verify(runner)
    seen.clear()
    for _ in range(2 * operations.PLACES):
        clock[0] += operations.STAY
        for _ in range(2):
            runner.run()
    for places in zip(*seen, strict=True):  # of the images, and of the results
        assert len(set(places)) == operations.PLACES
        assert places[: 2 * operations.PLACES] == places[2 * operations.PLACES :]


def test_naive_runs_on_a_part_of_a_long_batch() -> None:
    (problem,) = (p for p in layer_problems() if p.name == "conv2d/article 3×3, batch 32")
    contest = operations.contest(problem, naive_seconds=operations.expected_seconds(problem) / 4)
    naive = contest.runners[-1]
    assert (naive.name, naive.share) == ("naive", 0.25)
    contest.verify(naive)
    contest = operations.contest(problem, naive_seconds=1e-6)
    assert [s.name for s in contest.skipped] == ["naive"]


# --- peers ----------------------------------------------------------------------------------------


def small_problems() -> Iterator[Problem]:
    """Every operation that peers are taught, on sides that differ."""
    x, w = (2, 9, 7, 4), (3, 2, 4, 6)
    for stride, padding in ((1, 1), (2, 0), (1, "same")):
        parameters = {"stride": stride, "padding": padding, "groups": 1}
        g = conv_geometry(x, w, **parameters)
        dy, sides = {"dy": g.output_shape}, {"kernel_size": w[:2]}
        yield Problem("conv2d", "c", {"x": x, "w": w, "b": (6,)}, parameters, g)
        yield Problem("conv2d_input_gradient", "c", dy | {"w": w}, {"x_shape": x} | parameters, g)
        yield Problem("conv2d_filter_gradient", "c", dy | {"x": x}, sides | parameters, g)
    parameters = {"stride": 2, "padding": 1, "groups": 4}
    g = conv_geometry(x, (3, 3, 1, 4), **parameters)
    yield Problem("conv2d", "groups", {"x": x, "w": (3, 3, 1, 4), "b": (4,)}, parameters, g)
    for size, stride, padding in ((2, 2, 0), (3, 2, 1)):
        parameters = {"size": size, "stride": stride, "padding": padding}
        g = pool_geometry(x, size, stride=stride, padding=padding)
        for kind in ("max", "avg"):
            yield Problem(f"{kind}_pool2d", "p", {"x": x}, parameters, g)
            yield Problem(
                f"{kind}_pool2d_backward", "p", {"dy": g.output_shape, "x": x}, parameters, g
            )
    yield Problem("dense", "d", {"x": (3, 5), "w": (5, 7), "b": (7,)})
    yield Problem("dense_backward", "d", {"dy": (3, 7), "x": (3, 5), "w": (5, 7)})


def test_installed_peers_compute_the_same() -> None:
    installed = [name for name in peers.PEERS if peers.missing(name) is None]
    assert "scipy" in installed  # it comes with scikit-learn
    for problem in small_problems():
        contest = operations.contest(problem, naive_seconds=1.0)
        ours = len(contest.runners)
        compiled = problem.op == "avg_pool2d_backward" and problem.parameters["padding"] == 0
        peers.join_operation(contest, problem, installed, threads=1, compiled=compiled)
        for runner in contest.runners:
            contest.verify(runner)
        names_of_peers = {r.family for r in contest.runners[ours:]} | {
            s.name.removesuffix(" compiled") for s in contest.skipped
        }
        assert names_of_peers == {peers.PEERS[name].family for name in installed}
    for mode in ("predict", "train"):
        task = nets.task("lenet5", mode, 3)
        contest = nets.contest(task, naive_seconds=0)
        peers.join_net(contest, task, installed, threads=1, compiled=False)
        for runner in contest.runners:
            contest.verify(runner)


def test_a_peer_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PEERS, "caffe", peers.Peer("Caffe", "", ("no_such_package",)))
    (problem,) = (p for p in small_problems() if p.op == "dense")
    contest = operations.contest(problem, naive_seconds=1.0)
    peers.join_operation(contest, problem, ["caffe"], threads=1)
    assert contest.skipped == [Skipped("Caffe", "not installed (pip install no_such_package)")]


def test_a_peer_that_is_wrong_is_left_out_and_no_fault_of_ours() -> None:
    contest = Contest("a", "a", 1, 1, (np.zeros(1),), 0.0)
    contest.runners.append(Runner("good", "fastcnn", lambda: None, lambda: (np.zeros(1),)))
    contest.runners.append(Runner("SciPy", "SciPy", lambda: None, lambda: (np.ones(1),)))
    (absent,) = suite.remove_wrong(contest)
    assert absent.wrong
    assert absent.name == "SciPy"
    assert [r.name for r in contest.runners] == ["good"]
    assert not report(entry(absent=(absent,))).wrong


def test_a_peer_that_cannot_run_is_left_out_with_its_reason() -> None:
    def fails() -> Any:
        raise CannotRun("no C compiler")

    contest = Contest("a", "a", 1, 1, (np.zeros(1),), 0.0)
    contest.runners.append(Runner("PyTorch compiled", "PyTorch", fails, fails))
    assert suite.remove_wrong(contest) == [Absent("PyTorch compiled", "no C compiler")]
    assert contest.runners == []


# --- models of files ------------------------------------------------------------------------------


def timed_model(path: Path, monkeypatch: pytest.MonkeyPatch, *options: str, expect: int = 0) -> Any:
    """The entry of a file's model that the command writes, and the command's output."""
    monkeypatch.setattr(suite, "QUICK", suite.QUICK._replace(contest=0.01))
    target = path.with_suffix(".json")
    arguments = ["bench", "--model", str(path), "--json", str(target), *options]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == expect, outcome.output
    (entry,) = Report.read(target).entries
    return entry, outcome.output


def an_image_net(path: Path) -> Path:
    """A net of two inputs, one trained on bytes, whose outputs are images and scores."""
    first, second = Input((7, 6, 2)), Input((7, 6, 2))
    image = Conv2D(3, 3, padding="same")(Concatenate()([first, second]))
    net = fastcnn.Model([first, second], [image, Dense(4)(Flatten()(image))], seed=0)
    net.trained_on = ("uint8", "floats")
    net.loss = ("mse", "mse")
    net.save(path)
    return path


@pytest.mark.usefixtures("_no_peak")
def test_a_file_of_a_net_of_bytes_takes_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx", reason="files are read through the package onnx")
    net = fastcnn.Sequential([Conv2D(2, 3), Flatten(), Dense(3)], (7, 6, 1), seed=0)
    net.trained_on = "uint8"
    net.save_onnx(tmp_path / "net.onnx")
    entry, _ = timed_model(tmp_path / "net.onnx", monkeypatch, "--threads", "1")
    installed = {peers.PEERS[name].family for name in peers.READERS if peers.missing(name) is None}
    assert {figure.name for figure in entry.figures} == {
        "fastcnn",
        ALONE,
        STRICT,
        "im2col",
    } | installed
    assert not [absent for absent in entry.absent if absent.wrong]


@pytest.mark.usefixtures("_no_peak")
@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_a_model_of_a_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="files are read through the package onnx")
    saved = an_image_net(tmp_path / "net.safetensors")
    path = tmp_path / f"net.{kind}"
    if kind == "onnx":
        fastcnn.load_model(saved).save_onnx(path, layout="channels_first")
    entry, output = timed_model(path, monkeypatch, "--batch", "3", "--threads", "1")
    assert (entry.name, entry.problem) == (
        f"net.{kind}, inference, batch 3",
        f"net.{kind}, inference",
    )
    assert (entry.group, entry.batch) == ("net_of_file", 3)
    taps = (3 * 7 - 2) * (3 * 6 - 2)  # without those on padding
    scaling = 2 * 7 * 6 * 2 if kind == "onnx" else 0  # of bytes, by nodes of the file
    assert entry.flops == 3 * 2 * (taps * 4 * 3 + 7 * 6 * 3 * 4 + scaling)
    installed = {peers.PEERS[name].family for name in peers.READERS if peers.missing(name) is None}
    names = {figure.name for figure in entry.figures}
    assert names == {"fastcnn", ALONE, STRICT, "im2col"} | installed
    assert not [absent for absent in entry.absent if absent.wrong]
    assert entry.name in output


@pytest.mark.usefixtures("_no_peak")
def test_a_model_whose_results_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = an_image_net(tmp_path / "net.safetensors")

    def wrong(x: Any, w: Any, b: Any, activation: Any, g: Any) -> Any:
        y = kernels.conv2d(x, w, b, activation, g)
        y[-1, -1, -1, -1] += 0.01 * abs(y).max()
        return y

    with replaced("conv2d", "numba", wrong):
        entry, output = timed_model(path, monkeypatch, "--peers", "torch", expect=1)
    assert {one.name for one in entry.absent if one.wrong} == {"fastcnn", ALONE, STRICT}
    assert "PyTorch left out: it reads no ONNX files" in output


@pytest.mark.usefixtures("_no_peak")
def test_a_model_without_an_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    fastcnn.Sequential([Dense(3)], (5,), dtype="float64").save(path)
    entry, output = timed_model(path, monkeypatch)
    assert {one.family for one in entry.figures} == {"fastcnn"}
    assert "ONNX Runtime left out: " in output


# --- time -----------------------------------------------------------------------------------------


class Clock:
    """A clock that stands still but for what is run."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-7  # so that loops that wait end
        return self.now

    thread_time = perf_counter

    def takes(self, *seconds: float) -> Callable[[], None]:
        """Something to run that takes so long, in turn."""
        waiting = list(seconds)

        def run() -> None:
            self.now += waiting[0] if len(waiting) == 1 else waiting.pop(0)

        return run


def test_the_least_time_counts_and_one_slow_runner_leaves_the_others_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    disturbed = clock.takes(*[0.030, 0.009] * 5, 0.003)
    slow, quick = clock.takes(2.0), clock.takes(1e-5)
    result = measure.interleaved([slow, quick, disturbed], budget=6.0)
    assert [round(f.least, 5) for f in result] == [2.0, 1e-5, 0.003]
    assert result[0].turns == 1
    assert result[1].turns == measure.FEWEST  # settled at once
    assert result[1].spread == pytest.approx(0, abs=1e-3)
    assert clock.now < 9


def test_who_runs_alone_is_kept_until_it_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    pace = measure.Pace(warm_up=1e-3, turn=1e-4, fewest=3, spread=0.01)
    results = [
        measure.interleaved([clock.takes(0.05, 0.04, 0.035, 0.03)], 0.1, pace, alone)[0]
        for alone in ((), (0,))
    ]
    assert [round(f.least, 3) for f in results] == [0.035, 0.03]
    assert results[0].turns == 3  # the budget's end
    assert results[1].turns == 6  # the least one, met twice again


def test_rounds_do_not_count_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    # Two calls of 45 ms fill the warm-up, as one of 0.2 s does; the turn takes one more.
    quick, slow = clock.takes(0.045, 0.045, 0.03, 0.05, 0.04, 0.02), clock.takes(0.2, 0.1)
    seconds = measure.in_rounds([quick, slow], rounds=2)
    assert [[round(one, 3) for one in mine] for mine in seconds] == [[0.03, 0.02], [0.1, 0.1]]


def test_a_contest_waits_for_free_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shares = Clock(), [0.5, 0.6, 0.9, 0.5]
    clock.sleep = lambda seconds: clock.takes(seconds)()  # type: ignore[attr-defined]
    monkeypatch.setattr(hardware, "time", clock)
    monkeypatch.setattr(hardware, "together", lambda threads: shares.pop(0))
    assert hardware.wait_until_free(2, seconds=1)
    assert clock.now == pytest.approx(0.4, abs=1e-3)  # two naps
    assert not hardware.wait_until_free(2, seconds=0)
    assert shares == []
    assert hardware.wait_until_free(1, seconds=0)  # one thread needs no other core


# --- two runs compared ----------------------------------------------------------------------------


def figure(name: str, seconds: float, family: str = "fastcnn", **more: Any) -> Figure:
    return replace(Figure(name, family, seconds, seconds, 0.01, 9, seconds, 0.005), **more)


def entry(name: str = "conv2d/a, batch 1", core: float = 1e-3, **more: Any) -> Entry:
    figures = (
        figure("fastcnn", core / 2),
        figure("fastcnn, 1 thread", core),
        figure("im2col", 4 * core),
        figure("naive", 400 * core, share=0.5),
        figure("PyTorch NCHW", core / 4, "PyTorch"),
    )
    group, problem = name.split("/")[0], name.rpartition(", batch")[0]
    made = Entry(name, group, problem, 1, 10**8, 10**6, figures, (), 1e-4, 0.004)
    return replace(made, **more)


def report(*entries: Entry, **more: Any) -> Report:
    machine = {
        "fastcnn": "0",
        "processor": "a <processor>",
        "isa": "avx2",
        "python": "3",
        "packages": {"numpy": "2", "torch": None},
    }
    flops = {"float32": {"1": 100.0, "2": 200.0}, "float64": {"1": 50.0, "2": 100.0}}
    peak = {"flops": flops, "copy": {"1": 20.0, "2": 25.0}}
    made = Report(machine, 2, "2026-01-02T03:04:05+00:00", 9.0, True, peak, 0.97, tuple(entries))
    return replace(made, **more)


def test_slower_faster_the_same() -> None:
    names = [f"conv2d/{letter}, batch 1" for letter in "abcd"]
    before = report(*(entry(name) for name in names), entry("conv2d/gone, batch 1"))
    seconds = (1.5e-3, 1.1e-3, 0.9e-3, 0.6e-3)
    result = compare(before, report(*map(entry, names, seconds)))
    verdicts = [Verdict.slower, Verdict.same, Verdict.same, Verdict.faster]
    assert [change.verdict for change in result.changes] == verdicts
    assert [change.name for change in result.slower] == names[:1]
    assert result.missing == ("conv2d/gone, batch 1",)
    assert compare(before, before).slower == ()


def test_a_slower_machine_is_no_slower_code_and_noise_is_no_verdict() -> None:
    before = report(entry())
    throttled = report(entry(core=2e-3, probe=2e-4))
    assert compare(before, throttled).changes[0].verdict is Verdict.same
    noisy = [replace(f, core_spread=0.3) for f in entry(core=1.5e-3).figures]
    result = compare(before, report(entry(figures=tuple(noisy)))).changes[0]
    assert result.verdict is Verdict.unclear
    with pytest.raises(ValueError, match="no entry in common"):
        compare(before, report(entry(probe_kind="copy")))


def test_compare_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".fastcnn-bench").mkdir()
    report(entry()).write(Path(".fastcnn-bench/before.json"))
    report(entry(core=1.5e-3)).write(Path("after.json"))
    run = CliRunner()
    outcome = run.invoke(app, ["bench", "--compare", "before", "after.json"])
    assert outcome.exit_code == 1
    assert "1 of 1 became slower on one thread, beyond noise." in outcome.output
    outcome = run.invoke(app, ["bench", "--compare", "before", "before"])
    assert outcome.exit_code == 0
    assert "Nothing became slower on one thread, beyond noise." in outcome.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "a", "b", "--full"], "--compare takes two saved runs and no other option"),
        (["--compare", "a", "b"], ".fastcnn-bench/a.json: No such file"),
        (["--compare", "broken.json", "broken.json"], "broken.json: no report of fastcnn bench"),
        (["--op", "conv3d"], "op must be one of conv2d, "),
        (["--peers", "torch,caffe"], "peer must be one of torch, "),
        (["--batch", "2"], "--batch needs --model"),
        (["--model", "a.onnx", "--op", "dense"], "--model takes no --op and no --net"),
        (["--model", "a.safetensors"], "a.safetensors: No such file"),
        (["--compare", "a", "b", "--model", "a"], "--compare takes two saved runs and no other"),
        (["--engine", "blas"], "engine must be one of numba, im2col, naive, got 'blas'"),
        (["--resume"], "--resume needs --json, the file of the run to continue"),
        (["--html", "no/such.html"], "--html must name a file in an existing folder"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text('{"format": 1, "entries": [3]}', "utf-8")
    outcome = CliRunner().invoke(app, ["bench", *arguments])
    assert outcome.exit_code == 2
    assert outcome.output.startswith(f"fastcnn: {message}")
    assert outcome.output.count("\n") == 1


# --- the report -----------------------------------------------------------------------------------


def test_a_report_is_the_same_after_a_file(tmp_path: Path) -> None:
    absent = (Absent("JAX", "not installed"),)
    made = report(entry(absent=absent), costs=(Cost("import", "JAX", 1.5, "s"),), notes=("a",))
    made.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == made
    other = json.loads((tmp_path / "report.json").read_text("utf-8")) | {"format": 99}
    with pytest.raises(ValueError, match="format 99 is not 1"):
        Report.from_dict(other)


def test_what_is_lost_is_said() -> None:
    result = report(entry(), quiet=0.5)
    text = "\n".join(summary(result) + notes(result))
    assert "A peer is faster in 1 of 1 contests." in text
    assert "conv2d/a, batch 1: PyTorch NCHW is 2.00 times as fast" in text
    assert "Figures of several threads do not count" in text
    assert "* ran on a part of the batch" in text
    (lost,) = result.losses()
    assert result.share(lost, lost.figures[0]) == pytest.approx(1.0)  # 1e8 in 0.5 ms, of 200 G/s
    memory = replace(lost, flops=10**5)
    assert (result.limit(lost), result.limit(memory)) == ("compute", "memory")
    assert result.share(memory, memory.figures[0]) == pytest.approx(
        0.08
    )  # 1e6 in 0.5 ms, of 25 G/s


class Tags(HTMLParser):
    """Opens what it meets and closes it in order; keeps what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data") or (name == "href" and value and value[0] != "#"):
                self.fetched.append(f"{tag} {value}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing() -> None:
    entries = [
        entry("conv2d/a & b, batch 1", absent=(Absent("JAX", "not <installed>"),)),
        entry("conv2d/a & b, batch 8", core=4e-3, batch=8),
        entry("max_pool2d/c, batch 1", flops=0),
    ]
    for result in (
        report(*entries, costs=(Cost("import", "JAX", 1.5, "s"),)),
        report(replace(entry(), figures=entry().figures[:1]), threads=1),
    ):
        made = page(result)
        tags = Tags()
        tags.feed(made)
        assert tags.open == []
        assert tags.fetched == []
        assert "url(" not in made
        assert "@import" not in made
        assert "a &lt;processor&gt;" in made
    assert "a &amp; b" in page(report(*entries))
    assert "not &lt;installed&gt;" in page(report(*entries))


def test_charts_are_svg_of_their_own() -> None:
    entries = [entry("conv2d/a & b, batch 1"), entry("conv2d/a & b, batch 8", batch=8)]
    result = report(*entries)
    drawn = [
        charts.roofline(result),
        charts.limits(result, entries),
        charts.speedups(result),
        charts.batches(result, "conv2d"),
        charts.threads(result),
    ]
    for chart in drawn:
        root = ElementTree.fromstring(charts.standalone(chart))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.attrib["viewBox"].startswith("0 0 400 ")
        assert charts.standing(result) != chart
    assert "2.00 ×" in charts.threads(result)
    assert charts.speedups(report(replace(entries[0], figures=()))) == ""


def test_long_notes_are_folded_and_smallest_problems_are_no_points_of_the_roofline() -> None:
    noisy = [
        replace(
            entry(f"conv2d/{name}, batch 1"),
            figures=(figure("fastcnn", 1e-3), figure("JAX", 1e-3, "JAX", spread=0.3)),
        )
        for name in "abcdef"
    ]
    made = page(report(*noisy))
    assert "<summary>? marks ratios that are doubtful" in made
    assert "exceeds 20%: 6 contests</summary>" in made
    assert "<li>conv2d/f, batch 1</li>" in made
    assert "<details" not in page(report(*noisy[:2]))
    result = report(entry("conv2d/a, batch 1"), entry("conv2d/b, batch 1", flops=999))
    points = charts.roofline(result).count('r="3.6"')
    assert points == 2  # fastcnn and the peer of the first contest
    packages = {"numpy": "2", "ai_edge_litert": "2.3", "torch": "2", "jax": None}
    machine = result.machine | {"packages": packages}
    assert versions_of(replace(result, machine=machine)) == "PyTorch 2, NumPy 2"


def circles(chart: str) -> list[tuple[float, str, bool]]:
    """The dots of a chart, in the order of the contests: place, class, and whether it is hollow."""
    root = ElementTree.fromstring(chart)
    found = root.iter("{http://www.w3.org/2000/svg}circle")
    return [
        (float(one.attrib["cx"]), one.attrib["class"], "fill-opacity" in one.attrib)
        for one in found
        if one.attrib["r"] == "3.2"
    ]


def test_where_fastcnn_stands_shows_each_contest_on_one_axis() -> None:
    behind = entry("conv2d/a, batch 1")  # PyTorch takes half of the time
    ahead = replace(behind, figures=(*behind.figures[:4], figure("JAX", 2e-3, "JAX")))
    noisy = replace(ahead, figures=(*behind.figures[:4], figure("JAX", 1e-3, "JAX", spread=0.21)))
    alone = replace(behind, figures=behind.figures[:4])
    chart = charts.standing(report(behind, ahead, noisy, alone, entry("dense/b, batch 1")))
    places, colours, hollow = zip(*circles(chart), strict=True)
    assert colours == ("PyTorch", "fastcnn", "fastcnn", "PyTorch")
    assert hollow == (False, False, True, False)
    assert places[0] == places[3]
    steps = np.diff([places[0], places[2], places[1]])  # ½, 2 and 4 times
    assert steps[0] == pytest.approx(2 * steps[1], abs=0.2)
    assert "1.59 ×" in chart  # of ½, 4 and 2
    assert "hollow" not in charts.standing(report(behind))
    assert charts.standing(report(alone)) == ""


def test_bars_have_one_scale_with_its_limit_marked() -> None:
    fast = entry("conv2d/fast, batch 1", core=2e-4, method="winograd")  # 500 % of 200 GFLOP/s
    slow = entry("conv2d/slow, batch 1", core=2e-3, method="direct")  # 50 %
    result = report(fast, slow)
    lengths = []
    for one in (fast, slow):
        root = ElementTree.fromstring(charts.limits(result, [one]))
        tag = "{http://www.w3.org/2000/svg}"
        (mark,) = (line.attrib["x1"] for line in root.iter(f"{tag}line"))
        lengths.append([float(bar.attrib["width"]) for bar in root.iter(f"{tag}rect")])
        assert float(mark) == 90
        assert bool([*root.iter(f"{tag}polygon")]) == (one is fast)
    assert lengths[0] == [180, 180, 56.2]  # PyTorch, fastcnn, and im2col with 62.5 %
    assert lengths[1] == [90, 45, 5.6]
    assert "500%, 100.0 µs: fastcnn, winograd" in charts.limits(result, [fast])
    assert "50%, 1.00 ms: fastcnn, direct" in charts.limits(result, [slow])
    assert "fastcnn, winograd" in page(result)
    shown = StringIO()
    show(Console(file=shown, width=100), result)
    assert "W 500%" in shown.getvalue()
    assert "W 50%" not in shown.getvalue()


def test_doubtful_ratios_are_marked_in_the_summary() -> None:
    quiet = entry("conv2d/a, batch 1")
    noisy = replace(
        entry("conv2d/b, batch 1"),
        figures=(*quiet.figures[:4], figure("JAX", 1e-4, "JAX", spread=0.21)),
    )
    text = "\n".join(summary(report(quiet, noisy)) + notes(report(quiet, noisy)))
    assert "conv2d/b, batch 1: JAX is 5.00 times as fast ?" in text
    assert "conv2d/a, batch 1: PyTorch NCHW is 2.00 times as fast\n" in text
    assert "exceeds 20%: conv2d/b, batch 1." in text
    assert "?" not in "\n".join(notes(report(quiet)))


def test_reports_of_earlier_versions_have_the_names_of_this_one() -> None:
    values = report(entry(absent=(Absent("numba", "wrong", wrong=True),))).to_dict()
    for one in values["entries"][0]["figures"]:
        one["name"] = one["name"].replace("fastcnn", "numba")
    del values["entries"][0]["method"]
    read = Report.from_dict(values)
    assert read == report(entry(absent=(Absent("fastcnn", "wrong", wrong=True),)))


def test_the_algorithm_of_a_contest_is_that_of_the_call() -> None:
    layers, _ = select(quick=False, ops=None, net=None)
    methods = {problem.op: set[str]() for problem in layers}
    for problem in layers:
        methods[problem.op].add(operations.method(problem))
    assert methods["conv2d"] <= {"direct", "winograd"}
    assert "direct" in methods["conv2d"]
    assert methods["dense"] == methods["max_pool2d"] == {""}


def test_two_machines_stand_side_by_side() -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "write_report.py"
    spec = spec_from_file_location("write_report", path)
    assert spec is not None
    assert spec.loader is not None
    written = module_from_spec(spec)
    spec.loader.exec_module(written)
    lost = entry("conv2d/a, batch 1", method="direct")  # PyTorch takes half of the time
    won = replace(lost, figures=(*lost.figures[:4], figure("JAX", 2e-3, "JAX")))
    alone = entry("conv2d/only here, batch 1", method="direct")
    images = dict[str, str]()
    beside = written.Beside(report(won), "a machine, AVX2")
    text = written.text_of(report(lost, alone), "a machine, AVX-512", images, beside)
    assert "| contest | AVX-512 | AVX2 | AVX-512, strict | AVX2, strict |" in text
    row = "| conv2d/a, batch 1 | 0.50 × PyTorch NCHW | 4.00 × | 0.50 × PyTorch NCHW | 4.00 × |"
    assert row in text
    assert "| **lost** | 2 of 2 | 0 of 1 | 2 of 2 | 0 of 1 |" in text
    assert "| conv2d/only here" not in text.split("Two machines")[1].split("## How near")[0]
    assert "standing-beside.svg" in images
    alone_text = written.text_of(report(lost), "a machine", images)
    assert "Two machines" not in alone_text


# --- strict mathematics ---------------------------------------------------------------------------


def test_strict_runners_compute_direct_sums_and_leave_the_setting() -> None:
    (problem,) = (p for p in layer_problems() if p.name == "conv2d/CIFAR 32→64 3×3, batch 1")
    contest = operations.contest(problem, naive_seconds=0)
    runners = {runner.name: runner for runner in contest.runners}
    strict = runners[STRICT]
    assert operations.method(problem) == "winograd"
    arrays = operations.make_arrays(problem)
    exact = ops.conv2d(**arrays, **problem.parameters, algorithm="direct")
    assert (strict.result()[0] == exact).all()
    seen: list[str] = []
    contest_of_setting = replace(runners["fastcnn"], run=lambda: seen.append(fastcnn.get_math()))
    in_strict_math(contest_of_setting, STRICT).run()
    assert (seen, fastcnn.get_math()) == (["strict"], "fast")
    direct = next(p for p in layer_problems() if operations.method(p) == "direct")
    assert STRICT not in [r.name for r in operations.contest(direct, naive_seconds=0).runners]


def test_the_strict_figure_is_the_usual_one_where_both_choose_alike() -> None:
    direct = entry("conv2d/a, batch 1", method="direct")
    assert direct.strict is direct.ours
    assert entry("dense/a, batch 1").strict is not None
    assert entry("conv2d/of an earlier version, batch 1").strict is None
    assert entry("net_predict/a, batch 1").strict is None
    faster = figure("JAX", 1e-3, "JAX")
    figures = (figure("fastcnn", 5e-4), figure(STRICT, 4e-3), faster)
    other = entry("conv2d/b, batch 1", method="winograd", figures=figures)
    assert other.strict is figures[1]
    result = report(direct, other)
    assert [e.name for e in result.losses()] == [direct.name]
    assert [e.name for e in result.losses(strict=True)] == [other.name, direct.name]
    assert result.mean_times_best_peer() == pytest.approx(1)  # of ½ and 2
    assert result.mean_times_best_peer(strict=True) == pytest.approx(8**-0.5)  # of ½ and ¼
    text = "\n".join(summary(result))
    assert "A peer is faster in 2 of 2 contests in strict mathematics." in text
    assert "conv2d/b, batch 1: JAX is 4.00 times as fast" in text
    assert "conv2d/b, batch 1" in page(result).split("in strict mathematics</h3>")[1]


# --- a run that goes on ---------------------------------------------------------------------------


@pytest.mark.usefixtures("_no_peak")
def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suite, "FULL", suite.FULL._replace(naive=0.0))
    options = [
        "bench",
        "--full",
        "--op",
        "add",
        "--op",
        "relu",
        "--peers",
        "none",
        "--json",
        "a.json",
    ]

    def run(*more: str, expect: int = 0) -> str:
        outcome = CliRunner().invoke(app, [*options, "--seconds", "0.01", *more])
        assert outcome.exit_code == expect, outcome.output
        return outcome.output

    calls = list[str]()
    whole = suite._entry

    def counted(problem: Any, *rest: Any) -> Entry:
        if len(calls) == 1 and not Path("stop").exists():
            Path("stop").touch()
            raise KeyboardInterrupt
        calls.append(problem.op)
        return whole(problem, *rest)

    monkeypatch.setattr(suite, "_entry", counted)
    run("--resume", expect=130)
    assert [e.group for e in Report.read(Path("a.json")).entries] == calls
    assert "Not run, for want of time" in run("--resume", "--limit", "0")
    output = run("--resume", "--engine", "numba")
    assert "Not run" not in output
    names = [{f.name for f in e.figures} for e in Report.read(Path("a.json")).entries]
    assert sorted(map(len, names)) == [2, 3]
    assert min(names, key=len) == {"fastcnn", ALONE}
    assert sorted(calls) == ["add", "relu"]
    whole_run = Report.read(Path("a.json"))
    assert {e.group for e in whole_run.entries} == {"add", "relu"}
    refused = run("--resume", "--threads", "3", expect=2)
    assert "before must be a report of the same machine, versions and options" in refused
    assert "with threads" in refused


@pytest.mark.usefixtures("_no_peak")
def test_noisy_contests_run_again_and_the_quieter_run_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_noise(of: Entry, spread: float) -> Entry:
        return replace(of, figures=tuple(replace(f, spread=spread) for f in of.figures))

    def run(before: Report | None) -> Report:
        return bench(quick=False, ops=ops_, engine=["numba"], peer=[], seconds=0.01, before=before)

    ops_ = ["add", "relu", "softmax"]
    first = run(None)
    assert [f.name for f in first.entries[0].figures] == ["fastcnn", ALONE]
    spreads = {"add": (0.5, 0.1), "relu": (0.3, 0.9), "softmax": (0.1, 0.0)}
    entries = {e.group: e for e in first.entries}
    before = [with_noise(entries[op], spreads[op][0]) for op in entries]
    calls = list[str]()

    def again(problem: Any, *rest: Any) -> Entry:
        calls.append(problem.op)
        return with_noise(entries[problem.op], spreads[problem.op][1])

    monkeypatch.setattr(suite, "_entry", again)
    second = run(replace(first, entries=tuple(before)))
    assert sorted(calls) == ["add", "relu"]
    assert {e.group: e.noise for e in second.entries} == {"add": 0.1, "relu": 0.3, "softmax": 0.1}


# --- a guard that does not look at the clock on the wall ------------------------------------------


def least_core_seconds(problem: Problem, *engines: str) -> list[float]:
    """The least time of each engine on a core, on one thread, of a few calls in turns."""
    arrays = operations.make_arrays(problem)
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    for engine in 6 * engines:
        start = thread_time()
        operations.run(problem, arrays, engine)
        times[engine].append(thread_time() - start)
    return [min(result) for result in times.values()]


@pytest.mark.parametrize(
    ("name", "times", "engine"),
    [  # measured: 780, 110, 7 and 4 times; what lies in a cache, for from memory all wait alike
        ("conv2d/article 3×3, batch 32", 20, "naive"),
        ("max_pool2d/article 2×2, batch 32", 20, "naive"),
        ("conv2d/depthwise 32 3×3, batch 1", 2, "im2col"),
        ("max_pool2d/article 2×2, batch 32", 1.5, "im2col"),
    ],
)
def test_fast_is_fast(name: str, times: float, engine: str) -> None:
    (problem,) = (p for p in layer_problems() if p.name == name)
    before = get_num_threads()
    set_num_threads(1)
    try:
        fast, other = least_core_seconds(problem, "numba", engine)
        assert other > times * fast
    finally:
        set_num_threads(before)


def test_a_convolution_takes_no_memory_beyond_its_result() -> None:
    (problem,) = (p for p in layer_problems() if p.name == "conv2d/LeNet-5 second 5×5, batch 32")
    arrays = operations.make_arrays(problem)
    y, *_ = operations.run(problem, arrays, "numba")
    tracemalloc.start()
    try:
        operations.run(problem, arrays, "numba")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.2 * y.nbytes  # less where a block of memory is used again
