"""The kernels of direct convolution: a contraction over computed offsets.

    y[at_y(row) + column] = b[column] + Σ_step x[at_x(row) + at_x(step)] · w[at_w(step) + column]

Convolution forward (rows: output pixels; steps: filter taps and input channels), its gradient of
the input (rows: input pixels of one phase of the stride; steps: taps and output channels), its
gradient of the filters (rows: taps and input channels; steps: output pixels) and the dense layer
are this sum with other offsets. No matrix is ever built: offsets are affine in at most three
counters, so the register tile of :mod:`fastcnn.engine.numba.tiles` reads the images where they
lie.

Short sums, and those of few columns, have a kernel of their own, whose tiles are rows in lines, so
that no row needs an offset: see :func:`lines_of`. It also gives the largest of each 2×2 rows in
place of them all: see :func:`plan_pooled`.

In an ``elementwise`` contraction each column has its own input, ``x[at_x(row) + at_x(step) +
column]``: depthwise convolution's gradient of the filters.

Each number of ``y`` is summed in the order of the steps, starting from the bias, whatever tile it
falls into and whichever thread computes it. A sum of more steps than a stretch has
(:mod:`fastcnn.core.long_sums`) is taken in stretches: at the end of each the tile's sums are added
to totals in float64, which lie on the stack, and begin again at 0.

**Cache.** An item is one block of columns by several tiles of rows, and the items follow each
other so that what fits into the second-level cache is passed over again and again: the blocks
of ``w`` if all of it fits, else the rows. With wide vectors neither packing ``w`` nor cutting the
steps into passes gained anything that paid for itself: with one short row of ``w`` read in the
caller's order at each step, 512 channels on 7×7 pixels reach 99 GFLOP/s on one core, packed
beforehand 107, in passes 69 (Zen 4, peak 117). See :func:`packing_pays` for narrow ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import L2_BYTES
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.inlining import device, ordered_device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import kernel, ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.tiles.arithmetic import tile_relu, tile_sum_scaled
from fastcnn.engine.numba.tiles.column_products import products
from fastcnn.engine.numba.tiles.loads_and_stores import (
    expect_load,
    expect_store,
    tile_from_row,
    tile_store,
    tile_store_rows,
)
from fastcnn.engine.numba.tiles.pooling import (
    tile_has_nan,
    tile_pooled,
    tile_pooled_of_numbers,
    tile_pooled_places,
    tile_pooled_places_of_numbers,
)
from fastcnn.engine.numba.tiles.products import rank1, rank1_lines, rank1_masked, rank1_taps
from fastcnn.engine.numba.tiles.rows import rows_line, rows_walk
from fastcnn.engine.numba.tiles.totals import totals_add, totals_begin, totals_end, totals_room

# Tiles of rows in one item, at most; fewer where that makes fewer items than there should be to
# share out: ITEMS, or one for each WORTH operations.
PART = 16
ITEMS, WORTH = 32, 25_000
# Rows that are few, and steps that are. Rows in one item of the latter.
FEW = 4
FEW_STEPS_PART = 256
# Vectors of a tile of one row: the many, if these are in registers at once and columns fill them.
ONE_ROW, ONE_LONG_ROW = 8, 16
# Rows of taps, and taps in a row, of filters that have a tile of their own.
WHOLE = ((3, 3), (5, 5))
# Taps in a row that are taken at once where registers are few, and pixels of a line in such tiles:
# of two lines that are pooled, by the taps, and of one. Of the longest some tiles of a line may be
# two shorter.
AT_A_TIME = (3, 5)
TWO_LINES, ONE_LINE = {3: (6, 4), 5: (4,)}, (8, 6)
# Bytes that count as fitting into the second-level cache, beside all else that a kernel reads.
CACHE_BYTES = L2_BYTES // 2


class Contraction(NamedTuple):
    """Extents and offsets, in elements; see the module's docstring.

    Rows count over (a, b, c), steps over (a, b) and a run of equal strides, all at least once.
    Groups repeat the whole with other starts.
    Items are ``part`` tiles by one block; with ``blocks_first`` the next item is the next block of
    the same rows, else the next rows of the same block. With ``y_line`` the rows of ``y`` lie
    ``y_c`` apart throughout. Step a of row b reads row ``real_start + b * real_b + a * real_step``
    of the images as they are laid out; where that is not from ``real_first`` to before
    ``real_last`` it is padding, and passed over if all of a tile's rows are. With ``far`` the
    result is larger than the second-level cache: its lines are fetched while their sums are made,
    and those of the images before their steps. If ``stretch`` is not 0, a stretch of the sum is so
    many runs. A run of more than :data:`~fastcnn.core.long_sums.STRETCH` steps is cut into pieces:
    all steps a and b are taken with the first piece, then with the second. With ``places`` a pooled
    one also says where each of its numbers comes from.
    """

    rows_a: int
    rows_b: int
    rows_c: int
    x_start: int
    x_a: int
    x_b: int
    x_c: int
    y_start: int
    y_a: int
    y_b: int
    y_c: int
    steps_a: int
    steps_b: int
    run: int
    step_x_a: int
    step_x_b: int
    step_x: int
    w_start: int
    step_w_a: int
    step_w_b: int
    step_w: int
    columns: int
    w_block: int
    real_first: int = 0
    real_last: int = 1
    real_start: int = 0
    real_b: int = 0
    real_step: int = 0
    part: int = 1
    blocks_first: bool = False
    y_line: bool = False
    far: bool = False
    groups: int = 1
    x_group: int = 0
    y_group: int = 0
    w_group: int = 0
    stretch: int = 0
    places: bool = False

    @property
    def rows(self) -> int:
        """How many rows a group has."""
        return self.rows_a * self.rows_b * self.rows_c

    @property
    def steps(self) -> int:
        """Steps of each sum."""
        return self.steps_a * self.steps_b * self.run

    @property
    def flops(self) -> int:
        """Operations of the whole, two for each product."""
        return 2 * self.groups * self.rows * self.steps * self.columns


class Tile(NamedTuple):
    """Sides of a register tile: rows × vectors of lanes."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Columns that it covers."""
        return self.vectors * self.lanes


