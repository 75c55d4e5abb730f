"""Attributes that may be set after construction: checked where they are set, or refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from fastcnn.registry import is_own

T = TypeVar("T")


class Checked(Generic[T]):
    """An attribute of a class that is checked each time it is set.

    ``check`` takes the attribute's name and the value, and returns what is stored. If the class
    has a method ``_changed(name)``, that is called after a change; if it raises, the attribute has
    its old value again. To read the attribute costs what any other costs.

    >>> from fastcnn.scalars import number
    >>> class Rate:
    ...     value = Checked(number)
    >>> rate = Rate()
    >>> rate.value = 1
    >>> rate.value
    1.0
    >>> rate.value = -1
    Traceback (most recent call last):
    ...
    ValueError: value must be a finite number of at least 0, got -1
    """

    def __init__(self, check: Callable[[str, object], T]) -> None:
        self._check = check
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    # Without __get__ Python looks into the object's own dict, at no cost.
    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type | None = None) -> T: ...

    def __set__(self, instance: object, value: object) -> None:
        name, attributes = self._name, vars(instance)
        is_change, before = name in attributes, attributes.get(name)
        attributes[name] = self._check(name, value)
        changed = getattr(instance, "_changed", None)
        if is_change and changed is not None:
            try:
                changed(name)
            except BaseException:
                attributes[name] = before
                raise


class Known:
    """Base of classes of fastcnn that have no other attributes than those of their constructor.

    To set another one is an ``AttributeError`` that suggests a name. Classes of a user's own that
    derive from these may have any.
    """

    others: ClassVar[tuple[str, ...]] = ()
    """Public attributes beside the constructor's arguments."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name[0] != "_":
            check_known(type(self), name, self.others)
        object.__setattr__(self, name, value)


def check_known(kind: type, name: str, others: Iterable[str] = ()) -> None:
    """Raise the ``AttributeError`` for an attribute that one of fastcnn's own classes has not."""
    if not is_own(kind):
        return
    names = *constructor_arguments(kind), *others
    if name not in names:
        raise AttributeError(f"{kind.__name__} has no attribute {name!r}" + suggestion(name, names))


def constructor_arguments(cls: type) -> tuple[str, ...]:
    """Names of the arguments that a class's constructor takes.

    >>> class Scaled:
    ...     def __init__(self, by, *, offset=0): ...
    >>> constructor_arguments(Scaled)
    ('by', 'offset')
    """
    return _arguments(getattr(cls, "__init__"))  # noqa: B009


def inherited_arguments(cls: type) -> frozenset[str]:
    """Names of the arguments of a class's constructor, and of those of the classes above it.

    >>> class Scaled:
    ...     def __init__(self, by): ...
    >>> class Shifted(Scaled):
    ...     def __init__(self, *args, shift): ...
    >>> sorted(inherited_arguments(Shifted))
    ['by', 'shift']
    """
    return frozenset(name for one in cls.__mro__[:-1] for name in constructor_arguments(one))


@cache
def _arguments(constructor: Callable[..., None]) -> tuple[str, ...]:
    several = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    return tuple(one.name for one in parameters if one.kind not in several)


def suggestion(name: str, names: Iterable[str]) -> str:
    """``"; do you mean …?"`` for a name that is much like one of ``names``, else nothing.

    >>> suggestion("trainabel", ["units", "trainable"])
    '; do you mean trainable?'
    """
    similar = get_close_matches(name, names, 1)
    return f"; do you mean {similar[0]}?" if similar else ""
