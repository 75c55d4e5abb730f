"""The list of kernels for contractions; its last entry serves every problem.

The choice follows from the problem and from the registers of the instruction set
(:func:`~fastcnn.engine.numba.runtime.instruction_sets.registers`) alone. Each entry returns its
plan, or in words why it does not serve. The first entry with a plan serves;
:func:`fastcnn.explain` prints it, and the words of the entries before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.contraction.contraction import (
    CACHE_BYTES,
    Columns,
    Contraction,
    Groups,
    Plan,
    Tile,
    plan_contraction,
)
from fastcnn.engine.numba.contraction.epilogue import Epilogue
from fastcnn.engine.numba.contraction.lines import Lines, plan_lines
from fastcnn.engine.numba.runtime.decisions import Entry
from fastcnn.engine.numba.runtime.instruction_sets import registers

FEW_ROWS = 4
"""Rows of the tile for few rows."""
_ONE_ROW, _LONG_ROW = 8, 16
"""Vectors of a tile of one row. A tile has _LONG_ROW vectors if the registers hold them and the
columns fill them."""
_WHOLE_FILTERS = ((3, 3), (5, 5))
"""Rows of taps, and taps in a row, of the filters whose gradient is one tile."""
_TAPS = (3, 5)
"""Taps of a row that is one step, where registers are few."""
_ONE_LINE, _TWO_LINES = (8, 6), {3: (6, 4), 5: (4,)}
"""Lengths of the lines of a tile where a step is a row of taps. _ONE_LINE holds those of tiles of
one line. _TWO_LINES holds, by the number of taps, those of tiles of two lines that are pooled. With
the longest tile, the last tiles of a line may be two pixels shorter, so that they fill the line."""
PACKED_BLOCKS = 8
"""Blocks of columns whose filters are packed at once (docs/measurements.md, "Packed filters")."""


class Problem(NamedTuple):
    """A contraction before its kernel is chosen.

    Attributes:
        c: extents and offsets.
        tile: the tile for its rows and columns, from :func:`tile_for`. Weights in blocks have the
            columns of this tile.
        itemsize: of the dtype.
        elementwise: whether each column has an input of its own.
        pooled: if 2×2 max-pooling follows, the contraction whose ``y`` is the pooling's result, see
            :func:`~.lines.plan_lines`.
        argmax: whether pooling must write argmax indices.
        packable: whether the caller can pack the weights, in blocks of columns.
        fused: the epilogue of a fused kernel, or None.
    """

    c: Contraction
    tile: Tile
    itemsize: int
    elementwise: bool = False
    pooled: Contraction | None = None
    argmax: bool = False
    packable: bool = False
    fused: Epilogue | None = None


def tile_for(rows: int, columns: int, itemsize: int) -> Tile:
    """The tile for a problem of so many rows and columns.

    More columns than a vector has lanes take a full tile. Fewer columns take one vector, no wider
    than they need, because idle lanes cost time. Two rows or fewer (a dense layer of one or two
    samples) of more than two vectors take a tile of one row and many vectors. Four rows or fewer of
    at most two vectors take a tile of four rows.
    """
    host = registers()
    lanes = host.vector_bytes // itemsize
    few_columns = columns <= 2 * lanes
    if rows <= 2 and not few_columns:
        width = _LONG_ROW * lanes
        fits = host.number > _LONG_ROW + 1 and -columns % width <= columns // 8
        return Tile(1, _LONG_ROW if fits else _ONE_ROW, lanes)
    if rows <= FEW_ROWS and few_columns:
        return Tile(FEW_ROWS, -(-columns // lanes), lanes)
    if columns > lanes:
        return Tile(host.tile_rows, host.tile_vectors, lanes)
    while lanes > 4 and columns <= lanes // 2:
        lanes //= 2
    return Tile(host.tile_rows, 1, lanes)


def elementwise_tile(itemsize: int) -> Tile:
    """The tile of an elementwise contraction: one vector."""
    host = registers()
    return Tile(host.tile_rows, 1, host.vector_bytes // itemsize)


def with_packed_weights(c: Contraction, width: int, columns: int) -> Contraction:
    """``c`` for one group's first columns, on weights in blocks of ``width``."""
    steps, pitch = c.steps, c.steps.w_run
    return c._replace(
        steps=steps._replace(
            w_a=steps.w_a // pitch * width, w_b=steps.w_b // pitch * width, w_run=width
        ),
        columns=Columns(columns, 0, c.step_count * width),
        groups=Groups(),
    )


