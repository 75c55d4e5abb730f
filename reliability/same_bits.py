"""Trainings of 1, 2, 4 and 8 processes by MPI: the same weights, to the last bit.

    python reliability/same_bits.py

Each net is trained for two epochs, with dropout, augmentation and momentum: the default net of
``fastcnn train``, one with batch normalisations and convolutions by Winograd's filtering, one whose
dense layer is large, and a graph with shared layers. The last batch of an epoch is smaller, and has
fewer samples than shards. Then a training of two processes that stops after the first epoch goes on
with each other number. All of them must print the same SHA-256 of the weights and of the history.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_PROGRAM = """
import hashlib, sys
from pathlib import Path
import numpy as np
import fastcnn
from fastcnn import Augment, Input, Model, Sequential
from fastcnn.layers import Add, BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU
from fastcnn.models.nets import NETS
from fastcnn.optimizers import SGD

path, mode = Path(sys.argv[1]), sys.argv[2]
group = fastcnn.distributed.alone() if mode == "alone" else fastcnn.distributed.world()
(x, y), _ = fastcnn.load_mnist()
x, y = x[:261], y[:261]  # batches of 128, 128 and 5

def default():
    layers = NETS["small"]()
    return Sequential([*layers[:-1], Dropout(0.3), layers[-1]], (28, 28, 1), seed=1)

def normalised():
    layers = NETS["resnet8"]()
    return Sequential([*layers[:-1], Dropout(0.3), layers[-1]], (28, 28, 1), seed=1)

def large():
    layers = [Conv2D(8, 3, activation="relu"), MaxPool2D(), Flatten(), Dropout(0.3),
              Dense(700, activation="relu"), Dense(10)]
    return Sequential(layers, (28, 28, 1), seed=1)

def shared():
    a = Input((28, 28, 1))
    convolution, norm = Conv2D(8, 3, padding="same"), BatchNorm()
    b = MaxPool2D()(Conv2D(8, 3, activation="relu")(a))
    c = Add()([norm(convolution(b)), ReLU()(convolution(ReLU()(norm(b))))])
    return Model(a, Dense(10)(Dropout(0.3)(Flatten()(MaxPool2D()(c)))), seed=1)

for make in (default, normalised, large, shared):
    model, file = make(), path.with_suffix("." + make.__name__)
    more = {"seed": 2, "verbose": 0, "group": group, "validation_data": (x[:40], y[:40])}
    more |= {"augment": Augment(shift=2), "optimizer": SGD(0.01, momentum=0.9)}
    epochs = 1 if mode == "half" else 2
    more["resume"] = file if mode == "resume" else None
    history = model.fit(x, y, epochs, 128, **more)
    if mode == "half":
        if group.rank == 0:
            model.save_checkpoint(file)
        group.barrier()
        continue
    bits = hashlib.sha256(b"".join(array.tobytes() for array in model.get_weights()))
    kept = {name: of for name, of in history.history.items() if name != "seconds"}
    bits.update(repr(kept).encode())
    if group.rank == 0:
        print("bits", make.__name__, bits.hexdigest(), flush=True)
"""


def _bits(folder: Path, mpiexec: str, size: int, mode: str) -> list[str]:
    """The lines of a training in so many processes; 0 processes stand for one without MPI."""
    command = [sys.executable, "-c", _PROGRAM, str(folder / "checkpoint"), mode]
    if size:
        command = [mpiexec, "-n", str(size), *command]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{size} processes, {mode}: {result.stderr[-3000:]}")
    return [line for line in result.stdout.splitlines() if line.startswith("bits ")]


def main() -> None:
    """Train with each number of processes, and compare."""
    mpiexec = shutil.which(
        "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if mpiexec is None:
        sys.exit("mpiexec is not installed (extra mpi)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = _bits(folder, mpiexec, 0, "alone")
        print("\n".join(expected), flush=True)
        _bits(folder, mpiexec, 2, "half")
        for mode, sizes in (("new", (1, 2, 4, 8)), ("resume", (1, 4, 8))):
            for size in sizes:
                same = _bits(folder, mpiexec, size, mode) == expected
                print(f"{mode:7}{size} processes: {'the same' if same else 'other bits'}")
                if not same:
                    sys.exit("the number of processes changed the bits")


if __name__ == "__main__":
    main()
