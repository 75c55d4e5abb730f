"""Many Python threads at once on different models and functions: right results, no abort.

    python reliability/hammer_threads.py                     30 s under each threading layer
    python reliability/hammer_threads.py --seconds 5 --threads 64

What each task gives is computed first, by one thread alone; then all threads do tasks in random
order, and every result must have the same bits. Beside them a thread of the user's own runs a
parallel Numba function, under each threading layer that Numba has here, and another changes the
number of threads. At the end the tasks run once through ``concurrent.futures``, asyncio and, where
it is installed, joblib, each of which starts threads of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.layers import BatchNorm, Conv2D, Dense, Flatten, GlobalAvgPool2D, Layer, MaxPool2D
from fastcnn.models.sequential import Sequential

Task = Callable[[], bytes]
LAYERS = ("none", "workqueue", "omp", "tbb")
"""Numba's threading layers; with "none" the user has no parallel function."""


def _nets() -> Iterator[tuple[list[Layer], tuple[int, ...]]]:
    yield [Conv2D(8, 3, activation="relu"), MaxPool2D(2), Flatten(), Dense(10)], (28, 28, 1)
    residual = fastcnn.layers.Residual([Conv2D(12, 3, padding="same"), BatchNorm()])
    yield [Conv2D(12, (3, 2), (2, 1)), residual, GlobalAvgPool2D(), Dense(5)], (17, 18, 3)
    yield [Conv2D(16, 3, groups=4, padding="same"), MaxPool2D((2, 3)), Flatten(), Dense(7)], (
        12, 15, 8,
    )  # fmt: skip
    yield [Dense(300, activation="relu"), Dense(40)], (200,)


def _predicting(model: Sequential, x: Array) -> Task:
    return lambda: model.predict(x).tobytes()


def _training(layers: list[Layer], shape: tuple[int, ...], x: Array, y: Array) -> Task:
    def train() -> bytes:
        model = Sequential([type(one).from_config(one.config()) for one in layers], shape, seed=1)
        for _ in range(3):
            model.train_on_batch(x, y)
        return b"".join(array.tobytes() for array in model.get_weights())

    return train


def _calling(op: str, arrays: tuple[Array, ...], parameters: dict[str, Any]) -> Task:
    def call() -> bytes:
        result = getattr(fastcnn, op)(*arrays, **parameters)
        return b"".join(np.asarray(a).tobytes() for a in (
            result if isinstance(result, tuple) else (result,)
        ))  # fmt: skip

    return call


def tasks() -> list[Task]:
    """Models that predict and train, and functions, small ones and such as are worth threads."""
    rng = np.random.default_rng(0)
    result: list[Task] = []
    for layers, shape in _nets():
        model = Sequential(layers, shape, seed=0)
        classes = model.output_shape[0]
        for count in (1, 40):
            x = rng.standard_normal((count, *shape)).astype(np.float32)
            result.append(_predicting(model, x))
            result.append(_training(layers, shape, x, rng.integers(classes, size=count)))
    for dtype in (np.float32, np.float64):
        for n in (1, 9):
            x = rng.standard_normal((n, 33, 31, 17)).astype(dtype)
            w = rng.standard_normal((3, 2, 17, 33)).astype(dtype)
            y = fastcnn.conv2d(x, w, padding="same")
            same = {"padding": "same"}
            result.append(_calling("conv2d", (x, w), same))
            result.append(_calling("conv2d", (x, w), same | {"engine": "im2col"}))
            result.append(_calling("conv2d_backward", (y, x, w), same))
            result.append(_calling("max_pool2d", (x, 2), {}))
            result.append(_calling("softmax", (x,), {}))
    return result


