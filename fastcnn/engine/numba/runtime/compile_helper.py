"""The main program of the helper, a process that compiles kernels for the one that started it.

It reads a list of recipes and types from its standard input, and writes to the cache alone. It may
unpickle its input, because the input comes through a pipe that its parent alone can write to. The
parent keeps the pipe open. The helper ends when the pipe is closed, because then its parent has
ended or does not need it.
"""

from __future__ import annotations

import os
import pickle
import sys
from threading import Thread

from fastcnn.engine.numba.runtime.compile_ahead import compile_all, kernel_of
from fastcnn.engine.numba.runtime.rehearsal import Request


def main() -> None:
    """Compile the kernels of the list."""
    jobs = pickle.load(sys.stdin.buffer)
    Thread(target=_end_with_input, args=(sys.stdin.fileno(),), daemon=True).start()
    requests = [Request(kernel_of(recipe), signature) for recipe, signature in jobs]
    compile_all(requests, progress=lambda done, total: None)


def _end_with_input(pipe: int) -> None:
    """End this process when its input ends."""
    while os.read(pipe, 1):
        pass
    os._exit(0)
