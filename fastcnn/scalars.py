"""What constructors take as numbers, decided once; every error names the argument."""

from __future__ import annotations

from math import inf, isfinite

import numpy as np

from fastcnn.geometry import integer


def count(name: str, value: object, least: int = 1) -> int:
    """``value`` as an int of at least ``least``.

    >>> count("epochs", 3)
    3
    """
    if type(value) is int and value >= least:
        return value  # nearly always, and a prediction of one sample is short
    number_ = integer(name, value, value)
    if number_ < least:
        raise ValueError(f"{name} must be at least {least}, got {number_}")
    return number_


def truth(name: str, value: object) -> bool:
    """``value`` as a bool.

    >>> truth("shuffle", True)
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def number(name: str, value: object) -> float:
    """``value`` as a finite float of at least 0.

    >>> number("rate", 1)
    1.0
    """
    if isinstance(value, bool | str):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        found = float(value)  # type: ignore[arg-type]  # float() itself refuses what is none
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    except OverflowError:  # an integer beyond all floats
        found = inf
    if not isfinite(found) or found < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
    return found


def above_zero(name: str, value: object) -> float | None:
    """``value`` as a finite float above 0; None stays None.

    >>> above_zero("clip_norm", 2)
    2.0
    """
    if value is None:
        return None
    found = number(name, value)
    if found == 0:
        raise ValueError(f"{name} must be above 0, or None, got {value!r}")
    return found


def below_one(name: str, value: object) -> float:
    """``value`` as a float of at least 0 and below 1.

    >>> below_one("momentum", 0.9)
    0.9
    """
    found = number(name, value)
    if found >= 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}")
    return found


def share(name: str, value: object) -> float:
    """``value`` as a float from 0 to 1.

    >>> share("slope", 1)
    1.0
    """
    found = number(name, value)
    if found > 1:
        raise ValueError(f"{name} must be at least 0 and at most 1, got {value!r}")
    return found
