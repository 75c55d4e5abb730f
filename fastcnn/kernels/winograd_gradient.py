"""The gradient of the filters by Winograd's minimal filtering.

It is a filter too, with the gradient of the output in the part of the filter: for a square of m × m
numbers of dy and the (m + r − 1)² inputs that they meet, F(r, m) gives what they add to the r × r
taps. Squares of dy and x are transformed, and each of the n² numbers of a transformed square is a
product of its own, summed over all squares of all images:

    D[e][ic, oc] = Σ_square V[e][square, ic] · Z[e][square, oc]

Only then is D transformed back, once for each filter. F(3×3, 4×4) takes 36 products for a square
instead of 144. V is what the forward pass makes of x.

Squares are taken in passes, whose V and Z fill a bounded workspace; D waits between them. An item
is a block of input channels by a block of output channels, and sums over the squares in order.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

from fastcnn import policy
from fastcnn.arguments import Array
from fastcnn.geometry import ConvGeometry
from fastcnn.kernels import direct, winograd
from fastcnn.kernels.arrays import allocate, empty_like_type, readable, record
from fastcnn.kernels.jit import device, kernel
from fastcnn.kernels.packing import all_finite
from fastcnn.kernels.simd import (
    copy_run,
    rank1,
    registers,
    rows_line,
    store_transform,
    tile_from_row,
    tile_from_rows,
    tile_store,
    tile_transform,
    zero_run,
)
from fastcnn.kernels.threads import parallel_for
from fastcnn.settings import get_num_threads

_FILTERS, _OUTPUTS = 1, 2  # the matrices of a Filtering

# Bytes of V and Z in a pass, or of one block if that is more: what the third-level cache holds
# beside other things, and more where D is larger, since each pass reads and writes D once.
LEAST, MOST = 4 * 1024 * 1024, 32 * 1024 * 1024


class Sums(NamedTuple):
    """Extents of a layer's gradient, and how it is cut up.

    A block has ``block`` squares; Z takes ``z_block`` numbers of it, V ``v_block``. An item takes
    ``rows`` input channels, and its part of D has ``d_step`` numbers from one point to the next.
    """

    oh: int
    ow: int
    ic: int
    oc: int
    squares_h: int
    squares_w: int
    block: int
    pitch: int
    v_block: int
    z_pitch: int
    z_block: int
    rows: int
    row_blocks: int
    column_blocks: int
    d_step: int
    scratch: int


@cache
def _gradient(m: int, r: int, lanes: int) -> tuple[Any, Any]:
    n = m + r - 1
    points, taps = n * n, r * r
    rows, vectors = registers().tile_rows, registers().tile_vectors
    half = rows // 2 + 1
    width = vectors * lanes

    @kernel
    def squares_of_dy(
        start: int, stop: int, dy: Any, z: Any, scratch: Any, first: int, last: int, parts: int,
        numbers: Any,
    ) -> None:  # fmt: skip
        c = numbers[0]
        oh, ow, oc, squares_h, squares_w = c.oh, c.ow, c.oc, c.squares_h, c.squares_w
        step, count = c.block * c.z_pitch, last - first
        for part in range(start, stop):
            s_start = part * c.scratch
            for item in range(count * part // parts, count * (part + 1) // parts):
                square = first + item
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
                to = item // c.block * c.z_block + item % c.block * c.z_pitch
                for k in range(0, oc, lanes):
                    store_transform(
                        _FILTERS, r, m, lanes, source, at + k, row_step, oc, min(lanes, oc - k),
                        z, to + k, step,
                    )  # fmt: skip

    def of_height(height: int) -> Any:
        @device
        def add_squares(
            squares: int, v: Any, i: int, z: Any, j: int, d: Any, k: int, more: bool, c: Any
        ) -> None:
            to = rows_line(height, k, width)
            if more:
                tile = tile_from_rows(height, vectors, lanes, d, to, 0)
            else:
                tile = tile_from_row(height, vectors, lanes, z, j, 0)
            channels = rows_line(height, i, 1)
            block, pitch, z_pitch = c.block, c.pitch, c.z_pitch
            for first in range(0, squares, block):
                at_v, at_z = first // block * c.v_block, j + first // block * c.z_block
                for _ in range(min(block, squares - first)):
                    tile = rank1(tile, v, channels, at_v, z, at_z)
                    at_v += pitch
                    at_z += z_pitch
            tile_store(tile, d, to, 0, width)

        return add_squares

    add_to_rows, add_to_half = of_height(rows), of_height(half)

    @kernel
    def sums(
        start: int, stop: int, v: Any, z: Any, d: Any, dw: Any, squares: int, more: bool,
        done: bool, own: bool, parts: int, numbers: Any,
    ) -> None:  # fmt: skip
        c = numbers[0]
        items = c.row_blocks * c.column_blocks
        ic, oc, d_step = c.ic, c.oc, c.d_step
        for part in range(start, stop):
            for item in range(items * part // parts, items * (part + 1) // parts):
                column = item // c.row_blocks * width
                first = item % c.row_blocks * c.rows
                last = min(ic, first + c.rows)
                d_start = (item if own else part) * d_step * points
                for e in range(points):
                    i, k = e * c.block * c.pitch + first, d_start + e * d_step
                    j = e * c.block * c.z_pitch + column
                    for row in range(first, last, rows):
                        if last - row > half:
                            add_to_rows(squares, v, i, z, j, d, k, more, c)
                        else:
                            add_to_half(squares, v, i, z, j, d, k, more, c)
                        i += rows
                        k += rows * width
                if not done:
                    continue
                to = rows_line(taps, 0, ic * oc)
                for row in range(first, last):
                    for j in range(0, min(width, oc - column), lanes):
                        at = d_start + (row - first) * width + j
                        tile = tile_transform(_OUTPUTS, r, m, lanes, d, at, n * d_step, d_step)
                        channel = column + j
                        columns = min(lanes, oc - channel)
                        tile_store(tile, dw, to, row * oc + channel, columns)

    return squares_of_dy, sums


def conv2d_filter_gradient(dy: Array, x: Array, g: ConvGeometry) -> Array:
    """``dw``, for filters of 3×3 or 5×5 with stride 1, dense, in one group."""
    dw = empty_like_type(dy, *g.filter_shape)
    if g.n == 0:
        dw[...] = 0
        return dw
    plan = _plan(g, dy.itemsize)
    forward, c, threads = plan.forward, plan.sums, get_num_threads()
    blocks = -(-plan.at_once // c.block)
    own = plan.at_once < forward.squares
    items = c.row_blocks * c.column_blocks
    parts = min(threads, items)
    # The last tile of input channels reads on beyond them.
    v = empty_like_type(x, blocks * c.v_block + registers().tile_rows)
    z = empty_like_type(x, blocks * c.z_block)
    d = empty_like_type(x, (items if own else parts) * c.d_step * plan.points)
    scratch = empty_like_type(x, threads * max(c.scratch, forward.layer.scratch))
    numbers, flat_x, flat_dy = plan.numbers, readable(x).reshape(-1), readable(dy).reshape(-1)
    squares_of_dy, sums = plan.functions
    none = allocate((1,), bool)
    for first in range(0, forward.squares, plan.at_once):
        last = min(forward.squares, first + plan.at_once)
        count = last - first
        share = -(-count // c.block)
        stage = min(threads, share), forward.numbers, record(winograd.ALL_SQUARES)
        unused = flat_x, flat_x, flat_x, v, flat_x, flat_x, scratch, none, False
        parallel_for(
            forward.function, stage[0], count * forward.square_work, flat_x, *unused,
            first, last, share, *stage,
        )  # fmt: skip
        shares = min(threads, count)
        work = count * plan.dy_work
        parallel_for(squares_of_dy, shares, work, flat_dy, z, scratch, first, last, shares, numbers)
        work = count * plan.product_work
        flags = count, first > 0, last == forward.squares, own, parts
        parallel_for(sums, parts, work, v, z, d, dw.reshape(-1), *flags, numbers)
    # What is not finite spoils all taps: a direct sum says where it belongs.
    if not all_finite(dw.reshape(-1)):
        return direct.conv2d_filter_gradient(dy, x, g)
    return dw


class Plan(NamedTuple):
    """A gradient made ready: the forward pass that makes V, and ``at_once`` squares a pass."""

    functions: tuple[Any, Any]
    forward: winograd.Plan
    sums: Sums
    numbers: Array
    at_once: int
    points: int
    dy_work: int
    product_work: int


@lru_cache(maxsize=1024)
def _plan(g: ConvGeometry, itemsize: int) -> Plan:
    forward, host = winograd.forward(g, itemsize), registers()
    layer, points, width = forward.layer, forward.points, forward.width
    lanes = host.vector_bytes // itemsize
    column_blocks = -(-g.oc // width)
    z_pitch = (column_blocks * host.tile_vectors | 1) * lanes
    z_block = points * layer.block * z_pitch
    rows = 2 * host.tile_rows
    row_blocks = -(-g.ic // rows)
    side = policy.squares(g).side
    sums = Sums(
        g.oh,
        g.ow,
        g.ic,
        g.oc,
        layer.squares_h,
        layer.squares_w,
        block=layer.block,
        pitch=layer.pitch,
        v_block=layer.v_block,
        z_pitch=z_pitch,
        z_block=z_block,
        rows=rows,
        row_blocks=row_blocks,
        column_blocks=column_blocks,
        d_step=rows * width + lanes,
        scratch=side * side * g.oc,
    )
    of_sums = points * g.ic * g.oc * itemsize
    in_pass = max(1, min(max(LEAST, of_sums), MOST) // ((layer.v_block + z_block) * itemsize))
    return Plan(
        _gradient(side, g.kh, lanes),
        forward,
        sums,
        record(sums),
        min(in_pass * layer.block, forward.squares),
        points,
        dy_work=8 * points * g.oc,
        product_work=points * g.ic * column_blocks * width // 2,
    )
