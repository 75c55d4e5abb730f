"""What can never fit into this machine's memory is refused before anything is allocated.

Sizes are counted in Python's integers, which do not overflow. NumPy alone would refuse the largest
arrays with messages of its own, and the system grants others that it does not have until they are
written to.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fastcnn.core.hardware import memory


def affordable(what: str, shape: tuple[int, ...], dtype: Any, copies: int = 1) -> None:
    """Raise the ``MemoryError`` for an array that is larger than the machine's memory.

    ``copies`` is how many of it are needed at once.

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
