"""The key of compiled code, from which its file in the cache and its symbols are named.

The linker knows code by its symbol alone: if two pieces of code in one process have the same
symbol, it takes one for both. Numba numbers the functions that a process compiles, so code that two
processes have written to the cache can have equal symbols and different contents. Here each symbol
holds a key that follows from everything that the code is made of: the sources, the versions, the
processor, the function, the values that it is closed over, the types of its arguments, and the
flags. The key is the same in every process.

The sources are all modules of the compiled engine, and the modules of fastcnn that they import. A
kernel that stands elsewhere adds its own module and the modules of fastcnn that it imports.

The module runs when kernels are made, compiled, and looked up in the cache.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
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

_ENGINE = "fastcnn.engine.numba"
_DIGITS = 24  # of a key: 96 bits
_PROCESS = token_hex()
"""Replaces the stamp if there is none, so that no other process has code with these keys."""
# Imports from the package: a module, and the names that are imported from it.
_FROM = re.compile(r"from (fastcnn\.[\w.]+) import (\([^)]*\)|.*)")
_IMPORT = re.compile(r"import (fastcnn\.[\w.]+)()")
_WORD = re.compile(r"\w+")
_UNREADABLE = (ImportError, OSError, AttributeError, SyntaxError, ValueError)


@lru_cache(maxsize=1)
def source_stamp() -> str | None:
    """Hash of all modules that kernels of the compiled engine depend on.

    The hash is taken of their sources. An installation of ``.pyc`` files, or a program that
    contains its modules, has no sources; then it is taken of Python's byte code. It is None if
    there is neither, and no compiled code is kept then, because versions cannot be told apart.
    """
    try:
        return _stamp([*_modules_of(_ENGINE), "fastcnn.version"])
    except _UNREADABLE:
        return None


@cache
def _module_stamp(name: str) -> str | None:
    """The hash of one module outside of the compiled engine, and of its imports."""
    try:
        return _stamp([name])
    except _UNREADABLE:
        return None


def _stamp(names: list[str]) -> str:
    """Hash of these modules, and of the modules of fastcnn that they import, in depth.

    Imports from the compiled engine are not followed, because each key holds its stamp.
    """
    contents: dict[str, bytes] = {}
    while names:
        name = names.pop()
        if name not in contents:
            contents[name], imports = _contents_of(name)
            names += [module for module in imports if not module.startswith(_ENGINE)]
    digest = sha256()
    for name in sorted(contents):
        digest.update(name.encode() + b"\0" + contents[name] + b"\0")
    return digest.hexdigest()


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


def _contents_of(name: str) -> tuple[bytes, set[str]]:
    """The contents of a module, and the modules of fastcnn that it imports.

    The contents are its source if the source is what runs, else Python's code.
    """
    spec = find_spec(name)
    loader: Any = spec.loader if spec else None
    source: str | None = None if _runs_whatever_the_source(spec) else loader.get_source(name)
    if source is not None:
        imports = [*_FROM.findall(source), *_IMPORT.findall(source)]
        modules = {m for base, names in imports for m in _modules_in(base, _WORD.findall(names))}
        return b"source\0" + source.encode(), modules
    code = loader.get_code(name)
    if code is None:
        raise ImportError(f"{name} has neither source nor code")
    # Only modules of imports have a dot in their names; the imported names are among the others.
    modules = {
        module
        for names in _names_in(code)
        for base in names
        if base.startswith("fastcnn.")
        for module in _modules_in(base, names)
    }
    return b"code\0" + repr(code_contents(code)).encode(errors="surrogatepass"), modules


def _modules_in(base: str, names: Iterable[str]) -> list[str]:
    """A module, and the modules in it that have one of these names."""
    if base.startswith(_ENGINE):
        return [base]
    spec = find_spec(base)
    if spec is None or spec.submodule_search_locations is None:
        return [base]
    inside = (f"{base}.{name}" for name in names if "." not in name)
    return [base, *filter(find_spec, inside)]


def _names_in(code: CodeType) -> Iterator[tuple[str, ...]]:
    """The names that Python's code uses, and those of each function in it."""
    yield code.co_names
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _names_in(value)


def _runs_whatever_the_source(spec: ModuleSpec | None) -> bool:
    """Whether there is a compiled file that Python runs without a look at the source."""
    if spec is None or not spec.cached or not os.path.exists(spec.cached):
        return False
    with open(spec.cached, "rb") as file:
        return file.read(8)[4:] == _UNCHECKED


_UNCHECKED = (1).to_bytes(4, "little")  # flags of such a file, after its magic number (PEP 552)


def code_contents(code: CodeType) -> tuple[Any, ...]:
    """Everything in Python's code that decides its behaviour, the same in every process.

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
    """The versions and settings of the compilers, and the stamp of the sources."""
    versions = numba.__version__, llvmlite.__version__, sys.implementation.cache_tag
    settings = config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.BOUNDSCHECK
    stamp = source_stamp() or _PROCESS
    return f"{FORMAT} {' '.join(map(str, (*versions, *settings)))} {stamp}"


def functions_in(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """A function, and the compiled functions that it is closed over, in depth, each once."""
    functions = [function]
    for one in functions:  # the list grows meanwhile
        cells = [cell.cell_contents for cell in one.__closure__ or ()]
        inner = [value.py_func for value in cells if hasattr(value, "py_func")]
        functions += [each for each in inner if each not in functions]
    return functions


def _stamps_outside(function: Callable[..., Any]) -> list[str]:
    """The stamps of the functions in a function whose modules are outside of the compiled engine.

    If a module cannot be read, as when a function was typed in, the function's code is its stamp.
    """
    return [
        _module_stamp(one.__module__) or repr(code_contents(one.__code__))
        for one in functions_in(function)
        if not f"{one.__module__}.".startswith(f"{_ENGINE}.")
    ]


def constants(function: Callable[..., Any]) -> tuple[Any, ...]:
    """The values that a function is closed over, in depth, with its module and its name.

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
        return constants(inspect.unwrap(value._defn))
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

    ``fastmath`` are the fast-math flags; ``target`` is Numba's code generator, which knows the
    processor.
    """
    of_function = constants(function), _stamps_outside(function)
    facts = *of_function, tuple(types), sorted(fastmath), target.magic_tuple()
    text = f"{version_stamp()}\0{facts!r}"
    return sha256(text.encode()).hexdigest()[:_DIGITS]