class Hammer:
    """Threads that do tasks, or one in ``share`` of them, until time is up.

    ``wrong`` says what was not as it should be.
    """

    def __init__(self, share: int = 1) -> None:
        self.tasks = tasks()[::share]
        before = fastcnn.get_num_threads()
        fastcnn.set_num_threads(1)
        self.expected = [task() for task in self.tasks]
        fastcnn.set_num_threads(before)
        self.threads = before
        self.wrong: list[str] = []
        self.done = 0

    def once(self, number: int) -> None:
        """One task; what it gives is compared."""
        try:
            if self.tasks[number]() != self.expected[number]:
                self.wrong.append(f"task {number} gave other bits")
        except BaseException as error:
            self.wrong.append(f"task {number} raised {error!r}")
        self.done += 1

    def run(self, threads: int, seconds: float, layer: str) -> None:
        """``threads`` threads for so long, beside a parallel function under a threading layer."""
        end = perf_counter() + seconds

        def work(seed: int) -> None:
            rng = np.random.default_rng(seed)
            while perf_counter() < end and not self.wrong:
                self.once(int(rng.integers(len(self.tasks))))

        def turn() -> None:
            count = 0
            while perf_counter() < end:
                count += 1
                fastcnn.set_num_threads(1 + count % 4)
                threading.Event().wait(0.01)
            fastcnn.set_num_threads(self.threads)

        others = [turn] if layer == "none" else [turn, lambda: _parallel(end, self.wrong)]
        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
        workers += [threading.Thread(target=other) for other in others]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(seconds + 60)
        if any(worker.is_alive() for worker in workers):
            self.wrong.append("a thread is still at work: a deadlock")

    def nested(self) -> None:
        """Every task in the pools that people use."""
        numbers = range(len(self.tasks))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.once, numbers))

        async def all_at_once() -> None:
            await asyncio.gather(*(asyncio.to_thread(self.once, number) for number in numbers))

        asyncio.run(all_at_once())
        try:
            from joblib import Parallel, delayed
        except ImportError:
            return
        Parallel(8, backend="threading")(delayed(self.once)(number) for number in numbers)
        calls = (delayed(_in_another_process)(number) for number in numbers)
        for number, result in enumerate(Parallel(2, backend="loky")(calls)):
            if result != self.expected[number]:
                self.wrong.append(f"joblib's process gave other bits for task {number}")


def _in_another_process(number: int) -> bytes:
    return tasks()[number]()


def _parallel(end: float, wrong: list[str]) -> None:
    """A user's own parallel function, again and again."""
    import numba

    @numba.njit(parallel=True)
    def total(x: Any) -> Any:
        result = 0.0
        for i in numba.prange(x.size):
            result += x[i]
        return result

    x = np.ones(100_000)
    while perf_counter() < end:
        if total(x) != x.size:
            wrong.append("the user's parallel function gave another sum")


def _available(layer: str) -> bool:
    code = (
        "import numba\n"
        "@numba.njit(parallel=True)\n"
        "def f():\n"
        "    s = 0\n"
        "    for i in numba.prange(9):\n"
        "        s += i\n"
        "    return s\n"
        "assert f() == 36"
    )
    asked = [sys.executable, "-c", code]
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    return (
        layer == "none"
        or not subprocess.run(asked, env=environment, capture_output=True).returncode
    )


def main(
    seconds: Annotated[float, typer.Option(help="For each threading layer.")] = 30,
    threads: Annotated[int, typer.Option(help="At once.")] = 16,
    here: Annotated[str | None, typer.Option(help="Under this layer, in this process.")] = None,
) -> None:
    """Hammer on fastcnn with many threads, under each of Numba's threading layers."""
    if here is None:
        results = [layer for layer in LAYERS if _available(layer)]
        print(f"threading layers here: {', '.join(results)}", flush=True)
        for layer in results:
            command = [sys.executable, __file__, f"--here={layer}", f"--seconds={seconds}"]
            environment = dict(os.environ)
            if layer != "none":
                environment["NUMBA_THREADING_LAYER"] = layer
            done = subprocess.run([*command, f"--threads={threads}"], env=environment)
            if done.returncode:
                sys.exit(f"{layer}: exit code {done.returncode}")
        return
    hammer = Hammer()
    hammer.run(threads, seconds, here)
    hammer.nested()
    if hammer.wrong:
        sys.exit("\n".join(hammer.wrong[:20]))
    print(f"{here}: {hammer.done} tasks on {threads} threads, all right", flush=True)


if __name__ == "__main__":
    typer.run(main)
