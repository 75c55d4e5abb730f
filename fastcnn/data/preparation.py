"""How a picture becomes an input of a net: as the pictures of its training were prepared.

MNIST's digits are white on black, scaled into a box of 20×20 pixels and moved so that their centre
of mass is in the middle of 28×28. Fashion-MNIST's clothes fill the picture, and photographs have no
background at all. A net that was trained on the one reads nothing in pictures prepared like the
other, so the model knows which it was: :func:`preparation_of` finds it in training images, and the
model's file keeps it.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", on how it
was made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcnn.data.on_demand import Samples

_LOOKED_AT = 512  # images
_MOST = 0.85  # share of the images that must be alike in something
_LARGEST_BOX = 0.9  # of the side; what is larger fills the picture
_DARK, _LIGHT = 64, 191
_STEP = 1.01  # pixels that a box or a centre may be off


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes an input.

    Args:
        box: the share of the side that a drawing takes. The drawing is then found on its page,
            cropped, scaled so that its longer side is this, and put on black. None: the whole
            picture is scaled.
        centre: what of a drawing comes into the middle, its centre of "mass" or the "middle" of
            its box. Without ``box`` it has no effect.
        background: "dark" or "light", on what the net knows things. A picture with the other
            background is inverted. None: brightness stays.
        edges: how a whole picture of other proportions is scaled: "pad" keeps all of it, and fills
            up with its background; "crop" cuts out its middle.
        transposed: whether the net's images have rows and columns exchanged, as EMNIST's.

    Raises:
        TypeError, ValueError: an argument that is none of these.

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
        for name, known in (
            ("centre", ("mass", "middle")),
            ("background", ("dark", "light", None)),
            ("edges", ("pad", "crop")),
            ("transposed", (False, True)),
        ):
            value = getattr(self, name)
            if not isinstance(value, str | bool | None) or value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")

    def as_dict(self) -> dict[str, Any]:
        """The arguments, as JSON holds them."""
        return asdict(self)


MNIST = Preparation(box=20 / 28, centre="mass", background="dark")
"""How MNIST's digits were made."""
PHOTOGRAPHS = Preparation(edges="crop")
"""How photographs are taken: their middle, as bright as they are."""


def preparation_from(described: Any) -> Preparation | None:
    """What :meth:`Preparation.as_dict` gave; ``ValueError`` or ``TypeError`` for anything else."""
    if described is None:
        return None
    if not isinstance(described, dict):
        raise ValueError(f"preparation must be a dict, got {described!r}")
    return Preparation(**described)


def preparation_of(images: Samples) -> Preparation | None:
    """How images (N, H, W, C) of bytes seem to have been prepared; None where nothing is to see.

    Of evenly spaced images it looks at the background along the borders, and where that is the same
    in most of them, at the drawings' longer sides and their middles. Images of one colour have
    nothing to see.

    >>> digits = np.zeros((3, 28, 28, 1), np.uint8)
    >>> digits[:, 4:24, 10:18] = 255
    >>> preparation_of(digits) == MNIST
    True
    """
    some = images[:: -(-len(images) // _LOOKED_AT) or 1]
    grey = some.mean(axis=3) if some.shape[3] > 1 else some[..., 0].astype(np.float64)
    grey = grey[np.ptp(grey, axis=(1, 2)) > 0]
    if not len(grey):
        return None
    borders = [grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]]
    levels = np.median(np.concatenate(borders, axis=1), axis=1)
    if (levels < _DARK).mean() >= _MOST:
        drawn = grey
        background: Literal["dark", "light"] = "dark"
    elif (levels > _LIGHT).mean() >= _MOST:
        drawn, levels = 255 - grey, 255 - levels
        background = "light"
    else:
        return PHOTOGRAPHS
    if some.shape[3] > 1:
        return Preparation(background=background)
    marks = drawn > np.maximum(levels, 0)[:, None, None] + 32
    is_visible = marks.any(axis=(1, 2))
    drawn, marks = drawn[is_visible], marks[is_visible]
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
        profile = drawn.sum(axis=2 - axis)
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


def _ends(marks: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """In each row the places of the first and the last mark."""
    first = marks.argmax(axis=1)
    last = marks.shape[1] - 1 - marks[:, ::-1].argmax(axis=1)
    return first, last
