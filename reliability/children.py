"""Child processes after the parent has run kernels: they compute rightly, and end.

    python reliability/children.py                 30 children of each kind, and forks under load

With fork, spawn and forkserver alike. With fork also while threads of the parent allocate, compute
and compile: what they hold at that moment, they hold for ever in the child. And processes that end
while workers wait or compute: the exit code is 0.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer

import fastcnn
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D
from fastcnn.models.sequential import Sequential

LIMIT = 120.0  # seconds for a child, on a busy machine with nothing compiled


def work() -> bytes:
    """A model that predicts and trains, and a function that is worth threads."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 28, 28, 1)).astype(np.float32)
    layers = [Conv2D(8, 3, activation="relu"), MaxPool2D(2), Flatten(), Dense(10)]
    model = Sequential(layers, (28, 28, 1), seed=0)
    results = [model.predict(x)]
    model.train_on_batch(x, rng.integers(10, size=40))
    images = rng.standard_normal((9, 33, 31, 17)).astype(np.float32)
    w = rng.standard_normal((3, 2, 17, 33)).astype(np.float32)
    results += [*model.get_weights(), fastcnn.conv2d(images, w)]
    return b"".join(array.tobytes() for array in results)


def _send(pipe: Any) -> None:
    pipe.send_bytes(work())
    pipe.close()


def children(method: str, count: int, expected: bytes) -> list[str]:
    """Start so many children, two at a time, by this method; what was wrong."""
    context = multiprocessing.get_context(method)
    wrong = []
    for first in range(0, count, 2):
        started = []
        for _ in range(min(2, count - first)):
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_send, args=(theirs,))
            child.start()
            theirs.close()
            started.append((child, ours))
        for child, ours in started:
            if not ours.poll(LIMIT):
                wrong.append(f"{method}: a child did not answer")
                child.kill()
                continue
            try:
                if ours.recv_bytes() != expected:
                    wrong.append(f"{method}: a child gave other bits")
            except EOFError:
                wrong.append(f"{method}: a child sent nothing")
            child.join(LIMIT)
            if child.exitcode != 0:
                wrong.append(f"{method}: a child ended with {child.exitcode}")
                child.kill()
    return wrong


class Load:
    """Threads of the parent that allocate, compute and compile until they are stopped."""

    def __init__(self) -> None:
        self.stopping = False
        self.threads = [
            threading.Thread(target=target)
            for target in (self._compute, self._compute, self._compile)
        ]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        for thread in self.threads:
            thread.join()

    def _compute(self) -> None:
        x = np.ones((9, 33, 31, 17), np.float32)
        while not self.stopping:
            fastcnn.max_pool2d(x, 2)
            fastcnn.relu(x)

    def _compile(self) -> None:
        import numba

        while not self.stopping:
            number = numba.njit(lambda x: x + 1)
            number(1)


ENDINGS = {
    "idle": "",
    "at once": "threading.Thread(target=work, daemon=True).start()",
    "under load": (
        "def go():\n    while True: fastcnn.relu(x)\n"
        "for _ in range(3): threading.Thread(target=go, daemon=True).start()\n"
        "time.sleep(0.02)"
    ),
}


def endings(count: int) -> list[str]:
    """Processes that end while workers wait or compute; what was wrong."""
    wrong = []
    for name, last in ENDINGS.items():
        code = (
            f"import sys, threading, time\nsys.path.insert(0, {os.path.dirname(__file__)!r})\n"
            "import fastcnn, numpy as np\nfrom children import work\n"
            "x = np.ones(10**6, np.float32)\nfastcnn.set_num_threads(3)\nfastcnn.relu(x)\n" + last
        )
        for _ in range(count):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            if done.returncode or done.stderr:
                wrong.append(f"ending {name}: exit {done.returncode} {done.stderr[-500:]}")
    return wrong


def main(count: Annotated[int, typer.Option(help="Children of each kind.")] = 30) -> None:
    """Start children in all ways, and end processes in all states."""
    start = perf_counter()
    expected = work()
    wrong = []
    methods = multiprocessing.get_all_start_methods()
    for method in methods:
        wrong += children(method, count, expected)
    if "fork" in methods:
        with Load():
            wrong += children("fork", 3 * count, expected)
    wrong += endings(count)
    if work() != expected:
        wrong.append("the parent gives other bits")
    if wrong:
        sys.exit("\n".join(wrong[:20]))
    print(
        f"{', '.join(methods)}: {count} children each, all right ({perf_counter() - start:.0f} s)"
    )


if __name__ == "__main__":
    typer.run(main)
