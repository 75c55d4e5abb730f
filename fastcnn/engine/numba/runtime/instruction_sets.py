"""The instruction sets for which kernels are chosen, and the one for which they are compiled.

The kernel of a problem and its register tile follow from the problem and from the vector registers
alone. Choosers ask :func:`registers` and nothing else about the machine, when an operation meets a
geometry for the first time. So each choice can be computed on any host, without compiling:

    >>> from fastcnn.engine.numba.contraction.chooser import tile_for
    >>> with choosing_for("neon"):
    ...     tile_for(rows=784, columns=32, itemsize=4)
    Tile(rows=14, vectors=2, lanes=4)
    >>> with choosing_for("avx2"):
    ...     tile_for(rows=784, columns=32, itemsize=4)
    Tile(rows=6, vectors=2, lanes=8)

Kernels are always compiled for the host, :func:`host_registers`. A kernel that was chosen for
another instruction set gives the same results on the host, but its tile does not fit the registers.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import _lru_cache_wrapper, cache, lru_cache, wraps
from inspect import signature
from typing import Any, NamedTuple, TypeVar

from llvmlite import binding
from numba.core import config

from fastcnn.core.hardware import INSTRUCTION_SETS, Registers
from fastcnn.core.settings import forget_choices

Result = TypeVar("Result")


@lru_cache(maxsize=1)
def host_registers() -> Registers:
    """The registers of the processor that Numba compiles for.

    ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` can name another processor than the host's.
    """
    return INSTRUCTION_SETS[_host()]


def _host() -> str:
    """The name of the host's instruction set in :data:`INSTRUCTION_SETS`."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return "neon"
    if machine not in ("x86_64", "amd64"):
        return "baseline"
    name = config.CPU_NAME or binding.get_host_cpu_name()
    if config.CPU_NAME is None:
        features = {key for key, has in binding.get_host_cpu_features().items() if has}
    else:
        features = _features_of(name)
    for feature in (config.CPU_FEATURES or "").split(","):
        if feature[1:]:
            (features.add if feature[0] == "+" else features.discard)(feature[1:])
    if "avx512f" in features and "fma" in features:
        return "avx512"
    if "avx2" in features and "fma" in features:
        return "avx2"
    return "sse2"


def _features_of(cpu: str) -> set[str]:
    """Vector features of an x86 processor by its name in LLVM; none for a name not known."""
    wide = "skylake-avx512 cascadelake cooperlake cannonlake icelake tigerlake rocketlake "
    wide += "sapphirerapids graniterapids emeraldrapids znver4 znver5 x86-64-v4"
    if cpu.startswith(tuple(wide.split())):
        return {"avx2", "fma", "avx512f"}
    narrow = "haswell broadwell skylake znver alderlake core-avx2 x86-64-v3"
    return {"avx2", "fma"} if cpu.startswith(tuple(narrow.split())) else set()


_chosen: Registers | None = None
_choices: list[_lru_cache_wrapper[Any]] = []


def registers() -> Registers:
    """The registers for which kernels are chosen: the host's, unless in :func:`choosing_for`."""
    return _chosen or host_registers()


@contextmanager
def choosing_for(isa: str) -> Iterator[Registers]:
    """Choose kernels as on a host with this instruction set, one of :data:`INSTRUCTION_SETS`.

    It is for tests and for questions about other machines, in one thread: it holds for the whole
    process, and clears the caches of choices. Models that have run keep their kernels.

    >>> with choosing_for("sse2") as few:
    ...     few.vector_bytes, registers() is few
    (16, True)
    >>> registers() is host_registers()
    True
    """
    global _chosen
    before = _chosen
    _use(INSTRUCTION_SETS[isa])
    try:
        yield INSTRUCTION_SETS[isa]
    finally:
        _use(before)


def _use(chosen: Registers | None) -> None:
    """Choose kernels for these registers, or for the host's if None."""
    global _chosen
    _chosen = chosen
    for choice in _choices:
        choice.cache_clear()
    forget_choices()


def cached_choice(function: Callable[..., Result]) -> _lru_cache_wrapper[Result]:
    """Cache a function whose result follows from its arguments and :func:`registers`.

    A plain ``lru_cache`` would return a choice for another instruction set.
    """
    choice = lru_cache(maxsize=1024)(function)
    _choices.append(choice)
    return choice


class Choice(NamedTuple):
    """The identity of a kernel: the name of its factory, and the arguments of the factory."""

    name: str
    literals: dict[str, Any]

    def __str__(self) -> str:
        """The name, the sides of the tile, and all other literals that are not 0.

        >>> str(Choice("winograd", {"m": 4, "r": 3, "rows": 14, "vectors": 2, "lanes": 16}))
        'winograd 14×2×16: m=4, r=3'
        """
        sides = [str(self.literals[side]) for side in _SIDES if side in self.literals]
        details = []
        for name, value in self.literals.items():
            if name in _SIDES:
                continue
            if not isinstance(value, int):
                details.append(str(value))
            elif value:
                details.append(name if value is True else f"{name}={value}")
        name = f"{self.name} {'×'.join(sides)}" if sides else self.name
        return name + (f": {', '.join(details)}" if details else "")


_SIDES = ("rows", "vectors", "lanes")


def kernel_factory(function: Callable[..., Any]) -> _lru_cache_wrapper[Any]:
    """Cache a function that makes a kernel from the sides of its tile and other literals.

    The function must not ask :func:`registers`, because its arguments are all that the kernel
    depends on. The kernel gets two attributes: ``choice`` (:func:`choice_of`) and ``recipe``, from
    which another process can make it. Callers give all arguments by position; defaults do not work.
    """

    @wraps(function)
    def make(*literals: object) -> Any:
        kernel = function(*literals)
        names = signature(function).parameters
        kernel.choice = Choice(
            function.__name__.strip("_"), dict(zip(names, literals, strict=True))
        )
        kernel.recipe = function.__module__, function.__name__, literals
        return kernel

    return cache(make)


def choice_of(kernel: Any) -> Choice:
    """The factory and the literals of a kernel that a :func:`kernel_factory` made."""
    choice: Choice = kernel.choice
    return choice
