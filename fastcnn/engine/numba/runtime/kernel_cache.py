"""Compiled kernels on the disk.

Numba's own cache looks at the one file that holds a function: after an edit in an imported helper
it would run the old code. It keeps an index beside the code, which processes that start together
write over each other, and it believes whatever bytes it reads. Here each kernel is one file for
each combination of types and constants, written whole or not at all. The file begins with a hash
of everything that the code depends on (:mod:`fastcnn.engine.numba.runtime.code_key`) and a hash of
the code itself; a file in which either is wrong counts as none.

**Symbols.** Code from a file is used only if no other code of this process defines one of its
symbols with other contents. Symbols hold the key of their code, so this does not happen by itself;
it would make the linker take one kernel for another.

**Folders.** ``NUMBA_CACHE_DIR``, the package's ``__pycache__`` and the user's cache folder, in this
order, to the first that can be written to. Kernels are read from each and written to the last: so
a container image can hold compiled kernels in a folder that is read-only when it runs. Where no
folder can be written to, kernels that are in none compile in each process. So do all kernels where
neither sources nor Python's code can be read, because nothing tells versions apart then. Processes
that want the same kernel at once take turns, and one compiles: see
:mod:`fastcnn.engine.numba.runtime.compile_turn`. A broken or unwritable cache costs time, never an
answer.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

from llvmlite import binding
from numba.core import config
from numba.core.caching import _Cache as NumbaCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from fastcnn.engine.numba.runtime import compile_notice
from fastcnn.engine.numba.runtime.code_key import (
    PACKAGE,
    code_key,
    constants,
    source_stamp,
    version_stamp,
)
from fastcnn.engine.numba.runtime.compile_turn import is_taken, turn

_HASH = sha256().digest_size
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_contents: dict[str, bytes] = {}
"""For each symbol that this process has loaded or compiled for the cache, a hash of its code."""


class Folders(NamedTuple):
    """Where compiled kernels are looked for, in this order, and where new ones are written."""

    read: tuple[Path, ...]
    write: Path | None


@lru_cache(maxsize=1)
def cache_folders() -> Folders:
    """The folders of this process; read only once, when the first kernel is made."""
    if source_stamp() is None:
        return Folders((), None)
    of_user = Path(AppDirs(appname="fastcnn", appauthor=False).user_cache_dir)
    folders = [
        Path(config.CACHE_DIR) / "fastcnn" if config.CACHE_DIR else None,
        # Not in a program with its modules inside, which has no folder of that name.
        # Not ``Path.is_dir``, because that raises where this user may not look.
        PACKAGE / "__pycache__" if os.path.isdir(PACKAGE) else None,
        of_user if of_user.is_absolute() else None,  # "~" stays as it is without a home
    ]
    read: list[Path] = []
    for folder in folders:
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            if os.access(folder, os.R_OK | os.X_OK):
                read.append(folder)
            continue
        return Folders((*read, folder), folder)
    return Folders(tuple(read), None)


def cache_folder() -> Path | None:
    """Where compiled kernels are written; None where nothing can be written."""
    return cache_folders().write


class KernelCache(NumbaCache):  # type: ignore[misc]
    """The compiled code of one function on the disk, one file for each specialisation.

    Args:
        function: the function that Numba compiles.
        fastmath: the liberties with numbers that it is compiled with.
        folders: where the files are.
    """

    def __init__(self, function: Callable[..., Any], fastmath: set[str], folders: Folders) -> None:
        self._function, self._fastmath, self._folders = function, fastmath, folders
        self._enabled = True
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"

    @property
    def cache_path(self) -> str:
        return str(self._folders.write or self._folders.read[-1])

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        if self._folders.write is not None:
            for path in self._folders.write.glob(f"{self._name}-*.nbc"):
                path.unlink(missing_ok=True)

    def file_name(self, signature: Any, target_context: Any) -> str:
        """The name of the file for these types, in whichever folder."""
        return self._place(signature, target_context.codegen())[0]

    def holds(self, signature: Any, target_context: Any) -> bool:
        """Whether there is a file of this version for these types; its contents are not checked."""
        name, stamp = self._place(signature, target_context.codegen())
        for folder in self._folders.read:
            try:
                with (folder / name).open("rb") as file:
                    if file.read(_HASH) == stamp:
                        return True
            except OSError:
                continue
        return False

    def is_compiled_elsewhere(self, signature: Any, target_context: Any) -> bool:
        """Whether another process compiles this kernel now."""
        folder = self._folders.write
        return folder is not None and is_taken(folder / self.file_name(signature, target_context))

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """The compiled code for arguments of these types, or None, after which Numba compiles."""
        target_context.refresh()
        if not self._enabled:
            return None
        name, stamp = self._place(sig, target_context.codegen())
        for folder in self._folders.read:
            result = _read(folder / name, stamp, target_context)
            if result is not None:
                return result
        if self._folders.write is not None:
            path = self._folders.write / name
            turn.take(path)
            result = _read(path, stamp, target_context)  # another process may have written it
            if result is not None:
                turn.give()
                return result
        compile_notice.notice.begin()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what Numba compiled."""
        if self._enabled and not data.lifted and not data.library.has_dynamic_globals:
            name, stamp = self._place(sig, data.codegen)
            # There is no machine code to keep if a signal handler raised an error while LLVM handed
            # it over, because errors do not pass through LLVM. The kernel runs all the same.
            with suppress(RuntimeError):
                if self._folders.write is not None:
                    _write(self._folders.write / name, stamp, _packed(data))
        turn.give()
        compile_notice.notice.end()

    def _place(self, sig: Any, target: Any) -> tuple[str, bytes]:
        """The name of a specialisation's file, and the hash that its contents begin with.

        The name is the same for all versions, so that a new one takes the old one's place.
        """
        name = repr((constants(self._function), sig, sorted(self._fastmath), target.magic_tuple()))
        file_name = f"{self._name}-{sha256(name.encode()).hexdigest()[:32]}.nbc"
        key = code_key(self._function, sig, self._fastmath, target)
        return file_name, sha256(f"{version_stamp()}\0{key}".encode()).digest()


