"""Which tests come first, how long each may take, which kernels they choose, and the summary."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import limits
import pytest
from dealing import dealt

# Tests compile all the time, and compare what processes write to the standard error.
os.environ.setdefault("FASTCNN_COMPILE_NOTICE", "0")
# Most nets of tests see one size of a batch, and need few of the kernels that would be compiled
# ahead. The tests of first calls and of compiling ahead switch it on.
os.environ.setdefault("FASTCNN_COMPILE_AHEAD", "0")

# What a shell starts in the background has Ctrl-C ignored, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    meaning = "choose kernels as for this instruction set, and compile them for the host"
    parser.addoption("--choose-for", metavar="ISA", help=meaning)


class Limits:
    """The time limit of each test, also of those in other folders."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[object]:
        long = item.get_closest_marker("lasts_long") is not None
        with limits.limit(limits.SECONDS * (10 if long else 1)):
            return (yield)


def pytest_configure(config: pytest.Config) -> None:
    limits.use_standard_error()  # not captured yet
    config.pluginmanager.register(Limits())
    if isa := config.getoption("--choose-for"):
        from fastcnn.engine.numba.runtime.instruction_sets import choosing_for

        choice = ExitStack()
        choice.enter_context(choosing_for(isa))
        config.add_cleanup(choice.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker begins with its share of the tests that take minutes in processes of their own.

    Otherwise one worker would have all of them, and the others would wait for it. The workers of
    pytest-xdist begin with equal parts of the list, in order.
    """
    long = [item for item in items if item.get_closest_marker("lasts_long") is not None]
    others = [item for item in items if item.get_closest_marker("lasts_long") is None]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = dealt(long, others, workers)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A worker that has nothing left takes tests from another one."""
    if config.getoption("dist") != "load":  # somebody asks for another order
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture
def compiling_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """First calls compile for batches of any size, as they do for users."""
    monkeypatch.setenv("FASTCNN_COMPILE_AHEAD", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Tests say themselves how wide a terminal is, whatever was set where they were started."""
    os.environ.pop("COLUMNS", None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which instruction sets ran; tests record those of processes that they start."""
    from processes import instruction_sets

    from fastcnn.engine.numba.runtime.instruction_sets import INSTRUCTION_SETS, host_registers

    records = {
        record for report in terminalreporter.getreports("passed")
        for record in report.user_properties
    }  # fmt: skip
    chosen = terminalreporter.config.getoption("--choose-for")
    sentences = []
    for isa in INSTRUCTION_SETS:
        if isa == host_registers().isa:
            words = "this process"
        elif ("instruction_set", isa) in records:
            words = "a process of its own"
        elif isa in instruction_sets():
            words = "not run"
        elif isa == "baseline":  # other processors, with the choices of SSE2
            continue
        else:
            words = "not on this processor"
        if ("choices_for", isa) in records or isa == chosen:
            words += ", but its choices ran here"
        sentences.append(f"{isa}: {words}")
    terminalreporter.write_line(f"instruction sets: {'; '.join(sentences)}")
