"""Parts of samples, one after the other; images in files are read ahead by threads."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import get_native_id
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.settings import can_start_threads
from fastcnn.data.image_sets import LazyImages
from fastcnn.data.several import Data

Part = slice | Array
_TASK = 4 << 20  # bytes that a thread reads from a cache before it reports


def parts_ahead(
    images: LazyImages,
    parts: Sequence[Part],
    convert: Callable[[Array, int], Array] = lambda images, number: images,
) -> Iterator[Array]:
    """Parts of the images in order, while threads read and convert those that follow.

    Args:
        images: ``images.workers`` threads read. A task of a thread is one part, or several small
            ones if a cache holds the images, because reading them takes less time than a task.
        parts: slices or indices.
        convert: is called in the threads with the images of a part, and its number.

    Errors of a part are raised where its images would be given. When the iterator ends or is
    closed, its threads have ended too.

    >>> list(parts_ahead(LazyImages.of_files([], (2, 3), 1, 2), []))
    []
    """
    if not can_start_threads():
        for number, part in enumerate(parts):
            yield convert(images.read(part), number)
        return

    def read(numbers: range) -> tuple[list[Array], Exception | None]:
        results = list[Array]()
        try:
            batches = _read(images, [parts[number] for number in numbers])
            for number, part in zip(numbers, batches, strict=True):
                results.append(convert(part, number))
        except Exception as error:  # the parts before it are used first
            return results, error
        return results, None

    def results_of(task: Future[tuple[list[Array], Exception | None]]) -> Iterator[Array]:
        results, error = task.result()
        yield from results
        if error is not None:
            raise error

    pool = ThreadPoolExecutor(images.workers, "fastcnn-images", give_way)
    waiting = deque[Future[tuple[list[Array], Exception | None]]]()
    each = _parts_of_task(images, parts)
    try:
        for first in range(0, len(parts), each):
            waiting.append(pool.submit(read, range(first, min(first + each, len(parts)))))
            if len(waiting) > images.workers + 1:
                yield from results_of(waiting.popleft())
        while waiting:
            yield from results_of(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _read(images: LazyImages, parts: list[Part]) -> list[Array]:
    """The images of each part, in one reading."""
    if len(parts) == 1:
        return [images.read(parts[0])]
    rows = [
        np.arange(*part.indices(len(images))) if isinstance(part, slice) else part for part in parts
    ]
    return np.split(images.read(np.concatenate(rows)), np.cumsum([len(one) for one in rows])[:-1])


def _parts_of_task(images: LazyImages, parts: Sequence[Part]) -> int:
    """How many parts a thread reads before it reports."""
    if not images.has_cache or not parts:
        return 1
    first = parts[0]
    samples = len(range(len(images))[first]) if isinstance(first, slice) else len(first)
    return max(1, _TASK // max(1, samples * images.nbytes // len(images)))


def give_way() -> None:
    """Let other threads of the machine go before this one, where the system knows how.

    A training shares each step among its threads, so a thread that waits for a core holds up all.
    """
    if sys.platform == "linux":  # elsewhere a priority is that of the whole process
        with suppress(OSError):
            thread = get_native_id()
            priority = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, max(priority, 10))


def in_parts(data: Data, size: int) -> Iterator[tuple[slice, Any]]:
    """Slices of so many samples, with the samples."""
    slices = [slice(first, first + size) for first in range(0, len(data), size)]
    if isinstance(data, LazyImages):
        yield from zip(slices, parts_ahead(data, slices), strict=True)
        return
    for some in slices:
        yield some, data[some]
