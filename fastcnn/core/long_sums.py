"""Long sums are cut into stretches, so that their rounding errors do not grow with their length.

A float32 number has 24 bits. A sum of ones that is taken in float32, one term after the other,
stands still at 2²⁴; a sum of a million numbers has lost four of its seven digits. So no engine adds
more than :data:`STRETCH` terms in float32: the sum of a stretch is added to a total in float64,
which is rounded once, at the end.

Where a stretch ends follows from the problem alone: never from the number of threads, and for
results of one sample never from the batch. A sum of one stretch has no total.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, section 4.2.
"""

from __future__ import annotations

STRETCH = 4096
"""Terms that are added in the arrays' own dtype, at most."""


def roundings(terms: int) -> int:
    """How often a term is rounded, at most, on its way through a sum of so many.

    In a stretch once for each addition, then once when the total is rounded.

    >>> roundings(100), roundings(4096), roundings(25_000_000)
    (100, 4096, 4098)
    """
    return terms if terms <= STRETCH else STRETCH + 2
