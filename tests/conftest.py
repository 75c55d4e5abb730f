"""Which tests come first, how long each may take, which kernels they choose, and the summary."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import limits
import pytest

# Tests compile all the time, and compare what processes write to the standard error.
os.environ.setdefault("FASTCNN_COMPILE_NOTICE", "0")

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
    """What takes minutes in processes of its own begins first, so that nobody waits for it."""
    items.sort(key=lambda item: item.get_closest_marker("lasts_long") is None)


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
