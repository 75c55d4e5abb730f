"""The thread driver: many callers, errors, interrupts and forks; and how many threads there are."""

from __future__ import annotations

import _thread
import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hammer_threads import Hammer
from processes import python

import fastcnn
from fastcnn.core import settings
from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted
from fastcnn.core.settings import forget_choices
from fastcnn.engine.numba.runtime import calls, jobs, memory, threads
from fastcnn.engine.numba.runtime.atomics import load_acquire, store_release
from fastcnn.engine.numba.runtime.jit import compiled, kernel

FORKS = hasattr(os, "fork")


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[threads._Pool]:
    """A pool of its own, that three threads use however small the work."""
    before = fastcnn.get_num_threads()
    fastcnn.set_num_threads(3)
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    monkeypatch.setattr(threads, "SMALL", 1)
    forget_choices()
    yield threads._pool
    forget_choices()
    fastcnn.set_num_threads(before)


def in_time(call: Callable[[], Any]) -> Any:
    """What the call gives; a deadlock fails instead of lasting."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(call()), daemon=True)
    thread.start()
    thread.join(60)
    assert result, "it does not end, or it raised"
    return result[0]


def relu() -> Any:
    return fastcnn.relu(np.arange(-50, 50, dtype=np.float32), engine="numba").sum()


@kernel
def count_items(start: int, stop: int, seen: Any, rounds: int) -> None:
    """One more for each item; those of later parts take ``rounds`` steps first."""
    for i in range(start, stop):
        delay = 0.5
        for _ in range(rounds * i):
            delay = delay * 0.5 + seen[i]
        seen[i] += 1 if delay >= 0 else 0


@kernel
def meet(start: int, stop: int, here: Any, met: Any) -> None:
    """Two items that wait for each other, but not for ever."""
    for i in range(start, stop):
        store_release(here, i, 1)
        for _ in range(100_000):
            if load_acquire(here, 1 - i) == 1:
                met[i] = 1


@kernel
def wait_for_the_rest(start: int, stop: int, done: Any) -> None:
    """The first item waits for all others, but not for ever; at the end it is their number."""
    for i in range(start, stop):
        if i > 0:
            store_release(done, i, 1)
            continue
        for _ in range(100_000):
            others = 0
            for other in range(1, len(done)):
                others += load_acquire(done, other)
            if others == len(done) - 1:
                break
        done[0] = others


def counted(rounds: int, calls: int) -> Array:
    counts = np.zeros(29)
    for _ in range(calls):
        threads.parallel_for(count_items, len(counts), 10_000, counts, rounds)
    return counts


def all_asleep(pool: threads._Pool) -> bool:
    return len(pool.workers) == 2 and all(worker.asleep for worker in pool.workers.values())


def all_is_done(pool: threads._Pool) -> bool:
    """Whether a thread has taken each task of the last job, and all are done."""
    number, tasks = pool.board[[jobs.NUMBER, jobs.TASKS]]
    slots = pool.board.reshape(-1, jobs.SLOT)
    nothing_left = (slots[:, jobs.LEFT] % (1 << jobs.COUNT) == 0).all()
    done = slots[:, jobs.DONE] - (number << jobs.COUNT)
    return bool(nothing_left and done[done > 0].sum() == tasks)


@pytest.mark.parametrize(("rounds", "calls"), [(0, 5000), (300, 200)])
def test_each_part_is_done_once_and_before_the_call_returns(
    rounds: int, calls: int, pool: threads._Pool
) -> None:
    result = in_time(lambda: counted(rounds, calls))
    np.testing.assert_array_equal(result, calls)
    assert both_workers_come(pool)
    assert pool.board[jobs.NUMBER] >= calls
    assert all_is_done(pool)


def test_jobs_of_many_and_of_few_threads_follow_on_each_other(pool: threads._Pool) -> None:
    counts = np.zeros(29)

    def change() -> None:
        for call in range(20_000):
            fastcnn.set_num_threads(2 + call * 5 % 7)
            threads.parallel_for(count_items, len(counts), 10_000, counts, 0)

    in_time(change)
    np.testing.assert_array_equal(counts, 20_000)
    assert all_is_done(pool)


def test_parts_run_at_the_same_time(pool: threads._Pool) -> None:
    end = time.monotonic() + 20  # a worker still has to start, and others may have its core
    while time.monotonic() < end:
        here, met = np.zeros((2, 2), np.int64)
        threads.parallel_for(meet, 2, 2, here, met)
        assert met[1] == 1  # one after the other the second finds the first there
        if met[0]:
            return
        time.sleep(0.001)
    raise AssertionError("no worker came")


def test_what_a_slow_thread_has_not_begun_others_take(pool: threads._Pool) -> None:
    end = time.monotonic() + 20  # as above
    while time.monotonic() < end:
        done = np.zeros(12, np.int64)  # four tasks for each thread
        in_time(lambda given=done: threads.parallel_for(wait_for_the_rest, len(given), 100, given))
        np.testing.assert_array_equal(done[1:], 1)
        assert all_is_done(pool)
        if done[0] == len(done) - 1:  # three of them were the slow thread's own
            return
        time.sleep(0.001)
    raise AssertionError("nobody took them")


@pytest.mark.parametrize("first", [False, True])
def test_after_an_interrupt_before_the_start_the_next_call_ends(
    first: bool, pool: threads._Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_time(relu) == 1225
    call = pool.call

    def interrupted(threads: int) -> bool:
        if first:
            call(threads)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            relu()
    assert [in_time(relu) for _ in range(3)] == [1225] * 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_an_interrupt_waits_until_all_parts_are_done(pool: threads._Pool) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        interrupted = 0
        for _ in range(100):
            with contextlib.suppress(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.002)
                counted(300, 1000)
                interrupted -= 1
            interrupted += 1
            assert all_is_done(pool)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 50
    assert in_time(relu) == 1225


def test_workers_that_sleep_are_called(
    pool: threads._Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_LOOKS", 1)
    for _ in range(20):
        assert in_time(relu) == 1225
        end = time.monotonic() + 10
        while not all_asleep(pool) and time.monotonic() < end:
            time.sleep(0.001)
        assert all_asleep(pool)
    awake: list[int] = []
    serve = threads._serve

    def noted(board: Array, slot: int, looks: int) -> None:
        awake.append(slot)
        serve(board, slot, looks)

    monkeypatch.setattr(threads, "_serve", noted)
    pool.call(3)
    in_time(lambda: [time.sleep(0.001) for _ in range(10_000) if len(set(awake)) < 2])
    assert set(awake) == set(pool.workers)


def test_the_caller_does_what_no_worker_has_begun(
    pool: threads._Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads._Worker, "_work", lambda self: None)  # they never come
    assert in_time(relu) == 1225
    assert all_is_done(pool)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_the_caller_does_all_where_no_thread_can_be_started(
    error: type[Exception], pool: threads._Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise error("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threads, "start_new_thread", start)
        assert relu() == 1225
        np.testing.assert_array_equal(counted(10, 20), 20)
        assert not pool.workers
    assert both_workers_come(pool)


def both_workers_come(pool: threads._Pool) -> bool:
    """Whether calls have their workers, some time after a failure to start them."""
    end = time.monotonic() + 20
    while len(pool.workers) < 2 and time.monotonic() < end:
        assert in_time(relu) == 1225
        time.sleep(0.01)
    return len(pool.workers) == 2


@compiled
def count_tasks(board: Any, index: int, number: int, times: int) -> None:
    for _ in range(times):
        jobs._count(board, index, number)


def test_threads_at_one_slot_lose_no_count() -> None:
    board, times = np.zeros(jobs.SLOT, np.int64), 30_000
    count_tasks(board, 0, 1, 0)
    for number in range(1, 40):
        both = [
            threading.Thread(target=count_tasks, args=(board, jobs.DONE, number, times))
            for _ in range(2)
        ]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert board[jobs.DONE] == (number << jobs.COUNT) + 2 * times


def test_a_second_worker_at_a_slot_ends(pool: threads._Pool) -> None:
    assert both_workers_come(pool)
    second = threading.Thread(target=threads._Worker(pool, jobs.SLOT).run, daemon=True)
    second.start()
    second.join(60)
    assert not second.is_alive()
    assert len(pool.workers) == 2
    assert in_time(relu) == 1225


def test_a_worker_that_ends_leaves_its_slot(
    pool: threads._Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = threads._serve

    def fail(board: Array, slot: int, looks: int) -> None:
        if threading.current_thread().name.startswith("fastcnn-"):
            raise SystemExit
        serve(board, slot, looks)

    with monkeypatch.context() as patch:
        patch.setattr(threads, "_serve", fail)
        for _ in range(20):
            assert in_time(relu) == 1225
            time.sleep(0.01)
        assert not pool.workers
    assert both_workers_come(pool)


def test_an_interrupt_as_a_worker_starts_leaves_one_worker_at_its_slot(
    pool: threads._Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started, before = threads.start_new_thread, [], _thread._count()

    def interrupted(target: Callable[[], object], arguments: tuple[()]) -> None:
        started.append(start(target, arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threads, "start_new_thread", interrupted)
        patch.setattr(threads, "_PATIENCE", 0.0)  # each call tries again
        for _ in range(16):
            with contextlib.suppress(KeyboardInterrupt):
                relu()
    assert len(started) >= 2
    assert both_workers_come(pool)
    end = time.monotonic() + 20
    while _thread._count() > before + 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert _thread._count() <= before + 2


AT_THE_END = """
import atexit, builtins, faulthandler, sys, threading, time
import numpy as np
import fastcnn

