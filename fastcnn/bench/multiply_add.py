"""A probe of the hardware that computes multiply-adds, as many as possible, and nothing else."""

from __future__ import annotations

from typing import Any

from fastcnn.engine.numba.runtime.jit import fused_multiply_add

CHAIN = 6
"""Multiply-adds on each number in each sweep; "Chains of six multiply-adds" in
docs/measurements.md."""


@fused_multiply_add
def multiply_add(x: Any, a: Any, b: Any, sweeps: int) -> None:
    """Compute ``x = x * a + b`` ``CHAIN`` times on each number, in each of ``sweeps`` sweeps.

    The array is small and stays in the first-level cache. LLVM turns the loop over the array into
    vectors. The chains of several vectors overlap, so that the units never wait for a result.
    Shorter chains wait for loads and stores. With longer chains, too few of them fit into the
    processor's reorder window.
    """
    for _ in range(sweeps):
        for i in range(x.size):
            value = x[i]
            for _ in range(CHAIN):
                value = value * a + b
            x[i] = value
