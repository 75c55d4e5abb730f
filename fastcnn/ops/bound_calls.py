"""Bound calls, which public functions remember, so that a call costs little beside its kernel.

A **bound call** is a function of arrays alone. The rest of a call is decided: the arguments are
checked, the geometry is made, the implementation and its kernel are chosen. All of this follows
from the shapes and dtypes of the arrays, from the other arguments, and from the settings of the
current thread or task (:data:`fastcnn.core.settings.here`). These are the key under which a
:class:`Binding` remembers the bound call. If something else changes on which choices depend, such
as :func:`fastcnn.set_math`, all bound calls are forgotten
(:func:`fastcnn.core.settings.forget_choices`). The bound call itself looks at the rest in each
call: the memory of the arrays, the number of threads, whether the workers are free.

A key says in each call that every array is a plain ``numpy.ndarray``, C-contiguous, aligned,
writable, in native byte order. Other arrays (lists, subclasses, strided or read-only arrays, other
dtypes) are converted first, and then have a key.

Values that are equal may be valid in one type and wrong in another: 1, 1.0 and True. So a key holds
the types of the arguments too, also of those in tuples. Arguments of other types than numbers,
strings and tuples have no key; such a call is bound anew.

An error is not remembered. Tables are bounded. They are safe in threads, in signal handlers and in
finalizers, because each look is one step in C. To forget is to begin a new table, so that a call
that is being bound meanwhile comes into the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from inspect import Parameter, signature
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core import settings
from fastcnn.core.arguments import FLOATS, Array, floats, readable

MOST = 1024
"""Bound calls that a binding remembers in each of its two tables, those that were used last."""
_PLAIN = frozenset({int, float, bool, str, type(None)})
_PLAIN_OR_TUPLE = _PLAIN | {tuple}
_here = settings.here.get
_facts_of = attrgetter("shape", "dtype", "flags.carray")
_ndarray = np.ndarray


class Facts(NamedTuple):
    """What a call may depend on of an array.

    Attributes:
        shape, dtype: those of the array.
        plain: whether the array is C-contiguous, aligned and writable.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    plain: bool

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)


class Binding:
    """A function that makes bound calls, and those that it has made.

    Args:
        names: the names of the arrays; None for any number of arrays, which ``bind`` takes as one
            tuple. Arrays at the end of a call may be left out; ``bind`` gets None for them.
        bind: takes a :class:`Facts` for each name, then the other arguments. It checks them all,
            and returns the function of the arrays.
    """

    __slots__ = ("_bind", "_names", "_other_count", "find", "find_by_kinds")

    def __init__(self, names: tuple[str, ...] | None, bind: Callable[..., Any]) -> None:
        self._names, self._bind = names, bind
        parameters = signature(bind).parameters.values()
        self._other_count = len(parameters) - (1 if names is None else len(names))
        if any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters):
            self._other_count = -1  # any number of them; then no array may be left out
        self.forget()
        settings.remembered.append(self.forget)

    def forget(self) -> None:
        """Begin new tables."""
        self.find = lru_cache(maxsize=MOST, typed=True)(self._find)
        self.find_by_kinds = lru_cache(maxsize=MOST)(self._find_by_kinds)

    def _find(self, here: settings.Here, *arguments: Any) -> Any:
        """The bound call of plain arrays and plain other arguments.

        None if the arrays are not plain, the binding itself if only some other arguments are not.
        """
        count = len(arguments) - self._other_count
        if self._other_count < 0:
            count = len(self._names or ())
        facts, others = arguments[:count], arguments[count:]
        dtypes = {dtype for _, dtype, _ in facts}
        plain = len(dtypes) == 1 and dtypes.issubset(FLOATS) and all(fact[2] for fact in facts)
        if not plain:
            return None
        return self.bind(facts, others) if _PLAIN.issuperset(map(type, others)) else self

    def _find_by_kinds(
        self, here: settings.Here, kinds: object, facts: tuple[Any, ...], others: tuple[Any, ...]
    ) -> Callable[..., Any]:
        """The bound call of plain arrays; ``kinds`` are the types of the other arguments."""
        return self.bind(facts, others)

    def bind(self, facts: tuple[Any, ...], others: tuple[Any, ...]) -> Callable[..., Any]:
        """A new bound call. Raises the errors of arguments."""
        of_arrays: tuple[Any, ...] = tuple(map(Facts._make, facts))
        if self._names is None:
            of_arrays = (of_arrays,)
        else:
            of_arrays += (None,) * (len(self._names) - len(facts))
        bound: Callable[..., Any] = self._bind(*of_arrays, *others)
        return bound

    def convert(self, arrays: tuple[ArrayLike, ...]) -> list[Array]:
        """The arrays as bound calls take them."""
        names = self._names or [f"arrays[{i}]" for i in range(len(arrays))]
        return list(map(readable, floats(**dict(zip(names, arrays, strict=False)))))


def binding(*names: str) -> Callable[[Callable[..., Any]], Binding]:
    """A decorator that makes a :class:`Binding` of a function; ``names`` are those of its arrays.

    Without names the calls may have any number of arrays.
    """
    return lambda bind: Binding(names or None, bind)


def call(binding: Binding, arrays: tuple[ArrayLike, ...], *others: object) -> Any:
    """The result of the arrays, by the bound call of the binding."""
    bound: Any = None
    for array in arrays:
        if type(array) is not _ndarray:
            break
    else:
        try:
            bound = binding.find(_here(), *map(_facts_of, arrays), *others)
        except TypeError:
            bound = binding  # an argument has no hash, or has a wrong type, which is told below
    if bound is None:
        arrays = tuple(binding.convert(arrays))
    elif bound is not binding:
        return bound(*arrays)
    here, kinds, facts = _here(), _kinds(others), tuple(map(_facts_of, arrays))
    if kinds is None or here.recorder is not None:
        bound = binding.bind(facts, others)
    else:
        bound = binding.find_by_kinds(here, kinds, facts, others)
    return bound(*arrays)


def _kinds(values: tuple[object, ...]) -> tuple[object, ...] | None:
    """The types of plain arguments, and of the items of tuples; None if there are others."""
    kinds: tuple[object, ...] = tuple(map(type, values))
    if _PLAIN.issuperset(kinds):
        return kinds
    if not _PLAIN_OR_TUPLE.issuperset(kinds):
        return None
    kinds = tuple(_kinds(value) if type(value) is tuple else type(value) for value in values)
    return None if None in kinds else kinds
