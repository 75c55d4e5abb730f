"""Facts about processors: registers, cache lines, caches, cores, memory.

The constants are the same on every machine. Kernels choose their tiles and cut their work by them,
so that a result never depends on the machine's caches or cores. The functions ask the system. Their
answers may decide only speed, and which arrays are refused as too large.
"""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

CACHE_LINE = 64
"""Bytes of a cache line. A line of 128 bytes, as on Apple's processors, counts as two."""
L2_BYTES = 1 << 20
"""Bytes of one core's second-level cache, as kernels assume. Processors have 256 KiB to 2 MiB per
core. A kernel that divides an array among caches uses at most half of this."""
L3_BYTES = 16 << 20
"""Bytes of the third-level cache for one core's share of a large array, as kernels assume."""


class Registers(NamedTuple):
    """Vector registers of an instruction set, and the register tile that fills them.

    Attributes:
        isa: name of the instruction set.
        number: how many vector registers there are.
        vector_bytes: bytes of each.
        tile_rows, tile_vectors: sides of the largest tile of accumulators. A tile of 14×2 on 32
            registers leaves one register for each vector of ``w`` and one for a broadcast; so does
            a tile of 6×2 on 16.
    """

    isa: str
    number: int
    vector_bytes: int
    tile_rows: int
    tile_vectors: int


INSTRUCTION_SETS = {
    each.isa: each
    for each in (
        Registers("avx512", 32, 64, 14, 2),
        Registers("avx2", 16, 32, 6, 2),
        Registers("sse2", 16, 16, 6, 2),
        Registers("neon", 32, 16, 14, 2),
        Registers("baseline", 16, 16, 6, 2),  # any other processor
    )
}
_UNKNOWN_MEMORY = 1 << 40


def processor_name() -> str:
    """The processor's name, according to the operating system.

    >>> processor_name() != ""
    True
    """
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model") and value.strip():
            return value.strip()
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            return answer.stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    return platform.processor() or platform.machine() or "unknown"


@cache
def second_level_cache() -> int:
    """Bytes of one core's second-level cache; :data:`L2_BYTES` if the system does not tell.

    >>> second_level_cache() >= 64 * 1024
    True
    """
    for index in range(8):
        folder = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        level, size = _text(f"{folder}/level").strip(), _text(f"{folder}/size").strip()
        kilobytes = size.removesuffix("K")
        if level == "2" and kilobytes.isdecimal():
            return max(64, int(kilobytes)) * 1024
    return L2_BYTES


@cache
def memory() -> int:
    """Bytes of this machine's memory.

    >>> memory() > 0
    True
    """
    try:
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # this system has no such setting
        return _UNKNOWN_MEMORY
    return pages * page if min(pages, page) > 0 else _UNKNOWN_MEMORY


def cores() -> int:
    """Processors of the machine, as the operating system counts them.

    >>> cores() >= 1
    True
    """
    return os.cpu_count() or 1


def affinity() -> int:
    """Processors that this process may run on.

    >>> 1 <= affinity() <= cores()
    True
    """
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # no affinity on this system
        return cores()


def quotas(cgroups: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> list[float]:
    """Limits of processor time from this process's control groups, in processors.

    Args:
        cgroups: the folder in which the system shows its control groups.
        own: the file that names the control groups of this process.

    >>> all(share > 0 for share in quotas())
    True
    """
    shares: list[float] = []
    for line in _text(own).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        names = [name for name in path.split("/") if name]
        for depth in range(len(names) + 1):
            folder = "/".join(filter(None, [cgroups, controllers, *names[:depth]]))
            if controllers:  # version 1
                words = [_text(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period")]
            else:
                words = _text(f"{folder}/cpu.max").split()
            if len(words) == 2 and all(word.strip().isdecimal() for word in words):
                quota, period = map(int, words)
                shares += [quota / period] if period else []
    return shares


def _text(path: str) -> str:
    """The text of a file; empty if the file cannot be read."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
