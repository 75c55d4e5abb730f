"""The preparation of pictures for a net, which is that of its training pictures.

MNIST's digits are white on black, scaled into a box of 20×20 pixels, with their centre of mass in
the middle of 28×28. Fashion-MNIST's clothes fill the picture, and photographs have no background. A
net cannot read pictures that are prepared in another way than its training pictures. Therefore
:func:`preparation_of` finds the preparation in training images, and the model's file stores it.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", on how it
was made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.json_arrays import JsonObject
from fastcnn.data.on_demand import Samples

_SAMPLE = 512  # images that are examined
_READ = 64  # images that are examined, where they may have to be read from files
_MOST = 0.85  # share of the images that must have a property in common
_LARGEST_BOX = 0.9  # of the side; a larger drawing fills the picture
_DARK, _LIGHT = 64, 191
_STEP = 1.01  # pixels that a box or a centre may be off


@dataclass(frozen=True)
class Preparation:
    """The preparation of a picture as a net's input.

    Args:
        box: the longer side of a drawing, as a share of the input's side. The drawing is found on
            its page, cropped, scaled to this size, and put on black. None scales the whole picture.
        centre: the point of a drawing that is placed in the middle: its centre of "mass", or the
            "middle" of its box. Without ``box`` it has no effect.
        background: the background of the net's images, "dark" or "light". A picture with the other
            background is inverted. None keeps the brightness.
        edges: how a whole picture of other proportions is scaled. "pad" keeps all of it, with its
            background on the rest of the area; "crop" cuts out its middle.
        transposed: whether the net's images have rows and columns exchanged, as in EMNIST.

    Raises:
        TypeError, ValueError: an argument has another type or value.

    Example:
        >>> Preparation(box=0.8).centre
        'mass'
    """

    box: float | None = None
    centre: Literal["mass", "middle"] = "mass"
    background: Literal["dark", "light"] | None = None
    edges: Literal["pad", "crop"] = "pad"
    transposed: bool = False

    def __post_init__(self) -> None:
        if self.box is not None:
            if isinstance(self.box, bool) or not isinstance(self.box, int | float | np.number):
                raise TypeError(f"box must be a number or None, got {self.box!r}")
            if not (isfinite(self.box) and 0 < self.box <= 1):
                raise ValueError(f"box must be above 0 and at most 1, got {self.box!r}")
        for name, choices in (
            ("centre", ("mass", "middle")),
            ("background", ("dark", "light", None)),
            ("edges", ("pad", "crop")),
            ("transposed", (False, True)),
        ):
            value = getattr(self, name)
            if not isinstance(value, str | bool | None) or value not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {value!r}")

    def as_dict(self) -> JsonObject:
        """The constructor's arguments as JSON values."""
        return asdict(self)


MNIST = Preparation(box=20 / 28, centre="mass", background="dark")
"""The preparation of MNIST's digits."""
PHOTOGRAPHS = Preparation(edges="crop")
"""The preparation of photographs: their middle, with unchanged brightness."""


def preparation_from(record: object) -> Preparation | None:
    """The preparation from a result of :meth:`Preparation.as_dict`, or None for None.

    Raises ``ValueError`` or ``TypeError`` for anything else.
    """
    if record is None:
        return None
    if not isinstance(record, dict):
        raise ValueError(f"preparation must be a dict, got {record!r}")
    return Preparation(**record)


def preparation_of(images: Samples) -> Preparation | None:
    """The probable preparation of images (N, H, W, C) of bytes; None if they are of one colour.

    It examines the backgrounds along the borders of evenly spaced images. If most of them agree, it
    also examines the longer sides and the middles of the drawings.

    >>> digits = np.zeros((3, 28, 28, 1), np.uint8)
    >>> digits[:, 4:24, 10:18] = 255
    >>> preparation_of(digits) == MNIST
    True
    """
    sample = images[:: -(-len(images) // _SAMPLE) or 1]
    grey = sample.mean(axis=3) if sample.shape[3] > 1 else sample[..., 0].astype(np.float64)
    grey = grey[np.ptp(grey, axis=(1, 2)) > 0]
    if not len(grey):
        return None
    borders = [grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]]
    levels = np.median(np.concatenate(borders, axis=1), axis=1)
    if (levels < _DARK).mean() >= _MOST:
        light = grey
        background: Literal["dark", "light"] = "dark"
    elif (levels > _LIGHT).mean() >= _MOST:
        light, levels = 255 - grey, 255 - levels
        background = "light"
    else:
        return PHOTOGRAPHS
    if sample.shape[3] > 1:
        return Preparation(background=background)
    marks = light > np.maximum(levels, 0)[:, None, None] + 32
    is_visible = marks.any(axis=(1, 2))
    light, marks = light[is_visible], marks[is_visible]
    if not len(marks):
        return Preparation(background=background)
    ends = [_ends(marks.any(axis=axis)) for axis in (2, 1)]
    sides = [last - first + 1 for first, last in ends]
    longer = np.maximum(*sides)
    box, shorter = float(np.median(longer)), min(marks.shape[1:])
    if box > _LARGEST_BOX * shorter or (np.abs(longer - box) <= _STEP).mean() < _MOST:
        return Preparation(background=background)
    by_mass, by_box = [], []
    for axis, (first, last) in enumerate(ends):
        side = marks.shape[1 + axis]
        profile = light.sum(axis=2 - axis)
        mass = profile @ np.arange(side) / profile.sum(axis=1)
        by_mass.append(np.abs(mass + 0.5 - side / 2) <= _STEP)
        by_box.append(np.abs((first + last + 1) / 2 - side / 2) <= _STEP)
    centred: list[tuple[float, Literal["mass", "middle"]]] = [
        (float((by_mass[0] & by_mass[1]).mean()), "mass"),
        (float((by_box[0] & by_box[1]).mean()), "middle"),
    ]
    share, centre = max(centred, key=lambda one: one[0])
    if share < _MOST:
        return Preparation(background=background)
    return Preparation(box=box / shorter, centre=centre, background=background)


def preparation_of_pictures(images: Samples) -> Preparation | None:
    """:func:`preparation_of` for images of pictures that were cut to their middle and scaled."""
    if len(images) > _READ:
        images = images[:: -(-len(images) // _READ)]
    probable = preparation_of(images)
    if probable is None or probable.box is not None:
        return probable
    return replace(probable, edges="crop")


def _ends(marks: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of the first and the last mark in each row."""
    first = marks.argmax(axis=1)
    last = marks.shape[1] - 1 - marks[:, ::-1].argmax(axis=1)
    return first, last
