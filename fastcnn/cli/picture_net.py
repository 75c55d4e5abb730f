"""``PictureNet``: a model that takes pictures, whichever program wrote its file."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastcnn.cli.models import COLORS, open_model
from fastcnn.cli.reading import Reading, is_bgr, scaling_of_metadata
from fastcnn.core.arguments import Array

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastcnn.exchange.onnx_model import OnnxModel
    from fastcnn.models.model import Model

Shape = tuple[int, int, int]


class PictureNet:
    """A model with one input of pictures and one output of classes, as a command reads it.

    Attributes:
        model: the model; it takes bytes (N, H, W, C), in the order of channels of the net.
        shape: (H, W, C) of the pictures.
        is_bgr: whether the net takes blue, green, red.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        from fastcnn.exchange.onnx_model import OnnxModel
        from fastcnn.models.described import only_input

        self.model: Model = open_model(path, reading, needs_size=True)
        self._batch: int | None = None
        metadata: Mapping[str, str] = {}
        if isinstance(self.model, OnnxModel):
            metadata, self._batch = self.model.metadata, self.model.fixed_batch
            _set_scaling(self.model)
        elif self.model.trained_on == "floats":
            raise _takes_floats()
        shape = only_input(self.model)
        if len(shape) != 3 or shape[2] not in COLORS:
            raise ValueError(f"MODEL must take pictures of one or three channels, it takes {shape}")
        height, width, channels = shape
        self.shape: Shape = height, width, channels
        outputs = self.model._output_shapes()[0]
        if prod(outputs) != max(outputs):
            raise ValueError(f"MODEL must give classes, its output has the shape {outputs}")
        self.is_bgr = reading.bgr or is_bgr(metadata)
        if self.is_bgr and channels != 3:
            raise ValueError("--bgr must be left out, because MODEL takes one channel")

    @property
    def units(self) -> int:
        """The number of classes; 2 for one output, which is the probability of the second."""
        return max(2, max(self.model._output_shapes()[0]))

    def batch_of(self, image: Array) -> Array:
        """An image (H, W, C) in red, green, blue as the smallest batch that the model takes."""
        return np.repeat(self.pixels(image[np.newaxis]), self._batch or 1, axis=0)

    def classes_of(self, images: Array) -> Array:
        """The most probable class of each image (N, H, W, C), or (N, H, W): (N,) int64."""
        output = self.outputs(images[..., np.newaxis] if images.ndim == 3 else images)
        if output.shape[1] == 1:
            middle = 0.5 if output.min() >= 0 and output.max() <= 1 else 0
            return np.asarray(output[:, 0] > middle, np.int64)
        return np.asarray(output.argmax(axis=1))

    def pixels(self, images: Array) -> Array:
        """Images (N, H, W, C) in red, green, blue as the model takes them."""
        return np.ascontiguousarray(images[..., ::-1]) if self.is_bgr else images

    def outputs(self, images: Array) -> Array:
        """What the model gives for images in red, green, blue: (N, classes).

        A file that fixes the number of samples gets as many in each call. The last call is filled
        up with copies of its last image.
        """
        pixels = self.pixels(images)
        batch = self._batch
        if batch is None or not len(pixels):
            output = self.model.predict(pixels)
        else:
            parts = []
            for first in range(0, len(pixels), batch):
                part = pixels[first : first + batch]
                missing = batch - len(part)
                if missing:
                    part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
                parts.append(self.model.predict(part)[: batch - missing])
            output = np.concatenate(parts)
        return np.asarray(output.reshape(len(images), -1))


def _set_scaling(model: OnnxModel) -> None:
    """Give the model of an ONNX file the scaling of its metadata, where it needs one.

    Raises ``ValueError`` for a model of floats whose scaling is not known.
    """
    kinds = model.input_dtypes
    if model.trained_on is not None or len(kinds) != 1 or kinds[0] == np.uint8:
        return
    if kinds[0].kind != "f":
        raise ValueError(f"MODEL must take bytes or floats, it takes {kinds[0].name}")
    scaling = scaling_of_metadata(model.metadata)
    if scaling is None:
        raise _takes_floats()
    model.scaling, model.trained_on = scaling, "uint8"


def _takes_floats() -> ValueError:
    return ValueError(
        "MODEL must take bytes, but this one takes floats, and its file does not say how bytes "
        "become these. Give --scaling as in the training of the net: imagenet for the mean and "
        "standard deviation of ImageNet, or 0..1, -1..1, 0..255, or MEAN/STD"
    )
