"""Time limits: of each test, and of each process that a test starts.

``faulthandler`` keeps the limit of a test, because its watchdog needs no lock of the interpreter:
it also ends a process that hangs in compiled code. It prints the traceback of every thread and ends
the process with exit code 1; pytest-xdist then reports the test that ran as failed, and goes on
with the others in a new worker. A child that is forked gets a shorter limit of the same kind. Other
processes are started with :func:`run`, which ends them, and what they have started, before the
test's limit.

:func:`computing` limits what a piece of Python computes, on a fast machine and on a slow one, and
:func:`check_duration` what other processes last.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, perf_counter, process_time
from typing import Any

SECONDS = float(os.environ.get("FASTCNN_TEST_SECONDS", "300"))
"""Limit of a test; those marked ``lasts_long`` have ten times as much."""
FORKED = 0.4
"""Share of the limit that a forked child has, so that the test can still say what happened."""
_MARGIN = 0.1

_end: float | None = None  # of the test that runs
_stderr: int | None = None


def use_standard_error() -> None:
    """Print tracebacks where the standard error is now; pytest captures it during tests."""
    global _stderr
    _stderr = os.dup(2)


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """End this process if what is inside of this context takes longer."""
    global _end
    _end = monotonic() + seconds
    _watch()
    try:
        yield
    finally:
        _end = None
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def computing(seconds: float) -> Iterator[None]:
    """Fail if what is inside of this context computes longer.

    The seconds are those of the machine on which :data:`WORK_SECONDS` was measured. On a machine
    where the work of :func:`_work` takes longer, because it is slower or because others use its
    caches and memory, the limit is longer in the same ratio.
    """
    start = process_time()
    yield
    duration = process_time() - start
    if duration >= seconds:
        ratio = slowness()
        assert duration < seconds * ratio, (
            f"{duration:.2f} s of computing, where {seconds} s times {ratio:.2f} are allowed"
        )


def check_duration(duration: float, seconds: float) -> None:
    """Fail if something has lasted longer than so many seconds of the clock.

    The seconds are those of the machine on which :data:`WORK_SECONDS` was measured, with a free
    core. On a machine that is slower or busy now, the limit is longer in the same ratio.
    """
    if duration >= seconds:
        ratio = max(1.0, slowness(perf_counter))
        assert duration < seconds * ratio, (
            f"it lasted {duration:.2f} s, where {seconds} s times {ratio:.2f} are allowed"
        )


def slowness(clock: Callable[[], float] = process_time) -> float:
    """How much longer the work of :func:`_work` takes now than where it was measured."""
    return max(_seconds_of(_work, clock) for _ in range(3)) / WORK_SECONDS


WORK_SECONDS = 0.06
"""What :func:`_work` takes on a Xeon of 2.6 GHz (Sapphire Rapids) and Python 3.11."""


def _work() -> None:
    """Make many objects, keep them, and call functions, as code that checks layers does."""
    objects = [{"name": str(i), "inside": [object() for _ in range(4)]} for i in range(60_000)]
    assert sum(len(one["inside"]) for one in objects) == 240_000


def _seconds_of(function: Callable[[], None], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    return clock() - start


def left() -> float | None:
    """Seconds that a process may take which is started now; None where no test runs."""
    if _end is None:
        return None
    return max((1 - _MARGIN) * (_end - monotonic()), 1.0)


def run(
    command: Sequence[Any], check: bool = False, input: str | None = None, **options: Any
) -> Any:
    """:func:`subprocess.run` with the output as text, in the time that the test has left.

    Past it, all processes of the command print the traceback of every thread and end, and the test
    fails with what they have printed.
    """
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    if input is not None:
        options["stdin"] = subprocess.PIPE
    options["env"] = {**(options.get("env") or os.environ), "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(command, start_new_session=True, **options)
    seconds = left()
    try:
        out, errors = process.communicate(input, timeout=seconds)
    except subprocess.TimeoutExpired:
        _signal(process, "SIGABRT")  # faulthandler's: tracebacks, and an end
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        _signal(process, "SIGKILL")
        out, errors = process.communicate()
        raise AssertionError(
            f"{command} took longer than {seconds} s\n{out}\n{errors or ''}"
        ) from None
    except BaseException:
        _signal(process, "SIGKILL")
        process.wait()
        raise
    done = subprocess.CompletedProcess(command, process.returncode, out, errors)
    if check:
        assert done.returncode == 0, f"{str(out)[-2000:]}\n{str(errors)[-4000:]}"
    return done


def start(command: Sequence[Any], **options: Any) -> subprocess.Popen[Any]:
    """A process that runs beside the test, which ends it with :func:`end`."""
    return subprocess.Popen(command, start_new_session=True, **options)


def end(process: subprocess.Popen[Any]) -> None:
    """End a process of :func:`start`, and all that it has started."""
    _signal(process, "SIGKILL")
    process.wait()


def _signal(process: subprocess.Popen[Any], name: str) -> None:
    """Send a signal to a process and to those that it has started."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, getattr(signal, name))
        else:
            process.kill()


def _watch(share: float = 1.0) -> None:
    if _end is not None and _stderr is not None:
        seconds = max(share * (_end - monotonic()), 1.0)
        faulthandler.dump_traceback_later(seconds, exit=True, file=_stderr)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(  # the watchdog is a thread, which a child does not have
        before=faulthandler.cancel_dump_traceback_later,
        after_in_parent=_watch,
        after_in_child=lambda: _watch(FORKED),
    )
