"""Files are written whole or not at all, with the permissions that they should have."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fastcnn.files import write_whole

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
