"""The axes of a sample in another order, by NumPy's transposed views."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array


def permute(x: Array, order: tuple[int, ...]) -> Array:
    """The axes of each sample in another order; ``order`` counts them from 1."""
    return np.array(x.transpose(0, *order), order="C")
