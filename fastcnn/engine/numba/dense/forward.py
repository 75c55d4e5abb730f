"""The fully connected layer as a contraction: rows are samples, steps inputs.

In which order an output is summed follows from the numbers of inputs and outputs alone, so that
it is the same in any batch. BLAS changes the order with the batch size, and with it the
last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.dense import large
from fastcnn.engine.numba.dense.chooser import (
    LARGE_WEIGHTS,
    forward_decision,
)
from fastcnn.engine.numba.runtime.arrays import readable
from fastcnn.engine.numba.runtime.bound import allocator, bound_by, launcher, zeros


def _bind_dense(
    sides: tuple[int, int, int], dtype: np.dtype[Any], activation: str | None
) -> Callable[..., Array]:
    n, inputs, outputs = sides
    new, relu = allocator((n, outputs), dtype), activation == "relu"
    if n == 0:
        return lambda x, w, b=None: new()
    decision = forward_decision(n, inputs, outputs, dtype.itemsize, alone=True)
    if decision.name == LARGE_WEIGHTS.name:
        return lambda x, w, b=None: large.dense(x, w, b, activation)
    plan, no_bias = decision.plan, zeros(outputs, dtype)
    launch, numbers = launcher(plan.function, plan.items, plan.work), plan.numbers

    def bound(x: Array, w: Array, b: Array = no_bias) -> Array:
        y = new()
        launch(x.ravel(), w.ravel(), b, y.ravel(), relu, numbers)
        return y

    return bound


@bound_by(_bind_dense)
def dense(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """``y = x @ w + b``."""
    operands = [readable(array) for array in (x, w, b) if array is not None]
    return _bind_dense((len(x), *w.shape), x.dtype, activation)(*operands)
