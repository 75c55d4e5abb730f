"""Plans of Winograd's filtering: in which order a layer is computed, on which tile.

There are two orders, because the transformed squares and filters are several times as large as the
arrays that they are made of, and must not leave the cache:

- *by squares*: U is made once. An item is a block of squares, which is transformed, multiplied with
  all of U and transformed back, while V and M stay in the second-level cache.
- *by columns*: V is made for all squares, or for some hundred of them. An item is a block of output
  channels, which transforms its own filters, some input channels at a time, and uses them for all
  squares at once.

By squares, each block of squares reads all of U; by columns, each block of output channels reads
all of V. So the order follows from the squares and the output channels. Each number of y is summed
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
from fastcnn.engine.numba.conv.winograd_kernel import Launch, _winograd
from fastcnn.engine.numba.conv.winograd_partition import (
    Columns,
    Epilogue,
    Filters,
    Partition,
    Scratch,
    block_squares,
    blocks_of,
    images_of,
)
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, choice_of, registers
from fastcnn.engine.numba.runtime.types import Kernel

CHUNK = 96
"""By columns: input channels whose filters are transformed at once, so that U stays in cache."""
BLOCKS_AT_ONCE = 4
"""By columns: blocks of squares that V holds, so that V stays in the third-level cache."""
SPARE_BYTES = 4 << 20
"""Scratch of at most so many bytes is kept for the next call."""

ALL_SQUARES = record(Launch(by_columns=False, squares=True, filters=False, products=False))
_ALL_FILTERS = record(Launch(by_columns=True, squares=False, filters=True, products=False))
_BY_SQUARES = record(Launch(by_columns=False, squares=True, filters=False, products=True))
_BY_COLUMNS = record(Launch(by_columns=True, squares=False, filters=True, products=True))


class Work(NamedTuple):
    """Numbers of operations: to transform a square, to multiply it with a block of columns, and to
    transform all filters."""

    square: int
    product: int
    filters: int


class Spare(NamedTuple):
    """Scratch of a call on so many threads, and the images in doubt, all False between calls.

    With ``stays`` it is kept for another call.
    """

    threads: int
    stays: bool
    scratch: Scratch
    suspects: Array


class WinogradPlan(NamedTuple):
    """A layer made ready.

    Attributes:
        kernel: the compiled function.
        partition: how the layer is cut; ``numbers`` is its record.
        images: images of the batch; ``squares`` those of all images.
        at_once: squares of a launch.
        width: output channels of a block.
        refusal: why the order is not by squares, or None where it is.
        work: numbers of operations.
        spare: scratch of earlier calls, which nobody uses.
    """

    kernel: Kernel
    partition: Partition
    numbers: Array
    images: int
    squares: int
    at_once: int
    width: int
    refusal: str | None
    work: Work
    spare: list[Spare]

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
def forward_plan(g: ConvGeometry, itemsize: int, epilogue: Epilogue | None = None) -> WinogradPlan:
    """The plan of the forward pass, made once for each geometry and epilogue."""
    tap = g.ic * g.oc
    filters = Filters(
        start=0,
        block=_width(itemsize),
        tap_row=g.kw * tap,
        tap=tap,
        row=g.oc,
        columns=g.oc,
    )
    return _plan(g, itemsize, filters, epilogue or Epilogue())


@cached_choice
def input_gradient_plan(
    g: ConvGeometry, itemsize: int, epilogue: Epilogue | None = None
) -> WinogradPlan:
    """The plan of the input's gradient, over filters as ``transpose_filters`` lays them out."""
    width = _width(itemsize)
    taps, tap = g.kh * g.kw, g.oc * width
    filters = Filters(
        start=(taps - 1) * tap,
        block=taps * tap,
        tap_row=-g.kw * tap,
        tap=-tap,
        row=width,
        columns=-(-g.ic // width) * width,
    )
    return _plan(g.turned, itemsize, filters, epilogue or Epilogue())


def _width(itemsize: int) -> int:
    """Columns of a register tile."""
    return registers().tile_vectors * registers().vector_bytes // itemsize


def _plan(g: ConvGeometry, itemsize: int, filters: Filters, epilogue: Epilogue) -> WinogradPlan:
    host, width = registers(), _width(itemsize)
    lanes = width // host.tile_vectors
    cut = policy.squares(g)
    total, points = g.n * cut.number, cut.points
    refusal = not_by_squares(total, points, g, itemsize)
    chunk, in_block = g.ic, block_squares(total)
    if refusal is not None:
        chunk, in_block = min(g.ic, CHUNK), 2 * host.tile_rows
    partition = Partition(
        images_of(g),
        cut,
        blocks_of(g.ic, points, in_block, lanes),
        # A vector between points, for the same reason as a block's pitch is odd.
        Columns(-(-g.oc // width), chunk, chunk * width + lanes, points * in_block * width),
        filters,
        epilogue,
        border=max(points * g.ic, cut.side**2 * lanes),
    )
    return WinogradPlan(
        _winograd(cut.side, g.kh, host.tile_rows, host.tile_vectors, lanes),
        partition,
        record(partition),
        g.n,
        total,
        total if refusal is None else BLOCKS_AT_ONCE * in_block,
        width,
        refusal,
        Work(8 * points * g.ic, points * g.ic * width // 2, 8 * points * g.ic * g.oc),
        spare=[],
    )


def scratch_of(plan: WinogradPlan, dtype: np.dtype) -> Spare:
    """Scratch of an earlier call, or new memory.

    A small layer's stays with its plan, because each core then finds its part where it left it.
    """
    threads = get_num_threads()
    try:
        spare = plan.spare.pop()
        if spare.threads == threads:
            return spare
    except IndexError:
        pass
    c = plan.partition
    blocks = -(-min(plan.squares, plan.at_once) // c.blocks.squares)
    if plan.by_columns:  # each thread has filters of its own, and products of all blocks
        v_blocks, u_blocks, m_blocks = blocks, threads, threads * blocks
    else:
        v_blocks, u_blocks, m_blocks = threads, c.columns.blocks, threads
    sizes = (
        v_blocks * c.blocks.length,
        u_blocks * c.columns.point * c.squares.points,
        m_blocks * c.columns.products,
        threads * c.border,
    )
    scratch = Scratch(*(arrays.allocate((size,), dtype) for size in sizes))
    suspects = arrays.allocate((plan.images,), np.bool_)
    suspects[...] = False
    stays = sum(sizes) * np.dtype(dtype).itemsize <= SPARE_BYTES
    return Spare(threads, stays, scratch, suspects)
