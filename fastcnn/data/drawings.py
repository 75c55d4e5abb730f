"""Steps that find a drawing on its page: remove shadow, frame and specks, then crop, scale, place.

Photographs and scans of digits show more than a digit: a shadow over the page, the dark edge of the
scanner, a grain of dust. Each step takes brightness (H, W) in float64, 0 to 255. It adds a
description of its changes to ``steps``.

Source: N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979; J. Serra, "Image
Analysis and Mathematical Morphology", 1982 (a closing as the estimate of a background).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

Box: TypeAlias = tuple[float, float, float, float]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FLAT = 12.0
"""A picture with less contrast, in grey levels, shows nothing."""

_UNEVEN = 25.0  # paper with a larger difference of brightness, in grey levels, has a shadow
_PAPER_SIDE = 192  # the paper is estimated on a picture reduced to this side
_WINDOW = 0.45  # strokes are thinner than this share of the shorter side
_DARKEST_PAPER = 20.0  # grey levels; on darker paper no drawing can be recognised
_FRAME_SHARE = 8  # a frame has at most the width of the side over this
_FRAME_CONTRAST = 50.0
# A piece is dust if its mass is below a share of the largest piece's mass. The share is _FAR_DUST
# if the distance from the largest piece is above _FAR times its side, otherwise _DUST.
_DUST, _FAR_DUST, _FAR = 0.015, 0.03, 0.15
_LARGE_PIECE = 0.15  # a drawing has at least this share of the shorter side
_ROUND = 0.85  # a frame around the drawing has at least this share of both sides
_SECOND = 0.3  # a separate piece with this share of the largest mass is a second drawing
_MOST_RUNS = 60_000


def without_frame(grey: Floats, steps: list[str]) -> Floats:
    """The picture without lines of one colour along all four borders, if the inside differs.

    >>> page = np.full((40, 40), 250.0)
    >>> page[:2] = page[-2:] = page[:, :2] = page[:, -2:] = page[9:20, 15] = 0
    >>> without_frame(page, []).shape
    (36, 36)
    """
    cuts = []
    for lines in (grey, grey[::-1], grey.T, grey.T[::-1]):
        # Corners are left out, because they belong to the other two sides too.
        margin = lines.shape[1] // _FRAME_SHARE
        inner = lines[: len(lines) // _FRAME_SHARE, margin : lines.shape[1] - margin]
        if not inner.size:
            return grey
        page = float(np.median(lines[len(inner) : 2 * len(inner)]))  # lines inside a frame
        low, value, high = np.percentile(inner, (10, 50, 90), axis=1)
        framed = (np.abs(value - page) > _FRAME_CONTRAST) & (high - low < _FRAME_CONTRAST)
        width = len(framed) if framed.all() else int(np.argmin(framed))
        if width == 0 or width == len(framed):
            return grey  # there is no frame, or it has no inner end
        # The line between frame and page may be a mixture of both.
        cuts.append(width + int(abs(value[width] - page) > _FRAME_CONTRAST / 4))
    top, bottom, left, right = cuts
    inside = grey[top : len(grey) - bottom, left : grey.shape[1] - right]
    if np.ptp(inside) < FLAT:
        return grey
    steps.append("removed a frame along the border")
    return inside


def background(grey: Floats) -> float:
    """The brightness of the background.

    It is the median of the medians of the four borders and of the whole picture. The lines an
    eighth of the side farther in decide instead if all of them are light and the borders are dark,
    or the reverse, because then a frame runs along some borders.
    """
    rows, columns = (side // _FRAME_SHARE for side in grey.shape)
    borders = [grey[0], grey[-1], grey[:, 0], grey[:, -1], grey]
    inner = [grey[rows], grey[-1 - rows], grey[:, columns], grey[:, -1 - columns], grey]
    level = float(np.median([np.median(line) for line in borders]))
    levels = np.array([np.median(line) for line in inner])
    middle = (float(grey.min()) + float(grey.max())) / 2
    if ((levels > middle) != (level > middle)).all():
        return float(np.median(levels))
    return level


def surroundings(grey: Floats) -> float:
    """The brightness of corners and borders, for a picture that its subject may fill."""
    rows, columns = (max(1, side // 10) for side in grey.shape)
    corners = [
        grey[vertical, horizontal]
        for vertical in (slice(rows), slice(-rows, None))
        for horizontal in (slice(columns), slice(-columns, None))
    ]
    borders = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return float(np.median([np.median(part) for part in (*corners, borders)]))


def light_on_dark(grey: Floats, dark_on_light: bool, steps: list[str]) -> Floats:
    """The difference of each pixel from the paper, 0 to 255, for a drawing of this polarity.

    On even paper it is the difference from the background. Under a shadow it is the difference from
    the paper at the same position, relative to the paper's brightness.
    """
    paper = _paper(grey, dark_on_light)
    low, high = np.percentile(paper, (2, 98))
    if high - low <= _UNEVEN:
        level = background(grey)
        light = np.clip(level - grey if dark_on_light else grey - level, 0, None)
    else:
        steps.append("evened out a shadow or a gradient over the page")
        if dark_on_light:
            is_paper = paper > _DARKEST_PAPER
            light = np.where(is_paper, 1 - grey / np.where(is_paper, paper, 1), 0).clip(0)
        else:
            light = np.clip(grey - paper, 0, None)
        light -= float(np.median(light))  # the closing puts noise on one side of the paper
        light = light.clip(0)
    most = float(light.max())
    return np.asarray(light * (255 / most if most else 0), np.float64)


def _paper(grey: Floats, bright: bool) -> Floats:
    """The page without the drawing, by a closing (bright paper) or an opening (dark paper)."""
    from PIL import Image

    small = _reduced(grey, _PAPER_SIDE)
    signed = small if bright else -small
    window = max(3, round(_WINDOW * min(signed.shape)))
    closed = -_dilated(-_dilated(signed, window), window)
    height, width = grey.shape
    closing = Image.fromarray((closed if bright else -closed).astype(np.float32))
    return np.asarray(resized(closing, height, width, Image.Resampling.BILINEAR), np.float64)


def resized(
    image: Image, height: int, width: int, filter: Resampling, box: Box | None = None
) -> Image:
    """A picture, or the part ``box`` (left, top, right, bottom) of it, in another size.

    Rows are scaled before columns. Versions of Pillow choose different orders by themselves, and
    the order changes some numbers, because each pass rounds them.
    """
    left, top, right, bottom = (0, 0, *image.size) if box is None else box
    rows = image.resize((width, image.height), filter, (left, 0, right, image.height))
    return rows.resize((width, height), filter, (0, top, width, bottom))


def _reduced(grey: Floats, side: int) -> Floats:
    """The picture, reduced to ``side`` by means over boxes if it is larger."""
    from PIL import Image

    factor = -(-max(grey.shape) // side)
    if factor == 1:
        return grey
    return np.asarray(Image.fromarray(grey.astype(np.float32)).reduce(factor), np.float64)


def _dilated(values: Floats, window: int) -> Floats:
    """The maximum over a square window about each pixel; pixels beyond the border do not count."""
    for _ in range(2):
        before = window // 2
        padded = np.pad(values, ((before, window - 1 - before), (0, 0)), constant_values=-np.inf)
        views = np.lib.stride_tricks.sliding_window_view(padded, window, axis=0)
        values = views.max(axis=-1).T
    return values


def otsu(light: Floats) -> float:
    """The threshold with the greatest variance between the pixels below and above it."""
    counts, edges = np.histogram(light, bins=256, range=(0, 256))
    values = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = light.size - below
    sums = np.cumsum(counts * values)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def find_drawing(light: Floats, steps: list[str]) -> Floats:
    """The drawing, cropped to its pixels, without specks and without pieces at the border.

    Pixels above half of Otsu's threshold belong to the drawing, because lines fade out. If they
    connect the drawing with lines from border to border, only pixels above the threshold do. If
    there are two drawings, the doubt is among the steps.
    """
    threshold = otsu(light)
    mask = light > threshold / 2
    pieces, labels = _pieces(mask, light)
    if any(piece.crosses(light.shape) for piece in pieces) and not _inside(pieces, light.shape):
        darker = light > threshold
        darker_pieces, darker_labels = _pieces(darker, light)
        if _inside(darker_pieces, light.shape):
            steps.append("in doubt: removed fainter lines from border to border")
            mask, pieces, labels = darker, darker_pieces, darker_labels
            light = np.where(_dilated(darker.astype(np.float64), 3) > 0, light, 0)
    if len(pieces) > 1:
        keep = _pieces_of_drawing(pieces, light.shape, steps)
        mask = np.isin(labels, [piece.label for piece in keep])
        light = np.where(mask | (labels == 0), light, 0)
        _doubt(keep, light.shape, steps)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@dataclass(frozen=True)
class _Piece:
    """Connected pixels: the sum of their light, and their first and last rows and columns."""

    label: int
    mass: float
    top: int
    bottom: int
    left: int
    right: int

    @property
    def side(self) -> int:
        return max(self.bottom - self.top, self.right - self.left) + 1

    def gap(self, other: _Piece) -> int:
        """Pixels between the boxes of both pieces, along the axis with the larger gap."""
        rows = max(self.top, other.top) - min(self.bottom, other.bottom)
        columns = max(self.left, other.left) - min(self.right, other.right)
        return max(rows, columns, 0)

    def touches(self, shape: tuple[int, ...]) -> bool:
        """Whether the piece touches the border, or surrounds nearly all of the picture."""
        ends = self.bottom == shape[0] - 1 or self.right == shape[1] - 1
        height, width = self.bottom - self.top + 1, self.right - self.left + 1
        round_all = height > _ROUND * shape[0] and width > _ROUND * shape[1]
        return self.top == 0 or self.left == 0 or ends or round_all

    def crosses(self, shape: tuple[int, ...]) -> bool:
        """Whether the piece reaches from one border to the opposite one."""
        down = self.top == 0 and self.bottom == shape[0] - 1
        return down or (self.left == 0 and self.right == shape[1] - 1)


def _pieces_of_drawing(
    pieces: list[_Piece], shape: tuple[int, ...], steps: list[str]
) -> list[_Piece]:
    """The pieces that belong to the drawing."""
    if _inside(pieces, shape) and any(piece.touches(shape) for piece in pieces):
        steps.append("removed what lies along the border")
        pieces = [piece for piece in pieces if not piece.touches(shape)]
    largest = max(pieces, key=lambda piece: piece.mass)
    keep = [
        piece
        for piece in pieces
        if piece.mass >= _FAR_DUST * largest.mass
        or (piece.mass >= _DUST * largest.mass and piece.gap(largest) <= _FAR * largest.side)
    ]
    if specks := len(pieces) - len(keep):
        steps.append("removed a speck" if specks == 1 else f"removed {specks:,} specks")
    return keep


def _inside(pieces: list[_Piece], shape: tuple[int, ...]) -> bool:
    """Whether some piece is large enough for a drawing and touches no border."""
    smallest_piece = _LARGE_PIECE * min(shape)
    return any(piece.side >= smallest_piece and not piece.touches(shape) for piece in pieces)


def _doubt(pieces: list[_Piece], shape: tuple[int, ...], steps: list[str]) -> None:
    """Add a doubt to ``steps`` for several drawings side by side, or a line across the page."""
    largest = max(piece.mass for piece in pieces)
    main = sorted((p for p in pieces if p.mass >= _SECOND * largest), key=lambda p: p.left)
    end, apart = -inf, 0
    for piece in main:
        apart += int(piece.left > end)
        end = max(end, piece.right)
    if any(piece.crosses(shape) for piece in pieces):
        steps.append("in doubt: what is drawn reaches from border to border")
    if apart > 1:
        steps.append(f"in doubt: {apart} drawings stand side by side, and are taken as one")


def _pieces(mask: Mask, light: Floats) -> tuple[list[_Piece], NDArray[np.int64]]:
    """Pieces of pixels that touch, also at corners, and an array of their labels, from 1.

    Rows are cut into runs, and runs that touch in adjoining rows are joined (union-find). The list
    is empty if there are too many runs, as on noise.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    edges = np.diff(padded, axis=1)
    run_rows, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[1] - 1
    count = len(first)
    labels = np.zeros(mask.shape, np.int64)
    if count > _MOST_RUNS:
        return [], labels
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    starts = np.searchsorted(run_rows, np.arange(height + 1)).tolist()
    lefts, rights = first.tolist(), last.tolist()
    for row in range(1, height):
        above, above_end = starts[row - 1], starts[row]
        for i in range(starts[row], starts[row + 1]):
            while above < above_end and rights[above] < lefts[i] - 1:
                above += 1
            j = above
            while j < above_end and lefts[j] <= rights[i] + 1:
                parent[root(i)] = root(j)
                j += 1
    roots = np.array([root(i) for i in range(count)], np.int64)
    names, of_run = np.unique(roots, return_inverse=True)
    lengths = last - first + 1
    rows = np.repeat(run_rows, lengths)
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns = np.repeat(first, lengths) + offsets
    label = np.repeat(of_run.reshape(-1), lengths)
    labels[rows, columns] = label + 1
    mass = np.bincount(label, light[rows, columns], len(names))
    ends = [*_ends(label, rows, len(names)), *_ends(label, columns, len(names))]
    boxes = np.stack(ends, axis=1).tolist()
    pieces = [_Piece(i + 1, float(mass[i]), *box) for i, box in enumerate(boxes)]
    return pieces, labels


