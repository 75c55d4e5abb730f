"""Which kernel serves a pooling, with which tile, and why.

Two ordered lists, :data:`FORWARD` and :data:`GRADIENT`: the first kernel that does not refuse a
problem serves it, and the last one refuses none. A choice follows from the problem and from the
vector registers of :func:`~fastcnn.engine.numba.runtime.instruction_sets.registers` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from fastcnn.core.geometry import PoolGeometry
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.pool.average import _average_gradient, _average_rows
from fastcnn.engine.numba.pool.forward import _extreme_rows
from fastcnn.engine.numba.pool.gradient import _argmax_gradient, _extreme_gradient_rows
from fastcnn.engine.numba.pool.windows import BLOCK_ROWS
from fastcnn.engine.numba.runtime.decisions import Decision, Entry, decide
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice, registers
from fastcnn.engine.numba.runtime.types import Kernel

UNROLLED = ((2, 2), (3, 3))
"""Windows whose loops are unrolled, because most nets pool by them; each is a kernel to compile."""


class PoolProblem(NamedTuple):
    """A pooling, as far as the choice of a kernel depends on it.

    Attributes:
        kind: "max", "min" or "average".
        g: the geometry.
        itemsize: bytes of a number.
    """

    kind: str
    g: PoolGeometry
    itemsize: int

    @property
    def lanes(self) -> int:
        """Numbers in a vector register."""
        return registers().vector_bytes // self.itemsize

    @property
    def tile(self) -> tuple[int, int]:
        """Vectors and lanes of a tile: two forms, so that few kernels are compiled."""
        return 4 if self.g.c > 2 * self.lanes else 1, self.lanes

    @property
    def unrolled_tile(self) -> tuple[int, int]:
        """:attr:`tile`, and a third form: half a vector for few channels, which needs no masks."""
        if self.lanes > 8 and self.g.c <= self.lanes // 2:
            return 1, self.lanes // 2
        return self.tile


class PoolPlan(NamedTuple):
    """A kernel, and how many items it has."""

    function: Kernel
    items: int


def _entry(
    name: str,
    reason: str,
    refuses: Callable[[PoolProblem], str | None],
    make: Callable[[PoolProblem], Kernel],
    items: Callable[[PoolGeometry], int],
) -> Entry[PoolProblem, PoolPlan]:
    """An entry that serves what it does not refuse."""

    def plan(p: PoolProblem) -> PoolPlan | str:
        return refuses(p) or PoolPlan(make(p), items(p.g))

    return Entry(name, reason, plan)


def _refuses_other_windows(problem: PoolProblem) -> str | None:
    window = problem.g.kh, problem.g.kw
    if window not in UNROLLED:
        return f"its loops are unrolled for windows of 2×2 and 3×3, not {window[0]}×{window[1]}"
    if problem.kind != "max" or problem.itemsize != 4:
        return "it is compiled for the maximum of float32 alone"
    return None


def _refuses_averages(problem: PoolProblem) -> str | None:
    return None if problem.kind in ("max", "min") else "it compares numbers and adds none"


def _refuses_short_sums(problem: PoolProblem) -> str | None:
    pixels = problem.g.kh * problem.g.kw
    return None if pixels > STRETCH else f"a window of {pixels} pixels is no long sum"


def _refuses_nothing(problem: PoolProblem) -> str | None:
    return None


def _output_rows(g: PoolGeometry) -> int:
    return g.n * g.oh


def _input_blocks(g: PoolGeometry) -> int:
    return g.n * -(-g.h // BLOCK_ROWS)


FORWARD = (
    _entry(
        "unrolled window",
        "windows of 2×2 and 3×3 pixels are usual, and unrolled loops are faster",
        _refuses_other_windows,
        lambda p: _extreme_rows(True, *p.unrolled_tile, p.g.kh, p.g.kw),
        _output_rows,
    ),
    _entry(
        "any window",
        "its loops serve a window of any size",
        _refuses_averages,
        lambda p: _extreme_rows(p.kind == "max", *p.tile, 0, 0),
        _output_rows,
    ),
    _entry(
        "long average",
        "sums of many pixels need totals in float64",
        _refuses_short_sums,
        lambda p: _average_rows(*p.tile, True),
        _output_rows,
    ),
    _entry(
        "average",
        "sums of few pixels stay in registers",
        _refuses_nothing,
        lambda p: _average_rows(*p.tile, False),
        _output_rows,
    ),
)
GRADIENT = (
    _entry(
        "unrolled window",
        "windows of 2×2 and 3×3 pixels are usual, and unrolled loops are faster",
        _refuses_other_windows,
        lambda p: _extreme_gradient_rows(True, *p.unrolled_tile, p.g.kh, p.g.kw),
        _input_blocks,
    ),
    _entry(
        "any window",
        "its loops serve a window of any size",
        _refuses_averages,
        lambda p: _extreme_gradient_rows(p.kind == "max", *p.tile, 0, 0),
        _input_blocks,
    ),
    _entry(
        "average",
        "each window adds its share to its pixels",
        _refuses_nothing,
        lambda p: _average_gradient(*p.tile),
        _input_blocks,
    ),
)


@cached_choice
def forward_decision(problem: PoolProblem) -> Decision[PoolPlan]:
    """The kernel of a pooling."""
    return decide(FORWARD, problem)


@cached_choice
def gradient_decision(problem: PoolProblem) -> Decision[PoolPlan]:
    """The kernel of the gradient of a pooling."""
    return decide(GRADIENT, problem)


def forward_kernel(kind: str, g: PoolGeometry, itemsize: int) -> PoolPlan:
    """The kernel of a pooling, ``(x, y, record(pooling_of_pixels(g)))``, and its items."""
    return forward_decision(PoolProblem(kind, g, itemsize)).plan


def gradient_kernel(kind: str, g: PoolGeometry, itemsize: int) -> PoolPlan:
    """The kernel of a gradient, and its items.

    It is ``(dy, x, dx, record(g))``, without ``x`` for "average".
    """
    return gradient_decision(PoolProblem(kind, g, itemsize)).plan


def argmax_gradient_kernel(g: PoolGeometry, itemsize: int) -> tuple[Kernel, int]:
    """The gradient of 2×2 max-pooling from its argmax indices, and its items.

    It is ``(dy, indices, dx, record(g))``.
    """
    return _argmax_gradient(*PoolProblem("max", g, itemsize).unrolled_tile), _output_rows(g)


def explanation(op: str, g: PoolGeometry, itemsize: int) -> Iterator[str]:
    """Which kernel serves an operation, and why; what :func:`fastcnn.explain` prints."""
    kind = {"max": "max", "min": "min", "avg": "average"}[op[:3]]
    if not op.endswith("_backward"):
        yield from forward_decision(PoolProblem(kind, g, itemsize)).lines()
    else:
        size = 8 if sums_are_long(g) else itemsize
        yield from gradient_decision(PoolProblem(kind, g, size)).lines()


def sums_are_long(g: PoolGeometry) -> bool:
    """Whether so many windows meet in a pixel that its gradient is a long sum.

    Such a gradient is computed in float64 throughout, because few poolings overlap so.
    """
    return -(-g.kh // g.stride_h) * -(-g.kw // g.stride_w) > STRETCH
