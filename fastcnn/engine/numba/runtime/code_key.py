"""The key of compiled code, from which its file in the cache and its symbols are named.

Two pieces of compiled code may stand in one process only if their symbols differ: the linker knows
code by its symbol alone, and of two that are equal it takes one. Numba numbers the functions that
a process compiles, so code that different processes have written to the cache can have equal
symbols and different contents. Here each symbol holds a key that follows from everything the code
is made of, in every process the same: the sources, the versions, the processor, the function, the
values that it is closed over, the types of its arguments, and the flags.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from secrets import token_hex
from types import CodeType
from typing import Any

import llvmlite
import numba
from numba.core import config

PACKAGE = Path(__file__).resolve().parents[3]
FORMAT = 3
"""Version of the cache's files; code of another version is compiled anew."""

# Modules outside of the kernels that their code depends on.
_OTHERS = ("core.geometry", "core.long_sums", "core.minimal_filtering", "version")
_DIGITS = 24  # of a key: 96 bits


_PROCESS = token_hex()
"""Stands in for the stamp where there is none: no other process has code under these keys."""


@lru_cache(maxsize=1)
def source_stamp() -> str | None:
    """Hash of all modules that compiled code depends on: the kernels' and the geometry's.

    It is taken of their sources, or of Python's code for them where there are no sources: in an
    installation of ``.pyc`` files, or in a program with its modules inside. None where there is
    neither. Then no compiled code is kept, because nothing would tell one version from another.
    """
    digest = sha256()
    try:
        names = [*_modules_of("fastcnn.engine.numba")]
        for name in (*names, *(f"fastcnn.{one}" for one in _OTHERS)):
            digest.update(name.encode() + b"\0" + _contents_of(name) + b"\0")
    except (ImportError, OSError, AttributeError, SyntaxError, UnicodeError):
        return None
    return digest.hexdigest() if names else None


def _modules_of(package: str) -> Iterator[str]:
    """The names of a package and of all modules in it, in order."""
    yield package
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    modules = sorted(iter_modules(folders, f"{package}."), key=lambda module: module.name)
    if not modules:
        raise ImportError(f"{package} does not tell its modules")
    for module in modules:
        if module.ispkg:
            yield from _modules_of(module.name)
        else:
            yield module.name


def _contents_of(name: str) -> bytes:
    """What a module is made of: its source if this is what runs, else Python's code."""
    spec = find_spec(name)
    loader: Any = spec.loader if spec else None
    source: str | None = None if _runs_whatever_the_source(spec) else loader.get_source(name)
    if source is not None:
        return b"source\0" + source.encode()
    code = loader.get_code(name)
    if code is None:
        raise ImportError(f"{name} has neither source nor code")
    return b"code\0" + repr(code_contents(code)).encode(errors="surrogatepass")


def _runs_whatever_the_source(spec: ModuleSpec | None) -> bool:
    """Whether there is a compiled file that Python takes without a look at the source."""
    if spec is None or not spec.cached or not os.path.exists(spec.cached):
        return False
    with open(spec.cached, "rb") as file:
        return file.read(8)[4:] == _UNCHECKED


_UNCHECKED = (1).to_bytes(4, "little")  # flags of such a file, after its magic number (PEP 552)


def code_contents(code: CodeType) -> tuple[Any, ...]:
    """Everything in Python's code that decides what it does, the same in every process.

    >>> one, other = (compile(f"def f(x): return {n} in x", "", "exec") for n in ("1", "True"))
    >>> code_contents(one) == code_contents(other)
    False
    """
    names = code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    values = [_constant_contents(value) for value in code.co_consts]
    return (names, counts, code.co_code, code.co_exceptiontable, values)


def _constant_contents(value: Any) -> Any:
    if isinstance(value, CodeType):
        return code_contents(value)
    if isinstance(value, tuple):
        return ["tuple", *map(_constant_contents, value)]
    if isinstance(value, frozenset):  # in an order that depends on the process
        return ["frozenset", *sorted(repr(_constant_contents(one)) for one in value)]
    return type(value).__name__, repr(value)


def version_stamp() -> str:
    """What turns sources into code, by versions and by Numba's settings, and the sources."""
    versions = numba.__version__, llvmlite.__version__, sys.implementation.cache_tag
    settings = config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.BOUNDSCHECK
    stamp = source_stamp() or _PROCESS
    return f"{FORMAT} {' '.join(map(str, (*versions, *settings)))} {stamp}"


def constants(function: Callable[..., Any]) -> tuple[Any, ...]:
    """What tells functions of one source apart: the values they are closed over, in depth.

    Raises ``TypeError`` for a value whose text does not determine it, such as an object that is
    shown by its address: two processes could then take different code for the same.

    >>> constants(constants)
    ('fastcnn.engine.numba.runtime.code_key', 'constants')
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
