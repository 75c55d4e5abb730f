"""Long sums are cut into stretches, so that their rounding errors do not grow with their length.

A float32 number has 24 bits. A float32 sum of ones, added one after the other, stops growing at
2²⁴, and a sum of a million numbers loses four of its seven digits. Therefore no engine adds more
than :data:`STRETCH` terms in float32. The sum of a stretch is added to a total in float64, and the
total is rounded once, at the end.

The problem alone decides where a stretch ends. The number of threads never matters, and the batch
never matters to the results of one sample. A sum of one stretch has no total.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, section 4.2.
"""

from __future__ import annotations

STRETCH = 4096
"""Largest number of terms that are added in the arrays' own dtype."""


def roundings(terms: int) -> int:
    """How often a term of a sum of ``terms`` terms is rounded, at most.

    Each addition of a stretch rounds once. The addition to the total, and the rounding of the
    total, round once each.

    >>> roundings(100), roundings(4096), roundings(25_000_000)
    (100, 4096, 4098)
    """
    return terms if terms <= STRETCH else STRETCH + 2
