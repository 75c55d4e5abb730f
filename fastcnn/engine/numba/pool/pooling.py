"""Pooling on register tiles of one row: a window's channels stay in registers over its pixels.

Forward, an item is a row of the output. Backward, windows may share pixels, so an item is a block
of rows of the input: it visits, in row-major order, all windows that reach into it, and writes its
own rows only. The first window that meets a pixel writes it, later ones add: without zeros first
and with each block twice as high, 3×3 at stride 2 takes a fifth less time. Windows on the border
of two blocks are visited twice. Padding is passed over.

Large gradients of the usual max-pooling are written past the cache, each pixel once. What windows
of 3×3 at stride 2 share is carried: from one window to the next in registers, from one row of
windows to the next in a row of scratch. On 8×112×112×64, one thread, 3×3: 1.9 ms instead of 2.8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import PoolGeometry
from fastcnn.core.hardware import L3_BYTES
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.column_sums import rounded
from fastcnn.engine.numba.runtime.arrays import converted, empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import zero_run
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.tiles.arithmetic import tile_quotient, tile_sum
from fastcnn.engine.numba.tiles.loads_and_stores import (
    expect_load,
    stores_done,
    tile_from_row,
    tile_store,
    tile_stream,
)
from fastcnn.engine.numba.tiles.pooling import (
    tile_best,
    tile_best_of_numbers,
    tile_has_nan,
    tile_place,
    tile_place_of_numbers,
    tile_where,
)
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

# Windows that have kernels of their own.
_WINDOWS = ((2, 2), (3, 3))
# Rows of the input in one item of a gradient, and at most in one that is streamed.
_ROWS, _STREAMED_ROWS = 16, 32
# Pixels to fetch ahead where windows of three rows are streamed: 1.9 ms instead of 2.2.
_AHEAD = 16
# Bytes of a gradient that the caches will not hold until it is read.
BEYOND_CACHE = L3_BYTES


def max_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Largest value of each window."""
    return _forward("max", x, g)


def min_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Smallest value of each window."""
    return _forward("min", x, g)


def avg_pool2d(x: Array, g: PoolGeometry) -> Array:
    """Mean of each window's pixels in the image."""
    return _forward("average", x, g)


def max_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx``: each window's gradient at its first maximum."""
    return _extreme_gradient("max", dy, x, g)


def min_pool2d_backward(dy: Array, x: Array, g: PoolGeometry) -> Array:
    """``dx``: each window's gradient at its first minimum."""
    return _extreme_gradient("min", dy, x, g)


def avg_pool2d_backward(dy: Array, g: PoolGeometry) -> Array:
    """``dx``: each window's gradient shared by its pixels in the image."""
    if sums_are_long(g) and dy.itemsize < 8:
        return rounded(avg_pool2d_backward(converted(dy, np.float64), g), dy)
    dx = empty_like_type(dy, *g.input_shape)
    function, items = gradient_kernel("average", g, dy.itemsize)
    flat_dy, flat_dx = readable(dy).reshape(-1), dx.reshape(-1)
    parallel_for(function, items, _work(g), flat_dy, flat_dx, record(g))
    return dx


def forward_kernel(kind: str, g: PoolGeometry, itemsize: int) -> tuple[Any, int]:
    """The kernel of "max", "min" or "average" pooling, ``(x, y, record(g))``, and its items."""
    if kind == "average":
        return _average_rows(*_sides(g, itemsize), g.kh * g.kw > STRETCH), g.n * g.oh
    window = _unrolled(kind, g, itemsize)
    sides = _sides(g, itemsize, any(window))
    return _extreme_rows(kind == "max", *sides, *window), g.n * g.oh


