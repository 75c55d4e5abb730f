"""The wire format of ONNX files, which is that of protobuf.

A file is walked once before it is parsed, so that a small file cannot become millions of objects.
The tensors are cut out of it, because the parser would copy their numbers twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fastcnn.exchange.onnx_functions import OnnxFileError

MOST_FIELDS = 3_000_000  # outside of tensors' numbers
_DEEPEST = 60
_GRAPH, _INITIALIZER = 7, 5
"""Numbers of fields: of the graph in a model, and of the tensors in a graph."""
_NUMBERS = {9: None, 4: 1, 10: 11}
"""Fields of a tensor with the bytes of its numbers, and the element type that each is for."""

# For each message its fields that are messages again; leaves are counted, not entered.
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "Leaf", 14: "Leaf", 20: "Leaf", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 11: "Info", 12: "Info", 13: "Info", 14: "Leaf", 15: "Sparse"},
    "Node": {5: "Attribute", 9: "Leaf", 10: "Leaf"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 14: "Info", 22: "Sparse"},
    "Function": {7: "Node", 9: "Leaf", 11: "Attribute", 12: "Info", 14: "Leaf"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Leaf", 16: "Leaf"},
    "Info": {2: "Type", 4: "Leaf"},
    "Type": {1: "TensorType", 4: "Leaf", 5: "Leaf", 8: "Leaf", 9: "Leaf"},
    "TensorType": {2: "Shape"},
    "Shape": {1: "Leaf"},
    "Leaf": {},
}


def walk(data: bytes) -> None:
    """Raise an error for a file with too many fields, or messages too deep in each other."""
    count = 0
    waiting = [(0, len(data), "Model", 0)]
    while waiting:
        at, end, kind, depth = waiting.pop()
        inner = _MESSAGES[kind]
        if depth > _DEEPEST:
            raise OnnxFileError("its messages lie too deep in each other")
        while at < end:
            count += 1
            if count > MOST_FIELDS:
                raise OnnxFileError(f"it has more than {MOST_FIELDS:,} fields")
            tag, at = _varint(data, at, end)
            wire = tag & 7
            if wire == 0:
                _, at = _varint(data, at, end)
            elif wire == 1:
                at += 8
            elif wire == 5:
                at += 4
            elif wire == 2:
                length, at = _varint(data, at, end)
                if length > end - at:
                    raise OnnxFileError("it is no ONNX file, or it ends too early")
                if tag >> 3 in inner:
                    waiting.append((at, at + length, inner[tag >> 3], depth + 1))
                at += length
            else:
                raise OnnxFileError("it is no ONNX file, or it is damaged")
        if at > end:
            raise OnnxFileError("it is no ONNX file, or it ends too early")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise OnnxFileError("it is no ONNX file, or it ends too early")


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: what the field is.
        start: where it begins, with its number.
        value: where its value begins.
        end: where it ends.
    """

    number: int
    start: int
    value: int
    end: int


def _fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of a message that :func:`walk` has been through."""
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        value = at
        wire = tag & 7
        if wire == 2:
            length, value = _varint(data, at, end)
            at = value + length
        elif wire == 0:
            _, at = _varint(data, at, end)
        else:
            at += 8 if wire == 1 else 4
        # Only messages and bytes have numbers that a caller looks for.
        yield Field(tag >> 3 if wire == 2 else 0, start, value, at)


class TensorBytes(NamedTuple):
    """A tensor of a file.

    Attributes:
        message: without the numbers, if ``raw`` has them.
        raw: the bytes of the numbers; None if the message has them.
        kind: the element type that ``raw`` must have; None if any will do.
    """

    message: bytes
    raw: memoryview | None
    kind: int | None = None


def split_off_tensors(data: bytes) -> tuple[bytes, list[TensorBytes]]:
    """A model without the tensors of its graph, and these tensors."""
    model, graph, tensors = bytearray(), bytearray(), list[TensorBytes]()
    for outer in _fields(data, 0, len(data)):
        if outer.number != _GRAPH:
            model += data[outer.start : outer.end]
            continue
        for field in _fields(data, outer.value, outer.end):
            if field.number == _INITIALIZER:
                tensors.append(_tensor(data, field))
            else:
                graph += data[field.start : field.end]
    head = bytes([_GRAPH << 3 | 2])
    return bytes(model) + head + _as_varint(len(graph)) + bytes(graph), tensors


def _tensor(data: bytes, tensor: Field) -> TensorBytes:
    message, raw, kind = bytearray(), None, None
    for field in _fields(data, tensor.value, tensor.end):
        if field.number not in _NUMBERS:
            message += data[field.start : field.end]
        elif raw is None:
            raw, kind = memoryview(data)[field.value : field.end], _NUMBERS[field.number]
        else:  # in pieces, which the parser joins
            return TensorBytes(data[tensor.value : tensor.end], None)
    return TensorBytes(bytes(message), raw, kind)


def _as_varint(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])
