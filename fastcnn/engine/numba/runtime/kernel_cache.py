"""Compiled kernels on the disk, which are read at a kernel's first call with its types.

Numba's own cache is not safe here. It checks only the source file that holds a function, so after
an edit in an imported helper it would run the old code. It keeps an index beside the code, which
processes that start together overwrite. It does not check the bytes that it reads. In this cache
each combination of a kernel, types and constants is one file, written whole or not at all. The file
begins with a hash of everything that the code depends on
(:mod:`fastcnn.engine.numba.runtime.code_key`) and a hash of the code itself. A file with another
hash is ignored.

**Symbols.** Code from a file is used only if no other code of this process defines one of its
symbols with other contents, because the linker would take one kernel for the other. Symbols hold
the key of their code, so two such files do not arise by themselves.

**Folders.** The folders are ``NUMBA_CACHE_DIR``, the package's ``__pycache__`` and the user's cache
folder, in this order, up to the first that is writable. Kernels are read from all of them and
written to the last. So a container image can hold compiled kernels in a folder that is read-only
when it runs. If no folder is writable, each process compiles the kernels that are in none. Each
process compiles all kernels if neither sources nor Python's code can be read, because nothing tells
versions apart then. Processes that need the same kernel at once take turns, and one compiles it:
see :mod:`fastcnn.engine.numba.runtime.compile_turn`. A broken cache costs time, never an answer.
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
from numba.core.codegen import CPUCodegen
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from fastcnn.engine.numba.runtime import compile_notice
from fastcnn.engine.numba.runtime.code_key import (
    PACKAGE,
    code_key,
    constants,
    source_stamp,
)
from fastcnn.engine.numba.runtime.compile_turn import is_taken, turn
from fastcnn.engine.numba.runtime.types import Context, Types

_HASH = sha256().digest_size
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_contents: dict[str, bytes] = {}
"""For each symbol that this process has loaded or compiled for the cache, a hash of its code."""


class Folders(NamedTuple):
    """The folders from which kernels are read, in this order, and the one for new kernels."""

    read: tuple[Path, ...]
    write: Path | None


@lru_cache(maxsize=1)
def cache_folders() -> Folders:
    """The folders of this process, which are found once, when the first kernel is made."""
    if source_stamp() is None:
        return Folders((), None)
    of_user = Path(AppDirs(appname="fastcnn", appauthor=False).user_cache_dir)
    folders = [
        Path(config.CACHE_DIR) / "fastcnn" if config.CACHE_DIR else None,
        # A program with its modules inside has no folder of this name.
        # ``Path.is_dir`` would raise an error in a folder that this user may not read.
        PACKAGE / "__pycache__" if os.path.isdir(PACKAGE) else None,
        of_user if of_user.is_absolute() else None,  # without a home it begins with "~"
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
    """The folder for new kernels; None if no folder is writable."""
    return cache_folders().write


class KernelCache(NumbaCache):  # type: ignore[misc]
    """The compiled code of one function on the disk, one file for each specialisation.

    Args:
        function: the function that Numba compiles.
        fastmath: the fast-math flags that it is compiled with.
        folders: the folders of the files.
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

    def file_name(self, signature: Types, target_context: Context) -> str:
        """The name of the file for these types, which is the same in all folders."""
        return self._name_and_stamp(signature, target_context.codegen())[0]

    def holds(self, signature: Types, target_context: Context) -> bool:
        """Whether there is a file of this version for these types; the code is not checked."""
        name, stamp = self._name_and_stamp(signature, target_context.codegen())
        for folder in self._folders.read:
            try:
                with (folder / name).open("rb") as file:
                    if file.read(_HASH) == stamp:
                        return True
            except OSError:
                continue
        return False

    def is_compiled_elsewhere(self, signature: Types, target_context: Context) -> bool:
        """Whether another process compiles this kernel now."""
        folder = self._folders.write
        return folder is not None and is_taken(folder / self.file_name(signature, target_context))

    def load_overload(self, signature: Types, target_context: Context) -> CompileResult | None:
        """The compiled code for arguments of these types; after None Numba compiles it."""
        target_context.refresh()
        if not self._enabled:
            return None
        name, stamp = self._name_and_stamp(signature, target_context.codegen())
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

    def save_overload(self, signature: Types, data: CompileResult) -> None:
        """Write the code that Numba compiled to a file, and end the turn."""
        if self._enabled and not data.lifted and not data.library.has_dynamic_globals:
            name, stamp = self._name_and_stamp(signature, data.codegen)
            # If a signal handler raises an error while LLVM returns the machine code, the error is
            # lost in LLVM and there is no code to write. The kernel runs all the same.
            with suppress(RuntimeError):
                if self._folders.write is not None:
                    _write(self._folders.write / name, stamp, _packed(data))
        turn.give()
        compile_notice.notice.end()

    def _name_and_stamp(self, signature: Types, target: CPUCodegen) -> tuple[str, bytes]:
        """The name of a specialisation's file, and the hash that its contents begin with.

        The name is the same for all versions, so that a new version overwrites an old one.
        """
        name = repr(
            (constants(self._function), signature, sorted(self._fastmath), target.magic_tuple())
        )
        file_name = f"{self._name}-{sha256(name.encode()).hexdigest()[:32]}.nbc"
        key = code_key(self._function, signature, self._fastmath, target)
        return file_name, sha256(key.encode()).digest()


