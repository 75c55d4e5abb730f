"""The tensors of ONNX files as arrays.

Sizes are compared with the bytes that are there. External data lie in the file's folder, and no
link leads out of it.
"""

from __future__ import annotations

import os
from math import prod
from typing import Any

import numpy as np

from fastcnn.core.quoting import quoted
from fastcnn.core.reading import open_regular
from fastcnn.exchange.onnx_functions import Array, OnnxFileError
from fastcnn.exchange.onnx_functions.elementwise import dtype_named
from fastcnn.exchange.onnx_wire import TensorBytes

MOST_AXES = 32

_FIELDS = {
    1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data",
    **dict.fromkeys((2, 3, 4, 5, 6, 9, 10, 16), "int32_data"),
}  # fmt: skip


def tensor_array(tensor: Any, folder: str, own: TensorBytes | None = None) -> Array:
    """A tensor of the file as an array.

    Args:
        tensor: the message of the tensor.
        folder: that of the file, for external data.
        own: where the file has the numbers, if they are not part of the message.
    """
    label = f"tensor {quoted(tensor.name)}"
    shape = tuple(int(side) for side in tensor.dims)
    if len(shape) > MOST_AXES or any(side < 0 for side in shape):
        raise OnnxFileError(f"{label} has the shape {shape[:40]}, which no array can have")
    kind = dtype_named(tensor.data_type)
    if kind is None:
        raise OnnxFileError(
            f"{label} has the element type {tensor.data_type}, which fastcnn does not read"
        )
    if tensor.HasField("segment"):
        raise OnnxFileError(f"{label} is a segment of another tensor, which fastcnn does not read")
    numbers, size = prod(shape), prod(shape) * kind.itemsize
    raw: bytes | memoryview | None = None if own is None else own.raw
    if own is not None and own.kind not in (None, tensor.data_type):
        raise OnnxFileError(f"{label} has numbers of another element type than its own")
    if raw is None and tensor.HasField("raw_data"):
        raw = tensor.raw_data
    if tensor.data_location == 1:
        raw = _external(tensor, folder, size, label)
    elif raw is not None:
        if len(raw) != size:
            raise OnnxFileError(f"{label} of shape {shape} needs {size} bytes, got {len(raw)}")
    else:
        values = getattr(tensor, _FIELDS[tensor.data_type])
        if len(values) != numbers:
            raise OnnxFileError(
                f"{label} of shape {shape} needs {numbers} numbers, got {len(values)}"
            )
        if tensor.data_type in (10, 16):  # 16 bits of a float in an integer
            bits = np.fromiter(values, np.int64, numbers)
            return bits.astype(np.uint16).view(kind).reshape(shape)
        return np.array(values, np.int64 if kind.kind in "ib" else None).astype(kind).reshape(shape)
    little = kind.newbyteorder("<") if kind.kind in "iufb" else kind
    array = np.frombuffer(raw, np.uint8 if kind == np.bool_ else little, numbers)
    result = (array != 0) if kind == np.bool_ else array.astype(kind, copy=False)
    return result.reshape(shape)


def _external(tensor: Any, folder: str, size: int, label: str) -> bytes:
    """The bytes of a tensor that lie in another file of the folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or "\0" in location or os.path.isabs(location) or "\\" in location:
        raise OnnxFileError(f"{label} lies in {quoted(location)}, which is no file of the folder")
    path = os.path.realpath(os.path.join(folder, location))
    if os.path.commonpath([path, os.path.realpath(folder)]) != os.path.realpath(folder):
        raise OnnxFileError(f"{label} lies in {quoted(location)}, outside of the file's folder")
    try:
        offset = int(entries.get("offset", "0")[:20] or 0)
        length = int(entries.get("length", str(size))[:20] or size)
    except ValueError:
        raise OnnxFileError(f"{label}: offset and length of its data must be integers") from None
    if offset < 0 or length != size:
        raise OnnxFileError(f"{label} needs {size} bytes of {quoted(location)}, got {length}")
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size < offset + size:
                raise OnnxFileError(f"{label}: {quoted(location)} ends before its data")
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise OnnxFileError(f"{label}: {quoted(location)} cannot be read: {error}") from None
    if len(data) != size:
        raise OnnxFileError(f"{label}: {quoted(location)} ends before its data")
    return data
