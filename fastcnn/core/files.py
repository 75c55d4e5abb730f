"""Files that are written whole or not at all.

:func:`write_whole` writes every file of the package. It makes these promises:

- **Replaced at once.** The new contents go to a temporary file in the same folder, are forced to
  the disk, and take the name. After an error, an interrupt or a full disk the earlier file is as it
  was, and no temporary file remains. A killed process leaves at most one ``.fastcnn-*.tmp``.
- **Links.** A symbolic link stays a link, and its target is replaced. Other hard links of a
  replaced file keep the earlier contents.
- **Permissions, owner and group.** A replaced file keeps its permissions. It keeps its owner and
  group if the system lets this process set them. A new file gets its permissions from the umask. A
  file that this process may not write to is not replaced, even if its folder allows it.
- **Regular files only.** A device, a FIFO, a socket or a folder is refused.
- **Names.** Any name that the system takes, up to 255 bytes, as text, bytes or a path object.
- **Errors** name the caller's path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from secrets import token_hex
from typing import TypeAlias

from fastcnn.core.quoting import quoted

FilePath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

_MOST_LINKS = 40  # as Linux follows


def write_whole(
    path: FilePath,
    data: bytes | Iterable[bytes | memoryview],
    check: Callable[[str], object] | None = None,
    *,
    durable: bool = True,
) -> None:
    """Write a file, or replace one, at once; an error leaves the earlier file as it was.

    Args:
        path: the file.
        data: its contents, or parts of them, which are written one after the other.
        check: is called with the temporary file's name before the file is replaced. If it raises an
            error, the earlier file stays as it was.
        durable: whether the contents are forced to the disk before they take the name. Then a loss
            of power leaves the earlier or the new file; otherwise it may leave an empty one.

    Raises:
        OSError: the file cannot be written; ``filename`` is ``path``.
        TypeError, ValueError: ``path`` is no path, or a name that no file can have.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/greeting", b"hello")
    ...     os.listdir(folder), Path(folder, "greeting").read_bytes()
    (['greeting'], b'hello')
    """
    try:
        place, earlier = _place(checked_path(path))
        _write(place, earlier, data, check, durable)
    except OSError as error:
        raise _about(path, error) from None
    if durable:
        _settle(os.path.dirname(place) or os.curdir)


def check_writable(path: FilePath) -> None:
    """Raise the error of :func:`write_whole` for ``path``, if it can be known before writing.

    For use before long work whose result goes to ``path``.

    >>> check_writable("no/such/folder/model.safetensors")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'no/such/folder/model.safetensors'
    """
    try:
        place, _ = _place(checked_path(path))
        folder = os.path.dirname(place) or os.curdir
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise _error(errno.ENOTDIR)
        if not _allowed(folder, os.W_OK | os.X_OK):
            raise _error(errno.EACCES)
    except OSError as error:
        raise _about(path, error) from None


def checked_path(path: FilePath) -> str:
    """The text of a path.

    Raises:
        TypeError, ValueError: ``path`` is no path, or a name that no file can have.

    >>> checked_path(b"folder/model.safetensors")
    'folder/model.safetensors'
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"path must be a path, got {type(path).__name__}")
    text = os.fsdecode(path)
    try:
        nameless = b"\0" in os.fsencode(text)
    except UnicodeEncodeError:
        nameless = True
    if nameless:
        raise ValueError(f"path must be a name that a file can have, got {quoted(text)}")
    return text


def _place(path: str) -> tuple[str, os.stat_result | None]:
    """The path behind all links, and the status of the file there, or None if there is none.

    Raises ``OSError`` if the path holds anything that may not be replaced.
    """
    place = path
    for _ in range(_MOST_LINKS):
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            if path and not os.path.basename(place):
                raise _error(errno.EISDIR) from None  # "name/" is the name of a folder
            if not path:
                raise
            return place, None
        if not stat.S_ISLNK(status.st_mode):
            break
        place = os.path.join(os.path.dirname(place), os.readlink(place))
    else:
        raise _error(errno.ELOOP)
    if stat.S_ISDIR(status.st_mode):
        raise _error(errno.EISDIR)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"only a file can be replaced, and this is {_kind(status)}")
    if not _allowed(place, os.W_OK):
        raise _error(errno.EACCES)
    return place, status


def _allowed(place: str, access: int) -> bool:
    # The file is not opened, because closing it would release this process's locks on it.
    return os.access(place, access, effective_ids=os.access in os.supports_effective_ids)


def _write(
    place: str,
    earlier: os.stat_result | None,
    data: bytes | Iterable[bytes | memoryview],
    check: Callable[[str], object] | None,
    durable: bool,
) -> None:
    mode = None if earlier is None else stat.S_IMODE(earlier.st_mode) & 0o777
    # A short name, because the file's own name may already have the largest length.
    temporary = os.path.join(os.path.dirname(place), f".fastcnn-{token_hex(8)}.tmp")

    def opener(name: str, flags: int) -> int:
        # The system applies the umask. A program can read the umask only by changing it, and the
        # change would affect all threads.
        return os.open(name, flags, 0o666 if mode is None else mode & 0o600)

    try:
        with open(temporary, "xb", opener=opener) as file:
            for part in [data] if isinstance(data, bytes) else data:
                file.write(part)
            file.flush()
            if earlier is not None:
                _give(temporary, file.fileno(), earlier)
            if durable:
                os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, place)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _give(temporary: str, handle: int, earlier: os.stat_result) -> None:
    """Give a new file the group, permissions and owner of the earlier one.

    Errors about group and owner are ignored. The owner is set last, because only a file's owner may
    change its permissions.
    """
    now, mode = os.fstat(handle), stat.S_IMODE(earlier.st_mode) & 0o777
    if now.st_gid != earlier.st_gid:
        with suppress(OSError):
            os.fchown(handle, -1, earlier.st_gid)
    if stat.S_IMODE(now.st_mode) != mode:
        os.chmod(temporary, mode)
    if now.st_uid != earlier.st_uid:
        with suppress(OSError):
            os.fchown(handle, earlier.st_uid, -1)


def _settle(folder: str) -> None:
    """Force the renaming to the disk, if the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _kind(status: os.stat_result) -> str:
    kinds = {
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(status.st_mode), "of another kind")


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _about(path: FilePath, error: OSError) -> OSError:
    """The same error with ``path`` in place of the temporary file's name."""
    if error.errno is None:
        return error
    return OSError(error.errno, error.strerror, os.fspath(path))
