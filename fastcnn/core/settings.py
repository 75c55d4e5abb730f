"""Settings of the whole process: the number of the kernels' threads, and their mathematics.

**Fast or strict.** With "strict", only algorithms with the rounding of a direct sum are used. With
"fast", the default, float32 convolutions may use Winograd's filtering if it is faster. On 3×3
filters it is two to three times as fast. On 512 channels its error is about 1e-5 of the largest
output instead of 1e-6. Nets do not notice such an error, and half precision has a far larger one of
1e-3, so speed is worth more to most users. float64 is the same under both settings. On small
integers, strict gives the same bits as a direct sum. Both settings give the same bits for any
number of threads, any batch size and any position in the batch, and both treat NaN and infinity as
the specification does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from math import ceil
from threading import Thread, main_thread
from typing import Any, NamedTuple

from fastcnn.core import hardware
from fastcnn.core.quoting import quoted

MOST = 256  # threads; a larger number must be a mistake
MATHS = ("fast", "strict")


class ThreadLimit(NamedTuple):
    """The number of threads that the kernels may use, and the name of the limit that decided it."""

    threads: int
    decided_by: str


def processors(cgroups: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> int:
    """How many processors this process may use: its affinity, and its container's share of time.

    Args:
        cgroups, own: as for :func:`fastcnn.core.hardware.quotas`.

    >>> processors() >= 1
    True
    """
    return thread_limit({}, cgroups, own).threads


def thread_limit(
    environment: Mapping[str, str],
    cgroups: str = "/sys/fs/cgroup",
    own: str = "/proc/self/cgroup",
) -> ThreadLimit:
    """The number of threads that the machine and the environment variables allow.

    ``FASTCNN_NUM_THREADS`` decides if it is set, even if it is larger than the number of
    processors. Otherwise the smallest of these limits decides, and the first of equal ones: the
    processors of this process's affinity, its control group's share of time,
    ``NUMBA_NUM_THREADS`` and ``OMP_NUM_THREADS``. Values of the last two that are not positive
    integers are ignored, because these variables belong to other libraries. In a list such as
    "4,2" the first number counts. The result is at most 256.

    Args:
        environment: the environment variables, as ``os.environ``.
        cgroups, own: as for :func:`fastcnn.core.hardware.quotas`.

    Raises:
        ValueError: ``FASTCNN_NUM_THREADS`` is not an integer of at least 1.

    >>> thread_limit({"FASTCNN_NUM_THREADS": "3", "OMP_NUM_THREADS": "1"})
    ThreadLimit(threads=3, decided_by='FASTCNN_NUM_THREADS')
    """
    text = environment.get("FASTCNN_NUM_THREADS")
    if text is not None:
        number = _positive(text)
        if number is None:
            raise ValueError(
                f"FASTCNN_NUM_THREADS must be an integer of at least 1, got {quoted(text)}"
            )
        return ThreadLimit(min(number, MOST), "FASTCNN_NUM_THREADS")
    limits = [_processors_limit()]
    quotas = hardware.quotas(cgroups, own)
    limits += [ThreadLimit(max(1, ceil(quota)), "control group") for quota in quotas]
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        # Only OMP_NUM_THREADS may be a list.
        text = environment.get(name, "")
        number = _positive(text.split(",")[0] if name == "OMP_NUM_THREADS" else text)
        if number is not None:
            limits.append(ThreadLimit(number, name))
    smallest = min(limits, key=lambda limit: limit.threads)
    return smallest._replace(threads=min(smallest.threads, MOST))


def _processors_limit() -> ThreadLimit:
    """The limit that the machine's processors and this process's affinity set."""
    usable, every = hardware.affinity(), hardware.cores()
    return ThreadLimit(usable, "affinity" if usable < every else "processors")


def _positive(text: str) -> int | None:
    """The positive integer in ``text``, or None if ``text`` is anything else."""
    if not text.strip().isdecimal():
        return None
    try:
        number = int(text)
    except ValueError:  # Python does not convert so many digits
        return None
    return number if number >= 1 else None


_limit = thread_limit(os.environ)


def set_num_threads(n: int) -> None:
    """Let the compiled kernels use at most ``n`` threads; results do not depend on it.

    The calling thread counts as one of them.

    The default is ``FASTCNN_NUM_THREADS``. Without it the default is the smallest of these: the
    number of processors in this process's affinity, its container's share of time,
    ``NUMBA_NUM_THREADS`` and ``OMP_NUM_THREADS``. joblib sets the last two in its worker
    processes, so the workers of a parallel search share the processors instead of competing for
    them. ``set_num_threads`` overrides all of these.

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
    global _limit
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"n must be an int, got {quoted(n)}")
    if not 1 <= n <= MOST:
        raise ValueError(f"n must be from 1 to {MOST} threads, got {n}")
    _limit = ThreadLimit(int(n), "set_num_threads")


