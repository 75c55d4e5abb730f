"""Results of frozen layers that a training keeps, because each epoch takes the same samples.

The results of a sample do not depend on the batch around it, so the kept ones have the bits that
the layers would compute again. A sample is known by a digest of its numbers. So samples may come in
any order, and a sample whose numbers change is another sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import memory
from fastcnn.core.settings import get_num_threads
from fastcnn.engine.numba.runtime import arrays, rehearsal

Compute = Callable[[Sequence[Array]], "list[Array] | None"]

_WORK_OF_A_BYTE = 100
"""Least work of the layers, for each thread and each byte of a sample and its results. A digest of
a byte and a copy take the time of 60 operations of a thread."""
_SHARE = 8
"""The results take at most this part of the machine's memory."""
_OVERHEAD = 400
"""Bytes of the objects that hold the results of a sample."""


class KeptResults:
    """The results of some frozen layers by the digests of their samples.

    Args:
        compute: the results for samples of each input, or None where layers must run one by one.
        version: a number that differs if a number of the layers may have changed.
        numbers: the numbers that the results depend on.
        work: operations for one sample.
        size: bytes of a sample's results.
    """

    def __init__(
        self,
        compute: Compute,
        version: Callable[[], int],
        numbers: Iterable[Array],
        work: int,
        size: int,
    ) -> None:
        self._compute, self._version, self._numbers = compute, version, tuple(numbers)
        self._work, self._size = work, size
        self._most = memory() // _SHARE // (size + _OVERHEAD)
        self._kept: dict[bytes, tuple[Array, ...]] = {}
        self._last_version, self._last_digest = -1, b""

    def forget(self) -> None:
        """Forget all results."""
        self._kept, self._last_version, self._last_digest = {}, -1, b""

    def pays(self, inputs: Sequence[Array]) -> bool:
        """Whether to find results takes much less time than to compute them."""
        size = self._size + sum(array.nbytes // max(1, len(array)) for array in inputs)
        return self._work > _WORK_OF_A_BYTE * get_num_threads() * size

    def results(self, inputs: Sequence[Array]) -> list[Array] | None:
        """The results for samples (N, …) of each input, as ``compute`` returns them."""
        if not len(inputs[0]) or not self.pays(inputs):
            return self._compute(inputs)
        if rehearsal.active and rehearsal.rehearsing():
            return self._compute(inputs)
        known_rows = self._kept_of_these_numbers()
        keys = [_digest(parts) for parts in zip(*inputs, strict=True)]
        missing = [i for i, key in enumerate(keys) if key not in known_rows]
        if missing:
            all_missing = len(missing) == len(keys)
            new = self._compute(
                inputs
                if all_missing
                else [_together([array[i] for i in missing]) for array in inputs]
            )
            if new is None:
                return None
            rows_of_keys = {
                keys[i]: row for i, row in zip(missing, zip(*new, strict=True), strict=True)
            }
            if len(known_rows) + len(missing) <= self._most:
                copies = {key: tuple(map(_copy_of, row)) for key, row in rows_of_keys.items()}
                known_rows.update(copies)
            if all_missing:
                return new
            known_rows = {key: rows_of_keys.get(key) or known_rows[key] for key in keys}
        rows = [known_rows[key] for key in keys]
        return [_together(parts) for parts in zip(*rows, strict=True)]

    def _kept_of_these_numbers(self) -> dict[bytes, tuple[Array, ...]]:
        """The kept results, without those that other numbers of the layers have given."""
        version = self._version()  # before the numbers, which may change while they are read
        if version != self._last_version:
            digest = _digest(self._numbers)
            if digest != self._last_digest:
                self._kept = {}
            self._last_version, self._last_digest = version, digest
        return self._kept


def _together(rows: Sequence[Array]) -> Array:
    """Arrays of one shape and dtype as the rows of one array."""
    result = arrays.allocate((len(rows), *rows[0].shape), rows[0].dtype)
    for i, row in enumerate(rows):
        result[i] = row
    return result


def _copy_of(row: Array) -> Array:
    """A copy, which no kernel reads."""
    return np.array(row)


def _digest(numbers: Iterable[Array]) -> bytes:
    """A digest of the numbers of arrays."""
    result = sha256()
    for array in numbers:
        result.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return result.digest()
