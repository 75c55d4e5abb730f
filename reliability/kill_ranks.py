"""Trainings by MPI of which a process is killed at a random moment: all of its processes end.

    python reliability/kill_ranks.py                 20 times, with three processes

A training writes a checkpoint after each epoch. At a random moment a random rank gets SIGKILL.
Within 10 seconds the launcher must have ended, and the message must name the rank. The checkpoint
must be whole, and the training goes on from it with another number of processes. The
last training goes on to its end, and its weights must be those of a training that nobody disturbed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Annotated

import typer

from fastcnn import load_model

_PROGRAM = """
import os, sys
from pathlib import Path
import numpy as np
import fastcnn
from fastcnn.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, ReLU
from fastcnn.train.progress import checksum_of_weights

folder, epochs, mode = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
alone = mode == "alone"
group = fastcnn.distributed.alone(6) if alone else fastcnn.distributed.world(6)
(folder / f"rank-{group.rank}").write_text(str(os.getpid()))
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (60, 9, 7, 1), dtype=np.uint8), rng.integers(0, 3, 60)
layers = [Conv2D(3, 3), BatchNorm(), ReLU(), Flatten(), Dropout(0.3), Dense(3)]
model = fastcnn.Sequential(layers, seed=1, engine="im2col")

class Save(fastcnn.Callback):
    def on_epoch_end(self, model, epoch, logs):
        if not alone:
            model.save_checkpoint(folder / "checkpoint")

resume = folder / "checkpoint" if mode == "resume" else None
more = {"group": group, "callbacks": [Save()], "resume": resume}
model.fit(x, y, epochs, 7, "adam", seed=2, verbose=0, **more)
if group.rank == 0:
    print("weights", checksum_of_weights(model.get_weights()))
"""
_SECONDS = 10.0


def _start(
    folder: Path, size: int, epochs: int, mode: str, mpiexec: str | None
) -> subprocess.Popen[str]:
    for one in folder.glob("rank-*"):
        one.unlink()
    command = [sys.executable, "-c", _PROGRAM, str(folder), str(epochs), mode]
    if mpiexec is not None:
        command = [mpiexec, "-n", str(size), *command]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def kills(folder: Path, times: int, seed: int = 0) -> list[str]:
    """Kill a random rank so many times; what was wrong."""
    mpiexec = shutil.which(
        "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if mpiexec is None:
        return ["mpiexec is not installed (extra mpi)"]
    chance, wrong, checkpoint = Random(seed), list[str](), folder / "checkpoint"
    for number in range(times):
        size, mode = chance.choice([2, 3]), "resume" if checkpoint.exists() else "new"
        process = _start(folder, size, 1_000_000, mode, mpiexec)
        files = [folder / f"rank-{rank}" for rank in range(size)]
        while not all(file.exists() and file.read_text() for file in files):
            if process.poll() is not None:
                return [*wrong, f"kill {number}: the training did not begin: {process.stdout}"]
            sleep(0.05)
        sleep(chance.uniform(0.0, 3.0))
        rank, start = chance.randrange(size), monotonic()
        os.kill(int(files[rank].read_text()), signal.SIGKILL)
        try:
            out, _ = process.communicate(timeout=3 * _SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
        seconds = monotonic() - start
        if seconds > _SECONDS:
            wrong.append(f"kill {number}: the job ended after {seconds:.0f} s: {out[-500:]}")
        if f"rank {rank} of {size} (process" not in out:
            wrong.append(f"kill {number}: nobody named rank {rank}: {out[-500:]}")
        if checkpoint.exists():
            try:
                load_model(checkpoint)
            except Exception as error:
                wrong.append(f"kill {number}: {error!r}")
    if not checkpoint.exists():
        return [*wrong, "no checkpoint was ever written"]
    progress = load_model(checkpoint).progress
    epochs = (0 if progress is None else progress.epoch) + 1
    results = []
    for mode, launcher in (("resume", mpiexec), ("alone", None)):
        out, _ = _start(folder, 3, epochs, mode, launcher).communicate()
        results.append([line for line in out.splitlines() if line.startswith("weights")])
    if not results[0] or results[0] != results[1]:
        wrong.append(f"after {epochs} epochs other weights: {results}")
    return wrong


def main(
    times: Annotated[int, typer.Option(help="How often.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the ranks and moments.")] = 0,
) -> None:
    """Kill ranks of trainings."""
    start = monotonic()
    with tempfile.TemporaryDirectory() as folder:
        wrong = kills(Path(folder), times, seed)
    if wrong:
        sys.exit("\n".join(wrong[:20]))
    print(
        f"killed a rank {times} times: each job ended within {_SECONDS:.0f} s, the message named "
        f"the rank, the checkpoint was whole, and the last training had the bits of one that "
        f"nobody disturbed ({monotonic() - start:.0f} s)"
    )


if __name__ == "__main__":
    typer.run(main)
