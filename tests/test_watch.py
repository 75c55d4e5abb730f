"""The watch over the processes of a group: deaths, hangs, silence; and slow ones, which may go on.

Beats go through memory and the clock is one of the tests, so that nothing depends on the machine.
Processes that die or are stopped are real.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from limits import end, start
from processes import python

from fastcnn.core.arguments import Array
from fastcnn.distributed import watch as watch_module
from fastcnn.distributed.guard import Guard
from fastcnn.distributed.watch import Watch

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="this system does not show states of processes"
)

HERE, ELSEWHERE = 1, 2  # machines
PATIENCE = 100.0


class Clock:
    """A clock that tests move on."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    result = Clock()
    monkeypatch.setattr(watch_module, "monotonic", result)
    return result


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs."""
    result = start([sys.executable, "-c", "import time; time.sleep(300)"])
    yield result
    end(result)


class Memory:
    """Takes beats to the other processes."""

    def __init__(self, rank: int, boxes: list[list[tuple[int, Array]]]) -> None:
        self.rank, self.size, self.boxes = rank, len(boxes), boxes
        self.codes = list[int]()

    def send(self, numbers: Array, rank: int) -> None:
        self.boxes[rank].append((self.rank, numbers))

    def received(self) -> list[tuple[int, Array]]:
        result = self.boxes[self.rank][:]
        self.boxes[self.rank].clear()
        return result

    def abort(self, code: int) -> None:
        self.codes.append(code)


class SilentGuard(Guard):
    """A guard that notes what it is told."""

    def __init__(self) -> None:
        self._process = None
        self.words = list[bytes]()

    def _say(self, word: bytes) -> None:
        self.words.append(word)


def watches(*processes: tuple[int, int]) -> list[Watch]:
    """Watches of processes, each with its machine and its number there, that all train."""
    boxes: list[list[tuple[int, Array]]] = [[] for _ in processes]
    result = [
        Watch(Memory(rank, boxes), processes, PATIENCE, SilentGuard())
        for rank in range(len(processes))
    ]
    for one in result:
        one._turn(state=1)
        for _ in range(3):  # each activity has a short history
            for activity in watch_module.ACTIVITIES:
                with one.doing(activity):
                    pass
    return result


def looks(clock: Clock, some: list[Watch], seconds: float) -> dict[int, str]:
    """What each of some watches says in this time, at first."""
    result = dict[int, str]()
    for _ in range(int(seconds / watch_module.INTERVAL)):
        clock.time += watch_module.INTERVAL
        for one in some:
            reason = one.look()
            if reason is not None:
                result.setdefault(one._rank, reason)
    return result


def await_state(process: int, letters: str) -> None:
    """Wait until a process has one of these states."""
    limit = monotonic() + 60
    while watch_module._state_of(process) not in letters:
        assert monotonic() < limit
        sleep(0.01)


def three(process: int) -> list[Watch]:
    """Watches of three processes of this machine; only that of rank 1 can die."""
    return watches((HERE, os.getpid()), (HERE, process), (HERE, os.getpid()))


# --- deaths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_waited_for", [False, True])
def test_the_next_process_notices_a_death(
    clock: Clock, process: subprocess.Popen[bytes], is_waited_for: bool
) -> None:
    first, _, third = three(process.pid)
    assert looks(clock, [first, third], 3.0) == {}
    process.kill()
    await_state(process.pid, "Z")
    if is_waited_for:  # the number is that of no process then
        process.wait()
    assert third.look() is None  # one look may be wrong
    expected = f"rank 1 of 3 (process {process.pid}) has died, by a signal or for lack of memory"
    assert looks(clock, [first, third], 1.0) == {2: expected}


def test_deaths_are_noticed_outside_of_a_training(
    clock: Clock, process: subprocess.Popen[bytes]
) -> None:
    boxes: list[list[tuple[int, Array]]] = [[], []]
    processes = [(HERE, process.pid), (HERE, os.getpid())]
    one = Watch(Memory(1, boxes), processes, PATIENCE, SilentGuard())
    assert looks(clock, [one], 500.0) == {}  # nobody says that rank 0 should send a beat
    process.kill()
    await_state(process.pid, "Z")
    assert "rank 0 of 2" in looks(clock, [one], 1.0)[1]


def test_a_process_of_another_machine_cannot_be_seen_to_die(
    clock: Clock, process: subprocess.Popen[bytes]
) -> None:
    process.kill()
    process.wait()
    some = watches((ELSEWHERE, process.pid), (HERE, os.getpid()))
    assert looks(clock, some, 3.0) == {}


def test_a_process_that_has_ended_well_has_not_died(
    clock: Clock, process: subprocess.Popen[bytes]
) -> None:
    first, second, third = three(process.pid)
    looks(clock, [first, second, third], 1.0)
    with third.training():
        pass  # it trains no more afterwards
    second.leave()
    process.kill()
    await_state(process.pid, "Z")
    reasons = looks(clock, [first, third], 30.0)
    assert reasons == {0: "rank 1 of 3 has ended, while others train"}
    assert second._guard.words == [b"."]  # type: ignore[attr-defined]


# --- silence --------------------------------------------------------------------------------------


def test_a_stopped_process_is_noticed(clock: Clock, process: subprocess.Popen[bytes]) -> None:
    first, second, third = three(process.pid)
    looks(clock, [first, second, third], 1.0)
    os.kill(process.pid, signal.SIGSTOP)
    await_state(process.pid, "T")
    assert looks(clock, [first, third], 5.0) == {}
    reasons = looks(clock, [first, third], 3.0)
    assert sorted(reasons) == [0, 2]
    for reason in reasons.values():
        assert re.match(r"rank 1 of 3 has given no sign of life for 7 s: it is stopped", reason)


def test_a_slow_process_without_beats_goes_on(
    clock: Clock, process: subprocess.Popen[bytes]
) -> None:
    first, second, third = three(process.pid)
    looks(clock, [first, second, third], 1.0)
    assert looks(clock, [first, third], PATIENCE - 5) == {}
    looks(clock, [second], 0.5)  # a late beat
    assert looks(clock, [first, third], PATIENCE - 5) == {}
    assert "no sign of life" in looks(clock, [first, third], 8.0)[0]


def test_a_process_of_another_machine_that_is_silent_is_gone(clock: Clock) -> None:
    first, second = watches((HERE, os.getpid()), (ELSEWHERE, os.getpid()))
    looks(clock, [first, second], 1.0)
    assert looks(clock, [first], 5.0) == {}
    assert "rank 1 of 2 has given no sign of life" in looks(clock, [first], 3.0)[0]


def test_a_machine_that_is_silent_outside_of_a_training_has_more_time(clock: Clock) -> None:
    boxes: list[list[tuple[int, Array]]] = [[], []]
    processes = [(HERE, os.getpid()), (ELSEWHERE, os.getpid())]
    first, second = (
        Watch(Memory(rank, boxes), processes, PATIENCE, SilentGuard()) for rank in range(2)
    )
    with first.training():
        looks(clock, [first, second], 1.0)
        assert looks(clock, [first], PATIENCE - 5) == {}
        assert "no sign of life" in looks(clock, [first], 8.0)[0]


def test_time_in_which_the_whole_job_was_stopped_does_not_count(clock: Clock) -> None:
    some = watches(*[(ELSEWHERE + rank, os.getpid()) for rank in range(3)])
    with some[1].waiting():
        assert looks(clock, some, 4.0) == {}
        for _ in range(3):
            clock.time += 1000.0
            assert [one.look() for one in some] == [None] * 3
            assert looks(clock, some, 1.0) == {}
        assert "rank 0 of 3 hangs" in looks(clock, some, 8.0)[0]  # what follows does count


# --- hangs ----------------------------------------------------------------------------------------


def test_a_process_that_hangs_is_noticed_by_rank_0(clock: Clock) -> None:
    some = watches(*[(HERE, os.getpid())] * 3)
    with some[0].waiting(), some[1].waiting(), some[2].doing("callbacks"):
        assert looks(clock, some, 7.5) == {}
        reasons = looks(clock, some, 2.0)
    assert list(reasons) == [0]
    expected = "rank 2 of 3 hangs: it has been busy with callbacks for 8 s, and others wait"
    assert reasons[0] == expected.replace("for 8 s", f"for {reasons[0].split()[-5]} s")


def test_rank_0_notices_that_it_hangs_itself(clock: Clock) -> None:
    some = watches(*[(HERE, os.getpid())] * 2)
    with some[1].waiting():
        assert "rank 0 of 2 hangs: it has been busy with samples" in looks(clock, some, 10.0)[0]


def test_nobody_hangs_as_long_as_nobody_waits(clock: Clock) -> None:
    some = watches(*[(HERE, os.getpid())] * 2)
    with some[1].doing("a step"):
        assert looks(clock, some, 300.0) == {}
    with some[0].waiting(), some[1].waiting():  # messages take long
        assert looks(clock, some, 300.0) == {}


@pytest.mark.parametrize(("seconds", "limit"), [(0.1, 8.0), (1.0, 20.0), (3.0, 60.0)])
def test_a_slow_process_has_time_that_follows_its_history(
    clock: Clock, seconds: float, limit: float
) -> None:
    some = watches(*[(HERE, os.getpid())] * 2)
    for _ in range(4):
        with some[1].doing("a step"):
            clock.time += seconds
        assert [one.look() for one in some] == [None] * 2
    with some[0].waiting(), some[1].doing("a step"):
        assert looks(clock, some, limit - 1) == {}
        assert "rank 1 of 2 hangs" in looks(clock, some, 3.0)[0]


def test_time_of_waiting_is_no_history(clock: Clock) -> None:
    one = watches((HERE, os.getpid()), (HERE, os.getpid()))[0]
    with one.doing("a step"):
        before = one._allowed()
        for _ in range(4):
            with one.waiting():
                clock.time += 50.0
        assert one._allowed() == before == watch_module.LEAST


def test_an_activity_without_a_history_has_the_patience(clock: Clock) -> None:
    boxes: list[list[tuple[int, Array]]] = [[], []]
    some = [Watch(Memory(r, boxes), [(HERE, os.getpid())] * 2, 5.0, SilentGuard()) for r in (0, 1)]
    for one in some:
        one.patience = PATIENCE
        one._turn(state=1)
    with some[0].waiting(), some[1].doing("its first step"):
        assert looks(clock, some, PATIENCE - 1) == {}
        assert "busy with its first step" in looks(clock, some, 3.0)[0]


# --- the end --------------------------------------------------------------------------------------


def test_the_end_names_the_reason_and_kills_what_is_stopped(
    process: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    running = start([sys.executable, "-c", "import time; time.sleep(300)"])
    one, *_ = watches((HERE, os.getpid()), (HERE, process.pid), (HERE, running.pid))
    os.kill(process.pid, signal.SIGSTOP)
    await_state(process.pid, "T")

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(watch_module.os, "_exit", leave)
    with pytest.raises(SystemExit, match="143"):
        one.end("rank 1 of 3 is späť", 143)
    assert capfd.readouterr().err == "fastcnn: rank 1 of 3 is späť; the job ends\n"
    assert one._line.codes == [143]  # type: ignore[attr-defined]
    assert one._guard.words == [b"!"]  # type: ignore[attr-defined]
    assert process.wait(60) == -signal.SIGKILL
    assert running.poll() is None
    end(running)


def test_the_thread_of_a_watch_ends_all_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = list[str]()

    class Records(Watch):
        def end(self, reason: str, code: int = 1) -> None:
            reasons.append(reason)
            self._ended.set()

    monkeypatch.setattr(watch_module, "INTERVAL", 0.01)
    boxes: list[list[tuple[int, Array]]] = [[], []]
    here = [(HERE, 2**22 + 1), (HERE, os.getpid())]  # no process has so large a number
    one = Records(Memory(1, boxes), here, PATIENCE, SilentGuard())
    one.start()
    one._thread.join(60)
    assert reasons == [watch_module.death_of(0, 2, 2**22 + 1)]
    other = Records(Memory(0, boxes), [(HERE, os.getpid())] * 2, PATIENCE, SilentGuard())
    other.start()
    other.leave()
    assert not other._thread.is_alive()
    assert boxes[1][-1][1][0] == 2  # its last beat says that it has ended well
    assert len(reasons) == 1


# --- guards ---------------------------------------------------------------------------------------

GUARDED = """
import os, sys
from fastcnn.distributed.guard import Guard

