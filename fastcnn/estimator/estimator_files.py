"""Files of fitted estimators: the model's file, with what the estimator knows beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.data.scaling import KnownSamples, known_from
from fastcnn.models import model_files
from fastcnn.models.model import Model
from fastcnn.models.sequential import Sequential
from fastcnn.nn.layers import Shape, image_shape
from fastcnn.train import checkpoint
from fastcnn.train.checkpoint import ModelFile
from fastcnn.train.progress import UNREADABLE

_KINDS = "iufbU"
"""Kinds of dtypes of labels that a file can hold."""
_MOST = 1 << 20  # numbers or labels of one array


def write(path: FilePath, model: Model, record: JsonObject) -> None:
    """Write the model, and the record of its estimator, to one file; errors as of ``save``."""
    model_files.check_suffix(path)
    description = model_files.description(model) | {"estimator": record}
    checkpoint.write(path, description, dict(model._arrays()), model_files.check)


def read(path: FilePath, kind: str) -> tuple[Sequential, JsonObject, ModelFile]:
    """The model and the record of a file of an estimator of this class."""
    file = checkpoint.read(path)
    record = file.model.get("estimator")
    if not isinstance(record, dict) or record.get("class") != kind:
        class_name = record.get("class") if isinstance(record, dict) else None
        raise file.error(
            f"it holds no {kind}"
            + (
                f", but a {quoted(class_name)}"
                if class_name
                else "; fastcnn.load_model reads models"
            )
        )
    return model_files.model_from(file, Sequential), record, file


def as_record(array: Any) -> JsonObject | None:
    """An array of numbers or labels as JSON values; None for None.

    Raises ``ValueError`` for another dtype.
    """
    if array is None:
        return None
    values = np.asarray(array)
    if values.dtype.kind == "O" and all(isinstance(one, str) for one in values.ravel()):
        values = values.astype(str)
    if values.dtype.kind not in _KINDS:
        raise ValueError(
            f"labels must be numbers, booleans or texts to be saved, got dtype {values.dtype}"
        )
    return {"dtype": values.dtype.str, "values": values.tolist()}


def array_from(record: Any) -> Array | None:
    """The array of a result of :func:`as_record`; ``ValueError`` or ``TypeError`` for another."""
    if record is None:
        return None
    values = np.asarray(record["values"])
    dtype = np.dtype(record["dtype"])
    if dtype.kind not in _KINDS or values.ndim > 1 or values.size > _MOST:
        raise ValueError(f"its array must hold numbers or texts, got {quoted(record['dtype'])}")
    if values.size and (values.dtype.kind == "U") != (dtype.kind == "U"):
        raise ValueError("its array must hold values of its own type")
    return values.astype(dtype)


def knowledge_record(known: KnownSamples) -> JsonObject:
    """What the estimator knows of its samples."""
    return {"kind": known.kind, "record": known.as_dict()}


def knowledge_of(record: Any) -> KnownSamples:
    """The knowledge of a result of :func:`knowledge_record`."""
    known = known_from(record["kind"], record["record"])
    known.scales_bytes = False
    return known


def shape_of(record: Any) -> Shape:
    """The shape of a sample."""
    return image_shape(record)


__all__ = [
    "UNREADABLE", "array_from", "as_record", "knowledge_of", "knowledge_record", "read", "shape_of",
    "write",
]  # fmt: skip
