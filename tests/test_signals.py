"""A signal handler, a finalizer and a fork may come at any moment, and may raise or compute."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from limits import run
from processes import SOURCE, environment, python

from fastcnn.core import undisturbed
from fastcnn.engine.numba.runtime import jit, rehearsal
from fastcnn.engine.numba.runtime.compile_notice import Notice
from fastcnn.engine.numba.runtime.compile_turn import CompileTurn

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system"),
    pytest.mark.usefixtures("compiling_ahead"),
]

COMPUTING = """
import faulthandler, gc, os, signal, sys, time
import numpy as np
import fastcnn

faulthandler.dump_traceback_later(300, exit=True)
mode, seconds = sys.argv[1], float(sys.argv[2])
fastcnn.set_num_threads(3)
x = np.random.default_rng(0).random((8, 32, 32, 16), np.float32)
expected = fastcnn.max_pool2d(x, 2)
handled, busy = 0, False

def handler(*_):
    global handled, busy
    if busy:
        return
    busy = True
    if mode == "fork":
        child = os.fork()
        if not child:
            same = np.array_equal(fastcnn.max_pool2d(x, 2), expected)
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
    else:
        assert np.array_equal(fastcnn.max_pool2d(x, 2), expected)
    handled += 1
    busy = False

class Cycle:
    def __init__(self):
        self.itself = self

    def __del__(self):
        handler()

if mode == "finalizer":
    gc.set_threshold(5, 2, 2)
else:
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
end = time.monotonic() + seconds
while time.monotonic() < end:
    if mode == "finalizer":
        Cycle()
    assert np.array_equal(fastcnn.max_pool2d(x, 2), expected)
    fastcnn.relu(x)
signal.setitimer(signal.ITIMER_REAL, 0)
print(handled > 10)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("mode", ["handler", "finalizer", "fork"])
def test_what_comes_in_the_middle_of_a_call_computes_too(mode: str) -> None:
    assert python("-W", "ignore", "-c", COMPUTING, mode, "1.5").stdout == "True\n"


RAISING = """
import faulthandler, os, random, signal, sys, time
import numpy as np
import fastcnn
from fastcnn.engine.numba.runtime import jobs, memory, threads
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D

faulthandler.dump_traceback_later(300, exit=True)

class Interrupt(Exception):
    pass

armed = False

def handler(*_):
    global armed
    if armed:
        armed = False
        raise Interrupt

signal.signal(signal.SIGALRM, handler)
moments = random.Random(int(sys.argv[1]))
rng = np.random.default_rng(0)
x, flat = rng.random((16, 16, 16, 8), np.float32), rng.random(70_000, np.float32)
images = rng.random((32, 28, 28, 1), np.float32)
layers = [Conv2D(8, 3, activation="relu"), MaxPool2D(2), Flatten(), Dense(10)]
model = fastcnn.Sequential(layers, (28, 28, 1), seed=0)

def calls():
    return fastcnn.max_pool2d(x, 3, stride=1), fastcnn.relu(flat), model.predict(images)

def os_threads():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None

fastcnn.set_num_threads(1)
calls()  # if they compile, Numba imports SciPy, whose library starts threads of its own
others = os_threads()  # of the libraries
fastcnn.set_num_threads(3)
expected, interrupts, pools = calls(), 0, 1
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    if interrupts % 20 == 19:  # so that the start of workers is interrupted too
        threads._pool, pools = threads._Pool(), pools + 1
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, 3e-4))
        while True:
            calls()
    except Interrupt:
        interrupts += 1
    armed = False
    for result, right in zip(calls(), expected):
        assert np.array_equal(result, right)
    assert not threads._pool.words[jobs.BUSY]
signal.setitimer(signal.ITIMER_REAL, 0)
pool, end = threads._pool, time.monotonic() + 20
while len(pool.workers) < 2 and time.monotonic() < end:
    calls()
    time.sleep(0.01)
assert len(pool.workers) == 2
while others and os_threads() > others + 2 * pools and time.monotonic() < end:
    time.sleep(0.01)  # a second thread for a place ends
assert others is None or os_threads() <= others + 2 * pools, (os_threads(), others, pools)
assert memory.kept_bytes() < 1 << 24
print(interrupts > 100)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("seed", ["0", "1"])
def test_after_errors_at_any_moment_the_pool_has_its_workers_and_results_are_right(
    seed: str,
) -> None:
    assert python("-c", RAISING, seed, "2").stdout == "True\n"


# The cache is empty, so most moments are in Numba and in LLVM, or in the import of Numba.
COMPILING = """
import faulthandler, os, random, signal, sys
import numpy as np
import fastcnn

