"""What a model owns, and the version of what it has derived from that.

A model derives programs and plans from its layers: which kernels run, which gradients are computed,
what an optimizer moves. A change that passed it by would count for some batch sizes and engines
alone. So each layer of a built model, also a layer inside of a ``Residual``, shares one
:class:`Ownership` with it. A layer with an owner refuses a change of what the model has derived
from, at the act. A change that is allowed (``trainable``) makes a new version, and the model
compares versions before it uses what it has derived.

Copies and pickles of a layer have no owner. A model owns copies of the layers that it is given, so
a layer that a user keeps has no owner either and may be changed.
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
"""What an error tells a user to do."""


class Ownership:
    """A model's hold on its layers.

    Attributes:
        version: counts the changes that the model must take into account.
    """

    __slots__ = ("version",)

    def __init__(self) -> None:
        self.version = 0

    def changed(self) -> None:
        """Make a new version: what was derived from the layers is out of date."""
        self.version += 1

    def take(self, layers: Iterable[Any]) -> None:
        """Own these layers; lists and arrays among their constructor's arguments become fixed."""
        for layer in layers:
            attributes = vars(layer)
            for name in inherited_arguments(type(layer)):
                if name in attributes:
                    attributes[name] = fixed(attributes[name])
            attributes["_owner"] = self
        self.changed()


class FixedList(list[Any]):
    """A list of a model's, which refuses changes. Copies and parts of it are plain lists."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"the layers of a model cannot change; {INSTEAD}")

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> Any:
        return list, (list(self),)


class FixedDict(dict[Any, Any]):
    """A dict of a model's, which refuses changes. Copies of it are plain dicts."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"the layers of a model cannot change; {INSTEAD}")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def fixed(value: Any) -> Any:
    """The same value, which can no longer be changed in place: lists, dicts, sets and arrays.

    Objects of other kinds are what they are.

    >>> fixed([1, [2, 3]])[1].append(4)
    Traceback (most recent call last):
    ...
    TypeError: the layers of a model cannot change; make another model, such as
    Sequential([*model.layers[:-1], Dense(5)], model.input_shape), whose layers are copies
    """
    if isinstance(value, np.ndarray):
        copy = value.copy()
        copy.setflags(write=False)
        return copy[...]  # a view of what cannot be written to stays so
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
