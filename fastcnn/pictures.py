"""From a picture file to what a net takes: PNG and JPEG of any size, of dark or light lines.

MNIST's digits are white on black, scaled into a box of 20×20 pixels and moved so that their centre
of mass is in the middle of 28×28. A picture becomes such a digit by the same steps, and each step
is reported in words.

Files may be hostile: their size is judged before they are read, their number of pixels before they
are decompressed, and only PNG and JPEG decoders ever see them.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", on how it
was made; N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcnn.reading import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 64 << 20
"""Largest file (64 MiB) that is read."""
MAX_PIXELS = 50_000_000
"""Largest picture that is decompressed; a telephone's camera makes 12 to 48 million."""

FORMATS = ("PNG", "JPEG")
_BOX = 20 / 28  # the share of the side that MNIST's digits take
_LARGE = 1024  # a larger picture is halved until it is not, for speed
_ORIENTATION = 0x0112  # in EXIF
_FLAT = 12  # grey levels: with less contrast there is nothing to see
_SHADES = " ░▒▓█"

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


class PictureError(ValueError):
    """A picture cannot be read, or shows nothing; the message names file and fault."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """``pixels`` are (H, W, C) bytes for a net; ``steps`` say how they came from the picture."""

    pixels: Bytes
    steps: tuple[str, ...]


def prepare(path: str | os.PathLike[str], shape: tuple[int, int, int] = (28, 28, 1)) -> Prepared:
    """A picture file as a net's input of this shape (H, W, C).

    With one channel the picture is taken as a digit and made like one of MNIST's: grey, light on
    dark, cropped, scaled into 20/28 of the side, centred by mass. With three channels it is a
    photograph: its middle is cut out in the net's proportions and scaled.

    Raises:
        PictureError: the file is no PNG or JPEG, damaged, larger than 64 MiB or 50 million pixels,
            or shows one colour only.
        OSError: the file cannot be read.
        ValueError: a shape of neither one nor three channels.
        ImportError: Pillow is not installed.

    Example:
        >>> import tempfile, PIL.Image
        >>> page = np.full((90, 60), 255, np.uint8)
        >>> page[20:70, 28:34] = 0
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/one.png"
        ...     PIL.Image.fromarray(page).save(path)
        ...     for step in prepare(path).steps:
        ...         print(step)
        60×90 pixels, PNG
        inverted: it was dark on light
        cropped to the 6×50 pixels that are drawn on
        scaled to 2×20, as in MNIST
        centred by mass in 28×28
    """
    if shape[2] not in (1, 3):
        raise ValueError(f"shape must have one channel or three, got {shape}")
    image, steps = _opened(Path(path))
    if shape[2] == 3:
        return _photograph(image, shape, steps)
    return _digit(Path(path), image, shape, steps)


def drawing(image: NDArray[Any]) -> list[str]:
    """An image (H, W) of bytes in shades, two pixels high to a character.

    >>> drawing(np.array([[0, 255, 130], [0, 255, 130], [60, 255, 0]], np.uint8))
    [' █▒', ' ▒ ']
    """
    rows = np.asarray(image, np.float64)
    if len(rows) % 2:
        rows = np.concatenate([rows, np.zeros_like(rows[:1])])
    pairs = rows.reshape(len(rows) // 2, 2, -1).mean(axis=1)
    shades = (pairs / 256 * len(_SHADES)).astype(int)
    return ["".join(_SHADES[shade] for shade in row) for row in shades]


def _opened(path: Path) -> tuple[Image, list[str]]:
    """The picture, upright, not too large, as L, RGB or RGBA; and what was done to it."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ImportError(
            'pictures need Pillow, which is not installed (pip install "fastcnn[images]")'
        ) from None
    contents = _contents(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's own limit, a higher one
            return _decoded(path, Image.open(BytesIO(contents), formats=FORMATS))
    except PictureError:
        raise
    except Image.DecompressionBombError:  # Pillow's own limit comes before there is a size
        raise PictureError(f"{path} has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise PictureError(f"{path} is no {' or '.join(FORMATS)} file") from None
    except Exception as error:  # decoders raise what they please at damaged files
        raise PictureError(f"{path} is damaged: {error}") from None


def _decoded(path: Path, image: Image) -> tuple[Image, list[str]]:
    from PIL import Image as images
    from PIL import ImageOps

    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"{path} has more than {MAX_PIXELS:,} pixels, {width:,}×{height:,}")
    steps = [f"{width:,}×{height:,} pixels, {image.format}"]
    if max(width, height) > _LARGE:
        image.draft(None, (_LARGE, _LARGE))  # a JPEG can be decoded at less than its size
    image.load()
    if image.getexif().get(_ORIENTATION, 1) != 1:
        steps.append("turned upright, as its camera noted")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits; a conversion would cut off what is above 255
        upright = images.fromarray((np.asarray(upright) // 257).astype(np.uint8))
    elif upright.has_transparency_data:
        upright = upright.convert("RGBA")
    else:
        upright = upright.convert("L" if upright.mode in ("1", "L") else "RGB")
    if max(upright.size) > _LARGE:
        upright = upright.reduce(-(-max(upright.size) // _LARGE))
    return upright, steps


def _contents(path: Path) -> bytes:
    with open_regular(path) as file:
        contents = file.read(MAX_BYTES + 1)
    if len(contents) > MAX_BYTES:
        raise PictureError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
    return contents


def _photograph(image: Image, shape: tuple[int, int, int], steps: list[str]) -> Prepared:
    from PIL import Image, ImageOps

    height, width, _ = shape
    colour = image.convert("RGB")
    steps.append(f"middle cut out and scaled to {width}×{height}")
    fitted = ImageOps.fit(colour, (width, height), Image.Resampling.BICUBIC)
    return Prepared(np.array(fitted, np.uint8), tuple(steps))


def _digit(path: Path, image: Image, shape: tuple[int, int, int], steps: list[str]) -> Prepared:
    grey = _grey(image, steps)
    low, high = float(grey.min()), float(grey.max())
    if high - low < _FLAT:
        raise PictureError(f"{path} shows nothing: all of its pixels are nearly alike")
    background = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    if background > (low + high) / 2:
        steps.append("inverted: it was dark on light")
        grey, background = 255 - grey, 255 - background
    elif grey.shape == shape[:2] and background == 0:
        steps.append("taken as it is: of the net's size, light on black")
        return Prepared(grey.astype(np.uint8)[:, :, np.newaxis], tuple(steps))
    light = np.clip(grey - background, 0, None)
    light *= 255 / light.max()

    # What is drawn: brighter than Otsu's threshold, or than half of it where the line fades out.
    drawn = light > _otsu(light) / 2
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    light = light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if light.shape != grey.shape:
        steps.append(
            f"cropped to the {light.shape[1]:,}×{light.shape[0]:,} pixels that are drawn on"
        )
    height, width, _ = shape
    scaled = _scaled(light, round(_BOX * min(height, width)))
    if scaled.shape != light.shape:
        steps.append(f"scaled to {scaled.shape[1]}×{scaled.shape[0]}, as in MNIST")
    steps.append(f"centred by mass in {width}×{height}")
    return Prepared(_centred(scaled, height, width)[:, :, np.newaxis], tuple(steps))


def _grey(image: Image, steps: list[str]) -> Floats:
    """Brightness from 0 to 255; what is transparent becomes white, or black around white lines."""
    grey = np.asarray(image.convert("L"), np.float64)
    if image.mode == "RGB":
        steps.append("colours taken as grey")
    if image.mode == "RGBA":
        alpha = np.asarray(image.getchannel("A"), np.float64) / 255
        seen = grey[alpha > 0.5]
        paper = 0 if seen.size and seen.mean() > 127 else 255
        steps.append(f"on {'white' if paper else 'black'}, where it is transparent")
        grey = alpha * grey + (1 - alpha) * paper
    return grey


def _otsu(light: Floats) -> float:
    """The threshold that parts dark from bright pixels with the greatest variance between."""
    counts, edges = np.histogram(light, bins=256, range=(0, 256))
    values = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = light.size - below
    sums = np.cumsum(counts * values)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def _scaled(light: Floats, box: int) -> Floats:
    """The drawing scaled into the box, as bright as before where thin lines faded."""
    from PIL import Image

    factor = box / max(light.shape)
    size = [max(1, round(side * factor)) for side in light.shape]
    if tuple(size) == light.shape:
        return light
    image = Image.fromarray(light.astype(np.float32))
    resized = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    scaled = np.clip(np.asarray(resized, np.float64), 0, 255)
    scaled *= 255 / max(float(scaled.max()), 1.0)
    return scaled


def _centred(drawn: Floats, height: int, width: int) -> Bytes:
    """The drawing on black, its centre of mass in the middle, as far as there is room."""
    result = np.zeros((height, width), np.uint8)
    mass = drawn.sum()
    places = []
    for axis, side in ((0, height), (1, width)):
        centre = float(drawn.sum(axis=1 - axis) @ np.arange(drawn.shape[axis]) / mass)
        places.append(min(max(round(side / 2 - centre), 0), side - drawn.shape[axis]))
    top, left = places
    result[top : top + drawn.shape[0], left : left + drawn.shape[1]] = np.rint(drawn)
    return result
