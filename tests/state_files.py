"""Small writers of PyTorch's files, so that tests need no PyTorch: a zip file with a pickle.

The pickle is put together from its instructions, so a test can also write what PyTorch never does.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastcnn.core.arguments import Array

KINDS = {
    "float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip

PROTOCOL = b"\x80\x02"
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def value(one: object) -> bytes:
    """The instructions of text, numbers, booleans and tuples of them."""
    if isinstance(one, tuple):
        return b"(" + b"".join(map(value, one)) + b"t"
    return pickle.dumps(one, 2)[2:-1]


def storage(key: str, kind: str, size: int) -> bytes:
    """The instructions of a storage."""
    parts = b"(" + value("storage") + f"ctorch\n{kind}\n".encode()
    return parts + value(key) + value("cpu") + value(size) + b"tQ"


def tensor(
    of: bytes, offset: int, shape: Sequence[int], strides: Sequence[int], more: bytes = b""
) -> bytes:
    """The instructions of a tensor in a storage."""
    rest = value(offset) + value(tuple(shape)) + value(tuple(strides)) + b"\x89" + ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + of + rest + more + b"tR"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    """The instructions of an ordered dictionary, with versions of modules as PyTorch adds them."""
    entries = b"".join(value(key) + part for key, part in items.items())
    versions = b"}" + value("_metadata") + ORDERED_DICT + b"s"
    return ORDERED_DICT + b"(" + entries + b"u" + versions + b"b"


def state_dict(arrays: Mapping[str, Array]) -> tuple[bytes, dict[str, bytes]]:
    """The instructions of a state dictionary, and its storages; a storage for each array."""
    items, storages = dict[str, bytes](), dict[str, bytes]()
    for i, (name, array) in enumerate(arrays.items()):
        key, kind = str(i), KINDS[array.dtype.name]
        strides = [step // array.itemsize for step in np.empty(array.shape, array.dtype).strides]
        items[name] = tensor(storage(key, kind, array.size), 0, array.shape, strides)
        storages[key] = array.tobytes()
    return dictionary(items), storages


def write_archive(
    path: Path,
    instructions: bytes,
    storages: Mapping[str, bytes],
    more: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Write the zip file of a pickle and its storages."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("net/data.pkl", PROTOCOL + instructions + b".")
        for key, data in storages.items():
            file.writestr(f"net/data/{key}", data)
        for name, data in (more or {"byteorder": b"little", "version": b"3\n"}).items():
            file.writestr(f"net/{name}", data)


def write_state_dict(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write what ``torch.save`` writes of a state dictionary."""
    write_archive(path, *state_dict(arrays))


def write_safetensors(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write what safetensors' functions for PyTorch write: arrays in the order of their names."""
    from safetensors.numpy import save_file

    save_file({name: np.array(arrays[name], order="C") for name in sorted(arrays)}, path)


def header_of(arrays: Mapping[str, tuple[str, Sequence[int], int, int]], body: bytes) -> bytes:
    """A safetensors file of entries (dtype, shape, first byte, end), which may be wrong."""
    import json

    text = json.dumps(
        {
            name: {"dtype": kind, "shape": [*shape], "data_offsets": [first, stop]}
            for name, (kind, shape, first, stop) in arrays.items()
        }
    ).encode()
    return struct.pack("<Q", len(text)) + text + body
