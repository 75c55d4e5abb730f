"""Model files: one safetensors file, with the architecture in its metadata.

The metadata holds ``format``, ``version``, ``model`` (JSON: layers, input shape, dtype, loss, and
in a training checkpoint where the training stands) and ``sha256`` of all that. Weights are HWIO, as
in memory. A file is replaced at once: a reader finds the old file or the new one, whole.

Reading trusts nothing. Header, version and architecture are checked, and every array's shape and
dtype against the architecture, before memory is taken for any array. The checksum tells of edits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath, check_writable, write_whole
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted, shortened
from fastcnn.core.reading import open_regular
from fastcnn.nn.layers import Shape

FORMAT = "fastcnn model"
VERSION = 2
_READABLE = (1, VERSION)
"""Version 1 has no graph and no names of layers. Files that need neither are still written as 1, so
that earlier versions of fastcnn read them."""

_LARGEST_HEADER = 16 << 20  # bytes
_LONGEST_REASON = 1000  # characters
_DTYPES = {
    "F16": "float16", "F32": "float32", "F64": "float64", "BOOL": "bool", "I8": "int8",
    "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8", "U16": "uint16",
    "U32": "uint32", "U64": "uint64",
}  # fmt: skip


class ModelFileError(ValueError):
    """A model file that cannot be used: truncated, damaged, edited, or of an unknown kind."""


def write(
    path: FilePath,
    model: JsonObject,
    arrays: dict[str, Array],
    check: Callable[[ModelFile], object] | None = None,
) -> None:
    """Write a model file, or replace one, at once; an error leaves the earlier file as it was.

    The new file is opened and read again before it takes the earlier one's place, so no file is
    left that cannot be read. The same model gives the same bytes.

    Args:
        path: where to.
        model: what JSON holds of the model.
        arrays: its arrays by name.
        check: is called with the new file after reading; its error counts as one of reading.

    Raises:
        ModelFileError: the file could not be read again, because its header is too long, or
            because ``check`` refuses it.
        OSError: the file cannot be written; ``filename`` is ``path``.
        TypeError, ValueError: ``path`` is no path, or no file can have such a name.
    """
    from safetensors.numpy import save

    check_writable(path)
    text = json.dumps(model, default=_plain)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION if model.keys() & {"graph", "names"} else 1),
        "model": text,
        "sha256": _digest(text, arrays, arrays.__getitem__),
    }
    data = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata)
    data = _in_order(data)
    header = int.from_bytes(data[:8], "little")
    if header > _LARGEST_HEADER:
        raise ModelFileError(
            f"{os.fsdecode(path)} cannot be saved: its header would be {header} bytes, of at most "
            f"{_LARGEST_HEADER}, which hold layers, settings and the state of callbacks; arrays "
            f"and long lists of numbers do not count, because they are stored beside it"
        )

    def verify(name: str) -> None:
        try:
            file = read(name)
            if check is not None:
                check(file)
            file.verify()
        except ModelFileError as error:
            reason = str(error).removeprefix(f"{name} cannot be loaded: ")
            raise ModelFileError(
                f"{os.fsdecode(path)} cannot be saved, because it could not be loaded: {reason}"
            ) from None

    write_whole(path, data, verify)


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata in order, because safetensors has another order each time.

    So two equal trainings give equal files, which can be compared by their checksums.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays stay aligned
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[end:]])


@dataclass(frozen=True)
class ModelFile:
    """What a model file's header says.

    Attributes:
        path: the file.
        model: the JSON of :func:`write`.
        shapes: of each array its shape and dtype.
    """

    path: str
    model: JsonObject
    shapes: dict[str, tuple[Shape, str]]
    _text: str
    _sha256: str
    _file: Any

    def expect(self, expected: dict[str, tuple[Shape, str]]) -> None:
        """Raise :class:`ModelFileError` where the file's arrays are not exactly these."""
        for name, (shape, dtype) in expected.items():
            if name not in self.shapes:
                raise self.error(f"the array {name} is missing")
            if self.shapes[name] != (shape, dtype):
                actual_shape, actual_dtype = self.shapes[name]
                raise self.error(
                    f"the array {name} is {actual_dtype} of shape {actual_shape}, but the "
                    f"architecture needs {dtype} of shape {shape}"
                )
        unexpected = sorted(self.shapes.keys() - expected.keys())
        if unexpected:
            raise self.error(f"the architecture has no array {unexpected[0]}")

    def arrays(self) -> dict[str, Array]:
        """All arrays, after the checksum was compared."""
        arrays = {name: self._array(name) for name in self.shapes}
        self._compare(_digest(self._text, arrays, arrays.__getitem__))
        return arrays

    def verify(self) -> None:
        """Compare the checksum, one array after the other; none is kept."""
        self._compare(_digest(self._text, self.shapes, self._array))

    def _array(self, name: str) -> Array:
        from safetensors import SafetensorError

        try:
            # From the file that was opened for the header; another may have its name by now.
            array: Array = self._file.get_tensor(name)
        except (SafetensorError, ValueError, TypeError) as error:
            raise self.error(str(error)) from None
        return array

    def _compare(self, digest: str) -> None:
        if digest != self._sha256:
            raise self.error(
                "its checksum does not fit its contents; it was damaged, or edited by hand"
            )

    def error(self, reason: str) -> ModelFileError:
        """The error for this file."""
        return _refusal(self.path, reason)


