"""Checks of numbers and names, for constructors and functions; errors name the argument."""

from __future__ import annotations

from math import inf, isfinite
from typing import TypeVar

import numpy as np

from fastcnn.core.geometry import integer
from fastcnn.core.quoting import quoted

Name = TypeVar("Name", bound=str)

_FAR = 1 << 64


def count(name: str, value: object, least: int = 1) -> int:
    """``value`` as an int of at least ``least``.

    >>> count("epochs", 3)
    3
    """
    if type(value) is int and least <= value < _FAR:
        return value  # the usual case returns early, because it costs time in each prediction
    number_ = integer(name, value, value)
    if number_ < least:
        raise ValueError(f"{name} must be at least {least}, got {quoted(number_)}")
    return number_


def truth(name: str, value: object) -> bool:
    """``value`` as a bool.

    >>> truth("shuffle", True)
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {quoted(value)}")
    return bool(value)


def number(name: str, value: object) -> float:
    """``value`` as a finite float of at least 0.

    >>> number("rate", 1)
    1.0
    """
    if isinstance(value, bool | str):
        raise TypeError(f"{name} must be a number, got {quoted(value)}")
    try:
        result = float(value)  # type: ignore[arg-type]  # float() refuses other types
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {quoted(value)}") from None
    except OverflowError:  # an integer beyond all floats
        result = inf
    if not isfinite(result) or result < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {quoted(value)}")
    return result


def above_zero(name: str, value: object) -> float | None:
    """``value`` as a finite float above 0; None stays None.

    >>> above_zero("clip_norm", 2)
    2.0
    """
    if value is None:
        return None
    result = number(name, value)
    if result == 0:
        raise ValueError(f"{name} must be above 0, or None, got {quoted(value)}")
    return result


def below_one(name: str, value: object) -> float:
    """``value`` as a float of at least 0 and below 1.

    >>> below_one("momentum", 0.9)
    0.9
    """
    result = number(name, value)
    if result >= 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {quoted(value)}")
    return result


def share(name: str, value: object) -> float:
    """``value`` as a float from 0 to 1.

    >>> share("slope", 1)
    1.0
    """
    result = number(name, value)
    if result > 1:
        raise ValueError(f"{name} must be at least 0 and at most 1, got {quoted(value)}")
    return result


def one_of(name: str, value: object, names: tuple[Name, ...]) -> Name:
    """``value`` if it is one of the names; otherwise a ``ValueError``.

    >>> one_of("order", "DCR", ("DCR", "CRD"))
    'DCR'
    """
    if isinstance(value, str) and value in names:
        return names[names.index(value)]
    choices = ", ".join(f'"{each}"' for each in names)
    raise ValueError(f"{name} must be one of {choices}, got {quoted(value)}")


def generator(name: str, seed: object) -> np.random.Generator:
    """A new generator that starts from ``seed``.

    ``seed`` is an integer of at least 0, None for an unpredictable seed, or any other seed that
    NumPy takes, such as a ``SeedSequence``.

    >>> generator("seed", 3).integers(10)
    np.int64(8)
    """
    if isinstance(seed, np.random.SeedSequence | np.random.BitGenerator | np.random.Generator):
        return np.random.default_rng(seed)
    if seed is None:
        return np.random.default_rng()
    if isinstance(seed, list | tuple) and 0 < len(seed) < 100:  # NumPy's work grows with its square
        return np.random.default_rng([count(name, one, least=0) for one in seed])
    return np.random.default_rng(count(name, seed, least=0))
