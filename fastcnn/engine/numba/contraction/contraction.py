"""Contractions: the sum behind convolutions and dense layers, and its general kernel.

    y[in_y(row) + column] = b[column] + Σ_step x[in_x(row) + in_x(step)] · w[in_w(step) + column]

A convolution is this sum: rows are output pixels, steps are filter taps and input channels. So are
its gradient of the input (rows: input pixels of one phase of the stride; steps: taps and output
channels), its gradient of the filters (rows: taps and input channels; steps: output pixels) and a
dense layer (rows: samples; steps: inputs). No matrix is built. The offsets are affine in at most
three counters, so a register tile (:mod:`fastcnn.engine.numba.tiles`) reads the images where they
lie.

In an elementwise contraction each column has an input of its own, ``x[… + column]``. The gradient
of the filters of a depthwise convolution is one.

Each number of ``y`` is summed in the order of the steps, starting from the bias. The tile that
computes it and the thread that runs the tile do not change the order. A sum of more steps than a
stretch has (:mod:`fastcnn.core.long_sums`) is taken in stretches: at the end of each stretch, the
accumulators are added to totals in float64 on the stack, and begin again at 0.

**Cache.** An item is one block of columns by several tiles of rows. Items follow each other so that
the smaller of both operands stays in the second-level cache: all blocks of ``w`` where these fit
into it, else the rows. While a block of packed weights is read, the next one is fetched
(docs/measurements.md, "Weights come before they are used"). Passes over a part of the steps do not
pay (the same, "Sums run over all steps at once").

:mod:`.chooser` says which kernel serves a contraction; the other kernels are in :mod:`.lines` and
:mod:`.few_steps`.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import CACHE_LINE, L2_BYTES
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.epilogue import Epilogue, fused_epilogue
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import DeviceFunction, Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_relu
from fastcnn.engine.numba.tiles.column_products import products
from fastcnn.engine.numba.tiles.loads_and_stores import (
    expect_load,
    expect_store,
    fetch,
    tile_from_row,
    tile_store,
    tile_store_rows,
)
from fastcnn.engine.numba.tiles.products import rank1, rank1_masked
from fastcnn.engine.numba.tiles.rows import rows_line, rows_walk
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

GRAIN = 16
"""Tiles of an item, at most. An item has fewer where there would be too few items to share out."""
ITEMS, ITEM_WORK = 32, 25_000
"""A contraction has an item for each ITEM_WORK of its work, and ITEMS at most."""
CACHE_BYTES = L2_BYTES // 2
"""Bytes that count as fitting into the second-level cache, beside all else that a kernel reads."""
_FAR_BYTES = L2_BYTES // 8
"""A result of more bytes has left the second-level cache since its memory was used before."""


class Rows(NamedTuple):
    """Rows of a group count over (a, b, c), in row-major order, with strides in x and y."""

    a: int
    b: int
    c: int
    x_start: int
    x_a: int
    x_b: int
    x_c: int
    y_start: int
    y_a: int
    y_b: int
    y_c: int


class Steps(NamedTuple):
    """Steps of a sum count over (a, b) and a run of equal strides; no extent is 0.

    A run of more steps than :data:`~fastcnn.core.long_sums.STRETCH` is cut into pieces: all steps
    a and b are taken with the first piece, then with the second. A stretch of the sum has
    ``stretch`` runs; 0 where the sum has one stretch alone.
    """

    a: int
    b: int
    run: int
    x_a: int
    x_b: int
    x_run: int
    w_a: int
    w_b: int
    w_run: int
    stretch: int = 0


class Columns(NamedTuple):
    """Columns of a group, and where their weights begin.

    The weights of the next block of columns lie ``w_block`` further; 0 stands for the columns of
    the tile, which is right for weights as they lie.
    """

    total: int
    w_start: int = 0
    w_block: int = 0


class Groups(NamedTuple):
    """Groups repeat the whole contraction with other starts."""

    total: int = 1
    x: int = 0
    y: int = 0
    w: int = 0


class ImageRows(NamedTuple):
    """Rows of the images as they are laid out: those from ``first`` to before ``last`` are real.

    Step a of rows b reads image row ``start + b * by_row + a * by_step``. A kernel skips the step
    if that row is padding for all of a tile. By the defaults every step reads row 0, which is real,
    so no step is skipped.
    """

    first: int = 0
    last: int = 1
    start: int = 0
    by_row: int = 0
    by_step: int = 0


class Schedule(NamedTuple):
    """How the work is cut up, and what a kernel may rely on.

    Attributes:
        grain: tiles of an item.
        blocks_first: the next item is the next block of the same rows, else the next rows of the
            same block.
        y_line: the rows of ``y`` lie ``y_c`` apart throughout.
        far: the result is so large that the second-level cache may not hold its place in memory, so
            cache lines of y, and of x where a window moves on, are fetched before they are used.
        fetches: the weights lie in blocks of columns, and the next block is fetched while this one
            is read.
        argmax: a pooled contraction also writes where each of its numbers comes from.
    """

    grain: int = 1
    blocks_first: bool = False
    y_line: bool = False
    far: bool = False
    fetches: bool = False
    argmax: bool = False


class Contraction(NamedTuple):
    """Extents and offsets, in elements. Kernels read it as one record of records."""

    rows: Rows
    steps: Steps
    columns: Columns
    groups: Groups = Groups()
    image_rows: ImageRows = ImageRows()
    schedule: Schedule = Schedule()
    epilogue: Epilogue = Epilogue()

    @property
    def row_count(self) -> int:
        """Rows of a group."""
        return self.rows.a * self.rows.b * self.rows.c

    @property
    def step_count(self) -> int:
        """Steps of each sum."""
        return self.steps.a * self.steps.b * self.steps.run

    @property
    def size(self) -> int:
        """Numbers of the result."""
        return self.groups.total * self.row_count * self.columns.total

    @property
    def work(self) -> int:
        """The work as the thread driver counts it: one for two multiply-adds."""
        return self.size * self.step_count // 2

    @property
    def y_in_line(self) -> bool:
        """Whether the rows of ``y`` lie equally far apart throughout."""
        rows = self.rows
        return (rows.b == 1 or rows.y_b == rows.c * rows.y_c) and (
            rows.a == 1 or rows.y_a == rows.b * rows.c * rows.y_c
        )


class Tile(NamedTuple):
    """Sides of a register tile: rows × vectors of lanes."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Columns that it covers."""
        return self.vectors * self.lanes


