"""Lists of kernels compiled before they are needed, where it pays by two processes.

Most of the time goes into Numba's compiler, which is Python: threads would wait for each other. So
a helper, a Python of its own, goes through the same list, and each takes the first kernel that the
other is not at. The longest come first, so that both are done at about the same time. They share
the cache on the disk, in which processes take turns for each kernel. The
helper is started where there is a cache, where this process may use two threads, and where the
list is long enough to be worth its start. Without it, or if it dies, this process compiles all.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from hashlib import sha256
from importlib import import_module
from typing import Any

from numba.core.registry import cpu_target

from fastcnn.core.files import write_whole
from fastcnn.core.settings import get_num_threads
from fastcnn.engine.numba.runtime import compile_notice
from fastcnn.engine.numba.runtime.code_key import PACKAGE, functions_in, version_stamp
from fastcnn.engine.numba.runtime.compile_turn import CompileTurn
from fastcnn.engine.numba.runtime.kernel_cache import KernelCache, cache_folders
from fastcnn.engine.numba.runtime.rehearsal import Request

WORTH_A_HELPER = 4
"""Kernels to compile, at least, for which a helper is started: it takes 0.6 s to begin."""

Progress = Callable[[int, int], None]
"""Told how many kernels are done, and of how many."""


def missing(requests: Iterable[Request]) -> list[Request]:
    """Those that are neither compiled in this process nor in the cache."""
    return [
        request
        for request in requests
        if request.signature not in request.kernel.overloads and not _is_kept(request)
    ]


def compile_all(requests: Iterable[Request], progress: Progress | None = None) -> int:
    """Compile the kernels that are missing; how many were.

    Those that are in the cache already, or that a helper compiles, are not loaded. ``progress`` is
    told about each; without it a line on the standard error says what is going on, if it lasts.
    """
    left = sorted(missing(requests), key=_length, reverse=True)
    total = len(left)
    if not total:
        return 0
    helper = _start_helper(left)
    try:
        with nullcontext() if progress is None else compile_notice.notice.silenced():
            while left:
                if progress is not None:
                    progress(total - len(left), total)
                left = _compile_one(left)
        if progress is not None:
            progress(total, total)
    finally:
        if helper is not None:
            helper.end()
    return total


def _length(request: Request) -> int:
    """How long a kernel is, in bytes of Python's code, with the functions that it is made of."""
    functions = functions_in(request.kernel.py_func)
    return sum(len(function.__code__.co_code) for function in functions)


def _compile_one(left: list[Request]) -> list[Request]:
    """Compile the first kernel that no other process compiles now; return the others."""
    left = [request for request in left if not _is_kept(request)]
    for request in left:
        if not _is_compiled_elsewhere(request):
            break
    else:
        if not left:
            return []
        request = left[0]  # waits for the other process
    request.kernel.compile(request.signature)
    return [other for other in left if other is not request]


def _is_kept(request: Request) -> bool:
    cache, target = request.kernel._cache, request.kernel.targetctx
    return isinstance(cache, KernelCache) and cache.holds(request.signature, target)


def _is_compiled_elsewhere(request: Request) -> bool:
    cache, target = request.kernel._cache, request.kernel.targetctx
    return isinstance(cache, KernelCache) and cache.is_compiled_elsewhere(request.signature, target)


# --- nets that are known --------------------------------------------------------------------------


def is_recorded(net: str) -> bool:
    """Whether the cache says which kernels a net needs, and holds files for all of them."""
    name = _record_name(net)
    for folder in cache_folders().read:
        try:
            files = (folder / name).read_text("ascii").split()
        except (OSError, ValueError):
            continue
        if files and all(
            any(os.path.exists(f / file) for f in cache_folders().read) for file in files
        ):
            return True
    return False


