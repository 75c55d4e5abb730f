"""Opening of users' files for reading: only regular files are opened.

A FIFO waits for a writer, a terminal for a line, and ``/dev/zero`` never ends. Therefore the kind
of a file is checked before it is opened, and once more afterwards, because another file may have
taken the name in between. All of fastcnn opens users' files here: pictures, models, checkpoints,
data sets, reports, logs.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

_KINDS = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
# If a FIFO replaces a file between the two checks, it is opened without waiting.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_FLAGS |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)


def regular(path: str | os.PathLike[str]) -> str:
    """The path, if it names a regular file, or a link to one.

    Raises:
        FileNotFoundError: the path names nothing.
        IsADirectoryError: the path names a folder.
        OSError: the path names a FIFO, a socket or a device, or its kind cannot be read.
    """
    name = os.fspath(path)
    _refuse(name, os.stat(name).st_mode)
    return name


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """A regular file, open for reading bytes; the errors are those of :func:`regular`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with open(f"{folder}/file", "wb") as file:
    ...         _ = file.write(b"hello")
    ...     with open_regular(f"{folder}/file") as file:
    ...         file.read()
    b'hello'
    """
    name = regular(path)
    handle = os.open(name, _FLAGS)
    try:
        _refuse(name, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a regular file in UTF-8; the errors of :func:`regular`, and ``UnicodeError``."""
    with open_regular(path) as file:
        return file.read().decode("utf-8")


def _refuse(name: str, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    kind = _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")
    raise OSError(errno.EINVAL, f"must be a regular file, but is {kind}", name)
