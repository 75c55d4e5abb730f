"""Pictures: a digit in any size and polarity comes out as MNIST has it; damaged files are named."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fastcnn
from fastcnn import pictures
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
        "empty.png": (b"", "is no PNG or JPEG file"),
        "text.txt": (b"hello", "is no PNG or JPEG file"),
        "gif.png": (b"GIF89a" + bytes(100), "is no PNG or JPEG file"),
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
    with pytest.raises(ImportError, match=r'pip install "fastcnn\[images\]"'):
        prepare(tmp_path / "no.png")


def test_drawing_has_a_row_for_two(digits: Any) -> None:
    rows = drawing(digits[0])
    assert len(rows) == 14
    assert {len(row) for row in rows} == {28}
    assert "█" in "".join(rows)
    assert drawing(np.zeros((3, 2), np.uint8)) == ["  ", "  "]
