"""The axes of a sample in another order."""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array


def permute(x: Array, order: tuple[int, ...]) -> Array:
    """The axes of each sample in another order; ``order`` counts them from 1.

    Axis ``k`` of a sample of y is axis ``order[k]`` of a sample of x.

    >>> permute(np.array([[[1, 2, 3], [4, 5, 6]]]), (2, 1))
    array([[[1, 4],
            [2, 5],
            [3, 6]]])
    """
    y = np.zeros((len(x), *[x.shape[axis] for axis in order]), x.dtype)
    for n in range(len(x)):
        for place in np.ndindex(y.shape[1:]):
            source = [0] * len(order)
            for axis, index in zip(order, place, strict=True):
                source[axis - 1] = index
            y[n][place] = x[n][tuple(source)]
    return y
