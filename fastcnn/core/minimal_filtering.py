"""Winograd's minimal filtering: the three matrices of F(m, r), exact.

F(m, r) computes m outputs of a filter of r taps from n = m + r − 1 inputs with n products instead
of m·r. Toom and Cook multiply two polynomials with n products: they evaluate both polynomials at n
points, multiply the values, and interpolate. The transpose of this algorithm is a filter of inputs
d with taps g:

    y = Aᵀ [(G g) ⊙ (Bᵀ d)]                  one row
    Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A           a tile of m × m outputs, with n² products

The points are the first n − 1 of 0, 1, −1, 2, −2, and infinity. They are small integers, so that
numbers grow little. They come in pairs, so that the two points of a pair share most of their work.

Sources: S. Winograd, "Arithmetic Complexity of Computations", SIAM 1980; A. Lavin, S. Gray, "Fast
Algorithms for Convolutional Neural Networks", arXiv:1509.09308.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import prod
from typing import NamedTuple, TypeAlias

Matrix: TypeAlias = tuple[tuple[Fraction, ...], ...]

POINTS = (0, 1, -1, 2, -2)


class Filtering(NamedTuple):
    """Matrices of F(m, r): ``inputs`` is Bᵀ (n, n), ``filters`` G (n, r), ``outputs`` Aᵀ (m, n)."""

    inputs: Matrix
    filters: Matrix
    outputs: Matrix


@cache
def filtering(m: int, r: int) -> Filtering:
    """The matrices of F(m, r). Raises ``ValueError`` unless m + r − 1 is from 2 to 6.

    >>> [[int(c) for c in row] for row in filtering(2, 3).inputs]
    [[-1, 0, 1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
    >>> print(*filtering(4, 3).filters[3])
    1/24 1/12 1/6
    """
    n = m + r - 1
    if not 2 <= n <= len(POINTS) + 1 or min(m, r) < 1:
        raise ValueError(f"m + r - 1 must be from 2 to {len(POINTS) + 1}, got F({m}, {r})")
    points = POINTS[: n - 1]
    inputs, filters = [], []
    for p in points:
        other_points = [q for q in points if q != p]
        inputs.append((*_coefficients(other_points), Fraction(0)))
        scale = prod(p - q for q in other_points)
        filters.append(tuple(Fraction(p**k, scale) for k in range(r)))
    inputs.append(_coefficients(points))
    filters.append((Fraction(0),) * (r - 1) + (Fraction(1),))
    outputs = [(*(Fraction(p**i) for p in points), Fraction(i == m - 1)) for i in range(m)]
    return Filtering(tuple(inputs), tuple(filters), tuple(outputs))


def _coefficients(roots: list[int] | tuple[int, ...]) -> tuple[Fraction, ...]:
    """Coefficients of Π (x − root), beginning with the coefficient of x⁰."""
    coefficients = [Fraction(1)]
    for root in roots:
        pairs = zip([Fraction(0), *coefficients], [*coefficients, Fraction(0)], strict=True)
        coefficients = [a - root * b for a, b in pairs]
    return tuple(coefficients)
