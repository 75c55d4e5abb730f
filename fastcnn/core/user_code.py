"""Checks of the results of users' code, before anything uses them.

A training calls users' layers, losses, schedules, optimizers, and functions such as an
augmentation. Kernels take arrays by their address, and NumPy broadcasts. A result of a wrong shape
or dtype would therefore be a memory fault or a wrong number. A check converts lists, other dtypes
of real numbers, and any memory layout into a new array. It refuses everything else with an error
that names the object, its result, and the result that it must return.

A base class lists the checks of its methods in a contract. :func:`check_methods` puts them around
the methods of a subclass when the subclass is defined, so that every caller in every engine gets
checked results. Methods of fastcnn's own classes are left as they are and cost nothing.

Methods get arrays that cannot be written to, because other layers, the loss or the caller read the
same arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import FunctionType
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.core.quoting import quoted

Check: TypeAlias = Callable[..., Any]
"""Takes the object, the user's method as a function, and its arguments; returns the result."""
Call: TypeAlias = Callable[..., Any]
"""A method of a user's object, as its check calls it."""
Contract: TypeAlias = Mapping[str, Check]
"""The checks of a base class's methods by their names."""


class Source(NamedTuple):
    """A method of an object, for error messages; its text is built only when an error needs it.

    >>> str(Source([], "append"))
    '[].append'
    """

    thing: object
    method: str

    def __str__(self) -> str:
        return f"{quoted(self.thing)}.{self.method}"


def check_methods(kind: type, contract: Contract, every: Collection[str] = ()) -> None:
    """Put the checks of a contract around the user's methods of a class.

    Methods that the class inherits from a user's base, such as a mixin, are checked too. ``every``
    names fastcnn's own methods that call the user's methods; these are checked as well. A call
    through ``super()`` is not checked, because its result belongs to the calling method.
    """
    if is_own(kind):
        return
    for name, check in contract.items():
        owner = next((one for one in kind.__mro__ if name in vars(one)), None)
        if owner is None or (is_own(owner) and name not in every):
            continue
        method = vars(owner)[name]
        if isinstance(method, property):
            setattr(kind, name, _checked_property(method, check))
        elif not hasattr(method, "is_checked"):
            setattr(kind, name, _checked_method(name, method, check))


def _checked_method(name: str, method: Any, check: Check) -> Any:
    def checked(self: Any, *arguments: Any, **more: Any) -> Any:
        call = method.__get__(self, type(self)) if hasattr(method, "__get__") else method
        if getattr(type(self), name) is not checked:
            return call(*arguments, **more)
        return check(self, call, *arguments, **more)

    if callable(method):
        wraps(method)(checked)
    checked.is_checked = True  # type: ignore[attr-defined]
    return checked


def _checked_property(getter: property, check: Check) -> property:
    return property(lambda self: check(self, lambda: getter.__get__(self)), getter.fset)


def refuse_method(thing: object, name: str, contract: Contract) -> None:
    """Raise a ``TypeError`` if ``name`` is a method of the contract, set on one object.

    Such a method would have no check, and compiled programs would not call it.
    """
    if name in contract:
        raise TypeError(
            f"{name} of {quoted(thing)} cannot be replaced in one object; derive a class from "
            f"{type(thing).__name__} and override it there"
        )


def refuse_methods(thing: object, contract: Contract) -> None:
    """Raise the ``TypeError`` of :func:`refuse_method` if an object replaces one of its methods."""
    for name in contract:
        method = getattr(type(thing), name, None)
        # The bound method is compared, because reading the object's dict would slow the object
        # (see FixedAttributes).
        if not isinstance(method, FunctionType):
            continue
        if getattr(getattr(thing, name), "__func__", None) is not method:
            refuse_method(thing, name, contract)


# --- checks ---------------------------------------------------------------------------------------


def described(value: object) -> str:
    """The text for a result in an error: dtype and shape of an array, or any other value.

    >>> described(np.zeros((2, 3))), described(None)
    ('float64 of shape (2, 3)', 'None')
    """
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return quoted(value)


def refuse(
    source: object, requirement: str, value: object, error: type[Exception] = ValueError
) -> NoReturn:
    """Raise the error for a result that cannot be used."""
    raise error(f"{source} must return {requirement}, got {described(value)}")


def real_numbers(source: object, requirement: str, value: object) -> Array:
    """A result as an array of real numbers, of any shape; a view, not a copy.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for ragged lists.
    """
    try:
        array: Array = np.asarray(value)[...]  # a view, because the user may reshape the original
    except ValueError:
        refuse(source, requirement, value)
    if array.dtype.kind not in "fiub":
        refuse(source, requirement, value, TypeError)
    return array


def numbers(
    source: object, what: str, value: object, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> Array:
    """A result as a new C-contiguous array of this shape and dtype.

    Raises ``TypeError`` if it does not hold real numbers, and ``ValueError`` for another shape.

    >>> numbers("f", "an output", [[1], [2]], (2, 1), np.dtype("float32"))
    array([[1.],
           [2.]], dtype=float32)
    >>> numbers("f", "an output", np.zeros(3), (2, 1), np.dtype("float32"))
    Traceback (most recent call last):
    ValueError: f must return an output of shape (2, 1), got float64 of shape (3,)
    """
    requirement = f"{what} of shape {shape}"
    array = real_numbers(source, requirement, value)
    if array.shape != shape:
        refuse(source, requirement, value)
    with np.errstate(all="ignore"):  # a number too large for the dtype becomes infinite
        return np.array(array, dtype, order="C")


def finite(source: object, what: str, array: Array, *inputs: Array) -> None:
    """Raise ``FloatingPointError`` if a result is not finite although its inputs are."""
    if not np.isfinite(array).all() and all(np.isfinite(one).all() for one in inputs):
        raise FloatingPointError(f"{source} returned {what} with NaN or infinity")


def count_to(source: object, most: int, value: object, *, nan: bool) -> float:
    """A result as a number from 0 to ``most``; with ``nan``, it may also be NaN for "no number".

    >>> count_to("f", 3, np.array(2), nan=False)
    2.0
    """
    requirement = f"a number from 0 to {most}"
    array = real_numbers(source, requirement, value)
    if array.shape != ():
        refuse(source, requirement, value)
    number = float(array)
    if not 0 <= number <= most and not (nan and number != number):
        refuse(source, requirement, value)
    return number


def sizes(source: object, requirement: str, value: object) -> tuple[int, ...]:
    """A result as a shape: integers of at least 1.

    >>> sizes("f", "a shape", [np.int64(3), 4])
    (3, 4)
    """
    if not isinstance(value, tuple | list):
        refuse(source, requirement, value, TypeError)
    for side in value:
        if not isinstance(side, int | np.integer) or isinstance(side, bool):
            refuse(source, requirement, value, TypeError)
        if side < 1:
            refuse(source, requirement, value)
    return tuple(map(int, value))


def read_only(array: object) -> Array:
    """A view that cannot be written to."""
    view: Array = np.asarray(array)[...]
    view.flags.writeable = False
    return view


@contextmanager
def unchanged_by_errors(arrays: Iterable[Array]) -> Iterator[None]:
    """Within this context, an error or an interrupt restores the arrays' earlier numbers.

    >>> a = np.zeros(1)
    >>> try:
    ...     with unchanged_by_errors([a]):
    ...         a += 1
    ...         raise ValueError
    ... except ValueError:
    ...     print(a)
    [0.]
    """
    before = [(array, array.copy()) for array in arrays]
    try:
        yield
    except BaseException:
        for array, values in before:
            array[...] = values
        raise
