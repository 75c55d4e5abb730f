"""What a file of another program does not say about pictures, and options of commands say.

ONNX files of other programs declare arrays of floats. Their nets were trained on pictures that
were scaled in some way, which the file rarely tells. ONNX has two entries of metadata for it,
``Image.NominalPixelRange`` and ``Image.BitmapPixelFormat``.

Source: https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from fastcnn.core.quoting import quoted, shortened

if TYPE_CHECKING:
    from fastcnn.data.pixel_scaling import Scaling

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels, by which most nets of PyTorch were trained."""
_RANGES = {
    "NominalRange_0_255": (0.0, 255.0),
    "Normalized_0_1": (0.0, 1.0),
    "Normalized_1_1": (-1.0, 1.0),
}
"""Numbers of a black and a white pixel for values of the metadata ``Image.NominalPixelRange``."""
_LONGEST = 1 << 20  # bytes of a file of names


class Layout(StrEnum):
    """Where images have their channels in a file."""

    channels_last = "channels_last"
    channels_first = "channels_first"


ScalingOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--scaling",
        metavar="HOW",
        help="How bytes become the floats of another program's net: imagenet, LOW..HIGH such as "
        "0..1, -1..1 or 0..255, or MEAN/STD of x/255 such as 0.5,0.4,0.4/0.2,0.2,0.2.",
    ),
]
SizeOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="SIDE",
        help="Height and width where an ONNX file leaves them free: 224, or 180x240.",
    ),
]
LayoutOption: TypeAlias = Annotated[
    Layout | None,
    typer.Option(
        "--layout",
        help="Images of an ONNX file: (N, H, W, C) or (N, C, H, W). Default: the side of 1 or 3 "
        "numbers the channels.",
    ),
]
BgrOption: TypeAlias = Annotated[
    bool,
    typer.Option("--bgr", help="The net takes blue, green, red, as nets of OpenCV and Caffe do."),
]
NamesOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAMES",
        help="Names of the classes, with commas between, or a text file with one on each line.",
    ),
]


@dataclass(frozen=True)
class Reading:
    """The options with which a command reads a model for pictures; None for what the file says.

    Attributes:
        scaling: how bytes become floats.
        size: (H, W) of the images.
        layout: where the images of an ONNX file have their channels.
        bgr: whether the net takes blue, green, red.
        classes: the names of the classes.
    """

    scaling: Scaling | None = None
    size: tuple[int, int] | None = None
    layout: Layout | None = None
    bgr: bool = False
    classes: tuple[str, ...] | None = None


AS_THE_FILE_SAYS = Reading()


def reading_of(
    scaling: str | None = None,
    size: str | None = None,
    layout: Layout | None = None,
    bgr: bool = False,
    classes: str | None = None,
) -> Reading:
    """The reading of the texts of options; ``ValueError`` for what they cannot be."""
    return Reading(
        None if scaling is None else scaling_of(scaling),
        None if size is None else _size_of(size),
        layout,
        bgr,
        None if classes is None else _names_of(classes),
    )


def scaling_of(text: str) -> Scaling:
    """The scaling that an option describes.

    >>> print(scaling_of("-1..1"))
    (x / 255 - 0.5) / 0.5
    >>> print(scaling_of("0.5,0.25/2"))
    (x / 255 - (0.5, 0.25)) / 2
    """
    from fastcnn.data.pixel_scaling import Scaling

    try:
        if text.lower() == "imagenet":
            return Scaling(*IMAGENET)
        if ".." in text:
            low, high = (float(side) for side in text.split(".."))
            return between(low, high)
        mean, std = (tuple(float(one) for one in side.split(",")) for side in text.split("/"))
        return Scaling(*(side[0] if len(side) == 1 else side for side in (mean, std)))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"--scaling must be imagenet, LOW..HIGH such as 0..1, or MEAN/STD such as "
            f"0.5,0.4,0.4/0.2,0.2,0.2, got {quoted(text)}: {error}"
        ) from None


def between(low: float, high: float) -> Scaling:
    """The scaling by which bytes become numbers from ``low`` for 0 to ``high`` for 255.

    >>> print(between(0, 255).of(__import__("numpy").array([0, 7, 255], "uint8"), "float32"))
    [  0.   7. 255.]
    """
    from fastcnn.data.pixel_scaling import Scaling

    if not low < high:
        raise ValueError("LOW must be below HIGH")
    return Scaling(-low / (high - low), 1 / (high - low))


def scaling_of_metadata(metadata: Mapping[str, str]) -> Scaling | None:
    """The scaling that the metadata of a file tell, if they do."""
    ends = _RANGES.get(metadata.get("Image.NominalPixelRange", ""))
    return None if ends is None else between(*ends)


def is_bgr(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata of a file say that its net takes blue, green, red."""
    return metadata.get("Image.BitmapPixelFormat") == "Bgr8"


def _size_of(text: str) -> tuple[int, int]:
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise ValueError(f"--size must be a side such as 224, or 180x240, got {quoted(text)}")
    height, width = int(sides[0]), int(sides[-1])
    if not (0 < height <= 1 << 14 and 0 < width <= 1 << 14):
        raise ValueError(f"--size must have sides from 1 to 16384, got {quoted(text)}")
    return height, width


def _names_of(text: str) -> tuple[str, ...]:
    from fastcnn.core.reading import open_regular

    if not Path(text).is_file():
        return tuple(name.strip() for name in text.split(","))
    with open_regular(text) as file:
        data = file.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise ValueError(f"--classes must name a file of at most {_LONGEST:,} bytes, got {text!r}")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--classes must name a text file in UTF-8, got {shortened(text, 200)}: {error}"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())