def _packed(result: CompileResult) -> bytes:
    """The bytes of machine code and of the facts that Numba needs for it.

    The type annotation is left out, because Numba would read the function's source for it. The
    intermediate code is replaced by empty functions: no kernel is linked into another, and Numba
    reads from it only the symbols of the machine code.
    """
    symbols = result.library.symbols()
    (name, kind, (code, _)), *rest = result._replace(type_annotation="")._reduce()
    digest = sha256(code).digest()
    _contents.update(dict.fromkeys(symbols, digest))
    names = "".join(f'define void @"{symbol}"() {{ ret void }}\n' for symbol in symbols)
    stand_in = binding.parse_assembly(names).as_bitcode()
    state: bytes = dumps(((name, kind, (code, stand_in)), *rest))
    return pickle.dumps((symbols, digest)) + state


def _unpacked(packed: bytes, target_context: Context) -> CompileResult | None:
    """The code of :func:`_packed`, or None if a symbol belongs to other code of this process."""
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
    """The part of a file before the code, which can be read without the code's modules."""
    with path.open("rb") as file:
        file.seek(2 * _HASH)
        symbols, digest = pickle.load(file)
    return symbols, digest


def shared_symbols(folder: Path) -> dict[str, list[str]]:
    """Symbols that several files of a folder define with different code, with the files' names.

    It is empty unless the cache is broken.
    """
    files: dict[str, dict[bytes, str]] = {}
    for path in sorted(folder.glob("*.nbc")):
        symbols, digest = _symbols_and_digest(path)
        for symbol in symbols:
            files.setdefault(symbol, {})[digest] = path.name
    return {symbol: list(by.values()) for symbol, by in files.items() if len(by) > 1}


def _read(path: Path, stamp: bytes, target_context: Context) -> CompileResult | None:
    """The compiled code of a file, or None if the file is damaged or of another version."""
    try:
        contents = path.read_bytes()
        packed = contents[2 * _HASH :]
        if contents[: 2 * _HASH] != stamp + sha256(packed).digest():
            return None
        return _unpacked(packed, target_context)
    except Exception:  # code that cannot be loaded here is compiled
        return None


def _write(path: Path, stamp: bytes, packed: bytes) -> None:
    """Write a file whole, or not at all."""
    name = None
    try:
        name = str(path.with_name(f"{path.stem}.{token_hex(8)}.tmp"))
        # As for any new file, the umask decides which other users may read it and load its code.
        handle = os.open(name, _NEW, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(stamp + sha256(packed).digest() + packed)
        os.replace(name, path)
        name = None
    except OSError:  # the disk is full, or the folder gone
        pass
    finally:
        if name is not None:
            with suppress(OSError):
                os.unlink(name)
