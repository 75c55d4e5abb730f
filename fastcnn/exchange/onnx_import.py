"""``load_onnx``: the model of an ONNX file."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fastcnn.core.files import FilePath
from fastcnn.core.quoting import quoted
from fastcnn.exchange.onnx_folding import folded
from fastcnn.exchange.onnx_functions import OnnxFileError
from fastcnn.exchange.onnx_metadata import describe, has_images_last, without_scaling
from fastcnn.exchange.onnx_model import OnnxModel
from fastcnn.exchange.onnx_reading import read_onnx

Layout = Literal["file", "channels_last"]


def load_onnx(path: FilePath, layout: Layout = "file") -> OnnxModel:
    """The model of an ONNX file.

    Its ``predict`` takes an array, or a dict by name for several inputs, and returns an array, or a
    list in the file's order for several outputs. Inside, images are NHWC: transpositions are moved
    and cancelled, and constants and the arithmetic on shapes are folded. Sizes that the file leaves
    free stay free.

    Args:
        path: the file.
        layout: "file" for inputs and outputs as the file declares them, usually images as NCHW;
            "channels_last" for images as NHWC, which saves the transpositions at the border.
            Files that fastcnn wrote say whether their images are NHWC already. Default "file".

    Returns:
        A :class:`fastcnn.Model`, in float64 if the file computes in double, else in float32. Its
        ``classes`` are the names in the file's metadata, if there is one for each output. A file
        that fastcnn wrote also says how bytes are scaled and pictures are prepared.

    Raises:
        OnnxFileError: the file is damaged, or asks for what fastcnn does not do; the message names
            all operators that are missing. It is a ``ValueError``.
        OSError: the file cannot be opened.
        ModuleNotFoundError: the package ``onnx`` is not installed.

    Source: the operators follow ONNX's documentation, https://onnx.ai/onnx/operators/.
    """
    if layout not in ("file", "channels_last"):
        raise ValueError(f'layout must be "file" or "channels_last", got {quoted(layout)}')
    graph = read_onnx(path)
    last = layout == "channels_last" and not has_images_last(graph)
    graph, scaling = without_scaling(graph, images_last=last or has_images_last(graph))
    wide = [one.dtype for one in (*graph.inputs, *graph.outputs)]
    needs_double = any(
        kind == np.float64 or (kind.kind in "iu" and kind.itemsize > 2) for kind in wide
    )
    try:
        dtype = np.float64 if needs_double else np.float32
        model = OnnxModel(folded(graph), channels_last=last, dtype=dtype)
    except OnnxFileError as error:
        raise OnnxFileError(f"{quoted(path)}: {error}") from None
    describe(model, graph, scaling)
    return model