def _ends(
    label: NDArray[np.int64], places: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The smallest and the largest place of each label."""
    least, greatest = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(least, label, places)
    np.maximum.at(greatest, label, places)
    return least, greatest


def scale(light: Floats, box: int) -> Floats:
    """Scale the drawing so that its longer side is ``box``; the brightest pixel becomes 255."""
    from PIL import Image

    factor = box / max(light.shape)
    size = [max(1, round(side * factor)) for side in light.shape]
    if tuple(size) == light.shape:
        return light
    image = Image.fromarray(light.astype(np.float32))
    scaled = resized(image, size[0], size[1], Image.Resampling.BICUBIC)
    result = np.clip(np.asarray(scaled, np.float64), 0, 255)
    result *= 255 / max(float(result.max()), 1.0)
    return result


def place(drawing: Floats, height: int, width: int, by_mass: bool) -> NDArray[np.uint8]:
    """Put the drawing on black, with its centre of mass or of its box near the middle."""
    result = np.zeros((height, width), np.uint8)
    mass = drawing.sum()
    places = []
    for axis, side in ((0, height), (1, width)):
        centre = (drawing.shape[axis]) / 2
        if by_mass:
            centre = float(drawing.sum(axis=1 - axis) @ np.arange(drawing.shape[axis]) / mass)
        # Not the order in which the mass is added decides where the middle lies between pixels.
        first = round(round(side / 2 - centre, 9))
        places.append(min(max(first, 0), side - drawing.shape[axis]))
    top, left = places
    result[top : top + drawing.shape[0], left : left + drawing.shape[1]] = np.rint(drawing)
    return result
