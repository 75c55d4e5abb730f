"""The list of steps that a segment becomes, and the memory that its operands lie in.

:class:`StepList` is what layers write their steps to (:mod:`fastcnn.models.execution.lowering`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.contraction import column_sums, packing
from fastcnn.engine.numba.contraction.contraction import Plan
from fastcnn.engine.numba.contraction.packing import Layout
from fastcnn.engine.numba.elementwise import activations, steps
from fastcnn.engine.numba.runtime import program
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Operand, address, fixed_address, number
from fastcnn.engine.numba.runtime.types import Kernel


def whole_lines(size: int) -> int:
    """So many bytes, rounded up to whole cache lines."""
    return -(-size // CACHE_LINE) * CACHE_LINE


Name = Literal["x", "dy"]
"""The name of an array of the batch: a layer's input, or the gradient of its output."""


class _BatchArray(NamedTuple):
    base: int
    bytes_of_sample: int


class Shared:
    """Places of arrays that the slices of one batch share.

    Attributes:
        transposed: for a layer's index and the width of blocks, the first byte of its filters.
        arrays: the arrays of the batch: "x" and "dy" of a layer, by its index.
    """

    def __init__(self) -> None:
        self.transposed: dict[tuple[int, int], int] = {}
        self.arrays: dict[tuple[Name, int], _BatchArray] = {}
        self._transposed_size = 0

    def transposed_offset(self, i: int, width: int, size: int) -> int:
        """The first byte of transposed filters of so many bytes."""
        if (i, width) not in self.transposed:
            self.transposed[i, width] = self._transposed_size
            self._transposed_size += size
        return self.transposed[i, width]

    def base(self, name: Name, i: int, bytes_of_sample: int) -> int:
        """The base of an array of the batch."""
        new = _BatchArray(program.FIRST_BATCH_ARRAY + len(self.arrays), bytes_of_sample)
        return self.arrays.setdefault((name, i), new).base

    def origins(self, count: int) -> tuple[dict[int, int], int]:
        """Where the arrays of so many samples begin, after the filters, and the bytes of all."""
        origins, size = {}, self._transposed_size
        for base, bytes_of_sample in self.arrays.values():
            origins[base] = size
            size += whole_lines(count * bytes_of_sample)
        return origins, size


class StepList:
    """Steps for ``n`` samples of a batch, and places in their workspace.

    Attributes:
        n, dtype, itemsize: of activations.
        like: a number of the dtype, which stands for arrays where types alone matter.
        steps: the list that grows.
        keeps_copies: whether copied images stay as they are, so that a copy serves twice.
        zeros: the operand of steps that need a bias and have none.
        slab: where the gradient of all parameters that train goes; ``gradient`` by default.
        size: bytes of the workspace.
        shared: places of arrays that the slices of one batch share.
        constants: arrays that steps name by their addresses.
    """

    def __init__(self, n: int, zeros: Array, gradient: Array, shared: Shared) -> None:
        self.n, self.dtype, self.itemsize = n, zeros.dtype, zeros.itemsize
        self.like = np.zeros(1, self.dtype)
        self.steps: list[Array] = []
        self.keeps_copies = True
        self.zeros, self.slab = fixed_address(zeros), fixed_address(gradient)
        self.size, self.shared = 0, shared
        self._gradient = gradient
        self.constants: list[Array] = []
        self._copies: dict[tuple[Operand, Layout], Operand] = {}

    # --- steps ------------------------------------------------------------------------------------

    def step(
        self,
        kernel: Kernel,
        examples: tuple[object, ...],
        stop: int,
        *operands: Operand,
        work: int = 0,
    ) -> None:
        """A call of ``kernel`` over ``range(stop)``.

        ``examples`` are arguments of the kernel's types, and their values do not matter. ``work``
        is the number of operations, where threads may share the step; 0 stands for ``stop``.
        """
        if stop:
            self.steps.append(program.step(kernel, examples, stop, *operands))

    def contract(
        self, plan: Plan, x: Operand, w: Operand, b: Operand, y: Operand, relu: bool = False
    ) -> None:
        """A contraction ``y = x · w + b``."""
        like = self.like
        self.step(
            plan.function, (like, like, like, like, True, plan.numbers), plan.items,
            x, w, b, y, number(relu), self.constant(plan.numbers), work=plan.work,
        )  # fmt: skip

    def mask(self, count: int, dy: Operand, y: Operand, target: Operand | None) -> Operand:
        """ReLU's gradient from its output, at ``target``, or in place for None; its place."""
        like = self.like
        if target is None:
            self.step(steps.mask, (like, like), count, y, dy)
            return dy
        self.step(activations.relu_gradient_kernel, (like, like, like), count, dy, y, target)
        return target

    def sum_rows(self, rows: int, columns: int, matrix: Operand, sums: Operand) -> None:
        """The sums over the rows of a matrix."""
        kernel, items = column_sums.column_sums_for(columns, self.itemsize)
        numbers = column_sums.matrix(rows, columns)
        examples = self.like, self.like, numbers
        self.step(kernel, examples, items, matrix, sums, self.constant(numbers))

    def lay_out(self, x: Operand, layout: Layout, shape: tuple[int, ...]) -> Operand:
        """Where the images at ``x`` lie in a layout: at ``x``, or in a copy."""
        if not layout.copied:
            return x
        n, h, w, c = shape
        if (x, layout) in self._copies:
            return self._copies[x, layout]
        place = self.room(n * layout.height * layout.width * layout.pitch)
        if self.keeps_copies:
            self._copies[x, layout] = place
        numbers = record(layout)
        self.step(
            packing.lay_out_rows, (self.like, self.like, 0, 0, 0, numbers), n * layout.height,
            x, place, number(h), number(w), number(c), self.constant(numbers),
            work=2 * n * layout.height * layout.width * layout.pitch,
        )  # fmt: skip
        return place

    # --- places -----------------------------------------------------------------------------------

    def constant(self, array: Array) -> Operand:
        """The operand of an array, which the list keeps alive."""
        self.constants.append(array)
        return fixed_address(array)

    def room(self, count: int) -> Operand:
        """A place for so many numbers, at the start of a cache line."""
        at = self.size
        self.size += whole_lines(count * self.itemsize)
        return Operand(program.ITEM, at)

    def gradient(self, array: Array) -> Operand:
        """Where steps write the gradient of a parameter; ``array`` is its view of ``gradient``."""
        at = address(array) - address(self._gradient)
        return Operand(self.slab.base, self.slab.at + at)

    def transposed(self, i: int, width: int, count: int) -> Operand:
        """A place for the ``count`` transposed filters of layer ``i``, in blocks of ``width``."""
        size = whole_lines(count * self.itemsize)
        return Operand(program.SHARED, self.shared.transposed_offset(i, width, size))

    def batch_array(self, name: Name, i: int, count: int) -> Operand:
        """A place in an array of the whole batch, with ``count`` numbers for these samples."""
        return Operand(self.shared.base(name, i, count // self.n * self.itemsize), 0)
