"""Which kernels serve a dense layer and its gradients: three lists, the last entry serves all.

The entries are those of :mod:`fastcnn.engine.numba.contraction.chooser`, after some that dense
layers alone have. The kernel of each entry takes the operands of a contraction,
``(x, w, b, y, relu, numbers)``, all flat. That of ``LARGE_WEIGHTS`` does not, so callers ask for
this name first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from fastcnn.engine.numba.contraction import few_steps
from fastcnn.engine.numba.contraction.chooser import (
    CONTRACTIONS,
    Problem,
    tile_for,
)
from fastcnn.engine.numba.contraction.contraction import Columns, Contraction, Plan, product
from fastcnn.engine.numba.contraction.few_steps import plan_few_steps
from fastcnn.engine.numba.dense.few_samples import plan_few_samples
from fastcnn.engine.numba.dense.large import is_large, large_plan
from fastcnn.engine.numba.dense.packed import plan_packed
from fastcnn.engine.numba.runtime.decisions import Decision, Entry, decide
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice


class Dense(NamedTuple):
    """A dense layer of ``n`` samples.

    Attributes:
        n: samples.
        inputs: inputs whose gradient is computed, or all.
        outputs: columns of the weights.
        itemsize: bytes of a number.
        all_inputs: inputs of a sample; ``inputs`` may be a part of them.
        alone: whether the caller runs the two kernels that a layer with large weights needs. A
            layer of a segment is one kernel. Segments hold no weights that are large, so the entry
            only guards them.
    """

    n: int
    inputs: int
    outputs: int
    itemsize: int
    all_inputs: int = 0
    alone: bool = False


def _forward(p: Dense) -> Contraction:
    """``x @ w``: rows are samples, steps inputs."""
    return product(p.n, p.outputs, p.inputs, (p.inputs, 1), p.outputs)


def _to_inputs(p: Dense) -> Contraction:
    """``dy @ w.T``: rows are samples, steps outputs, on weights that are transposed in blocks."""
    width = tile_for(p.n, p.all_inputs, p.itemsize).columns
    c = product(p.n, p.inputs, p.outputs, (p.outputs, 1), width)
    return c._replace(
        rows=c.rows._replace(y_c=p.all_inputs),
        columns=Columns(p.inputs, 0, p.outputs * width),
    )


def _to_weights(p: Dense) -> Contraction:
    """``x.T @ dy``: rows are inputs, steps samples."""
    return product(p.inputs, p.outputs, p.n, (1, p.inputs), p.outputs)


def _contractions(c: Callable[[Dense], Contraction]) -> tuple[Entry[Dense, Plan], ...]:
    """The entries for contractions, as entries for a dense layer."""

    def adapted(entry: Entry[Problem, Plan]) -> Entry[Dense, Plan]:
        def plan(p: Dense) -> Plan | str:
            of_layer = c(p)
            # Transposed: in blocks as wide as the tile for all inputs.
            columns = p.all_inputs if of_layer.columns.w_block else of_layer.columns.total
            tile = tile_for(of_layer.row_count, columns, p.itemsize)
            return entry.plan(Problem(of_layer, tile, p.itemsize))

        return Entry(entry.name, entry.reason, plan)

    return tuple(map(adapted, CONTRACTIONS))


def _large_weights(p: Dense) -> Plan | str:
    if not is_large(p.inputs, p.outputs, p.itemsize):
        return "the weights fit into the cache, or the columns are few"
    if not p.alone:
        return "the layer is a step of a segment, which is one kernel"
    return large_plan(p.n, p.inputs, p.outputs, p.itemsize)


LARGE_WEIGHTS = Entry(
    "large weights",
    "weights that the cache does not hold are read once",
    _large_weights,
)
FORWARD: tuple[Entry[Dense, Plan], ...] = (
    LARGE_WEIGHTS,
    Entry(
        "packed rows",
        "vectors hold several rows of weights without a gap, and empty lanes cost as much",
        lambda p: plan_packed(p.n, p.inputs, p.outputs, p.itemsize),
    ),
    *_contractions(_forward),
)
FEW_SAMPLES = Entry[Dense, Plan](
    "few samples",
    "to transpose all weights in memory would take longer than the products",
    lambda p: plan_few_samples(p.n, p.inputs, p.outputs, p.itemsize, p.all_inputs),
)
INPUT_GRADIENT: tuple[Entry[Dense, Plan], ...] = (FEW_SAMPLES, *_contractions(_to_inputs))
WEIGHT_GRADIENT: tuple[Entry[Dense, Plan], ...] = (
    Entry(
        "few steps",
        "to write the gradient is all the work",
        lambda p: (
            plan_few_steps(_to_weights(p), p.itemsize)
            if p.n <= few_steps.STEPS
            else f"there are more than {few_steps.STEPS} samples"
        ),
    ),
    *_contractions(_to_weights),
)


@cached_choice
def forward_decision(
    n: int, inputs: int, outputs: int, itemsize: int, alone: bool = False
) -> Decision[Plan]:
    """The kernel of ``x @ w``."""
    return decide(FORWARD, Dense(n, inputs, outputs, itemsize, inputs, alone))


@cached_choice
def input_gradient_decision(
    n: int, inputs: int, outputs: int, itemsize: int, all_inputs: int = 0
) -> Decision[Plan]:
    """The kernel of ``dy @ w.T``."""
    return decide(INPUT_GRADIENT, Dense(n, inputs, outputs, itemsize, all_inputs or inputs))


@cached_choice
def weight_gradient_decision(n: int, inputs: int, outputs: int, itemsize: int) -> Decision[Plan]:
    """The kernel of ``x.T @ dy``."""
    return decide(WEIGHT_GRADIENT, Dense(n, inputs, outputs, itemsize, inputs))


def dense_plan(n: int, inputs: int, outputs: int, itemsize: int) -> Plan:
    """The plan of ``x @ w`` as a step of a program."""
    return forward_decision(n, inputs, outputs, itemsize).plan


def dense_input_plan(
    n: int, inputs: int, outputs: int, itemsize: int, of: int = 0
) -> tuple[Plan, int]:
    """The plan of ``dy @ w.T``, and the width of the transposed weights' blocks.

    The width is 0 where the weights are taken as they are. With ``of``, the inputs are some of so
    many.
    """
    decision = input_gradient_decision(n, inputs, outputs, itemsize, of)
    transposed = decision.name != FEW_SAMPLES.name
    return decision.plan, tile_for(n, of or inputs, itemsize).columns if transposed else 0


def dense_weight_plan(n: int, inputs: int, outputs: int, itemsize: int) -> Plan:
    """The plan of ``x.T @ dy``."""
    return weight_gradient_decision(n, inputs, outputs, itemsize).plan


def explanation(op: str, sizes: tuple[int, ...], itemsize: int) -> Iterator[str]:
    """Which kernels serve an operation, and why; what :func:`fastcnn.explain` prints."""
    n, inputs, outputs = sizes
    if n == 0:
        yield "kernel: none, because the batch is empty"
    elif op == "dense":
        yield from forward_decision(n, inputs, outputs, itemsize, alone=True).lines()
    else:
        yield from input_gradient_decision(n, inputs, outputs, itemsize).lines("dx")
        yield from weight_gradient_decision(n, inputs, outputs, itemsize).lines("dw")