def read(path: FilePath) -> ModelFile:
    """The header of a model file; no array is read.

    Raises:
        ModelFileError: no whole model file of a known version.
        OSError: the file cannot be opened, or is no regular file.
    """
    from safetensors import SafetensorError, safe_open

    name = os.fsdecode(path)
    _check_length(name)
    try:
        file: Any = safe_open(name, framework="np")
        metadata = file.metadata() or {}
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
        shapes = {
            key: (tuple(part.get_shape()), _DTYPES.get(part.get_dtype(), part.get_dtype()))
            for key, part in slices.items()
        }
    except (SafetensorError, ValueError, TypeError) as error:
        raise _refusal(name, str(error)) from None
    if metadata.get("format") != FORMAT:
        raise _refusal(
            name,
            "it holds no model of fastcnn; fastcnn.load_weights reads weights of other libraries",
        )
    if metadata.get("version") not in [str(version) for version in _READABLE]:
        raise _refusal(
            name,
            f"it is of format version {quoted(metadata.get('version'))}, and this version of "
            f"fastcnn reads {' and '.join(map(str, _READABLE))}",
        )
    text = metadata.get("model", "")
    try:
        model = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(name, f"its architecture: {error}") from None
    if not isinstance(model, dict):
        raise _refusal(name, "its architecture is no JSON object")
    return ModelFile(name, model, shapes, text, metadata.get("sha256", ""), file)


def _check_length(name: str) -> None:
    """Compare the length of the header, as the file states it, with the length of the file."""
    with open_regular(name) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        header = int.from_bytes(start, "little")
    if size < 8 or header > min(size - 8, _LARGEST_HEADER):
        raise _refusal(
            name,
            _other_kind(name, start)
            or f"it is truncated, or no safetensors file ({size} bytes, of which the header would "
            f"be {header})",
        )


def _other_kind(name: str, start: bytes) -> str | None:
    """What a file that is no safetensors file seems to be, by its first bytes or name, or None."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix == ".onnx":
        return "it is an ONNX file, which fastcnn.load_onnx reads"
    if start.startswith((b"PK\x03\x04", b"\x89HDF")) or suffix in (".pt", ".pth", ".h5", ".keras"):
        return (
            "it is no safetensors file of fastcnn; fastcnn.load_weights(model, path) reads weights "
            "of PyTorch and Keras into a model"
        )
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return "it is a picture, no model"
    return None


def _refusal(name: str, reason: str) -> ModelFileError:
    """The error for a file. Its reason is shortened, because it may quote much of the file."""
    return ModelFileError(f"{name} cannot be loaded: {shortened(reason, _LONGEST_REASON)}")


def _digest(text: str, names: Iterable[str], array_of: Callable[[str], Array]) -> str:
    digest = sha256(text.encode())
    for name in sorted(names):
        array = np.asarray(array_of(name), order="C")
        digest.update(f"\0{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _plain(value: object) -> Any:
    """NumPy's numbers and arrays as JSON holds them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a model file holds numbers, text, lists and dicts, got {quoted(value)}")
