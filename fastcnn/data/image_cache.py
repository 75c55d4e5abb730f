"""A file of images that were read from pictures, so that later epochs and runs decode nothing.

The file holds the images, as bytes (N, H, W, C); then an index, in JSON, of the pictures that they
come from; then a trailer of fixed length with all sizes and a digest of the index. A reader opens
the file anew for each batch and compares the trailer. So it never reads images of other pictures,
and threads and processes share nothing.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from io import BufferedReader
from itertools import pairwise
from math import prod
from pathlib import Path
from time import time_ns
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.files import write_whole
from fastcnn.core.quoting import quoted
from fastcnn.core.reading import open_regular
from fastcnn.data.picture_reading import Reading
from fastcnn.data.pictures import PictureError

_TRAILER = struct.Struct("<8s5Q32s")
_MAGIC = b"fastcnn1"
_PREPARATION = 1
"""Counts the changes of how pictures become images; an older cache is then made anew."""
_BLOCK = 32 << 20  # bytes of images that are read before they are written
_ANEW = -1
_CLOCK = 2_000_000_000
"""Nanoseconds between two times that a file system tells apart; FAT has the coarsest clock."""
_ATTEMPTS = 3


class Entry(NamedTuple):
    """A picture in the index.

    Attributes:
        name: its path below the folder of the pictures.
        size, changed: its bytes, and when it was changed, in nanoseconds; ``_ANEW`` for a picture
            that the next call reads anew.
        error: why it cannot be read, or an empty text.
    """

    name: str
    size: int
    changed: int
    error: str = ""


class _ReplacedError(PictureError):
    """Another process has written the cache anew."""


class ImageCache:
    """The images of a cache file.

    Attributes:
        path: the file.
        shape: (N, H, W, C).
    """

    def __init__(self, path: Path, trailer: bytes) -> None:
        self.path, self._trailer = path, trailer
        _, n, h, w, c, length, _ = _TRAILER.unpack(trailer)
        self.shape: tuple[int, int, int, int] = n, h, w, c
        self._length: int = length
        self._image_bytes = prod(self.shape[1:])

    @classmethod
    def at(cls, path: Path) -> ImageCache | None:
        """The cache in a file; None where there is no file, or none that is whole."""
        try:
            with open_regular(path) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - _TRAILER.size, 0))
                trailer = file.read()
        except FileNotFoundError:
            return None
        if len(trailer) != _TRAILER.size or not trailer.startswith(_MAGIC):
            return None
        cache = cls(path, trailer)
        return cache if size == cache._file_size and cache._image_bytes else None

    @property
    def _file_size(self) -> int:
        return self.shape[0] * self._image_bytes + self._length + _TRAILER.size

    def _open(self) -> BufferedReader:
        """The file, if it still holds these images."""
        file = open_regular(self.path)
        size = file.seek(0, os.SEEK_END)
        if size == self._file_size:
            file.seek(size - _TRAILER.size)
            if file.read() == self._trailer:
                return file
        file.close()
        raise _ReplacedError(
            f"{self.path} has been replaced, because pictures changed; call load_images again"
        )

    def entries(self, settings: str) -> list[Entry]:
        """The index; empty where it is damaged, or was made with other settings."""
        with self._open() as file:
            file.seek(self.shape[0] * self._image_bytes)
            text = file.read(self._length)
        if sha256(text).digest() != _TRAILER.unpack(self._trailer)[-1]:
            return []
        try:
            index = json.loads(text)
            if index["settings"] != settings or len(index["pictures"]) != self.shape[0]:
                return []
            entries = [Entry(*entry) for entry in index["pictures"]]
        except (ValueError, TypeError, LookupError, RecursionError):
            return []
        has_right_types = all(
            isinstance(one.name, str)
            and isinstance(one.size, int)
            and isinstance(one.changed, int)
            and isinstance(one.error, str)
            for one in entries
        )
        return entries if has_right_types else []

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images of these rows.

        Raises:
            PictureError: another file has taken the place of the cache.
            OSError: the file cannot be read.
        """
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        if not len(rows):
            return images
        begins = np.flatnonzero(np.diff(rows) != 1) + 1
        firsts = np.array([0, *begins, len(rows)])
        places: list[int] = (rows[firsts[:-1]] * self._image_bytes).tolist()
        ends: list[int] = (firsts * self._image_bytes).tolist()
        flat = images.reshape(-1).data
        with self._open() as file:
            for place, (begin, end) in zip(places, pairwise(ends), strict=True):
                if not _fill(file.fileno(), flat[begin:end], place):
                    raise PictureError(f"{self.path} ends too early; delete it")
        return images


def _fill(file: int, part: memoryview, place: int) -> bool:
    """Read bytes from a place of a file into all of ``part``; False if the file ends before."""
    while part:
        number = _read_at(file, part, place)  # which may read some of many bytes
        if not number:
            return False
        part, place = part[number:], place + number
    return True


def _read_at(file: int, part: memoryview, place: int) -> int:
    """Read bytes without a buffer, because images lie apart; the number of bytes."""
    if hasattr(os, "preadv"):  # one call of the system; Windows has none
        return os.preadv(file, [part], place)
    os.lseek(file, place, os.SEEK_SET)
    data = os.read(file, len(part))
    part[: len(data)] = data
    return len(data)


