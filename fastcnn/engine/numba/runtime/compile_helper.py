"""The helper: a process that compiles kernels for the process that started it.

It reads a list of recipes and types from its standard input, and writes to the cache alone. Its
input comes from its own parent, through a pipe that nobody else has, so it is unpickled. The parent
keeps the pipe open. When it is closed the helper ends, because its parent has ended or given up.
"""

from __future__ import annotations

import os
import pickle
import sys
from threading import Thread

from fastcnn.engine.numba.runtime.compile_ahead import compile_all, kernel_of
from fastcnn.engine.numba.runtime.rehearsal import Request


def main() -> None:
    """Compile the list."""
    jobs = pickle.load(sys.stdin.buffer)
    Thread(target=_end_with_input, args=(sys.stdin.fileno(),), daemon=True).start()
    requests = [Request(kernel_of(recipe), signature) for recipe, signature in jobs]
    compile_all(requests, progress=lambda done, total: None)


def _end_with_input(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os._exit(0)
