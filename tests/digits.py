"""MNIST in small, for commands that train."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

import fastcnn


def idx(path: Path, array: Any) -> None:
    """Write unsigned bytes as a compressed IDX file."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes(), 1))


def write_digits(folder: Path) -> str:
    """Write 1,800 and 300 digits as MNIST's four files; the folder's name."""
    (x, y), (x_test, y_test) = fastcnn.load_mnist()
    idx(folder / "train-images-idx3-ubyte.gz", x[:1800])
    idx(folder / "train-labels-idx1-ubyte.gz", y[:1800])
    idx(folder / "t10k-images-idx3-ubyte.gz", x_test[:300])
    idx(folder / "t10k-labels-idx1-ubyte.gz", y_test[:300])
    return str(folder)
