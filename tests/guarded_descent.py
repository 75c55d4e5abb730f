"""The optimizers' compiled steps on guarded arrays; see ``guarded.py``."""

from __future__ import annotations

import numpy as np
from guarded import Border, guarded

import fastcnn
from fastcnn.core.arguments import Array
from fastcnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop

SIZES = (1, 3, 15, 16, 17, 1003)
BORDERS: tuple[Border, ...] = ("first", "last")


def optimizers() -> tuple[Optimizer, ...]:
    """One for each way through a kernel."""
    return (
        SGD(0.1),
        SGD(0.1, momentum=0.9, weight_decay=0.1),
        SGD(0.1, momentum=0.9, nesterov=True),
        Adam(0.1, weight_decay=0.1),
        AdamW(0.1),
        RMSprop(0.1, weight_decay=0.1),
        RMSprop(0.1, momentum=0.9),
    )


def run_optimizers(dtypes: tuple[str, ...]) -> None:
    """Two steps of each, held against NumPy's."""
    for dtype in dtypes:
        for size in SIZES:
            for border in BORDERS:
                for plain, compiled in zip(optimizers(), optimizers(), strict=True):
                    print(f"{compiled!r} on {size} x {dtype}", flush=True)
                    with fastcnn.use_engine("im2col"):
                        reference = _moved(plain, size, dtype, None)
                    fast = _moved(compiled, size, dtype, border)
                    np.testing.assert_array_equal(fast, reference)


def _moved(optimizer: Optimizer, size: int, dtype: str, border: Border | None) -> Array:
    def array() -> Array:
        return np.zeros(size, dtype) if border is None else guarded((size,), dtype, border)

    rng = np.random.default_rng(size)
    parameters, gradient = array(), array()
    parameters[...] = rng.standard_normal(size)
    for name in optimizer.slots_needed():
        optimizer.state[name] = array()
        optimizer.state[name][...] = 0
    for _ in range(2):
        gradient[...] = rng.standard_normal(size)
        optimizer.step(parameters, gradient)
    return parameters
