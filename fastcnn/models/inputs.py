"""What a model takes as samples: images or vectors, bytes or floats.

Bytes (uint8) are pixels, and are scaled batch by batch, by default to ``x / 255 − 0.5``. Other
numbers are taken as they are. (N, H, W) is one channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.data.image_sets import ImageSet
from fastcnn.data.on_demand import Samples
from fastcnn.data.pixel_scaling import CENTRED, Scaling
from fastcnn.nn.layers import Shape
from fastcnn.train.streams import Batches

Inputs = ArrayLike | Sequence[ArrayLike] | Mapping[str, ArrayLike]
"""Samples or targets: an array, or for several inputs or outputs a list, or a dict by name."""

Source = Inputs | ImageSet | Batches
"""Samples, or what gives samples together with their targets."""

_USUAL = frozenset(map(np.dtype, (np.uint8, np.float32, np.float64)))
_SMALLEST_PICTURE = 8  # side
_PART = 1 << 20  # numbers that are checked together


def samples(name: str, x: ArrayLike, input_shape: Shape | None) -> Array:
    """``x`` as (N, H, W, C), (N, features) or (N, *input_shape), in the dtype that it has.

    A new view, because the caller may set the shape of ``x`` in place.

    Raises ``TypeError`` for anything but numbers, ``ValueError`` for samples of another shape than
    ``input_shape``; both name the argument.

    >>> samples("x", np.zeros((5, 28, 28), np.uint8), (28, 28, 1)).shape
    (5, 28, 28, 1)
    """
    if type(x) is np.ndarray:
        view = x[..., np.newaxis] if x.ndim == 3 else x[...]
        if view.dtype in _USUAL and view.ndim == 4 and view.shape[1:] == input_shape:
            return view  # the usual case, early because a prediction of one sample is short
    try:
        array: Array = np.asarray(x)[...]
    except ValueError as error:
        raise ValueError(f"{name} must be an array, got a ragged sequence: {error}") from None
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    is_usual = input_shape is None or len(input_shape) in (1, 3)
    if array.ndim == 3 and is_usual:
        array = array[..., np.newaxis]
    if (is_usual and array.ndim not in (2, 4)) or (
        input_shape is not None and array.shape[1:] != input_shape
    ):
        required = "(N, H, W), (N, H, W, C) or (N, features)"
        if input_shape is not None:
            required = f"(N, {', '.join(map(str, input_shape))})"
        raise ValueError(
            f"{name} must have the shape {required}, got {np.shape(x)}"
            + remedy(name, np.shape(x), input_shape)
        )
    return array


def channels_first(shape: Shape) -> bool:
    """Whether a sample's shape is probably (C, H, W), as in PyTorch, and not (H, W, C).

    It is where the first side is 1, 3 or 4, and the others are equal and at least 8; with three
    channels also where both are at least 16 and one is at most twice the other. Signals (1, W, C)
    and feature maps such as (3, 3, 256) are not.

    >>> channels_first((1, 28, 28)), channels_first((3, 48, 64)), channels_first((1, 128, 9))
    (True, True, False)
    """
    if len(shape) != 3 or shape[0] not in (1, 3, 4):
        return False
    short, long = sorted(shape[1:])
    if short == long:
        return short >= _SMALLEST_PICTURE
    return shape[0] == 3 and short >= 2 * _SMALLEST_PICTURE and long <= 2 * short


def layout_doubt(name: str, shape: Shape, count: int | None = None) -> str | None:
    """The sentence about samples that are probably laid out in another way, or None.

    Args:
        name: of the argument.
        shape: of one sample.
        count: the number of samples, or None.
    """
    if channels_first(shape):
        channels, height, width = shape
        return (
            f"{name} with samples of shape {shape} is taken as (H, W, C), images of {channels} x "
            f"{height} pixels with {width} channels, but the channels seem to come first. "
            f"fastcnn.nchw_to_nhwc(x) makes samples of shape ({height}, {width}, {channels})"
        )
    if count is not None and len(shape) == 3 and shape[2] == 1 and shape[1] in (3, 4):
        side = shape[0]
        if side == count and side >= _SMALLEST_PICTURE:
            return (
                f"{name} of shape {(count, *shape[:2])} is taken as {count} grey images (N, H, W), "
                f"but it seems to be one picture (H, W, C), which is {name}[numpy.newaxis]"
            )
    return None


def remedy(name: str, shape: Shape, required: Shape | None) -> str:
    """How samples of another shape could fit, where their shape suggests it."""
    if required is None or len(required) != 3:
        single = required is not None and shape == required
        return f"; a single sample is {name}[numpy.newaxis]" if single else ""
    height, width, channels = required
    if shape == required or (channels == 1 and shape == (height, width)):
        return f"; a single sample is {name}[numpy.newaxis]"
    if shape[1:] == (channels, height, width):
        return f"; its channels seem to come first: fastcnn.nchw_to_nhwc({name})"
    if len(shape) == 4 and shape[1:] == (width, channels, height):
        return f"; its channels seem to come last: fastcnn.nhwc_to_nchw({name})"
    if len(shape) == 2 and shape[1] == height * width * channels:
        return f"; rows become images by {name}.reshape(-1, {height}, {width}, {channels})"
    return ""


def finite(name: str, array: Samples) -> None:
    """Raise the ``ValueError`` for NaN or infinity in the samples, naming the first such."""
    if array.dtype.kind != "f":
        return
    step = max(1, _PART // max(1, array[:1].size))
    for first in range(0, len(array), step):
        part = array[first : first + step]
        good = np.isfinite(part)
        if not good.all():
            sample = first + int(np.argmin(good.reshape(len(part), -1).all(axis=1)))
            raise ValueError(f"{name} must hold finite numbers, got NaN or infinity in {sample=}")


def batch(array: Array, dtype: np.dtype[np.floating], scaling: Scaling = CENTRED) -> Array:
    """Some samples as the layers take them: bytes scaled, all of ``dtype`` and C-contiguous.

    >>> batch(np.array([[0, 255]], np.uint8), np.dtype("float32"))
    array([[-0.5,  0.5]], dtype=float32)
    """
    if array.dtype is dtype and array.flags.c_contiguous:
        return array
    if array.dtype == np.uint8:
        return scaling.of(array, dtype)
    return _converted(array, dtype)


@unreported
def _converted(array: Array, dtype: np.dtype[np.floating]) -> Array:
    return np.ascontiguousarray(array, dtype)
