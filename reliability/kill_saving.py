"""Processes that are killed while they save: the file is always the old one or the new one, whole.

    python reliability/kill_saving.py                 200 times, and readers beside it

A child saves two models and a checkpoint over each other, as fast as it can, until it is killed
with SIGKILL at a random moment. Meanwhile another process reads the file, again and again. What is
left beside the file are at most the hidden ``.fastcnn-….tmp`` of those that were killed, one each.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from random import Random
from time import perf_counter, sleep
from typing import Annotated

import numpy as np
import typer

from fastcnn.layers import Dense
from fastcnn.models.sequential import Sequential, load_model


def models() -> list[Sequential]:
    """Two models of some 400 KB, trained a little, so that they have checkpoints too."""
    results = []
    for seed in (1, 2):
        model = Sequential([Dense(200), Dense(300), Dense(3)], seed=seed)
        rng = np.random.default_rng(seed)
        model.fit(rng.standard_normal((8, 100)), rng.integers(3, size=8), seed=seed, verbose=0)
        results.append(model)
    return results


def bits(model: Sequential) -> bytes:
    return b"".join(array.tobytes() for array in model.get_weights())


def _save_for_ever(path: Path, saved: list[Sequential]) -> None:
    while True:
        for model in saved:
            model.save(path)
            model.save_checkpoint(path)


def _read_for_ever(path: Path, right: set[bytes]) -> None:
    while True:
        if bits(load_model(path)) not in right:
            os._exit(3)


def _child(work: object, *arguments: object) -> int:
    pid = os.fork()
    if not pid:
        try:
            work(*arguments)  # type: ignore[operator]
        finally:
            os._exit(4)  # an error: its traceback stands on the standard error
    return pid


def kills(path: Path, times: int, seed: int = 0, longest: float = 0.05) -> list[str]:
    """Save and be killed so many times; what was wrong with the file afterwards."""
    saved, chance, wrong = models(), Random(seed), []
    right = {bits(model) for model in saved}
    saved[0].save(path)
    reader = _child(_read_for_ever, path, right)
    seen = set()
    for number in range(times):
        child = _child(_save_for_ever, path, saved)
        sleep(chance.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            wrong.append(f"kill {number}: the child ended by itself, {status}")
        try:
            result = bits(load_model(path))
            seen.add(result)
            if result not in right:
                wrong.append(f"kill {number}: the file holds a third model")
        except Exception as error:
            wrong.append(f"kill {number}: {error!r}")
        others = [name for name in os.listdir(path.parent) if name != path.name]
        if len(others) > number + 1 or not all(name.endswith(".tmp") for name in others):
            wrong.append(f"kill {number}: left {others}")
    done, status = os.waitpid(reader, os.WNOHANG)
    if done:
        wrong.append(f"the reader ended with {os.waitstatus_to_exitcode(status)}")
    else:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
    if times >= 50 and len(seen) < 2:
        wrong.append("only one of the models was ever result: nothing was saved in time")
    return wrong


def main(times: Annotated[int, typer.Option(help="How often.")] = 200) -> None:
    """Kill processes while they save."""
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        wrong = kills(Path(folder) / "model.safetensors", times)
    if wrong:
        sys.exit("\n".join(wrong[:20]))
    print(f"killed {times} times, the file was always whole ({perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    typer.run(main)
