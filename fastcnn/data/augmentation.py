"""Augmentation: small random changes of training images, which do not change their classes.

:class:`Augment` draws one map for each image (shift, turn, scale, mirror, crop) and applies it in
one pass, so an image is blended at most once. Maps by whole pixels copy pixels and blend nothing.
Compiled kernels apply the maps if Numba is installed, otherwise NumPy does. The results of both are
the same bytes; floats differ by rounding.

Source: P. Y. Simard, D. Steinkraus, J. C. Platt, "Best Practices for Convolutional Neural Networks
Applied to Visual Document Analysis", 2003 (affine maps of digits); random crops after padding as in
K. He et al., "Deep Residual Learning for Image Recognition", 2015.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import NamedArguments
from fastcnn.core.float_errors import unreported
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.engine.registry import engines, imported

# Random numbers for the map of one image. The number does not depend on the settings, so that with
# the same seed one more setting does not change the draws of the others.
_DRAWS = 5
_FRACTION_BITS = 16
_DTYPES = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.float64))
# With this limit, positions in fixed point stay far from the ends of their integers.
_LARGEST_SIDE = 1 << 20
_NUMPY_PIXELS = 1 << 18  # pixels that the NumPy path blends at a time, to bound its memory


class Augment(NamedArguments):
    """Images moved at random: call it with images and a generator.

    Args:
        shift: pixels, or (vertical, horizontal). Each image moves by a whole number of pixels,
            uniform from ``-shift`` to ``shift``, on each axis.
        rotate: degrees, 0 to 180. Each image turns about its centre by an angle that is uniform
            from ``-rotate`` to ``rotate``. Each pixel is blended from four pixels (bilinear).
        flip: whether to mirror half of the images, left to right.
        crop: None for the whole image, or the side or (height, width) of a window that is cut out
            at a random position. With ``shift`` the window may reach that far beyond the borders.
            To pad by 4 and crop back to the image's own size, use ``shift=4`` instead.
        scale: 0 or more, below 1. Each image grows about its centre by a factor that is uniform
            from ``1 - scale`` to ``1 + scale``, and is blended as with ``rotate``.
        fill: the value beyond an image's borders, such as the background's.

    Raises:
        TypeError, ValueError: an argument of the wrong type or beyond these ranges.

    Example:
        >>> import numpy as np
        >>> images = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)
        >>> augment = Augment(shift=1)
        >>> augment(images, np.random.default_rng(3))
        array([[[ 0,  0,  0,  0,  0],
                [ 0,  0,  1,  2,  3],
                [ 0,  5,  6,  7,  8],
                [ 0, 10, 11, 12, 13]],
        <BLANKLINE>
               [[20, 21, 22, 23, 24],
                [25, 26, 27, 28, 29],
                [30, 31, 32, 33, 34],
                [35, 36, 37, 38, 39]]], dtype=uint8)
        >>> augment
        Augment(shift=1, rotate=0.0, flip=False, crop=None, scale=0.0, fill=0.0)
    """

    def __init__(
        self,
        shift: int | tuple[int, int] = 0,
        rotate: float = 0.0,
        flip: bool = False,
        crop: int | tuple[int, int] | None = None,
        scale: float = 0.0,
        fill: float = 0.0,
    ) -> None:
        self.shift = _pixels("shift", shift, 0)
        self.rotate = _number("rotate", rotate)
        if not 0 <= self.rotate <= 180:
            raise ValueError(f"rotate must be from 0 to 180 degrees, got {quoted(rotate)}")
        if not isinstance(flip, bool | np.bool):
            raise TypeError(f"flip must be True or False, got {quoted(flip)}")
        self.flip = bool(flip)
        self.crop = None if crop is None else _pixels("crop", crop, 1)
        self.scale = _number("scale", scale)
        if not 0 <= self.scale < 1:
            raise ValueError(f"scale must be at least 0 and below 1, got {quoted(scale)}")
        self.fill = _number("fill", fill)

    @unreported
    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """New images, each moved by a map of its own.

        Args:
            images: (N, H, W) or (N, H, W, C), of dtype uint8, float32 or float64.
            rng: the generator of all random numbers. One batch gives the same images as its parts
                one after the other, for any number of threads.

        Returns:
            A new C-contiguous array of the same dtype and rank, of the images' size or ``crop``.

        Raises:
            TypeError, ValueError: an argument has another type, dtype or shape, or the images are
                bytes and ``fill`` is not.
        """
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator, got {quoted(rng)}")
        batch = self._batch(images)
        n, height, width, _ = batch.shape
        size = _window(self.crop, height, width)
        draws = rng.random((n, _DRAWS))
        places = self._places(draws, (height, width), size)
        flips = draws[:, 4] < 0.5 if self.flip else np.zeros(n, np.bool)
        if self.rotate or self.scale:
            maps = self._maps(draws, places, flips, (height, width))
            result = _blend(batch, size, maps, self.fill)
        else:
            result = _cut_out(batch, size, places, flips, self.fill)
        return result.reshape((n, *size, *np.shape(images)[3:]))

    def centred(self, images: Array) -> Array:
        """The middle of each image, of the size ``crop``, for validation and prediction.

        Nothing is random. Without ``crop`` the result is a copy of the images.

        >>> Augment(crop=(2, 3)).centred(np.zeros((7, 4, 6), np.uint8)).shape
        (7, 2, 3)
        """
        batch = self._batch(images)
        n, height, width, _ = batch.shape
        size = _window(self.crop, height, width)
        place = [(height - size[0]) // 2, (width - size[1]) // 2]
        places = np.tile(np.array(place, np.int64), (n, 1))
        result = _cut_out(batch, size, places, np.zeros(n, np.bool), self.fill)
        return result.reshape((n, *size, *np.shape(images)[3:]))

    def config(self) -> JsonObject:
        """The constructor's arguments as JSON values.

        >>> Augment(**Augment(shift=2, crop=(3, 4)).config()).config()["crop"]
        (3, 4)
        """
        return {
            "shift": self.shift,
            "rotate": self.rotate,
            "flip": self.flip,
            "crop": self.crop,
            "scale": self.scale,
            "fill": self.fill,
        }

    def __repr__(self) -> str:
        return f"Augment({', '.join(f'{name}={value!r}' for name, value in self.config().items())})"

    def _batch(self, images: Array) -> Array:
        """The images as (N, H, W, C), in the form that kernels take; errors for wrong images."""
        array = np.asarray(images)
        if array.dtype.newbyteorder("=") not in _DTYPES:
            raise TypeError(f"images must be of uint8, float32 or float64, got dtype {array.dtype}")
        if array.ndim not in (3, 4) or 0 in array.shape[1:]:
            raise ValueError(
                "images must have the shape (N, H, W) or (N, H, W, C), with at least one pixel, "
                f"got {array.shape}"
            )
        if max(array.shape[1:3]) > _LARGEST_SIDE:
            raise ValueError(f"images must be smaller than 2**20 on each side, got {array.shape}")
        if array.dtype.kind == "u" and self.fill not in range(256):
            raise ValueError(f"fill must be an integer from 0 to 255 for bytes, got {self.fill}")
        array = np.require(array, array.dtype.newbyteorder("="), ["C_CONTIGUOUS", "ALIGNED"])
        return array if array.ndim == 4 else array[..., np.newaxis]

    def _places(
        self, draws: Array, image: tuple[int, int], size: tuple[int, int]
    ) -> NDArray[np.int64]:
        """Row and column of the first pixel of each image's window, (N, 2)."""
        shift = (self.shift, self.shift) if isinstance(self.shift, int) else self.shift
        room = [side - length for side, length in zip(image, size, strict=True)]
        first = np.array([min(free, 0) - s for free, s in zip(room, shift, strict=True)])
        last = np.array([max(free, 0) + s for free, s in zip(room, shift, strict=True)])
        corners = first + np.floor(draws[:, :2] * (last - first + 1))
        places: NDArray[np.int64] = corners.astype(np.int64)
        return places

    def _maps(
        self, draws: Array, places: Array, flips: Array, image: tuple[int, int]
    ) -> NDArray[np.int64]:
        """Maps (N, 2, 3) from an output pixel to its position in the image, in fixed point.

        A map goes backwards: it shifts to the window, turns about the centre, and mirrors.
        """
        angles = np.radians(self.rotate) * (2 * draws[:, 2] - 1)
        factors = 1 + self.scale * (2 * draws[:, 3] - 1)
        cosine, sine = np.cos(angles) / factors, np.sin(angles) / factors
        mirror = np.where(flips, -1, 1)
        rows = np.stack([cosine, -sine], axis=1)
        columns = np.stack([mirror * sine, mirror * cosine], axis=1)
        turn = np.stack([rows, columns], axis=1)
        centre = (np.array(image) - 1) / 2
        starts = (turn @ (places - centre)[:, :, np.newaxis])[:, :, 0] + centre
        exact = np.concatenate([turn, starts[:, :, np.newaxis]], axis=2)
        maps: NDArray[np.int64] = np.rint(exact * (1 << _FRACTION_BITS)).astype(np.int64)
        return maps


