"""The page's JavaScript prepares a picture as Python does: the same bytes, the same steps."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from javascript import run
from numpy.typing import NDArray

from fastcnn.data.preparation import MNIST, Preparation

Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
Draw = pytest.importorskip("PIL.ImageDraw", reason="pictures need Pillow")

from fastcnn.data.pictures import PictureError, prepare  # noqa: E402

GREY = "colours taken as grey"
"""A step that Python also tells of files in colours that are all grey."""


class Case(NamedTuple):
    """A picture, and the net for which it is prepared."""

    picture: Any
    shape: tuple[int, int, int]
    preparation: Preparation | None


def cases(seed: int, count: int) -> Iterator[Case]:
    """Random drawings on pages of all kinds: uneven, framed, with specks, noisy, transparent."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        height, width = (int(side) for side in rng.integers(20, 300, 2))
        if i == 0:
            height = 1100  # reduced before all else
        paper = int(rng.choice([0, 40, 210, 255]))
        ink = 0 if paper > 127 else 255
        picture = drawn(rng, height, width, paper, ink)
        grey = changed(rng, np.asarray(picture, np.float64), paper, ink, i % 6)
        channels = int(rng.choice([1, 1, 1, 3]))
        sides = rng.integers(9, 40, 2) if i % 3 else (28, 28)
        shape = int(sides[0]), int(sides[1]), channels
        if i % 4 == 0:
            preparation = MNIST if i % 8 else None
        else:
            preparation = Preparation(
                box=[None, 0.5, 20 / 28, 1.0][rng.integers(4)],
                centre="mass" if rng.random() < 0.5 else "middle",
                background=[None, "dark", "light"][rng.integers(3)],  # type: ignore[arg-type]
                edges="pad" if rng.random() < 0.5 else "crop",
                transposed=bool(rng.integers(2)),
            )
        yield Case(coloured(rng, grey, paper, i % 5), shape, preparation)


def drawn(rng: np.random.Generator, height: int, width: int, paper: int, ink: int) -> Any:
    """A picture with some strokes."""
    picture = Image.new("L", (width, height), paper)
    pen = Draw.Draw(picture)
    for _ in range(rng.integers(1, 4)):
        points = rng.uniform(0.15, 0.85, (rng.integers(2, 6), 2)) * (width, height)
        thickness = int(rng.integers(1, max(2, min(height, width) // 8)))
        pen.line([tuple(point) for point in points], ink, thickness)
    return picture


def changed(
    rng: np.random.Generator, grey: NDArray[np.float64], paper: int, ink: int, kind: int
) -> NDArray[np.uint8]:
    """The picture with a shadow, a frame, specks, a line or noise."""
    result, (height, width) = grey.copy(), grey.shape
    if kind == 1:
        result *= np.linspace(1, 0.5, width) * np.linspace(1, 0.7, height)[:, None]
    elif kind == 2:
        side = int(rng.integers(1, 6))
        result[:side] = result[-side:] = result[:, :side] = result[:, -side:] = 255 - paper
    elif kind == 3:
        for y, x in rng.integers(0, (height, width), (20, 2)):
            result[y : y + 2, x : x + 2] = ink
    elif kind == 4:
        result[height // 3] = ink
    elif kind == 5:
        result += rng.normal(0, 8, result.shape)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def coloured(rng: np.random.Generator, grey: NDArray[np.uint8], paper: int, kind: int) -> Any:
    """The picture in grey, in a colour, or transparent where there is paper."""
    if kind < 2:
        return Image.fromarray(grey)
    colours = (grey[..., None] * rng.uniform(0.6, 1, 3)).astype(np.uint8)
    if kind == 2:
        return Image.fromarray(colours)
    is_ink = np.abs(grey.astype(int) - paper) > 40
    opacity = np.where(is_ink, 255, 0) if kind == 3 else rng.integers(0, 256, grey.shape)
    return Image.fromarray(np.dstack([colours, opacity.astype(np.uint8)]))


def in_javascript(some: list[Case]) -> Any:
    """Bytes and steps of each case, or the error."""
    argument = [
        {
            "width": picture.width,
            "height": picture.height,
            "data": b64encode(picture.convert("RGBA").tobytes()).decode("ascii"),
            "shape": shape,
            "preparation": None if preparation is None else preparation.as_dict(),
        }
        for picture, shape, preparation in some
    ]
    return run(
        """
        return argument.map((one) => {
          const data = Uint8Array.from(atob(one.data), (character) => character.charCodeAt(0));
          const image = { width: one.width, height: one.height, data };
          try {
            const { pixels, steps } = prepare(image, one.shape, one.preparation);
            return { pixels: Array.from(pixels), steps };
          } catch (error) {
            return { error: error.message };
          }
        });
        """,
        argument,
    )


def agree(some: list[Case], folder: Path) -> int:
    """Hold JavaScript against Python; the number of pictures that both refuse."""
    refused = 0
    for i, (case, result) in enumerate(zip(some, in_javascript(some), strict=True)):
        path = folder / "picture.png"
        case.picture.save(path)
        try:
            prepared = prepare(path, case.shape, case.preparation)
        except PictureError:
            assert "shows nothing" in result["error"], (i, case, result)
            refused += 1
            continue
        assert "error" not in result, (i, case, result)
        steps = [
            [step for step in one[1:] if step != GREY] for one in (prepared.steps, result["steps"])
        ]
        assert steps[0] == steps[1], (i, case)
        assert result["pixels"] == prepared.pixels.ravel().tolist(), (i, case)
    return refused


def test_the_same_bytes_and_steps(tmp_path: Path) -> None:
    some = [*cases(0, 90)]
    assert agree(some, tmp_path) < 5


def test_pictures_of_the_nets_size_and_of_one_colour(tmp_path: Path) -> None:
    digit = np.zeros((28, 28), np.uint8)
    digit[5:20, 12:16] = 200
    pictures = [digit, 255 - digit, np.full((30, 50), 77, np.uint8), digit[:, :-3]]
    ways = [MNIST, Preparation(), Preparation(box=0.7, background="light"), None]
    some = [
        Case(Image.fromarray(np.ascontiguousarray(one)), (28, 28, 1), how)
        for one in pictures
        for how in ways
    ]
    assert agree(some, tmp_path) == len(ways)


def test_clothes_that_fill_the_picture_are_taken_whole(tmp_path: Path) -> None:
    clothes = np.zeros((56, 56), np.uint8)
    clothes[1:55, 14:42] = np.arange(70, 98)
    (case,) = some = [Case(Image.fromarray(clothes), (28, 28, 1), None)]
    agree(some, tmp_path)
    assert "taken whole" in in_javascript([case])[0]["steps"][1]
