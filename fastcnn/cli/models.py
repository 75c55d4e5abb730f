"""Models of files, whichever kind the file is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcnn.cli.reading import AS_THE_FILE_SAYS, Layout, Reading

if TYPE_CHECKING:
    from fastcnn.bench.own_models import ModelTask
    from fastcnn.exchange.onnx_model import OnnxModel
    from fastcnn.models.model import Model


COLORS = (1, 3)
"""Numbers of channels of pictures."""


def is_onnx(path: Path) -> bool:
    """Whether the name is that of an ONNX file."""
    return path.suffix.lower() == ".onnx"


def open_model(
    path: Path, reading: Reading = AS_THE_FILE_SAYS, *, needs_size: bool = False
) -> Model:
    """The model of a fastcnn file, or of an ONNX file; images are NHWC.

    An ONNX file also tells the names of classes, and one that fastcnn wrote how pictures are
    prepared. ``reading`` says what a file of another program leaves open. With ``needs_size`` a
    file must have images of a fixed size, unless ``reading`` says which.

    Raises ``ValueError`` where ``reading`` does not fit the file.
    """
    from fastcnn.models.sequential import load_model

    if is_onnx(path):
        model: Model = _onnx_model(path, reading, needs_size)
    else:
        for option, value in (("--size", reading.size), ("--layout", reading.layout)):
            if value is not None:
                raise ValueError(f"{option} must be left out, because {str(path)!r} says it itself")
        model = load_model(path)
    if reading.scaling is not None:
        if model.trained_on == "uint8":
            raise ValueError(
                f"--scaling must be left out, because MODEL takes bytes, which it scales by "
                f"{model.scaling}"
            )
        model.scaling, model.trained_on = reading.scaling, "uint8"
    if reading.classes is not None:
        model.classes = reading.classes
    return model


def _onnx_model(path: Path, reading: Reading, needs_size: bool) -> OnnxModel:
    """The model of an ONNX file, for images of the size and in the layout of ``reading``."""
    from fastcnn.exchange.onnx_import import model_of
    from fastcnn.exchange.onnx_metadata import has_images_last, is_own
    from fastcnn.exchange.onnx_reading import read_onnx

    graph = read_onnx(path)
    declared = [one.shape for one in graph.inputs if one.shape is not None and len(one.shape) == 4]
    if len(declared) != 1 or len(graph.inputs) != 1:
        for option, value in (("--size", reading.size), ("--layout", reading.layout)):
            if value is not None:
                raise ValueError(
                    f"{option} must be left out, because MODEL has no input of images alone"
                )
        return model_of(graph, path, "channels_last")
    if reading.scaling is not None and graph.inputs[0].dtype.kind != "f":
        raise ValueError(
            f"--scaling must be left out, because MODEL takes {graph.inputs[0].dtype.name}"
        )
    if reading.layout is not None and is_own(graph):
        raise ValueError("--layout must be left out, because MODEL says it itself")
    ((_, *sides),) = declared
    own_last = has_images_last(graph)
    last = own_last or reading.layout is Layout.channels_last
    last |= reading.layout is None and sides[2] in COLORS and sides[0] not in COLORS
    *size, channels = sides if last else (sides[1], sides[2], sides[0])
    input_shape = None
    if reading.size is not None:
        for side, wanted in zip(size, reading.size, strict=True):
            if isinstance(side, int) and side != wanted:
                raise ValueError(
                    f"--size must fit MODEL, whose images have sides {tuple(size)}, got "
                    f"{reading.size[0]}x{reading.size[1]}"
                )
        input_shape = (*reading.size, channels if isinstance(channels, int) else 3)
    elif needs_size and not all(isinstance(side, int) for side in size):
        raise ValueError(
            "--size must be given, because MODEL leaves the height and width of its images free: "
            "the sides that it was trained on, such as --size 224"
        )
    return model_of(graph, path, "file" if last and not own_last else "channels_last", input_shape)


def model_task(path: Path, batch: int) -> ModelTask:
    """What ``fastcnn bench`` times of a file: its model, and random inputs.

    All runners take an ONNX file's inputs as the file declares them. A fastcnn file becomes an ONNX
    file for the others, in which images are NCHW, as they like it.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    return _onnx_task(path, batch, rng) if is_onnx(path) else _fastcnn_task(path, batch, rng)


def _onnx_task(path: Path, batch: int, rng: Any) -> ModelTask:
    from fastcnn.bench.own_models import ModelTask
    from fastcnn.bench.pages import at_page
    from fastcnn.exchange.onnx_import import load_onnx

    arrays = load_onnx(path).random_inputs(batch, rng)
    inputs = {name: at_page(array) for name, array in arrays.items()}
    return ModelTask(
        path.name, batch, lambda: load_onnx(path), inputs, str(path), inputs, channels_first=False
    )


def _fastcnn_task(path: Path, batch: int, rng: Any) -> ModelTask:
    import numpy as np

    from fastcnn.bench.contest import Skipped
    from fastcnn.bench.own_models import ModelTask
    from fastcnn.bench.pages import at_page
    from fastcnn.exchange.onnx_export import onnx_model
    from fastcnn.models.sequential import load_model

    model = load_model(path)
    trained_on: Any = model.trained_on
    shapes, names = model._known_shapes(), model._input_names()
    kinds = trained_on if isinstance(trained_on, tuple) else (trained_on,) * len(shapes)
    samples = [
        at_page(
            rng.integers(0, 256, (batch, *shape)).astype(np.uint8)
            if kind == "uint8"
            else rng.standard_normal((batch, *shape)).astype(model.dtype)
        )
        for shape, kind in zip(shapes, kinds, strict=True)
    ]
    graph: bytes | Skipped
    try:
        graph = onnx_model(model, "channels_first").SerializeToString()
    except (ValueError, ImportError) as error:
        graph = Skipped("", f"the model has no ONNX file: {error}")
    channels_first = [at_page(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x for x in samples]
    return ModelTask(
        path.name,
        batch,
        lambda: load_model(path),
        samples[0] if len(samples) == 1 else samples,
        graph,
        dict(zip(names, channels_first, strict=True)),
        channels_first=True,
    )
