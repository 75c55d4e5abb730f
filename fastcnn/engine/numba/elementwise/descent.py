"""The optimizers' steps as compiled loops: one pass over the parameters, on all threads.

To the bit what the optimizers of :mod:`fastcnn.nn.optimizers` do with NumPy, array by array, which
is the plain form.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.runtime.program import compiles as compiles
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel


def move(step: Kernel, p: Array, g: Array, state: list[Array], numbers: Array) -> None:
    """Move parameters ``p`` against their gradient ``g``; the loop's two arrays of state follow."""
    first, second = [*state, g, g][:2]  # what an optimizer has not is not looked at
    parallel_for(step, p.size, p.size, p, g, first, second, numbers)


@ordered_kernel
def sgd(start: int, stop: int, p: Any, g: Any, v: Any, _: Any, numbers: Any) -> None:
    """Numbers: weight decay, −rate, momentum, and whether it is Nesterov's."""
    number = p.dtype.type
    decay, rate, momentum = number(numbers[0]), number(numbers[1]), number(numbers[2])
    nesterov = numbers[3] != 0
    p, g, v = p[start:stop], g[start:stop], v[start:stop]
    if decay != 0:
        for i in range(p.size):
            g[i] += p[i] * decay
    if momentum == 0:
        for i in range(p.size):
            p[i] += g[i] * rate
        return
    for i in range(p.size):
        step = g[i] * rate
        kept = v[i] * momentum + step
        v[i] = kept
        p[i] = p[i] + step + kept * momentum if nesterov else p[i] + kept


@ordered_kernel
def adam(start: int, stop: int, p: Any, g: Any, m: Any, v: Any, numbers: Any) -> None:
    """Numbers: weight decay, −rate, β₁, 1 − β₁, β₂, 1 − β₂, ε, what AdamW keeps of parameters."""
    number = p.dtype.type
    decay, rate, epsilon = number(numbers[0]), number(numbers[1]), number(numbers[6])
    beta_1, other_1 = number(numbers[2]), number(numbers[3])
    beta_2, other_2 = number(numbers[4]), number(numbers[5])
    kept = number(numbers[7])
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    if decay != 0:
        for i in range(p.size):
            g[i] += p[i] * decay
    for i in range(p.size):
        mean = m[i] * beta_1 + g[i] * other_1
        square = v[i] * beta_2 + g[i] * g[i] * other_2
        m[i], v[i] = mean, square
        p[i] = p[i] * kept + mean / (np.sqrt(square) + epsilon) * rate


@ordered_kernel
def rmsprop(start: int, stop: int, p: Any, g: Any, s: Any, v: Any, numbers: Any) -> None:
    """Numbers: weight decay, −rate, ρ, 1 − ρ, ε, momentum."""
    number = p.dtype.type
    decay, rate, epsilon = number(numbers[0]), number(numbers[1]), number(numbers[4])
    rho, other, momentum = number(numbers[2]), number(numbers[3]), number(numbers[5])
    p, g, s, v = p[start:stop], g[start:stop], s[start:stop], v[start:stop]
    if decay != 0:
        for i in range(p.size):
            g[i] += p[i] * decay
    for i in range(p.size):
        square = s[i] * rho + g[i] * g[i] * other
        s[i] = square
        g[i] = g[i] / (np.sqrt(square) + epsilon) * rate
    if momentum != 0:
        for i in range(p.size):
            v[i] = v[i] * momentum + g[i]
            p[i] += v[i]
    else:
        for i in range(p.size):
            p[i] += g[i]