faulthandler.dump_traceback_later(300, exit=True)
how = sys.argv[1]
x = np.random.default_rng(0).random((8, 64, 64, 16), np.float32)
if "used before" in how:
    fastcnn.set_num_threads(1)
    fastcnn.max_pool2d(x, 2)
fastcnn.set_num_threads(2)

def last():
    print(fastcnn.max_pool2d(x, 2).shape, flush=True)

class Deleted:
    def __del__(self):
        last()

def outlives():
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    last()

if "atexit" in how:
    atexit.register(last)
elif "thread" in how:
    threading.Thread(target=outlives).start()
else:
    builtins.kept = Deleted()
"""


@pytest.mark.parametrize(
    "how", ["atexit", "atexit, used before", "thread", "thread, used before", "del, used before"]
)
@pytest.mark.parametrize("cache", ["kept", "empty"])
def test_at_the_end_of_python_a_call_computes_alone(how: str, cache: str, tmp_path: Path) -> None:
    folder = {} if cache == "kept" else {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert python("-c", AT_THE_END, how, **folder).stdout == "(8, 32, 32, 16)\n"


def test_sixteen_threads_on_models_and_functions_get_the_right_bits() -> None:
    hammer = Hammer(share=3)
    hammer.run(threads=16, seconds=0.7, layer="none")
    assert hammer.wrong == []
    assert hammer.done >= 16


def test_arrays_that_are_in_use_share_no_memory() -> None:
    rng = np.random.default_rng(0)
    wrong: list[str] = []

    def use() -> None:
        held: list[Any] = []
        for number in range(400):
            array = memory.empty((int(rng.integers(17_000, 40_000)),), np.float32)
            array[...] = number
            held.append((array[::7], number))  # a view keeps the block in use
            if len(held) > 9:
                view, expected = held.pop(int(rng.integers(len(held))))
                if (view != expected).any():
                    wrong.append(f"{number} was written over")

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert wrong == []


# --- forks ----------------------------------------------------------------------------------------

FORK = """
import os, threading, time
import numpy as np
import fastcnn
from numba.core.compiler_lock import global_compiler_lock
from llvmlite.binding.ffi import lib

