"""Files are written whole or not at all, with the permissions that they should have."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import python

from fastcnn.bench.report import Report
from fastcnn.core.files import FilePath, check_writable, write_whole
from fastcnn.layers import Dense
from fastcnn.models.sequential import Sequential, load_model

POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@POSIX
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_any_new_file(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "new", b"1")
        (tmp_path / "any").write_bytes(b"1")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == mode(tmp_path / "any") == 0o666 & ~mask


@POSIX
def test_the_processes_mask_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It belongs to all threads: another one's new file would be open to everybody.
    def never(mask: int) -> int:
        raise AssertionError("the mask was changed")

    monkeypatch.setattr(os, "umask", never)
    write_whole(tmp_path / "new", b"1")


@POSIX
def test_a_private_file_is_private_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o600)
    seen: list[int] = []
    fsync = os.fsync

    def look(handle: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", look)
    write_whole(path, b"new")
    assert seen[0] == mode(path) == 0o600
    assert path.read_bytes() == b"new"


def test_an_interrupt_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"


# --- names and errors -----------------------------------------------------------------------------


def trained() -> Sequential:
    model = Sequential([Dense(2)], seed=0)
    model.fit(np.eye(3), [0, 1, 0], verbose=0)
    return model


def report() -> Report:
    return Report({}, 1, "today", 1.0, True, {}, 1.0, ())


WRITERS: dict[str, Callable[[Any], None]] = {
    "bytes": lambda path: write_whole(path, b"new"),
    "cache": lambda path: write_whole(path, b"new", durable=False),
    "check": check_writable,
    "model": lambda path: trained().save(path),
    "checkpoint": lambda path: trained().save_checkpoint(path),
    "report": lambda path: report().write(path),
}
each_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
KINDS: dict[str, Callable[[str], Any]] = {"text": str, "bytes": os.fsencode, "path": Path}


@POSIX
@each_writer
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_error_names_the_path_that_was_asked_for(
    kind: Callable[[str], Any], write: Callable[[Any], None], tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to("first")
    before = sorted(os.listdir(tmp_path))
    for name, number in [
        ("absent/file", errno.ENOENT),
        ("folder", errno.EISDIR),
        ("folder/", errno.EISDIR),
        ("file/inside", errno.ENOTDIR),
        ("loop", errno.ELOOP),
        ("first", errno.ELOOP),
        ("loop/inside", errno.ELOOP),
        ("n" * 256, errno.ENAMETOOLONG),
        ("é" * 128, errno.ENAMETOOLONG),
    ] + ([] if kind is Path else [("file/", errno.ENOTDIR), ("new/", errno.EISDIR)]):
        path = kind(f"{tmp_path}/{name}")
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            write(path)
        assert type(caught.value) is type(OSError(number, ""))
        assert (caught.value.errno, caught.value.filename) == (number, os.fspath(path))
        assert caught.value.filename2 is None
        assert "fastcnn-" not in str(caught.value)
        assert sorted(os.listdir(tmp_path)) == before
        assert not os.listdir(tmp_path / "folder")


@each_writer
def test_what_is_no_name_is_refused(
    write: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        write("")
    assert caught.value.filename == ""
    for path in ("a\0b", b"a\0b", "\ud800"):
        with pytest.raises(ValueError, match=r"path must be a name that a file can have, got '"):
            write(path)
    for other in (None, 3, ["file"]):
        with pytest.raises(TypeError, match="path must be a path, got "):
            write(other)
    assert not os.listdir(tmp_path)


@POSIX
@each_writer
def test_only_files_are_replaced(write: Callable[[Any], None], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as listener, terminal() as device:
        with working_in(tmp_path):  # the path of a socket is short
            listener.bind("socket")
        for path, kind in [
            (tmp_path / "fifo", "a FIFO"),
            (tmp_path / "link", "a FIFO"),
            (tmp_path / "socket", "a socket"),
            (device, "a character device"),
        ]:
            before = os.lstat(path)
            with pytest.raises(OSError, match=f"only a file can be replaced, and this is {kind}"):
                write(path)
            assert os.path.samestat(os.lstat(path), before)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "link", "socket"]


@contextmanager
def terminal() -> Any:
    """A character device, in a folder where the system lets nobody make files."""
    first, second = os.openpty()
    try:
        yield Path(os.ttyname(second))
    finally:
        os.close(first)
        os.close(second)


@contextmanager
def working_in(folder: Path) -> Any:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


NAMES = ("m", "n" * 255, "é" * 127, " ", "-", "~", "a\nb", "%s{}", ".hidden", "x.tmp")


@POSIX
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_name_of_the_system_is_taken(kind: Callable[[str], Any], tmp_path: Path) -> None:
    model = Sequential([Dense(2)], (3,), seed=0)
    unreadable = () if sys.platform == "darwin" else (os.fsdecode(b"\xff\xfe" + b"\x80" * 253),)
    for name in (*NAMES, *unreadable):
        path: FilePath = kind(f"{tmp_path}/{name}")
        for _ in range(2):  # a new file, and one that is replaced
            model.save(path)
        assert (load_model(path).get_weights()[0] == model.get_weights()[0]).all()
        assert os.listdir(tmp_path) == [name]
        os.unlink(path)


def test_a_relative_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for path in ("file", "./file", "folder/../file", b"folder/file", Path("folder", "file")):
        write_whole(path, os.fsencode(path))
        assert Path(os.fsdecode(path)).read_bytes() == os.fsencode(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir("folder") == ["file"]


# --- links, owners, permissions -------------------------------------------------------------------


@POSIX
def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "one").symlink_to("../store/file")  # first there is no such file
    (tmp_path / "latest").symlink_to("links/one")
    (tmp_path / "short").symlink_to("links")
    for path in (tmp_path / "latest", tmp_path / "short" / "one"):
        write_whole(path, str(path).encode())
        assert (tmp_path / "store" / "file").read_bytes() == str(path).encode()
    assert os.readlink(tmp_path / "latest") == "links/one"
    assert os.readlink(tmp_path / "links" / "one") == "../store/file"
    assert sorted(os.listdir(tmp_path)) == ["latest", "links", "short", "store"]
    assert (os.listdir(tmp_path / "store"), os.listdir(tmp_path / "links")) == (["file"], ["one"])


@POSIX
def test_a_replaced_file_keeps_owner_group_and_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o664)
    if os.geteuid() == 0:  # nobody else may give files away
        os.chown(path, 12345, 23456)
    before = path.stat()
    write_whole(path, b"new")
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid, before.st_gid, before.st_mode,
    )  # fmt: skip
    assert path.read_bytes() == b"new"


@POSIX
def test_what_may_not_be_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.chdir(tmp_path)  # whose parents others may not enter
    Path("file").write_bytes(b"old")
    Path("file").chmod(0o444)
    Path("closed").mkdir(mode=0o555)
    root = os.geteuid() == 0
    if root:  # who may write everywhere
        os.seteuid(65534)
    try:
        for path in ("file", "closed/file"):
            for write in (check_writable, lambda path: write_whole(path, b"new")):
                with pytest.raises(PermissionError) as caught:
                    write(path)
                assert caught.value.filename == path
    finally:
        if root:
            os.seteuid(0)
    assert Path("file").read_bytes() == b"old"
    assert sorted(os.listdir()) == ["closed", "file"]


# --- full disks and interrupts --------------------------------------------------------------------

LIMITED = """
import errno, os, resource, sys
from fastcnn.core.files import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for path in ("old", "new"):
    for durable in (True, False):
        try:
            write_whole(path, bytes(1_000_000), durable=durable)
        except OSError as error:
            assert (error.errno, error.filename) == (errno.EFBIG, path), error
        else:
            sys.exit("it was written")
