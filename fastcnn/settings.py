"""What can be set for the whole process: how many threads the compiled kernels use."""

from __future__ import annotations

import os

MOST = 256  # threads; more would only be a mistake


def _from_environment() -> int:
    text = os.environ.get("FASTCNN_NUM_THREADS")
    if text is None:
        try:
            return len(os.sched_getaffinity(0))
        except AttributeError:  # no affinity on this system
            return os.cpu_count() or 1
    if not text.strip().isdigit() or int(text) < 1:
        raise ValueError(f"FASTCNN_NUM_THREADS must be an integer of at least 1, got {text!r}")
    return min(int(text), MOST)


_threads = _from_environment()


def set_num_threads(n: int) -> None:
    """Let the compiled kernels use at most ``n`` threads; results do not depend on it.

    The calling thread counts as one of them.

    The default is ``FASTCNN_NUM_THREADS``, else the number of processors this process may use.

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
