"""Models of files, whichever kind the file is."""

from __future__ import annotations

from json import loads
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastcnn.models.model import Model


def is_onnx(path: Path) -> bool:
    """Whether the name is that of an ONNX file."""
    return path.suffix.lower() == ".onnx"


def open_model(path: Path) -> Model:
    """The model of a fastcnn file, or of an ONNX file; images are NHWC.

    An ONNX file that fastcnn wrote also tells how pictures are prepared.
    """
    from fastcnn.models.sequential import load_model

    if not is_onnx(path):
        return load_model(path)
    from fastcnn.data.preparation import preparation_from
    from fastcnn.exchange.onnx_export import metadata_of
    from fastcnn.exchange.onnx_import import load_onnx

    model = load_onnx(path)  # the file is checked here, before anything else reads it
    metadata = metadata_of(path)
    if metadata.get("layout") != "channels_last":
        model = load_onnx(path, "channels_last")
    if "preparation" in metadata:
        model.preparation = preparation_from(loads(metadata["preparation"]))
    return model


def takes_floats() -> ValueError:
    """The error for pictures and the model of an ONNX file that takes floats."""
    from fastcnn.data.scaling import SCALING

    return ValueError(
        "MODEL must take bytes (uint8 images), whose scaling it knows; this one takes floats, and "
        f"the file does not say how they are scaled. If it is by {SCALING}, load the file by "
        "load_onnx(path, layout='channels_last') in Python, set model.trained_on = 'uint8', and "
        "save the model"
    )