def packing_pays(rows: int, w_bytes: int, tile: Tile) -> bool:
    """Whether ``w`` should be copied so that each block of columns lies together.

    Where ``w`` is larger than the second-level cache, not even a block of columns stays in it: its
    short rows, a power of two apart, fall into a few sets. A tile of many rows hides that. A tile
    of six rows, on 16 registers, does not, and if it reads the block often enough, the copy pays.
    """
    return tile.rows < 8 and rows >= 8 * tile.rows and w_bytes > 2 * CACHE_BYTES


def _taps_per_step(c: Contraction) -> int:
    """Taps of a row on one channel, where a kernel takes them in one step; else 0."""
    few = registers().tile_rows < 8 and c.step_count <= STRETCH
    in_a_row = c.steps.run in _TAPS and c.steps.b == c.rows.x_c == c.steps.x_run == 1
    return c.steps.run if few and in_a_row else 0


def _lines_of_taps(lines: int, lengths: tuple[int, ...], taps: int, rows: int) -> list[Lines]:
    """Tiles of these lengths that fit lines of so many rows, the longest also mixed."""
    tiles = [Lines(lines, length, taps) for length in lengths]
    if len(lengths) > 1:
        tiles.insert(1, tiles[0]._replace(mixed=True))
    return [each for each in tiles if each.fits(rows)]


def _full(tile: Tile, itemsize: int) -> bool:
    """Whether the tile has full vectors."""
    return tile.lanes * itemsize == registers().vector_bytes


