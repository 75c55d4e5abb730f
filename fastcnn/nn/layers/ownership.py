"""A model's ownership of its layers, with a version that changes with them.

A model derives programs and plans from its layers: the kernels that run, the gradients that are
computed, the parameters that an optimizer moves. If a layer changed without the model's knowledge,
the change would take effect only for some batch sizes and engines. Therefore a built model shares
one :class:`Ownership` with all its layers, including layers inside of a ``Residual``. A layer with
an owner refuses a change of its constructor's arguments and shapes. An allowed change, that of
``trainable``, makes a new version. The model compares versions before it uses its programs.

Copies and pickles of a layer have no owner. A model owns copies of its constructor's layers, so the
user's own layers have no owner and may be changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np

from fastcnn.core.attributes import inherited_arguments

INSTEAD = (
    "make another model, such as Sequential([*model.layers[:-1], Dense(5)], model.input_shape), "
    "whose layers are copies"
)
"""The advice in errors about layers that cannot change."""


class Ownership:
    """A model's hold on its layers.

    Attributes:
        version: counts the changes that the model must take into account.
        first: for each input of the model the ids of the layers that take it.
        last: the ids of the layers that make the outputs.
        traits: what belongs to the model beside its layers, by name, such as the scaling of bytes.
    """

    __slots__ = ("first", "last", "traits", "version")

    def __init__(self) -> None:
        self.version = 0
        self.first: tuple[frozenset[int], ...] = ()
        self.last: tuple[int, ...] = ()
        self.traits: dict[str, Any] = {}

    def changed(self) -> None:
        """Make a new version, because the model's programs and plans are out of date."""
        self.version += 1

    def take(self, layers: Iterable[Any]) -> None:
        """Own these layers, and fix the lists and arrays among their constructors' arguments."""
        for layer in layers:
            attributes = vars(layer)
            for name in inherited_arguments(type(layer)):
                if name in attributes:
                    attributes[name] = fixed(attributes[name])
            attributes["_owner"] = self
        self.changed()


class FixedList(list[Any]):
    """A list of a model, which refuses changes. Copies and slices of it are plain lists."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(f"the layers of a model cannot change; {INSTEAD}")

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> Any:
        return list, (list(self),)


class FixedDict(dict[Any, Any]):
    """A dict of a model, which refuses changes. Copies of it are plain dicts."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(f"the layers of a model cannot change; {INSTEAD}")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def fixed(value: Any) -> Any:
    """The same value in a form that cannot change in place, for lists, dicts, sets and arrays.

    Objects of other kinds are returned as they are.

    >>> fixed([1, [2, 3]])[1].append(4)
    Traceback (most recent call last):
    ...
    TypeError: the layers of a model cannot change; make another model, such as
    Sequential([*model.layers[:-1], Dense(5)], model.input_shape), whose layers are copies
    """
    if isinstance(value, np.ndarray):
        copy = value.copy()
        copy.setflags(write=False)
        return copy[...]  # a view of a read-only array cannot be made writeable
    kind = type(value)
    if kind in (list, FixedList):
        return FixedList(map(fixed, value))
    if kind is tuple:
        return tuple(map(fixed, value))
    if kind in (dict, FixedDict):
        return FixedDict({key: fixed(one) for key, one in value.items()})
    if kind is set:
        return frozenset(value)
    if kind is bytearray:
        return bytes(value)
    return value