def elementwise_tile(itemsize: int) -> Tile:
    """The tile of an elementwise contraction: one vector."""
    host = registers()
    return Tile(host.tile_rows, 1, host.vector_bytes // itemsize)


def tile_for(rows: int, columns: int, itemsize: int) -> Tile:
    """The tile for a problem of so many rows and columns.

    Full tiles for many columns; for few, one vector no wider than needed, since half of a full
    vector's lanes would idle for 8 columns. Where the rows are few, those that idle would cost
    more: for one or two (a dense layer at batch 1) the tile is one row of many vectors, and for few
    columns besides it has :data:`FEW` rows.
    """
    host = registers()
    lanes = host.vector_bytes // itemsize
    few_columns = columns <= 2 * lanes
    if rows <= 2 and not few_columns:
        width = ONE_LONG_ROW * lanes
        fits = host.number > ONE_LONG_ROW + 1 and -columns % width <= columns // 8
        return Tile(1, ONE_LONG_ROW if fits else ONE_ROW, lanes)
    if rows <= FEW and few_columns:
        return Tile(FEW, -(-columns // lanes), lanes)
    if columns > lanes:
        return Tile(host.tile_rows, host.tile_vectors, lanes)
    while lanes > 4 and columns <= lanes // 2:
        lanes //= 2
    return Tile(host.tile_rows, 1, lanes)


class Lines(NamedTuple):
    """Rows of a tile: ``lines`` of ``length`` rows each; ``taps`` steps at once, if not 0.

    The last tile of a line overlaps the one before. But if ``mixed`` the last tiles have but
    ``length - 2``, so that all together fill the line.
    """

    lines: int
    length: int
    taps: int = 0
    mixed: bool = False

    def __str__(self) -> str:
        lines = f"{self.lines} {'lines' if self.lines > 1 else 'line'} of {self.length}"
        lines += f" or {self.length - 2}" if self.mixed else ""
        return f"{lines}, {self.taps} taps" if self.taps else lines

    def of_line(self, rows: int) -> int:
        """Tiles of a line of so many rows."""
        return -(-rows // self.length)

    def fits(self, rows: int) -> bool:
        """Whether a line of so many rows can be cut so."""
        if not self.mixed:
            return self.length <= rows
        over = self.of_line(rows) * self.length - rows
        return over % 2 == 0 and 0 < over // 2 <= self.of_line(rows)

    def covered(self, rows: int) -> float:
        """How many rows are computed for each of a line."""
        return 1.0 if self.mixed else self.of_line(rows) * self.length / rows


def _of_taps(lines: int, lengths: tuple[int, ...], taps: int, rows: int) -> list[Lines]:
    """Tiles of these lengths for lines of so many rows, the longest also mixed."""
    found = [Lines(lines, length, taps) for length in lengths]
    if len(lengths) > 1:
        found.insert(1, found[0]._replace(mixed=True))
    return [one for one in found if one.fits(rows)]


def lines_of(c: Contraction, tile: Tile, itemsize: int) -> Lines | None:
    """How the rows of a tile lie in lines, where that is better than rows anywhere.

    Either the tile is all the rows of a group, the taps of a 3×3 or 5×5 filter on one channel; or
    it is a part of one line, whose last part overlaps the one before. It saves the offset of each
    row: on narrow vectors at each step, which is hardly longer than reading an offset; on others
    once for each tile, which shows where its steps are few (27 of them, 3 channels to 32 on 32×32
    pixels: 545 µs; with rows anywhere 612 in some processes and 800 in others, by where the system
    laid the code).
    """
    if tile.rows <= FEW:
        return None
    whole, most = Lines(c.rows_a * c.rows_b, c.rows_c), registers().tile_rows
    if whole[:2] in WHOLE and tile.vectors == 1 and c.rows <= 2 * most and _y_line(c):
        return whole
    if c.steps > STRETCH:
        return None
    if tile.vectors == 1 and (taps := taps_at_once(c)):
        fit = _of_taps(1, ONE_LINE, taps, c.rows_c)
        return min(fit, key=lambda one: (one.covered(c.rows_c), -one.length), default=None)
    if tile.vectors > 1 and most < 8:  # so few offsets have registers of their own
        return None
    steps = c.steps
    full = tile.lanes * itemsize == registers().vector_bytes
    best, found = 6 + steps * (1.0 if full else 0.65), None  # cycles for a row of those anywhere
    for length in (most, most // 2 + 1):
        one = Lines(1, length)
        if one.fits(c.rows_c):
            cycles = one.covered(c.rows_c) * (3 + steps * (1.0 if full else 0.6))
            if cycles < 0.96 * best:  # long sums gain nothing
                best, found = cycles, one
    return found


def taps_at_once(c: Contraction) -> int:
    """Steps that make a row of taps on one channel, where such a row is taken at once; or 0."""
    few = registers().tile_rows < 8 and c.steps <= STRETCH
    return c.run if few and c.run in AT_A_TIME and c.steps_b == c.x_c == c.step_x == 1 else 0


def narrowed(c: Contraction, tile: Tile) -> Tile:
    """A tile of one vector where a row of taps would fill the registers then."""
    if tile.vectors > 1 and c.rows_c >= min(ONE_LINE) and taps_at_once(c):
        return tile._replace(rows=registers().tile_rows, vectors=1)
    return tile


def packing_pays(rows: int, w_bytes: int, tile: Tile) -> bool:
    """Whether ``w`` should be copied so that each block of columns lies together.

    Where ``w`` is larger than the second-level cache, a block of columns is not kept in it however
    small: its short rows, a power of two apart, fall into a few sets. A tile of many rows hides
    that; one of few rows, on narrow vectors, does not, if the block is read often enough to be
    worth the copy.
    """
    return tile.rows < 8 and rows >= 8 * tile.rows and w_bytes > 2 * CACHE_BYTES


def in_stretches(c: Contraction) -> Contraction:
    """The same with long sums cut into stretches.

    Padding is then not passed over: a stretch ends after the same steps in every tile.
    """
    if c.stretch or c.steps <= STRETCH:
        return c
    everywhere: dict[str, Any] = {
        "real_first": 0,
        "real_last": 1,
        "real_start": 0,
        "real_b": 0,
        "real_step": 0,
    }
    return c._replace(stretch=max(1, STRETCH // c.run), **everywhere)


class Plan(NamedTuple):
    """A contraction made ready: the compiled function, its items, its work, its record."""

    function: Any
    items: int
    work: int
    numbers: Array


def plan(c: Contraction, tile: Tile, itemsize: int, *, elementwise: bool = False) -> Plan:
    """Cut the contraction into items for this tile."""
    c = in_stretches(c)
    lines = None if elementwise else lines_of(c, tile, itemsize)
    if lines is not None:
        return _plan_of_lines(c, lines, tile, itemsize)
    tiles = -(-c.rows // tile.rows)
    blocks = -(-c.columns // tile.columns)
    parts = -(-tiles // _part(c, c.groups * blocks * tiles, PART))
    part = -(-tiles // parts)  # equal parts, so that threads get equal work
    # What of the two fits into the cache is passed over again and again.
    w_bytes = c.steps * c.columns * itemsize
    far = c.groups * c.rows * c.columns * itemsize > 2 * CACHE_BYTES
    c = c._replace(part=part, blocks_first=w_bytes <= CACHE_BYTES, y_line=_y_line(c), far=far)
    items = c.groups * blocks * -(-tiles // part)
    # One vector of w is masked at no cost to speak of, and one kernel less to compile.
    masked = tile.vectors == 1 or c.columns % tile.columns != 0
    function = _contraction(*tile, masked, elementwise, c.stretch > 0)
    return Plan(function, items, c.flops // 4, record(c))


def _y_line(c: Contraction) -> bool:
    """Whether the rows of ``y`` lie equally far apart throughout."""
    return (c.rows_b == 1 or c.y_b == c.rows_c * c.y_c) and (
        c.rows_a == 1 or c.y_a == c.rows_b * c.rows_c * c.y_c
    )


def _part(c: Contraction, tiles: int, most: int) -> int:
    """Tiles in one item, of so many in all."""
    items = min(ITEMS, 1 + c.flops // 4 // WORTH)
    return min(most, max(1, tiles // items))


def pooled_tile(columns: int, itemsize: int) -> Tile:
    """The tile of pooled contractions: one vector, half of one for few columns."""
    lanes = registers().vector_bytes // itemsize
    if lanes > 8 and columns <= lanes // 2:
        lanes //= 2
    return Tile(2 * registers().tile_rows, 1, lanes)


def plan_pooled(c: Contraction, itemsize: int) -> Plan | None:
    """A plan whose ``y`` is the largest of each 2×2 rows: of b and b + 1, and of c and c + 1.

    Of ``y``'s own rows, of which there are half as many each way, ``y_b`` and ``y_c`` are the
    steps. The sums then never leave the registers: convolution and max-pooling of 28×28 digits
    with 8 filters 3×3 take 1.5 µs an image instead of 2.3. None where the lines are shorter than a
    tile's, or where what two tiles of a line share would cost more.
    """
    if c.steps > STRETCH:
        return None
    most, tile = registers().tile_rows, pooled_tile(c.columns, itemsize)
    full = tile.lanes * itemsize == registers().vector_bytes
    steps = c.steps * (1.0 if full else 0.5)
    best, found = 9 + steps, None  # cycles for a row of two operations
    tiles = [Lines(2, most), Lines(2, most * 3 // 4 // 2 * 2)]
    if taps := taps_at_once(c):
        tiles += _of_taps(2, TWO_LINES[taps], taps, c.rows_c)
    for one in tiles:
        if one.fits(c.rows_c):
            cycles = one.covered(c.rows_c) * ((2 if one.taps else 4) + steps)
            if cycles < best:
                best, found = cycles, one
    return found and _plan_of_lines(c, found, tile, itemsize, pooled=True)


def _plan_of_lines(
    c: Contraction, lines: Lines, tile: Tile, itemsize: int, *, pooled: bool = False
) -> Plan:
    """Items of the kernel for rows in lines: some tiles that follow each other by one block."""
    tiles = c.rows_a * c.rows_b // lines.lines * lines.of_line(c.rows_c)
    blocks = -(-c.columns // tile.columns)
    part = _part(c, c.groups * blocks * tiles, 2 * PART)
    if lines.lines > 1 and c.rows_b == 1:
        c = c._replace(rows_a=1, rows_b=c.rows_a, x_b=c.x_a, y_b=c.y_a)
    w_bytes = c.steps * c.columns * itemsize
    c = c._replace(part=part, blocks_first=w_bytes <= CACHE_BYTES)
    sides = lines, tile.vectors, tile.lanes
    function = _lines_pooled(*sides) if pooled else _lines(*sides, c.stretch > 0)
    return Plan(function, c.groups * blocks * -(-tiles // part), c.flops // 4, record(c))


def contract(plan: Plan, x: Array, w: Array, b: Array, y: Array, relu: bool = False) -> None:
    """Run it on flat arrays; ``b`` holds ``groups * columns`` numbers."""
    parallel_for(plan.function, plan.items, plan.work, x, w, b, y, relu, plan.numbers)


@kernel_factory
def _contraction(
    rows: int, vectors: int, lanes: int, masked: bool, elementwise: bool, long_sums: bool
) -> Any:
    """The kernel for rows anywhere.

    ``long_sums`` is one for sums in stretches: full tiles leave no register for what these need
    (gradient of 64 filters 3×3 on 8×8×64: with both in one kernel 7 % more).
    """
    half = min(rows, rows // 2 + 1)
    width = vectors * lanes
    room = rows * width if long_sums else 1

    def of_height(height: int) -> Any:
        @ordered_device
        def summed_in_stretches(
            in_x: Any, i: int, j: int, b_start: int, columns: int, x: Any, w: Any, b: Any,
            totals: Any, c: Any,
        ) -> Any:  # fmt: skip
            run, steps_b, step_x, step_w = c.run, c.steps_b, c.step_x, c.step_w
            step_x_a, step_x_b, step_w_a, step_w_b = (
                c.step_x_a, c.step_x_b, c.step_w_a, c.step_w_b,
            )  # fmt: skip
            runs, stretch = c.steps_a * steps_b, c.stretch
            totals_begin(tile_from_row(height, vectors, lanes, b, 0, 0), totals, 0)
            for piece in range(0, run, STRETCH):
                for first in range(0, runs, stretch):
                    # Made anew for each stretch, from the bias or zeros: no register outlives one.
                    bias = columns if first == 0 and piece == 0 else 0
                    tile = tile_from_row(height, vectors, lanes, b, b_start, bias)
                    stop, steps = min(runs, first + stretch), min(run - piece, STRETCH)
                    for a in range(first // steps_b, (stop - 1) // steps_b + 1):
                        before = a * steps_b
                        i_a = i + a * step_x_a + piece * step_x
                        j_a = j + a * step_w_a + piece * step_w
                        for s in range(max(0, first - before), min(steps_b, stop - before)):
                            i_run = i_a + s * step_x_b
                            j_run = j_a + s * step_w_b
                            for _ in range(steps):
                                if elementwise:
                                    tile = products(
                                        tile, x, in_x, i_run, w, j_run, columns, 0, height
                                    )
                                elif masked:
                                    tile = rank1_masked(tile, x, in_x, i_run, w, j_run, columns)
                                else:
                                    tile = rank1(tile, x, in_x, i_run, w, j_run)
                                i_run += step_x
                                j_run += step_w
                    totals_add(tile, totals, 0)
            return totals_end(tile_from_row(height, vectors, lanes, b, 0, 0), totals, 0)

        @ordered_device
        def one_tile(
            first: int,
            row_a: int,
            row_b: int,
            row_c: int,
            left: int,
            x: Any,
            w: Any,
            b: Any,
            y: Any,
            x_start: int,
            w_start: int,
            b_start: int,
            y_start: int,
            columns: int,
            relu: bool,
            totals: Any,
            c: Any,
        ) -> None:
            if row_c + height <= c.rows_c:
                at = row_a * c.x_a + row_b * c.x_b + row_c * c.x_c
                in_x = rows_line(height, at, c.x_c)
            else:
                in_x = rows_walk(
                    height, row_a, row_b, row_c, left, c.rows_b, c.rows_c, c.x_a, c.x_b, c.x_c
                )
            tile = tile_from_row(height, vectors, lanes, b, b_start, columns)
            # A tile that goes on into the next image has rows from the first to the last.
            next_image = row_b + (row_c + height - 1) // c.rows_c >= c.rows_b
            low_b = 0 if next_image else row_b
            high_b = c.rows_b - 1 if next_image else row_b + (row_c + height - 1) // c.rows_c
            if c.far and c.y_line:
                expect_store(tile, y, rows_line(height, first * c.y_c, c.y_c), y_start)
            # Read once: in the loops each would be read from memory again.
            steps_b, run, step_x, step_w = c.steps_b, c.run, c.step_x, c.step_w
            step_x_a, step_x_b, step_w_a, step_w_b = (
                c.step_x_a, c.step_x_b, c.step_w_a, c.step_w_b,
            )  # fmt: skip
            if long_sums:
                tile = summed_in_stretches(
                    in_x, x_start, w_start, b_start, columns, x, w, b, totals, c
                )
            for a in range(0 if long_sums else c.steps_a):
                low = c.real_start + low_b * c.real_b + a * c.real_step
                high = low + (high_b - low_b) * c.real_b
                if high < c.real_first or low >= c.real_last:
                    continue
                if c.far and a + 2 == c.steps_a:  # the last row of taps meets pixels not seen yet
                    last = (a + 1) * step_x_a + (steps_b - 1) * step_x_b
                    expect_load(tile, x, in_x, x_start + last)
                for s in range(steps_b):
                    i = x_start + a * step_x_a + s * step_x_b
                    j = w_start + a * step_w_a + s * step_w_b
                    for _ in range(run):
                        if elementwise:
                            tile = products(tile, x, in_x, i, w, j, columns, 0, height)
                        elif masked:
                            tile = rank1_masked(tile, x, in_x, i, w, j, columns)
                        else:
                            tile = rank1(tile, x, in_x, i, w, j)
                        i += step_x
                        j += step_w
            if relu:
                tile = tile_relu(tile)
            if c.y_line:
                tile_store_rows(tile, y, y_start + first * c.y_c, c.y_c, columns, left)
            else:
                in_y = rows_walk(
                    height, row_a, row_b, row_c, left, c.rows_b, c.rows_c, c.y_a, c.y_b, c.y_c
                )
                tile_store(tile, y, in_y, y_start, columns)

        return one_tile

    whole_tile = of_height(rows)
    half_tile = whole_tile if half == rows else of_height(half)

    @ordered_kernel
    def contraction(
        start: int, stop: int, x: Any, w: Any, b: Any, y: Any, relu: bool, numbers: Any
    ) -> None:
        c = numbers[0]
        totals = totals_room(room)
        total = c.rows_a * c.rows_b * c.rows_c
        part = c.part * rows
        parts = (total + part - 1) // part
        blocks = (c.columns + width - 1) // width
        for item in range(start, stop):
            group, place = item // (parts * blocks), item % (parts * blocks)
            if c.blocks_first:
                first_row, block = place // blocks * part, place % blocks
            else:
                first_row, block = place % parts * part, place // parts
            columns = min(width, c.columns - block * width)
            x_start = c.x_start + group * c.x_group
            if elementwise:
                x_start += block * width
            w_start = c.w_start + group * c.w_group + block * c.w_block
            b_start = group * c.columns + block * width
            y_start = c.y_start + group * c.y_group + block * width
            last_row = min(first_row + part, total)
            row_c = first_row % c.rows_c
            row_b = first_row // c.rows_c % c.rows_b
            row_a = first_row // c.rows_c // c.rows_b
            first = first_row
            while first < last_row:
                left, done = last_row - first, rows
                if rows > 1 and (left <= half or rows < left <= 2 * half):  # two halves, no rest
                    done = half
                    half_tile(
                        first, row_a, row_b, row_c, left, x, w, b, y,
                        x_start, w_start, b_start, y_start, columns, relu, totals, c,
                    )  # fmt: skip
                else:
                    whole_tile(
                        first, row_a, row_b, row_c, left, x, w, b, y,
                        x_start, w_start, b_start, y_start, columns, relu, totals, c,
                    )  # fmt: skip
                first += done
                row_c += done
                while row_c >= c.rows_c:
                    row_c -= c.rows_c
                    row_b += 1
                    if row_b == c.rows_b:
                        row_b = 0
                        row_a += 1

    return contraction


@kernel_factory
def _lines(lines: Lines, vectors: int, lanes: int, long_sums: bool) -> Any:
    """The kernel for tiles of lines; ``long_sums``: in stretches."""
    run_items = _items_of_lines(lines, vectors, lanes, pooled=False, long_sums=long_sums)

    @kernel
    def contraction_in_lines(
        start: int, stop: int, x: Any, w: Any, b: Any, y: Any, relu: bool, numbers: Any
    ) -> None:
        run_items(start, stop, x, w, b, y, y, relu, numbers[0])

    return contraction_in_lines


@kernel_factory
def _lines_pooled(lines: Lines, vectors: int, lanes: int) -> Any:
    """The same with pooling: ``places``, if wanted, as ``y``."""
    run_items = _items_of_lines(lines, vectors, lanes, pooled=True, long_sums=False)

    @kernel
    def contraction_pooled(
        start: int, stop: int, x: Any, w: Any, b: Any, y: Any, places: Any, relu: bool, numbers: Any
    ) -> None:
        run_items(start, stop, x, w, b, y, places, relu, numbers[0])

    return contraction_pooled


def _items_of_lines(sides: Lines, vectors: int, lanes: int, pooled: bool, long_sums: bool) -> Any:
    """What such a kernel does; with ``taps`` so many steps at once, which are all of a run.

    On 16 registers a step reads as many numbers as it has multiply-adds, and where it reads them
    takes instructions too. A row of taps reads each pixel once, at constant offsets: 28×28 digits
    through 8 filters 3×3 with pooling take 1.7 µs each instead of 2.3, through 6 filters 5×5 4.3
    instead of 5.6; without pooling through 32 filters 3×3 8.5 instead of the 13.8 of tiles two
    vectors wide (Zen 3, AVX2). Mixed tiles, which need not overlap, take 8 to 14 % less than that.
    On 32 registers a tile has rows enough, and AVX-512 reads a number within the multiply-add.
    """
    lines, length, taps, mixed = sides
    width = vectors * lanes
    room = lines * length * width if long_sums else 1
    side = 2 if pooled else 1  # rows of the tile to one of the result, each way

    @device
    def summed_by_steps(
        tile: Any, i: int, j: int, row: int, columns: int, x: Any, w: Any, totals: Any, c: Any
    ) -> Any:
        # Read once: in the loops each would be read from memory again.
        run, x_b, x_c = c.run, c.x_b, c.x_c
        steps_b, step_x, step_w = c.steps_b, c.step_x, c.step_w
        step_x_a, step_x_b, step_w_a, step_w_b = c.step_x_a, c.step_x_b, c.step_w_a, c.step_w_b
        real_first, real_last, real_step = c.real_first, c.real_last, c.real_step
        for _ in range(c.steps_a):
            if lines > 1 or real_first <= row < real_last:
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
            row += real_step
        return tile

    @device
    def summed_in_stretches(
        tile: Any, i: int, j: int, row: int, columns: int, x: Any, w: Any, totals: Any, c: Any
    ) -> Any:
        """The same of lines that are all taps of a filter: of these alone sums may be long."""
        run, x_b, x_c, stretch, steps_b = c.run, c.x_b, c.x_c, c.stretch, c.steps_b
        step_x, step_w, runs = c.step_x, c.step_w, c.steps_a * c.steps_b
        step_x_a, step_x_b, step_w_a, step_w_b = c.step_x_a, c.step_x_b, c.step_w_a, c.step_w_b
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
        return totals_end(tile, totals, 0)

    @device
    def summed_by_rows_of_taps(
        tile: Any, i: int, j: int, row: int, columns: int, x: Any, w: Any, totals: Any, c: Any
    ) -> Any:
        steps_a, x_b, step_w = c.steps_a, c.x_b, c.step_w
        step_x_a, step_w_a = c.step_x_a, c.step_w_a
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

    def of_length(length: int) -> Any:
        height = lines * length

        @device
        def one_tile(
            i: int, j: int, at_b: int, to: int, row: int,
            columns: int, x: Any, w: Any, b: Any, y: Any, places: Any, relu: bool, totals: Any,
            c: Any,
        ) -> None:  # fmt: skip
            tile = tile_from_row(height, vectors, lanes, b, at_b, columns)
            tile = summed(tile, i, j, row, columns, x, w, totals, c)
            found = tile
            if pooled:
                has_nan = tile_has_nan(tile)
                found = (
                    tile_pooled(length, tile) if has_nan else tile_pooled_of_numbers(length, tile)
                )
            if relu:  # of the largest: which zero it is, if its sign is minus, may differ
                found = tile_relu(found)
            tile_store_rows(found, y, to, c.y_c, columns, height // (side * side))
            if pooled and c.places:
                if has_nan:
                    found = tile_pooled_places(length, tile)
                else:
                    found = tile_pooled_places_of_numbers(length, tile)
                tile_store_rows(found, places, to, c.y_c, columns, height // (side * side))

        return one_tile

    one_tile = of_length(length)
    short_tile = of_length(length - 2) if mixed else one_tile

    @device
    def run_items(
        start: int, stop: int, x: Any, w: Any, b: Any, y: Any, places: Any, relu: bool, c: Any
    ) -> None:
        totals = totals_room(room)
        of_line = (c.rows_c + length - 1) // length
        whole = of_line - (of_line * length - c.rows_c) // 2
        tiles = c.rows_a * c.rows_b // lines * of_line
        parts = (tiles + c.part - 1) // c.part
        blocks = (c.columns + width - 1) // width
        for item in range(start, stop):
            group, place = item // (parts * blocks), item % (parts * blocks)
            if c.blocks_first:
                tile, block = place // blocks * c.part, place % blocks
            else:
                tile, block = place % parts * c.part, place // parts
            columns = min(width, c.columns - block * width)
            last = min(tile + c.part, tiles)
            line, place = tile // of_line * lines, tile % of_line
            row_a, row_b = line // c.rows_b, line % c.rows_b
            x_start, y_start = c.x_start + group * c.x_group, c.y_start + group * c.y_group
            w_start = c.w_start + group * c.w_group + block * c.w_block
            b_start = group * c.columns + block * width
            y_start += block * width
            while tile < last:
                i = x_start + row_a * c.x_a + row_b * c.x_b
                to = y_start + row_a * c.y_a + row_b // side * c.y_b
                row = c.real_start + row_b * c.real_b
                tiles_here = min(of_line - place, last - tile)
                for k in range(place, place + tiles_here):
                    if mixed and k >= whole:
                        first = c.rows_c - (of_line - k) * (length - 2)
                        short_tile(
                            i + first * c.x_c, w_start, b_start, to + first // side * c.y_c, row,
                            columns, x, w, b, y, places, relu, totals, c,
                        )  # fmt: skip
                        continue
                    # What the last tile of a line shares with the one before comes out the same.
                    first = min(k * length, c.rows_c - length)
                    one_tile(
                        i + first * c.x_c, w_start, b_start, to + first // side * c.y_c, row,
                        columns, x, w, b, y, places, relu, totals, c,
                    )  # fmt: skip
                tile += tiles_here
                place = 0
                row_b += lines
                if row_b == c.rows_b:
                    row_b = 0
                    row_a += 1

    return run_items


def plan_few_steps(c: Contraction, itemsize: int) -> Plan:
    """A matrix product of at most :data:`FEW` steps, where to write ``y`` is all the work."""
    lanes = registers().vector_bytes // itemsize
    items = -(-c.rows // FEW_STEPS_PART)
    c = c._replace(part=-(-c.rows // items))
    vectors = 2 if c.columns <= 2 * lanes else 4
    return Plan(_few_steps(vectors, lanes), items, c.flops // 4, record(c))


@kernel_factory
def _few_steps(vectors: int, lanes: int) -> Any:
    """The kernel for few steps: row after row, with the first step's ``w`` in registers.

    The gradient of 1352×10 weights by one sample: 1.8 µs; in tiles of rows 10, most of it for where
    they begin and for what is left of their columns (Zen 3, AVX2).
    """
    width = vectors * lanes

    @ordered_device
    def some_rows(
        first: int, last: int, i: int, at: int, columns: int, x: Any, w: Any, b: Any, y: Any,
        wide: int, j: int, b_at: int, c: Any,
    ) -> None:  # fmt: skip
        run, step_x, step_w, x_c, y_c = c.run, c.step_x, c.step_w, c.x_c, c.y_c
        line = rows_line(1, 0, 0)
        start = tile_from_row(1, vectors, lanes, b, b_at, columns)
        of_first = tile_from_row(1, vectors, lanes, w, j, columns)
        i += first * x_c
        at += first * y_c
        for _ in range(first, last):
            tile = tile_sum_scaled(start, of_first, x, i)
            i_step, j_step = i, j
            for _ in range(1, run):
                i_step += step_x
                j_step += step_w
                tile = rank1_masked(tile, x, line, i_step, w, j_step, columns)
            tile_store_rows(tile, y, at, 0, wide, 1)
            i += x_c
            at += y_c

    @ordered_kernel
    def few_steps(
        start: int, stop: int, x: Any, w: Any, b: Any, y: Any, relu: bool, numbers: Any
    ) -> None:
        c = numbers[0]
        rows = c.rows_a * c.rows_b * c.rows_c
        for item in range(start, stop):
            first, last = item * c.part, min(rows, (item + 1) * c.part)
            for block in range(0, c.columns, width):
                columns = min(width, c.columns - block)
                # Rows that are written as wide as the tile: what is too much, the next rows write.
                whole = first
                if columns == width:
                    whole = last
                elif block == 0 and c.y_c == columns:
                    whole = max(first, last - (width - 1) // columns)
                i, at, j = c.x_start, c.y_start + block, c.w_start + block
                some_rows(first, whole, i, at, columns, x, w, b, y, width, j, block, c)
                some_rows(whole, last, i, at, columns, x, w, b, y, columns, j, block, c)

    return few_steps