faulthandler.dump_traceback_later(120, exit=True)
mode, moments = sys.argv[1], random.Random(1)
x, w = np.random.default_rng(0).random((4, 12, 12, 8)), np.ones((3, 3, 8, 8))
functions = [
    lambda d: fastcnn.relu(x.astype(d)),
    lambda d: fastcnn.tanh(x.astype(d)),
    lambda d: fastcnn.max_pool2d(x.astype(d), 2),
    lambda d: fastcnn.softmax(x.astype(d)),
]
works = [(f, d) for f in functions for d in ("float32", "float64")]
moments.shuffle(works)
handled, busy = 0, False

class Interrupt(Exception):
    pass

def handler(*_):
    global handled, busy
    if busy:
        return
    busy = True
    try:
        handled += 1
        if mode == "raises":
            if handled < 25:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.01, 0.3))
            raise Interrupt
        f, d = moments.choice(works)
        if mode == "computes":
            assert f(d).dtype == d
        elif handled <= 8:
            faulthandler.cancel_dump_traceback_later()  # a child could not, and would wait for it
            child = os.fork()
            faulthandler.dump_traceback_later(120 if child else 60, exit=True)
            if not child:
                os._exit(0 if f(d).dtype == d else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        busy = False

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0 if mode == "raises" else 0.05)
for f, d in works:
    while True:
        try:
            f(d)
            break
        except Interrupt:
            pass
signal.signal(signal.SIGALRM, signal.SIG_IGN)
for f, d in works:
    with fastcnn.use_engine("naive"):
        expected = f(d)
    assert np.allclose(f(d), expected, rtol=1e-5, atol=1e-5)
left = [n for n in os.listdir(os.environ["NUMBA_CACHE_DIR"] + "/fastcnn") if not n.endswith(".nbc")]
print(handled > 3, left)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.lasts_long
@pytest.mark.parametrize("mode", ["computes", "raises", "forks"])
def test_a_handler_in_the_middle_of_an_import_or_of_compiling(mode: str, tmp_path: Path) -> None:
    assert (
        python("-W", "ignore", "-c", COMPILING, mode, NUMBA_CACHE_DIR=str(tmp_path)).stdout
        == "True []\n"
    )


# --- the tools ------------------------------------------------------------------------------------


class InterruptError(Exception):
    pass


def raising(times: int) -> Any:
    """A handler that raises so many times."""
    left = [None] * times

    def handler(*_: object) -> None:
        if left:
            left.pop()
            raise InterruptError

    return handler


@pytest.mark.parametrize("times", [1, 5])
def test_undisturbed_work_ends_before_the_error_goes_on(times: int) -> None:
    ended = []

    def work() -> None:
        time.sleep(0.3)
        ended.append(threading.get_ident())

    before = signal.signal(signal.SIGALRM, raising(times))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        with pytest.raises(InterruptError):
            undisturbed.undisturbed(work)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ended
    assert ended[0] != threading.get_ident()


