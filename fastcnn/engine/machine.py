"""Facts about this machine and its software: processor, registers, threads, cache, versions."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from fastcnn.core import hardware
from fastcnn.core.settings import current_thread_limit, processors
from fastcnn.engine.registry import engines
from fastcnn.version import __version__

_PACKAGES = ("numpy", "numba", "llvmlite", "rich", "typer", "safetensors", "scikit-learn", "pillow")


def facts() -> dict[str, Any]:
    """The facts by name, as JSON values. None means that something is not installed or unknown.

    >>> facts()["engines"][-1]
    'naive'
    """
    limit = current_thread_limit()
    return {
        "fastcnn": __version__,
        "folder": str(Path(__file__).parents[1]),
        "processor": hardware.processor_name(),
        "architecture": platform.machine(),
        "system": platform.platform(terse=True),
        "cores": hardware.cores(),
        "usable_cores": processors(),
        "threads": limit.threads,
        "threads_decided_by": limit.decided_by,
        "engines": list(engines()),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        **_compiler(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _compiler() -> dict[str, Any]:
    """Facts about compiled kernels. Numba is imported, if it is installed."""
    if "numba" not in engines():
        return {"isa": None, "vector_bytes": None, "kernel_cache": None}
    from fastcnn.engine.numba.runtime.instruction_sets import host_registers
    from fastcnn.engine.numba.runtime.kernel_cache import cache_folder

    folder = cache_folder()
    return {
        "isa": host_registers().isa,
        "vector_bytes": host_registers().vector_bytes,
        "kernel_cache": None if folder is None else str(folder),
    }
