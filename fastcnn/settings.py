"""What can be set for the whole process: how many threads the compiled kernels use."""

from __future__ import annotations

import os
from math import ceil

MOST = 256  # threads; more would only be a mistake


def processors(cgroups: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> int:
    """How many processors this process may use: its affinity, and its container's share of time.

    Args:
        cgroups: the folder in which the system shows its control groups.
        own: the file that names those of this process.

    >>> processors() >= 1
    True
    """
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # no affinity on this system
        usable = os.cpu_count() or 1
    return max(1, min(usable, *map(ceil, _quotas(cgroups, own)), MOST))


def _quotas(cgroups: str, own: str) -> list[float]:
    """The shares of time that control groups allow, in processors: its own and those above it."""
    found: list[float] = []
    for line in _text(own).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        names = [name for name in path.split("/") if name]
        for depth in range(len(names) + 1):
            folder = "/".join(filter(None, [cgroups, controllers, *names[:depth]]))
            if controllers:  # version 1
                words = [_text(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period")]
            else:
                words = _text(f"{folder}/cpu.max").split()
            if len(words) == 2 and all(word.strip().isdigit() for word in words):
                quota, period = map(int, words)
                found += [quota / period] if period else []
    return found


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _from_environment() -> int:
    text = os.environ.get("FASTCNN_NUM_THREADS")
    if text is None:
        return processors()
    if not text.strip().isdigit() or int(text) < 1:
        raise ValueError(f"FASTCNN_NUM_THREADS must be an integer of at least 1, got {text!r}")
    return min(int(text), MOST)


_threads = _from_environment()


def set_num_threads(n: int) -> None:
    """Let the compiled kernels use at most ``n`` threads; results do not depend on it.

    The calling thread counts as one of them.

    The default is ``FASTCNN_NUM_THREADS``, else the number of processors that this process may
    use: those of its affinity, and no more than its container's share of time is worth.

    Raises:
        TypeError, ValueError: ``n`` is no integer from 1 to 256.

    Example:
        >>> import fastcnn
        >>> before = fastcnn.get_num_threads()
        >>> fastcnn.set_num_threads(1)
        >>> fastcnn.get_num_threads()
        1
        >>> fastcnn.set_num_threads(before)
    """
    global _threads
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"n must be an int, got {n!r}")
    if not 1 <= n <= MOST:
        raise ValueError(f"n must be from 1 to {MOST} threads, got {n}")
    _threads = int(n)


def get_num_threads() -> int:
    """How many threads kernels may use, the calling one included.

    >>> get_num_threads() >= 1
    True
    """
    return _threads
