"""Pictures: a digit in any size and polarity comes out as MNIST has it; damaged files are named."""

from __future__ import annotations

import pickle
import struct
import sys
import zlib
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fastcnn
from fastcnn.data import pictures
from fastcnn.data.preparation import MNIST, PHOTOGRAPHS, Preparation, preparation_of
from fastcnn.layers import Dense, Flatten
from fastcnn.models import model_files
from fastcnn.pictures import PictureError, drawing, prepare


@pytest.fixture(scope="module")
def digits() -> Any:
    (images, _), _ = fastcnn.load_mnist()
    return images[:40]


def saved(folder: Path, image: Any, name: str = "digit.png", **settings: Any) -> Path:
    path = folder / name
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    whole.save(path, **settings)
    return path


def shifted_difference(a: Any, b: Any) -> float:
    """Mean difference of grey levels, of the best of the nine moves by at most one pixel."""
    moves = [np.roll(a, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return min(float(np.abs(moved.astype(float) - b).mean()) for moved in moves)


def test_digits_of_mnist_stay_as_they_are(digits: Any, tmp_path: Path) -> None:
    for digit in digits:
        result = prepare(saved(tmp_path, digit))
        np.testing.assert_array_equal(result.pixels[:, :, 0], digit)
    assert result.steps == (
        "28×28 pixels, PNG",
        "taken as it is: of the net's size, light on black",
    )


def test_inverted_digits_come_out_as_mnist_has_them(digits: Any, tmp_path: Path) -> None:
    for digit in digits:
        result = prepare(saved(tmp_path, 255 - digit))
        assert shifted_difference(result.pixels[:, :, 0], digit) < 1
        assert "inverted: it was dark on light" in result.steps


def page(digit: Any, side: int, size: tuple[int, int], at: tuple[int, int]) -> Any:
    """A grey page with the digit as ink."""
    ink = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))
    result = np.full(size, 230.0)
    result[at[0] : at[0] + side, at[1] : at[1] + side] -= ink * (200 / 255)
    return result.astype(np.uint8)


@pytest.mark.parametrize(
    "convert",
    [
        lambda grey: Image.fromarray(grey),
        lambda grey: Image.fromarray(255 - grey),
        lambda grey: Image.fromarray(grey).convert("RGB"),
        lambda grey: Image.fromarray(grey).convert("P"),
        lambda grey: Image.fromarray(grey).convert("CMYK"),
        lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
        lambda grey: Image.merge("LA", [Image.new("L", grey.shape[::-1]), ink(grey)]),
        lambda grey: Image.merge("RGBA", [Image.new("L", grey.shape[::-1], 255)] * 3 + [ink(grey)]),
    ],
    ids=["dark", "light", "colour", "palette", "cmyk", "16bit", "black-on-clear", "white-on-clear"],
)
def test_any_size_polarity_and_mode(
    convert: Callable[[Any], Image.Image], digits: Any, tmp_path: Path
) -> None:
    for digit in digits[:8]:
        image = convert(page(digit, 140, (300, 410), (31, 57)))
        name = "digit.jpg" if image.mode == "CMYK" else "digit.png"
        result = prepare(saved(tmp_path, image, name))
        assert result.pixels.dtype == np.uint8
        assert shifted_difference(result.pixels[:, :, 0], digit) < 12
        assert shifted_difference(255 - result.pixels[:, :, 0], digit) > 100