def record(net: str, requests: Iterable[Request]) -> None:
    """Note in the cache which kernels a net needs, if they all are there."""
    requests, folder = list(requests), cache_folders().write
    if folder is None or not all(map(_is_kept, requests)):
        return
    files = [r.kernel._cache.file_name(r.signature, r.kernel.targetctx) for r in requests]
    with suppress(OSError):
        write_whole(folder / _record_name(net), "\n".join(sorted(set(files))).encode("ascii"))


def _record_name(net: str) -> str:
    target = cpu_target.target_context.codegen().magic_tuple()
    text = f"{version_stamp()}\0{target!r}\0{net}"
    return f"net-{sha256(text.encode()).hexdigest()[:32]}.txt"


# --- the helper -----------------------------------------------------------------------------------


class _Helper:
    """A process that compiles a list of kernels, and the turn that says that it is the only one.

    Processes and threads that want kernels of one cache at once have one helper in all: more would
    take the cores from them. The system takes the turn from this process however it ends, and
    the helper ends when its input does.
    """

    def __init__(self, process: subprocess.Popen[bytes], turn: CompileTurn) -> None:
        self._process, self._turn = process, turn

    def end(self) -> None:
        """End the helper: it is done, or its caller gave up. What it wrote is whole or absent."""
        self._process.kill()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process.wait()
        self._turn.give()


def _start_helper(requests: list[Request]) -> _Helper | None:
    """A helper that compiles the list too, or None where it does not pay."""
    folder = cache_folders().write
    if len(requests) < WORTH_A_HELPER or get_num_threads() < 2 or folder is None:
        return None
    if not _is_python() or not all(isinstance(r.kernel._cache, KernelCache) for r in requests):
        return None
    recipes = [(recipe_of(request.kernel), request.signature) for request in requests]
    jobs = [(recipe, signature) for recipe, signature in recipes if recipe is not None]
    turn = CompileTurn()
    if not turn.take(folder / "helper", patience=0):
        return None
    try:
        process = subprocess.Popen(
            # Isolated, so that no file of the current folder is taken for a module.
            [sys.executable, "-I", "-B", "-c", _HELPER, *_import_path()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "FASTCNN_NUM_THREADS": "1"},
        )
    except (OSError, ValueError, RuntimeError):  # no more processes, or none while Python ends
        turn.give()
        return None
    helper = _Helper(process, turn)
    try:
        with suppress(OSError):  # it has died already
            _send(process, jobs)
    except BaseException:
        helper.end()
        raise
    return helper


def _send(process: subprocess.Popen[bytes], jobs: object) -> None:
    """Write the list to its input, which stays open: its end would end the helper."""
    if process.stdin is not None:
        process.stdin.write(pickle.dumps(jobs))
        process.stdin.flush()


_HELPER = """
import sys
sys.path[:] = sys.argv[1:]
from fastcnn.engine.numba.runtime.compile_helper import main
main()
"""


def _import_path() -> list[str]:
    """Where the helper finds modules: as this process, but never in the current folder as such."""
    return [*filter(os.path.isabs, sys.path), str(PACKAGE.parent)]


def _is_python() -> bool:
    """Whether ``sys.executable`` is an interpreter, and no program with one inside."""
    name = os.path.basename(sys.executable or "").lower()
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


def recipe_of(kernel: Any) -> tuple[str, str, tuple[Any, ...] | None] | None:
    """How another process gets this kernel: a module, a name in it, and what its factory takes."""
    recipe: tuple[str, str, tuple[Any, ...]] | None = getattr(kernel, "recipe", None)
    if recipe is not None:
        return recipe
    for name, module in list(sys.modules.items()):
        if name.startswith("fastcnn.engine.numba."):
            for attribute, value in vars(module).items():
                if value is kernel:
                    return name, attribute, None
    return None


def kernel_of(recipe: tuple[str, str, tuple[Any, ...] | None]) -> Any:
    """The kernel of a recipe."""
    module, name, literals = recipe
    value = getattr(import_module(module), name)
    return value if literals is None else value(*literals)
