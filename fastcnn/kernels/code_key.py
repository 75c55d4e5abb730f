"""The key of compiled code, from which its file in the cache and its symbols are named.

Two pieces of compiled code may stand in one process only if their symbols differ: the linker knows
code by its symbol alone, and of two that are equal it takes one. Numba numbers the functions that
a process compiles, so code that different processes have written to the cache can have equal
symbols and different contents. Here each symbol holds a key that follows from everything the code
is made of, in every process the same: the sources, the versions, the processor, the function, the
values that it is closed over, the types of its arguments, and the flags.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config

PACKAGE = Path(__file__).resolve().parent.parent
FORMAT = 3
"""Version of the cache's files; code of another version is compiled anew."""

_DIGITS = 24  # of a key: 96 bits


@lru_cache(maxsize=1)
def source_stamp() -> str:
    """Hash of all source files that compiled code depends on: the kernels' and the geometry's."""
    digest = sha256()
    others = [PACKAGE / f"{name}.py" for name in ("geometry", "minimal_filtering", "version")]
    for path in [*sorted((PACKAGE / "kernels").rglob("*.py")), *others]:
        name = path.relative_to(PACKAGE).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def version_stamp() -> str:
    """What turns sources into code, by versions and by Numba's settings, and the sources."""
    versions = numba.__version__, llvmlite.__version__, sys.implementation.cache_tag
    settings = config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.BOUNDSCHECK
    return f"{FORMAT} {' '.join(map(str, (*versions, *settings)))} {source_stamp()}"


def constants(function: Callable[..., Any]) -> tuple[Any, ...]:
    """What tells functions of one source apart: the values they are closed over, in depth.

    Raises ``TypeError`` for a value whose text does not determine it, such as an object that is
    shown by its address: two processes could then take different code for the same.

    >>> constants(constants)
    ('fastcnn.kernels.code_key', 'constants')
    """
    values: list[Any] = [cell.cell_contents for cell in function.__closure__ or ()]
    values += function.__defaults__ or ()
    inner = [_constant(function, value) for value in values]
    return (function.__module__, function.__qualname__, *inner)


def _constant(function: Callable[..., Any], value: Any) -> Any:
    if hasattr(value, "py_func"):  # a compiled function
        return (*constants(value.py_func), *sorted(value.targetoptions.get("fastmath", ())))
    if hasattr(value, "_defn"):  # an intrinsic
        return constants(value._defn)
    text = repr(value)
    if " at 0x" in text:
        raise TypeError(
            f"{function.__qualname__} must be closed over values that their text determines, "
            f"got {text}"
        )
    return text


def code_key(
    function: Callable[..., Any], types: Iterable[Any], fastmath: Iterable[str], target: Any
) -> str:
    """The key of a function that is compiled for arguments of these types.

    ``fastmath`` are the compiler's liberties with numbers; ``target`` is Numba's code generator,
    which knows the processor.
    """
    parts = constants(function), tuple(types), sorted(fastmath), target.magic_tuple()
    text = f"{version_stamp()}\0{parts!r}"
    return sha256(text.encode()).hexdigest()[:_DIGITS]