def ink(grey: Any) -> Image.Image:
    return Image.fromarray(np.clip((230 - grey.astype(int)) * 255 // 200, 0, 255).astype(np.uint8))


def test_large_photographs(digits: Any, tmp_path: Path) -> None:
    digit = digits[0]
    grey = page(digit, 1500, (2100, 3000), (311, 757))
    rng = np.random.default_rng(0)
    noisy = np.clip(grey + rng.normal(0, 4, grey.shape), 0, 255).astype(np.uint8)
    result = prepare(saved(tmp_path, noisy, "photo.jpg", quality=80))
    assert result.steps[0] == "3,000×2,100 pixels, JPEG"
    assert shifted_difference(result.pixels[:, :, 0], digit) < 12


def test_cameras_rotation_is_undone(digits: Any, tmp_path: Path) -> None:
    grey = page(digits[0], 140, (200, 300), (31, 57))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to the right
    lying = Image.fromarray(grey).rotate(90, expand=True)
    result = prepare(saved(tmp_path, lying, "photo.jpg", exif=exif, quality=95))
    assert "turned upright, as its camera noted" in result.steps
    assert shifted_difference(result.pixels[:, :, 0], digits[0]) < 12


def test_thin_and_tiny_drawings_fill_the_box(tmp_path: Path) -> None:
    thin = np.full((900, 700), 255, np.uint8)
    thin[100:800, 350:353] = 0
    pixels = prepare(saved(tmp_path, thin)).pixels[:, :, 0]
    rows = np.flatnonzero(pixels.any(axis=1))
    assert (rows[0], rows[-1]) in ((4, 23), (5, 24))
    assert pixels.max() == 255

    tiny = np.zeros((3, 5), np.uint8)
    tiny[1, 2] = 200
    pixels = prepare(saved(tmp_path, tiny)).pixels[:, :, 0]
    assert (pixels > 0).sum() == 400


def test_other_shapes(digits: Any, tmp_path: Path) -> None:
    path = saved(tmp_path, page(digits[0], 140, (300, 410), (31, 57)))
    tall = prepare(path, (56, 35, 1)).pixels
    assert tall.shape == (56, 35, 1)
    assert np.ptp(np.flatnonzero(tall.any(axis=(1, 2)))) <= 25

    colours = np.zeros((60, 90, 3), np.uint8)
    colours[:, 15:75] = (200, 100, 50)
    result = prepare(saved(tmp_path, colours), (32, 32, 3))
    assert result.pixels.shape == (32, 32, 3)
    assert (result.pixels.min(axis=(0, 1)) > (180, 90, 44)).all()  # none of the black beside
    assert (result.pixels[:, 2:-2] == (200, 100, 50)).all()
    assert result.steps[-1] == "middle cut out and scaled to 32×32"
    with pytest.raises(
        ValueError, match=r"shape must have one channel or three, got \(28, 28, 2\)"
    ):
        prepare(path, (28, 28, 2))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(c[:4], c[4:]) for c in chunks)


def test_hostile_files_are_refused_with_their_name(tmp_path: Path, digits: Any) -> None:
    whole = saved(tmp_path, page(digits[0], 140, (300, 410), (31, 57))).read_bytes()
    body = b"IDAT" + zlib.compress(bytes(10_000)), b"IEND"
    text = png(4, 4, b"zTXtkey\0\0" + zlib.compress(bytes(80_000_000)), b"IDAT", b"IEND")
    cases = {
        "bomb.png": (png(30_000, 30_000, *body), "has more than 50,000,000 pixels"),
        "large.png": (png(10_000, 9_999, *body), "has more than 50,000,000 pixels, 10,000×9,999"),
        "text.png": (text, "is damaged: "),
        "truncated.png": (whole[: len(whole) // 2], "is damaged: "),
        "header.png": (whole[:20], "is (damaged|no PNG)"),
        "empty.png": (b"", "is no PNG, JPEG, GIF, BMP or WebP file"),
        "text.txt": (b"hello", "is no PNG, JPEG, GIF, BMP or WebP file"),
        "gif.png": (b"GIF89a" + bytes(100), "is no PNG, JPEG, GIF, BMP or WebP file"),
        "broken.png": (whole[:60] + bytes(40) + whole[100:], "is damaged: "),
    }
    for name, (contents, message) in cases.items():
        path = tmp_path / name
        path.write_bytes(contents)
        with pytest.raises(PictureError, match=f"{name} {message}"):
            prepare(path)


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 1 << 20)
    path = tmp_path / "large.png"
    path.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(PictureError, match=r"large\.png is larger than 1 MiB"):
        prepare(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        prepare(tmp_path / "no.png")
    with pytest.raises(OSError, match="directory"):
        prepare(tmp_path)


def test_a_blank_page_shows_nothing(tmp_path: Path) -> None:
    page = np.full((50, 40), 240, np.uint8)
    page[3, 3] = 235
    with pytest.raises(PictureError, match=r"shows nothing: all of its pixels are nearly alike"):
        prepare(saved(tmp_path, page))


def test_without_pillow_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"Pillow, which is not installed \(pip install pillow\)"):
        prepare(tmp_path / "no.png")


def test_drawing_has_a_row_for_two(digits: Any) -> None:
    rows = drawing(digits[0])
    assert len(rows) == 14
    assert {len(row) for row in rows} == {28}
    assert "█" in "".join(rows)
    assert drawing(np.zeros((3, 2), np.uint8)) == ["  ", "  "]


# --- what lies on a page beside the drawing -------------------------------------------------------


def clean(digit: Any) -> Any:
    """A white page with the digit in black."""
    ink = np.asarray(Image.fromarray(digit).resize((84, 84), Image.Resampling.BICUBIC))
    return np.pad(255 - ink, 20, constant_values=255)


def shaded(page: Any, light: Any) -> Any:
    return (page * light).astype(np.uint8)


def framed(page: Any, width: int = 3, value: int = 0, sides: str = "tblr") -> Any:
    page = page.copy()
    for side, lines in {"t": page, "b": page[::-1], "l": page.T, "r": page.T[::-1]}.items():
        if side in sides:
            lines[:width] = value
    return page


def dusty(page: Any, grains: int = 1, side: int = 1) -> Any:
    rng, page = np.random.default_rng(0), page.copy()
    for row, column in [(5, 5), *rng.integers(0, len(page) - side, (grains - 1, 2)).tolist()]:
        page[row : row + side, column : column + side] = 0
    return page


def noisy(page: Any, deviation: float = 8) -> Any:
    noise = np.random.default_rng(0).normal(0, deviation, page.shape)
    return np.clip(page * 0.85 + noise, 0, 255).astype(np.uint8)


ROWS, COLUMNS = np.mgrid[:124, :124]
BLEMISHES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "shadow": (lambda p: shaded(p, np.linspace(1, 0.45, 124)), "evened out a shadow"),
    "shadow from above": (lambda p: shaded(p, np.linspace(0.3, 1, 124)[:, None]), "evened out"),
    "sharp shadow": (lambda p: shaded(p, np.where(COLUMNS < 55, 0.5, 1)), "evened out a shadow"),
    "slanted shadow": (lambda p: shaded(p, np.where(ROWS + COLUMNS < 110, 0.5, 1)), "evened out"),
    "vignette": (
        lambda p: shaded(p, np.clip(1.1 - ((ROWS - 62) ** 2 + (COLUMNS - 62) ** 2) / 8500, 0.2, 1)),
        "evened out a shadow",
    ),
    "frame": (framed, "removed a frame along the border"),
    "grey frame": (lambda p: framed(p, 7, 90), "removed a frame along the border"),
    "dark edge": (lambda p: framed(p, 9, 10, "b"), "removed what lies along the border"),
    "two dark edges": (lambda p: framed(p, 6, 30, "tr"), "removed what lies along the border"),
    "three dark edges": (lambda p: framed(p, 6, 20, "tlr"), "removed what lies along the border"),
    "drawn box": (lambda p: np.pad(framed(p[8:-8, 8:-8], 2, 60), 8, constant_values=255),
                  "removed what lies along the border"),
    "one grain": (dusty, "removed a speck"),
    "grains": (lambda p: dusty(p, 25, 2), "specks"),
    "noise": (noisy, "inverted: it was dark on light"),
    "all at once": (lambda p: noisy(shaded(framed(dusty(p)), np.linspace(1, 0.5, 124))), "specks"),
    "black page": (lambda p: 255 - framed(dusty(p)), "removed a speck"),
    "chalk": (lambda p: shaded(255 - p, 0.7) + np.linspace(20, 75, 124).astype(np.uint8), "evened"),
}  # fmt: skip


@pytest.mark.parametrize("name", BLEMISHES)
def test_a_photographed_digit_is_as_on_a_clean_page(name: str, digits: Any, tmp_path: Path) -> None:
    change, step = BLEMISHES[name]
    steps = set()
    for digit in digits[:12]:
        expected = prepare(saved(tmp_path, clean(digit))).pixels[:, :, 0]
        result = prepare(saved(tmp_path, change(clean(digit))))
        assert shifted_difference(result.pixels[:, :, 0], expected) < 12, result.steps
        steps |= set(result.steps)
    assert any(step in one for one in steps), steps


def test_a_clean_page_needs_no_repair(digits: Any, tmp_path: Path) -> None:
    for digit in digits[:12]:
        result = prepare(saved(tmp_path, clean(digit)))
        assert not [s for s in result.steps if s.startswith(("removed", "evened", "in doubt"))]


def test_strokes_along_the_border_are_not_taken_for_a_frame(tmp_path: Path) -> None:
    for sides in ("t", "tl", "tb", "tlb", "tblr"):  # as 7, Γ, Z, E and a rectangle, cropped tightly
        glyph = framed(np.full((60, 50), 255, np.uint8), 6, 0, sides)
        glyph[6:40, 22:28] = 0  # hangs on the upper stroke
        pixels = prepare(saved(tmp_path, glyph)).pixels[:, :, 0]
        rows = np.flatnonzero(pixels.any(axis=1))
        assert (pixels[rows[0]] > 180).sum() > 12, sides  # the upper stroke is there


def test_what_is_doubtful_is_said(digits: Any, tmp_path: Path) -> None:
    two = np.concatenate([clean(digits[0]), clean(digits[1])], axis=1)
    assert (
        "in doubt: 2 drawings stand side by side, and are taken as one"
        in prepare(saved(tmp_path, two)).steps
    )
    ruled = clean(digits[0])
    ruled[::25] = np.minimum(ruled[::25], 170)
    steps = prepare(saved(tmp_path, ruled)).steps
    assert "in doubt: removed fainter lines from border to border" in steps
    ruled[::25] = 0
    steps = prepare(saved(tmp_path, ruled)).steps
    assert "in doubt: what is drawn reaches from border to border" in steps


# --- values of 16 bits, and data that are missing -------------------------------------------------


@pytest.mark.parametrize(("factor", "bits"), [(257, 16), (64, 14), (16, 12), (4, 10), (1, 8)])
def test_grey_of_16_bits_uses_the_range_that_it_has(
    factor: int, bits: int, digits: Any, tmp_path: Path
) -> None:
    page8 = clean(digits[0])
    expected = prepare(saved(tmp_path, page8))
    result = prepare(saved(tmp_path, page8.astype(np.uint16) * np.uint16(factor), "wide.png"))
    np.testing.assert_allclose(result.pixels, expected.pixels, atol=2)
    notes = [step for step in result.steps if "bits of 16" in step]
    assert notes == (
        [] if bits == 16 else [f"its values, up to {255 * factor:,}, taken as {bits} bits of 16"]
    )


def jpeg(array: Any, **settings: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, "JPEG", **settings)
    return file.getvalue()


def claiming(contents: bytes, width: int, height: int) -> bytes:
    """The JPEG file with another size in its header."""
    at = 2
    while contents[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + int.from_bytes(contents[at + 2 : at + 4], "big")
    return contents[: at + 5] + struct.pack(">HH", height, width) + contents[at + 9 :]


@pytest.mark.parametrize(
    ("size", "decoded"),
    [((1024, 700), (1024, 700)), ((1100, 1300), (550, 650)), ((2500, 90), (834, 30))],
)
def test_large_pictures_are_decoded_no_smaller_than_needed(
    size: tuple[int, int], decoded: tuple[int, int], tmp_path: Path
) -> None:
    path, (width, height) = tmp_path / "large.jpg", size
    rows = np.linspace(0, 255, height)[:, None] * np.ones(width)
    path.write_bytes(jpeg(np.stack([rows, rows[::-1], rows], axis=2).astype(np.uint8)))
    image, _ = pictures._opened(path)
    assert image.size == decoded
    result = pictures.picture(path, (20, 30), 3)
    small = Image.fromarray(rows.astype(np.uint8))
    small.save(tmp_path / "large.png")
    expected = pictures.picture(tmp_path / "large.png", (20, 30), 1)
    assert np.abs(result[..., 0].astype(int) - expected).max() <= 6


@pytest.mark.parametrize(
    ("size", "orientation", "final", "decoded"),
    [
        ((800, 640), 1, (80, 100), (200, 160)),  # a quarter
        ((800, 640), 1, (81, 100), (400, 320)),  # 640 / 4 is less than twice 81
        ((800, 640), 6, (100, 80), (160, 200)),  # turned: its height of 800 becomes 100
        ((800, 640), 6, (101, 80), (320, 400)),
        ((640, 400), 1, (300, 300), (640, 400)),
        ((2000, 2000), 1, (10, 10), (250, 250)),  # an eighth at most
    ],
)
def test_a_jpeg_is_decoded_at_twice_its_final_size(
    size: tuple[int, int],
    orientation: int,
    final: tuple[int, int],
    decoded: tuple[int, int],
    tmp_path: Path,
) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 9), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / "picture.jpg"
    image.resize(size, Image.Resampling.BICUBIC).save(path, exif=exif)
    assert pictures._opened(path, final)[0].size == decoded
    pixels = prepare(path, (*final, 3)).pixels
    assert (pixels == pictures.picture(path, final, 3)).all()


JPEGS: dict[str, dict[str, Any]] = {
    "usual": {}, "coarse": {"quality": 5}, "fine": {"quality": 100, "subsampling": 0},
    "optimised": {"optimize": True}, "restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
}  # fmt: skip


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_promises_more_than_it_holds_is_refused(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "picture.jpg"
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    coloured = rng.integers(0, 256, (64, 64, 3), np.uint8)
    for array in (smooth, coloured[..., 0], coloured, np.full((64, 64), 9, np.uint8)):
        whole = jpeg(array, **JPEGS[name])
        for shape in ((28, 28, 1), (28, 28, 3)):
            path.write_bytes(claiming(whole, 7000, 7000))
            with pytest.raises(PictureError, match=r"picture\.jpg is damaged: "):
                prepare(path, shape)
        path.write_bytes(claiming(whole, 64, 64 * 3))
        if name != "progressive":
            with pytest.raises(PictureError, match=r"picture\.jpg is damaged: "):
                prepare(path, (28, 28, 3))
        elif np.ptp(array):
            assert any(
                "rows are grey, as where data are missing" in s
                for s in prepare(path, (28, 28, 3)).steps
            )


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 17), (64, 48), (333, 1), (1100, 1300)])
def test_a_whole_jpeg_is_read_to_its_last_pixel(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "picture.jpg"
    for array in (rng.integers(0, 256, size, np.uint8), np.zeros(size, np.uint8),
                  rng.integers(0, 256, (*size, 3), np.uint8)):  # fmt: skip
        whole = jpeg(array, **JPEGS[name])
        for contents in (
            whole,
            whole + b"more behind the end",
            whole[:2] + b"\xff\xfe\0\4hi" + whole[2:],
        ):
            path.write_bytes(contents)
            read = pictures.picture(path, None, 1 if array.ndim == 2 else 3)
            np.testing.assert_array_equal(read, np.asarray(Image.open(BytesIO(whole))))


def test_a_png_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    for rows in (0, 1, 30):
        path.write_bytes(png(64, 64, b"IDAT" + zlib.compress(bytes(65 * rows)), b"IEND"))
        with pytest.raises(PictureError, match=r"picture\.png is damaged: "):
            prepare(path)


# --- a preparation for each net -------------------------------------------------------------------


def clothes(count: int) -> Any:
    """Shapes that fill the picture in one direction, light on black."""
    rng, images = np.random.default_rng(0), np.zeros((count, 28, 28), np.uint8)
    for image in images:
        height, width = (28, int(rng.integers(6, 24)))[:: int(rng.choice([1, -1]))]
        top, left = (28 - height) // 2, (28 - width) // 2
        image[top : top + height, left : left + width] = rng.integers(90, 255, (height, width))
    return images


def test_the_preparation_is_found_in_the_training_images(digits: Any) -> None:
    grey = digits[..., np.newaxis]
    assert preparation_of(grey) == MNIST
    assert preparation_of(np.repeat(grey, 3, axis=3)) == Preparation(background="dark")
    assert preparation_of(255 - grey) == replace(MNIST, background="light")
    wide = np.pad(grey, ((0, 0), (4, 4), (4, 4), (0, 0)))
    assert preparation_of(wide) == replace(MNIST, box=20 / 36)
    assert preparation_of(np.roll(grey, 4, axis=1)) == Preparation(background="dark")
    assert preparation_of(clothes(60)[..., None]) == Preparation(background="dark")
    rng = np.random.default_rng(0)
    assert preparation_of(rng.integers(0, 256, (50, 32, 32, 3), np.uint8)) == PHOTOGRAPHS
    assert preparation_of(np.zeros((5, 8, 8, 1), np.uint8)) is None
    assert preparation_of(grey[:0]) is None
    assert preparation_of(np.pad(clothes(9), ((0, 0), (9, 9), (9, 9)))[..., None]) == Preparation(
        box=28 / 46, background="dark"
    )


def test_pictures_that_fill_their_frame_are_scaled_as_a_whole(tmp_path: Path) -> None:
    dark = Preparation(background="dark")
    for image in clothes(20):
        large = Image.fromarray(image).resize((112, 112), Image.Resampling.BICUBIC)
        expected = np.asarray(large.resize((28, 28), Image.Resampling.BICUBIC), float)
        for given in (np.asarray(large), 255 - np.asarray(large)):
            result = prepare(saved(tmp_path, given), (28, 28, 1), dark)
            assert np.abs(result.pixels[:, :, 0] - expected).max() <= 3
        squeezed = prepare(saved(tmp_path, np.asarray(large)), preparation=MNIST).pixels[:, :, 0]
        assert np.abs(squeezed - expected).mean() > 5
        # Nothing is known of the net: a picture like this one is taken whole, and the steps say so.
        # One that is nearly all light may as well be a page with dark strokes along its borders.
        if (np.asarray(large) > 64).mean() <= 0.7:
            unknown = prepare(saved(tmp_path, np.asarray(large)))
            assert np.abs(unknown.pixels[:, :, 0] - expected).max() <= 3
            assert unknown.steps[1].startswith("taken whole")


def test_other_proportions_are_filled_up_or_cut(tmp_path: Path) -> None:
    path = saved(tmp_path, np.full((40, 80), 200, np.uint8) - np.eye(40, 80, dtype=np.uint8) * 190)
    padded = prepare(path, (20, 20, 1), Preparation())
    assert (padded.pixels[[0, 4, 15, 19]] == 200).all()
    assert padded.steps[1:] == ("scaled to 20×10", "filled up to 20×20 with its background")
    cut = prepare(path, (20, 20, 1), Preparation(edges="crop"))
    assert cut.steps[1:] == ("middle cut out and scaled to 20×20",)
    inverted = prepare(path, (20, 20, 1), Preparation(background="dark"))
    np.testing.assert_array_equal(inverted.pixels, 255 - padded.pixels)
    assert "inverted: it was on a light background" in inverted.steps
    sideways = prepare(path, (20, 30, 1), Preparation(transposed=True))
    straight = prepare(path, (30, 20, 1), Preparation())
    np.testing.assert_array_equal(sideways.pixels[:, :, 0], straight.pixels[:, :, 0].T)
    with pytest.raises(PictureError, match="shows nothing"):
        prepare(saved(tmp_path, np.full((40, 80), 200, np.uint8)), (20, 20, 1), Preparation())


def test_a_net_of_dark_digits_gets_dark_digits(digits: Any, tmp_path: Path) -> None:
    for page in (clean(digits[0]), 255 - clean(digits[0])):
        path = saved(tmp_path, page)
        light = prepare(path).pixels
        dark = prepare(path, (28, 28, 1), replace(MNIST, background="light")).pixels
        np.testing.assert_array_equal(dark, 255 - light)
    assert prepare(path, (28, 28, 3), MNIST).pixels.shape == (28, 28, 3)


@pytest.mark.parametrize(
    "wrong",
    [{"box": 0}, {"box": 1.1}, {"box": float("nan")}, {"box": "1"}, {"box": True}, {"centre": "x"},
     {"background": "red"}, {"background": 1}, {"edges": None}, {"transposed": 2}],
)  # fmt: skip
def test_a_preparation_is_checked(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        Preparation(**wrong)


def test_the_model_knows_its_preparation(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(images: Any) -> fastcnn.Sequential:
        model = fastcnn.Sequential([Flatten(), Dense(2)], seed=0)
        model.fit(images, np.arange(len(images)) % 2, verbose=0)
        return model

    model = trained(digits)
    assert model.preparation == MNIST
    other = trained(clothes(40))
    assert other.preparation == Preparation(background="dark")
    assert trained(digits / 255).preparation is None
    for one in (model, other):
        one.save(tmp_path / "model")
        one.save_checkpoint(tmp_path / "checkpoint")
        files = [fastcnn.load_model(tmp_path / name) for name in ("model", "checkpoint")]
        copies = [copy(one), deepcopy(one), pickle.loads(pickle.dumps(one)), *files]
        assert [again.preparation for again in copies] == [one.preparation] * 5
    other.preparation = Preparation(box=0.5)
    other.fit(digits, np.arange(len(digits)) % 2, verbose=0)
    other.save(tmp_path / "model")
    assert fastcnn.load_model(tmp_path / "model").preparation == Preparation(box=0.5)
    with pytest.raises(TypeError, match=r"preparation must be a fastcnn\.Preparation or None"):
        other.preparation = "mnist"  # type: ignore[assignment]
    again, whole = fastcnn.load_model(tmp_path / "model"), model_files.description(model)
    for wrong in ({"box": 2}, {"boxes": 1}, [], {"box": 0.5, "edges": []}):
        described = whole | {"preparation": wrong}
        monkeypatch.setattr(model_files, "description", lambda _: described)  # noqa: B023
        with pytest.raises(fastcnn.ModelFileError, match="its architecture: "):
            again.save(tmp_path / "model")  # what is written is read before it counts
