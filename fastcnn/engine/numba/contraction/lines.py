"""The kernels of contractions whose tiles lie in lines, without and with 2×2 max-pooling.

The rows of a tile are neighbours in one or more lines of rows, so no row needs an offset of its
own. A tile of rows anywhere reads all offsets at each step if it is one vector wide, and to read
them takes nearly as long as the step. A wider tile reads them once, which costs where sums have few
steps (docs/measurements.md, "Rows of a tile lie in lines").

A row of taps is read at once where registers are few. On 16 registers a step reads as many numbers
as it has multiply-adds, and to read them takes instructions too. A row of taps reads each pixel
once, at constant offsets (docs/measurements.md, "A row of taps is one step"). On 32 registers a
tile has rows enough, and AVX-512 reads a number within the multiply-add.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import (
    GRAIN,
    Arrays,
    Contraction,
    Plan,
    Schedule,
    Tile,
    TileOffsets,
    grain_of,
    in_stretches,
    with_schedule,
)
from fastcnn.engine.numba.contraction.epilogue import Epilogue, fused_epilogue
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_relu
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store_rows
from fastcnn.engine.numba.tiles.pooling import (
    tile_has_nan,
    tile_pooled,
    tile_pooled_argmax,
    tile_pooled_argmax_of_numbers,
    tile_pooled_of_numbers,
)
from fastcnn.engine.numba.tiles.products import rank1_lines, rank1_taps
from fastcnn.engine.numba.tiles.rows import rows_line
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room


class Lines(NamedTuple):
    """Rows of a tile: ``lines`` of ``length`` rows each. With ``taps``, so many steps at once.

    The last tile of a line overlaps the tile before it. With ``mixed``, the last tiles have
    ``length - 2`` rows instead, so that all tiles together fill the line.
    """

    lines: int
    length: int
    taps: int = 0
    mixed: bool = False

    def __str__(self) -> str:
        lines = f"{self.lines} {'lines' if self.lines > 1 else 'line'} of {self.length}"
        lines += f" or {self.length - 2}" if self.mixed else ""
        return f"{lines}, {self.taps} taps" if self.taps else lines

    def tiles_of_line(self, rows: int) -> int:
        """Tiles of a line of so many rows."""
        return -(-rows // self.length)

    def fits(self, rows: int) -> bool:
        """Whether tiles can cover a line of so many rows."""
        if not self.mixed:
            return self.length <= rows
        excess = self.tiles_of_line(rows) * self.length - rows
        return excess % 2 == 0 and 0 < excess // 2 <= self.tiles_of_line(rows)

    def covered(self, rows: int) -> float:
        """Rows that tiles compute for each row of the line."""
        return 1.0 if self.mixed else self.tiles_of_line(rows) * self.length / rows


def plan_lines(
    c: Contraction,
    lines: Lines,
    tile: Tile,
    itemsize: int,
    *,
    pooled: bool = False,
    argmax: bool = False,
    fused: Epilogue | None = None,
) -> Plan:
    """The plan for a tile of these lines, with the vectors and lanes of ``tile``.

    With ``pooled``, ``y`` holds the largest number of each 2×2 rows: of b and b + 1, and of c and
    c + 1. It has half as many rows each way, ``rows.y_b`` and ``rows.y_c`` apart.
    """
    c = in_stretches(c)
    tiles = c.rows.a * c.rows.b // lines.lines * lines.tiles_of_line(c.rows.c)
    blocks = -(-c.columns.total // tile.columns)
    all_tiles = c.groups.total * blocks * tiles
    grain = grain_of(c, all_tiles, 2 * GRAIN)
    if lines.lines > 1 and c.rows.b == 1:
        r = c.rows
        c = c._replace(rows=r._replace(a=1, b=r.a, x_b=r.x_a, y_b=r.y_a))
    c = with_schedule(c, tile, itemsize, Schedule(grain, argmax=argmax))
    c = c._replace(epilogue=fused or Epilogue())
    sides = lines, tile.vectors, tile.lanes
    if fused is not None:
        function = _lines_fused(*sides, c.steps.stretch > 0)
    else:
        function = _lines_pooled(*sides) if pooled else _lines(*sides, c.steps.stretch > 0)
    return Plan(function, c.groups.total * blocks * -(-tiles // grain), c.work, record(c))


@kernel_factory
def _lines(lines: Lines, vectors: int, lanes: int, long_sums: bool) -> Kernel:
    """The kernel for tiles of lines; with ``long_sums``, sums have several stretches.

    Reads x and w at the offsets of the record, b (groups, columns), writes y; all are flat.
    """
    run_items = _items_of_lines(lines, vectors, lanes, pooled=False, long_sums=long_sums)

    @kernel
    def contraction_in_lines(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, relu: bool, numbers: Array
    ) -> None:
        run_items(start, stop, Arrays(x, w, b, y, y), y, relu, numbers[0])

    return contraction_in_lines


@kernel_factory
def _lines_fused(lines: Lines, vectors: int, lanes: int, long_sums: bool) -> Kernel:
    """The same with an :class:`~.epilogue.Epilogue`; ``residual`` lies as y does."""
    run_items = _items_of_lines(
        lines, vectors, lanes, pooled=False, long_sums=long_sums, fused=True
    )

    @kernel
    def contraction_in_lines_fused(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, residual: Array, relu: bool,
        numbers: Array,
    ) -> None:  # fmt: skip
        run_items(start, stop, Arrays(x, w, b, y, residual), y, relu, numbers[0])

    return contraction_in_lines_fused


@kernel_factory
def _lines_pooled(lines: Lines, vectors: int, lanes: int) -> Kernel:
    """The same with 2×2 max-pooling; ``argmax`` has the shape of y, and is written on demand."""
    run_items = _items_of_lines(lines, vectors, lanes, pooled=True, long_sums=False)

    @kernel
    def contraction_pooled(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, argmax: Array, relu: bool,
        numbers: Array,
    ) -> None:  # fmt: skip
        run_items(start, stop, Arrays(x, w, b, y, y), argmax, relu, numbers[0])

    return contraction_pooled


def _items_of_lines(
    sides: Lines, vectors: int, lanes: int, pooled: bool, long_sums: bool, fused: bool = False
) -> DeviceFunction:
    """``y = b + Σ x · w`` on flat arrays, for the items ``start`` to ``stop``; perhaps pooled."""
    lines, length, taps, mixed = sides
    width = vectors * lanes
    room = lines * length * width if long_sums else 1
    side = 2 if pooled else 1  # rows of the tile to one of the result, each way

    @device
    def summed_by_steps(
        tile: Array, i: int, j: int, ih: int, columns: int, arrays: Arrays, totals: int,
        c: Contraction,
    ) -> Array:  # fmt: skip
        """The tile plus all steps, from ``x[i]`` and ``w[j]`` on, which is image row ``ih``."""
        # Read fields once: loops would read them from memory again.
        x, w, x_b, x_c, real = arrays.x, arrays.w, c.rows.x_b, c.rows.x_c, c.image_rows
        run, steps_b = c.steps.run, c.steps.b
        step_x_a, step_x_b, step_x = c.steps.x_a, c.steps.x_b, c.steps.x_run
        step_w_a, step_w_b, step_w = c.steps.w_a, c.steps.w_b, c.steps.w_run
        first, last, by_step = real.first, real.last, real.by_step
        for _ in range(c.steps.a):
            # A step of one line is skipped if its image row is padding. Tiles of several lines read
            # several image rows in each step, so they skip nothing.
            if lines > 1 or first <= ih < last:
                i_b, j_b = i, j
                for _ in range(steps_b):
                    i_run, j_run = i_b, j_b
                    for _ in range(run):
                        tile = rank1_lines(lines, tile, x, i_run, x_b, x_c, w, j_run, columns)
                        i_run += step_x
                        j_run += step_w
                    i_b += step_x_b
                    j_b += step_w_b
            i += step_x_a
            j += step_w_a
            ih += by_step
        return tile

    @device
    def summed_in_stretches(
        tile: Array, i: int, j: int, ih: int, columns: int, arrays: Arrays, totals: int,
        c: Contraction,
    ) -> Array:  # fmt: skip
        """The same in stretches, added to ``totals`` in float64, for tiles of all rows.

        Tiles of other lines have no long sums.
        """
        x, w, x_b, x_c = arrays.x, arrays.w, c.rows.x_b, c.rows.x_c
        run, stretch, steps_b = c.steps.run, c.steps.stretch, c.steps.b
        step_x_a, step_x_b, step_x = c.steps.x_a, c.steps.x_b, c.steps.x_run
        step_w_a, step_w_b, step_w = c.steps.w_a, c.steps.w_b, c.steps.w_run
        runs = c.steps.a * steps_b
        totals_begin(tile, totals, 0)
        for piece in range(0, run, STRETCH):
            steps = min(run - piece, STRETCH)
            for first_run in range(0, runs, stretch):
                for number in range(first_run, min(runs, first_run + stretch)):
                    a, s = number // steps_b, number % steps_b
                    i_run = i + a * step_x_a + s * step_x_b + piece * step_x
                    j_run = j + a * step_w_a + s * step_w_b + piece * step_w
                    for _ in range(steps):
                        tile = rank1_lines(lines, tile, x, i_run, x_b, x_c, w, j_run, columns)
                        i_run += step_x
                        j_run += step_w
                tile = totals_add(tile, totals, 0)
        sums: Array = totals_end(tile, totals, 0)
        return sums

    @device
    def summed_by_rows_of_taps(
        tile: Array, i: int, j: int, ih: int, columns: int, arrays: Arrays, totals: int,
        c: Contraction,
    ) -> Array:  # fmt: skip
        """The tile plus all steps, a row of ``taps`` at a time; padding is not skipped."""
        x, w, x_b, step_w = arrays.x, arrays.w, c.rows.x_b, c.steps.w_run
        steps_a, step_x_a, step_w_a = c.steps.a, c.steps.x_a, c.steps.w_a
        if columns == width:  # without masks, which would take a register
            for _ in range(steps_a):
                tile = rank1_taps(taps, lines, tile, x, i, x_b, w, j, step_w, width)
                i += step_x_a
                j += step_w_a
        else:
            for _ in range(steps_a):
                tile = rank1_taps(taps, lines, tile, x, i, x_b, w, j, step_w, columns)
                i += step_x_a
                j += step_w_a
        return tile

    summed = summed_by_rows_of_taps if taps else summed_by_steps
    if long_sums:
        summed = summed_in_stretches

    def make_tile(length: int) -> DeviceFunction:
        height = lines * length
        results = height // (side * side)
        finish = fused_epilogue(height, vectors, lanes)

        @device
        def one_tile(
            starts: TileOffsets, ih: int, columns: int, relu: bool, arrays: Arrays, argmax: Array,
            totals: int, c: Contraction,
        ) -> None:  # fmt: skip
            """Compute and store a tile of ``height`` rows.

            ``starts`` are indices of the arrays: where the tile's first row begins in x, b and y,
            and its first step in w. ``ih`` is the image row of the first row and step.
            """
            tile = tile_from_row(height, vectors, lanes, arrays.b, starts.b, columns)
            tile = summed(tile, starts.x, starts.w, ih, columns, arrays, totals, c)
            result = tile
            if pooled:
                has_nan = tile_has_nan(tile)
                result = (
                    tile_pooled(length, tile) if has_nan else tile_pooled_of_numbers(length, tile)
                )
            if fused:
                in_y = rows_line(height, 0, c.rows.y_c)
                result = finish(
                    tile, arrays.b, starts.b, c.groups.total * c.columns.total, arrays.residual,
                    in_y, starts.y, columns, relu, c.epilogue,
                )  # fmt: skip
            elif relu:  # after pooling, so a zero may have another sign than with ReLU before it
                result = tile_relu(result)
            tile_store_rows(result, arrays.y, starts.y, c.rows.y_c, columns, results)
            if pooled and c.schedule.argmax:
                if has_nan:
                    result = tile_pooled_argmax(length, tile)
                else:
                    result = tile_pooled_argmax_of_numbers(length, tile)
                tile_store_rows(result, argmax, starts.y, c.rows.y_c, columns, results)

        return one_tile

    one_tile = make_tile(length)
    short_tile = make_tile(length - 2) if mixed else one_tile

    @device
    def run_items(
        start: int, stop: int, arrays: Arrays, argmax: Array, relu: bool, c: Contraction
    ) -> None:
        """Write items ``start`` to ``stop``: each some tiles of lines by one block of columns."""
        totals, r, grain, count = totals_room(room), c.rows, c.schedule.grain, c.columns.total
        tiles_of_line = (r.c + length - 1) // length
        # With ``mixed``: the first tile of a line that is two rows shorter.
        first_short = tiles_of_line - (tiles_of_line * length - r.c) // 2
        tiles = r.a * r.b // lines * tiles_of_line
        pieces = (tiles + grain - 1) // grain
        blocks = (count + width - 1) // width
        for item in range(start, stop):
            group, in_group = item // (pieces * blocks), item % (pieces * blocks)
            if c.schedule.blocks_first:
                tile, block = in_group // blocks * grain, in_group % blocks
            else:
                tile, block = in_group % pieces * grain, in_group // pieces
            columns = min(width, count - block * width)
            last = min(tile + grain, tiles)
            line, in_line = tile // tiles_of_line * lines, tile % tiles_of_line
            row_a, row_b = line // r.b, line % r.b
            x_start, y_start = r.x_start + group * c.groups.x, r.y_start + group * c.groups.y
            w_start = c.columns.w_start + group * c.groups.w + block * c.columns.w_block
            b_start = group * count + block * width
            y_start += block * width
            while tile < last:
                x_line = x_start + row_a * r.x_a + row_b * r.x_b
                y_line = y_start + row_a * r.y_a + row_b // side * r.y_b
                ih = c.image_rows.start + row_b * c.image_rows.by_row
                tiles_here = min(tiles_of_line - in_line, last - tile)
                for k in range(in_line, in_line + tiles_here):
                    short = mixed and k >= first_short
                    # The last tile of a line overlaps the tile before. Both write the same numbers.
                    first = min(k * length, r.c - length)
                    if short:
                        first = r.c - (tiles_of_line - k) * (length - 2)
                    starts = TileOffsets(
                        x_line + first * r.x_c, w_start, b_start, y_line + first // side * r.y_c
                    )
                    if short:
                        short_tile(starts, ih, columns, relu, arrays, argmax, totals, c)
                    else:
                        one_tile(starts, ih, columns, relu, arrays, argmax, totals, c)
                tile += tiles_here
                in_line = 0
                row_b += lines
                if row_b == r.b:
                    row_b = 0
                    row_a += 1

    return run_items
