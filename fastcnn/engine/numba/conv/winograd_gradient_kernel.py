"""The kernel of the gradient of the filters by Winograd's minimal filtering.

Shapes of scratch, all flat, with n² points e:

    v[block][e][square][pitch]      transformed squares of x
    z[block][e][square][pitch]      transformed squares of dy
    d[piece][e][row][width]         sums over squares of a piece: input channels × columns
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.conv.winograd_kernel import FILTERS, OUTPUTS, square_transform
from fastcnn.engine.numba.conv.winograd_partition import GradientPartition
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import copy_run, zero_run
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_load, tile_store
from fastcnn.engine.numba.tiles.products import rank1
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.winograd import store_transform, tile_transform


class GradientLaunch(NamedTuple):
    """Which stages a launch does.

    Attributes:
        transforms_squares: whether it transforms squares of x and dy.
        multiplies: whether it multiplies them. With both stages an item is a slab of squares, with
            all pieces. Otherwise it is a block of squares, or a piece.
        own_sums: whether each piece has its own place in D. Otherwise a share has one place, which
            its pieces use one after the other.
    """

    transforms_squares: bool
    multiplies: bool
    own_sums: bool


class Range(NamedTuple):
    """Squares ``first`` to ``last`` of a launch, in a stretch from ``begin`` to ``end``."""

    first: int
    last: int
    begin: int
    end: int


@kernel_factory
def _winograd_gradient(m: int, r: int, rows: int, vectors: int, lanes: int) -> Kernel:
    """The kernel for squares of m × m numbers of dy and filters of r × r taps."""
    n = m + r - 1
    points, taps = n * n, r * r
    half = rows // 2 + 1
    width = vectors * lanes
    transform_x = square_transform(m, r, lanes)

    @device
    def transform_dy(
        first: int, last: int, dy: Array, z: Array, z_start: int, border: Array, border_start: int,
        c: GradientPartition,
    ) -> None:  # fmt: skip
        """Transform squares ``first`` to ``last`` of dy (N, OH, OW, OC), flat, into a block of z.

        A square that reaches beyond dy is copied between zeros to ``border`` first.
        """
        oh, ow, oc, squares = c.images.oh, c.images.ow, c.images.oc, c.squares
        point = c.dy.squares * c.dy.pitch
        for square in range(first, last):
            image = square // squares.columns // squares.rows
            row = square // squares.columns % squares.rows * m
            column = square % squares.columns * m
            at = ((image * oh + row) * ow + column) * oc
            source, row_step = dy, ow * oc
            if row + m > oh or column + m > ow:
                for a in range(m):
                    for b in range(m):
                        target = border_start + (a * m + b) * oc
                        if row + a < oh and column + b < ow:
                            copy_run(border, target, dy, at + (a * ow + b) * oc, oc)
                        else:
                            zero_run(border, target, oc)
                source, at, row_step = border, border_start, m * oc
            start = z_start + (square - first) * c.dy.pitch
            for k in range(0, oc, lanes):
                store_transform(
                    FILTERS, r, m, lanes, source, at + k, row_step, oc, min(lanes, oc - k),
                    z, start + k, point,
                )  # fmt: skip

    def add_of(height: int) -> DeviceFunction:
        @device
        def add_squares(
            squares: int, v: Array, at_v: int, z: Array, at_z: int, d: Array, at: int,
            resumed: bool, c: GradientPartition,
        ) -> None:  # fmt: skip
            """One register tile: ``height`` input channels × width columns, over some squares.

            With ``resumed`` the sums go on from those in ``d``, else they begin.
            """
            target = rows_line(height, at, width)
            if resumed:
                tile = tile_load(height, vectors, lanes, d, target, 0)
            else:
                tile = tile_from_row(height, vectors, lanes, z, at_z, 0)
            channels = rows_line(height, at_v, 1)
            block, pitch, z_pitch = c.blocks.squares, c.blocks.pitch, c.dy.pitch
            for first in range(0, squares, block):
                i = first // block * c.blocks.length
                j = at_z + first // block * c.dy.length
                for _ in range(min(block, squares - first)):
                    tile = rank1(tile, v, channels, i, z, j)
                    i += pitch
                    j += z_pitch
            tile_store(tile, d, target, 0, width)

        return add_squares

    add_to_rows, add_to_half = add_of(rows), add_of(half)

    @device
    def add_to_piece(
        piece: int, squares: int, v: Array, v_start: int, z: Array, z_start: int, d: Array,
        d_start: int, resumed: bool, c: GradientPartition,
    ) -> None:  # fmt: skip
        """Add some squares to all points of a piece of d."""
        first = piece % c.sums.row_blocks * c.sums.rows
        last = min(c.images.ic, first + c.sums.rows)
        for e in range(points):
            i = v_start + e * c.blocks.squares * c.blocks.pitch + first
            j = z_start + e * c.dy.squares * c.dy.pitch + piece // c.sums.row_blocks * width
            k = d_start + e * c.sums.point
            squares_left = last - first
            while squares_left > 0:
                if squares_left <= half or rows < squares_left <= 2 * half:
                    height = half
                    add_to_half(squares, v, i, z, j, d, k, resumed, c)
                else:
                    height = rows
                    add_to_rows(squares, v, i, z, j, d, k, resumed, c)
                squares_left -= height
                i += height
                k += height * width

    @device
    def transform_back(
        piece: int, d: Array, d_start: int, dw: Array, dw_start: int, c: GradientPartition
    ) -> None:
        """Write the taps of a piece to dw (KH, KW, IC, OC), flat."""
        ic, oc, point = c.images.ic, c.images.oc, c.sums.point
        first, column = piece % c.sums.row_blocks * c.sums.rows, piece // c.sums.row_blocks * width
        target = rows_line(taps, dw_start, ic * oc)
        for row in range(first, min(ic, first + c.sums.rows)):
            for j in range(0, min(width, oc - column), lanes):
                at = d_start + (row - first) * width + j
                tile = tile_transform(OUTPUTS, r, m, lanes, d, at, n * point, point)
                columns = min(lanes, oc - column - j)
                tile_store(tile, dw, target, row * oc + column + j, columns)

    # More than ten parameters, because Numba receives each array of scratch as one of its own.
    @kernel
    def winograd_gradient(
        start: int, stop: int, x: Array, dy: Array, v: Array, z: Array, d: Array, dw: Array,
        border: Array, items: int, shares: int, squares: Array, partition: Array, flags: Array,
    ) -> None:  # fmt: skip
        """The stages of a :class:`GradientLaunch`.

        The ``items`` are divided among ``shares``. A share is what one thread does: consecutive
        items, with a part of scratch of its own. The kernel runs shares ``start`` to ``stop``.
        ``squares`` is the record of a :class:`Range`. The kernel reads x (N, H, W, IC) and dy (N,
        OH, OW, OC). It writes dw (KH, KW, IC, OC), or one dw for each slab. All arrays are flat.
        """
        c, stages, limits = partition[0], flags[0], squares[0]
        slabs = stages.transforms_squares and stages.multiplies
        for share in range(start, stop):
            border_start = share * c.border
            for item in range(items * share // shares, items * (share + 1) // shares):
                # A slab, some blocks at a time; a block to transform; or a piece of D.
                first, last, v_block = limits.first, limits.last, 0
                piece_from, piece_to, d_first, dw_start = 0, c.sums.pieces, 0, 0
                if slabs:
                    first, last = c.total * item // items, c.total * (item + 1) // items
                    v_block, d_first = share, share * c.sums.pieces * c.sums.numbers
                    dw_start = item * taps * c.images.ic * c.images.oc
                elif stages.transforms_squares:
                    first, v_block = limits.first + item * c.blocks.squares, item
                    last = min(limits.last, first + c.blocks.squares)
                else:
                    piece_from, piece_to = item, item + 1
                begin, end = (first, last) if slabs else (limits.begin, limits.end)
                step = c.blocks.squares if stages.transforms_squares else last - first
                v_start, z_start = v_block * c.blocks.length, v_block * c.dy.length
                for square in range(first, last, step):
                    stop_square = min(last, square + step)
                    if stages.transforms_squares:
                        transform_x(square, stop_square, x, v, v_start, border, border_start, c)
                        transform_dy(square, stop_square, dy, z, z_start, border, border_start, c)
                    if not stages.multiplies:
                        continue
                    count, more = stop_square - square, square > begin
                    for piece in range(piece_from, piece_to):
                        d_start = d_first + (piece if stages.own_sums else share) * c.sums.numbers
                        add_to_piece(piece, count, v, v_start, z, z_start, d, d_start, more, c)
                        if stop_square == end:
                            transform_back(piece, d, d_start, dw, dw_start, c)

    return winograd_gradient
