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

from fastcnn.core.arguments import Array
from fastcnn.core.settings import can_start_threads
from fastcnn.data.image_sets import LazyImages
from fastcnn.data.several import Data

Part = slice | Array


def parts_ahead(
    images: LazyImages,
    parts: Sequence[Part],
    convert: Callable[[Array, int], Array] = lambda images, number: images,
) -> Iterator[Array]:
    """Parts of the images in order, while threads read and convert those that follow.

    Args:
        images: each thread reads a part alone, so that ``images.workers`` parts are under way.
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

    def read(number: int) -> Array:
        return convert(images.read(parts[number]), number)

    pool = ThreadPoolExecutor(images.workers, "fastcnn-images", give_way)
    waiting = deque[Future[Array]]()
    try:
        for number in range(len(parts)):
            waiting.append(pool.submit(read, number))
            if len(waiting) > images.workers + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def give_way() -> None:
    """Let other threads of the machine go before this one, where the system knows how.

    A training shares each step among its threads, so a thread that waits for a core holds up all.
    """
    if sys.platform == "linux":  # elsewhere a priority is that of the whole process
        with suppress(OSError):
            thread = get_native_id()
            own = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, max(own, 10))


def in_parts(data: Data, size: int) -> Iterator[tuple[slice, Any]]:
    """Slices of so many samples, with the samples."""
    slices = [slice(first, first + size) for first in range(0, len(data), size)]
    if isinstance(data, LazyImages):
        yield from zip(slices, parts_ahead(data, slices), strict=True)
        return
    for some in slices:
        yield some, data[some]