def _pooled_lines(p: Problem) -> Plan | str:
    c, most = p.pooled, registers().tile_rows
    if c is None or p.fused is not None:
        return "no 2×2 max-pooling follows"
    if p.itemsize != 4:
        return "it is made for float32"
    if c.step_count > STRETCH:
        return "its sums are longer than a stretch"
    lanes = registers().vector_bytes // p.itemsize
    if lanes > 8 and c.columns.total <= lanes // 2:
        lanes //= 2
    tile = Tile(2 * most, 1, lanes)
    steps = c.step_count * (1.0 if _full(tile, p.itemsize) else 0.5)
    # Cycles for a row: 9 + steps where convolution and pooling are two kernels; for each row that a
    # tile computes 4 + steps, or 2 + steps with taps. A step on shorter vectors counts half.
    best, best_lines = 9 + steps, None
    tiles = [Lines(2, most), Lines(2, most * 3 // 4 // 2 * 2)]
    if taps := _taps_per_step(c):
        tiles += _lines_of_taps(2, _TWO_LINES[taps], taps, c.rows.c)
    for lines in tiles:
        if lines.fits(c.rows.c):
            cycles = lines.covered(c.rows.c) * ((2 if lines.taps else 4) + steps)
            if cycles < best:
                best, best_lines = cycles, lines
    if best_lines is None:
        return f"no tile covers lines of {c.rows.c} at less cost than two kernels"
    return plan_lines(c, best_lines, tile, p.itemsize, pooled=True, argmax=p.argmax)


def _packed_filters(p: Problem) -> Plan | str:
    c = p.c
    if not p.packable or p.elementwise:
        return "the weights are taken as they are"
    w_bytes = c.groups.total * c.step_count * c.columns.total * p.itemsize
    if not packing_pays(c.row_count, w_bytes, p.tile):
        if w_bytes <= 2 * CACHE_BYTES:
            return "the weights fit into the cache"
        return "a tile has rows enough to hide misses, or the rows are too few to pay for a copy"
    columns = min(c.columns.total, PACKED_BLOCKS * p.tile.columns)
    return plan_contraction(
        with_packed_weights(c, p.tile.columns, columns), p.tile, p.itemsize, fused=p.fused
    )


def _all_rows(p: Problem) -> Plan | str:
    c, tile = p.c, p.tile
    lines = Lines(c.rows.a * c.rows.b, c.rows.c)
    sides = lines.lines, lines.length
    if p.elementwise or sides not in _WHOLE_FILTERS or not c.y_in_line:
        return "the rows are not the taps of a 3×3 or 5×5 filter on one channel"
    if tile.rows <= FEW_ROWS or tile.vectors > 1 or c.row_count > 2 * registers().tile_rows:
        return "the registers do not hold all rows"
    return plan_lines(c, lines, tile, p.itemsize, fused=p.fused)


def _rows_of_taps(p: Problem) -> Plan | str:
    c, tile = p.c, p.tile
    taps = 0 if p.elementwise or tile.rows <= FEW_ROWS else _taps_per_step(c)
    if not taps:
        if registers().tile_rows >= 8:
            return "registers are many, so a tile has rows enough"
        return "the steps are not rows of 3 or 5 taps on one channel"
    if tile.vectors > 1 and c.columns.w_block:
        return "the weights lie in blocks that are wider than its tile"
    fit = _lines_of_taps(1, _ONE_LINE, taps, c.rows.c)
    if not fit:
        return f"lines of {c.rows.c} are shorter than its tiles"
    lines = min(fit, key=lambda each: (each.covered(c.rows.c), -each.length))
    return plan_lines(c, lines, tile._replace(vectors=1), p.itemsize, fused=p.fused)


def _lines(p: Problem) -> Plan | str:
    c, tile, most = p.c, p.tile, registers().tile_rows
    if p.elementwise or tile.rows <= FEW_ROWS:
        return "the tile has few rows, or each column has an input of its own"
    if c.step_count > STRETCH:
        return "its sums are longer than a stretch"
    if (_taps_per_step(c) and tile.vectors == 1) or (tile.vectors > 1 and most < 8):
        return "the rows' offsets have registers of their own"
    steps, full = c.step_count, _full(tile, p.itemsize)
    # Cycles for a row: 6 and one for each step where rows lie anywhere, 3 and one for each step in
    # lines. Steps on shorter vectors count less. Lines must gain 4 %; long sums gain nothing.
    best, best_lines = 6 + steps * (1.0 if full else 0.65), None
    for length in (most, most // 2 + 1):
        lines = Lines(1, length)
        if lines.fits(c.rows.c):
            cycles = lines.covered(c.rows.c) * (3 + steps * (1.0 if full else 0.6))
            if cycles < 0.96 * best:
                best, best_lines = cycles, lines
    if best_lines is None:
        return f"the sums are long, or no tile covers lines of {c.rows.c} without much overlap"
    return plan_lines(c, best_lines, tile, p.itemsize, fused=p.fused)


def _rows_anywhere(p: Problem) -> Plan:
    return plan_contraction(p.c, p.tile, p.itemsize, elementwise=p.elementwise, fused=p.fused)


def _of_rows(fewest: int, most: int, refusal: str) -> Callable[[Problem], Plan | str]:
    """The general kernel if its tile has ``fewest`` to ``most`` rows, else ``refusal``."""

    def plan(p: Problem) -> Plan | str:
        return _rows_anywhere(p) if fewest <= p.tile.rows <= most else refusal

    return plan


CONTRACTIONS: tuple[Entry[Problem, Plan], ...] = (
    Entry(
        "all rows",
        "all rows of the result fit into registers, and no row needs an offset",
        _all_rows,
    ),
    Entry(
        "rows of taps",
        "registers are few, and each pixel is read once for all taps of a row",
        _rows_of_taps,
    ),
    Entry("lines", "its rows are neighbours, so that short sums compute no offsets", _lines),
    Entry(
        "one row",
        "idle rows would cost more than weights that are read twice",
        _of_rows(1, 1, "there are more than two rows, or few columns"),
    ),
    Entry(
        "few rows",
        "idle rows of a full tile would cost more than its four rows",
        _of_rows(2, FEW_ROWS, "there are more than four rows, or many columns"),
    ),
    Entry("rows anywhere", "it serves everything", _rows_anywhere),
)
"""The entries for contractions on weights as they are, or packed before the call."""

POOLED_LINES = Entry(
    "pooled lines",
    "the sums are pooled in registers, and the convolution's result is never stored",
    _pooled_lines,
)
PACKED_FILTERS = Entry(
    "packed filters",
    "cache misses in the weights as they lie would cost more than the copy",
    _packed_filters,
)
CONVOLUTIONS = (POOLED_LINES, PACKED_FILTERS, *CONTRACTIONS)
"""The entries for convolutions."""