"""


@POSIX
def test_a_file_that_finds_no_room_leaves_the_earlier_one_alone(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    python("-c", f"import os; os.chdir({str(tmp_path)!r}){LIMITED}")
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize("earlier", [True, False])
def test_an_interrupt_at_any_line_leaves_one_whole_file(earlier: bool, tmp_path: Path) -> None:
    """``KeyboardInterrupt`` before the first line that runs, the second, and so on."""
    path = tmp_path / "file"
    outcomes = set()
    for last in range(500):
        if earlier:
            path.write_bytes(b"old")
            path.chmod(0o640)
        else:
            path.unlink(missing_ok=True)
        lines = 0

        def trace(frame: Any, event: str, argument: object) -> Any:
            nonlocal lines
            if frame.f_code.co_filename != write_whole.__code__.co_filename:
                return None
            if event == "line":
                lines += 1
                if lines == last + 1:  # noqa: B023  (it is called in this turn alone)
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            write_whole(path, b"new")
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(before)
        assert os.listdir(tmp_path) in (["file"], [] if not earlier else ["file"])
        outcomes.add(path.read_bytes() if path.exists() else None)
        if not interrupted:
            break
    assert last > 30
    assert not interrupted
    assert outcomes == {b"old" if earlier else None, b"new"}


def test_a_path_is_checked_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bytes:
        raise AssertionError("the model was put into bytes")

    monkeypatch.setattr("safetensors.numpy.save", never)
    model = Sequential([Dense(2)], (3,), seed=0)
    for path, error in (("", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error):
            model.save(path)
