"""Picture files into arrays, by several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.settings import can_start_threads
from fastcnn.core.terminal import display
from fastcnn.data.pictures import PictureError, picture

_TASK = 16  # files that a thread reads before it reports


class SystemPictureError(PictureError):
    """A picture that the system does not give, for a reason that may pass."""


def read_picture(file: str, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """A picture file as an image (H, W, C); ``PictureError`` if it cannot be read."""
    try:
        return picture(file, size, channels).reshape(*size, channels)
    except OSError as error:
        raise SystemPictureError(f"{file} cannot be read: {error.strerror or error}") from None


class Reading:
    """Files that are read into arrays.

    Args:
        files: their paths.
        size: (H, W) of the images.
        channels: 1 or 3.
        workers: number of threads.
        raises: whether the first broken file raises its ``PictureError``.

    Attributes:
        errors: the text of each broken file's error, by the number of the file.
        of_system: the numbers of files that the system does not give.
    """

    def __init__(
        self,
        files: Sequence[str],
        size: tuple[int, int],
        channels: int,
        workers: int,
        raises: bool,
    ) -> None:
        self.files, self.workers = files, workers
        self.size, self.channels = size, channels
        self._raises = raises
        self.errors = dict[int, str]()
        self.of_system = set[int]()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return (*self.size, self.channels)

    def read(
        self,
        numbers: Sequence[int],
        images: NDArray[np.uint8] | None,
        advance: Callable[[], object],
    ) -> None:
        """Read the files of these numbers into the rows of ``images`` (n, H, W, C), if given.

        A broken file leaves its row as it is. ``advance`` is called after each file.
        """

        def read(row: int) -> None:
            number = numbers[row]
            try:
                pixels = read_picture(self.files[number], self.size, self.channels)
            except PictureError as error:
                self.broken(number, str(error))
                if isinstance(error, SystemPictureError):
                    self.of_system.add(number)
                return
            if images is not None:
                images[row] = pixels

        for _ in in_threads(read, range(len(numbers)), self.workers):
            advance()

    def broken(self, number: int, error: str) -> None:
        """Note the error of a file, or raise it."""
        if self._raises:
            raise PictureError(error)
        self.errors[number] = error


@contextmanager
def progress_bar(total: int, progress: bool) -> Iterator[Callable[[], None]]:
    """A bar over so many files on a terminal; within the context a function that advances it."""
    if not progress:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("reading images"), BarColumn(bar_width=24), MofNCompleteColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    with display(bar):
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def in_threads(call: Callable[[int], None], numbers: range, workers: int) -> Iterator[int]:
    """Call a function with each number, in threads; the numbers in order, when they are done."""
    if workers == 1 or len(numbers) <= 1 or not can_start_threads():
        for number in numbers:
            call(number)
            yield number
        return

    def some(first: int) -> None:
        for number in numbers[first : first + each]:
            call(number)

    each = max(1, min(_TASK, len(numbers) // workers))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fastcnn-images")
    try:
        firsts = range(0, len(numbers), each)
        for first, _ in zip(firsts, pool.map(some, firsts), strict=True):
            yield from numbers[first : first + each]
    finally:
        pool.shutdown(cancel_futures=True)