def _pixels(name: str, value: object, least: int) -> Any:
    """One or two numbers of pixels as plain integers, in the form of ``value``."""
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{name} must be one or two numbers of pixels, got {quoted(value)}")
        return tuple(_pixels(name, one, least) for one in value)
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be whole pixels, one number or two, got {quoted(value)}")
    if not least <= value <= _LARGEST_SIDE:
        raise ValueError(
            f"{name} must be from {least} to {_LARGEST_SIDE} pixels, got {quoted(value)}"
        )
    return int(value)


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {quoted(value)}")
    try:
        as_float = float(value)
    except OverflowError:  # an integer beyond all floats
        as_float = inf
    if not isfinite(as_float):
        raise ValueError(f"{name} must be finite, got {quoted(value)}")
    return as_float


def _window(crop: Any, height: int, width: int) -> tuple[int, int]:
    if crop is None:
        return height, width
    return (crop, crop) if isinstance(crop, int) else crop


def _cut_out(
    images: Array, size: tuple[int, int], places: Array, flips: Array, fill: float
) -> Array:
    if "numba" in engines():
        imported("fastcnn.engine.numba.elementwise.augmentation")
        from fastcnn.engine.numba.elementwise.augmentation import cut_out

        return cut_out(images, size, places, flips, fill)
    return cut_out_numpy(images, size, places, flips, fill)


