"""The steps of optimizers as compiled loops: one pass over the parameters, on all threads.

The results are equal to the bit to those of :mod:`fastcnn.nn.optimizers`, which computes with
NumPy, array by array, and is the plain form. A loop runs at the end of each training step. Its
arrays are flat and of one dtype; ``numbers`` are float64.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.jit import ordered_kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel


def move(step: Kernel, p: Array, g: Array, state: list[Array], numbers: Array) -> None:
    """Move parameters ``p`` against their gradient ``g`` by an optimizer's loop and its state."""
    # Optimizers without state pass the gradient instead, which the loop does not read as state.
    first, second = [*state, g, g][:2]
    parallel_for(step, p.size, p.size, p, g, first, second, numbers)


@ordered_kernel
def sgd(start: int, stop: int, p: Array, g: Array, v: Array, _: Array, numbers: Array) -> None:
    """Gradient descent with the velocity ``v``; writes ``p``, ``g`` and ``v``.

    Numbers: weight decay, −rate, momentum, and 1 for Nesterov's momentum.
    """
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
        velocity = v[i] * momentum + step
        v[i] = velocity
        p[i] = p[i] + step + velocity * momentum if nesterov else p[i] + velocity


@ordered_kernel
def adam(start: int, stop: int, p: Array, g: Array, m: Array, v: Array, numbers: Array) -> None:
    """Adam and AdamW with the moments ``m`` and ``v``; writes ``p``, ``g``, ``m`` and ``v``.

    Numbers: weight decay, −rate, β₁, 1 − β₁, β₂, 1 − β₂, ε, and the factor by which AdamW shrinks
    parameters.
    """
    number = p.dtype.type
    decay, rate, epsilon = number(numbers[0]), number(numbers[1]), number(numbers[6])
    beta_1, other_1 = number(numbers[2]), number(numbers[3])
    beta_2, other_2 = number(numbers[4]), number(numbers[5])
    shrink = number(numbers[7])
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    if decay != 0:
        for i in range(p.size):
            g[i] += p[i] * decay
    for i in range(p.size):
        mean = m[i] * beta_1 + g[i] * other_1
        square = v[i] * beta_2 + g[i] * g[i] * other_2
        m[i], v[i] = mean, square
        p[i] = p[i] * shrink + mean / (np.sqrt(square) + epsilon) * rate


@ordered_kernel
def rmsprop(start: int, stop: int, p: Array, g: Array, s: Array, v: Array, numbers: Array) -> None:
    """RMSprop with the mean square ``s`` and the velocity ``v``; writes ``p``, ``g``, ``s``, ``v``.

    Numbers: weight decay, −rate, ρ, 1 − ρ, ε, momentum.
    """
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