class Plan(NamedTuple):
    """A contraction that is ready to run.

    Attributes:
        function: the kernel.
        items: how many items its range has.
        work: its operations, as the thread driver counts them.
        numbers: the record of the :class:`Contraction`, or of the kernel's own sizes.
    """

    function: Kernel
    items: int
    work: int
    numbers: Array


class Arrays(NamedTuple):
    """The flat arrays of a kernel; a fused kernel alone reads ``residual``."""

    x: Array
    w: Array
    b: Array
    y: Array
    residual: Array


class TileOffsets(NamedTuple):
    """Where a tile, or a block of columns, begins in each operand; each kernel says which."""

    x: int
    w: int
    b: int
    y: int


def product(rows: int, columns: int, steps: int, x: tuple[int, int], w_step: int) -> Contraction:
    """A matrix product; ``x`` is how far its rows and steps lie apart in x."""
    return Contraction(
        Rows(1, 1, rows, 0, 0, 0, x[0], 0, 0, 0, columns),
        Steps(1, 1, steps, 0, 0, x[1], 0, 0, w_step),
        Columns(columns),
    )


def in_stretches(c: Contraction) -> Contraction:
    """The same with a long sum cut into stretches.

    The kernel then skips no padding, because a stretch must end after the same steps in every tile.
    """
    if c.step_count <= STRETCH:
        return c
    stretch = max(1, STRETCH // c.steps.run)
    return c._replace(steps=c.steps._replace(stretch=stretch), image_rows=ImageRows())


def grain_of(c: Contraction, tiles: int, most: int) -> int:
    """Tiles of an item, of so many in all."""
    return min(most, max(1, tiles // min(ITEMS, 1 + c.work // ITEM_WORK)))


def with_schedule(c: Contraction, tile: Tile, itemsize: int, schedule: Schedule) -> Contraction:
    """The contraction with this schedule, in the order of items that suits the cache."""
    w_bytes = c.step_count * c.columns.total * itemsize
    return c._replace(
        columns=c.columns._replace(w_block=c.columns.w_block or tile.columns),
        schedule=schedule._replace(blocks_first=w_bytes <= L2_BYTES),
    )


def plan_contraction(
    c: Contraction,
    tile: Tile,
    itemsize: int,
    *,
    elementwise: bool = False,
    fused: Epilogue | None = None,
) -> Plan:
    """The plan of the general kernel; with ``fused``, of the kernel that has this epilogue."""
    c = in_stretches(c)
    tiles = -(-c.row_count // tile.rows)
    blocks = -(-c.columns.total // tile.columns)
    items = -(-tiles // grain_of(c, c.groups.total * blocks * tiles, GRAIN))
    grain = -(-tiles // items)  # equal items, so that threads get equal work
    schedule = Schedule(
        grain,
        y_line=c.y_in_line,
        far=c.size * itemsize > _FAR_BYTES,
        fetches=fused is not None and c.columns.w_block >= c.step_count * tile.columns,
    )
    c = with_schedule(c, tile, itemsize, schedule)
    c = c._replace(epilogue=fused or Epilogue())
    # A mask on a single vector of w costs next to nothing, and saves a kernel.
    masked = tile.vectors == 1 or c.columns.total % tile.columns != 0
    function = _contraction(*tile, masked, elementwise, c.steps.stretch > 0, fused is not None)
    return Plan(function, c.groups.total * blocks * -(-tiles // grain), c.work, record(c))


def contract(plan: Plan, x: Array, w: Array, b: Array, y: Array, relu: bool = False) -> None:
    """Run a plan on flat arrays; ``b`` holds a number for each column of each group."""
    parallel_for(plan.function, plan.items, plan.work, x, w, b, y, relu, plan.numbers)


@kernel_factory
def _contraction(
    rows: int,
    vectors: int,
    lanes: int,
    masked: bool,
    elementwise: bool,
    long_sums: bool,
    fused: bool,
) -> Kernel:
    """The general kernel: the rows of a tile lie anywhere.

    Reads x and w at the offsets of the record, b (groups, columns), writes y; all are flat. With
    ``masked``, the last block of columns is narrower than a tile. With ``long_sums``, sums have
    several stretches. These are kernels of their own, because full tiles leave no register for what
    stretches need (docs/measurements.md, "Long sums have kernels of their own"). With ``fused``,
    the kernel has an :class:`~.epilogue.Epilogue`, and an operand more, which lies as y does.
    """
    half = min(rows, rows // 2 + 1)
    width = vectors * lanes
    room = rows * width if long_sums else 1

    def make_tile(height: int) -> DeviceFunction:
        finish = fused_epilogue(height, vectors, lanes)

        @ordered_device
        def step(tile: Array, arrays: Arrays, in_x: Array, i: int, j: int, columns: int) -> Array:
            """The tile plus one step, which reads ``x[in_x[row] + i]`` and w from ``w[j]`` on."""
            if elementwise:
                tile = products(tile, arrays.x, in_x, i, arrays.w, j, columns, 0, height)
            elif masked:
                tile = rank1_masked(tile, arrays.x, in_x, i, arrays.w, j, columns)
            else:
                tile = rank1(tile, arrays.x, in_x, i, arrays.w, j)
            return tile

        @ordered_device
        def run_of_steps(
            tile: Array, arrays: Arrays, in_x: Array, i: int, j: int, columns: int, length: int,
            x_run: int, w_run: int, ahead: int,
        ) -> Array:  # fmt: skip
            """The tile plus ``length`` steps, ``x_run`` apart in x and ``w_run`` apart in w.

            If ``ahead`` is not 0, a cache line of w is fetched for each two steps, from
            ``w[ahead]`` on.
            """
            if fused and ahead:
                line = CACHE_LINE // arrays.w.itemsize
                for _ in range(length // 2):
                    fetch(arrays.w, ahead)
                    tile = step(tile, arrays, in_x, i, j, columns)
                    tile = step(tile, arrays, in_x, i + x_run, j + w_run, columns)
                    i += 2 * x_run
                    j += 2 * w_run
                    ahead += line
                length %= 2
            for _ in range(length):
                tile = step(tile, arrays, in_x, i, j, columns)
                i += x_run
                j += w_run
            return tile

        @ordered_device
        def fetched_by(length: int, w: Array, ahead: int) -> int:
            """How far ``ahead`` moves on with a run of ``length`` steps."""
            return length // 2 * (CACHE_LINE // w.itemsize) if ahead else 0

        @ordered_device
        def summed_in_stretches(
            in_x: Array, starts: TileOffsets, columns: int, arrays: Arrays, totals: int,
            steps: Steps, ahead: int,
        ) -> Array:  # fmt: skip
            """The tile's sums in the dtype of y, added in stretches to ``totals`` in float64.

            ``starts`` are indices of the arrays. ``in_x`` are offsets of the rows from
            ``starts.x``. The weights of the next block are fetched from ``ahead`` on.
            """
            b, steps_b, stretch = arrays.b, steps.b, steps.stretch
            x_a, x_b, x_run = steps.x_a, steps.x_b, steps.x_run
            w_a, w_b, w_run = steps.w_a, steps.w_b, steps.w_run
            run, runs = steps.run, steps.a * steps_b
            totals_begin(tile_from_row(height, vectors, lanes, b, 0, 0), totals, 0)
            for piece in range(0, run, STRETCH):
                for first in range(0, runs, stretch):
                    # Each stretch begins with a new tile, of the bias or of zeros, so that no
                    # register is in use between two stretches.
                    bias = columns if first == 0 and piece == 0 else 0
                    tile = tile_from_row(height, vectors, lanes, b, starts.b, bias)
                    stop, length = min(runs, first + stretch), min(run - piece, STRETCH)
                    for a in range(first // steps_b, (stop - 1) // steps_b + 1):
                        before = a * steps_b
                        i_a = starts.x + a * x_a + piece * x_run
                        j_a = starts.w + a * w_a + piece * w_run
                        for s in range(max(0, first - before), min(steps_b, stop - before)):
                            i, j = i_a + s * x_b, j_a + s * w_b
                            tile = run_of_steps(
                                tile, arrays, in_x, i, j, columns, length, x_run, w_run, ahead
                            )
                            ahead += fetched_by(length, arrays.w, ahead)
                    totals_add(tile, totals, 0)
            sums: Array = totals_end(tile_from_row(height, vectors, lanes, b, 0, 0), totals, 0)
            return sums

        @ordered_device
        def one_tile(
            point: tuple[int, int, int, int], left: int, before: int, starts: TileOffsets,
            columns: int, relu: bool, arrays: Arrays, totals: int, c: Contraction,
        ) -> None:  # fmt: skip
            """Compute and store a tile of ``height`` rows; the first ``left`` rows are in y.

            ``point`` is the index of the tile's first row in its group, and the same index as
            (a, b, c). ``before`` is how many tiles have read the same block of w since its first
            use. ``starts`` are the indices of the group's first row and first step in x, and of the
            first column of the block in w, b and y.
            """
            x, b, y, r, real = arrays.x, arrays.b, arrays.y, c.rows, c.image_rows
            first, row_a, row_b, row_c = point
            if row_c + height <= r.c:
                in_x = rows_line(height, row_a * r.x_a + row_b * r.x_b + row_c * r.x_c, r.x_c)
            else:
                in_x = rows_walk(height, row_a, row_b, row_c, left, r.b, r.c, r.x_a, r.x_b, r.x_c)
            tile = tile_from_row(height, vectors, lanes, b, starts.b, columns)
            # A tile that goes on into the next image has rows from the first to the last.
            next_image = row_b + (row_c + height - 1) // r.c >= r.b
            low_b = 0 if next_image else row_b
            high_b = r.b - 1 if next_image else row_b + (row_c + height - 1) // r.c
            if c.schedule.far and c.schedule.y_line:
                expect_store(tile, y, rows_line(height, first * r.y_c, r.y_c), starts.y)
            # Read fields once: loops would read them from memory again.
            steps_b, run = c.steps.b, c.steps.run
            x_a, x_b, x_run = c.steps.x_a, c.steps.x_b, c.steps.x_run
            w_a, w_b, w_run = c.steps.w_a, c.steps.w_b, c.steps.w_run
            # Each tile fetches a piece of the next block of w, until the block is complete.
            ahead = before * c.steps.a * steps_b * fetched_by(run, arrays.w, 1)
            if c.schedule.fetches and ahead < c.columns.w_block:
                ahead += starts.w + c.columns.w_block
            else:
                ahead = 0
            if long_sums:
                tile = summed_in_stretches(in_x, starts, columns, arrays, totals, c.steps, ahead)
            for a in range(0 if long_sums else c.steps.a):
                low = real.start + low_b * real.by_row + a * real.by_step
                high = low + (high_b - low_b) * real.by_row
                if high < real.first or low >= real.last:
                    continue
                # The last row of taps meets pixels that no earlier row has read. They are fetched
                # one row before, so that they arrive in time.
                if c.schedule.far and a + 2 == c.steps.a:
                    expect_load(tile, x, in_x, starts.x + (a + 1) * x_a + (steps_b - 1) * x_b)
                for s in range(steps_b):
                    i = starts.x + a * x_a + s * x_b
                    j = starts.w + a * w_a + s * w_b
                    tile = run_of_steps(tile, arrays, in_x, i, j, columns, run, x_run, w_run, ahead)
                    ahead += fetched_by(run, arrays.w, ahead)
            if fused:
                in_y = rows_walk(height, row_a, row_b, row_c, left, r.b, r.c, r.y_a, r.y_b, r.y_c)
                tile = finish(
                    tile, b, starts.b, c.groups.total * c.columns.total, arrays.residual, in_y,
                    starts.y, columns, relu, c.epilogue,
                )  # fmt: skip
            elif relu:
                tile = tile_relu(tile)
            if c.schedule.y_line:
                tile_store_rows(tile, y, starts.y + first * r.y_c, r.y_c, columns, left)
            else:
                in_y = rows_walk(height, row_a, row_b, row_c, left, r.b, r.c, r.y_a, r.y_b, r.y_c)
                tile_store(tile, y, in_y, starts.y, columns)

        return one_tile

    whole_tile = make_tile(rows)
    half_tile = whole_tile if half == rows else make_tile(half)

    @ordered_device
    def run_items(start: int, stop: int, arrays: Arrays, relu: bool, c: Contraction) -> None:
        """Write items ``start`` to ``stop``: each some tiles of rows by one block of columns."""
        totals = totals_room(room)
        rows_b, rows_c, count = c.rows.b, c.rows.c, c.columns.total
        total = c.rows.a * rows_b * rows_c
        grain = c.schedule.grain * rows
        pieces = (total + grain - 1) // grain
        blocks = (count + width - 1) // width
        for item in range(start, stop):
            group, in_group = item // (pieces * blocks), item % (pieces * blocks)
            if c.schedule.blocks_first:
                first, block = in_group // blocks * grain, in_group % blocks
            else:
                first, block = in_group % pieces * grain, in_group // pieces
            column = block * width
            columns = min(width, count - column)
            starts = TileOffsets(
                c.rows.x_start + group * c.groups.x + (column if elementwise else 0),
                c.columns.w_start + group * c.groups.w + block * c.columns.w_block,
                group * count + column,
                c.rows.y_start + group * c.groups.y + column,
            )
            last = min(first + grain, total)
            row_a, row_b, row_c = (
                first // rows_c // rows_b,
                first // rows_c % rows_b,
                first % rows_c,
            )
            first_of_block = first if c.schedule.blocks_first else 0
            while first < last:
                left, height = last - first, rows
                before = (first - first_of_block) // rows
                point = first, row_a, row_b, row_c
                if rows > 1 and (left <= half or rows < left <= 2 * half):  # two halves, no rest
                    height = half
                    half_tile(point, left, before, starts, columns, relu, arrays, totals, c)
                else:
                    whole_tile(point, left, before, starts, columns, relu, arrays, totals, c)
                first += height
                row_c += height
                while row_c >= rows_c:
                    row_c -= rows_c
                    row_b += 1
                    if row_b == rows_b:
                        row_b = 0
                        row_a += 1

    if fused:

        @ordered_kernel
        def contraction_fused(
            start: int, stop: int, x: Array, w: Array, b: Array, y: Array, residual: Array,
            relu: bool, numbers: Array,
        ) -> None:  # fmt: skip
            run_items(start, stop, Arrays(x, w, b, y, residual), relu, numbers[0])

        return contraction_fused

    @ordered_kernel
    def contraction(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, relu: bool, numbers: Array
    ) -> None:
        run_items(start, stop, Arrays(x, w, b, y, y), relu, numbers[0])

    return contraction
