"""A probe of the hardware: as many multiply-adds as it can do, and nothing else."""

from __future__ import annotations

from typing import Any

from fastcnn.engine.numba.runtime.jit import fused

CHAIN = 6
"""Multiply-adds on each number in each sweep."""


@fused
def multiply_add(x: Any, a: Any, b: Any, sweeps: int) -> None:
    """``x = x * a + b``, ``CHAIN`` times on each number, and that ``sweeps`` times.

    On a small array, which stays in the first-level cache: LLVM turns the loop over the array into
    vectors, whose chains overlap, so that the units never wait for a result. Shorter chains wait
    for loads and stores; longer ones fill the processor's window with too few of them (with 16
    AVX2 showed three quarters of its peak).
    """
    for _ in range(sweeps):
        for i in range(x.size):
            value = x[i]
            for _ in range(CHAIN):
                value = value * a + b
            x[i] = value
