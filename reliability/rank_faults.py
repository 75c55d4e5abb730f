"""Faults of one process of a group: all processes end in time, and the message names it.

    python reliability/rank_faults.py                  each fault once, with three processes

Faults: a process is killed, before the training or within it; it lacks memory; a callback raises; a
checkpoint exceeds the size of a file, as on a full disk; it is stopped; it hangs; data or models
differ between the processes. All processes must end within 10 seconds of the fault, or of the
limit ``patience`` for one that hangs. The message names rank and reason, and the last checkpoint is
whole.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import time
from typing import NamedTuple

from fastcnn import load_model

_PROGRAM = """
import os, resource, signal, sys, time
from pathlib import Path
import numpy as np
import fastcnn
from fastcnn.layers import Conv2D, Dense, Flatten

fault, folder = sys.argv[1], Path(sys.argv[2])
group = fastcnn.distributed.world(6, patience=8.0)
is_last = group.rank == group.size - 1

def happens(what):
    if is_last and fault == what:
        (folder / "at").write_text(str(time.time()))
        return True
    return False

rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (60, 9, 7, 1), dtype=np.uint8), rng.integers(0, 3, 60)
if happens("killed before the training"):
    os.kill(os.getpid(), signal.SIGKILL)
if happens("hangs before the training"):
    time.sleep(1000)
if happens("other data"):
    x[3, 2, 1] += 1
layers = [Conv2D(2 + happens("other model"), 3), Flatten(), Dense(3)]
model = fastcnn.Sequential(layers, seed=1, engine="im2col")

class Fault(fastcnn.Callback):
    on_every_process = True

    def on_epoch_end(self, model, epoch, logs):
        if group.rank == 0 and fault == "full disk" and epoch == 4:
            (folder / "at").write_text(str(time.time()))
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        if group.rank == 0:
            model.save_checkpoint(folder / "checkpoint")
        if epoch != 4:
            return
        if happens("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if happens("no memory"):
            resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
            np.ones(1 << 33)
        if happens("callback"):
            raise RuntimeError("of a callback")
        if happens("stopped"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if happens("hangs"):
            time.sleep(1000)
        if happens("exits"):
            os._exit(0)

model.fit(x, y, 100_000, 7, seed=2, verbose=0, group=group, callbacks=[Fault()])
"""


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: as the program knows it.
        message: what must be said.
        seconds: until all processes have ended.
        rank: of the process.
    """

    name: str
    message: str
    seconds: float = 10.0
    rank: int = 2


_FAULTS = (
    Fault("killed before the training", "has died, by a signal"),
    Fault("hangs before the training", "hangs: it has been busy", 20.0),
    Fault("other data", "ValueError: x must be the same on all processes"),
    Fault("other model", "ValueError: model must be the same on all processes"),
    Fault("killed", "has died, by a signal"),
    Fault("no memory", "has failed: MemoryError"),
    Fault("callback", "has failed: RuntimeError: of a callback"),
    Fault("full disk", "has failed: OSError", rank=0),
    Fault("stopped", "has given no sign of life"),
    Fault("hangs", "hangs: it has been busy with callbacks", 20.0),
    Fault("exits", "has died, by a signal"),
)


def what_is_wrong(fault: Fault, mpiexec: str, folder: Path) -> str | None:
    """What is wrong with the end of a training with this fault, or None."""
    command = [mpiexec, "-n", "3", sys.executable, "-c", _PROGRAM, fault.name, str(folder)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired as error:
        return f"{fault.name}: the job did not end: {error.stderr!r}"
    end, said = time(), result.stdout + result.stderr
    seconds = end - float((folder / "at").read_text())
    line = next((one for one in said.splitlines() if fault.message in one), "")
    print(f"{fault.name:28}{seconds:5.1f} s  {line[:90]}", flush=True)
    if seconds > fault.seconds:
        return f"{fault.name}: the job ended after {seconds:.0f} s: {said[-500:]}"
    if result.returncode == 0 or f"rank {fault.rank} of 3" not in line:
        return f"{fault.name}: the message does not name the rank and the reason: {said[-900:]}"
    if (folder / "checkpoint").exists():
        load_model(folder / "checkpoint")
    elif fault.rank == 0:
        return f"{fault.name}: there is no checkpoint"
    return None


def main() -> None:
    """Try each fault."""
    mpiexec = shutil.which(
        "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if mpiexec is None:
        sys.exit("mpiexec is not installed (extra mpi)")
    wrong = list[str]()
    for fault in _FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            problem = what_is_wrong(fault, mpiexec, Path(folder))
            wrong += [] if problem is None else [problem]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(_FAULTS)} faults: all processes ended in time, and the message named the process")


if __name__ == "__main__":
    main()
