"""Lists of kernels compiled before they are needed, where it pays by two processes.

Most of the time goes into Numba's compiler, which is Python: threads would wait for each other. So
a helper, a Python of its own, takes the list from its end while this process takes it from its
beginning. They share the cache on the disk, in which processes take turns for each kernel. The
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

from fastcnn.files import write_whole
from fastcnn.kernels import compile_notice
from fastcnn.kernels.code_key import version_stamp
from fastcnn.kernels.kernel_cache import KernelCache, cache_folders
from fastcnn.kernels.rehearsal import Request
from fastcnn.settings import get_num_threads

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
    left = missing(requests)
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
            _end(helper)
    return total


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
        if files and all(any((f / file).exists() for f in cache_folders().read) for file in files):
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


def _start_helper(requests: list[Request]) -> subprocess.Popen[bytes] | None:
    """A process that compiles the list from its end, or None where it does not pay."""
    if len(requests) < WORTH_A_HELPER or get_num_threads() < 2 or getattr(sys, "frozen", False):
        return None
    if not sys.executable or not all(isinstance(r.kernel._cache, KernelCache) for r in requests):
        return None
    recipes = [(recipe_of(request.kernel), request.signature) for request in reversed(requests)]
    jobs = [(recipe, signature) for recipe, signature in recipes if recipe is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"FASTCNN_NUM_THREADS": "1"}
    try:
        helper = subprocess.Popen(
            [sys.executable, "-m", "fastcnn.kernels.compile_helper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except (OSError, ValueError):  # no more processes, say: this one compiles all
        return None
    assert helper.stdin is not None
    with suppress(OSError):  # it has died already
        helper.stdin.write(pickle.dumps(jobs))
        helper.stdin.close()
    return helper


def _end(helper: subprocess.Popen[bytes]) -> None:
    """Wait for a helper that is done; stop one that is not, because its caller gave up."""
    try:
        helper.wait(0.5)
    except subprocess.TimeoutExpired:
        helper.terminate()
        helper.wait()


def recipe_of(kernel: Any) -> tuple[str, str, tuple[Any, ...] | None] | None:
    """How another process gets this kernel: a module, a name in it, and what its factory takes."""
    recipe: tuple[str, str, tuple[Any, ...]] | None = getattr(kernel, "recipe", None)
    if recipe is not None:
        return recipe
    for name, module in list(sys.modules.items()):
        if name.startswith("fastcnn.kernels."):
            for attribute, value in vars(module).items():
                if value is kernel:
                    return name, attribute, None
    return None


def kernel_of(recipe: tuple[str, str, tuple[Any, ...] | None]) -> Any:
    """The kernel of a recipe."""
    module, name, literals = recipe
    value = getattr(import_module(module), name)
    return value if literals is None else value(*literals)
