"""Samples or targets of a model with several inputs or outputs: arrays that are read together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted
from fastcnn.data.on_demand import Samples


@dataclass(frozen=True, eq=False)
class Several:
    """Arrays of equal length, one for each input or output of a model.

    Attributes:
        parts: the arrays, (N, …) each.

    Example:
        >>> pair = Several((np.arange(4), np.eye(4)))
        >>> len(pair), [part.shape for part in pair[1:3].parts]
        (4, [(2,), (2, 4)])
    """

    parts: tuple[Samples, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, some: slice | Array) -> Several:
        return Several(tuple(part[some] for part in self.parts))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(part.nbytes for part in self.parts)


Data = Samples | Several
"""Samples or targets, in one array or several."""


def parts_of(data: Data) -> tuple[Samples, ...]:
    """The arrays: those of a :class:`Several`, or the only one."""
    return data.parts if isinstance(data, Several) else (data,)


def shape_of(data: Data) -> tuple[int, ...] | list[tuple[int, ...]]:
    """The shape, or that of each of several arrays."""
    shapes = [part.shape for part in parts_of(data)]
    return shapes if isinstance(data, Several) else shapes[0]


def in_order(name: str, value: object, names: Sequence[str], what: str) -> list[object]:
    """What a caller gave for several inputs or outputs, in their order.

    Args:
        name: of the argument.
        value: a list or tuple with one item for each, or a dict by name.
        names: the names of the inputs or outputs.
        what: "input" or "output".

    Raises:
        TypeError, ValueError: it is nothing of the kind, or has other names, or another length.

    >>> in_order("x", {"b": 2, "a": 1}, ["a", "b"], "input")
    [1, 2]
    """
    listed = ", ".join(names)
    if isinstance(value, Mapping):
        if value.keys() != {*names}:
            raise ValueError(
                f"{name} must have an item for each {what}, {listed}, got "
                f"{', '.join(map(str, value)) or 'none'}"
            )
        return [value[one] for one in names]
    if not isinstance(value, list | tuple):
        raise TypeError(
            f"{name} must be a list of {len(names)}, one for each {what}, or a dict by the names "
            f"{listed}, got {type(value).__name__}"
        )
    if len(value) != len(names):
        raise ValueError(
            f"{name} must have one item for each {what}, {listed}, got {len(value)} of {len(names)}"
        )
    return list(value)


def of_equal_length(name: str, data: Several, names: Sequence[str]) -> Several:
    """``data``, after the check that all parts have as many samples as the first."""
    for label, part in zip(names, data.parts, strict=True):
        if len(part) != len(data):
            raise ValueError(
                f"{name} must have as many samples for each, got {len(data)} for "
                f"{quoted(names[0])} and {len(part)} for {quoted(label)}"
            )
    return data


def concatenated(parts: Sequence[Sequence[Array]]) -> list[Array]:
    """The outputs of several batches, one array for each output."""
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
