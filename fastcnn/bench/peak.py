"""This machine's peaks: multiply-adds and memory copies, on one thread and on all threads.

Every other figure of the benchmarks is a share of these. Numba compiles the multiply-adds of
:mod:`fastcnn.bench.multiply_add` for this processor. ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES``
change the code of the probe together with that of the kernels.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcnn.bench.pages import at_page
from fastcnn.core.settings import get_num_threads

NUMBERS = 1024  # 4 KiB or 8 KiB, well within the first-level cache
SWEEPS = 26_000  # about 3 ms, so that the launch of threads does not count and few are disturbed
COPY_BYTES = 128 << 20  # of each array, far beyond the last-level cache
ROUNDS = 160
TRIES = 8  # of 12 ms, of threads together
FREE = 0.85  # least speed of threads together, see together, if no other program uses a core
TURNS = 8


@dataclass(frozen=True)
class Peak:
    """GFLOP/s by dtype name and number of threads, and GB/s of a copy by number of threads.

    A multiply-add counts as 2 operations. A copied byte counts as 2, one read and one written.
    """

    flops: dict[str, dict[int, float]]
    copy: dict[int, float]

    def share(self, gflops: float, threads: int, dtype: str = "float32") -> float:
        """``gflops`` as a share of the peak."""
        return gflops / self.flops[dtype][threads]


def measure(threads: Sequence[int] | None = None, rounds: int = ROUNDS) -> Peak:
    """The best of ``rounds`` for each number of threads; None means 1 and fastcnn's limit.

    The measurements take turns, so that a burst of other work does not affect only one of them.
    """
    counts = sorted({1, get_num_threads()}) if threads is None else list(threads)
    flops = {name: dict.fromkeys(counts, 0.0) for name in ("float32", "float64")}
    copy = dict.fromkeys(counts, 0.0)
    source = at_page(np.ones(COPY_BYTES // 4, np.float32))
    target = at_page(source)
    for _ in range(TURNS):
        for n in counts:
            for name, best in flops.items():
                best[n] = max(best[n], _flops(np.dtype(name), n, -(-rounds // TURNS)))
            copy[n] = max(copy[n], _copy(source, target, n, -(-rounds // TURNS // 4)))
    return Peak(flops, copy)


def together(threads: int) -> float:
    """The speed of threads together now, as a share of the sum of their single speeds.

    It is far below 1 if another program uses one of the cores. The best of some tries counts,
    because the system takes up to 60 ms to place a new thread on a free core.
    """
    dtype = np.dtype("float32")
    one, best = max(_flops(dtype, 1, 1) for _ in range(2)), 0.0
    for _ in range(TRIES):
        best = max(best, _flops(dtype, threads, 4) / (threads * one))
        if best >= FREE:
            break
    return best


def wait_until_free(threads: int, seconds: float) -> bool:
    """Wait until the cores are free, for at most so long. Returns whether they are."""
    end = time.perf_counter() + seconds
    while threads > 1 and together(threads) < FREE:
        if time.perf_counter() >= end:
            return False
        time.sleep(0.2)
    return True


def best(peaks: Sequence[Peak]) -> Peak:
    """The best of several measurements of the same numbers of threads."""
    first = peaks[0]
    return Peak(
        {
            dtype: {n: max(p.flops[dtype][n] for p in peaks) for n in by_threads}
            for dtype, by_threads in first.flops.items()
        },
        {n: max(p.copy[n] for p in peaks) for n in first.copy},
    )


def probe() -> Callable[[], None]:
    """A short call, of about 30 µs, that computes multiply-adds on the calling thread."""
    from fastcnn.bench.multiply_add import multiply_add

    x, a, b = at_page(np.full(NUMBERS, 2, np.float32)), np.float32(0.875), np.float32(0.125)
    return lambda: multiply_add(x, a, b, 100)


def copy_probe(copied_bytes: int) -> Callable[[], None]:
    """A call that reads and writes ``copied_bytes`` bytes in all, on the calling thread."""
    source = at_page(np.ones(max(1, copied_bytes // 8), np.float32))
    target = at_page(source)
    return lambda: np.copyto(target, source)


def _flops(dtype: np.dtype[np.generic], threads: int, rounds: int) -> float:
    from fastcnn.bench.multiply_add import CHAIN, multiply_add

    # The chain converges to b / (1 - a) = 1, without overflow and without denormal numbers.
    a, b = dtype.type(0.875), dtype.type(0.125)
    arrays = [at_page(np.full(NUMBERS, 2, dtype)) for _ in range(threads)]
    multiply_add(arrays[0], a, b, 1)
    seconds = _seconds(lambda i: multiply_add(arrays[i], a, b, SWEEPS), threads, rounds)
    for x in arrays:
        np.testing.assert_allclose(x, 1, rtol=1e-5)
    return 2 * CHAIN * NUMBERS * SWEEPS * threads / seconds / 1e9


def _copy(source: Any, target: Any, threads: int, rounds: int) -> float:
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    seconds = _seconds(lambda i: np.copyto(parts[i][1], parts[i][0]), threads, rounds)
    return 2 * COPY_BYTES / seconds / 1e9


def _seconds(job: Callable[[int], None], threads: int, rounds: int) -> float:
    """The least time from the first start to the last end of ``job(0)``, ``job(1)``, …"""
    barrier = threading.Barrier(threads)
    spans: list[list[tuple[float, float]]] = [[] for _ in range(threads)]

    def run(i: int) -> None:
        for _ in range(rounds):
            barrier.wait()
            start = time.perf_counter()
            job(i)
            spans[i].append((start, time.perf_counter()))

    workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return min(
        float(max(end for _, end in together) - min(start for start, _ in together))
        for together in zip(*spans, strict=True)
    )
