"""How Winograd's filtering cuts a layer: records of sizes and of places in its scratch.

Kernels receive a :class:`Partition` or a :class:`GradientPartition` as an array of one record, in
which each field below is a record of its own (``partition[0].blocks.pitch``). No field is called
``size``, because without the compiler that is an attribute of NumPy's records.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.engine.numba.runtime.instruction_sets import registers
from fastcnn.engine.policy import Squares


class Images(NamedTuple):
    """Sizes of x (N, H, W, IC) and of y (N, OH, OW, OC), and the padding before the image.

    Neighbouring pixels of y lie ``pitch`` numbers apart.

    Output (oh, ow) reads the inputs from (oh − top, ow − left) on. Pixels outside count as 0.
    """

    h: int
    w: int
    ic: int
    oh: int
    ow: int
    oc: int
    top: int
    left: int
    pitch: int


class Blocks(NamedTuple):
    """Blocks of transformed squares, V, in scratch.

    Attributes:
        squares: squares of a block.
        pitch: numbers from one square to the next.
        length: numbers of a block.
    """

    squares: int
    pitch: int
    length: int


class ColumnBlocks(NamedTuple):
    """Blocks of output channels, each as wide as a register tile, with their filters and products.

    Attributes:
        blocks: how many there are.
        chunk: input channels whose filters are transformed at once.
        point: numbers of U from one point to the next.
        products: numbers of M for a block of squares and a block of output channels.
    """

    blocks: int
    chunk: int
    point: int
    products: int


class Filters(NamedTuple):
    """Where filters lie in their array, in numbers.

    Attributes:
        start: the first tap.
        block, tap_row, tap, row: steps from one block of output channels, row of taps, tap and
            input channel to the next.
        columns: output channels, with those that fill the last block where it is whole.
    """

    start: int
    block: int
    tap_row: int
    tap: int
    row: int
    columns: int


class SquareEpilogue(NamedTuple):
    """What is done to a square of outputs, after the bias is added and before it is stored.

    Attributes:
        relu: whether ReLU follows.
        pooled: whether the largest of each 2×2 outputs is stored in place of them.
        indices: whether their argmax indices are stored too.
        affine, residual, capped: as in the
            :class:`~fastcnn.engine.numba.contraction.epilogue.Epilogue`; with ``affine`` or
            ``capped``, the bias's array holds what is said there. A pooled layer has no residual.
    """

    relu: bool = False
    pooled: bool = False
    indices: bool = False
    affine: bool = False
    residual: bool = False
    capped: bool = False


class Partition(NamedTuple):
    """How a layer is cut; ``border`` counts the numbers of a share's copy of a border square."""

    images: Images
    squares: Squares
    blocks: Blocks
    columns: ColumnBlocks
    filters: Filters
    epilogue: SquareEpilogue
    border: int


class Sums(NamedTuple):
    """The sums over squares, D, in scratch: pieces of some input channels × a block of columns.

    Attributes:
        rows: input channels of a piece.
        row_blocks: pieces along the input channels.
        pieces: pieces in all.
        point: numbers from one point to the next.
        numbers: numbers of a piece.
    """

    rows: int
    row_blocks: int
    pieces: int
    point: int
    numbers: int


class GradientPartition(NamedTuple):
    """How the gradient of the filters is cut.

    Attributes:
        images, squares, blocks, border: as of :class:`Partition`.
        dy: blocks of transformed squares of dy, Z.
        sums: the sums over squares, D.
        total: squares of the whole batch.
    """

    images: Images
    squares: Squares
    blocks: Blocks
    dy: Blocks
    sums: Sums
    border: int
    total: int


class Launch(NamedTuple):
    """Which part of the work a launch does; other launches do the rest.

    Attributes:
        by_columns: an item is a block of output channels with all squares, not a block of squares
            with all output channels.
        transforms_squares: whether it transforms the item's squares.
        transforms_filters: whether it transforms the item's filters.
        multiplies: whether it multiplies, and transforms back.
        first, last: the squares, of all images.
        item_squares: squares of an item, in a launch that only transforms squares.
        items: how many items there are.
        shares: how many shares there are. A share is the part of one thread: consecutive items,
            with scratch of its own.
        products_at, border_at: where in scratch the products and the squares on the border begin;
            the transformed squares begin at 0.
    """

    by_columns: bool
    transforms_squares: bool
    transforms_filters: bool
    multiplies: bool
    first: int = 0
    last: int = 0
    item_squares: int = 0
    items: int = 0
    shares: int = 1
    products_at: int = 0
    border_at: int = 0


class Results(NamedTuple):
    """Arrays of the epilogue: bias, outputs, ``extra``, and the images in doubt.

    ``extra`` gets the argmax indices, or holds the residual.
    """

    b: Array
    y: Array
    extra: Array
    suspects: Array


def images_of(g: ConvGeometry, pitch: int = 0) -> Images:
    """The sizes of a geometry; ``pitch`` is 0 where the pixels of y follow on each other."""
    return Images(g.h, g.w, g.ic, g.oh, g.ow, g.oc, g.pad_top, g.pad_left, pitch or g.oc)


def blocks_of(channels: int, points: int, squares: int, lanes: int) -> Blocks:
    """Blocks of so many squares.

    The pitch is an odd number of vectors. A power of two would put all squares into a few sets of
    the cache.
    """
    pitch = (-(-channels // lanes) | 1) * lanes
    return Blocks(squares, pitch, points * squares * pitch)


def block_squares(total: int) -> int:
    """Squares of a block: whole tiles, and fewer of them where there would be too few blocks."""
    rows = registers().tile_rows
    sizes = (2 * rows, rows, rows // 2 + 1)
    return next((size for size in sizes if total >= 8 * size), sizes[-1])


def vectors_of(columns: int, itemsize: int) -> int:
    """Vectors of a register tile: those of the processor, or one where it holds all columns."""
    host = registers()
    return 1 if columns * itemsize <= host.vector_bytes else host.tile_vectors
