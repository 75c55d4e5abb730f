"""The gradients of the fully connected layer, by blocks of its inputs in one compiled call.

A block's rows of the weights are transposed, and multiplied with the output's gradient while they
are in the second-level cache. Its rows of the weights' gradient follow, from a contiguous copy of
its inputs, because the same input of all samples falls into one set of the cache where the number
of inputs is a multiple of 1024. So large weights are passed over once.

All other layers take their products in calls of their own, which threads share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import lcm
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.halving import parts_of_shards, sum_by_halves
from fastcnn.core.hardware import CACHE_LINE, L2_BYTES, L3_BYTES
from fastcnn.engine.numba.contraction import packing
from fastcnn.engine.numba.contraction.chooser import tile_for
from fastcnn.engine.numba.contraction.column_sums import Slabs, column_sums, sum_slabs
from fastcnn.engine.numba.contraction.contraction import Plan
from fastcnn.engine.numba.contraction.packing import Layout, transpose_filters
from fastcnn.engine.numba.dense import chooser
from fastcnn.engine.numba.dense.chooser import dense_input_plan, dense_weight_plan
from fastcnn.engine.numba.runtime import arrays, program
from fastcnn.engine.numba.runtime.arrays import readable, record
from fastcnn.engine.numba.runtime.bound import allocator, bound_by, launcher, zeros
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice
from fastcnn.engine.numba.runtime.program import (
    Operand,
    Program,
    address,
    fixed_address,
    new_bases,
    number,
    run,
)
from fastcnn.engine.numba.runtime.rehearsal import unless_rehearsed

# Most bytes of a block's weights.
_BLOCK = L2_BYTES // 8
# Most groups of blocks that run at once.
_GROUPS = 16
# Weights of so many bytes, fewest and most, exceed the second-level cache: one call serves them.
_LARGE = (2 * L2_BYTES, L3_BYTES // 2)


def _bind_dense_backward(
    sides: tuple[int, int, int], dtype: np.dtype[Any]
) -> Callable[[Array, Array, Array], tuple[Array, Array, Array]]:
    n, inputs, outputs = sides
    new_dx, new_dw = allocator((n, inputs), dtype), allocator((inputs, outputs), dtype)
    new_db = allocator((outputs,), dtype)
    if n == 0:

        def of_no_sample(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
            return new_dx(), zeros(w.size, dtype).reshape(w.shape), zeros(outputs, dtype)

        return of_no_sample
    if program.compiles() and is_one_call(inputs, outputs, dtype.itemsize):

        def by_blocks(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
            dx, dw, db = new_dx(), new_dw(), new_db()
            dense_gradients(dy, x, w, dx, dw, db)
            return dx, dw, db

        return by_blocks
    no_bias = zeros(max(inputs, outputs), dtype)
    to_input, width = dense_input_plan(n, inputs, outputs, dtype.itemsize)
    to_weights = dense_weight_plan(n, inputs, outputs, dtype.itemsize)
    launch_dx = launcher(to_input.function, to_input.items, to_input.work)
    launch_dw = launcher(to_weights.function, to_weights.items, to_weights.work)
    dx_numbers, dw_numbers, filters = to_input.numbers, to_weights.numbers, (1, 1, inputs, outputs)

    def bound(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
        dx, dw, db = new_dx(), new_dw(), new_db()
        flat_dy = dy.ravel()
        transposed = transpose_filters(w.reshape(filters), 1, width) if width else w.ravel()
        launch_dx(flat_dy, transposed, no_bias, dx.ravel(), False, dx_numbers)
        launch_dw(x.ravel(), flat_dy, no_bias, dw.ravel(), False, dw_numbers)
        column_sums(dy, db)
        return dx, dw, db

    return bound


@bound_by(_bind_dense_backward)
def dense_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """``dx = dy @ w.T`` (N, IC), ``dw = x.T @ dy`` (IC, OC) and ``db`` (OC,), sums of ``dy``."""
    return _bind_dense_backward((len(x), *w.shape), x.dtype)(readable(dy), readable(x), readable(w))


def is_one_call(inputs: int, outputs: int, itemsize: int) -> bool:
    """Whether both gradients are better taken by blocks, in one call."""
    least, most = _LARGE
    return least <= inputs * outputs * itemsize <= most


def explanation(op: str, sizes: tuple[int, ...], itemsize: int) -> Iterator[str]:
    """How both gradients are computed, and why; what :func:`fastcnn.explain` prints."""
    n, inputs, outputs = sizes
    if n == 0 or not is_one_call(inputs, outputs, itemsize):
        yield from chooser.explanation(op, sizes, itemsize)
        return
    size, _ = _block(n, inputs, outputs, itemsize)
    blocks = -(-inputs // size)
    yield f"kernels: of {blocks} block{'s' if blocks > 1 else ''} of inputs, in one compiled call"
    of_block = n, size, outputs, itemsize
    yield from chooser.input_gradient_decision(*of_block, all_inputs=inputs).lines("dx of a block")
    yield from chooser.weight_gradient_decision(*of_block).lines("dw of a block")


def dense_gradients(
    dy: Array,
    x: Array,
    w: Array,
    dx: Array | None,
    dw: Array | None,
    db: Array | None,
    shards: tuple[int, ...] = (),
) -> None:
    """Write the gradients of :func:`dense_backward`, by blocks, into the arrays that are not None.

    Arrays are C-contiguous and hold at least one sample. ``dx`` or ``dw`` may be None, not both.
    ``shards`` are the numbers of samples of the shards. With them, samples are summed within each
    shard, and the sums of the shards are added half by half.
    """
    gradients, _ = _by_blocks(len(x), *w.shape, x.dtype, dx is not None, dw is not None, shards)
    memory = arrays.allocate((gradients.scratch_bytes,), np.uint8)
    addresses = [0 if array is None else address(array) for array in (x, dw, dy, dx, w)]
    run(gradients, address(memory), new_bases(gradients), *addresses)
    if db is not None and len(shards) < 2:
        column_sums(dy, db)
    elif db is not None:
        sums = arrays.allocate((len(shards), len(db)), dy.dtype)
        for sums_of_shard, rows in zip(sums, parts_of_shards(shards), strict=True):
            column_sums(dy[rows], sums_of_shard)
        db[...] = sum_by_halves(list(sums))


class _ByBlocks(NamedTuple):
    """The program, and arrays that its steps name by their addresses.

    The program runs for each block of inputs, as other programs run for each slice of samples. It
    uses the bases of other programs for other arrays: x is at INPUT, dw at OUTPUT, dy at DY, dx at
    DX, and the weights are at TARGETS.
    """

    program: Program
    constants: list[Array]


@unless_rehearsed
@cached_choice
def _by_blocks(
    n: int,
    inputs: int,
    outputs: int,
    dtype: np.dtype[np.floating],
    needs_dx: bool,
    needs_dw: bool,
    shards: tuple[int, ...],
) -> _ByBlocks:
    itemsize, like = dtype.itemsize, np.zeros(1, dtype)
    # A block of another size would change the bits of dx, so it does not depend on the shards.
    size, width = _block(n, inputs, outputs, itemsize, _BLOCK // 2 if shards else _BLOCK)
    blocks = -(-inputs // size)
    copy_bytes = _whole_lines(n * size * itemsize)
    transposed_bytes = _whole_lines(-(-size // width) * width * outputs * itemsize)
    slab_bytes = _whole_lines(size * outputs * itemsize) if len(shards) > 1 else 0
    x, dw, dx, w, copy_of_x, transposed = (
        Operand(base, at)
        for base, at in (
            (program.INPUT, 0), (program.OUTPUT, 0), (program.DX, 0), (program.TARGETS, 0),
            (program.ITEM, 0), (program.ITEM, copy_bytes),
        )
    )  # fmt: skip
    dy = Operand(program.DY, 0)  # all of it, for each block
    slabs = Operand(program.ITEM, copy_bytes + transposed_bytes)
    no_bias = zeros(max(size, outputs), dtype)
    constants = [no_bias]

    def record_at(numbers: Array) -> Operand:
        constants.append(numbers)
        return fixed_address(numbers)

    def contraction(plan: Plan, x: Operand, w: Operand, y: Operand) -> Array:
        return program.step(
            plan.function, (like, like, like, like, True, plan.numbers), plan.items,
            x, w, fixed_address(no_bias), y, number(0), record_at(plan.numbers),
        )  # fmt: skip

    def steps(count: int) -> list[Array]:
        """The steps of a block of so many inputs."""
        result, weights = [], w
        if needs_dx:
            plan, transposes = dense_input_plan(n, count, outputs, itemsize, of=inputs)
            if transposes:
                weights = transposed
                transposition = program.step(
                    packing.transpose_kernel(width, outputs, itemsize),
                    (like, like, 0, 0, 0, 0, 0), -(-count // width),
                    w, transposed, *map(number, (1, count, outputs, outputs, width)),
                )  # fmt: skip
                result.append(transposition)
            result.append(contraction(plan, dy, weights, dx))
        if needs_dw:
            # The copy is laid out as one image: a row of pixels for each sample.
            rows_of_x = record(Layout(n, count, 1, 0, 0, 1, 1, copied=True))
            copy = program.step(
                packing.lay_out_rows, (like, like, 0, 0, 0, rows_of_x), n,
                x, copy_of_x, number(n), number(inputs), number(1), record_at(rows_of_x),
            )  # fmt: skip
            result.append(copy)
            for i, part in enumerate(parts_of_shards(shards or (n,))):
                plan = dense_weight_plan(part.stop - part.start, count, outputs, itemsize)
                of_x = copy_of_x._replace(at=part.start * count * itemsize)
                of_dy = dy._replace(at=part.start * outputs * itemsize)
                slab = slabs._replace(at=slabs.at + i * slab_bytes) if slab_bytes else dw
                result.append(contraction(plan, of_x, of_dy, slab))
            if slab_bytes:
                numbers = record(Slabs(len(shards), 0, slab_bytes // itemsize))
                table = np.array([0, count * outputs], np.int64)
                addition = program.step(
                    sum_slabs, (like, like, table, numbers), 1,
                    slabs, dw, record_at(table), record_at(numbers),
                )  # fmt: skip
                result.append(addition)
        return result

    by_blocks = program.make_program(
        steps(size),
        steps(inputs - (blocks - 1) * size),
        size=size,
        slices=blocks,
        items=min(blocks, _GROUPS),
        shared=0,
        workspace=copy_bytes + transposed_bytes + len(shards) * slab_bytes,
        per_sample={
            program.INPUT: itemsize,
            program.OUTPUT: outputs * itemsize,
            program.DX: itemsize,
            program.TARGETS: outputs * itemsize,
        },
        origins={},
        work=n * inputs * outputs,
    )
    return _ByBlocks(by_blocks, constants)


def _block(n: int, inputs: int, outputs: int, itemsize: int, most: int = _BLOCK) -> tuple[int, int]:
    """The inputs of a block, which fill tiles of both products, and the width of its transpose."""
    to_input, to_weights = tile_for(n, inputs, itemsize), tile_for(inputs, outputs, itemsize)
    smallest_block = lcm(to_input.columns, to_weights.rows)
    size = min(inputs, smallest_block * max(1, most // (smallest_block * outputs * itemsize)))
    return size, to_input.columns


def _whole_lines(size: int) -> int:
    """So many bytes, rounded up to whole cache lines."""
    return -(-size // CACHE_LINE) * CACHE_LINE
