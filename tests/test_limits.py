"""A test that hangs, or a process of it, ends in bounded time and with tracebacks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from dealing import dealt
from limits import computing, limit, run
from processes import python

HERE = Path(__file__).parent

HANGS = {
    "in Python": "while True:\n        time.sleep(0.01)",
    # PyDLL keeps the interpreter's lock, as any extension may.
    "in compiled code": "ctypes.PyDLL(None).sleep(100)",
    "a thread that is waited for": (
        "thread = threading.Thread(target=waits_for_ever)\n    thread.start()\n    thread.join()"
    ),
    "a lock of the parent in a forked child": (
        "child = os.fork()\n    if not child:\n        waits_for_ever()\n"
        "    assert os.waitpid(child, 0)[1] == 0"
    ),
    "a process": (
        "limits.run([sys.executable, '-c', 'import threading\\n'\n"
        "                'def waits_for_ever():\\n    threading.Event().wait()\\n'\n"
        "                'waits_for_ever()'])"
    ),
    "a child of a process": (
        "limits.run([sys.executable, '-c', 'import os, threading\\n'\n"
        "                'def waits_for_ever():\\n    threading.Event().wait()\\n'\n"
        "                'os.fork() or waits_for_ever(); os.wait()'])"
    ),
}
TEST = """
import ctypes, os, sys, threading, time
import limits

def waits_for_ever():
    threading.Event().wait()

def test_it():
    {hang}

def test_another():
    pass
"""


ALONE, XDIST = ["-p", "no:xdist"], ["-n", "1"]
# The limit is kept in one place, so two of the cases are enough to see that pytest-xdist goes on.
BOTH = ("in compiled code", "a child of a process")
CASES = [(name, ALONE) for name in HANGS] + [(name, XDIST) for name in BOTH]


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value))
def test_a_test_that_hangs_fails_with_a_traceback(
    name: str, options: list[str], tmp_path: Path
) -> None:
    hang = HANGS[name]
    (tmp_path / "test_hanging.py").write_text(TEST.format(hang=hang), "utf-8")
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "--rootdir", str(HERE)]
    command += ["-c", str(HERE.parent / "pyproject.toml"), "-p", "conftest", str(tmp_path)]
    done = python(*command, check=False, PYTHONPATH=str(HERE), FASTCNN_TEST_SECONDS="2")
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert ("most recent call first" in output) or ("took longer than" in output), output
    place = "sleep" if "sleep" in hang else "waits_for_ever"
    assert place in output or "test_it" in output, output
    if options[0] == "-n" or "process" in hang or "fork" in hang:  # the others go on
        assert "1 failed, 1 passed" in output, output


def test_a_process_has_what_the_test_has_left() -> None:
    with limit(2), pytest.raises(AssertionError, match=r"took longer than 1\.[78].* s"):
        run(["sleep", "100"])


def test_what_computes_long_fails() -> None:
    with computing(seconds=60):
        pass
    message = r"0\.\d\d s of computing, where 1e-06 s times"
    with pytest.raises(AssertionError, match=message), computing(seconds=1e-6):
        sum(range(1_000_000))


def test_every_process_of_a_test_has_a_limit() -> None:
    """``limits.run`` starts it, or ``communicate`` has a timeout; no test waits without one."""
    for path in HERE.glob("*.py"):
        if path.name == "limits.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = f"{getattr(node.func.value, 'id', '')}.{node.func.attr}"
                waits = ("subprocess.run", "subprocess.call", "subprocess.check_output",
                         "subprocess.check_call", "os.system")  # fmt: skip
                assert name not in waits, f"{path.name}:{node.lineno}: use limits.run"
                if node.func.attr == "communicate":
                    assert node.keywords, f"{path.name}:{node.lineno}: give a timeout"


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("long", "others"), [(7, 200), (7, 31), (3, 200), (0, 11), (5, 2)])
def test_each_worker_begins_with_its_share_of_the_long_tests(
    long: int, others: int, workers: int
) -> None:
    long_tests, other_tests = [-1 - i for i in range(long)], list(range(others))
    order = dealt(long_tests, other_tests, workers)
    assert sorted(order) == sorted(long_tests + other_tests)
    assert [test for test in order if test >= 0] == other_tests
    if others < long * workers:  # parts that are too short for their long tests
        return
    shares, start = [], 0
    for worker in range(workers):  # as pytest-xdist divides a list
        size = (len(order) - start) // (workers - worker)
        part, start = order[start : start + size], start + size
        shares.append([test for test in part if test < 0])
        assert part[: len(shares[-1])] == shares[-1]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
