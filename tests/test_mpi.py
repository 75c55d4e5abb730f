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

import numpy as np
import pytest
from limits import check_duration, run
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

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests' process ignores it
# A busy machine may need long for a first step, so that only one fault has the shortest limit.
group = fastcnn.distributed.world(shards=5, patience=8.0 if "sleeps" in sys.argv else 200.0)
if "sleeps" in sys.argv and group.rank == 1:
    print("fault at", time.monotonic(), flush=True)
    time.sleep(200)
if "--alone" in sys.argv:
    group = fastcnn.distributed.alone(shards=5)
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (40, 9, 7, 1), dtype=np.uint8), rng.integers(0, 3, 40)
layers = [Conv2D(3, 3), BatchNorm(), ReLU(), MaxPool2D(), Flatten(), Dropout(0.3), Dense(3)]
model = fastcnn.Sequential(layers, seed=1, engine="im2col")


class Fault(fastcnn.Callback):
    on_every_process = True

    def on_epoch_end(self, model, epoch, logs):
        if group.rank == 0 and "--checkpoint" in sys.argv:
            model.save_checkpoint(sys.argv[-1])
        if "same" in sys.argv or "--alone" in sys.argv or epoch < 1:
            return
        if group.rank != group.size - 1 and "on all" not in sys.argv:
            return
        print("fault at", time.monotonic(), flush=True)
        if "error" in sys.argv:
            raise OSError(28, "No space left on device")
        if "stopped" in sys.argv:
            os.kill(os.getpid(), signal.SIGSTOP)
        if "leaves" in sys.argv:
            os._exit(int(sys.argv[-1]))
        if "calls" in sys.argv:
            group.barrier()
        for name in ("SIGKILL", "SIGINT", "SIGTERM"):
            if name in sys.argv:
                os.kill(os.getpid(), getattr(signal, name))


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


def check_the_time(result: subprocess.CompletedProcess[str], seconds: float) -> None:
    """The job has ended in time; the start of its processes, which may last, does not count."""
    end = monotonic()
    moments = re.findall("^fault at (.*)$", result.stdout, re.MULTILINE)
    assert moments, result
    check_duration(end - float(moments[0]), seconds)


def check_the_end(result: subprocess.CompletedProcess[str], seconds: float = 10.0) -> None:
    """The job has failed in time."""
    check_the_time(result, seconds)
    assert result.returncode != 0


@pytest.mark.parametrize("size", [2, 3])
def test_the_same_bits_as_one_process(size: int) -> None:
    results = [mpi(1, "-c", PROGRAM, "--alone"), mpi(size, "-c", PROGRAM, "same")]
    assert [one.returncode for one in results] == [0, 0], results
    assert results[0].stdout == results[1].stdout
    assert results[0].stdout.startswith("weights ")


@pytest.mark.parametrize(
    ("fault", "message", "seconds"),
    [
        ("error", "rank 2 of 3 has failed: OSError: [Errno 28] No space left on device", 10.0),
        ("stopped", "rank 2 of 3 has given no sign of life", 10.0),
        ("sleeps", "rank 1 of 3 hangs: it has been busy with samples", 20.0),
        ("calls", "rank 0 of 3 is in a vote, but rank 2 is in a barrier", 10.0),
    ],
)
def test_a_fault_of_one_process_ends_all(fault: str, message: str, seconds: float) -> None:
    result = mpi(3, "-c", PROGRAM, fault)
    check_the_end(result, seconds)
    assert message in result.stdout + result.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_that_leaves_ends_all(code: int) -> None:
    result = mpi(3, "-c", PROGRAM, "leaves", str(code))
    check_the_time(result, 10.0)
    assert "rank 2 of 3 (process" in result.stdout + result.stderr
    # The launcher kills the other processes. MPICH's may still report the first one's code, 0.
    assert result.returncode != 0 or code == 0


