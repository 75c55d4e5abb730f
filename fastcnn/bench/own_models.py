"""The model of a file as a contest: inference on random inputs, beside readers of ONNX files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcnn.bench.contest import Contest, Runner, Skipped, in_strict_math, on_one_thread
from fastcnn.bench.report import ALONE, OURS, STRICT
from fastcnn.bench.standard import TOLERANCE, model_flops
from fastcnn.core.arguments import Array
from fastcnn.models.model import Model


@dataclass(frozen=True, eq=False)
class ModelTask:
    """A model of a file, and one batch of inputs.

    Attributes:
        name: what the table calls it.
        batch: number of samples.
        load: makes a new model, always with the same weights.
        samples: the argument of ``predict``: an array, or a dict or a list of arrays.
        onnx: the model for other libraries, as a file of ONNX or its bytes; or the reason why
            there is none.
        inputs: the arrays for other libraries, by the names of the ONNX file's inputs.
        channels_first: whether images are NCHW there and NHWC in ``samples``.
    """

    name: str
    batch: int
    load: Callable[[], Model]
    samples: Any
    onnx: bytes | str | Skipped
    inputs: dict[str, Array]
    channels_first: bool

    @property
    def title(self) -> str:
        """The title of the contest, such as "net.onnx, inference, batch 8"."""
        return f"{self.name}, inference, batch {self.batch}"

    def results(self, outputs: list[Array]) -> tuple[Array, ...]:
        """Copies of another library's outputs, in the layout of fastcnn's own."""
        moved = self.channels_first
        return tuple(
            np.array(y.transpose(0, 2, 3, 1) if moved and y.ndim == 4 else y) for y in outputs
        )


def contest(of: ModelTask) -> Contest:
    """The contest of fastcnn: by default, on one thread, in strict mathematics, and layer by
    layer on NumPy.

    The reference is the im2col engine, because the layers of a file need not compute in float64.
    """
    model, plain = of.load(), of.load()
    plain.engine = "im2col"
    reference = tuple(y.astype(np.float64) for y in _predicted(plain, of))
    arrays = [*of.inputs.values(), *model.get_weights()]
    result = Contest(
        of.title,
        "net_of_file",
        model_flops(model) * of.batch,
        sum(array.nbytes for array in arrays),
        reference,
        tuple(TOLERANCE * float(abs(y).max(initial=0)) for y in reference),
    )
    runner = _runner(OURS, model, of)
    result.runners.append(runner)
    result.runners.append(on_one_thread(_runner(ALONE, model, of)))
    result.runners.append(in_strict_math(_runner(OURS, of.load(), of), STRICT))
    result.runners.append(_runner("im2col", plain, of))
    result.skipped.append(Skipped("naive", "a model may take it minutes"))
    return result


def _runner(name: str, model: Model, of: ModelTask) -> Runner:
    return Runner(name, "fastcnn", lambda: model.predict(of.samples), lambda: _predicted(model, of))


def _predicted(model: Model, of: ModelTask) -> tuple[Array, ...]:
    y = model.predict(of.samples)
    return tuple(y) if isinstance(y, list | tuple) else (y,)
