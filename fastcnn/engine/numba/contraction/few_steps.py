"""The kernel of matrix products of few steps, where writing the result is all the work.

The gradient of a dense layer's weights by a few samples is one. Row after row is computed, with the
first step's weights in registers. In tiles of rows, most of the time would go to starting tiles
and to the tail of their columns (docs/measurements.md, "A kernel for few steps").
"""

from __future__ import annotations

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.contraction.contraction import Arrays, Contraction, Plan
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory, registers
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.engine.numba.tiles.arithmetic import tile_sum_scaled
from fastcnn.engine.numba.tiles.loads_and_stores import tile_from_row, tile_store_rows
from fastcnn.engine.numba.tiles.products import rank1_masked
from fastcnn.engine.numba.tiles.rows import rows_line

STEPS = 4
"""Steps of a sum, at most."""
_GRAIN = 256
"""Rows of an item, about."""


def plan_few_steps(c: Contraction, itemsize: int) -> Plan:
    """The plan of a matrix product of at most :data:`STEPS` steps."""
    lanes = registers().vector_bytes // itemsize
    items = -(-c.row_count // _GRAIN)
    c = c._replace(schedule=c.schedule._replace(grain=-(-c.row_count // items)))
    vectors = 2 if c.columns.total <= 2 * lanes else 4
    return Plan(_few_steps(vectors, lanes), items, c.work, record(c))


@kernel_factory
def _few_steps(vectors: int, lanes: int) -> Kernel:
    """The kernel: ``y = b + x @ w``.

    Reads x (rows, steps) at any strides, w (steps, columns) and b (columns,), writes y (rows,
    columns). It never reads ``relu``.
    """
    width = vectors * lanes

    @ordered_device
    def some_rows(
        first: int, last: int, block: int, columns: int, stored_columns: int, arrays: Arrays,
        c: Contraction,
    ) -> None:  # fmt: skip
        x, w, b, y, _ = arrays
        run, step_x, step_w = c.steps.run, c.steps.x_run, c.steps.w_run
        x_c, y_c, j = c.rows.x_c, c.rows.y_c, c.columns.w_start + block
        line = rows_line(1, 0, 0)
        bias = tile_from_row(1, vectors, lanes, b, block, columns)
        first_weights = tile_from_row(1, vectors, lanes, w, j, columns)
        i, at = c.rows.x_start + first * x_c, c.rows.y_start + block + first * y_c
        for _ in range(first, last):
            tile = tile_sum_scaled(bias, first_weights, x, i)
            i_step, j_step = i, j
            for _ in range(1, run):
                i_step += step_x
                j_step += step_w
                tile = rank1_masked(tile, x, line, i_step, w, j_step, columns)
            tile_store_rows(tile, y, at, 0, stored_columns, 1)
            i += x_c
            at += y_c

    @ordered_kernel
    def few_steps(
        start: int, stop: int, x: Array, w: Array, b: Array, y: Array, relu: bool, numbers: Array
    ) -> None:
        c: Contraction = numbers[0]
        arrays, grain, count = Arrays(x, w, b, y, y), c.schedule.grain, c.columns.total
        rows = c.rows.a * c.rows.b * c.rows.c
        for item in range(start, stop):
            first, last = item * grain, min(rows, (item + 1) * grain)
            for block in range(0, count, width):
                columns = min(width, count - block)
                # Rows before ``full_rows_end`` are stored in the full width of the tile, because
                # the rows after them overwrite the numbers beyond ``columns``.
                full_rows_end = first
                if columns == width:
                    full_rows_end = last
                elif block == 0 and c.rows.y_c == columns:
                    full_rows_end = max(first, last - (width - 1) // columns)
                some_rows(first, full_rows_end, block, columns, width, arrays, c)
                some_rows(full_rows_end, last, block, columns, columns, arrays, c)

    return few_steps