def gradient_kernel(kind: str, g: PoolGeometry, itemsize: int) -> tuple[Any, int]:
    """The same for its gradient: ``(dy, x, dx, record(g))``, without ``x`` for "average"."""
    items = g.n * -(-g.h // _ROWS)
    if kind == "average":
        return _average_gradient(*_sides(g, itemsize)), items
    window = _unrolled(kind, g, itemsize)
    sides = _sides(g, itemsize, any(window))
    return _extreme_gradient_rows(kind == "max", *sides, *window), items


def placed_gradient_kernel(g: PoolGeometry, itemsize: int) -> tuple[Any, int]:
    """The gradient of 2×2 max-pooling from known places, ``(dy, places, dx, record(g))``."""
    return _placed_gradient(*_sides(g, itemsize, usual=True)), g.n * g.oh


def placed_gradient(dy: Array, places: Array, g: PoolGeometry) -> Array:
    """``dx`` of 2×2 max-pooling: each window's gradient at its place."""
    dx = empty_like_type(dy, *g.input_shape)
    function, items = placed_gradient_kernel(g, dy.itemsize)
    given = readable(dy).reshape(-1), places.reshape(-1), dx.reshape(-1), record(g)
    parallel_for(function, items, _work(g), *given)
    return dx


def _forward(kind: str, x: Array, g: PoolGeometry) -> Array:
    y = empty_like_type(x, *g.output_shape)
    function, items = forward_kernel(kind, g, x.itemsize)
    flat_x, flat_y = readable(x).reshape(-1), y.reshape(-1)
    parallel_for(function, items, _work(g), flat_x, flat_y, record(g))
    return y


def sums_are_long(g: PoolGeometry) -> bool:
    """Whether so many windows meet in a pixel that its gradient is a long sum.

    It is then taken in float64 throughout: few poolings overlap so.
    """
    return -(-g.kh // g.stride_h) * -(-g.kw // g.stride_w) > STRETCH


def _extreme_gradient(kind: str, dy: Array, x: Array, g: PoolGeometry) -> Array:
    if sums_are_long(g) and dy.itemsize < 8:
        wide = converted(dy, np.float64), converted(x, np.float64)
        return rounded(_extreme_gradient(kind, *wide, g), dy)
    dx = empty_like_type(dy, *g.input_shape)
    flat_dy, flat_x, flat_dx = readable(dy).reshape(-1), readable(x).reshape(-1), dx.reshape(-1)
    arguments: tuple[Any, ...]
    if streams(kind, g, dx):
        function, items = _streamed_gradient(*_sides(g, x.itemsize), g.kh), g.n * _blocks(g)
        pending = empty_like_type(dy, items * g.w * g.c)
        arguments = flat_dy, flat_x, flat_dx, pending, _blocks(g), record(g)
    else:
        function, items = gradient_kernel(kind, g, x.itemsize)
        arguments = flat_dy, flat_x, flat_dx, record(g)
    parallel_for(function, items, 2 * _work(g), *arguments)
    return dx


def streams(kind: str, g: PoolGeometry, dx: Array) -> bool:
    """Whether the gradient is written past the cache: large, of the usual windows, aligned."""
    vectors, lanes = _sides(g, dx.itemsize)
    usual = any(_unrolled(kind, g, dx.itemsize)) and (g.stride_h, g.stride_w) == (2, 2)
    whole = g.c % (vectors * lanes) == 0 and dx.ctypes.data % (lanes * dx.itemsize) == 0
    covered = g.oh * 2 - 2 - g.pad_top + g.kh >= g.h and g.ow * 2 - 2 - g.pad_left + g.kw >= g.w
    return usual and whole and covered and dx.nbytes >= BEYOND_CACHE


def _blocks(g: PoolGeometry) -> int:
    """Into how many blocks of rows an image is cut where its gradient is streamed."""
    return -(-g.h // _STREAMED_ROWS)


def _work(g: PoolGeometry) -> int:
    return g.n * g.oh * g.ow * g.c * g.kh * g.kw


def _sides(g: PoolGeometry, itemsize: int, usual: bool = False) -> tuple[int, int]:
    """Vectors and lanes of a tile: two kinds, so that few kernels are compiled.

    The usual windows have a third, for channels that fill half a vector: without masks the way
    back through 2×2 on 26×26×8 takes 1.1 µs an image instead of 1.4.
    """
    lanes = registers().vector_bytes // itemsize
    if usual and lanes > 8 and g.c <= lanes // 2:
        return 1, lanes // 2
    return 4 if g.c > 2 * lanes else 1, lanes


def _unrolled(kind: str, g: PoolGeometry, itemsize: int) -> tuple[int, int]:
    """The window, where it is one that kernels are compiled for, else zeros.

    Inside the image its loops are unrolled (2×2 on 26×26×8, backward: 1.3 µs an image instead of
    2.3). For the usual pooling alone: each such kernel takes a second to compile.
    """
    usual = kind == "max" and itemsize == 4 and (g.kh, g.kw) in _WINDOWS
    return (g.kh, g.kw) if usual else (0, 0)


@device
def _geometry(r: Any) -> PoolGeometry:
    """The record's numbers, read once: in loops that store they would be read again and again."""
    return PoolGeometry(
        r.n, r.h, r.w, r.c, r.kh, r.kw, r.oh, r.ow, r.stride_h, r.stride_w,
        r.pad_top, r.pad_bottom, r.pad_left, r.pad_right,
    )  # fmt: skip


@device
def _clipped(place: int, stride: int, pad: int, k: int, size: int) -> Any:
    """First and last pixel (exclusive) of a window that lie in the image, along one side."""
    first = place * stride - pad
    return max(first, 0), min(first + k, size)


@device
def _whole(count: int, stride: int, pad: int, k: int, size: int) -> Any:
    """First and last window (exclusive) that lie in the image whole, along one side."""
    first = min(count, (pad + stride - 1) // stride)
    return first, max(first, min(count, (size - k + pad) // stride + 1))


@kernel_factory
def _extreme_rows(largest: bool, vectors: int, lanes: int, kh: int, kw: int) -> Any:
    width = vectors * lanes

    @device
    def window_of(
        x: Any, at: int, line: int, pixel: int, columns: int, rows: int, pixels: int
    ) -> Any:
        best = tile_from_row(1, vectors, lanes, x, at, columns)
        for i in range(rows):
            for j in range(pixels):
                place = at + i * line + j * pixel
                value = tile_from_row(1, vectors, lanes, x, place, columns)
                best = tile_best(largest, value, best)
        return best

    @device
    def window_of_numbers(x: Any, at: int, line: int, pixel: int, columns: int) -> Any:
        """The same where there is no NaN, and a sum that is NaN where there is one.

        2×2 on 28×28×8: 0.65 µs an image instead of 0.83. With nine pixels the sum takes longer
        than it saves.
        """
        best = tile_from_row(1, vectors, lanes, x, at, columns)
        total = best
        for i in range(kh):
            for j in range(i == 0, kw):
                place = at + i * line + j * pixel
                value = tile_from_row(1, vectors, lanes, x, place, columns)
                best = tile_best_of_numbers(largest, value, best)
                total = tile_sum(total, value)
        return best, total

    @kernel
    def extreme_rows(start: int, stop: int, x: Any, y: Any, numbers: Any) -> None:
        g = _geometry(numbers[0])
        line, step = g.w * g.c, g.stride_w * g.c
        first_whole, last_whole = _whole(g.ow, g.stride_w, g.pad_left, g.kw, g.w)
        for row in range(start, stop):
            n, oh = row // g.oh, row % g.oh
            top, bottom = _clipped(oh, g.stride_h, g.pad_top, g.kh, g.h)
            inside = kh > 0 and bottom - top == kh and first_whole < last_whole
            for c in range(0, g.c, width):
                columns = min(width, g.c - c)
                ow = 0
                while ow < g.ow:
                    left, right = _clipped(ow, g.stride_w, g.pad_left, g.kw, g.w)
                    at = ((n * g.h + top) * g.w + left) * g.c + c
                    to = (row * g.ow + ow) * g.c + c
                    if inside and first_whole <= ow < last_whole:
                        all_numbers = True
                        while all_numbers and ow < last_whole:
                            if kh == 2:
                                best, total = window_of_numbers(x, at, line, g.c, columns)
                                all_numbers = not tile_has_nan(total)
                            else:
                                best = window_of(x, at, line, g.c, columns, kh, kw)
                            if all_numbers:
                                tile_store(best, y, rows_line(1, to, 0), 0, columns)
                                at += step
                                to += g.c
                                ow += 1
                        if all_numbers:
                            continue
                        left, right = 0, kw
                    best = window_of(x, at, line, g.c, columns, bottom - top, right - left)
                    tile_store(best, y, rows_line(1, to, 0), 0, columns)
                    ow += 1

    return extreme_rows


@kernel_factory
def _average_rows(vectors: int, lanes: int, long_sums: bool) -> Any:
    """The kernel; ``long_sums``: of windows that hold more pixels than a stretch has terms."""
    width = vectors * lanes

    @device
    def sum_of(x: Any, at: int, line: int, pixel: int, columns: int, rows: int, pixels: int) -> Any:
        total = tile_from_row(1, vectors, lanes, x, 0, 0)
        for i in range(rows):
            for j in range(pixels):
                place = at + i * line + j * pixel
                total = tile_sum(total, tile_from_row(1, vectors, lanes, x, place, columns))
        return total

    @device
    def long_sum_of(
        x: Any, at: int, line: int, pixel: int, columns: int, rows: int, pixels: int, totals: Any
    ) -> Any:
        """The same in stretches: some rows of the window, or a part of one."""
        some_rows, some_pixels = max(1, STRETCH // pixels), min(STRETCH, pixels)
        total = tile_from_row(1, vectors, lanes, x, 0, 0)
        totals_begin(total, totals, 0)
        for i in range(0, rows, some_rows):
            for j in range(0, pixels, some_pixels):
                place = at + i * line + j * pixel
                height, length = min(some_rows, rows - i), min(some_pixels, pixels - j)
                totals_add(sum_of(x, place, line, pixel, columns, height, length), totals, 0)
        return totals_end(total, totals, 0)

    room = width if long_sums else 1

    @kernel
    def average_rows(start: int, stop: int, x: Any, y: Any, numbers: Any) -> None:
        g, totals = _geometry(numbers[0]), totals_room(room)
        line = g.w * g.c
        for row in range(start, stop):
            n, oh = row // g.oh, row % g.oh
            top, bottom = _clipped(oh, g.stride_h, g.pad_top, g.kh, g.h)
            for ow in range(g.ow):
                left, right = _clipped(ow, g.stride_w, g.pad_left, g.kw, g.w)
                rows, pixels = bottom - top, right - left
                for c in range(0, g.c, width):
                    columns = min(width, g.c - c)
                    at = ((n * g.h + top) * g.w + left) * g.c + c
                    if long_sums:
                        total = long_sum_of(x, at, line, g.c, columns, rows, pixels, totals)
                    else:
                        total = sum_of(x, at, line, g.c, columns, rows, pixels)
                    mean = tile_quotient(total, (bottom - top) * (right - left))
                    tile_store(mean, y, rows_line(1, (row * g.ow + ow) * g.c + c, 0), 0, columns)

    return average_rows


@device
def _item(item: int, g: Any) -> Any:
    """Image and rows of an item of a gradient, and the windows that reach into these rows."""
    blocks = (g.h + _ROWS - 1) // _ROWS
    n, first = item // blocks, item % blocks * _ROWS
    last = min(first + _ROWS, g.h)
    # Window oh covers rows oh * S - P to oh * S - P + KH - 1.
    first_window = max(0, (first + g.pad_top - g.kh) // g.stride_h + 1)
    last_window = min(g.oh, (last - 1 + g.pad_top) // g.stride_h + 1)
    return n, first, last, first_window, last_window


@device
def _covered(place: int, stride: int, pad: int, k: int, first: int, clipped: int) -> Any:
    """How many pixels of a window, clipped along one side, windows since ``first`` have met."""
    return max((place - 1) * stride - pad + k - clipped, 0) if place > first else 0


@device
def _meets_all(count: int, stride: int, pad: int, k: int, size: int) -> Any:
    """Whether each of ``size`` pixels lies in a window, along one side."""
    return stride <= k and (count - 1) * stride - pad + k >= size


@kernel_factory
def _extreme_gradient_rows(largest: bool, vectors: int, lanes: int, kh: int, kw: int) -> Any:
    width = vectors * lanes

    @device
    def place_in(
        x: Any, at: int, line: int, pixel: int, columns: int, rows: int, pixels: int
    ) -> Any:
        """Which pixel of the window is the best, by its number in it."""
        place = tile_from_row(1, vectors, lanes, x, 0, 0)
        best = tile_from_row(1, vectors, lanes, x, at, columns)
        for i in range(rows):
            for j in range(pixels):
                source = at + i * line + j * pixel
                value = tile_from_row(1, vectors, lanes, x, source, columns)
                place = tile_place(largest, value, best, place, i * pixels + j)
                best = tile_best(largest, value, best)
        return place

    @device
    def place_among_numbers(x: Any, at: int, line: int, pixel: int, columns: int) -> Any:
        """The same where there is no NaN, and a sum that is NaN where there is one."""
        place = tile_from_row(1, vectors, lanes, x, 0, 0)
        best = tile_from_row(1, vectors, lanes, x, at, columns)
        total = best
        for i in range(kh):
            for j in range(i == 0, kw):
                source = at + i * line + j * pixel
                value = tile_from_row(1, vectors, lanes, x, source, columns)
                place = tile_place_of_numbers(largest, value, best, place, i * kw + j)
                best = tile_best_of_numbers(largest, value, best)
                total = tile_sum(total, value)
        return place, total

    @device
    def hand_out(
        dy: Any, dx: Any, place: Any, shared: int, at: int, line: int, pixel: int, columns: int,
        pixels: int, first: int, last: int, met_rows: int, met_pixels: int,
    ) -> None:  # fmt: skip
        share = tile_from_row(1, vectors, lanes, dy, shared, columns)
        for i in range(first, last):
            for j in range(pixels):
                target = at + i * line + j * pixel
                new = tile_where(share, place, i * pixels + j)
                if i < met_rows or j < met_pixels:
                    old = tile_from_row(1, vectors, lanes, dx, target, columns)
                    new = tile_sum(old, new)
                tile_store(new, dx, rows_line(1, target, 0), 0, columns)

    @kernel
    def extreme_gradient_rows(
        start: int, stop: int, dy: Any, x: Any, dx: Any, numbers: Any
    ) -> None:
        g = _geometry(numbers[0])
        line, step = g.w * g.c, g.stride_w * g.c
        first_whole, last_whole = _whole(g.ow, g.stride_w, g.pad_left, g.kw, g.w)
        # What a window shares with the one before it; the first of all shares nothing.
        overlap = max(g.kw - g.stride_w, 0)
        if overlap:
            first_whole = max(first_whole, 1)
        unrolled = kh > 0 and first_whole < last_whole
        if kh == 2:  # such windows are unrolled as ones that share no pixel
            unrolled &= overlap == 0 and g.stride_h >= kh
        whole = _meets_all(g.oh, g.stride_h, g.pad_top, g.kh, g.h)
        whole &= _meets_all(g.ow, g.stride_w, g.pad_left, g.kw, g.w)
        for item in range(start, stop):
            n, first, last, first_window, last_window = _item(item, g)
            if not whole:
                zero_run(dx, (n * g.h + first) * line, (last - first) * line)
            for oh in range(first_window, last_window):
                top, bottom = _clipped(oh, g.stride_h, g.pad_top, g.kh, g.h)
                inside = unrolled and bottom - top == kh and first <= top and bottom <= last
                met_rows = _covered(oh, g.stride_h, g.pad_top, g.kh, first_window, top)
                for c in range(0, g.c, width):
                    columns = min(width, g.c - c)
                    ow = 0
                    while ow < g.ow:
                        left, right = _clipped(ow, g.stride_w, g.pad_left, g.kw, g.w)
                        met_pixels = _covered(ow, g.stride_w, g.pad_left, g.kw, 0, left)
                        at = ((n * g.h + top) * g.w + left) * g.c + c
                        shared = ((n * g.oh + oh) * g.ow + ow) * g.c + c
                        if inside and first_whole <= ow < last_whole:
                            all_numbers = True
                            while all_numbers and ow < last_whole:
                                if kh == 2:
                                    place, total = place_among_numbers(x, at, line, g.c, columns)
                                    if tile_has_nan(total):
                                        all_numbers = False
                                        continue
                                    hand_out(
                                        dy, dx, place, shared, at, line, g.c, columns,
                                        kw, 0, kh, 0, 0,
                                    )  # fmt: skip
                                else:
                                    place = place_in(x, at, line, g.c, columns, kh, kw)
                                    hand_out(
                                        dy, dx, place, shared, at, line, g.c, columns,
                                        kw, 0, kh, met_rows, overlap,
                                    )  # fmt: skip
                                at += step
                                shared += g.c
                                ow += 1
                            if all_numbers:
                                continue
                            left, right, met_pixels = 0, kw, overlap
                        pixels = right - left
                        place = place_in(x, at, line, g.c, columns, bottom - top, pixels)
                        low, high = max(first - top, 0), min(bottom, last) - top
                        hand_out(
                            dy, dx, place, shared, at, line, g.c, columns,
                            pixels, low, high, met_rows, met_pixels,
                        )  # fmt: skip
                        ow += 1

    return extreme_gradient_rows


@kernel_factory
def _placed_gradient(vectors: int, lanes: int) -> Any:
    """The kernel; an item is a row of windows, the last of an image has the pixels below too."""
    width = vectors * lanes

    @kernel
    def placed_gradient(start: int, stop: int, dy: Any, places: Any, dx: Any, numbers: Any) -> None:
        g = _geometry(numbers[0])
        line = g.w * g.c
        for row in range(start, stop):
            n, oh = row // g.oh, row % g.oh
            first = (n * g.h + 2 * oh) * line
            for c in range(0, g.c, width):
                columns = min(width, g.c - c)
                at, to = row * g.ow * g.c + c, first + c
                for _ in range(g.ow):
                    share = tile_from_row(1, vectors, lanes, dy, at, columns)
                    place = tile_from_row(1, vectors, lanes, places, at, columns)
                    for i in range(2):
                        for j in range(2):
                            part = tile_where(share, place, 2 * i + j)
                            target = rows_line(1, to + i * line + j * g.c, 0)
                            tile_store(part, dx, target, 0, columns)
                    at += g.c
                    to += 2 * g.c
            # What no window has.
            rest = (g.w - 2 * g.ow) * g.c
            if rest > 0:
                for i in range(2):
                    zero_run(dx, first + (i + 1) * line - rest, rest)
            if oh == g.oh - 1 and g.h > 2 * g.oh:
                zero_run(dx, first + 2 * line, (g.h - 2 * g.oh) * line)

    return placed_gradient


@kernel_factory
def _streamed_gradient(vectors: int, lanes: int, k: int) -> Any:
    width = vectors * lanes

    @device
    def load(array: Any, at: int) -> Any:
        return tile_from_row(1, vectors, lanes, array, at, width)

    @device
    def window_of(
        dy: Any, x: Any, dx: Any, pending: Any, at: int, place_pending: int, shared: int,
        line: int, pixel: int, i0: int, i1: int, j0: int, j1: int,
        top: bool, middle: bool, bottom: bool, a: Any, b: Any, c: Any,
    ) -> Any:  # fmt: skip
        """A window's rows i0 to i1 and columns j0 to j1, those in the image.

        ``a``, ``b`` and ``c`` are what its first column has got so far, in each row; they return
        as those of the next window, two columns on.
        """
        first = i0 * k + j0
        place = tile_from_row(1, vectors, lanes, x, 0, 0)
        best = load(x, at + i0 * line + j0 * pixel)
        for i in range(i0, i1):
            for j in range(j0, j1):
                value = load(x, at + i * line + j * pixel)
                place = tile_place(True, value, best, place, i * k + j - first)
                best = tile_best(True, value, best)
                if k == 3 and j < 2:
                    ahead = at + i * line + (j + _AHEAD) * pixel
                    expect_load(value, x, rows_line(1, ahead, 0), 0)
        share = load(dy, shared)
        below, right = at + line, at + pixel
        if top:
            if j0 == 0:
                tile_stream(tile_sum(a, tile_where(share, place, -first)), dx, at)
            if j0 <= 1 and j1 > 1:
                new = tile_where(share, place, 1 - first)
                if k == 3:
                    new = tile_sum(load(pending, place_pending + pixel), new)
                tile_stream(new, dx, right)
        if middle:
            if j0 == 0:
                tile_stream(tile_sum(b, tile_where(share, place, k - first)), dx, below)
            if j0 <= 1 and j1 > 1:
                tile_stream(tile_where(share, place, k + 1 - first), dx, below + pixel)
        if k == 2:
            return a, b, c
        if bottom:
            if j0 == 0:
                new = tile_sum(c, tile_where(share, place, 2 * k - first))
                tile_store(new, pending, rows_line(1, place_pending, 0), 0, width)
            if j0 <= 1 and j1 > 1:
                new = tile_where(share, place, 2 * k + 1 - first)
                tile_store(new, pending, rows_line(1, place_pending + pixel, 0), 0, width)
        if j1 == k:
            above = load(pending, place_pending + 2 * pixel)
            a = tile_sum(above, tile_where(share, place, 2 - first))
        b = tile_where(share, place, k + 2 - first)
        c = tile_where(share, place, 2 * k + 2 - first)
        return a, b, c

    @kernel
    def streamed_gradient(
        start: int, stop: int, dy: Any, x: Any, dx: Any, pending: Any, blocks: int, numbers: Any
    ) -> None:
        g = _geometry(numbers[0])
        line, pixel = g.w * g.c, g.c
        # What the next row of windows adds to: of each part of the items, its first one's.
        first_pending = start * line
        for item in range(start, stop):
            n, block = item // blocks, item % blocks
            first, last = g.h * block // blocks, g.h * (block + 1) // blocks
            first_window = max(0, (first + g.pad_top - k) // 2 + 1)
            last_window = min(g.oh, (last - 1 + g.pad_top) // 2 + 1)
            if k == 3:
                zero_run(pending, first_pending, line)
            for oh in range(first_window, last_window):
                row = oh * 2 - g.pad_top
                i0, i1 = max(-row, 0), min(k, g.h - row)
                inside = i0 == 0 and i1 == k
                top, middle = first <= row < last, first <= row + 1 < last
                bottom = first <= row + 2 < last
                for channel in range(0, g.c, width):
                    at = ((n * g.h + row) * g.w - g.pad_left) * g.c + channel
                    place = first_pending - g.pad_left * g.c + channel
                    shared = (n * g.oh + oh) * g.ow * g.c + channel
                    b = tile_from_row(1, vectors, lanes, x, 0, 0)
                    a, c = b, b
                    if k == 3 and g.pad_left == 0:
                        a = load(pending, place)
                    for ow in range(g.ow):
                        left = ow * 2 - g.pad_left
                        j0, j1 = max(-left, 0), min(k, g.w - left)
                        if inside and j0 == 0 and j1 == k:
                            a, b, c = window_of(
                                dy, x, dx, pending, at, place, shared, line, pixel,
                                0, k, 0, k, top, middle, bottom, a, b, c,
                            )  # fmt: skip
                        else:
                            a, b, c = window_of(
                                dy, x, dx, pending, at, place, shared, line, pixel,
                                i0, i1, j0, j1, top, middle, bottom, a, b, c,
                            )  # fmt: skip
                        at += 2 * pixel
                        place += 2 * pixel
                        shared += pixel
                    if g.ow * 2 - g.pad_left < g.w:
                        if top:
                            tile_stream(a, dx, at)
                        if middle:
                            tile_stream(b, dx, at + line)
                        if bottom:
                            tile_store(c, pending, rows_line(1, place, 0), 0, width)
            row = last_window * 2 - g.pad_top
            if row < last:
                for i in range(0, line, width):
                    tile_stream(load(pending, first_pending + i), dx, (n * g.h + row) * line + i)
        stores_done()

    return streamed_gradient


@kernel_factory
def _average_gradient(vectors: int, lanes: int) -> Any:
    width = vectors * lanes

    @kernel
    def average_gradient(start: int, stop: int, dy: Any, dx: Any, numbers: Any) -> None:
        g = _geometry(numbers[0])
        for item in range(start, stop):
            n, first, last, first_window, last_window = _item(item, g)
            zero_run(dx, (n * g.h + first) * g.w * g.c, (last - first) * g.w * g.c)
            for oh in range(first_window, last_window):
                top, bottom = _clipped(oh, g.stride_h, g.pad_top, g.kh, g.h)
                for ow in range(g.ow):
                    left, right = _clipped(ow, g.stride_w, g.pad_left, g.kw, g.w)
                    pixels = (bottom - top) * (right - left)
                    for c in range(0, g.c, width):
                        columns = min(width, g.c - c)
                        at = ((n * g.oh + oh) * g.ow + ow) * g.c + c
                        share = tile_from_row(1, vectors, lanes, dy, at, columns)
                        share = tile_quotient(share, pixels)
                        for ih in range(max(top, first), min(bottom, last)):
                            for iw in range(left, right):
                                at = ((n * g.h + ih) * g.w + iw) * g.c + c
                                old = tile_from_row(1, vectors, lanes, dx, at, columns)
                                new = tile_sum(old, share)
                                tile_store(new, dx, rows_line(1, at, 0), 0, columns)

    return average_gradient
