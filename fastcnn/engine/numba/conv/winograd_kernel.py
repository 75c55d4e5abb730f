"""The kernel of Winograd's filtering: forward, and the gradient of the input.

One kernel serves all launches: a :class:`Launch` says which of the three stages it runs, to
transform squares, to transform filters, and to multiply. Two kernels would hold the same transforms
and products twice, and each is compiled in seconds.

Shapes of scratch, all flat, with n² points e:

    v[block][e][square][pitch]                        transformed squares
    u[column block][e][ic of a chunk * width + lanes] transformed filters, and a free vector
    m[share][block][square][e][width]                 products
"""

from __future__ import annotations

from functools import cache

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.conv.winograd_partition import (
    GradientPartition,
    Partition,
    Results,
)
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import copy_run, zero_run
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel
from fastcnn.engine.numba.tiles.arithmetic import (
    tile_capped,
    tile_doubt,
    tile_multiply_add,
    tile_relu,
    tile_sum,
)
from fastcnn.engine.numba.tiles.loads_and_stores import (
    expect_load,
    fetch,
    tile_from_row,
    tile_load,
    tile_load_masked,
    tile_store,
)
from fastcnn.engine.numba.tiles.pooling import tile_pooled_argmax_of_numbers, tile_pooled_of_numbers
from fastcnn.engine.numba.tiles.products import rank1
from fastcnn.engine.numba.tiles.rows import rows_line, rows_walk
from fastcnn.engine.numba.tiles.winograd import store_transform, tile_transform

INPUTS, FILTERS, OUTPUTS = 0, 1, 2
"""The matrices of a :class:`fastcnn.core.minimal_filtering.Filtering`."""
_CHANNELS_AHEAD = 4
"""How many input channels before its turn the filters of one are fetched."""


@cache
def square_transform(m: int, r: int, lanes: int) -> DeviceFunction:
    """The device function that transforms squares of images; both Winograd kernels contain it."""
    n = m + r - 1

    @device
    def transform_squares(
        first: int, last: int, x: Array, v: Array, v_start: int, border: Array, border_start: int,
        partition: Partition | GradientPartition,
    ) -> None:  # fmt: skip
        """Transform squares ``first`` to ``last`` of x (N, H, W, IC), flat, into one block of v.

        A square that reaches beyond the image is copied between zeros to ``border`` first.
        """
        images, squares, blocks = partition.images, partition.squares, partition.blocks
        h, w, ic = images.h, images.w, images.ic
        point = blocks.squares * blocks.pitch
        for square in range(first, last):
            n_image = square // squares.columns // squares.rows
            row = square // squares.columns % squares.rows * m - images.top
            column = square % squares.columns * m - images.left
            start = ((n_image * h + row) * w + column) * ic
            source, row_step = x, w * ic
            if row < 0 or column < 0 or row + n > h or column + n > w:
                for a in range(n):
                    for b in range(n):
                        target = border_start + (a * n + b) * ic
                        if 0 <= row + a < h and 0 <= column + b < w:
                            copy_run(border, target, x, start + (a * w + b) * ic, ic)
                        else:
                            zero_run(border, target, ic)
                source, start, row_step = border, border_start, n * ic
            at = v_start + (square - first) * blocks.pitch
            for k in range(0, ic, lanes):
                store_transform(
                    INPUTS, m, r, lanes, source, start + k, row_step, ic, min(lanes, ic - k),
                    v, at + k, point,
                )  # fmt: skip

    return transform_squares


