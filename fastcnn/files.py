"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, or replace one, at once; an error leaves the earlier file as it was.

    It is written beside its place, forced to the disk, and then renamed: whoever looks finds the
    old one or the new one, whole. Raises ``OSError`` where it cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/greeting", b"hello")
    ...     os.listdir(folder), Path(folder, "greeting").read_bytes()
    (['greeting'], b'hello')
    """
    place = Path(os.path.realpath(path))
    mode = _mode(place)
    name = place.with_name(f".{place.name}.{token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    # The system applies the umask here: to ask for it would mean to change it, for all threads.
    handle = os.open(name, flags, 0o666 if mode is None else mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(name, mode)
        os.replace(name, place)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    _settle(place.parent)


def _mode(place: Path) -> int | None:
    """The earlier file's permissions."""
    try:
        return place.stat().st_mode & 0o777
    except OSError:
        return None


def _settle(folder: Path) -> None:
    """Force the renaming to the disk, where the system has a way to."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
