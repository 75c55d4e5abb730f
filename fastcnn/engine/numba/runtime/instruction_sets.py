"""The instruction sets that kernels are chosen for, and the one that they are compiled for.

Which kernel serves a problem, with which register tile, follows from the problem and from the
vector registers alone: choosers ask :func:`registers`, nothing else about the machine. So each
choice can be computed on any host, without compiling anything:

    >>> from fastcnn.engine.numba.contraction.chooser import tile_for
    >>> with choosing_for("neon"):
    ...     tile_for(rows=784, columns=32, itemsize=4)
    Tile(rows=14, vectors=2, lanes=4)
    >>> with choosing_for("avx2"):
    ...     tile_for(rows=784, columns=32, itemsize=4)
    Tile(rows=6, vectors=2, lanes=8)

What is compiled is always for the host, :func:`host_registers`. A kernel that was chosen for
another instruction set gives the same results here; only its tile does not fit the registers.
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

Result = TypeVar("Result")


@lru_cache(maxsize=1)
def host_registers() -> Registers:
    """The registers that Numba compiles for.

    Read from its target, ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` included.
    """
    return INSTRUCTION_SETS[_host()]


def _host() -> str:
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
    """The registers that kernels are chosen for: the host's, but within :func:`choosing_for`."""
    return _chosen or host_registers()


@contextmanager
def choosing_for(isa: str) -> Iterator[Registers]:
    """Choose kernels as on a host with this instruction set, one of :data:`INSTRUCTION_SETS`.

    For tests and for those who want to know, in one thread: it holds for the whole process, and
    all that is cached of other choices is forgotten. Models that have run keep their kernels.

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


def _use(host: Registers | None) -> None:
    global _chosen
    _chosen = host
    for choice in _choices:
        choice.cache_clear()


def cached_choice(function: Callable[..., Result]) -> _lru_cache_wrapper[Result]:
    """Cache a function that follows from its arguments and :func:`registers`.

    A plain ``lru_cache`` would hand out what was chosen for another instruction set.
    """
    choice = lru_cache(maxsize=1024)(function)
    _choices.append(choice)
    return choice


class Choice(NamedTuple):
    """Which kernel it is: the name of its factory, and the literals that it was made with."""

    name: str
    literals: dict[str, Any]

    def __str__(self) -> str:
        """The name, the sides of the tile, and all other literals that are not 0.

        >>> str(Choice("winograd", {"m": 4, "r": 3, "rows": 14, "vectors": 2, "lanes": 16}))
        'winograd 14×2×16: m=4, r=3'
        """
        sides = [str(self.literals[side]) for side in _SIDES if side in self.literals]
        others = []
        for name, value in self.literals.items():
            if name in _SIDES:
                continue
            if not isinstance(value, int):
                others.append(str(value))
            elif value:
                others.append(name if value is True else f"{name}={value}")
        return f"{self.name} {'×'.join(sides)}" + (f": {', '.join(others)}" if others else "")


_SIDES = ("rows", "vectors", "lanes")


def kernel_factory(function: Callable[..., Any]) -> _lru_cache_wrapper[Any]:
    """Cache a function that makes a kernel from the sides of its tile and other literals.

    It must not ask :func:`registers`: all that the kernel depends on is in its arguments. The
    kernel's attribute ``choice`` says what it is, see :func:`choice_of`.
    """

    @wraps(function)
    def make(*literals: Any) -> Any:
        kernel = function(*literals)
        names = signature(function).parameters
        kernel.choice = Choice(
            function.__name__.strip("_"), dict(zip(names, literals, strict=True))
        )
        kernel.recipe = function.__module__, function.__name__, literals
        return kernel

    return cache(make)


def choice_of(kernel: Any) -> Choice:
    """What a kernel of a :func:`kernel_factory` is."""
    choice: Choice = kernel.choice
    return choice
