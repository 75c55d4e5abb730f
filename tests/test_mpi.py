"""Trainings of several processes by MPI: the same bits, and faults that end all of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import pytest
from limits import run
from processes import SOURCE, environment

from fastcnn import load_model

MPIEXEC = shutil.which(
    "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
)
pytestmark = pytest.mark.skipif(
    MPIEXEC is None or find_spec("mpi4py") is None,
    reason="mpi4py and mpiexec are not installed (extra mpi)",
)

PROGRAM = """
import os, signal, sys, time
import numpy as np
import fastcnn
from fastcnn.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU
from fastcnn.train.progress import checksum_of_weights

group = fastcnn.distributed.world(shards=5, patience=8.0)
if "sleeps" in sys.argv and group.rank == 1:
    print("fault at", time.monotonic(), flush=True)
    time.sleep(100)
if "--alone" in sys.argv:
    group = fastcnn.distributed.alone(shards=5)
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (40, 9, 7, 1), dtype=np.uint8), rng.integers(0, 3, 40)
layers = [Conv2D(3, 3), BatchNorm(), ReLU(), MaxPool2D(), Flatten(), Dropout(0.3), Dense(3)]
model = fastcnn.Sequential(layers, seed=1, engine="im2col")


class Fault(fastcnn.Callback):
    on_every_process = True

    def on_epoch_end(self, model, epoch, logs):
        if group.rank != group.size - 1 or epoch < 1:
            return
        if "same" not in sys.argv and "--alone" not in sys.argv:
            print("fault at", time.monotonic(), flush=True)
        if "error" in sys.argv:
            raise OSError(28, "No space left on device")
        if "killed" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)
        if "stopped" in sys.argv:
            os.kill(os.getpid(), signal.SIGSTOP)
        if "leaves" in sys.argv:
            os._exit(0)


epochs = 2 if "--alone" in sys.argv or "same" in sys.argv else 100_000
model.fit(
    x, y, epochs, 9, "adam", seed=2, verbose=0, group=group, callbacks=[Fault()],
    validation_data=(x[:9], y[:9]), augment=fastcnn.Augment(shift=1),
)
if group.rank == 0:
    print("weights", checksum_of_weights(model.get_weights()))
"""


def mpi(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program in so many processes."""
    assert MPIEXEC is not None
    command = [MPIEXEC, "-n", str(size), sys.executable, *arguments]
    result: subprocess.CompletedProcess[str] = run(command, env=environment(), cwd=SOURCE)
    return result


def seconds_since_the_fault(result: subprocess.CompletedProcess[str]) -> float:
    """The start of the processes is left out, which lasts on a busy machine."""
    (moment,) = re.findall("^fault at (.*)$", result.stdout, re.MULTILINE)
    return monotonic() - float(moment)


@pytest.mark.parametrize("size", [2, 3])
def test_the_same_bits_as_one_process(size: int) -> None:
    results = [mpi(1, "-c", PROGRAM, "--alone"), mpi(size, "-c", PROGRAM, "same")]
    assert [one.returncode for one in results] == [0, 0], results
    assert results[0].stdout == results[1].stdout
    assert results[0].stdout.startswith("weights ")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("error", "rank 2 of 3 has failed: OSError: [Errno 28] No space left on device"),
        ("stopped", "rank 2 of 3 has given no sign of life"),
        ("sleeps", "rank 1 of 3 hangs: it has been busy with samples"),
    ],
)
def test_a_fault_of_one_process_ends_all(fault: str, message: str) -> None:
    result = mpi(3, "-c", PROGRAM, fault)
    assert seconds_since_the_fault(result) < 30  # 10 on a machine that is not busy
    assert result.returncode != 0
    assert message in result.stdout + result.stderr


def test_a_killed_process_ends_all() -> None:
    result = mpi(3, "-c", PROGRAM, "killed")
    assert seconds_since_the_fault(result) < 30  # 10 on a machine that is not busy
    assert result.returncode != 0
    assert "rank 2 of 3 (process" in result.stdout + result.stderr
    assert result.stderr.count("has died") == 1  # processes that the launcher ends say nothing


def test_the_command_line_trains_and_resumes(tmp_path: Path) -> None:
    data = tmp_path / "digits.npz"
    code = (
        "import sys, numpy as np; r = np.random.default_rng(0); "
        "np.savez(sys.argv[1], x_train=r.integers(0, 256, (120, 12, 12), dtype=np.uint8), "
        "y_train=r.integers(0, 3, 120), x_test=r.integers(0, 256, (9, 12, 12), dtype=np.uint8), "
        "y_test=r.integers(0, 3, 9))"
    )
    assert run([sys.executable, "-c", code, data]).returncode == 0
    train = ["-m", "fastcnn", "train", "--net", "article", "--data", str(data), "--epochs", "2"]
    paths = [tmp_path / "two.safetensors", tmp_path / "one.safetensors"]
    two = mpi(2, *train, "--distributed", "--save", str(paths[0]))
    one = run([sys.executable, *train, "--shards", "8", "--save", paths[1]], env=environment())
    assert (two.returncode, one.returncode) == (0, 0), (two, one)
    assert two.stdout.count("test accuracy") == 1
    weights = [load_model(path).get_weights() for path in paths]
    assert all((a == b).all() for a, b in zip(*weights, strict=True))
