"""The gradient of the filters by Winograd's minimal filtering.

It is a filter too, with the gradient of the output in the role of the filter: for a square of m × m
numbers of dy and the (m + r − 1)² inputs that they meet, F(r, m) gives what they add to the r × r
taps. Squares of dy and x are transformed, and each of the n² numbers of a transformed square is a
product of its own, summed over all squares of all images:

    D[e][ic, oc] = Σ_square V[e][square, ic] · Z[e][square, oc]

Only then is D transformed back, once for each filter. F(3×3, 4×4) takes 36 products for a square
instead of 144. V is what the forward pass makes of x.

There are two orders, and ``_not_in_slabs`` chooses one:

- *in slabs*, where D is not too large: an item is a slab of squares, which are
  transformed some at a time and multiplied while V and Z are in the cache. Each slab has a D of
  its own, and gives a gradient; these are added up in order. No slab has more squares than a
  stretch of a long sum has terms (:mod:`fastcnn.core.long_sums`).
- *in passes*, where D is larger: V and Z of many squares fill a bounded scratch; then an item is a
  block of input channels by a block of output channels, and sums over these squares. D waits
  between the passes of a stretch; each stretch gives a gradient, which is added to totals.

What an item is and in which order it sums follows from the problem alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.core.long_sums import STRETCH
from fastcnn.core.settings import get_num_threads
from fastcnn.engine import policy
from fastcnn.engine.numba.contraction.column_sums import add_to_totals, column_sums, round_totals
from fastcnn.engine.numba.conv import direct
from fastcnn.engine.numba.conv.winograd_gradient_kernel import (
    GradientLaunch,
    Range,
    _winograd_gradient,
)
from fastcnn.engine.numba.conv.winograd_partition import (
    GradientPartition,
    Sums,
    block_squares,
    blocks_of,
    images_of,
    vectors_of,
)
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.finite import all_finite
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, choice_of, registers
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel

LEAST_PASS, MOST_PASS = 4 * 1024 * 1024, 32 * 1024 * 1024
"""Bytes of V and Z in a pass, which the third-level cache holds beside other things; more where D
is larger, because each pass reads and writes D once. A larger block is one whole pass."""
MOST_SLABS, LEAST_SLABS = 8, 4
"""Slabs at most, unless sums are long, and at least."""
SLAB_SQUARES = 64
"""Squares of a slab that are worth transforming its D back."""
SLAB_SUMS = 1536 * 1024
"""Bytes of D in slabs at most. A block of squares reads and writes D once, so D need not stay in
the second-level cache; in passes each piece of D reads parts of V and Z from beyond it."""

_SLABS = record(GradientLaunch(transforms_squares=True, multiplies=True, own_sums=True))
_SQUARES = record(GradientLaunch(transforms_squares=True, multiplies=False, own_sums=False))
_PRODUCTS = record(GradientLaunch(transforms_squares=False, multiplies=True, own_sums=False))
_ADDED_PRODUCTS = record(GradientLaunch(transforms_squares=False, multiplies=True, own_sums=True))


class GradientPlan(NamedTuple):
    """A gradient made ready.

    Attributes:
        kernel: the compiled function.
        partition: how it is cut; ``numbers`` is its record.
        slabs: how many there are; 0 in passes. ``refusal`` says why there are none.
        pass_squares: squares of a pass.
        stretch: squares of a stretch, in passes.
        square_work, product_work: numbers of operations for a square.
    """

    kernel: Kernel
    partition: GradientPartition
    numbers: Array
    slabs: int
    refusal: str | None
    pass_squares: int
    stretch: int
    square_work: int
    product_work: int

    def lines(self) -> Iterator[str]:
        """What :func:`fastcnn.explain` prints."""
        if self.refusal is None:
            yield "kernel: in slabs, because the sums of all channels are small"
        else:
            yield "kernel: in passes, because slabs do not pay"
        items = self.slabs or self.partition.sums.pieces
        yield f"  compiled as {choice_of(self.kernel)}; {items} item{'s' if items != 1 else ''}"
        if self.refusal is not None:
            yield f"  not in slabs: {self.refusal}"


def conv2d_filter_gradient(dy: Array, x: Array, g: ConvGeometry) -> Array:
    """``dw``, for filters of 3×3 or 5×5 with stride 1, dense, in one group."""
    dw = empty_like_type(dy, *g.filter_shape)
    write_filter_gradient(dy, x, g, dw)
    return dw


def write_filter_gradient(dy: Array, x: Array, g: ConvGeometry, dw: Array) -> None:
    """Write the gradient of such filters to ``dw``, C-contiguous."""
    if g.n == 0:
        dw[...] = 0
        return
    plan = gradient_plan(g, dy.itemsize)
    flat = readable(x).reshape(-1), readable(dy).reshape(-1)
    if plan.slabs:
        _sum_in_slabs(plan, *flat, dw)
    else:
        _sum_in_passes(plan, *flat, dw)
    # A number that is not finite spoils all taps. A direct sum says where it belongs.
    if not all_finite(dw.reshape(-1)):
        direct.write_filter_gradient(dy, x, g, dw)


def explanation(op: str, g: ConvGeometry, itemsize: int) -> Iterator[str]:
    """In which order the gradient is computed, and why; what :func:`fastcnn.explain` prints."""
    if g.n == 0:
        yield "kernel: none, because the batch is empty"
        return
    yield from gradient_plan(g, itemsize).lines()


def _scratch(plan: GradientPlan, x: Array, blocks: int, pieces: int, threads: int) -> list[Array]:
    """V and Z of so many blocks, D of so many pieces, and room for squares on the border."""
    partition = plan.partition
    # The last tile of input channels reads on beyond them.
    v = blocks * partition.blocks.length + registers().tile_rows
    sizes = (
        v,
        blocks * partition.dy.length,
        pieces * partition.sums.numbers,
        threads * partition.border,
    )
    return [empty_like_type(x, size) for size in sizes]


def _sum_in_slabs(plan: GradientPlan, x: Array, dy: Array, dw: Array) -> None:
    partition, threads = plan.partition, get_num_threads()
    shares = min(threads, plan.slabs)
    v, z, d, border = _scratch(plan, x, shares, shares * partition.sums.pieces, threads)
    slabs = empty_like_type(x, plan.slabs, dw.size)
    operands = x, dy, v, z, d, slabs.reshape(-1), border
    work = partition.total * (plan.square_work + plan.product_work)
    squares = record(Range(0, partition.total, 0, partition.total))
    numbers = plan.slabs, shares, squares, plan.numbers, _SLABS
    parallel_for(plan.kernel, shares, work, *operands, *numbers)
    column_sums(slabs, dw.reshape(-1))


def _sum_in_passes(plan: GradientPlan, x: Array, dy: Array, dw: Array) -> None:
    partition, threads, flat_dw = plan.partition, get_num_threads(), dw.reshape(-1)
    has_passes = plan.pass_squares < partition.total
    products, pieces = _PRODUCTS, min(threads, partition.sums.pieces)
    if has_passes:  # D waits from pass to pass
        products, pieces = _ADDED_PRODUCTS, partition.sums.pieces
    blocks = -(-plan.pass_squares // partition.blocks.squares)
    v, z, d, border = _scratch(plan, x, blocks, pieces, threads)
    operands = x, dy, v, z, d, flat_dw, border

    def run(launch: Array, squares: Range, items: int, work: int) -> None:
        shares = min(threads, items)
        numbers = items, shares, record(squares), plan.numbers, launch
        operations = (squares.last - squares.first) * work
        parallel_for(plan.kernel, shares, operations, *operands, *numbers)

    totals = arrays.allocate((dw.size if plan.stretch < partition.total else 0,), np.float64)
    for begin in range(0, partition.total, plan.stretch):
        end = min(partition.total, begin + plan.stretch)
        for first in range(begin, end, plan.pass_squares):
            squares = Range(first, min(end, first + plan.pass_squares), begin, end)
            blocks = -(-(squares.last - first) // partition.blocks.squares)
            run(_SQUARES, squares, blocks, plan.square_work)
            run(products, squares, partition.sums.pieces, plan.product_work)
        if totals.size:
            parallel_for(add_to_totals, dw.size, dw.size, flat_dw, totals, begin > 0)
    if totals.size:
        parallel_for(round_totals, dw.size, dw.size, totals.reshape(1, -1), flat_dw)


def _not_in_slabs(sum_bytes: int, total: int) -> str | None:
    """Why a gradient is not summed in slabs, or None where it is."""
    if sum_bytes > SLAB_SUMS:
        return f"the sums of {sum_bytes >> 10} KiB are large"
    if total < LEAST_SLABS * SLAB_SQUARES:
        return f"{total} squares make fewer than {LEAST_SLABS} slabs"
    return None


@cached_choice
def gradient_plan(g: ConvGeometry, itemsize: int) -> GradientPlan:
    """The plan, made once for each geometry."""
    host, squares = registers(), policy.squares(g)
    lanes = host.vector_bytes // itemsize
    vectors = vectors_of(g.oc, itemsize)
    width, points, total = vectors * lanes, squares.points, g.n * squares.number
    column_blocks, rows = -(-g.oc // width), 2 * host.tile_rows
    row_blocks = -(-g.ic // rows)
    sum_bytes = points * g.ic * g.oc * itemsize
    refusal = _not_in_slabs(sum_bytes, total)
    in_block, slabs = block_squares(total), 0
    if refusal is None:  # blocks of equal size, because each reads and writes all of D
        slabs = max(min(MOST_SLABS, total // SLAB_SQUARES), -(-total // STRETCH))
        slab = -(-total // slabs)
        in_block = -(-slab // max(1, round(slab / in_block)))
    blocks = blocks_of(g.ic, points, in_block, lanes)
    dy_blocks = blocks_of(column_blocks * width, points, in_block, lanes)
    point = rows * width + lanes
    partition = GradientPartition(
        images_of(g),
        squares,
        blocks,
        dy_blocks,
        Sums(rows, row_blocks, row_blocks * column_blocks, point, points * point),
        border=max(squares.side**2 * g.oc, points * g.ic, squares.side**2 * lanes),
        total=total,
    )
    pass_bytes = min(max(LEAST_PASS, sum_bytes), MOST_PASS)
    in_pass = max(1, pass_bytes // ((blocks.length + dy_blocks.length) * itemsize)) * in_block
    squares_at_once = min(in_pass, max(1, STRETCH // in_block) * in_block, total)
    return GradientPlan(
        _winograd_gradient(squares.side, g.kh, host.tile_rows, vectors, lanes),
        partition,
        record(partition),
        slabs,
        refusal,
        squares_at_once,
        stretch=squares_at_once * max(1, STRETCH // squares_at_once),
        square_work=8 * points * (g.ic + g.oc),
        product_work=points * g.ic * column_blocks * width // 2,
    )