def _packed(result: CompileResult) -> bytes:
    """Machine code and what Numba must know of it.

    Without the type annotation, for which Numba would read the function's source. In place of the
    intermediate code, which nobody needs because no kernel is linked into another, there are empty
    functions: Numba reads from it which symbols the machine code has.
    """
    symbols = result.library.symbols()
    (name, kind, (code, _)), *rest = result._replace(type_annotation="")._reduce()
    digest = sha256(code).digest()
    _contents.update(dict.fromkeys(symbols, digest))
    names = "".join(f'define void @"{symbol}"() {{ ret void }}\n' for symbol in symbols)
    stand_in = binding.parse_assembly(names).as_bitcode()
    state: bytes = dumps(((name, kind, (code, stand_in)), *rest))
    return pickle.dumps((symbols, digest)) + state


def _unpacked(packed: bytes, target_context: Any) -> CompileResult | None:
    """The code of :func:`_packed`, or None where its symbols belong to other code here."""
    stream = BytesIO(packed)
    symbols, digest = pickle.load(stream)
    if any(_contents.get(symbol, digest) != digest for symbol in symbols):
        return None
    result = CompileResult._rebuild(target_context, *pickle.load(stream))
    _contents.update(dict.fromkeys(symbols, digest))
    return result


def symbols_in(path: Path) -> list[str]:
    """The symbols that a file of the cache defines."""
    return _symbols_and_digest(path)[0]


def _symbols_and_digest(path: Path) -> tuple[list[str], bytes]:
    """What comes before the code, so that its modules need not be there."""
    with path.open("rb") as file:
        file.seek(2 * _HASH)
        symbols, digest = pickle.load(file)
    return symbols, digest


def shared_symbols(folder: Path) -> dict[str, list[str]]:
    """Symbols that several files of a folder define with different code, and these files' names.

    Empty unless the cache is broken.
    """
    files: dict[str, dict[bytes, str]] = {}
    for path in sorted(folder.glob("*.nbc")):
        symbols, digest = _symbols_and_digest(path)
        for symbol in symbols:
            files.setdefault(symbol, {})[digest] = path.name
    return {symbol: list(by.values()) for symbol, by in files.items() if len(by) > 1}


def _read(path: Path, stamp: bytes, target_context: Any) -> CompileResult | None:
    """The compiled code, or None where the file does not hold this version of it, whole."""
    try:
        contents = path.read_bytes()
        packed = contents[2 * _HASH :]
        if contents[: 2 * _HASH] != stamp + sha256(packed).digest():
            return None
        return _unpacked(packed, target_context)
    except Exception:  # code that cannot be rebuilt here is compiled
        return None


def _write(path: Path, stamp: bytes, packed: bytes) -> None:
    name = None
    try:
        name = str(path.with_name(f"{path.stem}.{token_hex(8)}.tmp"))
        # Readable for others, as the umask allows: they may run what one compiles.
        handle = os.open(name, _NEW, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(stamp + sha256(packed).digest() + packed)
        os.replace(name, path)
    except OSError:  # the disk is full, or the folder gone
        if name is not None:
            with suppress(OSError):
                os.unlink(name)
