"""Models of files, whichever kind the file is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcnn.bench.own_models import ModelTask
    from fastcnn.models.model import Model


def is_onnx(path: Path) -> bool:
    """Whether the name is that of an ONNX file."""
    return path.suffix.lower() == ".onnx"


def open_model(path: Path) -> Model:
    """The model of a fastcnn file, or of an ONNX file; images are NHWC.

    An ONNX file also tells the names of classes, and one that fastcnn wrote how pictures are
    prepared.
    """
    from fastcnn.models.sequential import load_model

    if not is_onnx(path):
        return load_model(path)
    from fastcnn.exchange.onnx_import import load_onnx

    return load_onnx(path, "channels_last")


def takes_floats() -> ValueError:
    """The error for pictures and the model of an ONNX file that takes floats."""
    from fastcnn.data.pixel_scaling import CENTRED

    return ValueError(
        "MODEL must take bytes (uint8 images), whose scaling it knows; this one takes floats, and "
        f"the file does not say how they are scaled. If it is by {CENTRED}, load the file by "
        "load_onnx(path, layout='channels_last') in Python, set model.trained_on = 'uint8', and "
        "save the model"
    )


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
