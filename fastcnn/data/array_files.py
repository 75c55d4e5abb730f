"""Data sets in other files than IDX: NumPy's ``.npz`` and the binary version of CIFAR-10.

Files may be hostile. No pickle is ever loaded. The size in a header is checked before memory is
allocated, and at most one byte beyond this size is decompressed.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and its data
set's page (the binary version's layout); NumPy Enhancement Proposal 1 (the ``.npy`` format).
"""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fastcnn.core.arguments import Array
from fastcnn.core.reading import open_regular

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Sets = tuple[tuple[Images, Labels], tuple[Images, Labels]]

MAX_BYTES = 1 << 30
"""Largest array (1 GiB) that a file's header may promise."""

# Names of the four arrays in files of keras.datasets, and in files of MedMNIST.
NPZ_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR_TEST = "test_batch.bin"
_RECORD = 1 + 3 * 32 * 32
_CHUNK = 1 << 20


class DatasetError(ValueError):
    """A file of a data set is damaged or of another kind; the message names file and fault."""


def load_npz(path: Path) -> Sets:
    """The training and test set of an ``.npz`` file with one of :data:`NPZ_NAMES`.

    Images are bytes (N, H, W) or (N, H, W, C); labels are integers (N,) or (N, 1). Arrays of
    other names, such as MedMNIST's validation images, are ignored.

    Raises:
        DatasetError: the file is damaged or lacks an array, or an array has another kind or is too
            large.
        OSError: the file cannot be opened.
    """
    with open_regular(path) as file:
        try:
            names, arrays = _members(path, file)
        except DatasetError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError,
                RuntimeError, KeyError, SyntaxError, MemoryError, OSError) as error:  # fmt: skip
            raise DatasetError(f"{path} is damaged: {error}") from None
    return (
        (_images(path, names[0], arrays[0]), labels_of(path, names[1], arrays[1], len(arrays[0]))),
        (_images(path, names[2], arrays[2]), labels_of(path, names[3], arrays[3], len(arrays[2]))),
    )


def _members(path: Path, file: BinaryIO) -> tuple[tuple[str, ...], list[Array]]:
    """The names of the four arrays, and the arrays."""
    with zipfile.ZipFile(file) as archive:
        there = {name.removesuffix(".npy") for name in archive.namelist()}
        names = next((names for names in NPZ_NAMES if there.issuperset(names)), None)
        if names is None:
            expected = " or ".join(", ".join(names) for names in NPZ_NAMES)
            shown = ", ".join(sorted(there)[:8]) or "nothing"
            raise DatasetError(f"{path} must hold the arrays {expected}, but holds {shown}")
        return names, [_member(path, archive, name) for name in names]


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    """One array of the archive."""
    with archive.open(f"{name}.npy") as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DatasetError(f"{path}: {name} is of an unknown version, {version}")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if dtype.kind not in "iub":
            raise DatasetError(f"{path}: {name} must hold integers, got {dtype}")
        size = prod(shape) * dtype.itemsize
        if size > MAX_BYTES:
            raise DatasetError(f"{path}: {name} promises {size:,} bytes, more than {MAX_BYTES:,}")
        contents = _exactly(path, name, file, size)
    array = np.frombuffer(contents, dtype).reshape(shape, order="F" if fortran else "C")
    return np.array(array, order="C")


def _exactly(path: Path, name: str, file: IO[bytes], size: int) -> bytes:
    """Exactly ``size`` bytes. Memory grows with the bytes that arrive, not with ``size``."""
    parts, left = [], size
    while left and (part := file.read(min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    if left:
        raise DatasetError(
            f"{path}: {name} is truncated: {size:,} bytes promised, {size - left:,} found"
        )
    if file.read(1):
        raise DatasetError(f"{path}: {name} is longer than the {size:,} bytes that it promises")
    return b"".join(parts)


def _images(path: Path, name: str, array: Array) -> Images:
    if array.dtype != np.uint8:
        raise DatasetError(f"{path}: {name} must hold bytes (uint8), got {array.dtype}")
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise DatasetError(
            f"{path}: {name} must have the shape (N, H, W) or (N, H, W, C), got {array.shape}"
        )
    return array


def labels_of(path: Path, name: str, array: Array, count: int) -> Labels:
    """Integer labels (N,) or (N, 1) as int64 (N,), checked: ``count`` labels, all at least 0."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DatasetError(
            f"{path}: {name} must hold one class number for each image, (N,) or (N, 1), got "
            f"{array.dtype} of shape {array.shape}"
        )
    if len(array) != count:
        raise DatasetError(f"{path} has {count} images, but {name} {len(array)} labels")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << 31:
        raise DatasetError(f"{path}: {name} must hold class numbers from 0 on")
    return array.astype(np.int64)


def load_cifar10(folder: Path) -> Sets:
    """CIFAR-10 in its binary version: ``data_batch_1.bin`` to ``5`` and ``test_batch.bin``.

    Images are (N, 32, 32, 3), labels (N,); the files hold planes of red, green and blue.

    Raises ``DatasetError`` for a file of another length or with labels above 9, and ``OSError`` for
    a missing file.
    """
    parts = [_cifar_file(folder / name) for name in CIFAR_TRAIN]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return (images, labels), _cifar_file(folder / CIFAR_TEST)


def _cifar_file(path: Path) -> tuple[Images, Labels]:
    with open_regular(path) as file:
        contents = file.read(MAX_BYTES + 1)
    if not contents or len(contents) % _RECORD or len(contents) > MAX_BYTES:
        raise DatasetError(
            f"{path} must hold records of {_RECORD:,} bytes, a label and 32×32 pixels of three "
            f"colours, got {len(contents):,} bytes"
        )
    records = np.frombuffer(contents, np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise DatasetError(f"{path} must hold labels from 0 to 9, got {labels.max()}")
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
