"""Lists of kernels that are compiled before they are needed, by two processes if it pays.

It runs before a model's first prediction and first training step. Numba's compiler is Python code,
so threads would wait for each other. Therefore a helper, another Python process, goes through the
same list, and each process takes the first kernel that the other does not compile. The longest
kernels come first, so that both processes end at about the same time. They share the cache on the
disk (:mod:`fastcnn.engine.numba.runtime.compile_turn`). The helper is started if there is a cache,
if this process may use two threads, and if the list is long enough to be worth the start. Without
the helper, or if it dies, this process compiles all kernels.
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
from typing import Any, TypeAlias

from numba.core.registry import cpu_target

from fastcnn.core.files import write_whole
from fastcnn.core.settings import get_num_threads
from fastcnn.engine.numba.runtime import compile_notice
from fastcnn.engine.numba.runtime.code_key import PACKAGE, functions_in, version_stamp
from fastcnn.engine.numba.runtime.compile_turn import CompileTurn
from fastcnn.engine.numba.runtime.kernel_cache import KernelCache, cache_folders
from fastcnn.engine.numba.runtime.rehearsal import Request
from fastcnn.engine.numba.runtime.types import Kernel

WORTH_A_HELPER = 4
"""Kernels in a list for which a helper is started, at least; fewer are done before it begins."""

Progress: TypeAlias = Callable[[int, int], None]
"""A function that gets the number of kernels that are done, and the number of all."""
Recipe: TypeAlias = tuple[str, str, tuple[Any, ...] | None]
"""How another process gets a kernel: a module, a name in it, and the arguments of a factory."""


def missing(requests: Iterable[Request]) -> list[Request]:
    """The requests whose kernels are neither compiled in this process nor in the cache."""
    return [
        request
        for request in requests
        if request.signature not in request.kernel.overloads and not _is_kept(request)
    ]


def compile_all(requests: Iterable[Request], progress: Progress | None = None) -> int:
    """Compile the kernels that are missing; return how many were.

    Kernels that are in the cache, or that a helper compiles, are not loaded. ``progress`` is called
    before each kernel and at the end; without it a line on the standard error says that kernels
    compile, if it takes long.
    """
    waiting = sorted(missing(requests), key=_length, reverse=True)
    total = len(waiting)
    if not total:
        return 0
    helper = _start_helper(waiting)
    try:
        with nullcontext() if progress is None else compile_notice.notice.silenced():
            while waiting:
                if progress is not None:
                    progress(total - len(waiting), total)
                waiting = _compile_one(waiting)
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
    """Whether the cache holds the kernel."""
    cache, target = request.kernel._cache, request.kernel.targetctx
    return isinstance(cache, KernelCache) and cache.holds(request.signature, target)


def _is_compiled_elsewhere(request: Request) -> bool:
    """Whether another process compiles the kernel now."""
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
    """Note in the cache which kernels a net needs, if the cache holds all of them."""
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
    """A process that compiles a list of kernels, and the turn that makes it the only one.

    All processes and threads that use one cache have one helper, because more helpers would take
    the cores from them. The system takes the turn from this process in whichever way it ends, and
    the helper ends when its input does.
    """

    def __init__(self, process: subprocess.Popen[bytes], turn: CompileTurn) -> None:
        self._process, self._turn = process, turn

    def end(self) -> None:
        """End the helper, which is done or not needed; the files that it wrote are whole."""
        self._process.kill()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process.wait()
        self._turn.give()


def _start_helper(requests: list[Request]) -> _Helper | None:
    """A helper that compiles the list too, or None if it does not pay."""
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
    """Write the list to the helper's input, which stays open because its end ends the helper."""
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
    """The folders of modules for the helper: this process's, but no relative ones."""
    return [*filter(os.path.isabs, sys.path), str(PACKAGE.parent)]


def _is_python() -> bool:
    """Whether ``sys.executable`` is an interpreter, not a program that contains one."""
    name = os.path.basename(sys.executable or "").lower()
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


def recipe_of(kernel: Kernel) -> Recipe | None:
    """The recipe of a kernel: that of its factory, or the name that a module has for it."""
    recipe: Recipe | None = getattr(kernel, "recipe", None)
    if recipe is not None:
        return recipe
    for name, module in list(sys.modules.items()):
        if name.startswith("fastcnn.engine.numba."):
            for attribute, value in vars(module).items():
                if value is kernel:
                    return name, attribute, None
    return None


def kernel_of(recipe: Recipe) -> Kernel:
    """The kernel of a recipe."""
    module, name, literals = recipe
    value = getattr(import_module(module), name)
    kernel: Kernel = value if literals is None else value(*literals)
    return kernel
