"""What this machine can do at most: multiply-adds and memory copies, on one and on all threads.

    python benchmarks/peak.py

Every other figure of the benchmarks is a share of these. The multiply-adds are a chain of 6 on
each number of a small array that stays in the first-level cache: LLVM turns the loop over the
array into vectors, whose chains overlap, so that the units never wait for a result. Shorter chains
wait for loads and stores; longer ones fill the processor's window with too few of them (with 16
AVX2 showed three quarters of its peak). The code is Numba's for this processor
(``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` change both together).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from rich.console import Console
from rich.table import Table

import fastcnn

CHAIN = 6
NUMBERS = 1024  # 4 KiB or 8 KiB: well within the first-level cache
SWEEPS = 26_000  # some 3 ms: launching threads vanishes beside it, and few rounds are disturbed
COPY_BYTES = 128 << 20  # per array: far beyond the last-level cache
ROUNDS = 160
TURNS = 8


@dataclass(frozen=True)
class Peak:
    """GFLOP/s by dtype name and number of threads, GB/s of a copy by number of threads.

    A multiply-add counts as 2 operations; a copied byte counts as 2, one read and one written.
    """

    flops: dict[str, dict[int, float]]
    copy: dict[int, float]

    def share(self, gflops: float, threads: int, dtype: str = "float32") -> float:
        """``gflops`` as a part of the peak, from 0 to 1."""
        return gflops / self.flops[dtype][threads]


def measure(threads: Sequence[int] | None = None, rounds: int = ROUNDS) -> Peak:
    """The best of ``rounds`` for each number of threads; None means 1 and all of fastcnn's.

    The measurements take turns, so that a burst of other work does not hit one of them alone.
    """
    counts = sorted({1, fastcnn.get_num_threads()}) if threads is None else list(threads)
    flops = {name: dict.fromkeys(counts, 0.0) for name in ("float32", "float64")}
    copy = dict.fromkeys(counts, 0.0)
    source = np.ones(COPY_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    for _ in range(TURNS):
        for n in counts:
            for name, best in flops.items():
                best[n] = max(best[n], _flops(np.dtype(name), n, -(-rounds // TURNS)))
            copy[n] = max(copy[n], _copy(source, target, n, -(-rounds // TURNS // 4)))
    return Peak(flops, copy)


# "contract" alone: it allows the fused multiply-add, and no algebra that would shorten the chain.
@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _multiply_add(x: Any, a: Any, b: Any, sweeps: int) -> None:
    for _ in range(sweeps):
        for i in range(x.size):
            value = x[i]
            for _ in range(CHAIN):
                value = value * a + b
            x[i] = value


def _flops(dtype: np.dtype[Any], threads: int, rounds: int) -> float:
    # The chain tends to b / (1 - a) = 1: no overflow, no denormal numbers.
    a, b = dtype.type(0.875), dtype.type(0.125)
    arrays = [np.full(NUMBERS, 2, dtype) for _ in range(threads)]
    _multiply_add(arrays[0], a, b, 1)
    seconds = _seconds(lambda i: _multiply_add(arrays[i], a, b, SWEEPS), threads, rounds)
    for x in arrays:
        np.testing.assert_allclose(x, 1, rtol=1e-5)
    return 2 * CHAIN * NUMBERS * SWEEPS * threads / seconds / 1e9


def _copy(source: Any, target: Any, threads: int, rounds: int) -> float:
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    seconds = _seconds(lambda i: np.copyto(parts[i][1], parts[i][0]), threads, rounds)
    return 2 * COPY_BYTES / seconds / 1e9


def _seconds(job: Callable[[int], None], threads: int, rounds: int) -> float:
    """Least time from the first start of ``job(0)``, ``job(1)``… to their last end."""
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


def table(peak: Peak) -> Table:
    """The peak as a table, one row for each number of threads."""
    result = Table(title="Measured peak")
    for heading in ("threads", "float32 GFLOP/s", "float64 GFLOP/s", "copy GB/s"):
        result.add_column(heading, justify="right")
    for n in peak.copy:
        result.add_row(
            str(n),
            f"{peak.flops['float32'][n]:.1f}",
            f"{peak.flops['float64'][n]:.1f}",
            f"{peak.copy[n]:.1f}",
        )
    return result


if __name__ == "__main__":
    Console().print(table(measure()))
