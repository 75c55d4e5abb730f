"""``load_onnx``: the model of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from fastcnn.core.files import FilePath
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.exchange.onnx_folding import folded
from fastcnn.exchange.onnx_functions import OnnxFileError
from fastcnn.exchange.onnx_metadata import describe, has_images_last, without_scaling
from fastcnn.exchange.onnx_model import OnnxModel
from fastcnn.exchange.onnx_reading import OnnxGraph, read_onnx
from fastcnn.nn.layers import Shape

Layout = Literal["file", "channels_last"]


def load_onnx(
    path: FilePath,
    layout: Layout = "file",
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
) -> OnnxModel:
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

        input_shape: the shape of a sample, without the batch and in the chosen layout, for which
            the model is built; it trains, and is saved, for samples of this shape. For several
            inputs a dict of shapes by name. Default: sizes that the file leaves free are chosen.

    Returns:
        A :class:`fastcnn.Model`, in float64 if the file computes in double, else in float32. Its
        ``classes`` are the names in the file's metadata, if there is one for each output. A file
        that fastcnn wrote also says how bytes are scaled and pictures are prepared.

    Raises:
        OnnxFileError: the file is damaged, or asks for what fastcnn does not do; the message names
            all operators that are missing. It is a ``ValueError``.
        ValueError, TypeError: another layout, or a shape that does not fit the file's inputs.
        OSError: the file cannot be opened.
        ModuleNotFoundError: the package ``onnx`` is not installed.

    Source: the operators follow ONNX's documentation, https://onnx.ai/onnx/operators/.
    """
    if layout not in ("file", "channels_last"):
        raise ValueError(f'layout must be "file" or "channels_last", got {quoted(layout)}')
    return model_of(read_onnx(path), path, layout, input_shape)


def model_of(
    graph: OnnxGraph,
    path: FilePath,
    layout: Layout = "file",
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
) -> OnnxModel:
    """The model of a graph that was read from a file; arguments and errors of :func:`load_onnx`."""
    last = layout == "channels_last" and not has_images_last(graph)
    graph, scaling = without_scaling(graph, images_last=last or has_images_last(graph))
    wide = [one.dtype for one in (*graph.inputs, *graph.outputs)]
    needs_double = any(
        kind == np.float64 or (kind.kind in "iu" and kind.itemsize > 2) for kind in wide
    )
    shapes = _asked_shapes(graph, input_shape, last)
    try:
        dtype = np.float64 if needs_double else np.float32
        model = OnnxModel(folded(graph), channels_last=last, dtype=dtype, input_shapes=shapes)
    except OnnxFileError as error:
        raise OnnxFileError(f"{quoted(path)}: {error}") from None
    describe(model, graph, scaling)
    return model


def _asked_shapes(
    graph: OnnxGraph,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None,
    channels_last: bool,
) -> dict[str, Shape]:
    """The shapes of samples that a caller asks for, by input and in the layout of the file."""
    if input_shape is None:
        return {}
    declared = {one.name: one.shape for one in graph.inputs}
    if not isinstance(input_shape, Mapping):
        if len(declared) != 1:
            raise ValueError(
                f"input_shape must be a dict of shapes for {quoted(list(declared))}, because the "
                f"file has several inputs, got {quoted(input_shape)}"
            )
        input_shape = {next(iter(declared)): input_shape}
    result: dict[str, Shape] = {}
    for name, sides in input_shape.items():
        if name not in declared:
            raise ValueError(
                f"input_shape must have shapes for {quoted([*declared])}, got {quoted(name)}"
            )
        if isinstance(sides, str) or not isinstance(sides, Sequence):
            raise TypeError(f"input_shape must be made of integers, got {quoted(sides)}")
        shape = tuple(count("input_shape", side) for side in sides)
        if channels_last and len(shape) == 3:
            shape = shape[2], shape[0], shape[1]
        expected = declared[name]
        if expected is not None and (
            len(shape) != len(expected) - 1
            or any(isinstance(a, int) and a != b for a, b in zip(expected[1:], shape, strict=True))
        ):
            raise ValueError(
                f"input_shape must fit {quoted(name)}, which the file declares as {expected}, got "
                f"{tuple(sides)}"
            )
        result[name] = shape
    return result
