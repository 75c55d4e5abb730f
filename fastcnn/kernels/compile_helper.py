"""``python -m fastcnn.kernels.compile_helper``: compiles kernels for the process that started it.

It reads a list of recipes and types from its standard input, and writes to the cache alone. Its
input comes from its own parent, through a pipe that nobody else has, so it is unpickled.
"""

from __future__ import annotations

import pickle
import sys

from fastcnn.kernels.compile_ahead import compile_all, kernel_of
from fastcnn.kernels.rehearsal import Request


def main() -> None:
    """Compile the list."""
    jobs = pickle.load(sys.stdin.buffer)
    requests = [Request(kernel_of(recipe), signature) for recipe, signature in jobs]
    compile_all(requests, progress=lambda done, total: None)


if __name__ == "__main__":
    main()
