"""The decorators of kernels, and the cache policy with its reasons.

``kernel`` is for functions that Python calls, ``ordered_kernel`` where parentheses matter. The
flags, and ``device`` for what kernels call, are in :mod:`fastcnn.kernels.inlining`: that is
compiled into them, so it needs no cache entry of its own.

**Cache.** Numba's own cache looks at the one file that holds a function: after an edit in an
imported helper it would run the old code. It keeps an index beside the code, which processes that
start together write over each other, and it believes whatever bytes it finds. Here each kernel is
one file for each combination of types and constants, written whole or not at all. It begins with
a hash of all that the code depends on (every source file that can reach it, the processor, the
versions) and one of the code itself; a file that lacks either is as good as none. The folder is
the first that can be written to of ``NUMBA_CACHE_DIR``, the package's ``__pycache__`` and the
user's cache folder; without any, kernels compile in each process. Processes that want the same
kernel at once take turns, and one compiles (:mod:`fastcnn.kernels.compile_turn`). A broken or
unwritable cache costs time, never an answer.

**Fork.** A fork waits until no other thread compiles: the compiler's lock, held by a thread that
the child does not have, would never open there.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any, cast

import numba
from numba.core import config
from numba.core.caching import _Cache as NumbaCache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from fastcnn.kernels.calls import job
from fastcnn.kernels.compile_turn import CompileTurn
from fastcnn.kernels.inlining import FLAGS, ORDERED, Function, inlined
from fastcnn.kernels.jobs import share

_PACKAGE = Path(__file__).resolve().parent.parent


def kernel(function: Function) -> Function:
    """Compile a function of a range, ``function(start, stop, *arguments)``, for the thread driver.

    It takes two arguments more, in front: the ``board`` from which others take pieces of the range,
    and how many ``pieces`` there may be; see :mod:`fastcnn.kernels.jobs`.
    """
    return _launched(function, FLAGS)


def ordered_kernel(function: Function) -> Function:
    """As :func:`kernel`, but sums are taken in the order that is written, each step rounded.

    For kernels whose parentheses keep digits, where ``reassoc`` would lose them: of
    ``(x - largest) - log_total`` it makes ``x - (largest + log_total)``. And for those that round
    as NumPy does, where ``contract`` would make one step of a product and a sum.
    """
    return _launched(function, ORDERED)


def compiled(function: Function) -> Function:
    """Compile a function of any form on its first call with each combination of types."""
    return cast(Function, _cached(function, FLAGS))


def fused(function: Function) -> Function:
    """As :func:`compiled`, with fused multiply-adds and no other algebra on numbers.

    For a probe of the hardware, whose chain of multiply-adds must not be made shorter.
    """
    return cast(Function, _cached(function, {**FLAGS, "fastmath": {"contract"}}))


# Written out for each kernel: of ``*arguments`` Numba makes one argument, a tuple, but who calls a
# kernel by its address hands over each by itself.
_LAUNCH = """
def made(kernel):
    def run(_board, _pieces, {parameters}):
        _task, _kept = job(kernel, ({arguments},))
        share(_board, _pieces, start, stop, _task, _kept)
    return run
"""


def _launched(function: Function, flags: dict[str, Any]) -> Function:
    parameters = list(signature(function).parameters)
    assert parameters[:2] == ["start", "stop"], function
    source = _LAUNCH.format(parameters=", ".join(parameters), arguments=", ".join(parameters[2:]))
    scope: dict[str, Any] = {"__name__": __name__, "job": job, "share": share}
    exec(compile(source, __file__, "exec"), scope)
    run = scope["made"](inlined(function, flags))
    run.__name__, run.__qualname__ = function.__name__, function.__qualname__
    run.__module__ = function.__module__
    return cast(Function, _cached(run, flags))


def _cached(function: Callable[..., Any], flags: dict[str, Any]) -> Any:
    made = numba.njit(**flags)(function)
    if not config.DISABLE_JIT:
        folder = cache_folder()
        if folder is not None:
            made._cache = _Cache(function, folder)
    return made


@lru_cache(maxsize=1)
def source_stamp() -> str:
    """Hash of all that compiled code depends on: the kernels' sources and the geometry's."""
    digest = sha256()
    others = [_PACKAGE / f"{name}.py" for name in ("geometry", "minimal_filtering", "version")]
    for path in [*sorted((_PACKAGE / "kernels").glob("*.py")), *others]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@lru_cache(maxsize=1)
def cache_folder() -> Path | None:
    """Where compiled kernels are kept; None where nothing can be written."""
    of_user = Path(AppDirs(appname="fastcnn", appauthor=False).user_cache_dir)
    folders = [
        Path(config.CACHE_DIR) / "fastcnn" if config.CACHE_DIR else None,
        _PACKAGE / "kernels" / "__pycache__",
        of_user if of_user.is_absolute() else None,  # "~" stays as it is without a home
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


class _Cache(NumbaCache):  # type: ignore[misc]
    """The compiled code of one function on the disk, one file for each specialisation."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._function, self._folder, self._enabled = function, folder, True
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"

    @property
    def cache_path(self) -> str:
        return str(self._folder)

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        for path in self._folder.glob(f"{self._name}-*.nbc"):
            path.unlink(missing_ok=True)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        if not self._enabled:
            return None
        path, stamp = self._place(sig, target_context.codegen())
        found = _read(path, stamp, target_context)
        if found is None:
            _turn.take(path)
            found = _read(path, stamp, target_context)  # another process may have written it
            if found is not None:
                _turn.give()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        if self._enabled and not data.lifted and not data.library.has_dynamic_globals:
            path, stamp = self._place(sig, data.codegen)
            _write(path, stamp, dumps(data._reduce()))
        _turn.give()

    def _place(self, sig: Any, codegen: Any) -> tuple[Path, bytes]:
        """The file of a specialisation, and the hash that its contents begin with.

        The name is the same for all versions, so that a new one takes the old one's place.
        """
        key = repr((sig, codegen.magic_tuple(), _constants(self._function))).encode()
        versions = f"{numba.__version__} {sys.implementation.cache_tag} {source_stamp()}".encode()
        path = self._folder / f"{self._name}-{sha256(key).hexdigest()[:32]}.nbc"
        return path, sha256(versions + b"\0" + key).digest()


_HASH = sha256().digest_size
_turn = CompileTurn()


def _read(path: Path, stamp: bytes, target_context: Any) -> Any:
    """What is compiled, or None where the file does not hold this version of it, whole."""
    try:
        contents = path.read_bytes()
        code = contents[2 * _HASH :]
        if contents[: 2 * _HASH] != stamp + sha256(code).digest():
            return None
        return CompileResult._rebuild(target_context, *pickle.loads(code))
    except Exception:  # code that cannot be rebuilt here is compiled
        return None


def _write(path: Path, stamp: bytes, code: bytes) -> None:
    name = None
    try:
        handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(stamp + sha256(code).digest() + code)
        os.replace(name, path)
    except OSError:  # the disk is full, or the folder gone
        if name is not None:
            with suppress(OSError):
                os.unlink(name)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