x = np.ones(300_000, np.float32)
fastcnn.set_num_threads(3)
fastcnn.relu(x)
for lock in (global_compiler_lock, lib._lock):
    held = threading.Event()

    def hold():
        with lock:
            held.set()
            time.sleep(0.5)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        y = fastcnn.relu(x.astype(np.float64) - 2)  # allocates, compiles or loads, starts threads
        os._exit(7 if y.sum() == 0 else 8)
    end = time.monotonic() + 60
    while not (found := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.02)
    if not found[0]:
        os.kill(child, 9)
        os.waitpid(child, 0)
    thread.join()
    print(os.waitstatus_to_exitcode(found[1]) if found[0] else "a deadlock")
"""


@pytest.mark.skipif(not FORKS, reason="no fork on this system")
def test_a_fork_takes_no_lock_along() -> None:
    assert python("-W", "ignore", "-c", FORK).stdout.split() == ["7", "7"]


# --- how many -------------------------------------------------------------------------------------


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable that sets a number of threads, also for the processes of a test."""
    for name in ("FASTCNN_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("", {"cpu.max": "100000 100000"}, 8),
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "150000 100000"}, 1),
        ("0::/not-seen-here\n", {"cpu.max": "400000 100000"}, 4),
        ("0::/\n", {"cpu.max": "1600000 100000"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
        ("0::/\n", {"cpu.max": "100 0"}, 8),
        ("nonsense\n", {}, 8),
        ("4:cpu,cpuacct:/a\n2:memory:/a\n",
         {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n",
          "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("eight")
def test_a_containers_share_of_time_is_respected(
    own: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(own)
    assert settings.processors(str(tmp_path), str(tmp_path / "own")) == expected


def test_a_machine_of_a_thousand_processors_gets_as_many_threads_as_there_may_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The board has a slot for each of them, and no more.
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1000)), raising=False)
    assert settings.processors(str(tmp_path), str(tmp_path / "own")) == settings.MOST
    assert threads._Pool().board.size >= settings.MOST * jobs.SLOT


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
@pytest.mark.usefixtures("no_variables")
def test_the_affinity_decides_how_many() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}]); import fastcnn"
    assert python("-c", f"{code}; print(fastcnn.get_num_threads())").stdout == "1\n"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (8, None)),
        ({"FASTCNN_NUM_THREADS": "5"}, (5, "FASTCNN_NUM_THREADS")),
        ({"FASTCNN_NUM_THREADS": " 2 "}, (2, "FASTCNN_NUM_THREADS")),
        ({"FASTCNN_NUM_THREADS": "20"}, (20, "FASTCNN_NUM_THREADS")),  # more than processors
        ({"FASTCNN_NUM_THREADS": "1000"}, (settings.MOST, "FASTCNN_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "1"}, (1, "OMP_NUM_THREADS")),
        ({"NUMBA_NUM_THREADS": "1"}, (1, "NUMBA_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2"}, (2, "NUMBA_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "3"}, (2, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "20", "NUMBA_NUM_THREADS": "20"}, (8, None)),
        ({"OMP_NUM_THREADS": "4,2"}, (4, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": " 4 , 2"}, (4, "OMP_NUM_THREADS")),
        ({"FASTCNN_NUM_THREADS": "6", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
         (6, "FASTCNN_NUM_THREADS")),
        *(({name: wrong}, (8, None))
          for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
          for wrong in ("", "0", "-1", "many", "1.5", ",2", "²", "1" * 9000)),
        ({"NUMBA_NUM_THREADS": "4,2"}, (8, None)),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("eight")
def test_the_environment_decides_how_many(
    environment: dict[str, str], expected: tuple[int, str | None], tmp_path: Path
) -> None:
    threads, decided_by = settings.thread_limit(environment, str(tmp_path), str(tmp_path / "own"))
    assert threads == expected[0]
    assert decided_by == (expected[1] or "processors")


@pytest.mark.usefixtures("eight")
def test_the_smallest_limit_decides_and_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = str(tmp_path), str(tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("300000 100000\n")
    assert settings.thread_limit({}, *places) == (3, "control group")
    assert settings.thread_limit({"OMP_NUM_THREADS": "3"}, *places) == (3, "control group")
    assert settings.thread_limit({"OMP_NUM_THREADS": "2"}, *places) == (2, "OMP_NUM_THREADS")
    assert settings.thread_limit({"FASTCNN_NUM_THREADS": "9"}, *places)[0] == 9
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    (tmp_path / "cpu.max").unlink()
    assert settings.thread_limit({}, *places) == (8, "affinity")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert settings.thread_limit({}, *places) == (12, "processors")


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5", "", "4,2", "²", "1" * 9000])
def test_a_wrong_number_of_threads_in_the_environment_is_an_error(wrong: str) -> None:
    end = re.escape(f"must be an integer of at least 1, got {quoted(wrong)}") + "$"
    with pytest.raises(ValueError, match=end):
        settings.thread_limit({"FASTCNN_NUM_THREADS": wrong, "OMP_NUM_THREADS": "1"})


@pytest.mark.usefixtures("no_variables")
def test_set_num_threads_overrides_the_environment() -> None:
    code = (
        "import fastcnn; from fastcnn.core.settings import current_thread_limit;"
        "print(fastcnn.get_num_threads()); fastcnn.set_num_threads(3);"
        "print(*current_thread_limit())"
    )
    shown = python("-c", code, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1").stdout
    assert shown == "1\n3 set_num_threads\n"


WORKERS = """
from joblib import Parallel, delayed

def threads():
    import fastcnn
    return fastcnn.get_num_threads()

if __name__ == "__main__":
    for several in (2, 3):
        print(*Parallel(n_jobs=several)(delayed(threads)() for _ in range(several)))
"""


@pytest.mark.usefixtures("no_variables")
def test_the_workers_of_joblib_share_the_processors(tmp_path: Path) -> None:
    # joblib divides the processors by the number of workers, and here it counts two.
    (tmp_path / "workers.py").write_text(WORKERS)
    shown = python(str(tmp_path / "workers.py"), LOKY_MAX_CPU_COUNT="2").stdout
    assert shown == "1 1\n1 1 1\n"


def test_words_of_a_board_lie_apart() -> None:
    job = {jobs.NUMBER, jobs.ENTRY, jobs.FRAME, jobs.START, jobs.STOP, jobs.TASKS, jobs.THREADS}
    board = [jobs.LEFT, calls.OFFER, jobs.BUSY, jobs.WANTED, jobs.AWAKE]
    assert board == [*range(jobs.LINE_WORDS, jobs.LINE_WORDS + 5)]  # in the second line of a slot
    assert len({*job, jobs.DONE, *board}) == 13
    assert max(board) < jobs.SLOT