def cached(
    reading: Reading, root: Path, folder: str | os.PathLike[str], advance: Callable[[], object]
) -> ImageCache:
    """The cache of these pictures, which is made, or made anew, where pictures changed.

    A picture that has the size and the time of the last cache is not read again, unless it changed
    just before it was read, when the time may stay the same. ``reading.errors`` gets the errors of
    broken files, which the cache remembers; their rows are zeros. Errors of the system, such as a
    missing permission, are not remembered.

    Args:
        reading: the files, and how they are read.
        root: the folder of all these files.
        folder: where caches are, which is made if there is none.
        advance: is called after each picture.

    Raises:
        OSError: the cache cannot be written, or the disk is too full for it.
        PictureError: a file is broken, and ``reading`` raises.
    """
    path = _place(folder, root, reading.shape)
    for _ in range(_ATTEMPTS - 1):
        with suppress(_ReplacedError):
            return _cached(reading, root, path, advance)
    return _cached(reading, root, path, advance)


def _cached(reading: Reading, root: Path, path: Path, advance: Callable[[], object]) -> ImageCache:
    """The cache in a file; ``_ReplacedError`` if another process replaces it meanwhile."""
    reading.errors.clear()
    reading.of_system.clear()
    settings = _settings()
    names = [os.path.relpath(file, root) for file in reading.files]
    entries = [_entry(file, name) for file, name in zip(reading.files, names, strict=True)]
    earlier = ImageCache.at(path)
    old: dict[Entry, tuple[int, str]] = {}
    if earlier is not None and earlier.shape[1:] == reading.shape:
        for row, entry in enumerate(earlier.entries(settings)):
            if entry.changed != _ANEW:
                old[entry._replace(error="")] = row, entry.error
    for number, entry in enumerate(entries):
        if entry in old and old[entry][1]:
            reading.broken(number, old[entry][1])
    rows = [old[entry][0] if entry in old else -1 for entry in entries]
    if earlier is not None and rows == list(range(earlier.shape[0])):
        return earlier
    _check_space(path, len(entries) * prod(reading.shape))
    blocks = _contents(reading, entries, rows, earlier, settings, advance)
    write_whole(path, blocks)
    result = ImageCache.at(path)
    if result is None or result.shape != (len(entries), *reading.shape):
        raise _ReplacedError(f"{path} was replaced while it was written; call load_images again")
    if [entry.name for entry in result.entries(settings)] != names:
        raise _ReplacedError(f"{path} was replaced while it was written; call load_images again")
    return result


def _settings() -> str:
    import PIL

    return f"preparation {_PREPARATION}, Pillow {PIL.__version__}"


def _place(folder: str | os.PathLike[str], root: Path, shape: tuple[int, int, int]) -> Path:
    """The file of a cache; pictures of another folder, and another size, have another file."""
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"cache must be the path of a folder, or None, got {quoted(folder)}")
    place = Path(folder)
    if not os.fspath(folder):
        raise ValueError("cache must be the path of a folder, got an empty text")
    if os.path.lexists(place) and not place.is_dir():
        kind = "a file" if place.exists() else "a link to nothing"
        raise ValueError(f"cache must be a folder, got {quoted(str(folder))}, which is {kind}")
    place.mkdir(parents=True, exist_ok=True)
    key = sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:12]
    height, width, channels = shape
    return place / f"{height}x{width}x{channels}-{key}.images"


def _entry(file: str, name: str) -> Entry:
    try:
        status = os.stat(file)
    except OSError:
        return Entry(name, 0, _ANEW)  # the error comes when the picture is read
    age = abs(time_ns() - status.st_mtime_ns)
    return Entry(name, status.st_size, _ANEW if age < _CLOCK else status.st_mtime_ns)


def _check_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OSError(
            errno.ENOSPC,
            f"the cache needs {size:,} bytes, and {free:,} are free",
            str(path.parent),
        )


def _contents(
    reading: Reading,
    wanted: Sequence[Entry],
    rows: Sequence[int],
    earlier: ImageCache | None,
    settings: str,
    advance: Callable[[], object],
) -> Iterator[bytes | memoryview]:
    """The parts of a new cache file.

    ``rows`` holds a row of the earlier cache for each picture, or -1 for one that it does not have.
    """
    each = max(1, _BLOCK // prod(reading.shape))
    for first in range(0, len(wanted), each):
        numbers = range(first, min(first + each, len(wanted)))
        images = np.zeros((len(numbers), *reading.shape), np.uint8)
        known = [number for number in numbers if rows[number] >= 0]
        if known and earlier is not None:
            copies = earlier.read(np.array([rows[number] for number in known]))
            images[np.array(known) - first] = copies
            for _ in known:
                advance()
        fresh = [number for number in numbers if rows[number] < 0]
        pixels = np.zeros((len(fresh), *reading.shape), np.uint8)
        reading.read(fresh, pixels, advance)
        if fresh:
            images[np.array(fresh) - first] = pixels
        yield images.reshape(-1).data
    pictures = [entry._replace(error=reading.errors.get(i, "")) for i, entry in enumerate(wanted)]
    for number in reading.of_system:
        pictures[number] = pictures[number]._replace(changed=_ANEW)
    text = json.dumps({"settings": settings, "pictures": pictures}).encode()
    yield text
    sizes = len(wanted), *reading.shape, len(text)
    yield _TRAILER.pack(_MAGIC, *sizes, sha256(text).digest())
