"""Sources of batches that are no arrays: sequences, data sets of samples, and iterables.

A **sequence** has ``__len__`` and ``__getitem__``, and its items are batches, as ``(x, y)`` or
``(x, y, sample_weight)``. A **data set** has the same methods, and its items are single samples.
An **iterable** gives batches; an iterator, such as a generator, gives each batch once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.data.on_demand import SamplesOnDemand
from fastcnn.data.read_ahead import in_parts
from fastcnn.data.several import Data, Several

Kind = Literal["batches", "samples", "iterable"]


class BatchSequence(Protocol):
    """A sequence of batches, or a data set of samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Batches = BatchSequence | Iterable[Any]
"""A source of batches, as ``fit`` takes it."""


class Batch(NamedTuple):
    """A batch, checked: samples, their targets, and how much each counts, or None."""

    images: Any
    targets: Any
    weights: Array | None


Check = Callable[[Any, int], Batch]
"""Checks an item of a stream, whose number is for the message of an error."""


def is_stream(x: object) -> bool:
    """Whether ``x`` is a source of batches or samples, and no array or list of arrays.

    >>> is_stream(np.zeros(3)), is_stream([1, 2]), is_stream(iter([1, 2]))
    (False, False, True)
    """
    if isinstance(x, np.ndarray | SamplesOnDemand | Several | list | tuple | Mapping | str | bytes):
        return False
    if hasattr(x, "__array__") or hasattr(x, "__array_interface__"):
        return False
    return hasattr(x, "__iter__") or (hasattr(x, "__len__") and hasattr(x, "__getitem__"))


