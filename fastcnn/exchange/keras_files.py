"""Weights of Keras 3: ``.weights.h5`` files, and ``.keras`` archives, which hold such a file.

In the HDF5 file each layer has a group, such as ``layers/conv2d_1``, and in it a group ``vars``
with its arrays, which are numbered. Here such an array is called ``conv2d_1.0``. The state of an
optimizer, of metrics and of generators is left out. Links out of the file, compressed arrays and
arrays in other files are refused, so the arrays never take more memory than the file.
"""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted
from fastcnn.exchange.file_arrays import bfloat16, refusal
from fastcnn.exchange.zip_files import Records

_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_NO_WEIGHTS = ("optimizer", "metrics", "_metrics", "compile_metrics", "_compile_metrics", "loss")
_DEEPEST = 64
_MOST_GROUPS = 1 << 17


def read_archive(name: str, records: Records) -> dict[str, Array]:
    """The arrays of a ``.keras`` archive by name."""
    files = [key for key in records if key.endswith(".weights.h5")]
    if len(files) != 1:
        raise refusal(
            name, "it is no archive of Keras 3 with one .weights.h5; save the weights in Keras: "
            'model.save_weights("net.weights.h5")',
        )  # fmt: skip
    size = records.size(files[0])
    return _arrays(name, BytesIO(records[files[0]]), size)


def read(name: str, file: BinaryIO) -> dict[str, Array]:
    """The arrays of an open ``.weights.h5`` file by name."""
    file.seek(0)
    return _arrays(name, file, os.fstat(file.fileno()).st_size)


def _arrays(name: str, file: BinaryIO, size: int) -> dict[str, Array]:
    try:
        import h5py
    except ImportError:
        raise ImportError(
            f"h5py is needed for the weights of Keras in {name}: pip install 'fastcnn[keras]'"
        ) from None
    try:
        with h5py.File(file, "r") as root:
            if "layer_names" in root.attrs or "model_weights" in root:
                raise refusal(
                    name,
                    "it has the layout of Keras 2; load the model in Keras 3, and save its weights "
                    'there: model.save_weights("net.weights.h5")',
                )
            return _Reader(name, h5py, size).read(root)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{name} cannot"):
            raise
        raise refusal(name, f"it is no whole HDF5 file: {error}") from None


class _Reader:
    """A walk through the groups of a file."""

    def __init__(self, name: str, h5py: Any, size: int) -> None:
        self._name, self._h5py, self._left = name, h5py, size
        self._visited = set[object]()
        self._result = dict[str, Array]()

    def read(self, root: Any) -> dict[str, Array]:
        """The arrays of all groups ``vars``, by name."""
        self._walk(root, (), 0)
        if not self._result:
            raise refusal(self._name, "it has no group vars with arrays, as Keras 3 writes them")
        return self._result

    def _walk(self, group: Any, path: tuple[str, ...], depth: int) -> None:
        address = self._h5py.h5o.get_info(group.id).addr
        if depth > _DEEPEST or address in self._visited or len(self._visited) > _MOST_GROUPS:
            raise refusal(self._name, "its groups are nested too deeply, linked twice, or too many")
        self._visited.add(address)
        for key in group:
            if not isinstance(group.get(key, getlink=True), self._h5py.HardLink):
                raise refusal(self._name, f"its entry {quoted(key)} is a link")
            entry = group[key]
            if not isinstance(entry, self._h5py.Group):
                if path[-1:] == ("vars",):
                    self._take(entry, path, key)
            elif (path or key not in _NO_WEIGHTS) and "seed_generator" not in key:
                self._walk(entry, (*path, key), depth + 1)

    def _take(self, entry: Any, path: tuple[str, ...], key: str) -> None:
        """Read one array."""
        layer = ".".join(part for part in path[:-1] if part not in _CONTAINERS)
        label = f"{layer}.{key}" if layer else key
        if not isinstance(entry, self._h5py.Dataset) or entry.shape is None:
            raise refusal(self._name, f"{quoted(label)} is no array")
        if entry.chunks is not None or entry.external or entry.is_virtual:
            raise refusal(self._name, f"{quoted(label)} is compressed, or lies in another file")
        self._left -= entry.nbytes
        if self._left < 0:
            raise refusal(self._name, f"{quoted(label)} is larger than the file")
        is_bfloat16 = entry.attrs.get("dtype") == "bfloat16" and entry.dtype.itemsize == 2
        if entry.dtype.kind not in "fiub" and not is_bfloat16:
            raise refusal(self._name, f"{quoted(label)} holds {entry.dtype}, which are no numbers")
        array: Array = np.asarray(entry[()])
        if is_bfloat16 and array.dtype.kind == "V":
            array = bfloat16(array.view(np.uint16))
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        array.flags.writeable = False
        self._result[label] = array
