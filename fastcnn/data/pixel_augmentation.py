"""Augmentations of pixels: colours at random, cut-out squares, mixed images, and several in a row.

All draw the same number of random numbers for each image, whatever their settings, so a batch gives
the same images as its parts one after the other.

Sources: T. DeVries, G. W. Taylor, "Improved Regularization of Convolutional Neural Networks with
Cutout", arXiv:1708.04552; H. Zhang et al., "mixup: Beyond Empirical Risk Minimization",
arXiv:1710.09412; A. R. Smith, "Color gamut transform pairs", 1978 (hue).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import NamedArguments
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import above_zero, below_one, count, number
from fastcnn.data.augmentation import Augment

_GREY = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in the brightness (ITU-R BT.601)."""


class ColorJitter(NamedArguments):
    """Brightness, contrast, saturation and hue, changed at random for each image.

    The first three are multiplied by a factor that is uniform from ``1 − a`` to ``1 + a``, in this
    order. The hue is turned by a share of the circle of colours that is uniform from −a to a.
    Brightness is the distance of all pixels from ``low``, contrast their distance from the mean
    brightness of the image, and saturation their distance from the pixel's own brightness. Hue is
    that of HSV: a third of the circle makes red pixels green. Images of one channel have neither
    saturation nor hue. Results are clipped to ``low`` and ``high``.

    Args:
        brightness, contrast, saturation: the amount a, at least 0 and below 1.
        hue: the amount a, from 0 to 0.5.
        low, high: the values of black and white: 0 and 255 for bytes. Floats need them.

    Raises:
        TypeError, ValueError: an argument of another type, or beyond these ranges.

    Example:
        >>> images = np.full((2, 1, 2, 3), 100, np.uint8)
        >>> ColorJitter(brightness=0.5)(images, np.random.default_rng(0))[:, 0, 0, 0]
        array([114, 131], dtype=uint8)
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        self.brightness = below_one("brightness", brightness)
        self.contrast = below_one("contrast", contrast)
        self.saturation = below_one("saturation", saturation)
        self.hue = below_one("hue", hue)
        if self.hue > 0.5:
            raise ValueError(f"hue must be at most 0.5, half of the circle of colours, got {hue!r}")
        if (low is None) != (high is None):
            raise ValueError(f"low and high must both be given, got {low!r} and {high!r}")
        if low is not None and high is not None and not -inf < low < high < inf:
            raise ValueError(f"low must be below high, got {low!r} and {high!r}")
        self.low, self.high = low, high

    @unreported
    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """New images of the same shape and dtype.

        Args:
            images: (N, H, W) or (N, H, W, C), uint8 or floats.
            rng: the generator of all random numbers.

        Raises:
            TypeError, ValueError: no such images; floats without ``low`` and ``high``.
        """
        array = _checked(images)
        low, high = self.low, self.high
        if low is None or high is None:
            if array.dtype != np.uint8:
                raise ValueError(
                    "low and high must say what black and white are for floats, such as "
                    "ColorJitter(0.2, low=0, high=1)"
                )
            low, high = 0.0, 255.0
        draws = 2 * rng.random((len(array), 4)) - 1
        x = array.astype(np.float32 if array.dtype == np.uint8 else array.dtype)
        amounts = (self.brightness, self.contrast, self.saturation)
        factors = (1 + draws[:, :3] * np.array(amounts)).astype(x.dtype)
        one = (slice(None), *(np.newaxis,) * (x.ndim - 1))
        if self.brightness:
            x = np.clip((x - low) * factors[:, 0][one] + low, low, high)
        if self.contrast:
            mean = _brightness(x).reshape(len(x), -1).mean(axis=1, dtype=np.float64).astype(x.dtype)
            x = np.clip((x - mean[one]) * factors[:, 1][one] + mean[one], low, high)
        if self.saturation and x.ndim == 4 and x.shape[3] == 3:
            grey = _brightness(x)[..., np.newaxis]
            x = np.clip((x - grey) * factors[:, 2][one] + grey, low, high)
        if self.hue and x.ndim == 4 and x.shape[3] == 3:
            x = np.clip(_turned(x, (6 * self.hue * draws[:, 3]).astype(x.dtype)), low, high)
        return _like(x, array)

    def __repr__(self) -> str:
        return _shown(self, ("brightness", "contrast", "saturation", "hue", "low", "high"))


def _turned(x: Array, sixths: Array) -> Array:
    """Images (N, H, W, 3) whose hues are turned by so many sixths of the circle, (N,)."""
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = x.max(axis=3)
    chroma = value - x.min(axis=3)
    divisor = np.where(chroma > 0, chroma, 1)
    hue = np.where(
        value == red,
        (green - blue) / divisor,
        np.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue += sixths[:, np.newaxis, np.newaxis]
    result = np.empty_like(x)
    for channel, offset in enumerate((5, 3, 1)):
        k = (hue + offset) % 6
        share = np.clip(np.minimum(k, 4 - k), 0, 1)
        result[..., channel] = value - chroma * share
    return result


class Cutout(NamedArguments):
    """A square at random in each image, filled with one value.

    Its middle is uniform over the pixels, so it may reach beyond the image.

    Args:
        size: the side of the square, or (height, width).
        fill: the value of its pixels.

    Raises:
        TypeError, ValueError: an argument of another type, or a size below 1.

    Example:
        >>> Cutout(2)(np.full((1, 3, 4), 9, np.uint8), np.random.default_rng(1))
        array([[[9, 9, 0, 0],
                [9, 9, 0, 0],
                [9, 9, 9, 9]]], dtype=uint8)
    """

    def __init__(self, size: int | tuple[int, int], fill: float = 0.0) -> None:
        if isinstance(size, tuple | list):
            if len(size) != 2:
                raise ValueError(f"size must be a side or (height, width), got {quoted(size)}")
            self.size: tuple[int, int] = count("size", size[0]), count("size", size[1])
        else:
            self.size = (count("size", size),) * 2
        if not isinstance(fill, int | float | np.number) or isinstance(fill, bool):
            raise TypeError(f"fill must be a number, got {quoted(fill)}")
        self.fill = fill

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """New images of the same shape and dtype; arguments as for :class:`ColorJitter`."""
        array = _checked(images)
        if array.dtype == np.uint8 and self.fill not in range(256):
            raise ValueError(f"fill must be an integer from 0 to 255 for bytes, got {self.fill}")
        result = array.copy()
        draws = rng.random((len(array), 2))
        for image, (row, column) in zip(result, draws, strict=True):
            spans = []
            for share, side, length in zip((row, column), image.shape[:2], self.size, strict=True):
                first = int(share * side) - length // 2
                spans.append(slice(max(first, 0), max(first + length, 0)))
            image[spans[0], spans[1]] = self.fill
        return result

    def __repr__(self) -> str:
        return _shown(self, ("size", "fill"))


class Mixup(NamedArguments):
    """Each image mixed with another one of its batch, and so are their targets.

    The share of an image is drawn for each batch from the beta distribution. Class numbers become
    rows of probabilities, so the loss must take these, such as the cross-entropy.

    Args:
        alpha: of the beta distribution, above 0; small values mix little.

    Raises:
        TypeError, ValueError: no number above 0.

    Example:
        >>> mixup, rows = Mixup(1.0), np.eye(2)
        >>> images, targets = mixup.mix(np.array([[0.0], [8.0]]), rows, np.random.default_rng(3))
        >>> bool((images[:, 0] == 8 * targets[:, 1]).all())
        True
    """

    def __init__(self, alpha: float = 0.2) -> None:
        if not above_zero("alpha", alpha):
            raise ValueError("alpha must be a number above 0, got None")
        self.alpha = number("alpha", alpha)

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images as they are; :meth:`mix` mixes them."""
        return images

    @unreported
    def mix(self, images: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """New images and targets, (N, …) each, of the same dtypes; bytes are rounded."""
        share = float(rng.beta(self.alpha, self.alpha))
        partners = rng.permutation(len(images))
        mixed = []
        for array in (images, targets):
            kind = np.result_type(array.dtype, np.float32)
            of_array = kind.type(share) * array + kind.type(1 - share) * array[partners]
            mixed.append(_like(of_array, array))
        return mixed[0], mixed[1]

    def __repr__(self) -> str:
        return _shown(self, ("alpha",))


class Compose(NamedArguments):
    """Augmentations one after the other.

    Args:
        steps: augmentations such as :class:`fastcnn.Augment`, :class:`ColorJitter` and
            :class:`Mixup`, or functions of images and a generator.

    Raises ``TypeError`` for steps that cannot be called.

    Example:
        >>> augment = Compose([Augment(flip=True), ColorJitter(0.2, 0.2), Mixup(0.2)])
        >>> augment(np.zeros((2, 4, 5, 3), np.uint8), np.random.default_rng(0)).shape
        (2, 4, 5, 3)
    """

    def __init__(self, steps: Iterable[Callable[[Array, np.random.Generator], Array]]) -> None:
        self.steps = tuple(steps)
        for step in self.steps:
            if not callable(step):
                raise TypeError(
                    f"steps must be called with images and a generator, got {quoted(step)}"
                )

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images after all steps."""
        for step in self.steps:
            images = step(images, rng)
        return images

    def centred(self, images: Array) -> Array:
        """What the steps leave of each image without chance, such as the middle of a crop."""
        for step in self.steps:
            crop = getattr(step, "centred", None)
            if crop is not None:
                images = crop(images)
        return images

    def mix(self, images: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Images and targets after the steps that mix them."""
        for step in self.steps:
            if mixes(step):
                images, targets = step.mix(images, targets, rng)  # type: ignore[attr-defined]
        return images, targets

    def __repr__(self) -> str:
        return f"Compose({[*self.steps]!r})"


def mixes(augment: object) -> bool:
    """Whether an augmentation mixes images and targets, by a method ``mix``.

    >>> mixes(Compose([Augment()])), mixes(Compose([Augment(), Mixup()]))
    (False, True)
    """
    if isinstance(augment, Compose):
        return any(map(mixes, augment.steps))
    return callable(getattr(augment, "mix", None))


def keeps_scale(augment: object) -> bool:
    """Whether augmented samples certainly have the scale of the others."""
    if isinstance(augment, Compose):
        return all(map(keeps_scale, augment.steps))
    return augment is None or isinstance(augment, Augment | ColorJitter | Cutout | Mixup)


def _checked(images: Any) -> Array:
    array = np.asarray(images)
    if array.dtype != np.uint8 and array.dtype not in (np.float32, np.float64):
        raise TypeError(f"images must be of uint8, float32 or float64, got dtype {array.dtype}")
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise ValueError(f"images must have the shape (N, H, W) or (N, H, W, C), got {array.shape}")
    return array


def _brightness(x: Array) -> Array:
    if x.ndim == 4 and x.shape[3] == 3:
        red, green, blue = _GREY.astype(x.dtype)  # no product of matrices, for BLAS has threads
        return np.asarray(x[..., 0] * red + x[..., 1] * green + x[..., 2] * blue)
    return x if x.ndim == 3 else np.asarray(x.mean(axis=3))


def _like(x: Array, array: Array) -> Array:
    """``x`` in the dtype of the array; rounded for bytes."""
    if array.dtype == np.uint8:
        return np.rint(x).astype(np.uint8)
    return np.asarray(x, array.dtype)


def _shown(thing: object, names: Iterable[str]) -> str:
    arguments = ", ".join(f"{name}={getattr(thing, name)!r}" for name in names)
    return f"{type(thing).__name__}({arguments})"
