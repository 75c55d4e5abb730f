"""Picture files as inputs of a net: PNG, JPEG, GIF, BMP and WebP of any size.

The steps follow the net's :class:`fastcnn.Preparation`, which says how the pictures of its training
were made. Each step is reported in words, and so is each doubt. ``fastcnn/data/drawings.py``
removes a shadow, a frame and specks from the page.

Files may be hostile. Their size is checked before they are read, and their number of pixels before
they are decompressed. Only the decoders of these five formats read them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.reading import open_regular
from fastcnn.data.drawings import (
    FLAT,
    Floats,
    background,
    find_drawing,
    light_on_dark,
    place,
    resized,
    scale,
    surroundings,
    without_frame,
)
from fastcnn.data.preparation import MNIST, PHOTOGRAPHS, Preparation
from fastcnn.data.whole_files import check_png, whole_jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int, int, int]

MAX_BYTES = 64 << 20
"""Largest file (64 MiB) that is read."""
MAX_PIXELS = 50_000_000
"""Largest picture that is decompressed; a telephone's camera makes 12 to 48 million."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")
_LARGE = 1024  # a picture is reduced, for speed, until its sides are at most this
_REDUCED = 2.0  # a JPEG that is then scaled is decoded with at least so many pixels for each one
_ORIENTATION = 0x0112  # in EXIF
_GREY_ROWS = 16  # so many plain grey rows at the lower end of a JPEG may be missing data
_BLACK, _LIGHT = 4.0, 64.0  # the largest grey level of a background, and the smallest of a subject
_FILLED = 0.9  # a subject that fills a side takes at least this share of it
_SHADES = " ░▒▓█"

Bytes = NDArray[np.uint8]


class PictureError(ValueError):
    """A picture cannot be read, or shows nothing; the message names file and fault."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """``pixels`` are (H, W, C) bytes for a net; ``steps`` describe how the picture was changed."""

    pixels: Bytes
    steps: tuple[str, ...]


def prepare(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int] = (28, 28, 1),
    preparation: Preparation | None = None,
) -> Prepared:
    """A picture file as a net's input of this shape (H, W, C).

    Args:
        path: a PNG, JPEG, GIF (its first frame), BMP or WebP file.
        shape: (H, W, C) of the net's input, with one channel or three.
        preparation: the preparation of the training's pictures, which is ``model.preparation``.
            With None and three channels, the middle is cut out in the net's proportions and scaled,
            as for photographs. With None and one channel the picture decides. If it is light on
            dark and fills its height or its width, like the clothes of Fashion-MNIST, it is scaled
            as a whole. Otherwise it is prepared like MNIST's digits: light on dark, cropped, scaled
            into 20/28 of the side, centred by mass.

    Raises:
        PictureError: the file is of another format, is damaged, is larger than 64 MiB or 50 million
            pixels, or shows one colour only.
        OSError: the file cannot be read, or is no regular file.
        ValueError: the shape has neither one nor three channels.
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
    if preparation is None and shape[2] == 3:
        preparation = PHOTOGRAPHS
    image, steps = _opened(Path(path), _final_size(shape, preparation))
    if preparation is None and _fills_its_frame(image):
        preparation = Preparation(background="dark")
        steps.append("taken whole: it is light on dark and fills its height or its width")
    elif preparation is None:
        preparation = MNIST
    if preparation.transposed:
        shape = shape[1], shape[0], shape[2]
    make = _whole if preparation.box is None else _digit
    pixels = make(Path(path), image, shape, preparation, steps)
    if preparation.transposed:
        pixels = np.ascontiguousarray(pixels.swapaxes(0, 1))
        steps.append("rows and columns exchanged, as in the training")
    return Prepared(pixels, tuple(steps))


def _final_size(shape: Shape, preparation: Preparation | None) -> tuple[int, int] | None:
    """(H, W) to which the middle of a picture is scaled; None for another preparation."""
    if preparation is None or preparation.box is not None or preparation.edges != "crop":
        return None
    return (shape[1], shape[0]) if preparation.transposed else (shape[0], shape[1])


