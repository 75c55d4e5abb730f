"""The gradient of the filters by Winograd's minimal filtering.

It is a filter too, with the gradient of the output in the part of the filter: for a square of m × m
numbers of dy and the (m + r − 1)² inputs that they meet, F(r, m) gives what they add to the r × r
taps. Squares of dy and x are transformed, and each of the n² numbers of a transformed square is a
product of its own, summed over all squares of all images:

    D[e][ic, oc] = Σ_square V[e][square, ic] · Z[e][square, oc]

Only then is D transformed back, once for each filter. F(3×3, 4×4) takes 36 products for a square
instead of 144. V is what the forward pass makes of x.

There are two ways to sum, as for the forward pass, by the size of D:

- *in slabs*, where D fits into the second-level cache: an item is a slab of squares, which are
  transformed some at a time and multiplied while V and Z are in the cache. Each slab has a D of
  its own, and gives a gradient; these are added up in order. No slab has more squares than a
  stretch of a long sum has terms (:mod:`fastcnn.core.long_sums`).
- *in passes*, where D is larger: V and Z of many squares fill a bounded workspace; then an item is
  a block of input channels by a block of output channels, and sums over these squares. D waits
  between the passes of a stretch; each stretch gives a gradient, which is added to totals.

What an item is and in which order it sums follows from the problem alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.core.long_sums import STRETCH
from fastcnn.core.settings import get_num_threads
from fastcnn.engine import policy
from fastcnn.engine.numba.contraction.column_sums import add_to_totals, column_sums, round_totals
from fastcnn.engine.numba.contraction.contraction import CACHE_BYTES
from fastcnn.engine.numba.conv import direct, winograd
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.finite import all_finite
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import copy_run, zero_run
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_from_rows, tile_store
from fastcnn.engine.numba.tiles.products import rank1
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.winograd import store_transform, tile_transform

_FILTERS, _OUTPUTS = 1, 2  # the matrices of a Filtering

# Bytes of V and Z in a pass, or of one block if that is more: what the third-level cache holds
# beside other things, and more where D is larger, since each pass reads and writes D once.
LEAST, MOST = 4 * 1024 * 1024, 32 * 1024 * 1024
# Slabs at most, unless sums are long, and at least, and the squares of each that are worth
# transforming its D back.
SLABS, FEWEST, SQUARES = 8, 4, 128


class Sums(NamedTuple):
    """Extents of a layer's gradient, and how it is cut up.

    Z takes ``z_block`` numbers of a block of squares. A piece of D has ``rows`` input channels,
    ``d_step`` numbers from one point to the next and ``d_piece`` in all.
    """

    oh: int
    ow: int
    oc: int
    squares_h: int
    squares_w: int
    squares: int
    slabs: int  # 0: in passes
    z_pitch: int
    z_block: int
    rows: int
    row_blocks: int
    pieces: int
    d_step: int
    d_piece: int
    scratch: int
    first: int = 0  # squares of a stretch, where they are summed in passes
    last: int = 0


class Stage(NamedTuple):
    """What a launch does: transform squares, multiply, or both slab by slab.

    With ``own_d`` each piece of D has its place, else each part one for all its pieces.
    """

    squares: bool
    products: bool
    own_d: bool


_SLABS, _SQUARES = Stage(True, True, True), Stage(True, False, False)


@kernel_factory
def _gradient(m: int, r: int, rows: int, vectors: int, lanes: int) -> Any:
    n = m + r - 1
    points, taps = n * n, r * r
    half = rows // 2 + 1
    width = vectors * lanes
    transform_x = winograd.square_transform(m, r, lanes)

    @device
    def transform_dy(
        first: int, last: int, dy: Any, z: Any, z_start: int, scratch: Any, s_start: int, step: int,
        c: Any,
    ) -> None:  # fmt: skip
        oh, ow, oc, squares_h, squares_w = c.oh, c.ow, c.oc, c.squares_h, c.squares_w
        for square in range(first, last):
            row, column = square // squares_w % squares_h * m, square % squares_w * m
            at = ((square // squares_w // squares_h * oh + row) * ow + column) * oc
            source, row_step = dy, ow * oc
            if row + m > oh or column + m > ow:
                for a in range(m):
                    for b in range(m):
                        place = s_start + (a * m + b) * oc
                        if row + a < oh and column + b < ow:
                            copy_run(scratch, place, dy, at + (a * ow + b) * oc, oc)
                        else:
                            zero_run(scratch, place, oc)
                source, at, row_step = scratch, s_start, m * oc
            to = z_start + (square - first) * c.z_pitch
            for k in range(0, oc, lanes):
                store_transform(
                    _FILTERS, r, m, lanes, source, at + k, row_step, oc, min(lanes, oc - k),
                    z, to + k, step,
                )  # fmt: skip

    def of_height(height: int) -> Any:
        @device
        def add_squares(
            squares: int, v: Any, i: int, z: Any, j: int, d: Any, k: int, more: bool, layer: Any,
            c: Any,
        ) -> None:  # fmt: skip
            to = rows_line(height, k, width)
            if more:
                tile = tile_from_rows(height, vectors, lanes, d, to, 0)
            else:
                tile = tile_from_row(height, vectors, lanes, z, j, 0)
            channels = rows_line(height, i, 1)
            block, pitch, z_pitch = layer.block, layer.pitch, c.z_pitch
            for first in range(0, squares, block):
                at_v, at_z = i + first // block * layer.v_block, j + first // block * c.z_block
                for _ in range(min(block, squares - first)):
                    tile = rank1(tile, v, channels, at_v - i, z, at_z)
                    at_v += pitch
                    at_z += z_pitch
            tile_store(tile, d, to, 0, width)

        return add_squares

    add_to_rows, add_to_half = of_height(rows), of_height(half)

    @device
    def multiply(
        piece: int, squares: int, v: Any, v_start: int, z: Any, z_start: int, d: Any, d_start: int,
        more: bool, layer: Any, c: Any,
    ) -> None:  # fmt: skip
        first = piece % c.row_blocks * c.rows
        last = min(layer.ic, first + c.rows)
        for e in range(points):
            i, k = v_start + e * layer.block * layer.pitch + first, d_start + e * c.d_step
            j = z_start + e * layer.block * c.z_pitch + piece // c.row_blocks * width
            for row in range(first, last, rows):
                if last - row > half:
                    add_to_rows(squares, v, i, z, j, d, k, more, layer, c)
                else:
                    add_to_half(squares, v, i, z, j, d, k, more, layer, c)
                i += rows
                k += rows * width

    @device
    def transform_back(
        piece: int, d: Any, d_start: int, dw: Any, dw_start: int, ic: int, c: Any
    ) -> None:
        oc, d_step, first = c.oc, c.d_step, piece % c.row_blocks * c.rows
        column = piece // c.row_blocks * width
        to = rows_line(taps, dw_start, ic * oc)
        for row in range(first, min(ic, first + c.rows)):
            for j in range(0, min(width, oc - column), lanes):
                at = d_start + (row - first) * width + j
                tile = tile_transform(_OUTPUTS, r, m, lanes, d, at, n * d_step, d_step)
                columns = min(lanes, oc - column - j)
                tile_store(tile, dw, to, row * oc + column + j, columns)

    @kernel
    def gradient(
        start: int, stop: int, x: Any, dy: Any, v: Any, z: Any, d: Any, dw: Any, scratch: Any,
        first: int, last: int, items: int, parts: int, of_v: Any, numbers: Any, flags: Any,
    ) -> None:  # fmt: skip
        """Squares ``first`` to ``last``; each part has a place of its own in the workspace."""
        layer, c, stage = of_v[0], numbers[0], flags[0]
        slabs = stage.squares and stage.products
        for part in range(start, stop):
            s_start = part * c.scratch
            for item in range(items * part // parts, items * (part + 1) // parts):
                # A slab, some blocks at a time; a block to transform; or a piece of D.
                begin, end, v_block = first, last, 0
                piece_from, piece_to, d_first, dw_start = 0, c.pieces, 0, 0
                if slabs:
                    begin, end = c.squares * item // items, c.squares * (item + 1) // items
                    v_block, d_first = part, part * c.pieces * c.d_piece
                    dw_start = item * taps * layer.ic * c.oc
                elif stage.squares:
                    begin, v_block = first + item * layer.block, item
                    end = min(last, begin + layer.block)
                else:
                    piece_from, piece_to = item, item + 1
                step = layer.block if stage.squares else last - first
                for square in range(begin, end, step):
                    squares = min(end, square + step) - square
                    v_start, z_start = v_block * layer.v_block, v_block * c.z_block
                    if stage.squares:
                        transform_x(
                            square, square + squares, x, v, v_start, scratch, s_start, layer
                        )
                        transform_dy(
                            square, square + squares, dy, z, z_start, scratch, s_start,
                            layer.block * c.z_pitch, c,
                        )  # fmt: skip
                    if not stage.products:
                        continue
                    more = square > (begin if slabs else c.first)
                    done = square + squares == (end if slabs else c.last)
                    for piece in range(piece_from, piece_to):
                        d_start = d_first + (piece if stage.own_d else part) * c.d_piece
                        multiply(piece, squares, v, v_start, z, z_start, d, d_start, more, layer, c)
                        if done:
                            transform_back(piece, d, d_start, dw, dw_start, layer.ic, c)

    return gradient


def conv2d_filter_gradient(dy: Array, x: Array, g: ConvGeometry) -> Array:
    """``dw``, for filters of 3×3 or 5×5 with stride 1, dense, in one group."""
    dw = empty_like_type(dy, *g.filter_shape)
    if g.n == 0:
        dw[...] = 0
        return dw
    plan = _plan(g, dy.itemsize)
    layer, c, threads = plan.layer, plan.sums, get_num_threads()
    in_passes = plan.at_once < c.squares
    blocks = min(threads, c.slabs) if c.slabs else -(-plan.at_once // layer.block)
    pieces = min(threads, c.pieces)
    if c.slabs:
        pieces = min(threads, c.slabs) * c.pieces
    elif in_passes:
        pieces = c.pieces
    # The last tile of input channels reads on beyond them.
    v = empty_like_type(x, blocks * layer.v_block + registers().tile_rows)
    z = empty_like_type(x, blocks * c.z_block)
    d = empty_like_type(x, pieces * c.d_piece)
    out = empty_like_type(x, c.slabs, dw.size) if c.slabs else dw
    scratch = empty_like_type(x, threads * c.scratch)
    flat = readable(x).reshape(-1), readable(dy).reshape(-1)
    operands = *flat, v, z, d, out.reshape(-1), scratch

    def launch(stage: Stage, c: Sums, first: int, last: int, items: int, work: int) -> None:
        parts = min(threads, items)
        numbers = first, last, items, parts, plan.numbers, record(c), record(stage)
        parallel_for(plan.function, parts, (last - first) * work, *operands, *numbers)

    if c.slabs:
        launch(_SLABS, c, 0, c.squares, c.slabs, plan.square_work + plan.product_work)
        column_sums(out, dw.reshape(-1))
    else:
        stretch = plan.at_once * max(1, STRETCH // plan.at_once)
        totals = arrays.allocate((dw.size if stretch < c.squares else 0,), np.float64)
        for begin in range(0, c.squares, stretch):
            c = c._replace(first=begin, last=min(c.squares, begin + stretch))
            for first in range(c.first, c.last, plan.at_once):
                last = min(c.last, first + plan.at_once)
                blocks = -(-(last - first) // layer.block)
                launch(_SQUARES, c, first, last, blocks, plan.square_work)
                launch(Stage(False, True, in_passes), c, first, last, c.pieces, plan.product_work)
            if totals.size:
                parallel_for(add_to_totals, dw.size, dw.size, dw.reshape(-1), totals, begin > 0)
        if totals.size:
            parallel_for(round_totals, dw.size, dw.size, totals.reshape(1, -1), dw.reshape(-1))
    # What is not finite spoils all taps: a direct sum says where it belongs.
    if not all_finite(dw.reshape(-1)):
        return direct.conv2d_filter_gradient(dy, x, g)
    return dw


class Plan(NamedTuple):
    """A gradient made ready: how V is made, as in the forward pass, and ``at_once`` squares a pass.

    ``numbers`` is the layer's record; works are numbers of operations for a square.
    """

    function: Any
    layer: winograd.Layer
    numbers: Array
    sums: Sums
    at_once: int
    square_work: int
    product_work: int


@cached_choice
def _plan(g: ConvGeometry, itemsize: int) -> Plan:
    forward, host = winograd.forward(g, itemsize), registers()
    layer, points, width = forward.layer, forward.points, forward.width
    lanes = host.vector_bytes // itemsize
    column_blocks = -(-g.oc // width)
    z_pitch = (column_blocks * host.tile_vectors | 1) * lanes
    rows = 2 * host.tile_rows
    row_blocks = -(-g.ic // rows)
    side = policy.squares(g).side
    d_step = rows * width + lanes
    of_sums = points * g.ic * g.oc * itemsize
    slabs = min(SLABS, forward.squares // SQUARES)
    if of_sums > CACHE_BYTES or slabs < FEWEST:
        slabs = 0
    else:
        slabs = max(slabs, -(-forward.squares // STRETCH))
    numbers = forward.numbers
    if slabs:  # blocks of equal size: each reads and writes all of D
        slab = -(-forward.squares // slabs)
        block = -(-slab // max(1, round(slab / layer.block)))
        layer = layer._replace(block=block, v_block=points * block * layer.pitch)
        numbers = record(layer)
    z_block = points * layer.block * z_pitch
    sums = Sums(
        g.oh,
        g.ow,
        g.oc,
        layer.squares_h,
        layer.squares_w,
        squares=forward.squares,
        slabs=slabs,
        z_pitch=z_pitch,
        z_block=z_block,
        rows=rows,
        row_blocks=row_blocks,
        pieces=row_blocks * column_blocks,
        d_step=d_step,
        d_piece=points * d_step,
        scratch=max(side * side * g.oc, layer.scratch),
    )
    in_pass = max(1, min(max(LEAST, of_sums), MOST) // ((layer.v_block + z_block) * itemsize))
    return Plan(
        _gradient(side, g.kh, host.tile_rows, host.tile_vectors, lanes),
        layer,
        numbers,
        sums,
        min(in_pass * layer.block, max(1, STRETCH // layer.block) * layer.block, forward.squares),
        square_work=8 * points * (g.ic + g.oc),
        product_work=points * g.ic * column_blocks * width // 2,
    )
