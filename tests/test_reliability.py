"""A little of each long run of ``reliability/``, and that none of them is blind."""

from __future__ import annotations

import ast
import os
import threading
from pathlib import Path

import children
import kill_saving
import long_run
import pytest

import fastcnn

LINUX = Path("/proc/self/fd").is_dir()
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.fixture(scope="module")
def expected() -> bytes:
    return children.work()


@FORKS
@pytest.mark.filterwarnings("ignore:This process")  # is multi-threaded: that is the point
def test_forked_children_compute_rightly_and_end(expected: bytes) -> None:
    assert children.children("fork", 3, expected) == []


def test_a_spawned_child_computes_rightly_and_ends(expected: bytes) -> None:
    assert children.children("spawn", 1, expected) == []


@FORKS
@pytest.mark.filterwarnings("ignore:This process")
def test_a_child_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "work", lambda: b"something else")
    assert children.children("fork", 1, b"expected") == ["fork: a child gave other bits"]
    monkeypatch.setattr(children, "_send", lambda pipe: os._exit(5))
    result = children.children("fork", 1, b"expected")
    assert result == ["fork: a child sent nothing", "fork: a child ended with 5"]


@FORKS
@pytest.mark.filterwarnings("ignore:This process")
def test_a_file_is_whole_after_each_kill(tmp_path: Path) -> None:
    assert kill_saving.kills(tmp_path / "model.safetensors", times=15) == []


@FORKS
@pytest.mark.filterwarnings("ignore:This process")
def test_a_file_that_is_not_written_at_once_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_in_place(path: Path, data: bytes, check: object) -> None:
        with open(path, "wb") as file:
            for first in range(0, len(data), 1000):
                file.write(data[first : first + 1000])
                file.flush()

    monkeypatch.setattr(fastcnn.train.checkpoint, "write_whole", write_in_place)
    path = tmp_path / "model.safetensors"
    # A child that starts slowly may be killed before it writes, so there are several rounds.
    assert any(kill_saving.kills(path, times=15, seed=seed) for seed in range(8))


@pytest.mark.skipif(not LINUX, reason="no /proc on this system")
def test_rounds_of_everything_leave_no_thread_and_no_open_file(tmp_path: Path) -> None:
    work = long_run.Work(tmp_path, images=100)
    work.once()
    threads, files, size = threading.active_count(), long_run.handles(), long_run.resident()
    for _ in range(3):
        work.once()
    assert threading.active_count() <= threads
    assert long_run.handles() <= files
    assert long_run.resident() - size < 50


def test_kernels_leave_blas_alone() -> None:
    """So its threads and theirs never want the processors at the same time."""
    # Not "einsum", which sums in loops of its own.
    blas = {"dot", "matmul", "tensordot", "inner", "vdot", "linalg"}
    for path in (Path(fastcnn.__file__).parent / "engine" / "numba").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), path
            assert not (isinstance(node, ast.Attribute) and node.attr in blas), path
