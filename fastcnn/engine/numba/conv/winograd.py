"""Winograd's minimal filtering on register tiles: forward, and the gradient of the input.

An image is cut into squares of m × m outputs, each with the (m + 2) × (m + 2) inputs that it needs
for a 3×3 filter. Squares and filters are transformed (:mod:`fastcnn.core.minimal_filtering`), and
each of the n² numbers of a transformed square becomes a matrix product of its own,

    M[e][square, oc] = Σ_ic V[e][square, ic] · U[e][ic, oc]

after which M is transformed back. F(4×4, 3×3) takes 36 products for 16 outputs instead of 144.

**Cache.** What is transformed is several times as large as what it was made of, so it must not
leave the cache. There are two ways, for two kinds of layers:

- *by squares*, where the filters are few: U is made once; then an item is a block of squares,
  transformed, multiplied with all of U and transformed back while V and M stay in the
  second-level cache.
- *by columns*, where the filters are many and U would be larger than the cache: V is made for some
  hundred squares; then an item is a block of output channels, which transforms its own filters, a
  few input channels at a time, and uses them for all squares at once.

Each number of y is summed in the order of the input channels in both, in any tile, on any thread.

**What is not finite.** A transformed infinity turns up as NaN in all outputs of its square. Where
an image has an output that is not finite, the image is computed again directly.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core import hardware
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, pool_geometry
from fastcnn.core.settings import get_num_threads
from fastcnn.engine import policy
from fastcnn.engine.numba.contraction.packing import turn_filters
from fastcnn.engine.numba.conv import direct
from fastcnn.engine.numba.pool.operations import max_pool2d
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import bias_or_zeros, empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import copy_run, zero_run
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.tiles.arithmetic import tile_doubt, tile_relu, tile_sum
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_from_rows, tile_store
from fastcnn.engine.numba.tiles.pooling import tile_pooled_of_numbers, tile_pooled_places_of_numbers
from fastcnn.engine.numba.tiles.products import rank1
from fastcnn.engine.numba.tiles.rows import rows_line, rows_walk
from fastcnn.engine.numba.tiles.winograd import store_transform, tile_transform

_INPUTS, _FILTERS, _OUTPUTS = 0, 1, 2  # the matrices of a Filtering

# By columns: input channels whose filters are transformed at once, and blocks of squares.
CHUNK = 96
AT_ONCE = 4
# Squares that are few: for them a second launch, and filters that another core has transformed,
# cost more than to transform all squares for each part of the columns.
FEW = 64
# Bytes of scratch that are kept from call to call.
SPARE = 4 << 20


class Layer(NamedTuple):
    """A convolution with stride 1 that Winograd's filtering computes, and how it is cut up.

    Output (oh, ow) meets inputs from (oh − top, ow − left) on; what lies outside counts as 0. A
    block has ``block`` squares, of which V takes ``v_block`` numbers and M ``m_block``; pixels of
    V are ``pitch`` apart. Filters are transformed ``chunk`` input channels at a time. They lie at
    ``w_start`` and steps from one block of columns, tap and input channel to the next, with
    ``w_columns`` columns in all. With ``pooled`` the largest of each 2×2 outputs, which lie in one
    square, is written in place of them all, with ``places`` which of the four it is besides.
    """

    h: int
    w: int
    ic: int
    oh: int
    ow: int
    oc: int
    top: int
    left: int
    squares_h: int
    squares_w: int
    block: int
    pitch: int
    v_block: int
    m_block: int
    scratch: int
    chunk: int
    u_step: int
    column_blocks: int
    w_start: int
    w_block: int
    w_tap_row: int
    w_tap: int
    w_row: int
    w_columns: int
    pooled: bool
    places: bool


class Stage(NamedTuple):
    """What a launch does, of: transform squares, transform filters, multiply and transform back.

    Its items are blocks of squares or, with ``by_columns``, blocks of columns. Without
    ``own_squares`` or ``own_filters`` the whole of V or U is there already, or to be made; with
    them each part makes what it needs, squares with its first item.
    """

    by_columns: bool
    squares: bool
    filters: bool
    products: bool
    own_squares: bool
    own_filters: bool


# By squares: V and M of a block in the cache beside a part of U.
_BY_SQUARES = Stage(False, True, False, True, True, False)
_ALL_FILTERS = Stage(True, False, True, False, False, False)
# By columns: M of some hundred squares beside U of some input channels.
_BY_COLUMNS = Stage(True, False, True, True, False, True)
ALL_SQUARES = Stage(False, True, False, False, False, False)
# All at once, of few squares: each thread transforms them all, for its own columns and filters.
_FEW_SQUARES = Stage(True, True, True, True, True, True)


@cache
def square_transform(m: int, r: int, lanes: int) -> Any:
    """What makes V of squares of images: a part of this kernel, and of the filters' gradient."""
    n = m + r - 1

    @device
    def transform_squares(
        first: int, last: int, x: Any, v: Any, v_start: int, scratch: Any, s_start: int, c: Any
    ) -> None:
        h, w, ic, top, left = c.h, c.w, c.ic, c.top, c.left
        squares_h, squares_w, step = c.squares_h, c.squares_w, c.block * c.pitch
        for square in range(first, last):
            row = square // squares_w % squares_h * m - top
            column = square % squares_w * m - left
            start = ((square // squares_w // squares_h * h + row) * w + column) * ic
            source, row_step = x, w * ic
            if row < 0 or column < 0 or row + n > h or column + n > w:
                for a in range(n):
                    for b in range(n):
                        place = s_start + (a * n + b) * ic
                        if 0 <= row + a < h and 0 <= column + b < w:
                            copy_run(scratch, place, x, start + (a * w + b) * ic, ic)
                        else:
                            zero_run(scratch, place, ic)
                source, start, row_step = scratch, s_start, n * ic
            at = v_start + (square - first) * c.pitch
            for k in range(0, ic, lanes):
                store_transform(
                    _INPUTS, m, r, lanes, source, start + k, row_step, ic, min(lanes, ic - k),
                    v, at + k, step,
                )  # fmt: skip

    return transform_squares


@kernel_factory
def _winograd(m: int, r: int, rows: int, vectors: int, lanes: int) -> Any:
    n = m + r - 1
    points, outputs = n * n, m * m
    half, quarter = rows // 2 + 1, rows // 4 + 1
    width = vectors * lanes

    transform_squares = square_transform(m, r, lanes)

    @device
    def transform_filters(
        block: int, first: int, last: int, w: Any, u: Any, u_start: int, c: Any
    ) -> None:
        step = c.u_step
        for k in range(first, last):
            start = c.w_start + block * c.w_block + k * c.w_row
            at = u_start + (k - first) * width
            for j in range(0, width, lanes):
                columns = max(0, min(lanes, c.w_columns - block * width - j))
                store_transform(
                    _FILTERS, m, r, lanes, w, start + j, c.w_tap_row, c.w_tap, columns,
                    u, at + j, step,
                )  # fmt: skip

    def of_height(height: int) -> Any:
        @device
        def multiply(
            v: Any, i: int, pitch: int, u: Any, j: int, steps: int, mm: Any, k: int, more: bool
        ) -> None:
            to = rows_line(height, k, points * width)
            if more:
                tile = tile_from_rows(height, vectors, lanes, mm, to, 0)
            else:
                tile = tile_from_row(height, vectors, lanes, u, j, 0)
            squares = rows_line(height, i, pitch)
            for s in range(steps):
                tile = rank1(tile, v, squares, s, u, j)
                j += width
            tile_store(tile, mm, to, 0, width)

        return multiply

    multiply_rows, multiply_half, multiply_quarter = map(of_height, (rows, half, quarter))

    @device
    def multiply_block(
        squares: int, v: Any, v_start: int, u: Any, u_start: int, first: int, last: int,
        mm: Any, m_start: int, c: Any,
    ) -> None:  # fmt: skip
        pitch, more, steps = c.pitch, first > 0, last - first
        for e in range(points):
            i, j = v_start + e * c.block * pitch + first, u_start + e * c.u_step
            k, left = m_start + e * width, squares
            while left > 0:
                if left <= quarter:
                    done = quarter
                    multiply_quarter(v, i, pitch, u, j, steps, mm, k, more)
                elif left <= half + quarter or rows < left <= 2 * half:
                    done = half
                    multiply_half(v, i, pitch, u, j, steps, mm, k, more)
                else:
                    done = rows
                    multiply_rows(v, i, pitch, u, j, steps, mm, k, more)
                left -= done
                i += done * pitch
                k += done * points * width

    @device
    def note(doubt: Any, scratch: Any, s_start: int, suspects: Any, image: int) -> None:
        tile_store(doubt, scratch, rows_line(1, s_start, 0), 0, lanes)
        for k in range(lanes):
            if scratch[s_start + k] != 0:
                suspects[image] = 1

    def of_side(side: int) -> Any:
        size = side * side

        @device
        def put(
            tile: Any, y: Any, at: int, rows: int, pixels: int,
            line: int, pixel: int, columns: int, scratch: Any, s_start: int,
        ) -> None:  # fmt: skip
            """Write a square of ``side``² outputs, of which ``rows`` × ``pixels`` are in ``y``."""
            if side <= rows and side <= pixels:
                in_square = rows_walk(size, 0, 0, 0, size, side, side, 0, line, pixel)
                tile_store(tile, y, in_square, at, columns)
                return
            tile_store(tile, scratch, rows_line(size, s_start, lanes), 0, lanes)
            for p in range(min(side, rows)):
                for q in range(min(side, pixels)):
                    place = s_start + (p * side + q) * lanes
                    copy_run(y, at + p * line + q * pixel, scratch, place, columns)

        return put

    put, put_pooled = of_side(m), of_side(m // 2)

    @device
    def transform_back(
        first: int, last: int, block: int, mm: Any, m_start: int, b: Any, y: Any, places: Any,
        relu: bool, scratch: Any, s_start: int, suspects: Any, c: Any,
    ) -> None:  # fmt: skip
        side = 2 if c.pooled else 1
        oh, ow, oc, squares_h, squares_w = c.oh, c.ow, c.oc, c.squares_h, c.squares_w
        oh, ow = oh // side, ow // side
        none = tile_from_row(1, 1, lanes, b, 0, 0)
        doubt, image = none, first // squares_w // squares_h
        for square in range(first, last):
            row = square // squares_w % squares_h * m // side
            column = square % squares_w * m // side
            if square // squares_w // squares_h != image:
                note(doubt, scratch, s_start, suspects, image)
                doubt, image = none, square // squares_w // squares_h
            at = ((image * oh + row) * ow + column) * oc
            for j in range(0, min(width, oc - block * width), lanes):
                channel = block * width + j
                columns = min(lanes, oc - channel)
                i = m_start + (square - first) * points * width + j
                tile = tile_transform(_OUTPUTS, m, r, lanes, mm, i, n * width, width)
                doubt = tile_doubt(doubt, tile)
                # Before the largest is looked for: with it numbers that differ may become equal.
                tile = tile_sum(tile, tile_from_row(outputs, 1, lanes, b, channel, columns))
                if c.pooled:
                    # NaN stands beside numbers in images in doubt alone; the bias's in all places.
                    found = tile_pooled_of_numbers(m, tile)
                    if relu:
                        found = tile_relu(found)
                    put_pooled(
                        found, y, at + channel, oh - row, ow - column, ow * oc, oc, columns,
                        scratch, s_start,
                    )  # fmt: skip
                    if c.places:
                        put_pooled(
                            tile_pooled_places_of_numbers(m, tile), places, at + channel, oh - row,
                            ow - column, ow * oc, oc, columns, scratch, s_start,
                        )  # fmt: skip
                else:
                    if relu:
                        tile = tile_relu(tile)
                    put(
                        tile, y, at + channel, oh - row, ow - column, ow * oc, oc, columns,
                        scratch, s_start,
                    )  # fmt: skip
        note(doubt, scratch, s_start, suspects, image)

    @kernel
    def winograd(
        start: int, stop: int, x: Any, w: Any, b: Any, y: Any, places: Any, v: Any, u: Any,
        mm: Any, scratch: Any, suspects: Any, relu: bool, first: int, last: int, items: int,
        parts: int, layer: Any, flags: Any,
    ) -> None:  # fmt: skip
        """Squares ``first`` to ``last``; each part has a place of its own in the workspace."""
        c, stage = layer[0], flags[0]
        blocks = (last - first + c.block - 1) // c.block
        for part in range(start, stop):
            s_start = part * c.scratch
            first_item = items * part // parts
            for item in range(first_item, items * (part + 1) // parts):
                block_from, block_to, column_from, column_to = item, item + 1, 0, c.column_blocks
                if stage.by_columns:
                    block_from, block_to, column_from, column_to = 0, blocks, item, item + 1
                m_first = part * (block_to - block_from) * c.m_block
                # Of squares of its own a part has as many blocks as of products.
                v_first = part * (block_to - block_from) - block_from if stage.own_squares else 0
                if stage.squares and (item == first_item or not stage.by_columns):
                    for block in range(block_from, block_to):
                        from_square = first + block * c.block
                        to_square = min(last, from_square + c.block)
                        v_start = (v_first + block) * c.v_block
                        transform_squares(
                            from_square, to_square, x, v, v_start, scratch, s_start, c
                        )
                for column in range(column_from, column_to):
                    for k in range(0, c.ic, c.chunk):
                        last_k = min(c.ic, k + c.chunk)
                        u_start = (part if stage.own_filters else column) * c.u_step * points
                        if stage.filters:
                            transform_filters(column, k, last_k, w, u, u_start, c)
                        if not stage.products:
                            continue
                        for block in range(block_from, block_to):
                            squares = min(c.block, last - first - block * c.block)
                            v_start = (v_first + block) * c.v_block
                            m_start = m_first + (block - block_from) * c.m_block
                            multiply_block(
                                squares, v, v_start, u, u_start, k, last_k, mm, m_start, c
                            )
                    if stage.products:
                        for block in range(block_from, block_to):
                            from_square = first + block * c.block
                            to_square = min(last, from_square + c.block)
                            m_start = m_first + (block - block_from) * c.m_block
                            transform_back(
                                from_square, to_square, column, mm, m_start, b, y, places,
                                relu, scratch, s_start, suspects, c,
                            )  # fmt: skip

    return winograd


def conv2d(x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry) -> Array:
    """``y``, for filters of 3×3 or 5×5 with stride 1, dense, in one group."""
    y = empty_like_type(x, *g.output_shape)
    if y.size == 0:
        return y
    for n in _forward(forward(g, x.itemsize), x, w, b, activation, y):
        y[n : n + 1] = direct.conv2d(x[n : n + 1], w, b, activation, g._replace(n=1))
    return y


def conv2d_pooled(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry
) -> Array:
    """The same with 2×2 max-pooling at once; which zero it is may differ, as of the direct way."""
    y = empty_like_type(x, g.n, g.oh // 2, g.ow // 2, g.oc)
    _pool(x, w, b, activation, g, y)
    return y


def conv2d_pooled_places(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry
) -> tuple[Array, Array]:
    """:func:`conv2d_pooled`, and the places in the windows where its numbers come from, 0 to 3.

    That of a number which ReLU made 0 is any: no gradient goes there.
    """
    y, places = (empty_like_type(x, g.n, g.oh // 2, g.ow // 2, g.oc) for _ in range(2))
    _pool(x, w, b, activation, g, y, places)
    return y, places


def _pool(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry, y: Array,
    places: Array | None = None,
) -> None:  # fmt: skip
    if y.size == 0:
        return
    plan = forward(g, x.itemsize, pooled=True, places=places is not None)
    for n in _forward(plan, x, w, b, activation, y, places):
        whole = direct.conv2d(x[n : n + 1], w, b, activation, g._replace(n=1))
        y[n : n + 1] = max_pool2d(whole, pool_geometry(whole.shape, 2, stride=2))
        if places is not None:
            places[n] = _places_in(whole[0])


def _places_in(image: Array) -> Array:
    """Which of each 2×2 pixels is the largest: the first of equals, or the first NaN."""
    h, w, c = image.shape[0] // 2, image.shape[1] // 2, image.shape[2]
    windows = image[: 2 * h, : 2 * w].reshape(h, 2, w, 2, c).swapaxes(1, 2)
    places: Array = windows.reshape(h, w, 4, c).argmax(axis=2)
    return places


def _forward(
    plan: Plan, x: Array, w: Array, b: Array | None, activation: str | None, y: Array,
    places: Array | None = None,
) -> list[int]:  # fmt: skip
    flat, biases = readable(w).reshape(-1), bias_or_zeros(b, plan.layer.oc, x)
    return _run(plan, readable(x), flat, biases, y, activation == "relu", places)


def conv2d_input_gradient(dy: Array, w: Array, g: ConvGeometry) -> Array:
    """``dx``: the convolution of ``dy`` with the filters turned by 180°."""
    dx = empty_like_type(dy, *g.input_shape)
    if dx.size == 0:
        return dx
    steps = _input_gradient(g, dy.itemsize)
    turned = turn_filters(readable(w), 1, steps.width)
    for n in _run(steps, readable(dy), turned, bias_or_zeros(None, g.ic, dy), dx, False):
        dx[n : n + 1] = direct.conv2d_input_gradient(dy[n : n + 1], w, g._replace(n=1))
    return dx


class Plan(NamedTuple):
    """A layer made ready: ``at_once`` of its ``squares`` at a time.

    ``numbers`` is the layer's record; ``width`` that of a block of columns; works are numbers of
    operations, for a square, for a square and block of columns, and for all filters; ``spare`` has
    scratch of earlier calls, which nobody uses.
    """

    function: Any
    layer: Layer
    numbers: Array
    images: int
    squares: int
    at_once: int
    by_columns: bool
    few: bool
    points: int
    width: int
    square_work: int
    product_work: int
    filter_work: int
    spare: list[_Scratch]


@cached_choice
def forward(g: ConvGeometry, itemsize: int, pooled: bool = False, places: bool = False) -> Plan:
    """The plan of the forward pass, made once for each geometry."""
    tap = g.ic * g.oc
    width = registers().tile_vectors * registers().vector_bytes // itemsize
    return _plan(
        g,
        itemsize,
        pooled,
        places,
        w_start=0,
        w_block=width,
        w_tap_row=g.kw * tap,
        w_tap=tap,
        w_row=g.oc,
        w_columns=g.oc,
    )


@cached_choice
def _input_gradient(g: ConvGeometry, itemsize: int) -> Plan:
    """Over filters as :func:`turn_filters` has them, the last tap first."""
    width = registers().tile_vectors * registers().vector_bytes // itemsize
    taps, tap = g.kh * g.kw, g.oc * width
    return _plan(
        g.turned,
        itemsize,
        pooled=False,
        places=False,
        w_start=(taps - 1) * tap,
        w_block=taps * tap,
        w_tap_row=-g.kw * tap,
        w_tap=-tap,
        w_row=width,
        w_columns=-(-g.ic // width) * width,
    )


def _plan(g: ConvGeometry, itemsize: int, pooled: bool, places: bool, **filters: int) -> Plan:
    host = registers()
    lanes = host.vector_bytes // itemsize
    width = host.tile_vectors * lanes
    cut = policy.squares(g)
    count, column_blocks = g.n * cut.number, -(-g.oc // width)
    by_columns = cut.points * g.ic * g.oc * itemsize > 2 * hardware.second_level_cache()
    # Blocks that tiles fill without a rest, smaller ones where there would be too few to share out.
    tiles = (2 * host.tile_rows, host.tile_rows, host.tile_rows // 2 + 1)
    block = next((size for size in tiles if count >= 8 * size), tiles[-1])
    if by_columns:
        block = tiles[0]
    chunk = min(g.ic, CHUNK) if by_columns else g.ic
    # An odd number of vectors apart: a power of two would put all into a few sets of the cache.
    pitch = (-(-g.ic // lanes) | 1) * lanes
    layer = Layer(
        g.h,
        g.w,
        g.ic,
        g.oh,
        g.ow,
        g.oc,
        g.pad_top,
        g.pad_left,
        squares_h=-(-g.oh // cut.side),
        squares_w=-(-g.ow // cut.side),
        block=block,
        pitch=pitch,
        v_block=cut.points * block * pitch,
        m_block=cut.points * block * width,
        scratch=max(cut.points * g.ic, cut.side**2 * lanes),
        chunk=chunk,
        u_step=chunk * width + lanes,
        column_blocks=column_blocks,
        pooled=pooled,
        places=places,
        **filters,
    )
    return Plan(
        _winograd(cut.side, g.kh, host.tile_rows, host.tile_vectors, lanes),
        layer,
        record(layer),
        g.n,
        count,
        AT_ONCE * tiles[0] if by_columns else count,
        by_columns,
        not by_columns and count <= FEW and column_blocks > 1,
        cut.points,
        width,
        square_work=8 * cut.points * g.ic,
        product_work=cut.points * g.ic * width // 2,
        filter_work=8 * cut.points * g.ic * g.oc,
        spare=[],
    )


class _Scratch(NamedTuple):
    """Memory of a call on so many threads: V, U, M, borders' squares, and the images in doubt.

    With ``stays`` it is kept for another call.
    """

    threads: int
    stays: bool
    v: Array
    u: Array
    mm: Array
    squares: Array
    suspects: Array


def _scratch(plan: Plan, dtype: np.dtype[Any]) -> _Scratch:
    """That of an earlier call, or new memory.

    A small layer's is kept with its plan: each core then finds its own part where it left it.
    """
    threads = get_num_threads()
    try:
        kept = plan.spare.pop()
        if kept.threads == threads:
            return kept
    except IndexError:
        pass
    c = plan.layer
    blocks = -(-min(plan.squares, plan.at_once) // c.block)
    u_count, v_count, m_count = c.column_blocks, threads, threads
    if plan.by_columns or plan.few:
        u_count, m_count = threads, threads * blocks
        v_count = m_count if plan.few else blocks
    sizes = (
        v_count * c.v_block, u_count * c.u_step * plan.points, m_count * c.m_block,
        threads * c.scratch,
    )  # fmt: skip
    v, u, mm, squares = (arrays.allocate((size,), dtype) for size in sizes)
    suspects = arrays.allocate((plan.images,), np.bool_)
    suspects[...] = False
    stays = sum(sizes) * np.dtype(dtype).itemsize <= SPARE
    return _Scratch(threads, stays, v, u, mm, squares, suspects)


def _run(
    plan: Plan, x: Array, w: Array, b: Array, y: Array, relu: bool, places: Array | None = None
) -> list[int]:
    """Compute ``y``; the numbers of the images in which something is not finite."""
    c, scratch = plan.layer, _scratch(plan, x.dtype)
    threads, suspects = scratch.threads, scratch.suspects
    flat_y = y.reshape(-1)
    flat_places = flat_y if places is None else places.reshape(-1)
    operands = x.reshape(-1), w, b, flat_y, flat_places, *scratch[2:], relu

    def launch(stage: Stage, first: int, last: int, items: int, work: int) -> None:
        parts = min(threads, items)
        numbers = first, last, items, parts, plan.numbers, record(stage)
        parallel_for(plan.function, parts, work, *operands, *numbers)

    if plan.few:
        work = plan.squares * (c.column_blocks * plan.product_work + plan.square_work)
        launch(_FEW_SQUARES, 0, plan.squares, c.column_blocks, work + plan.filter_work)
    elif not plan.by_columns:
        launch(_ALL_FILTERS, 0, 0, c.column_blocks, plan.filter_work)
        work = plan.squares * c.column_blocks * plan.product_work
        blocks = -(-plan.squares // c.block)
        launch(_BY_SQUARES, 0, plan.squares, blocks, work)
    else:
        for first in range(0, plan.squares, plan.at_once):
            last = min(plan.squares, first + plan.at_once)
            count = last - first
            launch(ALL_SQUARES, first, last, -(-count // c.block), count * plan.square_work)
            work = count * c.column_blocks * plan.product_work + plan.filter_work
            launch(_BY_COLUMNS, first, last, c.column_blocks, work)
    found: list[int] = []
    if b"\1" in suspects.tobytes():  # any() takes 2 µs more, of a small layer's 110
        found = np.flatnonzero(suspects).tolist()
        suspects[...] = False
    if scratch.stays:
        plan.spare.append(scratch)
    return found
