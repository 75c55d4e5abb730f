"""Samples that are converted when a batch reads them, so that no converted copy of all is needed.

Images in a memory-mapped file stay there, because a training reads one batch after another.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from math import prod
from typing import Any, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array


class SamplesOnDemand:
    """Some rows of an array, converted when they are read.

    It offers the part of an array's interface that a training uses: length, shape, dtype, and parts
    along the first axis, each a new array.

    Args:
        array: the original samples, (N, …).
        convert: converts some samples (n, …), each independently of the others.
        rows: indices of the samples; None for all.

    Example:
        >>> doubled = SamplesOnDemand(np.arange(6), lambda part: 2.0 * part, np.array([5, 0, 3]))
        >>> len(doubled), doubled.shape, doubled[1:].tolist(), np.asarray(doubled).tolist()
        (3, (3,), [0.0, 6.0], [10.0, 0.0, 6.0])
    """

    def __init__(
        self, array: Array, convert: Callable[[Array], Array], rows: Array | None = None
    ) -> None:
        self._array, self._convert, self._rows = array, convert, rows
        one = self[:1]
        self.shape, self.dtype = (len(self), *one.shape[1:]), one.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values of all samples together."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all samples together, after conversion."""
        return self.size * int(self.dtype.itemsize)

    def __len__(self) -> int:
        return len(self._array if self._rows is None else self._rows)

    def __getitem__(self, part: slice | Array) -> Array:
        return self._convert(self._array[part if self._rows is None else self._rows[part]])

    def then(self, convert: Callable[[Array], Array]) -> SamplesOnDemand:
        """The same samples, converted once more."""
        before = self._convert
        return SamplesOnDemand(self._array, lambda part: convert(before(part)), self._rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype)


def is_memory_mapped(array: Array) -> bool:
    """Whether an array lies in a memory-mapped file.

    >>> is_memory_mapped(np.zeros(3))
    False
    """
    base: Any = array
    while base is not None:
        if isinstance(base, np.memmap | mmap.mmap):
            return True
        base = getattr(base, "obj" if isinstance(base, memoryview) else "base", None)
    return False


Samples: TypeAlias = Array | SamplesOnDemand
"""The samples of a training, which it reads batch by batch."""