def _fills_its_frame(image: Image) -> bool:
    """Whether something light on dark reaches from one border almost to the opposite one."""
    grey = np.asarray(_on(image, 255).convert("L"), np.float64)
    if min(grey.shape) < 2:
        return False
    light, black = grey > _LIGHT, grey <= _BLACK  # no photographed page is that black
    # Strokes cover less of a picture than a subject does, and a page in a dark frame covers more.
    corners = black[:: len(black) - 1, :: len(black[0]) - 1]
    if surroundings(grey) > _BLACK or not corners.all():
        return False
    if not 0.2 <= light.mean() <= 0.7 or black.mean() < 0.2:
        return False
    for side, marks in zip(grey.shape, (light.any(axis=1), light.any(axis=0)), strict=True):
        first, last = np.flatnonzero(marks)[[0, -1]]
        if last - first + 1 >= _FILLED * side:
            return True
    return False


def picture(path: str | os.PathLike[str], size: tuple[int, ...] | None, channels: int) -> Bytes:
    """A picture file as an array, (H, W) grey or (H, W, 3); errors as for :func:`prepare`.

    Args:
        path: a file of one of these formats. Transparent pixels become white.
        size: (H, W); the middle is cut out in these proportions and scaled. None keeps the size.
        channels: 1 or 3.
    """
    if size is None:
        image, _ = _opened(Path(path), reduced=False)
    else:
        image, _ = _opened(Path(path), (size[0], size[1]))
    flat = _in_mode(_on(image, 255), "L" if channels == 1 else "RGB")
    return np.array(flat if size is None else _fitted(flat, *size), np.uint8)


def size_and_channels(path: str | os.PathLike[str]) -> tuple[tuple[int, int], int]:
    """(H, W) of a picture file, and 1 for grey or 3 for colour. Its pixels are not read."""
    with _readable(Path(path)) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):  # turned by 90°
            width, height = height, width
        grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    return (height, width), 1 if grey else 3