def test_abandoned_work_ends_where_it_asks() -> None:
    steps = []

    def work() -> None:
        for i in range(1000):
            undisturbed.go_on()
            time.sleep(0.01)
            steps.append(i)

    before = signal.signal(signal.SIGALRM, raising(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(InterruptError):
            undisturbed.undisturbed(work)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert 0 < len(steps) < 900
    count = len(steps)
    time.sleep(0.05)
    assert len(steps) == count


def test_undisturbed_work_gives_its_result_its_error_and_runs_without_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert undisturbed.undisturbed(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        undisturbed.undisturbed(divmod, 7, 0)

    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(undisturbed, "start_new_thread", start)
    assert undisturbed.undisturbed(threading.get_ident) == threading.get_ident()
    with pytest.raises(undisturbed.NoThreadError):
        undisturbed.in_own_thread(divmod, 7, 3)


FORKING = """
import os, signal, sys, time
from fastcnn.core.undisturbed import undisturbed

parent, children = os.getpid(), []

def handler(*_):
    children.append(os.fork())
    signal.alarm(0 if children[0] else 20)  # the child must not wait for ever

def work():
    time.sleep(0.5)
    return os.getpid()

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.1)
assert undisturbed(work) == os.getpid()
if os.getpid() != parent:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_while_undisturbed_work_runs_does_it_itself() -> None:
    assert python("-W", "ignore", "-c", FORKING).stdout == "7\n"


def test_a_turn_that_a_handler_takes_in_the_middle_is_given_back(tmp_path: Path) -> None:
    """Whatever moment it comes at, no file of others is closed and no name is left."""
    turn = CompileTurn()
    steps = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal steps
        if frame.f_code.co_filename.endswith("compile_turn.py") and event == "line":
            sys.settrace(None)
            steps += 1
            assert turn.take(tmp_path / "other.nbc")
            turn.give()
            sys.settrace(trace)
            frame.f_trace = trace
        return trace

    descriptor = os.open(tmp_path / "of others", os.O_CREAT | os.O_RDWR)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert turn.take(tmp_path / "one.nbc")
        turn.give()
    finally:
        sys.settrace(before)
    assert steps > 10
    os.fstat(descriptor)
    os.close(descriptor)
    assert [path.name for path in tmp_path.iterdir()] == ["of others"]


def test_a_notice_that_begins_in_the_middle_of_another_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTCNN_COMPILE_NOTICE", "1")
    notice = Notice()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.endswith("compile_notice.py") and event == "line":
            sys.settrace(None)
            notice.begin()
            notice.end()
            sys.settrace(trace)
            frame.f_trace = trace
        return trace

    def run() -> None:
        sys.settrace(trace)
        notice.begin()
        notice.end()
        sys.settrace(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert not notice._running


def test_a_rehearsal_in_the_middle_of_another_does_not_wait() -> None:
    def trace(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.endswith("rehearsal.py") and event == "line":
            sys.settrace(None)
            with rehearsal.rehearsal():
                pass
            sys.settrace(trace)
            frame.f_trace = trace
        return trace

    def run() -> None:
        sys.settrace(trace)
        with rehearsal.rehearsal() as requests:
            assert rehearsal.rehearsing()
            assert requests == {}
        sys.settrace(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert not rehearsal.active


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_does_not_wait_for_ever_and_gives_back_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jit, "_FORK_PATIENCE", 0.2)
    holding, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with jit.global_compiler_lock:
            holding.set()
            go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(60)
    jit._before_fork()
    jit._before_fork()  # a handler's, in the middle of the first
    jit._after_fork()
    jit._after_fork()
    go_on.set()
    thread.join()
    assert not jit.global_compiler_lock.is_locked()
    assert not jit.llvm_lock._is_owned()


KILLED = """
import os, sys, threading, time
from pathlib import Path
from fastcnn.engine.numba.runtime.compile_turn import turn

turn.take(Path(sys.argv[1]))
print(os.listdir(Path(sys.argv[1]).parent), flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_the_turn_of_a_process_that_is_gone_is_free(how: str, tmp_path: Path) -> None:
    path = tmp_path / "kernel.nbc"
    done = run(
        [sys.executable, "-c", KILLED, str(path), how],
        env=environment(SOURCE),
    )  # fmt: skip
    assert done.stdout == "['kernel.lock']\n"
    assert (list(tmp_path.iterdir()) == []) == (how == "ended")
    turn = CompileTurn()
    assert turn.take(path, patience=0)
    turn.give()
    assert list(tmp_path.iterdir()) == []
