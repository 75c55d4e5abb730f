"""The one decorator: every compile flag and the cache policy, each with its reason.

``kernel`` is for functions that Python calls (``ordered_kernel`` where parentheses matter),
``device`` for what kernels call (compiled into them, so it needs no cache entry of its own).

**Flags.** ``nogil``: the thread driver runs kernels on Python threads. ``error_model="numpy"``:
no test for division by zero in loops. Of the fast-math flags, those that keep NaN and infinity
what they are: with the full set ``isnan`` is false on NaN, with these it is not, and loops still
vectorise. Not ``arcp``: a product with a rounded reciprocal is not the quotient, and means of
integers must be exact. No ``parallel``: it triples the time to compile, and one thread driver is
enough.

**Cache.** Numba's own cache looks at the one file that holds a function: after an edit in an
imported helper it would run the old code. Here a kernel's entry carries a hash of every source
file that can reach it. The folder is the first that can be written to of ``NUMBA_CACHE_DIR``, the
package's ``__pycache__`` and the user's cache folder; without any, kernels compile in each
process. A broken or unwritable cache costs time, never an answer.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.misc.appdirs import AppDirs

from fastcnn.kernels.simd import store_release

Function = TypeVar("Function", bound=Callable[..., Any])

_FLAGS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"nsz", "contract", "afn", "reassoc"},
}
CACHE_LINE = 8  # words of 64 bits
NO_GATE = np.zeros(0, np.int64)
"""The gate of a kernel that nobody waits for."""
_PACKAGE = Path(__file__).resolve().parent.parent


def device(function: Function) -> Function:
    """Compile ``function`` into the kernels that call it.

    Inlined always: a call that hands over a few arrays by their parts costs as much as the sums
    of a small tile.
    """
    compiled: Function = numba.njit(forceinline=True, **_FLAGS)(function)
    return compiled


def kernel(function: Function) -> Function:
    """Compile a function of a range, ``function(start, stop, *arguments)``, for the thread driver.

    It takes two arguments more, in front: ``gate`` and ``number``. Before all else it writes the
    number to each cache line of the gate, where other threads wait for it. By then it has let go of
    the interpreter's lock, so that they can take it at once: written by Python, before the call,
    the number woke them into a wait for the lock, and a launch took 20 µs instead of 3.
    """
    return _gated(function, _FLAGS)


def ordered_kernel(function: Function) -> Function:
    """As :func:`kernel`, but sums are taken in the order that is written, each step rounded.

    For kernels whose parentheses keep digits, where ``reassoc`` would lose them: of
    ``(x - largest) - log_total`` it makes ``x - (largest + log_total)``. And for those that round
    as NumPy does, where ``contract`` would make one step of a product and a sum.
    """
    return _gated(function, {**_FLAGS, "fastmath": _FLAGS["fastmath"] - {"reassoc", "contract"}})


def compiled(function: Function) -> Function:
    """Compile a function of any form on its first call with each combination of types."""
    return cast(Function, _cached(function, _FLAGS))


def fused(function: Function) -> Function:
    """As :func:`compiled`, with fused multiply-adds and no other algebra on numbers.

    For a probe of the hardware, whose chain of multiply-adds must not be made shorter.
    """
    return cast(Function, _cached(function, {**_FLAGS, "fastmath": {"contract"}}))


# Written out for each kernel: a call with ``*arguments`` cannot be inlined before it is compiled,
# and then each kernel would be compiled twice, by itself and with the gate.
_LAUNCH = """
def made(kernel):
    def run(gate, number, {parameters}):
        for place in range(0, gate.size, {line}):
            store_release(gate, place, number)
        kernel({parameters})
    return run
"""


def _gated(function: Function, flags: dict[str, Any]) -> Function:
    source = _LAUNCH.format(parameters=", ".join(signature(function).parameters), line=CACHE_LINE)
    scope: dict[str, Any] = {"__name__": __name__, "store_release": store_release}
    exec(compile(source, __file__, "exec"), scope)
    run = scope["made"](numba.njit(inline="always", **flags)(function))
    run.__name__, run.__qualname__ = function.__name__, function.__qualname__
    return cast(Function, _cached(run, flags))


def _cached(function: Callable[..., Any], flags: dict[str, Any]) -> Any:
    made = numba.njit(**flags)(function)
    if not config.DISABLE_JIT:
        with suppress(RuntimeError):  # nowhere to write: compile in each process
            made._cache = _Cache(function)
    return made


@lru_cache(maxsize=1)
def source_stamp() -> str:
    """Hash of all that compiled code depends on: the kernels' sources and the geometry's."""
    digest = hashlib.sha256()
    others = [_PACKAGE / f"{name}.py" for name in ("geometry", "minimal_filtering", "version")]
    for path in [*sorted((_PACKAGE / "kernels").glob("*.py")), *others]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@lru_cache(maxsize=1)
def cache_folder() -> Path | None:
    """Where compiled kernels are kept; None where nothing can be written."""
    folders = [
        Path(config.CACHE_DIR) / "fastcnn" if config.CACHE_DIR else None,
        _PACKAGE / "kernels" / "__pycache__",
        Path(AppDirs(appname="fastcnn", appauthor=False).user_cache_dir),
    ]
    for folder in folders:
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return None


def _constants(function: Callable[..., Any]) -> tuple[Any, ...]:
    """What tells functions of one source apart: the values they are closed over, in depth."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    inner = [_constants(v.py_func) if hasattr(v, "py_func") else repr(v) for v in cells]
    return (function.__qualname__, *inner)


class _Locator(_CacheLocator):  # type: ignore[misc]
    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._folder = folder
        self._line = function.__code__.co_firstlineno
        self._py_file = function.__code__.co_filename

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return source_stamp()

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _Locator | None:
        folder = cache_folder()
        return None if folder is None else cls(function, folder)


class _CacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):  # type: ignore[misc]
    _impl_class = _CacheImpl

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        # Numba's key holds the pickled closure, and a pickled device function is new in each
        # process. Here the source is in the stamp already; what is left are the constants.
        return sig, codegen.magic_tuple(), _constants(self._py_func)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a truncated or foreign file raises whatever unpickling it meets
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:  # as above for the index that it reads first; or the disk is full
            return
