"""Arrays that exceed this machine's memory are refused before anything is allocated.

Sizes are Python integers, which do not overflow. NumPy refuses only the largest arrays. The system
grants others, although it lacks the memory, and fails when a program writes to them.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.core.hardware import memory


def affordable(what: str, shape: tuple[int, ...], dtype: DTypeLike, copies: int = 1) -> None:
    """Raise a ``MemoryError`` if an array is larger than the machine's memory.

    ``copies`` is the number of such arrays that exist at once.

    >>> affordable("y", (2, 3), np.float32)
    >>> affordable("y", (1 << 20, 1 << 20, 3), np.float64)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    MemoryError: y of shape (1048576, 1048576, 3) needs 26,388,279,066,624 bytes, ...
    """
    size = copies * prod(shape) * np.dtype(dtype).itemsize
    if size > memory():
        raise MemoryError(
            f"{what} of shape {shape} needs {size:,} bytes, and this machine has {memory():,}"
        )