def get_num_threads() -> int:
    """How many threads the kernels may use, including the calling thread.

    >>> get_num_threads() >= 1
    True
    """
    return _limit.threads


def current_thread_limit() -> ThreadLimit:
    """As :func:`get_num_threads`, together with the name of the limit that decided.

    >>> current_thread_limit().threads == get_num_threads()
    True
    """
    return _limit


def can_start_threads() -> bool:
    """Whether this process can start a thread now.

    It cannot in a browser (Pyodide), and not while Python ends.

    >>> can_start_threads()
    True
    """
    if sys.is_finalizing() or not main_thread().is_alive():
        return False
    thread = Thread(target=bool)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def checked_math(name: str, value: object) -> str:
    """``value`` if it is "fast" or "strict"; otherwise an error that names the argument.

    >>> checked_math("math", "fast")
    'fast'
    """
    if not isinstance(value, str):
        raise TypeError(f'{name} must be "fast" or "strict", got {quoted(value)}')
    if value not in MATHS:
        raise ValueError(f'{name} must be "fast" or "strict", got {quoted(value)}')
    return value


class Here(NamedTuple):
    """What holds in the current thread or asynchronous task alone; None where the process decides.

    Attributes:
        engine: the engine of calls without ``engine=``.
        math: "fast" or "strict".
        recorder: the list that takes explanations of calls, which then do not run.
    """

    engine: str | None = None
    math: str | None = None
    recorder: list[Any] | None = None


_NOTHING = Here()
here: ContextVar[Here] = ContextVar("fastcnn_here", default=_NOTHING)

remembered: list[Callable[[], None]] = []
"""Functions that forget what follows from choices of implementations and kernels."""


def forget_choices() -> None:
    """Call all functions of :data:`remembered`, after a change that choices depend on.

    The number of threads is no such change, because calls read it.
    """
    for forget in remembered:
        forget()


_math = checked_math("FASTCNN_MATH", os.environ.get("FASTCNN_MATH", "fast"))


def set_math(math: str) -> None:
    """Let ``algorithm="auto"`` choose among all algorithms ("fast") or the exact ones ("strict").

    The setting holds for the whole process. :mod:`fastcnn.core.settings` explains the two values.
    The default is the environment variable ``FASTCNN_MATH``, or "fast" if it is not set.

    Raises:
        TypeError, ValueError: ``math`` is neither of the two.

    Example:
        >>> import fastcnn
        >>> before = fastcnn.get_math()
        >>> fastcnn.set_math("strict")
        >>> fastcnn.get_math()
        'strict'
        >>> fastcnn.set_math(before)
    """
    global _math
    _math = checked_math("math", math)
    forget_choices()


def get_math() -> str:
    """The setting that holds for this call: "fast" or "strict".

    >>> get_math() in ("fast", "strict")
    True
    """
    return here.get().math or _math


@contextmanager
def use_math(math: str) -> Iterator[None]:
    """Set ``math`` as :func:`set_math` does, within this context and the current thread or task.

    >>> import fastcnn
    >>> with fastcnn.use_math("strict"):
    ...     fastcnn.get_math()
    'strict'
    """
    token = here.set(here.get()._replace(math=checked_math("math", math)))
    try:
        yield
    finally:
        here.reset(token)
