"""Training and prediction for a long time: memory, threads and open files stay what they are.

    python reliability/long_run.py                     ten minutes
    python reliability/long_run.py --minutes 60

A model trains with augmentation, validation and checkpoints, is loaded again, and predicts batches
of changing sizes; from a few Python threads as well. After a warm-up of a tenth of the time the
size of the process is taken again and again, without the blocks that fastcnn keeps to use them
again (256 MiB at most): its second half must lie no higher than its first half by more than a few
megabytes, and no thread and no open file may be left over.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import typer

import fastcnn
from fastcnn.callbacks import ModelCheckpoint
from fastcnn.engine.numba.runtime import memory
from fastcnn.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D
from fastcnn.models.sequential import Sequential, load_model
from fastcnn.optimizers import Adam

MEGABYTES = 8.0
"""By which the size may grow: what the allocator happens to hold."""


def resident() -> float:
    """Size of this process in memory, in megabytes, without what is kept to be used again."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (pages * os.sysconf("SC_PAGE_SIZE") - memory.kept_bytes()) / 2**20


def handles() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


class Work:
    """A round of everything; ``rounds`` counts them."""

    def __init__(self, folder: Path, images: int = 400) -> None:
        (x, y), _ = fastcnn.load_mnist()
        self.x, self.y, self.folder, self.rounds = x[:images], y[:images], folder, 0
        self.rng = np.random.default_rng(0)

    def once(self) -> None:
        layers = [
            Conv2D(8, 3, activation="relu"), BatchNorm(), MaxPool2D(2), Flatten(), Dropout(0.2),
            Dense(10),
        ]  # fmt: skip
        path = self.folder / "model.safetensors"
        model = Sequential(layers, (28, 28, 1), seed=0)
        model.fit(
            self.x, self.y, 2, 32, Adam(), validation_split=0.2, verbose=0,
            augment=fastcnn.Augment(shift=2, rotate=10),
            callbacks=[ModelCheckpoint(path)],
        )  # fmt: skip
        model.save_checkpoint(path)
        again = load_model(path)
        for size in self.rng.integers(1, len(self.x), 10):
            again.predict(self.x[:size], batch_size=int(self.rng.integers(1, 300)))
        threads = [threading.Thread(target=again.predict, args=(self.x,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with suppress(ValueError):
            again.fit(self.x, self.y[:3], verbose=0)
        self.rounds += 1


def run(minutes: float) -> tuple[str, list[str]]:
    """Work for so long; what was seen, and what was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        start, end = perf_counter(), perf_counter() + 60 * minutes
        while perf_counter() < start + 6 * minutes or work.rounds < 3:
            work.once()
        gc.collect()
        threads, files, sizes = threading.active_count(), handles(), [resident()]
        while perf_counter() < end or len(sizes) < 8:
            work.once()
            sizes.append(resident())
    gc.collect()
    half = len(sizes) // 2
    growth = float(np.median(sizes[half:]) - np.median(sizes[:half]))
    wrong = []
    if growth > MEGABYTES:
        wrong.append(f"grew by {growth:.1f} MB, from {sizes[0]:.0f} to {sizes[-1]:.0f}")
    if memory.kept_bytes() > memory.MOST_UNUSED:
        wrong.append(f"keeps {memory.kept_bytes():,} bytes, more than {memory.MOST_UNUSED:,}")
    if threading.active_count() > threads:
        wrong.append(f"{threading.active_count()} threads, not {threads}")
    if handles() > files:
        wrong.append(f"{handles()} open files, not {files}")
    told = f"{work.rounds} rounds, {sizes[0]:.0f} MB at first and {sizes[-1]:.0f} at last"
    return f"{told}, median {growth:+.1f} MB, {threads} threads, {files} open files", wrong


def main(minutes: Annotated[float, typer.Option(help="How long.")] = 10) -> None:
    """Work for a long time, and watch memory, threads and open files."""
    told, wrong = run(minutes)
    print(told)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    typer.run(main)