def test_a_killed_process_ends_all(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.st"
    result = mpi(3, "-c", PROGRAM, "SIGKILL", "--checkpoint", str(path))
    check_the_end(result)
    assert "rank 2 of 3 (process" in result.stdout + result.stderr
    assert result.stderr.count("has died") == 1  # processes that the launcher ends say nothing
    assert load_model(path).progress is not None


@pytest.mark.parametrize(
    ("name", "reason"),
    [("SIGINT", "has been interrupted"), ("SIGTERM", "has been told to end (SIGTERM)")],
)
@pytest.mark.parametrize("whom", ["on one", "on all"])
def test_an_interrupt_ends_all(name: str, reason: str, whom: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.st"
    result = mpi(3, "-c", PROGRAM, name, whom, "--checkpoint", str(path))
    check_the_end(result)
    ranks = set(re.findall(r"rank (\d) of 3 (.*); the job ends", result.stderr))
    assert ranks <= {(rank, reason) for rank in "012"}, result
    assert ("2", reason) in ranks or whom == "on all"
    assert ranks
    assert "Traceback" not in result.stderr
    progress = load_model(path).progress
    assert progress is not None
    assert progress.epoch >= 2


MIXED = """
import sys
import numpy as np
import fastcnn

group, mode = fastcnn.distributed.world(), sys.argv[1]
last = group.rank == group.size - 1
samples = 17 if mode == "samples" and last else 16
own = group.shards_of(samples)
try:
    if mode == "kind" and last:
        group.gathered(b"abc")
    elif mode == "group" and last:
        fastcnn.distributed.world(16, "shard").barrier()
    elif mode == "group":
        group.barrier()
    elif mode == "gradients":
        into = np.zeros(1000 if last else 900, np.float32)
        sums = group.sum_of_gradients(16, into)
        for number, _ in own:
            sums.add(number, into, slice(0, into.size))
        sums.leave(slice(0, into.size))
        sums.finish()
    else:
        dtype = np.float32 if mode == "dtype" and last else np.float64
        group.combined([np.ones(3, dtype) for _ in own], samples)
    print("a wrong result", flush=True)
except RuntimeError as error:
    print(error, flush=True)
    try:
        group.everyones("afterwards")
    except RuntimeError as again:
        assert str(again) == str(error)
"""


@pytest.mark.parametrize(
    ("mode", "first", "last"),
    [
        ("kind", "a sum over shards (3 numbers of float64, a batch of 16)", "a gathering"),
        (
            "group",
            'a barrier (shards=8, statistics="batch")',
            'a barrier (shards=16, statistics="shard")',
        ),
        (
            "gradients",
            "a sum of gradients (900 numbers of float32, a batch of 16)",
            "a sum of gradients (1,000 numbers of float32, a batch of 16)",
        ),
        (
            "dtype",
            "a sum over shards (3 numbers of float64, a batch of 16)",
            "a sum over shards (3 numbers of float32, a batch of 16)",
        ),
        (
            "samples",
            "a sum over shards (3 numbers of float64, a batch of 16)",
            "a sum over shards (3 numbers of float64, a batch of 17)",
        ),
    ],
)
def test_calls_that_differ_are_an_error_on_all_processes(mode: str, first: str, last: str) -> None:
    result = mpi(3, "-c", MIXED, mode)
    expected = f"rank 0 of 3 is in {first}, but rank 2 is in {last}; all processes must make"
    assert result.stdout.count(expected) == 3, result
    assert result.returncode == 0, result


def test_sums_with_processes_without_samples_are_no_mixed_calls() -> None:
    code = (
        "import numpy as np, fastcnn; group = fastcnn.distributed.world(); "
        "print(group.combined([np.full(3, 7.0)] * len(group.shards_of(1)), 1), flush=True)"
    )
    result = mpi(3, "-c", code)
    assert (result.returncode, result.stdout.count("[7. 7. 7.]")) == (0, 3), result


def digits(path: Path) -> Path:
    """A small data set in a file."""
    rng = np.random.default_rng(0)
    np.savez(
        path,
        x_train=rng.integers(0, 256, (120, 12, 12), dtype=np.uint8),
        y_train=rng.integers(0, 3, 120),
        x_test=rng.integers(0, 256, (9, 12, 12), dtype=np.uint8),
        y_test=rng.integers(0, 3, 9),
    )
    return path


def same_weights(a: Path, b: Path) -> bool:
    weights = [load_model(path).get_weights() for path in (a, b)]
    return all((one == other).all() for one, other in zip(*weights, strict=True))


SIGNALLED = """
import os, signal, sys
import fastcnn.__main__
from fastcnn.recipes import training

signal.signal(signal.SIGINT, signal.default_int_handler)
who, name = int(sys.argv.pop(1)), sys.argv.pop(1)
usual = training._Watch.on_batch_end

def on_batch_end(self, model, batch, logs):
    usual(self, model, batch, logs)
    if batch == 2 and fastcnn.distributed.world().rank == who:
        os.kill(os.getpid(), getattr(signal, name))

training._Watch.on_batch_end = on_batch_end
fastcnn.__main__.main()
"""


@pytest.mark.parametrize(("who", "name"), [(0, "SIGINT"), (1, "SIGINT"), (1, "SIGTERM")])
def test_the_command_line_trains_and_resumes(who: int, name: str, tmp_path: Path) -> None:
    data = digits(tmp_path / "digits.npz")
    train = ["train", "--net", "article", "--data", str(data), "--epochs", "2", "--batch-size", "9"]
    paths = [tmp_path / "two.safetensors", tmp_path / "one.safetensors"]
    saved = ["--distributed", "--patience", "200", "--save", str(paths[0])]
    two = mpi(2, "-c", SIGNALLED, str(who), name, *train, *saved)
    assert two.returncode == 130, two
    assert two.stdout.count("interrupted after 0 of 2 epochs") == 1
    assert "the job ends" not in two.stderr
    checkpoint = tmp_path / "two.checkpoint.safetensors"
    resume = ["-m", "fastcnn", "train", "--resume", str(checkpoint)]
    goes_on = mpi(3, *resume, "--distributed")
    alone = ["-m", "fastcnn", *train, "--shards", "8", "--save", paths[1]]
    one = run([sys.executable, *alone], env=environment())
    assert (goes_on.returncode, one.returncode) == (0, 0), (goes_on, one)
    assert goes_on.stdout.count("test accuracy") == 1
    assert same_weights(*paths)
