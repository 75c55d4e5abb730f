"""Plans of Winograd's filtering: in which order a layer is computed, on which tile.

There are two orders, because the transformed squares and filters are several times as large as the
arrays that they are made of, and must not leave the cache:

- *by squares*: U is made once. An item is a block of squares, which is transformed, multiplied with
  all of U and transformed back, while V and M stay in the second-level cache.
- *by columns*: V is made for :data:`BLOCKS_AT_ONCE` blocks of squares at a time. An item is a block
  of output channels, which transforms its own filters, some input channels at a time, and uses them
  for all squares at once.

By squares, each block of squares reads all of U; by columns, each block of output channels reads
all of V. So the order follows from the numbers of squares and output channels, and from the bytes
of U, which must fit into the third-level cache (:func:`not_by_squares`). Each number of y is summed
in the order of the input channels in both orders, in any tile, on any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.core.hardware import L3_BYTES
from fastcnn.core.settings import get_num_threads
from fastcnn.engine import policy
from fastcnn.engine.numba.conv.winograd_kernel import _winograd
from fastcnn.engine.numba.conv.winograd_partition import (
    ColumnBlocks,
    Filters,
    Launch,
    Partition,
    SquareEpilogue,
    block_squares,
    blocks_of,
    images_of,
    vectors_of,
)
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, choice_of, registers
from fastcnn.engine.numba.runtime.types import Kernel

CHUNK = 96
"""By columns: input channels whose filters are transformed at once, so that U stays in cache."""
BLOCKS_AT_ONCE = 4
"""By columns: blocks of squares that V holds, so that V stays in the third-level cache."""
MOST_KEPT_BYTES = 4 << 20
"""Scratch of at most so many bytes is kept for the next call."""

_ALL_SQUARES = Launch(False, transforms_squares=True, transforms_filters=False, multiplies=False)
_ALL_FILTERS = Launch(True, transforms_squares=False, transforms_filters=True, multiplies=False)
_BY_SQUARES = Launch(False, transforms_squares=True, transforms_filters=False, multiplies=True)
_BY_COLUMNS = Launch(True, transforms_squares=False, transforms_filters=True, multiplies=True)
_PRODUCTS_ONLY = Launch(True, transforms_squares=False, transforms_filters=False, multiplies=True)


class Work(NamedTuple):
    """Numbers of operations.

    Attributes:
        square: to transform a square.
        product: to multiply a square with a block of columns.
        filters: to transform all filters.
    """

    square: int
    product: int
    filters: int


class LaunchPlan(NamedTuple):
    """A launch of the kernel: its record, how many shares it has, and its operations."""

    launch: Array
    shares: int
    work: int


class CallScratch(NamedTuple):
    """Memory of a call on so many threads, with its launches.

    Attributes:
        threads: how many threads.
        is_kept: whether a later call may use it again.
        launches: the launches, one after the other.
        memory: squares, products and borders.
        u: transformed filters.
        suspects: images in doubt, all False between calls.
    """

    threads: int
    is_kept: bool
    launches: list[LaunchPlan]
    memory: Array
    u: Array
    suspects: Array


class WinogradPlan(NamedTuple):
    """A layer that is ready to run.

    Attributes:
        kernel: the compiled function.
        partition: how the layer is cut; ``numbers`` is its record.
        images: images of the batch.
        squares: squares of all images.
        launch_squares: squares of a launch.
        width: output channels of a block.
        refusal: why the order is not by squares, or None where it is.
        work: numbers of operations.
        has_filters: whether the caller has transformed all filters before.
        kept_scratch: scratch of earlier calls, which nobody uses.
    """

    kernel: Kernel
    partition: Partition
    numbers: Array
    images: int
    squares: int
    launch_squares: int
    width: int
    refusal: str | None
    work: Work
    has_filters: bool
    kept_scratch: list[CallScratch]

    @property
    def by_columns(self) -> bool:
        """Whether the order is by columns."""
        return self.refusal is not None

    def lines(self) -> Iterator[str]:
        """What :func:`fastcnn.explain` prints."""
        if self.refusal is None:
            items = -(-self.squares // self.partition.blocks.squares)
            yield "kernel: by squares, because many squares use each transformed filter"
        else:
            items = self.partition.columns.blocks
            yield "kernel: by columns, because few squares use each transformed filter"
        yield f"  compiled as {choice_of(self.kernel)}; {items} item{'s' if items != 1 else ''}"
        if self.refusal is not None:
            yield f"  not by squares: {self.refusal}"


def not_by_squares(squares: int, points: int, g: ConvGeometry, itemsize: int) -> str | None:
    """Why a layer of so many squares is not computed by squares, or None where it is.

    Measured on layers of ResNet-8, ResNet-50 and VGG (docs/measurements.md, "By columns").
    """
    if 2 * squares < g.oc:
        return f"{squares} squares are too few to transform all filters for {g.oc} columns first"
    size = points * g.ic * g.oc * itemsize
    if size > L3_BYTES:
        return f"the transformed filters, {size >> 20} MiB, would be read for each block of squares"
    return None


@cached_choice
def forward_plan(
    g: ConvGeometry,
    itemsize: int,
    epilogue: SquareEpilogue | None = None,
    has_filters: bool = False,
    pitch: int = 0,
) -> WinogradPlan:
    """The plan of the forward pass, made once for each geometry and epilogue.

    With ``has_filters``, a caller transforms the filters once for many calls. With ``pitch``,
    neighbouring pixels of the result lie so many numbers apart.
    """
    tap = g.ic * g.oc
    filters = Filters(
        start=0,
        block=_width(g.oc, itemsize),
        tap_row=g.kw * tap,
        tap=tap,
        row=g.oc,
        columns=g.oc,
    )
    return _plan(g, itemsize, filters, epilogue or SquareEpilogue(), has_filters, pitch)


@cached_choice
def input_gradient_plan(
    g: ConvGeometry, itemsize: int, epilogue: SquareEpilogue | None = None
) -> WinogradPlan:
    """The plan of the input's gradient, over filters as ``transpose_filters`` lays them out."""
    width = _width(g.ic, itemsize)
    taps, tap = g.kh * g.kw, g.oc * width
    filters = Filters(
        start=(taps - 1) * tap,
        block=taps * tap,
        tap_row=-g.kw * tap,
        tap=-tap,
        row=width,
        columns=-(-g.ic // width) * width,
    )
    return _plan(g.turned, itemsize, filters, epilogue or SquareEpilogue(), has_filters=False)


def _width(columns: int, itemsize: int) -> int:
    """Columns of a register tile for a layer of so many."""
    return vectors_of(columns, itemsize) * registers().vector_bytes // itemsize


def _plan(
    g: ConvGeometry,
    itemsize: int,
    filters: Filters,
    epilogue: SquareEpilogue,
    has_filters: bool,
    pitch: int = 0,
) -> WinogradPlan:
    host, width, vectors = registers(), _width(g.oc, itemsize), vectors_of(g.oc, itemsize)
    lanes = width // vectors
    squares = policy.squares(g)
    total, points = g.n * squares.number, squares.points
    refusal = not_by_squares(total, points, g, itemsize)
    chunk, in_block = g.ic, block_squares(total)
    if refusal is not None:
        chunk, in_block = g.ic if has_filters else min(g.ic, CHUNK), 2 * host.tile_rows
    partition = Partition(
        images_of(g, pitch),
        squares,
        blocks_of(g.ic, points, in_block, lanes),
        # A vector between points, for the same reason as a block's pitch is odd.
        ColumnBlocks(-(-g.oc // width), chunk, chunk * width + lanes, points * in_block * width),
        filters,
        epilogue,
        border=max(points * g.ic, squares.side**2 * lanes),
    )
    return WinogradPlan(
        _winograd(squares.side, g.kh, host.tile_rows, vectors, lanes),
        partition,
        record(partition),
        g.n,
        total,
        total if refusal is None else BLOCKS_AT_ONCE * in_block,
        width,
        refusal,
        Work(8 * points * g.ic, points * g.ic * width // 2, 8 * points * g.ic * g.oc),
        has_filters,
        kept_scratch=[],
    )


class WinogradScratch(NamedTuple):
    """Scratch of a plan on so many threads, in numbers.

    Attributes:
        products_at: where the products begin; the transformed squares begin at 0.
        border_at: where the copies of squares on the border begin.
        scratch: all of it.
        filters: numbers of the transformed filters, which have an array of their own.
    """

    products_at: int
    border_at: int
    scratch: int
    filters: int


def sizes_of(plan: WinogradPlan, threads: int) -> WinogradScratch:
    """How much scratch a plan needs."""
    partition = plan.partition
    blocks = -(-min(plan.squares, plan.launch_squares) // partition.blocks.squares)
    if plan.by_columns:  # each thread has filters of its own, and products of all blocks
        v_blocks, u_blocks, m_blocks = blocks, threads, threads * blocks
    else:
        v_blocks, u_blocks, m_blocks = threads, partition.columns.blocks, threads
    if plan.has_filters:
        u_blocks = partition.columns.blocks
    products_at = v_blocks * partition.blocks.length
    border_at = products_at + m_blocks * partition.columns.products
    filters = u_blocks * partition.columns.point * partition.squares.points
    return WinogradScratch(products_at, border_at, border_at + threads * partition.border, filters)


def filters_launch(plan: WinogradPlan, threads: int) -> LaunchPlan:
    """The launch that transforms all filters."""
    blocks = plan.partition.columns.blocks
    return _launch_plan(plan, threads, _ALL_FILTERS, 0, 0, blocks, plan.work.filters)


def launches_of(plan: WinogradPlan, threads: int) -> list[LaunchPlan]:
    """The launches of a plan. There is none for the filters if ``has_filters`` is true."""
    partition, work = plan.partition, plan.work
    blocks, result = partition.columns.blocks, list[LaunchPlan]()
    if not plan.by_columns:
        if not plan.has_filters:
            result.append(filters_launch(plan, threads))
        items = -(-plan.squares // partition.blocks.squares)
        operations = plan.squares * blocks * work.product
        result.append(_launch_plan(plan, threads, _BY_SQUARES, 0, plan.squares, items, operations))
        return result
    for first in range(0, plan.squares, plan.launch_squares):
        last = min(plan.squares, first + plan.launch_squares)
        count = last - first
        item_squares = _squares_of_item(partition.blocks.squares)
        full_blocks, squares_at_end = divmod(count, partition.blocks.squares)
        items = full_blocks * (partition.blocks.squares // item_squares) - (
            -squares_at_end // item_squares
        )
        launch = _ALL_SQUARES._replace(item_squares=item_squares)
        result.append(_launch_plan(plan, threads, launch, first, last, items, count * work.square))
        operations = count * blocks * work.product
        launch = _PRODUCTS_ONLY
        if not plan.has_filters:
            launch, operations = _BY_COLUMNS, operations + work.filters
        result.append(_launch_plan(plan, threads, launch, first, last, blocks, operations))
    return result


def _squares_of_item(block: int) -> int:
    """Squares of an item that transforms squares alone: a few, which divide a block."""
    return next(count for count in (4, 3, 2, 1) if block % count == 0)


def _launch_plan(
    plan: WinogradPlan, threads: int, launch: Launch, first: int, last: int, items: int, work: int
) -> LaunchPlan:
    sizes, shares = sizes_of(plan, threads), min(threads, items)
    complete = launch._replace(
        first=first, last=last, items=items, shares=shares, products_at=sizes.products_at,
        border_at=sizes.border_at,
    )  # fmt: skip
    return LaunchPlan(record(complete), shares, work)


def scratch_of(plan: WinogradPlan, dtype: np.dtype) -> CallScratch:
    """Scratch of an earlier call, or new memory.

    The scratch of a small layer stays with its plan, because each core then finds its part in its
    own cache.
    """
    threads = get_num_threads()
    try:
        scratch = plan.kept_scratch.pop()
        if scratch.threads == threads:
            return scratch
    except IndexError:
        pass
    sizes = sizes_of(plan, threads)
    memory, u = (arrays.allocate((size,), dtype) for size in (sizes.scratch, sizes.filters))
    suspects = arrays.allocate((plan.images,), np.bool_)
    suspects[...] = False
    is_kept = (sizes.scratch + sizes.filters) * np.dtype(dtype).itemsize <= MOST_KEPT_BYTES
    return CallScratch(threads, is_kept, launches_of(plan, threads), memory, u, suspects)