guards = [Guard(f"rank {i} has died", sys.argv[1]) for i in range(int(sys.argv[3]))]
if sys.argv[2]:
    getattr(guards[0], sys.argv[2])()
    guards[0]._process.stdin.close()
    guards[0]._process.wait() if sys.argv[2] == "leave" else None
os._exit(0)
"""


@pytest.mark.parametrize(
    ("says", "guards", "messages"),
    [("", 1, 1), ("", 3, 1), ("leave", 1, 0), ("leave", 2, 1), ("let_speak", 1, 0)],
)
def test_the_first_guard_alone_names_its_process(says: str, guards: int, messages: int) -> None:
    done = python("-c", GUARDED, secrets.token_hex(8), says, str(guards))
    assert done.stderr.count("has died") == messages, done.stderr


SPEAKING = """
import os, sys, time
from fastcnn.distributed.guard import Guard

first, second = (Guard(f"rank {i} has died", sys.argv[1]) for i in range(2))
first.let_speak()
limit = time.monotonic() + 100
while f"@fastcnn-{sys.argv[1]}" not in open("/proc/net/unix").read():
    assert time.monotonic() < limit
    time.sleep(0.01)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no abstract sockets")
def test_a_process_that_speaks_silences_the_guards_while_it_lives() -> None:
    assert python("-c", SPEAKING, secrets.token_hex(8)).stderr == ""


def test_beats_say_what_a_process_does(clock: Clock) -> None:
    boxes: list[list[tuple[int, Array]]] = [[], []]
    one = Watch(Memory(1, boxes), [(HERE, os.getpid())] * 2, PATIENCE, SilentGuard())

    def beat() -> list[float]:
        one.look()
        return [float(number) for number in boxes[0].pop()[1]]

    def after_a_second() -> list[float]:
        clock.time += 1.0
        return beat()

    assert after_a_second() == [0, 0, 1.0, PATIENCE, 0]
    with one.training():
        assert after_a_second() == [1, 0, 1.0, PATIENCE, 0]
        with one.doing("checks"):
            assert after_a_second() == [1, 0, 1.0, PATIENCE, 5]
            with one.waiting():
                assert after_a_second() == [1, 1, 1.0, PATIENCE, 5]
            assert after_a_second() == [1, 0, 1.0, PATIENCE, 5]
        assert after_a_second() == [1, 0, 1.0, PATIENCE, 0]
    assert after_a_second() == [0, 0, 1.0, PATIENCE, 0]
