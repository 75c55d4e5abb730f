"""MNIST, and every data set that comes as the same four IDX files.

The bundled MNIST serves by default; a folder takes Fashion-MNIST, KMNIST and others of the form.
Files are parsed with the ``mnist`` package, after a check of its own: a file from outside may be
truncated, corrupted, or lie about its size, so its header is read and judged before its body is
decompressed, and never more than one byte beyond the promised size is.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fastcnn.reading import open_regular
from fastcnn.settings import can_start_threads

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

BUNDLED = Path(__file__).parent / "data" / "mnist"
MAX_BYTES = 1 << 30
"""Largest body (1 GiB) that a file's header may promise."""

_STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_SIDES = {"images": ("N", "H", "W"), "labels": ("N",)}
_UINT8 = 0x08
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20


class DatasetError(ValueError):
    """A data set's file is damaged or not what its name says; the message names file and fault."""


def load_mnist(
    folder: str | os.PathLike[str] | None = None,
) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """The training and test set, ``(x_train, y_train), (x_test, y_test)``.

    Args:
        folder: where ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
            ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte`` lie, each with or without
            ``.gz``, or with a dot for the second dash (``train-images.idx3-ubyte``). None means
            the environment variable ``FASTCNN_DATA_DIR``, and without it the bundled MNIST.

    Returns:
        Images (N, H, W) of dtype uint8 (28×28 in MNIST) and labels (N,) of dtype int64, ready to
        be indices; new, writable, C-contiguous arrays.

    Raises:
        FileNotFoundError: the folder or one of its files is missing; both are named.
        DatasetError: a file is truncated, corrupted, longer than its header says, of another type
            than unsigned bytes or another number of dimensions, promises more than 1 GiB, or does
            not fit the others.
        ImportError: the module ``mnist`` is another package's.
        TypeError: folder is no path.

    Example:
        >>> import fastcnn
        >>> (x_train, y_train), (x_test, y_test) = fastcnn.load_mnist()
        >>> x_train.shape, x_test.shape, y_train[:5]
        ((60000, 28, 28), (10000, 28, 28), array([5, 0, 4, 1, 9]))

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
    """
    if folder is None:
        folder = os.environ.get("FASTCNN_DATA_DIR") or BUNDLED
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder must be a path, got {folder!r}")
    paths = _find(Path(folder))
    parse = _parser()
    if can_start_threads():
        from concurrent.futures import ThreadPoolExecutor  # cannot be imported at Python's end

        # Decompression releases the interpreter's lock, so that threads share out the four files.
        with ThreadPoolExecutor(len(paths)) as pool:
            arrays = list(pool.map(lambda path: _read(path, parse), paths))
    else:
        arrays = [_read(path, parse) for path in paths]
    for images, labels, at in ((arrays[0], arrays[1], 0), (arrays[2], arrays[3], 2)):
        if len(images) != len(labels):
            raise DatasetError(
                f"{paths[at]} has {len(images)} images, but {paths[at + 1]} {len(labels)} labels"
            )
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise DatasetError(
            f"{paths[2]} has images of {arrays[2].shape[1:]} pixels, but {paths[0]} of "
            f"{arrays[0].shape[1:]}"
        )
    x_train, y_train, x_test, y_test = arrays
    return (x_train, y_train.astype(np.int64)), (x_test, y_test.astype(np.int64))


def _find(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of a data set: {folder}")
    found, missing = [], []
    for stem in _STEMS:
        ending = f"idx{_rank(stem)}-ubyte"
        names = [f"{stem}{dot}{ending}{gz}" for dot in "-." for gz in (".gz", "")]
        paths = [folder / name for name in names if (folder / name).is_file()]
        found += paths[:1]
        missing += [] if paths else [" or ".join(names)]
    if missing:
        raise FileNotFoundError(f"the folder {folder} lacks {'; and '.join(missing)}")
    return found


def _rank(name: str) -> int:
    return len(_SIDES["images" if "images" in name else "labels"])


def _parser() -> Callable[[BinaryIO], NDArray[Any]]:
    # Imported late: the package brings in urllib, for a download host that no longer answers.
    mnist = import_module("mnist")
    if not hasattr(mnist, "parse_idx"):
        raise ImportError(
            "the module 'mnist' here is not of the package mnist but of python-mnist, which "
            "installs the same name; run: pip uninstall python-mnist; "
            "pip install --force-reinstall mnist"
        )
    return cast(Callable[[BinaryIO], NDArray[Any]], mnist.parse_idx)


def _read(path: Path, parse: Callable[[BinaryIO], NDArray[Any]]) -> NDArray[Any]:
    try:
        with open_regular(path) as raw:
            # By content, not by name: some browsers decompress a download and keep its ".gz".
            compressed = raw.read(2) == _GZIP
            raw.seek(0)
            if not compressed:
                contents = _contents(path, raw)
            else:
                with gzip.GzipFile(fileobj=raw) as file:
                    contents = _contents(path, cast(BinaryIO, file))
    except EOFError:
        raise DatasetError(f"{path} is truncated: its gzip stream ends early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path} is corrupted: {error}") from None
    return parse(BytesIO(contents))


def _contents(path: Path, file: BinaryIO) -> bytes:
    """Header and body, the body exactly as long as the header says."""
    rank = _rank(path.name)
    header = file.read(4 + 4 * rank)
    if header[:2] != bytes(2)[: len(header)]:
        raise DatasetError(f"{path} is no IDX file: it must begin with two zero bytes")
    if len(header) < 4 + 4 * rank:
        raise DatasetError(f"{path} is truncated: it ends within its header")
    kind, dimensions, *sides = struct.unpack(f">2x2B{rank}I", header)
    if kind != _UINT8:
        raise DatasetError(f"{path} must hold unsigned bytes (type 0x08), got type 0x{kind:02x}")
    if dimensions != rank:
        raise DatasetError(f"{path} must have {rank} dimensions, got {dimensions}")
    if 0 in sides[1:]:
        raise DatasetError(f"{path} must have images of at least one pixel, got {sides[1:]}")
    size = prod(sides)
    if size > MAX_BYTES:
        raise DatasetError(f"{path} promises {size:,} bytes, more than {MAX_BYTES:,}")
    # Memory grows with what arrives, not with what was promised.
    parts, left = [header], size
    while left and (part := file.read(min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    if left:
        raise DatasetError(f"{path} is truncated: {size:,} bytes promised, {size - left:,} found")
    if file.read(1):  # at the end of a gzip stream this also checks its CRC
        raise DatasetError(f"{path} is longer than the {size:,} bytes that its header promises")
    return b"".join(parts)