class Stream:
    """A source of batches, epoch by epoch.

    Args:
        name: of the argument, for messages.
        source: the sequence, data set or iterable.
        size: samples to a batch of a data set of samples.
        steps: batches to an epoch, or None for all.
        shape: of one sample, if it is known; it tells samples from batches.
        repeats: whether epochs need the number of batches, and all batches again.

    Attributes:
        kind: what its items are.
        batches: number of batches of an epoch; None for all that an iterator gives.
        first: the first item; :meth:`batch` makes a batch of it.

    Raises:
        TypeError, ValueError: the source is empty, its items are no pairs, or its length is not
            known and not given.
    """

    def __init__(
        self,
        name: str,
        source: Any,
        size: int,
        steps: int | None = None,
        shape: tuple[int, ...] | None = None,
        *,
        repeats: bool = True,
    ) -> None:
        self.name, self.source, self.size, self.steps = name, source, size, steps
        self.check = None
        self._iterator: Iterator[object] | None = None
        self.length = len(source) if hasattr(source, "__len__") else None
        if self.length == 0:
            raise ValueError(f"{name} must have at least one batch, got a length of 0")
        if self.length is not None and hasattr(source, "__getitem__"):
            self.first = source[0]
            self.kind: Kind = "samples" if self._is_sample(self.first, shape) else "batches"
        else:
            self.kind = "iterable"
            iterator = iter(source)
            try:
                self.first = next(iterator)
            except StopIteration:
                raise ValueError(f"{name} must give at least one batch, got none") from None
            self._iterator = chain([self.first], iterator)
        self.once = self.kind == "iterable" and iter(source) is source
        batches = self.length
        if batches is not None and self.kind == "samples":
            batches = -(-batches // size)
        if (
            steps is not None
            and batches is not None
            and self.kind != "iterable"
            and steps > batches
        ):
            raise ValueError(
                f"steps_per_epoch must be at most the {batches} batches of {name}, got {steps}"
            )
        self.batches = batches if steps is None else steps
        if repeats and self.batches is None:
            raise ValueError(
                f"steps_per_epoch must say how many batches make an epoch, because {name} has no "
                f"length"
            )
        if repeats and steps is None and self.once:
            raise ValueError(f"{name} must give its batches anew, got an iterator")

    check: Check | None

    def _is_sample(self, item: object, shape: tuple[int, ...] | None) -> bool:
        """Whether an item is a single sample."""
        x, y = _pair(self.name, item, 0)[:2]
        if shape is not None and not isinstance(x, list | tuple | Mapping):
            shape_of_sample = np.shape(x)
            if shape_of_sample in (shape, shape[:-1] if shape[-1] == 1 else shape):
                return True
            if shape_of_sample[1:] == shape:
                return False
        return np.ndim(y) == 0

    def batch(self, item: object, number: int) -> tuple[Any, ...]:
        """The batch of an item, ``(x, y)`` or ``(x, y, sample_weight)``; not checked."""
        if self.kind == "samples":
            return self._stacked([item])
        return _pair(self.name, item, number)

    def _stacked(self, items: list[Any]) -> tuple[Any, ...]:
        pairs = [_pair(self.name, item, i) for i, item in enumerate(items)]
        try:
            columns = zip(*pairs, strict=True)
            return tuple(np.stack([np.asarray(one) for one in column]) for column in columns)
        except ValueError as error:
            raise ValueError(f"{self.name} must give samples of one shape: {error}") from None

    @property
    def can_resume(self) -> bool:
        """Whether a training can go on with the batches that it has not seen."""
        return self.kind != "iterable" or not (self.once or self.steps is not None)

    def epoch(self, order: Array | None, first: int) -> Iterator[Batch]:
        """Batches of an epoch from a number on.

        Args:
            order: the order of batches or samples, or None.
            first: number of the first batch; those before it were done already.

        Raises ``ValueError`` where an iterable ends before the epoch does.
        """
        assert self.check is not None
        if self.kind == "iterable":
            yield from self._of_iterable(first)
            return
        assert self.length is not None
        assert self.batches is not None
        indices = np.arange(self.length) if order is None else order
        for number in range(first, self.batches):
            if self.kind == "batches":
                item = _pair(self.name, self.source[int(indices[number])], number)
            else:
                indices_of_batch = indices[number * self.size : (number + 1) * self.size]
                item = self._stacked([self.source[int(i)] for i in indices_of_batch])
            yield self.check(item, number)

    def _of_iterable(self, first: int) -> Iterator[Batch]:
        assert self.check is not None
        iterator = iter(self.source) if self._iterator is None else self._iterator
        # A new iterator that is empty must not be replaced by another one, without an end.
        number, is_fresh = 0, False
        keeps = self.once or self.steps is not None
        self._iterator = iterator if keeps else None
        while self.batches is None or number < self.batches:
            item = next(iterator, _END)
            if item is _END:
                if self.batches is None:
                    break
                if self.once or self.steps is None or is_fresh:
                    raise ValueError(
                        f"{self.name} ended after {number} of {self.batches} batches of an epoch; "
                        f"give a sequence, or an object whose __iter__ begins anew"
                    )
                self._iterator = iterator = iter(self.source)
                is_fresh = True
                continue
            is_fresh = False
            if number >= first:
                yield self.check(_pair(self.name, item, number), number)
            number += 1


_END = object()


def _pair(name: str, item: object, number: int) -> tuple[Any, ...]:
    if not isinstance(item, tuple | list) or len(item) not in (2, 3):
        kind = f"{type(item).__name__}" + (
            f" of {len(item)}" if isinstance(item, tuple | list) else ""
        )
        raise TypeError(
            f"{name} must give pairs (x, y), or (x, y, sample_weight), got {kind} as item {number}"
        )
    return tuple(item)


def length_of(x: Any) -> int:
    """The number of samples of a batch, which may have several inputs."""
    if isinstance(x, Mapping):
        x = [*x.values()]
    return len(x[0]) if isinstance(x, list | tuple) else len(x)


def batches_in_order(
    images: Data | Stream, targets: Any, weights: Array | None, size: int
) -> Iterator[Batch]:
    """All batches of a validation: batches of arrays in order, or the batches of a stream."""
    if isinstance(images, Stream):
        yield from images.epoch(None, 0)
        return
    for rows, part in in_parts(images, size):
        yield Batch(part, targets[rows], None if weights is None else weights[rows])


def inputs_of(x: Any, size: int, shape: tuple[int, ...] | None) -> Iterator[Any]:
    """Samples for a prediction, batch by batch, of a stream whose items may have targets too.

    Args:
        x: the stream.
        size: samples to a batch, where the items are single samples.
        shape: of one sample, if it is known; it tells samples from batches.
    """
    if hasattr(x, "__len__") and hasattr(x, "__getitem__"):
        items: Any = (x[i] for i in range(len(x)))  # some such classes lack an __iter__ that ends
    else:
        items = iter(x)
    singles = list[Any]()
    for item in items:
        one = item[0] if isinstance(item, tuple) else item
        if shape is not None and np.shape(one) == shape:
            singles.append(np.asarray(one))
            if len(singles) == size:
                yield np.stack(singles)
                singles = []
        else:
            yield one
    if singles:
        yield np.stack(singles)
