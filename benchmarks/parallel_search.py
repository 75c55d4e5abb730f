"""How much faster ``GridSearchCV(n_jobs=2)`` is than ``n_jobs=1``, and how many threads are busy.

joblib starts worker processes, and fastcnn takes one thread in each of them, because joblib sets
``OMP_NUM_THREADS`` and ``NUMBA_NUM_THREADS`` there. Each row of the table is the same search over
small nets:

- ``n_jobs=1`` in this process, on one thread and on fastcnn's default number of threads;
- ``n_jobs=2``: with workers that still have to start, and with workers that have started;
- ``n_jobs=2`` with ``FASTCNN_NUM_THREADS=2``, which puts two threads into each of two workers.

A thread counts as busy in a tenth of a second of which it computed at least a third. While workers
start, a process of joblib's own is busy beside them. Linux only: the figures come from ``/proc``.

    python benchmarks/parallel_search.py --net article --images 10000 --rounds 3
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastcnn
from fastcnn.nets import NETS

WINDOW = 0.1  # seconds
GRID = {"learning_rate": [0.0005, 0.001, 0.002, 0.004], "batch_size": [16, 32]}
FOLDS = 3


@dataclass
class Row:
    """One kind of search: its best time, and the busy threads of all of its runs."""

    name: str
    jobs: int
    threads: int  # in this process
    environment: dict[str, str]
    warm: bool = False
    seconds: float = float("inf")
    most: int = 0
    over_two: float = 0.0  # the share of windows with more than two busy threads


class Watch(threading.Thread):
    """Counts the busy threads of this process and of its children, window by window."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.counts: list[int] = []
        self._end = threading.Event()

    def run(self) -> None:
        tick = 1 / os.sysconf("SC_CLK_TCK")
        before, start = ticks(), time.perf_counter()
        while not self._end.wait(WINDOW):
            now, end = ticks(), time.perf_counter()
            least = (end - start) / 3 / tick
            moved = (count - before[thread] for thread, count in now.items() if thread in before)
            self.counts.append(sum(delta >= least for delta in moved))
            before, start = now, end

    def stop(self) -> None:
        self._end.set()
        self.join()


def ticks() -> dict[str, int]:
    """The processor time of each thread of this process and of its descendants, in ticks."""
    result: dict[str, int] = {}
    for process in descendants(str(os.getpid())):
        for stat in Path("/proc", process, "task").glob("*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            result[stat.parent.name] = int(fields[11]) + int(fields[12])
    return result


def descendants(process: str) -> Iterator[str]:
    """A process and all that it started, directly or not."""
    yield process
    for children in Path("/proc", process, "task").glob("*/children"):
        try:
            names = children.read_text().split()
        except OSError:  # it has ended
            continue
        for child in names:
            yield from descendants(child)


@contextmanager
def variables(values: dict[str, str]) -> Iterator[None]:
    """These environment variables, and no other that sets a number of threads."""
    before = dict(os.environ)
    for name in ("FASTCNN_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def search(row: Row, net: str, images: Any, labels: Any, epochs: int) -> None:
    """Run the search once, and enter it into its row."""
    from joblib.externals.loky import get_reusable_executor
    from sklearn.model_selection import GridSearchCV

    if row.jobs > 1 and not row.warm:
        get_reusable_executor().shutdown(wait=True)
    fastcnn.set_num_threads(row.threads)
    classifier = fastcnn.CNNClassifier(NETS[net](), epochs=epochs, random_state=0)
    grid = GridSearchCV(classifier, GRID, cv=FOLDS, n_jobs=row.jobs, refit=False)
    watch = Watch()
    with variables(row.environment):
        watch.start()
        start = time.perf_counter()
        grid.fit(images, labels)
        row.seconds = min(row.seconds, time.perf_counter() - start)
        watch.stop()
    counts = np.array(watch.counts)
    row.most = max(row.most, int(counts.max()))
    row.over_two = max(row.over_two, float((counts > 2).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=sorted(NETS), default="article")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="of which the best time counts")
    options = parser.parse_args()
    images, labels = (part[: options.images] for part in fastcnn.load_mnist()[0])
    default = fastcnn.get_num_threads()
    rows = [
        Row("n_jobs=1, 1 thread", 1, 1, {}),
        Row(f"n_jobs=1, default ({default})", 1, default, {}),
        Row("n_jobs=2, workers start", 2, default, {}),
        Row("n_jobs=2, workers run", 2, default, {}, warm=True),
        Row("n_jobs=2, 2 threads each", 2, default, {"FASTCNN_NUM_THREADS": "2"}),
    ]
    classifier = fastcnn.CNNClassifier(NETS[options.net](), epochs=1, random_state=0)
    classifier.fit(images, labels)  # compiles what is not in the cache
    for _ in range(options.rounds):
        for row in rows:
            search(row, options.net, images, labels, options.epochs)
    alone, usual = rows[0].seconds, rows[1].seconds
    print(f"{options.net}, {options.images} images, {options.epochs} epochs, {FOLDS} folds")
    print(f"{'search':<26}{'s':>8}{'vs 1 thread':>13}{'vs default':>12}{'busy':>6}{'> 2 busy':>10}")
    for row in rows:
        gains = f"{alone / row.seconds:>12.2f}×{usual / row.seconds:>11.2f}×"
        print(f"{row.name:<26}{row.seconds:>8.2f}{gains}{row.most:>6}{row.over_two:>10.1%}")


if __name__ == "__main__":
    main()
