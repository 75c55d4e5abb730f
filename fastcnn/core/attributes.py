"""Arguments and attributes of objects: unknown ones are refused, with the names that there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Generic, Self, TypeVar

from fastcnn.core.class_registry import is_own

T = TypeVar("T")


class Checked(Generic[T]):
    """An attribute of a :class:`FixedAttributes`, which checks it each time it is set.

    ``check`` takes the attribute's name and the value, and returns the value to store. If the class
    has a method ``_changed(name)``, it is called after each change. If it raises an error, the
    attribute gets its old value back.

    >>> from fastcnn.core.scalars import number
    >>> class Rate(FixedAttributes):
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
        self.check = check

    # At run time this class is no descriptor, because Python reads plain attributes faster.
    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type | None = None) -> T: ...

        def __set__(self, instance: object, value: object) -> None: ...


class _ConstructorSignature:
    """Lets ``inspect.signature`` of a class tell of ``__init__``, where it would of ``__new__``."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature | None:
        return _signature_of(owner) if instance is None else None


class NamedArguments:
    """Base of classes whose constructors name the arguments that they take.

    Without it the ``TypeError`` for an unknown argument names the class whose constructor is
    inherited, and no argument that exists.

    >>> class Scaled(NamedArguments):
    ...     def __init__(self, by, *, offset=0): ...
    >>> Scaled(2, ofset=3)
    Traceback (most recent call last):
    TypeError: Scaled has no argument 'ofset'; do you mean offset? Its arguments are by, offset
    >>> Scaled(2, 3)
    Traceback (most recent call last):
    TypeError: Scaled takes at most 1 argument without its name, got 2; its arguments are by, offset
    >>> Scaled(offset=2)
    Traceback (most recent call last):
    TypeError: Scaled needs the argument by; its arguments are by, offset
    """

    __signature__ = _ConstructorSignature()

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        if args or kwargs:  # copies and pickles make objects without arguments
            _check_arguments(cls, args, kwargs)
        return super().__new__(cls)


def _signature_of(cls: type) -> inspect.Signature:
    """The signature of a class's constructor, without ``self``."""
    constructor = getattr(cls, "__init__")  # noqa: B009
    if constructor is object.__init__:
        return inspect.Signature()
    signature = inspect.signature(constructor)
    return signature.replace(parameters=[*signature.parameters.values()][1:])


def _check_arguments(cls: type, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """Raise a ``TypeError`` if the constructor of a class does not take these arguments."""
    signature = _signature_of(cls)
    try:
        signature.bind(*args, **kwargs)
        return
    except TypeError:
        pass
    parameters = [*signature.parameters.values()]
    names = constructor_arguments(cls)
    advice = "it has no arguments"
    if names:
        verb = "arguments are" if len(names) > 1 else "only argument is"
        advice = f"its {verb} {', '.join(names)}"
    by_place = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    for name in kwargs:
        if name not in names:
            hint = suggestion(name, names)
            advice = f"{hint[2:]} {advice[0].upper()}{advice[1:]}" if hint else advice
            raise TypeError(f"{cls.__name__} has no argument {name!r}; {advice}")
    if len(args) > len(by_place):
        number = len(by_place)
        most = f"at most {number} argument{'s' * (number > 1)}" if number else "no argument"
        raise TypeError(f"{cls.__name__} takes {most} without its name, got {len(args)}; {advice}")
    for name in by_place[: len(args)]:
        if name in kwargs:
            raise TypeError(f"{cls.__name__} got the argument {name} twice; {advice}")
    missing = [
        one.name
        for one in parameters[len(args) :]
        if one.default is one.empty and one.name in names and one.name not in kwargs
    ]
    what = f"the argument{'s' * (len(missing) > 1)} {' and '.join(missing)}"
    raise TypeError(f"{cls.__name__} needs {what}; {advice}")


class FixedAttributes(NamedArguments):
    """Base of fastcnn's classes whose only attributes are the arguments of their constructor.

    An assignment to another attribute raises an ``AttributeError`` that suggests a name. Classes
    that users derive from fastcnn's may have any attributes.

    Attributes are written with ``object.__setattr__`` and never through the object's ``__dict__``.
    Once there is a dict, Python reads every attribute more slowly, and a training step reads many.
    """

    attributes_beside_arguments: ClassVar[tuple[str, ...]] = ()
    """Public attributes beside the constructor's arguments."""

    def __setattr__(self, name: str, value: object) -> None:
        checked = None
        if name[0] != "_":
            checked = getattr(type(self), name, None)
            if not isinstance(checked, Checked):
                check_known(type(self), name, self.attributes_beside_arguments)
                checked = None
        if checked is None:
            object.__setattr__(self, name, value)
            return
        before = getattr(self, name)
        object.__setattr__(self, name, checked.check(name, value))
        changed = getattr(self, "_changed", None)
        if before is not checked and changed is not None:
            try:
                changed(name)
            except BaseException:
                object.__setattr__(self, name, before)
                raise

    def __delattr__(self, name: str) -> None:
        if isinstance(getattr(type(self), name, None), Checked):
            raise AttributeError(f"{name} of {type(self).__name__} cannot be taken away")
        object.__delattr__(self, name)


def check_known(kind: type, name: str, others: Iterable[str] = ()) -> None:
    """Raise an ``AttributeError`` if ``kind`` is a class of fastcnn's that lacks the attribute."""
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
    """Names of the constructors' arguments, for a class and all its base classes.

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
    """``"; do you mean …?"`` if one of ``names`` resembles the name, otherwise an empty text.

    >>> suggestion("trainabel", ["units", "trainable"])
    '; do you mean trainable?'
    """
    similar = get_close_matches(name, names, 1)
    return f"; do you mean {similar[0]}?" if similar else ""
