"""The decorator of the public functions, and the sentences that their documentation shares.

A function's own docstring describes its own arguments, its result, and an example.
:func:`operation` adds the arguments that many functions have, and the errors, so that
``help(fastcnn.conv2d)`` shows all of them. It returns the function itself, so a call costs nothing
more.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

from fastcnn.core.docstrings import completed, entries
from fastcnn.core.operations import PUBLIC

Function = TypeVar("Function", bound=Callable[..., Any])

FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""The public functions by name; :func:`operation` enters them."""

PARAMETERS = """
dy: gradient of the output, the shape of x.
activation: "relu" replaces negative results by 0 before they are stored; None keeps all.
    Default None.
algorithm: "direct", "winograd" (float32, filters of 3×3 or 5×5, stride 1, no dilation, one
    group; see :mod:`fastcnn.core.minimal_filtering`), "im2col", or "auto" for the fastest that
    ``math`` allows. Default "auto".
math: the algorithms for "auto". "fast" allows Winograd's filtering and "strict" does not; None
    means :func:`fastcnn.get_math`. :mod:`fastcnn.core.settings` says more. Default None.
engine: the name of an engine, one of :func:`fastcnn.engines`, or None for the fastest that
    serves the call. Default None.
"""
"""Descriptions of the arguments that functions of several kinds share."""

RAISES = """
Raises:
    TypeError, ValueError: an argument has the wrong type, shape or value. The message names the
        argument and its value.
    ImportError: the engine that ``engine`` names cannot run here.
    MemoryError: the result is larger than the memory of the machine.
"""


def operation(sentences: str = "") -> Callable[[Function], Function]:
    """A decorator that makes a function the public function of the operation with its name.

    ``sentences`` describes arguments that the functions of one file share, in the form of
    :data:`PARAMETERS`. A docstring's own description of an argument comes before both.
    """

    def declared(function: Function) -> Function:
        plain = cast(FunctionType, function)
        if plain.__name__ not in PUBLIC:
            raise LookupError(f"{plain.__name__} is not declared in fastcnn/core/operations.py")
        if plain.__doc__ is not None:  # python -OO leaves docstrings out
            code = plain.__code__
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            shared = entries(PARAMETERS) | entries(sentences)
            plain.__doc__ = completed(plain.__doc__, names, shared, RAISES)
        FUNCTIONS[plain.__name__] = function
        return function

    return declared