def _blend(images: Array, size: tuple[int, int], maps: Array, fill: float) -> Array:
    if "numba" in engines():
        imported("fastcnn.engine.numba.elementwise.augmentation")
        from fastcnn.engine.numba.elementwise.augmentation import blend

        return blend(images, size, maps, fill)
    return blend_numpy(images, size, maps, fill)


def cut_out_numpy(
    images: Array, size: tuple[int, int], places: Array, flips: Array, fill: float
) -> Array:
    """The compiled ``cut_out`` in NumPy, with one copy for all images of one position."""
    n, height, width, channels = images.shape
    windows = np.full((n, *size, channels), fill, images.dtype)
    moves, which = np.unique(
        np.concatenate([places, flips[:, np.newaxis]], axis=1), axis=0, return_inverse=True
    )
    for k, (top, left, flip) in enumerate(moves):
        here = np.flatnonzero(which.reshape(-1) == k)
        first_y, last_y = max(-top, 0), min(height - top, size[0])
        first_x, last_x = max(-left, 0), min(width - left, size[1])
        if first_y >= last_y or first_x >= last_x:
            continue
        source = images[:, :, ::-1] if flip else images
        rows = slice(top + first_y, top + last_y)
        windows[here, first_y:last_y, first_x:last_x] = source[
            here, rows, left + first_x : left + last_x
        ]
    return windows


def blend_numpy(images: Array, size: tuple[int, int], maps: Array, fill: float) -> Array:
    """The compiled ``blend`` in NumPy, with four gathers from padded images."""
    n, height, width, channels = images.shape
    results = np.empty((n, *size, channels), images.dtype)
    i, j = np.arange(size[0], dtype=np.int64)[:, np.newaxis], np.arange(size[1], dtype=np.int64)
    step = max(1, _NUMPY_PIXELS // max(size[0] * size[1], (height + 4) * (width + 4)))
    for start in range(0, n, step):
        part = slice(start, start + step)
        # Two pixels of border on each side. Positions farther out are moved into the border.
        padded = np.pad(
            images[part], ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=images.dtype.type(fill)
        )
        m: NDArray[np.int64] = maps[part, :, :, np.newaxis, np.newaxis]
        y: NDArray[np.int64] = m[:, 0, 0] * i + m[:, 0, 1] * j + m[:, 0, 2]
        x: NDArray[np.int64] = m[:, 1, 0] * i + m[:, 1, 1] * j + m[:, 1, 2]
        top = np.clip((y >> _FRACTION_BITS) + 2, 0, height + 2)
        left_column = np.clip((x >> _FRACTION_BITS) + 2, 0, width + 2)
        each = np.arange(len(padded))[:, np.newaxis, np.newaxis]
        corners = [padded[each, top + dy, left_column + dx] for dy in (0, 1) for dx in (0, 1)]
        results[part] = _mixed(corners, y[..., np.newaxis], x[..., np.newaxis])
    return results


def _mixed(corners: list[Array], y: NDArray[np.int64], x: NDArray[np.int64]) -> Array:
    """The mean of the four pixels around (y, x), weighted by the fractions of the position."""
    dtype = corners[0].dtype
    if dtype.kind == "u":
        down, right = (y >> 8) & 255, (x >> 8) & 255
        a, b, d, e = (corner.astype(np.int64) for corner in corners)
        upper = (a << 8) + (b - a) * right
        lower = (d << 8) + (e - d) * right
        blended: Array = ((upper << 8) + (lower - upper) * down + 32768) >> 16
        return blended
    unit = dtype.type(1 / (1 << _FRACTION_BITS))
    y_share, x_share = ((p & 65535).astype(dtype) * unit for p in (y, x))
    a, b, d, e = corners
    upper, lower = a + x_share * (b - a), d + x_share * (e - d)
    mixed: Array = upper + y_share * (lower - upper)
    return mixed