@kernel_factory
def _winograd(m: int, r: int, rows: int, vectors: int, lanes: int) -> Kernel:
    """The kernel of F(m × m, r × r) on register tiles of rows × vectors × lanes."""
    n = m + r - 1
    points, outputs, taps = n * n, m * m, r * r
    half, quarter = rows // 2 + 1, rows // 4 + 1
    width = vectors * lanes

    transform_squares = square_transform(m, r, lanes)

    @device
    def transform_filters(
        block: int, first: int, last: int, w: Array, u: Array, u_start: int, partition: Partition
    ) -> None:
        """Transform a block of columns of the filters of input channels ``first`` to ``last``."""
        filters, point = partition.filters, partition.columns.point
        # A channel's taps lie far apart in w, so the processor does not foresee their addresses.
        # They are fetched some channels before (docs/measurements.md, "Filters are fetched early").
        in_w = rows_walk(taps, 0, 0, 0, taps, r, r, 0, filters.tap_row, filters.tap)
        of_channel = tile_from_row(taps, vectors, lanes, w, 0, 0)
        for k in range(first, last):
            start = filters.start + block * filters.block + k * filters.row
            expect_load(of_channel, w, in_w, start + _CHANNELS_AHEAD * filters.row)
            at = u_start + (k - first) * width
            for j in range(0, width, lanes):
                columns = max(0, min(lanes, filters.columns - block * width - j))
                store_transform(
                    FILTERS, m, r, lanes, w, start + j, filters.tap_row, filters.tap, columns,
                    u, at + j, point,
                )  # fmt: skip

    def make_multiply(height: int) -> DeviceFunction:
        @device
        def multiply(
            v: Array, at_v: int, pitch: int, u: Array, at_u: int, steps: int, products: Array,
            at: int, resumed: bool, ahead: int,
        ) -> None:  # fmt: skip
            """``M[s, :] = Σ_k V[s, k] · U[k, :]`` of one register tile and one point.

            V is (height squares, steps) at ``v[at_v]``, its rows ``pitch`` apart. U is (steps,
            width) at ``u[at_u]``. M is (height squares, width) at ``products[at]``, its rows
            ``points * width`` apart. With ``resumed``, the sums go on from those in ``products``.
            If ``ahead`` is not 0, a cache line is fetched for each step, from ``u[ahead]`` on.
            """
            target = rows_line(height, at, points * width)
            if resumed:
                tile = tile_load(height, vectors, lanes, products, target, 0)
            else:
                tile = tile_from_row(height, vectors, lanes, u, at_u, 0)
            squares = rows_line(height, at_v, pitch)
            if ahead:
                for s in range(steps):
                    fetch(u, ahead + s * (CACHE_LINE // u.itemsize))
                    tile = rank1(tile, v, squares, s, u, at_u)
                    at_u += width
            else:
                for s in range(steps):
                    tile = rank1(tile, v, squares, s, u, at_u)
                    at_u += width
            tile_store(tile, products, target, 0, width)

        return multiply

    multiply_rows, multiply_half, multiply_quarter = map(make_multiply, (rows, half, quarter))

    @device
    def multiply_block(
        squares: int, scratch: Array, u: Array, v_start: int, u_start: int, m_start: int,
        first: int, last: int, fetches: bool, partition: Partition,
    ) -> None:  # fmt: skip
        """``M[s, e, :] = Σ_k V[e, s, k] · U[e, k, :]`` over input channels ``first`` to ``last``.

        Reads V (points, blocks.squares, pitch) at ``scratch[v_start]`` and U at ``u[u_start]``,
        whose points lie ``partition.columns.point`` apart. Writes M (squares, points, width) at
        ``scratch[m_start]``, or adds to it if ``first`` is not 0. With ``fetches``, U of the next
        point is fetched while that of a point is read.

        Squares are taken in tiles of ``rows``, and the rest in smaller ones. The last tile may go
        past ``squares``, but never past ``blocks.squares``: it reads numbers of an earlier block,
        and nothing reads the products that it writes there.
        """
        blocks, point = partition.blocks, partition.columns.point
        pitch, resumed, steps = blocks.pitch, first > 0, last - first
        for e in range(points):
            i, j = v_start + e * blocks.squares * pitch + first, u_start + e * point
            k, left, fetched = m_start + e * width, squares, 0
            while left > 0:
                ahead = j + point + fetched if fetches and fetched < point else 0
                fetched += steps * (CACHE_LINE // u.itemsize)
                if left <= quarter:
                    height = quarter
                    multiply_quarter(scratch, i, pitch, u, j, steps, scratch, k, resumed, ahead)
                elif left <= half + quarter or rows < left <= 2 * half:
                    # Two smaller tiles compute fewer idle squares than a tile of ``rows``.
                    height = half
                    multiply_half(scratch, i, pitch, u, j, steps, scratch, k, resumed, ahead)
                else:
                    height = rows
                    multiply_rows(scratch, i, pitch, u, j, steps, scratch, k, resumed, ahead)
                left -= height
                i += height * pitch
                k += height * points * width

    @device
    def note_doubt(
        doubt: Array, border: Array, border_start: int, suspects: Array, image: int
    ) -> None:
        """Mark the image as suspect if a lane of ``doubt`` is not 0."""
        tile_store(doubt, border, rows_line(1, border_start, 0), 0, lanes)
        for k in range(lanes):
            if border[border_start + k] != 0:
                suspects[image] = 1

    def make_store(side: int) -> DeviceFunction:
        size = side * side

        @device
        def store_square(
            tile: Array, y: Array, at: int, rows: int, pixels: int, line: int, pixel: int,
            columns: int, border: Array, border_start: int,
        ) -> None:  # fmt: skip
            """Store a square of ``side``² outputs; its first ``rows`` × ``pixels`` are in ``y``.

            ``rows`` and ``pixels`` may be 0 or less; then nothing is stored.
            """
            if side <= rows and side <= pixels:
                in_square = rows_walk(size, 0, 0, 0, size, side, side, 0, line, pixel)
                tile_store(tile, y, in_square, at, columns)
                return
            tile_store(tile, border, rows_line(size, border_start, lanes), 0, lanes)
            for p in range(min(side, rows)):
                for q in range(min(side, pixels)):
                    start = border_start + (p * side + q) * lanes
                    copy_run(y, at + p * line + q * pixel, border, start, columns)

        return store_square

    store_square, store_pooled = make_store(m), make_store(m // 2)

    @device
    def load_square(
        x: Array, at: int, rows: int, pixels: int, line: int, pixel: int, columns: int,
        border: Array, border_start: int,
    ) -> Array:  # fmt: skip
        """A square of m² numbers of ``x``; its first ``rows`` × ``pixels`` are in the image."""
        if m <= rows and m <= pixels:
            in_square = rows_walk(outputs, 0, 0, 0, outputs, m, m, 0, line, pixel)
            whole: Array = tile_load_masked(outputs, 1, lanes, x, in_square, at, columns)
            return whole
        zero_run(border, border_start, outputs * lanes)
        for p in range(min(m, rows)):
            for q in range(min(m, pixels)):
                target = border_start + (p * m + q) * lanes
                copy_run(border, target, x, at + p * line + q * pixel, columns)
        in_border = rows_line(outputs, border_start, lanes)
        square: Array = tile_load_masked(outputs, 1, lanes, border, in_border, 0, lanes)
        return square

    @device
    def transform_back(
        first: int, last: int, block: int, scratch: Array, m_start: int, border_start: int,
        results: Results, partition: Partition,
    ) -> None:  # fmt: skip
        """Write y (N, OH, OW, OC) of squares ``first`` to ``last`` × a block of columns.

        Reads the products from ``scratch[m_start]`` on. The epilogue is done in registers. A sum
        that is not finite makes its image suspect.
        """
        images, squares, epilogue = partition.images, partition.squares, partition.epilogue
        side = 2 if epilogue.pooled else 1
        oh, ow, oc, pitch = images.oh // side, images.ow // side, images.oc, images.pitch
        b, y, border = results.b, results.y, scratch
        none = tile_from_row(1, 1, lanes, b, 0, 0)
        doubt, image = none, first // squares.columns // squares.rows
        for square in range(first, last):
            row = square // squares.columns % squares.rows * m // side
            column = square % squares.columns * m // side
            if square // squares.columns // squares.rows != image:
                note_doubt(doubt, border, border_start, results.suspects, image)
                doubt, image = none, square // squares.columns // squares.rows
            at = ((image * oh + row) * ow + column) * pitch
            for j in range(0, min(width, oc - block * width), lanes):
                channel = block * width + j
                columns = min(lanes, oc - channel)
                i = m_start + (square - first) * points * width + j
                tile = tile_transform(OUTPUTS, m, r, lanes, scratch, i, n * width, width)
                doubt = tile_doubt(doubt, tile)
                # The bias comes before pooling, because numbers that differ may become equal.
                tile = tile_sum(tile, tile_from_row(outputs, 1, lanes, b, channel, columns))
                if epilogue.affine:
                    scale = tile_from_row(outputs, 1, lanes, b, oc + channel, columns)
                    shift = tile_from_row(outputs, 1, lanes, b, 2 * oc + channel, columns)
                    tile = tile_multiply_add(tile, scale, shift)
                if epilogue.pooled:
                    # Pooling may ignore NaN: images that mix NaN with numbers are suspect and are
                    # computed again, and a bias that is NaN makes every pixel NaN.
                    pooled = tile_pooled_of_numbers(m, tile)
                    if epilogue.relu:
                        pooled = tile_relu(pooled)
                    if epilogue.capped:
                        pooled = tile_capped(pooled, b, 3 * oc)
                    store_pooled(
                        pooled, y, at + channel, oh - row, ow - column, ow * pitch, pitch, columns,
                        border, border_start,
                    )  # fmt: skip
                    if epilogue.indices:
                        store_pooled(
                            tile_pooled_argmax_of_numbers(m, tile), results.extra, at + channel,
                            oh - row, ow - column, ow * pitch, pitch, columns, border, border_start,
                        )  # fmt: skip
                else:
                    if epilogue.residual:
                        other = load_square(
                            results.extra, at + channel, oh - row, ow - column, ow * pitch, pitch,
                            columns, border, border_start,
                        )  # fmt: skip
                        tile = tile_sum(tile, other)
                    if epilogue.relu:
                        tile = tile_relu(tile)
                    if epilogue.capped:
                        tile = tile_capped(tile, b, 3 * oc)
                    store_square(
                        tile, y, at + channel, oh - row, ow - column, ow * pitch, pitch, columns,
                        border, border_start,
                    )  # fmt: skip
        note_doubt(doubt, border, border_start, results.suspects, image)

    @kernel
    def winograd(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, extra: Array,
        scratch: Array, u: Array, suspects: Array, partitions: Array, launches: Array,
    ) -> None:  # fmt: skip
        """The shares ``start`` to ``stop`` of a launch.

        ``partitions`` is one record of :class:`Partition`, ``launches`` one of :class:`Launch`.

        It reads x (N, H, W, IC), w as its :class:`Filters` say, and b (OC,), or as the epilogue
        says. It writes y and argmax indices to ``extra`` (N, OH, OW, OC), or (N, OH // 2, OW // 2,
        OC) with pooling, and suspects (N,). With a residual it reads ``extra`` (N, OH, OW, OC).
        Between launches, transformed filters are in ``u``, and all else in ``scratch``. All arrays
        are flat.
        """
        partition, launch = partitions[0], launches[0]
        results = Results(b, y, extra, suspects)
        first, last, items, shares = launch.first, launch.last, launch.items, launch.shares
        size, chunk, columns = partition.blocks.squares, partition.columns.chunk, partition.columns
        blocks = (last - first + size - 1) // size
        for share in range(start, stop):
            border_start = launch.border_at + share * partition.border
            for item in range(items * share // shares, items * (share + 1) // shares):
                block_from, block_to = item, item + 1
                column_from, column_to = 0, columns.blocks
                if launch.by_columns:
                    block_from, block_to, column_from, column_to = 0, blocks, item, item + 1
                m_first = share * (block_to - block_from)
                v_first = 0  # the place of block 0 in v
                if launch.transforms_squares and launch.multiplies:
                    v_first = share - item  # in the share's own place
                    begin = first + item * size
                    transform_squares(
                        begin, min(last, begin + size), x, scratch, share * partition.blocks.length,
                        scratch, border_start, partition,
                    )  # fmt: skip
                elif launch.transforms_squares:
                    in_block = size // launch.item_squares
                    block, square = item // in_block, item % in_block * launch.item_squares
                    begin = first + block * size + square
                    transform_squares(
                        begin, min(last, begin + launch.item_squares), x, scratch,
                        block * partition.blocks.length + square * partition.blocks.pitch,
                        scratch, border_start, partition,
                    )  # fmt: skip
                for column in range(column_from, column_to):
                    own_filters = launch.transforms_filters and launch.multiplies
                    u_start = (share if own_filters else column) * columns.point * points
                    for k in range(0, partition.images.ic, chunk):
                        last_k = min(partition.images.ic, k + chunk)
                        if launch.transforms_filters:
                            transform_filters(column, k, last_k, w, u, u_start, partition)
                        if not launch.multiplies:
                            continue
                        for block in range(block_from, block_to):
                            squares = min(size, last - first - block * size)
                            v_start = (v_first + block) * partition.blocks.length
                            m_start = launch.products_at + (
                                (m_first + block - block_from) * columns.products
                            )
                            fetches = block == block_from and not launch.transforms_filters
                            multiply_block(
                                squares, scratch, u, v_start, u_start, m_start, k, last_k, fetches,
                                partition,
                            )  # fmt: skip
                    if launch.multiplies:
                        for block in range(block_from, block_to):
                            begin = first + block * size
                            m_start = launch.products_at + (
                                (m_first + block - block_from) * columns.products
                            )
                            transform_back(
                                begin, min(last, begin + size), column, scratch, m_start,
                                border_start, results, partition,
                            )  # fmt: skip

    return winograd