def drawing(image: NDArray[Any]) -> list[str]:
    """An image (H, W) of bytes as lines of text, one character for two rows.

    >>> drawing(np.array([[0, 255, 130], [0, 255, 130], [60, 255, 0]], np.uint8))
    [' █▒', ' ▒ ']
    """
    rows = np.asarray(image, np.float64)
    if len(rows) % 2:
        rows = np.concatenate([rows, np.zeros_like(rows[:1])])
    pairs = rows.reshape(len(rows) // 2, 2, -1).mean(axis=1)
    shades = (pairs / 256 * len(_SHADES)).astype(int)
    return ["".join(_SHADES[shade] for shade in row) for row in shades]


def _opened(
    path: Path, final: tuple[int, int] | None = None, reduced: bool = True
) -> tuple[Image, list[str]]:
    """The picture, upright, in mode L, RGB or RGBA; and descriptions of its changes.

    With ``reduced`` a large picture is read at a fraction of its size, and a JPEG whose middle will
    be scaled to ``final`` (H, W) at the smallest fraction that leaves pixels enough.
    """
    with _readable(path) as image:
        if reduced:
            _draft(image, final)
        return _decoded(image, reduced)


def _draft(image: Image, final: tuple[int, int] | None) -> None:
    """Let a JPEG be decoded at a half, a quarter or an eighth of its size."""
    width, height = image.size
    factor = 1
    if max(width, height) > _LARGE:
        factor = gcd(-(-max(width, height) // _LARGE), 8)
    if final is not None:
        across, down = width / final[1], height / final[0]
        if image.format == "JPEG" and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
            across, down = width / final[0], height / final[1]
        room = min(across, down) / _REDUCED
        factor = max([factor, *(one for one in (2, 4, 8) if one <= room)])
    if factor > 1:
        image.draft(None, (-(-width // factor), -(-height // factor)))


@contextmanager
def _readable(path: Path) -> Iterator[Image]:
    """Open a picture without decoding it; errors within this context name the file."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ImportError(
            "pictures need Pillow, which is not installed (pip install pillow)"
        ) from None
    contents = _contents(path)
    try:
        image: Image.Image = Image.open(BytesIO(contents), formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise PictureError(f"{path} has more than {MAX_PIXELS:,} pixels, {width:,}×{height:,}")
        if image.format == "JPEG":
            image = Image.open(BytesIO(whole_jpeg(contents, width, height)), formats=FORMATS)
        elif image.format == "PNG":
            check_png(contents)
        yield image
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow has limits of its own, above MAX_PIXELS. Its warning is not silenced here, because
        # the filters of warnings belong to the process, and pictures are read in threads.
        raise PictureError(f"{path} has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise PictureError(f"{path} is no PNG, JPEG, GIF, BMP or WebP file") from None
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise PictureError(f"{path} is damaged: {error}") from None


def _decoded(image: Image, reduced: bool) -> tuple[Image, list[str]]:
    from PIL import ImageOps

    width, height = image.size
    steps = [f"{width:,}×{height:,} pixels, {image.format}"]
    image.load()
    if image.getexif().get(_ORIENTATION, 1) != 1:
        steps.append("turned upright, as its camera noted")
    if image.format == "JPEG" and (rows := _grey_rows(image)):
        steps.append(f"in doubt: its lowest {rows:,} rows are grey, as where data are missing")
    ImageOps.exif_transpose(image, in_place=True)
    upright: Image = image
    if upright.mode.startswith("I"):  # 16 bits; a plain conversion would clip values at 255
        upright = _of_16_bits(upright, steps)
    elif upright.has_transparency_data:
        upright = upright.convert("RGBA")
    else:
        upright = _in_mode(upright, "L" if upright.mode in ("1", "L") else "RGB")
    if reduced and max(upright.size) > _LARGE:
        upright = upright.reduce(-(-max(upright.size) // _LARGE))
    return upright, steps


def _in_mode(image: Image, mode: str) -> Image:
    """The picture in this mode; not a copy if it has the mode, because a copy of it takes long."""
    return image if image.mode == mode else image.convert(mode)


def _of_16_bits(image: Image, steps: list[str]) -> Image:
    """Grey of 16 bits as bytes. Scanners and cameras of 10 to 14 bits use a part of the range."""
    from PIL import Image as images

    values = np.asarray(image).astype(np.int64).clip(0)
    width = int(values.max()).bit_length()
    bits = next((bits for bits in (8, 10, 12, 14) if width <= bits), 16)
    if bits < 16:
        steps.append(f"its values, up to {int(values.max()):,}, taken as {bits} bits of 16")
    return images.fromarray((values * 255 // (2**bits - 1)).astype(np.uint8))


def _grey_rows(image: Image) -> int:
    """Number of rows at the lower end that look like missing data of a JPEG."""
    first = max(image.height - _GREY_ROWS, 0)
    if (np.asarray(image.crop((0, first, image.width, image.height))) != 128).any():
        return 0  # the usual case, for which a few rows are enough
    lowest = np.asarray(image)[::-1]
    rows = lowest.reshape(len(lowest), -1)
    coded_rows = np.flatnonzero((rows[:, 0] != 128) | (np.ptp(rows, axis=1) != 0))
    count = int(coded_rows[0]) if len(coded_rows) else 0  # all grey is a grey picture
    return count if count >= _GREY_ROWS else 0


def _contents(path: Path) -> bytes:
    with open_regular(path) as file:
        contents = file.read(MAX_BYTES + 1)
    if len(contents) > MAX_BYTES:
        raise PictureError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
    return contents


def _on(image: Image, paper: int) -> Image:
    """The picture, with transparent pixels replaced by paper of this brightness."""
    from PIL import Image as images

    if image.mode != "RGBA":
        return image
    page = images.new("RGBA", image.size, (paper, paper, paper, 255))
    return images.alpha_composite(page, image).convert("RGB")


def _fitted(image: Image, height: int, width: int) -> Image:
    """The middle of the picture, cut out in these proportions and scaled."""
    from PIL import Image as images

    ratio, other = image.width / image.height, width / height
    middle_width = other * image.height if ratio > other else image.width
    middle_height = image.width / other if ratio < other else image.height
    left, top = (image.width - middle_width) * 0.5, (image.height - middle_height) * 0.5
    box = left, top, left + middle_width, top + middle_height
    return resized(image, height, width, images.Resampling.BICUBIC, box)


def _shrunk(image: Image, height: int, width: int) -> Image:
    """The picture in another size; one that is much larger is reduced by whole factors before."""
    from PIL import Image as images

    across, down = int(image.width / width / 3) or 1, int(image.height / height / 3) or 1
    box = 0, 0, image.width / across, image.height / down
    reduced = image if across == down == 1 else image.reduce((across, down))
    return resized(reduced, height, width, images.Resampling.BICUBIC, box)


def _whole(
    path: Path, image: Image, shape: Shape, preparation: Preparation, steps: list[str]
) -> Bytes:
    """The whole picture, or its middle, scaled."""
    from PIL import ImageOps

    height, width, channels = shape
    dark = preparation.background == "dark"
    if image.mode == "RGBA":
        steps.append(f"on {'black' if dark else 'white'}, where it is transparent")
        image = _on(image, 0 if dark else 255)
    if channels == 1 and image.mode != "L":
        steps.append("colours taken as grey")
    image = image.convert("L" if channels == 1 else "RGB")
    level = surroundings(np.asarray(image.convert("L"), np.float64))
    if preparation.background is not None and (level < 127.5) != dark:
        steps.append(f"inverted: it was on a {'light' if dark else 'dark'} background")
        image = ImageOps.invert(image)
    if image.size == (width, height):
        steps.append("taken as it is: of the net's size")
    elif preparation.edges == "crop":
        image = _fitted(image, height, width)
        steps.append(f"middle cut out and scaled to {width}×{height}")
    else:
        image = _padded(image, height, width, steps)
    pixels = np.array(image, np.uint8)
    if float(np.ptp(pixels.mean(axis=2) if channels == 3 else pixels)) < 1:
        raise PictureError(f"{path} shows nothing: all of its pixels are alike")
    return pixels.reshape(height, width, channels)


def _padded(image: Image, height: int, width: int, steps: list[str]) -> Image:
    """The whole picture in its proportions, with its background on the rest of the area."""
    from PIL import Image as images

    factor = min(height / image.height, width / image.width)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    scaled = _shrunk(image, size[1], size[0])
    steps.append(f"scaled to {size[0]}×{size[1]}")
    if size == (width, height):
        return scaled
    pixels = np.asarray(image)
    borders = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    level = np.rint(np.median(borders, axis=0)).astype(int)
    fill = int(level) if level.ndim == 0 else tuple(level.tolist())
    page = images.new(image.mode, (width, height), fill)
    page.paste(scaled, ((width - size[0]) // 2, (height - size[1]) // 2))
    steps.append(f"filled up to {width}×{height} with its background")
    return page


def _digit(
    path: Path, image: Image, shape: Shape, preparation: Preparation, steps: list[str]
) -> Bytes:
    """The drawing, cropped, scaled into the box and centred."""
    assert preparation.box is not None
    height, width, channels = shape
    light_paper = preparation.background == "light"
    grey = _grey(image, steps)
    if float(np.ptp(grey)) < FLAT:
        raise PictureError(f"{path} shows nothing: all of its pixels are nearly alike")
    level = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    if grey.shape == shape[:2] and level in (0, 255):
        if (level == 255) != light_paper:
            steps.append(f"inverted: it was {'light on dark' if light_paper else 'dark on light'}")
            grey = 255 - grey
        paper = "dark on white" if light_paper else "light on black"
        steps.append(f"taken as it is: of the net's size, {paper}")
        pixels = grey.astype(np.uint8)
    else:
        grey = without_frame(grey, steps)
        middle = (float(grey.min()) + float(grey.max())) / 2
        dark_on_light = background(grey) > middle
        if dark_on_light and not light_paper:
            steps.append("inverted: it was dark on light")
        light = find_drawing(light_on_dark(grey, dark_on_light, steps), steps)
        if light.shape != grey.shape:
            size = f"{light.shape[1]:,}×{light.shape[0]:,}"
            steps.append(f"cropped to the {size} pixels that are drawn on")
        digit = scale(light, max(1, round(preparation.box * min(height, width))))
        if digit.shape != light.shape:
            name = "MNIST" if preparation == MNIST else "the training"
            steps.append(f"scaled to {digit.shape[1]}×{digit.shape[0]}, as in {name}")
        by_mass = preparation.centre == "mass"
        how = "by mass" if by_mass else "by its box"
        steps.append(f"centred {how} in {width}×{height}")
        pixels = place(digit, height, width, by_mass)
        if light_paper:
            pixels = 255 - pixels
            if not dark_on_light:
                steps.append("inverted: it was light on dark")
    return np.repeat(pixels[:, :, np.newaxis], channels, axis=2)


def _grey(image: Image, steps: list[str]) -> Floats:
    """Brightness from 0 to 255. Transparent pixels become white, or black around white lines."""
    grey = np.asarray(image.convert("L"), np.float64)
    if image.mode == "RGB":
        steps.append("colours taken as grey")
    if image.mode == "RGBA":
        alpha = np.asarray(image.getchannel("A"), np.float64) / 255
        visible = grey[alpha > 0.5]
        paper = 0 if visible.size and visible.mean() > 127 else 255
        steps.append(f"on {'white' if paper else 'black'}, where it is transparent")
        grey = alpha * grey + (1 - alpha) * paper
    return grey
