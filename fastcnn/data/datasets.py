"""MNIST, and data sets in folders: MNIST's files, arrays, or pictures by class.

The bundled MNIST is the default. The ``mnist`` package parses IDX files after a check, because a
file may be truncated, corrupted, or lie about its size. The header is checked before the body is
decompressed, and at most one byte beyond the promised size is decompressed.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.reading import open_regular
from fastcnn.core.settings import can_start_threads
from fastcnn.data.array_files import (
    CIFAR_TEST,
    MAX_BYTES,
    DatasetError,
    Images,
    Labels,
    Sets,
    load_cifar10,
    load_npz,
)
from fastcnn.data.picture_folders import load_sets, sets_of

BUNDLED = Path(__file__).parent / "mnist"
_PARTS = (("train", "images"), ("train", "labels"), ("t10k", "images"), ("t10k", "labels"))
_NAME = re.compile(
    r"(?:(?P<split>emnist-[a-z]+)-)?(?P<part>train|t10k|test)-(?P<what>images|labels)"
    r"(?P<dot>[-.])idx(?P<rank>[13])-ubyte(?P<gz>\.gz)?"
)
_DEPTH, _MOST_ENTRIES = 3, 20_000  # limits of the search for files in folders inside
_LISTED = 6  # names of files in an error message
_SIDES = {"images": ("N", "H", "W"), "labels": ("N",)}
_UINT8 = 0x08
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20


def default_folder() -> str | os.PathLike[str]:
    """The folder of the data set that is loaded by default."""
    return os.environ.get("FASTCNN_DATA_DIR") or BUNDLED


def load_mnist(
    folder: str | os.PathLike[str] | None = None,
) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """The training and test set, ``(x_train, y_train), (x_test, y_test)``.

    Args:
        folder: the folder of the data, in one of these forms. None means the environment variable
            ``FASTCNN_DATA_DIR``, or the bundled MNIST if it is not set.

            - ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte``
              and ``t10k-labels-idx1-ubyte``, each with or without ``.gz``, or with a dot for the
              second dash. They may lie in folders inside, up to three deep, as in downloads of
              Kaggle and torchvision. Fashion-MNIST and KMNIST have these names.
            - EMNIST's names, ``emnist-letters-train-images-idx3-ubyte`` and so on. If a folder
              holds several of its sets, ``folder/emnist-letters`` names one. Its images have rows
              and columns exchanged, and stay so.
            - one ``.npz`` file, or its path, with the names of ``keras.datasets`` (``x_train``,
              ``y_train``, ``x_test``, ``y_test``) or of MedMNIST (``train_images``, …).
            - CIFAR-10's binary version, ``data_batch_1.bin`` to ``5`` and ``test_batch.bin``.
            - pictures by class, ``train/CLASS/*.png`` and ``test/CLASS/*.png``, or ``CLASS/*.png``
              only. Then every sixth picture of each class belongs to the test set. All pictures
              must have one size; :func:`fastcnn.load_pictures` can scale them.

    Returns:
        Images (N, H, W) or (N, H, W, C) of dtype uint8 (28×28 in MNIST) and labels (N,) of dtype
        int64. The arrays are new, writable and C-contiguous.

    Raises:
        FileNotFoundError: there is no such folder, it lacks some of the files, or it holds none of
            these forms; the message lists its contents.
        DatasetError: a file is truncated, corrupted or longer than its header says, has another
            type than unsigned bytes or another number of dimensions, promises more than 1 GiB, or
            does not fit the other files.
        ImportError: the module ``mnist`` belongs to another package.
        TypeError: folder is no path.

    Example:
        >>> import fastcnn
        >>> (x_train, y_train), (x_test, y_test) = fastcnn.load_mnist()
        >>> x_train.shape, x_test.shape, y_train[:5]
        ((60000, 28, 28), (10000, 28, 28), array([5, 0, 4, 1, 9]))

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
    """
    if folder is None:
        folder = default_folder()
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder must be a path, got {folder!r}")
    sets = load_dataset(folder)
    return sets.train, sets.test


def form_of(folder: str | os.PathLike[str]) -> str:
    """The ``form`` of the :class:`Dataset` in a folder; ``FileNotFoundError`` if there is none."""
    return _form(Path(folder))[0]


class Dataset(NamedTuple):
    """A data set with its form: "mnist", "emnist", "npz", "cifar10" or "pictures".

    ``names`` are the classes' names; only data sets of pictures have them.
    """

    train: tuple[Images, Labels]
    test: tuple[Images, Labels]
    form: str
    names: tuple[str, ...] = ()


def load_dataset(
    folder: str | os.PathLike[str],
    size: tuple[int, ...] | None = None,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """The data set in a folder of one of the forms of :func:`load_mnist`.

    Pictures by class are scaled to ``size`` (H, W), and numbered as ``classes`` are; other forms do
    not take these. Errors are those of :func:`load_mnist`.
    """
    form, paths = _form(Path(folder))
    if size is not None and form != "pictures":
        raise ValueError(f"size is for pictures by class, but {folder} holds arrays of their own")
    if form == "pictures":
        train, test, names = load_sets(paths[0], size, classes)
        return Dataset(train, test, form, names)
    if form == "npz":
        return Dataset(*load_npz(paths[0]), form)
    if form == "cifar10":
        return Dataset(*load_cifar10(paths[0]), form)
    return Dataset(*_idx(paths), form)


def _form(folder: Path) -> tuple[str, list[Path]]:
    """The form of a data set, and its files or its folder."""
    if folder.suffix == ".npz" and not folder.is_dir():
        return "npz", [folder]
    files = _idx_files(folder)
    if files is not None:
        return "emnist" if files[0].name.startswith("emnist") else "mnist", files
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            f"a data set must be a folder or an .npz file, got the file {folder}"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of a data set: {folder}")
    archives = sorted(folder.glob("*.npz"))
    if len(archives) == 1:
        return "npz", archives
    for place in (folder, folder / "cifar-10-batches-bin"):
        if (place / CIFAR_TEST).exists():
            return "cifar10", [place]
    if sets_of(folder) is not None:
        return "pictures", [folder]
    names = sorted(f"{one.name}/" if one.is_dir() else one.name for one in folder.iterdir())
    shown = ", ".join(names[:_LISTED]) or "nothing"
    ending = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    reason = "no data set that is known (see load_mnist)"
    if not names:
        raise FileNotFoundError(f"the folder {folder} is empty, and holds no data set")
    if all(name.endswith("/") for name in names):
        reason = "folders without pictures of their own, and no other data set"
    if len(archives) > 1:
        reason = "several .npz files; give the path of one"
    elif {"data_batch_1", "batches.meta"} & {name.rstrip("/") for name in names}:
        reason = "pickle files, which run code when they are read; take CIFAR-10's binary version"
    raise FileNotFoundError(f"the folder {folder} holds {reason}: {shown}{ending}")


def _idx(paths: list[Path]) -> Sets:
    """The four arrays of IDX files."""
    parse = _parser()
    if can_start_threads():
        from concurrent.futures import ThreadPoolExecutor  # cannot be imported at Python's end

        # Threads decompress the four files at once, because it releases the interpreter's lock.
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


def _idx_files(folder: Path) -> list[Path] | None:
    """The four IDX files of a data set; None if the folder has none of them.

    A path that is no folder may name one of EMNIST's sets in the folder above.
    """
    only = None
    if not folder.is_dir():
        if not folder.name.startswith("emnist-") or not folder.parent.is_dir():
            return None
        folder, only = folder.parent, folder.name
    sets = _idx_sets(folder)
    if only is not None:
        sets = {key: files for key, files in sets.items() if key[1] == only}
    complete = {key: files for key, files in sets.items() if len(files) == len(_PARTS)}
    if len(complete) > 1:
        nearest = min(len(place.parts) for place, _ in complete)
        closest = {key: files for key, files in complete.items() if len(key[0].parts) == nearest}
        if len(closest) > 1:
            names = sorted(str(place / split if split else place) for place, split in closest)
            raise FileNotFoundError(
                f"the folder {folder} holds several data sets; give one of {', '.join(names)}"
            )
        complete = closest
    if complete:
        (files,) = complete.values()
        return [files[part] for part in _PARTS]
    if not sets:
        return None
    (place, split), files = max(sets.items(), key=lambda item: len(item[1]))
    missing = []
    for part, what in _PARTS:
        if (part, what) not in files:
            stem = (
                f"{split}-{'test' if part == 't10k' else part}-{what}"
                if split
                else f"{part}-{what}"
            )
            ending = f"idx{3 if what == 'images' else 1}-ubyte"
            names = [f"{stem}{dot}{ending}{gz}" for dot in "-." for gz in (".gz", "")]
            missing.append(" or ".join(names))
    raise FileNotFoundError(f"the folder {place} lacks {'; and '.join(missing)}")


def _idx_sets(folder: Path) -> dict[tuple[Path, str], dict[tuple[str, str], Path]]:
    """Paths of IDX files, grouped by their folder and the name of the EMNIST set.

    Kaggle puts a file into a folder of the same name; such a folder does not count.
    """
    sets: dict[tuple[Path, str], dict[tuple[str, str], Path]] = {}
    ranks: dict[Path, tuple[str, bool]] = {}
    for path in _files_in(folder):
        match = _NAME.fullmatch(path.name)
        if match is None or (match["what"] == "images") != (match["rank"] == "3"):
            continue
        place = path.parent
        if place != folder and _NAME.fullmatch(place.name):
            place = place.parent
        key = "t10k" if match["part"] == "test" else match["part"], match["what"]
        files = sets.setdefault((place, match["split"] or ""), {})
        ranks[path] = match["dot"], match["gz"] is None
        if key not in files or ranks[path] < ranks[files[key]]:
            files[key] = path
    return sets


def _files_in(folder: Path) -> Iterator[Path]:
    """Regular files in a folder and in the folders inside, to a limited depth."""
    waiting, count = [(folder, 0)], 0
    while waiting and count < _MOST_ENTRIES:
        place, depth = waiting.pop(0)
        try:
            entries = sorted(place.iterdir())
        except OSError:
            if place == folder:
                raise
            continue  # a folder inside that cannot be read
        for entry in entries:
            count += 1
            if entry.is_dir():
                if depth < _DEPTH and entry.name[0] != ".":
                    waiting.append((entry, depth + 1))
            elif entry.is_file():
                yield entry


def _rank(name: str) -> int:
    return len(_SIDES["images" if "images" in name else "labels"])


def _parser() -> Callable[[BinaryIO], NDArray[Any]]:
    # Imported late, because the package imports urllib, which nothing here needs.
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
            # The contents decide, because some browsers decompress a download and keep its ".gz".
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
    """Header and body. The body has exactly the length that the header promises."""
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
    # Memory grows with the bytes that arrive, not with the promise.
    parts, left = [header], size
    while left and (part := file.read(min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    if left:
        raise DatasetError(f"{path} is truncated: {size:,} bytes promised, {size - left:,} found")
    if file.read(1):  # at the end of a gzip stream this also checks its CRC
        raise DatasetError(f"{path} is longer than the {size:,} bytes that its header promises")
    return b"".join(parts)
