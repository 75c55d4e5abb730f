"""Files of weights by name: safetensors, PyTorch's zip format, and Keras's HDF5 files.

Nothing in a file is trusted. A file's kind follows from its contents. Sizes are compared with the
length of the file before memory is taken, so arrays never take more memory than the file, or twice
as much for bfloat16, which becomes float32. No code in a file runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from typing import Literal, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath
from fastcnn.core.quoting import quoted
from fastcnn.core.reading import open_regular
from fastcnn.exchange import keras_files, torch_files, zip_files
from fastcnn.exchange.file_arrays import bfloat16, checked_shape, refusal

Library = Literal["pytorch", "keras"]

_LARGEST_HEADER = 100 << 20  # bytes
_DTYPES = {
    "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8", "BOOL": "?", "I8": "i1", "U8": "u1",
    "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8",
}  # fmt: skip
"""NumPy's dtypes of safetensors; bfloat16 is read as the integers of its bits."""


class WeightsFile(NamedTuple):
    """The arrays of a file.

    Attributes:
        path: the file.
        library: the library whose layout the arrays have.
        arrays: read-only arrays by name, in the order of the file.
        ordered: whether the order of the arrays is that of the layers in their net.
    """

    path: str
    library: Library
    arrays: dict[str, Array]
    ordered: bool


def read_weights(path: FilePath) -> dict[str, Array]:
    """The arrays of a file of weights by name, in the layout of the library that wrote it.

    It reads safetensors files, files of ``torch.save`` with a state dictionary, and Keras's
    ``.weights.h5`` and ``.keras``. :func:`fastcnn.load_weights` puts them into a model.

    Args:
        path: the file.

    Returns:
        Read-only arrays by name, such as ``{"conv1.weight": …}``. bfloat16 becomes float32; all
        other dtypes stay.

    Raises:
        ModelFileError: the file is damaged, holds more than arrays, or is of another kind.
        ImportError: a file of Keras, without h5py.
        OSError: the file cannot be opened.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from safetensors.numpy import save_file
        >>> with TemporaryDirectory() as folder:
        ...     save_file({"fc.bias": np.zeros(3, np.float32)}, f"{folder}/net.safetensors")
        ...     read_weights(f"{folder}/net.safetensors")
        {'fc.bias': array([0., 0., 0.], dtype=float32)}
    """
    return weights_of(path).arrays


def weights_of(path: FilePath) -> WeightsFile:
    """The contents of a file of weights; errors are those of :func:`read_weights`."""
    name = os.fsdecode(path)
    with open_regular(name) as file:
        start = file.read(16)
        if start.startswith(b"PK\x03\x04"):
            records = zip_files.records_of(name, file)
            if "config.json" in records or any(key.endswith(".weights.h5") for key in records):
                return WeightsFile(name, "keras", keras_files.read_archive(name, records), False)
            return WeightsFile(name, "pytorch", torch_files.read(name, records), True)
        if start.startswith(b"\x89HDF\r\n\x1a\n"):
            return WeightsFile(name, "keras", keras_files.read(name, file), False)
        _refuse_others(name, start)
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        if size < 8 or int.from_bytes(start[:8], "little") > min(size - 8, _LARGEST_HEADER):
            raise refusal(name, "it is truncated, or no file of weights")
        data = np.fromfile(file, np.uint8)
    data.flags.writeable = False
    arrays = _safetensors(name, data)
    # safetensors sorts the arrays by dtype and name, so their order says nothing of the net.
    return WeightsFile(name, "pytorch", arrays, [*arrays] != sorted(arrays))


def _refuse_others(name: str, start: bytes) -> None:
    """Raise the error for files of weights that are not read."""
    if start[8:9] == b"{":
        return  # the header of a safetensors file, after its length
    if start[:1] == b"\x80":
        raise refusal(
            name,
            "it is a pickle, as PyTorch wrote it before version 1.6, which could run any code; "
            "write it anew in PyTorch: torch.save(torch.load(path, weights_only=True), path)",
        )
    if start.startswith(b"\x93NUMPY"):
        raise refusal(name, "it is one array of NumPy; save a state dictionary as safetensors")
    if start[:1] == b"\x08":
        raise refusal(name, "it is probably an ONNX model, which is no file of weights")


def _safetensors(name: str, data: Array) -> dict[str, Array]:
    """The arrays of a safetensors file (bytes,), as views of it, in the order of the file."""
    length = int.from_bytes(data[:8].tobytes(), "little")
    try:
        header = json.loads(data[8 : 8 + length].tobytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise refusal(name, f"its header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise refusal(name, "its header is no JSON object")
    metadata = header.pop("__metadata__", None)
    if isinstance(metadata, dict) and metadata.get("format") == "fastcnn model":
        raise refusal(name, "it is a whole model of fastcnn; read it with fastcnn.load_model")
    body = data[8 + length :]
    entries = [(_offsets(name, key, entry), key) for key, entry in header.items()]
    entries.sort()
    arrays, end = dict[str, Array](), 0
    for (first, stop), key in entries:
        if first != end:
            raise refusal(name, f"the array {quoted(key)} overlaps another one, or leaves a gap")
        end = stop
        arrays[key] = _array(name, key, header[key], body[first:stop])
    if end != len(body):
        raise refusal(name, f"its arrays end at {end} of {len(body)} bytes; it may be truncated")
    return arrays


def _offsets(name: str, key: str, entry: object) -> tuple[int, int]:
    """First byte and end of an array."""
    if not isinstance(entry, Mapping) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise refusal(name, f"the entry of the array {quoted(key)} is {quoted(entry)}")
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise refusal(name, f"the array {quoted(key)} has the offsets {quoted(offsets)}")
    first, stop = offsets
    if type(first) is not int or type(stop) is not int or not 0 <= first <= stop < 2**62:
        raise refusal(name, f"the array {quoted(key)} has the offsets {quoted(offsets)}")
    return first, stop


def _array(name: str, key: str, entry: Mapping[str, object], part: Array) -> Array:
    """An array from its bytes."""
    kind = entry["dtype"]
    shape = checked_shape(name, key, entry["shape"])
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise refusal(
            name,
            f"the array {quoted(key)} has the dtype {quoted(kind)}; floats of 16, 32 and 64 bits, "
            f"bfloat16 and integers are read",
        )
    dtype = np.dtype(_DTYPES[kind])
    if prod(shape) * dtype.itemsize != len(part):
        raise refusal(
            name,
            f"the array {quoted(key)} of shape {shape} and dtype {kind} does not have "
            f"{len(part)} bytes",
        )
    array = np.frombuffer(part.tobytes() if part.ctypes.data % 8 else part, dtype)
    array = bfloat16(array) if kind == "BF16" else array
    result = array.reshape(shape)
    result.flags.writeable = False
    return result
